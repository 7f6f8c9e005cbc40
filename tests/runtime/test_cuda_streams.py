"""Streams and events of CUDA devices."""

from __future__ import annotations

import threading

import pytest

from graphc_runtime import CallError
from graphc_runtime.devices.cuda import CudaDevice, cuda_device
from graphc_runtime.devices.cuda_streams import Event
from tests.runtime.cuda_programs import at, values, vector
from tests.runtime.recording_driver import RecordingDevice


def test_the_current_stream(device: CudaDevice) -> None:
    stream = device.new_stream()
    assert device.current_stream is device.default_stream
    assert device.default_stream.number == 0 != stream.number
    with device.on_stream(stream) as entered:
        assert device.current_stream is entered is stream
        seen: list[object] = []
        thread = threading.Thread(target=lambda: seen.append(device.current_stream))
        thread.start()
        thread.join()
        assert seen == [device.default_stream]  # of that thread
    assert device.current_stream is device.default_stream


def test_the_stream_is_put_back_after_an_error(device: CudaDevice) -> None:
    with pytest.raises(KeyError), device.on_stream(device.new_stream()):
        raise KeyError
    assert device.current_stream is device.default_stream


def test_streams_are_given_in_turn_from_the_33rd_on(device: CudaDevice, recorder: RecordingDevice) -> None:
    streams = [device.new_stream() for _ in range(70)]
    assert len(set(streams)) == 32 == recorder.count("make_stream")


def test_work_is_put_on_the_current_stream(device: CudaDevice, recorder: RecordingDevice) -> None:
    stream = device.new_stream()
    with device.on_stream(stream):
        buffer = vector(device)
    (copy,) = [call for call in recorder.calls if call[0] == "copy_in"]
    assert copy[-1] is stream.handle
    assert not stream.query()
    stream.synchronize()
    assert stream.query()
    assert at(buffer.ptr).tolist() == [1, 2, 3, 4]


def test_events(device: CudaDevice) -> None:
    stream, event = device.new_stream(), Event()
    assert event.query() and event.device is None  # never recorded
    event.synchronize()
    with device.on_stream(stream):
        vector(device)
        assert stream.record_event(event) is event
    assert event.device is device
    assert not event.query()
    event.synchronize()
    assert event.query() and stream.query()


def test_a_stream_waits_for_an_event_of_another(device: CudaDevice) -> None:
    first, second = device.new_stream(), device.new_stream()
    buffer = device.allocate(16)
    with device.on_stream(first):
        source = vector(device, 9, 9, 9, 9)
        event = first.record_event()
    with device.on_stream(second):
        second.wait_event(event)
        device.assign(buffer, source)
    second.synchronize()
    assert at(buffer.ptr).tolist() == [9, 9, 9, 9]


def test_a_stream_waits_for_another(device: CudaDevice, recorder: RecordingDevice) -> None:
    first, second = device.new_stream(), device.new_stream()
    with device.on_stream(first):
        source = vector(device, 7, 7, 7, 7)
    second.wait_stream(first)
    second.wait_stream(second)  # nothing to do
    assert recorder.count("wait") == 1
    with device.on_stream(second):
        assert values(source) == [7, 7, 7, 7]


def test_the_time_between_events(device: CudaDevice) -> None:
    start, end = Event(enable_timing=True), Event(enable_timing=True)
    with pytest.raises(CallError, match="recorded before"):
        start.elapsed_time(end)
    start.record(device.default_stream)
    vector(device)
    end.record(device.default_stream)
    with pytest.raises(CallError, match="must have happened"):
        start.elapsed_time(end)
    end.synchronize()
    assert start.elapsed_time(end) > 0 > end.elapsed_time(start)
    with pytest.raises(CallError, match="enable_timing=True"):
        start.elapsed_time(device.default_stream.record_event())


def test_events_stay_with_their_device(device: CudaDevice) -> None:
    other = cuda_device(1)
    event, theirs = Event(enable_timing=True), Event(enable_timing=True)
    event.record(device.default_stream)
    theirs.record(other.default_stream)
    with pytest.raises(CallError, match=r"event of cuda:0 .* stream of cuda:1"):
        event.record(other.default_stream)
    with pytest.raises(CallError, match="two devices: cuda:0 and cuda:1"):
        event.elapsed_time(theirs)
    other.default_stream.wait_event(event)  # that is allowed


def test_handles_of_events_are_used_again(device: CudaDevice, recorder: RecordingDevice) -> None:
    for _ in range(10):
        device.default_stream.record_event()
    assert recorder.count("make_event") == 1
    Event(enable_timing=True).record(device.default_stream)
    assert [call[1] for call in recorder.calls if call[0] == "make_event"] == [False, True]


def test_representations(device: CudaDevice) -> None:
    assert repr(device.default_stream) == "Stream(device='cuda:0', number=0x0)"
    assert repr(Event()) == "Event(device=None, enable_timing=False)"
    assert repr(device.default_stream.record_event()) == "Event(device='cuda:0', enable_timing=False)"
