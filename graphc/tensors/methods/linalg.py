"""Methods of tensors: products and linear algebra."""

from __future__ import annotations

from typing import Any

from graphc.naming import named
from graphc.tensors import products, vectors
from graphc.tensors.core import TensorBase
from graphc.tensors.linear import factorisations, reflections, solving, spectral
from graphc.tensors.linear import lu as lu_factors
from graphc.tensors.methods.inplace import inplace


class LinalgMethods(TensorBase):
    """Products and linear algebra."""

    __slots__ = ()

    matmul, __matmul__ = products.matmul, named(products.operator_matmul, "matmul")
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

    # factorisations and what is made from them

    cholesky, qr, svd = factorisations.cholesky, factorisations.qr, factorisations.svd
    cholesky_solve, cholesky_inverse = solving.cholesky_solve, solving.cholesky_inverse
    inverse, det, slogdet, logdet = solving.inverse, solving.det, solving.slogdet, solving.logdet
    triangular_solve, matrix_power, matrix_exp = solving.triangular_solve, solving.matrix_power, solving.matrix_exp
    geqrf, ormqr = reflections.geqrf, reflections.ormqr
    orgqr, pinverse, lu_solve = solving.orgqr, spectral.pinverse, lu_factors.lu_solve

    def lu(self: Any, pivot: bool = True, get_infos: bool = False) -> Any:
        """The factors L and U in one matrix, the pivots, and with `get_infos` the numbers of zero pivots."""
        return lu_factors.lu(self, pivot=pivot, get_infos=get_infos)
