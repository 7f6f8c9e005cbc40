"""`interpolate`: images and their like brought to other extents, one axis after the other.

Every mode is a weighted sum of elements named by a table that depends on the extents alone: the tables are made with
NumPy, in the precision that PyTorch computes them in; the sums are gathers and products of the IR.
"""

from __future__ import annotations

import functools
import math
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphc import adaptive_pooling
from graphc.errors import InputError, KindError, ShapeError, UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, i64, u8
from graphc.refusing import need_float
from graphc.tensors.casting import autocasts
from graphc.tensors.core import from_array, record
from graphc.tensors.learning import repeatable
from graphc.tensors.rearranging import repeated_node
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Table = tuple[np.ndarray, np.ndarray | None]  # the elements [out, taps], and their weights if not all are 1
# For each element of the output that lies between two of the input: how far from there what it is made of stands, and
# its weights.
Phases = tuple[tuple[tuple[int, float], ...], ...]

MOST_TAPS, MOST_PHASES = 2, 8  # more elements at a time are computed again too often where gradients gather them

_RANKS = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
_GRADIENTS = {
    "nearest": "UpsampleNearest",
    "nearest-exact": "UpsampleNearestExact",
    "linear": "UpsampleLinear",
    "bilinear": "UpsampleBilinear",
    "bicubic": "UpsampleBicubic",
    "trilinear": "UpsampleTrilinear",
}
_KERNELS = {
    "nearest": "compute_indices_weights_nearest",
    "nearest-exact": "compute_indices_weights_nearest",
    "linear": "compute_indices_weights_linear",
    "bilinear": "upsample_bilinear2d_channels_last",
    "bicubic": "compute_indices_weights_cubic",
    "trilinear": "compute_indices_weights_linear",
}
_MODES = "nearest | linear | bilinear | bicubic | trilinear | lanczos | area | nearest-exact"


# tables


def _step(n: int, out: int, align: bool, scale: float | None, kind: type[np.floating]) -> Any:
    """How far apart the places of neighbours stand in the input."""
    if align:
        return kind(n - 1) / kind(out - 1) if out > 1 else kind(0)
    return kind(1.0 / scale) if scale else kind(n) / kind(out)


def _places(n: int, out: int, align: bool, scale: float | None, kind: type[np.floating]) -> np.ndarray:
    """Where each element of the output stands in the input, elements being one wide."""
    step, at = _step(n, out, align, scale, kind), np.arange(out).astype(kind)
    return step * at if align else step * (at + kind(0.5)) - kind(0.5)


def _nearest(n: int, out: int, scale: float | None, exact: bool) -> Table:
    step = _step(n, out, False, scale, np.float32)
    at = np.arange(out).astype(np.float32) + np.float32(0.5 if exact else 0)
    return np.minimum(np.floor(at * step).astype(np.int64), n - 1)[:, None], None


def _linear(n: int, out: int, align: bool, scale: float | None, kind: type[np.floating]) -> Table:
    if n == out:
        return np.arange(out)[:, None], None
    at = np.maximum(_places(n, out, align, scale, kind), kind(0))
    low = np.minimum(at.astype(np.int64), n - 1)
    share = np.clip(at - low.astype(kind), 0, 1).astype(kind)
    return np.stack([low, np.minimum(low + 1, n - 1)], 1), np.stack([1 - share, share], 1)


