"""`torch.backends.cudnn`: switches of a library that graphc does not use. They are kept.

`deterministic` and `benchmark` ask for what is so anyway: results are the same in every run, and schedules are chosen
by a model, or by the search of `graphc.compile(f, tune=seconds)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

enabled = True
benchmark = False
benchmark_limit: int | None = None
deterministic = False
allow_tf32 = True
fp32_precision = "none"


def version() -> int | None:
    """None: there is no cuDNN."""
    return None


def is_available() -> bool:
    """False: there is no cuDNN."""
    return False


def is_acceptable(tensor: object) -> bool:
    """False: nothing goes to cuDNN."""
    return False


def set_flags(
    _enabled: bool | None = None,
    _benchmark: bool | None = None,
    _benchmark_limit: int | None = None,
    _deterministic: bool | None = None,
    _allow_tf32: bool | None = None,
    _fp32_precision: str = "none",
) -> tuple[bool, bool, int | None, bool, bool, str]:
    """Set switches that are not None; what all of them were."""
    global enabled, benchmark, benchmark_limit, deterministic, allow_tf32, fp32_precision
    before = (enabled, benchmark, benchmark_limit, deterministic, allow_tf32, fp32_precision)
    enabled = enabled if _enabled is None else _enabled
    benchmark = benchmark if _benchmark is None else _benchmark
    benchmark_limit = benchmark_limit if _benchmark_limit is None else _benchmark_limit
    deterministic = deterministic if _deterministic is None else _deterministic
    allow_tf32 = allow_tf32 if _allow_tf32 is None else _allow_tf32
    fp32_precision = _fp32_precision
    return before


@contextmanager
def flags(
    enabled: bool = False,
    benchmark: bool = False,
    benchmark_limit: int | None = 10,
    deterministic: bool = False,
    allow_tf32: bool = True,
    fp32_precision: str = "none",
) -> Iterator[None]:
    """The switches inside a block."""
    before = set_flags(enabled, benchmark, benchmark_limit, deterministic, allow_tf32, fp32_precision)
    try:
        yield
    finally:
        set_flags(*before)
