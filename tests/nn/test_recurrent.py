"""Recurrent layers: initial values, and how often programs are made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
from graphc.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])
def test_initial_values_are_uniform(make: Any) -> None:
    torch.manual_seed(0)
    layer = make(20, 25, num_layers=2, bidirectional=True)
    for name, weight in layer.named_parameters():
        values = np.abs(weight.detach().numpy())
        assert values.max() <= 0.2 and values.max() > 0.15, name
        assert abs(values.mean() - 0.1) < 5 * 0.2 / math.sqrt(12 * values.size), name


class Tagger(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.core = kind(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, lengths: list[int] | None = None) -> torch.Tensor:
        if lengths is None:
            return self.head(self.core(x)[0][:, -1])
        out, _ = pad_packed_sequence(self.core(pack_padded_sequence(x, lengths, True, False))[0], True)
        return self.head(out.sum(1))


def programs(net: Tagger, sizes: list[tuple[int, list[int] | None]]) -> int:
    """How many programs training steps over batches of these lengths made."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    rng = np.random.default_rng(0)
    before = torch.counters()
    for steps, lengths in sizes:
        x = torch.tensor(rng.standard_normal((3, steps, 3)).astype(np.float32))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x, lengths), torch.tensor(rng.integers(0, 2, 3)))
        loss.backward()
        optimizer.step()
        assert math.isfinite(loss.item())
    after = torch.counters()
    assert after["host_calls"] == before["host_calls"]
    return after["programs_built"] - before["programs_built"]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_length_seen_before_needs_no_new_program(kind: Any) -> None:
    net = Tagger(kind)
    lengths: list[tuple[int, list[int] | None]] = [(3, None), (2, None), (4, None)]
    assert programs(net, lengths) >= 3
    there_and_back = [*lengths, *reversed(lengths)]
    programs(net, there_and_back)  # calls that were seen once are recorded natively, in other groups perhaps
    programs(net, there_and_back)
    assert programs(net, there_and_back) == 0


def test_packed_batches_share_the_program_of_their_longest_length() -> None:
    net = Tagger(nn.LSTM)
    programs(net, [(3, [3, 1, 2]), (3, [1, 1, 3])])
    assert programs(net, [(3, [3, 3, 3]), (3, [2, 3, 1]), (3, [1, 3, 3])]) == 0
