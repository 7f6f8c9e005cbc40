"""An interpreter of kernel statements over NumPy arrays: the oracle for what generated code computes, bit for bit.

Values are arrays of shape `batch` (scalars) or `batch + (lanes,)`, so that one walk evaluates many inputs. Loads,
stores and `If` are left out: expansions of operators do not use them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np

from graphc.codegen.kernel import LANE_REDUCTIONS, For, Op, Stmt, Value

Array = np.ndarray
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    def split(x: Array) -> tuple[Array, Array]:
        c = x * 134217729.0
        high = c - (c - x)
        return high, x - high

    p = a * b
    (ah, al), (bh, bl) = split(a), split(b)
    return p, al * bl - (((p - ah * bh) - al * bh) - ah * bl)


def _round_to_odd(s: Array, rest: Array) -> Array:
    """`s + rest` (|rest| below half an ulp of s) rounded to odd, so that a second rounding is innocent."""
    bits = s.view(np.int64)
    even = (bits & 1) == 0
    towards = np.where((rest > 0) == (s > 0), 1, -1)
    return np.where((rest != 0) & even & np.isfinite(s), bits + towards, bits).view(np.float64)


def fma(a: Array, b: Array, c: Array) -> Array:
    """a * b + c rounded once."""
    a, b, c = np.broadcast_arrays(a, b, c)
    if a.dtype == np.float32:
        product = a.astype(np.float64) * b.astype(np.float64)  # exact: 48 bits
        s, rest = _two_sum(product, c.astype(np.float64))
        return _round_to_odd(s, np.where(np.isfinite(rest), rest, 0.0)).astype(np.float32)
    high, low = _two_product(a, b)
    t_high, t_low = _two_sum(c, low)  # Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008
    v_high, v_low = _two_sum(high, t_high)
    z, z_rest = _two_sum(t_low, v_low)
    result = v_high + _round_to_odd(z, z_rest)
    size = np.maximum(np.abs(a * b), np.abs(c))
    hard = ~((size < 1e290) & (np.minimum(np.abs(a), np.abs(b)) < 1e290) & (np.maximum(np.abs(a), np.abs(b)) < 1e290))
    hard |= (np.abs(a * b) < 1e-250) & (a != 0) & (b != 0)
    if hard.any():
        result = np.array(result)
        result[hard] = [_exact_fma(*abc) for abc in zip(a[hard], b[hard], c[hard], strict=True)]
    plain = (a == 0) | (b == 0)
    return np.where(plain, a * b + c, result)


def _exact_fma(a: float, b: float, c: float) -> float:
    if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(c)):
        if np.isfinite(a) and np.isfinite(b):
            return float(c)
        return float(a * b + c)
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if exact == 0:
        return float(a * b + c)
    try:
        result = float(exact)
    except OverflowError:
        return float(np.inf if exact > 0 else -np.inf)
    return -0.0 if result == 0 and exact < 0 else result


def _unsigned(x: Array) -> Array:
    return x.view(UNSIGNED[x.dtype.itemsize])


def _truncating_quotient(a: Array, b: Array) -> Array:
    assert (b != 0).all(), "division by zero"
    assert not ((a == np.iinfo(a.dtype).min) & (b == -1)).any(), "the quotient overflows"
    q = a // b
    return q + ((a % b != 0) & ((a < 0) != (b < 0)))


def _fma_pairs(a: Array, b: Array, c: Array) -> Array:
    """Sums of two products, which are exact: the upper halves' first."""
    for halves in ((a & -0x10000, b & -0x10000), (a << 16, b << 16)):
        x, y = (half.view(np.float32) for half in halves)
        c = c + x * y
    return c


def _index(quotient: bool) -> Callable[[Array, Array], Array]:
    def divide(a: Array, b: Array) -> Array:
        assert ((a >= 0) & (b > 0)).all(), "index arithmetic is for non-negative numbers"
        return a // b if quotient else a % b

    return divide


def _in_range(x: Array, count: Array) -> Array:
    assert ((count >= 0) & (count < x.dtype.itemsize * 8)).all(), "shift count out of range"
    return count


