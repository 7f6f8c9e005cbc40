"""Indexing, read and written: integers, slices, ellipsis, None, integer tensors, boolean masks."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import DTypeError, InputError, KindError, OutOfRange, RangeError, ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean, broadcast_shapes, i32, i64, u8
from graphc.late_checks import TOO_LOW
from graphc.recording import Recorder, current
from graphc.storage import Value
from graphc.tensors import viewing
from graphc.tensors.core import TensorBase, finish, from_array, read, read_now, wants_grad
from graphc.tensors.filling import fill_value
from graphc.tensors.learning import repeatable
from graphc.tensors.masks import true_places
from graphc.tensors.operands import is_number, plain
from graphc.tensors.storing import stored_at
from graphc.tensors.views import inverse_permutation
from graphc.tensors.writing import check_apart, check_writable, type_name, write, write_node
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Index = Any
Advanced = list["Tensor | None"]  # for each dimension what indexes it, or None for all of it

_WRONG = "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got {})"
_NOT_INDEX = "tensors used as indices must be long, int, byte or bool tensors"
_SEQUENCE = (
    "Using a non-tuple sequence for multidimensional indexing is deprecated and will be changed in pytorch 2.9; use "
    "x[tuple(seq)] instead of x[seq]. In pytorch 2.9 this will be interpreted as tensor index, x[torch.tensor(seq)], "
    "which will result either in an error or a different result"
)
_BYTES = "indexing with dtype torch.uint8 is now deprecated, please use a dtype torch.bool instead."
FEW = 1 << 20  # bytes of which elements are picked by a mask where they lie
_LONGEST = 32  # longer lists are never taken for tuples of indices


# what an index says


def _items(index: Index) -> tuple[Any, ...]:
    """The parts of an index, one for each dimension or so; a list that holds more than numbers counts as a tuple."""
    if isinstance(index, tuple):
        return index
    if isinstance(index, str):
        raise KindError("new(): invalid data type 'str'")
    if (
        isinstance(index, list)
        and len(index) < _LONGEST
        and any(i is None or i is Ellipsis or isinstance(i, TensorBase | slice | Sequence | np.ndarray) for i in index)
    ):
        warn(_SEQUENCE)
        return tuple(index)
    return (index,)


def _plain_item(item: Any) -> Any:
    """An int, a bool, a slice, None, Ellipsis, or a tensor of indices (bool for masks)."""
    if item is None or item is Ellipsis or isinstance(item, slice | int):
        return item
    if isinstance(item, np.integer) or (isinstance(item, np.ndarray) and not item.ndim and item.dtype.kind in "iu"):
        return int(item)
    if isinstance(item, TensorBase):
        return _index_tensor(item)  # type: ignore[arg-type]
    if isinstance(item, np.ndarray):
        if item.dtype.kind not in "iub":
            raise RangeError(_NOT_INDEX)
        return from_array(item, boolean if item.dtype.kind == "b" else u8 if item.dtype == np.uint8 else i64)
    if isinstance(item, Sequence) and not isinstance(item, str):
        array = np.asarray(list(item))
        return from_array(array, boolean if array.dtype.kind == "b" else i64)
    kind = type(item)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    raise RangeError(_WRONG.format(name))


def _index_tensor(item: Tensor) -> Any:
    dtype = item._type.dtype
    if (
        item.ndim == 0 and dtype.is_integer and dtype is not u8 and current().example_since is None
    ):  # `vmap` knows no values
        return int(item.item())  # a view, as in PyTorch
    if dtype not in (i64, i32, u8, boolean):
        raise RangeError(_NOT_INDEX)
    if dtype is u8:
        if item.ndim:
            warn(_BYTES)
        return item.bool()
    return item


def _basic(tensor: Tensor, index: Index) -> tuple[Tensor, Advanced]:
    """Apply integers, slices and None as views; what stays: for each dimension an index tensor or None."""
    items = [_plain_item(i) for i in _items(index)]
    rank = tensor.ndim
    used = 0
    for item in items:
        if isinstance(item, TensorBase):
            used += item.ndim if item._type.dtype is boolean else 1
        elif item is not None and item is not Ellipsis and not isinstance(item, bool):
            used += 1
    if not rank and any(isinstance(i, int) and not isinstance(i, bool) for i in items):
        raise RangeError(
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to convert a "
            "0-dim tensor to a number"
        )
    if used > rank:
        raise RangeError(f"too many indices for tensor of dimension {rank}")
    seen, dim = tensor, 0
    advanced: dict[int, Tensor] = {}
    for place, item in enumerate(items):
        if item is Ellipsis:
            dim += rank - used
        elif item is None:
            seen = viewing.unsqueeze(seen, dim)
            dim += 1
        elif isinstance(item, bool):
            seen = viewing.unsqueeze(seen, dim)
            advanced[dim] = from_array(np.zeros(1 if item else 0, np.int64), i64)
            dim += 1
        elif isinstance(item, int):
            seen = _selected(seen, dim, item, place)
        elif isinstance(item, slice):
            seen = _sliced(seen, dim, item)
            dim += 1
        elif item._type.dtype is boolean and not item.ndim:
            seen = viewing.unsqueeze(seen, dim)
            advanced[dim] = from_array(np.zeros(1 if item.item() else 0, np.int64), i64)
            dim += 1
        elif item._type.dtype is boolean:
            for position in true_places(item, seen, dim):
                advanced[dim] = position
                dim += 1
        else:
            advanced[dim] = item
            dim += 1
    return seen, [advanced.get(d) for d in range(seen.ndim)]


def _is_few(input: Tensor) -> bool:
    """Whether elements are picked where they lie: how many a mask picks would be another program each time."""
    recorder, type = current(), input._type
    plainly = recorder.capture is None and recorder.example_since is None and not wants_grad((input,))
    return plainly and type.device == "cpu" and type.nbytes <= FEW


def _selected(tensor: Tensor, dim: int, index: int, place: int) -> Tensor:
    """The part at `index` of dimension `dim`; `place` is where the index stands, which PyTorch's error names."""
    if not -(2**63) <= index < 2**63:
        raise InputError("Overflow when unpacking long long")
    shape = tensor._type.shape
    if dim >= len(shape):
        viewing.wrap_dim(dim, len(shape))
    if not -shape[dim] <= index < shape[dim]:
        raise RangeError(f"index {index} is out of bounds for dimension {place} with size {shape[dim]}")
    return viewing.select_view(tensor, dim, index % shape[dim])


