"""Samples of the activation functions of `nn.functional`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.differential.samples.base import Op, Sample, bad, f, ints, mask, once, pos, s, special

KINKS = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 3.0, -3.0, 6.0, 20.0, -20.0])
FINITE = np.array([v for v in special() if np.isfinite(v)] + [np.nan])


def _op(name: str, *samples: Sample, integers: str = "not implemented", **options: Any) -> Op:
    """An activation: on matrices, at kinks, at special values, 0-d, without elements; integers are refused."""
    refused = (bad(integers, ints(3)), bad("not implemented|ool", mask(3))) if integers else ()
    usual = (s(f(3, 4)), once(s(KINKS)), once(s(FINITE)), s(f()), s(f(0, 3)))  # at kinks the second gradients differ
    return Op(f"nn.functional.{name}", (*usual, *samples), refused + options.pop("bad", ()), **options)


ACTIVATIONS: tuple[Op, ...] = (
    _op("relu", s(special()), s(ints(4)), s(f(4), inplace=False), integers="", bad=(bad("ool", mask(3)),)),
    _op("relu6", s(f(4) * 4), s(ints(5)), integers="", bad=(bad("ool", mask(3)),)),
    _op(
        "hardtanh",
        s(special()),
        s(f(4), -0.7, 0.4),
        s(ints(5)),
        s(f(4), min_val=-0.7, max_val=0.4),
        integers="",
        bad=(bad("ool", mask(3)), bad("greater", f(2), 2, 1), bad("unsigned", ints(3, low=0, dtype="uint8"))),
    ),
    _op("leaky_relu", s(f(4), 0.2), s(f(4), negative_slope=-0.5), s(special())),
    _op("rrelu", s(f(4), 0.1, 0.3), s(f(4), lower=0.2, upper=0.4), bad=(bad("bound", f(2), 0.5, 0.1),)),
    _op("elu", s(f(4), 0.7), s(f(4), alpha=-0.5), s(special()), s(special(), 0.7)),
    _op("celu", s(f(4), 0.7), s(f(4), alpha=2.0), s(special()), bad=(bad("alpha", f(2), 0.0),), rtol=1e-7),
    _op("selu", s(special())),
    _op(
        "gelu",
        s(f(3, 4), approximate="tanh"),
        s(FINITE, approximate="tanh"),
        bad=(bad("approx", f(2), approximate="x"),),
    ),
    _op("silu"),
    _op("mish"),
    _op("hardsigmoid", s(special()), s(f(5) * 3), rtol=1e-7),
    _op("hardswish", s(f(5) * 3)),
    _op("hardshrink", s(f(5), 0.9), s(f(5), lambd=0.1), s(special())),
    _op("softshrink", s(f(5), 0.9), s(f(5), lambd=0.1), bad=(bad("lambda", f(2), -1.0),)),
    _op("tanhshrink", s(ints(4)), integers=""),
    _op("softsign", s(ints(4)), integers="", bad=(bad("not implemented", mask(3)),)),
    _op("softplus", s(f(5), 2), s(f(6) * 9, beta=3.0, threshold=5.0)),
    _op("logsigmoid"),
    _op("sigmoid", s(ints(4)), s(mask(4)), integers="", forms=False),
    _op("tanh", s(ints(4)), s(mask(4)), integers="", forms=False),
    Op(
        "nn.functional.threshold",
        (
            s(f(3, 4), 0.1, 20.0),
            s(KINKS, 0.5, -1.0),
            s(special(), 1, 7),
            s(ints(5), 1, 7),
            s(f(), threshold=0, value=1),
        ),
        (bad("not implemented", mask(3), 0.1, 2.0),),
    ),
    Op(
        "nn.functional.prelu",
        (
            s(f(3, 4), np.array([0.25])),
            s(f(3, 4), f(4)),
            s(f(2, 3, 4), f(3)),
            once(s(KINKS, np.array([0.25]))),  # at kinks the second gradients differ
            s(f(5), np.array(0.1)),
            s(f(), np.array([0.3])),
            s(f(0, 3), f(3)),
        ),
        (
            bad("[Mm]ismatch", f(2, 3), f(2)),
            bad("zero-dim", f(), f(2)),
            bad("ndim = 2", f(3), f(1, 1)),
            bad("not implemented", ints(3), ints(1)),
        ),
    ),
    Op(
        "nn.functional.glu",
        (s(f(3, 4)), s(f(4, 3), 0), s(f(2, 4, 3), dim=-2), s(f(6)), s(f(0, 4))),
        (bad("even", f(3, 3)), bad("scalar|0-dim", f()), bad("not implemented", ints(4)), bad("range", f(4), 3)),
    ),
    Op(
        "nn.functional.softmax",
        (
            s(f(3, 4), 1),
            s(f(3, 4), dim=-2),
            s(f(2, 3, 4), 1),
            s(f(), 0),
            s(f(0, 3), 1),
            s(np.array([[1.0, -np.inf, 80.0], [np.inf, 1.0, 2.0], [-np.inf] * 3]), 1),
            s(ints(3, 4), 1, dtype="torch.float32"),
            s(f(3), 0, dtype="torch.float64"),
        ),
        (bad("not implemented", ints(3), 0), bad("range", f(3, 4), 2)),
    ),
    Op(
        "nn.functional.log_softmax",
        (
            s(f(3, 4), 1),
            s(f(3, 4), dim=-2),
            s(f(), 0),
            s(f(0, 3), 1),
            s(f(2, 3) * 100, 1),
            s(ints(3, 4), 1, dtype="torch.float32"),
        ),
        (bad("not implemented", ints(3), 0), bad("range", f(3, 4), 2)),
    ),
    Op(
        "nn.functional.gumbel_softmax",
        (s(f(3, 4)), s(f(3, 4), 0.5, True, dim=0), s(f(5), tau=2.0)),
        (bad("loating", ints(3)),),
        values=False,
    ),
    Op("nn.functional.relu_", (s(f(3, 4)), s(ints(4))), forms=False),
    Op("nn.functional.elu_", (s(f(3, 4)), s(f(4), 0.5)), (bad("not implemented", ints(3)),), forms=False),
    Op("nn.functional.celu_", (s(f(3, 4)), s(f(4), 0.5)), forms=False),
    Op("nn.functional.selu_", (s(f(3, 4)),), forms=False),
    Op("nn.functional.hardtanh_", (s(f(3, 4)), s(f(4), -0.2, 0.3)), forms=False),
    Op("nn.functional.leaky_relu_", (s(f(3, 4)), s(f(4), 0.2)), forms=False),
    Op("nn.functional.rrelu_", (s(f(3, 4)), s(f(4), 0.2, 0.5)), forms=False),
    Op("nn.functional.threshold_", (s(f(3, 4), 0.1, 5.0),), forms=False),
    Op("hardshrink", (s(f(5)), s(f(5), 0.9))),
    Op("prelu", (s(f(3, 4), pos(4)),)),
    Op("celu", (s(f(5)), s(f(5), 0.7)), rtol=1e-7),  # PyTorch rounds 1 / alpha to float32
    Op("selu", (s(f(5)),)),
    Op("rrelu", (s(f(5)), s(f(5), 0.2, 0.3))),
)
