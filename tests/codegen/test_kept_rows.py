"""Kernels that go over a row several times: what they keep of it, in which loops, and that results stay right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from graphc.codegen.kernel import For, Load, Stmt, Store
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.prepare import prepare
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.schedule_verify import verify_fused
from graphc.ir.types import DTYPES, TensorType, f32, f64, i64
from graphc.passes.autodiff import vjp
from graphc.passes.drafts import MAX_OWN
from graphc.pipeline import build_program, schedule
from tests.codegen.programs import run, same_bits
from tests.codegen.targets import AVX2, AVX512, SSE2, runnable

TARGETS = runnable()
NARROW = [name for name in TARGETS if name not in ("one core", "many cores", "small caches")]
BY_NAME = {d.name: d for d in DTYPES}


def _spread(b: Builder, reduced: Node, like: Node) -> Node:
    return b.expand_dims(reduced, (like.type.rank - 1,), like.shape)


def _softmax(b: Builder, x: Node) -> tuple[Node, Node]:
    """The exponentials and what they are once divided by their sums."""
    last = (x.type.rank - 1,)
    powers = b.exp(b.sub(x, _spread(b, b.reduce_max(x, last), x)))
    return powers, b.div(powers, _spread(b, b.reduce_sum(powers, last), x))


def softmax(b: Builder, x: Node) -> tuple[Node, ...]:
    return _softmax(b, x)[1:]


def softmax_with_its_exponentials(b: Builder, x: Node) -> tuple[Node, ...]:
    return _softmax(b, x)


def softmax_without_maximum(b: Builder, x: Node) -> tuple[Node, ...]:
    powers = b.exp(b.mul(x, 0.25))
    return (b.div(powers, _spread(b, b.reduce_sum(powers, (x.type.rank - 1,)), x)),)


def log_softmax(b: Builder, x: Node) -> tuple[Node, ...]:
    last = (x.type.rank - 1,)
    low = b.sub(x, _spread(b, b.reduce_max(x, last), x))
    return (b.sub(low, _spread(b, b.log(b.reduce_sum(b.exp(low), last)), x)),)


def _gradient(make: Callable[[Builder, Node], tuple[Node, ...]]) -> Callable[[Builder, Node], tuple[Node, ...]]:
    def gradient(b: Builder, x: Node) -> tuple[Node, ...]:
        cotangent = b.input(1, x.type)
        (found,) = vjp(b, make(b, x), (cotangent,), (x,))
        assert found is not None
        return (found,)

    gradient.__name__ = f"{make.__name__}_gradient"
    return gradient


def flipped(b: Builder, x: Node) -> tuple[Node, ...]:
    """Elements of a row are read in another order than they are stored."""
    (y,) = softmax(b, x)
    z = b.exp(y)
    backwards = b.slice(z, (0,) * (x.type.rank - 1) + (x.shape[-1] - 1,), x.shape, (1,) * (x.type.rank - 1) + (-1,))
    return (b.mul(b.add(z, backwards), _spread(b, b.reduce_sum(z, (x.type.rank - 1,)), x)),)


def first_of_row(b: Builder, x: Node) -> tuple[Node, ...]:
    """One element of a kept row is wanted by all others."""
    (y,) = softmax(b, x)
    first = b.slice(y, (0,) * x.type.rank, (*x.shape[:-1], 1), (1,) * x.type.rank)
    wide = b.broadcast(first, x.shape)
    return (b.sub(b.mul(y, 3.0), wide), b.reduce_max(b.mul(y, wide), (x.type.rank - 1,)))


def two_rows(b: Builder, x: Node) -> tuple[Node, ...]:
    """Two kept rows, the second made of the first."""
    last = (x.type.rank - 1,)
    powers, y = _softmax(b, x)
    z = b.exp(b.mul(y, powers))
    return (b.div(b.add(z, y), _spread(b, b.reduce_sum(z, last), x)), b.reduce_max(z, last))


KERNELS: dict[Callable[[Builder, Node], tuple[Node, ...]], int] = {
    softmax: 1,
    softmax_with_its_exponentials: 1,
    softmax_without_maximum: 1,
    log_softmax: 1,
    _gradient(softmax): 1,
    _gradient(log_softmax): 1,
    flipped: 1,
    first_of_row: 1,
    two_rows: 1,
}


def graph_of(make: Callable[[Builder, Node], tuple[Node, ...]], shape: tuple[int, ...], dtype: str = "f32") -> Graph:
    b = Builder()
    outputs = make(b, b.input(0, TensorType(BY_NAME[dtype], shape)))
    found = {n.attr("index"): n for n in Graph((), outputs).nodes if n.op == "input"}
    return Graph(tuple(found[i] for i in sorted(found)), outputs)  # type: ignore[type-var]


def arrays_of(graph: Graph, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n.shape).astype(n.dtype.numpy) for n in graph.inputs]


def check(graph: Graph, arrays: list[np.ndarray], got: list[np.ndarray]) -> None:
    """Compare with the reference in f64; exactly where there are no floats."""
    for g, e in zip(got, evaluate(graph, arrays, floats=f64), strict=True):
        assert g.shape == e.shape
        if g.dtype.kind in "iub":
            assert (g == e).all()
            continue
        precision = float(ml_dtypes.finfo(g.dtype).eps)
        with np.errstate(over="ignore"):
            wanted = e.astype(g.dtype).astype(np.float64)
        scale = max(1.0, float(np.abs(np.where(np.isfinite(wanted), wanted, 0)).max(initial=0)))
        np.testing.assert_allclose(g.astype(np.float64), wanted, rtol=40 * precision, atol=40 * precision * scale)


def loops(statements: tuple[Stmt, ...]) -> list[For]:
    return [s for s in statements if isinstance(s, For)]


@pytest.mark.parametrize("target", [SSE2, AVX2, AVX512], ids=["sse2", "avx2", "avx512"])
@pytest.mark.parametrize("make", KERNELS, ids=lambda f: f.__name__.strip("_"))
def test_one_kernel_for_each(make: Callable[[Builder, Node], tuple[Node, ...]], target: object) -> None:
    graph = graph_of(make, (64, 512))
    fused = schedule(graph, target)  # type: ignore[arg-type]
    verify_fused(fused)
    program = build_program(graph, target=target)  # type: ignore[arg-type]
    for kernel in program.kernels:
        verify_kernel(kernel)
    assert len(fused.groups) == KERNELS[make]
    assert any(k.own for k in program.kernels) == (make not in (log_softmax, softmax_with_its_exponentials))


def test_a_softmax_is_four_loops_and_computes_each_exponential_once() -> None:
    (kernel,) = build_program(graph_of(softmax, (64, 512)), target=AVX2).kernels
    maximum, powers, total, quotient = loops(kernel.body)
    assert [len(loop.phis) for loop in (maximum, powers, total, quotient)] == [4, 0, 4, 0]
    stores = [s.buffer.mode for s in (*powers.body, *quotient.body) if isinstance(s, Store)]
    assert stores == ["own", "out"]
    assert [(p.dtype.name, p.size) for p in kernel.own] == [("f32", 512)]
    assert print_kernel(kernel).count(" scale ") == 1  # one in each exponential


def _cheap_row(b: Builder, dtype: str) -> Graph:
    """A row that takes many operations, none of them costly, and is reduced twice."""
    x, y, z = (b.input(k, TensorType(BY_NAME[dtype], (40, 70))) for k in range(3))
    row = b.mul(b.add(b.mul(x, y), b.mul(y, z)), b.sub(b.mul(x, z), b.add(x, b.apply("maximum", (y, z)))))
    row = b.add(b.mul(row, row), b.mul(b.mul(row, x), b.sub(row, y)))
    return Graph((x, y, z), (b.sub(row, _spread(b, b.reduce_max(row, (1,)), row)), b.reduce_sum(row, (1,))))


def test_cheap_rows_are_reduced_in_the_loop_that_stores_them() -> None:
    (kernel,) = build_program(_cheap_row(Builder(), "f32"), target=AVX2).kernels
    first, second = loops(kernel.body)
    assert [len(first.phis), len(second.phis)] == [8, 0]  # both reductions, four vectors of each
    own = [s for s in first.body if isinstance(s, Store)]
    assert len(own) == 4
    assert not any(isinstance(s, Load) and s.buffer is own[0].buffer for s in first.body)


def test_what_is_stored_anyway_is_read_again_from_there() -> None:
    (kernel,) = build_program(graph_of(softmax_with_its_exponentials, (64, 512)), target=AVX2).kernels
    assert not kernel.own
    assert print_kernel(kernel).count(" scale ") == 1


@pytest.mark.parametrize("target", NARROW)
@pytest.mark.parametrize(
    "shape",
    [
        (33, 17),
        (17, 1029),
        pytest.param((3, 1), marks=pytest.mark.slow),
        pytest.param((2, 3, 45), marks=pytest.mark.slow),
        pytest.param((20, 100), marks=pytest.mark.slow),
        pytest.param((1, 64), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("make", KERNELS, ids=lambda f: f.__name__.strip("_"))
def test_results(make: Callable[[Builder, Node], tuple[Node, ...]], shape: tuple[int, ...], target: str) -> None:
    graph = graph_of(make, shape)
    arrays = arrays_of(graph)
    check(graph, arrays, run(graph, arrays, TARGETS[target]))


@pytest.mark.parametrize("dtype", ["f64", "f16", "bf16"])
@pytest.mark.parametrize("make", KERNELS, ids=lambda f: f.__name__.strip("_"))
def test_results_in_other_types(make: Callable[[Builder, Node], tuple[Node, ...]], dtype: str) -> None:
    for shape in ((19, 83), (3, 256)):
        graph = graph_of(make, shape, dtype)
        arrays = arrays_of(graph)
        check(graph, arrays, run(graph, arrays))


@pytest.mark.parametrize("dtype", ["i32", "i64", "i16"])
def test_integers(dtype: str) -> None:
    graph = _cheap_row(Builder(), dtype)
    rng = np.random.default_rng(3)
    arrays = [rng.integers(-9, 9, n.shape).astype(n.dtype.numpy) for n in graph.inputs]
    assert len(schedule(graph, AVX2).groups) == 1
    check(graph, arrays, run(graph, arrays))


@pytest.mark.parametrize("target", TARGETS)
def test_rows_with_nan_and_infinities(target: str) -> None:
    x = np.random.default_rng(5).standard_normal((9, 77)).astype(np.float32)
    x[0, 3] = np.nan
    x[1, 76] = np.inf
    x[2] = -np.inf
    x[3, :40] = -np.inf
    x[4] = np.inf
    x[5] = np.nan
    x[6] = 3e38
    for make in (softmax, log_softmax, two_rows):
        graph = graph_of(make, x.shape)
        check(graph, [x], run(graph, [x], TARGETS[target]))


def test_long_rows_are_kept_where_the_result_is_or_not_at_all() -> None:
    length = MAX_OWN // 4
    assert len(schedule(graph_of(softmax, (200, length)), AVX2).groups) == 1
    assert len(schedule(graph_of(softmax, (200, length + 1)), AVX2).groups) == 2
    assert len(schedule(graph_of(softmax_with_its_exponentials, (200, length + 1)), AVX2).groups) == 1
    for make in (softmax, softmax_with_its_exponentials):
        graph = graph_of(make, (17, length + 1))
        arrays = arrays_of(graph)
        check(graph, arrays, run(graph, arrays))


def test_few_long_rows_stay_for_several_cores() -> None:
    assert len(schedule(graph_of(softmax, (4, 8192)), AVX2).groups) == 4


def test_columns_are_not_kept() -> None:
    """The row of a column-wise softmax would not lie together in memory."""
    b = Builder()
    x = b.input(0, TensorType(BY_NAME["f32"], (300, 64)))
    powers = b.exp(x)
    graph = Graph((x,), (b.div(powers, b.expand_dims(b.reduce_sum(powers, (0,)), (0,), x.shape)),))
    assert not any(g.kept for g in schedule(graph, AVX2).groups)
    arrays = arrays_of(graph)
    check(graph, arrays, run(graph, arrays))


def test_several_dimensions_are_one_row() -> None:
    b = Builder()
    x = b.input(0, TensorType(BY_NAME["f32"], (12, 7, 5, 30)))
    powers = b.exp(x)
    total = b.reduce_sum(powers, (2, 3))
    graph = Graph((x,), (b.div(powers, b.expand_dims(total, (2, 3), x.shape)),))
    (kernel,) = build_program(graph, target=AVX2).kernels
    assert [p.size for p in kernel.own] == [150]
    arrays = arrays_of(graph)
    for target in TARGETS.values():
        check(graph, arrays, run(graph, arrays, target))


def test_elements_of_a_row_taken_at_indices() -> None:
    """The softmax of a row, and of that the elements that another tensor names."""
    b = Builder()
    x = b.input(0, TensorType(BY_NAME["f32"], (25, 90)))
    index = b.input(1, TensorType(i64, (25, 40)))
    (y,) = softmax(b, x)
    graph = Graph((x, index), (b.mul(b.apply("take_along", (y, index), {"axis": 1}), 2.0), b.reduce_sum(y, (1,))))
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal((25, 90)).astype(np.float32), rng.integers(0, 90, (25, 40))]
    for target in TARGETS.values():
        check(graph, arrays, run(graph, arrays, target))


def test_rows_that_would_run_badly_are_computed_again() -> None:
    """Many short rows run better with rows across the lanes: nothing is kept then."""
    fused = schedule(graph_of(softmax, (4096, 18)), AVX512)
    for group in fused.groups:
        plain = prepare(replace(group, kept=()), AVX512)
        chosen = prepare(group, AVX512)
        assert bool(chosen.group.kept) == (chosen.schedule.lane is None)
        assert chosen.group.kept or chosen.schedule.lane is plain.schedule.lane or plain.schedule.lane is not None


@pytest.mark.parametrize(("shape", "dtype"), [((2048, 1024), "f32"), ((4096, 512), "f64")])
def test_the_next_row_is_asked_for_where_the_work_is(shape: tuple[int, ...], dtype: str) -> None:
    (kernel,) = build_program(graph_of(softmax, shape, dtype), target=AVX2).kernels
    texts = [print_kernel(replace(kernel, body=(loop,))) for loop in loops(kernel.body)]
    assert [text.count("prefetch") for text in texts] == [0, 1, 0, 0]
    assert f"+ {shape[1]}]" in texts[1]


@pytest.mark.parametrize("shape", [(16, 1024), (4096, 64), (64, 16384)])
def test_nothing_is_asked_for_that_is_near_or_foreseen(shape: tuple[int, ...]) -> None:
    for kernel in build_program(graph_of(softmax, shape), target=AVX2).kernels:
        assert "prefetch" not in print_kernel(kernel)


def test_results_do_not_depend_on_how_rows_are_handed_out() -> None:
    graph = graph_of(two_rows, (700, 300))
    arrays = arrays_of(graph)
    first = run(graph, arrays, replace(TARGETS["one core"], cores=1))
    for cores in (2, 3):
        again = run(graph, arrays, replace(TARGETS["one core"], cores=cores))
        assert all(same_bits(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(("size", "stride"), [((2, 3), (1, 1)), ((3, 2), (2, 1)), ((3, 3), (1, 2))])
def test_places_before_a_row_are_not_places_in_it(size: tuple[int, int], stride: tuple[int, int]) -> None:
    """The gradient of an average over windows that overlap reads its row shifted, past both of its ends under masks."""
    b = Builder()
    rows, columns = 8, 6
    shape = (2, 3, stride[0] * (rows - 1) + size[0], stride[1] * (columns - 1) + size[1])
    x = b.input(0, TensorType(f32, (2, 3, rows, columns)), "x")
    each = b.elementwise("div", x, b.constant(6.0, x.type))
    wide = b.broadcast(b.reshape(each, (*x.shape, 1, 1)), (*x.shape, *size))
    attrs = {"shape": shape, "axes": (2, 3), "stride": stride, "dilation": (1, 1)}
    graph = Graph((x,), (b.apply("fold", (wide,), attrs),))
    arrays = arrays_of(graph)
    check(graph, arrays, run(graph, arrays))


def test_a_row_that_is_read_backwards_past_its_end() -> None:
    """Averages between their reflections: what lies behind the row is read from its fifth row up, under masks."""
    b = Builder()
    x = b.input(0, TensorType(f32, (2, 8, 12, 12)), "x")
    mean = b.elementwise("div", b.reduce_sum(x, (2, 3)), b.constant(144.0, TensorType(f32, (2, 8))))
    wide = b.broadcast(b.reshape(mean, (2, 8, 1, 1)), x.shape)
    windows = b.apply("window", (wide,), {"axes": (2, 3), "size": (2, 2), "stride": (2, 2), "dilation": (1, 1)})
    sums = b.reduce_sum(windows, (4, 5))
    before = b.slice(sums, (0, 0, 1, 0), (2, 8, 1, 6), (1, 1, -1, 1))
    behind = b.slice(sums, (0, 0, 4, 0), (2, 8, 1, 6), (1, 1, -1, 1))
    graph = Graph((x,), (b.concat((before, sums, behind), 2),))
    arrays = arrays_of(graph)
    check(graph, arrays, run(graph, arrays))
