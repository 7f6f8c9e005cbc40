"""Grids that are read around each place, turn after turn: what one turn makes is stored for the next, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc.codegen.kernel import Kernel, Load
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.parser import parse_graph
from graphc.ir.schedule_verify import verify_fused
from graphc.passes.share_pads import SharePads
from graphc.pipeline import build_program, schedule
from tests.codegen.programs import mismatches, run
from tests.codegen.targets import AVX512, SSE2

TURNS = 6


def heat(u: Any) -> Any:
    around = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2]
    u[1:-1, 1:-1] += 0.1 * (around - 4.0 * u[1:-1, 1:-1])
    return u


def ring(u: Any) -> Any:
    return u + 0.1 * (torch.roll(u, 1, 0) + torch.roll(u, -1, 0) + torch.roll(u, 1, 1) + torch.roll(u, -1, 1) - 4 * u)


def upwind(u: Any) -> Any:
    u[1:] -= 0.3 * (u[1:] - u[:-1])
    return u


def flow(u: Any) -> Any:
    before = torch.cat([u[-1:], u[:-1]])
    return u - 0.1 * (0.5 * u * u - 0.5 * before * before)


def border(u: Any) -> Any:
    return u + torch.nn.functional.pad(0.1 * (u[2:, 1:-1] + u[:-2, 1:-1] - 2 * u[1:-1, 1:-1]), (1, 1, 1, 1))


def every_second(u: Any) -> Any:
    u[::2] = u[1::2] * 0.5 + u[::2] * 0.25
    u[1:] += u[:-1] * 0.125
    return u


# How many kernels six turns are: what costs little is computed again where two turns read few places.
KERNELS: dict[Callable[[Any], Any], int] = {heat: 6, ring: 6, upwind: 3, flow: 6, border: 6, every_second: 6}


def turns(turn: Callable[[Any], Any], shape: tuple[int, ...], count: int = TURNS) -> Graph:
    def run(u: Any) -> Any:
        u = u.clone()
        for _ in range(count):
            u = turn(u)
        return u

    return torch.trace(run, torch.zeros(shape))


@pytest.mark.parametrize("turn", KERNELS, ids=lambda turn: turn.__name__)
def test_each_turn_is_computed_once(turn: Callable[[Any], Any]) -> None:
    graph = turns(turn, (64, 48))
    for target in (AVX512, SSE2):
        fused = schedule(graph, target)
        verify_fused(fused)
        assert len(fused.groups) == KERNELS[turn]


@pytest.mark.parametrize("shape", [(6, 7), (34, 18), (64, 48)])
@pytest.mark.parametrize("turn", KERNELS, ids=lambda turn: turn.__name__)
def test_turns_give_what_the_evaluator_gives(turn: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    grid = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    graph = turns(turn, shape)
    assert mismatches(graph, [grid], run(graph, [grid])) == []


def test_a_cheap_value_is_computed_at_each_place() -> None:
    def smooth(x: Any) -> Any:
        y = x * 0.5
        return y[2:] + y[1:-1] + y[:-2]

    assert len(schedule(torch.trace(smooth, torch.zeros(1000)), AVX512).groups) == 1


def halves(x: Any) -> Any:
    parts = []
    for _ in range(6):
        even, odd = x[::2], x[1::2]
        parts.append(even - odd)
        x = even + odd
    return torch.cat([*parts, x])


def test_halves_of_halves_are_stored_before_they_are_picked_element_by_element() -> None:
    graph = torch.trace(halves, torch.zeros(4096))
    assert len(schedule(graph, AVX512).groups) == 5
    x = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    assert mismatches(graph, [x], run(graph, [x])) == []


def flow_around(f: Any) -> Any:
    """Parts that move by two dimensions, each with a value of its own."""
    parts = torch.stack([torch.roll(f[i], (i, 2 * i), (0, 1)) for i in range(3)])
    total = parts.sum(0)
    return 0.5 * parts + 0.1 * total * (1 - 0.1 * parts + 0.01 * parts * parts)


def test_what_a_roll_reads_is_computed_once() -> None:
    graph = turns(flow_around, (3, 32, 32), 3)
    program = build_program(graph, target=AVX512)
    assert sum(kernel.flops for kernel in program.kernels) < 3 * 3 * 32 * 32 * 40
    f = np.random.default_rng(0).standard_normal((3, 32, 32)).astype(np.float32) * 0.1
    assert mismatches(graph, [f], run(graph, [f])) == []


def _masked_loads(kernel: Kernel) -> list[Load]:
    found, todo = list[Load](), list(kernel.body)
    while todo:
        statement = todo.pop()
        todo += getattr(statement, "body", ())
        if isinstance(statement, Load) and statement.mask is not None:
            found.append(statement)
    return found


@pytest.mark.parametrize("shift", [1, 100, -1, 4095])
def test_vectors_that_read_nothing_stay_near_the_memory(shift: int) -> None:
    """A masked load from a page that is not there takes a hundred times as long, also where it reads nothing."""
    graph = torch.trace(lambda x: torch.roll(x, shift) * x, torch.zeros(4096))
    (kernel,) = build_program(graph, target=AVX512).kernels
    loads = _masked_loads(kernel)
    assert loads
    for load in loads:
        ((_, coefficient), *others) = load.index.terms or ((None, 0),)
        assert not others and coefficient in (0, 1) and abs(load.index.const) < 128
    x = np.arange(4096, dtype=np.float32)
    np.testing.assert_array_equal(run(graph, [x])[0], np.roll(x, shift) * x)


def test_halves_that_change_places_are_no_shifts() -> None:
    """Each element is read once by the halves: they are no reason to store what they are of."""

    def rotated(x: Any, angles: Any) -> Any:
        y = x.sigmoid() * x.tanh() * x.exp() * x
        return torch.cat([-y[:, 32:], y[:, :32]], 1) * angles

    assert len(schedule(torch.trace(rotated, torch.zeros(128, 64), torch.zeros(64)), AVX512).groups) == 1


WRITTEN = """
graph @written(%u: f32[8,6], %v: f32[6,4]) {
  %1 = constant {value = true} : bool[6,4]
  %2 = pad %1 {low = [1,1], high = [1,1], interior = [0,0], value = false} : bool[8,6]
  %3 = mul %v, %v : f32[6,4]
  %4 = pad %3 {low = [1,1], high = [1,1], interior = [0,0], value = 0.0} : f32[8,6]
  %5 = select %2, %4, %u : f32[8,6]
  %6 = neg %3 : f32[6,4]
  return %5, %6
}
"""


def _source(graph: Graph) -> str:
    """What the slice that the negation reads is of."""
    (part,) = next(n for n in graph.nodes if n.op == "neg").inputs
    assert part.op == "slice"
    return part.inputs[0].op


def test_what_was_written_into_a_grid_is_read_out_of_it() -> None:
    graph = parse_graph(WRITTEN)
    shared = SharePads().run(graph)
    assert _source(shared) == "select"
    arrays = [np.random.default_rng(k).standard_normal(n.shape).astype(np.float32) for k, n in enumerate(graph.inputs)]
    for expected, got in zip(evaluate(graph, arrays), evaluate(shared, arrays), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "low = [1,1], high = [1,1], interior = [0,0], value = false",
            "low = [2,1], high = [0,1], interior = [0,0], value = false",
        ),
        ("value = true} : bool", "value = false} : bool"),
        ("select %2, %4, %u", "select %2, %4, %4"),
        ("return %5, %6", "return %5, %6, %4"),
    ],
    ids=["beside the mask", "another mask", "read twice", "wanted"],
)
def test_only_a_value_that_is_wholly_there_is_read_out_of_a_grid(before: str, after: str) -> None:
    assert before in WRITTEN
    graph = parse_graph(WRITTEN.replace(before, after))
    assert _source(SharePads().run(graph)) == "pad"


def test_a_grid_that_depends_on_what_is_written_is_not_read() -> None:
    parts = WRITTEN.splitlines()
    at = next(i for i, line in enumerate(parts) if "select" in line)
    parts[at] = parts[at].replace("%u", "%7")
    negation = next(line for line in parts if "neg" in line)
    parts.remove(negation)
    zeros = "low = [0,0], high = [2,2], interior = [0,0], value = 0.0"
    parts[at:at] = [negation, f"  %7 = pad %6 {{{zeros}}} : f32[8,6]"]
    assert _source(SharePads().run(parse_graph("\n".join(parts)))) == "pad"
