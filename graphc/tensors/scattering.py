"""Reading, storing, adding and reducing at index tensors, with PyTorch's names: gather, scatter and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, KindError, RangeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean, broadcast_shapes, i32, i64
from graphc.recording import current
from graphc.tensors import viewing
from graphc.tensors.core import TensorBase, finish, read, read_all, record, wants_grad, wrap_dim
from graphc.tensors.filling import fill_value
from graphc.tensors.indexing import at_index, check_range
from graphc.tensors.operands import plain
from graphc.tensors.out import out_form
from graphc.tensors.writing import type_name
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Shape = tuple[int, ...]


def _check_index(name: str, index: Tensor) -> None:
    if index._type.dtype not in (i64, i32):
        raise DTypeError(f"{name}(): Expected dtype int32/int64 for index")


def outside(dim: int, size: int) -> str:
    """What is said of an index that `dim` does not have; " {}" is where it stands."""
    return f"index {{}} is out of bounds for dimension {dim} with size {size}"


def _ranked(*tensors: Tensor) -> list[Tensor]:
    """Tensors, those without dimensions as vectors of one element."""
    return [t if t.ndim else viewing.reshape(t, 1) for t in tensors]


@out_form
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """out[i][j] = input[index[i][j]][j] for dim 0, and so on. OutOfRange, when looked at, for indices out of range."""
    at = wrap_dim(dim, input.ndim)
    if not index._type.size:
        return record("GatherBackward0", (input,), lambda b, x: _nothing(b, x, index._type.shape))
    _check_index("gather", index)
    source, places = _ranked(input, index)
    if source.ndim != places.ndim:
        raise UsageError("Index tensor must have the same number of dimensions as input tensor")
    for d, (n, m) in enumerate(zip(places._type.shape, source._type.shape, strict=True)):
        if d != at and n > m:
            raise UsageError(
                f"Size does not match at dimension {d} expected index {list(index._type.shape)} to be no larger than "
                f"self {list(input._type.shape)} apart from dimension {at}"
            )
    message = outside(at, source._type.shape[at])
    made = at_index("take_along", "GatherBackward0", (source,), places, at, message)
    return _in_shape(made, index._type.shape)


def _nothing(b: Builder, x: Node, shape: Shape) -> Node:
    """No elements of `x`, in a shape that holds none."""
    return b.reshape(b.slice(b.reshape(x, (x.type.size,)), (0,), (0,), (1,)), shape)


def _in_shape(made: Tensor, shape: Shape) -> Tensor:
    """A result of one element in the shape of a 0-d tensor."""
    if made._type.shape == shape:
        return made
    name = made._lineage.hist.name if made._lineage.hist is not None else ""
    return record(name, (made,), lambda b, x: b.reshape(x, shape))


@out_form
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries of `dim` that the vector `index` names."""
    at = wrap_dim(dim, input.ndim)
    if index.ndim > 1:
        raise RangeError("index_select(): Index is supposed to be a vector")
    if index._type.dtype not in (i64, i32):
        raise DTypeError("index_select(): Expected dtype int32 or int64 for index")
    source, vector = _ranked(input, index)
    if not input.ndim and index._type.size != 1:
        raise UsageError(f"index_select(): Index to scalar can have only 1 value, got {index._type.size} value(s)")
    made = at_index(
        *("gather", "IndexSelectBackward0", (source,), vector, at),
        f"index out of range in self: index {{}} for dimension {at} with size {source._type.shape[at]}",
    )
    return _in_shape(made, () if not input.ndim else made._type.shape)


def _long_only(name: str, index: Tensor) -> None:
    if index._type.dtype is not i64:
        raise DTypeError(f"{name}(): Expected a long tensor for index, but got {type_name(index._type.dtype)}")


