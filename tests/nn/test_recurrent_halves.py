"""Recurrent layers in f16 and bf16: what is multiplied has 16 bits, sums and cell states have more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
from graphc.errors import DTypeError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.narrow import factor_dtype
from graphc.ir.types import DType, TensorType, bf16, f16
from graphc.options import scope
from graphc.passes.autodiff import vjp
from graphc.pipeline import optimize
from graphc.recurrent_layers import KINDS, emitted
from graphc.recurrent_pieces import MOST_LENGTHS

STEPS, ROWS, FEATURES, SIZE = 6, 4, 24, 32
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def training_graph(name: str, dtype: DType, projected: bool) -> Graph:
    """A layer with biases: its outputs, and the gradients of its input, state and weights."""
    kind, b = KINDS[name], Builder()
    rows, out = GATES[name] * SIZE, SIZE // 2 if projected else SIZE
    states = [(1, ROWS, out), (1, ROWS, SIZE)][: kind.states]
    weights = [(rows, FEATURES), (rows, out), (rows,), (rows,), *([(out, SIZE)] if projected else [])]
    shapes = [(STEPS, ROWS, FEATURES), *states, *weights]
    inputs = [b.input(i, TensorType(dtype, shape)) for i, shape in enumerate(shapes)]
    made = emitted(b, kind, inputs, 0, True, False, False, False)
    seeds = [b.input(len(inputs) + i, node.type) for i, node in enumerate(made)]
    slopes = [slope for slope in vjp(b, made, seeds, inputs) if slope is not None]
    return Graph((*inputs, *seeds), (*made, *slopes))


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
@pytest.mark.parametrize("name", [*KINDS, "lstm with a projection"])
def test_all_factors_of_products_have_16_bits(name: str, dtype: DType) -> None:
    graph = optimize(training_graph(name.split()[0], dtype, "projection" in name))
    products = [node for node in graph.nodes if node.op == "contract"]
    # Of the input, of each state, their gradients, and those of both weights, each one product for all steps.
    assert 2 * STEPS < len(products) < 5 * STEPS
    assert {factor_dtype(node) for node in products} == {dtype}
    assert {node.dtype.name for node in products} == {"f32"}


Made = dict[str, np.ndarray]


def trained(kind: Any, dtype: Any, steps: int = STEPS, **arguments: Any) -> Made:
    """Outputs, last states and gradients of a layer, from numbers that 16 bits hold."""
    rng = np.random.default_rng(3)

    def number(shape: tuple[int, ...], scale: float) -> torch.Tensor:
        return torch.tensor((scale * rng.standard_normal(shape)).astype(np.float32)).bfloat16().to(dtype)

    layer = kind(FEATURES, SIZE, **arguments).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(number(tuple(parameter.shape), SIZE**-0.5))
    x = number((steps, ROWS, FEATURES), 1.0).requires_grad_()
    out, states = layer(x)
    (out * number(tuple(out.shape), 1.0)).sum().backward()
    last = states if isinstance(states, tuple) else (states,)
    named = {"out": out, "x": x.grad, **{f"state {i}": state for i, state in enumerate(last)}}
    named |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {name: tensor.detach().double().numpy().copy() for name, tensor in named.items()}


def errors(made: Made, exact: Made) -> Iterator[float]:
    for name, values in exact.items():
        yield float(np.linalg.norm(made[name] - values) / np.linalg.norm(values))


@pytest.mark.share(2)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (nn.LSTM, {}),
        (nn.LSTM, {"num_layers": 2, "bidirectional": True}),
        (nn.LSTM, {"proj_size": 20}),
        (nn.GRU, {}),
        (nn.GRU, {"bias": False}),
        (nn.RNN, {}),
        (nn.RNN, {"nonlinearity": "relu"}),
    ],
)
def test_results_and_gradients_are_those_of_f64_to_the_precision(kind: Any, arguments: Any, dtype: Any) -> None:
    spacing = torch.finfo(dtype).eps
    made = trained(kind, dtype, **arguments)
    assert max(errors(made, trained(kind, torch.float64, **arguments))) < 2 * spacing


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_pieces_of_a_sequence_are_as_exact(kind: Any) -> None:
    with scope(interpret=True):
        for steps in range(1, MOST_LENGTHS + 3):  # ever new lengths
            made = trained(kind, torch.bfloat16, steps=8 + steps)
    steps = 8 + MOST_LENGTHS + 2
    assert max(errors(made, trained(kind, torch.float64, steps=steps))) < 2 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_state_of_another_dtype_is_an_error(kind: Any) -> None:
    cell, h = kind(3, 4).bfloat16(), torch.zeros(2, 4)
    with pytest.raises(DTypeError, match=r"different dtypes, bf16\[2,3\], f32\[2,4\], .* convert with .to\(dtype\)"):
        cell(torch.zeros(2, 3).bfloat16(), (h, h) if kind is nn.LSTMCell else h)
