"""The counter-based generator: known answers, and the decomposition against the reference."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.opdef import OPS
from graphc.ir.ops.source import threefry2x32
from graphc.ir.types import TensorType, i32, i64
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


def test_decomposition_gives_the_same_bits() -> None:
    for sample in SAMPLES["random_bits"].make(np.random.default_rng(0)):
        graph = sample.graph("random_bits")
        decompose = OPS["random_bits"].decompose
        assert decompose is not None
        b = Builder.of(graph)
        simpler = Graph(graph.inputs, (decompose(b, graph.outputs[0]),))
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
