"""PyTorch's own samples of its operators (`torch.testing`'s OpInfo), given to graphc."""

from __future__ import annotations

import sys
import types
import unittest
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import graphc

torch: Any = pytest.importorskip("torch")
# PyTorch's test helpers are there without what they ask for: a base class of its test cases, which nothing here uses.
sys.modules.setdefault("expecttest", types.SimpleNamespace(TestCase=unittest.TestCase))  # type: ignore[arg-type]
database: Any = pytest.importorskip("torch.testing._internal.common_methods_invocations")


class Missing(Exception):
    """A sample asks for what graphc says that it has not: complex numbers, sparse tensors."""


def operators() -> dict[str, Any]:
    """The operators that graphc has under the same name, by their names."""
    return {
        op.name + (f"/{op.variant_test_name}" if op.variant_test_name else ""): op
        for op in database.op_db
        if function_of(op) is not None
    }


def function_of(op: Any) -> Callable[..., Any] | None:
    """graphc's function for an operator; None where there is none."""
    function = op.op
    if isinstance(function, types.FunctionType) and "testing._internal" in function.__module__:
        # The samples are for a function that turns arguments around before it calls torch's.
        names = {**function.__globals__, "torch": graphc, "F": graphc.nn.functional}
        return types.FunctionType(
            function.__code__, names, function.__name__, function.__defaults__, function.__closure__
        )
    found: Any = graphc
    for part in op.name.split("."):
        found = getattr(found, part, None)
    return found if found is not None else getattr(graphc.Tensor, op.name, None)


def given(value: Any) -> Any:
    """An argument of torch's as graphc's."""
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_complex() or value._is_view():
            raise Missing
        detached = value.detach()
        wide = detached.float() if detached.dtype in (torch.float16, torch.bfloat16) else detached
        made = graphc.tensor(wide.numpy().copy()).to(given(value.dtype))
        return made.requires_grad_() if value.requires_grad else made
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        found = getattr(graphc, str(value).split(".")[-1], None)
        if found is None or getattr(value, "is_complex", False):
            raise Missing
        return found
    if isinstance(value, torch.device):
        return graphc.device(str(value))
    if isinstance(value, list | tuple):
        return type(value)(map(given, value)) if type(value) in (list, tuple) else tuple(map(given, value))
    if isinstance(value, dict):
        return {key: given(item) for key, item in value.items()}
    if isinstance(value, complex | torch.Generator):
        raise Missing
    return value


def parts(value: Any) -> Iterator[Any]:
    """What is in lists, tuples and dictionaries, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from parts(item)
    else:
        yield value
