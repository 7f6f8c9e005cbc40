"""One operator of the front end in f16 or bf16: computed in f32 inside, rounded once at its end, as PyTorch does it.

An `emit` function makes several nodes of the graph, and each would round its result. The nodes between the operands and
the result are therefore made again in f32. The gradient, which is derived from them, is then rounded once as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.builder import Builder
from graphc.ir.narrow import HALVES
from graphc.ir.node import Node
from graphc.ir.opdef import OPS, attrs_of
from graphc.ir.types import f32

Emit = Callable[..., Node]

# What gives an element of its operands, up to the sign, or no float at all: nothing is rounded.
_COMPARING = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))
_EXACT = _COMPARING.union(
    ("constant", "iota", "input", "reshape", "permute", "broadcast", "slice", "pad", "concat", "window", "cast"),
    ("bitcast", "detach", "transfer", "materialize", "select", "neg", "abs", "sign", "floor", "ceil", "round", "trunc"),
    ("maximum", "minimum", "reduce_max", "reduce_min", "argmax", "argmin", "argsort", "argselect", "searchsorted"),
    ("gather", "take_along", "index_set", "scatter_set", "scan_max", "scan_min"),
)
# What computes in f32 by itself, and whose derivative is of its own kind.
_SINGLE = frozenset(("add", "sub", "mul", "contract", "reduce_sum", "fold", "index_add", "scatter_add", "scan_sum"))
_PASSING = frozenset(("reshape", "permute", "broadcast", "slice", "cast", "detach", "transfer"))


def rounded_once(b: Builder, made: Node, operands: Sequence[Node]) -> Node:
    """`made`, which was built from `operands`, with everything in between in f32 if it is in f16 or bf16."""
    for node in operands:
        if node.type.dtype in HALVES:
            break
    else:
        return made
    order = _between(made, operands)
    rounding = [n for n in order if n.op not in _EXACT and n.type.dtype in HALVES]
    if not rounding or (len(rounding) == 1 and rounding[0].op in _SINGLE and not _has_number(rounding[0])):
        return made
    return _Widening(b, order).result(made)


def _has_number(node: Node) -> bool:
    """Whether `node` computes with a number that its dtype cannot hold."""
    for operand in node.inputs:
        if operand.op == "constant" and operand.dtype.numpy.type(operand.attr("value")) != operand.attr("value"):
            return True
        while operand.op == "broadcast":
            operand = operand.inputs[0]
        if operand.op == "cast" and (operand.inputs[0].type.dtype is f32 or not operand.shape):
            return True
    return False


def _between(made: Node, operands: Sequence[Node]) -> list[Node]:
    """The nodes from `operands` (left out) to `made`, each after those that it reads."""
    known: set[Node] = set()
    pending = list(operands)
    while pending:  # a movement of an operand may be recorded as one of what the operand was moved from
        node = pending.pop()
        if node not in known:
            known.add(node)
            if node.op in _PASSING:
                pending += node.inputs
    order: list[Node] = []
    pending = [made]
    while pending:
        node = pending[-1]
        missing = [i for i in node.inputs if i not in known] if node not in known else []
        if missing:
            pending += missing
            continue
        pending.pop()
        if node not in known:
            known.add(node)
            order.append(node)
    return order


class _Widening:
    """Makes nodes again in f32."""

    def __init__(self, b: Builder, order: Sequence[Node]) -> None:
        self._b = b
        self._wide: dict[Node, Node] = {}
        self._plain: set[Node] = set()  # of the nodes in between, those that hold elements of the operands
        for node in order:
            if all(i in self._plain or i not in self._wide for i in node.inputs) and node.op in _EXACT:
                self._plain.add(node)
            self._wide[node] = self._again(node)

    def result(self, made: Node) -> Node:
        """The result in its own dtype."""
        node = self._wide.get(made, made)
        return node if node.dtype is made.dtype else self._b.cast(node, made.dtype)

    def _of(self, node: Node, numbers: bool = True) -> Node:
        """`node` in f32; without `numbers` such as its own dtype holds it, where nothing was computed."""
        made = self._wide.get(node, node)
        if node.dtype not in HALVES:
            return made
        if made.dtype in HALVES:
            return self._b.cast(made, f32)
        return made if numbers or node not in self._plain else self._b.cast(node, f32)

    def _again(self, node: Node) -> Node:
        b, attrs = self._b, attrs_of(node)
        if node.op == "bitcast":
            return b.apply("bitcast", tuple(self.result(i) for i in node.inputs), attrs)
        if node.op in ("constant", "iota"):
            type = node.type.with_dtype(f32) if node.dtype in HALVES else node.type
            return b.make(node.op, (), node.attrs, type)
        if node.op == "cast":
            target = f32 if node.dtype in HALVES else node.dtype
            inner = self._of(node.inputs[0], numbers=node.inputs[0].dtype in HALVES)
            if node.dtype in HALVES and not inner.dtype.is_float and inner.shape:
                inner = b.cast(inner, node.dtype)  # PyTorch rounds whole numbers first, if they are several
            return inner if inner.dtype is target else b.cast(inner, target)
        if OPS[node.op].kind == "source":
            return node
        inputs = tuple(self._of(i, node.op not in _COMPARING) for i in node.inputs)
        if inputs == node.inputs:
            return node
        return b.apply(node.op, inputs, attrs)
