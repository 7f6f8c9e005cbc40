"""Programs that differ in sizes alone are run by one that is compiled for all sizes."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import any_size, interpreting, programs, room_programs
from graphc.alike import Pattern
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, f32, i32
from graphc.options import scope
from graphc.recording import THREADS
from graphc.rooms import sizes_of, with_room
from graphc.tensors import changing
from graphc.tensors.changing import forget
from tests.frontend.conftest import Reference
from tests.frontend.test_stored_parts import counted, realised

Function = Callable[[int], Any]


@pytest.fixture(autouse=True)
def fresh(native: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was seen before, and programs that are seen are soon compiled for all sizes."""
    monkeypatch.setattr(programs, "_variants", {})
    monkeypatch.setattr(any_size, "compiling", lambda nodes, device: len(nodes))
    monkeypatch.setattr(any_size, "COPIED", 0)
    monkeypatch.setattr(changing, "MOST_CHANGES", 1 << 30)  # no call is computed at once
    forget(THREADS.recorder)
    with scope(interpret=True):
        yield


def by_reference(function: Callable[[], object]) -> None:
    """Run `function` where NumPy's references compute every program: another thread knows none for all sizes."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with scope(interpret=False):
                function()
        except BaseException as error:
            failed.append(error)

    def run() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphc.compiled, "compile_graph", lambda graph, donate=(), device="cpu": Reference(graph, device))
        patch.setattr(programs, "_executables", type(programs._executables)())
        done = counted(run)
    if failed:
        raise failed[0]
    assert done["any_size"] == done["interpreted"] == 0


def wanted(function: Function, sizes: range | list[int]) -> list[Any]:
    """What a function gives by NumPy's references."""
    made: list[Any] = []
    by_reference(lambda: made.extend(function(n).tolist() for n in sizes))
    return made


def served(function: Function, sizes: range | list[int]) -> int:
    """Compare what a function gives with what it gives by NumPy's references; how many programs of any size ran."""
    made: list[Any] = []
    done = counted(lambda: made.extend(function(n).tolist() for n in sizes))
    for got, right in zip(made, wanted(function, sizes), strict=True):
        np.testing.assert_allclose(got, right, rtol=2e-5, atol=2e-5)
    return done["any_size"]


def block(width: int) -> Function:
    """A network with attention over the first elements of a text. Others of that width may be compiled already."""
    graphc.manual_seed(0)
    net = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.LayerNorm(width))
    q, k, v = (nn.Linear(width, width) for _ in range(3))
    table, index = realised(40, width) / 100, graphc.arange(400) * 7 % 40
    (table.sum() + index.sum()).tolist()
    ids = index.tolist()
    index = graphc.tensor(ids)

    def run(n: int) -> Any:
        with graphc.no_grad():
            x = F.embedding(index[:n], table)
            seen = F.softmax(q(x) @ k(x).T / width**0.5, -1) @ v(x)
            return net(x + seen).mean(0)

    return run


def test_a_network_over_texts_of_many_lengths_is_compiled_once_for_all() -> None:
    run = block(8)
    assert served(run, [*range(20, 60), 100, 61, 33, 128, 127, 90]) > 25


def test_what_comes_again_is_served_as_well() -> None:
    run = block(9)
    for n in range(20, 60):
        run(n).tolist()
    again: list[Any] = []
    assert counted(lambda: again.extend(run(n).tolist() for n in [*range(40, 60)] * 2))["any_size"] == 40
    np.testing.assert_allclose(again, wanted(run, range(40, 60)) * 2, rtol=2e-5, atol=2e-5)


def test_it_is_compiled_for_itself_when_it_came_often(monkeypatch: pytest.MonkeyPatch) -> None:
    run = block(10)
    for n in range(20, 60):
        run(n).tolist()
    monkeypatch.setattr(interpreting, "SERVED", 1e6)
    again = [counted(lambda: run(50).tolist()) for _ in range(8)]
    assert sum(each["programs_built"] + each["structure_hits"] for each in again) == 1
    assert not again[-1]["any_size"] and not again[-1]["interpreted"]


