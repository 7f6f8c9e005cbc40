"""The first few places of each row's order, from elements below a bound that vectors find."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

from graphc.codegen.kernel import INDEX, Affine, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.sort_keys import coarse_key
from graphc.codegen.sort_radix import Radix
from graphc.codegen.sort_rows import Terms
from graphc.codegen.target import Target
from graphc.ir.node import Node
from graphc.ir.types import i32, i64

_LARGEST = (1 << 31) - 1
_STREAMS = (2, 4, 8)  # vectors that are gone through side by side


class Leading(Radix):
    """The first places of each row's order: the row is cut into groups, a lane of a few vectors each. As many groups as
    places are wanted have a least key up to some bound; only elements up to it are sorted, mostly few more than that.
    """

    def __init__(self, node: Node, target: Target) -> None:
        super().__init__(node, target, 2 * node.shape[node.integer("axis")])
        self.lanes = target.lanes(i32.itemsize)
        fitting = (s for s in _STREAMS if s * self.lanes >= 4 * self.kept)
        self.streams = next(fitting, _STREAMS[-1])

    @property
    def fits(self) -> bool:
        """Whether elements lie side by side, the first of them are wanted, and they are few."""
        groups = self.lanes * self.streams
        return self.lanes > 1 and self.after == 1 and not self.start and 2 * self.kept <= groups <= self.n

    def kernel(self, name: str) -> Lowered:
        e = self.e
        with e.loop("row", *self.part(self.grid, self.each, self.rows), 1) as row:
            first = self.first(row.var, self.n)
            some = self._chosen(first, self._bound(first))
            self._sort(row.var, some, e.const(0, INDEX), chosen=True)
        return self.end(name, self.pieces, 4, self.x, self.out, self.work, self.counts)

    def _keys(self, first: Terms, i: Value, shift: int = 0) -> Value:
        """The coarse keys of a vector of elements."""
        place = Affine(shift, (*first, (i, 1)))
        return coarse_key(
            self.e, self.e.load(VType(self.x.dtype, self.lanes), self.x, place, 1, None, None), self.descending
        )

    def _bound(self, first: Terms) -> Value:
        """A key that as many groups as places are wanted have an element up to."""
        e = self.e
        step = self.lanes * self.streams
        none = e.const(_LARGEST, VType(i32, self.lanes))
        with e.loop("i", 0, self.n // step * step, step, (none,) * self.streams) as i:
            e.epoch += 1
            i.yields = tuple(
                e.op("minimum", least, self._keys(first, i.var, number * self.lanes))
                for number, least in enumerate(i.phis)
            )
        groups: Sequence[Value] = i.results
        most = e.op("reduce_maximum", reduce(partial(e.op, "maximum"), groups))
        with e.loop("k", 0, self.kept, 1, (*groups, most)) as k:
            *left, _ = k.phis
            least = e.op("reduce_minimum", reduce(partial(e.op, "minimum"), left))
            # Of groups with equal keys only one is counted: when none is left the bound is that of all.
            bound = e.op("select", e.op("eq", least, _LARGEST), most, least)
            k.yields = (*(e.op("select", e.op("eq", keys, least), none, keys) for keys in left), bound)
        return k.results[-1]

    def _chosen(self, first: Terms, bound: Value) -> Value:
        """Put the indices of elements with keys up to a bound into the row's memory; gives their number."""
        e = self.e
        whole = self.n // self.lanes * self.lanes

        def keep(i: Value, number: Value) -> Value:
            key = coarse_key(e, self.read(self.x, *first, (i, 1)), self.descending)
            index = i if self.digits.packed is i64 else e.op("cast", i, to=self.digits.packed)
            self.write(self.work, index, *self._item(e.const(0, INDEX), number))
            return e.op("add", number, e.op("cast", e.op("le", key, bound), to=i64))

        with e.loop("i", 0, whole, self.lanes, (e.const(0, INDEX),)) as i:
            e.epoch += 1
            some = e.op("reduce_or", e.op("le", self._keys(first, i.var), bound))
            with e.loop("some", 0, e.op("cast", some, to=i64), 1, i.phis) as found:
                with e.loop("i", i.var, e.op("add", i.var, self.lanes), 1, found.phis) as one:
                    one.yields = (keep(one.var, one.phis[0]),)
                found.yields = one.results
            i.yields = found.results
        with e.loop("i", whole, self.n, 1, i.results) as rest:
            rest.yields = (keep(rest.var, rest.phis[0]),)
        return rest.results[0]
