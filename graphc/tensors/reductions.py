"""Reductions with PyTorch's names: sums, means, extremes, variances, norms, truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from graphc import dtypes
from graphc.errors import DTypeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, boolean, i64, u8
from graphc.promotion import as_float
from graphc.tensors import elementwise
from graphc.tensors.core import record, record_many, wrap_dim
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Dims = Any  # None, an integer or a sequence of integers


class ValuesIndices(NamedTuple):
    """What `max` and `min` along a dimension return."""

    values: Any
    indices: Any


def axes_of(dim: Dims, rank: int) -> tuple[int, ...]:
    """The axes that `dim` names, in order; all when it is None or empty."""
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return tuple(range(rank))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    axes = tuple(wrap_dim(d, rank) for d in dims)
    if len(set(axes)) != len(axes):
        twice = next(a for a in axes if axes.count(a) > 1)
        raise RuntimeError(f"dim {twice} appears multiple times in the list of dims")
    return tuple(sorted(a for a in axes if a < rank))


def keep(b: Builder, node: Node, axes: tuple[int, ...], shape: tuple[int, ...], keepdim: bool) -> Node:
    """Reduced dimensions put back with size 1 when `keepdim`."""
    return b.reshape(node, tuple(1 if i in axes else n for i, n in enumerate(shape))) if keepdim else node


def _accumulate_type(x: Node, dtype: object) -> DType:
    if dtype is not None:
        return dtypes.to_ir(dtype)
    return x.dtype if x.dtype.is_float else i64


def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, axis: Dims = None, dtype: object = None) -> Tensor:
    """Sum over `dim` (all dimensions when None); integers and bools sum to int64."""
    axes = axes_of(dim if axis is None else axis, input.ndim)

    def emit(b: Builder, x: Node) -> Node:
        return keep(b, b.reduce_sum(b.cast(x, _accumulate_type(x, dtype)), axes), axes, x.shape, keepdim)

    return record("SumBackward0" if dim is None else "SumBackward1", (input,), emit)


def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: object = None) -> Tensor:
    """Product over `dim` (all dimensions when None)."""
    axes = axes_of(dim, input.ndim)

    def emit(b: Builder, x: Node) -> Node:
        x = b.cast(x, _accumulate_type(x, dtype))
        return keep(b, b.apply("reduce_prod", (x,), {"axes": axes}) if axes else x, axes, x.shape, keepdim)

    return record("ProdBackward0", (input,), emit)


def _count(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return math.prod(shape[a] for a in axes)


def _need_float(input: Tensor, name: str, dtype: object) -> DType:
    type = input._type.dtype if dtype is None else dtypes.to_ir(dtype)
    if not type.is_float:
        raise DTypeError(
            f"{name}(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. "
            f"Got: {type_name(type)}"
        )
    return type


def mean_node(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    """Sum over `axes` divided by the number of elements."""
    total = b.reduce_sum(x, axes)
    return b.div(total, b.constant(_count(x.shape, axes), total.type))


def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, axis: Dims = None, dtype: object = None) -> Tensor:
    """Mean over `dim` (all dimensions when None). RuntimeError for integers."""
    type = _need_float(input, "mean", dtype)
    axes = axes_of(dim if axis is None else axis, input.ndim)
    return record(
        "MeanBackward0" if dim is None else "MeanBackward1",
        (input,),
        lambda b, x: keep(b, mean_node(b, b.cast(x, type), axes), axes, x.shape, keepdim),
    )


def variance_node(b: Builder, x: Node, axes: tuple[int, ...], correction: float) -> Node:
    """Squared deviations from the mean over `axes`, divided by the number of elements less `correction`."""
    middle = b.expand_dims(mean_node(b, x, axes), axes, x.shape)
    off = b.sub(x, middle)
    total = b.reduce_sum(b.mul(off, off), axes)
    degrees = _count(x.shape, axes) - correction
    return b.div(total, b.constant(degrees if degrees > 0 else 0, total.type))


def var(
    input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = None
) -> Tensor:
    """Variance over `dim`; divided by n - 1, or by n - correction."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    axes = axes_of(dim, input.ndim)
    less = correction if correction is not None else float(unbiased)
    return record(
        "VarBackward0", (input,), lambda b, x: keep(b, variance_node(b, x, axes, less), axes, x.shape, keepdim)
    )