@out_form
def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements of the flat tensor at `index`, negative ones from the end, in the shape of `index`."""
    _long_only("take", index)
    if not input._type.size and index._type.size:
        raise RangeError("take(): tried to take from an empty tensor")
    count = input._type.size

    def emit(b: Builder, x: Node, at: Node) -> Node:
        return b.apply("gather", (b.reshape(x, (count,)), _from_end(b, at, count)), {"axis": 0})

    return _checked("TakeBackward0", (input,), index, count, emit)


def _from_end(b: Builder, index: Node, count: int) -> Node:
    return b.select(b.apply("lt", (index, b.zeros_like(index))), b.add(index, count), index)


def _checked(name: str, tensors: Sequence[Tensor], index: Tensor, count: int, emit: Any) -> Tensor:
    """Record `emit(b, tensors[0], index, *tensors[1:])` for indices in [-count, count)."""
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad(tensors)
        pairs = read_all(recorder, tensors, grad)
        node, keep = read(recorder, index, False)
        message = f"out of range: tried to access index {{}} on a tensor of {count} elements."
        check_range(recorder, node, keep, count, -count, message)
        made = emit(b, pairs[0][0], node, *(n for n, _ in pairs[1:]))
        return finish(recorder, made, (*(k for _, k in pairs), keep), name, grad, [n for n, _ in pairs])


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """`input` with `source` stored (or added) at places of the flat tensor, negative ones from the end."""
    _long_only("put_", index)
    same_dtype(
        "put_(): self and source expected to have the same dtype, but got self.dtype = {} and source.dtype = {}",
        input,
        source,
    )
    if source._type.size != index._type.size:
        raise RangeError(
            "put_(): Expected source and index to have the same number of elements, but got source.numel() = "
            f"{source._type.size}, index.numel() = {index._type.size}"
        )
    count, several = input._type.size, (index._type.size,)
    if not count and several[0]:
        raise RangeError("put_(): Tried to put elements into an empty tensor")
    op = "index_add" if accumulate else "index_set"

    def emit(b: Builder, x: Node, at: Node, src: Node) -> Node:
        if not count:
            return x
        places = b.reshape(_from_end(b, at, count), several)
        wide = i32 if x.dtype is boolean and accumulate else x.dtype
        base, stored = b.reshape(b.cast(x, wide), (count,)), b.reshape(b.cast(src, wide), several)
        return b.reshape(b.cast(b.apply(op, (base, places, stored), {"axis": 0}), x.dtype), x.shape)

    return _checked("PutBackward0", (input, source), index, count, emit)


def same_dtype(message: str, input: Tensor, source: Tensor) -> None:
    """DTypeError with `message`, which is given both names, when two tensors differ in dtype."""
    if input._type.dtype is not source._type.dtype:
        raise DTypeError(message.format(type_name(input._type.dtype), type_name(source._type.dtype)))


@out_form
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` with the other dimensions broadcast and negative indices from the end; of the flat tensors without
    `dim`.
    """
    if indices._type.dtype is not i64:
        raise DTypeError(
            f"torch.take_along_dim(): dtype of indices should be Long but got {type_name(indices._type.dtype)}"
        )
    if dim is None:
        return gather(viewing.reshape(input, -1), 0, viewing.reshape(indices, -1))
    if input.ndim != indices.ndim:
        raise UsageError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
            f"{input.ndim} dimensions for input, and {indices.ndim} dimensions for indices"
        )
    at = wrap_dim(dim, input.ndim)
    n = input._type.shape[at]
    ones = tuple(1 if i == at else m for i, m in enumerate(input._type.shape))
    shape = broadcast_shapes(ones, tuple(1 if i == at else m for i, m in enumerate(indices._type.shape)))
    left = tuple(n if i == at else m for i, m in enumerate(shape))
    right = tuple(indices._type.shape[at] if i == at else m for i, m in enumerate(shape))
    # As in PyTorch, indices count modulo the size.
    wrapped = record("", (indices,), lambda b, i: b.elementwise("remainder", i, b.constant(n, i.type)))
    return gather(viewing.expand(input, left), at, viewing.expand(wrapped, right))


