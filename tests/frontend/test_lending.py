"""Large memory that is written is overwritten where nobody will read the old values, and only there."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc import programs
from graphc.counting import FRONT
from graphc.lending import LEAST
from graphc.recording import Recorder, current, using
from graphc_runtime.buffer import memory_stats, reset_peak

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")

ROWS, WIDTH = 256, 96  # a little more than `LEAST` bytes
TURNS = 8
WARM = 4  # turns after which native code runs what is pending


def table(seed: int = 0) -> np.ndarray:
    assert ROWS * WIDTH * 4 >= LEAST
    return np.random.default_rng(seed).normal(size=(ROWS, WIDTH)).astype(np.float32)


def values(tensor: Any) -> np.ndarray:
    """What a tensor holds, without giving its memory to NumPy."""
    return np.array(tensor.tolist(), np.float32)


def lends() -> int:
    """How many plans of this recorder's flushes overwrite memory."""
    return sum(held is not None and programs.overwrites(held[1]) for held in current().flushes.values())


def address(tensor: Any) -> int:
    return tensor._storage.buffer.ptr


INDEX = [5, 200, 5, 17]
PART = np.arange(len(INDEX) * WIDTH, dtype=np.float32).reshape(len(INDEX), WIDTH)
MASK = np.arange(ROWS)[:, None] % 3 == 0


def _set(x: Any, i: Any, v: Any, m: Any) -> None:
    x[i] = v


def _set_sum(x: Any, i: Any, v: Any, m: Any) -> None:
    x[i] += v


WRITES: dict[str, Callable[[Any, Any, Any, Any], object]] = {
    "set": _set,
    "set of a sum": _set_sum,
    "index_add_": lambda x, i, v, m: x.index_add_(0, i, v),
    "index_copy_": lambda x, i, v, m: x.index_copy_(0, i, v),
    "index_fill_": lambda x, i, v, m: x.index_fill_(0, i, 3.0),
    "scatter_add_": lambda x, i, v, m: x.scatter_add_(0, i[:, None].expand(len(INDEX), WIDTH), v),
    "put_": lambda x, i, v, m: x.put_(i, v[:, 0], accumulate=True),
    "several": lambda x, i, v, m: x.index_add_(0, i, v).index_add_(0, i, v).mul_(0.5),
    "add_": lambda x, i, v, m: x.add_(1.0),
    "masked_fill_": lambda x, i, v, m: x.masked_fill_(m, 2.0),
    "two in place": lambda x, i, v, m: x.mul_(0.5).add_(1.0),
}


def operands() -> tuple[Any, Any, Any, Any]:
    return torch.tensor(table()), torch.tensor(INDEX), torch.tensor(PART), torch.tensor(MASK)


@pytest.mark.parametrize("name", WRITES)
def test_writes_stay_where_the_memory_lies(name: str) -> None:
    write = WRITES[name]
    with using(Recorder()):  # a function's first calls in a process teach in which order it reads its operands
        x, i, v, m = operands()
        for _ in range(WARM):
            write(x, i, v, m)
            x[0, 0].item()
    with using(Recorder()):
        x, i, v, m = operands()
        expected = torch.tensor(table())
        for turn in range(TURNS):
            before, flushes = address(x) if turn else 0, FRONT.native_flushes
            write(x, i, v, m)
            x[0, 0].item()
            if turn >= WARM:
                assert FRONT.native_flushes == flushes + 1
                assert address(x) == before
        assert lends() == 1
        for _ in range(TURNS):  # never with enough turns of the same for a plan
            write(expected, i, v, m)
        np.testing.assert_array_equal(values(x), values(expected))


def test_no_memory_is_taken_for_another_copy() -> None:
    with using(Recorder()):
        x = torch.zeros(1 << 20)
        for _ in range(TURNS):
            x.add_(1.0)
            x[0].item()
        reset_peak()
        start = memory_stats().peak_bytes
        x.add_(1.0)
        x[0].item()
        assert memory_stats().peak_bytes < start + x.nbytes
        assert x[-1].item() == TURNS + 1


def test_what_replaces_a_tensor_takes_its_memory() -> None:
    with using(Recorder()):
        x, i, v, _ = operands()
        places: list[int] = []
        for _ in range(TURNS):
            x = x.index_add(0, i, v)
            x[0, 0].item()
            places.append(address(x))
        assert lends() == 1
        assert len(set(places[WARM:])) == 1
        expected = table()
        for _ in range(TURNS):
            np.add.at(expected, INDEX, PART)
        np.testing.assert_allclose(values(x), expected, rtol=1e-5, atol=1e-5)


