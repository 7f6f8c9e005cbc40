"""Calls whose operands have ever new shapes are computed at once: what comes between them is the same program."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import programs
from graphc.errors import OutOfRange
from graphc.options import scope
from graphc.tensors import changing
from graphc.tensors.changing import MOST_CHANGES, MOST_TIMES
from tests.frontend.test_stored_parts import counted, realised

WIDTH, HEADS = 8, 2


@pytest.fixture(autouse=True)
def fresh(native: None, native_recording: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was seen before."""
    monkeypatch.setattr(programs, "_variants", {})
    with scope(interpret=True):
        yield


class Decoder:
    """One block of a decoder without norms, over a cache that grows by a position at each word."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.arrays = [rng.standard_normal((n * WIDTH, WIDTH)).astype(np.float32) / 3 for n in (3, 1)]
        self.qkv, self.out = map(graphc.tensor, self.arrays)
        self.words = rng.standard_normal((40, WIDTH)).astype(np.float32)
        self.cache: Any = None

    def word(self, place: int) -> list[float]:
        x = graphc.tensor(self.words[place : place + 1])
        q, k, v = F.linear(x, self.qkv).view(3, HEADS, 1, WIDTH // HEADS)
        if self.cache is not None:
            k, v = graphc.cat([self.cache[0], k], 1), graphc.cat([self.cache[1], v], 1)
        self.cache = k, v
        seen = F.scaled_dot_product_attention(q, k, v).reshape(1, WIDTH)
        return (x + F.linear(seen, self.out).tanh()).tolist()[0]

    def wanted(self, place: int) -> list[float]:
        qkv, out = (a.astype(np.float64) for a in self.arrays)
        x = self.words[: place + 1].astype(np.float64)
        q, k, v = (x @ qkv.T).reshape(-1, 3, HEADS, WIDTH // HEADS).transpose(1, 2, 0, 3)
        scores = np.exp(np.einsum("hd,hld->hl", q[:, -1], k) / np.sqrt(WIDTH // HEADS))
        seen = np.einsum("hl,hld->hd", scores / scores.sum(1, keepdims=True), v).reshape(WIDTH)
        return list(x[-1] + np.tanh(out @ seen))


def test_a_cache_that_grows_builds_no_programs() -> None:
    decoder, done = Decoder(), []
    for place in range(40):
        got: list[Any] = []
        done.append(counted(lambda got=got, place=place: got.append(decoder.word(place))))
        np.testing.assert_allclose(got[0], decoder.wanted(place), rtol=2e-5, atol=1e-6)
    late = done[25:]
    assert not any(each["programs_built"] or each["structure_hits"] for each in late)
    assert all(each["interpreted"] + each["any_size"] == 3 for each in late), "two caches and attention"
    assert all(each["flushes"] + each["any_size"] == 5 for each in late)
    assert late[-1]["records"] - late[-1]["native_records"] == late[-1]["interpreted"]


def among_others(x: Any, n: int, y: Any) -> float:
    """A call that reads a part that grows, among others."""
    for _ in range(6):
        y = y * 2 - 1
    return (y + (x[:n] * 2).sum()).sum().item()


def test_what_takes_long_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = realised(400), realised(3)

    def turn(least: int) -> int:
        return counted(lambda: [among_others(x, n, y) for n in range(least, least + 40)])["flushes"]

    with monkeypatch.context() as patch:
        patch.setattr(changing, "BUILT", 0)
        assert turn(100) == 40
    assert turn(200) > 40
    assert turn(100) == 40, "as they were the first time"


def test_where_most_calls_change_one_program_is_made_of_them() -> None:
    x = realised(400) / 400
    done = counted(lambda: [(x[:n] * 2).exp().cumsum(0).sum().item() for n in range(100, 200)])
    assert done["flushes"] == 100


def test_a_program_of_new_shapes_is_not_looked_for() -> None:
    x = realised(400) / 400
    x.tolist()

    def turn(least: int) -> None:
        for n in range(least, least + 20):
            found = (x[:n] * 2).exp().sort()[0].sum().item()
            assert found == pytest.approx(np.exp(np.arange(n) / 200).sum(), rel=1e-5)

    turn(20)
    done = counted(lambda: turn(50))
    assert done["programs_built"] == done["structure_hits"] == 0
    assert done["interpreted"] == done["flushes"] == 20


def test_steps_over_batches_of_new_sizes_learn_what_compiled_ones_do() -> None:
    def train() -> list[float]:
        graphc.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = graphc.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        rng, losses = np.random.default_rng(0), []
        for n in range(3, 40):
            x, y = graphc.tensor(rng.standard_normal((n, 5)).astype(np.float32)), graphc.arange(n) % 3
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return [*losses, *(v for p in net.parameters() for v in p.flatten().tolist())]

    found: list[float] = []
    done = counted(lambda: found.extend(train()))
    assert done["programs_built"] < 8
    assert done["any_size"] > 20
    with scope(interpret=False):
        np.testing.assert_allclose(found, train(), rtol=2e-4, atol=1e-5)


def grown(call: Callable[[Any], Any], least: int = 1, most: int = 30) -> list[Any]:
    """What a call gives for tensors that grow."""
    x = realised(most) / most
    return [call(x[:n]).tolist() for n in range(least, most)]


def test_gradients_are_recorded() -> None:
    w = graphc.ones(1, requires_grad=True)
    flushes = []

    def call(x: graphc.Tensor) -> graphc.Tensor:
        before = graphc.counters()["flushes"]
        loss = (x * w).exp().sum()
        flushes.append(graphc.counters()["flushes"] - before)
        (slope,) = graphc.autograd.grad(loss, w)
        return slope

    got = grown(call)
    x = np.arange(30) / 30
    np.testing.assert_allclose([each[0] for each in got], [np.sum(x[:n] * np.exp(x[:n])) for n in range(1, 30)], 1e-5)
    assert not any(flushes)


def test_steps_of_training_stay_whole() -> None:
    w, x, y = graphc.ones(3, requires_grad=True), realised(100) / 100, realised(3)
    flushes = []
    for n in range(5, 45):
        before = graphc.counters()["flushes"]
        z = y
        for _ in range(4):
            z = (z * w).tanh() - 0.1
        loss = z.sum()
        with graphc.no_grad():  # reads what grows, among calls that do not, while a step is recorded
            seen = (x[:n] * loss).mean()
        loss.backward()
        with graphc.no_grad():
            w -= 0.1 * w.grad
            w.grad = None
        assert seen.item() == pytest.approx(loss.item() * sum(range(n)) / 100 / n, rel=1e-5)
        flushes.append(graphc.counters()["flushes"] - before)
    assert max(flushes[10:]) == 1


def test_layers_of_several_widths_are_no_change() -> None:
    widths = (4, 5, 6, 7, 8, 9, 10)
    net = nn.Sequential(*(nn.Linear(n, m) for n, m in itertools.pairwise(widths)))
    x = graphc.ones(2, 4)
    with graphc.no_grad():
        for _ in range(2 * MOST_TIMES):
            done = counted(lambda: net(x).tolist())
            assert done["flushes"] == 1
    assert done["native_records"] == len(widths) - 1


@pytest.mark.parametrize("call", [lambda x: F.dropout(x, 0.5), lambda x: x + graphc.randn_like(x)])
def test_draws_are_those_of_compiled_programs(call: Any) -> None:
    def drawn() -> list[Any]:
        graphc.manual_seed(5)
        return grown(call)

    got = drawn()
    with scope(interpret=False):
        assert got == drawn()


def test_places_outside_are_found() -> None:
    table, places = realised(10, 2), graphc.arange(30)
    for n in range(1, 9):
        F.embedding(places[:n], table).tolist()
    for n in (13, 20):
        with pytest.raises(OutOfRange):
            F.embedding(places[2:n], table).tolist()


def test_writes_in_place_are_seen() -> None:
    def call(x: graphc.Tensor) -> graphc.Tensor:
        y = x.clone()
        same = y
        y += x
        y[:1] = 7
        return same

    for n, got in enumerate(grown(call), 1):
        np.testing.assert_allclose(got, [7, *np.arange(30)[1:n] / 15], rtol=1e-6)


def test_compiled_functions_stay_whole() -> None:
    @graphc.compile
    def call(x: graphc.Tensor) -> graphc.Tensor:
        return (x * 2).exp().sum()

    before = graphc.counters()["capture_breaks"]
    got = grown(call)
    np.testing.assert_allclose(got, [np.exp(np.arange(n) / 15).sum() for n in range(1, 30)], rtol=1e-5)
    assert graphc.counters()["capture_breaks"] == before


def test_what_runs_often_becomes_a_program() -> None:
    x = realised(30) / 30

    def turn() -> None:
        for n in range(10, 16):
            (x[:n] * 2).exp().tolist()

    for _ in range(MOST_CHANGES + MOST_TIMES + 4):
        turn()
    done = counted(turn)
    assert done["records"] == done["native_records"] == 12
    assert done["flushes"] == 6, "one for each length"


def test_results_are_memory_of_their_own() -> None:
    """Of two results that are the same array, none sees what is written to the other."""
    x = realised(40) / 40
    for n in range(1, 30):
        y, z = x[:n].split([n - n // 2, n // 2]) if n > 1 else (x[:1], x[:1])
        a, b = y.expand(1, *y.shape).clone(), z.clone()
        a += 1
        b += 2
        assert a.tolist() == [pytest.approx([k / 40 + 1 for k in range(n - n // 2)])]
        assert x[:n].tolist() == pytest.approx([k / 40 for k in range(n)])


def joined(s: State) -> None:
    s["grown"] = graphc.cat([s["grown"], s["word"][:, :1] + s["grown"].mean(1, keepdim=True)], 1)


def attended(s: State) -> None:
    scores = (s["word"].t() @ s["grown"]).softmax(-1)
    s["word"] = (s["grown"] @ scores.t()).tanh()


def normed(s: State) -> None:
    s["word"] = F.layer_norm(F.gelu(s["w"] @ s["word"]) + s["word"].roll(1, 0), (3,))


def written(s: State) -> None:
    s["grown"][:, -1:] *= 0.5
    s["grown"][0] += s["word"].sum()


def sorted_parts(s: State) -> None:
    values, places = s["grown"].sort(1)
    s["word"] = s["word"] + values[:, -1:] * 0.1 + places.double().mean() * 1e-2


def picked(s: State) -> None:
    places = graphc.arange(s["grown"].shape[1]) % 3
    s["word"] = s["word"] * 0.5 + s["grown"][:, places].cumsum(1)[:, -1:] * 0.01


def shared(s: State) -> None:
    view = s["grown"][1:]
    s["grown"] = s["grown"].clamp(-2, 2)
    view += 1  # the tensor of before
    s["word"] = s["word"] + view.amax() * 1e-2


def chosen(s: State) -> None:
    mask = s["grown"] > s["grown"].mean()
    s["grown"] = graphc.where(mask, s["grown"], s["grown"] * 0.9)
    s["word"] = s["word"] - mask.sum() * 1e-3


def parts(s: State) -> None:
    first, second = s["grown"].split([1, s["grown"].shape[1] - 1], 1)
    s["grown"] = graphc.cat([second, first], 1).contiguous()


State = dict[str, Any]
STEPS = (joined, attended, normed, written, sorted_parts, picked, shared, chosen, parts)


def told(seed: int, words: int, nudge: float = 0) -> list[list[float]]:
    """What a random loop over a tensor that grows by a column each turn computes, with its start a little `nudge`d."""
    rng = np.random.default_rng(seed)
    program = [joined, *(STEPS[k] for k in rng.integers(0, len(STEPS), 5)), normed, normed, normed]
    state: State = {
        name: graphc.tensor(rng.standard_normal((4, n)) * (1 + nudge))
        for name, n in (("grown", 2), ("word", 3), ("w", 4))
    }
    found: list[list[float]] = []
    with graphc.no_grad():
        for _ in range(words):
            for step in program:
                step(state)
            found.append([*state["word"].flatten().tolist(), state["grown"].sum().item()])
    return found


@pytest.mark.share(2)
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 8))])
def test_random_loops(seed: int) -> None:
    found = told(seed, 24)
    with scope(interpret=False):
        wanted = told(seed, 24)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_long_random_loops(seed: int) -> None:
    found = [told(seed, 40) for _ in range(3)]
    with scope(interpret=False):
        wanted, nudged = (np.array(told(seed, 40, nudge)) for nudge in (0, 1e-13))
    # Some of the loops multiply errors by ten every few turns.
    allowed = 1e-9 * (1 + np.abs(wanted)) + 10 * np.maximum.accumulate(np.abs(nudged - wanted).max(1))[:, None]
    for each in found:
        assert (np.abs(np.array(each) - wanted) <= allowed).all()
