"""Programs like several others are run by NumPy, until they have run often: what is compiled, and what comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import compiled_pieces, interpreting, programs
from graphc.compiled_pieces import PIECE
from graphc.interpreting import IN_VAIN, LONG, MOST_LONG, MOST_RUNS, MOST_VARIANTS, Interpreted, Variants
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.opdef import OPS
from graphc.ir.types import DType, TensorType, f32, f64
from graphc.options import INTERPRET, scope
from tests.frontend.test_stored_parts import counted, realised


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was seen before."""
    monkeypatch.setattr(programs, "_variants", {})
    with scope(interpret=True):
        yield


def prefix(x: Any, n: int) -> float:
    return (x[:n] * 2 + 1).exp().sum().item()


def test_few_of_many_lengths_are_compiled() -> None:
    x = realised(200) / 200
    done = counted(lambda: [prefix(x, n) for n in range(1, 101)])
    assert done["programs_built"] <= MOST_VARIANTS + 1
    assert done["interpreted"] + done["any_size"] >= 100 - MOST_VARIANTS - 1
    array = np.arange(200, dtype=np.float32) / 200
    for n in (1, 5, 50, 100):
        assert prefix(x, n) == pytest.approx(np.exp(array[:n] * 2 + 1).sum(dtype=np.float64), rel=1e-6)


def test_what_runs_often_is_compiled_and_had_the_same_bits_before() -> None:
    x = realised(100) / 100
    x.tolist()
    for n in range(2, MOST_VARIANTS + 3):
        prefix(x, n)
    results, runs = [prefix(x, 77)], 1
    while counted(lambda: results.append(prefix(x, 77)))["interpreted"]:
        runs += 1
    assert 10 < runs <= MOST_RUNS
    assert len(set(results[:runs])) == 1
    done = counted(lambda: results.extend(prefix(x, 77) for _ in range(5)))
    assert done["interpreted"] == done["programs_built"] == 0
    assert len(set(results[runs:])) == 1
    assert results[-1] == pytest.approx(results[0], rel=1e-6)


def test_what_takes_longer_is_compiled_sooner() -> None:
    x = realised(300_000)
    for n in range(1, MOST_VARIANTS + 2):
        prefix(x, n)
    done = counted(lambda: [prefix(x, 250_000) for _ in range(MOST_RUNS)])
    assert 2 <= done["interpreted"] <= MOST_RUNS // 2 and done["programs_built"] == 1


