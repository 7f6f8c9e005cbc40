"""Every operation of the kernel IR, in native code, against NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import OPERATIONS, SHUFFLES, Affine, Load, Op, Param, Store, Value, VType
from graphc.codegen.target import Target
from graphc.ir.types import DTYPES, DType, bf16, boolean, f16, f32, f64, i8, i16, i32, i64, u8
from tests.codegen.kernel_interpreter import fma
from tests.codegen.native import baseline, build, host_target, param, run, same, samples
from tests.codegen.targets import common

LANES = (1, 4, 8, 16)
GRID = 6
SIGNED = (i8, i16, i32, i64)
INTEGERS = (*SIGNED, u8)
FLOATS = (f32, f64)
TARGETS = {"host": host_target, "avx2": common, "baseline": baseline}


def maximum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NaN wins, +0 is more than -0."""
    if a.dtype.kind != "f":
        return np.maximum(a, b)
    result = np.where((a > b) | ((a == b) & ~np.signbit(a)), a, b)
    return np.where(np.isnan(a) | np.isnan(b), np.array(np.nan, a.dtype), result)


def minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.minimum(a, b) if a.dtype.kind != "f" else -maximum(-a, -b)


def truncating_quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    quotient = [abs(int(x)) // abs(int(y)) * (1 if (x < 0) == (y < 0) else -1) for x, y in zip(a, b, strict=True)]
    return np.array(quotient).astype(a.dtype)


def unsigned(f: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda a, b: f(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}")).view(a.dtype)


REFERENCE: dict[str, Callable[..., np.ndarray]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "fma": fma,
    "neg": lambda a: -a if a.dtype.kind == "f" else (0 - a).astype(a.dtype),
    "abs": np.abs,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "rint": np.rint,
    "maximum": maximum,
    "minimum": minimum,
    "fmax": lambda a, b: np.where(a > b, a, b),
    "fmin": lambda a, b: np.where(a < b, a, b),
    "sdiv": truncating_quotient,
    "srem": lambda a, b: a - truncating_quotient(a, b) * b,
    "udiv": unsigned(lambda a, b: a // b),
    "urem": unsigned(lambda a, b: a % b),
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "not": lambda a: ~a,
    "shl": lambda a, b: a << b,
    "lshr": unsigned(lambda a, b: a >> b),
    "ashr": lambda a, b: a >> b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "select": lambda c, a, b: np.where(c, a, b),
}
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")
REDUCE = {
    "reduce_add": lambda a, b: a + b,
    "reduce_mul": lambda a, b: a * b,
    "reduce_maximum": maximum,
    "reduce_minimum": minimum,
    "reduce_or": lambda a, b: a | b,
    "reduce_and": lambda a, b: a & b,
}


def operations_of(dtype: DType) -> list[str]:
    """The elementwise operations that are defined for `dtype`."""
    if dtype.kind == "bool":
        return ["maximum", "minimum", "and", "or", "xor", "not", *COMPARE, "select"]
    common = ["add", "sub", "mul", "neg", "abs", "maximum", "minimum", *COMPARE, "select"]
    if dtype.is_float:
        return [*common, "div", "fma", "sqrt", "floor", "ceil", "trunc", "rint", "fmax", "fmin"]
    signed = ["sdiv", "srem"] if dtype.kind == "int" else []
    return [*common, *signed, "udiv", "urem", "and", "or", "xor", "not", "shl", "lshr", "ashr"]


def operands(name: str, dtype: DType, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    values = [samples(dtype, count, rng) for _ in range(OPERATIONS[name][0])]
    if name in ("sdiv", "srem", "udiv", "urem"):
        values[1][(values[1] == 0) | (values[1] == np.array(-1).astype(dtype.numpy))] = 3
    if name in ("shl", "lshr", "ashr"):
        values[1] = rng.integers(0, dtype.bits, count).astype(dtype.numpy)
    if name == "select":
        values[0] = rng.integers(0, 2, count).astype(bool)
    if name == "fma" and dtype is f64:  # the reference is sure of itself in this range only
        values = [np.where(np.isfinite(v) & (np.abs(v) < 1e100) & (np.abs(v) > 1e-100), v, 1.0) for v in values]
    return values


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in (f16, bf16)], ids=str)
def test_elementwise(dtype: DType, lanes: int, target: str) -> None:
    rng = np.random.default_rng(lanes)
    count = GRID * lanes
    names = [n for n in operations_of(dtype) if n != "fma" or TARGETS[target]().fma]
    arrays, params, plans = [], [], []
    for name in names:
        inputs = operands(name, dtype, max(count, 32), rng)[:]
        inputs = [v[:count].copy() for v in inputs]
        with np.errstate(all="ignore"):
            expected = REFERENCE[name](*inputs)
        output = np.zeros(count, expected.dtype)
        group = [param(f"{name}{i}", v, "in") for i, v in enumerate(inputs)] + [param(f"{name}_out", output, "out")]
        params += group
        arrays += [*inputs, output]
        plans.append((name, group, output, expected))

    def write(e: Emitter, g: Value) -> None:
        for name, (*sources, out), _, _ in plans:
            values = []
            for source in sources:
                value = Value(VType(source.dtype, lanes), source.name)
                e.body.append(Load(value, source, Affine(0, ((g, lanes),))))
                values.append(value)
            e.body.append(Store(out, Affine(0, ((g, lanes),)), e.op(name, *values)))

    run(build(params, GRID, write), arrays, TARGETS[target]())
    wrong = [name for name, _, output, expected in plans if not same(output, expected)]
    assert not wrong


@pytest.mark.parametrize("lanes", (2, 4, 16, 32))
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in (f16, bf16)], ids=str)
def test_lane_reductions(dtype: DType, lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    names = [n for n in REDUCE if (n not in ("reduce_or", "reduce_and") if dtype.is_float else True)]
    if dtype is boolean:
        names = [n for n in names if n not in ("reduce_add", "reduce_mul")]
    source = rng.standard_normal(GRID * lanes).astype(dtype.numpy) if dtype.is_float else samples(dtype, 192, rng)
    source = source[: GRID * lanes].copy()
    outputs = [np.zeros(GRID, dtype.numpy) for _ in names]
    params = [param("x", source, "in"), *(param(n, o, "out") for n, o in zip(names, outputs, strict=True))]

    def write(e: Emitter, g: Value) -> None:
        value = Value(VType(dtype, lanes))
        e.body.append(Load(value, params[0], Affine(0, ((g, lanes),))))
        for name, out in zip(names, params[1:], strict=True):
            e.body.append(Store(out, Affine(0, ((g, 1),)), e.op(name, value)))

    run(build(params, GRID, write), [source, *outputs])
    for name, output in zip(names, outputs, strict=True):
        rows = source.reshape(GRID, lanes)
        with np.errstate(all="ignore"):
            while rows.shape[1] > 1:
                half = rows.shape[1] // 2
                rows = REDUCE[name](rows[:, :half], rows[:, half:])
        assert same(output, np.ascontiguousarray(rows[:, 0])), name


def cast_reference(values: np.ndarray, source: DType, target: DType) -> np.ndarray:
    if target is boolean:
        return values != 0
    if target.is_integer and source.is_float:
        return values.astype(np.float64).astype(np.int64).astype(target.numpy)
    if target in (f16, bf16) and source is not f64:
        return values.astype(np.float32).astype(target.numpy)
    if target is bf16 and source is f64:
        return round_to_bf16(values)
    return values.astype(target.numpy)


def round_to_bf16(values: np.ndarray) -> np.ndarray:
    """f64 to bf16, rounded once: of the two neighbours, the nearer one, or the even one."""
    near = values.astype(np.float32)
    bits = near.view(np.uint32).astype(np.int64)
    odd = np.where(np.abs(near.astype(np.float64)) > np.abs(values), bits - 1, bits) | 1
    bits = np.where(np.isfinite(values) & (near.astype(np.float64) != values), odd, bits).astype(np.uint32)
    return bits.view(np.float32).astype(bf16.numpy)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_casts(source: DType, lanes: int, target: str) -> None:
    rng = np.random.default_rng(5)
    count = 32 * lanes
    values = samples(source, count, rng)
    if source.is_float:
        finite = np.where(np.isfinite(values.astype(np.float64)), values, np.array(0, values.dtype))
        small = np.clip(finite.astype(np.float64), 0, 100).astype(values.dtype)
    else:
        finite = small = values
    outputs = [np.zeros(count, d.numpy) for d in DTYPES]
    names = [f"to_{d}" for d in DTYPES]
    params = [param("x", values, "in"), param("small", small, "in")]
    params += [param(n, o, "out") for n, o in zip(names, outputs, strict=True)]

    def write(e: Emitter, g: Value) -> None:
        for out, dtype in zip(params[2:], DTYPES, strict=True):
            value = Value(VType(source, lanes))
            e.body.append(Load(value, params[1 if dtype.is_integer else 0], Affine(0, ((g, lanes),))))
            e.body.append(Store(out, Affine(0, ((g, lanes),)), e.op("cast", value, to=dtype)))

    run(build(params, 32, write), [values, small, *outputs], TARGETS[target]())
    for output, dtype in zip(outputs, DTYPES, strict=True):
        with np.errstate(all="ignore"):
            expected = cast_reference(small if dtype.is_integer else values, source, dtype)
        assert same(output, expected), dtype


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_every_16_bit_float_survives(dtype: DType, target: str) -> None:
    """All 65536 values to f32, and f32 values near every rounding boundary back."""
    values = np.arange(65536, dtype=np.uint16).view(dtype.numpy)
    wide = np.zeros(65536, np.float32)
    steps = np.array([-1, 0, 1], np.int64)
    exact = values.astype(np.float32).view(np.uint32).astype(np.int64)
    half = 1 << (12 if dtype is f16 else 15)
    near = np.concatenate([exact + s for s in steps] + [exact + half + s for s in steps]).astype(np.uint32)
    inputs = near.view(np.float32)
    narrow = np.zeros(inputs.size, dtype.numpy)
    params = [param("x", values, "in"), param("y", wide, "out"), param("v", inputs, "in"), param("w", narrow, "out")]
    lanes = 16

    def write(e: Emitter, g: Value) -> None:
        value = Value(VType(dtype, lanes))
        e.body.append(Load(value, params[0], Affine(0, ((g, lanes),))))
        e.body.append(Store(params[1], Affine(0, ((g, lanes),)), e.op("cast", value, to=f32)))
        for i in range(6):
            index = Affine(65536 * i, ((g, lanes),))
            value = Value(VType(f32, lanes))
            e.body.append(Load(value, params[2], index))
            e.body.append(Store(params[3], index, e.op("cast", value, to=dtype)))

    run(build(params, 65536 // lanes, write), [values, wide, inputs, narrow], TARGETS[target]())
    assert same(wide, values.astype(np.float32))
    with np.errstate(all="ignore"):
        assert same(narrow, inputs.astype(dtype.numpy))


@pytest.mark.parametrize("lanes", (1, 8))
def test_bitcasts(lanes: int) -> None:
    pairs = [(f32, i32), (i32, f32), (f64, i64), (i64, f64), (f16, i16), (i16, bf16), (u8, i8)]
    rng = np.random.default_rng(0)
    for source, dtype in pairs:
        values = samples(source, 32, rng)
        output = np.zeros(32, dtype.numpy)
        params = [param("x", values, "in"), param("y", output, "out")]

        def write(e: Emitter, g: Value, source: DType = source, dtype: DType = dtype, params: list = params) -> None:
            value = Value(VType(source, lanes))
            e.body.append(Load(value, params[0], Affine(0, ((g, lanes),))))
            e.body.append(Store(params[1], Affine(0, ((g, lanes),)), e.op("bitcast", value, to=dtype)))

        run(build(params, 32 // lanes, write), [values, output])
        assert (output.view(np.uint8) == values.view(np.uint8)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_constants_are_exact(dtype: DType) -> None:
    if dtype.kind == "bool":
        numbers = [True, False]
    elif dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        numbers = [0, 1, int(info.min), int(info.max)]
    else:
        numbers = [0.0, -0.0, 1.0, 0.1, -1 / 3, float("inf"), float("-inf"), float("nan"), 1e-40, 65504.0, 5, 1e300]
    scalars, vectors = np.zeros(len(numbers), dtype.numpy), np.zeros(len(numbers) * 8, dtype.numpy)
    params = [param("s", scalars, "out"), param("v", vectors, "out")]

    def write(e: Emitter, g: Value) -> None:
        for i, number in enumerate(numbers):
            scalar = e.const(number, VType(dtype))
            e.body.append(Store(params[0], Affine(i), scalar))
            e.body.append(
                Store(params[1], Affine(8 * i), e.splat(scalar, 8) if i % 2 else e.const(number, VType(dtype, 8)))
            )

    run(build(params, 1, write), [scalars, vectors])
    with np.errstate(over="ignore"):
        expected = np.array(numbers, np.float64 if dtype.is_float else dtype.numpy).astype(dtype.numpy)
    assert same(scalars, expected)
    assert same(vectors, np.repeat(expected, 8))


def test_lanes_extract_splat_and_index_arithmetic() -> None:
    lanes_out, extracted, index = np.zeros(16, np.int32), np.zeros(4, np.float32), np.zeros(14, np.int64)
    source = np.arange(16, dtype=np.float32)
    arrays = [source, lanes_out, extracted, index]
    params = [param("x", source, "in"), *(param(n, a, "inout") for n, a in zip("lei", arrays[1:], strict=True))]

    def write(e: Emitter, g: Value) -> None:
        e.body.append(Store(params[1], Affine(), e.lanes(i32, 16)))
        value = Value(VType(f32, 16))
        e.body.append(Load(value, params[0], Affine()))
        for i, lane in enumerate((0, 3, 9, 15)):
            scalar = Value(VType(f32))
            e.body.append(Op(scalar, "extract", (value,), lane))
            e.body.append(Store(params[2], Affine(i), scalar))
        e.body.append(Store(params[3], Affine(0, ((g, 2),)), e.op("floordiv", g, 3)))
        e.body.append(Store(params[3], Affine(1, ((g, 2),)), e.op("mod", g, 3)))

    run(build(params, 7, write), arrays)
    assert (lanes_out == np.arange(16)).all()
    assert (extracted == [0, 3, 9, 15]).all()
    assert (index.reshape(7, 2) == [[g // 3, g % 3] for g in range(7)]).all()


SHUFFLED_BY_8 = {  # the lanes of two vectors of 8 elements of 4 bytes
    "zip_low": [0, 8, 1, 9, 2, 10, 3, 11],
    "zip_high": [4, 12, 5, 13, 6, 14, 7, 15],
    "unpack_low": [0, 8, 1, 9, 4, 12, 5, 13],
    "unpack_high": [2, 10, 3, 11, 6, 14, 7, 15],
    "even_segments": [0, 1, 2, 3, 8, 9, 10, 11],
    "odd_segments": [4, 5, 6, 7, 12, 13, 14, 15],
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("name", sorted(SHUFFLED_BY_8))
def test_shuffles(name: str, copies: int, target: str) -> None:
    """`copies`: every element is so many lanes, smaller ones as many times."""
    dtype = np.dtype(np.float32 if copies == 1 else np.int16)
    a = np.arange(8 * copies).astype(dtype)
    arrays = [a, a + dtype.type(100), np.zeros_like(a)]
    params = [param(n, x, "in" if n != "o" else "out") for n, x in zip("abo", arrays, strict=True)]

    def write(e: Emitter, g: Value) -> None:
        values = [Value(VType(params[0].dtype, a.size)) for _ in range(2)]
        e.body.extend([Load(v, p, Affine()) for v, p in zip(values, params, strict=False)])
        e.body.append(Store(params[2], Affine(), e.op(name, *values)))

    run(build(params, 1, write), arrays, TARGETS[target]())
    first, second = arrays[0].reshape(-1, copies), arrays[1].reshape(-1, copies)
    expected = np.concatenate([first, second])[SHUFFLED_BY_8[name]].ravel()
    if copies == 2 and not name.endswith("segments"):  # single elements are zipped, not pairs
        size = 16 if name.startswith("zip") else 8
        half = slice(0, size // 2) if name.endswith("low") else slice(size // 2, size)
        pairs = np.stack(arrays[:2], axis=1).reshape(-1, size, 2)
        expected = pairs[:, half].ravel()
    assert (arrays[2] == expected).all()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [f32, i64, u8], ids=str)
def test_splices(dtype: DType, target: str) -> None:
    """Any number of lanes of one vector and then the other's, none and all of them too."""
    a = np.arange(8).astype(dtype.numpy)
    arrays = [a, a + 10, np.zeros((9, 8), a.dtype)]
    params = [param(n, x, "in" if n != "o" else "out") for n, x in zip("abo", arrays, strict=True)]

    def write(e: Emitter, g: Value) -> None:
        values = [Value(VType(params[0].dtype, 8)) for _ in range(2)]
        e.body.extend([Load(v, p, Affine()) for v, p in zip(values, params, strict=False)])
        for first in range(9):
            e.body.append(Store(params[2], Affine(first * 8), e.splice(*values, first)))

    run(build(params, 1, write), arrays, TARGETS[target]())
    both = np.concatenate(arrays[:2])
    assert (arrays[2] == [both[first : first + 8] for first in range(9)]).all()


@pytest.mark.parametrize(("first", "count"), [(0, 4), (4, 4), (2, 2), (1, 7)])
def test_extract_several_lanes(first: int, count: int) -> None:
    source, part = np.arange(8, dtype=np.float32), np.zeros(count, np.float32)
    params = [param("x", source, "in"), param("o", part, "out")]

    def write(e: Emitter, g: Value) -> None:
        value = Value(VType(f32, 8))
        e.body.append(Load(value, params[0], Affine()))
        assert e.part(value, 0, 8) is value
        e.body.append(Store(params[1], Affine(), e.part(value, first, count)))

    run(build(params, 1, write), [source, part])
    assert (part == source[first : first + count]).all()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("lanes", [1, 2, 4, 5, 8, 16, 32])
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_scale(dtype: DType, lanes: int, target: str) -> None:
    """Also where the result is subnormal, and rounded, or overflows."""
    rng = np.random.default_rng(lanes)
    info = np.finfo(dtype.numpy)
    count = 64 * lanes
    powers = np.arange(count) * 29 % (4 * info.maxexp - 128) - (2 * info.maxexp - 64)
    numbers = rng.standard_normal(count).astype(dtype.numpy)
    numbers[:4] = [np.nan, np.inf, -np.inf, -0.0]
    places = (powers + (1.5 * 2.0**info.nmant + 2 * (info.maxexp - 1))).astype(dtype.numpy)
    scaled = np.zeros(count, dtype.numpy)
    arrays = [numbers, places, scaled]
    params = [param(n, x, "in" if n != "o" else "out") for n, x in zip("abo", arrays, strict=True)]

    def write(e: Emitter, g: Value) -> None:
        values = [Value(VType(dtype, lanes)) for _ in range(2)]
        e.body.extend([Load(v, p, Affine(0, ((g, lanes),))) for v, p in zip(values, params, strict=False)])
        e.body.append(Store(params[2], Affine(0, ((g, lanes),)), e.op("scale", *values)))

    run(build(params, 64, write), arrays, TARGETS[target]())
    with np.errstate(all="ignore"):
        assert same(scaled, np.ldexp(numbers, powers))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("lanes", [1, 2, 4, 5, 8, 16, 24, 32, 40])
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_lookup(dtype: DType, lanes: int, target: str) -> None:
    rng = np.random.default_rng(lanes)
    places = rng.integers(-99, 99, GRID * lanes).astype(f"i{dtype.itemsize}")
    for size in (1, 2, 4, 8, 16, 32, 64):
        table, found = rng.standard_normal(size).astype(dtype.numpy), np.zeros(places.size, dtype.numpy)
        params = [param("i", places, "in"), param("o", found, "out")]

        def write(e: Emitter, g: Value, table: np.ndarray = table, params: list[Param] = params) -> None:
            index = Value(VType(params[0].dtype, lanes))
            e.body.append(Load(index, params[0], Affine(0, ((g, lanes),))))
            e.body.append(Store(params[1], Affine(0, ((g, lanes),)), e.lookup(table.tolist(), index)))

        run(build(params, GRID, write), [places, found], TARGETS[target]())
        assert (found == table[places % size]).all()


def test_every_operation_is_tested() -> None:
    tested = {n for d in DTYPES if d not in (f16, bf16) for n in operations_of(d)} | set(REDUCE)
    tested |= {"const", "splat", "lanes", "extract", "cast", "bitcast", "floordiv", "mod"} | SHUFFLES
    tested |= {"lookup", "scale", "fma_pairs"}
    assert tested == set(OPERATIONS)


def test_fma_without_the_instruction_is_still_fused() -> None:
    target: Target = baseline()
    rng = np.random.default_rng(1)
    inputs = [rng.standard_normal(16).astype(np.float32) for _ in range(3)]
    output = np.zeros(16, np.float32)
    arrays = [*inputs, output]
    params = [*(param(n, a, "in") for n, a in zip("abc", inputs, strict=True)), param("y", output, "out")]

    def write(e: Emitter, g: Value) -> None:
        values = [Value(VType(f32, 16)) for _ in inputs]
        e.body.extend([Load(v, p, Affine()) for v, p in zip(values, params, strict=False)])
        e.body.append(Store(params[3], Affine(), e.op("fma", *values)))

    run(build(params, 1, write), arrays, target)
    assert same(output, fma(*inputs))


@pytest.mark.parametrize("constant", (0.0, -0.0, 1.5, -1.0, float("inf"), float("-inf"), float("nan"), 1e-40, 1e-50))
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_maximum_and_minimum_with_a_constant(dtype: DType, constant: float) -> None:
    """These have shorter code of their own; NaN and the signs of zeros come out the same."""
    values = samples(dtype, 64, np.random.default_rng(2))
    values[:4] = [0.0, -0.0, np.nan, constant]
    outputs = [np.zeros(64, dtype.numpy) for _ in range(4)]
    params = [param("x", values, "in"), *(param(f"y{i}", o, "out") for i, o in enumerate(outputs))]

    def write(e: Emitter, g: Value) -> None:
        index = Affine(0, ((g, 8),))
        value = Value(VType(dtype, 8))
        number = e.splat(e.const(constant, VType(dtype)), 8)
        e.body.append(Load(value, params[0], index))
        for out, (name, first) in zip(
            params[1:], [(n, f) for n in ("maximum", "minimum") for f in (0, 1)], strict=True
        ):
            e.body.append(Store(out, index, e.op(name, *((value, number) if first else (number, value)))))

    run(build(params, 8, write), [values, *outputs])
    number = np.array(constant).astype(dtype.numpy)
    for i, output in enumerate(outputs):
        assert same(output, (maximum if i < 2 else minimum)(values, np.broadcast_to(number, values.shape)))
