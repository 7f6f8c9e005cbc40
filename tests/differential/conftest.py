"""The differential tests run over the compiler; with `GRAPHC_TEST_EVALUATOR=1` over the NumPy reference (fast)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import graphc
from graphc import programs
from graphc.ir import Graph
from graphc.recording import Recorder, using
from tests.frontend.conftest import Reference


@pytest.fixture(autouse=True)
def own_recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A recorder for each test, so that a failure leaves nothing pending for the next one."""
    if os.environ.get("GRAPHC_TEST_EVALUATOR"):

        def compiled(graph: Graph, donate: Any = (), device: str = "cpu") -> Reference:
            return Reference(graph, device)

        monkeypatch.setattr(graphc.compiled, "compile_graph", compiled)
        monkeypatch.setattr(programs, "_executables", type(programs._executables)())
    with using(Recorder()):
        yield
