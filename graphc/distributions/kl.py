"""`kl_divergence`: the mean of log p(x) - log q(x) over draws of p, for pairs of families that have a formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphc import Tensor, exp, full_like, inf, log, where
from graphc.distributions.composed import Independent, MultivariateNormal, half_log_det, solved
from graphc.distributions.continuous import Cauchy, Exponential, Gumbel, HalfNormal, Laplace, LogNormal, Normal, Uniform
from graphc.distributions.discrete import Bernoulli, Categorical, Geometric, OneHotCategorical, Poisson
from graphc.distributions.distribution import Distribution, sum_rightmost
from graphc.errors import InputError, KindError, UnsupportedError
from graphc.functional import softplus

Formula = Callable[[Any, Any], Tensor]
_EULER = 0.57721566490153286061
_FORMULAS: dict[tuple[type, type], Formula] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Formula], Formula]:
    """A decorator for a function of two distributions, which `kl_divergence` then uses for these classes and those
    made from them. TypeError for what is no distribution.
    """
    for kind in (type_p, type_q):
        if not (isinstance(kind, type) and issubclass(kind, Distribution)):
            raise KindError(f"Expected a Distribution subclass but got {kind}")

    def register(formula: Formula) -> Formula:
        _FORMULAS[type_p, type_q] = formula
        return formula

    return register


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The divergence of each distribution of the batch. NotImplementedError for families without a formula."""
    fitting = [pair for pair in _FORMULAS if isinstance(p, pair[0]) and isinstance(q, pair[1])]
    if not fitting:
        raise UnsupportedError(
            f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}"
        )
    nearest = min(fitting, key=lambda pair: type(p).__mro__.index(pair[0]) + type(q).__mro__.index(pair[1]))
    return _FORMULAS[nearest](p, q)


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    return (ratio + ((p.loc - q.loc) / q.scale) ** 2 - 1 - log(ratio)) / 2


@register_kl(LogNormal, LogNormal)
def _log_normal(p: LogNormal, q: LogNormal) -> Tensor:
    return _normal(p.base_dist, q.base_dist)


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: HalfNormal, q: HalfNormal) -> Tensor:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio, apart = p.scale / q.scale, (p.loc - q.loc).abs()
    return -log(ratio) + apart / q.scale + ratio * exp(-apart / p.scale) - 1


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Cauchy, q: Cauchy) -> Tensor:
    return log((p.scale + q.scale) ** 2 + (p.loc - q.loc) ** 2) - log(4 * p.scale * q.scale)


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Gumbel, q: Gumbel) -> Tensor:
    ratio, apart = p.scale / q.scale, (q.loc - p.loc) / q.scale
    rest = exp(apart + (1 + ratio).lgamma())
    return -log(ratio) - apart + ratio * _EULER + rest - (1 + _EULER)


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - log(ratio)


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Tensor:
    outside = (q.low > p.low) | (q.high < p.high)
    made = log((q.high - q.low) / (p.high - p.low))
    return where(outside, full_like(made, inf), made)


@register_kl(Uniform, Normal)
def _uniform_normal(p: Uniform, q: Normal) -> Tensor:
    width, middle = p.high - p.low, (p.high + p.low) / 2
    squares = (width**2 / 12 + (middle - q.loc) ** 2) / q.scale**2
    return log(q.scale) + math.log(2 * math.pi) / 2 - log(width) + squares / 2


@register_kl(Exponential, Normal)
def _exponential_normal(p: Exponential, q: Normal) -> Tensor:
    mean = 1 / p.rate
    squares = (mean**2 + (mean - q.loc) ** 2) / q.scale**2
    return log(p.rate * q.scale) + math.log(2 * math.pi) / 2 - 1 + squares / 2


@register_kl(Laplace, Normal)
def _laplace_normal(p: Laplace, q: Normal) -> Tensor:
    squares = (2 * p.scale**2 + (p.loc - q.loc) ** 2) / q.scale**2
    return log(q.scale / p.scale) + math.log(math.pi / 2) / 2 - 1 + squares / 2


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    chances = p.probs
    yes = chances * (softplus(-q.logits) - softplus(-p.logits))
    no = (1 - chances) * (softplus(q.logits) - softplus(p.logits))
    yes = where(q.probs == 0, inf, yes)
    yes = where(chances == 0, 0.0, yes)
    no = where(q.probs == 1, inf, no)
    return yes + where(chances == 1, 0.0, no)


@register_kl(Geometric, Geometric)
def _geometric(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(Poisson, Poisson)
def _poisson(p: Poisson, q: Poisson) -> Tensor:
    return p.rate * (log(p.rate) - log(q.rate)) - (p.rate - q.rate)


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    each = p.probs * (p.logits - q.logits)
    each = where(q.probs == 0, inf, each)
    return where(p.probs == 0, 0.0, each).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _categorical(p._categorical, q._categorical)


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_normal(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    if p.event_shape != q.event_shape:
        raise InputError(
            "KL-divergence between two Multivariate Normals with different event shapes cannot be computed"
        )
    factor, own = q.scale_tril, p.scale_tril
    spread = (solved(factor, own) ** 2).sum((-2, -1))
    apart = (solved(factor, (q.loc - p.loc).unsqueeze(-1)) ** 2).sum((-2, -1))
    return half_log_det(factor) - half_log_det(own) + (spread + apart - p.event_shape[0]) / 2


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise UnsupportedError("KL of two Independent with different reinterpreted_batch_ndims")
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)