def _sliced(tensor: Tensor, dim: int, item: slice) -> Tensor:
    step = 1 if item.step is None else operator.index(item.step)
    if step == 0:
        raise InputError("slice step cannot be zero")
    if step < 0:
        raise InputError("step must be greater than zero")
    start = None if item.start is None else operator.index(item.start)
    stop = None if item.stop is None else operator.index(item.stop)
    return _cut(tensor, viewing.wrap_dim(dim, tensor.ndim), start, stop, step)


def _cut(tensor: Tensor, dim: int, start: int | None, stop: int | None, step: int) -> Tensor:
    """The slice, or the tensor itself when that is all of it."""
    n = tensor._type.shape[dim]
    first, last, step = slice(start, stop, step).indices(n)
    size = max(0, -(-(last - first) // step))
    if first == 0 and last == n and step == 1:
        return tensor
    return viewing.slice_view(tensor, dim, first, size, step)


def check_range(recorder: Recorder, index: Node, keep: Any, size: int, low: int, message: str) -> None:
    """Raise IndexError at the next flush when an element of `index` lies outside [low, size), low <= 0. It stands in
    `message` where that has " {}".
    """
    if index.type.size == 0:
        return
    if size == 0:
        raise OutOfRange(message)
    flag = outside(recorder.b, index, size, low)
    recorder.check(flag, Value(flag, (keep,)), OutOfRange(message))


def outside(b: Builder, index: Node, size: int, low: int) -> Node:
    """0 (i64) if all elements of `index`, which has some, lie in [low, size), low <= 0, else one that does not, as
    `late_checks.index_of` reads it.
    """
    index = b.cast(index, i64)
    raised = b.add(b.apply("maximum", (index, b.constant(-TOO_LOW // 2, index.type))), TOO_LOW)
    most = b.select(b.apply("lt", (index, b.constant(low, index.type))), raised, index)
    axes = tuple(range(most.type.rank))
    if axes:
        most = b.apply("reduce_max", (most,), {"axes": axes, "ties": "even"})
    beyond = b.apply("ge", (most, b.constant(size, most.type)))
    return b.select(beyond, b.add(b.mul(most, 2), 1), b.zeros_like(most))


def _combined(
    recorder: Recorder, seen: Tensor, advanced: Sequence[Tensor | None]
) -> tuple[list[int], tuple[int, ...], Node, list[Any]]:
    """The indexed dimensions, the broadcast index shape, and the row-major index over these dimensions."""
    b = recorder.b
    places = [i for i, a in enumerate(advanced) if a is not None]
    tensors = [a for a in advanced if a is not None]
    try:
        shape = broadcast_shapes(*(a._type.shape for a in tensors))
    except ShapeError:
        shapes = ", ".join(str(list(a._type.shape)) for a in tensors)
        raise RangeError(
            f"shape mismatch: indexing tensors could not be broadcast together with shapes {shapes}"
        ) from None
    flat: Node | None = None
    keeps: list[Any] = []
    for place, tensor in zip(places, tensors, strict=True):
        n = seen._type.shape[place]
        node, keep = read(recorder, tensor, False)
        if node.type.device != seen._type.device:
            node = _beside(b, node, seen)
        node = b.cast(node, i64)
        check_range(recorder, node, keep, n, -n, f"index {{}} is out of bounds for dimension {place} with size {n}")
        keeps.append(keep)
        negative = b.apply("lt", (node, b.zeros_like(node)))
        node = b.broadcast(b.select(negative, b.add(node, n), node), shape)
        flat = node if flat is None else b.add(b.mul(flat, n), node)
    assert flat is not None
    return places, shape, flat, keeps


def _beside(b: Builder, node: Node, seen: Tensor) -> Node:
    """Indices on the device of what they index: those on the CPU are moved there."""
    if node.type.device != "cpu":
        raise UsageError(
            f"indices should be either on cpu or on the same device as the indexed tensor ({seen._type.device})"
        )
    return b.transfer(node, seen._type.device)


def _front(places: list[int], rank: int) -> tuple[tuple[int, ...], int]:
    """The permutation that brings indexed dimensions together in front, and where their result belongs."""
    rest = [d for d in range(rank) if d not in places]
    together = places == list(range(places[0], places[0] + len(places)))
    return (*places, *rest), places[0] if together else 0


def getitem(input: Tensor, index: Index) -> Tensor:
    """`input[index]`: a view for integers, slices, None and ellipsis; a copy when a list or tensor indexes."""
    mask = _mask_of(input, index)
    if mask is not None and mask._type.device == "cpu" and _is_few(input):
        return from_array(input._array()[mask._array()], input._type.dtype)
    seen, advanced = _basic(input, index)
    if all(a is None for a in advanced):
        if seen is not input:
            return seen
        if isinstance(index, slice):
            return viewing.slice_view(input, 0, 0, input._type.shape[0], 1)
        return viewing.same_view(input)
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((seen,))
        x, keep_x = read_now(recorder, seen, grad)
        places, shape, flat, keeps = _combined(recorder, seen, advanced)
        perm, back = _front(places, x.type.rank)
        moved = b.permute(x, perm)
        rest = moved.shape[len(places) :]
        rows = math.prod(moved.shape[: len(places)])
        taken = b.apply("gather", (b.reshape(moved, (rows, *rest)), flat), {"axis": 0})
        k = len(shape)
        order = (*range(k, k + back), *range(k), *range(k + back, taken.type.rank))
        return finish(recorder, b.permute(taken, order), (keep_x, *keeps), "IndexBackward0", grad)


def setitem(input: Tensor, index: Index, value: Any) -> None:
    """`input[index] = value`, the value broadcast and converted; with index tensors, the last one wins among equal
    indices, and dtypes must agree.
    """
    if not stored_at(input, index, value):
        _setitem(input, index, value)


@repeatable
def _setitem(input: Tensor, index: Index, value: Any) -> None:
    number = is_number(value)
    if not number and not isinstance(value, TensorBase):
        raise KindError(f"can't assign a {_full_name(value)} to a {input.type()}")
    source: Tensor = fill_value(plain(value), input) if number else value  # type: ignore[arg-type]
    mask = _mask_of(input, index)
    if mask is not None and source._type.size == 1:
        places = (*mask._type.shape, *(1,) * (input.ndim - mask.ndim))
        _fill_where(input, viewing.reshape(mask, places), viewing.reshape(source, ()))
        return
    seen, advanced = _basic(input, index)
    given, shape = source._type.shape, seen._type.shape
    if any(a is not None for a in advanced):
        if source._type.dtype is not seen._type.dtype:
            raise DTypeError(
                "Index put requires the source and destination dtypes match, got "
                f"{type_name(seen._type.dtype)} for the destination and {type_name(source._type.dtype)} for the source."
            )
        kept = without_ones(given)
        _index_put(seen, advanced, source if kept == given else viewing.reshape(source, kept), accumulate=False)
        return
    if given == shape:
        write(seen, source)
    elif not given:
        write(seen, source, "FillBackward3", one=True)
    else:
        kept = without_ones(given)
        check_fits(kept, shape)
        write(seen, viewing.expand(viewing.reshape(source, kept), shape))


def _full_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` without leading ones."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape


def check_fits(given: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """ShapeError when `given` does not broadcast to `shape`."""
    for k in range(1, min(len(given), len(shape)) + 1):
        if given[-k] not in (1, shape[-k]):
            raise ShapeError(
                f"The expanded size of the tensor ({shape[-k]}) must match the existing size ({given[-k]}) at "
                f"non-singleton dimension {len(shape) - k}.  Target sizes: {list(shape)}.  Tensor sizes: {list(given)}"
            )
    if len(given) > len(shape):
        raise ShapeError(
            f"expand: the number of sizes provided ({len(shape)}) must be greater or equal to the number of "
            f"dimensions in the tensor ({len(given)})"
        )


def _mask_of(input: Tensor, index: Index) -> Tensor | None:
    """The mask, if it is all that indexes."""
    items = index if isinstance(index, tuple) else (index,)
    if len(items) != 1 or not isinstance(items[0], TensorBase) or not items[0].ndim:
        return None
    mask: Any = items[0]
    fits = mask._type.dtype is boolean and mask._type.shape == input._type.shape[: mask.ndim]
    return mask if fits else None


def _fill_where(input: Tensor, mask: Tensor, value: Tensor) -> None:
    """Store a 0-d `value` where `mask`, of as many dimensions as `input`, is true."""
    check_writable(input, (value,))
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((input, value)) and input._type.dtype.is_float
        x, keep_x = read(recorder, input, grad)
        v, keep_v = read(recorder, value, grad)
        m, keep_m = read(recorder, mask, False)
        if m.type.device != x.type.device:
            m = _beside(b, m, input)
        if v.type.device == "cpu":
            v = b.transfer(v, x.type.device)
        made = b.select(b.broadcast(m, x.shape), b.broadcast(b.cast(v, x.dtype), x.shape), x)
        write_node(recorder, input, made, (keep_x, keep_v, keep_m), "IndexPutBackward0", grad)


def _index_put(seen: Tensor, advanced: Sequence[Tensor | None], source: Tensor, accumulate: bool) -> None:
    """Write (or add) `source` at index tensors, in the order of their elements."""
    check_writable(seen, (source,))
    check_apart(seen, (source, *advanced), wholly=True)
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((seen, source)) and seen._type.dtype.is_float
        x, keep_x = read(recorder, seen, grad)
        places, shape, flat, keeps = _combined(recorder, seen, advanced)
        perm, back = _front(places, x.type.rank)
        moved = b.permute(x, perm)
        rest = moved.shape[len(places) :]
        base = b.reshape(moved, (math.prod(moved.shape[: len(places)]), *rest))
        value, keep_v = read(recorder, source, grad)
        if not value.shape and value.type.device == "cpu":
            value = b.transfer(value, x.type.device)
        k = len(shape)
        outcome = (*rest[:back], *shape, *rest[back:])
        given = value.shape
        if len(given) > len(outcome) or any(g not in (1, n) for g, n in zip(given[::-1], outcome[::-1], strict=False)):
            raise ShapeError(
                f"shape mismatch: value tensor of shape {list(value.shape)} cannot be broadcast to indexing result of "
                f"shape {list(outcome)}"
            )
        value = b.broadcast(value, outcome)
        value = b.permute(value, (*range(back, back + k), *range(back), *range(back + k, len(outcome))))
        count = math.prod(shape)
        value, flat = b.reshape(value, (count, *rest)), b.reshape(flat, (count,))
        if accumulate and x.dtype is boolean:
            base, value = b.cast(base, i32), b.cast(value, i32)
        made = base
        if count and base.type.size:
            made = b.apply("index_add" if accumulate else "index_set", (base, flat, value), {"axis": 0})
        made = b.permute(b.reshape(b.cast(made, x.dtype), moved.shape), inverse_permutation(perm))
        write_node(recorder, seen, made, (keep_x, keep_v, *keeps), "IndexPutBackward0", grad)


@repeatable
def index_put_(input: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool = False) -> Tensor:
    """Write `values` at `indices`; with `accumulate`, add them. Dtypes must agree."""
    _put_arguments(input, indices, values)
    advanced: Advanced = []
    for index in indices:
        if index._type.dtype not in (i64, i32, u8, boolean):
            raise RangeError(_NOT_INDEX)
        if index._type.dtype in (u8, boolean):
            advanced += true_places(index.bool(), input, len(advanced))
        else:
            advanced.append(index)
    _index_put(input, advanced + [None] * (input.ndim - len(advanced)), values, accumulate)
    return input


def _put_arguments(input: Tensor, indices: Sequence[Any], values: Tensor) -> None:
    if not isinstance(indices, tuple | list):
        raise KindError(f"index_put_(): argument 'indices' must be tuple of Tensors, not {type(indices).__name__}")
    for place, index in enumerate(indices):
        if not isinstance(index, TensorBase):
            raise KindError(f"expected Tensor as element {place} in argument 0, but got {type(index).__name__}")
    if len(indices) > input.ndim:
        raise RangeError(f"too many indices for tensor of dimension {input.ndim} (got {len(indices)})")
    if values._type.dtype is not input._type.dtype:
        raise DTypeError(
            "Index put requires the source and destination dtypes match, got "
            f"{type_name(input._type.dtype)} for the destination and {type_name(values._type.dtype)} for the source."
        )


def index_put(input: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with `values` written at `indices`, or added there."""
    _put_arguments(input, indices, values)
    return index_put_(viewing.copied(input), indices, values, accumulate)


def at_index(
    op: str, name: str, tensors: Sequence[Tensor], index: Tensor, dim: int, message: str, **attrs: Any
) -> Tensor:
    """Record an indexing operator `op(tensors[0], index, *tensors[1:])` along `dim`; OutOfRange with `message`, when
    looked at, for an index that `dim` does not have.
    """
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad(tensors)
        pairs = [read_now(recorder, t, grad) for t in tensors]
        node, keep = (read if grad else read_now)(recorder, index, False)
        nodes = [n for n, _ in pairs]
        result = b.apply(op, (nodes[0], node, *nodes[1:]), {"axis": dim, **attrs})
        check_range(recorder, node, keep, tensors[0]._type.shape[dim], 0, message)
        return finish(recorder, result, (*(k for _, k in pairs), keep), name, grad)
