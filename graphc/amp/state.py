"""Autocast of this thread as PyTorch's functions tell and set it, device by device."""

from __future__ import annotations

from graphc import dtypes
from graphc.devices import Device
from graphc.errors import KindError, UsageError
from graphc.tensors.casting import DTYPES, STATE
from graphc.warned import warn


def _checked(name: str, device_type: object, otherwise: str) -> str:
    """A device that PyTorch has autocast for; RuntimeError `otherwise`, and for words that are no device."""
    if not isinstance(device_type, str):
        raise KindError(f"{name}(): argument 'device_type' (position 1) must be str, not {type(device_type).__name__}")
    if Device(device_type).type not in DTYPES:
        raise UsageError(otherwise)
    return device_type


_UNKNOWN = "unknown device type for autocast in get_autocast_dispatch_key_from_device_type"


def is_autocast_available(device_type: str) -> bool:
    """Whether PyTorch has autocast for a type of device: RuntimeError for words that are no device."""
    return Device(device_type).type in DTYPES


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether autocast is on for a type of device in this thread."""
    return STATE.enabled[_checked("is_autocast_enabled", device_type, _UNKNOWN)]


def set_autocast_enabled(device_type: str | bool, enabled: bool | None = None) -> None:
    """Switch autocast on or off; with one argument, a bool, for "cuda"."""
    if enabled is None and isinstance(device_type, bool):
        device_type, enabled = "cuda", device_type
    if not isinstance(enabled, bool):
        raise KindError(
            f"set_autocast_enabled(): argument 'enabled' (position 2) must be bool, not {type(enabled).__name__}"
        )
    STATE.enabled[_checked("set_autocast_enabled", device_type, _UNKNOWN)] = enabled
    STATE.changed()


def get_autocast_dtype(device_type: str) -> dtypes.dtype:
    """The dtype of operators that run in lower precision."""
    return dtypes.public(STATE.dtypes[_checked("get_autocast_dtype", device_type, "unsupported scalarType")])


def set_autocast_dtype(device_type: str, dtype: dtypes.dtype) -> None:
    """Choose the dtype of operators that run in lower precision."""
    if not isinstance(dtype, dtypes.dtype):
        raise KindError(
            f"set_autocast_dtype(): argument 'dtype' (position 2) must be torch.dtype, not {type(dtype).__name__}"
        )
    STATE.dtypes[_checked("set_autocast_dtype", device_type, "unsupported scalarType")] = dtype.ir
    STATE.changed()


def is_autocast_cache_enabled() -> bool:
    """Whether conversions are to be remembered. Equal conversions are one value of the program here, in any case."""
    return STATE.cache_enabled


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Keep what `is_autocast_cache_enabled` tells."""
    if not isinstance(enabled, bool):
        raise KindError(f"enabled must be a bool (got {type(enabled).__name__})")
    STATE.cache_enabled = enabled


def clear_autocast_cache() -> None:
    """Nothing to do: see `is_autocast_cache_enabled`."""


def autocast_increment_nesting() -> int:
    """One more region is open: how many there are."""
    STATE.nesting += 1
    return STATE.nesting


def autocast_decrement_nesting() -> int:
    """One region less."""
    STATE.nesting -= 1
    return STATE.nesting


# The older names, one for each device. PyTorch warns of them.


def _old(name: str, instead: str) -> None:
    warn(f"torch.{name} is deprecated. Please use torch.{instead} instead.", DeprecationWarning)


def is_autocast_cpu_enabled() -> bool:
    """`is_autocast_enabled("cpu")`."""
    _old("is_autocast_cpu_enabled()", "is_autocast_enabled('cpu')")
    return is_autocast_enabled("cpu")


def set_autocast_cpu_enabled(enabled: bool) -> None:
    """`set_autocast_enabled("cpu", enabled)`."""
    _old("set_autocast_cpu_enabled(enabled)", "set_autocast_enabled('cpu', enabled)")
    set_autocast_enabled("cpu", enabled)


def get_autocast_cpu_dtype() -> dtypes.dtype:
    """`get_autocast_dtype("cpu")`."""
    _old("get_autocast_cpu_dtype()", "get_autocast_dtype('cpu')")
    return get_autocast_dtype("cpu")


def set_autocast_cpu_dtype(dtype: dtypes.dtype) -> None:
    """`set_autocast_dtype("cpu", dtype)`."""
    _old("set_autocast_cpu_dtype(dtype)", "set_autocast_dtype('cpu', dtype)")
    set_autocast_dtype("cpu", dtype)


def get_autocast_gpu_dtype() -> dtypes.dtype:
    """`get_autocast_dtype("cuda")`."""
    _old("get_autocast_gpu_dtype()", "get_autocast_dtype('cuda')")
    return get_autocast_dtype("cuda")


def set_autocast_gpu_dtype(dtype: dtypes.dtype) -> None:
    """`set_autocast_dtype("cuda", dtype)`."""
    _old("set_autocast_gpu_dtype(dtype)", "set_autocast_dtype('cuda', dtype)")
    set_autocast_dtype("cuda", dtype)
