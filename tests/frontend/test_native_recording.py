"""Calls that are recorded again in native code: they give what Python gives, and only calls that give the same do."""

from __future__ import annotations

import gc
import inspect
import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import amp, dtypes, func, optim
from graphc.autograd import graph as autograd_graph
from graphc.counting import FRONT
from graphc.native import library, operators
from graphc.recording import OFTEN, Recorder, current, using
from graphc.repeats import KEY_WORDS, LOOKED_AT, PLACES, place_of
from tests.frontend.native_cases import both

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")


def natively(run: Callable[[], Any]) -> int:
    before = FRONT.native_records
    run()
    return FRONT.native_records - before


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "add a number": lambda x, y: x + 2,
    "subtract from a number": lambda x, y: 2.5 - x,
    "divide a number": lambda x, y: 1 / x,
    "same twice": lambda x, y: x * x,
    "negative": lambda x, y: -x,
    "power": lambda x, y: x**2,
    "power of a number": lambda x, y: 2.0**x,
    "product": lambda x, y: x @ y,
    "function": lambda x, y: torch.exp(x),
    "method": lambda x, y: x.tanh(),
    "keyword": lambda x, y: F.gelu(x, approximate="tanh"),
    "dim": lambda x, y: torch.norm(x, dim=(0, 1)),
    "softmax": lambda x, y: F.softmax(x, 1),
    "where": lambda x, y: torch.where(x > y, x, y),
    "linear": lambda x, y: F.linear(x, y, y[0] * 1),
    "relu": lambda x, y: F.relu(x),
    "loss": lambda x, y: F.mse_loss(x, y),
    "layer_norm": lambda x, y: F.layer_norm(x, (4,)),
    "clamp": lambda x, y: torch.clamp(x, -0.5, 0.5),
    "cat": lambda x, y: torch.cat([x, y, x]),
    "stack": lambda x, y: torch.stack((x, y), dim=1),
    "row": lambda x, y: x[0] * y[0],
    "slice": lambda x, y: torch.exp(x[:, 1:]),
    "transposed": lambda x, y: x.t() @ y,
    "flat": lambda x, y: F.linear(torch.flatten(x, 0), y.reshape(1, 16)),
    "row of a result": lambda x, y: torch.exp((x * 2)[1]),
    "transposed result": lambda x, y: (x * y).transpose(0, 1) + (x * y),
    "cross_entropy": lambda x, y: F.cross_entropy(x, torch.tensor([0, 3, 1, 2])),
    "parts": lambda x, y: x.chunk(2)[1] * y.chunk(2)[0],
    "columns": lambda x, y: x.chunk(2, dim=-1)[0] @ y.split(2, 1)[1].t(),
    "rows": lambda x, y: sum((row * other).sum() for row, other in zip(x.unbind(), y.unbind(1), strict=True)),
    "sizes": lambda x, y: torch.split(x, [1, 3])[1] + torch.split_with_sizes(y, (3, 1))[0],
    "parts of a result": lambda x, y: torch.exp((x + y).chunk(2)[0]),
    "made of nothing": lambda x, y: x * torch.ones(4, 4) + torch.arange(4) + torch.full((4,), 2.5) @ torch.eye(4),
    "other dtype": lambda x, y: x.double() * y.to(torch.float64),
    "conv": lambda x, y: F.conv2d(x.reshape(1, 1, 4, 4) * 1, y.reshape(1, 1, 4, 4) * 1, padding=(1, 1)),
}


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_a_repeated_call_gives_what_python_gives(name: str, requires_grad: bool) -> None:
    def run() -> list[Any]:
        torch.manual_seed(1)
        x, y = torch.randn(4, 4).requires_grad_(requires_grad), torch.randn(4, 4)
        found: list[Any] = []
        for _ in range(5):
            made = CALLS[name](x, y)
            about = made.shape, made.dtype, made.requires_grad, made.is_leaf, made._version, made.stride()
            found.append((*about, type(made), getattr(made.grad_fn, "name", lambda: None)()))
            if requires_grad:
                x.grad = None
                (made * made).sum().backward()
                found.append(x.grad.tolist())  # type: ignore[union-attr]
            found.append(made.tolist())
        return found

    before = FRONT.native_records
    ours, theirs = both(run)
    assert ours == theirs
    assert FRONT.native_records > before


