"""Finds accesses that certainly leave their buffer.

The body is walked for a few values of the parallel index. A scalar is then a known number, a loop variable with known
bounds (its extremes are reached, whatever the others do), or unknown. An access is judged when its index is made of the
first two, it is not masked, has no offsets, and certainly runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.codegen.kernel import Affine, For, If, Kernel, Load, Op, Stmt, Store, Value

_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "maximum": max,
    "minimum": min,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}
Range = tuple[int, int]


def check_bounds(kernel: Kernel) -> tuple[Stmt, str] | None:
    """The first access found to be out of bounds, with a message; None when there is none.

    `kernel` is otherwise correct.
    """
    last = kernel.grid - 1
    for index in sorted({0, last // 3, last // 2, last}):
        if 0 <= index < kernel.grid:
            found = _Walk(index).block(kernel.body, {kernel.index: (index, index)})
            if found is not None:
                return found
    return None


class _Walk:
    def __init__(self, index: int) -> None:
        self.index = index

    def block(self, statements: Sequence[Stmt], known: dict[Value, Range]) -> tuple[Stmt, str] | None:
        """Walk `statements`, which certainly run, knowing the ranges `known` (which grows)."""
        for statement in statements:
            found = None
            if isinstance(statement, Op):
                self._op(statement, known)
            elif isinstance(statement, (Load, Store)):
                found = self._access(statement, known)
            elif isinstance(statement, For):
                found = self._loop(statement, known)
            elif isinstance(statement, If) and known.get(statement.condition) == (1, 1):
                found = self.block(statement.body, known)
            if found is not None:
                return found
        return None

    def _op(self, op: Op, known: dict[Value, Range]) -> None:
        if op.name == "const" and op.result.type.lanes == 1 and isinstance(op.attr, int):
            known[op.result] = (op.attr, op.attr)
            return
        ranges = [known.get(a) for a in op.args]
        function = _ARITHMETIC.get(op.name)
        if function is None or any(r is None or r[0] != r[1] for r in ranges):
            return
        left, right = (r[0] for r in ranges if r is not None)
        if right or op.name not in ("floordiv", "mod"):
            value = int(function(left, right))
            known[op.result] = (value, value)

    def _loop(self, loop: For, known: dict[Value, Range]) -> tuple[Stmt, str] | None:
        bounds = [known.get(b) if isinstance(b, Value) else (b, b) for b in (loop.lo, loop.hi)]
        if any(b is None or b[0] != b[1] for b in bounds):
            return None
        lo, hi = (b[0] for b in bounds if b is not None)
        if lo >= hi:
            return None
        known[loop.var] = (lo, lo + (hi - lo - 1) // loop.step * loop.step)
        return self.block(loop.body, known)

    def _access(self, access: Load | Store, known: dict[Value, Range]) -> tuple[Stmt, str] | None:
        if access.mask is not None or access.offsets is not None:
            return None
        span = self._range(access.index, known)
        if span is None:
            return None
        lanes = access.result.type.lanes if isinstance(access, Load) else access.value.type.lanes
        reach = (lanes - 1) * access.stride
        low, high = span[0] + min(0, reach), span[1] + max(0, reach)
        buffer = access.buffer
        if low >= 0 and high < buffer.size:
            return None
        return access, (
            f"elements {low} to {high} of buffer {buffer.name} are accessed, which has {buffer.size} elements "
            f"(parallel index {self.index})"
        )

    def _range(self, index: Affine, known: dict[Value, Range]) -> Range | None:
        totals: dict[Value, int] = {}
        for value, coefficient in index.terms:
            totals[value] = totals.get(value, 0) + coefficient
        low = high = index.const
        for value, coefficient in totals.items():
            if value not in known:
                return None
            ends = [end * coefficient for end in known[value]]
            low, high = low + min(ends), high + max(ends)
        return low, high
