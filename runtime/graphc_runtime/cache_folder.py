"""The folder of the kernel cache, opened so that nobody else can have put code there.

Whoever can write to the folder can run code as the user: the checks on owner and permissions are the cache's security
boundary. All access goes through a descriptor of the checked folder, so nothing can be put in its place between check
and use.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENTRY_SUFFIX = ".entry"
TEMPORARY = ".tmp-"
_OLD_TEMPORARY = 3600.0
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsafeFolder(Exception):
    """The folder may not be used; the text says why. Never leaves the cache."""


@contextmanager
def open_folder(path: Path, version: str, create: bool) -> Iterator[int]:
    """A descriptor of `path/version`. FileNotFoundError when it is missing and not to be made, UnsafeFolder when
    others could write.
    """
    if create:
        for folder in reversed((path, *path.parents)):
            if not folder.exists():
                _make(folder, None)
    outer = _open(path, None)
    try:
        if create:
            _make(Path(version), outer)
        inner = _open(Path(version), outer)
        try:
            yield inner
        finally:
            os.close(inner)
    finally:
        os.close(outer)


def check_parents(path: Path) -> None:
    """UnsafeFolder when another user could move the folder away or put one in its place."""
    start = path.parent.resolve()
    for parent in (start, *start.parents):
        try:
            status = os.stat(parent)
        except FileNotFoundError:
            continue
        if status.st_uid not in (0, os.geteuid()):
            raise UnsafeFolder(f"{parent} belongs to another user ({status.st_uid})")
        sticky = status.st_mode & stat.S_ISVTX
        own_group = status.st_gid == os.getegid()
        if not sticky and (status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not own_group)):
            raise UnsafeFolder(f"{parent} can be written by others (mode {stat.S_IMODE(status.st_mode):o})")


def read_file(folder: int, name: str, limit: int) -> tuple[bytes, os.stat_result]:
    """The whole of a regular file of our own, up to `limit` bytes. UnsafeFolder for anything else; OSError as the
    system says.

    Nothing is followed or waited for: not symbolic links, not pipes.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise UnsafeFolder("not a regular file") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeFolder("not a regular file")
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise UnsafeFolder("other users can write it")
        if status.st_size > limit:
            raise UnsafeFolder("too long")
        parts: list[bytes] = []
        left = status.st_size + 1  # one more than there should be, to see a file that grows
        while left and (part := os.read(descriptor, min(left, 1 << 24))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts), status
    finally:
        os.close(descriptor)


def write_file(folder: int, name: str, data: bytes) -> None:
    """Make or replace a file so that readers see the old or the new one, whole. OSError leaves no part of it behind."""
    temporary = f"{TEMPORARY}{_host()}-{os.getpid()}-{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        remove(folder, temporary)
        raise


def remove(folder: int, name: str) -> bool:
    """Remove a file; False when that could not be done (another process was first)."""
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        return False
    return True


def entry_files(folder: int) -> list[tuple[str, os.stat_result]]:
    """The names of all entries and what the system says about them."""
    found: list[tuple[str, os.stat_result]] = []
    with os.scandir(folder) as items:
        for item in items:
            if item.name.endswith(ENTRY_SUFFIX) and not item.name.startswith(TEMPORARY):
                try:
                    found.append((item.name, item.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
    return found


def remove_temporaries(folder: int, all_of_them: bool = False) -> int:
    """Remove what writers left that were killed: their process is gone, or the file is old. Gives their number."""
    count = 0
    with os.scandir(folder) as items:
        names = [item.name for item in items if item.name.startswith(TEMPORARY)]
    for name in names:
        if all_of_them or _abandoned(folder, name):
            count += remove(folder, name)
    return count


def _abandoned(folder: int, name: str) -> bool:
    host, _, rest = name.removeprefix(TEMPORARY).partition("-")
    process = rest.partition("-")[0]
    if host == _host() and process.isdigit() and not _alive(int(process)):
        return True
    try:
        return time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime > _OLD_TEMPORARY
    except OSError:
        return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _host() -> str:
    """The machine's name, fit for a file name."""
    return "".join(c for c in os.uname().nodename if c.isalnum())[:32] or "host"


def _make(path: Path, folder: int | None) -> None:
    try:
        os.mkdir(path, 0o700, dir_fd=folder)
    except FileExistsError:
        return


def _open(path: Path, folder: int | None) -> int:
    try:
        descriptor = os.open(path, _DIRECTORY, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise UnsafeFolder(f"{path} is a symbolic link or not a folder") from None
        raise
    status = os.fstat(descriptor)
    problem = ""
    if status.st_uid != os.geteuid():
        problem = f"{path} belongs to another user ({status.st_uid})"
    elif status.st_mode & 0o022:
        problem = f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):o})"
    if problem:
        os.close(descriptor)
        raise UnsafeFolder(problem)
    return descriptor
