"""The counter-based generator: known answers, and decompositions against references; normal numbers."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.opdef import OPS
from graphc.ir.ops.source import BLOCK, DRAWS, normal_at, threefry2x32
from graphc.ir.types import DType, TensorType, f32, f64, i32, i64
from graphc.passes.decompose import Decompose
from tests.samples import SAMPLES

# Key, counter, result: the authors' published test vectors (Random123, kat_vectors, threefry2x32 with 20 rounds).
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "answer"), KNOWN)
def test_known_answers(key: tuple[int, int], counter: tuple[int, int], answer: tuple[int, int]) -> None:
    words = threefry2x32(key, np.array([counter[0]], np.uint32), np.array([counter[1]], np.uint32))
    assert tuple(int(w[0]) for w in words) == answer


@pytest.mark.parametrize("op", sorted(DRAWS))
def test_decomposition_gives_the_same_bits(op: str) -> None:
    for sample in SAMPLES[op].make(np.random.default_rng(0)):
        graph = sample.graph(op)
        simpler = Decompose().run(graph)
        assert all(OPS[n.op].kind != "composite" for n in simpler.nodes)
        np.testing.assert_array_equal(evaluate(simpler, sample.arrays)[0], evaluate(graph, sample.arrays)[0])


def test_bits_depend_on_key_and_flat_index_alone() -> None:
    def bits(seed: int, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        b = Builder()
        key = b.input(0, TensorType(i64, (2,)))
        graph = Graph((key,), (b.random_bits(key, TensorType(i32, shape)),))
        return evaluate(graph, [np.array([seed, offset], np.int64)])[0]

    assert np.array_equal(bits(3, 4, (6, 4)).ravel(), bits(3, 4, (24,)))
    different = [bits(*key, (8,)).tolist() for key in ((3, 4), (4, 3), (3, 5), (3 + 2**32, 4), (3, 4 + 2**32), (-3, 4))]
    assert len({tuple(d) for d in different}) == len(different)


@pytest.mark.parametrize("word", [0, 1])
def test_bits_look_uniform(word: int) -> None:
    b = Builder()
    key = b.input(0, TensorType(i64, (2,)))
    graph = Graph((key,), (b.random_bits(key, TensorType(i32, (1 << 16,)), word),))
    bits = evaluate(graph, [np.array([7, 0], np.int64)])[0].view(np.uint32)
    ones = np.unpackbits(bits.view(np.uint8)).reshape(-1, 32).mean(axis=0)
    assert np.all(np.abs(ones - 0.5) < 5 * 0.5 / 256)  # five standard deviations of a fair bit over 2**16 draws
    assert np.unique(bits).size > 65400


@pytest.mark.parametrize("dtype", [f32, f64])
def test_normal_numbers_are_pairs_of_the_words_of_counters(dtype: DType) -> None:
    b = Builder()
    key, type = b.input(0, TensorType(i64, (2,))), TensorType(i32, (2, 2 * BLOCK))
    graph = Graph(
        (key,), (b.random_normal(key, type.with_dtype(dtype)), *(b.random_bits(key, type, w) for w in (0, 1)))
    )
    drawn, *words = evaluate(graph, [np.array([2**35 + 7, 2**33 + 3], np.int64)])
    first, second = (word.view(np.uint32).ravel()[: 2 * BLOCK] >> 8 for word in words)
    radius = np.sqrt(-2 * np.log(first * 2.0**-24 + 2.0**-25))
    pairs = np.stack([radius * f(second * 2.0**-24 * 2 * np.pi) for f in (np.cos, np.sin)])
    expected = pairs.reshape(2, 2, BLOCK).swapaxes(0, 1).reshape(type.shape)
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-5 if dtype is f32 else 1e-14)


@pytest.mark.parametrize("dtype", [f32, f64])
def test_normal_numbers_at_places(dtype: DType) -> None:
    b = Builder()
    key, place = b.input(0, TensorType(i64, (2,))), b.input(1, TensorType(i32, (5, 7)))
    graph = Graph((key, place), (normal_at(b, key, place, dtype), b.random_normal(key, TensorType(dtype, (100,)))))
    places = np.random.default_rng(0).integers(0, 100, (5, 7)).astype(np.int32)
    found, drawn = evaluate(graph, [np.array([-5, 2**40], np.int64), places])
    np.testing.assert_array_equal(found, drawn[places])
