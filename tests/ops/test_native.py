"""Conformance: compiled code of every operator and of its derivatives, against the NumPy reference."""

from __future__ import annotations

import os

import numpy as np
import pytest

from graphc import programs
from graphc.compiled import compile_graph
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.types import f32, f64
from graphc.passes.autodiff import vjp
from graphc_runtime import Buffer
from tests.samples import SAMPLES, Sample, twice_differentiable

DEVICE = os.environ.get("GRAPHC_TEST_DEVICE", "cpu")


def run_natively(graph: Graph, arrays: list[np.ndarray]) -> list[np.ndarray]:
    buffers = [Buffer.from_array(np.array(a, order="C")) for a in arrays]
    if any(OPS[n.op].kind == "host" for n in graph.nodes):
        bound = dict(zip(graph.inputs, buffers, strict=True))
        results = programs.run(programs.build(graph.outputs, bound.__contains__), bound)
        return [results[n].view(n.dtype.numpy, n.shape) for n in graph.outputs]
    outputs = compile_graph(graph, device=DEVICE).run(buffers)
    return [out.view(node.dtype.numpy, node.shape) for out, node in zip(outputs, graph.outputs, strict=True)]


def check(got: np.ndarray, expected: np.ndarray, node: Node, exact: bool, what: object) -> None:
    """Equal, NaN and the sign of zero included; or close where operators may round differently."""
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype), what
    if not node.dtype.is_float:
        np.testing.assert_array_equal(got, expected, err_msg=str(what))
        return
    tolerance = 1e-12 if node.dtype is f64 else 1e-5 if node.dtype is f32 else 1e-2
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    if exact:
        np.testing.assert_array_equal(got, expected, err_msg=str(what))
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers], err_msg=str(what))
    else:
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance, err_msg=str(what))


@pytest.mark.parametrize("op", [name for name in SAMPLES if name != "input" and OPS[name].kind != "host"])
def test_forward(op: str) -> None:
    """All samples of the operator as the outputs of one program."""
    b, inputs, outputs, arrays = Builder(), [], [], []
    samples = SAMPLES[op].make(np.random.default_rng(3))
    for sample in samples:
        operands = [b.input(len(inputs) + i, type) for i, type in enumerate(sample.types)]
        inputs += operands
        arrays += sample.arrays
        outputs.append(sample.apply(b, op, operands))
    graph = Graph(tuple(inputs), tuple(outputs))
    results = zip(run_natively(graph, arrays), evaluate(graph, arrays), outputs, samples, strict=True)
    for got, expected, node, sample in results:
        check(got, expected, node, SAMPLES[op].exact, (op, sample.types, sample.attrs))


def derivatives(b: Builder, op: str, sample: Sample, first: int) -> tuple[list[Node], list[Node], list[np.ndarray]]:
    """Inputs (numbered from `first`), first and second derivatives, and arrays for the inputs."""
    operands = [b.input(first + i, type) for i, type in enumerate(sample.types)]
    node = sample.apply(b, op, operands)
    ct = b.input(first + len(operands), node.type)
    wrt = [x for i, x in enumerate(operands) if x.dtype.is_float and i not in SAMPLES[op].constant]
    gradients = [g for g in vjp(b, [node], [ct], wrt) if g is not None]
    weights = [b.exp(g) for g in gradients]
    second = vjp(b, gradients, weights, [*wrt, ct]) if twice_differentiable(gradients) else []
    arrays = [*sample.arrays, np.asarray(np.linspace(-1, 1, node.type.size).reshape(node.shape))]
    return [*operands, ct], [*gradients, *(g for g in second if g is not None)], arrays


@pytest.mark.parametrize("op", [name for name, samples in SAMPLES.items() if samples.smooth])
def test_derivatives(op: str) -> None:
    smooth = SAMPLES[op].smooth
    assert smooth is not None
    b, inputs, outputs, arrays = Builder(), [], [], []
    for sample in smooth(np.random.default_rng(5)):
        some_inputs, some_outputs, some_arrays = derivatives(b, op, sample, len(inputs))
        inputs += some_inputs
        outputs += some_outputs
        arrays += some_arrays
    graph = Graph(tuple(inputs), tuple(outputs))
    for got, expected, node in zip(run_natively(graph, arrays), evaluate(graph, arrays), outputs, strict=True):
        check(got, expected, node, False, (op, node))
