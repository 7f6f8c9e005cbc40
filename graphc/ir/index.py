"""Symbolic indices: sums of variables with integer coefficients, and what can be proved about their range."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from graphc.ir.record import record

if TYPE_CHECKING:
    from graphc.ir.node import Node


@dataclass(eq=False, slots=True)
class Var:
    """A loop variable with values 0 .. hi, all of them multiples of `multiple`. Compared by identity. `lane` marks the
    variable that runs across vector lanes.
    """

    name: str
    hi: int
    lane: bool = False
    multiple: int = 1

    def __repr__(self) -> str:
        return self.name


class Derived:
    """An index that is not affine: `floordiv`, `mod` (by `number`), or `clamp` to [0, number], of another index.

    A class by hand, as `Ix` is: a key again and again.
    """

    __slots__ = ("_hash", "hi", "number", "of", "op")

    def __init__(self, op: str, of: Ix, number: int) -> None:
        self.op = op
        self.of = of
        self.number = number
        self.hi = of.hi // number if op == "floordiv" else number - 1 if op == "mod" else number
        self._hash = hash((op, of, number))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if other.__class__ is not Derived:
            return NotImplemented
        return (
            self._hash == other._hash  # type: ignore[attr-defined]
            and self.op == other.op  # type: ignore[attr-defined]
            and self.number == other.number  # type: ignore[attr-defined]
            and self.of == other.of  # type: ignore[attr-defined]
        )

    def __repr__(self) -> str:
        return f"Derived(op={self.op!r}, of={self.of!r}, number={self.number})"


@record
class Data:
    """An index read from a tensor: the value of `node` at `at`, clamped to [0, hi]."""

    node: Node
    at: tuple[Ix, ...]
    hi: int


Symbol = Var | Derived | Data


class Ix:
    """`const + sum(symbol * coefficient)`.

    Immutable as a value; a class by hand, because walking a large graph makes hundreds of thousands of them.
    """

    __slots__ = ("_hash", "const", "terms")

    def __init__(self, const: int = 0, terms: tuple[tuple[Symbol, int], ...] = ()) -> None:
        self.const = const
        self.terms = terms
        self._hash = hash((const, terms))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if other.__class__ is not Ix:
            return NotImplemented
        return self._hash == other._hash and self.const == other.const and self.terms == other.terms  # type: ignore[attr-defined]

    @staticmethod
    def of(symbol: Symbol, coefficient: int = 1, const: int = 0) -> Ix:
        return Ix(const, ((symbol, coefficient),) if coefficient else ())

    def __add__(self, other: Ix | int) -> Ix:
        if isinstance(other, int):
            return self if other == 0 else Ix(self.const + other, self.terms)
        if not other.terms:
            return Ix(self.const + other.const, self.terms) if other.const else self
        if not self.terms:
            return Ix(self.const + other.const, other.terms) if self.const else other
        total = dict(self.terms)
        for symbol, coefficient in other.terms:
            total[symbol] = total.get(symbol, 0) + coefficient
        return Ix(self.const + other.const, tuple([item for item in total.items() if item[1]]))

    def __mul__(self, factor: int) -> Ix:
        if factor == 1:
            return self
        if not self.terms:
            return Ix(self.const * factor)
        return Ix(self.const * factor, tuple([(s, c * factor) for s, c in self.terms]) if factor else ())

    @property
    def hi(self) -> int:
        """An upper bound of the value."""
        most = self.const
        for s, c in self.terms:
            if c > 0:
                most += c * s.hi
        return most

    @property
    def lo(self) -> int:
        """A lower bound of the value (all symbols are at least 0)."""
        least = self.const
        for s, c in self.terms:
            if c < 0:
                least += c * s.hi
        return least

    def coefficient(self, symbol: Symbol) -> int:
        for s, c in self.terms:
            if s == symbol:
                return c
        return 0

    def symbols(self) -> dict[Symbol, None]:
        """All symbols, those inside derived and data indices included, in an order fixed by the index."""
        found: dict[Symbol, None] = {}
        stack = [s for s, _ in self.terms]
        while stack:
            symbol = stack.pop()
            if symbol in found:
                continue
            found[symbol] = None
            if isinstance(symbol, Derived):
                stack.extend(s for s, _ in symbol.of.terms)
            elif isinstance(symbol, Data):
                stack.extend(s for ix in symbol.at for s, _ in ix.terms)
        return found

    def __repr__(self) -> str:
        parts = [f"{s}*{c}" if c != 1 else f"{s}" for s, c in self.terms]
        return " + ".join([*parts, *([str(self.const)] if self.const or not parts else [])])


ZERO = Ix()


def derived(op: str, of: Ix, number: int) -> Ix:
    """`of // number`, `of % number` or `min(max(of, 0), number)`, simplified as far as ranges prove. `of >= 0` for
    the first two.
    """
    if op == "clamp":
        if of.lo >= 0 and of.hi <= number:
            return of
        if not of.terms:
            return Ix(min(max(of.const, 0), number))
        return Ix.of(Derived(op, of, number))
    return divided(of, number)[op == "mod"]


def divided(of: Ix, number: int) -> tuple[Ix, Ix]:
    """`of // number` and `of % number`, simplified as `derived` does. `of >= 0`."""
    if number == 1:
        return of, ZERO
    whole, stepped, left = [], [], []
    for s, c in of.terms:
        if c % number == 0:
            whole.append((s, c // number))
        elif isinstance(s, Var) and c > 0 and c * s.multiple % number == 0 and c * s.hi >= number:
            stepped.append((s, c))
        else:
            left.append((s, c))
    rest = Ix(of.const % number, tuple(left))
    if rest.lo < 0 or rest.hi >= number:
        return Ix.of(Derived("floordiv", of, number)), Ix.of(Derived("mod", of, number))
    quotient = Ix(of.const // number, tuple(whole))
    return quotient + Ix.of(Derived("floordiv", Ix(0, tuple(stepped)), number)) if stepped else quotient, rest


@lru_cache(maxsize=4096)
def row_major_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Element strides of a contiguous tensor."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return tuple(strides)


def linear(idx: tuple[Ix, ...], shape: tuple[int, ...]) -> Ix:
    """The row-major element number of `idx` in `shape`."""
    const = 0
    terms: dict[Symbol, int] = {}
    for ix, stride in zip(idx, row_major_strides(shape), strict=True):
        const += ix.const * stride
        for symbol, coefficient in ix.terms:
            terms[symbol] = terms.get(symbol, 0) + coefficient * stride
    joined = Ix(const, tuple([item for item in terms.items() if item[1]]))
    return _rejoined(joined) if any(isinstance(symbol, Derived) for symbol in terms) else joined


def _rejoined(ix: Ix) -> Ix:
    """`ix` with each quotient and remainder of one index that together are that index replaced by it."""
    for rest, coefficient in ix.terms:
        if not isinstance(rest, Derived) or rest.op != "mod":
            continue
        quotient = Derived("floordiv", rest.of, rest.number)
        if ix.coefficient(quotient) == coefficient * rest.number:
            left = tuple([(s, c) for s, c in ix.terms if s != rest and s != quotient])
            return _rejoined(Ix(ix.const, left) + rest.of * coefficient)
    return ix


@lru_cache(maxsize=4096)
def reshape_blocks(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[tuple[range, range], ...]:
    """Smallest runs of dimensions of `a` and `b` with equal products, in order (both shapes have the same size > 0)."""
    blocks: list[tuple[range, range]] = []
    i = j = 0
    while i < len(a) or j < len(b):
        i0, j0 = i, j
        p = q = 1
        if i < len(a):
            p, i = a[i], i + 1
        if j < len(b):
            q, j = b[j], j + 1
        while p != q:
            if p < q:
                p, i = p * a[i], i + 1
            else:
                q, j = q * b[j], j + 1
        blocks.append((range(i0, i), range(j0, j)))
    return tuple(blocks)


@lru_cache(maxsize=4096)
def _reshape_plan(
    shape: tuple[int, ...], source: tuple[int, ...]
) -> tuple[tuple[range, range, tuple[int, ...], tuple[int, ...]], ...]:
    """The blocks of `reshape_blocks`, with their extents in `shape` and the strides of their dimensions in `source`, 0
    where these have one place.
    """
    plan = []
    for mine, theirs in reshape_blocks(shape, source):
        dims = tuple([source[d] for d in theirs])
        strides = tuple([stride if n > 1 else 0 for n, stride in zip(dims, row_major_strides(dims), strict=True)])
        plan.append((mine, theirs, tuple([shape[d] for d in mine]), strides))
    return tuple(plan)


def reshape_index(idx: tuple[Ix, ...], shape: tuple[int, ...], source: tuple[int, ...]) -> tuple[Ix, ...]:
    """Index into a tensor of shape `source` of the element that stands at `idx` once it is reshaped to `shape`."""
    result = [ZERO] * len(source)
    for mine, theirs, extents, strides in _reshape_plan(shape, source):
        if len(mine) == len(theirs) == 1:
            result[theirs[0]] = idx[mine[0]]
            continue
        rest = linear(tuple([idx[d] for d in mine]), extents)
        for d, stride in zip(theirs, strides, strict=True):
            if stride == 1:  # nothing is left for what follows, which has one place
                result[d] = rest
                break
            if stride:  # lanes past the end of a row would leave something for one place too
                result[d], rest = divided(rest, stride)
    return tuple(result)
