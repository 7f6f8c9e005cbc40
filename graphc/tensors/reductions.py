"""Reductions with PyTorch's names: sums, means, extremes, truth, norms."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.errors import DTypeError, KindError, RangeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, bf16, boolean, f16, f32, i64, u8
from graphc.naming import named
from graphc.promotion import as_float
from graphc.tensors import elementwise, results
from graphc.tensors.aliases import numpy_names
from graphc.tensors.core import TensorBase, record, record_many, wrap_dim
from graphc.tensors.learning import AGAIN, MISSED, repeatable
from graphc.tensors.out import out_form
from graphc.tensors.shaping import ints
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Dims = Any  # None, an integer or a sequence of integers
Emit = Callable[[Builder, Node], Node]


def reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of a tensor, with `out=` and with NumPy's names of arguments."""
    inner = numpy_names(out_form(function))
    name = function.__name__.rstrip("_")

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        made = AGAIN[0](function, args, kwargs)  # which knows no other names, and no `out`
        if made is not MISSED:
            return made
        if args and not isinstance(args[0], TensorBase):
            raise KindError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(args[0]).__name__}")
        return inner(*args, **kwargs)

    return named(checked, name)


def whole(value: Any, name: str, argument: str = "dim") -> int:
    """`value` as an integer; TypeError for anything else, bools included."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise KindError(f"{name}(): argument '{argument}' must be int, not {type(value).__name__}")
    return operator.index(value)


def axes_of(dim: Dims, rank: int, name: str = "sum") -> tuple[int, ...]:
    """The axes that `dim` names, in order; all when it is None or empty."""
    if dim is None:
        return tuple(range(rank))
    dims = tuple(dim) if isinstance(dim, Iterable) and not isinstance(dim, TensorBase | str) else (dim,)
    if not dims:
        return tuple(range(rank))
    axes = tuple(wrap_dim(whole(d, name), rank) for d in dims)
    if len(set(axes)) != len(axes):
        twice = next(a for a in axes if axes.count(a) > 1)
        raise UsageError(f"dim {twice} appears multiple times in the list of dims")
    return tuple(sorted(a for a in axes if a < rank))


def check_keepdim(keepdim: Any) -> None:
    """TypeError when `keepdim` is no bool: x.sum(0, 1) does not sum over two dimensions."""
    if not isinstance(keepdim, bool):
        raise KindError(f"argument 'keepdim' must be bool, not {type(keepdim).__name__}")


def keep(b: Builder, node: Node, axes: tuple[int, ...], shape: tuple[int, ...], keepdim: bool) -> Node:
    """Reduced dimensions put back with size 1 when `keepdim`."""
    check_keepdim(keepdim)
    return b.reshape(node, tuple(1 if i in axes else n for i, n in enumerate(shape))) if keepdim else node


def _accumulate_type(x: Node, dtype: object) -> DType:
    if dtype is not None:
        return dtypes.to_ir(dtype)
    return x.dtype if x.dtype.is_float else i64


def _reduced(b: Builder, op: str, x: Node, axes: tuple[int, ...], dtype: object) -> Node:
    """A sum or product of elements as `dtype`; a sum of bools that stays one asks whether any is true."""
    x = b.cast(x, _accumulate_type(x, dtype))
    if not axes:
        return x
    made = b.apply(op, (b.cast(x, i64) if x.dtype is boolean else x,), {"axes": axes})
    return b.cast(made, x.dtype)


def is_nan(b: Builder, x: Node) -> Node:
    """Where x is NaN."""
    return b.apply("ne", (x, x))


# sums and means


@reduction
def sum(input: Tensor, dim: Dims = ..., keepdim: bool = False, *, dtype: object = None) -> Tensor:
    """Sum over `dim` (all dimensions when None); integers and bools sum to int64."""
    axes = axes_of(None if dim is ... else dim, input.ndim)

    def emit(b: Builder, x: Node) -> Node:
        return keep(b, _reduced(b, "reduce_sum", x, axes, dtype), axes, x.shape, keepdim)

    return record("SumBackward0" if dim is ... else "SumBackward1", (input,), emit)


def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """Sums over what broadcasting `size` to the tensor's shape repeats, of integers in int64; the tensor itself when
    nothing is.
    """
    wanted, shape = ints(size), input._type.shape
    extra = len(shape) - len(wanted)
    if extra < 0 or any(n not in (1, m) for n, m in zip(wanted, shape[extra:], strict=True)):
        raise UsageError(f"size {{{list(wanted)}}} is not expandable to size {{{list(shape)}}}.")
    axes = tuple(i for i, n in enumerate(shape) if i < extra or (wanted[i - extra] == 1 and n != 1))
    if wanted == shape:
        return input
    name = "ViewBackward0" if extra else "SumBackward1"
    return record(name, (input,), lambda b, x: b.reshape(_reduced(b, "reduce_sum", x, axes, None), wanted))


def _without_nan(b: Builder, x: Node) -> Node:
    return b.select(is_nan(b, x), b.zeros_like(x), x) if x.dtype.is_float else x


@reduction
def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: object = None) -> Tensor:
    """Sum over `dim` with NaN counted as zero."""
    axes = axes_of(dim, input.ndim, "nansum")

    def emit(b: Builder, x: Node) -> Node:
        return keep(b, _reduced(b, "reduce_sum", _without_nan(b, x), axes, dtype), axes, x.shape, keepdim)

    return record("NansumBackward0", (input,), emit)


@reduction
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: object = None) -> Tensor:
    """Mean over `dim` of what is not NaN. RuntimeError for integers."""
    if not input._type.dtype.is_float:
        raise DTypeError(
            f"nanmean(): expected input to have floating point or complex dtype but got {type_name(input._type.dtype)}"
        )
    axes = axes_of(dim, input.ndim, "nanmean")

    def emit(b: Builder, x: Node) -> Node:
        x = b.cast(x, _accumulate_type(x, dtype))
        count = b.reduce_sum(b.cast(b.apply("eq", (x, x)), x.dtype), axes)
        return keep(b, b.div(b.reduce_sum(_without_nan(b, x), axes), count), axes, x.shape, keepdim)

    return record("DivBackward0", (input,), emit)


@reduction
def prod(input: Tensor, dim: int = ..., keepdim: bool = False, *, dtype: object = None) -> Tensor:  # type: ignore[assignment]
    """Product over `dim` (all dimensions when left out)."""
    axes = axes_of(None if dim is ... else whole(dim, "prod"), input.ndim)

    def emit(b: Builder, x: Node) -> Node:
        return keep(b, _reduced(b, "reduce_prod", x, axes, dtype), axes, x.shape, keepdim)

    return record("ProdBackward0" if dim is ... else "ProdBackward1", (input,), emit)


def count_of(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """Number of elements that `axes` of `shape` hold."""
    return math.prod(shape[a] for a in axes)


def mean_node(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    """Sum over `axes` divided by the number of elements, in f32 for the half types (a sum may leave their range)."""
    wide = b.cast(x, f32) if x.dtype in (f16, bf16) else x
    total = b.reduce_sum(wide, axes)
    return b.cast(b.div(total, b.constant(count_of(x.shape, axes), total.type)), x.dtype)


@reduction
def mean(input: Tensor, dim: Dims = ..., keepdim: bool = False, *, dtype: object = None) -> Tensor:
    """Mean over `dim` (all dimensions when None). RuntimeError for integers."""
    type = input._type.dtype if dtype is None else dtypes.to_ir(dtype)
    if not type.is_float:
        raise DTypeError(
            f"mean(): could not infer output dtype. {'Input' if dtype is None else 'Optional'} dtype must be either "
            f"a floating point or complex dtype. Got: {type_name(type)}"
        )
    axes = axes_of(None if dim is ... else dim, input.ndim, "mean")
    return record(
        "MeanBackward0" if dim is ... else "MeanBackward1",
        (input,),
        lambda b, x: keep(b, mean_node(b, b.cast(x, type), axes), axes, x.shape, keepdim),
    )


# extremes


def need_elements(input: Tensor, axes: tuple[int, ...], name: str) -> None:
    """PyTorch's errors for a choice among no elements."""
    empty = [a for a in axes if input._type.shape[a] == 0]
    if not empty:
        return
    if len(axes) == input.ndim and input.ndim:
        raise UsageError(
            f"{name}(): Expected reduction dim to be specified for input.numel() == 0. "
            "Specify the reduction dim with the 'dim' argument."
        )
    raise RangeError(f"{name}(): Expected reduction dim {empty[0]} to have non-zero size.")


