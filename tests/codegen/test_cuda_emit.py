"""CUDA C from kernels: what it computes on the shim against the interpreter, its barriers, its texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen.cuda.emit import emit_kernel, launch_shape
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import INDEX, Affine, If, Kernel, Load, Param, Store, Value, VType
from graphc.codegen.kernel_parser import parse_kernel
from graphc.errors import CompileError
from graphc.ir.types import DTYPES, f32, f64, i32, i64, u8
from tests.codegen.block_interpreter import run_blocks
from tests.codegen.cuda_native import TARGET, Kernels, aligned, run
from tests.codegen.golden import compare
from tests.codegen.kernel_maker import KernelMaker
from tests.codegen.native import build, param, same, samples

# Lanes of a thread kernel, threads of a block kernel.
SHAPES = {"scalar": (1, False), "x3": (3, False), "x4": (4, False), "x16": (16, False)}
BLOCKS = {"half a warp": (16, True), "warp": (32, True), "warps": (128, True), "odd": (48, True)}
SEEDS = 4
SCALE = """
kernel @scale(%x: f32[4000] in, %y: f32[4000] out) {
  parallel %g = 0 to 1000 {
    %half = const 0.5 : f32x4
    %x4 = load %x[%g*4] : f32x4
    %y4 = mul %x4, %half : f32x4
    store %y[%g*4], %y4 : f32x4
  }
}
"""
NORMALIZE = """
kernel @rows(%x: f32[3000] in, %y: f32[3] out, %z: f32[3000] out) threads 256 {
  own %row: f32[1024]
  parallel %g = 0 to 3 {
    %zero = const 0.0 : f32x256
    %length = const 1000 : i64x256
    %lane = lanes : i64x256
    for %i = 0 to 1000 step 256 carry (%sum = %zero : f32x256) {
      %start = splat %i : i64x256
      %place = add %start, %lane : i64x256
      %inside = lt %place, %length : boolx256
      %v = load %x[%g*1000 + %i] mask %inside : f32x256
      store %row[%i], %v : f32x256
      %next = add %sum, %v : f32x256
      yield %next
    } -> (%sums: f32x256)
    %total = reduce_add %sums : f32
    store %y[%g], %total : f32
    %totals = splat %total : f32x256
    for %j = 0 to 1000 step 256 {
      %start2 = splat %j : i64x256
      %place2 = add %start2, %lane : i64x256
      %inside2 = lt %place2, %length : boolx256
      %again = load %row[%j] : f32x256
      %q = div %again, %totals : f32x256
      store %z[%g*1000 + %j], %q mask %inside2 : f32x256
    }
  }
}
"""


def everywhere(kernel: Kernel, seed: int) -> list[np.ndarray]:
    """Contents for the buffers of `kernel`."""
    rng = np.random.default_rng(seed)
    return [aligned(samples(p.dtype, max(p.size, 32), rng)[: p.size]) for p in kernel.params]


@pytest.mark.share(2)
@pytest.mark.parametrize("shape", SHAPES | BLOCKS)
def test_random_kernels(shape: str) -> None:
    """All orders of the threads give what the interpreter gives, with no race and no access out of bounds."""
    lanes, is_block = (SHAPES | BLOCKS)[shape]
    kernels = {f"k{seed}": KernelMaker(seed, lanes, is_block).kernel() for seed in range(SEEDS)}
    made = Kernels(kernels)
    for seed, (name, kernel) in enumerate(kernels.items()):
        expected = everywhere(kernel, seed)
        run_blocks(kernel, dict(zip(kernel.params, expected, strict=True)))
        for order in (0, 1, 2 + seed):
            arrays = everywhere(kernel, seed)
            made.run(name, arrays, order)
            for buffer, actual, wanted in zip(kernel.params, arrays, expected, strict=True):
                assert same(actual, wanted), f"{shape}, seed {seed}, order {order}: {buffer.name} differs"


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES | BLOCKS)
@pytest.mark.parametrize("first", range(100, 500, 20))
def test_many_random_kernels(first: int, shape: str) -> None:
    lanes, is_block = (SHAPES | BLOCKS)[shape]
    kernels = {f"k{seed}": KernelMaker(seed, lanes, is_block, 60).kernel() for seed in range(first, first + 20)}
    made = Kernels(kernels)
    for seed, (name, kernel) in enumerate(kernels.items(), first):
        expected, arrays = everywhere(kernel, seed), everywhere(kernel, seed)
        run_blocks(kernel, dict(zip(kernel.params, expected, strict=True)))
        made.run(name, arrays, seed)
        for buffer, actual, wanted in zip(kernel.params, arrays, expected, strict=True):
            assert same(actual, wanted), f"{shape}, seed {seed}: {buffer.name} differs"


def reduction(name: str, threads: int, dtype: object) -> Kernel:
    x, y = Param("x", dtype, 3 * threads, "in"), Param("y", dtype, 3, "out")  # type: ignore[arg-type]
    index, e = Value(INDEX, "g"), Emitter()
    value = Value(VType(x.dtype, threads))
    e.body.append(Load(value, x, Affine(0, ((index, threads),))))
    e.body.append(Store(y, Affine(0, ((index, 1),)), e.op(name, value)))
    return Kernel("k", (x, y), 3, index, tuple(e.body), threads=threads)


def test_reductions_of_blocks_have_the_documented_order() -> None:
    kernels = {}
    for threads in (2, 8, 32, 64, 256, 512, 1024):
        for name in ("reduce_add", "reduce_mul", "reduce_maximum", "reduce_minimum"):
            for dtype in (f32, f64, i64, u8):
                kernels[f"{name}_{dtype}_{threads}"] = reduction(name, threads, dtype)
    made = Kernels(kernels)
    for name, kernel in kernels.items():
        rng = np.random.default_rng(kernel.threads)
        dtype, size = kernel.params[0].dtype, kernel.params[0].size
        x = rng.standard_normal(size).astype(dtype.numpy) if dtype.is_float else samples(dtype, size + 6, rng)[:size]
        arrays = [aligned(x), aligned(np.zeros(3, dtype.numpy))]
        expected = [a.copy() for a in arrays]
        run_blocks(kernel, dict(zip(kernel.params, expected, strict=True)))
        made.run(name, arrays)
        assert same(arrays[1], expected[1]), name


def nearest(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Of the numbers that `grid`, all values of a 16-bit float type, holds the ones nearest to `values`; to even."""
    finite = np.unique(np.abs(grid[np.isfinite(grid)]))
    step = finite[-1] - finite[-2]
    numbers = np.append(finite, finite[-1] + step)  # what lies half a step beyond is infinite
    size = np.abs(values)
    above = np.clip(np.searchsorted(numbers, size), 1, len(numbers) - 1)
    down, up = size - numbers[above - 1], numbers[above] - size
    chosen = np.where((up < down) | ((up == down) & (above % 2 == 0)), above, above - 1)
    result = np.append(numbers[:-1], np.inf)[chosen]
    result = np.where(np.isinf(size), np.inf, result)
    return np.where(np.isnan(values), np.nan, np.copysign(result, values))


