"""What a custom function leaves behind goes with its outputs, without a garbage collection."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import graphc as torch


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return gradient * 2


def test_a_context_goes_with_the_outputs_also_where_parts_of_them_are_read() -> None:
    w = torch.ones(2, 3, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            made = Double.apply((w * 1)[0])
            node = weakref.ref(made.grad_fn)
            assert node() is not None
            (made[1:] * 3).sum().backward()
            assert w.grad is not None and len(w.grad.tolist()) == 2  # nothing is pending
            del made
            assert node() is None
    finally:
        gc.enable()
    assert w.grad is not None and w.grad.tolist() == [[0.0, 18.0, 18.0], [0.0, 0.0, 0.0]]
