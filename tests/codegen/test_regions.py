"""Kernels that go along their first axis together: which ones do, and that no block is read before it is made."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen.llvm.program import Fill, Region
from graphc.codegen.package import Program
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.schedule_text import print_plan
from graphc.ir.types import TensorType, f32, f64
from graphc.pipeline import build_program
from tests.codegen.networks import training_step
from tests.codegen.programs import same_bits
from tests.codegen.raw import Entry, artifact_of, run_over
from tests.codegen.targets import AVX512, common

SMALL = replace(common(), l1_bytes=1024, l2_bytes=8192, cores=2)
LARGE = replace(SMALL, l2_bytes=1 << 30)


def regions(program: Program) -> list[Region]:
    return [step for step in program.steps if isinstance(step, Region)]


def arrays_of(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-2, 2, n.shape).astype(n.dtype.numpy) for n in graph.inputs]


def check(graph: Graph, target: Target = SMALL, atol: float = 1e-5) -> list[Region]:
    """Run the parts of every region in random order, over memory full of NaN; gives the regions."""
    program = build_program(graph, target=target)
    arrays = arrays_of(graph)
    expected = evaluate(graph, arrays, floats=f64)
    entry = Entry(artifact_of(program, target))
    for seed in range(2):
        outputs = run_over(entry, arrays, 0xFF, random.Random(seed) if seed else None)
        got = [
            o[: n.type.nbytes].view(n.dtype.numpy).reshape(n.shape) for o, n in zip(outputs, graph.outputs, strict=True)
        ]
        for value, wanted in zip(got, expected, strict=True):
            assert np.allclose(value, wanted, rtol=1e-4, atol=atol)
    return regions(program)


def along(extent: int, change: Callable[[Builder, Node], Node], inner: tuple[int, ...] = (6, 40)) -> Graph:
    """A softmax over the last axis, one over the one before, then `change` and both again: no row serves two."""
    b = Builder()
    x = b.input(0, TensorType(f32, (extent, *inner)), "x")
    return Graph((x,), (_both(b, change(b, _both(b, x))),))


def _both(b: Builder, x: Node) -> Node:
    return _softmax(b, _softmax(b, x), x.type.rank - 2)


def _softmax(b: Builder, x: Node, axis: int = -1) -> Node:
    axis %= x.type.rank
    kept = tuple(1 if a == axis else n for a, n in enumerate(x.shape))

    def wide(node: Node) -> Node:
        return b.broadcast(b.reshape(node, kept), x.shape)

    largest = b.apply("reduce_max", (x,), {"axes": (axis,), "ties": "even"})
    shifted = b.elementwise("exp", b.sub(x, wide(largest)))
    return b.elementwise("div", shifted, wide(b.apply("reduce_sum", (shifted,), {"axes": (axis,)})))


def test_kernels_along_one_axis_share_a_region_and_their_memory() -> None:
    graph = along(64, lambda b, x: x)
    (region,) = check(graph)
    whole = build_program(graph, target=LARGE)
    assert not regions(whole), "with a large cache there is nothing to gain"
    assert region.blocks == 64 and region.parts == 2
    assert len(region.steps) == len(whole.steps)
    program = build_program(graph, target=SMALL)
    assert program.plan.arena_bytes < whole.plan.arena_bytes / 4
    assert region.own_bytes * region.parts <= program.plan.arena_bytes
    text = print_plan(program.fused, program.plan)
    last = len(region.steps) - 1
    assert f"// region 0: kernels 0 to {last} by 64 blocks, {region.together} at once, in 2 parts" in text


def test_values_that_others_read_are_kept_whole() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (64, 6, 40)), "x")
    y = _both(b, x)
    z = _both(b, y)
    total = b.apply("reduce_sum", (y,), {"axes": (0, 1, 2)})
    found = check(Graph((x,), (z, y, total)))
    assert found and all(y not in m.places for m in build_program(Graph((x,), (z, y)), target=SMALL).plan.regions)


@pytest.mark.parametrize(
    "change",
    [
        lambda b, x: b.slice(x, (63, 0, 0), x.shape, (-1, 1, 1)),
        lambda b, x: b.permute(x, (1, 0, 2)),
        lambda b, x: b.sub(x, b.broadcast(b.apply("reduce_max", (x,), {"axes": (0,), "ties": "even"}), x.shape)),
    ],
    ids=["reversed", "transposed", "reduced"],
)
def test_blocks_that_need_others_end_a_region(change: Callable[[Builder, Node], Node]) -> None:
    found = check(along(64, change))
    longest = max((len(r.steps) for r in found), default=0)
    (whole,) = check(along(64, lambda b, x: x))
    assert 0 < longest < len(whole.steps)


@pytest.mark.parametrize("extent", [14, 15, 16, 17, 31, 64, 65])
def test_any_number_of_blocks(extent: int) -> None:
    machine = replace(SMALL, cores=4)
    found = check(along(extent, lambda b, x: b.mul(x, 3.0)), machine)
    assert bool(found) == (extent >= 16), "few blocks are unequal work for four threads"
    for region in found:
        assert region.blocks == extent and region.parts in (1, 4)


def test_what_all_blocks_read_is_not_read_again_for_each() -> None:
    """A product with weights larger than a block would fetch them anew for each one."""
    for outputs, joins in ((8, True), (400, False)):
        b = Builder()
        x = b.input(0, TensorType(f32, (64, 8, 40)), "x")
        w = b.input(1, TensorType(f32, (outputs, 40)), "w")
        product = b.contract(_both(b, x), w, "n m k, o k -> n m o")
        program = build_program(Graph((x, w), (_both(b, product),)), target=SMALL)
        inside = {n for m in program.plan.regions for n in m.places}
        assert any(n.op == "contract" for n in inside) == joins
        check(program.fused.graph)


@pytest.mark.parametrize(("rows", "goes_by_blocks"), [(1, False), (16, True)])
def test_a_contraction_does_not_fetch_all_weights_for_a_single_row(rows: int, goes_by_blocks: bool) -> None:
    """The classes of a language model: weights that leave the nearest cache, and a softmax of each row."""
    b = Builder()
    x, w = b.input(0, TensorType(f32, (2048 // rows, rows, 128))), b.input(1, TensorType(f32, (500, 128)))
    graph = Graph((x, w), (_softmax(b, b.contract(x, w, "n r k, c k -> n r c")),))
    target = replace(AVX512, cores=2)
    assert bool(regions(build_program(graph, target=target))) == goes_by_blocks


@pytest.mark.parametrize("batch", [72, 256])
def test_a_training_step_by_blocks(batch: int) -> None:
    """Results are those of whole kernels, with any number of parts, and memory is less."""
    target = replace(common(), l2_bytes=128 << 10, cores=2)
    graph = training_step(batch, picture=20, channels=(1, 4, 8))
    arrays = arrays_of(graph)
    found = []
    for machine in (target, replace(target, cores=1), replace(target, l2_bytes=1 << 30)):
        program = build_program(graph, target=machine)
        outputs = run_over(Entry(artifact_of(program, machine)), arrays, 0xFF, random.Random(batch))
        found.append((program, outputs))
    assert any(isinstance(step, Fill) for region in regions(found[0][0]) for step in region.steps)
    assert not regions(found[2][0])
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert same_bits(a, b)
    for a, b, node in zip(found[0][1], found[2][1], graph.outputs, strict=True):
        x, y = (o[: node.type.nbytes].view(node.dtype.numpy) for o in (a, b))
        assert np.allclose(x, y, rtol=1e-4, atol=1e-5)
    assert batch < 100 or found[0][0].plan.arena_bytes < 0.8 * found[2][0].plan.arena_bytes


@pytest.mark.parametrize("seed", [*range(14), *(pytest.param(n, marks=pytest.mark.slow) for n in range(14, 60))])
def test_random_kernels_along_an_axis(seed: int) -> None:
    rng = random.Random(seed)
    b = Builder()
    n = rng.choice((4, 8, 10, 16))
    x = b.input(0, TensorType(f32, (n, rng.choice((3, 8)), rng.choice((40, 65)))), "x")
    values = [x]
    for _ in range(rng.randint(4, 8)):
        values.append(_random_step(b, rng, rng.choice(values[-3:])))
    outputs = tuple(dict.fromkeys((values[-1], *rng.sample(values[1:], 1))))
    check(Graph((x,), outputs), replace(SMALL, l2_bytes=rng.choice((4096, 1 << 14)), cores=rng.choice((1, 2, 4))))


def _random_step(b: Builder, rng: random.Random, x: Node) -> Node:
    whole = tuple(0 for _ in x.shape)
    choice = rng.randrange(8)
    if choice == 0:
        return b.pad(x, (0, rng.randint(0, 1), 1), (0, 0, rng.randint(0, 2)), whole, 0.0)
    if choice == 1:
        return b.permute(x, (0, 2, 1))
    if choice == 2 and x.shape[0] == x.shape[1]:
        return b.permute(x, (1, 0, 2))
    if choice == 3 and x.shape[2] > 2:
        return b.slice(x, (0, 0, 1), (*x.shape[:2], x.shape[2] - 2), (1, 1, 1))
    if choice == 4:
        axis = rng.randrange(3)
        largest = b.apply("reduce_max", (x,), {"axes": (axis,), "ties": "even"})
        kept = tuple(1 if a == axis else n for a, n in enumerate(x.shape))
        return b.sub(x, b.broadcast(b.reshape(largest, kept), x.shape))
    if choice == 5:
        return b.slice(x, (x.shape[0] - 1, 0, 0), x.shape, (-1, 1, 1))
    return _softmax(b, b.mul(x, rng.choice((0.5, -1.5))), rng.choice((1, 2)))


def _depthwise(batch: int, channels: int, side: int = 33) -> Graph:
    """A convolution of each channel by itself, with padding: a sample does not fit the cache, a channel of it does. It
    reads each element so often that a padded copy is made.
    """
    b = Builder()
    x = b.input(0, TensorType(f32, (batch, channels, side, side)), "x")
    w = b.input(1, TensorType(f32, (channels, 7, 7)), "w")
    wide = b.pad(x, (0, 0, 3, 3), (0, 0, 3, 3))
    return Graph((x, w), (b.contract(wide, w, "b g h+r w+s, g r s -> b g h w"),))


@pytest.mark.parametrize(("batch", "channels"), [(4, 6), (3, 8), (1, 24)])
def test_blocks_may_be_places_of_two_axes(batch: int, channels: int) -> None:
    target = replace(SMALL, l2_bytes=1 << 15)
    (region,) = check(_depthwise(batch, channels), target)
    assert region.blocks == batch * channels and len(region.steps) == 3  # a fill, the padding, the convolution


def test_small_places_of_two_axes_are_no_blocks() -> None:
    assert not check(_depthwise(4, 64, 9), replace(SMALL, l2_bytes=1 << 15))


def test_what_is_handed_on_stays_in_the_nearest_cache() -> None:
    near = replace(SMALL, l1_bytes=1 << 15, l2_bytes=1 << 17)
    (region,) = check(_depthwise(4, 24), near)
    (further,) = check(_depthwise(4, 24), replace(near, l1_bytes=1024))
    assert region.together == 2 and further.together > 2


NEAR = replace(common(), l2_bytes=384 << 10, cores=2)
CLOSE = 1e-3  # of sums of 360 products of numbers up to two, which a tile mixes


def filtered(batch: int, rows: int, after: Callable[[Builder, Node], Node] = lambda b, x: x) -> Graph:
    """A 3x3 convolution of 40 channels, of which `minimal_filtering` takes tiles of four rows, and what follows it."""
    b = Builder()
    x = b.input(0, TensorType(f32, (batch, 40, rows, 24)), "x")
    w = b.input(1, TensorType(f32, (40, 40, 3, 3)), "w")
    y = b.contract(b.pad(x, (0, 0, 1, 1), (0, 0, 1, 1)), w, "b c h+r w+s, o c r s -> b o h w")
    return Graph((x, w), (after(b, y),))


@pytest.mark.parametrize(("batch", "rows"), [(1, 64), (4, 64), (5, 30), (1, 62)])
def test_rows_of_tiles_go_together(batch: int, rows: int) -> None:
    """What a row of tiles reads overlaps with its neighbours, and its results lie apart in every channel."""
    (region,) = check(filtered(batch, rows), NEAR, CLOSE)
    assert region.blocks == batch * -(-rows // 4) and len(region.steps) == 3
    program = build_program(filtered(batch, rows), target=NEAR)
    (memory,) = program.plan.regions
    assert {n.op for n in memory.places} == {"concat", "contract"}  # the transformed rows and their products


def test_what_blocks_store_in_several_places_is_zeroed_before() -> None:
    def padded(b: Builder, x: Node) -> Node:
        return b.pad(b.neg(x), (0, 0, 1, 1), (0, 0, 1, 1))

    graph = filtered(4, 64, padded)
    (region,) = check(graph, NEAR, CLOSE)
    assert not any(isinstance(step, Fill) for step in region.steps)
    steps = build_program(graph, target=NEAR).steps
    assert sum(isinstance(step, Fill) for step in steps) == 1


def test_what_lies_apart_is_read_when_all_blocks_are_done() -> None:
    found = check(filtered(4, 64, _softmax), NEAR, CLOSE)
    assert any(len(region.steps) == 3 and region.blocks == 64 for region in found)
