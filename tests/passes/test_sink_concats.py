"""Values that are put together from rows in turns: what is computed of the parts, and stored once."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.kernel import If, Kernel, Load, Op, Stmt, Store, statements
from graphc.codegen.llvm.program import Fill
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.index import Ix, Var, reshape_index
from graphc.ir.node import Node
from graphc.ir.schedule_verify import verify_fused
from graphc.ir.types import TensorType, f32
from graphc.ir.verify import verify
from graphc.passes.sink_concats import SinkConcats
from graphc.pipeline import build_program, schedule
from tests.codegen.programs import run
from tests.codegen.targets import AVX2, AVX512

SHAPE = (2, 3, 5, 9)  # of a part, whose rows lie along dimension 2


def inputs(b: Builder, *shapes: tuple[int, ...]) -> list[Node]:
    return [b.input(i, TensorType(f32, shape)) for i, shape in enumerate(shapes)]


def in_turns(b: Builder, parts: list[Node], dim: int = 2) -> Node:
    """The rows of the parts along `dim`, one of each in turns."""
    shape = parts[0].shape
    whole = b.concat(tuple(b.reshape(x, (*shape[: dim + 1], 1, *shape[dim + 1 :])) for x in parts), dim + 1)
    return b.reshape(whole, tuple(n * len(parts) if d == dim else n for d, n in enumerate(shape)))


def ops_above_concat(node: Node) -> list[str]:
    """What is done to a value after it was put together, the last first."""
    found: list[str] = []
    while node.op != "concat":
        found.append(node.op)
        node = node.inputs[0]
    return found


def check(graph: Graph) -> Graph:
    """The graph after the pass, which gives the same bits, also compiled."""
    after = SinkConcats().run(graph)
    verify(after)
    verify_fused(schedule(graph, AVX2))
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(n.shape).astype(np.float32) for n in graph.inputs]
    before = evaluate(graph, arrays)
    for got in (evaluate(after, arrays), run(graph, arrays)):
        for a, e in zip(got, before, strict=True):
            np.testing.assert_array_equal(a, e)
    return after


def relu(b: Builder, x: Node) -> Node:
    zero = b.constant(0.0, x.type)
    return b.select(b.apply("le", (x, zero)), zero, x)


def test_bias_relu_and_a_residual_move_into_the_parts() -> None:
    b = Builder()
    x, y, bias, other = inputs(b, SHAPE, SHAPE, (3,), (2, 3, 10, 9))
    whole = in_turns(b, [b.add(x, y), b.sub(x, y)])
    biased = b.add(whole, b.broadcast(b.reshape(bias, (1, 3, 1, 1)), whole.shape))
    graph = Graph((x, y, bias, other), (relu(b, b.add(biased, other)),))
    after = check(graph)
    assert ops_above_concat(after.outputs[0]) == ["reshape"]
    (kernel,) = schedule(graph, AVX2).groups
    assert kernel.domain == (2, 3, 5, 1, 9) and len(kernel.roots) == 2


@pytest.mark.parametrize("perm", [(0, 1, 2, 3), (1, 2, 0, 3), (2, 0, 1, 3), (0, 2, 3, 1)])
def test_permutations_move_unless_rows_end_up_last(perm: tuple[int, ...]) -> None:
    b = Builder()
    x, y = inputs(b, SHAPE, SHAPE)
    moved = b.neg(b.permute(b.neg(in_turns(b, [b.add(x, y), b.sub(x, y), y])), perm))
    after = check(Graph((x, y), (moved,)))
    assert ops_above_concat(after.outputs[0]) == ["reshape"]


def test_rows_that_would_be_elements_stay() -> None:
    b = Builder()
    x, y = inputs(b, SHAPE, SHAPE)
    graph = Graph((x, y), (b.permute(in_turns(b, [b.add(x, y), y]), (0, 1, 3, 2)),))
    assert check(graph) is graph


def test_a_value_of_which_several_are_made_is_put_together_once() -> None:
    b = Builder()
    x, y = inputs(b, SHAPE, SHAPE)
    whole = in_turns(b, [b.add(x, y), b.sub(x, y)])
    graph = Graph((x, y), (b.exp(whole), b.neg(whole)))
    assert SinkConcats().run(graph) is graph
    joined = Graph((x, y), (b.mul(b.neg(whole), b.add(whole, whole)),))
    assert ops_above_concat(check(joined).outputs[0]) == ["reshape"]


def test_rows_in_turns_of_two_values() -> None:
    b = Builder()
    x, y = inputs(b, SHAPE, SHAPE)
    pair = in_turns(b, [b.add(x, y), b.sub(x, y)])
    same = in_turns(b, [y, b.neg(x)])
    after = check(Graph((x, y), (b.mul(pair, same),)))
    assert ops_above_concat(after.outputs[0]) == ["reshape"]
    z = b.slice(x, (0, 0, 0, 0), (2, 3, 2, 9), (1, 1, 1, 1))
    others = in_turns(b, [z, b.neg(z), z, b.add(z, z), z])
    check(Graph((x, y), (b.mul(pair, others),)))


def test_padding_is_stored_part_by_part_between_zeros() -> None:
    b = Builder()
    x, y = inputs(b, (2, 3, 5, 16), (2, 3, 5, 16))
    whole = relu(b, in_turns(b, [b.add(x, y), b.sub(x, y)]))
    padded = b.pad(whole, (0, 0, 1, 1), (0, 0, 1, 1))
    graph = Graph((x, y), (padded,))
    check(graph)
    program = build_program(graph, target=AVX2)
    assert [type(step) for step in program.steps].count(Fill) == 1
    (kernel,) = program.kernels
    assert not masked(kernel)


def beginning(b: Builder, x: Node, rows: int, dim: int = 2) -> Node:
    """The first rows of a value."""
    size = tuple(rows if d == dim else n for d, n in enumerate(x.shape))
    return b.slice(x, (0,) * x.type.rank, size, (1,) * x.type.rank)


@pytest.mark.parametrize("target", [AVX2, AVX512], ids=["avx2", "avx512"])
@pytest.mark.parametrize("rows", [14, 13, 12])
def test_the_last_rows_are_not_stored(rows: int, target: Target) -> None:
    """Of parts of five rows each; what is done to the rows that stay is done in the parts."""
    b = Builder()
    x, y, bias, other = inputs(b, SHAPE, SHAPE, (3,), (2, 3, rows, 9))
    whole = beginning(b, in_turns(b, [b.add(x, y), b.sub(x, y), y]), rows)
    biased = b.add(whole, b.broadcast(b.reshape(bias, (1, 3, 1, 1)), whole.shape))
    graph = Graph((x, y, bias, other), (relu(b, b.add(biased, other)),))
    after = check(graph)
    assert ops_above_concat(after.outputs[0]) == ["slice", "reshape"]
    (kernel,) = build_program(graph, target=target).kernels
    guarded = [s for s in statements(kernel.body) if isinstance(s, If)]
    assert len(guarded) > 0 and all(isinstance(s, Store) for guard in guarded for s in statements(guard.body))
    assert not any(isinstance(s, Op) and s.name == "select" and s.result.type.lanes > 1 for s in choices(kernel))


def choices(kernel: Kernel) -> list[Stmt]:
    """What chooses between the elements of vectors, but for the ReLU."""
    zero = {s.result for s in statements(kernel.body) if isinstance(s, Op) and s.name in ("const", "le")}
    found = [s for s in statements(kernel.body) if isinstance(s, Op) and s.name == "select"]
    return [s for s in found if not set(s.args) & zero]


@pytest.mark.parametrize("perm", [(0, 1, 2, 3), (1, 2, 0, 3), (2, 0, 1, 3)])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_rows_of_any_dimension_that_are_not_stored(dim: int, perm: tuple[int, ...]) -> None:
    b = Builder()
    x, y = inputs(b, SHAPE, SHAPE)
    whole = in_turns(b, [b.add(x, y), b.sub(x, y)], dim)
    cut = beginning(b, whole, whole.shape[dim] - 1, dim)
    padded = b.pad(b.permute(b.neg(cut), perm), (1, 0, 2, 1), (0, 1, 1, 1))
    check(Graph((x, y), (padded,)))
    check(Graph((x, y), (b.permute(cut, perm),)))
    zeros = b.pad(b.neg(cut), (1, 0, 2, 1), (0, 1, 1, 1))
    check(Graph((x, y), (beginning(b, zeros, zeros.shape[dim] - 1, dim),)))


def test_rows_that_lie_across_the_lanes_are_stored_under_masks() -> None:
    b = Builder()
    x, y = inputs(b, (40, 1, 1), (40, 1, 1))
    whole = beginning(b, in_turns(b, [b.add(x, y), b.sub(x, y)], 0), 79, 0)
    check(Graph((x, y), (b.reshape(whole, (79,)), b.neg(whole))))
    (kernel,) = build_program(Graph((x, y), (b.neg(whole),)), target=AVX512).kernels
    stores = [s for s in statements(kernel.body) if isinstance(s, Store)]
    assert {(s.stride, s.mask is None) for s in stores} == {(1, True), (2, False)}  # zipped, but for the last vectors


def test_a_slice_that_leaves_out_most_is_not_made_of_everything() -> None:
    b = Builder()
    x, y = inputs(b, SHAPE, SHAPE)
    graph = Graph((x, y), (beginning(b, in_turns(b, [b.add(x, y), b.sub(x, y)]), 5),))
    check(graph)
    (kernel,) = schedule(graph, AVX2).groups
    assert kernel.domain == (2, 3, 5, 9) and len(kernel.roots) == 1


@pytest.mark.parametrize("border", [0, 1])
@pytest.mark.parametrize("rows", [10, 9])
def test_windows_read_what_was_put_together_from_memory(border: int, rows: int) -> None:
    b = Builder()
    x, y = inputs(b, SHAPE, SHAPE)
    whole = beginning(b, in_turns(b, [b.add(x, y), b.sub(x, y)]), rows) if rows < 10 else in_turns(b, [b.add(x, y), y])
    edge = (0, 0, border, border)
    pooled = b.reduce_max(b.window(b.pad(whole, edge, edge, value=-np.inf), (2, 3), (2, 2), (2, 2), (1, 1)), (4, 5))
    graph = Graph((x, y), (pooled,))
    check(graph)
    first, second = schedule(graph, AVX2).groups
    assert len(first.roots) == 2 and second.domain == pooled.shape


def masked(kernel: Kernel) -> list[Stmt]:
    return [s for s in statements(kernel.body) if isinstance(s, Load) and s.mask is not None]


@pytest.mark.parametrize("width", [16, 24, 30, 56])
def test_transposed_in_registers_with_arithmetic_and_no_lanes_left_over(width: int) -> None:
    b = Builder()
    (x,) = inputs(b, (6, 4, width, 16))
    parts = []
    for k in range(4):
        part = b.slice(x, (k, 0, 0, 0), (1, 4, width, 16), (1, 1, 1, 1))
        other = b.slice(x, (k + 1, 0, 0, 0), (1, 4, width, 16), (1, 1, 1, 1))
        parts.append(b.add(part, b.mul(other, b.constant(0.5, other.type))))
    graph = Graph((x,), (b.permute(in_turns(b, parts, 1), (0, 3, 1, 2)),))
    check(graph)
    (kernel,) = build_program(graph, target=AVX512).kernels
    found = list(statements(kernel.body))
    loads = [s for s in found if isinstance(s, Load)]
    stores = [s for s in found if isinstance(s, Store)]
    assert loads and all(s.stride == 1 and s.mask is None for s in [*loads, *stores])


@pytest.mark.parametrize("cut", [0, 2])
@pytest.mark.parametrize("width", [8, 14, 16])
def test_much_arithmetic_is_stored_before_it_is_transposed(width: int, cut: int) -> None:
    """One kernel computes the rows, another one moves them, also where the last of them are left out."""
    b = Builder()
    (x,) = inputs(b, (8, 4, width, 16))
    parts = []
    for k in range(4):
        part = b.slice(x, (k, 0, 0, 0), (1, 4, width, 16), (1, 1, 1, 1))
        for other in range(4):
            row = b.slice(x, (k + other, 0, 0, 0), (1, 4, width, 16), (1, 1, 1, 1))
            part = b.add(part, b.mul(row, b.constant(0.5 + other, row.type)))
        parts.append(part)
    whole = in_turns(b, parts, 1)
    if cut:
        whole = b.slice(whole, (0,) * 4, (1, 16 - cut, width, 16), (1,) * 4)
    graph = Graph((x,), (b.permute(whole, (0, 3, 1, 2)),))
    check(graph)
    first, second = build_program(graph, target=AVX512).kernels
    found = list(statements(first.body))
    assert any(isinstance(s, Op) and s.name in ("mul", "fma") for s in found)
    assert all(s.stride == 1 for s in found if isinstance(s, Load | Store))
    assert not any(
        isinstance(s, Op) and s.name in ("add", "mul", "fma") and s.result.type.dtype is f32
        for s in statements(second.body)
    )


def test_a_dimension_of_one_place_takes_no_index() -> None:
    lane = Ix.of(Var("lane", 63))  # past the end of a row of 30
    assert reshape_index((lane,), (30,), (1, 30, 1)) == (Ix(0), lane, Ix(0))
