"""Launches that need not wait for each other: what may run at once, and how small kernels become one."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.cuda.combine import Work, combine, rounds
from graphc.codegen.cuda.emit import emit_kernel, launch_shape
from graphc.codegen.cuda.program import device_steps, program_unit
from graphc.codegen.kernel import Kernel, Param
from graphc.codegen.llvm.program import Copy, Fill, Launch
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, f32
from graphc_runtime.artifact import Launch as LaunchRecord
from tests.codegen.gpu_programs import GPU, gpu_program
from tests.codegen.networks import lenet


def launch(reads: Sequence[tuple[int, int]], writes: Sequence[tuple[int, int]], size: int = 16) -> Work:
    """A launch that touches `size` floats at these places."""
    kernel = gpu_program(negated(size)).kernels[0]
    modes = ["in"] * len(reads) + ["out"] * len(writes)
    params = tuple(Param(f"p{i}", f32, size, mode) for i, mode in enumerate(modes))
    kernel = Kernel("kernel", params, kernel.grid, kernel.index, ())
    return Work(Launch("k", (*reads, *writes), 1), kernel, "", LaunchRecord("k"), (1, 32, 0))


def negated(size: int) -> Graph:
    b = Builder()
    x = b.input(0, TensorType(f32, (size,)))
    return Graph((x,), (b.neg(x),))


def numbers(works: Sequence[Work], same: dict[int, int] | None = None) -> list[int]:
    """The round of each work."""
    found = rounds(works, same or {})
    return [next(i for i, together in enumerate(found) if any(w is work for w in together)) for work in works]


def test_steps_wait_for_what_they_read_and_for_readers_of_what_they_write() -> None:
    first, second = launch([(0, 0)], [(1, 0)]), launch([(1, 0)], [(2, 0)])
    beside, again = launch([(0, 0)], [(3, 0)]), launch([(0, 0)], [(1, 0)])
    assert numbers([first, second, beside, again]) == [0, 1, 0, 2]


def test_only_bytes_that_overlap_count() -> None:
    first = launch([], [(1, 0)])
    assert numbers([first, launch([(1, 64)], [(2, 0)]), launch([(1, 60)], [(2, 64)])]) == [0, 0, 1]


def test_fills_and_copies_are_steps_too() -> None:
    fill, copy = Work(Fill((1, 0), 64)), Work(Copy((2, 0), (1, 32), 32))
    assert numbers([fill, launch([], [(1, 64)]), copy, launch([(2, 0)], [(3, 0)])]) == [0, 0, 1, 2]


def test_an_output_that_takes_over_an_input_is_the_same_memory() -> None:
    reader, writer = launch([(0, 0)], [(5, 0)]), launch([(1, 0)], [(4, 0)])
    assert numbers([reader, writer]) == [0, 0]
    assert numbers([reader, writer], {4: 0}) == [0, 1]


def work_of(graph: Graph) -> Work:
    (kernel,) = gpu_program(graph).kernels
    text = emit_kernel(kernel, GPU)
    places = tuple((i, 0) for i, _ in enumerate(kernel.params))
    record = LaunchRecord("kernel", kernel.grid, kernel.flops, kernel.bytes)
    return Work(Launch("kernel", places, kernel.grid), kernel, text, record, launch_shape(kernel))


def summed(rows: int, length: int) -> Graph:
    b = Builder()
    x = b.input(0, TensorType(f32, (rows, length)))
    return Graph((x,), (b.reduce_sum(x, (1,)),))


def test_small_kernels_run_side_by_side() -> None:
    works = [work_of(negated(100)), work_of(summed(20, 100)), work_of(summed(5, 128))]
    assert {w.shape[1] for w in works} == {32, 128}
    (done,) = combine(works, 100_000)
    assert (done.blocks, done.threads) == (20 + 5 + 1, 128)  # and 100 single threads in one
    assert len(done.arguments) == 6
    assert done.record.bytes == sum(w.record.bytes for w in works if w.record is not None)
    *functions, text = done.texts
    assert all(t.startswith("GC_SEPARATE void d") for t in functions)
    assert "if (place < 100u) " in text
    assert text.count("return;") == 3


def test_large_ones_and_other_blocks_run_by_themselves() -> None:
    rows, other = work_of(summed(20, 100)), work_of(summed(20, 4096))
    assert rows.shape[1] != other.shape[1]
    assert len(combine([rows, other], 1 << 20)) == 2
    assert len(combine([rows, work_of(negated(100))], 1000)) == 2
    assert len(combine([rows, work_of(negated(100))], 10_000)) == 1


def test_independent_kernels_of_a_training_step_share_launches() -> None:
    program = gpu_program(lenet(64))
    steps, records = device_steps(program, GPU)
    launches = [s for s in steps if s.launch >= 0]
    assert [s.launch for s in launches] == list(range(len(records)))
    assert len(launches) <= len(program.kernels) - 4
    assert sum(r.bytes for r in records) == sum(k.bytes for k in program.kernels)
    unit = program_unit(program, GPU)
    assert all(f" {step.kernel}(" in unit for step in launches)
