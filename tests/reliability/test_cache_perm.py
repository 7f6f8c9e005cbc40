"""Row 22: a cache folder that others could have written to is not used, and that is said once."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

import pytest

from graphc_runtime import CacheWarning, KernelCache, cache_folder
from graphc_runtime.cache_entry import encode_fields, key_of

FIELDS = {"kind": "program"}
NAME = f"{key_of(encode_fields(FIELDS))}.entry"


def filled(path: Path) -> None:
    """A cache with one entry, made while all was well."""
    KernelCache(path).put(FIELDS, b"planted", frozenset())


def refuses(path: Path, reason: str) -> None:
    """The cache at `path` is neither read nor written; one warning says why; all else works."""
    before = sorted(path.rglob("*")) if path.exists() else []
    cache = KernelCache(path)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for i in range(3):
            assert cache.get(FIELDS, frozenset()) is None
            cache.put({"i": str(i)}, b"code", frozenset())
            assert cache.get({"i": str(i)}, frozenset()) == b"code"
        assert cache.list() == []
        assert cache.clear() == 0
        info = cache.info()
    assert [w.category for w in seen] == [CacheWarning]
    assert reason in str(seen[0].message)
    assert reason in info.reason
    assert not info.usable
    assert (sorted(path.rglob("*")) if path.exists() else []) == before


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702, 0o1777])
@pytest.mark.parametrize("inner", [False, True])
def test_writable_by_others(tmp_path: Path, mode: int, inner: bool) -> None:
    filled(tmp_path / "c")
    (tmp_path / "c" / "v1" if inner else tmp_path / "c").chmod(mode)
    refuses(tmp_path / "c", "can be written by others")


@pytest.mark.parametrize("inner", [False, True])
def test_symbolic_links(tmp_path: Path, inner: bool) -> None:
    filled(tmp_path / "real")
    if inner:
        (tmp_path / "c").mkdir(mode=0o700)
        (tmp_path / "c" / "v1").symlink_to(tmp_path / "real" / "v1")
    else:
        (tmp_path / "c").symlink_to(tmp_path / "real")
    refuses(tmp_path / "c", "is a symbolic link")


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("hello")
    refuses(tmp_path / "c", "not a folder")


def test_foreign_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "c")
    me = os.geteuid()
    if me == 0:
        os.chown(tmp_path / "c", 65534, 65534)
    else:
        monkeypatch.setattr(cache_folder, "check_parents", lambda _: None)
        monkeypatch.setattr("graphc_runtime.cache.check_parents", lambda _: None)
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    refuses(tmp_path / "c", "belongs to another user")


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_parents_that_others_can_write(tmp_path: Path, mode: int) -> None:
    parent = tmp_path / "parent"
    filled(parent / "c")
    parent.chmod(mode)
    refuses(parent / "c", "can be written by others")
    parent.chmod(mode | stat.S_ISVTX)
    assert KernelCache(parent / "c").get(FIELDS, frozenset()) == b"planted"


def test_a_linked_parent_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    filled(tmp_path / "link" / "c")
    assert KernelCache(tmp_path / "real" / "c").get(FIELDS, frozenset()) == b"planted"


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_entries_that_others_can_write(tmp_path: Path, mode: int) -> None:
    filled(tmp_path / "c")
    path = tmp_path / "c" / "v1" / NAME
    path.chmod(mode)
    cache = KernelCache(tmp_path / "c")
    assert cache.get(FIELDS, frozenset()) is None
    cache.put(FIELDS, b"fresh", frozenset())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KernelCache(tmp_path / "c").get(FIELDS, frozenset()) == b"fresh"


def test_an_entry_that_is_a_link(tmp_path: Path) -> None:
    filled(tmp_path / "c")
    path = tmp_path / "c" / "v1" / NAME
    target = path.rename(tmp_path / "elsewhere")
    path.symlink_to(target)
    cache = KernelCache(tmp_path / "c")
    assert cache.get(FIELDS, frozenset()) is None
    cache.put(FIELDS, b"fresh", frozenset())
    assert not path.is_symlink()
    assert target.read_bytes().count(b"planted") == 1


def test_what_we_make_is_private(tmp_path: Path) -> None:
    filled(tmp_path / "c")
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "c" / "v1").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "c" / "v1" / NAME).stat().st_mode) == 0o600
