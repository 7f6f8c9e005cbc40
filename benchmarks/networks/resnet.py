"""ResNet-18 for CIFAR: a 3x3 stem without pooling, four stages of two basic blocks.

After K. He et al., "Deep residual learning for image recognition", 2015.
"""

from __future__ import annotations

from typing import Any

from benchmarks.networks import parts
from benchmarks.workload import Network, Parameter

MOMENTUM, EPSILON = 0.1, 1e-5


def _blocks(widths: tuple[int, ...]) -> list[tuple[str, int, int, int]]:
    """Name, input channels, output channels and stride of every block."""
    found: list[tuple[str, int, int, int]] = []
    before = widths[0]
    for stage, width in enumerate(widths):
        for place in range(2):
            found.append((f"blocks.{len(found)}", before, width, 2 if stage > 0 and place == 0 else 1))
            before = width
    return found


def _module(lib: Any, widths: tuple[int, ...]) -> Any:
    nn, F = lib.nn, lib.F

    class Block(nn.Module):
        def __init__(self, before: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.short = None
            if stride != 1 or before != width:
                self.short = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

        def forward(self, x: Any) -> Any:
            y = F.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            return F.relu(y + (x if self.short is None else self.short(x)))

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
            self.bn = nn.BatchNorm2d(widths[0])
            self.blocks = nn.Sequential(*(Block(a, b, stride) for _, a, b, stride in _blocks(widths)))
            self.fc = nn.Linear(widths[-1], 10)

        def forward(self, x: Any) -> Any:
            x = self.blocks(F.relu(self.bn(self.conv(x))))
            return self.fc(x.mean((2, 3)))

    return ResNet()


class _Walk:
    """The network's forward pass over any system's convolution, batch norm and ReLU."""

    def __init__(self, convolve: Any, normalise: Any, relu: Any) -> None:
        self.convolve, self.normalise, self.relu = convolve, normalise, relu

    def features(self, x: Any, blocks: list[tuple[str, int, int, int]]) -> Any:
        x = self.relu(self.normalise("bn", self.convolve("conv", x, 1, 1)))
        for name, before, width, stride in blocks:
            y = self.relu(self.normalise(f"{name}.bn1", self.convolve(f"{name}.conv1", x, stride, 1)))
            y = self.normalise(f"{name}.bn2", self.convolve(f"{name}.conv2", y, 1, 1))
            if stride != 1 or before != width:
                x = self.normalise(f"{name}.short.1", self.convolve(f"{name}.short.0", x, stride, 0))
            x = self.relu(y + x)
        return x


def _jax(j: Any, w: dict[str, Any], x: Any, training: bool, blocks: list[tuple[str, int, int, int]]) -> Any:
    changed: dict[str, Any] = {}

    def normalise(name: str, x: Any) -> Any:
        mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        if training:
            count = x.shape[0] * x.shape[2] * x.shape[3]
            now = x.mean((0, 2, 3))
            spread = x.var((0, 2, 3))
            changed[f"{name}.running_mean"] = (1 - MOMENTUM) * mean + MOMENTUM * now
            changed[f"{name}.running_var"] = (1 - MOMENTUM) * variance + MOMENTUM * count / max(1, count - 1) * spread
            mean, variance = now, spread
        scale = w[f"{name}.weight"] * j.lax.rsqrt(variance + EPSILON)
        shift = w[f"{name}.bias"] - mean * scale
        return x * scale[None, :, None, None] + shift[None, :, None, None]

    def convolve(name: str, x: Any, stride: int, padding: int) -> Any:
        return parts.jax_conv(j, x, w[f"{name}.weight"], stride, padding)

    x = _Walk(convolve, normalise, j.nn.relu).features(x, blocks)
    return parts.jax_linear(w, "fc", x.mean((2, 3))), changed


def _tinygrad(tg: Any, w: dict[str, Any], x: Any, blocks: list[tuple[str, int, int, int]]) -> Any:
    def normalise(name: str, x: Any) -> Any:
        mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        if tg.Tensor.training:
            count = x.shape[0] * x.shape[2] * x.shape[3]
            now = x.mean(axis=(0, 2, 3))
            centred = x.detach() - now.detach().reshape(1, -1, 1, 1)
            spread = (centred * centred).mean(axis=(0, 2, 3))
            mean.assign((1 - MOMENTUM) * mean + MOMENTUM * now.detach())
            variance.assign((1 - MOMENTUM) * variance + MOMENTUM * count / max(1, count - 1) * spread)
            centred = x - now.reshape(1, -1, 1, 1)
            mean, variance = now, (centred * centred).mean(axis=(0, 2, 3))
        return x.batchnorm(w[f"{name}.weight"], w[f"{name}.bias"], mean, (variance + EPSILON).rsqrt())

    def convolve(name: str, x: Any, stride: int, padding: int) -> Any:
        return x.conv2d(w[f"{name}.weight"], None, stride=stride, padding=padding)

    x = _Walk(convolve, normalise, lambda x: x.relu()).features(x, blocks)
    return parts.tinygrad_linear(w, "fc", x.mean(axis=(2, 3)))


def resnet18(widths: tuple[int, ...] = (64, 128, 256, 512), size: int = 32) -> Network:
    """The network; fewer or narrower stages and smaller images for tests."""
    blocks = _blocks(widths)
    parameters = {**parts.conv("conv", 3, widths[0], 3, bias=False), **parts.norm("bn", widths[0])}
    norms = [("bn", widths[0])]
    multiply_adds = size * size * 9 * 3 * widths[0]
    side = size
    for name, before, width, stride in blocks:
        side = -(-side // stride)
        parameters |= parts.conv(f"{name}.conv1", before, width, 3, bias=False)
        parameters |= parts.conv(f"{name}.conv2", width, width, 3, bias=False)
        norms += [(f"{name}.bn1", width), (f"{name}.bn2", width)]
        multiply_adds += side * side * 9 * width * (before + width)
        if stride != 1 or before != width:
            parameters |= parts.conv(f"{name}.short.0", before, width, 1, bias=False)
            norms.append((f"{name}.short.1", width))
            multiply_adds += side * side * before * width
    for name, width in norms:
        parameters |= parts.norm(name, width)
    buffers: dict[str, Parameter] = {}
    for name, width in norms:
        buffers |= {f"{name}.running_mean": Parameter((width,)), f"{name}.running_var": Parameter((width,), 0.0, 1.0)}
    return Network(
        name="resnet18",
        parameters={**parameters, **parts.linear("fc", widths[-1], 10)},
        buffers=buffers,
        module=lambda lib: _module(lib, widths),
        jax=lambda j, w, x, training: _jax(j, w, x, training, blocks),
        tinygrad=lambda tg, w, x: _tinygrad(tg, w, x, blocks),
        samples=lambda rng, batch: parts.images(rng, batch, 3, size),
        forward_flops=lambda batch: 2.0 * batch * (multiply_adds + widths[-1] * 10),
        first_flops=lambda batch: 2.0 * batch * size * size * 9 * 3 * widths[0],
    )
