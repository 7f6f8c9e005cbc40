"""Stores that have nothing in common go one after the other: which do, and that all is there."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.kernel import For, If, Stmt, Store
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.package import Program, make_program
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, f32, f64, i64
from graphc.passes.plan_memory import plan_memory
from graphc.pipeline import schedule
from graphc_runtime import Buffer
from graphc_runtime.devices import get_device
from graphc_runtime.executor import Executable
from tests.codegen.raw import artifact_of
from tests.codegen.targets import runnable

TARGETS = {"host": host_target(), **runnable()}


def _graph(parts: int, shape: tuple[int, ...], dtype: DType, shared: int = 0) -> Graph:
    """A concatenation of so many inputs; each of the first `shared` is a part three times, as it is and computed."""
    b = Builder()
    inputs = tuple(b.input(i, TensorType(dtype, shape)) for i in range(parts))
    operands: list[Node] = []
    for i, x in enumerate(inputs):
        operands += [b.add(x, x), x, b.mul(x, inputs[(i + 1) % parts])] if i < shared else [x]
    return Graph(inputs, (b.apply("concat", tuple(operands), {"axis": 0}),))


def _stores(program: Program) -> list[int]:
    """How many stores each innermost loop has, of all kernels."""
    counts: list[int] = []

    def walk(body: tuple[Stmt, ...]) -> None:
        counts.append(sum(isinstance(s, Store) for s in body))
        for statement in body:
            if isinstance(statement, (For, If)):
                walk(statement.body)

    for kernel in program.kernels:
        verify_kernel(kernel)
        walk(kernel.body)
    return [count for count in counts if count]


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    ("parts", "shape", "dtype", "shared"),
    [
        (20, (4, 256), f32, 0),
        (33, (7, 129), f32, 0),
        (12, (3, 200), f64, 3),
        (17, (1000,), i64, 0),
        (11, (5, 7, 31), f32, 11),
        (9, (300,), f32, 2),
        (20, (3, 5), f32, 0),
    ],
)
def test_parts_are_copied_one_after_the_other(
    name: str, parts: int, shape: tuple[int, ...], dtype: DType, shared: int
) -> None:
    target = TARGETS[name]
    graph = _graph(parts, shape, dtype, shared)
    program = make_program(schedule(graph, target), plan_memory, target)
    rng = np.random.default_rng(parts)
    arrays = [(rng.standard_normal(shape) * 50).astype(dtype.numpy) for _ in range(parts)]
    executable = Executable(artifact_of(program, target), get_device("cpu"))
    (result,) = executable.run(list(map(Buffer.from_array, arrays)))
    (wanted,) = evaluate(graph, arrays)
    np.testing.assert_array_equal(result.view(dtype.numpy, wanted.shape), wanted)


def test_stores_that_share_what_they_read_stay_together() -> None:
    target = TARGETS["host"]

    def most(parts: int, length: int, shared: int) -> int:
        program = make_program(schedule(_graph(parts, (length,), f32, shared), target), plan_memory, target)
        return max(_stores(program))

    together = most(20, 4096, 0)
    assert together <= 8  # vectors of one part
    assert most(20, 4096, 2) <= 7 * together  # those of the first three inputs, which products join
    assert most(4, 4096, 0) >= 4  # a few streams are foreseen
    assert most(20, 16, 0) >= 20  # and short ones are not worth loops of their own
