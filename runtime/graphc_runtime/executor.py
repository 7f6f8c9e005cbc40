"""Running a program: check the buffers, place them, one native call."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

from graphc_runtime.artifact import Artifact
from graphc_runtime.buffer import Buffer
from graphc_runtime.counters import COUNTERS
from graphc_runtime.device import Device
from graphc_runtime.errors import CallError
from graphc_runtime.options import POISON


class _Frame:
    """What one call at a time needs: the array of addresses and the arena."""

    __slots__ = ("address", "arena", "pointers")

    def __init__(self, artifact: Artifact) -> None:
        count = len(artifact.inputs) + len(artifact.outputs) + 1
        self.pointers = ctypes.create_string_buffer(8 * count)
        self.address = ctypes.addressof(self.pointers)
        self.arena = Buffer.allocate(artifact.arena_bytes, f"the arena of {artifact.name}")


class Executable:
    """An artifact loaded on a device, ready to run. Calls from several threads at once are fine: each takes an arena
    of its own.
    """

    def __init__(self, artifact: Artifact, device: Device) -> None:
        self.artifact = artifact
        self.device = device
        self._run = device.load(artifact).run
        self._input_bytes = [spec.nbytes for spec in artifact.inputs]
        self._outputs = [
            (spec.nbytes, alias, spec) for spec, alias in zip(artifact.outputs, artifact.output_aliases, strict=True)
        ]
        self._place = struct.Struct(f"={len(artifact.inputs) + len(artifact.outputs) + 1}Q").pack_into
        self._frames: list[_Frame] = []  # append and pop are atomic
        self._launches = len(artifact.launches)

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer | None] | None = None) -> list[Buffer]:
        """Run once and give the output buffers.

        `outputs[i]`, where not None, is the buffer to write output i to. An output that takes over an input is that
        input's buffer; the caller must not use such an input again as it was, nor pass its memory twice. The GIL is
        free during the native call. CallError when the number of buffers or their sizes are not those of the artifact;
        OutOfMemory when memory is short.
        """
        if [buffer.nbytes for buffer in inputs] != self._input_bytes:
            raise CallError(self._complaint(inputs))
        if outputs is None:
            results = [
                Buffer.allocate(nbytes, spec) if alias < 0 else inputs[alias] for nbytes, alias, spec in self._outputs
            ]
        else:
            results = self._given(inputs, outputs)
        frames = self._frames
        try:
            frame = frames.pop()
        except IndexError:
            frame = _Frame(self.artifact)
        self._place(frame.pointers, 0, *[b.ptr for b in inputs], *[b.ptr for b in results], frame.arena.ptr)
        if POISON.get():
            ctypes.memset(frame.arena.ptr, 0xFF, frame.arena.nbytes)
        self._run(frame.address)
        frames.append(frame)
        COUNTERS.add_run(self._launches)
        return results

    def release(self) -> None:
        """Give the arenas of calls that have ended back to the pool; the next call takes a new one."""
        self._frames.clear()

    def _given(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer | None]) -> list[Buffer]:
        if len(outputs) != len(self._outputs):
            raise CallError(f"{self.artifact.name} has {len(self._outputs)} outputs, got {len(outputs)} buffers")
        results: list[Buffer] = []
        for i, ((nbytes, alias, spec), given) in enumerate(zip(self._outputs, outputs, strict=True)):
            if given is None:
                given = Buffer.allocate(nbytes, spec) if alias < 0 else inputs[alias]
            elif alias >= 0 and given is not inputs[alias]:
                raise CallError(
                    f"{self.artifact.name}: output {i} takes over input {alias}, so it cannot go to another buffer"
                )
            elif given.nbytes != nbytes:
                raise CallError(
                    f"{self.artifact.name}: output {i} is {spec} ({nbytes} bytes), got {given.nbytes} bytes"
                )
            elif alias < 0 and not given.writeable:
                raise CallError(f"{self.artifact.name}: output {i} cannot go to read-only memory")
            results.append(given)
        return results

    def _complaint(self, inputs: Sequence[Buffer]) -> str:
        name, specs = self.artifact.name, self.artifact.inputs
        if len(inputs) != len(specs):
            return f"{name} has {len(specs)} inputs ({', '.join(map(str, specs))}), got {len(inputs)} buffers"
        wrong = [
            f"input {i} is {spec} ({spec.nbytes} bytes), got {buffer.nbytes} bytes"
            for i, (spec, buffer) in enumerate(zip(specs, inputs, strict=True))
            if spec.nbytes != buffer.nbytes
        ]
        return f"{name}: {'; '.join(wrong)}"
