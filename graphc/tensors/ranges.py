"""Tensors of equal steps and what is made of them: ranges, indices of triangles, Vandermonde matrices, windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.errors import DTypeError, InputError, KindError, ShapeError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, boolean, f64, i64
from graphc.tensors.arguments import constructor, kind, number_argument, sized, tensor_argument, wanted_type
from graphc.tensors.core import TensorBase, alias, from_array, record
from graphc.tensors.learning import repeatable
from graphc.tensors.writing import type_name
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Number = int | float | bool


def _combination(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TypeError:
    got = ", ".join([*map(kind, args), *(f"{k}={kind(v)}" for k, v in kwargs.items())])
    return KindError(
        f"{name}() received an invalid combination of arguments - got ({got}), but expected one of: (end), "
        "(start, end), (start, end, step)"
    )


def _range_arguments(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Number, Number, Number]:
    """start, end and step."""
    names = ("end",) if len(args) == 1 and not {"end"} & set(kwargs) else ("start", "end", "step")
    values: dict[str, Any] = dict(zip(names, args, strict=False))
    extra = set(kwargs) - {"start", "end", "step"}
    if len(args) > 3 or extra or set(values) & set(kwargs) or (len(args) == 0 and "end" not in kwargs):
        raise _combination(name, args, kwargs)
    values.update(kwargs)
    if "end" not in values or ("step" in values and "start" not in values):
        raise _combination(name, args, kwargs)
    start, end, step = values.get("start", 0), values["end"], values.get("step", 1)
    first, second = (1, 2) if "start" in values else (0, 1)
    return (
        number_argument(name, start, "start", first),
        number_argument(name, end, "end", second),
        number_argument(name, step, "step", 3),
    )


def _check_range(start: Number, end: Number, step: Number) -> None:
    if step == 0:
        raise UsageError("step must be nonzero")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise UsageError(f"unsupported range: {start} -> {end}")
    if (end - start) * step < 0:
        raise UsageError("upper bound and lower bound inconsistent with step sign")


@constructor
@repeatable
def arange(*args: Any, dtype: Any = None, **kwargs: Any) -> Tensor:
    """start, start + step, ... below `end`: `arange(end)`, `arange(start, end)`, `arange(start, end, step)`."""
    start, end, step = _range_arguments("arange", args, kwargs)
    if dtype is None:
        found = dtypes.default_ir() if any(isinstance(v, float) for v in (start, end, step)) else i64
    else:
        found = dtypes.to_ir(dtype)
    if found is boolean:
        raise UnsupportedError("\"arange_cpu\" not implemented for 'Bool'")
    _check_range(start, end, step)
    if found is i64:
        start, end, step = int(start), int(end), int(step)
        if step == 0:
            raise InputError("step must be nonzero")
        count = max(0, -((start - end) // step))
    else:
        count = math.ceil((end - start) / step)
    return _steps(start, step, count, found)


def _steps(start: Number, step: Number, count: int, dtype: DType) -> Tensor:
    """start + i * step: whole numbers recorded, floats in double precision here, as PyTorch computes them."""
    type = sized((count,), dtype)
    if dtype.is_float:
        return from_array(start + step * np.arange(count, dtype=np.float64), dtype)
    wide, first, each = type.with_dtype(i64), int(start), int(step)
    return record("", (), lambda b: b.cast(b.add(b.mul(b.iota(0, wide), each), first), dtype))


@constructor
def range_(*args: Any, dtype: Any = None, **kwargs: Any) -> Tensor:
    """start, start + step, ... up to `end`, which is included. Deprecated in PyTorch: use `arange`."""
    warn(
        "torch.range is deprecated and will be removed in a future release because its behavior is inconsistent with "
        "Python's range builtin. Instead, use torch.arange, which produces values in [start, end).",
    )
    start, end, step = _range_arguments("range", args, kwargs)
    _check_range(start, end, step)
    return _steps(start, step, math.floor((end - start) / step) + 1, wanted_type(dtype))


def _end_number(name: str, start: Any, end: Any) -> tuple[Number, Number]:
    ranks = [v._type.rank if isinstance(v, TensorBase) else 0 for v in (start, end)]
    if any(ranks):
        raise UsageError(
            f"{name} only supports 0-dimensional start and end tensors, but got start with {ranks[0]} dimension(s) and "
            f"end with {ranks[1]} dimension(s)."
        )
    values = [alias(v) if isinstance(v, TensorBase) else v for v in (start, end)]
    return number_argument(name, values[0], "start", 1), number_argument(name, values[1], "end", 2)


def _count(name: str, steps: Any) -> int:
    if isinstance(steps, float | bool) or not hasattr(steps, "__index__"):
        raise KindError(f"{name}() received an invalid combination of arguments - steps must be int, not {kind(steps)}")
    if steps.__index__() < 0:
        raise UsageError("number of steps must be non-negative")
    return steps.__index__()


def _spaced(name: str, start: Number, end: Number, count: int, dtype: DType) -> np.ndarray:
    """Equal distances in the arithmetic of `dtype` (f64 for integers): from `start` up to the middle, then from `end`
    down, as PyTorch does it.
    """
    if dtype is boolean:
        raise UnsupportedError(f"\"{name}_cpu\" not implemented for 'Bool'")
    work = dtype.numpy.type if dtype.is_float else np.float64
    first, last = (work(start), work(end)) if dtype.is_float else (work(int(start)), work(int(end)))
    if count <= 1:
        return np.full(count, first)
    step = work((last - first) / work(count - 1))
    place = np.arange(count).astype(work)
    return np.where(np.arange(count) < count // 2, first + step * place, last - step * (work(count - 1) - place))


@constructor
def linspace(start: Any, end: Any, steps: Any, *, dtype: Any = None) -> Tensor:
    """`steps` values in equal distances from `start` to `end`, both included."""
    found = wanted_type(dtype)
    first, last = _end_number("linspace", start, end)
    return from_array(_spaced("linspace", first, last, _count("linspace", steps), found), found)


@constructor
def logspace(start: Any, end: Any, steps: Any, base: float = 10.0, *, dtype: Any = None) -> Tensor:
    """Powers of `base` with exponents in equal distances."""
    found = wanted_type(dtype)
    first, last = _end_number("logspace", start, end)
    exponents = _spaced("logspace", first, last, _count("logspace", steps), found)
    with np.errstate(all="ignore"):
        return from_array(np.power(np.float64(base), exponents.astype(np.float64)), found)


# indices of triangles


def _triangle(name: str, doc: str) -> Callable[..., Any]:
    def function(row: int, col: int, offset: int = 0, *, dtype: Any = i64) -> Tensor:
        for what, value in (("row", row), ("col", col)):
            if value < 0:
                raise ShapeError(f"{what} must be non-negative, got{value}")
        found = dtypes.to_ir(dtype)
        if found not in (i64, dtypes.int32.ir):
            raise UnsupportedError(f"\"{name}\" not implemented for '{type_name(found)}'")
        places = (np.tril if name == "tril_indices" else np.triu)(np.ones((row, col), np.bool_), offset)
        return from_array(np.stack(np.nonzero(places)), found)

    function.__name__, function.__doc__ = name, doc
    return constructor(function)


tril_indices = _triangle("tril_indices", "Rows and columns (int64[2, n]) of the lower triangle of a matrix.")
triu_indices = _triangle("triu_indices", "Rows and columns (int64[2, n]) of the upper triangle of a matrix.")


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Powers of a vector as columns, the highest first unless `increasing`; N columns (as many as elements)."""
    vector = tensor_argument("vander", x, "x")
    if vector._type.rank != 1:
        raise ShapeError("x must be a one-dimensional tensor.")
    count = vector._type.size if N is None else N
    if count < 0:
        raise ShapeError("N must be non-negative.")
    dtype = vector._type.dtype if vector._type.dtype.is_float else i64

    def emit(b: Builder, node: Node) -> Node:
        node = b.cast(node, dtype)
        powers = [b.constant(1, node.type)]
        while len(powers) < count:
            powers.append(b.mul(powers[-1], node))
        columns = tuple(b.reshape(p, (*p.shape, 1)) for p in powers[:count])
        if not columns:
            return b.constant(0, node.type.with_shape((vector._type.size, 0)))
        return b.concat(columns if increasing else columns[::-1], 1)

    return record("FlipBackward0", (vector,), emit)


