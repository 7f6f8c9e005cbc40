"""Contractions by formula: `einsum`, `tensordot`, and chains of matrix products in the cheapest order."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, InputError, KindError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean
from graphc.tensors import shaping
from graphc.tensors.casting import autocasts
from graphc.tensors.contracting import Labelled, contract_all, without_repeats
from graphc.tensors.core import TensorBase, record, wrap_dim
from graphc.tensors.out import out_form
from graphc.tensors.products import c_name, name_of, need_numbers
from graphc.tensors.reductions import axes_of

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_LETTERS = string.ascii_uppercase + string.ascii_lowercase  # a subscript's place here is its label
_ELLIPSIS = -1


def _usage() -> ValueError:
    return InputError(
        "einsum(): must specify the equation string and at least one operand, or at least one operand and its "
        "subscripts list"
    )


def _subscripts(text: str, equation: str, offset: int, whose: str) -> list[int]:
    """The labels of one operand or of the output; `offset` is where `text` stands in the equation."""
    labels: list[int] = []
    place = 0
    while place < len(text):
        letter = text[place]
        if letter == ".":
            if _ELLIPSIS in labels:
                raise ShapeError(f"einsum(): found '.' for {whose} for which an ellipsis was already found")
            if text[place : place + 3] != "...":
                raise ShapeError(f"einsum(): found '.' for {whose} that is not part of any ellipsis")
            labels.append(_ELLIPSIS)
            place += 2
        elif letter in _LETTERS:
            labels.append(_LETTERS.index(letter))
        elif letter != " ":
            raise ShapeError(
                f"einsum(): invalid subscript given at index {offset + place} in the equation string, subscripts must "
                "be in [a-zA-Z]"
            )
        place += 1
    return labels


def _parse(equation: str) -> tuple[list[list[int]], list[int] | None]:
    """The labels of the operands and of the output (None: not given)."""
    left, arrow, right = equation.partition("->")
    terms, offset = [], 0
    for number, term in enumerate(left.split(",")):
        terms.append(_subscripts(term, equation, offset, f"operand {number}"))
        offset += len(term) + 1
    return terms, _subscripts(right, equation, len(left) + 2, "the output") if arrow else None


def _sublists(args: Sequence[Any]) -> tuple[list[Tensor], list[list[int]], list[int] | None]:
    """Operands, each with a list of labels, then perhaps the output's list."""

    def labels(given: Sequence[Any]) -> list[int]:
        made = [_ELLIPSIS if item is Ellipsis else item for item in given]
        for item in made:
            if not isinstance(item, int):
                raise InputError("einsum(): expected subscript to be an integer or an Ellipsis")
            if item != _ELLIPSIS and not 0 <= item < len(_LETTERS):
                raise InputError("einsum(): subscript in subscript list is not within the valid range [0, 52)")
        return made

    operands = list(args[: len(args) - len(args) % 2 : 2])
    terms = [labels(given) for given in args[1::2]]
    return operands, terms, labels(args[-1]) if len(args) % 2 else None


@dataclass(frozen=True)
class _Formula:
    """What an equation says about operands of known shapes: labels of all their dimensions and of the output."""

    operands: tuple[tuple[int, ...], ...]
    out: tuple[int, ...]


def _resolve(operands: Sequence[Tensor], terms: Sequence[list[int]], out: list[int] | None) -> _Formula:
    if len(terms) != len(operands):
        more = "fewer" if len(operands) < len(terms) else "more"
        raise ShapeError(f"einsum(): {more} operands were provided than specified in the equation")
    covered = 0
    for number, (term, operand) in enumerate(zip(terms, operands, strict=True)):
        named = sum(label != _ELLIPSIS for label in term)
        if _ELLIPSIS in term and named <= operand.ndim:
            covered = max(covered, operand.ndim - named)
        elif named != operand.ndim:
            how = "" if _ELLIPSIS in term else " and no ellipsis was given"
            raise ShapeError(
                f"einsum(): the number of subscripts in the equation ({named}) "
                f"{'is more than' if how == '' else 'does not match'} the number of dimensions ({operand.ndim}) for "
                f"operand {number}{how}"
            )
    hidden = tuple(len(_LETTERS) + i for i in range(covered))  # the ellipsis, aligned at the right
    full = [_open(term, operand.ndim, hidden) for term, operand in zip(terms, operands, strict=True)]
    _check_sizes(operands, full)
    if out is None:
        flat = [label for term in terms for label in term if label != _ELLIPSIS]
        return _Formula(tuple(full), (*hidden, *sorted(label for label in flat if flat.count(label) == 1)))
    for label in out:
        if label != _ELLIPSIS and out.count(label) > 1:
            raise ShapeError(f"einsum(): output subscript {_LETTERS[label]} appears more than once in the output")
        if label != _ELLIPSIS and not any(label in term for term in terms):
            raise ShapeError(
                f"einsum(): output subscript {_LETTERS[label]} does not appear in the equation for any input operand"
            )
    made = [x for label in out for x in (hidden if label == _ELLIPSIS else (label,))]
    return _Formula(tuple(full), tuple(made))


