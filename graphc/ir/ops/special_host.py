"""Special functions of two operands whose series have no fixed length: they run on the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.ir.node import Node
from graphc.ir.opdef import Attrs, OpDef, Vjp, register
from graphc.ir.ops.checks import narrow
from graphc.ir.ops.elementwise import infer_elementwise
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

# B(2k) / (2k)!
_EULER_MACLAURIN = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600,
    -3617 / 10670622842880000,
)  # fmt: skip
_lgamma = np.vectorize(math.lgamma, otypes=[np.float64])


def _zeta_of(x: float, q: float) -> float:
    """Hurwitz' zeta by Euler and Maclaurin's formula (Abramowitz and Stegun, 23.1.30), 12 terms summed before it."""
    if x != x or q != q:
        return math.nan
    if x == 1:
        return math.inf
    if x < 1 or (q <= 0 and q != math.floor(q) and x != math.floor(x)):
        return math.nan
    if q <= 0 and q == math.floor(q):
        return math.inf
    if q == math.inf or x == math.inf:
        return 0.0 if q > 1 or q == math.inf else 1.0 if q == 1 else math.inf
    total, at = 0.0, q
    while at < 12 or at - q < 12:
        total += float(np.float64(at) ** -x)
        at += 1
    power = float(np.float64(at) ** -x)
    total += power * at / (x - 1) + power / 2
    factor, power = x, power / at
    for k, c in enumerate(_EULER_MACLAURIN):
        total += c * factor * power
        factor *= (x + 2 * k + 1) * (x + 2 * k + 2)
        power /= at * at
    return total


def _lower_of(a: float, x: float) -> tuple[float, float]:
    """The regularised incomplete gamma functions P and Q: a series for x < a + 1, Lentz' continued fraction else
    (Abramowitz and Stegun, 6.5.29 and 6.5.31).
    """
    if a != a or x != x or a < 0 or x < 0:
        return math.nan, math.nan
    if a == 0:
        return (math.nan, math.nan) if x == 0 else (1.0, 0.0)
    if x == 0:
        return 0.0, 1.0
    if math.isinf(a):
        return (math.nan, math.nan) if math.isinf(x) else (0.0, 1.0)
    if math.isinf(x):
        return 1.0, 0.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a)) if a < 100 else _front_of_large(a, x)
    if x < a + 1:
        term = total = 1 / a
        n = a
        for _ in range(10_000):
            n += 1
            term *= x / n
            total += term
            if term < total * 1e-17:
                break
        lower = min(total * front, 1.0)
        return lower, 1 - lower
    b, tiny = x + 1 - a, 1e-300
    c, d = 1 / tiny, 1 / b
    h = d
    for i in range(1, 10_000):
        step = -i * (i - a)
        b += 2
        d = 1 / (step * d + b or tiny)
        c = b + step / c or tiny
        h *= d * c
        if abs(d * c - 1) < 1e-16:
            break
    upper = front * h
    return 1 - upper, upper


def _front_of_large(a: float, x: float) -> float:
    """x**a * exp(-x) / gamma(a) for large a: the large terms of the logarithm cancel before they are rounded."""
    off = (x - a) / a
    stirling = 1 / (12 * a) - 1 / (360 * a**3) + 1 / (1260 * a**5)
    return math.exp(a * (math.log1p(off) - off) - stirling) * math.sqrt(a / (2 * math.pi)) if off > -1 else 0.0


def _host(name: str, formula: Callable[[float, float], float], doc: str, vjp: Vjp) -> OpDef:
    run = np.vectorize(formula, otypes=[np.float64])

    def evaluate(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
        x, y = (a.astype(np.float64) for a in arrays)
        return narrow(run(x, y) if x.size else x, type)

    return register(
        OpDef(
            name=name, kind="host", arity=2, doc=doc, infer=infer_elementwise(name, 2, "float"), evaluate=evaluate,
            vjp=vjp,
        )
    )  # fmt: skip


def _zeta_vjp(b: Builder, node: Node, ct: Node) -> Sequence[Node | None]:
    """For q only, as in PyTorch."""
    x, q = node.inputs
    return [None, b.mul(ct, b.mul(b.neg(x), b.elementwise("zeta", b.add(x, 1.0), q)))]


def _density(b: Builder, node: Node, ct: Node) -> Node:
    """ct * x**(a-1) * exp(-x) / gamma(a)."""
    a, x = node.inputs
    exponent = b.sub(b.sub(b.mul(b.sub(a, 1.0), b.log(x)), x), b.elementwise("lgamma", a))
    return b.mul(ct, b.exp(exponent))


def _gammainc_vjp(b: Builder, node: Node, ct: Node) -> Sequence[Node | None]:
    """For x only, as in PyTorch."""
    return [None, _density(b, node, ct)]


def _gammaincc_vjp(b: Builder, node: Node, ct: Node) -> Sequence[Node | None]:
    """For x only, as in PyTorch."""
    return [None, b.neg(_density(b, node, ct))]


_host("zeta", _zeta_of, "Hurwitz' zeta function: the sum of (q + k)**-x over k = 0, 1, ... Float.", _zeta_vjp)
_host("gammainc", lambda a, x: _lower_of(a, x)[0], "The lower incomplete gamma function, regularised.", _gammainc_vjp)
_host("gammaincc", lambda a, x: _lower_of(a, x)[1], "The upper incomplete gamma function, regularised.", _gammaincc_vjp)
