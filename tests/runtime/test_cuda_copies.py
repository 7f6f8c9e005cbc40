"""Copies between the host and CUDA devices, and page-locked memory."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from graphc_runtime import Buffer
from graphc_runtime.devices import cuda_host
from graphc_runtime.devices.cuda import CudaDevice, cuda_device
from tests.runtime.cuda_programs import at, values, vector
from tests.runtime.recording_driver import RecordingDevice


def random_bytes(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, count, np.uint8)


def test_there_and_back(device: CudaDevice) -> None:
    for count in (0, 1, 1000, cuda_host.CHUNK, 6 * cuda_host.CHUNK + 17):
        data = random_bytes(count)
        buffer = device.upload(Buffer.from_array(data), "data")
        assert buffer.nbytes == count and buffer.what == "data"
        np.testing.assert_array_equal(buffer.to_host().array, data)


@pytest.mark.parametrize("count", [10_000, 100_000])
def test_the_source_can_be_changed_when_the_call_returns(
    device: CudaDevice, recorder: RecordingDevice, count: int
) -> None:
    data = random_bytes(count)
    before = data.copy()
    buffer = device.upload(Buffer.from_array(data))
    data[:] = 0
    assert recorder.count("synchronize_stream") == 0  # and nobody waited
    assert recorder.count("allocate_host") == (count > 1 << 16)
    np.testing.assert_array_equal(buffer.to_host().array, before)


def test_page_locked_memory_on_the_way_is_bounded_and_used_again(device: CudaDevice, recorder: RecordingDevice) -> None:
    data = Buffer.from_array(random_bytes(20 * cuda_host.CHUNK))
    for _ in range(3):
        device.upload(data).to_host()
    assert recorder.count("allocate_host") <= 6
    device.empty_cache()
    assert recorder.count("free_host") == recorder.count("allocate_host")
    assert not recorder.host_blocks


def test_asynchronous_copies_by_page_locked_memory(device: CudaDevice, recorder: RecordingDevice) -> None:
    source = device.pin(16)
    source.view(np.float32, (4,))[:] = 3
    buffer = device.upload(source, non_blocking=True)
    assert recorder.count("synchronize_stream") == 0
    source.view(np.float32, (4,))[:] = 4  # too early: the device reads it later
    back = device.download(buffer, non_blocking=True)
    assert device.is_pinned(back) and recorder.count("synchronize_stream") == 0
    device.current_stream.synchronize()
    assert back.view(np.float32, (4,)).tolist() == [4] * 4


@pytest.mark.parametrize("place", [0, 4], ids=["whole", "part"])
def test_blocking_copies_of_page_locked_memory(device: CudaDevice, place: int) -> None:
    whole = device.pin(32)
    source = whole.part(place, 16)
    source.view(np.float32, (4,))[:] = 3
    buffer = device.upload(source)
    source.view(np.float32, (4,))[:] = 4  # not too early, though the device comes later
    target = device.pin(16)
    device.read(target, buffer)
    assert target.view(np.float32, (4,)).tolist() == [3] * 4


def test_page_locked_memory_is_not_used_again_before_the_copy_is_done(
    device: CudaDevice, recorder: RecordingDevice
) -> None:
    source = device.pin(5000)
    address = source.ptr
    buffer = device.upload(source, non_blocking=True)
    del source
    gc.collect()
    other = device.pin(5000)
    assert other.ptr != address
    device.synchronize()
    assert device.pin(5000).ptr == address
    assert buffer.nbytes == 5000


def test_memory_of_a_part_is_not_used_again_before_the_copy_is_done(device: CudaDevice) -> None:
    whole = device.pin(5000)
    address, source = whole.ptr, whole.part(100, 200)
    buffer = device.upload(source, non_blocking=True)
    del whole, source
    gc.collect()
    assert device.pin(5000).ptr != address
    assert buffer.nbytes == 200


def test_what_is_page_locked(device: CudaDevice) -> None:
    pinned = device.pin(100)
    assert device.is_pinned(pinned)
    assert device.is_pinned(Buffer.from_array(pinned.array)) and device.is_pinned(pinned.part(10, 90))
    assert not device.is_pinned(Buffer.allocate(100))
    array = pinned.array
    del pinned
    gc.collect()
    array[:] = 7  # an array keeps the memory
    assert device.is_pinned(Buffer.from_array(array))


def test_within_a_device(device: CudaDevice, recorder: RecordingDevice) -> None:
    source = vector(device, 1, 2, 3, 4)
    copy = source.copy()
    assert copy.ptr != source.ptr
    assert values(copy) == [1, 2, 3, 4]
    target = device.allocate(16)
    device.assign(target, source)
    device.write(source, Buffer.from_array(np.zeros(4, np.float32)))
    assert values(target) == [1, 2, 3, 4] and values(source) == [0] * 4
    assert recorder.count("copy") == 2 and recorder.count("copy_peer") == 0


def test_between_devices(device: CudaDevice, recorder: RecordingDevice) -> None:
    """The copy comes after what made the source there, and what they do with the source later comes after it."""
    other = cuda_device(1)
    theirs = other.new_stream()
    with other.on_stream(theirs):
        source = vector(other, 5, 6, 7, 8)
        copy = device.duplicate(source)
        other.write(source, Buffer.from_array(np.zeros(4, np.float32)))
    assert copy.device is device
    theirs.synchronize()
    assert at(copy.ptr).tolist() == [5, 6, 7, 8]
    assert values(copy) == [5, 6, 7, 8]
    assert recorder.count("copy_peer") == 1
