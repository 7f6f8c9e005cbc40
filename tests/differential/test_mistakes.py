"""What a program sees that makes a mistake, or asks for what few ask for, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from tests.differential.side_by_side import Program, Say, attempt, same


def named_parameters(torch: Any, say: Say) -> None:
    """Optimizers keep the names that they are given, in their state too."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    made = torch.optim.SGD(model.named_parameters(), lr=0.1)
    say(made.param_groups[0]["param_names"], len(made.param_groups[0]["params"]))
    saved = made.state_dict()
    say(saved["param_groups"][0]["param_names"])
    extra = torch.nn.Parameter(torch.ones(2))
    attempt(say, lambda: made.add_param_group({"params": [extra]}))
    made.add_param_group({"params": [("extra", extra)]})
    say([group["param_names"] for group in made.param_groups])
    attempt(say, lambda: torch.optim.SGD([("extra", extra), torch.nn.Parameter(torch.ones(1))], lr=0.1))
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    attempt(say, lambda: plain.add_param_group({"params": [("extra", extra)]}))
    say("param_names" in plain.param_groups[0])
    other = torch.optim.SGD([(f"p{i}", p) for i, p in enumerate(model.parameters())], lr=0.1)
    other.load_state_dict(plain.state_dict())
    say(other.param_groups[0]["param_names"])
    other.load_state_dict(saved)
    say(other.param_groups[0]["param_names"])


def indices(torch: Any, say: Say) -> None:
    """An index that is too large is named by its place among the indices."""
    x = torch.arange(24).reshape(2, 3, 4)
    for index in [2, (0, 3), (0, 0, 4), (None, 5), (slice(None), -4), (..., 4), (slice(None), 0, 7)]:
        attempt(say, lambda index=index: x[index])


def resumed_groups(torch: Any, say: Say) -> None:
    """Each group of an optimizer that was loaded counts its own steps."""
    for kind in (torch.optim.Adam, torch.optim.NAdam, torch.optim.Adagrad, torch.optim.ASGD):
        parameters = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]
        made = kind([{"params": [p]} for p in parameters], lr=0.1)
        for i in range(5):
            if i == 2:
                saved = made.state_dict()
                made = kind([{"params": [p]} for p in parameters], lr=0.5)
                made.load_state_dict(saved)
            for p in parameters:
                p.grad = (p.detach() * (i + 1)).sin()
            made.step()
            say(*[p.detach() for p in parameters], *[made.state[p]["step"] for p in parameters])


def gradients_that_are_zero_everywhere(torch: Any, say: Say) -> None:
    """They are zeros, not missing; what the result does not come from has none."""
    functions = [
        lambda y: y.floor(),
        lambda y: y.round().sign(),
        lambda y: y.pow(0),
        lambda y: y.div(2, rounding_mode="trunc"),
    ]
    for function in functions:
        x, unused = (torch.tensor([0.5, 1.5], requires_grad=True) for _ in range(2))
        y = x * 2
        y.retain_grad()
        result = function(y)
        result.sum().backward(retain_graph=True)
        say(x.grad, y.grad, unused.grad)
        say(*torch.autograd.grad(result.sum(), x, retain_graph=True))
        attempt(say, lambda result=result, unused=unused: torch.autograd.grad(result.sum(), unused))
    x = torch.tensor([0.5, 1.5], requires_grad=True)
    y = x * 2
    y.view(-1).zero_()
    y.sum().backward()
    say(x.grad)


