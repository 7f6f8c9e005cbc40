"""Methods of tensors: random numbers."""

from __future__ import annotations

from graphc.tensors import random_fills, sampling
from graphc.tensors.core import TensorBase


class RandomMethods(TensorBase):
    """Random numbers."""

    __slots__ = ()

    uniform_, normal_, log_normal_ = random_fills.uniform_, random_fills.normal_, random_fills.log_normal_
    exponential_, cauchy_, geometric_ = random_fills.exponential_, random_fills.cauchy_, random_fills.geometric_
    bernoulli_, random_ = random_fills.bernoulli_, random_fills.random_
    bernoulli, multinomial = sampling.bernoulli, sampling.multinomial
