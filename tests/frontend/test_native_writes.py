"""Writes in place, and calls with several results, are recorded in native code and give what Python gives."""

from __future__ import annotations

import gc
import random
import sys
import weakref
from collections.abc import Callable
from operator import setitem
from typing import Any

import pytest

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
from graphc.counting import FRONT
from graphc.recording import current
from tests.frontend.native_cases import both

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")


WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "add a number": lambda x, y: x.__iadd__(1),
    "add": lambda x, y: x.add_(y, alpha=0.5),
    "subtract": lambda x, y: x.__isub__(y),
    "multiply": lambda x, y: x.mul_(y),
    "by itself": lambda x, y: x.mul_(x),
    "divide": lambda x, y: x.div_(2.0),
    "clamp": lambda x, y: x.clamp_(0, 1),
    "relu": lambda x, y: F.relu(x, inplace=True),
    "exp": lambda x, y: x.exp_(),
    "addcmul": lambda x, y: x.addcmul_(y, y, value=0.5),
    "lerp": lambda x, y: x.lerp_(y, 0.25),
    "zero": lambda x, y: x.zero_(),
    "fill": lambda x, y: x.fill_(2.5),
    "fill with a tensor": lambda x, y: x.fill_(y[0, 0]),
    "copy": lambda x, y: x.copy_(y),
    "copy a row": lambda x, y: x.copy_(y[1]),
    "masked": lambda x, y: x.masked_fill_(y > 0, -1.0),
    "row": lambda x, y: setitem(x, 0, 1.5) or x,
    "column": lambda x, y: setitem(x, (slice(None), 1), y[:, 0]) or x,
    "row of its own": lambda x, y: setitem(x, 0, x[1]) or x,
    "row in place": lambda x, y: setitem(x, 1, x[1].__iadd__(y[0])) or x,
    "mask": lambda x, y: setitem(x, y > 0, 0.0) or x,
    "index": lambda x, y: setitem(x, torch.tensor([2, 0]), y[:2]) or x,
    "rows added": lambda x, y: x.index_add_(0, torch.tensor([2, 0]), y[:2]),
    "view": lambda x, y: x.view(2, 8).mul_(2.0),
    "transposed": lambda x, y: x.t().add_(y),
    "part": lambda x, y: x[1:3].sub_(y[1:3]),
}


def state(x: Any) -> tuple[Any, ...]:
    name = x.grad_fn.name() if x.grad_fn is not None else None
    return x.tolist(), x._version, x.requires_grad, x.is_leaf, name, x.stride()


@pytest.mark.parametrize("kind", ["plain", "pending", "history", "flowing", "leaf", "off", "detached"])
@pytest.mark.parametrize("name", WRITES)
def test_a_repeated_write_does_what_python_does(name: str, kind: str) -> None:
    write = WRITES[name]

    def run() -> list[Any]:
        torch.manual_seed(1)
        found: list[Any] = []
        w = torch.randn(4, 4).requires_grad_(kind in ("history", "flowing", "leaf", "off"))
        z = torch.randn(4, 4)
        for _ in range(6):
            x: Any = w * 1.5 if kind == "history" else z + 1 if kind != "plain" else z.clone()
            if kind == "plain":
                x.tolist()
            if kind in ("leaf", "off"):
                x = w
            seen, other = x[1], x.detach()
            y = w * 2 if kind == "flowing" else z * 0.5
            try:
                with torch.set_grad_enabled(kind != "off"):
                    result = write(other if kind == "detached" else x, y)
                same = result is x or result is other
            except RuntimeError as error:
                found.append(str(error))
                continue
            found += [same, *state(x), *state(other)[:3], *state(seen)]
            if x.requires_grad and not x.is_leaf:
                w.grad = None
                try:
                    (x * x).sum().backward()
                except RuntimeError as error:
                    found.append(str(error))
                found.append(w.grad.tolist() if w.grad is not None else None)
        return found

    ours, theirs = both(run)
    assert ours == theirs


def mode_and_version(x: Any) -> tuple[bool, int]:
    return x.is_inference(), -1 if x.is_inference() else x._version


