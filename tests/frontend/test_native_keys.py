"""Native recording tells apart what it must tell apart, and makes views as Python does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphc as torch
import graphc.nn.functional as F
from graphc.counting import FRONT
from graphc.recording import current
from graphc.tensors import viewing
from graphc.tensors.learning import repeatable
from graphc.warned import warn
from tests.frontend.native_cases import both

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")


def test_a_name_is_no_argument() -> None:
    @repeatable
    def function(x: Any, *args: Any, **kwargs: Any) -> Any:
        return torch.exp(x) if kwargs else torch.neg(x)

    x = torch.zeros(2)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((x,), {"dim": 1}), ((x, "dim", 1), {})]
    assert [function(*args, **kwargs).tolist()[0] for args, kwargs in calls * 12] == [1.0, 0.0] * 12


def test_lists_and_tuples_are_told_by_what_they_hold() -> None:
    functions = (torch.neg, torch.exp, torch.sin, torch.cos, torch.sign, torch.sigmoid)

    @repeatable
    def function(x: Any, *args: Any) -> Any:
        return functions[sum(len(arg) if isinstance(arg, tuple) else 2 + len(arg) for arg in args)](x)

    x = torch.zeros(2)
    calls: list[tuple[Any, ...]] = [((1,), (2, 3)), ((1, 2), (3,)), ([1], (2, 3)), ((1, (2, 3)),), ((1, 2, 3), ())]
    found = [function(x, *args).tolist()[0] for args in calls * 12]
    assert found == [1.0, 1.0, 0.5, 0.0, 1.0] * 12
    ones, sums = torch.ones(2), []
    parts = [ones, ones]
    for k in range(6):
        parts[1] = ones * k
        sums.append(torch.cat(parts).tolist()[2])
        parts.append(x)
    assert sums == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_calls_that_warn_warn_again() -> None:
    @repeatable
    def warns(x: Any) -> Any:
        warn("so it is")
        return torch.exp(x)

    x, one = torch.ones(2, 3), torch.ones(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(6):
            F.softmax(x)
            torch.var(one)
            warns(x)
            _ = torch.ones(2, 2, 2).T
            _ = torch.tensor(1.0).mT
    assert len(caught) == 30 and {warning.filename for warning in caught} == {__file__}


def test_two_results_of_one_operation_are_two_operands() -> None:
    w = torch.ones(2, requires_grad=True)
    for other in (False,) * 4 + (True,) * 2:
        a, b = torch.exp(w), torch.exp(w)
        a.retain_grad()
        b.retain_grad()
        made = a * (b if other else a)
        made.sum().backward()
        assert (b.grad is not None) is other


def test_errors_tell_the_same_place() -> None:
    def texts() -> list[str]:
        found = []
        x, y = torch.ones(2), torch.ones(3)
        calls = (lambda: x + y, lambda: torch.add(x, y), lambda: x[4], lambda: x.view(3), lambda: x.unsqueeze(7))
        for call in calls * 3:
            with pytest.raises(Exception) as error:
                call()
            found.append(str(error.value))
        rows = torch.zeros(2, 3)
        for target in [0, 0, 0, 5, 5]:
            try:
                F.cross_entropy(rows, torch.tensor([target, 1])).item()
            except IndexError as error:
                found.append(str(error))
        return found

    ours, theirs = both(texts)
    assert ours == theirs
    assert len(ours) == 17 and all(__file__ in text for text in ours)


VIEWS: dict[str, Callable[[Any], Any]] = {
    "row": lambda x: x[1],
    "columns": lambda x: x[:, 1:3],
    "new": lambda x: x[None, ..., 0],
    "view": lambda x: x.view(2, 8),
    "reshape": lambda x: torch.reshape(x, (-1,)),
    "t": lambda x: x.t(),
    "transpose": lambda x: x.transpose(dim0=0, dim1=1),
    "permute": lambda x: x.permute(1, 0),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "expand": lambda x: x.expand(3, 4, 4),
    "flatten": lambda x: torch.flatten(x),
    "row of a row": lambda x: x[1][2],
    "diagonal": lambda x: x.diagonal(),
}


@pytest.mark.parametrize("kind", ["plain", "leaf", "result", "written", "off"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_repeated_view_is_what_python_gives(name: str, kind: str) -> None:
    def run() -> list[Any]:
        found: list[Any] = []
        x = torch.arange(16.0).reshape(4, 4).clone()
        if kind in ("leaf", "off"):
            x.requires_grad_()
        for turn in range(5):
            whole = x * 2 if kind == "result" else x
            if kind == "written":
                x.add_(1)
            with torch.set_grad_enabled(kind != "off" or turn > 3):
                made = VIEWS[name](whole)
            assert made._storage is whole._storage and made._base is not None
            state = made.requires_grad, made.is_leaf, made._version, made._lineage.depth, made._lineage.requires_grad
            found += [repr(made._chain), made.shape, made.stride(), made.storage_offset(), type(made), state]
            found += [made._base is whole, made._seen_at, made.grad_fn_name() if made.grad_fn else "", made.tolist()]
            if kind == "leaf":
                x.grad = None
                (made * made).sum().backward()
                found.append(x.grad.tolist())  # type: ignore[union-attr]
        return found

    ours, theirs = both(run)
    assert ours == theirs


def test_views_of_parameters_that_are_trained_are_the_same_call_at_each_step() -> None:
    def step(weight: Any, x: Any) -> None:
        loss = torch.matmul(x * weight[0], weight[1:].t()).sum()
        (weight.grad,) = torch.autograd.grad(loss, weight)
        with torch.no_grad():
            weight -= 0.1 * weight.grad

    weight, x = torch.ones(3, 4, requires_grad=True), torch.ones(5, 4)
    for _ in range(4):
        step(weight, x)
    held, before = len(current().repeats), FRONT.native_records
    for _ in range(3):
        step(weight, x)
    assert len(current().repeats) == held
    assert FRONT.native_records - before >= 3 * 3  # the product, what is multiplied and their sum


def test_a_view_of_memory_that_was_written_since_tells_so() -> None:
    def run() -> list[str]:
        found: list[str] = []
        for turn in range(8):
            x = torch.ones(3, 4, requires_grad=True) * 2
            seen = x[0]
            if turn % 2:
                x.mul_(2)
            product = seen * 3
            found += [seen.grad_fn_name(), product.grad_fn.next_functions[0][0].name()]  # type: ignore[union-attr]
        return found

    ours, theirs = both(run)
    assert ours == theirs
    assert ours == [*["SelectBackward0"] * 2, *["AsStridedBackward0"] * 2] * 4


def test_views_are_made_without_their_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    def views(x: Any) -> list[Any]:
        return [x[0], x[:, 1:], x.view(16), x.t(), x.flatten(), x[1][2], torch.unsqueeze(x, 0)]

    x = torch.ones(4, 4)
    for _ in range(3):
        views(x)
    monkeypatch.setattr(viewing, "_shown", None)
    monkeypatch.setattr(viewing, "new", None)
    assert [v.dim() for v in views(x)] == [1, 2, 1, 2, 1, 0, 3]


def test_what_gave_a_view_may_give_a_copy() -> None:
    x = torch.arange(6.0).reshape(2, 3).clone()
    for k in range(5):
        for whole in (x, x.t()):
            flat = whole.reshape(-1)
            assert flat.tolist() == [n for row in whole.tolist() for n in row]
            assert (flat._base is not None) is (whole is x)
        x[0, 0] = k


def test_a_tensor_that_is_given_back_is_not_changed_for_good() -> None:
    x = torch.ones(1, 3)
    for _ in range(4):
        y = torch.ones(1, 3)
        assert y.squeeze_() is y and y.shape == (3,)
        assert F.dropout(x, 0.5, training=False) is x
        assert x.contiguous() is x


def test_batches_of_a_data_set_are_read_anew() -> None:
    data, w = torch.arange(12.0).reshape(6, 2).clone(), torch.ones(1, 2, requires_grad=True)
    found = [F.linear(data[k : k + 2], w).tolist() for k in (0, 2, 4, 0, 2, 4)]
    assert found == [[[1.0], [5.0]], [[9.0], [13.0]], [[17.0], [21.0]]] * 2


def test_an_operand_computed_while_a_call_is_looked_up_does_not_mix_up_leaves() -> None:
    """An input that collects gradients is computed when it is read first, after the bias; then leaves get other
    numbers."""

    def trained(layers: list[Any]) -> list[float]:
        net = torch.nn.Sequential(*layers)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
        found: list[float] = []
        for turn in range(10):
            real, fake = torch.arange(48.0).reshape(8, 6).sin() * turn, torch.ones(8, 6) * turn
            x = (real * 0.3 + fake * 0.7).requires_grad_()
            y = net(x)
            (slope,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
            loss = (slope.norm(2, dim=1) - 1).pow(2).mean() + net(fake).mean() - net(real).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    def run() -> list[list[float]]:
        torch.manual_seed(0)
        small = [torch.nn.Linear(6, 6)]
        large = [torch.nn.Linear(6, 6), torch.nn.LeakyReLU(0.2), torch.nn.Linear(6, 1)]
        return [trained(small), trained(large)]

    ours, theirs = both(run)
    assert ours == theirs
