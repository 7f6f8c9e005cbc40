"""DLPack both ways: memory shared with any library that speaks it. NumPy carries the capsules of the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import UnsupportedError, UsageError
from graphc.ir.types import bf16, dtype_of_numpy
from graphc.memory import driven
from graphc.tensors.core import TensorBase, alias
from graphc.tensors.device_memory import CPU_PAIR, device_pair, stream_number
from graphc.tensors.dlpack import capsule_of, from_capsule
from graphc.tensors.export import export
from graphc.tensors.literals import shared

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


class _Capsule:
    """A bare capsule as an object that NumPy takes."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU_PAIR


def to_capsule(
    tensor: Tensor, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
) -> Any:
    """A DLPack capsule over the tensor's memory. On a CUDA device what comes later on `stream` (its number; None: the
    default stream, -1: none) starts after what computes the tensor.

    BufferError for tensors that require gradients, for other devices than the tensor's, and for bfloat16 on the CPU,
    which NumPy does not carry.
    """
    if tensor.requires_grad:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    here = device_pair(tensor._type.device)
    if dl_device is not None and tuple(map(int, dl_device)) != here:
        raise BufferError(f"the tensor is on {tensor._type.device} and cannot be given to DLPack's device {dl_device}")
    if here != CPU_PAIR:
        capsule = capsule_of(tensor.clone() if copy else tensor)
        if stream != -1:
            driven(tensor._type.device).let_wait(1 if stream is None else int(stream))
        return capsule
    if tensor._type.dtype is bf16:
        raise BufferError("bfloat16 cannot be exported by DLPack: NumPy has no such type; convert it first")
    array = export(tensor)
    options = {} if max_version is None else {"max_version": max_version}
    return (array.copy() if copy else array).__dlpack__(**options)


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule over the tensor's memory, for `from_dlpack` of one library, once."""
    return to_capsule(tensor)


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of an object with `__dlpack__`, or of a capsule.

    RuntimeError for what is neither; UnsupportedError for dtypes that tensors do not have and overlapping strides.
    """
    if isinstance(ext_tensor, TensorBase):
        made = alias(ext_tensor)
        return made.clone() if copy else made
    capsule = type(ext_tensor).__name__ == "PyCapsule"
    if not capsule and not hasattr(ext_tensor, "__dlpack__"):
        raise UsageError(
            f"from_dlpack received an invalid capsule: {type(ext_tensor).__name__} has no __dlpack__. Note that "
            "DLTensor capsules can be consumed only once, so you might have already constructed a tensor from it once."
        )
    if not capsule and ext_tensor.__dlpack_device__()[0] == device_pair("cuda:0")[0]:
        made = from_capsule(ext_tensor.__dlpack__(stream=stream_number(f"cuda:{ext_tensor.__dlpack_device__()[1]}")))
        return made.clone() if copy else made
    array = np.from_dlpack(_Capsule(ext_tensor) if capsule else ext_tensor)
    if copy:
        array = array.copy()
    dtype = dtype_of_numpy(array.dtype)
    made = None if dtype is None else shared(array, dtype)
    if made is None:
        raise UnsupportedError(f"from_dlpack: graphc has no {array.dtype} tensors with strides {array.strides}")
    return made
