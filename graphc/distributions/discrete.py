"""Distributions of whole numbers and of one-hot vectors."""

from __future__ import annotations

from typing import Any, ClassVar

from graphc import (
    Tensor,
    arange,
    bernoulli,
    broadcast_shapes,
    finfo,
    full_like,
    log1p,
    logsumexp,
    multinomial,
    nan,
    poisson,
    where,
    xlogy,
)
from graphc import rand as uniform
from graphc.distributions import constraints
from graphc.distributions.constraints import Constraint
from graphc.distributions.distribution import Constraints, Distribution, Shape, broadcast_all, derived
from graphc.errors import InputError
from graphc.functional import binary_cross_entropy_with_logits, one_hot, softmax
from graphc.recorder import check


def _one_of(probs: Any, logits: Any) -> None:
    if (probs is None) == (logits is None):
        raise InputError("Either `probs` or `logits` must be specified, but not both.")


def _inside(probs: Tensor) -> Tensor:
    """Chances away from 0 and 1, so that their logarithms are finite."""
    tiny = finfo(probs.dtype).eps
    return probs.clamp(min=tiny, max=1 - tiny)


class _Binary(Distribution):
    """Base of distributions that one chance for each says all about, as `probs` or as `logits` = log(p / (1 - p))."""

    arg_constraints: ClassVar[Constraints] = {"probs": constraints.unit_interval, "logits": constraints.real}

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        _one_of(probs, logits)
        (given,) = broadcast_all(logits if probs is None else probs)
        vars(self)["logits" if probs is None else "probs"] = given
        super().__init__(given.shape, validate_args=validate_args)

    @derived
    def probs(self) -> Tensor:
        """The chances."""
        return self.logits.sigmoid()

    @derived
    def logits(self) -> Tensor:
        """log(p / (1 - p))."""
        chances = _inside(self.probs)
        return chances.log() - log1p(-chances)

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return self._batch_shape


