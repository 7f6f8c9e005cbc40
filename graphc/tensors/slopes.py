"""`gradient`: derivatives of sampled functions by differences of second order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import UsageError
from graphc.tensors.core import TensorBase
from graphc.tensors.joining import cat
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.operands import is_number
from graphc.tensors.reductions import axes_of, whole
from graphc.tensors.shaping import reshape, slice_view
from graphc.tensors.widening import in_single

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


@kinds_checked
@in_single
def gradient(input: Tensor, *, spacing: Any = None, dim: Any = None, edge_order: int = 1) -> list[Tensor]:
    """Derivatives along each of `dim` (all by default): central differences inside, one-sided ones at the edges.

    `spacing` is a distance, or for each dimension a distance or a vector of places; `edge_order` is 1 or 2.
    """
    axes = [axes_of(d, input.ndim, "gradient")[0] for d in _dims(input, dim)]
    axes_of(axes, input.ndim, "gradient")  # refuses repeated ones
    if edge_order not in (1, 2):
        raise UsageError("torch.gradient only supports edge_order=1 and edge_order=2.")
    if isinstance(spacing, Sequence):
        gaps = list(spacing)
        if len(gaps) != len(axes):
            raise UsageError(
                "torch.gradient expected spacing to be unspecified, a scalar or it's spacing and dim arguments to have "
                f"the same length, but got a spacing argument of length {len(gaps)} and a dim argument of length "
                f"{len(axes)}."
            )
    else:
        gaps = [1 if spacing is None else spacing] * len(axes)
    if any(input._type.shape[axis] < edge_order + 1 for axis in axes):
        raise UsageError("torch.gradient expected each dimension size to be at least edge_order+1")
    return [_along(input, axis, gap, edge_order) for axis, gap in zip(axes, gaps, strict=True)]


def _dims(input: Tensor, dim: Any) -> list[int]:
    if dim is None:
        return list(range(input.ndim))
    return [whole(d, "gradient") for d in (dim if isinstance(dim, Sequence) else (dim,))]


def _along(f: Any, axis: int, gap: Any, edge_order: int) -> Tensor:
    n = f._type.shape[axis]

    def part(start: int, count: int) -> Any:
        return slice_view(f, axis, start, count, 1)

    if is_number(gap) or gap.ndim == 0:
        inside = (part(2, n - 2) - part(0, n - 2)) / (gap * 2)
        if edge_order == 1:
            first, last = (part(1, 1) - part(0, 1)) / gap, (part(n - 1, 1) - part(n - 2, 1)) / gap
        else:
            first = (-1.5 * part(0, 1) + 2 * part(1, 1) - 0.5 * part(2, 1)) / gap
            last = (1.5 * part(n - 1, 1) - 2 * part(n - 2, 1) + 0.5 * part(n - 3, 1)) / gap
        return cat([first, inside, last], axis)
    if not isinstance(gap, TensorBase) or gap._type.shape != (n,):
        raise UsageError(
            f"torch.gradient expected a vector of {n} places for dimension {axis}, but got spacing of shape "
            f"{list(gap._type.shape)}"
        )
    places: Any = gap
    steps = places[1:] - places[:-1]

    def step(start: int, count: int) -> Any:
        return reshape(steps[start : start + count], *(count if i == axis else 1 for i in range(f.ndim)))

    before, after = step(0, n - 2), step(1, n - 2)
    inside = (
        before * before * part(2, n - 2)
        + (after * after - before * before) * part(1, n - 2)
        - after * after * part(0, n - 2)
    ) / (before * after * (before + after))
    if edge_order == 1:
        first = (part(1, 1) - part(0, 1)) / step(0, 1)
        last = (part(n - 1, 1) - part(n - 2, 1)) / step(n - 2, 1)
    else:
        first = _edge(step(0, 1), step(1, 1), part(0, 1), part(1, 1), part(2, 1))
        last = -_edge(step(n - 2, 1), step(n - 3, 1), part(n - 1, 1), part(n - 2, 1), part(n - 3, 1))
    return cat([first, inside, last], axis)


def _edge(near: Any, far: Any, f0: Any, f1: Any, f2: Any) -> Any:
    """The slope of the parabola through three points at the first of them."""
    both = near + far
    return -(near + both) / (near * both) * f0 + both / (near * far) * f1 - near / (far * both) * f2
