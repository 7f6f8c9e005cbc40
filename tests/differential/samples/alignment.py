"""Samples of the loss of connectionist temporal classification."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, f, forward, ints, s

TARGETS, TIMES, SIZES = np.array([[1, 2, 2], [3, 1, 0]]), np.array([6, 5]), np.array([3, 2])
HARD = np.array([[1, 1, 1], [2, 3, 1]])


def logs(*shape: int) -> np.ndarray:
    """Normalised logarithms over the last dimension."""
    made = f(*shape)
    return made - np.log(np.exp(made).sum(-1, keepdims=True))


ALIGNMENT: tuple[Op, ...] = (
    Op(
        "nn.functional.ctc_loss",
        (
            s(logs(6, 2, 4), TARGETS, TIMES, SIZES),
            s(logs(6, 2, 4), TARGETS, TIMES, SIZES, reduction="none"),
            s(logs(6, 2, 4), TARGETS - 1, (6, 6), (0, 2), 3, "sum"),
            s(logs(6, 2, 4), np.array([1, 2, 2, 3, 1]), TIMES, SIZES),
            s(logs(6, 4), np.array([1, 2]), np.array(6), np.array(2), reduction="none"),
            s(f(6, 2, 4), TARGETS, TIMES, SIZES),
            forward(s(logs(6, 2, 4), HARD, np.array([3, 6]), np.array([3, 2]), reduction="none")),  # PyTorch: NaN
            s(logs(6, 2, 4), HARD, np.array([3, 6]), np.array([3, 2]), reduction="none", zero_infinity=True),
        ),
        (
            bad("at most|value", logs(6, 2, 4), TARGETS, TIMES + 1, SIZES),
            bad("size|at most", logs(6, 2, 4), TARGETS, TIMES, SIZES + 1),
            bad("batch_size", logs(6, 2, 4), TARGETS, TIMES[:1], SIZES),
            bad("batch_size", logs(6, 2, 4), TARGETS, TIMES, SIZES[:1]),
            bad("label range", logs(6, 2, 4), TARGETS, TIMES, SIZES, blank=4),
            bad("integral", logs(6, 2, 4), TARGETS, TIMES * 1.0, SIZES),
            bad("valid value", logs(6, 2, 4), TARGETS, TIMES, SIZES, reduction="x"),
            bad("not implemented", ints(6, 2, 4), TARGETS, TIMES, SIZES),
        ),
        layouts=False,
        grad_fn=False,  # zero_infinity is a where of its own in PyTorch
        beyond=True,
    ),
)
