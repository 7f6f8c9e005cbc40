"""Logarithms to the bases 2 and 10 in kernel operations; the error bounds are in docs/math.md."""

from __future__ import annotations

import math

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import Value
from graphc.codegen.math_exp import split
from graphc.codegen.math_float import format_of, horner, like, small_int_to_float
from graphc.codegen.math_pow import LOG_FOR_F32, log_f64
from graphc.ir.types import f32, f64

# 1 / ln 2 and 1 / ln 10 as sums of two f64.
LOG2_OF_E = (float.fromhex("0x1.71547652b82fep+0"), float.fromhex("0x1.777d0ffda0d24p-56"))
LOG10_OF_E = (float.fromhex("0x1.bcb7b1526e50ep-2"), float.fromhex("0x1.95355baaafad3p-57"))


def _based(e: Emitter, x: Value, factor: tuple[float, float]) -> Value:
    """log(x) times a factor; log(x) comes with more bits than the format has, so that whole results are exact."""
    f = format_of(x)
    wide = e.op("cast", x, to=f64) if f.dtype is f32 else x
    g = format_of(wide)
    subnormal = e.op("lt", wide, g.min_normal)
    n, m = split(e, e.op("select", subnormal, e.op("mul", wide, 2.0**54), wide), g)
    exponent = e.op("sub", small_int_to_float(e, n, f64), e.op("select", subnormal, like(e, 54.0, wide), 0.0))
    if f.dtype is f32:
        r = e.op("sub", m, 1.0)
        tail = e.op("fma", r, horner(e, r, LOG_FOR_F32), -0.5)
        log = e.op("fma", exponent, math.log(2.0), e.op("fma", e.op("mul", r, r), tail, r))
        y = e.op("cast", e.op("mul", log, factor[0]), to=f32)
    else:
        high, low = log_f64(e, exponent, m)
        product = e.op("mul", high, factor[0])
        rest = e.op("fma", high, factor[0], e.op("neg", product))
        rest = e.op("fma", high, factor[1], e.op("fma", low, factor[0], rest))
        y = e.op("add", product, rest)
    y = e.op("select", e.op("eq", x, math.inf), x, y)
    outside = e.op("select", e.op("eq", x, 0.0), like(e, -math.inf, x), math.nan)
    return e.op("select", e.op("gt", x, 0.0), y, outside)


def log2(e: Emitter, x: Value) -> Value:
    return _based(e, x, LOG2_OF_E)


def log10(e: Emitter, x: Value) -> Value:
    return _based(e, x, LOG10_OF_E)
