"""Row 18: a full disk or a folder that cannot be written: right results, one warning, nothing left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.native import python

CODE = """
import os, resource, signal, sys, warnings
from pathlib import Path
from graphc_runtime import KernelCache, CacheWarning
{before}
cache = KernelCache(Path({path!r}))
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for i in range(20):
        fields = {{"i": str(i)}}
        assert cache.get(fields, frozenset()) is None
        cache.put(fields, bytes(20000), frozenset())
        assert cache.get(fields, frozenset()) == bytes(20000)
assert [w.category for w in seen] == [CacheWarning], [str(w.message) for w in seen]
print(seen[0].message)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that a process of another user could reach, too."""
    made = Path(tempfile.mkdtemp(prefix="graphc-test-"))
    made.chmod(0o755)
    yield made
    for inner in (made, *made.glob("*")):
        if inner.is_dir():
            inner.chmod(0o700)  # a test may have taken away the right to delete
    shutil.rmtree(made)


@pytest.mark.parametrize("limit", [0, 1, 1000, 19_999])
def test_full_disk(folder: Path, limit: int) -> None:
    before = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    done = python(CODE.format(before=before, path=str(folder / "cache")))
    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot write" in done.stdout
    assert list((folder / "cache" / "v1").iterdir()) == []


def test_full_disk_keeps_what_is_there(folder: Path) -> None:
    path = str(folder / "cache")
    first = f"KernelCache(Path({path!r})).put({{'old': ''}}, bytes(5000), frozenset())"
    before = f"{first}\nresource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))"
    after = f"assert KernelCache(Path({path!r})).get({{'old': ''}}, frozenset()) == bytes(5000)"
    done = python(CODE.format(before=before, path=path) + after)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((folder / "cache" / "v1").iterdir())) == 1


def test_read_only_folder(folder: Path) -> None:
    inner = folder / "cache" / "v1"
    inner.mkdir(parents=True)
    for path in (inner, inner.parent):
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        path.chmod(0o500)
    # The superuser may write everywhere: become somebody else.
    before = "os.geteuid() or os.setresuid(65534, 65534, 65534)"
    done = python(CODE.format(before=before, path=str(inner.parent)))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Permission denied" in done.stdout
    assert list(inner.iterdir()) == []


@pytest.mark.parametrize("path", ["/proc/graphc/cache", "/dev/null/cache"])
def test_places_where_no_folder_can_be(path: str) -> None:
    done = python(CODE.format(before="", path=path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "kernel cache" in done.stdout
