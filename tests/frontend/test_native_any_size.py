"""Native code serves calls over operands of ever new sizes, and gives what their functions give."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import any_size, programs
from graphc.errors import OutOfRange
from graphc.native import services
from graphc.options import INTERPRET, scope
from graphc.recording import THREADS
from graphc.rounds import ROUND, Rounds
from graphc.tensors import changing, learning
from graphc_runtime.buffer import memory_stats
from graphc_runtime.errors import OutOfMemory
from tests.frontend.test_growing import told
from tests.frontend.test_programs_of_any_size import by_reference
from tests.frontend.test_stored_parts import counted, realised

Function = Callable[..., Any]
Made = list[tuple[list[Any], Any, int]]  # operands, what was given, how many calls native code served


@pytest.fixture(autouse=True)
def fresh(native: None, native_recording: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was seen before, and what is seen is soon compiled, and left to native code."""
    monkeypatch.setattr(programs, "_variants", {})
    monkeypatch.setattr(any_size, "compiling", lambda nodes, device: len(nodes))
    monkeypatch.setattr(changing, "MANY", 2)
    begin_anew()
    learning.VIEWS.clear()
    INTERPRET.set(True)
    yield
    INTERPRET.reset()


def begin_anew() -> None:
    recorder = THREADS.recorder
    changing.forget(recorder)
    recorder.rounds = Rounds()
    recorder.most = recorder.round = ROUND


def among_steady(function: Function, operands: Callable[[int], list[Any]], sizes: range | list[int]) -> Made:
    """What a function gives for operands of each size, among calls that do not change."""
    y, made = realised(3), []
    for n in sizes:
        given, found = operands(n), []

        def turn(given: list[Any] = given, found: list[Any] = found) -> None:
            nonlocal y
            for _ in range(24):
                y = y * 0.5 - 1
            found.append(function(*given))
            (y + found[0].reshape(-1)[:1].to(y.dtype).sum()).tolist()

        served = counted(turn)["native_any_size"]
        made.append((given, found[0], served))
    return made


def check(function: Function, made: Made) -> None:
    """Compare what was given with what the function gives alone."""
    right: list[Any] = []
    by_reference(lambda: right.extend((found := function(*given), found.numpy()) for given, *_ in made))
    for (_, got, _), (wanted, values) in zip(made, right, strict=True):
        assert (got.shape, got.dtype, got.stride()) == (wanted.shape, wanted.dtype, wanted.stride())
        np.testing.assert_allclose(got.numpy(), values, rtol=2e-5, atol=2e-6)


def served(made: Made) -> int:
    return sum(count for *_, count in made)


def values(*shape: int, dtype: str = "float32") -> Any:
    numbers = np.arange(int(np.prod(shape))) * 7 % 23 - 11
    return graphc.tensor((numbers > 0 if dtype == "bool" else numbers).reshape(shape).astype(dtype))


CASES: dict[str, tuple[Function, Callable[[int], list[Any]]]] = {
    "one fixed operand": (lambda x, w: F.linear(x, w), lambda n: [values(n, 5), values(4, 5)]),
    "a result that does not grow": (lambda x: x.sum(0), lambda n: [values(n, 5)]),
    "two sizes": (graphc.matmul, lambda n: [values(n, 3), values(3, n + 2)]),
    "a size twice": (lambda x: x.cumsum(1), lambda n: [values(n, n)]),
    "the last of three": (lambda x: F.softmax(x, -1), lambda n: [values(2, 3, n)]),
    "the middle of three": (lambda x: F.softmax(x, 1), lambda n: [values(2, n, 3)]),
    "transposed": (lambda x: F.softmax(x, 1), lambda n: [values(n, 3).T]),
    "every second": (lambda x: F.softmax(x, 1), lambda n: [values(3, 2 * n)[:, ::2]]),
    "a part": (lambda x: F.softmax(x, 1), lambda n: [values(5, 3, n + 4)[2, :, 1 : n + 1]]),
    "numbers": (lambda x: F.layer_norm(x, (4,), eps=0.5), lambda n: [values(n, 4)]),
    "double": (lambda x: F.softmax(x, 1), lambda n: [values(3, n, dtype="float64")]),
    "integers": (lambda x: x.cumsum(0), lambda n: [values(n, 3, dtype="int64")]),
    "truth": (lambda x: x.any(1), lambda n: [values(3, n, dtype="bool")]),
    "joined first": (lambda x, y: graphc.cat([x, y]), lambda n: [values(n, 3), values(1, 3)]),
    "joined last": (lambda x, y: graphc.cat((x, y), -1), lambda n: [values(3, n), values(3, 2)]),
    "joined between": (lambda x, y: graphc.cat([x, y], dim=1), lambda n: [values(2, n, 3), values(2, 1, 3)]),
    "joined views": (lambda x, y: graphc.cat([x, y], 1), lambda n: [values(n, 2).T, values(3, 4, 1)[1:, 2]]),
    "joined doubles": (
        lambda x, y: graphc.cat([x, y]),
        lambda n: [values(n, dtype="float64"), values(2, dtype="float64")],
    ),
    "joined bytes": (
        lambda x, y: graphc.cat([x, y], 1),
        lambda n: [values(3, n, dtype="uint8"), values(3, 1, dtype="uint8")],
    ),
    "joined with nothing": (lambda x, y: graphc.cat([x, y], 1), lambda n: [values(3, n), values(3, 0)]),
    "three joined": (lambda x, y, z: graphc.cat([x, y, z]), lambda n: [values(n), values(1), values(2 * n)]),
}


