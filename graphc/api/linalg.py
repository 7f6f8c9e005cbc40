"""Public names: products and linear algebra."""

from graphc.distances import cosine_similarity, pairwise_distance
from graphc.tensors.distances import bilinear, cdist, pdist
from graphc.tensors.einsum import chain_matmul, einsum, tensordot
from graphc.tensors.linear.factorisations import cholesky, qr, svd
from graphc.tensors.linear.lu import lu, lu_solve, lu_unpack
from graphc.tensors.linear.reflections import geqrf, lobpcg, ormqr, pca_lowrank, svd_lowrank
from graphc.tensors.linear.solving import (
    cholesky_inverse,
    cholesky_solve,
    det,
    inverse,
    logdet,
    matrix_exp,
    matrix_power,
    orgqr,
    slogdet,
    triangular_solve,
)
from graphc.tensors.linear.spectral import frobenius_norm, nuclear_norm, pinverse
from graphc.tensors.products import (
    addbmm,
    addmm,
    addmv,
    addr,
    baddbmm,
    bmm,
    dot,
    ger,
    inner,
    matmul,
    mm,
    mv,
    outer,
    vdot,
)
from graphc.tensors.vectors import cross
