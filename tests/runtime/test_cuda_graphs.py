"""Programs that run again are launched as CUDA graphs, with the results of single launches."""

from __future__ import annotations

import random
import threading

import pytest

from graphc_runtime import DeviceBuffer, Executable
from graphc_runtime.devices.cuda import CudaDevice, cuda_device, register_cuda_driver
from graphc_runtime.devices.cuda_driver import DriverError
from graphc_runtime.options import scope
from tests.runtime.cuda_programs import KERNELS, adder, kernel, program, values, vector
from tests.runtime.recording_driver import RecordingDevice, RecordingDriver


def chain(length: int = 8) -> Executable:
    """out = 2 * (x + y + length - 1), through the arena: kernels only. The last one alone writes the output."""
    first = kernel("add", (0, 0), (1, 0), (3, 0))
    steps = first, *[kernel("increment", (3, 0))] * (length - 1), kernel("double", (3, 0), (2, 0))
    return Executable(program(*steps, arena=64), cuda_device(0))


def expected(x: float, y: float, length: int = 8) -> list[float]:
    return [2 * (x + y + length - 1)] * 4


def test_the_same_buffers_again(device: CudaDevice, recorder: RecordingDevice) -> None:
    executable = Executable(adder(), device)
    x, y, out = vector(device, 1, 1, 1, 1), vector(device, 2, 2, 2, 2), vector(device)
    for _ in range(10):
        executable.run([x, y], [out])
    assert recorder.count("begin_capture") == 1
    assert recorder.count("launch_graph") == 9  # all but the first call, which may have been the only one
    assert recorder.count("launch") == 2 * 2  # of the first call and of the capture
    assert values(out) == [6] * 4


def test_a_loop_that_drops_its_outputs(device: CudaDevice, recorder: RecordingDevice) -> None:
    """New outputs lie in two places in turn: two graphs."""
    executable = chain()
    x, y = vector(device, 1, 1, 1, 1), vector(device, 2, 2, 2, 2)
    out = None
    for _ in range(30):
        (out,) = executable.run([x, y])
    assert out is not None and values(out) == expected(1, 2)
    assert recorder.count("begin_capture") <= 3
    assert recorder.count("launch_graph") >= 27


def test_a_loop_that_keeps_its_outputs(device: CudaDevice, recorder: RecordingDevice) -> None:
    """Each call has an output elsewhere: one kernel of the graph gets another parameter."""
    executable = chain()
    x, y = vector(device), vector(device)
    kept: list[DeviceBuffer] = []
    for i in range(40):
        device.assign(x, vector(device, i, i, i, i))
        kept += executable.run([x, y])
    assert recorder.count("begin_capture") <= 3
    assert recorder.count("update_graph") >= 35
    assert recorder.count("launch_graph") >= 37
    for i, out in enumerate(kept):
        assert values(out) == [2 * (i + v + 7) for v in (1, 2, 3, 4)]


def test_outputs_that_the_user_holds_are_never_written_again(device: CudaDevice) -> None:
    executable = Executable(adder(), device)
    chance = random.Random(1)
    held: list[tuple[DeviceBuffer, list[float]]] = []
    for i in range(200):
        x = vector(device, i, i, i, i)
        (out,) = executable.run([x, x])
        held.append((out, [4.0 * i] * 4))
        chance.shuffle(held)
        del held[chance.randrange(1, 8) :]
        assert all(values(buffer) == numbers for buffer, numbers in held)


def test_a_copy_of_another_place_is_not_a_matter_of_an_update(device: CudaDevice, recorder: RecordingDevice) -> None:
    executable = Executable(adder(), device)  # its last step copies to the output
    x = vector(device, 1, 1, 1, 1)
    kept = [executable.run([x, x])[0] for _ in range(60)]
    assert recorder.count("update_graph") == 0
    assert recorder.count("begin_capture") <= 8
    assert recorder.count("launch_graph") == recorder.count("begin_capture")
    assert all(values(out) == [4] * 4 for out in kept)


def test_a_loop_that_keeps_its_outputs_and_changes_its_inputs_in_turn(
    device: CudaDevice, recorder: RecordingDevice
) -> None:
    """A graph for each set of inputs, and another place for the output in each."""
    executable = chain()
    inputs = [vector(device, i, i, i, i) for i in range(4)]
    kept: list[DeviceBuffer] = []
    for i in range(60):
        kept += executable.run([inputs[i % 4], inputs[(i + 1) % 4]])
    assert recorder.count("begin_capture") <= 4
    assert recorder.count("launch_graph") >= 58
    assert [values(out) for out in kept] == [expected(i % 4, (i + 1) % 4) for i in range(60)]