HOLDS: dict[str, Callable[[Any], Any]] = {
    "a pending result": lambda x: x * 2.0,
    "a copy": lambda x: x.clone(),
    "a number": lambda x: x.sum(),
    "a part": lambda x: x[3] * 2.0,
    "its transpose": lambda x: (x.t() + 1.0).sum(0),
}


@pytest.mark.parametrize("name", HOLDS)
@pytest.mark.parametrize("write", ["set", "index_add_", "add_"])
def test_what_was_read_before_the_write_is_what_it_was(name: str, write: str) -> None:
    with using(Recorder()):
        x, i, v, m = operands()
        for _ in range(TURNS):
            before = torch.tensor(values(x))
            held = HOLDS[name](x)
            WRITES[write](x, i, v, m)
            x[0, 0].item()
            np.testing.assert_array_equal(values(held), values(HOLDS[name](before)))


KNOWN: dict[str, Callable[[Any], Any]] = {
    "the value": lambda x: x._storage.value,
    "what the value was made of": lambda x: x._storage.value.parents,
    "a value behind it": lambda x: x._storage.value.parents[0],
    "the leaf": lambda x: next(leaf for leaf in current().held if leaf.source is x._storage),
    "the memory": lambda x: x._storage.buffer,
    "nothing": lambda x: None,
}


@pytest.mark.parametrize("name", KNOWN)
def test_one_reference_more_keeps_the_old_value(name: str) -> None:
    with using(Recorder()):
        x, i, v, _ = operands()
        for turn in range(2 * TURNS):
            x.index_add_(0, i, v).index_add_(0, i, v)
            held = KNOWN[name](x) if turn > TURNS else None
            before, flushes = address(x), FRONT.native_flushes
            x[0, 0].item()
            if turn >= WARM:
                is_lent = held is None
                assert FRONT.native_flushes - flushes == is_lent
                assert (address(x) == before) == is_lent
            del held


def test_names_of_a_replaced_tensor_keep_it() -> None:
    """The same program runs again, and somebody has the tensor that it overwrote before."""
    keep: list[Callable[[Any], Any]] = [lambda x: x, lambda x: x[2:], lambda x: x.detach(), lambda x: x.view(-1)]
    with using(Recorder()):
        x, i, v, _ = operands()
        for turn in range(3 * TURNS):
            held = keep[turn % len(keep)](x) if turn > TURNS else None
            before = None if held is None else values(held)
            x = x.index_add(0, i, v)
            x[0, 0].item()
            if held is not None:
                np.testing.assert_array_equal(values(held), before)
        assert lends() == 1


def test_what_others_recorded_reads_what_was_there() -> None:
    other = Recorder()
    with using(Recorder()):
        x, i, v, _ = operands()
        for turn in range(2 * TURNS):
            before, y = values(x), None
            if turn > TURNS:
                with using(other):
                    y = x * 1.0
            x.index_add_(0, i, v)
            x[0, 0].item()
            if y is not None:
                np.testing.assert_array_equal(values(y), before)


def test_arrays_of_the_memory_see_what_they_share() -> None:
    with using(Recorder()):
        x = torch.tensor(table())
        for _ in range(WARM):
            x.add_(1.0)
            x[0, 0].item()
        array = x.numpy()
        for _ in range(TURNS):
            x.add_(1.0)
            x[0, 0].item()
        assert x.tolist() == array.tolist()
        np.testing.assert_array_equal(array, values(x))


def test_gradients_read_what_was_there() -> None:
    """The product keeps its operand, which is overwritten after it was computed."""
    with using(Recorder()):
        x, i, v, _ = operands()
        w = torch.ones(ROWS, WIDTH, requires_grad=True)
        for _ in range(TURNS):
            before = values(x)
            loss = (w * x.clone()).sum()
            x.index_add_(0, i, v)
            x[0, 0].item()
            w.grad = None
            loss.backward()
            np.testing.assert_array_equal(values(w.grad), before)


def test_a_handler_sees_memory_as_it_is_after_the_write() -> None:
    """A signal that comes while a program overwrites memory is handled when that is what the tensor holds."""
    seen: list[float] = []
    with using(Recorder()):
        x = torch.zeros(1 << 16)
        before = signal.signal(signal.SIGALRM, lambda *_: seen.append(x[0].item()))
        try:
            for turn in range(200):
                if turn % 7 == 3:
                    signal.setitimer(signal.ITIMER_REAL, 1e-5)
                x.add_(1.0)
                assert x[0].item() == turn + 1
                assert x[-1].item() == turn + 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert seen
    assert all(number == int(number) for number in seen)


