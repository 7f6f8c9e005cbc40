"""Native entries called by hand: over any memory, with the pieces of parallel loops in any order."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from graphc.codegen.llvm.host import host_target
from graphc.codegen.package import Program, make_artifact, make_program
from graphc.codegen.target import Target
from graphc.ir.graph import Graph
from graphc.passes.plan_memory import plan_memory
from graphc.pipeline import schedule
from graphc_runtime.artifact import Artifact
from graphc_runtime.devices.cpu import Library

TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
PARALLEL_FOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
MOVE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_uint8)
ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


def program_for(graph: Graph, donated: frozenset[int] = frozenset(), reuse: bool = True) -> Program:
    """The program of `graph` for this machine; without `reuse` every value has memory of its own."""
    target = host_target()
    fused = schedule(graph, target)
    return make_program(fused, partial(plan_memory, donated=donated, reuse=reuse), target)


def artifact_of(program: Program, target: Target | None = None) -> Artifact:
    return make_artifact(program, target or host_target(), {})


class Runtime:
    """The table of the runtime that an entry gets, with `parallel_for` in place of the thread pool's. `moved` has the
    pool and the bytes of each long fill and copy.
    """

    def __init__(self, parallel_for: Callable[[int, int, int, int], None], pool: int | None = None) -> None:
        self.moved: list[tuple[int | None, int]] = []
        self._callbacks = PARALLEL_FOR(parallel_for), MOVE(self._move)
        first, last = (ctypes.cast(callback, ctypes.c_void_p) for callback in self._callbacks)
        self._table = (ctypes.c_void_p * 3)(first, pool, last)
        self.address = ctypes.addressof(self._table)

    def _move(self, pool: int | None, to: int, source: int | None, nbytes: int, value: int) -> None:
        self.moved.append((pool, nbytes))
        if source is None:
            ctypes.memset(to, value, nbytes)
        else:
            ctypes.memmove(to, source, nbytes)


class Entry:
    """The native entry of an artifact."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self._library = Library(artifact.name, artifact.objects, (artifact.entry,))
        self._entry = ENTRY(self._library[artifact.entry])

    def call(self, addresses: Sequence[int], order: random.Random | None = None) -> None:
        """Run over inputs, outputs and arena at `addresses`.

        With `order`, each index of a parallel loop runs by itself, and they run in random order.
        """

        def parallel_for(pool: int, task: int, context: int, count: int) -> None:
            if order is None:
                TASK(task)(context, 0, count)
                return
            for index in order.sample(range(count), count):
                TASK(task)(context, index, index + 1)

        runtime = Runtime(parallel_for)
        table = (ctypes.c_void_p * len(addresses))(*addresses)
        self._entry(ctypes.addressof(table), runtime.address)


def run_over(entry: Entry, arrays: Sequence[np.ndarray], fill: int, order: random.Random | None) -> list[np.ndarray]:
    """Run over copies of `arrays`; outputs and arena hold bytes `fill` before."""
    artifact = entry.artifact
    inputs = [np.array(a, order="C") for a in arrays]
    outputs = [
        inputs[alias].reshape(-1).view(np.uint8) if alias >= 0 else np.full(spec.nbytes, fill, np.uint8)
        for spec, alias in zip(artifact.outputs, artifact.output_aliases, strict=True)
    ]
    arena = np.full(artifact.arena_bytes + 64, fill, np.uint8)
    start = arena.ctypes.data + -arena.ctypes.data % 64
    entry.call([*(a.ctypes.data for a in (*inputs, *outputs)), start], order)
    return outputs
