"""Sums over rows: rows are added to one in memory, in kernels that have other work with these rows too."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen.kernel import For, Load, Stmt, Store
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.llvm.host import host_target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.row_sums import choose_parts, cut_of, is_row_sum, row_sum_root
from graphc.ir.schedule_verify import verify_fused
from graphc.ir.types import TensorType, f32, f64
from graphc.passes.autodiff import vjp
from graphc.pipeline import build_program, schedule
from tests.codegen.programs import run, same_bits
from tests.codegen.targets import AVX2, runnable

Make = Callable[[Builder, Node], tuple[Node, ...]]
TARGETS = runnable()


def _spread(b: Builder, reduced: Node, like: Node) -> Node:
    return b.expand_dims(reduced, (like.type.rank - 1,), like.shape)


def _columns(b: Builder, x: Node) -> Node:
    """The sum over all axes but the last."""
    return b.reduce_sum(x, tuple(range(x.type.rank - 1)))


def _gradients(b: Builder, x: Node, form: Callable[[Node, Node, Node], Node]) -> tuple[Node, ...]:
    """`form` of `x` and of two parameters of a row's length, and its gradients."""
    w, c = (b.input(k, TensorType(x.dtype, x.shape[-1:])) for k in (1, 2))
    result = form(x, w, c)
    found = vjp(b, (result,), (b.input(3, result.type),), (x, w, c))
    return (result, *(n for n in found if n is not None))


def layer_norm(b: Builder, x: Node) -> tuple[Node, ...]:
    def form(x: Node, w: Node, c: Node) -> Node:
        last, n = (x.type.rank - 1,), 1 / x.shape[-1]
        off = b.sub(x, _spread(b, b.mul(b.reduce_sum(x, last), n), x))
        root = b.elementwise("sqrt", b.add(b.mul(b.reduce_sum(b.mul(off, off), last), n), 1e-5))
        scaled = b.mul(off, _spread(b, b.div(1.0, root), x))
        return b.add(b.mul(scaled, b.broadcast(w, x.shape)), b.broadcast(c, x.shape))

    return _gradients(b, x, form)


def rms_norm(b: Builder, x: Node) -> tuple[Node, ...]:
    def form(x: Node, w: Node, c: Node) -> Node:
        last, n = (x.type.rank - 1,), 1 / x.shape[-1]
        root = b.elementwise("sqrt", b.add(b.mul(b.reduce_sum(b.mul(x, x), last), n), 1e-5))
        return b.add(b.mul(b.div(x, _spread(b, root, x)), b.broadcast(w, x.shape)), b.broadcast(c, x.shape))

    return _gradients(b, x, form)


def softmax_of_biased(b: Builder, x: Node) -> tuple[Node, ...]:
    """Rows that are kept, and the gradient of a bias."""

    def form(x: Node, w: Node, c: Node) -> Node:
        last = (x.type.rank - 1,)
        shifted = b.add(b.mul(x, b.broadcast(w, x.shape)), b.broadcast(c, x.shape))
        powers = b.exp(b.sub(shifted, _spread(b, b.reduce_max(shifted, last), x)))
        return b.div(powers, _spread(b, b.reduce_sum(powers, last), x))

    return _gradients(b, x, form)


def hidden_layer(b: Builder, x: Node) -> tuple[Node, ...]:
    """The gradient behind a ReLU, which is stored, and that of the bias."""
    z = b.input(1, x.type)
    dz = b.select(b.apply("gt", (z, b.constant(0.0, z.type))), x, b.constant(0.0, x.type))
    return dz, _columns(b, dz)


def batch_norm(b: Builder, x: Node) -> tuple[Node, ...]:
    """The two sums that the gradient of a batch norm wants, and what is made of them."""
    g, mean = b.input(1, x.type), b.input(2, TensorType(x.dtype, x.shape[-1:]))
    off = b.sub(x, b.broadcast(mean, x.shape))
    shift, scale = _columns(b, g), _columns(b, b.mul(g, off))
    return shift, scale, b.sub(b.sub(g, b.broadcast(shift, x.shape)), b.mul(off, b.broadcast(scale, x.shape)))


