"""Public names: functions of `nn.functional` that stand under `torch` too."""

from graphc.activations import (
    celu,
    celu_,
    hardshrink,
    prelu,
    relu_,
    rrelu,
    rrelu_,
    selu,
    selu_,
    threshold,
    threshold_,
)
