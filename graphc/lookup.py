"""Rows of tables by number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import i64
from graphc.tensors.core import record
from graphc.tensors.indexing import index_op

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of `weight` by number. IndexError, when looked at, for numbers out of range. Row `padding_idx` gets no
    gradient.
    """
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise NotImplementedError("embedding: max_norm, scale_grad_by_freq and sparse are not supported")
    if padding_idx is not None:
        row = padding_idx % weight._type.shape[0]
        weight = record("EmbeddingBackward0", (weight,), lambda b, w: _without_row_gradient(b, w, row))
    return index_op("gather", "EmbeddingBackward0", "embedding", (weight,), input, 0)


def _without_row_gradient(b: Builder, w: Node, row: int) -> Node:
    type = w.type.with_dtype(i64)
    return b.select(b.apply("eq", (b.iota(0, type), b.constant(row, type))), b.apply("detach", (w,)), w)
