"""Convolutions: the result alone, and with both gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.networks.parts import jax_conv
from benchmarks.workload import Arrays, Workload, normal

SECTION = "Convolutions"


@dataclass(frozen=True)
class Shape:
    """One convolution with square windows over square images."""

    name: str
    inputs: int
    outputs: int
    size: int
    window: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    def result(self) -> int:
        """The side of the result."""
        return (self.size + 2 * self.padding - self.window) // self.stride + 1


def _numpy(x: np.ndarray, w: np.ndarray, s: Shape) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), (s.padding, s.padding), (s.padding, s.padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (s.window, s.window), (2, 3))[:, :, :: s.stride, :: s.stride]
    batch, _, side, _, _, _ = windows.shape
    windows = windows.reshape(batch, s.groups, s.inputs // s.groups, side, side, s.window, s.window)
    w = w.reshape(s.groups, s.outputs // s.groups, s.inputs // s.groups, s.window, s.window)
    return np.einsum("bgihwrs,goirs->bgohw", windows, w, optimize=True).reshape(batch, s.outputs, side, side)


def _work(s: Shape, batch: int, gradient: bool) -> Workload:
    side = s.result()
    image = (batch, s.inputs, s.size, s.size)
    weight = (s.outputs, s.inputs // s.groups, s.window, s.window)
    result = (batch, s.outputs, side, side)

    def inputs() -> Arrays:
        arrays = {"x": normal(1, *image), "w": normal(2, *weight)}
        return {**arrays, "g": normal(3, *result)} if gradient else arrays

    def torch(t: Any, x: Any, w: Any) -> Any:
        return t.F.conv2d(x, w, None, s.stride, s.padding, 1, s.groups)

    def tinygrad(tg: Any, x: Any, w: Any) -> Any:
        return x.conv2d(w, None, groups=s.groups, stride=s.stride, padding=s.padding)

    flops = 2.0 * np.prod(result, dtype=np.float64) * np.prod(weight[1:], dtype=np.float64)
    elements = sum(int(np.prod(shape)) for shape in (image, weight, result))
    return Workload(
        name=f"conv-{s.name}-b{batch}{'-grad' if gradient else ''}",
        section=SECTION,
        inputs=inputs,
        flops=float(flops) * (3 if gradient else 1),
        # With gradients everything has a counterpart of its size.
        bytes=4.0 * elements * (2 if gradient else 1),
        torch=torch,
        jax=lambda j, x, w: jax_conv(j, x, w, s.stride, s.padding, s.groups),
        tinygrad=tinygrad,
        numpy=lambda x, w: _numpy(x, w, s),
        gradients=("x", "w") if gradient else (),
        tolerance=1e-3,
        images=True,
    )


def workloads(tiny: bool) -> list[Workload]:
    """Four convolutions at two batch sizes each."""
    if tiny:
        shapes = [
            Shape("3x3", 2, 3, 5, 3, padding=1),
            Shape("1x1", 4, 2, 3, 1),
            Shape("7x7s2", 3, 2, 9, 7, stride=2, padding=3),
            Shape("depthwise", 3, 3, 5, 3, padding=1, groups=3),
        ]
    else:
        shapes = [
            Shape("3x3", 64, 64, 56, 3, padding=1),
            Shape("1x1", 256, 64, 56, 1),
            Shape("7x7s2", 3, 64, 224, 7, stride=2, padding=3),
            Shape("depthwise", 128, 128, 56, 3, padding=1, groups=128),
        ]
    batches = (2,) if tiny else (1, 16)
    return [_work(s, batch, gradient) for s in shapes for batch in batches for gradient in (False, True)]