def need_extent(input: Tensor, axis: int, name: str, colon: str = "():") -> None:
    """IndexError for a choice among no elements along `axis`."""
    if input.ndim and input._type.shape[axis] == 0:
        raise RangeError(f"{name}{colon} Expected reduction dim {axis} to have non-zero size.")


def extreme_node(b: Builder, op: str, x: Node, axes: tuple[int, ...], keepdim: bool, ties: str) -> Node:
    """`reduce_max` or `reduce_min`; x itself over no axes."""
    if not axes:
        return x
    if x.type.size == 0:  # checked before: then there is nothing to give either
        return keep(b, b.reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes)), axes, x.shape, keepdim)
    return keep(b, b.apply(f"reduce_{op}", (x,), {"axes": axes, "ties": ties}), axes, x.shape, keepdim)


def _extreme(op: str, input: Tensor, axes: tuple[int, ...], keepdim: bool, ties: str, name: str) -> Tensor:
    return record(name, (input,), lambda b, x: extreme_node(b, op, x, axes, keepdim, ties))


def arg_node(b: Builder, op: str, x: Node, axes: tuple[int, ...], keepdim: bool = False) -> Node:
    """`argmax` or `argmin` in i64; 0 over no axes."""
    if not axes:
        return b.constant(0, x.type.with_dtype(i64))
    if x.type.size == 0:
        kept = x.type.with_shape(tuple(n for i, n in enumerate(x.shape) if i not in axes))
        return keep(b, b.constant(0, kept.with_dtype(i64)), axes, x.shape, keepdim)
    x = b.cast(x, u8) if x.dtype is boolean else x
    return keep(b, b.apply(f"arg{op}", (x,), {"axes": axes, "dtype": i64}), axes, x.shape, keepdim)


