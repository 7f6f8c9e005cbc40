"""Streams and events. What is recorded is begun before the stream changes and before an event is recorded, so that it
is on the stream that was current when the user wrote it.
"""

from __future__ import annotations

import threading
from typing import Any

from graphc.cuda.devices import index_of, opened, run_pending
from graphc.devices import Device
from graphc.errors import DeviceError, UnsupportedError
from graphc_runtime.devices import cuda as runtime
from graphc_runtime.devices.cuda_streams import Event as RuntimeEvent
from graphc_runtime.devices.cuda_streams import Stream as RuntimeStream

_entered = threading.local()  # `contexts`: of the streams whose blocks this thread is in, innermost last


def _wanted(name: str, device: Any = None) -> runtime.CudaDevice:
    try:
        return opened(device)
    except DeviceError as error:
        raise DeviceError(f"torch.cuda.{name} requires CUDA support: {error.message}") from None


class Stream:
    """Work of a device that is done in order; as a context manager, what `stream` gives. `priority` has no effect."""

    def __init__(self, device: Any = None, priority: int = 0, *, runtime: RuntimeStream | None = None) -> None:
        self.runtime = _wanted("Stream", device).new_stream() if runtime is None else runtime
        self.priority = priority

    @property
    def device(self) -> Device:
        """The device that the stream belongs to."""
        return Device(self.runtime.device.name)

    @property
    def device_index(self) -> int:
        """Its number."""
        return self.runtime.device.index

    @property
    def cuda_stream(self) -> int:
        """The stream as other libraries know it; 0 for the default stream."""
        return self.runtime.number

    stream_id = cuda_stream

    @staticmethod
    def priority_range() -> tuple[int, int]:
        """The lowest and the highest priority: all streams have the same."""
        return 0, 0

    def synchronize(self) -> None:
        """Wait for all that was begun on the stream; errors of that work are raised here."""
        run_pending("Stream.synchronize()")
        self.runtime.synchronize()

    def query(self) -> bool:
        """Whether all that was begun on the stream is done."""
        run_pending("Stream.query()")
        return self.runtime.query()

    def record_event(self, event: Event | None = None) -> Event:
        """Record an event, a new one unless given, after what is on the stream now."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """What comes later on this stream starts after the event."""
        event.wait(self)

    def wait_stream(self, stream: Stream) -> None:
        """What comes later on this stream starts after what is on another one now."""
        run_pending("Stream.wait_stream()")
        self.runtime.wait_stream(stream.runtime)

    def __enter__(self) -> Stream:
        context = StreamContext(self)
        context.__enter__()
        _entered.contexts = [*getattr(_entered, "contexts", ()), context]
        return self

    def __exit__(self, *exception: object) -> None:
        *_entered.contexts, context = _entered.contexts
        context.__exit__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.runtime is other.runtime

    def __hash__(self) -> int:
        return hash((self.device_index, self.cuda_stream))

    def __repr__(self) -> str:
        return f"<torch.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"


def _public(found: RuntimeStream) -> Stream:
    return Stream(runtime=found)


class Event:
    """A mark in a stream. `blocking` has no effect; events are not shared between processes."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        if interprocess:
            raise UnsupportedError("torch.cuda.Event(interprocess=True): events are not shared between processes")
        _wanted("Event")
        self.runtime = RuntimeEvent(enable_timing)

    @property
    def device(self) -> Device | None:
        """The device of the stream that recorded the event first; None before."""
        return None if self.runtime.device is None else Device(self.runtime.device.name)

    def record(self, stream: Stream | None = None) -> None:
        """Mark the place after what is on the stream (the current one) now."""
        run_pending("Event.record()")
        (current_stream() if stream is None else stream).runtime.record_event(self.runtime)

    def wait(self, stream: Stream | None = None) -> None:
        """What comes later on the stream (the current one) starts after the event."""
        run_pending("Event.wait()")
        (current_stream() if stream is None else stream).runtime.wait_event(self.runtime)

    def query(self) -> bool:
        """Whether what was before the event is done; True when it was never recorded."""
        return self.runtime.query()

    def synchronize(self) -> None:
        """Wait for what was before the event; errors of that work are raised here."""
        self.runtime.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds between this event and a later one, both with `enable_timing` and done."""
        return self.runtime.elapsed_time(end_event.runtime)

    def __repr__(self) -> str:
        return f"<torch.cuda.Event {'uninitialized' if self.runtime.device is None else self.runtime.device.name}>"


def current_stream(device: Any = None) -> Stream:
    """The stream on which this thread puts work of the device."""
    return _public(opened(device).current_stream)


def default_stream(device: Any = None) -> Stream:
    """The stream that the device starts with."""
    return _public(opened(device).default_stream)


def set_stream(stream: Stream | None) -> None:
    """Let this thread put work of the stream's device on the stream, and let "cuda" mean that device."""
    if stream is None:
        return
    run_pending("torch.cuda.set_stream()")
    runtime.set_device(index_of(stream.device))
    stream.runtime.device.set_stream(stream.runtime)


class StreamContext:
    """A block whose work goes to a stream; None changes nothing."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream
        self._before: tuple[Stream, Stream] | None = None

    def __enter__(self) -> None:
        if self.stream is None:
            return
        self._before = current_stream(), current_stream(self.stream.device_index)
        set_stream(self.stream)

    def __exit__(self, *exception: object) -> None:
        if self._before is None:
            return
        device, stream = self._before
        self._before = None
        set_stream(stream)
        set_stream(device)


def stream(stream: Stream | None) -> StreamContext:
    """A block whose work goes to `stream`; None changes nothing."""
    return StreamContext(stream)


def is_current_stream_capturing() -> bool:
    """False: users do not capture streams; programs are captured as CUDA graphs by the runtime."""
    return False
