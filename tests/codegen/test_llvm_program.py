"""The native entry of a program: launches, fills, copies, regions, with a stand-in for the thread pool."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import Affine, Kernel, Load, Store, Value, VType
from graphc.codegen.llvm.build import build_many
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.llvm.program import LONG_BYTES, Copy, Fill, Launch, Local, Region, Step, emit_program
from graphc.errors import CompileError
from graphc.ir.types import f32
from tests.codegen.native import build, link, param
from tests.codegen.raw import ENTRY, TASK, Runtime

POOL = 0x1234


def add_index(name: str, grid: int) -> Kernel:
    """y[g] = x[g] + g"""
    array = np.zeros(grid, np.float32)
    x, y = param("x", array, "in"), param("y", array, "out")

    def write(e: Emitter, g: Value) -> None:
        value = Value(VType(f32))
        e.body.append(Load(value, x, Affine(0, ((g, 1),))))
        e.body.append(Store(y, Affine(0, ((g, 1),)), e.op("add", value, e.op("cast", g, to=f32))))

    return build([x, y], grid, write, name)


def execute(
    kernels: Sequence[Kernel], steps: Sequence[Step], arrays: Sequence[np.ndarray], entry: str = "main0"
) -> list:
    """Run `steps` on `arrays`; gives the calls of the runtime: the pool, and the counts of parallel_for, which runs the
    second half of a range first, then the bytes that are moved.
    """
    target = host_target()
    texts = [*(emit_kernel(k, target) for k in kernels), emit_program(steps, target, entry)]
    library, address = link(build_many(texts, target), entry)
    calls = []

    def parallel_for(pool: int, task: int, context: int, count: int) -> None:
        calls.append((pool, count))
        function = TASK(task)
        function(context, count // 2, count)
        function(context, 0, count // 2)

    runtime = Runtime(parallel_for, POOL)
    table = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
    function = ENTRY(address)
    function(ctypes.addressof(table), runtime.address)
    del library
    return [*calls, *runtime.moved]


def test_launches_read_the_table_and_add_offsets() -> None:
    x, y = np.arange(8, dtype=np.float32), np.zeros(16, np.float32)
    steps = [Launch("k", ((0, 0), (1, 0)), 8), Launch("k", ((0, 0), (1, 32)), 8, parallel=True)]
    assert execute([add_index("k", 8)], steps, [x, y]) == [(POOL, 8)]
    assert (y == np.tile(np.arange(8) * 2, 2)).all()


def test_a_function_loads_each_address_once() -> None:
    """Of two buffers, for the launches of this thread together and for each task of the others."""
    launch = Launch("k", ((0, 0), (1, 32)), 8)
    text = emit_program([launch] * 5, host_target())
    assert text.count("load ptr") == 2
    assert text.count("getelementptr i8") == 5
    assert emit_program([launch, replace(launch, parallel=True)] * 2, host_target()).count("load ptr") == 2 + 2 * (
        2 + 2
    )


def test_fill_and_copy() -> None:
    a, b = np.arange(10, dtype=np.uint8), np.zeros(5000, np.uint8)
    steps = [
        Fill((1, 7), 4000, 255),
        Fill((1, 0), 0, 9),
        Copy((1, 2), (0, 3), 4),
        Copy((1, 0), (0, 0), 0),
        Fill((0, 0), 2),
    ]
    assert execute([], steps, [a, b]) == []
    expected = np.zeros(5000, np.uint8)
    expected[7:4007] = 255
    expected[2:6] = [3, 4, 5, 6]
    assert (b == expected).all()
    assert list(a[:3]) == [0, 0, 2]


def test_the_runtime_makes_long_fills_and_copies() -> None:
    size = LONG_BYTES + 5
    rng = np.random.default_rng(0)
    a, b, c = rng.integers(0, 256, size + 9, np.uint8), np.zeros(size + 9, np.uint8), np.zeros(size + 9, np.uint8)
    steps = [Copy((1, 3), (0, 1), size), Fill((2, 2), size, 7), Fill((2, 0), LONG_BYTES - 1, 9)]
    assert execute([], steps, [a, b, c]) == [(POOL, size)] * 2
    assert (b[3 : size + 3] == a[1 : size + 1]).all()
    assert not b[:3].any() and not b[size + 3 :].any()
    assert (c[: LONG_BYTES - 1] == 9).all()
    assert (c[LONG_BYTES - 1 : size + 2] == 7).all()
    assert not c[size + 2 :].any()


def test_a_region_takes_all_its_steps_for_some_blocks_at_a_time() -> None:
    """Six blocks of two elements, two blocks at once, in two parts; what lies in between has memory for two blocks."""
    x, z, own = np.zeros(12, np.float32), np.full(12, 7, np.float32), np.full(64, 9, np.uint8)
    between = Local(8, 8)
    inner = (
        Launch("k", ((0, 0), between), 12),
        Launch("k", (between, (1, 0)), 12),
        Fill(between, 48, 3),
    )
    assert execute([add_index("k", 12)], [Region(6, 2, 2, (2, 4), 28, inner)], [x, z, own]) == [(POOL, 2)]
    assert (z == np.arange(12) * 2).all()
    expected = np.full(64, 9, np.uint8)
    for part in range(2):
        start = 4 + 28 * part + 8
        expected[start : start + 8] = 3  # of the last block, which stands alone
        expected[start + 8 : start + 16] = 3
    assert (own == expected).all()


def test_one_call_uses_the_memory_of_its_first_part() -> None:
    x, z, own = np.zeros(8, np.float32), np.zeros(8, np.float32), np.zeros(64, np.uint8)
    inner = (Launch("k", ((0, 0), Local(0, 8)), 8), Launch("k", (Local(0, 8), (1, 0)), 8))
    assert execute([add_index("k", 8)], [Region(4, 1, 4, (2, 0), 16, inner)], [x, z, own]) == [(POOL, 4)]
    assert (z == np.arange(8) * 2).all()
    used = own.view(np.float32).reshape(4, 4)[:, :2]
    # Ranges of parts were [2, 4) and [0, 2).
    assert used.tolist() == [[2, 3], [0, 0], [6, 7], [0, 0]]


def test_small_and_empty_ranges_do_not_use_threads() -> None:
    x, y = np.ones(1, np.float32), np.zeros(1, np.float32)
    launch = Launch("k", ((0, 0), (1, 0)), 1, parallel=True)
    steps = [launch, Region(1, 1, 1, (1, 0), 0, (launch,)), Launch("k", ((0, 0), (1, 0)), 0, parallel=True)]
    assert execute([add_index("k", 1)], steps, [x, y]) == []
    assert y[0] == 1


def test_long_programs_keep_their_order() -> None:
    x = np.zeros(8, np.float32)
    steps = [Copy((0, 4 * (i % 7 + 1)), (0, 4 * (i % 7)), 4) for i in range(1000)]
    steps.insert(0, Fill((0, 0), 1, 5))
    execute([], steps, [x])
    assert (x.view(np.uint32) == 5).all()
    assert execute([], [], [x]) == []


def test_impossible_programs_are_refused() -> None:
    target = host_target()
    launch = Launch("k", ((0, 0),), 10)
    with pytest.raises(CompileError, match="3 blocks do not divide the grid 10 of kernel k"):
        emit_program([Region(3, 1, 1, (0, 0), 0, (launch,))], target)
    with pytest.raises(CompileError, match="3 blocks do not divide a fill of 10"):
        emit_program([Region(3, 1, 1, (0, 0), 0, (Fill((0, 0), 10),))], target)
    with pytest.raises(CompileError, match="1 and with 2 buffers"):
        emit_program([launch, Launch("k", ((0, 0), (1, 0)), 10)], target)
    with pytest.raises(CompileError, match="256"):
        emit_program([Fill((0, 0), 1, 256)], target)
