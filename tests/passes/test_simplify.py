"""The rewrite driver, and what simplification makes of whole graphs."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import CompileError
from graphc.ir import Builder, Graph, Node, TensorType, evaluate, parse_graph, verify
from graphc.ir.types import f32
from graphc.passes.autodiff import vjp
from graphc.passes.pattern import Rewriter, Rule, literal, match_pattern, op, var
from graphc.passes.rules import ALL_RULES
from graphc.passes.simplify import Simplify, rules_for

x, y = var("x"), var("y")


def simplified(text: str, **options: bool) -> str:
    graph = parse_graph(text)
    result = Simplify(**options).run(graph)
    verify(result)
    return str(result)


def body(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()[1:-1]]


def test_only_exact_rules_run_by_default() -> None:
    assert all(rule.exactness == "exact" for rule in rules_for(False, False, False))
    assert set(rules_for(True, True, True)) == set(ALL_RULES)
    text = (
        "graph @main(%x: f32[4]) { %1 = constant {value = 0.0} : f32[4] %2 = add %x, %1 %3 = mul %x, %1 return %2, %3 }"
    )
    assert "add" in simplified(text)
    assert "mul" in simplified(text)
    assert body(simplified(text, no_signed_zeros=True))[-1] == "return %x, %2"
    assert "mul" not in simplified(text, no_nans=True)


def test_reassociation_is_opt_in() -> None:
    text = "graph @main(%x: f32[2,3]) { %1 = reduce_sum %x {axes = [1]} %2 = reduce_sum %1 {axes = [0]} return %2 }"
    assert simplified(text).count("reduce_sum") == 2
    assert body(simplified(text, reassociates=True)) == ["%1 = reduce_sum %x {axes = [0,1]} : f32[]", "return %1"]


def test_rules_follow_each_other() -> None:
    text = """
        graph @main(%x: f32[2,3,1]) {
          %1 = permute %x {perm = [1,0,2]}
          %2 = permute %1 {perm = [1,0,2]}
          %3 = reshape %2 {shape = [6]}
          %4 = constant {value = 1.0} : f32[1]
          %5 = broadcast %4 {shape = [6]}
          %6 = mul %5, %3
          %7 = reshape %6 {shape = [2,3,1]}
          return %7
        }
    """
    assert body(simplified(text)) == ["return %x"]


def test_dead_and_equal_nodes_vanish() -> None:
    text = """
        graph @main(%x: f32[4], %y: f32[4]) {
          %2 = constant {value = 2.0} : f32[4]
          %3 = mul %2, %x
          %4 = mul %x, %2
          %5 = sub %3, %4
          %6 = exp %y
          return %5
        }
    """
    assert body(simplified(text)) == [
        "%2 = constant {value = 2.0} : f32[4]",
        "%3 = mul %x, %2 : f32[4]",
        "%4 = sub %3, %3 : f32[4]",
        "return %4",
    ]


def test_elementwise_moves_before_broadcast() -> None:
    text = """
        graph @main(%x: f32[4,1], %y: f32[4,1]) {
          %2 = broadcast %x {shape = [8,4,16]}
          %3 = broadcast %y {shape = [8,4,16]}
          %4 = add %2, %3
          %5 = exp %4
          return %5
        }
    """
    assert body(simplified(text)) == [
        "%2 = add %x, %y : f32[4,1]",
        "%3 = exp %2 : f32[4,1]",
        "%4 = broadcast %3 {shape = [8,4,16]} : f32[8,4,16]",
        "return %4",
    ]


def test_a_permuted_weight_joins_the_contraction() -> None:
    text = """
        graph @main(%x: f32[64,84], %w: f32[10,84]) {
          %2 = permute %w {perm = [1,0]}
          %3 = contract %x, %2 {spec = "m k, k n -> m n"}
          return %3
        }
    """
    assert body(simplified(text)) == ['%2 = contract %x, %w {spec = "m k, n k -> m n"} : f32[64,10]', "return %2"]


# relu and max pooling


def conv_relu_pool(size: int, stride: int, loss: bool = False) -> Graph:
    """relu(conv(x, w) + bias), max pooling, and the gradients for x, w and bias as autodiff makes them."""
    b = Builder()
    image, weight = b.input(0, TensorType(f32, (2, 1, 9, 9)), "x"), b.input(1, TensorType(f32, (3, 1, 3, 3)), "w")
    bias = b.input(2, TensorType(f32, (3,)), "bias")
    conv = b.contract(image, weight, "b c h+r w+s, o c r s -> b o h w")
    conv = b.add(conv, b.broadcast(b.reshape(bias, (3, 1, 1)), conv.shape))
    relu = b.select(b.elementwise("le", conv, 0.0), 0.0, conv)
    windows = b.window(relu, (2, 3), (size, size), (stride, stride), (1, 1))
    pooled = b.reduce_max(windows, (4, 5), "first")
    out = b.reduce_sum(pooled, (0, 1, 2, 3)) if loss else pooled
    ct = b.constant(1, out.type) if loss else b.input(3, out.type, "ct")
    gradients = vjp(b, [out], [ct], [image, weight, bias])
    inputs = (image, weight, bias) if loss else (image, weight, bias, ct)
    return Graph(inputs, (out, *(g for g in gradients if g is not None)))


def elements_of(graph: Graph, name: str) -> list[int]:
    return sorted(node.type.size for node in graph.nodes if node.op == name)


@pytest.mark.parametrize(("size", "stride", "loss"), [(2, 2, False), (2, 2, True), (3, 2, False), (3, 1, True)])
def test_relu_moves_behind_max_pooling(size: int, stride: int, loss: bool) -> None:
    graph = conv_relu_pool(size, stride, loss)
    assert len(graph.outputs) == 4
    rewriter = Rewriter(rules_for(False, False, False))
    result = rewriter.run(graph)
    verify(result)
    assert rewriter.counts["relu-before-max-pool"] == 1
    assert rewriter.counts["relu-mask-after-max-pool"] == 1
    # One comparison with zero, on the pooled values; the windows are those of the convolution itself.
    pooled = 2 * 3 * ((7 - size) // stride + 1) ** 2
    assert elements_of(result, "le") == [pooled]
    (windows,) = [node for node in result.nodes if node.op == "window" and node.type.rank == 6]
    assert windows.inputs[0].op == "add"
    assert len([node for node in result.nodes if node.op == "reduce_max"]) == 1
    rng = np.random.default_rng(0)
    for _ in range(3):
        # Small whole numbers: many ties, many zeros; every sum exact.
        arrays = [rng.integers(-2, 3, node.shape).astype(np.float32) for node in graph.inputs]
        for got, want in zip(evaluate(result, arrays), evaluate(graph, arrays), strict=True):
            np.testing.assert_array_equal(got, want)
            np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


# the driver


def test_patterns() -> None:
    b = Builder()
    a, c = b.input(0, TensorType(f32, (2,))), b.input(1, TensorType(f32, (2,)))
    assert match_pattern(x + x, b.add(a, c)) is None
    match = match_pattern(x + y, b.add(a, c))
    assert match is not None
    assert (match["x"], match["y"]) == (a, c)
    zero, minus = b.constant(0.0, a.type), b.constant(-0.0, a.type)
    assert match_pattern(literal(0), zero) is not None
    assert match_pattern(literal(0), minus) is None
    assert match_pattern(literal(-0.0), minus) is not None
    assert match_pattern(literal(-0.0), zero) is None
    assert match_pattern(op("reduce_sum", x, axes=(0,)), b.reduce_sum(a, (0,))) is not None
    assert match_pattern(op("reduce_max", x, ties="first"), b.reduce_max(a, (0,))) is None


def test_commutative_operators_match_in_both_orders() -> None:
    b = Builder()
    a = b.input(0, TensorType(f32, (2,)))
    rule = Rule("one", x * 1, x)
    assert rule.apply(b, b.mul(a, 1.0)) is a
    assert rule.apply(b, b.mul(1.0, a)) is a
    assert Rule("one", x - 1, x).apply(b, b.sub(1.0, a)) is None
    nested = Rule("nested", (x * 2) + (y * 3), x * y)
    assert len(nested.variants) == 8


def test_a_rule_that_changes_the_type_is_an_error() -> None:
    b = Builder()
    a = b.input(0, TensorType(f32, (2, 3)))
    rule = Rule("wrong", op("exp", x), lambda b, m: b.reshape(m["x"], (6,)))
    with pytest.raises(CompileError, match=r"rule wrong turned f32\[2,3\] into f32\[6\]"):
        rule.apply(b, b.exp(a))


@pytest.mark.parametrize(
    "rules",
    [
        (Rule("there", op("exp", x), op("log", x)), Rule("back", op("log", x), op("exp", x))),
        (Rule("grow", op("exp", x), op("exp", op("neg", op("exp", op("neg", x))))),),
    ],
    ids=["circle", "growth"],
)
def test_rules_without_an_end_are_an_error(rules: tuple[Rule, ...]) -> None:
    b = Builder()
    a = b.input(0, TensorType(f32, ()))
    with pytest.raises(CompileError, match="do not come to an end"):
        Rewriter(rules).run(Graph((a,), (b.exp(a),)))


def test_rules_see_what_rules_made() -> None:
    def double(b: Builder, m: object) -> Node:
        return b.neg(b.neg(b.neg(m["x"])))  # type: ignore[index]

    b = Builder()
    a = b.input(0, TensorType(f32, ()))
    rules = (Rule("make", op("exp", x), double), Rule("neg-neg", op("neg", -x), x))
    assert [n.op for n in Rewriter(rules).run(Graph((a,), (b.exp(a),))).nodes] == ["input", "neg"]


def test_unchanged_parts_stay_the_same_nodes() -> None:
    graph = parse_graph("""
        graph @main(%x: f32[4]) { %1 = exp %x %2 = neg %1 %3 = neg %2 %4 = sin %1 return %3, %4 }
    """)
    result = Simplify().run(graph)
    assert result.outputs[0] is graph.outputs[1].inputs[0]
    assert result.outputs[1] is graph.outputs[1]


def test_a_contraction_is_made_in_the_order_in_which_it_is_read() -> None:
    text = """
        graph @main(%x: f32[64,10], %y: f32[64,84]) {
          %2 = contract %x, %y {spec = "m n, m k -> n k"}
          %3 = permute %2 {perm = [1,0]}
          %4 = neg %3
          return %4
        }
    """
    assert body(simplified(text)) == [
        '%2 = contract %x, %y {spec = "m n, m k -> k n"} : f32[84,10]',
        "%3 = neg %2 : f32[84,10]",
        "return %3",
    ]
    graph = parse_graph(text)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-3, 4, node.shape).astype(np.float32) for node in graph.inputs]
    for got, want in zip(evaluate(Simplify().run(graph), arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_contraction_with_two_readers_is_computed_once() -> None:
    text = """
        graph @main(%x: f32[4,3], %y: f32[3,5]) {
          %2 = contract %x, %y {spec = "m k, k n -> m n"}
          %3 = permute %2 {perm = [1,0]}
          return %2, %3
        }
    """
    assert simplified(text).count("contract") == 1


def test_what_no_rule_changes_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simplifying runs the rules until nothing changes: each run looks only at what the one before made."""
    looked_at: list[Node] = []
    rewrite = Rewriter._rewrite

    def counted(self: Rewriter, builder: Builder, node: Node) -> Node:
        looked_at.append(node)
        return rewrite(self, builder, node)

    monkeypatch.setattr(Rewriter, "_rewrite", counted)
    result = Simplify().run(conv_relu_pool(3, 1, False))
    assert len(looked_at) == len(set(looked_at)) >= len(result.nodes)
    rewriter = Rewriter(rules_for(False, False, False))
    assert rewriter.run(result) is result
    looked_at.clear()
    assert rewriter.run(result) is result and not looked_at
