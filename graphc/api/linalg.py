"""Public names: products and linear algebra."""

from graphc.tensors.linalg import addmm, bmm, dot, einsum, matmul, mm, mv, outer
