"""Tensors of given data: Python numbers in nested sequences, arrays, buffers, other tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.errors import DTypeError, InputError, KindError, UnsupportedError, UsageError
from graphc.ir.types import DType, TensorType, boolean, dtype_of_numpy, f64, i64
from graphc.promotion import promote_types
from graphc.tensors.arguments import check_flags, constructor, finished, kind, number_argument, placed, wanted_type
from graphc.tensors.core import TensorBase, alias, from_array, from_buffer
from graphc.tensors.device_memory import from_cuda_array
from graphc.tensors.shaping import clone, moved
from graphc.tensors.strided import strided_view
from graphc.tensors.writing import type_name
from graphc.warned import warn
from graphc_runtime.buffer import Buffer

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_KNOWN = "float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8 and bool"
_MOST_DIMENSIONS = 64
_HOST = (list, tuple, int, float, bytes, np.ndarray, np.generic)  # what most tensors are made of


def array_dtype(array: np.ndarray) -> DType:
    """The dtype of an array; TypeError for what tensors cannot hold, ValueError for foreign byte orders."""
    if not array.dtype.isnative:
        raise InputError(
            "given numpy array has byte order different from the native byte order. Conversion between byte orders is "
            "currently not supported."
        )
    found = dtype_of_numpy(array.dtype)
    if found is None:
        raise KindError(
            f"can't convert np.ndarray of type {array.dtype.type.__module__}.{array.dtype.type.__name__}. The only "
            f"supported types are: {_KNOWN}."
        )
    return found


def _check_strides(array: np.ndarray) -> None:
    if any(s < 0 for s in array.strides):
        raise InputError(
            "At least one stride in the given numpy array is negative, and tensors with negative strides are not "
            "currently supported. (You can probably work around this by making a copy of your array  with "
            "array.copy().)"
        )


# nested sequences


def _is_sequence(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _flat(data: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and elements of nested sequences. The first of each level says its length, as in PyTorch."""
    shape: list[int] = []
    first = data
    while _is_sequence(first):
        shape.append(len(first))
        if len(shape) > _MOST_DIMENSIONS:
            raise InputError(f"too many dimensions '{kind(first)}'")
        if not shape[-1]:
            return tuple(shape), []
        first = first[0]
    if isinstance(first, str) and shape:
        raise InputError("too many dimensions 'str'")
    level: list[Any] = [data]
    for dim, length in enumerate(shape):
        for part in level:
            if not _is_sequence(part):
                raise KindError("not a sequence")
            if len(part) != length:
                raise InputError(f"expected sequence of length {length} at dim {dim} (got {len(part)})")
        if dim and any(isinstance(part, np.ndarray) for part in level):
            warn(
                "Creating a tensor from a list of numpy.ndarrays is extremely slow. Please consider converting the "
                "list to a single numpy.ndarray with numpy.array() before converting to a tensor.",
            )
        level = list(chain.from_iterable(level))
    return tuple(shape), level


def _type_of(kinds: type, example: Any) -> DType:
    if issubclass(kinds, bool):
        return boolean
    if issubclass(kinds, np.generic):
        return array_dtype(np.empty(0, kinds))
    if issubclass(kinds, int):
        return i64
    if issubclass(kinds, float):
        return dtypes.default_ir()
    if issubclass(kinds, complex):
        raise UnsupportedError(f"tensor: graphc has no complex numbers, got {example}")
    if issubclass(kinds, str):
        raise KindError("new(): invalid data type 'str'")
    if issubclass(kinds, list | tuple):
        raise KindError(f"'{kinds.__name__}' object cannot be interpreted as an integer")
    raise UsageError(f"Could not infer dtype of {kinds.__name__}")


