"""Streams and events of CUDA devices, with PyTorch's meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc_runtime.devices.cuda_driver import Handle
from graphc_runtime.errors import CallError

if TYPE_CHECKING:
    from graphc_runtime.devices.cuda import CudaDevice


class Stream:
    """Work of a device that is done in order. Made by `CudaDevice.new_stream`; `CudaDevice.default_stream` is another.

    `number` is what other libraries call it: a CUstream, 0 for the default stream.
    """

    __slots__ = ("__weakref__", "device", "handle", "number")

    def __init__(self, device: CudaDevice, handle: Handle) -> None:
        self.device = device
        self.handle = handle
        self.number: int = 0 if handle is None else device.call(device.driver.stream_number, handle)

    def synchronize(self) -> None:
        """Wait for all that was put on the stream; errors of that work are raised here."""
        self.device.call(self.device.driver.synchronize_stream, self.handle)
        self.device.settled()

    def query(self) -> bool:
        """Whether all that was put on the stream is done."""
        return self.device.call(self.device.driver.stream_done, self.handle)

    def record_event(self, event: Event | None = None) -> Event:
        """Record an event, a new one unless given, after what is on the stream now."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """What comes later on this stream starts after the event."""
        event.wait(self)

    def wait_stream(self, other: Stream) -> None:
        """What comes later on this stream starts after what is on `other` now."""
        if other is not self:
            self.wait_event(other.record_event())

    def __repr__(self) -> str:
        return f"Stream(device={self.device.name!r}, number={self.number:#x})"


class Event:
    """A mark in a stream. It belongs to the device of the stream that records it first."""

    __slots__ = ("__weakref__", "_device", "_handle", "_timing")

    def __init__(self, enable_timing: bool = False) -> None:
        self._timing = enable_timing
        self._device: CudaDevice | None = None
        self._handle: Handle = None

    @property
    def device(self) -> CudaDevice | None:
        """The device, once the event was recorded."""
        return self._device

    def record(self, stream: Stream) -> None:
        """Mark the place after what is on `stream` now; CallError when the event belongs to another device."""
        device = stream.device
        if self._device is None:
            self._handle = device.take_event(self._timing)
            self._device = device
        elif self._device is not device:
            raise CallError(f"an event of {self._device.name} cannot be recorded on a stream of {device.name}")
        device.call(device.driver.record, self._handle, stream.handle)

    def wait(self, stream: Stream) -> None:
        """What comes later on `stream`, of any device, starts after the event; nothing to wait for before it was
        recorded.
        """
        if self._device is not None:
            self._device.check()
            stream.device.call(stream.device.driver.wait, stream.handle, self._handle)

    def query(self) -> bool:
        """Whether what was before the event is done; True when it was never recorded."""
        device = self._device
        return device is None or device.call(device.driver.event_done, self._handle)

    def synchronize(self) -> None:
        """Wait for what was before the event; errors of that work are raised here."""
        if self._device is not None:
            self._device.call(self._device.driver.synchronize_event, self._handle)

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds between this event and `end`, both made with `enable_timing` and done; else CallError."""
        device = self._device
        if not (self._timing and end._timing):
            raise CallError("both events must be made with enable_timing=True to measure the time between them")
        if device is None or end._device is None:
            raise CallError("both events must be recorded before the time between them can be known")
        if end._device is not device:
            raise CallError(f"the events are of two devices: {device.name} and {end._device.name}")
        if not (self.query() and end.query()):
            raise CallError("both events must have happened: call synchronize() on the later one first")
        return device.call(device.driver.elapsed, self._handle, end._handle)

    def __del__(self) -> None:
        # Kept for the next event: a finalizer should not call the driver.
        if self._device is not None:
            self._device.idle_events[self._timing].append(self._handle)

    def __repr__(self) -> str:
        return f"Event(device={self._device.name if self._device else None!r}, enable_timing={self._timing})"
