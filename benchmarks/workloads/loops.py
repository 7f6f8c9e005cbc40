"""Loops without gradients, as people write them: nothing is looked at before the end, or a word each turn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.workload import LONG_WARM, Arrays, Workload, normal, uniform

SECTION = "Loops"
HEADS = 4


def _newton(size: int, turns: int) -> Workload:
    """Square roots by Newton's method."""

    def plain(x: Any) -> Any:
        root = x * 0.5 + 0.5
        for _ in range(turns):
            root = (root + x / root) * 0.5
        return root

    def jax(j: Any, x: Any) -> Any:
        return j.lax.fori_loop(0, turns, lambda turn, root: (root + x / root) * 0.5, x * 0.5 + 0.5)

    return Workload(
        name="loop-newton",
        section=SECTION,
        warm=LONG_WARM,
        inputs=lambda: {"x": uniform(1, size)},
        flops=3.0 * size * turns,
        bytes=8.0 * size,
        torch=lambda t, x: plain(x),
        jax=jax,
        tinygrad=lambda tg, x: plain(x),
        numpy=plain,
    )


def _k_means(count: int, width: int, clusters: int, turns: int) -> Workload:
    """Lloyd's algorithm: every point joins the nearest centre, which moves to the mean of its points."""

    def torch(t: Any, x: Any) -> Any:
        centres = x[:clusters]
        for _ in range(turns):
            nearest = ((x[:, None] - centres) ** 2).sum(-1).argmin(1)
            members = t.F.one_hot(nearest, clusters).to(x.dtype)
            centres = members.T @ x / members.sum(0).clamp(min=1)[:, None]
        return centres

    def jax(j: Any, x: Any) -> Any:
        def turn(number: Any, centres: Any) -> Any:
            nearest = ((x[:, None] - centres) ** 2).sum(-1).argmin(1)
            members = j.nn.one_hot(nearest, clusters, dtype=x.dtype)
            return members.T @ x / j.np.maximum(members.sum(0), 1)[:, None]

        return j.lax.fori_loop(0, turns, turn, x[:clusters])

    def tinygrad(tg: Any, x: Any) -> Any:
        centres = x[:clusters]
        for _ in range(turns):
            nearest = ((x.unsqueeze(1) - centres) ** 2).sum(-1).argmin(1)
            members = nearest.one_hot(clusters).cast(x.dtype)
            centres = members.T @ x / members.sum(0).maximum(1).unsqueeze(1)
        return centres

    def numpy(x: np.ndarray) -> np.ndarray:
        centres = x[:clusters]
        for _ in range(turns):
            nearest = ((x[:, None] - centres) ** 2).sum(-1).argmin(1)
            members = np.eye(clusters, dtype=x.dtype)[nearest]
            centres = members.T @ x / np.maximum(members.sum(0), 1)[:, None]
        return centres

    return Workload(
        name="loop-k-means",
        section=SECTION,
        warm=LONG_WARM,
        inputs=lambda: {"x": normal(1, count, width)},
        flops=5.0 * count * width * clusters * turns,
        bytes=4.0 * count * width,
        torch=torch,
        jax=jax,
        tinygrad=tinygrad,
        numpy=numpy,
    )


def _heat(side: int, turns: int) -> Workload:
    """Heat that spreads on a grid whose border keeps its temperature."""

    def spread(u: Any) -> Any:
        return u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4.0 * u[1:-1, 1:-1]

    def torch(t: Any, x: Any) -> Any:
        u = x.clone()
        for _ in range(turns):
            u[1:-1, 1:-1] += 0.1 * spread(u)
        return u

    def numpy(x: np.ndarray) -> np.ndarray:
        u = x.copy()
        for _ in range(turns):
            u[1:-1, 1:-1] += np.float32(0.1) * spread(u)
        return u

    def jax(j: Any, x: Any) -> Any:
        return j.lax.fori_loop(0, turns, lambda turn, u: u.at[1:-1, 1:-1].add(0.1 * spread(u)), x)

    def tinygrad(tg: Any, x: Any) -> Any:
        for _ in range(turns):
            x = x + (0.1 * spread(x)).pad(((1, 1), (1, 1)))
        return x

    return Workload(
        name="loop-heat",
        section=SECTION,
        warm=LONG_WARM,
        inputs=lambda: {"x": normal(1, side, side)},
        flops=7.0 * (side - 2) ** 2 * turns,
        bytes=8.0 * side**2,
        torch=torch,
        jax=jax,
        tinygrad=tinygrad,
        numpy=numpy,
    )


