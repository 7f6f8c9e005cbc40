"""Methods of tensors: functions of `nn.functional` that tensors have too."""

from __future__ import annotations

from graphc import activations
from graphc.tensors.core import TensorBase


class FunctionalMethods(TensorBase):
    """Functions of `nn.functional`."""

    __slots__ = ()

    prelu, hardshrink = activations.prelu, activations.hardshrink
