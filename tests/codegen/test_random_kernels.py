"""Random numbers in kernels: both words of a counter are used, each counter is computed once, and the numbers are those
of the generator whatever the shape and the machine.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.target import Target
from graphc.dropping import dropped_node, kept_node
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.index import Derived, Ix, Var, derived
from graphc.ir.node import Node
from graphc.ir.ops.source import BLOCK, threefry2x32
from graphc.ir.types import DType, TensorType, boolean, f16, f32, f64, i64
from graphc.pipeline import build_program, schedule
from graphc.random import normal_node, uniform_node
from tests.codegen.programs import run
from tests.codegen.targets import AVX2, AVX512, SSE2, runnable

TARGETS = runnable()
KEY = np.array([2**35 + 7, 2**33 + 3], np.int64)


def _drawing(maker: Callable[..., Node], dtype: DType, shape: tuple[int, ...]) -> Graph:
    b = Builder()
    key = b.input(0, TensorType(i64, (2,)))
    return Graph((key,), (maker(b, key, TensorType(dtype, shape)),))


def _innermost(graph: Graph, target: Target) -> tuple[str, int]:
    """The text of the vector loop of the one kernel of `graph`, and its step."""
    (kernel,) = build_program(graph, target=target).kernels
    text = print_kernel(kernel)
    found = re.search(r"for %i0 = \S+ to \S+ step (\d+) \{(.*?)\n    \}", text, re.S)
    assert found is not None, text
    return found[2], int(found[1])


def _words(count: int) -> np.ndarray:
    """Bits of `count` elements: blocks of first words, each followed by the second words of the same counters."""
    low = 2**32 - 1
    second = ((int(KEY[0]) >> 32) + (int(KEY[1]) >> 32) * 0x9E3779B9) & low
    index = np.arange(-(-count // (2 * BLOCK)) * BLOCK, dtype=np.uint32)
    pair = threefry2x32((int(KEY[0]) & low, int(KEY[1]) & low), index, np.full_like(index, second))
    return np.stack([word.reshape(-1, BLOCK) for word in pair], axis=1).reshape(-1)[:count]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 33, 100, 4113])
def test_uniform_numbers_use_both_words(count: int) -> None:
    expected = (_words(count) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
    (found,) = evaluate(_drawing(uniform_node, f32, (count,)), [KEY])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.share(2)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(
    "shape",
    [
        (4113,),
        (37, 10),
        (8, 16),
        pytest.param((5, 48), marks=pytest.mark.slow),
        pytest.param((3, 2, 32), marks=pytest.mark.slow),
    ],
)
def test_kernels_give_the_same_numbers(shape: tuple[int, ...], target: Target) -> None:
    for maker, dtype in ((uniform_node, f32), (uniform_node, f64), (normal_node, f32)):
        graph = _drawing(maker, dtype, shape)
        (expected,) = evaluate(graph, [KEY])
        (found,) = run(graph, [KEY], target)
        if maker is uniform_node:
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6)


# Of the bytes of normal numbers from `KEY`: what parameters begin with does not change from version to version.
NORMAL = [
    (f32, (3, 7), 0x1F830F34),
    (f32, (4113,), 0x826B0672),
    (f64, (3, 7), 0x6B501D8B),
    (f64, (4113,), 0xC5774D87),
    (f16, (3, 7), 0x602E83B9),
    (f16, (4113,), 0x9AF14091),
]


@pytest.mark.parametrize(("dtype", "shape", "checksum"), NORMAL)
def test_normal_numbers_stay_the_same_bit_by_bit(dtype: DType, shape: tuple[int, ...], checksum: int) -> None:
    (found,) = run(_drawing(normal_node, dtype, shape), [KEY])
    assert zlib.crc32(found.tobytes()) == checksum
    if dtype is f32:
        first = [0xC000FE5C, 0x3DCDE36A, 0xBFB066CB, 0xBFB35D6B, 0xBD6A77C8]
        assert found.ravel()[:5].view(np.uint32).tolist() == first


@pytest.mark.parametrize(("target", "lanes"), [(SSE2, 4), (AVX2, 8), (AVX512, 16)])
def test_a_counter_is_computed_once_for_two_elements(target: Target, lanes: int) -> None:
    b = Builder()
    key, x = b.input(0, TensorType(i64, (2,))), b.input(1, TensorType(f32, (64, 1000)))
    dropped = dropped_node(b, x, kept_node(b, x, key, x.shape, 0.1), 0.1)
    body, step = _innermost(Graph((key, x), (dropped,)), target)
    vectors = step // lanes
    assert vectors * lanes == 2 * BLOCK
    # A rotation in each of 20 rounds, the first of which all counters share; half as many counters as elements.
    assert body.count(" = shl ") == 19 * vectors // 2
    assert body.count(" = select ") == vectors  # what is dropped: shifts by constants need no guard


def test_normal_numbers_share_what_the_pair_has_in_common() -> None:
    body, step = _innermost(_drawing(normal_node, f32, (5001,)), AVX2)
    vectors = step // 8
    assert body.count(" = sqrt ") == vectors // 2


def test_quotients_of_multiples() -> None:
    start, lane = Var("start", 1000, multiple=32), Var("lane", 7, lane=True)
    index = Ix.of(start) + Ix.of(lane) + 24
    assert derived("mod", index, 16) == Ix.of(lane) + 8
    assert derived("floordiv", index, 16) == Ix.of(Derived("floordiv", Ix.of(start), 16)) + 1
    unknown = Var("unknown", 1000)
    assert derived("mod", Ix.of(unknown) + Ix.of(lane), 16).terms[0][0].__class__ is Derived
    assert derived("floordiv", index, 64).terms[0][0] == Derived("floordiv", index, 64)


def test_pooled_dropout_stores_a_mask() -> None:
    """Not the state of the generator in the middle of its rounds, which is where the kernel grows too large."""
    b = Builder()
    key, x = b.input(0, TensorType(i64, (2,))), b.input(1, TensorType(f32, (3, 8, 10, 12)))
    dropped = dropped_node(b, b.apply("sqrt", (x,)), kept_node(b, x, key, x.shape, 0.4), 0.4)
    windows = b.apply("window", (dropped,), {"axes": (2, 3), "size": (2, 2), "stride": (2, 2), "dilation": (1, 1)})
    graph = Graph((key, x), (b.apply("reduce_max", (windows,), {"axes": (4, 5), "ties": "first"}),))
    stored = [root.target for group in schedule(graph, AVX2).groups for root in group.roots]
    assert [node.dtype for node in stored if node.type.size >= x.type.size] == [boolean]
    kernels = build_program(graph, target=AVX2).kernels
    drawing = next(k for k in kernels if any(p.dtype is boolean and p.mode == "out" for p in k.params))
    assert "i32x8" in print_kernel(drawing) and "x4" not in print_kernel(drawing)  # the key has 64 bits, no element has
    arrays = [KEY, np.random.default_rng(0).random(x.shape, np.float32)]
    np.testing.assert_allclose(run(graph, arrays)[0], evaluate(graph, arrays)[0], rtol=1e-6)