@pytest.mark.share(2)
@pytest.mark.parametrize("what", CASES)
def test_it_gives_what_the_function_gives(what: str) -> None:
    function, operands = CASES[what]
    made = among_steady(function, operands, [*range(3, 40), 70, 69, 33, 7, 2, 5, 40, 41, 39, 38])
    assert served(made[10:37]) >= 20, "all but those after which Python counts"
    check(function, made)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "float16", "bfloat16"])
def test_elements_of_all_widths_are_joined(dtype: str) -> None:
    def operands(n: int) -> list[Any]:
        return [graphc.arange(3 * n).reshape(n, 3).T.to(getattr(graphc, dtype)), graphc.zeros(3, 1).to(made_of)]

    made_of = getattr(graphc, dtype)
    made = among_steady(lambda x, y: graphc.cat([x, y], 1), operands, range(3, 40))
    assert served(made) > 20
    for (x, y), got, _ in made:
        assert got.dtype == made_of
        wanted = np.concatenate([x.to(graphc.float32).numpy(), y.to(graphc.float32).numpy()], 1)
        np.testing.assert_array_equal(got.to(graphc.float32).numpy(), wanted)


def test_python_counts_one_call_in_so_many() -> None:
    made = among_steady(lambda x: F.softmax(x, 1), lambda n: [values(3, n)], [*range(3, 40), *[20, 21] * 40])
    assert 0 < 80 - served(made[37:]) <= 80 // services.TURNS


