"""Elementwise operators: all operands and the result have one shape and, where not said otherwise, one dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.node import Node
from graphc.ir.opdef import Attr, Attrs, Infer, OpDef, Vjp, register
from graphc.ir.ops import elementwise_vjp as rules
from graphc.ir.ops.checks import (
    belongs,
    check_arity,
    check_device,
    check_group,
    check_same_dtype,
    check_same_shape,
    narrow,
    widen,
)
from graphc.ir.types import DTYPES, DType, TensorType, bf16, boolean, dtype_of_numpy, f16

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Formula = Callable[..., np.ndarray]

ZERO_EVERYWHERE = "zero: the function is constant almost everywhere"


def infer_elementwise(op: str, arity: int, group: str, result: DType | None = None) -> Infer:
    """The type rule of an elementwise operator over dtypes of `group`; `result` is its dtype if not theirs."""
    allowed = frozenset(dtype for dtype in DTYPES if belongs(dtype, group))

    def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        check_arity(op, types, arity)
        first, last = types[0], types[-1]
        # Recording runs at each step of a plain loop, so what nearly always holds of the operands is tested at once.
        if first.dtype not in allowed or (last is not first and last != first):
            check_device(op, types)
            check_same_shape(op, types)
            check_same_dtype(op, types)
            check_group(op, first, group)
        return first if result is None else first.with_dtype(result)

    return infer


def _elementwise(
    name: str,
    arity: int,
    group: str,
    formula: Formula,
    doc: str,
    *,
    vjp: Vjp | None = None,
    why: str = "",
    precise: bool = False,
    result: DType | None = None,
    commutative: bool = False,
    heavy: bool = False,
) -> OpDef:
    """Register an elementwise operator; `precise` computes the reference in f64 and rounds; `heavy`: see `is_heavy`."""

    def evaluate(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
        operands = [a.astype(np.float64) if precise and a.dtype.kind not in "iub" else widen(a) for a in arrays]
        return narrow(formula(*operands), type)

    return register(
        OpDef(
            name=name,
            kind="elementwise",
            arity=arity,
            doc=doc,
            infer=infer_elementwise(name, arity, group, result),
            evaluate=evaluate,
            vjp=vjp,
            why_no_vjp=why,
            commutative=commutative,
            is_heavy=heavy,
        )
    )


# float functions


def _sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _pow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.power(x, y)


def _int_pow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Wrapping; for a negative exponent 1 and -1 have their powers, all else gives 0."""
    negative = y < 0
    made = np.power(x, np.where(negative, y & 1, y))
    return np.where(negative & (np.abs(x) != 1), 0, made)


for _name, _formula, _rule, _doc in (
    ("exp", np.exp, rules.exp, "e to the power x."),
    ("exp2", np.exp2, rules.exp2, "2 to the power x, exact for integers."),
    ("log", np.log, rules.log, "Natural logarithm; -inf at 0, NaN below."),
    ("log2", np.log2, rules.log2, "Logarithm to base 2, exact for powers of 2."),
    ("log10", np.log10, rules.log10, "Logarithm to base 10, exact for powers of 10."),
    ("log1p", np.log1p, rules.log1p, "log(1 + x), exact near 0."),
    ("expm1", np.expm1, rules.expm1, "exp(x) - 1, exact near 0."),
    ("sqrt", np.sqrt, rules.sqrt, "Square root, correctly rounded; NaN below 0, -0 at -0."),
    ("sin", np.sin, rules.sin, "Sine of x in radians."),
    ("cos", np.cos, rules.cos, "Cosine of x in radians."),
    ("tanh", np.tanh, rules.tanh, "Hyperbolic tangent."),
    ("sigmoid", _sigmoid, rules.sigmoid, "1 / (1 + exp(-x)), without overflow."),
    ("erf", _erf, rules.erf, "Error function, 2/sqrt(pi) times the integral of exp(-t*t) from 0 to x."),
):
    _elementwise(_name, 1, "float", _formula, f"{_doc} Float, any shape.", vjp=_rule, precise=True, heavy=True)

_elementwise("div", 2, "float", np.divide, "IEEE quotient x / y. Float.", vjp=rules.div, heavy=True)
_elementwise(
    "pow", 2, "number", lambda x, y: _int_pow(x, y) if x.dtype.kind in "iu" else _pow(x, y),
    "x to the power y as C's pow (pow(x, 0) = 1, NaN for x < 0 and y broken). Integers wrap around; for y < 0 they "
    "give 0 but for 1 and -1.",
    vjp=rules.pow, precise=True, heavy=True,
)  # fmt: skip
for _name, _formula, _doc in (
    ("floor", np.floor, "The largest integer not above x."),
    ("ceil", np.ceil, "The smallest integer not below x."),
    ("round", np.rint, "The nearest integer, halves to even."),
    ("trunc", np.trunc, "The nearest integer towards zero."),
):
    _elementwise(_name, 1, "float", _formula, f"{_doc} Float; keeps the sign of zero.", why=ZERO_EVERYWHERE)


