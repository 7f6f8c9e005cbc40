"""Linear algebra under the names of `torch.linalg`."""

from __future__ import annotations

from graphc.tensors.einsum import multi_dot
from graphc.tensors.products import matmul
from graphc.tensors.vectors import linalg_cross as cross
from graphc.tensors.vectors import vecdot

__all__ = ["cross", "matmul", "multi_dot", "vecdot"]