def test_what_comes_often_in_some_shapes_is_compiled_for_these(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "MOST_NATIVE", 64)
    function, operands = CASES["the last of three"]
    among_steady(function, operands, range(3, 40))
    again = among_steady(function, operands, [12, 13] * (64 + (changing.OFTEN + 4) * services.TURNS // 2))
    assert served(again[:64]) > 48
    assert not served(again[-8:])
    check(function, again[-2:])
    among_steady(function, operands, range(40, 40 + changing.OFTEN))
    others = among_steady(function, operands, range(60, 90))
    assert served(others) > 20, "and served again among others"
    check(function, others)


def test_what_is_pending_is_computed_first() -> None:
    function, operands = CASES["joined last"]
    among_steady(function, operands, range(3, 40))

    def run() -> Any:
        x, y = (x * 2 for x in operands(20))
        return function(x, y)

    run()
    found: list[Any] = []
    assert counted(lambda: found.append(run()))["native_any_size"] == 1
    np.testing.assert_array_equal(found[0].numpy(), 2 * np.concatenate([x.numpy() for x in operands(20)], 1))


def test_what_is_wrong_with_what_is_pending_is_told() -> None:
    function, operands = CASES["joined last"]
    among_steady(function, operands, range(3, 40))
    table = realised(5, 2)
    x, y = operands(20)
    with pytest.raises(OutOfRange):
        function(x, F.embedding(graphc.tensor([0, 1, 7]), table)).tolist()
    np.testing.assert_array_equal(function(x, y).numpy(), np.concatenate([x.numpy(), y.numpy()], 1))


def test_errors_of_what_is_computed_first_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    function, operands = CASES["joined last"]
    among_steady(function, operands, range(3, 40))
    x, y = operands(20)
    late = y * 3
    with monkeypatch.context() as patch:
        patch.setattr(type(THREADS.recorder), "flush", lambda self, reason: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            function(x, late)
    np.testing.assert_array_equal(function(x, late).numpy(), np.concatenate([x.numpy(), 3 * y.numpy()], 1))


def test_memory_that_is_not_to_be_had_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    function, operands = CASES["joined last"]
    among_steady(function, operands, range(3, 40))
    with pytest.raises(OutOfMemory, match=r"f32\[3,"):
        function(graphc.zeros(3, 1).expand(3, 1 << 45), operands(3)[1])
    check(function, among_steady(function, operands, [20, 21]))


def test_a_result_of_inference_mode_is_one() -> None:
    function, operands = CASES["joined last"]
    with graphc.inference_mode():
        made = among_steady(function, operands, range(3, 40))
    assert served(made) > 20
    assert made[-1][1].is_inference()
    assert not among_steady(function, operands, [20])[0][1].is_inference()


def test_options_that_change_are_seen() -> None:
    function, operands = CASES["the last of three"]
    among_steady(function, operands, range(3, 40))
    INTERPRET.set(False)
    assert not served(among_steady(function, operands, range(20, 30)))
    INTERPRET.set(True)
    made = among_steady(function, operands, range(20, 60))
    assert served(made) > 10
    check(function, made)


def test_types_of_many_results_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_MOST_TYPES", 3)
    function, operands = CASES["joined between"]
    made = among_steady(function, operands, [*range(3, 40), *range(3, 40)])
    assert served(made) > 50
    check(function, made)


def test_other_arguments_are_told_apart() -> None:
    scale, least = [0.5], [0.0]

    def function(x: Any) -> Any:
        return F.scaled_dot_product_attention(x, x, x, scale=scale[0])

    def operands(n: int) -> list[Any]:
        if n % 5 == 0:
            scale[0] = 1 / n
        return [values(2, n, 4) / 11 + least[0]]

    y = realised(3)
    for n in [*range(3, 40), *range(3, 40)]:
        (x,) = operands(n)
        for _ in range(24):
            y = y * 0.5 - 1
        got = function(x)
        (y + got.sum()).tolist()
        a = x.numpy().astype(np.float64)
        powers = np.exp(a @ a.transpose(0, 2, 1) * scale[0])
        np.testing.assert_allclose(got.numpy(), powers / powers.sum(2, keepdims=True) @ a, rtol=2e-5, atol=1e-6)


def test_operands_are_let_go() -> None:
    function, operands = CASES["joined last"]
    among_steady(function, operands, range(3, 40))
    before = memory_stats().live_bytes
    for _ in range(50):
        among_steady(function, operands, range(20, 28))
    assert memory_stats().live_bytes <= before + (1 << 16)


def test_threads_serve_calls_of_their_own() -> None:
    function, operands = CASES["the middle of three"]
    made: list[Made] = []

    def run() -> None:
        begin_anew()
        made.append(among_steady(function, operands, [*range(3, 40), *range(3, 40)]))

    def run_all() -> None:
        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert counted(run_all)["native_any_size"] > 3 * 40
    assert len(made) == 3
    for each in made:
        check(function, each)


@pytest.mark.share(3)
@pytest.mark.parametrize(
    "seed", [*range(200, 203), *(pytest.param(k, marks=pytest.mark.slow) for k in range(203, 206))]
)
def test_random_loops(seed: int) -> None:
    found: list[Any] = []
    assert counted(lambda: found.extend(told(seed, 24) for _ in range(2)))["native_any_size"] > 0
    with scope(interpret=False):
        wanted, nudged = (np.array(told(seed, 24, nudge)) for nudge in (0, 1e-13))
    # Some of the loops multiply errors by ten every few turns.
    allowed = 1e-9 * (1 + np.abs(wanted)) + 10 * np.maximum.accumulate(np.abs(nudged - wanted).max(1))[:, None]
    for each in found:
        assert (np.abs(np.array(each) - wanted) <= allowed).all()


def test_a_program_of_one_call_is_served_where_all_calls_change() -> None:
    n = 120
    rng = np.random.default_rng(0)
    overlap = rng.random((n, n)) < 0.02
    given, keep, theirs = graphc.tensor(overlap), graphc.ones(n, dtype=graphc.bool), np.ones(n, bool)
    (given.sum() + keep.sum()).item()

    def suppress() -> None:
        for i in range(n - 1):
            keep[i + 1 :] &= ~given[i, i + 1 :]

    suppress()
    for i in range(n - 1):
        theirs[i + 1 :] &= ~overlap[i, i + 1 :]
    assert keep.tolist() == theirs.tolist()
    done = counted(suppress)
    assert done["native_any_size"] > n // 4
    assert done["programs_built"] <= 2
    assert keep.tolist() == theirs.tolist()


def test_checks_of_values_do_not_stop_native_code() -> None:
    table, y = realised(40, 4), realised(4)

    def pick(n: int) -> Any:
        for _ in range(24):
            (y * 2).sum().item()
        index = graphc.arange(n) % 40
        return F.relu(F.embedding(index, table)) * 2

    for n in range(3, 30):
        pick(n).sum().item()
    done = counted(lambda: [pick(n).sum().item() for n in range(30, 60)])
    assert done["native_any_size"] > 0
    with pytest.raises(IndexError, match="index out of range in self"):
        (F.relu(F.embedding(graphc.arange(35) + 30, table)) * 2).tolist()
