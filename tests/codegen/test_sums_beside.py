"""Sums over the same large values are one kernel of a GPU, which reads them once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

import graphc as torch
import graphc.nn.functional as F
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.package import Program
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType, f32
from graphc.passes import fuse_beside
from graphc.pipeline import build_program
from graphc.tracing import trace
from tests.codegen.gpu_programs import gpu_program, run_for_gpu

H100 = cuda_target("sm_90")
LARGE = (128, 64, 56, 56)
Emit = Callable[[Builder, Node, Node], Sequence[Node]]


def graph_of(emit: Emit, *shape: int) -> Graph:
    b = Builder()
    x, y = (b.input(i, TensorType(f32, shape)) for i in range(2))
    return Graph((x, y), tuple(emit(b, x, y)))


def two(b: Builder, x: Node, y: Node) -> Sequence[Node]:
    return b.reduce_sum(b.mul(x, y), (1, 3)), b.reduce_max(b.exp(x), (1, 3)), b.reduce_sum(x, (1, 3))


def row_by_row(b: Builder, x: Node, y: Node) -> Sequence[Node]:
    total = b.reduce_sum(x, (1, 3))
    return total, b.reduce_sum(b.sub(x, b.expand_dims(b.mul(total, 0.001), (1, 3), x.shape)), (1, 3))


def other_axes(b: Builder, x: Node, y: Node) -> Sequence[Node]:
    return b.reduce_sum(x, (1, 3)), b.reduce_sum(x, (1, 2))


def reading(program: Program, least: int) -> int:
    """How many launches go over so many bytes."""
    return sum(record.bytes >= least for record in program.records)


@pytest.mark.parametrize(("emit", "kernels"), [(two, 1), (row_by_row, 1), (other_axes, 2)])
def test_sums_beside_each_other_are_one_kernel(monkeypatch: pytest.MonkeyPatch, emit: Emit, kernels: int) -> None:
    monkeypatch.setattr(fuse_beside, "LARGE", 64)
    graph = graph_of(emit, 3, 20, 5, 30)
    assert len(gpu_program(graph).kernels) == kernels
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(x.shape).astype(np.float32) for x in graph.inputs]
    for got, wanted in zip(run_for_gpu(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-3)


def test_at_most_so_many_are_one_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse_beside, "LARGE", 64)

    def many(b: Builder, x: Node, y: Node) -> Sequence[Node]:
        return [b.reduce_sum(b.mul(x, float(k)), (1, 3)) for k in range(2, 2 + 2 * fuse_beside.MOST)]

    assert len(gpu_program(graph_of(many, 3, 20, 5, 30)).kernels) == 2


def test_a_batch_norm_and_its_gradients_go_over_it_four_times() -> None:
    """Once for the mean, once for the variance, once for all sums of the gradients, and once for what they give."""

    def slopes(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor | None]:
        x, w, b = (t.requires_grad_() for t in (x, w, b))
        F.batch_norm(x, None, None, w, b, training=True).square().sum().backward()
        return [x.grad, w.grad, b.grad]

    graph = trace(slopes, torch.empty(LARGE), torch.empty(64), torch.empty(64))
    assert reading(build_program(graph, target=H100), 4 * int(np.prod(LARGE))) == 4


def test_deviations_from_a_mean_are_not_summed() -> None:
    """They are 0: the gradient of a variance has one sum, that of the mean."""

    def slope(x: torch.Tensor) -> torch.Tensor:
        (made,) = torch.autograd.grad(x.requires_grad_().var(), x)
        return made

    graph = trace(slope, torch.empty(40, 50))
    ops = [node.op for node in graph.nodes if node.op.startswith("reduce") and node.inputs[0].type.size == 2000]
    assert len(ops) <= 2


def test_gradients_of_higher_order_are_those_of_the_variance() -> None:
    values = np.linspace(-1, 2, 7)
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(x.var(correction=0), x, create_graph=True)
    np.testing.assert_allclose(first.detach().numpy(), 2 * (values - values.mean()) / 7, atol=1e-15)
    rows = [torch.autograd.grad(first[i], x, retain_graph=True)[0].numpy() for i in range(7)]
    np.testing.assert_allclose(np.stack(rows), 2 / 7 * (np.eye(7) - 1 / 7), atol=1e-15)
