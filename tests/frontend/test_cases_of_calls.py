"""Calls of one function at one line over operands of several forms, and calls that check values, are served too."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc.errors import OutOfRange
from graphc.native import services
from graphc.options import scope
from graphc.recording import THREADS
from graphc.tensors import cases
from graphc_runtime.buffer import memory_stats
from tests.frontend.test_native_any_size import Made, check, fresh, served, values
from tests.frontend.test_stored_parts import counted, realised

pytestmark = pytest.mark.usefixtures(fresh.__name__)

SIZES = range(3, 60)


def among_steady(function: Callable[..., Any], operands: Callable[[int], list[Any]], sizes: Iterable[int]) -> Made:
    """What a function gives for operands of each size, among calls that do not change, none of which gives a view."""
    y, made = realised(3), []
    for n in sizes:
        given, found = operands(n), []

        def turn(given: list[Any] = given, found: list[Any] = found) -> None:
            nonlocal y
            for _ in range(24):
                y = y * 0.5 - 1
            found.append(function(*given))
            y.tolist()

        served = counted(turn)["native_any_size"]
        made.append((given, found[0], served))
    return made


def layers(*widths: int) -> Callable[..., Any]:
    """A function that calls `linear` at one line, from each width to the next."""
    weights = [values(n, m) / 16 for m, n in itertools.pairwise(widths)]
    biases = [values(n) / 4 for n in widths[1:]]

    def function(x: Any) -> Any:
        for weight, bias in zip(weights, biases, strict=True):
            x = F.linear(x, weight, bias)
        return x

    return function


@pytest.mark.parametrize("widths", [(5, 7, 5), (4, 4, 3), (4, 4, 4, 6), (3, 9, 5, 11, 2)])
def test_layers_of_several_widths_are_all_served(widths: tuple[int, ...]) -> None:
    function, count = layers(*widths), len(widths) - 1
    made = among_steady(function, lambda n: [values(n, widths[0])], SIZES)
    assert served(made[-16:]) >= 12 * count, "all but those that Python counts, or around these"
    check(function, made)


def test_python_counts_one_call_in_so_many_of_all_cases() -> None:
    function = layers(5, 7, 5)
    made = among_steady(function, lambda n: [values(n, 5)], [*SIZES, *[20, 21] * 40])
    assert 0 < 160 - served(made[-80:]) <= 160 // services.TURNS


def test_other_arguments_make_other_cases() -> None:
    def function(x: Any) -> Any:
        for dim in (0, 1, -1):
            x = F.softmax(x, dim)
        return x

    made = among_steady(function, lambda n: [values(n, 3)], SIZES)
    assert served(made[-16:]) >= 12 * 3
    check(function, made)


def test_two_sizes_that_change_apart_are_told() -> None:
    def operands(n: int) -> list[Any]:
        return [values(n, 3), values(3, 2 + n * 7 % 31)]

    made = among_steady(graphc.matmul, operands, SIZES)
    assert served(made[-16:]) >= 12
    check(graphc.matmul, made)


def test_joins_of_other_widths_are_served() -> None:
    def function(x: Any, y: Any) -> Any:
        for _ in range(2):
            x, y = y, graphc.cat([x, x])
        return x.sum(0)[0] + y.sum()

    made = among_steady(function, lambda n: [values(n, 3), values(n, 5)], SIZES)
    assert served(made[-16:]) >= 12 * 2
    check(function, made)


def test_cases_of_a_call_are_bounded() -> None:
    def function(x: Any) -> Any:
        for number in range(20):
            x = F.softplus(x, number + 1.5)
        return x

    made = among_steady(function, lambda n: [values(n, 3)], range(3, 20))
    check(function, made)
    assert all(len(call.cases) <= cases.MOST_CASES for call in THREADS.recorder.calls.known.values())


PICKS: dict[str, Callable[..., Any]] = {
    "rows": lambda x, index: x[index],
    "rows and a new dimension": lambda x, index: x[index, None],
    "index_select": lambda x, index: graphc.index_select(x, 0, index),
    "embedding": lambda x, index: F.embedding(index, x),
    "index_add": lambda x, index: graphc.index_add(x, 0, index, x[:1].expand(index.shape[0], -1)),
    "gather": lambda x, index: graphc.gather(x, 0, index[:, None]),
}


@pytest.mark.parametrize("what", PICKS)
@pytest.mark.parametrize("wrong", [8, 1 << 40, -9])
def test_places_out_of_range_are_refused_as_ever(what: str, wrong: int) -> None:
    x, pick = values(8, 8), PICKS[what]

    def operands(n: int) -> list[Any]:
        return [x, graphc.arange(n) * 5 % 8]

    def refused(index: Any) -> str:
        with pytest.raises(OutOfRange) as found:
            pick(x, index).tolist()
        return str(found.value)

    index = graphc.tensor([1, 2, wrong, 3, 0])
    with scope(interpret=False):
        told = refused(index)
    made = among_steady(pick, operands, SIZES)
    assert served(made[-16:]) >= 12
    check(pick, made)
    for _ in range(20):
        assert refused(index) == told
        assert refused(graphc.tensor([wrong, 2, 3])) == told
    again = among_steady(pick, operands, [20, 21, 22, 23])
    assert served(again) >= 3
    check(pick, again)


def test_what_python_serves_is_checked() -> None:
    x, pick = values(8, 8), PICKS["rows"]
    index = graphc.tensor([1, 2, 8, 3])
    with scope(interpret=True):
        among_steady(pick, lambda n: [x, graphc.arange(n) % 8], SIZES)
        found: list[Any] = []
        right = graphc.arange(20) % 8
        right.tolist()
        done = counted(lambda: found.append(pick(x, right)))
        assert (done["any_size"], done["native_any_size"]) == (1, 0)
        np.testing.assert_array_equal(found[0].numpy(), x.numpy()[right.numpy()])

        def refused() -> None:
            with pytest.raises(OutOfRange, match="index 8 is out of bounds for dimension 0 with size 8"):
                pick(x, index).tolist()

        assert counted(refused)["any_size"] == 0


def test_nothing_is_held_of_calls_that_are_refused() -> None:
    x, pick = values(64, 64), PICKS["rows"]

    def operands(n: int) -> list[Any]:
        return [x, graphc.arange(n) % 64]

    def refused(n: int) -> None:
        with pytest.raises(OutOfRange):
            pick(x, graphc.arange(n) + 40).tolist()

    def both(times: int) -> None:
        for _ in range(times):
            refused(40)
            among_steady(pick, operands, [30])

    among_steady(pick, operands, SIZES)
    both(10)  # programs keep memory that they work in, once each
    gc.collect()  # errors hold what their frames do
    before = memory_stats().live_bytes
    both(40)
    gc.collect()
    assert memory_stats().live_bytes <= before + (1 << 15)  # one result has 10 KB


def test_division_of_integers_by_zero_is_refused() -> None:
    def divide(x: Any, y: Any) -> Any:
        return graphc.div(x, y, rounding_mode="floor")

    def operands(n: int) -> list[Any]:
        return [values(n, 3, dtype="int64"), values(n, 3, dtype="int64") * 2 + 1]

    made = among_steady(divide, operands, SIZES)
    assert served(made[-16:]) >= 12
    check(divide, made)
    x, y = operands(12)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            divide(x, y * (y != 1)).tolist()


def test_rows_are_added_where_they_belong() -> None:
    """A mixture of experts: what each gives for its rows is added to these."""
    experts = [layers(4, 6, 4), layers(4, 5, 4)]
    total = 60

    def function(x: Any, which: Any) -> Any:
        out = graphc.zeros_like(x)
        for number, expert in enumerate(experts):
            rows = (which == number).nonzero().squeeze(1)
            out.index_add_(0, rows, expert(x[rows]) * rows[:, None])
        return out

    def operands(n: int) -> list[Any]:
        return [values(total, 4), (graphc.arange(total) < n).to(graphc.int64)]

    made = among_steady(function, operands, SIZES)
    # For each expert rows are picked, two layers follow, and a product; of the sum Python makes a part.
    assert served(made[-16:]) >= 12 * 2 * 5
    check(function, made)


def test_what_is_written_in_place_is_served_first() -> None:
    def add(x: Any, index: Any, rows: Any) -> Any:
        return x.index_add_(0, index, rows)

    def operands(n: int) -> list[Any]:
        return [values(8, 4), graphc.arange(n) % 8, values(n, 4)]

    made = among_steady(add, operands, SIZES)
    assert served(made[-16:]) >= 12
    for n, (_, got, _) in zip(SIZES, made, strict=True):
        x, index, rows = operands(n)
        wanted = x.numpy().copy()
        np.add.at(wanted, index.numpy(), rows.numpy())
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6)
    x, index, rows = operands(12)
    with pytest.raises(OutOfRange):
        add(x, index - 9, rows).tolist()


def test_products_over_other_dimensions_are_no_pair() -> None:
    for n in range(3, 40):
        x, y = values(n, 5), values(n, n + 2)
        np.testing.assert_array_equal(F.linear(x, values(n, 5)).numpy(), x.numpy() @ values(n, 5).numpy().T)
        np.testing.assert_array_equal(graphc.matmul(x.T, y).numpy(), x.numpy().T @ y.numpy())
        np.testing.assert_array_equal(graphc.matmul(y, values(n + 2, 5)).numpy(), y.numpy() @ values(n + 2, 5).numpy())
