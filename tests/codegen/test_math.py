"""The functions of floats: accuracy, exact classes, and native code against the interpreter, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from graphc.codegen import math_erf
from graphc.codegen.kernel import For, Value, VType
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.llvm.build import build_assembly
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.math import EXPANSIONS, expand
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import Target
from graphc.ir.opdef import OPS
from graphc.ir.types import DType, bf16, boolean, f16, f32, f64, i32, u8
from tests.codegen.kernel_harness import compiled, interpreted, native, native_kernel, statements
from tests.codegen.kernel_interpreter import fma, ulp_error
from tests.codegen.native import baseline

Reference = Callable[..., np.ndarray]
Long = np.longdouble


def _sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


_erf = np.vectorize(math.erf, otypes=[np.float64])
REFERENCES: dict[str, Reference] = {
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sqrt": np.sqrt,
    "sigmoid": _sigmoid,
    "erf": _erf,
}
# Limits in ulp: measured (docs/math.md) and rounded up.
LIMITS = {
    "exp": 1,
    "exp2": 1,
    "log": 1,
    "log2": 0.6,
    "log10": 0.6,
    "log1p": 1.6,
    "expm1": 2,
    "tanh": 1.6,
    "sigmoid": 2,
    "erf": 1.6,
    "sin": 2.5,
    "cos": 2.5,
}

SPECIAL = [
    0.0, 1.0, 2.0, 0.5, 3.0, 0.1, 0.3, 0.9, 0.99999, 1.00001, 1e-5, 1e-20, 1e-40, 1e-310, 5e-324, 2.0**-149, 2.0**-126,
    2.0**-1022, 1e10, 1e38, 1e300, 3.4028234663852886e38, 1.7976931348623157e308, math.inf, 17.0, 20.0, 88.72, 88.73,
    103.9, 104.1, 709.7, 709.8, 745.1, 745.2, math.pi, math.pi / 2, 4.0, 6.0, 9.0, 127.0, 128.0, 1024.0,
]  # fmt: skip


def specials(dtype: DType) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = np.array([*SPECIAL, *(-v for v in SPECIAL), math.nan]).astype(dtype.numpy)
    return values


def samples(dtype: DType, count: int = 20_000) -> np.ndarray:
    """Random bit patterns, numbers of middling size, near 1, near multiples of pi/2, and special ones."""
    rng = np.random.default_rng(20)
    bits = np.dtype(f"i{dtype.itemsize}")
    limit = np.iinfo(bits)
    numbers = np.concatenate([
        rng.uniform(-1, 1, count) * 2.0 ** rng.uniform(-12, 11, count),
        rng.uniform(-10, 10, count),
        rng.uniform(0.4, 2.5, count),
        rng.uniform(-750, 750, count),
        np.round(rng.uniform(-1e6, 1e6, count)) * (math.pi / 2),
        np.arange(-1100.0, 1100.0),
    ]).astype(dtype.numpy)  # fmt: skip
    random = rng.integers(limit.min, limit.max, count, dtype=bits).view(dtype.numpy)
    return np.concatenate([numbers, random, specials(dtype)])


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equal, with the sign of zeros, NaN being equal to NaN."""
    return ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))


def reference(name: str, *arrays: np.ndarray) -> np.ndarray:
    wide = np.float64 if name == "erf" or arrays[0].dtype == np.float32 else Long
    with np.errstate(all="ignore"):
        return REFERENCES[name](*(a.astype(wide) for a in arrays))


def test_every_elementwise_operator_has_an_expansion() -> None:
    elementwise = {name for name, op in OPS.items() if op.kind == "elementwise"}
    assert elementwise == set(EXPANSIONS) | {"cast", "bitcast"}


