"""An operator of several nodes computes in f32 and rounds f16 and bf16 once, and so does its gradient."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
import graphc.functional as F
from graphc.ir import Builder, TensorType
from graphc.ir.types import f16
from graphc.tensors.halves import rounded_once


def test_an_activation_and_its_gradient_are_rounded_once() -> None:
    x = graphc.tensor([-1.19, -0.7, 0.3, 1.9], dtype=graphc.float16, requires_grad=True)
    wide = x.detach().float().requires_grad_()
    F.mish(x).sum().backward()
    F.mish(wide).sum().backward()
    assert F.mish(x).tolist() == F.mish(wide).half().tolist()
    assert x.grad is not None and wide.grad is not None
    assert x.grad.tolist() == wide.grad.half().tolist()


def test_numbers_are_not_rounded_before_they_are_multiplied() -> None:
    x = graphc.tensor([3000.0], dtype=graphc.float16)
    for number in (0.1, 0.3, 0.7):  # the second is read at run time
        assert (x * number).item() == np.float16(np.float32(3000) * np.float32(number))


def test_numbers_are_rounded_before_they_are_compared() -> None:
    x = graphc.tensor([0.1, 0.2], dtype=graphc.float16)
    assert (x == 0.1).tolist() == [True, False]
    assert [(x == n).tolist() for n in (0.1, 0.2)] == [[True, False], [False, True]]


def test_a_tensor_that_was_rounded_stays_so() -> None:
    x = graphc.tensor([1.0 + 2.0**-12])
    assert (x.half() * 3 - 3).tolist() == [0.0]
    assert (graphc.full((1,), 0.1, dtype=graphc.float16) * 3).item() == np.float16(np.float16(0.1) * np.float32(3))


@pytest.mark.parametrize("op", ["add", "mul"])
def test_one_operation_stays_as_it_is(op: str) -> None:
    b = Builder()
    x, y = (b.input(i, TensorType(f16, (3,))) for i in range(2))
    made = b.apply(op, (x, y))
    assert rounded_once(b, made, (x, y)) is made
    assert rounded_once(b, b.apply("exp", (made,)), (x, y)).op == "cast"
