"""Copies in another order: repeated, reversed, rolled, turned, cut to a triangle."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.call_places import moves
from graphc.errors import DTypeError, KindError, RangeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import i32, i64
from graphc.naming import named
from graphc.recording import current
from graphc.tensors.aliases import numpy_names
from graphc.tensors.core import TensorBase, from_array, record, wrap_dim
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.learning import repeatable
from graphc.tensors.out import out_form
from graphc.tensors.reductions import axes_of, whole
from graphc.tensors.shaping import flatten, ints, narrow, reshape

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

MOST_SHIFTS = 16  # by which a call rolls, each by programs of its own


def _given(name: str, numbers: tuple[Any, ...], keyword: str, value: Any) -> tuple[int, ...]:
    """Numbers given one by one, as one sequence, or by `keyword`. TypeError when there are none, or both."""
    if (value is None) != bool(numbers):
        raise KindError(f"{name}() wants its '{keyword}' once, by position or by name")
    return ints(numbers if value is None else (value,))


@repeatable
def repeat(input: Tensor, *sizes: Any, repeats: Any = None) -> Tensor:
    """The tensor put side by side `repeats` times along each dimension; more numbers than dimensions add some in
    front.
    """
    times = _given("repeat", sizes, "repeats", repeats)
    rank = input.ndim
    if len(times) < rank:
        raise UsageError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    shape = (1,) * (len(times) - rank) + input._type.shape
    target = tuple(n * k for n, k in zip(shape, times, strict=True))
    if any(k < 0 for k in times):
        raise UsageError(f"Trying to create tensor with negative dimension {min(target)}: {list(target)}")

    def emit(b: Builder, x: Node) -> Node:
        split_shape = tuple(n for extent in shape for n in (1, extent))
        wide = tuple(n for extent, k in zip(shape, times, strict=True) for n in (k, extent))
        return b.reshape(b.broadcast(b.reshape(x, split_shape), wide), target)

    return record("RepeatBackward0", (input,), emit)


@repeatable
def tile(input: Tensor, *sizes: Any, dims: Any = None) -> Tensor:
    """`repeat` in which missing numbers are ones in front."""
    times = _given("tile", sizes, "dims", dims)
    return repeat(input, (1,) * (input.ndim - len(times)) + times)


@kinds_checked
def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element several times in a row along `dim` (of the flat tensor when None): `repeats` times, a number or one
    for each element. A vector alone gives each of its places as often as it says.
    """
    if repeats is None:
        return _places(input)
    if isinstance(repeats, TensorBase) and (repeats.ndim or dim is not None):
        flat, axis = (flatten(input), 0) if dim is None else (input, wrap_dim(dim, input.ndim))
        return _by_counts(flat, repeats, axis, output_size)  # type: ignore[arg-type]
    number: Any = repeats
    count = int(number)
    if count < 0:
        raise UsageError("Repeats must be non-negative")
    if dim is None:
        input, dim = flatten(input), 0
    return _repeated(input, count, wrap_dim(whole(dim, "repeat_interleave"), input.ndim))


@repeatable
def _repeated(input: Tensor, count: int, at: int) -> Tensor:
    """Each element `count` times in a row along dimension `at`."""
    return record("ViewBackward0", (input,), lambda b, x: repeated_node(b, b.reshape(x, x.shape or (1,)), at, count))


def repeated_node(b: Builder, x: Node, axis: int, count: int) -> Node:
    """Each element `count` times in a row along `axis`."""
    front, n, rest = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    wide = b.broadcast(b.reshape(x, (*front, n, 1, *rest)), (*front, n, count, *rest))
    return b.reshape(wide, (*front, n * count, *rest))


def _counts(repeats: Tensor) -> np.ndarray:
    """The counts, whose sum is the extent of the result, so they are looked at."""
    if repeats.ndim > 1:
        raise UsageError("repeats must be 0-dim or 1-dim tensor")
    if repeats._type.dtype not in (i32, i64):
        raise DTypeError("repeats has to be Long or Int tensor")
    found = repeats._array().reshape(-1)
    if (found < 0).any():
        raise UsageError("repeats can not be negative")
    return found