def test_steps_of_new_lengths_learn_as_compiled_ones_do() -> None:
    def train(interpret: bool) -> list[np.ndarray]:
        graphc.manual_seed(0)
        net = graphc.nn.Sequential(graphc.nn.Linear(6, 8), graphc.nn.LayerNorm(8), graphc.nn.Linear(8, 3))
        optimizer = graphc.optim.Adam(net.parameters(), lr=0.01)
        rng = np.random.default_rng(0)
        with scope(interpret=interpret):
            for n in range(3, 15):
                x = graphc.tensor(rng.standard_normal((n, 6)).astype(np.float32))
                y = graphc.tensor(rng.integers(0, 3, n))
                optimizer.zero_grad()
                loss = F.cross_entropy(net(x), y)
                loss.backward()
                optimizer.step()
                loss.item()
        return [p.detach().numpy() for p in net.parameters()]

    done = counted(lambda: train(True))
    assert done["interpreted"] > 5
    for a, b in zip(train(True), train(False), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_long_programs_are_alike_that_take_more_steps() -> None:
    w = realised(4, 4) / 20

    def steps(n: int) -> float:
        h = graphc.ones(2, 4)
        for k in range(n):
            h = F.gelu(F.layer_norm(h @ w, (4,)) + h * (k + 1))
        return h.sum().item()

    done = counted(lambda: [steps(n) for n in range(13, 25)])
    assert done["interpreted"] >= 12 - MOST_LONG - 1


def test_results_are_memory_of_their_own() -> None:
    x = realised(50)
    for n in range(2, 12):
        y = x[:n] + 0
        same, constant = x[:n].reshape(1, n).clone(), graphc.zeros(n) + 1
        y[0] = 100.0
        same[0, 1] = 100.0
        constant[1] = 5.0
        assert x[:2].tolist() == [0, 1] and y[0].item() == 100 and constant.sum().item() == n + 4


def test_errors_of_values_are_raised() -> None:
    table = realised(4, 2)
    for n in range(1, 12):
        index = graphc.arange(n) % 4
        assert F.embedding(index, table).shape == (n, 2)
        with pytest.raises(IndexError, match="index out of range in self"):
            F.embedding(index + 4, table).tolist()


def test_programs_that_take_longer_than_to_compile_them_are_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, a = realised(4000), realised(30, 30)

    def sums(least: int = 2000) -> None:
        for n in range(least, least + 10):
            prefix(x, n)

    def products(least: int = 20) -> None:
        for n in range(least, least + 10):
            (a[:n] @ a).sum().item()

    with monkeypatch.context() as patch:
        patch.setattr(interpreting, "ELEMENT", 10)
        done = counted(sums)
        assert done["interpreted"] == 0 and done["any_size"] > 0
        assert done["programs_built"] + done["any_size"] == 10
    with monkeypatch.context() as patch:
        patch.setattr(interpreting, "PRODUCT", 10)
        assert counted(products)["interpreted"] == 0
    assert counted(lambda: sums(3000))["interpreted"] > 0
    assert counted(lambda: products(5))["interpreted"] > 0


def test_draws_alone_are_compiled() -> None:
    """What parameters begin with does not depend on how many layers there were before."""

    def drawn(count: int) -> list[float]:
        made = [graphc.empty(n).uniform_(-1, 1) for n in range(3, 3 + count)]
        graphc.manual_seed(1)
        return [*made, graphc.empty(40).uniform_(-1, 1)][-1].tolist()

    few = drawn(0)
    assert counted(lambda: drawn(10))["interpreted"] == 0
    assert drawn(10) == few


def test_captured_functions_are_compiled() -> None:
    @graphc.compile(dynamic=False)
    def f(x: Any) -> Any:
        return (x * 2 + 1).exp().sum()

    x = realised(100) / 100
    done = counted(lambda: [f(x[:n]).item() for n in range(1, 15)])
    assert done["interpreted"] == 0


def test_an_option_switches_it_off() -> None:
    x = realised(100) / 100
    with scope(interpret=False):
        assert not INTERPRET.get()
        assert counted(lambda: [prefix(x, n) for n in range(1, 15)])["interpreted"] == 0


def test_what_is_known_of_programs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreting, "MOST_KEPT", 5)
    x = realised(100)
    for n in range(1, 40):
        x[:n].sum().item()
        x[:n].reshape((1,) * (n % 9) + (n,)).sum().item()
    variants = programs._variants["cpu"]
    assert len(variants._compiled) <= 5 and len(variants._held) <= 5


def test_long_programs_that_never_come_again_are_not_compiled() -> None:
    """Each does something else, so that none is like another."""
    x = realised(50) / 50
    steps = [lambda y: y.exp(), lambda y: y.sin(), lambda y: y.cos(), lambda y: y.tanh(), lambda y: y + 1]

    def long(number: int) -> float:
        y = x
        for i in range(LONG):
            y = steps[(number + i * i) % 5](y) * (0.5 if (number >> i % 8) & 1 else x)
        return y.sum().item()

    assert counted(lambda: [long(n) for n in range(IN_VAIN)])["programs_built"] == IN_VAIN
    done = counted(lambda: [long(n) for n in range(IN_VAIN, 20)])
    assert done["programs_built"] == 0 and done["interpreted"] == 20 - IN_VAIN
    first = long(20)
    assert counted(lambda: long(20))["programs_built"] == 1  # it does come again
    assert long(20) == pytest.approx(first, rel=1e-5)
    assert counted(lambda: [long(21), long(22)])["programs_built"] == 2  # so may others


