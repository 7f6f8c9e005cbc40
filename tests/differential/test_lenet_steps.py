"""LeNet trained by graphc and by PyTorch from the same weights on the same real digits: the parameters stay
together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional
import graphc.optim
from graphc.vision.datasets import Digits
from tests.differential.compare import to, torch

# PyTorch warns about its own use of its old compiler.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

STEPS = 50
BATCH = 32


def network(library: Any) -> Any:
    """The seeds' Net."""
    nn, F = library.nn, library.nn.functional

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 6, 3)
            self.conv2 = nn.Conv2d(6, 16, 3)
            self.fc1 = nn.Linear(16 * 6 * 6, 120)
            self.fc2 = nn.Linear(120, 84)
            self.fc3 = nn.Linear(84, 10)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
            x = x.flatten(1)
            x = F.relu(self.fc1(x))
            x = F.relu(self.fc2(x))
            return self.fc3(x)

    return Net()


def train(library: Any, weights: dict[str, np.ndarray], compiled: bool) -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses and the final parameters of 50 steps of SGD with momentum."""
    digits = Digits()
    images, labels = digits.data.numpy(), digits.targets.numpy()
    net = network(library)
    net.load_state_dict({name: to(library, value) for name, value in weights.items()})
    optimizer = library.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    criterion = library.nn.CrossEntropyLoss()

    def step(x, y):
        optimizer.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        step = library.compile(step)
    losses = []
    for i in range(STEPS):
        rows = np.arange(i * BATCH, (i + 1) * BATCH) % len(images)
        losses.append(step(to(library, images[rows]), to(library, labels[rows])).item())
    return losses, {name: value.numpy() for name, value in net.state_dict().items()}


@pytest.fixture(scope="module")
def reference() -> tuple[dict[str, np.ndarray], list[float], dict[str, np.ndarray]]:
    torch.manual_seed(0)
    weights = {name: value.numpy().copy() for name, value in network(torch).state_dict().items()}
    return (weights, *train(torch, weights, False))


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_50_steps_stay_together(reference: Any, compiled: bool) -> None:
    weights, wanted_losses, wanted = reference
    losses, found = train(graphc, weights, compiled)
    np.testing.assert_allclose(losses, wanted_losses, rtol=1e-4)
    assert wanted_losses[-1] < 0.5 * wanted_losses[0], "nothing was learned, so nothing was compared"
    for name, value in wanted.items():
        difference = np.linalg.norm(found[name] - value) / np.linalg.norm(value)
        assert difference <= 1e-4, f"{name}: relative difference {difference:.2e}"
