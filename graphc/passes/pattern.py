"""Rewrite rules as data, and the driver that applies them.

A rule says: where `before` matches and `condition` holds, `after` has the same value. Patterns are written with
operators (`x * 1`) and `op("select", c, x, y)`; a variable that stands twice must match the same node.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Literal

from graphc.errors import CompileError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.record import record
from graphc.ir.types import DType

Number = float | int | bool

# What a rule takes for granted beyond the values themselves (any NaN counts as the same):
#   exact            nothing: same value, same sign of zero, NaN where NaN was
#   no_signed_zeros  0.0 and -0.0 are the same
#   no_nans          values are neither NaN nor infinite, and 0.0 and -0.0 are the same
#   reassociates     sums and products may be formed in another order
Exactness = Literal["exact", "no_signed_zeros", "no_nans", "reassociates"]

Domain = Literal["any", "float", "number", "integer", "signed", "bool"]


@dataclass(frozen=True, eq=False)
class Pattern:
    """What a node looks like. Make it with `var`, `const`, `op` or Python operators.

    `ops` are the operators it may be (empty: any node at all); `operands` None leaves the operands open; `attrs`
    are attributes with a wanted value; `value` is the wanted value of a constant; `name` is what the match calls
    the node.
    """

    ops: tuple[str, ...] = ()
    operands: tuple[Pattern, ...] | None = None
    attrs: tuple[tuple[str, object], ...] = ()
    value: Number | None = None
    name: str = ""

    def named(self, name: str) -> Pattern:
        """The same pattern, its node called `name` in the match."""
        return replace(self, name=name)

    def __add__(self, other: Pattern | Number) -> Pattern:
        return op("add", self, other)

    def __radd__(self, other: Number) -> Pattern:
        return op("add", other, self)

    def __sub__(self, other: Pattern | Number) -> Pattern:
        return op("sub", self, other)

    def __rsub__(self, other: Number) -> Pattern:
        return op("sub", other, self)

    def __mul__(self, other: Pattern | Number) -> Pattern:
        return op("mul", self, other)

    def __rmul__(self, other: Number) -> Pattern:
        return op("mul", other, self)

    def __truediv__(self, other: Pattern | Number) -> Pattern:
        return op("div", self, other)

    def __pow__(self, other: Pattern | Number) -> Pattern:
        return op("pow", self, other)

    def __neg__(self) -> Pattern:
        return op("neg", self)

    def __invert__(self) -> Pattern:
        return op("bitwise_not", self)

    def __and__(self, other: Pattern | Number) -> Pattern:
        return op("bitwise_and", self, other)

    def __or__(self, other: Pattern | Number) -> Pattern:
        return op("bitwise_or", self, other)

    def __xor__(self, other: Pattern | Number) -> Pattern:
        return op("bitwise_xor", self, other)


def var(name: str) -> Pattern:
    """Any node."""
    return Pattern(name=name)


def const(name: str) -> Pattern:
    """Any `constant` node."""
    return Pattern(("constant",), (), name=name)


def literal(value: Number) -> Pattern:
    """A constant of exactly this value, whatever its element type; -0.0 is not 0.0, and 1 is not true."""
    return Pattern(("constant",), (), value=value)


def op(names: str | Sequence[str], *operands: Pattern | Number, **attrs: object) -> Pattern:
    """The operator(s) `names` over `operands`, with the attributes given."""
    inputs = tuple(o if isinstance(o, Pattern) else literal(o) for o in operands)
    return Pattern((names,) if isinstance(names, str) else tuple(names), inputs, tuple(attrs.items()))


def any_of(names: Iterable[str]) -> Pattern:
    """One of the operators `names`, over any operands."""
    return Pattern(tuple(names))


class Match:
    """The nodes that a pattern's names stand for; `root` is the whole."""

    def __init__(self, root: Node, nodes: dict[str, Node]) -> None:
        self.root = root
        self.nodes = nodes

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def value(self, name: str) -> Number:
        """The value of the constant called `name`."""
        value = self.nodes[name].attr("value")
        assert isinstance(value, int | float)
        return value


After = Pattern | Callable[[Builder, Match], "Node | None"]


@record(slots=False)
class Rule:
    """`before` becomes `after` where `condition` holds and the variable `x` (else the root) has an element type in
    `domain`.

    `after` is a pattern over the same names (its numbers become constants of the root's type), or a function that
    makes the node; it may give None when the rule does not apply after all. `exactness` says what is taken for
    granted.
    """

    name: str
    before: Pattern
    after: After
    condition: Callable[[Match], bool] | None = None
    exactness: Exactness = "exact"
    domain: Domain = "any"

    @cached_property
    def variants(self) -> tuple[Pattern, ...]:
        """`before` with the operands of commutative operators in every order."""
        return tuple(_variants(self.before))

    def apply(self, builder: Builder, node: Node, variants: Sequence[Pattern] | None = None) -> Node | None:
        """What `node` becomes by this rule, or None. The type stays the same.

        Only `variants` are tried where they are given: those that `may_match`.
        """
        for variant in self.variants if variants is None else variants:
            match = match_pattern(variant, node)
            if match is None or not _in_domain(match.nodes.get("x", node).dtype, self.domain):
                continue
            if self.condition is not None and not self.condition(match):
                continue
            after = self.after
            result = _build(builder, after, match) if isinstance(after, Pattern) else after(builder, match)
            if result is None or result is node:
                continue
            if result.type != node.type:
                raise CompileError(f"rule {self.name} turned {node.type} into {result.type}: {node!r}")
            return result
        return None


