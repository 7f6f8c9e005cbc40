"""Orthogonal polynomials by their recurrences in the degree, and Airy's function: they run on the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops.checks import narrow
from graphc.ir.ops.elementwise import infer_elementwise
from graphc.ir.types import TensorType

Array = np.ndarray

# Degree one of each family, and from degrees k - 1 and k (values p and q) the value of degree k + 1
# (Abramowitz and Stegun, table 22.7; Chebyshev's third and fourth kind as in NIST's DLMF, 18.9).
_Step = Callable[[Array, int, Array, Array], Array]


def _doubling(x: Array, k: int, p: Array, q: Array) -> Array:
    return 2 * x * q - p


POLYNOMIALS: dict[str, tuple[Callable[[Array], Array], _Step]] = {
    "chebyshev_t": (lambda x: x, _doubling),
    "chebyshev_u": (lambda x: 2 * x, _doubling),
    "chebyshev_v": (lambda x: 2 * x - 1, _doubling),
    "chebyshev_w": (lambda x: 2 * x + 1, _doubling),
    "hermite_h": (lambda x: 2 * x, lambda x, k, p, q: 2 * x * q - 2 * k * p),
    "hermite_he": (lambda x: x, lambda x, k, p, q: x * q - k * p),
    "laguerre_l": (lambda x: 1 - x, lambda x, k, p, q: ((2 * k + 1 - x) * q - k * p) / (k + 1)),
    "legendre_p": (lambda x: x, lambda x, k, p, q: ((2 * k + 1) * x * q - k * p) / (k + 1)),
}
_infer_pair = infer_elementwise("orthogonal_polynomial", 2, "float")
_MOST = 10_000  # degrees above are taken in closed form at the ends of the interval, else NaN
_AT_ENDS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    # at 1, and at -1 but for the sign of an odd degree
    "chebyshev_t": (np.ones_like, np.ones_like),
    "chebyshev_u": (lambda n: n + 1, lambda n: n + 1),
    "chebyshev_v": (np.ones_like, lambda n: 2 * n + 1),
    "chebyshev_w": (lambda n: 2 * n + 1, np.ones_like),
    "legendre_p": (np.ones_like, np.ones_like),
}


def _polynomial(family: str, x: Array, degree: Array) -> Array:
    """Values at x; 0 for negative degrees, and for degrees that are no numbers."""
    first, step = POLYNOMIALS[family]
    whole = np.where(np.isfinite(degree), np.trunc(degree), np.where(degree > 0, _MOST + 1, -1))
    made = np.where(whole < 0, 0.0, np.where(whole > _MOST, math.nan, 1.0))
    before, now = np.ones_like(x), first(x)
    last = int(np.where(whole > _MOST, 0, whole).max(initial=0))
    for k in range(1, last + 1):
        made = np.where(whole == k, now, made)
        before, now = now, step(x, k, before, now)
    if family in _AT_ENDS:
        right, left = _AT_ENDS[family]
        sign = np.where(whole % 2 == 0, 1.0, -1.0)
        made = np.where((x == 1) & (whole >= 0), right(whole), made)
        made = np.where((x == -1) & (whole >= 0), left(whole) * sign, made)
    return np.where((x != x) & (whole > 0), math.nan, made)


def _infer_polynomial(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    if attrs["family"] not in POLYNOMIALS:
        raise ShapeError(
            f"orthogonal_polynomial: there is no family {attrs['family']!r}, only {', '.join(POLYNOMIALS)}"
        )
    return _infer_pair(types, attrs)


def _evaluate_polynomial(arrays: Sequence[Array], attrs: Attrs, type: TensorType) -> Array:
    x, degree = (np.asarray(a.astype(np.float64)) for a in arrays)
    return narrow(_polynomial(str(attrs["family"]), x, degree), type)


# Ai(0) and -Ai'(0)
_AT_ZERO = 1 / (3 ** (2 / 3) * math.gamma(2 / 3)), 1 / (3 ** (1 / 3) * math.gamma(1 / 3))


def _airy_series(x: Array) -> Array:
    """The Maclaurin series (Abramowitz and Stegun, 10.4.2), for |x| <= 1."""
    cube = x * x * x
    one, other = np.ones_like(x), x.copy()
    even, odd = one.copy(), other.copy()
    for k in range(1, 12):
        one = one * cube / ((3 * k - 1) * (3 * k))
        other = other * cube / ((3 * k) * (3 * k + 1))
        even, odd = even + one, odd + other
    return _AT_ZERO[0] * even - _AT_ZERO[1] * odd


def _airy_integral(z: Array) -> Array:
    """exp(-2/3 z^(3/2)) / pi times the integral of exp(-sqrt(z) t^2) cos(t^3 / 3) over t > 0 (DLMF, 9.5.4, with the
    path moved through sqrt(z)), by the trapezoidal rule, whose error falls exponentially; |z| >= 1.
    """
    root = np.sqrt(z)
    scale = np.abs(z) ** -0.25
    total = np.full(z.shape, 0.5, z.dtype)
    for k in range(1, 68):
        t = 0.1 * k * scale
        total = total + np.exp(-root * t * t) * np.cos(t * t * t / 3)
    return np.exp(-2 / 3 * z * root) * total * (0.1 * scale / math.pi)


def _airy(x: Array) -> Array:
    made = np.full(x.shape, math.nan)
    near = np.abs(x) <= 1
    made[near] = _airy_series(x[near])
    right = (x > 1) & np.isfinite(x)
    made[right] = _airy_integral(x[right])
    left = (x < -1) & np.isfinite(x)
    turn = np.exp(1j * math.pi / 3)
    made[left] = 2 * (turn * _airy_integral(-x[left] * turn)).real
    made[np.isinf(x)] = 0.0
    return made


def _evaluate_airy(arrays: Sequence[Array], attrs: Attrs, type: TensorType) -> Array:
    return narrow(_airy(np.atleast_1d(arrays[0].astype(np.float64))).reshape(type.shape), type)


_NONE = "undefined: PyTorch has none"

register(
    OpDef(
        name="orthogonal_polynomial",
        kind="host",
        arity=2,
        doc="The polynomial of degree y (truncated) of a family of orthogonal ones at x, 0 for y < 0; float.",
        infer=_infer_polynomial,
        evaluate=_evaluate_polynomial,
        attrs=(Attr("family", "str"),),
        why_no_vjp=_NONE,
    )
)
register(
    OpDef(
        name="airy_ai",
        kind="host",
        arity=1,
        doc="Airy's function Ai, float.",
        infer=infer_elementwise("airy_ai", 1, "float"),
        evaluate=_evaluate_airy,
        why_no_vjp=_NONE,
    )
)
