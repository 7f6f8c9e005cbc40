"""Anomaly mode, modes of recording, inference mode and `Variable`, in PyTorch and here."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import graphc
from tests.differential.side_by_side import Program, Say, attempt, same


def anomaly(torch: Any, say: Say) -> None:
    x = torch.tensor([0.0, 1.0], requires_grad=True)

    def run(check_nan: bool = True) -> Any:
        with torch.autograd.detect_anomaly(check_nan=check_nan):
            say(torch.is_anomaly_enabled() if hasattr(torch, "is_anomaly_enabled") else True)
            (x.sqrt() * 0).sum().backward()
        return x.grad

    attempt(say, run)
    attempt(say, lambda: run(False))
    with torch.autograd.set_detect_anomaly(True):
        y = (x * 2).exp()
        y.sum().backward()
    say(x.grad[1])


def modes(torch: Any, say: Say) -> None:
    x = torch.ones(2, requires_grad=True)

    @torch.no_grad()
    def without(x: Any) -> Any:
        return (x * 2).requires_grad

    @torch.enable_grad()
    def with_gradients(x: Any) -> Any:
        return (x * 2).requires_grad

    @torch.no_grad()
    def generated(x: Any) -> Any:
        for _ in range(2):
            yield torch.is_grad_enabled()

    say(without(x), with_gradients(x))
    with torch.no_grad():
        say(with_gradients(x), torch.is_grad_enabled())
    for inside in generated(x):
        say(inside, torch.is_grad_enabled())
    with torch.set_grad_enabled(False):
        say(torch.is_grad_enabled())
    torch.set_grad_enabled(False)
    say((x * 2).requires_grad)
    torch.set_grad_enabled(True)
    decorated = torch.set_grad_enabled(False)(lambda x: (x * 2).requires_grad)
    say(decorated(x), torch.is_grad_enabled())


def inference(torch: Any, say: Say) -> None:
    with torch.inference_mode():
        a = torch.ones(3)
        say(a.is_inference(), torch.is_inference_mode_enabled(), torch.is_grad_enabled(), a.add_(1))
        with torch.inference_mode(False):
            say(torch.ones(1).is_inference(), torch.is_grad_enabled())
    say(a.view(3, 1).is_inference(), (a * 2).is_inference(), a.clone().is_inference())
    say(torch.is_inference(a), torch.is_inference(a * 2))
    attempt(say, lambda: a.add_(1))
    attempt(say, lambda: a.requires_grad_())
    attempt(say, lambda: a._version)
    decorated = torch.inference_mode()(lambda: torch.ones(1).is_inference())
    say(decorated(), torch.inference_mode(lambda: torch.ones(1).is_inference())())


def variables(torch: Any, say: Say) -> None:
    Variable, x = torch.autograd.Variable, torch.ones(2)
    say(isinstance(x, Variable), isinstance(3, Variable), type(Variable(x)) is torch.Tensor)
    y = Variable(x, requires_grad=True)
    say(y, y.requires_grad, x.requires_grad, y.data_ptr() == x.data_ptr(), Variable())
    attempt(say, lambda: Variable([1.0, 2.0]))
    attempt(say, lambda: Variable(torch.tensor([1]), requires_grad=True))
    attempt(say, lambda: Variable(x, volatile=True))


PROGRAMS = [anomaly, modes, inference, variables]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_modes(program: Program) -> None:
    same(program)


def test_anomaly_names_the_line_of_the_forward_call() -> None:
    x = graphc.zeros(2, requires_grad=True)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with graphc.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="SqrtBackward0' returned nan"):
            (x.sqrt() * 0).sum().backward()
    texts = [str(w.message) for w in seen]
    assert any("Error detected in SqrtBackward0" in t and "test_autograd_modes.py" in t for t in texts)
