"""Views with PyTorch's names: other shapes, strides and offsets over one memory."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.errors import KindError, RangeError, ShapeError, UsageError
from graphc.grad_mode import MODE
from graphc.ir.types import TensorType
from graphc.storage import Lineage
from graphc.tensors.aliases import numpy_names
from graphc.tensors.core import TensorBase, alias, new, record, wrap_dim
from graphc.tensors.learning import repeatable
from graphc.tensors.retyping import view_dtype
from graphc.tensors.views import (
    Chain,
    ViewStep,
    infer_shape,
    is_contiguous,
    view_strides,
)
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Ints = tuple[int, ...]


def ints(args: tuple[Any, ...]) -> Ints:
    """Extents given one by one or as one sequence."""
    one: Any = args[0] if len(args) == 1 else 0
    if not isinstance(one, int) and hasattr(one, "__iter__") and getattr(one, "ndim", 1):
        args = tuple(one)
    return tuple(a if type(a) is int else operator.index(a) for a in args)


# making views


def view(
    tensor: TensorBase,
    step: ViewStep,
    shape: Ints,
    strides: Ints,
    offset: int,
    name: str = "ViewBackward0",
    place: int = -1,
) -> Tensor:
    """A view of `tensor` one step further. `name` is PyTorch's name of the gradient node; `place` is the number of the
    result for an operator that gives several views.
    """
    step = replace(step, name=name, place=place)
    return chained(
        tensor, (*tensor._chain, step), tensor._type.with_shape(shape), strides, offset, tensor._lineage
    )  # fmt: skip


def chained(tensor: TensorBase, chain: Chain, type: TensorType, strides: Ints, offset: int, lineage: Lineage) -> Tensor:
    """A view of the memory of `tensor` through `chain`, whose last step is new."""
    enabled = MODE.enabled
    if not enabled:
        chain = (*chain[:-1], replace(chain[-1], free=True))
    return _shown(tensor, chain, type, strides, offset, lineage, enabled)


def _shown(
    tensor: TensorBase, chain: Chain, type: TensorType, strides: Ints, offset: int, lineage: Lineage, enabled: bool
) -> Tensor:
    """`chained`, whose last step knows already how it came to be."""
    apart = not enabled and (lineage.requires_grad or lineage.hist is not None)
    root: Any = tensor if tensor._root is None else tensor._root
    if apart:
        # As in PyTorch it requires gradients if the base does, but no gradient goes back from it, and none is kept.
        lineage = Lineage(len(chain), None, root.requires_grad, tensor._storage.version)
    made = new(tensor._storage, type, lineage, chain, strides, offset)
    counter = made._counter = tensor._counter
    made._root = root
    if counter is not None:
        made._seen_at = counter[0]
    return made


def reshaped(input: Tensor, shape: Ints, strides: Ints, name: str = "ViewBackward0") -> Tensor:
    """A view of `input` in another shape, in which its memory has the given strides."""
    type, enabled = input._type, MODE.enabled
    step = _reshape_step(type.shape, shape, name, not enabled)
    return _shown(
        input, (*input._chain, step), type.with_shape(shape), strides, input._offset, input._lineage, enabled
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _reshape_step(source: Ints, shape: Ints, name: str, free: bool) -> ViewStep:
    return ViewStep("reshape", source, shape, name=name, free=free)


def same_view(input: Tensor) -> Tensor:
    """Another tensor object for the same view."""
    return reshaped(input, input._type.shape, input._strides, "AliasBackward0")


# other shapes


def _reshape_view(input: Tensor, shape: Ints) -> Tensor | None:
    strides = view_strides(input._type.shape, input._strides, shape)
    return None if strides is None else reshaped(input, shape, strides)


@repeatable
def view_(input: Tensor, *shape: Any, size: Any = None, dtype: Any = None) -> Tensor:
    """The same memory in another shape; one extent may be -1. RuntimeError when only a copy could show it.

    With a dtype, the same memory as numbers of that dtype, which no gradient goes through.
    """
    given = shape if size is None else (size,)
    if dtype is None and len(given) == 1 and isinstance(given[0], dtypes.dtype):
        dtype = given[0]
    if dtype is not None:
        return view_dtype(input, dtypes.to_ir(dtype))
    if not given:
        raise KindError("view() received an invalid combination of arguments - got (), but expected sizes or a dtype")
    wanted = infer_shape(ints(given), input._type.size)
    seen = _reshape_view(input, wanted)
    if seen is None:
        raise ShapeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead."
        )
    return seen


@repeatable
def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The elements in another shape: a view when possible, else a copy."""
    wanted = infer_shape(ints(shape), input._type.size)
    seen = _reshape_view(input, wanted)
    return record("UnsafeViewBackward0", (input,), lambda b, x: b.reshape(x, wanted)) if seen is None else seen


