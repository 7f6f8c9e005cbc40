"""Gradients against finite differences, and the functions on functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.nn.functional as F
from graphc.autograd import gradcheck
from graphc.ir import Graph, TensorType, parse_graph
from graphc.ir.types import f32


def leaf(*shape: int, low: float = -2.0, high: float = 2.0) -> Any:
    rng = np.random.default_rng(sum(shape) + 7)
    return torch.tensor(rng.uniform(low, high, shape), dtype=torch.float64, requires_grad=True)


UNARY: dict[str, Callable[[Any], Any]] = {
    "exp": torch.exp,
    "log": lambda x: torch.log(x * x + 1),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sqrt": lambda x: torch.sqrt(x * x + 1),
    "rsqrt": lambda x: torch.rsqrt(x * x + 1),
    "pow": lambda x: (x * x + 0.5) ** 1.7,
    "pow_tensor": lambda x: (x * x + 0.5) ** x,
    "softmax": lambda x: torch.softmax(x, 1),
    "log_softmax": lambda x: torch.log_softmax(x, 0),
    "logsumexp": lambda x: torch.logsumexp(x, 1),
    "var": lambda x: x.var(1),
    "std": lambda x: x.std(0),
    "prod": lambda x: x.prod(1),
    "max": lambda x: x.max(1).values,
    "norm": lambda x: x.norm(dim=1),
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "elu": F.elu,
    "mish": F.mish,
    "layer_norm": lambda x: F.layer_norm(x, (4,)),
    "cumsum": lambda x: x.cumsum(1),
    "index": lambda x: x[torch.tensor([0, 2, 0]), torch.tensor([1, 1, 3])],
    "gather": lambda x: x.gather(1, torch.tensor([[0, 0], [3, 1], [2, 2]])),
    "setitem": lambda x: assigned(x),
    "cat": lambda x: torch.cat([x, x * x], 1),
    "roll": lambda x: x.roll(1, 0) * x,
    "where": lambda x: torch.where(x > 0, x * x, x.exp()),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "cross_entropy": lambda x: F.cross_entropy(x, torch.tensor([1, 0, 3]), label_smoothing=0.2),
    "embedding": lambda x: F.embedding(torch.tensor([1, 1, 0]), x),
    "unfold": lambda x: F.unfold(x.view(1, 1, 3, 4), 2),
    "avg_pool": lambda x: F.avg_pool2d(x.view(1, 1, 3, 4), 2, stride=1, padding=1),
    "max_pool": lambda x: F.max_pool2d(x.view(1, 1, 3, 4), 2, stride=1),
}


def assigned(x: Any) -> Any:
    y = x * 2
    y[1:, ::2] = y[:2, ::2].clone() * x[1:, ::2]
    y[torch.tensor([0, 2])] *= 3
    return y


@pytest.mark.parametrize("name", sorted(UNARY))
def test_gradient(name: str) -> None:
    assert gradcheck(UNARY[name], leaf(3, 4))


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 0, 1, 1), (2, 1, 1, 1), (1, "same", 2, 1), ((2, 1), (0, 1), 1, 2), (1, 1, (1, 2), 4)],
)
def test_convolution_gradients(stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    x, w, bias = leaf(2, 4, 5, 6), leaf(4, 4 // groups, 3, 2), leaf(4)
    assert gradcheck(
        lambda x, w, bias: F.conv2d(x, w, bias, stride, padding, dilation, groups)[:, :, :2, :2], (x, w, bias)
    )


@pytest.mark.parametrize("name", ["exp", "tanh", "pow", "softmax", "layer_norm", "setitem", "einsum"])
def test_second_gradient(name: str) -> None:
    def slope(x: Any) -> Any:
        x = x if x.requires_grad else x.detach().requires_grad_()
        (g,) = torch.autograd.grad((UNARY[name](x) ** 2).sum(), x, create_graph=True)
        return g

    assert gradcheck(slope, leaf(3, 4))


def test_grad_nests() -> None:
    def cube(x: Any) -> Any:
        return x * x * x

    x = torch.tensor(3.0)
    assert [torch.grad(cube)(x).item(), torch.grad(torch.grad(cube))(x).item()] == [27, 18]
    assert torch.grad(torch.grad(torch.grad(cube)))(x).item() == 6
    assert not torch.grad(cube)(x).requires_grad
    value, slope = torch.value_and_grad(cube)(x)
    assert (value.item(), slope.item()) == (27, 27)


def test_grad_does_not_confuse_levels() -> None:
    x = torch.tensor(3.0)
    assert torch.grad(lambda x: x * torch.grad(lambda y: x * y)(x))(x).item() == 6
    assert torch.grad(lambda x: torch.grad(lambda y: x + y)(x))(x).item() == 0


def test_grad_sees_captured_leaves() -> None:
    w = torch.tensor(2.0, requires_grad=True)
    slope = torch.grad(lambda x: w * x * x)(torch.tensor(3.0))
    slope.backward()
    assert w.grad is not None and (slope.item(), w.grad.item()) == (12, 6)


def test_grad_of_nested_arguments() -> None:
    parameters = {"w": torch.tensor([1.0, 2.0]), "b": [torch.tensor(0.5)]}
    found = torch.grad(lambda p, x: ((p["w"] * x).sum() + p["b"][0]) ** 2)(parameters, torch.tensor([1.0, 1.0]))
    assert found["w"].tolist() == [7, 7] and found["b"][0].item() == 7
    with pytest.raises(RuntimeError, match="a scalar Tensor"):
        torch.grad(lambda x: x * 2)(torch.ones(2))


def test_vjp() -> None:
    value, pull = torch.vjp(lambda a, b: a @ b, torch.ones(2, 3), torch.full((3, 2), 2.0))
    assert value.tolist() == [[6, 6], [6, 6]]
    left, right = pull(torch.ones(2, 2))
    assert left.tolist() == [[4, 4, 4]] * 2 and right.tolist() == [[2, 2]] * 3
    assert pull(torch.zeros(2, 2))[0].tolist() == [[0, 0, 0]] * 2
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        pull(torch.ones(3))


def test_trace_gives_a_graph_that_parses_back() -> None:
    weight = torch.ones(3, 2, requires_grad=True)

    def f(x: Any) -> Any:
        return torch.relu(x @ weight).sum(1)

    graph = torch.trace(f, TensorType(f32, (4, 3)))
    assert isinstance(graph, Graph)
    assert [str(i.type) for i in graph.inputs] == ["f32[4,3]", "f32[3,2]"]
    assert [str(o.type) for o in graph.outputs] == ["f32[4]"]
    assert str(parse_graph(str(graph))) == str(graph)
    assert any("test_gradients.py" in str(loc) for node in graph.nodes for loc in node.locs)
    assert weight.tolist() == [[1, 1]] * 3


def test_trace_names_parameters_and_undoes_what_it_did() -> None:
    net = torch.nn.Linear(3, 2)
    graph = torch.trace(net, torch.ones(1, 3))
    assert [i.text("name") for i in graph.inputs] == ["input", "weight", "bias"]
    state = torch.zeros(2)

    def step(x: Any) -> Any:
        state.add_(x)
        net(torch.ones(1, 3)).sum().backward()
        return state * torch.rand(2)

    torch.manual_seed(0)
    first = torch.rand(1).item()
    torch.manual_seed(0)
    torch.trace(step, torch.ones(2))
    assert state.tolist() == [0, 0] and net.weight.grad is None
    assert torch.rand(1).item() == first
    with pytest.raises(RuntimeError, match=r"looks at a value at .*test_gradients.py"):
        torch.trace(lambda x: x * x.sum().item(), torch.ones(2))
