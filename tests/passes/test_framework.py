"""Passes as objects: their text form, what they require, how they run, and the small passes."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, is_dataclass

import numpy as np
import pytest

from graphc.errors import CompileError, GraphcError, VerifyError
from graphc.ir import OPS, Builder, Graph, Node, TensorType, evaluate, parse_graph, verify
from graphc.ir.types import boolean, f32, i32, i64
from graphc.passes.base import PRIMITIVE, Pass, run_passes
from graphc.passes.decompose import Decompose
from graphc.passes.registry import PASSES, parse_pipeline, pass_class
from graphc.passes.simplify import Simplify, StripDetach
from tests.fuzz.graphs import error_bounds, random_graph, random_inputs

X = TensorType(f32, (4,))
DETACHED = "graph @main(%x: f32[4]) { %1 = exp %x %2 = detach %1 %3 = detach %2 %4 = add %1, %3 return %4, %3 }"


@dataclass(frozen=True)
class Probe(Pass):
    """Options of every kind."""

    name = "probe"
    doc = "does nothing"
    requires = (PRIMITIVE,)

    flag: bool = False
    count: int = 3
    ratio: float = 0.5
    label: str = "none"

    def run(self, graph: Graph) -> Graph:
        return graph


@dataclass(frozen=True)
class Break(Pass):
    """Makes a graph that breaks a rule."""

    name = "break"
    doc = "breaks the graph"

    def run(self, graph: Graph) -> Graph:
        wrong = Node("exp", (graph.inputs[0],), (), TensorType(f32, (5,)))
        return Graph(graph.inputs, (wrong,))


@dataclass(frozen=True)
class Promise(Pass):
    """Promises what it does not do."""

    name = "promise"
    doc = "does nothing"
    ensures = (PRIMITIVE,)

    def run(self, graph: Graph) -> Graph:
        return graph


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PASSES, "probe", f"{__name__}:Probe")


def random_key_graph() -> Graph:
    b = Builder()
    key = b.input(0, TensorType(i64, (2,)), "key")
    return Graph((key,), (b.random_bits(key, TensorType(i32, (3, 5))),))


@pytest.mark.parametrize("name", PASSES)
def test_registered_passes_are_whole(name: str) -> None:
    kind = pass_class(name)
    assert issubclass(kind, Pass)
    assert is_dataclass(kind)
    assert kind.name == name
    assert kind.doc
    assert "\n" not in kind.doc
    assert kind.run is not Pass.run
    made = kind()
    assert [getattr(made, f.name) for f in fields(kind)] == [f.default for f in fields(kind)]
    assert parse_pipeline(name) == [made]


@pytest.mark.usefixtures("probe")
def test_pipelines_are_text() -> None:
    text = "strip_detach, probe{flag=true,count=-2, ratio=1e-3,label=a b},simplify"
    passes = parse_pipeline(text)
    assert passes == [StripDetach(), Probe(True, -2, 1e-3, "a b"), Simplify()]
    assert parse_pipeline(",".join(map(str, passes))) == passes
    assert parse_pipeline("probe{flag}") == [Probe(flag=True)]
    assert parse_pipeline("probe{flag=True},probe{flag=False}") == [Probe(flag=True), Probe(flag=False)]
    assert parse_pipeline("strip-detach") == [StripDetach()]
    assert parse_pipeline("") == []
    assert str(Probe()) == "probe"


@pytest.mark.usefixtures("probe")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("simplfy", r"no pass 'simplfy'; did you mean simplify\? \(passes: channels_last, decompose, "),
        ("simplify{fast=true}", "pass simplify has no option 'fast'; its options are: no_signed_zeros=False"),
        ("decompose{x=1}", "pass decompose has no option 'x'; its options are: none"),
        ("probe{count=many}", "option count of pass probe wants a whole number, not 'many'"),
        ("probe{flag=1}", "option flag of pass probe wants true or false, not '1'"),
        ("probe{count=1,count=2}", "option count of pass probe is given twice"),
        ("simplify,", "cannot read the pass list"),
        ("simplify;decompose", "cannot read the pass list 'simplify;decompose' at 'simplify;decompose'"),
        ("simplify{no_nans=true", "cannot read the pass list"),
    ],
)
def test_pipeline_errors_list_what_exists(text: str, message: str) -> None:
    with pytest.raises(GraphcError, match=message):
        parse_pipeline(text)


def test_observer_sees_every_pass() -> None:
    graph = parse_graph(DETACHED)
    seen: list[tuple[str, bool]] = []

    def observe(step: Pass, before: Graph, after: Graph, seconds: float) -> None:
        seen.append((str(step), before is after))

    result = run_passes(graph, [Decompose(), StripDetach(), Simplify(no_nans=True)], verify_each=True, observer=observe)
    assert seen == [("decompose", True), ("strip_detach", False), ("simplify{no_nans=true}", True)]
    assert all(node.op != "detach" for node in result.nodes)


def test_a_missing_requirement_names_the_passes_before() -> None:
    graph = random_key_graph()
    with pytest.raises(CompileError, match=r"pass probe requires only primitive operators.*\(with no pass before it\)"):
        run_passes(graph, [Probe()])
    with pytest.raises(CompileError, match=r"\(after strip_detach, simplify\)"):
        run_passes(graph, [StripDetach(), Simplify(), Probe()])
    run_passes(graph, [Decompose(), Probe()], verify_each=True)


def test_verify_each_catches_a_pass_that_breaks_the_graph() -> None:
    graph = parse_graph(DETACHED)
    with pytest.raises(VerifyError, match="exp gives"):
        run_passes(graph, [Break()], verify_each=True)
    with pytest.raises(CompileError, match="pass promise promises only primitive operators"):
        run_passes(random_key_graph(), [Promise()], verify_each=True)


def test_strip_detach() -> None:
    result = StripDetach().run(parse_graph(DETACHED))
    assert str(result) == (
        "graph @main(%x: f32[4]) {\n  %1 = exp %x : f32[4]\n  %2 = add %1, %1 : f32[4]\n  return %2, %1\n}"
    )
    assert StripDetach().run(result) is result


def test_decompose_leaves_primitives_with_the_same_value() -> None:
    graph = random_key_graph()
    result = Decompose().run(graph)
    verify(result)
    assert all(OPS[node.op].kind != "composite" for node in result.nodes)
    for seed in (0, 1, -1, 2**62 + 12345):
        key = [np.array([seed, seed // 3], np.int64)]
        np.testing.assert_array_equal(evaluate(graph, key)[0], evaluate(result, key)[0])
    assert Decompose().run(result) is result


@pytest.mark.parametrize("text", ["decompose", "strip_detach", "simplify", "decompose,simplify,strip_detach,simplify"])
def test_random_graphs_keep_their_value(text: str) -> None:
    for seed in range(60):
        graph = random_graph(seed)
        result = run_passes(graph, parse_pipeline(text), verify_each=True)
        assert result.inputs == graph.inputs
        arrays = random_inputs(graph, seed)
        # The order of a contraction's sum is not fixed, and NumPy changes it with the order of the dimensions.
        sums = any(node.op == "contract" for node in graph.nodes)
        outputs = zip(evaluate(result, arrays), evaluate(graph, arrays), error_bounds(graph), strict=True)
        for got, want, bound in outputs:
            assert got.dtype == want.dtype
            if sums and want.dtype.kind == "f":
                np.testing.assert_allclose(got, want, rtol=0, atol=2 * bound, err_msg=f"seed {seed}")
                continue
            np.testing.assert_array_equal(got, want, err_msg=f"seed {seed}")
            if want.dtype.kind == "f":
                np.testing.assert_array_equal(np.signbit(got), np.signbit(want), err_msg=f"seed {seed}")


@pytest.mark.parametrize("name", ["decompose", "strip_detach", "simplify"])
def test_passes_are_idempotent_and_say_unchanged_by_identity(name: str) -> None:
    (step,) = parse_pipeline(name)
    for seed in range(60):
        result = step.run(random_graph(seed))
        assert step.run(result) is result


def test_source_lines_survive() -> None:
    graph = parse_graph("""
        graph @main(%x: f32[4]) {
          %1 = detach %x : f32[4] loc("net.py":1)
          %2 = neg %1 : f32[4] loc("net.py":2)
          %3 = neg %2 : f32[4] loc("net.py":3)
          %4 = exp %3 : f32[4] loc("net.py":4)
          return %4
        }
    """)
    (out,) = run_passes(graph, [StripDetach(), Simplify()], verify_each=True).outputs
    assert out.op == "exp"
    assert out.inputs == graph.inputs
    assert [str(at) for at in out.locs] == ["net.py:4"]


LONG = 5 * sys.getrecursionlimit()


def test_passes_do_not_recurse() -> None:
    b = Builder()
    x = y = b.input(0, X)
    for _ in range(LONG):
        y = b.elementwise("detach", b.neg(b.add(y, x)))
    graph = Graph((x,), (y,))
    result = run_passes(graph, [Decompose(), StripDetach(), Simplify()])
    assert len(result.nodes) == LONG + 2


def test_bool_constants_fold() -> None:
    b = Builder()
    true = b.constant(True, TensorType(boolean, (2,)))
    (out,) = Simplify().run(Graph((), (b.elementwise("bitwise_not", true),))).outputs
    assert out.attr("value") is False