class Bernoulli(_Binary):
    """1 with the chance `probs`, else 0."""

    has_enumerate_support = True

    @property
    def support(self) -> Constraint:
        return constraints.boolean

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        chances = self.probs
        likelier = (chances >= 0.5).to(chances.dtype)
        return where(chances == 0.5, full_like(chances, nan), likelier)

    @property
    def variance(self) -> Tensor:
        chances = self.probs
        return chances * (1 - chances)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return bernoulli(self.probs.detach().expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return -binary_cross_entropy_with_logits(logits, value, reduction="none")

    def entropy(self) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        chances = self.probs
        values = arange(2, dtype=chances.dtype, device=chances.device).view(2, *[1] * len(self._batch_shape))
        return values.expand(2, *self._batch_shape) if expand else values


class Geometric(_Binary):
    """How many failures come before the first success, which has the chance `probs` (above 0) at each trial."""

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        super().__init__(probs, logits, validate_args)
        if self._validate_args and probs is not None:
            check(
                self.probs.detach() > 0, InputError("Expected parameter probs of distribution Geometric to be positive")
            )

    @property
    def support(self) -> Constraint:
        return constraints.nonnegative_integer

    @property
    def mean(self) -> Tensor:
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        return full_like(self.probs, 0.0)

    @property
    def variance(self) -> Tensor:
        chances = self.probs
        return (1.0 / chances - 1.0) / chances

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        chances = self.probs.detach()
        drawn = uniform(self._extended_shape(sample_shape), dtype=chances.dtype, device=chances.device)
        return (drawn.clamp(min=finfo(chances.dtype).tiny).log() / log1p(-chances)).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        chances, value = broadcast_all(self.probs, value)
        failing = where((chances == 1) & (value == 0), 0.0, chances)  # 0 · log(0) is 0
        return value * log1p(-failing) + chances.log()

    def entropy(self) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs


class Poisson(Distribution):
    """How many events happen that come independently, `rate` on average."""

    arg_constraints: ClassVar[Constraints] = {"rate": constraints.nonnegative}

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def support(self) -> Constraint:
        return constraints.nonnegative_integer

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def mode(self) -> Tensor:
        return self.rate.floor()

    @property
    def variance(self) -> Tensor:
        return self.rate

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return poisson(self.rate.detach().expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        rate, value = broadcast_all(self.rate, value)
        return xlogy(value, rate) - rate - (value + 1).lgamma()


class Categorical(Distribution):
    """One of the numbers from 0 on, with chances along the last dimension of the parameter: `probs`, which are divided
    by their sum, or `logits`, their logarithms up to a summand.
    """

    arg_constraints: ClassVar[Constraints] = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        _one_of(probs, logits)
        if probs is not None:
            if probs.dim() < 1:
                raise InputError("`probs` parameter must be at least one-dimensional.")
            vars(self)["probs"] = probs / probs.sum(-1, keepdim=True)
        elif logits is not None:
            if logits.dim() < 1:
                raise InputError("`logits` parameter must be at least one-dimensional.")
            vars(self)["logits"] = logits - logsumexp(logits, -1, keepdim=True)
        super().__init__(self.param_shape[:-1], validate_args=validate_args)

    @derived
    def probs(self) -> Tensor:
        """The chances."""
        return softmax(self.logits, -1)

    @derived
    def logits(self) -> Tensor:
        """Their logarithms."""
        return _inside(self.probs).log()

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return next(value for name, value in vars(self).items() if name in self.arg_constraints).shape

    @property
    def _num_events(self) -> int:
        return self.param_shape[-1]

    @property
    def support(self) -> Constraint:
        return constraints.integer_interval(0, self._num_events - 1)

    @property
    def mean(self) -> Tensor:
        return full_like(self.probs[..., 0], nan)

    @property
    def mode(self) -> Tensor:
        return self.probs.argmax(-1)

    @property
    def variance(self) -> Tensor:
        return full_like(self.probs[..., 0], nan)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        count = 1
        for size in sample_shape:
            count *= size
        rows = self.probs.detach().reshape(-1, self._num_events)
        return multinomial(rows, count, True).T.reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits = self.logits
        places = value.long().unsqueeze(-1)
        shape = broadcast_shapes(places.shape[:-1], logits.shape[:-1])
        picked = logits.expand(*shape, self._num_events).gather(-1, places.expand(*shape, 1))
        return picked.squeeze(-1)

    def entropy(self) -> Tensor:
        logits = self.logits.clamp(min=finfo(self.logits.dtype).min)
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        count, batch = self._num_events, self._batch_shape
        values = arange(count, device=self.probs.device).view(count, *[1] * len(batch))
        return values.expand(count, *batch) if expand else values


class OneHotCategorical(Distribution):
    """`Categorical`, whose draws are vectors with a 1 at the number that was drawn."""

    arg_constraints: ClassVar[Constraints] = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self._categorical = Categorical(probs, logits)
        super().__init__(self._categorical.batch_shape, self.param_shape[-1:], validate_args=validate_args)

    @property
    def probs(self) -> Tensor:
        """The chances."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return self._categorical.param_shape

    @property
    def support(self) -> Constraint:
        return constraints.one_hot

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return one_hot(self._categorical.mode, self.param_shape[-1]).to(self.probs.dtype)

    @property
    def variance(self) -> Tensor:
        chances = self.probs
        return chances * (1 - chances)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> OneHotCategorical:
        made = type(self).__new__(type(self)) if _instance is None else _instance
        made._categorical = self._categorical.expand(batch_shape)
        Distribution.__init__(made, batch_shape, self._event_shape, validate_args=False)
        made._validate_args = self._validate_args
        return made

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return one_hot(self._categorical.sample(sample_shape), self.param_shape[-1]).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._categorical.log_prob(value.argmax(-1))

    def entropy(self) -> Tensor:
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        count = self.param_shape[-1]
        values = one_hot(arange(count, device=self.probs.device), count).to(self.probs.dtype)
        values = values.view(count, *[1] * len(self._batch_shape), count)
        return values.expand(count, *self._batch_shape, count) if expand else values
