"""Convolutions with fewer multiplications: minimal filtering along an axis.

A contraction that slides a short window along an axis (a convolution or its gradient by the input), or that gives a
result for each of a few shifts (the gradient by the weights), is computed a tile at a time: `m` neighbouring positions
with a window of `r` take `m + r - 1` products instead of `m * r` (Winograd 1980; Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", 2016). Both operands are transformed, which are additions of rows; one contraction with
the place in the tile as one more label multiplies; its results are added up to those of the convolution.

Along one axis this asks for half the products, in tiles of four with three taps, and no more than one and a half times
the memory. Two axes ask for fewer products yet, but for two and a quarter times to four times the memory. A window that
steps by several places is taken by phases, in each of which it steps by one.

All that belongs to a row of tiles stands together: what is made of it and of its results then stays in a near cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial

from graphc.ir.builder import Builder
from graphc.ir.contraction import ContractSpec, Dim, format_spec, is_plain, multiply_adds, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.narrow import narrow_dtype
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.schedule import stays_near
from graphc.ir.types import f32
from graphc.passes.base import PRIMITIVE, Pass, rebuild
from graphc.passes.cook_toom import MAX_PLACES, Filter, minimal_filter
from graphc.passes.polyphase import Polyphase
from graphc.passes.positions import Positions, fresh

COPY, NEAR = 24, 14  # products that making, storing and reading a transformed element counts for; in a near cache
BYTES = 6  # that kernels of transforms move for each such element on a GPU, where products share some of them
FEWER = 1.5  # how many times fewer products a window over phases must take at best
STEP, STEP_ON_GPU = 1 << 13, 1 << 25  # products that one more kernel counts for
GAIN = 1.15  # how many times fewer products there must be, with all that counts as such
MIN_ROW = 8  # elements that lie side by side at each place of the axis, so that transforms add whole vectors
MIN_ROW_ON_GPU = 4  # likewise, so that threads touch whole sectors of memory


@record(slots=False)
class MinimalFiltering(Pass):
    """Compute convolutions in f32 by minimal filtering along one axis where that takes less time; `lanes` is the
    vector width in elements, `cache_bytes` the size of a core's cache. `balance` tells that blocks of threads of a GPU
    multiply, which does so many multiply-adds while its memory moves a byte.

    Sums are formed in another order, with rounding errors of the same size; an infinity or NaN turns all results of
    its tile into NaN.
    """

    name = "minimal_filtering"
    doc = "compute convolutions over many channels with fewer multiplications"
    requires = (PRIMITIVE,)

    lanes: int = 8
    cache_bytes: int = 512 << 10
    balance: float | None = None

    def run(self, graph: Graph) -> Graph:
        if not any(n.op == "contract" for n in graph.nodes):
            return graph
        return rebuild(graph, partial(_rewrite, self))


def _rewrite(given: MinimalFiltering, b: Builder, node: Node) -> Node | None:
    if node.op != "contract" or any(x.dtype is not f32 for x in (node, *node.inputs)):
        return None
    if given.balance is not None and any(narrow_dtype(x) is not f32 for x in node.inputs):
        return None  # instructions on matrices take 16 bits as they are
    found: list[tuple[_Tiling, Polyphase | None]] = [(t, None) for t in _tilings(node, given)]
    for phases in _strided(node):
        found += ((t, phases) for t in _tilings(phases.contraction(b), given, phases))
    tiling, phases = min(found, key=lambda pair: pair[0].cost, default=(None, None))
    if tiling is None or tiling.cost * GAIN > multiply_adds(node):
        return None
    made = tiling.build(b)
    return made if phases is None else phases.result(b, made)


def _windows(node: Node) -> Iterator[tuple[int, int, tuple[str, int], tuple[str, int]]]:
    """The windows of a contraction: operand and dimension, the label that is summed over and that of the result, each
    with its coefficient.
    """
    spec = parse_spec(node.text("spec"))
    for side in (0, 1):
        mine, other = spec.operands[side], spec.operands[1 - side]
        for dim, terms in enumerate(mine):
            if len(terms) != 2:
                continue
            for met, kept in (terms, terms[::-1]):
                if ((met[0], 1),) not in other or met[0] in spec.out or kept[0] not in spec.out:
                    continue
                if not any(kept[0] == label for dims in other for label, _ in dims):
                    yield side, dim, met, kept


def _strided(node: Node) -> Iterator[Polyphase]:
    """The windows of a contraction that step by several places, and may take fewer products over phases."""
    for side, dim, met, kept in _windows(node):
        (tap, one), (positions, step) = (met, kept) if kept[1] > 1 else (kept, met)
        if one != 1 or step == 1:
            continue
        phases = Polyphase(node, side, dim, positions, tap, step)
        extents = parse_spec(node.text("spec")).extents(node.inputs[0].shape, node.inputs[1].shape)
        if 0 in extents.values() or not 1 < phases.taps < min(extents[positions], MAX_PLACES):
            continue
        places = _most_places(phases.taps)
        if extents[tap] * (places - phases.taps + 1) >= FEWER * step * places:
            yield phases


def _most_places(taps: int) -> int:
    """Products of the largest tile. For two taps 5 and 6 of them double the rounding errors of 4, and save a tenth."""
    return 4 if taps == 2 else MAX_PLACES


def _tilings(node: Node, given: MinimalFiltering, phases: Polyphase | None = None) -> Iterator[_Tiling]:
    """All ways to tile one axis of a contraction; the one over `phases` if it has some."""
    spec = parse_spec(node.text("spec"))
    extents = spec.extents(node.inputs[0].shape, node.inputs[1].shape)
    if 0 in extents.values():
        return
    for side, dim, (met, step), (kept, other) in _windows(node):
        if step != 1 or other != 1 or (phases is not None and (side, dim) != (phases.side, phases.dim)):
            continue
        long, short = (met, kept) if extents[met] > extents[kept] else (kept, met)
        for size in range(2, min(_most_places(extents[short]) - extents[short] + 1, extents[long]) + 1):
            if extents[short] > 1:
                yield _Tiling(node, spec, side, dim, met, kept, long, extents[long], extents[short], size, given)


@record
class _Tiling:
    """How to compute the contraction `node` in tiles of `size` along dimension `dim` of operand `side`.

    The label `met` is summed over and stands in the other operand too, `kept` is one of the result. `long` is that of
    the two which is tiled, of extent `length`; the other has the extent `short`.
    """

    node: Node
    spec: ContractSpec
    side: int
    dim: int
    met: str
    kept: str
    long: str
    length: int
    short: int
    size: int
    given: MinimalFiltering

    @property
    def tiles(self) -> int:
        return -(-self.length // self.size)

    @property
    def places(self) -> int:
        """Products of one tile."""
        return self.size + self.short - 1

    @property
    def _is_over_taps(self) -> bool:
        """Whether the sum runs over the window, rather than over the positions."""
        return self.met != self.long

    @property
    def cost(self) -> float:
        """About how many products take as long as the tiled contraction with all transformations."""
        x, y, balance = self.node.inputs[self.side], self.node.inputs[1 - self.side], self.given.balance
        rows = ((self.node, self._kept_dim) if self._is_over_taps else (y, self._met_dim), (x, self.dim))
        if any(self._row(*row) < (MIN_ROW if balance is None else MIN_ROW_ON_GPU) for row in rows):
            return math.inf
        products = multiply_adds(self.node) / (self.length * self.short) * self.tiles * self.places
        if balance is not None:
            return products + BYTES * balance * sum(self._moved) + 3 * STEP_ON_GPU
        return products + (NEAR if self._by_rows else COPY) * sum(self._moved) + 3 * STEP

    @property
    def _moved(self) -> tuple[int, int, int]:
        """Elements of the transformed operands, the one with the window first, and of the products."""
        x, y = self.node.inputs[self.side], self.node.inputs[1 - self.side]
        each = self.tiles * self.places
        others = [
            other.type.size // extent * (each if extent == self.length else self.places)
            for other, extent in ((y, y.shape[self._met_dim]), (self.node, self.node.shape[self._kept_dim]))
        ]
        return x.type.size // x.shape[self.dim] * each, others[0], others[1]

    @property
    def _by_rows(self) -> bool:
        """Whether rows of tiles go one after the other: what belongs to one stays in a core's cache, with the
        weights. Blocks of a GPU take all at once.
        """
        data, weights, made = self._moved
        x = self.node.inputs[self.side]
        own = (data + made) * x.dtype.itemsize // (self.tiles * math.prod(x.shape[: self._front]))
        stays = stays_near(own, weights * x.dtype.itemsize, self.given.cache_bytes)
        return stays and self._is_over_taps and self.given.balance is None

    @property
    def _front(self) -> int:
        """Where rows of tiles, or places in a tile, stand in transformed tensors: behind the samples."""
        return min(1, self.dim)

    @property
    def _met_dim(self) -> int:
        return self.spec.operands[1 - self.side].index(((self.met, 1),))

    @property
    def _kept_dim(self) -> int:
        return self.spec.out.index(self.kept)

    @staticmethod
    def _row(x: Node, dim: int) -> int:
        """Elements that lie side by side at one place of a dimension."""
        return math.prod(x.shape[dim + 1 :])

    def build(self, b: Builder) -> Node:
        """The result of the contraction."""
        place = fresh(self.spec.labels)
        outputs, taps = (self.size, self.short) if self._is_over_taps else (self.short, self.size)
        plan = minimal_filter(outputs, taps)
        positions = Positions(*self._sides, self.spec.out, self.given.lanes)
        in_lanes = not self._is_over_taps and self.given.balance is None
        if in_lanes and positions.fits(self.node.inputs[self.side]):
            return self._over_positions(b, plan, positions, place)
        x, x_dims = self._data(b, plan, place)
        if self._is_over_taps:
            y, y_dims, block = self._weights(b, plan, place)
            x, x_dims = _split(b, x, x_dims, block)
        else:
            y, y_dims = self._taps(b, plan, place)
        out = self._labels(place)
        operands, dims = [x, y], [x_dims, y_dims]
        if self.side:
            operands.reverse()
            dims.reverse()
        made = b.contract(operands[0], operands[1], format_spec(dims[0], dims[1], tuple(out)))
        return self._results(b, plan, made, out, place)

    def _labels(self, place: str) -> list[str]:
        """The dimensions of the products of all places, in the order in which they are stored."""
        out = [label for label in self.spec.out if label != self.kept or self._is_over_taps]
        if not self._by_rows:
            out.insert(min(1, self._kept_dim) if self._is_over_taps else 0, place)
            return out
        out.remove(self.kept)
        out.insert(min(self._front, self._kept_dim), self.kept)
        mine, other = self._sides
        last = next((label for label in out if ((label, 1),) in other), None)
        if last is not None and any(step > 1 for dim in mine for _, step in dim):
            # Neighbours along the other axis are not vectors: what the weights have fills the lanes.
            out.remove(last)
            out.append(last)
        # All places of a row side by side: rows that begin at one place of pages push each other out of the caches.
        out.insert(len(out) - 1, place)
        return out

    @property
    def _sides(self) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
        """The dimensions of the operand with the window, and of the other one."""
        return self.spec.operands[self.side], self.spec.operands[1 - self.side]

    def _over_positions(self, b: Builder, plan: Filter, positions: Positions, place: str) -> Node:
        """The result of a sum over positions."""
        x, y = (self.node.inputs[k] for k in (self.side, 1 - self.side))
        x, y = positions.arranged_x(b, x), positions.arranged_y(b, y)
        rows = _rows(b, x, positions.place(self.dim), self.tiles, self.size, self.places)
        dim = y.type.rank - len(positions.sums) + positions.sums.index(self.dim)
        taps = _rows(b, y, dim, self.tiles, self.size, self.size)
        x = _joined(b, [_combined(b, row, rows) for row in plan.data], 0)
        y = _joined(b, [_combined(b, row, taps) for row in plan.taps], 0)
        dims = list(positions.x)
        dims[self.dim] = ((self.met, 1),)
        made, labels = positions.contract(b, x, y, dims, (place,))
        return self._results(b, plan, made, labels, place)

    def _data(self, b: Builder, plan: Filter, place: str) -> tuple[Node, tuple[Dim, ...]]:
        """The operand with the window, transformed: its dimension becomes the tiles, with a dimension of places."""
        x, at = self.node.inputs[self.side], self._front
        tiled = _rows(b, x, self.dim, self.tiles, self.size, self.places)
        parts = [_combined(b, row, tiled) for row in plan.data]
        dims = list(self.spec.operands[self.side])
        dims[self.dim] = ((self.long, 1),)
        if self._by_rows:
            order = [d for d in range(x.type.rank) if d != self.dim]
            order.insert(at, self.dim)
            parts = [b.permute(part, tuple(order)) for part in parts]
            dims = [dims[d] for d in order]
            at += 1
        dims.insert(at, ((place, 1),))
        return _joined(b, parts, at), tuple(dims)

    def _taps(self, b: Builder, plan: Filter, place: str) -> tuple[Node, tuple[Dim, ...]]:
        """The other operand, transformed, where positions are summed over."""
        y, dim = self.node.inputs[1 - self.side], self._met_dim
        dims = list(self.spec.operands[1 - self.side])
        tiled = _rows(b, y, dim, self.tiles, self.size, self.size)
        at = min(1, dim)
        dims.insert(at, ((place, 1),))
        return _joined(b, [_combined(b, row, tiled) for row in plan.taps], at), tuple(dims)

    def _weights(self, b: Builder, plan: Filter, place: str) -> tuple[Node, tuple[Dim, ...], _Block | None]:
        """The other operand, transformed, where taps are summed over, and the block of a label that it is in.

        Channels that are summed over lie side by side in blocks, each with the taps along other axes: so weights are
        stored as whole vectors, and read from end to end. On a GPU results lie side by side, as in shared memory.
        """
        y, dim = self.node.inputs[1 - self.side], self._met_dim
        rows = [_one(b, row, dim) for row in _rows(b, y, dim, 1, self.short, self.short)]
        dims = self.spec.operands[1 - self.side]
        dims = (*dims[:dim], *dims[dim + 1 :])
        ranks = {d[0][0]: self._rank(d) for d in dims}
        summed = [label for label, rank in ranks.items() if rank == 1]
        block: _Block | None = None
        if summed and self.given.balance is None:
            inner, width = summed[-1], 2 * self.given.lanes
            extent = rows[0].shape[dims.index(((inner, 1),))]
            if extent > width and extent % width == 0:
                block = _Block(inner, fresh({place, *self.spec.labels}), width)
                inner = block.inside
                split = [_split(b, row, dims, block) for row in rows]
                rows, dims = [row for row, _ in split], split[0][1]
            ranks[inner] = 3
        order = sorted(range(len(dims)), key=lambda d: ranks[dims[d][0][0]])
        rows = [b.permute(row, tuple(order)) for row in rows]
        made = _joined(b, [_combined(b, row, rows) for row in plan.taps], 0)
        return made, (((place, 1),), *(dims[d] for d in order)), block

    def _rank(self, dim: Dim) -> int:
        """Where a dimension of the weights comes: results, then channels that are summed over, then other taps."""
        label = dim[0][0]
        if label in self.spec.out:
            return 0 if self.given.balance is None else 3
        slides = any(not is_plain(d) and any(x == label for x, _ in d) for d in self.spec.operands[self.side])
        return 2 if slides else 1

    def _results(self, b: Builder, plan: Filter, made: Node, labels: Sequence[str], place: str) -> Node:
        """The results of the convolution from those of all places, whose dimensions are `labels`."""
        parts = []
        at = labels.index(place)
        rest = [label for label in labels if label != place]
        perm = tuple(rest.index(label) for label in self.spec.out if label in rest)
        for k in range(self.places):
            start = tuple(k if d == at else 0 for d in range(made.type.rank))
            size = tuple(1 if d == at else n for d, n in enumerate(made.shape))
            part = b.slice(made, start, size, (1,) * made.type.rank)
            parts.append(b.permute(b.reshape(part, (*size[:at], *size[at + 1 :])), perm))
        d = self._kept_dim
        results = _joined(b, [_combined(b, row, parts) for row in plan.results], d + self._is_over_taps)
        shape = list(self.node.shape)
        shape[d] = self.tiles * self.size if self._is_over_taps else self.short
        results = b.reshape(results, tuple(shape))
        if results.shape == self.node.shape:
            return results
        return b.slice(results, (0,) * len(shape), self.node.shape, (1,) * len(shape))


@record
class _Block:
    """A label that is cut into blocks of `size`, the places in a block with the label `inside`."""

    label: str
    inside: str
    size: int


def _split(b: Builder, x: Node, dims: tuple[Dim, ...], block: _Block | None) -> tuple[Node, tuple[Dim, ...]]:
    """`x` with the dimension of the block's label as two."""
    if block is None:
        return x, dims
    d = dims.index(((block.label, 1),))
    x = b.reshape(x, (*x.shape[:d], x.shape[d] // block.size, block.size, *x.shape[d + 1 :]))
    return x, (*dims[: d + 1], ((block.inside, 1),), *dims[d + 1 :])


def _rows(b: Builder, x: Node, dim: int, tiles: int, step: int, count: int) -> list[Node]:
    """For each of `count` places in a tile the elements of all tiles, which begin `step` apart; zeros past the end."""
    rank = x.type.rank
    missing = (tiles - 1) * step + count - x.shape[dim]
    if missing > 0:
        x = b.pad(x, (0,) * rank, tuple(missing if d == dim else 0 for d in range(rank)))
    size = tuple(tiles if d == dim else n for d, n in enumerate(x.shape))
    steps = tuple(step if d == dim and tiles > 1 else 1 for d in range(rank))
    return [b.slice(x, tuple(k if d == dim else 0 for d in range(rank)), size, steps) for k in range(count)]


def _one(b: Builder, x: Node, dim: int) -> Node:
    """`x` without its dimension `dim`, which has one place."""
    return b.reshape(x, (*x.shape[:dim], *x.shape[dim + 1 :]))


def _joined(b: Builder, parts: Sequence[Node], at: int) -> Node:
    """The parts side by side along a new dimension."""
    shape = parts[0].shape
    return b.concat(tuple(b.reshape(x, (*shape[:at], 1, *shape[at:])) for x in parts), at)


def _combined(b: Builder, row: Sequence[Fraction], xs: Sequence[Node]) -> Node:
    """The sum of `xs` with the factors `row`, the largest factors first, so that the first is positive if one is."""
    total: Node | None = None
    for factor, x in sorted(zip(row, xs, strict=True), key=lambda term: -term[0]):
        if factor == 0:
            continue
        if total is None:
            total = x if factor == 1 else b.mul(x, float(factor))
        elif factor == -1:
            total = b.sub(total, x)
        else:
            total = b.add(total, x if factor == 1 else b.mul(x, float(factor)))
    assert total is not None
    return total
