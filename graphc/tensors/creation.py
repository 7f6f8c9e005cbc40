"""Creation functions with PyTorch's names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.errors import DTypeError
from graphc.ir.types import DType, TensorType, boolean, dtype_of_numpy, i64
from graphc.tensors.core import Device, TensorBase, from_array, from_buffer, record
from graphc.tensors.operands import plain
from graphc.tensors.shaping import ints
from graphc_runtime.buffer import Buffer

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

# More bytes than an address can name: NumPy's and PyTorch's own refusals come as different errors.
_LARGEST = 1 << 47


def finished(tensor: Tensor, requires_grad: bool, device: Any = None) -> Tensor:
    """The tensor with the flags that creation functions take."""
    if device is not None:
        Device(device)
    if requires_grad and not tensor._type.dtype.is_float:
        raise RuntimeError("Only Tensors of floating point and complex dtype can require gradients")
    return tensor.requires_grad_() if requires_grad else tensor


def _infer(data: Any) -> np.ndarray:
    if isinstance(data, np.ndarray | np.generic):
        return np.asarray(data)
    array = np.array(_plain_nested(data))
    if array.dtype == object:
        raise ValueError("expected sequences of equal length, of numbers")
    if array.dtype.kind == "f":
        return array.astype(dtypes.default_ir().numpy)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind != "b":
        raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
    return array


def _plain_nested(data: Any) -> Any:
    """Lists with 0-d and larger tensors in them as lists of arrays."""
    if isinstance(data, TensorBase):
        return data._array()
    if isinstance(data, list | tuple) and any(isinstance(x, TensorBase | list | tuple) for x in data):
        return [_plain_nested(x) for x in data]
    return data


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A tensor with a copy of `data` (numbers, nested sequences, an array). Floats get the default float type,
    integers int64.
    """
    if isinstance(data, TensorBase):
        array = data._array()
        wanted = data._type.dtype if dtype is None else dtypes.to_ir(dtype)
    else:
        array = _infer(data)
        wanted = _array_dtype(array) if dtype is None else dtypes.to_ir(dtype)
        if dtype is not None and wanted.is_integer and not isinstance(data, np.ndarray):
            _check_overflow(array, wanted)
    with np.errstate(all="ignore"):
        made = from_array(array, wanted)
    return finished(made, requires_grad, device)


def _check_overflow(array: np.ndarray, wanted: DType) -> None:
    if array.size and array.dtype.kind == "i":
        info = np.iinfo(wanted.numpy)
        if array.max() > info.max or (array.min() < info.min and wanted.kind == "int"):
            raise RuntimeError(f"value cannot be converted to type {wanted.torch_name} without overflow")


def _array_dtype(array: np.ndarray) -> DType:
    found = dtype_of_numpy(array.dtype.newbyteorder("="))
    if found is None:
        raise TypeError(
            f"can't convert np.ndarray of type {array.dtype}. The only supported types are: "
            f"{', '.join(d.torch_name for d in dtypes._ALL)}."
        )
    return found


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor over the memory of an array: writes on either side show on the other.

    Arrays that are not in row-major order, or read-only, are shared as far as PyTorch shares them; graphc wants row-
    major order
    and copies others (`ValueError` for negative strides, as in PyTorch).
    """
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    if any(s < 0 for s in ndarray.strides):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative strides are not "
            "currently "
            "supported. (You can probably work around this by making a copy of your array  with array.copy().)"
        )
    dtype = _array_dtype(ndarray)
    shared = ndarray.flags.c_contiguous and ndarray.flags.writeable and ndarray.dtype.isnative
    if not shared:
        return from_array(ndarray, dtype)
    made = from_buffer(Buffer.from_array(ndarray), TensorType(dtype, ndarray.shape))
    made._storage.external = ndarray
    return made


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor; arrays are shared, tensors returned as they are, when the dtype fits."""
    if isinstance(data, TensorBase):
        return data if dtype is None else data.to(dtype)  # type: ignore[return-value]
    if isinstance(data, np.ndarray):
        made = from_numpy(data)
        return made if dtype is None else made.to(dtype)
    return tensor(data, dtype=dtype, device=device)


def asarray(obj: Any, *, dtype: Any = None) -> Tensor:
    """The same as `as_tensor`."""
    return as_tensor(obj, dtype)


