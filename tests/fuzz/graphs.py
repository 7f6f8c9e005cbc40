"""Random well-typed graphs, and inputs for them. The same seed always gives the same graph and the same inputs.

`error_bounds` (bounds.py) says how far a native result may be from the oracle `evaluate(graph, inputs, floats=f64)`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir import OPS, Graph, Node, TensorType
from graphc.ir.types import bf16, boolean, f16, f32, f64, i8, i16, i32, i64, u8
from graphc.ir.visit import topological
from tests.fuzz.attrs import random_shape
from tests.fuzz.bounds import error_bounds
from tests.fuzz.interval import Rejected, kind_of
from tests.fuzz.pool import MOST_ELEMENTS, Pool
from tests.fuzz.steps import HOST_STEPS, STEPS

__all__ = ["ELSEWHERE", "error_bounds", "random_graph", "random_inputs"]

_DTYPES = (*(f32,) * 8, *(f64,) * 4, f16, bf16, *(i32,) * 2, *(i64,) * 4, i16, i8, u8, u8, boolean, boolean)

_UNARY = {
    "float": ("neg", "abs", "sign", "exp", "exp2", "log", "log2", "log10", "log1p", "expm1", "sqrt", "sin", "cos",
              "tanh", "sigmoid", "erf", "floor", "ceil", "round", "trunc", "detach", "materialize"),
    "int": ("neg", "abs", "sign", "bitwise_not", "detach", "materialize"),
    "bool": ("bitwise_not", "detach", "materialize"),
}  # fmt: skip
_BINARY = {
    "float": ("add", "add", "sub", "mul", "mul", "div", "pow", "maximum", "minimum", "floor_divide", "remainder",
              "fmod"),
    "int": ("add", "sub", "mul", "maximum", "minimum", "floor_divide", "remainder", "fmod", "gcd", "pow",
            "bitwise_and", "bitwise_or",
            "bitwise_xor", "shift_left", "shift_right", "shift_right_logical"),
    "bool": ("bitwise_and", "bitwise_or", "bitwise_xor"),
}  # fmt: skip
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_MOVES = ("reshape", "permute", "broadcast", "slice", "pad", "window", "fold", "concat")
# Operators that random graphs do not draw: singular vectors and eigenvectors may turn their signs, and where values are
# close they are hardly determined. tests/ops/test_factorisations.py multiplies them out again. Packed factors, and
# polynomials that grow beyond all bounds with their degree, are compared with PyTorch (tests/samples, differential).
ELSEWHERE = frozenset(("svd", "eigh", "geqrf", "ldl", "ldl_solve", "orthogonal_polynomial", "rounded", "transfer"))
_REDUCTIONS = ("reduce_sum", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin")


def random_graph(seed: int, nodes: int = 60, host: bool = False) -> Graph:
    """A graph of at most about `nodes` nodes over all dtypes, with one to four outputs.

    With `host` it has operators that run on the host too, so it is not one compiled program.
    """
    return _Maker(random.Random(seed), nodes, host).graph()


def random_inputs(graph: Graph, seed: int) -> list[np.ndarray]:
    """Arrays for the inputs of `graph`.

    Floats are multiples of 1/8 in [-2, 2], so that ties, zeros of both signs and exact comparisons happen; integers
    are in [-100, 100] (u8: all values).
    """
    rng = np.random.default_rng(seed)
    return [_array(rng, node.type) for node in graph.inputs]


def _array(rng: np.random.Generator, type: TensorType) -> np.ndarray:
    if type.dtype.is_float:
        values = rng.integers(-16, 17, type.shape) / 8 * np.where(rng.random(type.shape) < 0.5, 1.0, -1.0)
        return np.asarray(values).astype(type.dtype.numpy)
    low, high = {"int": (-100, 101), "uint": (0, 256), "bool": (0, 2)}[type.dtype.kind]
    return np.asarray(rng.integers(low, high, type.shape)).astype(type.dtype.numpy)


class _Maker(Pool):
    """Grows a pool of nodes by random steps."""

    def __init__(self, rng: random.Random, nodes: int, host: bool) -> None:
        super().__init__(rng, host)
        self.most = rng.randint(3, nodes)

    def graph(self) -> Graph:
        rng = self.rng
        steps: list[tuple[Callable[[], Node | None], float]] = [
            (self.unary, 5), (self.binary, 7), (self.compare, 2), (self.choose, 2), (self.convert, 2), (self.move, 7),
            (self.reduce, 4), (self.contract, 3), (self.lookup, 2), (self.relu, 1), (self.pool_windows, 1),
            (self.softmax, 1), (self.random_bits, 1), (self.random_normal, 0.5),
            *((partial(step, self), weight) for step, weight in STEPS),
            *((partial(step, self), weight) for step, weight in HOST_STEPS if self.host),
        ]  # fmt: skip
        actions, weights = [s for s, _ in steps], [w for _, w in steps]
        for _ in range(rng.randint(1, 3)):
            self.input(TensorType(rng.choice(_DTYPES), random_shape(rng, MOST_ELEMENTS)))
        for _ in range(4 * self.most):
            if len(self.bounds) >= self.most:
                break
            try:
                made = rng.choices(actions, weights)[0]()
            except (Rejected, ShapeError, DTypeError):
                continue
            if made is not None and made not in self.pool:
                self.pool.append(made)
        return Graph(tuple(self.inputs), self.outputs())

    def outputs(self) -> tuple[Node, ...]:
        used = {operand for node in self.pool for operand in node.inputs}
        ends = [node for node in self.pool if node not in used]
        ends.sort(key=lambda node: len(topological((node,))), reverse=True)
        chosen = ends[: self.rng.randint(1, 4)]
        self.rng.shuffle(chosen)
        if self.rng.random() < 0.2:
            chosen.append(self.rng.choice(self.pool))
        return tuple(chosen)

    # steps

    def unary(self) -> Node:
        x = self.any()
        op = self.rng.choice(_UNARY[kind_of(x.dtype)])
        if op in ("log", "log2", "log10", "sqrt"):
            x = self.keep(self.builder.add(self.apply("abs", x), 0.5))
        return self.apply(op, x)

    def binary(self) -> Node:
        x = self.any()
        op = self.rng.choice(_BINARY[kind_of(x.dtype)])
        y = self.of_type(x.type)
        if x.dtype.is_float and op in ("div", "pow", "floor_divide", "remainder", "fmod"):
            positive = self.keep(self.builder.add(self.apply("abs", y), 1.0 if op == "div" else 0.5))
            return self.apply(op, positive, x) if op == "pow" else self.apply(op, x, positive)
        return self.apply(op, x, y) if self.rng.random() < 0.7 else self.apply(op, y, x)

    def compare(self) -> Node:
        x = self.any()
        return self.apply(self.rng.choice(_COMPARISONS), x, self.of_type(x.type))

    def choose(self) -> Node:
        x = self.any()
        return self.apply("select", self.of_type(x.type.with_dtype(boolean)), x, self.of_type(x.type))

    def convert(self) -> Node:
        return self.apply("cast", self.any())

    def move(self) -> Node:
        op = self.rng.choice(_MOVES)
        x = self.any()
        if op != "concat":
            return self.apply(op, x)
        axis = self.rng.randrange(max(x.type.rank, 1))
        others = [n for n in self.pool if n.dtype is x.dtype and n.type.rank == x.type.rank]
        others = [
            n for n in others if (*n.shape[:axis], *n.shape[axis + 1 :]) == (*x.shape[:axis], *x.shape[axis + 1 :])
        ]
        return self.apply("concat", x, *self.rng.choices(others, k=self.rng.randint(0, 2)), axis=axis)

    def reduce(self) -> Node:
        return self.apply(self.rng.choice(_REDUCTIONS), self.any())

    def contract(self) -> Node:
        x = self.any("float", "int")
        rank = self.rng.randint(0, min(4, x.type.rank + 1))
        shape = [self.rng.choice([*x.shape, 1, 2, 3]) for _ in range(rank)]
        return self.apply("contract", x, self.of_type(x.type.with_shape(tuple(shape))))

    def lookup(self) -> Node:
        x = self.any()
        axis = self.rng.randrange(max(x.type.rank, 1))
        adds = x.dtype is not boolean
        index_dtype = self.rng.choice([i32, i64])
        if adds and x.type.rank and self.rng.random() < 0.1:
            order = TensorType(index_dtype, (self.rng.randint(0, 6),))
            starts = order.with_shape((x.shape[axis] + 1,))
            source = x.type.with_shape((*x.shape[:axis], *order.shape, *x.shape[axis + 1 :]))
            return self.apply("segment_reduce", x, *map(self.of_type, (order, starts, source)), axis=axis)
        if self.rng.random() < 0.5:
            shape = random_shape(self.rng, 16)
            index = self.of_type(TensorType(index_dtype, shape))
            if self.rng.random() < 0.5:
                return self.apply("gather", x, index, axis=axis)
            source = x.type.with_shape((*x.shape[:axis], *shape, *x.shape[axis + 1 :]))
            op = "index_add" if adds and self.rng.random() < 0.5 else "index_set"
            return self.apply(op, x, index, self.of_type(source), axis=axis)
        along = tuple(
            self.rng.randint(1, 4) if i == axis else self.rng.randint(min(n, 1), n) for i, n in enumerate(x.shape)
        )
        index = self.of_type(TensorType(index_dtype, along))
        if self.rng.random() < 0.5:
            return self.apply("take_along", x, index, axis=axis)
        op = self.rng.choice(["scatter_add", "scatter_reduce", "scatter_set"]) if adds else "scatter_set"
        return self.apply(op, x, index, self.of_type(x.type.with_shape(along)), axis=axis)

    def relu(self) -> Node:
        x = self.any("float")
        b = self.builder
        return self.keep(b.select(b.elementwise("le", x, 0.0), 0.0, x))

    def pool_windows(self) -> Node:
        """Max pooling over relu, forwards; the gradient when an operand of its type is at hand."""
        x = self.relu()
        windows = self.apply("window", x)
        axes = tuple(range(x.type.rank, windows.type.rank))
        pooled = self.apply("reduce_max", windows, axes=axes, ties="first")
        if self.rng.random() < 0.5:
            return pooled
        rule, fold = OPS["reduce_max"].vjp, OPS["window"].vjp
        assert rule is not None and fold is not None
        (spread,) = rule(self.builder, pooled, self.of_type(pooled.type))
        assert spread is not None
        (back,) = fold(self.builder, windows, spread)
        assert back is not None
        mask = x.inputs[0]
        return self.keep(self.builder.select(mask, 0.0, back))

    def random_bits(self) -> Node:
        key = self.of_type(TensorType(i64, (2,)))
        return self.keep(
            self.builder.random_bits(key, TensorType(i32, random_shape(self.rng, 64)), self.rng.randrange(3))
        )

    def random_normal(self) -> Node:
        key = self.of_type(TensorType(i64, (2,)))
        type = TensorType(self.rng.choice((f32, f64)), random_shape(self.rng, 64))
        return self.keep(self.builder.random_normal(key, type))

    def softmax(self) -> Node:
        x = self.any("float")
        if not x.type.rank:
            raise Rejected
        axis = (self.rng.randrange(x.type.rank),)
        b = self.builder
        largest = self.apply("reduce_max", x, axes=axis, ties="even")
        powers = b.exp(b.sub(x, b.expand_dims(largest, axis, x.shape)))
        self.keep(powers)
        total = b.expand_dims(b.reduce_sum(powers, axis), axis, x.shape)
        return self.keep(b.div(powers, b.add(total, 1.0)))