@repeatable
def view_as(input: Tensor, other: Tensor) -> Tensor:
    """The same memory in the shape of `other`."""
    return view_(input, other._type.shape)


@repeatable
def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """The elements in the shape of `other`."""
    return reshape(input, other._type.shape)


@repeatable
def ravel(input: Tensor) -> Tensor:
    """The elements in one dimension: a view when they lie in row-major order, else of a copy."""
    if is_contiguous(input._type.shape, input._strides):
        return view_(input, input._type.size)
    return record("ViewBackward0", (input,), lambda b, x: b.reshape(x, (x.type.size,)))


def copied(input: Tensor) -> Tensor:
    """A copy with its own memory; gradients flow through."""
    return record("CloneBackward0", (input,), lambda b, x: x)


@repeatable
@numpy_names
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Dimensions of size 1 removed, all or those of `dim`."""
    shape, strides = input._type.shape, input._strides
    name = "SqueezeBackward0" if dim is None else "SqueezeBackward1" if isinstance(dim, int) else "SqueezeBackward2"
    chosen = list(range(len(shape))) if dim is None else [wrap_dim(d, len(shape)) for d in ints((dim,))]
    for d in chosen:
        if chosen.count(d) > 1:
            raise UsageError(f"dim {d} appears multiple times in the list of dims")
    left = [i for i, n in enumerate(shape) if n != 1 or i not in chosen]
    return reshaped(input, tuple(shape[i] for i in left), tuple(strides[i] for i in left), name)


@repeatable
@numpy_names
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A dimension of size 1 put in at `dim`."""
    shape, strides = input._type.shape, input._strides
    at = wrap_dim(dim, len(shape) + 1)
    step = shape[at] * strides[at] if at < len(shape) else 1
    return reshaped(
        input, (*shape[:at], 1, *shape[at:]), (*strides[:at], step, *strides[at:]), "UnsqueezeBackward0"
    )  # fmt: skip


# other orders


@repeatable
def permute(input: Tensor, *dims: Any) -> Tensor:
    """Dimension i of the view is dimension dims[i]."""
    rank = input.ndim
    given = ints(dims)
    if len(given) != rank:
        raise UsageError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired "
            f"ordering of dimensions i.e. input.dim() = {rank} is not equal to len(dims) = {len(given)}"
        )
    perm = tuple(wrap_dim(d, rank) for d in given)
    if len(set(perm)) != rank:
        raise UsageError("permute(): duplicate dims are not allowed.")
    return _permuted(input, perm, "PermuteBackward0")


def _permuted(input: Tensor, perm: tuple[int, ...], name: str) -> Tensor:
    """`permute` by dimensions that are right; `name` is the gradient node's."""
    shape, strides = input._type.shape, input._strides
    return view(
        input,
        ViewStep("permute", shape, perm),
        tuple(shape[p] for p in perm),
        tuple(strides[p] for p in perm),
        input._offset,
        name,
    )


@repeatable
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    rank = input.ndim
    a, b = wrap_dim(dim0, rank), wrap_dim(dim1, rank)
    if not rank:
        return same_view(input)
    order = list(range(rank))
    order[a], order[b] = order[b], order[a]
    return _permuted(input, tuple(order), "TransposeBackward0")


