"""Samples of pooling and of what undoes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.differential.samples.base import Bad, Op, Sample, bad, distinct, f, fixed, forward, ints, mask, pos, s

LOW = np.array([[[-np.inf, -np.inf, -np.inf, 1.0, np.nan]]])
PLACES = np.array([[[0, 2, 3], [3, 1, 0]]])
SPREAD = np.array([[[0, 2, 5], [3, 1, 4]]])  # in one plane: of equal places PyTorch keeps any


def op(name: str, samples: Sequence[Sample], refused: Sequence[Bad] = (), **options: Any) -> Op:
    return Op(f"nn.functional.{name}", tuple(samples), tuple(refused), forms=False, **options)


MAXIMA = (
    op(
        "max_pool1d",
        (
            s(distinct(2, 3, 7), 2),
            s(distinct(3, 7), 3, 2, 1),
            s(distinct(1, 2, 8), [3], [1], [1], [2], True),
            s(distinct(2, 2, 7), 3, padding=1, ceil_mode=True, return_indices=True),
            forward(s(LOW, 2, 1, 1, return_indices=True)),  # PyTorch sends the gradient of NaN elsewhere
            s(distinct(0, 2, 4), 2),
        ),
        (
            bad("Expected 2D or 3D", f(5), 2),
            bad("kernel_size must be an int.*size 2", f(2, 5), (2, 2)),
            bad("stride must be None, an int.*size 2", f(2, 5), 2, (2, 2)),
            bad("padding must be an int.*size 2", f(2, 5), 2, padding=(2, 2)),
            bad("at most half of kernel size", f(2, 5), 2, padding=2),
            bad("must be non-negative", f(2, 5), 2, padding=-1),
            bad("Invalid computed output size: 0", f(2, 5), 6),
            bad("kernel_size must be greater than zero", f(2, 5), 0),
            bad("stride must be greater than zero", f(2, 5), 2, 0),
            bad("dilation must be greater than zero", f(2, 5), 2, dilation=0),
            bad("not implemented", ints(2, 5), 2),
        ),
    ),
    op(
        "max_pool2d",
        (
            s(distinct(2, 2, 4, 3), 2),
            s(distinct(1, 5, 6), (3, 2), (1, 2), (1, 0), (2, 1), True),
            s(distinct(2, 5, 5), 3, 2, 1, 1, True, True),
            s(distinct(1, 1, 5, 5), 2, [], dilation=2, return_indices=True),
            s(ints(1, 4, 4), 3, 1, 1, return_indices=True),
            s(distinct(0, 2, 4, 4), 2),
        ),
        (
            bad("non-empty 3D or 4D", f(5, 5), 2),
            bad("kernel_size must either be a single int, or a tuple of two ints", f(1, 5, 5), (2, 2, 2)),
            bad("stride must either be omitted, a single int", f(1, 5, 5), 2, (2, 2, 2)),
            bad("dilation must be either a single int", f(1, 5, 5), 2, dilation=(2, 2, 2)),
            bad("at most half of effective kernel size", f(1, 5, 5), 2, padding=2),
            bad("pad must be non-negative", f(1, 5, 5), 2, padding=-1),
            bad("output size: \\(1x0x0\\)", f(1, 5, 5), 6),
            bad("stride should not be zero", f(1, 5, 5), 2, 0),
            bad("dilation should be greater than zero", f(1, 5, 5), 2, dilation=0),
            bad("optional 0 dim batch", f(2, 0, 5, 5), 2),
            bad("not implemented for 'Bool'", mask(1, 5, 5), 2),
        ),
    ),
    op(
        "max_pool3d",
        (
            s(distinct(1, 2, 3, 4, 2), 2),
            s(distinct(1, 3, 4, 3), (2, 3, 1), (1, 2, 1), (1, 1, 0), 1, True, True),
        ),
        (
            bad("non-empty 4D or 5D", f(1, 5, 5), 2),
            bad("tuple of three ints", f(1, 5, 5, 5), (2, 2)),
            bad("positive length", f(2, 0, 3, 3, 3), 2),
        ),
    ),
)

MEANS = (
    op(
        "avg_pool1d",
        (
            s(f(2, 3, 7), 2),
            s(f(3, 7), 3, 2, 1),
            s(f(1, 2, 8), [3], [2], [1], True, False),
            s(f(1, 2, 8), 4, 3, 2, True),
            s(ints(2, 6), 2),
        ),
        (
            bad("Expected 2 to 3 dimensions, but got 1", f(5), 2),
            bad("'kernel_size' should contain one int", f(2, 5), (2, 2)),
            bad("output size: \\(2x1x0\\)", f(2, 5), 6),
        ),
    ),
    op(
        "avg_pool2d",
        (
            s(f(2, 2, 4, 3), 2),
            s(f(1, 5, 6), (3, 2), (1, 2), (1, 0), True),
            s(f(2, 5, 5), 3, 2, 1, True, False),
            s(f(2, 5, 5), 3, 2, 1, False, True, 5),
            s(f(1, 5, 5), 2, [], divisor_override=-3),
            s(ints(1, 4, 4), 3, 1, 1, count_include_pad=False),
            s(ints(1, 4, 4), 2, divisor_override=-2),
        ),
        (
            bad("divisor must be not zero", f(1, 5, 5), 2, divisor_override=0),
            bad("optional 0 dim batch", f(1, 2, 3, 5, 5), 2),
            bad("at most half", f(1, 5, 5), 2, padding=2),
            bad("not implemented for 'Bool'", mask(1, 5, 5), 2),
        ),
    ),
    op(
        "avg_pool3d",
        (
            s(f(1, 2, 3, 4, 2), 2),
            s(f(1, 3, 4, 3), (2, 3, 1), (1, 2, 1), (1, 1, 0), True, False),
            s(f(1, 3, 4, 3), 2, 1, 1, divisor_override=3),
        ),
        (
            bad("smaller than kernel size \\(kT: 6 kH: 6 kW: 6\\)", f(1, 5, 5, 5), 6),
            bad("must be a single int, or a tuple of three ints", f(1, 5, 5, 5), (2, 2)),
        ),
        beyond=True,
    ),
    op("lp_pool1d", (s(pos(2, 2, 5), 2, 2), s(f(2, 5), 2.0, 3, 1, True), s(np.zeros((1, 4)), 2, 2))),
    op("lp_pool2d", (s(pos(1, 2, 3, 5), 3, 2), s(pos(2, 3, 5), 1.5, (3, 2), ceil_mode=True))),
    op("lp_pool3d", (s(pos(1, 2, 3, 2), 3, 2), s(pos(2, 3, 3, 3), 2, (3, 2, 1), (1, 2, 2))), beyond=True),
)

ADAPTIVE = (
    op(
        "adaptive_avg_pool1d",
        (s(f(2, 2, 6), 3), s(f(2, 7), 3), s(f(2, 3), [5]), s(f(2, 3), 0), s(f(0, 2, 4), 3)),
        (
            bad("Expected 2 to 3 dimensions", f(5), 2),
            bad("should contain one int", f(2, 5), (2, 2)),
            bad("must be tuple of ints", f(2, 5), (None,)),
            bad("must be tuple of ints", f(2, 5), None),
            bad("greater than or equal to 0 but received \\{1, -1\\}", f(2, 5), -1),
            bad("not implemented", ints(2, 5), 2),
            bad("non-zero size for non-batch", f(2, 0), 2),
        ),
    ),
    op(
        "adaptive_avg_pool2d",
        (
            s(f(2, 2, 4, 6), (2, 3)),
            s(f(2, 5, 4), (3, None)),
            s(f(1, 2, 5, 4), 1),
            s(f(2, 2, 3), [4, 2]),
            s(np.array([[[1.0, np.inf, 2.0, np.nan, 3.0]]]), (1, 3)),
        ),
        (
            bad("Expected 3D or 4D tensor, but got", f(5, 5), 2),
            bad("Input dimension should be at least 5", f(1, 5, 5), (2, 2, 2, 2)),
            bad("output_size must be 2", f(1, 1, 5, 5), (2, 2, 2)),
            bad("but received \\{-1, -1\\}", f(1, 5, 5), -1),
            bad("NoneType", f(1, 5, 5), None),
        ),
    ),
    op(
        "adaptive_avg_pool3d",
        (s(f(1, 2, 3, 4, 2), (3, 2, 1)), s(f(1, 3, 4, 2), (2, 3, None)), s(f(1, 2, 2, 3, 2), 1)),
        (bad("but received \\{-1, -1,-1\\}", f(1, 2, 2, 2), -1),),
    ),
    op(
        "adaptive_max_pool1d",
        (
            s(distinct(2, 2, 6), 3),
            s(distinct(2, 7), [3], True),
            s(distinct(2, 3), 5, return_indices=True),
            s(LOW, 3),
        ),
        (
            bad("Expected 2 to 3 dimensions", f(5), 2),
            bad("negative dimension -1", f(2, 5), -1),
            bad("not implemented", ints(2, 5), 2),
        ),
    ),
    op(
        "adaptive_max_pool2d",
        (
            s(distinct(2, 2, 4, 3), (2, 3)),
            s(distinct(2, 5, 4), (3, None), True),
            s(distinct(1, 5, 4), 1, return_indices=True),
        ),
        (
            bad("Expected 3D or 4D tensor, but got", f(5, 5), 2),
            bad("output_size.size\\(\\) must be 2", f(1, 1, 5, 5), (2, 2, 2)),
        ),
    ),
    op(
        "adaptive_max_pool3d",
        (s(distinct(1, 2, 3, 4, 2), (3, 2, 1)), s(distinct(1, 3, 4, 2), (2, 3, None), True)),
    ),
)

_DRAWN = fixed(np.array([[[0.3, 0.7], [0.55, 0.05]]]))
_DRAWN3 = fixed(np.array([[[0.3, 0.7, 0.5]]]))
FRACTIONAL = (
    op(
        "fractional_max_pool2d",
        (
            s(distinct(1, 2, 7, 6), 2, 3, _random_samples=_DRAWN),
            s(distinct(2, 7, 6), (2, 3), (1, 4), None, True, _random_samples=_DRAWN),
            s(distinct(1, 2, 5, 5), 2, None, (0.5, 0.7), _random_samples=_DRAWN),
            forward(s(np.where(distinct(1, 2, 5, 5) > 2, np.nan, 1.0), 2, 3, _random_samples=_DRAWN)),
        ),
        (
            bad("requires specifying", f(1, 1, 4, 4), 2),
            bad("pool height 2 too large", f(1, 2, 7, 7), 2, 8, _random_samples=_DRAWN),
            bad("same dtype", f(1, 2, 7, 7), 2, 3, _random_samples=_DRAWN.astype("int64")),
            bad("3 dimensions, got 2", f(1, 2, 7, 7), 2, 3, _random_samples=_DRAWN[0]),
            bad("input channel size", f(1, 3, 7, 7), 2, 3, _random_samples=_DRAWN),
            bad("equals to 2; got 3", f(1, 1, 7, 7), 2, 3, _random_samples=_DRAWN3),
            bad("not implemented", ints(1, 1, 4, 4), 2, 2),
        ),
    ),
    op(
        "fractional_max_pool3d",
        (
            s(distinct(1, 1, 4, 4, 5), 2, 2, _random_samples=_DRAWN3),
            s(distinct(1, 4, 4, 4), (1, 2, 3), (3, 2, 1), None, True, _random_samples=_DRAWN3),
        ),
        (
            bad("requires specifying", f(1, 1, 4, 4, 4), 2),
            bad("pool time 2 too large", f(1, 1, 3, 4, 4), 2, 6, _random_samples=_DRAWN3),
        ),
    ),
    op("fractional_max_pool2d_with_indices", (s(distinct(1, 2, 5, 6), 2, 3, _random_samples=_DRAWN),)),
    op("fractional_max_pool3d_with_indices", (s(distinct(1, 1, 4, 4, 4), 2, 2, _random_samples=_DRAWN3),)),
)

UNPOOLED = (
    op(
        "max_unpool1d",
        (
            s(f(1, 2, 3), PLACES, 2),
            s(f(2, 3), PLACES[0], [2], 1, 0, [5 - 1]),
            s(f(1, 2, 3), PLACES, 3, 2, 1, output_size=(1, 2, 6)),
        ),
        (
            bad("invalid output_size", f(1, 2, 3), PLACES, 2, output_size=(9,)),
            bad("containing 1 or 3 elements", f(1, 2, 3), PLACES, 2, output_size=(5, 5)),
            bad("Found an invalid max index", f(1, 2, 3), PLACES + 9, 2),
            bad("Found an invalid max index", f(1, 2, 3), PLACES - 1, 2),
            bad("should be type int64", f(1, 2, 3), PLACES.astype("int32"), 2),
            bad("Expected shape of indices", f(1, 1, 3), PLACES, 2),
        ),
    ),
    op(
        "max_unpool2d",
        (s(f(1, 1, 2, 3), SPREAD[None], 2), s(f(1, 2, 3), SPREAD * 2, (2, 3), (1, 2), output_size=(3, 6))),
        (bad("Input to max_unpooling2d should be a 3d or 4d", f(2, 3), SPREAD[0], 2),),
    ),
    op(
        "max_unpool3d",
        (s(f(1, 1, 1, 2, 3), SPREAD[None, None], 2), s(f(1, 1, 2, 3), SPREAD[None] * 2, (1, 2, 3))),
        (bad("Input to max_unpooling3d should be a 4d or 5d", f(1, 2, 3), SPREAD, 2),),
    ),
)

INDEXED = (
    op("max_pool1d_with_indices", (s(distinct(2, 5), 2), s(distinct(1, 2, 5), 3, 1, 1))),
    op("max_pool2d_with_indices", (s(distinct(1, 4, 5), (2, 3), 1, 1),)),
    op("max_pool3d_with_indices", (s(distinct(1, 2, 4, 3), 2, ceil_mode=True),)),
    op("adaptive_max_pool1d_with_indices", (s(distinct(2, 5), 2),)),
    op("adaptive_max_pool2d_with_indices", (s(distinct(2, 5, 4), (None, 3)),)),
    op("adaptive_max_pool3d_with_indices", (s(distinct(1, 2, 3, 4), (1, 2, None)),)),
    Op("adaptive_max_pool1d", (s(distinct(2, 5), 2),), forms=False),
)

POOLING: tuple[Op, ...] = (*MAXIMA, *MEANS, *ADAPTIVE, *UNPOOLED, *INDEXED, *FRACTIONAL)
