"""The reference evaluator: a graph on NumPy, operator by operator. It judges everything else; it is not fast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS, attrs_of
from graphc.ir.types import DType, TensorType, f64


def evaluate(graph: Graph, arrays: Sequence[np.ndarray], floats: DType | None = None) -> list[np.ndarray]:
    """The outputs of `graph` for `arrays`, one array per input with exactly its shape and dtype.

    With `floats=f64` every float of the graph, inputs included, is computed in f64 ("oracle mode"), and float
    outputs are f64. Intermediate values are dropped after their last use. Raises ShapeError or DTypeError when an
    array does not fit its input.
    """
    if floats not in (None, f64):
        raise GraphcError(f"floats can be computed as they are or in f64, not in {floats}")
    _check(graph, arrays)
    uses = _use_counts(graph)
    values: dict[Node, np.ndarray] = {}
    for node, array in zip(graph.inputs, arrays, strict=True):
        values[node] = np.asarray(array, dtype=_widen(node.dtype, floats).numpy)
    inputs = set(graph.inputs)
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if node in inputs:
                continue
            values[node] = _apply(node, [values[operand] for operand in node.inputs], floats)
            for operand in node.inputs:
                uses[operand] -= 1
                if not uses[operand]:
                    del values[operand]
    return [values[node].copy() for node in graph.outputs]


def _check(graph: Graph, arrays: Sequence[np.ndarray]) -> None:
    if len(arrays) != len(graph.inputs):
        raise ShapeError(f"graph @{graph.name} takes {len(graph.inputs)} arrays, {len(arrays)} given")
    for number, (node, array) in enumerate(zip(graph.inputs, arrays, strict=True)):
        if array.shape != node.shape:
            raise ShapeError(
                f"input {number} of graph @{graph.name} is {node.type}, the array's shape is {array.shape}"
            )
        if array.dtype != node.dtype.numpy:
            raise DTypeError(
                f"input {number} of graph @{graph.name} is {node.type}, the array's dtype is {array.dtype}"
            )


def _use_counts(graph: Graph) -> dict[Node, int]:
    """How often each node is read, outputs counting as reads (so that they stay)."""
    uses = dict.fromkeys(graph.nodes, 0)
    for node in graph.nodes:
        for operand in node.inputs:
            uses[operand] += 1
    for node in graph.outputs:
        uses[node] += 1
    return uses


def _widen(dtype: DType, floats: DType | None) -> DType:
    return floats if floats is not None and dtype.is_float else dtype


def _apply(node: Node, operands: Sequence[np.ndarray], floats: DType | None) -> np.ndarray:
    attrs = attrs_of(node)
    if floats is not None:
        attrs = {k: _widen(v, floats) if isinstance(v, DType) else v for k, v in attrs.items()}
    type = TensorType(_widen(node.dtype, floats), node.shape, node.type.device)
    result = np.asarray(OPS[node.op].evaluate(operands, attrs, type))
    if result.shape != type.shape or result.dtype != type.dtype.numpy:
        raise GraphcError(
            f"the NumPy reference of {node.op} gave {result.dtype}{list(result.shape)}, its type is {type}"
        )
    return result
