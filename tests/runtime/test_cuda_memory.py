"""The pool of a CUDA device: blocks split and joined, kept for their streams, counted, given back, run out of."""

from __future__ import annotations

import gc
import random
import threading
from itertools import pairwise

import pytest

from graphc_runtime import DeviceBuffer, DeviceError, GraphcRuntimeError, OutOfMemory, OutOfMemoryError
from graphc_runtime.devices.cuda import CudaDevice
from graphc_runtime.devices.cuda_driver import DriverError
from graphc_runtime.options import scope
from tests.runtime.cuda_programs import values, vector
from tests.runtime.recording_driver import RecordingDevice

MIB = 1 << 20


def test_memory_is_used_again_at_once_on_its_stream(device: CudaDevice, recorder: RecordingDevice) -> None:
    first = device.allocate(1000)
    address = first.ptr
    del first
    assert device.allocate(1000).ptr == address
    assert recorder.count("allocate") == 1
    assert recorder.count("synchronize") == 0


def test_live_buffers_never_overlap(device: CudaDevice) -> None:
    chance = random.Random(5)
    live: list[DeviceBuffer] = []
    for _ in range(1500):
        if live and chance.random() < 0.48:
            live.pop(chance.randrange(len(live)))
        else:
            live.append(device.allocate(chance.choice((0, 1, 511, 512, 5000, 70_000, MIB, 3 * MIB, 9 * MIB))))
        spans = sorted((b.ptr, b.ptr + b.nbytes) for b in live)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        assert all(start % 256 == 0 for start, _ in spans)
        if len(live) > 40:
            live.clear()
    del live
    gc.collect()
    stats = device.memory_stats()
    assert (stats.live_bytes, stats.live_blocks) == (0, 0)
    device.empty_cache()
    assert device.memory_stats().held_bytes == 0


def test_neighbours_are_joined_for_a_larger_buffer(device: CudaDevice, recorder: RecordingDevice) -> None:
    parts = [device.allocate(4 * MIB) for _ in range(5)]  # one segment
    assert recorder.count("allocate") == 1
    for i in (1, 3, 2, 0, 4):
        parts[i] = None  # type: ignore[call-overload]
    whole = device.allocate(20 * MIB)
    assert recorder.count("allocate") == 1
    assert whole.nbytes == 20 * MIB


