"""The nodes that a random graph is grown from, each with its bound, and the ways to take and to add one."""

from __future__ import annotations

import random

from graphc.ir import OPS, Builder, DType, Node, TensorType
from graphc.ir.types import boolean
from tests.fuzz.attrs import random_attrs
from tests.fuzz.bounds import bound_of
from tests.fuzz.interval import Bound, Rejected, kind_of

MOST_ELEMENTS = 4096


class Pool:
    """A growing set of nodes over one builder; `bounds` has every node made, `pool` those that are used on."""

    def __init__(self, rng: random.Random, host: bool = True) -> None:
        self.rng = rng
        self.host = host  # whether operators that run on the host may come in, from a gradient too
        self.builder = Builder()
        self.inputs: list[Node] = []
        self.pool: list[Node] = []
        self.bounds: dict[Node, Bound] = {}

    def keep(self, root: Node) -> Node:
        """`root`, its bound and those of its operands checked. Raises Rejected."""
        stack = [root]
        while stack:
            node = stack[-1]
            waiting = [operand for operand in node.inputs if operand not in self.bounds]
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            if node.type.size > MOST_ELEMENTS or node.type.rank > 6 or (OPS[node.op].kind == "host" and not self.host):
                raise Rejected
            self.bounds[node] = bound_of(node, [self.bounds[operand] for operand in node.inputs])
        return root

    def apply(self, op: str, *operands: Node, **attrs: object) -> Node:
        given = {**random_attrs(self.rng, op, [o.type for o in operands]), **attrs}
        return self.keep(self.builder.apply(op, operands, given))

    def input(self, type: TensorType) -> Node:
        name = self.rng.choice(["", "", "x", "weight", "x y"])
        node = self.keep(self.builder.input(len(self.inputs), type, name))
        self.inputs.append(node)
        self.pool.append(node)
        return node

    def any(self, *kinds: str) -> Node:
        fitting = [n for n in self.pool if not kinds or kind_of(n.dtype) in kinds]
        if not fitting:
            raise Rejected
        # Later nodes more often, so that graphs grow deep.
        return fitting[max(self.rng.randrange(len(fitting)) for _ in range(3))]

    def of_type(self, type: TensorType) -> Node:
        """A value of exactly this type: there already, broadcast, or new."""
        rng = self.rng
        fitting = [n for n in self.pool if n.type == type]
        if fitting and rng.random() < 0.8:
            return rng.choice(fitting)
        if rng.random() < 0.3:
            return self.keep(self.builder.constant(self.number(type.dtype), type))
        if rng.random() < 0.1 and type.rank and type.dtype is not boolean:
            return self.keep(self.builder.iota(rng.randrange(type.rank), type))
        smaller = tuple(1 if rng.random() < 0.5 else n for n in type.shape)[rng.choice([0, 0, type.rank // 2]) :]
        if rng.random() < 0.5 and len(self.inputs) < 10:
            return self.apply("broadcast", self.input(type.with_shape(smaller)), shape=type.shape)
        if len(self.inputs) < 10:
            return self.input(type)
        return self.keep(self.builder.constant(self.number(type.dtype), type))

    def number(self, dtype: DType) -> float | int | bool:
        if dtype.is_float:
            return self.rng.choice([0.0, -0.0, 1.0, 1.0, -1.0, 0.5, 2.0, self.rng.randint(-16, 16) / 8])
        return self.rng.choice([0, 1, 1, 2, 3, 7]) if dtype.is_integer else self.rng.random() < 0.5
