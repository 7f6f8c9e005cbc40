"""The front end is judged over the reference evaluator; `native` tests run over the compiler as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import any_size, programs, served
from graphc.ir import Graph, evaluate
from graphc.memory import AnyBuffer, copy_into, from_host, values_of
from graphc.native.library import library
from graphc.options import NATIVE_CALLS, scope
from graphc.recording import Recorder, using
from graphc.tensors import changing
from graphc_runtime.devices.cuda import register_cuda_driver
from tests.runtime.recording_driver import RecordingDevice, RecordingDriver


class Reference:
    """Stands where the compiler gives an executable: evaluates the graph on NumPy, for any device."""

    def __init__(self, graph: Graph, device: str = "cpu") -> None:
        self.graph = graph
        self.device = device
        self.output_aliases = (-1,) * len(graph.outputs)
        self.runs = 0

    def run(self, inputs: Sequence[AnyBuffer]) -> list[AnyBuffer]:
        self.runs += 1
        if self.device != "cpu":  # what a compiled program would not notice
            assert all(b.device.name == self.device for b in inputs)
        arrays = [values_of(b, n.type) for b, n in zip(inputs, self.graph.inputs, strict=True)]
        return [from_host(np.array(a, order="C", copy=True), self.device) for a in evaluate(self.graph, arrays)]

    def launch(self, inputs: Sequence[AnyBuffer], outputs: Sequence[AnyBuffer]) -> None:
        for made, given in zip(self.run(inputs), outputs, strict=True):
            copy_into(given, made)


@pytest.fixture(autouse=True)
def reference(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs run on the evaluator, on a recorder of the test's own, unless the test is marked `native`."""
    if "native" not in request.fixturenames:

        def compiled(graph: Graph, donate: Any = (), device: str = "cpu") -> Reference:
            return Reference(graph, device)

        monkeypatch.setattr(graphc.compiled, "compile_graph", compiled)
        monkeypatch.setattr(programs, "_executables", type(programs._executables)())
    graphc.manual_seed(0)
    with using(Recorder()):
        yield


@pytest.fixture
def native() -> None:
    """The test runs over the compiler."""


@pytest.fixture
def soon_for_all_sizes(native: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was seen before, and programs that are seen are soon compiled for all sizes."""
    monkeypatch.setattr(programs, "_variants", {})
    monkeypatch.setattr(served, "_like", type(served._like)())
    monkeypatch.setattr(any_size, "compiling", lambda nodes, device: len(nodes))
    monkeypatch.setattr(changing, "MOST_CHANGES", 1 << 30)  # no call is computed at once
    with scope(interpret=True):
        yield


@pytest.fixture
def native_replays(native: None) -> Iterator[None]:
    """The test runs over the compiler, and this Python can have native replays."""
    assert library() is not None
    yield
    NATIVE_CALLS.reset()


@pytest.fixture
def native_recording() -> Iterator[None]:
    """Native code records what was recorded before, from the first operation on."""
    before = bool(graphc.native.operators._undone)
    graphc.native.operators.install()
    yield
    if not before:
        graphc.native.operators.remove()


@pytest.fixture
def cuda() -> Iterator[list[RecordingDevice]]:
    """Two CUDA devices whose memory is the host's; their programs run on the evaluator."""
    devices = [RecordingDevice({}), RecordingDevice({})]
    before = register_cuda_driver(RecordingDriver(*devices))
    try:
        yield devices
    finally:
        register_cuda_driver(before)
