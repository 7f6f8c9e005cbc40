"""DLPack capsules over memory of CUDA devices, made and read here as NumPy carries those of the host only.

The structures are those of dlpack.h, version 0.8, which all libraries take.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from graphc.errors import UnsupportedError, UsageError
from graphc.ir.types import DTYPES, DType, bf16, row_major_strides
from graphc.tensors.device_memory import device_pair, over_address
from graphc.tensors.export import exporter_of

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_NAME, _USED = b"dltensor", b"used_dltensor"


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("number", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _View(ctypes.Structure):
    """`DLTensor`."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("rank", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """`DLManagedTensor`."""


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Managed._fields_ = (("view", _View), ("context", ctypes.c_void_p), ("deleter", _Deleter))

_KINDS = {"int": 0, "uint": 1, "float": 2, "bool": 6}
_CODES: dict[DType, tuple[int, int]] = {d: (4 if d is bf16 else _KINDS[d.kind], d.bits) for d in DTYPES}
_DTYPES = {code: dtype for dtype, code in _CODES.items()}

# What a capsule that was given away needs, until its taker calls the deleter.
_given: dict[int, Any] = {}

_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, (ctypes.c_void_p, ctypes.c_char_p)
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p)
_rename = ctypes.pythonapi.PyCapsule_SetName
_rename.restype, _rename.argtypes = ctypes.c_int, (ctypes.c_void_p, ctypes.c_char_p)


@_Deleter
def _forget(address: int) -> None:
    """The deleter of what was exported here."""
    _given.pop(address, None)


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _drop(capsule: int) -> None:
    """A capsule dies. Nobody may have taken its contents."""
    if _is_valid(capsule, _NAME):
        _given.pop(_pointer(capsule, _NAME), None)


def capsule_of(tensor: Tensor) -> Any:
    """A capsule over the memory of a tensor on a CUDA device."""
    type = tensor._type
    tensor._storage.looked_at()
    exporter = exporter_of(tensor._storage)
    shape = (ctypes.c_int64 * max(type.rank, 1))(*type.shape)
    strides = (ctypes.c_int64 * max(type.rank, 1))(*tensor._strides)
    kind, number = device_pair(type.device)
    code, bits = _CODES[type.dtype]
    address = exporter.buffer.ptr + tensor._offset * type.dtype.itemsize
    view = _View(address, _Device(kind, number), type.rank, _Type(code, bits, 1), shape, strides, 0)
    managed = _Managed(view, None, _forget)
    place = ctypes.addressof(managed)
    _given[place] = managed, shape, strides, exporter
    return _new(place, _NAME, ctypes.cast(_drop, ctypes.c_void_p))


class _Lent:
    """Memory that another library lent: its deleter is called when nothing here uses it any more."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __del__(self) -> None:
        deleter = _Managed.from_address(self._place).deleter
        if deleter:
            deleter(self._place)


def from_capsule(capsule: Any) -> Tensor:
    """A tensor over the memory in a capsule of a CUDA device. RuntimeError for a capsule that was taken before."""
    if not _is_valid(id(capsule), _NAME):
        raise UsageError(
            "from_dlpack received an invalid capsule. Note that DLTensor capsules can be consumed only once, so you "
            "might have already constructed a tensor from it once."
        )
    place = _pointer(id(capsule), _NAME)
    view = _Managed.from_address(place).view
    dtype = _DTYPES.get((view.dtype.code, view.dtype.bits))
    if dtype is None or view.dtype.lanes != 1:
        raise UnsupportedError(
            f"from_dlpack: graphc has no tensors of DLPack's type {view.dtype.code, view.dtype.bits}"
        )
    if view.device.type != device_pair("cuda:0")[0]:
        raise UnsupportedError(f"from_dlpack: memory of DLPack's device type {view.device.type} is not supported")
    shape = tuple(view.shape[i] for i in range(view.rank))
    strides = tuple(view.strides[i] for i in range(view.rank)) if view.strides else row_major_strides(shape)
    _rename(id(capsule), _USED)
    owner = _Lent(place)
    device = f"cuda:{view.device.number}"
    return over_address((view.data or 0) + view.offset, device, dtype, shape, strides, owner)