def _places(repeats: Tensor) -> Tensor:
    if repeats.ndim != 1:
        raise UsageError("repeat_interleave only accept 1D vector as repeat")
    counts = _counts(repeats)
    return from_array(np.repeat(np.arange(len(counts)), counts), repeats._type.dtype, repeats._type.device)


def _by_counts(input: Tensor, repeats: Tensor, axis: int, output_size: int | None) -> Tensor:
    n = input._type.shape[axis] if input.ndim else 1
    if repeats.ndim == 1 and repeats.numel() not in (1, n):
        raise UsageError(
            "repeats must have the same size as input along dim, but got repeats.size(0) = "
            f"{repeats.numel()} and input.size({axis}) = {n}"
        )
    counts = np.broadcast_to(_counts(repeats), (n,))
    if output_size is not None and output_size != counts.sum():
        raise UsageError("allocated size does not match required size")
    places = from_array(np.repeat(np.arange(n), counts), i64, input._type.device)

    def emit(b: Builder, x: Node, at: Node) -> Node:
        x = x if x.shape else b.reshape(x, (1,))
        if at.type.size == 0 or x.type.size == 0:
            return b.reshape(_part(b, x, axis, 0, 0), (*x.shape[:axis], at.shape[0], *x.shape[axis + 1 :]))
        return b.apply("gather", (x, at), {"axis": axis})

    return record("IndexSelectBackward0", (input, places), emit)


@repeatable
def flip(input: Tensor, *axes: Any, dims: Any = None) -> Tensor:
    """Dimensions reversed."""
    given = _given("flip", axes, "dims", dims)
    chosen = axes_of(given, input.ndim, "flip") if given else ()
    return record("FlipBackward0", (input,), lambda b, x: b.flip(x, chosen) if chosen else x)


@kinds_checked
def fliplr(input: Tensor) -> Tensor:
    """The second dimension reversed."""
    if input.ndim < 2:
        raise UsageError("Input must be >= 2-d.")
    return flip(input, 1)


@kinds_checked
def flipud(input: Tensor) -> Tensor:
    """The first dimension reversed."""
    if input.ndim < 1:
        raise UsageError("Input must be >= 1-d.")
    return flip(input, 0)


@repeatable
def roll(input: Tensor, shifts: Any, dims: Any = ()) -> Tensor:
    """Elements moved by `shifts` along `dims` (of the flat tensor without `dims`); what leaves at one end comes back
    at the other.
    """
    by, along = ints((shifts,)), ints((dims,)) if dims is not None else ()
    if not by:
        raise UsageError("`shifts` required")
    flat = not along and len(by) == 1
    if not flat and len(by) != len(along):
        raise UsageError(f"shifts and dimensions must align. shifts: {len(by)}, dims:{len(along)}")
    if along and not input.ndim:
        raise RangeError(f"Dimension specified as {along[0]} but tensor has no dimensions")
    shape = input._type.shape
    seen = (input._type.size,) if flat else shape
    axes = (0,) if flat else tuple(wrap_dim(d, input.ndim) for d in along)
    cuts = [(axis, -shift % seen[axis]) for axis, shift in zip(axes, by, strict=True) if seen and seen[axis]]
    starts = list[TensorBase]()
    if current().capture is None and moves(("roll", seen), tuple(cuts), MOST_SHIFTS):
        starts = [from_array(np.array(cut), i64, input._type.device) for _, cut in cuts]

    def emit(b: Builder, x: Node, *places: Node) -> Node:
        x = b.reshape(x, seen)
        for (axis, cut), place in zip_longest(cuts, places):
            x = _rolled(b, x, axis, cut) if place is None else _rolled_from(b, x, axis, place)
        return b.reshape(x, shape)

    return record("RollBackward0", (input, *starts), emit)


def _rolled(b: Builder, x: Node, axis: int, cut: int) -> Node:
    n = x.shape[axis]
    return b.concat((_part(b, x, axis, cut, n), _part(b, x, axis, 0, cut)), axis) if cut else x


