"""The order of multiply-adds in an unrolled body: each element that several places of a window share is loaded once."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen import lower
from graphc.codegen.kernel import Fence, For, Load, Stmt
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.llvm.build import build_assembly
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.prepare import prepare
from graphc.codegen.sites import Site
from graphc.codegen.taps import Item, by_elements, one_by_one
from graphc.codegen.target import Target
from graphc.ir.access import Index
from graphc.ir.builder import Builder
from graphc.ir.demand import reduction_reads
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.index import Ix
from graphc.ir.node import Node
from graphc.ir.types import TensorType, f32
from graphc.options import scope
from graphc.pipeline import build_program, schedule
from tests.codegen.programs import run
from tests.codegen.targets import AVX2, AVX512, runnable


def _graph(spec: str, *shapes: tuple[int, ...]) -> Graph:
    b = Builder()
    x, y = (b.input(i, TensorType(f32, shape), name) for i, (shape, name) in enumerate(zip(shapes, "xy", strict=True)))
    return Graph((x, y), (b.contract(x, y, spec),))


def _site(graph: Graph) -> Site:
    (group,) = schedule(graph, AVX2).groups
    return next(s for s in prepare(group, AVX2).nest.sites if s.stage is not None)


def _items(site: Site, rows: int) -> list[Item]:
    """Sums for neighbouring places of the last but one dimension of the result."""
    assert site.stage is not None
    (at,) = site.points
    return [(site.stage, (*at[:-2], Ix(k), at[-1])) for k in range(rows)]


DEPTHWISE = _graph("g h+r w+s, g r s -> g h w", (8, 26, 58), (8, 3, 3))


def test_rows_of_a_window_are_one_group() -> None:
    site = _site(DEPTHWISE)
    groups = by_elements(_items(site, 8), site, site.loops, 16)
    assert [len(group) for group in groups] == [24, 24, 24]  # one for each column of the window
    for group in groups:
        assert len({place[1] for place, _ in group}) == 1
        read = [number + place[0] for place, number in group]  # the row of the picture
        assert read == sorted(read) and set(read) == set(range(10))
    steps = sorted(step for group in groups for step in group)
    assert steps == sorted(step for group in one_by_one(8, site.loops) for step in group)


def test_without_registers_for_it_places_come_one_by_one() -> None:
    site = _site(DEPTHWISE)
    assert by_elements(_items(site, 8), site, site.loops, 11) == one_by_one(8, site.loops)
    assert by_elements(_items(site, 8), site, site.loops, 12) != one_by_one(8, site.loops)


def test_nothing_shared_nothing_moved() -> None:
    site = _site(_graph("a h+r, r b -> a h b", (8, 30), (3, 64)))
    items = [(stage, (Ix(k), *at[1:])) for k in range(4) for stage, at in [(site.stage, site.points[0])] if stage]
    assert by_elements(items, site, site.loops, 16) == one_by_one(4, site.loops)


def test_each_element_of_a_tile_is_loaded_once() -> None:
    (kernel,) = build_program(DEPTHWISE, target=AVX2).kernels
    loads = [line.split("= ")[1] for line in print_kernel(kernel).splitlines() if "load %p0" in line]
    (group,) = schedule(DEPTHWISE, AVX2).groups
    made = prepare(group, AVX2).schedule
    rows = max(n for v, n in made.tile.items() if v is not made.lane)
    assert rows >= 6 and len(loads) % ((rows + 2) * 3) == 0  # bodies for whole vectors, and for those that are left


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [("m k, k n -> m n", ((24, 40), (40, 96))), ("b m k, n k -> b m n", ((3, 17, 21), (35, 21)))],
)
def test_lowering_finds_each_element_of_a_body_once(
    monkeypatch: pytest.MonkeyPatch, spec: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    """Not once for each multiply-add that takes it: those of a tile have rows and columns in common."""
    found: list[Node] = []

    def counted(stage: Node, at: Index, over: Index) -> list[Index]:
        found.append(stage)
        return reduction_reads(stage, at, over)

    monkeypatch.setattr(lower, "reduction_reads", counted)
    kernels = build_program(_graph(spec, *shapes), target=AVX2).kernels
    products = "\n".join(map(print_kernel, kernels)).count(" fma ")
    assert 0 < len(found) < products


def test_tiles_are_of_rows_that_share_elements() -> None:
    """Also where samples and channels could be computed together: eight rows read ten."""
    graph = _graph("b g h+r w+s, g r s -> b g h w", (4, 8, 58, 58), (8, 3, 3))
    (group,) = schedule(graph, AVX2).groups
    prepared = prepare(group, AVX2)
    sizes = [prepared.schedule.tile[v] for v in prepared.nest.axes if v.hi]
    assert sizes == [1, 1, 8, 1]


FIVE = _graph("c h+r w+s, o c r s -> o h w", (16, 32, 32), (32, 16, 5, 5))


def _innermost(statements: tuple[Stmt, ...]) -> list[Stmt]:
    """The longest body of an innermost loop."""
    loops = [s for s in statements if isinstance(s, For)]
    return max((_innermost(loop.body) for loop in loops), key=len) if loops else list(statements)


def test_what_does_not_fit_the_registers_is_loaded_again() -> None:
    """Groups of steps begin with a fence, and read nothing that was loaded before it."""
    graph = _graph("c h w+s, o c s -> o h w", (32, 14, 32), (64, 32, 5))
    kernel = build_program(graph, target=AVX512).kernels[-1]
    body = _innermost(kernel.body)
    starts = [i for i, s in enumerate(body) if isinstance(s, Fence)]
    assert len(starts) > 1 and starts[0] < min(i for i, s in enumerate(body) if isinstance(s, Load))
    loaded = [(s.buffer.name, s.index) for s in body if isinstance(s, Load)]
    assert len(loaded) > len(set(loaded))


@pytest.mark.parametrize("target", [AVX2, AVX512], ids=["avx2", "avx512"])
@pytest.mark.parametrize(
    "graph",
    [
        FIVE,
        _graph("c 2h+r 2w+s, o c r s -> o h w", (3, 117, 117), (64, 3, 7, 7)),
        _graph("c h+r w, o c r -> o h w", (64, 30, 30), (64, 64, 3)),
        _graph("i k, k j -> i j", (512, 512), (512, 512)),
    ],
    ids=["5x5", "7x7 strided", "3x1", "product"],
)
def test_sums_stay_in_registers(graph: Graph, target: Target) -> None:
    """The back end, which moves instructions within a body, stores no vector on the stack in its loop."""
    with scope(minimal_filtering=False):
        kernel = build_program(graph, target=target).kernels[-1]
    blocks = re.split(r"\n\.LBB", build_assembly(emit_kernel(kernel, target), target))
    body = max(blocks, key=lambda block: block.count("vfmadd"))
    assert body.count("vfmadd") >= 36
    assert not re.findall(r"%[yz]mm\d+, -?\d*\(%r[sb]p\)", body)


TARGETS = {**runnable(), "few registers": replace(host_target(), registers=12)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("g h+r w+s, g r s -> g h w", ((5, 14, 21), (5, 3, 3))),
        ("b g h+r w+s, g r s -> b g h w", ((3, 4, 11, 12), (4, 5, 2))),
        ("g 2h+r 2w+s, g r s -> g h w", ((3, 19, 33), (3, 3, 3))),
        ("c h+r w+s, o c r s -> o h w", ((2, 12, 13), (4, 2, 3, 3))),
        ("h+r, r -> h", ((70,), (5,))),
    ],
)
def test_results(target: str, spec: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    graph = _graph(spec, *shapes)
    rng = np.random.default_rng(1)
    arrays = [rng.integers(-3, 4, n.shape).astype(np.float32) for n in graph.inputs]
    np.testing.assert_array_equal(run(graph, arrays, TARGETS[target])[0], evaluate(graph, arrays)[0])
