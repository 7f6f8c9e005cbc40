"""Forward values: the references hold their types, and agree with formulas written independently of them."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from graphc.ir.contraction import parse_spec
from graphc.ir.evaluate import evaluate
from graphc.ir.opdef import OPS
from graphc.ir.types import TensorType, bf16, f16, f32, f64, i8, i32, i64
from graphc.ir.verify import verify
from tests.samples import SAMPLES, Sample

RNG = 20240501
INF, NAN = math.inf, math.nan


def samples_of(op: str) -> list[Sample]:
    return SAMPLES[op].make(np.random.default_rng(RNG))


@pytest.mark.parametrize("op", SAMPLES)
def test_reference_keeps_type_and_operands_without_warnings(op: str) -> None:
    for sample in samples_of(op):
        graph = verify(sample.graph(op))
        before = [a.copy() for a in sample.arrays]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = sample.evaluate(op)
        node = graph.outputs[0]
        assert isinstance(result, np.ndarray)
        assert (result.shape, result.dtype) == (node.shape, node.dtype.numpy)
        for old, new in zip(before, sample.arrays, strict=True):
            assert old.tobytes() == new.tobytes(), "the reference wrote into an operand"
        assert result.tobytes() == evaluate(graph, sample.arrays)[0].tobytes()


@pytest.mark.parametrize("op", [name for name, op in OPS.items() if op.commutative])
def test_commutative(op: str) -> None:
    for sample in samples_of(op):
        x, y = sample.arrays
        swapped = Sample((y, x), sample.attrs).evaluate(op)
        swapped, got = swapped.astype(np.float64), sample.evaluate(op).astype(np.float64)
        np.testing.assert_array_equal(got, swapped)
        if swapped.dtype.kind == "f":
            numbers = ~np.isnan(swapped)
            np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(swapped)[numbers])


# integers, against Python's own


def _wrap(value: int, dtype: np.dtype) -> int:
    info = np.iinfo(dtype)
    return (value - int(info.min)) % (int(info.max) - int(info.min) + 1) + int(info.min)


def _shifted(x: int, count: int, bits: int, kind: str) -> int:
    if not 0 <= count < bits:
        return (-1 if x < 0 else 0) if kind == "shift_right" else 0
    if kind == "shift_left":
        return x << count
    return x >> count if kind == "shift_right" else (x % 2**bits) >> count


INTEGER_FORMULAS: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda x, y, bits: x + y,
    "sub": lambda x, y, bits: x - y,
    "mul": lambda x, y, bits: x * y,
    "maximum": lambda x, y, bits: max(x, y),
    "minimum": lambda x, y, bits: min(x, y),
    "floor_divide": lambda x, y, bits: x // y if y else 0,
    "remainder": lambda x, y, bits: x % y if y else 0,
    "bitwise_and": lambda x, y, bits: x & y,
    "bitwise_or": lambda x, y, bits: x | y,
    "bitwise_xor": lambda x, y, bits: x ^ y,
    "shift_left": lambda x, y, bits: _shifted(x, y, bits, "shift_left"),
    "shift_right": lambda x, y, bits: _shifted(x, y, bits, "shift_right"),
    "shift_right_logical": lambda x, y, bits: _shifted(x, y, bits, "shift_right_logical"),
}


@pytest.mark.parametrize("op", INTEGER_FORMULAS)
def test_integer_arithmetic_wraps_around(op: str) -> None:
    for sample in samples_of(op):
        x, y = sample.arrays
        if x.dtype.kind not in "iu" or not x.size:
            continue
        bits = x.dtype.itemsize * 8
        expected = [
            _wrap(INTEGER_FORMULAS[op](int(a), int(b), bits), x.dtype)
            for a, b in zip(x.ravel(), y.ravel(), strict=True)
        ]
        assert sample.evaluate(op).ravel().tolist() == expected, x.dtype


@pytest.mark.parametrize("op", ["neg", "abs", "sign", "bitwise_not"])
def test_unary_integers(op: str) -> None:
    formulas: dict[str, Callable[[int], int]] = {
        "neg": lambda x: -x,
        "abs": abs,
        "sign": lambda x: (x > 0) - (x < 0),
        "bitwise_not": lambda x: ~x,
    }
    for sample in samples_of(op):
        (x,) = sample.arrays
        if x.dtype.kind in "iu":
            expected = [_wrap(formulas[op](int(a)), x.dtype) for a in x.ravel()]
            assert sample.evaluate(op).ravel().tolist() == expected, x.dtype


# floats, against Python's own


def _python_remainder(x: float, y: float) -> float:
    return x % y if y and math.isfinite(x) else NAN


def _python_extreme(x: float, y: float, sign: int) -> float:
    if math.isnan(x) or math.isnan(y):
        return NAN
    return max(x, y, key=lambda v: (sign * v, sign * math.copysign(1, v)))


def _python_quotient(x: float, y: float) -> float:
    if y == 0:
        return NAN if x == 0 or math.isnan(x) else math.copysign(INF, x) * math.copysign(1, y)
    try:
        return x / y
    except OverflowError:
        return math.copysign(INF, x) * math.copysign(1, y)


FLOAT_FORMULAS: dict[str, Callable[[float, float], float]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": _python_quotient,
    "maximum": lambda x, y: _python_extreme(x, y, 1),
    "minimum": lambda x, y: _python_extreme(x, y, -1),
    "remainder": _python_remainder,
    "floor_divide": lambda x, y: x // y if y and math.isfinite(x) else NAN if y else _python_quotient(x, y),
}


@pytest.mark.parametrize("op", FLOAT_FORMULAS)
def test_float_arithmetic(op: str) -> None:
    for sample in samples_of(op):
        if sample.types[0].dtype is not f64:
            continue
        x, y = (a.ravel().tolist() for a in sample.arrays)
        for a, b, got in zip(x, y, sample.evaluate(op).ravel().tolist(), strict=True):
            assert _same(got, FLOAT_FORMULAS[op](a, b)), (a, b, got)


# casts, against exact rational arithmetic


def test_float_to_integer_casts() -> None:
    for sample in samples_of("cast"):
        (x,), target = sample.arrays, sample.attrs["dtype"]
        if not sample.types[0].dtype.is_float or not target.is_integer:
            continue
        wide = np.dtype(np.int64 if target is i64 else np.int32)
        for value, got in zip(x.ravel().astype(np.float64), sample.evaluate("cast").ravel(), strict=True):
            low = int(np.iinfo(wide).min)
            whole = math.trunc(Fraction(float(value))) if np.isfinite(value) else low
            whole = whole if low <= whole <= np.iinfo(wide).max else low
            assert int(got) == _wrap(whole, target.numpy), (value, x.dtype, target)


def test_other_casts() -> None:
    for sample in samples_of("cast"):
        (x,), source, target = sample.arrays, sample.types[0].dtype, sample.attrs["dtype"]
        got = sample.evaluate("cast")
        if target.kind == "bool":
            expected = [v != 0 for v in x.ravel().tolist()]
            assert got.ravel().tolist() == expected
        elif source.is_integer and target.is_integer:
            assert got.ravel().tolist() == [_wrap(v, target.numpy) for v in x.ravel().tolist()]
        elif source.kind == "bool":
            assert got.astype(np.float64).ravel().tolist() == [float(v) for v in x.ravel().tolist()]
    half = Sample((np.array([65519.0, 65520.0, 1e-8, 2049.0]),), {"dtype": f16}).evaluate("cast")
    assert half.tolist() == [65504.0, math.inf, 0.0, 2048.0]
    brain = Sample((np.array([1 + 2**-8, 1 + 2**-8 + 2**-16, 3.4e38]),), {"dtype": bf16}).evaluate("cast")
    assert brain.astype(np.float64).tolist() == [1.0, 1 + 2**-7, math.inf]


# special values


def _one(op: str, *values: float, **attrs: object) -> float:
    arrays = tuple(np.array([v], np.float32) for v in values)
    return float(Sample(arrays, dict(attrs)).evaluate(op)[0])


def _same(x: float, y: float) -> bool:
    return (math.isnan(x) and math.isnan(y)) or (x == y and math.copysign(1, x) == math.copysign(1, y))


@pytest.mark.parametrize(
    ("op", "operands", "expected"),
    [
        ("exp", (-INF,), 0.0),
        ("exp", (89.0,), INF),
        ("log", (0.0,), -INF),
        ("log", (-1.0,), NAN),
        ("log1p", (-0.0,), -0.0),
        ("expm1", (-0.0,), -0.0),
        ("sqrt", (-0.0,), -0.0),
        ("sqrt", (-1.0,), NAN),
        ("sigmoid", (-INF,), 0.0),
        ("sigmoid", (INF,), 1.0),
        ("sigmoid", (-100.0,), float(np.float32(math.exp(-100)))),
        ("tanh", (-0.0,), -0.0),
        ("erf", (INF,), 1.0),
        ("sin", (INF,), NAN),
        ("div", (1.0, -0.0), -INF),
        ("div", (0.0, 0.0), NAN),
        ("pow", (NAN, 0.0), 1.0),
        ("pow", (-8.0, 1 / 3), NAN),
        ("pow", (0.0, -1.0), INF),
        ("pow", (-2.0, 3.0), -8.0),
        ("round", (0.5,), 0.0),
        ("round", (1.5,), 2.0),
        ("round", (-0.4,), -0.0),
        ("floor", (-0.5,), -1.0),
        ("trunc", (-0.5,), -0.0),
        ("sign", (NAN,), 0.0),
        ("sign", (-0.0,), 0.0),
        ("maximum", (NAN, 1.0), NAN),
        ("maximum", (1.0, NAN), NAN),
        ("maximum", (-0.0, 0.0), 0.0),
        ("minimum", (0.0, -0.0), -0.0),
        ("minimum", (NAN, -INF), NAN),
        ("maximum", (-0.0, -0.0), -0.0),
        ("remainder", (5.0, -3.0), -1.0),
        ("remainder", (-5.0, 3.0), 1.0),
        ("remainder", (1.0, 0.0), NAN),
        ("floor_divide", (-7.0, 2.0), -4.0),
        ("floor_divide", (1.0, 0.0), INF),
        ("neg", (0.0,), -0.0),
        ("abs", (-0.0,), 0.0),
        ("add", (INF, -INF), NAN),
        ("mul", (0.0, INF), NAN),
    ],
)  # fmt: skip
def test_special_values(op: str, operands: tuple[float, ...], expected: float) -> None:
    assert _same(_one(op, *operands), expected)


@pytest.mark.parametrize("op", ["eq", "lt", "le", "gt", "ge"])
def test_nan_compares_false(op: str) -> None:
    x, y = np.array([NAN, 1, NAN]), np.array([1, NAN, NAN])
    assert not Sample((x, y)).evaluate(op).any()
    assert Sample((x, y)).evaluate("ne").all()


def test_select_takes_values_whole() -> None:
    x, y = np.array([NAN, -0.0, 1.0]), np.array([INF, 1.0, NAN])
    got = Sample((np.array([False, True, True]), x, y)).evaluate("select")
    assert all(map(_same, got.tolist(), [INF, -0.0, 1.0]))


# movement, against index arithmetic element by element


@pytest.mark.parametrize("op", ["slice", "pad", "window", "fold", "iota"])
def test_movement_by_its_formula(op: str) -> None:
    for sample in samples_of(op):
        result = sample.evaluate(op)
        expected = np.zeros(result.shape, np.float64)
        attrs, x = sample.attrs, (sample.arrays[0].astype(np.float64) if sample.arrays else np.zeros(()))
        if op == "pad":
            expected[...] = float(attrs["value"])
        for place in np.ndindex(*(x.shape if op in ("pad", "fold") else result.shape)):
            if op == "slice":
                expected[place] = x[
                    tuple(a + i * c for a, i, c in zip(attrs["start"], place, attrs["step"], strict=True))
                ]
            elif op == "pad":
                at = (a + i * (1 + n) for a, i, n in zip(attrs["low"], place, attrs["interior"], strict=True))
                expected[tuple(at)] = x[place]
            elif op == "iota":
                expected[place] = place[attrs["axis"]]
            else:
                rank = result.ndim if op == "fold" else x.ndim
                inner = list(place[:rank])
                for k, axis in enumerate(attrs["axes"]):
                    inner[axis] = inner[axis] * attrs["stride"][k] + place[rank + k] * attrs["dilation"][k]
                if op == "fold":
                    expected[tuple(inner)] += x[place]
                else:
                    expected[place] = x[tuple(inner)]
        if op == "fold" and result.dtype.kind in "iu":
            expected = np.array([_wrap(int(v), result.dtype) for v in expected.ravel()]).reshape(result.shape)
            if result.dtype.itemsize == 8:
                continue  # sums of i64 do not fit the f64 of `expected`
        tolerance = 1e-2 if result.dtype in (f16.numpy, bf16.numpy) else 1e-6
        np.testing.assert_allclose(result.astype(np.float64), expected, rtol=tolerance, atol=tolerance * (op == "fold"))


# reductions and contractions


def test_reductions_of_nothing() -> None:
    empty = np.zeros((2, 0), np.float32)
    assert Sample((empty,), {"axes": (1,)}).evaluate("reduce_sum").tolist() == [0, 0]
    assert Sample((empty,), {"axes": (1,)}).evaluate("reduce_prod").tolist() == [1, 1]
    none = np.zeros((2, 0), np.bool_)
    assert Sample((none,), {"axes": (1,), "ties": "even"}).evaluate("reduce_max").tolist() == [False, False]
    assert Sample((none,), {"axes": (1,), "ties": "even"}).evaluate("reduce_min").tolist() == [True, True]


def test_integer_reductions_wrap() -> None:
    x = np.full((3,), 100, np.int8)
    assert Sample((x,), {"axes": (0,)}).evaluate("reduce_sum") == 300 - 256
    assert Sample((x,), {"axes": (0,)}).evaluate("reduce_prod") == _wrap(10**6, x.dtype)
    assert Sample((x, x), {"spec": "k, k -> "}).evaluate("contract") == _wrap(3 * 10**4, x.dtype)


def test_half_precision_accumulates_in_f32() -> None:
    x = np.full((4097,), 1, np.float16)
    assert Sample((x,), {"axes": (0,)}).evaluate("reduce_sum") == 4096  # 4097 rounds to even; f16 sums stop at 2048
    assert Sample((x, x), {"spec": "k, k -> "}).evaluate("contract") == 4096


def test_extremes_of_special_values() -> None:
    table = [[0.0, -0.0, 0.0], [-0.0, -0.0, -1.0], [1.0, NAN, INF], [NAN, 1.0, NAN], [2.0, 2.0, 1.0]]
    rows = np.array(table, np.float32)
    attrs = {"axes": (1,), "ties": "even"}
    largest = Sample((rows,), attrs).evaluate("reduce_max").tolist()
    smallest = Sample((rows,), attrs).evaluate("reduce_min").tolist()
    assert all(map(_same, largest, [0.0, -0.0, NAN, NAN, 2.0]))
    assert all(map(_same, smallest, [-0.0, -1.0, NAN, NAN, 1.0]))
    index = {"axes": (1,), "dtype": i32}
    assert Sample((rows,), index).evaluate("argmax").tolist() == [0, 0, 1, 0, 0]
    assert Sample((rows,), index).evaluate("argmin").tolist() == [0, 2, 1, 0, 2]


def test_contract_by_its_formula() -> None:
    for sample in samples_of("contract"):
        x, y = (a.astype(np.float64) for a in sample.arrays)
        spec = parse_spec(sample.attrs["spec"])
        extents = spec.extents(x.shape, y.shape)
        expected = np.zeros(tuple(extents[label] for label in spec.out))
        if sample.types[0].dtype.is_integer:
            continue  # wrapping is tested above
        for values in itertools.product(*(range(extents[label]) for label in spec.labels)):
            at = dict(zip(spec.labels, values, strict=True))
            places = [tuple(sum(c * at[label] for label, c in dim) for dim in operand) for operand in spec.operands]
            expected[tuple(at[label] for label in spec.out)] += x[places[0]] * y[places[1]]
        tolerance = 2e-2 if sample.types[0].dtype in (f16, bf16) else 1e-5
        np.testing.assert_allclose(
            sample.evaluate("contract").astype(np.float64), expected, rtol=tolerance, atol=tolerance
        )


def test_indexing_by_loops() -> None:
    def combine(how: str, old: float, new: float) -> float:
        if how.endswith("_set"):
            return new
        if how.endswith("_add"):
            return old + new
        return old * new if how == "prod" else max(old, new) if how == "max" else min(old, new)

    for op in ("gather", "take_along", "index_add", "scatter_add", "index_set", "scatter_set", "scatter_reduce"):
        for sample in samples_of(op):
            x, index, *source = sample.arrays
            axis = sample.attrs["axis"]
            if sample.types[0].dtype is not f32 or not x.size:
                continue
            at = np.clip(index, 0, x.shape[axis] - 1)
            expected = x.astype(np.float64) if source else np.zeros(sample.evaluate(op).shape)
            shape = source[0].shape if source else expected.shape
            for place in np.ndindex(*shape):
                along = op not in ("gather", "index_add", "index_set")
                where = (
                    (*place[:axis], at[place], *place[axis + 1 :])
                    if along
                    else (*place[:axis], at[place[axis : axis + index.ndim]], *place[axis + index.ndim :])
                )
                if source:
                    expected[where] = combine(sample.attrs.get("mode", op), expected[where], source[0][place])
                else:
                    expected[place] = x[where]
            np.testing.assert_allclose(sample.evaluate(op), expected, rtol=1e-5, atol=1e-5)


def test_constants_wrap_and_keep_signs() -> None:
    assert math.copysign(1, float(Sample((), {"value": -0.0}, TensorType(f32, (1,))).evaluate("constant")[0])) == -1
    assert Sample((), {"value": 300}, TensorType(i8, (1,))).evaluate("constant").tolist() == [44]
