"""Chains of contractions: attention and what is like it, whose scores are nowhere stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc.codegen.cuda.facts import cuda_target
from graphc.dropping import dropped_node, kept_node
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType, bf16, boolean, f32, i64
from graphc.passes import fuse_chains
from graphc.passes.autodiff import vjp
from graphc.pipeline import schedule
from tests.cuda.machine import Machine
from tests.cuda.test_checks import check as run_checked

pytestmark = pytest.mark.usefixtures("cuda")


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains whatever the number of blocks."""
    monkeypatch.setattr(fuse_chains, "BUSY", 0)


Function = Callable[..., Any]
attention = F.scaled_dot_product_attention
BF16 = graphc.bfloat16


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(len(shapes))
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def values_and_gradients(
    function: Function,
    given: Sequence[np.ndarray],
    device: str,
    dtype: Any = BF16,
    half: Any = BF16,
) -> list[np.ndarray]:
    """What `function` and its gradients are of what `half` holds of the arrays, computed in `dtype`."""
    operands = [graphc.tensor(a).to(half).to(dtype).to(device).requires_grad_() for a in given]

    @graphc.compile
    def both(*operands: Any) -> list[Any]:
        result = function(*operands)
        slopes = graphc.linspace(-1, 1, result.numel(), device=device).reshape(result.shape).to(result.dtype)
        return [result, *graphc.autograd.grad(result, operands, slopes)]

    return [t.detach().float().cpu().numpy() for t in both(*operands)]


def check(function: Function, given: Sequence[np.ndarray], dtype: Any = BF16, error: float = 8e-3) -> None:
    """On the device, in 16 bits, it is what it is on the CPU in f32, relative to the largest element."""
    ours = values_and_gradients(function, given, "cuda", dtype, dtype)
    precise = values_and_gradients(function, given, "cpu", graphc.float32, dtype)
    for number, (got, exact) in enumerate(zip(ours, precise, strict=True)):
        assert np.abs(got - exact).max() <= error * np.abs(exact).max(), number


def by_hand(q: Any, k: Any, v: Any) -> Any:
    return ((q @ k.mT) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def in_a_window(q: Any, k: Any, v: Any) -> Any:
    """Each query sees the 21 keys up to its place."""
    place = graphc.arange(q.shape[-2], device=q.device)
    after = place[:, None] - place
    return attention(q, k, v, (after >= 0) & (after < 21))


PADDED = np.arange(72) < np.array([72, 41])[:, None]
CASES: dict[str, tuple[Function, list[np.ndarray]]] = {
    "plain": (attention, arrays(*[(2, 1, 64, 16)] * 3)),
    "no batch": (attention, arrays((80, 32), (64, 32), (64, 32))),
    "lengths that are no multiples": (attention, arrays((1, 2, 72, 24), (1, 2, 101, 24), (1, 2, 101, 40))),
    "several blocks of rows": (attention, arrays((1, 200, 16), (1, 64, 16), (1, 64, 16))),
    "causal": (lambda q, k, v: attention(q, k, v, is_causal=True), arrays(*[(1, 1, 96, 16)] * 3)),
    "in a window": (in_a_window, arrays(*[(1, 200, 16)] * 3)),
    "padding": (
        lambda q, k, v: attention(q, k, v, graphc.tensor(PADDED, device=q.device).reshape(2, 1, 1, 72)),
        arrays(*[(2, 1, 72, 16)] * 3),
    ),
    "added mask": (
        lambda q, k, v, mask: attention(q, k, v, mask[1:, 3:]),
        arrays(*[(1, 2, 64, 16)] * 3, (65, 67)),
    ),
    "heads that share": (
        lambda q, k, v: attention(q, k, v, enable_gqa=True),
        arrays((1, 4, 64, 16), (1, 2, 64, 16), (1, 2, 64, 16)),
    ),
    "heads side by side": (
        lambda q, k, v: attention(*(x.reshape(64, 2, 2, 16).permute(1, 2, 0, 3) for x in (q, k, v))),
        arrays(*[(64, 2, 32)] * 3),
    ),
    "by hand": (by_hand, arrays(*[(2, 64, 16)] * 3)),
    "shares of columns": (lambda q, k, v: (q @ k.mT).softmax(-2) @ v, arrays(*[(2, 64, 16)] * 3)),
    "wide": (attention, arrays((1, 64, 128), (1, 64, 128), (1, 64, 136))),
    "other shares": (
        lambda q, k, v: ((q @ k.mT).sigmoid() / k.shape[-2]) @ v,
        arrays(*[(2, 64, 16)] * 3),
    ),
}


SLOW = ("no batch", "several blocks of rows", "heads side by side", "wide", "other shares")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CASES])
def test_values_and_gradients(name: str) -> None:
    check(*CASES[name], error=2e-2 if name in ("by hand", "other shares", "shares of columns", "added mask") else 8e-3)