def cubic(distance: Any, a: float) -> Any:
    """The cubic convolution kernel at a distance of at most 2. R. Keys, 1981."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _cubic(n: int, out: int, align: bool, scale: float | None, kind: type[np.floating]) -> Table:
    at = _places(n, out, align, scale, kind)
    low = np.floor(at).astype(np.int64)
    places = low[:, None] + np.arange(-1, 3)
    weights = cubic(np.abs(at[:, None] - places.astype(kind)), -0.75).astype(kind)
    return np.clip(places, 0, n - 1), weights


def _smooth(
    n: int, out: int, align: bool, scale: float | None, kind: type[np.floating], reach: int, filter: Callable[..., Any]
) -> Table:
    """Antialiasing: the filter is as wide as an element of the output, and its weights add up to 1."""
    if n == out:
        return np.arange(out)[:, None], None
    step = _step(n, out, align, scale, kind)
    wide = max(step, kind(1))
    support = reach * wide
    center = step * (np.arange(out).astype(kind) + kind(0.5))
    first = np.maximum((center - support + kind(0.5)).astype(np.int64), 0)
    last = np.minimum((center + support + kind(0.5)).astype(np.int64), n)
    taps = int((last - first).max())
    places = first[:, None] + np.arange(taps)
    weights = filter(np.abs((places - center[:, None] + kind(0.5)) / wide)) * (places < last[:, None])
    return np.clip(places, 0, n - 1), (weights / weights.sum(1, keepdims=True)).astype(kind)


def _triangle(distance: Any) -> Any:
    return np.maximum(1 - distance, 0)


def _table(mode: str, n: int, out: int, align: bool, scale: float | None, smooth: bool, dtype: DType) -> Table:
    kind: type[np.floating] = np.float64 if dtype.bits == 64 else np.float32
    if mode.startswith("nearest"):
        return _nearest(n, out, scale, mode != "nearest")
    if smooth and mode == "bicubic":
        return _smooth(n, out, align, scale, kind, 2, lambda x: cubic(x, -0.5))
    if smooth:
        return _smooth(n, out, align, scale, kind, 1, _triangle)
    return (_cubic if mode == "bicubic" else _linear)(n, out, align, scale, kind)


# sums


def _mixed(b: Builder, x: Node, axis: int, index: Node, weights: Node | None) -> Node:
    """Along `axis`, sums of the elements that each row of `index` names."""
    taken = b.apply("gather", (x, index), {"axis": axis})
    if weights is None:
        return b.reshape(taken, (*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :]))
    shape = tuple(n if i in (axis, axis + 1) else 1 for i, n in enumerate(taken.shape))
    return b.reduce_sum(b.mul(taken, b.broadcast(b.reshape(weights, shape), taken.shape)), (axis + 1,))


def _shifted(b: Builder, x: Node, axis: int, offset: int) -> Node:
    """The elements `offset` places further on; the last one past an end."""
    if not offset:
        return x
    n, count = x.shape[axis], min(abs(offset), x.shape[axis])

    def part(start: int, size: int) -> Node:
        starts = tuple(start if i == axis else 0 for i in range(len(x.shape)))
        return b.slice(x, starts, (*x.shape[:axis], size, *x.shape[axis + 1 :]), (1,) * len(x.shape))

    last = part(0 if offset < 0 else n - 1, 1)
    ends = b.broadcast(last, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
    if count == n:
        return ends
    return b.concat((ends, part(0, n - count)) if offset < 0 else (part(count, n - count), ends), axis)


def _between(b: Builder, x: Node, axis: int, phases: Phases) -> Node:
    """Along `axis`, for each element what `phases` say, in turns."""
    front, n, rest = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    moved = {offset: _shifted(b, x, axis, offset) for phase in phases for offset, _ in phase}
    made: list[Node] = []
    for phase in phases:
        parts = [b.mul(moved[offset], weight) for offset, weight in phase]
        made.append(b.reshape(functools.reduce(b.add, parts), (*front, n, 1, *rest)))
    return b.reshape(b.concat(tuple(made), axis + 1), (*front, n * len(phases), *rest))


def _phases(n: int, index: np.ndarray, weights: np.ndarray) -> Phases | None:
    """What a table says of all elements alike; None where they differ. Near the ends it may say the same otherwise."""
    out, taps = index.shape
    times = out // n
    if not 1 < times <= MOST_PHASES or out != n * times or taps > MOST_TAPS or n <= 2 * taps:
        return None
    offsets = (index - np.arange(n).repeat(times)[:, None]).reshape(n, times, taps)
    shares, inner = weights.reshape(n, times, taps), slice(taps, n - taps)
    first, parts = offsets[taps], shares[taps]
    if not (offsets[inner] == first).all() or not (shares[inner] == parts).all():
        return None
    for i in (*range(taps), *range(n - taps, n)):
        for phase in range(times):
            told, wanted = np.zeros((2, n))
            np.add.at(told, index[i * times + phase], shares[i, phase])
            np.add.at(wanted, np.clip(i + first[phase], 0, n - 1), parts[phase])
            if not np.allclose(told, wanted, rtol=0, atol=1e-6):
                return None
    return tuple(tuple(zip(o, w, strict=True)) for o, w in zip(first.tolist(), parts.tolist(), strict=True))


class _Tables(NamedTuple):
    """For each axis how often each element stands in a row, or what lies between two; 0 where a table tells the
    elements. The tables as tensors: elements, then weights if there are any.
    """

    axes: tuple[int | Phases, ...]
    operands: tuple[Tensor, ...]


def _tables(
    mode: str,
    sizes: tuple[tuple[int, int, float | None], ...],
    align: bool,
    smooth: bool,
    dtype: DType,
    device: str,
) -> _Tables:
    axes: list[int | Phases] = []
    operands: list[Tensor] = []
    for n, out, scale in sizes:
        index, weights = _table(mode, n, out, align, scale, smooth, dtype)
        times = out // n
        if weights is None and np.array_equal(index, np.arange(n).repeat(times)[:, None]):
            axes.append(times)
            continue
        phases = None if weights is None else _phases(n, index, weights)
        axes.append(phases or 0)
        if phases:
            continue
        operands.append(from_array(index, i64, device))
        if weights is not None:
            operands.append(from_array(weights, dtype, device))
    return _Tables(tuple(axes), tuple(operands))


class _Kept(threading.local):
    """The tables of a thread, for calls with the same extents to read the same tensors."""

    def __init__(self) -> None:
        self.tables = functools.lru_cache(maxsize=64)(_tables)


_KEPT = _Kept()


@repeatable
def _resampled(
    name: str, input: Tensor, axes: Sequence[int | Phases], tables: Sequence[Tensor], weighted: bool
) -> Tensor:
    def emit(b: Builder, x: Node, *rest: Node) -> Node:
        given = iter(rest)
        for axis, told in enumerate(axes, 2):
            if isinstance(told, tuple):
                x = _between(b, x, axis, told)
            elif told:
                x = repeated_node(b, x, axis, told)
            else:
                x = _mixed(b, x, axis, next(given), next(given) if weighted else None)
        return x

    return record(name, (input, *tables), emit)


# arguments


def _extents(
    input: Tensor, size: Any, scale_factor: Any, recompute: bool | None, mode: str
) -> tuple[list[int], list[float | None]]:
    """The wanted extents, and the scales to compute places with (None where the extents say them)."""
    spatial = list(input._type.shape[2:])
    rank = len(spatial)
    form = "Please provide input tensor in (N, C, d1, d2, ...,dK) format and"
    if size is not None and scale_factor is not None:
        raise InputError("only one of size or scale_factor should be defined")
    if size is not None:
        sizes = list(size) if isinstance(size, list | tuple) else [size] * rank
        if len(sizes) != rank:
            raise InputError(
                "Input and output must have the same number of spatial dimensions, but got input with spatial "
                f"dimensions of {spatial} and output size of {size}. {form} output size in (o1, o2, ...,oK) format."
            )
        if any(not isinstance(n, int | np.integer) for n in sizes):
            raise KindError(f"expected size to be one of int or Tuple[int, ...], but got size {size}")
        if recompute:
            raise InputError("recompute_scale_factor is not meaningful with an explicit size.")
        return [int(n) for n in sizes], [None] * rank
    if scale_factor is None:
        raise InputError("either size or scale_factor should be defined")
    scales = list(scale_factor) if isinstance(scale_factor, list | tuple) else [scale_factor] * rank
    if len(scales) != rank:
        raise InputError(
            "Input and scale_factor must have the same number of spatial dimensions, but got input with spatial "
            f"dimensions of {spatial} and scale_factor of shape {scale_factor}. {form} scale_factor in (s1, s2, "
            "...,sK) format."
        )
    outs = [math.floor(float(n) * s) for n, s in zip(spatial, scales, strict=True)]
    return outs, [None] * rank if recompute or mode == "area" else [float(s) for s in scales]


def _check_mode(input: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> None:
    rank = input.ndim
    if mode in ("nearest", "area", "nearest-exact"):
        if align_corners is not None:
            raise InputError(
                "align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | "
                "trilinear"
            )
    elif mode == "lanczos":
        raise InputError("Lanczos mode requires antialias=True; graphc has no Lanczos filter")
    if antialias and not (mode in ("bilinear", "bicubic") and rank == 4):
        raise InputError(
            "Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires a 4-D tensor as input"
        )
    if mode in _RANKS and rank in (3, 4, 5) and rank != _RANKS[mode] + 2:
        raise UnsupportedError(f"Got {rank}D input, but {mode} mode needs {_RANKS[mode] + 2}D input")
    if rank not in (3, 4, 5) or mode not in ("area", *_GRADIENTS):
        raise UnsupportedError(
            f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {rank}D) for the modes: {_MODES} "
            f"(got {mode})"
        )


def _check_extents(input: Tensor, outs: Sequence[int]) -> None:
    shape = input._type.shape
    names = ("D", "H", "W")[-len(outs) :]
    if 0 in shape[2:] or min(outs) < 1:
        given = ", ".join(f"{name}: {n}" for name, n in zip(names, shape[2:], strict=True))
        wanted = ", ".join(f"{name}: {n}" for name, n in zip(names, outs, strict=True))
        raise ShapeError(
            f"Input and output sizes should be greater than 0, but got input ({given}) and output ({wanted})"
        )
    if not shape[1]:
        raise ShapeError(f"Non-empty {len(shape)}D data tensor expected but got a tensor with sizes {list(shape)}")


@autocasts
def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """(N, C, ...) brought to the extents `size`, or to `scale_factor` times its own.

    `mode`: "nearest", "nearest-exact" and "area" for 1 to 3 axes, "linear" for one, "bilinear" and "bicubic" for two
    (with `antialias` also smooth when they shrink), "trilinear" for three.
    """
    _check_mode(input, mode, align_corners, antialias)
    outs, scales = _extents(input, size, scale_factor, recompute_scale_factor, mode)
    rank, dtype = len(outs), input._type.dtype
    if mode == "area":
        function = getattr(adaptive_pooling, f"adaptive_avg_pool{rank}d")
        return function(input, outs)
    _check_extents(input, outs)
    if not (dtype is u8 and mode.startswith("nearest")):
        need_float(_KERNELS[mode], input)
    align = bool(align_corners)
    sizes = tuple(zip(input._type.shape[2:], outs, scales, strict=True))
    tables = _KEPT.tables(mode, sizes, align, antialias, dtype, input._type.device)
    # Native code knows strings by where they lie.
    name = sys.intern(f"{_GRADIENTS[mode]}{rank}D{'Aa' if antialias else ''}Backward0")
    return _resampled(name, input, *tables, not mode.startswith("nearest"))


def _deprecated(name: str) -> None:
    warn(f"`nn.functional.{name}` is deprecated. Use `nn.functional.interpolate` instead.", UserWarning)


def upsample(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """`interpolate` by its older name."""
    _deprecated("upsample")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "nearest"."""
    _deprecated("upsample_nearest")
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "bilinear" and the corners aligned."""
    _deprecated("upsample_bilinear")
    return interpolate(input, size, scale_factor, "bilinear", True)
