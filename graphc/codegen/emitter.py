"""Appends statements of the kernel IR."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.kernel import Number, Op, Stmt, Value, VType, result_type
from graphc.ir.types import DType, f32, f64


class Emitter:
    """Appends statements to a list and gives back their values. Numbers among operands become constants of the other
    operand's type.

    Scalars among vector operands are splatted.
    """

    def __init__(self) -> None:
        self._body: list[Stmt] = []

    @property
    def body(self) -> list[Stmt]:
        """The list that statements are appended to."""
        return self._body

    def const(self, value: Number, type: VType) -> Value:
        result = Value(type)
        self.body.append(Op(result, "const", (), value))
        return result

    def op(self, name: str, *operands: Value | Number, to: DType | None = None) -> Value:
        """`name(operands)`; `to` is the result dtype of `cast` and `bitcast`."""
        args = self._unify(name, operands)
        result = Value(result_type(name, args, to))
        self.body.append(Op(result, name, args))
        return result

    def splat(self, value: Value, lanes: int) -> Value:
        """`value` as a vector of `lanes` lanes; `value` itself when it is one already."""
        if value.type.lanes == lanes:
            return value
        result = Value(VType(value.type.dtype, lanes))
        self.body.append(Op(result, "splat", (value,)))
        return result

    def lanes(self, dtype: DType, count: int) -> Value:
        result = Value(VType(dtype, count))
        self.body.append(Op(result, "lanes"))
        return result

    def part(self, value: Value, first: int, count: int) -> Value:
        """`count` lanes of a vector from number `first` on; the vector itself when these are all."""
        if count == value.type.lanes:
            return value
        result = Value(VType(value.type.dtype, count))
        self.body.append(Op(result, "extract", (value,), first))
        return result

    def splice(self, first: Value, second: Value, number: int) -> Value:
        """The lanes of two vectors one after the other, as many as one has from `number` on."""
        result = Value(first.type)
        self.body.append(Op(result, "splice", (first, second), number))
        return result

    def lookup(self, table: Sequence[float], index: Value) -> Value:
        """Elements of `table`, floats of as many bits as `index` has: see `OPERATIONS`."""
        result = Value(VType(f32 if index.type.dtype.bits == 32 else f64, index.type.lanes))
        self.body.append(Op(result, "lookup", (index,), table=tuple(table)))
        return result

    def _unify(self, name: str, operands: Sequence[Value | Number]) -> tuple[Value, ...]:
        values = [o for o in operands if isinstance(o, Value)]
        widths = {v.type.lanes for v in values}
        lanes = max(widths)
        if len(values) == len(operands) and len(widths) == 1:
            return tuple(values)
        # `select` takes a bool first: its numbers follow the type of the chosen values.
        typed = values[1:] or values if name == "select" else values
        like = VType(typed[0].type.dtype, lanes)
        return tuple([self.splat(o, lanes) if isinstance(o, Value) else self.const(o, like) for o in operands])
