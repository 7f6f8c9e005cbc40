"""The operations of the kernel IR, one LLVM instruction or intrinsic each (their meanings: `kernel.OPERATIONS`)."""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.codegen.kernel import SEGMENT, SHUFFLES, Op, Value, VType, shuffled
from graphc.codegen.llvm.conversions import bitcast, cast
from graphc.codegen.llvm.function import Function, vector_of
from graphc.codegen.llvm.spelling import lane_mask, lane_numbers, literal, register_type, rounded
from graphc.codegen.llvm.tables import lookup
from graphc.errors import CompileError
from graphc.ir.types import i32, i64

_BINARY_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_BINARY_INT = {
    **{name: name for name in ("add", "sub", "mul", "sdiv", "srem", "udiv", "urem", "and", "or", "xor", "shl", "lshr")},
    "ashr": "ashr",
    "floordiv": "udiv",
    "mod": "urem",
}
_UNARY_FLOAT = {
    "abs": "fabs",
    "sqrt": "sqrt",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "rint": "roundeven",
}
_COMPARE_FLOAT = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_COMPARE_INT = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}


def _is_unsigned(value: Value) -> bool:
    return value.type.dtype.kind in ("uint", "bool")


def _binary(f: Function, op: Op) -> str:
    type = op.args[0].type
    name = op.name
    if type.dtype.is_float:
        instruction = _BINARY_FLOAT[name]
    else:
        instruction = _BINARY_INT[name]
        if name == "ashr" and type.dtype.kind == "uint":
            instruction = "lshr"
    left, right = (f.names[a] for a in op.args)
    return f.emit(f"{instruction} {register_type(type)} {left}, {right}", op.result.name)


def _fma(f: Function, op: Op) -> str:
    return f.call("fma", register_type(op.result.type), [f.names[a] for a in op.args], hint=op.result.name)


_PAIRS = {lanes: f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}" for lanes in (4, 8, 16)}  # AVX-512's instruction


def _fma_pairs(f: Function, op: Op) -> str:
    """One instruction, or two sums: a number of bf16 is the upper half of one of f32."""
    type = op.result.type
    spelt, bits = register_type(type), register_type(op.args[0].type)
    first, second, total = (f.names[a] for a in op.args)
    if type.lanes in _PAIRS and f.x86 and "avx512bf16" in f.features:
        halves = f"<{2 * type.lanes} x bfloat>"
        numbers = [(halves, f.emit(f"bitcast {bits} {pair} to {halves}")) for pair in (first, second)]
        return _call(f, _PAIRS[type.lanes], spelt, [(spelt, total), *numbers], op.result.name)
    pairs = VType(i32, type.lanes)
    upper = [f.emit(f"and {bits} {pair}, {literal(-1 << 16, pairs)}") for pair in (first, second)]
    lower = [f.emit(f"shl {bits} {pair}, {literal(16, pairs)}") for pair in (first, second)]
    for half in (upper, lower):
        numbers = [f.emit(f"bitcast {bits} {number} to {spelt}") for number in half]
        product = f.emit(f"fmul {spelt} {numbers[0]}, {numbers[1]}")  # exact
        total = f.emit(f"fadd {spelt} {total}, {product}", op.result.name if half is lower else "")
    return total


_SCALES = {  # AVX-512's instruction, by bytes of the vector
    (dtype, size): f"llvm.x86.avx512.mask.scalef.{suffix}.{8 * size}"
    for dtype, suffix in (("f32", "ps"), ("f64", "pd"))
    for size in (16, 32, 64)
}


def _scale(f: Function, op: Op) -> str:
    """One instruction, or two factors: each is a normal number, and only the last product rounds."""
    type = op.result.type
    number, power = (f.names[a] for a in op.args)
    spelt, size = register_type(type), type.dtype.itemsize * type.lanes
    fraction, bias = (23, 127) if type.dtype.bits == 32 else (52, 1023)
    intrinsic = _SCALES.get((type.dtype.name, size))
    if intrinsic is not None and f.x86 and "avx512vl" in f.features:
        count = f.emit(f"fsub {spelt} {power}, {literal(1.5 * 2.0**fraction + 2 * bias, type)}")
        mask = "i16" if type.lanes == 16 else "i8"
        more = [(mask, "-1"), *([("i32", "4")] if size == 64 else [])]
        given = [(spelt, number), (spelt, count), (spelt, number), *more]
        return _call(f, intrinsic, spelt, given, op.result.name)
    whole = register_type(VType(i32 if type.dtype.bits == 32 else i64, type.lanes))
    integer = VType(i32 if type.dtype.bits == 32 else i64, type.lanes)
    bits = f.emit(f"bitcast {spelt} {power} to {whole}")
    half = f.emit(f"lshr {whole} {bits}, {literal(1, integer)}")
    for part in (half, f.emit(f"sub {whole} {bits}, {half}")):
        factor = f.emit(f"shl {whole} {part}, {literal(fraction, integer)}")
        number = f.emit(f"fmul {spelt} {number}, {f.emit(f'bitcast {whole} {factor} to {spelt}')}")
    return number


