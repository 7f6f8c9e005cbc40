"""Elementwise functions that are written in other operators: one formula serves the compiler, which expands it, and the
reference, which runs it on arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.ir.node import AttrValue, Node
from graphc.ir.opdef import OPS, Attrs, OpDef, Vjp, register
from graphc.ir.ops.elementwise import infer_elementwise
from graphc.ir.sugar import OpMethods
from graphc.ir.types import DType, TensorType, f32, f64, i32, i64

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Formula = Callable[..., Node]
Table = Mapping[DType, Sequence[float]]


class Arrays(OpMethods):
    """Runs operators as they are applied, by their NumPy references."""

    def __init__(self) -> None:
        self.arrays: dict[Node, np.ndarray] = {}

    def given(self, array: np.ndarray, type: TensorType) -> Node:
        node = Node("input", (), (), type)
        self.arrays[node] = array
        return node

    def make(
        self, op: str, inputs: tuple[Node, ...], attrs: tuple[tuple[str, AttrValue], ...], type: TensorType
    ) -> Node:
        node = Node(op, inputs, attrs, type)
        self.arrays[node] = np.asarray(OPS[op].evaluate([self.arrays[i] for i in inputs], dict(attrs), type))
        return node

    def apply(self, op: str, inputs: tuple[Node, ...], attrs: dict[str, AttrValue] | None = None) -> Node:
        given = attrs or {}
        return self.make(op, inputs, tuple(given.items()), OPS[op].infer([i.type for i in inputs], given))


def _in_f32(formula: Formula) -> Formula:
    """`formula`, for 16-bit floats through f32."""

    def wide(b: OpMethods, *operands: Node) -> Node:
        dtype = operands[0].dtype
        if dtype.bits > 16:
            return formula(b, *operands)
        return b.cast(formula(b, *(b.cast(x, f32) for x in operands)), dtype)

    return wide


def composite(name: str, arity: int, formula: Formula, doc: str, *, vjp: Vjp | None = None, why: str = "") -> OpDef:
    """Register a function of float elements; `formula(b, *operands)` sees f32 or f64."""
    wide = _in_f32(formula)

    def evaluate(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
        b = Arrays()
        return b.arrays[wide(b, *(b.given(a, type) for a in arrays))]

    def decompose(b: Builder, node: Node) -> Node:
        return wide(b, *node.inputs)

    return register(
        OpDef(
            name=name,
            kind="composite",
            arity=arity,
            doc=doc,
            infer=infer_elementwise(name, arity, "float"),
            evaluate=evaluate,
            vjp=vjp,
            why_no_vjp=why,
            decompose=decompose,
        )
    )


# what formulas share


def horner(b: OpMethods, x: Node, table: Table | Sequence[float]) -> Node:
    """`c0 + c1*x + c2*x**2 + ...`, with the coefficients of the dtype of `x`."""
    coefficients = table[x.dtype] if isinstance(table, Mapping) else table
    result = b.constant(coefficients[-1], x.type)
    for c in reversed(coefficients[:-1]):
        result = b.add(b.mul(result, x), c)
    return result


def below(b: OpMethods, x: Node, y: Node | float) -> Node:
    return b.elementwise("lt", x, y)


def above(b: OpMethods, x: Node, y: Node | float) -> Node:
    return b.elementwise("gt", x, y)


def equal(b: OpMethods, x: Node, y: Node | float) -> Node:
    return b.elementwise("eq", x, y)


def choose(b: OpMethods, condition: Node, x: Node | float, y: Node | float, like: Node) -> Node:
    """`x` where `condition`, else `y`; numbers become constants of the type of `like`."""
    made = [v if isinstance(v, Node) else b.constant(v, like.type) for v in (x, y)]
    return b.apply("select", (condition, *made))


def magnitude(b: OpMethods, x: Node) -> Node:
    return b.elementwise("abs", x)


def bits_of(b: OpMethods, x: Node) -> Node:
    """The bits of f32 or f64 elements as integers."""
    return b.apply("bitcast", (x,), {"dtype": i64 if x.dtype is f64 else i32})


def signed_as(b: OpMethods, size: Node, x: Node) -> Node:
    """`size`, which has no sign, with the sign of `x`."""
    bits = bits_of(b, x)
    sign = b.elementwise("bitwise_and", bits, -(1 << (x.dtype.bits - 1)))
    return b.apply("bitcast", (b.elementwise("bitwise_or", bits_of(b, size), sign),), {"dtype": x.dtype})


def is_negative(b: OpMethods, x: Node) -> Node:
    """Whether the sign bit is set."""
    return below(b, bits_of(b, x), 0)


def upper_half(b: OpMethods, x: Node) -> Node:
    """`x` with so many low bits cleared that its square is exact."""
    kept = b.elementwise("bitwise_and", bits_of(b, x), -(1 << (27 if x.dtype is f64 else 12)))
    return b.apply("bitcast", (kept,), {"dtype": x.dtype})
