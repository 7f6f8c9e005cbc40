"""Programs on a CUDA device: the steps of an artifact, made ready to be put on a stream."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from graphc_runtime.artifact import Artifact, DeviceStep
from graphc_runtime.devices.cuda_driver import DriverError, Handle, NativeCalls
from graphc_runtime.devices.cuda_graphs import GraphCache, capture
from graphc_runtime.devices.cuda_native import NativeSteps
from graphc_runtime.errors import DeviceError, LoadError, OutOfMemoryError
from graphc_runtime.options import CUDA_GRAPHS, CUDA_SYNC

if TYPE_CHECKING:
    from graphc_runtime.devices.cuda import CudaDevice
    from graphc_runtime.devices.cuda_streams import Stream

# Of an ELF header: magic, ABI version, machine, flags.
_ELF = struct.Struct("<4s4xB9xH28xI")
_EM_CUDA = 190
_BULK = ("fill", "copy")
_MOST_BLOCKS = (1 << 31) - 1
_FEW_PLACES = 8  # up to here NumPy costs more than it saves
_AGAIN = 2  # runs after which a program is likely to go on running
_FEW_STEPS = 4  # from here on a program is worth a CUDA graph


class StepTable:
    """The parameters of all steps for one call at a time. `calls` has a step each: function (None for bulk), blocks,
    threads, shared bytes, parameters.
    """

    def __init__(self, steps: Sequence[DeviceStep], functions: Sequence[Handle]) -> None:
        self._places = places = [place for step in steps for place in step.places]
        self._numbers = np.array([number for number, _ in places], np.intp)
        self._offsets = np.array([offset for _, offset in places], np.uint64)
        self._uses: dict[int, list[tuple[int, int]]] | None = None  # places by buffer, for `move`
        self._words = (ctypes.c_uint64 * len(places))()
        self._addresses = np.ctypeslib.as_array(self._words)
        self.calls: list[tuple[Handle, int, int, int, ctypes.Array[ctypes.c_uint64]]] = []
        at = 0
        for step, function in zip(steps, functions, strict=True):
            kind = ctypes.c_uint64 * len(step.places)
            arguments = kind.from_buffer(self._words, 8 * at) if step.places else kind()
            self.calls.append((function, step.blocks, step.threads, step.shared, arguments))
            at += len(step.places)

    def fill(self, pointers: Sequence[int]) -> None:
        """Set the parameters for buffers at these addresses."""
        if len(self._places) <= _FEW_PLACES:
            for i, (number, offset) in enumerate(self._places):
                self._words[i] = pointers[number] + offset
            return
        base = np.array(pointers, np.uint64)
        np.take(base, self._numbers, out=self._addresses, mode="clip")
        self._addresses += self._offsets

    def move(self, pointers: Sequence[int], buffers: Sequence[int]) -> None:
        """Set the parameters for those buffers that lie elsewhere now."""
        if self._uses is None:
            self._uses = {}
            for i, (number, offset) in enumerate(self._places):
                self._uses.setdefault(number, []).append((i, offset))
        for number in buffers:
            for i, offset in self._uses.get(number, ()):
                self._words[i] = pointers[number] + offset


class CudaProgram:
    """An artifact loaded on a CUDA device. `enqueue` may be called from several threads."""

    native: tuple[int, int, int] | None = None

    def __init__(self, artifact: Artifact, device: CudaDevice) -> None:
        """LoadError when the artifact is for another kind of device, or more than this one can do."""
        self.device = device
        self._modules: list[Handle] = []
        if artifact.entry:
            raise LoadError(f"{artifact.name} was compiled for the CPU, not for {device.name}: compile it again")
        self.steps = tuple([s for s in artifact.steps if (s.nbytes if s.kernel in _BULK else s.blocks)])
        self.buffers = len(artifact.inputs) + len(artifact.outputs) + 1
        self.described = [_described(artifact, step) for step in self.steps if step.kernel not in _BULK]
        self._artifact = artifact
        device.call(device.driver.activate)
        try:
            self._functions = self._load()
        except DriverError as error:
            if error.sticky:
                raise device.failure(error) from None
            if error.out_of_memory:
                self._functions = device.again(error, self._load)
            else:
                made_for = "".join({f", made for {a}," for a in map(cubin_architecture, artifact.objects) if a})
                raise LoadError(
                    f"{artifact.name}: its kernels{made_for} cannot be loaded on {device.name} ({device.facts.name}, "
                    f"{device.facts.architecture}): {error}"
                ) from None
        self._runs = 0
        self._native_steps: NativeSteps | None = None
        self._tables: list[StepTable] = []  # free ones; append and pop are atomic
        worth = device.driver.graphs and len(self.steps) >= _FEW_STEPS
        self._graphs = GraphCache(self) if worth else None

    def run(self, pointers: int, /) -> None:
        """`enqueue` on the current stream, the addresses lying where `pointers` says."""
        self.enqueue((ctypes.c_uint64 * self.buffers).from_address(pointers)[:], self.device.current_stream)

    def enqueue(self, pointers: Sequence[int], stream: Stream) -> None:
        """Put all steps on `stream`. `pointers` are the addresses of inputs, outputs and arena."""
        device = self.device
        device.check()
        device.launched.append(self.described)
        if CUDA_SYNC.get():
            device.call(device.driver.activate)
            self._one_by_one(pointers, stream)
            return
        if self._graphs is not None and CUDA_GRAPHS.get():
            device.call(device.driver.activate)
            if self._graphs.run(self, tuple(pointers), stream):
                return
        try:
            if self._native_steps is not None:
                self._native_steps.run(pointers, stream.number)
            else:
                self._single(pointers, stream)
        except DriverError as error:
            raise self._failed(error) from None

    def _single(self, pointers: Sequence[int], stream: Stream) -> None:
        """The steps one by one, and ready for native code when they come a second time."""
        self.device.driver.activate()
        table = self.take_table()
        table.fill(pointers)
        self.play(table, stream.handle)
        self._runs += 1
        calls: NativeCalls | None = getattr(self.device.driver, "native_calls", None)
        if self._runs == _AGAIN and calls is not None:
            # Without it all goes on as before.
            with suppress(DriverError, LoadError, ImportError):
                graph = capture(self, table)
                try:
                    functions = calls.functions(graph)
                finally:
                    self.device.driver.free_graph(graph)
                self._native_steps = NativeSteps(calls, self.steps, functions, self.buffers)
        self.give_table(table)

    def lines_of(self, buffer: int) -> str:
        """The user's lines that made what the program leaves in buffer `buffer`."""
        launch = -1
        for step in self._artifact.steps:
            if any(number == buffer for number, _ in step.places):
                launch = step.launch
        return _lines(self._artifact, launch)

    def take_table(self) -> StepTable:
        try:
            return self._tables.pop()
        except IndexError:
            return StepTable(self.steps, self._functions)

    def give_table(self, table: StepTable) -> None:
        self._tables.append(table)

    def play(self, table: StepTable, stream: Handle) -> None:
        """Put the steps, with the parameters in `table`, on a stream of the driver. DriverError says at which step."""
        launch = self.device.driver.launch
        number = 0
        try:
            for number, call in enumerate(table.calls):
                if call[0] is None:
                    self._bulk(self.steps[number], call[4], stream)
                else:
                    launch(*call, stream)
        except DriverError as error:
            error.step = number
            raise

    def _one_by_one(self, pointers: Sequence[int], stream: Stream) -> None:
        """Each step waited for, so that an error is that step's."""
        table = self.take_table()
        table.fill(pointers)
        driver = self.device.driver
        for number, (step, call) in enumerate(zip(self.steps, table.calls, strict=True)):
            try:
                if call[0] is None:
                    self._bulk(step, call[4], stream.handle)
                else:
                    driver.launch(*call, stream.handle)
                driver.synchronize_stream(stream.handle)
            except DriverError as error:
                error.step = number
                raise self._failed(error) from None
        self.give_table(table)

    def _bulk(self, step: DeviceStep, addresses: ctypes.Array[ctypes.c_uint64], stream: Handle) -> None:
        driver = self.device.driver
        if step.kernel == "fill":
            driver.fill(addresses[0], step.value, step.nbytes, stream)
        elif addresses[0] != addresses[1]:
            driver.copy(addresses[0], addresses[1], step.nbytes, stream)

    def _failed(self, error: DriverError) -> Exception:
        step = self.steps[error.step]
        what = _described(self._artifact, step)
        if error.sticky:
            return self.device.failure(error, what if CUDA_SYNC.get() else "")
        if error.out_of_memory:
            return OutOfMemoryError(self.device.pool.refusal(f"what kernel {what} needs ({error})"))
        shape = "" if step.kernel in _BULK else f" with {step.blocks} blocks of {step.threads} threads"
        return DeviceError(f"{self.device.name} did not take kernel {what}{shape}: {error}")

    def _load(self) -> list[Handle]:
        artifact, device = self._artifact, self.device
        driver, facts = device.driver, device.facts
        kernels = [step for step in self.steps if step.kernel not in _BULK]
        for step in kernels:
            if step.shared > facts.shared_per_block:
                raise LoadError(
                    f"kernel {_described(artifact, step)} takes {step.shared:,} bytes of shared memory for a block; "
                    f"{device.name} ({facts.name}) has {facts.shared_per_block:,}"
                )
            if step.blocks > _MOST_BLOCKS:
                raise LoadError(
                    f"kernel {_described(artifact, step)} has {step.blocks:,} blocks; CUDA takes {_MOST_BLOCKS:,}"
                )
        if not kernels:
            return [None] * len(self.steps)
        last = max(step.object for step in kernels)
        if last >= len(artifact.objects):
            raise LoadError(f"{artifact.name} has {len(artifact.objects)} pieces of code; a kernel is in number {last}")
        for code in artifact.objects:
            self._modules.append(driver.load(code))
        most: dict[tuple[int, str], int] = {}
        for step in kernels:
            key = step.object, step.kernel
            most[key] = max(step.shared, most.get(key, 0))
        modules = self._modules[-len(artifact.objects) :]
        found = {name: driver.function(modules[number], name, shared) for (number, name), shared in most.items()}
        return [found.get(step.kernel) if step.kernel not in _BULK else None for step in self.steps]

    def __del__(self) -> None:
        # The device does it when nothing runs: a finalizer should not call the driver.
        retired, driver = self.device.retired, self.device.driver
        graphs = getattr(self, "_graphs", None)
        if graphs is not None:
            retired += [(driver.free_graph, handle) for handle in graphs.handles()]
        retired += [(driver.unload, module) for module in self._modules]


def cubin_architecture(image: bytes) -> str:
    """The architecture that a cubin was compiled for, "sm_90"; empty when it is none."""
    if len(image) < _ELF.size:
        return ""
    magic, version, machine, flags = _ELF.unpack_from(image)
    if magic != b"\x7fELF" or machine != _EM_CUDA:
        return ""
    number = flags >> 8 & 0xFF if version >= 8 else flags & 0xFF  # since CUDA 13 in the second byte
    return f"sm_{number}"


def _described(artifact: Artifact, step: DeviceStep) -> str:
    """The kernel's name and the user's lines that it computes."""
    return f"{step.kernel} of {artifact.name}{_lines(artifact, step.launch)}"


def _lines(artifact: Artifact, launch: int) -> str:
    lines = artifact.launches[launch].lines if launch >= 0 else ()
    return f" ({', '.join(lines)})" if lines else ""