def test_the_rest_of_a_block_serves_others(device: CudaDevice, recorder: RecordingDevice) -> None:
    buffers = [device.allocate(1024) for _ in range(2 * MIB // 1024)]
    assert recorder.count("allocate") == 1
    assert len({b.ptr for b in buffers}) == len(buffers)
    device.allocate(1)
    assert recorder.count("allocate") == 2


def test_other_streams_do_not_get_a_block(device: CudaDevice) -> None:
    address = device.allocate(4096).ptr
    with device.on_stream(device.new_stream()):
        other = device.allocate(4096)
        assert other.ptr != address
    assert device.allocate(4096).ptr == address


def test_a_block_that_another_stream_uses_waits_for_it(device: CudaDevice) -> None:
    stream = device.new_stream()
    buffer = device.allocate(4096)
    address = buffer.ptr
    with device.on_stream(stream):
        copied = device.duplicate(buffer)  # not done yet: nobody waited for the stream
    del buffer
    assert device.allocate(4096).ptr != address
    stream.synchronize()
    assert address in [b.ptr for b in [device.allocate(4096) for _ in range(2)]]
    assert copied.stream is stream


def test_numbers(device: CudaDevice) -> None:
    kept = device.allocate(1000, "weights")
    dropped = device.allocate(3 * MIB)
    del dropped
    stats = device.memory_stats()
    assert (stats.live_bytes, stats.live_blocks) == (1024, 1)
    assert stats.peak_bytes == 1024 + 3 * MIB
    assert stats.held_bytes == stats.peak_held_bytes == 22 * MIB
    assert stats.segments == 2
    device.reset_peak()
    assert device.memory_stats().peak_bytes == 1024
    device.empty_cache()
    assert device.memory_stats().held_bytes == 2 * MIB
    assert device.memory_stats().peak_held_bytes == 22 * MIB
    summary = device.memory_summary()
    assert "1,024  weights" in summary and "memory of cuda:0 (Recorder)" in summary
    assert device.memory_info()[1] == 1 << 30
    assert kept.what == "weights"


def test_freed_memory_is_given_back_before_memory_is_short(device: CudaDevice, recorder: RecordingDevice) -> None:
    recorder.capacity = 50 * MIB
    held = [device.allocate(20 * MIB), device.allocate(20 * MIB)]
    held.clear()
    assert device.allocate(40 * MIB).nbytes == 40 * MIB
    assert recorder.count("free") == 2
    names = [call[0] for call in recorder.calls]
    assert "synchronize" in names[: names.index("free")]


def test_a_segment_need_not_be_whole(device: CudaDevice, recorder: RecordingDevice) -> None:
    recorder.capacity = 5 * MIB
    assert device.allocate(4 * MIB).nbytes == 4 * MIB
    assert [call[1] for call in recorder.calls if call[0] == "allocate"] == [20 * MIB, 20 * MIB, 4 * MIB]


def test_out_of_memory_lists_the_largest_buffers(device: CudaDevice, recorder: RecordingDevice) -> None:
    recorder.capacity = 64 * MIB
    held = [device.allocate(n * MIB, f"the values of layer {n} (user.py:{n})") for n in (3, 20, 11)]
    with pytest.raises(OutOfMemoryError) as caught:
        device.allocate(40 * MIB, "f32[10485760]")
    text = str(caught.value)
    assert "cuda:0 is out of memory: it cannot give 41,943,040 bytes for f32[10485760]" in text
    lines = [line for line in text.splitlines() if "user.py" in line]
    assert [line.strip() for line in lines] == [
        f"{n * MIB:,} bytes: the values of layer {n} (user.py:{n})" for n in (20, 11, 3)
    ]
    assert "empty_cache" in text
    assert isinstance(caught.value, OutOfMemory) and isinstance(caught.value, GraphcRuntimeError)
    held.clear()
    assert device.allocate(40 * MIB).nbytes == 40 * MIB


def test_either_all_or_none(device: CudaDevice, recorder: RecordingDevice) -> None:
    recorder.capacity = 30 * MIB
    with pytest.raises(OutOfMemoryError):
        device.allocate_all((10 * MIB, 10 * MIB, 20 * MIB), ("", "", ""))
    assert device.memory_stats().live_bytes == 0


def test_the_driver_s_own_need_of_memory(device: CudaDevice, recorder: RecordingDevice) -> None:
    refused = DriverError("cuStreamCreate failed: out of memory", out_of_memory=True)
    device.allocate(20 * MIB)
    recorder.failing["make_stream"] = [refused]
    assert device.new_stream().number > 0  # after the pool gave back what nobody uses
    assert recorder.count("free") == 1
    recorder.failing["make_stream"] = [refused, refused]
    with pytest.raises(OutOfMemoryError, match=r"what the driver needs .*cuStreamCreate"):
        device.new_stream()


def test_another_error_of_an_allocation(device: CudaDevice, recorder: RecordingDevice) -> None:
    recorder.failing["allocate"] = [DriverError("cuMemAlloc failed: invalid argument")]
    with pytest.raises(DeviceError, match="cuda:0: cuMemAlloc failed: invalid argument"):
        device.allocate(16)
    assert device.allocate(16).nbytes == 16


def test_memory_of_another_library(device: CudaDevice) -> None:
    class Owner:
        alive = 0

        def __init__(self) -> None:
            Owner.alive += 1

        def __del__(self) -> None:
            Owner.alive -= 1

    theirs = vector(device, 5, 6, 7, 8)
    buffer = DeviceBuffer.from_address(theirs.ptr, 16, device, Owner())
    assert not buffer.of_pool and theirs.of_pool
    assert values(buffer) == [5, 6, 7, 8]
    assert Owner.alive == 1
    del buffer
    assert Owner.alive == 0

    stream = device.new_stream()
    buffer = DeviceBuffer.from_address(theirs.ptr, 16, device, Owner())
    with device.on_stream(stream):
        copied = device.duplicate(buffer)
    del buffer
    device.memory_stats()
    assert Owner.alive == 1  # the copy may still read it
    stream.synchronize()
    device.memory_stats()
    assert Owner.alive == 0
    with device.on_stream(stream):
        assert values(copied) == [5, 6, 7, 8]


def test_poison(device: CudaDevice) -> None:
    with scope(poison=True):
        buffer = device.allocate(16)
    assert bytes(buffer.to_host().array) == b"\xff" * 16


def test_several_threads(device: CudaDevice) -> None:
    """Each thread fills its buffers with a number of its own, and finds it there."""
    wrong: list[int] = []

    def work(mark: int) -> None:
        chance = random.Random(mark)
        for _ in range(100):
            held = [vector(device, mark, mark, mark, mark) for _ in range(chance.randrange(1, 6))]
            device.allocate(chance.randrange(1, 100_000))
            if any(values(buffer) != [mark] * 4 for buffer in held):
                wrong.append(mark)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert device.memory_stats().live_blocks == 0