def std(
    input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = None
) -> Tensor:
    """Standard deviation over `dim`; see `var`."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    axes = axes_of(dim, input.ndim)
    less = correction if correction is not None else float(unbiased)

    def emit(b: Builder, x: Node) -> Node:
        return keep(b, b.apply("sqrt", (variance_node(b, x, axes, less),)), axes, x.shape, keepdim)

    return record("StdBackward0", (input,), emit)


def _nonempty(input: Tensor, axes: tuple[int, ...], name: str) -> None:
    if any(input._type.shape[a] == 0 for a in axes):
        if len(axes) == input.ndim:
            raise RuntimeError(
                f"{name}(): Expected reduction dim to be specified for input.numel() == 0. "
                "Specify the reduction dim with the 'dim' argument."
            )
        empty = next(a for a in axes if input._type.shape[a] == 0)
        raise IndexError(f"{name}(): Expected reduction dim {empty} to have non-zero size.")


def _extreme(op: str, input: Tensor, axes: tuple[int, ...], keepdim: bool, ties: str, name: str) -> Tensor:
    def emit(b: Builder, x: Node) -> Node:
        if not axes:
            return x
        return keep(b, b.apply(f"reduce_{op}", (x,), {"axes": axes, "ties": ties}), axes, x.shape, keepdim)

    return record(name, (input,), emit)


def _arg(op: str, input: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    def emit(b: Builder, x: Node) -> Node:
        if not axes:
            return b.constant(0, x.type.with_dtype(i64))
        x = b.cast(x, u8) if x.dtype is boolean else x
        return keep(b, b.apply(f"arg{op}", (x,), {"axes": axes, "dtype": i64}), axes, x.shape, keepdim)

    return record("NotDifferentiable", (input,), emit)


def _max_min(op: str, input: Tensor, dim: Any, keepdim: bool) -> Any:
    if dim is not None and not isinstance(dim, int):
        return (elementwise.maximum if op == "max" else elementwise.minimum)(input, dim)
    axes = axes_of(dim, input.ndim)
    _nonempty(input, axes, op)
    if dim is None:
        return _extreme(op, input, axes, False, "even", f"{op.capitalize()}Backward1")
    values = _extreme(op, input, axes, keepdim, "first", f"{op.capitalize()}Backward0")
    return ValuesIndices(values, _arg(op, input, axes, keepdim))


def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element; with `dim`, values and indices along it; with a tensor, the elementwise maximum."""
    return _max_min("max", input, dim, keepdim)


def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element; with `dim`, values and indices along it; with a tensor, the elementwise minimum."""
    return _max_min("min", input, dim, keepdim)


def amax(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The largest elements over `dim`; ties share the gradient."""
    axes = axes_of(dim, input.ndim)
    _nonempty(input, axes, "amax")
    return _extreme("max", input, axes, keepdim, "even", "AmaxBackward0")


