"""Tensors put together: joined, stacked, on diagonals, on grids."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.errors import InputError, KindError, ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, i64
from graphc.promotion import promote_types
from graphc.tensors.aliases import numpy_names
from graphc.tensors.core import TensorBase, from_array, record, wrap_dim
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.out import out_form
from graphc.tensors.reductions import whole
from graphc.tensors.shaping import expand, flatten, reshape, unsqueeze
from graphc.tensors.size import Size

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Tensors = Sequence[Any]


def _listed(tensors: Any, name: str) -> list[Any]:
    """The tensors of a list or tuple. TypeError for anything else."""
    if isinstance(tensors, TensorBase) or not isinstance(tensors, list | tuple):
        raise KindError(
            f"{name}(): argument 'tensors' (position 1) must be tuple of Tensors, not {type(tensors).__name__}"
        )
    return _tensors(tensors)


def _spread(given: tuple[Any, ...]) -> list[Any]:
    """The tensors among arguments, or those of the one list or tuple that is given. TypeError for anything else."""
    return _tensors(given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given)


def _tensors(tensors: Sequence[Any]) -> list[Any]:
    for place, tensor in enumerate(tensors):
        if not isinstance(tensor, TensorBase):
            raise KindError(f"expected Tensor as element {place} in argument 0, but got {type(tensor).__name__}")
    return list(tensors)


def _common(given: list[Any]) -> DType:
    dtype = given[0]._type.dtype
    for tensor in given:
        dtype = promote_types(dtype, tensor._type.dtype)
    return dtype


@numpy_names
@out_form
def cat(tensors: Tensors, dim: int = 0) -> Tensor:
    """Tensors joined along `dim`; dtypes are promoted. All other extents must agree; vectors without elements are
    skipped.
    """
    given = _listed(tensors, "cat")
    if not given:
        raise InputError("torch.cat(): expected a non-empty list of Tensors")
    for place, tensor in enumerate(given):
        if tensor.ndim == 0:
            raise UsageError(f"zero-dimensional tensor (at position {place}) cannot be concatenated")
    kept = [x for x in given if x._type.shape != (0,)] or given[:1]
    at = wrap_dim(whole(dim, "cat"), kept[0].ndim)
    first = kept[0]._type.shape
    dtype = _common(given)
    for place, tensor in enumerate(given):
        shape = tensor._type.shape
        if shape == (0,):
            continue
        if len(shape) != len(first):
            raise ShapeError(f"Tensors must have same number of dimensions: got {len(first)} and {len(shape)}")
        for i, (n, m) in enumerate(zip(shape, first, strict=True)):
            if i != at and n != m:
                raise ShapeError(
                    f"Sizes of tensors must match except in dimension {at}. Expected size {m} but got size {n} for "
                    f"tensor number {place} in the list."
                )
    # A vector without elements adds nothing but that the result has a history.
    joined = [x for x in given if x._type.shape != (0,) or x.requires_grad] or given[:1]
    empty = tuple(0 if i == at else n for i, n in enumerate(first))

    def join(b: Builder, *xs: Node) -> Node:
        return b.concat(tuple(b.cast(x if x.shape != (0,) else b.reshape(x, empty), dtype) for x in xs), at)

    return record("CatBackward0", joined, join)


concat = concatenate = cat


@numpy_names
@out_form
def stack(tensors: Tensors, dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension `dim`; dtypes are promoted."""
    given = _listed(tensors, "stack")
    if not given:
        raise UsageError("stack expects a non-empty TensorList")
    at = wrap_dim(whole(dim, "stack"), given[0].ndim + 1)
    first = given[0]._type.shape
    dtype = _common(given)
    for place, tensor in enumerate(given):
        if tensor._type.shape != first:
            raise ShapeError(
                f"stack expects each tensor to be equal size, but got {list(first)} at entry 0 and "
                f"{list(tensor._type.shape)} at entry {place}"
            )
    one = (*first[:at], 1, *first[at:])
    return record(
        "StackBackward0", given, lambda b, *xs: b.concat(tuple(b.reshape(b.cast(x, dtype), one) for x in xs), at)
    )


# stacks by the names of directions


def _each(function: Callable[[Any], Tensor], tensors: tuple[Any, ...]) -> Any:
    made = tuple(map(function, _spread(tensors)))
    return made[0] if len(tensors) == 1 and isinstance(tensors[0], TensorBase) else made


def _one(x: Any) -> Tensor:
    return x if x.ndim else reshape(x, 1)


def _two(x: Any) -> Tensor:
    return x if x.ndim > 1 else reshape(x, 1, 1) if x.ndim == 0 else unsqueeze(x, 0)