class _Body:
    """The statements of a loop over some tensors, for graphc and for NumPy."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        makers = [getattr(self, name) for name in dir(self) if name.startswith("do_")]
        self._steps = [self._rng.choice(makers)() for _ in range(self._rng.randint(2, 6))]

    def run(self, ours: dict[str, Any], theirs: dict[str, np.ndarray]) -> None:
        for step in self._steps:
            step(ours, theirs)

    def _names(self) -> tuple[str, str]:
        return self._rng.choice("xy"), self._rng.choice("abc")

    def do_index_add(self) -> Any:
        x, _ = self._names()

        def step(ours: dict[str, Any], theirs: dict[str, np.ndarray]) -> None:
            ours[x].index_add_(0, ours["i"], ours["v"])
            np.add.at(theirs[x], INDEX, PART)

        return step

    def do_index_set(self) -> Any:
        x, _ = self._names()

        def step(ours: dict[str, Any], theirs: dict[str, np.ndarray]) -> None:
            ours[x][ours["i"]] = 1.5
            theirs[x][INDEX] = 1.5

        return step

    def do_pointwise(self) -> Any:
        x, _ = self._names()

        def step(ours: dict[str, Any], theirs: dict[str, np.ndarray]) -> None:
            ours[x].mul_(0.5)
            theirs[x] *= np.float32(0.5)

        return step

    def do_mix(self) -> Any:
        def step(ours: dict[str, Any], theirs: dict[str, np.ndarray]) -> None:
            ours["x"].add_(ours["y"])
            theirs["x"] += theirs["y"]

        return step

    def do_replace(self) -> Any:
        x, _ = self._names()

        def step(ours: dict[str, Any], theirs: dict[str, np.ndarray]) -> None:
            ours[x] = ours[x].index_copy(0, ours["i"], ours["v"])
            theirs[x] = theirs[x].copy()
            theirs[x][INDEX] = PART

        return step

    def do_hold(self) -> Any:
        (x, a), kind = self._names(), self._rng.choice(["alias", "view", "pending", "copy"])

        def step(ours: dict[str, Any], theirs: dict[str, np.ndarray]) -> None:
            if kind == "alias":
                ours[a], theirs[a] = ours[x].detach(), theirs[x]
            elif kind == "view":
                ours[a], theirs[a] = ours[x][2:7], theirs[x][2:7]
            elif kind == "pending":
                ours[a], theirs[a] = ours[x] + 1.0, theirs[x] + np.float32(1)
            else:
                ours[a], theirs[a] = ours[x].clone(), theirs[x].copy()

        return step

    def do_forget(self) -> Any:
        _, a = self._names()

        def step(ours: dict[str, Any], theirs: dict[str, np.ndarray]) -> None:
            ours.pop(a, None)
            theirs.pop(a, None)

        return step

    def do_write_part(self) -> Any:
        x, _ = self._names()

        def step(ours: dict[str, Any], theirs: dict[str, np.ndarray]) -> None:
            ours[x][1:4].add_(2.0)
            theirs[x][1:4] += np.float32(2)

        return step

    def do_look(self) -> Any:
        x, _ = self._names()

        def step(ours: dict[str, Any], theirs: dict[str, np.ndarray]) -> None:
            assert ours[x][5, 1].item() == pytest.approx(float(theirs[x][5, 1]), rel=1e-5)

        return step


def test_random_loops_give_what_numpy_gives() -> None:
    lending = 0
    for seed in range(60):
        with using(Recorder()):
            x, i, v, _ = operands()
            ours = {"x": x, "y": torch.tensor(table(1)), "i": i, "v": v}
            theirs = {"x": table(), "y": table(1)}
            del x
            body = _Body(seed)
            for _ in range(TURNS):
                body.run(ours, theirs)
                ours["x"][0, 0].item()
                if seed % 2:
                    for name, expected in theirs.items():
                        np.testing.assert_allclose(values(ours[name]), expected, 1e-5, 1e-5, err_msg=f"{seed} {name}")
            for name, expected in theirs.items():
                np.testing.assert_allclose(values(ours[name]), expected, 1e-5, 1e-5, err_msg=f"{seed} {name}")
            lending += lends() > 0
    assert lending > 20
