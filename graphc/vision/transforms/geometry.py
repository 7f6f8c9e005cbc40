"""Transformations that move pixels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from graphc import Tensor, randint, randn
from graphc.errors import InputError, KindError
from graphc.vision.transforms import functional as F
from graphc.vision.transforms.convert import between, chance
from graphc.vision.transforms.functional import InterpolationMode

Size = int | Sequence[int]


def _below(limit: int) -> int:
    return int(randint(0, limit, (1,)).item())


class Resize:
    """To (height, width); a single number is the shorter side."""

    def __init__(
        self,
        size: Size,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        max_size: int | None = None,
        antialias: bool | None = True,
    ) -> None:
        if not isinstance(size, int | Sequence):
            raise KindError(f"Size should be int or sequence. Got {type(size)}")
        if not isinstance(size, int) and len(size) not in (1, 2):
            raise InputError("If size is a sequence, it should have 1 or 2 values")
        self.size = size
        self.interpolation = interpolation
        self.max_size = max_size
        self.antialias = antialias

    def __call__(self, img: Any) -> Any:
        return F.resize(img, self.size, self.interpolation, self.max_size, self.antialias)

    def __repr__(self) -> str:
        return (
            f"Resize(size={self.size}, interpolation={self.interpolation.value}, max_size={self.max_size}, "
            f"antialias={self.antialias})"
        )


class CenterCrop:
    """The middle part."""

    def __init__(self, size: Size) -> None:
        self.size = F.pair_of(size)

    def __call__(self, img: Any) -> Any:
        return F.center_crop(img, self.size)

    def __repr__(self) -> str:
        return f"CenterCrop(size={self.size})"


class Pad:
    """Pixels added around."""

    def __init__(self, padding: Size, fill: Any = 0, padding_mode: str = "constant") -> None:
        self.padding = padding
        self.fill = fill
        self.padding_mode = padding_mode

    def __call__(self, img: Any) -> Any:
        return F.pad(img, self.padding, self.fill, self.padding_mode)

    def __repr__(self) -> str:
        return f"Pad(padding={self.padding}, fill={self.fill}, padding_mode={self.padding_mode})"


class RandomCrop:
    """A part of `size` at a random place. ValueError when the image is smaller, unless `pad_if_needed`."""

    def __init__(
        self,
        size: Size,
        padding: Size | None = None,
        pad_if_needed: bool = False,
        fill: Any = 0,
        padding_mode: str = "constant",
    ) -> None:
        self.size = F.pair_of(size)
        self.padding = padding
        self.pad_if_needed = pad_if_needed
        self.fill = fill
        self.padding_mode = padding_mode

    def __call__(self, img: Any) -> Any:
        if self.padding is not None:
            img = F.pad(img, self.padding, self.fill, self.padding_mode)
        height, width = self.size
        w, h = F.get_image_size(img)
        if self.pad_if_needed and w < width:
            img = F.pad(img, [width - w, 0], self.fill, self.padding_mode)
        if self.pad_if_needed and h < height:
            img = F.pad(img, [0, height - h], self.fill, self.padding_mode)
        w, h = F.get_image_size(img)
        if h < height or w < width:
            raise InputError(f"Required crop size {(height, width)} is larger than input image size {(h, w)}")
        if (w, h) == (width, height):
            return img
        return F.crop(img, _below(h - height + 1), _below(w - width + 1), height, width)

    def __repr__(self) -> str:
        return f"RandomCrop(size={self.size}, padding={self.padding})"


class RandomHorizontalFlip:
    """Left and right exchanged with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, img: Any) -> Any:
        return F.hflip(img) if chance() < self.p else img

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip(p={self.p})"


