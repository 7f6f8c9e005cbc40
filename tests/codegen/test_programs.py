"""Programs end to end: what comes back, in whose memory, from which kernels."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.kernel import Op, statements
from graphc.codegen.llvm.build import build_object
from graphc.errors import CompileError
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Location
from graphc.ir.types import DTYPES, DType, TensorType, bf16, boolean, f16, f32, f64, i64
from graphc.passes.autodiff import vjp
from graphc.pipeline import build_program
from graphc_runtime.buffer import Buffer
from tests.codegen.networks import arrays_for, lenet, training_step
from tests.codegen.programs import buffers, executable, results, run, same_bits
from tests.codegen.raw import program_for
from tests.codegen.targets import AVX512

VECTOR = TensorType(f32, (100,))


def test_outputs_that_are_inputs_repeated_reshaped_or_constant() -> None:
    b = Builder()
    x = b.input(0, VECTOR)
    y = b.exp(x)
    constant, counter = b.constant(2.5, VECTOR), b.iota(0, TensorType(i64, (7,)))
    outputs = (x, y, y, b.reshape(y, (10, 10)), constant, counter, b.reshape(x, (2, 50)), x)
    graph = Graph((x,), outputs)
    arrays = [np.linspace(-2, 2, 100).astype(np.float32)]
    for got, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_no_outputs_and_no_inputs() -> None:
    b = Builder()
    assert run(Graph((b.input(0, VECTOR),), ()), [np.zeros(100, np.float32)]) == []
    (got,) = run(Graph((), (b.constant(3, TensorType(i64, ())),)), [])
    assert got == 3


def test_unused_inputs_are_taken_and_ignored() -> None:
    b = Builder()
    unused, x = b.input(0, TensorType(boolean, (0, 5))), b.input(1, VECTOR)
    (got,) = run(Graph((unused, x), (b.neg(x),)), [np.zeros((0, 5), np.bool_), np.ones(100, np.float32)])
    np.testing.assert_array_equal(got, -np.ones(100))


def test_inputs_stay_as_they_are() -> None:
    graph = training_step(4)
    given = buffers(arrays_for(graph))
    before = [b.array.copy() for b in given]
    executable(graph).run(given)
    assert all(map(same_bits, (b.array for b in given), before))


def test_donated_inputs_are_overwritten_by_outputs() -> None:
    b = Builder()
    p, g = b.input(0, VECTOR), b.input(1, VECTOR)
    graph = Graph((p, g), (b.sub(p, b.mul(g, 0.5)),))
    program = executable(graph, donated=[0])
    assert program.artifact.output_aliases == (0,)
    given = buffers([np.ones(100, np.float32), np.ones(100, np.float32)])
    (out,) = program.run(given)
    assert out is given[0]
    np.testing.assert_array_equal(results(graph, [out])[0], np.full(100, 0.5))


def test_training_loop_with_donated_parameters() -> None:
    """Twenty steps, each on the buffers of the last one, give the same as without donating; the loss falls."""
    graph = training_step(16)
    numbers = range(2, len(graph.inputs))
    kept, donating = executable(graph), executable(graph, donated=numbers)
    arrays = arrays_for(graph)
    losses = []
    first, second = buffers(arrays), buffers(arrays)
    for _ in range(20):
        a, b = kept.run(first), donating.run(second)
        assert all(map(same_bits, (x.array for x in a), (x.array for x in b)))
        losses.append(float(a[0].view(np.float32, ())))
        first, second = [*first[:2], *a[1:]], [*second[:2], *b[1:]]
    assert losses[-1] < losses[0]


def test_given_output_buffers_are_written() -> None:
    b = Builder()
    x = b.input(0, VECTOR)
    graph = Graph((x,), (b.neg(x),))
    into = Buffer.allocate(400)
    (out,) = executable(graph).run(buffers([np.ones(100, np.float32)]), [into])
    assert out is into
    np.testing.assert_array_equal(results(graph, [out])[0], -np.ones(100))


def test_equal_kernels_are_compiled_once() -> None:
    """Each step of a long chain is the same kernel over other memory."""
    b = Builder()
    x, w = b.input(0, TensorType(f32, (8, 8))), b.input(1, TensorType(f32, (8, 8)))
    value = x
    for _ in range(20):
        value = b.contract(value, w, "a b, b c -> a c")
    program = program_for(Graph((x, w), (value,)))
    assert len(program.kernels) == 20
    assert len(program.modules) == 2, "one kernel and the entry"


def test_launches_name_the_users_lines() -> None:
    b = Builder()
    x = b.input(0, VECTOR)
    with b.at(frozenset({Location("model.py", 7)})):
        y = b.exp(x)
    with b.at(frozenset({Location("model.py", 9)})):
        y = b.mul(y, 2.0)
    artifact = executable(Graph((x,), (y,))).artifact
    assert [launch.lines for launch in artifact.launches] == [("model.py:7", "model.py:9")]
    assert artifact.launches[0].flops > 0
    assert artifact.launches[0].bytes == 800


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 3, 15, 16, 17, 64, 100, 1000])
def test_every_dtype_at_every_length(size: int, dtype: object) -> None:
    b = Builder()
    x = b.input(0, TensorType(dtype, (size,)))  # type: ignore[arg-type]
    graph = Graph((x,), (b.flip(x, (0,)), b.cast(x, f64), b.concat((x, x), 0)))
    rng = np.random.default_rng(size)
    array = np.asarray(rng.integers(0, 100, size)).astype(dtype.numpy)  # type: ignore[attr-defined]
    assert all(map(same_bits, run(graph, [array]), evaluate(graph, [array])))


@pytest.mark.parametrize("batch", [1, 8, 16, 29])
def test_lenet(batch: int) -> None:
    graph = lenet(batch)
    arrays = arrays_for(graph)
    arrays[2:] = [a / 3 for a in arrays[2:]]
    for got, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))


def test_a_deep_gradient_of_many_stored_values() -> None:
    """Every step's value is kept for the gradient: far more values than one kernel holds."""
    b = Builder()
    x = b.input(0, TensorType(f64, (33,)))
    value = x
    for _ in range(60):
        value = b.apply("sin", (b.mul(value, 1.01),))
    (gradient,) = vjp(b, [value], [b.constant(1, value.type)], [x])
    assert gradient is not None
    graph = Graph((x,), (value, gradient))
    arrays = [np.linspace(-1, 1, 33)]
    for got, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_an_index_is_read_under_the_mask_of_its_use() -> None:
    """Both parts of the concatenation read the index; each may read it only where its own part is wanted."""
    b = Builder()
    x, index = b.input(0, TensorType(f32, (4, 1, 8, 17))), b.input(1, TensorType(i64, ()))
    part = b.apply("gather", (b.exp(x), index), {"axis": 2})
    graph = Graph((x, index), (b.concat((part, part), 1),))
    values = np.random.default_rng(0).standard_normal((4, 1, 8, 17)).astype(np.float32)
    (made,) = run(graph, [values, np.array(5)])
    np.testing.assert_allclose(made, np.exp(np.concatenate([values[:, :, 5]] * 2, 1)), rtol=1e-6)


