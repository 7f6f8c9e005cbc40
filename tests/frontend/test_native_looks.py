"""A look at what is pending, as `if` on a tensor or `float`, computes and reads it without any Python function."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest

import graphc as torch
from graphc.counting import FRONT
from graphc.errors import GraphcError
from graphc.recording import current
from tests.frontend.native_cases import both, entered

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")

LOOKS: dict[str, Callable[[Any], Any]] = {
    "item": lambda x: (x * 2).sum().item(),
    "list": lambda x: (x * 2).tolist(),
    "truth": lambda x: bool((x > 1).sum()),
    "float": lambda x: float((x * 2).sum()),
    "int": lambda x: int(x.long().sum()),
    "index": lambda x: range(10)[x.argmax()],
    "array": lambda x: (x * 2).numpy().sum(),
    "truth of a float": lambda x: bool((x * 0).sum()),
    "int of a float": lambda x: int((x * 1.6).sum()),
    "float of an integer": lambda x: float(x.long().sum()),
    "int of a truth value": lambda x: int((x > 1).any()),
    "not a number": lambda x: bool((x / 0 - x / 0).sum()),
}
PLAIN: list[Callable[[Any], Any]] = [
    lambda x: x.item(),
    lambda x: x.tolist(),
    lambda x: x.numpy(),
    lambda x: x.data_ptr(),
    bool,
    float,
]


def _x() -> Any:
    x = torch.arange(4.0)
    x.tolist()
    return x


@pytest.mark.parametrize("name", LOOKS)
def test_looks_give_what_python_gives(name: str) -> None:
    x, look = _x(), LOOKS[name]

    def run() -> Any:
        return [(type(seen), seen) for seen in (look(x) for _ in range(5))]

    ours, theirs = both(run)
    assert ours == theirs


@pytest.mark.parametrize("look", PLAIN)
def test_no_python_function_is_entered(look: Callable[[Any], Any]) -> None:
    x, names = _x(), [getattr(look, "__code__", None) and look.__code__.co_qualname]
    for turn in range(6):
        pending = (x * 2).sum()
        before = FRONT.native_flushes
        seen = entered(lambda held=pending: look(held))
        if turn > 3:
            assert [name for name in seen if name not in names] == []
            assert FRONT.native_flushes == before + 1


@pytest.mark.parametrize("look", [int, lambda x: range(99)[x]])
def test_no_python_function_is_entered_for_integers(look: Callable[[Any], Any]) -> None:
    x, names = torch.arange(4), [getattr(look, "__code__", None) and look.__code__.co_qualname]
    x.tolist()
    for turn in range(6):
        pending = (x * 2).sum()
        seen = entered(lambda held=pending: look(held))
        assert turn < 4 or [name for name in seen if name not in names] == []


def test_gradients_are_there_after_a_look() -> None:
    def run() -> Any:
        w, x, found = torch.ones(4, requires_grad=True), _x(), []
        for _ in range(5):
            w.grad = None
            loss = (w * x).sum()
            if float(loss.detach()) > 0:
                loss.backward()
            found.append((float(loss), w.grad.tolist()))
        return found

    ours, theirs = both(run)
    assert ours == theirs


def test_a_failed_check_raises_once_and_leaves_order() -> None:
    x, index = _x(), torch.tensor([0, 1])
    for turn in range(6):
        wrong = index + (9 if turn == 4 else turn % 2)
        picked = x[wrong].sum()
        if turn == 4:
            with pytest.raises(IndexError, match="out of bounds"):
                bool(picked)
        else:
            assert float(picked) == x.tolist()[turn % 2] + x.tolist()[turn % 2 + 1]
    assert not current().pending and not current().parted


def test_parts_are_read_anew_after_they_were_written() -> None:
    x = torch.zeros(6, 3)
    x.tolist()
    for turn in range(12):
        assert float((x[turn % 6] * 2).sum()) == (0.0 if turn < 6 else 6.0)
        x[turn % 6] += 1


def test_leaves_give_their_numbers_back_in_order() -> None:
    recorder = current()
    kept = [torch.full((3,), float(n)) for n in range(9)]
    sum(kept).sum().item()
    for turn in range(12):
        some = [kept[(turn * 5 + n * 7) % 9] * 1 for n in range(5)]
        assert float(sum(some).sum()) == 3.0 * sum((turn * 5 + n * 7) % 9 for n in range(5))
        free = recorder.free
        assert all(free[place] <= free[at] for place in range(len(free)) for at in (2 * place + 1, 2 * place + 2)
                   if at < len(free))  # fmt: skip
        assert len(set(free)) == len(free)


def test_another_thread_looks() -> None:
    x, found = _x(), list[float]()
    for _ in range(6):
        pending = (x * 3).sum()
        thread = threading.Thread(target=lambda held=pending: found.append(float(held)))
        thread.start()
        thread.join()
    assert found == [18.0] * 6


@pytest.mark.parametrize("call", [bool, float, int, lambda x: range(3)[x]])
def test_several_elements_are_refused(call: Callable[[Any], Any]) -> None:
    x = torch.arange(4)
    x.tolist()
    for _ in range(3):
        with pytest.raises((GraphcError, TypeError)):
            call(x * 2)
    with pytest.raises(TypeError, match="only integer tensors"):
        range(3)[(x * 1.5)[0]]


def test_a_captured_call_that_looks_runs_plainly() -> None:
    @torch.compile
    def step(x: Any) -> Any:
        return x * 2 if bool(x.sum() > 3) else x * 3

    for start in (0.0, 5.0, 0.0, 5.0):
        x = torch.arange(3.0) + start
        assert step(x).tolist() == [(n + start) * (2 if 3 * start + 3 > 3 else 3) for n in range(3)]


def test_objects_end_well_with_the_interpreter() -> None:
    program = """
        import graphc as torch
        kept, x = [], torch.arange(8.0)
        for n in range(400):
            kept.append((x * n + torch.rand(8)).sum())
            float(kept[-1])
        held = {"self": kept, "pending": x * 2, "array": x.numpy()}
        held["again"] = held
        print(len(kept))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "400", "")
