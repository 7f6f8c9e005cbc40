"""Running sums, products and extremes along a dimension, differences and integrals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.errors import UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.ops.scan import extreme_places, shifted
from graphc.ir.types import bf16, boolean, f16, f32, i64
from graphc.naming import named
from graphc.tensors import elementwise, results
from graphc.tensors.aliases import numpy_names
from graphc.tensors.core import TensorBase, record, record_many, wrap_dim
from graphc.tensors.joining import cat
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.out import out_form
from graphc.tensors.reductions import reduction, whole
from graphc.tensors.shaping import clone, slice_view, unsqueeze
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _scan(name: str, op: str, doc: str) -> Callable[..., Any]:
    def function(input: Tensor, dim: int, *, dtype: object = None) -> Tensor:
        axis = wrap_dim(whole(dim, name), input.ndim)

        def emit(b: Builder, x: Node) -> Node:
            kind = dtypes.to_ir(dtype) if dtype is not None else x.dtype if x.dtype.is_float else i64
            x = b.cast(x, i64 if kind is boolean else kind)
            return b.cast(b.scan(op, x, axis) if x.shape else x, kind)

        return record(f"{name.capitalize()}Backward0", (input,), emit)

    function.__name__, function.__doc__ = name, doc
    return reduction(function)


cumsum = _scan("cumsum", "scan_sum", "Running sums along `dim`; integers and bools give int64.")
cumprod = _scan("cumprod", "scan_prod", "Running products along `dim`; integers and bools give int64.")


def _running(name: str, op: str, which: str) -> Callable[..., Any]:
    def function(input: Tensor, dim: int) -> Any:
        axis = wrap_dim(whole(dim, name), input.ndim)

        def emit(b: Builder, x: Node) -> list[Node]:
            if not x.shape:
                return [x, b.constant(0, x.type.with_dtype(i64))]
            places = extreme_places(b, x, b.scan(op, x, axis), axis, False)
            if 0 in x.shape:
                return [x, places]
            return [b.apply("take_along", (x, places), {"axis": axis}), places]

        return getattr(results, name)(*record_many(f"{name.capitalize()}Backward0", (input,), emit))

    about = f"The {which} of the elements up to each one along `dim`, and where it stands (the last place)."
    return reduction(named(function, name, about))


cummax, cummin = _running("cummax", "scan_max", "largest"), _running("cummin", "scan_min", "smallest")


@reduction
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log of the running sums of exp(x) along `dim`, without overflow."""
    axis = wrap_dim(whole(dim, "logcumsumexp"), input.ndim)
    if not input._type.dtype.is_float:
        raise UnsupportedError(f"\"logcumsumexp_out_cpu\" not implemented for '{type_name(input._type.dtype)}'")

    def emit(b: Builder, x: Node) -> Node:
        if x.type.size == 0 or not x.shape:
            return x
        wide = b.cast(x, f32) if x.dtype in (f16, bf16) else x
        return b.cast(_logcumsumexp_node(b, wide, axis), x.dtype)

    return record("LogcumsumexpBackward0", (input,), emit)


def _logcumsumexp_node(b: Builder, x: Node, axis: int) -> Node:
    """log(s) + m with m the running maximum: s[k] = exp(m[k-1] - m[k]) * s[k-1] + exp(x[k] - m[k]), all terms at most
    1.
    """
    top = b.scan("scan_max", b.apply("detach", (x,)), axis)
    infinite = b.apply("eq", (b.apply("abs", (top,)), b.constant(math.inf, x.type)))
    safe = b.select(infinite, b.zeros_like(top), top)
    before, safe_before = shifted(b, top, axis, False, -math.inf), shifted(b, safe, axis, False, 0.0)
    # Nothing finite yet, or an infinity already: then the factor means nothing and must not become NaN.
    idle = b.apply("bitwise_or", (b.apply("eq", (before, b.constant(-math.inf, x.type))), infinite))
    factor = b.exp(b.sub(b.select(idle, b.zeros_like(safe), safe_before), b.select(idle, b.zeros_like(safe), safe)))
    return b.add(b.log(b.recurrence(factor, b.exp(b.sub(x, safe)), axis)), safe)


def _part(input: Tensor, axis: int, start: int, stop: int) -> Tensor:
    return slice_view(input, axis, start, max(stop - start, 0), 1)


