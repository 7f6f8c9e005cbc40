"""Sorting short rows by counting."""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.kernel import INDEX, Affine, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.sort_keys import signed_key
from graphc.codegen.sort_rows import Rows, Terms
from graphc.ir.types import i32, i64


class Counting(Rows):
    """Sorting by counting: the place of an element is the number of those that stand before it in the end."""

    def kernel(self, name: str) -> Lowered:
        e, n = self.e, self.n
        pieces, each = self.cut()
        dtype = i64 if self.x.dtype.bits == 64 else i32
        lanes = min(self.target.lanes(dtype.itemsize), 1 << (n - 1).bit_length())
        length = -(-n // lanes) * lanes
        keys = self.scratch("keys", dtype, pieces * length)
        mine = (self.grid, length)
        with e.loop("row", *self.part(self.grid, each, self.rows), 1) as row:
            first, to = self.first(row.var, n), self.first(row.var, self.kept)
            self._vectors(lanes, lambda i, mask: self._make_keys(keys, lanes, first, i, mask, mine))
            self._vectors(lanes, lambda i, mask: self._place(keys, lanes, first, to, i, mask, mine))
        return self.end(name, pieces, n // lanes + 1, self.x, self.out, keys)

    def _vectors(self, lanes: int, body: Callable[[Value, Value | None], None]) -> None:
        """Run `body` for the first index of each vector of a row; the last one may have a mask."""
        e, n = self.e, self.n
        whole = n // lanes * lanes
        if whole:
            with e.loop("i", 0, whole, lanes) as i:
                body(i.var, None)
        if whole < n:
            mask = e.op("lt", e.lanes(i64, lanes), n - whole) if lanes > 1 else None
            body(e.const(whole, INDEX), mask)

    def _make_keys(
        self, keys: Param, lanes: int, first: Terms, i: Value, mask: Value | None, mine: tuple[Value, int]
    ) -> None:
        e = self.e
        stride = self.after if lanes > 1 else 0
        raw = e.load(VType(self.x.dtype, lanes), self.x, Affine(0, (*first, (i, self.after))), stride, None, mask)
        key = signed_key(e, raw, self.descending)
        e.store(keys, Affine(0, (mine, (i, 1))), key, int(lanes > 1), None, None)
        e.epoch += 1

    def _place(
        self,
        keys: Param,
        lanes: int,
        source: Terms,
        to: Terms,
        i: Value,
        mask: Value | None,
        mine: tuple[Value, int],
    ) -> None:
        """Count what stands before each element of the vector at `i`, and store its index (or itself) there."""
        e, n = self.e, self.n
        own = e.load(VType(keys.dtype, lanes), keys, Affine(0, (mine, (i, 1))), int(lanes > 1), None, None)
        numbers = e.lanes(keys.dtype, lanes)
        end = e.op("minimum", e.op("add", i, lanes), n)

        def counted(
            lo: int | Value, hi: int | Value, before: Value, is_before: Callable[[Value, Value], Value]
        ) -> Value:
            with e.loop("j", lo, hi, 1, (before,)) as j:
                key = e.splat(self.read(keys, mine, (j.var, 1)), lanes)
                j.yields = (e.op("add", j.phis[0], e.op("cast", is_before(key, j.var), to=keys.dtype)),)
            return j.results[0]

        def inside(key: Value, j: Value) -> Value:
            place = e.op("cast", e.op("sub", j, i), to=keys.dtype)
            earlier = e.op("gt", numbers, place)
            return e.op("or", e.op("lt", key, own), e.op("and", e.op("eq", key, own), earlier))

        count = counted(0, i, e.const(0, own.type), lambda key, _: e.op("le", key, own))
        count = counted(i, end, count, inside)
        count = counted(end, n, count, lambda key, _: e.op("lt", key, own))
        if self.alone:
            stride = self.after if lanes > 1 else 0
            result = e.load(
                VType(self.x.dtype, lanes), self.x, Affine(0, (*source, (i, self.after))), stride, None, mask
            )
        else:
            result = e.op("add", e.lanes(i64, lanes), i)
        place, kept = self.kept_place(count if keys.dtype is i64 else e.op("cast", count, to=i64))
        if kept is not None:
            mask = kept if mask is None else e.op("and", mask, kept)
        e.store(self.out, Affine(0, to), result, 0, e.op("mul", place, self.after), mask)
        e.epoch += 1
