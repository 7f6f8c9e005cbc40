"""A decoder of pre-norm blocks over tokens: causal attention, then a perceptron with GELU, four times as wide."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.networks import parts
from benchmarks.workload import Arrays, Network, Parameter


def _module(lib: Any, depth: int, width: int, heads: int, tokens: int, words: int) -> Any:
    torch, nn, F = lib.torch, lib.nn, lib.F

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            batch = x.shape[0]
            q, k, v = self.qkv(self.norm1(x)).view(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, width))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(words, width)
            self.places = nn.Parameter(torch.zeros(tokens, width))
            self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words)

        def forward(self, x: Any) -> Any:
            return self.head(self.norm(self.blocks(self.words(x) + self.places)))

    return Transformer()


def _jax(j: Any, w: dict[str, Any], x: Any, depth: int, heads: int) -> Any:
    def norm(name: str, x: Any) -> Any:
        return parts.jax_layer_norm(j, x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = w["words.weight"][x] + w["places"]
    batch, tokens, width = x.shape
    for name in (f"blocks.{i}" for i in range(depth)):
        qkv = parts.jax_linear(w, f"{name}.qkv", norm(f"{name}.norm1", x))
        q, k, v = j.np.moveaxis(qkv.reshape(batch, tokens, 3, heads, width // heads), 2, 0)
        attended = j.nn.dot_product_attention(q, k, v, is_causal=True).reshape(batch, tokens, width)
        x = x + parts.jax_linear(w, f"{name}.out", attended)
        hidden = j.nn.gelu(parts.jax_linear(w, f"{name}.up", norm(f"{name}.norm2", x)), approximate=True)
        x = x + parts.jax_linear(w, f"{name}.down", hidden)
    return parts.jax_linear(w, "head", norm("norm", x)), {}


def _tinygrad(tg: Any, w: dict[str, Any], x: Any, depth: int, heads: int) -> Any:
    def norm(name: str, x: Any) -> Any:
        return x.layernorm(eps=1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["words.weight"][x] + w["places"]
    batch, tokens, width = x.shape
    for name in (f"blocks.{i}" for i in range(depth)):
        qkv = parts.tinygrad_linear(w, f"{name}.qkv", norm(f"{name}.norm1", x))
        q, k, v = qkv.reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4).chunk(3, dim=0)
        attended = q[0].scaled_dot_product_attention(k[0], v[0], is_causal=True)
        x = x + parts.tinygrad_linear(w, f"{name}.out", attended.transpose(1, 2).reshape(batch, tokens, width))
        # tinygrad's gelu is the form with tanh.
        hidden = parts.tinygrad_linear(w, f"{name}.up", norm(f"{name}.norm2", x)).gelu()
        x = x + parts.tinygrad_linear(w, f"{name}.down", hidden)
    return parts.tinygrad_linear(w, "head", norm("norm", x))


def transformer(depth: int = 4, width: int = 256, heads: int = 4, tokens: int = 128, words: int = 1024) -> Network:
    """The network; it is trained with AdamW on the next token."""
    parameters = {"words.weight": Parameter((words, width), 0.5), "places": Parameter((tokens, width), 0.1)}
    for name in (f"blocks.{i}" for i in range(depth)):
        parameters |= {
            **parts.norm(f"{name}.norm1", width),
            **parts.linear(f"{name}.qkv", width, 3 * width),
            **parts.linear(f"{name}.out", width, width),
            **parts.norm(f"{name}.norm2", width),
            **parts.linear(f"{name}.up", width, 4 * width),
            **parts.linear(f"{name}.down", 4 * width, width),
        }
    parameters |= {**parts.norm("norm", width), **parts.linear("head", width, words)}

    def samples(rng: np.random.Generator, batch: int) -> Arrays:
        text = rng.integers(0, words, (batch, tokens + 1))
        return {"x": text[:, :-1].copy(), "y": text[:, 1:].copy()}

    # Attention is counted over half the pairs, those that a causal mask leaves.
    per_token = depth * (12 * width * width + width * (tokens + 1)) + width * words
    return Network(
        name="transformer",
        parameters=parameters,
        module=lambda lib: _module(lib, depth, width, heads, tokens, words),
        jax=lambda j, w, x, training: _jax(j, w, x, depth, heads),
        tinygrad=lambda tg, w, x: _tinygrad(tg, w, x, depth, heads),
        samples=samples,
        forward_flops=lambda batch: 2.0 * batch * tokens * per_token,
        optimizer="adamw",
        rate=1e-3,
    )
