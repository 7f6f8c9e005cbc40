"""Comparison, logic, tests of elements, and the larger or smaller of two."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.errors import UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean
from graphc.tensors.calling import (
    Emit,
    Operand,
    binary,
    boolean_of,
    is_operand,
    refuse,
    simple,
    unary,
    want_tensor,
)
from graphc.tensors.core import TensorBase
from graphc.tensors.operands import combine
from graphc.tensors.out import out_form

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _compare(name: str, doc: str) -> Callable[..., Any]:
    return binary(name, "NotDifferentiable", simple(name), f"{doc}, broadcast; bool.")


eq, ne = _compare("eq", "input == other"), _compare("ne", "input != other")
lt, le = _compare("lt", "input < other"), _compare("le", "input <= other")
gt, ge = _compare("gt", "input > other"), _compare("ge", "input >= other")


def _logical(name: str, op: str) -> Callable[..., Any]:
    def emit(b: Builder, x: Node, y: Node) -> Node:
        return b.apply(op, (boolean_of(b, x), boolean_of(b, y)))

    return binary(name, "NotDifferentiable", emit, f"{name[8:].capitalize()} of the truth values; bool.", "none")


logical_and = _logical("logical_and", "bitwise_and")
logical_or = _logical("logical_or", "bitwise_or")
logical_xor = _logical("logical_xor", "bitwise_xor")
logical_not = unary(
    "logical_not", "NotDifferentiable", lambda b, x: b.apply("bitwise_not", (boolean_of(b, x),)), "True where zero."
)


# tests


def _test(name: str, test: Callable[[Builder, Node], Node], others: bool, doc: str) -> Callable[..., Any]:
    """A test of floats; for other dtypes it is `others` everywhere."""

    def emit(b: Builder, x: Node) -> Node:
        return test(b, x) if x.dtype.is_float else b.constant(others, x.type.with_dtype(boolean))

    return unary(name, "NotDifferentiable", emit, f"{doc} bool, any shape.")


def _is_infinite(b: Builder, x: Node) -> Node:
    return b.apply("eq", (b.apply("abs", (x,)), b.constant(math.inf, x.type)))


def is_finite(b: Builder, x: Node) -> Node:
    """Where floats are neither infinite nor NaN."""
    return b.apply("lt", (b.apply("abs", (x,)), b.constant(math.inf, x.type)))


def is_nan(b: Builder, x: Node) -> Node:
    """Where floats are NaN."""
    return b.apply("ne", (x, x))


isnan = _test("isnan", is_nan, False, "True where NaN.")
isinf = _test("isinf", _is_infinite, False, "True where infinite.")
isfinite = _test("isfinite", is_finite, True, "True where neither infinite nor NaN.")
isposinf = _test("isposinf", lambda b, x: b.apply("eq", (x, b.constant(math.inf, x.type))), False, "True where +inf.")
isneginf = _test("isneginf", lambda b, x: b.apply("eq", (x, b.constant(-math.inf, x.type))), False, "True where -inf.")


def isreal(input: Tensor) -> Tensor:
    """True everywhere: no tensor is complex."""
    want_tensor("isreal", input)
    return combine("NotDifferentiable", (input,), lambda b, x: b.constant(True, x.type.with_dtype(boolean)))


@out_form
def isin(elements: Operand, test_elements: Operand, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element is among `test_elements`; with `invert`, whether it is not. One of the two may be a number.
    `assume_unique` changes nothing here.
    """
    if not (isinstance(elements, TensorBase) or isinstance(test_elements, TensorBase)):
        refuse("isin", elements, "elements", 1)
    for place, value in enumerate((elements, test_elements), 1):
        if not is_operand(value):
            refuse("isin", value, ("elements", "test_elements")[place - 1], place)
    left: Any = elements
    right: Any = test_elements
    first, second = isinstance(elements, TensorBase), isinstance(test_elements, TensorBase)
    left = left.unsqueeze(-1) if first else left
    right = right.reshape(-1) if second else right
    equal = eq(left, right) if first else eq(right, left)
    found = equal.any(-1)
    return logical_not(found) if invert else found


# extremes


def _extreme(op: str, of_bools: str) -> Emit:
    def emit(b: Builder, x: Node, y: Node) -> Node:
        return b.apply(of_bools if x.dtype is boolean else op, (x, y))

    return emit


def _other_than_nan(loses: str, of_bools: str) -> Emit:
    """The extreme of two where NaN loses against numbers; ties and pairs of NaN are `input`'s, as is their gradient."""

    def emit(b: Builder, x: Node, y: Node) -> Node:
        if x.dtype is boolean:
            return b.apply(of_bools, (x, y))
        taken = b.apply("bitwise_not", (b.apply(loses, (x, y)),))
        if x.dtype.is_float:
            # Comparisons with NaN do not hold: input is taken where other is NaN, other where input alone is.
            only = b.apply("bitwise_and", (is_nan(b, x), b.apply("bitwise_not", (is_nan(b, y),))))
            taken = b.apply("bitwise_and", (taken, b.apply("bitwise_not", (only,))))
        return b.select(taken, x, y)

    return emit


maximum = binary(
    "maximum", "MaximumBackward0", _extreme("maximum", "bitwise_or"), "The larger of two, broadcast; NaN wins.", "none"
)
minimum = binary(
    "minimum",
    "MinimumBackward0",
    _extreme("minimum", "bitwise_and"),
    "The smaller of two, broadcast; NaN wins.",
    "none",
)
fmax = binary(
    "fmax", "FmaxBackward0", _other_than_nan("lt", "bitwise_or"), "The larger of two, broadcast; NaN loses.", "none"
)
fmin = binary(
    "fmin", "FminBackward0", _other_than_nan("gt", "bitwise_and"), "The smaller of two, broadcast; NaN loses.", "none"
)


def _heaviside(b: Builder, x: Node, y: Node) -> Node:
    zero, one = b.zeros_like(x), b.constant(1, x.type)
    if x.dtype is boolean:
        return b.select(x, one, y)
    step = b.select(b.apply("gt", (x, zero)), one, zero)
    return b.select(b.apply("eq", (x, zero)), y, b.select(is_nan(b, x), zero, step) if x.dtype.is_float else step)


@out_form
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 where input < 0, 1 where input > 0, `values` where it is 0; both of one dtype."""
    for place, value in enumerate((input, values), 1):
        if not isinstance(value, TensorBase):
            refuse("heaviside", value, ("input", "values")[place - 1], place)
    if input._type.dtype is not values._type.dtype:
        raise UsageError("heaviside is not yet implemented for tensors with different dtypes.")
    return combine("NotImplemented", (input, values), _heaviside)
