"""Row 11 of the reliability goals: kernels never touch memory outside their buffers.

Inputs, outputs and every value in the arena lie between pages that must not be touched: once flush with the page
behind, once with the page in front. A fault kills the process, so this runs in child processes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graphc.codegen.llvm.host import host_target
from graphc.codegen.package import make_program
from graphc.ir.graph import Graph
from graphc.ir.schedule import FusedGraph, MemoryPlan, Region
from graphc.passes.plan_memory import InPlace, ScratchOf, plan_memory
from graphc.pipeline import schedule
from tests.codegen.networks import arrays_for, training_step
from tests.codegen.once import kernels_built_once
from tests.codegen.programs import same_bits
from tests.codegen.raw import Entry, artifact_of, program_for, run_over
from tests.fuzz.graphs import random_graph, random_inputs

ROOT = Path(__file__).parents[2]
PAGE = mmap.PAGESIZE
FEW, MANY, AT_ONCE = 60, 2000, 20
BATCHES = (1, 3, 16, 29, 64)


class Guarded:
    """Memory regions, each between two pages that fault when touched."""

    def __init__(self, sizes: Sequence[int], at_end: bool) -> None:
        spans = [-(-max(size, 1) // PAGE) * PAGE for size in sizes]
        total = sum(spans) + PAGE * (len(sizes) + 1)
        self._map = mmap.mmap(-1, total)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.addresses: list[int] = []
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        place = base
        for size, span in zip(sizes, spans, strict=True):
            if protect(ctypes.c_void_p(place), ctypes.c_size_t(PAGE), 0):
                raise OSError(ctypes.get_errno(), "mprotect")
            first = place + PAGE
            ctypes.memset(first, 0xFF, span)
            self.addresses.append(first + span - size if at_end else first)
            place = first + span
        if protect(ctypes.c_void_p(place), ctypes.c_size_t(PAGE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")


def apart(
    fused: FusedGraph, in_place: InPlace, scratch: ScratchOf, at_end: bool
) -> tuple[MemoryPlan, list[tuple[int, int]]]:
    """A plan with pages between the values of the arena, and those pages as (offset, size)."""
    plan = plan_memory(fused, in_place, scratch, reuse=False)
    arena = len(fused.graph.inputs) + len(fused.graph.outputs)
    places, gaps, offset = dict(plan.places), [], 0
    for node, (number, _) in plan.places.items():
        if number == arena:
            gaps.append((offset, PAGE))
            span = -(-max(node.type.nbytes, 1) // PAGE) * PAGE
            places[node] = arena, offset + PAGE + (span - node.type.nbytes if at_end else 0)
            offset += PAGE + span
    return replace(plan, places=places, arena_bytes=offset), gaps


def run_guarded(graph: Graph, arrays: Sequence[np.ndarray], at_end: bool) -> list[np.ndarray]:
    target, gaps = host_target(), []
    fused = schedule(graph, target)

    def planner(
        fused: FusedGraph, in_place: InPlace, scratch: ScratchOf, *, regions: Sequence[Region], parts: int
    ) -> MemoryPlan:
        assert not regions, "these graphs fit the cache"
        plan, found = apart(fused, in_place, scratch, at_end)
        gaps.extend(found)
        return plan

    artifact = artifact_of(make_program(fused, planner, target))
    inputs = [np.array(a, order="C") for a in arrays]
    sizes = [a.nbytes for a in inputs] + [spec.nbytes for spec in artifact.outputs]
    memory = Guarded([*sizes, artifact.arena_bytes], at_end)
    for array, address in zip(inputs, memory.addresses, strict=False):
        ctypes.memmove(address, array.ctypes.data, array.nbytes)
    protect = ctypes.CDLL(None).mprotect
    for offset, size in gaps:
        assert not protect(ctypes.c_void_p(memory.addresses[-1] + offset), ctypes.c_size_t(size), 0)
    Entry(artifact).call(memory.addresses)
    first = len(inputs)
    return [
        np.frombuffer(ctypes.string_at(memory.addresses[first + j], spec.nbytes), np.uint8)
        for j, spec in enumerate(artifact.outputs)
    ]


def subjects(kind: str, numbers: Sequence[int]) -> Iterator[tuple[str, Graph, list[np.ndarray]]]:
    for number in numbers:
        graph = random_graph(number) if kind == "random" else training_step(number)
        arrays = random_inputs(graph, number) if kind == "random" else arrays_for(graph)
        yield f"{kind} {number}", graph, arrays


def in_child(kind: str, numbers: Sequence[int]) -> None:
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.reliability.test_guard", kind, *map(str, numbers)]
    target = os.environ.get("GRAPHC_TARGET", "")
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}", "PATH": "", "GRAPHC_TARGET": target}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"after {done.stdout.splitlines()[-1:]}: {done.stderr}"
    assert len(done.stdout.splitlines()) == 2 * len(numbers)


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
class TestGuardPages:
    @pytest.mark.parametrize(
        "first", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(AT_ONCE, FEW, AT_ONCE))]
    )
    def test_random_graphs(self, first: int) -> None:
        in_child("random", range(first, first + AT_ONCE))

    def test_products_behind_a_choice(self) -> None:
        """Padding and a concatenation walk further than the products that they choose."""
        in_child("random", (641, 690))

    def test_training_steps(self) -> None:
        in_child("batch", BATCHES)

    @pytest.mark.slow
    @pytest.mark.parametrize("first", range(FEW, FEW + MANY, 10 * AT_ONCE))
    def test_many_random_graphs(self, first: int) -> None:
        in_child("random", range(first, first + 10 * AT_ONCE))

    def test_the_guard_pages_fault(self) -> None:
        code = "import ctypes; from tests.reliability.test_guard import Guarded; "
        code += "m = Guarded([100], True).addresses[0]; "
        for offset in (100, 99 - PAGE):
            done = subprocess.run(
                [sys.executable, "-c", code + f"ctypes.memset(m, 0, 100); ctypes.memset(m + {offset}, 0, 1)"],
                cwd=ROOT,
                env={"PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}", "PATH": ""},
                capture_output=True,
            )
            assert done.returncode < 0, "touching a guard page did not end the process"


def main() -> None:
    """The child process."""
    with kernels_built_once():
        for what, graph, arrays in subjects(sys.argv[1], [int(number) for number in sys.argv[2:]]):
            expected = run_over(Entry(artifact_of(program_for(graph))), arrays, 0, None)
            for at_end in (True, False):
                print(what, "flush with the page", "behind" if at_end else "in front", flush=True)
                got = run_guarded(graph, arrays, at_end)
                assert all(map(same_bits, got, expected)), f"{what}: results differ"


if __name__ == "__main__":
    main()
