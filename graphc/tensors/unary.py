"""Functions of one tensor: rounding, signs, powers, exponential, trigonometric and hyperbolic functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.errors import DTypeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean, i64
from graphc.promotion import as_float
from graphc.tensors.calling import float_unary, is_operand, not_implemented, refuse, simple, unary, want_tensor
from graphc.tensors.comparison import is_nan
from graphc.tensors.core import record
from graphc.tensors.operands import plain
from graphc.tensors.out import out_form

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _float(op: str, node: str, doc: str) -> Any:
    return float_unary(op, f"{node}Backward0", simple(op), doc)


exp, expm1 = _float("exp", "Exp", "e to the power of each element."), _float("expm1", "Expm1", "exp(x) - 1.")
log, log1p = _float("log", "Log", "Natural logarithm."), _float("log1p", "Log1P", "log(1 + x).")
log2, log10 = _float("log2", "Log2", "Logarithm to base 2."), _float("log10", "Log10", "Logarithm to base 10.")
sqrt = _float("sqrt", "Sqrt", "Square root.")
sin, cos = _float("sin", "Sin", "Sine."), _float("cos", "Cos", "Cosine.")
asin, acos = _float("asin", "Asin", "Arc sine."), _float("acos", "Acos", "Arc cosine.")
atan = _float("atan", "Atan", "Arc tangent.")
sinh, cosh = _float("sinh", "Sinh", "Hyperbolic sine."), _float("cosh", "Cosh", "Hyperbolic cosine.")
tanh = _float("tanh", "Tanh", "Hyperbolic tangent.")
asinh = _float("asinh", "Asinh", "Inverse hyperbolic sine.")
acosh = _float("acosh", "Acosh", "Inverse hyperbolic cosine.")
atanh = _float("atanh", "Atanh", "Inverse hyperbolic tangent.")
sigmoid = _float("sigmoid", "Sigmoid", "1 / (1 + exp(-x)).")
erf = _float("erf", "Erf", "Error function.")


def _one(b: Builder, x: Node) -> Node:
    return b.constant(1, x.type)


rsqrt = float_unary("rsqrt", "RsqrtBackward0", lambda b, x: b.div(_one(b, x), b.apply("sqrt", (x,))), "1 / sqrt(x).")
reciprocal = float_unary("reciprocal", "ReciprocalBackward0", lambda b, x: b.div(_one(b, x), x), "1 / x.")
tan = float_unary("tan", "TanBackward0", lambda b, x: b.div(b.apply("sin", (x,)), b.apply("cos", (x,))), "Tangent.")
exp2 = _float("exp2", "Exp2", "2 to the power x.")
deg2rad = float_unary("deg2rad", "Deg2RadBackward0", lambda b, x: b.mul(x, math.pi / 180), "Degrees in radians.")
rad2deg = float_unary("rad2deg", "Rad2DegBackward0", lambda b, x: b.mul(x, 180 / math.pi), "Radians in degrees.")


sinc = _float("sinc", "Sinc", "sin(pi * x) / (pi * x), 1 at 0.")


@out_form
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), x first cut off to [eps, 1 - eps]. Any shape; integers become floats."""
    want_tensor("logit", input)

    def emit(b: Builder, x: Node) -> Node:
        x = b.cast(x, as_float(x.dtype))
        if eps is not None:
            low, high = b.constant(eps, x.type), b.constant(1 - eps, x.type)
            x = b.select(b.apply("lt", (x, low)), low, b.select(b.apply("gt", (x, high)), high, x))
        return b.apply("logit", (x,))

    return record("LogitBackward0", (input,), emit)


# rounding


def _rounding(op: str) -> Any:
    def emit(b: Builder, x: Node) -> Node:
        if x.dtype is boolean:
            raise not_implemented(f"{op}_cpu", boolean)
        return b.apply(op, (x,)) if x.dtype.is_float else x

    return unary(op, f"{op.capitalize()}Backward0", emit, f"{op} of each element; integers stay.")


floor, ceil, trunc = _rounding("floor"), _rounding("ceil"), _rounding("trunc")
_round = _rounding("round")
frac = unary(
    "frac", "FracBackward0", lambda b, x: b.sub(x, b.apply("trunc", (x,))), "x - trunc(x), the sign of x. Floats only."
)


