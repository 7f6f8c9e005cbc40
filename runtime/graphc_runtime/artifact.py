"""The artifact: a compiled program as plain data. It is the contract between compilers and this runtime.

Its byte form: magic, format version, length of the header, length of the object code, header (JSON), object code,
SHA-256 over all of it. The digest finds damage, not attackers: object code is code, so only load artifacts from places
that you trust as you trust programs.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TypeVar

from graphc_runtime.errors import ArtifactError

MAGIC = b"\x89graphcA"
VERSION = 4
MAX_HEADER = 64 << 20
MAX_OBJECTS = 1 << 30
MAX_ITEMS = 1 << 20
MAX_TENSOR = 1 << 62

# Below that much arithmetic and that many bytes of a kernel, waking a thread costs more than it brings.
PARALLEL_FLOPS, PARALLEL_BYTES = 200_000, 512 << 10

ITEM_SIZES = MappingProxyType(
    {"f64": 8, "f32": 4, "f16": 2, "bf16": 2, "i64": 8, "i32": 4, "i16": 2, "i8": 1, "u8": 1, "bool": 1}
)

_PREFIX = struct.Struct("<8sIIQ")
_DIGEST = 32
T = TypeVar("T")


@dataclass(frozen=True)
class TensorSpec:
    """Element type (in the spelling of the IR) and shape of an input or output, stored row-major without gaps."""

    dtype: str
    shape: tuple[int, ...]

    @cached_property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_SIZES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Launch:
    """One kernel of a program: its symbol, the size of its parallel range, its arithmetic and memory traffic, its user
    lines.
    """

    kernel: str
    grid: int = 1
    flops: int = 0
    bytes: int = 0
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceStep:
    """A step of a program on a device that the host drives.

    `kernel` is a symbol of the object code, run by `blocks` blocks of `threads` threads with `shared` bytes of dynamic
    shared memory each; its parameters are the addresses of `places`. Or it is "fill": `nbytes` bytes at `places[0]`
    become `value`; or "copy": `nbytes` bytes go to `places[0]` from `places[1]`. A place is the number of a buffer
    (inputs, outputs, arena) and an offset in bytes. `launch` is the number of the step's entry in `launches`, or -1;
    `object` is the number of the object that has the kernel.
    """

    kernel: str
    places: tuple[tuple[int, int], ...]
    blocks: int = 1
    threads: int = 1
    shared: int = 0
    nbytes: int = 0
    value: int = 0
    launch: int = -1
    object: int = 0


@dataclass(frozen=True)
class Artifact:
    """A compiled program.

    `output_aliases` has one number per output: -1 for a new buffer, or the number of the input whose buffer it takes
    over (the program may then have overwritten that input) or returns as it is. `arena_bytes` is the memory for
    everything else. `objects` is relocatable object code; symbols are linked across all of it. `entry` names the native
    function `void entry(ptr buffers, ptr runtime)`: `buffers` points to the addresses of the inputs, the outputs and
    the arena, `runtime` to the table that `pool.py` describes. `launches` lists the kernels in the order in which one
    call runs them. A program for a device that the host drives has no entry (an empty name) but `steps`.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    output_aliases: tuple[int, ...]
    arena_bytes: int
    objects: tuple[bytes, ...]
    entry: str
    launches: tuple[Launch, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    steps: tuple[DeviceStep, ...] = ()

    def __post_init__(self) -> None:
        """ArtifactError when the parts do not fit together."""
        for spec in (*self.inputs, *self.outputs):
            if spec.dtype not in ITEM_SIZES:
                raise ArtifactError(f"{self.name}: {spec.dtype!r} is no dtype; there are {', '.join(ITEM_SIZES)}")
            if any(extent < 0 for extent in spec.shape) or spec.nbytes > MAX_TENSOR:
                raise ArtifactError(f"{self.name}: {spec} is no possible tensor")
        if len(self.output_aliases) != len(self.outputs):
            raise ArtifactError(f"{self.name}: {len(self.output_aliases)} aliases for {len(self.outputs)} outputs")
        for spec, alias in zip(self.outputs, self.output_aliases, strict=True):
            if not -1 <= alias < len(self.inputs):
                raise ArtifactError(f"{self.name}: an output takes over input {alias} of {len(self.inputs)}")
            if alias >= 0 and self.inputs[alias].nbytes != spec.nbytes:
                raise ArtifactError(f"{self.name}: output {spec} cannot take over input {alias}, {self.inputs[alias]}")
        if not 0 <= self.arena_bytes <= MAX_TENSOR:
            raise ArtifactError(f"{self.name}: an arena of {self.arena_bytes} bytes is impossible")
        for step in self.steps:
            self._check(step)

    def _check(self, step: DeviceStep) -> None:
        """ArtifactError when a step reaches for memory that the program does not have."""
        sizes = [*(spec.nbytes for spec in (*self.inputs, *self.outputs)), self.arena_bytes]
        for number, offset in step.places:
            if not 0 <= number < len(sizes) or not 0 <= offset <= sizes[number]:
                raise ArtifactError(f"{self.name}: step {step.kernel} begins at byte {offset} of buffer {number}")
        bulk = {"fill": 1, "copy": 2}.get(step.kernel)
        if bulk is not None:
            room = min((sizes[number] - offset for number, offset in step.places), default=0)
            if len(step.places) != bulk or step.nbytes > room or not 0 <= step.value <= 255:
                raise ArtifactError(f"{self.name}: a {step.kernel} of {step.nbytes} bytes has room for {room}")
        elif step.blocks < 0 or not 0 < step.threads <= 1024 or not -1 <= step.launch < len(self.launches):
            blocks = f"{step.blocks} blocks of {step.threads} threads"
            raise ArtifactError(f"{self.name}: {blocks} for launch {step.launch} of kernel {step.kernel}")

    def to_bytes(self) -> bytes:
        """The byte form. The same artifact always gives the same bytes."""
        header = {
            "name": self.name,
            "inputs": [[s.dtype, list(s.shape)] for s in self.inputs],
            "outputs": [[s.dtype, list(s.shape)] for s in self.outputs],
            "output_aliases": list(self.output_aliases),
            "arena_bytes": self.arena_bytes,
            "objects": [len(o) for o in self.objects],
            "entry": self.entry,
            "launches": [[x.kernel, x.grid, x.flops, x.bytes, list(x.lines)] for x in self.launches],
            "metadata": dict(sorted(self.metadata.items())),
            "steps": [
                [
                    *(s.kernel, [list(p) for p in s.places], s.blocks, s.threads, s.shared, s.nbytes, s.value),
                    *(s.launch, s.object),
                ]
                for s in self.steps
            ],
        }
        text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode()
        code = b"".join(self.objects)
        if len(text) > MAX_HEADER or len(code) > MAX_OBJECTS:
            raise ArtifactError(f"{self.name}: {len(text)} bytes of header and {len(code)} of code are too much")
        body = _PREFIX.pack(MAGIC, VERSION, len(text), len(code)) + text + code
        return body + hashlib.sha256(body).digest()

    @staticmethod
    def from_bytes(data: bytes) -> Artifact:
        """The artifact with this byte form; ArtifactError for anything that is not exactly one."""
        if len(data) < _PREFIX.size + _DIGEST:
            raise ArtifactError(f"{len(data)} bytes are too few for an artifact")
        magic, version, header_size, code_size = _PREFIX.unpack_from(data)
        if magic != MAGIC:
            raise ArtifactError("not an artifact (wrong first bytes)")
        if version != VERSION:
            raise ArtifactError(f"artifact of format version {version}; this runtime reads version {VERSION}")
        if header_size > MAX_HEADER or code_size > MAX_OBJECTS:
            raise ArtifactError(f"artifact claims {header_size} bytes of header and {code_size} of code")
        if len(data) != _PREFIX.size + header_size + code_size + _DIGEST:
            raise ArtifactError(f"artifact has {len(data)} bytes, which is not what its header says")
        view = memoryview(data)
        if hashlib.sha256(view[:-_DIGEST]).digest() != data[-_DIGEST:]:
            raise ArtifactError("artifact is damaged (checksum differs)")
        code_start = _PREFIX.size + header_size
        try:
            header = json.loads(data[_PREFIX.size : code_start])
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"artifact header is not JSON: {error}") from None
        return _artifact(header, view[code_start:-_DIGEST])


