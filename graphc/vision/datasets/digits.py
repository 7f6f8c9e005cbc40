"""Handwritten digits that are part of the package."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import numpy as np

from graphc import Tensor, tensor
from graphc.errors import InputError, UsageError
from graphc.utils.data import Dataset

_DIGITS_FILE = "digits.npz"
_DIGITS_SHA256 = "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Images u8 [1797,8,8] with values 0..16 and labels u8 [1797], in the order of the original file."""
    content = resources.files("graphc.vision").joinpath(_DIGITS_FILE).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != _DIGITS_SHA256:
        raise UsageError(
            f"graphc/vision/{_DIGITS_FILE} is damaged: its SHA-256 is {found}, expected {_DIGITS_SHA256}; "
            "reinstall graphc"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays["images"], arrays["labels"]


def _is_test(labels: np.ndarray) -> np.ndarray:
    """The fixed split: samples sorted by label, equal ones in file order; every fifth one, from the first on, is a
    test."""
    chosen = np.zeros(labels.size, dtype=bool)
    chosen[np.argsort(labels, kind="stable")[::5]] = True
    return chosen


def _bilinear(size: int) -> np.ndarray:
    """The matrix [size,8] that resizes 8 values to `size`, pixel centres at half positions, edges repeated."""
    position = np.clip((np.arange(size) + 0.5) * 8 / size - 0.5, 0, 7)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, 7)
    matrix = np.zeros((size, 8))
    rows = np.arange(size)
    matrix[rows, low] += 1 - (position - low)
    matrix[rows, high] += position - low
    return matrix


class Digits(Dataset[Any]):
    """Handwritten digits: 1437 images for training, 360 for testing, resized to `size` x `size` (bilinear).

    A sample is (image f32 [1,size,size], label int). Images are normalised: mean 0 and standard deviation 1 over the
    training images. With `transform`, the image that it is given is u8 [size,size,1] with values 0..255 instead, as
    `transforms.ToTensor` expects. `data` f32 [n,1,size,size] and `targets` i64 [n] hold all samples.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    doi:10.24432/C50P49, CC BY 4.0; the 1797 images of its test set. `docs/digits.md` says how the file was made.
    """

    classes = tuple(str(digit) for digit in range(10))

    def __init__(
        self,
        train: bool = True,
        size: int = 32,
        transform: Callable[[np.ndarray], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"size should be a positive integer value, but got size={size}")
        self.train = train
        self.size = size
        self.transform = transform
        self.target_transform = target_transform
        images, labels = _digits()
        resize = _bilinear(size)
        resized = resize @ (images / 16.0) @ resize.T
        testing = _is_test(labels)
        training = resized[~testing]
        self.mean = float(training.mean())
        self.std = float(training.std())
        chosen = ~testing if train else testing
        values = resized[chosen]
        self._pixels = np.rint(values * 255).astype(np.uint8)[..., None]
        self._labels = labels[chosen].astype(np.int64)
        normalised = ((values - self.mean) / self.std).astype(np.float32)[:, None]
        self.data: Tensor = tensor(normalised)
        self.targets: Tensor = tensor(self._labels)
        if transform is None and target_transform is None:
            self.gather = self._gather

    def __len__(self) -> int:
        return self._labels.size

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image = self.data[index] if self.transform is None else self.transform(self._pixels[index])
        label = int(self._labels[index])
        return image, label if self.target_transform is None else self.target_transform(label)

    def _gather(self, indices: Sequence[int]) -> list[Tensor]:
        """The batch of the samples `indices`, by one take on the host."""
        positions = np.asarray(indices, dtype=np.int64)
        return [tensor(np.take(part.numpy(), positions, axis=0)) for part in (self.data, self.targets)]

    def __repr__(self) -> str:
        split = "Train" if self.train else "Test"
        side = self.size
        return f"Dataset Digits\n    Number of datapoints: {len(self)}\n    Split: {split}\n    Size: {side}x{side}"