def amin(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The smallest elements over `dim`; ties share the gradient."""
    axes = axes_of(dim, input.ndim)
    _nonempty(input, axes, "amin")
    return _extreme("min", input, axes, keepdim, "even", "AminBackward0")


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the first largest element, along `dim` or in row-major order; int64."""
    axes = axes_of(dim, input.ndim)
    _nonempty(input, axes, "argmax")
    return _arg("max", input, axes, keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the first smallest element, along `dim` or in row-major order; int64."""
    axes = axes_of(dim, input.ndim)
    _nonempty(input, axes, "argmin")
    return _arg("min", input, axes, keepdim)


def _truth(op: str, input: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    axes = axes_of(dim, input.ndim)

    def emit(b: Builder, x: Node) -> Node:
        x = b.cast(x, boolean)
        if not axes:
            return x
        if any(x.shape[a] == 0 for a in axes):
            kept = tuple(n for i, n in enumerate(x.shape) if i not in axes)
            result = b.constant(op == "min", x.type.with_shape(kept))
        else:
            result = b.apply(f"reduce_{op}", (x,), {"axes": axes, "ties": "even"})
        return keep(b, result, axes, x.shape, keepdim)

    return record("NotDifferentiable", (input,), emit)


def any_(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether some element is true."""
    return _truth("max", input, dim, keepdim)


def all_(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are true."""
    return _truth("min", input, dim, keepdim)


def norm(input: Tensor, p: float | str = "fro", dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The p-norm of the elements over `dim`; "fro" is p = 2."""
    order = 2.0 if p == "fro" else float(p)
    axes = axes_of(dim, input.ndim)
    _need_float(input, "norm", None)

    def emit(b: Builder, x: Node) -> Node:
        if order == 2:
            result = b.apply("sqrt", (b.reduce_sum(b.mul(x, x), axes),))
        elif math.isinf(order):
            op = "reduce_max" if order > 0 else "reduce_min"
            result = b.apply(op, (b.apply("abs", (x,)),), {"axes": axes, "ties": "even"})
        elif order == 0:
            result = b.reduce_sum(b.cast(b.apply("ne", (x, b.zeros_like(x))), x.dtype), axes)
        elif order == 1:
            result = b.reduce_sum(b.apply("abs", (x,)), axes)
        else:
            power = b.constant(order, x.type)
            total = b.reduce_sum(b.apply("pow", (b.apply("abs", (x,)), power)), axes)
            result = b.apply("pow", (total, b.constant(1 / order, total.type)))
        return keep(b, result, axes, x.shape, keepdim)

    return record("LinalgVectorNormBackward0", (input,), emit)


def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over `dim`, without overflow."""
    axes = axes_of(dim, input.ndim)

    def emit(b: Builder, x: Node) -> Node:
        x = b.cast(x, as_float(x.dtype))
        return keep(b, logsumexp_node(b, x, axes), axes, x.shape, keepdim)

    return record("LogsumexpBackward0", (input,), emit)


def logsumexp_node(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    """log(sum(exp(x - m))) + m with m the largest element, which takes no part in the gradient."""
    top = b.apply("detach", (b.reduce_max(x, axes),))
    infinite = b.apply("eq", (b.apply("abs", (top,)), b.constant(math.inf, top.type)))
    safe = b.select(infinite, b.zeros_like(top), top)
    total = b.reduce_sum(b.exp(b.sub(x, b.expand_dims(safe, axes, x.shape))), axes)
    return b.add(b.log(total), safe)


def cumsum(input: Tensor, dim: int) -> Tensor:
    """Running sums along `dim`, each a sum of its own: n * n work for n elements, so for short dimensions only."""
    axis = wrap_dim(dim, input.ndim)

    def emit(b: Builder, x: Node) -> Node:
        x = b.cast(x, _accumulate_type(x, None))
        n = x.shape[axis]
        moved = b.permute(x, (*(i for i in range(x.type.rank) if i != axis), axis))
        wide = b.broadcast(b.reshape(moved, (*moved.shape[:-1], 1, n)), (*moved.shape[:-1], n, n))
        type = wide.type.with_dtype(i64)
        below = b.apply("le", (b.iota(type.rank - 1, type), b.iota(type.rank - 2, type)))
        total = b.reduce_sum(b.select(below, wide, b.zeros_like(wide)), (type.rank - 1,))
        order = list(range(x.type.rank - 1))
        order.insert(axis, x.type.rank - 1)
        return b.permute(total, tuple(order))

    return record("CumsumBackward0", (input,), emit)


def var_mean(input: Tensor, dim: Dims = None, *, correction: float = 1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Variance and mean over `dim`."""
    axes = axes_of(dim, input.ndim)
    variance, middle = record_many(
        "VarMeanBackward0",
        (input,),
        lambda b, x: (
            keep(b, variance_node(b, x, axes, correction), axes, x.shape, keepdim),
            keep(b, mean_node(b, x, axes), axes, x.shape, keepdim),
        ),
    )
    return variance, middle
