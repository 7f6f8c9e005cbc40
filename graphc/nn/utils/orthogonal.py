"""The parametrization whose matrices are orthogonal.

M. Lezcano-Casado, D. Martínez-Rubio, "Cheap orthogonal constraints in neural networks", 2019.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import Tensor, cat, eye, finfo, from_numpy, linalg, matrix_exp, no_grad, randn, zeros_like
from graphc.errors import InputError, UnsupportedError
from graphc.nn.module import Module
from graphc.nn.utils.parametrize import register_parametrization

_MAPS = ("matrix_exp", "cayley", "householder")


def _is_orthogonal(matrix: Tensor) -> bool:
    n, k = matrix.shape[-2:]
    difference = matrix.mT @ matrix - eye(k, dtype=matrix.dtype, device=matrix.device)
    return bool((difference.abs() < 10.0 * n * finfo(matrix.dtype).eps).all())


def _made_orthogonal(matrix: Tensor) -> Tensor:
    """The Q of the factorisation whose R has a positive diagonal."""
    q, r = linalg.qr(matrix)
    return q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)


class _Orthogonal(Module):
    """An orthogonal matrix (tall: orthonormal columns, wide: rows) from a triangle of numbers."""

    base: Tensor | None

    def __init__(self, weight: Tensor, orthogonal_map: str, use_trivialization: bool = True) -> None:
        super().__init__()
        self.shape = weight.shape
        self.orthogonal_map = orthogonal_map
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        wide = X.size(-2) < X.size(-1)
        x = X.mT if wide else X
        made = self._reflections(x) if self.orthogonal_map == "householder" else self._exponential(x)
        base = self._buffers.get("base")
        if base is not None:
            made = base @ made
        return made.mT if wide else made

    def _exponential(self, x: Tensor) -> Tensor:
        """By the exponential of a skew-symmetric matrix, or by Cayley's map of it."""
        n, k = x.shape[-2:]
        lower = x.tril()
        if n != k:
            lower = cat([lower, x.new_zeros(n, n - k).expand(*x.shape[:-2], -1, -1)], dim=-1)
        skew = lower - lower.mT
        if self.orthogonal_map == "matrix_exp":
            made = matrix_exp(skew)
        else:
            identity = eye(n, dtype=skew.dtype, device=skew.device)
            made = linalg.solve(identity - skew / 2, identity + skew / 2)
        return made[..., :k]

    def _reflections(self, x: Tensor) -> Tensor:
        """By reflections, whose signs stand on the diagonal."""
        vectors = x.tril(diagonal=-1)
        tau = 2.0 / (1.0 + (vectors * vectors).sum(dim=-2))
        made = linalg.householder_product(vectors, tau)
        return made * x.detach().diagonal(dim1=-2, dim2=-1).int().unsqueeze(-2)

    @no_grad()
    def right_inverse(self, Q: Tensor) -> Tensor:
        """The numbers that give `Q`, or the orthogonal matrix nearest to it on the way. ValueError for other shapes."""
        if Q.shape != self.shape:
            raise InputError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of shape {Q.shape}."
            )
        wide = Q.size(-2) < Q.size(-1)
        matrix = Q.mT if wide else Q
        n, k = matrix.shape[-2:]
        if "base" not in self._buffers:
            return self._vectors(matrix, wide)
        if n != k:
            noise = randn(*matrix.shape[:-2], n, n - k, dtype=matrix.dtype, device=matrix.device)
            self.base = _made_orthogonal(cat([matrix, noise], dim=-1))
        else:
            self.base = matrix.clone() if _is_orthogonal(matrix) else _made_orthogonal(matrix)
        start = zeros_like(Q)  # minus the identity, as signs stand on the diagonal of the reflections
        start.diagonal(dim1=-2, dim2=-1).fill_(-1.0)
        return start

    def _vectors(self, matrix: Tensor, wide: bool) -> Tensor:
        if self.orthogonal_map != "householder":
            raise UnsupportedError(
                "It is not possible to assign to the matrix exponential or the Cayley parametrizations when "
                "use_trivialization=False."
            )
        vectors, tau = np.linalg.qr(matrix.detach().cpu().numpy(), mode="raw")
        vectors = np.ascontiguousarray(np.swapaxes(vectors, -1, -2))
        places = np.arange(tau.shape[-1])
        signs = np.sign(vectors[..., places, places])
        vectors[..., places, places] = np.where(tau == 0, -signs, signs)
        made = from_numpy(vectors).to(matrix.device, matrix.dtype)
        return made.mT if wide else made


def orthogonal(
    module: Any, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Any:
    """Keeps a weight orthogonal: by "matrix_exp" or "cayley" of a skew-symmetric matrix, or by "householder"
    reflections (default for matrices that are not square)."""
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise InputError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise InputError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions.")
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.size(-2) == weight.size(-1) else "householder"
    if orthogonal_map not in _MAPS:
        raise InputError(
            f'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: {orthogonal_map}'
        )
    register_parametrization(module, name, _Orthogonal(weight, orthogonal_map, use_trivialization), unsafe=True)
    return module
