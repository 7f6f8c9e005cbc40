"""Running sums, products and extremes along a dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import i64
from graphc.tensors.core import record, wrap_dim
from graphc.tensors.reductions import _accumulate_type

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def cumsum(input: Tensor, dim: int) -> Tensor:
    """Running sums along `dim`, each a sum of its own: n * n work for n elements, so for short dimensions only."""
    axis = wrap_dim(dim, input.ndim)

    def emit(b: Builder, x: Node) -> Node:
        x = b.cast(x, _accumulate_type(x, None))
        n = x.shape[axis]
        moved = b.permute(x, (*(i for i in range(x.type.rank) if i != axis), axis))
        wide = b.broadcast(b.reshape(moved, (*moved.shape[:-1], 1, n)), (*moved.shape[:-1], n, n))
        type = wide.type.with_dtype(i64)
        below = b.apply("le", (b.iota(type.rank - 1, type), b.iota(type.rank - 2, type)))
        total = b.reduce_sum(b.select(below, wide, b.zeros_like(wide)), (type.rank - 1,))
        order = list(range(x.type.rank - 1))
        order.insert(axis, x.type.rank - 1)
        return b.permute(total, tuple(order))

    return record("CumsumBackward0", (input,), emit)
