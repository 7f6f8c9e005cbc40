"""Rows 15 and 16: damaged cache entries are misses, and are repaired in the same run."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from graphc_runtime import COUNTERS, Artifact, Buffer, Executable, KernelCache, TensorSpec, counters, get_device
from graphc_runtime.cache_entry import encode_fields, key_of
from tests.runtime.native import COUNT_TASK, PARALLEL_ENTRY, artifact, number

HOST = frozenset({"avx2"})
FLIPS = 500


def programs() -> list[tuple[dict[str, str | bytes], bytes]]:
    """Three entries: key fields and real programs."""
    made = []
    for size in (8, 16, 64):
        spec = TensorSpec("i32", (size,))
        program = artifact((PARALLEL_ENTRY, COUNT_TASK), (TensorSpec("i64", (1,)),), (spec,))
        made.append(({"kind": "program", "text": COUNT_TASK, "size": str(size)}, program.to_bytes()))
    return made


def path_of(cache: KernelCache, fields: dict[str, str | bytes]) -> Path:
    return Path(cache.info().path) / f"{key_of(encode_fields(fields))}.entry"


def load_or_compile(cache: KernelCache, fields: dict[str, str | bytes], code: bytes) -> tuple[bytes, bool]:
    """What a compiler does: ask the cache, else compile and store. Gives the code, and whether it was found."""
    cache.forget()
    found = cache.get(fields, HOST)
    if found is None:
        cache.put(fields, code, HOST)
    return (code, False) if found is None else (found, True)


def runs_right(code: bytes) -> bool:
    executable = Executable(Artifact.from_bytes(code), get_device("cpu"))
    count = executable.artifact.outputs[0].shape[0]
    out = Buffer.from_array(np.zeros(count, np.int32))
    executable.run([number(count)], [out])
    return bool((out.array.view(np.int32) == 1).all())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelCache:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of writes, which nobody needs after a loss of power
    return KernelCache(tmp_path / "cache")


def test_flipped_bits(cache: KernelCache) -> None:
    rng = random.Random(15)
    for fields, code in programs():
        load_or_compile(cache, fields, code)
        path = path_of(cache, fields)
        good = path.read_bytes()
        # Every byte of the front, where the lengths stand, and of the checksum; the rest at random.
        places = [*range(64), *range(len(good) - 32, len(good))]
        places += [rng.randrange(len(good)) for _ in range(FLIPS // 3 + 1 - len(places))]
        for place in places:
            damaged = bytearray(good)
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            COUNTERS.reset()
            assert load_or_compile(cache, fields, code) == (code, False), place
            assert counters()["cache_bad"] == 1
            assert load_or_compile(cache, fields, code) == (code, True), place  # repaired
        assert runs_right(load_or_compile(cache, fields, code)[0])
    assert cache.verify().bad == ()


def test_truncation(cache: KernelCache) -> None:
    for fields, code in programs():
        load_or_compile(cache, fields, code)
        path = path_of(cache, fields)
        good = path.read_bytes()
        for size in {*range(0, len(good), 64), *range(64), *range(len(good) - 64, len(good))}:
            path.write_bytes(good[:size])
            assert load_or_compile(cache, fields, code) == (code, False), size
            assert load_or_compile(cache, fields, code) == (code, True), size
        path.write_bytes(good + b"\0")
        assert load_or_compile(cache, fields, code) == (code, False)


def test_copied_and_swapped_files(cache: KernelCache) -> None:
    (one, code_one), (two, code_two), _ = programs()
    load_or_compile(cache, one, code_one)
    load_or_compile(cache, two, code_two)
    path_of(cache, two).write_bytes(path_of(cache, one).read_bytes())
    assert load_or_compile(cache, two, code_two) == (code_two, False)
    assert load_or_compile(cache, two, code_two) == (code_two, True)
    assert load_or_compile(cache, one, code_one) == (code_one, True)


def test_other_format_versions(cache: KernelCache) -> None:
    fields, code, *_ = programs()[0]
    load_or_compile(cache, fields, code)
    path = path_of(cache, fields)
    good = bytearray(path.read_bytes())
    good[8] += 1
    path.write_bytes(good)
    assert load_or_compile(cache, fields, code) == (code, False)
    assert load_or_compile(cache, fields, code) == (code, True)
