"""Whole training steps of the usual blocks run in compiled kernels only: no operator falls back to the host."""

from __future__ import annotations

from typing import Any

import pytest

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(4)
        self.short = nn.Sequential(nn.Conv2d(2, 4, 1, stride=2, bias=False), nn.BatchNorm2d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.short(x))


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.encoder(self.table(x), mask=mask, is_causal=True)


def recurrent(kind: Any) -> Any:
    layer = kind(3, 4, num_layers=2, dropout=0.1)
    return layer, lambda: layer(torch.randn(3, 2, 3))[0]


def block(module: nn.Module, make: Any) -> Any:
    return module, lambda: module(make())


BLOCKS: dict[str, Any] = {
    "residual": lambda: block(Residual(), lambda: torch.randn(2, 2, 6, 6)),
    "transformer": lambda: block(Language(), lambda: torch.randint(0, 7, (2, 3))),
    "lstm": lambda: recurrent(nn.LSTM),
    "gru": lambda: recurrent(nn.GRU),
    "rnn": lambda: recurrent(nn.RNN),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_no_operator_runs_on_the_host(name: str) -> None:
    module, run = BLOCKS[name]()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    before = torch.counters()["host_calls"]
    for _ in range(2):
        optimizer.zero_grad()
        loss = run().pow(2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        assert loss.item() > 0
    module.eval()
    with torch.no_grad():
        run().sum().item()
    assert torch.counters()["host_calls"] == before
