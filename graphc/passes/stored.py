"""Which values are stored in memory, and which are computed again, in line, wherever they are wanted."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType

from graphc.ir.contraction import parse_spec
from graphc.ir.demand import (
    APART,
    COMPUTED,
    HEAVY,
    WIDE_STRIDE,
    WRITES_AT_INDEX,
    Demands,
    TooLarge,
    base_of,
    demands,
    is_reduction,
    is_zero,
    needs_loop,
    stage_reads,
    summed_labels,
)
from graphc.ir.graph import Graph
from graphc.ir.index import Ix, Var
from graphc.ir.narrow import widening_of
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.passes.shared_values import reads_per_element, resolve_shared, store_narrow
from graphc.passes.shown import MOVEMENT, SOURCES, is_joined, is_scatter, joined_in, movement_base

REPEATED = 8  # times from which on a value may be stored that is read so often
SAVED = 1 << 18  # scalar operations that this must save
MAX_GROUP = 512  # scalar operations for one element in a whole kernel
MAX_PAIRS = 8 * MAX_GROUP  # (value, index) pairs in a whole kernel, pure movement among them
MAX_PLACES = 16  # in a kernel that is too large, values wanted at more places than that are stored
SPREAD = 24  # operations that storing a value counts for, where each of its elements goes to several places
NEAR = 1 << 20  # bytes that stay in a core's cache until they are read again,
SHIFTED = 12  # and operations that storing such a value counts for
MAX_STEP = 2  # places between neighbours of a window up to which masks let some of a vector's elements be read
MOST_CHOSEN = 8  # operations of all parts among which an element that is computed further is chosen
FEW_PARTS = 8  # of a concatenation among which each element is chosen, rather than all stored in their turn
MAX_TAPS = 32  # multiply-adds for each element of a padded operand up to which it is not copied to be padded
_NONE: Mapping[Node, int] = MappingProxyType({})


def choose_stored(graph: Graph, pads: bool = False, masks: bool = False, halves: bool = False) -> dict[Node, None]:
    """The values to store, in topological order. With `pads` padding is computed wherever it is wanted; with
    `masks` only what contractions read seldom is padded there. With `halves` contractions read 16-bit floats, of which
    they compute in f32, as they are.
    """
    free = frozenset(
        n for n in graph.nodes if n.op in MOVEMENT or (n.op == "pad" and (pads or n.inputs[0].op == "constant"))
    )
    if masks and not pads:
        free |= _padded_as_read(graph)
    if halves:
        factors = [x for n in graph.nodes if n.op == "contract" for x in n.inputs]
        free |= {cast for x in factors if (cast := widening_of(x)) is not None}
    needed = _operands_in_memory(graph) | {base_of(o) for o in graph.outputs}  # even constants must be in memory
    chosen = needed | _must_store(graph, free)
    _store_spread(graph, chosen)
    _store_repeated(graph, chosen)
    _store_shifted(graph, chosen)
    _store_strided(graph, chosen)
    store_narrow(graph, chosen)
    resolve_shared(graph, chosen, free)
    _cut_large(graph, chosen)
    unmade = SOURCES | {"reshape"}
    return {n: None for n in graph.nodes if n in chosen and (n.op not in unmade or (n in needed and n.op in COMPUTED))}


def _operands_in_memory(graph: Graph) -> set[Node]:
    """Operands that are read at indices which are not known before the program runs, but for zeros that something is
    written into: the result is filled with them.
    """
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op in APART:
            is_filled = node.op in WRITES_AT_INDEX and is_zero(base_of(node.inputs[0]))
            found.update(map(base_of, node.inputs[1:] if is_filled else node.inputs))
    return found


def _padded_as_read(graph: Graph) -> set[Node]:
    """Zero padding of what is in memory without it that only contractions read, and each element so seldom that copying
    it takes as long as they do: windows over single channels. What is computed is stored between zeros at once.
    """
    readers: dict[Node, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        if node.op not in MOVEMENT:
            for operand in node.inputs:
                readers[movement_base(operand)].append(node)
    found = {n for n in graph.nodes if n.op == "pad" and is_scatter(n) and not any(n.ints("interior"))}
    there = {base_of(o) for o in graph.outputs}
    found.difference_update(map(movement_base, graph.outputs))
    found = {n for n in found if base_of(n.inputs[0]).op == "input" or base_of(n.inputs[0]) in there}
    return {n for n in found if all(_multiplies_seldom(reader, n) for reader in readers[n])}


def _multiplies_seldom(node: Node, operand: Node) -> bool:
    if node.op != "contract" or len({movement_base(i) for i in node.inputs}) < 2:
        return False
    spec = parse_spec(node.text("spec"))
    steps = {c for dims in (spec.x, spec.y) for terms in dims for _, c in terms}
    taps = node.type.size * math.prod(summed_labels(node).values())
    return bool(steps) and steps <= set(range(1, MAX_STEP + 1)) and taps <= MAX_TAPS * operand.type.size


def _must_store(graph: Graph, free: frozenset[Node]) -> set[Node]:
    """Long reductions, operands of contractions, data that is gathered from, and small reductions of long ones."""
    chosen: set[Node] = set()
    heavy: set[Node] = set()  # values that need a loop to compute, or are maps of such
    for node in graph.nodes:
        if needs_loop(node) or node.op in APART or node.op == "materialize":
            chosen.add(node)
        if node.op == "contract":
            chosen.update(_source(i, free) for i in node.inputs)
        elif node.op in ("gather", "take_along"):
            chosen.add(base_of(node.inputs[0]))
        elif node.op == "window" and is_joined(joined := movement_base(node.inputs[0], MOVEMENT | {"pad"})):
            chosen.add(joined)  # or each element of a window would be computed from all parts, and chosen
        elif node.op == "concat":
            # Each element of a part would be computed from all parts of the part, and chosen.
            parts = {part for x in node.inputs for part in _computed_of(x)}
            chosen.update(x for x in parts if is_joined(x) and not all(_is_stored(i, chosen) for i in x.inputs))
            if len(node.inputs) > FEW_PARTS or (is_joined(node) and _is_computed_in_vain(graph, node)):
                chosen.add(node)
        elif node.op == "fold" and not is_scatter(node):
            chosen.add(movement_base(node.inputs[0]))
        elif node.op == "fold" and joined_in(node) is not None:
            chosen.add(node)
        if needs_loop(node) or (node not in chosen and not is_reduction(node) and any(i in heavy for i in node.inputs)):
            heavy.add(node)
        if is_reduction(node) and node.type.size < node.inputs[0].type.size and node.inputs[0] in heavy:
            chosen.add(node)  # a small result: keep it rather than what it was reduced from
    return chosen


def _is_computed_in_vain(graph: Graph, joined: Node) -> bool:
    """Whether elementwise operators read a concatenation of parts that take many operations: for each element, the
    parts would all be computed.
    """
    seen = {joined}
    todo = [movement_base(x) for x in joined.inputs]
    while todo and len(seen) <= MOST_CHOSEN:
        node = todo.pop()
        if node not in seen and OPS[node.op].kind == "elementwise" and node.op != "materialize":
            seen.add(node)
            todo += map(movement_base, node.inputs)
    users = [user for shape in _shapes_of(graph, joined) for user in graph.users[shape]]
    return len(seen) > MOST_CHOSEN and any(OPS[user.op].kind == "elementwise" for user in users)


def _shapes_of(graph: Graph, node: Node) -> list[Node]:
    """A value and its reshapes."""
    return [node, *(shape for user in graph.users[node] if user.op == "reshape" for shape in _shapes_of(graph, user))]


def _computed_of(x: Node) -> list[Node]:
    """What `x` shows, also through elementwise operators: the last values that are neither."""
    found: list[Node] = []
    seen, todo = {x}, [x]
    while todo:
        node = movement_base(todo.pop())
        if OPS[node.op].kind != "elementwise" or node.op == "materialize":
            found.append(node)
            continue
        fresh = [i for i in dict.fromkeys(node.inputs) if i not in seen]
        seen.update(fresh)
        todo += fresh
    return found


def _is_stored(node: Node, chosen: set[Node]) -> bool:
    """Whether the elements of `node` are in memory, perhaps at other indices."""
    base = movement_base(node)
    return base in chosen or base.op in SOURCES


def _store_spread(graph: Graph, chosen: set[Node]) -> None:
    """Add to `chosen` what a fold writes to all places of its windows, where computing it for each of them takes longer
    than storing it: the gradient of pooling, where that comes out of several sums.
    """
    for fold in graph.nodes:
        if fold.op != "fold" or not is_scatter(fold):
            continue
        places = reads_per_element(fold, fold.inputs[0])
        stack, seen = [fold.inputs[0]], set[Node]()
        while stack:
            node = stack.pop()
            if node in seen or node in chosen or node.op in SOURCES:
                continue
            seen.add(node)
            if node.op != "broadcast" or node.inputs[0].type.size * places > node.type.size:
                stack.extend(node.inputs)
                continue
            base = movement_base(node)
            for _ in range(2):
                work, joined = _work(base, chosen)
                if work * (places - 1) <= SPREAD:
                    break
                chosen.add(base if joined is None else joined)


def _store_repeated(graph: Graph, chosen: set[Node]) -> None:
    """Add to `chosen` what is read again for each place of leading dimensions, where computing it each time takes much
    longer than once: tables of angles for all heads. What repeats along the last dimension is computed once for it.
    """
    for node in graph.nodes:
        if node.op != "broadcast":
            continue
        base = movement_base(node)
        if base in chosen or base.op in SOURCES or node.inputs[0].shape[-1:] in ((), (1,)):
            continue
        times, work = node.type.size // max(base.type.size, 1), _work(base, chosen)[0]
        if times >= REPEATED and work >= HEAVY and base.type.size * (times - 1) * work >= SAVED:
            chosen.add(base)


def _store_shifted(graph: Graph, chosen: set[Node]) -> None:
    """Add to `chosen` what is read at several places, by slices that show the same elements, or as it is and by slices,
    where computing it for each of them takes longer than storing it: a grid after a turn, which the next one reads
    around each place.
    """
    shown: dict[Node, int] = {}  # operations for one element of a slice, which is at another place than what reads it
    for node, users in graph.users.items():
        if node in chosen or node.op in SOURCES:
            continue
        if node.op == "slice":
            shown[node] = _work(node.inputs[0], chosen, shown)[0]
        if node.op in MOVEMENT:
            continue
        parts = [_computed_for(graph, user) for user in users if user.op == "slice"]
        again = sum(parts) - (node.type.size if len(parts) == len(users) else 0)
        least = SHIFTED if node.type.nbytes <= NEAR else SPREAD
        if again > 0 and _work(node, chosen, shown)[0] * again > least * node.type.size:
            chosen.add(node)


def _computed_for(graph: Graph, part: Node) -> int:
    """For how many elements a slice is computed: all those of a concatenation with parts of other shapes, each element
    of which is chosen among them.
    """
    size, todo = part.type.size, [part]
    while todo:
        for user in graph.users[todo.pop()]:
            if user.op in ("reshape", "permute"):
                todo.append(user)
            elif user.op == "concat" and not is_joined(user):
                size = max(size, user.type.size)
    return size


def _store_strided(graph: Graph, chosen: set[Node]) -> None:
    """Add to `chosen` what steps within steps are taken through: halves of halves, in the end, would be picked from
    memory element by element.
    """
    steps: dict[Node, int] = {}  # places between neighbours in what is in memory
    for node in graph.nodes:
        step = 1 if node in chosen else max((steps[x] for x in node.inputs), default=1)
        if node.op == "slice" and node.shape and node.shape[-1] > 1:
            base, by = movement_base(node.inputs[0]), abs(node.ints("step")[-1])
            if step > 1 and step * by > WIDE_STRIDE and by > 1 and base.op not in SOURCES and base not in chosen:
                chosen.add(base)
                step = 1
            step *= by
        steps[node] = step


def _work(root: Node, chosen: set[Node], shown: Mapping[Node, int] = _NONE) -> tuple[int, Node | None]:
    """Operations for one element of `root` in line, and what of it is stored part by part, the value nearest to it.
    Slices in `shown` count for what is told there.
    """
    stack, seen, work = [root], {root}, 0
    joined: Node | None = None
    while stack:
        node = stack.pop()
        if node in chosen or node.op in SOURCES:
            continue
        if node in shown:
            work += shown[node]
            continue
        if joined is None and is_joined(node):
            joined = node
        if node.op not in MOVEMENT:
            work += HEAVY if OPS[node.op].is_heavy else 1
        stack.extend(x for x in node.inputs if x not in seen)
        seen.update(node.inputs)
    return work, joined


def _source(node: Node, free: frozenset[Node]) -> Node:
    """The value whose elements `node` shows by way of nodes in `free`."""
    while node in free:
        node = node.inputs[0]
    return node


def _cut_large(graph: Graph, chosen: set[Node]) -> None:
    """Add to `chosen` values in stored ones that would make a kernel too large by itself.

    Slices and concatenations may want one value at many places (a tree of halves doubles them at each level), which
    only a walk over the indices shows.
    """
    inside = {n for n in graph.nodes if n.op != "input"} - chosen
    todo = [n for n in graph.nodes if n in chosen and n.op not in SOURCES and n.op not in APART and n.type.size]
    while todo:
        root = todo.pop()
        inside.add(root)
        large = _too_large(root, inside)
        inside.discard(root)
        if large is None:
            continue
        found = [n for n in large.indices if n is not root and n in inside and n.op not in SOURCES | MOVEMENT]
        if not found:
            continue
        # The one nearest to the root that is wanted at many places; what lies below it is then looked at by itself.
        places = {n: len(large.indices[n]) for n in found}
        many = [n for n in found if places[n] >= MAX_PLACES]
        cut = min(many, key=places.__getitem__) if many else max(found, key=places.__getitem__)
        chosen.add(cut)
        inside.discard(cut)
        todo += [root, cut]


def _too_large(root: Node, inside: set[Node]) -> Demands | None:
    """What computing one element of `root` walks, if that is too much for one kernel."""
    at = tuple(Ix.of(Var(f"p{i}", max(n - 1, 0))) for i, n in enumerate(root.shape))
    todo, left, work = [(root, at)], MAX_PAIRS, 0
    stages: set[tuple[Node, tuple[Ix, ...]]] = set()
    while todo:
        try:
            walk = demands(todo, inside, limit=left)
        except TooLarge as reached:
            return reached.found
        left -= sum(map(len, walk.indices.values()))
        work += walk.operations
        if left <= 0 or work > MAX_GROUP:
            return walk
        new = [s for s in walk.stages if s not in stages]
        stages.update(new)
        todo = [read for stage in new for read in stage_reads(*stage)]
    return None
