"""Random kernels: all operations, dtypes, accesses, loops and conditions, for one thread or for blocks of threads.

Each index has a region of its own in what is written, so that the order of the range does not matter.
"""

from __future__ import annotations

import numpy as np

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import INDEX, Affine, For, If, Kernel, Load, Number, Op, Param, Store, Value, VType
from graphc.ir.types import DTYPES, DType, boolean, f32, f64, i32, i64

_DEPTH = 2  # of loops
_ONES = frozenset({"abs", "neg", "sqrt", "floor", "ceil", "trunc", "rint", "not"})


class KernelMaker:
    """Makes one kernel from a generator of random numbers. `threads` 1: vectors of `lanes`; else blocks of `lanes`."""

    def __init__(self, seed: int, lanes: int, is_block: bool, length: int = 40) -> None:
        self.rng = np.random.default_rng(seed)
        self.lanes, self.is_block = lanes, is_block
        self.grid = int(self.rng.integers(2, 6))
        self.region = 12 * lanes + 7 if seed % 2 else 12 * lanes
        dtypes = [f32, *(d for d in DTYPES if d is not f32)]
        kinds = [d for d in dtypes if d in (f32, i64, boolean) or self.rng.random() < 0.5]
        # In a block, what is never loaded must be stored once only.
        modes = ("in", "inout") if is_block else ("in", "inout", "out")
        self.params = [Param(f"{m}_{d}", d, self.grid * self.region, m) for d in kinds for m in modes]
        self.own = [Param(f"own_{d}", d, 4 * lanes, "own") for d in (f32, i64)]
        self.index = Value(INDEX, "g")
        self.emitters = [Emitter()]
        self.scopes: list[list[Value]] = [[]]
        self.loops: list[tuple[Value, int]] = []  # loop variables and the largest value of each
        self._initialize()
        self._statements(length)
        for value in self.scopes[0][-length:]:
            self._store(value)
        for buffer in self.params:
            self.e.body.append(Load(Value(VType(buffer.dtype)), buffer, Affine(0, ((self.index, self.region),))))
        for buffer in self.own:
            self.e.body.append(Load(Value(VType(buffer.dtype)), buffer, Affine(0)))

    @property
    def e(self) -> Emitter:
        return self.emitters[-1]

    def kernel(self) -> Kernel:
        body = tuple(self.emitters[0].body)
        threads = self.lanes if self.is_block else 1
        return Kernel("k", tuple(self.params), self.grid, self.index, body, own=tuple(self.own), threads=threads)

    def _initialize(self) -> None:
        """Give memory of the kernel's own its contents."""
        for buffer in self.own:
            start = Value(INDEX, "start")
            inner = Emitter()
            numbers = inner.op("add", inner.lanes(i64, self.lanes) if self.lanes > 1 else inner.const(3, INDEX), start)
            value = inner.op("cast", numbers, to=buffer.dtype) if buffer.dtype is not i64 else numbers
            inner.body.append(Store(buffer, Affine(0, ((start, 1),)), value))
            self.e.body.append(For(start, 0, buffer.size, self.lanes, tuple(inner.body)))

    def _choose(self, *choices: object) -> object:
        return choices[int(self.rng.integers(len(choices)))]

    def _type(self) -> VType:
        dtypes = [p.dtype for p in self.params if p.mode == "in"]
        dtype = dtypes[int(self.rng.integers(len(dtypes)))]
        return VType(dtype, self.lanes if self.rng.random() < 0.7 else 1)

    def value(self, type: VType) -> Value:
        """A value of `type` that there is, or a new one."""
        known = [v for scope in self.scopes for v in scope if v.type == type]
        if known and self.rng.random() < 0.9:
            return known[int(self.rng.integers(len(known)))]
        if self.rng.random() < 0.3:
            return self.keep(self.e.const(self._number(type.dtype), type))
        return self._load(type)

    def keep(self, value: Value) -> Value:
        """Let `value` be used by what follows."""
        self.scopes[-1].append(value)
        return value

    def _number(self, dtype: DType) -> Number:
        if dtype.kind == "bool":
            return bool(self.rng.integers(2))
        if dtype.is_float:
            return float(self.rng.choice([0.0, -0.0, 1.5, -2.25, np.inf, 1e-3, 7.0]))
        return int(self.rng.integers(0 if dtype.kind == "uint" else -100, 100))

    def _statements(self, count: int) -> None:
        for _ in range(count):
            what = self.rng.random()
            if what < 0.45:
                self._compute()
            elif what < 0.6:
                self.keep(self._load(self._type()))
            elif what < 0.78:
                self._store(self.value(self._type()))
            elif what < 0.86:
                self._across()
            elif what < 0.94 and len(self.loops) < _DEPTH:
                self._loop()
            elif len(self.emitters) < _DEPTH + 2:
                self._if()

    # Memory

    def _place(self, buffer: Param, reach: int) -> Affine:
        """An index in the index's own region from which `reach` elements (before it: negative) may be touched."""
        size = buffer.size if buffer.mode == "own" else self.region
        low, room = max(0, -reach), size - abs(reach)
        terms: list[tuple[Value, int]] = [] if buffer.mode == "own" else [(self.index, self.region)]
        for variable, largest in self.loops:
            factor = int(self._choose(0, 1, self.lanes, 2))  # type: ignore[call-overload]
            if factor and factor * largest < room:
                room -= factor * largest
                terms.append((variable, factor))
        multiple = int(self._choose(1, self.lanes))  # type: ignore[call-overload]
        constant = int(self.rng.integers(room)) // multiple * multiple
        return Affine(low + constant, tuple(terms))

    def _access(self, buffer: Param, type: VType) -> tuple[Affine, int, Value | None, Value | None]:
        """Index, stride, offsets and mask of an access."""
        lanes = type.lanes
        masked = self.rng.random() < 0.3
        mask = self.value(VType(boolean, lanes)) if masked else None
        if lanes > 1 and self.rng.random() < 0.15 and lanes & (lanes - 1) == 0:
            turned = self.e.op("mul", self.e.lanes(i64, lanes), 2 * int(self.rng.integers(8)) + 1)
            offsets = self.e.op("and", self.e.op("add", turned, int(self.rng.integers(9))), lanes - 1)
            return self._place(buffer, lanes), 0, offsets, mask
        stride = int(self._choose(1, 1, 1, -1, 2)) if lanes > 1 else 1  # type: ignore[call-overload]
        return self._place(buffer, (lanes - 1) * stride), stride, None, mask

    def _buffer(self, dtype: DType, modes: tuple[str, ...]) -> Param | None:
        found = [p for p in (*self.params, *self.own) if p.dtype is dtype and p.mode in modes]
        return found[int(self.rng.integers(len(found)))] if found else None

    def _load(self, type: VType) -> Value:
        buffer = self._buffer(type.dtype, ("in", "inout", "own"))
        assert buffer is not None
        index, stride, offsets, mask = self._access(buffer, type)
        result = Value(type, str(self._choose("x", "value", "")))
        self.e.body.append(Load(result, buffer, index, stride, offsets, mask))
        return result

    def _store(self, value: Value) -> None:
        buffer = self._buffer(value.type.dtype, ("out", "inout", "own"))
        if buffer is None:
            return
        index, stride, offsets, mask = self._access(buffer, value.type)
        self.e.body.append(Store(buffer, index, value, stride, offsets, mask))

    # Operations

    def _compute(self) -> None:
        type = self._type()
        dtype = type.dtype
        a, b = self.value(type), self.value(type)
        e, keep = self.e, self.keep
        if self.rng.random() < 0.2:
            self._convert(a)
            return
        if dtype.is_float and dtype.bits == 16:
            keep(e.op("select", self.value(VType(boolean, type.lanes)), a, b))
            return
        names = ["eq", "ne", "lt", "le", "gt", "ge", "select", "maximum", "minimum"]
        if dtype.is_float:
            names += ["add", "sub", "mul", "div", "fma", "fmax", "fmin", *_ONES - {"not"}]
        elif dtype.kind == "bool":
            names += ["and", "or", "xor", "not"]
        else:
            names += ["add", "sub", "mul", "and", "or", "xor", "not", "neg", "abs", "shl", "lshr", "ashr"]
            names += ["udiv", "urem"] + ([] if dtype.kind == "uint" else ["sdiv", "srem"])
            names += ["floordiv", "mod"] if type == INDEX else []
        name = str(self._choose(*names))
        if name in _ONES:
            keep(e.op(name, a))
        elif name == "select":
            keep(e.op(name, self.value(VType(boolean, type.lanes)), a, b))
        elif name == "fma":
            keep(e.op(name, a, b, self.value(type)))
        elif name in ("shl", "lshr", "ashr"):
            keep(e.op(name, a, e.op("and", b, dtype.bits - 1)))
        elif name in ("udiv", "urem", "sdiv", "srem"):
            keep(e.op(name, a, e.op("or", e.op("and", b, 63), 1)))
        elif name in ("floordiv", "mod"):
            keep(e.op(name, e.op("and", a, (1 << 40) - 1), e.op("or", e.op("and", b, 63), 1)))
        else:
            keep(e.op(name, a, b))

    def _convert(self, a: Value) -> None:
        """A cast of what fits, or a bitcast. No bits of a NaN become a number: they differ between machines."""
        e, source = self.e, a.type.dtype
        target = self._type().dtype
        if self.rng.random() < 0.3 and source.bits == target.bits and boolean not in (source, target):
            if source.is_float and source.bits == 16 and source is not target:
                return
            if source.is_float and source.bits > 16:
                a = e.op("select", e.op("eq", a, a), a, 0.0)
            self.keep(e.op("bitcast", a, to=target))
            return
        if target.is_float and target.bits == 16 and (source is f64 or source.bits > 32 or source.name == "i32"):
            return  # how often that is rounded: see the tests of conversions
        if source.is_float and target.is_integer:
            if source.bits == 16:
                a = e.op("cast", a, to=f32)
            a = e.op("abs", a)
            a = e.op("select", e.op("lt", a, 100.0), a, 3.5)
        self.keep(e.op("cast", a, to=target))

    def _across(self) -> None:
        """Between scalars and vectors."""
        e, lanes = self.e, self.lanes
        dtype = self._type().dtype
        vector = self.value(VType(dtype, lanes))
        what = str(self._choose("splat", "lanes", "extract", "reduce", "reduce", "zip", "splice", "lookup"))
        if what == "splat":
            self.keep(e.splat(self.value(VType(dtype)), lanes))
        elif what == "lanes" and dtype.is_integer:
            self.keep(e.lanes(dtype, lanes))
        elif what == "extract" and lanes > 1:
            from_lane = int(self.rng.integers(lanes))
            result = Value(VType(dtype))
            e.body.append(Op(result, "extract", (vector,), from_lane))
            self.keep(result)
        elif what == "lookup" and dtype in (i32, i64):
            self.keep(e.lookup(self.rng.standard_normal(1 << int(self.rng.integers(6))).tolist(), vector))
        elif what == "splice" and lanes > 1:
            self.keep(e.splice(vector, self.value(vector.type), int(self.rng.integers(lanes + 1))))
        elif what == "zip" and lanes % 2 == 0:
            size = lanes * dtype.itemsize
            names = ["zip_low", "zip_high"]
            names += ["unpack_low", "unpack_high"] if size % 16 == 0 else []
            names += ["even_segments", "odd_segments"] if size % 32 == 0 else []
            self.keep(e.op(str(self._choose(*names)), vector, self.value(vector.type)))
        elif what == "reduce" and lanes & (lanes - 1) == 0 and not (dtype.is_float and dtype.bits == 16):
            names = ["reduce_maximum", "reduce_minimum"]
            names += ["reduce_add", "reduce_mul"] if dtype.kind != "bool" else []
            names += ["reduce_or", "reduce_and"] if not dtype.is_float else []
            self.keep(e.op(str(self._choose(*names)), vector))

    # Control

    def _inside(self, count: int) -> Emitter:
        inner = Emitter()
        self.emitters.append(inner)
        self._statements(count)
        self.emitters.pop()
        return inner

    def _loop(self) -> None:
        step = int(self._choose(1, 1, 2, self.lanes))  # type: ignore[call-overload]
        trips = int(self.rng.integers(1, 4))
        lo = int(self._choose(0, 0, step))  # type: ignore[call-overload]
        hi = lo + trips * step - int(self.rng.integers(step))
        bound: int | Value = hi
        if self.rng.random() < 0.4:  # a number that is not known before
            some = self.e.op("and", self.value(INDEX), 1)
            bound = self.e.op("sub", hi, self.e.op("mul", some, step))
        variable = Value(INDEX, "i")
        inits = [self.value(self._type()) for _ in range(int(self.rng.integers(3)))]
        phis = [Value(v.type, "carried") for v in inits]
        self.loops.append((variable, lo + (trips - 1) * step))
        self.scopes.append([variable, *phis])
        inner = Emitter()
        self.emitters.append(inner)
        self._statements(int(self.rng.integers(3, 9)))
        yields = [self.value(v.type) for v in inits]
        self.emitters.pop()
        self.scopes.pop()
        self.loops.pop()
        results = [self.keep(Value(v.type)) for v in inits]
        loop = For(
            variable, lo, bound, step, tuple(inner.body), tuple(phis), tuple(inits), tuple(yields), tuple(results)
        )
        self.e.body.append(loop)

    def _if(self) -> None:
        condition = self.value(VType(boolean))
        self.scopes.append([])
        inner = self._inside(int(self.rng.integers(2, 5)))
        self.scopes.pop()
        self.e.body.append(If(condition, tuple(inner.body)))
