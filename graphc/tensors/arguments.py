"""Arguments of functions that make tensors, checked in PyTorch's words."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.devices import use_device
from graphc.errors import DTypeError, KindError, ShapeError, UnsupportedError, UsageError
from graphc.ir.types import DType, TensorType
from graphc.layouts import Order, check_layout
from graphc.naming import named
from graphc.recording import THREADS
from graphc.tensors.core import TensorBase, alias
from graphc.tensors.operands import plain
from graphc.tensors.out import into, refuse_gradients
from graphc.tensors.shaping import permute
from graphc.tensors.views import inverse_permutation
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

# More bytes than an address can name: NumPy's and PyTorch's own refusals come as different errors.
_LARGEST = 1 << 47


def kind(value: object) -> str:
    """The name of the value's type."""
    return type(value).__name__


def _is_extent(value: object) -> bool:
    return not isinstance(value, bool | np.bool_) and (
        isinstance(value, int | np.integer)
        or (isinstance(value, TensorBase) and value._type.rank == 0 and value._type.dtype.is_integer)
    )


def shape_of(name: str, size: Sequence[Any], kwargs: dict[str, Any]) -> tuple[int, ...]:
    """The shape that `size`, numbers or one sequence, or the keyword `size` (taken out of `kwargs`) says.

    TypeError when there is none or it holds other things, ShapeError for negative extents.
    """
    if "size" in kwargs:
        size = (kwargs.pop("size"),)
        if _is_extent(size[0]):
            raise KindError(f"{name}(): argument 'size' must be tuple of ints, not {kind(size[0])}")
    if kwargs:
        raise KindError(f"{name}() got an unexpected keyword argument '{next(iter(kwargs))}'")
    if not size:
        raise KindError(f'{name}() missing 1 required positional arguments: "size"')
    if _is_extent(size[0]):
        values = size
    elif len(size) == 1 and isinstance(size[0], list | tuple):
        values = size[0]
    else:
        raise KindError(f"{name}(): argument 'size' (position 1) must be tuple of ints, not {kind(size[0])}")
    return extents(name, values)


def extents(name: str, values: Sequence[Any]) -> tuple[int, ...]:
    """Whole numbers of at least 0 as a shape."""
    for place, value in enumerate(values, 1):
        if not _is_extent(value):
            raise KindError(
                f"{name}(): argument 'size' failed to unpack the object at pos {place} with error \"type must be "
                f'tuple of ints,but got {kind(value)}"'
            )
    shape = tuple(value.__index__() for value in values)
    for extent in shape:
        if extent < 0:
            zeros = "zeros: Dimension size must be non-negative."
            other = f"Trying to create tensor with negative dimension {extent}: {list(shape)}"
            raise ShapeError(zeros if name == "zeros" else other)
    return shape


def sized(shape: tuple[int, ...], dtype: DType) -> TensorType:
    """The type of a tensor that is to be made, on the device where things are made now. RuntimeError, which is
    MemoryError too, when nothing can hold it.
    """
    if math.prod(shape) * dtype.itemsize >= _LARGEST:
        raise _TooLarge(
            f"Storage size calculation overflowed with sizes={list(shape)}: {math.prod(shape) * dtype.itemsize:,} bytes"
        )
    return TensorType(dtype, shape, THREADS.recorder.place)


class _TooLarge(UsageError, MemoryError):
    """More memory than there are addresses."""


def tensor_argument(name: str, value: object, argument: str = "input", position: int = 1) -> Tensor:
    """`value`, which must be a tensor (TypeError)."""
    if not isinstance(value, TensorBase):
        raise KindError(f"{name}(): argument '{argument}' (position {position}) must be Tensor, not {kind(value)}")
    return value  # type: ignore[return-value]


def number_argument(name: str, value: object, argument: str, position: int) -> int | float | bool:
    """`value` as a Python number: a number or a 0-d tensor that collects no gradients (TypeError)."""
    if isinstance(value, TensorBase) and value._type.rank == 0 and not value.requires_grad:
        value = value._array()[()]
    if isinstance(value, np.generic):
        value = plain(value)
    if isinstance(value, complex):
        raise UnsupportedError(f"{name}: graphc has no complex numbers, got {value}")
    if not isinstance(value, int | float):
        raise KindError(f"{name}(): argument '{argument}' (position {position}) must be Number, not {kind(value)}")
    return value


def finished(tensor: Tensor, requires_grad: bool) -> Tensor:
    """The tensor, collecting gradients if it is to. DTypeError where it cannot."""
    if requires_grad and not tensor._type.dtype.is_float:
        raise DTypeError("Only Tensors of floating point and complex dtype can require gradients")
    return tensor.requires_grad_() if requires_grad else tensor


def check_flags(name: str, requires_grad: object, device: Any, layout: Any) -> str:
    """The errors of flags that can be seen before anything is made; gives the name of the device."""
    place = use_device(device)
    check_layout(layout, name)
    if not isinstance(requires_grad, bool):
        raise KindError(f"{name}(): argument 'requires_grad' must be bool, not {kind(requires_grad)}")
    return place


def placed(place: str, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What `make(*args, **kwargs)` gives, with what it makes from nothing on the device `place`."""
    recorder = THREADS.recorder
    saved = recorder.place
    if saved == place:
        return make(*args, **kwargs)
    recorder.place = place
    try:
        return make(*args, **kwargs)
    finally:
        recorder.place = saved


def constructor(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """A function that makes a tensor of `dtype`, with PyTorch's keywords `out`, `layout`, `device`, `pin_memory`
    and `requires_grad`.
    """
    name = function.__name__.rstrip("_")

    @functools.wraps(function)
    def made(
        *args: Any,
        out: Tensor | None = None,
        layout: Any = None,
        device: Any = None,
        pin_memory: Any = False,
        requires_grad: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        place = check_flags(name, requires_grad, device, layout)
        if out is None:
            if THREADS.recorder.place == place:
                made = function(*args, **kwargs)
            else:
                made = placed(place, function, *args, **kwargs)
            return finished(made, requires_grad) if requires_grad else made
        refuse_gradients(name, (*args, out))
        wanted = kwargs.get("dtype")
        if wanted is None:
            kwargs["dtype"] = out.dtype
        elif dtypes.to_ir(wanted) is not out._type.dtype:
            raise DTypeError(
                f"dtype {type_name(dtypes.to_ir(wanted))} does not match dtype of out parameter "
                f"({type_name(out._type.dtype)})"
            )
        made = placed(out._type.device, function, *args, **kwargs)
        if out._type.shape != made._type.shape:
            out.resize_(made._type.shape)  # without the warning that other functions give
        return into(out, made, name)

    return named(made, function.__name__)


def arranged(make: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...], order: Order) -> Tensor:
    """What `make` gives, with the dimensions of `shape` lying in memory in `order`."""
    if order == tuple(range(len(shape))):
        return make(shape)
    made = make(tuple(shape[i] for i in order))
    return alias(permute(made, inverse_permutation(order)))


def wanted_type(dtype: object) -> DType:
    """The dtype asked for, or the default float type."""
    return dtypes.default_ir() if dtype is None else dtypes.to_ir(dtype)
