"""MNIST and Fashion-MNIST, in the IDX files that were published."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from graphc import Tensor, from_numpy
from graphc.errors import UsageError
from graphc.vision.datasets.base import Transform, VisionDataset
from graphc.vision.download import fetch, open_maybe_gzip, read_exactly

_UNSIGNED_BYTES = 8
_MOST_DIMENSIONS = 4


def read_idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file or in its gzip form.

    Format: two zero bytes, a type code (8), the number of dimensions (at most 4), their sizes as big-endian i32, then
    the elements. RuntimeError for everything else.
    """
    with open_maybe_gzip(path) as file:
        try:
            magic = file.read(4)
            if len(magic) != 4 or magic[:3] != bytes((0, 0, _UNSIGNED_BYTES)) or magic[3] > _MOST_DIMENSIONS:
                raise UsageError(f"{path} is no IDX file of unsigned bytes: it begins with {magic.hex(' ')}")
            sizes = file.read(4 * magic[3])
            if len(sizes) != 4 * magic[3]:
                raise UsageError(f"{path} is damaged: it ends within its head")
            shape = tuple(int(n) for n in np.frombuffer(sizes, ">i4"))
            if min(shape, default=0) < 0:
                raise UsageError(f"{path} is damaged: its sizes are {shape}")
            return np.frombuffer(read_exactly(file, math.prod(shape), str(path)), np.uint8).reshape(shape)
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(f"{path} is damaged: {error}") from error


class MNIST(VisionDataset):
    """Handwritten digits, 28x28: 60 000 for training, 10 000 for testing (Y. LeCun, C. Cortes, C. Burges).

    Files stand in `root/MNIST/raw`, packed or not, as other tools leave them; `download=True` fetches them there.
    A sample is (PIL image of mode "L", label). `data` u8 [n,28,28] and `targets` i64 [n] hold all.
    RuntimeError when files are missing or damaged.
    """

    mirrors: ClassVar[tuple[str, ...]] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    files: ClassVar[dict[str, str]] = {  # SHA-256 of the packed files
        "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    }
    classes: ClassVar[list[str]] = [
        f"{i} - {name}"
        for i, name in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
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
        kind = "train" if train else "t10k"
        names = [f"{kind}-images-idx3-ubyte", f"{kind}-labels-idx1-ubyte"]
        if download:
            self.download()
        try:
            images, labels = (read_idx(self.raw_folder / name) for name in names)
        except FileNotFoundError:
            raise UsageError(
                f"Dataset not found in {self.raw_folder}. You can use download=True to download it"
            ) from None
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise UsageError(
                f"{self.raw_folder} is damaged: images of shape {images.shape}, labels of shape {labels.shape}"
            )
        self._images = images
        self.data: Tensor = from_numpy(images.copy())
        self.targets: Tensor = from_numpy(labels.astype(np.int64))

    @property
    def raw_folder(self) -> Path:
        """Where the files stand."""
        assert self.root is not None
        return self.root / type(self).__name__ / "raw"

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Label by class name."""
        return {name: i for i, name in enumerate(self.classes)}

    def download(self) -> None:
        """Fetch the files that are not there."""
        for name, sha256 in self.files.items():
            if not (self.raw_folder / name).exists():
                packed = name + ".gz"
                fetch([mirror + packed for mirror in self.mirrors], self.raw_folder / packed, sha256)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.prepared(Image.fromarray(self._images[index]), int(self.targets[index].item()))

    def extra_repr(self) -> str:
        """Which part it is."""
        return f"Split: {'Train' if self.train else 'Test'}"


class FashionMNIST(MNIST):
    """Pictures of clothes, 28x28: 60 000 for training, 10 000 for testing (H. Xiao, K. Rasul, R. Vollgraf, 2017)."""

    mirrors = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
    files: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    }
    classes: ClassVar[list[str]] = [
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    ]
