"""The text form: exact round trips, and errors that say where and what."""

from __future__ import annotations

import math
import random
import re

import pytest

from graphc.errors import IRSyntaxError
from graphc.ir import OPS, Builder, Graph, Location, TensorType, parse_graph, parse_graphs, verify
from graphc.ir.printer import print_graph
from graphc.ir.types import DTYPES, boolean, f32, f64, i32
from tests.fuzz.graphs import ELSEWHERE, random_graph
from tests.ir.mutation import mutate

SMALL = """\
graph @main(%x: f32[4,1,8,8], %1: f32[6,1,3,3]) {
  %2 = contract %x, %1 {spec = "b c h+r w+s, o c r s -> b o h w"} : f32[4,6,6,6]
  %3 = constant {value = -0.0} : f32[4,6,6,6]
  %4 = add %2, %3 : f32[4,6,6,6]
  return %4, %x, %4
}"""


def text_with_locations(graph: Graph) -> str:
    return print_graph(graph.name, graph.inputs, graph.nodes, graph.outputs, locations=True)


def check_round_trip(graph: Graph) -> None:
    text = str(graph)
    again = parse_graph(text)
    assert str(again) == text
    assert [(n.op, n.attrs, n.type) for n in again.nodes if n.op != "input"] == [
        (n.op, n.attrs, n.type) for n in graph.nodes if n.op != "input"
    ]
    assert [n.type for n in again.inputs] == [n.type for n in graph.inputs]


def test_text_is_as_documented() -> None:
    assert str(parse_graph(SMALL)) == SMALL


@pytest.mark.parametrize("seeds", [range(i, i + 50) for i in range(0, 500, 50)], ids=lambda r: f"from{r.start}")
def test_random_graphs_round_trip(seeds: range) -> None:
    for seed in seeds:
        check_round_trip(random_graph(seed))


@pytest.mark.slow
def test_many_random_graphs_round_trip() -> None:
    for seed in range(10_000):
        check_round_trip(random_graph(seed))


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, 0.1, 1e-45, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, 1 / 3, 1e22, 123456789.0]
)
def test_floats_are_exact(value: float) -> None:
    b = Builder()
    graph = parse_graph(str(Graph((), (b.constant(value, TensorType(f64, (2,))),))))
    assert float(graph.outputs[0].attr("value")).hex() == value.hex()  # type: ignore[arg-type]


def test_nan_round_trips() -> None:
    graph = Graph((), (Builder().constant(math.nan, TensorType(f32, ())),))
    assert "value = nan" in str(graph)
    assert str(parse_graph(str(graph))) == str(graph)


def test_every_dtype_and_device_round_trips() -> None:
    b = Builder()
    types = [
        TensorType(d, shape, dev) for d in DTYPES for shape in ((), (0,), (2, 3)) for dev in ("cpu", "cuda:0", "null")
    ]
    inputs = tuple(b.input(i, type) for i, type in enumerate(types))
    again = parse_graph(str(Graph(inputs, inputs)))
    assert [n.type for n in again.inputs] == types


def test_names_are_hints_made_valid_and_unique() -> None:
    b = Builder()
    type = TensorType(f32, ())
    hints = ["x", "x", "x_1", "7", "", "layer.0.weight", "a b", 'quote"%\n', "é", "return"]
    inputs = tuple(b.input(i, type, hint) for i, hint in enumerate(hints))
    text = str(Graph(inputs, inputs))
    names = re.findall(r"%([^\s:,]+): ", text)
    assert names[:4] == ["x", "x_1", "x_1_1", "_7"]
    assert names[4] == "4"
    assert names[5] == "layer.0.weight"
    assert len(set(names)) == len(hints)
    assert str(parse_graph(text)) == text


@pytest.mark.parametrize("name", ["main", "a.b_1", "", "two words", 'quote " \\ \n \x00 \ud800 é 𝄞', "1st"])
def test_any_graph_name_round_trips(name: str) -> None:
    graph = Graph((), (), name)
    assert parse_graph(str(graph)).name == name
    assert str(graph).isascii()


def test_locations_round_trip_as_sets() -> None:
    b = Builder()
    with b.at(frozenset({Location("b.py", 7), Location('a "quoted"\n.py', 12)})):
        x = b.input(0, TensorType(f32, (2,)), "x")
        y = b.exp(x)
    graph = Graph((x,), (b.neg(y),))
    text = text_with_locations(graph)
    assert r'loc("a \"quoted\"\n.py":12, "b.py":7)' in text
    again = parse_graph(text)
    assert text_with_locations(again) == text
    assert [n.locs for n in again.nodes] == [n.locs for n in graph.nodes]
    assert "loc" not in str(graph)


