"""Methods of tensors: many elements into one, scans and normalisation along dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.tensors import normalising, reductions
from graphc.tensors.core import TensorBase

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


class ReductionMethods(TensorBase):
    """Many elements into one, scans and normalisation along dimensions."""

    __slots__ = ()

    sum, mean, prod, max, min = (
        reductions.sum,
        reductions.mean,
        reductions.prod,
        reductions.max,
        reductions.min,
    )
    amax, amin, argmax, argmin = reductions.amax, reductions.amin, reductions.argmax, reductions.argmin
    var, std, any, all, norm = (
        reductions.var,
        reductions.std,
        reductions.any_,
        reductions.all_,
        reductions.norm,
    )
    logsumexp, cumsum = reductions.logsumexp, reductions.cumsum

    def softmax(self: Any, dim: Any, dtype: Any = None) -> Tensor:
        """exp(x) over its sum along `dim`."""
        return normalising.softmax(self, dim, dtype=dtype)

    def log_softmax(self: Any, dim: Any, dtype: Any = None) -> Tensor:
        """Logarithm of `softmax`."""
        return normalising.log_softmax(self, dim, dtype=dtype)
