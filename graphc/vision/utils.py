"""Pictures made of batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from PIL import Image

from graphc import Tensor, no_grad, stack
from graphc.errors import KindError


@no_grad()
def make_grid(
    tensor: Tensor | list[Tensor],
    nrow: int = 8,
    padding: int = 2,
    normalize: bool = False,
    value_range: tuple[float, float] | None = None,
    scale_each: bool = False,
    pad_value: float = 0.0,
) -> Tensor:
    """Images `[n, channels, height, width]` (or a list of images) side by side, `nrow` in a row: `[channels, H, W]`.

    Single-channel images become three channels. `normalize` shifts values to 0..1 by `value_range`, or by the least and
    the greatest value (of each image with `scale_each`).
    """
    if not isinstance(tensor, Tensor) and not isinstance(tensor, list):
        raise KindError(f"tensor or list of tensors expected, got {type(tensor)}")
    if isinstance(tensor, list):
        for item in tensor:
            if not isinstance(item, Tensor):
                raise KindError(f"tensor or list of tensors expected, got a list containing {type(item)}")
        images = stack(tensor, 0)
    else:
        images = tensor
    if images.dim() == 2:
        images = images.unsqueeze(0)
    if images.dim() == 3:
        single = images.unsqueeze(0) if images.size(0) in (1, 3) else images.unsqueeze(1)
        images = single
    if images.size(1) == 1:
        images = images.expand(-1, 3, -1, -1)
    if value_range is not None and not isinstance(value_range, tuple):
        raise KindError("value_range has to be a tuple (min, max) if specified. min and max are numbers")
    if normalize:
        parts = [_scaled(image, value_range) for image in images] if scale_each else [_scaled(images, value_range)]
        images = stack(parts, 0) if scale_each else parts[0]
    if images.size(0) == 1:
        return images.squeeze(0)
    count, channels = images.size(0), images.size(1)
    columns = min(nrow, count)
    rows = math.ceil(count / columns)
    height, width = images.size(2) + padding, images.size(3) + padding
    grid = images.new_full((channels, height * rows + padding, width * columns + padding), pad_value)
    for place in range(count):
        top, left = place // columns * height + padding, place % columns * width + padding
        grid[:, top : top + height - padding, left : left + width - padding] = images[place]
    return grid


def _scaled(image: Tensor, value_range: tuple[float, float] | None) -> Tensor:
    low, high = value_range or (float(image.min().item()), float(image.max().item()))
    return image.clamp(min=low, max=high).sub(low).div(max(high - low, 1e-5))


@no_grad()
def save_image(tensor: Tensor | list[Tensor], fp: str | Path | Any, format: str | None = None, **kwargs: Any) -> None:
    """Write an image, or the grid of a batch, to a file; values are 0..1. `kwargs` are those of `make_grid`."""
    grid = make_grid(tensor, **kwargs)
    pixels = grid.mul(255).add(0.5).clamp(0, 255).permute(1, 2, 0).cpu().numpy().astype("uint8")
    Image.fromarray(pixels).save(fp, format=format)
