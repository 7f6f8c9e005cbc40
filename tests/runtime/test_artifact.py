"""Artifacts: exact round trip, and an error for every byte string that is not exactly one."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from dataclasses import replace
from typing import Any

import pytest

from graphc_runtime import Artifact, ArtifactError, Launch, TensorSpec
from graphc_runtime.artifact import VERSION, DeviceStep

PREFIX = struct.Struct("<8sIIQ")
EXAMPLE = Artifact(
    name="step \N{GREEK SMALL LETTER ALPHA}",
    inputs=(TensorSpec("f32", (2, 3)), TensorSpec("bool", ()), TensorSpec("i64", (0, 5))),
    outputs=(TensorSpec("f32", (6,)), TensorSpec("bf16", (1,))),
    output_aliases=(0, -1),
    arena_bytes=4096,
    objects=(b"\x7fELF one", b"", b"\x00\xff" * 20),
    entry="graphc_main",
    launches=(Launch("k0", 64, 1000, 2000, ("a.py:1", "b.py:22")), Launch("k1")),
    metadata={"version": "1", "device": "cpu"},
    steps=(
        DeviceStep("k0", ((0, 0), (5, 64)), 2, 128, 512, launch=0, object=2),
        DeviceStep("fill", ((5, 32),), nbytes=8, value=255),
        DeviceStep("copy", ((3, 4), (5, 4000)), nbytes=20),
    ),
)


def rebuilt(**changes: Any) -> bytes:
    """EXAMPLE's bytes with other header values and a right checksum."""
    data = EXAMPLE.to_bytes()
    _, _, size, code = PREFIX.unpack_from(data)
    header = {**json.loads(data[PREFIX.size : PREFIX.size + size]), **changes}
    text = json.dumps({k: v for k, v in header.items() if v is not ...}).encode()
    return sealed(PREFIX.pack(b"\x89graphcA", VERSION, len(text), code) + text + data[PREFIX.size + size : -32])


def sealed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def test_round_trip() -> None:
    data = EXAMPLE.to_bytes()
    assert Artifact.from_bytes(data) == EXAMPLE
    assert Artifact.from_bytes(data).to_bytes() == data
    assert Artifact.from_bytes(rebuilt()) == EXAMPLE
    assert [s.nbytes for s in EXAMPLE.inputs] == [24, 1, 0]
    assert str(EXAMPLE.inputs[0]) == "f32[2,3]"


def test_every_flipped_byte_is_found() -> None:
    data = EXAMPLE.to_bytes()
    for i in range(len(data)):
        for bit in (1, 128):
            damaged = bytearray(data)
            damaged[i] ^= bit
            with pytest.raises(ArtifactError):
                Artifact.from_bytes(bytes(damaged))


