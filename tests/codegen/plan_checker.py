"""An overlap checker for memory plans that shares nothing with the planner: it plays a program over a map of who
owns which bytes.

What a kernel touches is read off its parameters, not off the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.lower import lower
from graphc.codegen.package import lower_apart
from graphc.codegen.prepare import prepare
from graphc.codegen.target import Target
from graphc.ir.demand import APART, WRITES_AT_INDEX
from graphc.ir.node import Node
from graphc.ir.schedule import FusedGraph, MemoryPlan, Scratch
from graphc.passes.plan_memory import ALIGNMENT


@dataclass(frozen=True)
class Step:
    """What one kernel (or copy, or all kernels of one operator) reads and writes. `merged` maps values written to
    values read whose memory they get.
    """

    reads: tuple[Node, ...]
    writes: tuple[Node | Scratch, ...]
    merged: dict[Node, Node]


def steps_of(fused: FusedGraph, plan: MemoryPlan, target: Target) -> list[Step]:
    """The steps of a program in order."""
    steps: list[Step] = []
    for group, merged in zip(fused.groups, plan.merged, strict=True):
        (first, *_) = group.targets
        if first.op in APART:
            parts = lower_apart(group, target)
            if first.op in WRITES_AT_INDEX:
                # A copy of the first operand, which may lie there already, or zeros.
                base = _stored(first.inputs[0])
                is_filled = base.op == "constant" and base.attr("value") == 0 and base not in plan.places
                steps.append(Step(() if is_filled else (base,), (first,), dict(merged)))
        else:
            parts = (lower(prepare(group, target), "k", target, merged),)
            # What a scattering store leaves out is zeroed first.
            scattered = [r.target for r in group.roots if r.is_zeroed]
            steps.extend(Step((), (t,), {}) for t in scattered)
        every = {n: p.mode for part in parts for n, p in zip(part.buffers, part.kernel.params, strict=True)}
        scratch = tuple(n for n in every if isinstance(n, Scratch))
        modes = {n: mode for n, mode in every.items() if not isinstance(n, Scratch)}
        reads = tuple(n for n, mode in modes.items() if mode == "in" or (mode == "inout" and n is not first))
        taken = {o: t for t, o in merged.items()}
        made = tuple(n for n, mode in modes.items() if mode == "out")
        writes = made + tuple(taken[n] for n, mode in modes.items() if mode == "inout" and n in taken) + scratch
        steps.append(Step(reads, writes, dict(merged)))
    return steps


def check_plan(
    fused: FusedGraph, plan: MemoryPlan, steps: Sequence[Step], donated: frozenset[int] = frozenset()
) -> list[str]:
    """What is wrong with `plan`; nothing when each step finds what it reads and outputs are right in the end."""
    return _Player(fused, plan, donated).play(steps)


class _Player:
    def __init__(self, fused: FusedGraph, plan: MemoryPlan, donated: frozenset[int]) -> None:
        self.plan = plan
        self.donated = donated
        self.inputs, self.outputs = fused.graph.inputs, fused.graph.outputs
        self.errors: list[str] = []
        self.owned: dict[int, list[tuple[int, int, Node | Scratch]]] = {}
        for i, node in enumerate(self.inputs):
            self.owned[i] = [(0, node.type.nbytes, node)]
        self.arena = len(self.inputs) + len(self.outputs)

    def play(self, steps: Sequence[Step]) -> list[str]:
        for number, step in enumerate(steps):
            where = f"step {number}"
            reads = [(n, *self._range(n, where)) for n in step.reads if n.type.size]
            writes = [(n, *self._range(n, where)) for n in step.writes if n.type.size]
            for node, buffer, lo, hi in reads:
                self._expect(node, buffer, lo, hi, f"{where} reads")
            for k, (node, *place) in enumerate(writes):
                for other, *theirs in reads:
                    same = isinstance(node, Node) and step.merged.get(node) is other and place == theirs
                    if not same and _overlap(place, theirs):
                        self.errors.append(f"{where} writes {node!r} over {other!r}, which it reads")
                for other, *theirs in writes[:k]:
                    if _overlap(place, theirs):
                        self.errors.append(f"{where} writes {node!r} over {other!r}, which it also writes")
            for node, buffer, lo, hi in writes:
                self._write(node, buffer, lo, hi, where)
        self._finish()
        return self.errors

    def _buffer(self, number: int) -> int:
        """The number of the memory: an output that takes over an input lies in that input's."""
        j = number - len(self.inputs)
        taken = self.plan.taken[j] if 0 <= j < len(self.outputs) else -1
        return taken if taken >= 0 else number

    def _range(self, node: Node | Scratch, where: str) -> tuple[int, int, int]:
        if node not in self.plan.places:
            self.errors.append(f"{where}: {node!r} has no place")
            return -1, 0, 0
        number, offset = self.plan.places[node]
        end = offset + node.type.nbytes
        if number == self.arena:
            if offset < 0 or offset % ALIGNMENT or end > self.plan.arena_bytes:
                self.errors.append(f"{where}: {node!r} lies at {offset}..{end} of {self.plan.arena_bytes} arena bytes")
        elif offset or (*self.inputs, *self.outputs)[number].type.nbytes != node.type.nbytes:
            self.errors.append(f"{where}: {node!r} does not fill buffer {number}")
        return self._buffer(number), offset, end

    def _expect(self, node: Node, buffer: int, lo: int, hi: int, where: str) -> None:
        if (lo, hi, node) not in self.owned.get(buffer, []):
            self.errors.append(f"{where} {node!r}, which is not in memory")

    def _write(self, node: Node | Scratch, buffer: int, lo: int, hi: int, where: str) -> None:
        if buffer < len(self.inputs) and buffer not in self.donated:
            self.errors.append(f"{where} writes {node!r} into input {buffer}")
        kept = [r for r in self.owned.get(buffer, []) if r[1] <= lo or hi <= r[0]]
        self.owned[buffer] = [*kept, (lo, hi, node)]

    def _finish(self) -> None:
        for j, value in self.plan.copies:
            if value.type.size:
                self._expect(value, *self._range(value, "the end"), f"the copy to output {j} reads")
                buffer = self._buffer(len(self.inputs) + j)
                self._write(self.outputs[j], buffer, 0, value.type.nbytes, f"the copy to output {j}")
        copied = dict(self.plan.copies)
        for j, output in enumerate(self.outputs):
            wanted = output if j in copied else _stored(output)
            if j in copied and copied[j] is not _stored(output):
                self.errors.append(f"output {j} is a copy of {copied[j]!r}, not of {output!r}")
            if output.type.size:
                buffer = self._buffer(len(self.inputs) + j)
                self._expect(wanted, buffer, 0, output.type.nbytes, f"output {j} should be")


def _overlap(a: Sequence[int], b: Sequence[int]) -> bool:
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


def _stored(node: Node) -> Node:
    """The value that holds the elements of `node`: reshapes share them."""
    while node.op == "reshape":
        node = node.inputs[0]
    return node
