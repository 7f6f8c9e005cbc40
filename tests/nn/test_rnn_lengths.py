"""Sequences of ever new lengths go through recurrent layers in pieces, whose programs all lengths share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
from graphc import recurrent_pieces
from graphc.nn.utils.rnn import pack_sequence, pad_packed_sequence
from graphc.options import scope
from graphc.recurrent_pieces import MOST_LENGTHS, PIECES, pieces_of
from tests.frontend.test_stored_parts import counted, realised

FEATURES, SIZE = 3, 4
LENGTHS = (5, 7, 9, 2, 11, 12, 13, 21, 1, 64, 85, 3)
FEW = (5, 7, 6, 2, 11, 1, 13)  # as many as whole programs are compiled for, and three more


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No lengths were seen before, programs like others may be run by NumPy, and pieces are short."""
    monkeypatch.setattr("graphc.call_places._taken", {})
    monkeypatch.setattr(recurrent_pieces, "PIECES", (8, 2, 1))
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


@pytest.mark.share(2)
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


def slopes(net: Any, *given: Any) -> list[np.ndarray]:
    """The gradients of some function of all that a network gives, by its parameters and what it is given."""
    given = tuple(x.detach().requires_grad_() for x in given)
    output, last = net(given[0], given[1:] if len(given) > 2 else given[1] if given[1:] else None)
    last = last if isinstance(last, tuple) else (last,)
    loss = (output.sin() * output).sum()
    for state in last:
        loss = loss + (state * 0.5 + 1).square().sum()
    net.zero_grad()
    loss.backward()
    return [x.grad.numpy().copy() for x in (*net.parameters(), *given)]


SOME = [w if w in ("lstm", "gru", "both directions") else pytest.param(w, marks=pytest.mark.slow) for w in MADE]


@pytest.mark.share(2)
@pytest.mark.parametrize("what", SOME)
def test_gradients_are_those_of_the_whole(what: str) -> None:
    net = MADE[what]()
    rng = np.random.default_rng(0)
    for length in FEW:
        shape = (2, length, FEATURES) if net.batch_first else (length, 2, FEATURES)
        x = graphc.tensor(rng.standard_normal(shape).astype(np.float32))
        got = slopes(net, x)
        with scope(interpret=False):
            wanted = slopes(net, x)
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_gradients_of_given_states_are_those_of_the_whole() -> None:
    net = nn.LSTM(FEATURES, SIZE, num_layers=2)
    for length in FEW:
        given = graphc.randn(length, 3, FEATURES), graphc.randn(2, 3, SIZE), graphc.randn(2, 3, SIZE)
        got = slopes(net, *given)
        with scope(interpret=False):
            wanted = slopes(net, *given)
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_gradients_of_packed_sequences_are_those_of_the_whole() -> None:
    net = nn.GRU(FEATURES, SIZE, bidirectional=True)
    for length in FEW:
        arrays = [graphc.randn(n, FEATURES).numpy() for n in (length + 3, length + 1, length)]

        def run(arrays: list[np.ndarray] = arrays) -> list[np.ndarray]:
            given = [graphc.tensor(array).requires_grad_() for array in arrays]
            output, last = net(pack_sequence(given))
            net.zero_grad()
            (pad_packed_sequence(output)[0].sin().sum() + last.square().sum()).backward()
            return [x.grad.numpy().copy() for x in (*net.parameters(), *given)]

        got = run()
        with scope(interpret=False):
            for a, b in zip(got, run(), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_only_what_requires_gradients_has_some() -> None:
    net = nn.LSTM(FEATURES, SIZE)
    net.weight_hh_l0.requires_grad_(False)
    for length in FEW:
        x = graphc.randn(length, 2, FEATURES)
        net.zero_grad()
        net(x)[0][-1].sum().backward()
        assert x.grad is None and net.weight_hh_l0.grad is None
        assert net.weight_ih_l0.grad.abs().sum() > 0


def test_gradients_of_gradients_are_those_of_the_whole() -> None:
    net = nn.GRU(FEATURES, SIZE)
    for length in FEW:
        array = graphc.randn(length, 2, FEATURES).numpy()

        def run(array: np.ndarray = array) -> list[np.ndarray]:
            x = graphc.tensor(array).requires_grad_()
            (slope,) = graphc.autograd.grad(net(x)[0].sin().sum(), x, create_graph=True)
            net.zero_grad()
            slope.square().sum().backward()
            return [x.grad.numpy().copy(), *(p.grad.numpy().copy() for p in net.parameters() if p.grad is not None)]

        got = run()
        with scope(interpret=False):
            for a, b in zip(got, run(), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_weights_that_are_written_before_backward_are_noticed() -> None:
    net = nn.LSTM(FEATURES, SIZE)
    for length in FEW:
        loss = net(graphc.randn(length, 2, FEATURES))[0].sum()
        loss.item()
        with graphc.no_grad():
            net.weight_hh_l0.mul_(1.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_training_over_new_lengths_builds_few_programs() -> None:
    net, head = nn.LSTM(FEATURES, SIZE), nn.Linear(SIZE, 2)
    optimizer = graphc.optim.SGD([*net.parameters(), *head.parameters()], lr=0.1)

    def run(lengths: Any) -> None:
        for length in lengths:
            optimizer.zero_grad()
            head(net(graphc.ones(length, 2, FEATURES))[1][0][0]).square().sum().backward()
            optimizer.step()

    run(range(3, 30))
    assert counted(lambda: run(range(30, 60)))["compiles"] == 0


def test_pieces_are_few() -> None:
    assert all(a % b == 0 for a, b in itertools.pairwise(PIECES)) and PIECES[-1] == 1
    for steps in range(1, 40):
        made = pieces_of(steps, False)
        assert [first for first, _ in made] == [sum(size for _, size in made[:i]) for i in range(len(made))]
        assert sum(size for _, size in made) == steps
        assert pieces_of(steps, True) == made[::-1]
