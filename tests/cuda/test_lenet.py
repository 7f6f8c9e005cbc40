"""LeNet trained on a CUDA device and on the CPU: the same seed gives the same losses."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
import graphc.optim
from graphc.vision.datasets import Digits
from tests.cuda.machine import Machine

SHIM_VARIANT = "quick"  # the shim compiles longer than it runs
STEPS = 20
BATCH = 8


class Net(nn.Module):
    """The seeds' network, with dropout, which draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * 6 * 6, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.dropout(x, 0.2, training=self.training)
        return self.fc3(F.relu(self.fc2(x)))


def train(device: str, compiled: bool) -> tuple[list[float], list[np.ndarray]]:
    """The losses of all steps and the parameters after them."""
    digits = Digits()
    images, labels = digits.data.numpy(), digits.targets.numpy()
    graphc.manual_seed(0)
    net = Net().to(device)
    optimizer = graphc.optim.SGD(net.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()

    def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = graphc.compile(step) if compiled else step
    losses = []
    for i in range(STEPS):
        rows = np.arange(i * BATCH, (i + 1) * BATCH)
        x, y = graphc.tensor(images[rows]).to(device), graphc.tensor(labels[rows]).to(device)
        losses.append(run(x, y).item())
    return losses, [p.detach().cpu().numpy() for p in net.parameters()]


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_losses_are_those_of_the_cpu(cuda: Machine, compiled: bool) -> None:
    losses, parameters = train("cuda", compiled)
    assert cuda.driver is None or cuda.driver.launches > 20 * STEPS
    expected_losses, expected = train("cpu", compiled)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    assert losses[-1] < losses[0]
    for got, wanted in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)
