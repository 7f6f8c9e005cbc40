"""Programs of which there are ever new variants are interpreted.

A program is compiled for its shapes and everything else that stands in it. Where only these change from run to run, as
the length of a text that grows does, each compilation would serve once, and takes ten times and more of what NumPy
takes for small programs, operator by operator. So a program like several others is interpreted until it has run often
enough for a compiled one to be worth it. What was counted in this process decides, not what a cache holds: the same
script gives the same bits.

What is the same in all variants is compiled nevertheless, once: of a text that grows word by word only attention sees
how long it is.
"""

from __future__ import annotations

import math
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.compiled_pieces import COMPILED
from graphc.counting import FRONT
from graphc.ir.contraction import parse_spec
from graphc.ir.evaluate import Evaluation, value_of
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.ops.source import DRAWS
from graphc.ir.visit import topological
from graphc.memory import AnyBuffer, copy_into, from_host, values_of

MOST_VARIANTS = 4  # of programs that differ in numbers and shapes alone, which are compiled,
MOST_LONG = 3  # of long ones, which take seconds,
MOST_DRAWN = 1  # and of draws alone, of which all but few may be served,
MOST_DEVICE = 2  # and on GPUs, for which compiling takes longer
SERVED_OFTEN = 16  # runs of a variant for all sizes, of programs that NumPy does not run, before it is compiled
MOST_RUNS = 256  # of one variant, before it is compiled: until then compiling would have taken as long
# Microseconds: what interpreting takes for an operator, for an element, for one of a function such as exp and for a
# multiply-add; what compiling takes for a program and an operator (measured on an AMD EPYC, see decision 19).
STEP, ELEMENT, HEAVY, PRODUCT, PROGRAM, COMPILED_STEP = 13, 1e-3, 8e-3, 1e-4, 5000, 1000
# What compiling for a GPU takes, by NVRTC, and what a copy to the host or back takes, and a byte of it.
DEVICE_PROGRAM, DEVICE_STEP, MOVED, MOVED_BYTE = 30_000, 2500, 20, 1e-4
SERVED = 40  # what native code takes less for a program of its own than what Python does with one for all sizes
IN_VAIN = 4  # long programs, one after the other, that were compiled and ran once: others are interpreted first
LONG = 64  # operators of a program that takes long to compile, and is looked for though its shapes are new
MOST_EXACT = 256  # operators of programs that are told apart by what they do in which order
MOST_AT_ONCE = 20_000  # microseconds of a call that is computed by itself, and of a program that is not looked for
_FEW = 1024  # elements that cost no more than the operator
_NOT_ALONE = DRAWS | {"transfer"}  # what is never computed by itself: see `_is_worth` for draws
FEWEST_SAME = 6  # operators of a part that is compiled
MOST_KEPT = 2048  # kinds of programs, and interpreted ones, that are known; the least recently used are forgotten
MOST_OPERATORS = 1 << 17  # of interpreted programs that are known

Key = tuple[object, ...]


class Interpreted:
    """Runs a program, or a part of one, with NumPy where a compiled one would run on `device`. `changing` are the
    numbers of its operators that are others than in a program like it before; `same` is what programs like it share.
    Where something compiled does what all of them do, it is `served` by that, which gives None while it cannot.
    Without `by_numpy` NumPy never runs it.
    """

    def __init__(
        self,
        graph: Graph,
        changing: frozenset[int] = frozenset(),
        whole: Interpreted | None = None,
        same: Same | None = None,
        device: str = "cpu",
        by_numpy: bool = True,
    ) -> None:
        self.output_aliases = (-1,) * len(graph.outputs)
        self.runs = 0.0
        self.changing = changing
        self.same = same
        self.served: Callable[[Sequence[AnyBuffer]], Sequence[AnyBuffer] | None] | None = None
        self.compiled: Callable[[], Any] | None = None  # makes the program that runs what NumPy does not
        self.seen = 0  # the number of changes of `same.sized` then
        self.device = device
        self.by_numpy = by_numpy
        self._whole = whole if whole is not None else self
        self._graph = graph
        self.operators = len(graph.nodes)
        self._evaluation: Evaluation | None = None  # made when it runs first: a whole may run in parts
        self.cost = _estimated(graph, device)  # of a part that gives nothing, too
        most = _runs(graph, self.cost, device)
        self._most: float = min(MOST_RUNS, max(most, 1))
        self._each = SERVED / self.cost if most > 1 else 1 / SERVED_OFTEN  # of a run that is served

    def compile_soon(self) -> None:
        """It is compiled if it is wanted again."""
        self._most = 1

    def compile_never(self) -> None:
        """It cannot be compiled."""
        self._most = math.inf

    @property
    def is_due(self) -> bool:
        """Whether it has run often enough to be compiled."""
        return self._whole.runs >= self._whole._most

    @property
    def is_outdated(self) -> bool:
        """Whether there is something for other sizes than when it was seen whether it could be served."""
        whole = self._whole
        return whole.same is not None and whole.same.sized is not None and whole.same.sized.changes != whole.seen

    def run(self, inputs: Sequence[AnyBuffer]) -> list[AnyBuffer]:
        """The outputs for the inputs' buffers, in memory of their own."""
        if self.served is not None and (served := self.served(inputs)) is not None:
            self.runs += self._each
            FRONT.any_size += 1
            return list(served)
        if self.compiled is not None:
            return self.compiled().run(inputs)
        self._whole.runs += self.cost / self._whole.cost
        FRONT.interpreted += 1
        arrays = [values_of(buffer, node.type) for buffer, node in zip(inputs, self._graph.inputs, strict=True)]
        if self._evaluation is None:
            self._evaluation = Evaluation(self._graph, COMPILED)
        made = self._evaluation.run(arrays)
        return [
            from_host(np.ascontiguousarray(array, node.dtype.numpy), self.device)
            for array, node in zip(made, self._graph.outputs, strict=True)
        ]

    def launch(self, inputs: Sequence[AnyBuffer], outputs: Sequence[AnyBuffer]) -> None:
        """`run` into given memory."""
        for output, made in zip(outputs, self.run(inputs), strict=True):
            copy_into(output, made)


