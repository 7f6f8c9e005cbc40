"""Views and rearrangements with PyTorch's names. What is a view in PyTorch is a view here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.tensors.core import record, view, wrap_dim
from graphc.tensors.views import ViewStep, infer_shape, is_contiguous, view_strides

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def ints(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Extents given one by one or as one sequence."""
    if len(args) == 1 and not isinstance(args[0], int) and hasattr(args[0], "__iter__"):
        args = tuple(args[0])
    return tuple(a if type(a) is int else a.__index__() for a in args)


def clone(input: Tensor, *, memory_format: object = None) -> Tensor:
    """A copy with its own memory; gradients flow through."""
    return record("CloneBackward0", (input,), lambda b, x: x)


def contiguous(input: Tensor, memory_format: object = None) -> Tensor:
    """The tensor itself when its elements lie in row-major order, else a copy."""
    return input if is_contiguous(input._type.shape, input._strides) else clone(input)


def _reshape_view(input: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    strides = view_strides(input._type.shape, input._strides, shape)
    if strides is None:
        return None
    return view(input, ViewStep("reshape", input._type.shape, shape), shape, strides, input._offset)


def view_(input: Tensor, *shape: Any) -> Tensor:
    """The same memory in another shape; one extent may be -1. RuntimeError when only a copy could show it."""
    wanted = infer_shape(ints(shape), input._type.size)
    seen = _reshape_view(input, wanted)
    if seen is None:
        raise ShapeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead."
        )
    return seen


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The elements in another shape: a view when possible, else a copy."""
    wanted = infer_shape(ints(shape), input._type.size)
    seen = _reshape_view(input, wanted)
    return record("UnsafeViewBackward0", (input,), lambda b, x: b.reshape(x, wanted)) if seen is None else seen


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """The same memory in the shape of `other`."""
    return view_(input, *other._type.shape)


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """The elements in the shape of `other`."""
    return reshape(input, *other._type.shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions from `start_dim` to `end_dim` merged into one."""
    shape = input._type.shape
    if not shape:
        return reshape(input, 1)
    first, last = wrap_dim(start_dim, len(shape)), wrap_dim(end_dim, len(shape))
    if first > last:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if first == last:
        return input
    return reshape(input, *shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Dimension `dim` split into `sizes`."""
    at = wrap_dim(dim, input.ndim)
    shape = input._type.shape
    return view_(input, *shape[:at], *infer_shape(tuple(sizes), shape[at]), *shape[at + 1 :])


def permute(input: Tensor, *dims: Any) -> Tensor:
    """Dimension i of the view is dimension dims[i]."""
    rank = input.ndim
    given = ints(dims)
    if len(given) != rank:
        raise RuntimeError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired "
            f"ordering of dimensions i.e. input.dim() = {rank} is not equal to len(dims) = {len(given)}"
        )
    perm = tuple(wrap_dim(d, rank) for d in given)
    if len(set(perm)) != rank:
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    shape, strides = input._type.shape, input._strides
    return view(
        input,
        ViewStep("permute", shape, perm),
        tuple(shape[p] for p in perm),
        tuple(strides[p] for p in perm),
        input._offset,
    )


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    rank = input.ndim
    a, b = wrap_dim(dim0, rank), wrap_dim(dim1, rank)
    order = list(range(rank))
    if rank:
        order[a], order[b] = order[b], order[a]
    return permute(input, *order)


def t(input: Tensor) -> Tensor:
    """The transposed matrix; tensors of fewer dimensions as they are."""
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return transpose(input, 0, 1) if input.ndim == 2 else view_(input, *input._type.shape)


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Dimensions `source` moved to the places `destination`, the others keep their order."""
    rank = input.ndim
    sources = [wrap_dim(d, rank) for d in ints((source,))]
    places = [wrap_dim(d, rank) for d in ints((destination,))]
    order: list[int] = [-1] * rank
    for s, p in zip(sources, places, strict=True):
        order[p] = s
    rest = iter(d for d in range(rank) if d not in sources)
    return permute(input, *(next(rest) if d == -1 else d for d in order))


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """A view that repeats dimensions of size 1."""
    return expand(input, *size)


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """A view that repeats dimensions of size 1 (stride 0); -1 keeps a dimension."""
    wanted = ints(sizes)
    shape, strides = input._type.shape, input._strides
    extra = len(wanted) - len(shape)
    if extra < 0:
        raise ShapeError(
            f"expand({_tensor_text(input)}, size={list(wanted)}): the number of sizes provided ({len(wanted)}) must be "
            f"greater or equal to the number of dimensions in the tensor ({len(shape)})"
        )
    new_shape: list[int] = []
    new_strides: list[int] = []
    for place, n in enumerate(wanted):
        old = shape[place - extra] if place >= extra else 1
        if n == -1:
            if place < extra:
                raise ShapeError(
                    f"expand({_tensor_text(input)}, size={list(wanted)}): the expanded size of the tensor ({n}) isn't "
                    f"allowed in a leading, non-existing dimension {place}"
                )
            n = old
        if n != old and old != 1:
            raise ShapeError(
                f"The expanded size of the tensor ({n}) must match the existing size ({old}) at non-singleton "
                f"dimension "
                f"{place}.  Target sizes: {list(wanted)}.  Tensor sizes: {list(shape)}"
            )
        new_shape.append(n)
        kept = place >= extra and n == old
        new_strides.append(strides[place - extra] if kept else 0)
    target = tuple(new_shape)
    return view(input, ViewStep("broadcast", shape, target), target, tuple(new_strides), input._offset)


def _tensor_text(input: Tensor) -> str:
    name = {"f32": "Float", "f64": "Double", "i64": "Long", "i32": "Int", "bool": "Bool"}.get(
        input._type.dtype.name, ""
    )
    return f"torch.{name}Tensor{{{list(input._type.shape)}}}"


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """A view in the shape of `other`."""
    return expand(input, *other._type.shape)


def _reshaped(input: Tensor, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    return view(input, ViewStep("reshape", input._type.shape, shape), shape, strides, input._offset)


def same_view(input: Tensor) -> Tensor:
    """Another tensor object for the same view."""
    return _reshaped(input, input._type.shape, input._strides)


def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Dimensions of size 1 removed, all or those of `dim`."""
    shape, strides = input._type.shape, input._strides
    chosen = range(len(shape)) if dim is None else [wrap_dim(d, len(shape)) for d in ints((dim,))]
    left = [i for i, n in enumerate(shape) if n != 1 or i not in chosen]
    return _reshaped(input, tuple(shape[i] for i in left), tuple(strides[i] for i in left))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A dimension of size 1 put in at `dim`."""
    shape, strides = input._type.shape, input._strides
    at = wrap_dim(dim, len(shape) + 1)
    step = shape[at] * strides[at] if at < len(shape) else 1
    return _reshaped(input, (*shape[:at], 1, *shape[at:]), (*strides[:at], step, *strides[at:]))


def slice_view(input: Tensor, dim: int, start: int, size: int, step: int) -> Tensor:
    """Elements start, start + step, ... along `dim`, as a view."""
    shape, strides = input._type.shape, input._strides
    starts = tuple(start if i == dim else 0 for i in range(len(shape)))
    sizes = tuple(size if i == dim else n for i, n in enumerate(shape))
    steps = tuple(step if i == dim else 1 for i in range(len(shape)))
    if sizes == shape and start == 0 and step == 1:
        return same_view(input)
    return view(
        input,
        ViewStep("slice", shape, starts, sizes, steps),
        sizes,
        tuple(s * step if i == dim else s for i, s in enumerate(strides)),
        input._offset + start * strides[dim],
    )


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` elements from `start` along `dim`, as a view."""
    at = wrap_dim(dim, input.ndim)
    n = input._type.shape[at]
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if not -n <= start <= n:
        raise IndexError(f"start out of range (expected to be in range of [{-n}, {n}], but got {start})")
    first = start + n if start < 0 else start
    if first + length > n:
        raise RuntimeError(f"start ({first}) + length ({length}) exceeds dimension size ({n}).")
    return slice_view(input, at, first, length, 1)


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """One index of `dim`, which vanishes; a view."""
    if input.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    at = wrap_dim(dim, input.ndim)
    shape, n = input._type.shape, input._type.shape[at]
    if not -n <= index < n:
        raise IndexError(f"index {index} is out of bounds for dimension {at} with size {n}")
    part = slice_view(input, at, index % n if n else 0, 1, 1)
    rest = (*shape[:at], *shape[at + 1 :])
    strides = part._strides
    return _reshaped(part, rest, (*strides[:at], *strides[at + 1 :]))


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All indices of `dim`, as views."""
    at = wrap_dim(dim, input.ndim)
    return tuple(select(input, at, i) for i in range(input._type.shape[at]))


def split(input: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of `split_size` elements along `dim` (the last one shorter), or of the given sizes."""
    at = wrap_dim(dim, input.ndim)
    n = input._type.shape[at]
    if isinstance(split_size_or_sections, int):
        size = split_size_or_sections
        if size <= 0:
            if size < 0 or n:
                raise RuntimeError(f"split_size can only be 0 if dimension size is 0, but got dimension size of {n}")
            return (slice_view(input, at, 0, 0, 1),)
        sizes = [min(size, n - i) for i in range(0, n, size)] or [0]
    else:
        sizes = list(split_size_or_sections)
        if sum(sizes) != n:
            raise RuntimeError(
                f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at dimension {at}), "
                f"but got split_sizes={sizes}"
            )
    parts: list[Tensor] = []
    start = 0
    for size in sizes:
        parts.append(slice_view(input, at, start, size, 1))
        start += size
    return tuple(parts)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of equal size along `dim`."""
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    n = input._type.shape[wrap_dim(dim, input.ndim)]
    return split(input, max(-(-n // chunks), 1 if n else 0), dim)


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The elements on a diagonal, as a copy."""
    a, c = wrap_dim(dim1, input.ndim), wrap_dim(dim2, input.ndim)
    moved = movedim(input, (a, c), (-2, -1))
    rows, columns = moved._type.shape[-2:]
    length = max(min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns), 0)
    first = max(offset, 0) if offset >= 0 else -offset * columns

    def emit(b: Builder, x: Node) -> Node:
        lead = x.shape[:-2]
        flat = b.reshape(x, (*lead, rows * columns))
        rank = len(lead) + 1
        return b.slice(
            flat, (*(0,) * (rank - 1), first), (*lead, length), (*(1,) * (rank - 1), columns + 1)
        )  # fmt: skip

    return record("DiagonalBackward0", (moved,), emit)


# copies


def to_dtype(input: Tensor, dtype: Any) -> Tensor:
    """The elements converted; the tensor itself when it has that dtype."""
    if input._type.dtype is dtype:
        return input
    return record("ToCopyBackward0", (input,), lambda b, x: b.cast(x, dtype))


def check_same_dtype(name: str, a: Tensor, b: Tensor) -> None:
    """RuntimeError when two operands differ in dtype."""
    if a._type.dtype is not b._type.dtype:
        raise DTypeError(f"{name}: expected both tensors to have the same dtype, but got {a.dtype} and {b.dtype}")
