"""Running results along one axis: element k is made from the elements up to k (from the last one with `reverse`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.node import Node
from graphc.ir.opdef import Attr, Attrs, Infer, OpDef, register
from graphc.ir.ops.checks import check_arity, check_axis, check_device, check_group, check_same_dtype, narrow, shown
from graphc.ir.types import TensorType, i64

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Arrays = Sequence[np.ndarray]
Types = Sequence[TensorType]
Gradients = Sequence["Node | None"]

_WIDER = {2: np.float32, 4: np.float64, 8: np.float64}


def _wide(x: np.ndarray) -> np.ndarray:
    """Floats in the wider type in which running results are kept, so that long ones do not lose their digits."""
    floats = x.dtype.kind not in "iub"
    return x.astype(_WIDER[x.dtype.itemsize]) if floats else x


def _infer(op: str, group: str) -> Infer:
    def infer(types: Types, attrs: Attrs) -> TensorType:
        check_arity(op, types, 1)
        check_group(op, types[0], group)
        check_axis(op, attrs["axis"], types[0])
        return types[0]

    return infer


def _infer_recurrence(types: Types, attrs: Attrs) -> TensorType:
    check_arity("recurrence", types, 2)
    check_device("recurrence", types)
    check_group("recurrence", types[0], "number")
    check_same_dtype("recurrence", types)
    check_axis("recurrence", attrs["axis"], types[0])
    if types[0].shape != types[1].shape:
        raise ShapeError(f"recurrence: both operands must have one shape, got {shown(types)}")
    return types[1]


def _along(x: np.ndarray, attrs: Attrs) -> np.ndarray:
    """A view with the scanned axis first, in the order of the scan."""
    moved = np.moveaxis(x, attrs["axis"], 0)
    return moved[::-1] if attrs["reverse"] else moved


def _accumulated(ufunc: np.ufunc, x: np.ndarray, attrs: Attrs, type: TensorType) -> np.ndarray:
    result = np.empty_like(x)
    ufunc.accumulate(_along(x, attrs), axis=0, dtype=x.dtype, out=_along(result, attrs))
    return narrow(result, type)


def _evaluate_sum(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    return _accumulated(np.add, _wide(arrays[0]) + np.zeros((), _wide(arrays[0]).dtype), attrs, type)


def _evaluate_prod(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    return _accumulated(np.multiply, _wide(arrays[0]), attrs, type)


def _evaluate_recurrence(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    a, b = (_along(_wide(x), attrs) for x in arrays)
    result = np.empty_like(_wide(arrays[1]))
    out = _along(result, attrs)
    for k in range(len(out)):
        out[k] = a[k] * out[k - 1] + b[k] if k else b[k]
    return narrow(result, type)


def _evaluate_max(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    return _running_extreme(arrays[0], attrs, type, True)


def _evaluate_min(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    return _running_extreme(arrays[0], attrs, type, False)


def _running_extreme(x: np.ndarray, attrs: Attrs, type: TensorType, largest: bool) -> np.ndarray:
    """NaN stays once it was met; +0 is above -0."""
    if x.dtype.kind == "b":
        return _accumulated(np.logical_or if largest else np.logical_and, x, attrs, type)
    found = _accumulated(np.maximum if largest else np.minimum, _wide(x), attrs, type)
    if not type.dtype.is_float:
        return found
    wanted = (x == 0) & (np.signbit(x) != largest)
    seen = np.empty_like(wanted)
    np.logical_or.accumulate(_along(wanted, attrs), axis=0, out=_along(seen, attrs))
    zero, other = (0.0, -0.0) if largest else (-0.0, 0.0)
    return np.where(found == 0, np.where(seen, zero, other), found).astype(type.dtype.numpy)


def shifted(b: Builder, x: Node, axis: int, reverse: bool, value: float) -> Node:
    """Each element of the scan's order takes the place after its own; the first place gets `value`."""
    n, rank = x.shape[axis], x.type.rank
    start = tuple(int(reverse) if i == axis else 0 for i in range(rank))
    size = tuple(n - 1 if i == axis else m for i, m in enumerate(x.shape))
    kept = b.slice(x, start, size, (1,) * rank)
    one, none = tuple(int(i == axis) for i in range(rank)), (0,) * rank
    return b.pad(kept, none if reverse else one, one if reverse else none, value=value)


