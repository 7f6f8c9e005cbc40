"""Numbers that divide the integers of a kernel, found by walking it: where vectors and lines begin."""

from __future__ import annotations

import math

from graphc.codegen.kernel import Affine, For, Op, Stmt, Value


class Factors:
    """A number that divides each integer scalar met so far; of what was not met nothing is known."""

    def __init__(self) -> None:
        self._known: dict[Value, int] = {}

    def meet(self, statement: Stmt) -> None:
        """Learn the result of an operation, or the variable of a loop."""
        if isinstance(statement, Op):
            self._known[statement.result] = self._factor(statement)
        elif isinstance(statement, For):
            self._known[statement.var] = math.gcd(self._of(statement.lo), statement.step)

    def divides(self, number: int, index: Affine) -> bool:
        """Whether `index` is a multiple of `number`."""
        return index.const % number == 0 and all(self._of(v) * c % number == 0 for v, c in index.terms)

    def _of(self, value: Value | int) -> int:
        return self._known.get(value, 1) if isinstance(value, Value) else value

    def _factor(self, op: Op) -> int:
        args = [self._of(a) for a in op.args]
        if op.name == "const" and isinstance(op.attr, int):
            return int(op.attr)
        if op.name == "mul":
            return math.prod(args)
        if op.name in ("add", "sub", "minimum", "maximum"):
            return math.gcd(*args)
        return math.gcd(*args[1:]) if op.name == "select" else 1
