"""Layers in 16 bits: products and convolutions with biases, and under autocast, by instructions on matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc import nn
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.cuda.program import combined_steps, program_unit
from graphc.ir.graph import Graph
from graphc.ir.narrow import factor_dtype
from graphc.ir.types import bf16
from graphc.pipeline import build_program, optimize
from graphc.tracing import trace
from tests.cuda.machine import Machine

BF16 = torch.bfloat16


H100 = cuda_target("sm_90")  # whatever device is there: which kernels are chosen depends on it


def kernels(graph: Graph) -> str:
    text = program_unit(build_program(graph, target=H100), H100)
    return text[text.index('extern "C"') :]


def launches(graph: Graph) -> int:
    return sum(bool(step.symbol) for step in combined_steps(build_program(graph, target=H100), H100))


def autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    def under(*args: Any) -> Any:
        with torch.autocast("cuda", dtype=BF16):
            return function(*args)

    return under


def test_a_layer_with_a_bias_is_one_kernel(cuda: Machine) -> None:
    """What PyTorch rounds once is computed in f32 inside; the products are of 16 bits all the same."""
    large = trace(nn.Linear(512, 2048).to("cuda", BF16), torch.empty(2048, 512, device="cuda", dtype=BF16))
    assert launches(large) == 1 and "gc_warp_mma_bf16" in kernels(large)
    x = torch.randn(256, 128).to("cuda", BF16)
    layer = nn.Linear(128, 256).to("cuda", BF16)
    expected = nn.functional.linear(x.cpu().float(), layer.weight.cpu().float(), layer.bias.cpu().float())
    assert torch.allclose(layer(x).float().cpu(), expected, rtol=2**-8, atol=1e-3)


def test_autocast_multiplies_16_bits(cuda: Machine) -> None:
    x, layer = torch.empty(2048, 512, device="cuda"), nn.Linear(512, 2048, device="cuda")
    for bias in (layer.bias, None):
        graph = trace(autocast(lambda x, w, b=bias: nn.functional.linear(x, w, b)), x, layer.weight)
        assert "gc_warp_mma_bf16" in kernels(graph)
        stored = {p.dtype.name for k in build_program(graph, target=H100).kernels for p in k.params}
        assert stored == {"f32", "bf16"}
        assert launches(graph) <= 3, "the factors, and the product"


def test_attention_is_products_of_16_bits(cuda: Machine) -> None:
    """Of scores, and of weights that are rounded as they are: one kernel has both (`test_chains.py`)."""
    attend = nn.functional.scaled_dot_product_attention
    large = kernels(trace(attend, *(torch.empty(8, 12, 512, 64, device="cuda", dtype=BF16) for _ in range(3))))
    assert large.count('extern "C"') == 1 and "gc_warp_mma_bf16" in large
    q, k, v = (torch.randn(2, 4, 64, 64).to("cuda", BF16) for _ in range(3))
    expected = attend(*(t.cpu().float() for t in (q, k, v)))
    assert torch.allclose(attend(q, k, v).float().cpu(), expected, rtol=2**-8, atol=2e-3)


class Network(nn.Module):
    """Convolutions of all kinds: padded, strided, of one place; batch norm, pooling and a shortcut."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.short = nn.Conv2d(16, 32, 1, stride=2)
        self.third = nn.Conv2d(32, 32, 3, padding=1)
        self.out = nn.Linear(32 * (size // 4) ** 2, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.second(x)) + self.short(x)
        x = nn.functional.max_pool2d(torch.relu(self.third(x)), 2)
        return self.out(x.flatten(1))


def trained(device: str, dtype: torch.dtype, compiled: bool) -> tuple[list[float], list[np.ndarray]]:
    """The losses of some steps, and the weights after them."""
    torch.manual_seed(3)
    net = Network(8).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x, y = torch.randn(8, 3, 8, 8).to(device), torch.arange(8).remainder(10).to(device)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=dtype):
            loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run = torch.compile(step) if compiled else step
    losses = [run().item() for _ in range(4)]
    return losses, [p.detach().cpu().numpy() for p in net.parameters()]


@pytest.mark.parametrize(
    ("dtype", "compiled"),
    [
        pytest.param(torch.bfloat16, True, id="bf16 compiled"),
        pytest.param(torch.float16, False, id="f16 loop", marks=pytest.mark.slow),
        pytest.param(torch.bfloat16, False, id="bf16 loop", marks=pytest.mark.slow),
        pytest.param(torch.float16, True, id="f16 compiled", marks=pytest.mark.slow),
    ],
)
def test_training_under_autocast_is_that_of_the_processor(cuda: Machine, dtype: torch.dtype, compiled: bool) -> None:
    """As close as 16 bits are: each value is rounded at the same places, sums are formed in another order."""
    step = 2.0**-7 if dtype is torch.bfloat16 else 2.0**-10
    losses, weights = trained("cuda", dtype, compiled)
    wanted, others = trained("cpu", dtype, compiled)
    np.testing.assert_allclose(losses, wanted, rtol=4 * step)
    assert losses[-1] < losses[0]
    for one, two in zip(weights, others, strict=True):
        np.testing.assert_allclose(one, two, atol=4 * step)


def test_channels_come_last_in_a_network(cuda: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of channels are copied instead of elements under conditions, but for the first picture's three colours."""
    net = Network(32).to("cuda")
    graph = trace(autocast(net), torch.empty(256, 3, 32, 32, device="cuda"))
    counts = {}
    for uses in (0, 1 << 60):
        monkeypatch.setattr("graphc.passes.channels_last.MIN_USES", uses)
        text = kernels(graph)
        counts[uses] = text.count("gc_warp_copy("), text.count("GC_LOAD_IF")
    (copies, loads), (none, before) = counts[0], counts[1 << 60]
    assert copies > none == 0 and 2 * loads < before


def recurrent(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of a layer, and the gradients of its input and weights."""
    out, _ = layer(x)
    (out.float() * torch.linspace(-1, 1, out.shape[-1], device=x.device)).sum().backward()
    return [out.detach(), *(t.grad for t in (x, *layer.parameters()))]  # type: ignore[list-item]


@pytest.mark.parametrize("kind", [nn.LSTM, pytest.param(nn.GRU, marks=pytest.mark.slow)])
def test_steps_of_recurrent_layers_multiply_16_bits(cuda: Machine, kind: Any) -> None:
    """Forward and backward: no product of f32 is left, and results are those of the processor."""
    large = kind(128, 256).to("cuda", BF16)
    graph = trace(recurrent, large, torch.empty(50, 16, 128, device="cuda", dtype=BF16, requires_grad=True))
    products = [n for n in optimize(graph, H100).nodes if n.op == "contract"]
    assert {factor_dtype(n) for n in products} == {bf16}
    torch.manual_seed(3)
    layer, x = kind(24, 32).to(BF16), torch.randn(5, 4, 24).to(BF16)
    on_cpu = recurrent(layer, x.clone().requires_grad_())
    layer.zero_grad()
    on_gpu = recurrent(layer.to("cuda"), x.to("cuda").requires_grad_())
    for one, two in zip(on_gpu, on_cpu, strict=True):
        assert torch.linalg.norm(one.cpu().double() - two.double()) < 2**-8 * torch.linalg.norm(two.double())
