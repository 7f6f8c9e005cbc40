"""What data sets of images share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphc.errors import InputError
from graphc.utils.data import Dataset

Transform = Callable[[Any], Any]


class StandardTransform:
    """A transformation for the image and one for the target, called on both."""

    def __init__(self, transform: Transform | None = None, target_transform: Transform | None = None) -> None:
        self.transform = transform
        self.target_transform = target_transform

    def __call__(self, input: Any, target: Any) -> tuple[Any, Any]:
        return (
            input if self.transform is None else self.transform(input),
            target if self.target_transform is None else self.target_transform(target),
        )

    def __repr__(self) -> str:
        lines = ["StandardTransform"]
        for head, what in (("Transform: ", self.transform), ("Target transform: ", self.target_transform)):
            if what is not None:
                lines.append(("\n" + " " * len(head)).join(f"{head}{what!r}".splitlines()))
        return "\n".join(lines)


class VisionDataset(Dataset[Any]):
    """Base of data sets of images under `root`. Give `transforms` (image, target) or the two single ones, not both."""

    def __init__(
        self,
        root: str | Path | None = None,
        transforms: Callable[[Any, Any], Any] | None = None,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
    ) -> None:
        if transforms is not None and (transform is not None or target_transform is not None):
            raise InputError("Only transforms or transform/target_transform can be passed as argument")
        self.root = Path(root).expanduser() if root is not None else None
        self.transform = transform
        self.target_transform = target_transform
        if transforms is None and (transform is not None or target_transform is not None):
            transforms = StandardTransform(transform, target_transform)
        self.transforms = transforms

    def __len__(self) -> int:
        raise NotImplementedError

    def prepared(self, image: Any, target: Any) -> tuple[Any, Any]:
        """A sample after the transformations."""
        return (image, target) if self.transforms is None else self.transforms(image, target)

    def extra_repr(self) -> str:
        """More lines for `repr`."""
        return ""

    def __repr__(self) -> str:
        body = [f"Number of datapoints: {len(self)}"]
        if self.root is not None:
            body.append(f"Root location: {self.root}")
        body += self.extra_repr().splitlines()
        if self.transforms is not None:
            body += repr(self.transforms).splitlines()
        return "\n    ".join([f"Dataset {type(self).__name__}", *body])
