"""Loads and stores in native code: strides, offsets, masks, dtypes; nothing beyond the last element is touched."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import Affine, Load, Store, Value, VType
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.target import Target
from graphc.ir.types import DTYPES, DType, boolean, f32, f64, i32, i64
from tests.codegen.native import baseline, build, host_target, param, run, same, samples
from tests.codegen.targets import common

LANES = (1, 4, 8, 16)
STRIDES = (1, -1, 2, 3, 4, -2, -3, 5, -7)
PAGE = mmap.PAGESIZE
TARGETS = {"host": host_target, "avx2": common, "baseline": baseline}


class Fenced:
    """An array that ends (or starts) where a page begins that may not be touched."""

    def __init__(self, values: np.ndarray, at_end: bool) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        assert values.nbytes <= PAGE
        self.memory = mmap.mmap(-1, 3 * PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for page in (start, start + 2 * PAGE):
            assert libc.mprotect(page, PAGE, 0) == 0  # no access
        offset = 2 * PAGE - values.nbytes if at_end else PAGE
        self.array = np.frombuffer(self.memory, values.dtype, values.size, offset)
        self.array[:] = values


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("lanes", LANES)
def test_strided_loads_and_stores(lanes: int, stride: int, target: str) -> None:
    """Every dtype; the source ends exactly at its last element, in front of a page that may not be read."""
    rng = np.random.default_rng(lanes)
    span = (lanes - 1) * abs(stride) + 1
    start = span - 1 if stride < 0 else 0
    lane = start + np.arange(lanes) * stride
    params, arrays, checks, keep = [], [], [], []
    for dtype in DTYPES:
        source = Fenced(samples(dtype, max(span, 32), rng)[:span], at_end=stride > 0)
        keep.append(source)
        sink = Fenced(np.zeros(span, dtype.numpy), at_end=stride > 0)
        keep.append(sink)
        packed = np.zeros(lanes, dtype.numpy)
        expected = np.zeros(span, dtype.numpy)
        expected[lane] = source.array[lane]
        checks += [(packed, source.array[lane]), (sink.array, expected)]
        group = [source.array, packed, sink.array]
        arrays += group
        params += [param(f"{n}_{dtype}", a, m) for n, a, m in zip("xps", group, ("in", "out", "out"), strict=True)]

    def write(e: Emitter, g: Value) -> None:
        for i, dtype in enumerate(DTYPES):
            x, p, s = params[3 * i : 3 * i + 3]
            value = Value(VType(dtype, lanes))
            e.body.append(Load(value, x, Affine(start), stride))
            e.body.append(Store(p, Affine(), value))
            e.body.append(Store(s, Affine(start), value, stride))

    run(build(params, 1, write), arrays, TARGETS[target]())
    for actual, wanted in checks:
        assert same(np.ascontiguousarray(actual), np.ascontiguousarray(wanted)), actual.dtype


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("stride", (1, -1, 2, 3, 4, -2, 5, "offsets"))
@pytest.mark.parametrize("lanes", LANES)
def test_masks(lanes: int, stride: int | str, target: str) -> None:
    """Lanes that are masked off give zero and touch nothing: half of the accesses lie beyond the fence."""
    rng = np.random.default_rng(lanes)
    step = 1 if isinstance(stride, str) else stride

    span = (lanes - 1) * abs(step) + 1
    places = np.arange(lanes) * step + (span - 1 if step < 0 else 0)
    order = rng.permutation(span)[:lanes].astype(np.int64) if stride == "offsets" else places.astype(np.int64)
    params, arrays, checks, keep = [], [], [], []
    for dtype in DTYPES:
        half = (span + 1) // 2
        source, sink = (Fenced(samples(dtype, 64, rng)[:half], True) for _ in range(2))
        keep += [source, sink]
        mask = order < half
        packed = np.ones(lanes, dtype.numpy)
        expected = np.zeros(lanes, dtype.numpy)
        expected[mask] = source.array[order[mask]]
        written = sink.array.copy()
        written[order[mask]] = expected[mask]
        checks += [(packed, expected), (sink.array, written)]
        group = [source.array, packed, sink.array, mask, order]
        arrays += group
        modes = ("in", "out", "inout", "in", "in")
        params += [param(f"{n}_{dtype}", a, m) for n, a, m in zip("xpsmo", group, modes, strict=True)]

    def write(e: Emitter, g: Value) -> None:
        for i, dtype in enumerate(DTYPES):
            x, p, s, m, o = params[5 * i : 5 * i + 5]
            mask, value = Value(VType(boolean, lanes)), Value(VType(dtype, lanes))
            e.body.append(Load(mask, m, Affine()))
            offsets = None
            if stride == "offsets":
                offsets = Value(VType(i64, lanes))
                e.body.append(Load(offsets, o, Affine()))
            start = Affine(0 if offsets is not None else int(places[0]))
            e.body.append(Load(value, x, start, 0 if offsets else step, offsets, mask))
            e.body.append(Store(p, Affine(), value))
            e.body.append(Store(s, start, value, 0 if offsets else step, offsets, mask))

    run(build(params, 1, write), arrays, TARGETS[target]())
    for actual, wanted in checks:
        assert same(np.ascontiguousarray(actual), wanted), actual.dtype


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("stride", (1, 2, 3, 4, 5))
@pytest.mark.parametrize("lanes", (4, 8, 16))
def test_masks_on_both_sides(lanes: int, stride: int, target: str) -> None:
    """A vector that begins in front of what is there and ends behind it, of which some lanes are not wanted either."""
    rng = np.random.default_rng(lanes)
    before, size = stride + 1, (lanes - 2) * stride
    places = np.arange(lanes) * stride - before
    params, arrays, checks, keep = [], [], [], []
    for dtype in DTYPES:
        for at_end in (False, True):
            source = Fenced(samples(dtype, 96, rng)[:size], at_end)
            keep.append(source)
            mask = (places >= 0) & (places < size) & (rng.random(lanes) < 0.7)
            packed, expected = np.ones(lanes, dtype.numpy), np.zeros(lanes, dtype.numpy)
            expected[mask] = source.array[places[mask]]
            checks.append((packed, expected))
            arrays += [source.array, packed, mask]
            names = (f"{n}{int(at_end)}_{dtype}" for n in "xpm")
            modes = ("in", "out", "in")
            params += [param(n, a, m) for n, a, m in zip(names, arrays[-3:], modes, strict=True)]

    def write(e: Emitter, g: Value) -> None:
        for i in range(len(checks)):
            x, p, m = params[3 * i : 3 * i + 3]
            mask, value = Value(VType(boolean, lanes)), Value(VType(x.dtype, lanes))
            e.body.append(Load(mask, m, Affine()))
            e.body.append(Load(value, x, Affine(-before), stride, None, mask))
            e.body.append(Store(p, Affine(), value))

    run(build(params, 1, write), arrays, TARGETS[target]())
    for actual, wanted in checks:
        assert same(actual, wanted), actual.dtype


@pytest.mark.share(2)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("stride", (2, -2, 3, 4, -4, 5, -7))
@pytest.mark.parametrize("lanes", (4, 8, 16))
def test_first_lanes(lanes: int, stride: int, target: str) -> None:
    """What a loop leaves of its axis: the other lanes give zero and touch nothing, and no lane is asked about."""
    for count in range(1, lanes):
        _check_first_lanes(lanes, count, stride, target)


# One for each size of an element.
SIZES = (boolean, next(d for d in DTYPES if d.bits == 16), f32, f64)


def _check_first_lanes(lanes: int, count: int, stride: int, target: str) -> None:
    rng = np.random.default_rng(count)
    span = (count - 1) * abs(stride) + 1
    start = span - 1 if stride < 0 else 0
    places = start + np.arange(count) * stride
    params, arrays, checks, keep = [], [], [], []
    for dtype in SIZES:
        source, sink = (Fenced(samples(dtype, 128, rng)[:span], stride > 0) for _ in range(2))
        keep += [source, sink]
        packed, expected, written = np.ones(lanes, dtype.numpy), np.zeros(lanes, dtype.numpy), sink.array.copy()
        expected[:count] = written[places] = source.array[places]
        checks += [(packed, expected), (sink.array, written)]
        group = [source.array, packed, sink.array]
        arrays += group
        params += [param(f"{n}_{dtype}", a, m) for n, a, m in zip("xps", group, ("in", "out", "inout"), strict=True)]

    def write(e: Emitter, g: Value) -> None:
        mask = e.op("lt", e.lanes(i64, lanes), count)
        for i, dtype in enumerate(SIZES):
            x, p, s = params[3 * i : 3 * i + 3]
            value = Value(VType(dtype, lanes))
            e.body.append(Load(value, x, Affine(start), stride, None, mask))
            e.body.append(Store(p, Affine(), value))
            e.body.append(Store(s, Affine(start), value, stride, None, mask))

    kernel = build(params, 1, write)
    run(kernel, arrays, TARGETS[target]())
    for actual, wanted in checks:
        assert same(np.ascontiguousarray(actual), wanted), actual.dtype
    text = emit_kernel(kernel, baseline())
    assert "masked.gather" not in text
    assert "masked.scatter" not in text


def test_scalar_masks_that_are_false_touch_nothing() -> None:
    flags = np.array([True, False])
    source = Fenced(np.array([3.5], np.float32), True)
    output = np.ones(2, np.float32)
    arrays = [flags, source.array, output]
    params = [param("m", flags, "in"), param("x", source.array, "inout"), param("y", output, "out")]

    def write(e: Emitter, g: Value) -> None:
        mask, value = Value(VType(boolean)), Value(VType(f32))
        e.body.append(Load(mask, params[0], Affine(0, ((g, 1),))))
        e.body.append(Load(value, params[1], Affine(0, ((g, 1),)), mask=mask))
        e.body.append(Store(params[2], Affine(0, ((g, 1),)), value))
        e.body.append(Store(params[1], Affine(0, ((g, 1),)), e.op("add", value, 1.0), mask=mask))

    run(build(params, 2, write), arrays)
    assert (output == [3.5, 0.0]).all()
    assert source.array[0] == 4.5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_offsets_gather_and_scatter(dtype: DType, target: str) -> None:
    rng = np.random.default_rng(3)
    table = samples(dtype, 100, rng)
    where = rng.permutation(100)[:48].astype(np.int64)
    gathered, scattered = np.zeros(48, dtype.numpy), np.zeros(100, dtype.numpy)
    arrays = [table, where, gathered, scattered]
    modes = ("in", "in", "out", "out")
    params = [param(n, a, m) for n, a, m in zip("twgs", arrays, modes, strict=True)]

    def write(e: Emitter, g: Value) -> None:
        offsets, value = Value(VType(i64, 8)), Value(VType(dtype, 8))
        e.body.append(Load(offsets, params[1], Affine(0, ((g, 8),))))
        e.body.append(Load(value, params[0], Affine(), 0, offsets))
        e.body.append(Store(params[2], Affine(0, ((g, 8),)), value))
        e.body.append(Store(params[3], Affine(), value, 0, offsets))

    run(build(params, 6, write), arrays, TARGETS[target]())
    expected = np.zeros(100, dtype.numpy)
    expected[where] = table[where]
    assert same(gathered, table[where])
    assert same(scattered, expected)


def test_scalar_loads_with_computed_indices() -> None:
    table, where = np.arange(50, dtype=np.float64), np.array([4, 49, 0, 7], np.int64)
    output = np.zeros(4)
    params = [param("t", table, "in"), param("w", where, "in"), param("y", output, "out")]

    def write(e: Emitter, g: Value) -> None:
        index, value = Value(VType(i64)), Value(VType(f64))
        e.body.append(Load(index, params[1], Affine(0, ((g, 1),))))
        e.body.append(Load(value, params[0], Affine(0, ((index, 1),))))
        e.body.append(Store(params[2], Affine(0, ((g, 1),)), value))

    run(build(params, 4, write), [table, where, output])
    assert (output == table[where]).all()


def test_the_same_value_twice_in_an_index() -> None:
    source, output = np.arange(64, dtype=np.int32), np.zeros(8, np.int32)
    params = [param("x", source, "in"), param("y", output, "out")]

    def write(e: Emitter, g: Value) -> None:
        three = e.const(3, VType(i64))
        value = Value(VType(i32))
        e.body.append(Load(value, params[0], Affine(-2, ((g, 5), (three, 2), (g, 3), (three, -1), (g, -1), (g, 0)))))
        e.body.append(Store(params[1], Affine(0, ((g, 1),)), value))

    run(build(params, 8, write), [source, output])
    assert (output == np.arange(8) * 7 + 1).all()


def test_strided_loads_are_wide_loads_and_shuffles() -> None:
    source, output = np.arange(46, dtype=np.float32), np.zeros(16, np.float32)
    params = [param("x", source, "in"), param("y", output, "out")]

    def write(e: Emitter, g: Value) -> None:
        value = Value(VType(f32, 16))
        e.body.append(Load(value, params[0], Affine(), 3))
        e.body.append(Store(params[1], Affine(), value))

    target: Target = host_target()
    text = run(build(params, 1, write), [source, output], target)
    assert (output == source[::3]).all()
    assert text.count("load <16 x float>") == 3
    assert text.count("shufflevector") == 2
    assert "gather" not in text


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("stride", (1, 2, 3, -2, 5, -7))
@pytest.mark.parametrize("count", (1, 2, 3, 5, 8, 11))
def test_the_first_lanes(count: int, stride: int, target: str) -> None:
    """What a loop leaves of its axis, right before the fence or right behind it."""
    rng = np.random.default_rng(count)
    span, lanes = (count - 1) * abs(stride) + 1, 16
    start = span - 1 if stride < 0 else 0
    params, arrays, checks, keep = [], [], [], []
    for dtype in DTYPES:
        for at_end in (True, False):
            source = Fenced(samples(dtype, max(span, 32), rng)[:span], at_end)
            keep.append(source)
            packed, expected = np.ones(lanes, dtype.numpy), np.zeros(lanes, dtype.numpy)
            expected[:count] = source.array[start + np.arange(count) * stride]
            checks.append((packed, expected))
            arrays += source.array, packed
            params += param(f"x{at_end}_{dtype}", source.array, "in"), param(f"p{at_end}_{dtype}", packed, "out")

    def write(e: Emitter, g: Value) -> None:
        mask = e.op("lt", e.lanes(i64, lanes), count)
        for x, p in zip(params[::2], params[1::2], strict=True):
            value = Value(VType(x.dtype, lanes))
            e.body.append(Load(value, x, Affine(start), stride, None, mask))
            e.body.append(Store(p, Affine(), value))

    run(build(params, 1, write), arrays, TARGETS[target]())
    for actual, wanted in checks:
        assert same(actual, wanted), actual.dtype
