"""The reverse loop: sums, paths, source lines, depth, errors; and gradients appended to a graph."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from graphc.errors import AutodiffError
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Location
from graphc.ir.opdef import OPS
from graphc.ir.types import TensorType, boolean, f32, f64, i64
from graphc.passes.autodiff import grad_graph, vjp

VECTOR = TensorType(f64, (3,))


def test_contributions_are_summed() -> None:
    b = Builder()
    x = b.input(0, VECTOR)
    y = b.add(b.mul(x, x), b.mul(x, 3.0))
    (gradient,) = vjp(b, [y], [b.constant(1, VECTOR)], [x])
    assert gradient is not None
    np.testing.assert_allclose(evaluate(Graph((x,), (gradient,)), [np.array([1.0, 2, 3])])[0], [5, 7, 9])


def test_several_outputs_and_an_output_that_another_one_uses() -> None:
    b = Builder()
    x = b.input(0, VECTOR)
    y = b.mul(x, x)
    z = b.mul(y, y)
    one = b.constant(1, VECTOR)
    by_x, by_y = vjp(b, [z, y, y], [one, one, one], [x, y])
    assert by_x is not None and by_y is not None
    got = evaluate(Graph((x,), (by_x, by_y)), [np.array([1.0, 2, 3])])
    np.testing.assert_allclose(got[1], 2 * np.array([1.0, 4, 9]) + 2)
    np.testing.assert_allclose(got[0], got[1] * 2 * np.array([1.0, 2, 3]))


def test_an_output_is_its_own_gradient() -> None:
    b = Builder()
    x = b.input(0, VECTOR)
    ct = b.input(1, VECTOR)
    assert vjp(b, [x], [ct], [x]) == [ct]


def test_no_dependence_is_none() -> None:
    b = Builder()
    x, y, n = b.input(0, VECTOR), b.input(1, VECTOR), b.input(2, TensorType(i64, (3,)))
    one = b.constant(1, VECTOR)
    assert vjp(b, [b.mul(x, x)], [one], [y]) == [None]
    stopped = b.apply("detach", (b.mul(x, x),))
    assert vjp(b, [stopped], [one], [x]) == [None]
    assert vjp(b, [b.cast(n, f64)], [one], [n]) == [None]
    through = b.cast(b.cast(x, i64), f64)
    assert vjp(b, [through], [one], [x]) == [None]


def test_only_the_path_is_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    record = OPS["mul"]
    assert record.vjp is not None
    rule = record.vjp
    spied = dataclasses.replace(record, vjp=lambda b, node, ct: seen.append(node) or rule(b, node, ct))
    monkeypatch.setitem(OPS, "mul", spied)
    b = Builder()
    x, y = b.input(0, VECTOR), b.input(1, VECTOR)
    aside = b.mul(y, y)
    on_path = b.mul(x, aside)
    unused = b.mul(x, x)
    vjp(b, [on_path], [b.constant(1, VECTOR)], [x])
    assert seen == [on_path]
    assert unused not in seen and aside not in seen


def test_gradient_nodes_carry_the_lines_of_the_forward_node() -> None:
    b = Builder()
    x = b.input(0, VECTOR)
    here, there = Location("net.py", 3), Location("net.py", 4)
    with b.at(frozenset({here})):
        y = b.exp(x)
    with b.at(frozenset({there})):
        z = b.elementwise("sin", y)
    (gradient,) = vjp(b, [z], [b.constant(1, VECTOR)], [x])
    assert gradient is not None and gradient.locs == {here}
    assert gradient.inputs[0].locs == {there}
    assert b.locs == frozenset()


def test_a_missing_rule_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, "exp", dataclasses.replace(OPS["exp"], vjp=None, why_no_vjp="undefined: nobody knows"))
    b = Builder()
    x = b.input(0, VECTOR)
    with b.at(frozenset({Location("net.py", 7)})):
        y = b.exp(x)
    with pytest.raises(AutodiffError, match=r"exp has no gradient: undefined: nobody knows \(at net.py:7\)"):
        vjp(b, [y], [b.constant(1, VECTOR)], [x])


def test_a_long_chain() -> None:
    b = Builder()
    x = b.input(0, TensorType(f64, ()))
    y = x
    for _ in range(20_000):
        y = b.add(y, x)
    (gradient,) = vjp(b, [y], [b.constant(1, y.type)], [x])
    assert gradient is not None
    assert float(evaluate(Graph((x,), (gradient,)), [np.array(2.0)])[0]) == 20_001


def test_a_cotangent_for_each_output() -> None:
    b = Builder()
    x = b.input(0, VECTOR)
    with pytest.raises(AutodiffError, match="1 outputs and 2 cotangents"):
        vjp(b, [x], [x, x], [x])


def scalar_graph() -> Graph:
    b = Builder()
    x, mask, y = b.input(0, VECTOR, "x"), b.input(1, TensorType(boolean, (3,)), "mask"), b.input(2, VECTOR, "y")
    return Graph((x, mask, y), (b.reduce_sum(b.select(mask, b.mul(x, x), 0.0), (0,)),), "loss")


def test_grad_graph() -> None:
    graph = scalar_graph()
    both = grad_graph(graph)
    assert both.name == "loss" and both.inputs == graph.inputs and len(both.outputs) == 3
    x, mask, y = np.array([1.0, 2, 3]), np.array([True, False, True]), np.zeros(3)
    loss, by_x, by_y = evaluate(both, [x, mask, y])
    assert loss == 10
    np.testing.assert_array_equal(by_x, [2, 0, 6])
    np.testing.assert_array_equal(by_y, [0, 0, 0])
    assert str(grad_graph(graph, [0])) == str(both.with_outputs(both.outputs[:2]))
    assert both.outputs[0] is graph.outputs[0]


def test_grad_graph_errors() -> None:
    graph = scalar_graph()
    with pytest.raises(AutodiffError, match=r"input 1 of @loss is bool\[3\]: only floats"):
        grad_graph(graph, [1])
    with pytest.raises(AutodiffError, match="@loss has 3 inputs, there is no number 3"):
        grad_graph(graph, [3])
    b = Builder()
    x = b.input(0, TensorType(f32, (2,)))
    with pytest.raises(AutodiffError, match=r"@main gives f32\[2\]"):
        grad_graph(Graph((x,), (x,)))
