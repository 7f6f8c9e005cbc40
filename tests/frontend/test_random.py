"""Random numbers: moments, independence, seeds and states, and the same numbers under `graphc.compile`."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, f32, f64, i64
from graphc.random import open_uniform_node

COUNT = 20_000


def sample(draw: Callable[[], Any]) -> np.ndarray:
    torch.manual_seed(1)
    return draw().double().numpy().reshape(-1)


def empty(dtype: Any = torch.float32) -> Any:
    return torch.empty(COUNT, dtype=dtype)


# mean and variance of each distribution; the fourth central moment bounds the error of the variance
DISTRIBUTIONS: dict[str, tuple[Callable[[], Any], float, float, float]] = {
    "rand": (lambda: torch.rand(COUNT), 0.5, 1 / 12, 1 / 80),
    "rand_f64": (lambda: torch.rand(COUNT, dtype=torch.float64), 0.5, 1 / 12, 1 / 80),
    "randn": (lambda: torch.randn(COUNT), 0, 1, 3),
    "randn_f64": (lambda: torch.randn(COUNT, dtype=torch.float64), 0, 1, 3),
    "uniform": (lambda: empty().uniform_(-1, 3), 1, 16 / 12, 256 / 80),
    "normal": (lambda: torch.normal(torch.full((COUNT,), 2.0), torch.full((COUNT,), 3.0)), 2, 9, 243),
    "randint": (lambda: torch.randint(0, 10, (COUNT,)), 4.5, 8.25, 120.8625),
    "randint_wide": (lambda: torch.randint(0, 2**40, (COUNT,)) / 2**40, 0.5, 1 / 12, 1 / 80),
    "randint_widest": (lambda: torch.randint(0, 2**62, (COUNT,)) / 2**62, 0.5, 1 / 12, 1 / 80),
    "random": (lambda: empty(torch.int64).random_().double() / 2.0**63, 0.5, 1 / 12, 1 / 80),
    "bernoulli": (lambda: torch.bernoulli(torch.full((COUNT,), 0.3)), 0.3, 0.21, 0.0777),
    "bernoulli_": (lambda: empty(torch.bool).bernoulli_(0.3), 0.3, 0.21, 0.0777),
    "exponential": (lambda: empty().exponential_(2.0), 0.5, 0.25, 9 / 16),
    "geometric": (lambda: empty().geometric_(0.5), 2, 2, 38),
    "log_normal": (
        lambda: empty().log_normal_(0.0, 0.25),
        math.exp(1 / 32),
        math.exp(1 / 16) * (math.exp(1 / 16) - 1),
        0.02,
    ),
    "cauchy": (lambda: np.arctan((empty().cauchy_(1.0, 2.0) - 1) / 2), 0, math.pi**2 / 12, math.pi**4 / 80),
    "poisson": (lambda: torch.poisson(torch.full((COUNT,), 4.0)), 4, 4, 52),
    "binomial": (lambda: torch.binomial(torch.full((COUNT,), 10.0), torch.full((COUNT,), 0.3)), 3, 2.1, 12.8),
    "multinomial": (lambda: torch.multinomial(torch.tensor([0.2, 0.3, 0.5]), COUNT, True), 1.3, 0.61, 0.8),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_moments_and_neighbours(name: str) -> None:
    draw, mean, variance, fourth = DISTRIBUTIONS[name]
    found = sample(draw)
    assert len(found) == COUNT
    assert abs(found.mean() - mean) < 4 * math.sqrt(variance / COUNT)
    assert abs(found.var() - variance) < 4 * math.sqrt(fourth / COUNT) + 1e-3 * variance
    centred = found - mean
    for lag in (1, 2, 64):
        assert abs((centred[lag:] * centred[:-lag]).mean()) < 4 * variance / math.sqrt(COUNT)


def test_open_ends() -> None:
    assert np.isfinite(sample(lambda: empty().exponential_())).all()
    assert sample(lambda: empty().geometric_(0.9)).min() == 1
    found = sample(lambda: torch.rand(COUNT))
    assert found.min() >= 0 and found.max() < 1


def test_permutations_are_permutations_and_uniform() -> None:
    torch.manual_seed(0)
    assert sorted(torch.randperm(100).tolist()) == list(range(100))
    firsts = np.bincount([torch.randperm(4)[0].item() for _ in range(400)], minlength=4)
    assert np.abs(firsts - 100).max() < 4 * math.sqrt(400 * 3 / 16)


def test_draws_without_replacement_follow_the_weights() -> None:
    torch.manual_seed(0)
    weights = torch.tensor([0.0, 1.0, 3.0]).expand(4000, 3)
    drawn = torch.multinomial(weights, 2).numpy()
    assert (np.sort(drawn, 1) == [1, 2]).all()  # weight 0 is never drawn while others are left
    assert abs((drawn[:, 0] == 2).mean() - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4000)


def test_wrong_parameters_in_tensors_are_errors_when_the_work_runs() -> None:
    for make, message in (
        (lambda: torch.poisson(torch.tensor([-1.0])), "Poisson"),
        (lambda: torch.bernoulli(torch.tensor([1.5])), "p_in"),
        (lambda: torch.multinomial(torch.tensor([0.0, 0.0]), 1), "sum of probabilities"),
        (lambda: torch.normal(torch.zeros(1), torch.tensor([-1.0])), "std"),
    ):
        with pytest.raises(RuntimeError, match=message):
            make().tolist()


# seeds and states


def test_seeds_and_states_repeat_the_numbers() -> None:
    torch.manual_seed(5)
    first = torch.rand(3).tolist()
    state = torch.get_rng_state()
    assert state.dtype is torch.uint8
    second = torch.rand(3).tolist()
    torch.set_rng_state(state)
    assert torch.rand(3).tolist() == second != first
    torch.manual_seed(5)
    assert torch.rand(3).tolist() == first
    with torch.random.fork_rng():
        torch.manual_seed(9)
        torch.rand(1)
    assert torch.rand(3).tolist() == second


def test_generators_are_independent_of_the_global_one() -> None:
    generator = torch.Generator().manual_seed(3)
    assert generator.initial_seed() == 3 and generator.device == torch.device("cpu")
    copy = generator.clone_state()
    before = torch.get_rng_state().tolist()
    drawn = [torch.randn(2, generator=generator).tolist(), torch.randperm(3, generator=generator).tolist()]
    assert torch.get_rng_state().tolist() == before
    assert [torch.randn(2, generator=copy).tolist(), torch.randperm(3, generator=copy).tolist()] == drawn
    assert drawn[0] != torch.randn(2, generator=generator).tolist()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: torch.Generator().set_state(torch.tensor([1])), TypeError, "ByteTensor"),
        (lambda: torch.Generator().set_state(torch.zeros(3, dtype=torch.uint8)), RuntimeError, "wrong size"),
        (lambda: torch.Generator().manual_seed(1.5), RuntimeError, "expected a long"),
        (lambda: torch.Generator().manual_seed(2**65), ValueError, "Overflow"),
        (lambda: torch.Generator("cuda"), RuntimeError, "CUDA"),
        (lambda: torch.rand(2, generator=3), TypeError, "Generator"),
    ],
)
def test_errors_of_generators(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_compiled_calls_draw_what_eager_calls_draw(native: None) -> None:
    def step(x: Any) -> Any:
        noise = torch.randn(4) + torch.empty(4).exponential_()
        order = torch.randperm(4)
        picked = torch.multinomial(x.abs() + 1, 2)
        return (x + noise)[order], picked, torch.poisson(x.abs() + 1)

    x = torch.arange(4.0)
    torch.manual_seed(7)
    eager = [[t.tolist() for t in step(x)] for _ in range(3)]
    compiled = torch.compile(step)
    torch.manual_seed(7)
    assert [[t.tolist() for t in compiled(x)] for _ in range(3)] == eager
    assert eager[0] != eager[1]


# Of the numbers of `randn` after `manual_seed(123)`, as f64; those of four examples of shape [40] under `vmap`.
SEEDED = {
    "float32": {
        (2,): 0xCA84A02F,
        (37,): 0xC4371171,
        (5, 7, 3): 0xF22D6AF9,
        "same": 0x2D185914,
        "different": 0x11F21C38,
    },
    "float64": {
        (2,): 0xA93A731B,
        (37,): 0x7E2A4A25,
        (5, 7, 3): 0x9409B1D5,
        "same": 0xA4D4322B,
        "different": 0x3FAA766E,
    },
    "float16": {
        (2,): 0xE8C1D164,
        (37,): 0x6D98445B,
        (5, 7, 3): 0x753CA139,
        "same": 0x0351A18A,
        "different": 0x38DF51F8,
    },
}


@pytest.mark.parametrize("dtype", SEEDED)
def test_normal_numbers_of_a_seed_stay_the_same(dtype: str, native: None) -> None:
    kind = getattr(torch, dtype)
    for what, checksum in SEEDED[dtype].items():
        torch.manual_seed(123)
        if isinstance(what, str):
            x = torch.zeros(4, 3, dtype=kind)
            found = torch.vmap(lambda row: torch.randn(40, dtype=kind) + 0 * row.sum(), randomness=what)(x)
        else:
            found = torch.randn(what, dtype=kind)
        assert zlib.crc32(found.double().numpy().tobytes()) == checksum, what


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (32,), (40,), (0,)])
def test_normal_numbers_of_examples(shape: tuple[int, ...]) -> None:
    def drawn(randomness: str) -> np.ndarray:
        torch.manual_seed(3)
        return torch.vmap(lambda x: torch.randn(shape) + 0 * x, randomness=randomness)(torch.zeros(3)).numpy()

    def numbers(*shape: int) -> np.ndarray:
        torch.manual_seed(3)
        return torch.randn(shape).numpy()

    count = math.prod(shape)
    np.testing.assert_array_equal(drawn("same"), np.broadcast_to(numbers(*shape), (3, *shape)))
    whole = numbers(3, -(-count // 32) * 32)  # each example begins with a block of counters of its own
    np.testing.assert_array_equal(drawn("different"), whole[:, :count].reshape(3, *shape))
    grouped = torch.vmap(
        lambda row: torch.vmap(lambda x: torch.randn(shape) + 0 * x, randomness="different")(row),
        randomness="different",
    )(torch.zeros(2, 3))
    assert len(set(grouped.reshape(-1).tolist())) == 6 * count


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("bits", [0, -1])
def test_numbers_between_0_and_1_are_neither(dtype: DType, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all random bits are the same: half a step behind the largest number below 1 is no number."""

    def random_bits(self: Builder, key: Node, type: TensorType, word: int = 0) -> Node:
        return self.constant(bits, type)

    monkeypatch.setattr(Builder, "random_bits", random_bits)
    b = Builder()
    key = b.input(0, TensorType(i64, (2,)))
    (found,) = evaluate(Graph((key,), (open_uniform_node(b, key, TensorType(dtype, (3,))),)), [np.zeros(2, np.int64)])
    assert np.all((found > 0) & (found < 1))
    with np.errstate(all="raise"):
        assert np.isfinite(np.log(-np.log(found))).all()


def test_gumbel_softmax_of_the_largest_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    def random_bits(self: Builder, key: Node, type: TensorType, word: int = 0) -> Node:
        return self.constant(-1, type)

    monkeypatch.setattr(Builder, "random_bits", random_bits)
    found = torch.nn.functional.gumbel_softmax(torch.zeros(2, 4))
    assert found.tolist() == [[0.25] * 4] * 2
    assert (torch.empty(3).exponential_() > 0).all()
