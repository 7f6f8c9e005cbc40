"""Layers that are called again: nothing of them is recorded in Python, and they give what Python gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import func
from graphc.counting import FRONT
from tests.frontend.native_cases import both

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")

ROWS, SERIES, PICTURES = (6, 8), (3, 5, 8), (2, 4, 6, 6)

LAYERS: dict[str, tuple[tuple[int, ...], Callable[[], Callable[[Any], Any]]]] = {
    "BatchNorm1d": (ROWS, lambda: nn.BatchNorm1d(8)),
    "BatchNorm2d": (PICTURES, lambda: nn.BatchNorm2d(4)),
    "BatchNorm2d, evaluated": (PICTURES, lambda: nn.BatchNorm2d(4).eval()),
    "BatchNorm1d without parameters": (ROWS, lambda: nn.BatchNorm1d(8, affine=False)),
    "InstanceNorm2d": (PICTURES, lambda: nn.InstanceNorm2d(4, affine=True)),
    "InstanceNorm2d with statistics": (PICTURES, lambda: nn.InstanceNorm2d(4, track_running_stats=True)),
    "InstanceNorm2d, evaluated": (PICTURES, lambda: nn.InstanceNorm2d(4, track_running_stats=True).eval()),
    "LocalResponseNorm": (PICTURES, lambda: nn.LocalResponseNorm(2)),
    "AdaptiveAvgPool2d": (PICTURES, lambda: nn.AdaptiveAvgPool2d(4)),
    "AdaptiveMaxPool2d": (PICTURES, lambda: nn.AdaptiveMaxPool2d(2)),
    "PixelShuffle": (PICTURES, lambda: nn.PixelShuffle(2)),
    "ChannelShuffle": (PICTURES, lambda: nn.ChannelShuffle(2)),
    "Upsample": (PICTURES, lambda: nn.Upsample(scale_factor=2)),
    "Upsample by table": (PICTURES, lambda: nn.Upsample(size=(7, 9))),
    "Upsample, bilinear": (PICTURES, lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    "repeat_interleave": (ROWS, lambda: lambda x: x.repeat_interleave(3, 1)),
    "LSTM": (SERIES, lambda: _outputs(nn.LSTM(8, 4, 2, batch_first=True))),
    "LSTM in both directions": (SERIES, lambda: _outputs(nn.LSTM(8, 4, bidirectional=True))),
    "LSTM with projection": (SERIES, lambda: _outputs(nn.LSTM(8, 4, proj_size=3))),
    "GRU": (SERIES, lambda: _outputs(nn.GRU(8, 4, bias=False))),
    "RNN": (SERIES, lambda: _outputs(nn.RNN(8, 4, nonlinearity="relu"))),
}


def _outputs(layer: Any) -> Callable[[Any], Any]:
    return lambda x: layer(x)[0]


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_repeated_layer_is_recorded_natively(name: str, trains: bool) -> None:
    shape, make = LAYERS[name]

    def run() -> list[Any]:
        torch.manual_seed(0)
        layer, x = make(), torch.randn(*shape)
        scale = torch.ones(1, requires_grad=trains)
        found, python = list[Any](), -1
        for _ in range(8):
            before = FRONT.records - FRONT.native_records
            made = layer(x * scale)
            python = FRONT.records - FRONT.native_records - before
            if trains:
                made.square().sum().backward()
            found += [made.tolist(), None if scale.grad is None else scale.grad.tolist()]
            scale.grad = None
        counts.append(python)
        return found

    counts: list[int] = []
    ours, theirs = both(run)
    assert ours == theirs
    assert counts[0] == 0 < counts[1], counts


def test_given_states_of_an_lstm_get_gradients() -> None:
    def run() -> list[Any]:
        torch.manual_seed(0)
        layer, x = nn.LSTM(3, 4, 2, bidirectional=True), torch.randn(5, 2, 3)
        h, c = torch.randn(4, 2, 4, requires_grad=True), torch.randn(4, 2, 4, requires_grad=True)
        found: list[Any] = []
        for _ in range(5):
            made, (last, cell) = layer(x, (h, c))
            h.grad = c.grad = None
            (made.sum() + (last * cell).sum()).backward()
            found += [made.tolist(), h.grad.tolist(), c.grad.tolist()]  # type: ignore[attr-defined]
        return found

    ours, theirs = both(run)
    assert ours == theirs


@pytest.mark.parametrize("shape", [(1, 2, 4), (2, 4)])
def test_an_lstm_refuses_too_few_states(shape: tuple[int, ...]) -> None:
    layer = nn.LSTM(3, 4, 2)
    states = torch.zeros(shape)
    with pytest.raises(IndexError, match=r"lstm: states must have the shape \(2 or more"):
        torch.lstm(torch.ones(5, 2, 3), (states, states), list(layer.parameters()), True, 2, 0.0, False, False, False)


def test_the_extents_of_an_upsampled_picture_decide() -> None:
    x = torch.randn(1, 1, 4, 4)
    for _ in range(6):
        for size in ((8, 8), (8, 6), (3, 4)):
            made = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
            assert made.shape == (1, 1, *size)
            assert made[0, 0, -1, -1].item() == x[0, 0, -1, -1].item()


def test_tables_of_pictures_are_shared_with_compiled_functions_and_vmap() -> None:
    x = torch.randn(3, 2, 4, 4)

    def grown(x: Any) -> Any:
        return F.interpolate(x, scale_factor=1.5, mode="bilinear")

    compiled = torch.compile(grown)
    first = compiled(x).tolist()
    assert grown(x).tolist() == first == torch.compile(lambda x: grown(x))(x).tolist()
    assert func.vmap(lambda one: grown(one[None])[0])(x).tolist() == first
