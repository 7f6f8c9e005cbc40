"""What recording remembers of operations never answers for something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import graphc as torch
import graphc.nn.functional as F
from graphc import optim
from graphc.leaves import NEAR_READS
from graphc.optim.stepped import SteppedOptimizer
from graphc.recorder import RuntimeScalars, Update, update
from graphc.recording import current


@pytest.fixture
def default_dtype() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


def test_the_default_dtype_is_part_of_what_is_remembered(default_dtype: None) -> None:
    x = torch.arange(3)
    assert torch.exp(x).dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    assert torch.exp(x).dtype is torch.float64
    assert torch.sigmoid(x).dtype is torch.float64


def test_numbers_of_another_kind_are_other_arguments() -> None:
    x = torch.ones(1, 1, 4, 4)
    assert F.max_pool2d(x, 2, 2).shape == (1, 1, 2, 2)
    for bad in (2.0, "2", [2, 2, 2]):
        with pytest.raises((TypeError, RuntimeError)):
            F.max_pool2d(x, bad)
    assert F.max_pool2d(x, [2, 2]).shape == (1, 1, 2, 2)
    weight = torch.ones(1, 1, 2, 2)
    assert F.conv2d(x, weight, stride=[2, 2]).shape == F.conv2d(x, weight, stride=2).shape
    assert F.conv2d(x, weight, stride=(1, 2)).shape == (1, 1, 3, 2)


def test_what_a_function_closes_over_is_part_of_what_is_remembered() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    for _ in range(2):
        assert x.sum(0).tolist() == [3.0, 5.0, 7.0]
        assert x.sum(1).tolist() == [3.0, 12.0]
        assert x.sum(1, keepdim=True).tolist() == [[3.0], [12.0]]
        assert x.sum(1, dtype=torch.float64).dtype is torch.float64
        assert F.leaky_relu(-x, 0.5).tolist()[1] == [-1.5, -2.0, -2.5]
        assert F.leaky_relu(-x, 0.25).tolist()[1] == [-0.75, -1.0, -1.25]
        assert F.hardtanh(x, -1, 2).tolist()[1] == [2.0, 2.0, 2.0]
        assert F.hardtanh(x, -1, 2.5).tolist()[1] == [2.5, 2.5, 2.5]
    for zero in (0.0, -0.0):
        assert str(F.threshold(-x, 1.0, zero)[0, 0].item()) == str(zero)


def test_an_operation_is_emitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2, 3)
    applied: list[str] = []
    apply = type(current().b).apply

    def noted(self: Any, op: str, *arguments: Any) -> Any:
        applied.append(op)
        return apply(self, op, *arguments)

    monkeypatch.setattr(type(current().b), "apply", noted)
    counts = []
    for _ in range(3):
        applied.clear()
        held = (x.sum(0), x.mean(1), F.leaky_relu(x, 0.3), F.hardtanh(x, -2, 2))
        counts.append(len(applied))
        del held
    assert counts[0] > 4
    assert counts[1:] == [0, 0]


def test_errors_come_again() -> None:
    assert (torch.ones(2, 3) @ torch.ones(3, 2)).tolist() == [[3.0, 3.0]] * 2
    for _ in range(3):
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            torch.ones(2, 3) @ torch.ones(2, 3)
        with pytest.raises(RuntimeError, match="same dtype"):
            torch.ones(2, 3) @ torch.ones(3, 2, dtype=torch.float64)
        with pytest.raises(RuntimeError, match="channels"):
            F.conv2d(torch.ones(1, 2, 4, 4), torch.ones(1, 3, 2, 2))
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            F.linear(torch.ones(2, 3), torch.ones(4, 5))


def test_strides_decide_how_rows_are_multiplied() -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    x = torch.arange(12.0).reshape(2, 2, 3)
    assert torch.equal(F.linear(x, weight), F.linear(x.transpose(0, 1), weight).transpose(0, 1))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.1),
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        lambda p: optim.Adam(p, lr=0.1, amsgrad=True),
        lambda p: optim.AdamW(p, lr=0.1),
        lambda p: optim.Adamax(p, lr=0.1, maximize=True),
        lambda p: optim.NAdam(p, lr=0.1, weight_decay=0.01, decoupled_weight_decay=True),
        lambda p: optim.RAdam(p, lr=0.1, weight_decay=0.01),
        lambda p: optim.RMSprop(p, lr=0.1, momentum=0.9, centered=True),
        lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.1),
        lambda p: optim.Adadelta(p, lr=0.5),
        lambda p: optim.Rprop(p, lr=0.1, etas=(0.4, 1.5)),
        lambda p: optim.ASGD(p, lr=0.1, lambd=0.1, t0=2),
        lambda p: optim.Adafactor(p, lr=0.1, weight_decay=0.01),
    ],
)
def test_a_repeated_update_is_the_recorded_one(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(steps: int) -> list[list[float]]:
        a, b = torch.tensor([1.0, -2.0]).requires_grad_(), torch.tensor([3.0]).requires_grad_()
        optimizer = make([a, b])
        for step in range(steps):
            optimizer.zero_grad()
            ((a * b).sum() * (step + 1) + (a * a).sum()).backward()
            for group in optimizer.param_groups:
                group["lr"] *= 0.5
            optimizer.step()
        return [a.tolist(), b.tolist()]

    current().reset()
    remembered = train(6)
    assert current().updates
    for module in ("sgd", "stepped"):
        monkeypatch.setattr(f"graphc.optim.{module}.update", lambda key, updates, numbers: [u.run() for u in updates])
    current().reset()
    assert train(6) == remembered
    assert not current().updates
    assert train(5) != remembered


def test_an_update_that_reads_numbers_of_its_own_is_not_remembered() -> None:
    current().reset()
    tensors = [torch.ones(2), torch.ones(3), torch.ones(5)]

    def grow(tensor: Any) -> None:
        tensor.add_(tensor.numel() ** 0.5)  # another number at each call of this line: read at run time

    for _ in range(3):
        with torch.no_grad():
            update(("grow",), [Update([t], [], lambda t=t: grow(t)) for t in tensors], ())
        for tensor in tensors:
            tensor.data_ptr()
    assert not current().updates
    for tensor in tensors:
        assert tensor.tolist() == pytest.approx([1 + 3 * tensor.numel() ** 0.5] * tensor.numel())


def test_gradients_filled_with_zeros_are_remembered() -> None:
    current().reset()
    parameters = [torch.ones(size).requires_grad_() for size in (2, 3)]
    optimizer = optim.SGD(parameters, lr=0.1)
    known = []
    for _ in range(NEAR_READS + 5):
        (parameters[0].sum() * 2 + parameters[1].sum() * 3).backward()
        assert [p.grad.tolist() for p in parameters] == [[2.0] * 2, [3.0] * 3]
        optimizer.zero_grad(set_to_none=False)
        assert [p.grad.tolist() for p in parameters] == [[0.0] * 2, [0.0] * 3]
        known.append(len(current().updates))
    assert known == [1] * NEAR_READS + [2] * 5, "once they were read soon again, the gradients keep their leaves"


@pytest.mark.parametrize("size", [3, 40])
def test_rates_are_computed_with_the_first_updates_alone(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parameters are updated in several parts, of which each reads the rates."""
    calls: list[int] = []
    moved = SteppedOptimizer._move

    def _move(self: Any, key: Any, step: Any, members: Any, numbers: Any, move: Any, rates: Any = None) -> None:
        def counted(count: Any) -> Any:
            calls.append(1)
            return rates(count)

        moved(self, key, step, members, numbers, move, counted)

    monkeypatch.setattr(SteppedOptimizer, "_move", _move)
    current().reset()
    parameters = [torch.full((1 + place,), 2.0).requires_grad_() for place in range(size)]
    optimizer = optim.Adam(parameters, lr=0.5)
    for _ in range(NEAR_READS + 6):
        optimizer.zero_grad()
        torch.stack([(p * p).sum() for p in parameters]).sum().backward()
        optimizer.step()
        for parameter in parameters:
            parameter.data_ptr()
    assert 1 <= len(calls) <= 3
    assert all(p.tolist() == pytest.approx([parameters[0].item()] * p.numel()) for p in parameters)
    assert optimizer.state[parameters[-1]]["step"].item() == NEAR_READS + 6


def test_numbers_that_stay_are_the_same_tensors() -> None:
    numbers = RuntimeScalars()
    given: list[float] = [0.5, 0.25, 0.125]

    def asked() -> list[Any]:
        numbers.begin()
        return [numbers.scalar(lambda place=place: given[place]) for place in range(len(given))]

    first = asked()
    given[1] = 0.75
    second = asked()
    assert [a is b for a, b in zip(first, second, strict=True)] == [True, False, True]
    assert [made.item() for made in second] == [0.5, 0.75, 0.125]
    del given[0]
    assert [made.item() for made in asked()] == [0.75, 0.125]
    given[0] = float("nan")
    assert asked()[0] is not asked()[0]
