"""A graph for all sizes, made of those for two of them, does what each of them does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, boolean, f32, f64, i32, i64
from graphc.rooms import sizes_of, with_room

Emit = Callable[..., Node]
ROOM = 16


def dims(text: str, **sizes: int) -> tuple[int, ...]:
    return tuple(sizes[d] if d in sizes else int(d) for d in text.split())


def graph_of(emit: Emit, operands: Sequence[tuple[str, DType]], **sizes: int) -> Graph:
    b = Builder()
    inputs = tuple(b.input(i, TensorType(dtype, dims(text, **sizes))) for i, (text, dtype) in enumerate(operands))
    return Graph(inputs, (emit(b, *inputs),))


def values(types: Sequence[TensorType], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    made = []
    for type in types:
        if type.dtype.is_float:
            made.append((rng.standard_normal(type.shape) - 2).astype(type.dtype.numpy))  # -2: most are below 0
        else:
            made.append(rng.integers(-3, 4, type.shape).astype(type.dtype.numpy))
    return made


def softmax(b: Builder, x: Node) -> Node:
    top = b.reduce_max(x, (1,))
    powers = b.exp(b.sub(x, b.expand_dims(top, (1,), x.shape)))
    return b.div(powers, b.expand_dims(b.reduce_sum(powers, (1,)), (1,), x.shape))


def attention(b: Builder, q: Node, k: Node, v: Node) -> Node:
    return b.contract(softmax(b, b.contract(q, k, "l e, s e -> l s")), v, "l s, s f -> l f")


def mean(b: Builder, x: Node) -> Node:
    return b.div(b.reduce_sum(x, (0,)), b.constant(x.shape[0], TensorType(x.dtype, x.shape[1:])))


def causal(b: Builder, x: Node) -> Node:
    index = x.type.with_dtype(i32)
    return b.select(b.apply("le", (b.iota(1, index), b.iota(0, index))), x, -np.inf)


def whole(b: Builder, x: Node, step: int) -> Node:
    start = (0, 0) if step > 0 else (x.shape[0] - 1, 0)
    return b.slice(x, start, (x.shape[0], 2), (step, 1))


def arg(op: str, *axes: int) -> Emit:
    return lambda b, x: b.apply(op, (x,), {"axes": axes, "dtype": i64})


def scan(op: str, axis: int, reverse: bool) -> Emit:
    return lambda b, x: b.apply(op, (x,), {"axis": axis, "reverse": reverse})


def flat(b: Builder, x: Node) -> Node:
    return b.reshape(x, (x.type.size,))


def rows_by_rows(b: Builder, x: Node, y: Node) -> Node:
    rows = [b.exp(b.reshape(each, (each.shape[0] * each.shape[1], each.shape[2]))) for each in (x, y)]
    return b.contract(*rows, "m a, m c -> a c")


def two_orders(b: Builder, x: Node, y: Node) -> Node:
    one = b.constant(1.0, flat(b, x).type)
    return b.add(*(b.reduce_sum(b.exp(b.sub(one, flat(b, each))), (0,)) for each in (x, y)))


def convolution(b: Builder, x: Node, w: Node) -> Node:
    return b.contract(b.pad(b.exp(x), (0, 0, 1), (0, 0, 1)), w, "n c h+r, o c r -> n o h")


def weights(b: Builder, x: Node, y: Node) -> Node:
    return b.contract(b.pad(b.exp(x), (0, 0, 1), (0, 0, 1)), b.exp(y), "n c h+r, n o h -> o c r")


def bits(word: int) -> Emit:
    return lambda b, key, x: b.random_bits(key, x.type.with_dtype(i32), word)


def ordered(op: str, descending: bool = False, axis: int = 0) -> Emit:
    return lambda b, x: b.apply(op, (x,), {"axis": axis, "descending": descending})


def back_to_joined(b: Builder, x: Node, y: Node) -> Node:
    joined = b.concat((x, y, b.constant(3.0, TensorType(f32, (2, 3)))), 0)
    return b.reduce_sum(b.mul(b.pad(b.exp(y), (x.shape[0], 0), (2, 0), None, 2.0), joined), (0,))


def normal_numbers(b: Builder, key: Node, x: Node) -> Node:
    return b.random_normal(key, x.type)


X = [("n 3", f32)]
TOLD: dict[str, tuple[Emit, list[tuple[str, DType]]]] = {
    "softmax": (softmax, [("3 n", f32)]),
    "softmax over what stays": (softmax, X),
    "attention": (attention, [("2 4", f32), ("n 4", f32), ("n 5", f32)]),
    "attention of itself": (attention, [("n 4", f32), ("n 4", f32), ("n 5", f32)]),
    "attention of two sizes": (attention, [("m 4", f32), ("n 4", f32), ("n 5", f32)]),
    "mean": (mean, X),
    "mean of all": (
        lambda b, x: b.div(b.reduce_sum(x, (0, 1)), b.constant(x.type.size, TensorType(f32, ()))),
        X,
    ),
    "mean over two sizes": (
        lambda b, x: b.div(b.reduce_sum(x, (0, 1, 2)), b.constant(x.type.size, TensorType(f32, ()))),
        [("n m 3", f32)],
    ),
    "degrees of freedom": (
        lambda b, x: b.div(b.reduce_sum(x, (0,)), b.constant(x.shape[0] - 1, TensorType(f32, (3,)))),
        X,
    ),
    "least index": (
        lambda b, i, x: b.apply("lt", (i, b.constant(-x.shape[0], i.type))),
        [("m", i64), ("n", f32)],
    ),
    "causal": (lambda b, x: softmax(b, causal(b, x)), [("n n", f32)]),
    "product": (lambda b, x: b.apply("reduce_prod", (x,), {"axes": (0,)}), X),
    "largest": (lambda b, x: b.reduce_max(x, (0,)), X),
    "largest of all": (lambda b, x: b.reduce_max(x, (0, 1)), X),
    "largest integer": (lambda b, x: b.reduce_max(x, (0,)), [("n 3", i64)]),
    "least": (lambda b, x: b.apply("reduce_min", (b.neg(x),), {"axes": (0,), "ties": "even"}), X),
    "any": (lambda b, x: b.reduce_max(b.apply("lt", (x, b.zeros_like(x))), (0,)), X),
    "all": (lambda b, x: b.apply("reduce_min", (b.apply("lt", (x, x)),), {"axes": (0,), "ties": "even"}), X),
    "argmax": (arg("argmax", 0), X),
    "argmin": (arg("argmin", 0), [("n 3", i64)]),
    "infinite factors": (
        lambda b, x, y: b.contract(b.log(b.apply("abs", (x,))), b.exp(y), "n a, n c -> a c"),
        [("n 3", f32), ("n 2", f32)],
    ),
    "one factor changes": (lambda b, x, y: b.contract(x, y, "n a, a c -> n c"), [("n 3", f32), ("3 4", f32)]),
    "batches": (lambda b, x, y: b.contract(x, y, "n a b, n b c -> n a c"), [("n 2 3", f32), ("n 3 4", f32)]),
    "moved": (lambda b, x: b.reduce_sum(b.permute(x, (2, 0, 1)), (1, 2)), [("2 n 3", f32)]),
    "reshaped": (lambda b, x: b.reduce_sum(b.reshape(x, (2, 2, x.shape[1], 3)), (2,)), [("4 n 3", f32)]),
    "repeated": (lambda b, x, y: b.add(b.broadcast(x, y.shape), y), [("3", f32), ("n 3", f32)]),
    "repeated and summed": (lambda b, x, y: b.reduce_sum(b.mul(b.broadcast(x, y.shape), b.exp(y)), (0,)),
                            [("1 3", f32), ("n 3", f32)]),
    "repeated sums": (
        lambda b, x, y: b.add(b.reduce_sum(b.broadcast(x, y.shape), (0,)), b.reduce_sum(y, (0,))),
        [("1 3", f32), ("n 3", f32)],
    ),
    "repeated alone": (
        lambda b, x, y: b.contract(b.broadcast(x, y.shape), y, "n a, n a -> a"),
        [("1 3", f32), ("n 3", f32)],
    ),
    "index": (lambda b, x: b.add(x, b.cast(b.iota(0, x.type.with_dtype(i64)), f32)), X),
    "part": (lambda b, x: whole(b, x, 1), X),
    "ends": (lambda b, x: b.pad(x, (0, 1), (0, 2)), X),
    "beside": (lambda b, x, y: b.concat((x, y), 1), [("n 3", f32), ("n 2", f32)]),
    "picked rows": (lambda b, x, i: b.apply("gather", (x, i), {"axis": 0}), [("5 3", f32), ("n", i64)]),
    "sums": (scan("scan_sum", 0, False), X),
    "sums from the end": (scan("scan_sum", 0, True), X),
    "largest from the end": (lambda b, x: scan("scan_max", 0, True)(b, b.sub(x, 9.0)), X),
    "products from the end": (scan("scan_prod", 0, True), X),
    "largest so far": (scan("scan_max", 0, False), X),
    "sums back along what stays": (scan("scan_sum", 1, True), X),
    "sorted": (lambda b, x: b.apply("sort", (x,), {"axis": 1, "descending": False}), X),
    "select": (lambda b, c, x: b.select(c, x, 0.0), [("n 3", boolean), ("n 3", f32)]),
    "flat": (lambda b, x: b.reduce_sum(b.exp(flat(b, x)), (0,)), X),
    "flat within": (lambda b, x: b.reduce_max(b.sub(flat(b, x), 9.0), (0,)), [("4 n", f32)]),
    "largest of what is flat": (lambda b, x: arg("argmax", 0)(b, flat(b, x)), X),
    "sums of what is flat": (lambda b, x: b.reshape(scan("scan_sum", 0, False)(b, flat(b, x)), x.shape), X),
    "products of what is flat": (rows_by_rows, [("4 n 3", f32), ("4 n 2", f32)]),
    "taken apart": (lambda b, x: b.reduce_sum(b.reshape(b.exp(flat(b, x)), (2, 2, x.shape[1])), (1,)), [("4 n", f32)]),
    "flat of two sizes": (lambda b, x: b.reduce_sum(b.exp(flat(b, x)), (0,)), [("n m", f32)]),
    "flat in two orders": (two_orders, [("4 n", f32), ("n 4", f32)]),
    "places in what is flat": (
        lambda b, x: b.reshape(b.add(flat(b, x), b.iota(0, flat(b, x).type)), x.shape),
        [("4 n", f32)],
    ),
    "zeros that are flat": (
        lambda b, x: b.add(b.reduce_sum(b.constant(2.0, flat(b, x).type), (0,)), b.reduce_sum(flat(b, x), (0,))),
        [("4 n", f32)],
    ),
    "rows added": (
        lambda b, x, i, y: b.apply("index_add", (x, i, b.exp(y)), {"axis": 0}),
        [("5 3", f32), ("2 n", i64), ("2 n 3", f32)],
    ),
    "convolution": (convolution, [("2 3 n", f32), ("4 3 3", f32)]),
    "weights of a convolution": (weights, [("2 3 n", f32), ("2 4 n", f32)]),
    "padded and cut": (lambda b, x: b.slice(b.pad(b.exp(x), (1, 0), (2, 0)), (1, 0), x.shape, (1, 1)), X),
    "all but the last": (lambda b, x: b.reduce_sum(b.slice(x, (0, 0), (x.shape[0] - 1, 3), (1, 1)), (0,)), X),
    "all but the first": (lambda b, x: b.reduce_sum(b.slice(x, (1, 0), (x.shape[0] - 1, 3), (1, 1)), (0,)), X),
    "the first": (lambda b, x: b.slice(b.exp(x), (0, 1), (1, 2), (1, 1)), X),
    "the last": (lambda b, x: b.slice(b.exp(x), (x.shape[0] - 1, 1), (1, 2), (1, 1)), X),
    "the last column": (lambda b, x: b.slice(b.exp(x), (0, x.shape[1] - 1), (3, 1), (1, 1)), [("3 n", f32)]),
    "the last corner": (
        lambda b, x: b.slice(b.exp(x), (x.shape[0] - 1, x.shape[1] - 1), (1, 1), (1, 1)),
        [("n m", f32)],
    ),
    "back to the first": (lambda b, x, y: b.add(b.pad(b.exp(x), (0, 0), (y.shape[0] - 1, 0)), y),
                          [("1 3", f32), ("n 3", f32)]),
    "back to the last": (lambda b, x, y: b.reduce_sum(b.exp(b.pad(b.exp(x), (y.shape[0] - 1, 0), (0, 0))), (0,)),
                         [("1 3", f32), ("n 3", f32)]),
    "to what is not zero": (
        lambda b, x, y: b.reduce_max(b.pad(b.sub(x, 9.0), (0, 0), (y.shape[0] - 1, 0), None, -8.0), (0,)),
        [("1 3", f32), ("n 3", f32)],
    ),
    "of what is padded": (lambda b, x: b.reduce_max(b.pad(b.sub(x, 9.0), (1, 0), (2, 0), None, -8.0), (0,)), X),
    "reversed": (lambda b, x: whole(b, b.exp(x), -1), X),
    "sorted along a size": (ordered("sort"), X),
    "sorted downwards": (ordered("sort", True), X),
    "sorted integers": (ordered("sort"), [("n 3", i64)]),
    "integers downwards": (ordered("sort", True), [("n 3", i64)]),
    "order": (ordered("argsort"), [("n 3", i64)]),
    "order downwards": (ordered("argsort", True), [("n 3", i64)]),
    "the largest": (
        lambda b, x: b.apply("argselect", (x,), {"axis": 0, "descending": True, "start": 0, "count": 1}),
        X,
    ),
    "places of what is sorted": (
        lambda b, x, y: b.apply("searchsorted", (ordered("sort")(b, x), y), {"right": True}),
        [("n", f32), ("5", f32)],
    ),
    "places before equals": (
        lambda b, x, y: b.apply("searchsorted", (ordered("sort", axis=1)(b, x), y), {"right": False}),
        [("2 n", i64), ("2 5", i64)],
    ),
    "rows of a size": (lambda b, x, i: b.apply("gather", (b.exp(x), i), {"axis": 0}), [("n 3", f32), ("2", i64)]),
    "rows by two sizes": (
        lambda b, x, i: b.apply("gather", (b.exp(x), i), {"axis": 1}),
        [("2 n 3", f32), ("m 2", i32)],
    ),
    "rows of what is flat": (
        lambda b, x, i: b.apply("gather", (b.exp(flat(b, x)), i), {"axis": 0}),
        [("4 n", f32), ("m", i64)],
    ),
    "elements of a size": (
        lambda b, x, i: b.apply("take_along", (b.exp(x), i), {"axis": 0}),
        [("n 3", f32), ("m 3", i64)],
    ),
    "elements of each row": (lambda b, x, i: b.apply("take_along", (x, i), {"axis": 1}), [("n 3", f32), ("n 1", i64)]),
    "rows added to a size": (
        lambda b, x, i, y: b.reduce_sum(b.apply("index_add", (x, i, b.exp(y)), {"axis": 0}), (0,)),
        [("n 3", f32), ("m", i64), ("m 3", f32)],
    ),
    "integers added to a size": (
        lambda b, x, i, y: b.apply("index_add", (x, i, b.add(y, 1)), {"axis": 1}),
        [("2 n", i64), ("m", i64), ("2 m", i64)],
    ),
    "elements added": (
        lambda b, x, i, y: b.apply("scatter_add", (x, i, b.exp(y)), {"axis": 0}),
        [("n m", f32), ("4 m", i64), ("4 m", f32)],
    ),
    "elements added to what stays": (
        lambda b, x, i, y: b.apply("scatter_add", (x, i, b.exp(y)), {"axis": 1}),
        [("2 5", f32), ("2 n", i64), ("2 n", f32)],
    ),
    **{
        f"{mode} at places": (
            lambda b, x, i, y, mode=mode: b.apply("scatter_reduce", (x, i, b.exp(y)), {"axis": 0, "mode": mode}),
            [("n 3", f32), ("m 3", i64), ("m 3", f32)],
        )
        for mode in ("prod", "max", "min")
    },
    **{
        f"stored by {op}": (
            lambda b, x, i, y, op=op: b.apply(op, (x, i, b.exp(y)), {"axis": 0}),
            [("n 3", f32), ("m" if op == "index_set" else "m 3", i64), ("m 3", f32)],
        )
        for op in ("index_set", "scatter_set")
    },
    "stored in what stays": (
        lambda b, x, i, y: b.apply("index_set", (x, i, b.exp(y)), {"axis": 1}),
        [("2 5 3", f32), ("n 2", i64), ("2 n 2 3", f32)],
    ),
    "three of them stored": (
        lambda b, x, i, y: b.apply("index_set", (x, i, b.exp(y)), {"axis": 0}),
        [("n m", f32), ("3", i64), ("3 m", f32)],
    ),
    "joined and summed": (lambda b, x, y: b.reduce_sum(b.concat((b.exp(x), y), 0), (0,)), [("n 3", f32), ("m 3", f32)]),
    "joined": (lambda b, x: b.concat((x, x), 0), X),
    "longer": (lambda b, x: b.pad(x, (1, 0), (0, 0)), X),
    "shorter": (lambda b, x: b.slice(x, (0, 0), (x.shape[0] - 1, 3), (1, 1)), X),
    "one before all": (
        lambda b, x, y: softmax(b, b.concat((y, b.exp(x)), 1)),
        [("3 n", f32), ("3 1", f32)],
    ),
    "joined and parted": (
        lambda b, x, y, z: b.add(b.slice(b.exp(b.concat((x, y, z), 0)), (x.shape[0], 0), y.shape, (1, 1)), y),
        [("n 3", f32), ("m 3", f32), ("2 3", f32)],
    ),
    "the last of three": (
        lambda b, x, y, z: b.slice(b.concat((x, y, z), 0), (x.shape[0] + y.shape[0], 0), z.shape, (1, 1)),
        [("n 3", f32), ("m 3", f32), ("2 3", f32)],
    ),
    "back to what was joined": (back_to_joined, [("n 3", f32), ("m 3", f32)]),
    **{f"bits {word}": (bits(word), [("2", i64), ("3 n 2 m", f32)]) for word in (0, 1, 2)},
    **{f"normal numbers {dtype}": (normal_numbers, [("2", i64), ("3 n 2 m", dtype)]) for dtype in (f32, f64)},
}  # fmt: skip


def with_zeros(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    made = np.zeros(shape, array.dtype)
    made[tuple(map(slice, array.shape))] = array
    return made


def in_one_piece(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Behind the elements is what must not get into anything."""
    made = np.full(np.prod(shape), np.nan if array.dtype.kind == "f" else 1 << 20, array.dtype)
    made[: array.size] = array.reshape(-1)
    return made.reshape(shape)


