"""What decides the kernel of a group: its structure, without which values it reads and where in them it begins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from graphc.ir.builder import Builder
from graphc.ir.demand import COMPUTED, base_of
from graphc.ir.index import row_major_strides
from graphc.ir.node import AttrValue, Node, attrs_key
from graphc.ir.schedule import Group, Root
from graphc.ir.visit import topological


@dataclass(frozen=True, slots=True)
class Form:
    """`key` is equal for groups that can share a kernel; `nodes` are a group's values in the order of their numbers.

    `starts` are values in memory that are read through slices alone, and where the first of these begins, by dimension:
    the kernel reads from there on.
    """

    key: tuple[object, ...]
    nodes: tuple[Node, ...]
    starts: Mapping[Node, tuple[int, ...]]

    def bytes_before(self) -> dict[Node, int]:
        """How many bytes into each value in memory the kernel's parameter begins, where that is not 0."""
        return {
            base_of(view): view.dtype.itemsize
            * sum(s * n for s, n in zip(start, row_major_strides(view.shape), strict=True))
            for view, start in self.starts.items()
        }


def form_of(group: Group) -> Form:
    """The form of `group`. Values are numbered as they are met on the way from the roots to what lies in memory."""
    number: dict[Node, int] = {}
    nodes: list[Node] = []
    users: dict[Node, list[Node | None]] = defaultdict(list)

    def number_of(node: Node, user: Node | None) -> int:
        users[node].append(user)
        if node not in number:
            number[node] = len(nodes)
            nodes.append(node)
        return number[node]

    roots = tuple(
        (number_of(r.value, None), r.dims, r.part, *(number_of(n, None) for n in r.scatter)) for r in group.roots
    )
    operands: list[tuple[int, ...] | None] = []
    for node in nodes:  # grows on the way
        walked = node in group.inside or node.op == "reshape" or node.op in COMPUTED
        operands.append(tuple([number_of(operand, node) for operand in node.inputs]) if walked else None)
    starts = _starts(group, nodes, users)
    parts: list[tuple[object, ...]] = []
    for node, places in zip(nodes, operands, strict=True):
        if places is None:
            parts.append((node.type,))
        else:
            parts.append((node.op, attrs_key(_attrs(node, starts)), node.type, node in group.inside, *places))
    return Form((group.domain, roots, *parts), tuple(nodes), starts)


def _starts(group: Group, nodes: list[Node], users: dict[Node, list[Node | None]]) -> dict[Node, tuple[int, ...]]:
    """See `Form.starts`."""
    slices: dict[Node, list[Node]] = defaultdict(list)
    for node in nodes:
        if node.op == "slice" and node in group.inside:
            slices[node.inputs[0]].append(node)
    found: dict[Node, tuple[int, ...]] = {}
    for view, readers in slices.items():
        base = base_of(view)
        if base in group.inside or base.op in COMPUTED or len(readers) != len(users[view]):
            continue
        below, alone = view, True
        while below is not base:
            below = below.inputs[0]
            alone = alone and len(users[below]) == 1
        if not alone or any(step < 0 for reader in readers for step in reader.ints("step")):
            continue
        first = tuple(map(min, zip(*(reader.ints("start") for reader in readers), strict=True)))
        if any(first):
            found[view] = first
    return found


def _attrs(node: Node, starts: Mapping[Node, tuple[int, ...]]) -> tuple[tuple[str, AttrValue], ...]:
    """The attributes of `node`; of a slice that begins where its operand's parameter does, relative to that."""
    if node.op != "slice" or node.inputs[0] not in starts:
        return node.attrs
    start = tuple(s - first for s, first in zip(node.ints("start"), starts[node.inputs[0]], strict=True))
    return tuple((name, start if name == "start" else value) for name, value in node.attrs)


def moved(group: Group, form: Form) -> tuple[Group, tuple[Node, ...]]:
    """`group` as it reads from `form.starts` on, and its values by number. The same ones when there are no starts."""
    if not form.starts:
        return group, form.nodes
    builder = Builder()
    new: dict[Node, Node] = {}
    wanted = [n for root in group.roots for n in (root.value, *root.scatter)]
    for node in topological(wanted, stop=lambda n: n not in group.inside and n.op != "reshape"):
        inputs = tuple(new.get(i, i) for i in node.inputs)
        attrs = _attrs(node, form.starts)
        if inputs != node.inputs or attrs is not node.attrs:
            new[node] = builder.make(node.op, inputs, attrs, node.type)
    roots = tuple(
        Root(new.get(r.value, r.value), r.dims, tuple(new.get(n, n) for n in r.scatter), r.part) for r in group.roots
    )
    inside = frozenset(new.get(n, n) for n in group.inside)
    return Group(group.domain, roots, inside), tuple(new.get(n, n) for n in form.nodes)
