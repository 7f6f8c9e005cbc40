"""Random programs of views, writes and reads, replayed on NumPy; every value is compared (reliability goal 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as torch


def repeated(array: np.ndarray) -> np.ndarray:
    """The array twice over, over the same memory."""
    return np.lib.stride_tricks.as_strided(array, (2, *array.shape), (0, *array.strides))


class Program:
    """The same random steps on tensors and on arrays."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.pairs: list[tuple[Any, np.ndarray]] = []
        for _ in range(2):
            shape = tuple(int(n) for n in self.rng.integers(1, 5, self.rng.integers(1, 4)))
            array = self.rng.integers(-5, 6, shape).astype(np.float32)
            self.pairs.append((torch.tensor(array), array))
        self.log: list[str] = []

    def pick(self) -> tuple[Any, np.ndarray]:
        return self.pairs[int(self.rng.integers(len(self.pairs)))]

    def check(self) -> None:
        for tensor, array in self.pairs:
            assert tensor.tolist() == array.tolist(), "\n".join(self.log)
            assert tuple(tensor.shape) == array.shape
            if array.size > 1:
                strides = tuple(s // 4 for s in array.strides)
                shown = [(n, s) for n, s in zip(array.shape, tensor.stride(), strict=True) if n > 1]
                assert shown == [(n, s) for n, s in zip(array.shape, strides, strict=True) if n > 1], self.log

    def view(self) -> None:
        tensor, array = self.pick()
        kind = self.rng.choice(["slice", "select", "permute", "reshape", "unsqueeze", "expand", "flat"])
        if kind == "slice" and array.ndim:
            axis = int(self.rng.integers(array.ndim))
            start, stop = sorted(int(n) for n in self.rng.integers(0, array.shape[axis] + 1, 2))
            step = int(self.rng.integers(1, 3))
            index = (*(slice(None),) * axis, slice(start, stop, step))
            made = tensor[index], array[index]
        elif kind == "select" and array.ndim and 0 not in array.shape:
            axis = int(self.rng.integers(array.ndim))
            place = int(self.rng.integers(array.shape[axis]))
            index = (*(slice(None),) * axis, place)
            made = tensor[index], array[(*index, ...)]
        elif kind == "permute":
            order = tuple(int(n) for n in self.rng.permutation(array.ndim))
            made = tensor.permute(order), array.transpose(order)
        elif kind == "reshape" and array.flags.c_contiguous and array.ndim > 1:
            shape = (array.shape[0] * array.shape[1], *array.shape[2:])
            made = tensor.view(shape), array.reshape(shape)
        elif kind == "unsqueeze":
            axis = int(self.rng.integers(array.ndim + 1))
            made = tensor.unsqueeze(axis), np.expand_dims(array, axis)
        elif kind == "expand" and array.ndim < 4:
            made = tensor.expand(2, *array.shape), repeated(array)
        else:
            made = tensor.reshape(-1), array.reshape(-1)
        self.log.append(f"{kind} -> {array.shape}: {made[1].shape}")
        self.pairs.append(made)

    def write(self) -> None:
        tensor, array = self.pick()
        kind = self.rng.choice(["fill", "add", "scalar", "copy", "relu", "index", "mask", "part"])
        self.log.append(f"write {kind} into {array.shape}")
        if array.size and any(n > 1 and s == 0 for n, s in zip(array.shape, array.strides, strict=True)):
            with pytest.raises(RuntimeError, match="more than one element"):
                tensor.add_(1)
            return
        number = float(self.rng.integers(-3, 4))
        other, source = self.pick()
        if kind == "fill":
            tensor.fill_(number)
            array[...] = number
        elif kind == "add" and np.broadcast_shapes(array.shape, array.shape[-1:]) == array.shape:
            row = self.rng.integers(-2, 3, array.shape[-1:]).astype(np.float32)
            tensor.add_(torch.tensor(row))
            array += row
        elif kind == "copy" and source.shape == array.shape:
            tensor.copy_(other.clone())  # PyTorch refuses views that overlap
            array[...] = source.copy()
        elif kind == "relu":
            tensor.relu_()
            np.maximum(array, 0, out=array)
        elif kind == "index" and array.ndim and array.shape[0]:
            places = self.rng.permutation(array.shape[0])[: int(self.rng.integers(1, array.shape[0] + 1))]
            tensor[torch.tensor(places)] = number
            array[places] = number
        elif kind == "mask":
            tensor[tensor > number] = 1.0
            array[array > number] = 1.0
        elif kind == "part" and array.ndim and array.shape[0] > 1:
            tensor[1:] = tensor[:1] + number
            array[1:] = array[:1] + number
        else:
            tensor *= number
            array *= number

    def exchange(self) -> None:
        """Memory shared with NumPy, written from the other side."""
        tensor, array = self.pick()
        if array.size and not any(n > 1 and s == 0 for n, s in zip(array.shape, array.strides, strict=True)):
            shared = tensor.numpy()
            shared[...] = shared + 1
            array += 1
            self.log.append(f"numpy writes into {array.shape}")

    def compute(self) -> None:
        tensor, array = self.pick()
        other, second = self.pick()
        if second.shape == array.shape:
            self.pairs.append((tensor + other * 2, np.array(array + second * 2, np.float32, order="C")))
        else:
            self.pairs.append((tensor.clone(), array.copy(order="C")))
        self.log.append("compute")


def run(seed: int, steps: int) -> None:
    program = Program(seed)
    for _ in range(steps):
        action = program.rng.choice(
            ["view", "write", "write", "compute", "exchange", "look"], p=[0.3, 0.2, 0.2, 0.15, 0.05, 0.1]
        )
        if action == "look":
            program.check()
        else:
            getattr(program, action)()
        if len(program.pairs) > 10:
            del program.pairs[int(program.rng.integers(len(program.pairs)))]
    program.check()


@pytest.mark.parametrize("block", range(10))
def test_views_and_writes_are_those_of_numpy(block: int) -> None:
    for seed in range(20):
        run(1000 * block + seed, 14)


@pytest.mark.slow
def test_many_views_and_writes_are_those_of_numpy() -> None:
    for seed in range(5000):
        run(100_000 + seed, 30)


def test_values_with_history_see_what_numpy_writes() -> None:
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 2
    copy = y.clone()
    y.detach().numpy()[...] = 7
    assert (y + 0).tolist() == [7, 7, 7] and (copy + 0).tolist() == [2, 4, 6]
    y.sum().backward()
    assert x.grad.tolist() == [2, 2, 2]


def test_leaves_see_what_numpy_writes() -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    array = x.numpy()
    x.requires_grad_()
    assert (x * 2).tolist() == [2, 4, 6]
    array[...] = 5
    (x * x).sum().backward()
    assert x.grad.tolist() == [10, 10, 10]


def test_a_failed_write_changes_nothing_and_leaves_nothing_behind() -> None:
    x = torch.zeros(2, 0)
    with pytest.raises(RuntimeError):
        x.index_add_(1, torch.tensor([0]), torch.ones(2, 1))
    y = torch.arange(3.0)
    with pytest.raises(RuntimeError, match="same scalar type"):
        y.index_add_(0, torch.tensor([9]), torch.ones(1, dtype=torch.int64))
    assert y.tolist() == [0, 1, 2] and y._version == 0


def test_elements_that_are_one_in_memory_take_one_number() -> None:
    x = torch.arange(3.0)
    wide = x.expand(2, 3)
    with pytest.raises(RuntimeError, match="more than one element"):
        wide.add_(1)
    wide.fill_(4)
    assert x.tolist() == [4, 4, 4]
    windows = torch.arange(4.0)
    windows.unfold(0, 2, 1)[1] = torch.tensor([8.0, 9.0])
    assert windows.tolist() == [0, 8, 9, 3]
