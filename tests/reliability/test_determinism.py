"""Row 12 of the reliability goals: the compiler's texts, object code, cache keys and results do not depend on Python's
hash seed, on the number of threads, or on whether the program came from the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphc.compiled import compile_graph
from graphc.ir.graph import Graph
from graphc.pipeline import stage_text
from graphc_runtime.cache import default_cache
from graphc_runtime.counters import COUNTERS
from tests.codegen.networks import arrays_for, training_step
from tests.codegen.programs import buffers
from tests.fuzz.graphs import random_graph, random_inputs

ROOT = Path(__file__).parents[2]
Report = dict[str, dict[str, str | int]]

HASH_SEEDS = range(10)
RUNS = 20  # of each program, in each process
TEXTS = ("simplified", "laid_out", "planned", "llvm")
NAMES = ("step", "step in lanes", "random 3", "random 12", "random 34")


def subject(name: str) -> tuple[Graph, list[np.ndarray]]:
    if name.startswith("random"):
        number = int(name.split()[1])
        graph = random_graph(number)
        return graph, random_inputs(graph, number)
    graph = training_step(3) if name == "step" else training_step(48, 26, (1, 4, 8))
    return graph, arrays_for(graph)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def report() -> Report:
    """Digests of everything that has to be the same in every process."""
    found: Report = {}
    known: set[str] = set()
    for name in NAMES:
        graph, arrays = subject(name)
        executable = compile_graph(graph)
        runs = {digest(b"".join(o.array.tobytes() for o in executable.run(buffers(arrays)))) for _ in range(RUNS)}
        keys = {item.key for item in default_cache().list() if item.fields.get("format")} - known
        known |= keys
        found[name] = {
            **{stage: digest(stage_text(graph, stage).encode()) for stage in TEXTS},
            "object code": digest(executable.artifact.to_bytes()),
            "results": " ".join(sorted(runs)),
        }
    found["cache"] = {"keys": " ".join(sorted(known))}
    return found


def in_child(seed: int, threads: int, cache: Path) -> Report:
    environment = {
        **{k: v for k, v in os.environ.items() if k == "GRAPHC_TARGET" or not k.startswith("GRAPHC_")},
        "PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}",
        "PYTHONHASHSEED": str(seed),
        "GRAPHC_THREADS": str(threads),
        "GRAPHC_CACHE_DIR": str(cache),
    }
    command = [sys.executable, "-m", "tests.reliability.test_determinism"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return in_child(0, 1, tmp_path_factory.mktemp("first"))


def test_each_program_always_gives_the_same_bits(first: Report) -> None:
    assert all(" " not in str(first[name]["results"]) for name in NAMES)
    assert str(first["cache"]["keys"]).count(" ") == len(NAMES) - 1
    assert first["count"]["compiles"] == len(NAMES)


@pytest.mark.parametrize("seed", [s if s == 1 else pytest.param(s, marks=pytest.mark.slow) for s in HASH_SEEDS])
def test_hash_seeds_and_threads(seed: int, first: Report, tmp_path: Path) -> None:
    """`first` has the hash seed 0 and one thread."""
    threads = 1 + seed % 2
    cold = in_child(seed, threads, tmp_path)
    assert cold == first
    if seed < 2:
        warm = in_child(seed + 100, 3 - threads, tmp_path)
        assert warm.pop("count") == {"compiles": 0}
        assert warm == {k: v for k, v in first.items() if k != "count"}


def main() -> None:
    """The child process."""
    found = report()
    found["count"] = {"compiles": COUNTERS.snapshot()["compiles"]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
