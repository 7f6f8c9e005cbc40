"""Orthogonal polynomials of `torch.special`. They have no gradients, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.errors import KindError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.promotion import as_float
from graphc.tensors.calling import named, not_implemented
from graphc.tensors.core import TensorBase
from graphc.tensors.operands import combine, common, is_number
from graphc.tensors.out import out_form

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Emit = Callable[[Builder, Node, Node], Node]


def _want_wide(name: str, dtype: DType) -> DType:
    if dtype.is_float and dtype.bits == 16:
        raise not_implemented(f"{name}_cpu", dtype)
    return as_float(dtype)


def _polynomial(name: str, family: str, doc: str, shifted: bool = False) -> Callable[..., Any]:
    """A function of x and the degree n, of which one may be a number."""

    def emit(b: Builder, x: Node, n: Node) -> Node:
        at = b.sub(b.add(x, x), 1.0) if shifted else x
        return b.apply("orthogonal_polynomial", (at, n), {"family": family})

    def function(x: Any, n: Any) -> Tensor:
        tensors = [isinstance(v, TensorBase) for v in (x, n)]
        if not any(tensors) or not all(t or is_number(v) for t, v in zip(tensors, (x, n), strict=True)):
            raise KindError(
                f"special_{name}() received an invalid combination of arguments - got ({type(x).__name__}, "
                f"{type(n).__name__}), but expected two tensors, or a tensor and a Number"
            )
        operands = [v.detach() if t else v for t, v in zip(tensors, (x, n), strict=True)]
        return combine("", operands, emit, _want_wide(name, common(operands)[0]))

    return out_form(
        named(function, name, f"{doc} of degree n (truncated; 0 where it is negative) at x, broadcast and promoted.")
    )


_KINDS = {"t": "first", "u": "second", "v": "third", "w": "fourth"}
_PLAIN = {k: f"Chebyshev's polynomial of the {which} kind" for k, which in _KINDS.items()}
_MOVED = {k: f"{doc}, moved to [0, 1]," for k, doc in _PLAIN.items()}

chebyshev_polynomial_t = _polynomial("chebyshev_polynomial_t", "chebyshev_t", _PLAIN["t"])
chebyshev_polynomial_u = _polynomial("chebyshev_polynomial_u", "chebyshev_u", _PLAIN["u"])
chebyshev_polynomial_v = _polynomial("chebyshev_polynomial_v", "chebyshev_v", _PLAIN["v"])
chebyshev_polynomial_w = _polynomial("chebyshev_polynomial_w", "chebyshev_w", _PLAIN["w"])
shifted_chebyshev_polynomial_t = _polynomial("shifted_chebyshev_polynomial_t", "chebyshev_t", _MOVED["t"], True)
shifted_chebyshev_polynomial_u = _polynomial("shifted_chebyshev_polynomial_u", "chebyshev_u", _MOVED["u"], True)
shifted_chebyshev_polynomial_v = _polynomial("shifted_chebyshev_polynomial_v", "chebyshev_v", _MOVED["v"], True)
shifted_chebyshev_polynomial_w = _polynomial("shifted_chebyshev_polynomial_w", "chebyshev_w", _MOVED["w"], True)
hermite_polynomial_h = _polynomial("hermite_polynomial_h", "hermite_h", "Hermite's polynomial (physicists')")
hermite_polynomial_he = _polynomial("hermite_polynomial_he", "hermite_he", "Hermite's polynomial (probabilists')")
laguerre_polynomial_l = _polynomial("laguerre_polynomial_l", "laguerre_l", "Laguerre's polynomial")
legendre_polynomial_p = _polynomial("legendre_polynomial_p", "legendre_p", "Legendre's polynomial")