def _neg(f: Function, op: Op) -> str:
    type = register_type(op.result.type)
    operand = f.names[op.args[0]]
    if op.result.type.dtype.is_float:
        return f.emit(f"fneg {type} {operand}", op.result.name)
    return f.emit(f"sub {type} {literal(0, op.result.type)}, {operand}", op.result.name)


def _not(f: Function, op: Op) -> str:
    ones = literal(True if op.result.type.dtype.kind == "bool" else -1, op.result.type)
    return f.emit(f"xor {register_type(op.result.type)} {f.names[op.args[0]]}, {ones}", op.result.name)


def _unary(f: Function, op: Op) -> str:
    type, operand, name = op.result.type, f.names[op.args[0]], op.name
    if name == "abs" and not type.dtype.is_float:
        if _is_unsigned(op.result):
            return operand
        return f.call("abs", register_type(type), [operand], "i1 false", op.result.name)
    if name in _ROUNDINGS and f.x86 and "sse4.1" not in f.features:
        return _round_by_magic(f, name, operand, type)
    return f.call(_UNARY_FLOAT[name], register_type(type), [operand], hint=op.result.name)


_ROUNDINGS = frozenset({"floor", "ceil", "trunc", "rint"})


def _round_by_magic(f: Function, name: str, operand: str, type: VType) -> str:
    """Rounding without the instruction for it: adding and taking away 2**(mantissa bits) rounds to even."""
    spelt, mask = register_type(type), vector_of("i1", type.lanes)
    magic = literal(2.0 ** (52 if type.dtype.bits == 64 else 23), type)
    size = f.call("fabs", spelt, [operand])
    near = f.emit(f"fsub {spelt} {f.emit(f'fadd {spelt} {size}, {magic}')}, {magic}")
    one = literal(1.0, type)
    if name == "trunc":
        too_big = f.emit(f"fcmp ogt {spelt} {near}, {size}")
        near = f.emit(f"select {mask} {too_big}, {spelt} {f.emit(f'fsub {spelt} {near}, {one}')}, {spelt} {near}")
    signed = f.call("copysign", spelt, [near, operand])
    if name in ("floor", "ceil"):
        compare, step = ("ogt", "fsub") if name == "floor" else ("olt", "fadd")
        wrong = f.emit(f"fcmp {compare} {spelt} {signed}, {operand}")
        moved = f.emit(f"{step} {spelt} {signed}, {one}")
        stepped = f.emit(f"select {mask} {wrong}, {spelt} {moved}, {spelt} {signed}")
        signed = f.call("copysign", spelt, [stepped, operand])
    # Large numbers are integers already; NaN stays NaN.
    small = f.emit(f"fcmp olt {spelt} {size}, {magic}")
    return f.emit(f"select {mask} {small}, {spelt} {signed}, {spelt} {operand}")


_RANGES = {  # AVX-512's instruction for the larger or smaller of two, by bytes of the vector
    (dtype, size): f"llvm.x86.avx512.mask.range.{suffix}.{8 * size}"
    for dtype, suffix in (("f32", "ps"), ("f64", "pd"))
    for size in (16, 32, 64)
}
_OF_RANGE = {"minimum": 0b0100, "maximum": 0b0101}  # the sign is the chosen number's


def _has_range(f: Function, type: VType) -> bool:
    """Whether the processor has an instruction for the larger or smaller of two such vectors."""
    known = (type.dtype.name, type.dtype.itemsize * type.lanes) in _RANGES
    return known and f.x86 and {"avx512vl", "avx512dq"} <= f.features


def _extreme_by_range(f: Function, name: str, type: VType, left: str, right: str, hint: str) -> str:
    """Three instructions, where LLVM makes six: this one knows that -0 is below +0, but gives the number of a NaN and a
    number, so a sum, which is NaN, takes its place.
    """
    spelt, size = register_type(type), type.dtype.itemsize * type.lanes
    mask = "i16" if type.lanes == 16 else "i8"
    more = [
        ("i32", str(_OF_RANGE[name])),
        (spelt, "zeroinitializer"),
        (mask, "-1"),
        *([("i32", "4")] if size == 64 else []),
    ]
    chosen = _call(f, _RANGES[type.dtype.name, size], spelt, [(spelt, left), (spelt, right), *more])
    unordered = f.emit(f"fcmp uno {spelt} {left}, {right}")
    total = f.emit(f"fadd {spelt} {left}, {right}")
    return f.emit(f"select {vector_of('i1', type.lanes)} {unordered}, {spelt} {total}, {spelt} {chosen}", hint)


