"""Numbers that are others each time and random draws are recorded in native code, as Python records them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.nn.functional as F
from graphc.counting import FRONT
from graphc.random import default_generator, noting_draws, repeating_draws
from graphc.recording import current
from graphc.repeats import Repeats
from graphc.tensors.operands import _MOST_VALUES
from graphc.utils.checkpoint import checkpoint
from tests.frontend.native_cases import both

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")

MANY = 4 * _MOST_VALUES  # more numbers than are taken for all that a call takes, and calls in between

# What a call does with a number that is always another one.
NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    "times": lambda x, n: x * n,
    "plus": lambda x, n: n + x,
    "minus": lambda x, n: x - n,
    "from": lambda x, n: n - x,
    "over": lambda x, n: x / n,
    "of": lambda x, n: n / x,
    "greater": lambda x, n: x > n,
    "equal": lambda x, n: x == n,
    "maximum": lambda x, n: torch.where(x > n, x, n),
    "added with a factor": lambda x, n: torch.add(x, x, alpha=n),
    "product with a factor": lambda x, n: torch.addcmul(x, x, x, value=n),
    "interpolated": lambda x, n: torch.lerp(x, x + 1, n),
    "bounded": lambda x, n: x.clamp(min=n),
    "between": lambda x, n: torch.clamp(x, n, n + 1),
    "in place": lambda x, n: (x * 1).mul_(n),
    "filled": lambda x, n: (x * 1).fill_(n),
    "made": lambda x, n: torch.full((3, 4), n) + x,
    "masked": lambda x, n: x.masked_fill(x > 2, n),
    "of integers": lambda x, n: x.long() * n,
    "two": lambda x, n: (x * n) * (n + 0.5) + n,
    "64 bits": lambda x, n: x.double() * n,
    "32-bit integers": lambda x, n: x.int() + n,
}


def _x() -> Any:
    return torch.arange(12.0).reshape(3, 4) / 4 + 0.5


@pytest.mark.parametrize("kind", [float, int])
@pytest.mark.parametrize("name", NUMBERS)
def test_changing_numbers_are_recorded_as_python_records_them(name: str, kind: type) -> None:
    x, call = _x(), NUMBERS[name]
    x.sum().item()

    def run() -> list[Any]:
        return [call(x, kind(n * 1.25 + 1)).tolist() for n in range(MANY)]

    ours, theirs = both(run)
    assert ours == theirs
    before = FRONT.records, FRONT.native_records
    run()
    records, native = FRONT.records - before[0], FRONT.native_records - before[1]
    assert native >= records - 8, (records, native)


@pytest.mark.parametrize("name", ["times", "from", "over", "interpolated", "bounded", "two"])
def test_gradients_flow_past_changing_numbers(name: str) -> None:
    def run() -> list[Any]:
        w, call, found = _x().requires_grad_(), NUMBERS[name], []
        for n in range(MANY):
            w.grad = None
            call(w, n * 0.25 + 0.5).sum().backward()
            found.append(w.grad.tolist())
        return found

    ours, theirs = both(run)
    assert ours == theirs


def test_a_number_of_another_type_is_another_call() -> None:
    x = torch.arange(4)
    for n in range(MANY):
        made = x * (n if n % 3 else n + 0.5)
        assert made.dtype is (torch.int64 if n % 3 else torch.float32)
        assert made.tolist() == [i * (n if n % 3 else n + 0.5) for i in range(4)]


def test_a_tensor_in_place_of_a_number() -> None:
    x = torch.arange(4.0)
    for n in range(MANY):
        factor = float(n) if n % 2 else torch.tensor([float(n)])
        assert (x * factor).tolist() == [i * n for i in range(4)]


@pytest.mark.parametrize("call", [lambda x, n: x // n, lambda x, n: x % n])
def test_integers_by_zero_are_refused_after_many_other_numbers(call: Callable[[Any, Any], Any]) -> None:
    x = torch.arange(4)

    def by(n: int) -> Any:
        return call(x, n).sum().item()

    for n in range(1, MANY):
        by(n)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        by(0)


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (lambda x, n: torch.full((2,), n).sum().item(), 1e300),
        (lambda x, n: x.clamp(min=n).sum().item(), 1e300),
        (lambda x, n: x.int().masked_fill(x > 0, n).sum().item(), 1 << 40),
    ],
)
def test_numbers_that_do_not_fit_are_refused_after_many_that_do(call: Callable[[Any, Any], Any], number: Any) -> None:
    x = torch.arange(4.0)

    def by(n: Any) -> Any:
        return call(x, n)

    for n in range(MANY):
        by(type(number)(n))
    with pytest.raises(RuntimeError, match="without overflow"):
        by(number)


def test_integers_of_more_than_64_bits() -> None:
    x = torch.arange(4.0)
    for n in [*range(MANY), 1 << 70, 3]:
        assert (x * n).tolist() == [i * float(n) for i in range(4)]


def test_numbers_of_numpy_and_truth_values() -> None:
    x = torch.arange(4.0)
    for n in [*range(MANY), np.float64(2.5), True, np.int32(7), 1.5]:
        assert (x * n).tolist() == [i * float(n) for i in range(4)]


# What a call draws.
DRAWS: dict[str, Callable[[Any], Any]] = {
    "uniform": lambda x: torch.rand(3, 4),
    "normal": lambda x: torch.randn(3, 4),
    "like": lambda x: torch.randn_like(x) + torch.rand_like(x),
    "integers": lambda x: torch.randint(10, (3, 4)),
    "between": lambda x: torch.randint(-3, 10, (3, 4)),
    "order": lambda x: torch.randperm(7),
    "chances": lambda x: torch.bernoulli(x / 4),
    "of two": lambda x: torch.normal(x, x + 1),
    "of numbers": lambda x: torch.normal(1.0, 2.0, (3, 4)),
    "picked": lambda x: torch.multinomial(x, 2),
    "picked again": lambda x: torch.multinomial(x, 9, replacement=True),
    "rates": lambda x: torch.poisson(x),
    "dropped": lambda x: F.dropout(x, 0.5),
    "channels dropped": lambda x: F.dropout2d(x.reshape(1, 3, 2, 2), 0.5),
    "in place": lambda x: (x * 1).normal_(),
    "uniform in place": lambda x: torch.empty(3, 4).uniform_(-1, 1),
    "exponential in place": lambda x: torch.empty(3, 4).exponential_(),
    "one number": lambda x: torch.rand(()) < 0.5,
    "64 bits": lambda x: torch.rand(3, 4, dtype=torch.float64),
    "with a number": lambda x: x + x.sum().item() * torch.randn(3, 4),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_those_of_python(name: str) -> None:
    x, call = _x(), DRAWS[name]
    x.sum().item()

    def run() -> tuple[list[Any], int]:
        torch.manual_seed(5)
        return [call(x).tolist() for _ in range(12)], default_generator.get_offset()

    ours, theirs = both(run)
    assert ours == theirs
    assert len({str(drawn) for drawn in ours[0]}) > 1
    before = FRONT.native_records
    run()
    assert FRONT.native_records - before >= 12


def test_draws_of_a_generator_of_its_own() -> None:
    generator = torch.Generator()
    seen = []
    for turn in range(24):
        generator.manual_seed(turn % 4)
        given = {"generator": generator} if turn % 2 else {}
        torch.manual_seed(turn % 3)
        seen.append(torch.rand(4, **given).tolist())
    assert [seen[turn] for turn in range(12)] == [seen[turn + 12] for turn in range(12)]


@pytest.mark.parametrize("seed", [0, 1 << 63, (1 << 64) - 1, -1])
def test_any_seed(seed: int) -> None:
    def run() -> list[Any]:
        torch.manual_seed(seed)
        return [torch.rand(4).tolist() for _ in range(8)]

    ours, theirs = both(run)
    assert ours == theirs


def test_a_call_that_native_code_cannot_finish_draws_once() -> None:
    def run() -> list[Any]:
        torch.manual_seed(3)
        found = []
        for turn in range(24):
            x = torch.zeros(2, 4)
            target = x if turn % 3 else x[1]  # a recipe tells what of the memory is shown
            target.normal_()
            found.append((x.tolist(), default_generator.get_offset()))
        return found

    ours, theirs = both(run)
    assert ours == theirs
    assert [offset for _, offset in ours] == list(range(1, 25))


def test_draws_that_are_noted_and_repeated() -> None:
    def draw() -> Any:
        return torch.rand(4)

    for _ in range(8):
        draw()
    with noting_draws() as draws:
        first = draw()
    second = draw()
    with repeating_draws(draws):
        again = draw()
    assert len(draws.keys) == 1
    assert again.tolist() == first.tolist() != second.tolist()


def test_a_checkpoint_drops_the_same_again() -> None:
    x = torch.ones(64, requires_grad=True)
    for _ in range(6):
        x.grad = None
        made = checkpoint(lambda x: F.dropout(x, 0.5), x, use_reentrant=False)
        made.sum().backward()
        assert made.tolist() == x.grad.tolist()


def test_threads_draw_different_numbers() -> None:
    torch.manual_seed(1)
    found: list[list[float]] = []

    def work() -> None:
        found.extend(torch.rand(8).tolist() for _ in range(200))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert default_generator.get_offset() == 800
    assert len({tuple(drawn) for drawn in found}) == 800


def test_numbers_and_draws_leave_no_leaves_behind() -> None:
    x = torch.arange(4.0)

    def run(count: int) -> None:
        for n in range(count):
            (x * (n * 0.5) + torch.rand(4)).sum().item()

    run(MANY)
    recorder = current()
    before = recorder._leaves, len(recorder.bound)
    run(MANY)
    assert (recorder._leaves, len(recorder.bound)) == before


def test_a_decaying_number_compiles_few_programs() -> None:
    x, rate = torch.arange(4.0), 1.0
    before = FRONT.program_hits
    for _ in range(MANY):
        rate *= 0.999
        x = x - rate * x
        x.sum().item()
    assert FRONT.program_hits - before >= MANY - 8


def test_writes_of_computed_memory_by_changing_numbers_are_native() -> None:
    x, y = torch.ones(4), torch.ones(4)
    (x + y).sum().item()

    def run(first: int) -> list[Any]:
        found = []
        for n in range(first, first + MANY):
            rate = 1 / (n + 2)
            with torch.no_grad():
                x.mul_(1 - rate).add_(y, alpha=rate)
            found.append(x.tolist())
        return found

    assert np.allclose(run(0), 1)
    before = FRONT.records, FRONT.native_records
    assert np.allclose(run(MANY), 1)
    records, native = FRONT.records - before[0], FRONT.native_records - before[1]
    assert native >= records - 8, (records, native)


def test_a_number_that_is_another_argument_by_chance() -> None:
    """What a function makes may be the same small integer as an argument that says something else."""
    seen = Repeats()
    what = (1, 2, 3)
    assert not seen.may_own(what, {1: 5})
    assert not seen.may_own(what, {1: 5}), "it did not change"
    assert not seen.may_own(what, {2: 7}), "it is another one"
    assert seen.may_own(what, {2: 8})
    assert not seen.may_own((1, 2, 4), {1: 1, 2: 2})
    assert not seen.may_own((1, 2, 4), {1: 3, 2: 2}), "one did not change"
    assert seen.may_own((1, 2, 5), {}), "draws are for no argument"


def test_extents_that_change_beside_numbers_that_do_not() -> None:
    x = torch.arange(400.0)
    x.tolist()
    for n in range(2, 90):
        part = x[: 2 * (n + 2)].reshape(2, -1)
        for dim in (0, 1, n % 2):
            assert part.mean(dim).tolist() == pytest.approx(part.numpy().mean(dim).tolist())
            assert part.var(dim, correction=n % 2).tolist() == pytest.approx(
                part.numpy().var(dim, ddof=n % 2).tolist(), rel=1e-4
            )