@pytest.mark.parametrize("packed", (False, True), ids=("with zeros", "packed"))
@pytest.mark.parametrize("what", TOLD)
def test_it_does_what_each_does(what: str, packed: bool) -> None:
    emit, operands = TOLD[what]
    first, second = (graph_of(emit, operands, n=n, m=m) for n, m in ((4, 9), (7, 3)))
    pairs = sizes_of([node.type for node in first.inputs], [node.type for node in second.inputs])
    roomy = with_room(first, second, dict.fromkeys(pairs, ROOM), packed)
    assert roomy is not None
    assert all(ROOM in node.shape for node, old in zip(roomy.inputs, first.inputs, strict=False) if max(old.shape) > 5)
    for n, m in ((1, 2), (2, 1), (4, 9), (11, 16), (16, 5)):
        graph = graph_of(emit, operands, n=n, m=m)
        arrays = values([node.type for node in graph.inputs], n)
        (wanted,) = evaluate(graph, arrays)
        place = in_one_piece if packed else with_zeros
        given = [place(array, node.shape) for array, node in zip(arrays, roomy.inputs, strict=False)]
        now = {4: n, 9: m}
        sizes = [np.array(now[a], np.int32) for a, _ in pairs]
        (got,) = evaluate(roomy, [*given, *sizes])
        found = got.reshape(-1)[: wanted.size].reshape(wanted.shape) if packed else got[tuple(map(slice, wanted.shape))]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


