"""Random numbers whose algorithms loop until they accept: they run on the host, from the key of a draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.opdef import Attrs, OpDef, register
from graphc.ir.ops.checks import check_arity, check_device, widen
from graphc.ir.types import TensorType, i64


def _infer(op: str, arity: int, types: Sequence[TensorType]) -> TensorType:
    check_arity(op, types, arity)
    if (types[0].dtype, types[0].shape) != (i64, (2,)):  # on any device: the host reads it
        raise DTypeError(f"{op}: wants a key i64[2] first, got {types[0]}")
    if not types[1].dtype.is_float:
        raise DTypeError(f"{op}: wants floats, got {types[1]}")
    check_device(op, types[1:])
    if len(set(types[1:])) != 1:
        raise ShapeError(f"{op}: wants operands of one type, got {' and '.join(map(str, types[1:]))}")
    return types[1]


def _infer_poisson(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    return _infer("random_poisson", 2, types)


def _infer_binomial(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    return _infer("random_binomial", 3, types)


def _generator(key: np.ndarray) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.ascontiguousarray(key).view(np.uint64)))


def _evaluate_poisson(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    rate = widen(arrays[1]).astype(np.float64)
    # NaN and what no Poisson number has draw nothing; the largest rate is NumPy's own.
    known = (rate >= 0) & (rate < 2.0**62)
    drawn = _generator(arrays[0]).poisson(np.where(known, rate, 0))
    return np.where(known, drawn, rate).astype(type.dtype.numpy)


def _evaluate_binomial(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    count, chance = (widen(a).astype(np.float64) for a in arrays[1:])
    known = (count >= 0) & (count < 2.0**62) & (chance >= 0) & (chance <= 1)
    drawn = _generator(arrays[0]).binomial(np.where(known, count, 0).astype(np.int64), np.where(known, chance, 0))
    return np.where(known, drawn, np.nan).astype(type.dtype.numpy)


POISSON = register(
    OpDef(
        name="random_poisson",
        kind="host",
        arity=2,
        doc="Poisson numbers with the rates `x`, from a key i64[2]; the same key gives the same numbers.",
        infer=_infer_poisson,
        evaluate=_evaluate_poisson,
        why_no_vjp="zero: the numbers are whole",
    )
)
BINOMIAL = register(
    OpDef(
        name="random_binomial",
        kind="host",
        arity=3,
        doc="How many of `x` trials succeed with probability `y`, from a key i64[2]; NaN where that says nothing.",
        infer=_infer_binomial,
        evaluate=_evaluate_binomial,
        why_no_vjp="zero: the numbers are whole",
    )
)
