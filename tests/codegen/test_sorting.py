"""Kernels of orders: every dtype and length, ties, special values, any axis and any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen import sort_chunks, sorting
from graphc.codegen.kernel import For, If, Load, Op, Stmt, Store
from graphc.codegen.kernel_parser import parse_kernel
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.package import make_artifact, make_program
from graphc.codegen.sort_keys import Digits
from graphc.codegen.sort_network import compared, phases
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DTYPES, DType, TensorType, bf16, f16, f32, f64, i8, i64, u8
from graphc.passes.plan_memory import plan_memory
from graphc.passes.sort_values import SortValues
from graphc.pipeline import schedule
from graphc_runtime import Buffer, get_num_threads, set_num_threads
from graphc_runtime.devices import get_device
from graphc_runtime.executor import Executable
from tests.codegen.raw import artifact_of, program_for
from tests.codegen.targets import runnable

Rng = np.random.Generator
RUNNABLE = runnable()
LENGTHS = (0, 1, 2, 3, 17, 64, 1000)
SPECIAL = (np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0)


@pytest.fixture
def threads() -> Iterator[None]:
    before = get_num_threads()
    yield
    set_num_threads(before)


def elements(rng: Rng, shape: tuple[int, ...], dtype: DType, few: bool) -> np.ndarray:
    """Numbers over the whole range of `dtype`, or few different ones; floats with infinities, NaN and both zeros."""
    if dtype.kind == "bool":
        return rng.random(shape) < 0.5
    if not dtype.is_float:
        info = np.iinfo(dtype.numpy)
        made = rng.integers(info.min, info.max, shape, dtype.numpy, endpoint=True)
        return made % 5 if few else made
    made = rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 4, shape)
    made = np.where(rng.random(shape) < 0.2, rng.choice(SPECIAL, shape), np.round(made) if few else made)
    return made.astype(dtype.numpy)


def orders(arrays: list[np.ndarray], dtype: DType, axis: int) -> Graph:
    """The orders of all arrays, both ways, and their elements in these orders."""
    b = Builder()
    inputs = [b.input(i, TensorType(dtype, a.shape)) for i, a in enumerate(arrays)]
    attrs = [{"axis": axis, "descending": down} for down in (False, True)]
    return Graph(
        tuple(inputs), tuple(b.apply(op, (x,), a) for x in inputs for a in attrs for op in ("argsort", "sort"))
    )


def same(result: Buffer, node: Node, wanted: np.ndarray, message: str = "") -> None:
    """Equal, zeros of one sign too; any NaN is the same."""
    found = result.view(node.dtype.numpy, node.shape)
    if node.dtype.is_float:
        found, wanted = found.astype(np.float64), wanted.astype(np.float64)
        number = ~np.isnan(wanted)
        np.testing.assert_array_equal(np.signbit(found)[number], np.signbit(wanted)[number], err_msg=message)
    np.testing.assert_array_equal(found, wanted, err_msg=message)


def check(graph: Graph, arrays: list[np.ndarray], counts: tuple[int, ...] = (2,)) -> None:
    program = Executable(artifact_of(program_for(graph)), get_device("cpu"))
    expected = evaluate(graph, arrays)
    for count in counts:
        set_num_threads(count)
        results = program.run([Buffer.from_array(np.array(a, order="C")) for a in arrays])
        for node, result, wanted in zip(graph.outputs, results, expected, strict=True):
            same(result, node, wanted, f"{node.inputs} {count}")


@pytest.mark.parametrize("few", [False, True], ids=["different", "ties"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_single_rows(threads: None, dtype: DType, few: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = [elements(rng, (n,), dtype, few) for n in LENGTHS]
    check(orders(arrays, dtype, 0), arrays)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [f32, f64, f16, bf16, i64, u8], ids=str)
def test_rows_along_any_axis(threads: None, dtype: DType, axis: int) -> None:
    rng = np.random.default_rng(1)
    arrays = [elements(rng, shape, dtype, True) for shape in ((5, 3, 4), (19, 40, 7), (200, 2, 3), (3, 2, 333))]
    check(orders(arrays, dtype, axis), arrays, (1, 2, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_long_rows_are_sorted_in_chunks(threads: None, dtype: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "LONG", 0)
    monkeypatch.setattr(sort_chunks, "SHORTEST", 100)
    rng = np.random.default_rng(2)
    few = dtype in (f32, i64)
    arrays = [elements(rng, (n,), dtype, few) for n in (70_000, 1001)]
    graph = orders(arrays, dtype, 0)
    if host_target().cores > 1:
        assert len(program_for(graph).kernels) > 8
    check(graph, arrays, (1, 2, 3))


@pytest.mark.parametrize("dtype", [f64, f32, i8], ids=str)
def test_long_rows_without_chunks(threads: None, dtype: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "LONG", 1 << 60)
    arrays = [elements(np.random.default_rng(3), (70_000,), dtype, dtype is f32)]
    graph = orders(arrays, dtype, 0)
    assert len(program_for(graph).kernels) == 4
    check(graph, arrays)


@pytest.mark.parametrize("long", [0, 1 << 60], ids=["chunks", "whole"])
def test_elements_are_moved_in_pairs(long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both counters are read before one is written, and the second goes on behind the first where they are the same."""
    monkeypatch.setattr(sorting, "LONG", long)
    monkeypatch.setattr(sort_chunks, "SHORTEST", 100)
    b = Builder()
    x = b.input(0, TensorType(f32, (5001,)))
    graph = Graph((x,), (b.apply("sort", (x,), {"axis": 0, "descending": False}),))
    target = replace(host_target(), cores=2)
    program = make_program(schedule(graph, target), plan_memory, target)
    loops = [loop for k in program.kernels for loop in all_loops(k.body) if loop.step == 2]
    assert len(loops) == (4 if not long else 2)  # one for each digit, or one for all but the first
    for loop in loops:
        touched = [type(s) for s in loop.body if isinstance(s, Load | Store) and s.buffer.name == "counts"]
        assert touched == [Load, Load, Store, Store]
        assert [s.name for s in loop.body if isinstance(s, Op)].count("eq") == 1
    array = np.repeat(np.float32([3, -0.0, 0.0, -2, np.nan, 7, 5]), 720)[:5001]
    array = np.concatenate([array, np.float32([-0.0] * (5001 - len(array)))])
    (result,) = Executable(artifact_of(program), get_device("cpu")).run([Buffer.from_array(array)])
    same(result, graph.outputs[0], evaluate(graph, [array])[0])


