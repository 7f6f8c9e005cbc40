"""Functions of two operands that make floats of integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.ir.types import DType
from graphc.promotion import as_float
from graphc.tensors.calling import binary, not_implemented, simple


def _want_floats(name: str, dtype: DType) -> None:
    if not dtype.is_float:
        raise not_implemented(f"{name}_cpu", dtype)


def _pair(
    op: str, node: str | tuple[str, ...], doc: str, numbers: str = "none", floats: bool = False
) -> Callable[..., Any]:
    text = f"{doc}, broadcast; {'floats only' if floats else 'integers become floats'}."
    check = _want_floats if floats else None
    return binary(op, node, simple(op), text, numbers, None if floats else as_float, check)


atan2 = _pair("atan2", "Atan2Backward0", "The angle of the point (other, input)")
hypot = _pair("hypot", "HypotBackward0", "sqrt(input**2 + other**2)", floats=True)
logaddexp = _pair("logaddexp", "LogaddexpBackward0", "log(exp(input) + exp(other))")
logaddexp2 = _pair("logaddexp2", "Logaddexp2Backward0", "log2(2**input + 2**other)")
xlogy = _pair(
    "xlogy", ("XlogyBackward0", "XlogyBackward2", "XlogyBackward1"), "input * log(other), 0 where input is 0", "either"
)
xlog1py = _pair(
    "xlog1py",
    ("SpecialXlog1PyBackward0", "SpecialXlog1PyBackward2", "SpecialXlog1PyBackward1"),
    "input * log(1 + other), 0 where input is 0",
    "either",
)
