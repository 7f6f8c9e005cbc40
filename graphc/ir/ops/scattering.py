"""Storing and reducing at places given by integer tensors. Indices out of range are clamped; the last write wins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.node import Node
from graphc.ir.opdef import Attr, Attrs, OpDef, Vjp, register
from graphc.ir.ops.checks import check_group, narrow, shown, widen
from graphc.ir.ops.indexing import (
    Arrays,
    Gradients,
    Types,
    check_along,
    check_indexing,
    clamped,
    gathered_shape,
    places,
)
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

MODES = ("prod", "max", "min")
_UFUNCS = {"add": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def _infer_index_set(types: Types, attrs: Attrs) -> TensorType:
    axis = check_indexing("index_set", types, attrs, 3)
    wanted = gathered_shape(types[0], types[1], axis)
    if types[2].shape != wanted:
        raise ShapeError(
            f"index_set: the source must have shape {list(wanted)}; operand, index, source: {shown(types)}"
        )
    return types[0]


def _along(op: str, types: Types, attrs: Attrs) -> TensorType:
    axis = check_indexing(op, types, attrs, 3)
    check_along(op, types[0], types[1], axis)
    if types[2].shape != types[1].shape:
        raise ShapeError(f"{op}: index and source must have one shape; operand, index, source: {shown(types)}")
    return types[0]


def _infer_scatter_set(types: Types, attrs: Attrs) -> TensorType:
    return _along("scatter_set", types, attrs)


def _infer_scatter_reduce(types: Types, attrs: Attrs) -> TensorType:
    if attrs["mode"] not in MODES:
        raise ShapeError(f"scatter_reduce: mode is one of {', '.join(MODES)}, got {attrs['mode']!r}")
    type = _along("scatter_reduce", types, attrs)
    check_group("scatter_reduce", type, "number")
    return type


def _evaluate_index_set(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    x, index, src = arrays
    axis = attrs["axis"]
    result = x.copy()
    lead, rows = (slice(None),) * axis, clamped(x, index, axis).reshape(-1)
    parts = src.reshape((*x.shape[:axis], rows.size, *x.shape[axis + 1 :]))
    for k, row in enumerate(rows):  # one by one: NumPy does not say which of equal indices wins
        result[(*lead, row)] = parts[(*lead, k)]
    return result


def _evaluate_scatter_set(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    x, index, src = arrays
    axis = attrs["axis"]
    result = x.copy()
    rows = clamped(x, index, axis)
    for k in range(index.shape[axis]):
        part = (*(slice(None),) * axis, slice(k, k + 1))
        result[places(rows[part], axis)] = src[part]
    return result


def _evaluate_scatter_reduce(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    x, index, src = arrays
    at = places(clamped(x, index, attrs["axis"]), attrs["axis"])
    return narrow(combine_at(widen(x), at, widen(src), attrs["mode"]), type)


def combine_at(old: np.ndarray, at: tuple[Any, ...], new: np.ndarray, mode: str) -> np.ndarray:
    """`old`, and combined with it at some places `new`; of extremes +0 is above -0."""
    result = old.copy()
    _UFUNCS[mode].at(result, at, new)
    if result.dtype.kind == "f" and mode in ("max", "min"):
        largest = mode == "max"  # NumPy does not say which of two zeros wins
        wins = (old == 0) & (np.signbit(old) != largest)
        np.logical_or.at(wins, at, (new == 0) & (np.signbit(new) != largest))
        zero = np.where(wins == largest, 0.0, -0.0).astype(result.dtype)
        result = np.where(result == 0, zero, result)
    return result


def _set_vjp(read: str) -> Vjp:
    """Gradients of a store: none to what was overwritten, to the source what its place got."""

    def vjp(b: Builder, node: Node, ct: Node) -> Gradients:
        _, index, src = node.inputs
        attrs = dict(node.attrs)
        return [b.apply(node.op, (ct, index, b.zeros_like(src)), attrs), None, b.apply(read, (ct, index), attrs)]

    return vjp


def _scatter_reduce_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    """As PyTorch: equal extremes share the cotangent; zeros in a product are counted, not divided by."""
    x, index, src = node.inputs
    axis: dict[str, Any] = {"axis": node.integer("axis")}

    def sent(values: Node) -> Node:
        return b.apply("take_along", (values, index), axis)

    if node.attr("mode") == "prod":
        return _prod_vjp(b, node, ct)
    x_wins = b.cast(b.apply("eq", (x, node)), ct.dtype)
    src_wins = b.cast(b.apply("eq", (src, sent(node))), ct.dtype)
    count = b.apply("scatter_add", (x_wins, index, src_wins), axis)
    share = b.div(ct, b.select(b.apply("eq", (count, b.zeros_like(count))), b.constant(1, count.type), count))
    return [b.mul(x_wins, share), None, b.mul(src_wins, sent(share))]


def _prod_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x, index, src = node.inputs
    axis: dict[str, Any] = {"axis": node.integer("axis")}

    def product(base: Node, factors: Node) -> Node:
        return b.apply("scatter_reduce", (base, index, factors), {**axis, "mode": "prod"})

    def sent(values: Node) -> Node:
        return b.apply("take_along", (values, index), axis)

    def is_zero(values: Node) -> Node:
        return b.apply("eq", (values, b.zeros_like(values)))

    of_x = b.mul(ct, product(b.constant(1, x.type), src))
    zero = is_zero(src)
    zeros = b.apply("scatter_add", (b.zeros_like(x), index, b.cast(zero, x.dtype)), axis)
    one = b.constant(1, src.type)
    single = b.apply("bitwise_and", (zero, b.apply("eq", (sent(zeros), one))))
    rest = product(x, b.select(single, one, src))
    others = b.div(sent(b.mul(ct, node)), b.select(zero, one, src))
    return [of_x, None, b.select(single, sent(b.mul(ct, rest)), others)]


_AXIS = (Attr("axis", "int"),)

INDEX_SET = register(
    OpDef(
        name="index_set",
        kind="indexing",
        arity=3,
        doc="x with `src` stored at x[.., index, ..] along `axis`, of equal indices the last wins. Any dtype.",
        infer=_infer_index_set,
        evaluate=_evaluate_index_set,
        attrs=_AXIS,
        vjp=_set_vjp("gather"),
    )
)
SCATTER_SET = register(
    OpDef(
        name="scatter_set",
        kind="indexing",
        arity=3,
        doc="x with `src` stored at the places that `take_along` reads, of equal indices the last wins. Any dtype.",
        infer=_infer_scatter_set,
        evaluate=_evaluate_scatter_set,
        attrs=_AXIS,
        vjp=_set_vjp("take_along"),
    )
)
SCATTER_REDUCE = register(
    OpDef(
        name="scatter_reduce",
        kind="indexing",
        arity=3,
        doc="x combined with `src` at the places that `take_along` reads, by `mode`: prod, max or min.",
        infer=_infer_scatter_reduce,
        evaluate=_evaluate_scatter_reduce,
        attrs=(*_AXIS, Attr("mode", "str")),
        vjp=_scatter_reduce_vjp,
    )
)
