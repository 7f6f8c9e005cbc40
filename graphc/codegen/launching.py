"""The steps of a program: its kernels with their arguments, what is filled and copied, and runs of blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graphc.codegen.kernel import Kernel
from graphc.codegen.llvm.program import Argument, Copy, Fill, Launch, Local, Region, Step
from graphc.codegen.lowered import Lowered
from graphc.codegen.reuse import Kernels
from graphc.ir.demand import WRITES_AT_INDEX, base_of, is_zero
from graphc.ir.node import Node
from graphc.ir.schedule import BlockMemory, Group, MemoryPlan, Scratch
from graphc_runtime.artifact import PARALLEL_BYTES, PARALLEL_FLOPS
from graphc_runtime.artifact import Launch as LaunchRecord


@dataclass
class Launching:
    """Collects the steps of a program, group after group, and the launches in them in the same order."""

    plan: MemoryPlan
    made: Kernels
    arena: int  # the number of the arena in the table of buffers
    steps: list[Step] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    records: list[LaunchRecord] = field(default_factory=list)
    launched: list[Group] = field(default_factory=list)
    _inner: list[Launch | Fill] = field(default_factory=list)  # of the region that is being made
    _members: list[tuple[Group, Kernel, str]] = field(default_factory=list)

    def apart(self, group: Group, parts: Sequence[Lowered], merged: Mapping[Node, Node]) -> None:
        """The kernels of an operator that has kernels of its own. What is written into is copied, unless `merged` says
        that its memory is taken over.
        """
        node = group.roots[0].target
        if node.op in WRITES_AT_INDEX and node not in merged:
            base = base_of(node.inputs[0])
            if is_zero(base) and base not in self.plan.places:
                self.steps.append(Fill(self.plan.places[node], node.type.nbytes))
            else:
                self.steps.append(Copy(self.plan.places[node], self.plan.places[base], node.type.nbytes))
        self._launch_all(group, parts)

    def group(self, group: Group, parts: Sequence[Lowered]) -> None:
        """The kernels of a group that runs by itself."""
        self.steps.extend(fill for _, fill in self._fills(group, None))
        self._launch_all(group, parts)

    def member(self, group: Group, parts: Sequence[Lowered], memory: BlockMemory) -> None:
        """The kernels of a group in a region. What they copy is copied before, and what blocks store in several places
        is filled before; the last group ends the region.
        """
        region = memory.region
        self._launch_all(group, parts[:-1])
        kernel = parts[-1].kernel
        symbol, text = self.made.emit(kernel)
        for target, fill in self._fills(group, memory):
            (self.steps if target in region.spread else self._inner).append(fill)
        self._inner.append(Launch(symbol, self._arguments(parts[-1], memory), kernel.grid))
        self._members.append((group, kernel, text))
        if len(self._members) < region.size:
            return
        threads = memory.parts if runs_parallel(*(kernel for _, kernel, _ in self._members)) else 1
        inner = tuple(self._inner)
        place = self.arena, memory.offset
        self.steps.append(Region(region.blocks, region.together, threads, place, memory.nbytes, inner))
        for member in self._members:
            self._record(*member)
        self._inner, self._members = [], []

    def _launch_all(self, group: Group, parts: Sequence[Lowered]) -> None:
        for part in parts:
            lowered = self.made.streamed(part)
            kernel = lowered.kernel
            symbol, text = self.made.emit(kernel)
            self.steps.append(Launch(symbol, self._arguments(lowered, None), kernel.grid, runs_parallel(kernel)))
            self._record(group, kernel, text)

    def _record(self, group: Group, kernel: Kernel, text: str) -> None:
        # A constant is one value for all who wrote it, wherever they did.
        inside = [n for n in group.inside if n.op != "constant"] or group.inside
        lines = tuple(sorted({str(loc) for n in inside for loc in n.locs}))
        symbol, _ = self.made.emit(kernel)
        self.kernels.append(kernel)
        self.texts.append(text)
        self.records.append(LaunchRecord(symbol, kernel.grid, kernel.flops, kernel.bytes, lines))
        self.launched.append(group)

    def _arguments(self, lowered: Lowered, memory: BlockMemory | None) -> tuple[Argument, ...]:
        starts = lowered.starts or (0,) * len(lowered.buffers)
        return tuple(self._place(b, start, memory) for b, start in zip(lowered.buffers, starts, strict=True))

    def _place(self, value: Node | Scratch, start: int, memory: BlockMemory | None) -> Argument:
        if memory is not None and isinstance(value, Node) and value in memory.places:
            return Local(memory.places[value] + start, value.type.nbytes // memory.region.blocks)
        number, offset = self.plan.places[value]
        return number, offset + start

    def _fills(self, group: Group, memory: BlockMemory | None) -> list[tuple[Node, Fill]]:
        """What zeroes the targets that a scattering store does not cover."""
        targets = dict.fromkeys(r.target for r in group.roots if r.is_zeroed)
        return [(target, Fill(self._place(target, 0, memory), target.type.nbytes)) for target in targets]


def runs_parallel(*kernels: Kernel) -> bool:
    """Whether the kernels have so much to do that several threads share it."""
    return sum(k.flops for k in kernels) >= PARALLEL_FLOPS or sum(k.bytes for k in kernels) >= PARALLEL_BYTES
