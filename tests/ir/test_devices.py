"""Devices in types: each operator keeps that of its operands and refuses operands of several."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import ShapeError, UsageError
from graphc.ir import Builder, Graph, evaluate, parse_graph, verify
from graphc.ir.opdef import OPS
from graphc.ir.types import TensorType, f32, i32, i64
from graphc.ir.verify import TYPE_GIVEN
from graphc.passes.autodiff import vjp
from tests.samples import SAMPLES

INFERRED = [name for name in SAMPLES if name not in TYPE_GIVEN and name != "transfer"]


def operands(op: str) -> tuple[list[TensorType], dict[str, object]]:
    sample = SAMPLES[op].make(np.random.default_rng(0))[0]
    return list(sample.types), sample.attrs


@pytest.mark.parametrize("op", INFERRED)
def test_results_are_where_the_operands_are(op: str) -> None:
    types, attrs = operands(op)
    here = OPS[op].infer(types, attrs)
    assert OPS[op].infer([t.on("cuda:1") for t in types], attrs) is here.on("cuda:1")


@pytest.mark.parametrize("op", [name for name in INFERRED if len(operands(name)[0]) > 1])
def test_operands_of_two_devices_are_refused(op: str) -> None:
    types, attrs = operands(op)
    if op.startswith("random_"):
        types, keep = types[1:], types[:1]  # the host reads the key, wherever it lies
    else:
        keep = []
    for place in range(len(types)):
        mixed = [t.on("cuda:0" if i == place else "cpu") for i, t in enumerate(types)]
        if len(types) > 1:
            with pytest.raises(UsageError, match="found at least two devices, cuda:0 and cpu!"):
                OPS[op].infer([*keep, *mixed], attrs)


def test_a_transfer_changes_the_device_alone() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (2, 3)))
    moved = b.transfer(x, "cuda:0")
    assert moved.type is TensorType(f32, (2, 3), "cuda:0")
    assert b.transfer(moved, "cuda:0") is moved
    graph = verify(Graph((x,), (b.transfer(moved, "cpu"),)))
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(evaluate(graph, [array])[0], array)
    assert str(parse_graph(str(graph))) == str(graph)


def test_constants_are_made_on_the_other_device() -> None:
    b = Builder()
    for node in (b.constant(2.0, TensorType(f32, (3,))), b.iota(0, TensorType(i32, (3,)))):
        moved = b.transfer(node, "cuda:0")
        assert (moved.op, moved.type.device) == (node.op, "cuda:0")


def test_the_key_of_a_draw_follows_its_numbers() -> None:
    b = Builder()
    key = b.input(0, TensorType(i64, (2,)))
    drawn = (
        b.random_bits(key, TensorType(i32, (4,), "cuda:0")),
        b.random_normal(key, TensorType(f32, (4,), "cuda:0")),
    )
    assert all(node.inputs[0].op == "transfer" for node in drawn)
    verify(Graph((key,), drawn))


def test_the_gradient_of_a_transfer_goes_back() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (2,)))
    moved = b.transfer(x, "cuda:1")
    (gradient,) = vjp(b, [b.mul(moved, moved)], [b.constant(1, moved.type)], [x], [x])
    assert gradient is not None and gradient.type is x.type


@pytest.mark.parametrize("device", ["", "cuda:", "Cuda", "cuda:01", "cuda:x"])
def test_names_that_are_no_devices_are_refused(device: str) -> None:
    b = Builder()
    with pytest.raises(ShapeError, match="wants a device such as cpu or cuda:0"):
        b.apply("transfer", (b.input(0, TensorType(f32, ())),), {"device": device})
