"""Calls over operands of ever new sizes are compiled once for all of them, and give what their functions give."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import any_size, programs
from graphc.errors import ShapeError
from graphc.options import INTERPRET, scope
from graphc.recording import THREADS
from graphc.rounds import ROUND, Rounds
from graphc.tensors import learning
from graphc.tensors.changing import forget
from tests.frontend.test_programs_of_any_size import by_reference
from tests.frontend.test_stored_parts import counted, realised

Function = Callable[..., Any]


@pytest.fixture(autouse=True, params=["in Python", "in native code"])
def fresh(
    native: None, native_recording: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Nothing was seen before, and what is seen is soon compiled. Where options have scopes, Python does all."""
    monkeypatch.setattr(programs, "_variants", {})
    monkeypatch.setattr(any_size, "compiling", lambda nodes, device: len(nodes))
    recorder = THREADS.recorder
    forget(recorder)
    recorder.rounds = Rounds()
    recorder.most = recorder.round = ROUND
    learning.VIEWS.clear()  # of a function that gave a view once native code looks for another
    if request.param == "in Python":
        with scope(interpret=True):
            yield
        return
    INTERPRET.set(True)
    yield
    INTERPRET.reset()


def arrays_of(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(map(sum, shapes)))
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def among_steady(function: Function, operands: Callable[[int], list[Any]], sizes: list[int]) -> list[tuple[Any, int]]:
    """What a function gives for operands of each size, among calls that do not change; and how many calls were done
    by what is compiled for all sizes.
    """
    y, made = realised(3), []
    for n in sizes:
        given = operands(n)
        found: list[Any] = []

        def turn(given: list[Any] = given, found: list[Any] = found) -> None:
            nonlocal y
            for _ in range(24):
                y = y * 0.5 - 1
            found.append(function(*given))
            (y + found[0].reshape(-1)[0].to(y.dtype)).tolist()

        done = counted(turn)
        made.append((found[0], done["any_size"]))
    return made


def tensors(*shapes: tuple[int, ...]) -> list[Any]:
    return [graphc.tensor(array) for array in arrays_of(*shapes)]


CASES: dict[str, tuple[Function, Callable[[int], list[tuple[int, ...]]]]] = {
    "attention": (F.scaled_dot_product_attention, lambda n: [(2, 1, 4), (2, n, 4), (2, n, 4)]),
    "attention of all": (F.scaled_dot_product_attention, lambda n: [(2, n, 4)] * 3),
    "causal": (lambda *x: F.scaled_dot_product_attention(*x, is_causal=True), lambda n: [(2, n, 4)] * 3),
    "softmax": (lambda x: F.softmax(x, 1), lambda n: [(3, n)]),
    "log_softmax": (lambda x: F.log_softmax(x, -1), lambda n: [(3, n)]),
    "layer norm": (lambda x, w: F.layer_norm(x, (5,), w), lambda n: [(n, 5), (5,)]),
    "linear": (F.linear, lambda n: [(n, 5), (4, 5)]),
    "mean": (lambda x: x.mean(0), lambda n: [(n, 5)]),
    "amax": (lambda x: graphc.amax(x, 0), lambda n: [(n, 5)]),
    "argmax": (lambda x: graphc.argmax(x, 0), lambda n: [(n, 5)]),
    "product": (graphc.matmul, lambda n: [(3, n), (n, 4)]),
    "sum of products": (lambda x, y: graphc.einsum("na,nb->ab", x, y), lambda n: [(n, 3), (n, 2)]),
    "cumsum": (lambda x: graphc.cumsum(x, 0), lambda n: [(n, 3)]),
    "logsumexp": (lambda x: graphc.logsumexp(x, 0), lambda n: [(n, 3)]),
    "cat": (lambda x, y: graphc.cat([x, y], 1), lambda n: [(2, n, 3), (2, 1, 3)]),
    "cat of many": (lambda *x: graphc.cat(x), lambda n: [(n, 3), (1, 3), (n + 2, 3)]),
    "gelu": (F.gelu, lambda n: [(n, 3)]),
}


@pytest.mark.parametrize("what", CASES)
def test_it_gives_what_the_function_gives(what: str) -> None:
    function, shapes = CASES[what]
    sizes = [*range(3, 40), 70, 69, 33, 300, 5, 1, 2, 200]
    made = among_steady(function, lambda n: tensors(*shapes(n)), sizes)
    right: list[Any] = []
    by_reference(lambda: right.extend((found := function(*tensors(*shapes(n))), found.numpy()) for n in sizes))
    for (got, _), (wanted, values) in zip(made, right, strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got.numpy(), values, rtol=2e-5, atol=2e-6)
    assert sum(done for _, done in made[27:37]) >= 9, "all, but where there was not enough room"


def test_sizes_that_come_back_are_done_as_well() -> None:
    sizes = [*range(3, 33), *range(3, 33)]
    made = among_steady(lambda x: F.softmax(x, 1), lambda n: tensors((3, n)), sizes)
    assert all(done == 1 for _, done in made[30:])


