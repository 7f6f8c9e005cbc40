"""`cond` runs the function that a value chooses, and that one alone."""

from __future__ import annotations

from typing import Any

import pytest

import graphc as torch


def _refused(x: Any) -> Any:
    raise AssertionError("the other function")


def test_the_chosen_function_runs_and_gradients_go_through_it() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = torch.cond(x.sum() > 2, lambda x: x * x, _refused, (x,))
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 4]
    assert torch.cond(False, _refused, lambda x: x + 1, [x]).tolist() == [2, 3]
    assert torch.cond(torch.tensor([True]), lambda: 1, lambda: 2) == 1


def test_what_is_no_condition_is_refused() -> None:
    for pred in (1, torch.tensor(1.0), torch.tensor([True, False])):
        with pytest.raises(RuntimeError, match="Expected pred to be"):
            torch.cond(pred, lambda: 1, lambda: 2)
    with pytest.raises(RuntimeError, match="callable"):
        torch.cond(True, 1, lambda: 2)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="Expect operands"):
        torch.cond(True, lambda: 1, lambda: 2, 3)
