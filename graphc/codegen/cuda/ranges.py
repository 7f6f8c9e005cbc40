"""What is known of the i64 values of a kernel: their least and largest value, and a number that divides them.

From it follows where 32 bits are enough for an index and which accesses are aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import NamedTuple

from graphc.codegen.cuda.spelling import INT_MAX, INT_MIN
from graphc.codegen.kernel import SHUFFLES, Affine, For, If, Kernel, Op, Stmt, Value
from graphc.ir.types import i64

_LARGEST = 1 << 62  # what may be larger is not followed


class Span(NamedTuple):
    """All values lie in [lo, hi] and are multiples of `multiple`; 0 is the multiple of what is always 0."""

    lo: int
    hi: int
    multiple: int = 1

    @property
    def is_int(self) -> bool:
        """Whether 32 bits hold every value."""
        return self.lo >= INT_MIN and self.hi <= INT_MAX

    def plus(self, other: Span) -> Span:
        return Span(self.lo + other.lo, self.hi + other.hi, gcd(self.multiple, other.multiple))

    def times(self, factor: int) -> Span:
        ends = (self.lo * factor, self.hi * factor)
        return Span(min(ends), max(ends), abs(self.multiple * factor))


def exactly(value: int) -> Span:
    """The span of a constant."""
    return Span(value, value, abs(value))


Spans = dict[Value, Span]


def find_spans(kernel: Kernel) -> Spans:
    """The spans of those i64 scalars and vectors of `kernel` whose span is known."""
    spans: Spans = {kernel.index: Span(0, max(0, kernel.grid - 1))}
    _block(kernel.body, spans)
    return spans


def trip_count(loop: For) -> int | None:
    """How often a loop runs; None when its bounds are values."""
    if isinstance(loop.lo, Value) or isinstance(loop.hi, Value):
        return None
    return max(0, -((loop.lo - loop.hi) // loop.step))


def multiple_of_sum(index: Affine, spans: Spans) -> int:
    """A number that divides an element index, whatever its size."""
    multiple = abs(index.const)
    for value, coefficient in index.terms:
        known = spans.get(value)
        multiple = gcd(multiple, coefficient * (known.multiple if known is not None else 1))
    return multiple


def _block(statements: Sequence[Stmt], spans: Spans) -> None:
    for statement in statements:
        if isinstance(statement, Op):
            if statement.result.type.dtype is i64:
                found = _of_op(statement, spans)
                if found is not None and found.lo > -_LARGEST and found.hi < _LARGEST:
                    spans[statement.result] = found
        elif isinstance(statement, For):
            found = _of_loop(statement, spans)
            if found is not None:
                spans[statement.var] = found
            _carried(statement, spans)
            _block(statement.body, spans)
            spans.update((r, spans[p]) for r, p in zip(statement.results, statement.phis, strict=True) if p in spans)
        elif isinstance(statement, If):
            _block(statement.body, spans)


def _carried(loop: For, spans: Spans) -> None:
    """The spans of carried numbers: what the first value and all that one more round can make of it lie in."""
    numbers = [(p, i, y) for p, i, y in zip(loop.phis, loop.inits, loop.yields, strict=True) if p.type.dtype is i64]
    assumed = {p: Span(spans[i].lo, _LARGEST >> 2) for p, i, _ in numbers if i in spans}
    if not assumed or len(assumed) < len(numbers):
        return
    for _ in range(2):  # with whatever is not too large, then with what comes of that
        inside = {**spans, **assumed}
        _block(loop.body, inside)
        after = {p: _union(spans[i], inside[y]) for p, i, y in numbers if y in inside}
        if after.keys() != assumed.keys() or any(
            a.lo < assumed[p].lo or a.hi > assumed[p].hi for p, a in after.items()
        ):
            return
        assumed = {p: a._replace(multiple=1) for p, a in after.items()}
    spans.update(assumed)


def _of_loop(loop: For, spans: Spans) -> Span | None:
    bounds = [spans.get(b) if isinstance(b, Value) else exactly(b) for b in (loop.lo, loop.hi)]
    lo, hi = bounds
    if lo is None or hi is None:
        return None
    trips = trip_count(loop)
    if trips is not None:
        last = lo.lo + max(0, trips - 1) * loop.step
        multiple = lo.lo if trips <= 1 else gcd(lo.lo, loop.step)
        span = Span(lo.lo, last, multiple)
    else:
        span = Span(lo.lo, max(lo.lo, hi.hi - 1), gcd(lo.multiple, loop.step))
    # The variable is compared with the bound after one step more.
    return span if span.hi + loop.step <= INT_MAX and hi.is_int else None


def _product(a: Span, b: Span) -> Span:
    ends = [x * y for x in a[:2] for y in b[:2]]
    return Span(min(ends), max(ends), a.multiple * b.multiple)


def _quotient(a: Span, b: Span) -> Span | None:
    if a.lo < 0 or b.lo <= 0:
        return None
    return _index_quotient(a, b)


def _index_quotient(a: Span, b: Span) -> Span:
    """Of numbers that are not negative, whatever is known of them."""
    a, b = a._replace(lo=max(0, a.lo), hi=max(0, a.hi)), b._replace(lo=max(1, b.lo), hi=max(1, b.hi))
    exact = b.lo if b.lo == b.hi and a.multiple % b.lo == 0 else 0
    return Span(a.lo // b.hi, a.hi // b.lo, a.multiple // exact if exact else 1)


def _remainder(a: Span, b: Span) -> Span | None:
    return None if a.lo < 0 or b.lo <= 0 else _index_remainder(a, b)


def _index_remainder(a: Span, b: Span) -> Span:
    return Span(0, max(0, min(a.hi, b.hi - 1)), gcd(a.multiple, b.multiple))


def _and(a: Span, b: Span) -> Span | None:
    if a.lo < 0 and b.lo < 0:
        return None
    return Span(0, min(s.hi for s in (a, b) if s.lo >= 0))


def _bits(a: Span, b: Span) -> Span | None:
    """Of `or` and `xor`."""
    return None if a.lo < 0 or b.lo < 0 else Span(0, (1 << max(a.hi, b.hi).bit_length()) - 1)


def _union(a: Span, b: Span) -> Span:
    return Span(min(a.lo, b.lo), max(a.hi, b.hi), gcd(a.multiple, b.multiple))


_BINARY: dict[str, Callable[[Span, Span], Span | None]] = {
    "add": lambda a, b: a.plus(b),
    "sub": lambda a, b: a.plus(b.times(-1)),
    "mul": _product,
    "floordiv": _index_quotient,
    "mod": _index_remainder,
    "sdiv": _quotient,
    "srem": _remainder,
    "udiv": _quotient,
    "urem": _remainder,
    "and": _and,
    "or": _bits,
    "xor": _bits,
    "maximum": lambda a, b: Span(max(a.lo, b.lo), max(a.hi, b.hi), gcd(a.multiple, b.multiple)),
    "minimum": lambda a, b: Span(min(a.lo, b.lo), min(a.hi, b.hi), gcd(a.multiple, b.multiple)),
    **dict.fromkeys(SHUFFLES, _union),
}
_SAME = frozenset({"splat", "extract", "reduce_maximum", "reduce_minimum"})


def _of_op(op: Op, spans: Spans) -> Span | None:
    if op.name == "const":
        return exactly(int(op.attr or 0))
    if op.name == "lanes":
        return Span(0, op.result.type.lanes - 1)
    if op.name == "cast":
        source = op.args[0].type.dtype
        if source.kind == "bool":
            return Span(0, 1)
        if source.is_integer and source.bits < 64:
            half = 1 << (source.bits - 1)
            return Span(0, 2 * half - 1) if source.kind == "uint" else Span(-half, half - 1)
        return spans.get(op.args[0])
    known = [spans.get(a) for a in (op.args[1:] if op.name == "select" else op.args)]
    found = [s for s in known if s is not None]
    if len(found) < len(known):
        return None
    if op.name in _SAME:
        return found[0]
    if op.name == "neg":
        return found[0].times(-1)
    if op.name == "select":
        return _union(*found)
    function = _BINARY.get(op.name)
    return None if function is None else function(*found)
