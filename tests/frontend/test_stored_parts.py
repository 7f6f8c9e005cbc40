"""Small parts of tensors are written where they lie: nothing is compiled for each place, and nobody sees the future."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import call_places
from graphc_runtime.buffer import memory_stats, reset_peak


def counted(function: Callable[[], object]) -> dict[str, int]:
    """How the counters change while `function` runs."""
    before = graphc.counters()
    function()
    after = graphc.counters()
    return {name: after[name] - before[name] for name in after}


def realised(*shape: int, dtype: Any = None) -> Any:
    """A tensor of its own, computed."""
    x = graphc.arange(int(np.prod(shape)), dtype=dtype or graphc.float32).reshape(shape).clone()
    x.tolist()
    return x


# what is not done


def test_filling_elements_compiles_nothing() -> None:
    x = graphc.zeros(40, 30)

    def fill() -> None:
        for k in range(1200):
            x[k // 30, k % 30] = float(k)

    done = counted(fill)
    assert done["compiles"] == done["programs_built"] == done["runs"] == 0
    assert done["records"] < 10
    assert x.tolist() == np.arange(1200, dtype=np.float32).reshape(40, 30).tolist()


def test_rows_of_results_are_one_program_again_and_again() -> None:
    """The program that computes a row is that of the step before."""
    out, x = graphc.zeros(64, 8), realised(8)

    def step(k: int) -> None:
        out[k] = x * 2 + k

    for k in range(8):
        step(k)
    done = counted(lambda: [step(k) for k in range(8, 64)])
    assert done["programs_built"] == done["compiles"] == 0
    expected = np.arange(8, dtype=np.float32) * 2 + np.arange(64, dtype=np.float32)[:, None]
    assert (out.numpy() == expected).all()


def test_large_memory_is_not_copied() -> None:
    x = realised(1 << 16)
    x[0] = 1.0
    done = counted(lambda: [x.__setitem__(k, 5.0) for k in range(100)])
    assert done["allocations"] == 0
    assert (x[:101].numpy() == [5.0] * 100 + [100.0]).all()


def test_rows_of_large_memory_move_without_a_copy_of_it() -> None:
    """Neither a row of itself nor what is computed of one takes memory of the size of the whole."""
    x = realised(1 << 8, 1 << 10)

    def move() -> None:
        for k in range(40):
            x[k] = x[k + 100]
            x[k + 50] += 1
            x[k + 50, 3] *= 2

    move()
    reset_peak()
    before = memory_stats().peak_bytes
    move()
    assert memory_stats().peak_bytes < before + x.nbytes // 2
    expected = np.arange(1 << 18, dtype=np.float32).reshape(1 << 8, 1 << 10)
    for _ in range(2):
        for k in range(40):
            expected[k] = expected[k + 100]
            expected[k + 50] += 1
            expected[k + 50, 3] *= 2
    assert (x.numpy() == expected).all()


def test_few_places_of_a_call_are_recorded_with_the_rest() -> None:
    """What is computed is not looked at for a write that is the same each time: one program does all."""

    def step(x: Any) -> Any:
        y = x + 1
        y[1] = 3.0
        return y * 2

    x = realised(64, 4)
    step(x).tolist()
    done = counted(lambda: step(x).tolist())
    assert done["flushes"] == 1


def test_a_compiled_function_records_its_writes() -> None:
    @graphc.compile
    def f(x: Any) -> Any:
        y = x.clone()
        for k in range(5):
            y[k] = y[k] * k
        return y

    x = realised(5, 3)
    for _ in range(3):
        assert f(x).tolist() == (x.numpy() * np.arange(5, dtype=np.float32)[:, None]).tolist()
    done = counted(lambda: f(x).tolist())
    assert done["launches"] == counted(lambda: f(x).tolist())["launches"] and done["records"] == 0


# what is seen


@pytest.mark.parametrize("size", [4, 1 << 16], ids=["copied", "waits"])
def test_what_was_recorded_before_reads_what_was_there(size: int) -> None:
    x = realised(size)
    before = x * 2
    part = x[1:3] + 0
    for k in range(4):
        x[k] = -1.0
    after = x * 2
    assert before[:4].tolist() == [0, 2, 4, 6]
    assert part.tolist() == [1, 2]
    assert after[:4].tolist() == [-2] * 4


def test_views_and_arrays_see_it() -> None:
    x = realised(4, 6)
    turned, row, flat, array = x.t(), x[2], x.view(24), x.numpy()
    other = x.detach()
    x[2, 1] = 50.0
    assert turned[1, 2].item() == row[1].item() == flat[13].item() == array[2, 1] == other[2, 1].item() == 50
    turned[5] = 7.0
    assert (array[:, 5] == 7).all() and x[:, 5].tolist() == [7] * 4
    array[0, 0] = 9.0
    x[0, 1] = 8.0
    assert x[0, :2].tolist() == [9, 8]


def test_memory_of_numpy_is_written() -> None:
    array = np.zeros((3, 4), np.float32)
    x = graphc.from_numpy(array)
    x[1, 2] = 5.0
    x[2] = graphc.ones(4)
    assert array[1, 2] == 5 and array[2].tolist() == [1] * 4


def test_a_row_of_itself_and_of_another_dtype() -> None:
    x = realised(4, 3)
    x[0] = x[2]
    counted = x._version
    x[1] = x[1]
    assert x._version == counted + 1
    x[3] = graphc.tensor([1.9, -2.9, 3e9], dtype=graphc.float64)
    assert x.tolist() == [[6, 7, 8], [3, 4, 5], [6, 7, 8], [np.float32(1.9), np.float32(-2.9), 3e9]]
    y = realised(4, 3, dtype=graphc.int32)
    y[0] = graphc.tensor([1.9, -2.9, 0.5])
    y[1, 0] = 7.9
    y[1, 1] = True
    assert y.tolist()[:2] == [[1, -2, 0], [7, 1, 5]]


@pytest.mark.parametrize("dtype", [graphc.bool, graphc.uint8, graphc.int64, graphc.float16, graphc.bfloat16])
def test_every_kind_of_element(dtype: Any) -> None:
    x = graphc.zeros(6, 2, dtype=dtype)
    for k in range(6):
        x[k, k % 2] = 1
        x[k] = x[k]
    assert x.tolist() == np.eye(2, dtype=dtype.ir.numpy)[np.arange(6) % 2].tolist()


def test_what_is_pending_is_seen_through_views() -> None:
    """A part of one number everywhere, and its bits as another number."""
    x = graphc.full((64, 4), 2.0)
    x[0] = x[1] * 1
    x[2] = x[3]
    y = graphc.full((64, 4), 1, dtype=graphc.int32)
    y[0] = graphc.full((4,), 1.0).view(graphc.int32)
    y[1] = graphc.full((8,), 3, dtype=graphc.int32)[::2]
    assert x.sum().item() == 512
    assert y[0].tolist() == [0x3F800000] * 4 and y[1].tolist() == [3] * 4 and y[2:].sum().item() == 248


def test_negative_places_and_places_of_views() -> None:
    x = realised(4, 6)
    part = x[1:, ::2]
    part[-1, -2] = 100.0
    assert x[3, 2].item() == 100
    bits = x.view(graphc.int32)
    bits[0, 0] = 0x40000000
    assert x[0, 0].item() == 2.0


# gradients


def test_writes_count() -> None:
    """A value that `backward` needs was overwritten: it says so, as for any write."""
    w = realised(3).requires_grad_()
    x = realised(3, 3)
    y = (w * x).sum()
    x[1, 1] = 5.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_leaves_and_history_are_recorded_or_refused() -> None:
    w = realised(4, 4).requires_grad_()
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        w[0, 0] = 1.0
    with graphc.no_grad():
        for k in range(4):
            w[k, k] = 0.0
    y = w * 2
    for k in range(4):
        y[k, 0] = 1.0
    y.sum().backward()
    assert w.grad.tolist() == [[0, 2, 2, 2]] * 4
    assert np.diagonal(w.detach().numpy()).tolist() == [0] * 4


def test_steps_of_a_parameter_between_writes() -> None:
    """A leaf that is written where gradients are off has the new contents in the next step."""
    w, x = realised(8, 8).requires_grad_(), realised(8)
    for k in range(8):
        with graphc.no_grad():
            w[k] = float(k)
        loss = (w @ x).sum()
        loss.backward()
        assert loss.item() == pytest.approx((w.detach().numpy() @ x.numpy()).sum())


# mistakes


@pytest.mark.parametrize(
    ("index", "value", "error"),
    [
        ((4, 0), 1.0, IndexError),
        ((0, -4), 1.0, IndexError),
        ((0, 0, 0), 1.0, IndexError),
        ((0, 0), 1 << 40, RuntimeError),
        ((0, 0), float("inf"), RuntimeError),
        (0, "one", TypeError),
        (0, [1, 2, 3], TypeError),
        ((0,), graphc.ones(2, dtype=graphc.int32), RuntimeError),
    ],
)
def test_mistakes_change_nothing(index: Any, value: Any, error: type[Exception]) -> None:
    x = realised(4, 3, dtype=graphc.int32)
    before, counter = x.tolist(), x._version
    with pytest.raises(error):
        x[index] = value
    assert x.tolist() == before and x._version == counter


def test_expanded_memory_and_inference_tensors() -> None:
    x = realised(1, 3).expand(4, 3)
    x[2, 1] = 9.0
    assert x.tolist() == [[0, 9, 2]] * 4
    with graphc.inference_mode():
        y = realised(3, 3)
        y[1, 1] = 0.0
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        y[0, 0] = 5.0
    assert y.tolist() == [[0, 1, 2], [3, 0, 5], [6, 7, 8]]


def test_threads_write_their_own_and_each_others() -> None:
    x = realised(8, 64)

    def work(k: int) -> None:
        for i in range(64):
            x[k, i] = float(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
        thread.join()
    assert (x.numpy() == np.arange(8, dtype=np.float32)[:, None]).all()


def test_what_calls_wrote_is_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_places, "MOST_CALLS", 10)
    for n in range(4, 60):
        x = graphc.ones(n, 3) + 1
        x[0] = 5.0
    assert len(call_places._taken) <= 12


# anything


class Model:
    """Tensors of a device, and arrays of NumPy that see the same memory in the same way."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.device = device
        self.rng = random.Random(seed)
        self.pairs: list[tuple[Any, np.ndarray]] = []
        self.exported: list[tuple[np.ndarray, np.ndarray]] = []

    def pair(self) -> tuple[Any, np.ndarray]:
        return self.rng.choice(self.pairs)

    def index(self, shape: tuple[int, ...]) -> Any:
        rng, items = self.rng, list[Any]()
        for n in shape[: rng.randint(1, len(shape))]:
            start = rng.randrange(n)
            items.append(rng.choice([start, start - n, slice(start, rng.randint(start, n)), slice(None, None, 2)]))
        return tuple(items) if len(items) > 1 or rng.random() < 0.5 else items[0]

    def make(self) -> None:
        shape = tuple(self.rng.randint(1, 5) for _ in range(self.rng.randint(1, 3)))
        array = np.array([self.rng.randrange(100) for _ in range(int(np.prod(shape)))], np.float32).reshape(shape)
        x = graphc.tensor(array, device=self.device)
        x = x if self.rng.random() < 0.7 else x + 0
        self.pairs.append((x, array.copy()))

    def compute(self) -> None:
        x, array = self.pair()
        self.pairs.append((x * 2 - 1, array * 2 - 1))

    def see(self) -> None:
        x, array = self.pair()
        if not array.ndim or not array.size:
            return
        index = self.index(array.shape)
        seen = (x[index], array[index]) if self.rng.random() < 0.7 else (x.permute(*range(x.ndim)[::-1]), array.T)
        if isinstance(seen[1], np.ndarray):
            self.pairs.append(seen)

    def write(self) -> None:
        x, array = self.pair()
        if not array.ndim or not array.size:
            return
        index = self.index(array.shape)
        if self.rng.random() < 0.5:
            x[index] = array[index] = float(self.rng.randrange(100))
            return
        other, values = self.pair()
        if values.shape == np.shape(array[index]) and not np.shares_memory(values, array):
            x[index] = other
            array[index] = values

    def look(self) -> None:
        x, array = self.pair()
        assert x.tolist() == array.tolist()

    def export(self) -> None:
        x, array = self.pair()
        if array.ndim and array.size and self.device == "cpu":
            self.exported.append((x.numpy(), array))

    def write_array(self) -> None:
        if self.exported:
            mine, array = self.rng.choice(self.exported)
            index = self.index(array.shape)
            mine[index] = array[index] = float(self.rng.randrange(100))

    def drop(self) -> None:
        if len(self.pairs) > 3:
            self.pairs.pop(self.rng.randrange(len(self.pairs)))

    def run(self, steps: int) -> None:
        self.make()
        doing = [self.make, self.compute, self.see, self.see, *[self.write] * 4, self.look, self.export, self.drop]
        for _ in range(steps):
            self.rng.choice([*doing, self.write_array])()
            if len(self.pairs) > 12:
                self.drop()
        for x, array in self.pairs:
            assert x.tolist() == array.tolist()