def columns(b: Builder, x: Node) -> tuple[Node, ...]:
    return (_columns(b, x),)


# How many of the kernels read something large.
KERNELS: dict[Make, int] = {
    layer_norm: 1,
    rms_norm: 1,
    softmax_of_biased: 1,
    hidden_layer: 1,
    batch_norm: 2,
    columns: 1,
}
SHAPES = [(1024, 520), (64, 16, 515), (8, 140, 2, 260)]


def graph_of(make: Make, shape: tuple[int, ...], dtype: str = "f32") -> Graph:
    b = Builder()
    outputs = make(b, b.input(0, TensorType(f32 if dtype == "f32" else f64, shape)))
    found = {n.attr("index"): n for n in Graph((), outputs).nodes if n.op == "input"}
    return Graph(tuple(found[i] for i in sorted(found)), outputs)  # type: ignore[type-var]


def arrays_of(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(n.shape).astype(n.dtype.numpy) for n in graph.inputs]


def statements(body: tuple[Stmt, ...]) -> list[Stmt]:
    inner = [statements(s.body) for s in body if isinstance(s, For)]
    return [*body, *(s for found in inner for s in found)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", KERNELS, ids=lambda f: f.__name__)
def test_kernels_share_rows(make: Make, shape: tuple[int, ...]) -> None:
    graph = graph_of(make, shape)
    fused = schedule(graph, AVX2)
    verify_fused(fused)
    program = build_program(graph, target=AVX2)
    for kernel in program.kernels:
        verify_kernel(kernel)
    large = [k for k in program.kernels if any(p.mode == "in" and p.size == math.prod(shape) for p in k.params)]
    assert len(large) == KERNELS[make]


@pytest.mark.share(2)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", KERNELS, ids=lambda f: f.__name__)
def test_results(make: Make, shape: tuple[int, ...], target: str) -> None:
    graph = graph_of(make, shape)
    arrays = arrays_of(graph)
    for got, expected in zip(run(graph, arrays, TARGETS[target]), evaluate(graph, arrays, floats=f64), strict=True):
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6 * scale)


def test_results_of_f64() -> None:
    graph = graph_of(layer_norm, (512, 517), "f64")
    arrays = arrays_of(graph)
    for got, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11 * float(np.abs(expected).max()))


def test_a_second_run_adds_to_zeros() -> None:
    """What a run leaves in the memory of the sums is not what the next one begins with."""
    graph = graph_of(columns, (1024, 520))
    arrays = arrays_of(graph)
    first, second = (run(graph, arrays)[0] for _ in range(2))
    assert same_bits(first, second)


@pytest.mark.parametrize("make", [layer_norm, batch_norm], ids=lambda f: f.__name__)
def test_results_do_not_depend_on_the_number_of_threads(make: Make) -> None:
    graph = graph_of(make, (1040, 515))
    arrays = arrays_of(graph)
    one, *others = (run(graph, arrays, replace(host_target(), cores=cores)) for cores in (1, 2, 3, 64))
    for other in others:
        assert all(same_bits(a, b) for a, b in zip(one, other, strict=True))


def test_rows_are_added_in_the_loop_that_stores_them() -> None:
    """The gradients of a layer norm: the last of the loops over a row adds to both sums; no part shares them."""
    kernel = build_program(graph_of(layer_norm, (2048, 1024)), target=AVX2).kernels[0]
    sums = [p for p in kernel.params if p.mode == "inout"]
    assert [p.size for p in sums] == [32 * 1024] * 2
    assert kernel.grid == 32
    (rows,) = [s for s in kernel.body if isinstance(s, For)]
    last = rows.body[-1]
    assert isinstance(last, For)
    for param in sums:
        stores = [s for s in statements(kernel.body) if isinstance(s, Store) and s.buffer is param]
        loads = [s for s in statements(kernel.body) if isinstance(s, Load) and s.buffer is param]
        assert all(s in last.body for s in (*stores, *loads))
        assert len(stores) == len(loads) == 1


