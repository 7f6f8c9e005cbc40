"""Products of bf16 in pairs: when they are taken, what is stored for them, and results."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import graphc
from graphc.codegen.llvm.host import host_target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.parser import parse_graphs
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, bf16, f16, f32, pbf16
from graphc.ir.verify import verify
from graphc.options import scope
from graphc.passes.layout import Layout
from graphc.passes.minimal_filtering import MinimalFiltering
from graphc.passes.pair_products import PairProducts
from graphc.pipeline import graph_passes, stage_text
from tests.codegen.programs import run
from tests.codegen.targets import AVX512, runnable

Ints = tuple[int, ...]
ANY = PairProducts(min_uses=0)
WITH = replace(AVX512, features=f"+avx512bf16,{AVX512.features}")


def graph_of(spec: str, x: Ints, y: Ints, widened: bool = True, dtype=bf16) -> Graph:
    """A contraction of two inputs; `widened`: they are converted to f32 first, as layers do."""
    b = Builder()
    inputs = tuple(b.input(k, TensorType(dtype, shape), "xy"[k]) for k, shape in enumerate((x, y)))
    operands = [b.cast(x, f32) if widened else x for x in inputs]
    return Graph(inputs, (b.contract(operands[0], operands[1], spec),))


def arrays_for(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n.shape).astype(np.float32).astype(n.dtype.numpy) for n in graph.inputs]


def contraction(graph: Graph) -> Node:
    (found,) = (n for n in graph.nodes if n.op == "contract")
    return found


CASES = {
    "rows and columns": ("m k, k n -> m n", (5, 16), (16, 9)),
    "both along the sum": ("m k, n k -> m n", (33, 40), (20, 40)),
    "neither along the sum": ("k m, k n -> m n", (24, 17), (24, 35)),
    "an odd sum": ("m k, k n -> m n", (6, 15), (15, 18)),
    "a sum of three": ("m k, k n -> m n", (4, 3), (3, 4)),
    "a batch": ("b m k, b k n -> b m n", (3, 8, 6), (3, 6, 20)),
    "two labels": ("b s k, b s n -> k n", (4, 7, 9), (4, 7, 16)),
    "a convolution": ("b c h+r w+s, o c r s -> b o h w", (2, 6, 9, 11), (5, 6, 3, 3)),
    "its gradient by weights": ("b c h+r w+s, b o h w -> o c r s", (4, 3, 8, 9), (4, 5, 6, 7)),
    "strides": ("b c 2h+r 2w+s, o c r s -> b o h w", (2, 4, 9, 11), (5, 4, 3, 3)),
    "a vector": ("m k, k -> m", (37, 64), (64,)),
}


@pytest.mark.parametrize("widened", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_results(case: str, widened: bool) -> None:
    graph = graph_of(*CASES[case], widened)
    made = ANY.run(graph)
    verify(made)
    node = contraction(made)
    assert [x.dtype for x in node.inputs] == [pbf16, pbf16] and node.dtype is f32
    arrays = arrays_for(graph)
    (wanted,) = evaluate(graph, arrays)
    tolerance = 1e-5 if widened else 2**-7
    for (found,) in (evaluate(made, arrays), run(made, arrays)):
        assert found.dtype == wanted.dtype
        scale = np.abs(wanted.astype(np.float64)).max()
        np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("case", CASES)
def test_whole_numbers_are_exact(case: str, target: str) -> None:
    """Every product is taken once: of small whole numbers no sum is rounded."""
    graph = graph_of(*CASES[case])
    rng = np.random.default_rng(1)
    arrays = [rng.integers(-8, 9, n.shape).astype(bf16.numpy) for n in graph.inputs]
    (wanted,) = evaluate(graph, arrays)
    (found,) = run(ANY.run(graph), arrays, runnable()[target])
    assert (found == wanted).all()


def test_the_text_is_read_back() -> None:
    made = ANY.run(graph_of("m k, k n -> m n", (4, 6), (6, 8)))
    text = print_graph(made.name, made.inputs, made.nodes, made.outputs)
    assert "pbf16[3,8]" in text
    (again,) = parse_graphs(text)
    verify(again)
    assert print_graph(again.name, again.inputs, again.nodes, again.outputs) == text


def test_operands_are_stored_in_their_order() -> None:
    """A transposed operand is not transposed for the sake of pairs."""
    b = Builder()
    x = b.input(0, TensorType(bf16, (64, 48)), "x")
    y = b.input(1, TensorType(bf16, (32, 48)), "y")
    turned = b.permute(b.cast(y, f32), (1, 0))
    made = ANY.run(Graph((x, y), (b.contract(b.cast(x, f32), turned, "m k, k n -> m n"),)))
    right = contraction(made).inputs[1]
    assert right.op == "permute" and right.inputs[0].op == "materialize" and right.inputs[0].shape == (32, 24)


def test_an_operand_is_stored_once() -> None:
    b = Builder()
    inputs = tuple(b.input(k, TensorType(bf16, (64, 64)), n) for k, n in enumerate("xyz"))
    x, y, z = (b.cast(node, f32) for node in inputs)
    made = ANY.run(Graph(inputs, tuple(b.contract(x, other, "m k, k n -> m n") for other in (y, z))))
    assert sum(n.op == "materialize" for n in made.nodes) == 3


@pytest.mark.parametrize(
    "graph",
    [
        graph_of("m k, k n -> m n", (8, 64), (64, 64)),  # too few products for what is stored
        graph_of("m k, k n -> m n", (128, 1), (1, 128)),  # a sum of one
        graph_of("m, n -> m n", (256,), (256,)),  # no sum
        graph_of("m k, k n -> m n", (128, 128), (128, 128), dtype=f16),
        graph_of("m k, k n -> m n", (128, 128), (128, 128), widened=False, dtype=f32),
    ],
)
def test_others_stay(graph: Graph) -> None:
    assert PairProducts().run(graph) is graph


def test_f32_times_bf16_stays() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (128, 128)), "x")
    y = b.input(1, TensorType(bf16, (128, 128)), "y")
    graph = Graph((x, y), (b.contract(x, b.cast(y, f32), "m k, k n -> m n"),))
    assert PairProducts().run(graph) is graph


def test_only_where_the_processor_multiplies_pairs() -> None:
    def has(target, **options: bool) -> bool:
        with scope(**options):
            return any(isinstance(p, PairProducts) for p in graph_passes(target))

    assert WITH.pairs and not AVX512.pairs
    assert has(WITH) and not has(AVX512) and not has(WITH, bf16_pairs=False)


def test_they_come_before_filtering_and_after_the_layout() -> None:
    kinds = [type(p) for p in graph_passes(WITH)]
    assert kinds.index(Layout) < kinds.index(PairProducts) < kinds.index(MinimalFiltering)


def test_the_instruction_is_used() -> None:
    graph = graph_of("m k, k n -> m n", (256, 256), (256, 256))
    assert "dpbf16ps" in stage_text(graph, "llvm", target=WITH)
    assert "dpbf16ps" not in stage_text(graph, "llvm", target=AVX512)


def test_networks_agree() -> None:
    """The gradients of a network under autocast are the same but for rounding, if this machine multiplies pairs."""
    x = graphc.randn(64, 96, generator=graphc.Generator().manual_seed(1))
    net = graphc.nn.Sequential(graphc.nn.Linear(96, 130), graphc.nn.Tanh(), graphc.nn.Linear(130, 64))
    gradients = []
    for pairs in (True, False):
        net.zero_grad()
        with scope(bf16_pairs=pairs), graphc.autocast("cpu", dtype=graphc.bfloat16):
            loss = net(x).float().square().mean()
            loss.backward()
            gradients.append([p.grad.numpy().copy() for p in net.parameters()])
    for found, wanted in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2**-6 * np.abs(wanted).max())


def test_pairs_of_arrays() -> None:
    """The first of two numbers is the lower half."""
    b = Builder()
    pair = TensorType(pbf16, (1,))
    x, y = (b.input(k, pair, n) for k, n in enumerate("xy"))
    graph = Graph((x, y), (b.contract(x, y, "k, k ->"),))
    numbers = [np.array(n, ml_dtypes.bfloat16).view(np.int32) for n in ([2, 3], [5, 7])]
    assert evaluate(graph, numbers)[0] == 31 and graph.outputs[0].dtype is f32
    assert host_target().lanes(pbf16.itemsize) == host_target().lanes(4)


def test_readers_share_what_storing_costs() -> None:
    """Weights that many products of few rows read are stored once: the steps of a recurrence."""
    for steps in (1, 8):
        b = Builder()
        inputs = tuple(b.input(k, TensorType(bf16, (4, 64)), f"x{k}") for k in range(steps))
        weights = b.input(steps, TensorType(bf16, (64, 256)), "w")
        w = b.cast(weights, f32)
        made = tuple(b.contract(b.cast(x, f32), w, "m k, k n -> m n") for x in inputs)
        graph = Graph((*inputs, weights), made)
        paired = PairProducts().run(graph)
        assert sum(n.op == "materialize" for n in paired.nodes) == (0 if steps == 1 else steps + 1)
