"""Sampling images at the places of a grid, and grids of affine maps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.errors import DTypeError, InputError, ShapeError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import TensorType, i64
from graphc.refusing import need_float
from graphc.tensors.casting import autocasts
from graphc.tensors.core import record
from graphc.tensors.writing import type_name
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_ALIGNED = (
    "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. Please specify "
    "align_corners=True if the old behavior is desired. See the documentation of grid_sample for details."
)


# places along one axis, in elements


def _place(b: Builder, x: Node, extent: int, align: bool) -> Node:
    """-1 to 1 as places: with `align` of the first and the last element, else of the outer edges."""
    if align:
        return b.mul(b.add(x, 1), (extent - 1) / 2)
    return b.div(b.sub(b.mul(b.add(x, 1), extent), 1), 2)


def _clipped(b: Builder, x: Node, extent: int) -> Node:
    """To [0, extent - 1], without gradient outside and at the ends."""
    last = extent - 1
    high = b.select(b.apply("lt", (x, b.constant(last, x.type))), x, last)
    return b.select(b.apply("gt", (x, b.constant(0, x.type))), high, 0)


def _reflected(b: Builder, x: Node, extent: int, align: bool) -> Node:
    """Reflected at the first and last element (`align`) or at the outer edges, as often as needed."""
    low, span = (0.0, float(extent - 1)) if align else (-0.5, float(extent))
    if span == 0:
        return b.zeros_like(x)
    beyond = b.apply("abs", (b.sub(x, low),))
    flips = b.apply("floor", (b.div(beyond, span),))
    extra = b.sub(beyond, b.mul(b.apply("detach", (flips,)), span))
    odd = b.apply("ne", (b.apply("remainder", (flips, b.constant(2, x.type))), b.zeros_like(x)))
    return b.select(odd, b.add(b.sub(span, extra), low), b.add(extra, low))


def _bounded(b: Builder, x: Node, extent: int, padding: str, align: bool) -> Node:
    if padding == "reflection":
        x = _reflected(b, x, extent, align)
    return x if padding == "zeros" else _clipped(b, x, extent)


def _cubic_weights(b: Builder, share: Node) -> list[Node]:
    """Of the four elements around, by the cubic convolution kernel with a = -0.75."""
    a = -0.75

    def near(t: Node) -> Node:
        return b.add(b.mul(b.mul(b.sub(b.mul(t, a + 2), a + 3), t), t), 1)

    def far(t: Node) -> Node:
        return b.sub(b.mul(b.add(b.mul(b.sub(b.mul(t, a), 5 * a), t), 8 * a), t), 4 * a)

    rest = b.sub(1, share)
    return [far(b.add(share, 1)), near(share), near(rest), far(b.add(rest, 1))]


def _taps(b: Builder, x: Node, extent: int, mode: str, padding: str, align: bool) -> list[tuple[Node, Node | None]]:
    """The elements (floats without a fraction) that count along an axis, and their weights."""
    place = _place(b, x, extent, align)
    if mode == "bicubic":
        low = b.apply("detach", (b.apply("floor", (place,)),))
        places = [b.add(low, shift) for shift in (-1, 0, 1, 2)]
        weights = _cubic_weights(b, b.sub(place, low))
        return [(_bounded(b, p, extent, padding, align), w) for p, w in zip(places, weights, strict=True)]
    place = _bounded(b, place, extent, padding, align)
    if mode == "nearest":
        return [(b.apply("detach", (b.apply("round", (place,)),)), None)]
    low = b.apply("detach", (b.apply("floor", (place,)),))
    share = b.sub(place, low)
    return [(low, b.sub(1, share)), (b.add(low, 1), share)]


# sampling


def _sampled(b: Builder, x: Node, grid: Node, mode: str, padding: str, align: bool) -> Node:
    """x `[n, c, *extents]` at grid `[n, *places, axes]`: reads of whole channels `[n, *places, c]`, weighted."""
    n, c, *extents = x.shape
    rank = len(extents)
    places = grid.shape[1:-1]
    type = TensorType(i64, (n, *places), x.type.device)
    rows = b.reshape(b.permute(x, (0, *range(2, rank + 2), 1)), (n * math.prod(extents), c))
    axes: list[list[tuple[Node, Node | None]]] = []
    for i, extent in enumerate(extents):
        start = (0,) * (rank + 1) + (rank - 1 - i,)
        column = b.reshape(b.slice(grid, start, (n, *places, 1), (1,) * (rank + 2)), type.shape)
        axes.append(_taps(b, column, extent, mode, padding, align))
    total: Node | None = None
    for taps in itertools.product(*axes):
        flat, weight, inside = b.iota(0, type), None, None
        for (place, share), extent in zip(taps, extents, strict=True):
            good = b.apply(
                "bitwise_and",
                (
                    b.apply("ge", (place, b.constant(0, place.type))),
                    b.apply("le", (place, b.constant(extent - 1, place.type))),
                ),
            )
            inside = good if inside is None else b.apply("bitwise_and", (inside, good))
            here = b.cast(b.select(good, place, 0), i64)
            flat = b.add(b.mul(flat, extent), here)
            if share is not None:
                weight = share if weight is None else b.mul(weight, share)
        assert inside is not None
        taken = b.apply("gather", (rows, flat), {"axis": 0})
        if weight is not None:
            taken = b.mul(taken, b.expand_dims(weight, (rank + 1,), taken.shape))
        taken = b.select(b.expand_dims(inside, (rank + 1,), taken.shape), taken, 0)
        total = taken if total is None else b.add(total, taken)
    assert total is not None
    return b.permute(total, (0, rank + 1, *range(1, rank + 1)))


@autocasts
def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """(N, C, H, W) at the places (x, y) of a grid (N, H', W', 2), or (N, C, D, H, W) at (x, y, z).

    -1 and 1 are the outer edges, with `align_corners` the centres of the first and last element. `mode`: "bilinear",
    "nearest" or, in two dimensions, "bicubic"; `padding_mode` says what lies outside: "zeros", "border", "reflection".
    """
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise InputError(
            f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '{mode}'"
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise InputError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but got: "
            f"'{padding_mode}'"
        )
    if align_corners is None:
        warn(_ALIGNED, UserWarning)
    _check_sampled(input, grid, mode)
    align = bool(align_corners)
    name = f"GridSampler{input.ndim - 2}DBackward0"
    return record(name, (input, grid), lambda b, x, g: _sampled(b, x, g, mode, padding_mode, align))


def _check_sampled(input: Tensor, grid: Tensor, mode: str) -> None:
    x, g = list(input._type.shape), list(grid._type.shape)
    sizes = f"but got input with sizes {x} and grid with sizes {g}"
    if not x or not g or x[0] != g[0]:
        raise ShapeError(f"grid_sampler(): expected grid and input to have same batch size, {sizes}")
    if g[-1] != len(x) - 2:
        raise ShapeError(
            f"grid_sampler(): expected grid to have size {len(x) - 2} in last dimension, but got grid with sizes {g}"
        )
    for axis, n in enumerate(x[2:], 2):
        if not n:
            raise ShapeError(
                f"grid_sampler(): expected input to have non-empty spatial dimensions, but input has sizes {x} with "
                f"dimension {axis} being empty"
            )
    if len(x) not in (4, 5) or len(g) != len(x):
        raise ShapeError(f"grid_sampler(): expected 4D or 5D input and grid with same number of dimensions, {sizes}")
    if len(x) == 5 and mode == "bicubic":
        raise UsageError("grid_sampler(): bicubic interpolation only supports 4D input")
    need_float(f"grid_sampler_{len(x) - 2}d_cpu_kernel_impl", input)
    if grid._type.dtype is not input._type.dtype:
        raise DTypeError(f"expected scalar type {type_name(input._type.dtype)} but found {type_name(grid._type.dtype)}")


# affine maps


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid, for `grid_sample`, of the affine maps `theta` (N, 2, 3) for `size` (N, C, H, W): (N, H, W, 2).

    Or of (N, 3, 4) for (N, C, D, H, W): (N, D, H, W, 3).
    """
    if not theta._type.dtype.is_float:
        raise InputError(f"Expected theta to have floating point type, but got {theta.dtype}")
    wanted = list(size)
    if len(wanted) not in (4, 5):
        raise UnsupportedError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. Got size "
            f"{wanted}."
        )
    rank = len(wanted) - 2
    shape = theta._type.shape
    if len(shape) != 3 or shape[1:] != (rank, rank + 1):
        raise InputError(
            f"Expected a batch of {rank}D affine matrices of shape Nx{rank}x{rank + 1} for size {wanted}. Got "
            f"{theta.shape}."
        )
    if align_corners is None:
        warn(_ALIGNED, UserWarning)
    elif align_corners and min(wanted[2:]) == 1:
        warn(
            "Since version 1.3.0, affine_grid behavior has changed for unit-size grids when align_corners=True. This "
            "is not an intended use case of affine_grid. See the documentation of affine_grid for details.",
            UserWarning,
        )
    if min(wanted) <= 0:
        raise InputError(f"Expected non-zero, positive output size. Got {wanted}")
    if shape[0] != wanted[0]:
        raise ShapeError(
            f"Expected size for first two dimensions of batch2 tensor to be: [{wanted[0]}, {rank + 1}] but got: "
            f"[{shape[0]}, {rank + 1}]."
        )
    extents = tuple(wanted[2:])

    def emit(b: Builder, maps: Node) -> Node:
        type = maps.type.with_shape((*extents, 1))
        columns: list[Node] = []
        for axis in reversed(range(rank)):
            n = extents[axis]
            if n == 1:
                columns.append(b.constant(0, type))
                continue
            step, first = (2 / (n - 1), -1.0) if align_corners else (2 / n, 1 / n - 1)
            columns.append(b.add(b.mul(b.iota(axis, type), step), first))
        points = b.concat((*columns, b.constant(1, type)), rank)
        labels = " ".join(("d", "h", "w")[-rank:])
        return b.contract(maps, points, f"n i k, {labels} k -> n {labels} i")

    return record("AffineGridGeneratorBackward0", (theta,), emit)
