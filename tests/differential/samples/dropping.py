"""Samples of dropout: random in training, so only shapes, dtypes and errors are compared here."""

from __future__ import annotations

from typing import Any

from tests.differential.samples.base import Op, Sample, bad, f, ints, s


def _op(name: str, shape: tuple[int, ...], *samples: Sample, **options: Any) -> Op:
    refused = (bad("between 0 and 1", f(*shape), 1.5), bad("between 0 and 1", f(*shape), p=-0.1))
    whole = bad("can't be cast", ints(*shape), 0.5, True)
    usual = (
        s(f(*shape)),
        s(f(*shape), 0.3, True),
        s(f(*shape), p=0.3, training=True),
        s(f(*shape), 0.5, False),
        s(f(*shape), 1.0, True),
        s(f(*shape), 0.0, True),
    )
    return Op(
        f"nn.functional.{name}", (*usual, *samples), (*refused, whole), values=False, forms=False, grads=0, **options
    )


DROPPING: tuple[Op, ...] = (
    _op("dropout", (3, 4), s(f(), 0.5), s(f(0, 3), 0.5)),
    _op("alpha_dropout", (3, 4)),
    _op("feature_alpha_dropout", (2, 3, 4)),
    # Without a batch dimension PyTorch's last step is a squeeze.
    _op("dropout1d", (2, 3, 4), s(f(3, 4), 0.5)),
    _op("dropout2d", (2, 3, 4, 2)),
    _op("dropout3d", (2, 3, 2, 2, 2), s(f(3, 2, 2, 2), 0.5)),
)