@numpy_names
@out_form
def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours along `dim`, taken `n` times; of bools "not equal"."""
    if input.ndim == 0:
        raise UsageError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise UsageError(f"order must be non-negative but got {n}")
    axis = wrap_dim(dim, input.ndim)
    for name, more in (("prepend", prepend), ("append", append)):
        _check_joined(input, more, axis, name)
    if n == 0:
        return clone(input)
    parts = [t for t in (prepend, input, append) if t is not None]
    made = cat(parts, axis) if len(parts) > 1 else input
    minus = elementwise.logical_xor if made._type.dtype is boolean else elementwise.sub
    for _ in range(min(n, made._type.shape[axis])):
        length = made._type.shape[axis]
        made = minus(_part(made, axis, 1, length), _part(made, axis, 0, length - 1))
    return made


def _check_joined(input: Tensor, more: Tensor | None, axis: int, name: str) -> None:
    if more is None:
        return
    if more.ndim != input.ndim:
        raise UsageError("diff expects prepend or append to be the same dimension as input")
    for i, (mine, theirs) in enumerate(zip(input._type.shape, more._type.shape, strict=True)):
        if i != axis and mine != theirs:
            raise UsageError(
                f"diff expects the shape of tensor to {name} to match that of input except along the differencing "
                f"dimension; {name} has size {theirs} at dimension {i}, but input has size {mine}"
            )


def _steps(name: str, y: Tensor, x: Any, axis: int) -> Any:
    """The distances of the places x, shaped so that they broadcast against differences of y along `axis`."""
    if x.ndim == 0:
        raise UsageError(f"{name}: There must be one `x` value for each sample point")
    along = axis if x.ndim == y.ndim else 0 if x.ndim == 1 else x.ndim - (y.ndim - axis)
    if x.ndim == 1 and y.ndim > 1:
        if x._type.shape[0] != y._type.shape[axis]:
            raise UsageError(f"{name}: There must be one `x` value for each sample point")
        gaps = diff(x)
        for _ in range(y.ndim - axis - 1):
            gaps = unsqueeze(gaps, -1)
        return gaps
    return diff(x, dim=along)


def _panels(name: str, y: Tensor, x: Any, dx: Any, dim: int) -> tuple[Any, Any, int]:
    """Sums of neighbours of y, distances, and the axis."""
    axis = wrap_dim(dim, y.ndim)
    if y._type.dtype is boolean:
        raise UsageError(f"{name}: received a bool input for `y`, but bool is not supported")
    if x is not None and not isinstance(x, TensorBase):
        x, dx = None, x
    if isinstance(x, TensorBase) and x._type.dtype is boolean:
        raise UsageError(f"{name}: received a bool input for `x`, but bool is not supported")
    n = y._type.shape[axis]
    both = elementwise.add(_part(y, axis, 1, n), _part(y, axis, 0, n - 1))
    return both, (1 if dx is None else dx) if x is None else _steps(name, y, x, axis), axis


@kinds_checked
def trapezoid(y: Tensor, x: Any = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral along `dim` by the trapezoidal rule, over places `x` or with the distance `dx`."""
    if y._type.shape[wrap_dim(dim, y.ndim)] == 0:
        shape = tuple(n for i, n in enumerate(y._type.shape) if i != wrap_dim(dim, y.ndim))
        return record("MulBackward1", (y,), lambda b, v: b.constant(0, v.type.with_shape(shape)))
    both, gaps, axis = _panels("trapezoid", y, x, dx, dim)
    if isinstance(gaps, TensorBase):
        return elementwise.div(elementwise.mul(gaps, both).sum(axis), 2.0)
    return elementwise.mul(both.sum(axis), gaps / 2.0)


trapz = trapezoid


@kinds_checked
def cumulative_trapezoid(y: Tensor, x: Any = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The running integral along `dim` by the trapezoidal rule; see `trapezoid`."""
    both, gaps, axis = _panels("cumulative_trapezoid", y, x, dx, dim)
    if isinstance(gaps, TensorBase):
        return elementwise.div(cumsum(elementwise.mul(gaps, both), axis), 2.0)
    return cumsum(elementwise.mul(both, gaps / 2.0), axis)