def _three(x: Any) -> Tensor:
    return x if x.ndim > 2 else unsqueeze(_two(x), -1) if x.ndim else reshape(x, 1, 1, 1)


def atleast_1d(*tensors: Any) -> Any:
    """Views with at least one dimension, of one tensor or of several."""
    return _each(_one, tensors)


def atleast_2d(*tensors: Any) -> Any:
    """Views with at least two dimensions, new ones in front."""
    return _each(_two, tensors)


def atleast_3d(*tensors: Any) -> Any:
    """Views with at least three dimensions: `[n]` becomes `[1, n, 1]`, `[m, n]` becomes `[m, n, 1]`."""
    return _each(_three, tensors)


def _nonempty(tensors: Any, name: str) -> list[Any]:
    given = _listed(tensors, name)
    if not given:
        raise UsageError(f"{name} expects a non-empty TensorList")
    return given


@out_form
def hstack(tensors: Tensors) -> Tensor:
    """Joined along the second dimension; vectors along their only one."""
    given = [_one(x) for x in _nonempty(tensors, "hstack")]
    return cat(given, 0 if given[0].ndim == 1 else 1)


@out_form
def vstack(tensors: Tensors) -> Tensor:
    """Joined along the first dimension, vectors as rows."""
    return cat([_two(x) for x in _nonempty(tensors, "vstack")], 0)


row_stack = vstack


@out_form
def dstack(tensors: Tensors) -> Tensor:
    """Joined along the third dimension; see `atleast_3d`."""
    return cat([_three(x) for x in _nonempty(tensors, "dstack")], 2)


@out_form
def column_stack(tensors: Tensors) -> Tensor:
    """Joined along the second dimension, vectors as columns."""
    given = _nonempty(tensors, "column_stack")
    return cat([reshape(x, x.numel(), 1) if x.ndim < 2 else x for x in given], 1)


# diagonals


def block_diag(*tensors: Any) -> Tensor:
    """Matrices (vectors as rows, numbers as 1 x 1) along a diagonal, zero elsewhere."""
    if not tensors:
        return from_array(np.zeros((1, 0)), dtypes.default_ir())
    for place, tensor in enumerate(_tensors(tensors)):
        if tensor.ndim > 2:
            raise UsageError(
                "torch.block_diag: Input tensors must have 2 or fewer dimensions. "
                f"Input {place} has {tensor.ndim} dimensions"
            )
    given = [_two(t) for t in tensors]
    dtype = _common(given)
    width = sum(t._type.shape[1] for t in given)

    def emit(b: Builder, *xs: Node) -> Node:
        rows, before = [], 0
        for x in xs:
            after = width - before - x.shape[1]
            rows.append(b.pad(b.cast(x, dtype), (0, before), (0, after)))
            before += x.shape[1]
        return b.concat(tuple(rows), 0)

    return record("BlockDiagBackward0", given, emit)


@kinds_checked
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The last dimension as a diagonal of matrices in the dimensions `dim1` and `dim2`, zero elsewhere."""
    rank = input.ndim + 1
    first, second = wrap_dim(dim1, rank), wrap_dim(dim2, rank)
    if first == second:
        raise UsageError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    order = [i for i in range(rank) if i not in (first, second)]
    perm = [0] * rank
    for place, target in enumerate((*order, first, second)):
        perm[target] = place
    return record("DiagEmbedBackward0", (input,), lambda b, x: b.permute(_on_diagonal(b, x, offset), tuple(perm)))


def _on_diagonal(b: Builder, x: Node, offset: int) -> Node:
    n = x.shape[-1] + abs(offset)
    lead = x.shape[:-1]
    none = (0,) * len(lead)
    if x.type.size == 0:
        return b.reshape(b.pad(x, (*none, n * n - x.shape[-1] * n), (*none, 0)), (*lead, n, n))
    # A diagonal steps by n + 1 through the flat matrix.
    start = offset if offset > 0 else -offset * n
    used = start + (x.shape[-1] - 1) * (n + 1) + 1
    flat = b.pad(x, (*none, start), (*none, n * n - used), (*none, n))
    return b.reshape(flat, (*lead, n, n))


@out_form
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A vector as a diagonal of a matrix, or a diagonal of a matrix as a vector."""
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise UsageError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    rows, columns = input._type.shape
    length = max(min(rows, columns - diagonal) if diagonal >= 0 else min(rows + diagonal, columns), 0)
    first = diagonal if diagonal >= 0 else -diagonal * columns

    def emit(b: Builder, x: Node) -> Node:
        flat = b.reshape(x, (rows * columns,))
        return b.slice(flat, (first if length else 0,), (length,), (columns + 1,))

    return record("DiagonalBackward0_copy", (input,), emit)


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """All elements as a diagonal of a matrix."""
    return diag_embed(flatten(input), offset)