def evaluated(outputs: Sequence[Node], bound: Mapping[Node, AnyBuffer]) -> dict[Node, AnyBuffer] | None:
    """The values of `outputs`, operator by operator, from those that are bound; None where a program is better."""
    order = topological(outputs, bound.__contains__)
    mine = [node for node in order if node not in bound]
    large = sum(_cost(node) for node in mine if node.type.size > _FEW or node.op == "contract")
    if large > MOST_AT_ONCE or any(node.type.device != "cpu" or node.op in _NOT_ALONE for node in mine):
        return None
    values = {node: values_of(bound[node], node.type) for node in order if node in bound}
    with np.errstate(all="ignore"):
        for node in mine:
            values[node] = value_of(node, [values[operand] for operand in node.inputs], COMPILED)
    if len(outputs) == 1 and (only := values[outputs[0]]).base is None and only.flags.carray:
        return {outputs[0]: from_host(only, "cpu")}  # nobody else has that memory
    return {node: from_host(np.array(values[node], order="C"), "cpu") for node in outputs}


class Variants:
    """Which programs for a device are alike, and which of them are interpreted."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._compiled: OrderedDict[Key, set[int]] = OrderedDict()  # the first variants of each kind of program
        self._same: dict[Key, Same] = {}  # of those that are interpreted
        self._held: OrderedDict[Key, Interpreted] = OrderedDict()
        self._operators = 0  # of those that are held
        self._lately: deque[weakref.ref[Any]] = deque(maxlen=IN_VAIN)  # long programs that were compiled

    def note_compiled(self, executable: Any) -> None:
        """A long program was compiled."""
        self._lately.append(weakref.ref(executable))

    def _is_in_vain(self) -> bool:
        """Whether long programs do not come again."""
        held = [ref() for ref in self._lately]
        return len(held) == IN_VAIN and all(executable is None or executable.runs < 2 for executable in held)

    def interpreted(self, graph: Graph, key: Key, order: Sequence[Node]) -> Interpreted | None:
        """What runs the program of `graph`, whose structure is `key` and whose operators were recorded in that `order`,
        if it is not to be compiled now.
        """
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            return None if held.is_due else held
        kind, this = _kind(graph), hash(key)  # a hash, since a key holds a whole structure: it only counts
        compiled = self._compiled.setdefault(kind, set())
        self._compiled.move_to_end(kind)
        if len(self._compiled) > MOST_KEPT:
            self._same.pop(self._compiled.popitem(last=False)[0], None)
        is_new = this not in compiled
        once = is_new and len(graph.nodes) >= LONG and self._is_in_vain()
        drawn = is_drawn(graph.nodes)
        by_numpy = not drawn and is_worth(graph, self._device)
        if is_new and not once and len(compiled) < self._most(graph, drawn):
            compiled.add(this)
            if not by_numpy and not drawn:
                self._same.setdefault(kind, Same()).example = graph
        if this in compiled:
            return None
        same = self._same.setdefault(kind, Same())
        changing = same.changing(order)
        made = self._held[key] = Interpreted(graph, changing, same=same, device=self._device, by_numpy=by_numpy)
        if once and by_numpy:
            made.compile_soon()
        self._operators += made.operators
        while len(self._held) > MOST_KEPT or (self._operators > MOST_OPERATORS and len(self._held) > 1):
            self._operators -= self._held.popitem(last=False)[1].operators
        return made

    def _most(self, graph: Graph, drawn: bool) -> int:
        """How many variants are compiled."""
        most = MOST_LONG if _is_long(graph) else MOST_DRAWN if drawn else MOST_VARIANTS
        return most if self._device == "cpu" else min(most, MOST_DEVICE)


class Same:
    """What programs of a kind have in common, operator by operator in their order. `sized` learns what they do for all
    sizes (`graphc.any_size`), beginning with the `example` if there is one.
    """

    def __init__(self) -> None:
        self.sized: Any = None
        self.example: Graph | None = None
        self._shape: Sequence[object] = ()
        self._known: Sequence[object] = ()
        self._changing: set[int] = set()

    def changing(self, order: Sequence[Node]) -> frozenset[int]:
        """The numbers of the operators of which programs have differed so far; none where they have too little in
        common, or when this is the first.
        """
        number = {node: i for i, node in enumerate(order)}
        shape = [(node.op, tuple(number.get(i, -1) for i in node.inputs)) for node in order]
        known = [(node.type, node.attrs, tuple(i.type for i in node.inputs)) for node in order]
        if shape != self._shape:
            self._shape, self._known = shape, known
            self._changing.clear()
            return frozenset()
        self._changing.update(i for i, (was, now) in enumerate(zip(self._known, known, strict=True)) if was != now)
        return frozenset(self._changing)


def parts(order: Sequence[Node], changing: frozenset[int]) -> list[tuple[list[Node], bool]]:
    """`order` (operands before users) in parts that run one after the other, and whether each is of operators that
    change. One part where that is not worth it.
    """
    stage: dict[Node, int] = {}
    stages: list[list[Node]] = []
    for i, node in enumerate(order):
        before = max((stage[operand] for operand in node.inputs if operand in stage), default=0)
        stage[node] = at = before + (before % 2 != (i in changing))  # those that change have odd numbers
        stages += [[] for _ in range(at + 1 - len(stages))]
        stages[at].append(node)
    made: list[tuple[list[Node], bool]] = []
    for at, nodes in enumerate(stages):
        changes = bool(at % 2) or len(nodes) < FEWEST_SAME
        if made and changes and made[-1][1]:
            made[-1][0].extend(nodes)
        elif nodes:
            made.append((nodes, changes))
    steady = sum(len(nodes) for nodes, changes in made if not changes)
    return made if changing and 2 * steady > len(order) else [(list(order), True)]


def _kind(graph: Graph) -> Key:
    """What programs that differ in numbers, places and shapes alone have in common; long ones may differ in how often
    they do the same too, as steps of a recurrent network over texts of several lengths do.
    """
    if _is_long(graph):
        kinds = {(node.op, node.dtype, node.type.rank) for node in graph.nodes}
        return frozenset(kinds), len(graph.outputs)
    number = {node: i for i, node in enumerate(graph.nodes)}
    nodes = [(node.op, node.dtype, node.type.rank, *map(number.__getitem__, node.inputs)) for node in graph.nodes]
    return (*nodes, *map(number.__getitem__, graph.outputs))


def _is_long(graph: Graph) -> bool:
    return len(graph.nodes) > MOST_EXACT


def is_drawn(nodes: Collection[Node]) -> bool:
    """Whether a program is of draws alone. Such are never run by NumPy, but for whole numbers: what parameters begin
    with is not to depend, by an ulp, on what ran before.
    """
    ops = {node.op for node in nodes}
    return not ops.isdisjoint(DRAWS) and "contract" not in ops and any(node.dtype.is_float for node in nodes)


def is_worth(graph: Graph, device: str) -> bool:
    """Whether interpreting a program twice takes less than compiling it."""
    return _runs(graph, _estimated(graph, device), device) >= 2


def compiling(nodes: Collection[Node], device: str) -> int:
    """Microseconds that compiling some operators takes, about."""
    once, each = (PROGRAM, COMPILED_STEP) if device == "cpu" else (DEVICE_PROGRAM, DEVICE_STEP)
    return once + each * len(nodes)


def _runs(graph: Graph, cost: float, device: str) -> int:
    """How often a program is interpreted in the time in which it is compiled."""
    return int(compiling(graph.nodes, device) / cost)


def _estimated(graph: Graph, device: str) -> float:
    """Microseconds that interpreting a program takes, with what is copied to the host and back."""
    cost = estimated(graph.nodes)
    if device == "cpu":
        return cost
    return cost + sum([MOVED + MOVED_BYTE * node.type.nbytes for node in (*graph.inputs, *graph.outputs)])


def estimated(nodes: Iterable[Node]) -> float:
    """Microseconds that interpreting some operators takes, about."""
    return STEP + sum(map(_cost, nodes))


def _cost(node: Node) -> float:
    """What interpreting an operator takes."""
    size = node.type.size
    if node.op != "contract":
        return STEP + (HEAVY if OPS[node.op].is_heavy or node.op == "random_normal" else ELEMENT) * size
    x, y = node.inputs
    most = x.type.size * y.type.size
    if most * PRODUCT > STEP:  # else there are few, and it is no matter how many
        most = math.prod(parse_spec(node.text("spec")).extents(x.shape, y.shape).values())
    # NumPy multiplies integers one by one.
    return STEP + ELEMENT * size + (PRODUCT if node.dtype.is_float else 20 * PRODUCT) * most
