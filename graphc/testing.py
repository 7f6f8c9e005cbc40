"""`assert_close`, under PyTorch's name: whether results are the same up to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import CheckError, InputError, KindError
from graphc.tensors.core import TensorBase
from graphc.tensors.literals import tensor
from graphc.type_rules import promote_types

# Relative and absolute tolerance by dtype; whole numbers and bools must be equal.
_TOLERANCES = {
    dtypes.float16: (1e-3, 1e-5),
    dtypes.bfloat16: (1.6e-2, 1e-5),
    dtypes.float32: (1.3e-6, 1e-5),
    dtypes.float64: (1e-7, 1e-7),
}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """AssertionError unless |actual - expected| <= atol + rtol * |expected| everywhere, for tensors, numbers, NumPy
    arrays, and sequences and mappings of them. Without tolerances those of the dtype hold, the larger of two.

    Shapes must be equal; dtypes, devices and strides as far as they are checked. All layouts are strided here.
    TypeError for what cannot be compared.
    """
    if (rtol is None) != (atol is None):
        missing = "atol" if atol is None else "rtol"
        raise InputError(f"rtol and atol must both be specified or both be unspecified, but got no {missing}")
    checks = {"device": check_device, "dtype": check_dtype, "stride": check_stride}
    for path, mine, other in _pairs("", actual, expected, allow_subclasses):
        problem = _compare(mine, other, rtol, atol, equal_nan, checks)
        if problem:
            text = problem + (f"\n\nThe failure occurred for item {path}" if path else "")
            raise CheckError(text if msg is None else msg(text) if callable(msg) else msg)


def _pairs(path: str, actual: Any, expected: Any, subclasses: bool) -> Iterator[tuple[str, Any, Any]]:
    """The leaves of both, side by side, with the indices that lead to them."""
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if actual.keys() != expected.keys():
            raise CheckError(
                f"The keys of the mappings do not match: {sorted(map(str, actual))} and {sorted(map(str, expected))}"
            )
        for key in actual:
            yield from _pairs(f"{path}[{key!r}]", actual[key], expected[key], subclasses)
    elif _is_sequence(actual) and _is_sequence(expected):
        if len(actual) != len(expected):
            raise CheckError(f"The length of the sequences do not match: {len(actual)} != {len(expected)}")
        for place, (mine, other) in enumerate(zip(actual, expected, strict=True)):
            yield from _pairs(f"{path}[{place}]", mine, other, subclasses)
    elif not subclasses and type(actual) is not type(expected):
        raise KindError(f"{type(actual)} and {type(expected)} are not the same class")
    else:
        yield path, actual, expected


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _compare(
    actual: Any, expected: Any, rtol: float | None, atol: float | None, equal_nan: bool, checks: Mapping[str, bool]
) -> str:
    """What differs, or nothing."""
    if actual is None or expected is None:
        return "" if actual is expected else f"None mismatch: {actual} is not {expected}"
    numbers = isinstance(actual, int | float)
    mine, other = _tensor(actual), _tensor(expected)
    kinds = [isinstance(actual, kind) == isinstance(expected, kind) for kind in (TensorBase, int | float)]
    if mine is None or other is None or not all(kinds):
        raise KindError(f"No comparison pair was able to handle inputs of type {type(actual)} and {type(expected)}.")
    if mine.shape != other.shape:
        return f"The values for attribute 'shape' do not match: {mine.shape} != {other.shape}."
    for name in ("device", "dtype", "stride"):
        seen = [getattr(t, name)() if name == "stride" else getattr(t, name) for t in (mine, other)]
        if checks[name] and not numbers and seen[0] != seen[1]:
            return f"The values for attribute '{name}'{'()' * (name == 'stride')} do not match: {seen[0]} != {seen[1]}."
    if rtol is None or atol is None:
        found = [_TOLERANCES.get(t.dtype, (0.0, 0.0)) for t in (mine, other)]
        rtol, atol = max(r for r, _ in found), max(a for _, a in found)
    common = promote_types(mine.dtype, other.dtype)
    wide = dtypes.float64 if common.is_floating_point else common
    left, right = (t.detach().cpu().to(wide).numpy() for t in (mine, other))
    return _differences(left, right, rtol, atol, equal_nan, numbers)


def _tensor(value: Any) -> Any:
    """A number or an array as a tensor, None for what is neither."""
    if isinstance(value, TensorBase):
        return value
    if isinstance(value, bool | int | float | np.ndarray | np.generic):
        return tensor(value, dtype=dtypes.float64) if isinstance(value, float) else tensor(value)
    return None


def _differences(
    actual: np.ndarray, expected: np.ndarray, rtol: float, atol: float, equal_nan: bool, numbers: bool
) -> str:
    close = np.equal(actual, expected)
    if actual.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            apart = np.abs(actual - expected)
            close |= np.isfinite(apart) & (apart <= atol + rtol * np.abs(expected))
        if equal_nan:
            close |= np.isnan(actual) & np.isnan(expected)
    elif rtol or atol:
        apart = np.abs(actual.astype(object) - expected.astype(object))
        close |= (apart <= atol + rtol * np.abs(expected.astype(object))).astype(bool)
    if close.all():
        return ""
    kind = "Scalars" if numbers or not actual.ndim else "Tensor-likes"
    equal = not rtol and not atol
    head = f"{kind} are not {'equal' if equal else 'close'}!"
    if not actual.ndim:
        return f"{head}\n\nExpected {expected.item()} but got {actual.item()}." + _allowed(rtol, atol)
    wrong = np.argwhere(~close)
    share = 100 * len(wrong) / close.size
    place = tuple(int(i) for i in wrong[0])
    return (
        f"{head}\n\nMismatched elements: {len(wrong)} / {close.size} ({share:.1f}%)\n"
        f"First of them at index {place}: {actual[place]} instead of {expected[place]}\n"
        f"Greatest absolute difference: {_greatest(actual, expected, close)}{_allowed(rtol, atol)}"
    )


def _allowed(rtol: float, atol: float) -> str:
    return f" (up to {atol} absolute and {rtol} relative allowed)" if rtol or atol else ""


def _greatest(actual: np.ndarray, expected: np.ndarray, close: np.ndarray) -> str:
    with np.errstate(invalid="ignore"):
        apart = np.abs(np.where(close, 0, actual.astype(np.float64) - expected.astype(np.float64)))
    place = tuple(int(i) for i in np.unravel_index(np.argmax(np.nan_to_num(apart, nan=np.inf)), apart.shape))
    return f"{apart[place]} at index {place}"