def test_f16() -> None:
    """Gradients of weights as small as f16 hardly holds."""
    check(lambda q, k, v: attention(q, k, v) * 1e-3, arrays(*[(1, 72, 16)] * 3), graphc.float16, 4e-3)


def test_rows_that_see_nothing_are_zero() -> None:
    sees = np.arange(64)[:, None] % 3 > 0
    given = arrays(*[(1, 64, 16)] * 3)
    result, *slopes = values_and_gradients(
        lambda q, k, v: attention(q, k, v, graphc.tensor(sees, device=q.device).expand(64, 64)),
        given,
        "cuda",
    )
    assert np.all(result[:, ::3] == 0) and np.all(slopes[0][:, ::3] == 0)
    assert all(np.isfinite(a).all() for a in (result, *slopes))


def test_rows_of_softmax_that_begin_with_infinities() -> None:
    """What is relative to the largest score so far, where that is -inf for long, or to the end."""
    low = np.zeros((64, 96), np.float32)
    low[::2, :70] = low[5] = -np.inf

    def masked(q: Any, k: Any, v: Any) -> Any:
        scores = (q @ k.mT).float() + graphc.tensor(low, device=q.device)
        top = scores.amax(-1, keepdim=True)
        powers = (scores - top).exp()
        return (powers.to(v.dtype) @ v).float() / powers.sum(-1, keepdim=True)

    given = arrays((1, 64, 16), (1, 96, 16), (1, 96, 16))
    ours, exact = (values_and_gradients(masked, given, d, t)[0] for d, t in (("cuda", BF16), ("cpu", graphc.float32)))
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(exact))
    assert np.isnan(ours).any(-1).sum() == 1
    assert np.nanmax(np.abs(ours - exact)) <= 2e-2 * np.nanmax(np.abs(exact))


def test_what_is_not_finite_spreads_as_far_as_it_does_without() -> None:
    q, k, v = arrays(*[(1, 64, 16)] * 3)
    v[0, 5, 3], k[0, 63, 0], q[0, 9, 2] = np.inf, 1e30, np.nan
    ours = [values_and_gradients(attention, [q, k, v], d, BF16)[0] for d in ("cuda", "cpu")]
    np.testing.assert_array_equal(np.isnan(ours[0]), np.isnan(ours[1]))
    np.testing.assert_array_equal(np.isinf(ours[0]), np.isinf(ours[1]))


def test_dropout(cuda: Machine) -> None:
    """The same elements are dropped as by the reference, in gradients too. Only which these are is stored."""
    graph = step_of_attention(64, 64, 16, drops=True)
    assert {node.dtype for node in scores_in(graph)} == {boolean}
    given = [*((a / 4).astype(bf16.numpy) for a in arrays(*[(64, 16)] * 4)), np.array([3, 0])]
    check_against_reference(cuda.run(graph, given), graph, given)


def test_gradients_of_gradients() -> None:
    def squares(q: Any, k: Any, v: Any) -> Any:
        first = graphc.autograd.grad(attention(q, k, v).float().square().sum(), (q, k, v), create_graph=True)
        return sum(g.float().square().sum() for g in first)

    check(squares, arrays(*[(1, 64, 16)] * 3), error=3e-2)


def test_scores_are_not_stored(cuda: Machine) -> None:
    """Memory is of the size of what goes in and comes out: 128 KiB a matrix, where scores take 2 MiB."""
    given = [graphc.ones(1, 2, 512, 64, dtype=graphc.bfloat16, device="cuda", requires_grad=True) for _ in range(3)]
    slopes = graphc.ones(1, 2, 512, 64, dtype=graphc.bfloat16, device="cuda")
    graphc.cuda.synchronize()
    before = graphc.cuda.memory_allocated()
    graphc.cuda.reset_peak_memory_stats()
    graphc.compile(lambda q, k, v: graphc.autograd.grad(attention(q, k, v), (q, k, v), slopes))(*given)
    assert graphc.cuda.max_memory_allocated() - before < 1 << 20


