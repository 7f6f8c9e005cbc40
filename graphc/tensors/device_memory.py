"""Memory of CUDA devices shared with other libraries, and page-locked memory of the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import InputError, KindError, UnsupportedError, UsageError
from graphc.ir.types import DType, TensorType, bf16, dtype_of_numpy, row_major_strides
from graphc.memory import LATE, driven
from graphc.storage import TOUCHED
from graphc.tensors.core import TensorBase, from_buffer
from graphc.tensors.export import exporter_of
from graphc.tensors.strided import memory_of, strided_view
from graphc_runtime.buffer import Buffer
from graphc_runtime.devices.cuda import device_count, opened
from graphc_runtime.devices.cuda_memory import DeviceBuffer
from graphc_runtime.devices.cuda_streams import Stream

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

VECTOR_ALIGNMENT = 16  # bytes: where the buffers of a device begin at least
CPU_PAIR = (1, 0)  # DLPack's type of the device, and its number
_CUDA = 2


def device_pair(device: str) -> tuple[int, int]:
    """DLPack's type and number of a device."""
    return CPU_PAIR if device == "cpu" else (_CUDA, int(device.partition(":")[2]))


def cuda_array(tensor: Tensor) -> dict[str, Any]:
    """The tensor's memory in the form of `__cuda_array_interface__`, version 3.

    AttributeError on the CPU; RuntimeError for tensors that require gradients and for bfloat16, which it cannot name.
    """
    type = tensor._type
    if type.device == "cpu":
        raise AttributeError(
            f"Can't get __cuda_array_interface__ on non-CUDA tensor type: {tensor.type()} If CUDA data is required use "
            "tensor.cuda() to copy tensor to device memory."
        )
    if tensor.requires_grad:
        raise UsageError(
            "Can't get __cuda_array_interface__ on Variable that requires grad. If gradients aren't required, use "
            "var.detach() to get Variable that doesn't require grad."
        )
    if type.dtype is bf16:
        raise UsageError("__cuda_array_interface__ has no bfloat16; convert the tensor first, or use DLPack")
    contiguous = tensor._strides == type.strides
    return {
        "typestr": type.dtype.numpy.str,
        "shape": type.shape,
        "strides": None if contiguous else tuple(s * type.dtype.itemsize for s in tensor._strides),
        "data": (address_of(tensor) if type.size else 0, False),
        "version": 3,
        "stream": stream_number(type.device),
    }


def stream_number(device: str) -> int:
    """The stream on which this thread puts work of a device, as other libraries number it: 1 is the default one."""
    found = driven(device)
    return found.driver.stream_number(found.current_stream.handle) or 1


def address_of(tensor: Tensor) -> int:
    """The address of the first element, whose memory others may see and write from now on."""
    tensor._storage.looked_at()
    exporter = exporter_of(tensor._storage)
    # Who has an address cannot be asked for how long.
    tensor._storage.external = tensor._storage.external or exporter
    return exporter.buffer.ptr + tensor._offset * tensor._type.dtype.itemsize


def over_address(
    address: int, device: str, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...], owner: object
) -> Tensor:
    """A tensor over memory of another library on `device`, which `owner` keeps alive; strides count elements.

    UnsupportedError for strides that overlap.
    """
    count = memory_of(shape, strides)
    # Kernels read whole vectors where the compiler knows that a buffer's elements are aligned: it begins there.
    before = address % VECTOR_ALIGNMENT // dtype.itemsize if count else 0
    count += before
    start = address - before * dtype.itemsize
    buffer = DeviceBuffer.from_address(start, count * dtype.itemsize, driven(device), owner)
    if not before and (strides == row_major_strides(shape) or not count):
        made = from_buffer(buffer, TensorType(dtype, shape, device))
        made._storage.external = owner
        return made
    flat = from_buffer(buffer, TensorType(dtype, (count,), device))
    flat._storage.external = owner
    seen = strided_view(flat, shape, strides, before)
    if seen is None:
        raise UnsupportedError(f"strides {strides} of memory of shape {shape} overlap or do not nest")
    return seen


def from_cuda_array(value: Any) -> Tensor:
    """A tensor over the memory of an object with `__cuda_array_interface__`, on the device where it lies. What is done
    with it waits for the stream that the object names.

    TypeError or ValueError for what the interface cannot say or tensors do not have.
    """
    facts = value.__cuda_array_interface__
    dtype = dtype_of_numpy(np.dtype(facts["typestr"]))
    if dtype is None:
        raise UnsupportedError(f"graphc has no tensors of {facts['typestr']}, which the CUDA array holds")
    shape, given = tuple(facts["shape"]), facts.get("strides")
    if given is not None and any(s % dtype.itemsize for s in given):
        raise InputError("given array strides not a multiple of the element byte size. Make a copy of the array.")
    strides = row_major_strides(shape) if given is None else tuple(s // dtype.itemsize for s in given)
    address, device, stream = facts["data"][0], _device_of(value), facts.get("stream")
    if stream is not None:
        driven(device).wait_for(stream)
    return over_address(address, device, dtype, shape, strides, value)


def _device_of(value: Any) -> str:
    """The device of a CUDA array: what it says itself, else the one that is open."""
    pair = getattr(value, "__dlpack_device__", None)
    if pair is not None:
        return f"cuda:{int(pair()[1])}"
    devices = opened()
    return devices[0].name if len(devices) == 1 else "cuda:0"


def record_stream(tensor: TensorBase, stream: Any) -> None:
    """Note that `stream` has to do with the tensor's memory, which nothing else gets before what is on it now is done.

    NotImplementedError for a tensor of the CPU, TypeError for what is no stream, RuntimeError for another device's.
    """
    device = tensor._type.device
    if device == "cpu":
        raise UnsupportedError("record_stream: the memory of a tensor on the CPU has to do with no stream")
    found = getattr(stream, "runtime", None)
    if not isinstance(found, Stream):
        raise KindError(f"record_stream(): argument 'stream' must be Stream, not {type(stream).__name__}")
    if found.device.name != device:
        raise UsageError(f"record_stream: the tensor is on {device}, the stream is one of {found.device.name}")
    buffer = tensor._storage.realise()
    assert isinstance(buffer, DeviceBuffer)
    buffer.used_by(found)


# page-locked memory


def pinned(tensor: Tensor) -> Tensor:
    """A copy in page-locked memory; the tensor itself where it is, or where there is no CUDA device."""
    type = tensor._type
    if type.device != "cpu":
        raise UsageError(f"cannot pin '{tensor.type()}' only dense CPU tensors can be pinned")
    if not device_count() or is_pinned(tensor):
        return tensor
    buffer = driven("cuda:0").pin(type.nbytes)
    if type.size:
        np.copyto(buffer.view(type.dtype.numpy, type.shape), tensor._array())
    return from_buffer(buffer, type)


def is_pinned(tensor: TensorBase) -> bool:
    """Whether the tensor's memory is page-locked."""
    buffer = tensor._storage.buffer
    if type(buffer) is not Buffer or tensor._storage.value is not None:
        return False
    return any(device.is_pinned(buffer) for device in opened())


def read_late(tensor: TensorBase) -> None:
    """Let the copy of the tensor's memory to a device that is recorded next be done when the device gets there, if the
    memory is page-locked.
    """
    buffer = tensor._storage.buffer
    if is_pinned(tensor) and buffer is not None:
        LATE.add((buffer.ptr, buffer.ptr + buffer.nbytes))
        TOUCHED[0] += 1  # so that such a call is not made in native code, which would not get here
