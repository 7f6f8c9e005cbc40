"""Samples of normalisation."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, f, fixed, ints, once, pos, s

NORMALISATION: tuple[Op, ...] = (
    Op(
        "nn.functional.batch_norm",
        (
            s(f(4, 3), None, None, training=True),
            s(f(2, 3, 4), None, None, f(3), f(3), True, 0.1, 0.5),
            s(f(2, 3, 2, 2), None, None, weight=f(3), training=True),
            s(f(2, 3, 4), fixed(f(3)), fixed(pos(3))),
            s(f(2, 3, 4), fixed(f(3)), fixed(pos(3)), f(3), f(3), eps=0.5),
        ),
        (
            bad("must be defined", f(2, 3), None, None),
            bad("more than 1 value", f(1, 3), None, None, training=True),
            bad("should contain", f(2, 3), pos(4), pos(3)),
            bad("should contain", f(2, 3), pos(3), pos(3), pos(2)),
            bad("not implemented", ints(2, 3), pos(3), pos(3)),
            bad("both be None", f(2, 3), pos(3), None, training=True),
        ),
        rtol=1e-7,
    ),
    Op(
        "nn.functional.layer_norm",
        (
            s(f(3, 4), (4,)),
            s(f(2, 3, 4), (3, 4), f(3, 4), f(3, 4), 0.5),
            s(f(2, 3, 4), [4], weight=f(4)),
            s(f(3, 4), (4,), bias=f(4), eps=0.1),
            s(f(0, 4), (4,)),
        ),
        (
            bad("normalized_shape", f(3, 4), (3,)),
            bad("at least 1", f(3, 4), ()),
            bad("weight to be of same shape", f(3, 4), (4,), f(3)),
            bad("bias to be of same shape", f(3, 4), (4,), None, f(3)),
            bad("not implemented", ints(3, 4), (4,)),
            bad("tuple of ints", f(3, 4), 4),
        ),
    ),
    Op(
        "nn.functional.rms_norm",
        (
            s(f(3, 4), (4,)),
            s(f(2, 3, 4), (3, 4), f(3, 4), 0.5),
            s(f(2, 3, 4), [4], weight=f(4)),
        ),
        (
            bad("normalized_shape", f(3, 4), (3,)),
            bad("weight to be of same shape", f(3, 4), (4,), f(3)),
            bad("not implemented", ints(3, 4), (4,)),
        ),
    ),
    Op(
        "nn.functional.instance_norm",
        (
            s(f(2, 3, 4)),
            s(f(2, 3, 2, 2), weight=f(3), bias=f(3), eps=0.5),
            s(f(2, 3, 4), fixed(f(3)), fixed(pos(3)), use_input_stats=False),
            s(f(2, 3, 4), fixed(f(3)), fixed(pos(3)), f(3), f(3), False),
        ),
        (
            bad("more than 1 spatial", f(2, 3, 1)),
            bad("more than 1 spatial", f(2, 3)),
            bad("defined", f(2, 3, 4), use_input_stats=False),
            bad("should contain", f(2, 3, 4), weight=f(2)),
        ),
        rtol=1e-7,
    ),
    Op(
        "nn.functional.group_norm",
        (
            s(f(2, 4), 2),
            s(f(2, 4, 3), 2, f(4), f(4)),
            s(f(2, 3, 2, 2), 1, eps=0.5),
            s(f(2, 4, 3), 4, weight=f(4)),
        ),
        (
            bad("divisible", f(2, 4, 3), 3),
            bad("at least 2", f(4), 1),
            bad("zero|greater than 0", f(2, 4, 3), 0),
            bad("vector of size", f(2, 4, 3), 2, f(3)),
            bad("more than 1 value", f(1, 2), 2),
            bad("not implemented", ints(2, 4, 3), 2),
        ),
    ),
    Op(
        "nn.functional.local_response_norm",
        (
            s(f(2, 5, 3), 3),
            s(f(2, 5, 3), 2, 0.5, 0.6, 2.0),
            s(f(1, 4, 2, 2), size=5, alpha=1.0),
            s(f(2, 3, 2), 7, alpha=0.5),
        ),
        (bad("3D", f(2, 3), 2), bad("greater than", f(2, 3, 4), 0)),
    ),
    Op(
        "nn.functional.normalize",
        (
            s(f(3, 4)),
            s(f(3, 4), 1.0, -1),
            s(f(2, 3, 2), p=3.0, dim=0),
            s(f(3, 4), np.inf, eps=5.0),
            once(s(np.zeros((2, 3)))),  # PyTorch: NaN at 0
            s(f(5), dim=0),
        ),
        (bad("range", f(3)), bad("loating|dtype", ints(3, 4))),
    ),
)