@np.errstate(all="ignore")
def test_conversions_round_once() -> None:
    """Every f16 and bf16 to f32 and back, halves between neighbours, and f64 that f32 would round twice."""
    every = np.arange(1 << 16, dtype=np.uint16)
    for dtype in (d for d in DTYPES if d.is_float and d.bits == 16):
        values = every.view(dtype.numpy)
        wide = values.astype(np.float64)
        middle = (wide + np.roll(wide, 1)) / 2
        middle = np.where(np.isfinite(middle), middle, 0.0)
        ties = np.concatenate([middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf), wide])
        count = ties.size
        params = [Param("h", dtype, 1 << 16, "in"), Param("f", f32, 1 << 16, "out"), Param("b", dtype, 1 << 16, "out")]
        params += [Param("d", f64, count, "in"), Param("r", dtype, count, "out"), Param("s", f32, count, "in")]
        params.append(Param("t", dtype, count, "out"))
        index, e = Value(INDEX, "g"), Emitter()
        h, d, s = Value(VType(dtype)), Value(VType(f64)), Value(VType(f32))
        at = Affine(0, ((index, 1),))
        e.body.extend([Load(d, params[3], at), Load(s, params[5], at)])
        e.body.extend(
            [Store(params[4], at, e.op("cast", d, to=dtype)), Store(params[6], at, e.op("cast", s, to=dtype))]
        )
        inner = Emitter()
        inner.body.append(Load(h, params[0], at))
        f = inner.op("cast", h, to=f32)
        inner.body.extend([Store(params[1], at, f), Store(params[2], at, inner.op("cast", f, to=dtype))])
        e.body.append(If(e.op("lt", index, 1 << 16), tuple(inner.body)))
        single = ties.astype(np.float32)
        arrays = [values, np.zeros(1 << 16, np.float32), np.zeros(1 << 16, dtype.numpy), ties]
        arrays += [np.zeros(count, dtype.numpy), single, np.zeros(count, dtype.numpy)]
        run(Kernel("k", tuple(params), count, index, tuple(e.body)), arrays)
        assert same(arrays[1], values.astype(np.float32))
        assert same(arrays[2], values)
        assert same(arrays[6], single.astype(dtype.numpy))
        assert same(arrays[4], nearest(ties, wide).astype(dtype.numpy))


