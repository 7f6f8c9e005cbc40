"""Convolution, padding, pooling and resampling layers against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn
from tests.differential.compare import floats, message, to, torch
from tests.differential.test_function_layers import compare

Make = Callable[[Any], Any]

CONVOLUTIONS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "Conv1d": (lambda nn: nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), (2, 2, 7)),
    "Conv1d circular": (lambda nn: nn.Conv1d(2, 3, 3, padding=2, padding_mode="circular"), (2, 2, 5)),
    "Conv1d same reflect": (lambda nn: nn.Conv1d(2, 3, 4, padding="same", padding_mode="reflect"), (2, 5)),
    "Conv2d": (lambda nn: nn.Conv2d(3, 4, (2, 3), padding=(1, 0), dilation=(1, 2), bias=False), (2, 3, 4, 6)),
    "Conv2d depthwise": (lambda nn: nn.Conv2d(3, 6, 3, padding="same", groups=3), (3, 4, 3)),
    "Conv2d replicate": (lambda nn: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="replicate"), (1, 2, 3, 4)),
    "Conv2d valid": (lambda nn: nn.Conv2d(2, 3, 2, padding="valid", padding_mode="reflect"), (1, 2, 3, 3)),
    "Conv3d": (lambda nn: nn.Conv3d(2, 2, 2, stride=(1, 2, 1), padding=1), (1, 2, 2, 3, 2)),
    "ConvTranspose1d": (lambda nn: nn.ConvTranspose1d(2, 4, 3, 2, 1, 1, 2), (2, 2, 4)),
    "ConvTranspose2d": (lambda nn: nn.ConvTranspose2d(2, 3, (2, 3), dilation=2, bias=False), (2, 2, 3, 2)),
    "ConvTranspose3d": (lambda nn: nn.ConvTranspose3d(2, 2, 2, stride=(1, 2, 1)), (2, 2, 1, 2)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    make, shape = CONVOLUTIONS[name]
    compare(make, floats(*shape), modes=(True,))
    layers = [make(library.nn) for library in (torch, graphc)]
    for name, value in layers[0].named_parameters():
        mine = dict(layers[1].named_parameters())[name]
        bound = 1 / np.sqrt(np.prod(layers[0].weight.shape[1:]))
        assert tuple(mine.shape) == tuple(value.shape) and abs(mine.detach().numpy()).max() <= bound + 1e-6


def test_transposed_convolution_of_a_wanted_size() -> None:
    theirs, ours = (library.nn.ConvTranspose2d(1, 1, 2, stride=3, padding=1) for library in (torch, graphc))
    x = floats(1, 1, 2, 3)
    for size in ([3, 8], [1, 1, 5, 6]):
        assert tuple(ours(to(graphc, x), size).shape) == tuple(theirs(to(torch, x), size).shape)
    for size in ([9, 9], [3, 8, 1]):
        texts = []
        for library, layer in ((torch, theirs), (graphc, ours)):
            with pytest.raises(ValueError) as raised:
                layer(to(library, x), output_size=size)
            texts.append(message(raised.value))
        assert texts[0] == texts[1]


def test_refusals_of_convolutions() -> None:
    for make in (
        lambda nn: nn.Conv2d(3, 4, 2, groups=0),
        lambda nn: nn.Conv2d(3, 4, 2, groups=2),
        lambda nn: nn.Conv2d(4, 3, 2, groups=2),
        lambda nn: nn.Conv2d(3, 4, 2, padding="full"),
        lambda nn: nn.Conv2d(3, 4, 2, padding="same", stride=2),
        lambda nn: nn.Conv2d(3, 4, 2, padding_mode="mirror"),
        lambda nn: nn.ConvTranspose1d(4, 4, 2, padding_mode="reflect"),
    ):
        for nn in (torch.nn, graphc.nn):
            with pytest.raises(ValueError) as raised:
                make(nn)
            assert any(word in str(raised.value) for word in ("groups", "padding"))


PADS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "ConstantPad1d": (lambda nn: nn.ConstantPad1d((1, 2), 2.5), (2, 3)),
    "ConstantPad2d": (lambda nn: nn.ConstantPad2d(1, 2), (2, 3, 2)),
    "ConstantPad3d": (lambda nn: nn.ConstantPad3d((1, 0, 2, -1, 0, 1), 2.0), (2, 3, 2)),
    "ZeroPad1d": (lambda nn: nn.ZeroPad1d(1), (2, 3)),
    "ZeroPad2d": (lambda nn: nn.ZeroPad2d((1, 0, 2, 1)), (2, 3, 2)),
    "ZeroPad3d": (lambda nn: nn.ZeroPad3d(1), (1, 2, 1, 2)),
    "ReflectionPad1d": (lambda nn: nn.ReflectionPad1d(2), (2, 3)),
    "ReflectionPad2d": (lambda nn: nn.ReflectionPad2d((1, 0, 1, 2)), (2, 3, 3)),
    "ReflectionPad3d": (lambda nn: nn.ReflectionPad3d(1), (1, 2, 3, 2)),
    "ReplicationPad1d": (lambda nn: nn.ReplicationPad1d((3, 1)), (2, 3)),
    "ReplicationPad2d": (lambda nn: nn.ReplicationPad2d(1), (2, 3, 2)),
    "ReplicationPad3d": (lambda nn: nn.ReplicationPad3d(1), (1, 2, 1, 2)),
    "CircularPad1d": (lambda nn: nn.CircularPad1d((1, 2)), (2, 3)),
    "CircularPad2d": (lambda nn: nn.CircularPad2d(1), (2, 3, 2)),
    "CircularPad3d": (lambda nn: nn.CircularPad3d(1), (1, 2, 1, 2)),
}

POOLS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "MaxPool1d": (lambda nn: nn.MaxPool1d(3, 2, 1), (2, 3, 6)),
    "MaxPool2d": (lambda nn: nn.MaxPool2d((2, 3), ceil_mode=True), (2, 5, 4)),
    "MaxPool3d": (lambda nn: nn.MaxPool3d(2, dilation=(1, 2, 1)), (1, 2, 3, 2)),
    "AvgPool1d": (lambda nn: nn.AvgPool1d(3, 2, 1), (2, 3, 6)),
    "AvgPool2d": (lambda nn: nn.AvgPool2d(2, 1, 1, count_include_pad=False), (2, 3, 4)),
    "AvgPool3d": (lambda nn: nn.AvgPool3d(2, ceil_mode=True, divisor_override=3), (1, 3, 2, 2)),
    "LPPool1d": (lambda nn: nn.LPPool1d(2, 3, 1), (2, 6)),
    "LPPool2d": (lambda nn: nn.LPPool2d(2, (2, 1)), (2, 4, 3)),
    "LPPool3d": (lambda nn: nn.LPPool3d(2, 2), (1, 2, 2, 4)),
    "AdaptiveAvgPool1d": (lambda nn: nn.AdaptiveAvgPool1d(3), (2, 5)),
    "AdaptiveAvgPool2d": (lambda nn: nn.AdaptiveAvgPool2d((None, 2)), (2, 3, 5)),
    "AdaptiveAvgPool3d": (lambda nn: nn.AdaptiveAvgPool3d(2), (1, 3, 2, 4)),
    "AdaptiveMaxPool1d": (lambda nn: nn.AdaptiveMaxPool1d(3), (2, 5)),
    "AdaptiveMaxPool2d": (lambda nn: nn.AdaptiveMaxPool2d((2, None)), (2, 3, 5)),
    "AdaptiveMaxPool3d": (lambda nn: nn.AdaptiveMaxPool3d((1, 2, 3)), (1, 3, 2, 4)),
}


SHAPES: dict[str, tuple[Make, tuple[int, ...]]] = {
    "PixelShuffle": (lambda nn: nn.PixelShuffle(2), (2, 4, 2, 3)),
    "PixelUnshuffle": (lambda nn: nn.PixelUnshuffle(2), (1, 2, 4)),
    "ChannelShuffle": (lambda nn: nn.ChannelShuffle(2), (1, 4, 2)),
    "Unfold": (lambda nn: nn.Unfold(2, padding=(1, 0)), (1, 2, 3, 3)),
    "Fold": (lambda nn: nn.Fold((3, 3), 2), (1, 4, 4)),
    "Upsample": (lambda nn: nn.Upsample(7), (1, 2, 3)),
    "Upsample bilinear": (lambda nn: nn.Upsample(None, (2, 1.5), "bilinear", align_corners=True), (1, 2, 3, 2)),
    "Upsample recomputed": (lambda nn: nn.Upsample(scale_factor=1.7, recompute_scale_factor=True), (1, 2, 3, 2)),
    "UpsamplingNearest2d": (lambda nn: nn.UpsamplingNearest2d(scale_factor=2), (1, 1, 2, 3)),
    "UpsamplingBilinear2d": (lambda nn: nn.UpsamplingBilinear2d((3, 4)), (1, 1, 2, 3)),
}


@pytest.mark.parametrize("name", [*PADS, *POOLS, *SHAPES])
def test_pads_and_pools(name: str) -> None:
    make, shape = {**PADS, **POOLS, **SHAPES}[name]
    compare(make, floats(*shape), modes=(True,))


@pytest.mark.parametrize("rank", [2, 3])
def test_pools_at_random_places(rank: int) -> None:
    drawn = np.random.default_rng(0).uniform(0, 1, (1, 2, rank)).astype(np.float32)
    results = []
    for library in (torch, graphc):
        make = getattr(library.nn, f"FractionalMaxPool{rank}d")
        layer = make(2, output_ratio=0.6, return_indices=True, _random_samples=to(library, drawn))
        x = to(library, floats(1, 2, *(5,) * rank))
        results.append((repr(layer), list(layer.state_dict()), layer.kernel_size, [t.numpy() for t in layer(x)]))
        free = make((2,) * rank, (3,) * rank)(x)
        assert tuple(free.shape) == (1, 2, *(3,) * rank) and float(free.max()) <= float(x.max())
        for options in ({}, {"output_size": 2, "output_ratio": 0.5}, {"output_ratio": 1.5}):
            with pytest.raises(ValueError, match="output"):
                make(2, **options)
    assert results[0][:3] == results[1][:3]
    for theirs, ours in zip(results[0][3], results[1][3], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_maxima_go_back(rank: int) -> None:
    results = []
    for library in (torch, graphc):
        pool = getattr(library.nn, f"MaxPool{rank}d")(2, return_indices=True)
        back = getattr(library.nn, f"MaxUnpool{rank}d")(2)
        x = to(library, floats(2, *(5,) * rank))
        best, places = pool(x)
        some = getattr(library.nn, f"AdaptiveMaxPool{rank}d")(2, return_indices=True)(x)
        results.append([t.numpy() for t in (best, places, back(best, places, x.shape[1:]), *some)])
        results[-1].append(repr((pool, back)))
    for wanted, found in zip(*results, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("bias", [True, False])
def test_bilinear(bias: bool) -> None:
    compare(lambda nn: nn.Bilinear(3, 4, 2, bias), floats(2, 5, 3), floats(2, 5, 4, seed=1), modes=(True,))
    layer = graphc.nn.Bilinear(4, 3, 2)
    assert all(abs(p.detach().numpy()).max() <= 0.5 for p in layer.parameters())
