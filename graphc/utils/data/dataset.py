"""Datasets: things with samples by number, or streams of samples.

A dataset may define `gather(indices)`, which returns the collated batch of several samples at once; `DataLoader` then
takes whole batches from it instead of single samples, as long as samples are collated the default way.
"""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from graphc import Generator, Tensor, randperm, tensor
from graphc.errors import CheckError, InputError, KindError, RangeError, UnsupportedError

T = TypeVar("T")


class Dataset(Generic[T]):
    """Base of datasets with samples by number: define `__getitem__` and `__len__`."""

    def __getitem__(self, index: Any) -> T:
        raise UnsupportedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Dataset[T]) -> ConcatDataset[T]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """Base of datasets that are streams: define `__iter__`."""

    def __iter__(self) -> Iterator[T]:
        raise UnsupportedError("Subclasses of IterableDataset should implement __iter__.")


def can_gather(dataset: Any) -> bool:
    """True when the dataset returns collated batches itself."""
    return callable(getattr(dataset, "gather", None))


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Sample i is the tuple of the i-th rows of the tensors, which all have the same first dimension."""

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise RangeError("TensorDataset needs at least one tensor")
        sizes = [tensor.size(0) for tensor in tensors]
        if any(size != sizes[0] for size in sizes):
            raise CheckError(f"Size mismatch between tensors: their first dimensions are {sizes}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].size(0)

    def gather(self, indices: Sequence[int]) -> list[Tensor]:
        """The batch of the samples `indices`, each tensor by one take where it lies. IndexError when out of range."""
        positions = np.asarray(indices, dtype=np.int64)
        return [_taken(part.detach(), positions) for part in self.tensors]


def _taken(part: Tensor, positions: np.ndarray) -> Tensor:
    if part.is_cuda:
        return part[tensor(positions, device=part.device)]
    return tensor(np.take(part.numpy(), positions, axis=0), device=part.device)


class Subset(Dataset[T]):
    """The samples of another dataset at given indices."""

    def __init__(self, dataset: Dataset[T], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices
        if can_gather(dataset):
            self.gather = self._gather

    def __getitem__(self, index: Any) -> T:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)

    def _gather(self, indices: Sequence[int]) -> Any:
        gather: Any = self.dataset
        return gather.gather([self.indices[i] for i in indices])


class ConcatDataset(Dataset[T]):
    """Several datasets one after the other."""

    def __init__(self, datasets: Iterable[Dataset[T]]) -> None:
        self.datasets: list[Any] = list(datasets)
        if not self.datasets:
            raise InputError("datasets should not be an empty iterable")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise InputError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(dataset) for dataset in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T:
        if not -len(self) <= index < len(self):
            raise RangeError(f"index {index} is out of range for a dataset of {len(self)} samples")
        index %= len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]


class ChainDataset(IterableDataset[T]):
    """Several streams one after the other."""

    def __init__(self, datasets: Iterable[Dataset[T]]) -> None:
        self.datasets = datasets

    def __iter__(self) -> Iterator[T]:
        for stream in self.datasets:
            if not isinstance(stream, IterableDataset):
                raise KindError("ChainDataset only supports IterableDataset")
            yield from stream

    def __len__(self) -> int:
        return sum(len(stream) for stream in self.datasets)  # type: ignore[arg-type]


class StackDataset(Dataset[Any]):
    """Sample i holds the i-th samples of several datasets of one size: a tuple, or by name a dict."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if bool(args) == bool(kwargs):
            raise InputError("StackDataset wants datasets by position or by name, one or the other")
        self.datasets: Any = kwargs or args
        sizes = [len(dataset) for dataset in (kwargs.values() if kwargs else args)]
        if any(size != sizes[0] for size in sizes):
            raise InputError(f"Size mismatch between datasets: {sizes}")
        self._length = sizes[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __len__(self) -> int:
        return self._length


def random_split(
    dataset: Dataset[T], lengths: Sequence[int | float], generator: Generator | None = None
) -> list[Subset[T]]:
    """Splits a dataset at random into parts of the given sizes, or fractions that add up to 1.

    Fractions are rounded down and what is left is handed out one by one from the first part. ValueError when sizes do
    not add up to the dataset's.
    """
    total = len(dataset)  # type: ignore[arg-type]
    sizes: list[int]
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        for i, fraction in enumerate(lengths):
            if not 0 <= fraction <= 1:
                raise InputError(f"Fraction at index {i} is not between 0 and 1")
        sizes = [math.floor(total * fraction) for fraction in lengths]
        for i in range(total - sum(sizes)):
            sizes[i % len(sizes)] += 1
        for i, size in enumerate(sizes):
            if size == 0:
                warnings.warn(
                    f"Length of split at index {i} is 0. This might result in an empty dataset.", stacklevel=2
                )
    else:
        sizes = [int(length) for length in lengths]
    if sum(sizes) != total:
        raise InputError(
            f"Sum of input lengths does not equal the length of the input dataset: {sizes} add up to {sum(sizes)}, "
            f"the dataset has {total} samples"
        )
    order = randperm(total, generator=generator).tolist()
    ends = list(itertools.accumulate(sizes))
    return [Subset(dataset, order[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
