"""Samples of packed factorisations, decompositions of low rank, and histograms of several dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.differential.samples.base import Op, bad, f, fixed, ints, pos, s
from tests.differential.samples.linalg import op, singular_vectors_old, spd


def symmetric(*shape: int) -> np.ndarray:
    """Symmetric matrices, which need not be definite."""
    x = f(*shape)
    return x + np.swapaxes(x, -1, -2)


def eigenspaces(library: Any, out: Any) -> Any:
    """Eigenvalues, and the projections on their vectors."""
    values, vectors = out
    return values, vectors.transpose(-1, -2).unsqueeze(-1) * vectors.transpose(-1, -2).unsqueeze(-2)


# Blocks of two: the diagonal is small beside the rest.
PAIRED = np.array([[0.01, 3.0, 1.0, 0.5], [3.0, 0.02, -2.0, 1.0], [1.0, -2.0, 4.0, 0.3], [0.5, 1.0, 0.3, 0.1]])
EDGES = np.array([-2.0, -0.5, 0.3, 2.0])

REFLECTIONS: tuple[Op, ...] = (
    op(
        "geqrf",
        (s(f(4, 3)), s(f(2, 3, 4)), s(f(3, 3)), s(f(0, 3)), s(f(2, 0))),
        (bad("at least 2 dimensions", f(3)), bad("not implemented for 'Long'", ints(2, 2))),
        grads=0,
    ),
    op(
        "ormqr",
        (
            *(s(f(4, 3), f(3), f(4, 2), transpose=t) for t in (False, True)),
            *(s(f(4, 3), f(3), f(2, 4), False, t) for t in (False, True)),
            s(f(2, 3, 3), f(2, 3), f(2, 3, 1)),
        ),
        (
            bad("input must have", f(3), f(3), f(3, 2)),
            bad("other must have", f(3, 3), f(3), f(3)),
            bad("must be equal to input", f(4, 3), f(3), f(3, 2)),
            bad("tau.shape", f(4, 3), f(4), f(4, 2)),
            bad("tau.shape", f(4, 3), f(2), f(4, 2)),
            bad("number of dimensions", f(4, 3), f(3), f(2, 4, 2)),
            bad("not implemented for 'Long'", ints(2, 2), ints(2), ints(2, 2)),
        ),
        grads=1,
    ),
    op(
        "linalg.ldl_factor",
        (s(PAIRED), s(symmetric(2, 5, 5)), s(spd(3, 3), hermitian=True), s(f(0, 0))),
        (
            bad("at least 2 dimensions", f(3)),
            bad("square matrices", f(2, 3)),
            bad("floating point", ints(2, 2)),
        ),
        grads=0,
        layouts=False,
    ),
    op("linalg.ldl_factor_ex", (s(PAIRED), s(np.zeros((2, 2))), s(np.diag([1.0, 0.0, 2.0]))), grads=0),
    op(
        "linalg.ldl_solve",
        (
            s(np.tril(f(3, 3)), np.array([1, 3, 3], np.int32), f(3, 2)),
            s(np.tril(f(2, 3, 3)), np.array([[-2, -2, 3], [3, -3, -3]], np.int32), f(2, 3, 2)),
        ),
        (
            bad("same dtype", f(3, 3), np.array([1, 2, 3], np.int32), ints(3, 2)),
            bad("pivots with shape", f(3, 3), np.array([1, 2], np.int32), f(3, 2)),
            bad("Incompatible matrix sizes", f(3, 3), np.array([1, 2, 3], np.int32), f(2, 2)),
            bad("square matrices", f(2, 3), np.array([1, 2], np.int32), f(2, 2)),
        ),
        grads=0,
        layouts=False,
    ),
    op(
        "svd_lowrank",
        (s(f(5, 3), 3), s(f(3, 5)), s(f(2, 4, 2), 2, 1), s(f(4, 3), 3, 2, fixed(f(1, 3)))),
        grads=0,
        canonical=singular_vectors_old,
        layouts=False,
        grad_fn=False,
    ),
    op(
        "pca_lowrank",
        (s(f(6, 3)), s(f(4, 3), 3, center=False)),
        (bad("not greater than", f(4, 3), 5), bad("niter", f(4, 3), 2, niter=-1)),
        grads=0,
        canonical=singular_vectors_old,
        layouts=False,
        grad_fn=False,
    ),
    op(
        "lobpcg",
        (s(spd(9, 9), 2), s(spd(9, 9), 3, largest=False), s(spd(6, 6), X=f(6, 2)), s(spd(6, 6), 1, fixed(spd(6, 6)))),
        (bad("smaller than 3 x", spd(4, 4), 2),),
        grads=0,
        canonical=eigenspaces,
        layouts=False,
        grad_fn=False,
        rtol=1e-4,  # PyTorch stops there
        dtypes=("float64",),
    ),
    op(
        "histogramdd",
        (
            s(f(20, 2), [2, 3]),
            s(f(4, 5, 2), 3, range=[-1.0, 1.0, -2.0, 0.5]),
            s(f(20, 2), [EDGES, EDGES[1:]]),
            s(f(10, 3), [2, 3, 1], weight=pos(10), density=True),
            s(f(20, 1), [4]),
        ),
        (
            bad("size of bins", f(5, 2), [2]),
            bad("at least 2 dimensions", f(5), [2]),
            bad("bins must be > 0", f(5, 2), [2, 0]),
            bad("should have 4 elements", f(5, 2), [2, 2], range=[0.0, 1.0]),
            bad("min should not exceed", f(5, 2), [2, 2], range=[1.0, 0.0, 0.0, 1.0]),
            bad("not implemented for 'Long'", ints(5, 2), [2, 2]),
            bad("same shape", f(5, 2), [2, 2], weight=f(3)),
        ),
        grads=0,
        grad_fn=False,
        beyond=True,
    ),
)