def _arg(op: str, input: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    return record("NotDifferentiable", (input,), lambda b, x: arg_node(b, op, x, axes, keepdim))


def _max_min(op: str, input: Tensor, dim: Any, keepdim: bool | None, other: Any) -> Any:
    if other is not None or isinstance(dim, TensorBase):
        if keepdim is not None or (other is not None and dim is not None):
            raise KindError(f"{op}() received an invalid combination of arguments: two tensors, or one and a dimension")
        return getattr(elementwise, f"{op}imum")(input, dim if other is None else other)
    if dim is None:
        if keepdim is not None:
            raise KindError(f"{op}() received an invalid combination of arguments: keepdim without dim")
        axes = axes_of(None, input.ndim)
        need_elements(input, axes, op)
        return _extreme(op, input, axes, False, "even", f"{op.capitalize()}Backward1")
    axes = axes_of(whole(dim, op), input.ndim)
    for axis in axes:
        need_extent(input, axis, op)
    values = _extreme(op, input, axes, False if keepdim is None else keepdim, "first", f"{op.capitalize()}Backward0")
    return getattr(results, op)(values, _arg(op, input, axes, False if keepdim is None else keepdim))


@reduction
def max(input: Tensor, dim: Any = None, keepdim: bool | None = None, *, other: Any = None) -> Any:
    """The largest element; with `dim`, values and indices along it; with a tensor, the elementwise maximum."""
    return _max_min("max", input, dim, keepdim, other)


@reduction
def min(input: Tensor, dim: Any = None, keepdim: bool | None = None, *, other: Any = None) -> Any:
    """The smallest element; with `dim`, values and indices along it; with a tensor, the elementwise minimum."""
    return _max_min("min", input, dim, keepdim, other)


def _over_axes(name: str, op: str, doc: str) -> Callable[..., Any]:
    def function(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
        axes = axes_of(dim, input.ndim, name)
        need_elements(input, axes, name)
        return _extreme(op, input, axes, keepdim, "even", f"{name.capitalize()}Backward0")

    function.__name__, function.__doc__ = name, doc
    return reduction(function)


amax = _over_axes("amax", "max", "The largest elements over `dim`; ties share the gradient.")
amin = _over_axes("amin", "min", "The smallest elements over `dim`; ties share the gradient.")


@reduction
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest and the largest elements, of all or along `dim`."""
    axes = axes_of(None if dim is None else whole(dim, "aminmax"), input.ndim)
    if dim is None and input._type.size == 0:
        raise UsageError("aminmax(): cannot compute aminmax over an empty dimension as the operation has no identity.")
    for axis in axes:
        need_extent(input, axis, "aminmax", ":")
    return results.aminmax(
        *record_many(
            "AminmaxBackward0",
            (input,),
            lambda b, x: [extreme_node(b, op, x, axes, keepdim, "even") for op in ("min", "max")],
        )
    )


def _position(op: str, which: str) -> Callable[..., Any]:
    def function(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        if input._type.dtype is boolean:
            raise DTypeError(f"arg{op}(): does not support bool input")
        axes = axes_of(None if dim is None else whole(dim, f"arg{op}"), input.ndim)
        if dim is None and input._type.size == 0:
            raise RangeError(f"arg{op}(): Expected reduction dim to be specified for input.numel() == 0.")
        for axis in axes:
            need_extent(input, axis, f"arg{op}")
        return _arg(op, input, axes, keepdim)

    about = f"Index of the first {which} element, along `dim` or in row-major order; int64."
    return reduction(named(function, f"arg{op}", about))


argmax, argmin = _position("max", "largest"), _position("min", "smallest")


# truth


def _truth(op: str, input: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    none = isinstance(dim, list | tuple) and not dim  # here an empty list means no dimension at all
    axes = () if none else axes_of(dim, input.ndim, "any" if op == "max" else "all")

    def emit(b: Builder, x: Node) -> Node:
        truth = b.cast(x, boolean)
        if any(x.shape[a] == 0 for a in axes):
            kept = tuple(n for i, n in enumerate(x.shape) if i not in axes)
            truth = b.constant(op == "min", truth.type.with_shape(kept))
        elif axes:
            truth = b.apply(f"reduce_{op}", (truth,), {"axes": axes, "ties": "even"})
        return b.cast(keep(b, truth, axes, x.shape, keepdim), u8 if x.dtype is u8 else boolean)

    return record("NotDifferentiable", (input,), emit)


@reduction
def any_(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether some element is true; bool, and uint8 of uint8."""
    return _truth("max", input, dim, keepdim)


@reduction
def all_(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are true; bool, and uint8 of uint8."""
    return _truth("min", input, dim, keepdim)


@numpy_names
@repeatable
def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """How many elements over `dim` are not zero; int64."""
    axes = axes_of(dim, input.ndim, "count_nonzero")
    return record("NotDifferentiable", (input,), lambda b, x: b.reduce_sum(b.cast(b.cast(x, boolean), i64), axes))


# logsumexp


@reduction
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over `dim`, without overflow; -inf over nothing."""
    axes = axes_of(dim, input.ndim, "logsumexp")

    def emit(b: Builder, x: Node) -> Node:
        x = b.cast(x, as_float(x.dtype))
        return keep(b, logsumexp_node(b, x, axes), axes, x.shape, keepdim)

    return record("LogsumexpBackward0", (input,), emit)


def logsumexp_node(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    """log(sum(exp(x - m))) + m with m the largest element, which takes no part in the gradient."""
    if not axes:
        return x
    if x.type.size == 0:
        return b.sub(b.reduce_sum(x, axes), math.inf)
    top = b.apply("detach", (b.reduce_max(x, axes),))
    infinite = b.apply("eq", (b.apply("abs", (top,)), b.constant(math.inf, top.type)))
    safe = b.select(infinite, b.zeros_like(top), top)
    total = b.reduce_sum(b.exp(b.sub(x, b.expand_dims(safe, axes, x.shape))), axes)
    return b.add(b.log(total), safe)
