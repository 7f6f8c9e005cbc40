"""PyTorch's switches of a process: which of them are on, and what they mean here.

Each is kept and told again; what has no effect says so.
"""

from __future__ import annotations

from typing import Any

from graphc.errors import CheckError, KindError, UsageError
from graphc.grad_mode import MODE
from graphc.options import MATMUL_PRECISION
from graphc.warned import warn

_DEBUG_MODES = ("default", "warn", "error")


class _Switches:
    """What is set, for all threads."""

    deterministic = False
    warn_only = False
    warn_always = False
    interop_threads = 0  # not set


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` was told; "highest" at first."""
    return MATMUL_PRECISION.get()


def set_float32_matmul_precision(precision: str) -> None:
    """Allow products of float32 matrices to be less exact: "highest" (not at all), "high" or "medium".

    The latter let products and convolutions on CUDA devices round their operands to TF32 (ten bits of mantissa, to the
    nearest, ties away from zero) where that is faster; sums stay float32. What ran before is compiled anew, or captured
    anew by `graphc.compile`. On the CPU they have no effect. Other words warn and change nothing.
    """
    if not isinstance(precision, str):
        raise UsageError(f"set_float32_matmul_precision expects a str, but got {type(precision).__name__}")
    if precision not in MATMUL_PRECISION.choices:
        warn(
            f"{precision} is not one of 'highest', 'high', or 'medium'; the current setFloat32MatmulPrecision call "
            "has no effect.",
        )
        return
    MATMUL_PRECISION.set(precision)


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Ask for the same results in every run. There is nothing to switch: results never depend on the number or the
    timing of threads here, so nothing raises or warns in this mode.
    """
    for name, value in (("'mode' (position 1)", mode), ("'warn_only'", warn_only)):
        if not isinstance(value, bool):
            raise KindError(
                f"_set_deterministic_algorithms(): argument {name} must be bool, not {type(value).__name__}"
            )
    _Switches.deterministic, _Switches.warn_only = mode, warn_only


def are_deterministic_algorithms_enabled() -> bool:
    """Whether `use_deterministic_algorithms` was asked for; results are the same in every run either way."""
    return _Switches.deterministic


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether it was asked for with `warn_only`."""
    return _Switches.warn_only


def get_deterministic_debug_mode() -> int:
    """0 for default, 1 for warn, 2 for error."""
    return 0 if not _Switches.deterministic else 1 if _Switches.warn_only else 2


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """`use_deterministic_algorithms` by a number or a word: 0 "default", 1 "warn", 2 "error"."""
    if not isinstance(debug_mode, int | str):
        raise KindError(f"debug_mode must be str or int, but got {type(debug_mode)}")
    if isinstance(debug_mode, str):
        if debug_mode not in _DEBUG_MODES:
            raise UsageError(
                f"invalid value of debug_mode, expected one of `default`, `warn`, `error`, but got {debug_mode}"
            )
        debug_mode = _DEBUG_MODES.index(debug_mode)
    if debug_mode not in (0, 1, 2):
        raise UsageError(f"invalid value of debug_mode, expected 0, 1, or 2, but got {debug_mode}")
    use_deterministic_algorithms(debug_mode > 0, warn_only=debug_mode == 1)


def set_flush_denormal(mode: bool) -> bool:
    """False: the smallest floats are never flushed to zero here, as on machines where PyTorch cannot do it."""
    if not isinstance(mode, bool):
        raise UsageError(f"flush_denormal expects a bool, but got {type(mode).__name__}")
    return False


def set_anomaly_enabled(mode: bool, check_nan: bool = True) -> None:
    """Switch anomaly mode, in which gradients are looked at as they are made, and NaN among them is an error."""
    MODE.anomaly, MODE.check_nan = bool(mode), bool(check_nan)


def get_num_interop_threads() -> int:
    """What `set_num_interop_threads` was told, 1 before: programs run one at a time, each on `get_num_threads`."""
    return _Switches.interop_threads or 1


def set_num_interop_threads(num: int) -> None:
    """How many operators may run beside each other: no effect, a program runs its operators one after the other.

    RuntimeError, as in PyTorch, for a second call.
    """
    if isinstance(num, bool) or not isinstance(num, int):
        raise UsageError(f"set_num_interop_threads expects an int, but got {type(num).__name__}")
    if num <= 0:
        raise UsageError("set_num_interop_threads expects a positive integer")
    if _Switches.interop_threads:
        raise UsageError(
            "Error: cannot set number of interop threads after parallel work has started or set_num_interop_threads "
            "called"
        )
    _Switches.interop_threads = num


def set_warn_always(b: bool, /) -> None:
    """Whether warnings that PyTorch gives once are to be given each time. They go through Python's `warnings` each
    time here, whose filters decide; this has no effect.
    """
    if not isinstance(b, bool):
        raise UsageError(f"setWarnOnlyOnce expects a bool, but got {type(b).__name__}")
    _Switches.warn_always = b


def is_warn_always_enabled() -> bool:
    """What `set_warn_always` was told."""
    return _Switches.warn_always


# numbers that may be symbols in PyTorch; here they are plain numbers


def sym_int(a: Any) -> int:
    """`int(a)`."""
    return int(a)


def sym_float(a: Any) -> float:
    """`float(a)`."""
    return float(a)


def sym_not(a: Any) -> bool:
    """`not a`."""
    return not a


def sym_max(a: Any, b: Any) -> Any:
    """The larger number, a float if one of them is."""
    return float(max(a, b)) if isinstance(a, float) or isinstance(b, float) else max(a, b)


def sym_min(a: Any, b: Any) -> Any:
    """The smaller number, a float if one of them is."""
    return float(min(a, b)) if isinstance(a, float) or isinstance(b, float) else min(a, b)


def sym_ite(b: bool, t: Any, f: Any) -> Any:
    """`t` if `b` holds, else `f`; both of one type."""
    if not isinstance(b, bool) or type(t) is not type(f):
        raise CheckError(f"sym_ite expects a bool and two values of one type, got {b!r}, {t!r} and {f!r}")
    return t if b else f


def sym_sqrt(a: Any) -> float:
    """The square root."""
    return float(a) ** 0.5


def sym_sum(args: Any) -> Any:
    """The sum of a list of numbers."""
    return sum(args)


def sym_constrain_range(size: int, *, min: int | None = None, max: int | None = None) -> None:
    """RuntimeError for a number outside of a range."""
    if (min is not None and size < min) or (max is not None and size > max):
        low, high = -(2**63) if min is None else min, 2**63 - 1 if max is None else max
        raise UsageError(f"Invalid value range for {size} between [{low}, {high}].")


def sym_constrain_range_for_size(size: int, *, min: int | None = None, max: int | None = None) -> None:
    """RuntimeError for an extent outside of a range, or below 0."""
    sym_constrain_range(size, min=0 if min is None else min, max=max)
