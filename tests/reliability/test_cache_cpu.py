"""Row 20: code for a CPU with more features is refused; the same host finds everything again."""

from __future__ import annotations

from pathlib import Path

from graphc_runtime import COUNTERS, KernelCache, counters, feature_names

HOST = feature_names("+avx,+avx2,-avx512f,+fma,+sse4.2")


def test_one_feature_too_many(tmp_path: Path) -> None:
    fields = {"kind": "program", "cpu": "x"}
    KernelCache(tmp_path / "c").put(fields, b"wide", HOST | {"avx512f"})
    cache = KernelCache(tmp_path / "c")
    COUNTERS.reset()
    assert cache.get(fields, HOST) is None
    assert counters()["cache_bad"] == 1
    assert cache.get(fields, HOST | {"avx512f", "amx"}) == b"wide"
    assert cache.get(fields, HOST) is None  # also when it is in memory by now
    cache.put(fields, b"narrow", HOST)
    assert KernelCache(tmp_path / "c").get(fields, HOST) == b"narrow"


def test_every_single_missing_feature_refuses(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "c")
    cache.put({"k": "v"}, b"code", HOST)
    for feature in HOST:
        cache.forget()
        assert cache.get({"k": "v"}, HOST - {feature}) is None
    assert cache.get({"k": "v"}, HOST) == b"code"


def test_the_same_host_hits_always(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "c")
    for i in range(50):
        cache.put({"i": str(i)}, b"code", HOST)
    second = KernelCache(tmp_path / "c")
    COUNTERS.reset()
    assert all(second.get({"i": str(i)}, HOST) == b"code" for i in range(50))
    found = counters()
    assert (found["cache_hits"], found["cache_disk_hits"], found["cache_misses"]) == (50, 50, 0)
