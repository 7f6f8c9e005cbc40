"""Linear maps, as layers use them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from graphc.errors import DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import TensorType, broadcast_shapes
from graphc.tensors import shaping
from graphc.tensors.casting import autocasts
from graphc.tensors.core import TensorBase, record
from graphc.tensors.learning import reads
from graphc.tensors.plans import Plans
from graphc.tensors.products import c_name, name_of, need_numbers, need_tensors, product, rows_node
from graphc.tensors.views import is_contiguous

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_plans: Plans[tuple[str, Callable[..., Node]]] = Plans()


@autocasts
@reads(2, 0, 1)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias: (*, in) and (out, in) give (*, out); a weight of shape (in) gives (*)."""
    plan = None
    if isinstance(input, TensorBase) and isinstance(weight, TensorBase):
        type = input._type
        key = type, weight._type, None if bias is None else bias._type, _in_order(type, input._strides)
        plan = _plans.get(key)
    if plan is None:
        need_tensors("linear", input=input, weight=weight)
        if weight.ndim == 1 and input.ndim and bias is None:
            return product(input, weight)
        plan = _plans.keep(key, _plan(input, weight, bias))
    return record(plan[0], (input, weight) if bias is None else (bias, input, weight), plan[1], True)


def _in_order(type: TensorType, strides: tuple[int, ...]) -> bool:
    return strides == type.strides or is_contiguous(type.shape, strides)


def _plan(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[str, Callable[..., Node]]:
    """Checks the operands; the name of the gradient node, and what makes the result."""
    x, w = input._type, weight._type
    if not x.rank or not w.rank:
        raise ShapeError(f"both arguments to linear need to be at least 1D, but they are {x.rank}D and {w.rank}D")
    if w.rank > 2:
        raise ShapeError(f"t() expects a tensor with <= 2 dimensions, but self is {w.rank}D; linear got weight {w}")
    if w.rank == 1:
        raise ShapeError(f"mat2 must be a matrix, got 1-D tensor; linear got input {x} and weight {w}")
    lead = x.shape[:-1]
    rows = math.prod(lead)
    if x.shape[-1] != w.shape[1]:
        raise ShapeError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{x.shape[-1]} and {w.shape[1]}x{w.shape[0]}); linear "
            f"got input {x} and weight {w}"
        )
    if x.dtype is not w.dtype:
        raise DTypeError(
            f"expected m1 and m2 to have the same dtype, but got: {c_name(input)} != {c_name(weight)}; linear got "
            f"input {x} and weight {w}"
        )
    need_numbers("addmm_impl_cpu_", input)
    emit = rows_node(input, "o k", "o")
    if bias is None:
        name = ("SqueezeBackward4", "MmBackward0", "UnsafeViewBackward0")[min(x.rank, 3) - 1]
        return name, emit
    if bias._type.dtype is not w.dtype:
        raise DTypeError(
            f"self and mat2 must have the same dtype, but got {name_of(bias)} and {name_of(weight)}; linear got input "
            f"{x}, weight {w} and bias {bias._type}"
        )
    if bias._type.shape != w.shape[:1]:
        if bias.ndim < 2 or x.rank < 3:
            shaping.expand(bias, rows, w.shape[0])  # says what does not fit a matrix of rows
        elif broadcast_shapes((*lead, w.shape[0]), bias._type.shape) != (*lead, w.shape[0]):
            raise ShapeError(
                f"output with shape {[*lead, w.shape[0]]} doesn't match the broadcast shape of {bias._type}"
            )

    def added(b: Builder, r: Node, p: Node, q: Node) -> Node:
        made = emit(b, p, q)
        r = b.reshape(r, r.shape[-1:]) if made.type.rank == 1 else r
        return b.add(made, b.broadcast(r, made.shape))

    name = "AddmmBackward0" if x.rank == 2 else "ViewBackward0" if bias.ndim < 2 else "AddBackward0"
    return name, added