def _sum_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.scan("scan_sum", ct, node.integer("axis"), not node.attr("reverse"))]


def _back(b: Builder, node: Node, factors: Node, ct: Node) -> Node:
    """What each element of the running result takes back: its cotangent and, times the next factor, the next one's."""
    axis, reverse = node.integer("axis"), bool(node.attr("reverse"))
    following = shifted(b, factors, axis, not reverse, 0.0)
    return b.recurrence(following, ct, axis, not reverse)


def _prod_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    """No division, so zeros are nothing special, to every order."""
    x = node.inputs[0]
    if x.type.size == 0:
        return [ct]
    before = shifted(b, node, node.integer("axis"), bool(node.attr("reverse")), 1.0)
    return [b.mul(_back(b, node, x, ct), before)]


def _recurrence_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    if ct.type.size == 0:
        return [ct, ct]
    back = _back(b, node, node.inputs[0], ct)
    before = shifted(b, node, node.integer("axis"), bool(node.attr("reverse")), 0.0)
    return [b.mul(back, before), back]


def extreme_places(b: Builder, x: Node, running: Node, axis: int, reverse: bool) -> Node:
    """The i64 places along `axis` of the running extremes: of equal ones, of NaN too, the one met last."""
    type = x.type.with_dtype(i64)
    new = b.elementwise("eq", x, running)
    if x.dtype.is_float:
        new = b.elementwise("bitwise_or", new, b.elementwise("ne", x, x))
    if reverse:
        return b.scan("scan_min", b.select(new, b.iota(axis, type), x.shape[axis]), axis, True)
    return b.scan("scan_max", b.select(new, b.iota(axis, type), 0), axis)


def _extreme_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    if ct.type.size == 0:
        return [ct]
    axis = node.integer("axis")
    places = extreme_places(b, node.inputs[0], node, axis, bool(node.attr("reverse")))
    return [b.apply("scatter_add", (b.zeros_like(ct), places, ct), {"axis": axis})]


_ATTRS = (Attr("axis", "int"), Attr("reverse", "bool"))
_WIDELY = "Running values are kept in a wider float (f16 and bf16 in f32, f32 in f64); integers wrap."

register(
    OpDef(
        name="scan_sum",
        kind="scan",
        arity=1,
        doc=f"Sums of the elements up to each one along `axis`, from +0.0 on. {_WIDELY}",
        infer=_infer("scan_sum", "number"),
        evaluate=_evaluate_sum,
        attrs=_ATTRS,
        vjp=_sum_vjp,
    )
)
register(
    OpDef(
        name="scan_prod",
        kind="scan",
        arity=1,
        doc=f"Products of the elements up to each one along `axis`. {_WIDELY}",
        infer=_infer("scan_prod", "number"),
        evaluate=_evaluate_prod,
        attrs=_ATTRS,
        vjp=_prod_vjp,
    )
)
register(
    OpDef(
        name="scan_max",
        kind="scan",
        arity=1,
        doc="The largest of the elements up to each one along `axis`; NaN once there was one, +0 over -0. Any dtype.",
        infer=_infer("scan_max", "any"),
        evaluate=_evaluate_max,
        attrs=_ATTRS,
        vjp=_extreme_vjp,
    )
)
register(
    OpDef(
        name="scan_min",
        kind="scan",
        arity=1,
        doc="The smallest of the elements up to each one along `axis`; NaN once there was one, -0 over +0. Any dtype.",
        infer=_infer("scan_min", "any"),
        evaluate=_evaluate_min,
        attrs=_ATTRS,
        vjp=_extreme_vjp,
    )
)
register(
    OpDef(
        name="recurrence",
        kind="scan",
        arity=2,
        doc=f"y[k] = a[k] * y[k-1] + b[k] along `axis`, and y[0] = b[0]. {_WIDELY}",
        infer=_infer_recurrence,
        evaluate=_evaluate_recurrence,
        attrs=_ATTRS,
        vjp=_recurrence_vjp,
    )
)
