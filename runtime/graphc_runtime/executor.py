"""Running a program: check the buffers, place them, one native call."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

from graphc_runtime.artifact import Artifact
from graphc_runtime.buffer import Buffer
from graphc_runtime.counters import COUNTERS
from graphc_runtime.device import Device
from graphc_runtime.errors import CallError
from graphc_runtime.options import POISON

# The addresses of a call's buffers, where they stand, and the arena if it is a small one.
_Table = tuple[ctypes.Array[ctypes.c_char], int, Buffer | None]
SMALL_ARENA = 1 << 14  # bytes of an arena that programs keep while they do not run


class Executable:
    """An artifact loaded on a device, ready to run. Calls from several threads at once are fine: each takes an arena
    of its own.
    """

    def __new__(cls, artifact: Artifact, device: Device) -> Executable:
        return object.__new__(DeviceExecutable if device.driven else cls)

    def __init__(self, artifact: Artifact, device: Device) -> None:
        self.artifact = artifact
        self.device = device
        self._program = device.load(artifact)
        self._run = self._program.run
        self.native = self._program.native
        self._allocate_all = device.allocate_all
        self._input_bytes = [spec.nbytes for spec in artifact.inputs]
        self._outputs = [
            (spec.nbytes, alias, spec) for spec, alias in zip(artifact.outputs, artifact.output_aliases, strict=True)
        ]
        self.output_aliases = artifact.output_aliases
        self._new_specs: list[object] = [spec for _, alias, spec in self._outputs if alias < 0]
        self._new_sizes = [nbytes for nbytes, alias, _ in self._outputs if alias < 0]
        self._taken = [(i, alias) for i, (_, alias, _) in enumerate(self._outputs) if alias >= 0]
        self._place = struct.Struct(f"={len(artifact.inputs) + len(artifact.outputs) + 1}Q").pack_into
        self.runs = 0  # but for those of native code
        self.arena_bytes = artifact.arena_bytes
        self.arena_name = f"the arena of {artifact.name}"
        self._tables: list[_Table] = []  # free ones; append and pop are atomic
        self._launches = len(artifact.launches)
        self._counts = COUNTERS.own

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
            results = self._allocate_all(self._new_sizes, self._new_specs)
            for i, alias in self._taken:
                results.insert(i, inputs[alias])
        else:
            results = self._given(inputs, outputs)
        self.launch(inputs, results)
        return results

    def launch(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        """`run` without its checks, for callers who know that every buffer has its size and can be written.

        An output that takes over an input must be given that input's buffer.
        """
        pointers = [b.ptr for b in (*inputs, *outputs)]
        try:
            table = self._tables.pop()
        except IndexError:
            table = self._new_table()
        addresses, at, arena = table
        if not self.arena_bytes:
            pass
        elif arena is None:
            # From the pool for each call, so that programs which are not running hold no memory.
            arena = Buffer.allocate(self.arena_bytes, self.arena_name)
        elif POISON.get():
            arena.poison()
        self._place(addresses, 0, *pointers, 0 if arena is None else arena.ptr)
        self._run(at)
        self._tables.append(table)
        self.runs += 1
        tally = self._counts.tally
        tally.runs += 1
        tally.launches += self._launches

    def _new_table(self) -> _Table:
        count = len(self._input_bytes) + len(self._outputs) + 1
        addresses = ctypes.create_string_buffer(8 * count)
        small = 0 < self.arena_bytes <= SMALL_ARENA
        arena = Buffer.allocate(self.arena_bytes, self.arena_name) if small else None
        return addresses, ctypes.addressof(addresses), arena

    def _given(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer | None]) -> list[Buffer]:
        if len(outputs) != len(self._outputs):
            raise CallError(f"{self.artifact.name} has {len(self._outputs)} outputs, got {len(outputs)} buffers")
        results: list[Buffer] = []
        for i, ((nbytes, alias, spec), given) in enumerate(zip(self._outputs, outputs, strict=True)):
            if given is None:
                given = self._allocate_all((nbytes,), (spec,))[0] if alias < 0 else inputs[alias]
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


class DeviceExecutable(Executable):
    """An executable on a device that the host drives. Its buffers are `DeviceBuffer`s of that device, and a call
    returns when all is put on the device's current stream. What fails there is raised by a later call.
    """

    device: Any
    _program: Any

    def __init__(self, artifact: Artifact, device: Device) -> None:
        super().__init__(artifact, device)
        self._new_specs = [
            f"output {i} of {artifact.name}, {spec}{self._program.lines_of(len(artifact.inputs) + i)}"
            for i, (_, alias, spec) in enumerate(self._outputs)
            if alias < 0
        ]
        self._addresses = struct.Struct(f"={self._program.buffers}Q").unpack

    def launch(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """See `Executable.launch`. CallError for a buffer that is not on the device."""
        stream = self.device.current_stream
        buffers = [*inputs, *outputs]
        pointers = tuple([buffer.ptr for buffer in buffers])
        try:
            own = {buffer.stream for buffer in buffers} == {stream}
        except AttributeError:  # a buffer of the host
            own = False
        if not own:
            self._share(buffers, stream)
        self._enqueue(pointers, stream)
        self.runs += 1
        tally = self._counts.tally
        tally.runs += 1
        tally.launches += self._launches

    def launch_at(self, addresses: bytes | ctypes.Array[ctypes.c_int64]) -> None:
        """`launch` for native code, which knows that all buffers are of the current stream, and counts: their addresses
        are given, and a word behind them that is not read.
        """
        self._enqueue(self._addresses(addresses)[:-1], self.device.current_stream)

    def _enqueue(self, pointers: tuple[int, ...], stream: Any) -> None:
        if not self.arena_bytes:
            self._program.enqueue((*pointers, 0), stream)
            return
        device = self.device
        arena = device.take_arena(self.arena_bytes, self.arena_name, stream)
        try:
            self._program.enqueue((*pointers, arena.address), stream)
        finally:
            device.pool.give_arena(arena)

    def _share(self, buffers: Sequence[Any], stream: Any) -> None:
        """Note that buffers of other streams are used on this one."""
        for buffer in buffers:
            if getattr(buffer, "device", None) is not self.device:
                raise CallError(f"{self.artifact.name} runs on {self.device.name}; it was given {buffer!r}")
            buffer.used_by(stream)
