"""Operators that run on the host: programs are cut around them, and they behave as all others."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as torch
from graphc import programs
from graphc.codegen.llvm.host import host_target
from graphc.errors import UnsupportedError
from graphc.ir import Builder, Graph, TensorType
from graphc.ir.opdef import OPS
from graphc.ir.types import f32
from graphc.pipeline import schedule
from graphc_runtime.buffer import Buffer


def airy(b: Builder, x: object) -> tuple[object, object]:
    doubled = b.mul(x, 2.0)  # type: ignore[arg-type]
    found = b.apply("airy_ai", (doubled,))
    return found, b.add(b.mul(found, doubled), 1.0)


def test_a_program_is_cut_around_a_host_operator(native: None) -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (3, 5)))
    outputs = airy(b, x)
    array = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    before = torch.counters()
    program = programs.build(outputs, {x}.__contains__)  # type: ignore[arg-type]
    results = programs.run(program, {x: Buffer.from_array(array)})
    assert len(program) == 3
    assert torch.counters()["host_calls"] - before["host_calls"] == 1
    found, values = (results[n].view(n.dtype.numpy, n.shape) for n in outputs)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(found, OPS["airy_ai"].evaluate([array * 2], {}, outputs[0].type))  # type: ignore[attr-defined]
    np.testing.assert_allclose(values, found * array * 2 + 1, rtol=1e-6)


def test_a_host_operator_may_be_the_whole_program(native: None) -> None:
    b = Builder()
    constant = b.constant(0.0, TensorType(f32, (4,)))
    found = b.apply("airy_ai", (constant,))
    results = programs.run(programs.build((found,), lambda node: False), {})
    np.testing.assert_allclose(results[found].view(np.float32, (4,)), 0.3550280538878172, rtol=1e-6)


def test_kernels_are_refused_by_name() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (3, 5)))
    graph = Graph((x,), (airy(b, x)[1],))  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="airy_ai run on the host"):
        schedule(graph, host_target())
