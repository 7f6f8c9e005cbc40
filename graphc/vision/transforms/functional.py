"""What the transformations do, as functions of one image: a PIL image, or a tensor `[..., channels, height, width]`.

Arrays `[height, width]` or `[height, width, channels]` of u8 count as PIL images. The kind of image stays.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

import graphc.nn.functional as F
from graphc import Tensor, from_numpy, tensor
from graphc.errors import InputError, KindError


class InterpolationMode(Enum):
    """How values between pixels are made up."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


_PIL_FILTERS = {mode: getattr(Image.Resampling, mode.name) for mode in InterpolationMode}


def is_tensor(img: Any) -> bool:
    """Whether the image is a tensor; TypeError for what is no image."""
    if isinstance(img, Tensor):
        if img.ndim < 2:
            raise KindError(f"Tensor is not a torch image: it has the shape {tuple(img.shape)}")
        return True
    if isinstance(img, Image.Image):
        return False
    raise KindError(f"img should be PIL Image, ndarray or Tensor. Got {type(img)}")


def as_image(img: Any) -> Any:
    """An array as a PIL image; all else as it is."""
    if not isinstance(img, np.ndarray):
        return img
    return Image.fromarray(img[:, :, 0] if img.ndim == 3 and img.shape[2] == 1 else img)


def get_image_size(img: Any) -> tuple[int, int]:
    """Width and height."""
    img = as_image(img)
    return (img.shape[-1], img.shape[-2]) if is_tensor(img) else img.size


def channels_of(img: Any) -> int:
    """Number of channels."""
    if is_tensor(img):
        return 1 if img.ndim == 2 else img.shape[-3]
    return len(img.getbands())


# conversions


def pil_to_tensor(pic: Any) -> Tensor:
    """A PIL image as a tensor `[channels, height, width]` of its own element type."""
    array = np.array(pic, np.uint8 if pic.mode == "1" else None)
    if pic.mode == "1":
        array = array * np.uint8(255)
    array = array[:, :, None] if array.ndim == 2 else array
    return from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def to_tensor(pic: Any) -> Tensor:
    """A PIL image or an array `[height, width(, channels)]` as a tensor `[channels, height, width]`; u8 becomes f32 in
    0..1. TypeError for anything else, ValueError for an array of another rank.
    """
    if isinstance(pic, np.ndarray):
        if pic.ndim not in (2, 3):
            raise InputError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
        image = pic[:, :, None] if pic.ndim == 2 else pic
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
        return from_numpy(image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image)
    if not isinstance(pic, Image.Image):
        raise KindError(f"pic should be PIL Image or ndarray. Got {type(pic)}")
    made = pil_to_tensor(pic)
    return from_numpy(made.numpy().astype(np.float32) / np.float32(255)) if made.numpy().dtype == np.uint8 else made


def to_pil_image(pic: Any, mode: str | None = None) -> Image.Image:
    """A tensor `[channels, height, width]` or array `[height, width(, channels)]` as a PIL image; floats are 0..1."""
    if isinstance(pic, Tensor):
        if pic.ndim not in (2, 3):
            raise InputError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
        array = pic.detach().cpu().numpy()
        array = array[None] if array.ndim == 2 else array
        if array.dtype.kind == "f":
            array = (array * 255).astype(np.uint8)
        array = array.transpose(1, 2, 0)
    elif isinstance(pic, np.ndarray):
        if pic.ndim not in (2, 3):
            raise InputError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
        array = pic[:, :, None] if pic.ndim == 2 else pic
    else:
        raise KindError(f"pic should be Tensor or ndarray. Got {type(pic)}.")
    if array.shape[2] > 4:
        raise InputError(f"pic should not have > 4 channels. Got {array.shape[2]} channels.")
    image = Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))
    return image if mode is None or image.mode == mode else image.convert(mode)


