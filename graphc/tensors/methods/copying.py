"""Methods of tensors: copies by `copy` and `pickle`, other memory in place, elements by Python functions."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.devices import use_device
from graphc.errors import DTypeError, KindError, ShapeError, UsageError
from graphc.storage import Lineage, Storage
from graphc.tensors import creation, joining, shaping, striding
from graphc.tensors.arguments import placed, tensor_argument
from graphc.tensors.core import TensorBase, from_array, new
from graphc.tensors.literals import from_data
from graphc.tensors.retyping import memory_as
from graphc.tensors.views import contiguous_strides
from graphc.tensors.writing import c_name, write
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


class Memory:
    """The memory of a tensor for `pickle`: one object for each storage, so that what shares memory shares it again."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def __reduce__(self) -> tuple[Any, ...]:
        type = self.storage.type
        place = () if type.device == "cpu" else (type.device,)
        data = np.array(self.storage.array()).reshape(-1).view(np.uint8)
        return _memory_of, (data, type.dtype.torch_name, type.shape, *place)


_held: weakref.WeakValueDictionary[int, Memory] = weakref.WeakValueDictionary()


def _memory(storage: Storage) -> Memory:
    found = _held.get(id(storage))
    if found is None or found.storage is not storage:
        found = _held[id(storage)] = Memory(storage)
    return found


def _memory_of(data: np.ndarray, dtype: str, shape: tuple[int, ...], device: str = "cpu") -> Memory:
    found = dtypes.dtype_named(dtype).ir
    return Memory(from_array(data.view(found.numpy).reshape(shape), found, use_device(device))._storage)


def rebuild(
    cls: Any,
    memory: Memory,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    requires_grad: bool,
    dtype: str = "",
) -> Any:
    """A leaf of class `cls` over memory that was stored, of elements of `dtype` if they are others than was written."""
    base = new(memory.storage, memory.storage.type, Lineage())
    if dtype:
        base = memory_as(memory.storage, dtypes.dtype_named(dtype).ir)
    whole = shape == base._type.shape and strides == base._strides and not offset
    return cls._make_subclass(base if whole else striding.as_strided(base, shape, strides, offset), requires_grad)


def extent_of(shape: tuple[int, ...], given: tuple[Any, ...]) -> tuple[int, ...]:
    """The shape that `resize_` is given."""
    found = shaping.ints(given)
    if any(n < 0 for n in found):
        raise ShapeError(f"numel: integer multiplication overflow: cannot resize {list(shape)} to {list(found)}")
    return found


def _listed(values: list[Any], like: Tensor) -> Tensor:
    """Python numbers as a vector of the dtype of `like`, beside it."""
    return placed(like._type.device, from_data, values, like._type.dtype)


