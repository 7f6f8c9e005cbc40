"""Loads and stores in CUDA C: element indices, wide accesses, masks."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from graphc.codegen.cuda.function import LANE, Function
from graphc.codegen.cuda.ranges import Span, multiple_of_sum
from graphc.codegen.cuda.spelling import INT_MAX, integer, memory_type
from graphc.codegen.cuda.wide import WIDE
from graphc.codegen.kernel import Affine, Kernel, Load, Param, Store, Value


class Memory:
    """Translates `Load` and `Store` of one kernel."""

    def __init__(self, function: Function, kernel: Kernel) -> None:
        self.f = function
        self.pointers = {p: f"p{i}" for i, p in enumerate(kernel.params)}
        self.pointers.update({p: f"own{i}" for i, p in enumerate(kernel.own)})

    def load(self, statement: Load) -> None:
        """Translate one `Load`."""
        f, result = self.f, statement.result
        is_bool = result.type.dtype.kind == "bool"
        places = self._places(statement, result)
        masks = self._masks(statement, len(places))
        chunk = self._chunk(statement, result, masks)
        if chunk > 1:
            registers = self._load_wide(result, places, masks[0], chunk)
            if is_bool:
                f.define_each(result, [f"{r} != 0" for r in registers])
            else:
                f.define(result, tuple(registers))
            return
        zero = "0.0f" if f.type(result) == "float" else "0"
        expressions = []
        for place, mask in zip(places, masks, strict=True):
            if is_bool:
                expressions.append(f"{mask} && {place} != 0" if mask else f"{place} != 0")
            elif mask and f.is_block and statement.buffer.mode == "in":
                # Left to itself, the compiler makes a branch of each.
                expressions.append(f"GC_LOAD_IF({mask}, {place})")
            else:
                expressions.append(f"{mask} ? {place} : {zero}" if mask else place)
        f.define_each(result, expressions)
        f.zeroed.update((r, m) for r, m in zip(f.registers[result], masks, strict=True) if m and not is_bool)

    def _load_wide(self, result: Value, places: list[str], mask: str, chunk: int) -> list[str]:
        f = self.f
        type = f"gc_vector<{memory_type(result.type.dtype)}, {chunk}>"
        registers = []
        for first in range(0, len(places), chunk):
            source = f"*(const {type}*)&{places[first]}"
            name = f.fresh(result.name)
            if mask:
                f.run(f"{type} {name} = {{}};")
                f.run(f"if ({mask}) {name} = {source};")
            else:
                f.run(f"const {type} {name} = {source};")
            registers += [f"{name}.lane[{i}]" for i in range(chunk)]
        return registers

    def load_run(self, statements: Sequence[Load]) -> None:
        """Translate loads of a block kernel from neighbouring elements as one."""
        f, first = self.f, statements[0]
        (place,) = self._places(first, first.result)
        registers = self._load_wide(first.result, [place] * len(statements), self._masks(first, 1)[0], len(statements))
        for statement, register in zip(statements, registers, strict=True):
            if statement.result.type.dtype.kind == "bool":
                f.define_each(statement.result, [f"{register} != 0"])
            else:
                f.define(statement.result, (register,))

    def store_run(self, statements: Sequence[Store]) -> None:
        """Translate stores of a block kernel to neighbouring elements as one."""
        f, first = self.f, statements[0]
        (place,), (mask,) = self._places(first, first.value), self._masks(first, 1)
        type = f"gc_vector<{memory_type(first.value.type.dtype)}, {len(statements)}>"
        lanes = ", ".join(f.scalar(s.value) for s in statements)
        f.run(f"{f'if ({mask}) ' if mask else ''}*({type}*)&{place} = {type}{{{{{lanes}}}}};")

    def parts(self, buffer: Param, index: Affine, offsets: Value) -> tuple[str, int]:
        """The element that each thread of a block has at `index + offsets`: an `int` sum of what varies, and what is
        added to it, as instructions take it.
        """
        f = self.f
        terms = [(f.scalar(v), c) for v, c in index.terms if c] + [(f.scalar(offsets), 1)]
        spans = [(f.spans.get(v), c) for v, c in (*index.terms, (offsets, 1)) if c]
        kind = _kind(buffer, spans, abs(index.const))
        if kind == "unsigned":  # modulo 2**32: the sum must be whole
            return f"({_sum(terms, index.const, kind)})", 0
        return f"({_sum(terms, 0, kind)})", index.const

    def store(self, statement: Store) -> None:
        """Translate one `Store`. The scalar of a block is stored by its first thread."""
        f, value = self.f, statement.value
        places = self._places(statement, value)
        masks = self._masks(statement, len(places))
        registers = f.registers[value]
        chunk = self._chunk(statement, value, masks)
        if chunk > 1:
            type = f"gc_vector<{memory_type(value.type.dtype)}, {chunk}>"
            guard = f"if ({masks[0]}) " if masks[0] else ""
            for first in range(0, len(places), chunk):
                lanes = ", ".join(registers[first : first + chunk])
                f.run(f"{guard}*({type}*)&{places[first]} = {type}{{{{{lanes}}}}};")
            return
        for place, mask, register in zip(places, masks, registers, strict=True):
            first = f"{LANE} == 0" if f.is_block and value.type.lanes == 1 else ""
            guard = " && ".join(filter(None, (first, mask)))
            f.run(f"{f'if ({guard}) ' if guard else ''}{place} = {register};")

    def _masks(self, statement: Load | Store, count: int) -> list[str]:
        if statement.mask is None:
            return [""] * count
        return ["" if m == "true" else m for m in self.f.registers[statement.mask]]

    def _chunk(self, statement: Load | Store, value: Value, masks: list[str]) -> int:
        """Elements that one wide access takes: the address is known to be aligned, all lanes have one mask."""
        buffer, lanes = statement.buffer, value.type.lanes
        if self.f.is_block or lanes == 1 or statement.stride != 1 or statement.offsets is not None:
            return 1
        if len(set(masks)) > 1:
            return 1
        chunk = gcd(lanes, WIDE // buffer.dtype.itemsize)
        return gcd(chunk, multiple_of_sum(statement.index, self.f.spans))

    def _places(self, statement: Load | Store, value: Value) -> list[str]:
        """The accessed element of each register of `value`: `p0[i + 1]`."""
        f, index, lanes = self.f, statement.index, value.type.lanes
        terms = [(f.scalar(v), c) for v, c in index.terms if c]
        spans = [(f.spans.get(v), c) for v, c in index.terms if c]
        moving: list[list[tuple[str, int]]] = [[] for _ in range(f.width(value))]
        step, reach = 0, 0
        if statement.offsets is not None:
            moving = [[(text, 1)] for text in f.registers[statement.offsets]]
            spans.append((f.spans.get(statement.offsets), 1))
        elif lanes > 1:
            reach = (lanes - 1) * abs(statement.stride)
            if f.is_block:
                moving = [[(LANE, statement.stride)]]
            else:
                step = statement.stride
        kind = _kind(statement.buffer, spans, abs(index.const) + reach)
        if len(moving) > 1 and terms and (len(terms) > 1 or terms[0][1] != 1):
            # What all lanes have in common.
            terms = [(f.once(kind or "int", _sum(terms, 0, kind), "i"), 1)]
        pointer = self.pointers[statement.buffer]
        return [f"{pointer}[{_sum(terms + own, index.const + j * step, kind)}]" for j, own in enumerate(moving)]


def _kind(buffer: Param, terms: list[tuple[Span | None, int]], rest: int) -> str:
    """The C type in which an index is summed; "" means `int`, where no partial sum can overflow."""
    for span, coefficient in terms:
        if span is None:
            break
        rest += abs(coefficient) * max(abs(span.lo), abs(span.hi))
    else:
        if rest <= INT_MAX:
            return ""
    # An index that is used lies in the buffer: modulo 2**32 it is right, whatever the terms.
    return "unsigned" if buffer.size <= INT_MAX else "long long"


def _sum(terms: list[tuple[str, int]], constant: int, kind: str) -> str:
    """The text of a sum in the C type `kind`."""
    prefix = f"({kind})" if kind else ""
    parts = []
    for text, coefficient in terms:
        if coefficient == 1:
            parts.append(prefix + text)
            continue
        factor = str(coefficient % (1 << 32)) + "u" if kind == "unsigned" else integer(coefficient)
        parts.append(f"{prefix}{text} * {factor}")
    if constant or not parts:
        if not kind and constant < 0 and parts:
            return " + ".join(parts) + f" - {-constant}"
        parts.append(str(constant % (1 << 32)) + "u" if kind == "unsigned" else integer(constant))
    return " + ".join(parts)
