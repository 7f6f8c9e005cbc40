"""The operator corpus (tests/samples) as programs: a few operators, with all of their samples, in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.types import f32, f64
from graphc.ir.visit import topological
from graphc.passes.autodiff import vjp
from tests.samples import SAMPLES, Sample, twice_differentiable


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


@dataclass(frozen=True)
class Case:
    """A program with inputs. `exact[i]` says whether output `i` has one right answer; `what[i]` describes it."""

    graph: Graph
    arrays: list[np.ndarray]
    exact: list[bool]
    what: list[object]

    def judge(self, got: Sequence[np.ndarray]) -> None:
        """Compare results with the NumPy reference, within the tolerances that the CPU has."""
        expected = evaluate(self.graph, self.arrays)
        for g, e, node, exact, what in zip(got, expected, self.graph.outputs, self.exact, self.what, strict=True):
            check(g, e, node, exact, what)


FORWARD = [name for name in SAMPLES if name != "input" and OPS[name].kind != "host"]
DERIVATIVES = [name for name in FORWARD if SAMPLES[name].smooth]


def forward(operators: Sequence[str]) -> Case:
    """The values of all samples of the operators."""
    b, inputs, outputs, arrays, exact, what = Builder(), [], [], [], [], []
    for op in operators:
        for sample in SAMPLES[op].make(np.random.default_rng(3)):
            operands = [b.input(len(inputs) + i, type) for i, type in enumerate(sample.types)]
            inputs += operands
            arrays += sample.arrays
            outputs.append(sample.apply(b, op, operands))
            exact.append(SAMPLES[op].exact)
            what.append((op, sample.types, sample.attrs))
    return Case(Graph(tuple(inputs), tuple(outputs)), arrays, exact, what)


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


def gradients(operators: Sequence[str], host: bool = False) -> Case:
    """First and second derivatives of the smooth samples of the operators; with `host` also those that run there."""
    b, inputs, outputs, arrays = Builder(), [], [], []
    for op in operators:
        smooth = SAMPLES[op].smooth
        assert smooth is not None
        for sample in smooth(np.random.default_rng(5)):
            some_inputs, some_outputs, some_arrays = derivatives(b, op, sample, len(inputs))
            inputs += some_inputs
            outputs += [node for node in some_outputs if host or is_compiled(node)]
            arrays += some_arrays
    what = [(node.op, node.type) for node in outputs]
    return Case(Graph(tuple(inputs), tuple(outputs)), arrays, [False] * len(outputs), what)


def is_compiled(node: Node) -> bool:
    """Whether nothing that `node` is made of runs on the host."""
    return all(OPS[n.op].kind != "host" for n in topological((node,)))


def groups(operators: Sequence[str], size: int) -> list[list[str]]:
    """Neighbours in the corpus, `size` at a time."""
    return [list(operators[first : first + size]) for first in range(0, len(operators), size)]
