"""Files of published data sets: fetched from mirrors, checked by SHA-256, read without unpacking anything to disk."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from graphc.errors import InputError, UsageError

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def fetch(urls: Iterable[str], path: Path, sha256: str) -> None:
    """Put a file with the given SHA-256 at `path`, from the first of `urls` that has it.

    What a broken transfer left (`path` with `.part`) is continued. The file appears under its name only when it is
    whole and right. RuntimeError when no mirror gives it: it lists what each said and how to do it by hand.
    """
    if path.exists() and sha256_of(path) == sha256:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failures: list[str] = []
    for url in urls:
        try:
            _transfer(url, part)
        except (OSError, ValueError) as error:
            failures.append(f"  {url}: {error}")
            continue
        found = sha256_of(part)
        if found == sha256:
            os.replace(part, path)
            return
        part.unlink()
        failures.append(f"  {url}: its SHA-256 is {found}")
    raise UsageError(
        f"cannot download {path.name}:\n" + "\n".join(failures) + f"\nWithout a network, put the file with SHA-256 "
        f"{sha256} into {path.parent} by hand."
    )


def _transfer(url: str, part: Path) -> None:
    if not url.startswith(("https://", "http://")):
        raise InputError("not an http address")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to send
            raise
        return
    with answer:
        print(f"downloading {url}", file=sys.stderr)
        with part.open("ab" if have and answer.status == 206 else "wb") as file:
            while block := answer.read(_CHUNK):
                file.write(block)


def read_exactly(file: BinaryIO, size: int, name: str) -> bytes:
    """`size` bytes, after which the file ends. RuntimeError otherwise; at most one byte more than `size` is read."""
    content = file.read(size)
    if len(content) != size or file.read(1):
        raise UsageError(
            f"{name} is damaged: expected {size} bytes, found {'more' if len(content) == size else len(content)}"
        )
    return content


def open_maybe_gzip(path: Path) -> BinaryIO:
    """A file, or its gzip form (`path` with `.gz`), for reading. FileNotFoundError when there is neither."""
    packed = path.with_name(path.name + ".gz")
    if path.exists():
        return path.open("rb")
    return gzip.open(packed, "rb")  # type: ignore[return-value]


def take_members(archive: Path, wanted: dict[str, int], folder: Path) -> None:
    """Write the members of a tar archive with exactly the names and sizes in `wanted` into `folder`, under their last
    name part; all else in the archive is passed over. RuntimeError when one is missing, of another size or no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = dict(wanted)
    try:
        with tarfile.open(archive, "r|gz") as members:
            for member in members:
                size = left.get(member.name)
                content = members.extractfile(member) if size is not None and member.isfile() else None
                if size is None or content is None:
                    continue
                target = folder / Path(member.name).name
                part = target.with_name(target.name + ".part")
                part.write_bytes(read_exactly(content, size, f"{archive.name}:{member.name}"))  # type: ignore[arg-type]
                os.replace(part, target)
                del left[member.name]
                if not left:
                    break
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UsageError(f"{archive} is damaged: {error}") from error
    if left:
        raise UsageError(f"{archive} is damaged: it has no file {', '.join(sorted(left))}")
