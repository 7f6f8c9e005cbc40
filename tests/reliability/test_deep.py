"""Row 28 of the reliability goals: a chain of 100 000 operators is recorded, differentiated, printed, compiled, run and
freed, at Python's ordinary recursion limit and on a stack of 1 MiB. Nothing recurses over a graph. Without the slow
tests the chain is shorter, and still longer than that limit and that stack allow.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.parser import parse_graph
from graphc.ir.types import TensorType, f32
from graphc.ir.verify import verify
from graphc.passes.autodiff import vjp
from tests.codegen.programs import run

LENGTH, SHORT = 100_000, 15_000
STACK, DEPTH = 1 << 20, 1000


@contextmanager
def _limits() -> Iterator[None]:
    depth, stack = sys.getrecursionlimit(), threading.stack_size(STACK)
    sys.setrecursionlimit(DEPTH)
    try:
        yield
    finally:
        sys.setrecursionlimit(depth)
        threading.stack_size(stack)


def on_a_small_stack(work: Callable[[], None]) -> None:
    """Do `work` in a thread with the limits above, and raise here what it raises there."""
    errors: list[BaseException] = []

    def task() -> None:
        try:
            work()
            gc.collect()
        except BaseException as error:
            errors.append(error)

    with _limits():
        thread = threading.Thread(target=task)
        thread.start()
        thread.join()
    if errors:
        raise errors[0]


def chain(length: int) -> Graph:
    """x + y + y + ..."""
    b = Builder()
    x, y = b.input(0, TensorType(f32, (8,)), "x"), b.input(1, TensorType(f32, (8,)), "y")
    value = x
    for _ in range(length):
        value = b.add(value, y)
    return Graph((x, y), (value,))


def with_gradients(graph: Graph) -> Graph:
    b = Builder.of(graph)
    (output,) = graph.outputs
    gradients = vjp(b, [output], [b.constant(1, output.type)], graph.inputs)
    return Graph(graph.inputs, (output, *(g for g in gradients if g is not None)))


@pytest.mark.parametrize("length", [SHORT, pytest.param(LENGTH, marks=pytest.mark.slow)])
def test_forward_and_backward(length: int) -> None:
    def work() -> None:
        x, y = np.arange(8, dtype=np.float32), np.ones(8, np.float32)
        value, by_x, by_y = run(with_gradients(chain(length)), [x, y])
        np.testing.assert_array_equal(value, x + length)
        np.testing.assert_array_equal(by_x, np.ones(8))
        np.testing.assert_array_equal(by_y, np.full(8, length))

    on_a_small_stack(work)


@pytest.mark.parametrize("length", [SHORT, pytest.param(LENGTH, marks=pytest.mark.slow)])
def test_texts(length: int) -> None:
    def work() -> None:
        graph = chain(length)
        text = str(graph)
        assert text.count(" = add ") == length
        again = parse_graph(text)
        verify(again)
        assert str(again) == text

    on_a_small_stack(work)


def test_equal_length_branches() -> None:
    """A chain that also reads its own start at each step: every value has two readers far apart."""

    def work() -> None:
        b = Builder()
        x = b.input(0, TensorType(f32, (8,)), "x")
        steps = [x]
        for i in range(500):
            steps.append(b.mul(b.add(steps[-1], steps[i // 2]), 0.5))
        graph = Graph((x,), (steps[-1],))
        (got,) = run(graph, [np.ones(8, np.float32)])
        np.testing.assert_array_equal(got, np.ones(8))

    on_a_small_stack(work)
