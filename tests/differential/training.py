"""Random training steps that run in PyTorch and in graphc, plain and compiled, while others change what they work on.

A step computes with its two arguments, with parameters and with buffers, writes to some of them, and mostly goes
backwards. It runs several times; in between gradients are cleared, parameters and buffers are written or replaced, and
somebody keeps views of them, so that programs that were compiled before must notice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.differential.compare import torch

SIZE = 4  # rows and columns of all matrices
CHANGED_AFTER = (5, 15)  # calls after which something is changed from outside
CLEARED_EVERY = 3  # calls after which gradients are cleared, without an optimizer
ERROR = 1e-3  # of the largest element; steps follow one another

Tensor = Any
Library = Any
Compile = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Choice:
    """What a statement picks among what there is."""

    statement: str
    x: int
    y: int
    parameter: int
    buffer: int
    row: int
    factor: float
    dim: int


@dataclass(frozen=True)
class Plan:
    """One random step, how it is called, and what is changed in between."""

    statements: tuple[Choice, ...]
    results: tuple[int, int, int]
    parameters: int
    dtype: str
    calls: int
    argument: str
    change: int
    optimizer: str | None
    goes_back: bool
    twice: bool  # gradients are differentiated again
    records: bool
    writes_arguments: bool
    is_same: bool  # one tensor is both arguments


@dataclass
class State:
    """What steps work on besides their arguments."""

    parameters: list[Tensor]
    buffers: list[Tensor]
    index: Tensor
    held: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class At:
    """What one statement works on."""

    t: Library
    x: Tensor
    y: Tensor
    parameter: Tensor
    buffer: Tensor
    index: Tensor
    row: int
    factor: float
    dim: int


def _without_gradients(at: At) -> Tensor:
    with at.t.no_grad():
        return at.x * at.y


def _accumulated(at: At) -> Tensor:
    at.buffer.add_(at.x.detach())
    return at.x * at.buffer


def _copied(at: At) -> Tensor:
    at.buffer.copy_(at.x.detach().clamp(-2, 2))
    return at.buffer.clone() + at.x


def _rows_halved(at: At) -> Tensor:
    at.x[at.row : at.row + 2].mul_(0.5)
    return at.x[at.row : at.row + 2].sum(0).expand(SIZE, SIZE)


def _masked(at: At) -> Tensor:
    made = at.x.clone()
    made[made > 0.5] = at.factor
    return made


def _part_doubled(at: At) -> Tensor:
    made = (at.x * 1).contiguous()
    part = made.view(-1)[at.row : at.row + SIZE]
    part.mul_(2)
    return made + part


def _turned_in_place(at: At) -> Tensor:
    made = at.x * 1
    if at.dim:
        made.transpose_(0, 1)
    else:
        made.squeeze_()
    return made


def _rows_in_turns(at: At) -> Tensor:
    made = at.t.empty_like(at.x).copy_(at.x)
    made[at.dim :: 2] = at.y[at.dim :: 2]
    return made


def _nearer(at: At) -> Tensor:
    at.x.lerp_(at.y.detach(), 0.3)
    return at.x.var(at.dim, keepdim=True) + at.y


_MADE: dict[str, Callable[[At], Tensor]] = {
    "scaled": lambda at: at.x * at.factor + 1,
    "sum": lambda at: at.x + at.y,
    "weighted": lambda at: at.x * at.parameter,
    "product": lambda at: at.x @ at.parameter,
    "tanh": lambda at: at.t.tanh(at.x),
    "transposed": lambda at: at.x.t(),
    "clone": lambda at: at.x.clone(),
    "softmax": lambda at: at.x.softmax(at.dim),
    "where": lambda at: at.t.where(at.x > 0, at.x, at.y),
    "cumsum": lambda at: at.x.cumsum(at.dim) * 0.1,
    "sorted": lambda at: at.x.sort(at.dim)[0],
    "flipped": lambda at: at.x.flip(at.dim),
    "picked": lambda at: at.x[:, [0, 1, 1, 3]] if at.dim else at.x[[3, 2, 0, 0]],
    "accumulated": _accumulated,
    "copied": _copied,
    "detached": lambda at: at.x.detach(),
    "without_gradients": _without_gradients,
    "rows_halved": _rows_halved,
    "repeated": lambda at: at.x.reshape(2, -1).sum(1).repeat(8).view(SIZE, SIZE),
    "from_the_largest": lambda at: at.x.max(at.dim, keepdim=True)[0] - at.x,
    "filled": lambda at: at.x.masked_fill(at.y > 0.3, at.factor),
    "joined": lambda at: at.t.cat([at.x[: at.row + 1], at.y[at.row + 1 :]]),
    "divided": lambda at: at.x / (at.y.abs() + 1),
    "layer_norm": lambda at: at.t.nn.functional.layer_norm(at.x, (SIZE,)),
    "scattered": lambda at: at.x.scatter_add(at.dim, at.index, at.y),
    "gathered": lambda at: at.x.gather(at.dim, at.index),
    "expanded": lambda at: at.x.unsqueeze(0).expand(2, SIZE, SIZE).mean(0),
    "larger": lambda at: at.t.stack([at.x, at.y]).amax(0),
    "masked": _masked,
    "part_doubled": _part_doubled,
    "triangles": lambda at: at.x.triu(at.row - 1) + at.y.tril(at.dim),
    "turned_in_place": _turned_in_place,
    "power": lambda at: at.x**2 if at.dim else at.x.exp().clamp(max=3),
    "rows_in_turns": _rows_in_turns,
    "nearer": _nearer,
    "addmm": lambda at: at.t.addmm(at.x, at.y, at.parameter, beta=0.5),
}
_WRITES: dict[str, Callable[[At], object]] = {
    "mul_": lambda at: at.x.mul_(at.factor),
    "add_": lambda at: at.x.add_(at.y.mean()),
    "row": lambda at: at.x.__setitem__(at.row, at.y[at.row].detach() if at.dim else at.factor),
    "column": lambda at: at.x.t()[at.row].add_(at.factor),
    "relu_": lambda at: at.x.relu_(),
    "diagonal": lambda at: at.x.diagonal().add_(at.factor),
    "clamp_": lambda at: at.x.clamp_(-1, 1),
    "index_add_": lambda at: at.x.index_add_(0, at.index[0], at.y.detach()),
}
NAMES = (*_MADE, *_WRITES)
# Those that read what is changed between calls; they are picked more often.
_OF_STATE = ("weighted", "product", "addmm", "accumulated", "copied", "scattered", "gathered")


def plan(seed: int) -> Plan:
    """The random step of a seed."""
    rng = random.Random(seed)
    statements = tuple(
        Choice(
            rng.choice(_OF_STATE if rng.random() < 0.4 else NAMES),
            *(rng.randrange(64) for _ in range(4)),
            row=rng.randrange(3),
            factor=rng.choice([0.5, -1.0, 2.0, 0.0]),
            dim=rng.randrange(2),
        )
        for _ in range(rng.randrange(3, 11))
    )
    return Plan(
        statements,
        (rng.randrange(64), rng.randrange(64), rng.randrange(64)),
        parameters=rng.randrange(1, 4),
        dtype=rng.choice(["float32"] * 4 + ["float64"]),
        calls=rng.choice([8, 20]),
        argument=rng.choice(["whole", "columns", "transposed", "halves", "computed", "whole"]),
        change=rng.randrange(len(_CHANGES)),
        optimizer=rng.choice([None, None, "SGD", "Adam", "RMSprop"]),
        goes_back=rng.random() < 0.7,
        twice=rng.random() < 0.2,
        records=rng.random() < 0.85,
        writes_arguments=rng.random() < 0.3,
        is_same=rng.random() < 0.2,
    )


class Source:
    """Makes the same random tensors in every library."""

    def __init__(self, t: Library, dtype: str) -> None:
        self.t, self.dtype, self._rng = t, dtype, np.random.RandomState(0)

    def normal(self, *shape: int, scale: float = 1.0, requires_grad: bool = False) -> Tensor:
        made = self.t.tensor(self._rng.randn(*shape) * scale).to(getattr(self.t, self.dtype))
        return made.requires_grad_() if requires_grad else made

    def places(self) -> Tensor:
        return self.t.tensor(self._rng.randint(0, SIZE, (SIZE, SIZE)))


@dataclass
class Change:
    """What somebody else may work on between calls."""

    source: Source
    state: State
    result: tuple[Tensor, ...] | None

    @property
    def first(self) -> Tensor:
        return self.state.parameters[0]

    def write(self) -> None:
        with self.source.t.no_grad():
            self.first.mul_(0.5)

    def replace_data(self) -> None:
        self.first.data = self.source.normal(SIZE, SIZE)

    def keep_views(self) -> None:
        self.state.held += [self.first.detach(), self.state.buffers[0][1:]]

    def keep_gradient(self) -> None:
        if self.first.grad is not None:
            self.state.held.append(self.first.grad)

    def keep_result(self) -> None:
        if self.result is not None:
            self.state.held.append(self.result[1].detach())

    def set_gradient(self) -> None:
        self.first.grad = self.source.t.ones_like(self.first)

    def clear_gradient(self) -> None:
        self.first.grad = None

    def freeze(self) -> None:
        self.first.requires_grad_(False)

    def new_parameter(self) -> None:
        self.state.parameters[0] = self.source.normal(SIZE, SIZE, requires_grad=True)

    def join_parameters(self) -> None:
        self.state.parameters[0] = self.state.parameters[-1]

    def new_buffer(self) -> None:
        self.state.buffers[0] = self.source.normal(SIZE, SIZE)

    def join_buffers(self) -> None:
        self.state.buffers[1] = self.state.buffers[0]

    def new_index(self) -> None:
        self.state.index = self.source.places()

    def fill_index(self) -> None:
        self.state.index.fill_(1)


_CHANGES: tuple[Callable[[Change], None], ...] = (
    Change.clear_gradient,
    Change.freeze,
    Change.replace_data,
    Change.new_buffer,
    Change.new_parameter,
    Change.keep_views,
    Change.keep_gradient,
    Change.new_index,
    Change.fill_index,
    Change.write,
    Change.join_buffers,
    Change.join_parameters,
    Change.set_gradient,
    Change.keep_result,
)


def _run_statement(t: Library, values: list[Tensor], state: State, choice: Choice) -> None:
    at = At(
        t,
        values[choice.x % len(values)],
        values[choice.y % len(values)],
        state.parameters[choice.parameter % len(state.parameters)],
        state.buffers[choice.buffer % len(state.buffers)],
        state.index,
        choice.row,
        choice.factor,
        choice.dim,
    )
    if (make := _MADE.get(choice.statement)) is not None:
        values.append(make(at))
    else:
        _WRITES[choice.statement](at)


def _step(t: Library, p: Plan, state: State, optimizer: Any) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    def step(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        values = [x, y] if p.writes_arguments else [x * 1, y * 1]
        with t.enable_grad() if p.records else t.no_grad():
            for choice in p.statements:
                _run_statement(t, values, state, choice)
        last = values[-1]
        loss = (last.tanh() * 0.5 + last).pow(2).mean()
        results = [values[number % len(values)] for number in p.results]
        if not (p.goes_back and loss.requires_grad):
            return (loss, *results)
        if p.twice:
            grads = t.autograd.grad(loss, state.parameters, create_graph=True, allow_unused=True)
            loss = loss + sum((g.pow(2).sum() for g in grads if g is not None), t.zeros((), dtype=x.dtype)) * 0.01
        if optimizer is not None:
            optimizer.zero_grad()
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        return (loss.detach(), *(r.detach() for r in results))

    return step


def _arguments(p: Plan, source: Source, base: Tensor) -> tuple[Tensor, Tensor]:
    x, y = source.normal(SIZE, SIZE), source.normal(SIZE, SIZE)
    if p.argument == "columns":
        x = source.normal(SIZE, 2 * SIZE)[:, ::2]
    elif p.argument == "transposed":
        x = x.t()
    elif p.argument == "halves":
        x, y = base[:SIZE], base[SIZE:]
    elif p.argument == "computed":
        x = source.normal(SIZE, SIZE, requires_grad=True) * 1
    return x, x if p.is_same else y


def history(t: Library, compile: Compile, seed: int) -> Iterator[tuple[str, Any]]:
    """All that can be seen of the calls of a random step, with what it is."""
    p = plan(seed)
    source = Source(t, p.dtype)
    state = State(
        [source.normal(SIZE, SIZE, scale=0.5, requires_grad=True) for _ in range(p.parameters)],
        [source.normal(SIZE, SIZE) for _ in range(2)],
        source.places(),
    )
    optimizer = getattr(t.optim, p.optimizer)(state.parameters, lr=0.01) if p.optimizer else None
    step = compile(_step(t, p, state, optimizer))
    base = source.normal(2 * SIZE, SIZE)
    for call in range(p.calls):
        x, y = _arguments(p, source, base)
        result: tuple[Tensor, ...] | None = None
        try:
            result = step(x, y)
            yield from _seen(f"call {call}, result", result)
            if not p.goes_back and result[0].requires_grad:
                result[0].backward()
            if not result[1].requires_grad and not any(result[1] is b for b in state.buffers):
                result[1].mul_(0.5)
            yield from _seen(f"call {call}, result after a write", result)
        except (RuntimeError, IndexError) as error:
            yield f"call {call}", "IndexError" if isinstance(error, IndexError) else "RuntimeError"
            # Going backwards, PyTorch adds up gradients until it meets the error; graphc adds none.
            for parameter in state.parameters:
                parameter.grad = None
        yield from _seen(f"call {call}, state", [x, y, *state.parameters, *state.buffers, *state.held])
        yield from _seen(f"call {call}, gradient", [q.grad for q in state.parameters])
        if call in CHANGED_AFTER:
            _CHANGES[(p.change + call) % len(_CHANGES)](Change(source, state, result))
        if optimizer is None and call % CLEARED_EVERY == CLEARED_EVERY - 1:
            for parameter in state.parameters:
                parameter.grad = None


def _seen(what: str, tensors: Any) -> Iterator[tuple[str, Any]]:
    for number, x in enumerate(tensors):
        yield f"{what} {number}", None if x is None else (bool(x.requires_grad), x.detach().clone().numpy())


def check(ours: Library, seed: int) -> None:
    """The random step of a seed leaves the same in PyTorch and in `ours`, plain and compiled."""
    expected = list(history(torch, lambda f: f, seed))
    for way, compile in (("plain", lambda f: f), ("compiled", ours.compile)):
        found = list(history(ours, compile, seed))
        for (what, theirs), (_, mine) in zip(expected, found, strict=False):
            if way == "compiled" and plan(seed).writes_arguments and theirs == "RuntimeError" != mine:
                # A compiled step keeps what gradients need apart from the arguments that it writes, so it goes
                # backwards where PyTorch refuses to. From there on the two differ.
                break
            assert _are_close(theirs, mine), f"seed {seed}, {way}, {what}: PyTorch {theirs}, graphc {mine}"
        else:
            assert len(found) == len(expected), f"seed {seed}, {way}: more or less is seen than in PyTorch"


def _are_close(theirs: Any, mine: Any) -> bool:
    if not (isinstance(theirs, tuple) and isinstance(mine, tuple)):
        return theirs == mine
    (requires, a), (also, b) = theirs, mine
    if requires is not also or a.dtype != b.dtype or a.shape != b.shape:
        return False
    limit = ERROR * max(1.0, float(np.abs(a[np.isfinite(a)]).max(initial=0.0)))
    return np.allclose(a, b, rtol=ERROR, atol=limit, equal_nan=True)