@pytest.mark.parametrize("seed", range(60))
def test_memory_is_shared_as_numpy_shares_it(seed: int) -> None:
    Model(seed).run(60)


def test_a_table_is_filled_from_its_own_elements() -> None:
    """Time warping, as written by hand: each element is computed from three that were written before."""
    costs = np.random.default_rng(0).random((9, 11)).astype(np.float32)
    want = np.full((10, 12), 1e9, np.float32)
    want[0, 0] = 0
    c, d = graphc.tensor(costs), graphc.full((10, 12), 1e9)
    d[0, 0] = 0
    counts = []
    for i in range(1, 10):
        for j in range(1, 12):
            before = d._version
            d[i, j] = c[i - 1, j - 1] + graphc.minimum(graphc.minimum(d[i - 1, j], d[i, j - 1]), d[i - 1, j - 1])
            counts.append(d._version - before)
            want[i, j] = costs[i - 1, j - 1] + min(want[i - 1, j], want[i, j - 1], want[i - 1, j - 1])
    np.testing.assert_array_equal(d.numpy(), want)
    assert set(counts) == {1}


def test_rows_are_written_by_tensors_of_their_shape_alone() -> None:
    x, old = graphc.zeros(8, 6), None
    for k in range(8):
        old = x[k] * 1
        x[k] = graphc.arange(6.0) + k  # the same shape
        x[k] = graphc.tensor(float(k))  # one number for all
        x[k] = graphc.arange(6) + k  # integers
        assert old.tolist() == [0.0] * 6
    assert x.tolist() == [[float(i + k) for i in range(6)] for k in range(8)]
    with pytest.raises(RuntimeError, match="expanded size"):
        x[3] = graphc.zeros(5)
    w = graphc.zeros(8, 6, requires_grad=True)
    y = w * 1
    for k in range(8):
        y[k] = w[0] * k
    y.sum().backward()
    assert w.grad.tolist() == [[28.0] * 6, *[[0.0] * 6] * 7]  # type: ignore[union-attr]


