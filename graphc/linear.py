"""Linear maps, as layers use them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from graphc.errors import DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.tensors.core import record

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias: (*, in) and (out, in) give (*, out)."""
    x, w = input._type, weight._type
    if w.rank != 2 or not x.rank or x.shape[-1] != w.shape[1]:
        left = (math.prod(x.shape[:-1]), x.shape[-1]) if x.rank else ()
        raise ShapeError(
            f"mat1 and mat2 shapes cannot be multiplied ({'x'.join(map(str, left))} and "
            f"{'x'.join(map(str, reversed(w.shape)))}); linear got input {x} and weight {w}"
        )
    if x.dtype is not w.dtype or (bias is not None and bias._type.dtype is not w.dtype):
        raise DTypeError(f"mat1 and mat2 must have the same dtype; linear got input {x} and weight {w}")

    def emit(b: Builder, x: Node, w: Node, *rest: Node) -> Node:
        flat = b.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
        result = b.contract(flat, w, "b i, o i -> b o")
        if rest:
            result = b.add(result, b.broadcast(rest[0], result.shape))
        return b.reshape(result, (*x.shape[:-1], w.shape[0]))

    operands = (input, weight) if bias is None else (input, weight, bias)
    return record("AddmmBackward0" if bias is not None else "MmBackward0", operands, emit)
