"""Numbers that operators close over, such as the rate of a dropout: where each call has another one, they are read at
run time, so that not each is a program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc.counting import FRONT
from graphc.recording import Recorder, current, using
from graphc.tensors.emitting import MOST_CHANGES

VALUES = np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 6)
TURNS = 30
CASES: dict[str, Callable[[Any, float], Any]] = {
    "dropout": lambda x, v: F.dropout(x, v),
    "alpha_dropout": lambda x, v: F.alpha_dropout(x, v, training=True),
    "gumbel_softmax": lambda x, v: F.gumbel_softmax(x, tau=v),
    "normal_": lambda x, v: graphc.zeros_like(x).normal_(v, 2 * v) + x,
    "uniform_": lambda x, v: graphc.zeros_like(x).uniform_(-v, v) + x,
    "exponential_": lambda x, v: graphc.zeros_like(x).exponential_(v) + x,
    "bernoulli_": lambda x, v: graphc.zeros_like(x).bernoulli_(v) + x,
    "elu": lambda x, v: F.elu(x, v),
    "softplus": lambda x, v: F.softplus(x, v),
    "leaky_relu": lambda x, v: F.leaky_relu(x, v),
    "softshrink": lambda x, v: F.softshrink(x, v),
    "huber_loss": lambda x, v: F.huber_loss(x, x.detach() * 0.5, delta=v),
    "smooth_l1_loss": lambda x, v: F.smooth_l1_loss(x, x.detach() * 0.5, beta=v),
    "cross_entropy": lambda x, v: F.cross_entropy(x, graphc.arange(4), label_smoothing=v),
    "layer_norm": lambda x, v: F.layer_norm(x, (6,), eps=v),
}


def turn_of(name: str, dtype: Any, number: float, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """The result and the gradient of the sum of its squares, with draws that depend on `offset`."""
    graphc.manual_seed(offset)
    x = graphc.tensor(VALUES, dtype=dtype, requires_grad=True)
    y = CASES[name](x, number)
    (y * y).sum().backward()
    assert x.grad is not None
    return y.detach().to(graphc.float64).numpy(), x.grad.to(graphc.float64).numpy()


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64, graphc.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients_are_those_of_constants(name: str, dtype: Any) -> None:
    numbers = [0.9 - turn / (2 * TURNS) for turn in range(TURNS)]
    built = []
    for turn, number in enumerate(numbers):
        before = FRONT.programs_built
        found = turn_of(name, dtype, number, turn)
        built.append(FRONT.programs_built - before)
        with using(Recorder()):  # which has seen no other number
            wanted = turn_of(name, dtype, number, turn)
        tolerance = {graphc.float64: 1e-12, graphc.float32: 1e-5, graphc.bfloat16: 2e-2}[dtype]
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    assert sum(built[MOST_CHANGES + 2 :]) == 0, "the program reads the number at run time"


def test_layers_with_numbers_of_their_own_keep_them_as_constants() -> None:
    rates = [0.1 + 0.05 * layer for layer in range(12)]

    def step() -> float:
        x = graphc.ones(8, 8)
        for rate in rates:
            x = F.dropout(x, rate) + 1
        return x.sum().item()

    for _ in range(MOST_CHANGES + 3):
        step()
    before, held = FRONT.programs_built, len(current().held)
    step()
    assert FRONT.programs_built == before and len(current().held) == held
    assert max(numbers.changes for numbers in current().closures.values()) == 1


def test_only_the_constants_that_change_are_read() -> None:
    """The scale of `selu` and the rest of what an operator emits stay constants."""
    x = graphc.tensor(VALUES)
    for turn in range(MOST_CHANGES + 3):
        F.elu(x, 0.5 + turn).sum().item()
    (numbers,) = [n for n in current().closures.values() if n.changes > MOST_CHANGES]
    assert numbers.constants is not None
    assert any(c is None for c in numbers.constants)


def test_a_compiled_call_keeps_its_constants() -> None:
    def noisy(x: graphc.Tensor, rate: float) -> graphc.Tensor:
        return F.dropout(x, rate)

    run = graphc.compile(noisy)
    x = graphc.ones(64)
    for turn in range(MOST_CHANGES + 6):
        rate = 0.25 + turn / 40
        kept = run(x, rate)
        assert set(np.round(kept.numpy(), 5)) <= {0.0, np.round(np.float32(1 / (1 - rate)), 5)}
