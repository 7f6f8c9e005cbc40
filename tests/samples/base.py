"""What a sample is, and the arrays that samples are made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS, attrs_of
from graphc.ir.types import (
    DTYPES,
    DType,
    TensorType,
    bf16,
    boolean,
    dtype_of_numpy,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    u8,
)

FLOATS = (f32, f64, f16, bf16)
INTEGERS = (i64, i32, i16, i8, u8)
SHAPES: tuple[tuple[int, ...], ...] = ((3, 7), (), (1,), (17,), (0,), (2, 0, 3), (2, 3, 1, 5))


@dataclass(frozen=True)
class Sample:
    """Operands and attributes of one operator; `type` is the result type where the operator does not infer it."""

    arrays: tuple[np.ndarray, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    type: TensorType | None = None

    @property
    def types(self) -> tuple[TensorType, ...]:
        return tuple(type_of(a) for a in self.arrays)

    def graph(self, op: str) -> Graph:
        """A graph of the one operator over an input for each array."""
        b = Builder()
        inputs = tuple(b.input(i, type) for i, type in enumerate(self.types))
        return Graph(inputs, (self.apply(b, op, inputs),))

    def apply(self, b: Builder, op: str, inputs: Sequence[Node]) -> Node:
        if self.type is None:
            return b.apply(op, tuple(inputs), self.attrs)
        return b.make(op, tuple(inputs), tuple((a.name, self.attrs[a.name]) for a in OPS[op].attrs), self.type)

    def evaluate(self, op: str) -> np.ndarray:
        """The result by the operator's NumPy reference."""
        node = self.graph(op).outputs[0]
        with np.errstate(all="ignore"):
            return OPS[op].evaluate(self.arrays, attrs_of(node), node.type)


@dataclass(frozen=True)
class BadSample:
    """Operand types and attributes that the operator must refuse, with the error and a pattern of its message."""

    types: tuple[TensorType, ...]
    match: str
    attrs: dict[str, Any] = field(default_factory=dict)
    error: type[GraphcError] = ShapeError


@dataclass(frozen=True)
class OpSamples:
    """The samples of one operator.

    `make(rng)` gives inputs for the forward value: odd shapes, zero-size, 0-d, all dtypes, special values.
    `smooth(rng)` gives f64 inputs where the function has two derivatives, away from kinks and poles. `exact`: every
    correct implementation gives the same bits in f32 and f64 (the bits of a NaN apart). `constant`: operands without a
    gradient, though the function depends on them.
    """

    make: Callable[[np.random.Generator], list[Sample]]
    bad: tuple[BadSample, ...] = ()
    smooth: Callable[[np.random.Generator], list[Sample]] | None = None
    exact: bool = True
    constant: tuple[int, ...] = ()


def type_of(array: np.ndarray) -> TensorType:
    dtype = dtype_of_numpy(array.dtype)
    assert dtype is not None, array.dtype
    return TensorType(dtype, array.shape)


def twice_differentiable(gradients: Iterable[Node | None]) -> bool:
    """Whether no operator in `gradients` says that its own gradient is undefined."""
    seen: set[Node] = set()
    stack = [g for g in gradients if g is not None]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.inputs)
    return not any(OPS[node.op].why_no_vjp.startswith("undefined") for node in seen)


def t(text: str) -> TensorType:
    """`f32[2,3]` or `f32[2]@gpu` as a type."""
    name, _, rest = text.partition("[")
    sizes, _, device = rest.partition("]")
    shape = tuple(int(n) for n in sizes.split(",")) if sizes else ()
    dtype = next(d for d in DTYPES if d.name == name)
    return TensorType(dtype, shape, device.removeprefix("@") or "cpu")


def array(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: DType, low: float = -3, high: float = 3
) -> np.ndarray:
    """Random elements of any dtype: floats in [low, high), integers around the ends of their range too."""
    if dtype is boolean:
        return np.asarray(rng.integers(0, 2, shape)).astype(np.bool_)
    if dtype.is_float:
        return np.asarray(rng.uniform(low, high, shape)).astype(dtype.numpy)
    info = np.iinfo(dtype.numpy)
    small = rng.integers(max(info.min, -20), 21, shape)
    large = rng.integers(info.min, info.max, shape, dtype=dtype.numpy, endpoint=True)
    return np.asarray(np.where(rng.random(shape) < 0.7, small, large)).astype(dtype.numpy)


def distinct(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType = f64) -> np.ndarray:
    """Random floats at least 0.25 apart from each other and from 0."""
    size = int(np.prod(shape))
    values = (np.arange(size) - size // 2 + 0.5) * 0.5 + rng.uniform(-0.1, 0.1, size)
    return rng.permutation(values).reshape(shape).astype(dtype.numpy)


def specials(dtype: DType) -> np.ndarray:
    """The values at which implementations go wrong."""
    if dtype is boolean:
        return np.array([False, True])
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        values = {info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, 7, 8, 31, 32, 63, 64}
        values |= {-1, -2, -3, -7} if dtype.kind == "int" else set()
        return np.array([v for v in sorted(values) if info.min <= v <= info.max], dtype.numpy)
    finite = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 7.25, 1e-3, 300.0]
    if dtype in (f32, f64):
        info = np.finfo(dtype.numpy)
        finite += [
            float(info.max),
            float(info.tiny),
            float(info.smallest_subnormal),
            float(info.eps),
            1e10,
            87.5,
            100.0,
        ]
    values = [s * v for v in finite for s in (1, -1)]
    return np.array([*values, np.inf, -np.inf, np.nan]).astype(dtype.numpy)


def pairs(dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of special values."""
    x, y = zip(*itertools.product(specials(dtype), repeat=2), strict=True)
    return np.array(x, dtype.numpy), np.array(y, dtype.numpy)


__all__ = [
    "FLOATS",
    "INTEGERS",
    "SHAPES",
    "BadSample",
    "DTypeError",
    "OpSamples",
    "Sample",
    "ShapeError",
    "array",
    "distinct",
    "pairs",
    "specials",
    "t",
    "twice_differentiable",
    "type_of",
]
