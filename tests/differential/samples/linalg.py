"""Samples of factorisations and of what is made from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.differential.samples.base import Op, bad, f, ints, once, s

ONES, ZEROS, NAN = np.ones((2, 2)), np.zeros((2, 2)), np.full((2, 2), np.nan)
SINGULAR = np.array([[1.0, 2.0], [2.0, 4.0]])


def square(*shape: int) -> np.ndarray:
    """Matrices far from singular."""
    return f(*shape) + 3 * np.eye(shape[-1])


def spd(*shape: int) -> np.ndarray:
    """Symmetric positive definite matrices with eigenvalues apart."""
    x = f(*shape)
    return x @ np.swapaxes(x, -1, -2) + np.diag(np.arange(1.0, shape[-1] + 1))


def lower(*shape: int) -> np.ndarray:
    """Lower triangles with a heavy diagonal."""
    return np.tril(square(*shape))


def _outer(x: Any, y: Any) -> Any:
    """The rank-one matrices of each column of x and of y: free of the sign that both share."""
    return x.transpose(-1, -2).unsqueeze(-1) * y.transpose(-1, -2).unsqueeze(-2)


def eigenvectors(library: Any, out: Any) -> Any:
    """Eigenvalues, and eigenvectors up to their signs."""
    return out[0], _outer(out[1], out[1])


def singular_vectors(library: Any, out: Any) -> Any:
    """Singular values, pairs of singular vectors up to their sign, and the spaces of those that have no value."""
    u, values, v = out
    v = v.transpose(-1, -2)
    k = values.shape[-1]
    rest = [x[..., k:] @ x[..., k:].transpose(-1, -2) for x in (u.detach(), v.detach())]
    return values, _outer(u[..., :k], v[..., :k]), rest


def singular_vectors_old(library: Any, out: Any) -> Any:
    """The same of `torch.svd`, which gives V."""
    return singular_vectors(library, (out[0], out[1], out[2].transpose(-1, -2)))


def op(name: str, samples: Any, refused: Any = (), **options: Any) -> Op:
    """A record with what fits factorisations: matrices with equal rows are singular, errors grow."""
    options = {"layouts": ("transposed",), "slack": 20.0, "rtol": 1e-8, **options}
    return Op(name, samples, refused, **options)


def not_square(text: str) -> tuple[Any, ...]:
    """Calls that are refused because there is no square matrix."""
    return (
        bad(f"{text}: A must be batches of square matrices, but they are 2 by 3 matrices", f(2, 3)),
        bad(f"{text}: The input tensor A must have at least 2 dimensions", f(3)),
    )


def floats(text: str) -> tuple[Any, ...]:
    """A call that is refused because there are integers."""
    return (bad(f"{text}: Expected a floating point or complex tensor as input. Got Long", ints(2, 2)),)


CHOLESKY = (
    op(
        "linalg.cholesky",
        (s(spd(3, 3)), s(spd(2, 2, 2), upper=True), s(f(0, 0)), s(f(0, 3, 3))),
        (
            *not_square("linalg.cholesky"),
            *floats("linalg.cholesky"),
            bad("linalg.cholesky: .*not positive-definite .the leading minor of order 1 is", -np.eye(3)),
            bad(r"\(Batch element 1\): .* minor of order 2 ", np.stack([np.eye(2), np.ones((2, 2))])),
            bad("minor of order 1", NAN),
            bad("\"cholesky_cpu\" not implemented for 'Half'", np.ones((2, 2), np.float16)),
        ),
    ),
    op(
        "linalg.cholesky_ex",
        (s(spd(3, 3)), s(spd(2, 2, 2), upper=True, check_errors=True)),
        (bad("linalg.cholesky_ex: .* minor of order 1 is not", -np.eye(2), check_errors=True),),
    ),
    op(
        "cholesky",
        (s(spd(3, 3)), s(spd(2, 2, 2), True)),
        (*not_square("cholesky"), bad("cholesky: The factor", -np.eye(2))),
    ),
    op(
        "cholesky_solve",
        (s(f(3, 2), lower(3, 3)), s(f(2, 3, 1), lower(3, 3)), s(f(2, 2), np.triu(square(2, 2)), upper=True)),
        (
            bad("b should have at least 2 dimensions, but has 1 dimensions", f(3), lower(3, 3)),
            bad("Incompatible matrix sizes for cholesky_solve: each A matrix is 3 by 3 but", f(2, 2), lower(3, 3)),
        ),
        grads=0,  # PyTorch gives the other triangle a gradient too
    ),
    op(
        "cholesky_inverse",
        (s(lower(3, 3)), s(np.triu(square(2, 2, 2)), upper=True), s(f(0, 0))),
        not_square("cholesky_inverse"),
        grads=0,  # PyTorch gives the other triangle a gradient too
    ),
)

ORTHOGONAL = (
    op(
        "linalg.qr",
        (s(square(3, 3)), s(f(4, 2)), s(f(2, 4)), s(f(2, 3, 2)), s(f(2, 3), mode="complete"), s(f(2, 0)), s(f(0, 2))),
        (
            bad("linalg.qr: The input tensor A must have at least 2", f(3)),
            *floats("linalg.qr"),
            bad("qr received unrecognized mode 'foo'", f(2, 2), mode="foo"),
        ),
    ),
    op("Tensor.qr", (s(f(3, 2)), s(f(3, 2), some=True))),
    op("qr", (s(f(3, 3)), s(f(4, 2), some=False))),
    op(
        "linalg.svd",
        (
            s(square(3, 3), full_matrices=False),
            s(f(4, 2), full_matrices=False),
            s(f(2, 4), False),
            s(f(2, 3, 2), False),
        ),
        (
            bad("linalg.svd: The input tensor A must have at least 2", f(3)),
            *floats("linalg.svd"),
            bad("linalg.svd: The algorithm failed to converge because the input matrix contained non-finite", NAN),
            bad(r"linalg.svd: \(Batch element 1\): The algorithm", np.stack([ONES, NAN])),
            bad("keyword argument `driver=`", f(2, 2), driver="gesvd"),
        ),
        canonical=singular_vectors,
    ),
    op("Tensor.svd", (s(f(3, 2)), s(f(3, 2), compute_uv=True)), canonical=singular_vectors_old),
    op("svd", (s(f(4, 2), some=False), s(f(2, 3), compute_uv=False)), canonical=singular_vectors_old),
    op(
        "linalg.svdvals",
        # Second gradients at equal values are NaN in PyTorch.
        (s(square(3, 3)), s(f(2, 4)), s(f(2, 3, 2)), once(s(np.eye(3))), s(f(0, 2)), s(f(2, 0, 2))),
        floats("linalg.svd"),
    ),
    op(
        "linalg.eigh",
        (s(spd(3, 3)), s(spd(2, 2, 2)), s(square(3, 3), UPLO="U"), s(square(2, 2), "l"), s(f(0, 0))),
        (
            *not_square("linalg.eigh"),
            bad("\"linalg_eigh_cpu\" not implemented for 'Long'", ints(2, 2)),
            bad("Expected UPLO argument to be 'L' or 'U', but got X", spd(2, 2), UPLO="X"),
        ),
        canonical=eigenvectors,
    ),
    op(
        "linalg.eigvalsh",
        # Second gradients at equal values are NaN in PyTorch.
        (s(spd(3, 3)), s(square(2, 2, 2), UPLO="U"), once(s(np.eye(3))), s(f(0, 0))),
        not_square("linalg.eigh"),
    ),
)

INVERSES = (
    op(
        "linalg.inv",
        (s(square(3, 3)), s(square(2, 2, 2)), s(NAN), s(f(0, 0)), s(f(0, 2, 2))),
        (
            *not_square("linalg.inv"),
            *floats("linalg.inv"),
            bad("linalg.inv: The diagonal element 1 is zero, the inversion could not be completed because", ZEROS),
            bad(r"linalg.inv: \(Batch element 1\): The diagonal element 2 is zero", np.stack([np.eye(2), ONES])),
            bad("linalg.inv: Low precision dtypes not supported. Got Half", np.ones((2, 2), np.float16)),
        ),
    ),
    op(
        "linalg.inv_ex",
        (s(square(3, 3)), s(square(2, 2, 2), check_errors=True)),
        (bad("linalg.inv_ex: The diagonal element 2 is zero", ONES, check_errors=True),),
    ),
    op(
        "inverse",
        (s(square(3, 3)), s(square(2, 2, 2))),
        (bad("linalg.inv: The diagonal", ZEROS), *not_square("linalg.inv")),
    ),
    op(
        "linalg.matrix_power",
        (
            s(square(3, 3), 2),
            s(square(2, 2, 2), 5),
            s(square(2, 2), -1),
            s(square(2, 2), -3),
            s(square(2, 2), 1),
            s(ints(2, 2), 3),
        ),
        (
            bad("linalg.matrix_power: A must be batches of square", f(2, 3), 2),
            bad("linalg.matrix_power: The input tensor A must have at least 2", f(3), 2),
            bad("argument 'n'", f(2, 2), 1.5),
            bad("linalg.inv: The diagonal element 1", ZEROS, -2),
        ),
    ),
    op("matrix_power", (s(square(3, 3), 3), s(square(2, 2), 0))),
    op(
        "linalg.solve",
        (
            s(square(3, 3), f(3)),
            s(square(3, 3), f(3, 2)),
            s(square(2, 2, 2), f(2, 2)),
            s(square(2, 2, 2), f(2, 3)),
            s(square(2, 2), f(3, 2, 1)),
            s(square(3, 3), f(2, 3), left=False),
            s(f(0, 0), f(0, 2)),
        ),
        (
            bad("torch.linalg.solve: The solver failed because the input matrix is singular", ZEROS, f(2)),
            bad(r"\(Batch element 1\): The solver failed", np.stack([np.eye(2), ONES]), f(2, 2)),
            bad(r"Incompatible shapes of A and B for the equation AX = B \(2x2 and 3x1\)", np.eye(2), f(3)),
            bad("for the equation XA = B .2x2 and 2x3", np.eye(2), f(2, 3), left=False),
            bad("found A of type Double and B of type Long", np.eye(2), ints(2)),
            bad("size of tensor a", square(3, 2, 2), f(4, 2, 2)),
            bad("linalg.solve: A must be batches of square", f(2, 3), f(2)),
        ),
    ),
    op("linalg.solve_ex", (s(square(3, 3), f(3)), s(square(2, 2, 2), f(2, 2, 1)))),
    op(
        "linalg.solve_triangular",
        (
            s(square(3, 3), f(3, 2), upper=True),
            s(square(2, 2, 2), f(2, 2, 1), upper=False),
            s(square(3, 3), f(2, 3), upper=True, left=False),
            s(square(2, 2), f(2, 2), upper=False, unitriangular=True),
            s(square(2, 2), f(3, 2, 2), upper=False, left=False, unitriangular=True),
        ),
        (
            bad("The input tensor B must have at least 2 dimensions", np.eye(2), f(2), upper=True),
            bad("upper", np.eye(2), f(2, 2)),
            bad("for the equation AX = B .2x2 and 3x2", np.eye(2), f(3, 2), upper=True),
            bad("\"triangular_solve_cpu\" not implemented for 'Long'", ints(2, 2), ints(2, 2), upper=True),
        ),
    ),
    op(
        "triangular_solve",
        (
            s(f(3, 2), square(3, 3)),
            s(f(2, 2), square(2, 2), upper=False, transpose=True),
            s(f(2, 1), square(2, 2), unitriangular=True),
        ),
        (
            bad("Expected b to have at least 2 dimensions, but it has 1", f(2), np.eye(2)),
            bad(
                "Incompatible matrix sizes for triangular_solve: each A matrix is 2 by 2 but each b", f(3, 2), np.eye(2)
            ),
        ),
    ),
    op(
        "linalg.tensorinv",
        (s(square(6, 6).reshape(6, 2, 3), ind=1), s(square(4, 4).reshape(2, 2, 4))),
        (
            bad(r"prod\(self.shape\[:ind\]\), but got 4 != 6", f(2, 3, 4)),
            bad("strictly positive integer", f(2, 2), ind=0),
        ),
        grad_fn=False,  # PyTorch: ReshapeAliasBackward0, an implementation detail
        forms=False,
    ),
    op(
        "linalg.tensorsolve",
        (s(square(6, 6).reshape(2, 3, 6), f(2, 3)), s(square(6, 6).reshape(2, 6, 3), f(2, 3), dims=(1,))),
        (bad("but got 6 != 4", f(2, 3, 6), f(2, 2)),),
    ),
)

DETERMINANTS = (
    op(
        "linalg.det",
        (s(square(3, 3)), s(square(2, 2, 2)), s(f(1, 1)), s(f(0, 0)), s(f(0, 2, 2))),
        (*not_square("linalg.det"), *floats("linalg.det")),
    ),
    op("det", (s(square(3, 3)), s(SINGULAR)), grads=1, rtol=1e-6),  # second gradients of singular matrices
    op(
        "linalg.slogdet",
        (s(square(3, 3)), s(-square(3, 3)), s(square(2, 2, 2))),
        (*not_square("linalg.slogdet"), *floats("linalg.slogdet")),
    ),
    op("slogdet", (s(square(3, 3)), s(square(2, 2, 2)))),
    op("logdet", (s(spd(3, 3)), s(spd(2, 2, 2))), (*not_square("logdet"), *floats("logdet"))),
    op("Tensor.logdet", (s(-np.eye(3)), s(ZEROS), s(f(0, 0)))),
)

LU = (
    op(
        "linalg.lu_factor",
        (s(square(3, 3)), s(square(2, 2, 2)), s(f(4, 2)), s(f(2, 4))),
        (
            bad(r"torch.linalg.lu_factor: U\[1,1\] is zero", ZEROS),
            bad("LU without pivoting", square(2, 2), pivot=False),
        ),
    ),
    # Second gradients of singular matrices are NaN in PyTorch.
    op("linalg.lu_factor_ex", (s(square(3, 3)), s(f(3, 2)), s(np.stack([np.eye(2), ONES]))), grads=1),
    op("lu", (s(square(3, 3)), s(square(2, 2, 2), get_infos=True)), forms=False),
    op(
        "linalg.lu",
        (s(square(3, 3)), s(f(4, 2)), s(f(2, 4)), s(f(2, 3, 3))),
        (bad("\"lu_cpu\" not implemented for 'Long'", ints(2, 2)),),
    ),
    op(
        "lu_unpack",
        (
            s(f(3, 3), ints(3, low=3, high=4, dtype="int32")),
            s(f(2, 4, 2), ints(2, 2, low=2, high=3, dtype="int32")),
            s(f(2, 3), ints(2, low=1, high=3, dtype="int32"), unpack_data=False),
            s(f(2, 3), ints(2, low=1, high=3, dtype="int32"), unpack_pivots=False),
        ),
        (
            bad("LU_pivots is expected to be a contiguous tensor of torch.int32", f(2, 2), ints(2)),
            bad("pivots passed to lu_unpack must be between 1 and", f(2, 2), np.array([1, 5], np.int32)),
        ),
    ),
    op(
        "linalg.lu_solve",
        (
            s(square(3, 3), np.array([3, 3, 3], np.int32), f(3, 2)),
            s(square(3, 3), np.array([3, 2, 3], np.int32), f(2, 3), left=False),
            s(square(2, 2, 2), np.array([[2, 2], [1, 2]], np.int32), f(2, 2, 1), adjoint=True),
            s(square(2, 2), np.array([2, 2], np.int32), f(3, 1, 2), left=False, adjoint=True),
        ),
        (
            bad("pivots should be a Tensor of scalar type torch.int32", np.eye(2), ints(2), f(2, 2)),
            bad("Incompatible shapes of A and B for the equation AX = B", np.eye(2), np.ones(2, np.int32), f(3, 2)),
            bad("Number of pivots per batch", np.eye(2), np.ones(3, np.int32), f(2, 2)),
            bad("Pivots given to lu_solve must all be smaller", np.eye(2), np.array([5, 2], np.int32), f(2, 2)),
        ),
    ),
    op("lu_solve", (s(f(3, 2), square(3, 3), np.array([2, 2, 3], np.int32)),)),
)

LINALG: tuple[Op, ...] = (*CHOLESKY, *ORTHOGONAL, *INVERSES, *DETERMINANTS, *LU)
