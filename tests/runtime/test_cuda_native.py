"""Steps that native code puts on a stream: the same as one by one."""

from __future__ import annotations

import threading

import pytest

from graphc_runtime import DeviceError, DeviceLost, DeviceStep, Executable
from graphc_runtime.devices import cuda_native
from graphc_runtime.devices.cuda import CudaDevice
from graphc_runtime.errors import LoadError
from graphc_runtime.options import CUDA_SYNC, scope
from tests.runtime.cuda_programs import NBYTES, adder, kernel, program, values, vector
from tests.runtime.recording_driver import NativeRecorder, RecordingDevice


@pytest.fixture
def native(recorder: RecordingDevice) -> NativeRecorder:
    return NativeRecorder(recorder)


def one(device: CudaDevice) -> Executable:
    """out = x + y, by one kernel."""
    step = kernel("add", (0, 0), (1, 0), (2, 0), blocks=7, shared=300)
    return Executable(program(step, lines=("user.py:5",)), device)


def test_a_program_that_runs_again(device: CudaDevice, recorder: RecordingDevice, native: NativeRecorder) -> None:
    executable, x, y, out = one(device), vector(device, 1, 2, 3, 4), vector(device, 10, 20, 30, 40), vector(device)
    for _ in range(6):
        executable.run([x, y], [out])
    assert native.entered == 4  # all but the first two
    assert recorder.count("begin_capture") == recorder.count("free_graph") == 1  # to learn the kernel's number
    launches = [call for call in recorder.calls if call[0] == "launch"]
    assert {call[1:6] for call in launches} == {("add", 7, 32, 300, (x.ptr, y.ptr, out.ptr))}
    assert len(launches) == 7
    assert values(out) == [11, 22, 33, 44]


def test_kernels_fills_and_copies(device: CudaDevice, recorder: RecordingDevice, native: NativeRecorder) -> None:
    executable = Executable(adder(), device)
    with scope(cuda_graphs=False):
        for i in range(6):
            x = vector(device, i, i, i, i)
            assert values(executable.run([x, x])[0]) == [4 * i] * 4
    assert native.entered == 4
    names = [call[0] for call in recorder.calls if call[0] in ("fill", "launch", "copy")]
    assert names == ["fill", "launch", "launch", "copy"] * 7
    assert {call[2:4] for call in recorder.calls if call[0] == "fill"} == {(0xFF, 64)}


def test_a_copy_to_where_it_is_is_none(device: CudaDevice, recorder: RecordingDevice, native: NativeRecorder) -> None:
    copy = DeviceStep("copy", ((1, 0), (0, 0)), nbytes=NBYTES)
    executable = Executable(program(copy, inputs=1, aliases=(0,)), device)
    x = vector(device)
    for _ in range(4):
        executable.run([x])
    assert native.entered == 2 and recorder.count("copy") == 0


def test_on_another_stream(device: CudaDevice, recorder: RecordingDevice, native: NativeRecorder) -> None:
    executable, x = one(device), vector(device)
    device.synchronize()
    stream = device.new_stream()
    with device.on_stream(stream):
        for _ in range(4):
            (out,) = executable.run([x, x])
        assert native.entered == 2
        assert device.default_stream.query() and not stream.query()
        assert values(out) == [2, 4, 6, 8]


def test_a_step_that_is_refused(device: CudaDevice, native: NativeRecorder) -> None:
    steps = kernel("double", (0, 0), (2, 0)), kernel("increment", (2, 0))
    executable = Executable(program(*steps, inputs=2, lines=("user.py:3", "user.py:4")), device)
    x = vector(device, 1, 1, 1, 1)
    for _ in range(3):
        executable.run([x, x])
    native.codes = [0, 701]
    with pytest.raises(DeviceError, match=r"did not take kernel increment of program \(user.py:4\) .*: code 701"):
        executable.run([x, x])
    assert values(executable.run([x, x])[0]) == [3] * 4


def test_a_broken_context(device: CudaDevice, native: NativeRecorder) -> None:
    executable, x = one(device), vector(device)
    for _ in range(3):
        executable.run([x, x])
    native.codes = [700]
    with pytest.raises(DeviceLost, match=r"It happened in kernel add of program \(user\.py:5\)"):
        executable.run([x, x])
    with pytest.raises(DeviceLost):
        executable.run([x, x])


def test_each_kernel_is_waited_for_on_request(device: CudaDevice, native: NativeRecorder) -> None:
    executable, x = one(device), vector(device)
    CUDA_SYNC.set(True)
    try:
        for _ in range(4):
            executable.run([x, x])
    finally:
        CUDA_SYNC.reset()
    assert native.entered == 0


def test_it_goes_on_where_nothing_can_be_linked(
    device: CudaDevice, native: NativeRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise LoadError("no linker here")

    monkeypatch.setattr(cuda_native, "_entry", refused)
    executable, x = one(device), vector(device)
    for _ in range(5):
        (out,) = executable.run([x, x])
    assert native.entered == 0 and values(out) == [2, 4, 6, 8]


def test_several_threads(device: CudaDevice, native: NativeRecorder) -> None:
    executable, first = one(device), vector(device)
    for _ in range(3):  # until native code is there: threads that come meanwhile do without
        executable.run([first, first])
    wrong: list[int] = []

    def work(mark: int) -> None:
        x = vector(device, mark, mark, mark, mark)
        wrong.extend(mark for _ in range(60) if values(executable.run([x, x])[0]) != [2 * mark] * 4)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and native.entered > 200