def _open(term: Sequence[int], rank: int, hidden: tuple[int, ...]) -> tuple[int, ...]:
    """`term` with a label for each dimension under the ellipsis."""
    count = rank - (len(term) - 1)
    made: list[int] = []
    for label in term:
        made += hidden[len(hidden) - count :] if label == _ELLIPSIS else (label,)
    return tuple(made)


def _check_sizes(operands: Sequence[Tensor], full: Sequence[tuple[int, ...]]) -> None:
    seen: dict[int, int] = {}
    for number, (operand, labels) in enumerate(zip(operands, full, strict=True)):
        own: dict[int, int] = {}
        for label, n in zip(labels, operand._type.shape, strict=True):
            if own.setdefault(label, n) != n:
                raise ShapeError(
                    f"einsum(): subscript {_LETTERS[label]} is repeated for operand {number} but the sizes don't "
                    f"match, {n} != {own[label]}"
                )
        for label, n in own.items():
            before = seen.get(label, 1)
            if before not in (n, 1) and n != 1:
                if label >= len(_LETTERS):
                    raise ShapeError(
                        f"einsum(): dimension {label - len(_LETTERS)} covered by ellipsis in operand {number} has size "
                        f"{n} which does not broadcast with previously seen ellipsis with size {before} for the "
                        "respective dimension"
                    )
                raise ShapeError(
                    f"einsum(): subscript {_LETTERS[label]} has size {n} for operand {number} which does not broadcast "
                    f"with previously seen size {before}"
                )
            seen[label] = n if n != 1 else before


@autocasts
def einsum(*args: Any) -> Tensor:
    """Sums of products by an index formula: an equation such as "bij,bjk->bik" and its operands, or operands each
    followed by a list of labels.

    Without "->" the output holds the labels that stand once, in alphabetical order. A repeated label in an operand
    means the diagonal, "..." dimensions that broadcast. More than two operands are multiplied in the order that costs
    least at each step.
    """
    if len(args) < 2:
        raise _usage()
    if isinstance(args[0], str):
        operands = list(args[1]) if len(args) == 2 and isinstance(args[1], list | tuple) else list(args[1:])
        terms, out = _parse(args[0])
    else:
        operands, terms, out = _sublists(args)
    for place, operand in enumerate(operands):
        if not isinstance(operand, TensorBase):
            raise KindError(
                f"einsum(): expected Tensor as element {place} in argument 1, but got {type(operand).__name__}"
            )
    formula = _resolve(operands, terms, out)
    if len(operands) == 1:
        return _of_one(operands[0], formula)
    first = operands[0]
    for operand in operands[1:]:
        if operand._type.dtype is not first._type.dtype:
            raise DTypeError(f"expected scalar type {name_of(first)} but found {name_of(operand)}")
    summed = {label for labels in formula.operands for label in labels} - set(formula.out)
    if summed and first._type.dtype is boolean:
        need_numbers("bmm", first)
    dtype = first._type.dtype

    def emit(b: Builder, *nodes: Node) -> Node:
        pairs = zip(nodes, formula.operands, strict=True)
        made = contract_all(b, [without_repeats(b, node, labels) for node, labels in pairs], formula.out)
        return b.cast(_full(b, made, operands, formula), dtype)

    return record("ViewBackward0" if summed else "MulBackward0", operands, emit)


def _full(b: Builder, made: Labelled, operands: Sequence[Tensor], formula: _Formula) -> Node:
    """The result in its full shape: a label may be of size 1 in the operand that is left."""
    extents: dict[int, int] = {}
    for operand, labels in zip(operands, formula.operands, strict=True):
        for label, n in zip(labels, operand._type.shape, strict=True):
            extents[label] = n if n != 1 else extents.get(label, 1)
    return b.broadcast(made.node, tuple(extents[label] for label in formula.out))


def _of_one(operand: Tensor, formula: _Formula) -> Tensor:
    labels = formula.operands[0]
    if set(labels) == set(formula.out) and len(labels) == len(formula.out):
        return shaping.permute(operand, *(labels.index(label) for label in formula.out))

    def emit(b: Builder, x: Node) -> Node:
        return contract_all(b, [without_repeats(b, x, labels)], formula.out).node

    summed = set(labels) - set(formula.out)
    return record("SumBackward1" if summed else "PermuteBackward0", (operand,), emit)