def test_what_is_known_is_bounded_by_its_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreting, "MOST_OPERATORS", 9)
    variants = Variants("cpu")
    for n in range(1, 30):
        b = Builder()
        x = b.input(0, TensorType(f32, (n,)))
        y = b.neg(b.exp(x))
        variants.interpreted(Graph((x,), (y,)), (n,), [x, y])
    assert list(variants._held) == [(27,), (28,), (29,)]
    assert sum(each.operators for each in variants._held.values()) == variants._operators == 9


def test_what_is_used_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreting, "MOST_KEPT", 4)
    variants = Variants("cpu")

    def asked(n: int) -> object:
        b = Builder()
        x = b.input(0, TensorType(f32, (n,)))
        y = b.exp(x)
        return variants.interpreted(Graph((x,), (y,)), (n,), [y])

    made = [asked(n) for n in range(1, MOST_VARIANTS + 2)]
    assert made[:-1] == [None] * MOST_VARIANTS and made[-1] is not None
    for n in range(10, 30):
        assert asked(n) is not None
        assert asked(MOST_VARIANTS + 1) is made[-1]


def test_what_is_the_same_in_all_variants_is_compiled_once() -> None:
    """Of a text that grows word by word only attention sees how long it is."""
    w = [realised(8, 8) / 30 for _ in range(4)]

    def decode(words: int) -> list[float]:
        x, keys, found = graphc.ones(1, 8), None, list[float]()
        for _ in range(words):
            y = F.layer_norm(x, (8,)) @ w[0]
            y = F.gelu(y @ w[1] + x) * 0.5
            keys = y if keys is None else graphc.cat([keys, y])
            seen = (y @ keys.t()).softmax(-1) @ keys
            z = F.layer_norm(seen + x, (8,)) @ w[2]
            x = F.gelu(z @ w[3]) + F.layer_norm(z, (8,))
            found.append(x.sum().item())
        return found

    assert counted(lambda: decode(12))["interpreted"] > 0
    found: list[float] = []
    more = counted(lambda: found.extend(decode(24)))
    assert more["programs_built"] <= 5 and more["interpreted"] > 0  # of 12 other lengths
    for words in (36, 48, 60):  # what is compiled for all lengths stands between programs then
        assert counted(lambda words=words: decode(words))["programs_built"] <= 6
    assert counted(lambda: decode(80))["programs_built"] == 0
    with scope(interpret=False):
        assert found == pytest.approx(decode(24), rel=1e-4)


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("shape", [(-1,), (7, -1), (1, 7, -1)])
def test_functions_of_many_elements_are_compiled_in_pieces(
    dtype: DType, shape: tuple[int, ...], native: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_pieces, "OFTEN", PIECE)
    monkeypatch.setattr(compiled_pieces, "_given", Counter())
    compiled_pieces._piece.cache_clear()
    given = np.linspace(-4, 4, 7 * (PIECE // 2)).astype(dtype.numpy).reshape(shape)
    type, made = TensorType(dtype, given.shape), list[np.ndarray]()

    def run(x: np.ndarray) -> None:
        made.append(compiled_pieces.COMPILED["erf"]([x], {}, type))

    assert counted(lambda: run(given))["launches"] == 0
    assert counted(lambda: run(given.T.copy().T))["launches"] == 4
    wanted = OPS["erf"].evaluate([given], {}, type)
    assert made[0].tobytes() == wanted.tobytes()
    np.testing.assert_allclose(made[1], wanted, rtol=4 * np.finfo(given.dtype).eps)
    assert made[1].dtype == given.dtype
    compiled_pieces._piece.cache_clear()


def test_a_part_that_gives_nothing_is_interpreted() -> None:
    assert Interpreted(Graph((), ()), whole=Interpreted(Graph((), ()))).run([]) == []
