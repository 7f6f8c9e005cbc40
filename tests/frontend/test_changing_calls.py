"""Calls of which a place, a number or a shift changes from one to the next compile a few programs, not one for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.counting import FRONT
from graphc.recording import current
from graphc.tensors.core import MOST_VIEWS
from graphc.tensors.filling import MOST_NUMBERS
from graphc.tensors.rearranging import MOST_SHIFTS
from tests.frontend.test_stored_parts import counted, realised

CASES: dict[str, tuple[Callable[[Any, Any, int], Any], int]] = {
    "columns": (lambda m, x, k: x[:, k].sum(), MOST_VIEWS),
    "blocks of columns": (lambda m, x, k: (x[:, k % 30 : k % 30 + 10] * 2).sum(), MOST_VIEWS),
    "every other": (lambda m, x, k: x[k % 7 : k % 7 + 5, ::2].sum(), MOST_VIEWS),
    "rows turned": (lambda m, x, k: (x.T[k] - x.T[k + 1]).sum(), MOST_VIEWS),
    "full": (lambda m, x, k: m.full((8,), float(k)).sum(), MOST_NUMBERS),
    "full of integers": (lambda m, x, k: m.full((8,), k).sum(), MOST_NUMBERS),
    "roll": (lambda m, x, k: (m.roll(x[0], k) * x[0])[3], MOST_SHIFTS),
    "roll along two": (lambda m, x, k: m.roll(x, (k, -k), (0, 1))[1, 2], MOST_SHIFTS),
    "masked fill": (lambda m, x, k: x.where(x < 5, m.full((), float(k))).sum(), MOST_NUMBERS),
    "fill": (lambda m, x, k: m.zeros(4).fill_(k).sum(), MOST_NUMBERS),
}


class NumPy:
    """The functions that the cases use."""

    zeros, roll = staticmethod(np.zeros), staticmethod(np.roll)

    @staticmethod
    def full(shape: tuple[int, ...], value: float) -> np.ndarray:
        return np.full(shape, value)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("masked fill", "fill")])
def test_results_are_those_of_numpy(name: str) -> None:
    call, _ = CASES[name]
    x = realised(40, 60)
    for k in range(40):
        assert call(graphc, x, k).item() == call(NumPy, x.numpy().astype(np.float64), k), k


@pytest.mark.parametrize("name", CASES)
def test_few_programs_are_compiled(name: str) -> None:
    call, programs = CASES[name]
    x = realised(40, 60)
    assert counted(lambda: [call(graphc, x, k).item() for k in range(40)])["programs_built"] <= programs + 2


def test_many_views_that_are_read_at_once_are_not_copied() -> None:
    x = realised(40, 70)

    def turn() -> None:
        parts = x.split(5, 1)
        assert graphc.cat(parts[::-1], 1)[:, :5].tolist() == x[:, 65:].tolist()

    for _ in range(4):
        turn()
    done = counted(turn)
    assert done["programs_built"] == 0
    assert done["records"] <= 2
    assert not x._storage.slots or len(x._storage.slots) <= 1, "the part that the test reads"


def test_what_is_read_of_a_view_is_what_was_there() -> None:
    """A view that was copied does not see what is written later."""
    x = realised(20, 30)
    sums = []
    for k in range(20):
        sums.append(x[:, k] * 1)
        x[:, k] = 0.0
    expected = np.arange(600, dtype=np.float32).reshape(20, 30).T
    for k, column in enumerate(sums):
        assert column.tolist() == expected[k].tolist()
    assert not x[:, :20].any()


def test_gradients_of_columns_go_to_the_whole() -> None:
    w = realised(6, 30).requires_grad_()
    for k in range(30):
        (w[:, k] * k).sum().backward()
    assert (w.grad.numpy() == np.arange(30, dtype=np.float32)).all()


def test_gradients_of_rolls() -> None:
    for k in (1, 2, 3, -4, 50):
        x = realised(3, 5).requires_grad_()
        (x.roll((k, 2 * k), (0, 1)) * realised(3, 5)).sum().backward()
        expected = np.roll(np.arange(15, dtype=np.float32).reshape(3, 5), (-k, -2 * k), (0, 1))
        assert x.grad.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [graphc.float16, graphc.bfloat16, graphc.bool, graphc.uint8, graphc.int64])
def test_full_of_any_dtype_whatever_the_number(dtype: Any) -> None:
    for value in (0, 1, 1, 0, 1):
        made = graphc.full((2, 3), value, dtype=dtype)
        assert made.dtype is dtype and made.tolist() == [[value] * 3] * 2


def test_states_of_many_parameters_are_remembered() -> None:
    """An optimizer makes another number for each size; its steps are recorded once for all that."""
    parameters = [graphc.ones(n, 2).requires_grad_() for n in range(1, 14)]
    optimizer = graphc.optim.Adafactor(parameters, lr=0.1)
    current().reset()
    for _ in range(4):
        optimizer.zero_grad()
        sum((p * p).sum() for p in parameters).backward()
        optimizer.step()
    assert current().updates


# masks


def test_masks_pick_without_a_program_for_each_number_of_elements() -> None:
    x = realised(30, 20)

    def pick() -> None:
        for k in range(30):
            assert x[x > 20 * k].shape == (600 - 20 * k - 1,)
            assert x[x[:, 0] >= 20 * k].shape == (30 - k, 20)

    assert counted(pick)["programs_built"] <= 4


def test_masks_pick_what_numpy_picks() -> None:
    x = realised(6, 5)
    array = x.numpy()
    for mask in (array > 12, array[:, 0] > 10, np.zeros_like(array, np.bool_), array % 3 == 0):
        assert x[graphc.tensor(mask)].tolist() == array[mask].tolist()
        if mask.ndim == 2:
            assert x.T[graphc.tensor(mask.T)].tolist() == array.T[mask.T].tolist()
    picked = x[x > 12]
    x[0, 0] = 100.0
    picked[0] = -1.0
    assert x[0, 0].item() == 100 and x[2, 3].item() == 13, "a copy"


def test_gradients_go_through_masks() -> None:
    x = realised(6, 5).requires_grad_()
    x[x > 12].sum().backward()
    assert x.grad.tolist() == (x.detach().numpy() > 12).tolist()


@pytest.mark.parametrize("shape", [(5,), (6, 4), (6, 5, 1)])
def test_masks_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    x = realised(6, 5)
    with pytest.raises(IndexError):
        x[graphc.zeros(shape, dtype=graphc.bool)]


def halved(turns: int, scale: float = 1.0) -> list[float]:
    x = graphc.ones(4)
    for k in range(1, turns):
        x = x / (k * scale) + k
    return x.tolist()


def halved_by_hand(turns: int, scale: float = 1.0) -> list[float]:
    x = np.ones(4, np.float32)
    for k in range(1, turns):
        x = x / np.float32(k * scale) + np.float32(k)
    return x.tolist()


@pytest.mark.usefixtures("native_replays", "native_recording")
def test_the_number_of_a_turn_is_a_constant_where_a_loop_runs_again_and_again() -> None:
    for _ in range(60):
        assert halved(12) == halved_by_hand(12)
    before = FRONT.records, FRONT.native_records
    built = counted(lambda: [halved(12) for _ in range(5)])["programs_built"]
    assert built == 0
    assert FRONT.records - before[0] - (FRONT.native_records - before[1]) <= 5
    # Another number makes it one that is read at run time, for good.
    for scale in (2.0, 3.0, 4.0, 5.0):
        assert halved(12, scale) == pytest.approx(halved_by_hand(12, scale))
    assert counted(lambda: [halved(12, 6.0 + k) for k in range(20)])["programs_built"] <= 1
    assert halved(12) == halved_by_hand(12)


def test_a_number_that_changes_between_looks_stays_one_that_is_read_at_run_time() -> None:
    def turns() -> None:
        for k in range(10):
            assert (graphc.ones(3) * k).tolist() == [float(k)] * 3

    turns()
    assert counted(lambda: [turns() for _ in range(60)])["programs_built"] <= 1


def test_many_numbers_stay_read_at_run_time() -> None:
    def many() -> list[float]:
        x = graphc.zeros(2)
        for k in range(80):
            x = x + k
        return x.tolist()

    for _ in range(12):
        assert many() == [float(sum(range(80)))] * 2
    assert counted(lambda: [many() for _ in range(5)])["programs_built"] == 0
    x = graphc.zeros(2)
    for k in (1.5, 0.0, -0.0, float("nan"), 2):
        y = (x * 0 + 1) * k
        assert np.array_equal(np.signbit(y.numpy()), np.signbit(np.full(2, k)))
