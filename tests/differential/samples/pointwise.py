"""Samples of arithmetic, comparison, logic and bit operators of two or three operands."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.differential.samples.base import Op, Sample, bad, distinct, f, forward, ints, mask, once, pos, s

NAN, INF = np.nan, np.inf


def v(*values: float) -> np.ndarray:
    """A vector of floats."""
    return np.array(values, float)


def w(*values: int, dtype: str = "int64") -> np.ndarray:
    """A vector of integers."""
    return np.array(values, dtype)


def meet(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every value with every value."""
    return values[:, None] + 0, values[None, :] + 0


EDGES = v(0.0, -0.0, 1.0, -2.5, 3.0, INF, -INF, NAN)
WHOLE = w(-7, -3, -1, 1, 2, 5)


def numbers(*more: Sample) -> tuple[Sample, ...]:
    """Two float operands, a Python number, mixed dtypes, empty and 0-d ones."""
    return (
        s(f(3, 4), f(4)),
        s(f(2, 1, 3), f(4, 1)),
        s(f(3), 2.5),
        s(ints(3), ints(3, low=1, dtype="int32")),
        s(ints(3), 2.5),
        s(f(), f(2, 0)),
        *more,
    )


def only(*more: Sample) -> tuple[Sample, ...]:
    """Two float tensors, empty and 0-d ones."""
    return s(f(3, 4), f(4)), s(f(2, 1, 3), f(4, 1)), s(f(), f()), s(f(0), f(1)), *more


def again(name: str, op: Op, **changes: Any) -> Op:
    """The record of another name of an operator, with two of its samples."""
    fields = {k: getattr(op, k) for k in ("grads", "dtypes", "rtol", "slack", "grad_fn", "forms")}
    return Op(name, op.samples[:2], (), **{**fields, "layouts": False, **changes})


