"""The memory plan: nothing overlaps in space and time, dead operands hand on their memory, outputs need no copies."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from graphc.codegen.llvm.host import host_target
from graphc.codegen.llvm.program import Copy, Fill
from graphc.codegen.package import Program
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.parser import parse_graph
from graphc.ir.schedule import MemoryPlan, Scratch
from graphc.ir.types import TensorType, f32, i64
from graphc.passes.plan_memory import plan_memory
from tests.codegen.networks import training_step
from tests.codegen.plan_checker import Step, check_plan, steps_of
from tests.codegen.programs import buffers, executable, run
from tests.codegen.raw import program_for
from tests.fuzz.graphs import random_graph

SMALL = TensorType(f32, (100,))


def errors(program: Program, plan: MemoryPlan | None = None, donated: frozenset[int] = frozenset()) -> list[str]:
    steps = steps_of(program.fused, program.plan, host_target())
    return check_plan(program.fused, plan or program.plan, steps, donated)


def chain(kernels: int) -> Graph:
    """A chain of operators so long that it is cut into several kernels, each reading what the last stored."""
    b = Builder()
    x = b.input(0, SMALL, "x")
    value = x
    for i in range(kernels * 500):
        value = b.mul(value, 1.0 + i)
    return Graph((x,), (value,))


@pytest.mark.parametrize("batch", [3, 16, 29])
def test_plan_of_a_training_step(batch: int) -> None:
    program = program_for(training_step(batch))
    assert errors(program) == []
    every = sum(-(-t.type.nbytes // 64) * 64 for g in program.fused.groups for t in g.targets)
    assert program.plan.arena_bytes < 0.7 * every, "the arena is hardly re-used"
    assert not program.plan.copies


def test_dead_operands_are_overwritten() -> None:
    program = program_for(chain(6))
    kernels = len(program.fused.groups)
    assert kernels >= 5
    assert errors(program) == []
    assert program.plan.arena_bytes == 448, "one block of 400 bytes, handed on in place"
    assert sum(map(len, program.plan.merged)) == kernels - 2


def test_without_reuse_every_value_has_its_own_memory() -> None:
    program = program_for(chain(6), reuse=False)
    assert errors(program) == []
    assert program.plan.arena_bytes == (len(program.fused.groups) - 1) * 448
    assert not any(program.plan.merged)


def test_donated_inputs_become_outputs() -> None:
    """Gradient descent on three parameters of one type and one of another."""
    b = Builder()
    types = [SMALL, TensorType(f32, (7, 9)), SMALL, SMALL]
    parameters = [b.input(i, type) for i, type in enumerate(types)]
    gradients = [b.input(4 + i, type) for i, type in enumerate(types)]
    outputs = [b.sub(p, b.mul(g, 0.01)) for p, g in zip(parameters, gradients, strict=True)]
    donated = frozenset(range(4))
    program = program_for(Graph((*parameters, *gradients), tuple(outputs)), donated)
    assert errors(program, donated=donated) == []
    assert program.plan.taken == (0, 1, 2, 3)
    assert errors(program), "without the permission to overwrite inputs this is an error"


def test_a_donated_input_that_is_read_later_is_kept() -> None:
    b = Builder()
    x = b.input(0, SMALL, "x")
    early = b.apply("materialize", (b.add(x, 1.0),))
    late = b.contract(b.reshape(early, (10, 10)), b.reshape(x, (10, 10)), "a b, b c -> a c")
    program = program_for(Graph((x,), (early, late)), frozenset({0}))
    assert errors(program, donated=frozenset({0})) == []
    assert program.plan.taken == (-1, -1)


def copies_in(program: Program) -> int:
    return sum(isinstance(step, Copy) for step in program.steps)


def added_at(b: Builder, base: Node, places: Node, times: int) -> Node:
    """`base` after `times` additions of ones at `places` of its rows."""
    ones = b.constant(1.0, TensorType(f32, (*places.shape, *base.shape[1:])))
    for _ in range(times):
        base = b.apply("index_add", (base, places, ones), {"axis": 0})
    return base


@pytest.mark.parametrize("times", [1, 2, 3])
def test_donated_inputs_are_written_at_indices_where_they_lie(times: int) -> None:
    b = Builder()
    x, places = b.input(0, TensorType(f32, (10, 10)), "x"), b.input(1, TensorType(i64, (3,)), "places")
    graph = Graph((x, places), (added_at(b, x, places, times),))
    program = program_for(graph, frozenset({0}))
    assert errors(program, donated=frozenset({0})) == []
    assert program.plan.taken == (0,)
    assert copies_in(program) == 0
    kept = program_for(graph)
    assert errors(kept) == []
    assert kept.plan.taken == (-1,)
    assert copies_in(kept) == 1
    assert kept.plan.arena_bytes <= 192, "ones, nothing of the size of the result"


def test_what_follows_a_write_at_indices_may_go_on_where_it_lies() -> None:
    b = Builder()
    x, places = b.input(0, TensorType(f32, (10, 10)), "x"), b.input(1, TensorType(i64, (3,)), "places")
    graph = Graph((x, places), (b.mul(added_at(b, x, places, 2), 2.0),))
    program = program_for(graph, frozenset({0}))
    assert errors(program, donated=frozenset({0})) == []
    assert program.plan.taken == (0,)
    assert copies_in(program) == 0
    arrays = [np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10), np.array([9, 0, 9])]
    given = buffers(arrays)
    (result,) = executable(graph, donated=[0]).run(given)
    assert result is given[0]
    np.testing.assert_array_equal(result.view(np.dtype("f4"), (10, 10)), evaluate(graph, arrays)[0])


@pytest.mark.parametrize("zeros", [True, False])
def test_what_is_written_at_indices_is_stored_once(zeros: bool) -> None:
    """A table of zeros is filled where the result will be, one that is computed is computed there."""
    b = Builder()
    x, places = b.input(0, TensorType(f32, (10, 10)), "x"), b.input(1, TensorType(i64, (3,)), "places")
    base = b.constant(0.0, x.type) if zeros else b.exp(x)
    program = program_for(Graph((x, places), (added_at(b, base, places, 2),)))
    assert errors(program) == []
    assert copies_in(program) == 0
    assert sum(isinstance(step, Fill) for step in program.steps) == zeros
    assert program.plan.arena_bytes <= 192


def test_what_is_wanted_besides_is_copied_before_it_is_written_at_indices() -> None:
    b = Builder()
    x, places = b.input(0, TensorType(f32, (10, 10)), "x"), b.input(1, TensorType(i64, (3,)), "places")
    graph = Graph((x, places), (b.reduce_sum(x, (0, 1)), added_at(b, x, places, 1), x))
    program = program_for(graph, frozenset({0}))
    assert errors(program, donated=frozenset({0})) == []
    assert program.plan.taken == (-1, -1, -1)
    computed = b.exp(x)
    program = program_for(Graph((x, places), (added_at(b, computed, places, 1), computed)))
    assert errors(program) == []
    assert copies_in(program) == 1
    own = b.apply("index_add", (computed, places, b.slice(computed, (0, 0), (3, 10), (1, 1))), {"axis": 0})
    arrays = [np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10), np.array([9, 0, 9])]
    for shared in (Graph((x, places), (own,)), graph):
        for got, wanted in zip(run(shared, arrays), evaluate(shared, arrays), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_memory_that_is_zeroed_first_is_no_operands() -> None:
    """The middle of a value is computed in place, in principle; but the rim of the result is zeroed before."""
    b = Builder()
    x = b.input(0, SMALL, "x")
    value = b.apply("materialize", (b.exp(x),))
    middle = b.exp(b.slice(value, (10,), (80,), (1,)))
    program = program_for(Graph((x,), (b.reduce_sum(b.apply("materialize", (b.pad(middle, (10,), (10,)),)), (0,)),)))
    assert errors(program) == []


def test_windows_are_not_folded_into_memory_that_they_are_read_from() -> None:
    """Every second element is read and written at one place, which alone would allow it."""
    graph = parse_graph("""graph @main(%x: f32[99], %s: f32[]) {
      %2 = contract %x, %s {spec = "a,  -> a"}
      %3 = window %2 {axes = [0], size = [1], stride = [2], dilation = [1]}
      %4 = fold %3 {shape = [99], axes = [0], stride = [2], dilation = [1]}
      %5 = contract %4, %s {spec = "a,  -> a"}
      return %5
    }""")
    arrays = [np.arange(99, dtype=np.float32), np.float32(2)]
    np.testing.assert_array_equal(run(graph, arrays)[0], evaluate(graph, arrays)[0])


def test_outputs_that_are_inputs_or_stand_twice_are_copied() -> None:
    b = Builder()
    x = b.input(0, SMALL, "x")
    y = b.exp(x)
    program = program_for(Graph((x,), (x, y, y, b.reshape(y, (10, 10)))))
    assert errors(program) == []
    assert [j for j, _ in program.plan.copies] == [0, 2, 3]


# Seeded corruptions: the checker has to find each one.

Corruption = Callable[[random.Random, Program, list[Step]], MemoryPlan | None]


def _live_pairs(program: Program, steps: list[Step]) -> list[tuple[int, int]]:
    """Pairs (a, b) of numbers of arena values: b is written before a is, and read after that."""
    nodes = list(program.plan.places)
    written = {n: t for t, s in enumerate(steps) for n in s.writes if n.type.size}
    read: dict[Node | Scratch, int] = {n: t for t, s in enumerate(steps) for n in s.reads}
    arena = max(number for number, _ in program.plan.places.values())
    values = [n for n in written if program.plan.places[n][0] == arena]
    return [
        (nodes.index(a), nodes.index(b))
        for a in values
        for b in values
        if a is not b and written[b] < written[a] < read.get(b, -1)
    ]


def _overlapping(rng: random.Random, program: Program, steps: list[Step]) -> MemoryPlan | None:
    pairs = _live_pairs(program, steps)
    if not pairs:
        return None
    a, b = (list(program.plan.places)[i] for i in rng.choice(pairs))
    return dataclasses.replace(program.plan, places={**program.plan.places, a: program.plan.places[b]})


def _short_arena(rng: random.Random, program: Program, steps: list[Step]) -> MemoryPlan | None:
    return dataclasses.replace(program.plan, arena_bytes=program.plan.arena_bytes - 64) if _arena(program) else None


def _forgotten_merge(rng: random.Random, program: Program, steps: list[Step]) -> MemoryPlan | None:
    """One value taken over by another, said to lie elsewhere."""
    taken = [t for shared in program.plan.merged for t in shared if t.type.size]
    if not taken:
        return None
    target = rng.choice(taken)
    number, _ = program.plan.places[target]
    end = -(-program.plan.arena_bytes // 64) * 64
    places = {**program.plan.places, target: (number, end + 64)}  # past the arena, or past the start of an output
    return dataclasses.replace(program.plan, places=places)


def _missing_copy(rng: random.Random, program: Program, steps: list[Step]) -> MemoryPlan | None:
    real = [c for c in program.plan.copies if c[1].type.size]
    if not real:
        return None
    gone = rng.choice(real)
    return dataclasses.replace(program.plan, copies=tuple(c for c in program.plan.copies if c is not gone))


def _stolen_input(rng: random.Random, program: Program, steps: list[Step]) -> MemoryPlan | None:
    graph, taken = program.fused.graph, list(program.plan.taken)
    fitting = [
        (i, j)
        for i, x in enumerate(graph.inputs)
        for j, y in enumerate(graph.outputs)
        if x.type.nbytes == y.type.nbytes > 0
    ]
    if not fitting:
        return None
    i, j = rng.choice(fitting)
    taken[j] = i
    return dataclasses.replace(program.plan, taken=tuple(taken))


def _swapped(rng: random.Random, program: Program, steps: list[Step]) -> MemoryPlan | None:
    """An output in the memory of another."""
    graph, first = program.fused.graph, len(program.fused.graph.inputs)
    placed = [n for n, (number, _) in program.plan.places.items() if first <= number < first + len(graph.outputs)]
    # One of those that take over each other's memory stands for all.
    placed = list({program.plan.places[n]: n for n in placed if n.type.size}.values())
    if len(placed) < 2:
        return None
    a, b = rng.sample(placed, 2)
    return dataclasses.replace(program.plan, places={**program.plan.places, a: program.plan.places[b]})


def _arena(program: Program) -> int:
    return program.plan.arena_bytes


CORRUPTIONS: tuple[Corruption, ...] = (
    _overlapping,
    _short_arena,
    _forgotten_merge,
    _missing_copy,
    _stolen_input,
    _swapped,
)


@cache
def subject(seed: int) -> tuple[Program, list[Step]]:
    program = program_for(random_graph(seed) if seed % 10 else chain(seed // 10 + 4))
    return program, steps_of(program.fused, program.plan, host_target())


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda f: f.__name__.strip("_"))
def test_the_checker_finds_corrupted_plans(corrupt: Corruption) -> None:
    found = 0
    for seed in range(60):
        program, steps = subject(seed)
        plan = corrupt(random.Random(seed), program, steps)
        if plan is None:
            continue
        found += 1
        assert check_plan(program.fused, program.plan, steps) == []
        assert check_plan(program.fused, plan, steps), f"graph {seed}: the corruption was not found"
    assert found >= 3, f"only {found} graphs to corrupt"


def test_scratch_memory_overlaps_nothing_alive_and_is_used_again() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (3, 5000)), "x")
    y = b.apply("materialize", (b.exp(x),))
    orders = [b.apply("argsort", (v,), {"axis": 1, "descending": False}) for v in (x, y)]
    program = program_for(Graph((x,), (*orders, b.mul(y, 2.0))))
    assert errors(program) == []
    scratch = [n for n in program.plan.places if isinstance(n, Scratch)]
    assert len(scratch) == 4
    own = max(n.type.nbytes for n in scratch)
    assert program.plan.arena_bytes < 2 * own, "the second order works where the first did"
    moved = {**program.plan.places, scratch[-1]: program.plan.places[y]}
    assert errors(program, dataclasses.replace(program.plan, places=moved)), "the checker finds scratch over a value"


def test_planning_again_gives_the_same_plan() -> None:
    program = program_for(training_step(4))
    in_place = {g: tuple(m.items()) for g, m in zip(program.fused.groups, program.plan.merged, strict=True)}
    again = plan_memory(program.fused, in_place)
    assert (again.places, again.arena_bytes) == (program.plan.places, program.plan.arena_bytes)


def test_a_value_lives_until_it_is_stored_through_two_pads() -> None:
    """The gradient of a convolution with a stride pads its cotangent along two axes in one kernel that only stores."""
    graph = parse_graph("""graph @main(%0: f32[1,1,8,8], %1: f32[1,1,3,3], %2: f32[1,1,1,1], %3: f32[1,1,4,4]) {
      %4 = pad %0 {low = [0,0,1,1], high = [0,0,1,1], interior = [0,0,0,0], value = 0.0} : f32[1,1,10,10]
      %5 = contract %4, %1 {spec = "b c 2h+r 2w+s, o c r s -> b o h w"} : f32[1,1,4,4]
      %6 = contract %0, %2 {spec = "b c 2h+r 2w+s, o c r s -> b o h w"} : f32[1,1,4,4]
      %7 = add %5, %6 : f32[1,1,4,4]
      %8 = constant {value = 0.0} : f32[1,1,4,4]
      %9 = le %7, %8 : bool[1,1,4,4]
      %10 = select %9, %8, %3 : f32[1,1,4,4]
      %11 = pad %10 {low = [0,0,0,0], high = [0,0,1,0], interior = [0,0,1,0], value = 0.0} : f32[1,1,8,4]
      %12 = pad %11 {low = [0,0,0,0], high = [0,0,0,1], interior = [0,0,0,1], value = 0.0} : f32[1,1,8,8]
      %13 = contract %12, %2 {spec = "b o p0+r p1+s, o c r s -> b c p0 p1"} : f32[1,1,8,8]
      %14 = pad %10 {low = [0,0,2,0], high = [0,0,3,0], interior = [0,0,1,0], value = 0.0} : f32[1,1,12,4]
      %15 = pad %14 {low = [0,0,0,2], high = [0,0,0,3], interior = [0,0,0,1], value = 0.0} : f32[1,1,12,12]
      %16 = contract %15, %1 {spec = "b o p0+r p1+s, o c r s -> b c p0 p1"} : f32[1,1,10,10]
      %17 = slice %16 {start = [0,0,1,1], size = [1,1,8,8], step = [1,1,1,1]} : f32[1,1,8,8]
      %18 = add %13, %17 : f32[1,1,8,8]
      %19 = slice %4 {start = [0,0,0,0], size = [1,1,9,9], step = [1,1,1,1]} : f32[1,1,9,9]
      %20 = contract %10, %19 {spec = "b o h w, b c 2h+r 2w+s -> o c r s"} : f32[1,1,3,3]
      return %18, %20
    }""")
    program = program_for(graph)
    through_two = [r for g in program.fused.groups for r in g.roots if len(r.scatter) == 2]
    assert through_two, "nothing is stored through two pads"
    assert errors(program) == []
    arrays = [np.random.default_rng(0).standard_normal(x.shape).astype(np.float32) for x in graph.inputs]
    for found, wanted in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
