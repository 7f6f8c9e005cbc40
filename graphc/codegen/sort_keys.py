"""Keys of sorting: integers in the order in which elements sort, and how they are packed with an index and cut into
digits.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import Value
from graphc.ir.record import record
from graphc.ir.types import DType, i16, i32, i64

MAX_DIGIT = 8  # bits: the lines of memory that more values are moved to do not fit the nearest cache
_COUNTER_COST, _ELEMENT_COST = 1.0, 2.5  # of one pass, for each counter and each element
_INTEGER = {16: i16, 32: i32, 64: i64}


def key_bits(dtype: DType) -> int:
    """Bits of the keys of `dtype`."""
    return 1 if dtype.kind == "bool" else dtype.bits


def signed_key(e: Emitter, raw: Value, descending: bool) -> Value:
    """The key of the element `raw` (or of each lane): i32, or i64 for elements of 64 bits, in
    [-2**(bits-1), 2**(bits-1)).

    Equal elements have equal keys. Floats are magnitudes with the sign of the element, so that both zeros are 0; NaN
    comes right after infinity.
    """
    dtype = raw.type.dtype
    wide = i64 if dtype.bits == 64 else i32
    if dtype.is_float:
        bits, magnitude, infinity = float_bits(e, raw)
        key = e.op("select", e.op("lt", bits, 0), e.op("neg", magnitude), magnitude)
        key = e.op("select", e.op("gt", magnitude, infinity), infinity + 1, key)
    else:
        key = raw if dtype is wide else e.op("cast", raw, to=wide)
        if dtype.kind != "int":
            key = e.op("sub", key, 1 << (key_bits(dtype) - 1))
    return e.op("not", key) if descending else key


def coarse_key(e: Emitter, raw: Value, descending: bool) -> Value:
    """An i32 that is no larger for an element that comes before another: the key, or of one of 64 bits what fits. Of
    floats these are the first bits, of integers all those of numbers that are not too large.
    """
    key = signed_key(e, raw, descending)
    if key.type.dtype is i32:
        return key
    if raw.type.dtype.is_float:
        return e.op("cast", e.op("ashr", key, 32), to=i32)
    return e.op("cast", e.op("maximum", e.op("minimum", key, (1 << 31) - 1), -1 << 31), to=i32)


def float_bits(e: Emitter, raw: Value) -> tuple[Value, Value, int]:
    """The bits of a float as i32 or i64, sign extended; those of its magnitude; and those of infinity."""
    dtype = raw.type.dtype
    wide, own = i64 if dtype.bits == 64 else i32, _INTEGER[dtype.bits]
    bits = e.op("bitcast", raw, to=own)
    if own is not wide:
        bits = e.op("cast", bits, to=wide)
    infinity = int(np.asarray(np.inf).astype(dtype.numpy).view(own.numpy))
    return bits, e.op("and", bits, (1 << (dtype.bits - 1)) - 1), infinity


def is_negative_zero(e: Emitter, raw: Value) -> Value:
    """Whether the float `raw` (or each lane) is -0.0."""
    bits, magnitude, _ = float_bits(e, raw)
    return e.op("and", e.op("lt", bits, 0), e.op("eq", magnitude, 0))


def distinct_key(e: Emitter, raw: Value, descending: bool) -> Value:
    """As `signed_key`, but -0.0 has the key before that of 0.0, so that `element` finds each element again.

    All NaN have the key of one quiet NaN.
    """
    dtype = raw.type.dtype
    if not dtype.is_float:
        return signed_key(e, raw, descending)
    bits, magnitude, infinity = float_bits(e, raw)
    key = e.op("select", e.op("lt", bits, 0), e.op("not", magnitude), magnitude)
    quiet = infinity | (infinity & -infinity) >> 1
    key = e.op("select", e.op("gt", magnitude, infinity), quiet, key)
    return e.op("not", key) if descending else key


def element(e: Emitter, key: Value, dtype: DType, descending: bool) -> Value:
    """The element of `dtype` that has this `distinct_key`."""
    if descending:
        key = e.op("not", key)
    if dtype.is_float:
        sign = -1 << (dtype.bits - 1)
        bits = e.op("select", e.op("lt", key, 0), e.op("xor", e.op("not", key), sign), key)
        own = _INTEGER[dtype.bits]
        return e.op("bitcast", bits if bits.type.dtype is own else e.op("cast", bits, to=own), to=dtype)
    if dtype.kind != "int":
        key = e.op("add", key, 1 << (key_bits(dtype) - 1))
    return key if key.type.dtype is dtype else e.op("cast", key, to=dtype)


@record(slots=False)
class Digits:
    """How rows of `n` elements of `dtype`, or `expected` ones of each, are sorted by digits, the last ones first.

    A word is a part of the key that fits into one integer `packed` above the index of the element; of 64-bit keys
    there are several. `alone`, without its index, any key is one word. Each pass sorts by `width` bits of a word, in
    `passes` passes.
    """

    dtype: DType
    n: int
    expected: int
    alone: bool = False

    @cached_property
    def index_bits(self) -> int:
        return 0 if self.alone else max(self.n - 1, 1).bit_length()

    @property
    def words(self) -> int:
        bits = key_bits(self.dtype)
        return 1 if self.alone else -(-bits // min(bits, 63 - self.index_bits))

    @property
    def word_bits(self) -> int:
        return -(-key_bits(self.dtype) // self.words)

    @property
    def packed(self) -> DType:
        return i32 if key_bits(self.dtype) + self.index_bits <= (32 if self.alone else 31) else i64

    @property
    def counter(self) -> DType:
        return i32 if self.n < 1 << 31 else i64

    @cached_property
    def passes(self) -> int:
        """The number of passes with the least work."""

        def cost(passes: int) -> float:
            return passes * ((1 << -(-self.word_bits // passes)) * _COUNTER_COST + self.expected * _ELEMENT_COST)

        return min(range(-(-self.word_bits // MAX_DIGIT), self.word_bits + 1), key=cost)

    @property
    def width(self) -> int:
        return -(-self.word_bits // self.passes)

    @property
    def radix(self) -> int:
        return 1 << self.width

    def pack(self, e: Emitter, key: Value, index: Value, word: int) -> Value:
        """Word number `word` of a signed key, above the index of the element."""
        bits = key_bits(self.dtype)
        if self.alone:
            return (
                e.op("xor", key, -1 << (bits - 1)) if bits == key.type.dtype.bits else e.op("add", key, 1 << (bits - 1))
            )
        if key.type.dtype is not self.packed:
            key = e.op("cast", key, to=self.packed)
        unsigned = e.op("xor", key, -1 << 63) if bits == 64 else e.op("add", key, 1 << (bits - 1))
        if self.words > 1:
            unsigned = e.op("and", e.op("lshr", unsigned, word * self.word_bits), (1 << self.word_bits) - 1)
        if index.type.dtype is not self.packed:
            index = e.op("cast", index, to=self.packed)
        return e.op("or", e.op("shl", unsigned, self.index_bits), index)

    def alone_element(self, e: Emitter, value: Value, descending: bool) -> Value:
        """The element whose key alone was packed."""
        bits = key_bits(self.dtype)
        full = bits == value.type.dtype.bits
        key = e.op("xor", value, -1 << (bits - 1)) if full else e.op("sub", value, 1 << (bits - 1))
        return element(e, key, self.dtype, descending)

    def index(self, e: Emitter, value: Value) -> Value:
        """The index (i64) in a packed value."""
        index = e.op("and", value, (1 << self.index_bits) - 1)
        return index if self.packed is i64 else e.op("cast", index, to=i64)

    def digit(self, e: Emitter, value: Value, number: Value | int) -> Value:
        """Digit `number` (0 is the last) of a packed value, i64."""
        if isinstance(number, Value):
            shift: Value | int = e.op("add", e.op("mul", number, self.width), self.index_bits)
            if self.packed is not i64:
                shift = e.op("cast", shift, to=self.packed)
        else:
            shift = number * self.width + self.index_bits
        digit = e.op("and", e.op("lshr", value, shift), self.radix - 1)
        return digit if self.packed is i64 else e.op("cast", digit, to=i64)