def _rolled_from(b: Builder, x: Node, axis: int, cut: Node) -> Node:
    """`_rolled` from a place that is known when the program runs."""
    n = x.shape[axis]
    places = b.add(b.iota(0, cut.type.with_shape((n,))), b.broadcast(cut, (n,)))
    beyond = b.elementwise("ge", places, n)
    return b.apply("gather", (x, b.select(beyond, b.elementwise("sub", places, n), places)), {"axis": axis})


def _part(b: Builder, x: Node, axis: int, start: int, stop: int) -> Node:
    rank = x.type.rank
    size = tuple(stop - start if i == axis else n for i, n in enumerate(x.shape))
    return b.slice(x, tuple(start if i == axis else 0 for i in range(rank)), size, (1,) * rank)


@kinds_checked
def rot90(input: Tensor, k: int = 1, dims: Any = (0, 1)) -> Tensor:
    """Turned by `k` right angles in the plane of two dimensions, from the first towards the second."""
    plane = tuple(dims)
    if len(plane) != 2:
        raise UsageError(f"expected total rotation dims == 2, but got dims = {len(plane)}")
    if input.ndim < 2:
        raise UsageError(f"expected total dims >= 2, but got total dims = {input.ndim}")
    if plane[0] == plane[1] or abs(plane[0] - plane[1]) == input.ndim:
        raise UsageError(f"expected rotation dims to be different, but got dim0 = {plane[0]} and dim1 = {plane[1]}")
    first, second = (wrap_dim(d, input.ndim) for d in plane)
    order = list(range(input.ndim))
    order[first], order[second] = second, first
    turns = k % 4

    def emit(b: Builder, x: Node) -> Node:
        if turns == 2:
            return b.flip(x, tuple(sorted((first, second))))
        if turns == 1:
            return b.permute(b.flip(x, (second,)), tuple(order))
        return b.flip(b.permute(x, tuple(order)), (second,)) if turns == 3 else x

    return record("Rot90Backward0", (input,), emit)


def _triangle(name: str, compare: str, side: str) -> Callable[..., Any]:
    def function(input: Tensor, diagonal: int = 0) -> Tensor:
        if input.ndim < 2:
            raise UsageError(f"{name}: input tensor must have at least 2 dimensions")

        def emit(b: Builder, x: Node) -> Node:
            type = x.type.with_dtype(i64)
            row, column = b.iota(x.type.rank - 2, type), b.iota(x.type.rank - 1, type)
            return b.select(b.apply(compare, (b.sub(column, diagonal), row)), x, b.zeros_like(x))

        return record(f"{name.capitalize()}Backward0", (input,), emit)

    return out_form(named(function, name, f"The part of matrices on and {side} a diagonal, zero elsewhere."))


tril, triu = _triangle("tril", "le", "below"), _triangle("triu", "ge", "above")


@numpy_names
@out_form
def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` elements from `start` along `dim`, as a copy."""
    seen = narrow(input.detach(), dim, start, length)  # checks the arguments
    axis = wrap_dim(dim, input.ndim)
    first = start + input._type.shape[axis] if start < 0 else start
    shape = seen._type.shape
    return record("NarrowCopyBackward0", (input,), lambda b, x: _part(b, x, axis, first, first + shape[axis]))


@out_form
def kron(input: Tensor, other: Tensor) -> Tensor:
    """Every element of `input` times the whole of `other`, as blocks."""
    rank = max(input.ndim, other.ndim)
    a = (1,) * (rank - input.ndim) + input._type.shape
    c = (1,) * (rank - other.ndim) + other._type.shape
    left = reshape(input, *(n for extent in a for n in (extent, 1)))
    right = reshape(other, *(n for extent in c for n in (1, extent)))
    blocks: Any = left * right
    target = tuple(n * m for n, m in zip(a, c, strict=True))
    if math.prod(target) == blocks.numel() and not rank:
        return blocks
    return record("UnsafeViewBackward0", (blocks,), lambda b, x: b.reshape(x, target))
