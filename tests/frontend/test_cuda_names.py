"""`graphc.cuda`: its answers without a device, beside PyTorch's words, and over devices that only record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import graphc
from graphc_runtime.devices.cuda import cuda_device, current_device, register_cuda_driver, set_device
from graphc_runtime.devices.cuda_driver import DriverError
from graphc_runtime.errors import DeviceLost
from tests.runtime.recording_driver import FACTS, ILLEGAL, RecordingDevice, RecordingDriver

cuda: Any = graphc.cuda
accelerator: Any = graphc.accelerator


@pytest.fixture
def nothing() -> Iterator[None]:
    before = register_cuda_driver(RecordingDriver(missing="no driver here, install one"))
    yield
    register_cuda_driver(before)


@pytest.fixture
def devices() -> Iterator[tuple[RecordingDevice, RecordingDevice]]:
    """Two devices; the second is of an older kind."""
    two = RecordingDevice({}), RecordingDevice({})
    two[1].facts = replace(FACTS, name="Older", architecture="sm_75", multiprocessors=40)
    before = register_cuda_driver(RecordingDriver(*two))
    yield two
    set_device(0)
    for index in range(2):
        cuda_device(index).set_stream(cuda_device(index).default_stream)
    register_cuda_driver(before)


ANSWERS: dict[str, tuple[Callable[[], Any], Any]] = {
    "is_available": (lambda: cuda.is_available(), False),
    "device_count": (lambda: cuda.device_count(), 0),
    "is_initialized": (lambda: cuda.is_initialized(), False),
    "memory": (lambda: (cuda.memory_allocated(), cuda.max_memory_allocated("cpu"), cuda.memory_reserved(3)), (0, 0, 0)),
    "memory_stats": (lambda: dict(cuda.memory_stats()), {}),
    "empty_cache": (lambda: cuda.empty_cache(), None),
    "seeds": (lambda: (cuda.manual_seed(1), cuda.manual_seed_all(2), cuda.seed_all()), (None, None, None)),
    "get_rng_state_all": (lambda: cuda.get_rng_state_all(), []),
    "set_rng_state": (lambda: cuda.set_rng_state(graphc.zeros(16, dtype=graphc.uint8)), None),
    "architectures": (lambda: (cuda.get_arch_list(), cuda.get_gencode_flags()), ([], "")),
    "supported": (lambda: (cuda.is_bf16_supported(), cuda.is_tf32_supported()), (False, False)),
    "accelerator": (
        lambda: (accelerator.is_available(), accelerator.device_count(), accelerator.memory_allocated()),
        (False, 0, 0),
    ),
    "current_accelerator": (
        lambda: (accelerator.current_accelerator(), accelerator.current_accelerator(check_available=True)),
        (graphc.device("cuda"), None),
    ),
    "a negative device": (lambda: cuda.set_device(-1), None),
    "no stream": (lambda: cuda.stream(None).__enter__(), None),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_without_a_device(name: str, nothing: None) -> None:
    call, wanted = ANSWERS[name]
    assert call() == wanted


REFUSED: dict[str, Callable[[], Any]] = {
    "current_device": lambda: cuda.current_device(),
    "synchronize": lambda: cuda.synchronize(),
    "set_device": lambda: cuda.set_device(0),
    "init": lambda: cuda.init(),
    "mem_get_info": lambda: cuda.mem_get_info(),
    "get_device_name": lambda: cuda.get_device_name(),
    "get_device_properties": lambda: cuda.get_device_properties("cuda:0"),
    "get_rng_state": lambda: cuda.get_rng_state(),
    "current_stream": lambda: cuda.current_stream(),
    "Stream": lambda: cuda.Stream(),
    "Event": lambda: cuda.Event(),
    "a block": lambda: cuda.device(0).__enter__(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_a_device_says_why_there_is_none(name: str, nothing: None) -> None:
    with pytest.raises(AssertionError, match=r"Torch not compiled with CUDA enabled.*no driver here, install one"):
        REFUSED[name]()
    with pytest.raises(RuntimeError, match="graphc doctor"):
        REFUSED[name]()


def test_the_current_device(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    assert cuda.is_available() and cuda.device_count() == 2 and not cuda.is_initialized()
    assert cuda.current_device() == 0
    with cuda.device(1):
        assert cuda.current_device() == 1 == current_device()
        with cuda.device(None), cuda.device("cuda:0"), cuda.device(-1):
            assert cuda.current_device() == 0
        assert cuda.current_device() == 1
    cuda.set_device("cuda:1")
    assert cuda.current_device() == 1 and cuda.is_initialized()
    for wrong, text in (
        ("cpu", "Expected a cuda device, but got: cpu"),
        ("cuda", "Expected a torch.device with a specified index or an integer, but got:cuda"),
        (None, "Expected a torch.device with a specified index or an integer, but got:None"),
    ):
        with pytest.raises(ValueError, match=text):
            cuda.set_device(wrong)
    with pytest.raises(RuntimeError, match="invalid device ordinal: there is no device cuda:2; there are 2"):
        cuda.set_device(2)


def test_facts(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    assert cuda.get_device_name() == "Recorder" and cuda.get_device_name(1) == "Older"
    assert cuda.get_device_capability() == (9, 0) and cuda.get_device_capability("cuda:1") == (7, 5)
    found = cuda.get_device_properties(0)
    assert (found.multi_processor_count, found.total_memory, found.warp_size) == (132, 1 << 30, 32)
    assert repr(found).startswith("_CudaDeviceProperties(name='Recorder', major=9, minor=0, total_memory=1024MB")
    with pytest.raises(AssertionError, match="Invalid device id"):
        cuda.get_device_properties(7)
    assert cuda.is_bf16_supported() and cuda.is_tf32_supported()
    with cuda.device(1):
        assert cuda.is_bf16_supported() and not cuda.is_bf16_supported(including_emulation=False)
        assert not cuda.is_tf32_supported()
    assert "sm_90" in cuda.get_arch_list() and "code=sm_90" in cuda.get_gencode_flags()
    assert cuda.can_device_access_peer(0, 1) is False


def test_memory(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    assert cuda.memory_allocated() == cuda.memory_reserved() == 0
    device = cuda_device(0)
    kept = device.allocate(3 << 20)
    held = device.allocate(1 << 20)
    assert cuda.memory_allocated() == 4 << 20 and cuda.memory_allocated(1) == 0
    del held
    assert cuda.memory_allocated() == 3 << 20 and cuda.max_memory_allocated("cuda:0") == 4 << 20
    cuda.reset_peak_memory_stats()
    assert cuda.max_memory_allocated() == 3 << 20 <= cuda.memory_reserved() <= cuda.max_memory_reserved()
    stats = cuda.memory_stats()
    assert stats["allocated_bytes.all.current"] == 3 << 20 and stats["segment.all.current"] >= 1
    free, total = cuda.mem_get_info()
    assert total == 1 << 30 and free < total
    assert "3,145,728" in cuda.memory_summary()
    assert len(cuda.memory_summary(abbreviated=True).splitlines()) <= 8
    del kept
    cuda.empty_cache()
    assert cuda.memory_reserved() == 0
    with pytest.raises(ValueError, match="Expected a cuda device, but got: cpu"):
        cuda.memory_allocated("cpu")
    with pytest.warns(FutureWarning, match="renamed to `torch.cuda.memory_reserved`"):
        assert cuda.memory_cached() == 0


def test_out_of_memory(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    assert graphc.OutOfMemoryError is cuda.OutOfMemoryError
    with pytest.raises(cuda.OutOfMemoryError) as caught:
        cuda_device(0).allocate(1 << 40)
    assert isinstance(caught.value, RuntimeError)


def test_streams(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    first = cuda.current_stream()
    assert first == cuda.default_stream() and first.cuda_stream == 0
    assert repr(first) == "<torch.cuda.Stream device=cuda:0 cuda_stream=0x0>"
    side, other = cuda.Stream(), cuda.Stream(device="cuda:1")
    assert side != first and side.device == graphc.device("cuda:0") and other.device_index == 1
    with cuda.stream(side):
        assert cuda.current_stream() == side
        with cuda.stream(other):
            assert cuda.current_device() == 1 and cuda.current_stream() == other
            assert cuda.current_stream(0) == side
        assert cuda.current_device() == 0 and cuda.current_stream() == side
    assert cuda.current_stream() == first
    cuda.set_stream(side)
    assert cuda.current_stream() == side
    cuda.set_stream(first)
    with cuda.stream(None):
        assert cuda.current_stream() == first
    assert not cuda.is_current_stream_capturing()
    with cuda.stream(side):
        made = graphc.tensor([1.0, 2.0], device="cuda")
        assert made.tolist() == [1, 2]
    copies = {call[-1] for call in devices[0].calls if call[0] in ("copy_in", "copy_out")}
    assert copies == {side.runtime.handle}


def test_the_accelerator_is_cuda(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    device = accelerator.current_accelerator() if accelerator.is_available() else "cpu"
    x = graphc.ones(4, device=device)
    x.data_ptr()
    assert x.is_cuda and accelerator.memory_allocated() > 0 and accelerator.get_memory_info() == cuda.mem_get_info()
    with accelerator.device_index(1):
        assert accelerator.current_device_index() == accelerator.current_device_idx() == cuda.current_device() == 1
        assert accelerator.current_stream() == cuda.current_stream()
    accelerator.synchronize()
    assert graphc.bfloat16 in accelerator.get_device_capability()["supported_dtypes"]
    with pytest.raises(RuntimeError, match="there is no device cuda:2"):
        accelerator.set_device_index(2)


def test_a_part_of_the_memory(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    assert cuda.get_per_process_memory_fraction() == 1 and cuda.get_allocator_backend() == "native"
    cuda.set_per_process_memory_fraction(0.1, "cuda:1")
    assert cuda.get_per_process_memory_fraction(1) == 0.1 and cuda.get_per_process_memory_fraction(0) == 1
    allowed = int(0.1 * FACTS.memory)
    held = graphc.ones(allowed // 8, device="cuda:1")
    held.data_ptr()
    with pytest.raises(cuda.OutOfMemoryError, match=rf"and {allowed:,} that it may hold"):
        graphc.zeros(allowed // 4, device="cuda:1").data_ptr()
    graphc.zeros(allowed // 4, device="cuda:0").data_ptr()
    cuda.set_per_process_memory_fraction(1.0, 1)
    graphc.zeros(allowed // 4, device="cuda:1").data_ptr()
    with pytest.raises(TypeError, match="must be `float`"):
        cuda.set_per_process_memory_fraction(1)
    with pytest.raises(ValueError, match="Allowed range: 0~1"):
        cuda.set_per_process_memory_fraction(1.5)


def test_a_missing_name_says_whether_pytorch_has_it() -> None:
    with pytest.raises(AttributeError, match=r"PyTorch has torch\.cuda\.CUDAGraph, graphc does not"):
        _ = cuda.CUDAGraph
    with pytest.raises(AttributeError, match=r"PyTorch has torch\.accelerator\.Graph, graphc does not"):
        _ = accelerator.Graph
    assert not hasattr(cuda, "no_such_thing")


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    version: Any = graphc.version
    assert version.__version__ == graphc.__version__ and version.hip is None and version.debug is False
    monkeypatch.setattr(version, "compiler_version", lambda: "NVRTC 13.0")
    assert version.cuda == "13.0"

    def missing() -> str:
        raise graphc.errors.CompileError("no CUDA compiler")

    monkeypatch.setattr(version, "compiler_version", missing)
    assert version.cuda is None
    with pytest.raises(AttributeError, match=r"module 'graphc\.version' has no attribute 'rocm_version'"):
        _ = version.rocm_version


def test_a_stream_is_a_context_manager(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    before, side = cuda.current_stream(), cuda.Stream()
    with side as entered, cuda.Stream("cuda:1") as other:
        assert entered is side
        assert cuda.current_stream() == other and cuda.current_stream("cuda:0") == side
        with pytest.raises(ValueError, match="gone wrong"), side:
            assert cuda.current_device() == 0
            raise ValueError("gone wrong")
        assert cuda.current_stream() == other
    assert cuda.current_stream() == before


def test_memory_waits_for_streams_that_were_recorded(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    side, x = cuda.Stream(), graphc.ones(8, device="cuda")
    address = x.data_ptr()
    x.record_stream(side)
    side.record_event()  # what another library puts there
    del x
    first = graphc.ones(8, device="cuda")
    assert first.data_ptr() != address, "the stream is not done"
    side.synchronize()
    assert graphc.ones(8, device="cuda").data_ptr() == address
    with pytest.raises(NotImplementedError, match="on the CPU has to do with no stream"):
        graphc.ones(2).record_stream(side)
    with pytest.raises(TypeError, match="must be Stream, not int"):
        first.record_stream(7)
    with pytest.raises(RuntimeError, match="the tensor is on cuda:0, the stream is one of cuda:1"):
        first.record_stream(cuda.Stream("cuda:1"))


def test_events_and_the_order_of_streams(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    side = cuda.Stream()
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    assert start.query() and start.device is None
    start.record()
    end.record(side)
    side.wait_event(start)
    side.wait_stream(cuda.current_stream())
    assert not end.query()
    cuda.synchronize()
    assert start.query() and end.query() and side.query() and start.device == graphc.device("cuda:0")
    assert start.elapsed_time(end) > 0
    assert side.record_event().query() is False
    side.synchronize()
    with pytest.raises(NotImplementedError, match="events are not shared between processes"):
        cuda.Event(interprocess=True)


def test_a_device_that_was_lost(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    first = cuda_device(0)
    block = first.allocate(512)
    devices[0].failing["synchronize"] = [DriverError(ILLEGAL, sticky=True)]
    with pytest.raises(DeviceLost, match="cuda:0 is lost"):
        cuda.synchronize()
    assert cuda.memory_allocated() == block.nbytes  # it can be asked still
    cuda.synchronize(1)


def test_seeds(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    state = graphc.get_rng_state()
    try:
        cuda.manual_seed(7)
        wanted = graphc.rand(4)
        kept = cuda.get_rng_state_all()
        later = graphc.rand(4)
        cuda.set_rng_state_all(kept)
        assert graphc.equal(graphc.rand(4), later) and cuda.initial_seed() == 7
        graphc.manual_seed(7)
        assert graphc.equal(graphc.rand(4), wanted)
    finally:
        graphc.set_rng_state(state)


def test_recorded_work_is_begun_before_the_device_is_waited_for(
    devices: tuple[RecordingDevice, RecordingDevice],
) -> None:
    x = graphc.ones(3)
    y = x * 2
    assert y._storage.value is not None
    cuda.synchronize()
    assert y._storage.value is None and y.tolist() == [2, 2, 2]


def test_autocast_for_devices_that_are_there(devices: tuple[RecordingDevice, RecordingDevice]) -> None:
    with graphc.autocast("cuda") as region:
        assert region._enabled and graphc.is_autocast_enabled() and graphc.get_autocast_dtype("cuda") is graphc.float16
        assert graphc.mm(graphc.ones(2, 2), graphc.ones(2, 2)).dtype is graphc.float32  # of the CPU
    assert graphc.amp.GradScaler().is_enabled()


def test_switches_of_backends() -> None:
    b: Any = graphc.backends
    assert b.cuda.matmul.allow_tf32 is False and graphc.get_float32_matmul_precision() == "highest"
    try:
        b.cuda.matmul.allow_tf32 = True
        assert graphc.get_float32_matmul_precision() == "high"
        graphc.set_float32_matmul_precision("highest")
        assert b.cuda.matmul.allow_tf32 is False and b.cuda.matmul.fp32_precision == "ieee"
        b.cuda.matmul.fp32_precision = "tf32"
        assert graphc.get_float32_matmul_precision() == "high"
    finally:
        graphc.set_float32_matmul_precision("highest")
    with pytest.raises(AttributeError, match="Unknown attribute foo"):
        b.cuda.matmul.foo = 1
    with pytest.raises(TypeError, match="expects a bool"):
        b.cuda.matmul.allow_tf32 = 3
    with b.cudnn.flags(enabled=False, benchmark=True):
        assert b.cudnn.benchmark and not b.cudnn.enabled
    assert b.cudnn.enabled and not b.cudnn.benchmark and b.cudnn.version() is None
    assert not (b.mps.is_available() or b.mkl.is_available() or b.cudnn.is_available())
    assert b.cuda.is_built() == cuda.is_available()
    assert b.cpu.get_cpu_capability() in ("AVX512", "AVX2", "DEFAULT")
