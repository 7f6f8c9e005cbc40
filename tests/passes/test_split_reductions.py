"""Long reductions in parts: which are cut and how, and that the results stay."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import DTYPES, TensorType
from graphc.passes.fuse import fuse
from graphc.passes.split_reductions import SplitReductions
from graphc.pipeline import schedule
from tests.codegen.programs import run
from tests.codegen.targets import AVX512

BY_NAME = {d.name: d for d in DTYPES}


def reduction(shape: tuple[int, ...], axes: tuple[int, ...], op: str = "reduce_sum", dtype: str = "f32") -> Graph:
    b = Builder()
    x = b.input(0, TensorType(BY_NAME[dtype], shape))
    attrs = {"axes": axes, "ties": "even"} if op in ("reduce_max", "reduce_min") else {"axes": axes}
    return Graph((x,), (b.apply(op, (x,), attrs),))


def steps(graph: Graph) -> list[tuple[int, ...]]:
    """The shapes that reductions read, in order."""
    return [n.inputs[0].shape for n in graph.nodes if n.op.startswith("reduce")]


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((4096, 1024), (0,), [(64, 64, 1024), (64, 1024)]),  # rows are added up, part by part
        ((2, 2048, 512), (1,), [(2, 16, 128, 512), (2, 16, 512)]),
        ((4500, 512), (0,), [(60, 75, 512), (60, 512)]),
        ((4507, 512), (0,), [(563, 8, 512), (563, 512), (3, 512)]),  # a prime: eight rows at a time, and the rest
        ((1 << 20,), (0,), [(64, 1 << 14), (64,)]),  # parts for several cores
        ((32, 128, 128, 16), (0, 1, 2), [(32, 1, 128, 128, 16), (32, 16)]),
        ((4, 512, 512), (1, 2), [(4, 64, 4096), (4, 64)]),  # one axis is read from end to end
        ((1024, 1024), (1,), [(1024, 1024)]),  # rows are read in order as they are
        ((1024, 256), (0,), [(1024, 256)]),  # too short
    ],
)
def test_what_is_cut(shape: tuple[int, ...], axes: tuple[int, ...], expected: list[tuple[int, ...]]) -> None:
    graph = SplitReductions().run(reduction(shape, axes))
    assert steps(graph) == expected
    assert graph.outputs[0].type == reduction(shape, axes).outputs[0].type


@pytest.mark.parametrize(
    ("shape", "spec", "parts"),
    [((1 << 21,), "a, a -> ", [(64, 1 << 15)]), ((3, 1 << 19), "b a, b a -> b", [(3, 64, 1 << 13)])],
)
def test_long_inner_products_are_sums_in_parts(shape: tuple[int, ...], spec: str, parts: list[tuple[int, ...]]) -> None:
    b = Builder()
    x, y = (b.input(k, TensorType(BY_NAME["f32"], shape)) for k in (0, 1))
    graph = Graph((x, y), (b.contract(x, y, spec),))
    cut = SplitReductions().run(graph)
    assert steps(cut)[:1] == parts
    assert not any(n.op == "contract" for n in cut.nodes)
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(shape).astype(np.float32) for _ in (x, y)]
    np.testing.assert_allclose(run(graph, arrays)[0], (arrays[0].astype(float) * arrays[1]).sum(-1), rtol=1e-4)


@pytest.mark.parametrize(
    ("shapes", "spec", "dtype"),
    [
        (((1 << 21,),) * 2, "a, a -> ", "f16"),  # sums of exact products
        (((512, 4096), (4096, 512)), "a b, b a -> ", "f32"),
        (((2048, 1024), (1024,)), "a b, b -> a", "f32"),
        (((1 << 12,),) * 2, "a, a -> ", "f32"),
    ],
)
def test_other_products_stay(shapes: tuple[tuple[int, ...], ...], spec: str, dtype: str) -> None:
    b = Builder()
    x, y = (b.input(k, TensorType(BY_NAME[dtype], shape)) for k, shape in enumerate(shapes))
    graph = Graph((x, y), (b.contract(x, y, spec),))
    assert SplitReductions().run(graph) is graph


def test_a_graph_without_long_reductions_stays_the_same_object() -> None:
    for graph in (reduction((64, 64), (0,)), reduction((1024, 1024), (1,)), reduction((1 << 22,), (0,), dtype="f16")):
        assert SplitReductions().run(graph) is graph


def test_what_is_reduced_is_computed_where_it_is_read() -> None:
    """Products of two operands are not stored, but added up."""
    b = Builder()
    x, y = (b.input(k, TensorType(BY_NAME["f32"], (2048, 1024))) for k in (0, 1))
    graph = Graph((x, y), (b.reduce_sum(b.mul(x, y), (0,)),))
    assert steps(SplitReductions().run(graph))[0] == (32, 64, 1024)
    assert max(t.type.size for g in schedule(graph, AVX512).groups for t in g.targets) == 32 * 1024


def test_a_short_last_step_is_not_repeated_for_each_reader() -> None:
    b = Builder()
    x = b.input(0, TensorType(BY_NAME["f32"], (1024, 4096)))
    graph = Graph((x,), (b.sub(x, b.expand_dims(b.reduce_max(x, (0,)), (0,), x.shape)),))
    groups = schedule(graph, AVX512).groups
    assert [g.targets[0].shape for g in groups] == [(128, 4096), (16, 4096), (4096,), (1024, 4096)]


def test_costly_elements_are_not_computed_for_several_rows_at_once() -> None:
    b = Builder()
    x = y = b.input(0, TensorType(BY_NAME["f32"], (2048, 1024)))
    for _ in range(5):
        y = b.exp(y)
    graph = Graph((x,), (b.reduce_max(y, (0,)),))
    assert SplitReductions().run(graph) is graph


@pytest.mark.parametrize("op", ["reduce_sum", "reduce_prod", "reduce_max", "reduce_min"])
@pytest.mark.parametrize(("shape", "axes"), [((1031, 517), (0,)), ((3, 1030, 2, 129), (1,)), ((4 * 131101,), (0,))])
@pytest.mark.parametrize("dtype", ["f32", "i64"])
def test_results(shape: tuple[int, ...], axes: tuple[int, ...], op: str, dtype: str) -> None:
    graph = reduction(shape, axes, op, dtype)
    assert SplitReductions().run(graph) is not graph
    rng = np.random.default_rng(0)
    x = rng.integers(-(1 << 40), 1 << 40, shape) if dtype == "i64" else 1 + 1e-3 * rng.standard_normal(shape)
    arrays = [x.astype(BY_NAME[dtype].numpy)]
    (got,), (expected,) = run(graph, arrays), evaluate(graph, arrays)
    if dtype == "i64":
        np.testing.assert_array_equal(got, expected)
    else:
        exact = evaluate(graph, arrays, floats=BY_NAME["f64"])[0]
        np.testing.assert_allclose(got, exact, rtol=2e-4)


def test_parts_keep_the_rules_of_groups() -> None:
    groups = fuse(SplitReductions().run(reduction((4096, 1024), (0,)))).groups
    assert [g.domain for g in groups] == [(4096, 1024), (1024,)]