def test_half_precision_sums_are_kept_in_single_precision() -> None:
    b = Builder()
    x = b.input(0, TensorType(f16, (5000,)))
    (got,) = run(Graph((x,), (b.reduce_sum(x, (0,)),)), [np.full(5000, 1.0, np.float16)])
    assert got == 5000.0, "in half precision the sum would stop at 2048"


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_half_precision_is_rounded_where_that_changes_something(dtype: DType) -> None:
    """The absolute value of the largest is one of the numbers given; the sum with it is rounded."""
    b = Builder()
    x, y, z = (b.input(i, TensorType(dtype, (1 << 16,))) for i in range(3))
    largest = b.elementwise("maximum", b.elementwise("maximum", x, y), z)
    chosen = b.select(b.elementwise("lt", x, 0), z, b.elementwise("abs", largest))
    graph = Graph((x, y, z), (b.add(b.cast(chosen, f32), b.cast(b.add(chosen, x), f32)),))
    (kernel,) = build_program(graph, target=AVX512).kernels
    casts = [s.result.type.dtype for s in statements(kernel.body) if isinstance(s, Op) and s.name == "cast"]
    vectors = casts.count(dtype)
    assert vectors and casts.count(f32) == 4 * vectors + 1, "operands, the sum after rounding, and zero"
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy)
    arrays = [every, every[::-1].copy(), np.roll(every, 12345)]
    for got, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_modules_of_another_machine_are_made_too() -> None:
    """All modules of a step go through LLVM for a fixed target, whatever this machine is."""
    program = build_program(training_step(16), target=AVX512)
    for module in program.modules:
        assert len(build_object(module, AVX512)) > 100


def test_a_broken_module_is_refused_with_llvms_reason() -> None:
    with pytest.raises(CompileError, match="LLVM refuses"):
        build_object("define void @f() { ret i32 }", AVX512)