class RandomVerticalFlip:
    """Top and bottom exchanged with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, img: Any) -> Any:
        return F.vflip(img) if chance() < self.p else img

    def __repr__(self) -> str:
        return f"RandomVerticalFlip(p={self.p})"


class RandomResizedCrop:
    """A part of random area (`scale` of the image's) and aspect ratio (`ratio`), resized to `size`."""

    def __init__(
        self,
        size: Size,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        antialias: bool | None = True,
    ) -> None:
        if scale[0] > scale[1] or ratio[0] > ratio[1]:
            warnings.warn("Scale and ratio should be of kind (min, max)", stacklevel=2)
        self.size = F.pair_of(size)
        self.scale = scale
        self.ratio = ratio
        self.interpolation = interpolation
        self.antialias = antialias

    def place(self, img: Any) -> tuple[int, int, int, int]:
        """Top, left, height and width of the part; the largest one in the middle after ten failures."""
        w, h = F.get_image_size(img)
        for _ in range(10):
            area = w * h * between(*self.scale)
            aspect = math.exp(between(math.log(self.ratio[0]), math.log(self.ratio[1])))
            width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < width <= w and 0 < height <= h:
                return _below(h - height + 1), _below(w - width + 1), height, width
        width, height = w, h
        if w / h < min(self.ratio):
            height = round(w / min(self.ratio))
        elif w / h > max(self.ratio):
            width = round(h * max(self.ratio))
        return (h - height) // 2, (w - width) // 2, height, width

    def __call__(self, img: Any) -> Any:
        part = F.crop(img, *self.place(img))
        return F.resize(part, self.size, self.interpolation, antialias=self.antialias)

    def __repr__(self) -> str:
        scale, ratio = (tuple(round(v, 4) for v in pair) for pair in (self.scale, self.ratio))
        return (
            f"RandomResizedCrop(size={self.size}, scale={scale}, ratio={ratio}, "
            f"interpolation={self.interpolation.value}, antialias={self.antialias})"
        )


class FiveCrop:
    """The four corners and the middle, as a tuple."""

    def __init__(self, size: Size) -> None:
        self.size = F.pair_of(size)

    def __call__(self, img: Any) -> tuple[Any, ...]:
        height, width = self.size
        w, h = F.get_image_size(img)
        if width > w or height > h:
            raise InputError(f"Requested crop size {self.size} is bigger than input size {(h, w)}")
        corners = [(0, 0), (0, w - width), (h - height, 0), (h - height, w - width)]
        return (*(F.crop(img, top, left, height, width) for top, left in corners), F.center_crop(img, self.size))

    def __repr__(self) -> str:
        return f"FiveCrop(size={self.size})"


class TenCrop:
    """`FiveCrop` of the image, then of the mirrored image."""

    def __init__(self, size: Size, vertical_flip: bool = False) -> None:
        self.size = F.pair_of(size)
        self.vertical_flip = vertical_flip

    def __call__(self, img: Any) -> tuple[Any, ...]:
        five = FiveCrop(self.size)
        return (*five(img), *five(F.vflip(img) if self.vertical_flip else F.hflip(img)))

    def __repr__(self) -> str:
        return f"TenCrop(size={self.size}, vertical_flip={self.vertical_flip})"


class RandomRotation:
    """Turned by a random angle of `degrees`, (low, high) or +-degrees; PIL images only."""

    def __init__(
        self,
        degrees: float | tuple[float, float],
        interpolation: InterpolationMode = InterpolationMode.NEAREST,
        expand: bool = False,
        center: Sequence[float] | None = None,
        fill: Any = 0,
    ) -> None:
        if isinstance(degrees, int | float):
            if degrees < 0:
                raise InputError("If degrees is a single number, it must be positive.")
            degrees = (-degrees, degrees)
        self.degrees = [float(d) for d in degrees]
        self.interpolation = interpolation
        self.expand = expand
        self.center = center
        self.fill = fill

    def __call__(self, img: Any) -> Any:
        return F.rotate(img, between(*self.degrees), self.interpolation, self.expand, self.center, self.fill)

    def __repr__(self) -> str:
        more = f", center={self.center}" if self.center is not None else ""
        return (
            f"RandomRotation(degrees={self.degrees}, interpolation={self.interpolation.value}, expand={self.expand}"
            f"{more}, fill={self.fill})"
        )


class RandomErasing:
    """A random rectangle of a tensor image replaced by `value` (a number, one for each channel, or "random")."""

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: Any = 0,
        inplace: bool = False,
    ) -> None:
        if isinstance(value, str) and value != "random":
            raise InputError("If value is str, it should be 'random'")
        if not 0 <= p <= 1:
            raise InputError("Random erasing probability should be between 0 and 1")
        self.p, self.scale, self.ratio, self.value, self.inplace = p, scale, ratio, value, inplace

    def __call__(self, img: Tensor) -> Tensor:
        if chance() >= self.p:
            return img
        channels, h, w = img.shape[-3:]
        for _ in range(10):
            area = h * w * between(*self.scale)
            aspect = math.exp(between(math.log(self.ratio[0]), math.log(self.ratio[1])))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height < h and width < w:
                top, left = _below(h - height + 1), _below(w - width + 1)
                value: Any = self.value
                if value == "random":
                    value = randn(channels, height, width)
                elif isinstance(value, Sequence):
                    value = img.new_tensor(list(value)).view(-1, 1, 1)
                return F.erase(img, top, left, height, width, value, self.inplace)
        return img

    def __repr__(self) -> str:
        return (
            f"RandomErasing(p={self.p}, scale={self.scale}, ratio={self.ratio}, value={self.value}, "
            f"inplace={self.inplace})"
        )
