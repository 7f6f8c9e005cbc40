"""Transformations of colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc import randperm
from graphc.errors import InputError
from graphc.vision.transforms import functional as F
from graphc.vision.transforms.convert import between, chance

Range = float | tuple[float, float]


class Grayscale:
    """Brightness only, in one channel or three."""

    def __init__(self, num_output_channels: int = 1) -> None:
        self.num_output_channels = num_output_channels

    def __call__(self, img: Any) -> Any:
        return F.to_grayscale(img, self.num_output_channels)

    def __repr__(self) -> str:
        return f"Grayscale(num_output_channels={self.num_output_channels})"


class RandomGrayscale:
    """Brightness only with probability `p`, in as many channels as before."""

    def __init__(self, p: float = 0.1) -> None:
        self.p = p

    def __call__(self, img: Any) -> Any:
        image = F.as_image(img)
        return F.to_grayscale(image, F.channels_of(image)) if chance() < self.p else image

    def __repr__(self) -> str:
        return f"RandomGrayscale(p={self.p})"


class ColorJitter:
    """Brightness, contrast, saturation and hue changed at random, in a random order.

    A number x means factors in [max(0, 1 - x), 1 + x], for the hue [-x, x]. ValueError outside the allowed ranges.
    """

    def __init__(self, brightness: Range = 0, contrast: Range = 0, saturation: Range = 0, hue: Range = 0) -> None:
        self.brightness = _range("brightness", brightness, 1, (0, float("inf")))
        self.contrast = _range("contrast", contrast, 1, (0, float("inf")))
        self.saturation = _range("saturation", saturation, 1, (0, float("inf")))
        self.hue = _range("hue", hue, 0, (-0.5, 0.5))

    def __call__(self, img: Any) -> Any:
        steps: list[tuple[Callable[[Any, float], Any], tuple[float, float] | None]] = [
            (F.adjust_brightness, self.brightness),
            (F.adjust_contrast, self.contrast),
            (F.adjust_saturation, self.saturation),
            (F.adjust_hue, self.hue),
        ]
        for i in randperm(len(steps)).tolist():
            adjust, bounds = steps[i]
            if bounds is not None:
                img = adjust(img, between(*bounds))
        return img

    def __repr__(self) -> str:
        return (
            f"ColorJitter(brightness={self.brightness}, contrast={self.contrast}, saturation={self.saturation}, "
            f"hue={self.hue})"
        )


def _range(name: str, given: Range, middle: float, bounds: tuple[float, float]) -> tuple[float, float] | None:
    """The range of factors; None where nothing changes."""
    if isinstance(given, int | float):
        if given < 0:
            raise InputError(f"If {name} is a single number, it must be non negative.")
        low, high = middle - given, middle + given
        if middle:
            low = max(low, 0.0)
    else:
        low, high = (float(v) for v in given)
    if not bounds[0] <= low <= high <= bounds[1]:
        raise InputError(f"{name} values should be between {bounds}, but got {[low, high]}.")
    return None if low == high == middle else (float(low), float(high))
