"""Elementwise functions of three tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.tensors.operands import combine

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Operand = Any  # a Tensor or a number


def lerp(input: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """input + weight * (end - input)."""
    return combine("LerpBackward0", (input, end, weight), lambda b, x, y, w: b.add(x, b.mul(w, b.sub(y, x))))


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Operand = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    return combine(
        "AddcmulBackward0", (input, tensor1, tensor2, value), lambda b, x, y, z, v: b.add(x, b.mul(v, b.mul(y, z)))
    )


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Operand = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    return combine(
        "AddcdivBackward0", (input, tensor1, tensor2, value), lambda b, x, y, z, v: b.add(x, b.mul(v, b.div(y, z)))
    )
