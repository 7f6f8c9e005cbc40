"""Programs on a CUDA device: steps in order, buffers given and taken over, streams, arenas, counters."""

from __future__ import annotations

import numpy as np
import pytest

from graphc_runtime import (
    COUNTERS,
    Artifact,
    Buffer,
    CallError,
    DeviceError,
    DeviceStep,
    Executable,
    LoadError,
    OutOfMemoryError,
    counters,
)
from graphc_runtime.devices.cuda import CudaDevice, cuda_device
from graphc_runtime.devices.cuda_driver import DriverError
from graphc_runtime.executor import DeviceExecutable
from tests.runtime.cuda_programs import NBYTES, adder, kernel, program, values, vector
from tests.runtime.recording_driver import RecordingDevice


def test_steps_run_in_order(device: CudaDevice, recorder: RecordingDevice) -> None:
    executable = Executable(Artifact.from_bytes(adder().to_bytes()), device)
    assert isinstance(executable, DeviceExecutable) and executable.native is None
    x, y = vector(device, 1, 2, 3, 4), vector(device, 10, 20, 30, 40)
    (out,) = executable.run([x, y])
    assert out.device is device and out.nbytes == NBYTES
    assert recorder.count("synchronize") == recorder.count("synchronize_stream") == 0
    assert values(out) == [22, 44, 66, 88]
    names = [call[:2] if call[0] == "launch" else call[0] for call in recorder.calls]
    at = names.index("fill")
    assert names[at : at + 4] == ["fill", ("launch", "add"), ("launch", "double"), "copy"]


def test_what_a_launch_gets(device: CudaDevice, recorder: RecordingDevice) -> None:
    steps = kernel("add", (0, 0), (1, 0), (2, 0), blocks=7, shared=50_000)
    x = vector(device)
    (out,) = Executable(program(steps), device).run([x, x])
    assert ("function", "add", 50_000) in recorder.calls
    (launch,) = [call for call in recorder.calls if call[0] == "launch"]
    assert launch == ("launch", "add", 7, 32, 50_000, (x.ptr, x.ptr, out.ptr), None)


def test_a_kernel_is_made_ready_for_the_most_shared_memory(device: CudaDevice, recorder: RecordingDevice) -> None:
    steps = [kernel("increment", (0, 0), shared=n) for n in (100, 300, 200)]
    Executable(program(*steps, outputs=0), device)
    assert [call for call in recorder.calls if call[0] == "function"] == [("function", "increment", 300)]


def test_each_kernel_is_looked_up_in_the_code_that_has_it(device: CudaDevice, recorder: RecordingDevice) -> None:
    steps = (
        kernel("increment", (0, 0), object=1),
        kernel("double", (0, 0), (1, 0)),
        kernel("increment", (1, 0), object=1),
    )
    (out,) = Executable(program(*steps, inputs=1, objects=(b"one", b"two")), device).run([vector(device)])
    assert values(out) == [5, 7, 9, 11]
    assert recorder.holders == {"double": b"one", "increment": b"two"}
    assert recorder.count("load") == 2
    with pytest.raises(LoadError, match="1 pieces of code; a kernel is in number 1"):
        Executable(program(*steps, inputs=1), device)


def test_empty_steps_are_left_out(device: CudaDevice, recorder: RecordingDevice) -> None:
    steps = kernel("double", (0, 0), (2, 0), blocks=0), DeviceStep("fill", ((2, 0),), nbytes=0)
    x = vector(device)
    Executable(program(*steps), device).run([x, x])
    device.synchronize()
    assert recorder.count("launch") == recorder.count("fill") == 0


def test_a_program_without_kernels_needs_no_code(device: CudaDevice, recorder: RecordingDevice) -> None:
    copy = DeviceStep("copy", ((1, 0), (0, 0)), nbytes=NBYTES)
    (out,) = Executable(program(copy, inputs=1, objects=()), device).run([vector(device, 4, 3, 2, 1)])
    assert values(out) == [4, 3, 2, 1]
    assert recorder.count("load") == 0


def test_a_copy_to_where_it_is_is_none(device: CudaDevice, recorder: RecordingDevice) -> None:
    copy = DeviceStep("copy", ((1, 0), (0, 0)), nbytes=NBYTES)
    x = vector(device)
    (out,) = Executable(program(copy, inputs=1, aliases=(0,)), device).run([x])
    assert out is x
    assert recorder.count("copy") == 0


def test_an_output_takes_over_an_input(device: CudaDevice) -> None:
    executable = Executable(program(kernel("increment", (0, 0)), inputs=1, aliases=(0,)), device)
    x = vector(device, 1, 2, 3, 4)
    (out,) = executable.run([x])
    assert out is x
    assert values(out) == [2, 3, 4, 5]


def test_outputs_that_are_given(device: CudaDevice) -> None:
    executable = Executable(adder(), device)
    x, target = vector(device), device.allocate(NBYTES)
    assert executable.run([x, x], [target]) == [target]
    assert values(target) == [4, 8, 12, 16]
    (fresh,) = executable.run([x, x], [None])
    assert values(fresh) == [4, 8, 12, 16]
    with pytest.raises(CallError, match=r"output 0 is f32\[4\] \(16 bytes\), got 8"):
        executable.run([x, x], [device.allocate(8)])


