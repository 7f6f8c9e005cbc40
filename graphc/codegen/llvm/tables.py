"""`lookup`: elements of a small table, by instructions that permute the lanes of registers where a machine has them,
else lane by lane from memory.
"""

from __future__ import annotations

import hashlib

from graphc.codegen.kernel import Op
from graphc.codegen.llvm.function import Function, vector_of
from graphc.codegen.llvm.spelling import lane_mask, literal, register_type, scalar_literal
from graphc.ir.types import DType

# The intrinsics that permute one register, and two, of 64 bytes; for 32 bytes there is one for f32 alone.
_ONE = {"f32": "llvm.x86.avx512.permvar.sf.512", "f64": "llvm.x86.avx512.permvar.df.512"}
_TWO = {"f32": "llvm.x86.avx512.vpermi2var.ps.512", "f64": "llvm.x86.avx512.vpermi2var.pd.512"}
_HALF = "llvm.x86.avx2.permps"


def lookup(f: Function, op: Op) -> str:
    table, (index,) = op.table or (), op.args
    dtype, lanes, name = op.result.type.dtype, op.result.type.lanes, f.names[index]
    if lanes > 1 and f.x86 and "avx512f" in f.features and len(table) <= 128 // dtype.itemsize:
        return _in_pieces(f, dtype, table, name, lanes, 64 // dtype.itemsize)
    if lanes > 1 and f.x86 and "avx2" in f.features and dtype.name == "f32" and len(table) <= 16:
        return _in_pieces(f, dtype, table, name, lanes, 8)
    return _from_memory(f, op, table)


def _in_pieces(f: Function, dtype: DType, table: tuple[float, ...], index: str, lanes: int, width: int) -> str:
    """The lookup by vectors of `width` lanes, whatever `lanes` is."""
    element, number = dtype.name.replace("f32", "float").replace("f64", "double"), f"i{dtype.bits}"
    if lanes == width:
        return _permuted(f, dtype, table, index, width)
    pieces = []
    for first in range(0, lanes, width):
        chosen = [lane if lane < lanes else -1 for lane in range(first, first + width)]
        source = vector_of(number, lanes)
        part = f.emit(f"shufflevector {source} {index}, {source} poison, {lane_mask(chosen)}")
        pieces.append(_permuted(f, dtype, table, part, width))
    joined, count = pieces[0], width
    for piece in pieces[1:]:
        # Both operands of a shuffle have one length.
        type = vector_of(element, count)
        longer = f.emit(
            f"shufflevector {vector_of(element, width)} {piece}, {vector_of(element, width)} poison, "
            f"{lane_mask([lane if lane < width else -1 for lane in range(count)])}"
        )
        mask = lane_mask([*range(count), *range(count, count + width)])
        joined = f.emit(f"shufflevector {type} {joined}, {type} {longer}, {mask}")
        count += width
    if count == lanes:
        return joined
    type = vector_of(element, count)
    return f.emit(f"shufflevector {type} {joined}, {type} poison, {lane_mask(list(range(lanes)))}")


def _permuted(f: Function, dtype: DType, table: tuple[float, ...], index: str, width: int) -> str:
    """The lookup in one vector: `index` has as many lanes as a register."""
    parts = max(1, len(table) // width)
    whole = table * max(1, width // len(table))  # the instructions take indices modulo the number of lanes
    element, numbers = ("float" if dtype.bits == 32 else "double"), f"<{width} x i{dtype.bits}>"
    floats = vector_of(element, width)
    registers = [
        "<" + ", ".join(f"{element} {scalar_literal(v, dtype)}" for v in whole[i * width : (i + 1) * width]) + ">"
        for i in range(parts)
    ]
    if width * dtype.itemsize == 64:
        operands = f"{floats} {registers[0]}, {numbers} {index}"
        if parts == 1:
            return _call(f, _ONE[dtype.name], floats, f"{floats}, {numbers}", operands)
        return _call(
            f, _TWO[dtype.name], floats, f"{floats}, {numbers}, {floats}", f"{operands}, {floats} {registers[1]}"
        )
    found = [_call(f, _HALF, floats, f"{floats}, {numbers}", f"{floats} {r}, {numbers} {index}") for r in registers]
    if parts == 1:
        return found[0]
    # A blend looks at sign bits: the one that says which half is moved there.
    bit = width.bit_length() - 1
    moved = f.emit(f"shl {numbers} {index}, splat (i32 {31 - bit})")
    second = f.emit(f"icmp slt {numbers} {moved}, zeroinitializer")
    return f.emit(f"select <{width} x i1> {second}, {floats} {found[1]}, {floats} {found[0]}")


def _call(f: Function, name: str, result: str, parameters: str, operands: str) -> str:
    f.declarations[f"declare {result} @{name}({parameters})"] = None
    return f.emit(f"call {result} @{name}({operands})")


def _from_memory(f: Function, op: Op, table: tuple[float, ...]) -> str:
    """A load for each lane."""
    dtype, lanes, (index,) = op.result.type.dtype, op.result.type.lanes, op.args
    element, number = ("float" if dtype.bits == 32 else "double"), f"i{dtype.bits}"
    elements = ", ".join(f"{element} {scalar_literal(v, dtype)}" for v in table)
    # Modules are joined: equal tables have one name.
    name = "@table." + hashlib.sha256(elements.encode()).hexdigest()[:16]
    f.globals[f"{name} = private unnamed_addr constant [{len(table)} x {element}] [{elements}], align 64"] = None
    places = f.emit(f"and {register_type(index.type)} {f.names[index]}, {literal(len(table) - 1, index.type)}")
    result = "poison"
    for lane in range(lanes):
        place = places
        if lanes > 1:
            place = f.emit(f"extractelement {register_type(index.type)} {places}, i64 {lane}")
        address = f.emit(f"getelementptr inbounds {element}, ptr {name}, {number} {place}")
        value = f.emit(f"load {element}, ptr {address}, align {dtype.itemsize}")
        if lanes == 1:
            return value
        result = f.emit(f"insertelement {register_type(op.result.type)} {result}, {element} {value}, i64 {lane}")
    return result
