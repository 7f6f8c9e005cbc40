"""One group's kernels as a program of their own, each value in a buffer: what a search for schedules measures."""

from __future__ import annotations

from graphc.codegen.launching import runs_parallel
from graphc.codegen.llvm.build import build_many
from graphc.codegen.llvm.program import Launch, emit_program
from graphc.codegen.lowered import Lowered
from graphc.codegen.package import ENTRY
from graphc.codegen.prepare import prepare
from graphc.codegen.reuse import emit_named, lower_all
from graphc.codegen.schedule import Choice
from graphc.codegen.target import Target
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.schedule import Group, Scratch
from graphc_runtime.artifact import Artifact, TensorSpec


@record
class Alone:
    """The kernels of a group under one choice of schedule. `values` are what their buffers hold, inputs and results."""

    kernels: tuple[Lowered, ...]
    values: tuple[Node | Scratch, ...]
    symbols: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def work(self) -> int:
        """Operations and bytes together, as a rough measure of how long they take."""
        return sum(k.kernel.flops + k.kernel.bytes for k in self.kernels)

    def artifact(self, target: Target) -> Artifact:
        """Native code. All buffers are inputs, in the order of `values`; the program writes to some of them."""
        number = {value: i for i, value in enumerate(self.values)}
        steps = [
            Launch(symbol, tuple((number[b], 0) for b in part.buffers), part.kernel.grid, runs_parallel(part.kernel))
            for symbol, part in zip(self.symbols, self.kernels, strict=True)
        ]
        entry = emit_program(steps, target, ENTRY)
        modules = (*dict.fromkeys(self.texts), entry)
        return Artifact(
            name="candidate",
            inputs=tuple(TensorSpec(v.type.dtype.name, v.type.shape) for v in self.values),
            outputs=(),
            output_aliases=(),
            arena_bytes=0,
            objects=tuple(build_many(modules, target, plain=frozenset({entry}))),
            entry=ENTRY,
        )


def kernels_alone(group: Group, choice: Choice, target: Target) -> Alone:
    """The kernels of `group` under `choice`, with nothing in place. NoOption when there is no such choice."""
    kernels = lower_all(prepare(group, target, choice), target, {})
    named = [emit_named(part.kernel, target) for part in kernels]
    values = tuple(dict.fromkeys(b for part in kernels for b in part.buffers))
    return Alone(kernels, values, tuple(s for s, _ in named), tuple(t for _, t in named))
