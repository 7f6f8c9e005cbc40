"""Methods of tensors: products and linear algebra."""

from __future__ import annotations

from graphc.tensors import linalg
from graphc.tensors.core import TensorBase


class LinalgMethods(TensorBase):
    """Products and linear algebra."""

    __slots__ = ()

    matmul = __matmul__ = linalg.matmul
    mm, bmm, mv, dot, outer, addmm = linalg.mm, linalg.bmm, linalg.mv, linalg.dot, linalg.outer, linalg.addmm
