"""Worker processes of the loader: order, streams, seeds, errors, death and waiting."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

import graphc as torch
from graphc.errors import UnsupportedError
from graphc.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info


class Numbers(Dataset[Any]):
    def __init__(self, size: int = 11) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return torch.tensor([float(index)]) * 2, index


class Parts(IterableDataset[Any]):
    """Each worker gives every n-th number."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, self.size, step))


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    gc.collect()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_come_in_order(workers: int, drop_last: bool) -> None:
    alone = list(DataLoader(Numbers(), 2, drop_last=drop_last))
    shared = DataLoader(Numbers(), 2, drop_last=drop_last, num_workers=workers)
    for _ in range(2):
        batches = list(shared)
        assert [b[1].tolist() for b in batches] == [b[1].tolist() for b in alone]
        assert [b[0].tolist() for b in batches] == [b[0].tolist() for b in alone]


def test_single_samples_whole_batches_and_a_collate_function() -> None:
    assert [y for _, y in DataLoader(Numbers(5), batch_size=None, num_workers=2)] == [0, 1, 2, 3, 4]
    rows = TensorDataset(torch.arange(6).view(3, 2))
    assert [b[0].tolist() for b in DataLoader(rows, 2, num_workers=2)] == [[[0, 1], [2, 3]], [[4, 5]]]
    summed = DataLoader(Numbers(5), 2, num_workers=2, collate_fn=lambda samples: sum(y for _, y in samples))
    assert list(summed) == [1, 5, 4]


def test_streams_are_shared_out_by_the_dataset() -> None:
    loader = DataLoader(Parts(7), 2, num_workers=2)
    assert [b.tolist() for b in loader] == [[0, 2], [1, 3], [4, 6], [5]]
    assert sorted(DataLoader(Parts(7), None, num_workers=3)) == list(range(7))


class Seeds(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[int, int, float]:
        info = get_worker_info()
        assert info is not None
        return info.id, info.seed, torch.rand(1).item()


def test_seeds_follow_from_the_generator_and_differ_between_workers() -> None:
    def draw() -> list[Any]:
        loader = DataLoader(Seeds(), None, num_workers=2, generator=torch.Generator().manual_seed(5))
        return [*loader, *loader]

    first = draw()
    assert first == draw()
    assert [w for w, _, _ in first[:4]] == [0, 1, 0, 1]
    assert first[1][1] == first[0][1] + 1
    assert len({value for _, _, value in first}) == 8
    assert get_worker_info() is None


def test_workers_may_persist() -> None:
    class Pids(Numbers):
        def __getitem__(self, index: int) -> Any:
            return os.getpid()

    loader = DataLoader(Pids(6), None, num_workers=2, persistent_workers=True)
    assert set(loader) == set(loader)
    again = DataLoader(Pids(6), None, num_workers=2)
    assert set(again).isdisjoint(set(again))


def test_a_pass_may_be_given_up() -> None:
    for persistent in (False, True):
        loader = DataLoader(Numbers(100), 2, num_workers=2, persistent_workers=persistent)
        passing = iter(loader)
        assert next(passing)[1].tolist() == [0, 1]
        del passing
        assert next(iter(loader))[1].tolist() == [0, 1]
        assert len(list(loader)) == 50


class Failing(Numbers):
    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error = error

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            raise self.error("sample five")
        return index


def test_errors_come_with_the_workers_traceback() -> None:
    loader = DataLoader(Failing(ValueError), 2, num_workers=2, persistent_workers=True)
    for _ in range(2):
        batches = iter(loader)
        assert next(batches).tolist() == [0, 1]
        assert next(batches).tolist() == [2, 3]
        with pytest.raises(ValueError, match=r"(?s)Caught ValueError in DataLoader worker process 0\..*sample five"):
            next(batches)


def test_errors_that_cannot_be_sent_become_runtime_errors() -> None:
    class Local(Exception):
        pass

    with pytest.raises(RuntimeError, match=r"(?s)Caught Local in DataLoader worker process 0.*sample five"):
        list(DataLoader(Failing(Local), 2, num_workers=2))


def test_a_worker_that_dies_is_noticed() -> None:
    class Dying(Numbers):
        def __getitem__(self, index: int) -> Any:
            if index == 4:
                os._exit(7)
            return index

    with pytest.raises(RuntimeError, match=r"worker \(pid \d+\) exited unexpectedly with exit code 7"):
        list(DataLoader(Dying(), 2, num_workers=2))


def test_a_batch_that_takes_too_long() -> None:
    class Slow(Numbers):
        def __getitem__(self, index: int) -> Any:
            time.sleep(60)

    with pytest.raises(RuntimeError, match=r"timed out after 0\.2 seconds"):
        next(iter(DataLoader(Slow(), 2, num_workers=1, timeout=0.2)))


def test_the_init_function_runs_once_in_each_worker() -> None:
    class Marked(Numbers):
        mark = -1

        def __getitem__(self, index: int) -> int:
            return self.mark

    data = Marked(4)

    def init(worker: int) -> None:
        data.mark = 10 + worker

    assert list(DataLoader(data, None, num_workers=2, worker_init_fn=init)) == [10, 11, 10, 11]
    assert data.mark == -1


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"num_workers": -1}, ValueError, "non-negative"),
        ({"prefetch_factor": 2}, ValueError, "prefetch_factor option could only be specified in multiprocessing"),
        ({"persistent_workers": True}, ValueError, "persistent_workers option needs num_workers > 0"),
        ({"num_workers": 1, "multiprocessing_context": "spawn"}, UnsupportedError, "workers are forked"),
        ({"timeout": -1}, ValueError, "timeout option should be non-negative"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        DataLoader(Numbers(), **options)
