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
from graphc.padding import constant_pad_nd
