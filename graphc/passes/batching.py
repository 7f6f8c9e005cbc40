"""Batching: a graph for one example becomes a graph for many, operator by operator. The batch is the first dimension.

What does not depend on the examples stays as it is. An operator without a rule (those of the host) is repeated for each
example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.opdef import OPS, attrs_of
from graphc.ir.ops.source import BLOCK, DRAWS, blocks
from graphc.ir.visit import topological

LABEL = "vmapped"


class Batching:
    """Rewrites nodes of one example; `mapping` gives the batched node of each input, `draws` the keys whose random
    numbers differ between examples."""

    def __init__(
        self, b: Builder, mapping: Mapping[Node, Node], size: int, draws: frozenset[Node] = frozenset()
    ) -> None:
        self.b = b
        self.size = size
        self.draws = draws
        self.batched: dict[Node, Node] = dict(mapping)
        self._seen: set[Node] = set(mapping)

    def rewrite(self, outputs: Sequence[Node]) -> list[Node | None]:
        """The batched nodes of `outputs`; None for those that are the same for all examples."""
        for node in topological(outputs, self._seen.__contains__):
            if node in self._seen:
                continue
            self._seen.add(node)
            inner = any(i in self.batched for i in node.inputs)
            if inner or (node.op in DRAWS and _key(node) in self.draws):
                with self.b.at(node.locs):
                    self.batched[node] = self._node(node)
        return [self.batched.get(node) for node in outputs]

    def lift(self, node: Node) -> Node:
        """The batched node; one that is the same for all examples repeated."""
        found = self.batched.get(node)
        return self.b.broadcast(node, (self.size, *node.shape)) if found is None else found

    def _node(self, node: Node) -> Node:
        rule = _RULES.get(node.op)
        if rule is not None:
            return rule(self, node)
        if OPS[node.op].kind == "elementwise":
            return self.b.apply(node.op, tuple(self.lift(i) for i in node.inputs), attrs_of(node))
        return self._each(node)

    def _each(self, node: Node) -> Node:
        """The operator once for each example."""
        b = self.b
        if not self.size:
            return b.constant(0, node.type.with_shape((0, *node.shape)))
        made: list[Node] = []
        for place in range(self.size):
            inputs = tuple(self._example(i, place) for i in node.inputs)
            one = b.make(node.op, inputs, node.attrs, node.type)
            made.append(b.reshape(one, (1, *node.shape)))
        return b.apply("concat", tuple(made), {"axis": 0}) if len(made) > 1 else made[0]

    def _example(self, node: Node, place: int) -> Node:
        found = self.batched.get(node)
        if found is None:
            return node
        rank = len(node.shape)
        part = self.b.slice(found, (place, *(0,) * rank), (1, *node.shape), (1,) * (rank + 1))
        return self.b.reshape(part, node.shape)


def _reshape(t: Batching, node: Node) -> Node:
    return t.b.reshape(t.lift(node.inputs[0]), (t.size, *node.shape))


def _permute(t: Batching, node: Node) -> Node:
    return t.b.permute(t.lift(node.inputs[0]), (0, *(p + 1 for p in node.ints("perm"))))


def _broadcast(t: Batching, node: Node) -> Node:
    x = node.inputs[0]
    extra = len(node.shape) - len(x.shape)
    aligned = t.b.reshape(t.lift(x), (t.size, *(1,) * extra, *x.shape))
    return t.b.broadcast(aligned, (t.size, *node.shape))


def _slice(t: Batching, node: Node) -> Node:
    start, size, step = (node.ints(name) for name in ("start", "size", "step"))
    return t.b.slice(t.lift(node.inputs[0]), (0, *start), (t.size, *size), (1, *step))


def _pad(t: Batching, node: Node) -> Node:
    attrs = attrs_of(node)
    for name in ("low", "high", "interior"):
        attrs[name] = (0, *node.ints(name))
    return t.b.apply("pad", (t.lift(node.inputs[0]),), attrs)


def _along(t: Batching, node: Node) -> Node:
    """Operators that work along one axis and want all operands batched."""
    attrs = attrs_of(node) | {"axis": node.integer("axis") + 1}
    return t.b.apply(node.op, tuple(t.lift(i) for i in node.inputs), attrs)


def _over(t: Batching, node: Node) -> Node:
    """Operators that work over several axes."""
    attrs = attrs_of(node) | {"axes": tuple(a + 1 for a in node.ints("axes"))}
    return t.b.apply(node.op, (t.lift(node.inputs[0]),), attrs)


def _fold(t: Batching, node: Node) -> Node:
    attrs = attrs_of(node) | {"axes": tuple(a + 1 for a in node.ints("axes")), "shape": (t.size, *node.shape)}
    return t.b.apply("fold", (t.lift(node.inputs[0]),), attrs)


def _contract(t: Batching, node: Node) -> Node:
    operands, _, out = node.text("spec").partition("->")
    left, _, right = operands.partition(",")
    label = LABEL
    while label in node.text("spec"):
        label += "0"
    parts: list[str] = []
    inputs: list[Node] = []
    for text, operand in zip((left, right), node.inputs, strict=True):
        found = t.batched.get(operand)
        parts.append(f"{label} {text.strip()}".strip() if found is not None else text.strip())
        inputs.append(operand if found is None else found)
    spec = f"{parts[0]}, {parts[1]} -> {f'{label} {out.strip()}'.strip()}"
    return t.b.apply("contract", tuple(inputs), {"spec": spec})


def _front(rank: int, axis: int, count: int) -> tuple[int, ...]:
    """The permutation that brings `count` dimensions from `axis` to the front."""
    moved = tuple(range(axis, axis + count))
    return (*moved, *(i for i in range(rank) if i not in moved))


def _inverse(perm: Sequence[int]) -> tuple[int, ...]:
    return tuple(perm.index(i) for i in range(len(perm)))


def _places(t: Batching, index: Node, extent: int) -> Node:
    """Batched indices into examples that lie one after the other."""
    b = t.b
    batched = t.lift(index)
    type = batched.type
    low, high = b.constant(0, type), b.constant(max(extent - 1, 0), type)
    clamped = b.apply("minimum", (b.apply("maximum", (batched, low)), high))
    return b.add(clamped, b.mul(b.iota(0, type), b.constant(extent, type)))


def _gather(t: Batching, node: Node) -> Node:
    b, (x, index), axis = t.b, node.inputs, node.integer("axis")
    if index not in t.batched:
        return b.apply("gather", (t.lift(x), index), {"axis": axis + 1})
    if x not in t.batched:
        made = b.apply("gather", (x, t.lift(index)), {"axis": axis})
        return b.permute(made, _front(len(made.shape), axis, 1))
    rank, extent = len(x.shape), x.shape[axis]
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    rows = b.permute(t.lift(x), (0, axis + 1, *(i + 1 for i in range(rank) if i != axis)))
    made = b.apply("gather", (b.reshape(rows, (t.size * extent, *rest)), _places(t, index, extent)), {"axis": 0})
    count = len(index.shape)
    order = (0, *(i + 1 for i in _inverse(_front(len(node.shape), axis, count))))
    return b.permute(made, order)


def _index_add(t: Batching, node: Node) -> Node:
    b, (x, index, src), axis = t.b, node.inputs, node.integer("axis")
    if index not in t.batched:
        return _along_shared(t, node)
    rank, extent, count = len(x.shape), x.shape[axis], len(index.shape)
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    order = (0, axis + 1, *(i + 1 for i in range(rank) if i != axis))
    rows = b.reshape(b.permute(t.lift(x), order), (t.size * extent, *rest))
    added = b.permute(t.lift(src), (0, *(i + 1 for i in _front(len(src.shape), axis, count))))
    made = b.apply("index_add", (rows, _places(t, index, extent), added), {"axis": 0})
    return b.permute(b.reshape(made, (t.size, extent, *rest)), _inverse(order))


def _index_set(t: Batching, node: Node) -> Node:
    return t._each(node) if node.inputs[1] in t.batched else _along_shared(t, node)


def _along_shared(t: Batching, node: Node) -> Node:
    """`_along` where the indices are the same for all examples."""
    x, index, src = node.inputs
    attrs = attrs_of(node) | {"axis": node.integer("axis") + 1}
    return t.b.apply(node.op, (t.lift(x), index, t.lift(src)), attrs)


def _key(node: Node) -> Node:
    """The key of a draw, wherever the draw runs."""
    key = node.inputs[0]
    return key.inputs[0] if key.op == "transfer" else key


def _random_bits(t: Batching, node: Node) -> Node:
    key = node.inputs[0]
    if key in t.batched:
        return t._each(node)
    return t.b.random_bits(key, node.type.with_shape((t.size, *node.shape)), node.integer("word"))


def _random_normal(t: Batching, node: Node) -> Node:
    """The numbers of each example begin with a counter of their own, as they come in pairs from counters."""
    key, count = node.inputs[0], node.type.size
    if key in t.batched:
        return t._each(node)
    whole = t.b.random_normal(key, node.type.with_shape((t.size, blocks(node.type) * 2 * BLOCK)))
    return t.b.reshape(t.b.slice(whole, (0, 0), (t.size, count), (1, 1)), (t.size, *node.shape))


def _transfer(t: Batching, node: Node) -> Node:
    return t.b.transfer(t.lift(node.inputs[0]), node.type.device)


Rule = Callable[[Batching, Node], Node]
_RULES: dict[str, Rule] = {
    "reshape": _reshape,
    "permute": _permute,
    "broadcast": _broadcast,
    "slice": _slice,
    "pad": _pad,
    **dict.fromkeys(["concat", "take_along", "scatter_add", "scatter_set", "scatter_reduce"], _along),
    **dict.fromkeys(["argsort", "sort", "argselect"], _along),
    **dict.fromkeys(["scan_sum", "scan_prod", "scan_max", "scan_min"], _along),
    "index_set": _index_set,
    **dict.fromkeys(
        ["window", "reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "argmax", "argmin"],
        _over,
    ),
    "fold": _fold,
    "contract": _contract,
    "gather": _gather,
    "index_add": _index_add,
    "random_bits": _random_bits,
    "random_normal": _random_normal,
    "transfer": _transfer,
}
