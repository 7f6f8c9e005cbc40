"""Mixed precision: the state of `autocast`, and the conversion of operands while it is on.

`OPEN` is empty while no thread has it on: that is all that a function looks at then.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphc.errors import UsageError
from graphc.ir.types import DType, bf16, f16, f32, f64
from graphc.tensors.casting_lists import ALIASES, LISTS, LOWER, PROMOTE, REFUSED
from graphc.tensors.core import TensorBase, record
from graphc.tensors.learning import AGAIN, MISSED, learned

# The dtypes of lower precision at first, by device. Only the first two have lists of functions.
DTYPES: dict[str, DType] = {
    **{"cpu": bf16, "cuda": f16, "mtia": f16, "maia": bf16, "xpu": f16, "ipu": f16, "hpu": bf16, "xla": bf16},
    **{"privateuseone": f16, "mps": f16},
}

# One entry for each thread in which a device has autocast on.
OPEN: list[object] = []

Key = tuple[tuple[str, DType], ...]


class _State(threading.local):
    """Autocast of one thread: by device whether it is on and its dtype."""

    def __init__(self) -> None:
        self.enabled = dict.fromkeys(DTYPES, False)
        self.dtypes = dict(DTYPES)
        self.cache_enabled = True
        self.nesting = 0
        self.entry: object = None  # in OPEN
        self.device: str | None = None  # of which tensors count; None: each of its own
        # Devices that are on with their dtypes; None when none is, and inside a function that autocast has entered.
        self.key: Key | None = None

    def changed(self) -> None:
        """After `enabled` or `dtypes` changed."""
        self.key = tuple((name, self.dtypes[name]) for name in LISTS if self.enabled[name]) or None
        if self.key is not None and self.entry is None:
            self.entry = object()
            OPEN.append(self.entry)
        elif self.key is None and self.entry is not None:
            OPEN.remove(self.entry)
            self.entry = None


STATE = _State()


@contextmanager
def counting_as(device: str) -> Iterator[None]:
    """Inside, all tensors are converted as those of `device` are ("cuda"), which need not be there."""
    before, STATE.device = STATE.device, device
    try:
        yield
    finally:
        STATE.device = before


@contextmanager
def casting_as(key: Key | None) -> Iterator[None]:
    """Inside, operands are converted as under `key` (`STATE.key` of another time; None: not at all)."""
    before = STATE.key, dict(STATE.enabled), dict(STATE.dtypes)
    on = dict(key or ())
    STATE.enabled.update({name: name in on for name in LISTS})
    STATE.dtypes.update(on)
    STATE.changed()
    try:
        yield
    finally:
        STATE.enabled, STATE.dtypes = before[1], before[2]
        STATE.changed()
        STATE.key = before[0]


def plainly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of a call in which nothing is converted, as of functions that write into tensors."""
    key, STATE.key = STATE.key, None
    try:
        return function(*args, **kwargs)
    finally:
        STATE.key = key


def cast_call(function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`function(*args, **kwargs)` with the operands that autocast wants for the function `name`; what it calls is
    left alone. RuntimeError for functions that PyTorch refuses under autocast.
    """
    key = STATE.key
    if key is None:
        return function(*args, **kwargs)
    name = ALIASES.get(name, name)
    tensors = list(_tensors((*args, *kwargs.values())))
    device = device_type(tensors[0]) if tensors else ""
    lower = dict(key).get(device)
    if lower is None:
        return function(*args, **kwargs)
    if name in REFUSED[device]:
        raise UsageError(REFUSED[device][name])
    policy = LISTS[device].get(name)
    if policy is None:
        return function(*args, **kwargs)
    dtype = lower if policy == LOWER else _widest(tensors, device, lower) if policy == PROMOTE else f32
    args = tuple(_cast(value, device, dtype) for value in args)
    return plainly(function, *args, **{key: _cast(value, device, dtype) for key, value in kwargs.items()})


def autocasts(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which stands in the lists of autocast, with its operands converted while that is on."""
    name = function.__name__

    @functools.wraps(function)
    def _casting(*args: Any, **kwargs: Any) -> Any:
        if OPEN:
            return cast_call(function, name, args, kwargs)
        made = AGAIN[0](function, args, kwargs)
        return learned(function, args, kwargs) if made is MISSED else made

    return _casting


def _tensors(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, TensorBase):
            yield value
        elif isinstance(value, list | tuple):
            yield from (v for v in value if isinstance(v, TensorBase))


def device_type(tensor: Any) -> str:
    """The device as one of whose tensors autocast takes this one."""
    return STATE.device or tensor.device.type


def eligible(tensor: Any, device: str) -> bool:
    """Whether autocast converts a tensor: floats of that device but those of 64 bits."""
    dtype = tensor._type.dtype
    return dtype.is_float and dtype is not f64 and device_type(tensor) == device


def _cast(value: Any, device: str, dtype: DType) -> Any:
    if isinstance(value, TensorBase):
        if not eligible(value, device) or value._type.dtype is dtype:
            return value
        return record("ToCopyBackward0", (value,), lambda b, x: b.cast(x, dtype))
    if type(value) in (list, tuple):
        return type(value)(_cast(v, device, dtype) for v in value)
    return value


def _widest(tensors: list[Any], device: str, lower: DType) -> DType:
    """float32 if an operand is, else the region's dtype; RuntimeError for the other half precision."""
    kinds = {t._type.dtype for t in tensors if eligible(t, device)}
    if f32 in kinds:
        return f32
    if kinds - {lower}:
        raise UsageError("Unexpected floating ScalarType in at::autocast::prioritize")
    return lower
