"""Methods of tensors: random numbers."""

from __future__ import annotations

from graphc import random
from graphc.tensors.core import TensorBase


class RandomMethods(TensorBase):
    """Random numbers."""

    __slots__ = ()

    uniform_, normal_, bernoulli_, random_ = random.uniform_, random.normal_, random.bernoulli_, random.random_
    bernoulli = random.bernoulli
