"""Functions of three operands: interpolation, products and quotients added, bounds, choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, KindError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import bf16, boolean, f16, f32
from graphc.tensors.calling import Operand, is_operand, not_implemented, refuse, want_operand, want_tensor
from graphc.tensors.core import TensorBase
from graphc.tensors.filling import check_holds
from graphc.tensors.masking import nonzero
from graphc.tensors.operands import combine, common, is_number, plain
from graphc.tensors.out import out_form
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _lerp(b: Builder, x: Node, y: Node, w: Node) -> Node:
    """x + w * (y - x), and y - (y - x) * (1 - w) where |w| >= 0.5, so that w = 1 gives y."""
    off = b.sub(y, x)
    near = b.apply("lt", (b.apply("abs", (b.apply("detach", (w,)),)), b.constant(0.5, w.type)))
    return b.select(near, b.add(x, b.mul(w, off)), b.sub(y, b.mul(off, b.sub(b.constant(1, w.type), w))))


@out_form
def lerp(input: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """input + weight * (end - input), broadcast; all of one float dtype."""
    want_tensor("lerp", input)
    want_tensor("lerp", end, "end", 2)
    want_operand("lerp", weight, "weight", 3)
    tensors = [t for t in (input, end, weight) if isinstance(t, TensorBase)]
    for tensor in tensors[1:]:
        if tensor._type.dtype is not input._type.dtype and not tensor._wrapped:
            raise DTypeError(
                f"expected dtype {input.dtype.name} for `{'end' if tensor is end else 'weight'}` but got dtype "
                f"{tensor.dtype.name}"
            )
    if not input._type.dtype.is_float:
        raise not_implemented("lerp_kernel", input._type.dtype)
    name = "LerpBackward1" if len(tensors) == 3 else "LerpBackward0"
    return combine(name, (input, end, weight), _lerp, is_any=True)


def _check_value(name: str, tensors: tuple[Tensor, Tensor, Tensor], value: object) -> Any:
    for place, tensor in enumerate(tensors):
        want_tensor(name, tensor, ("input", "tensor1", "tensor2")[place], place + 1)
    if not is_number(value) and not (isinstance(value, TensorBase) and value.numel() == 1):
        raise KindError(f"{name}(): argument 'value' must be Number, not {type(value).__name__}")
    dtype = common(tensors)[0]
    if dtype is boolean:
        raise not_implemented(f"{name}_cpu_out", boolean)
    if is_number(value):
        check_holds(plain(value), dtype)
    return dtype


@out_form
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Operand = 1) -> Tensor:
    """input + value * tensor1 * tensor2, broadcast."""
    dtype = _check_value("addcmul", (input, tensor1, tensor2), value)
    return combine(
        "AddcmulBackward0",
        (input, tensor1, tensor2, value),
        lambda b, x, y, z, v: b.add(x, b.mul(b.mul(v, y), z)),
        dtype,
        is_any=True,
    )


@out_form
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Operand = 1) -> Tensor:
    """input + value * tensor1 / tensor2, broadcast; not for integers."""
    dtype = _check_value("addcdiv", (input, tensor1, tensor2), value)
    if not common((tensor1, tensor2))[0].is_float:
        raise UsageError(
            "Integer division with addcdiv is no longer supported, and in a future release addcdiv will perform a true "
            "division of tensor1 and tensor2. Use (input + value * torch.trunc(tensor1 / tensor2)).to(input.dtype) or "
            "(input + value * tensor1 / tensor2)."
        )
    return combine(
        "AddcdivBackward0",
        (input, tensor1, tensor2, value),
        lambda b, x, y, z, v: b.add(x, b.mul(v, b.div(y, z))),
        dtype,
        is_any=True,
    )


def _bounded(b: Builder, x: Node, bound: Node, inside: str, through: bool) -> Node:
    """`x`, or `bound` where `x` is outside. The gradient goes to x where it is inside, bounds included, else to the
    bound (if it is a tensor: `through`), and nowhere where either is NaN, as in PyTorch.
    """
    extreme = "maximum" if inside == "ge" else "minimum"
    outer = b.apply(extreme, (b.apply("detach", (x,)), b.apply("detach", (bound,))))
    if through and x.dtype.is_float:
        outside = b.apply("lt" if inside == "ge" else "gt", (x, bound))
        outer = b.select(outside, bound, outer)
    return b.select(b.apply(inside, (x, bound)), x, outer)


@out_form
def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """Elements below `min` become `min`, those above `max` become `max`; bounds are numbers or tensors, and a bound of
    NaN wins.
    """
    want_tensor("clamp", input)
    if min is None and max is None:
        raise UsageError("torch.clamp: At least one of 'min' or 'max' must not be None")
    for place, bound in enumerate((min, max), 2):
        if bound is not None and not is_operand(bound):
            refuse("clamp", bound, ("min", "max")[place - 2], place)
    if isinstance(min, TensorBase) or isinstance(max, TensorBase):
        for bound in (min, max):
            if bound is not None and not isinstance(bound, TensorBase):
                raise KindError("clamp(): bounds must be two tensors or two numbers, got one of each")
    bounds = [bound for bound in (min, max) if bound is not None]
    dtype = common((input, *bounds))[0]
    if dtype is boolean and len(bounds) == 1 and isinstance(bounds[0], TensorBase):
        return clamp_max(input, bounds[0]) if min is None else clamp_min(input, bounds[0])
    if dtype is boolean:
        raise not_implemented("clamp_scalar_cpu", boolean)
    for bound in bounds:
        if is_number(bound):
            check_holds(plain(bound), dtype)

    def emit(b: Builder, x: Node, *limits: Node) -> Node:
        rest = list(limits)
        if min is not None:
            x = _bounded(b, x, rest.pop(0), "ge", isinstance(min, TensorBase))
        if max is not None:
            x = _bounded(b, x, rest.pop(0), "le", isinstance(max, TensorBase))
        return x

    tensors = any(isinstance(bound, TensorBase) for bound in bounds)
    return combine("ClampBackward0" if tensors else "ClampBackward1", (input, *bounds), emit, is_any=True)


@out_form
def clamp_min(input: Tensor, min: Operand) -> Tensor:
    """Elements below `min` become `min`."""
    return _half("clamp_min", "ClampMin", input, min, None)


@out_form
def clamp_max(input: Tensor, max: Operand) -> Tensor:
    """Elements above `max` become `max`."""
    return _half("clamp_max", "ClampMax", input, None, max)


def _half(name: str, node: str, input: Tensor, low: Operand, high: Operand) -> Tensor:
    bound = high if low is None else low
    want_tensor(name, input)
    want_operand(name, bound, "min" if high is None else "max")
    dtype = common((input, bound))[0]
    through = isinstance(bound, TensorBase)
    if dtype is boolean and not through:
        raise not_implemented(f"{name}_scalar_cpu", boolean)
    if is_number(bound):
        check_holds(plain(bound), dtype)

    def emit(b: Builder, x: Node, limit: Node) -> Node:
        if dtype is boolean:
            return b.apply("bitwise_or" if high is None else "bitwise_and", (x, limit))
        return _bounded(b, x, limit, "ge" if high is None else "le", through)

    return combine(f"{node}Backward{int(through)}", (input, bound), emit, is_any=True)


@out_form
def where(condition: Tensor, input: Operand = None, other: Operand = None) -> Any:
    """`input` where `condition`, else `other`, broadcast; of a condition alone the places where it holds, as `nonzero`
    with `as_tuple` gives them.
    """
    want_tensor("where", condition, "condition", 1)
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    if input is None or other is None:
        raise KindError("where(): give both values or none: where(condition, input, other) or where(condition)")
    want_operand("where", input, "input", 2)
    want_operand("where", other, "other", 3)
    if condition._type.dtype is not boolean:
        raise DTypeError(
            f"where expected condition to be a boolean tensor, but got a tensor with dtype "
            f"{type_name(condition._type.dtype)}"
        )
    for value in (input, other):
        if is_number(value):
            dtype = common((input, other))[0]
            # As in PyTorch, where a number that is only too large for 16 bits becomes infinite
            check_holds(plain(value), f32 if dtype in (f16, bf16) else dtype)
    return combine("WhereBackward0", (input, other), _select, masks=(condition,), is_any=True)


def _select(b: Builder, condition: Node, x: Node, y: Node) -> Node:
    return b.select(condition, x, y)
