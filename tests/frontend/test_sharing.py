"""Memory shared with NumPy, DLPack and copies, also while work is pending."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc_runtime.buffer import Buffer

VIEWS = [
    lambda a: a,
    lambda a: a.T,
    lambda a: a[::2],
    lambda a: a[1:, 1:3],
    lambda a: a[::2, ::3],
    lambda a: a[1::2, 2],
    lambda a: a.reshape(2, 2, 6).transpose(2, 0, 1),
    lambda a: a[2:3],
    lambda a: np.asfortranarray(a),
]


@pytest.mark.parametrize("view", VIEWS)
def test_arrays_of_any_nested_strides_are_shared_both_ways(view: Any) -> None:
    array = view(np.arange(24.0).reshape(4, 6))
    tensor = torch.from_numpy(array)
    assert tensor.tolist() == array.tolist()
    assert tensor.stride() == tuple(s // 8 for s in array.strides)
    place = (0,) * array.ndim
    array[place] = 100
    later = tensor + 1
    array[place] = 200  # `later` was recorded before
    assert later[place].item() == 101
    tensor[place] = 300
    assert array[place] == 300
    tensor.mul_(2)
    assert array.tolist() == tensor.tolist()


def test_a_read_only_array_is_shared_with_a_warning() -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    with pytest.warns(UserWarning, match="not writable"):
        tensor = torch.from_numpy(array)
    tensor[0] = 5
    assert array[0] == 5


def test_numpy_of_a_view_shares_its_memory() -> None:
    base = torch.zeros(3, 4)
    view = base.t()[1]
    array = view.numpy()
    array[:] = [1, 2, 3]
    assert base[:, 1].tolist() == [1, 2, 3]
    base.add_(1)
    pending = base * 2
    array[0] = 50
    assert pending[0, 1].item() == 4
    assert view.tolist() == [50, 3, 4]


def test_dlpack_shares_memory_both_ways() -> None:
    tensor = torch.arange(4.0)
    array = np.from_dlpack(tensor)
    tensor.add_(1)
    assert array.tolist() == [1, 2, 3, 4]
    other = torch.from_dlpack(np.arange(3))
    assert other.dtype is torch.int64
    source = np.zeros((2, 3), np.float32)
    taken = torch.from_dlpack(source)
    taken[1, 1] = 7
    source[0, 0] = 3
    assert taken.tolist() == source.tolist() == [[3, 0, 0], [0, 7, 0]]
    through = torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(tensor))
    through[0] = -1
    assert tensor[0].item() == -1


def test_dlpack_refuses_what_it_cannot_carry() -> None:
    with pytest.raises(BufferError, match="gradient"):
        torch.ones(2, requires_grad=True).__dlpack__()
    with pytest.raises(BufferError, match="bfloat16"):
        torch.ones(2, dtype=torch.bfloat16).__dlpack__()
    with pytest.raises(RuntimeError, match="invalid capsule"):
        torch.from_dlpack(3)


def test_numpy_functions_and_operators_give_tensors() -> None:
    tensor, array = torch.tensor([1.0, 2.0]), np.array([3.0, 4.0])
    for made in (tensor + array, array + tensor, array * tensor, np.add(tensor, array), tensor @ array):
        assert isinstance(made, torch.Tensor)
        assert made.dtype is torch.float64
    assert np.sin(tensor).dtype is torch.float32
    assert (np.float64(2) * tensor).dtype is torch.float32
    assert (tensor == np.array([1.0, 3.0])).tolist() == [True, False]
    assert np.isnan(tensor).dtype is torch.uint8
    array += tensor
    assert array.tolist() == [4.0, 6.0]
    out = np.zeros(2, np.float32)
    assert np.add(tensor, tensor, out=out) is out
    with pytest.raises(RuntimeError, match="requires grad"):
        np.exp(torch.ones(2, requires_grad=True))


@pytest.mark.parametrize("copies", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])  # noqa: S301 - the test's own bytes
def test_pickle_and_deepcopy_keep_what_is_shared(copies: Any) -> None:
    base = torch.arange(6.0).view(2, 3)
    leaf = torch.ones(2, requires_grad=True)
    leaf.note = "kept"
    first, view, again, same = copies([base, base.t()[1], leaf, base])
    first[0, 1] = 50
    assert view.tolist() == [50, 4]
    assert same is first
    assert base[0, 1].item() == 1
    assert again.requires_grad and again.note == "kept"
    parameter = copies(torch.nn.Parameter(torch.ones(1)))
    assert type(parameter) is torch.nn.Parameter and parameter.requires_grad


def test_copy_copy_shares_memory() -> None:
    tensor = torch.zeros(2)
    other = copy.copy(tensor)
    other[0] = 1
    assert tensor.tolist() == [1, 0]


def test_deepcopy_of_a_non_leaf_is_refused() -> None:
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(torch.ones(1, requires_grad=True) * 2)


def test_a_larger_resize_keeps_the_contents_and_leaves_views_alone() -> None:
    tensor = torch.arange(4.0)
    view = tensor[:2]
    tensor.resize_(2, 3)
    assert tensor.tolist() == [[0, 1, 2], [3, 0, 0]]
    assert view.tolist() == [0, 1]


def test_storages_know_who_shares_them() -> None:
    tensor = torch.zeros(2, 3)
    assert tensor.untyped_storage() == tensor.t().untyped_storage()
    assert tensor.untyped_storage() != tensor.clone().untyped_storage()
    assert tensor[1].data_ptr() == tensor.untyped_storage().data_ptr() + 12


def test_fill_and_copy_take_what_torch_takes() -> None:
    tensor = torch.zeros(2, dtype=torch.uint8)
    for wrong, kind, message in (
        (lambda: tensor.fill_(300), RuntimeError, "without overflow"),
        (lambda: tensor.fill_(torch.zeros(1)), RuntimeError, "0-dimension"),
        (lambda: tensor.fill_("a"), TypeError, "Number"),
        (lambda: tensor.copy_([1, 2]), TypeError, "must be Tensor, not list"),
    ):
        with pytest.raises(kind, match=message):
            wrong()
    assert tensor.tolist() == [0, 0]
    assert tensor.fill_(torch.tensor(3)).tolist() == [3, 3]
    assert tensor.copy_(4).tolist() == [4, 4]
    assert tensor.is_set_to(tensor.view(2)) and not tensor.is_set_to(tensor.clone())


ROWS, COLUMNS = 1 << 10, 1 << 9
READS: dict[str, Any] = {
    "index": lambda x, i: x[i],
    "index_select": lambda x, i: x.index_select(0, i),
    "gather": lambda x, i: x.gather(0, i.reshape(-1, 1)),
    "embedding": lambda x, i: torch.nn.functional.embedding(i, x),
    "sum": lambda x, i: x.sum(1),
    "twice": lambda x, i: x * x,
    "transposed": lambda x, i: x.t() @ x[:, 0],
    "part": lambda x, i: x[1:] * 3,
}


@pytest.mark.parametrize("lend", [torch.from_numpy, torch.tensor])
@pytest.mark.parametrize("name", READS)
def test_large_memory_that_numpy_may_write_is_not_copied(
    name: str, lend: Any, native_recording: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    x, i = lend(array), torch.tensor([3, 500, 3])
    seen = x.numpy()
    copies: list[int] = []
    whole = Buffer.copy
    monkeypatch.setattr(Buffer, "copy", lambda self: copies.append(self.nbytes) or whole(self))
    expected = READS[name](torch.tensor(array), i).numpy()
    del copies[:]
    found = [READS[name](x, i) for _ in range(6)]
    seen[:] = 0
    assert not copies or max(copies) < array.nbytes
    for each in found:
        np.testing.assert_array_equal(each.numpy(), expected)
    assert not READS[name](x, i).any()


def test_gradients_read_what_memory_of_numpy_held_before() -> None:
    array = np.ones((ROWS, COLUMNS), np.float32)
    x, w = torch.from_numpy(array), torch.full((COLUMNS,), 2.0, requires_grad=True)
    index = torch.from_numpy(np.arange(ROWS * COLUMNS) % COLUMNS)
    loss = (x * w).sum() + w[index].sum()
    array[:] = 5
    index.numpy()[:] = 0
    loss.backward()
    assert w.grad is not None
    assert w.grad.tolist() == [2 * ROWS] * COLUMNS


def test_an_index_out_of_range_leaves_memory_of_numpy_alone() -> None:
    array = np.ones((ROWS, COLUMNS), np.float32)
    x = torch.from_numpy(array)
    with pytest.raises(IndexError, match="out of bounds for dimension 0"):
        x[torch.tensor([ROWS])].tolist()
    later = x[torch.tensor([1])] + 1
    array[1] = 7
    assert later[0, 0].item() == 2
    assert x.sum().item() == ROWS * COLUMNS + 6 * COLUMNS


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.float64, np.bool_])
def test_large_tensors_made_from_arrays_begin_with_a_cache_line(dtype: Any) -> None:
    source = np.random.default_rng(0).integers(0, 9, (200, 100)).astype(dtype)
    for array in (source, source.T, source[:, ::2], np.asfortranarray(source)):
        made = torch.tensor(array, dtype=torch.float32)
        assert made.data_ptr() % 64 == 0
        np.testing.assert_array_equal(made.numpy(), array.astype(np.float32))
        assert not np.shares_memory(made.numpy(), array)
