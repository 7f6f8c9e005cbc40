"""The front end is judged over the reference evaluator; `native` tests run over the compiler as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import programs
from graphc.ir import Graph, evaluate
from graphc.native.library import library
from graphc.options import NATIVE_CALLS
from graphc.recording import Recorder, using
from graphc_runtime.buffer import Buffer


class Reference:
    """Stands where the compiler gives an executable: evaluates the graph on NumPy."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.output_aliases = (-1,) * len(graph.outputs)

    def run(self, inputs: Sequence[Buffer]) -> list[Buffer]:
        arrays = [b.view(n.type.dtype.numpy, n.shape) for b, n in zip(inputs, self.graph.inputs, strict=True)]
        return [Buffer.from_array(np.array(a, order="C", copy=True)) for a in evaluate(self.graph, arrays)]

    def launch(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        for made, given in zip(self.run(inputs), outputs, strict=True):
            given.array[:] = made.array


@pytest.fixture(autouse=True)
def reference(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs run on the evaluator, on a recorder of the test's own, unless the test is marked `native`."""
    if "native" not in request.fixturenames:

        def compiled(graph: Graph, donate: Any = ()) -> Reference:
            return Reference(graph)

        monkeypatch.setattr(graphc.compiled, "compile_graph", compiled)
        monkeypatch.setattr(programs, "_executables", type(programs._executables)())
    graphc.manual_seed(0)
    with using(Recorder()):
        yield


@pytest.fixture
def native() -> None:
    """The test runs over the compiler."""


@pytest.fixture
def native_replays(native: None) -> Iterator[None]:
    """The test runs over the compiler, and this Python can have native replays."""
    assert library() is not None
    yield
    NATIVE_CALLS.reset()