@pytest.mark.parametrize("name", sorted(LIMITS))
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_accuracy(name: str, dtype: DType) -> None:
    x = samples(dtype)
    got = native(name, (dtype,), 64 // dtype.itemsize)(x)
    error = ulp_error(got, reference(name, x))
    worst = int(np.argmax(error))
    assert error[worst] <= LIMITS[name], (x[worst], got[worst])


def test_erf_where_its_pieces_meet() -> None:
    ends = np.float32((np.arange(16) + 0.5) / math_erf.SCALE).view(np.int32)
    x = (ends[:, None] + np.arange(-16, 16)).astype(np.int32).view(np.float32).ravel()
    assert ulp_error(native("erf", (f32,), 16)(x), reference("erf", x)).max() <= 1.1


@pytest.mark.parametrize("lanes", [1, 2, 8, 16])
def test_reduction_of_the_hardest_argument(lanes: int) -> None:
    """6381956970095103 * 2**797 is the float64 closest to a multiple of pi/2 (Muller, Elementary Functions, 2006)."""
    x = np.array([6381956970095103.0 * 2.0**797] * lanes)
    assert (native("cos", (f64,), lanes)(x) == -4.6871659242546276e-19).all()


@pytest.mark.parametrize("name", [*REFERENCES, "floor", "ceil", "round", "trunc", "neg", "abs", "sign"])
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_native_code_is_what_the_statements_say(name: str, dtype: DType, lanes: int) -> None:
    x = samples(dtype, 500)
    x = x[: x.size // 16 * 16]
    got = native(name, (dtype,), lanes)(x)
    assert same(got, interpreted(name, x, lanes=lanes)).all()


@pytest.mark.parametrize("name", ["sin", "cos", "tanh", "erf", "log1p", "expm1", "sqrt"])
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_symmetry_and_zeros(name: str, dtype: DType) -> None:
    x = specials(dtype)
    run = native(name, (dtype,), 4)
    if name in ("sin", "tanh", "erf"):
        assert same(run(-x), -run(x)).all()
    if name == "cos":
        assert same(run(-x), run(x)).all()
    else:
        zeros = np.array([0.0, -0.0], dtype.numpy)
        assert same(run(zeros), zeros).all()


@pytest.mark.parametrize("name", sorted(EXPANSIONS))
def test_heavy_operators_are_those_of_many_operations(name: str) -> None:
    """A dozen operations of the kernel IR and more, a loop, or an instruction that takes as long."""
    dtype = i32 if name == "gcd" else f32
    e = ScopedEmitter()
    operands = [e.bind(Value(VType(boolean if name == "select" and not i else dtype))) for i in range(OPS[name].arity)]
    expand(e, name, *operands)
    many = len(e.body) >= 12 or any(isinstance(s, For) for s in e.body)
    assert OPS[name].is_heavy == (many or name in ("div", "sqrt"))


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "erf", "sin", "sqrt", "round", "sign"])
def test_16_bit_floats_are_computed_in_f32(name: str, dtype: DType) -> None:
    """Over all 65536 patterns: the result is that of f32, rounded."""
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy)
    got = native(name, (dtype,), 16)(x)
    with np.errstate(all="ignore"):
        expected = native(name, (f32,), 16)(x.astype(np.float32)).astype(dtype.numpy)
    assert same(got.astype(np.float32), expected.astype(np.float32)).all()


def test_16_bit_floats_compare_and_select() -> None:
    x = np.array([1, 2, math.nan, -0.0], ml_dtypes.bfloat16)
    y = np.array([2, 2, 1, 0.0], ml_dtypes.bfloat16)
    assert native("le", (bf16, bf16), 4)(x, y).tolist() == [True, True, False, True]
    chosen = native("select", (boolean, bf16, bf16), 4)(np.array([True, False, True, False]), x, y)
    assert chosen.tobytes() == np.array([1, 2, math.nan, 0.0], ml_dtypes.bfloat16).tobytes()


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_extremes_take_nan_and_order_zeros(name: str, dtype: DType) -> None:
    x, y = (a.ravel() for a in np.meshgrid(specials(dtype), specials(dtype)))
    got = native(name, (dtype, dtype), 4)(x, y)
    assert (np.isnan(got) == (np.isnan(x) | np.isnan(y))).all()
    zeros = (x == 0) & (y == 0)
    negative = (np.signbit(x) & np.signbit(y)) if name == "maximum" else (np.signbit(x) | np.signbit(y))
    assert (np.signbit(got) == negative)[zeros].all()
    assert same(got, interpreted(name, x, y)).all()