def _call(f: Function, name: str, type: str, operands: list[tuple[str, str]], hint: str = "") -> str:
    """Call the intrinsic `name`; `operands` are types and values."""
    f.declarations[f"declare {type} @{name}({', '.join(t for t, _ in operands)})"] = None
    return f.emit(f"call {type} @{name}({', '.join(f'{t} {n}' for t, n in operands)})", hint)


def combine(f: Function, name: str, type: VType, left: str, right: str, hint: str = "") -> str:
    """`maximum` or `minimum` of two registers."""
    dtype = type.dtype
    spelt = register_type(type)
    if dtype.kind == "bool":
        return f.emit(f"{'or' if name == 'maximum' else 'and'} {spelt} {left}, {right}", hint)
    if dtype.is_float:
        if _has_range(f, type):
            return _extreme_by_range(f, name, type, left, right, hint)
        return f.call(name, spelt, [left, right], hint=hint)
    return f.call(("u" if dtype.kind == "uint" else "s") + name[:3], spelt, [left, right], hint=hint)


def _extreme(f: Function, op: Op) -> str:
    left, right = (f.names[a] for a in op.args)
    for constant, other in ((op.args[0], right), (op.args[1], left)):
        number = f.constants.get(constant)
        if isinstance(number, float) and f.x86 and not math.isnan(number):
            return _extreme_of_constant(f, op, number, f.names[constant], other)
    return combine(f, op.name, op.result.type, left, right, op.result.name)


def _extreme_of_constant(f: Function, op: Op, number: float, constant: str, other: str) -> str:
    """One instruction less, or two, than the general way: the compare gives the other operand when it is NaN or equal.

    That is wrong only where zeros differ in sign, and adding the constant mends it (x + 0 is +0 for both zeros).
    """
    largest = op.name == "maximum"
    mended = number == 0 and (math.copysign(1, number) > 0) == largest
    if mended and not largest:
        return combine(f, op.name, op.result.type, constant, other, op.result.name)
    chosen = _choice(f, op.result.type, largest, constant, other, "" if mended else op.result.name)
    if not mended:
        return chosen
    return f.emit(f"fadd {register_type(op.result.type)} {chosen}, {constant}", op.result.name)


def _choice(f: Function, type: VType, largest: bool, left: str, right: str, hint: str) -> str:
    """The larger or smaller of two floats, `right` when they are unordered or equal: one instruction of x86."""
    spelt = register_type(type)
    condition = f.emit(f"fcmp {'ogt' if largest else 'olt'} {spelt} {left}, {right}")
    return f.emit(f"select {vector_of('i1', type.lanes)} {condition}, {spelt} {left}, {spelt} {right}", hint)


def _choose(f: Function, op: Op) -> str:
    left, right = (f.names[a] for a in op.args)
    return _choice(f, op.result.type, op.name == "fmax", left, right, op.result.name)


def _compare(f: Function, op: Op) -> str:
    type = op.args[0].type
    left, right = (f.names[a] for a in op.args)
    if type.dtype.is_float:
        instruction = f"fcmp {_COMPARE_FLOAT[op.name]}"
    elif op.name in ("eq", "ne"):
        instruction = f"icmp {op.name}"
    else:
        instruction = f"icmp {'u' if _is_unsigned(op.args[0]) else 's'}{op.name}"
    return f.emit(f"{instruction} {register_type(type)} {left}, {right}", op.result.name)


def _select(f: Function, op: Op) -> str:
    return f.emit("select " + ", ".join(f.typed(a) for a in op.args), op.result.name)


def _splat(f: Function, op: Op) -> str:
    source, type = op.args[0], op.result.type
    name = f.names[source]
    if type.lanes == 1:
        return name
    element = register_type(source.type)
    if name[0] != "%":
        if source in f.constants:
            f.constants[op.result] = f.constants[source]
        return f"splat ({element} {name})"
    if element == "i1" and type.lanes > 1:
        # As a comparison of vectors it is a mask of whole lanes, as those that it is combined with are.
        wide = f.splat(f.emit(f"zext i1 {name} to i32"), "i32", type.lanes)
        return f.emit(f"icmp ne <{type.lanes} x i32> {wide}, zeroinitializer", op.result.name)
    return f.splat(name, element, type.lanes, op.result.name)


def _lanes(f: Function, op: Op) -> str:
    type = op.result.type
    if type.lanes == 1:
        return "0"
    return lane_numbers(type.lanes, register_type(VType(type.dtype)))


