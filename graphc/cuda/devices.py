"""Which CUDA devices there are, which one is current, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphc.devices import Device
from graphc.errors import CheckError, DeviceError, InputError, UsageError
from graphc.recording import current
from graphc_runtime.devices import cuda as runtime
from graphc_runtime.errors import DeviceUnavailable

# Architectures that code is made for (`graphc/codegen/cuda/facts.py` has their facts).
_ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90")
_OLDEST_TENSOR_CORES_FOR_TF32 = (8, 0)


def is_available() -> bool:
    """Whether tensors can live on a CUDA device. Never an error."""
    return runtime.is_available()


def device_count() -> int:
    """Number of CUDA devices that can be used. Never an error."""
    return runtime.device_count()


def init() -> None:
    """See that CUDA can be used: DeviceError, which says why, if not. Devices are opened when they are used."""
    if not runtime.is_available():
        raise DeviceError(
            f"Torch not compiled with CUDA enabled: graphc runs on 'cpu' ({runtime.why_unavailable()}); "
            "`graphc doctor` says what is missing"
        )


def is_initialized() -> bool:
    """Whether a device was used in this process."""
    return bool(runtime.opened())


def index_of(given: Any, optional: bool = True) -> int:
    """The number of the device that an argument names; None and "cuda" are the current one where `optional`.

    InputError for devices other than CUDA's, and for those without a number where it is wanted.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    named = None if given is None else given if isinstance(given, Device) else Device(given)
    if named is not None and named.type != "cuda":
        raise InputError(f"Expected a cuda device, but got: {given}")
    index = None if named is None else named.index
    if index is not None:
        return index
    if not optional:
        raise InputError(f"Expected a torch.device with a specified index or an integer, but got:{given}")
    return runtime.current_device()


def opened(given: Any = None) -> runtime.CudaDevice:
    """The runtime's device for an argument, opened; DeviceError where CUDA, or that device, cannot be used."""
    init()
    index = index_of(given)
    if not 0 <= index < runtime.device_count():
        raise UsageError(
            f"CUDA error: invalid device ordinal: there is no device cuda:{index}; there are {runtime.device_count()}"
        )
    try:
        return runtime.cuda_device(index)
    except DeviceUnavailable as error:
        raise DeviceError(str(error)) from None


def current_device() -> int:
    """The number of the device that "cuda" means in this thread."""
    init()
    return runtime.current_device()


def set_device(device: Any) -> None:
    """Let "cuda" mean that device in this thread; negative numbers change nothing."""
    index = index_of(device, optional=False)
    if index >= 0:
        runtime.set_device(opened(index).index)


def synchronize(device: Any = None) -> None:
    """Run what is recorded, then wait for all that was begun on the device. Errors of that work are raised here."""
    found = opened(device)
    run_pending("torch.cuda.synchronize()")
    found.synchronize()
    current().late.raise_found()


def run_pending(reason: str) -> None:
    """Begin what is recorded and not yet begun: what comes next is about work of the device."""
    recorder = current()
    if recorder.capture is not None or recorder.has_pending():
        recorder.flush(reason)


class device:
    """Let "cuda" mean that device in a block; None and negative numbers change nothing."""

    def __init__(self, device: Any) -> None:
        self.idx = -1 if device is None else index_of(device)
        self.prev_idx = -1

    def __enter__(self) -> None:
        self.prev_idx = -1
        if self.idx >= 0:
            before = current_device()
            set_device(self.idx)
            self.prev_idx = before

    def __exit__(self, *exception: object) -> bool:
        if self.prev_idx >= 0:
            set_device(self.prev_idx)
        return False


class device_of(device):
    """Let "cuda" mean the device of a tensor in a block; a tensor of the CPU changes nothing."""

    def __init__(self, obj: Any) -> None:
        super().__init__(obj.get_device() if obj.is_cuda else None)


# facts


@dataclass(frozen=True)
class DeviceProperties:
    """What is known of a device. Sizes are in bytes."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    max_threads_per_multi_processor: int
    regs_per_multiprocessor: int
    shared_memory_per_block_optin: int
    shared_memory_per_multiprocessor: int
    L2_cache_size: int
    clock_rate: int  # kHz
    warp_size: int = 32

    @property
    def gcnArchName(self) -> str:
        """The name, as for devices of NVIDIA."""
        return self.name

    def __repr__(self) -> str:
        return (
            f"_CudaDeviceProperties(name='{self.name}', major={self.major}, minor={self.minor}, "
            f"total_memory={self.total_memory >> 20}MB, multi_processor_count={self.multi_processor_count}, "
            f"L2_cache_size={self.L2_cache_size >> 20}MB)"
        )


def get_device_properties(device: Any = None) -> DeviceProperties:
    """What is known of a device. AssertionError for numbers of devices that are not there."""
    init()
    index = index_of(device)
    if not 0 <= index < runtime.device_count():
        raise CheckError(f"Invalid device id: there is no device cuda:{index}; there are {runtime.device_count()}")
    facts = opened(index).facts
    major, minor = divmod(int("".join(c for c in facts.architecture if c.isdecimal())), 10)
    return DeviceProperties(
        facts.name,
        major,
        minor,
        facts.memory,
        facts.multiprocessors,
        facts.threads_per_multiprocessor,
        facts.registers_per_multiprocessor,
        facts.shared_per_block,
        facts.shared_per_multiprocessor,
        facts.l2_bytes,
        facts.clock_khz,
    )


def get_device_name(device: Any = None) -> str:
    """The name that the maker gave the device."""
    return get_device_properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """Major and minor number of the device's architecture: (9, 0) for sm_90."""
    facts = get_device_properties(device)
    return facts.major, facts.minor


def get_arch_list() -> list[str]:
    """Architectures that code is made for; empty where CUDA cannot be used. Later devices run code of the last one."""
    return list(_ARCHITECTURES) if is_available() else []


def get_gencode_flags() -> str:
    """`get_arch_list` as nvcc's flags."""
    numbers = [name.removeprefix("sm_") for name in get_arch_list()]
    return " ".join(f"-gencode compute=compute_{n},code=sm_{n}" for n in numbers)


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether bfloat16 can be computed with: on every device, by float32; in hardware from sm_80 on."""
    return is_available() and (including_emulation or get_device_capability() >= _OLDEST_TENSOR_CORES_FOR_TF32)


def is_tf32_supported() -> bool:
    """Whether the device multiplies matrices in TF32: from sm_80 on."""
    return is_available() and get_device_capability() >= _OLDEST_TENSOR_CORES_FOR_TF32


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """False: kernels read and write memory of their own device only; copies between devices always work."""
    for given in (device, peer_device):
        opened(given)
    return False


def ipc_collect() -> None:
    """Nothing to do: memory of devices is not shared between processes."""
    init()
