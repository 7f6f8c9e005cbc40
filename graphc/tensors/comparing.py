"""Questions about tensors: equal, close, of one size, of which kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean, f64
from graphc.tensors.arguments import tensor_argument
from graphc.tensors.core import TensorBase
from graphc.tensors.elementwise import eq
from graphc.tensors.operands import combine
from graphc.tensors.reductions import all_
from graphc.tensors.storages import UntypedStorage
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape and equal elements (NaN equals nothing)."""
    a, b = tensor_argument("equal", input), tensor_argument("equal", other, "other", 2)
    return a._type.shape == b._type.shape and bool(all_(eq(a, b)).item())


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """|input - other| <= atol + rtol |other|, elementwise; equal infinities are close, NaN only with `equal_nan`."""
    a, c = tensor_argument("isclose", input), tensor_argument("isclose", other, "other", 2)
    if a._type.dtype is not c._type.dtype:
        raise DTypeError(f"{type_name(a._type.dtype)} did not match {type_name(c._type.dtype)}")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value < 0:
            raise UsageError(f"{name} must be greater than or equal to zero, but got {value:g}")

    def emit(b: Builder, x: Node, y: Node) -> Node:
        same = b.apply("eq", (x, y))
        if x.dtype is boolean:
            return same
        if equal_nan and x.dtype.is_float:
            both = b.apply("bitwise_and", (b.apply("ne", (x, x)), b.apply("ne", (y, y))))
            same = b.apply("bitwise_or", (same, both))
        if not rtol and not atol:
            return same
        if not x.dtype.is_float:
            x, y = b.cast(x, f64), b.cast(y, f64)
        allowed = b.add(b.mul(b.apply("abs", (y,)), float(rtol)), float(atol))
        apart = b.apply("abs", (b.sub(x, y),))
        finite = b.apply("lt", (apart, b.constant(float("inf"), apart.type)))
        near = b.apply("bitwise_and", (finite, b.apply("le", (apart, allowed))))
        return b.apply("bitwise_or", (same, near))

    return combine("NotDifferentiable", (a, c), emit)


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close, as `isclose` says."""
    return bool(all_(isclose(input, other, rtol, atol, equal_nan)).item())


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape."""
    other = tensor_argument("is_same_size", other, "other", 2)
    return tensor_argument("is_same_size", input)._type.shape == other._type.shape


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is one of floats."""
    return tensor_argument("is_floating_point", input)._type.dtype.is_float


def is_complex(input: Tensor) -> bool:
    """False for every tensor."""
    return tensor_argument("is_complex", input).is_complex()


def is_distributed(input: Tensor) -> bool:
    """False: no part of a tensor lies elsewhere."""
    return tensor_argument("is_distributed", input).is_distributed()


def get_device(input: Tensor) -> int:
    """-1: the number of the CPU."""
    return tensor_argument("get_device", input).get_device()


def is_conj(input: Tensor) -> bool:
    """False for every tensor."""
    return tensor_argument("is_conj", input).is_complex()


def is_neg(input: Tensor) -> bool:
    """False for every tensor."""
    return tensor_argument("is_neg", input).is_complex()


def is_inference(input: Tensor) -> bool:
    """Whether the tensor was made in inference mode."""
    return tensor_argument("is_inference", input).is_inference()


def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return tensor_argument("is_signed", input)._type.dtype.kind in ("float", "int")


def is_nonzero(input: Tensor) -> bool:
    """The truth of a tensor of one element; RuntimeError for others."""
    return bool(tensor_argument("is_nonzero", input))


def is_storage(obj: Any) -> bool:
    """Whether `obj` is a storage."""
    return isinstance(obj, UntypedStorage)


def numel(input: Tensor) -> int:
    """Number of elements."""
    return tensor_argument("numel", input)._type.size


def typename(obj: Any) -> str:
    """The name of the type of `obj`, with its module; that of the tensor type for tensors."""
    if isinstance(obj, TensorBase):
        return obj.type()  # type: ignore[attr-defined]
    cls = obj if isinstance(obj, type) else type(obj)
    module = cls.__module__
    return cls.__qualname__ if module in ("builtins", None) else f"{module}.{cls.__qualname__}"
