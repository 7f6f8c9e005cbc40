"""Distributions made of others, and the normal distribution of vectors."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from graphc import Size, Tensor, broadcast_shapes, diagonal, linalg, log_softmax, logsumexp, randn
from graphc.distributions import constraints
from graphc.distributions.constraints import Constraint
from graphc.distributions.discrete import Categorical
from graphc.distributions.distribution import Constraints, Distribution, Shape, derived, sum_rightmost
from graphc.errors import InputError


class Independent(Distribution):
    """A distribution whose last `reinterpreted_batch_ndims` batch dimensions are dimensions of one event: their
    logarithms of probabilities are added.
    """

    def __init__(
        self, base_distribution: Distribution, reinterpreted_batch_ndims: int, validate_args: bool | None = None
    ) -> None:
        batch, count = base_distribution.batch_shape, reinterpreted_batch_ndims
        if count > len(batch):
            raise InputError(
                "Expected reinterpreted_batch_ndims <= len(base_distribution.batch_shape), actual "
                f"{count} vs {len(batch)}"
            )
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, count
        self.has_rsample = base_distribution.has_rsample
        own = len(batch) - count
        super().__init__(batch[:own], (*batch[own:], *base_distribution.event_shape), validate_args=validate_args)

    @property
    def support(self) -> Constraint:
        base, count = self.base_dist.support, self.reinterpreted_batch_ndims
        return constraints.independent(base, count) if count else base

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def mode(self) -> Tensor:
        return self.base_dist.mode

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Independent:
        own = self._event_shape[: self.reinterpreted_batch_ndims]
        base = self.base_dist.expand((*batch_shape, *own))
        return type(self)(base, self.reinterpreted_batch_ndims, validate_args=self._validate_args)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_rightmost(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> Tensor:
        return sum_rightmost(self.base_dist.entropy(), self.reinterpreted_batch_ndims)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist!r}, {self.reinterpreted_batch_ndims})"


class MixtureSameFamily(Distribution):
    """Draws from one of the components, which the last batch dimension of `component_distribution` numbers, with the
    chances of the `Categorical` `mixture_distribution`.
    """

    def __init__(
        self,
        mixture_distribution: Categorical,
        component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(mixture_distribution, Categorical):
            raise InputError("The Mixture distribution needs to be an instance of graphc.distributions.Categorical")
        components = component_distribution.batch_shape
        count = mixture_distribution.param_shape[-1]
        if not components or components[-1] != count:
            raise InputError(
                f"the mixture distribution has {count} components, the component distribution a batch of "
                f"{list(components)}"
            )
        broadcast_shapes(mixture_distribution.batch_shape, components[:-1])
        self.mixture_distribution, self.component_distribution = mixture_distribution, component_distribution
        super().__init__(components[:-1], component_distribution.event_shape, validate_args=validate_args)

    @property
    def support(self) -> Constraint:
        return self.component_distribution.support

    @property
    def mean(self) -> Tensor:
        return self._mixed(self.component_distribution.mean)

    @property
    def variance(self) -> Tensor:
        apart = self.component_distribution.mean - self._padded(self.mean)
        return self._mixed(self.component_distribution.variance + apart**2)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> MixtureSameFamily:
        count = self.component_distribution.batch_shape[-1]
        components = self.component_distribution.expand((*batch_shape, count))
        return type(self)(self.mixture_distribution.expand(batch_shape), components, validate_args=self._validate_args)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        drawn = self.component_distribution.sample(sample_shape)
        place = self.mixture_distribution.expand(self._batch_shape).sample(sample_shape)
        axis = len(sample_shape) + len(self._batch_shape)
        chosen = place.reshape(*place.shape, *[1] * (1 + len(self._event_shape)))
        chosen = chosen.expand(*place.shape, 1, *self._event_shape)
        return drawn.gather(axis, chosen).squeeze(axis)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        each = self.component_distribution.log_prob(self._padded(value))
        return logsumexp(each + log_softmax(self.mixture_distribution.logits, -1), -1)

    def cdf(self, value: Tensor) -> Tensor:
        each = self.component_distribution.cdf(self._padded(value))
        return (each * self.mixture_distribution.probs).sum(-1)

    def _padded(self, value: Tensor) -> Tensor:
        return value.unsqueeze(-1 - len(self._event_shape))

    def _mixed(self, values: Tensor) -> Tensor:
        chances = self.mixture_distribution.probs
        shaped = chances.reshape(*chances.shape, *[1] * len(self._event_shape))
        return (shaped * values).sum(-1 - len(self._event_shape))

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self.mixture_distribution},\n  {self.component_distribution})"


class MultivariateNormal(Distribution):
    """The normal distribution of vectors around `loc`, by its covariance, the inverse of it, or its lower Cholesky
    factor `scale_tril`, which is what all is computed from.
    """

    arg_constraints: ClassVar[Constraints] = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if loc.dim() < 1:
            raise InputError("loc must be at least one-dimensional.")
        given = {
            "covariance_matrix": covariance_matrix,
            "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }
        found = {name: matrix for name, matrix in given.items() if matrix is not None}
        if len(found) != 1:
            raise InputError("Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified.")
        ((name, matrix),) = found.items()
        if matrix.dim() < 2:
            raise InputError(f"{name} must be at least two-dimensional, with optional leading batch dimensions")
        batch = broadcast_shapes(matrix.shape[:-2], loc.shape[:-1])
        vars(self)[name] = matrix.expand((*batch, -1, -1))
        self.loc = loc.expand((*batch, -1))
        super().__init__(batch, self.loc.shape[-1:], validate_args=validate_args)

    @derived
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return linalg.cholesky(self.covariance_matrix)

    @derived
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        if "precision_matrix" in vars(self):
            return linalg.inv(self.precision_matrix)
        return self.scale_tril @ self.scale_tril.mT

    @derived
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        return linalg.inv(self.covariance_matrix)

    @property
    def support(self) -> Constraint:
        return constraints.real_vector

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (self.scale_tril**2).sum(-1)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        shape: Size = self._extended_shape(sample_shape)
        drawn = randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.scale_tril @ drawn.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        factor = self.scale_tril
        squares = (solved(factor, (value - self.loc).unsqueeze(-1)) ** 2).sum((-2, -1))
        return -(self._event_shape[0] * math.log(2 * math.pi) + squares) / 2 - half_log_det(factor)

    def entropy(self) -> Tensor:
        return self._event_shape[0] * (1 + math.log(2 * math.pi)) / 2 + half_log_det(self.scale_tril)


def solved(factor: Tensor, right: Tensor) -> Tensor:
    """x with factor @ x = right, for lower triangular factors."""
    return linalg.solve_triangular(factor, right, upper=False)


def half_log_det(factor: Tensor) -> Tensor:
    """The logarithm of the determinant of a lower triangular matrix with a positive diagonal."""
    return diagonal(factor, dim1=-2, dim2=-1).log().sum(-1)
