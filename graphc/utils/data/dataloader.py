"""DataLoader: batches of a dataset's samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

from graphc import Generator, Tensor, as_tensor, float64, from_numpy, stack, tensor
from graphc.errors import UnsupportedError
from graphc.utils.data.dataset import Dataset, IterableDataset, can_gather
from graphc.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler

T = TypeVar("T")


def default_collate(batch: list[Any]) -> Any:
    """Joins samples into a batch: tensors and arrays are stacked, numbers become a tensor, tuples, named tuples, lists
    and mappings are joined entry by entry, texts stay a list. TypeError for anything else."""
    first = batch[0]
    if isinstance(first, Tensor):
        return stack(batch, 0)
    if isinstance(first, np.ndarray | np.generic):
        return from_numpy(np.stack([np.asarray(sample) for sample in batch]))
    if isinstance(first, float):
        return tensor(batch, dtype=float64)
    if isinstance(first, int):
        return as_tensor(batch)
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, Mapping):
        joined = {key: default_collate([sample[key] for sample in batch]) for key in first}
        return joined if type(first) is dict else type(first)(joined)  # type: ignore[call-arg]
    if isinstance(first, tuple | list):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [default_collate(list(column)) for column in zip(*batch, strict=True)]
        if isinstance(first, tuple) and hasattr(first, "_fields"):
            return type(first)(*columns)
        return columns
    raise TypeError(
        f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {type(first)}"
    )


def _as_is(sample: Any) -> Any:
    return from_numpy(np.asarray(sample)) if isinstance(sample, np.ndarray | np.generic) else sample


class DataLoader(Generic[T]):
    """Iterates over a dataset in batches, in the main process.

    `shuffle` draws a new random order for every pass, from `generator` or the global one. `batch_size=None` turns
    batching off. `sampler` and `batch_sampler` give the order themselves. A dataset with `gather` (TensorDataset,
    Digits and subsets of them) hands over whole batches. `num_workers` must be 0 (UnsupportedError); `pin_memory` has
    no effect on the CPU.
    """

    def __init__(
        self,
        dataset: Dataset[T],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        *,
        generator: Generator | None = None,
    ) -> None:
        if num_workers < 0:
            raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
        if num_workers > 0:
            raise UnsupportedError(f"DataLoader: num_workers={num_workers} is not supported yet; use num_workers=0")
        if timeout < 0:
            raise ValueError("timeout option should be non-negative")
        self.dataset = dataset
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self._stream = isinstance(dataset, IterableDataset)
        if self._stream:
            for name, given in (("shuffle", shuffle), ("sampler", sampler), ("batch_sampler", batch_sampler)):
                if given:
                    raise ValueError(
                        f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={given}"
                    )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size, drop_last = None, False
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        elif batch_size is not None and batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        if sampler is None and not self._stream:
            sampler = (
                RandomSampler(_sized(dataset), generator=generator) if shuffle else SequentialSampler(_sized(dataset))
            )
        if batch_size is not None and sampler is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self._gathers = collate_fn is None and can_gather(dataset)
        batching = batch_sampler is not None or (self._stream and batch_size is not None)
        self.collate_fn = collate_fn or (default_collate if batching else _as_is)

    def __iter__(self) -> Iterator[Any]:
        if self._stream:
            return self._stream_batches()
        return self._batches()

    def _batches(self) -> Iterator[Any]:
        dataset: Any = self.dataset
        if self.batch_sampler is None:
            assert self.sampler is not None
            for index in self.sampler:
                yield self.collate_fn(dataset[index])
            return
        for indices in self.batch_sampler:
            if self._gathers:
                yield dataset.gather(indices)
            else:
                yield self.collate_fn([dataset[index] for index in indices])

    def _stream_batches(self) -> Iterator[Any]:
        samples: Iterator[Any] = iter(self.dataset)
        if self.batch_size is None:
            for sample in samples:
                yield self.collate_fn(sample)
            return
        while batch := list(islice(samples, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield self.collate_fn(batch)

    def __len__(self) -> int:
        """Batches of one pass (samples without batching); TypeError for a stream of unknown length."""
        if not self._stream:
            counted: Any = self.sampler if self.batch_sampler is None else self.batch_sampler
            return len(counted)
        size = len(_sized(self.dataset))
        if self.batch_size is None:
            return size
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)


def _sized(dataset: Any) -> Sized:
    return dataset
