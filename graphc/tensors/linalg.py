"""Products: matmul and its relatives, all as one contraction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import broadcast_shapes
from graphc.tensors.core import TensorBase, record
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _same_dtype(a: Tensor, b: Tensor) -> None:
    if a._type.dtype is not b._type.dtype:
        raise DTypeError(
            f"expected m1 and m2 to have the same dtype, but got: {_c_name(a)} != {_c_name(b)} "
            f"({a._type} and {b._type}); convert one with .to(dtype)"
        )


def _c_name(tensor: Tensor) -> str:
    return {"Float": "float", "Double": "double", "Long": "long int", "Int": "int"}.get(
        type_name(tensor._type.dtype), type_name(tensor._type.dtype)
    )


def _shapes_text(a: tuple[int, ...], b: tuple[int, ...]) -> str:
    return f"mat1 and mat2 shapes cannot be multiplied ({'x'.join(map(str, a))} and {'x'.join(map(str, b))})"


def _need_rank(name: str, tensor: Tensor, rank: int, text: str) -> None:
    if tensor.ndim != rank:
        raise ShapeError(
            f"{text} must be a {'matrix' if rank == 2 else f'{rank}D tensor'}, got {tensor.ndim}-D tensor ({name})"
        )


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Product of two matrices."""
    _need_rank("mm", input, 2, "self")
    _need_rank("mm", mat2, 2, "mat2")
    _same_dtype(input, mat2)
    if input._type.shape[1] != mat2._type.shape[0]:
        raise ShapeError(_shapes_text(input._type.shape, mat2._type.shape))
    return record("MmBackward0", (input, mat2), lambda b, x, y: b.contract(x, y, "m k, k n -> m n"))


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of matrices, one per entry of the first dimension."""
    _need_rank("bmm", input, 3, "batch1")
    _need_rank("bmm", mat2, 3, "batch2")
    _same_dtype(input, mat2)
    (b1, _, k), (b2, k2, _) = input._type.shape, mat2._type.shape
    if b1 != b2 or k != k2:
        raise ShapeError(
            f"Expected size for first two dimensions of batch2 tensor to be: [{b1}, {k}] but got: [{b2}, {k2}]."
        )
    return record("BmmBackward0", (input, mat2), lambda b, x, y: b.contract(x, y, "b m k, b k n -> b m n"))


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Product of a matrix and a vector."""
    if input.ndim != 2 or vec.ndim != 1 or input._type.shape[1] != vec._type.shape[0]:
        raise ShapeError(f"size mismatch, got input ({list(input._type.shape)}), vec ({list(vec._type.shape)})")
    _same_dtype(input, vec)
    return record("MvBackward0", (input, vec), lambda b, x, y: b.contract(x, y, "m k, k -> m"))


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Sum of products of two vectors."""
    if input.ndim != 1 or tensor.ndim != 1:
        raise ShapeError(f"1D tensors expected, but got {input.ndim}D and {tensor.ndim}D tensors")
    if input._type.dtype is not tensor._type.dtype:
        raise DTypeError(
            f"dot : expected both vectors to have same dtype, but found {type_name(input._type.dtype)} and "
            f"{type_name(tensor._type.dtype)}"
        )
    n, m = input._type.size, tensor._type.size
    if n != m:
        raise ShapeError(
            f"inconsistent tensor size, expected tensor [{n}] and src [{m}] to have the same number of elements, "
            f"but got "
            f"{n} and {m} elements respectively"
        )
    return record("DotBackward0", (input, tensor), lambda b, x, y: b.contract(x, y, "k, k -> "))


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of elements of two vectors."""
    _same_dtype(input, vec2)
    return record("MulBackward0", (input, vec2), lambda b, x, y: b.contract(x, y, "m, n -> m n"))


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Matrix product with PyTorch's rules: vectors are rows or columns, leading dimensions broadcast."""
    if not isinstance(other, TensorBase):
        return NotImplemented
    rank_x, rank_y = input.ndim, other.ndim
    if rank_x == 0 or rank_y == 0:
        raise RuntimeError(f"both arguments to matmul need to be at least 1D, but they are {rank_x}D and {rank_y}D")
    if rank_x == 1 and rank_y == 1:
        return dot(input, other)
    if rank_x == 2 and rank_y == 1:
        return mv(input, other)
    if rank_x == 2 and rank_y == 2:
        return mm(input, other)
    _same_dtype(input, other)
    x, y = input._type.shape, other._type.shape
    if x[-1] != (y[-2] if rank_y > 1 else y[0]):
        left = x if rank_x == 1 else (_product(x[:-1]), x[-1])
        right = y if rank_y == 1 else (y[-2], y[-1])
        raise ShapeError(f"{_shapes_text(left, right)}; the operands are {input._type} and {other._type}")
    if rank_y <= 2:
        return _flat_matmul(input, other)
    lead = broadcast_shapes(x[:-2], y[:-2])
    return record("UnsafeViewBackward0", (input, other), lambda b, p, q: _batched(b, p, q, lead))


