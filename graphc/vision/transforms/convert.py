"""Transformations that convert, and those made of others."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from graphc import Tensor, rand, randperm
from graphc.errors import InputError, KindError
from graphc.vision.transforms import functional as F


class Compose:
    """Applies several transformations one after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, img: Any) -> Any:
        for transform in self.transforms:
            img = transform(img)
        return img

    def __repr__(self) -> str:
        return "\n".join([f"{type(self).__name__}(", *(f"    {transform}" for transform in self.transforms), ")"])


class ToTensor:
    """A PIL image or an array `[height, width(, channels)]` as a tensor `[channels, height, width]`; u8 becomes f32 in
    0..1.
    """

    def __call__(self, pic: Any) -> Tensor:
        return F.to_tensor(pic)

    def __repr__(self) -> str:
        return "ToTensor()"


class PILToTensor:
    """A PIL image as a tensor `[channels, height, width]` of its own element type."""

    def __call__(self, pic: Any) -> Tensor:
        return F.pil_to_tensor(pic)

    def __repr__(self) -> str:
        return "PILToTensor()"


class ToPILImage:
    """A tensor `[channels, height, width]` or an array `[height, width(, channels)]` as a PIL image."""

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode

    def __call__(self, pic: Any) -> Any:
        return F.to_pil_image(pic, self.mode)

    def __repr__(self) -> str:
        return "ToPILImage()" if self.mode is None else f"ToPILImage(mode={self.mode})"


class ConvertImageDtype:
    """A tensor image in another dtype, integers being parts of their largest value and floats 0..1."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype

    def __call__(self, image: Tensor) -> Tensor:
        if image.is_floating_point() == self.dtype.is_floating_point:
            return image.to(self.dtype)
        if self.dtype.is_floating_point:
            return image.to(self.dtype) / _largest(image.dtype)
        return (image * (_largest(self.dtype) + 1 - 1e-3)).to(self.dtype)

    def __repr__(self) -> str:
        return "ConvertImageDtype()"


def _largest(dtype: Any) -> int:
    return (1 << (8 * dtype.itemsize - int(dtype.is_signed))) - 1


class Normalize:
    """(image - mean) / std for each channel of `[..., channels, height, width]`."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        self.mean = mean
        self.std = std
        self.inplace = inplace

    def __call__(self, image: Tensor) -> Tensor:
        return F.normalize(image, self.mean, self.std, self.inplace)

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


class Lambda:
    """Any function as a transformation."""

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        if not callable(lambd):
            raise KindError(f"Argument lambd should be callable, got {type(lambd).__name__!r}")
        self.lambd = lambd

    def __call__(self, img: Any) -> Any:
        return self.lambd(img)

    def __repr__(self) -> str:
        return "Lambda()"


class RandomApply(Compose):
    """Applies all of several transformations with probability `p`, else none."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: float = 0.5) -> None:
        super().__init__(transforms)
        self.p = p

    def __call__(self, img: Any) -> Any:
        return img if chance() > self.p else super().__call__(img)

    def __repr__(self) -> str:
        inner = [f"    {transform}" for transform in self.transforms]
        return "\n".join([f"{type(self).__name__}(", f"    p={self.p}", *inner, ")"])


class RandomChoice(Compose):
    """Applies one of several transformations, chosen with weights `p` (default: equal ones)."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: Sequence[float] | None = None) -> None:
        super().__init__(transforms)
        if p is not None and len(p) != len(self.transforms):
            raise InputError(f"p has {len(p)} weights for {len(self.transforms)} transforms")
        self.p = p

    def __call__(self, img: Any) -> Any:
        weights = [1.0] * len(self.transforms) if self.p is None else list(self.p)
        bounds = list(itertools.accumulate(weights))
        return self.transforms[bisect.bisect_right(bounds, chance() * bounds[-1])](img)

    def __repr__(self) -> str:
        return f"{super().__repr__()}(p={self.p})"


class RandomOrder(Compose):
    """Applies several transformations in a random order."""

    def __call__(self, img: Any) -> Any:
        for i in randperm(len(self.transforms)).tolist():
            img = self.transforms[i](img)
        return img


def chance() -> float:
    """A number in [0, 1) from the global generator."""
    return float(rand(1).item())


def between(low: float, high: float) -> float:
    """A number in [low, high) from the global generator."""
    return low + (high - low) * chance()
