"""erf in kernel operations; the error bound is in docs/math.md."""

from __future__ import annotations

from graphc.codegen.kernel import Emitter, Value
from graphc.codegen.math_exp import exp_of_small
from graphc.codegen.math_float import copysign, format_of, horner, like
from graphc.ir.types import DType, f32, f64

# Q of erf(x) = x + x * Q(x**2) on |x| <= 0.9: minimax in the error relative to erf (Remez exchange, 60 digits; the
# first two coefficients are rounded before the others are fitted). Error: 2**-26.0 (f32), 2**-56.1 (f64).
NEAR: dict[DType, tuple[float, ...]] = {
    f32: (
        0.12837915122509003, -0.3761250376701355, 0.11281921714544296, -0.02677050791680813, 0.004998988471925259,
        -0.0006020975997671485,
    ),
    f64: (
        0.1283791670955126, -0.3761263890318411, 0.11283791670972039, -0.026866170648260454, 0.005223977655076232,
        -0.0008548328652215805, 0.0001205538822216891, -1.492682992245876e-05, 1.6477634204469583e-06,
        -1.6479692267106122e-07, 1.509825536259698e-08, -1.082493996430437e-09,
    ),
}  # fmt: skip

# M of erfc(x) = exp(-x**2 + M(x - 2)) on [0.87, 4] (f32) and [0.87, 6] (f64): minimax in the absolute error of erfc,
# found likewise. Error: 2**-28.0 (f32), 2**-56.6 (f64).
FAR: dict[DType, tuple[float, ...]] = {
    f32: (
        -1.3649405241012573, -0.41815611720085144, 0.07624556869268417, -0.01651507243514061, 0.003499343292787671,
        -0.0007353105465881526, 0.0001835941948229447,
    ),
    f64: (
        -1.3649412646166383, -0.4181608059944391, 0.07624915817620363, -0.01646511813608379, 0.003570756347324586,
        -0.0007323993917073369, 0.00013530932250144993, -2.070641709196657e-05, 1.9522350432255694e-06,
        2.0362680223724765e-07, -1.7326789545323667e-07, 5.7803736325773816e-08, -1.3901178218312631e-08,
        2.536357884766062e-09, -2.9449007803537333e-10, -4.0562988544940907e-11, 4.086622026957149e-11,
        -1.0985347729365128e-11, 1.0406701311396981e-12,
    ),
}  # fmt: skip

# erf(x) rounds to 1 from here on.
SATURATION: dict[DType, float] = {f32: 4.0, f64: 6.0}


def erf(e: Emitter, x: Value) -> Value:
    """An odd polynomial below 0.9, 1 - erfc(|x|) above: both are computed and one is chosen."""
    dtype = format_of(x).dtype
    a = e.op("fmin", like(e, SATURATION[dtype], x), e.op("abs", x))
    near = e.op("fma", a, horner(e, e.op("mul", a, a), NEAR[dtype]), a)
    exponent = e.op("fma", e.op("neg", a), a, horner(e, e.op("sub", a, 2.0), FAR[dtype]))
    far = e.op("sub", 1.0, exp_of_small(e, exponent))
    return copysign(e, e.op("select", e.op("lt", a, 0.9), near, far), x)
