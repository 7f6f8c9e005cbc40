"""A block of a residual network trains, and every part of it is compiled."""

from __future__ import annotations

import numpy as np

import graphc as torch
import graphc.nn as nn
from graphc import optim


class Block(nn.Module):
    """Two convolutions beside a shortcut, then one number a class."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect", bias=False)
        self.norm2 = nn.BatchNorm2d(4)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(2, 4, 1))
        self.pool = nn.AdaptiveAvgPool2d((2, 1))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        y = nn.functional.relu(self.norm1(self.first(x)))
        y = nn.functional.relu(self.norm2(self.second(y)) + self.shortcut(x))
        return self.head(self.pool(y).flatten(1))


def test_a_residual_block_trains_without_the_host() -> None:
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    labels = np.arange(12) % 3
    images = rng.normal(size=(12, 2, 7, 7)) * 0.3
    images[:, 0, :4] += labels[:, None, None]
    x, y = torch.tensor(images.astype(np.float32)), torch.tensor(labels)
    model = Block()
    optimizer = optim.SGD(model.parameters(), lr=0.2, momentum=0.5)
    before = torch.counters()["host_calls"]
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert torch.counters()["host_calls"] == before
    assert losses[-1] < 0.4 * losses[0]
    model.eval()
    assert (model(x).argmax(1) == y).sum().item() >= 11
