"""CUDA devices: which there are, what they are, and what is said when there are none."""

from __future__ import annotations

import importlib.abc
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest

from graphc_runtime import Artifact, DeviceUnavailable, Executable, GraphcRuntimeError, LoadError, get_device
from graphc_runtime.devices import cuda
from graphc_runtime.devices.cuda import CudaDevice, register_cuda_driver
from graphc_runtime.devices.cuda_driver import DriverError
from graphc_runtime.devices.cuda_program import cubin_architecture
from graphc_runtime.devices.cuda_pycuda import PyCudaDriver
from tests.runtime.cuda_programs import KERNELS, adder, kernel, program, values, vector
from tests.runtime.native import python
from tests.runtime.recording_driver import FACTS, RecordingDevice, RecordingDriver


@contextmanager
def registered(driver: object) -> Iterator[None]:
    before = register_cuda_driver(driver)  # type: ignore[arg-type]
    try:
        yield
    finally:
        register_cuda_driver(before)


def test_devices_by_name(recorder: RecordingDevice) -> None:
    first, second = get_device("cuda:0"), get_device("cuda:1")
    assert (first.name, second.name) == ("cuda:0", "cuda:1")
    assert first is get_device("cuda:0") is get_device("cuda")
    assert cuda.device_count() == 2 and cuda.is_available() and cuda.why_unavailable() == ""


def test_the_current_device_is_the_thread_s(recorder: RecordingDevice) -> None:
    cuda.set_device(1)
    try:
        assert get_device("cuda").name == "cuda:1"
    finally:
        cuda.set_device(0)
    with pytest.raises(DeviceUnavailable, match="cuda:7"):
        cuda.set_device(7)
    assert cuda.current_device() == 0


@pytest.mark.parametrize("name", ["cuda:2", "cuda:99"])
def test_an_index_beyond_the_devices(recorder: RecordingDevice, name: str) -> None:
    with pytest.raises(DeviceUnavailable, match=f"no device {name}; .*: cuda:0, cuda:1"):
        get_device(name)


@pytest.mark.parametrize("name", ["cuda:", "cuda:-1", "cuda:x", "gpu", "cuda:0 "])
def test_names_of_no_device(name: str) -> None:
    with pytest.raises(GraphcRuntimeError, match="there is no device"):
        get_device(name)


def test_facts_are_plain_numbers(device: CudaDevice) -> None:
    assert device.facts == FACTS
    assert device.facts.architecture == "sm_90"
    assert repr(device) == "CudaDevice(cuda:0, Recorder)"


def test_no_cuda_is_no_error_where_it_is_only_asked_for() -> None:
    with registered(RecordingDriver(missing="there is no driver: install one")):
        assert not cuda.is_available()
        assert cuda.device_count() == 0
        assert cuda.why_unavailable() == "there is no driver: install one"
        with pytest.raises(DeviceUnavailable, match="there is no driver: install one"):
            get_device("cuda:0")


def test_a_machine_without_devices() -> None:
    with registered(RecordingDriver()):
        assert not cuda.is_available()
        assert "no CUDA device" in cuda.why_unavailable()
        with pytest.raises(DeviceUnavailable, match=r"cuda:0; .*: none"):
            get_device("cuda:0")


def test_a_device_that_cannot_be_opened() -> None:
    class Busy(RecordingDriver):
        def open(self, index: int) -> RecordingDevice:
            raise DriverError("cuDevicePrimaryCtxRetain failed: device is busy")

    with registered(Busy(RecordingDevice({}))), pytest.raises(DeviceUnavailable, match=r"cuda:0 .*device is busy"):
        get_device("cuda:0")


class _Importing(importlib.abc.MetaPathFinder):
    """Lets `import pycuda` fail as it does in life."""

    def __init__(self, error: ImportError) -> None:
        self.error = error

    def find_spec(self, name: str, *rest: object) -> None:
        if name.partition(".")[0] == "pycuda":
            raise self.error


IMPORT_ERRORS = {
    "not installed": (ModuleNotFoundError("No module named 'pycuda'"), r"not installed.*pip install -e '\.\[cuda\]'"),
    "no driver": (ImportError("libcuda.so.1: cannot open shared object file"), "no NVIDIA driver.*nvidia-smi"),
    "other build": (ImportError("undefined symbol: cuDeviceGetUuid_v2"), "build it again"),
}


@pytest.mark.parametrize("case", IMPORT_ERRORS)
def test_pycuda_that_cannot_be_imported(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error, message = IMPORT_ERRORS[case]
    for name in [n for n in sys.modules if n.partition(".")[0] == "pycuda"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Importing(error), *sys.meta_path])
    with registered(PyCudaDriver()), pytest.raises(DeviceUnavailable, match=message):
        get_device("cuda:0")


class _CudaError(Exception):
    pass


