"""Zeros of sorted floats: 0.0 and -0.0 are equal and keep their order, which keys that tell them apart do not."""

from __future__ import annotations

from graphc.codegen.kernel import Affine, Value, VType
from graphc.codegen.lower import Lowered
from graphc.codegen.sort_keys import float_bits
from graphc.codegen.sort_rows import Rows, Terms
from graphc.ir.types import i32, i64


class Zeros(Rows):
    """Writes the zeros of each sorted row again, in the order in which the row has them, if some are negative."""

    def kernel(self, name: str) -> Lowered:
        e = self.e
        pieces, each = self.cut()
        with e.loop("row", *self.part(self.grid, each, self.rows), 1) as row:
            first = self.first(row.var, self.n)
            before, negative = self._counts(first)
            # A loop of one round or none: an `If` has no results.
            with (
                e.loop("once", 0, e.op("minimum", negative, 1), 1),
                e.loop("i", 0, self.n, 1, (before,)) as i,
            ):
                raw = self.read(self.x, *first, (i.var, self.after))
                is_zero = e.op("eq", float_bits(e, raw)[1], 0)
                self.write(self.out, raw, *first, (i.phis[0], self.after), mask=is_zero)
                i.yields = (e.op("add", i.phis[0], e.op("cast", is_zero, to=i64)),)
        return self.end(name, pieces, 1, self.x, self.out)

    def _counts(self, first: Terms) -> tuple[Value, Value]:
        """How many elements of a row come before its zeros, and how many zeros are negative (i64)."""
        e, lanes = self.e, self.target.lanes(4)
        whole = self.n // lanes * lanes
        none = e.const(0, VType(i32, lanes))
        with e.loop("i", 0, whole, lanes, (none, none)) as i:
            i.yields = self._counted(first, i.var, lanes, i.phis)
        across = tuple(e.op("reduce_add", total) for total in i.results)
        with e.loop("i", whole, self.n, 1, across) as i:
            i.yields = self._counted(first, i.var, 1, i.phis)
        return tuple(e.op("cast", total, to=i64) for total in i.results)  # type: ignore[return-value]

    def _counted(self, first: Terms, i: Value, lanes: int, totals: tuple[Value, ...]) -> tuple[Value, ...]:
        """`totals` with the elements from `i` on added."""
        e = self.e
        stride = self.after if lanes > 1 else 0
        raw = e.load(VType(self.x.dtype, lanes), self.x, Affine(0, (*first, (i, self.after))), stride, None, None)
        e.epoch += 1
        bits, magnitude, infinity = float_bits(e, raw)
        nan, is_negative = e.op("gt", magnitude, infinity), e.op("lt", bits, 0)
        is_zero = e.op("eq", magnitude, 0)
        number = e.op("and", e.op("not", nan), e.op("not", is_zero))
        # NaN is the largest, so it comes first in a descending row.
        if self.descending:
            before = e.op("or", nan, e.op("and", number, e.op("not", is_negative)))
        else:
            before = e.op("and", number, is_negative)
        counted = before, e.op("and", is_zero, is_negative)
        return tuple(e.op("add", total, e.op("cast", one, to=i32)) for total, one in zip(totals, counted, strict=True))
