"""Samples of sorting and searching."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, Sample, bad, distinct, f, ints, mask, s, special

EMPTY = np.zeros((0, 3))
TIES = np.array([[2, 1, 2, 1, 3], [0, 0, 5, 5, 0]])
NANS = np.array([3.0, np.nan, 1.0, np.inf, -np.inf, np.nan])
RANGE = bad("Dimension out of range", f(2, 3), dim=2)
ORDERS: tuple[Sample, ...] = (
    s(distinct(3, 4)),
    s(distinct(3, 4), 0, True),
    s(distinct(2, 3, 2), dim=1, stable=True),
    s(TIES, dim=1, descending=True, stable=True),
    s(TIES, stable=True),
    s(NANS, stable=True),
    s(NANS, descending=True, stable=True),
    s(np.array([0.0, -0.0, 0.0]), stable=True, descending=True),
    s(mask(5), stable=True),
    s(distinct(3, 2), axis=0),
    s(f()),
    s(EMPTY, 0),
)
ROWS = np.array([[1.0, 3.0, 3.0, 5.0], [0.0, 2.0, 4.0, 6.0]])
EDGES = np.array([1, 3, 3, 5])

SORTING: tuple[Op, ...] = (
    Op("sort", ORDERS, (RANGE,)),
    Op("argsort", ORDERS, (RANGE,)),
    Op("msort", (s(distinct(3, 4)), s(distinct(5)), s(ints(4, 2)), s(EMPTY)), (), layouts=False),
    Op(
        "topk",
        (
            s(distinct(3, 4), 2),
            s(distinct(3, 4), 2, 0, False),
            s(distinct(3, 4), k=3, dim=-1, largest=True, sorted=True),
            s(np.array([3.0, np.nan, 1.0, 2.0]), 2),
            s(distinct(5), 0),
            s(f(), 1),
            s(ints(1, 1), 1, axis=0),
        ),
        (
            bad("selected index k out of range", f(3), 4),
            bad("selected index k out of range", f(3), -1),
            bad("topk does not support bool", mask(3), 1),
            bad("Dimension out of range", f(3), 1, 1),
        ),
        layouts=False,  # which of equal elements is taken is open
    ),
    Op(
        "kthvalue",
        (
            s(distinct(3, 4), 2),
            s(distinct(3, 4), 1, 0, True),
            s(np.array([1.0, np.nan, 0.0]), 3),
            s(np.array([7, 2, 9]), k=3, dim=0),
            s(f(), 1),
            s(EMPTY.T, 1, 0),
        ),
        (
            bad("selected number k out of range for dimension 1", f(2, 3), 0),
            bad("selected number k out of range for dimension 0", f(2, 3), 3, 0),
            bad("Expected reduction dim 0 to have non-zero size", EMPTY, 1, 0),
            bad("not implemented for 'Bool'", mask(3), 1),
        ),
        layouts=False,
    ),
    Op(
        "unique",
        (
            s(TIES),
            s(TIES, True, True, True),
            s(np.array([1.0, np.nan, 1.0, np.nan, -0.5]), return_counts=True, return_inverse=True),
            s(np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 5.0]]), dim=0, return_inverse=True, return_counts=True),
            s(np.array([[1, 2, 1], [4, 0, 4]]), dim=1, return_inverse=True, return_counts=True),
            s(mask(6), return_counts=True),
            s(np.array(3), return_inverse=True),
            s(EMPTY),
            s(EMPTY, dim=0),
        ),
        (bad("0 sized dimensions", EMPTY, dim=1), bad("more than one", np.zeros((0, 0)), dim=0), RANGE),
        grads=0,  # PyTorch's result requires gradients and has none
    ),
    Op(
        "unique_consecutive",
        (
            s(np.array([1, 1, 2, 2, 1])),
            s(np.array([1, 1, 2, 2, 1]), True, True),
            s(np.array([[1, 2], [1, 2], [0, 5]]), dim=0, return_counts=True, return_inverse=True),
            s(np.array([[1.0, 1.0], [1.0, 3.0]]), return_counts=True),
            s(np.zeros(0)),
        ),
        grads=0,  # likewise
    ),
    Op(
        "searchsorted",
        (
            s(EDGES, np.array([[0, 1], [3, 9]])),
            s(EDGES, np.array([[0, 1], [3, 9]]), right=True),
            s(EDGES, ints(4, low=0), side="right", out_int32=True),
            s(ROWS, f(2, 3, low=0, high=6)),
            s(ROWS[0], np.array([np.nan, np.inf, -np.inf, 3.0])),
            s(EDGES, 3),
            s(np.array([5, 1, 3]), np.array([0, 3, 9]), sorter=np.array([1, 2, 0])),
            s(EDGES, f(3), right=False),
            s(np.zeros(0), f(2)),
        ),
        (
            bad("set to opposites", EDGES, EDGES, side="left", right=True),
            bad("side can only be", EDGES, EDGES, side="top"),
            bad("sorter must be a tensor of long", EDGES, EDGES, sorter=f(4)),
            bad("must have the same size", EDGES, EDGES, sorter=np.array([0])),
            bad("first N-1 dimensions", ROWS, f(3, 2)),
            bad("can be a scalar only", ROWS, 3.0),
            bad("positive dimension", np.array(3), EDGES),
        ),
        layouts=False,
    ),
    Op(
        "bucketize",
        (
            s(ints(2, 3, low=0), EDGES),
            s(ints(2, 3, low=0), EDGES, right=True, out_int32=True),
            s(3, EDGES),
            s(f(3, low=0, high=6), ROWS[1]),
            s(special(), ROWS[1]),
        ),
        (bad("boundaries tensor must be 1 dimension", EDGES, ROWS),),
        layouts=False,
    ),
)
