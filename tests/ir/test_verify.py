"""The verifier finds every seeded corruption, and shows it inside the printed graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphc.errors import VerifyError
from graphc.ir import Builder, Graph, Location, Node, TensorType, parse_graph, verify
from graphc.ir.types import boolean, f16, f32, f64, i32, i64
from tests.fuzz.graphs import random_graph

SOUND = """
graph @main(%x: f32[4,1,8,8], %w: f32[6,1,3,3], %i: i64[3]) {
  %3 = contract %x, %w {spec = "b c h+r w+s, o c r s -> b o h w"} : f32[4,6,6,6]
  %4 = constant {value = 0.0} : f32[4,6,6,6]
  %5 = le %3, %4 : bool[4,6,6,6]
  %6 = select %5, %4, %3 : f32[4,6,6,6]
  %7 = window %6 {axes = [2,3], size = [2,2], stride = [2,2], dilation = [1,1]} : f32[4,6,3,3,2,2]
  %8 = reduce_max %7 {axes = [4,5], ties = "first"} : f32[4,6,3,3]
  %9 = permute %8 {perm = [1,0,2,3]} : f32[6,4,3,3]
  %10 = reshape %9 {shape = [6,36]} : f32[6,36]
  %11 = iota {axis = 1} : i32[6,36]
  %12 = cast %11 {dtype = f32} : f32[6,36]
  %13 = add %10, %12 : f32[6,36]
  %14 = gather %13, %i {axis = 0} : f32[3,36]
  %15 = pad %14 {low = [0,1], high = [0,1], interior = [0,0], value = 1.5} : f32[3,38]
  %16 = reduce_sum %15 {axes = [1]} : f32[3]
  return %16, %8
}
"""

F32 = TensorType(f32, (2, 3))
Corruption = Callable[[Graph], Graph]


def find(graph: Graph, op: str) -> Node:
    return next(node for node in graph.nodes if node.op == op)


def with_node(graph: Graph, node: Node) -> Graph:
    return Graph(graph.inputs, (*graph.outputs, node))


def key_of(graph: Graph) -> Node:
    return Builder.of(graph).slice(graph.inputs[2], (0,), (2,), (1,))


def changed(op: str, /, **parts: object) -> Corruption:
    """A second node like the first one of operator `op`, with some parts replaced."""

    def corrupt(graph: Graph) -> Graph:
        node = find(graph, op)
        given = {"op": node.op, "inputs": node.inputs, "attrs": node.attrs, "type": node.type, **parts}
        return with_node(graph, Node(**given))  # type: ignore[arg-type]

    return corrupt


def attr(op: str, /, **values: object) -> Corruption:
    """The same with attribute values replaced, added or (None) taken away."""

    def corrupt(graph: Graph) -> Graph:
        node = find(graph, op)
        attrs = tuple((k, v) for k, v in {**dict(node.attrs), **values}.items() if v is not None)
        return with_node(graph, Node(node.op, node.inputs, attrs, node.type))  # type: ignore[arg-type]

    return corrupt


def operands(op: str, choose: Callable[[Graph, tuple[Node, ...]], tuple[Node, ...]]) -> Corruption:
    def corrupt(graph: Graph) -> Graph:
        node = find(graph, op)
        return with_node(graph, Node(node.op, choose(graph, node.inputs), node.attrs, node.type))

    return corrupt


def cycle(graph: Graph) -> Graph:
    a = Node("exp", (graph.inputs[0],), (), graph.inputs[0].type)
    b = Node("exp", (a,), (), a.type)
    a.inputs = (b,)
    return with_node(graph, b)


def self_loop(graph: Graph) -> Graph:
    a = Node("neg", (graph.inputs[0],), (), graph.inputs[0].type)
    a.inputs = (a,)
    return with_node(graph, a)


def stray_input(graph: Graph) -> Graph:
    return with_node(graph, Builder().input(7, F32))


def inputs(choose: Callable[[tuple[Node, ...]], tuple[Node, ...]]) -> Corruption:
    return lambda graph: Graph(choose(graph.inputs), graph.outputs)


def renumbered(index: object) -> Corruption:
    def corrupt(graph: Graph) -> Graph:
        odd = Node("input", (), (("index", index), ("name", "")), F32)  # type: ignore[arg-type]
        return Graph((*graph.inputs, odd), graph.outputs)

    return corrupt


CORRUPTIONS: dict[str, tuple[Corruption, str]] = {
    "unknown operator": (changed("add", op="ad"), "unknown operator 'ad'"),
    "other operator": (changed("add", op="le"), "le gives bool"),
    "result dtype": (changed("add", type=TensorType(f64, (6, 36))), "add gives f32"),
    "result shape": (changed("add", type=TensorType(f32, (6, 35))), "add gives f32"),
    "result rank": (changed("add", type=TensorType(f32, (216,))), "add gives f32"),
    "result device": (changed("add", type=TensorType(f32, (6, 36), "cuda:0")), "the node says f32[6,36]@cuda:0"),
    "comparison that gives numbers": (changed("le", type=TensorType(f32, (4, 6, 6, 6))), "le gives bool"),
    "cast to another dtype": (changed("cast", type=TensorType(f64, (6, 36))), "cast gives f32"),
    "reduction that keeps a dimension": (changed("reduce_sum", type=TensorType(f32, (3, 1))), "reduce_sum gives"),
    "negative size": (changed("constant", type=TensorType(f32, (-1,))), "is not a type"),
    "size that is no integer": (changed("constant", type=TensorType(f32, (2.5,))), "is not a type"),  # type: ignore[arg-type]
    "size beyond 64 bits": (changed("constant", type=TensorType(f32, (1 << 40, 1 << 40))), "is not a type"),
    "one operand too few": (operands("add", lambda g, xs: xs[:1]), "add takes 2 operand(s), it has 1"),
    "one operand too many": (operands("add", lambda g, xs: (*xs, xs[0])), "add takes 2 operand(s), it has 3"),
    "no operands": (operands("reduce_sum", lambda g, xs: ()), "reduce_sum takes 1 operand(s), it has 0"),
    "operand of another shape": (operands("add", lambda g, xs: (xs[0], g.outputs[0])), "different shapes"),
    "operand of another dtype": (operands("add", lambda g, xs: (xs[0], find(g, "iota"))), "different dtypes"),
    "operands swapped": (operands("gather", lambda g, xs: xs[::-1]), "an index tensor has dtype"),
    "condition that is a number": (operands("select", lambda g, xs: (xs[1], *xs[1:])), "the condition is bool"),
    "missing attribute": (attr("reshape", shape=None), "reshape has the attributes none"),
    "extra attribute": (attr("add", fast=True), "add has the attributes fast"),
    "attributes in another order": (
        changed("reduce_max", attrs=(("ties", "first"), ("axes", (4, 5)))), "its record says axes, ties",
    ),
    "attribute twice": (changed("reshape", attrs=(("shape", (6, 36)),) * 2), "its record says shape"),
    "list instead of tuple": (attr("reshape", shape=[6, 36]), "is not of kind ints"),
    "float in a list of integers": (attr("reshape", shape=(6.0, 36)), "is not a list of integers"),
    "bool for an integer": (attr("gather", axis=False), "is not of kind int"),
    "integer beyond 64 bits": (attr("gather", axis=1 << 70), "does not fit 64 bits"),
    "text for a dtype": (attr("cast", dtype="f32"), "is not of kind dtype"),
    "number for text": (attr("contract", spec=3), "is not of kind str"),
    "integer in a float constant": (attr("constant", value=0), "is not of element type f32"),
    "bool in a float constant": (attr("constant", value=True), "is not of element type f32"),
    "float in an integer constant": (
        lambda g: with_node(g, Node("constant", (), (("value", 1.0),), TensorType(i64, ()))), "of element type i64",
    ),
    "integer constant out of range": (
        lambda g: with_node(g, Node("constant", (), (("value", 1 << 31),), TensorType(i32, ()))),
        "is outside i32",
    ),
    "number in a bool constant": (
        lambda g: with_node(g, Node("constant", (), (("value", 1),), TensorType(boolean, ()))), "of element type bool",
    ),
    "padding of another kind": (attr("pad", value=1), "is not of element type f32"),
    "axes out of range": (attr("reduce_sum", axes=(2,)), "axis 2 is out of range"),
    "axes twice": (attr("reduce_sum", axes=(1, 1)), "not increasing"),
    "order of dimensions": (attr("permute", perm=(0, 0, 2, 3)), "is not an order of"),
    "unknown ties": (attr("reduce_max", ties="last"), 'ties is "even" or "first"'),
    "malformed formula": (attr("contract", spec="b c -> d"), "a formula is"),
    "formula of another rank": (attr("contract", spec="b c, o c -> b o"), "the formula names 2"),
    "iota axis": (attr("iota", axis=2), "axis 2 is out of range"),
    "iota of bools": (changed("iota", type=TensorType(boolean, (6, 36))), "iota gives numbers"),
    "random bits from a wrong key": (
        lambda g: with_node(g, Node("random_bits", (g.inputs[2],), (("word", 0),), TensorType(i32, (4,)))),
        "from a key i64[2]",
    ),
    "normal numbers from a wrong key": (
        lambda g: with_node(g, Node("random_normal", (g.inputs[2],), (), TensorType(f32, (4,)))),
        "random_normal makes f32 or f64 from a key i64[2]",
    ),
    "normal numbers of 16 bits": (
        lambda g: with_node(g, Node("random_normal", (key_of(g),), (), TensorType(f16, (4,)))),
        "makes f32 or f64 from a key i64[2], not f16[4] from i64[2]",
    ),
    "cycle": (cycle, "an operand is not computed before"),
    "node that uses itself": (self_loop, "an operand is not computed before"),
    "stray input": (stray_input, "an input node that is not among the inputs"),
    "input twice": (inputs(lambda xs: (*xs, xs[0])), "input index 0 does not follow 2"),
    "inputs out of order": (inputs(lambda xs: xs[::-1]), "input index 1 does not follow 2"),
    "input left out": (inputs(lambda xs: xs[:2]), "an input node that is not among the inputs"),
    "computed input": (lambda g: Graph((*g.inputs, g.outputs[0]), g.outputs), "is a node of operator reduce_sum"),
    "input index that is no integer": (renumbered("3"), "input index '3'"),
    "negative input index": (renumbered(-3), "input index -3"),
}  # fmt: skip


def test_sound_graph_is_given_back() -> None:
    graph = parse_graph(SOUND)
    assert verify(graph) is graph


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_are_sound(seed: int) -> None:
    verify(random_graph(seed))


def test_there_are_enough_corruptions() -> None:
    assert len(CORRUPTIONS) >= 40


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_is_found(name: str) -> None:
    corrupt, message = CORRUPTIONS[name]
    with pytest.raises(VerifyError) as caught:
        verify(corrupt(parse_graph(SOUND)))
    assert message in str(caught.value)


def test_error_shows_the_place_and_the_users_line() -> None:
    b = Builder()
    x = b.input(0, F32, "x")
    y = x
    for _ in range(8):
        y = b.exp(y)
    bad = Node("add", (y, x), (), TensorType(f32, (3, 2)), frozenset({Location("net.py", 12), Location("net.py", 3)}))
    z = Node("neg", (bad,), (), bad.type)
    with pytest.raises(VerifyError) as caught:
        verify(Graph((x,), (z,)))
    assert str(caught.value) == (
        "graph @main is not valid: add gives f32[2,3], the node says f32[3,2]\n\n"
        "  ...\n"
        "  %4 = exp %3 : f32[2,3]\n"
        "  %5 = exp %4 : f32[2,3]\n"
        "  %6 = exp %5 : f32[2,3]\n"
        "  %7 = exp %6 : f32[2,3]\n"
        "  %8 = exp %7 : f32[2,3]\n"
        "  %9 = add %8, %x : f32[3,2]\n"
        "  ^ add gives f32[2,3], the node says f32[3,2]\n"
        "    at net.py:3, net.py:12\n"
        "  %10 = neg %9 : f32[3,2]\n"
        "  return %10\n"
        "}"
    )


def test_a_long_chain_is_verified() -> None:
    b = Builder()
    x = y = b.input(0, TensorType(f32, ()))
    for _ in range(100_000):
        y = b.add(y, x)
    verify(Graph((x,), (y,)))
