"""Products of vectors and matrices with PyTorch's names and rules; each is a `contract` of the IR."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, KindError, ShapeError, UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import TensorType, boolean, broadcast_shapes
from graphc.tensors import elementwise, shaping
from graphc.tensors.casting import OPEN, cast_call
from graphc.tensors.core import TensorBase, record
from graphc.tensors.operands import combine
from graphc.tensors.out import out_form
from graphc.tensors.views import is_contiguous
from graphc.tensors.widening import in_single
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Shape = tuple[int, ...]

_C_NAMES = {
    "Double": "double",
    "Float": "float",
    "Half": "c10::Half",
    "BFloat16": "c10::BFloat16",
    "Long": "long int",
    "Int": "int",
    "Short": "short",
    "Char": "signed char",
    "Byte": "unsigned char",
    "Bool": "bool",
}


def name_of(tensor: Tensor) -> str:
    """PyTorch's name of a tensor's dtype ("Float")."""
    return type_name(tensor._type.dtype)


def c_name(tensor: Tensor) -> str:
    """The C++ type of a tensor's elements, as PyTorch's messages spell it ("long int")."""
    return _C_NAMES[name_of(tensor)]


def need_tensors(name: str, **arguments: object) -> None:
    """PyTorch's TypeError for an argument that is no tensor; `arguments` in the order of the signature."""
    for place, (argument, value) in enumerate(arguments.items(), 1):
        if not isinstance(value, TensorBase):
            raise KindError(
                f"{name}(): argument '{argument}' (position {place}) must be Tensor, not {type(value).__name__}"
            )


def need_numbers(name: str, tensor: Tensor) -> None:
    """PyTorch's NotImplementedError for bools."""
    if tensor._type.dtype is boolean:
        raise UnsupportedError(f"\"{name}\" not implemented for 'Bool'; convert with .to(dtype)")


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _cannot_multiply(left: Shape, right: Shape, a: Tensor, b: Tensor) -> ShapeError:
    return ShapeError(
        f"mat1 and mat2 shapes cannot be multiplied ({_times(left)} and {_times(right)}); the operands are {a._type} "
        f"and {b._type}"
    )


def _same_matrices(a: Tensor, b: Tensor) -> None:
    if a._type.dtype is not b._type.dtype:
        raise DTypeError(
            f"expected m1 and m2 to have the same dtype, but got: {c_name(a)} != {c_name(b)} ({a._type} and "
            f"{b._type}); convert one with .to(dtype)"
        )
    need_numbers("addmm_impl_cpu_", a)


def _same_scalars(a: Tensor, b: Tensor, name: str) -> None:
    if a._type.dtype is not b._type.dtype:
        raise DTypeError(f"expected scalar type {name_of(a)} but found {name_of(b)} ({a._type} and {b._type})")
    need_numbers(name, a)


# the nodes


def product_node(b: Builder, x: Node, y: Node) -> Node:
    """The product of matrices in the last two dimensions; leading dimensions broadcast."""
    lead = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, first = _lead_labels(b, x, len(lead))
    y, second = _lead_labels(b, y, len(lead))
    kept = sorted({*first, *second})
    made = b.contract(x, y, f"{_spaced(first)}m k, {_spaced(second)}k n -> {_spaced(kept)}m n")
    return b.reshape(made, (*lead, *made.shape[-2:]))


def _spaced(places: list[int]) -> str:
    return "".join(f"b{place} " for place in places)


def _lead_labels(b: Builder, node: Node, rank: int) -> tuple[Node, list[int]]:
    """`node` without leading dimensions that repeat (nothing is copied for them), and the places of the others."""
    offset = rank - (node.type.rank - 2)
    places = [offset + i for i, n in enumerate(node.shape[:-2]) if n != 1]
    return b.reshape(node, (*(node.shape[place - offset] for place in places), *node.shape[-2:])), places


# functions


