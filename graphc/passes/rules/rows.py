"""Elements that are read, added or stored one by one, all of a row at the same place, are rows."""

from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.passes.pattern import Match, Rule, op, var

x, index, source = var("x"), var("index"), var("source")


def row_index(b: Builder, node: Node) -> Node | None:
    """The places of whole rows, of `take_along` and the like; None where elements of a row go to different places."""
    x, index, *rest = node.inputs
    axis = node.integer("axis")
    shape, count = index.shape, index.shape[axis]
    if shape[:axis] + shape[axis + 1 :] != x.shape[:axis] + x.shape[axis + 1 :]:
        return None
    if rest and rest[0].shape != shape:
        return None
    if index.type.size == count:
        return b.reshape(index, (count,))
    if index.op != "broadcast":
        return None
    (given,) = index.inputs
    if given.type.size != count or count == 1:
        return b.reshape(given, (1,)) if given.type.size == count == 1 else None
    from_end = given.type.rank - (index.type.rank - axis)
    return b.reshape(given, (count,)) if from_end >= 0 and given.shape[from_end] == count else None


def _by_rows(name: str) -> Rule:
    """An operator of elements, as the one of rows."""

    def rows(b: Builder, m: Match) -> Node | None:
        found = row_index(b, m.root)
        if found is None:
            return None
        return b.apply(_OF_ROWS[name], (m["x"], found, *m.root.inputs[2:]), {"axis": m.root.integer("axis")})

    operands = (x, index) if name == "take_along" else (x, index, source)
    return Rule(f"{name}-by-rows", op(name, *operands), rows)


_OF_ROWS = {"take_along": "gather", "scatter_add": "index_add", "scatter_set": "index_set"}
ROWS = tuple(map(_by_rows, _OF_ROWS))