def test_other_places_and_numbers_are_told_apart() -> None:
    x, y = realised(400) / 400, realised(400) / 300
    (x.sum() + y.sum()).tolist()

    def run(n: int) -> Any:
        part, other = x[n % 7 :], y[:n]
        part = part[:n] * float(n % 3) + other * 0.5
        return F.pad(part, (n % 2, 1)).exp()[n % 5 : n % 5 + 8].sum() + part.mean()

    served(run, [*range(20, 60), *range(20, 80)])


def test_negative_zero_is_told_apart() -> None:
    x = realised(400) / 400
    x.sum().tolist()

    def run(n: int) -> Any:
        zero = graphc.zeros(n) * (-1.0 if n % 2 else 1.0)
        return (1 / (x[:n] * 0 + zero)).sign().sum() + x[:n].exp().cumsum(0).sum()

    for n in range(20, 60):
        assert np.sign(run(n).item()) == run(n).sign().item()
    served(run, range(20, 60))


def test_gradients_are_served() -> None:
    graphc.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    data, labels = realised(200, 5) / 500, graphc.arange(200) % 3
    (data.sum() + labels.sum()).tolist()

    def run(n: int) -> Any:
        net.zero_grad()
        F.cross_entropy(net(data[:n]), labels[:n]).backward()
        return graphc.cat([p.grad.reshape(-1) for p in net.parameters()])

    served(run, range(20, 60))


def test_what_was_interrupted_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    run = block(11)
    for n in range(20, 60):
        run(n).tolist()
    again: list[Any] = []
    assert counted(lambda: again.append(run(30).tolist()))["any_size"] == 1
    with monkeypatch.context() as patch:
        patch.setattr(room_programs.ctypes, "memmove", lambda *_: [][1])
        with pytest.raises(IndexError):
            run(59).tolist()
    gc.collect()  # what failed is pending as long as somebody holds it
    run(20).tolist()  # and whether its places are in range is looked at with what comes next
    assert counted(lambda: again.append(run(45).tolist()))["any_size"] == 1
    np.testing.assert_allclose(again, wanted(run, [30, 45]), rtol=2e-5, atol=2e-5)


def test_what_is_at_work_is_not_run_again() -> None:
    run = block(12)
    for n in range(20, 60):
        run(n).tolist()
    for same in programs._variants["cpu"]._same.values():
        for program in same.sized.programs.values():
            program._is_at_work = True
    again: list[Any] = []
    done = counted(lambda: again.append(run(50).tolist()))
    assert (done["any_size"], done["interpreted"]) == (0, 1)
    np.testing.assert_allclose(again, wanted(run, [50]), rtol=2e-5, atol=2e-5)


def test_threads_share_them() -> None:
    run = block(13)
    made: list[dict[int, Any]] = []

    def work() -> None:
        with scope(interpret=True):
            made.append({n: run(n).tolist() for n in [*range(20, 60)] * 3})

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3
    right = dict(zip(range(20, 60), wanted(run, range(20, 60)), strict=True))
    for each in made:
        for n, got in each.items():
            np.testing.assert_allclose(got, right[n], rtol=2e-5, atol=2e-5)


# what patterns tell apart


def graph_of(n: int, **other: Any) -> Graph:
    """A graph for operands of `n` elements, with one thing otherwise."""
    b = Builder()
    x = b.input(0, TensorType(f32, (n, other.get("width", 4))))
    part = b.slice(x, (0, other.get("start", 1)), (n, 2), (1, 1))
    part = b.pad(part, (0, 1), (0, 0), value=other.get("value", 0.0))
    y = b.elementwise(other.get("op", "add"), part, b.constant(other.get("number", 0.5), part.type))
    z = b.reshape(y, (n, 1, 3) if other.get("flat", True) else (n, 3, 1))
    total = b.apply("reduce_sum", (z,), {"axes": (0, 1, 2)})
    count = b.constant(float(other.get("count", 3 * n)), total.type)
    made = b.elementwise("div", total, count)
    if other.get("more"):
        made = b.elementwise("neg", made)
    if other.get("crossed"):
        made = b.elementwise("div", count, total)
    return Graph((x,), (made, total if other.get("total") else made))