def test_reading_is_lenient_where_nothing_is_lost() -> None:
    graph = parse_graph("""
        // Names, spaces, order of attributes and written types are free.
        graph @g ( %a : f32 [ 2 , 3 ] ) { %sum = reduce_sum %a{axes=[1]}
          %m = reduce_max %a {ties = "even", axes = [1]} : f32[2] // a comment
          %half = constant {value = 1} : f32[2]
          return %sum , %m, %half }
    """)
    assert [n.op for n in graph.outputs] == ["reduce_sum", "reduce_max", "constant"]
    assert graph.outputs[2].attr("value") == 1.0
    assert type(graph.outputs[2].attr("value")) is float


def test_several_graphs_in_one_text() -> None:
    graphs = parse_graphs(f"{SMALL}\n\ngraph @other() {{ return }}")
    assert [g.name for g in graphs] == ["main", "other"]
    assert parse_graphs("// nothing") == []
    with pytest.raises(IRSyntaxError, match="expected one graph, found 2"):
        parse_graph("graph @a() { return } graph @b() { return }")


def test_equal_statements_become_one_node() -> None:
    graph = parse_graph("graph @g(%x: f32[]) { %1 = exp %x %2 = exp %x %3 = add %1, %2 return %3 }")
    assert graph.outputs[0].inputs[0] is graph.outputs[0].inputs[1]


ERRORS = [
    ("", "expected one graph, found 0"),
    ("grph @g() { return }", "1:1: expected `graph`, found `grph`"),
    ("graph @g() { return", "1:20: expected `}`, found the end of the text"),
    ("graph @g(%x: f33[2]) { return }", "1:14: unknown element type `f33`; did you mean"),
    ("graph @g(%x: f32[-1]) { return }", "is not a type"),
    ("graph @g(%x: f32[4294967296,4294967296]) { return }", "is not a type"),
    ("graph @g(%x: f32[99999999999999999999999]) { return }", "integer of 23 characters is too long"),
    ("graph @g(%x: f32[2], %x: f32[2]) { return }", "1:22: %x is defined twice"),
    ("graph @g(%x: f32[2]) { %x = exp %x return }", "1:24: %x is defined twice"),
    ("graph @g(%x: f32[2]) { %1 = exp %y return }", "1:33: %y is not defined"),
    ("graph @g(%x: f32[2]) { %1 = exp %1 return }", "1:33: %1 is not defined"),
    ("graph @g(%x: f32[2]) { %1 = exq %x return }", "1:29: unknown operator `exq`; did you mean eq, exp?"),
    ("graph @g(%x: f32[2]) { %1 = input %x return }", "inputs stand in the head of the graph"),
    ("graph @g(%x: f32[2]) { %1 = add %x return }", "1:29: add takes 2 operand(s), 1 given"),
    ("graph @g() { %1 = concat {axis = 0} return }", "concat takes at least one operand, 0 given"),
    ("graph @g(%x: f32[2]) { %1 = exp %x : f32[3] return }", "1:38: exp gives f32[2], the text says f32[3]"),
    ("graph @g(%x: f32[2]) { %1 = exp %x : f64[2] return }", "exp gives f32[2], the text says f64[2]"),
    ("graph @g(%x: f32[2]) { %1 = reshape %x return }", "1:29: reshape lacks the attribute(s) shape"),
    (
        "graph @g(%x: f32[2]) { %1 = reshape %x {shap = [2]} return }",
        "1:41: reshape has no attribute `shap`; it has: shape",
    ),
    ("graph @g(%x: f32[2]) { %1 = exp %x {a = 1} return }", "exp has no attribute `a`; it has none"),
    ("graph @g(%x: f32[2]) { %1 = reshape %x {shape = 2} return }", "attribute shape = 2 is not of kind ints"),
    (
        "graph @g(%x: f32[2]) { %1 = reshape %x {shape = [3]} return }",
        "1:29: reshape: shape [3] is invalid for input of size 2",
    ),
    ("graph @g(%x: f32[2]) { %1 = reshape %x {shape = [2], shape = [2]} return }", "attribute `shape` is given twice"),
    (
        "graph @g(%x: f32[2], %y: i32[2]) { %1 = add %x, %y return }",
        "operands have different dtypes, f32[2] and i32[2]",
    ),
    ("graph @g() { %1 = constant {value = 1.0} return }", "constant: attribute value needs an element type"),
    ("graph @g() { %1 = constant {value = 1.5} : i32[] return }", "attribute value = 1.5 is not of element type i32"),
    ("graph @g() { %1 = constant {value = true} : f32[] return }", "attribute value = True is not of element type f32"),
    ("graph @g() { %1 = constant {value = 256} : u8[] return }", "attribute value = 256 is outside u8"),
    ("graph @g() { %1 = iota {axis = 1} : i32[4] return }", "iota: axis 1 is out of range"),
    ("graph @g() { %1 = cast %x {dtype = f32} return }", "%x is not defined"),
    ("graph @g(%x: f32[2]) { %1 = cast %x {dtype = float} return }", "unknown element type `float`"),
    (
        "graph @g(%x: f32[2]) { %1 = cast %x {dtype = } return }",
        "expected a value of kind dtype for `dtype`, found `}`",
    ),
    ('graph @g() { %1 = constant {value = "\x01"} : f32[] return }', "1:37: unexpected character '\"'"),
    ("graph @g() { return ; }", "1:21: unexpected character ';'"),
    ("graph @g(%1a: f32[]) { return }", "%1a is neither a number nor a name"),
    (
        'graph @g(%x: f32[2,3]) { %1 = contract %x, %x {spec = "' + "a" * 5000 + '"} return }',
        "at most 4096 are allowed",
    ),
    (
        "graph @g(%x: f32[2]) { %1 = broadcast %x {shape = [" + "1," * 63 + "2]} "
        "%2 = window %1 {axes = [63], size = [1], stride = [1], dilation = [1]} return }",
        "at most 64 sizes",
    ),
    ("graph @g(%x: f32[" + "1," * 65 + "1]) { return }", "more than 64 integers in a list"),
]