@out_form
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Product of two matrices."""
    need_tensors("mm", input=input, mat2=mat2)
    return _mm(input, mat2)


# Types of matrices that were found to fit each other.
_fitting: set[tuple[TensorType, TensorType]] = set()
_MOST_FITTING = 20_000


def _matrices(b: Builder, x: Node, y: Node) -> Node:
    return b.contract(x, y, "m k, k n -> m n")


def _mm(input: Tensor, mat2: Tensor) -> Tensor:
    for text, tensor in (("self", input), ("mat2", mat2)):
        if tensor.ndim != 2:
            raise ShapeError(f"{text} must be a matrix, got {tensor.ndim}-D tensor; mm got {input._type}, {mat2._type}")
    _same_matrices(input, mat2)
    if input._type.shape[1] != mat2._type.shape[0]:
        raise _cannot_multiply(input._type.shape, mat2._type.shape, input, mat2)
    if len(_fitting) >= _MOST_FITTING:
        _fitting.clear()
    _fitting.add((input._type, mat2._type))
    return record("MmBackward0", (input, mat2), _matrices, True)


@out_form
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of matrices, one per entry of the first dimension."""
    need_tensors("bmm", input=input, mat2=mat2)
    return _bmm(input, mat2)


def _bmm(input: Tensor, mat2: Tensor) -> Tensor:
    for text, tensor in (("batch1", input), ("batch2", mat2)):
        if tensor.ndim != 3:
            raise ShapeError(f"{text} must be a 3D tensor; bmm got {input._type} and {mat2._type}")
    _check_batches(input._type.shape, mat2._type.shape)
    _same_scalars(input, mat2, "bmm")
    return record("BmmBackward0", (input, mat2), lambda b, x, y: b.contract(x, y, "b m k, b k n -> b m n"))


def _check_batches(x: Shape, y: Shape) -> None:
    if x[0] != y[0] or x[2] != y[1]:
        raise ShapeError(
            f"Expected size for first two dimensions of batch2 tensor to be: [{x[0]}, {x[2]}] but got: "
            f"[{y[0]}, {y[1]}]."
        )


@out_form
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Product of a matrix and a vector."""
    need_tensors("mv", input=input, vec=vec)
    return _mv(input, vec)


def _mv(input: Tensor, vec: Tensor) -> Tensor:
    x, y = input._type.shape, vec._type.shape
    if len(x) != 2 or len(y) != 1:
        raise ShapeError(f"vector + matrix @ vector expected, got 1, {len(x)}, {len(y)}")
    if x[1] != y[0]:
        raise ShapeError(f"size mismatch, got input ({x[0]}), mat ({_times(x)}), vec ({y[0]})")
    if input._type.dtype is not vec._type.dtype:
        names = f"{name_of(vec)}, {name_of(input)}, and {name_of(vec)}"
        raise DTypeError(f"addmv input tensors must have the same dtype, but got {names}")
    need_numbers("addmv_impl_cpu", input)
    return record("MvBackward0", (input, vec), lambda b, x, y: b.contract(x, y, "m k, k -> m"))


def _dot(name: str, input: Tensor, other: Tensor) -> Tensor:
    if input.ndim != 1 or other.ndim != 1:
        raise ShapeError(f"1D tensors expected, but got {input.ndim}D and {other.ndim}D tensors")
    if input._type.dtype is not other._type.dtype:
        raise DTypeError(
            f"dot : expected both vectors to have same dtype, but found {name_of(input)} and {name_of(other)}"
        )
    need_numbers("dot", input)
    n, m = input._type.size, other._type.size
    if n != m:
        raise ShapeError(
            f"inconsistent tensor size, expected tensor [{n}] and src [{m}] to have the same number of elements, "
            f"but got {n} and {m} elements respectively"
        )
    return record(name, (input, other), lambda b, x, y: b.contract(x, y, "k, k -> "))


@out_form
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Sum of products of two vectors."""
    need_tensors("dot", input=input, tensor=tensor)
    return _dot("DotBackward0", input, tensor)


