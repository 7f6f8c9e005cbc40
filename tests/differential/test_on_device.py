"""The samples of every operator on a CUDA device, beside the CPU: values, dtypes, gradients.

With GRAPHC_TEST_DEVICE=cuda (`make test-cuda`) they run on the machine's GPU, else they are skipped.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AutodiffError
from tests.differential.samples import OPERATORS, Op
from tests.differential.samples.base import Sample

DEVICE = os.environ.get("GRAPHC_TEST_DEVICE", "")

pytestmark = pytest.mark.skipif(not DEVICE.startswith("cuda"), reason="GRAPHC_TEST_DEVICE=cuda is not set")


def on_cpu(library: Any, array: np.ndarray) -> Any:
    return library.tensor(array)


def on_device(library: Any, array: np.ndarray) -> Any:
    return library.tensor(array, device=DEVICE)


def places(value: Any) -> Iterator[Any]:
    """The tensors in a result."""
    if isinstance(value, graphc.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from places(item)
    elif isinstance(value, dict):
        yield from places(list(value.values()))


def results(op: Op, sample: Sample, dtype: str, layout: Any, grads: bool) -> list[Any]:
    """Tensors that a call gives and, with `grads`, the gradients of their weighted sum, all on the CPU."""
    calls = pytest.importorskip("tests.differential.calls")
    graphc.manual_seed(3)
    call = calls.make_call(graphc, sample, dtype, layout, grads)
    made = calls.invoke(graphc, op.name, call)
    found = list(places(op.canonical(graphc, made) if op.canonical is not None else made))
    gradients: list[Any] = []
    wanted = [t for t in found if t.requires_grad]
    if grads and wanted and call.leaves:
        total = sum((t.double() * (1 + t.detach().double().cos())).sum().cpu() for t in wanted)
        with contextlib.suppress(AutodiffError):  # some results of an operator may have none
            gradients = list(graphc.autograd.grad(total, call.leaves, allow_unused=True))
    return [None if t is None else t.detach().cpu() for t in (*found, *gradients)]


def close(found: Any, wanted: Any, op: Op, dtype: str) -> bool:
    """Whether two tensors are the same up to the order of sums."""
    if found is None or wanted is None:
        return found is wanted
    if found.dtype is not wanted.dtype or found.shape != wanted.shape:
        return False
    a, b = (t.float().numpy() if t.element_size() == 2 else t.numpy() for t in (found, wanted))
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    rtol = max(op.rtol, 1e-9) if wanted.dtype is graphc.float64 else 2e-5 * op.slack
    scale = float(np.abs(b[np.isfinite(b)]).max(initial=0))
    return bool(np.isclose(a, b, rtol=rtol, atol=rtol * max(scale, 1e-3), equal_nan=True).all())


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_operator(op: Op) -> None:
    problems: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, sample in enumerate(op.samples):
            for dtype in op.dtypes:
                grads = bool(op.grads and sample.grads and dtype == "float64")
                wanted = results(op, sample, dtype, on_cpu, grads)
                found = results(op, sample, dtype, on_device, grads)
                if len(found) != len(wanted) or not all(
                    close(a, b, op, dtype) for a, b in zip(found, wanted, strict=True)
                ):
                    problems.append(f"sample {number}, {dtype}: {found}\n  on the CPU: {wanted}")
    assert not problems, "\n".join(problems)
