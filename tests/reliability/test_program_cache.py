"""Programs in the cache: their key holds everything that decides the code, and a second process compiles nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from graphc import compiled
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.llvm.host import host_target
from graphc.codegen.target import Target
from graphc.compiled import key_fields
from graphc.ir.graph import Graph
from graphc.ir.parser import parse_graph
from graphc.options import declare, scope
from graphc_runtime import options as registry
from graphc_runtime.cache_entry import encode_fields, key_of

GRAPH = parse_graph("graph @f(%x: f32[4], %y: f32[4]) {\n  %2 = add %x, %y : f32[4]\n  return %2\n}")
OTHER = parse_graph("graph @f(%x: f32[4], %y: f32[4]) {\n  %2 = sub %x, %y : f32[4]\n  return %2\n}")
NOTHING: frozenset[int] = frozenset()

TRAIN = """
import json
import sys

import numpy as np

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
import graphc.optim as optim
from graphc.native.library import MAKER

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.1), nn.Linear(36, 10))
optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
rng = np.random.default_rng(0)
x = torch.from_numpy(rng.standard_normal((16, 1, 8, 8)).astype(np.float32))
y = torch.from_numpy(rng.integers(0, 10, 16))

def step(x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    return loss

run = torch.compile(step) if sys.argv[1] == "compiled" else step
losses = [run(x, y).item().hex() for _ in range(5)]
MAKER.join()  # what it looks up in the cache is counted too
print(json.dumps({"losses": losses, "counters": torch.counters()}))
"""


def key(
    graph: Graph = GRAPH, donated: frozenset[int] = NOTHING, target: Target | None = None, device: str = "cpu"
) -> str:
    return key_of(encode_fields(key_fields(graph, donated, target or host_target(), device)))


def test_each_part_changes_the_key() -> None:
    others = [key(graph=OTHER), key(donated=frozenset({0})), key(donated=frozenset({1})), key(device="null")]
    assert len({key(), *others}) == 1 + len(others)
    assert key() == key()


@pytest.mark.parametrize("field", [f.name for f in fields(Target)])
def test_each_target_fact_changes_the_key(field: str) -> None:
    """A new field of Target is in this list by itself; it must be in the key too."""
    target = host_target()
    old = getattr(target, field)
    new = (not old) if isinstance(old, bool) else old + 1 if isinstance(old, int) else f"{old}x"
    assert key(target=replace(target, **{field: new})) != key()


def test_each_option_that_affects_code_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    before = key()
    harmless = declare("test_harmless", 1, "changes nothing", affects_code=False)
    assert key() == before
    option = declare("test_code", 1, "changes code", affects_code=True)
    with_option = key()
    assert with_option != before
    option.set(2)
    harmless.set(2)
    assert key() not in (before, with_option)
    registry.CODE.clear()  # of options that are gone after this test


def test_options_that_are_facts_of_a_target_are_in_the_key_as_these() -> None:
    """So a GPU's programs do not depend on the part of the processor that is used, nor a processor's on TF32."""
    whole, gpu = host_target(), key(target=cuda_target("sm_80"), device="cuda:0")
    before = key(target=whole)
    with scope(target="x86-64-v2", matmul_precision="high"):
        assert key(target=cuda_target("sm_80"), device="cuda:0") == gpu
        if whole.vector_bytes > 16 and whole.triple.startswith("x86_64"):
            assert key() != before
        assert key(target=whole) == before


def test_versions_change_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    for name in ("library_version", "_code_fingerprint"):
        with monkeypatch.context() as patch:
            patch.setattr(compiled, name, lambda: "another")
            assert key() != before
    monkeypatch.setattr(compiled.graphc, "__version__", "0.0.0")
    assert key() != before


@pytest.mark.parametrize("mode", ["plain", "compiled"])
def test_a_second_process_compiles_nothing(mode: str, tmp_path: Path) -> None:
    runs = []
    for _ in range(2):
        env = {**os.environ, "GRAPHC_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, mode], env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        runs.append(json.loads(done.stdout))
    first, second = runs
    assert first["losses"] == second["losses"]
    assert first["counters"]["compiles"] > 0
    assert second["counters"]["compiles"] == 0
    assert second["counters"]["cache_disk_hits"] == first["counters"]["cache_misses"]