def _pick(larger: bool) -> Callable[[Array, Array], Array]:
    def pick(a: Array, b: Array) -> Array:
        result = np.maximum(a, b) if larger else np.minimum(a, b)
        if a.dtype.kind == "f":
            zeros = (a == 0) & (b == 0)
            signs = np.signbit(a) & np.signbit(b) if larger else np.signbit(a) | np.signbit(b)
            result = np.where(zeros, np.where(signs, -0.0, 0.0).astype(a.dtype), result)
        return result

    return pick


def _lshr(a: Array, b: Array) -> Array:
    return (_unsigned(a) >> _unsigned(_in_range(a, b))).view(a.dtype)


def _scale(a: Array, b: Array) -> Array:
    info = np.finfo(a.dtype)
    n = b - a.dtype.type(1.5 * 2.0**info.nmant + 2 * (info.maxexp - 1))
    assert (np.abs(n[~np.isnan(n)]) < 2 * info.maxexp).all(), "no power of two that scales"
    return np.ldexp(a, np.where(np.isnan(n), 0, n).astype(np.int32))


SIMPLE: Mapping[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "fma": fma,
    "fma_pairs": _fma_pairs,
    "scale": _scale,
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "rint": np.rint,
    "maximum": _pick(True),
    "minimum": _pick(False),
    "fmax": lambda a, b: np.where(a > b, a, b),
    "fmin": lambda a, b: np.where(a < b, a, b),
    "sdiv": _truncating_quotient,
    "srem": lambda a, b: a - _truncating_quotient(a, b) * b,
    "udiv": lambda a, b: (_unsigned(a) // _unsigned(b)).view(a.dtype),
    "urem": lambda a, b: (_unsigned(a) % _unsigned(b)).view(a.dtype),
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.bitwise_not,
    "shl": lambda a, b: a << _in_range(a, b),
    "lshr": _lshr,
    "ashr": lambda a, b: a >> _in_range(a, b),
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "select": np.where,
    "floordiv": _index(True),
    "mod": _index(False),
}


class Interpreter:
    """Evaluates statements for a batch of inputs; `values` holds what each kernel value is."""

    def __init__(self, batch: tuple[int, ...]) -> None:
        self.batch = batch
        self.values: dict[Value, Array] = {}

    def run(self, statements: Sequence[Stmt]) -> None:
        with np.errstate(all="ignore"):
            for statement in statements:
                if isinstance(statement, Op):
                    self.values[statement.result] = self._op(statement)
                elif isinstance(statement, For):
                    self._loop(statement)
                else:
                    raise TypeError(f"the interpreter does not know {type(statement).__name__}")

    def _shape(self, value: Value) -> tuple[int, ...]:
        return self.batch if value.type.lanes == 1 else (*self.batch, value.type.lanes)

    def _op(self, op: Op) -> Array:
        dtype = op.result.type.dtype.numpy
        if op.name == "const":
            return np.full(self._shape(op.result), op.attr, dtype)
        args = [self.values[a] for a in op.args]
        if op.name == "splat":
            return np.broadcast_to(args[0][..., None], self._shape(op.result))
        if op.name == "cast":
            return self._cast(args[0], dtype)
        if op.name == "bitcast":
            assert args[0].dtype.itemsize == dtype.itemsize
            return np.ascontiguousarray(args[0]).view(dtype)
        if op.name == "lookup":
            table = np.array(op.table, dtype)
            return table[args[0] & (table.size - 1)]
        if op.name == "lanes":
            return np.broadcast_to(np.arange(op.result.type.lanes).astype(dtype), self._shape(op.result))
        if op.name in LANE_REDUCTIONS:
            return self._reduce(op, args[0])
        if op.name == "extract":
            first, lanes = int(op.attr or 0), op.result.type.lanes
            if lanes > 1:
                return args[0][..., first : first + lanes]
            return args[0] if op.args[0].type.lanes == 1 else args[0][..., first]
        if op.name == "splice":
            first = int(op.attr or 0)
            return np.concatenate(args, axis=-1)[..., first : first + op.result.type.lanes]
        if op.name in ("zip_low", "zip_high", "unpack_low", "unpack_high"):
            group = op.result.type.lanes if op.name.startswith("zip") else 16 // op.result.type.dtype.itemsize
            parts = [a.reshape(*a.shape[:-1], -1, 2, group // 2)[..., int(op.name.endswith("high")), :] for a in args]
            return np.stack(parts, axis=-1).reshape(self._shape(op.result))
        if op.name in ("even_segments", "odd_segments"):
            segment = 16 // op.result.type.dtype.itemsize
            parts = [a.reshape(*a.shape[:-1], -1, 2, segment)[..., int(op.name == "odd_segments"), :] for a in args]
            return np.concatenate(parts, axis=-2).reshape(self._shape(op.result))
        result = SIMPLE[op.name](*args)
        assert result.dtype == dtype, (op, result.dtype)
        return result

    @staticmethod
    def _reduce(op: Op, lanes: Array) -> Array:
        """Halves are combined until one lane is left."""
        combine = SIMPLE[op.name.removeprefix("reduce_")]
        if op.args[0].type.lanes == 1:
            return lanes
        while lanes.shape[-1] > 1:
            half = lanes.shape[-1] // 2
            lanes = combine(lanes[..., :half], lanes[..., half:])
        return lanes[..., 0]

    @staticmethod
    def _cast(x: Array, dtype: np.dtype) -> Array:
        if x.dtype.kind not in "iub" and dtype.kind in "iu":
            wide = np.trunc(x.astype(np.float64))
            info = np.iinfo(dtype)
            assert ((wide >= info.min) & (wide < float(info.max) + 1)).all(), "float to int out of range"
        return x != 0 if dtype.kind == "b" else x.astype(dtype)

    def _loop(self, loop: For) -> None:
        """Inputs of a batch may want different numbers of rounds: the ones that are done keep their values."""
        bounds = (self.values[b] if isinstance(b, Value) else b for b in (loop.lo, loop.hi))
        lo, hi = (np.broadcast_to(b, self.batch) for b in bounds)
        carried = [self.values[v] for v in loop.inits]
        var = np.array(lo, np.int64)
        while (running := var < hi).any():
            self.values[loop.var] = var
            self.values.update(zip(loop.phis, carried, strict=True))
            self.run(loop.body)
            masks = [running if v.type.lanes == 1 else running[..., None] for v in loop.phis]
            carried = [np.where(m, self.values[y], c) for m, y, c in zip(masks, loop.yields, carried, strict=True)]
            var = var + loop.step
        self.values.update(zip(loop.results, carried, strict=True))


def ulp_error(got: Array, reference: Array) -> Array:
    """The distance from `got` to `reference` (a wider float type) in units in the last place of the reference.

    Classes must agree: infinite where a NaN, an infinity or the sign of a zero differs.
    """
    wide = reference.dtype.type
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = reference.astype(got.dtype)
        exponent = np.frexp(np.where(np.isfinite(reference), reference, 1))[1]
        exponent = np.maximum(exponent - 1, info.minexp)
        error = np.abs(got.astype(wide) - reference) / np.ldexp(wide(1), exponent - info.nmant)
        # next to overflow, infinity stands for the power of two after the largest number
        top = np.ldexp(wide(1), info.maxexp)
        capped = np.where(np.isinf(got), np.copysign(top, got), got.astype(wide))
        limit = np.where(np.isinf(rounded), np.copysign(top, reference), reference)
        error = np.where(np.isinf(got) | np.isinf(rounded), np.abs(capped - limit) / (top * wide(info.epsneg)), error)
        error = np.where(np.isinf(got) & np.isinf(rounded) & (got == rounded), 0, error)
        error = np.where(np.isnan(got) & np.isnan(reference), 0, error)
        error = np.where(np.isnan(got) != np.isnan(reference), np.inf, error)
        signs = (got == 0) & (reference == 0) & (np.signbit(got) != np.signbit(reference))
    return np.where(signs, np.inf, error).astype(np.float64)