def all_loops(body: tuple[Stmt, ...]) -> list[For]:
    """The loops of a kernel, at any depth."""
    found: list[For] = []
    todo = list(body)
    while todo:
        statement = todo.pop()
        if isinstance(statement, For):
            found.append(statement)
        if isinstance(statement, For | If):
            todo.extend(statement.body)
    return found


@pytest.mark.parametrize("shape", [(500,), (40, 300)])
def test_digits_that_all_elements_share_are_skipped(threads: None, shape: tuple[int, ...]) -> None:
    """In none, some and all of the passes; the parts of a 64-bit key too."""
    rng = np.random.default_rng(4)
    arrays = [rng.integers(0, 4, shape) << shift for shift in (0, 9, 30, 31, 33, 60, 62)]
    arrays += [np.full(shape, -7), (rng.integers(-2, 2, shape) << 40) + rng.integers(0, 2, shape)]
    check(orders(arrays, i64, len(shape) - 1), arrays)


@pytest.mark.share(2)
@pytest.mark.parametrize("few", [False, True], ids=["different", "ties"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parts_of_orders(threads: None, dtype: DType, few: bool) -> None:
    """Short and long rows, the ends of the order and its middle, in both directions, along any axis."""
    rng = np.random.default_rng(7)
    b, inputs, outputs, arrays = Builder(), [], [], []
    for shape, axis in (((3, 50), 1), ((3, 400), 1), ((2000,), 0), ((600, 2), 0), ((2, 1000, 3), 1), ((70_000,), 0)):
        n = shape[axis]
        arrays.append(elements(rng, shape, dtype, few))
        inputs.append(b.input(len(inputs), TensorType(dtype, shape)))
        for number, (start, count) in enumerate(((0, 1), (0, 7), (n // 2, 1), (n - 3, 3), (n // 3, n // 3), (0, n))):
            attrs = {"axis": axis, "descending": number % 2 == 0, "start": start, "count": count}
            outputs.append(b.apply("argselect", (inputs[-1],), attrs))
    check(Graph(tuple(inputs), tuple(outputs)), arrays)


# Each dtype on every other machine; `make fuzz` has the rest.
@pytest.mark.share(2)
@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        pytest.param(dtype, name, marks=[pytest.mark.slow] if (i + k) % 2 else [], id=f"{dtype}-{name}")
        for i, dtype in enumerate(DTYPES)
        for k, name in enumerate(RUNNABLE)
    ],
)
def test_the_first_few_places_of_long_rows(dtype: DType, name: str) -> None:
    """Rows of one number too, be it the largest or the smallest; none counts keys by their coarse digits."""
    rng, target = np.random.default_rng(8), RUNNABLE[name]
    n = 1003
    rows = [elements(rng, (3, n), dtype, few) for few in (False, True)]
    some = elements(rng, (n,), dtype, False)
    ends: tuple[object, ...] = SPECIAL if dtype.is_float else (False, True)
    if dtype.kind not in ("bool", "float"):
        ends = (np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max, 0)
    rows += [np.full((1, n), end, dtype.numpy) for end in ends]
    rows += [np.where(np.arange(n) % 300 == 7, some, row) for row in rows[2:]]
    array = np.concatenate(rows)
    b = Builder()
    x = b.input(0, TensorType(dtype, array.shape))
    counts = [1, 2, 5, target.lanes(4) * 4]
    parts = [{"axis": 1, "descending": down, "start": 0, "count": k} for down in (False, True) for k in counts]
    graph = Graph((x,), tuple(b.apply("argselect", (x,), part) for part in parts))
    program = make_program(schedule(graph, target), plan_memory, target)
    assert not any(p.name == "coarse" for kernel in program.kernels for p in kernel.params)
    results = Executable(artifact_of(program, target), get_device("cpu")).run([Buffer.from_array(array)])
    for result, node, wanted in zip(results, graph.outputs, evaluate(graph, [array]), strict=True):
        same(result, node, wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [2, 1000, 1 << 20, (1 << 31) + 1, 1 << 40])
def test_words_hold_keys_and_indices(dtype: DType, n: int) -> None:
    digits = Digits(dtype, n, n)
    assert digits.words * digits.word_bits >= (1 if dtype.kind == "bool" else dtype.bits)
    assert digits.word_bits + digits.index_bits < digits.packed.bits
    assert digits.passes * digits.width >= digits.word_bits
    assert n <= 1 << digits.index_bits


def test_kernels_keep_the_rules_and_have_a_text() -> None:
    for n, rows, dtype in ((5, 1, f32), (300, 1, f64), (100_000, 1, bf16), (20, 32, f32)):
        b = Builder()
        x = b.input(0, TensorType(dtype, (n, rows)))
        attrs = {"axis": 0, "descending": True}
        graph = Graph((x,), (b.apply("argsort", (x,), attrs), b.apply("sort", (x,), attrs)))
        for kernel in program_for(graph).kernels:
            verify_kernel(kernel)
            text = print_kernel(kernel)
            assert print_kernel(parse_kernel(text)) == text


def test_a_graph_of_orders_is_one_program() -> None:
    """What is sorted is computed before, values are taken after, without leaving native code."""
    b = Builder()
    x = b.input(0, TensorType(f32, (4, 600)))
    doubled = b.mul(x, 2.0)
    order = b.apply("argsort", (doubled,), {"axis": 1, "descending": False})
    places = b.apply("searchsorted", (b.apply("take_along", (doubled, order), {"axis": 1}), b.neg(x)), {"right": True})
    graph = Graph((x,), (places,))
    array = np.random.default_rng(5).standard_normal((4, 600)).astype(np.float32)
    got = Executable(artifact_of(program_for(graph)), get_device("cpu")).run([Buffer.from_array(array)])
    np.testing.assert_array_equal(got[0].view(np.int64, (4, 600)), evaluate(graph, [array])[0])


@pytest.mark.parametrize("right", [False, True])
def test_places_in_rows_that_are_out_of_order_or_end_in_nan(right: bool) -> None:
    """The same middles as the reference's are looked at."""
    rng = np.random.default_rng(6)
    for rows, x in (((33,), (5, 60)), ((3, 100), (3, 500)), ((2, 1), (2, 7))):
        b = Builder()
        nodes = tuple(b.input(i, TensorType(f32, shape)) for i, shape in enumerate((rows, x)))
        graph = Graph(nodes, (b.apply("searchsorted", nodes, {"right": right}),))
        for arrays in (
            [elements(rng, s, f32, True) for s in (rows, x)],
            [np.sort(elements(rng, s, f32, True)) for s in (rows, x)],
        ):
            got = Executable(artifact_of(program_for(graph)), get_device("cpu")).run(
                list(map(Buffer.from_array, arrays))
            )
            np.testing.assert_array_equal(got[0].view(np.int64, x), evaluate(graph, arrays)[0])


@pytest.mark.parametrize("name", RUNNABLE)
def test_other_machines(name: str) -> None:
    """Narrower vectors, one core and many: rows then go other ways."""
    rng = np.random.default_rng(8)
    arrays = [elements(rng, shape, f32, True) for shape in ((9,), (150,), (70_000,))]
    graph, target = orders(arrays, f32, 0), RUNNABLE[name]
    fused = schedule(graph, target)
    artifact = make_artifact(make_program(fused, plan_memory, target), target, {})
    results = Executable(artifact, get_device("cpu")).run(list(map(Buffer.from_array, arrays)))
    for node, result, wanted in zip(graph.outputs, results, evaluate(graph, arrays), strict=True):
        same(result, node, wanted)


def sorts(arrays: list[np.ndarray], dtype: DType, axis: int) -> Graph:
    """The elements of all arrays in order, both ways."""
    b = Builder()
    inputs = [b.input(i, TensorType(dtype, a.shape)) for i, a in enumerate(arrays)]
    attrs = [{"axis": axis, "descending": down} for down in (False, True)]
    return Graph(tuple(inputs), tuple(b.apply("sort", (x,), a) for x in inputs for a in attrs))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 100, 257])
def test_a_network_sorts_zeros_and_ones(n: int) -> None:
    """And then, by the 0-1 principle, everything. All of them up to 9 places, else random ones."""
    rng = np.random.default_rng(n)
    rows = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1 if n < 10 else rng.random((500, n)) < rng.random((500, 1))
    found, count = np.array(rows, np.int8), 0
    for size, start, distance in phases(n):
        i = np.array([i for i in range(n - distance) if i & size == start], int)
        count += len(i)
        low, high = found[:, i], found[:, i + distance]
        found[:, i], found[:, i + distance] = np.minimum(low, high), np.maximum(low, high)
    np.testing.assert_array_equal(found, np.sort(rows, axis=1))
    assert count == compared(n)


@pytest.mark.parametrize(
    "dtype", [d if d in (f32, f64, bf16, i8) else pytest.param(d, marks=pytest.mark.slow) for d in DTYPES], ids=str
)
def test_many_rows_are_sorted_in_the_lanes(threads: None, dtype: DType) -> None:
    """Rows to the last of a group and beyond, whole and partial vectors of each; neighbours where they are read so."""
    rng = np.random.default_rng(9)
    for shapes, axis in ((((37, 50), (16, 257), (2000, 16)), 1), (((3, 33, 16), (2, 5, 64)), 1)):
        arrays = [elements(rng, shape, dtype, few) for shape in shapes for few in (False, True)]
        graph = sorts(arrays, dtype, axis)
        check(graph, arrays, (1, 2))
        if host_target().lanes(8) > 2:
            assert all("keys" in {p.name for p in k.params} for k in program_for(graph).kernels)


@pytest.mark.parametrize("name", RUNNABLE)
def test_lanes_of_other_machines(name: str) -> None:
    rng = np.random.default_rng(10)
    target = RUNNABLE[name]
    for shape, axis, dtype in (((37, 50), 1, f32), ((3, 33, 16), 1, bf16), ((70, 20), 1, f64)):
        arrays = [elements(rng, shape, dtype, True)]
        graph = sorts(arrays, dtype, axis)
        fused = schedule(graph, target)
        artifact = make_artifact(make_program(fused, plan_memory, target), target, {})
        results = Executable(artifact, get_device("cpu")).run(list(map(Buffer.from_array, arrays)))
        for node, result, wanted in zip(graph.outputs, results, evaluate(graph, arrays), strict=True):
            same(result, node, wanted)


@pytest.mark.parametrize("n", [5, 1000])
def test_elements_are_sorted_without_indices_where_nobody_wants_these(n: int) -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (3, n)))
    order = b.apply("argsort", (x,), {"axis": 1, "descending": False})
    values = b.apply("take_along", (x, order), {"axis": 1})
    alone = SortValues().run(Graph((x,), (values,)))
    assert [node.op for node in alone.nodes] == ["input", "sort"]
    wider = {p.dtype for k in program_for(Graph((x,), (values,))).kernels for p in k.params if p.dtype.bits > 32}
    assert not wider  # neither indices nor keys packed with them
    both = Graph((x,), (values, order))
    assert SortValues().run(both) is both or "sort" not in [node.op for node in SortValues().run(both).nodes]
    other = b.apply("take_along", (b.neg(x), order), {"axis": 1})
    assert "sort" not in [node.op for node in SortValues().run(Graph((x,), (other,))).nodes]
