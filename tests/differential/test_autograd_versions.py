"""Values overwritten between forward and backward: refused where PyTorch refuses, in its words, accepted where not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.differential.side_by_side import Say, attempt, same


def written(torch: Any, function: Callable[[Any], Any], write: Callable[[Any], Any]) -> Any:
    """The gradient by x of `function(y)` for y = 2x, where `write(y)` comes in between."""
    x = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
    y = x * 2
    out = function(y)
    write(y)
    out.sum().backward()
    return x.grad


OPERANDS: dict[str, Callable[[Any, Any], Any]] = {
    "mul": lambda torch, y: y * y,
    "mul_by_number": lambda torch, y: y * 3,
    "add": lambda torch, y: y + 1,
    "div": lambda torch, y: y / 3,
    "div_by": lambda torch, y: 1 / y,
    "pow": lambda torch, y: y**2,
    "exp": lambda torch, y: y.exp(),
    "log": lambda torch, y: y.log(),
    "sin": lambda torch, y: y.sin(),
    "abs": lambda torch, y: y.abs(),
    "relu": lambda torch, y: y.relu(),
    "sigmoid": lambda torch, y: y.sigmoid(),
    "tanh": lambda torch, y: y.tanh(),
    "sqrt": lambda torch, y: y.sqrt(),
    "clamp": lambda torch, y: y.clamp(0, 1),
    "where": lambda torch, y: torch.where(y > 1, y, -y),
    "maximum": lambda torch, y: torch.maximum(y, torch.ones(3)),
    "masked_fill": lambda torch, y: y.masked_fill(y > 1, 0.0),
    "gather": lambda torch, y: y.gather(0, torch.tensor([0, 1])),
    "index": lambda torch, y: y[torch.tensor([0, 1])],
    "cat": lambda torch, y: torch.cat([y, y]),
    "sum": lambda torch, y: y.sum(),
    "mean": lambda torch, y: y.mean(),
    "max": lambda torch, y: y.max(),
    "max_dim": lambda torch, y: y.max(0).values,
    "prod": lambda torch, y: y.prod(),
    "norm": lambda torch, y: y.norm(),
    "std": lambda torch, y: y.std(),
    "cumsum": lambda torch, y: y.cumsum(0),
    "softmax": lambda torch, y: y.softmax(0),
    "log_softmax": lambda torch, y: y.log_softmax(0),
    "mse_loss": lambda torch, y: torch.nn.functional.mse_loss(y, torch.ones(3)),
    "cross_entropy": lambda torch, y: torch.nn.functional.cross_entropy(y, torch.tensor(1)),
    "gelu": lambda torch, y: torch.nn.functional.gelu(y),
    "linear": lambda torch, y: torch.nn.functional.linear(y, torch.ones(2, 3)),
    "matmul": lambda torch, y: torch.ones(2, 3) @ y,
    "part": lambda torch, y: y[:2].exp() * 2,
    "sort": lambda torch, y: y.sort(stable=True)[0],
    "median": lambda torch, y: y.median(),
    "median_dim": lambda torch, y: y.median(0).values,
    "nanmedian": lambda torch, y: y.nanmedian(),
    "quantile": lambda torch, y: y.quantile(0.3),
    "cummax": lambda torch, y: y.cummax(0).values,
    "cummin": lambda torch, y: y.cummin(0).values,
    "take": lambda torch, y: y.take(torch.tensor([0, 1])),
    "masked_select": lambda torch, y: y.masked_select(torch.tensor([True, False, True])),
}


@pytest.mark.parametrize("name", sorted(OPERANDS))
def test_operand_written(name: str) -> None:
    def program(torch: Any, say: Say) -> None:
        attempt(say, lambda: written(torch, lambda y: OPERANDS[name](torch, y), lambda y: y.add_(1)))

    same(program)


RESULTS = [
    "exp",
    "relu",
    "sigmoid",
    "tanh",
    "sqrt",
    "softmax",
    "log_softmax",
    "mul",
    "add",
    "sin",
    "prod",
    "pow",
    "cumsum",
    "median",
    "logcumsumexp",
]


@pytest.mark.parametrize("name", RESULTS)
def test_result_written(name: str) -> None:
    def program(torch: Any, say: Say) -> None:
        for write in (lambda z: z.add_(1), lambda z: z.detach().mul_(2), lambda z: z.data.mul_(1), lambda z: z.zero_()):
            x = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)

            def run(x: Any = x, write: Any = write) -> Any:
                z = OPERANDS[name](torch, x * 2)
                write(z)
                z.sum().backward()
                return x.grad

            attempt(say, run)

    same(program)


def leaves_and_constants(torch: Any, say: Say) -> None:
    def leaf() -> None:
        x = torch.ones(3, requires_grad=True)
        z = (x * x).sum()
        with torch.no_grad():
            x.add_(1)
        z.backward()

    def factor() -> None:
        x, w = torch.ones(3, requires_grad=True), torch.ones(3)
        z = (x * w).sum()
        w.add_(1)
        z.backward()

    def mask() -> None:
        x = torch.ones(3, requires_grad=True)
        mask = x.detach() > 1
        z = torch.where(mask, x, -x)
        mask.fill_(True)
        z.sum().backward()

    def index() -> None:
        x, i = torch.ones(3, requires_grad=True), torch.tensor([0, 1])
        z = x[i]
        i.add_(1)
        z.sum().backward()

    def step() -> None:
        w = torch.ones(3, requires_grad=True)
        loss = (w * w).sum()
        loss.backward(retain_graph=True)
        with torch.no_grad():
            w.sub_(0.1 * w.grad)
        loss.backward()

    for function in (leaf, factor, mask, index, step):
        attempt(say, function)


def writes_that_are_part_of_the_program(torch: Any, say: Say) -> None:
    x = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
    y = x * 2
    y.relu_()
    y.sin()
    y = y * 2
    y[1:] *= 3
    y[0] = 5
    (y * y).sum().backward()
    say(x.grad)
    say([(x * 1)._version, y._version, y[0]._version, y.detach()._version, y.data._version])

    def relu_written() -> None:
        y = (x * 2).relu_()
        y.add_(1)
        y.sum().backward()

    attempt(say, relu_written)


@pytest.mark.parametrize(
    "program", [leaves_and_constants, writes_that_are_part_of_the_program], ids=lambda p: p.__name__
)
def test_other_writes(program: Any) -> None:
    same(program)


def test_the_history_of_what_was_detached_stays() -> None:
    """A gradient through `detach` does not give up, nor call the hooks of, what lies before it."""

    def program(torch: Any, say: Say) -> None:
        x, w = (torch.tensor([0.5, 1.0], requires_grad=True) for _ in range(2))
        y = x * 2
        y.register_hook(lambda gradient: say("hook", gradient))
        cut = y.detach() * w
        say([None if fn is None else fn.name() for fn, _ in cut.grad_fn.next_functions])
        cut.sum().backward()
        say(x.grad, w.grad)
        (y * w + y.detach() * y).sum().backward()
        say(x.grad, w.grad)

    same(program)


def test_what_is_detached_is_checked_for_writes() -> None:
    def program(torch: Any, say: Say) -> None:
        x, w = (torch.tensor([0.5, 1.0], requires_grad=True) for _ in range(2))
        y = x * 2
        out = y.detach() * w
        y.mul_(3)
        attempt(say, lambda: out.sum().backward())
        say(w.grad)

    same(program)
