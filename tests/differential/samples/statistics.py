"""Samples of medians, modes, quantiles, covariances and histograms."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, Sample, bad, distinct, f, ints, mask, pos, s

NAN = np.nan
EMPTY = np.zeros((0, 3))
NANS = np.array([[3.0, NAN, 1.0, 2.0], [0.5, 4.0, -1.0, 2.0], [5.0, NAN, NAN, 7.0]])
MEDIANS: tuple[Sample, ...] = (
    s(distinct(3, 4)),
    s(distinct(3, 5)),
    s(np.array([1.0, 2.0, 2.0, 3.0, 2.0])),
    s(distinct(3, 4), 0),
    s(distinct(2, 3, 4), dim=-1, keepdim=True),
    s(NANS),
    s(NANS, 1),
    s(np.array([7, 2, 9, 4]), 0),
    s(np.array([7, 2, 9, 4])),
    s(f()),
    s(f(), 0),
    s(distinct(3, 2), axis=1),
    s(EMPTY, 1),
)
MEDIANS_BAD = (
    bad("Expected reduction dim 0 to have non-zero size", EMPTY, 0),
    bad("not implemented for 'Bool'", mask(3)),
    bad("Dimension out of range", f(3), 1),
)
QS = np.array([0.0, 0.3, 0.5, 0.99, 1.0])
QUANTILES = (
    s(distinct(3, 4), 0.4),
    s(distinct(3, 4), QS, 1),
    s(distinct(2, 3, 4), QS, dim=1, keepdim=True),
    s(distinct(3, 4), 0.4, keepdim=True),
    s(NANS, QS, 1),
    *(s(distinct(3, 5), QS, 1, interpolation=how) for how in ("lower", "higher", "midpoint", "nearest")),
    s(f(), 0.5),
    s(distinct(3, 2), 0.5, axis=0),
)
QUANTILES_BAD = (
    bad("q must be in the range", f(3), 1.5),
    bad("q values must be in the range", f(3), np.array([0.5, 2.0])),
    bad("q must be a scalar or 1D tensor", f(3), np.array([[0.5]])),
    bad("must be either float or double", ints(3), 0.5),
    bad("must be non-empty", EMPTY, 0.5),
    bad("interpolation must be one of", f(3), 0.5, interpolation="cubic"),
)

STATISTICS: tuple[Op, ...] = (
    Op("median", MEDIANS, MEDIANS_BAD, layouts=False),
    Op("nanmedian", MEDIANS, MEDIANS_BAD, layouts=False),
    Op(
        "mode",
        (
            s(np.array([[3.0, 1.0, 3.0, 1.0, 2.0], [0.5, 0.5, 2.0, 0.0, 0.0]])),
            s(np.array([3, 1, 3, 3, 2]), 0),
            s(ints(4, 3, low=0, high=2), 0, True),
            s(np.array([True, False, True])),
            s(f()),
            s(EMPTY, 1),
        ),
        (bad("Expected reduction dim 0 to have non-zero size", EMPTY, 0), bad("Dimension out of range", f(3), 1)),
    ),
    Op("quantile", QUANTILES, QUANTILES_BAD),
    Op("nanquantile", QUANTILES, QUANTILES_BAD),
    Op(
        "cov",
        (
            s(f(3, 5)),
            s(f(3, 5), correction=0),
            s(f(5)),
            s(ints(2, 4)),
            s(f(2, 4), fweights=np.array([1, 2, 3, 1])),
            s(f(2, 4), aweights=pos(4)),
            s(f(2, 4), fweights=np.array([1, 2, 3, 1]), aweights=pos(4), correction=2),
        ),
        (
            bad("two or fewer dimensions", f(2, 2, 2)),
            bad("bool dtype is not supported", mask(3)),
            bad("fweights to have integral dtype", f(2, 3), fweights=f(3)),
            bad("aweights to have floating point dtype", f(2, 3), aweights=ints(3)),
            bad("same numel as there are observations", f(2, 3), fweights=np.array([1, 2])),
            bad("fweights cannot be negative", f(2, 3), fweights=np.array([1, 2, -3])),
        ),
    ),
    Op("corrcoef", (s(f(3, 5)), s(f(5)), s(ints(2, 4))), (bad("two or fewer dimensions", f(2, 2, 2)),)),
    Op(
        "histc",
        (
            s(f(20), 4),
            s(f(20), bins=5, min=-1, max=1),
            s(np.array([1.0, 1.0, 1.0]), 4),
            s(np.array([1.0, NAN, 0.25, -3.0]), 4, 0, 1),
            s(f(3, 4)),
            s(EMPTY, 3),
        ),
        (
            bad("not implemented for 'Long'", ints(3), 4),
            bad("bins must be > 0", f(3), 0),
            bad("max must be larger than min", f(3), 4, 2, 1),
        ),
    ),
    Op(
        "histogram",
        (
            s(f(20), 4),
            s(f(4, 5), 3, range=(-1.0, 1.0)),
            s(f(20), np.array([-2.0, -1.0, 0.5, 2.0])),
            s(f(20), 4, weight=f(20), density=True),
            s(np.array([0.0, 0.5, 1.0, 1.0, 1.5]), np.array([0.0, 0.5, 1.0])),
        ),
        (
            bad("not implemented for 'Long'", ints(3), 4),
            bad("bins must be > 0", f(3), 0),
            bad("min should not exceed max", f(3), 4, range=(2.0, 1.0)),
        ),
        grads=0,  # PyTorch's result requires gradients and has none
        beyond=True,
    ),
    Op(
        "bincount",
        (
            s(np.array([1, 2, 2, 5])),
            s(np.array([1, 2, 2]), f(3)),
            s(np.array([1, 2, 2]), np.array([1, 2, 3])),
            s(np.array([1, 0], dtype="uint8"), minlength=6),
            s(np.array([], dtype="int64"), minlength=3),
            s(np.array([], dtype="int64")),
        ),
        (
            bad("1-d non-negative integral", np.array([1, -2])),
            bad("1-d non-negative integral", np.array([[1]])),
            bad("not implemented for 'Double'", f(2)),
            bad("same length as input", np.array([1, 2]), f(3)),
            bad("minlength should be >= 0", np.array([1]), minlength=-1),
        ),
        grads=0,  # likewise
    ),
)