@out_form
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """Sum of products of two vectors; there are no complex numbers to conjugate."""
    need_tensors("vdot", input=input, other=other)
    return _dot("VdotBackward0", input, other)


@out_form
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of elements of two vectors; dtypes are promoted."""
    need_tensors("outer", input=input, vec2=vec2)
    for name, tensor in (("self", input), ("vec2", vec2)):
        if tensor.ndim != 1:
            raise ShapeError(f"outer: Expected 1-D argument {name}, but got {tensor.ndim}-D")
    return elementwise.mul(shaping.unsqueeze(input, 1), vec2)


ger = outer


@out_form
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Matrix product with PyTorch's rules: vectors are rows or columns, leading dimensions broadcast."""
    need_tensors("matmul", input=input, other=other)
    return product(input, other)


def operator_matmul(input: Any, other: Any) -> Any:
    """`input @ other`."""
    both = isinstance(input, TensorBase) and isinstance(other, TensorBase)
    if OPEN and both:
        return cast_call(product, "matmul", (input, other), {})
    return product(input, other) if both else NotImplemented  # type: ignore[arg-type]


def product(input: Tensor, other: Tensor) -> Tensor:
    """`matmul` of two tensors."""
    if (input._type, other._type) in _fitting:
        return record("MmBackward0", (input, other), _matrices, True)
    x, y = input._type.shape, other._type.shape
    if not x or not y:
        raise ShapeError(f"both arguments to matmul need to be at least 1D, but they are {len(x)}D and {len(y)}D")
    if len(y) == 1:
        if len(x) == 1:
            return _dot("DotBackward0", input, other)
        return _mv(input, other) if len(x) == 2 else _times_vector(input, other)
    if len(x) == 2 and len(y) == 2:
        return _mm(input, other)
    if len(y) == 2:
        return _row(input, other) if len(x) == 1 else _many_rows(input, other)
    return _row_of_batches(input, other) if len(x) == 1 else _batches(input, other)


def _times_vector(input: Tensor, vec: Tensor) -> Tensor:
    """(..., m, k) @ (k)."""
    *lead, k = input._type.shape
    if k != vec._type.shape[0]:
        rows = math.prod(lead)
        raise ShapeError(f"size mismatch, got input ({rows}), mat ({rows}x{k}), vec ({vec._type.shape[0]})")
    _same_scalars(input, vec, "addmv_impl_cpu")

    return record("UnsafeViewBackward0", (input, vec), rows_node(input, "k", ""))


def _row(input: Tensor, other: Tensor) -> Tensor:
    """(k) @ (k, n)."""
    if input._type.shape[0] != other._type.shape[0]:
        raise _cannot_multiply((1, input._type.shape[0]), other._type.shape, input, other)
    _same_matrices(input, other)
    return record("SqueezeBackward4", (input, other), lambda b, x, y: b.contract(x, y, "k, k n -> n"))


def _many_rows(input: Tensor, other: Tensor) -> Tensor:
    """(..., m, k) @ (k, n): the leading dimensions make one long dimension."""
    *lead, k = input._type.shape
    if k != other._type.shape[0]:
        raise _cannot_multiply((math.prod(lead), k), other._type.shape, input, other)
    _same_matrices(input, other)

    return record("UnsafeViewBackward0", (input, other), rows_node(input, "k n", "n"))


def rows_node(input: Tensor, right: str, out: str) -> Callable[..., Node]:
    """What records the product of the rows of `input` with an operand that has the labels `right`.

    The leading dimensions make one long dimension where they lie one after the other; else each keeps its label, so
    that nothing is copied or divided to find an element.
    """
    *lead, k = input._type.shape
    if is_contiguous(input._type.shape, input._strides):
        shape, labels = (math.prod(lead),), "m"
    else:
        shape, labels = tuple(lead), " ".join(f"b{i}" for i in range(len(lead)))

    def emit(b: Builder, x: Node, y: Node) -> Node:
        made = b.contract(b.reshape(x, (*shape, k)), y, f"{labels} k, {right} -> {labels} {out}")
        return b.reshape(made, (*lead, *made.shape[len(shape) :]))

    return emit