_ADD = Op(
    "add",
    (
        *numbers(),
        s(f(3, 4), f(3, 4), alpha=2),
        s(f(3), f(3), alpha=0.5),
        s(ints(3), ints(3), alpha=-3),
        s(mask(3), ints(3, dtype="uint8")),
        s(mask(3), mask(3)),
        s(w(100, 127, dtype="int8"), w(100, 1, dtype="int8")),
        s(*meet(EDGES)),
        s(input=f(2), other=f(2)),
        s(2, f(3)),
    ),
    (
        bad("size", f(3), f(4)),
        bad("alpha|integral", ints(3), ints(3), alpha=0.5),
        bad("must be Tensor", f(3), "a"),
        bad("must be Tensor", f(3), None),
        bad("alpha", f(3), f(3), alpha="a"),
        bad("Boolean alpha", f(3), f(3), alpha=True),
    ),
)
_SUB = Op(
    "sub",
    (*numbers(), s(f(3), f(3), alpha=2.5), s(w(0, 3, dtype="uint8"), w(1, 4, dtype="uint8")), s(2, f(3))),
    (bad("bool", mask(2), mask(2)), bad("bool", mask(2), f(2)), bad("must be Tensor", f(2), [1])),
)
_MUL = Op(
    "mul",
    (*numbers(), s(mask(4), mask(4)), s(w(100, dtype="int8"), w(3, dtype="int8")), s(*meet(EDGES)), s(3, f(2))),
    (bad("size", f(3), f(4)), bad("must be Tensor", f(3), "a")),
)
_DIV = Op(
    "div",
    (
        *numbers(),
        s(f(3, 3), f(3), rounding_mode="floor"),
        s(f(3, 3), f(3), rounding_mode="trunc"),
        s(f(3), 0.7, rounding_mode="trunc"),
        s(*meet(WHOLE), rounding_mode="floor"),
        s(*meet(WHOLE), rounding_mode="trunc"),
        s(w(-128, dtype="int8"), w(-1, dtype="int8"), rounding_mode="trunc"),
        s(w(7, 200, dtype="uint8"), 3, rounding_mode="trunc"),
        s(w(1, 0, -1), w(0, 0, 0)),
        s(*meet(EDGES)),
        s(*meet(EDGES), rounding_mode="trunc"),
        s(mask(3), ints(3, low=1)),
    ),
    (
        bad("rounding_mode", f(3), f(3), rounding_mode="up"),
        bad("ZeroDivisionError", ints(3), 0, rounding_mode="floor"),
        bad("ZeroDivisionError", ints(2), w(1, 0), rounding_mode="trunc"),
        bad("must be Tensor", f(3), "a"),
    ),
)
_POW = Op(
    "pow",
    (
        s(pos(3, 4), f(4)),
        s(f(3), 2),
        s(f(3), 3),
        s(v(0.0, 2.0, 3.0), 0),
        s(v(0.0, -0.0, 2.0), 1),
        s(v(0.0, 2.0), 0.5),
        s(v(0.0, -1.5, 2.0), -1),
        s(pos(3), -2.5),
        s(2, f(3)),
        once(s(0.0, v(-1.0, 0.0, 2.0))),  # PyTorch: NaN at 0
        once(s(v(0.0, 0.0, 0.0, 2.0), v(0.0, 1.0, 2.0, 0.0))),  # PyTorch: NaN at 0
        s(ints(4), 3),
        s(WHOLE[:, None], w(0, 1, 2, 3, -1, -2)),
        s(w(3, 5, dtype="int8"), w(5, 7, dtype="int8")),
        s(ints(3), 0.5),
        s(2, ints(3, low=0, high=5)),
        s(ints(2, 2), pos(2)),
        s(f(0), 2),
    ),
    (
        bad("negative integer powers", ints(3), -1),
        bad("pow", f(3), "a"),
        bad("size", f(3), f(4)),
    ),
)
_LT = Op("lt", (*numbers(), s(*meet(EDGES)), s(mask(3), mask(3)), s(w(1, 2), 1.5)), (bad("size", f(3), f(4)),))
_MODULO = (
    *numbers()[1:3],
    s(f(3, 4), pos(4)),
    s(*meet(WHOLE)),
    s(*meet(w(-7, 1, 5, dtype="int8"))),
    s(ints(3, low=0, dtype="uint8"), 3),
    s(WHOLE, -4),
    s(ints(4), 2.5),
    s(w(0, 5), f(2)),
    s(f(), f(2, 0)),
    s(ints(0), ints(0)),
)
_MODULO_BAD = (bad("ZeroDivisionError", ints(3), 0), bad("ZeroDivisionError", ints(2), w(1, 0)))
_REMAINDER = Op(
    "remainder",
    (*_MODULO, s(7, w(2, -3)), once(s(*meet(EDGES)))),  # second gradients of infinities are NaN in PyTorch
    (*_MODULO_BAD, bad("remainder", f(2), "a")),
)
_FMOD = Op("fmod", (*_MODULO, s(*meet(EDGES))), (*_MODULO_BAD, bad("fmod", 5, f(2))))
_FLOOR_DIVIDE = Op("floor_divide", (*_MODULO, s(*meet(v(1.0, -2.5, 0.1, 0.3)))), _MODULO_BAD, grads=0)


def _bits(name: str, *more: Sample) -> Op:
    return Op(
        name,
        (s(*meet(WHOLE)), s(WHOLE, 3), s(ints(2, 3, dtype="uint8"), ints(3, dtype="int8")), s(5, WHOLE), *more),
        (bad("not implemented", f(2), 2), bad("not implemented|float", f(2), f(2)), bad(name, ints(2), "a")),
    )


