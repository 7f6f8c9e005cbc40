"""CIFAR-10 and CIFAR-100, from their binary versions: records of labels and pixels, nothing to unpickle."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from graphc.errors import UsageError
from graphc.vision.datasets.base import Transform, VisionDataset
from graphc.vision.download import fetch, take_members

_PIXELS = 3 * 32 * 32
_PER_FILE = 10_000


class CIFAR10(VisionDataset):
    """Photographs, 32x32 in colour, ten classes: 50 000 for training, 10 000 for testing (A. Krizhevsky, 2009).

    The files of the binary version stand in `root/cifar-10-batches-bin`; `download=True` fetches the archive and takes
    them out of it. A sample is (PIL image of mode "RGB", label). `data` u8 [n,32,32,3] is a NumPy array, `targets` a
    list. RuntimeError when files are missing or damaged.
    """

    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    sha256: ClassVar[str] = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    base_folder: ClassVar[str] = "cifar-10-batches-bin"
    train_list: ClassVar[tuple[str, ...]] = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
    test_list: ClassVar[tuple[str, ...]] = ("test_batch.bin",)
    label_bytes: ClassVar[int] = 1  # the last one is the class
    per_file: ClassVar[int] = _PER_FILE
    classes: ClassVar[list[str]] = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        download: bool = False,
    ) -> None:
        super().__init__(root, transform=transform, target_transform=target_transform)
        self.train = train
        if download:
            self.download()
        parts = [self._records(name) for name in (self.train_list if train else self.test_list)]
        records = np.concatenate(parts)
        self.targets: list[int] = records[:, self.label_bytes - 1].astype(int).tolist()
        if max(self.targets, default=0) >= len(self.classes):
            raise UsageError(f"{self.folder} is damaged: there is a label {max(self.targets)}")
        planes = records[:, self.label_bytes :].reshape(-1, 3, 32, 32)
        self.data: np.ndarray = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))

    @property
    def folder(self) -> Path:
        """Where the files stand."""
        assert self.root is not None
        return self.root / self.base_folder

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Label by class name."""
        return {name: i for i, name in enumerate(self.classes)}

    def _records(self, name: str) -> np.ndarray:
        path, size = self.folder / name, self.label_bytes + _PIXELS
        try:
            content = np.fromfile(path, np.uint8)
        except FileNotFoundError:
            raise UsageError(
                f"Dataset not found or corrupted: there is no {path}. You can use download=True to download it"
            ) from None
        if content.size % size:
            raise UsageError(f"{path} is damaged: {content.size} bytes are not whole records of {size}")
        return content.reshape(-1, size)

    def download(self) -> None:
        """Fetch the archive and take the files out of it, unless they are there."""
        names = (*self.train_list, *self.test_list)
        assert self.root is not None
        if all((self.folder / name).exists() for name in names):
            return
        archive = self.root / self.url.rpartition("/")[2]
        fetch([self.url], archive, self.sha256)
        size = (self.label_bytes + _PIXELS) * self.per_file
        sizes = {f"{self.base_folder}/{name}": size * (5 if name == "train.bin" else 1) for name in names}
        take_members(archive, sizes, self.folder)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.prepared(Image.fromarray(self.data[index]), self.targets[index])

    def extra_repr(self) -> str:
        """Which part it is."""
        return f"Split: {'Train' if self.train else 'Test'}"


class CIFAR100(CIFAR10):
    """As CIFAR-10, with a hundred classes of 600 images each."""

    url = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
    sha256 = "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
    base_folder = "cifar-100-binary"
    train_list = ("train.bin",)
    test_list = ("test.bin",)
    label_bytes = 2  # the superclass stands before the class
    classes: ClassVar[list[str]] = (
        resources.files("graphc.vision.datasets").joinpath("cifar100.txt").read_text(encoding="utf-8").split()
    )
