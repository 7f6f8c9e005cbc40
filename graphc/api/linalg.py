"""Public names: products and linear algebra."""

from graphc.tensors.einsum import chain_matmul, einsum, tensordot
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
