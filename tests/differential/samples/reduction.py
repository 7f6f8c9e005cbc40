"""Samples of reductions: many elements into one."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, Sample, bad, distinct, f, forward, ints, mask, once, pos, s, special

NAN, INF = np.nan, np.inf


def with_nan() -> np.ndarray:
    """Floats of which some are NaN."""
    made = f(3, 4)
    made[0, 1] = made[1, 0] = NAN
    return made


def ties() -> np.ndarray:
    """Floats with equal extremes."""
    return np.array([[1.0, 3.0, 3.0, -2.0], [-2.0, -2.0, 3.0, 0.0]])


EMPTY, EMPTY_ROWS = np.zeros((0, 3)), np.zeros((2, 0))
DIMS: tuple[Sample, ...] = (
    s(f(2, 3, 4), 1),
    s(f(2, 3, 4), (0, -1), keepdim=True),
    s(f(2, 3), axis=0, keepdims=True),
    s(f(), 0),
)
SUMS = (s(f(3, 4)), *DIMS, s(ints(2, 3, dtype="int32"), 0), s(mask(5)), s(EMPTY, 0), s(EMPTY_ROWS), s(f(3), dim=()))
FLOAT_SUMS = [x for x in SUMS if x.args[0].dtype.kind == "f"]
OUT_OF_RANGE, TWICE, NO_INT = (
    bad("Dimension out of range", f(2, 3), 2),
    bad("appears multiple times", f(2, 3), (0, -2)),
    bad("must be int|invalid", f(2, 3), 1.5),
)
NO_BOOL, NO_TENSOR = bad("keepdim", f(2, 3), 0, 1), bad("must be Tensor, not float", 2.5)

SPREAD = (
    s(f(3, 4)),
    s(f(3, 4), 0),
    s(f(3, 4), -1, False, True),
    s(f(2, 3, 4), (0, 2), correction=2, keepdim=True),
    s(f(3, 4), False),
    s(f(3, 4), dim=1, unbiased=False),
    s(f(3, 4), None, correction=0.5),
    once(s(np.ones((2, 3)) * 0.3, 0)),  # the second one is rounding noise divided by 0
    s(np.array([1.0, NAN, 2.0])),
)
SPREAD_BAD = (
    bad("only support floating point", ints(3)),
    bad("Dimension out of range", f(3), 1),
    bad("", f(3), 0, True, correction=1),
)
EXTREMES = (
    s(distinct(3, 4)),
    s(ties()),
    s(ties(), 1),
    s(ties(), dim=-1, keepdim=True),
    s(distinct(2, 3, 2), 1),
    s(ints(3, 4, dtype="uint8", low=0), 0),
    s(mask(2, 3), 0),
    s(mask(4)),
    s(special(), 0),
    s(special()),
    s(np.array([[0.0, -0.0], [-0.0, 0.0]]), 1),
    s(f(), 0),
    s(f()),
    s(EMPTY, 1),
    s(f(3, 4), f(4)),
    s(f(3, 4), other=f(3, 4)),
    s(f(3, 4), axis=0),
)
EXTREMES_BAD = (
    bad("Expected reduction dim to be specified", EMPTY),
    bad("Expected reduction dim 0 to have non-zero size", EMPTY, 0),
    bad("Dimension out of range", f(3), 1),
    bad("", f(3, 4), (0, 1)),
    bad("", f(3, 4), keepdim=True),
    bad("size", f(3), f(4)),
)
OVER_AXES = (
    s(ties()),
    s(ties(), 1),
    s(ties(), (0, 1), True),
    s(mask(2, 3), 0),
    s(ints(2, 3), dim=[0]),
    forward(s(special())),  # PyTorch: NaN with NaN among the elements
    s(EMPTY, 1),
    s(f(), ()),
)
OVER_AXES_BAD = (
    bad("Expected reduction dim to be specified", EMPTY),
    bad("Expected reduction dim 0 to have non-zero size", EMPTY, 0),
    OUT_OF_RANGE,
    TWICE,
)
POSITIONS = (
    s(ties()),
    s(ties(), 1),
    s(ties(), 0, True),
    s(ties(), keepdim=True),
    s(ints(3, 4, dtype="int8"), dim=-1),
    s(special()),
    s(f(), 0),
    s(EMPTY, 1),
)
POSITIONS_BAD = (
    bad("does not support bool input", mask(3)),
    bad("Expected reduction dim to be specified for input.numel", EMPTY),
    bad("Expected reduction dim 0 to have non-zero size", EMPTY, 0),
    bad("", ties(), (0, 1)),
)
TRUTH = (
    s(mask(3, 4)),
    s(mask(3, 4), 0),
    s(mask(2, 3, 2), (0, 2), True),
    s(mask(2, 3), ()),
    s(ints(2, 3, low=0, high=2, dtype="uint8"), 1),
    s(ints(2, 3, low=0, high=2, dtype="int8"), 1),
    s(special()),
    s(EMPTY),
    s(EMPTY, 0),
    s(f(2, 3), axis=1, keepdims=True),
)
NORM_ZEROS = np.array([[0.0, 0.0], [1.5, 0.0], [-0.5, 2.0]])
NORMS = (
    s(f(3, 4)),
    s(f(3, 4), 1),
    s(f(3, 4), 2, 0),
    s(f(2, 3, 4), 3, (0, 2), True),
    once(s(NORM_ZEROS, 2, 1)),  # PyTorch: NaN at 0
    once(s(NORM_ZEROS, 3.0, 1)),  # PyTorch: NaN at 0
    s(NORM_ZEROS, 0, 1),
    s(pos(3, 4), 2.5, -1),
    s(pos(3), -1),
    s(pos(3, 2), 0.5, 0),
    s(distinct(3, 4), INF),
    s(distinct(3, 4), -INF, 1),
    s(f(3, 4), "fro", (0, 1)),
    s(f(3, 4), None, keepdim=True),
    s(EMPTY),
    s(f(), 2),
)
SOFTMAXES = (
    s(f(3, 4), 0),
    s(f(2, 3, 4), dim=-1),
    s(np.array([1000.0, 1001.0, -INF]), 0),
    s(ints(2, 3), 1, dtype="torch.float64"),
    s(f(3, 2), axis=1),
    s(f(), 0),
    s(EMPTY, 0),
)

REDUCTION: tuple[Op, ...] = (
    Op(
        "sum",
        (*SUMS, s(ints(3), 0, dtype="torch.float64"), s(special())),
        (OUT_OF_RANGE, TWICE, NO_INT, NO_BOOL, NO_TENSOR),
    ),
    Op("nansum", (s(with_nan()), s(with_nan(), 1, True), s(ints(3)), s(f(2, 3), (0, 1)), s(EMPTY, 0)), (OUT_OF_RANGE,)),
    Op(
        "mean",
        # Of nothing at all the second gradient is NaN.
        (*(once(x) if x.args[0].size == 0 else x for x in FLOAT_SUMS), s(ints(3), dtype="torch.float64")),
        (
            bad("Input dtype must be either a floating point or complex dtype. Got: Long", ints(3)),
            bad("Optional dtype must be", f(3), dtype="torch.int64"),
            OUT_OF_RANGE,
        ),
    ),
    Op("nanmean", (s(with_nan()), s(with_nan(), 1, True)), (bad("expected input to have floating point", ints(3)),)),
    Op(
        "prod",
        (
            s(f(3, 4)),
            s(f(3, 4), 0),
            s(np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0]]), 1, True),
            s(np.array([2.0, 0.0, 3.0])),
            s(ints(2, 3), -1),
            s(mask(3)),
            s(EMPTY, 0),
            s(f(2, 3), axis=0, dtype="torch.float64"),
            s(f()),
        ),
        (OUT_OF_RANGE, bad("", f(2, 3), (0, 1)), bad("", f(2, 3), dim=None)),
    ),
    Op("var", SPREAD, SPREAD_BAD),
    Op("std", SPREAD, SPREAD_BAD),
    Op("var_mean", SPREAD, SPREAD_BAD),
    Op("std_mean", SPREAD, SPREAD_BAD),
    Op("max", EXTREMES, EXTREMES_BAD),
    Op("min", EXTREMES, EXTREMES_BAD),
    Op("amax", OVER_AXES, OVER_AXES_BAD),
    Op("amin", OVER_AXES, OVER_AXES_BAD),
    Op(
        "aminmax",
        (
            s(ties()),
            s(ties(), dim=1, keepdim=True),
            s(ints(2, 3), dim=0),
            forward(s(special())),  # PyTorch: NaN with NaN among the elements
            s(f()),
            s(EMPTY, dim=1),
        ),
        (
            bad("cannot compute aminmax over an empty dimension", EMPTY),
            bad("Expected reduction dim 0 to have non-zero size", EMPTY, dim=0),
            bad("", f(3), 0),
        ),
    ),
    Op("argmax", POSITIONS, POSITIONS_BAD),
    Op("argmin", POSITIONS, POSITIONS_BAD),
    Op("any", TRUTH, (OUT_OF_RANGE, TWICE)),
    Op("all", TRUTH, (OUT_OF_RANGE, TWICE)),
    Op(
        "count_nonzero",
        (s(special()), s(ints(3, 4, low=-1, high=2), 0), s(mask(2, 3), (0, 1)), s(f(2, 3), dim=-1), s(EMPTY)),
        (OUT_OF_RANGE,),
    ),
    Op(
        "logsumexp",
        (
            s(f(3, 4), 0),
            s(f(2, 3, 4), (0, -1), True),
            s(np.array([[-INF, -INF], [INF, 1.0], [1000.0, 999.0]]), 1),
            s(ints(3, 2), 1),
            s(EMPTY, 0),
            s(EMPTY, 1),
            s(f(), 0),
        ),
        (OUT_OF_RANGE,),
    ),
    Op(
        "norm",
        NORMS,
        (
            bad("Expected a floating point or complex tensor", ints(3)),
            bad("Order foo not supported", f(3), "foo"),
            bad("cannot compute the inf norm on an empty tensor", EMPTY, INF),
            bad("without narrowing", f(3), 2, dtype="torch.float16"),
            bad("Dimension out of range", f(3), 2, 1),
        ),
    ),
    Op(
        "dist",
        (s(f(3, 4), f(3, 4)), s(f(3, 4), f(4), 3), s(f(3), f(3), 1), s(f(3), f(3), INF), s(f(3), f(3), 0)),
    ),
    Op(
        "renorm",
        (s(f(3, 4), 2, 0, 1.0), s(f(3, 4), 1, 1, 2.5), s(f(2, 3, 2), 3, -1, 0.5), s(f(3, 4), 2, 0, 100.0)),
        (
            bad("expected maxnorm to be >= 0", f(2, 3), 2, 0, -1),
            bad("non-positive-norm", f(2, 3), -2, 0, 1),
            bad("Dimension out of range", f(2, 3), 2, 5, 1),
        ),
    ),
    Op("softmax", SOFTMAXES, (OUT_OF_RANGE, bad("not implemented for 'Long'", ints(3), 0))),
    Op("log_softmax", SOFTMAXES, (OUT_OF_RANGE, bad("not implemented for 'Long'", ints(3), 0))),
    Op("nn.functional.softmin", (s(f(3, 4), 0), s(f(2, 3), dim=1, dtype="torch.float64"))),
)
