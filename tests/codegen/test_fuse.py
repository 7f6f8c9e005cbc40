"""Fusion: how many kernels graphs become, and that groups keep the rules whatever the graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphc.ir.builder import Builder
from graphc.ir.demand import demands
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.schedule import FusedGraph
from graphc.ir.schedule_verify import reads_of, verify_fused
from graphc.ir.types import TensorType, f32, i64
from graphc.passes.autodiff import vjp
from graphc.passes.drafts import Draft, symbols
from graphc.passes.fuse import fuse
from graphc.passes.order import order, peak_bytes
from graphc.passes.stored import MAX_GROUP, MAX_PAIRS
from graphc.pipeline import build_program, optimize, schedule
from tests.codegen.networks import lenet, training_step
from tests.codegen.targets import AVX512, SSE2
from tests.fuzz.graphs import random_graph

ROWS, COLUMNS = 64, 48
WIDE = TensorType(f32, (ROWS, COLUMNS))


def _elementwise_chain(b: Builder, x: Node) -> tuple[Node, ...]:
    for _ in range(10):
        x = b.mul(b.add(x, 1.0), 0.5)
    return (x,)


def _diamond(b: Builder, x: Node) -> tuple[Node, ...]:
    y = b.exp(x)
    return (b.mul(b.add(y, 1.0), b.sub(y, 1.0)),)


def _softmax(b: Builder, x: Node) -> tuple[Node, ...]:
    most = b.expand_dims(b.reduce_max(x, (1,)), (1,), x.shape)
    powers = b.exp(b.sub(x, most))
    return (b.div(powers, b.expand_dims(b.reduce_sum(powers, (1,)), (1,), x.shape)),)


def _layer_norm(b: Builder, x: Node) -> tuple[Node, ...]:
    mean = b.expand_dims(b.mul(b.reduce_sum(x, (1,)), 1 / COLUMNS), (1,), x.shape)
    centred = b.sub(x, mean)
    square = b.mul(b.reduce_sum(b.mul(centred, centred), (1,)), 1 / COLUMNS)
    deviation = b.apply("sqrt", (b.add(square, 1e-5),))
    return (b.div(centred, b.expand_dims(deviation, (1,), x.shape)),)


def _linear_with_epilogue(b: Builder, x: Node) -> tuple[Node, ...]:
    w, bias = b.input(1, TensorType(f32, (32, COLUMNS))), b.input(2, TensorType(f32, (32,)))
    h = b.contract(x, w, "b i, o i -> b o")
    return (b.apply("tanh", (b.add(h, b.broadcast(bias, h.shape)),)),)


def _convolution_with_pooling(b: Builder, x: Node) -> tuple[Node, ...]:
    image = b.reshape(x, (1, 1, ROWS, COLUMNS))
    w = b.input(1, TensorType(f32, (4, 1, 3, 3)))
    h = b.contract(image, w, "b c h+r w+s, o c r s -> b o h w")
    h = b.select(b.elementwise("le", h, 0.0), 0.0, h)
    return (b.reduce_max(b.window(h, (2, 3), (2, 2), (2, 2), (1, 1)), (4, 5)),)


def _blocked_convolution_with_pooling(b: Builder, x: Node) -> tuple[Node, ...]:
    """The same with places of the batch last, which no window steps along."""
    image = b.reshape(x, (1, ROWS, COLUMNS // 16, 16))
    w = b.input(1, TensorType(f32, (4, 1, 3, 1)))
    h = b.contract(image, w, "c h+r w+s b, o c r s -> o h w b")
    return (b.reduce_max(b.window(h, (1,), (2,), (2,), (1,)), (4,)),)


def _two_products(b: Builder, x: Node) -> tuple[Node, ...]:
    w, v = b.input(1, TensorType(f32, (COLUMNS, 32))), b.input(2, TensorType(f32, (32, 16)))
    return (b.contract(b.contract(x, w, "a b, b c -> a c"), v, "a b, b c -> a c"),)


def _column_sum(b: Builder, x: Node) -> tuple[Node, ...]:
    return (b.reduce_sum(b.mul(x, x), (0,)),)


def _transposition(b: Builder, x: Node) -> tuple[Node, ...]:
    return (b.add(b.permute(x, (1, 0)), 1.0),)


def _siblings(b: Builder, x: Node) -> tuple[Node, ...]:
    return b.exp(x), b.log(x), b.add(x, 1.0)


def _many_updates(b: Builder, x: Node) -> tuple[Node, ...]:
    """Gradient descent on eight parameters of one shape, and on one of another."""
    types = [WIDE] * 7 + [TensorType(f32, (5,))]
    others = [b.input(1 + i, t) for i, t in enumerate(types)]
    steps = [b.input(9 + i, t) for i, t in enumerate([WIDE, *types])]
    return tuple(b.sub(p, b.mul(g, 0.1)) for p, g in zip((x, *others), steps, strict=True))


def _embedding(b: Builder, x: Node) -> tuple[Node, ...]:
    index = b.input(1, TensorType(i64, (10,)))
    rows = b.apply("gather", (x, index), {"axis": 0})
    return (b.mul(rows, 2.0), b.apply("index_add", (x, index, rows), {"axis": 0}))


# How many kernels each graph becomes. A change here is a change of what the compiler does: know why.
KERNELS: dict[Callable[[Builder, Node], tuple[Node, ...]], int] = {
    _elementwise_chain: 1,
    _diamond: 1,
    _softmax: 1,
    _layer_norm: 1,
    _linear_with_epilogue: 1,
    _convolution_with_pooling: 2,  # neighbours in a row are of one window: vectors run along the convolution's rows
    _blocked_convolution_with_pooling: 1,
    _two_products: 2,
    _column_sum: 1,
    _transposition: 1,
    _siblings: 3,
    _many_updates: 9,
    _embedding: 2,
}
STEPS: dict[tuple[str, int], tuple[int, int]] = {  # on AVX-512 and on SSE2
    ("small", 3): (22, 22),
    ("small", 16): (24, 24),
    ("small", 29): (26, 26),
    ("lenet", 4): (26, 28),
    ("lenet", 16): (28, 28),
    ("lenet", 60): (30, 32),  # past the smaller cache each block has gradients of its own, which are added up after
    ("lenet", 64): (28, 32),
}


def graph_of(make: Callable[[Builder, Node], tuple[Node, ...]]) -> Graph:
    b = Builder()
    outputs = make(b, b.input(0, WIDE))
    found = {n.attr("index"): n for n in Graph((), outputs).nodes if n.op == "input"}
    return Graph(tuple(found[i] for i in sorted(found)), outputs)  # type: ignore[type-var]


@pytest.mark.parametrize("make", KERNELS, ids=lambda f: f.__name__.strip("_"))
def test_kernel_counts(make: Callable[[Builder, Node], tuple[Node, ...]]) -> None:
    fused = schedule(graph_of(make), AVX512)
    verify_fused(fused)
    assert len(fused.groups) == KERNELS[make]


@pytest.mark.parametrize(("name", "batch"), STEPS)
def test_kernel_counts_of_training_steps(name: str, batch: int) -> None:
    graph = lenet(batch) if name == "lenet" else training_step(batch)
    found = []
    for target in (AVX512, SSE2):
        fused = schedule(graph, target)
        verify_fused(fused)
        found.append(len(fused.groups))
    assert tuple(found) == STEPS[name, batch]


def test_random_graphs_keep_the_rules() -> None:
    for seed in range(100):
        fused = fuse(optimize(random_graph(seed), AVX512))
        verify_fused(fused)
        check_groups(fused)
        ordered = order(fused)
        verify_fused(ordered)
        assert set(ordered.groups) == set(fused.groups)


def check_groups(fused: FusedGraph) -> None:
    for group in fused.groups:
        assert len({(r.target, r.part) for r in group.roots}) == len(group.roots) > 0
        for target in group.targets:
            parts = [r.part for r in group.roots if r.target is target]
            joined = next(r.scatter[0] if r.scatter else target for r in group.roots if r.target is target)
            assert parts == [-1] or sorted(parts) == list(range(len(joined.inputs)))
        assert sum(n.op == "contract" for n in group.inside) <= 1
        assert all(t.type.size or all(not s.type.size for s in group.targets) for t in group.targets)
        _, roots = symbols(Draft(list(group.roots), group.domain, 0))
        if len(group.roots) > 1:
            assert demands([(r.value, at) for r, at in roots], group.inside).maps <= MAX_GROUP


def test_fusing_is_deterministic() -> None:
    graph = optimize(training_step(16), AVX512)
    first, second = fuse(graph), fuse(graph)
    assert [g.targets for g in first.groups] == [g.targets for g in second.groups]
    assert [g.inside for g in first.groups] == [g.inside for g in second.groups]


@pytest.mark.parametrize("batch", [3, 16])
def test_the_order_of_kernels_lowers_the_peak(batch: int) -> None:
    fused = fuse(optimize(lenet(batch), AVX512))
    from_order = order(fused)
    reads = {g: reads_of(g) for g in fused.groups}
    assert peak_bytes(fused, from_order.groups, reads) <= peak_bytes(fused, fused.groups, reads)


def test_values_with_a_loop_of_readers_are_not_merged_into_a_cycle() -> None:
    """y depends on x through a contraction, and both are read by the last value: no kernel may hold x and the last."""
    b = Builder()
    x = b.input(0, TensorType(f32, (32, 32)))
    first = b.exp(x)
    through = b.contract(first, x, "a b, b c -> a c")
    graph = Graph((x,), (b.add(b.mul(first, 2.0), through),))
    fused = schedule(graph, AVX512)
    verify_fused(fused)
    assert len(fused.groups) == 2


def test_constants_are_in_no_memory_unless_asked_for() -> None:
    b = Builder()
    x = b.input(0, WIDE)
    fused = schedule(Graph((x,), (b.add(x, 2.5),)), AVX512)
    assert [t.op for g in fused.groups for t in g.targets] == ["add"]
    fused = schedule(Graph((), (b.constant(2.5, WIDE), b.iota(1, TensorType(i64, (3, 4))))), AVX512)
    assert sorted(t.op for g in fused.groups for t in g.targets) == ["constant", "iota"]


@pytest.mark.parametrize(("rows", "columns"), [(17, 33), (4, 100), (1, 3000)])
def test_a_tree_of_halves_is_cut_into_kernels_of_bounded_size(rows: int, columns: int) -> None:
    """The gradient of a product: each level of the tree reads the one below at two places, so in one kernel the reads
    double from level to level.
    """
    b = Builder()
    x = b.input(0, TensorType(f32, (rows, columns)))
    product = b.apply("reduce_prod", (x,), {"axes": (1,)})
    (gradient,) = vjp(b, [product], [b.constant(1.0, product.type)], [x])
    assert gradient is not None
    program = build_program(Graph((x,), (gradient,)), frozenset(), AVX512)
    for group in program.fused.groups:
        _, roots = symbols(Draft(list(group.roots), group.domain, 0))
        assert demands([(r.value, at) for r, at in roots], group.inside, limit=MAX_PAIRS).maps <= MAX_GROUP
    assert max(map(len, program.texts)) < 300_000


def test_the_gradient_of_a_product_is_computed_from_stored_levels() -> None:
    """Where elements of a level of the tree were chosen from all that those below may be, work grew with each."""
    b = Builder()
    x = b.input(0, TensorType(f32, (1000, 64)))
    product = b.apply("reduce_prod", (x,), {"axes": (1,)})
    (gradient,) = vjp(b, [product], [b.constant(1.0, product.type)], [x])
    assert gradient is not None
    kernels = build_program(Graph((x,), (gradient,)), frozenset(), AVX512).kernels
    assert sum(kernel.flops for kernel in kernels) < 50 * x.type.size


@pytest.mark.parametrize(
    ("heads", "size", "kernels"),
    [(64, (128, 64), 2), (2, (128, 64), 1), (64, (128, 1), 1), (64, (4, 8), 1)],
    ids=["tables", "few heads", "one for a row", "small"],
)
def test_what_all_heads_read_is_computed_once(heads: int, size: tuple[int, int], kernels: int) -> None:
    """The cosines of rotary embeddings are stored, unless that saves little or each is used for a whole row anyway."""
    b = Builder()
    x, angles = (
        b.input(0, TensorType(f32, (heads, *(n if n > 1 else 64 for n in size)))),
        b.input(1, TensorType(f32, size)),
    )
    graph = Graph((x, angles), (b.mul(x, b.broadcast(b.apply("cos", (angles,)), x.shape)),))
    fused = schedule(graph, AVX512)
    verify_fused(fused)
    assert len(fused.groups) == kernels


@pytest.mark.parametrize(("length", "domains"), [(10, [(4096,), (4096, 10)]), (100, [(4096,)])])
def test_reductions_of_short_rows_are_kernels_of_their_own(length: int, domains: list[tuple[int, ...]]) -> None:
    """Lanes run across the rows then, as they cannot where a row is gone through for each place."""
    b = Builder()
    x = b.input(0, TensorType(f32, (4096, length)))
    top = b.reduce_max(x, (1,))
    fused = schedule(Graph((x,), (top, b.sub(x, b.expand_dims(top, (1,), x.shape)))), AVX512)
    assert sorted(g.domain for g in fused.groups) == domains


@pytest.mark.parametrize("depth", [1, 12])
def test_what_pooling_spreads_is_computed_once(depth: int) -> None:
    """The gradient of a mean over windows of 2x2: a long sum is stored before each of its elements goes to four places,
    a short one is computed at each of them.
    """
    b = Builder()
    x = b.input(0, TensorType(f32, (4, 8, 16, 16)))
    y = x
    for k in range(depth):
        y = b.sub(b.mul(y, 0.5), b.input(k + 1, x.type))
    wide = b.expand_dims(y, (4, 5), (*y.shape, 2, 2))
    graph = Graph(
        tuple(b.input(k, x.type) for k in range(depth + 1)), (b.fold(wide, (4, 8, 32, 32), (2, 3), (2, 2), (1, 1)),)
    )
    fused = fuse(graph)
    verify_fused(fused)
    assert [t.op for g in fused.groups for t in g.targets] == (["fold"] if depth == 1 else ["sub", "fold"])


def test_pooling_spreads_parts_that_were_joined() -> None:
    """Parts go to their places in memory; read from a join, each element would be chosen among all of them."""
    b = Builder()
    x, z = (b.input(k, TensorType(f32, (4, 8, 4, 1, 16))) for k in (0, 1))
    parts = [b.sub(b.mul(x, float(k + 2)), b.mul(z, float(k + 3))) for k in range(4)]
    y = b.mul(b.reshape(b.concat(tuple(parts), 3), (4, 8, 16, 16)), 0.25)
    wide = b.expand_dims(y, (4, 5), (*y.shape, 2, 2))
    fused = fuse(Graph((x, z), (b.fold(wide, (4, 8, 32, 32), (2, 3), (2, 2), (1, 1)),)))
    verify_fused(fused)
    assert [t.op for g in fused.groups for t in g.targets] == ["concat", "fold"]


@pytest.mark.parametrize(("depth", "groups"), [(1, ["sub"]), (4, ["concat", "sub"])])
def test_parts_of_many_operations_are_stored_before_they_are_computed_further(depth: int, groups: list[str]) -> None:
    """As gradients of filters that are put together, and subtracted from the filters: else each element would be
    computed of all parts.
    """
    b = Builder()
    x, w = b.input(0, TensorType(f32, (64, 64, 3, 1))), b.input(1, TensorType(f32, (64, 64, 3, 3)))
    parts = [x, b.mul(x, 0.5), x]
    for k in range(depth):
        parts[1] = b.add(b.mul(parts[1], 0.5 + k), x)
    y = b.sub(w, b.mul(b.concat(tuple(parts), 3), 0.1))
    fused = fuse(Graph((x, w), (y,)))
    verify_fused(fused)
    assert [t.op for g in fused.groups for t in g.targets] == groups