@out_form
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Sums of products over `dims`: a count of last dimensions of `a` and first ones of `b`, or a list for each."""
    first, second = _paired(a, b, dims)
    x, y = a._type.shape, b._type.shape
    if len(first) != len(second):
        raise ShapeError("both dimension lists should have same length")
    if a._type.dtype is not b._type.dtype:
        raise DTypeError(f"both inputs should have same dtype; tensordot got {a._type} and {b._type}")
    for i, j in zip(first, second, strict=True):
        n, m = x[wrap_dim(i, a.ndim)], y[wrap_dim(j, b.ndim)]
        if n != m and n != 1 and m != 1:
            raise ShapeError(
                f"contracted dimensions need to match, but first has size {n} in dim {i} and second has size {m} in "
                f"dim {j}"
            )
    for dims_of_one, tensor in ((first, a), (second, b)):
        axes_of(dims_of_one, tensor.ndim)  # says which dimension stands twice
    need_numbers("addmm_impl_cpu_", a)
    left = list(range(a.ndim))
    right = list(range(a.ndim, a.ndim + b.ndim))
    for i, j in zip(first, second, strict=True):
        right[wrap_dim(j, b.ndim)] = left[wrap_dim(i, a.ndim)]
    out = tuple(label for label in (*left, *right) if (label in left) != (label in right))
    dtype = a._type.dtype

    def emit(builder: Builder, p: Node, q: Node) -> Node:
        made = contract_all(builder, [Labelled(p, tuple(left)), Labelled(q, tuple(right))], out)
        return builder.cast(made.node, dtype)

    return record("ViewBackward0", (a, b), emit)


def _paired(a: Tensor, b: Tensor, dims: Any) -> tuple[list[int], list[int]]:
    if isinstance(dims, TensorBase):
        dims = dims.tolist()  # type: ignore[attr-defined]
    if isinstance(dims, int):
        if dims < 0:
            raise ShapeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        return list(range(-dims, 0)), list(range(dims))
    first, second = dims
    return [first] if isinstance(first, int) else list(first), [second] if isinstance(second, int) else list(second)


def _chain(matrices: Sequence[Tensor]) -> Tensor:
    """The product of all, bracketed so that it costs least (the textbook's dynamic programme over intervals)."""
    for i, (left, right) in enumerate(pairwise(matrices)):
        if left._type.shape[-1] != right._type.shape[0]:
            raise ShapeError(
                f"multi_dot(): tensors {i} and {i + 1} with shapes {list(left._type.shape)} and "
                f"{list(right._type.shape)} cannot be multiplied"
            )
    count = len(matrices)
    sizes = [1 if matrices[0].ndim == 1 else matrices[0]._type.shape[0]]
    sizes += [m._type.shape[0] for m in matrices[1:]] if count > 1 else []
    sizes.append(1 if matrices[-1].ndim == 1 else matrices[-1]._type.shape[1])
    cost = {(i, i): (0, i) for i in range(count)}
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            splits = range(i, j)
            cost[i, j] = min(
                (cost[i, k][0] + cost[k + 1, j][0] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in splits
            )
    steps: list[tuple[int, int]] = []
    stack = [(0, count - 1)]
    while stack:
        i, j = stack.pop()
        if i < j:
            steps.append((i, j))
            k = cost[i, j][1]
            stack += [(i, k), (k + 1, j)]

    def emit(b: Builder, *nodes: Node) -> Node:
        made = {(i, i): node for i, node in enumerate(nodes)}
        for i, j in reversed(steps):
            k = cost[i, j][1]
            left, right = made[i, k], made[k + 1, j]
            rows, columns = "m " if left.type.rank == 2 else "", " n" if right.type.rank == 2 else ""
            made[i, j] = b.contract(left, right, f"{rows}k, k{columns} -> {rows}{columns}")
        return made[0, count - 1]

    return record("ViewBackward0", matrices, emit)


@out_form
def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of two or more matrices, bracketed so that it costs least; the first and last may be vectors."""
    tensors = list(tensors)
    if len(tensors) < 2:
        raise ShapeError(f"multi_dot(): expected at least 2 tensors but got {len(tensors)}")
    for name, tensor in (("first", tensors[0]), ("last", tensors[-1])):
        if tensor.ndim not in (1, 2):
            raise ShapeError(f"multi_dot(): the {name} tensor must be 1D or 2D but got {tensor.ndim}D")
    for i, tensor in enumerate(tensors):
        if tensor.ndim != 2 and 0 < i < len(tensors) - 1:
            raise ShapeError(f"multi_dot(): tensor {i} must be 2D but got {tensor.ndim}D")
        if tensor._type.dtype is not tensors[0]._type.dtype:
            raise DTypeError(
                f"multi_dot(): all tensors must have be the same dtype but tensor 0 is {c_name(tensors[0])} and tensor "
                f"{i} {c_name(tensor)}"
            )
    need_numbers("addmm_impl_cpu_", tensors[0])
    return _chain(tensors)


@out_form
def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of matrices, bracketed so that it costs least."""
    if not matrices:
        raise ShapeError("chain_matmul(): Expected one or more matrices")
    for matrix in matrices:
        if matrix.ndim != 2:
            raise ShapeError(f"Tensor dimension is {matrix.ndim}, expected 2 instead.")
    first = matrices[0]
    return multi_dot(list(matrices)) if len(matrices) > 1 else shaping.clone(first)
