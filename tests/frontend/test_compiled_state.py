"""What compiled functions depend on and change besides tensors: Python values, modes, identity, looks at values.

Each program is run compiled and plain, with memory of its own; both must give the same.
"""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch

Compile = Callable[[Any], Any]
_PROGRAMS: dict[str, Callable[[Compile], list[Any]]] = {}


def _program(function: Callable[[Compile], list[Any]]) -> Callable[[Compile], list[Any]]:
    _PROGRAMS[function.__name__] = function
    return function


def _tensor(*shape: int, seed: int = 0, requires_grad: bool = False) -> Any:
    made = torch.tensor(np.random.RandomState(seed).randn(*shape).astype(np.float32))
    return made.requires_grad_() if requires_grad else made


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().numpy().copy()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def _check_same(a: Any, b: Any, place: str) -> None:
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, place
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=place)
    elif isinstance(a, list | dict):
        assert type(a) is type(b), place
        assert len(a) == len(b), place
        pairs = zip(a.items(), b.items(), strict=True) if isinstance(a, dict) else zip(a, b, strict=True)
        for i, (x, y) in enumerate(pairs):
            _check_same(list(x) if isinstance(a, dict) else x, list(y) if isinstance(a, dict) else y, f"{place}.{i}")
    else:
        assert a == b, place


# looks at values


@_program
def looks_at_a_realised_argument(c: Compile) -> list[Any]:
    masked = c(lambda x, m: x[m].sum())
    part = c(lambda x, i: x[int(i) :])
    values = c(lambda x: [2 * v for v in x.tolist()])
    repeated = c(torch.repeat_interleave)
    found: list[Any] = []
    for k in range(4):
        x = _tensor(6, seed=k)
        counts = torch.tensor(np.random.RandomState(k).randint(0, 3, 6))
        found += [masked(x, x > 0), part(x, torch.tensor(k)), values(x), repeated(x, counts)]
    return found


@_program
def looks_at_captured_memory(c: Compile) -> list[Any]:
    which = torch.tensor(0)
    f = c(lambda x: x * (2 if which.item() else 3))
    found: list[Any] = []
    for k in range(6):
        which.fill_(k % 2)
        which.item()
        found.append(f(_tensor(3)))
    return found


@_program
def looks_at_memory_through_numpy(c: Compile) -> list[Any]:
    held = torch.from_numpy(np.ones(3, np.float32))
    functions = [
        c(lambda x: x * (2 if x.numpy()[0] > 0 else 3)),
        c(lambda x: x + torch.tensor(np.asarray(x) * 2)),
        c(lambda x: x + float(np.from_dlpack(x).sum())),
        c(lambda x: x * (2 if held.numpy()[0] > 0 else 3)),
    ]
    found: list[Any] = []
    for value in (1.0, 1.0, -1.5, 3.0):
        held.fill_(value)
        x = torch.from_numpy(np.full(3, value, np.float32))
        found += [f(x) for f in functions]
    return found


@_program
def counts_writes(c: Compile) -> list[Any]:
    f = c(lambda x: x * x._version)
    x, found = _tensor(3), []
    for _ in range(4):
        found.append(_plain(f(x)))
        x.add_(1)
    return found


@_program
def looks_at_strides_and_places(c: Compile) -> list[Any]:
    f = c(lambda x: (x.stride(), x.is_contiguous(), x.reshape(-1) * 2))
    offset = c(lambda x: x * x.storage_offset())
    found: list[Any] = []
    for k in range(3):
        a = _tensor(4, 4, seed=k)
        for v in (a, a.t(), a[1:], a[2:], a[:, 1:], a[::2], a[0], a[3], a.t()[1:]):
            found += [f(v), offset(v)]
    return found


# arguments


@_program
def is_the_same_tensor(c: Compile) -> list[Any]:
    f = c(lambda x, y: x * 2 if x is y else x * 3)
    second = c(lambda x, y: (y, x))
    found: list[Any] = []
    for k in range(3):
        a = _tensor(3, seed=k)
        found += [f(a, a), f(a, a.clone()), f(a, a.detach()), f(a, a[:]), f(a, a)]
        b = a.detach()
        p, q = second(a, b)
        found += [p is b, q is a]
    return found


