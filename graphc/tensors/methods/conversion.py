"""Methods of tensors: other dtypes, other orders in memory, Python numbers and arrays."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.devices import Device, use_device
from graphc.dtypes import to_ir
from graphc.errors import InputError, KindError, UnsupportedError, UsageError
from graphc.ir.types import bf16, boolean, f32, f64, i32, i64
from graphc.layouts import follows, memory_format, order_of, preserve_format
from graphc.tensors import shaping
from graphc.tensors.core import TensorBase
from graphc.tensors.device_memory import cuda_array, device_pair, pinned, read_late, record_stream
from graphc.tensors.export import export
from graphc.tensors.interchange import to_capsule
from graphc.tensors.learning import repeatable
from graphc.tensors.legacy import CUDA_TYPES, legacy_dtype, legacy_name
from graphc.tensors.numpy_protocol import apply_ufunc, wrapped
from graphc.tensors.views import inverse_permutation
from graphc_runtime.buffer import Buffer

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

# How one element is read from memory of this process, without an array.
_NUMBERS: dict[object, Any] = {
    f32: ctypes.c_float,
    f64: ctypes.c_double,
    i64: ctypes.c_int64,
    i32: ctypes.c_int32,
    boolean: ctypes.c_bool,
}


def ordered(input: Tensor, format: object, *, copies: bool) -> Tensor:
    """`input` with its elements in memory in the order of a memory format: itself where they are, unless `copies`."""
    shape = input._type.shape
    order = order_of(format, shape, input._strides)
    if not copies and follows(format, shape, input._strides):  # type: ignore[arg-type]
        return input
    if order == tuple(range(len(shape))):
        return shaping.clone(input)
    return shaping.permute(shaping.clone(shaping.permute(input, order)), inverse_permutation(order))


def _cast(dtype: dtypes.dtype) -> Any:
    wanted = dtype.ir

    def method(self: Tensor, memory_format: memory_format = preserve_format) -> Tensor:
        made = shaping.to_dtype(self, wanted)
        return made if memory_format is preserve_format else ordered(made, memory_format, copies=False)

    method.__doc__ = f"Converted to {dtype.name}."
    return repeatable(method)


def _complex(name: str) -> Any:
    def method(self: Tensor, memory_format: memory_format = preserve_format) -> Tensor:
        raise UnsupportedError(f"Tensor.{name}: graphc has no complex dtypes")

    method.__doc__ = "UnsupportedError: there are no complex dtypes."
    return method


def _destination(args: tuple[Any, ...]) -> tuple[Any, Any, tuple[Any, ...]]:
    """Device and dtype that the positional arguments of `to` name, and the rest of them."""
    if not args:
        return None, None, ()
    first, rest = args[0], args[1:]
    if isinstance(first, TensorBase):
        return first._type.device, first.dtype, rest
    if first is None or isinstance(first, str | Device) or (isinstance(first, int) and not isinstance(first, bool)):
        if rest and not isinstance(rest[0], bool):
            return first, rest[0], rest[1:]
        return first, None, rest
    return None, first, rest


class ConversionMethods(TensorBase):
    """Other dtypes, other orders in memory, Python numbers and arrays."""

    __slots__ = ()

    __array_priority__ = 1000  # NumPy's rule for who makes the result; ours is `__array_ufunc__`

    @repeatable
    def to(
        self: Any,
        *args: Any,
        dtype: Any = None,
        device: Any = None,
        non_blocking: bool = False,
        copy: bool = False,
        memory_format: memory_format | None = None,
    ) -> Tensor:
        """Moved to a device and converted to a dtype, or to those of another tensor. DeviceError for devices that are
        not there.

        `to(dtype)`, `to(device, dtype)`, `to(other)`, each followed by `non_blocking` and `copy`. The tensor itself
        when nothing changes, unless `copy`.
        """
        place, kind, flags = _destination(args)
        if len(flags) > 2 or (device is not None and place is not None) or (dtype is not None and kind is not None):
            raise KindError("to() received an invalid combination of arguments")
        device, dtype = device if place is None else place, dtype if kind is None else kind
        copy = flags[1] if len(flags) == 2 else copy
        wanted = self._type.dtype if dtype is None else to_ir(dtype)
        if device is None:
            made = shaping.to_dtype(self, wanted)
        else:
            place = use_device(device)
            if (non_blocking or (flags and flags[0])) and place != "cpu":
                read_late(self)
            made = shaping.moved(self, place, wanted)
        if memory_format is None or memory_format is preserve_format:
            return shaping.clone(made) if copy and made is self else made
        return ordered(made, memory_format, copies=copy and made is self)

    def type(self: Any, dtype: Any = None, non_blocking: bool = False) -> Any:
        """Converted to a dtype, an old tensor type or the name of one; without argument, the name of the own one."""
        if dtype is None:
            return legacy_name(self._type.dtype, self._type.device)
        if isinstance(dtype, str) and dtype.startswith(CUDA_TYPES):
            wanted = legacy_dtype(f"torch.{dtype.removeprefix(CUDA_TYPES)}").ir
            return shaping.moved(self, self._type.device if self.is_cuda else use_device("cuda"), wanted)
        if isinstance(dtype, dtypes.dtype):
            return shaping.to_dtype(self, dtype.ir)
        place = "cpu"
        if getattr(dtype, "is_cuda", None) is True:
            place = self._type.device if self.is_cuda else use_device("cuda")
        return shaping.moved(self, place, legacy_dtype(dtype).ir)

    def type_as(self: Any, other: Tensor) -> Tensor:
        """Moved and converted to the device and dtype of `other`."""
        return shaping.moved(self, other._type.device, other._type.dtype)

    def cpu(self: Any, memory_format: memory_format = preserve_format) -> Tensor:
        """On the CPU: the tensor itself where it is there."""
        made = shaping.moved(self, "cpu", self._type.dtype)
        return made if memory_format is preserve_format else ordered(made, memory_format, copies=False)

    def cuda(
        self: Any,
        device: Any = None,
        non_blocking: bool = False,
        memory_format: memory_format = preserve_format,
    ) -> Tensor:
        """On a CUDA device (the current one), the tensor itself where it is there. DeviceError when there is none."""
        if isinstance(device, int) and not isinstance(device, bool):
            device = f"cuda:{device}"
        place = use_device("cuda" if device is None else device)
        if place == "cpu":
            raise UsageError(f"Invalid device, must be cuda device: {device}")
        if non_blocking:
            read_late(self)
        made = shaping.moved(self, place, self._type.dtype)
        return made if memory_format is preserve_format else ordered(made, memory_format, copies=False)

    def pin_memory(self: Any, device: Any = None) -> Tensor:
        """A copy in page-locked memory, from which copies to CUDA devices need not be waited for; the tensor itself
        where it is in such memory, or where there is no CUDA device.
        """
        return pinned(self)

    def record_stream(self: Any, stream: Any) -> None:
        """Let nobody else have the tensor's memory before what is on `stream` now is done: for what other libraries put
        there, as graphc's own work is known. RuntimeError for another device's stream.
        """
        record_stream(self, stream)

    def share_memory_(self: Any) -> Tensor:
        """The tensor itself."""
        return self

    def conj(self: Any) -> Tensor:
        """The tensor itself: there are no complex numbers."""
        return self

    resolve_conj = resolve_neg = conj

    float, double = _cast(dtypes.float32), _cast(dtypes.float64)
    half, bfloat16 = _cast(dtypes.float16), _cast(dtypes.bfloat16)
    long, int = _cast(dtypes.int64), _cast(dtypes.int32)
    short, char, byte = _cast(dtypes.int16), _cast(dtypes.int8), _cast(dtypes.uint8)
    bool = _cast(dtypes.bool)
    cfloat, cdouble, chalf = _complex("cfloat"), _complex("cdouble"), _complex("chalf")

    def contiguous(self: Any, memory_format: Any = None) -> Tensor:
        """The tensor itself when its elements lie in row-major order (or that of a memory format), else a copy."""
        return shaping.contiguous(self) if memory_format is None else ordered(self, memory_format, copies=False)

    def clone(self: Any, *, memory_format: Any = None) -> Tensor:
        """A copy with its own memory, in row-major order or that of a memory format; gradients flow through."""
        return shaping.clone(self) if memory_format is None else ordered(self, memory_format, copies=True)

    # Python numbers

    def _one(self) -> Any:
        if self._type.size != 1:
            raise InputError("only one element tensors can be converted to Python scalars")
        return self.item()

    def item(self) -> Any:
        """The one element as a Python number. RuntimeError when there is not exactly one."""
        if self._type.size != 1:
            raise UsageError(f"a Tensor with {self._type.size} elements cannot be converted to Scalar")
        buffer, number = self._storage.looked_at(), _NUMBERS.get(self._type.dtype)
        if number is not None and type(buffer) is Buffer:
            return number.from_address(buffer.ptr + self._offset * self._type.dtype.itemsize).value
        array = self._array()
        return (array.astype(np.float32) if self._type.dtype is bf16 else array).item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        array = self._array()
        return (array.astype(np.float32) if self._type.dtype is bf16 else array).tolist()

    def __bool__(self):
        if self._type.size != 1:
            if self._type.size == 0:
                raise UsageError("Boolean value of Tensor with no values is ambiguous")
            raise UsageError("Boolean value of Tensor with more than one value is ambiguous")
        return self.item() != 0

    def __int__(self):
        return self._one().__int__()

    def __float__(self):
        return self._one().__float__()

    def __complex__(self) -> complex:
        return complex(self._one())

    def __index__(self):
        if (not self._type.dtype.is_integer and self._type.dtype is not boolean) or self._type.size != 1:
            raise KindError("only integer tensors of a single element can be converted to an index")
        return self._one().__index__()

    # arrays

    def numpy(self: Any, *, force: Any = False) -> np.ndarray:
        """The elements as an array that shares memory. RuntimeError for tensors that require gradients."""
        lineage = self._lineage
        if (lineage.requires_grad or lineage.hist is not None) and not force:
            raise UsageError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if self._type.device != "cpu":
            if not force:
                raise KindError(
                    f"can't convert {self._type.device} device type tensor to numpy. Use Tensor.cpu() to copy the "
                    "tensor to host memory first."
                )
            return self._array()
        return export(self)

    def __array__(self: Any, dtype: Any = None, copy: Any = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise InputError(f"a copy cannot be avoided: the tensor holds {array.dtype}, not {np.dtype(dtype)}")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __array_wrap__(self, array: np.ndarray, context: Any = None, return_scalar: Any = False) -> Any:
        return wrapped(array)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return apply_ufunc(ufunc, method, inputs, kwargs)

    def __dlpack__(
        self: Any, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        return to_capsule(self, stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)

    def __dlpack_device__(self) -> tuple[Any, Any]:
        return device_pair(self._type.device)

    @property
    def __cuda_array_interface__(self: Any) -> dict[str, Any]:
        return cuda_array(self)
