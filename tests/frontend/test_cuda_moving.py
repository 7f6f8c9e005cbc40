"""Tensors between devices: where they are, how they get there, what they say of it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc.errors import DeviceError
from tests.runtime.recording_driver import RecordingDevice

pytestmark = pytest.mark.usefixtures("cuda")


def test_a_tensor_says_where_it_is() -> None:
    x = torch.tensor([1.0, 2.0], device="cuda")
    assert x.device == torch.device("cuda:0") and x.device.index == 0
    assert (x.is_cuda, x.is_cpu, x.get_device()) == (True, False, 0)
    assert x.type() == "torch.cuda.FloatTensor"
    assert torch.ones(2, device="cuda:1").get_device() == 1
    y = x.cpu()
    assert (y.is_cuda, y.is_cpu, y.get_device(), y.type()) == (False, True, -1, "torch.FloatTensor")


def test_there_and_back() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    x = torch.tensor(array)
    for moved in (
        x.cuda(),
        x.to("cuda"),
        x.to("cuda:0"),
        x.to(torch.device("cuda", 0)),
        x.to(device="cuda"),
        x.cuda(0),
    ):
        assert moved.device == torch.device("cuda:0")
        np.testing.assert_array_equal(moved.cpu().numpy(), array)
    other = x.cuda().to("cuda:1")
    assert other.get_device() == 1
    np.testing.assert_array_equal(other.to("cpu").numpy(), array)


def test_nothing_moves_that_is_there() -> None:
    x = torch.ones(3)
    assert x.cpu() is x and x.to("cpu") is x
    y = x.cuda()
    assert y.cuda() is y and y.to("cuda:0") is y and y.to(y) is y
    assert y.to("cuda", copy=True) is not y
    assert x.to(y).is_cuda and x.type_as(y).is_cuda


def test_dtype_and_device_together() -> None:
    x = torch.tensor([1.5, -2.5, 300.0])
    y = x.to("cuda", torch.float16)
    assert (y.dtype, y.is_cuda) == (torch.float16, True)
    z = y.to("cpu", torch.int32)
    assert (z.dtype, z.is_cuda, z.tolist()) == (torch.int32, False, [1, -2, 300])
    assert x.type("torch.cuda.DoubleTensor").type() == "torch.cuda.DoubleTensor"
    assert x.cuda().type(torch.FloatTensor).device.type == "cpu"
    assert x.cuda().double().is_cuda


def test_views_move_as_their_elements() -> None:
    x = torch.arange(24.0).reshape(4, 6)
    for view in (x.t(), x[1:3, ::2], x[:, 1], x[2], x.expand(2, 4, 6), x.reshape(2, 2, 6).permute(2, 0, 1)):
        np.testing.assert_array_equal(view.cuda().cpu().numpy(), view.numpy())


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"]
)
def test_every_dtype_moves(dtype: str) -> None:
    x = torch.tensor([0, 1, 2, 100], dtype=getattr(torch, dtype))
    assert x.cuda().tolist() == x.tolist()
    assert torch.tensor([True, False]).cuda().tolist() == [True, False]
    assert torch.zeros(0, 3).cuda().cpu().shape == (0, 3)


def test_values_are_looked_at_by_copies() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda")
    assert x[1, 0].item() == 3.0 and float(x[0, 1]) == 2.0 and bool(x[0, 0] == 1)
    assert x.tolist() == [[1.0, 2.0], [3.0, 4.0]] and x.t().tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert [row.sum().item() for row in x] == [3.0, 7.0]
    assert x[:, 1].tolist() == [2.0, 4.0] and 3.0 in x


def test_a_look_at_one_element_copies_one(cuda: list[RecordingDevice]) -> None:
    x = torch.arange(1000.0).cuda()
    x.sum().item()
    cuda[0].calls.clear()
    assert x[17].item() == 17.0
    assert [call[3] for call in cuda[0].calls if call[0] == "copy_out"] == [4]


def test_text() -> None:
    x = torch.tensor([1.0, 2.5], device="cuda:1")
    assert repr(x) == "tensor([1.0000, 2.5000], device='cuda:1')"
    assert repr(x.requires_grad_()) == "tensor([1.0000, 2.5000], device='cuda:1', requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 5.], device='cuda:1', grad_fn=<MulBackward0>)"
    assert repr(torch.zeros(0, device="cuda", dtype=torch.int32)) == "tensor([], device='cuda:0', dtype=torch.int32)"


def test_numpy_wants_the_cpu() -> None:
    x = torch.ones(2, device="cuda")
    message = r"can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu\(\) to copy the tensor to host memory"
    with pytest.raises(TypeError, match=message):
        x.numpy()
    with pytest.raises(TypeError, match=message):
        np.asarray(x)
    assert x.numpy(force=True).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda d: torch.zeros(2, 3, device=d),
        lambda d: torch.ones((4,), device=d, dtype=torch.int64),
        lambda d: torch.full((2, 2), 7, device=d),
        lambda d: torch.empty(3, device=d),
        lambda d: torch.empty_strided((2, 3), (1, 2), device=d),
        lambda d: torch.eye(3, device=d),
        lambda d: torch.arange(5, device=d),
        lambda d: torch.arange(0.5, 2, 0.25, device=d),
        lambda d: torch.linspace(0, 1, 5, device=d),
        lambda d: torch.tensor([[1, 2], [3, 4]], device=d),
        lambda d: torch.as_tensor([1.0, 2.0], device=d),
        lambda d: torch.asarray([1.0, 2.0], device=d),
        lambda d: torch.scalar_tensor(3.0, device=d),
        lambda d: torch.tril_indices(3, 3, device=d),
        lambda d: torch.hann_window(5, device=d),
        lambda d: torch.randperm(6, device=d) * 0,
        lambda d: torch.ones(3, device=d).new_zeros(2),
        lambda d: torch.ones(3, device=d).new_tensor([1, 2]),
        lambda d: torch.ones(3, device=d).new_full((2,), 5.0),
        lambda d: torch.ones_like(torch.zeros(2, 3, device=d)),
        lambda d: torch.full_like(torch.zeros(2, 3, device=d), 9),
        lambda d: torch.zeros_like(torch.ones(3), device=d),
    ],
)
def test_factories_make_on_their_device(make: Any) -> None:
    made, expected = make("cuda:1"), make("cpu")
    assert made.device == torch.device("cuda:1") and made.dtype == expected.dtype
    assert made.stride() == expected.stride() and made.tolist() == expected.tolist()


def test_the_default_device() -> None:
    with torch.device("cuda:1"):
        assert torch.zeros(2).get_device() == 1
        assert torch.tensor([1.0]).get_device() == 1
        assert torch.tensor([1.0], device="cpu").get_device() == -1
        x = torch.ones(3, device="cuda:0")
        assert torch.zeros_like(x).get_device() == 0 and x.new_zeros(1).get_device() == 0
        assert (x.nonzero().get_device(), x[torch.tensor([0, 1], device="cpu")].get_device()) == (0, 0)
    torch.set_default_device("cuda")
    try:
        assert torch.rand(2).is_cuda and torch.get_default_device() == torch.device("cuda")
        assert torch.from_numpy(np.ones(2)).device.type == "cpu"
    finally:
        torch.set_default_device(None)
    assert torch.zeros(2).device.type == "cpu"


def test_copies_of_tensors_stay_where_they_are() -> None:
    x = torch.tensor([1.0, 2.0], device="cuda:1", requires_grad=True)
    for made in (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.clone(), x.detach()):  # noqa: S301  its own bytes
        assert made.get_device() == 1 and made.tolist() == [1.0, 2.0]
    with pytest.warns(UserWarning, match="To copy construct from a tensor"):
        assert torch.tensor(x.detach()).get_device() == 1


def test_gradients_go_back_to_where_the_leaf_is() -> None:
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x.cuda()
    assert y.grad_fn is not None and "ToCopyBackward0" in repr(y)
    (y * y).sum().backward()
    assert x.grad is not None and not x.grad.is_cuda and x.grad.tolist() == [2.0, 4.0, 6.0]
    w = torch.tensor([2.0], device="cuda:1", requires_grad=True)
    (w.cpu() * 3 + w.to("cuda:0").cpu()).sum().backward()
    assert w.grad is not None and w.grad.get_device() == 1 and w.grad.tolist() == [4.0]


def test_an_index_without_elements_moves() -> None:
    x = torch.tensor(np.ones((3, 4))).cuda()
    assert x[torch.tensor([], dtype=torch.long)].tolist() == []
    y = x.requires_grad_()[torch.tensor([], dtype=torch.long)]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0.0] * 4] * 3


def test_copy_between_devices() -> None:
    x = torch.zeros(2, 3, device="cuda")
    x.copy_(torch.arange(6.0).reshape(2, 3))
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]
    x[0] = torch.tensor([7.0, 8.0, 9.0])
    x[:, 2] = torch.tensor(1.0)
    assert x.tolist() == [[7, 8, 1], [3, 4, 1]]
    y = torch.zeros(3)
    y.copy_(x[1])
    assert y.tolist() == [3, 4, 1] and not y.is_cuda


def test_devices_that_are_not_there() -> None:
    with pytest.raises(
        DeviceError,
        match=r"^CUDA error: invalid device ordinal: there is no device cuda:2; CUDA devices of this machine: cuda:0",
    ):
        torch.zeros(2).cuda(2)
    with pytest.raises(DeviceError, match="'mps' is not available"):
        torch.zeros(2, device="mps")
    with pytest.raises(RuntimeError, match="Invalid device, must be cuda device"):
        torch.zeros(2).cuda("cpu")
    assert torch.device(1) == torch.device("cuda:1")


def test_constants_are_filled_in_place(cuda: list[RecordingDevice]) -> None:
    x = torch.zeros(1 << 12, device="cuda")
    assert x[:3].tolist() == [0.0, 0.0, 0.0]
    assert cuda[0].count("copy_in") == 0 and cuda[0].count("fill") == 1


def test_the_old_tensor_types() -> None:
    x = torch.cuda.FloatTensor([1.0, 2.0])
    assert x.get_device() == 0 and isinstance(x, torch.cuda.FloatTensor) and not isinstance(x, torch.FloatTensor)
    assert torch.cuda.LongTensor(2, 3).type() == "torch.cuda.LongTensor"
    assert torch.ones(2).type(torch.cuda.HalfTensor).type() == "torch.cuda.HalfTensor"
    assert repr(torch.cuda.ByteTensor) == "<class 'torch.cuda.ByteTensor'>"
    with pytest.raises(RuntimeError, match="legacy constructor expects device type: cuda"):
        torch.cuda.FloatTensor(2, device="cpu")