@_program
def gradients_of_arguments(c: Compile) -> list[Any]:
    def backward(x: Any) -> Any:
        (x * x).sum().backward()
        return x.grad

    def step(w: Any, x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        with torch.no_grad():
            w -= 0.1 * w.grad
        return w

    def total(ps: Any, x: Any) -> Any:
        loss = sum((p * x).sum() for p in ps)
        loss.backward()
        return loss

    f, g, h = c(backward), c(step), c(total)
    xs = [_tensor(3, seed=k, requires_grad=True) for k in range(3)]
    sets = [[_tensor(3, seed=i + j, requires_grad=True) for i in range(2)] for j in range(2)]
    found: list[Any] = []
    for k in range(9):
        x = xs[k % 3]
        found += [_plain(f(x)), _plain(x.grad), f(x) is x.grad]
    for k in range(8):
        w = xs[k % 2]
        found += [g(w, _tensor(3, seed=k)) is w, _plain(w), _plain(w.grad)]
    for k in range(8):
        found += [_plain(h(sets[k % 2], _tensor(3, seed=k))), _plain([p.grad for p in sets[k % 2]])]
    return found


@_program
def changes_lists_and_dictionaries(c: Compile) -> list[Any]:
    def append(items: list[Any]) -> Any:
        items[0] = items[0] + 1
        items.append(items[0] * 2)
        return items[-1].sum()

    def enter(d: dict[str, Any]) -> Any:
        d["y"] = d["x"] * 2
        return d["y"].sum()

    def deep(x: Any, d: dict[str, Any]) -> Any:
        d["a"][0].append(x * 2)
        return x.sum()

    f, g, h, same = c(append), c(enter), c(deep), c(lambda items, x: (items, x * 2))
    found: list[Any] = []
    for k in range(4):
        items, d, e = [_tensor(3, seed=k)], {"x": _tensor(3, seed=k)}, {"a": ([1], 2)}
        found += [f(items), items, g(d), d, h(_tensor(3), e), e]
        found.append(same(items, _tensor(3))[0] is items)
    return found


@_program
def floats_in_containers(c: Compile) -> list[Any]:
    f = c(lambda x, cfg: x * cfg["lr"] + cfg["b"][0])
    g = c(lambda x, t: x * t[0] + t[1][0])
    x = _tensor(3)
    return [[f(x, {"lr": 0.1 * k, "b": [float(k % 3)]}), g(x, (0.1 * k, (float(k),)))] for k in range(12)]


@_program
def new_objects_at_each_call(c: Compile) -> list[Any]:
    def scale(k: int) -> Callable[[Any], Any]:
        return lambda x: x * k

    point = collections.namedtuple("point", "x k")
    f, g = c(lambda fn, x: fn(x)), c(lambda p: p.x * p.k)
    found = [[f(scale(k), _tensor(2)), g(point(_tensor(3, seed=k), k // 2))] for k in range(12)]
    return [*found, c(lambda x, s: x.reshape(s))(_tensor(6), _tensor(2, 3).shape)]


# state


@_program
def state_that_comes_back(c: Compile) -> list[Any]:
    flag, kept, last = [False], [], {}

    def toggle(x: Any) -> Any:
        flag[0] = not flag[0]
        return x * 2 if flag[0] else x * 3

    def keep(x: Any) -> Any:
        kept.append(x * 2)
        last["n"] = len(kept)
        return x.sum()

    f, g = c(toggle), c(keep)
    found: list[Any] = []
    for k in range(9):
        found += [f(_tensor(3)), g(_tensor(3, seed=k)), _plain(kept), dict(last)]
        kept.clear()
        last.clear()
    return found


@_program
def attributes_of_modules_that_come_back(c: Compile) -> list[Any]:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flip = False
            self.seen: list[Any] = []

        def forward(self, x: Any) -> Any:
            self.flip = not self.flip
            self.seen.append(x.sum())
            return x * (2 if self.flip else 3)

    net = Net()
    f = c(net)
    found: list[Any] = []
    for k in range(8):
        found += [f(_tensor(3, seed=k)), _plain(net.seen)]
        net.seen.clear()
    return found


@_program
def attributes_of_functions_and_classes(c: Compile) -> list[Any]:
    class Base:
        width = 2
        held: Any = [1]  # noqa: RUF012

        def go(self, x: Any) -> Any:
            return x * self.width

        @staticmethod
        def scaled(x: Any) -> Any:
            return x * Child.width

        @property
        def first(self) -> Any:
            return Base.held[0] + numbers[0]

    class Child(Base):
        pass

    numbers, one = [1], Child()

    def g(x: Any) -> Any:
        return x * g.k  # type: ignore[attr-defined]

    g.k = 1  # type: ignore[attr-defined]
    part = functools.partial(lambda a, x: x * a[0], numbers)
    f = c(lambda x: [g(x), part(x), one.go(x), Child.scaled(x), x * one.first, x * Child.held[0]])
    f2 = c(part)
    found: list[Any] = []
    for k in range(14):
        if k == 2:
            g.k = 5  # type: ignore[attr-defined]
        if k == 4:
            numbers[0] = 3
        if k == 6:
            Base.width = 7
        if k == 8:
            Child.width = 9
        if k == 10:
            Base.held[0] = 4
        if k == 12:
            Child.go = lambda self, x: x * 100  # type: ignore[method-assign]
        found += [f(_tensor(3)), f2(_tensor(3))]
    return found


@_program
def other_containers(c: Compile) -> list[Any]:
    class Slots:
        __slots__ = ("k",)

    slots, queue = Slots(), collections.deque([1, 2, 3])
    user, order = collections.UserDict(a=1), {"a": 1, "b": 2}
    ordered = collections.OrderedDict(a=1, b=2)
    slots.k = 1

    def use(x: Any) -> Any:
        for k, v in (*order.items(), *ordered.items()):
            x = x * v + len(k)
        return [x, x * slots.k, x * queue[0], x * user["a"]]

    f, g = c(use), c(lambda x, s: x * s.k)
    found: list[Any] = []
    for k in range(12):
        if k == 2:
            slots.k = 5
        if k == 4:
            queue.rotate(1)
        if k == 6:
            user["a"] = 9
        if k == 8:
            order["a"] = order.pop("a")
        if k == 10:
            ordered.move_to_end("a")
        found += [f(_tensor(3)), g(_tensor(3), slots)]
    return found


@_program
def random_numbers_of_others(c: Compile) -> list[Any]:
    state = np.random.RandomState(0)
    f = c(lambda x: x * float(state.rand()))
    return [f(_tensor(3)) for _ in range(4)]


@_program
def modes(c: Compile) -> list[Any]:
    def leave_off(x: Any) -> Any:
        torch.set_grad_enabled(False)
        return x * 2

    f, g = c(leave_off), c(lambda x: x.double() * torch.tensor(1.5) + torch.zeros(3))
    found: list[Any] = []
    for k in range(6):
        found += [f(_tensor(3)), torch.is_grad_enabled()]
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float64 if k in (2, 3) else torch.float32)
        found += [g(_tensor(3)), str((torch.zeros(2) + 1.5).dtype)]
    torch.set_default_dtype(torch.float32)
    return found


@_program
def what_hooks_keep(c: Compile) -> list[Any]:
    w, log = _tensor(3, requires_grad=True), []
    w.register_post_accumulate_grad_hook(lambda p: log.append(1))

    def step(x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        return w.grad.clone()

    f = c(step)
    return [[f(_tensor(3, seed=k)), len(log)] for k in range(4)]


# results


@_program
def results_that_are_there(c: Compile) -> list[Any]:
    items, table, space = [1, 2], {"a": _tensor(3)}, types.SimpleNamespace(x=_tensor(3))

    def give(x: Any) -> Any:
        y = x * 2
        return items, table, space.x, y, y, y[0]

    f = c(give)
    found: list[Any] = []
    for k in range(5):
        a, b, x, y, z, first = f(_tensor(3, seed=k))
        y.add_(1)
        found += [a is items, b is table, x is space.x, y is z, y, z, first]
    return found


@pytest.mark.parametrize("name", _PROGRAMS)
def test_compiled_programs_give_what_plain_ones_give(name: str) -> None:
    program = _PROGRAMS[name]
    expected, found = _plain(program(lambda f: f)), _plain(program(torch.compile))
    _check_same(expected, found, name)


def test_a_function_that_makes_its_state_at_the_first_call_is_captured_at_the_second() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables: dict[int, Any] = {}

        def forward(self, x: Any) -> Any:
            n = x.shape[0]
            if n not in self.tables:
                self.tables[n] = torch.arange(n).float()
            return x * self.tables[n]

    f = torch.compile(Net(), fullgraph=True)
    before = torch.counters()["replays"]
    for _ in range(4):
        assert f(torch.ones(3)).tolist() == [0, 1, 2]
    assert torch.counters()["replays"] == before + 2


def test_arguments_whose_gradients_are_used_are_replayed_while_they_are_the_same() -> None:
    @torch.compile
    def step(w: Any, x: Any) -> None:
        w.grad = None
        (w * x).sum().backward()

    weights = [_tensor(3, seed=k, requires_grad=True) for k in range(2)]
    for w in (*weights, *weights):
        step(w, _tensor(3))
    before = torch.counters()["replays"]
    for k in range(6):
        x = _tensor(3, seed=k)
        step(weights[k % 2], x)
        assert weights[k % 2].grad.tolist() == x.tolist()
    assert torch.counters()["replays"] == before + 6


def recurrent() -> Any:
    """A global with the name of an attribute of the module below."""
    return np.random.rand()


class Named(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = torch.nn.Linear(3, 2)

    def forward(self, x: Any) -> Any:
        return self.recurrent(x)


def test_attributes_are_no_globals_of_the_same_name() -> None:
    net = torch.compile(Named())
    x = torch.ones(4, 3)
    before = torch.counters()["replays"]
    with torch.no_grad():
        results = [net(x).numpy().copy() for _ in range(3)]
    assert torch.counters()["replays"] == before + 2
    np.testing.assert_array_equal(results[0], results[2])
