"""Rows 17 and 19: several processes on one cache folder, also when they are killed while they write."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from graphc_runtime import KernelCache
from tests.runtime.native import ROOT

HOST = frozenset({"avx2"})
KILLS = 20
WORKER = """
import sys
from pathlib import Path
from graphc_runtime import KernelCache
cache = KernelCache(Path(sys.argv[1]))
rounds = int(sys.argv[2])
print("ready", flush=True)
number = 0
while rounds < 0 or number < rounds * 50:
    fields = {"i": str(number % 50)}
    code = str(number % 50).encode() * 5000
    cache.forget()
    found = cache.get(fields, frozenset({"avx2"}))
    if found not in (None, code):
        sys.exit("a wrong load")
    if found is None or rounds < 0:
        cache.put(fields, code, frozenset({"avx2"}))
    number += 1
"""


def worker(folder: Path, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WORKER, str(folder), str(rounds)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "runtime")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check(folder: Path, whole: bool) -> None:
    """All entries are right, and nothing but entries is there."""
    cache = KernelCache(folder)
    for i in range(50):
        found = cache.get({"i": str(i)}, HOST)
        assert found == str(i).encode() * 5000 or (found is None and not whole)
    assert cache.verify().bad == ()
    assert [p.name for p in (folder / "v1").iterdir() if not p.name.endswith(".entry")] == []


def test_cold_start_of_many(tmp_path: Path) -> None:
    workers = [worker(tmp_path / "c", 2) for _ in range(8)]
    for process in workers:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out, err) == (0, "ready\n", "")
    check(tmp_path / "c", whole=True)


def test_killed_writers(tmp_path: Path) -> None:
    rng = random.Random(17)
    folder = tmp_path / "c"
    for _ in range(KILLS // 4):
        workers = [worker(folder, -1) for _ in range(4)]
        for process in workers:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in workers:
            time.sleep(rng.random() / 50)
            process.kill()
            _, err = process.communicate(timeout=60)
            assert (process.returncode, err) == (-9, "")
        check(folder, whole=False)
