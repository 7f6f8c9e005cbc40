"""The byte form of a cache entry.

Magic, format version, sizes of the three parts, header (JSON), key fields, payload, SHA-256 over all of it. The key
fields are stored in the same length-prefixed form that is hashed into the key.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass

KeyFields = Mapping[str, str | bytes]

MAGIC = b"\x89graphcK"
VERSION = 1
MAX_HEADER = 1 << 20
MAX_FIELDS = 256 << 20
MAX_PAYLOAD = 1 << 30

_PREFIX = struct.Struct("<8sIIQQ")  # magic, version, sizes of header, fields and payload
_DIGEST = 32
_LENGTH = struct.Struct("<cQ")  # what kind of item follows, and its size


class BadEntry(Exception):
    """These bytes are not a whole entry of this version; the text says why. Never leaves the cache."""


@dataclass(frozen=True)
class Entry:
    """What a file holds: encoded key fields, the payload, the CPU features that it needs, and when it was made
    (seconds since 1970).
    """

    fields: bytes
    payload: bytes
    requires: frozenset[str]
    created: int

    @property
    def key(self) -> str:
        return key_of(self.fields)


def encode_fields(fields: KeyFields) -> bytes:
    """Key fields, in their order, with kind and length before each name and value, so that different fields never give
    equal bytes.
    """
    parts: list[bytes] = []
    for name, value in fields.items():
        for item in (name, value):
            data = item.encode() if isinstance(item, str) else bytes(item)
            parts += (_LENGTH.pack(b"s" if isinstance(item, str) else b"b", len(data)), data)
    return b"".join(parts)


def decode_fields(data: bytes) -> dict[str, str | bytes]:
    """The inverse of `encode_fields`; BadEntry when there is none."""
    items: list[str | bytes] = []
    at = 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise BadEntry("key fields end early")
        kind, size = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if kind not in (b"s", b"b") or size > len(data) - at:
            raise BadEntry("key fields are malformed")
        item = data[at : at + size]
        try:
            items.append(item.decode() if kind == b"s" else item)
        except UnicodeDecodeError:
            raise BadEntry("a key field is not text") from None
        at += size
    names = items[0::2]
    if len(items) % 2 or not all(isinstance(name, str) for name in names):
        raise BadEntry("key fields are malformed")
    return dict(zip(map(str, names), items[1::2], strict=True))


def key_of(encoded_fields: bytes) -> str:
    """The key, in hexadecimal digits: it names the entry's file."""
    return hashlib.sha256(b"graphc kernel cache\0" + encoded_fields).hexdigest()


def pack(encoded_fields: bytes, payload: bytes, requires: Set[str]) -> bytes:
    """The bytes of an entry made now."""
    header = {"requires": sorted(requires), "created": int(time.time())}
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode()
    prefix = _PREFIX.pack(MAGIC, VERSION, len(text), len(encoded_fields), len(payload))
    body = b"".join((prefix, text, encoded_fields, payload))
    return body + hashlib.sha256(body).digest()


def unpack(data: bytes) -> Entry:
    """The entry with these bytes; BadEntry for anything that is not exactly one."""
    if len(data) < _PREFIX.size + _DIGEST:
        raise BadEntry("too short")
    magic, version, header_size, fields_size, payload_size = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise BadEntry("wrong first bytes")
    if version != VERSION:
        raise BadEntry(f"format version {version}")
    if header_size > MAX_HEADER or fields_size > MAX_FIELDS or payload_size > MAX_PAYLOAD:
        raise BadEntry("sizes beyond all bounds")
    if len(data) != _PREFIX.size + header_size + fields_size + payload_size + _DIGEST:
        raise BadEntry("length differs from what its header says")
    if hashlib.sha256(memoryview(data)[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise BadEntry("checksum differs")
    fields_at = _PREFIX.size + header_size
    payload_at = fields_at + fields_size
    try:
        header = json.loads(data[_PREFIX.size : fields_at])
    except (ValueError, RecursionError):
        raise BadEntry("header is not JSON") from None
    if not isinstance(header, dict) or set(header) != {"requires", "created"}:
        raise BadEntry("header has other fields")
    requires, created = header["requires"], header["created"]
    if not isinstance(requires, list) or not all(isinstance(f, str) for f in requires) or type(created) is not int:
        raise BadEntry("header fields of other types")
    return Entry(data[fields_at:payload_at], data[payload_at:-_DIGEST], frozenset(requires), created)
