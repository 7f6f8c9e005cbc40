"""Tensors of one number: `zeros`, `ones`, `full`, `empty`, their `_like` and `new_` forms, and `eye`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.errors import KindError, ShapeError, UnsupportedError, UsageError
from graphc.ir.types import DType, boolean, i64
from graphc.layouts import memory_format as MemoryFormat
from graphc.layouts import order_of, preserve_format
from graphc.naming import named
from graphc.tensors.arguments import (
    arranged,
    check_flags,
    constructor,
    extents,
    finished,
    kind,
    number_argument,
    placed,
    shape_of,
    sized,
    tensor_argument,
    wanted_type,
)
from graphc.tensors.core import TensorBase, record
from graphc.tensors.filling import check_holds, number_tensor
from graphc.tensors.learning import repeatable
from graphc.tensors.operands import fit
from graphc.tensors.strided import memory_of, strided_view

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def constant(value: Any, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """A tensor with every element `value`, pending."""
    type = sized(shape, dtype)
    return record("", (), lambda b: b.constant(value, type))


@constructor
@repeatable
def zeros(*size: Any, dtype: Any = None, **kwargs: Any) -> Tensor:
    """A tensor of zeros; the shape as numbers or as one sequence."""
    return constant(0, shape_of("zeros", size, kwargs), wanted_type(dtype))


@constructor
@repeatable
def ones(*size: Any, dtype: Any = None, **kwargs: Any) -> Tensor:
    """A tensor of ones; the shape as numbers or as one sequence."""
    return constant(1, shape_of("ones", size, kwargs), wanted_type(dtype))


def empty(
    *size: Any,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: Any = False,
    memory_format: MemoryFormat | None = None,
    **kwargs: Any,
) -> Tensor:
    """A tensor whose contents are not specified (zeros here, so that programs are repeatable)."""
    place = check_flags("empty", requires_grad, device, layout)
    shape = shape_of("empty", size, kwargs)
    if out is not None:
        return out.resize_(shape)
    found = wanted_type(dtype)
    made = placed(place, arranged, lambda s: constant(0, s, found), shape, order_of(memory_format, shape))
    return finished(made, requires_grad)


@constructor
def empty_strided(size: Any, stride: Any, *, dtype: Any = None) -> Tensor:
    """A tensor of a shape whose elements lie in memory at `stride`; contents are not specified (zeros here).

    UnsupportedError for strides under which different indices meet in one place, other than by a stride of 0.
    """
    shape, strides = extents("empty_strided", size), tuple(int(s) for s in stride)
    if len(shape) != len(strides):
        raise ShapeError(
            f"dimensionality of sizes ({len(shape)}) must match dimensionality of strides ({len(strides)})"
        )
    if any(s < 0 for s in strides):
        raise ShapeError(f"Storage size calculation overflowed with sizes={list(shape)} and strides={list(strides)}")
    # Whole rows, also the last one, which PyTorch lets end with its last element.
    count = max(memory_of(shape, strides), *(n * s for n, s in zip(shape, strides, strict=True)), 0)
    flat = constant(0, (count,), wanted_type(dtype))
    made = strided_view(flat, shape, strides, 0)
    if made is None:
        raise UnsupportedError(f"empty_strided: strides {list(strides)} of sizes {list(shape)} overlap")
    return made


def empty_permuted(size: Any, physical_layout: Any, *, dtype: Any = None, **flags: Any) -> Tensor:
    """A tensor of a shape whose dimensions lie in memory in the order `physical_layout`; contents are not specified
    (zeros here).
    """
    order, shape = tuple(physical_layout), extents("empty_permuted", size)
    if len(shape) != len(order):
        raise ShapeError(
            "Number of dimensions in size does not match the length of the physical_layout; i.e. len(size) = "
            f"{len(shape)} is not equal to len(physical_layout) = {len(order)}"
        )
    for place, dim in enumerate(order):
        if not 0 <= dim < len(shape):
            raise ShapeError(
                f"Dimension out of range (expected to be between 0 and {len(shape) - 1}, but got {dim} at index "
                f"{place}).  NB: negative dims not currently supported; file an issue if you want it."
            )
        if dim in order[:place]:
            raise ShapeError("Duplicate dim not allowed")
    found, requires_grad = wanted_type(dtype), flags.pop("requires_grad", False)
    place = check_flags("empty_permuted", requires_grad, flags.pop("device", None), flags.pop("layout", None))
    flags.pop("pin_memory", None)
    if flags:
        raise KindError(f"empty_permuted() got an unexpected keyword argument '{next(iter(flags))}'")
    return finished(placed(place, arranged, lambda s: constant(0, s, found), shape, order), requires_grad)


def _fill_dtype(value: int | float | bool) -> DType:
    if isinstance(value, bool):
        return boolean
    return i64 if isinstance(value, int) else dtypes.default_ir()


@constructor
@repeatable
def full(size: Any, fill_value: Any, *, dtype: Any = None) -> Tensor:
    """A tensor with every element `fill_value`; its dtype follows the value unless given.

    DTypeError when the dtype cannot hold the value.
    """
    if not isinstance(size, list | tuple):
        raise KindError(f"full(): argument 'size' (position 1) must be tuple of ints, not {kind(size)}")
    value = number_argument("full", fill_value, "fill_value", 2)
    return _full(extents("full", size), value, _fill_dtype(value) if dtype is None else dtypes.to_ir(dtype))


def _full(shape: tuple[int, ...], value: int | float | bool, dtype: DType) -> Tensor:
    check_holds(value, dtype)
    held = bool(value) if dtype is boolean else fit(value, dtype)
    return number_tensor(held, sized(shape, dtype), "full", value)


def like(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """A function of a tensor's shape and IR dtype as one of a tensor, with PyTorch's keywords."""
    name = function.__name__

    @functools.wraps(function)
    def made(
        input: Tensor,
        *args: Any,
        dtype: Any = None,
        layout: Any = None,
        device: Any = None,
        pin_memory: Any = False,
        requires_grad: bool = False,
        memory_format: MemoryFormat = preserve_format,
        **kwargs: Any,
    ) -> Tensor:
        given = tensor_argument(name, input)
        place = check_flags(name, requires_grad, given._type.device if device is None else device, layout)
        found = given._type.dtype if dtype is None else dtypes.to_ir(dtype)
        shape = given._type.shape
        order = order_of(memory_format, shape, given._strides)
        made = placed(place, arranged, lambda s: function(s, found, *args, **kwargs), shape, order)
        return finished(made, requires_grad)

    return named(made, function.__name__)


@repeatable
@like
def zeros_like(shape: tuple[int, ...], dtype: DType) -> Tensor:
    """Zeros in the shape, dtype and order in memory of a tensor."""
    return constant(0, shape, dtype)


@repeatable
@like
def ones_like(shape: tuple[int, ...], dtype: DType) -> Tensor:
    """Ones in the shape, dtype and order in memory of a tensor."""
    return constant(1, shape, dtype)


@repeatable
@like
def empty_like(shape: tuple[int, ...], dtype: DType) -> Tensor:
    """Unspecified contents (zeros here) in the shape, dtype and order in memory of a tensor."""
    return constant(0, shape, dtype)


@repeatable
@like
def full_like(shape: tuple[int, ...], dtype: DType, fill_value: Any) -> Tensor:
    """`fill_value` everywhere, in the shape, dtype and order in memory of a tensor."""
    return _full(shape, number_argument("full_like", fill_value, "fill_value", 2), dtype)


def _extent(value: Any, argument: str) -> int:
    if isinstance(value, bool | float) or not hasattr(value, "__index__"):
        raise KindError(
            f"eye(): argument '{argument}' (position {'nm'.index(argument) + 1}) must be int, not {kind(value)}"
        )
    if value.__index__() < 0:
        raise ShapeError(f"{argument} must be greater or equal to 0, got {value}")
    return value.__index__()


@constructor
@repeatable
def eye(n: int, m: int | None = None, *, dtype: Any = None) -> Tensor:
    """Ones on the diagonal of an n by m matrix, zeros elsewhere."""
    rows = _extent(n, "n")
    type = sized((rows, rows if m is None else _extent(m, "m")), i64)
    found = wanted_type(dtype)
    return record("", (), lambda b: b.cast(b.apply("eq", (b.iota(0, type), b.iota(1, type))), found))


def is_tensor(obj: object) -> bool:
    """Whether `obj` is a tensor."""
    return isinstance(obj, TensorBase)


def view_as_real(input: Tensor) -> Tensor:
    """RuntimeError, as in PyTorch for all that is not complex."""
    tensor_argument("view_as_real", input)
    raise UsageError("view_as_real is only supported for complex tensors")


def view_as_complex(input: Tensor) -> Tensor:
    """UnsupportedError: graphc has no complex numbers."""
    tensor_argument("view_as_complex", input)
    raise UnsupportedError("view_as_complex: graphc has no complex dtypes; keep the parts in the last dimension")


def complex(real: Any, imag: Any, *, out: Any = None) -> Tensor:
    """UnsupportedError: graphc has no complex numbers."""
    raise UnsupportedError("complex: graphc has no complex dtypes; keep real and imaginary parts in two tensors")
