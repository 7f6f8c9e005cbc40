"""Row 9 of the reliability goals, through the whole compiler: special values on both sides of every operator, operands
that come through twelve kinds of views, every dimension 0, and shape ().
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from graphc.errors import GraphcError
from graphc.ir.builder import Builder
from graphc.ir.contraction import parse_spec
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.types import DType, TensorType, bf16, boolean, dtype_of_numpy, f16, f32, f64, i32, i64, u8
from tests.codegen.programs import difference, free_signs, run
from tests.samples import SAMPLES

DTYPES = (f32, f64, i32, i64, u8, boolean)
FLOATS = (0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 3.0e38, 1.0e-45, -1.2e-38)
BINARY = [name for name, op in OPS.items() if op.kind == "elementwise" and op.arity == 2]
UNARY = [name for name, op in OPS.items() if op.kind == "elementwise" and op.arity == 1 and not op.attrs]
PRECISION = {"f64": 1e-12, "f32": 1e-5, "f16": 1e-2, "bf16": 1e-1}
ADDING = ("reduction", "contraction", "indexing")
# The oracle computes these in steps of its own, so their last bits may differ.
INEXACT = {name for name, samples in SAMPLES.items() if not samples.exact}


def check(graph: Graph, arrays: Sequence[np.ndarray]) -> None:
    """Native results are the reference's: bit by bit, but for operators whose rounding is open.

    Those may be off by a part of the value itself, or for sums by a part of the largest.
    """
    inexact: set[Node] = set()
    for node in graph.nodes:
        if node.op in INEXACT or not inexact.isdisjoint(node.inputs):
            inexact.add(node)
    free, wrong = free_signs(graph), []
    sums = any(node.op == "fold" or OPS[node.op].kind in ADDING for node in graph.nodes)
    results = zip(run(graph, arrays), evaluate(graph, arrays), graph.outputs, strict=True)
    for k, (got, expected, node) in enumerate(results):
        bound: float | np.ndarray = 0.0
        if node in inexact and node.dtype.is_float:
            sizes = np.where(np.isfinite(expected), np.abs(expected.astype(np.float64)), 0.0)
            bound = (sizes.max(initial=0.0) if sums else sizes) * PRECISION[node.dtype.name] + 1e-44
        text = difference(got, expected, bound, node not in free)
        if text:
            wrong.append(f"output {k}, {node!r}: {text}")
    assert not wrong, "\n".join(wrong)


def values(dtype: DType) -> np.ndarray:
    """Ten values at which implementations go wrong."""
    if dtype.is_float:
        return np.array(FLOATS, dtype.numpy)
    if dtype is boolean:
        return np.array([False, True])
    info = np.iinfo(dtype.numpy)
    wanted = [0, 1, 2, 7, info.max, info.max - 1, info.min, info.min + 1, -1, -7]
    return np.array([v % 256 if dtype is u8 else v for v in wanted], dtype.numpy)


def accepts(op: str, *types: TensorType) -> bool:
    try:
        Builder().apply(op, tuple(Builder().input(i, t) for i, t in enumerate(types)))
    except GraphcError:
        return False
    return True


# special values


@pytest.mark.parametrize("op", UNARY)
def test_special_values_of_one_operand(op: str) -> None:
    """As an input, and as a constant that is folded."""
    b, inputs, outputs, arrays = Builder(), [], [], []
    for dtype in DTYPES:
        given = values(dtype)
        type = TensorType(dtype, given.shape)
        if accepts(op, type):
            inputs.append(b.input(len(inputs), type))
            arrays.append(given)
            outputs.append(b.apply(op, (inputs[-1],)))
            outputs += [b.apply(op, (b.constant(v.item(), type),)) for v in given]
    assert outputs
    check(Graph(tuple(inputs), tuple(outputs)), arrays)


@pytest.mark.parametrize("op", BINARY)
def test_special_values_in_both_orders(op: str) -> None:
    """Every pair of values; with one side a scalar of the graph, and a constant, on the left and on the right."""
    b, inputs, outputs, arrays = Builder(), [], [], []

    def feed(array: np.ndarray) -> Node:
        dtype = dtype_of_numpy(array.dtype)
        assert dtype is not None
        arrays.append(array)
        inputs.append(b.input(len(inputs), TensorType(dtype, array.shape)))
        return inputs[-1]

    for dtype in DTYPES:
        given = values(dtype)
        type = TensorType(dtype, given.shape)
        if not accepts(op, type, type):
            continue
        left, right = np.meshgrid(given, given)
        x, y = feed(left), feed(right)
        outputs += [b.apply(op, (x, y)), b.apply(op, (x, x))]
        some = feed(given)
        column = feed(given.reshape(-1, 1))
        wide = b.broadcast(column, left.shape)
        row = b.broadcast(some, left.shape)
        outputs += [b.apply(op, (wide, row)), b.apply(op, (row, wide))]
        for value in given:
            constant = b.constant(value.item(), type)
            outputs += [b.apply(op, (some, constant)), b.apply(op, (constant, some))]
    assert outputs
    check(Graph(tuple(inputs), tuple(outputs)), arrays)


# layouts: each gives a node of the array's type, and takes what it needs from new inputs

Feed = Callable[[np.ndarray], Node]
Layout = Callable[[Builder, Feed, np.ndarray], Node]


def _plain(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    return feed(a)


def _transposed(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    return b.permute(feed(a.T), tuple(reversed(range(a.ndim))))


def _rotated(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    perm = (*range(1, a.ndim), *range(min(a.ndim, 1)))
    return b.permute(feed(np.transpose(a, np.argsort(perm).astype(int)) if a.ndim else a), perm)


def _reversed(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    return b.flip(feed(np.flip(a)), tuple(range(a.ndim)))


def _strided(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    wide = np.repeat(a, 2, -1) if a.ndim else a
    return b.slice(feed(wide), (0,) * a.ndim, a.shape, (*(1,) * (a.ndim - 1), *(2,) * min(a.ndim, 1)))


def _inner(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    return b.slice(feed(np.pad(a, 1)), (1,) * a.ndim, a.shape, (1,) * a.ndim)


def _broadcast(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    return b.broadcast(feed(a[:1]), a.shape) if a.ndim and len(a) else b.broadcast(feed(a), a.shape)


def _scalar(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    return b.broadcast(feed(a.reshape(-1)[0]), a.shape) if a.size else feed(a)


def _flat(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    return b.reshape(feed(a.reshape(-1)), a.shape)


def _shuffled(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    """A reshape of a transposition, which is no view with strides."""
    return b.reshape(b.permute(feed(a.T.copy()), tuple(reversed(range(a.ndim)))), (a.size,) if a.ndim != 1 else a.shape)


def _halves(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    if not a.ndim or len(a) < 2:
        return feed(a)
    return b.concat((feed(a[: len(a) // 2]), feed(a[len(a) // 2 :])), 0)


def _gathered(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    if not a.ndim or not len(a):
        return feed(a)
    order = np.arange(len(a))[::-1].copy()
    return b.apply("gather", (feed(a[order]), feed(order)), {"axis": 0})


def _padded(b: Builder, feed: Feed, a: np.ndarray) -> Node:
    """Spread out and padded, then cut out again: other elements than at first."""
    wide = b.pad(feed(a), (1,) * a.ndim, (1,) * a.ndim, (1,) * a.ndim, 1)
    return b.slice(wide, (0,) * a.ndim, a.shape, (1,) * a.ndim)


LAYOUTS: tuple[Layout, ...] = (
    _plain, _transposed, _rotated, _reversed, _strided, _inner, _broadcast, _scalar, _flat, _shuffled, _halves,
    _gathered, _padded,
)  # fmt: skip


def laid_out(op: str, layouts: Sequence[Layout], which: Sequence[int]) -> tuple[Graph, list[np.ndarray]]:
    """Some samples of `op`, their operands given through `layouts`."""
    b, inputs, outputs, arrays = Builder(), [], [], []

    def feed(array: np.ndarray) -> Node:
        array = np.array(array, order="C")
        dtype = dtype_of_numpy(array.dtype)
        assert dtype is not None
        arrays.append(array)
        inputs.append(b.input(len(inputs), TensorType(dtype, array.shape)))
        return inputs[-1]

    samples = SAMPLES[op].make(np.random.default_rng(7))
    for number, layout in itertools.product(which, layouts):
        sample = samples[number % len(samples)]
        operands = [b.reshape(layout(b, feed, a), a.shape) for a in sample.arrays]
        outputs.append(sample.apply(b, op, operands))
    return Graph(tuple(inputs), tuple(outputs)), arrays


TAKING = [name for name in SAMPLES if OPS[name].arity != 0 and OPS[name].kind != "host"]
# These read operands in one way, whatever they compute: without the slow tests, each does so in a part of the layouts.
ALIKE = [name for name in TAKING if OPS[name].kind in ("elementwise", "composite")]
PARTS = 4


@pytest.mark.parametrize("op", [pytest.param(o, marks=pytest.mark.slow) if o in ALIKE else o for o in TAKING])
def test_operands_in_every_layout(op: str) -> None:
    check(*laid_out(op, LAYOUTS, (0, 1, 9)))


@pytest.mark.parametrize(("number", "op"), list(enumerate(ALIKE)), ids=ALIKE)
def test_operands_of_elementwise_operators_in_some_layouts(number: int, op: str) -> None:
    check(*laid_out(op, LAYOUTS[number % PARTS :: PARTS], (0, 1, 9)))


# zeros


EXTREMES = ("maximum", "reduce", "scan", "scatter_reduce")


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", [f16, bf16, f32, f64])
@pytest.mark.parametrize("kind", EXTREMES)
def test_positive_zeros_are_above_negative_ones(kind: str, dtype: DType, largest: bool) -> None:
    """In code for one element and for vectors, also where one operand is a constant; by the reference and native."""
    b, inputs, outputs, arrays, expected = Builder(), [], [], [], []
    rng = np.random.default_rng(5)
    suffix = "max" if largest else "min"
    winner, loser = (0.0, -0.0) if largest else (-0.0, 0.0)

    def feed(array: np.ndarray) -> Node:
        inputs.append(b.input(len(inputs), TensorType(i64 if array.dtype == np.int64 else dtype, array.shape)))
        arrays.append(array.astype(inputs[-1].dtype.numpy))
        return inputs[-1]

    for n in (1, 2, 7, 19):
        left, right = (np.where(rng.random((3, n)) < 0.7, loser, winner) for _ in range(2))
        x, y = feed(left), feed(right)
        wins = np.signbit(left) == np.signbit(winner), np.signbit(right) == np.signbit(winner)
        if kind == "maximum":
            outputs.append(b.elementwise(f"{suffix}imum", x, y))
            expected.append(wins[0] | wins[1])
            outputs.append(b.elementwise(f"{suffix}imum", x, loser))
            expected.append(wins[0])
        elif kind == "reduce":
            outputs += [b.apply(f"reduce_{suffix}", (x,), {"axes": (axis,), "ties": "even"}) for axis in (0, 1)]
            expected += [wins[0].any(axis) for axis in (0, 1)]
        elif kind == "scan":
            outputs += [b.scan(f"scan_{suffix}", x, axis) for axis in (0, 1)]
            expected += [np.logical_or.accumulate(wins[0], axis) for axis in (0, 1)]
        else:
            index = feed(np.zeros((3, n), np.int64))
            outputs.append(b.apply("scatter_reduce", (x, index, y), {"axis": 1, "mode": suffix}))
            expected.append(wins[0].copy())
            expected[-1][:, 0] |= wins[1].any(1)
    graph = Graph(tuple(inputs), tuple(outputs))
    for results in (run(graph, arrays), evaluate(graph, arrays)):
        for node, got, won in zip(outputs, results, expected, strict=True):
            wanted = np.where(won, winner, loser).astype(dtype.numpy)
            assert got.tobytes() == wanted.tobytes(), node


# sizes


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_padding_around_nothing_is_all_there_is(value: float) -> None:
    """Zeros around a value may be set at once and the value be stored among them."""
    b, inputs, outputs = Builder(), [], []
    for shape in ((0,), (4, 17, 0), (0, 20), (3, 0, 5)):
        inputs.append(b.input(len(inputs), TensorType(f32, shape)))
        ones = (1,) * len(shape)
        outputs += [b.pad(inputs[-1], ones, ones, value=value), b.pad(inputs[-1], ones, ones, ones, value)]
    check(Graph(tuple(inputs), tuple(outputs)), [np.zeros(x.shape, np.float32) for x in inputs])


SHAPES = ((), (0,), (0, 3), (3, 0), (0, 0), (2, 0, 3), (1, 1), (1, 0))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_elementwise_operators_of_every_small_shape(shape: tuple[int, ...]) -> None:
    b, inputs, outputs, arrays = Builder(), [], [], []
    for dtype in DTYPES:
        type = TensorType(dtype, shape)
        given = [np.resize(values(dtype)[k:], shape) for k in range(2)]
        operands = [b.input(len(inputs) + k, type) for k in range(2)]
        inputs += operands
        arrays += given
        for op in (*UNARY, *BINARY):
            arity = 1 if op in UNARY else 2
            if accepts(op, *[type] * arity):
                outputs.append(b.apply(op, tuple(operands[:arity])))
    check(Graph(tuple(inputs), tuple(outputs)), arrays)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__.strip("_"))
def test_layouts_of_every_small_shape(layout: Layout, shape: tuple[int, ...]) -> None:
    b, inputs, arrays = Builder(), [], []

    def feed(array: np.ndarray) -> Node:
        array = np.array(array, order="C")
        dtype = dtype_of_numpy(array.dtype)
        assert dtype is not None
        arrays.append(array)
        inputs.append(b.input(len(inputs), TensorType(dtype, array.shape)))
        return inputs[-1]

    x = b.reshape(layout(b, feed, np.resize(values(f32), shape)), shape)
    check(Graph(tuple(inputs), (x, b.add(x, 1.0), b.apply("materialize", (x,)))), arrays)


REDUCTIONS = [name for name, op in OPS.items() if op.kind == "reduction"]


@pytest.mark.parametrize("op", REDUCTIONS)
def test_reductions_over_every_dimension_of_size_zero(op: str) -> None:
    b, inputs, outputs, arrays = Builder(), [], [], []
    for dtype, shape in itertools.product((f32, i32, boolean), (*SHAPES, (20, 0), (0, 20), (20, 20))):
        x = b.input(len(inputs), TensorType(dtype, shape))
        inputs.append(x)
        arrays.append(np.resize(values(dtype), shape) if dtype is not f32 else np.resize(np.float32(1.5), shape))
        for count in range(len(shape) + 1):
            for axes in itertools.combinations(range(len(shape)), count):
                attrs = {"axes": axes, "ties": "even", "dtype": i64}
                given = {a.name: attrs[a.name] for a in OPS[op].attrs}
                try:
                    outputs.append(b.apply(op, (x,), given))  # type: ignore[arg-type]
                except GraphcError:
                    continue  # the operator has no value over nothing, or none of this dtype
    assert len(outputs) > 10
    check(Graph(tuple(inputs), tuple(outputs)), arrays)


CONTRACTIONS = ("m k, k n -> m n", "b m k, b k n -> b m n", "k, k -> ", "m, n -> m n", "b c h+r, o c r -> b o h")


@pytest.mark.parametrize("spec", CONTRACTIONS)
def test_contractions_with_every_label_of_size_zero_and_one(spec: str) -> None:
    parsed = parse_spec(spec)
    b, inputs, outputs, arrays = Builder(), [], [], []
    rng = np.random.default_rng(3)
    for zero, size in itertools.product(parsed.labels, (0, 1)):
        extents = {label: size if label == zero else 3 for label in parsed.labels}
        pair = []
        for dims in parsed.operands:
            shape = tuple(max(0, sum(extents[x] * c for x, c in dim) - (len(dim) - 1)) for dim in dims)
            pair.append(b.input(len(inputs), TensorType(f32, shape)))
            inputs.append(pair[-1])
            arrays.append(rng.standard_normal(shape).astype(np.float32))
        try:
            outputs.append(b.contract(*pair, spec))
        except GraphcError:
            assert "+" in spec, "only a window can be too large for what it slides over"
    assert len(outputs) >= len(parsed.labels)
    check(Graph(tuple(inputs), tuple(outputs)), arrays)
