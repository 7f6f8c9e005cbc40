"""Numbers stored on diagonals and everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.errors import ShapeError
from graphc.tensors.arguments import number_argument, tensor_argument
from graphc.tensors.core import TensorBase, record
from graphc.tensors.filling import fill_value as number_tensor
from graphc.tensors.striding import as_strided
from graphc.tensors.writing import write

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor like `input` with every element `value`, a number or a 0-d tensor, which gradients go to."""
    like = tensor_argument("fill", input)
    if not isinstance(value, TensorBase):
        filler, name = number_tensor(number_argument("fill", value, "value", 2), like), "FillBackward0"
    else:
        filler, name = value, "FillBackward1"
        if filler.ndim:
            raise ShapeError(
                f"fill_ only supports 0-dimension value tensor but got tensor with {filler.ndim} dimensions."
            )
    type = like._type
    return record(name, (like, filler), lambda b, x, v: b.broadcast(b.cast(v, type.dtype), type.shape))


def fill_diagonal_(input: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Store a number at the places with all indices equal; `wrap` begins again below the end of a tall matrix.

    ShapeError for fewer than two dimensions, and for more than two that are not equal.
    """
    value = number_argument("fill_diagonal_", fill_value, "fill_value", 1)
    shape, strides = input._type.shape, input._strides
    if len(shape) < 2:
        raise ShapeError("dimensions must larger than 1")
    if len(shape) > 2 and len(set(shape)) > 1:
        raise ShapeError("all dimensions of input must be of equal length")
    number = number_tensor(value, input)
    step = sum(strides)
    count = min(shape)
    write(as_strided(input, (count,), (step,)), number, "FillBackward0", uniform=True)
    columns = shape[1]
    if len(shape) == 2 and wrap and shape[0] > columns + 1:
        # Every further diagonal begins one row below the end of the one before.
        start = columns + 1
        while start < shape[0]:
            rows = min(columns, shape[0] - start)
            below = as_strided(input, (rows,), (step,), input._offset + start * strides[0])
            write(below, number, "FillBackward0", uniform=True)
            start += columns + 1
    return input
