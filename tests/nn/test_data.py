"""Datasets, samplers and the loader."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest

import graphc as torch
from graphc.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    default_convert,
    random_split,
)


class Squares(Dataset):
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index):
        if not 0 <= index < self.size:
            raise IndexError(index)
        return {"x": torch.tensor([float(index)]), "y": index * index}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(5))


def rows(size: int) -> TensorDataset:
    return TensorDataset(torch.arange(2 * size).reshape(size, 2), torch.arange(size))


def test_tensor_dataset_gives_whole_batches() -> None:
    data = rows(5)
    assert len(data) == 5 and [part.tolist() for part in data[3]] == [[6, 7], 3]
    batches = list(DataLoader(data, batch_size=2))
    assert [y.tolist() for _, y in batches] == [[0, 1], [2, 3], [4]]
    assert batches[1][0].tolist() == [[4, 5], [6, 7]] and batches[1][0].dtype == torch.int64
    assert [y.tolist() for _, y in DataLoader(data, batch_size=2, drop_last=True)] == [[0, 1], [2, 3]]
    assert len(DataLoader(data, 2)) == 3 and len(DataLoader(data, 2, drop_last=True)) == 2
    with pytest.raises(AssertionError, match=r"Size mismatch between tensors: their first dimensions are \[2, 3\]"):
        TensorDataset(torch.ones(2), torch.ones(3))


def test_batches_do_not_change_with_the_data_afterwards() -> None:
    data = rows(4)
    _, first = next(iter(DataLoader(data, 2)))
    data.tensors[1].zero_()
    assert first.tolist() == [0, 1]
    assert next(iter(DataLoader(data, 2)))[1].tolist() == [0, 0]


def test_shuffling_takes_every_sample_once_and_follows_the_seed() -> None:
    data = rows(50)

    def order(generator=None):
        return [i for _, y in DataLoader(data, 8, shuffle=True, generator=generator) for i in y.tolist()]

    torch.manual_seed(1)
    first, second = order(), order()
    assert sorted(first) == sorted(second) == list(range(50)) and first != second != list(range(50))
    torch.manual_seed(1)
    assert order() == first
    assert order(torch.Generator().manual_seed(4)) == order(torch.Generator().manual_seed(4))


def test_samples_are_collated_one_by_one_where_there_are_no_batches() -> None:
    batch = next(iter(DataLoader(Squares(5), batch_size=3)))
    assert batch["x"].shape == (3, 1) and batch["y"].tolist() == [0, 1, 4] and batch["y"].dtype == torch.int64
    single = list(DataLoader(Squares(3), batch_size=None))
    assert [sample["y"] for sample in single] == [0, 1, 4]
    assert list(DataLoader(Squares(4), batch_size=2, collate_fn=len)) == [2, 2]
    given = DataLoader(Squares(9), batch_sampler=[[8, 1], [2]])
    assert [batch["y"].tolist() for batch in given] == [[64, 1], [4]] and len(given) == 2
    assert [b["y"].tolist() for b in DataLoader(Squares(9), sampler=[3, 2], batch_size=2)] == [[9, 4]]


def test_streams() -> None:
    assert [b.tolist() for b in DataLoader(Stream(), batch_size=2)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in DataLoader(Stream(), batch_size=2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(DataLoader(Stream(), batch_size=None)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="expected unspecified shuffle option, but got shuffle=True"):
        DataLoader(Stream(), shuffle=True)


def test_default_collate() -> None:
    Point = namedtuple("Point", "x y")
    joined = default_collate([Point(1, 2.5), Point(3, 4.5)])
    assert type(joined) is Point and joined.x.tolist() == [1, 3] and joined.y.dtype == torch.float64
    assert default_collate(["a", "b"]) == ["a", "b"]
    assert default_collate([np.float32(1), np.float32(2)]).dtype == torch.float32
    assert default_collate([np.ones(2), np.zeros(2)]).tolist() == [[1, 1], [0, 0]]
    assert default_collate([True, False]).dtype == torch.bool
    assert default_collate([(1, torch.ones(2)), (2, torch.ones(2))])[1].shape == (2, 2)
    with pytest.raises(RuntimeError, match="each element in list of batch should be of equal size"):
        default_collate([[1], [1, 2]])
    with pytest.raises(
        TypeError, match=r"must contain tensors, numpy arrays, numbers, dicts or lists; found <class 'set'>"
    ):
        default_collate([{1}])


def test_subsets_and_joins() -> None:
    data = rows(10)
    part = Subset(data, [7, 1, 3])
    assert [y.tolist() for _, y in DataLoader(part, 2)] == [[7, 1], [3]] and part[1][1].item() == 1
    both = ConcatDataset([data, rows(3)])
    assert len(both) == 13 and both[11][1].item() == 1 and both[-1][1].item() == 2
    assert len(data + data) == 20
    with pytest.raises(IndexError):
        both[13]
    torch.manual_seed(0)
    a, b, c = random_split(data, [0.5, 0.25, 0.25])
    assert (len(a), len(b), len(c)) == (6, 2, 2)
    assert sorted([*a.indices, *b.indices, *c.indices]) == list(range(10))
    with pytest.raises(ValueError, match="Sum of input lengths does not equal"):
        random_split(data, [3, 3])


def test_samplers() -> None:
    torch.manual_seed(0)
    assert list(SequentialSampler(range(3))) == [0, 1, 2]
    assert sorted(RandomSampler(range(6))) == list(range(6))
    drawn = list(RandomSampler(range(3), replacement=True, num_samples=200))
    assert set(drawn) == {0, 1, 2} and len(drawn) == 200
    twice = list(RandomSampler(range(4), num_samples=8))
    assert sorted(twice[:4]) == sorted(twice[4:]) == [0, 1, 2, 3]
    assert sorted(SubsetRandomSampler([5, 9, 2])) == [2, 5, 9]
    assert list(BatchSampler(SequentialSampler(range(5)), 2, False)) == [[0, 1], [2, 3], [4]]
    assert len(BatchSampler(SequentialSampler(range(5)), 2, True)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size should be a positive integer value, but got batch_size=0"),
        ({"shuffle": True, "sampler": [0]}, "sampler option is mutually exclusive with shuffle"),
        ({"batch_sampler": [[0]], "drop_last": True}, "batch_sampler option is mutually exclusive"),
        ({"batch_size": None, "drop_last": True}, "batch_size=None option disables auto-batching"),
        ({"num_workers": -1}, "num_workers option should be non-negative"),
        ({"timeout": -1}, "timeout option should be non-negative"),
    ],
)
def test_bad_loader_arguments(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataLoader(rows(3), **arguments)


def test_streams_in_a_row() -> None:
    chained = ChainDataset([Stream(), Stream()])
    assert [int(x) for x in chained] == [0, 1, 2, 3, 4] * 2
    with pytest.raises(TypeError, match="only supports IterableDataset"):
        list(ChainDataset([Squares(2)]))


def test_datasets_side_by_side() -> None:
    pairs = StackDataset(Squares(3), range(3))
    assert len(pairs) == 3 and pairs[2][1] == 2 and pairs[2][0]["y"] == 4
    named = StackDataset(first=range(3), second=[5, 6, 7])
    assert [b["second"].tolist() for b in DataLoader(named, 2)] == [[5, 6], [7]]
    with pytest.raises(ValueError, match=r"Size mismatch between datasets: \[3, 2\]"):
        StackDataset(range(3), range(2))
    with pytest.raises(ValueError, match="one or the other"):
        StackDataset()


def test_conversion_without_batches() -> None:
    found = default_convert({"a": [np.ones(2), 3], "b": (np.float32(2), "text")})
    assert isinstance(found["a"][0], torch.Tensor) and found["a"][1] == 3
    assert found["b"][0].item() == 2 and found["b"][1] == "text"


def test_weighted_draws() -> None:
    torch.manual_seed(0)
    drawn = list(WeightedRandomSampler([0.0, 3.0, 1.0], 4000))
    counts = np.bincount(drawn, minlength=3)
    assert counts[0] == 0 and abs(counts[1] - 3000) < 4 * (4000 * 0.75 * 0.25) ** 0.5
    assert sorted(WeightedRandomSampler([1.0, 1.0, 2.0], 3, replacement=False)) == [0, 1, 2]
    with pytest.raises(ValueError, match="1d sequence"):
        WeightedRandomSampler([[1.0]], 1)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="num_samples should be a positive integer"):
        WeightedRandomSampler([1.0], 0)
