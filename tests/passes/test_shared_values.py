"""Values that several stored ones want: which are stored as well, and which computed again."""

from __future__ import annotations

import pytest

from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.llvm.host import host_target
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType, bf16, f32
from graphc.passes.autodiff import vjp
from graphc.pipeline import schedule

TARGETS = [pytest.param(host_target(), id="cpu"), pytest.param(cuda_target("sm_90"), id="sm_90")]
ROWS, WIDTH, OUT = 512, 256, 1024


def stored(graph: Graph, target: Target) -> list[str]:
    """The types of what kernels store, but for small values."""
    nodes = [node for group in schedule(graph, target).groups for node in group.targets]
    return sorted(f"{node.dtype} {node.type.size}" for node in nodes if node.type.size >= ROWS * WIDTH)


def linear(b: Builder, x: Node, w: Node, bias: Node | None, shape: tuple[int, ...]) -> Node:
    """A layer in 16 bits that is computed in f32, as `tensors/halves.py` makes it."""
    made = b.reshape(b.contract(b.cast(x, f32), b.cast(w, f32), "m k, o k -> m o"), shape)
    if bias is not None:
        made = b.add(made, b.broadcast(b.cast(bias, f32), shape))
    return b.cast(made, bf16)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", [(ROWS, OUT), (8, ROWS // 8, OUT)], ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_the_result_of_a_layer_in_16_bits_is_stored_in_them(
    target: Target, shape: tuple[int, ...], biased: bool
) -> None:
    b = Builder()
    x, w = (b.input(i, TensorType(bf16, s)) for i, s in enumerate(((ROWS, WIDTH), (OUT, WIDTH))))
    bias = b.input(2, TensorType(bf16, (OUT,)))
    made = linear(b, x, w, bias if biased else None, shape)
    wide = b.cast(made, f32)
    results = [b.reduce_sum(b.apply(op, (wide,)), (len(shape) - 1,)) for op in ("tanh", "exp", "sin")]
    sizes = ROWS * WIDTH, OUT * WIDTH
    factors = {f"bf16 {sizes[0]}"}
    if target.device == "cpu":
        factors |= {f"pbf16 {n // 2}" for n in sizes} if target.pairs else {f"f32 {n}" for n in sizes}
    large = set(stored(Graph((x, w, bias), tuple(results)), target))
    assert large - factors == {f"bf16 {ROWS * OUT}"}


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_cheap_is_made_of_what_is_stored_anyway(target: Target) -> None:
    """The derivative of a GELU wants tanh and tanh + 1."""
    b = Builder()
    x, slope = (b.input(i, TensorType(f32, (ROWS, OUT))) for i in range(2))
    t = b.apply("tanh", (b.mul(x, b.add(b.mul(x, x), 0.5)),))
    y = b.mul(x, b.add(t, 1.0))
    far = b.input(2, TensorType(f32, (OUT, WIDTH)))  # between both there is a product, so they are two kernels
    between = b.contract(y, far, "m k, k o -> m o")
    back = b.contract(b.mul(between, between), far, "m o, k o -> m k")
    (dx,) = vjp(b, (y,), (b.mul(back, slope),), (x,))
    assert dx is not None
    large = stored(Graph((x, slope, far), (dx,)), target)
    assert large.count(f"f32 {ROWS * OUT}") == 3  # y, tanh and the gradient, which the second product ends in


@pytest.mark.parametrize("target", TARGETS)
def test_layer_norm_keeps_its_input_alone(target: Target) -> None:
    b = Builder()
    a, c, d = (b.input(i, TensorType(f32, (ROWS, OUT))) for i in range(3))
    weight = b.input(3, TensorType(f32, (OUT,)))
    w = b.input(4, TensorType(f32, (OUT, OUT)))
    x = b.add(b.add(a, c), d)  # which the rest of the network reads too
    mean = b.mul(b.reduce_sum(x, (1,)), 1 / OUT)
    centred = b.sub(x, b.expand_dims(mean, (1,), x.shape))
    deviation = b.apply("sqrt", (b.add(b.mul(b.reduce_sum(b.mul(centred, centred), (1,)), 1 / OUT), 1e-5),))
    normed = b.mul(centred, b.expand_dims(b.apply("div", (b.constant(1.0, deviation.type), deviation)), (1,), x.shape))
    y = b.mul(normed, b.broadcast(weight, x.shape))
    out = b.add(x, b.contract(y, w, "m k, o k -> m o"))
    slopes = vjp(b, (out,), (b.mul(out, out),), (a, weight, w))
    graph = Graph((a, c, d, weight, w), tuple(slope for slope in slopes if slope is not None))
    large = stored(graph, target)
    # x, y, the product, the gradients of the product and its operand, and those that are asked for.
    assert large.count(f"f32 {ROWS * OUT}") == 5
