"""Sums of padded values become concatenations where they fill their whole, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.parser import parse_graph
from graphc.passes.join_pads import JoinPads

GATES = """
graph @gates(%a: f32[3,4], %b: f32[3,2], %c: f32[3,4]) {
  %3 = pad %b {low = [0,4], high = [0,4], interior = [0,0], value = 0.0} : f32[3,10]
  %4 = pad %a {low = [0,0], high = [0,6], interior = [0,0], value = 0.0} : f32[3,10]
  %5 = add %3, %4 : f32[3,10]
  %6 = pad %c {low = [0,6], high = [0,0], interior = [0,0], value = 0.0} : f32[3,10]
  %7 = add %6, %5 : f32[3,10]
  return %7
}
"""


PRODUCTS = """
graph @products(%x: f16[3,2], %y: f16[4,2]) {
  %2 = contract %x, %y {spec = "a i, b i -> a b"} : f16[3,4]
  %3 = pad %2 {low = [0,0], high = [0,4], interior = [0,0], value = 0.0} : f16[3,8]
  %4 = contract %x, %y {spec = "a i, b i -> a b"} : f16[3,4]
  %5 = pad %4 {low = [0,4], high = [0,0], interior = [0,0], value = 0.0} : f16[3,8]
  %6 = add %3, %5 : f16[3,8]
  return %6
}
"""


def operators(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes if n.op != "input"]


def test_parts_are_put_side_by_side() -> None:
    graph = parse_graph(GATES)
    joined = JoinPads().run(graph)
    assert operators(joined).count("concat") == 1 and "pad" not in operators(joined)
    (whole,) = joined.outputs
    assert [x.shape for x in whole.inputs] == [(3, 4), (3, 2), (3, 4)]


def test_the_same_bits_with_zeros_of_both_signs() -> None:
    graph = parse_graph(GATES)
    special = np.array([-0.0, 0.0, np.inf, -np.inf, np.nan, 1.5], np.float32)
    arrays = [np.resize(special, n.shape) for n in graph.inputs]
    (expected,), (got,) = evaluate(graph, arrays), evaluate(JoinPads().run(graph), arrays)
    assert np.array_equal(np.signbit(expected), np.signbit(got))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("low = [0,6], high = [0,0]", "low = [0,5], high = [0,1]"),  # one over another
        ("[0,6], interior = [0,0], value = 0.0", "[0,6], interior = [0,0], value = 1.0"),
        ("[0,6], interior = [0,0], value = 0.0", "[0,6], interior = [0,0], value = -0.0"),
    ],
)
def test_other_sums_stay(before: str, after: str) -> None:
    graph = parse_graph(GATES.replace(before, after))
    assert JoinPads().run(graph) is graph


def test_a_gap_stays_a_sum() -> None:
    text = GATES.replace("return %7", "return %5")
    graph = parse_graph(text)
    assert JoinPads().run(graph) is graph


def test_permutations_move_into_the_parts() -> None:
    graph = parse_graph(
        """
        graph @turned(%a: f32[1,2,5], %b: f32[2,2,5]) {
          %2 = concat %a, %b {axis = 0} : f32[3,2,5]
          %3 = permute %2 {perm = [2,0,1]} : f32[5,3,2]
          return %3
        }
        """
    )
    joined = JoinPads().run(graph)
    (whole,) = joined.outputs
    assert whole.op == "concat" and whole.integer("axis") == 1
    arrays = [np.arange(np.prod(n.shape), dtype=np.float32).reshape(n.shape) for n in graph.inputs]
    np.testing.assert_array_equal(evaluate(joined, arrays)[0], evaluate(graph, arrays)[0])


def test_integers_need_no_zero() -> None:
    graph = parse_graph(GATES.replace("f32", "i32").replace("value = 0.0", "value = 0"))
    joined = JoinPads().run(graph)
    assert operators(joined) == ["concat"]


def test_parts_that_16_bits_hold_are_joined_in_16_bits() -> None:
    graph = parse_graph(
        """
        graph @wide(%a: bf16[3,4], %b: bf16[2,3]) {
          %2 = cast %a {dtype = f32} : f32[3,4]
          %3 = pad %2 {low = [0,0], high = [0,2], interior = [0,0], value = 0.0} : f32[3,6]
          %4 = cast %b {dtype = f32} : f32[2,3]
          %5 = permute %4 {perm = [1,0]} : f32[3,2]
          %6 = pad %5 {low = [0,4], high = [0,0], interior = [0,0], value = 0.0} : f32[3,6]
          %7 = add %3, %6 : f32[3,6]
          return %7
        }
        """
    )
    joined = JoinPads().run(graph)
    (wide,) = joined.outputs
    assert (wide.op, wide.inputs[0].op, str(wide.inputs[0].type)) == ("cast", "concat", "bf16[3,6]")
    special = np.array([-0.0, 0.0, np.inf, -np.inf, np.nan, 1.5])
    arrays = [np.resize(special, n.shape).astype(n.dtype.numpy) for n in graph.inputs]
    (expected,), (got,) = evaluate(graph, arrays), evaluate(joined, arrays)
    np.testing.assert_array_equal(got, expected)
    assert np.array_equal(np.signbit(got), np.signbit(expected))


def test_products_that_round_to_a_zero_with_a_sign() -> None:
    graph = parse_graph(PRODUCTS)
    least = np.float16(2**-24)
    arrays = [np.full((3, 2), least), np.full((4, 2), -least)]
    (expected,), (got,) = evaluate(graph, arrays), evaluate(JoinPads().run(graph), arrays)
    assert not np.signbit(expected).any() and not np.signbit(got).any()


def test_a_long_chain_is_one_concatenation() -> None:
    count = 300
    lines = [f"%s0 = pad %x {{low = [0], high = [{count - 1}], interior = [0], value = 0.0}} : f32[{count}]"]
    for i in range(1, count):
        ends = f"low = [{i}], high = [{count - 1 - i}], interior = [0], value = 0.0"
        lines.append(f"%p{i} = pad %x {{{ends}}} : f32[{count}]")
        lines.append(f"%s{i} = add %s{i - 1}, %p{i} : f32[{count}]")
    graph = parse_graph("graph @chain(%x: f32[1]) {\n" + "\n".join(lines) + f"\nreturn %s{count - 1}\n}}")
    joined = JoinPads().run(graph)
    assert operators(joined) == ["constant", "add", "concat"]
