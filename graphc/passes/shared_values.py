"""Values that several stored ones want: stored as well, or computed again for each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from graphc.ir.demand import COMPUTED, HEAVY, base_of, is_reduction, needs_loop
from graphc.ir.graph import Graph
from graphc.ir.narrow import HALVES
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.passes.shown import MOVEMENT, SOURCES, movement_base

MAX_INLINE = 400  # scalar operations computed in line for one element of a stored value
MAX_REPEATS = 64  # places at which one element of a stored value may want another value computed
CHEAP = 8  # operations of a value that is computed again rather than stored and read
SMALL = 8  # an operand this many times smaller than a value costs next to nothing to read again
MANY = 1 << 18  # elements of a value from which on bytes are compared
DEPTH = 3  # values of which one is looked at to say what becomes of the next
_LIGHT = frozenset(
    {"cast", "neg", "eq", "ne", "lt", "le", "gt", "ge", "bitwise_not", "bitwise_and", "bitwise_or", "materialize"}
)
_CHEAP = _LIGHT | {"add", "sub", "mul", "abs", "maximum", "minimum", "select"}


class _Known(NamedTuple):
    """What the walk from the outputs back has found so far: of each value its users and the stored values that want
    it, and what is stored.
    """

    users: Mapping[Node, Sequence[Node]]
    owners: Mapping[Node, frozenset[Node]]
    chosen: set[Node]


def store_narrow(graph: Graph, chosen: set[Node]) -> None:
    """Add to `chosen` what is rounded to 16 bits at once when a loop has computed it, and used for nothing else: a
    linear layer's result. Computed again, it would be read in f32.
    """
    kept = {base_of(o) for o in graph.outputs}
    for node in graph.nodes:
        if node.op == "cast" and node.dtype in HALVES and node.type.size and _is_result(node, graph, chosen, kept):
            chosen.add(node)


def _is_result(node: Node, graph: Graph, chosen: set[Node], kept: set[Node]) -> bool:
    """Whether `node` is made of one stored value that takes a loop, has its size and no other users, and small ones."""
    large: Node | None = None
    stack = [node]
    for _ in range(CHEAP):
        if not stack:
            break
        for operand in stack.pop().inputs:
            base = movement_base(operand)
            if base.type.size * SMALL <= node.type.size or base.op == "constant":
                continue
            if large is not None or operand.type.size != node.type.size or len(graph.users[operand]) > 1:
                return False
            if base in chosen:
                if base_of(operand) is not base or not needs_loop(base) or base.type.nbytes <= node.type.nbytes:
                    return False
                if base in kept or len(graph.users[base]) > 1:
                    return False
                large = base
            elif operand.op in _CHEAP:
                stack.append(operand)
            else:
                return False
    return large is not None and not stack


def resolve_shared(graph: Graph, chosen: set[Node], free: frozenset[Node]) -> None:
    """Add to `chosen` what several stored values want, unless it is cheap or in `free`, and what would make a kernel
    too large.

    Walks from the outputs back: a value belongs to the stored value that alone wants it, or to none (it is cheap and
    computed in several kernels).
    """
    users = graph.users
    kept = {base_of(o) for o in graph.outputs}
    owners: dict[Node, frozenset[Node]] = {}  # the stored values that want it
    repeats: dict[Node, int] = {}
    size: dict[Node, int] = {}
    added: dict[Node, int] = {}  # what a value in line has added to the size of each owner
    known = _Known(users, owners, chosen)
    order = list(reversed(graph.nodes))
    i = -1
    while i + 1 < len(order):
        i += 1
        node = order[i]
        if node.op in SOURCES:
            continue
        if node in chosen or node in kept:
            owners[node], repeats[node], size[node] = frozenset((node,)), 1, 0
            continue
        wanted_by = frozenset[Node]().union(*(owners[u] for u in users[node] if u in owners))
        # Users mostly want the same element, and that is computed once.
        times = max((repeats[u] * reads_per_element(u, node) for u in users[node] if u in owners), default=1)
        work = times * (HEAVY if OPS[node.op].is_heavy else 1)
        if node in free:
            fits = True
        else:
            fits = times <= MAX_REPEATS and all(size[o] + work <= MAX_INLINE for o in wanted_by)
            fits = fits and (len(wanted_by) == 1 or _is_cheap(node, wanted_by, known))
        if not fits and times > 1 and len(wanted_by) == 1:
            cut = _narrowest(node, users, owners, repeats, order)
            if cut is not node:  # decide again, from there on
                start = order.index(cut)
                for done in order[start:i]:
                    for owner in owners.pop(done, ()):
                        size[owner] -= added.pop(done, 0)
                chosen.add(cut)
                i = start - 1
                continue
        if not fits:
            chosen.add(node)
            owners[node], repeats[node], size[node] = frozenset((node,)), 1, 0
            continue
        owners[node], repeats[node], added[node] = wanted_by, times, work
        for owner in wanted_by:
            size[owner] += work


def _narrowest(
    node: Node,
    users: Mapping[Node, Sequence[Node]],
    owners: Mapping[Node, frozenset[Node]],
    repeats: Mapping[Node, int],
    order: Sequence[Node],
) -> Node:
    """The smallest value in line that all uses of `node` lead through and that is wanted as often, the last of them.

    It is stored rather than `node`, which may be one of several halves of it (the state of random bits).
    """
    place = {found: i for i, found in enumerate(order)}
    best, times = node, max(repeats[user] for user in users[node] if user in owners)
    ends = {place[user] for user in users[node] if user in owners}
    while ends:
        at = max(ends)  # the furthest from the result
        ends.remove(at)
        found = order[at]
        if found in owners[found] or repeats[found] != times:
            break
        if not ends and found.op not in MOVEMENT and found.type.nbytes <= best.type.nbytes:
            best = found
        ends.update(place[user] for user in users[found] if user in owners)
    return best


def _is_cheap(node: Node, wanted_by: frozenset[Node], known: _Known) -> bool:
    """Whether computing `node` for all that want it moves no more memory than storing it and reading it there. Small
    operands are then stored: `known.chosen` grows.
    """
    # A mask takes few bytes, fewer than what it is made of.
    depth = DEPTH if node.dtype.is_float else 0
    small = _computed_again(node, wanted_by, known, depth)
    if small is None:
        return False
    known.chosen.update(n for n in small if n.op not in SOURCES)
    return True


def _computed_again(node: Node, wanted_by: frozenset[Node], known: _Known, depth: int) -> set[Node] | None:
    """The small operands of `node` if it is cheap, else None.

    Computed again, it takes reads of its other operands for each of those that want it; the other way it is computed
    once, written (which reads the memory first) where it is computed, and read at all other places. An operand that
    others want too, and that will be stored for them, is read as it is.
    """
    if node.op not in _CHEAP:
        return None
    loads: set[Node] = set()
    small: set[Node] = set()
    stack, seen, work = [node], {node}, 1
    while stack:
        for operand in stack.pop().inputs:
            base = movement_base(operand)
            if base in seen or base.op in COMPUTED:
                continue
            seen.add(base)
            if base.type.size * SMALL <= node.type.size:
                small.add(base)
            elif (
                base.op in SOURCES
                or base in known.chosen
                or (depth and _will_be_stored(base, wanted_by, known, depth - 1))
            ):
                loads.add(base)
            elif base.op in _CHEAP:
                work += 1
                stack.append(base)
            else:
                return None
    # Of few elements another kernel costs more than the bytes; what a mask is made of is mostly read anyway.
    by_bytes = node.type.size >= MANY and node.dtype.is_float
    bytes_of = {n: n.dtype.itemsize if by_bytes else 1 for n in (node, *loads)}
    times, moved = len(wanted_by), sum(bytes_of[load] for load in loads)
    return small if work <= CHEAP and moved * (times - 1) <= bytes_of[node] * (times + 1) else None


def _will_be_stored(node: Node, wanted_by: frozenset[Node], known: _Known, depth: int) -> bool:
    """Whether `node`, which others want besides `wanted_by`, will be stored for them."""
    owners = known.owners
    others = frozenset[Node]().union(*(owners[user] for user in known.users[node] if user in owners))
    if not others or len(others | wanted_by) < 2:
        return False
    return _computed_again(node, others | wanted_by, known, depth) is None


def reads_per_element(user: Node, node: Node) -> int:
    """How many elements of `node` one element of `user` reads."""
    if is_reduction(user) and not needs_loop(user):
        return math.prod(node.shape[a] for a in user.ints("axes"))
    if user.op == "fold":
        return math.prod(node.shape[user.type.rank :])
    return 1
