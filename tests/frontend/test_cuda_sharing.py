"""Memory of CUDA devices shared with other libraries: the array interface, DLPack, and who may write it."""

from __future__ import annotations

import ctypes
import gc
import weakref
from typing import Any

import numpy as np
import pytest

import graphc as torch
from tests.runtime.recording_driver import RecordingDevice


@pytest.fixture(autouse=True)
def at_once(cuda: list[RecordingDevice]) -> None:
    """Work of the devices is done when it is begun: what others write comes in between."""
    for device in cuda:
        device.eager = True


def memory_at(facts: dict[str, Any]) -> np.ndarray:
    """What an interface shows: the devices of these tests are in the memory of the host."""
    dtype, shape = np.dtype(facts["typestr"]), facts["shape"]
    strides = facts["strides"] or np.empty(shape, dtype).strides
    last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + dtype.itemsize
    flat = np.frombuffer((ctypes.c_char * last).from_address(facts["data"][0]), np.uint8)
    return np.lib.stride_tricks.as_strided(flat[: dtype.itemsize].view(dtype), shape, strides)


class Foreign:
    """An array of another library on the device."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        array = self.array
        return {
            "version": 3,
            "typestr": array.dtype.str,
            "shape": array.shape,
            "strides": None if array.flags.c_contiguous else array.strides,
            "data": (array.ctypes.data, False),
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 1


def test_the_array_interface_shows_the_memory() -> None:
    x = torch.arange(12.0, device="cuda").reshape(3, 4)
    y = x + 1
    facts = y.t().__cuda_array_interface__
    assert (facts["shape"], facts["strides"], facts["version"], facts["typestr"]) == ((4, 3), (4, 16), 3, "<f4")
    np.testing.assert_array_equal(memory_at(facts), np.arange(1, 13, dtype=np.float32).reshape(3, 4).T)
    assert y.__cuda_array_interface__["strides"] is None
    assert torch.zeros(0, 2, device="cuda").__cuda_array_interface__["data"][0] == 0


def test_writes_of_others_are_seen_and_writes_here_too() -> None:
    x = torch.zeros(3, device="cuda")
    shown = memory_at(x.__cuda_array_interface__)
    shown[1] = 5
    y = x * 2
    shown[1] = 6
    assert y.tolist() == [0, 10, 0] and x.tolist() == [0, 6, 0]
    x.add_(1)
    assert x.sum().item() == 9 and shown.tolist() == [1, 7, 1]


def test_arrays_of_others_are_copied_or_shared() -> None:
    foreign = Foreign(np.arange(6, dtype=np.float32).reshape(2, 3))
    made = torch.tensor(foreign)
    narrow = torch.tensor(foreign, dtype=torch.int64, device="cpu", requires_grad=False)
    held = torch.asarray(foreign, copy=True)
    shared = torch.asarray(foreign)
    assert (made.device, narrow.device, held.device, shared.device) == (
        torch.device("cuda:1"),
        torch.device("cpu"),
        torch.device("cuda:1"),
        torch.device("cuda:1"),
    )
    for tensor in (made, narrow, held, shared):
        tensor.data_ptr()
    foreign.array[:] = 7
    assert made.tolist() == narrow.tolist() == held.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert shared.tolist() == [[7, 7, 7], [7, 7, 7]]
    with pytest.raises(ValueError, match="can't alias tensor from device 'cuda:1' to 'cpu'"):
        torch.asarray(foreign, device="cpu", copy=False)


def test_the_array_interface_is_refused() -> None:
    assert not hasattr(torch.ones(2), "__cuda_array_interface__")
    with pytest.raises(RuntimeError, match="requires grad"):
        _ = torch.ones(2, device="cuda", requires_grad=True).__cuda_array_interface__
    with pytest.raises(RuntimeError, match="bfloat16"):
        _ = torch.ones(2, device="cuda", dtype=torch.bfloat16).__cuda_array_interface__


def test_arrays_of_others_are_shared() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = torch.as_tensor(Foreign(array))
    assert x.get_device() == 1 and x.tolist() == array.tolist()
    array[0, 0] = 9
    assert x.sum().item() == array.sum()
    x.mul_(2)
    assert x.tolist() == array.tolist() and array[0, 0] == 18
    assert torch.as_tensor(Foreign(array.T)).tolist() == array.T.tolist()
    assert torch.as_tensor(Foreign(array), dtype=torch.int32, device="cpu").tolist() == array.astype(int).tolist()


def test_arrays_that_begin_anywhere_are_parts_of_aligned_memory() -> None:
    memory = np.zeros(16, np.float32)
    first = -memory.ctypes.data % 16 // 4
    array = memory[first + 1 : first + 7]
    array[:] = np.arange(6)
    for given in (array, array.reshape(2, 3), array.reshape(2, 3).T, array[:1]):
        x = torch.as_tensor(Foreign(given))
        assert x.data_ptr() == given.ctypes.data and x.shape == given.shape
        assert x._storage.buffer.ptr % 16 == 0
        assert x.tolist() == given.tolist() and (x + 1).tolist() == (given + 1).tolist()
    x = torch.as_tensor(Foreign(array))
    x.add_(1)
    assert x.sum().item() == 21 and memory.sum() == 21 and memory[first] == 0


def test_memory_of_others_lives_as_long_as_it_is_used() -> None:
    foreign = Foreign(np.ones(3, np.float32))
    alive = weakref.ref(foreign)
    x = torch.as_tensor(foreign)
    del foreign
    gc.collect()
    assert alive() is not None and x.sum().item() == 3
    del x
    torch.zeros(1, device="cuda").sum().item()  # another program, so that nothing keeps the leaves of the last one
    torch.zeros(2, device="cuda").sum().item()
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "uint8", "bool"])
def test_capsules_go_round(dtype: str) -> None:
    x = torch.tensor([[0, 1, 2], [3, 4, 5]], device="cuda:1").to(getattr(torch, dtype))
    assert x.__dlpack_device__() == (2, 1)
    for given in (x, x.t(), x[:, 1]):
        made = torch.from_dlpack(Capsule(given))
        assert (made.dtype, made.stride(), made.get_device()) == (x.dtype, given.stride(), 1)
        assert made.tolist() == given.tolist() and made.data_ptr() == given.data_ptr()


class Capsule:
    """A tensor through its capsule alone."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.__dlpack_device__()


