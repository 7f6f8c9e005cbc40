"""Reading and adding at places given by integer tensors (i64 or i32). Indices out of range are clamped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.node import Node
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops.checks import (
    check_arity,
    check_axis,
    check_device,
    check_group,
    check_index,
    check_same_dtype,
    narrow,
    shown,
    widen,
)
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Arrays = Sequence[np.ndarray]
Types = Sequence[TensorType]
Gradients = Sequence["Node | None"]


def check_indexing(op: str, types: Types, attrs: Attrs, arity: int) -> int:
    """What all indexing operators share; gives the axis."""
    check_arity(op, types, arity)
    check_device(op, types)
    check_index(op, types[1])
    check_axis(op, attrs["axis"], types[0])
    if arity == 3:
        check_same_dtype(op, (types[0], types[2]))
    if types[0].shape[attrs["axis"]] == 0 and types[1].size:
        raise ShapeError(f"{op}: dimension {attrs['axis']} of {types[0]} has no elements to index, index is {types[1]}")
    return attrs["axis"]


def gathered_shape(x: TensorType, index: TensorType, axis: int) -> tuple[int, ...]:
    return (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def check_along(op: str, x: TensorType, index: TensorType, axis: int) -> None:
    if index.rank != x.rank or any(
        n > m for i, (n, m) in enumerate(zip(index.shape, x.shape, strict=True)) if i != axis
    ):
        raise ShapeError(
            f"{op}: the index must have the dimensions of the operand and be no larger except in dimension {axis}; "
            f"operand {x}, index {index}"
        )


def _infer_gather(types: Types, attrs: Attrs) -> TensorType:
    axis = check_indexing("gather", types, attrs, 2)
    return types[0].with_shape(gathered_shape(types[0], types[1], axis))


def _infer_take_along(types: Types, attrs: Attrs) -> TensorType:
    axis = check_indexing("take_along", types, attrs, 2)
    check_along("take_along", types[0], types[1], axis)
    return types[0].with_shape(types[1].shape)


def _infer_index_add(types: Types, attrs: Attrs) -> TensorType:
    axis = check_indexing("index_add", types, attrs, 3)
    check_group("index_add", types[0], "number")
    wanted = gathered_shape(types[0], types[1], axis)
    if types[2].shape != wanted:
        raise ShapeError(
            f"index_add: the source must have shape {list(wanted)}; operand, index, source: {shown(types)}"
        )
    return types[0]


def _infer_scatter_add(types: Types, attrs: Attrs) -> TensorType:
    axis = check_indexing("scatter_add", types, attrs, 3)
    check_group("scatter_add", types[0], "number")
    check_along("scatter_add", types[0], types[1], axis)
    if types[2].shape != types[1].shape:
        raise ShapeError(f"scatter_add: index and source must have one shape; operand, index, source: {shown(types)}")
    return types[0]


def clamped(x: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    return np.clip(index, 0, max(x.shape[axis] - 1, 0)).astype(np.int64)


def places(index: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """Index arrays that address, for each element of `index`, the same place but for `index` along `axis`."""
    own = np.indices(index.shape, sparse=True)
    return (*own[:axis], index, *own[axis + 1 :])


def _evaluate_gather(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    x, index = arrays
    return np.asarray(np.take(x, clamped(x, index, attrs["axis"]), attrs["axis"]))


def _evaluate_take_along(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    x, index = arrays
    return x[places(clamped(x, index, attrs["axis"]), attrs["axis"])]


def _evaluate_index_add(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    x, index, src = arrays
    axis = attrs["axis"]
    result = widen(x).copy()
    np.add.at(result, (*(slice(None),) * axis, clamped(x, index, axis)), widen(src))
    return narrow(result, type)


def _evaluate_scatter_add(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    x, index, src = arrays
    result = widen(x).copy()
    np.add.at(result, places(clamped(x, index, attrs["axis"]), attrs["axis"]), widen(src))
    return narrow(result, type)


def _gather_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x, index = node.inputs
    return [b.apply("index_add", (b.zeros_like(x), index, ct), dict(node.attrs)), None]


def _take_along_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x, index = node.inputs
    return [b.apply("scatter_add", (b.zeros_like(x), index, ct), dict(node.attrs)), None]


def _index_add_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [ct, None, b.apply("gather", (ct, node.inputs[1]), dict(node.attrs))]


def _scatter_add_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [ct, None, b.apply("take_along", (ct, node.inputs[1]), dict(node.attrs))]


_AXIS = (Attr("axis", "int"),)

GATHER = register(
    OpDef(
        name="gather",
        kind="indexing",
        arity=2,
        doc="x[.., index, ..] along `axis`: shape x.shape[:axis] + index.shape + x.shape[axis+1:]. Any dtype.",
        infer=_infer_gather,
        evaluate=_evaluate_gather,
        attrs=_AXIS,
        vjp=_gather_vjp,
    )
)
TAKE_ALONG = register(
    OpDef(
        name="take_along",
        kind="indexing",
        arity=2,
        doc="out[i, .., k] = x[i, .., index[i, .., k], ..], the index standing at `axis` (torch.gather). Any dtype.",
        infer=_infer_take_along,
        evaluate=_evaluate_take_along,
        attrs=_AXIS,
        vjp=_take_along_vjp,
    )
)
INDEX_ADD = register(
    OpDef(
        name="index_add",
        kind="indexing",
        arity=3,
        doc="x plus `src` added at x[.., index, ..] along `axis`, duplicates add up; `src` shaped as `gather` gives.",
        infer=_infer_index_add,
        evaluate=_evaluate_index_add,
        attrs=_AXIS,
        vjp=_index_add_vjp,
    )
)
SCATTER_ADD = register(
    OpDef(
        name="scatter_add",
        kind="indexing",
        arity=3,
        doc="x plus `src` added at the places that `take_along` reads, duplicates add up; `src` shaped as `index`.",
        infer=_infer_scatter_add,
        evaluate=_evaluate_scatter_add,
        attrs=_AXIS,
        vjp=_scatter_add_vjp,
    )
)