_FIELDS = {
    *("name", "inputs", "outputs", "output_aliases", "arena_bytes", "objects", "entry", "launches", "metadata"),
    "steps",
}


def _artifact(header: object, code: memoryview) -> Artifact:
    if not isinstance(header, dict) or set(header) != _FIELDS:
        raise ArtifactError("artifact header does not have the fields of this version")
    objects: list[bytes] = []
    start = 0
    for size in _items(header["objects"], _natural):
        objects.append(bytes(code[start : start + size]))
        start += size
    if start != len(code):
        raise ArtifactError("object sizes do not add up to the code in the artifact")
    metadata = header["metadata"]
    if not isinstance(metadata, dict):
        raise ArtifactError("artifact metadata is not an object")
    return Artifact(
        name=_text(header["name"]),
        inputs=_items(header["inputs"], _spec),
        outputs=_items(header["outputs"], _spec),
        output_aliases=_items(header["output_aliases"], _integer),
        arena_bytes=_natural(header["arena_bytes"]),
        objects=tuple(objects),
        entry=_text(header["entry"]),
        launches=_items(header["launches"], _launch),
        metadata={key: _text(value) for key, value in metadata.items()},
        steps=_items(header["steps"], _step),
    )


def _integer(value: object) -> int:
    if type(value) is not int or abs(value) > MAX_TENSOR:
        raise ArtifactError(f"artifact header: {str(value)[:40]!r} should be an integer")
    return value


