"""Zeros of sorted floats: 0.0 and -0.0 are equal and keep their order, which keys that tell them apart do not."""

from __future__ import annotations

from graphc.codegen.kernel import Affine, Value, VType
from graphc.codegen.sort_keys import float_bits, is_negative_zero
from graphc.codegen.sort_rows import Rows, Terms
from graphc.ir.types import i32, i64


def keep_order(rows: Rows, first: Terms, negative: Value) -> None:
    """Write the zeros of the sorted row at `first` again if `negative` (i64), the number of negative ones, is not 0."""
    # A loop of one round or none: an `If` has no results.
    with rows.e.loop("once", 0, rows.e.op("minimum", negative, 1), 1):
        rewrite_zeros(rows, first)


def rewrite_zeros(rows: Rows, first: Terms) -> None:
    """Write the zeros of the sorted row at `first` again, in the order in which it has them, if some are negative."""
    e = rows.e
    before, negative = _counts(rows, first)
    # A loop of one round or none: an `If` has no results.
    with (
        e.loop("once", 0, e.op("minimum", negative, 1), 1),
        e.loop("i", 0, rows.n, 1, (before,)) as i,
    ):
        raw = rows.read(rows.x, *first, (i.var, rows.after))
        is_zero = e.op("eq", float_bits(e, raw)[1], 0)
        rows.write(rows.out, raw, *first, (i.phis[0], rows.after), mask=is_zero)
        i.yields = (e.op("add", i.phis[0], e.op("cast", is_zero, to=i64)),)


def _counts(rows: Rows, first: Terms) -> tuple[Value, Value]:
    """How many elements of a row come before its zeros, and how many zeros are negative (i64)."""
    e, lanes = rows.e, rows.target.lanes(4)
    whole = rows.n // lanes * lanes
    none = e.const(0, VType(i32, lanes))
    with e.loop("i", 0, whole, lanes, (none, none)) as i:
        i.yields = _counted(rows, first, i.var, lanes, i.phis)
    across = tuple(e.op("reduce_add", total) for total in i.results)
    with e.loop("i", whole, rows.n, 1, across) as i:
        i.yields = _counted(rows, first, i.var, 1, i.phis)
    before, negative = i.results
    return e.op("cast", before, to=i64), e.op("cast", negative, to=i64)


def _counted(rows: Rows, first: Terms, i: Value, lanes: int, totals: tuple[Value, ...]) -> tuple[Value, ...]:
    """`totals` with the elements from `i` on added."""
    e = rows.e
    stride = rows.after if lanes > 1 else 0
    raw = e.load(VType(rows.x.dtype, lanes), rows.x, Affine(0, (*first, (i, rows.after))), stride, None, None)
    e.epoch += 1
    bits, magnitude, infinity = float_bits(e, raw)
    nan, is_negative = e.op("gt", magnitude, infinity), e.op("lt", bits, 0)
    number = e.op("and", e.op("not", nan), e.op("ne", magnitude, 0))
    # NaN is the largest, so it comes first in a descending row.
    if rows.descending:
        before = e.op("or", nan, e.op("and", number, e.op("not", is_negative)))
    else:
        before = e.op("and", number, is_negative)
    counted = before, is_negative_zero(e, raw)
    return tuple(e.op("add", total, e.op("cast", one, to=i32)) for total, one in zip(totals, counted, strict=True))
