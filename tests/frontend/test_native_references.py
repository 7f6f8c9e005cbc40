"""Native replays count references exactly: nothing leaks, and nothing goes too early."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import graphc as torch
from graphc.options import scope
from graphc_runtime.buffer import memory_stats
from tests.frontend.native_cases import (
    FUNCTIONS,
    MAKERS,
    Scaled,
    batch,
    natively,
    training,
    warm,
)

pytestmark = pytest.mark.usefixtures("native_replays")


def traced_bytes() -> int:
    """Bytes that are held, but for those of the thread that deals out tests and of the pool, whose lists of free blocks
    grow now and then (`live_bytes` tells of blocks that are held).
    """
    others = [tracemalloc.Filter(False, f"*{name}*") for name in ("execnet", "xdist", "graphc_runtime/buffer.py")]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(others).traces)


def watched(call: Callable[[], Any], objects: list[Any], count: int) -> tuple[list[int], int]:
    """How counts of references of `objects`, and of all objects together, grow in `count` calls; bytes of growth."""
    objects = [*objects, (), None, True, False, 0]

    def counts() -> list[int]:
        return [sys.getrefcount(o) for o in objects]

    for _ in range(50):
        call()
    gc.collect()
    tracemalloc.start()
    for _ in range(50):
        call()
    gc.collect()
    traced_bytes()  # what looking itself keeps is there then
    bytes_then, then = traced_bytes(), counts()
    live = memory_stats().live_bytes
    for _ in range(count):
        call()
    gc.collect()
    grown = [now - before for now, before in zip(counts(), then, strict=True)]
    bytes_grown = traced_bytes() - bytes_then
    tracemalloc.stop()
    assert memory_stats().live_bytes == live
    return grown, bytes_grown


@pytest.mark.parametrize("name", FUNCTIONS)
def test_calls_hold_no_reference(name: str) -> None:
    compiled = torch.compile(FUNCTIONS[name])
    x, y = torch.randn(4, 4), torch.randn(4, 4)
    warm(compiled, x, y)
    parts = [x, y, x._storage, y._storage, y._storage.buffer, x._type, x._lineage, type(x), type(x._storage), compiled]
    grown, bytes_grown = watched(lambda: compiled(x, y), parts, 100_000 if name == "one" else 5_000)
    assert max(map(abs, grown)) <= 1, grown  # the test itself may hold None once more or less
    assert bytes_grown < 4096


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_steps_hold_no_reference(name: str) -> None:
    net, optimizer, step = training(MAKERS[name], dropout=0.5)
    x, y = batch(0)
    warm(step, x, y)
    parts: list[Any] = [x, y, net, optimizer, optimizer.param_groups[0], step]
    for p in net.parameters():
        parts += [p, p._storage, p._lineage, p._storage.type, p.grad, p.grad._storage, p.grad._lineage]
    parts = [part for part in parts if part is not None]
    grown, bytes_grown = watched(lambda: step(x, y), parts, 5_000)
    assert max(map(abs, grown)) <= 1, grown  # the test itself may hold None once more or less
    assert bytes_grown < 8192


def test_calls_that_cannot_be_native_hold_no_reference_either() -> None:
    net, _, step = training(MAKERS["adam"])
    x, y = batch(0)
    warm(step, x, y)
    held = [p.detach() for p in net.parameters()]  # somebody looks at the memory that is given away

    def call() -> None:
        for other in held:
            other._storage.buffer  # noqa: B018
        with scope(poison=False):
            step(x, y)

    grown, bytes_grown = watched(call, [x, y, net, step, *net.parameters()], 500)
    assert max(map(abs, grown)) <= 1, grown  # the test itself may hold None once more or less
    assert bytes_grown < 8192


def test_a_compiled_function_that_nobody_holds_is_collected() -> None:
    def made() -> list[weakref.ref[Any]]:
        net = Scaled()
        compiled = torch.compile(lambda x: net(x).detach())
        warm(compiled, torch.ones(2, 4))
        assert natively(lambda: compiled(torch.ones(2, 4))) == 1
        return [weakref.ref(compiled), weakref.ref(net)]

    gone = made()
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
