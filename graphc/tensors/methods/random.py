"""Methods of tensors: random numbers."""

from __future__ import annotations

from graphc.tensors import sampling
from graphc.tensors.core import TensorBase


class RandomMethods(TensorBase):
    """Random numbers."""

    __slots__ = ()

    uniform_, normal_, log_normal_ = sampling.uniform_, sampling.normal_, sampling.log_normal_
    exponential_, cauchy_, geometric_ = sampling.exponential_, sampling.cauchy_, sampling.geometric_
    bernoulli_, random_ = sampling.bernoulli_, sampling.random_
    bernoulli, multinomial = sampling.bernoulli, sampling.multinomial