def normalize(image: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Tensor:
    """(image - mean) / std for each channel. TypeError unless floats, ValueError when a std is zero."""
    if not isinstance(image, Tensor):
        raise KindError(f"img should be Tensor Image. Got {type(image)}")
    if not image.is_floating_point():
        raise KindError(f"Input tensor should be a float tensor. Got {image.dtype}.")
    if image.ndim < 3:
        raise InputError(
            f"Expected tensor to be a tensor image of size (..., C, H, W). Got tensor.size() = {image.size()}"
        )
    if any(value == 0 for value in std):
        raise InputError(f"std evaluated to zero after conversion to {image.dtype}, leading to division by zero.")
    place = {"dtype": image.dtype, "device": image.device}
    middle, scale = (tensor(list(values), **place).view(-1, 1, 1) for values in (mean, std))
    return image.sub_(middle).div_(scale) if inplace else (image - middle) / scale


# geometry


def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    """The part `[top:top+height, left:left+width]`; what lies outside the image is zero."""
    img = as_image(img)
    if not is_tensor(img):
        return img.crop((left, top, left + width, top + height))
    w, h = get_image_size(img)
    inside = img[..., max(top, 0) : max(min(top + height, h), 0), max(left, 0) : max(min(left + width, w), 0)]
    around = [max(-left, 0), max(left + width - max(w, left), 0), max(-top, 0), max(top + height - max(h, top), 0)]
    return F.pad(inside, around) if any(around) else inside


def center_crop(img: Any, output_size: int | Sequence[int]) -> Any:
    """The middle part; smaller images are padded with zeros first."""
    height, width = pair_of(output_size)
    w, h = get_image_size(img)
    if width > w or height > h:
        left, top = max((width - w) // 2, 0), max((height - h) // 2, 0)
        img = pad(img, [left, top, max((width - w + 1) // 2, 0), max((height - h + 1) // 2, 0)])
        w, h = get_image_size(img)
    return crop(img, round((h - height) / 2.0), round((w - width) / 2.0), height, width)


def pair_of(size: int | Sequence[int]) -> tuple[int, int]:
    """A size as (height, width)."""
    if isinstance(size, numbers.Number):
        return int(size), int(size)  # type: ignore[arg-type]
    if len(size) == 1:  # type: ignore[arg-type]
        return size[0], size[0]  # type: ignore[index]
    return size[0], size[1]  # type: ignore[index]


def hflip(img: Any) -> Any:
    """Left and right exchanged."""
    img = as_image(img)
    return img.flip(-1) if is_tensor(img) else img.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def vflip(img: Any) -> Any:
    """Top and bottom exchanged."""
    img = as_image(img)
    return img.flip(-2) if is_tensor(img) else img.transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def pad(img: Any, padding: int | Sequence[int], fill: Any = 0, padding_mode: str = "constant") -> Any:
    """Pixels added around: one number, (left/right, top/bottom), or (left, top, right, bottom)."""
    img = as_image(img)
    given = [padding] if isinstance(padding, int) else list(padding)
    if len(given) not in (1, 2, 4):
        raise InputError(f"Padding must be an int or a 1, 2, or 4 element tuple, not a {len(given)} element tuple")
    if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
        raise InputError("Padding mode should be either constant, edge, reflect or symmetric")
    left, top, right, bottom = given * 4 if len(given) == 1 else given * 2 if len(given) == 2 else given
    if is_tensor(img):
        if padding_mode == "constant":
            return F.pad(img, [left, right, top, bottom], value=fill)
        around = [(0, 0)] * (img.ndim - 2) + [(top, bottom), (left, right)]
        padded = np.pad(img.detach().cpu().numpy(), around, mode=padding_mode)  # type: ignore[call-overload]
        return from_numpy(padded).to(img.device)
    if padding_mode == "constant":
        return ImageOps.expand(img, (left, top, right, bottom), fill=fill)
    array = np.asarray(img)
    around = [(top, bottom), (left, right)] + [(0, 0)] * (array.ndim - 2)
    return Image.fromarray(np.pad(array, around, mode=padding_mode))  # type: ignore[call-overload]


def resize(
    img: Any,
    size: int | Sequence[int],
    interpolation: InterpolationMode = InterpolationMode.BILINEAR,
    max_size: int | None = None,
    antialias: bool | None = True,
) -> Any:
    """To (height, width); a single number is the shorter side, `max_size` then bounds the longer one."""
    img = as_image(img)
    w, h = get_image_size(img)
    wanted = [size] if isinstance(size, int) else list(size)
    if len(wanted) == 1:
        short, long = min(w, h), max(w, h)
        new_short, new_long = wanted[0], int(wanted[0] * long / short)
        if max_size is not None:
            if max_size <= wanted[0]:
                raise InputError(
                    f"max_size = {max_size} must be strictly greater than the requested size for the smaller edge "
                    f"size = {size}"
                )
            if new_long > max_size:
                new_short, new_long = int(max_size * new_short / new_long), max_size
        width, height = (new_short, new_long) if w <= h else (new_long, new_short)
    else:
        height, width = wanted
    if (width, height) == (w, h):
        return img
    if not is_tensor(img):
        return img.resize((width, height), _PIL_FILTERS[interpolation])
    return _resize_tensor(img, height, width, interpolation, bool(antialias))


def _resize_tensor(img: Tensor, height: int, width: int, mode: InterpolationMode, antialias: bool) -> Tensor:
    """One matrix for the rows and one for the columns."""
    if mode not in (InterpolationMode.NEAREST, InterpolationMode.BILINEAR):
        raise InputError(f"This interpolation mode is unsupported with Tensor input: {mode.value}")
    h, w = img.shape[-2:]
    if mode is InterpolationMode.NEAREST:
        rows = (np.arange(height) * (h / height)).astype(np.int64)
        columns = (np.arange(width) * (w / width)).astype(np.int64)
        down, across = (from_numpy(places).to(img.device) for places in (rows, columns))
        return img.index_select(-2, down).index_select(-1, across)
    values = img if img.is_floating_point() else img.float()
    tables = (from_numpy(_triangle(n, m, antialias)) for n, m in ((h, height), (w, width)))
    down, across = (table.to(values.device, values.dtype) for table in tables)
    made = down @ values @ across.T
    return made if img.is_floating_point() else made.round().clamp(0, 255).to(img.dtype)


def _triangle(size: int, wanted: int, antialias: bool) -> np.ndarray:
    """Weights [wanted,size] of bilinear resizing; with `antialias` the triangle is as wide as the step where that is
    more than a pixel.
    """
    scale = size / wanted
    reach = max(scale, 1.0) if antialias else 1.0
    centre = (np.arange(wanted) + 0.5) * scale - 0.5
    if not antialias:
        centre = np.clip(centre, 0, size - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(size)[None] - centre[:, None]) / reach)
    return weights / weights.sum(1, keepdims=True)


def rotate(
    img: Any,
    angle: float,
    interpolation: InterpolationMode = InterpolationMode.NEAREST,
    expand: bool = False,
    center: Sequence[float] | None = None,
    fill: Any = None,
) -> Any:
    """Turned counter-clockwise by `angle` degrees; PIL images only."""
    img = as_image(img)
    if is_tensor(img):
        raise KindError("rotate: only PIL images can be rotated; convert with to_pil_image")
    at = None if center is None else (center[0], center[1])
    return img.rotate(angle, _PIL_FILTERS[interpolation], expand, at, fillcolor=fill)


def erase(img: Tensor, i: int, j: int, h: int, w: int, v: Any, inplace: bool = False) -> Tensor:
    """The part `[i:i+h, j:j+w]` replaced by `v`."""
    made = img if inplace else img.clone()
    made[..., i : i + h, j : j + w] = v
    return made


# colour


def to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """Brightness by ITU-R 601-2: 0.2989 R + 0.587 G + 0.114 B; in one channel or three."""
    if num_output_channels not in (1, 3):
        raise InputError("num_output_channels should be either 1 or 3")
    img = as_image(img)
    if not is_tensor(img):
        grey = img.convert("L")
        return grey if num_output_channels == 1 else Image.merge("RGB", (grey, grey, grey))
    if channels_of(img) == 1:
        grey = img
    else:
        red, green, blue = (img[..., c : c + 1, :, :].float() for c in range(3))
        grey = (0.2989 * red + 0.587 * green + 0.114 * blue).to(img.dtype)
    return grey if num_output_channels == 1 else grey.expand(*grey.shape[:-3], 3, *grey.shape[-2:]).clone()


rgb_to_grayscale = to_grayscale


def _blend(first: Tensor, second: Tensor, ratio: float) -> Tensor:
    top = 1.0 if first.is_floating_point() else 255.0
    return (ratio * first + (1.0 - ratio) * second).clamp(0, top).to(first.dtype)


def adjust_brightness(img: Any, brightness_factor: float) -> Any:
    """0 gives black, 1 the image, 2 twice as bright."""
    _not_negative("brightness_factor", brightness_factor)
    img = as_image(img)
    if not is_tensor(img):
        return ImageEnhance.Brightness(img).enhance(brightness_factor)
    return _blend(img, img * 0, brightness_factor)


def adjust_contrast(img: Any, contrast_factor: float) -> Any:
    """0 gives one grey, 1 the image."""
    _not_negative("contrast_factor", contrast_factor)
    img = as_image(img)
    if not is_tensor(img):
        return ImageEnhance.Contrast(img).enhance(contrast_factor)
    grey = to_grayscale(img) if channels_of(img) == 3 else img
    values = grey if grey.is_floating_point() else grey.float()
    return _blend(img, values.mean((-3, -2, -1), keepdim=True), contrast_factor)


def adjust_saturation(img: Any, saturation_factor: float) -> Any:
    """0 gives a grey image, 1 the image."""
    _not_negative("saturation_factor", saturation_factor)
    img = as_image(img)
    if not is_tensor(img):
        return ImageEnhance.Color(img).enhance(saturation_factor)
    return img if channels_of(img) == 1 else _blend(img, to_grayscale(img), saturation_factor)


def adjust_hue(img: Any, hue_factor: float) -> Any:
    """Hues turned by `hue_factor` of the circle (-0.5..0.5); PIL images only."""
    if not -0.5 <= hue_factor <= 0.5:
        raise InputError(f"hue_factor ({hue_factor}) is not in [-0.5, 0.5].")
    img = as_image(img)
    if is_tensor(img):
        raise KindError("adjust_hue: only PIL images are supported; convert with to_pil_image")
    if img.mode in ("L", "1", "I", "F"):
        return img
    hue, saturation, value = img.convert("HSV").split()
    turned = (np.array(hue, np.int64) + math.trunc(hue_factor * 255)) % 256
    moved = Image.fromarray(turned.astype(np.uint8))
    return Image.merge("HSV", (moved, saturation, value)).convert(img.mode)


def _not_negative(name: str, value: float) -> None:
    if value < 0:
        raise InputError(f"{name} ({value}) is not non-negative.")