# scatter


def scatter_arguments(name: str, input: Tensor, dim: int, index: Tensor, source: Tensor | None) -> int:
    """Check the shapes and dtypes of a scatter; gives the dimension."""
    at = wrap_dim(dim, input.ndim)
    _check_index(name, index)
    if source is not None:
        same_dtype("scatter(): Expected self.dtype to be equal to src.dtype", input, source)
    if not index._type.size:
        return at
    rank = max(index.ndim, 1)
    if rank != max(input.ndim, 1):
        raise UsageError("Index tensor must have the same number of dimensions as self tensor")
    if source is not None and rank != max(source.ndim, 1):
        raise UsageError("Index tensor must have the same number of dimensions as src tensor")
    shape, whole = index._type.shape, input._type.shape
    given = source._type.shape if source is not None else shape
    if any(n > m for i, (n, m) in enumerate(zip(shape, whole, strict=False)) if i != at) or any(
        n > m for n, m in zip(shape, given, strict=False)
    ):
        extra = f" and to be no larger size than src {list(given)}" if source is not None else ""
        raise UsageError(
            f"Expected index {list(shape)} to be no larger than self {list(whole)} apart from dimension {at}{extra}"
        )
    return at


def _scattered(
    op: str, name: str, input: Tensor, at: int, index: Tensor, source: Tensor | None, value: Any = None, **attrs: Any
) -> Tensor:
    """`op` of the operands, the source cut to the shape of the index; a number as a constant."""
    if not index._type.size:
        return record(name, (input,), lambda b, x: x)
    x, places = _ranked(input, index)
    shape = places._type.shape
    if source is None:
        part = viewing.expand(viewing.reshape(fill_value(value, input), (1,) * len(shape)), shape)
    else:
        (part,) = _ranked(source)
        for d, n in enumerate(shape):
            part = part if part._type.shape[d] == n else viewing.narrow(part, d, 0, n)
    made = at_index(op, name, (x, part), places, at, outside(at, x._type.shape[at]), **attrs)
    return _in_shape(made, input._type.shape)


@out_form
def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """input with `src`, a tensor or a number, stored at the places of `dim` that `index` names; the last one wins.

    With `reduce` "add" or "multiply" it is combined with what stands there.
    """
    given = value if src is None else src
    if given is None:
        raise KindError("scatter(): missing argument 'src' or 'value'")
    source: Any = given if isinstance(given, TensorBase) else None
    at = scatter_arguments("scatter", input, dim, index, source)
    if reduce is not None and reduce not in ("add", "multiply"):
        raise UsageError("reduce argument must be either add or multiply.")
    if reduce is not None and source is not None:
        warn(
            "The reduce argument of torch.scatter with Tensor src is deprecated and will be removed in a future "
            "PyTorch release. Use torch.scatter_reduce instead for more reduction options.",
        )
    number = None if source is not None else plain(given)
    if reduce == "add":
        return _added("NotImplemented", input, at, index, source, number)
    if reduce == "multiply":
        return _scattered("scatter_reduce", "NotImplemented", input, at, index, source, number, mode="prod")
    name = "ScatterBackward0" if source is not None else "ScatterBackward1"
    return _scattered("scatter_set", name, input, at, index, source, number)


def _added(name: str, input: Tensor, at: int, index: Tensor, source: Tensor | None, number: Any = None) -> Tensor:
    if input._type.dtype is not boolean:
        return _scattered("scatter_add", name, input, at, index, source, number)
    as_number = None if source is None else source.int()
    return _scattered("scatter_add", name, input.int(), at, index, as_number, number).bool()


@out_form
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """input with src[i][j] added at [index[i][j]][j] for dim 0, and so on; duplicates add up."""
    at = scatter_arguments("scatter", input, dim, index, src)
    return _added("ScatterAddBackward0", input, at, index, src)
