"""Large products that are not stored: which, and what reads them instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.kernel_parser import parse_kernel
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, bf16, f32, i8, i32, i64
from graphc.passes.autodiff import vjp
from graphc.pipeline import build_program, schedule

TARGET = cuda_target("sm_90")
HEADS, WORDS, SIZE = 64, 128, 32
Masking = Callable[[Builder, Node], Node]


def attention(b: Builder, q: Node, k: Node, v: Node, mask: Masking | None = None) -> tuple[Node, Node]:
    """The result and the weights, not yet divided by their sums."""
    scores = b.rounded(b.contract(*(b.cast(x, f32) for x in (q, k)), "b l e, b s e -> b l s"), f32, bf16)
    scores = scores if mask is None else mask(b, scores)
    top = b.apply("detach", (b.reduce_max(scores, (2,)),))
    powers = b.exp(b.sub(scores, b.expand_dims(top, (2,), scores.shape)))
    share = b.div(b.constant(1.0, top.type), b.reduce_sum(powers, (2,)))
    made = b.contract(b.rounded(powers, bf16, f32), b.cast(v, f32), "b l s, b s f -> b l f")
    made = b.mul(b.rounded(made, f32, bf16), b.expand_dims(share, (2,), made.shape))
    return b.cast(made, bf16), powers


def operands(b: Builder, heads: int = HEADS, words: int = WORDS, dtype: DType = bf16) -> list[Node]:
    return [b.input(i, TensorType(dtype, (heads, words, SIZE))) for i in range(4)]


def stores(graph: Graph) -> list[list[int]]:
    """For each kernel the sizes of what it stores."""
    return [[node.type.size for node in group.targets] for group in schedule(graph, TARGET).groups]


def causal(b: Builder, scores: Node) -> Node:
    places = scores.type.with_dtype(i64)
    sees = b.apply("le", (b.iota(2, places), b.iota(1, places)))
    return b.select(sees, scores, b.constant(float("-inf"), scores.type))


def training(mask: Masking | None = None) -> Graph:
    b = Builder()
    q, k, v, slopes = operands(b)
    made, _ = attention(b, q, k, v, mask)
    return Graph((q, k, v, slopes), tuple(g for g in vjp(b, [made], [slopes], [q, k, v]) if g is not None))


def test_attention_is_one_kernel() -> None:
    b = Builder()
    *qkv, _ = operands(b)
    assert stores(Graph(tuple(qkv), (attention(b, *qkv)[0],))) == [[HEADS * WORDS * SIZE]]


def test_gradients_are_found_without_scores() -> None:
    found = stores(training())
    assert max(size for sizes in found for size in sizes) == HEADS * WORDS * SIZE
    assert [HEADS * WORDS * SIZE] * 2 in found, "the gradients of keys and values, in one kernel"


@pytest.mark.parametrize("size", [64, 128, 192, 208, 256])
@pytest.mark.parametrize("memory", [99, 163, 227])
def test_chains_have_room_in_a_block(size: int, memory: int) -> None:
    """Where a chain is made, its least tile fits; otherwise scores are stored."""
    b = Builder()
    words = 4 * size  # scores are larger than what they are made of
    q, k, v, slopes = (b.input(i, TensorType(bf16, (HEADS, words, size))) for i in range(4))
    made, _ = attention(b, q, k, v)
    graph = Graph((q, k, v, slopes), tuple(g for g in vjp(b, [made], [slopes], [q, k, v]) if g is not None))
    target = replace(TARGET, l1_bytes=memory << 10)
    program = build_program(graph, target=target)
    for kernel in program.kernels:
        assert sum(own.size * own.dtype.itemsize for own in kernel.own) <= target.l1_bytes
    stored = any(n.type.size == HEADS * words * words for g in schedule(graph, target).groups for n in g.targets)
    assert stored == (size > 192 and memory == 99)


@pytest.mark.parametrize("dtype", [i8, i32, i64])
def test_narrow_numbers_say_nothing_of_steps(dtype: DType) -> None:
    """Numbers of rows and steps in i8 wrap."""

    def wrapping(b: Builder, scores: Node) -> Node:
        places = scores.type.with_dtype(dtype)
        sees = b.apply("le", (b.iota(2, places), b.iota(1, places)))
        return b.select(sees, scores, b.constant(float("-inf"), scores.type))

    whole, made = (sum(k.flops for k in build_program(training(m), target=TARGET).kernels) for m in (None, wrapping))
    assert (made == whole) == (dtype is i8)


@pytest.mark.parametrize("why", ["weights are a result", "few blocks", "few words", "f32"])
def test_what_is_stored_all_the_same(why: str) -> None:
    b = Builder()
    heads, words = (2 if why == "few blocks" else HEADS), (32 if why == "few words" else WORDS)
    *qkv, _ = operands(b, heads, words, f32 if why == "f32" else bf16)
    made, weights = attention(b, *qkv)
    found = stores(Graph(tuple(qkv), (made, weights) if why == "weights are a result" else (made,)))
    assert any(heads * words * words in sizes for sizes in found)


@pytest.mark.parametrize("mask", [None, causal])
def test_kernels_are_kernels(mask: Masking | None) -> None:
    """Their text says all of them, and the verifier has nothing against them."""
    kernels = build_program(training(mask), target=TARGET).kernels
    assert sum("exp2" in print_kernel(kernel) for kernel in kernels) >= 3
    assert any("exchange" in print_kernel(kernel) for kernel in kernels)
    for kernel in kernels:
        verify_kernel(kernel)
        assert print_kernel(parse_kernel(print_kernel(kernel))) == print_kernel(kernel)


def test_a_causal_mask_halves_the_work() -> None:
    whole, half = (sum(k.flops for k in build_program(training(m), target=TARGET).kernels) for m in (None, causal))
    assert 0.5 < half / whole < 0.52
