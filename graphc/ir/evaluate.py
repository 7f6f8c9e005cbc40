"""The reference evaluator: a graph on NumPy, operator by operator. It judges everything else; it is not fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.graph import Graph
from graphc.ir.node import AttrValue, Node
from graphc.ir.opdef import OPS, Evaluate, attrs_of
from graphc.ir.record import record
from graphc.ir.types import DType, TensorType, f64


@record
class _Step:
    """One operator: its operands' places among the values, and those of values that are not read afterwards."""

    name: str
    evaluate: Evaluate
    operands: tuple[int, ...]
    attrs: dict[str, AttrValue]
    type: TensorType
    done: tuple[int, ...]


class Evaluation:
    """A graph made ready to be evaluated again and again; see `evaluate`."""

    def __init__(self, graph: Graph, floats: DType | None = None) -> None:
        if floats not in (None, f64):
            raise GraphcError(f"floats can be computed as they are or in f64, not in {floats}")
        self._graph = graph
        self._inputs = [_widen(node.dtype, floats).numpy for node in graph.inputs]
        inputs = set(graph.inputs)
        made = [node for node in graph.nodes if node not in inputs]
        place = {node: number for number, node in enumerate((*graph.inputs, *made))}
        self._outputs = [place[node] for node in graph.outputs]
        last = {operand: node for node in made for operand in node.inputs}
        kept = set(graph.outputs)
        done: dict[Node, list[int]] = {}
        for operand, reader in last.items():
            if operand not in kept:
                done.setdefault(reader, []).append(place[operand])
        self._steps = [
            _Step(
                node.op,
                OPS[node.op].evaluate,
                tuple(place[operand] for operand in node.inputs),
                {k: _widen(v, floats) if isinstance(v, DType) else v for k, v in attrs_of(node).items()},
                TensorType(_widen(node.dtype, floats), node.shape, node.type.device),
                tuple(done.get(node, ())),
            )
            for node in made
        ]

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs for `arrays`."""
        _check(self._graph, arrays)
        values: list[Any] = [np.asarray(array, dtype) for array, dtype in zip(arrays, self._inputs, strict=True)]
        with np.errstate(all="ignore"):
            for step in self._steps:
                result = np.asarray(step.evaluate([values[i] for i in step.operands], step.attrs, step.type))
                if result.shape != step.type.shape or result.dtype != step.type.dtype.numpy:
                    raise GraphcError(
                        f"the NumPy reference of {step.name} gave {result.dtype}{list(result.shape)}, its type is "
                        f"{step.type}"
                    )
                values.append(result)
                for i in step.done:
                    values[i] = None
        return [values[i].copy() for i in self._outputs]


def evaluate(graph: Graph, arrays: Sequence[np.ndarray], floats: DType | None = None) -> list[np.ndarray]:
    """The outputs of `graph` for `arrays`, one array per input with exactly its shape and dtype.

    With `floats=f64` every float of the graph, inputs included, is computed in f64 ("oracle mode"), and float
    outputs are f64. Intermediate values are dropped after their last use. Raises ShapeError or DTypeError when an
    array does not fit its input.
    """
    return Evaluation(graph, floats).run(arrays)


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


def _widen(dtype: DType, floats: DType | None) -> DType:
    return floats if floats is not None and dtype.is_float else dtype