def test_native_code_leaves_such_calls_to_python() -> None:
    x, y = realised(400), realised(3)
    done = []
    for n in range(2, 60):

        def turn(n: int = n) -> None:
            nonlocal y
            for _ in range(24):
                y = y * 0.5 - 1
            (y + F.softmax(x[:n], 0)[0]).tolist()

        done.append(counted(turn))
    assert all(each["any_size"] == 1 for each in done[-5:])
    assert all(each["records"] == each["native_records"] for each in done[-5:])


def test_calls_that_are_forgotten_are_seen_anew() -> None:
    function, shapes = CASES["softmax"]
    made = among_steady(function, lambda n: tensors(*shapes(n)), list(range(3, 40)))
    assert made[-1][1] == 1
    forget(THREADS.recorder)
    sizes = [5, 6, 7, 8, 5, 6]
    for n, (got, done) in zip(sizes, among_steady(function, lambda n: tensors(*shapes(n)), sizes), strict=True):
        assert not done
        np.testing.assert_allclose(got.sum(1).numpy(), np.ones(3), rtol=1e-6)
        assert got.shape == (3, n)


def test_nothing_is_done_so_where_interpreting_is_off() -> None:
    function, shapes = CASES["softmax"]

    def run(sizes: Any) -> int:
        made = among_steady(function, lambda n: tensors(*shapes(n)), list(sizes))
        for n, (got, _) in zip(sizes, made, strict=True):
            np.testing.assert_allclose(got.sum(1).numpy(), np.ones(3), rtol=1e-6)
            assert got.shape == (3, n)
        return made[-1][1]

    assert run(range(3, 40))
    with scope(interpret=False):
        assert not run(range(30, 45))
    assert run(range(20, 60))


def test_a_function_that_gives_views_at_times_is_served() -> None:
    x = realised(4, 5)
    for _ in range(3):
        assert graphc.einsum("ij->ji", x).shape == (5, 4)
    function, shapes = CASES["sum of products"]
    made = among_steady(function, lambda n: tensors(*shapes(n)), list(range(3, 70)))
    assert made[-1][1] == 1


def run_with(second: Function, first: Function, least: int = 8) -> list[Any]:
    """At one line: `first` for many sizes, then `second` for others."""
    found = []

    def function(x: Any, which: Function) -> Any:
        return which(x)

    for which, sizes in ((first, range(3, 40)), (second, range(least, least + 12))):
        y = realised(3)
        for n in sizes:
            (x,) = tensors((2, n))
            for _ in range(24):
                y = y * 0.5 - 1
            made = function(x, which)
            (y + made.sum()).tolist()
            found.append((x, made))
    return found[37:]


def test_other_arguments_are_told_apart() -> None:
    scale = [2.0]

    def scaled(x: Any) -> Any:
        return F.scaled_dot_product_attention(x, x * 1, x + 0, scale=scale[0])

    def other(x: Any) -> Any:
        scale[0] = 0.5
        return scaled(x)

    for x, made in run_with(other, scaled):
        a = x.numpy().astype(np.float64)
        powers = np.exp(a @ a.T * 0.5)
        np.testing.assert_allclose(made.numpy(), powers / powers.sum(1, keepdims=True) @ a, rtol=1e-4, atol=1e-5)


def test_negative_zero_is_another_number() -> None:
    number = [0.0]

    def function(x: Any) -> Any:
        return graphc.full_like(x, number[0]) + x * 0

    def other(x: Any) -> Any:
        number[0] = -0.0
        return graphc.full_like(x, number[0])

    for _, made in run_with(other, function):
        assert np.signbit(made.numpy()).all()


