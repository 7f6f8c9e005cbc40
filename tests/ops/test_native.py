"""Conformance: compiled code of every operator and of its derivatives, against the NumPy reference."""

from __future__ import annotations

import os

import numpy as np
import pytest

from graphc import programs
from graphc.compiled import compile_graph
from graphc.ir.graph import Graph
from graphc.ir.opdef import OPS
from graphc_runtime import Buffer
from tests.ops.corpus import FORWARD, forward, gradients
from tests.samples import SAMPLES

DEVICE = os.environ.get("GRAPHC_TEST_DEVICE", "cpu")


def run_natively(graph: Graph, arrays: list[np.ndarray]) -> list[np.ndarray]:
    buffers = [Buffer.from_array(np.array(a, order="C")) for a in arrays]
    if any(OPS[n.op].kind == "host" for n in graph.nodes):
        bound = dict(zip(graph.inputs, buffers, strict=True))
        results = programs.run(programs.build(graph.outputs, bound.__contains__), bound)
        return [results[n].view(n.dtype.numpy, n.shape) for n in graph.outputs]
    outputs = compile_graph(graph, device=DEVICE).run(buffers)
    return [out.view(node.dtype.numpy, node.shape) for out, node in zip(outputs, graph.outputs, strict=True)]


@pytest.mark.parametrize("op", FORWARD)
def test_forward(op: str) -> None:
    case = forward([op])
    case.judge(run_natively(case.graph, case.arrays))


@pytest.mark.parametrize("op", [name for name, samples in SAMPLES.items() if samples.smooth])
def test_derivatives(op: str) -> None:
    case = gradients([op], host=True)
    case.judge(run_natively(case.graph, case.arrays))
