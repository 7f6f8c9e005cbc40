"""Distribution: what all distributions share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, overload

from graphc import Size, Tensor, broadcast_tensors, get_default_dtype, no_grad, tensor
from graphc.distributions import constraints
from graphc.distributions.constraints import Constraint
from graphc.errors import InputError, UnsupportedError
from graphc.recorder import check

Shape = Sequence[int]
Constraints = Mapping[str, Constraint]


class Distribution:
    """Base of distributions: a batch of `batch_shape` of independent ones, each over events of `event_shape`.

    Parameters stand in attributes that `arg_constraints` names. They and the values given to `log_prob` and the like
    are checked unless `validate_args` is False: ValueError, when somebody looks at a result.
    """

    has_rsample = False
    has_enumerate_support = False
    arg_constraints: ClassVar[Constraints] = {}
    _validate_args = __debug__

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions made from now on check their parameters and values."""
        Distribution._validate_args = bool(value)

    def __init__(self, batch_shape: Shape = (), event_shape: Shape = (), validate_args: bool | None = None) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if not self._validate_args:
            return
        for name, constraint in self.arg_constraints.items():
            value = vars(self).get(name)
            if value is None or constraints.is_dependent(constraint):
                continue
            _need(
                constraint,
                value,
                f"Expected parameter {name} (Tensor of shape {tuple(value.shape)}) of distribution "
                f"{type(self).__name__} to satisfy the constraint {constraint!r}, but found invalid values",
            )

    @property
    def batch_shape(self) -> Size:
        """The shape of the batch of distributions."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one draw of one distribution."""
        return self._event_shape

    @property
    def support(self) -> Constraint:
        """The set of values that can be drawn."""
        raise _lacks(self, "support")

    @property
    def mean(self) -> Tensor:
        """The mean of each distribution."""
        raise _lacks(self, "mean")

    @property
    def mode(self) -> Tensor:
        """The likeliest value of each distribution."""
        raise _lacks(self, "mode")

    @property
    def variance(self) -> Tensor:
        """The variance of each distribution."""
        raise _lacks(self, "variance")

    @property
    def stddev(self) -> Tensor:
        """The root of the variance."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws of shape `sample_shape + batch_shape + event_shape`, without gradients."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws as functions of the parameters, so that gradients flow; where `has_rsample`."""
        raise _lacks(self, "rsample")

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, or of the probability, at `value`."""
        raise _lacks(self, "log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of what is not above `value`."""
        raise _lacks(self, "cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose `cdf` is `value`."""
        raise _lacks(self, "icdf")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values along a new first dimension, where `has_enumerate_support`; with `expand`, for each distribution
        of the batch."""
        raise _lacks(self, "enumerate_support")

    def entropy(self) -> Tensor:
        """The entropy of each distribution, in nats."""
        raise _lacks(self, "entropy")

    def perplexity(self) -> Tensor:
        """exp(entropy)."""
        return self.entropy().exp()

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Self:
        """The same distribution for a batch of another shape, to which the parameters are expanded."""
        made = type(self).__new__(type(self)) if _instance is None else _instance
        own = len(self._batch_shape)
        for name in self.arg_constraints:
            value = vars(self).get(name)
            if value is not None:
                vars(made)[name] = value.expand((*batch_shape, *value.shape[own:]))
        Distribution.__init__(made, batch_shape, self._event_shape, validate_args=False)
        made._validate_args = self._validate_args
        return made

    def _extended_shape(self, sample_shape: Shape = ()) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def _validate_sample(self, value: Tensor) -> None:
        """ValueError for a value of another shape than that of draws, or, when looked at, outside of the support."""
        if not isinstance(value, Tensor):
            raise InputError("The value argument to log_prob must be a Tensor")
        start = value.dim() - len(self._event_shape)
        if tuple(value.shape[max(start, 0) :]) != tuple(self._event_shape):
            raise InputError(
                f"The right-most size of value must match event_shape: {value.shape} vs {self._event_shape}."
            )
        wanted = self._extended_shape()
        for have, want in zip(reversed(value.shape), reversed(wanted), strict=False):
            if 1 not in (have, want) and have != want:
                raise InputError(f"Value is not broadcastable with batch_shape+event_shape: {value.shape} vs {wanted}.")
        support = self.support
        _need(
            support,
            value,
            f"Expected value argument (Tensor of shape {tuple(value.shape)}) to be within the support ({support!r}) of "
            f"the distribution {type(self).__name__}, but found invalid values",
        )

    def __repr__(self) -> str:
        own = {name: vars(self)[name] for name in self.arg_constraints if name in vars(self)}
        given = ", ".join(f"{name}: {v if v.numel() == 1 else v.size()}" for name, v in own.items())
        return f"{type(self).__name__}({given})"


def _lacks(owner: Distribution, name: str) -> UnsupportedError:
    return UnsupportedError(f"{type(owner).__name__} does not implement {name}")


def _need(constraint: Constraint, value: Tensor, message: str) -> None:
    with no_grad():
        check(constraint.check(value.detach()), InputError(message))


class derived:  # it is used like `property`
    """A parameter that follows from the other one, unless it was given: computed whenever it is asked for."""

    def __init__(self, compute: Callable[[Any], Tensor]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> derived: ...
    @overload
    def __get__(self, owner: Any, kind: type) -> Tensor: ...
    def __get__(self, owner: Any, kind: type) -> derived | Tensor:
        return self if owner is None else self._compute(owner)


def broadcast_all(*values: Any) -> list[Tensor]:
    """Tensors and numbers as tensors of one shape. Numbers take the dtype and the device of the first tensor; without
    one, the default dtype.
    """
    first = next((value for value in values if isinstance(value, Tensor)), None)
    if not all(isinstance(value, Tensor | int | float) for value in values):
        raise InputError("parameters of distributions are numbers or tensors")
    dtype, device = (get_default_dtype(), None) if first is None else (first.dtype, first.device)
    tensors = [v if isinstance(v, Tensor) else tensor(v, dtype=dtype, device=device) for v in values]
    return list(broadcast_tensors(*tensors))


def sum_rightmost(value: Tensor, count: int) -> Tensor:
    """The sums over the last `count` dimensions."""
    return value.flatten(-count).sum(-1) if count else value
