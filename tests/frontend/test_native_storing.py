"""Native code writes elements and rows where they lie, as Python does, and leaves to Python what it cannot do."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc.counting import FRONT
from graphc.errors import GraphcError
from graphc.recording import Recorder, current, using
from tests.frontend.native_cases import both, entered

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")

DTYPES = [torch.float32, torch.float64, torch.int32, torch.int64, torch.int8, torch.bool, torch.float16, torch.bfloat16]


def made(*shape: int, dtype: Any = torch.float32) -> Any:
    """A computed tensor of its own."""
    x = torch.arange(math.prod(shape)).reshape(shape).to(dtype).clone()
    x.tolist()
    return x


def is_native(run: Any) -> bool:
    """Whether a statement enters no function of Python."""
    return not entered(run)


def _index(rng: random.Random, shape: tuple[int, ...]) -> Any:
    items: list[Any] = []
    for n in shape[: rng.randint(0, len(shape))]:
        if rng.random() < 0.5:
            items.append(rng.randrange(-n, n))
        else:
            low, high = (rng.choice([None, rng.randint(-n - 2, n + 2)]) for _ in range(2))
            items.append(slice(low, high))
    return items[0] if len(items) == 1 and rng.random() < 0.5 else tuple(items)


def _bases(rng: random.Random, dtype: Any) -> tuple[Any, Any]:
    """A tensor or a view of one, and what shows it whole."""
    whole = made(6, 5, 4, dtype=dtype)
    kind = rng.choice(["whole", "part", "permuted", "rows", "number"])
    if kind == "part":
        return whole[1:5, 2], whole
    if kind == "permuted":
        return whole.permute(2, 0, 1), whole
    if kind == "rows":
        return whole[:, 1:4, 2:], whole
    if kind == "number":
        return whole[2, 3, 1], whole
    return whole, whole


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_places_of_all_kinds(dtype: Any) -> None:
    rng, natively = random.Random(str(dtype)), 0
    for case in range(200):
        target, whole = _bases(rng, dtype)
        index = _index(rng, tuple(target.shape))
        expected = np.array(whole.tolist())
        places = torch.arange(whole.numel())
        shown = np.array(places.as_strided(target.shape, target.stride(), target.storage_offset()).tolist())
        hit = shown[index]
        if rng.random() < 0.4 or not np.size(hit):
            value: Any = rng.choice([0, 1])
            expected.reshape(-1)[hit] = value
        else:
            numbers = np.arange(np.size(hit)).reshape(np.shape(hit)) % 2
            value = torch.tensor(numbers.tolist()).to(dtype).clone()
            if value.ndim > 1 and rng.random() < 0.3:
                value = value.transpose(0, 1).contiguous().transpose(0, 1)
            value.tolist()
            expected.reshape(-1)[hit] = numbers

        def run(target: Any = target, index: Any = index, value: Any = value) -> None:
            target[index] = value

        natively += is_native(run)
        assert whole.tolist() == expected.tolist(), (case, tuple(target.shape), index)
    assert natively > (40 if dtype in DTYPES[:4] else 20)


def test_rows_and_elements_are_native() -> None:
    x, row, rows, column = made(64, 32), made(32), made(8, 32), made(64)
    assert is_native(lambda: x.__setitem__(3, row))
    assert is_native(lambda: x.__setitem__(slice(4, 12), rows))
    assert is_native(lambda: x.__setitem__((5, 6), 2.5))
    assert is_native(lambda: x.__setitem__((-1, -2), 7))
    assert is_native(lambda: x.__setitem__((slice(None), 3), column))
    assert is_native(lambda: x.__setitem__((slice(2, 5), slice(1, 4)), 0.5))
    expected = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
    expected[3], expected[4:12] = np.arange(32), np.arange(8 * 32).reshape(8, 32)
    expected[5, 6], expected[-1, -2], expected[:, 3], expected[2:5, 1:4] = 2.5, 7, np.arange(64), 0.5
    assert x.tolist() == expected.tolist()


NUMBERS = [0, 1, -1, 2**31, 2**63, -(2**70), 1.5, -0.0, 1e39, 1e308, math.inf, -math.inf, math.nan, True, False]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_are_held_as_python_holds_them(dtype: Any) -> None:
    def run() -> list[object]:
        found: list[object] = []
        for number in NUMBERS:
            x = made(4, dtype=dtype)
            try:
                x[1] = number
            except (GraphcError, OverflowError) as error:
                found.append((type(error), str(error)))
            found.append(repr(x.tolist()))
        return found

    ours, theirs = both(run)
    assert ours == theirs


WRONG = {
    "an index beyond the end": lambda x: x.__setitem__(9, 1.0),
    "a huge index": lambda x: x.__setitem__(2**80, 1.0),
    "too many indices": lambda x: x.__setitem__((0, 0, 0), 1.0),
    "a value of another shape": lambda x: x.__setitem__(0, made(7)),
    "a value that is nothing": lambda x: x.__setitem__(0, None),
    "no index": lambda x: x.__setitem__(None, "a"),
    "a leaf that requires gradients": lambda x: x.requires_grad_().__setitem__(0, 1.0),
    "elements that are one": lambda x: x[0].expand(6, 4).__setitem__(slice(0, 2), made(2, 4)),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_told_as_python_tells_them(name: str) -> None:
    def run() -> object:
        x = made(6, 4)
        with pytest.raises((GraphcError, TypeError, IndexError)) as caught:
            WRONG[name](x)
        return caught.type, str(caught.value), x.tolist()

    ours, theirs = both(run)
    assert ours == theirs


def test_windows_that_overlap() -> None:
    def run() -> object:
        x = made(12)
        windows = x.unfold(0, 4, 2)
        windows[1] = made(4)
        windows[0, 1] = 7.0
        windows[2:4] = made(2, 4)  # the last one wins
        return x.tolist()

    ours, theirs = both(run)
    assert ours == theirs


def test_what_was_recorded_reads_what_was_there() -> None:
    with using(Recorder()):
        x, row = made(300, 300), made(300)
        y, part = x * 2, x[5] + 1
        x[5] = row
        x[6, 7] = 3.0
        z = x[6] * 1
        x[6] = row
        expected = np.arange(300 * 300, dtype=np.float32).reshape(300, 300)
        assert y.tolist() == (expected * 2).tolist()
        assert part.tolist() == (expected[5] + 1).tolist()
        expected[6, 7] = 3.0
        assert z.tolist() == expected[6].tolist()
        assert x[5].tolist() == x[6].tolist() == row.tolist()


def test_writes_are_counted() -> None:
    x, row = made(64, 32), made(32)
    before = x._version
    x[1] = row
    x[2, 3] = 1.0
    assert x._version == before + 2
    w = made(32).requires_grad_()
    y = (w * x[1]).sum()
    x[1] = row
    with pytest.raises(GraphcError, match="modified by an inplace operation"):
        y.backward()


def test_gradients_flow_through_what_is_written() -> None:
    x, w = made(64, 32), made(32).requires_grad_()
    x[3] = w
    x[4, 5] = 2.0
    (x * x).sum().backward()
    assert w.grad.tolist() == (2 * np.arange(32, dtype=np.float32)).tolist()


def test_arrays_see_writes() -> None:
    x, row = made(8, 4), made(4)
    array = x.numpy()
    x[3] = row
    x[0, 1] = 9.0
    assert array[3].tolist() == row.tolist()
    assert array[0, 1] == 9.0
    array[3, 0] = 5.0
    del array
    x[4] = x[3].clone()
    assert x[4].tolist() == [5.0, 1.0, 2.0, 3.0]


def test_a_tensor_written_with_parts_of_itself() -> None:
    x = made(8, 4)
    x[1] = x[0]
    x[2:4] = x[0:2]
    x[0:3] = x[1:4].clone()
    x[5] += 10
    x[6:8] *= 2
    expected = np.arange(32, dtype=np.float32).reshape(8, 4)
    expected[1] = expected[0]
    expected[2:4] = expected[0:2]
    expected[0:3] = expected[1:4].copy()
    expected[5] += 10
    expected[6:8] *= 2
    assert x.tolist() == expected.tolist()


def test_under_inference_mode_and_in_functions_that_are_compiled() -> None:
    row = made(4)

    def write(x: Any) -> Any:
        x[2] = row
        x[0, 1] = 4.0
        return x.sum()

    expected = np.arange(32, dtype=np.float32).reshape(8, 4)
    expected[2], expected[0, 1] = np.arange(4), 4.0
    compiled = torch.compile(write)
    for _ in range(4):
        x = made(8, 4)
        assert compiled(x).item() == expected.sum()
        assert x.tolist() == expected.tolist()
    with torch.inference_mode():
        x = made(8, 4)
        assert write(x).item() == expected.sum()
    stacked = torch.vmap(lambda a: a.clone().index_fill(0, torch.tensor([1]), 3.0))(made(3, 4))
    assert stacked[:, 1].tolist() == [3.0] * 3


def test_other_threads_memory_is_left_to_python() -> None:
    other = Recorder()
    with using(other):
        x = made(64, 32)
        y = x + 1
    x[3] = 7.0
    with using(other):
        x[4] = 8.0
    assert y[3].tolist() == [97.0 + k for k in range(32)]
    assert x[3].tolist() == [7.0] * 32
    assert x[4].tolist() == [8.0] * 32


def test_in_place_operations_on_small_parts_are_stored_at_once() -> None:
    """A part of a large tensor does not wait for a program that writes all of it."""
    with using(Recorder()):
        x, row = made(512, 256), made(256)
        expected = np.arange(512 * 256, dtype=np.float32).reshape(512, 256)
        for k in range(12):
            x[7] += row
            x[9].mul_(0.5)
            x[k % 3].add_(1.0).sub_(row)
            expected[7] += np.arange(256, dtype=np.float32)
            expected[9] *= np.float32(0.5)
            expected[k % 3] = expected[k % 3] + 1 - np.arange(256, dtype=np.float32)
            assert x._storage.value is None
        assert not current().has_pending()
        np.testing.assert_array_equal(np.array(x.tolist(), np.float32), expected)


def test_pending_values_are_computed_and_stored() -> None:
    """Where a call writes one place after the other, or next to nothing of the memory, nothing is recorded."""

    def run() -> list[Any]:
        with using(Recorder()):
            small, large, row = made(40, 8), made(2000, 64), made(8)
            wide = made(64)
            columns = made(4, 40, 2)
            for k in range(1, 40):
                small[k] = small[k - 1] * 0.5 + row
                large[7] = wide * float(k % 3)
                columns[:, k] = (row + float(k % 5)).view(4, 2)
                assert small._storage.value is large._storage.value is columns._storage.value is None or k < 6
            return [small.tolist(), large[:9].tolist(), columns.tolist(), current().pending]

    ours, theirs = both(run)
    assert ours == theirs


def test_an_error_in_a_pending_value_leaves_the_tensor_alone() -> None:
    def run() -> list[Any]:
        with using(Recorder()):
            x, table = made(30, 4), made(5, 4)
            found: list[Any] = []
            for k in range(12):
                value = table[torch.tensor([k % 5 if k < 10 else 7])][0]
                try:
                    x[k] = value
                except GraphcError as error:
                    found.append((type(error), str(error)))
            assert len(found) == 2
            return [*found, x.tolist()]

    ours, theirs = both(run)
    assert ours == theirs


def test_memory_that_is_read_again_keeps_its_number() -> None:
    """A tensor that is written between programs is the same leaf in each."""

    def run() -> list[Any]:
        with using(Recorder()):
            x, y = made(64, 8), made(8)
            found: list[Any] = []
            for k in range(20):
                x[k] = y
                found += [(x.sum(0) * y).tolist(), len(current().kept), sorted(current().free)]
            return found

    ours, theirs = both(run)
    assert ours == theirs


def test_a_place_of_what_is_pending_is_computed_with_it() -> None:
    """As the borders of a grid: what is recorded stays one program."""
    with using(Recorder()):
        x = z = made(512, 256)
        before = FRONT.flushes
        for _ in range(6):
            y = x * 2.0
            y[0] = 1.0
            y[:, -1] = 3.0
            z = y + 1.0
        assert FRONT.flushes == before
        expected = np.arange(512 * 256, dtype=np.float32).reshape(512, 256) * 2
        expected[0], expected[:, -1] = 1.0, 3.0
        np.testing.assert_array_equal(np.array(z.tolist(), np.float32), expected + 1)
