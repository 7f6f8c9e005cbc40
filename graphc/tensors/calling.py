"""What functions of one element at a time share: PyTorch's checks of arguments, and makers of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import KindError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, boolean, dtype_of_numpy
from graphc.naming import named
from graphc.promotion import as_float
from graphc.recording import current
from graphc.storage import Value
from graphc.tensors.casting import OPEN
from graphc.tensors.core import TensorBase, from_array, read, record
from graphc.tensors.operands import NUMBERS, combine, common, is_number, plain
from graphc.tensors.out import out_form
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Operand = Any  # a Tensor or a number; PyTorch's signatures take both
Emit = Callable[..., Node]

_POSITIONS = ("input", "other")
_OPERANDS = (TensorBase, *NUMBERS)


def is_operand(value: object) -> bool:
    """Whether `value` is a tensor or a number."""
    return isinstance(value, _OPERANDS)


def refuse(name: str, value: object, argument: str = "other", position: int = 2) -> None:
    """PyTorch's error for an argument that is neither tensor nor number; complex numbers are not supported."""
    if isinstance(value, complex | np.complexfloating):
        raise UnsupportedError(f"{name}(): complex numbers are not supported, got {argument}={value!r}")
    raise KindError(f"{name}(): argument '{argument}' (position {position}) must be Tensor, not {type(value).__name__}")


def want_tensor(name: str, value: object, argument: str = "input", position: int = 1) -> None:
    """TypeError unless `value` is a tensor."""
    if not isinstance(value, TensorBase):
        refuse(name, value, argument, position)


def want_operand(name: str, value: object, argument: str = "other", position: int = 2) -> None:
    """TypeError unless `value` is a tensor or a number."""
    if not is_operand(value):
        refuse(name, value, argument, position)


def want_numbers(name: str, **numbers: object) -> None:
    """TypeError unless all keyword arguments are Python numbers."""
    for argument, value in numbers.items():
        if not is_number(value):
            if isinstance(value, complex):
                refuse(name, value, argument)
            raise KindError(f"{name}(): argument '{argument}' must be Number, not {type(value).__name__}")


def simple(op: str) -> Emit:
    """The emitter of one IR operator."""

    def emit(b: Builder, *nodes: Node) -> Node:
        return b.apply(op, nodes)

    return emit


def not_implemented(name: str, dtype: DType) -> NotImplementedError:
    """PyTorch's error for a dtype without a kernel."""
    return UnsupportedError(f"\"{name}\" not implemented for '{type_name(dtype)}'")


# makers


def unary(name: str, node_name: str, emit: Emit, doc: str) -> Callable[..., Any]:
    """A function of one tensor as it is."""

    def function(input: Tensor) -> Tensor:
        if not isinstance(input, TensorBase):
            refuse(name, input, "input", 1)
        return record(node_name, (input,), emit, True)

    return out_form(named(function, name, doc))


def float_unary(name: str, node_name: str, emit: Emit, doc: str) -> Callable[..., Any]:
    """A function of one tensor whose integers become floats first."""
    return unary(
        name,
        node_name,
        lambda b, x: emit(b, b.cast(x, as_float(x.dtype))),
        f"{doc} Any shape; integers are converted to the default float type.",
    )


def binary(
    name: str,
    node_name: str | tuple[str, ...],
    emit: Emit,
    doc: str,
    numbers: str = "other",
    dtype: Callable[[DType], DType] | None = None,
    check: Callable[[str, DType], None] | None = None,
) -> Callable[..., Any]:
    """A function of two operands, broadcast and promoted. `numbers` says which of them may be Python numbers
    ("none", "other", "both" or "either", which wants at least one tensor); `dtype` maps the common dtype to the one
    that `emit` sees; `check` may refuse the common dtype. `node_name` may depend on where a number stands: nowhere, as
    `other`, as `input`.
    """
    names = (node_name,) * 3 if isinstance(node_name, str) else node_name

    def function(input: Operand, other: Operand) -> Tensor:
        if not isinstance(input, TensorBase) and (numbers in ("none", "other") or not is_number(input)):
            refuse(name, input, "input", 1)
        if not isinstance(other, TensorBase) and (
            not is_number(other) or numbers == "none" or (numbers == "either" and not isinstance(input, TensorBase))
        ):
            refuse(name, other, "other", 2)
        node = names[0 if isinstance(input, TensorBase) and isinstance(other, TensorBase) else 1]
        if not isinstance(input, TensorBase):
            node = names[-1]
        if dtype is None and check is None:
            return combine(node, (input, other), emit, steady=True, is_any=True)
        found = common((input, other))[0]
        if check is not None:
            check(name, found)
        kind = found if dtype is None else dtype(found)
        return combine(node, (input, other), emit, kind, steady=True, is_any=True)

    return out_form(named(function, name, doc))


def dunder(function: Callable[..., Any], reflected: bool = False) -> Callable[..., Any]:
    """The operator method of a function of two operands: NotImplemented for what is neither tensor, number nor array;
    `reflected` exchanges the operands.
    """
    inner = getattr(function, "__wrapped__", function)

    def method(self: Any, other: Any) -> Any:
        if not is_operand(other):
            if isinstance(other, np.ndarray) and (dtype := dtype_of_numpy(other.dtype)) is not None:
                other = from_array(other, dtype)
            elif isinstance(other, complex):
                refuse(function.__name__, other)
            else:
                return NotImplemented
        chosen = function if OPEN else inner
        return chosen(other, self) if reflected else chosen(self, other)

    return named(method, f"__{'r' if reflected else ''}{function.__name__}__", function.__doc__ or "")


def unary_dunder(function: Callable[..., Any]) -> Callable[..., Any]:
    """The operator method of a function of one tensor."""
    inner = getattr(function, "__wrapped__", function)

    def method(self: Any) -> Any:
        return (function if OPEN else inner)(self)

    return named(method, function.__name__, function.__doc__ or "")


def boolean_of(b: Builder, x: Node) -> Node:
    """The truth value of each element."""
    return b.cast(x, boolean)


def refuse_zero(divisor: Operand, dtype: DType, size: int) -> None:
    """PyTorch's RuntimeError for a division of integers (the common `dtype`, `size` results) by zero: at once for a
    number, when results are looked at for a tensor.
    """
    if dtype.is_float or not size:
        return
    error = UsageError("ZeroDivisionError")
    if not isinstance(divisor, TensorBase):
        if plain(divisor) == 0:
            raise error
        return
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        node, keep = read(recorder, divisor, False)
        node = b.cast(node, dtype)
        zero = b.apply("eq", (node, b.zeros_like(node)))
        axes = tuple(range(zero.type.rank))
        flag = b.apply("reduce_max", (zero,), {"axes": axes, "ties": "even"}) if axes else zero
        recorder.check(flag, Value(flag, (keep,)), error)
