"""Named results of functions that give several tensors, as PyTorch's `torch.return_types`."""

from __future__ import annotations

from collections import namedtuple
from typing import Any


def _shown(self: Any) -> str:
    body = ",\n".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
    return f"torch.return_types.{type(self).__name__}(\n{body})"


def result_type(name: str, *fields: str) -> Any:
    """A named tuple with `fields` that prints as PyTorch's `torch.return_types.NAME`."""
    made = namedtuple(name, fields)  # type: ignore[misc]
    members = {"__slots__": (), "__repr__": _shown, "__doc__": f"What `{name}` returns: {', '.join(fields)}."}
    return type(name, (made,), members)


def _indexed(name: str) -> Any:
    return result_type(name, "values", "indices")


max = _indexed("max")
min = _indexed("min")
median = _indexed("median")
nanmedian = _indexed("nanmedian")
mode = _indexed("mode")
sort = _indexed("sort")
topk = _indexed("topk")
kthvalue = _indexed("kthvalue")
cummax = _indexed("cummax")
cummin = _indexed("cummin")
aminmax = result_type("aminmax", "min", "max")
histogram = result_type("histogram", "hist", "bin_edges")
histogramdd = result_type("histogramdd", "hist", "bin_edges")
geqrf = result_type("geqrf", "a", "tau")
linalg_cholesky_ex = result_type("linalg_cholesky_ex", "L", "info")
linalg_eigh = result_type("linalg_eigh", "eigenvalues", "eigenvectors")
linalg_inv_ex = result_type("linalg_inv_ex", "inverse", "info")
linalg_ldl_factor = result_type("linalg_ldl_factor", "LD", "pivots")
linalg_ldl_factor_ex = result_type("linalg_ldl_factor_ex", "LD", "pivots", "info")
linalg_lstsq = result_type("linalg_lstsq", "solution", "residuals", "rank", "singular_values")
linalg_lu = result_type("linalg_lu", "P", "L", "U")
linalg_lu_factor = result_type("linalg_lu_factor", "LU", "pivots")
linalg_lu_factor_ex = result_type("linalg_lu_factor_ex", "LU", "pivots", "info")
linalg_qr = result_type("linalg_qr", "Q", "R")
linalg_slogdet = result_type("linalg_slogdet", "sign", "logabsdet")
linalg_solve_ex = result_type("linalg_solve_ex", "result", "info")
linalg_svd = result_type("linalg_svd", "U", "S", "Vh")
lu_unpack = result_type("lu_unpack", "P", "L", "U")
qr = result_type("qr", "Q", "R")
slogdet = result_type("slogdet", "sign", "logabsdet")
svd = result_type("svd", "U", "S", "V")
triangular_solve = result_type("triangular_solve", "solution", "cloned_coefficient")
