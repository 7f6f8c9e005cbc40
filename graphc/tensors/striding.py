"""Views by windows and by strides given as such: they may show an element several times."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graphc.errors import UnsupportedError, UsageError
from graphc.storage import Lineage
from graphc.tensors.core import new, wrap_dim
from graphc.tensors.learning import repeatable
from graphc.tensors.retyping import flat_chain
from graphc.tensors.viewing import chained, ints, slice_view, unsqueeze, view
from graphc.tensors.views import Chain, ViewStep, is_contiguous

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


@repeatable
def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of `size` elements, `step` apart, along a dimension; the places in the window come last. A view."""
    at, rank = wrap_dim(dimension, input.ndim), input.ndim
    source = input if rank else unsqueeze(input, 0)
    shape, strides = source._type.shape, source._strides
    if size < 0:
        raise UsageError(f"size is {size} but must be >= 0")
    if size > shape[at]:
        raise UsageError(f"maximum size for tensor at dimension {at} is {shape[at]} but size is {size}")
    if step <= 0:
        raise UsageError(f"step is {step} but must be > 0")
    if not rank:
        return slice_view(source, 0, 0, size, 1, "UnfoldBackward0")
    count = (shape[at] - size) // step + 1
    target = (*shape[:at], count, *shape[at + 1 :], size)
    new_strides = (*strides[:at], strides[at] * step, *strides[at + 1 :], strides[at])
    kind = ViewStep("window", shape, (at,), (size,), (step,))
    if not size:
        # Nothing is seen; a window of no elements is none to the compiler.
        kind = ViewStep("slice", shape, (0,) * rank, (*shape[:at], 0, *shape[at + 1 :]), (1,) * rank)
        empty = ViewStep("reshape", kind.b, target, name="UnfoldBackward0")
        return chained(
            source,
            (*source._chain, kind, empty),
            source._type.with_shape(target),
            new_strides,
            source._offset,
            source._lineage,
        )
    return view(source, kind, target, new_strides, source._offset, "UnfoldBackward0")


@repeatable
def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """Any shape, strides and offset over the whole memory behind `input`; a view."""
    shape, strides = ints((size,)), ints((stride,))
    offset = input._offset if storage_offset is None else storage_offset
    if len(shape) != len(strides):
        raise UsageError("mismatch in length of strides and shape")
    if any(s < 0 for s in strides):
        raise UsageError(f"as_strided: Negative strides are not supported at the moment, got strides: {list(strides)}")
    if any(n < 0 for n in shape):
        raise UsageError(f"Trying to create tensor with negative dimension {min(shape)}: {list(shape)}")
    if offset < 0:
        raise UsageError(f"Tensor: invalid storage offset {offset}")
    itemsize, held = input._type.dtype.itemsize, input._storage.type
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 not in shape and last >= held.nbytes // itemsize:
        raise UsageError(
            f"setStorage: sizes {list(shape)}, strides {list(strides)}, storage offset {offset}, and itemsize "
            f"{itemsize} requiring a storage size of {(last + 1) * itemsize} are out of bounds for storage of size "
            f"{held.nbytes}"
        )
    lineage, kept = input._lineage, input._chain[: input._lineage.depth]
    plain = lineage.hist is None and (not lineage.requires_grad or lineage.owner is None)  # no gradient goes through
    if kept and not plain and (len(kept) < len(input._chain) or not is_contiguous(input._type.shape, input._strides)):
        raise UnsupportedError("as_strided(): a detached view that requires gradients must be contiguous")
    if plain and lineage.depth:
        input, kept = _detached(input, 0 if 0 in shape else offset, 0 if 0 in shape else last)
        lineage = input._lineage
    start, count = (input._offset, input._type.size) if kept else (0, held.nbytes // itemsize)
    if 0 not in shape and (offset < start or last >= start + count):
        raise UnsupportedError("as_strided(): memory outside of a detached view that requires gradients")
    flat = [ViewStep("reshape", input._type.shape, (count,))] if kept else flat_chain(held, input._type.dtype)[0]
    steps = [ViewStep("strided", (count,), shape, strides, (offset - start,), name="AsStridedBackward0")]
    if is_contiguous(shape, strides):
        wanted = math.prod(shape)
        cut = ViewStep("slice", (count,), (offset - start if wanted else 0,), (wanted,), (1,))
        steps = [cut, ViewStep("reshape", cut.b, shape, name="AsStridedBackward0")]
    chain = (*kept, *flat, *steps)
    return chained(input, chain, input._type.with_shape(shape), strides, offset, lineage)


def _detached(input: Tensor, first: int, last: int) -> tuple[Tensor, Chain]:
    """The detached tensor without gradients that `input` is, or is a view of, and its steps, when its memory is in one
    piece and holds the elements from `first` to `last`; else one detached from the whole memory, and its steps.
    """
    base = input if input._root is None else input._root
    held = is_contiguous(base._type.shape, base._strides) and base._lineage is input._lineage
    if held and base._offset <= first and last < base._offset + base._type.size:
        return base, base._chain
    storage, dtype = input._storage, input._type.dtype
    type, chain = storage.type, ()
    if dtype is not type.dtype:
        chain, count = flat_chain(type, dtype)
        type = type.with_dtype(dtype).with_shape((count,))
    whole = new(storage, type, Lineage(len(chain), None, input._lineage.requires_grad, storage.version), chain)
    whole._counter = input._counter
    return whole, chain
