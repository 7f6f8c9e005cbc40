"""Samples of the elementwise operators."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.errors import UsageError
from graphc.ir.types import DTYPES, DType, boolean, f32, f64, i8, i32
from tests.samples.base import (
    FLOATS,
    INTEGERS,
    SHAPES,
    BadSample,
    DTypeError,
    OpSamples,
    Sample,
    array,
    distinct,
    pairs,
    specials,
    t,
)

Rng = np.random.Generator
Smooth = Callable[[Rng], list[Sample]]

GROUPS: dict[str, tuple[DType, ...]] = {
    "float": FLOATS,
    "integer": INTEGERS,
    "number": FLOATS + INTEGERS,
    "bits": (*INTEGERS, boolean),
    "any": DTYPES,
}
OUTSIDE = {"float": "i32", "integer": "f32", "number": "bool", "bits": "f64"}


def _bad(op: str, arity: int, group: str) -> tuple[BadSample, ...]:
    name = GROUPS[group][0].name
    one = t(f"{name}[2,3]")
    bad = [BadSample((one,) * (arity + 1), rf"{op}: wants {arity} operands?, got {arity + 1}")]
    if arity == 2:
        other = "i64" if name != "i64" else "i32"
        bad += [
            BadSample((one, t(f"{name}[3]")), rf"{op}: .*\[2, 3\] and \[3\]"),
            BadSample((one, t(f"{other}[2,3]")), rf"{op}: .*{name}\[2,3\] and {other}\[2,3\]", error=DTypeError),
            BadSample((one, t(f"{name}[2,3]@null")), rf"two devices, null and cpu! \({op}: ", error=UsageError),
        ]
    if group in OUTSIDE:
        wrong = t(f"{OUTSIDE[group]}[4]")
        bad.append(BadSample((wrong,) * arity, rf"{op}: wants .*got {OUTSIDE[group]}\[4\]", error=DTypeError))
    return tuple(bad)


def _make(arity: int, group: str) -> Callable[[Rng], list[Sample]]:
    def make(rng: Rng) -> list[Sample]:
        dtypes = GROUPS[group]
        samples = [Sample(tuple(array(rng, shape, dtypes[0]) for _ in range(arity))) for shape in SHAPES]
        samples += [Sample(tuple(array(rng, (3, 7), dtype) for _ in range(arity))) for dtype in dtypes[1:]]
        samples += [Sample((specials(dtype),) if arity == 1 else pairs(dtype)) for dtype in dtypes]
        return samples

    return make


def within(low: float, high: float) -> Callable[[Rng], np.ndarray]:
    """Random operands of an interval."""
    return lambda rng: array(rng, (2, 3), f64, low, high)


def smooth(*operands: Callable[[Rng], np.ndarray]) -> Smooth:
    """Operands for gradients, one maker each."""

    def make(rng: Rng) -> list[Sample]:
        return [Sample(tuple(operand(rng) for operand in operands))]

    return make


def _away_from_zero(rng: Rng) -> np.ndarray:
    return distinct(rng, (2, 3))


def ops(names: str, arity: int, group: str, exact: bool, smooth: Smooth | None = None) -> dict[str, OpSamples]:
    """Samples of operators of one arity and group."""
    return {name: OpSamples(_make(arity, group), _bad(name, arity, group), smooth, exact) for name in names.split()}


def _apart(rng: Rng) -> list[Sample]:
    """Two operands that differ everywhere by at least 0.25."""
    x = distinct(rng, (2, 6))
    return [Sample((x[:, :3].copy(), x[:, 3:].copy()))]


def _remainder(rng: Rng) -> list[Sample]:
    """Quotients that keep away from integers, both signs."""
    y = array(rng, (2, 3), f64, 0.8, 1.5) * np.where(rng.random((2, 3)) < 0.5, -1, 1)
    return [Sample((y * (rng.integers(-3, 4, (2, 3)) + rng.uniform(0.2, 0.8, (2, 3))), y))]


def _pow_smooth(rng: Rng) -> list[Sample]:
    return [Sample((array(rng, (2, 3), f64, 0.5, 2.5), array(rng, (2, 3), f64, -2, 3)))]


def _select(rng: Rng) -> list[Sample]:
    shapes = [Sample((array(rng, s, boolean), array(rng, s, f32), array(rng, s, f32))) for s in SHAPES]
    others = [Sample((array(rng, (3, 7), boolean), array(rng, (3, 7), d), array(rng, (3, 7), d))) for d in DTYPES]
    x, y = pairs(f32)
    return [*shapes, *others, Sample((np.arange(x.size) % 2 == 0, x, y))]


def _select_smooth(rng: Rng) -> list[Sample]:
    return [Sample((array(rng, (2, 3), boolean), array(rng, (2, 3), f64), array(rng, (2, 3), f64)))]


def _cast(rng: Rng) -> list[Sample]:
    samples = [Sample((array(rng, shape, f32),), {"dtype": i32}) for shape in SHAPES]
    edges = [
        0.4,
        0.5,
        0.6,
        1.9,
        127.5,
        128,
        255.9,
        256,
        300,
        2**31 - 1,
        2**31,
        2**31 + 2**9,
        2**53,
        2.0**63,
        1e19,
        1e39,
    ]
    for source in DTYPES:
        for dtype in DTYPES:
            samples.append(Sample((specials(source),), {"dtype": dtype}))
            if source.is_float:
                with np.errstate(over="ignore"):
                    values = np.array([*edges, *(-e for e in edges), np.nan]).astype(source.numpy)
                samples.append(Sample((values,), {"dtype": dtype}))
    return samples


def _bitcast(rng: Rng) -> list[Sample]:
    samples = [Sample((array(rng, shape, f32),), {"dtype": i32}) for shape in SHAPES]
    sizes = [(x, y) for x in DTYPES for y in DTYPES if boolean not in (x, y) and x.bits == y.bits]
    # Only from floats: the bits of random integers may be those of NaN, which are not kept by every operation.
    return samples + [Sample((specials(x),), {"dtype": y}) for x, y in sizes if not (y.is_float and not x.is_float)]


def _cast_smooth(rng: Rng) -> list[Sample]:
    return [Sample((array(rng, (2, 3), f64),), {"dtype": f64})]


def _shift(rng: Rng) -> list[Sample]:
    samples = _make(2, "integer")(rng)
    for dtype in INTEGERS:
        x = np.repeat(specials(dtype), dtype.bits)
        counts = np.tile(np.arange(dtype.bits), specials(dtype).size).astype(dtype.numpy)
        samples.append(Sample((x, counts)))
    return samples


ELEMENTWISE: dict[str, OpSamples] = {
    **ops("exp exp2 expm1 sin cos tanh sigmoid erf", 1, "float", False, smooth(within(-1.5, 1.5))),
    **ops("log log2 log10", 1, "float", False, smooth(within(0.5, 3))),
    **ops("log1p", 1, "float", False, smooth(within(-0.5, 3))),
    **ops("sqrt", 1, "float", True, smooth(within(0.5, 3))),
    **ops("div", 2, "float", True, smooth(within(-2, 2), within(0.7, 2))),
    **ops("pow", 2, "number", False, _pow_smooth),
    **ops("floor ceil round trunc", 1, "float", True),
    **ops("neg", 1, "number", True, smooth(within(-2, 2))),
    **ops("abs", 1, "number", True, smooth(_away_from_zero)),
    **ops("sign", 1, "number", True),
    **ops("add sub mul", 2, "number", True, smooth(within(-2, 2), within(-2, 2))),
    **ops("maximum minimum", 2, "number", True, _apart),
    **ops("floor_divide", 2, "number", False),
    **ops("remainder fmod", 2, "number", False, _remainder),
    **ops("gcd", 2, "integer", True),
    "bitcast": OpSamples(
        _bitcast,
        (BadSample((t("f32[2]"),), "bitcast: .*one size", {"dtype": i8}, error=DTypeError),),
    ),
    **ops("bitwise_not", 1, "bits", True),
    **ops("bitwise_and bitwise_or bitwise_xor", 2, "bits", True),
    **{
        name: OpSamples(_shift, _bad(name, 2, "integer"))
        for name in ("shift_left", "shift_right", "shift_right_logical")
    },
    **ops("eq ne lt le gt ge", 2, "any", True),
    **ops("detach", 1, "any", True),
    **ops("materialize", 1, "any", True, smooth(within(-2, 2))),
    "select": OpSamples(
        _select,
        (
            BadSample((t("bool[2]"), t("f32[2]")), "select: wants 3 operands, got 2"),
            BadSample((t("f32[2]"), t("f32[2]"), t("f32[2]")), r"select: .*bool, got f32\[2\]", error=DTypeError),
            BadSample((t("bool[2]"), t("f32[2]"), t("f64[2]")), r"select: .*f32\[2\] and f64\[2\]", error=DTypeError),
            BadSample((t("bool[2]"), t("f32[2]"), t("f32[3]")), r"select: .*\[2\] and \[2\] and \[3\]"),
        ),
        _select_smooth,
    ),
    "cast": OpSamples(_cast, (BadSample((), "cast: wants 1 operand, got 0", {"dtype": i8}),), _cast_smooth),
}
