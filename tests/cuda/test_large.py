"""Buffers of more than 2**31 elements: indices that need 64 bits. The memory is sparse, only a few pages exist."""

from __future__ import annotations

import mmap

import numpy as np

from graphc.codegen.cuda.emit import emit_kernel, emit_unit, launch_shape
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.cuda.program import program_unit
from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import Affine, Kernel, Load, Param, Store, Value, VType
from graphc.codegen.llvm.program import Launch
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, u8
from graphc.pipeline import build_program
from tests.codegen.native import build
from tests.cuda.shim import Unit

SIZE = (1 << 31) + (1 << 25) + 12345
STEP = (1 << 20) + 3
TARGET = cuda_target("sm_90")


def sparse(size: int) -> np.ndarray:
    """Zeros that take no memory until they are written."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    return np.frombuffer(mmap.mmap(-1, size, flags=flags), np.uint8)


def run(kernel: Kernel, unit: Unit, name: str, arrays: list[np.ndarray]) -> None:
    """Launch `kernel`, which the unit calls `name`."""
    blocks, threads, shared = launch_shape(kernel)
    ranges = [(p.name, a.ctypes.data, a.nbytes) for p, a in zip(kernel.params, arrays, strict=True)]
    unit.launch(name, blocks, threads, [a.ctypes.data for a in arrays], shared, 0, ranges)


def test_a_kernel_reads_and_writes_far_places(host_compiler: str) -> None:
    buffer = Param("x", u8, SIZE, "inout")

    def write(e: Emitter, index: Value) -> None:
        place = Affine(5, ((index, STEP),))
        value = Value(VType(u8))
        e.body.append(Load(value, buffer, place))
        e.body.append(Store(buffer, place, e.op("add", value, 1)))

    kernel = build([buffer], (SIZE - 5) // STEP, write)
    memory = sparse(SIZE)
    memory[5::STEP] = np.arange(len(memory[5::STEP])) % 200
    run(kernel, Unit(emit_unit([emit_kernel(kernel, TARGET)]), "checked"), kernel.name, [memory])
    expected = np.arange(kernel.grid) % 200 + 1
    np.testing.assert_array_equal(memory[5::STEP][: kernel.grid], expected)


def test_a_graph_over_a_large_input(host_compiler: str) -> None:
    b = Builder()
    x = b.input(0, TensorType(u8, (SIZE,)))
    graph = Graph((x,), (b.slice(x, (7,), (SIZE // STEP,), (STEP,)),))
    program = build_program(graph, target=TARGET)
    (kernel,), (step,) = program.kernels, program.steps
    assert isinstance(step, Launch)
    memory, result = sparse(SIZE), np.zeros(SIZE // STEP, np.uint8)
    memory[7::STEP] = np.arange(len(memory[7::STEP])) % 251
    starts = [argument[1] for argument in step.arguments if isinstance(argument, tuple)]
    places = [a[start:] for a, start in zip((memory, result), starts, strict=True)]
    run(kernel, Unit(program_unit(program, TARGET), "checked"), step.symbol, places)
    np.testing.assert_array_equal(result, memory[7::STEP][: len(result)])
