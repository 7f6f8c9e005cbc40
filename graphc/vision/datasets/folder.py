"""Images in folders, one folder a class, and images made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from graphc.errors import InputError, RangeError
from graphc.vision.datasets.base import Transform, VisionDataset

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def default_loader(path: str) -> Image.Image:
    """The image in a file, as RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


class DatasetFolder(VisionDataset):
    """Files under `root/CLASS/**`, classes being the folders in alphabetical order.

    Files are chosen by `extensions`, or by `is_valid_file(path)`. `samples` holds (path, label). FileNotFoundError when
    there are no folders, or one has no fitting file (unless `allow_empty`).
    """

    def __init__(
        self,
        root: str | Path,
        loader: Callable[[str], Any],
        extensions: tuple[str, ...] | None = None,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ) -> None:
        super().__init__(root, transform=transform, target_transform=target_transform)
        if (extensions is None) == (is_valid_file is None):
            raise InputError("Both extensions and is_valid_file cannot be None or not None at the same time")
        self.loader = loader
        self.extensions = extensions
        self.classes, self.class_to_idx = self.find_classes(str(self.root))
        self.samples = self._find(is_valid_file, allow_empty)
        self.targets = [label for _, label in self.samples]

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Class names and their labels. FileNotFoundError when there are none."""
        classes = sorted(entry.name for entry in Path(directory).iterdir() if entry.is_dir())
        if not classes:
            raise FileNotFoundError(f"Couldn't find any class folder in {directory}.")
        return classes, {name: i for i, name in enumerate(classes)}

    def _find(self, is_valid_file: Callable[[str], bool] | None, allow_empty: bool) -> list[tuple[str, int]]:
        assert self.root is not None
        wanted = tuple(e.lower() for e in self.extensions or ())
        fits = is_valid_file or (lambda name: name.lower().endswith(wanted))
        samples: list[tuple[str, int]] = []
        empty = []
        for name, label in sorted(self.class_to_idx.items()):
            found = sorted(str(p) for p in (self.root / name).rglob("*") if p.is_file() and fits(str(p)))
            samples += [(path, label) for path in found]
            if not found:
                empty.append(name)
        if empty and not allow_empty:
            known = f" Supported extensions are: {', '.join(self.extensions)}" if self.extensions else ""
            raise FileNotFoundError(f"Found no valid file for the classes {', '.join(empty)}.{known}")
        return samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, label = self.samples[index]
        return self.prepared(self.loader(path), label)


class ImageFolder(DatasetFolder):
    """`DatasetFolder` for images: a sample is (PIL image of mode "RGB", label)."""

    def __init__(
        self,
        root: str | Path,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        loader: Callable[[str], Any] = default_loader,
        is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ) -> None:
        extensions = IMG_EXTENSIONS if is_valid_file is None else None
        super().__init__(root, loader, extensions, transform, target_transform, is_valid_file, allow_empty)
        self.imgs = self.samples


class FakeData(VisionDataset):
    """Random images of `image_size` (channels, height, width) with random labels; sample i is always the same."""

    def __init__(
        self,
        size: int = 1000,
        image_size: tuple[int, int, int] = (3, 224, 224),
        num_classes: int = 10,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        random_offset: int = 0,
    ) -> None:
        super().__init__(None, transform=transform, target_transform=target_transform)
        self.size = size
        self.image_size = image_size
        self.num_classes = num_classes
        self.random_offset = random_offset

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if not 0 <= index < self.size:
            raise RangeError(f"{type(self).__name__} index out of range")
        rng = np.random.default_rng(index + self.random_offset)
        channels, height, width = self.image_size
        pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        return self.prepared(image, int(rng.integers(self.num_classes)))
