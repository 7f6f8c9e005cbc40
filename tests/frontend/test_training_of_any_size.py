"""Training steps over batches of ever other sizes are run by what is compiled for all sizes, and learn the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import interpreting, programs
from graphc.recording import Recorder, using
from tests.frontend.test_stored_parts import counted

pytestmark = pytest.mark.usefixtures("soon_for_all_sizes")

WORDS, WIDTH = 11, 8
SIZES = [(5, 9), (5, 15), (6, 11), (7, 16), (8, 10), (6, 12), (7, 14), (5, 13), (8, 9), (6, 10), (7, 12), (8, 5)]


class Means(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, x: Any) -> Any:
        seen = self.table(x)
        return self.out(F.layer_norm(seen + seen.mean(1, keepdim=True), (WIDTH,)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(32, WIDTH)
        self.block = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, 0.25, batch_first=True)
        self.out = nn.Linear(WIDTH, WORDS)

    def forward(self, x: Any) -> Any:
        return self.out(self.block(self.table(x) + self.places(graphc.arange(x.shape[1], device=x.device))))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(WORDS, WIDTH), nn.Conv1d(WIDTH, WORDS, 1)
        self.first, self.second = nn.Conv1d(WIDTH, WIDTH, 3, padding=1), nn.Conv1d(WIDTH, WIDTH, 5, padding=2)

    def forward(self, x: Any) -> Any:
        seen = self.second(F.relu(self.first(self.table(x).transpose(1, 2))))
        return self.out(seen.tanh()).transpose(1, 2)


class Ends(nn.Module):
    """From the first and the last words of a text come the logits of each."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, x: Any) -> Any:
        seen = self.table(x).cumsum(1)
        ends = seen[:, 0] * 0.5 + (seen[:, -1] + seen[:, -3:].sum(1)).tanh()
        return self.out(seen + ends[:, None])


def learned(kind: type[nn.Module], sizes: list[tuple[int, int]], by_class: bool, device: str = "cpu") -> list[float]:
    """The losses of the steps, and the parameters afterwards."""
    graphc.manual_seed(0)
    net = kind().to(device)
    optimizer = graphc.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    rng, made = np.random.default_rng(0), list[float]()
    for rows, columns in sizes:
        x = graphc.tensor(rng.integers(0, WORDS, (rows, columns)).tolist(), device=device)
        optimizer.zero_grad()
        if by_class:
            loss = F.cross_entropy(net(x).reshape(-1, WORDS), x.reshape(-1))
        else:
            loss = (net(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        made.append(loss.item())
    return [*made, *(v for p in net.parameters() for v in p.flatten().tolist())]


@pytest.mark.share(2)
@pytest.mark.parametrize(("changing_rows", "by_class"), [(False, True), (True, False)])
@pytest.mark.parametrize("kind", [Means, Attention, Convolutions, Ends])
def test_steps_over_batches_of_any_size_learn_what_interpreted_ones_do(
    kind: type[nn.Module], changing_rows: bool, by_class: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(rows if changing_rows else 5, columns) for rows, columns in SIZES]
    got: list[float] = []
    done = counted(lambda: got.extend(learned(kind, sizes, by_class)))
    assert done["any_size"] > 4
    with monkeypatch.context() as patch, using(Recorder()):
        patch.setattr(interpreting, "MOST_VARIANTS", 0)
        patch.setattr(interpreting, "MOST_LONG", 0)
        patch.setattr(programs, "_variants", {})
        patch.setattr(programs, "_is_served", lambda *_: False)
        patch.setattr(programs, "served_by", lambda *_: None)
        wanted: list[float] = []
        done = counted(lambda: wanted.extend(learned(kind, sizes, by_class)))
    assert done["any_size"] == 0
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=1e-5)
