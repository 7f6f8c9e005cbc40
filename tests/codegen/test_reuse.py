"""Equal groups are scheduled, lowered and emitted once, and what is not equal is kept apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from graphc import pipeline
from graphc.codegen import reuse
from graphc.codegen.canonical import form_of
from graphc.codegen.llvm import build
from graphc.codegen.llvm.host import host_target
from graphc.codegen.lowered import Lowered
from graphc.codegen.package import make_artifact
from graphc.codegen.reuse import Kernels
from graphc.ir.builder import Builder
from graphc.ir.demand import demands
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.schedule import Group, Root
from graphc.ir.types import TensorType, boolean, f32
from graphc.passes import drafts
from graphc.passes.fuse import fuse
from graphc.pipeline import build_program, optimize, schedule
from graphc_runtime import Executable, get_device
from graphc_runtime.buffer import Buffer
from tests.codegen.programs import run
from tests.codegen.targets import common

SQUARE = TensorType(f32, (48, 48))


@pytest.fixture(autouse=True)
def no_program_before() -> None:
    """Programs of other tests have kernels in common with these."""
    reuse.GROUPS.clear()
    build.OBJECTS.clear()


def layers(count: int) -> Graph:
    """`x = tanh(x @ w[i]) * 0.5 + row sums of x`, again and again: two kernels a layer or more, equal ones."""
    b = Builder()
    x = b.input(0, SQUARE)
    inputs = [x]
    for number in range(count):
        weight = b.input(number + 1, SQUARE)
        inputs.append(weight)
        product = b.apply("tanh", (b.contract(x, weight, "m k, k n -> m n"),))
        sums = b.broadcast(b.reshape(b.reduce_sum(product, (1,)), (48, 1)), (48, 48))
        x = b.add(b.mul(product, b.constant(0.5, SQUARE)), b.div(product, b.add(sums, b.constant(9.0, SQUARE))))
    return Graph(tuple(inputs), (x,))


def counted(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], int]:
    """How often groups are prepared, lowered and emitted for `graph`, and its number of kernel launches."""
    calls: Counter[str] = Counter()

    def counting(name: str) -> object:
        function = getattr(reuse, name)

        def count(*args: object) -> object:
            calls[name] += 1
            return function(*args)

        return count

    with monkeypatch.context() as patch:
        for name in ("prepare", "lower", "emit_kernel"):
            patch.setattr(reuse, name, counting(name))
        program = build_program(graph)
    return calls, len(program.kernels)


def test_layers_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    few, launches = counted(layers(4), monkeypatch)
    many, more_launches = counted(layers(12), monkeypatch)
    assert more_launches == 3 * launches
    assert many == few
    # The first layer, those between, the last one: these may differ in what runs in place.
    assert many["prepare"] <= 3 * launches // 4


def test_the_work_of_fusion_grows_with_the_graph_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    walks = 0

    def noting(*args: object, **options: object) -> object:
        nonlocal walks
        walks += 1
        return demands(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(drafts, "demands", noting)
    fuse(optimize(layers(10), host_target()))
    few, walks = walks, 0
    fuse(optimize(layers(40), host_target()))
    assert 0 < walks <= 4.5 * few


def test_layers_that_share_kernels_are_right() -> None:
    graph = layers(6)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((48, 48), np.float32) * 0.2 for _ in graph.inputs]
    for got, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def _lowered(group: Group) -> tuple[Lowered, ...]:
    kernels = Kernels(host_target())
    kernels.in_place(group)
    return kernels.lower(group, {})


def groups(*outputs: Node) -> list[Group]:
    inputs = [n for n in Graph((), outputs).nodes if n.op == "input"]
    ordered = tuple(sorted(inputs, key=lambda n: n.integer("index")))
    return list(schedule(Graph(ordered, outputs), host_target()).groups)


def test_equal_groups_have_one_key_and_number_their_own_values() -> None:
    b = Builder()
    x, y, z, w = (b.input(i, SQUARE) for i in range(4))
    one, two = groups(b.exp(b.contract(x, y, "m k, k n -> m n")), b.exp(b.contract(z, w, "m k, k n -> m n")))
    form, other = form_of(one), form_of(two)
    assert form.key == other.key
    assert {x, y} <= set(form.nodes) and {z, w} <= set(other.nodes)
    mine = dict(zip(form.nodes, other.nodes, strict=True))
    assert (mine[x], mine[y], mine[one.targets[0]]) == (z, w, two.targets[0])


def different(b: Builder, x: Node, y: Node) -> list[Node]:
    """Values that must not share a kernel."""
    small = TensorType(f32, (40, 40))
    return [
        b.apply("sub", (x, y)),
        b.apply("sub", (x, x)),  # one leaf twice
        b.add(x, y),
        b.mul(x, b.constant(0.0, SQUARE)),
        b.mul(x, b.constant(-0.0, SQUARE)),
        b.mul(x, b.constant(float("nan"), SQUARE)),
        b.exp(b.slice(x, (0, 0), (40, 40), (1, 1))),
        b.exp(b.slice(x, (0, 0), (40, 24), (1, 2))),
        b.add(b.slice(x, (0, 0), (40, 40), (1, 1)), b.slice(x, (8, 0), (40, 40), (1, 1))),
        b.add(b.slice(x, (0, 0), (40, 40), (1, 1)), b.slice(x, (4, 0), (40, 40), (1, 1))),
        b.exp(b.reshape(x, (36, 64))),
        b.exp(b.input(9, small)),
        b.permute(x, (1, 0)),
    ]


def test_different_groups_have_different_keys() -> None:
    b = Builder()
    x, y = b.input(0, SQUARE), b.input(1, SQUARE)
    values = different(b, x, y)
    keys = [form_of(groups(value)[0]).key for value in values]
    assert len(set(keys)) == len(values)


def steps(b: Builder, x: Node, count: int, rows: int) -> list[Node]:
    """What a recurrence does with its input: each step reads rows of its own, two neighbours at once."""
    made: list[Node] = []
    for number in range(count):
        here = b.slice(x, (number * rows, 0), (rows, 48), (1, 1))
        there = b.slice(x, (number * rows + 2, 0), (rows, 48), (1, 1))
        made.append(b.sub(b.exp(here), there))
    return made


def test_slices_of_one_value_share_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    b = Builder()
    x = b.input(0, SQUARE)
    graph = Graph((x,), tuple(steps(b, x, 9, 5)))
    calls, launches = counted(graph, monkeypatch)
    assert launches == 9
    assert calls == {"prepare": 1, "lower": 1, "emit_kernel": 1}
    array = np.random.default_rng(1).standard_normal((48, 48), np.float32)
    for got, expected in zip(run(graph, [array]), evaluate(graph, [array]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_slices_of_reshaped_reversed_and_wholly_read_values_are_right() -> None:
    b = Builder()
    x = b.input(0, SQUARE)
    long = b.reshape(x, (2304,))
    outputs: list[Node] = []
    for number in range(3):
        outputs.append(b.exp(b.slice(long, (number * 100 + 7,), (90,), (3,))))
        outputs.append(b.exp(b.slice(x, (47 - number, 9), (20, 7), (-1, 1))))
        outputs.append(b.add(b.slice(x, (number + 1, number), (40, 40), (1, 1)), b.slice(x, (3, 4), (40, 40), (1, 1))))
        outputs.append(b.mul(b.reduce_sum(x, (1,)), b.reshape(b.slice(x, (number, 0), (1, 48), (1, 1)), (48,))))
        outputs.append(b.pad(b.neg(b.slice(x, (number + 1, 0), (40, 48), (1, 1))), (0, 0), (8, 0)))
    graph = Graph((x,), tuple(outputs))
    array = np.random.default_rng(2).standard_normal((48, 48), np.float32)
    for got, expected in zip(run(graph, [array]), evaluate(graph, [array]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_slices_of_sums_share_a_kernel() -> None:
    b = Builder()
    x, bias, one = b.input(0, SQUARE), b.input(1, TensorType(f32, (48,))), b.input(2, TensorType(f32, (48, 1)))
    moved = b.add(b.add(x, b.broadcast(bias, (48, 48))), b.neg(b.broadcast(one, (48, 48))))
    parts = [b.exp(b.slice(moved, (first, 3), (8, 20), (1, 2))) for first in (0, 8, 40)]
    (zero,), (eight,), (last,) = (groups(part) for part in parts)
    assert form_of(eight).key == form_of(last).key == form_of(zero).key
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(n.shape).astype(np.float32) for n in (x, bias, one)]
    for part in parts:
        (got,), (expected,) = (f(Graph((x, bias, one), (part,)), arrays) for f in (run, evaluate))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_slices_of_spread_values_are_those_values() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (1, 3)))
    spread, other = b.broadcast(x, (4, 3)), b.broadcast(b.exp(x), (4, 3))
    first, second = (b.slice(n, (2, 0), (1, 3), (1, 1)) for n in (spread, other))
    graph = Graph((x,), (b.neg(first), first, second, b.exp(x), b.add(second, first)))
    (group,) = groups(b.neg(first))
    assert set(form_of(group).nodes) == {x, *group.targets}
    arrays = [np.array([[0.5, -1.0, 2.0]], np.float32)]
    for got, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_what_is_stored_keeps_its_place_when_it_is_another_value() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (1, 3)))
    power = b.exp(x)
    spread = b.broadcast(power, (4, 3))
    part = b.slice(spread, (2, 0), (1, 3), (1, 1))
    for roots in ((part,), (part, power), (power, part)):
        group = Group((1, 3), tuple(Root(r, (0, 1)) for r in roots), frozenset({power, spread, part}))
        form = form_of(group)
        assert {x, *roots} <= set(form.nodes)
        (lowered,) = _lowered(group)
        assert set(lowered.buffers) == {x, *roots}


def test_equal_values_in_two_places_stay_two() -> None:
    b = Builder()
    x, y = b.input(0, SQUARE), b.input(1, SQUARE)
    where = ((8, 0), (8, 48), (1, 1))
    sliced = b.slice(b.add(x, y), *where)
    summed = b.add(b.slice(x, *where), b.slice(y, *where))
    values = [sliced, *sliced.inputs, summed, *summed.inputs]
    group = Group((8, 48), (Root(sliced, (0, 1)), Root(summed, (0, 1))), frozenset(values))
    form = form_of(group)
    assert {sliced, summed} <= set(form.nodes)
    assert len(form.group.targets) == 2


def test_a_stored_slice_that_another_value_reads_through_a_slice_keeps_its_place() -> None:
    """A part of a value before and after that part is overwritten: both read the same slice."""
    b = Builder()
    x, mask = b.input(0, TensorType(f32, (6, 4))), b.input(1, TensorType(boolean, (6, 4)))
    y = b.input(2, TensorType(f32, (3, 4)))
    where = ((1, 0), (3, 4), (1, 1))
    before = b.slice(x, *where)
    written = b.select(mask, b.pad(b.mul(before, y), (1, 0), (2, 0)), x)
    graph = Graph((x, mask, y), (before, b.slice(written, *where)))
    rng = np.random.default_rng(0)
    arrays = [rng.random((6, 4), np.float32), rng.random((6, 4)) < 0.5, rng.random((3, 4), np.float32)]
    for got, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_value_read_from_a_later_place_is_not_overwritten() -> None:
    b = Builder()
    x = b.input(0, SQUARE)
    later = b.pad(b.exp(b.slice(x, (8, 0), (40, 48), (1, 1))), (0, 0), (8, 0))
    (group,) = groups(b.add(later, b.constant(1.0, SQUARE)))
    assert Kernels(host_target()).in_place(group) == ()


def test_what_runs_in_place_is_part_of_the_kernel() -> None:
    b = Builder()
    x, y = b.input(0, SQUARE), b.input(1, SQUARE)
    one, two = groups(b.exp(x), b.exp(y))
    kernels = Kernels(host_target())
    ((target, operand),) = kernels.in_place(one)
    ((other_target, other_operand),) = kernels.in_place(two)
    assert (operand, other_operand) == (x, y)
    (apart,), (together,) = kernels.lower(one, {}), kernels.lower(one, {target: operand})
    assert [[p.mode for p in found.kernel.params] for found in (apart, together)] == [["in", "out"], ["inout"]]
    others = *kernels.lower(two, {}), *kernels.lower(two, {other_target: other_operand})
    assert others[0].kernel is apart.kernel and others[1].kernel is together.kernel
    assert [found.buffers for found in others] == [(y, other_target), (y,)]


def test_equal_groups_have_memory_of_their_own_to_work_in() -> None:
    b = Builder()
    x, y, w = (b.input(i, TensorType(f32, (512, 512))) for i in range(3))
    one, two = groups(*(b.contract(v, w, "m k, n k -> m n") for v in (x, y)))
    kernels = Kernels(replace(common(), l1_bytes=1 << 15, l2_bytes=1 << 19))
    kernels.in_place(one), kernels.in_place(two)
    (mine,), (other,) = kernels.scratch(one), kernels.scratch(two)
    assert mine != other and mine.type == other.type
    first, second = kernels.lower(one, {}), kernels.lower(two, {})
    assert [a.kernel is b.kernel for a, b in zip(first, second, strict=True)] == [True, True]
    assert first[0].buffers == (w, mine) and mine in first[1].buffers and mine not in second[1].buffers
    assert second[0].buffers == (w, other) and other in second[1].buffers


def at_length(length: int) -> Graph:
    """What depends on a length, and an update of a weight that does not: a row sum and a product for each."""
    b = Builder()
    x, weight, gradient = b.input(0, TensorType(f32, (length, 48))), b.input(1, SQUARE), b.input(2, SQUARE)
    scale = b.broadcast(b.reshape(b.reduce_sum(b.mul(gradient, gradient), (1,)), (48, 1)), (48, 48))
    updated = b.sub(weight, b.div(gradient, b.add(scale, b.constant(1.0, SQUARE))))
    return Graph((x, weight, gradient), (b.contract(x, weight, "m k, k n -> m n"), updated))


def test_what_two_programs_had_in_common_is_there_for_the_third(monkeypatch: pytest.MonkeyPatch) -> None:
    target = replace(host_target(), cores=2)
    generated: list[str] = []
    generate = build._generate

    def noting(texts: tuple[str, ...], *rest: object, **options: object) -> bytes:
        generated.extend(texts)
        return generate(texts, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "_generate", noting)
    found: list[tuple[Counter[str], set[str]]] = []
    for length in (20, 21, 22, 23):
        generated.clear()
        calls, _ = counted(at_length(length), monkeypatch)
        artifact = pipeline.make(at_length(length), frozenset(), target)
        found.append((calls, set(generated)))
        rng = np.random.default_rng(length)
        arrays = [rng.random(n.shape, np.float32) for n in at_length(length).inputs]
        expected = evaluate(at_length(length), arrays)
        buffers = [Buffer.from_array(a) for a in arrays]
        for given, wanted in zip(Executable(artifact, get_device("cpu")).run(buffers), expected, strict=True):
            np.testing.assert_allclose(given.view(np.float32, wanted.shape), wanted, rtol=2e-5, atol=1e-6)
    reuse.GROUPS.clear()
    alone = build_program(at_length(23), target=target)
    assert len(found[3][1]) < len(found[0][1])  # the weight's update is not built again
    assert found[3][1] < set(alone.modules)  # and what is built is what would be made without others before
    assert found[3][0]["prepare"] < found[0][0]["prepare"]
    assert found[3][0]["emit_kernel"] < found[0][0]["emit_kernel"]


def test_one_program_keeps_nothing() -> None:
    build_program(layers(3))
    assert not reuse.GROUPS._kept
    build_program(layers(3))
    assert reuse.GROUPS._kept


def test_only_the_entry_is_made_without_optimization(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: dict[str, int] = {}
    generate = build._generate

    def noting(texts: tuple[str, ...], target: object, use_object: bool, level: int = 2) -> bytes:
        levels.update(dict.fromkeys(texts, level))
        return generate(texts, target, use_object, level)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "_generate", noting)
    target = host_target()
    program = build_program(layers(3), target=target)
    make_artifact(program, target, {})
    assert levels.pop(program.entry) == 0
    assert set(levels.values()) == {2}
    assert set(levels) == set(program.texts)