def gradients_that_are_zero_behind_hooks(torch: Any, say: Say) -> None:
    """The same where gradients go through Python code, which is given the zeros; a custom function may give none."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            return x * 2 + y

        @staticmethod
        def backward(ctx: Any, g: Any) -> tuple[Any, Any]:
            say(g)
            return g * 2, None

    functions = [
        lambda y: y.floor(),
        lambda y: y.round().sign() + y.ceil(),
        lambda y: y.pow(0),
        lambda y: y.div(2, rounding_mode="trunc"),
        lambda y: y.div(2, rounding_mode="floor") * y,
        lambda y: y.clone().zero_(),
        lambda y: (y * 1).mul_(0.5).round(decimals=1),
    ]
    for function in functions:
        x, other, unused = (torch.tensor([0.5, 1.5], requires_grad=True) for _ in range(3))
        y = x * 2
        y.register_hook(lambda g: (say(g), g + 1)[1])
        result = function(y)
        result.sum().backward(retain_graph=True)
        say(x.grad, unused.grad)
        say(*torch.autograd.grad(result.sum(), x, retain_graph=True))
        attempt(say, lambda result=result, unused=unused: torch.autograd.grad(result.sum(), unused))
        x.grad = None
        function(Doubled.apply(x, other)).sum().backward()
        say(x.grad, other.grad)
        x.grad = None
        result = function(x)
        result.grad_fn.register_hook(lambda made, given: say(*(m for m in made if m is not None), *given))
        result.sum().backward()
        say(x.grad)
        with torch.autograd.detect_anomaly(check_nan=False):
            x.grad = None
            function(x * 3).sum().backward()
            say(x.grad)


def numbers_that_do_not_fit(torch: Any, say: Say) -> None:
    """Numbers that the dtype of the result cannot hold are refused."""
    for dtype, large in [(torch.int8, 300), (torch.uint8, -300), (torch.int32, 2**40), (torch.float32, 1e40)]:
        x = torch.tensor([1, 2, 3], dtype=dtype)
        functions = [
            lambda x, n: x.clamp(max=n),
            lambda x, n: x.clamp_min(n),
            lambda x, n: torch.where(x > 1, x, n),
            lambda x, n: x ** abs(n),
            lambda x, n: x.add(x, alpha=n),
            lambda x, n: torch.rsub(x, 1, alpha=n),
            lambda x, n: x.addcmul(x, x, value=n),
            lambda x, n: torch.nn.functional.threshold(x, n, 1),
        ]
        for function in functions:
            try:
                say(function(x, large))
            except RuntimeError as error:
                say(str(error).partition(" overflow")[0])
            say(function(x, 3))
    m = torch.tensor([True, False])
    say(torch.where(m, torch.ones(2, dtype=torch.float16), 1e5))
    for wrong in ("a", [1.0], None):
        try:
            say(torch.where(m, torch.ones(2), wrong))
        except TypeError:
            say("refused")


def arguments_of_other_kinds(torch: Any, say: Say) -> None:
    """A TypeError names the argument and what it is."""
    x, F = torch.ones(2, 3), torch.nn.functional
    calls: dict[str, Callable[[Any], Any]] = {
        "relu": F.relu,
        "softmax": lambda wrong: F.softmax(wrong, 1),
        "dropout": F.dropout,
        "linear": lambda wrong: torch.nn.Linear(3, 4)(wrong),
        "conv2d": lambda wrong: torch.nn.Conv2d(1, 2, 3)(wrong),
        "mse_loss": lambda wrong: F.mse_loss(wrong, x),
        "binary_cross_entropy": lambda wrong: F.binary_cross_entropy(x, wrong),
        "exp": torch.exp,
        "abs_": torch.abs_,
        "matmul": lambda wrong: torch.matmul(x, wrong),
        "flatten": torch.flatten,
        "unsqueeze": lambda wrong: torch.unsqueeze(wrong, 0),
        "where": lambda wrong: torch.where(x > 0, x, wrong),
        "nonzero": torch.nonzero,
        "norm": torch.linalg.norm,
        "flipud": torch.flipud,
        "cov": torch.cov,
        "trapezoid": torch.trapezoid,
        "masked_select": lambda wrong: torch.masked_select(x, wrong),
        "diag_embed": torch.diag_embed,
        "matrix_exp": torch.linalg.matrix_exp,
        "atleast_1d": lambda wrong: torch.atleast_1d(x, wrong),
        "meshgrid": lambda wrong: torch.meshgrid(torch.ones(2), wrong, indexing="ij"),
        "block_diag": lambda wrong: torch.block_diag(x, wrong),
        "broadcast_tensors": lambda wrong: torch.broadcast_tensors(x, wrong),
    }
    for name, call in calls.items():
        for wrong in ("a", [1.0], np.ones(3)):
            try:
                call(wrong)
                say(name, "taken")
            except (TypeError, AttributeError) as error:
                is_told = torch is not graphc or (isinstance(error, TypeError) and type(wrong).__name__ in str(error))
                say(name, "refused" if is_told else error)


PROGRAMS = [
    arguments_of_other_kinds,
    named_parameters,
    indices,
    resumed_groups,
    gradients_that_are_zero_everywhere,
    gradients_that_are_zero_behind_hooks,
    numbers_that_do_not_fit,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_mistakes(program: Program) -> None:
    same(program)


def test_an_lstm_wants_a_pair_of_states() -> None:
    layer = graphc.nn.LSTM(2, 3)
    with pytest.raises(IndexError, match=r"hx should be a pair \(h_0, c_0\), but got 1 of Tensor"):
        layer(graphc.ones(4, 1, 2), graphc.zeros(1, 1, 3))
