"""Parts of memory that native code reads: `x[t]` in a loop over t is a leaf each, as Python makes it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc.leaves import Leaves
from graphc.tensors.core import MOST_VIEWS
from graphc_runtime.buffer import Buffer
from tests.frontend.native_cases import both

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")

VIEWS: dict[str, Callable[[Any, int], Any]] = {
    "rows": lambda x, t: x[t],
    "columns": lambda x, t: x[:, t],
    "elements of rows": lambda x, t: x[t, 1:3],
    "one element": lambda x, t: x[t, t, 0],
    "elements of columns": lambda x, t: x[:, t, 1],
    "fewer columns": lambda x, t: x[1:, t],
    "planes": lambda x, t: x[..., t % 3],
    "every other": lambda x, t: x[::2, t],
    "turned": lambda x, t: x.transpose(0, 1)[t],
    "a row of one": lambda x, t: x[t : t + 1, :1],
}
DTYPES = (torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8, torch.bool, torch.bfloat16)
SIDE = 6 + MOST_VIEWS


@pytest.fixture
def made_by_python(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One number for each part that Python made."""
    made: list[int] = []
    part = Leaves.part

    def noted(self: Leaves, *arguments: Any) -> Any:
        made.append(1)
        return part(self, *arguments)

    monkeypatch.setattr(Leaves, "part", noted)
    yield made


def filled(dtype: Any) -> tuple[Any, np.ndarray]:
    array = np.arange(SIDE * SIDE * 3).reshape(SIDE, SIDE, 3) % 50
    x = torch.tensor(array).to(dtype).clone()
    x.tolist()
    return x, array != 0 if dtype is torch.bool else array


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", VIEWS)
def test_values_are_those_of_numpy(name: str, dtype: Any) -> None:
    view, (x, array) = VIEWS[name], filled(dtype)
    turned = np.swapaxes(array, 0, 1)
    for _ in range(4):
        made = [view(x, t) == view(x, t + 1) for t in range(SIDE - 1)]
        for t, found in enumerate(made):
            a, b = ((turned[k] if name == "turned" else view(array, k)) for k in (t, t + 1))
            assert found.tolist() == (a == b).tolist(), (name, t)


@pytest.mark.parametrize(
    ("name", "most"), [("rows", 0), ("a row of one", 0), ("columns", 1), ("elements of columns", 1)]
)
def test_python_makes_few_of_them(name: str, most: int, made_by_python: list[int]) -> None:
    view, (x, _) = VIEWS[name], filled(torch.float32)

    def turn() -> float:
        total = torch.zeros(())
        for t in range(SIDE):
            total = total + (view(x, t) * 2).sum()
        return total.item()

    wanted = turn()
    for _ in range(5):
        turn()
    made_by_python.clear()
    for _ in range(3):
        assert turn() == wanted
    assert len(made_by_python) <= 3 * most, "one before native code copies others like it"


def test_what_was_written_is_read() -> None:
    x, array = filled(torch.float32)
    array = array.astype(np.float32)
    for k in range(8):
        for t in range(SIDE):
            assert (x[:, t] * 2).sum().item() == array[:, t].sum() * 2
            assert (x[t] + 1).sum().item() == array[t].sum() + array[t].size
        x[k % 3, 2] = k
        array[k % 3, 2] = k
        if k % 2:
            x.add_(1)
            array += 1
        if k > 4:
            x.numpy()[1, 1] = -k
            array[1, 1] = -k


def test_a_part_is_what_was_there_when_it_was_read() -> None:
    x, array = filled(torch.float32)
    for _ in range(5):
        early = [x[t] * 1 for t in range(4)] + [x[:, t] * 1 for t in range(4)]
        wanted = [array[t].tolist() for t in range(4)] + [array[:, t].tolist() for t in range(4)]
        x += 1
        array = array + 1
        assert [part.tolist() for part in early] == wanted


def test_parts_of_parts_keep_what_they_are_of() -> None:
    array = np.arange(64, dtype=np.uint8)
    array.flags.writeable = False
    whole = Buffer.from_array(array)
    inner = whole.part(8, 32).part(4, 8)
    assert inner.array.tolist() == list(range(12, 20)) and inner.ptr == whole.ptr + 12
    assert not inner.writeable and not inner.array.flags.writeable
    owned = Buffer.allocate(64)
    owned.array[:] = array
    inner = owned.part(8, 32).part(4, 8)
    assert inner.writeable and not inner.of_pool
    inner.array[0] = 99
    assert owned.array[12] == 99
    del owned, whole
    gc.collect()
    assert inner.array.tolist() == [99, *range(13, 20)]


def test_leaves_and_gradients_are_those_of_python() -> None:
    def run() -> list[Any]:
        x = torch.arange(60).reshape(3, 20).float()
        w = torch.ones(3, requires_grad=True)
        found: list[Any] = []
        for _ in range(5):
            h = torch.zeros(3)
            for t in range(20):
                h = torch.tanh(x[:, t] * 0.01 + h * w)
            (slope,) = torch.autograd.grad(h.sum(), w)
            found += [h.tolist(), slope.tolist()]
            with torch.no_grad():
                found.append([(x[t] @ x[0]).item() for t in range(3)])
        return found

    ours, theirs = both(run)
    assert ours == theirs
