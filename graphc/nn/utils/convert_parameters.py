"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from graphc import Tensor, cat
from graphc.errors import KindError


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, one after the other."""
    return cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Lets the parameters hold the parts of a vector, one after the other."""
    if not isinstance(vec, Tensor):
        raise KindError(f"expected torch.Tensor, but got: {type(vec).__name__}")
    start = 0
    for parameter in parameters:
        part = vec[start : start + parameter.numel()]
        parameter.data = part.reshape(parameter.shape).data
        start += parameter.numel()
