"""Initial weights of layers, and layers that several networks use, for JAX and tinygrad."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.workload import Arrays, Parameter


def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> dict[str, Parameter]:
    """A linear layer, drawn as PyTorch draws it: U(-b, b) with b = 1/sqrt(fan-in)."""
    bound = inputs**-0.5
    made = {f"{name}.weight": Parameter((outputs, inputs), bound)}
    return {**made, f"{name}.bias": Parameter((outputs,), bound)} if bias else made


def conv(name: str, inputs: int, outputs: int, size: int, bias: bool = True) -> dict[str, Parameter]:
    """A convolution with square windows, drawn like a linear layer."""
    bound = (inputs * size * size) ** -0.5
    made = {f"{name}.weight": Parameter((outputs, inputs, size, size), bound)}
    return {**made, f"{name}.bias": Parameter((outputs,), bound)} if bias else made


def norm(name: str, width: int) -> dict[str, Parameter]:
    """Scale and shift of a normalisation."""
    return {f"{name}.weight": Parameter((width,), 0.1, 1.0), f"{name}.bias": Parameter((width,), 0.1)}


def images(rng: np.random.Generator, batch: int, channels: int, size: int, classes: int = 10) -> Arrays:
    """Images f32 `[batch, channels, size, size]` and labels i64 `[batch]`."""
    x = rng.standard_normal((batch, channels, size, size), np.float32)
    return {"x": x, "y": rng.integers(0, classes, batch)}


def jax_linear(w: dict[str, Any], name: str, x: Any) -> Any:
    """x times the layer's weight, plus its bias."""
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def jax_conv(j: Any, x: Any, weight: Any, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
    """A convolution in PyTorch's layouts, which are XLA's defaults."""
    return j.lax.conv_general_dilated(x, weight, (stride, stride), [(padding, padding)] * 2, feature_group_count=groups)


def jax_max_pool(j: Any, x: Any) -> Any:
    """The greatest of each window of 2x2."""
    return j.lax.reduce_window(x, -j.np.inf, j.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def jax_layer_norm(j: Any, x: Any, weight: Any, bias: Any) -> Any:
    """Layer norm over the last axis with PyTorch's epsilon."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred * j.lax.rsqrt(variance + 1e-5) * weight + bias


def tinygrad_linear(w: dict[str, Any], name: str, x: Any) -> Any:
    """x times the layer's weight, plus its bias."""
    return x.linear(w[f"{name}.weight"].transpose(), w[f"{name}.bias"])
