"""Functions made of several operators that compute with f16 and bf16 in f32 throughout."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from graphc.ir.types import f32
from graphc.tensors.core import TensorBase, record
from graphc.tensors.halves import HALVES


def in_single(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which gives a tensor or a list of them, with half precision operands in f32 and its results rounded.

    Operands of several float dtypes are left as they are.
    """

    @functools.wraps(function)
    def widened(*args: Any, **kwargs: Any) -> Any:
        dtypes = {
            a._type.dtype for a in (*args, *kwargs.values()) if isinstance(a, TensorBase) and a._type.dtype.is_float
        }
        if len(dtypes) != 1 or not dtypes <= set(HALVES):
            return function(*args, **kwargs)
        (dtype,) = dtypes

        def wide(value: Any) -> Any:
            if isinstance(value, TensorBase) and value._type.dtype is dtype:
                return record("ToCopyBackward0", (value,), lambda b, x: b.cast(x, f32))
            return value

        def narrow(value: Any) -> Any:
            history = value._lineage.hist
            name = "" if history is None else history.name
            return record(name, (value,), lambda b, x: b.cast(x, dtype))

        made = function(*map(wide, args), **{k: wide(v) for k, v in kwargs.items()})
        return narrow(made) if isinstance(made, TensorBase) else [narrow(m) for m in made]

    return widened