class CopyingMethods(TensorBase):
    """Copies, other memory in place, elements by Python functions."""

    __slots__ = ()

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise UsageError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment"
            )
        if id(self) in memo:
            return memo[id(self)]
        storage = self._storage
        base = memo.get(id(storage))
        if base is None:
            base = memo[id(storage)] = from_array(storage.array(), storage.type.dtype, storage.type.device)
            memo.setdefault(id(memo), []).append(storage)  # as `copy` itself: what the ids stand for must live
        chain = self._chain
        view = new(base._storage, self._type, Lineage(len(chain)), chain, self._strides, self._offset)
        made = memo[id(self)] = type(self)._make_subclass(view, self.requires_grad)
        if self._grad is not None:
            made._grad = self._grad.__deepcopy__(memo)
        if self.__dict__:
            made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        if not self.is_leaf:
            raise UsageError(
                "Only Tensors created explicitly by the user (graph leaves) can be pickled; detach() gives one"
            )
        place = self._type.shape, self._strides, self._offset
        args = (type(self), _memory(self._storage), *place, self.requires_grad)
        if self._type.dtype is not self._storage.type.dtype:
            args = (*args, self._type.dtype.torch_name)
        return (rebuild, args, dict(self.__dict__)) if self.__dict__ else (rebuild, args)

    def set_(self: Any, source: Any = None, storage_offset: int = 0, size: Any = None, stride: Any = None) -> Tensor:
        """Show the memory of another tensor of the same dtype from now on, from an offset on in the given size and
        strides; none without an argument.
        """
        if source is None:
            source = creation.zeros(0, dtype=self.dtype, device=self.device)
        other = tensor_argument("set_", source, "source")
        if other._type.dtype is not self._type.dtype:
            raise DTypeError(
                f"Could not set tensor of type {c_name(other._type.dtype)} to a tensor of type "
                f"{c_name(self._type.dtype)}"
            )
        if size is not None:
            steps = contiguous_strides(tuple(size)) if stride is None else stride
            other = striding.as_strided(other, size, steps, storage_offset)
        self.data = other
        return self

    def resize_(self: Any, *size: Any, memory_format: Any = None) -> Tensor:
        """Show the memory as another shape, in row-major order; with more elements, new memory that begins with the
        old contents (zeros follow).
        """
        shape = extent_of(self._type.shape, size)
        if self.requires_grad:
            raise UsageError("cannot resize variables that require grad")
        if shape == self._type.shape:
            return self
        flat = memory_as(self._storage, self._type.dtype)[self._offset :]
        count = math.prod(shape)
        if flat._type.size < count:
            more = creation.zeros(count - flat._type.size, dtype=self.dtype, device=self.device)
            flat = joining.cat((flat, more))
        self.data = shaping.view_(flat[:count], shape)
        return self

    def resize_as_(self: Any, the_template: Any, *, memory_format: Any = None) -> Tensor:
        """`resize_` to the shape of another tensor."""
        return self.resize_(the_template._type.shape)

    def resize(self: Any, *size: Any) -> Tensor:
        """The same memory in another shape of as many elements. Deprecated in PyTorch: use `reshape`."""
        warn("non-inplace resize is deprecated")
        return shaping.view_(self, *size)

    def resize_as(self: Any, tensor: Any) -> Tensor:
        """`resize` to the shape of another tensor."""
        warn("non-inplace resize_as is deprecated")
        return shaping.view_(self, tensor._type.shape)

    def apply_(self: Any, callable: Callable[[Any], Any]) -> Tensor:
        """Replace each element by what a Python function gives for it. Slow: for tests and small tables."""
        if self.requires_grad:
            raise UsageError("Can't call apply_() on Variable that requires grad. Use var.detach().apply_() instead.")
        values = [callable(v) for v in shaping.reshape(self, -1).tolist()]
        write(self, shaping.reshape(_listed(values, self), self._type.shape))
        return self

    def map_(self: Any, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
        """Replace each element by what a Python function gives for it and for the other tensor's."""
        if self.requires_grad or tensor.requires_grad:
            raise UsageError("Can't call map_() on Variable that requires grad. Use var.detach().map_() instead.")
        if tensor._type.dtype is not self._type.dtype:
            raise KindError(f"map_ expected {self.type()} for argument 'tensor', got {tensor.type()}")
        other = shaping.expand(tensor, self._type.shape)
        pairs = zip(shaping.reshape(self, -1).tolist(), shaping.reshape(other, -1).tolist(), strict=True)
        values = [callable(a, b) for a, b in pairs]
        write(self, shaping.reshape(_listed(values, self), self._type.shape))
        return self

    def map2_(self: Any, x: Tensor, y: Tensor, callable: Callable[[Any, Any, Any], Any]) -> Tensor:
        """Replace each element by what a Python function gives for it and for those of two other tensors."""
        if self.requires_grad or x.requires_grad or y.requires_grad:
            raise UsageError("Can't call map2_() on Variable that requires grad. Use var.detach().map2_() instead.")
        lists = [shaping.reshape(self, -1).tolist()]
        for name, other in (("x", x), ("y", y)):
            if other._type.dtype is not self._type.dtype:
                raise KindError(f"map2_: expected {self.type()} for argument '{name}' (got {other.type()})")
            lists.append(shaping.reshape(shaping.expand(other, self._type.shape), -1).tolist())
        values = [callable(a, b, c) for a, b, c in zip(*lists, strict=True)]
        write(self, shaping.reshape(_listed(values, self), self._type.shape))
        return self
