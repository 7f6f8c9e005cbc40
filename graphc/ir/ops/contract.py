"""The contraction: matrix products, convolutions and their gradients by one index formula."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.contraction import Dim, parse_spec
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops.checks import check_arity, check_device, check_group, check_same_dtype, narrow, widen
from graphc.ir.ops.contract_vjp import contract_vjp
from graphc.ir.types import TensorType


def _infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("contract", types, 2)
    check_device("contract", types)
    check_same_dtype("contract", types)
    check_group("contract", types[0], "number")
    spec = parse_spec(attrs["spec"])
    extents = spec.extents(types[0].shape, types[1].shape)
    return types[0].with_shape(tuple(extents[label] for label in spec.out))


def _view(array: np.ndarray, dims: Sequence[Dim], extents: dict[str, int]) -> np.ndarray:
    """`array` with one dimension for each label: a dimension that is a sum becomes overlapping windows."""
    shape = [extents[label] for dim in dims for label, _ in dim]
    strides = [stride * c for stride, dim in zip(array.strides, dims, strict=True) for _, c in dim]
    return np.lib.stride_tricks.as_strided(array, shape, strides, writeable=False)


def _evaluate(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    spec = parse_spec(attrs["spec"])
    extents = spec.extents(arrays[0].shape, arrays[1].shape)
    if 0 in extents.values():
        return np.zeros(type.shape, type.dtype.numpy)
    number = {label: i for i, label in enumerate(spec.labels)}
    operands: list[object] = []
    for array, dims, labels in zip(arrays, spec.operands, (spec.x_labels, spec.y_labels), strict=True):
        operands += [_view(widen(array), dims, extents), [number[label] for label in labels]]
    # Labels of one operand alone are added up last: einsum would do so before it multiplies, which makes other NaN.
    last = [x for x in spec.summed if (x in spec.x_labels) != (x in spec.y_labels)]
    with np.errstate(all="ignore"):
        product = np.einsum(*operands, [number[x] for x in (*last, *spec.out)], optimize=True)  # type: ignore[call-overload]
        product = np.add.reduce(product, axis=tuple(range(len(last))), dtype=product.dtype)
    return narrow(product + product.dtype.type(0), type)  # a sum begins with +0.0, so it is never -0.0


CONTRACT = register(
    OpDef(
        name="contract",
        kind="contraction",
        arity=2,
        doc=(
            'Sum of products by the formula `spec`, "x dims, y dims -> out dims": labels that are not in the output '
            "are summed, a dimension may be a sum of labels such as 2h+r. One number dtype; floats add up in their "
            "dtype (f16 and bf16 in f32), integers wrap."
        ),
        infer=_infer,
        evaluate=_evaluate,
        attrs=(Attr("spec", "str"),),
        vjp=contract_vjp,
    )
)