@pytest.mark.parametrize("dtype", ["float64", "int64", "bool"])
def test_other_dtypes_are_told_apart(dtype: str) -> None:
    cast = [graphc.float32]

    def function(x: Any) -> Any:
        return graphc.sum(x.to(cast[0]), 1)

    def other(x: Any) -> Any:
        cast[0] = getattr(graphc, dtype)
        return function(x)

    for x, made in run_with(other, function):
        with scope(interpret=False):
            wanted = x.to(cast[0]).sum(1)
        assert made.dtype == wanted.dtype
        np.testing.assert_allclose(made.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_shapes_that_do_not_fit_are_refused_as_ever() -> None:
    def operands(n: int) -> list[Any]:
        return tensors((2, 1, 4), (2, n, 4), (2, n, 4))

    def call(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v)

    assert among_steady(call, operands, [*range(3, 40)])[-1][1] == 1
    q, k, v = operands(12)
    with pytest.raises(ShapeError, match=r"key f32\[2,12,4\] and value f32\[2,11,4\]") as found:
        call(q, k, v[:, 1:])
    assert "in scaled_dot_product_attention(f32[2,1,4]" in str(found.value)
    np.testing.assert_allclose(call(q, k, v).numpy(), among_steady(call, operands, [12])[0][0].numpy(), rtol=1e-5)


def test_what_writes_is_not_taken_for_what_gives() -> None:
    def function(x: Any) -> Any:
        return x.mul_(2)

    given: list[Any] = []

    def operands(n: int) -> list[Any]:
        given.append(tensors((n, 3))[0])
        return [given[-1]]

    made = among_steady(function, operands, list(range(3, 40)))
    for x, (got, _) in zip(given, made, strict=True):  # the product may be made as for any size, and is written then
        assert got is x
        np.testing.assert_array_equal(x.numpy(), 2 * arrays_of(tuple(x.shape))[0])


def test_what_is_written_to_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_is_served", lambda *_: False)  # of calls, only
    outs: list[Any] = []

    def operands(n: int) -> list[Any]:
        outs.append(graphc.zeros(n, 3))
        return [*tensors((n, 3)), outs[-1]]

    made = among_steady(lambda x, out: graphc.exp(x, out=out), operands, list(range(3, 40)))
    for n, out, (got, done) in zip(range(3, 40), outs, made, strict=True):
        assert got is out
        assert not done
        np.testing.assert_allclose(out.numpy(), np.exp(arrays_of((n, 3))[0]), rtol=1e-6)


def test_draws_are_drawn_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_is_served", lambda *_: False)  # of calls, only
    graphc.manual_seed(0)
    made = among_steady(lambda x: F.dropout(x, 0.5), lambda n: [graphc.ones(n, 50)], [*range(3, 40), 39, 39])
    assert not any(done for _, done in made)
    assert len({got.sum().item() for got, _ in made[-3:]}) > 1


def test_warnings_are_given_each_time() -> None:
    def function(x: Any) -> Any:
        return F.softmax(x)  # without a dimension

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = among_steady(function, lambda n: tensors((n, 3)), list(range(3, 40)))
    assert len(caught) == len(made)


def test_places_out_of_range_are_refused() -> None:
    table = realised(5, 3)

    def function(index: Any) -> Any:
        return F.embedding(index, table)

    made = among_steady(function, lambda n: [graphc.arange(n) % 5], list(range(3, 40)))
    for n, (got, _) in zip(range(3, 40), made, strict=True):
        np.testing.assert_array_equal(got.numpy(), table.numpy()[np.arange(n) % 5])
    with pytest.raises(IndexError):
        function(graphc.arange(8)).tolist()


def test_gradients_flow_as_ever() -> None:
    weight = realised(3, 4).requires_grad_()

    def function(x: Any) -> Any:
        return graphc.matmul(x, weight)

    with graphc.no_grad():
        made = among_steady(function, lambda n: tensors((n, 3)), list(range(3, 40)))
    assert made[-1][1] == 1
    assert not made[-1][0].requires_grad
    (x,) = tensors((7, 3))
    function(x).sum().backward()
    np.testing.assert_allclose(weight.grad.numpy(), np.tile(x.numpy().sum(0)[:, None], 4), rtol=1e-5)


def test_memory_that_numpy_writes_is_read_when_the_call_is_made() -> None:
    def operands(n: int) -> list[Any]:
        array = arrays_of((3, n))[0]
        x = graphc.from_numpy(array)
        array += 1
        return [x]

    sizes = list(range(3, 40))
    made = among_steady(lambda x: F.softmax(x, 1), operands, sizes)
    for n, (got, _) in zip(sizes, made, strict=True):
        powers = np.exp(arrays_of((3, n))[0] + 1)
        np.testing.assert_allclose(got.numpy(), powers / powers.sum(1, keepdims=True), rtol=1e-5)


def test_views_are_read_where_they_lie() -> None:
    base = realised(5, 80, 3) / 100

    def operands(n: int) -> list[Any]:
        return [base[1, n : 2 * n].T]

    sizes = list(range(3, 40))
    made = among_steady(lambda x: F.softmax(x, 1), operands, sizes)
    assert made[-1][1] == 1
    for n, (got, _) in zip(sizes, made, strict=True):
        powers = np.exp(base.numpy()[1, n : 2 * n].T)
        np.testing.assert_allclose(got.numpy(), powers / powers.sum(1, keepdims=True), rtol=1e-5)


def test_infinities_behind_what_was_longer_are_forgotten() -> None:
    def operands(n: int) -> list[Any]:
        (x,) = tensors((3, n))
        return [x if n < 35 else x / 0]

    made = among_steady(lambda x: graphc.matmul(x, x.T), operands, [*range(3, 40), 20])
    (x,) = arrays_of((3, 20))
    np.testing.assert_allclose(made[-1][0].numpy(), x @ x.T, rtol=1e-5)


def test_functions_of_the_user_are_called() -> None:
    calls = []

    def function(x: Any) -> Any:
        calls.append(tuple(x.shape))
        return F.softmax(x, 1)

    among_steady(function, lambda n: tensors((3, n)), list(range(3, 40)))
    assert calls == [(3, n) for n in range(3, 40)]


def test_a_captured_function_is_captured() -> None:
    @graphc.compile
    def function(x: Any) -> Any:
        return F.softmax(x, 1)

    made = among_steady(function, lambda n: tensors((3, n)), list(range(3, 12)))
    assert not any(done for _, done in made)
