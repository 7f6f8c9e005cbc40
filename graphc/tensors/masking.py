"""Reading and writing where a mask is true, and the places of what is not zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import DTypeError, ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean, broadcast_shapes, i64
from graphc.tensors import viewing
from graphc.tensors.arguments import number_argument
from graphc.tensors.calling import want_tensor
from graphc.tensors.core import TensorBase, from_array, record
from graphc.tensors.filling import fill_value
from graphc.tensors.indexing import getitem
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.learning import repeatable
from graphc.tensors.masks import nonzero_places
from graphc.tensors.out import into
from graphc.tensors.writing import c_name, type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


@repeatable
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`value`, a number or a 0-d tensor, where `mask`, else the element."""
    if mask._type.dtype is not boolean:
        raise DTypeError(
            f"masked_fill_ only supports boolean masks, but got mask with dtype {c_name(mask._type.dtype)}"
        )
    if isinstance(value, TensorBase) and value.ndim:
        raise UsageError(
            f"masked_fill_ only supports a 0-dimensional value tensor, but got tensor with {value.ndim} dimension(s)."
        )
    filler: Any = value
    if not isinstance(value, TensorBase):
        filler = fill_value(number_argument("masked_fill", value, "value", 3), input)
    shape = common_shape(input._type.shape, mask._type.shape)

    def emit(b: Builder, x: Node, v: Node, m: Node) -> Node:
        return b.select(b.broadcast(m, shape), b.broadcast(b.cast(v, x.dtype), shape), b.broadcast(x, shape))

    name = "MaskedFillBackward1" if filler is value else "MaskedFillBackward0"
    return record(name, (input, filler, mask), emit)


def common_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which both broadcast; ShapeError in PyTorch's words when there is none."""
    for k in range(1, min(len(a), len(b)) + 1):
        if a[-k] != b[-k] and 1 not in (a[-k], b[-k]):
            raise ShapeError(
                f"The size of tensor a ({a[-k]}) must match the size of tensor b ({b[-k]}) at non-singleton dimension "
                f"{max(len(a), len(b)) - k}"
            )
    return broadcast_shapes(a, b)


@kinds_checked
def masked_select(input: Tensor, mask: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The elements where `mask`, in one dimension; looks at the mask."""
    if mask._type.dtype is not boolean:
        raise DTypeError("masked_select: expected BoolTensor for mask")
    shape = common_shape(mask._type.shape, input._type.shape) or (1,)
    seen, wide = viewing.expand(input, shape), viewing.expand(mask, shape)
    places = from_array(np.flatnonzero(wide._array()), i64, input._type.device)
    flat = viewing.reshape(seen, -1) if seen._type.size else viewing.reshape(seen, 0)
    made = getitem(flat, places)
    if made._lineage.hist is not None:
        made._lineage.hist.name = "MaskedSelectBackward0"
    return made if out is None else into(out, made, "masked_select")


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`input` with the elements of `source`, in order, where `mask` is true. RuntimeError when there are too few."""
    if mask._type.dtype is not boolean:
        raise DTypeError(
            f"masked_scatter_ only supports boolean masks, but got mask with dtype {type_name(mask._type.dtype)}"
        )
    if source._type.dtype is not input._type.dtype:
        raise DTypeError(
            f"masked_scatter: expected self and source to have same dtypes but got{type_name(input._type.dtype)} and "
            f"{type_name(source._type.dtype)}"
        )
    shape = common_shape(input._type.shape, mask._type.shape)
    places = np.flatnonzero(np.broadcast_to(mask._array(), shape))
    if len(places) > source._type.size:
        raise UsageError("Number of elements of source < number of ones in mask")
    index = from_array(places, i64, input._type.device)
    count = len(places)

    def emit(b: Builder, x: Node, src: Node, at: Node) -> Node:
        wide = b.broadcast(x, shape)
        part = b.slice(b.reshape(src, (src.type.size,)), (0,), (count,), (1,))
        flat = b.apply("index_set", (b.reshape(wide, (wide.type.size,)), at, part), {"axis": 0})
        return b.reshape(flat, shape)

    return record("MaskedScatterBackward0", (input, source, index), emit)


def nonzero(input: Tensor, *, out: Tensor | None = None, as_tuple: bool = False) -> Any:
    """Places of the elements that are not zero, a row each, or a vector for each dimension; looks at the values."""
    want_tensor("nonzero", input)
    array, device = input._array(), input._type.device
    if as_tuple:
        return tuple(from_array(p, i64, device) for p in nonzero_places(np.atleast_1d(array)))
    # The places of one dimension lie together in memory.
    made = viewing.transpose(from_array(nonzero_places(array), i64, device), 0, 1)
    made._root = None
    return made if out is None else into(out, made, "nonzero")


def argwhere(input: Tensor) -> Tensor:
    """Places of the elements that are not zero, a row each; looks at the values."""
    want_tensor("argwhere", input)
    return nonzero(input)


def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """`nonzero` cut to `size` rows, or filled up with `fill_value`; looks at the values."""
    found = nonzero_places(input._array()).T[:size]
    rows = np.full((size, input.ndim), fill_value, np.int64)
    rows[: len(found)] = found
    return from_array(rows, i64, input._type.device)