def _elements(flat: list[Any]) -> tuple[list[Any], DType | None]:
    """Elements as numbers, and their common dtype (None when there are none)."""
    kinds = {type(value): value for value in flat} if len(set(map(type, flat))) > 1 else {type(v): v for v in flat[:1]}
    found: DType | None = None
    if any(issubclass(k, TensorBase) for k in kinds):
        for value in flat:
            if isinstance(value, TensorBase):
                dtype = value._type.dtype
                found = dtype if found is None else promote_types(found, dtype)
        flat = [_single(value) if isinstance(value, TensorBase) else value for value in flat]
    for k, example in kinds.items():
        if not issubclass(k, TensorBase):
            dtype = _type_of(k, example)
            found = dtype if found is None else promote_types(found, dtype)
    return flat, found


def _single(tensor: TensorBase) -> Any:
    if tensor._type.size != 1:
        if tensor._type.dtype.is_float:
            raise InputError("only one element tensors can be converted to Python scalars")
        raise KindError("only integer tensors of a single element can be converted to an index")
    return (
        tensor._array()
        .reshape(())
        .astype(f64.numpy if tensor._type.dtype.is_float else tensor._type.dtype.numpy)
        .item()
    )


def _overflow(name: str) -> DTypeError:
    return DTypeError(f"value cannot be converted to type {name} without overflow")


def _converted(flat: list[Any], shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """Numbers as an array; DTypeError when an integer type cannot hold one (unsigned types take negative ones)."""
    if dtype.is_float:
        return np.array(flat, np.float64).reshape(shape).astype(dtype.numpy)
    if dtype is boolean:
        return np.array([bool(v) for v in flat], np.bool_).reshape(shape)
    if any(isinstance(v, float | np.floating) for v in flat):
        info = np.iinfo(dtype.numpy)
        values = np.trunc(np.array(flat, np.float64))
        inside = (values <= float(info.max)) & (values >= -float(info.max) - 1)
        if not inside.all() or (dtype is i64 and (values == 2.0**63).any()):
            raise _overflow(dtype.torch_name)
        return values.astype(np.int64).astype(dtype.numpy).reshape(shape)
    try:
        whole = np.array(flat, np.int64).reshape(shape)
    except OverflowError:
        raise InputError("Overflow when unpacking long long") from None
    if dtype is not i64 and whole.size:
        info = np.iinfo(dtype.numpy)
        low = -int(info.max) if dtype.kind == "uint" else int(info.min)
        if whole.max() > info.max or whole.min() < low:
            raise _overflow(dtype.torch_name)
    return whole.astype(dtype.numpy)


def from_data(data: Any, dtype: DType | None) -> Tensor:
    """A new tensor of numbers in nested sequences or of an array, in `dtype` or in the one they have."""
    if isinstance(data, np.ndarray):
        found = array_dtype(data)
        _check_strides(data)
        with np.errstate(all="ignore"):
            return from_array(data, dtype or found)
    if isinstance(data, np.generic):
        with np.errstate(all="ignore"):
            return from_array(np.asarray(data), dtype or array_dtype(np.asarray(data)))
    shape, flat = _flat(data) if _is_sequence(data) else ((), [data])
    flat, found = _elements(flat)
    wanted = dtype or found or dtypes.default_ir()
    with np.errstate(all="ignore"):
        return from_array(_converted(flat, shape, wanted), wanted)


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A tensor with a copy of `data` (numbers, nested sequences, an array). Floats get the default float type,
    integers int64; NumPy's numbers and arrays and 0-d tensors keep their types.
    """
    beside = data._type.device if isinstance(data, TensorBase) and device is None else device
    place = check_flags("tensor", requires_grad, beside, None)
    wanted = None if dtype is None else dtypes.to_ir(dtype)
    if isinstance(data, TensorBase):
        warn(
            "To copy construct from a tensor, it is recommended to use sourceTensor.detach().clone() or "
            "sourceTensor.detach().clone().requires_grad_(True), rather than torch.tensor(sourceTensor).",
        )
        return finished(copied(data, wanted, place), requires_grad)
    if not isinstance(data, _HOST) and hasattr(data, "__cuda_array_interface__"):
        shown = from_cuda_array(data)
        return finished(copied(shown, wanted, shown._type.device if device is None else place), requires_grad)
    return finished(placed(place, from_data, data, wanted), requires_grad)


def copied(source: TensorBase, dtype: DType | None, device: str) -> Tensor:
    """A copy on `device` without the gradient side, in `dtype` or the source's own."""
    plain = alias(source)
    made = moved(plain, device, dtype or source._type.dtype)
    return clone(made) if made is plain else made


@constructor
def scalar_tensor(s: Any, *, dtype: Any = None) -> Tensor:
    """A number as a 0-d tensor, of the default float type unless told otherwise."""
    return from_data(number_argument("scalar_tensor", s, "s", 1), wanted_type(dtype))


# shared memory


class _Pointer:
    """Memory of another library as NumPy sees it, writable whatever the owner's flags say."""

    def __init__(self, address: int, nbytes: int, owner: object) -> None:
        self.owner = owner
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (nbytes,), "data": (address, False)}


