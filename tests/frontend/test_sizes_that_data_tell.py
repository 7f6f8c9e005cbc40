"""Training steps of several sizes, along which places, orders and joins go, learn what those of their own shapes do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import any_size
from graphc.options import scope
from graphc.recording import Recorder, using
from tests.frontend.test_stored_parts import counted

pytestmark = pytest.mark.usefixtures("soon_for_all_sizes")

WIDTH, CLASSES = 6, 3
SIZES = [
    (7, 15),
    (9, 22),
    (12, 12),
    (8, 30),
    (15, 15),
    (11, 9),
    (10, 26),
    (13, 13),
    (14, 20),
    (9, 31),
    (6, 17),
    (12, 8),
]

Step = Callable[[Any, Any, Any, Any], Any]


def passed_on(net: Any, x: Any, source: Any, target: Any) -> Any:
    """Nodes get what their neighbours have, twice."""
    for layer in net[:2]:
        h = layer(x)
        x = F.relu(h.index_add(0, target, h[source]))
    return net[2](x)


def ordered(net: Any, x: Any, source: Any, target: Any) -> Any:
    """Sorted, joined and turned around."""
    h = net[0](x).tanh()
    rows = graphc.cat([h[:1], h.sort(0)[0], h[source].flip(0)])
    return net[2](net[1](rows).cumsum(0)[1 : 1 + x.shape[0]])


def placed(net: Any, x: Any, source: Any, target: Any) -> Any:
    """Stored, scattered and gathered along the nodes."""
    h = net[0](x)
    index = target[:, None].expand(-1, WIDTH)
    most = h.scatter_reduce(0, index, h[source], "amax")
    summed = h.scatter_add(0, index, net[1](h)[source])
    stored = h.index_copy(0, target.unique(), h[target.unique()] * 2)
    return net[2](most + summed + stored.gather(0, h.argsort(0)))


def drawn(net: Any, x: Any, source: Any, target: Any) -> Any:
    """Noise and dropout of the sizes."""
    h = F.dropout(net[0](x + 0.1 * graphc.randn(*x.shape)), 0.25)
    return net[2](net[1](h).index_add(0, target, graphc.rand(len(source), WIDTH)))


def learned(forward: Step, sizes: list[tuple[int, int]]) -> list[float]:
    graphc.manual_seed(0)
    net = nn.ModuleList(nn.Linear(WIDTH, n) for n in (WIDTH, WIDTH, CLASSES))
    optimizer = graphc.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    rng, losses = np.random.default_rng(0), []
    for n, e in sizes:
        x = graphc.from_numpy(rng.standard_normal((n, WIDTH)).astype(np.float32))
        source, target = graphc.from_numpy(rng.integers(n, size=(2, e)))
        loss = F.cross_entropy(forward(net, x, source, target), graphc.from_numpy(rng.integers(CLASSES, size=n)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return [*losses, *(v for p in net.parameters() for v in p.flatten().tolist())]


@pytest.mark.share(2)
@pytest.mark.parametrize("forward", [passed_on, ordered, placed, drawn])
def test_steps_learn_what_those_of_their_shapes_do(forward: Step) -> None:
    got: list[float] = []
    done = counted(lambda: got.extend(learned(forward, SIZES + SIZES[:4])))
    assert done["any_size"] > 5
    with scope(interpret=False), using(Recorder()):
        wanted = learned(forward, SIZES + SIZES[:4])
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-5)


def test_a_program_with_room_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(any_size, "WASTE", 0)  # none is worth to be run
    made: list[object] = []
    roomy = any_size.with_room

    def noted(first: Any, second: Any, rooms: Any, packed: bool) -> Any:
        found = roomy(first, second, rooms, packed)
        if found is not None:
            made.append((len(first.nodes), tuple(rooms.values())))
        return found

    monkeypatch.setattr(any_size, "with_room", noted)
    learned(passed_on, SIZES * 2)
    assert 0 < len(made) == len(set(made))


def test_a_wrong_place_is_told_by_the_same_error() -> None:
    table = graphc.nn.Parameter(graphc.linspace(0, 1, 60).reshape(10, 6))

    def step(n: int, e: int, wrong: int = 0) -> list[float]:
        x = graphc.from_numpy(np.linspace(0, 1, n * WIDTH, dtype=np.float32).reshape(n, WIDTH)) @ table.t()
        places = np.arange(e) % n
        places[e // 2] += wrong
        index = graphc.from_numpy(places)
        table.grad = None
        h = (x[index] * 2).tanh().exp().sin()
        x.index_add(0, index, h).square().mean().backward()
        assert table.grad is not None
        return table.grad.flatten().tolist()

    for n, e in SIZES:
        step(n, e)
    got: list[float] = []
    assert counted(lambda: got.extend(step(10, 14)))["any_size"] == 1
    for wrong in (50, -50):
        with pytest.raises(IndexError, match=f"index {places_at(10, 14) + wrong} is out of bounds"):
            step(10, 14, wrong)
    assert step(10, 14) == got
    with scope(interpret=False), using(Recorder()):
        np.testing.assert_allclose(got, step(10, 14), rtol=1e-5, atol=1e-6)


def places_at(n: int, e: int) -> int:
    """The place that is made wrong."""
    return e // 2 % n
