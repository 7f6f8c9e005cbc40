"""Contractions that sum over positions, with their operands in the order in memory that suits them.

A weight gradient sums over samples and positions, and gives a result for each pair of channels. Where positions lie
side by side, vectors of them would be summed across lanes at the end. Here the channels of one operand lie side by side
in blocks, each with its positions in a row; the other operand has its positions in a row for each channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from graphc.ir.builder import Builder
from graphc.ir.contraction import Dim, format_spec, is_plain
from graphc.ir.node import Node

VECTORS = 2  # of channels side by side: a register tile takes all of them, and a row of such stays in the nearest cache


@dataclass(frozen=True)
class Positions:
    """The dimensions of `x`, which may have sliding windows over a summed label and one of the result, and of `y`,
    which has none, in a contraction into a result with the labels `out`, for vectors of so many `lanes`.
    """

    x: tuple[Dim, ...]
    y: tuple[Dim, ...]
    out: tuple[str, ...]
    lanes: int

    @cached_property
    def _y_labels(self) -> list[str]:
        return [dim[0][0] for dim in self.y]

    @cached_property
    def sums(self) -> list[int]:
        """Dimensions of `x` that are summed over."""
        return [d for d, dim in enumerate(self.x) if not is_plain(dim) or dim[0][0] not in self.out]

    @cached_property
    def both(self) -> list[int]:
        """Dimensions of `x` with a label that `y` and the result have too."""
        return [d for d, dim in enumerate(self.x) if d not in self.sums and dim[0][0] in self._y_labels]

    @cached_property
    def own(self) -> list[int]:
        """Dimensions of `x` with a label that only the result has."""
        return [d for d in range(len(self.x)) if d not in self.sums and d not in self.both]

    @cached_property
    def summed(self) -> list[str]:
        """The label of each of `sums` that is summed over."""
        return [next(label for label, _ in self.x[d] if label not in self.out) for d in self.sums]

    @property
    def y_own(self) -> list[int]:
        """Dimensions of `y` with a label that only the result has."""
        mine = {label for dim in self.x for label, _ in dim}
        return [d for d, label in enumerate(self._y_labels) if label not in mine]

    @property
    def fits(self) -> bool:
        """Whether each sum runs over a dimension of both operands, and channels are left for the lanes."""
        counts = [sum(label not in self.out for label, _ in self.x[d]) for d in self.sums]
        return (
            bool(self.own)
            and all(n == 1 for n in counts)
            and sorted(self.summed) == sorted(label for label in self._y_labels if label not in self.out)
            and all(dict(self.x[d])[label] == 1 for d, label in zip(self.sums, self.summed, strict=True))
        )

    def block(self, x: Node) -> int:
        """How many channels to put side by side."""
        width = x.shape[self.own[-1]]
        return next((n for n in (VECTORS * self.lanes, self.lanes) if width % n == 0), math.gcd(width, self.lanes))

    def place(self, dim: int) -> int:
        """Where one of the summed dimensions of `x` is in what `arranged_x` gives."""
        return len(self.both) + len(self.own) + self.sums.index(dim)

    def arranged_x(self, b: Builder, x: Node) -> Node:
        """`x` stored with its channels in blocks: labels of both, blocks, summed dimensions, places in a block.

        Zeros around it are added when it is read.
        """
        inner = self.own[-1]
        order = [*self.both, *self.own, *self.sums]
        low, high, between = (x.ints(n) for n in ("low", "high", "interior")) if x.op == "pad" else ((0,),) * 3
        padded = x.op == "pad" and x.attr("value") == 0 and not any((low[inner], high[inner], between[inner]))
        base = x.inputs[0] if padded else x
        block = self.block(base)
        split = (*base.shape[:inner], base.shape[inner] // block, block, *base.shape[inner + 1 :])
        perm = (*(d + (d > inner) for d in order), inner + 1)
        stored = b.apply("materialize", (b.permute(b.reshape(base, split), perm),))
        if not padded:
            return stored
        before, after, gaps = ((*(n[d] for d in order), 0) for n in (low, high, between))
        return b.pad(stored, before, after, gaps)

    def arranged_y(self, b: Builder, y: Node) -> Node:
        """`y` with its dimensions in the order: labels of both, its own, summed ones as those of `x`."""
        labels = [*(self.x[d][0][0] for d in self.both), *(self._y_labels[d] for d in self.y_own), *self.summed]
        return b.permute(y, tuple(self._y_labels.index(label) for label in labels))

    def contract(self, b: Builder, x: Node, y: Node, dim: int, label: str, place: str) -> tuple[Node, list[str]]:
        """The contraction of arranged operands in front of which a dimension `place` stands, where dimension `dim` of
        the former `x` is now one of a label `label` in both; and the labels of its result.
        """
        dims = list(self.x)
        dims[dim] = ((label, 1),)
        sizes = x.shape[1 + len(self.both) + len(self.own) : -1]
        extents = dict(zip(self.summed, y.shape[y.type.rank - len(self.sums) :], strict=True))
        head = [((place, 1),), *(dims[d] for d in (*self.both, *self.own))]
        shape = list(x.shape[: len(head)])
        y_head = [((place, 1),), *(dims[d] for d in self.both), *(self.y[d] for d in self.y_own)]
        y_shape, y_dims = list(y.shape[: len(y_head)]), []
        for run in self._runs(dims):
            inner = math.prod(sizes[k] for k in run[1:])
            first = dims[self.sums[run[0]]]
            head.append(tuple((n, c if n not in self.out and n != label else c * inner) for n, c in first))
            if is_plain(first):
                head[-1] = ((first[0][0], 1),)
            shape.append(sizes[run[0]] * inner)
            y_dims.append(((next(n for n, _ in first if n == label or n not in self.out), 1),))
            y_shape.append(extents[self.summed[run[0]]] * inner)
        tail = _fresh({place, *(n for dim in (*dims, *self.y) for n, _ in dim)})
        x = b.reshape(x, (*shape, x.shape[-1]))
        y = b.reshape(y, tuple(y_shape))
        shifts = [n for d in self.sums for n, _ in dims[d] if n in self.out and n != label]
        out = [place, *(dims[d][0][0] for d in self.both), *(self.y[d][0][0] for d in self.y_own), *shifts]
        out += [dims[d][0][0] for d in self.own]
        spec = format_spec((*head, ((tail, 1),)), (*y_head, *y_dims), (*out, tail))
        made = b.contract(x, y, spec)
        return b.reshape(made, (*made.shape[:-2], made.shape[-2] * made.shape[-1])), out

    def _runs(self, dims: list[Dim]) -> list[list[int]]:
        """Summed dimensions, by their number among these, that may be one: each window with the labels behind it."""
        runs: list[list[int]] = []
        for k, d in enumerate(self.sums):
            if runs and is_plain(dims[d]):
                runs[-1].append(k)
            else:
                runs.append([k])
        return runs


def _fresh(known: set[str]) -> str:
    """A label that is not in use."""
    return next(label for label in (f"m{k}" for k in range(len(known) + 1)) if label not in known)
