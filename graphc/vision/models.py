"""Networks for images."""

from __future__ import annotations

import graphc.nn as nn
import graphc.nn.functional as F
from graphc import Tensor


class LeNet(nn.Module):
    """Two convolutions of 3x3 with pooling and three linear layers: `[batch, 1, 32, 32]` to `[batch, 10]`.

    After Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998, with today's ReLU and max
    pooling.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * 6 * 6, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.flatten(1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)
