"""LeNet twice: the 3x3 one on 1x32x32, and LeNet-5 with 5x5 windows on 3x32x32."""

from __future__ import annotations

import functools
from typing import Any

from benchmarks.networks import parts
from benchmarks.workload import Network


def _module(lib: Any, channels: int, window: int, flat: int) -> Any:
    nn, F = lib.nn, lib.F

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, 6, window)
            self.conv2 = nn.Conv2d(6, 16, window)
            self.fc1 = nn.Linear(flat, 120)
            self.fc2 = nn.Linear(120, 84)
            self.fc3 = nn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
            x = x.flatten(1)
            return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))

    return LeNet()


def _jax(j: Any, w: dict[str, Any], x: Any, training: bool) -> Any:
    for name in ("conv1", "conv2"):
        x = parts.jax_conv(j, x, w[f"{name}.weight"]) + w[f"{name}.bias"][None, :, None, None]
        x = parts.jax_max_pool(j, j.nn.relu(x))
    x = x.reshape(x.shape[0], -1)
    for name in ("fc1", "fc2"):
        x = j.nn.relu(parts.jax_linear(w, name, x))
    return parts.jax_linear(w, "fc3", x), {}


def _tinygrad(tg: Any, w: dict[str, Any], x: Any) -> Any:
    for name in ("conv1", "conv2"):
        x = x.conv2d(w[f"{name}.weight"], w[f"{name}.bias"]).relu().max_pool2d()
    x = x.flatten(1)
    for name in ("fc1", "fc2"):
        x = parts.tinygrad_linear(w, name, x).relu()
    return parts.tinygrad_linear(w, "fc3", x)


def _network(name: str, channels: int, window: int) -> Network:
    first = 33 - window
    second = first // 2 + 1 - window
    flat = 16 * (second // 2) ** 2
    first_layer = first * first * 6 * channels * window * window
    multiply_adds = first_layer + second * second * 16 * 6 * window * window
    multiply_adds += flat * 120 + 120 * 84 + 84 * 10
    return Network(
        name=name,
        parameters={
            **parts.conv("conv1", channels, 6, window),
            **parts.conv("conv2", 6, 16, window),
            **parts.linear("fc1", flat, 120),
            **parts.linear("fc2", 120, 84),
            **parts.linear("fc3", 84, 10),
        },
        module=functools.partial(_module, channels=channels, window=window, flat=flat),
        jax=_jax,
        tinygrad=_tinygrad,
        samples=lambda rng, batch: parts.images(rng, batch, channels, 32),
        forward_flops=lambda batch: 2.0 * batch * multiply_adds,
        first_flops=lambda batch: 2.0 * batch * first_layer,
    )


def lenet() -> Network:
    """The seeds' network: 3x3 windows, one channel."""
    return _network("lenet", 1, 3)


def lenet5() -> Network:
    """LeNet-5 for colour images: 5x5 windows, three channels."""
    return _network("lenet5", 3, 5)
