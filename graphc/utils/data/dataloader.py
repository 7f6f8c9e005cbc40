"""DataLoader: batches of a dataset's samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

from graphc import Generator, Tensor, as_tensor, float64, from_numpy, randint, stack, tensor
from graphc.errors import InputError, KindError, UnsupportedError, UsageError
from graphc.utils.data.dataset import Dataset, IterableDataset, can_gather
from graphc.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler
from graphc.utils.data.workers import Job, Workers

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
            raise UsageError("each element in list of batch should be of equal size")
        columns = [default_collate(list(column)) for column in zip(*batch, strict=True)]
        if isinstance(first, tuple) and hasattr(first, "_fields"):
            return type(first)(*columns)
        return columns
    raise KindError(
        f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {type(first)}"
    )


def default_convert(data: Any) -> Any:
    """Arrays and NumPy numbers as tensors, also inside of mappings, tuples and lists; all else as it is."""
    if isinstance(data, np.ndarray | np.generic):
        array = np.asarray(data)
        return data if array.dtype.kind in "SUO" else from_numpy(array)
    if isinstance(data, Mapping):
        made = {key: default_convert(value) for key, value in data.items()}
        return made if type(data) is dict else type(data)(made)  # type: ignore[call-arg]
    if isinstance(data, tuple | list):
        parts = [default_convert(value) for value in data]
        return type(data)(*parts) if hasattr(data, "_fields") else type(data)(parts)
    return data


class DataLoader(Generic[T]):
    """Iterates over a dataset in batches.

    `shuffle` draws a new random order for every pass, from `generator` or the global one. `batch_size=None` turns
    batching off. `sampler` and `batch_sampler` give the order themselves. A dataset with `gather` (TensorDataset,
    Digits and subsets of them) hands over whole batches.

    With `num_workers`, that many forked processes fetch batches, each `prefetch_factor` ahead; batches come in the same
    order. `worker_init_fn(id)` runs first in each; seeds differ between workers and passes and follow from the
    generator. `persistent_workers` keeps them from pass to pass. Exceptions of workers are raised here with their
    traceback; a batch that takes longer than `timeout` seconds is a RuntimeError. With `pin_memory`, batches lie in
    page-locked memory where there is a CUDA device.
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
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        if num_workers < 0:
            raise InputError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
        if timeout < 0:
            raise InputError("timeout option should be non-negative")
        if num_workers == 0 and prefetch_factor is not None:
            raise InputError(
                "prefetch_factor option could only be specified in multiprocessing. "
                "let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to None."
            )
        if prefetch_factor is not None and prefetch_factor < 0:
            raise InputError("prefetch_factor option should be non-negative")
        if persistent_workers and num_workers == 0:
            raise InputError("persistent_workers option needs num_workers > 0")
        method = getattr(multiprocessing_context, "get_start_method", lambda: multiprocessing_context)()
        if method not in (None, "fork"):
            raise UnsupportedError(
                f"DataLoader: workers are forked; multiprocessing_context={method!r} is not supported"
            )
        self.dataset = dataset
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers
        self._workers: Workers | None = None
        self._stream = isinstance(dataset, IterableDataset)
        if self._stream:
            for name, given in (("shuffle", shuffle), ("sampler", sampler), ("batch_sampler", batch_sampler)):
                if given:
                    raise InputError(
                        f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={given}"
                    )
        if sampler is not None and shuffle:
            raise InputError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise InputError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size, drop_last = None, False
        elif batch_size is None and drop_last:
            raise InputError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        elif batch_size is not None and batch_size <= 0:
            raise InputError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
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
        self.collate_fn = collate_fn or (default_collate if batching else default_convert)

    def __iter__(self) -> Iterator[Any]:
        batches = self._parallel_batches() if self.num_workers else self._fetched(self._start())
        return map(_pinned, batches) if self.pin_memory else batches

    def _order(self) -> Iterator[Any]:
        """The indices of each batch; for a stream nothing, without end."""
        if self._stream:
            return itertools.repeat(None)
        order = self.sampler if self.batch_sampler is None else self.batch_sampler
        assert order is not None
        return iter(order)

    def _fetched(self, fetch: Callable[[Any], Any]) -> Iterator[Any]:
        for indices in self._order():
            try:
                batch = fetch(indices)
            except _StreamEnd:
                return
            yield batch

    def _parallel_batches(self) -> Iterator[Any]:
        seed = int(randint(0, 1 << 62, (1,), generator=self.generator).item())
        workers = self._workers
        if workers is None:
            workers = Workers(Job(self.dataset, self._start, self.worker_init_fn), self.num_workers, seed)
            if self.persistent_workers:
                self._workers = workers
        workers.start_pass(seed)
        try:
            yield from workers.batches(self._order(), max(self.prefetch_factor or 1, 1), self.timeout)
        except GeneratorExit:
            self._workers = None  # a pass that is given up leaves batches in the pipes
            workers.close()
            raise
        finally:
            if not self.persistent_workers:
                workers.close()

    def _start(self) -> Callable[[Any], Any]:
        """What fetches the batch of some indices, for one pass."""
        dataset: Any = self.dataset
        if self._stream:
            return self._next_of(iter(dataset))
        if self.batch_sampler is None:
            return lambda index: self.collate_fn(dataset[index])
        if self._gathers:
            return dataset.gather
        if callable(getattr(dataset, "__getitems__", None)):
            return lambda indices: self.collate_fn(dataset.__getitems__(indices))
        return lambda indices: self.collate_fn([dataset[index] for index in indices])

    def _next_of(self, samples: Iterator[Any]) -> Callable[[Any], Any]:
        def fetch(_: Any) -> Any:
            if self.batch_size is None:
                found = list(islice(samples, 1))
                if not found:
                    raise _StreamEnd
                return self.collate_fn(found[0])  # type: ignore[arg-type]
            batch = list(islice(samples, self.batch_size))
            if not batch or (len(batch) < self.batch_size and self.drop_last):
                raise _StreamEnd
            return self.collate_fn(batch)

        return fetch

    def __len__(self) -> int:
        """Batches of one pass (samples without batching); TypeError for a stream of unknown length."""
        if not self._stream:
            counted: Any = self.sampler if self.batch_sampler is None else self.batch_sampler
            return len(counted)
        size = len(_sized(self.dataset))
        if self.batch_size is None:
            return size
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)


def _pinned(data: Any) -> Any:
    """Tensors in page-locked memory, also inside of mappings, tuples and lists; all else as it is."""
    if hasattr(data, "pin_memory"):
        return data.pin_memory()
    if isinstance(data, Mapping):
        return type(data)({key: _pinned(value) for key, value in data.items()})  # type: ignore[call-arg]
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*map(_pinned, data))
    return type(data)(map(_pinned, data)) if isinstance(data, tuple | list) else data


class _StreamEnd(StopIteration):
    """A stream has no more samples."""


def _sized(dataset: Any) -> Sized:
    return dataset