# grids


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Views of vectors over the grid that they span; "xy" exchanges the first two dimensions."""
    given = _spread(tensors)
    if not given:
        raise UsageError("meshgrid expects a non-empty TensorList")
    if indexing not in (None, "ij", "xy"):
        raise UsageError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    if any(t._type.dtype is not given[0]._type.dtype for t in given):
        raise UsageError("meshgrid expects all tensors to have the same dtype")
    for tensor in given:
        if tensor.ndim > 1:
            raise UsageError(f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: {tensor!r}")
    swap = indexing == "xy" and len(given) > 1
    if swap:
        given[:2] = given[1::-1]
    shape = tuple(t.numel() for t in given)
    grids = [
        expand(reshape(t, *(n if i == place else 1 for i, n in enumerate(shape))), *shape)
        for place, t in enumerate(given)
    ]
    if swap:
        grids[:2] = grids[1::-1]
    return tuple(grids)


def _vector(input: Tensor) -> None:
    if input.ndim != 1:
        raise UsageError(f"Expect a 1D vector, but got shape {list(input._type.shape)}")


def cartesian_prod(*tensors: Any) -> Tensor:
    """All tuples of one element of each vector, a row each; one vector as it is."""
    given = _tensors(tensors)
    for tensor in given:
        _vector(tensor)
    if len(given) == 1:
        return given[0]
    return stack([flatten(g) for g in meshgrid(*given, indexing="ij")], 1)


@kinds_checked
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of `r` elements of a vector in their order, a row each."""
    _vector(input)
    if r < 0:
        raise UsageError(f"Expect a non-negative number, but got {r}")
    if r == 0:
        return from_array(np.zeros(0), input._type.dtype, input._type.device)
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(choose(range(input.numel()), r)), np.int64).reshape(-1, r)
    places = from_array(rows, i64, input._type.device)

    def emit(b: Builder, x: Node, at: Node) -> Node:
        if at.type.size == 0:
            return b.reshape(b.slice(x, (0,), (0,), (1,)), at.shape)
        return b.apply("gather", (x, at), {"axis": 0})

    return record("StackBackward0", (input, places), emit)


# shapes


def broadcast_shapes(*shapes: Any) -> Size:
    """The common shape of shapes (or extents). RuntimeError when they have none."""
    given = [(s,) if isinstance(s, int) else tuple(int(n) for n in s) for s in shapes]
    rank = max(map(len, given), default=0)
    result = [1] * rank
    for place, shape in enumerate(given):
        for i in range(-1, -1 - len(shape), -1):
            if shape[i] < 0:
                raise UsageError(f"Trying to create tensor with negative dimension ({shape[i]}): ({shape[i]})")
            if shape[i] == 1 or shape[i] == result[i]:
                continue
            if result[i] != 1:
                raise UsageError(
                    f"Attempting to broadcast a dimension of length {shape[i]} at {i}! Mismatching argument at index "
                    f"{place} had {shape}; but expected shape should be broadcastable to {result}"
                )
            result[i] = shape[i]
    return Size(tuple(result))


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Views of all tensors in their common shape; those that have it as they are."""
    given = _spread(tensors)
    shape: tuple[int, ...] = ()
    for tensor in given:
        shape = _joined_shape(shape, tensor._type.shape)
    return tuple(t if t._type.shape == shape else expand(t, *shape) for t in given)


def _joined_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    for i, (n, m) in enumerate(zip(a, b, strict=True)):
        if n != m and n != 1 and m != 1:
            raise ShapeError(
                f"The size of tensor a ({n}) must match the size of tensor b ({m}) at non-singleton dimension {i}"
            )
    return tuple(m if n == 1 else n for n, m in zip(a, b, strict=True))


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Row-major indices as one tensor of places for each dimension of `shape`."""
    if not indices._type.dtype.is_integer:
        raise KindError(f"expected 'indices' to be integer dtype, but got {indices.dtype}")
    if not isinstance(shape, int | Sequence):
        raise KindError(f"expected 'shape' to be int or sequence of ints, but got {type(shape)}")
    extents = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(n < 0 for n in extents):
        raise InputError(f"'shape' cannot have negative values, but got {extents}")
    made: list[Any] = []
    rest: Any = indices.long()
    for n in reversed(extents):
        made.append(rest % n)
        rest = rest // n
    return tuple(reversed(made))