@pytest.mark.parametrize("index", [3, (slice(1, 4),), (slice(None), 2), (2, slice(-3, None))])
def test_what_is_written_into_memory_without_gradients_may_have_some(index: Any) -> None:
    x, w = realised(6, 5), graphc.tensor(2.0, requires_grad=True)
    for k in range(8):
        y = x.clone()
        y.tolist()
        y[index] = w * (k + y[index])
        (y * y).sum().backward()
        before = x.numpy()[index] + k
        assert w.grad.item() == pytest.approx(float(4 * (before * before).sum()))  # type: ignore[union-attr]
        w.grad = None


INDICES: list[Any] = [
    *(0, -1, slice(None), slice(2, 4), slice(-2, None), slice(4, 2), (slice(None), 1), (1, slice(1, 3)), (-2, 3)),
    *((slice(1, 5), slice(None, -1)), (slice(0, 100), slice(-100, 2)), slice(None, None, 2), (Ellipsis, 1), None),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("of", ["whole", "turned", "part"])
def test_all_indices_write_what_numpy_writes(index: Any, of: str) -> None:
    x = realised(6, 7)
    want = x.numpy().copy()
    shown = {"whole": lambda a: a, "turned": lambda a: a.T, "part": lambda a: a[1:, :5]}[of]
    for k in range(10):
        t, n = shown(x), shown(want)
        assert t.tolist() == n.tolist()
        version = t._version
        if k % 3 == 0:
            t[index] = float(k)
            n[index] = k
        elif k % 3 == 1:
            t[index] = graphc.tensor(np.full(np.shape(n[index]), k, np.float32))
            n[index] = k
        else:
            t[index] += k
            n[index] += k
        assert t._version - version == (2 if k % 3 == 2 else 1)
    assert x.tolist() == want.tolist()


def test_elements_that_are_one_in_memory_are_not_written_one_by_one() -> None:
    x = realised(1, 5).expand(4, 5)
    for k in range(6):
        with pytest.raises(RuntimeError, match="single memory location"):
            x[:, 1] = graphc.arange(4.0) + k
        x[2] = graphc.arange(5.0) + k
        assert x.tolist() == [[float(i + k) for i in range(5)]] * 4
