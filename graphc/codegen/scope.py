"""An emitter that keeps loop scopes: values are numbered (computed once) and placed in the outermost loop that they
depend on.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import (
    Affine,
    AsyncCopy,
    Await,
    AwaitGroups,
    Exchange,
    Exp2,
    Fence,
    For,
    GroupMma,
    If,
    Lines,
    Load,
    LoadMatrix,
    Mma,
    Number,
    Op,
    Param,
    Prefetch,
    Stmt,
    Store,
    Value,
    VType,
    result_type,
)
from graphc.ir.types import DType, f32, f64, i32, i64

_COMPARE: dict[str, Callable[[Number, Number], bool]] = {
    name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")
}
_NUMBERS = (i32, i64)
_LIMIT = 1 << 31


class _Scope:
    """Statements of one loop body, and the values already computed in it."""

    __slots__ = ("body", "memo")

    def __init__(self) -> None:
        self.body: list[Stmt] = []
        self.memo: dict[Hashable, Value] = {}


class ScopedEmitter(Emitter):
    """Emits into nested loop bodies. A pure operation goes to the outermost scope that has its operands, once."""

    def __init__(self) -> None:
        self.scopes = [_Scope()]
        self._depth: dict[Value, int] = {}
        self._literals: dict[Value, Number] = {}
        self._factors: dict[Value, tuple[Value, ...]] = {}
        self.pinned = False  # keep loads in the innermost loop, where they fold into the instructions that use them
        self.is_quick = False  # powers of f32 may have a relative error of 2**-17
        self.epoch = 0  # pinned loads of another epoch are not reused: that would only keep registers busy

    @property
    def body(self) -> list[Stmt]:
        """Statements of the innermost loop body."""
        return self.scopes[-1].body

    @property
    def depth(self) -> int:
        return len(self.scopes) - 1

    def depth_of(self, value: Value) -> int:
        return self._depth.get(value, self.depth)

    def bind(self, value: Value) -> Value:
        """Say that `value` (a loop variable or a loop's result) is defined in the innermost scope."""
        self._depth[value] = self.depth
        return value

    def find(self, key: Hashable) -> Value | None:
        """A value remembered under `key` in an open scope."""
        for scope in reversed(self.scopes):
            if key in scope.memo:
                return scope.memo[key]
        return None

    def remember(self, key: Hashable, value: Value) -> Value:
        """Remember `value` under `key` for as long as the scope that defines it is open."""
        self.scopes[self.depth_of(value)].memo[key] = value
        return value

    def _place(self, key: Hashable, depth: int, statement: Stmt, result: Value) -> Value:
        scope = self.scopes[depth]
        scope.body.append(statement)
        scope.memo[key] = result
        self._depth[result] = depth
        return result

    def const(self, value: Number, type: VType) -> Value:
        literal = value.hex() if isinstance(value, float) else value
        key = ("const", type, literal, isinstance(value, float))
        if key in self.scopes[0].memo:
            return self.scopes[0].memo[key]
        result = Value(type)
        self._literals[result] = value
        return self._place(key, 0, Op(result, "const", (), value), result)

    def op(self, name: str, *operands: Value | Number, to: DType | None = None) -> Value:
        args = self._unify(name, operands)
        type = result_type(name, args, to)
        known = self._folded(name, args, type)
        if known is not None:
            return known
        depth = max(map(self.depth_of, args))
        key = (name, args, type)
        made = self.scopes[depth].memo.get(key)
        if made is not None:
            return made
        result = Value(type)
        if name == "mul":
            self._factors[result] = args
        return self._place(key, depth, Op(result, name, args), result)

    def factors(self, value: Value) -> tuple[Value, ...] | None:
        """The operands of the product of floats that `value` is, if it is one that the innermost loop computes."""
        mine = value.type.dtype.is_float and self.depth_of(value) == self.depth
        return self._factors.get(value) if mine else None

    def _folded(self, name: str, args: tuple[Value, ...], type: VType) -> Value | None:
        """The result of choosing by, or comparing, numbers that are known now: the back end runs no pass that would."""
        first = self._literals.get(args[0])
        if name == "select":
            return None if first is None else args[1] if first else args[2]
        if name in ("and", "or") and type.dtype.kind == "bool":
            for value, other in (args, args[::-1]):
                literal = self._literals.get(value)
                if literal is not None:
                    return other if bool(literal) == (name == "and") else value
            return None
        if first is None or args[0].type.dtype not in _NUMBERS or not -_LIMIT <= first < _LIMIT:
            return None
        if name == "cast" and type.dtype in _NUMBERS:
            return self.const(first, type)
        second = self._literals.get(args[1]) if name in _COMPARE else None
        return None if second is None else self.const(_COMPARE[name](first, second), type)

    def splat(self, value: Value, lanes: int) -> Value:
        if value.type.lanes == lanes:
            return value
        if value in self._literals:
            return self.const(self._literals[value], VType(value.type.dtype, lanes))
        depth = self.depth if self.pinned else self.depth_of(value)
        key = ("splat", value, lanes, self.epoch if self.pinned else -1)
        if key in self.scopes[depth].memo:
            return self.scopes[depth].memo[key]
        result = Value(VType(value.type.dtype, lanes))
        return self._place(key, depth, Op(result, "splat", (value,)), result)

    def lanes(self, dtype: DType, count: int) -> Value:
        key = ("lanes", dtype, count)
        if key in self.scopes[0].memo:
            return self.scopes[0].memo[key]
        result = Value(VType(dtype, count))
        return self._place(key, 0, Op(result, "lanes"), result)

    def lookup(self, table: Sequence[float], index: Value) -> Value:
        depth, key = self.depth_of(index), ("lookup", index, tuple(table))
        made = self.scopes[depth].memo.get(key)
        if made is not None:
            return made
        result = Value(VType(f32 if index.type.dtype.bits == 32 else f64, index.type.lanes))
        return self._place(key, depth, Op(result, "lookup", (index,), table=tuple(table)), result)

    def load(
        self, type: VType, buffer: Param, index: Affine, stride: int, offsets: Value | None, mask: Value | None
    ) -> Value:
        """A load, placed like an operation: no kernel writes what it reads at another index."""
        needs = [v for v, _ in index.terms] + [v for v in (offsets, mask) if v is not None]
        depth = self.depth if self.pinned else max(map(self.depth_of, needs), default=0)
        key = ("load", type, buffer.name, index, stride, offsets, mask, self.epoch if self.pinned else -1)
        if key in self.scopes[depth].memo:
            return self.scopes[depth].memo[key]
        result = Value(type)
        return self._place(key, depth, Load(result, buffer, index, stride, offsets, mask), result)

    def store(
        self, buffer: Param, index: Affine, value: Value, stride: int, offsets: Value | None, mask: Value | None
    ) -> None:
        self.body.append(Store(buffer, index, value, stride, offsets, mask))

    def prefetch(self, buffer: Param, index: Affine) -> None:
        self.body.append(Prefetch(buffer, index))

    def fence(self) -> None:
        self.body.append(Fence())

    def mma(self, dtype: DType, a: tuple[Value, ...], b: tuple[Value, ...], c: tuple[Value, ...]) -> tuple[Value, ...]:
        """`c` plus the product of the warp's matrices `a` and `b`."""
        results = tuple(self.bind(Value(v.type)) for v in c)
        self.body.append(Mma(results, dtype, a, b, c))
        return results

    def exchange(self, value: Value, bits: int) -> Value:
        """What the thread of the warp has for `value` whose number differs in `bits`."""
        result = self.bind(Value(value.type))
        self.body.append(Exchange(result, value, bits))
        return result

    def exp2(self, value: Value) -> Value:
        """2 ** `value`, about."""
        depth, key = self.depth_of(value), ("exp2", value)
        made = self.scopes[depth].memo.get(key)
        if made is not None:
            return made
        result = Value(value.type)
        return self._place(key, depth, Exp2(result, value), result)

    def load_matrix(
        self, count: int, buffer: Param, index: Affine, offsets: Value, transposed: bool
    ) -> tuple[Value, ...]:
        """`count` matrices of 8 rows of 16 bytes, of which each thread has four bytes."""
        results = tuple(self.bind(Value(VType(i32, offsets.type.lanes))) for _ in range(count))
        self.body.append(LoadMatrix(results, buffer, index, offsets, transposed))
        return results

    def copy(self, copy: AsyncCopy) -> None:
        self.body.append(copy)

    def wait(self, pending: int) -> None:
        """End a group of copies, and wait until at most `pending` are under way."""
        self.body.append(Await(pending))

    def group_mma(self, left: Lines, right: Lines, c: tuple[Value, ...]) -> tuple[Value, ...]:
        """Begin to add the product of the lines `left` and `right` to `c`; what that gives."""
        results = tuple(self.bind(Value(v.type)) for v in c)
        self.body.append(GroupMma(results, left, right, c))
        return results

    def wait_groups(self, pending: int, values: tuple[Value, ...] = ()) -> tuple[Value, ...]:
        """Wait until at most `pending` products of lines are under way; `values`, ready when none is."""
        results = tuple(self.bind(Value(v.type)) for v in values)
        self.body.append(AwaitGroups(pending, values, results))
        return results

    @contextmanager
    def loop(
        self, name: str, lo: int | Value, hi: int | Value, step: int, inits: tuple[Value, ...] = ()
    ) -> Iterator[Loop]:
        """A `For` around what is emitted inside; set `yields` on the object given before leaving, read `results`
        after.
        """
        self.scopes.append(_Scope())
        var = self.bind(Value(VType(i64), name))
        phis = tuple(self.bind(Value(v.type)) for v in inits)
        handle = Loop(var, phis)
        yield handle
        body = self.scopes.pop().body
        results = tuple(Value(v.type) for v in inits)
        self.body.append(For(var, lo, hi, step, tuple(body), phis, inits, handle.yields, results))
        handle.results = tuple(map(self.bind, results))

    @contextmanager
    def guard(self, condition: Value) -> Iterator[None]:
        """An `If` around the stores emitted inside."""
        self.scopes.append(_Scope())
        yield
        body = self.scopes.pop().body
        self.body.append(If(condition, tuple(body)))


class Loop:
    """An open loop: its variable and carried values; `yields` is filled in by the user of the loop."""

    __slots__ = ("phis", "results", "var", "yields")

    def __init__(self, var: Value, phis: tuple[Value, ...]) -> None:
        self.var = var
        self.phis = phis
        self.yields: tuple[Value, ...] = ()
        self.results: tuple[Value, ...] = ()