def test_texts(update_golden: bool) -> None:
    kernels = [parse_kernel(text) for text in (SCALE, NORMALIZE)]
    compare("cuda_kernels", "\n".join(emit_kernel(k, TARGET) for k in kernels), update_golden)


BETWEEN = """
kernel @k(%x: f32[64] in, %y: f32[256] inout) threads 64 {{
  own %s: f32[256]
  parallel %g = 0 to 1 {{
    %v = load %x[0] : f32x64
    %l = lanes : i64x64
    store %s[0], %v : f32x64
    {}
  }}
}}
"""


@pytest.mark.parametrize(
    ("then", "count"),
    [
        (["%w = load %s[0] : f32x64"], 0),  # each thread reads what it wrote
        (["%w = load %s[0] offsets %l : f32x64"], 0),
        (["%w = load %s[1] : f32x64"], 1),
        (["%w = load %s[0] stride 2 : f32x64"], 1),
        (["%w = load %s[5] : f32"], 1),
        (["%w = load %s[64] : f32"], 0),  # somewhere else
        (["%w = load %s[64] offsets %l : f32x64"], 0),
        (["%w = load %s[60] offsets %l : f32x64"], 1),
        (["store %s[32], %v : f32x64"], 0),  # never loaded
        (["store %s[32], %v : f32x64", "%w = load %s[32] : f32x64"], 1),
        (["store %s[64], %v : f32x64", "%w = load %s[64] : f32x64"], 0),
        (["%o = add %l, %l : i64x64", "store %s[64], %v offsets %o : f32x64", "store %s[65], %v offsets %o : f32x64",
          "%w = load %s[64] : f32"], 1),
        (["%w = load %y[3] : f32x64", "store %y[0], %v : f32x64"], 1),  # others may not have read yet
        (["%w = load %y[3] offsets %l : f32x64", "store %y[3], %v offsets %l : f32x64"], 0),
        (["%w = load %y[3] : f32", "store %y[3], %w : f32"], 1),
        (["for %i = 0 to 3 step 1 {", "%w = load %s[1] : f32x64", "}"], 1),
        (["for %i = 0 to 3 step 1 {", "%w = load %s[1] : f32x64", "store %s[0], %w : f32x64", "}"], 2),
        (["for %i = 0 to 128 step 64 {", "store %s[%i], %v : f32x64", "%w = load %s[%i] : f32x64", "}"], 0),
        (["for %i = 0 to 128 step 32 {", "store %s[%i], %v : f32x64", "%w = load %s[%i] : f32x64", "}"], 1),
        (["for %i = 0 to 9 step 1 {", "%w = load %s[3] : f32x64", "%a = reduce_add %w : f32", "}"], 1),
    ],
)  # fmt: skip
def test_barriers_stand_where_threads_meet(then: list[str], count: int) -> None:
    text = emit_kernel(parse_kernel(BETWEEN.format("\n".join(then))), TARGET)
    assert text.count("__syncthreads") == count, text


