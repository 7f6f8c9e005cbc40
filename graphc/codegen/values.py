"""Emits the value of a graph node at an index: loads, arithmetic, conditions. Loops and stores are made elsewhere."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from graphc.codegen import extremes
from graphc.codegen.dealing import Rows, begins_row, block_start, load_rows
from graphc.codegen.kernel import INDEX, Affine, Param, Value, VType
from graphc.codegen.math import expand, expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.ir.access import SINGLE_READ, Divides, Index, Read, concat_reads, fold_reads
from graphc.ir.demand import base_of, indexed_read, is_reduction, needs_loop, places, reduction_extents, reduction_reads
from graphc.ir.index import Data, Ix, Symbol, Var, linear
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.types import DType, bf16, f16, f32, i32, i64, identity, pbf16


@record
class Masks:
    """What restricts loads: `tail` (lanes that exist), `conditions` (bools, scalar or vector, that must all hold).

    `scalars` are the parts of the conditions that are the same for all lanes: they restrict the load of one element.
    """

    tail: Value | None = None
    conditions: tuple[Value, ...] = ()
    scalars: tuple[Value, ...] = ()


NO_MASKS = Masks()


FEW = 16  # one of so many vectors may be far from the memory, and that costs less than to see to it


@record
class _Loaded:
    """Where a value was loaded: lanes `stride` apart from `index` on, or at `offsets` from it. They exist in the `tail`
    where all `conditions` hold, and are zeros elsewhere. `strays`: often that is far from the memory.
    """

    base: Node
    index: Affine
    stride: int
    tail: Value | None
    conditions: tuple[Value, ...]
    offsets: Value | None = None
    strays: bool = False

    def is_like(self, other: _Loaded) -> bool:
        """Whether the two differ in the place alone, and in conditions that are the same for all lanes."""
        if self.offsets is not None or other.offsets is not None:
            return False
        return (self.base, self.stride, self.tail) == (other.base, other.stride, other.tail) and (
            _of_lanes(self.conditions) == _of_lanes(other.conditions)
        )


def _of_lanes(conditions: tuple[Value, ...]) -> tuple[Value, ...]:
    return tuple(c for c in conditions if c.type.lanes > 1)


_Request = tuple[Node, Index, Masks]
_Steps = Generator[_Request, Value, Value]


def accumulator_dtype(dtype: DType) -> DType:
    """The dtype in which sums and products of `dtype` are kept."""
    return f32 if dtype in (f16, bf16, pbf16) else dtype


def factor_type(dtype: DType) -> DType:
    """The dtype in which elements of `dtype` are multiplied: pairs of bf16 as they are."""
    return dtype if dtype is pbf16 else accumulator_dtype(dtype)


class Values:
    """Computes node values. `env` maps loop variables to kernel values, `stages` holds finished reductions by node
    and index.
    """

    def __init__(self, e: ScopedEmitter, inside: frozenset[Node], buffers: Mapping[Node, Param]) -> None:
        self.e = e
        self.inside = inside
        self.buffers = buffers
        self.lane_count = 1
        self.fuses = False  # whether products are added to sums by one instruction
        self.clamps = False  # whether loads that read nothing stay near the memory (0021)
        self.env: dict[Var, Value] = {}
        self.data: dict[Data, Value] = {}  # indices read from memory, as last prepared
        self.stages: dict[tuple[Node, Index], Value] = {}
        self.kept: Mapping[Node, int] = {}  # values whose rows are kept; the length where the kernel has memory for one
        self._loads: dict[Value, _Loaded] = {}
        self._making: Node | None = None  # the kept value that is being computed
        self.turned: tuple[Var, int] | None = None  # an axis whose neighbours are loaded together, and the place on it
        self.dealt: frozenset[Rows] = frozenset()  # rows that are loaded together

    def at(self, node: Node, idx: Index, masks: Masks = NO_MASKS) -> Value:
        """The value of `node` at `idx`. Iterative: a chain of nodes needs no Python stack."""
        stack: list[tuple[object, _Steps]] = []
        request: _Request | None = (node, idx, masks)
        value: Value | None = None
        while True:
            if request is not None:
                key: object = (*request, self.e.epoch) if self.e.pinned else request
                known = self.stages.get((request[0], request[1])) or self.e.find(key)
                if known is not None:
                    value, request = known, None
                    continue
                steps = self._steps(*request)
                stack.append((key, steps))
                to_send = None
            else:
                if not stack:
                    assert value is not None
                    return value
                key, steps = stack[-1]
                to_send = value
            try:
                request = steps.send(to_send)  # type: ignore[arg-type]
                value = None
            except StopIteration as done:
                stack.pop()
                value, request = done.value, None
                self.e.remember(key, value)  # type: ignore[arg-type]

    def kept_at(self, node: Node, idx: Index, masks: Masks = NO_MASKS) -> Value:
        """The value of a kept `node` at `idx`, computed. Who asks for it at the same place finds it then."""
        self._making = node
        value = self.at(node, idx, masks)
        self._making = None
        return value

    def _steps(self, node: Node, idx: Index, masks: Masks) -> _Steps:
        e = self.e
        if node.op == "constant":
            return e.const(node.attr("value"), VType(node.dtype))  # type: ignore[arg-type]
        if node.op == "iota":
            yield from self._prepare(idx[node.integer("axis")], masks)
            return expand_cast(e, self.as_number(idx[node.integer("axis")]), node.dtype)
        base = base_of(node)
        if base not in self.inside and node is not self._making:
            yield from self._prepare(linear(idx, node.shape), masks)
            return self._load(base, linear(idx, node.shape), masks)
        if needs_loop(node):
            raise AssertionError(f"{node!r} is needed at {idx} but was not computed")
        if is_reduction(node):
            parts = []
            for over in places(reduction_extents(node)):
                (at,) = reduction_reads(node, idx, over)
                parts.append((yield node.inputs[0], at, masks))
            return self._finish(node, parts)
        if node.op in SINGLE_READ:
            read = SINGLE_READ[node.op](node, idx)
            value, condition = yield from self._read(node.inputs[0], read, masks)
            loaded = self._loads.get(value)
            if condition is None or (self._fills_zero(node) and loaded is not None and condition in loaded.conditions):
                return value
            return e.op("select", condition, value, self._fill(node))
        if node.op in ("concat", "fold"):
            reads = concat_reads(node, idx) if node.op == "concat" else fold_reads(node, idx)
            operands = node.inputs if node.op == "concat" else node.inputs * len(reads)
            total: Value | None = None
            for operand, read in zip(operands, reads, strict=True):
                value, condition = yield from self._read(operand, read, masks)
                if node.op == "concat":
                    # One of the parts has the element, so past the last of them no condition of theirs is left.
                    outer = masks if read is reads[-1] else None
                    if total is None or condition is None:
                        total = value
                    else:
                        total = self._chosen(condition, value, total, outer)
                else:
                    value = expand_cast(e, value, accumulator_dtype(node.dtype))
                    term = value if condition is None else e.op("select", condition, value, 0)
                    total = term if total is None else e.op("add", total, term)
            assert total is not None
            return expand_cast(e, total, node.dtype)
        if node.op in ("gather", "take_along"):
            data, _ = indexed_read(node, idx)
            yield from self._prepare_symbols(data, masks)
            return (yield node.inputs[0], data, masks)
        args = []
        for operand in node.inputs:
            args.append((yield operand, idx, masks))
        if node.op == "cast":
            return expand_cast(e, args[0], node.dtype)
        if node.op == "bitcast":
            return e.op("bitcast", args[0], to=node.dtype)
        return expand(e, node.op, *args)

    def _fills_zero(self, node: Node) -> bool:
        fill = self._fill(node)
        return fill == 0 and str(fill) != "-0.0"

    def _fill(self, node: Node) -> float | int | bool:
        value = node.attr("value")
        assert isinstance(value, (int, float))
        return value

    def _read(self, operand: Node, read: Read, masks: Masks) -> Generator[_Request, Value, tuple[Value, Value | None]]:
        """The operand's value at a read place, and the condition under which it counts (None: always)."""
        condition: Value | None = None
        scalar: Value | None = None
        for c in read.conditions:
            yield from self._prepare(c.index, masks)
            index = self.as_number(c.index)
            if isinstance(c, Divides):
                holds = self.e.op("eq", self._mod(index, c.number), 0)
            else:
                holds = self.e.op("lt", index, c.extent) if c.index.lo >= 0 else self.e.op("ge", index, 0)
                if c.index.lo < 0 and c.index.hi >= c.extent:
                    holds = self.e.op("and", holds, self.e.op("lt", index, c.extent))
            if holds.type.lanes == 1:
                scalar = holds if scalar is None else self.e.op("and", scalar, holds)
            condition = holds if condition is None else self.e.op("and", condition, holds)
        inner = masks
        if condition is not None:
            scalars = masks.scalars if scalar is None else (*masks.scalars, scalar)
            inner = Masks(masks.tail, (*masks.conditions, condition), scalars)
        yield from self._prepare_symbols(read.at, inner)
        value = yield operand, read.at, inner
        return value, condition

    def in_row(self, base: Node, ix: Ix) -> Ix:
        """Where element `ix` of a value lies: for one with a row of the kernel's own, in that."""
        length = self.kept.get(base, 0)
        if not length:
            return ix
        # What lies before or past the row is where masks let nothing be read: another place of the row is not the same.
        # Where no element lies in it, a loop that was left out decides which row this is.
        inner = Ix(ix.const, tuple((s, c) for s, c in ix.terms if abs(c) < length))
        if abs(ix.const) < length or (inner.lo < length and inner.hi >= 0):
            return inner
        return Ix(ix.const % length, inner.terms)

    def element(self, base: Node, ix: Ix) -> Value:
        """Element `ix`, an affine index, of the value `base` in memory."""
        return self._load(base, ix, NO_MASKS)

    # reductions, shared with the loops

    def _finish(self, node: Node, parts: list[Value]) -> Value:
        """Combine the elements of an unrolled reduction, in order."""
        if extremes.is_place(node):
            best, place = self.start(node)
            for number, part in enumerate(parts):
                wide = expand_cast(self.e, part, best.type.dtype)
                here = self.e.const(number, VType(place.type.dtype))
                best, place = extremes.step(self.e, node.op, best, place, wide, here)
            return expand_cast(self.e, place, node.dtype)
        # A sum of floats begins with +0.0, so it is never -0.0.
        total = self.start(node)[0] if node.op == "reduce_sum" and node.dtype.is_float else None
        for part in parts:
            wide = expand_cast(self.e, part, accumulator_dtype(part.type.dtype))
            total = wide if total is None else self.combine(node.op, total, wide)
        return expand_cast(self.e, total if total is not None else self.start(node)[0], node.dtype)

    def start(self, node: Node) -> tuple[Value, ...]:
        """The values that a reduction starts from: the identity, and for `argmax`/`argmin` the place 0 too."""
        dtype = accumulator_dtype(node.inputs[0].dtype)
        type = VType(dtype)
        kind = {"contract": "sum", "argmax": "max", "argmin": "min"}.get(node.op, node.op.removeprefix("reduce_"))
        first = self.e.const(identity(kind, dtype), type)
        if extremes.is_place(node):
            return first, self.e.const(0, VType(extremes.number_dtype(node)))
        return (first,)

    def combine(self, op: str, total: Value, part: Value) -> Value:
        """One step of a reduction other than `contract`, `argmax` and `argmin`."""
        if op == "reduce_sum":
            factors = self.e.factors(part) if self.fuses else None
            if factors is not None:
                return self.e.op("fma", *factors, total)
            return self.e.op("or" if part.type.dtype.kind == "bool" else "add", total, part)
        if op == "reduce_prod":
            return self.e.op("mul", total, part)
        if part.type.dtype.kind == "bool":
            return self.e.op("or" if op == "reduce_max" else "and", total, part)
        return self.e.op("maximum" if op == "reduce_max" else "minimum", total, part)

    # indices

    def _prepare(self, ix: Ix, masks: Masks) -> Generator[_Request, Value, None]:
        """Ask for the tensors that `ix` reads its data indices from, so that `index` finds them computed.

        What is read under one mask is zero where that does not hold, so each mask has its own.
        """
        found: dict[Data, Value] = {}
        for symbol in ix.symbols():
            if not isinstance(symbol, Data):
                continue
            value = self.e.find(("data", symbol, masks))
            if value is None:
                raw = yield symbol.node, symbol.at, masks
                value = self._clamped(raw, symbol.hi)
                self.e.remember(("data", symbol, masks), value)
            found[symbol] = value
        self.data.update(found)

    def prepare(self, symbol: Data) -> None:
        """Read an index from memory, so that addresses with it can be made."""
        self.data[symbol] = self._clamped(self.at(symbol.node, symbol.at), symbol.hi)

    def _clamped(self, raw: Value, hi: int) -> Value:
        wide = expand_cast(self.e, raw, i64)
        low = self.e.op("select", self.e.op("lt", wide, 0), 0, wide)
        return self.e.op("select", self.e.op("gt", low, hi), hi, low)

    def _prepare_symbols(self, at: Index, masks: Masks) -> Generator[_Request, Value, None]:
        for ix in at:
            if any(not isinstance(s, Var) for s, _ in ix.terms):
                yield from self._prepare(ix, masks)

    def index(self, ix: Ix) -> Value:
        """The index as an i64 value: a vector when it varies across lanes."""
        total: Value | None = None
        for symbol, coefficient in ix.terms:
            term = self._symbol(symbol)
            if coefficient != 1:
                term = self.e.op("mul", term, coefficient)
            total = term if total is None else self.e.op("add", total, term)
        if total is None:
            return self.e.const(ix.const, INDEX)
        return self.e.op("add", total, ix.const) if ix.const else total

    def number(self, ix: Ix, dtype: DType) -> Value:
        """The index as a value of `dtype`, which it fits; what varies across lanes is never computed in i64."""
        stride = sum(c for s, c in ix.terms if isinstance(s, Var) and s.lane)
        if not stride:
            return expand_cast(self.e, self.index(ix), dtype)
        same = self.index(Ix(0, tuple((s, c) for s, c in ix.terms if not (isinstance(s, Var) and s.lane))))
        across = self.e.lanes(dtype, self.lane_count)
        if stride != 1:
            across = self.e.op("mul", across, stride)
        if ix.const:
            across = self.e.op("add", across, ix.const)
        return self.e.op("add", across, expand_cast(self.e, same, dtype))

    def as_number(self, ix: Ix) -> Value:
        """The index as a number: in i32 where it varies across lanes and fits, since that takes half a register."""
        across = any(isinstance(s, Var) and s.lane for s, _ in ix.terms)
        fits = ix.lo >= -extremes.MAX_I32 and ix.hi <= extremes.MAX_I32
        return self.number(ix, i32) if across and fits else self.index(ix)

    def _mod(self, index: Value, number: int) -> Value:
        return self.e.op("mod" if index.type.lanes == 1 else "urem", index, number)

    def _symbol(self, symbol: Symbol) -> Value:
        if isinstance(symbol, Var):
            return self.e.lanes(i64, self.lane_count) if symbol.lane else self.env[symbol]
        if isinstance(symbol, Data):
            return self.data[symbol]
        of = self.index(symbol.of)
        if symbol.op == "clamp":
            low = self.e.op("select", self.e.op("lt", of, 0), 0, of)
            return self.e.op("select", self.e.op("gt", low, symbol.number), symbol.number, low)
        if symbol.op == "mod":
            return self._mod(of, symbol.number)
        return self.e.op("floordiv" if of.type.lanes == 1 else "udiv", of, symbol.number)

    def address(self, ix: Ix) -> tuple[Affine, int, Value | None]:
        """`ix` as scalar part, lane stride, and vector offsets (None: stride alone)."""
        terms: list[tuple[Value, int]] = []
        stride, offsets = 0, None
        for symbol, coefficient in ix.terms:
            if isinstance(symbol, Var) and symbol.lane:
                stride = coefficient
                continue
            value = self._symbol(symbol)
            if value.type.lanes == 1:
                terms.append((value, coefficient))
            else:
                scaled = self.e.op("mul", value, coefficient) if coefficient != 1 else value
                offsets = scaled if offsets is None else self.e.op("add", offsets, scaled)
        if offsets is not None and stride:
            offsets = self.e.op("add", offsets, self.e.op("mul", self.e.lanes(i64, self.lane_count), stride))
        return Affine(ix.const, tuple(terms)), 0 if offsets is not None else stride, offsets

    def _load(self, base: Node, ix: Ix, masks: Masks) -> Value:
        place = self.in_row(base, ix)
        affine, stride, offsets = self.address(place)
        wide = stride != 0 or offsets is not None
        # One element does not depend on the dimension of the lanes, and so not on what restricts that.
        tail, conditions = (masks.tail, masks.conditions) if wide else (None, masks.scalars)
        if tail is None and not conditions and offsets is None and abs(stride) > 1:
            if (base, stride) in self.dealt and begins_row(ix, stride):
                number, length = ix.const % stride, min(stride, self.lane_count)
                start = block_start(number, stride, self.lane_count)
                return self._load_block(base, affine, stride, number - start, length)
            if self.turned is not None:
                (axis, number), back = self.turned, self.lane_count - 1
                along = ix.coefficient(axis)
                if along == 1:
                    return self._load_block(base, affine, stride, number, self.lane_count)
                if along == -1:  # places are numbered from the other end of the block
                    return self._load_block(base, affine, stride, back - number, self.lane_count)
        strays = self.clamps and stride != 0 and bool(conditions) and self._strays(base, place, stride)
        return self._load_at(_Loaded(base, affine, stride, tail, conditions, offsets, strays))

    def _limits(self, base: Node, stride: int) -> tuple[int, int]:
        """Between which places a vector begins that has an element in memory."""
        reach = (1 - self.lane_count) * stride
        return min(0, reach), self.buffers[base].size - 1 + max(0, reach)

    def _strays(self, base: Node, ix: Ix, stride: int) -> bool:
        """Whether many of the vectors that `ix` names have no element in memory."""
        low, high = self._limits(base, stride)
        first = Ix(ix.const, tuple(t for t in ix.terms if not (isinstance(t[0], Var) and t[0].lane)))
        outside = max(low - first.lo, 0) + max(first.hi - high, 0)
        return outside * FEW > first.hi - first.lo

    def _load_at(self, place: _Loaded) -> Value:
        wide = place.stride != 0 or place.offsets is not None
        mask = place.tail
        for condition in place.conditions:
            mask = condition if mask is None else self.e.op("and", mask, condition)
        if mask is not None and wide:
            mask = self.e.splat(mask, self.lane_count)
        base = place.base
        type = VType(base.dtype, self.lane_count if wide else 1)
        index = place.index
        if place.strays:
            low, high = self._limits(base, place.stride)
            first = self._number(index)
            first = self.e.op("select", self.e.op("lt", first, low), low, first)
            index = Affine(0, ((self.e.op("select", self.e.op("gt", first, high), high, first), 1),))
        pinned, self.e.pinned = self.e.pinned, self.e.pinned or base in self.kept  # what was stored just now
        value = self.e.load(type, self.buffers[base], index, place.stride, place.offsets, mask)
        self.e.pinned = pinned
        self._loads[value] = place
        return value

    def _chosen(self, condition: Value, value: Value, other: Value, outer: Masks | None) -> Value:
        """`value` where the condition holds, else `other`. Where all lanes choose alike between two places of one
        buffer, the place is chosen rather than both loaded. It exists where one of them does, or as `outer` says.
        """
        e, first, second = self.e, self._loads.get(value), self._loads.get(other)
        if first is None or second is None or condition.type.lanes > 1 or not first.is_like(second):
            return e.op("select", condition, value, other)
        # What is chosen is the same for all vectors of a row.
        common = tuple(term for term in first.index.terms if term in second.index.terms)
        here, there = (tuple(t for t in p.index.terms if t not in common) for p in (first, second))
        moved = e.op(
            "select",
            condition,
            self._number(Affine(0, here)),
            self._number(Affine(second.index.const - first.index.const, there)),
        )
        index = Affine(first.index.const, (*common, (moved, 1)))
        if outer is not None:
            conditions = outer.conditions if first.stride else outer.scalars
        else:
            exists = [self._all(p.conditions) for p in (first, second)]
            needed = () if None in exists else (e.op("or", *(c for c in exists if c is not None)),)
            conditions = (*_of_lanes(first.conditions), *needed)
        return self._load_at(_Loaded(first.base, index, first.stride, first.tail, conditions))

    def _number(self, index: Affine) -> Value:
        total = self.e.const(index.const, INDEX)
        for value, coefficient in index.terms:
            total = self.e.op("add", total, self.e.op("mul", value, coefficient) if coefficient != 1 else value)
        return total

    def _all(self, conditions: tuple[Value, ...]) -> Value | None:
        """Whether those conditions hold that are the same for all lanes; None where there are none."""
        all_hold: Value | None = None
        for condition in conditions:
            if condition.type.lanes == 1:
                all_hold = condition if all_hold is None else self.e.op("and", all_hold, condition)
        return all_hold

    def _load_block(self, base: Node, affine: Affine, step: int, place: int, length: int) -> Value:
        """Place `place` of a block: `length` places of rows `step` apart are loaded along rows and transposed
        in registers.
        """
        origin = Affine(affine.const - place, affine.terms)
        key = ("block", base, origin, step, length)
        known = self.e.find((*key, place))
        if known is not None:
            return known
        rows = load_rows(self.e, self.buffers[base], origin, step, base.dtype, self.lane_count, length)
        for number, row in enumerate(rows):
            self.e.remember((*key, number), row)
        return rows[place]


def regroup(flat: Sequence[Value], like: list[list[Value]]) -> list[list[Value]]:
    """`flat` cut into lists of the lengths of `like`."""
    result, position = [], 0
    for part in like:
        result.append(list(flat[position : position + len(part)]))
        position += len(part)
    return result
