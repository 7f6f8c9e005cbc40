"""Whether a GPU's products of lines (Hopper's `wgmma`) are right and quicker than its products of small matrices.

A GPU answers that itself, once: products are computed both ways and compared bit for bit, and one is timed. That goes
on in a process of its own, `python -m graphc.trial 0`: an error of a kernel would end the context of its process. What
was found is kept in the kernel cache, for this device, driver and compiler.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from threading import Lock
from typing import Any

import numpy as np

import graphc
import graphc_runtime
from graphc.codegen.cuda.program import make_device_artifact, program_unit
from graphc.codegen.target import Target
from graphc.compiled import HOPPER_ONLY, compiler_fields, target_of
from graphc.ir.builder import Builder
from graphc.ir.contraction import multiply_adds, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.narrow import HALVES, factor_dtype
from graphc.ir.types import DType, TensorType, bf16, f16
from graphc.pipeline import build_program
from graphc_runtime.buffer import Buffer
from graphc_runtime.cache import default_cache
from graphc_runtime.devices import get_device
from graphc_runtime.errors import GraphcRuntimeError
from graphc_runtime.executor import Executable

LEAST_WORK = 1 << 30  # multiply-adds of a program's products from which on an answer is worth some seconds
LIMIT = 120.0  # seconds for the trial
AGAIN = 5  # times that a product is computed, as what is out of order may be right by chance
ROUNDS, RUNS = 7, 10  # measurements of either way in turns, and how often the product runs for one
GAIN = 0.98  # of the time that the other way takes
YES, NO, UNKNOWN = 10, 11, 12  # exit codes of the trial
_VERDICTS: dict[str, bool] = {}
_LOCK = Lock()


def is_worth_asking(graph: Graph) -> bool:
    """Whether a program multiplies enough numbers of 16 bits."""
    products = [node for node in graph.nodes if node.op == "contract" and factor_dtype(node) in HALVES]
    return sum(map(multiply_adds, products)) >= LEAST_WORK


def groups_pay(device: str, target: Target) -> bool:
    """Whether `device` is to multiply by lines: what the trial of this process, or an earlier one, found."""
    with _LOCK:
        if device not in _VERDICTS:
            _VERDICTS[device] = _verdict(device, target)
        return _VERDICTS[device]


def earlier_verdict(device: str, target: Target) -> bool | None:
    """What an earlier trial found; None when there was none."""
    held = default_cache().get(_fields(device, target), frozenset())
    return None if held is None else held == b"yes"


def _fields(device: str, target: Target) -> dict[str, str]:
    """What the verdict depends on."""
    opened: Any = get_device(device)
    facts = opened.facts
    own = {"format": "trial 1", "name": facts.name, "driver": str(facts.driver_version)}
    code = compiler_fields(replace(target, tf32=False), device).items()
    return {**own, **{name: value for name, value in code if not name.startswith("option.")}}


def _verdict(device: str, target: Target) -> bool:
    found = earlier_verdict(device, target)
    if found is None:
        found = _asked(device)
        if found is not None:
            default_cache().put(_fields(device, target), b"yes" if found else b"no", frozenset())
    return bool(found)


def _asked(device: str) -> bool | None:
    """What the trial says; None when it could not be made. One that crashes, or comes to no end, says no."""
    if not Path(sys.executable or "").name.startswith("python"):
        return None  # another program that holds an interpreter
    folders = [str(Path(package.__file__ or "").parent.parent) for package in (graphc, graphc_runtime)]
    paths = [*dict.fromkeys(folders), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-P", "-m", "graphc.trial", device.partition(":")[2] or "0"]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "GRAPHC_WGMMA": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    except OSError:
        return None
    return True if done.returncode == YES else False if done.returncode == NO or done.returncode < 0 else None


# the trial itself


def product(spec: str, dtype: DType, extents: dict[str, int], padded: int = 0) -> Graph:
    """A product by a formula, perhaps over an operand between zeros."""
    b = Builder()
    first, second = parse_spec(spec).operands
    edges = tuple(padded if len(dim) > 1 else 0 for dim in first)
    whole = [sum(extents[label] for label, _ in dim) - len(dim) + 1 for dim in first]
    x = b.input(0, TensorType(dtype, tuple(n - 2 * edge for n, edge in zip(whole, edges, strict=True))))
    y = b.input(1, TensorType(dtype, tuple(extents[label] for ((label, _),) in second)))
    return Graph((x, y), (b.contract(b.pad(x, edges, edges) if padded else x, y, spec),))


def products(by: int) -> list[Graph]:
    """Products that are compared: all layouts, a batch, a sum that is cut into parts, a convolution; `by` times as
    large as those of which a few multiprocessors compute a tile each.
    """
    usual = {"a": 320 * by, "k": 200 * by, "c": 192 * by, "n": 2}
    specs = ("a k, k c -> a c", "a k, c k -> a c", "k a, k c -> a c", "k a, c k -> a c", "n a k, n c k -> n a c")
    long = {"a": 128, "k": 8192 * by, "c": 128}
    picture = {"b": 2 * by * by, "h": 16, "w": 16, "r": 3, "s": 3, "k": 64, "o": 128}
    return [
        *(product(spec, bf16, usual) for spec in specs),
        *(product(spec, f16, usual) for spec in specs[::3]),
        product("a k, c k -> a c", bf16, long),
        product("b h+r w+s k, o r s k -> b h w o", bf16, picture, padded=1),
    ]


class Way:
    """A product by the code for a target, on a device."""

    def __init__(self, graph: Graph, target: Target, device: str) -> None:
        program = build_program(graph, target=target)
        self.by_groups = "gc_group_mma" in program_unit(program, target)
        self._device: Any = get_device(device)
        self._executable = Executable(make_device_artifact(program, target, {}), self._device)
        self._inputs = [self._device.upload(Buffer.from_array(a)) for a in _numbers(graph)]

    def result(self) -> bytes:
        (made,) = self._executable.run(self._inputs)
        return self._device.download(made).array.tobytes()

    def seconds(self) -> float:
        """Seconds of one run, of several in a row."""
        (made,) = self._executable.run(self._inputs)
        self._device.synchronize()
        start = time.perf_counter()
        for _ in range(RUNS):
            self._executable.launch(self._inputs, [made])
        self._device.synchronize()
        return (time.perf_counter() - start) / RUNS


def _numbers(graph: Graph) -> list[np.ndarray]:
    """Whole numbers from -3 to 3, whose sums are exact in f32 in any order."""
    rng = np.random.default_rng(0)
    return [rng.integers(-3, 4, node.shape).astype(node.dtype.numpy) for node in graph.inputs]


def _agree(one: Way, other: Way) -> bool:
    return {one.result() for _ in range(AGAIN)} == {other.result()}


def tried(device: str, target: Target, graphs: Sequence[Graph], timed: Graph) -> bool:
    """Whether all products of `graphs` by lines are those by small matrices, and that of `timed` is quicker so."""
    lines = replace(target, cpu=HOPPER_ONLY)
    for graph in graphs:
        if not _agree(Way(graph, lines, device), Way(graph, target, device)):
            return False
    ways = Way(timed, lines, device), Way(timed, target, device)
    if not ways[0].by_groups or ways[1].by_groups or not _agree(*ways):
        return False
    times = [[way.seconds() for way in ways] for _ in range(ROUNDS)]
    first, second = (median(column) for column in zip(*times, strict=True))
    return first < GAIN * second


def main() -> None:
    """The trial of device number `argv[1]`; the exit code is its verdict."""
    device = f"cuda:{sys.argv[1]}"
    try:
        target = target_of(device)
    except GraphcRuntimeError:
        sys.exit(UNKNOWN)
    size = {"a": 4096, "k": 4096, "c": 4096}
    try:
        quicker = tried(device, target, products(6), product("a k, c k -> a c", bf16, size))
    except MemoryError:
        sys.exit(UNKNOWN)
    except GraphcRuntimeError:
        sys.exit(NO)
    sys.exit(YES if quicker else NO)


if __name__ == "__main__":
    main()
