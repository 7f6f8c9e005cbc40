"""Elementwise graph operators in kernel operations: the table `EXPANSIONS` and `expand`, which applies it.

The functions behind it are our own (docs/math.md has the methods, the error bounds and the operation counts). They
work on scalars and on vectors of any lane count, call no library, and are right for NaN, infinities, signed zeros and
subnormals.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen import math_int, math_mod, math_pow
from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import Value
from graphc.codegen.math_erf import erf
from graphc.codegen.math_exp import exp, exp2, expm1, log, log1p, sigmoid, tanh
from graphc.codegen.math_float import LOG2_E, like
from graphc.codegen.math_int import expand_cast, gcd, shift_left, shift_right, shift_right_logical
from graphc.codegen.math_log import log2, log10
from graphc.codegen.math_trig import cos, sin
from graphc.codegen.scope import ScopedEmitter
from graphc.ir.types import boolean, f32

__all__ = ["EXPANSIONS", "expand", "expand_cast"]

Expansion = Callable[..., Value]


def _operation(name: str) -> Expansion:
    """An operator that is one kernel operation."""

    def emit(e: Emitter, *args: Value) -> Value:
        return e.op(name, *args)

    return emit


def _by_kind(integer: Expansion, floating: Expansion) -> Expansion:
    def emit(e: ScopedEmitter, *args: Value) -> Value:
        return (floating if args[0].type.dtype.is_float else integer)(e, *args)

    return emit


def _sign(e: Emitter, x: Value) -> Value:
    """1, 0 or -1; 0 for NaN."""
    zero, one = like(e, 0, x), like(e, 1, x)
    negative = zero if x.type.dtype.kind == "uint" else e.op("select", e.op("lt", x, 0), like(e, -1, x), zero)
    return e.op("select", e.op("gt", x, 0), one, negative)


def _identity(e: Emitter, x: Value) -> Value:
    return x


# Operators for which a graph name stands; each takes the emitter and the operands.
EXPANSIONS: dict[str, Expansion] = {
    **{name: _operation(name) for name in ("neg", "abs", "add", "sub", "mul", "div", "maximum", "minimum", "sqrt")},
    **{name: _operation(name) for name in ("floor", "ceil", "trunc", "eq", "ne", "lt", "le", "gt", "ge", "select")},
    **{f"bitwise_{name}": _operation(name) for name in ("not", "and", "or", "xor")},
    "round": _operation("rint"),
    "sign": _sign,
    "detach": _identity,
    "materialize": _identity,
    "exp": exp,
    "exp2": exp2,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "log2": log2,
    "log10": log10,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "erf": erf,
    "sin": sin,
    "cos": cos,
    "pow": _by_kind(math_int.power, math_pow.power),
    "floor_divide": _by_kind(math_int.floor_divide, math_mod.floor_divide),
    "remainder": _by_kind(math_int.remainder, math_mod.remainder),
    "fmod": _by_kind(math_int.fmod, math_mod.fmod),
    "gcd": gcd,
    "shift_left": shift_left,
    "shift_right": shift_right,
    "shift_right_logical": shift_right_logical,
}

_MOVING = frozenset({"detach", "materialize"})
# What these give is one of the numbers that 16 bits can hold, where their operands are.
_EXACT = frozenset({"neg", "abs", "maximum", "minimum", "floor", "ceil", "trunc", "round", "sign", "select"})


def expand(e: ScopedEmitter, name: str, *args: Value) -> Value:
    """The value of the elementwise operator `name` (all but `cast`, see `expand_cast`, and `bitcast`) on operands of
    any lane counts.

    f16 and bf16 operands are computed in f32, and a float result is rounded back. Where rounding changes nothing, those
    who read the result take it from before.
    """
    lanes = max(a.type.lanes for a in args)
    operands = [e.splat(a, lanes) for a in args]
    dtype = operands[-1].type.dtype
    if not dtype.is_float or dtype.bits != 16 or name in _MOVING:
        if name == "exp" and e.is_quick and dtype is f32 and lanes > 1:
            return e.exp2(e.op("mul", operands[0], LOG2_E))
        return EXPANSIONS[name](e, *operands)
    if name == "select" and all(e.find(("wide", a)) is None for a in operands):
        return e.op("select", *operands)
    wide = (a if a.type.dtype is boolean else expand_cast(e, a, f32) for a in operands)
    result = EXPANSIONS[name](e, *wide)
    if result.type.dtype is boolean:
        return result
    narrow = expand_cast(e, result, dtype)
    if name in _EXACT:
        e.remember(("wide", narrow), result)
    return narrow