@pytest.mark.parametrize(("text", "message"), ERRORS, ids=[m[:40] for _, m in ERRORS])
def test_errors_say_where_and_what(text: str, message: str) -> None:
    with pytest.raises(IRSyntaxError) as caught:
        parse_graph(text)
    assert message in str(caught.value)


def test_errors_show_the_line_and_a_caret() -> None:
    with pytest.raises(IRSyntaxError) as caught:
        parse_graph(SMALL.replace("%2, %3", "%2, %33"), "net.gir")
    assert str(caught.value) == (
        "net.gir:4:16: %33 is not defined; did you mean %3?\n    %4 = add %2, %33 : f32[4,6,6,6]\n                 ^"
    )


def test_long_lines_are_cut_around_the_error() -> None:
    text = "graph @g() { " + " " * 5000 + "; " + " " * 5000 + "return }"
    with pytest.raises(IRSyntaxError) as caught:
        parse_graph(text)
    _, shown, caret = str(caught.value).split("\n")
    assert len(shown) < 200
    assert shown[caret.index("^")] == ";"


def check_mutants(count: int) -> None:
    """Damaged text is refused with a place, or is a graph that keeps every rule."""
    rng = random.Random(34)
    text = ""
    for i in range(count):
        if i % 20 == 0:
            text = str(random_graph(rng.randrange(10**6), 25))
        damaged = mutate(rng, text)
        try:
            graphs = parse_graphs(damaged)
        except IRSyntaxError as error:
            assert re.match(r"<text>:\d+:\d+: ", str(error)), damaged
            continue
        for graph in graphs:
            verify(graph)
            check_round_trip(graph)


def test_damaged_text_is_refused_or_valid() -> None:
    check_mutants(500)


@pytest.mark.slow
def test_much_damaged_text_is_refused_or_valid() -> None:
    check_mutants(20_000)


@pytest.mark.slow
def test_a_long_chain_prints_and_parses() -> None:
    b = Builder()
    x = y = b.input(0, TensorType(f32, ()), "x")
    for _ in range(100_000):
        y = b.add(y, x)
    graph = Graph((x,), (y,))
    text = str(graph)
    assert text.count("\n") == 100_002
    assert str(parse_graph(text)) == text


def test_every_operator_is_reached_by_random_graphs() -> None:
    assert set(OPS) >= ELSEWHERE
    drawn: set[str] = set()
    for seed in range(3000):
        drawn |= {node.op for node in random_graph(seed, host=True).nodes}
        if drawn >= set(OPS) - ELSEWHERE:
            break
    assert drawn == set(OPS) - ELSEWHERE


def test_bool_and_integer_attributes_stay_apart() -> None:
    b = Builder()
    graph = Graph((), (b.constant(True, TensorType(boolean, ())), b.constant(1, TensorType(i32, ()))))
    assert "value = true" in str(graph)
    check_round_trip(graph)
