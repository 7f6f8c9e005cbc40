"""Operators that run on the host: programs are cut around them, and they behave as all others."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as torch
from graphc import programs
from graphc.codegen.llvm.host import host_target
from graphc.errors import UnsupportedError
from graphc.ir import Builder, Graph, TensorType
from graphc.ir.types import f32
from graphc.pipeline import schedule
from graphc_runtime.buffer import Buffer


def sorted_rows(b: Builder, x: object) -> tuple[object, object]:
    doubled = b.mul(x, 2.0)  # type: ignore[arg-type]
    order = b.apply("argsort", (doubled,), {"axis": 1, "descending": False})
    return order, b.add(b.apply("take_along", (doubled, order), {"axis": 1}), 1.0)


def test_a_program_is_cut_around_a_host_operator(native: None) -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (3, 5)))
    outputs = sorted_rows(b, x)
    array = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    before = torch.counters()
    program = programs.build(outputs, {x}.__contains__)  # type: ignore[arg-type]
    results = programs.run(program, {x: Buffer.from_array(array)})
    assert len(program) == 3
    assert torch.counters()["host_calls"] - before["host_calls"] == 1
    order, values = (results[n].view(n.dtype.numpy, n.shape) for n in outputs)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(order, np.argsort(array, 1))
    np.testing.assert_array_equal(values, np.sort(array, 1) * 2 + 1)


def test_a_host_operator_may_be_the_whole_program(native: None) -> None:
    b = Builder()
    constant = b.constant(1.0, TensorType(f32, (4,)))
    order = b.apply("argsort", (constant,), {"axis": 0, "descending": True})
    results = programs.run(programs.build((order,), lambda node: False), {})
    np.testing.assert_array_equal(results[order].view(np.int64, (4,)), np.arange(4))


def test_kernels_are_refused_by_name() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (3, 5)))
    graph = Graph((x,), (sorted_rows(b, x)[1],))  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="argsort run on the host"):
        schedule(graph, host_target())
