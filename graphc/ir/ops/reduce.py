"""Reductions over `axes` (increasing); the reduced dimensions vanish."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops import reduce_vjp as rules
from graphc.ir.ops.checks import check_arity, check_axes, check_group, narrow, widen
from graphc.ir.types import TensorType, i32, i64

Arrays = Sequence[np.ndarray]
Types = Sequence[TensorType]


def _reduced(op: str, types: Types, attrs: Attrs, group: str) -> TensorType:
    check_arity(op, types, 1)
    x, axes = types[0], attrs["axes"]
    check_group(op, x, group)
    check_axes(op, axes, x)
    return x.with_shape(tuple(n for i, n in enumerate(x.shape) if i not in axes))


def _need_elements(op: str, x: TensorType, axes: Sequence[int]) -> None:
    """A maximum of no numbers has no value (of no bools it has: any() is false, all() is true)."""
    empty = [a for a in axes if x.shape[a] == 0]
    if empty:
        raise ShapeError(f"{op}: dimension {empty[0]} of {x} has no elements to choose from")


def _infer_sum(types: Types, attrs: Attrs) -> TensorType:
    return _reduced("reduce_sum", types, attrs, "number")


def _infer_prod(types: Types, attrs: Attrs) -> TensorType:
    return _reduced("reduce_prod", types, attrs, "number")


def _evaluate_sum(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    x = widen(arrays[0])
    return narrow(np.add.reduce(x, axis=attrs["axes"], dtype=x.dtype), type)


def _evaluate_prod(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    x = widen(arrays[0])
    return narrow(np.multiply.reduce(x, axis=attrs["axes"], dtype=x.dtype), type)


def _infer_extreme(op: str, types: Types, attrs: Attrs) -> TensorType:
    result = _reduced(op, types, attrs, "any")
    if types[0].dtype.kind != "bool":
        _need_elements(op, types[0], attrs["axes"])
    if attrs["ties"] not in ("even", "first"):
        raise ShapeError(f'{op}: ties is "even" or "first", got {attrs["ties"]!r}')
    return result


def _infer_max(types: Types, attrs: Attrs) -> TensorType:
    return _infer_extreme("reduce_max", types, attrs)


def _infer_min(types: Types, attrs: Attrs) -> TensorType:
    return _infer_extreme("reduce_min", types, attrs)


def _evaluate_max(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    return _extreme(arrays[0], attrs["axes"], type, largest=True)


def _evaluate_min(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    return _extreme(arrays[0], attrs["axes"], type, largest=False)


def _extreme(x: np.ndarray, axes: tuple[int, ...], type: TensorType, largest: bool) -> np.ndarray:
    """Maximum or minimum with NaN winning, +0 above -0."""
    if type.dtype.kind == "bool":
        return np.asarray(np.any(x, axis=axes) if largest else np.all(x, axis=axes))
    x = widen(x)
    function = np.maximum if largest else np.minimum
    result = np.asarray(function.reduce(x, axis=axes))
    if type.dtype.is_float and not np.all(result):
        wanted = (x == 0) & (np.signbit(x) != largest)
        zero, other = (0.0, -0.0) if largest else (-0.0, 0.0)
        signed = np.where(np.any(wanted, axis=axes), zero, other).astype(result.dtype)
        result = np.where(result == 0, signed, result)
    return narrow(result, type)


def _infer_arg(op: str, types: Types, attrs: Attrs) -> TensorType:
    result = _reduced(op, types, attrs, "number")
    _need_elements(op, types[0], attrs["axes"])
    if attrs["dtype"] not in (i64, i32):
        raise DTypeError(f"{op}: an index has dtype i64 or i32, got {attrs['dtype']}")
    return result.with_dtype(attrs["dtype"])


def _infer_argmax(types: Types, attrs: Attrs) -> TensorType:
    return _infer_arg("argmax", types, attrs)


def _infer_argmin(types: Types, attrs: Attrs) -> TensorType:
    return _infer_arg("argmin", types, attrs)


def _flat(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """`x` with `axes` brought to the end and flattened to one dimension."""
    kept = [i for i in range(x.ndim) if i not in axes]
    moved = widen(x).transpose((*kept, *axes))
    return moved.reshape((*(x.shape[i] for i in kept), math.prod(x.shape[i] for i in axes)))


def _evaluate_argmax(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    return narrow(np.argmax(_flat(arrays[0], attrs["axes"]), axis=-1), type)


def _evaluate_argmin(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    return narrow(np.argmin(_flat(arrays[0], attrs["axes"]), axis=-1), type)


_AXES = Attr("axes", "ints")
_NO_INDEX_GRADIENT = "zero: it gives integers"

REDUCE_SUM = register(
    OpDef(
        name="reduce_sum",
        kind="reduction",
        arity=1,
        doc="Sum over `axes`; 0 over no elements. Floats add up in their dtype (f16 and bf16 in f32), integers wrap.",
        infer=_infer_sum,
        evaluate=_evaluate_sum,
        attrs=(_AXES,),
        vjp=rules.reduce_sum,
    )
)
REDUCE_PROD = register(
    OpDef(
        name="reduce_prod",
        kind="reduction",
        arity=1,
        doc="Product over `axes`; 1 over no elements. Floats in their dtype (f16 and bf16 in f32), integers wrap.",
        infer=_infer_prod,
        evaluate=_evaluate_prod,
        attrs=(_AXES,),
        vjp=rules.reduce_prod,
    )
)
REDUCE_MAX = register(
    OpDef(
        name="reduce_max",
        kind="reduction",
        arity=1,
        doc=(
            "Maximum over `axes`, NaN if any is NaN, +0 over -0; any() of bools. Any dtype; over no elements only "
            'for bool. `ties`: the gradient is shared "even"ly among equal elements or goes to the "first".'
        ),
        infer=_infer_max,
        evaluate=_evaluate_max,
        attrs=(_AXES, Attr("ties", "str")),
        vjp=rules.reduce_max,
    )
)
REDUCE_MIN = register(
    OpDef(
        name="reduce_min",
        kind="reduction",
        arity=1,
        doc=(
            "Minimum over `axes`, NaN if any is NaN, -0 over +0; all() of bools. Any dtype; over no elements only "
            'for bool. `ties`: the gradient is shared "even"ly among equal elements or goes to the "first".'
        ),
        infer=_infer_min,
        evaluate=_evaluate_min,
        attrs=(_AXES, Attr("ties", "str")),
        vjp=rules.reduce_min,
    )
)
ARGMAX = register(
    OpDef(
        name="argmax",
        kind="reduction",
        arity=1,
        doc="Row-major index among `axes` of the first maximum (of the first NaN if there is one); `dtype` i64 or i32.",
        infer=_infer_argmax,
        evaluate=_evaluate_argmax,
        attrs=(_AXES, Attr("dtype", "dtype")),
        why_no_vjp=_NO_INDEX_GRADIENT,
    )
)
ARGMIN = register(
    OpDef(
        name="argmin",
        kind="reduction",
        arity=1,
        doc="Row-major index among `axes` of the first minimum (of the first NaN if there is one); `dtype` i64 or i32.",
        infer=_infer_argmin,
        evaluate=_evaluate_argmin,
        attrs=(_AXES, Attr("dtype", "dtype")),
        why_no_vjp=_NO_INDEX_GRADIENT,
    )
)
