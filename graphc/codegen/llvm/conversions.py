"""`cast` and `bitcast`. f16 and bf16 are i16 in registers; their conversions never call a library."""

from __future__ import annotations

from graphc.codegen.kernel import Op, VType
from graphc.codegen.llvm.function import Function, vector_of
from graphc.codegen.llvm.spelling import literal, register_type, spread
from graphc.ir.types import DType, f32, f64


class Converter:
    """Writes conversions of one lane count."""

    def __init__(self, function: Function, lanes: int) -> None:
        self.f = function
        self.lanes = lanes

    def _int(self, bits: int) -> str:
        return vector_of(f"i{bits}", self.lanes)

    def _ints(self, value: int, bits: int = 32) -> str:
        half = 1 << (bits - 1)
        return spread(str((value + half) % (2 * half) - half), f"i{bits}", self.lanes)

    def _type(self, dtype: DType) -> str:
        return register_type(VType(dtype, self.lanes))

    def convert(self, name: str, source: DType, target: DType, hint: str = "") -> str:
        """The register `name` of type `source` as `target`, see `cast` in `kernel.OPERATIONS`."""
        if source is target:
            return name
        if target.is_float and target.bits == 16:
            return self._to_short(name, source, target, hint)
        if source.is_float and source.bits == 16:
            if target.kind == "bool":
                magnitude = self.f.emit(f"and {self._int(16)} {name}, {self._ints(0x7FFF, 16)}")
                return self.f.emit(f"icmp ne {self._int(16)} {magnitude}, {self._ints(0, 16)}", hint)
            wide = self._from_half(name) if source.name == "f16" else self._from_bfloat(name)
            return self.convert(wide, f32, target, hint)
        return self._plain(name, source, target, hint)

    def _plain(self, name: str, source: DType, target: DType, hint: str) -> str:
        """Conversions that are one instruction."""
        before, after = self._type(source), self._type(target)
        unsigned = source.kind in ("uint", "bool")
        if target.kind == "bool":
            zero = literal(0, VType(source, self.lanes))
            compare = "fcmp une" if source.is_float else "icmp ne"
            return self.f.emit(f"{compare} {before} {name}, {zero}", hint)
        if source.is_float:
            if target.is_float:
                instruction = "fpext" if target.bits > source.bits else "fptrunc"
            else:
                instruction = "fptoui" if target.kind == "uint" else "fptosi"
        elif target.is_float:
            instruction = "uitofp" if unsigned else "sitofp"
        elif source.kind == "bool":
            instruction = "zext"
        elif target.bits == source.bits:
            return name
        elif target.bits < source.bits:
            instruction = "trunc"
        else:
            instruction = "zext" if unsigned else "sext"
        return self.f.emit(f"{instruction} {before} {name} to {after}", hint)

    def _to_short(self, name: str, source: DType, target: DType, hint: str) -> str:
        """To f16 or bf16, by way of f32. f64 is rounded once; wide integers are rounded to f32 first, as NumPy does."""
        if source is f64:
            name = self._round_to_odd(name)
        else:
            name = self.convert(name, source, f32)
        return self._to_bfloat(name, hint) if target.name == "bf16" else self._to_half(name, hint)

    def _round_to_odd(self, name: str) -> str:
        """f64 to f32 so that rounding that to 16 bits is like rounding once: an inexact result has its last bit set."""
        f, floats, doubles, ints = self.f, self._type(f32), self._type(f64), self._int(32)
        near = f.emit(f"fptrunc {doubles} {name} to {floats}")
        back = f.emit(f"fpext {floats} {near} to {doubles}")
        inexact = f.emit(f"fcmp one {doubles} {back}, {name}")
        over = f.emit(f"fcmp ogt {doubles} {f.call('fabs', doubles, [back])}, {f.call('fabs', doubles, [name])}")
        bits = f.emit(f"bitcast {floats} {near} to {ints}")
        step = f.emit(f"sext {self._int(1)} {over} to {ints}")
        lower = f.emit(f"add {ints} {bits}, {step}")
        odd = f.emit(f"or {ints} {lower}, {self._ints(1)}")
        result = f.emit(f"select {self._int(1)} {inexact}, {ints} {odd}, {ints} {bits}")
        return f.emit(f"bitcast {ints} {result} to {floats}")

    def _from_bfloat(self, name: str) -> str:
        f, ints = self.f, self._int(32)
        wide = f.emit(f"zext {self._int(16)} {name} to {ints}")
        bits = f.emit(f"shl {ints} {wide}, {self._ints(16)}")
        return f.emit(f"bitcast {ints} {bits} to {self._type(f32)}")

    def _to_bfloat(self, name: str, hint: str) -> str:
        """Round to nearest even by adding just less than half a unit; NaN stays a quiet NaN."""
        f, ints, floats = self.f, self._int(32), self._type(f32)
        bits = f.emit(f"bitcast {floats} {name} to {ints}")
        top = f.emit(f"lshr {ints} {bits}, {self._ints(16)}")
        even = f.emit(f"and {ints} {top}, {self._ints(1)}")
        bias = f.emit(f"add {ints} {even}, {self._ints(0x7FFF)}")
        rounded = f.emit(f"add {ints} {bits}, {bias}")
        quiet = f.emit(f"or {ints} {bits}, {self._ints(0x400000)}")
        nan = f.emit(f"fcmp uno {floats} {name}, {name}")
        chosen = f.emit(f"select {self._int(1)} {nan}, {ints} {quiet}, {ints} {rounded}")
        high = f.emit(f"lshr {ints} {chosen}, {self._ints(16)}")
        return f.emit(f"trunc {ints} {high} to {self._int(16)}", hint)

    def _native_half(self) -> bool:
        return not self.f.x86 or "f16c" in self.f.features

    def _from_half(self, name: str) -> str:
        f, ints, floats = self.f, self._int(32), self._type(f32)
        if self._native_half():
            halves = vector_of("half", self.lanes)
            half = f.emit(f"bitcast {self._int(16)} {name} to {halves}")
            return f.emit(f"fpext {halves} {half} to {floats}")
        wide = f.emit(f"zext {self._int(16)} {name} to {ints}")
        sign = f.emit(f"shl {ints} {f.emit(f'and {ints} {wide}, {self._ints(0x8000)}')}, {self._ints(16)}")
        low = f.emit(f"and {ints} {wide}, {self._ints(0x7FFF)}")
        shifted = f.emit(f"shl {ints} {low}, {self._ints(13)}")
        # The exponent is too small by 112; one multiplication corrects it, for subnormal numbers too.
        correction = literal(2.0**112, VType(f32, self.lanes))
        scaled = f.emit(f"fmul {floats} {f.emit(f'bitcast {ints} {shifted} to {floats}')}, {correction}")
        magnitude = f.emit(f"bitcast {floats} {scaled} to {ints}")
        special = f.emit(f"icmp uge {ints} {low}, {self._ints(0x7C00)}")
        infinite = f.emit(f"or {ints} {shifted}, {self._ints(0x7F800000)}")
        chosen = f.emit(f"select {self._int(1)} {special}, {ints} {infinite}, {ints} {magnitude}")
        return f.emit(f"bitcast {ints} {f.emit(f'or {ints} {chosen}, {sign}')} to {floats}")

    def _to_half(self, name: str, hint: str) -> str:
        f, ints, floats, short = self.f, self._int(32), self._type(f32), self._int(16)
        if self._native_half():
            halves = vector_of("half", self.lanes)
            half = f.emit(f"fptrunc {floats} {name} to {halves}")
            return f.emit(f"bitcast {halves} {half} to {short}", hint)
        bits = f.emit(f"bitcast {floats} {name} to {ints}")
        low = f.emit(f"and {ints} {bits}, {self._ints(0x7FFFFFFF)}")
        high = f.emit(f"lshr {ints} {bits}, {self._ints(16)}")
        sign = f.emit(f"and {ints} {high}, {self._ints(0x8000)}")
        # Normal results: take 112 from the exponent, round the 13 bits that go; whatever overflows becomes infinite.
        even = f.emit(f"and {ints} {f.emit(f'lshr {ints} {low}, {self._ints(13)}')}, {self._ints(1)}")
        biased = f.emit(f"add {ints} {low}, {self._ints(0xFFF - (112 << 23))}")
        normal = f.emit(f"lshr {ints} {f.emit(f'add {ints} {biased}, {even}')}, {self._ints(13)}")
        finite = f.call("umin", ints, [normal, self._ints(0x7C00)])
        # Subnormal results: adding 0.5 puts their last bit at the last bit of the sum.
        shifted = f.emit(
            f"fadd {floats} {f.emit(f'bitcast {ints} {low} to {floats}')}, {literal(0.5, VType(f32, self.lanes))}"
        )
        small = f.emit(f"sub {ints} {f.emit(f'bitcast {floats} {shifted} to {ints}')}, {self._ints(0x3F000000)}")
        is_small = f.emit(f"icmp ult {ints} {low}, {self._ints(0x38800000)}")
        number = f.emit(f"select {self._int(1)} {is_small}, {ints} {small}, {ints} {finite}")
        payload = f.emit(f"and {ints} {f.emit(f'lshr {ints} {low}, {self._ints(13)}')}, {self._ints(0x3FF)}")
        quiet = f.emit(f"or {ints} {payload}, {self._ints(0x7E00)}")
        nan = f.emit(f"fcmp uno {floats} {name}, {name}")
        chosen = f.emit(f"select {self._int(1)} {nan}, {ints} {quiet}, {ints} {number}")
        return f.emit(f"trunc {ints} {f.emit(f'or {ints} {chosen}, {sign}')} to {short}", hint)


def cast(function: Function, op: Op) -> str:
    """Translate a `cast`; the register of its result."""
    source = op.args[0]
    converter = Converter(function, source.type.lanes)
    return converter.convert(function.names[source], source.type.dtype, op.result.type.dtype, op.result.name)


def bitcast(function: Function, op: Op) -> str:
    """Translate a `bitcast`; the register of its result."""
    source = op.args[0]
    before, after = register_type(source.type), register_type(op.result.type)
    if before == after:
        return function.names[source]
    return function.emit(f"bitcast {before} {function.names[source]} to {after}", op.result.name)