def _root(array: np.ndarray) -> tuple[int, int]:
    """The addresses between which memory is known to be there: the array's, or those of what it was cut from."""
    low, high = np.lib.array_utils.byte_bounds(array)
    base = array.base
    while isinstance(base, np.ndarray):
        start, end = np.lib.array_utils.byte_bounds(base)
        low, high = min(low, start), max(high, end)
        base = base.base
    return low, high


def shared(array: np.ndarray, dtype: DType) -> Tensor | None:
    """A tensor over the memory of an array, or None when its strides do not nest."""
    if array.size == 0 or array.flags.c_contiguous:
        if not array.flags.writeable and array.size:
            address = array.__array_interface__["data"][0]
            owned = np.asarray(_Pointer(address, array.nbytes, array)).view(array.dtype).reshape(array.shape)
        else:
            owned = array if array.flags.c_contiguous else np.empty(array.shape, array.dtype)
        made = from_buffer(Buffer.from_array(owned), TensorType(dtype, array.shape))
        made._storage.external = array
        return made
    size = dtype.itemsize
    if any(s % size for s in array.strides):
        return None
    address = array.__array_interface__["data"][0]
    low, high = _root(array)
    before, count = (address - low) // size, (high - low - (address - low) % size) // size
    memory = np.asarray(_Pointer(address - before * size, count * size, array)).view(array.dtype)
    flat = from_buffer(Buffer.from_array(memory), TensorType(dtype, (count,)))
    flat._storage.external = array
    return strided_view(flat, array.shape, tuple(s // size for s in array.strides), before)


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor over the memory of an array: writes on either side show on the other.

    ValueError for negative strides, as in PyTorch; UnsupportedError for strides of other overlapping kinds than
    broadcasts. An array that is not writable is shared too, with a warning.
    """
    if not isinstance(ndarray, np.ndarray):
        raise KindError(f"expected np.ndarray (got {kind(ndarray)})")
    dtype = array_dtype(ndarray)
    _check_strides(ndarray)
    if not ndarray.flags.writeable:
        _warn_read_only("NumPy array")
    made = shared(ndarray, dtype)
    if made is None:
        raise UnsupportedError(f"from_numpy: strides {ndarray.strides} of an array of shape {ndarray.shape} overlap")
    return made


def _warn_read_only(what: str) -> None:
    warn(
        f"The given {what} is not writable, and PyTorch does not support non-writable tensors. This means you can "
        "write to the underlying (supposedly non-writable) memory using the tensor. You may want to copy the data to "
        "protect it or make it writable before converting it to a tensor.",
    )


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor; arrays are shared, tensors returned as they are, when the dtype fits."""
    beside = data._type.device if isinstance(data, TensorBase) and device is None else device
    place = check_flags("as_tensor", False, beside, None)
    wanted = None if dtype is None else dtypes.to_ir(dtype)
    if isinstance(data, TensorBase):
        return moved(data, place, wanted or data._type.dtype)  # type: ignore[arg-type]
    if hasattr(data, "__cuda_array_interface__"):
        shown = from_cuda_array(data)
        return moved(shown, shown._type.device if device is None else place, wanted or shown._type.dtype)
    if isinstance(data, np.ndarray):
        found = from_numpy(data) if wanted in (None, array_dtype(data)) else from_data(data, wanted)
        return moved(found, place, wanted or found._type.dtype)
    return placed(place, from_data, data, wanted)


def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool | None = None
) -> Tensor:
    """`obj` as a tensor, sharing memory where it can: always with `copy=False`, never with `copy=True` (ValueError)."""
    if not isinstance(obj, (TensorBase, *_HOST)) and hasattr(obj, "__cuda_array_interface__"):
        obj = from_cuda_array(obj)
    beside = obj._type.device if isinstance(obj, TensorBase) and device is None else device
    place = check_flags("asarray", bool(requires_grad), beside, None)
    wanted = None if dtype is None else dtypes.to_ir(dtype)
    if isinstance(obj, TensorBase | np.ndarray):
        if isinstance(obj, TensorBase) and obj.requires_grad and requires_grad is None:
            warn(
                "torch.asarray: unspecified requires_grad now defaults to obj.requires_grad instead of False. Pass "
                "requires_grad=False explicitly to get the old behavior.",
            )
        made = alias(obj) if isinstance(obj, TensorBase) and requires_grad is False else obj
        made = from_numpy(made) if isinstance(made, np.ndarray) else made
        if wanted is not None and wanted is not made._type.dtype:
            if copy is False:
                raise InputError(
                    f"can't alias tensor with dtype '{type_name(made._type.dtype)}' into dtype '{type_name(wanted)}'."
                )
            made = moved(made, place, wanted)  # type: ignore[arg-type]
        elif place != made._type.device:
            if copy is False:
                raise InputError(f"can't alias tensor from device '{made._type.device}' to '{place}'.")
            made = moved(made, place, made._type.dtype)  # type: ignore[arg-type]
        elif copy:
            made = clone(made)  # type: ignore[arg-type]
    elif isinstance(obj, bytes | bytearray | memoryview):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of memory that is not writable, which PyTorch passes over here
            made = frombuffer(obj, dtype=wanted or dtypes.default_ir())
        made = moved(made, place, made._type.dtype)
        made = clone(made) if copy and place == "cpu" else made
    else:
        if copy is False:
            raise InputError("can't alias arbitrary sequence into a tensor.")
        made = placed(place, from_data, obj, wanted)
    return finished(made, True) if requires_grad else made  # type: ignore[return-value,arg-type]


@constructor
def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0) -> Tensor:
    """A vector over the memory of an object with Python's buffer protocol, from byte `offset` on.

    ValueError for lengths that do not fit.
    """
    found = dtypes.to_ir(dtype)
    try:
        view = memoryview(buffer).cast("B")
    except TypeError:
        raise InputError("object does not implement Python buffer protocol.") from None
    size, length = found.itemsize, view.nbytes
    if length == 0 or count == 0:
        raise InputError(f"both buffer length ({length}) and count ({count}) must not be 0")
    if not 0 <= offset < length:
        raise InputError(
            f"offset ({offset} bytes) must be non-negative and no greater than buffer length ({length} bytes) minus 1"
        )
    rest = length - offset
    if count < 0 and rest % size:
        raise InputError(
            f"buffer length ({rest} bytes) after offset ({offset} bytes) must be a multiple of element size ({size})"
        )
    if count > 0 and count * size > rest:
        raise InputError(
            f"requested buffer length ({count} * {size} bytes) after offset ({offset} bytes) must not be greater than "
            f"actual buffer length ({length} bytes)"
        )
    if view.readonly:
        _warn_read_only("buffer")
    array = np.frombuffer(view, found.numpy, count if count > 0 else rest // size, offset)
    made = shared(array, found)
    assert made is not None
    return made