@repeatable
def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose` by NumPy's name."""
    return transpose(input, axis0, axis1)


@repeatable
def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """`transpose` by another name."""
    return transpose(input, dim0, dim1)


@repeatable
def t(input: Tensor) -> Tensor:
    """The transposed matrix; tensors of fewer dimensions as they are."""
    if input.ndim > 2:
        raise UsageError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return _permuted(input, (1, 0) if input.ndim == 2 else tuple(range(input.ndim)), "TBackward0")


@repeatable
def reversed_dims(input: Tensor) -> Tensor:
    """`Tensor.T`: dimensions in reverse order."""
    if input.ndim > 2:
        warn(
            "The use of `x.T` on tensors of dimension other than 2 to reverse their shape is deprecated and it will "
            "throw an error in a future release. Consider `x.mT` to transpose batches of matrices or "
            "`x.permute(*torch.arange(x.ndim - 1, -1, -1))` to reverse the dimensions of a tensor.",
        )
    elif not input.ndim:
        warn("Tensor.T is deprecated on 0-D tensors. This function is the identity in these cases.")
    return permute(input, range(input.ndim - 1, -1, -1))


@repeatable
def matrix_transpose(input: Tensor, name: str = "tensor.mT") -> Tensor:
    """`Tensor.mT`: the last two dimensions exchanged."""
    if input.ndim == 1:
        raise UsageError(f"{name} is only supported on matrices or batches of matrices. Got 1-D tensor.")
    if not input.ndim:
        warn(f"{name} is deprecated on 0-D tensors. This function is the identity in these cases.")
        return input
    return transpose(input, -2, -1)


def adjoint(input: Tensor) -> Tensor:
    """The last two dimensions exchanged; numbers are real."""
    return matrix_transpose(input, "tensor.adjoint()")


def hermitian(input: Tensor) -> Tensor:
    """`Tensor.H`: the transposed matrix; numbers are real."""
    if input.ndim not in (0, 2):
        raise UsageError(
            f"tensor.H is only supported on matrices (2-D tensors). Got {input.ndim}-D tensor."
            + (" For batches of matrices, consider using tensor.mH" if input.ndim > 2 else "")
        )
    return matrix_transpose(input, "tensor.H")


@repeatable
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Dimensions `source` moved to the places `destination`, the others keep their order."""
    rank = input.ndim
    given, wanted = ints((source,)), ints((destination,))
    if len(given) != len(wanted):
        raise UsageError(
            f"movedim: Invalid source or destination dims: source ({list(given)} dims) should contain the same number "
            f"of dims as destination ({list(wanted)} dims)"
        )
    sources, places = [wrap_dim(d, rank) for d in given], [wrap_dim(d, rank) for d in wanted]
    for what, dims, shown in (("source", sources, given), ("destination", places, wanted)):
        if len(set(dims)) != len(dims):
            raise UsageError(f"movedim: repeated dim in `{what}` ({list(shown)})")
    if not rank:
        return same_view(input)
    order: list[int] = [-1] * rank
    for s, p in zip(sources, places, strict=True):
        order[p] = s
    rest = iter(d for d in range(rank) if d not in sources)
    return permute(input, [next(rest) if d == -1 else d for d in order])


@repeatable
def moveaxis(input: Tensor, source: Any, destination: Any) -> Tensor:
    """`movedim` by NumPy's name."""
    return movedim(input, source, destination)


def real(input: Tensor) -> Tensor:
    """The tensor itself: numbers are real."""
    return input


def imag(input: Tensor) -> Tensor:
    """RuntimeError: numbers are real."""
    raise UsageError("imag is not implemented for tensors with non-complex dtypes.")


def detach(input: Tensor) -> Tensor:
    """The same memory without the gradient side."""
    return alias(input)


# repeats


@repeatable
def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """A view that repeats dimensions of size 1."""
    return expand(input, *size)


@repeatable
def expand(input: Tensor, *sizes: Any) -> Tensor:
    """A view that repeats dimensions of size 1 (stride 0); -1 keeps a dimension."""
    wanted = ints(sizes)
    shape, strides = input._type.shape, input._strides
    extra = len(wanted) - len(shape)
    if extra < 0:
        name = input.type().removeprefix("torch.")
        raise ShapeError(
            f"expand(torch.{name}{{{list(shape)}}}, size={list(wanted)}): the number of sizes provided "
            f"({len(wanted)}) must be greater or equal to the number of dimensions in the tensor ({len(shape)})"
        )
    new_shape: list[int] = []
    new_strides: list[int] = [0] * len(wanted)
    for place, n in enumerate(wanted):
        old = shape[place - extra] if place >= extra else 1
        if n < 0 and place < extra:
            raise ShapeError(
                f"The expanded size of the tensor ({n}) isn't allowed in a leading, non-existing dimension {place}"
            )
        n = old if n == -1 else n
        if n != old and old != 1:
            raise ShapeError(
                f"The expanded size of the tensor ({n}) must match the existing size ({old}) at non-singleton "
                f"dimension {place}.  Target sizes: {list(wanted)}.  Tensor sizes: {list(shape)}"
            )
        new_shape.append(n)
    for place in reversed(range(len(wanted))):
        n = new_shape[place]
        if place >= extra:
            new_strides[place] = strides[place - extra] if n == shape[place - extra] else 0
        elif n == 1 and shape:
            new_strides[place] = new_shape[place + 1] * new_strides[place + 1]
    target = tuple(new_shape)
    return view(
        input, ViewStep("broadcast", shape, target), target, tuple(new_strides), input._offset, "ExpandBackward0"
    )


@repeatable
def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """A view in the shape of `other`."""
    return expand(input, other._type.shape)


# parts


def slice_view(
    input: Tensor, dim: int, start: int, size: int, step: int, name: str = "SliceBackward0", place: int = -1
) -> Tensor:
    """Elements start, start + step, ... along `dim`, as a view."""
    shape, strides = input._type.shape, input._strides
    sizes = tuple(size if i == dim else n for i, n in enumerate(shape))
    return view(
        input,
        ViewStep(
            "slice",
            shape,
            tuple(start if i == dim else 0 for i in range(len(shape))),
            sizes,
            tuple(step if i == dim else 1 for i in range(len(shape))),
        ),
        sizes,
        tuple(s * step if i == dim else s for i, s in enumerate(strides)),
        input._offset + start * strides[dim],
        name,
        place,
    )


@repeatable
@numpy_names
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` elements from `start` (a number or an integer tensor) along `dim`, as a view."""
    if input.ndim == 0:
        raise UsageError("narrow() cannot be applied to a 0-dim tensor.")
    at, first = wrap_dim(dim, input.ndim), operator.index(start)
    n = input._type.shape[at]
    if length < 0:
        raise UsageError("narrow(): length must be non-negative.")
    if not -n <= first <= n:
        raise RangeError(f"start out of range (expected to be in range of [{-n}, {n}], but got {first})")
    first += n if first < 0 else 0
    if first + length > n:
        raise UsageError(f"start ({first}) + length ({length}) exceeds dimension size ({n}).")
    return slice_view(input, at, first, length, 1)


@repeatable
@numpy_names
def select(input: Tensor, dim: int, index: Any, name: str = "SelectBackward0", place: int = -1) -> Tensor:
    """One index of `dim`, which vanishes; a view."""
    if input.ndim == 0:
        raise RangeError("select() cannot be applied to a 0-dim tensor.")
    at, row = wrap_dim(dim, input.ndim), operator.index(index)
    shape, n = input._type.shape, input._type.shape[at]
    if not -n <= row < n:
        raise RangeError(f"select(): index {row} out of range for tensor of size {list(shape)} at dimension {at}")
    return select_view(input, at, row % n, name, place)


def select_view(input: Tensor, at: int, row: int, name: str = "SelectBackward0", place: int = -1) -> Tensor:
    """`select` for a dimension and an index that are known to be right, neither negative."""
    shape, strides = input._type.shape, input._strides
    before, after = shape[:at], shape[at + 1 :]
    start = (*(0,) * at, row, *(0,) * len(after))
    cut = ViewStep("slice", shape, start, (*before, 1, *after), (1,) * len(shape))
    rest = (*before, *after)
    drop = ViewStep("reshape", cut.b, rest, name=name, place=place)
    return chained(
        input,
        (*input._chain, cut, drop),
        input._type.with_shape(rest),
        (*strides[:at], *strides[at + 1 :]),
        input._offset + row * strides[at],
        input._lineage,
    )


@repeatable
@numpy_names
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The elements on a diagonal of two dimensions, along a new last dimension; a view."""
    a, c = wrap_dim(dim1, input.ndim), wrap_dim(dim2, input.ndim)
    if a == c:
        raise UsageError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    shape, strides = input._type.shape, input._strides
    rest = [d for d in range(len(shape)) if d not in (a, c)]
    rows, columns = shape[a], shape[c]
    length = max(min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns), 0)
    moved = ViewStep("permute", shape, (*rest, a, c))
    lead = tuple(shape[d] for d in rest)
    flat = ViewStep("reshape", (*lead, rows, columns), (*lead, rows * columns))
    first = 0 if not length else offset if offset >= 0 else -offset * columns
    zeros, ones, target = (0,) * len(rest), (1,) * len(rest), (*lead, length)
    cut = ViewStep("slice", flat.a, (*zeros, first), target, (*ones, columns + 1), name="DiagonalBackward0")
    skipped = 0 if not length else offset * strides[c] if offset >= 0 else -offset * strides[a]
    return chained(
        input,
        (*input._chain, moved, flat, cut),
        input._type.with_shape(target),
        (*(strides[d] for d in rest), strides[a] + strides[c]),
        input._offset + skipped,
        input._lineage,
    )
