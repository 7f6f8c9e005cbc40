"""Methods of tensors: products and linear algebra."""

from __future__ import annotations

from typing import Any

from graphc.tensors import products, vectors
from graphc.tensors.core import TensorBase
from graphc.tensors.methods.inplace import inplace


class LinalgMethods(TensorBase):
    """Products and linear algebra."""

    __slots__ = ()

    matmul, __matmul__ = products.matmul, products.operator_matmul
    mm, bmm, mv, dot, vdot, inner = (
        products.mm,
        products.bmm,
        products.mv,
        products.dot,
        products.vdot,
        products.inner,
    )
    outer, ger, cross, trace = products.outer, products.ger, vectors.cross, vectors.matrix_trace
    addmm, addmv, addr, addbmm, baddbmm = (
        products.addmm,
        products.addmv,
        products.addr,
        products.addbmm,
        products.baddbmm,
    )
    addmm_, addmv_, addr_ = inplace(products.addmm), inplace(products.addmv), inplace(products.addr)
    addbmm_, baddbmm_ = inplace(products.addbmm), inplace(products.baddbmm)

    def __rmatmul__(self: Any, other: Any) -> Any:
        """`other @ self`."""
        return products.operator_matmul(other, self)
