"""Kernels of matrix products: several steps of a sum in one pass, and what is asked for before it is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc.codegen import loops
from graphc.codegen.kernel import Fence, For, Kernel, Load, Op, Prefetch, Stmt, statements
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.prepare import prepare
from graphc.codegen.schedule import Choice, Schedule
from graphc.codegen.sites import Nest, Site
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import DType, TensorType, f32, f64
from graphc.pipeline import build_program, schedule
from tests.codegen.programs import run
from tests.codegen.targets import AVX2

SMALL = replace(AVX2, l1_bytes=128, l2_bytes=4096, cores=2)
FORMS = {"nn": "a b, b c -> a c", "nt": "a b, c b -> a c", "tn": "b a, b c -> a c", "tt": "b a, c b -> a c"}


def _product(form: str, rows: int, inner: int, columns: int, dtype: DType = f32) -> Graph:
    b = Builder()
    shapes = [
        (rows, inner) if form[0] == "n" else (inner, rows),
        (inner, columns) if form[1] == "n" else (columns, inner),
    ]
    x, y = (
        b.input(i, TensorType(dtype, shape), name) for i, (shape, name) in enumerate(zip(shapes, "xy", strict=True))
    )
    return Graph((x, y), (b.contract(x, y, FORMS[form]),))


def _loops(body: Sequence[Stmt]) -> Iterator[For]:
    """All loops, each before those in it."""
    return (s for s in statements(body) if isinstance(s, For))


def _sums(kernel: Kernel) -> list[For]:
    """The innermost loops of sums."""
    return [loop for loop in _loops(kernel.body) if any(isinstance(s, Op) and s.name == "fma" for s in loop.body)]


def _asked(loop: For) -> list[str]:
    return [s.buffer.name for s in loop.body if isinstance(s, Prefetch)]


@pytest.mark.parametrize(("inner", "step"), [(64, 4), (66, 3), (70, 2), (67, 4)])
def test_one_pass_makes_several_steps_of_a_sum(inner: int, step: int) -> None:
    """Those that divide its length; what is left is computed after the loop."""
    graph = _product("nn", 24, inner, 32)
    kernel = build_program(graph, target=AVX2).kernels[-1]
    loops = _sums(kernel)
    assert loops and all(loop.step == step and loop.hi == inner // step * step for loop in loops)


@pytest.mark.parametrize(("rows", "columns", "looked_at"), [(3, 256, {256}), (64, 256, {64, 256})])
def test_lanes_that_must_lose_are_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, looked_at: set[int]
) -> None:
    """Nor is scalar code; the option of the cost model that a search asks for is among all of them."""
    extents: list[int] = []
    tile = loops.tile_contraction

    def counted(site: Site, nest: Nest, begun: Schedule, *rest: Any, **options: Any) -> float:
        extents.append(0 if begun.lane is None else begun.lane.hi + 1)
        return tile(site, nest, begun, *rest, **options)

    monkeypatch.setattr(loops, "tile_contraction", counted)
    (group,) = schedule(_product("nn", rows, 64, columns), AVX2).groups
    chosen = prepare(group, AVX2).schedule
    assert set(extents) - {0} == looked_at
    assert chosen.lane is not None and chosen.lane.hi + 1 in looked_at
    extents.clear()
    prepare(group, AVX2, Choice(lane=1))
    assert set(extents) == {rows, columns, 0}


@pytest.mark.parametrize("form", FORMS)
def test_the_next_tiles_panel_is_asked_for(form: str) -> None:
    """One line in a pass: by the end of the block these are all."""
    kernel = build_program(_product(form, 200, 200, 200), target=SMALL).kernels[-1]
    verify_kernel(kernel)
    loops = _sums(kernel)
    assert loops and all(len(set(_asked(loop))) == 1 for loop in loops)


def test_parts_of_sums_are_asked_for_before_the_steps_that_come_before_them() -> None:
    kernel = build_program(_product("nn", 200, 200, 200), target=SMALL).kernels[-1]
    (sums,) = (p.name for p in kernel.params if p.mode == "inout")
    around = [loop for loop in _loops(kernel.body) if any(isinstance(s, For) and s in _sums(kernel) for s in loop.body)]
    assert len(around) >= 2  # for all parts but the last one, and for that
    for loop in around:
        asked = [i for i, s in enumerate(loop.body) if isinstance(s, Prefetch) and s.buffer.name == sums]
        (work,) = (i for i, s in enumerate(loop.body) if isinstance(s, For))
        assert asked and max(asked) < work


def test_what_the_nearest_cache_holds_is_not_asked_for() -> None:
    kernel = build_program(_product("nn", 64, 64, 64), target=AVX2).kernels[-1]
    assert not any(_asked(loop) for loop in _loops(kernel.body))


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rows", "inner", "columns"), [(97, 131, 83), (64, 67, 1), (13, 200, 260), (50, 49, 48)])
def test_odd_sizes(form: str, dtype: DType, rows: int, inner: int, columns: int) -> None:
    graph = _product(form, rows, inner, columns, dtype)
    rng = np.random.default_rng(rows)
    arrays = [rng.integers(-3, 4, n.shape).astype(n.dtype.numpy) for n in graph.inputs]
    for target in (SMALL, replace(SMALL, l2_bytes=1 << 15, cores=1), replace(SMALL, l2_bytes=1 << 17)):
        np.testing.assert_array_equal(run(graph, arrays, target)[0], evaluate(graph, arrays)[0])


def _schedule(graph: Graph, target: Target) -> Schedule:
    (group,) = schedule(graph, target).groups
    return prepare(group, target).schedule


def _weight_gradient(batch: int, channels: int) -> Graph:
    b = Builder()
    x, y = (b.input(i, TensorType(f32, s)) for i, s in enumerate([(batch, 6, 14, 14), (batch, channels, 10, 10)]))
    return Graph((x, y), (b.contract(y, x, "b o h w, b c h+r w+s -> o c r s"),))


def test_each_step_of_a_pass_loads_what_it_reads() -> None:
    """Two steps of windows that slide along a tile share four of five elements, which take registers of the sums."""
    kernel = build_program(_weight_gradient(4, 16), target=AVX2).kernels[-1]
    loops = _sums(kernel)
    assert loops
    for loop in loops:
        second = max(i for i, s in enumerate(loop.body) if isinstance(s, Fence))
        loads = [sum(isinstance(s, Load) for s in part) for part in (loop.body[:second], loop.body[second:])]
        assert loop.step == 2 and loads[0] == loads[1]


@pytest.mark.parametrize("batch", [1, 4])
def test_weight_gradients(batch: int) -> None:
    graph = _weight_gradient(batch, 16)
    rng = np.random.default_rng(batch)
    arrays = [rng.integers(-3, 4, n.shape).astype(n.dtype.numpy) for n in graph.inputs]
    for target in (AVX2, SMALL):
        np.testing.assert_array_equal(run(graph, arrays, target)[0], evaluate(graph, arrays)[0])


@pytest.mark.parametrize("width", [28, 12, 20])
def test_what_whole_vectors_leave_has_sums_enough_too(width: int) -> None:
    """The last vector of a row, with fewer elements, is a tile of its own: few sums would wait for each other."""
    b = Builder()
    x, w = (b.input(i, TensorType(f32, s)) for i, s in enumerate([(1, 3, 32, width + 4), (6, 3, 5, 5)]))
    graph = Graph((x, w), (b.contract(x, w, "b c h+r w+s, o c r s -> b o h w"),))
    found = _schedule(graph, AVX2)
    assert found.lane is not None and found.lane.hi + 1 == width
    assert math.prod(tile for var, tile in found.tile.items() if var is not found.lane) >= 8
    rng = np.random.default_rng(width)
    arrays = [rng.integers(-3, 4, n.shape).astype(n.dtype.numpy) for n in graph.inputs]
    np.testing.assert_array_equal(run(graph, arrays, AVX2)[0], evaluate(graph, arrays)[0])


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_an_outer_product_are_stored_one_after_the_other(form: str) -> None:
    graph = _product(form, 60, 1, 50)
    found = _schedule(graph, AVX2)
    assert all(tile == 1 for var, tile in found.tile.items() if var is not found.lane)
    arrays = [np.arange(n.type.size, dtype=np.float32).reshape(n.shape) for n in graph.inputs]
    np.testing.assert_array_equal(run(graph, arrays, AVX2)[0], evaluate(graph, arrays)[0])


MIDDLE = replace(AVX2, l1_bytes=1 << 10, l2_bytes=1 << 15, cores=1)


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rows", "inner", "columns"), [(700, 150, 600), (631, 203, 733)])
def test_the_kernel_copies_a_block_of_rows(form: str, dtype: DType, rows: int, inner: int, columns: int) -> None:
    """Into memory of its own, for a chunk of the sum: the block before it is overwritten."""
    target = MIDDLE
    graph = _product(form, rows, inner, columns, dtype)
    choice = _schedule(graph, target)
    (block,) = (p for p in choice.panels if not p.is_lane)
    assert block.is_near and (block.axis, block.held) == choice.block and block.memory not in choice.memory
    *_, kernel = build_program(graph, target=target).kernels
    verify_kernel(kernel)
    (own,) = kernel.own
    assert block.held * block.length <= own.size <= block.held * block.length + target.lanes(4)
    assert own.size * dtype.itemsize < target.l2_bytes
    rng = np.random.default_rng(rows)
    arrays = [rng.integers(-3, 4, n.shape).astype(n.dtype.numpy) for n in graph.inputs]
    np.testing.assert_array_equal(run(graph, arrays, target)[0], evaluate(graph, arrays)[0])


def test_rows_that_lie_side_by_side_already_are_copied_only_for_many_columns() -> None:
    few, many = (_schedule(_product("nn", 256, 256, n), MIDDLE) for n in (64, 1024))
    assert all(p.is_lane for p in few.panels)
    assert any(not p.is_lane for p in many.panels)


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("columns", [16 * 18, 16 * 18 + 5, 16 * 4, 11])
def test_tiles_side_by_side_are_copied_row_by_row(columns: int, cores: int) -> None:
    """Up to four at a time, so that all cores have some; what fills up the last one is a piece of its own."""
    graph = _product("nn", 200, 200, columns)
    target = replace(SMALL, cores=cores)
    panels = [p for p in _schedule(graph, target).far_panels if p.is_lane]
    for panel, kernel in zip(panels, build_program(graph, target=target).kernels, strict=False):
        whole, rest = divmod(columns, panel.width)
        together = 4 if cores == 1 or whole > 16 else 1
        assert kernel.grid == -(-whole // together) + (rest > 0)
        rows = [loop for loop in _loops(kernel.body) if any(isinstance(s, For) for s in loop.body)]
        assert all(loop.hi == 200 for loop in rows)
    arrays = [np.arange(n.type.size, dtype=np.float32).reshape(n.shape) % 7 for n in graph.inputs]
    np.testing.assert_array_equal(run(graph, arrays, target)[0], evaluate(graph, arrays)[0])