def _in_domain(dtype: DType, domain: Domain) -> bool:
    if domain == "number":
        return dtype.is_float or dtype.is_integer
    if domain == "integer":
        return dtype.is_integer
    if domain == "signed":
        return dtype.kind in ("int", "float")
    return domain in ("any", dtype.kind)


def _variants(pattern: Pattern) -> Iterator[Pattern]:
    # Recursion here goes over a rule, which is a few operators deep, never over a graph.
    if not pattern.operands:
        yield pattern
        return
    commutes = len(pattern.operands) == 2 and all(OPS[name].commutative for name in pattern.ops)
    for operands in itertools.product(*map(_variants, pattern.operands)):
        yield replace(pattern, operands=operands)
        if commutes and pattern.operands[0] is not pattern.operands[1]:
            yield replace(pattern, operands=operands[::-1])


def same_number(value: object, wanted: Number) -> bool:
    """Whether an attribute is the number `wanted`: equal, of the same sign if zero, and both or neither bool."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if not isinstance(value, int | float) or value != wanted:
        return False
    # An integer 0 in a pattern stands for +0.0 too.
    return value != 0 or math.copysign(1.0, value) == math.copysign(1.0, wanted)


def match_pattern(pattern: Pattern, node: Node) -> Match | None:
    """The match of `pattern`, taken as it stands, against `node`; None when it does not fit."""
    names: dict[str, Node] = {}
    work = [(pattern, node)]
    while work:
        wanted, given = work.pop()
        if wanted.name and names.setdefault(wanted.name, given) is not given:
            return None
        if not wanted.ops:
            continue
        if given.op not in wanted.ops or not all(given.attr(k) == v for k, v in wanted.attrs):
            return None
        if wanted.value is not None and not same_number(given.attr("value"), wanted.value):
            return None
        if wanted.operands is not None:
            if len(wanted.operands) != len(given.inputs):
                return None
            work.extend(zip(wanted.operands, given.inputs, strict=True))
    return Match(node, names)


def may_match(pattern: Pattern, op: str, operands: Sequence[str]) -> bool:
    """Whether the operators of a node and of its operands are those that `pattern` wants."""
    if pattern.ops and op not in pattern.ops:
        return False
    if pattern.operands is None:
        return True
    return len(pattern.operands) == len(operands) and all(
        not wanted.ops or given in wanted.ops for wanted, given in zip(pattern.operands, operands, strict=True)
    )


def _build(builder: Builder, pattern: Pattern, match: Match) -> Node:
    # Recursion here goes over a rule, never over a graph.
    if pattern.value is not None:
        return builder.constant(pattern.value, match.root.type)
    if pattern.name:
        return match[pattern.name]
    operands = tuple(_build(builder, operand, match) for operand in pattern.operands or ())
    return builder.apply(pattern.ops[0], operands, dict(pattern.attrs))  # type: ignore[arg-type]


@dataclass
class Rewriter:
    """Applies rules to a graph until none applies any more. Rules that stand earlier are tried first.

    `counts` tells how often each rule was used. Raises CompileError, with the last rules used, when the rules do
    not come to an end.
    """

    rules: Sequence[Rule]
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._index = _index_of(tuple(self.rules))
        self._settled: set[Node] = set()  # what no rule changes: rules look at a node and at what it is made of

    def run(self, graph: Graph) -> Graph:
        """`graph` in normal form; the same object when no rule applies."""
        builder = Builder.of(graph)
        normal: dict[Node, Node] = {}  # node -> its normal form
        becomes: dict[Node, Node] = {}  # node -> the node it was rewritten to, whose normal form it shares
        budget = 1000 + 100 * len(graph.nodes)
        stack = list(reversed(graph.nodes))
        while stack:
            node = stack[-1]
            if node in normal:
                stack.pop()
                continue
            target = becomes.get(node)
            if target is not None:
                if target in normal:
                    normal[node] = normal[target]
                    stack.pop()
                    continue
                stack.append(target)
                budget -= 1
                if budget < 0:
                    raise CompileError(f"the rewrite rules do not come to an end; used so far: {self.counts}")
                continue
            waiting = [operand for operand in node.inputs if operand not in normal]
            if waiting:
                stack.extend(waiting)
                continue
            builder.locs = node.locs
            operands = tuple([normal[operand] for operand in node.inputs])
            if operands != node.inputs:
                result = builder.make(node.op, operands, node.attrs, node.type)
            else:
                result = node if node in self._settled else self._rewrite(builder, node)
            if result is node:
                normal[node] = node
                stack.pop()
                continue
            becomes[node] = result
        return graph.with_outputs(tuple(normal[node] for node in graph.outputs))

    def _rewrite(self, builder: Builder, node: Node) -> Node:
        for rule, variants in self._index.candidates(node):
            result = rule.apply(builder, node, variants)
            if result is not None:
                self.counts[rule.name] = self.counts.get(rule.name, 0) + 1
                return result
        self._settled.add(node)
        return node


class _Index:
    """For the operators of a node and of its operands: the rules, and their variants, that may match it."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        self._known: dict[tuple[str, ...], tuple[tuple[Rule, tuple[Pattern, ...]], ...]] = {}

    def candidates(self, node: Node) -> tuple[tuple[Rule, tuple[Pattern, ...]], ...]:
        key = (node.op, *[operand.op for operand in node.inputs])
        known = self._known.get(key)
        if known is None:
            op, *operands = key
            found = [(rule, tuple(v for v in rule.variants if may_match(v, op, operands))) for rule in self._rules]
            known = self._known[key] = tuple((rule, variants) for rule, variants in found if variants)
        return known


_index_of = lru_cache(maxsize=8)(_Index)
