"""Calls of torchvision's names, each a function of `(transforms, utils, make)`; `make(array)` gives a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
BATCH = np.random.default_rng(1).random((5, 3, 2, 3)).astype(np.float32)

Case = Callable[[Any, Any, Any], Any]

_BOTH: dict[str, Callable[[Any, Any], Any]] = {
    "resize 4": lambda f, x: f.resize(x, 4),
    "resize 3,6": lambda f, x: f.resize(x, (3, 6)),
    "resize 9,11": lambda f, x: f.resize(x, (9, 11)),
    "resize max": lambda f, x: f.resize(x, 6, max_size=7),
    "center 4": lambda f, x: f.center_crop(x, 4),
    "center larger": lambda f, x: f.center_crop(x, (8, 12)),
    "pad 2": lambda f, x: f.pad(x, 2),
    "pad 1,2": lambda f, x: f.pad(x, [1, 2]),
    "pad 4 sides": lambda f, x: f.pad(x, [1, 2, 3, 4]),
    "pad edge": lambda f, x: f.pad(x, [1, 2, 3, 4], padding_mode="edge"),
    "pad reflect": lambda f, x: f.pad(x, [1, 2, 3, 4], padding_mode="reflect"),
    "pad symmetric": lambda f, x: f.pad(x, [1, 2, 3, 4], padding_mode="symmetric"),
    "hflip": lambda f, x: f.hflip(x),
    "vflip": lambda f, x: f.vflip(x),
    "crop": lambda f, x: f.crop(x, 2, 3, 4, 5),
    "crop before": lambda f, x: f.crop(x, -2, -3, 5, 6),
    "crop behind": lambda f, x: f.crop(x, 5, 6, 4, 5),
    "brightness": lambda f, x: f.adjust_brightness(x, 1.3),
    "contrast": lambda f, x: f.adjust_contrast(x, 0.6),
    "saturation": lambda f, x: f.adjust_saturation(x, 1.7),
}
_IMAGE: dict[str, Callable[[Any, Any], Any]] = {
    "hue": lambda f, x: f.adjust_hue(x, 0.2),
    "hue back": lambda f, x: f.adjust_hue(x, -0.3),
    "rotate": lambda f, x: f.rotate(x, 30),
    "gray": lambda f, x: f.to_grayscale(x),
    "gray 3": lambda f, x: f.to_grayscale(x, 3),
    "to_tensor": lambda f, x: f.to_tensor(x),
    "to_tensor L": lambda f, x: f.to_tensor(x.convert("L")),
    "to_tensor 1": lambda f, x: f.to_tensor(x.convert("1")),
    "pil_to_tensor": lambda f, x: f.pil_to_tensor(x),
}
_FLOATS: dict[str, Callable[[Any, Any], Any]] = {
    "to_pil_image": lambda f, x: f.to_pil_image(x),
    "normalize": lambda f, x: f.normalize(x, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]),
    "resize plain": lambda f, x: f.resize(x, [4, 6], antialias=False),
    "resize plain up": lambda f, x: f.resize(x, [9, 10], antialias=False),
    "gray 3": lambda f, x: f.rgb_to_grayscale(x, 3),
}
_GRIDS: dict[str, dict[str, Any]] = {
    "grid": {},
    "grid nrow": {"nrow": 3},
    "grid tight": {"padding": 0},
    "grid normalised": {"normalize": True},
    "grid each": {"normalize": True, "scale_each": True},
    "grid range": {"normalize": True, "value_range": (0.2, 0.7)},
    "grid border": {"pad_value": 0.5},
}


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    image = Image.fromarray(PIXELS)
    planes = np.ascontiguousarray(PIXELS.transpose(2, 0, 1))
    floats = planes.astype(np.float32) / np.float32(255)
    for name, call in _BOTH.items():
        found[f"{name}, image"] = lambda t, u, make, call=call: call(t.functional, image)
        found[f"{name}, u8"] = lambda t, u, make, call=call: call(t.functional, make(planes))
        found[f"{name}, floats"] = lambda t, u, make, call=call: call(t.functional, make(floats))
    for name, call in _IMAGE.items():
        found[f"{name}, image"] = lambda t, u, make, call=call: call(t.functional, image)
    for name, call in _FLOATS.items():
        found[f"{name}, floats"] = lambda t, u, make, call=call: call(t.functional, make(floats))
    for name, options in _GRIDS.items():
        found[name] = lambda t, u, make, options=options: u.make_grid(make(BATCH), **options)
    found["grid of one channel"] = lambda t, u, make: u.make_grid(make(BATCH[:, :1]))
    found["grid of one image"] = lambda t, u, make: u.make_grid(make(BATCH[0, 0]))
    found["five crops"] = lambda t, u, make: t.FiveCrop(3)(make(floats))
    found["ten crops"] = lambda t, u, make: t.TenCrop(3)(image)
    return found


REPRS = (
    *("Resize(5)", "Resize((4, 5))", "CenterCrop(5)", "Pad(2)", "RandomCrop(4, padding=1)", "RandomHorizontalFlip()"),
    *("RandomVerticalFlip(0.1)", "RandomResizedCrop(8)", "FiveCrop(3)", "TenCrop(3)", "RandomRotation(20)"),
    *("RandomErasing()", "Grayscale()", "RandomGrayscale()", "ColorJitter(0.1, 0.2, (0.5, 1), 0.1)", "ColorJitter()"),
    *("Normalize((0.5,), (0.5,))", "ToTensor()", "ToPILImage()", "PILToTensor()", "Lambda(len)"),
    *("Compose([ToTensor(), Normalize([0.5], [0.5])])", "RandomApply([ToTensor()], 0.2)"),
    *("RandomChoice([ToTensor()])", "RandomOrder([ToTensor()])", "ConvertImageDtype(float)"),
)


def repr_of(text: str, transforms: Any) -> str:
    return repr(eval(text, dict(vars(transforms))))  # noqa: S307  a table of this file


def outcome(result: Any) -> list[dict[str, Any]]:
    """Shapes, dtypes and values of the arrays in a result."""
    parts = result if isinstance(result, tuple) else (result,)
    arrays = [np.asarray(p) if isinstance(p, Image.Image) else p.numpy() for p in parts]
    return [
        {
            "dtype": str(a.dtype),
            "shape": list(a.shape),
            "values": [round(float(v), 5) if a.dtype.kind == "f" else int(v) for v in a.ravel()],
        }
        for a in arrays
    ]
