"""Sequences of ever new lengths go through recurrent layers in pieces, whose programs all lengths share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
from graphc import recurrent
from graphc.nn.utils.rnn import pack_sequence, pad_packed_sequence
from graphc.options import scope
from graphc.recurrent import MOST_LENGTHS, PIECES
from tests.frontend.test_stored_parts import counted, realised

FEATURES, SIZE = 3, 4
LENGTHS = (5, 7, 9, 2, 11, 12, 13, 21, 1, 64, 85, 3)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No lengths were seen before, programs like others may be run by NumPy, and pieces are short."""
    monkeypatch.setattr("graphc.call_places._taken", {})
    monkeypatch.setattr(recurrent, "PIECES", (8, 2, 1))
    graphc.manual_seed(0)
    with scope(interpret=True):
        yield


def flat(value: Any) -> list[np.ndarray]:
    if isinstance(value, (tuple, list)):
        return [array for each in value for array in flat(each)]
    return [value.numpy()]


def whole(net: Any, *given: Any) -> list[np.ndarray]:
    """What a network gives for whole sequences."""
    with scope(interpret=False), graphc.no_grad():
        return flat(net(*given))


MADE: dict[str, Any] = {
    "lstm": lambda: nn.LSTM(FEATURES, SIZE),
    "gru": lambda: nn.GRU(FEATURES, SIZE, num_layers=2),
    "tanh": lambda: nn.RNN(FEATURES, SIZE, bias=False),
    "relu": lambda: nn.RNN(FEATURES, SIZE, nonlinearity="relu", batch_first=True),
    "both directions": lambda: nn.LSTM(FEATURES, SIZE, num_layers=2, bidirectional=True, batch_first=True),
    "projected": lambda: nn.LSTM(FEATURES, SIZE, proj_size=2, bidirectional=True),
}


@pytest.mark.parametrize("what", MADE)
def test_pieces_give_what_the_whole_gives(what: str) -> None:
    net = MADE[what]()
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        shape = (2, length, FEATURES) if net.batch_first else (length, 2, FEATURES)
        x = graphc.tensor(rng.standard_normal(shape).astype(np.float32))
        with graphc.no_grad():
            got = flat(net(x))
        for a, b in zip(got, whole(net, x), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_given_states_begin() -> None:
    net = nn.LSTM(FEATURES, SIZE, num_layers=2)
    for length in LENGTHS:
        x, h, c = graphc.randn(length, 3, FEATURES), graphc.randn(2, 3, SIZE), graphc.randn(2, 3, SIZE)
        with graphc.no_grad():
            got = flat(net(x, (h, c)))
        for a, b in zip(got, whole(net, x, (h, c)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_packed_sequences_end_each_for_itself() -> None:
    net = nn.GRU(FEATURES, SIZE, bidirectional=True)
    for length in LENGTHS[:9]:
        packed = pack_sequence([graphc.randn(n, FEATURES) for n in (length + 3, length + 1, length)])

        def run(packed: Any = packed) -> list[np.ndarray]:
            output, last = net(packed)
            return flat((pad_packed_sequence(output)[0], last))

        with graphc.no_grad():
            got = run()
        with scope(interpret=False), graphc.no_grad():
            for a, b in zip(got, run(), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_programs_are_those_of_the_pieces() -> None:
    net, x = nn.LSTM(FEATURES, SIZE), realised(60, 1, FEATURES) / 100

    def run(lengths: Any) -> None:
        with graphc.no_grad():
            for length in lengths:
                net(x[:length])[0].tolist()

    run(range(3, 30))
    done = counted(lambda: run(range(30, 60)))
    assert done["programs_built"] == 0
    assert done["interpreted"] <= 30, "no more than the last states put together"


def test_few_lengths_are_whole_programs() -> None:
    net = nn.LSTM(FEATURES, SIZE)

    def run() -> None:
        with graphc.no_grad():
            for length in range(20, 20 + MOST_LENGTHS):
                net(graphc.ones(length, 1, FEATURES))[0].tolist()

    run()
    assert counted(run)["flushes"] == MOST_LENGTHS


def test_gradients_flow_through_sequences_of_any_length() -> None:
    net = nn.LSTM(FEATURES, SIZE)
    for length in LENGTHS[:8]:
        x = graphc.randn(length, 2, FEATURES, requires_grad=True)
        net(x)[0].sum().backward()
        assert x.grad.abs().sum() > 0
        assert x.grad.shape == x.shape


def test_pieces_are_few() -> None:
    assert all(a % b == 0 for a, b in itertools.pairwise(PIECES)) and PIECES[-1] == 1
    for steps in range(1, 40):
        made = recurrent._pieces(steps, False)
        assert [first for first, _ in made] == [sum(size for _, size in made[:i]) for i in range(len(made))]
        assert sum(size for _, size in made) == steps
        assert recurrent._pieces(steps, True) == made[::-1]
