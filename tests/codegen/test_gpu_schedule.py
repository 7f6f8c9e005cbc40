"""Schedules for GPUs: what becomes a thread and what a block, what neighbours touch, and that results stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from graphc.codegen.cuda.emit import emit_kernel, launch_shape
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.cuda.program import device_steps, program_unit
from graphc.codegen.gpu_schedule import SECTOR, WARP
from graphc.codegen.kernel import Affine, For, Kernel, Load, Op, Store, Value, statements
from graphc.errors import GraphcError
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DTYPES, TensorType
from graphc.passes.split_reductions import SplitReductions
from graphc.pipeline import stage_text
from tests.codegen.gpu_programs import GPU, gpu_program, run_for_gpu

BY_NAME = {d.name: d for d in DTYPES}


def graph_of(make: Callable[..., Node | Sequence[Node]], *shapes: tuple[int, ...], dtype: str = "f32") -> Graph:
    """The graph that `make(builder, *inputs)` gives."""
    b = Builder()
    inputs = tuple(b.input(i, TensorType(BY_NAME[dtype], shape)) for i, shape in enumerate(shapes))
    made = make(b, *inputs)
    return Graph(inputs, (made,) if isinstance(made, Node) else tuple(made))


def total(axes: tuple[int, ...], op: str = "reduce_sum") -> Callable[[Builder, Node], Node]:
    attrs: dict[str, object] = {"axes": axes}
    if op in ("reduce_max", "reduce_min"):
        attrs["ties"] = "even"
    if op in ("argmax", "argmin"):
        attrs["dtype"] = BY_NAME["i64"]
    return lambda b, x: b.apply(op, (x,), attrs)  # type: ignore[arg-type]


def along(b: Builder, row: Node, shape: tuple[int, ...], axis: int) -> Node:
    """`row`, which lacks `axis`, as a value of `shape`."""
    return b.broadcast(b.reshape(row, tuple(1 if d == axis else n for d, n in enumerate(shape))), shape)


def softmax(b: Builder, x: Node, axis: int = -1) -> Node:
    axis %= x.type.rank
    top = b.apply("reduce_max", (x,), {"axes": (axis,), "ties": "even"})
    e = b.apply("exp", (b.sub(x, along(b, top, x.shape, axis)),))
    return b.apply("div", (e, along(b, b.reduce_sum(e, (axis,)), x.shape, axis)))


def layer_norm(b: Builder, x: Node, weight: Node, bias: Node) -> Node:
    last = x.type.rank - 1

    def mean(y: Node) -> Node:
        total = along(b, b.reduce_sum(y, (last,)), x.shape, last)
        return b.mul(total, b.constant(1 / x.shape[last], x.type))

    centred = b.sub(x, mean(x))
    deviation = b.apply("sqrt", (b.add(mean(b.mul(centred, centred)), b.constant(1e-5, x.type)),))
    rows = (b.broadcast(w, x.shape) for w in (weight, bias))
    return b.add(b.mul(b.apply("div", (centred, deviation)), next(rows)), next(rows))


def chain(b: Builder, x: Node, y: Node) -> Node:
    return b.apply("tanh", (b.mul(b.add(x, y), x),))


def accesses(kernel: Kernel) -> list[Load | Store]:
    return [s for s in statements(kernel.body) if isinstance(s, (Load, Store))]


def kernels(graph: Graph) -> tuple[Kernel, ...]:
    return gpu_program(graph).kernels


def places(kernel: Kernel, access: Load | Store, first: int = 0) -> list[int]:
    """The elements at which the threads of a warp begin an access outside of loops."""
    known: dict[Value, int] = {}
    simple: dict[str, Callable[[int, int], int]] = {
        "add": int.__add__,
        "sub": int.__sub__,
        "mul": int.__mul__,
        "floordiv": int.__floordiv__,
        "mod": int.__mod__,
    }

    def index(affine: Affine) -> int:
        return affine.const + sum(known[value] * coefficient for value, coefficient in affine.terms)

    found = []
    for thread in range(first, min(first + WARP, kernel.grid)):
        known = {kernel.index: thread}
        for statement in statements(kernel.body):
            if isinstance(statement, For):
                known[statement.var] = statement.lo if isinstance(statement.lo, int) else known[statement.lo]
            if not isinstance(statement, Op):
                continue
            if statement.name == "const" and isinstance(statement.attr, int):
                known[statement.result] = statement.attr
            elif statement.name in simple and all(a in known for a in statement.args):
                known[statement.result] = simple[statement.name](*(known[a] for a in statement.args))
        found.append(index(access.index))
    return found


def steps_of(access: Load | Store, found: Sequence[int]) -> set[int]:
    lanes = access.result.type.lanes if isinstance(access, Load) else access.value.type.lanes
    return {(b - a) // lanes if (b - a) % lanes == 0 else -1 for a, b in pairwise(found)}


# what becomes one kernel, and of which kind


def test_a_pointwise_chain_is_one_kernel_of_threads_with_wide_accesses() -> None:
    (kernel,) = kernels(graph_of(chain, (2048, 1024), (2048, 1024)))
    assert kernel.threads == 1
    assert kernel.grid * 4 == 2048 * 1024
    assert not any(isinstance(s, For) for s in kernel.body)
    assert [steps_of(a, places(kernel, a)) for a in accesses(kernel)] == [{1}] * 3
    assert {a.result.type.lanes for a in accesses(kernel) if isinstance(a, Load)} == {4}


@pytest.mark.parametrize("shape", [(1000003,), (3, 5), (1021, 1023)])
def test_what_vectors_do_not_divide_is_a_thread_for_each_element(shape: tuple[int, ...]) -> None:
    (kernel,) = kernels(graph_of(chain, shape, shape))
    assert kernel.grid == np.prod(shape)


def test_broadcasts_and_all_axes_are_in_the_grid() -> None:
    def add(b: Builder, x: Node, row: Node, column: Node) -> Node:
        return b.add(b.add(x, b.broadcast(row, x.shape)), b.broadcast(b.reshape(column, (64, 1, 1)), x.shape))

    (kernel,) = kernels(graph_of(add, (64, 33, 100), (100,), (64,)))
    assert kernel.grid == 64 * 33 * 100
    assert not any(isinstance(s, For) for s in kernel.body)
    for access in accesses(kernel):
        assert steps_of(access, places(kernel, access)) <= {0, 1}


@pytest.mark.parametrize("rows", [4096, 64])
@pytest.mark.parametrize("columns", [100, 1000, 1024, 8192])
def test_a_softmax_is_one_kernel_of_blocks_that_reads_its_rows_once(rows: int, columns: int) -> None:
    (kernel,) = kernels(graph_of(softmax, (rows, columns)))
    assert kernel.grid == rows
    assert WARP <= kernel.threads <= 1024
    loads = [a for a in accesses(kernel) if isinstance(a, Load)]
    assert len(loads) == -(-columns // kernel.threads)
    run = 4 if columns % (4 * kernel.threads) == 0 else 1  # of neighbours that a thread has
    assert all(a.stride == run for a in accesses(kernel))
    text = emit_kernel(kernel, GPU)
    assert text.count("= *(const gc_vector<float, 4>*)&p0") == (len(loads) // 4 if run == 4 else 0)
    assert text.count("  *(gc_vector<float, 4>*)&p1") == (len(loads) // 4 if run == 4 else 0)
    assert sum(isinstance(s, Op) and s.name.startswith("reduce") for s in kernel.body) == 2


@pytest.mark.parametrize("columns", [64, 100, 128])
@pytest.mark.parametrize("make", [softmax, total((1,)), total((1,), "reduce_max")], ids=["softmax", "sum", "maximum"])
def test_short_rows_have_a_warp_each_and_eight_share_a_block(make: Callable[..., Node], columns: int) -> None:
    """A block takes longer to begin than to go through so few elements."""
    (kernel,) = kernels(graph_of(make, (200_001, columns)))
    assert (kernel.threads, kernel.grid) == (WARP, 200_001)
    assert launch_shape(kernel) == (25_001, 8 * WARP, 0)
    text = emit_kernel(kernel, GPU)
    assert "blockIdx.x * 8 + (int)threadIdx.x / 32" in text and "__syncthreads" not in text


def test_few_short_rows_are_spread_over_multiprocessors() -> None:
    shapes = [launch_shape(kernels(graph_of(softmax, (rows, 64)))[0]) for rows in (100, 600, 1200)]
    assert shapes[0][0] == 100 and all(blocks * threads >= 64 * 100 // 2 for blocks, threads, _ in shapes)
    assert all(blocks >= 256 for blocks, _, _ in shapes[1:])


def test_long_rows_go_through_shared_memory_or_are_read_again() -> None:
    target = replace(GPU, registers=1 << 13)  # too few for the elements of a row
    program = gpu_program(graph_of(softmax, (512, 4096)), target)
    (kernel,) = program.kernels
    assert [p.size for p in kernel.own] == [4096]
    small = replace(target, l1_bytes=8 << 10)
    (kernel,) = gpu_program(graph_of(softmax, (512, 4096)), small).kernels
    assert not kernel.own


def test_a_layer_norm_is_one_kernel() -> None:
    (kernel,) = kernels(graph_of(layer_norm, (8, 512, 768), (768,), (768,)))
    assert kernel.grid == 8 * 512
    assert kernel.threads > 1


def test_short_rows_that_share_work_are_computed_by_a_thread() -> None:
    (kernel,) = kernels(graph_of(softmax, (100_000, 10)))
    assert (kernel.threads, kernel.grid) == (1, 100_000)
    exponentials = [s for s in kernel.body if isinstance(s, Store)]
    assert len(exponentials) == 10


def test_columns_are_summed_side_by_side_in_parts() -> None:
    first, second = kernels(graph_of(lambda b, x: b.reduce_sum(x, (0,)), (4096, 1024)))
    assert first.threads == 1
    assert first.grid == 128 * 1024  # parts times columns
    (load, *_) = (a for a in accesses(first) if isinstance(a, Load))
    assert steps_of(load, places(first, load)) == {1}
    assert second.grid == 1024


def test_a_long_sum_is_made_by_blocks_then_by_one() -> None:
    first, second = kernels(graph_of(lambda b, x: b.reduce_sum(x, (0,)), (1 << 28,)))
    assert first.grid == 4096
    assert first.grid * first.threads >= GPU.cores * 2048  # all that can be resident
    assert sum(isinstance(s, Load) for s in statements(first.body)) >= 4  # under way at once
    assert (second.grid, second.threads > 1) == (1, True)


def test_the_last_dimensions_are_one_row() -> None:
    """Of 7 x 7 places a warp works on all at once, not on 7 of one row."""

    def pool(b: Builder, x: Node) -> Node:
        return b.reduce_sum(b.apply("maximum", (x, b.constant(0.0, x.type))), (2, 3))

    (kernel,) = kernels(graph_of(pool, (64, 512, 7, 7)))
    loads = [a for a in accesses(kernel) if isinstance(a, Load)]
    assert kernel.threads > 1
    assert len(loads) == -(-49 // kernel.threads)


@pytest.mark.parametrize("shape", [(4096, 4096), (64, 512, 128)])
def test_a_transposition_loads_and_stores_vectors_of_whole_sectors(shape: tuple[int, ...]) -> None:
    perm = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
    (kernel,) = kernels(graph_of(lambda b, x: b.permute(x, perm), shape))
    assert kernel.grid * 16 == np.prod(shape)
    assert len(accesses(kernel)) == 8
    for access in accesses(kernel):
        assert access.stride == 1
        touched = {place * 4 // SECTOR for place in places(kernel, access)}
        assert len(touched) == WARP * 16 // SECTOR


def test_padding_is_computed_and_no_memory_is_filled() -> None:
    def padded(b: Builder, x: Node) -> Node:
        return b.pad(b.neg(x), (1, 1), (1, 1))

    program = gpu_program(graph_of(padded, (30, 30)))
    steps, _ = device_steps(program, GPU)
    assert [s.kernel for s in steps if s.launch < 0] == []
    assert [k.grid for k in program.kernels] == [32 * 32]


def test_slices_that_begin_anywhere_have_no_wide_accesses() -> None:
    def shifted(b: Builder, x: Node) -> Node:
        y = b.slice(x, (1,), (1 << 22,), (1,))
        return b.add(y, y)

    (kernel,) = kernels(graph_of(shifted, ((1 << 22) + 4,)))
    assert kernel.grid == 1 << 22


# what reductions are cut into


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((4096, 1024), (0,), [(128, 32, 1024), (128, 1024)]),
        ((1 << 28,), (0,), [(4096, 1 << 16), (4096,)]),
        ((64, 64, 56, 56), (0, 2, 3), [(16, 4, 64, 56, 56), (16, 64)]),
        ((8, 1024, 1024), (0, 1), [(8, 128, 8, 1024), (128, 1024)]),
        ((4096, 4096), (1,), [(4096, 4096)]),
        ((512, 512), (0,), [(512, 512)]),
        ((1 << 16,), (0,), [(1 << 16,)]),
    ],
)
def test_what_is_cut(shape: tuple[int, ...], axes: tuple[int, ...], expected: list[tuple[int, ...]]) -> None:
    cut = SplitReductions(on_gpu=True).run(graph_of(lambda b, x: b.reduce_sum(x, axes), shape))
    assert [n.inputs[0].shape for n in cut.nodes if n.op.startswith("reduce")] == expected


def test_parts_of_sums_of_halves_are_floats() -> None:
    graph = graph_of(lambda b, x: b.reduce_sum(x, (0,)), (1 << 24,), dtype="bf16")
    cut = SplitReductions(on_gpu=True).run(graph)
    assert [n.dtype.name for n in cut.nodes if n.op == "reduce_sum"] == ["f32", "f32"]
    assert cut.outputs[0].type == graph.outputs[0].type
    first, second = kernels(graph)
    assert (first.params[1].dtype.name, second.params[1].dtype.name) == ("f32", "bf16")


# results


def product(b: Builder, x: Node, y: Node) -> Node:
    return b.contract(x, y, "a b, b c -> a c")


CASES: dict[str, tuple[Callable[..., Node | Sequence[Node]], list[tuple[int, ...]]]] = {
    "chain": (chain, [(30, 50), (30, 50)]),
    "softmax": (softmax, [(20, 100)]),
    "softmax of few": (softmax, [(50, 10)]),
    "softmax of columns": (lambda b, x: softmax(b, x, 0), [(40, 9)]),
    "layer norm": (layer_norm, [(3, 5, 96), (96,), (96,)]),
    "sum": (total((0,)), [(400,)]),
    "columns": (total((0,)), [(60, 9)]),
    "planes": (total((0, 2, 3)), [(4, 3, 17, 19)]),
    "everything": (total((0, 1, 2)), [(7, 11, 13)]),
    "maximum": (total((1,), "reduce_max"), [(9, 77)]),
    "argmax": (total((1,), "argmax"), [(9, 200)]),
    "argmin of columns": (total((0,), "argmin"), [(50, 5)]),
    "product": (product, [(20, 30), (30, 17)]),
    "transpose": (lambda b, x: b.permute(x, (1, 0)), [(33, 65)]),
    "transpose of blocks": (lambda b, x: b.add(x, b.permute(x, (1, 0))), [(64, 64)]),
    "transpose with a rest": (lambda b, x: b.permute(x, (0, 2, 1)), [(3, 32, 18)]),
    "padding": (lambda b, x: b.pad(b.neg(x), (1, 2), (0, 1)), [(9, 10)]),
    "batches of rows": (total((0, 2)), [(5, 3, 40)]),
    "several": (lambda b, x: (softmax(b, x), b.reduce_sum(x, (1,)), b.neg(x)), [(12, 64)]),
}


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_the_reference(name: str) -> None:
    make, shapes = CASES[name]
    graph = graph_of(make, *shapes)
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    for got, expected in zip(run_for_gpu(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("length", [100, 256])
def test_rows_in_shared_memory_give_the_same(length: int) -> None:
    graph = graph_of(softmax, (4, length))
    x = np.random.default_rng(1).standard_normal((4, length)).astype(np.float32)
    target = replace(GPU, registers=1 << 8)
    assert gpu_program(graph, target).kernels[0].own
    (got,) = run_for_gpu(graph, [x], target)
    np.testing.assert_allclose(got, evaluate(graph, [x])[0], rtol=2e-5)


# programs and texts


def test_a_program_is_steps_for_the_device() -> None:
    def add_and_spread(b: Builder, x: Node, y: Node) -> tuple[Node, Node]:
        return b.fold(b.add(x, y), (200,), (0,), (4,), (1,)), x

    program = gpu_program(graph_of(add_and_spread, (50, 2), (50, 2)))
    steps, records = device_steps(program, GPU)
    assert program.entry == ""
    assert [s.kernel for s in steps if s.launch < 0] == ["fill", "copy"]
    (launch,) = (s for s in steps if s.launch == 0)
    assert launch.blocks * launch.threads >= program.kernels[0].grid
    assert launch.kernel == records[0].kernel == program.records[0].kernel
    assert f" {launch.kernel}(" in program_unit(program, GPU)


def test_equal_kernels_are_one_function() -> None:
    def twice(b: Builder, x: Node, y: Node) -> tuple[Node, Node]:
        return softmax(b, x), softmax(b, y)

    program = gpu_program(graph_of(twice, (64, 100), (64, 100)))
    assert len(program.kernels) == 2
    assert program_unit(program, GPU).count("gc_block_reduce<") > 0


def test_stages_of_a_gpu() -> None:
    graph = graph_of(chain, (64, 64), (64, 64))
    assert "__global__" in stage_text(graph, "cuda", device="cuda")
    assert "parallel %g" in stage_text(graph, "loops", device="cuda:0", target=cuda_target("sm_80"))
    with pytest.raises(GraphcError, match="stage 'llvm' is one of device 'cpu', not of 'cuda'"):
        stage_text(graph, "llvm", device="cuda")
    with pytest.raises(GraphcError, match="stage 'cuda' is one of device 'cuda', not of 'cpu'"):
        stage_text(graph, "cuda")
