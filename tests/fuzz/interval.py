"""What is known of a value of a random graph: its range, and how far native code may be from the f64 oracle."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.types import DType

# One rounding; for f64 both sides round, by functions of some ulp.
EPSILON = {"f32": 2.0**-24, "f64": 2.0**-51, "f16": 2.0**-11, "bf16": 2.0**-8}
# The largest value worth following, and the largest error (by 1 or the largest value).
LARGEST = {"f32": 1e5, "f64": 1e5, "f16": 1e3, "bf16": 1e5}
LARGEST_ERROR = {"f32": 1e-3, "f64": 1e-3, "f16": 0.05, "bf16": 0.1}


class Rejected(Exception):
    """The node would make errors too large to be worth comparing."""


@dataclass(frozen=True)
class Bound:
    lo: float
    hi: float
    error: float = 0.0

    @property
    def most(self) -> float:
        """The largest absolute value."""
        return max(abs(self.lo), abs(self.hi))


def need(condition: bool) -> None:
    if not condition:
        raise Rejected


def kind_of(dtype: DType) -> str:
    """`float`, `int` (of either signedness) or `bool`."""
    return "int" if dtype.is_integer else dtype.kind


def whole_range(dtype: DType) -> Bound:
    if dtype.kind == "bool":
        return Bound(0, 1)
    return (
        Bound(0, 2.0**dtype.bits - 1)
        if dtype.kind == "uint"
        else Bound(-(2.0 ** (dtype.bits - 1)), 2.0 ** (dtype.bits - 1))
    )


def fit(dtype: DType, lo: float, hi: float, error: float = 0.0) -> Bound:
    """The bound, or every value of the dtype where an integer may wrap around."""
    if dtype.is_float:
        return Bound(lo, hi, error)
    whole = whole_range(dtype)
    return Bound(lo, hi) if whole.lo <= lo and hi < whole.hi else whole


def rounded(dtype: DType, times: float, size: float) -> float:
    """The error of so many roundings of values up to `size`: of 16-bit floats all but the last are in f32."""
    eps = EPSILON.get(dtype.name, 0.0)
    return size * (eps + times * EPSILON["f32"]) if dtype.bits == 16 else times * eps * size


def exactly_held(dtype: DType) -> float:
    """Up to here every integer is a number of the float `dtype`."""
    return {"f16": 2.0**11, "bf16": 2.0**8}.get(dtype.name, 2.0**20)
