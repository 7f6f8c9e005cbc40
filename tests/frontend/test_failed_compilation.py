"""An error of the compiler is told once, and neither changes results nor keeps other work from being done."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.counting import FRONT
from graphc.errors import UnsupportedError
from graphc.ir.graph import Graph
from graphc.nn import functional

VALUES = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """The error that compiling programs with a `tanh` raises."""
    errors: list[Exception] = [KeyError("mask")]
    compiled = graphc.compiled.compile_graph

    def compile_graph(graph: Graph, donate: Any = (), device: str = "cpu") -> Any:
        if any(node.op == "tanh" for node in graph.nodes):
            raise errors[0]
        return compiled(graph, donate, device)

    monkeypatch.setattr(graphc.compiled, "compile_graph", compile_graph)
    return errors


def test_what_cannot_be_compiled_is_computed_all_the_same(broken: list[Exception]) -> None:
    x = graphc.tensor(VALUES, requires_grad=True)
    y = graphc.tanh(x * 2)
    with pytest.warns(RuntimeWarning, match=r"could not compile .* KeyError: 'mask', at test_failed_compilation.py:\d"):
        np.testing.assert_allclose(y.numpy(force=True), np.tanh(VALUES * 2), rtol=1e-6)
    before = FRONT.interpreted
    for turn in range(4):  # told once
        again = graphc.tanh(graphc.tensor(VALUES + turn, requires_grad=True) * 2)
        np.testing.assert_allclose(again.numpy(force=True), np.tanh((VALUES + turn) * 2), rtol=1e-6)
    assert FRONT.interpreted == before + 4
    np.testing.assert_array_equal((x.detach() + 1).numpy(), VALUES + 1)


def test_training_goes_on(broken: list[Exception]) -> None:
    w = graphc.tensor(VALUES[0].copy(), requires_grad=True)
    x, y = graphc.tensor(VALUES), graphc.tensor([0.0, 0.5, -0.5])
    losses = []
    with pytest.warns(RuntimeWarning, match="could not compile"):
        for _ in range(8):
            loss = functional.mse_loss(graphc.tanh(x @ w), y)
            (grad,) = graphc.autograd.grad(loss, w)
            with graphc.no_grad():
                w -= 0.5 * grad
            losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_what_is_not_supported_is_an_error(broken: list[Exception]) -> None:
    broken[0] = UnsupportedError("too large")
    y = graphc.tanh(graphc.tensor(VALUES))
    with pytest.raises(UnsupportedError, match="too large"):
        y.numpy()


def test_a_compiled_function_tells_it_as_an_error(broken: list[Exception]) -> None:
    run = graphc.compile(lambda x: graphc.tanh(x) + 1)
    with pytest.raises(KeyError, match="mask"):
        run(graphc.tensor(VALUES))
