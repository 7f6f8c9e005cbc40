"""Distributions, under PyTorch's names. Parameters are tensors or numbers; all results are recorded operations.

Beta, Dirichlet, Gamma and what is made of them are not here: drawing from them takes a loop that ends by chance.
"""

from graphc.distributions import constraints, kl
from graphc.distributions.composed import Independent, MixtureSameFamily, MultivariateNormal
from graphc.distributions.continuous import Cauchy, Exponential, Gumbel, HalfNormal, Laplace, LogNormal, Normal, Uniform
from graphc.distributions.discrete import Bernoulli, Categorical, Geometric, OneHotCategorical, Poisson
from graphc.distributions.distribution import Distribution
from graphc.distributions.kl import kl_divergence, register_kl

__all__ = [
    "Bernoulli",
    "Categorical",
    "Cauchy",
    "Distribution",
    "Exponential",
    "Geometric",
    "Gumbel",
    "HalfNormal",
    "Independent",
    "Laplace",
    "LogNormal",
    "MixtureSameFamily",
    "MultivariateNormal",
    "Normal",
    "OneHotCategorical",
    "Poisson",
    "Uniform",
    "constraints",
    "kl",
    "kl_divergence",
    "register_kl",
]