def test_indices_have_32_bits_where_that_is_enough() -> None:
    def copy(size: int) -> str:
        x, y = Param("x", f32, size, "in"), Param("y", f32, size, "out")
        value = Value(VType(f32))

        def write(e: Emitter, g: Value) -> None:
            place = Affine(0, ((g, 1000),))
            e.body.extend([Load(value, x, place), Store(y, place, value)])

        return emit_kernel(build([x, y], size // 1000, write), TARGET)

    assert "long long" not in copy(2_000_000_000) and "unsigned" not in copy(2_000_000_000)
    assert "(long long)g_1 * 1000" in copy(3_000_000_000)
    places, x = Param("places", i64, 100, "in"), Param("x", f32, 1000, "in")
    y = Param("y", f32, 100, "out")
    place, value = Value(VType(i64)), Value(VType(f32))

    def gather(e: Emitter, g: Value) -> None:
        here = Affine(0, ((g, 1),))
        e.body.extend([Load(place, places, here), Load(value, x, Affine(3, ((place, 5),))), Store(y, here, value)])

    # A number that is read has 64 bits, but what it addresses lies in a small buffer.
    text = emit_kernel(build([places, x, y], 100, gather), TARGET)
    assert "p1[(unsigned)v2 * 5u + 3u]" in text or "* 5u + 3u]" in text


def test_wide_accesses_need_aligned_addresses() -> None:
    kernel = parse_kernel(SCALE)
    assert emit_kernel(kernel, TARGET).count("gc_vector<float, 4>*") == 2
    shifted = parse_kernel(SCALE.replace("%x[%g*4]", "%x[%g*4 - 2]"))
    assert "gc_vector<float, 2>*)&p0" in emit_kernel(shifted, TARGET)
    rows = parse_kernel(SCALE.replace("%x[%g*4]", "%x[%g*3]"))
    assert "*)&p0" not in emit_kernel(rows, TARGET)


def test_shapes_of_launches() -> None:
    def grid(count: int, threads: int = 1) -> tuple[int, int, int]:
        return launch_shape(replace(build([], count, lambda e, g: None), threads=threads))

    assert grid(10, 256) == (10, 256, 0)
    assert grid(1 << 20) == (4096, 256, 0)
    assert grid(1000) == (32, 32, 0)
    assert grid(0) == (0, 32, 0)
    with pytest.raises(CompileError, match="threads"):
        grid(1, 2048)


def test_much_shared_memory_is_dynamic() -> None:
    def kernel(size: int) -> Kernel:
        return parse_kernel(NORMALIZE.replace("f32[1024]", f"f32[{size}]"))

    assert launch_shape(kernel(1024))[2] == 0
    assert "__shared__ float own0[1024]" in emit_kernel(kernel(1024), TARGET)
    assert launch_shape(kernel(20000))[2] == 80000
    assert "GC_DYNAMIC_SHARED" in emit_kernel(kernel(20000), TARGET)
    with pytest.raises(CompileError, match=r"needs 402368 bytes of shared memory for a block; there are 232448"):
        emit_kernel(kernel(100_000), TARGET)
    x = np.random.default_rng(0).random(3000).astype(np.float32)
    results = []
    for size in (1024, 20000):
        arrays = [x, np.zeros(3, np.float32), np.zeros(3000, np.float32)]
        run(kernel(size), arrays)
        results.append(arrays)
        np.testing.assert_allclose(arrays[1], x.reshape(3, 1000).sum(1), rtol=1e-5)
        assert same(arrays[2], (x.reshape(3, 1000) / arrays[1][:, None]).reshape(-1))
    assert same(results[0][1], results[1][1])


def test_targets_by_architecture() -> None:
    hopper = cuda_target()
    assert (hopper.cpu, hopper.device, hopper.cores, hopper.l1_bytes) == ("sm_90", "cuda", 132, 227 << 10)
    assert cuda_target("sm_86", multiprocessors=28).cores == 28
    assert cuda_target("sm_120").l1_bytes == hopper.l1_bytes
    with pytest.raises(CompileError, match="too old"):
        cuda_target("sm_60")
    with pytest.raises(CompileError, match="'sm_90'"):
        cuda_target("gfx90a")


def test_integer_arithmetic_wraps() -> None:
    x = samples(i32, 64, np.random.default_rng(0))
    y = np.zeros(64, np.int32)
    params = [param("x", x, "in"), param("y", y, "out")]

    def write(e: Emitter, g: Value) -> None:
        value = Value(VType(i32))
        e.body.append(Load(value, params[0], Affine(0, ((g, 1),))))
        total = e.op("add", e.op("mul", value, value), e.op("abs", e.op("neg", value)))
        e.body.append(Store(params[1], Affine(0, ((g, 1),)), e.op("shl", total, 3)))

    run(build(params, 64, write), [x, y])
    with np.errstate(over="ignore"):
        assert (y == ((x * x + np.abs(-x)) << 3)).all()
