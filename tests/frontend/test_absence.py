"""Names that PyTorch has and graphc has not say so."""

from __future__ import annotations

from typing import Any

import pytest

import graphc as torch
from graphc.absence import MODULES, absent_names


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (torch, "quantize_per_tensor", "PyTorch has torch.quantize_per_tensor, graphc does not"),
        (torch, "fft", "PyTorch has torch.fft, graphc has nothing of that module$"),
        (torch, "no_such_thing", "module 'graphc' has no attribute 'no_such_thing'$"),
        (torch.ones(2), "coalesce", "PyTorch has torch.Tensor.coalesce, graphc does not"),
        (torch.ones(2), "no_such_thing", "'Tensor' object has no attribute 'no_such_thing'$"),
    ],
)
def test_a_missing_name_says_whether_pytorch_has_it(owner: Any, name: str, said: str) -> None:
    assert not hasattr(owner, name)
    with pytest.raises(AttributeError, match=said):
        getattr(owner, name)


def test_no_name_is_listed_that_exists() -> None:
    names = absent_names() | MODULES
    there = [name for name in names if "." not in name and hasattr(torch, name)]
    assert not there, f"run python -m tests.differential.document; these exist: {there}"


def test_there_is_no_gpu_to_be_had() -> None:
    assert not torch.cuda.is_available()
    assert torch.cuda.device_count() == 0