# windows


def _window(function: Callable[..., np.ndarray]) -> Callable[..., Any]:
    """A window over `place` (0, 1, ... as floats) of a given length; a periodic one is one longer and loses its end."""
    name = function.__name__

    def made(window_length: int, periodic: bool = True, *shape: Any, dtype: Any = None, **named: Any) -> Tensor:
        if window_length < 0:
            raise ShapeError(f"{name} requires non-negative window_length, got window_length={window_length}")
        found = wanted_type(dtype)
        if not found.is_float:
            raise DTypeError(f"{name} expects floating point dtypes, got: {dtypes.public(found)}")
        if window_length <= 1:
            return from_array(np.ones(window_length), found)
        length = window_length + bool(periodic)
        place = np.arange(length, dtype=np.float64 if found is f64 else np.float32)
        return from_array(function(place, length - 1, *shape, **named)[:window_length], found)

    made.__name__, made.__doc__ = name, function.__doc__
    return constructor(made)


@_window
def hann_window(place: np.ndarray, last: int) -> np.ndarray:
    """0.5 - 0.5 cos(2 pi n / N)."""
    return hamming(place, last, 0.5, 0.5)


def hamming(place: np.ndarray, last: int, alpha: float, beta: float) -> np.ndarray:
    """alpha - beta cos(2 pi n / N)."""
    return np.cos(place * place.dtype.type(2 * math.pi / last)) * place.dtype.type(-beta) + place.dtype.type(alpha)


@_window
def hamming_window(place: np.ndarray, last: int, alpha: float = 0.54, beta: float = 0.46) -> np.ndarray:
    """alpha - beta cos(2 pi n / N)."""
    return hamming(place, last, alpha, beta)


@_window
def blackman_window(place: np.ndarray, last: int) -> np.ndarray:
    """0.42 - 0.5 cos(2 pi n / N) + 0.08 cos(4 pi n / N)."""
    real = place.dtype.type
    angle = place * real(math.pi / last)
    return np.cos(angle * real(4)) * real(0.08) - np.cos(angle * real(2)) * real(0.5) + real(0.42)


@_window
def bartlett_window(place: np.ndarray, last: int) -> np.ndarray:
    """A triangle: 1 - |2 n / N - 1|."""
    risen = place * place.dtype.type(2 / last)
    return np.where(np.arange(len(place)) <= last >> 1, risen, place.dtype.type(2) - risen)


@_window
def kaiser_window(place: np.ndarray, last: int, beta: float = 12.0) -> np.ndarray:
    """Kaiser's window of the parameter `beta`, by the modified Bessel function of order 0."""
    around = (place.astype(np.float64) - last / 2) / (last / 2)
    return np.i0(beta * np.sqrt(np.maximum(1 - around * around, 0))) / np.i0(beta)