@out_form
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest whole number, halves to even; with `decimals`, to that many digits (which may be negative)."""
    want_tensor("round", input)
    if decimals == 0 or not input._type.dtype.is_float:
        return _round(input)
    scale = 10.0 ** (decimals if decimals > 0 else -decimals)

    def emit(b: Builder, x: Node) -> Node:
        factor = b.constant(scale, x.type)
        if decimals > 0:
            return b.div(b.apply("round", (b.mul(x, factor),)), factor)
        return b.mul(b.apply("round", (b.div(x, factor),)), factor)

    return record("RoundBackward1", (input,), emit)


# signs


@out_form
def neg(input: Tensor) -> Tensor:
    """-x; integers wrap around. RuntimeError for bool."""
    want_tensor("neg", input)
    if input._type.dtype is boolean:
        raise DTypeError(
            "Negation, the `-` operator, on a bool tensor is not supported. "
            "If you are trying to invert a mask, use the `~` or `logical_not()` operator instead."
        )
    return record("NegBackward0", (input,), simple("neg"))


def positive(input: Tensor) -> Tensor:
    """The tensor itself. RuntimeError for bool."""
    want_tensor("positive", input)
    if input._type.dtype is boolean:
        raise DTypeError("The `+` operator, on a bool tensor is not supported.")
    return input


def _abs(b: Builder, x: Node) -> Node:
    if x.dtype is boolean:
        raise not_implemented("abs_cpu", boolean)
    return b.apply("abs", (x,))


def _sign(b: Builder, x: Node) -> Node:
    return x if x.dtype is boolean else b.apply("sign", (x,))


abs = unary("abs", "AbsBackward0", _abs, "Absolute value; the smallest integer stays itself.")
sign = unary("sign", "SignBackward0", _sign, "-1, 0 or 1; 0 for NaN.")
sgn = unary("sgn", "SgnBackward0", _sign, "-1, 0 or 1; 0 for NaN.")


def _square(b: Builder, x: Node) -> Node:
    x = b.cast(x, i64) if x.dtype is boolean else x
    return b.mul(x, x)


square = unary("square", "PowBackward0", _square, "x * x.")


def _angle(b: Builder, x: Node) -> Node:
    x = b.cast(x, as_float(x.dtype))
    made = b.select(b.apply("lt", (x, b.zeros_like(x))), b.constant(math.pi, x.type), b.zeros_like(x))
    return b.select(is_nan(b, x), b.constant(math.nan, x.type), made)


angle = unary("angle", "AngleBackward0", _angle, "pi where negative, else 0; NaN stays.")


def conj(input: Tensor) -> Tensor:
    """The tensor itself: it is real."""
    want_tensor("conj", input)
    return input


real = conj_physical = resolve_conj = resolve_neg = conj


def imag(input: Tensor) -> Tensor:
    """RuntimeError: no tensor is complex."""
    want_tensor("imag", input)
    raise UsageError("imag is not implemented for tensors with non-complex dtypes.")


@out_form
def nan_to_num(
    input: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """NaN becomes `nan` (0), infinities become `posinf` and `neginf` (the largest and smallest number)."""
    want_tensor("nan_to_num", input)

    def emit(b: Builder, x: Node) -> Node:
        if not x.dtype.is_float:
            return x
        largest = float(dtypes.limits(x.dtype).max)
        high = largest if posinf is None else float(posinf)
        low = -largest if neginf is None else float(neginf)
        replaced = b.select(b.apply("eq", (x, b.constant(math.inf, x.type))), b.constant(high, x.type), x)
        replaced = b.select(b.apply("eq", (x, b.constant(-math.inf, x.type))), b.constant(low, x.type), replaced)
        return b.select(is_nan(b, x), b.constant(0.0 if nan is None else float(nan), x.type), replaced)

    return record("NanToNumBackward0", (input,), emit)


# thresholds


relu = unary(
    "relu",
    "ReluBackward0",
    lambda b, x: b.select(b.apply("le", (x, b.zeros_like(x))), b.zeros_like(x), x),
    "0 where x <= 0, else x (NaN stays).",
)


@out_form
def threshold(input: Tensor, threshold: float, value: float) -> Tensor:
    """x where x > threshold (NaN stays), else `value`."""
    want_tensor("threshold", input)
    for argument, number in (("threshold", threshold), ("value", value)):
        if not is_operand(number):
            refuse("threshold", number, argument)

    def emit(b: Builder, x: Node) -> Node:
        low = b.apply("le", (x, b.constant(plain(threshold), x.type)))
        return b.select(low, b.constant(plain(value), x.type), x)

    return record("ThresholdBackward0", (input,), emit)
