"""Samples of factorisations of matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.errors import DTypeError
from tests.samples.base import BadSample, OpSamples, Sample, t

Rng = np.random.Generator
Make = Callable[[Rng, tuple[int, ...]], np.ndarray]


def general(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    """Far from singular: a random matrix with a heavy diagonal."""
    return rng.standard_normal(shape) + 3 * np.eye(*shape[-2:])


def positive(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    """Symmetric and positive definite, with eigenvalues apart."""
    x = rng.standard_normal(shape)
    return x @ np.swapaxes(x, -1, -2) + np.diag(np.arange(1.0, shape[-1] + 1))


SQUARES: tuple[tuple[int, ...], ...] = ((3, 3), (2, 2, 2), (1, 1), (0, 0), (0, 2, 2))
ANY: tuple[tuple[int, ...], ...] = ((3, 3), (4, 2), (2, 4), (2, 3, 2), (0, 2), (2, 0))


def _samples(make: Make, shapes: tuple[tuple[int, ...], ...], *attrs: dict[str, Any]) -> Callable[[Rng], list[Sample]]:
    def samples(rng: Rng) -> list[Sample]:
        return [
            Sample((np.asarray(make(rng, shape), dtype),), dict(a))
            for a in attrs
            for shape in shapes
            for dtype in (np.float64, np.float32)
        ]

    return samples


def _one(
    make: Make, shapes: tuple[tuple[int, ...], ...], smooth: tuple[tuple[int, ...], ...], *attrs: dict[str, Any]
) -> OpSamples:
    attrs = attrs or ({},)

    def smooth_samples(rng: Rng) -> list[Sample]:
        return [Sample((make(rng, shape),), dict(a)) for a in attrs for shape in smooth]

    bad = (
        BadSample((t("i64[2,2]"),), "matrices have dtype f32 or f64", attrs[0], DTypeError),
        BadSample((t("f32[2]"),), "wants (square )?matrices", attrs[0]),
    )
    return OpSamples(_samples(make, shapes, *attrs), bad, smooth_samples, exact=False)


def _two(make: Make, *attrs: dict[str, Any]) -> OpSamples:
    shapes: tuple[tuple[tuple[int, ...], int], ...] = (((3, 3), 2), ((2, 2, 2), 1), ((0, 0), 2), ((2, 2), 0))

    def samples(rng: Rng, dtypes: tuple[type, ...] = (np.float64, np.float32), count: int = 4) -> list[Sample]:
        return [
            Sample((np.asarray(make(rng, a), dtype), rng.standard_normal((*a[:-1], n)).astype(dtype)), dict(kind))
            for kind in attrs
            for a, n in shapes[:count]
            for dtype in dtypes
        ]

    bad = (
        BadSample((t("f32[2,2]"), t("f32[3,2]")), "does not fit", attrs[0]),
        BadSample((t("f32[2,3]"), t("f32[2,2]")), "wants square matrices", attrs[0]),
    )
    return OpSamples(samples, bad, lambda rng: samples(rng, (np.float64,), 2), exact=False)


def _pseudo_inverse(rng: Rng, smooth: bool = False) -> list[Sample]:
    made = []
    for shape in ((3, 3), (4, 2), (2, 4)) if smooth else ANY:
        x = rng.standard_normal(shape)
        made.append(Sample((x, np.full(shape[:-2], 1e-9)), {"hermitian": False}))
    symmetric = Sample((positive(rng, (3, 3)), np.array(1e-9)), {"hermitian": True})
    return made if smooth else [*made, symmetric]


def _ldl_solve(rng: Rng) -> list[Sample]:
    pivots = np.array([[1, 3, 3], [-2, -2, 3]], np.int32)
    right = (rng.standard_normal((2, 3, 2)), rng.standard_normal((2, 3, 2)).astype(np.float32))
    factors = np.tril(general(rng, (2, 3, 3)))
    return [Sample((factors.astype(y.dtype), pivots, y)) for y in right]


def _permutation(rng: Rng) -> list[Sample]:
    pivots = (np.array([3, 2, 3], np.int32), np.array([[2, 4], [1, 2]], np.int32), np.zeros((0,), np.int32))
    return [Sample((p,), {"size": 4}) for p in pivots]


_UPPER = ({"upper": False}, {"upper": True})
_SMALL: tuple[tuple[int, ...], ...] = ((3, 3), (2, 2, 2))

LINEAR: dict[str, OpSamples] = {
    # These read one triangle, but their gradients are for symmetric changes: tests/ops/test_factorisations.py.
    "cholesky": _one(positive, SQUARES, ()),
    "inverse": _one(general, SQUARES, _SMALL),
    "solve": _two(general, {}),
    "solve_triangular": _two(general, *({"upper": u, "unit": n} for u in (False, True) for n in (False, True))),
    "lu": _one(general, ANY, ((3, 3), (4, 2), (2, 4), (2, 2, 2))),
    "permutation": OpSamples(
        _permutation, (BadSample((t("i64[3]"),), "wants at most 4 pivots of dtype i32", {"size": 4}),)
    ),
    "qr": OpSamples(
        _samples(general, ANY, {"complete": False}, {"complete": True}),
        (BadSample((t("f32[2]"),), "wants matrices", {"complete": False}),),
        lambda rng: [
            *(Sample((general(rng, shape),), {"complete": False}) for shape in ((3, 3), (4, 2), (2, 4), (2, 2, 2))),
            Sample((general(rng, (2, 3)),), {"complete": True}),
        ],
        exact=False,
    ),
    "geqrf": replace(_one(general, ANY, ()), smooth=None),
    "ldl": replace(_one(lambda rng, shape: positive(rng, shape) - 2 * np.eye(shape[-1]), SQUARES, ()), smooth=None),
    "ldl_solve": OpSamples(
        _ldl_solve,
        (BadSample((t("f32[2,2]"), t("i32[3]"), t("f32[2,1]")), "wants i32 pivots", {}),),
        exact=False,
    ),
    "svd": OpSamples(
        _samples(general, ANY, {"full": False}, {"full": True}),
        (BadSample((t("f32[2]"),), "wants matrices", {"full": False}),),
        lambda rng: [
            Sample((np.asarray(general(rng, shape)),), {"full": False}) for shape in ((3, 3), (4, 2), (2, 4), (2, 2, 2))
        ],
        exact=False,
    ),
    "svdvals": _one(general, ANY, ((3, 3), (4, 2), (2, 2, 3))),
    "eigh": _one(positive, SQUARES, (), *_UPPER),
    "eigvalsh": _one(positive, SQUARES, (), *_UPPER),
    "pseudo_inverse": OpSamples(
        _pseudo_inverse,
        (BadSample((t("f32[2,2]"), t("f32[2]")), "one tolerance for each matrix", {"hermitian": False}),),
        lambda rng: _pseudo_inverse(rng, True),
        exact=False,
    ),
    "det": _one(general, SQUARES, _SMALL),
    "cofactors": _one(general, SQUARES, _SMALL),
    "slogdet": _one(general, SQUARES, _SMALL),
    "matrix_exp": _one(lambda rng, shape: rng.standard_normal(shape), SQUARES, _SMALL),
}
