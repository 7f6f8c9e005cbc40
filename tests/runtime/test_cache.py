"""The kernel cache: what it finds, keeps, evicts and reports."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from graphc_runtime import COUNTERS, CacheWarning, KernelCache, counters, default_cache, feature_names
from graphc_runtime.cache_entry import BadEntry, decode_fields, encode_fields, key_of
from tests.runtime.native import python

FIELDS: dict[str, str | bytes] = {"kind": "program", "text": "define void @f()", "blob": b"\x00\xff", "empty": ""}
HOST = frozenset({"avx2", "fma"})


def entry_path(cache: KernelCache, fields: dict[str, str | bytes]) -> Path:
    return Path(cache.info().path) / f"{key_of(encode_fields(fields))}.entry"


def test_put_and_get(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "c")
    COUNTERS.reset()
    assert cache.get(FIELDS, HOST) is None
    assert not (tmp_path / "c").exists()
    cache.put(FIELDS, b"code", {"fma"})
    assert cache.get(FIELDS, HOST) == b"code"
    cache.forget()
    assert cache.get(FIELDS, HOST) == b"code"
    assert KernelCache(tmp_path / "c").get(FIELDS, HOST) == b"code"
    found = counters()
    assert (found["cache_hits"], found["cache_disk_hits"], found["cache_misses"], found["cache_bad"]) == (3, 2, 1, 0)


def test_empty_and_large_payloads(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "c")
    for size in (0, 1, 3 << 20):
        cache.put({"n": str(size)}, os.urandom(size), frozenset())
        kept = cache.get({"n": str(size)}, HOST)
        cache.forget()
        assert cache.get({"n": str(size)}, HOST) == kept


def test_memory_only() -> None:
    cache = KernelCache(None)
    cache.put(FIELDS, b"code", frozenset())
    assert cache.get(FIELDS, HOST) == b"code"
    cache.forget()
    assert cache.get(FIELDS, HOST) is None
    info = cache.info()
    assert (info.usable, info.entries, info.path) == (False, 0, "")
    assert cache.list() == []
    assert cache.verify().good == 0
    assert cache.clear() == 0


def test_files_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        cache = KernelCache(tmp_path / "a" / "b" / "c")
        cache.put(FIELDS, b"code", frozenset())
    finally:
        os.umask(old)
    for folder in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c", Path(cache.info().path)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry_path(cache, FIELDS).stat().st_mode) == 0o600


def test_list_info_clear(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "c", limit_bytes=1 << 20)
    for i in range(5):
        cache.put({"kind": "k", "i": str(i)}, bytes(i), {"avx2"})
    os.utime(entry_path(cache, {"kind": "k", "i": "3"}), (2e9, 2e9))
    items = cache.list()
    assert len(items) == 5
    assert items[0].fields == {"kind": "k", "i": "3"}
    assert items[0].requires == {"avx2"}
    assert items[0].key == key_of(encode_fields({"kind": "k", "i": "3"}))
    info = cache.info()
    assert (info.entries, info.bytes, info.limit_bytes) == (5, sum(item.bytes for item in items), 1 << 20)
    assert info.usable
    assert cache.verify().good == 5
    (Path(info.path) / "notes.txt").write_text("not ours")
    assert cache.clear() == 5
    assert cache.info().entries == 0
    assert cache.get({"kind": "k", "i": "3"}, HOST) is None
    assert (Path(info.path) / "notes.txt").exists()


def test_verify_names_bad_entries(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "c")
    for i in range(4):
        cache.put({"i": str(i)}, b"code", frozenset())
    bad = entry_path(cache, {"i": "1"})
    bad.write_bytes(bad.read_bytes()[:-1] + b"?")
    moved = entry_path(cache, {"i": "2"})
    moved.rename(moved.with_name("0" * 64 + ".entry"))
    result = cache.verify()
    assert result.good == 2
    assert dict(result.bad) == {bad.name: "checksum differs", "0" * 64 + ".entry": "file name is not its key"}


def test_eviction_keeps_what_is_used(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "c", limit_bytes=20_000)
    for i in range(40):
        cache.put({"i": str(i)}, bytes(1000), frozenset())
        path = entry_path(cache, {"i": str(i)})
        if path.exists():
            os.utime(path, (1e9 + i, 1e9 + i))
        cache.forget()
        assert cache.get({"i": "0"}, HOST) is not None, i  # its use keeps it, though it is the oldest
        assert cache.info().bytes <= 20_000
    names = {item.fields["i"] for item in cache.list()}
    assert {"0", "39", "38"} <= names
    assert "1" not in names


def test_an_entry_over_the_cap_is_not_written(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "c", limit_bytes=5000)
    cache.put({"i": "small"}, bytes(100), frozenset())
    cache.put({"i": "large"}, bytes(6000), frozenset())
    assert [item.fields["i"] for item in cache.list()] == ["small"]
    assert cache.get({"i": "large"}, HOST) == bytes(6000)


def test_abandoned_temporary_files_go(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "c")
    cache.put(FIELDS, b"code", frozenset())
    folder = Path(cache.info().path)
    host = "".join(c for c in os.uname().nodename if c.isalnum())[:32]
    old, new = folder / ".tmp-elsewhere-1-aa", folder / ".tmp-elsewhere-1-bb"
    dead, alive = folder / f".tmp-{host}-4194305-cc", folder / f".tmp-{host}-{os.getpid()}-dd"
    for path in (old, new, dead, alive):
        path.write_bytes(b"part")
    os.utime(old, (1e9, 1e9))
    assert KernelCache(tmp_path / "c").get(FIELDS, HOST) == b"code"
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".tmp")) == sorted([new.name, alive.name])
    assert cache.clear() == 3


def test_the_folder_may_vanish(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "c")
    cache.put(FIELDS, b"code", frozenset())
    for path in sorted((tmp_path / "c").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "c").rmdir()
    cache.forget()
    assert cache.get(FIELDS, HOST) is None
    cache.put(FIELDS, b"code", frozenset())
    cache.forget()
    assert cache.get(FIELDS, HOST) == b"code"


def test_threads(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "c")
    wrong: list[object] = []

    def work(seed: int) -> None:
        for i in range(60):
            fields = {"i": str((i * seed) % 20)}
            code = cache.get(fields, HOST)
            if code is None:
                cache.put(fields, fields["i"].encode() * 100, frozenset())
            elif code != fields["i"].encode() * 100:
                wrong.append(code)
            if i % 10 == 0:
                cache.forget()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.verify().bad == ()
    assert cache.info().entries == 20


def test_fields_encoding() -> None:
    assert decode_fields(encode_fields(FIELDS)) == FIELDS
    assert decode_fields(b"") == {}
    encoded = encode_fields(FIELDS)
    for size in range(1, len(encoded)):
        try:
            assert len(decode_fields(encoded[:size])) < len(FIELDS)
        except BadEntry:
            continue


def test_feature_names() -> None:
    assert feature_names("+avx2,-sse4a,+fma") == {"avx2", "fma"}
    assert feature_names("") == frozenset()


def test_the_default_cache(tmp_path: Path) -> None:
    code = (
        "from graphc_runtime import default_cache\n"
        "cache = default_cache()\n"
        "cache.put({'a': 'b'}, b'x', frozenset())\n"
        "print(cache.info().path, cache.info().usable, cache.info().limit_bytes)\n"
    )
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    done = python(code, environment={"GRAPHC_CACHE_DIR": "", "XDG_CACHE_HOME": str(home), "GRAPHC_CACHE_BYTES": "9999"})
    assert (done.stdout, done.stderr) == (f"{home}/graphc/v1 True 9999\n", "")
    done = python(code, environment={"GRAPHC_CACHE_DIR": str(tmp_path / "mine")})
    assert done.stdout.startswith(f"{tmp_path}/mine/v1 True ")
    done = python(code, environment={"GRAPHC_CACHE": "off", "XDG_CACHE_HOME": str(tmp_path / "never")})
    assert done.stdout.split()[0] == "False"
    assert not (tmp_path / "never").exists()
    assert default_cache() is default_cache()
    done = python(code, environment={"GRAPHC_CACHE_DIR": "~nobody-of-this-name/x"})
    assert "OptionError: option cache_dir: there is no home folder for '~nobody-of-this-name/x'" in done.stderr


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "empty", "huge"])
def test_odd_files_in_the_folder(tmp_path: Path, kind: str) -> None:
    cache = KernelCache(tmp_path / "c")
    cache.put(FIELDS, b"code", frozenset())
    cache.forget()
    path = entry_path(cache, FIELDS)
    saved = path.rename(tmp_path / "saved")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(saved)
    elif kind == "empty":
        path.touch(0o600)
    else:
        path.touch(0o600)
        os.truncate(path, 1 << 40)
    assert cache.get(FIELDS, HOST) is None
    assert len(cache.verify().bad) == 1
    if kind == "folder":  # the one thing that a file cannot take the place of
        with pytest.warns(CacheWarning, match="Is a directory"):
            cache.put(FIELDS, b"code", frozenset())
    else:
        cache.put(FIELDS, b"code", frozenset())
        cache.forget()
    assert cache.get(FIELDS, HOST) == b"code"