@pytest.mark.parametrize(("operands", "rows"), [(1, 8), (2, 4), (3, 2)])
def test_as_many_rows_at_once_as_can_be_read_in_order(operands: int, rows: int) -> None:
    b = Builder()
    inputs = [b.input(k, TensorType(f32, (2048, 1024))) for k in range(operands)]
    product = inputs[0]
    for x in inputs[1:]:
        product = b.mul(product, x)
    kernel = build_program(Graph(tuple(inputs), (b.reduce_sum(product, (0,)),)), target=AVX2).kernels[0]
    (loop,) = [s for s in kernel.body if isinstance(s, For)]
    assert loop.hi == 64 // rows
    (inner,) = [s for s in loop.body if isinstance(s, For)]
    loads = [s for s in inner.body if isinstance(s, Load)]
    sums = [s for s in loads if s.buffer.mode == "inout"]
    assert len(loads) - len(sums) == len(sums) * rows * operands


def test_costly_rows_are_computed_one_by_one() -> None:
    b = Builder()
    x = y = b.input(0, TensorType(f32, (2048, 1024)))
    for _ in range(16):
        y = b.exp(y)
    kernel = build_program(Graph((x,), (b.reduce_sum(y, (0,)),)), target=AVX2).kernels[0]
    (loop,) = [s for s in kernel.body if isinstance(s, For)]
    assert (loop.lo, loop.hi) == (0, 64)


def test_long_rows_do_not_share_a_kernel() -> None:
    """Sums over rows of 256 KB would not stay in a cache near the core while a row is gone through several times."""
    fused = schedule(graph_of(layer_norm, (256, 1 << 16)), AVX2)
    sums = [g for g in fused.groups if any(r.adds for r in g.roots)]
    assert sums
    assert all(r.adds for g in sums for r in g.roots)


def test_what_is_no_sum_over_many_rows() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (64, 64, 256)))
    assert is_row_sum(b.reduce_sum(x, (1,)))
    assert not is_row_sum(b.reduce_sum(x, (0,)))  # one part
    assert not is_row_sum(b.reduce_sum(x, (0, 2)))
    assert not is_row_sum(b.reduce_sum(x, (2,)))  # no rows
    assert not is_row_sum(b.apply("reduce_max", (x,), {"axes": (1,), "ties": "even"}))
    assert not is_row_sum(b.reduce_sum(b.slice(x, (0, 0, 0), (8, 64, 256), (1, 1, 1)), (1,)))  # short


def test_parts_are_cut_where_the_axes_of_a_kernel_can_be() -> None:
    assert choose_parts((4096,), 64) == 64
    assert choose_parts((8, 512), 64) == 64
    assert choose_parts((6, 35), 64) == 42
    assert choose_parts((4099,), 64) == 1
    b = Builder()
    x = b.input(0, TensorType(f32, (8, 512, 256)))
    first, second = (b.reduce_sum(b.reshape(x, (n, 4096 // n, 256)), (1,)) for n in (64, 16))
    roots = [row_sum_root(node) for node in (first, second)]
    assert [r.value for r in roots] == [x, x]
    again = row_sum_root(b.reduce_sum(b.apply("reshape", (b.reshape(x, (4096, 256)),), {"shape": (64, 64, 256)}), (1,)))
    assert [n.op for n in again.scatter] == ["reshape", "reshape", "reduce_sum"]
    assert [cut_of([r], x.shape) for r in roots] == [(1, 8), (1, 2)]
    with pytest.raises(ValueError, match="different parts"):
        cut_of(roots, x.shape)