NOT_TOLD: dict[str, tuple[Emit, list[tuple[str, DType]]]] = {
    "sums from the end of what is flat": (
        lambda b, x: b.reshape(scan("scan_sum", 0, True)(b, flat(b, x)), x.shape),
        [("4 n", f32)],
    ),
    "every other one": (lambda b, x: b.slice(x, (0, 0), ((x.shape[0] + 1) // 2, 3), (2, 1)), X),
    "what is flat joined": (
        lambda b, x, y: b.reduce_sum(b.concat((flat(b, x), y), 0), (0,)),
        [("4 n", f32), ("2", f32)],
    ),
    "what is flat sorted": (lambda b, x: b.reshape(ordered("sort")(b, flat(b, x)), x.shape), [("4 n", f32)]),
    "a flat result": (lambda b, x: b.reshape(x, (3 * x.shape[0],)), X),
    "where of what is flat": (lambda b, x: arg("argmax", 0)(b, flat(b, x)), [("4 n", f32)]),
    "sums of what is flat within": (
        lambda b, x: b.reshape(scan("scan_sum", 0, False)(b, flat(b, x)), x.shape),
        [("4 n", f32)],
    ),
    "two orders at once": (
        lambda b, x, y: b.reduce_sum(b.add(flat(b, x), flat(b, y)), (0,)),
        [("4 n", f32), ("n 4", f32)],
    ),
    "a size taken apart": (lambda b, x: b.reduce_sum(b.reshape(x, (3, x.shape[0])), (1,)), X),
    "one in the middle": (lambda b, x: b.slice(x, (x.shape[0] // 2, 0), (1, 3), (1, 1)), X),
    "a number of the size": (lambda b, x: b.mul(x, 1.0 / x.shape[0]), X),
    "a square of the size": (lambda b, x: b.mul(x, float(x.shape[0] ** 2)), X),
    "another graph": (lambda b, x: b.exp(x) if x.shape[0] > 5 else b.neg(x), X),
    "another order": (lambda b, x: b.sub(x, b.exp(x)) if x.shape[0] > 5 else b.sub(b.exp(x), x), X),
    "another attribute": (lambda b, x: b.reduce_sum(x, (int(x.shape[0] > 5),)), [("n n", f32)]),
    "where of all": (arg("argmax", 0, 1), X),
    "summed alone": (lambda b, x, y: b.contract(x, y, "n a, a c -> c"), [("n 3", f32), ("3 4", f32)]),
    "windows": (lambda b, x: b.window(x, (0,), (2,), (1,), (1,)), X),
    "fewer elements than rows": (
        lambda b, x, i: b.apply("take_along", (x, i), {"axis": 0}),
        [("3 n", f32), ("2 3", i64)],
    ),
}


@pytest.mark.parametrize("what", NOT_TOLD)
def test_it_is_not_told_of_what_goes_along_a_size(what: str) -> None:
    emit, operands = NOT_TOLD[what]
    first, second = (graph_of(emit, operands, n=n) for n in (4, 7))
    pairs = sizes_of([node.type for node in first.inputs], [node.type for node in second.inputs])
    assert pairs == ((4, 7),)
    assert with_room(first, second, {(4, 7): ROOM}) is None


def test_a_size_that_no_operand_has_is_not_told() -> None:
    def emit(b: Builder, x: Node) -> Node:
        return b.constant(1.0, TensorType(f32, (x.shape[0] + 1,)))

    first, second = (graph_of(emit, X, n=n) for n in (4, 7))
    assert with_room(first, second, {(4, 7): ROOM}) is None
