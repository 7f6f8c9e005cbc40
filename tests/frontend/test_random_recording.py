"""Random programs whose lines run several times: native recording gives what Python records, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.nn.functional as F
from graphc.counting import FRONT
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.native import operators
from graphc.native.library import library
from graphc.recording import Recorder, using

ROUNDS = 4  # how often each line runs

# What a line may do with tensors `a` and `b`, which it gives the list `v`; `n` is another number in each turn.
EXPRESSIONS = (
    *(
        "a + b",
        "a - b",
        "a * b",
        "a * 2",
        "2.0 * a",
        "1 / (a * a + 1)",
        "a @ b",
        "-a",
        "abs(a)",
        "a > b",
        "a == b",
        "a ** 2",
    ),
    *("a + n", "a * float(n)", "a.sum(n % 2)", "torch.sum(a, dim=n % 2)", "a.sum(dim=0, keepdim=n == 1)"),
    *("torch.exp(a * 0.1)", "a.tanh()", "torch.relu(a)", "F.relu(a)", "F.gelu(a)", "F.gelu(a, approximate='tanh')"),
    *(
        "F.softmax(a, 1)",
        "a.softmax(dim=-1)",
        "torch.norm(a, dim=(0, 1))",
        "torch.where(a > b, a, b)",
        "torch.maximum(a, b)",
    ),
    *("a.clamp(-1, 1)", "torch.clamp(a, max=0.5)", "F.mse_loss(a, b)", "F.linear(a, b)", "F.layer_norm(a, (4,))"),
    *("torch.add(a, b, alpha=n)", "torch.add(a, b)", "a.mean()", "a.max()", "torch.mean(a, 0)"),
    *("a[0]", "a[n]", "a[:, 1:]", "a[1:, n]", "a[..., 0]", "a[None]", "a[::2]", "a[n:]", "a[-1, None]"),
    *("a.view(16)", "a.view(2, 8)", "a.view(-1, 4)", "a.reshape(2, 8)", "a.reshape(-1)", "torch.reshape(a, (8, 2))"),
    *("a.t()", "a.T", "a.transpose(0, 1)", "torch.transpose(a, dim0=0, dim1=1)", "a.permute(1, 0)", "a.unsqueeze(n)"),
    *("a.squeeze()", "a.squeeze(0)", "a.flatten()", "torch.flatten(a, 0)", "a.expand(2, 4, 4)", "a.expand_as(b)"),
    *(
        "a.contiguous()",
        "a.narrow(0, 1, 2)",
        "a.select(0, n)",
        "a.diagonal()",
        "a.view_as(b)",
        "a.detach()",
        "a.clone()",
    ),
    *("torch.cat([a, b])", "torch.cat((a, b), dim=1)", "torch.stack([a, b, a])", "torch.cat([a, a])", "a.flip(0)"),
    *("a.double()", "a.to(torch.float64)", "a.half()", "a.float()", "a.long()", "F.dropout(a, 0.5, training=False)"),
    *(
        "F.cross_entropy(a, i)",
        "F.nll_loss(a, i)",
        "F.embedding(i, a)",
        "a[i]",
        "a.gather(1, i[:, None])",
        "a.repeat(1, 2)",
    ),
    *(
        "(a + b)[0] * a[1]",
        "a[0] * a[0]",
        "a[0] + a[1]",
        "a.t() @ b",
        "torch.exp(a.t()) + b",
        "(a * 1).view(2, 8).sum(1)",
    ),
    *(
        "a.split(2)[n]",
        "a.chunk(2)[n] * 2",
        "a.unbind(1)[n]",
        "torch.split(a, [1, 3], dim=1)[n]",
        "a.unbind()[n] * a[0]",
    ),
    *("sum(p.sum() for p in a.chunk(4, n % 2))", "a.chunk(2, 1)[n].t() @ b[:2].t()", "torch.chunk(a.t(), 2)[n]"),
    *("torch.zeros(4, 4)", "torch.ones(4, 4) * n", "torch.full((4, 4), float(n))", "torch.eye(4) @ a"),
    *("torch.arange(16).view(4, 4) + a", "torch.zeros((4, 4), dtype=torch.float64)", "torch.linspace(0, n, 4) + a"),
    *("a.to(b.dtype)", "a.to(torch.float64, copy=True)", "a.to('cpu')"),
    *("torch.rand(4, 4) + a", "torch.randn(4, 4)", "F.dropout(a, 0.5)", "torch.randint(0, 3, (4, 4))"),
    *("torch.cumsum(a, dim=n % 2)", "torch.sort(a, dim=1).values", "F.softmax(a)", "torch.pow(a, n)"),
)
STATEMENTS = (
    *(
        "a.add_(b)",
        "a.mul_(0.5)",
        "a += 1",
        "a *= b",
        "a.zero_()",
        "a[0] = n",
        "a[:, 1:] += 2",
        "a.relu_()",
        "a.copy_(b)",
    ),
    *("a.chunk(2)[n].add_(1)", "a.unbind()[n].mul_(2)", "v.extend(a.split(2))", "v.extend(torch.unbind(a, 1))"),
    *("a.requires_grad_()", "a.retain_grad()", "a.squeeze_()", "a.t_()", "a.detach_()", "a.fill_(n)"),
    *("log.append(a.sum().item())", "log.append(b.tolist())", "a.data.mul_(2)", "a.backward(torch.ones_like(a))"),
)
MODES = ("torch.no_grad()", "torch.enable_grad()", "torch.inference_mode()", "torch.autocast('cpu')")
LOOPS = ("(0, 1, 0)", "(1, 1)", "(0,)", "(0,)", "(0,)", "(0,)")


def program(seed: int) -> str:
    """The text of a function `run(v, i, log)` of some lines."""
    draw = random.Random(seed)
    lines = ["def run(v, i, log):"]
    for _ in range(draw.randint(4, 14)):
        margin = " "
        if draw.random() < 0.25:
            lines.append(f"{margin}with {draw.choice(MODES)}:")
            margin += " "
        lines.append(f"{margin}for n in {draw.choice(LOOPS)}:")
        first, second, step = draw.randrange(100), draw.randrange(100), draw.choice((0, 0, 1))
        lines.append(f"{margin} a, b = v[({first} + {step} * n) % len(v)], v[{second} % len(v)]")
        lines.append(f"{margin} try:")
        if draw.random() < 0.85:
            lines.append(f"{margin}  v.append({draw.choice(EXPRESSIONS)})")
        else:
            lines.append(f"{margin}  {draw.choice(STATEMENTS)}")
        lines += [f"{margin} except Exception as error:", f"{margin}  log.append((type(error).__name__, str(error)))"]
    return "\n".join(lines)


def leaves_of(node: Node, found: dict[Node, None]) -> None:
    if node.op == "input":
        found[node] = None
    for operand in node.inputs:
        leaves_of(operand, found)


def text_of(tensor: Any) -> str:
    """What is recorded for a tensor, as a graph. Leaves are as they are met: their numbers may differ."""
    value = tensor._storage.value
    if value is None:
        return "computed"
    found: dict[Node, None] = {}
    leaves_of(value.node, found)
    return str(Graph(tuple(found), (value.node,)))


def history(node: Any, depth: int = 6) -> Any:
    """The names of gradient nodes behind one."""
    if node is None or not depth:
        return None
    return node.name(), [history(other, depth - 1) for other, _ in node.next_functions]


def about(tensor: Any) -> tuple[object, ...]:
    counted = None if tensor.is_inference() else tensor._version
    flags = tensor.requires_grad, tensor.is_leaf, counted, tensor._is_view(), tensor.is_inference()
    place = tuple(tensor.shape), tensor.dtype, tensor.stride(), tensor.storage_offset()
    return (*place, *flags, repr(tensor._chain), history(tensor.grad_fn))


def told(run: Callable[..., None], seed: int) -> list[Any]:
    """All that can be seen of some rounds of a program."""
    found: list[Any] = []
    with using(Recorder()):
        torch.manual_seed(seed)
        weight, data = torch.randn(4, 4).requires_grad_(), torch.randn(4, 4)
        rows, batches = torch.tensor([0, 2, 1, 3]), torch.randn(8, 4)
        for turn in range(ROUNDS):
            v: list[Any] = [weight, data, weight * 1, data + turn, batches[2:6], torch.arange(16).reshape(4, 4)]
            log: list[Any] = []
            weight.grad = None
            with np.errstate(all="ignore"):
                run(v, rows, log)
            found.append(log)
            for tensor in v:
                found.append(text_of(tensor))
                try:
                    found.append(about(tensor))
                except IndexError as error:  # what a check of values found
                    found.append(str(error))
            ends = [t for t in v[2:] if t.requires_grad and t.dtype.is_floating_point and not t.is_inference()]
            try:
                sum((end.double().sum() for end in ends), torch.zeros(1)).backward()
            except Exception as error:
                found.append(str(error))
            for tensor in v:
                try:
                    found.append(np.asarray(tensor.tolist()).tobytes())
                    found.append(None if tensor.grad is None else np.asarray(tensor.grad.tolist()).tobytes())
                except Exception as error:
                    found.append(str(error))
    return found


def compare(seeds: range) -> int:
    """How many operations native code recorded in programs that Python records in the same way."""
    assert library() is not None
    installed = bool(operators._undone)
    before = FRONT.native_records
    try:
        for seed in seeds:
            text = program(seed)
            names: dict[str, Any] = {"torch": torch, "F": F}
            exec(compile(text, f"program {seed}", "exec"), names)  # noqa: S102
            operators.install()
            ours = told(names["run"], seed)
            operators.remove()
            theirs = told(names["run"], seed)
            assert len(ours) == len(theirs), text
            for place, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
                assert mine == other, f"{text}\n\nat {place}: {mine}\n\n{other}"
    finally:
        if installed:
            operators.install()
    return FRONT.native_records - before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, 150, 50))
def test_programs_are_recorded_as_python_records_them(first: int) -> None:
    assert compare(range(first, first + 50)) > 500


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(1000, 6000, 100))
def test_many_programs(first: int) -> None:
    assert compare(range(first, first + 100)) > 1000
