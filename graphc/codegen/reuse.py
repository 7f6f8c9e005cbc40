"""Equal groups are scheduled, lowered and emitted once: the layers of a network, the steps of a recurrence, and what a
third program has in common with two before it.

Two groups are equal when they compute the same from values of the same types; which values these are does not matter,
nor where in them slices begin: that is the address a kernel is given.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from graphc.codegen.blocks import Blocks, blocks_of
from graphc.codegen.canonical import Form, form_of, moved
from graphc.codegen.cuda import emit as cuda
from graphc.codegen.gpu_contraction import lower_gpu_contraction
from graphc.codegen.kernel import Kernel
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.lower import lower
from graphc.codegen.lowered import Lowered
from graphc.codegen.pack import lower_panel
from graphc.codegen.prepare import Prepared, prepare
from graphc.codegen.recurring import Recurring
from graphc.codegen.schedule import MODEL, Choice
from graphc.codegen.streaming import streamed
from graphc.codegen.target import LINE, WIDE, Target
from graphc.ir.node import Node
from graphc.ir.schedule import Group, Scratch

SLOWER = 1.15  # how much longer a contraction may take by itself in order to go by blocks
NAME = "kernel"  # of every kernel until its text is known
Choices = Mapping[tuple[object, ...], Choice]
NO_CHOICES: Choices = MappingProxyType({})


def lower_all(prepared: Prepared, target: Target, merged: Mapping[Node, Node]) -> tuple[Lowered, ...]:
    """The kernels of a prepared group, in the order in which they run: those that copy operands, then its own."""
    tiles = lower_gpu_contraction(prepared, NAME, target, merged)
    if tiles is not None:
        return tiles
    panels = (lower_panel(panel, NAME, target) for panel in prepared.schedule.far_panels)
    return (*panels, lower(prepared, NAME, target, merged))


def emit_named(kernel: Kernel, target: Target) -> tuple[str, str]:
    """The symbol of `kernel`, which follows from its code, and that: an LLVM module, or a function in CUDA C."""
    on_gpu = target.device == "cuda"
    text = cuda.emit_kernel(kernel, target) if on_gpu else emit_kernel(kernel, target)
    symbol = f"k{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    return symbol, text.replace(f" {NAME}(" if on_gpu else f"@{NAME}(", f" {symbol}(" if on_gpu else f"@{symbol}(")


@dataclass(slots=True)
class _Made:
    """A group that was prepared, its values by number, its kernels by what runs in place (pairs of numbers), and what
    was made of these.
    """

    prepared: Prepared
    nodes: tuple[Node, ...]
    lowered: dict[tuple[tuple[int, int], ...], tuple[Lowered, ...]] = field(default_factory=dict)
    written: _Written = field(default_factory=lambda: _Written())


@dataclass(slots=True)
class _Written:
    """Symbols and code of kernels by their identity, and the kernels that store past the caches in place of others.
    Kernels are kept with them, so that their identity stays their own.
    """

    texts: dict[int, tuple[Kernel, str, str]] = field(default_factory=dict)
    streamed: dict[tuple[int, tuple[int, ...], tuple[bool, ...]], tuple[Kernel, Kernel]] = field(default_factory=dict)


GROUPS = Recurring[_Made](128)


class Kernels:
    """The kernels of one program for `target`; `choices` says by the key of its form where a group's schedule is not
    the cost model's first. `emitted` is told the code of each kernel as soon as it is there. `unread` are results of
    contractions that nothing in the program reads.
    """

    def __init__(
        self,
        target: Target,
        choices: Choices = NO_CHOICES,
        emitted: Callable[[str], None] | None = None,
        unread: frozenset[Node] = frozenset(),
    ) -> None:
        self._target = target
        self._choices = choices
        self._emitted = emitted
        self._unread = unread
        self._made: dict[tuple[object, ...], _Made] = {}
        self._of: dict[Group, tuple[_Made, Form]] = {}
        self._by_blocks: dict[tuple[Group, int], tuple[_Made, Form]] = {}
        self._written: dict[int, _Written] = {}  # by the identity of a kernel of a group
        self._others = _Written()
        self._told: set[int] = set()  # kernels that `emitted` knows

    def by_blocks(self, group: Group, count: int) -> Blocks | None:
        """How `group` touches memory along the first axes of its domain, those with `count` places together, if its
        kernel can go along them by blocks.

        Chooses the loops; `cut` says that these are the ones to take.
        """
        form = form_of(group)
        self._of[group] = usual, _ = self._prepared(form, 0), form
        apart = next((n for n in range(1, len(group.domain) + 1) if math.prod(group.domain[:n]) == count), 0)
        for made in (usual, None) if apart else ():
            made = made or self._prepared(form, apart)
            mine = dict(zip(made.nodes, form.nodes, strict=True))
            later = form.bytes_before()
            found = blocks_of(made.prepared, {n: later[mine[n]] for n in made.nodes if mine[n] in later}, count)
            if found is not None:
                break
        else:
            return None
        cycles, most = made.prepared.schedule.cycles, SLOWER * usual.prepared.schedule.cycles
        every = found.scratch + sum(n.type.nbytes for n in found.shared)  # comes from the second cache for each place
        if cycles > most or (every > self._target.l1_bytes and count * every / LINE > most > 0):
            return None
        self._by_blocks[group, count] = made, form
        strides = {mine[node]: stride for node, stride in found.strides.items()}
        scattered = {mine[node]: size for node, size in found.scattered.items()}
        return Blocks(found.count, strides, scattered, frozenset(mine[node] for node in found.copied), found.scratch)

    def cut(self, group: Group, count: int) -> None:
        """Take the loops of `group` that `by_blocks` found for so many blocks."""
        self._of[group] = self._by_blocks[group, count]

    def _prepared(self, form: Form, apart: int) -> _Made:
        on_gpu = self._target.device == "cuda"
        is_aligned = not on_gpu or all(start % WIDE == 0 for start in form.bytes_before().values())
        key = (apart, is_aligned, form.key)
        made = self._made.get(key)
        if made is None:
            choice = MODEL if apart else self._choices.get(form.key, MODEL)
            shared = self._target, choice, *key
            made, recurs = GROUPS.find(shared)
            if made is None:
                first, nodes = moved(form)
                made = _Made(prepare(first, self._target, choice, apart, is_aligned), nodes)
                if recurs:
                    GROUPS.keep(shared, made)
            self._made[key] = made
        return made

    def in_place(self, group: Group) -> tuple[tuple[Node, Node], ...]:
        """Pairs (target, operand) of `group`: the operand's memory may become the target's. Chooses the loops, unless
        that was done.
        """
        if group not in self._of:
            form = form_of(group)
            self._of[group] = self._prepared(form, 0), form
        made, form = self._of[group]
        mine = dict(zip(made.nodes, form.nodes, strict=True))
        later = form.bytes_before()
        pairs = ((mine[target], mine[operand]) for target, operand in made.prepared.in_place)
        return tuple((target, operand) for target, operand in pairs if operand not in later)

    def scratch(self, group: Group) -> tuple[Scratch, ...]:
        """The memory that the kernels of a group that `in_place` has seen work in."""
        made, form = self._of[group]
        mine = dict(zip(made.nodes, form.nodes, strict=True))
        return tuple(Scratch(mine[s.owner], s.name, s.type) for s in made.prepared.schedule.memory)

    def lower(self, group: Group, merged: Mapping[Node, Node]) -> tuple[Lowered, ...]:
        """The kernels of a group that `in_place` has seen, in the order in which they run; `merged` maps targets to
        operands whose memory they take.
        """
        made, form = self._of[group]
        number = {node: i for i, node in enumerate(form.nodes)}
        key = tuple(sorted((number[target], number[operand]) for target, operand in merged.items()))
        known = made.lowered.get(key)
        if known is None:
            pairs = {made.nodes[target]: made.nodes[operand] for target, operand in key}
            known = made.lowered[key] = lower_all(made.prepared, self._target, pairs)
        self._written.update((id(part.kernel), made.written) for part in known)
        mine: dict[Node | Scratch, Node | Scratch] = dict(zip(made.nodes, form.nodes, strict=True))
        mine.update(zip(made.prepared.schedule.memory, self.scratch(group), strict=True))
        later: dict[Node | Scratch, int] = {**form.bytes_before()}
        parts = [(part.kernel, tuple(mine[b] for b in part.buffers)) for part in known]
        return tuple(Lowered(kernel, buffers, tuple(later.get(b, 0) for b in buffers)) for kernel, buffers in parts)

    def streamed(self, lowered: Lowered) -> Lowered:
        """`lowered` with stores past the caches where these pay."""
        unread = tuple(buffer in self._unread for buffer in lowered.buffers)
        key = id(lowered.kernel), lowered.starts, unread
        written = self._written.get(id(lowered.kernel), self._others)
        known = written.streamed.get(key)
        if known is None:
            known = written.streamed[key] = lowered.kernel, streamed(lowered, self._target, unread)
        self._written[id(known[1])] = written
        return replace(lowered, kernel=known[1])

    def emit_all(self, parts: Sequence[Lowered]) -> None:
        """Write the code of the kernels of a group that runs by itself."""
        for part in parts:
            self.emit(self.streamed(part).kernel)

    def emit(self, kernel: Kernel) -> tuple[str, str]:
        """The symbol of `kernel`, which follows from its code, and that."""
        texts = self._written.get(id(kernel), self._others).texts
        known = texts.get(id(kernel))
        if known is None:
            known = texts[id(kernel)] = kernel, *emit_named(kernel, self._target)
        if self._emitted is not None and id(kernel) not in self._told:
            self._told.add(id(kernel))
            self._emitted(known[2])
        return known[1], known[2]
