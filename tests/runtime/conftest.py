"""Devices of the recording driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from graphc_runtime.devices.cuda import CudaDevice, cuda_device, register_cuda_driver
from tests.runtime.cuda_programs import KERNELS
from tests.runtime.recording_driver import RecordingDevice, RecordingDriver


@pytest.fixture
def recorder() -> Iterator[RecordingDevice]:
    """The driver's side of cuda:0; cuda:1 is another such device."""
    device = RecordingDevice(KERNELS)
    before = register_cuda_driver(RecordingDriver(device, RecordingDevice(KERNELS)))
    yield device
    register_cuda_driver(before)


@pytest.fixture
def device(recorder: RecordingDevice) -> CudaDevice:
    """cuda:0 over `recorder`."""
    return cuda_device(0)