def _shape_of(size: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> tuple[int, ...]:
    if "size" in kwargs:
        size = (kwargs.pop("size"),)
    shape = ints(size)
    for n in shape:
        if n < 0:
            raise RuntimeError(f"{name}: Dimension size must be non-negative. The shape is {list(shape)}")
    return shape


def _type(shape: tuple[int, ...], dtype: DType) -> TensorType:
    type = TensorType(dtype, shape)
    if type.nbytes >= _LARGEST:
        raise MemoryError(f"a tensor {type} would take {type.nbytes:,} bytes")
    return type


def constant(value: Any, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """A tensor with every element `value`, pending."""
    type = _type(shape, dtype)
    return record("", (), lambda b: b.constant(value, type))


def _filled(value: Any) -> Any:
    def function(
        *size: Any,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        layout: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        shape = _shape_of(size, kwargs, "ones" if value else "zeros")
        if kwargs:
            raise TypeError(f"unexpected keyword argument {next(iter(kwargs))!r}")
        made = constant(value, shape, dtypes.default_ir() if dtype is None else dtypes.to_ir(dtype))
        return finished(made, requires_grad, device)

    return function


zeros = _filled(0)
zeros.__doc__ = "A tensor of zeros; the shape as numbers or as one sequence."
ones = _filled(1)
ones.__doc__ = "A tensor of ones; the shape as numbers or as one sequence."


def empty(
    *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, layout: Any = None, **kwargs: Any
) -> Tensor:
    """A tensor whose contents are not specified (zeros here, so that programs are repeatable)."""
    return zeros(*size, dtype=dtype, device=device, requires_grad=requires_grad, **kwargs)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor with every element `fill_value`; its dtype follows the value unless given."""
    if dtype is None:
        if isinstance(fill_value, bool):
            found = boolean
        else:
            found = i64 if isinstance(fill_value, int) else dtypes.default_ir()
    else:
        found = dtypes.to_ir(dtype)
    shape = _shape_of((size,), {}, "full")
    if isinstance(fill_value, TensorBase):
        made = record("", (fill_value,), lambda b, x: b.broadcast(b.cast(x, found), shape))
    else:
        made = constant(plain(fill_value), shape, found)
    return finished(made, requires_grad, device)


def _like(maker: Any) -> Any:
    def function(
        input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, memory_format: Any = None
    ) -> Tensor:
        return maker(input._type.shape, dtype=input.dtype if dtype is None else dtype, requires_grad=requires_grad)

    function.__doc__ = "A tensor of the same shape and dtype."
    return function


zeros_like, ones_like, empty_like = _like(zeros), _like(ones), _like(empty)


def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of the same shape and dtype with every element `fill_value`."""
    return full(
        input._type.shape, fill_value, dtype=input.dtype if dtype is None else dtype, requires_grad=requires_grad
    )


def arange(*args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **kwargs: Any) -> Tensor:
    """start, start + step, ... below `end`: `arange(end)`, `arange(start, end)`, `arange(start, end, step)`."""
    start, end, step = _range(args, kwargs)
    given = (start, end, step)
    if dtype is None:
        found = dtypes.default_ir() if any(isinstance(v, float) for v in given) else i64
    else:
        found = dtypes.to_ir(dtype)
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if (end - start) * step < 0:
        raise RuntimeError("upper bound and lower bound inconsistent with step sign")
    count = math.ceil((end - start) / step)
    if found is boolean:
        raise DTypeError("\"arange_cpu\" not implemented for 'Bool'")
    type = _type((max(count, 0),), found)
    if found.is_float:
        # The terms in double precision, then rounded, as PyTorch computes them.
        return finished(from_array(start + step * np.arange(count, dtype=np.float64), found), requires_grad, device)
    made = record("", (), lambda b: b.add(b.mul(b.iota(0, type), step), start))
    return finished(made, requires_grad, device)


def _range(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
    names = ("start", "end", "step")
    values: dict[str, Any] = {"start": 0, "step": 1}
    values.update(zip(("end",) if len(args) == 1 else names, (plain(_number(a)) for a in args), strict=False))
    values.update({k: plain(_number(v)) for k, v in kwargs.items() if k in names})
    if "end" not in values or set(kwargs) - set(names):
        raise TypeError("arange() takes end; start, end; or start, end, step")
    return values["start"], values["end"], values["step"]


def _number(value: Any) -> Any:
    return value._array().item() if isinstance(value, TensorBase) else value


def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, requires_grad: bool = False, device: Any = None
) -> Tensor:
    """`steps` values in equal distances from `start` to `end`, both included."""
    found = dtypes.default_ir() if dtype is None else dtypes.to_ir(dtype)
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    return finished(from_array(np.linspace(_number(start), _number(end), steps), found), requires_grad, device)


def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: Any = None) -> Tensor:
    """Powers of `base` with exponents in equal distances."""
    found = dtypes.default_ir() if dtype is None else dtypes.to_ir(dtype)
    return from_array(np.logspace(_number(start), _number(end), steps, base=base), found)


def eye(n: int, m: int | None = None, *, dtype: Any = None, requires_grad: bool = False, device: Any = None) -> Tensor:
    """Ones on the diagonal of an n by m matrix, zeros elsewhere."""
    found = dtypes.default_ir() if dtype is None else dtypes.to_ir(dtype)
    type = _type((n, n if m is None else m), i64)
    made = record("", (), lambda b: b.cast(b.apply("eq", (b.iota(0, type), b.iota(1, type))), found))
    return finished(made, requires_grad, device)


def scalar_tensor(value: Any, *, dtype: Any = None) -> Tensor:
    """A number as a 0-d tensor."""
    return tensor(value, dtype=dtype or dtypes.get_default_dtype())


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinate matrices of vectors ("ij" or "xy" order)."""
    given: Sequence[Tensor] = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    order = list(given)
    if indexing == "xy" and len(order) > 1:
        order[0], order[1] = order[1], order[0]
    shape = tuple(t._type.size for t in order)
    grids = []
    for place, vector in enumerate(order):
        kept = tuple(n if i == place else 1 for i, n in enumerate(shape))
        grids.append(vector.reshape(kept).expand(shape))
    if indexing == "xy" and len(order) > 1:
        grids[0], grids[1] = grids[1].transpose(0, 1), grids[0].transpose(0, 1)
    return tuple(grids)


def is_tensor(obj: object) -> bool:
    """Whether `obj` is a tensor."""
    return isinstance(obj, TensorBase)
