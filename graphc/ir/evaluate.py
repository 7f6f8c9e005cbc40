"""The reference evaluator: a graph on NumPy, operator by operator. It judges everything else; it is not fast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from graphc.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.graph import Graph
from graphc.ir.node import AttrValue, Node
from graphc.ir.opdef import OPS, Evaluate, attrs_of
from graphc.ir.record import record
from graphc.ir.types import DType, TensorType, f64

NO_OTHERS: Mapping[str, Evaluate] = MappingProxyType({})


@record
class _Step:
    """One operator, and which of its operands nobody reads afterwards."""

    node: Node
    evaluate: Evaluate
    attrs: dict[str, AttrValue]
    type: TensorType
    done: tuple[Node, ...]


class Evaluation:
    """A graph made ready to be evaluated again and again, as by `evaluate`. Others may be given than the references of
    some operators.
    """

    def __init__(self, graph: Graph, others: Mapping[str, Evaluate] = NO_OTHERS) -> None:
        self._graph = graph
        self._steps = tuple(_steps(graph, None, others))

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs for `arrays`."""
        return _run(self._graph, self._steps, arrays, None)


def value_of(node: Node, operands: Sequence[np.ndarray], others: Mapping[str, Evaluate] = NO_OTHERS) -> np.ndarray:
    """What one operator gives for arrays of its operands, where NumPy's warnings are off. It may be a view of one."""
    evaluate = others.get(node.op) or OPS[node.op].evaluate
    return _checked(node, evaluate(operands, attrs_of(node), node.type), node.type)


def evaluate(graph: Graph, arrays: Sequence[np.ndarray], floats: DType | None = None) -> list[np.ndarray]:
    """The outputs of `graph` for `arrays`, one array per input with exactly its shape and dtype.

    With `floats=f64` every float of the graph, inputs included, is computed in f64 ("oracle mode"), and float
    outputs are f64. Intermediate values are dropped after their last use. Raises ShapeError or DTypeError when an
    array does not fit its input.
    """
    if floats not in (None, f64):
        raise GraphcError(f"floats can be computed as they are or in f64, not in {floats}")
    return _run(graph, _steps(graph, floats), arrays, floats)


def _steps(graph: Graph, floats: DType | None, others: Mapping[str, Evaluate] = NO_OTHERS) -> Iterator[_Step]:
    """The steps one by one: those of a long graph take more memory than its values."""
    last: dict[Node, Node | None] = {operand: node for node in graph.nodes for operand in node.inputs}
    for node in graph.outputs:
        last[node] = None
    inputs = set(graph.inputs)
    for node in graph.nodes:
        if node in inputs:
            continue
        attrs, type = attrs_of(node), node.type
        if floats is not None:
            attrs = {k: _widen(v, floats) if isinstance(v, DType) else v for k, v in attrs.items()}
            type = type.with_dtype(_widen(type.dtype, floats))
        done = tuple([operand for operand in dict.fromkeys(node.inputs) if last[operand] is node])
        yield _Step(node, others.get(node.op) or OPS[node.op].evaluate, attrs, type, done)


def _run(graph: Graph, steps: Iterable[_Step], arrays: Sequence[np.ndarray], floats: DType | None) -> list[np.ndarray]:
    _check(graph, arrays)
    values: dict[Node, np.ndarray] = {}
    for node, array in zip(graph.inputs, arrays, strict=True):
        values[node] = np.asarray(array, _widen(node.dtype, floats).numpy)
    with np.errstate(all="ignore"):
        for step in steps:
            node, type = step.node, step.type
            given = step.evaluate([values[operand] for operand in node.inputs], step.attrs, type)
            values[node] = _checked(node, given, type)
            for operand in step.done:
                del values[operand]
    return [values[node].copy() for node in graph.outputs]


def _checked(node: Node, given: np.ndarray, type: TensorType) -> np.ndarray:
    result = np.asarray(given)
    if result.shape != type.shape or result.dtype != type.dtype.numpy:
        raise GraphcError(
            f"the NumPy reference of {node.op} gave {result.dtype}{list(result.shape)}, its type is {type}"
        )
    return result


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