def _failing(text: str) -> None:
    raise _CudaError(text)


INITIALISED = {
    "no device": (lambda: _failing("cuInit failed: no CUDA-capable device is detected"), 13000, "no CUDA-capable"),
    "old driver": (lambda: None, 12040, r"too old: it serves CUDA 12\.4, .* built with CUDA 13\.0"),
}


@pytest.mark.parametrize("case", INITIALISED)
def test_cuda_that_cannot_be_initialised(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    init, version, message = INITIALISED[case]
    package = ModuleType("pycuda")
    driver = SimpleNamespace(
        Error=_CudaError, init=init, get_driver_version=lambda: version, get_version=lambda: (13, 0, 0)
    )
    package.driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    with registered(PyCudaDriver()):
        assert cuda.device_count() == 0
        with pytest.raises(DeviceUnavailable, match=message):
            get_device("cuda:0")


def test_nothing_of_cuda_is_loaded_before_it_is_asked_for() -> None:
    code = "import sys, graphc_runtime; print(sorted(m for m in sys.modules if m.split('.')[0] in ('pycuda', 'cuda')))"
    assert python(code).stdout.strip() == "[]"


def test_programs_for_the_other_kind_of_device(device: CudaDevice) -> None:
    with pytest.raises(LoadError, match="compiled for a CUDA device, not for the CPU"):
        Executable(adder(), get_device("cpu"))
    native = Artifact("native", (), (), (), 0, (b"",), "main")
    with pytest.raises(LoadError, match="compiled for the CPU, not for cuda:0"):
        Executable(native, device)


def test_more_shared_memory_than_there_is(device: CudaDevice) -> None:
    big = program(kernel("double", (0, 0), (2, 0), shared=300_000), lines=("user.py:7",))
    with pytest.raises(LoadError, match=r"double of program \(user.py:7\) takes 300,000 .* has 232,448"):
        Executable(big, device)


def test_more_blocks_than_there_can_be(device: CudaDevice) -> None:
    with pytest.raises(LoadError, match="4,294,967,296 blocks"):
        Executable(program(kernel("double", (0, 0), (2, 0), blocks=1 << 32)), device)


def test_code_for_another_architecture(device: CudaDevice, recorder: RecordingDevice) -> None:
    recorder.failing["load"] = [DriverError("cuModuleLoadDataEx failed: no kernel image is available")]
    with pytest.raises(LoadError, match=r"cannot be loaded on cuda:0 \(Recorder, sm_90\): .*no kernel image"):
        Executable(adder(), device)


@pytest.mark.parametrize(("version", "flags"), [(7, 0x00500550), (8, 0x06005004)])
def test_the_architecture_of_code_is_named(
    device: CudaDevice, recorder: RecordingDevice, version: int, flags: int
) -> None:
    """Headers as CUDA 12 and CUDA 13 write them."""
    header = b"\x7fELF\x02\x01\x01\x41" + bytes([version]) + bytes(9) + struct.pack("<H28xI", 190, flags) + bytes(12)
    assert cubin_architecture(header) == "sm_80"
    assert cubin_architecture(b"") == cubin_architecture(bytes(64)) == ""
    recorder.failing["load"] = [DriverError("no kernel image is available")]
    with pytest.raises(LoadError, match=r"kernels, made for sm_80, cannot be loaded on cuda:0 \(Recorder, sm_90\)"):
        Executable(adder(objects=(header,)), device)


def test_code_without_a_kernel_that_a_step_names(device: CudaDevice) -> None:
    with pytest.raises(LoadError, match="named symbol not found"):
        Executable(program(kernel("missing", (0, 0))), device)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_is_told_that_cuda_does_not_work_there() -> None:
    code = """
import os, sys
from tests.runtime.cuda_programs import KERNELS, vector
from tests.runtime.recording_driver import RecordingDevice, RecordingDriver
from graphc_runtime import DeviceUnavailable
from graphc_runtime.devices.cuda import cuda_device, register_cuda_driver
register_cuda_driver(RecordingDriver(RecordingDevice(KERNELS)))
device = cuda_device(0)
held = vector(device)
child = os.fork()
if child == 0:
    try:
        vector(device)
    except DeviceUnavailable as error:
        print(error, flush=True)
    del held
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
vector(device)
"""
    done = python(code)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert "cuda:0 cannot be used in a forked process" in first and "spawn" in first
    assert second == "7"


def test_drivers_are_exchanged(recorder: RecordingDevice) -> None:
    before = get_device("cuda:0")
    other = RecordingDevice(KERNELS)
    with registered(RecordingDriver(other)):
        device = cuda.cuda_device(0)
        assert device is not before
        assert values(vector(device, 1, 2, 3, 4)) == [1, 2, 3, 4]
        assert other.count("copy_in") == 1 and recorder.count("copy_in") == 0
