"""The contraction: matrix products, convolutions and their gradients by one index formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from graphc.ir.contraction import Dim, is_plain, parse_spec
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops.checks import check_arity, check_device, check_group, check_same_dtype, narrow, widen
from graphc.ir.ops.contract_vjp import contract_vjp
from graphc.ir.record import record
from graphc.ir.types import TensorType, f32, pbf16


def _infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("contract", types, 2)
    check_device("contract", types)
    check_same_dtype("contract", types)
    if types[0].dtype is not pbf16:
        check_group("contract", types[0], "number")
    spec = parse_spec(attrs["spec"])
    extents = spec.extents(types[0].shape, types[1].shape)
    dtype = f32 if types[0].dtype is pbf16 else types[0].dtype
    return types[0].with_dtype(dtype).with_shape(tuple(extents[label] for label in spec.out))


@record
class _Plan:
    """A contraction as a product of matrices. For each operand: its dimensions and strides (in elements of which axis)
    as `windows`, if a dimension is a sum of labels; the order of its labels as batch, rows and columns; and the shape
    with one dimension for each of the three. `shape` and `order` are those of the product, of which the first `last`
    dimensions are added up; `sums` says whether the matrices are multiplied or their elements.
    """

    windows: tuple[tuple[tuple[int, ...], tuple[tuple[int, int], ...]] | None, ...]
    orders: tuple[tuple[int, ...], ...]
    matrices: tuple[tuple[int, ...], ...]
    sums: bool
    shape: tuple[int, ...]
    order: tuple[int, ...]
    last: int


@lru_cache(maxsize=4096)
def _plan(text: str, *shapes: tuple[int, ...]) -> _Plan | None:
    """The plan of a contraction; None where an extent is 0."""
    spec = parse_spec(text)
    extents = spec.extents(*shapes)
    if 0 in extents.values():
        return None
    both = set(spec.x_labels) & set(spec.y_labels)
    batch = [label for label in spec.out if label in both]
    within = [label for label in spec.summed if label in both]
    rows = [label for label in spec.x_labels if label not in both]
    columns = [label for label in spec.y_labels if label not in both]
    # Labels of one operand alone are added up last: before the product it would make other NaN.
    last = [label for label in spec.summed if label not in both]
    groups = (batch, rows, within), (batch, within, columns)
    given, wanted = (*batch, *rows, *columns), (*last, *spec.out)
    of_operands = list(zip(spec.operands, (spec.x_labels, spec.y_labels), groups, strict=True))
    return _Plan(
        windows=tuple(None if all(map(is_plain, dims)) else _windows(dims, extents) for dims, _, _ in of_operands),
        orders=tuple(tuple(labels.index(x) for group in mine for x in group) for _, labels, mine in of_operands),
        matrices=tuple(tuple(math.prod(extents[x] for x in group) for group in mine) for _, _, mine in of_operands),
        sums=bool(within),
        shape=tuple(extents[x] for x in given),
        order=tuple(given.index(x) for x in wanted),
        last=len(last),
    )


def _windows(dims: Sequence[Dim], extents: dict[str, int]) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """The shape with a dimension for each label, and for each the axis and how many of its elements make one step."""
    labels = [(axis, label, c) for axis, dim in enumerate(dims) for label, c in dim]
    return tuple(extents[label] for _, label, _ in labels), tuple((axis, c) for axis, _, c in labels)


def _numbers(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the second of each pair of bf16."""
    return (pairs << 16).view(np.float32), (pairs & -0x10000).view(np.float32)


def _evaluate(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    if type.dtype is f32 and all(array.dtype == pbf16.numpy for array in arrays):
        (x0, x1), (y0, y1) = map(_numbers, arrays)
        return _evaluate((x1, y1), attrs, type) + _evaluate((x0, y0), attrs, type)
    plan = _plan(attrs["spec"], arrays[0].shape, arrays[1].shape)
    if plan is None:
        return np.zeros(type.shape, type.dtype.numpy)
    operands: list[np.ndarray] = []
    for array, windows, order, shape in zip(map(widen, arrays), plan.windows, plan.orders, plan.matrices, strict=True):
        if windows is not None:  # they overlap
            strides = [array.strides[axis] * c for axis, c in windows[1]]
            array = np.lib.stride_tricks.as_strided(array, windows[0], strides, writeable=False)
        operands.append(array.transpose(order).reshape(shape))
    product = (np.matmul if plan.sums else np.multiply)(*operands)
    product = product.reshape(plan.shape).transpose(plan.order)
    if plan.last:
        product = np.add.reduce(product, axis=tuple(range(plan.last)), dtype=product.dtype)
    return narrow(product + product.dtype.type(0), type)  # a sum begins with +0.0, so it is never -0.0


CONTRACT = register(
    OpDef(
        name="contract",
        kind="contraction",
        arity=2,
        doc=(
            'Sum of products by the formula `spec`, "x dims, y dims -> out dims": labels that are not in the output '
            "are summed, a dimension may be a sum of labels such as 2h+r. One number dtype; floats add up in their "
            "dtype (f16 and bf16 in f32), integers wrap. Pairs of bf16 are multiplied number by number, and give f32."
        ),
        infer=_infer,
        evaluate=_evaluate,
        attrs=(Attr("spec", "str"),),
        vjp=contract_vjp,
    )
)
