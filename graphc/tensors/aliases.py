"""NumPy's names for arguments, which PyTorch takes too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from graphc.errors import KindError
from graphc.naming import named

_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input"}


def numpy_names(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` that also takes `axis` for `dim`, `keepdims` for `keepdim` and `x` for `input`."""

    @functools.wraps(function)
    def renamed(*args: Any, **kwargs: Any) -> Any:
        for theirs, ours in _NAMES.items() if kwargs else ():
            if theirs in kwargs:
                if ours in kwargs:
                    raise KindError(f"{function.__name__.rstrip('_')}() got both '{theirs}' and '{ours}'")
                kwargs[ours] = kwargs.pop(theirs)
        return function(*args, **kwargs)

    return named(renamed, function.__name__)
