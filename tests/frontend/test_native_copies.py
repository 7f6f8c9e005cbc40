"""Copies and constants that wait at a flush are made in native code, and written where they lie afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc.counting import FRONT
from tests.frontend.native_cases import both, entered

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")

DTYPES = [torch.float32, torch.float64, torch.int32, torch.int64, torch.bool, torch.float16, torch.int8]
MADE: dict[str, Callable[[Any], Any]] = {
    "copy": lambda x: x.clone(),
    "copy of a copy": lambda x: x.clone().clone(),
    "zeros": lambda x: torch.zeros_like(x),
    "ones": lambda x: torch.ones_like(x),
    "zeros of a shape": lambda x: torch.zeros(3, 5),
    "number": lambda x: torch.full((7,), 2.5),
    "infinite": lambda x: torch.full((3,), -np.inf),
    "negative zero": lambda x: torch.full((3,), -0.0),
    "nothing": lambda x: torch.zeros(0, 3),
}


def _x(dtype: Any = torch.float32) -> Any:
    x = (torch.arange(12) % 5).to(dtype).reshape(3, 4).clone()
    x.tolist()
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MADE)
def test_what_waits_at_a_flush_is_right(name: str, dtype: Any) -> None:
    x, make = _x(dtype), MADE[name]

    def run() -> Any:
        found = []
        for turn in range(6):
            held, other = make(x), (x.double() * turn).sum()
            found.append((other.item(), held.numpy().tobytes(), held.dtype, tuple(held.shape)))
        return found

    ours, theirs = both(run)
    assert ours == theirs


@pytest.mark.parametrize("name", ["copy", "zeros", "ones", "zeros of a shape", "number"])
def test_flushes_with_copies_and_constants_are_native(name: str) -> None:
    x, make = _x(), MADE[name]
    for turn in range(6):
        held, other = make(x), (x * 2).sum()
        before = FRONT.native_flushes
        seen = entered(lambda pending=other: pending.item())
        assert turn < 4 or (seen, FRONT.native_flushes) == ([], before + 1)
        assert entered(lambda made=held: made.tolist()) == []


def test_a_copy_alone_needs_no_program() -> None:
    x = _x()
    for _ in range(4):
        held = x.clone()
        before = FRONT.flushes
        assert entered(lambda made=held: made.tolist()) == []
        assert FRONT.flushes == before + 1
        assert held.tolist() == x.tolist()


def test_copies_and_what_they_are_of_are_apart() -> None:
    x = _x()
    for turn in range(12):
        held, before = x.clone(), x.tolist()
        x[turn % 3] += 1
        assert held.tolist() == before != x.tolist()
        held[turn % 3, turn % 4] = -1
        assert held.tolist() != before
        assert x[turn % 3].tolist() == [n + 1 for n in before[turn % 3]]


def test_constants_are_apart() -> None:
    for turn in range(12):
        one, other = torch.zeros(3, 4), torch.zeros(3, 4)
        one[turn % 3, turn % 4] = 1
        assert other.tolist() == [[0.0] * 4] * 3
        assert one.sum().item() == 1


def test_gradients_go_through_copies() -> None:
    def run() -> Any:
        found = []
        for turn in range(6):
            w = torch.ones(3, requires_grad=True)
            held = w.clone()
            kept, look = held * turn, (_x().sum() * 1).item()
            kept.sum().backward()
            found.append((look, held.tolist(), w.grad.tolist()))
        return found

    ours, theirs = both(run)
    assert ours == theirs


def test_large_memory_is_left_to_several_threads() -> None:
    x = torch.ones(300, 300)
    x.sum().item()
    for turn in range(5):
        held, ones = x.clone(), torch.ones(300, 300)
        assert (x * turn).sum().item() == 90_000 * turn
        assert held.sum().item() == ones.sum().item() == 90_000


def test_blocks_of_a_copy_are_written_without_python() -> None:
    x = torch.zeros(4, 3, 8, 8)
    x.tolist()

    def blank(y: Any, turn: int) -> None:
        for b in range(4):
            i, j = (turn + b) % 5, (turn * 3 + b) % 5
            y[b, :, i : i + 3, j : j + 3] = turn + 1

    for turn in range(8):
        y, theirs = x.clone(), np.zeros((4, 3, 8, 8), np.float32)
        seen = entered(lambda made=y, now=turn: blank(made, now))
        assert seen == ["test_blocks_of_a_copy_are_written_without_python.<locals>.blank"] or turn < 3
        for b in range(4):
            i, j = (turn + b) % 5, (turn * 3 + b) % 5
            theirs[b, :, i : i + 3, j : j + 3] = turn + 1
        assert y.tolist() == theirs.tolist()


def test_blocks_are_changed_where_they_lie() -> None:
    x, theirs = torch.zeros(4, 3, 8, 8), np.zeros((4, 3, 8, 8), np.float32)
    x.tolist()
    part = torch.arange(27.0).reshape(3, 3, 3)
    part.tolist()
    for turn in range(30):
        b, i, j = turn % 4, turn % 5, turn * 3 % 5
        x[b, :, i : i + 3, j : j + 3] += part
        theirs[b, :, i : i + 3, j : j + 3] += part.numpy()
        x[:, turn % 3, i, j : j + 2] *= 0.5
        theirs[:, turn % 3, i, j : j + 2] *= np.float32(0.5)
        x.permute(3, 0, 2, 1)[j, b, i : i + 2] -= 1
        theirs.transpose(3, 0, 2, 1)[j, b, i : i + 2] -= 1
    assert x.tolist() == theirs.tolist()


def test_a_copy_that_gradients_need_is_not_written_at_once() -> None:
    def run() -> Any:
        found = []
        for turn in range(8):
            w = torch.arange(4.0).requires_grad_()
            held = w.clone()
            shown = held.detach()
            shown[turn % 4] = 5.0
            try:
                (held * held).sum().backward()
                found.append(w.grad.tolist())
            except RuntimeError as error:
                found.append(str(error)[:40])
            found.append(held.tolist())
        return found

    ours, theirs = both(run)
    assert ours == theirs


@pytest.mark.parametrize("make", [lambda x: torch.zeros(1), lambda x: x.clone()])
def test_a_look_at_a_constant_or_a_copy_tells_of_failed_checks(make: Callable[[Any], Any]) -> None:
    x, index = _x(), torch.tensor([0, 9])
    index.tolist()
    for _ in range(5):
        wrong = x[index]
        with pytest.raises(IndexError, match="out of bounds"):
            make(x).tolist()
        del wrong