def test_capsules_share_memory_until_they_are_gone() -> None:
    from graphc.tensors import dlpack

    held = len(dlpack._given)
    x = torch.zeros(3, device="cuda")
    made = torch.from_dlpack(Capsule(x))
    made.add_(1)
    assert made.tolist() == [1, 1, 1] and x.tolist() == [1, 1, 1]
    assert len(dlpack._given) == held + 1
    capsule = x.__dlpack__()
    assert len(dlpack._given) == held + 2
    del capsule  # nobody took it
    assert len(dlpack._given) == held + 1
    del made
    torch.zeros(1, device="cuda").sum().item()
    torch.zeros(2, device="cuda").sum().item()
    gc.collect()
    assert len(dlpack._given) == held


def test_a_capsule_is_taken_once() -> None:
    capsule = torch.ones(2, device="cuda").__dlpack__()

    class Again:
        def __dlpack__(self, **options: Any) -> Any:
            return capsule

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    assert torch.from_dlpack(Again()).tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="can be consumed only once"):
        torch.from_dlpack(Again())


def test_capsules_that_are_refused() -> None:
    with pytest.raises(BufferError, match="require gradient"):
        torch.ones(2, device="cuda", requires_grad=True).__dlpack__()
    with pytest.raises(BufferError, match="is on cuda:0"):
        torch.ones(2, device="cuda").__dlpack__(dl_device=(1, 0))
    with pytest.raises(BufferError, match="is on cpu"):
        torch.ones(2).__dlpack__(dl_device=(2, 0))


def test_copies_of_capsules() -> None:
    x = torch.zeros(2, device="cuda")
    made = torch.from_dlpack(Capsule(x), copy=True)
    made.add_(1)
    assert x.tolist() == [0, 0] and made.tolist() == [1, 1]
