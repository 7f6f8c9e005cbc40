"""Softmax and its relatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.errors import UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.tensors.calling import want_tensor
from graphc.tensors.core import record, wrap_dim
from graphc.tensors.reductions import reduction, whole
from graphc.tensors.writing import type_name
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def shifted(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    """x less its largest element over `axes`, which takes no part in the gradient. All -inf gives NaN."""
    top = b.apply("detach", (b.reduce_max(x, axes),))
    return b.sub(x, b.expand_dims(top, axes, x.shape))


def shares(b: Builder, powers: Node, total: Node, axes: tuple[int, ...]) -> Node:
    """`powers` over their sum along `axes`, which is 1 at least: so its reciprocal, one division for all, is a normal
    number. One of 16 bits would cost digits.
    """
    if powers.dtype.bits == 16:
        return b.div(powers, b.expand_dims(total, axes, powers.shape))
    return b.mul(powers, b.expand_dims(b.div(b.constant(1.0, total.type), total), axes, powers.shape))


def softmax_node(b: Builder, x: Node, axis: int) -> Node:
    """exp(x - m) / sum(exp(x - m)) along `axis`."""
    powers = b.exp(shifted(b, x, (axis,)))
    return shares(b, powers, b.reduce_sum(powers, (axis,)), (axis,))


def log_softmax_node(b: Builder, x: Node, axis: int) -> Node:
    """x - m - log(sum(exp(x - m))) along `axis`."""
    low = shifted(b, x, (axis,))
    return b.sub(low, b.expand_dims(b.log(b.reduce_sum(b.exp(low), (axis,))), (axis,), x.shape))


def _along(kernel: str, name: str, input: Tensor, dim: int, dtype: Any, node: Any) -> Tensor:
    axis = wrap_dim(whole(dim, kernel), input.ndim)
    wanted = input._type.dtype if dtype is None else dtypes.to_ir(dtype)
    if not wanted.is_float:
        raise UnsupportedError(f"\"{kernel}_kernel_impl\" not implemented for '{type_name(wanted)}'")

    def emit(b: Builder, x: Node) -> Node:
        x = b.cast(x, wanted)
        if not x.shape:
            return b.reshape(node(b, b.reshape(x, (1,)), 0), ())
        return x if 0 in x.shape else node(b, x, axis)

    return record(name, (input,), emit)


@reduction
def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """exp(x) over its sum along `dim`, in `dtype`."""
    return _along("softmax", "SoftmaxBackward0", input, dim, dtype, softmax_node)


@reduction
def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """log(softmax(x)) along `dim`, without overflow, in `dtype`."""
    return _along("log_softmax", "LogSoftmaxBackward0", input, dim, dtype, log_softmax_node)


def _usual_dim(name: str, dim: int | None, rank: int) -> int:
    """The dimension that `nn.functional` takes when none is given, with PyTorch's warning."""
    if dim is not None:
        return dim
    warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
    )
    return 0 if rank in (0, 1, 3) else 1


def functional_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """exp(x) over its sum along `dim`, in `dtype`."""
    want_tensor("softmax", input)
    return softmax(input, _usual_dim("softmax", dim, input.ndim), dtype)


def functional_log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """log(softmax(x)) along `dim`, without overflow, in `dtype`."""
    want_tensor("log_softmax", input)
    return log_softmax(input, _usual_dim("log_softmax", dim, input.ndim), dtype)


def functional_softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """softmax(-x) along `dim`, in `dtype`."""
    want_tensor("softmin", input)
    return softmax(-input, _usual_dim("softmin", dim, input.ndim), dtype)