def _product(shape: Sequence[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def _flat_matmul(input: Tensor, other: Tensor) -> Tensor:
    """Many dimensions against a matrix or vector: the leading ones make one long dimension."""

    def emit(b: Builder, x: Node, y: Node) -> Node:
        lead = x.shape[:-1]
        flat = b.reshape(x, (_product(lead), x.shape[-1]))
        if y.type.rank == 1:
            return b.reshape(b.contract(flat, y, "m k, k -> m"), lead)
        return b.reshape(b.contract(flat, y, "m k, k n -> m n"), (*lead, y.shape[1]))

    return record("UnsafeViewBackward0", (input, other), emit)


def _batched(b: Builder, x: Node, y: Node, lead: tuple[int, ...]) -> Node:
    vector = x.type.rank == 1
    if vector:
        x = b.reshape(x, (1, *x.shape))
    count = _product(lead)
    x = b.reshape(b.broadcast(x, (*lead, *x.shape[-2:])), (count, *x.shape[-2:]))
    y = b.reshape(b.broadcast(y, (*lead, *y.shape[-2:])), (count, *y.shape[-2:]))
    result = b.contract(x, y, "b m k, b k n -> b m n")
    return b.reshape(result, (*lead, result.shape[2]) if vector else (*lead, *result.shape[1:]))


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * mat1 @ mat2."""
    product = mm(mat1, mat2)
    if alpha != 1:
        product = product * alpha
    return product + (input if beta == 1 else input * beta)


def einsum(equation: str, *operands: Any) -> Tensor:
    """Sum of products by an index formula such as "bij,bjk->bik", for one or two operands without repeated labels in
    one.
    """
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise RuntimeError(f"einsum(): more operands were provided than specified in the equation: {equation!r}")
    if "." in text:
        raise NotImplementedError("einsum(): an ellipsis is not supported; name every dimension")
    if len(operands) > 2 or any(len(set(term)) != len(term) for term in terms):
        raise NotImplementedError("einsum(): one or two operands, each without repeated labels, are supported")
    for term, operand in zip(terms, operands, strict=True):
        if len(term) != operand.ndim:
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({len(term)}) does not match the number of "
                f"dimensions "
                f"({operand.ndim}) for operand {terms.index(term)}"
            )
    if not arrow:
        letters = "".join(terms)
        right = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if len(operands) == 1:
        return _einsum_one(terms[0], right, operands[0])
    _same_dtype(*operands)
    low = {c: f"l{ord(c)}" for c in set("".join(terms))}
    first, second, result = (" ".join(low[c] for c in term) for term in (*terms, right))
    spec = f"{first}, {second} -> {result}"
    return record("EinsumBackward0", operands, lambda b, x, y: b.contract(x, y, spec))


def _einsum_one(term: str, right: str, operand: Tensor) -> Tensor:
    summed = tuple(i for i, c in enumerate(term) if c not in right)
    left = [c for c in term if c in right]

    def emit(b: Builder, x: Node) -> Node:
        return b.permute(b.reduce_sum(x, summed), tuple(left.index(c) for c in right))

    return record("EinsumBackward0", (operand,), emit)
