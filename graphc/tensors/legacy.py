"""`FloatTensor`, `LongTensor` and their like: constructors and classes for `isinstance`, one for each dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.devices import Device, use_device
from graphc.errors import InputError, KindError, UsageError
from graphc.ir.types import DType
from graphc.layouts import strided
from graphc.recording import THREADS
from graphc.tensors.arguments import extents, kind, placed
from graphc.tensors.core import TensorBase, alias
from graphc.tensors.creation import constant
from graphc.tensors.literals import from_data
from graphc.tensors.size import Size
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def construct(dtype: DType, args: tuple[Any, ...], kwargs: dict[str, Any], any_dtype: bool = False) -> Tensor:
    """What PyTorch's old constructors make: nothing (an empty vector), extents, a sequence of numbers, or a tensor of
    the same dtype (the same memory; with `any_dtype`, of every dtype).
    """
    here = THREADS.recorder.place.partition(":")[0]
    if "device" in kwargs and Device(kwargs.pop("device")).type != here:
        raise UsageError(f"legacy constructor expects device type: {here}")
    if "size" in kwargs:
        args = (Size(kwargs.pop("size")),)
    if kwargs:
        got = ", ".join([*map(kind, args), *(f"{k}={kind(v)}" for k, v in kwargs.items())])
        raise KindError(
            f"new() received an invalid combination of arguments - got ({got}), but expected one of: (), "
            "(*size), (tensor), (sequence)"
        )
    if not args:
        return constant(0, (0,), dtype)
    first = args[0]
    if len(args) == 1:
        if isinstance(first, TensorBase):
            if first._type.dtype is not dtype and not any_dtype:
                raise KindError(f"expected a tensor of {dtypes.public(dtype)} (got {first.dtype})")
            return alias(first)
        if isinstance(first, Size):
            return constant(0, tuple(first), dtype)
        if isinstance(first, bool | float) or first is None:
            raise KindError(f"new(): data must be a sequence (got {kind(first)})")
        if not isinstance(first, int | np.integer):
            return from_data(first, dtype)
    return constant(0, extents("new", args), dtype)


class _Legacy(type):
    """The class of the old tensor types: calling one makes a tensor, and tensors of its dtype are its instances."""

    dtype: dtypes.dtype
    is_cuda: bool
    layout = strided
    is_sparse = False

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return placed(use_device("cuda" if cls.is_cuda else "cpu"), construct, cls.dtype.ir, args, kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        if not isinstance(instance, TensorBase):
            return False
        return instance._type.dtype is cls.dtype.ir and (instance._type.device != "cpu") is cls.is_cuda

    def __repr__(cls) -> str:
        return f"<class '{CUDA_TYPES if cls.is_cuda else 'torch.'}{cls.__name__}'>"


CUDA_TYPES = "torch.cuda."  # how the names of tensor types on CUDA devices begin


def _make(name: str, dtype: dtypes.dtype, is_cuda: bool = False) -> Any:
    where = " on CUDA devices" if is_cuda else ""
    made = _Legacy(name, (), {"__doc__": f"Tensors of {dtype}{where}: a constructor, and a class for `isinstance`."})
    made.dtype, made.is_cuda = dtype, is_cuda
    return made


DoubleTensor, FloatTensor = _make("DoubleTensor", dtypes.float64), _make("FloatTensor", dtypes.float32)
HalfTensor, BFloat16Tensor = _make("HalfTensor", dtypes.float16), _make("BFloat16Tensor", dtypes.bfloat16)
LongTensor, IntTensor = _make("LongTensor", dtypes.int64), _make("IntTensor", dtypes.int32)
ShortTensor, CharTensor = _make("ShortTensor", dtypes.int16), _make("CharTensor", dtypes.int8)
ByteTensor, BoolTensor = _make("ByteTensor", dtypes.uint8), _make("BoolTensor", dtypes.bool)

_ALL = (
    *(DoubleTensor, FloatTensor, HalfTensor, BFloat16Tensor, LongTensor),
    *(IntTensor, ShortTensor, CharTensor, ByteTensor, BoolTensor),
)
_NAMED = {f"torch.{t.__name__}": t.dtype for t in _ALL}
_NAMES = {t.dtype.ir: f"torch.{t.__name__}" for t in _ALL}


# The same on CUDA devices, by name.
CUDA_CLASSES = {t.__name__: _make(t.__name__, t.dtype, True) for t in _ALL}


def legacy_name(dtype: DType, device: str = "cpu") -> str:
    """PyTorch's name of the tensor type of a dtype: "torch.FloatTensor", "torch.cuda.FloatTensor"."""
    name = _NAMES[dtype]
    return name if device == "cpu" else CUDA_TYPES + name.removeprefix("torch.")


def legacy_dtype(given: object) -> dtypes.dtype:
    """The dtype that an argument of `Tensor.type` names: a dtype, an old tensor type or the name of one."""
    if isinstance(given, dtypes.dtype):
        return given
    if isinstance(given, _Legacy):
        return given.dtype
    if isinstance(given, type):
        if issubclass(given, TensorBase):
            return dtypes.get_default_dtype()
        given = given.__name__
    if not isinstance(given, str):
        raise KindError("dtype must be a type, str, or dtype object")
    if given == "torch.Tensor":
        return dtypes.get_default_dtype()
    if given not in _NAMED:
        raise InputError(f"invalid type: '{given}'")
    return _NAMED[given]


def set_default_tensor_type(t: object) -> None:
    """Set the default dtype by an old tensor type or its name (float types only, TypeError)."""
    warn(
        "torch.set_default_tensor_type() is deprecated as of PyTorch 2.1, please use torch.set_default_dtype() and "
        "torch.set_default_device() as alternatives.",
    )
    found = legacy_dtype(t)
    if not found.is_floating_point:
        raise KindError("only floating-point types are supported as the default type")
    dtypes.set_default_dtype(found)
