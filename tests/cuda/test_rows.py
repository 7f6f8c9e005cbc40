"""Rows that a block of threads works on: each thread has neighbours, which it loads and stores at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as torch
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.cuda.program import program_unit
from graphc.nn import functional as F
from graphc.pipeline import build_program
from graphc.tracing import trace
from tests.cuda.machine import Machine

H100 = cuda_target("sm_90")
Function = Callable[[torch.Tensor], torch.Tensor]


def normed(x: torch.Tensor) -> torch.Tensor:
    ramp = torch.linspace(-1, 2, x.shape[-1], device=x.device).to(x.dtype)
    return F.layer_norm(x, (x.shape[-1],), ramp, ramp.flip(0))


def in_half(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1).to(torch.float16)


FUNCTIONS: dict[str, Function] = {
    "softmax": lambda x: torch.softmax(x, -1),
    "layer_norm": normed,
    "sum": lambda x: x.sum(-1),
    "total": lambda x: (x * x).sum(),
    "amax": lambda x: torch.amax(x - 1, -1),
    "softmax in f16": in_half,
    "places": lambda x: x * torch.arange(x.shape[-1], device=x.device) - x.mean(-1, keepdim=True),
    "row of another": lambda x: x - torch.logsumexp(x[:1], -1, keepdim=True),
    "argmax": lambda x: x.round().argmax(-1),  # of which there are several
    "any": lambda x: (x > 3).any(-1),
}


def unit(function: Function, *shape: int, dtype: torch.dtype = torch.float32) -> str:
    graph = trace(function, torch.empty(shape, device="cuda", dtype=dtype))
    text = program_unit(build_program(graph, target=H100), H100)
    return text[text.index('extern "C"') :]


@pytest.mark.parametrize(
    ("dtype", "run"), [(torch.float32, 4), (torch.float64, 2), (torch.float16, 8), (torch.bfloat16, 8)], ids=str
)
@pytest.mark.parametrize("columns", [8192, 1 << 16], ids=["held in registers", "read again"])
@pytest.mark.parametrize("name", ["softmax", "sum"])
def test_neighbours_are_one_access(cuda: Machine, name: str, columns: int, dtype: torch.dtype, run: int) -> None:
    text = unit(FUNCTIONS[name], 2048, columns, dtype=dtype)
    kind = {4: "float", 2: "double", 8: "unsigned short"}[run]
    single = [line for line in text.splitlines() if "p0[" in line and "gc_vector" not in line]
    assert f"*(const gc_vector<{kind}, {run}>*)&p0[" in text and not single
    assert ("*(gc_vector<" in text) == (name == "softmax")


@pytest.mark.parametrize("columns", [2044, 1000, 2047])
def test_rows_that_no_thread_can_share_so_stay(cuda: Machine, columns: int) -> None:
    assert "gc_vector" not in unit(FUNCTIONS["softmax"], 512, columns)


def test_rows_that_are_read_across_stay(cuda: Machine) -> None:
    """Neighbours of a transposed row, or of one that is picked from elsewhere, do not lie side by side."""
    assert "gc_vector" not in unit(lambda x: torch.softmax(x + x.t(), -1), 2048, 2048)
    order = torch.randperm(2048, device="cuda")
    assert "gc_vector" not in unit(lambda x: torch.softmax(x[:, order], -1), 2048, 2048)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("columns", [512, 768, 1024, 9 * 1024, 1 << 16])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.share(3)
def test_results_are_those_of_the_processor(cuda: Machine, name: str, columns: int, dtype: torch.dtype) -> None:
    rows = 3 if columns > 1024 else 33
    x = torch.tensor(np.random.default_rng(5).standard_normal((rows, columns))).to(dtype)
    got, expected = FUNCTIONS[name](x.to("cuda")).cpu(), FUNCTIONS[name](x)
    assert got.dtype == expected.dtype and got.shape == expected.shape
    if not expected.is_floating_point():
        assert torch.equal(got, expected)
    else:
        spacing = torch.finfo(min(expected.dtype, dtype, key=lambda d: torch.finfo(d).bits)).eps
        assert torch.allclose(got.double(), expected.double(), rtol=8 * spacing, atol=32 * spacing * columns**0.5)
