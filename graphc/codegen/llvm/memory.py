"""Loads and stores: addresses, strides, offsets and masks."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from graphc.codegen.kernel import (
    Affine,
    Kernel,
    Load,
    Op,
    Param,
    Prefetch,
    Store,
    Value,
    VType,
    statements,
)
from graphc.codegen.llvm.function import Function
from graphc.codegen.llvm.spelling import lane_mask, lane_numbers, memory_element, memory_type, register_type, suffix
from graphc.ir.demand import WIDE_STRIDE
from graphc.ir.types import boolean, i32, i64

_ALL = "splat (i1 true)"
# Accesses with one moving address and different displacements, from which on that address is kept apart.
_MANY = 4
_NOWHERE = 1 << 62  # beyond whatever a vector holds


def accesses(kernel: Kernel) -> Iterator[Load | Store]:
    """All loads and stores of `kernel`, loops and conditions included."""
    return (s for s in statements(kernel.body) if isinstance(s, (Load, Store)))


_FOLDED: dict[str, Callable[[Any, Any], Any]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "lt", "le", "gt", "ge", "eq", "ne")},
    **{"and": operator.and_, "or": operator.or_},
}


def known_lanes(kernel: Kernel) -> dict[Value, tuple[Any, ...]]:
    """The integers and masks of `kernel` that depend on nothing but the number of the lane."""
    known: dict[Value, tuple[Any, ...]] = {}
    for statement in statements(kernel.body):
        if not isinstance(statement, Op) or statement.result.type.dtype not in (i32, i64, boolean):
            continue  # indices, which fit their type, and masks
        name, lanes = statement.name, statement.result.type.lanes
        if name == "lanes":
            known[statement.result] = tuple(range(lanes))
        elif name == "const":
            known[statement.result] = (statement.attr,) * lanes
        elif all(arg in known for arg in statement.args):
            operands = [known[arg] for arg in statement.args]
            if name == "splat":
                known[statement.result] = operands[0] * lanes
            elif name in _FOLDED:
                known[statement.result] = tuple(map(_FOLDED[name], *operands))
    return known


def first_lanes(masks: Mapping[Value, tuple[Any, ...]]) -> dict[Value, int]:
    """The masks that hold in the first lanes alone, and in how many: what a loop leaves of its axis."""
    found: dict[Value, int] = {}
    for value, holds in masks.items():
        if value.type.dtype.kind == "bool" and 0 < sum(holds) < len(holds) and all(holds[: sum(holds)]):
            found[value] = sum(holds)
    return found


def _mask(holds: Iterable[bool]) -> str:
    """A mask as it is written."""
    return f"<{', '.join(f'i1 {str(bool(each)).lower()}' for each in holds)}>"


class Memory:
    """Translates `Load` and `Store` of one kernel. `pointers` names the argument of each buffer."""

    def __init__(self, function: Function, kernel: Kernel) -> None:
        self.f = function
        self.pointers = {p: f"%p{i}" for i, p in enumerate(kernel.params)}
        self.pointers.update({p: f"%own{i}" for i, p in enumerate(kernel.own)})
        self._known = known_lanes(kernel)
        self._first = first_lanes(self._known)
        self._by_lane = function.target.vector_bytes < 64  # AVX-512 has instructions for elements that lie apart
        self._uses = Counter((a.buffer, a.index.terms) for a in accesses(kernel))

    def address(self, buffer: Param, index: Affine, shift: int = 0) -> str:
        """The address of element `index + shift`.

        The part that depends on outer values is computed in the outer scopes, once for each distinct sum; the constant
        is added last, in the current block, where it disappears into the addressing mode.
        """
        f = self.f
        constant = index.const + shift
        by_depth: dict[int, dict[Value, int]] = {}
        for value, coefficient in index.terms:
            if value in f.integers:
                constant += f.integers[value] * coefficient
            else:
                terms = by_depth.setdefault(f.depths[value], {})
                terms[value] = terms.get(value, 0) + coefficient
        element = memory_element(buffer.dtype)
        base = self.pointers[buffer]
        for depth in sorted(by_depth):
            terms = {v: c for v, c in by_depth[depth].items() if c}
            if terms:
                base = self._advance(base, element, depth, terms)
        if by_depth and self._uses[buffer, index.terms] >= _MANY:
            base = self._opaque(max(by_depth), base)
        if not constant:
            return base
        return self._gep(len(f.scopes) - 1, base, element, str(constant))

    def _opaque(self, depth: int, base: str) -> str:
        """`base` behind a `freeze`, which costs nothing in machine code.

        LLVM's loop strength reduction then sees one moving pointer with fixed displacements. Without it each place of a
        register tile is an induction variable of its own, and weighing them is a third of the compile time.
        """
        scope = self.f.scopes[depth]
        known = scope.known.get(("freeze", base))
        if known is None:
            known = scope.known["freeze", base] = self.f.fresh()
            scope.lines.append(f"  {known} = freeze ptr {base}")
        return known

    def _advance(self, base: str, element: str, depth: int, terms: dict[Value, int]) -> str:
        """`base` plus the sum of `terms`, all of which are defined at `depth`."""
        f = self.f
        scope = f.scopes[depth]
        total, total_bounded = "", True
        for value, coefficient in terms.items():
            bounded = value in f.bounded
            product = f.names[value]
            if coefficient != 1:
                key = ("mul", product, coefficient)
                known = scope.known.get(key)
                if known is None:
                    known = scope.known[key] = f.fresh()
                    scope.lines.append(f"  {known} = mul {'nsw ' if bounded else ''}i64 {product}, {coefficient}")
                product = known
            total_bounded = total_bounded and bounded
            if not total:
                total = product
                continue
            key = ("add", total, product)
            known = scope.known.get(key)
            if known is None:
                known = scope.known[key] = f.fresh()
                scope.lines.append(f"  {known} = add {'nsw ' if total_bounded else ''}i64 {total}, {product}")
            total = known
        return self._gep(depth, base, element, total)

    def _gep(self, depth: int, base: str, element: str, index: str) -> str:
        scope = self.f.scopes[depth]
        key = ("gep", base, element, index)
        known = scope.known.get(key)
        if known is None:
            known = scope.known[key] = self.f.fresh()
            scope.lines.append(f"  {known} = getelementptr {element}, ptr {base}, i64 {index}")
        return known

    def load(self, statement: Load) -> None:
        """Translate one `Load`."""
        f = self.f
        type = statement.result.type
        lanes, stride = type.lanes, statement.stride
        hint = statement.result.name
        mask = f.names[statement.mask] if statement.mask is not None else None
        if lanes == 1:
            name = self._load_scalar(statement, mask, hint)
        elif statement.offsets is not None:
            pointers = self._lane_pointers(statement.buffer, statement.index, statement.offsets, 0, lanes)
            name = self._gather(type, pointers, mask or _ALL, hint)
        elif stride == 1:
            name = self._load_plain(type, self.address(statement.buffer, statement.index), mask, hint)
        elif stride == -1:
            start = self.address(statement.buffer, statement.index, 1 - lanes)
            mask = self._moved_mask(statement.mask, range(lanes - 1, -1, -1)) if statement.mask is not None else None
            name = self._reverse(self._load_plain(type, start, mask, ""), memory_type(type), lanes, hint)
        elif self._is_wide(stride, lanes, statement.mask):
            name = self._load_strided(statement, self._first.get(statement.mask, lanes), mask)  # type: ignore[arg-type]
        elif self._is_in_one(stride, lanes, statement.mask):
            name = self._load_part(statement, self._first[statement.mask])  # type: ignore[index]
        elif statement.mask is not None and self._is_apart(type, stride):
            name = self._load_apart(statement, statement.mask)
        elif self._by_lane and stride and (mask is None or statement.mask in self._first):
            name = self._load_lanes(statement, self._first.get(statement.mask, lanes))  # type: ignore[arg-type]
        else:
            pointers = self._lane_pointers(statement.buffer, statement.index, None, stride, lanes)
            name = self._gather(type, pointers, mask or _ALL, hint)
        if type.dtype.kind == "bool":
            name = f.emit(
                f"icmp ne {memory_type(type)} {name}, zeroinitializer" if lanes > 1 else f"icmp ne i8 {name}, 0"
            )
        f.define(statement.result, name)

    def _load_scalar(self, statement: Load, mask: str | None, hint: str) -> str:
        f = self.f
        dtype = statement.result.type.dtype
        address = self.address(statement.buffer, statement.index)
        if statement.offsets is not None:
            element = memory_element(dtype)
            address = f.emit(f"getelementptr {element}, ptr {address}, i64 {f.names[statement.offsets]}")
        if mask:
            # A false mask reads a zero elsewhere: no branch, and the masked address is not touched.
            address = f.emit(f"select i1 {mask}, ptr {address}, ptr {f.zero_address()}")
        return f.emit(f"load {memory_element(dtype)}, ptr {address}, align {dtype.itemsize}", hint)

    def _load_plain(self, type: VType, address: str, mask: str | None, hint: str) -> str:
        memory, align = memory_type(type), type.dtype.itemsize
        if mask is None:
            return self.f.emit(f"load {memory}, ptr {address}, align {align}", hint)
        masks = f"<{type.lanes} x i1>"
        name = f"@llvm.masked.load.{suffix(memory)}.p0"
        self.f.declarations[f"declare {memory} {name}(ptr, i32, {masks}, {memory})"] = None
        return self.f.emit(
            f"call {memory} {name}(ptr {address}, i32 {align}, {masks} {mask}, {memory} zeroinitializer)", hint
        )

    def _is_wide(self, stride: int, lanes: int, mask: Value | None) -> bool:
        """Whether whole vectors are read for elements `stride` apart, none of them past the elements."""
        count = lanes if mask is None else self._first.get(mask, 0)
        return 1 < abs(stride) <= WIDE_STRIDE and (count - 1) * abs(stride) + 1 >= lanes

    def _is_in_one(self, stride: int, lanes: int, mask: Value | None) -> bool:
        """Whether the first lanes alone are wanted, and a vector of which some are not loaded has them all."""
        if mask not in self._first or self._by_lane:
            return False
        return abs(stride) > 1 and (self._first[mask] - 1) * abs(stride) < lanes

    def _is_apart(self, type: VType, stride: int) -> bool:
        """Whether whole vectors are read, under a mask, for elements `stride` apart."""
        return 1 < stride <= WIDE_STRIDE and self.f.target.masks and type.dtype.itemsize >= 4

    def _load_part(self, statement: Load, count: int) -> str:
        """The first part of a vector, from which `count` lanes are picked; zeros in the others."""
        type, stride = statement.result.type, statement.stride
        span = (count - 1) * abs(stride) + 1
        mask = _mask(j < span for j in range(type.lanes))
        address = self.address(statement.buffer, statement.index, min(0, (count - 1) * stride))
        piece = self._load_plain(type, address, mask, "")
        memory, last = memory_type(type), span - 1 if stride < 0 else 0
        chosen = [last + j * stride if j < count else type.lanes for j in range(type.lanes)]
        return self.f.emit(
            f"shufflevector {memory} {piece}, {memory} zeroinitializer, {lane_mask(chosen)}", statement.result.name
        )

    def _load_strided(self, statement: Load, count: int, mask: str | None) -> str:
        """Whole vectors, the last of which ends at the last of `count` elements, and shuffles that pick the lanes."""
        type, stride = statement.result.type, statement.stride
        lanes, step = type.lanes, abs(stride)
        memory = memory_type(type)
        span = (count - 1) * step + 1
        low = (count - 1) * stride if stride < 0 else 0
        positions = [(count - 1 - j if stride < 0 else j) * step if j < count else _NOWHERE for j in range(lanes)]
        starts = [min(part * lanes, span - lanes) for part in range(-(-span // lanes))]
        pieces = [self.address(statement.buffer, statement.index, low + start) for start in starts]
        pieces = [self._load_plain(type, address, None, "") for address in pieces]
        result = self._picked(memory, pieces, starts, positions, statement.result.name if mask is None else "")
        if mask is None:
            return result
        return self.f.emit(
            f"select <{lanes} x i1> {mask}, {memory} {result}, {memory} zeroinitializer", statement.result.name
        )

    def _load_apart(self, statement: Load, mask: Value) -> str:
        """Whole vectors of which only the elements are read that the mask names, and shuffles that pick the lanes."""
        type, stride = statement.result.type, statement.stride
        lanes = type.lanes
        starts = list(range(0, (lanes - 1) * stride + 1, lanes))
        pieces: list[str] = []
        known = self.f.scopes[-1].known
        for start in starts:
            spread = known.get(("spread", mask, stride, start))
            if spread is None:
                wanted = [p // stride if p % stride == 0 else lanes for p in range(start, start + lanes)]
                spread = known["spread", mask, stride, start] = self._moved_mask(mask, wanted)
            address = self.address(statement.buffer, statement.index, start)
            pieces.append(self._load_plain(type, address, spread, ""))
        positions = [lane * stride for lane in range(lanes)]
        return self._picked(memory_type(type), pieces, starts, positions, statement.result.name)

    def _picked(
        self, memory: str, pieces: Sequence[str], starts: Sequence[int], positions: Sequence[int], hint: str
    ) -> str:
        """A vector of the elements at `positions` in `pieces`, which begin at `starts` and may overlap."""
        lanes, covered, result = len(positions), 0, pieces[0]
        if len(pieces) == 1:
            chosen = [p if p < lanes else -1 for p in positions]
            return self.f.emit(f"shufflevector {memory} {result}, {memory} poison, {lane_mask(chosen)}", hint)
        for part, (piece, start) in enumerate(zip(pieces, starts, strict=True)):
            end = start + lanes
            if part:
                chosen = [
                    (lanes + p - start if p >= covered else (j if part > 1 else p)) if p < end else -1
                    for j, p in enumerate(positions)
                ]
                name = hint if part == len(pieces) - 1 else ""
                result = self.f.emit(f"shufflevector {memory} {result}, {memory} {piece}, {lane_mask(chosen)}", name)
            covered = end
        return result

    def _load_lanes(self, statement: Load, count: int) -> str:
        """The first `count` lanes one by one, zeros in the others; each place is one known distance away."""
        type = statement.result.type
        memory, element = memory_type(type), memory_element(type.dtype)
        result = "poison" if count == type.lanes else "zeroinitializer"
        for lane in range(count):
            address = self.address(statement.buffer, statement.index, lane * statement.stride)
            loaded = self.f.emit(f"load {element}, ptr {address}, align {type.dtype.itemsize}")
            hint = statement.result.name if lane == count - 1 else ""
            result = self.f.emit(f"insertelement {memory} {result}, {element} {loaded}, i64 {lane}", hint)
        return result

    def _lane_pointers(self, buffer: Param, index: Affine, offsets: Value | None, stride: int, lanes: int) -> str:
        f = self.f
        element = memory_element(buffer.dtype)
        address = self.address(buffer, index)
        if offsets is not None:
            where = f.typed(offsets)
        else:
            integer = "i32" if abs(stride) * lanes < 2**31 else "i64"
            where = f"<{lanes} x {integer}> {lane_numbers(lanes, integer, stride)}"
        return f.emit(f"getelementptr {element}, ptr {address}, {where}")

    def _gather(self, type: VType, pointers: str, mask: str, hint: str) -> str:
        memory, lanes = memory_type(type), type.lanes
        name = f"@llvm.masked.gather.{suffix(memory)}.v{lanes}p0"
        masks = f"<{lanes} x i1>"
        self.f.declarations[f"declare {memory} {name}(<{lanes} x ptr>, i32, {masks}, {memory})"] = None
        return self.f.emit(
            f"call {memory} {name}(<{lanes} x ptr> {pointers}, i32 {type.dtype.itemsize}, {masks} {mask}, "
            f"{memory} zeroinitializer)",
            hint,
        )

    def _moved_mask(self, mask: Value, lanes: Sequence[int]) -> str:
        """A mask whose lanes are these of `mask`; as many as it has: none, which does not hold.

        One that is known is written down: LLVM shuffles it wrongly where it cuts vectors in two (with AVX2 and sixteen
        lanes of 32 bits), and reads lanes that no mask holds for.
        """
        holds = self._known.get(mask)
        if holds is not None:
            return _mask(j < len(holds) and holds[j] for j in lanes)
        type = f"<{mask.type.lanes} x i1>"
        return self.f.emit(
            f"shufflevector {type} {self.f.names[mask]}, {type} zeroinitializer, {lane_mask(list(lanes))}"
        )

    def _reverse(self, name: str, type: str, lanes: int, hint: str = "") -> str:
        order = lane_mask(list(range(lanes - 1, -1, -1)))
        return self.f.emit(f"shufflevector {type} {name}, {type} poison, {order}", hint)

    def prefetch(self, statement: Prefetch) -> None:
        """Translate one `Prefetch`: for reading, into all caches."""
        self.f.declarations["declare void @llvm.prefetch.p0(ptr, i32, i32, i32)"] = None
        address = self.address(statement.buffer, statement.index)
        self.f.run(f"call void @llvm.prefetch.p0(ptr {address}, i32 0, i32 3, i32 1)")

    def store(self, statement: Store) -> None:
        """Translate one `Store`."""
        f = self.f
        type = statement.value.type
        lanes, stride = type.lanes, statement.stride
        memory, align = memory_type(type), type.dtype.itemsize
        value = f.names[statement.value]
        if type.dtype.kind == "bool":
            value = f.emit(f"zext {register_type(type)} {value} to {memory}")
        mask = f.names[statement.mask] if statement.mask is not None else None
        if lanes == 1:
            self._store_scalar(statement, memory, value, mask)
            return
        masks = f"<{lanes} x i1>"
        if statement.offsets is None and stride in (1, -1):
            address = self.address(statement.buffer, statement.index, 1 - lanes if stride < 0 else 0)
            if stride < 0:
                value = self._reverse(value, memory, lanes)
                mask = None if statement.mask is None else self._moved_mask(statement.mask, range(lanes - 1, -1, -1))
            if statement.streams:
                f.streams = True
                f.store(f"store {memory} {value}, ptr {address}, align {align * lanes}, !nontemporal !0")
                return
            if mask is None:
                f.store(f"store {memory} {value}, ptr {address}, align {align}")
                return
            if stride == 1 and self._first.get(statement.mask) == 1:  # type: ignore[arg-type]
                # LLVM makes one instruction of such a store and the narrowing of its value, as wide as before that.
                single = f.emit(f"extractelement {memory} {value}, i64 0")
                f.store(f"store {memory_element(type.dtype)} {single}, ptr {address}, align {align}")
                return
            name = f"@llvm.masked.store.{suffix(memory)}.p0"
            f.declarations[f"declare void {name}({memory}, ptr, i32, {masks})"] = None
            f.store(f"call void {name}({memory} {value}, ptr {address}, i32 {align}, {masks} {mask})")
            return
        if self._by_lane and statement.offsets is None and stride and (mask is None or statement.mask in self._first):
            element = memory_element(type.dtype)
            for lane in range(self._first.get(statement.mask, lanes)):  # type: ignore[arg-type]
                address = self.address(statement.buffer, statement.index, lane * stride)
                single = f.emit(f"extractelement {memory} {value}, i64 {lane}")
                f.store(f"store {element} {single}, ptr {address}, align {align}")
            return
        pointers = self._lane_pointers(statement.buffer, statement.index, statement.offsets, stride, lanes)
        name = f"@llvm.masked.scatter.{suffix(memory)}.v{lanes}p0"
        f.declarations[f"declare void {name}({memory}, <{lanes} x ptr>, i32, {masks})"] = None
        f.store(f"call void {name}({memory} {value}, <{lanes} x ptr> {pointers}, i32 {align}, {masks} {mask or _ALL})")

    def _store_scalar(self, statement: Store, memory: str, value: str, mask: str | None) -> None:
        f = self.f
        address = self.address(statement.buffer, statement.index)
        if statement.offsets is not None:
            address = f.emit(f"getelementptr {memory}, ptr {address}, i64 {f.names[statement.offsets]}")
        store = f"store {memory} {value}, ptr {address}, align {statement.buffer.dtype.itemsize}"
        if mask is None:
            f.store(store)
            return
        number = f.number()
        f.run(f"br i1 {mask}, label %store{number}, label %stored{number}")
        f.label(f"store{number}")
        f.run(store)
        f.run(f"br label %stored{number}")
        f.label(f"stored{number}")
