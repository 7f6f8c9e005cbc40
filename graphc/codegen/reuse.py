"""Equal groups are scheduled, lowered and emitted once: the layers of a network, the steps of a recurrence.

Two groups are equal when they compute the same from values of the same types; which values these are does not matter,
nor where in them slices begin: that is the address a kernel is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from graphc.codegen.canonical import Form, form_of, moved
from graphc.codegen.kernel import Kernel
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.lower import Lowered, lower
from graphc.codegen.pack import lower_panel
from graphc.codegen.prepare import Prepared, prepare
from graphc.codegen.schedule import MODEL, Choice
from graphc.codegen.target import Target
from graphc.ir.node import Node
from graphc.ir.schedule import Group, Scratch

NAME = "kernel"  # of every kernel until its text is known
Choices = Mapping[tuple[object, ...], Choice]
NO_CHOICES: Choices = MappingProxyType({})


def lower_all(prepared: Prepared, target: Target, merged: Mapping[Node, Node]) -> tuple[Lowered, ...]:
    """The kernels of a prepared group, in the order in which they run: those that copy operands, then its own."""
    panels = (lower_panel(panel, NAME, target) for panel in prepared.schedule.panels)
    return (*panels, lower(prepared, NAME, target, merged))


def emit_named(kernel: Kernel, target: Target) -> tuple[str, str]:
    """The symbol of `kernel`, which follows from its code, and its LLVM module."""
    text = emit_kernel(kernel, target)
    symbol = f"k{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    return symbol, text.replace(f"@{NAME}(", f"@{symbol}(")


@dataclass(slots=True)
class _Made:
    """A group that was prepared, its values by number, and its kernels by what runs in place (pairs of numbers)."""

    prepared: Prepared
    nodes: tuple[Node, ...]
    lowered: dict[tuple[tuple[int, int], ...], tuple[Lowered, ...]] = field(default_factory=dict)


class Kernels:
    """The kernels of one program for `target`; `choices` says by the key of its form where a group's schedule is not
    the cost model's first.
    """

    def __init__(self, target: Target, choices: Choices = NO_CHOICES) -> None:
        self._target = target
        self._choices = choices
        self._made: dict[tuple[object, ...], _Made] = {}
        self._of: dict[Group, tuple[_Made, Form]] = {}
        self._texts: dict[int, tuple[Kernel, str, str]] = {}

    def in_place(self, group: Group) -> tuple[tuple[Node, Node], ...]:
        """Pairs (target, operand) of `group`: the operand's memory may become the target's. Chooses the loops."""
        form = form_of(group)
        made = self._made.get(form.key)
        if made is None:
            first, nodes = moved(form)
            made = self._made[form.key] = _Made(prepare(first, self._target, self._choices.get(form.key, MODEL)), nodes)
        self._of[group] = made, form
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
        mine: dict[Node | Scratch, Node | Scratch] = dict(zip(made.nodes, form.nodes, strict=True))
        mine.update(zip(made.prepared.schedule.memory, self.scratch(group), strict=True))
        later: dict[Node | Scratch, int] = {**form.bytes_before()}
        parts = [(part.kernel, tuple(mine[b] for b in part.buffers)) for part in known]
        return tuple(Lowered(kernel, buffers, tuple(later.get(b, 0) for b in buffers)) for kernel, buffers in parts)

    def emit(self, kernel: Kernel) -> tuple[str, str]:
        """The symbol of `kernel`, which follows from its code, and its LLVM module."""
        known = self._texts.get(id(kernel))
        if known is None:
            # The kernel is kept, so that its identity stays its own.
            known = self._texts[id(kernel)] = kernel, *emit_named(kernel, self._target)
        return known[1], known[2]
