"""The first samples of every operator on a CUDA device, by the evaluator: values and gradients are the CPU's, and
nothing that an operator makes on its way stays on another device.

What real kernels give is compared by `tests/differential/test_on_device.py`.
"""

from __future__ import annotations

import warnings

import pytest

from tests.differential import test_on_device as on_device
from tests.differential.samples import OPERATORS, Op


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_operator(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "DEVICE", "cuda:1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sample in op.samples[:2]:
            dtype = "float64" if "float64" in op.dtypes else op.dtypes[0]
            grads = bool(op.grads and sample.grads and dtype == "float64")
            wanted = on_device.results(op, sample, dtype, on_device.on_cpu, grads)
            found = on_device.results(op, sample, dtype, on_device.on_device, grads)
            assert len(found) == len(wanted)
            assert all(on_device.close(a, b, op, dtype) for a, b in zip(found, wanted, strict=True))