_BITS = (
    *(_bits(f"bitwise_{op}", s(mask(3), mask(3)), s(mask(3), True)) for op in ("and", "or", "xor")),
    _bits("bitwise_left_shift", s(w(1, 3), w(70, 2)), s(w(1, 5, dtype="int8"), w(7, 9, dtype="int8"))),
    _bits("bitwise_right_shift", s(w(-9, 9), w(70, 2)), s(w(-9, 9, dtype="int8"), w(1, 8, dtype="int8"))),
    Op("bitwise_not", (s(WHOLE), s(mask(3)), s(ints(2, dtype="uint8"))), (bad("bitwise_not", f(2)),)),
    *(
        Op(
            name,
            (s(*meet(w(0, 4, -6, 35, 48))), s(w(12, 200, dtype="uint8"), w(18, 75, dtype="uint8"))),
            (bad(name, f(2), f(2)), bad("must be Tensor", ints(2), 4)),
        )
        for name in ("gcd", "lcm")
    ),
)

_CLAMP = Op(
    "clamp",
    (
        s(f(3, 4), -0.5, 0.5),
        s(v(-1.0, 0.0, 1.0), 0.0, 1.0),
        s(f(4), min=0.2),
        s(f(4), max=0.2),
        s(f(3, 4), f(4), f(3, 1)),
        s(f(3), 1.0, -1.0),
        s(v(0.5, 1.5), v(1.0, 2.0), v(0.0, 0.0)),
        s(v(1.0, 2.0), v(1.0, 1.0), v(1.0, 2.0)),
        s(v(NAN, 1.0, INF), -1.0, 2.0),
        s(v(0.5, 1.0), v(NAN, 0.0), v(1.0, NAN)),
        s(v(0.5, 1.0), NAN),
        s(ints(4), -2, 3),
        s(ints(4), -1.5),
        s(ints(2, dtype="int32"), max=ints(2)),
        s(f(0), 1),
    ),
    (bad("At least one", f(3)), bad("clamp", f(3), "a"), bad("size", f(3), f(4))),
)

_WHERE = Op(
    "where",
    (
        s(mask(3, 4), f(3, 4), f(4)),
        s(mask(2, 1), f(1, 3), f()),
        s(mask(3), f(3), 2.0),
        s(mask(3), ints(3), 2.5),
        s(mask(3), 1, 2),
        s(mask(2, 3)),
    ),
    (bad("boolean|bool", f(3), f(3), f(3)), bad("where|size|match", mask(3), f(4), f(4))),
)