def _decoder(depth: int, width: int, words: int, length: int) -> Workload:
    """A text, word by word: a decoder of pre-norm blocks takes the likeliest word each time, and its caches of keys and
    values grow. The word is looked at, as a loop does that waits for the end of the text. JAX, whose arrays do not
    grow, fills caches of the whole length in one program.
    """
    shapes = {
        f"{name}{i}": shape
        for i in range(depth)
        for name, shape in (
            ("qkv", (3 * width, width)),
            ("out", (width, width)),
            ("up", (4 * width, width)),
            ("down", (width, 4 * width)),
        )
    }

    def inputs() -> Arrays:
        made = {"words": normal(1, words, width), "places": normal(2, length, width)}
        for seed, (name, shape) in enumerate(shapes.items(), 3):
            made[name] = normal(seed, *shape) / np.float32(math.sqrt(shape[1]))
        return made

    def torch(t: Any, *operands: Any) -> Any:
        w = dict(zip(("words", "places", *shapes), operands, strict=True))
        caches: list[Any] = [None] * depth
        word, text = 1, []
        for place in range(length):
            x = w["words"][word : word + 1] + w["places"][place]
            for i in range(depth):
                normed = t.F.layer_norm(x, (width,))
                q, k, v = t.F.linear(normed, w[f"qkv{i}"]).view(3, HEADS, 1, width // HEADS)
                if caches[i] is not None:
                    k, v = t.torch.cat([caches[i][0], k], 1), t.torch.cat([caches[i][1], v], 1)
                caches[i] = k, v
                attended = t.F.scaled_dot_product_attention(q, k, v).reshape(1, width)
                x = x + t.F.linear(attended, w[f"out{i}"])
                hidden = t.F.gelu(t.F.linear(t.F.layer_norm(x, (width,)), w[f"up{i}"]))
                x = x + t.F.linear(hidden, w[f"down{i}"])
            word = int(t.F.linear(x, w["words"]).argmax(-1).item())
            text.append(word)
        return t.torch.tensor(text)

    def jax(j: Any, *operands: Any) -> Any:
        w = dict(zip(("words", "places", *shapes), operands, strict=True))

        def norm(x: Any) -> Any:
            centred = x - x.mean()
            return centred * j.lax.rsqrt((centred * centred).mean() + 1e-5)

        def turn(place: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            word, text, caches = state
            x = w["words"][word] + w["places"][place]
            for i in range(depth):
                qkv = (w[f"qkv{i}"] @ norm(x)).reshape(3, HEADS, width // HEADS)
                caches = caches.at[i, :, :, place].set(qkv[1:])
                scores = j.np.einsum("hd,hld->hl", qkv[0], caches[i, 0]) / math.sqrt(width // HEADS)
                shares = j.nn.softmax(j.np.where(j.np.arange(length) <= place, scores, -j.np.inf), -1)
                x = x + w[f"out{i}"] @ j.np.einsum("hl,hld->hd", shares, caches[i, 1]).reshape(width)
                x = x + w[f"down{i}"] @ j.nn.gelu(w[f"up{i}"] @ norm(x), approximate=False)
            word = (w["words"] @ x).argmax()
            return word, text.at[place].set(word), caches

        caches = j.np.zeros((depth, 2, HEADS, length, width // HEADS), j.np.float32)
        start = j.np.asarray(1), j.np.zeros(length, int), caches
        return j.lax.fori_loop(0, length, turn, start)[1]

    def numpy(*operands: Any) -> np.ndarray:
        w = dict(zip(("words", "places", *shapes), operands, strict=True))

        def norm(x: np.ndarray) -> np.ndarray:
            centred = x - x.mean()
            return centred / np.sqrt((centred**2).mean() + 1e-5)

        def gelu(x: np.ndarray) -> np.ndarray:
            return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

        caches: list[list[np.ndarray]] = [[] for _ in range(depth)]
        word, text = 1, []
        for place in range(length):
            x = w["words"][word] + w["places"][place]
            for i in range(depth):
                caches[i].append((w[f"qkv{i}"] @ norm(x)).reshape(3, HEADS, width // HEADS))
                k, v = (np.stack([c[j] for c in caches[i]], 1) for j in (1, 2))
                scores = (caches[i][-1][0][:, None] * k).sum(-1) / math.sqrt(width // HEADS)
                shares = np.exp(scores - scores.max(1, keepdims=True))
                attended = (shares[:, None] @ v / shares.sum(1)[:, None, None]).reshape(width)
                x = x + w[f"out{i}"] @ attended
                x = x + w[f"down{i}"] @ gelu(w[f"up{i}"] @ norm(x))
            word = int((w["words"] @ x).argmax())
            text.append(word)
        return np.array(text)

    return Workload(
        name="loop-decode",
        section=SECTION,
        warm=LONG_WARM,
        inputs=inputs,
        # Of one word, as times are.
        flops=2.0 * (12 * width**2 * depth + words * width + width * depth * length),
        bytes=4.0 * (12 * width**2 * depth + (words + length) * width) / length,
        torch=torch,
        jax=jax,
        reference=numpy,
        per=length,
        only=("graphc", "torch", "jax"),
    )


def workloads(tiny: bool) -> list[Workload]:
    """Iterations, a simulation, and a text that is written word by word."""
    if tiny:
        return [_newton(5, 4), _k_means(20, 3, 4, 2), _heat(6, 3), _decoder(1, 8, 7, 5)]
    return [_newton(1024, 100), _k_means(2048, 8, 16, 10), _heat(128, 50), _decoder(2, 64, 100, 64)]