@pytest.mark.parametrize("function", [lambda q, k, v: attention(q, k, v, is_causal=True), in_a_window])
def test_steps_that_do_not_count_are_left_out(function: Function) -> None:
    """The first rows of a block do not even read what lies behind its last one."""
    q, k, v = (graphc.randn(1, 256, 16, dtype=BF16, device="cuda") for _ in range(3))
    expected = graphc.compile(function)(q, k, v)[:, :64].cpu()
    for x in (k, v):
        x[:, 128:] = math.nan
    assert graphc.equal(graphc.compile(function)(q, k, v)[:, :64].cpu(), expected)


@pytest.mark.parametrize("function", [lambda q, k, v: attention(q, k, v, is_causal=True), in_a_window])
def test_steps_that_come_too_early_are_left_out(function: Function) -> None:
    """Gradients of keys are sums over the queries that see them."""
    q, k, v = (graphc.randn(1, 256, 16, dtype=BF16, device="cuda", requires_grad=True) for _ in range(3))

    @graphc.compile
    def gradient(q: Any, k: Any, v: Any, slopes: Any) -> Any:
        return graphc.autograd.grad(function(q, k, v), v, slopes)[0]

    slopes = graphc.ones(1, 256, 16, dtype=BF16, device="cuda")
    expected = gradient(q, k, v, slopes)[:, 192:].cpu()
    slopes[:, :128] = math.nan
    assert graphc.equal(gradient(q, k, v, slopes)[:, 192:].cpu(), expected)


def step_of_attention(rows: int, steps: int, depth: int, drops: bool = False) -> Graph:
    """Attention of one head and its gradients, in bf16; the last input is the key of what it drops."""
    b = Builder()
    types = [TensorType(bf16, (n, depth)) for n in (rows, steps, steps, rows)]
    q, k, v, slopes = inputs = [b.input(i, type) for i, type in enumerate(types)]
    scores = b.rounded(b.contract(*(b.cast(x, f32) for x in (q, k)), "l e, s e -> l s"), f32, bf16)
    top = b.apply("detach", (b.reduce_max(scores, (1,)),))
    powers = b.exp(b.sub(scores, b.expand_dims(top, (1,), scores.shape)))
    share = b.div(b.constant(1.0, top.type), b.reduce_sum(powers, (1,)))
    if drops:
        inputs.append(b.input(4, TensorType(i64, (2,))))
        powers = dropped_node(b, powers, kept_node(b, powers, inputs[-1], powers.shape, 0.3), 0.3)
    made = b.contract(b.rounded(powers, bf16, f32), b.cast(v, f32), "l s, s f -> l f")
    made = b.cast(b.mul(b.rounded(made, f32, bf16), b.expand_dims(share, (1,), made.shape)), bf16)
    found = vjp(b, [made], [slopes], [q, k, v])
    return Graph(tuple(inputs), (made, *(g for g in found if g is not None)))


def scores_in(graph: Graph) -> list[Node]:
    """The stored values that have an element for each pair of rows of the first two inputs."""
    size = graph.inputs[0].shape[0] * graph.inputs[1].shape[0]
    return [n for g in schedule(graph, cuda_target()).groups for n in g.targets if n.type.size >= size]


def check_against_reference(made: Sequence[np.ndarray], graph: Graph, given: Sequence[np.ndarray]) -> None:
    for got, exact in zip(made, evaluate(graph, given), strict=True):
        wide = exact.astype(np.float32)
        assert np.abs(got.astype(np.float32) - wide).max() <= 2e-2 * np.abs(wide).max()


@pytest.mark.parametrize("sizes", [pytest.param((64, 64, 16), marks=pytest.mark.slow), (72, 100, 24)], ids=str)
def test_accesses_are_in_bounds_and_without_races(checked: Machine, sizes: tuple[int, int, int]) -> None:
    graph = step_of_attention(*sizes)
    assert not scores_in(graph)
    given = [(a / 4).astype(bf16.numpy) for a in arrays(*(i.shape for i in graph.inputs))]
    check_against_reference(run_checked(checked, graph, given), graph, given)