POINTWISE: tuple[Op, ...] = (
    _WHERE,
    _ADD,
    _SUB,
    again("subtract", _SUB),
    Op("rsub", (s(f(3), f(3)), s(f(3), 2.0), s(ints(3), ints(3)), s(f(3), f(3), alpha=2)), (bad("bool", mask(2), 1),)),
    _MUL,
    again("multiply", _MUL),
    _DIV,
    again("divide", _DIV),
    again("true_divide", _DIV),
    _FLOOR_DIVIDE,
    _REMAINDER,
    _FMOD,
    _POW,
    Op(
        "float_power",
        (s(pos(3), f(3)), s(f(3), 2), s(ints(3), 2), s(2, ints(3)), s(ints(2, low=1), f(2))),
        (bad("float_power", f(2), "a"),),
    ),
    *(Op(name, _LT.samples, _LT.bad) for name in ("eq", "ne", "le", "gt", "ge")),
    _LT,
    *(again(name, _LT) for name in ("greater", "greater_equal", "less", "less_equal", "not_equal")),
    *(
        Op(
            f"logical_{name}",
            (s(EDGES, f(8)), s(mask(2, 3), mask(3)), s(ints(3, low=0, high=2), f(3)), s(mask(0), mask(1))),
            (bad("must be Tensor", mask(2), True),),
        )
        for name in ("and", "or", "xor")
    ),
    Op("logical_not", (s(EDGES), s(mask(3)), s(ints(3, low=0, high=2)), s(f()))),
    *_BITS,
    *(
        Op(name, only(s(*meet(EDGES)), s(mask(3), mask(3)), s(ints(3), f(3))), (bad("must be Tensor", f(2), 2),))
        for name in ("maximum", "minimum", "fmax", "fmin")
    ),
    _CLAMP,
    again("clip", _CLAMP),
    Op(
        "clamp_min",
        (s(f(3, 4), 0.1), s(v(0.0, NAN), 0.0), s(f(3), f(3)), s(ints(3), 1)),
        (bad("clamp_min", f(2), "a"),),
    ),
    Op(
        "clamp_max",
        (s(f(3, 4), 0.1), s(v(0.0, NAN), 0.0), s(f(3), f(3)), s(ints(3), 1)),
        (bad("clamp_max", f(2), "a"),),
    ),
    Op(
        "lerp",
        (s(f(3, 4), f(4), 0.3), s(f(3), f(3), 0.7), s(f(3), f(3), f(3)), s(f(2, 1), f(3), pos(3)), s(f(3), f(3), 1.0)),
        (bad("lerp", f(2), f(2), "a"), bad("must be Tensor", f(2), 1.0, 0.5), bad("dtype", f(2), ints(2), 0.5)),
    ),
    Op(
        "addcmul",
        (s(f(3, 4), f(4), f(3, 1)), s(f(3), f(3), f(3), value=0.5), s(ints(3), ints(3), ints(3), value=2)),
        (bad("must be Tensor", f(2), 1.0, f(2)),),
    ),
    Op(
        "addcdiv",
        (s(f(3, 4), f(4), pos(3, 1)), s(f(3), f(3), f(3), value=0.5), s(f(3), ints(3), f(3))),
        (bad("Integer division", ints(2), ints(2), ints(2)), bad("must be Tensor", f(2), 1.0, f(2))),
    ),
    Op(
        "copysign",
        only(once(s(*meet(EDGES))), s(f(3), -0.0), s(ints(3), f(3)), s(ints(3), -1)),  # PyTorch: NaN at 0
        (bad("copysign", f(2), "a"),),
    ),
    Op(
        "nextafter",
        only(s(*meet(EDGES)), s(v(1e-320, 5e-324, -5e-324), v(0.0, 0.0, 1.0))),
        (bad("must be Tensor", f(2), 1.0),),
        grads=0,  # PyTorch passes it on to the first operand
    ),
    Op(
        "hypot",
        only(s(*meet(EDGES)), once(s(v(1e300, 1e-300), v(1e300, 1e-300)))),  # the second one overflows
        (bad("must be Tensor", f(2), 1.0),),
    ),
    Op("atan2", only(s(*meet(EDGES)), s(ints(3), ints(3, low=1))), (bad("must be Tensor", f(2), 1.0),)),
    Op("logaddexp", only(s(*meet(EDGES)), s(v(700.0, -800.0), v(701.0, -800.0))), (bad("must be Tensor", f(2), 1.0),)),
    Op("logaddexp2", only(s(*meet(EDGES))), (bad("must be Tensor", f(2), 1.0),)),
    Op("xlogy", only(s(*meet(EDGES)), s(f(3), 2.0), s(0.0, v(0.0, 1.0)), s(ints(3), ints(3, low=1)))),
    Op(
        "heaviside",
        (s(EDGES, f(8)), s(f(2, 3), f(3)), s(ints(3), ints(3))),
        (bad("different dtypes", f(2), ints(2)),),
    ),
    # For negative exponents that are integers the gradient is 0 in PyTorch.
    Op("ldexp", (forward(s(f(3, 4), ints(4))), s(f(3), f(3)), s(ints(3), ints(3, low=0)))),
    Op(
        "isin",
        (
            s(ints(3, 4), ints(5)),
            s(ints(3), ints(4), invert=True, assume_unique=True),
            s(ints(3), 3),
            s(3, ints(3)),
            s(f(2), ints(0)),
            s(v(1.0, NAN), v(NAN, 1.0)),
            s(ints(3, dtype="int32"), distinct(4)),
        ),
    ),
)
