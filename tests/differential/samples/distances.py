"""Samples of distances and similarities of vectors, and of the bilinear form."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, f, ints, s

SAME = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, -1.0]])

DISTANCES: tuple[Op, ...] = (
    Op(
        "cdist",
        (
            s(f(2, 3), f(4, 3)),
            s(f(3, 2), f(2, 2), p=1.0),
            s(f(2, 3), f(2, 3), p=3),
            s(f(2, 3), f(2, 3), p=np.inf),
            s(f(2, 3), f(3, 3), p=0.0),
            s(f(2, 2, 3), f(3, 3), compute_mode="donot_use_mm_for_euclid_dist"),
            s(SAME, SAME),
            s(f(2, 0), f(3, 0)),
            s(f(0, 2), f(3, 2)),
        ),
        (
            bad("X1 and X2 must have the same number of columns. X1: 3 X2: 2", f(2, 3), f(4, 2)),
            bad("cdist only supports at least 2D tensors, X1 got: 1D", f(3), f(4, 3)),
            bad("floating-point dtypes, X1 got: Long", ints(2, 3), ints(4, 3)),
            bad("non-negative p values", f(2, 3), f(4, 3), p=-1),
            bad("foo is not a valid value for compute_mode", f(2, 3), f(4, 3), compute_mode="foo"),
            bad("size of tensor a", f(5, 2, 3), f(4, 4, 3)),
        ),
        rtol=1e-7,  # PyTorch's way by products loses digits
        layouts=("transposed",),
    ),
    Op(
        "nn.functional.pdist",
        (s(f(4, 3)), s(f(3, 2), p=1), s(f(3, 2), p=3.0), s(SAME), s(f(1, 2))),
        (
            bad("pdist only supports 2D tensors, got: 1D", f(3)),
            bad("floating-point", ints(3, 2)),
            bad("non-negative p values", f(3, 2), p=-1),
        ),
    ),
    Op("pdist", (s(f(3, 2)),)),
    # PyTorch has another name for its older norm.
    Op("pairwise_distance", (s(f(2, 3), f(2, 3)),), grad_fn=False),
    Op("cosine_similarity", (s(f(2, 3), f(2, 3)),)),
    Op(
        "nn.functional.bilinear",
        (
            s(f(2, 3), f(2, 2), f(4, 3, 2)),
            s(f(2, 3), f(2, 2), f(4, 3, 2), f(4)),
            s(f(3), f(2), f(2, 3, 2)),
            s(f(2, 1, 3), f(2, 1, 2), f(2, 3, 2), f(2)),
        ),
        (
            bad("input batch dimensions do not match at dim 0: got 2 and 3", f(2, 3), f(3, 4), f(5, 3, 4)),
            bad("input1 size does not match weight size: got 3 but expected 4", f(2, 3), f(2, 4), f(5, 4, 4)),
            bad("input2 size does not match weight size: got 4 but expected 5", f(2, 3), f(2, 4), f(5, 3, 5)),
            bad("bias size does not match weight size: got 4 but expected 5", f(2, 3), f(2, 4), f(5, 3, 4), f(4)),
            bad("input dimensions do not match: got 2 and 1", f(2, 3), f(4), f(5, 3, 4)),
            bad("Dimension out of range", f(2, 3), f(2, 4), f(5, 3)),
        ),
    ),
    Op("bilinear", (s(f(2, 3), f(2, 2), f(4, 3, 2), None),)),
)
