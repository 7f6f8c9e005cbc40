"""Orders of elements: what a nest of loops over affine maps cannot say. They run on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops.checks import check_arity, check_axis, widen
from graphc.ir.types import TensorType, i64


def _infer_argsort(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("argsort", types, 1)
    check_axis("argsort", attrs["axis"], types[0])
    return types[0].with_dtype(i64)


def _evaluate_argsort(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    x, axis = widen(arrays[0]), attrs["axis"]
    if not attrs["descending"]:
        return np.argsort(x, axis=axis, kind="stable")
    # Backwards twice: equal elements keep their order, and NaN, the largest, comes first.
    return np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)


ARGSORT = register(
    OpDef(
        name="argsort",
        kind="host",
        arity=1,
        doc="Indices (i64) that sort along `axis`; equal elements keep their order, NaN is the largest. Any dtype.",
        infer=_infer_argsort,
        evaluate=_evaluate_argsort,
        attrs=(Attr("axis", "int"), Attr("descending", "bool")),
        why_no_vjp="zero: indices do not depend smoothly on the elements",
    )
)