def test_every_truncation_and_extension_is_found() -> None:
    data = EXAMPLE.to_bytes()
    for size in range(len(data)):
        with pytest.raises(ArtifactError):
            Artifact.from_bytes(data[:size])
    with pytest.raises(ArtifactError, match="which is not what its header says"):
        Artifact.from_bytes(data + b"\0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 5}, "should be text"),
        ({"name": ...}, "fields of this version"),
        ({"extra": 1}, "fields of this version"),
        ({"inputs": {}}, "should be a list"),
        ({"inputs": [["f32", [2]]]}, "cannot take over input 0"),
        ({"inputs": [["f32", [-2]]]}, "not be negative"),
        ({"inputs": [["f32"]]}, "dtype and shape"),
        ({"inputs": [["f33", [2]]]}, "'f33' is no dtype"),
        ({"inputs": [["f32", [True]]]}, "should be an integer"),
        ({"inputs": [["f32", [2.0]]]}, "should be an integer"),
        ({"inputs": [["f32", [1 << 40, 1 << 40]]]}, "no possible tensor"),
        ({"inputs": [["f32", [1 << 70]]]}, "should be an integer"),
        ({"output_aliases": [0]}, "1 aliases for 2 outputs"),
        ({"output_aliases": [0, 3]}, "takes over input 3 of 3"),
        ({"output_aliases": [0, -2]}, "takes over input -2"),
        ({"arena_bytes": -1}, "not be negative"),
        ({"arena_bytes": "8"}, "should be an integer"),
        ({"objects": [1]}, "do not add up"),
        ({"objects": [8, 0, 41]}, "do not add up|bytes"),
        ({"objects": [1 << 61]}, "do not add up"),
        ({"launches": [["k", 1, 2, 3]]}, "should be a launch"),
        ({"launches": [["k", 1, 2, 3, [5]]]}, "should be text"),
        ({"steps": [["k0", [], 1, 128, 0, 0, 0]]}, "should be a step"),
        ({"steps": [["k0", [[0]], 1, 128, 0, 0, 0, 0, 0]]}, "a buffer and an offset"),
        ({"steps": [["k0", [[6, 0]], 1, 128, 0, 0, 0, 0, 0]]}, "byte 0 of buffer 6"),
        ({"steps": [["k0", [[5, 4097]], 1, 128, 0, 0, 0, 0, 0]]}, "byte 4097 of buffer 5"),
        ({"steps": [["k0", [[5, 0]], 1, 2048, 0, 0, 0, 0, 0]]}, "2048 threads"),
        ({"steps": [["k0", [[5, 0]], 1, 128, 0, 0, 0, 2, 0]]}, "for launch 2"),
        ({"steps": [["fill", [[5, 4090]], 1, 1, 0, 7, 0, -1, 0]]}, "fill of 7 bytes has room for 6"),
        ({"steps": [["copy", [[5, 0]], 1, 1, 0, 7, 0, -1, 0]]}, "copy of 7 bytes"),
        ({"metadata": []}, "not an object"),
        ({"metadata": {"a": 1}}, "should be text"),
    ],
)
def test_malformed_headers(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        Artifact.from_bytes(rebuilt(**changes))


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"1" * 10_000, b"\xff\xfe", b"[]", b'{"name": NaN}'])
def test_headers_that_are_not_json_objects(text: bytes) -> None:
    with pytest.raises(ArtifactError):
        Artifact.from_bytes(sealed(PREFIX.pack(b"\x89graphcA", VERSION, len(text), 0) + text))


def test_foreign_files() -> None:
    with pytest.raises(ArtifactError, match="too few"):
        Artifact.from_bytes(b"")
    with pytest.raises(ArtifactError, match="wrong first bytes"):
        Artifact.from_bytes(b"PK\x03\x04" + bytes(200))
    with pytest.raises(ArtifactError, match="version 1; this runtime reads version 4"):
        Artifact.from_bytes(sealed(PREFIX.pack(b"\x89graphcA", 1, 0, 0)))
    for sizes in ((1 << 31, 0), (0, 1 << 63)):
        with pytest.raises(ArtifactError, match="claims"):
            Artifact.from_bytes(sealed(PREFIX.pack(b"\x89graphcA", VERSION, *sizes)))


def test_random_bytes_with_a_right_checksum() -> None:
    rng = random.Random(1)
    data = EXAMPLE.to_bytes()[:-32]
    for _ in range(500):
        mutant = bytearray(data)
        for _ in range(rng.randint(1, 5)):
            mutant[rng.randrange(PREFIX.size, len(mutant))] = rng.randrange(256)
        try:
            Artifact.from_bytes(sealed(bytes(mutant)))
        except ArtifactError:
            continue


def test_impossible_artifacts_cannot_be_made() -> None:
    with pytest.raises(ArtifactError, match="no dtype"):
        replace(EXAMPLE, inputs=(TensorSpec("float", (1,)),))
    with pytest.raises(ArtifactError, match="no possible tensor"):
        replace(EXAMPLE, outputs=(TensorSpec("f32", (-1,)),), output_aliases=(-1,))
