"""Samples of operators of one tensor that work one element at a time."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, Sample, bad, f, forward, ints, mask, once, pos, s, special
from tests.differential.samples.pointwise import again, v, w

NAN, INF = np.nan, np.inf
_TINY = v(1e-300, -1e-300, 5e-324, 1e-40, -1e-20, 1e-9, -1e-5)


def _unary(name: str, *more: Sample, **options: object) -> Op:
    samples = (s(f(3, 4)), s(special()), s(_TINY), s(ints(3)), s(mask(2)), s(f()), s(f(0, 3)), *more)
    refused = (bad("must be Tensor", 3), bad("must be Tensor", [1.0]))
    return Op(name, samples, refused, **{"slack": 2.0, **options})  # type: ignore[arg-type]


_UNIT = s(np.linspace(-1, 1, 9))
_FLOAT_UNARY = {
    name: _unary(name)
    for name in (
        "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tan",
        "sinh", "cosh", "tanh", "asinh", "atan", "sigmoid", "erf", "deg2rad", "rad2deg",
    )
} | {
    # At 0 its second gradient is NaN in PyTorch.
    "sinc": Op("sinc", (s(f(3, 4)), once(s(special())), once(s(_TINY)), s(ints(3))), (bad("must be Tensor", 3),)),
    "asin": _unary("asin", _UNIT),
    "acos": _unary("acos", _UNIT),
    "atanh": _unary("atanh", _UNIT),
    "acosh": _unary("acosh", s(1 + pos(4)), s(v(1.0, 1e10, 1e300))),
}  # fmt: skip
_ALIASES = {
    "arccos": "acos", "arcsin": "asin", "arctan": "atan", "arccosh": "acosh", "arcsinh": "asinh", "arctanh": "atanh",
}  # fmt: skip

_HALVES = v(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 1e15, 0.49999999999999994)


def _plain(name: str, *more: Sample, **options: object) -> Op:
    """Functions that keep integers."""
    samples = (s(f(3, 4)), s(special()), s(_HALVES), s(ints(3)), s(ints(3, dtype="uint8")), s(f()), s(f(0)), *more)
    return Op(name, samples, (bad("must be Tensor", 3),), **options)  # type: ignore[arg-type]


_TRUNC, _NEG, _ABS = _plain("trunc"), _plain("neg"), _plain("abs", s(w(-128, dtype="int8")))

POINTWISE_UNARY: tuple[Op, ...] = (
    *_FLOAT_UNARY.values(),
    *(again(name, _FLOAT_UNARY[old]) for name, old in _ALIASES.items()),
    Op(
        "logit",
        (
            s(pos(3, 4, high=0.8)),
            s(v(0.0, 1.0, -1.0, 2.0, 0.5, NAN)),
            once(s(v(0.0, 1.0, 0.05, 0.5), eps=0.1)),  # PyTorch: NaN at the edges
            s(mask(2)),
        ),
    ),
    _plain("floor"),
    _plain("ceil"),
    _TRUNC,
    again("fix", _TRUNC),
    Op("frac", (s(f(3, 4)), s(special()), s(f(0))), (bad("must be Tensor", 3),)),
    _plain("round", s(f(4) * 100, decimals=1), s(f(4) * 100, decimals=-1), s(v(2.675, 1e300, INF, NAN), decimals=2)),
    _NEG,
    again("negative", _NEG),
    Op("positive", (s(f(3)), s(ints(2))), (bad("bool", mask(2)),), forms=False),
    _ABS,
    again("absolute", _ABS),
    _plain("sign", s(mask(2))),
    _plain("sgn", s(mask(2))),
    _plain("square", s(w(100, dtype="int8"))),
    _plain("angle", s(mask(2))),
    _plain("signbit", s(mask(2))),
    _plain("relu"),
    _plain("nan_to_num", s(special(), 1.0, 2.0, 3.0), s(special(), posinf=5.0)),
    *(_plain(name, s(mask(2))) for name in ("isnan", "isinf", "isfinite", "isposinf", "isneginf", "isreal")),
    Op(
        "threshold",
        (s(f(3, 4), 0.1, 20.0), s(v(0.5, NAN, -1.0), 0.5, -2.0), s(ints(4), 1, 7)),
        (bad("threshold", f(2), "a", 1.0),),
    ),
    # The scale of subnormal numbers overflows in PyTorch.
    Op("frexp", (s(f(3, 4)), s(special()), forward(s(_TINY))), (bad("floating", ints(2)),)),
    *(
        Op(name, (s(f(3)), s(ints(2))), forms=False)
        for name in ("conj", "conj_physical", "resolve_conj", "resolve_neg")
    ),
)
