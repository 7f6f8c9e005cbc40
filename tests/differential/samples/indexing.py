"""Samples of reading and writing at indices and masks."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, distinct, f, ints, mask, s


def at(*rows: object) -> np.ndarray:
    """An index tensor."""
    return np.array(rows, np.int64)


SMALL = np.array([[0, 1], [2, 3]])
NONE = np.zeros(0, np.int64)
SOME = np.array([True, False, True, True])

GET: tuple[object, ...] = (
    0,
    -1,
    slice(None, None, 2),
    (slice(1, None), slice(None, -1)),
    (Ellipsis, 0),
    None,
    (None, 0, Ellipsis, None),
    at(0, 2, 0),
    at(-1, 0).astype("int32"),
    [0, 2],
    (at(0, 1), at(1, 2)),
    (at([0], [2]), at(1, 2)),
    (slice(None), at(1, 1, 0)),
    (at(0, 1), slice(1, 3)),
    (0, at(1, 2)),
    (at(0, 1), None, at(1, 2)),
    np.array([True, False, True]),
    (slice(None), SOME),
    np.eye(3, 4) > 0,
    True,
    False,
    np.array(True),
    np.array(1),
    (np.array(2), slice(1, 3)),
    (Ellipsis, Ellipsis),
    NONE,
    [True, False, True],
    (),
)
BAD_GET = (
    bad("out of bounds for dimension 0 with size 3", f(3, 4), 3),
    bad("out of bounds", f(3, 4), at(3)),
    bad("out of bounds", f(3, 4), (slice(None), at(0, -5))),
    bad("too many indices", f(3, 4), (0, 0, 0)),
    bad("shape of the mask", f(3, 4), np.array([True, False])),
    bad("could not be broadcast", f(3, 4), (at(0, 1), at(0, 1, 2))),
    bad("must be long, int, byte or bool", f(3, 4), f(2)),
    bad("must be long, int, byte or bool", f(3, 4), at(0).astype("int16")),
    bad("valid indices", f(3, 4), 1.0),
    bad("greater than zero", f(3, 4), slice(None, None, -1)),
    bad("0-dim tensor", f(), 0),
)
REDUCE = ("sum", "prod", "mean", "amax", "amin")

INDEXING: tuple[Op, ...] = (
    Op("Tensor.__getitem__", tuple(s(f(3, 4), index) for index in GET), BAD_GET, dtypes=("float64",)),
    Op(
        "gather",
        (
            s(f(3, 4), 1, SMALL),
            s(f(3, 4), 0, SMALL % 3),
            s(f(3, 4), -1, at([0, 0, 0]).astype("int32")),
            s(f(), 0, at(0, 0)),
            s(f(3, 4), 0, NONE),
            s(mask(3), 0, at(1, 2)),
        ),
        (
            bad("out of bounds", f(3), 0, at(3)),
            bad("out of bounds", f(3), 0, at(-1)),
            bad("same number of dimensions", f(3, 4), 0, at(0)),
            bad("int32/int64", f(3), 0, f(1)),
            bad("no larger than self", f(3, 4), 0, np.zeros((1, 7), np.int64)),
        ),
    ),
    Op(
        "index_select",
        (s(f(3, 4), 0, at(2, 0, 2)), s(f(3, 4), -1, at(1).astype("int32")), s(f(), 0, at(0)), s(f(3), 0, np.array(1))),
        (bad("out of range", f(3), 0, at(3)), bad("vector", f(3), 0, SMALL), bad("int32 or int64", f(3), 0, f(1))),
    ),
    Op(
        "take",
        (s(f(3, 4), at([0, -1], [5, 5])), s(ints(3), at(0)), s(f(2), np.array(1))),
        (bad("out of range", f(3), at(3)), bad("long tensor", f(3), f(1)), bad("empty tensor", f(0), at(0))),
    ),
    Op(
        "put",
        (s(f(3, 4), at(0, -1), f(2)), s(f(3), at(0, 0), f(2), accumulate=True), s(f(3, 4), at([1], [2]), f(2))),
        (bad("same number of elements", f(3), at(0, 1), f(1)), bad("same dtype", f(3), at(0), ints(1))),
    ),
    Op(
        "take_along_dim",
        (s(f(3, 4), at([0]), 1), s(f(1, 4), at([1], [-2]), 1)),
        (bad("same number of dimensions", f(3, 4), at(0), 1), bad("should be Long", f(3), f(1), 0)),
    ),
    Op("Tensor.take_along_dim", (s(f(3, 4), at(0, 5)),), layouts=False),
    Op(
        "scatter",
        (
            s(f(3, 4), 1, SMALL, f(2, 2)),
            s(f(3, 4), 1, SMALL, 2.5),
            s(f(3, 4), 0, SMALL % 3, value=3),
            s(f(4), 0, at(1, 3, 1), f(3)),
            s(f(3, 4), 1, SMALL.astype("int32"), 1),
            s(f(), 0, np.array(0), 2.0),
            s(f(3, 4), 1, NONE, 3.0),
            s(ints(2), 0, at(0), 2.7),
            s(mask(2), 0, at(0), 0),
        ),
        (
            bad("out of bounds", f(3), 0, at(3), 1.0),
            bad("same number of dimensions as self", f(3, 4), 0, at(0), 1.0),
            bad("same number of dimensions as src", f(3, 4), 0, SMALL, f(1)),
            bad("no larger", f(3, 4), 1, np.zeros((4, 1), np.int64), f(4, 1)),
            bad("self.dtype to be equal to src.dtype", f(3), 0, at(0), ints(1)),
            bad("add or multiply", f(3), 0, at(0), 1.0, reduce="foo"),
        ),
    ),
    Op(
        "Tensor.scatter",
        (
            s(f(4), 0, at(1, 3), 2.0, reduce="add"),
            s(f(4), 0, at(1, 3), 2.0, reduce="multiply"),
            s(f(4), 0, at(1, 1), f(2), reduce="multiply"),
        ),
        warns=True,
    ),
    Op(
        "scatter_add",
        (
            s(f(3, 4), 1, SMALL, f(2, 2)),
            s(f(3), 0, at(0, 0, 2), f(3)),
            s(ints(3), 0, at(1), ints(1)),
            s(mask(2), 0, at(0, 1), mask(2)),
        ),
        (bad("out of bounds", f(3), 0, at(3), f(1)), bad("no larger size than src", f(3), 0, at(0, 1), f(1))),
    ),
    Op(
        "scatter_reduce",
        tuple(s(distinct(3, 4), 1, SMALL % 3, distinct(2, 2) + 0.03, r) for r in REDUCE)
        + tuple(s(distinct(4), 0, at(0, 0, 2), distinct(3) + 0.03, r, include_self=False) for r in REDUCE)
        + tuple(s(ints(3), 0, at(0, 0, 1), ints(3), r) for r in REDUCE)
        + (
            s(np.array([1.0, 1.0, 0.0]), 0, at(0, 0, 1), np.array([1.0, 2.0, 0.0]), "amax"),
            s(np.array([1.0, 2.0, 0.0]), 0, at(0, 0, 1, 2), np.array([0.0, 3.0, 2.0, 5.0]), "prod"),
            s(mask(2), 0, at(0, 1), mask(2), "prod"),
        ),
        (
            bad("reduce argument must be", f(3), 0, at(0), f(1), "foo"),
            bad("out of bounds", f(3), 0, at(3), f(1), "sum"),
        ),
    ),
    Op(
        "index_add",
        (
            s(f(3, 4), 0, at(0, 0), f(2, 4)),
            s(f(3, 4), -1, at(3, 1), f(3, 2), alpha=2),
            s(ints(3), 0, at(1).astype("int32"), ints(1)),
            s(mask(2), 0, at(1), mask(1)),
            s(f(), 0, at(0), f()),
        ),
        (
            bad("out of bounds", f(3), 0, at(3), f(1)),
            bad("Number of indices", f(3), 0, at(0, 1), f(1)),
            bad("must match self tensor shape", f(3, 4), 0, at(0), f(1, 3)),
            bad("same scalar type", f(3), 0, at(0), ints(1)),
            bad("vector", f(3), 0, SMALL, f(1)),
        ),
    ),
    Op(
        "index_copy",
        (
            s(f(3, 4), 0, at(0, 2), f(2, 4)),
            s(f(3, 4), 1, at(1, 3), f(3, 2)),
            s(f(3), 0, np.array(1), f()),
            s(f(), 0, at(0), f(1)),
        ),
        (
            bad("out of bounds", f(3), 0, at(7), f(1)),
            bad("long tensor", f(3), 0, at(0).astype("int32"), f(1)),
            bad("Number of indices", f(3, 4), 0, at(0), f(2, 4)),
            bad("dimensionality must match", f(3, 4), 0, at(0), f(4)),
            bad("same dtype", f(3), 0, at(0), ints(1)),
        ),
    ),
    Op(
        "index_fill",
        (s(f(3, 4), 0, at(0, -1), 9), s(f(3, 4), 1, at(1), f()), s(ints(2), 0, at(0), 2.5), s(f(), 0, at(0), 2.0)),
        (
            bad("out of bounds", f(3), 0, at(5), 1),
            bad("vector/scalar", f(3), 0, SMALL, 1),
            bad("int64", f(3), 0, at(0).astype("int32"), 1),
            bad("0-dimensional value", f(3), 0, at(0), f(1)),
        ),
    ),
    Op(
        "index_reduce",
        tuple(s(distinct(3, 2), 0, at(0, 0), distinct(2, 2) + 0.03, r) for r in REDUCE[1:])
        + tuple(s(distinct(3, 2), 1, at(1, 1, 0), distinct(3, 3) + 0.03, r, include_self=False) for r in REDUCE[1:]),
        (bad("Expected reduce to be one of", f(3), 0, at(0), f(1), "sum"),),
        warns=True,
    ),
    Op(
        "index_put",
        (
            s(f(3, 4), (at(0, 2), at(1, 1)), f(2)),
            s(f(3, 4), (at(0, 0),), f(4), accumulate=True),
            s(f(3, 4), (np.array([True, False, True]),), f()),
            s(f(3, 4), (np.array(1),), f(4)),
            s(ints(3), (at(-1),), ints(1)),
            s(mask(3), (at(0, 0),), mask(2), accumulate=True),
        ),
        (
            bad("dtypes match", f(3), (at(0),), ints(1)),
            bad("too many indices", f(3), (at(0), at(0)), f(1)),
            bad("cannot be broadcast", f(3, 4), (at(0, 1),), f(3)),
            bad("out of bounds", f(3), (at(3),), f(1)),
        ),
    ),
    Op(
        "masked_fill",
        (
            s(f(3, 4), SOME, 2.5),
            s(f(3, 4), mask(3, 4), f()),
            s(f(2, 2), mask(3, 2, 2), 1),
            s(ints(2), mask(2), 2.5),
            s(f(), mask(), 1),
        ),
        (
            bad("only supports boolean masks", f(2), ints(2), 1),
            bad("0-dimensional value", f(2), mask(2), f(1)),
            bad("must match", f(3), mask(2), 1),
        ),
    ),
    Op(
        "masked_select",
        (
            s(f(3, 4), SOME),
            s(f(3, 4), np.eye(3, 4) > 0),
            s(f(4), np.ones((2, 4), bool)),
            s(f(), np.array(True)),
            s(ints(4), SOME),
        ),
        (bad("expected BoolTensor", f(2), ints(2)), bad("must match", f(3, 4), mask(2))),
    ),
    Op(
        "masked_scatter",
        (
            s(f(3, 4), SOME, f(12)),
            s(f(4), SOME, f(2, 2)),
            s(f(4), np.ones((2, 4), bool), f(9)),
            s(f(2), np.zeros(2, bool), f(0)),
        ),
        (
            bad("Number of elements of source", f(4), SOME, f(2)),
            bad("same dtypes", f(4), SOME, ints(4)),
            bad("only supports boolean masks", f(4), ints(4), f(4)),
        ),
    ),
    Op("nonzero", (s(np.eye(3, 4)), s(np.eye(3, 4), as_tuple=True), s(f()), s(np.zeros(2)), s(f(), as_tuple=True))),
    Op("argwhere", (s(np.eye(3, 4)), s(ints(3)))),
    Op(
        "select_scatter",
        (s(f(3, 4), f(4), 0, 1), s(f(3, 4), f(3), -1, -1)),
        (bad("equal to the slice", f(3, 4), f(3), 0, 1),),
    ),
    Op(
        "slice_scatter",
        (s(f(3, 4), f(3, 2), 1, 0, 4, 2), s(f(3, 4), f(3, 4)), s(f(3, 4), f(1, 4), 0, -1)),
        (
            bad("equal to the slice", f(3, 4), f(3, 3), 1, 0, 4, 2),
            bad("step must be positive", f(3), f(3), 0, 0, 3, -1),
        ),
    ),
    Op(
        "diagonal_scatter",
        (s(f(3, 4), f(3), 1), s(f(2, 3, 3), f(2, 3), 0, 1, 2)),
        (bad("equal to the slice", f(3, 4), f(2), 1),),
    ),
    Op(
        "as_strided_scatter",
        (s(f(3, 4), f(2, 2), (2, 2), (1, 2), 1),),
        (bad("equal to the slice", f(3, 4), f(3, 2), (2, 2), (1, 2), 1),),
        layouts=False,
        grads=0,  # PyTorch's gradient is zero outside of what the view spans
    ),
)