def test_sign_of_everything() -> None:
    x = np.array([math.nan, -0.0, 0.0, -math.inf, 5e-324, -3.0])
    assert native("sign", (f64,), 2)(x).tolist() == [0, 0, 0, -1, 1, -1]
    assert native("sign", (i32,), 2)(np.array([-(2**31), 0, 7], np.int32)).tolist() == [-1, 0, 1]
    assert native("sign", (u8,), 2)(np.array([0, 255], np.uint8)).tolist() == [0, 1]


def test_scalars_mix_with_vectors() -> None:
    e = ScopedEmitter()
    x, y = e.bind(Value(VType(f32, 8))), e.bind(Value(VType(f32)))
    assert expand(e, "pow", x, y).type == VType(f32, 8)
    assert expand(e, "remainder", y, x).type == VType(f32, 8)


@pytest.mark.parametrize("name", sorted({*REFERENCES, "floor_divide", "remainder", "pow"}))
@pytest.mark.parametrize("dtype", [f16, f32, f64], ids=str)
def test_kernels_verify(name: str, dtype: DType) -> None:
    arity = 1 if name in REFERENCES else 2
    verify_kernel(native_kernel(name, (dtype,) * arity, 8))
    verify_kernel(native_kernel(name, (dtype,) * arity, 1))


def test_equal_calls_are_computed_once() -> None:
    """The scoped emitter numbers values: a second call adds no statement."""
    e = ScopedEmitter()
    x = e.bind(Value(VType(f32, 8)))
    first = expand(e, "exp", x)
    count = len(e.body)
    assert expand(e, "exp", x) is first
    assert len(e.body) == count


def test_large_arguments_stay_in_their_loop() -> None:
    """The rare way of sin must not be hoisted to where every call pays for it."""
    body, _, _ = statements("sin", (f64,), 8)
    outside = sum(type(s).__name__ == "Op" and s.name != "const" for s in body if hasattr(s, "name"))
    assert outside < 50


BINARY = ("pow", "floor_divide", "remainder")


@pytest.mark.parametrize("name", sorted({*REFERENCES, *BINARY}))
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_results_do_not_depend_on_the_machine(name: str, dtype: DType) -> None:
    """Code for the oldest machine of this architecture, narrower and without fma instructions, gives the same bits."""
    arity = 2 if name in BINARY else 1
    x = [samples(dtype, 500)[:2000], samples(dtype, 500)[2000:0:-1]][:arity]
    old = compiled(native_kernel(name, (dtype,) * arity, 4), baseline())(*x)
    new = native(name, (dtype,) * arity, 16)(*x)
    assert same(old, new).all()


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_no_library_is_called(dtype: DType) -> None:
    """Neither here nor on aarch64 does any function become a call."""
    arm = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "", 16, 32, True, 1 << 16, 1 << 20, 4)
    for target in (host_target(), arm):
        if not target.fma:
            continue
        for name in sorted({*REFERENCES, *BINARY}):
            kernel = native_kernel(name, (dtype,) * (2 if name in BINARY else 1), target.lanes(dtype.itemsize))
            text = build_assembly(emit_kernel(kernel, target), target)
            words = {line.split()[0] for line in text.splitlines() if line.startswith("\t")}
            assert not words & {"call", "callq", "bl", "blr"}, (name, target.triple)


def _fma(e: ScopedEmitter, a: Value, b: Value, c: Value) -> Value:
    return e.op("fma", a, b, c)


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_oracle_fma_rounds_once(dtype: DType) -> None:
    """The interpreter's fma is that of the machine, on random bits and where the sum cancels."""
    rng = np.random.default_rng(3)
    bits = np.dtype(f"i{dtype.itemsize}")
    limit = np.iinfo(bits)
    a, b, c = (rng.integers(limit.min, limit.max, 3000, dtype=bits).view(dtype.numpy) for _ in range(3))
    small = rng.uniform(-1, 1, (3, 3000)).astype(dtype.numpy)
    with np.errstate(all="ignore"):
        c = np.where(np.arange(3000) % 2 == 0, -(a * b), c)
        for x, y, z in ((a, b, c), (small[0], small[1], -(small[0] * small[1])), small):
            assert same(fma(x, y, z), native(_fma, (dtype, dtype, dtype), 4)(x, y, z)).all()
