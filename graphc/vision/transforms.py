"""Transformations of one image, under torchvision's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import Tensor, from_numpy, tensor


class Compose:
    """Applies several transformations one after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, img: Any) -> Any:
        for transform in self.transforms:
            img = transform(img)
        return img

    def __repr__(self) -> str:
        lines = "".join(f"    {transform}\n" for transform in self.transforms)
        return f"Compose(\n{lines})"


class ToTensor:
    """An array `[height, width]` or `[height, width, channels]` as a tensor `[channels, height, width]`.

    u8 becomes f32 in 0..1 (divided by 255); other dtypes stay as they are. TypeError unless it is an array, ValueError
    for another rank.
    """

    def __call__(self, pic: np.ndarray) -> Tensor:
        if not isinstance(pic, np.ndarray):
            raise TypeError(f"pic should be an ndarray. Got {type(pic)}")
        if pic.ndim not in (2, 3):
            raise ValueError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
        image = pic[:, :, None] if pic.ndim == 2 else pic
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
        return from_numpy(image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image)

    def __repr__(self) -> str:
        return "ToTensor()"


class Normalize:
    """(image - mean) / std for each channel of `[..., channels, height, width]`. ValueError when a std is zero."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if any(value == 0 for value in std):
            raise ValueError(f"std evaluated to zero, leading to division by zero: {list(std)}")
        self.mean = mean
        self.std = std

    def __call__(self, tensor_image: Tensor) -> Tensor:
        if not tensor_image.is_floating_point():
            raise TypeError(f"Input tensor should be a float tensor. Got {tensor_image.dtype}.")
        mean, std = (tensor(list(values), dtype=tensor_image.dtype).view(-1, 1, 1) for values in (self.mean, self.std))
        return (tensor_image - mean) / std

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


class Lambda:
    """Any function as a transformation."""

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        if not callable(lambd):
            raise TypeError(f"Argument lambd should be callable, got {type(lambd).__name__!r}")
        self.lambd = lambd

    def __call__(self, img: Any) -> Any:
        return self.lambd(img)

    def __repr__(self) -> str:
        return "Lambda()"