def _natural(value: object) -> int:
    if _integer(value) < 0:
        raise ArtifactError(f"artifact header: {value} should not be negative")
    return _integer(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ArtifactError(f"artifact header: {str(value)[:40]!r} should be text")
    return value


def _items(value: object, read: Callable[[object], T]) -> tuple[T, ...]:
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise ArtifactError(f"artifact header: {str(value)[:40]!r} should be a list of at most {MAX_ITEMS}")
    return tuple(read(item) for item in value)


def _spec(value: object) -> TensorSpec:
    if not isinstance(value, list) or len(value) != 2:
        raise ArtifactError(f"artifact header: {str(value)[:40]!r} should be dtype and shape")
    return TensorSpec(_text(value[0]), _items(value[1], _natural))


def _launch(value: object) -> Launch:
    if not isinstance(value, list) or len(value) != 5:
        raise ArtifactError(f"artifact header: {str(value)[:40]!r} should be a launch")
    kernel, grid, flops, nbytes, lines = value
    return Launch(_text(kernel), _natural(grid), _natural(flops), _natural(nbytes), _items(lines, _text))


def _place(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ArtifactError(f"artifact header: {str(value)[:40]!r} should be a buffer and an offset")
    return _natural(value[0]), _natural(value[1])


def _step(value: object) -> DeviceStep:
    if not isinstance(value, list) or len(value) != 9:
        raise ArtifactError(f"artifact header: {str(value)[:40]!r} should be a step")
    kernel, places, *numbers, launch, part = value
    blocks, threads, shared, nbytes, fill = map(_natural, numbers)
    shape = _text(kernel), _items(places, _place), blocks, threads, shared
    return DeviceStep(*shape, nbytes, fill, _integer(launch), _natural(part))
