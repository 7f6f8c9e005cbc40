"""Samples of what singular values tell, of norms of matrices, and of functions of matrices."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, f, ints, s
from tests.differential.samples.linalg import SINGULAR, floats, not_square, op, spd, square

_SPECTRAL = (
    op(
        "linalg.pinv",
        (
            s(f(4, 2)),
            s(f(2, 4)),
            s(square(3, 3)),
            s(f(2, 3, 2)),
            s(spd(3, 3), hermitian=True),
            s(f(0, 2)),
            s(SINGULAR, rtol=0.1),
        ),
        (
            bad("linalg.pinv.Double.*: expected a tensor with 2 or more dimensions", f(3)),
            bad("linalg.pinv.Long", ints(2, 2)),
            bad("linalg.eigh: A must be batches of square", f(3, 2), hermitian=True),
        ),
    ),
    op("pinverse", (s(f(3, 2)), s(np.diag([1.0, 0.01]), 0.1))),
    op(
        "linalg.matrix_rank",
        (
            s(f(3, 2)),
            s(SINGULAR),
            s(np.stack([SINGULAR, np.eye(2)])),
            s(np.diag([1.0, 0.01]), atol=0.1),
            s(np.diag([1.0, 0.01]), 0.1),
            s(spd(3, 3), atol=2.0, rtol=0.1, hermitian=True),
            s(np.stack([np.eye(2)] * 2), atol=np.array([0.5, 2.0])),
            s(f(0, 2)),
        ),
        (
            bad("The input tensor input must have at least 2 dimensions", f(2)),
            bad("doesn't handle types other than float and double", ints(2, 2)),
        ),
    ),
    op(
        "linalg.lstsq",
        (s(f(4, 2), f(4, 1)), s(f(2, 4), f(2, 2)), s(f(2, 4, 2), f(2, 4))),
        (
            bad("parameter `driver` should be one of", f(4, 2), f(4, 1), driver="foo"),
            bad(r"input.size\(-2\) should match other.size\(-2\)", f(4, 2), f(3, 1)),
            bad("input must have at least 2 dimensions", f(4), f(4, 1)),
            bad("input's dtype Double and other's dtype Long", f(4, 2), ints(4, 1)),
        ),
        grad_fn=False,
    ),
    op(
        "linalg.cond",
        (
            s(square(3, 3)),
            s(f(4, 2)),
            s(square(2, 2, 2), -2),
            s(square(2, 2), 1),
            s(square(2, 2), "fro"),
            s(square(2, 2), -np.inf),
            s(square(2, 2), "nuc"),
            s(f(0, 0)),
        ),
        (
            bad("linalg.cond: The input tensor must have at least 2", f(2)),
            bad("linalg.cond got an invalid norm type: foo", f(2, 2), "foo"),
            bad(r"linalg.cond\(ord=1\): A must be batches of square", f(2, 3), 1),
        ),
        grad_fn=False,
    ),
    op(
        "linalg.matrix_norm",
        (
            s(f(3, 2)),
            s(f(2, 3, 2), 1),
            s(f(2, 3, 2), -1, (0, 2)),
            s(f(3, 2), np.inf, (1, 0), True),
            s(f(3, 2), -np.inf),
            s(f(2, 3, 2), 2),
            s(f(2, 3, 2), -2, dim=(2, 0), keepdim=True),
            s(f(3, 2), "nuc"),
            s(f(2, 2), dtype="torch.float64"),
            s(f(0, 2), 2),
        ),
        (
            bad("linalg.matrix_norm: The input tensor A must have at least 2", f(2)),
            *floats("linalg.matrix_norm"),
            bad("linalg.matrix_norm: Order foo not supported", f(2, 2), "foo"),
            bad("Order 3 not supported", f(2, 2), 3),
            bad("dims must be different. Got .0, 0.", f(2, 2), dim=(0, 0)),
            bad("dim must be a 2-tuple. Got 0 1 2", f(2, 2), dim=(0, 1, 2)),
            bad("without narrowing to the specified dtype .Float.", f(2, 2), dtype="torch.float32"),
        ),
        dtypes=("float64",),
        grad_fn=False,
    ),
    # The names of keepdim's dimensions differ here and below.
    op("Tensor.norm", (s(f(3, 2), "nuc"), s(f(2, 3, 2), "nuc", dim=(0, 2), keepdim=True)), grad_fn=False),
    op(
        "linalg.vector_norm",
        (
            s(f(3, 2)),
            s(f(3, 2), 3, 0),
            s(f(3, 2), np.inf, (0, 1), True),
            s(f(3, 2), 0),
            s(f(4), 1),
            s(f(4), -1.5),
            s(f(0), 2),
        ),
        (*floats("linalg.vector_norm"), bad("must be Number, not str", f(2), "fro")),
    ),
    op(
        "linalg.norm",
        (
            s(f(4)),
            s(f(3, 2)),
            s(f(3, 2), 2),
            s(f(3, 2), "nuc"),
            s(f(3, 2), 1, 0),
            s(f(2, 3, 2), 1, (0, 1)),
            s(f(2, 3, 2)),
            s(f(3, 2), dim=(0, 1), keepdim=True),
            s(f(3), np.inf),
        ),
        (
            bad("linalg.matrix_norm: dim must be a 2-tuple. Got 0", f(2, 2), "fro", dim=0),
            bad("If dim is not specified but ord is, the input must be 1D or 2D. Got 3D", f(2, 2, 2), 2),
            bad("Order foo not supported", f(2, 2), "foo"),
            bad("If dim is specified, it must be of length 1 or 2", f(2, 2, 2), dim=(0, 1, 2)),
        ),
    ),
    op("nuclear_norm", (s(f(3, 2)), s(f(2, 3, 2), dim=(0, 1), keepdim=True)), grad_fn=False, forms=False),
    op("frobenius_norm", (s(f(3, 2), dim=1), s(f(2, 3, 2), dim=(0, 1), keepdim=True)), grad_fn=False, forms=False),
)

_OTHERS = (
    op(
        "linalg.matrix_exp",
        (s(f(3, 3)), s(f(2, 2, 2)), s(5 * f(2, 2)), s(f(0, 0))),
        (*not_square("linalg.matrix_exp"), *floats("linalg.matrix_exp")),
    ),
    op("matrix_exp", (s(f(2, 2)),), forms=True),
    op(
        "linalg.vander",
        (s(f(3)), s(f(2, 3), N=4), s(ints(3), N=2)),
        (bad("N must be greater than 1", f(3), N=1),),
        beyond=True,
    ),
    op(
        "linalg.householder_product",
        (s(f(3, 2), f(2)), s(f(2, 3, 3), f(2, 2))),
        (
            bad(r"input.shape\[-2\] must be greater than or equal", f(2, 3), f(2)),
            bad(r"input.shape\[-1\] must be greater than or equal", f(3, 2), f(3)),
            bad("batch dimensions of tau", f(2, 3, 2), f(3, 2)),
        ),
    ),
    op("orgqr", (s(f(3, 2), f(2)),)),
    op("linalg.diagonal", (s(f(2, 3, 3)), s(f(2, 3), offset=1), s(f(3, 2, 2), dim1=0, dim2=1))),
)

SPECTRAL: tuple[Op, ...] = (*_SPECTRAL, *_OTHERS)
