"""Linear algebra under the names of `torch.linalg`.

`LinAlgError` is raised when a value is looked at that needs, say, the inverse of a singular matrix. Factorisations run
on the host; `docs/pytorch.md` says what differs.
"""

from __future__ import annotations

from graphc.errors import LinAlgError
from graphc.tensors.einsum import multi_dot
from graphc.tensors.linear.factorisations import cholesky_ex, eig, eigh, eigvals, eigvalsh, svdvals
from graphc.tensors.linear.factorisations import linalg_cholesky as cholesky
from graphc.tensors.linear.factorisations import linalg_qr_ as qr
from graphc.tensors.linear.factorisations import linalg_svd_ as svd
from graphc.tensors.linear.lu import linalg_lu_ as lu
from graphc.tensors.linear.lu import linalg_lu_solve as lu_solve
from graphc.tensors.linear.lu import lu_factor, lu_factor_ex
from graphc.tensors.linear.reflections import ldl_factor, ldl_factor_ex, ldl_solve
from graphc.tensors.linear.solving import (
    det,
    householder_product,
    inv,
    inv_ex,
    matrix_exp,
    matrix_power,
    solve,
    solve_ex,
    solve_triangular,
    tensorinv,
    tensorsolve,
)
from graphc.tensors.linear.solving import linalg_slogdet_ as slogdet
from graphc.tensors.linear.solving import linalg_vander as vander
from graphc.tensors.linear.spectral import cond, lstsq, matrix_norm, matrix_rank, pinv
from graphc.tensors.linear.spectral import linalg_norm as norm
from graphc.tensors.linear.spectral import linalg_vector_norm as vector_norm
from graphc.tensors.products import matmul
from graphc.tensors.vectors import linalg_cross as cross
from graphc.tensors.vectors import linalg_diagonal as diagonal
from graphc.tensors.vectors import vecdot

__all__ = [
    "LinAlgError",
    "cholesky",
    "cholesky_ex",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "householder_product",
    "inv",
    "inv_ex",
    "ldl_factor",
    "ldl_factor_ex",
    "ldl_solve",
    "lstsq",
    "lu",
    "lu_factor",
    "lu_factor_ex",
    "lu_solve",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_ex",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensorinv",
    "tensorsolve",
    "vander",
    "vecdot",
    "vector_norm",
]
