"""Views of memory as elements of another dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.errors import ShapeError
from graphc.ir.types import DType, TensorType
from graphc.storage import Lineage, Storage
from graphc.tensors.core import TensorBase, alias, new
from graphc.tensors.views import Chain, Ints, ViewStep
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _bits(source: TensorType, dtype: DType, shape: Ints) -> ViewStep:
    return ViewStep("bits", source.shape, shape, types=(source.dtype, dtype))


def view_dtype(input: TensorBase, dtype: DType) -> Tensor:
    """The same memory as elements of `dtype`, without the gradient side, as in PyTorch.

    With another size of elements the last dimension must have stride 1 and hold whole elements, and so must all
    strides and the offset: ShapeError else.
    """
    type, chain = input._type, input._chain
    if dtype is type.dtype:
        return alias(input)
    shape, strides, offset = _laid_out(input, dtype)
    chain, type = _as_before(chain, type)
    if dtype is not type.dtype:
        chain = (*chain, _bits(type, dtype, shape))
    lineage = Lineage(len(chain), None, False, input._storage.version)
    made = new(input._storage, TensorType(dtype, shape, type.device), lineage, chain, strides, offset)
    made._counter = input._counter
    return made


def _as_before(chain: Chain, type: TensorType) -> tuple[Chain, TensorType]:
    """`chain`, which ends with a tensor of `type`, without its last look at the bits as another dtype, if it can be
    left out: so no byte of a bool is lost between two such looks.
    """
    for place in reversed(range(len(chain))):
        types = chain[place].types
        if types is None:
            continue
        if types[0].bits == types[1].bits:
            return (*chain[:place], *chain[place + 1 :]), type.with_dtype(types[0])
        if place == len(chain) - 1:
            return chain[:-1], TensorType(types[0], chain[-1].source, type.device)
        break
    return chain, type


def _laid_out(input: TensorBase, dtype: DType) -> tuple[Ints, Ints, int]:
    """Shape, strides and offset of the memory of `input` as elements of `dtype`."""
    shape, strides, offset = input._type.shape, input._strides, input._offset
    old, size = input._type.dtype.itemsize, dtype.itemsize
    if old == size:
        return shape, strides, offset
    how = f"to view {type_name(input._type.dtype)} as {type_name(dtype)} (different element sizes)"
    if not shape:
        raise ShapeError(f"self.dim() cannot be 0 {how}")
    if strides[-1] != 1:
        raise ShapeError(f"self.stride(-1) must be 1 {how}, but got {strides[-1]}")
    if old > size:
        parts = old // size
        return (*shape[:-1], shape[-1] * parts), (*(s * parts for s in strides[:-1]), 1), offset * parts
    parts = size // old
    outer = [(f"stride({i})", stride) for i, stride in enumerate(strides[:-1])]
    for what, count in (("size(-1)", shape[-1]), ("storage_offset()", offset), *outer):
        if count % parts:
            raise ShapeError(f"self.{what} must be divisible by {parts} {how}, but got {count}")
    return (*shape[:-1], shape[-1] // parts), (*(s // parts for s in strides[:-1]), 1), offset // parts


def flat_chain(held: TensorType, dtype: DType) -> tuple[Chain, int]:
    """The steps that show memory of type `held` as a vector of `dtype`, and its length: all whole elements."""
    steps = [ViewStep("reshape", held.shape, (held.size,))]
    if dtype is held.dtype:
        return tuple(steps), held.size
    count = held.nbytes // dtype.itemsize
    used = count * dtype.itemsize // held.dtype.itemsize
    if used < held.size:
        steps.append(ViewStep("slice", (held.size,), (0,), (used,), (1,)))
    steps.append(_bits(TensorType(held.dtype, (used,), held.device), dtype, (count,)))
    return tuple(steps), count


def memory_as(storage: Storage, dtype: DType) -> Tensor:
    """All whole elements of `dtype` in a memory, as a vector."""
    chain, count = flat_chain(storage.type, dtype)
    return new(storage, TensorType(dtype, (count,), storage.type.device), Lineage(len(chain)), chain)
