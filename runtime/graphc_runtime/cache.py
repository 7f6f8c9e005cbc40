"""The kernel cache: compiled code by everything that it depends on, in memory and on disk.

An entry is found by the SHA-256 of its key fields. Its file holds all fields, and the reader compares them, so a copied
or colliding file is a miss. Any doubt about a file is a miss, never an error; the entry is then written anew. There are
no locks between processes: files appear by renaming, and a reader that loses a race compiles once more.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from graphc_runtime.cache_entry import (
    MAX_FIELDS,
    MAX_HEADER,
    MAX_PAYLOAD,
    VERSION,
    BadEntry,
    Entry,
    KeyFields,
    decode_fields,
    encode_fields,
    key_of,
    pack,
    unpack,
)
from graphc_runtime.cache_folder import (
    ENTRY_SUFFIX,
    UnsafeFolder,
    check_parents,
    entry_files,
    open_folder,
    read_file,
    remove,
    remove_temporaries,
    write_file,
)
from graphc_runtime.counters import COUNTERS
from graphc_runtime.errors import CacheWarning, OptionError
from graphc_runtime.options import CACHE, CACHE_BYTES, CACHE_DIR

_VERSION_FOLDER = f"v{VERSION}"
_LONGEST_FILE = MAX_HEADER + MAX_FIELDS + MAX_PAYLOAD + 4096
_MEMORY_BYTES = 256 << 20
_TOUCH_AFTER = 3600.0  # seconds; a file that is used is marked so at most this often

_lock = threading.RLock()  # guards the memory part of all caches; never held across file access


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class CacheInfo:
    """State of a cache: its folder, whether that is used (and if not, why), number and bytes of entries, and the
    cap.
    """

    path: str
    usable: bool
    reason: str
    entries: int
    bytes: int
    limit_bytes: int


@dataclass(frozen=True)
class CacheItem:
    """One entry on disk: its key, file size, key fields, needed CPU features, and times of making and last use
    (seconds since 1970).
    """

    key: str
    bytes: int
    fields: dict[str, str | bytes]
    requires: frozenset[str]
    created: int
    used: float


@dataclass(frozen=True)
class Verification:
    """How many entries are good, and file name and fault of each bad one."""

    good: int
    bad: tuple[tuple[str, str], ...]


class KernelCache:
    """Compiled code by key fields. `path` is its folder; None keeps it in memory. Safe from several threads and
    processes.
    """

    def __init__(self, path: Path | None, limit_bytes: int = 1 << 30) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self._reason = "" if path else "the disk cache is off (option cache)"
        self._warned = False
        self._opened = False
        self._disk_bytes = -1  # unknown
        self._memory: OrderedDict[str, tuple[bytes, frozenset[str]]] = OrderedDict()
        self._memory_bytes = 0

    def get(self, fields: KeyFields, host_features: Set[str]) -> bytes | None:
        """The code stored under `fields`, if there is some and it needs only CPU features among `host_features`."""
        encoded = encode_fields(fields)
        key = key_of(encoded)
        with _lock:
            held = self._memory.get(key)
            if held is not None:
                self._memory.move_to_end(key)
        if held is not None and held[1] <= host_features:
            COUNTERS.add("cache_hits")
            return held[0]
        entry = self._load(key, encoded)
        if entry is not None and not entry.requires <= host_features:
            COUNTERS.add("cache_bad")
            entry = None
        if entry is None:
            COUNTERS.add("cache_misses")
            return None
        COUNTERS.add("cache_hits")
        COUNTERS.add("cache_disk_hits")
        self._keep(key, entry.payload, entry.requires)
        return entry.payload

    def put(self, fields: KeyFields, payload: bytes, requires: Set[str]) -> None:
        """Store code that needs the CPU features `requires`. When the disk refuses, it is kept in memory, and one
        warning is given.
        """
        encoded = encode_fields(fields)
        key = key_of(encoded)
        self._keep(key, payload, frozenset(requires))
        if self.path is None or self._reason:
            return
        data = pack(encoded, payload, requires)
        if len(data) > min(self.limit_bytes, _LONGEST_FILE):
            return
        try:
            self._open_once()
            with open_folder(self.path, _VERSION_FOLDER, create=True) as folder:
                write_file(folder, key + ENTRY_SUFFIX, data)
                self._evict(folder, len(data))
        except UnsafeFolder as problem:
            self._turn_off(str(problem))
        except OSError as problem:
            self._warn(f"cannot write to {self.path}: {problem.strerror}")

    def info(self) -> CacheInfo:
        """See CacheInfo."""
        files = [status.st_size for _, status in self._files()]
        path = str(self.path / _VERSION_FOLDER) if self.path else ""
        return CacheInfo(path, not self._reason, self._reason, len(files), sum(files), self.limit_bytes)

    def list(self) -> list[CacheItem]:
        """All good entries on disk, the most recently used first."""
        items: list[CacheItem] = []
        for name, status, entry in self._entries():
            if isinstance(entry, Entry):
                key = name.removesuffix(ENTRY_SUFFIX)
                fields = decode_fields(entry.fields)
                items.append(CacheItem(key, status.st_size, fields, entry.requires, entry.created, status.st_mtime))
        return sorted(items, key=lambda item: -item.used)

    def verify(self) -> Verification:
        """Read every entry on disk and check all of it. Bad ones stay until they are needed, and are then replaced."""
        entries = [(name, entry) for name, _, entry in self._entries()]
        bad = tuple((name, entry) for name, entry in entries if isinstance(entry, str))
        return Verification(len(entries) - len(bad), bad)

    def clear(self) -> int:
        """Remove all entries, in memory and on disk; gives the number of files removed."""
        with _lock:
            self._memory.clear()
            self._memory_bytes = 0
        self._disk_bytes = -1
        if self.path is None or self._reason:
            return 0
        try:
            with open_folder(self.path, _VERSION_FOLDER, create=False) as folder:
                count = sum(remove(folder, name) for name, _ in entry_files(folder))
                return count + remove_temporaries(folder, all_of_them=True)
        except FileNotFoundError:
            return 0
        except UnsafeFolder as problem:
            self._turn_off(str(problem))
            return 0

    def forget(self) -> None:
        """Drop the memory part, as a new process would find it."""
        with _lock:
            self._memory.clear()
            self._memory_bytes = 0

    def _load(self, key: str, encoded: bytes) -> Entry | None:
        if self.path is None or self._reason:
            return None
        name = key + ENTRY_SUFFIX
        try:
            self._open_once()
            with open_folder(self.path, _VERSION_FOLDER, create=False) as folder:
                entry, used = _read(folder, name)
                if isinstance(entry, Entry) and entry.fields != encoded:
                    entry = "made for another key"
                if isinstance(entry, str):
                    COUNTERS.add("cache_bad")
                    return None
                if used < time.time() - _TOUCH_AFTER:
                    with suppress(OSError):
                        os.utime(name, dir_fd=folder, follow_symlinks=False)
                return entry
        except UnsafeFolder as problem:
            self._turn_off(str(problem))
        except OSError:
            pass  # missing, unreadable, or lost to another process: a miss
        return None

    def _entries(self) -> Iterator[tuple[str, os.stat_result, Entry | str]]:
        """Name, status and contents (or fault) of every entry on disk."""
        if self.path is None or self._reason:
            return
        for name, status in self._files():
            try:
                with open_folder(self.path, _VERSION_FOLDER, create=False) as folder:
                    entry, _ = _read(folder, name)
            except (OSError, UnsafeFolder):
                continue
            if isinstance(entry, Entry) and entry.key + ENTRY_SUFFIX != name:
                entry = "file name is not its key"
            yield name, status, entry

    def _files(self) -> list[tuple[str, os.stat_result]]:
        if self.path is None or self._reason:
            return []
        try:
            self._open_once()
            with open_folder(self.path, _VERSION_FOLDER, create=False) as folder:
                return entry_files(folder)
        except UnsafeFolder as problem:
            self._turn_off(str(problem))
        except OSError:
            pass  # there is no folder yet
        return []

    def _open_once(self) -> None:
        """At first use: check the way to the folder, and remove what killed writers left."""
        if self._opened or self.path is None:
            return
        check_parents(self.path)
        with suppress(FileNotFoundError), open_folder(self.path, _VERSION_FOLDER, create=False) as folder:
            remove_temporaries(folder)
        self._opened = True

    def _keep(self, key: str, payload: bytes, requires: frozenset[str]) -> None:
        with _lock:
            old = self._memory.pop(key, None)
            self._memory[key] = payload, requires
            self._memory_bytes += len(payload) - (len(old[0]) if old else 0)
            while self._memory_bytes > _MEMORY_BYTES:
                _, (dropped, _) = self._memory.popitem(last=False)
                self._memory_bytes -= len(dropped)

    def _evict(self, folder: int, added: int) -> None:
        """Keep the folder under its cap: remove the entries that were not used for longest."""
        if self._disk_bytes >= 0:
            self._disk_bytes += added
            if self._disk_bytes <= self.limit_bytes:
                return
        files = entry_files(folder)
        total = sum(status.st_size for _, status in files)
        if total > self.limit_bytes:
            for name, status in sorted(files, key=lambda item: item[1].st_mtime_ns):
                if total <= self.limit_bytes * 9 // 10:
                    break
                total -= status.st_size if remove(folder, name) else 0
        self._disk_bytes = total

    def _turn_off(self, reason: str) -> None:
        self._reason = reason
        self._warn(f"{reason}; not using it")

    def _warn(self, problem: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"kernel cache: {problem}. Compiled code is kept in memory only; GRAPHC_CACHE_DIR names another folder",
                CacheWarning,
                stacklevel=3,
            )


def _read(folder: int, name: str) -> tuple[Entry | str, float]:
    """The entry in a file, or what is wrong with it; and when it was last used. OSError when the file cannot be read
    at all.
    """
    try:
        data, status = read_file(folder, name, _LONGEST_FILE)
        entry = unpack(data)
        decode_fields(entry.fields)
    except (BadEntry, UnsafeFolder) as problem:
        return str(problem), 0.0
    return entry, status.st_mtime


@cache
def default_cache() -> KernelCache:
    """The cache of this process, as the options `cache`, `cache_dir` and `cache_bytes` say at first use.

    OptionError for the home folder of a user who does not exist.
    """
    if not CACHE.get():
        return KernelCache(None)
    named = CACHE_DIR.get()
    try:
        folder = Path(named).expanduser() if named else platformdirs.user_cache_path("graphc", appauthor=False)
    except RuntimeError:
        raise OptionError(f"option {CACHE_DIR.name}: there is no home folder for {named!r}") from None
    return KernelCache(folder.absolute(), CACHE_BYTES.get())


def feature_names(features: str) -> frozenset[str]:
    """The features that are on in an LLVM feature string: `"+avx2,-sse4a"` gives `{"avx2"}`."""
    return frozenset(item[1:] for item in features.split(",") if item.startswith("+"))