# any number


def _sign(x: np.ndarray) -> np.ndarray:
    return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


def _maximum(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where((x == 0) & (y == 0), x + y, np.maximum(x, y))  # -0 + -0 is -0, other zeros add up to +0


def _minimum(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where((x == 0) & (y == 0), -(-x - y), np.minimum(x, y))


def _floor_divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.floor_divide(x, y)


def _remainder(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.remainder(x, y)


_elementwise("neg", 1, "number", np.negative, "-x; integers wrap around.", vjp=rules.neg)
_elementwise("abs", 1, "number", np.abs, "Absolute value; the smallest integer stays itself.", vjp=rules.abs)
_elementwise("sign", 1, "number", _sign, "1, 0 or -1; 0 for zeros and NaN.", why=ZERO_EVERYWHERE)
_elementwise("add", 2, "number", np.add, "x + y; integers wrap around.", vjp=rules.add, commutative=True)
_elementwise("sub", 2, "number", np.subtract, "x - y; integers wrap around.", vjp=rules.sub)
_elementwise("mul", 2, "number", np.multiply, "x * y; integers wrap around.", vjp=rules.mul, commutative=True)
_elementwise(
    "maximum", 2, "number", _maximum,
    "The larger; NaN if either is NaN, +0 over -0. The gradient is halved at ties.",
    vjp=rules.maximum, commutative=True,
)  # fmt: skip
_elementwise(
    "minimum", 2, "number", _minimum,
    "The smaller; NaN if either is NaN, -0 over +0. The gradient is halved at ties.",
    vjp=rules.minimum, commutative=True,
)  # fmt: skip
_elementwise(
    "floor_divide", 2, "number", _floor_divide,
    "floor(x / y), Python's `//`. Where y is 0: integers give 0, floats x / y. The smallest integer // -1 wraps.",
    why=ZERO_EVERYWHERE, heavy=True,
)  # fmt: skip
_elementwise(
    "remainder", 2, "number", _remainder,
    "x - floor(x / y) * y, the sign of y, Python's `%`. Integers: 0 where y is 0. Floats: NaN where y is 0.",
    vjp=rules.remainder, heavy=True,
)  # fmt: skip
_elementwise(
    "fmod", 2, "number", lambda x, y: np.fmod(x, y),
    "x - trunc(x / y) * y, the sign of x, C's fmod. Integers: 0 where y is 0. Floats: NaN where y is 0.",
    vjp=rules.fmod, heavy=True,
)  # fmt: skip
_elementwise(
    "gcd", 2, "integer", lambda x, y: np.gcd(x, y),
    "The greatest common divisor; not negative, but for the smallest integer. gcd(x, 0) is |x|.",
    why="zero: integers have no gradient", commutative=True, heavy=True,
)  # fmt: skip


# bits


def _shift(formula: Callable[[np.ndarray, np.ndarray], np.ndarray], outside: Formula) -> Formula:
    """`formula` where the count is in [0, bits), else `outside(x)`."""

    def shift(x: np.ndarray, count: np.ndarray) -> np.ndarray:
        bits = x.dtype.itemsize * 8
        inside = (count >= 0) & (count < bits)
        return np.where(inside, formula(x, np.where(inside, count, 0).astype(x.dtype)), outside(x))

    return shift


def _logical(x: np.ndarray, count: np.ndarray) -> np.ndarray:
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    return np.right_shift(x.view(unsigned), count.view(unsigned)).view(x.dtype)


INTEGERS = "zero: integers have no gradient"
_elementwise("bitwise_not", 1, "bits", np.invert, "Every bit flipped; `not` for bool.", why=INTEGERS)
for _name, _formula in (
    ("bitwise_and", np.bitwise_and),
    ("bitwise_or", np.bitwise_or),
    ("bitwise_xor", np.bitwise_xor),
):
    _elementwise(
        _name, 2, "bits", _formula, f"{_name[8:].capitalize()} of the bits, integers or bool.", why=INTEGERS,
        commutative=True,
    )  # fmt: skip
_elementwise(
    "shift_left", 2, "integer", _shift(np.left_shift, np.zeros_like),
    "x << y; 0 where y is outside [0, bits).", why=INTEGERS,
)  # fmt: skip
_elementwise(
    "shift_right", 2, "integer", _shift(np.right_shift, lambda x: np.where(x < 0, -1, 0).astype(x.dtype)),
    "x >> y, the sign shifted in; the sign (0 or -1) where y is outside [0, bits).", why=INTEGERS,
)  # fmt: skip
_elementwise(
    "shift_right_logical", 2, "integer", _shift(_logical, np.zeros_like),
    "x >> y, zeros shifted in; 0 where y is outside [0, bits).", why=INTEGERS,
)  # fmt: skip


# comparison

for _name, _formula, _symbol in (
    ("eq", np.equal, "=="),
    ("ne", np.not_equal, "!="),
    ("lt", np.less, "<"),
    ("le", np.less_equal, "<="),
    ("gt", np.greater, ">"),
    ("ge", np.greater_equal, ">="),
):
    _elementwise(
        _name, 2, "any", _formula, f"x {_symbol} y, result bool; with NaN only `ne` holds.",
        why="zero: the result is bool", result=boolean, commutative=_name in ("eq", "ne"),
    )  # fmt: skip


# select, cast, bitcast, detach


def _infer_select(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("select", types, 3)
    check_device("select", types)
    check_same_shape("select", types)
    if types[0].dtype is not boolean:
        raise DTypeError(f"select: the condition is bool, got {types[0]}")
    check_same_dtype("select", types[1:])
    return types[1]


def _evaluate_select(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    condition, x, y = arrays
    result = np.array(y, copy=True)
    np.copyto(result, x, where=condition)
    return result


def _infer_cast(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("cast", types, 1)
    return types[0].with_dtype(attrs["dtype"])


def cast_array(x: np.ndarray, dtype: DType) -> np.ndarray:
    """`x` converted as the `cast` operator does."""
    source = dtype_of_numpy(x.dtype)
    if source is None:
        raise DTypeError(f"cast: {x.dtype} is no element type of the IR")
    if source.is_float and dtype.is_integer:
        wide = np.dtype(np.int64 if dtype.bits == 64 else np.int32)
        whole = np.trunc(widen(x))
        bound = 2.0 ** (wide.itemsize * 8 - 1)
        inside = (whole >= -bound) & (whole < bound)
        integers = np.where(inside, whole, 0).astype(wide)
        return np.where(inside, integers, np.iinfo(wide).min).astype(dtype.numpy)
    if dtype.kind == "bool":
        return np.asarray(x != 0)
    if dtype in (f16, bf16) or source in (f16, bf16):
        return x.astype(np.float32).astype(dtype.numpy)
    return x.astype(dtype.numpy)


def _evaluate_cast(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    return cast_array(arrays[0], type.dtype)


def _infer_bitcast(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("bitcast", types, 1)
    dtype = attrs["dtype"]
    if dtype is boolean or types[0].dtype is boolean or dtype.bits != types[0].dtype.bits:
        raise DTypeError(f"bitcast: wants two dtypes of one size, none of them bool, got {types[0]} and {dtype}")
    return types[0].with_dtype(dtype)


def _evaluate_bitcast(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    return np.ascontiguousarray(arrays[0]).view(type.dtype.numpy).reshape(type.shape)


def _cast_vjp(b: Builder, node: Node, ct: Node) -> Sequence[Node | None]:
    x = node.inputs[0]
    return [b.cast(ct, x.dtype) if x.dtype.is_float and node.dtype.is_float else None]


SELECT = register(
    OpDef(
        name="select",
        kind="elementwise",
        arity=3,
        doc="x where the condition (bool) holds, else y; x and y of any one dtype.",
        infer=_infer_select,
        evaluate=_evaluate_select,
        vjp=rules.select,
    )
)
CAST = register(
    OpDef(
        name="cast",
        kind="elementwise",
        arity=1,
        doc=(
            "x converted to `dtype`, any to any. Float to integer truncates; NaN and what does not fit give the "
            "smallest i32 (i64 for i64), which then wraps to the narrower type. Integers wrap. Anything to bool is "
            "x != 0. Conversions from and to f16 and bf16 go through f32."
        ),
        infer=_infer_cast,
        evaluate=_evaluate_cast,
        attrs=(Attr("dtype", "dtype"),),
        vjp=_cast_vjp,
    )
)
BITCAST = register(
    OpDef(
        name="bitcast",
        kind="elementwise",
        arity=1,
        doc="The bits of x as another dtype of the same size; any dtype but bool.",
        infer=_infer_bitcast,
        evaluate=_evaluate_bitcast,
        attrs=(Attr("dtype", "dtype"),),
        why_no_vjp="zero: bits are no numbers",
    )
)
DETACH = _elementwise(
    "detach", 1, "any", np.copy, "x itself, any dtype.", why="zero: detach stops gradients on purpose"
)
MATERIALIZE = _elementwise(
    "materialize", 1, "any", np.copy,
    "x itself, any dtype, stored in memory in row-major order: passes use it to ask for a copy in another order.",
    vjp=rules.materialize,
)  # fmt: skip