def _row_of_batches(input: Tensor, other: Tensor) -> Tensor:
    """(k) @ (..., k, n)."""
    x, y = input._type.shape, other._type.shape
    _check_batches((math.prod(y[:-2]), 1, x[0]), (math.prod(y[:-2]), y[-2], y[-1]))
    _same_scalars(input, other, "bmm")

    def emit(b: Builder, x: Node, y: Node) -> Node:
        made = product_node(b, b.reshape(x, (1, *x.shape)), y)
        return b.reshape(made, (*made.shape[:-2], made.shape[-1]))

    return record("UnsafeViewBackward0", (input, other), emit)


def _batches(input: Tensor, other: Tensor) -> Tensor:
    """(..., m, k) @ (..., k, n), the second of rank 3 or more."""
    x, y = input._type.shape, other._type.shape
    count = math.prod(broadcast_shapes(x[:-2], y[:-2]))
    _check_batches((count, x[-2], x[-1]), (count, y[-2], y[-1]))
    _same_scalars(input, other, "bmm")
    # PyTorch multiplies one matrix by all others at once, then copies the result into order.
    turned = math.prod(x[:-2]) == 1 and count != 1 and other.requires_grad
    return record("CloneBackward0" if turned else "UnsafeViewBackward0", (input, other), product_node)


@out_form
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last dimension of both; a 0-d operand multiplies."""
    need_tensors("inner", input=input, other=other)
    x, y = input._type.shape, other._type.shape
    if not x or not y:
        return elementwise.mul(input, other)
    if x[-1] != y[-1]:
        raise ShapeError(
            f"inner() the last dimension must match on both input tensors but got shapes {list(x)} and {list(y)}"
        )
    if input._type.dtype is not other._type.dtype:
        raise DTypeError(f"both inputs should have same dtype; inner got {input._type} and {other._type}")
    need_numbers("dot", input)
    first, second = ([f"{letter}{i}" for i in range(len(shape) - 1)] for letter, shape in (("x", x), ("y", y)))
    spec = f"{' '.join([*first, 'k'])}, {' '.join([*second, 'k'])} -> {' '.join([*first, *second])}"
    return record("ViewBackward0", (input, other), lambda b, p, q: b.contract(p, q, spec))


# beta * input + alpha * product


def _added(name: str, input: Tensor, made: Tensor, beta: Any, alpha: Any) -> Tensor:
    """beta * input + alpha * made, in the shape of `made`. With beta = 0 the elements of `input` do not matter."""
    seen = shaping.expand(input, *made._type.shape)
    if not made._type.dtype.is_float and not input._type.dtype.is_float:
        beta, alpha = (n if isinstance(n, bool | TensorBase) else int(n) for n in (beta, alpha))
    scales = not (isinstance(alpha, int | float) and alpha == 1)
    ignored = isinstance(beta, int | float) and beta == 0
    weighs = not (ignored or (isinstance(beta, int | float) and beta == 1))
    operands = [made, seen, *([alpha] if scales else []), *([beta] if weighs else [])]

    def emit(b: Builder, result: Node, term: Node, *numbers: Node) -> Node:
        if scales:
            result = _mul(b, result, numbers[0])
        if ignored:  # `input` keeps a gradient, of zeros
            return b.select(b.constant(True, term.type.with_dtype(boolean)), result, term)
        if weighs:
            term = _mul(b, term, numbers[-1])
        return b.apply("bitwise_or" if term.dtype is boolean else "add", (term, result))

    return combine(name, operands, emit)


def _mul(b: Builder, x: Node, y: Node) -> Node:
    return b.apply("bitwise_and" if x.dtype is boolean else "mul", (x, y))


@out_form
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * mat1 @ mat2."""
    need_tensors("addmm", input=input, mat1=mat1, mat2=mat2)
    for name, tensor in (("mat1", mat1), ("mat2", mat2)):
        if tensor.ndim != 2:
            raise ShapeError(f"{name} must be a matrix, got {tensor.ndim}-D tensor")
    for tensor in (mat1, mat2):
        if tensor._type.dtype is not input._type.dtype:
            raise DTypeError(f"self and mat2 must have the same dtype, but got {name_of(input)} and {name_of(tensor)}")
    return _added("AddmmBackward0", input, _mm(mat1, mat2), beta, alpha)