def test_buffers_that_do_not_fit(device: CudaDevice) -> None:
    executable = Executable(adder(), device)
    x = vector(device)
    with pytest.raises(CallError, match="has 2 inputs"):
        executable.run([x])
    with pytest.raises(CallError, match=r"input 1 is f32\[4\] \(16 bytes\), got 12 bytes"):
        executable.run([x, device.allocate(12)])
    host: list = [x, Buffer.from_array(np.zeros(4, np.float32))]
    with pytest.raises(CallError, match=r"runs on cuda:0; it was given Buffer\(16 bytes"):
        executable.run(host)
    with pytest.raises(CallError, match=r"runs on cuda:0; it was given DeviceBuffer\(.* of cuda:1\)"):
        executable.run([x, vector(cuda_device(1))])


def test_outputs_say_what_they_are(device: CudaDevice) -> None:
    x = vector(device)
    (out,) = Executable(adder(), device).run([x, x])
    assert out.what == "output 0 of program, f32[4]"
    direct = program(kernel("add", (0, 0), (1, 0), (2, 0)), lines=("user.py:3",))
    (out,) = Executable(direct, device).run([x, x])
    assert out.what == "output 0 of program, f32[4] (user.py:3)"


def arenas(recorder: RecordingDevice) -> set[int]:
    """Where the arenas of `adder` lay, which begins with a fill of its own."""
    return {call[1] for call in recorder.calls if call[0] == "fill"}


def test_programs_of_a_stream_share_an_arena(device: CudaDevice, recorder: RecordingDevice) -> None:
    executables = [Executable(adder(), device) for _ in range(3)]
    x = vector(device)
    outs = [executable.run([x, x])[0] for _ in range(20) for executable in executables]
    assert len(arenas(recorder)) == 1
    assert all(values(out) == [4, 8, 12, 16] for out in outs)
    with device.on_stream(device.new_stream()):
        executables[0].run([x, x])
    assert len(arenas(recorder)) == 2


def test_an_arena_counts_while_its_program_is_begun(device: CudaDevice, recorder: RecordingDevice) -> None:
    executable = Executable(adder(), device)
    x, out = vector(device), vector(device)
    executable.run([x, x], [out])
    stats = device.memory_stats()
    assert (stats.live_bytes, stats.live_blocks) == (2 * 512, 2)
    assert stats.peak_bytes == 3 * 512
    del x, out
    device.empty_cache()
    assert device.memory_stats().held_bytes == 0


def test_an_idle_arena_goes_when_memory_is_short(device: CudaDevice, recorder: RecordingDevice) -> None:
    recorder.capacity = 64 << 20
    big = program(kernel("double", (0, 0), (2, 0)), arena=40 << 20)
    x = vector(device)
    Executable(big, device).run([x, x])
    assert device.allocate(50 << 20).nbytes == 50 << 20


def test_a_larger_arena_takes_the_place_of_a_smaller_one(device: CudaDevice) -> None:
    x = vector(device)
    for size in (1 << 20, 3 << 20, 2 << 20):
        Executable(program(kernel("double", (0, 0), (2, 0)), arena=size), device).run([x, x])
    assert device.memory_stats().live_blocks == 1
    assert device.memory_stats().held_bytes == 22 << 20  # the small segment with x, and one of 20 MiB


def test_a_program_runs_on_the_current_stream(device: CudaDevice) -> None:
    executable = Executable(adder(), device)
    x = vector(device)
    device.synchronize()
    stream = device.new_stream()
    with device.on_stream(stream):
        (out,) = executable.run([x, x])
    assert device.default_stream.query() and not stream.query()
    address = x.ptr
    del x
    assert device.allocate(NBYTES).ptr != address  # the program may still read it
    stream.synchronize()
    assert address in [b.ptr for b in [device.allocate(NBYTES) for _ in range(2)]]
    with device.on_stream(stream):
        assert values(out) == [4, 8, 12, 16]


def test_counters(device: CudaDevice) -> None:
    executable = Executable(adder(), device)
    x = vector(device)
    COUNTERS.reset()
    executable.run([x, x])
    executable.run([x, x])
    assert counters()["runs"] == 2
    assert counters()["launches"] == 2 * len(adder().launches)


def test_a_launch_that_is_refused(device: CudaDevice, recorder: RecordingDevice) -> None:
    executable = Executable(adder(), device)
    x = vector(device)
    recorder.failing["launch"] = [DriverError("cuLaunchKernel failed: too many resources requested for launch")]
    with pytest.raises(DeviceError) as caught:
        executable.run([x, x])
    assert str(caught.value) == (
        "cuda:0 did not take kernel add of program (user.py:3) with 1 blocks of 32 threads: "
        "cuLaunchKernel failed: too many resources requested for launch"
    )
    (out,) = executable.run([x, x])  # the device goes on
    assert values(out) == [4, 8, 12, 16]


def test_a_launch_that_there_is_no_memory_for(device: CudaDevice, recorder: RecordingDevice) -> None:
    executable = Executable(adder(), device)
    x = vector(device)
    recorder.failing["launch"] = [DriverError("cuLaunchKernel failed: out of memory", out_of_memory=True)]
    with pytest.raises(OutOfMemoryError, match=r"what kernel add of program \(user\.py:3\) needs \(cuLaunchKernel"):
        executable.run([x, x])


def test_code_is_unloaded_when_nothing_runs(device: CudaDevice, recorder: RecordingDevice) -> None:
    executable = Executable(adder(), device)
    x = vector(device)
    (out,) = executable.run([x, x])
    del executable
    assert recorder.count("unload") == 0
    device.synchronize()
    assert recorder.count("unload") == 1
    assert values(out) == [4, 8, 12, 16]


def test_many_dropped_programs_are_unloaded_in_time(device: CudaDevice, recorder: RecordingDevice) -> None:
    for _ in range(600):
        Executable(adder(), device)
    assert recorder.count("unload") > 250