@pytest.mark.parametrize("name", WRITES)
def test_a_write_in_inference_mode_does_what_python_does(name: str) -> None:
    def run() -> list[Any]:
        torch.manual_seed(1)
        found: list[Any] = []
        z, outside = torch.randn(4, 4), torch.randn(4, 4) + 0
        for turn in range(24):
            with (torch.inference_mode, torch.no_grad)[turn // 4 % 2]():
                x: Any = z + 1
                y = z * 0.5
                for target in (x, outside):
                    WRITES[name](target, y)
                    found += [target.tolist(), mode_and_version(target), mode_and_version(target[1])]
                made = x * 2, torch.var_mean(x, 1)[0]
                found += [mode_and_version(one) for one in made]
            try:
                found.append(made[0].add_(1).tolist())
            except RuntimeError as error:
                found.append(str(error))
        return found

    ours, theirs = both(run)
    assert ours == theirs


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", [name for name in WRITES if name not in ("index", "rows added")])
def test_writes_are_recorded_natively(name: str, mode: Any) -> None:
    x, y = torch.randn(4, 4), torch.randn(4, 4)

    @mode()
    def step() -> int:
        z = x + 1
        before = FRONT.records, FRONT.native_records
        WRITES[name](z, y)
        missed = FRONT.records - before[0] - (FRONT.native_records - before[1])
        z.sum().item()
        return missed

    assert [step() for _ in range(12)][-1] == 0


@pytest.mark.parametrize("whole_first", [True, False])
def test_writes_of_a_part_are_recorded_natively_also_where_all_is_written(whole_first: bool) -> None:
    x, y = torch.randn(3, 4), torch.randn(3, 4)

    def step(index: Any) -> int:
        z = x + 1
        before = FRONT.records, FRONT.native_records
        z[index] = y[index]
        missed = FRONT.records - before[0] - (FRONT.native_records - before[1])
        expected = [y[i].tolist() if i == index or index == slice(None) else (x[i] + 1).tolist() for i in range(3)]
        assert z.tolist() == expected
        return missed

    for index in (slice(None), 0) if whole_first else (0, slice(None), 0):
        missed = [step(index) for _ in range(12)]
    assert missed[-1] == 0


@pytest.mark.parametrize("name", ["zero", "fill", "copy"])
def test_writes_of_views_and_of_all_are_recorded_natively_beside_each_other(name: str) -> None:
    x, y = torch.randn(4, 4), torch.randn(4, 4)

    def step() -> list[int]:
        z, made = x + 1, list[int]()
        for target in (z[1:], z):
            before = FRONT.records, FRONT.native_records
            WRITES[name](target, y[: len(target)])
            made.append(FRONT.records - before[0] - (FRONT.native_records - before[1]))
        z.sum().item()
        return made

    assert [step() for _ in range(12)][-1] == [0, 0]


SEVERAL: dict[str, Callable[[Any], Any]] = {
    "max": lambda x: x.max(1),
    "min": lambda x: torch.min(x, dim=0, keepdim=True),
    "sort": lambda x: x.sort(1),
    "topk": lambda x: x.topk(2),
    "var_mean": lambda x: torch.var_mean(x, 1),
    "aminmax": lambda x: torch.aminmax(x),
    "addmm": lambda x: torch.addmm(x[0], x, x),
    "like": lambda x: (torch.zeros_like(x), torch.ones_like(x), torch.full_like(x, 2.0)),
    "masked": lambda x: x.masked_fill(x > 0, 0.5),
}


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", SEVERAL)
def test_several_results(name: str, requires_grad: bool) -> None:
    def run() -> list[Any]:
        torch.manual_seed(2)
        w, found = torch.randn(4, 4).requires_grad_(requires_grad), list[Any]()
        for _ in range(6):
            made = SEVERAL[name](w * 1)
            parts = [made] if isinstance(made, torch.Tensor) else list(made)
            found.append((type(made), getattr(made, "_fields", None)))
            for part in parts:
                found.append((part.requires_grad, part.dtype, *state(part)))
            if parts[0].requires_grad:
                w.grad = None
                (parts[0] * parts[0]).sum().backward()
                found.append(w.grad.tolist())  # type: ignore[union-attr]
        return found

    before = FRONT.native_records
    ours, theirs = both(run)
    assert ours == theirs
    assert FRONT.native_records - before > 6


_STEPS = (
    *("t += 1", "t -= u", "t *= 0.5", "t.mul_(u)", "t.add_(u, alpha=0.5)", "t.zero_()", "t.fill_(0.5)", "t.copy_(u)"),
    *("t.clamp_(-1, 1)", "t[0] = 1.0", "t[:, 1] = u[:, 0]", "t[1] += 1", "t[u > 0] = 0.25", "t[0] = t[1]"),
    *("t.masked_fill_(u > 0, 2.0)", "t.t().add_(u)", "t[1:3].mul_(2)", "t.view(2, 8).sub_(0.5)", "t.relu_()"),
    *("t = t * 1", "t = u + t", "v = t[1]", "v = t.t()", "v.add_(1)", "t.add_(v)", "t = t.detach()", "v = v * 2"),
    *("t.tolist()", "v.tolist()", "t, u = u, t", "u = t.clone()", "t = t * w", "u = torch.exp(u * 0.1)", "v.mul_(v)"),
    *("t = torch.zeros_like(t)", "t = t.max(1, keepdim=True)[0].expand(4, 4) * 1", "torch.add(t, 1, out=u.data)"),
)


def program(seed: int) -> str:
    draw = random.Random(seed)
    lines = ["def step(w, t, u, log):", " v = t[0]"]
    for _ in range(8):
        statement = draw.choice(_STEPS)
        lines += [" try:"]
        if draw.random() < 0.25:
            lines += ["  with torch.no_grad():", f"   {statement}"]
        else:
            lines += [f"  {statement}"]
        lines += [" except RuntimeError as error:", "  log.append(str(error))"]
    lines += [" log += [*state(t), *state(u), *state(v)]", " if t.requires_grad:", "  w.grad = None", "  try:"]
    lines += ["   (t * t).sum().backward()", "   log.append(None if w.grad is None else w.grad.tolist())"]
    lines += ["  except RuntimeError as error:", "   log.append(str(error))", " return t, u"]
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_of_writes(seed: int) -> None:
    scope: dict[str, Any] = {"torch": torch, "state": state}
    exec(compile(program(seed), f"program_{seed}.py", "exec"), scope)  # noqa: S102

    def run() -> list[Any]:
        torch.manual_seed(seed)
        log: list[Any] = []
        w = torch.randn(4, 4).requires_grad_(seed % 2 == 0)
        first, second = torch.randn(4, 4), torch.randn(4, 4)
        for _ in range(5):
            scope["step"](w, first.clone(), second.clone(), log)
            scope["step"](w, first * 1, second * w, log)
        return [repr(entry) for entry in log]

    ours, theirs = both(run)
    assert ours == theirs, program(seed)


# what must not be mistaken for the same


def test_leaves_that_require_gradients_are_refused_each_time() -> None:
    w = torch.ones(2, requires_grad=True)
    for _ in range(5):
        with torch.no_grad():
            w += 1
        with pytest.raises(RuntimeError, match="a leaf Variable"):
            w += 1
    assert w.tolist() == [6.0, 6.0] and w._version == 5


def test_a_view_of_the_memory_is_another_operand() -> None:
    def run() -> list[Any]:
        found: list[Any] = []
        for shared in (False,) * 4 + (True,) * 2:
            x = torch.arange(16.0).view(4, 4) * 1
            x.tolist()
            y = x.t() if shared else (torch.arange(16.0).view(4, 4) * 1).t()
            try:
                x.mul_(y)
            except RuntimeError as error:
                found.append(str(error))
            found.append(x.tolist())
        return found

    ours, theirs = both(run)
    assert ours == theirs


def test_what_numpy_shares_is_written() -> None:
    x = torch.ones(3)
    for k in range(6):
        array = x.numpy() if k > 3 else None
        x += 1
        assert array is None or array.tolist() == [k + 2.0] * 3
    assert x.tolist() == [7.0] * 3


def test_writes_by_another_thread_of_memory_count() -> None:
    x = torch.ones(2, requires_grad=True)
    for other in (False,) * 4 + (True,) * 2:
        y = x * 2
        z = y * y
        if other:
            y += 1
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                z.sum().backward()
        else:
            z += 1
            z.sum().backward()


def test_data_counts_writes_for_itself() -> None:
    def run() -> list[Any]:
        w, z, found = torch.ones(4, requires_grad=True), torch.ones(4), list[Any]()
        for through in (True,) * 4 + (False,) * 4 + (True,) * 2:
            x = z * 2
            y = x.data if through else x
            y.mul_(w)
            w.grad = None
            y.sum().backward()
            found += [x._version, y._version, x.requires_grad, x.tolist(), w.grad.tolist()]  # type: ignore[union-attr]
        return found

    ours, theirs = both(run)
    assert ours == theirs


def test_nothing_that_was_written_is_kept_alive() -> None:
    x = torch.ones(4)
    refs = []
    for _ in range(8):
        y = x * 2
        y += 1
        y[0] = 3.0
        y.zero_()
        y.add_(x)
        values, numbers = y.max(0)
        refs += [weakref.ref(held) for held in (y, y._storage, values, numbers)]
        del y, values, numbers
    current().flush("")
    gc.collect()
    assert [ref() for ref in refs] == [None] * len(refs)


def test_recipes_hold_no_reference() -> None:
    x, w = torch.randn(4, 4), torch.randn(4, 4).requires_grad_()

    def step() -> None:
        y, z = x * 1, w * 2
        y += 1
        y[0] = 2.0
        y[1] = x[0]
        y.zero_()
        y.copy_(x)
        torch.topk(y, 2)
        torch.addmm(x[0], y, torch.ones_like(x))
        z += y
        z.relu_()
        current().flush("")

    for _ in range(60):
        step()
    names = "AddBackward0", "ReluBackward0", "AddmmBackward0"
    held = [x, w, x._storage, w._storage, x._type, x._strides, w._lineage, current(), torch.Tensor, *names]
    gc.collect()
    before, counts = FRONT.native_records, [sys.getrefcount(one) for one in held]
    for _ in range(500):
        step()
    gc.collect()
    assert FRONT.native_records - before >= 500 * 15
    grown = [sys.getrefcount(one) - count for one, count in zip(held, counts, strict=True)]
    assert max(map(abs, grown)) <= 2, grown


def test_a_long_loop_of_writes_that_nobody_looks_at_is_bounded() -> None:
    x, total = torch.ones(2), torch.zeros(2)
    for _ in range(3_000):
        total += x
    assert total.tolist() == [3000.0, 3000.0] and total._version == 3000


def test_parameters_without_a_shape_go_to_python() -> None:
    """They have none of a tensor's parts."""
    weight: Any = nn.LazyLinear(4).weight
    for _ in range(4):
        for run in (lambda: weight + 1, lambda: torch.relu(weight), lambda: weight.mul_(2)):
            with pytest.raises(ValueError, match="uninitialized parameter"):
                run()
