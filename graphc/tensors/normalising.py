"""Softmax and its relatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.promotion import as_float
from graphc.tensors.core import record, wrap_dim

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def shifted(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    """x less its largest element over `axes`, which takes no part in the gradient. All -inf gives NaN."""
    top = b.apply("detach", (b.reduce_max(x, axes),))
    return b.sub(x, b.expand_dims(top, axes, x.shape))


def softmax_node(b: Builder, x: Node, axis: int) -> Node:
    """exp(x - m) / sum(exp(x - m)) along `axis`."""
    powers = b.exp(shifted(b, x, (axis,)))
    return b.div(powers, b.expand_dims(b.reduce_sum(powers, (axis,)), (axis,), x.shape))


def log_softmax_node(b: Builder, x: Node, axis: int) -> Node:
    """x - m - log(sum(exp(x - m))) along `axis`."""
    low = shifted(b, x, (axis,))
    return b.sub(low, b.expand_dims(b.log(b.reduce_sum(b.exp(low), (axis,))), (axis,), x.shape))


def _along(name: str, input: Tensor, dim: int | None, dtype: Any, node: Any) -> Tensor:
    if dim is None:
        dim = 0 if input.ndim in (0, 1, 3) else 1
    axis = wrap_dim(dim, input.ndim)
    wanted = as_float(input._type.dtype) if dtype is None else dtypes.to_ir(dtype)

    def emit(b: Builder, x: Node) -> Node:
        x = b.cast(x, wanted)
        if not x.shape:
            return b.reshape(node(b, b.reshape(x, (1,)), 0), ())
        return x if 0 in x.shape else node(b, x, axis)

    return record(name, (input,), emit)


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """exp(x) over its sum along `dim`."""
    return _along("SoftmaxBackward0", input, dim, dtype, softmax_node)


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """log(softmax(x)), without overflow."""
    return _along("LogSoftmaxBackward0", input, dim, dtype, log_softmax_node)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """softmax(-x)."""
    return softmax(-input, dim, dtype=dtype)
