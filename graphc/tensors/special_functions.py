"""Special functions: error, gamma, Bessel and zeta functions, and the normal distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.errors import KindError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.promotion import as_float
from graphc.tensors.calling import Emit, binary, float_unary, named, refuse, simple, want_tensor
from graphc.tensors.core import record
from graphc.tensors.out import out_form

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _function(name: str, node: str, doc: str, op: str = "") -> Callable[..., Any]:
    return float_unary(name, node, simple(op or name), doc)


def _constant(name: str, doc: str, op: str | Emit = "") -> Callable[..., Any]:
    """A function that PyTorch has no gradient for: its results never require one."""
    function = float_unary(name, "", simple(op or name) if isinstance(op, str) else op, doc)

    def detached(input: Tensor) -> Tensor:
        want_tensor(name, input)
        return function(input.detach())

    return out_form(named(detached, name, function.__doc__ or ""))


erfc = _function("erfc", "ErfcBackward0", "1 - erf(x).")
erfinv = _function("erfinv", "ErfinvBackward0", "The inverse of erf.")
lgamma = _function("lgamma", "LgammaBackward0", "The logarithm of |gamma(x)|.")
digamma = _function("digamma", "DigammaBackward0", "The derivative of lgamma.")
i0 = _function("i0", "I0Backward0", "The modified Bessel function of the first kind, order 0.")
i0e = _function("i0e", "SpecialI0EBackward0", "exp(-|x|) * i0(x).")
i1 = _function("i1", "SpecialI1Backward0", "The modified Bessel function of the first kind, order 1.")
i1e = _function("i1e", "SpecialI1EBackward0", "exp(-|x|) * i1(x).")
erfcx = _function("erfcx", "SpecialErfcxBackward0", "exp(x * x) * erfc(x).")
ndtri = _function("ndtri", "SpecialNdtriBackward0", "The quantile of the normal distribution.")
log_ndtr = _function("log_ndtr", "SpecialLogNdtrBackward0", "The logarithm of the normal distribution function.")
entr = _function("entr", "SpecialEntrBackward0", "-x * log(x); 0 at 0, -inf below.")
airy_ai = _constant("airy_ai", "Airy's function Ai.")
bessel_j0 = _constant("bessel_j0", "The Bessel function of the first kind, order 0.")
bessel_j1 = _constant("bessel_j1", "The Bessel function of the first kind, order 1.")
bessel_y0 = _constant("bessel_y0", "The Bessel function of the second kind, order 0.")
bessel_y1 = _constant("bessel_y1", "The Bessel function of the second kind, order 1.")
modified_bessel_i0 = _constant("modified_bessel_i0", "i0, without gradient.", "i0")
modified_bessel_i1 = _constant("modified_bessel_i1", "i1, without gradient.", "i1")
modified_bessel_k0 = _constant("modified_bessel_k0", "The modified one of the second kind, order 0.")
modified_bessel_k1 = _constant("modified_bessel_k1", "The modified one of the second kind, order 1.")
scaled_modified_bessel_k0 = _constant("scaled_modified_bessel_k0", "exp(x) * modified_bessel_k0(x).")
scaled_modified_bessel_k1 = _constant("scaled_modified_bessel_k1", "exp(x) * modified_bessel_k1(x).")


def _ndtr(b: Builder, x: Node) -> Node:
    return b.mul(b.apply("erfc", (b.mul(x, -1 / math.sqrt(2)),)), 0.5)


ndtr = float_unary("ndtr", "MulBackward0", _ndtr, "The normal distribution function.")


def _spherical(b: Builder, x: Node) -> Node:
    """sin(x) / x, by its series below 1/2."""
    small = b.apply("lt", (b.apply("abs", (x,)), b.constant(0.5, x.type)))
    square = b.mul(x, x)
    series = b.constant(1.0, x.type)
    for k in (8, 7, 6, 5, 4, 3, 2, 1):
        series = b.sub(1.0, b.mul(b.mul(square, series), 1 / (2 * k * (2 * k + 1))))
    ratio = b.div(b.apply("sin", (x,)), b.select(small, b.constant(1, x.type), x))
    infinite = b.apply("eq", (b.apply("abs", (x,)), b.constant(math.inf, x.type)))
    return b.select(small, series, b.select(infinite, b.zeros_like(x), ratio))


spherical_bessel_j0 = _constant("spherical_bessel_j0", "sin(x) / x.", _spherical)

zeta = binary(
    "zeta", ("SpecialZetaBackward0", "SpecialZetaBackward2", "SpecialZetaBackward1"), simple("zeta"),
    "Hurwitz' zeta function of input at other.", "either", as_float,
)  # fmt: skip


def _polygamma(n: int) -> Callable[[Builder, Node], Node]:
    def emit(b: Builder, x: Node) -> Node:
        x = b.cast(x, as_float(x.dtype))
        if n < 2:
            return b.apply(("digamma", "trigamma")[n], (x,))
        scale = (-1) ** (n + 1) * float(math.factorial(n))
        return b.mul(b.apply("zeta", (b.constant(n + 1, x.type), x)), scale)

    return emit


@out_form
def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of digamma."""
    if isinstance(n, bool) or not isinstance(n, int):
        refuse("polygamma", n, "n", 1)
    want_tensor("polygamma", input, "input", 2)
    if n < 0:
        raise UsageError("polygamma(n, x) does not support negative n.")
    return record("PolygammaBackward0", (input,), _polygamma(n))


@out_form
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p."""
    want_tensor("mvlgamma", input)
    if isinstance(p, bool) or not isinstance(p, int):
        raise KindError(f"mvlgamma(): argument 'p' (position 2) must be int, not {type(p).__name__}")
    if p < 1:
        raise UsageError("p has to be greater than or equal to 1")

    def emit(b: Builder, x: Node) -> Node:
        x = b.cast(x, as_float(x.dtype))
        total = b.constant(p * (p - 1) / 4 * math.log(math.pi), x.type)
        for j in range(p):
            total = b.add(total, b.apply("lgamma", (b.add(x, -j / 2),)))
        return total

    return record("MvlgammaBackward0", (input,), emit)


def _igamma(name: str, op: str, node: str, doc: str) -> Callable[..., Any]:
    return binary(name, node, simple(op), doc, "none", as_float)


igamma = gammainc = _igamma("igamma", "gammainc", "IgammaBackward0", "Lower incomplete gamma function.")
igammac = gammaincc = _igamma("igammac", "gammaincc", "IgammacBackward0", "Upper incomplete gamma function.")