def pattern() -> Pattern:
    first, second = graph_of(5), graph_of(7)
    pairs = sizes_of([first.inputs[0].type], [second.inputs[0].type])
    assert pairs == ((5, 7),)
    return Pattern(first, second, pairs)


def fits(known: Pattern, graph: Graph, *sizes: int) -> bool:
    return known.fits(graph.inputs, graph.nodes[len(graph.inputs) :], graph.outputs, sizes)


def test_the_graph_tells_itself_for_other_sizes() -> None:
    assert all(fits(pattern(), graph_of(n), n) for n in (2, 5, 7, 9, 1000))
    assert not fits(pattern(), graph_of(9), 8)


@pytest.mark.parametrize(
    "other",
    [
        {"width": 5},
        {"start": 2},
        {"start": 0},
        {"value": 1.0},
        {"value": -0.0},
        {"number": 0.25},
        {"op": "mul"},
        {"count": 27.5},
        {"count": 26},
        {"flat": False},
        {"more": True},
        {"crossed": True},
        {"total": True},
    ],
    ids=str,
)
def test_what_is_otherwise_is_told_apart(other: dict[str, Any]) -> None:
    assert not fits(pattern(), graph_of(9, **other), 9)


def of_two_sizes(n: int, m: int, other: float = 0.0) -> Graph:
    """Two means, of which constants are one where the sizes are the same."""
    b = Builder()
    x, y = (b.input(i, TensorType(f32, (size, 3))) for i, size in enumerate((n, m)))
    means = [
        b.elementwise("div", b.reduce_sum(each, (0,)), b.constant(float(size) + more, TensorType(f32, (3,))))
        for each, size, more in ((x, n, 0.0), (y, m, other))
    ]
    return Graph((x, y), (b.add(*means), b.iota(0, TensorType(f32, (n,))), b.iota(0, TensorType(f32, (m,)))))


def test_values_that_happen_to_be_one_are_told_apart() -> None:
    first, second = of_two_sizes(4, 9), of_two_sizes(7, 3)
    known = Pattern(first, second, ((4, 7), (9, 3)))
    assert fits(known, of_two_sizes(5, 8), 5, 8)
    same = of_two_sizes(6, 6)
    assert len(same.nodes) == len(first.nodes) - 2
    assert fits(known, same, 6, 6)
    assert not fits(known, same, 6, 5)
    assert not fits(known, of_two_sizes(6, 6, 1.0), 6, 6)
    assert not fits(known, Graph(same.inputs, same.outputs[:2]), 6, 6)
    assert not fits(known, Graph(same.inputs, (same.outputs[1], *same.outputs[1:])), 6, 6)
    b = Builder()
    x, y = (b.input(i, TensorType(f32, (6, 3))) for i in range(2))
    assert not fits(known, Graph((x, y), (b.add(x, y),) * 3), 6, 6)


def test_a_graph_with_room_keeps_the_sign_of_zero() -> None:
    first, second = graph_of(5, value=0.0), graph_of(7, value=-0.0)
    assert with_room(first, second, {(5, 7): 8}) is None
    assert with_room(first, graph_of(7, value=0.0), {(5, 7): 8}) is not None


def test_sizes_are_operands_of_their_own() -> None:
    made = with_room(graph_of(5), graph_of(7), {(5, 7): 16})
    assert made is not None
    assert [node.type for node in made.inputs] == [TensorType(f32, (16, 4)), TensorType(i32, ())]
