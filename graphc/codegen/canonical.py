"""What decides the kernel of a group: its structure, without which values it reads and where in them it begins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from graphc.ir.builder import Builder
from graphc.ir.demand import COMPUTED, base_of
from graphc.ir.index import row_major_strides
from graphc.ir.node import AttrValue, Node, attrs_key
from graphc.ir.opdef import OPS
from graphc.ir.record import record
from graphc.ir.schedule import Group, Root
from graphc.ir.types import DType, TensorType
from graphc.ir.visit import topological

_MOST_SINKS = 16  # operators that slices are moved through


@record
class Form:
    """`key` is equal for groups that can share a kernel; `nodes` are a group's values in the order of their numbers.

    `starts` are values in memory that are read through slices alone, and where the first of these begins, by dimension:
    the kernel reads from there on. `group` is the group with its slices moved to where they read memory, `inner` are
    its values by number.
    """

    key: tuple[object, ...]
    nodes: tuple[Node, ...]
    starts: Mapping[Node, tuple[int, ...]]
    group: Group
    inner: tuple[Node, ...]

    @property
    def text(self) -> str:
        """`key` in text, the same in every process."""
        return _text(self.key)

    def bytes_before(self) -> dict[Node, int]:
        """How many bytes into each value in memory the kernel's parameter begins, where that is not 0."""
        return {
            base_of(view): view.dtype.itemsize
            * sum(s * n for s, n in zip(start, row_major_strides(view.shape), strict=True))
            for view, start in self.starts.items()
        }


def _text(part: object) -> str:
    if isinstance(part, tuple):
        return f"({','.join(map(_text, part))})"
    return str(part) if isinstance(part, TensorType | DType) else repr(part)


def form_of(given: Group) -> Form:
    """The form of a group. Values are numbered as they are met on the way from the roots to what lies in memory."""
    group, original = _sunk(given)
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
    kept = tuple((number_of(r.value, None), r.dims) for r in group.kept)
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
    outer = tuple(original.get(n, n) for n in nodes)
    return Form((group.domain, roots, kept, *parts), outer, starts, group, tuple(nodes))


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


def moved(form: Form) -> tuple[Group, tuple[Node, ...]]:
    """The group as it reads from `form.starts` on, and its values by number. The same ones when there are no starts."""
    if not form.starts:
        return form.group, form.inner

    def begun(builder: Builder, node: Node, inputs: tuple[Node, ...]) -> Node | None:
        return builder.make(node.op, inputs, _attrs(node, form.starts), node.type) if node.op == "slice" else None

    group, new = _rewrite(form.group, begun)
    return group, tuple(new.get(n, n) for n in form.inner)


_Change = Callable[[Builder, Node, tuple[Node, ...]], Node | None]


def _rewrite(group: Group, change: _Change, known: Iterable[Node] = ()) -> tuple[Group, dict[Node, Node]]:
    """`group` with nodes replaced by `change(builder, node, operands)`, where that is not None, and all new nodes by
    those that they replace. A new node that equals one of `known` is that. The same object when nothing changes.
    """
    builder = Builder()
    builder.know(known)
    new: dict[Node, Node] = {}
    inside: set[Node] = set(group.inside)
    wanted = [n for root in group.roots for n in (root.value, *root.scatter)]
    for node in topological(wanted, stop=lambda n: n not in group.inside and n.op != "reshape"):
        if node not in group.inside:
            continue
        inputs = tuple(new.get(i, i) for i in node.inputs)
        made = change(builder, node, inputs)
        if made is None and inputs != node.inputs:
            made = builder.make(node.op, inputs, node.attrs, node.type)
        if made is not None and made is not node:
            new[node] = made
    if not new:
        return group, new
    roots = tuple(
        Root(new.get(r.value, r.value), r.dims, tuple(new.get(n, n) for n in r.scatter), r.part) for r in group.roots
    )
    kept_rows = tuple(replace(r, value=new.get(r.value, r.value)) for r in group.kept)
    leaves = {n for n in topological(wanted, stop=lambda n: n not in inside and n.op != "reshape") if n not in inside}
    starts = [n for root in roots for n in (root.value, *root.scatter)]
    kept = topological(starts, stop=lambda n: n in leaves and n.op != "reshape")
    return Group(group.domain, roots, frozenset(n for n in kept if n not in leaves), kept_rows), new


def _sunk(given: Group) -> tuple[Group, dict[Node, Node]]:
    """The group with slices of what is computed element by element as that of slices, and what its new values were."""
    group: Group = given
    original: dict[Node, Node] = {}
    for _ in range(_MOST_SINKS):
        below = group.inside.difference(group.targets, (r.value for r in group.kept))
        if not any(n.op == "slice" and n.inputs[0] in below for n in group.inside):
            break

        def sink(builder: Builder, node: Node, inputs: tuple[Node, ...], below: frozenset[Node] = below) -> Node | None:
            return _slice_below(builder, node, inputs[0]) if node.op == "slice" and node.inputs[0] in below else None

        # A slice of an operand may be a value of the group already, even one that is stored: both are one.
        sunk, new = _rewrite(group, sink, group.inside)
        if sunk is group:
            break
        before = original
        original = {node: old for node, old in before.items() if node not in new}
        for node, made in new.items():
            if made in sunk.inside and made not in given.inside:
                original[made] = before.get(node, node)
        if tuple(original.get(target, target) for target in sunk.targets) != given.targets:
            return given, {}  # what is stored has become another value of the group, which may have memory of its own
        group = sunk
    return group, original


def _slice_below(builder: Builder, node: Node, below: Node) -> Node | None:
    """The slice `node` of `below`, made of slices of the operands of `below`."""
    start, size, step = node.ints("start"), node.ints("size"), node.ints("step")
    if below.op == "broadcast":
        (source,) = below.inputs
        skip = below.type.rank - source.type.rank
        alone = [n == 1 for n in source.shape]
        begin = tuple(0 if one else s for one, s in zip(alone, start[skip:], strict=True))
        count = tuple(1 if one else n for one, n in zip(alone, size[skip:], strict=True))
        by = tuple(1 if one else s for one, s in zip(alone, step[skip:], strict=True))
        whole = count == source.shape and all(s == 1 for s in by)
        return builder.broadcast(source if whole else builder.slice(source, begin, count, by), size)
    if OPS[below.op].kind != "elementwise":
        return None
    parts = tuple(builder.slice(operand, start, size, step) for operand in below.inputs)
    return builder.make(below.op, parts, below.attrs, node.type)
