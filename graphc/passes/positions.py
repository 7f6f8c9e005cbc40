"""Contractions that sum over positions, with their operands in the order in memory that suits them.

A weight gradient sums over samples and positions, and gives a result for each pair of channels. Where positions lie
side by side, vectors of them would be summed across lanes at the end. Here the channels of one operand lie side by side
in blocks, each with its positions in a row; the other operand has its positions in a row for each channel.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from functools import cached_property
from itertools import count

from graphc.ir.builder import Builder
from graphc.ir.contraction import Dim, format_spec, is_plain
from graphc.ir.node import Node
from graphc.ir.record import record

VECTORS = 2  # of channels side by side: a register tile takes all of them, and a row of such stays in the nearest cache


@record(slots=False)
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

    def fits(self, x: Node) -> bool:
        """Whether each sum runs over a dimension of both operands, and the channels of `x` fill whole vectors."""
        counts = [sum(label not in self.out for label, _ in self.x[d]) for d in self.sums]
        return (
            bool(self.own)
            and x.shape[self.own[-1]] % self.lanes == 0
            and all(n == 1 for n in counts)
            and sorted(self.summed) == sorted(label for label in self._y_labels if label not in self.out)
        )

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
        block = self.lanes if base.shape[inner] % (VECTORS * self.lanes) else VECTORS * self.lanes
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

    def contract(
        self, b: Builder, x: Node, y: Node, dims: Sequence[Dim], first: tuple[str, ...] = ()
    ) -> tuple[Node, list[str]]:
        """The contraction of arranged operands, and the labels of its result in the order in which it is stored.

        `dims` are the dimensions of the former `x` as they are now, labels `first` stand in front of both operands.
        """
        plain: list[Dim] = [((label, 1),) for label in first]
        x_dims, y_dims = [[*plain, *(dims[d] for d in self.both)] for _ in "xy"]
        x_dims += [dims[d] for d in self.own]
        y_dims += [self.y[d] for d in self.y_own]
        x_shape, y_shape = list(x.shape[: len(x_dims)]), list(y.shape[: len(y_dims)])
        x_sizes, y_sizes = x.shape[len(x_dims) : -1], y.shape[len(y_dims) :]
        for run in self._runs(dims):
            inner = math.prod(x_sizes[k] for k in run[1:])
            terms = dims[self.sums[run[0]]]
            label = self.summed[run[0]]
            x_dims.append(tuple((n, c if n == label else c * inner) for n, c in terms))
            y_dims.append(((label, 1),))
            x_shape.append(x_sizes[run[0]] * inner)
            y_shape.append(y_sizes[run[0]] * inner)
        shifts = [n for d in self.sums for n, _ in dims[d] if n in self.out]
        out = [*first, *(dims[d][0][0] for d in self.both), *(self.y[d][0][0] for d in self.y_own), *shifts]
        out += [dims[d][0][0] for d in self.own]
        tail = fresh({*out, *(n for dim in (*dims, *self.y) for n, _ in dim)})
        x_dims.append(((tail, 1),))
        x, y = b.reshape(x, (*x_shape, x.shape[-1])), b.reshape(y, tuple(y_shape))
        made = b.contract(x, y, format_spec(tuple(x_dims), tuple(y_dims), (*out, tail)))
        return b.reshape(made, (*made.shape[:-2], made.shape[-2] * made.shape[-1])), out

    def _runs(self, dims: Sequence[Dim]) -> list[list[int]]:
        """Summed dimensions, by their number among these, that may be one: each window with the labels behind it."""
        runs: list[list[int]] = []
        for k, d in enumerate(self.sums):
            if runs and is_plain(dims[d]) and dict(dims[self.sums[runs[-1][0]]])[self.summed[runs[-1][0]]] == 1:
                runs[-1].append(k)
            else:
                runs.append([k])
        return runs


def fresh(known: Container[str]) -> str:
    """A label that is not in use."""
    return next(label for label in map("m{}".format, count()) if label not in known)