def test_places_that_come_in_turn(device: CudaDevice, recorder: RecordingDevice) -> None:
    executable = chain()
    inputs = [vector(device, i, i, i, i) for i in range(20)]
    out = device.allocate(16)
    for i in range(400):
        executable.run([inputs[i % 20], inputs[(i + 7) % 20]], [out])
        assert i % 37 or values(out) == expected(i % 20, (i + 7) % 20)
    assert recorder.count("begin_capture") < 60  # captures that do not pay are not made for ever
    graphs = recorder.count("begin_capture") - recorder.count("free_graph")
    assert graphs <= 8


def test_short_programs_are_launched_step_by_step(device: CudaDevice, recorder: RecordingDevice) -> None:
    executable = Executable(program(kernel("add", (0, 0), (1, 0), (2, 0))), device)
    x, out = vector(device), vector(device)
    for _ in range(10):
        executable.run([x, x], [out])
    assert recorder.count("begin_capture") == 0


def test_graphs_can_be_switched_off(device: CudaDevice, recorder: RecordingDevice) -> None:
    executable = Executable(adder(), device)
    x, out = vector(device), vector(device)
    with scope(cuda_graphs=False):
        for _ in range(5):
            executable.run([x, x], [out])
    assert recorder.count("begin_capture") == 0
    for _ in range(5):
        executable.run([x, x], [out])
    assert recorder.count("begin_capture") == 1


def test_a_driver_without_graphs() -> None:
    recorder = RecordingDevice(KERNELS, graphs=False)
    before = register_cuda_driver(RecordingDriver(recorder))
    try:
        device = cuda_device(0)
        executable = Executable(adder(), device)
        x, out = vector(device), vector(device)
        for _ in range(5):
            executable.run([x, x], [out])
        assert recorder.count("launch") == 10 and recorder.count("begin_capture") == 0
    finally:
        register_cuda_driver(before)


@pytest.mark.parametrize("call", ["begin_capture", "end_capture", "launch", "update_graph"])
def test_single_launches_where_a_graph_cannot_be_made(device: CudaDevice, recorder: RecordingDevice, call: str) -> None:
    executable = chain()
    x = vector(device, 1, 1, 1, 1)
    kept = executable.run([x, x])
    if call == "update_graph":
        kept += executable.run([x, x])
    recorder.failing[call] = [DriverError("operation not permitted when stream is capturing")]
    for _ in range(5):
        kept += executable.run([x, x])
    assert all(values(out) == expected(1, 1) for out in kept)
    assert recorder.count(call) > 0 and not recorder.failing[call]
    captures = recorder.count("begin_capture")
    kept += executable.run([x, x])
    assert recorder.count("begin_capture") == captures  # it is not tried again


def test_a_graph_that_there_is_no_memory_for(device: CudaDevice, recorder: RecordingDevice) -> None:
    executable = chain()
    x, out = vector(device, 1, 1, 1, 1), vector(device)
    for _ in range(3):
        executable.run([x, x], [out])
    recorder.failing["launch_graph"] = [DriverError("cuGraphLaunch failed: out of memory", out_of_memory=True)]
    for _ in range(3):
        executable.run([x, x], [out])
    assert values(out) == expected(1, 1)
    assert recorder.count("begin_capture") == 1
    device.synchronize()
    assert recorder.count("free_graph") == 1


def test_graphs_end_with_their_program(device: CudaDevice, recorder: RecordingDevice) -> None:
    executable = Executable(adder(), device)
    x, out = vector(device), vector(device)
    for _ in range(5):
        executable.run([x, x], [out])
    del executable
    assert recorder.count("free_graph") == 0
    device.synchronize()
    assert recorder.count("free_graph") == recorder.count("unload") == 1
    names = [call[0] for call in recorder.calls]
    assert names.index("free_graph") < names.index("unload")


def test_graphs_in_several_threads(device: CudaDevice) -> None:
    executable = chain()
    wrong: list[int] = []

    def work(mark: int) -> None:
        x, y = vector(device, mark, mark, mark, mark), vector(device, 1, 1, 1, 1)
        with device.on_stream(device.new_stream()):
            device.current_stream.wait_stream(device.default_stream)
            for _ in range(60):
                (out,) = executable.run([x, y])
                if values(out) != expected(mark, 1):
                    wrong.append(mark)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
