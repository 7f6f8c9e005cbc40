"""Leaves that are kept between programs: what repeats is not bound again, and nothing else is kept or read."""

from __future__ import annotations

import gc
import math
import random
import threading
import weakref
from typing import Any

import pytest

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import optim
from graphc.leaves import KEPT_TURNS, NEAR_READS, NEAR_TURNS
from graphc.recording import Recorder, current

OFTEN = NEAR_READS + 2  # runs after which leaves wait


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of leaves as they are made."""
    numbers: list[int] = []
    bind = Recorder.bind

    def noted(self: Recorder, *arguments: Any) -> Any:
        made = bind(self, *arguments)
        numbers.append(made.index)
        return made

    monkeypatch.setattr(Recorder, "bind", noted)
    return numbers


def test_weights_are_bound_once_for_many_calls(bound: list[int]) -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    x = torch.randn(2, 4)
    with torch.no_grad():
        wanted = net(x).tolist()
        for _ in range(OFTEN):
            net(x).tolist()
        bound.clear()
        before = torch.counters()
        for _ in range(5):
            assert net(x).tolist() == wanted
        after = torch.counters()
    assert bound == []
    assert after["program_hits"] - before["program_hits"] == 5
    assert len(current().kept) == 5


def test_programs_in_turn_have_leaves_of_their_own(bound: list[int]) -> None:
    weights = [torch.randn(4) for _ in range(5)]
    x = torch.ones(4)

    def turn() -> list[float]:
        return [(x * weight).sum().item() for weight in weights]

    for _ in range(5 * OFTEN):  # the weights get their numbers one after the other
        wanted = turn()
    bound.clear()
    before = torch.counters()["program_hits"]
    for _ in range(KEPT_TURNS):  # many more programs than leaves wait for
        assert turn() == wanted
    assert bound == []
    assert torch.counters()["program_hits"] - before == 5 * KEPT_TURNS
    assert len(current().kept) == 6


def test_every_step_of_training_has_the_same_leaves(bound: list[int]) -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(6, 4), torch.randint(0, 3, (6,))
    before, steps = torch.counters(), []
    for _ in range(OFTEN + 5):
        bound.clear()
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        steps.append(tuple(bound))
    assert len(set(steps[OFTEN:])) == 1
    assert len(steps[OFTEN]) < len(steps[1]), "the batch is bound again"
    assert torch.counters()["autodiff"] - before["autodiff"] == 1


def test_batches_of_a_list_have_the_same_leaf(bound: list[int]) -> None:
    weight = torch.randn(4)
    batches = [torch.randn(3, 4) for _ in range(12)]
    for batch in batches:
        batch.tolist()
    weight.tolist()
    counts = []
    for batch in batches:
        before = torch.counters()["program_hits"]
        (batch * weight).sum().item()
        counts.append(torch.counters()["program_hits"] - before)
    assert counts[2:] == [1] * 10


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_list_of_batches_is_gone_through_again_and_again(shuffled: bool) -> None:
    draw, weight = random.Random(0), torch.randn(4)
    batches = [torch.randn(3, 4) for _ in range(2 * NEAR_TURNS)]
    for batch in batches:
        batch.tolist()
    weight.tolist()

    def epoch() -> None:
        for batch in draw.sample(batches, len(batches)) if shuffled else batches:
            (batch * weight).sum().item()

    for _ in range(3):
        epoch()
    before = torch.counters()["structure_hits"]
    for _ in range(20):
        epoch()
    assert torch.counters()["structure_hits"] - before <= (4 if shuffled else 0), "looked up anew, with other leaves"


def test_what_is_written_is_read_anew() -> None:
    x, y = torch.ones(3), torch.ones(3)
    for _ in range(OFTEN):
        assert (x + y).tolist() == [2.0] * 3
    x.mul_(3)
    assert (x + y).tolist() == [4.0] * 3
    for _ in range(OFTEN):
        (x + y).tolist()
    x.numpy()[0] = 7
    assert (x + y).tolist() == [8.0, 4.0, 4.0]
    for _ in range(OFTEN):
        (x + y).tolist()
    x.data = torch.zeros(3)
    assert (x + y).tolist() == [1.0] * 3


def test_a_write_that_only_the_user_saw_is_noticed() -> None:
    x, w = torch.ones(3), torch.ones(3, requires_grad=True)
    for _ in range(OFTEN):
        (x * w).sum().item()
    torch.autograd.graph.increment_version(x)
    loss = (x * w).sum()
    loss.backward()
    assert w.grad is not None and w.grad.tolist() == [1.0] * 3


def test_dead_tensors_leave_their_memory_at_once() -> None:
    x, y = torch.ones(300), torch.ones(300)
    for _ in range(OFTEN):
        (x + y).tolist()
    buffer, leaf = weakref.ref(x._storage.buffer), x._storage.kept
    assert leaf is not None
    del leaf
    gc.disable()
    try:
        del x
        assert buffer() is None
    finally:
        gc.enable()


def test_memory_that_waits_to_be_read_is_shown_to_numpy_where_it_lies() -> None:
    x, y = torch.ones(3), torch.ones(3)
    for _ in range(OFTEN):
        (x + y).tolist()
    assert x._storage.kept is not None
    place = x.data_ptr()
    seen = x.numpy()
    assert x.data_ptr() == place and x._storage.kept is None
    seen[0] = 5
    assert (x + y).tolist() == [6.0, 2.0, 2.0]


def test_a_leaf_that_programs_do_not_read_is_given_up() -> None:
    x, y = torch.ones(3), torch.ones(3)
    for _ in range(OFTEN):
        (x + y).tolist()
    assert x._storage.kept is not None
    for _ in range(2 * KEPT_TURNS):
        (y * 2).tolist()
    assert x._storage.kept is None and y._storage.kept is not None
    for _ in range(OFTEN):
        assert (x + y).tolist() == [2.0] * 3
    assert x._storage.kept is not None


def test_a_replay_has_its_memory_for_itself() -> None:
    w = torch.ones(3)

    @torch.compile
    def step() -> None:
        w.mul_(2.0)

    step()
    for _ in range(OFTEN):
        (w + 1).tolist()
    held = w._storage.kept
    assert held is not None
    step()
    assert w._storage.kept is None
    assert (w + 1).tolist() == [5.0] * 3


def test_memory_stays_flat_over_many_steps() -> None:
    x, w, sizes = torch.ones(2), torch.ones(2), set()
    recorder = current()
    for step in range(10_000):
        (x + w).data_ptr()
        if step >= 100 and step % 100 == 0:
            sizes.add((len(recorder.b), len(recorder.bound), len(recorder.kept), len(recorder.pending)))
    assert len(sizes) == 1


def test_values_that_are_leaves_leave_these_bound() -> None:
    """What is computed of a value that an operation gave as it was ends before its leaf does."""
    fw = torch.autograd.forward_ad
    x, direction = torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0])
    with fw.dual_level():
        dual = fw.make_dual(x, direction)
        first = fw.unpack_dual(dual.sin() * dual)
        assert first.primal.tolist() == pytest.approx([math.sin(1), 2 * math.sin(2)])
        assert first.tangent.tolist() == pytest.approx([math.sin(1) + math.cos(1), -math.sin(2) - 2 * math.cos(2)])
        same = fw.unpack_dual(dual)
        assert same.primal.tolist() == [1, 2] and same.tangent.tolist() == [1, -1]
        other = fw.make_dual(direction, x)
        found = fw.unpack_dual(dual * other + torch.exp(dual).sum()).tangent
        assert found.tolist() == pytest.approx([2 + math.e - math.e**2, 5 + math.e - math.e**2])


def test_leaves_that_other_threads_took_over_are_given_up() -> None:
    x, y = torch.ones(3), torch.ones(3)

    def use() -> None:
        for _ in range(OFTEN):
            assert (x + y).tolist() == [2.0] * 3

    use()
    mine = weakref.ref(x._storage.kept)
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert x._storage.slot().recorder is not current()
    current().let_go()
    held = mine()
    assert held is None or x._storage.kept is not held
    assert not current().kept
    use()
    assert x._storage.kept.recorder is current()
