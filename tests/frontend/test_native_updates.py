"""Operations in place on parts that are computed are done where they lie, in native code, as Python does them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc.counting import FRONT
from tests.frontend.native_cases import both, entered

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")

TURNS = 12


def _add(x: Any, v: Any) -> None:
    x += v


def _sub(x: Any, v: Any) -> None:
    x -= v


def _mul(x: Any, v: Any) -> None:
    x *= v


def _div(x: Any, v: Any) -> None:
    x /= v


def _and(x: Any, v: Any) -> None:
    x &= v


def _or(x: Any, v: Any) -> None:
    x |= v


def _xor(x: Any, v: Any) -> None:
    x ^= v


ARITHMETIC = {
    "+=": _add,
    "-=": _sub,
    "*=": _mul,
    "/=": _div,
    "add_": lambda x, v: x.add_(v),
    "sub_": lambda x, v: x.sub_(v),
    "mul_": lambda x, v: x.mul_(v),
    "div_": lambda x, v: x.div_(v),
}
BITS = {"&=": _and, "|=": _or, "^=": _xor}

PARTS: dict[str, Callable[[Any, int], Any]] = {
    "element": lambda x, t: x[t % 5, t % 4],
    "row": lambda x, t: x[t % 5],
    "column": lambda x, t: x[:, t % 4],
    "rows": lambda x, t: x[t % 3 : t % 3 + 2],
    "block": lambda x, t: x[t % 3 : t % 3 + 2, 1:3],
    "every other": lambda x, t: x[::2],
    "every other column": lambda x, t: x[:, t % 2 :: 2],
    "transposed": lambda x, t: x.t()[t % 4],
    "all": lambda x, t: x[:],
    "none": lambda x, t: x[5:],
}


def _memory(dtype: Any) -> Any:
    made = (torch.arange(20) % 7 + 1).reshape(5, 4)
    made = made > 3 if dtype is torch.bool else made.to(dtype)
    made.sum().item()
    return made


FLOATS = torch.float32, torch.float64
CASES = [
    (name, dtype)
    for name in ARITHMETIC
    for dtype in (*FLOATS, *(() if name in ("/=", "div_") else (torch.int32, torch.int64)))
]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_arithmetic_on_parts(name: str, dtype: Any, part: str) -> None:
    change, show = ARITHMETIC[name], PARTS[part]

    def run() -> Any:
        x, others = _memory(dtype), _memory(dtype) * 2
        others.sum().item()
        for t in range(TURNS):
            change(show(x, t), 3 if t % 2 else 2)
            change(show(x, t), show(others, t + 1) if t % 3 else show(others, t).clone())
            change(show(x, t), others[0, t % 4])
        return x.tolist(), x._version

    ours, theirs = both(run)
    assert ours == theirs


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.int64])
@pytest.mark.parametrize("name", BITS)
def test_bits_of_parts(name: str, dtype: Any, part: str) -> None:
    change, show = BITS[name], PARTS[part]

    def run() -> Any:
        x, others = _memory(dtype), ~_memory(dtype)
        others.sum().item()
        for t in range(TURNS):
            change(show(x, t), bool(t % 2) if dtype is torch.bool else t)
            change(show(x, t), show(others, t + 1))
            change(show(x, t), others[1, t % 4])
        return x.tolist(), x._version

    ours, theirs = both(run)
    assert ours == theirs


def test_nothing_is_recorded_and_no_python_runs() -> None:
    x, row = torch.zeros(40, 6), torch.ones(6)
    (x.sum() + row.sum()).item()

    def run() -> None:
        for t in range(40):
            x[t, 2] += 1
            x[t] += row
            x[t, 1:3] *= 2.0

    run()
    before = FRONT.records
    assert entered(run) == []
    assert FRONT.records == before
    assert x[:, 0].tolist() == [2.0] * 40 and x[:, 2].tolist() == [12.0] * 40


def test_numbers_are_those_of_numpy() -> None:
    x, theirs = torch.zeros(30), np.zeros(30, np.float32)
    x.sum().item()
    for t in range(300):
        x[t % 30] += 0.1 * t
        theirs[t % 30] += np.float32(0.1 * t)
        x[t % 30] /= 3
        theirs[t % 30] /= np.float32(3)
    assert x.tolist() == theirs.tolist()


def test_what_others_hold_stays_as_it_was() -> None:
    x = torch.arange(12.0).reshape(3, 4)
    x.sum().item()
    for t in range(TURNS):
        copy, seen, pending = x.clone(), x.detach(), x * 1
        x[t % 3] += 1
        assert pending.tolist() == copy.tolist()
        assert seen.tolist() == x.tolist() != copy.tolist()


def test_numpy_sees_changes() -> None:
    x = torch.zeros(4, 3)
    seen = x.numpy()
    for t in range(TURNS):
        x[t % 4] += 1.5
        assert seen.tolist() == x.tolist()


def test_histories_notice_changes() -> None:
    w = torch.ones(3, requires_grad=True)
    x = torch.ones(4, 3)
    x.sum().item()
    for t in range(TURNS):
        made = (w * x[t % 4]).sum()
        x[t % 4] += 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            made.backward()


def test_gradients_flow_through_changes() -> None:
    def run() -> Any:
        found = []
        for t in range(TURNS):
            w = torch.ones(3, requires_grad=True)
            x = torch.ones(4, 3)
            x.sum().item()
            x[t % 4] *= w
            x[1] += 2
            x.sum().backward()
            found.append((x.tolist(), w.grad.tolist()))
        return found

    ours, theirs = both(run)
    assert ours == theirs


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: _add(x[1:], x[:-1]), RuntimeError, "single memory location"),
        (lambda x: _add(x[0], torch.ones(5)), RuntimeError, "must match"),
        (lambda x: _add(x[0, :1], torch.ones(3)), RuntimeError, "doesn't match the broadcast shape"),
        (lambda x: _add(x[0].expand(2, 4), 1), RuntimeError, "single memory location"),
        (lambda x: _add(x.int()[0], 1.5), RuntimeError, "can't be cast"),
        (lambda x: x[0].add_("1"), TypeError, "must be"),
    ],
)
def test_wrong_changes_are_refused(change: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    x = torch.arange(12.0).reshape(3, 4)
    x.sum().item()
    for t in range(4):
        x[t % 3] += 1
    before = x.tolist()
    with pytest.raises(error, match=message):
        change(x)
    assert x.tolist() == before


def test_values_that_wait_are_computed_where_places_move() -> None:
    def run() -> Any:
        x, v = torch.zeros(50, 3), torch.ones(3)
        (x.sum() + v.sum()).item()
        for t in range(50):
            x[t] += v * t
            x[t, 1] += x[t].sum()
        return x.tolist()

    ours, theirs = both(run)
    assert ours == theirs


def test_references_are_kept() -> None:
    x = torch.zeros(8, 3)
    x.sum().item()
    row = x[1]
    before = sys.getrefcount(row)
    for _ in range(100):
        row += 1.0
    assert sys.getrefcount(row) == before
    assert x[1].tolist() == [100.0] * 3


def test_inference_mode() -> None:
    with torch.inference_mode():
        x = torch.zeros(4, 3)
        x.sum().item()
        for t in range(TURNS):
            x[t % 4] += 1
        assert x.tolist() == [[3.0] * 3] * 4
    with pytest.raises(RuntimeError, match="inference tensor"):
        x[0] += 1


def test_parts_are_changed_and_written_natively_in_inference_mode() -> None:
    with torch.inference_mode():
        x = torch.zeros(8, 3)
        x.sum().item()

        def run() -> None:
            for t in range(8):
                x[t, 1] = 2.0
                x[t] += 1

        run()
        assert entered(run) == []
        assert x.tolist() == [[2.0, 3.0, 2.0]] * 8
    for change in (lambda: _add(x[0], 1), lambda: x.__setitem__(0, 1.0)):
        with pytest.raises(RuntimeError, match="inference tensor"):
            change()
    assert x.tolist() == [[2.0, 3.0, 2.0]] * 8
