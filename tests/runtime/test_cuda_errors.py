"""Errors of work that is done later, lost devices, and the end of a process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from graphc_runtime import Buffer, DeviceError, DeviceLost, Executable, GraphcRuntimeError, get_device
from graphc_runtime.devices.cuda import CudaDevice, cuda_device
from graphc_runtime.devices.cuda_driver import DriverError
from graphc_runtime.options import CUDA_SYNC
from tests.runtime.cuda_programs import adder, kernel, program, values, vector
from tests.runtime.native import python
from tests.runtime.recording_driver import ILLEGAL, RecordingDevice


def breaking(device: CudaDevice) -> Executable:
    """A program whose second kernel, from line 8, reaches for memory that is not there."""
    steps = kernel("increment", (0, 0)), kernel("illegal", (0, 0)), kernel("double", (0, 0), (1, 0))
    return Executable(program(*steps, inputs=1, lines=("user.py:7", "user.py:8", "user.py:9")), device)


@pytest.fixture
def synchronous() -> Iterator[None]:
    CUDA_SYNC.set(True)
    yield
    CUDA_SYNC.reset()


OBSERVATIONS = {
    "synchronize": lambda device, out: device.synchronize(),
    "stream": lambda device, out: device.current_stream.synchronize(),
    "copy": lambda device, out: out.to_host(),
}


@pytest.mark.parametrize("how", OBSERVATIONS)
def test_an_error_is_raised_where_the_work_is_observed(device: CudaDevice, how: str) -> None:
    executable = breaking(device)
    (out,) = executable.run([vector(device)])  # all went well so far
    with pytest.raises(DeviceLost) as caught:
        OBSERVATIONS[how](device, out)
    text = str(caught.value)
    assert text.startswith("cuda:0 is lost: ") and ILLEGAL in text
    assert "\n  double of program (user.py:9)\n  illegal of program (user.py:8)\n  increment" in text
    assert "GRAPHC_CUDA_SYNC=1" in text and "restart" in text
    assert isinstance(caught.value, DeviceError) and isinstance(caught.value, GraphcRuntimeError)


def test_one_kernel_is_named_when_there_was_one_only(device: CudaDevice) -> None:
    (out,) = Executable(program(kernel("illegal", (0, 0)), lines=("user.py:3",)), device).run([vector(device)] * 2)
    with pytest.raises(DeviceLost, match=r"It happened in kernel illegal of program \(user\.py:3\)\."):
        out.to_host()


def test_kernels_that_were_waited_for_are_not_under_suspicion(device: CudaDevice) -> None:
    x = vector(device)
    values(Executable(adder(name="earlier"), device).run([x, x])[0])
    with pytest.raises(DeviceLost) as caught:
        values(breaking(device).run([x])[0])
    assert "earlier" not in str(caught.value)


def test_many_kernels_are_not_all_listed(device: CudaDevice) -> None:
    x = vector(device)
    for i in range(20):
        Executable(adder(name=f"p{i}"), device).run([x, x])
    with pytest.raises(DeviceLost) as caught:
        values(breaking(device).run([x])[0])
    text = str(caught.value)
    assert text.count("\n  ") == 9 and "and 35 more" in text
    assert "double of p19" in text and "double of p2 " not in text


def test_each_kernel_is_waited_for_on_request(device: CudaDevice, synchronous: None) -> None:
    executable = breaking(device)
    with pytest.raises(DeviceLost, match=r"It happened in kernel illegal of program \(user\.py:8\)\."):
        executable.run([vector(device)])


def test_results_of_synchronous_runs(device: CudaDevice, recorder: RecordingDevice, synchronous: None) -> None:
    x = vector(device, 1, 2, 3, 4)
    for _ in range(4):
        (out,) = Executable(adder(), device).run([x, x])
        assert values(out) == [4, 8, 12, 16]
    assert recorder.count("launch_graph") == 0


def test_a_lost_device_stays_lost_and_all_else_goes_on(device: CudaDevice, recorder: RecordingDevice) -> None:
    other = cuda_device(1)
    there, executable, ready = vector(other), breaking(device), Executable(adder(), device)
    event = device.default_stream.record_event()
    x, dropped = vector(device), [vector(device), vector(device)]
    (out,) = executable.run([x])
    with pytest.raises(DeviceLost):
        device.synchronize()
    calls = len(recorder.calls)
    attempts = [
        lambda: device.allocate(16),
        lambda: ready.run([x, x]),
        lambda: device.new_stream(),
        lambda: out.to_host(),
        lambda: device.upload(Buffer.allocate(16)),
        lambda: event.synchronize(),
        lambda: event.query(),
        lambda: device.current_stream.query(),
        lambda: device.empty_cache(),
        lambda: device.pin(10),
        lambda: Executable(adder(), device),
        lambda: other.duplicate(x),
        lambda: get_device("cuda:0").synchronize(),
    ]
    for attempt in attempts:
        with pytest.raises(DeviceLost, match="cuda:0 is lost"):
            attempt()
    dropped.clear()
    assert len(recorder.calls) == calls  # the driver was not asked, frees included
    assert device.memory_stats().segments == 1
    assert values(there) == [1, 2, 3, 4]
    assert values(Executable(adder(), other).run([there, there])[0]) == [4, 8, 12, 16]
    assert Buffer.from_array(np.ones(4)).copy().array.size == 32


@pytest.mark.parametrize("name", ["launch", "copy_in", "allocate", "fill"])
def test_a_broken_context_shows_at_any_call(device: CudaDevice, recorder: RecordingDevice, name: str) -> None:
    executable, x = Executable(adder(), device), vector(device)
    recorder.failing[name] = [DriverError(f"cuSomething failed: {ILLEGAL}", sticky=True)]
    with pytest.raises(DeviceLost, match=ILLEGAL):
        executable.run([x, x])
        device.allocate(100 << 20)
        vector(device)


def test_an_error_that_is_not_sticky(device: CudaDevice, recorder: RecordingDevice) -> None:
    recorder.failing["copy"] = [DriverError("cuMemcpyDtoDAsync failed: invalid argument")]
    x = vector(device)
    with pytest.raises(DeviceError, match="cuda:0: cuMemcpyDtoDAsync failed: invalid argument") as caught:
        x.copy()
    assert not isinstance(caught.value, DeviceLost)
    assert values(x.copy()) == [1, 2, 3, 4]


ENDS = """
import sys
from tests.runtime.cuda_programs import KERNELS, adder, kernel, vector
from tests.runtime.cuda_programs import program as program_of
from tests.runtime.recording_driver import RecordingDevice, RecordingDriver
from graphc_runtime import DeviceLost, Executable
from graphc_runtime.devices.cuda import cuda_device, register_cuda_driver
register_cuda_driver(RecordingDriver(RecordingDevice(KERNELS)))
device = cuda_device(0)
x, pinned, stream = vector(device), device.pin(100), device.new_stream()
event = stream.record_event()
program = Executable(adder(), device)
outs = [program.run([x, x]) for _ in range(5)]
"""
LOST = """
outs += Executable(program_of(kernel("illegal", (0, 0))), device).run([x, x])
try:
    device.synchronize()
except DeviceLost:
    pass
else:
    raise AssertionError
"""


@pytest.mark.parametrize("lost", [False, True])
def test_a_process_ends_quietly_with_live_buffers(lost: bool) -> None:
    done = python(f"{ENDS}{LOST if lost else ''}sys.exit(5)")
    assert (done.returncode, done.stdout, done.stderr) == (5, "", "")
