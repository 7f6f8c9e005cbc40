"""`view(dtype)`: memory seen as elements of another dtype, read and written both ways."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest

import graphc as torch

DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8")


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("target", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_reads_and_writes_are_those_of_numpy(source: str, target: str, pending: bool) -> None:
    array = np.arange(-8, 8).astype(source).reshape(2, 8)
    tensor = torch.tensor(array) + 0 if pending else torch.tensor(array)
    seen, wanted = tensor.view(getattr(torch, target)), array.view(target)
    assert seen.clone().numpy().tobytes() == wanted.tobytes()
    assert seen.shape == wanted.shape and seen.stride() == tuple(s // wanted.itemsize for s in wanted.strides)
    seen[1, 1::2] = 3
    wanted[1, 1::2] = 3
    assert np.array_equal(tensor.numpy(), array, equal_nan=source[0] == "f")
    tensor[0] = 5
    array[0] = 5
    assert np.array_equal(seen.flip(0).numpy(), wanted[::-1], equal_nan=target[0] == "f")
    assert seen.numpy().tobytes() == wanted.tobytes()


def test_bools_are_bytes() -> None:
    bytes_ = torch.tensor([0, 1, 2, 0], dtype=torch.uint8)
    truth = bytes_.view(torch.bool)
    assert truth.tolist() == [False, True, True, False]
    assert truth.view(torch.uint8).tolist() == [0, 1, 2, 0]
    assert truth.view(2, 2).t().view(torch.uint8).tolist() == [[0, 2], [1, 0]]
    assert truth[:2].view(torch.int16).tolist() == [256] and truth[2:].view(torch.int16).tolist() == [2]
    truth[0] = True
    assert bytes_.tolist() == [1, 1, 2, 0]
    assert torch.tensor([True, False]).view(torch.int16).tolist() == [1]


def test_parts_of_parts_share_the_memory() -> None:
    base = torch.zeros(4, 4)
    half = base[1:3, :2].view(torch.float64)
    assert half.shape == (2, 1) and half.stride() == (2, 1) and half.storage_offset() == 2
    half.view(torch.int32)[1, 1] = 0x3F800000
    expected = torch.zeros(4, 4)
    expected[2, 1] = 1
    assert torch.equal(base, expected)
    base.view(torch.uint8).as_strided((2,), (3,), 20).fill_(255)
    assert base.view(torch.int32)[1].tolist() == [0, -16776961, 0, 0]


def test_numpy_sees_the_memory() -> None:
    base = torch.ones(2)
    array = base.view(torch.int32).numpy()
    array[0] = 0
    base[1] = 2
    assert base.tolist() == [0, 2] and array.tolist() == [0, 0x40000000]
    shared = torch.from_numpy(np.zeros(8, np.uint8))
    shared.view(torch.float32)[1] = 1
    assert shared.tolist() == [0, 0, 0, 0, 0, 0, 128, 63]


def _pickled(tensor: Any) -> Any:
    return pickle.loads(pickle.dumps(tensor))  # noqa: S301 - it was made here


def test_copies_keep_the_dtype() -> None:
    seen = torch.tensor([1.0, 2.0])[1:].view(torch.int32)
    file = io.BytesIO()
    torch.save(seen, file)
    file.seek(0)
    for other in (copy.deepcopy(seen), _pickled(seen), torch.load(file)):
        assert other.dtype == torch.int32 and other.tolist() == [0x40000000]
    odd = torch.zeros(7, dtype=torch.uint8)[:4].view(torch.float32)
    assert _pickled(odd).tolist() == [0] and odd.clone().resize_(1).tolist() == [0]


def test_views_count_as_the_memory_for_gradients() -> None:
    leaf = torch.ones(2, requires_grad=True)
    doubled = leaf * 2
    product = doubled * doubled
    doubled.view(torch.int32).zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()
    assert not leaf.view(torch.int32).requires_grad and doubled.tolist() == [0, 0]


def test_compiled_steps_write_through_views() -> None:
    state = torch.zeros(4)

    @torch.compile
    def step(x: Any) -> Any:
        state.view(torch.int32)[1] += 1
        return x.view(torch.int32) + state.view(torch.int32)

    for k in range(1, 5):
        assert step(torch.zeros(4)).tolist() == [0, k, 0, 0]
    assert state.view(torch.int32).tolist() == [0, 4, 0, 0]


def test_overlapping_views_are_not_written_from_each_other() -> None:
    base = torch.zeros(4)
    with pytest.raises(RuntimeError, match="single memory location"):
        base[:2].copy_(base.view(torch.float64)[:1])
    base[:2].copy_(base.view(torch.float64)[1:].expand(2))