def test_a_training_loop_is_recorded_natively_and_gives_the_same_losses() -> None:
    def losses() -> list[float]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = optim.SGD(net.parameters(), lr=0.1)
        x, y = torch.randn(5, 4), torch.randn(5, 3)
        found: list[float] = []
        for _ in range(8):
            optimizer.zero_grad()
            loss = F.mse_loss(net(x), y)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    current().repeats.clear()  # it is not cleared in between then
    before = FRONT.native_records
    ours, theirs = both(losses)
    assert ours == theirs
    assert FRONT.native_records - before >= 5 * 4  # two layers, an activation and a loss


def test_steps_have_one_program_when_native_recording_begins() -> None:
    operators.remove()
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    x, y = torch.randn(5, 4), torch.randn(5, 3)

    def step() -> None:
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
        loss.item()

    for _ in range(3):
        step()
    operators.install()
    before = FRONT.programs_built
    assert natively(lambda: [step() for _ in range(6)]) > 0
    assert FRONT.programs_built == before


def test_native_code_is_made_while_operations_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for LLVM; what is recorded 256 operations later looks again."""
    done = threading.Event()
    monkeypatch.setattr(library, "build_text", lambda kind, text, passes: done.wait())
    monkeypatch.setattr(library, "MAKER", maker := library.Maker())
    monkeypatch.setattr(operators, "MAKER", maker)
    x = torch.ones(3)
    operators.remove()
    with using(Recorder()):
        for count, ready in ((OFTEN, False), (2 * OFTEN, False), (3 * OFTEN, True)):
            if ready:
                done.set()
                maker.join()
            while current()._count < count:
                assert not operators._undone
                x * current()._count
            assert bool(operators._undone) == ready


# what must not be mistaken for the same


def test_another_number_is_another_call() -> None:
    x = torch.ones(3)
    found = [(x * k).tolist()[0] for k in [2.0] * 4 + [3.0] * 4 + [2.0, 2, True]]
    assert found == [2.0] * 4 + [3.0] * 4 + [2.0, 2.0, 1.0]


@pytest.mark.parametrize("number", [float("nan"), -0.0, 1 << 80, -(1 << 63), float("inf"), True])
def test_unusual_numbers(number: Any) -> None:
    def run() -> Any:
        x = torch.tensor([0.0, 1.5])
        return [np.array((x * number).tolist()).tobytes() for _ in range(5)]

    ours, theirs = both(run)
    assert ours == theirs


def test_numbers_of_other_kinds_are_told_apart() -> None:
    x = torch.tensor([1, 2])
    kinds = [(x * k).dtype for _ in range(4) for k in (1, 1.0, True)]
    assert kinds == [torch.int64, torch.float32, torch.int64] * 4


def test_a_tensor_whose_value_decides_is_looked_at_each_time() -> None:
    size, x = torch.tensor(2.0), torch.ones(3)
    found = []
    for k in range(6):
        size.fill_(float(k))
        size.item()
        found.append(torch.clamp(x * 4, max=size.item()).tolist()[0])
    assert found == [0.0, 1.0, 2.0, 3.0, 4.0, 4.0]


def test_writes_are_seen() -> None:
    x = torch.ones(2)
    found = []
    for _ in range(5):
        found.append((x + 1).tolist()[0])
        x.add_(1)
    assert found == [2.0, 3.0, 4.0, 5.0, 6.0]


def test_what_numpy_writes_is_seen() -> None:
    x = torch.ones(2)
    array = x.numpy()
    found = []
    for k in range(5):
        array[:] = k
        found.append((x + 1).tolist()[0])
    assert found == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_gradients_flow_or_do_not_as_the_mode_says() -> None:
    x = torch.ones(2, requires_grad=True)
    flags = []
    for _ in range(4):
        for mode in (True, False):
            with torch.set_grad_enabled(mode):
                flags.append((x * 2).requires_grad)
    assert flags == [True, False] * 4


def test_a_value_that_lets_no_gradient_through() -> None:
    x = torch.ones(2, requires_grad=True)
    for _ in range(5):
        with torch.no_grad():
            fixed = x * 3
        x.grad = None
        (x * fixed).sum().backward()
        assert x.grad.tolist() == [3.0, 3.0]  # type: ignore[union-attr]


def test_inference_mode_counts_no_writes() -> None:
    x = torch.ones(2)
    flags = []
    for _ in range(6):
        for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
            for _ in range(3):
                with mode():
                    flags.append(((x * 2).is_inference(), x.max(0)[0].is_inference()))
    assert flags == ([(True, True)] * 3 + [(False, False)] * 6) * 6


def test_the_default_dtype_decides() -> None:
    x = torch.tensor([1, 2])
    kinds = []
    try:
        for _ in range(4):
            for dtype in (torch.float32, torch.float64):
                dtypes.set_default_dtype(dtype)
                kinds.append((x / 2).dtype)
    finally:
        dtypes.set_default_dtype(torch.float32)
    assert kinds == [torch.float32, torch.float64] * 4


def test_autocast_converts() -> None:
    x = torch.ones(2, 2)
    kinds = []
    for _ in range(4):
        for on in (True, False):
            with amp.autocast("cpu", enabled=on):
                kinds.append((x @ x).dtype)
    assert kinds == [torch.bfloat16, torch.float32] * 4


def test_views_are_views() -> None:
    x = torch.arange(6.0)
    for k in range(5):
        y = x.view(2, 3)
        y[0, 0] = float(k)
        assert (y.t() * 2).tolist()[0][0] == 2.0 * k == 2 * x.tolist()[0]


def test_checks_of_values_are_made_each_time() -> None:
    y, x = torch.tensor([0, 1]), torch.randn(2, 3)
    for _ in range(4):
        F.cross_entropy(x, y).item()
    y.fill_(7)
    with pytest.raises(IndexError):
        F.cross_entropy(x, y).item()


def test_random_numbers_differ() -> None:
    x = torch.ones(64)
    assert len({tuple(F.dropout(x, 0.5).tolist()) for _ in range(5)}) == 5


def test_running_statistics_are_updated_each_time() -> None:
    norm, x = nn.BatchNorm1d(2), torch.randn(4, 2)
    for k in range(1, 6):
        norm(x).sum().item()
        assert norm.num_batches_tracked.item() == k  # type: ignore[union-attr]


def test_hooks_of_saved_tensors_are_called() -> None:
    packed: list[Any] = []
    x = torch.ones(2, requires_grad=True)
    for use in (False,) * 4 + (True,) * 2:
        with (
            autograd_graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t)
            if use
            else torch.enable_grad()
        ):
            torch.exp(x * 2)
    assert packed


def test_vmap_and_compiled_functions_are_recorded_in_python() -> None:
    x = torch.randn(3, 2)

    def function(t: Any) -> Any:
        return torch.exp(t * 2) + t

    for _ in range(4):
        function(x[0] * 1).tolist()
    expected = [function(row).tolist() for row in x]
    assert func.vmap(function)(x).tolist() == expected
    compiled = torch.compile(function)
    assert [compiled(x).tolist() for _ in range(4)] == [expected] * 4


def test_lines_of_the_user_are_told() -> None:
    def first(x: Any) -> Any:
        return x * 2

    def second(x: Any) -> Any:
        return x * 2

    x = torch.ones(2)
    for _ in range(4):
        first(x)
    made = second(x)
    value = made._storage.value
    assert value is not None
    lines = {location.line for location in value.node.locs}
    assert {f.__code__.co_firstlineno + 1 for f in (first, second)} <= lines


def test_errors_are_raised_each_time() -> None:
    x, y = torch.ones(2), torch.ones(3)
    for _ in range(4):
        with pytest.raises(RuntimeError, match="must match"):
            x + y
        assert (x + x).tolist() == [2.0, 2.0]


def test_a_subclass_keeps_its_own_operators() -> None:
    class Mine(torch.Tensor):
        def __add__(self, other: Any) -> Any:  # type: ignore[override]
            return "mine"

    x = torch.ones(2)
    mine = Mine([1.0, 1.0])
    assert [mine + x for _ in range(4)] == ["mine"] * 4
    assert [(mine * x).tolist() for _ in range(4)] == [[1.0, 1.0]] * 4


def test_what_is_no_operand_is_left_to_python() -> None:
    class Other:
        def __radd__(self, other: Any) -> str:
            return "other"

    x: Any = torch.ones(2)
    assert [x + Other() for _ in range(4)] == ["other"] * 4
    with pytest.raises(TypeError):
        x + "a"
    assert (x == None) is False  # noqa: E711
    assert [(x + np.ones(2, np.float32)).tolist() for _ in range(4)] == [[2.0, 2.0]] * 4


# memory


def test_nothing_is_kept_alive() -> None:
    x = torch.ones(4, requires_grad=True)
    refs = []
    for _ in range(6):
        y = torch.exp(x * 2) + x
        refs.append(weakref.ref(y))
        z = y.sum()
        z.backward()
        z.item()
        del y, z
    gc.collect()
    assert [ref() for ref in refs] == [None] * 6
    leaf = weakref.ref(x)
    del x
    gc.collect()
    assert leaf() is None


def test_tensors_in_lists_are_not_kept_alive() -> None:
    x = torch.ones(2, 4)
    refs = []
    for _ in range(6):
        parts = [x * 2, x[0:1]]
        refs += [weakref.ref(part) for part in parts]
        torch.cat(parts).sum().item()
        torch.stack((parts[0], parts[0])).sum().item()
        del parts
    gc.collect()
    assert [ref() for ref in refs] == [None] * 12


def test_a_loop_of_results_that_nobody_looks_at_is_bounded() -> None:
    x = torch.ones(2)
    for _ in range(11_000):
        x = x * 1.0
    assert x.tolist() == [1.0, 1.0]


def test_finalizers_may_record() -> None:
    class Records:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            made.append((x * 3).tolist())

    made: list[Any] = []
    x = torch.ones(2)
    for _ in range(200):
        Records()
        assert (x + 1).tolist() == [2.0, 2.0]
        gc.collect(0)
    assert made and all(found == [3.0, 3.0] for found in made)


def test_more_calls_than_the_table_holds() -> None:
    x = torch.ones(1)
    functions = [eval(f"lambda x: x + {k}.0") for k in range(PLACES)]  # noqa: S307  lines of their own
    for _ in range(3):
        for k, function in enumerate(functions):
            made = function(x)
            if k % 100 == 0:
                made.item()  # or what is pending would be ended round by round, which is left to Python
    assert [functions[k](x).item() for k in (0, 1, PLACES - 1)] == [1.0, 2.0, float(PLACES)]
    assert 0 < len(current().repeats) <= PLACES // 2 + 1


def test_keys_that_fall_together_are_found() -> None:
    repeats = current().repeats
    made = {"node": 1, "type": 2, "strides": 3, "name": 4, "nbytes": 5, "flows": 0, "parents": 0, "which": 0}
    keys = ([k, *[0] * (KEY_WORDS - 1)] for k in range(1, 1 << 20))
    first = place_of([1, *[0] * (KEY_WORDS - 1)])
    together = list(itertools.islice((key for key in keys if place_of(key) == first), LOOKED_AT + 1))
    for place, key in enumerate(together):
        repeats.add(key, made, (key,))
        assert len(repeats) == (place + 1 if place < LOOKED_AT else 0), "the table is cleared when there is no room"


def test_threads_record_for_themselves() -> None:
    shared = torch.ones(8)
    found: list[Any] = []

    def work(k: int) -> None:
        x = torch.full((8,), float(k))
        for _ in range(300):
            y = (x * 2 + shared) * 0.5
        found.append((k, y.tolist()[0]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(k, k + 0.5) for k in range(4)]


def test_a_thread_looks_while_another_records() -> None:
    x = torch.ones(16)
    held: list[Any] = [x]
    stop = threading.Event()
    seen: list[float] = []

    def look() -> None:
        while not stop.is_set():
            seen.append(held[0].tolist()[0])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(3_000):
            x = x * 1.0 + 0.0
            held[0] = x
    finally:
        stop.set()
        thread.join()
    assert set(seen) == {1.0} and x.tolist()[0] == 1.0


def test_methods_show_what_they_are() -> None:
    assert list(inspect.signature(torch.Tensor.__add__).parameters) == ["self", "other"]
    assert torch.Tensor.__add__.__name__ == "__add__" and torch.Tensor.__add__.__doc__
