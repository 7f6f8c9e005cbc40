"""Programs that say what they see, run with PyTorch and with graphc: both must say the same."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import graphc
from tests.differential.compare import kind_of, message, torch

Say = Callable[..., None]
Program = Callable[[Any, Say], None]


def shown(value: Any) -> str:
    """A value as text: tensors with their dtype and four digits, exceptions with type and message."""
    if isinstance(value, torch.Tensor | graphc.Tensor):
        return f"{value.dtype} {rounded(value.tolist())}"
    if isinstance(value, BaseException):
        return f"{kind_of(value)}: {re.sub('0x[0-9a-f]+', '0x', message(value))}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(shown(v) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {shown(v)}' for k, v in value.items())}}}"
    return str(value if not isinstance(value, float) else rounded(value))


def rounded(value: Any) -> Any:
    """Nested numbers with four significant digits, six behind the point."""
    if isinstance(value, list):
        return [rounded(v) for v in value]
    if isinstance(value, float) and math.isfinite(value):
        return round(float(f"{value:.3e}"), 6) + 0.0
    return value


def told(library: Any, program: Program) -> list[str]:
    """What `program(library, say)` says, with the warnings of the library's own kinds."""
    lines: list[str] = []

    def say(*values: Any) -> None:
        lines.append(" ".join(shown(v) for v in values))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program(library, say)
    return lines


def attempt(say: Say, function: Callable[[], Any]) -> None:
    """Say the result of `function` or its error."""
    try:
        say(function())
    except Exception as error:
        say(error)


def same(program: Program) -> None:
    """Assert that a program says the same with both libraries."""
    wanted = told(torch, program)
    assert wanted, "a program must say something"
    found = told(graphc, program)
    for got, want in zip(found, wanted, strict=False):
        assert got == want, f"\ngraphc says  {got}\nPyTorch says {want}"
    assert len(found) == len(wanted)