@out_form
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * mat @ vec."""
    need_tensors("addmv", input=input, mat=mat, vec=vec)
    if mat.ndim != 2 or vec.ndim != 1 or input.ndim > 1:
        raise ShapeError(f"vector + matrix @ vector expected, got {input.ndim}, {mat.ndim}, {vec.ndim}")
    rows, columns = mat._type.shape
    if columns != vec._type.size or input._type.size not in (rows, 1):
        raise ShapeError(
            f"size mismatch, got input ({input._type.size}), mat ({rows}x{columns}), vec ({vec._type.size})"
        )
    if not input._type.dtype is mat._type.dtype is vec._type.dtype:
        names = f"{name_of(input)}, {name_of(mat)}, and {name_of(vec)}"
        raise DTypeError(f"addmv input tensors must have the same dtype, but got {names}")
    return _added("AddmvBackward0", input, _mv(mat, vec), beta, alpha)


@out_form
@in_single
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * outer(vec1, vec2); dtypes are promoted."""
    need_tensors("addr", input=input, vec1=vec1, vec2=vec2)
    for name, tensor in (("vec1", vec1), ("vec2", vec2)):
        if tensor.ndim != 1:
            raise ShapeError(f"addr: Expected 1-D argument {name}, but got {tensor.ndim}-D")
    made = elementwise.mul(shaping.unsqueeze(vec1, 1), vec2)
    if not made._type.dtype.is_float and not input._type.dtype.is_float:
        for name, number in (("beta", beta), ("alpha", alpha)):
            if isinstance(number, float):
                raise DTypeError(f"For integral input tensors, argument {name} must not be a floating point number.")
    if made._type.dtype is boolean and input._type.dtype is boolean:
        beta, alpha = bool(beta), bool(alpha)
    return _added("AddrBackward0", input, made, beta, alpha)


@out_form
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * the sum of the products of matrices in `batch1` and `batch2`."""
    need_tensors("addbmm", input=input, batch1=batch1, batch2=batch2)
    for name, tensor in (("batch1", batch1), ("batch2", batch2)):
        if tensor.ndim != 3:
            raise ShapeError(f"{name} must be a 3D tensor; addbmm got {batch1._type} and {batch2._type}")
    x, y = batch1._type.shape, batch2._type.shape
    if x[0] != y[0]:
        raise ShapeError(f"batch1 and batch2 must have same number of batches, got {x[0]} and {y[0]}")
    if x[2] != y[1]:
        raise ShapeError(f"Incompatible matrix sizes for bmm ({_times(x[1:])} and {_times(y[1:])})")
    for tensor in (batch1, batch2):
        if tensor._type.dtype is not input._type.dtype:
            raise DTypeError(f"self and mat2 must have the same dtype, but got {name_of(input)} and {name_of(tensor)}")
    need_numbers("addmm_impl_cpu_", batch1)
    made = record("BmmBackward0", (batch1, batch2), lambda b, p, q: b.contract(p, q, "b m k, b k n -> m n"))
    return _added("AddbmmBackward0", input, made, beta, alpha)


@out_form
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * bmm(batch1, batch2)."""
    need_tensors("baddbmm", input=input, batch1=batch1, batch2=batch2)
    if input._type.dtype is not batch1._type.dtype:
        raise DTypeError(
            f"Input dtypes must be the same, got: input {c_name(input)}, batch1: {c_name(batch1)}, batch2: "
            f"{c_name(batch2)}"
        )
    return _added("BaddbmmBackward0", input, _bmm(batch1, batch2), beta, alpha)