def _extract(f: Function, op: Op) -> str:
    source = op.args[0]
    if source.type.lanes == 1:
        return f.names[source]
    first, lanes = int(op.attr or 0), op.result.type.lanes
    if lanes == 1:
        return f.emit(f"extractelement {f.typed(source)}, i64 {first}", op.result.name)
    mask = lane_mask(list(range(first, first + lanes)))
    return f.emit(f"shufflevector {f.typed(source)}, {register_type(source.type)} poison, {mask}", op.result.name)


def _shuffle(f: Function, op: Op) -> str:
    mask = lane_mask(shuffled(op))
    return f.emit(f"shufflevector {f.typed(op.args[0])}, {f.typed(op.args[1])}, {mask}", op.result.name)


def _reduce(f: Function, op: Op) -> str:
    """Halves are combined until one lane is left: the order of a sum is the same on every machine."""
    source, kind = op.args[0], op.name[len("reduce_") :]
    dtype, lanes, name = source.type.dtype, source.type.lanes, f.names[source]
    while lanes > 1:
        least = VType(dtype, lanes)
        if kind in ("maximum", "minimum") and lanes * dtype.itemsize == SEGMENT and _has_range(f, least):
            return _reduce_segment(f, kind, least, name, op.result.name)
        before = register_type(VType(dtype, lanes))
        lanes //= 2
        # One lane stays a vector of one until the end, so that every step looks the same.
        half = VType(dtype, lanes)
        spelt = vector_of(register_type(VType(dtype)), lanes) if lanes > 1 else f"<1 x {register_type(half)}>"
        if lanes > 1:
            low = f.emit(f"shufflevector {before} {name}, {before} poison, {lane_mask(list(range(lanes)))}")
            high = f.emit(f"shufflevector {before} {name}, {before} poison, {lane_mask(list(range(lanes, 2 * lanes)))}")
        else:
            low = f.emit(f"extractelement {before} {name}, i64 0")
            high = f.emit(f"extractelement {before} {name}, i64 1")
            spelt = register_type(half)
        hint = op.result.name if lanes == 1 else ""
        if kind in ("maximum", "minimum"):
            name = combine(f, kind, half, low, high, hint)
        else:
            instruction = _BINARY_FLOAT[kind] if dtype.is_float else _BINARY_INT[kind]
            name = f.emit(f"{instruction} {spelt} {low}, {high}", hint)
    return name


def _reduce_segment(f: Function, kind: str, type: VType, name: str, hint: str) -> str:
    """The extreme of the shortest vector, whose lanes are turned: for fewer lanes LLVM makes twice the instructions."""
    spelt, lanes = register_type(type), type.lanes
    while lanes > 1:
        lanes //= 2
        turned = lane_mask([(lane + lanes) % type.lanes for lane in range(type.lanes)])
        other = f.emit(f"shufflevector {spelt} {name}, {spelt} poison, {turned}")
        name = combine(f, kind, type, name, other)
    return f.emit(f"extractelement {spelt} {name}, i64 0", hint)


_HANDLERS: dict[str, Callable[[Function, Op], str]] = {
    **dict.fromkeys(set(_BINARY_INT) | {"div"}, _binary),
    **dict.fromkeys(_UNARY_FLOAT, _unary),
    **dict.fromkeys(("maximum", "minimum"), _extreme),
    **dict.fromkeys(("fmax", "fmin"), _choose),
    **dict.fromkeys(_COMPARE_FLOAT, _compare),
    **dict.fromkeys(
        ("reduce_add", "reduce_mul", "reduce_maximum", "reduce_minimum", "reduce_or", "reduce_and"), _reduce
    ),
    "fma": _fma,
    "fma_pairs": _fma_pairs,
    "scale": _scale,
    "neg": _neg,
    "not": _not,
    "select": _select,
    "splat": _splat,
    "lanes": _lanes,
    "extract": _extract,
    "lookup": lookup,
    **dict.fromkeys(SHUFFLES, _shuffle),
    "cast": cast,
    "bitcast": bitcast,
}


def translate(f: Function, op: Op) -> None:
    """Append the instructions of `op` and define its result."""
    if op.name == "const":
        assert op.attr is not None
        f.define(op.result, literal(op.attr, op.result.type))
        if op.result.type.dtype.is_float:
            f.constants[op.result] = rounded(op.attr, op.result.type.dtype)
        if op.result.type.lanes == 1 and op.result.type.dtype.name == "i64":
            f.integers[op.result] = int(op.attr)
        return
    handler = _HANDLERS.get(op.name)
    if handler is None:
        raise CompileError(f"the kernel IR has no operation named {op.name!r}")
    f.define(op.result, handler(f, op))
    if op.name in ("floordiv", "mod"):
        f.bounded.add(op.result)
