"""Indexing, read and written: integers, slices, ellipsis, None, integer tensors, boolean masks; gather and scatter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import TensorType, boolean, broadcast_shapes, i32, i64, u8
from graphc.recording import Recorder, current
from graphc.storage import Value
from graphc.tensors import shaping
from graphc.tensors.core import TensorBase, finish, from_array, read, record, wants_grad, wrap_dim
from graphc.tensors.operands import is_number, plain
from graphc.tensors.writing import check_writable, write, write_node

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Index = Any


def _expand_ellipsis(index: tuple[Any, ...], rank: int) -> list[Any]:
    used = 0
    for item in index:
        if item is None or item is Ellipsis or isinstance(item, bool):
            continue
        used += item.ndim if isinstance(item, TensorBase) and item._type.dtype is boolean else 1
    if used > rank:
        raise IndexError(f"too many indices for tensor of dimension {rank}")
    places = [i for i, item in enumerate(index) if item is Ellipsis]
    if len(places) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    full = [slice(None)] * (rank - used)
    return [*index[: places[0]], *full, *index[places[0] + 1 :]] if places else [*index, *full]


def _as_index_tensor(item: Any) -> Tensor:
    """A list, array or tensor of indices as a tensor."""
    if isinstance(item, TensorBase):
        tensor = item
    else:
        array = np.asarray(item)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.dtype.kind not in "iub":
            raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
        tensor = from_array(array, boolean if array.dtype.kind == "b" else i64)
    if tensor._type.dtype not in (i64, i32, u8, boolean):
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    return tensor  # type: ignore[return-value]


def _basic(tensor: Tensor, index: Index) -> tuple[Tensor, list[Tensor | None]]:
    """Apply integers, slices and None as views; what stays: one entry per dimension, an index tensor or None."""
    items = index if isinstance(index, tuple) else (index,)
    prepared = [i if i is None or i is Ellipsis or isinstance(i, slice | int) else _as_index_or_int(i) for i in items]
    seen, dim = tensor, 0
    advanced: list[Tensor | None] = []
    for item in _expand_ellipsis(tuple(prepared), tensor.ndim):
        if item is None:
            seen = shaping.unsqueeze(seen, dim)
            advanced.append(None)
            dim += 1
        elif isinstance(item, bool):
            seen = shaping.unsqueeze(seen, dim)
            advanced.append(from_array(np.zeros(1 if item else 0, np.int64), i64))
            dim += 1
        elif isinstance(item, int):
            seen = shaping.select(seen, dim, item)
        elif isinstance(item, slice):
            seen = _slice(seen, dim, item)
            advanced.append(None)
            dim += 1
        elif item._type.dtype is boolean:
            for position in _nonzero(item, seen._type.shape[dim : dim + item.ndim], dim):
                advanced.append(position)
            dim += item.ndim
        else:
            advanced.append(item)
            dim += 1
    return seen, advanced


def _as_index_or_int(item: Any) -> Any:
    if isinstance(item, np.integer):
        return int(item)
    if isinstance(item, float):
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices "
            "(got float)"
        )
    return _as_index_tensor(item)


def _slice(tensor: Tensor, dim: int, item: slice) -> Tensor:
    n = tensor._type.shape[dim]
    step = 1 if item.step is None else item.step.__index__()
    if step <= 0:
        raise ValueError("step must be greater than zero")
    start, stop, step = slice(
        None if item.start is None else item.start.__index__(),
        None if item.stop is None else item.stop.__index__(),
        step,
    ).indices(n)
    return shaping.slice_view(tensor, dim, start, max(0, -(-(stop - start) // step)), step)


def _nonzero(mask: Tensor, shape: tuple[int, ...], dim: int) -> list[Tensor]:
    """Positions of the true elements, one tensor per dimension; looks at the values."""
    for i, (m, n) in enumerate(zip(mask._type.shape, shape, strict=True)):
        if m != n:
            raise IndexError(
                f"The shape of the mask {list(mask._type.shape)} at index {i} does not match the shape of the indexed "
                f"tensor {list(shape)} at index {dim + i}"
            )
    return [from_array(p, i64) for p in np.nonzero(mask._array())]


def check_range(recorder: Recorder, index: Node, keep: Any, size: int, low: int, message: str) -> None:
    """Raise IndexError at the next flush when an element of `index` lies outside [low, size)."""
    if index.type.size == 0:
        return
    b = recorder.b
    below = b.apply("lt", (index, b.constant(low, index.type)))
    above = b.apply("ge", (index, b.constant(size, index.type)))
    bad = b.apply("bitwise_or", (below, above))
    axes = tuple(range(bad.type.rank))
    flag = b.apply("reduce_max", (bad,), {"axes": axes, "ties": "even"}) if axes else bad
    lines = ", ".join(map(str, sorted(b.locs)))
    recorder.check(flag, Value(flag, (keep,)), IndexError(f"{message}{f' (at {lines})' if lines else ''}"))


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
        raise IndexError(
            f"shape mismatch: indexing tensors could not be broadcast together with shapes {shapes}"
        ) from None
    flat: Node | None = None
    keeps: list[Any] = []
    for place, tensor in zip(places, tensors, strict=True):
        n = seen._type.shape[place]
        node, keep = read(recorder, tensor, False)
        node = b.cast(node, i64)
        check_range(recorder, node, keep, n, -n, f"index is out of bounds for dimension {place} with size {n}")
        keeps.append(keep)
        negative = b.apply("lt", (node, b.zeros_like(node)))
        node = b.broadcast(b.select(negative, b.add(node, n), node), shape)
        flat = node if flat is None else b.add(b.mul(flat, n), node)
    assert flat is not None
    return places, shape, flat, keeps


def _front(places: list[int], rank: int) -> tuple[tuple[int, ...], int]:
    """The permutation that brings indexed dimensions together in front, and where their result belongs."""
    rest = [d for d in range(rank) if d not in places]
    together = places == list(range(places[0], places[0] + len(places)))
    return (*places, *rest), places[0] if together else 0


def getitem(input: Tensor, index: Index) -> Tensor:
    """`input[index]`: a view for integers, slices, None and ellipsis; a copy when a list or tensor indexes."""
    seen, advanced = _basic(input, index)
    if all(a is None for a in advanced):
        return shaping.same_view(seen) if seen is input else seen
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((seen,))
        x, keep_x = read(recorder, seen, grad)
        places, shape, flat, keeps = _combined(recorder, seen, advanced)
        perm, back = _front(places, x.type.rank)
        moved = b.permute(x, perm)
        rest = moved.shape[len(places) :]
        rows = 1
        for n in moved.shape[: len(places)]:
            rows *= n
        taken = b.apply("gather", (b.reshape(moved, (rows, *rest)), flat), {"axis": 0})
        k = len(shape)
        order = (*range(k, k + back), *range(k), *range(k + back, taken.type.rank))
        return finish(recorder, b.permute(taken, order), (keep_x, *keeps), "IndexBackward0", grad)


def setitem(input: Tensor, index: Index, value: Any) -> None:
    """`input[index] = value`, the value broadcast and converted; with index tensors, the last one wins among equal
    indices.
    """
    if _is_mask(input, index):
        return _masked_write(input, index, value)
    seen, advanced = _basic(input, index)
    source = _value_tensor(value, input)
    if all(a is None for a in advanced):
        shape = seen._type.shape
        given = source._type.shape
        while len(given) > len(shape) and given and given[0] == 1:
            given = given[1:]
        if source._type.shape != given:
            source = shaping.reshape(source, *given)
        check_fits(given, shape)
        write(seen, source)
        return None
    _index_put(seen, advanced, source, accumulate=False)
    return None


def check_fits(given: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """ShapeError when `given` does not broadcast to `shape`."""
    if len(given) > len(shape) or any(g not in (1, n) for g, n in zip(reversed(given), reversed(shape), strict=False)):
        for g, n, at in zip(reversed(given), reversed(shape), range(len(shape) - 1, -1, -1), strict=False):
            if g not in (1, n):
                raise ShapeError(
                    f"The expanded size of the tensor ({n}) must match the existing size ({g}) at non-singleton "
                    f"dimension "
                    f"{at}.  Target sizes: {list(shape)}.  Tensor sizes: {list(given)}"
                )
        raise ShapeError(f"shape mismatch: value tensor of shape {list(given)} cannot be broadcast to {list(shape)}")


def _value_tensor(value: Any, like: Tensor) -> Tensor:
    if isinstance(value, TensorBase):
        return value  # type: ignore[return-value]
    if is_number(value):
        return fill_value(plain(value), like)
    return from_array(np.asarray(value), like._type.dtype)


def fill_value(value: Any, like: Tensor) -> Tensor:
    """A number as a 0-d tensor of the dtype of `like`: a constant of the program."""
    return record("", (), lambda b: b.constant(value, TensorType(like._type.dtype, ())))


def _is_mask(input: Tensor, index: Index) -> bool:
    return (
        isinstance(index, TensorBase)
        and index._type.dtype is boolean
        and index._type.shape == input._type.shape[: index.ndim]
    )


def _masked_write(input: Tensor, mask: Tensor, value: Any) -> None:
    source = _value_tensor(value, input)
    if source.ndim == 0:
        write(input, masked_fill(input, mask, source))
        return
    write_positions = _nonzero(mask, input._type.shape[: mask.ndim], 0)
    advanced: list[Tensor | None] = [*write_positions, *([None] * (input.ndim - mask.ndim))]
    _index_put(input, advanced, source, accumulate=False)


def _index_put(seen: Tensor, advanced: Sequence[Tensor | None], source: Tensor, accumulate: bool) -> None:
    """Write `source` at index tensors: for each place, the last row that names it, found by the largest row number."""
    check_writable(seen)
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((seen, source)) and seen._type.dtype.is_float
        x, keep_x = read(recorder, seen, grad)
        places, shape, flat, keeps = _combined(recorder, seen, advanced)
        perm, back = _front(places, x.type.rank)
        moved = b.permute(x, perm)
        rest = moved.shape[len(places) :]
        rows = 1
        for n in moved.shape[: len(places)]:
            rows *= n
        base = b.reshape(moved, (rows, *rest))
        value, keep_v = read(recorder, source, grad)
        k = len(shape)
        outcome = (*rest[:back], *shape, *rest[back:])
        check_fits(value.shape, outcome)
        value = b.broadcast(b.cast(value, x.dtype), outcome)
        value = b.permute(value, (*range(back, back + k), *range(back), *range(back + k, len(outcome))))
        count = 1
        for n in shape:
            count *= n
        value = b.reshape(value, (count, *rest))
        flat = b.reshape(flat, (count,))
        if accumulate:
            result = b.apply("index_add", (base, flat, value), {"axis": 0})
        elif count == 0:
            result = base
        else:
            result = _last_wins(b, base, flat, value)
        result = b.permute(b.reshape(result, moved.shape), tuple(int(i) for i in np.argsort(perm)))
        write_node(recorder, seen, result, (keep_x, keep_v, *keeps), "IndexPutBackward0", grad)


def _last_wins(b: Builder, base: Node, flat: Node, value: Node) -> Node:
    rows, count = base.shape[0], flat.shape[0]
    pairs = TensorType(i64, (rows, count))
    here = b.apply("eq", (b.iota(0, pairs), b.broadcast(b.reshape(flat, (1, count)), pairs.shape)))
    number = b.select(here, b.iota(1, pairs), b.constant(-1, pairs))
    last = b.apply("reduce_max", (number,), {"axes": (1,), "ties": "even"})
    found = b.apply("ge", (last, b.zeros_like(last)))
    safe = b.select(found, last, b.zeros_like(last))
    taken = b.apply("gather", (value, safe), {"axis": 0})
    wide = b.broadcast(b.reshape(found, (rows, *(1,) * (base.type.rank - 1))), base.shape)
    return b.select(wide, taken, base)


def index_put_(input: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool = False) -> Tensor:
    """Write `values` at `indices`; with `accumulate`, add them."""
    seen, advanced = _basic(input, tuple(indices))
    _index_put(seen, advanced, values, accumulate)
    return input


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`value` where `mask`, else the element."""
    if mask._type.dtype is not boolean:
        raise DTypeError(f"masked_fill_ only supports boolean masks, but got mask with dtype {mask.dtype}")
    filler = value if isinstance(value, TensorBase) else fill_value(plain(value), input)
    shape = broadcast_shapes(input._type.shape, _aligned(mask, input))

    def emit(b: Builder, x: Node, v: Node, m: Node) -> Node:
        m = b.broadcast(b.reshape(m, _aligned(mask, input)), shape)
        return b.select(m, b.broadcast(b.cast(v, x.dtype), shape), b.broadcast(x, shape))

    return record("MaskedFillBackward0", (input, filler, mask), emit)  # type: ignore[arg-type]


def _aligned(mask: Tensor, input: Tensor) -> tuple[int, ...]:
    """A mask over the leading dimensions, as indexing uses it, keeps its place; otherwise the usual alignment."""
    shape, full = mask._type.shape, input._type.shape
    if len(shape) < len(full) and shape == full[: len(shape)] and shape != full[len(full) - len(shape) :]:
        return (*shape, *(1,) * (len(full) - len(shape)))
    return shape


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where `mask`, in one dimension; looks at the mask."""
    shape = broadcast_shapes(input._type.shape, mask._type.shape)
    return getitem(shaping.expand(input, *shape), shaping.expand(mask, *shape))


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Positions of the elements that are not zero, a row each; looks at the values."""
    found = np.nonzero(input._array())
    if as_tuple:
        return tuple(from_array(p, i64) for p in found)
    return from_array(np.stack(found, 1) if found else np.zeros((int(bool(input._array())), 0)), i64)


def _checked_index(recorder: Recorder, index: Tensor, size: int, dim: int, name: str) -> tuple[Node, Any]:
    if index._type.dtype not in (i64, i32):
        raise DTypeError(f"{name}(): Expected dtype int32/int64 for index, got {index.dtype}")
    node, keep = read(recorder, index, False)
    check_range(recorder, node, keep, size, 0, f"index out of range in {name}: dimension {dim} has size {size}")
    return node, keep


def index_op(op: str, name: str, torch: str, tensors: tuple[Tensor, ...], index: Tensor, dim: int) -> Tensor:
    """Record an indexing operator `op(tensors[0], index, *tensors[1:])` along `dim`, with a check of the range."""
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad(tensors)
        pairs = [read(recorder, t, grad) for t in tensors]
        node, keep = _checked_index(recorder, index, tensors[0]._type.shape[dim] if tensors[0].ndim else 1, dim, torch)
        nodes = [n for n, _ in pairs]
        result = b.apply(op, (nodes[0], node, *nodes[1:]), {"axis": dim})
        return finish(recorder, result, (*(k for _, k in pairs), keep), name, grad)


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """out[i][j] = input[index[i][j]][j] for dim 0, and so on. IndexError (when looked at) for indices out of range."""
    at = wrap_dim(dim, input.ndim)
    if input.ndim != index.ndim:
        raise RuntimeError("Index tensor must have the same number of dimensions as input tensor")
    source = input
    for d, (n, m) in enumerate(zip(index._type.shape, input._type.shape, strict=True)):
        if d == at:
            continue
        if n > m:
            raise RuntimeError(
                f"Size does not match at dimension {d} expected index {list(index._type.shape)} to be no larger "
                f"than self "
                f"{list(input._type.shape)} apart from dimension {at}"
            )
        if n < m:
            source = shaping.narrow(source, d, 0, n)
    return index_op("take_along", "GatherBackward0", "gather", (source,), index, at)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries of `dim` that the 1-d `index` names."""
    if index.ndim > 1:
        raise IndexError("index_select(): Index is supposed to be a vector")
    at = wrap_dim(dim, input.ndim)
    vector = shaping.reshape(index, -1)
    return index_op("gather", "IndexSelectBackward0", "index_select", (input,), vector, at)


def take_along_dim(input: Tensor, indices: Tensor, dim: int) -> Tensor:
    """`gather` with the other dimensions broadcast."""
    at = wrap_dim(dim, input.ndim)
    ones = tuple(1 if i == at else n for i, n in enumerate(input._type.shape))
    shape = broadcast_shapes(ones, tuple(1 if i == at else n for i, n in enumerate(indices._type.shape)))
    left = tuple(input._type.shape[at] if i == at else n for i, n in enumerate(shape))
    right = tuple(indices._type.shape[at] if i == at else n for i, n in enumerate(shape))
    return gather(shaping.expand(input, *left), at, shaping.expand(indices, *right))


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """input with src[i][j] added at [index[i][j]][j] for dim 0, and so on; duplicates add up."""
    at = wrap_dim(dim, input.ndim)
    part = src
    for d, (n, m) in enumerate(zip(index._type.shape, src._type.shape, strict=True)):
        if n < m:
            part = shaping.narrow(part, d, 0, n)
    return index_op("scatter_add", "ScatterAddBackward0", "scatter_add", (input, part), index, at)


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """input with the entries of `source` added at the places of `dim` that `index` names; duplicates add up."""
    at = wrap_dim(dim, input.ndim)
    scaled = source if alpha == 1 else source * alpha
    return index_op("index_add", "IndexAddBackward0", "index_add", (input, scaled), index, at)


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None) -> Tensor:
    """input with `src` (or a number) stored at the places of `dim` that `index` names; the last one wins.

    Compares each place with each index along `dim`, so it is meant for short dimensions.
    """
    at = wrap_dim(dim, input.ndim)
    given = src if src is not None else value
    source = (
        given if isinstance(given, TensorBase) else shaping.expand(fill_value(plain(given), input), *index._type.shape)
    )
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((input, source))
        x, keep_x = read(recorder, input, grad)
        s, keep_s = read(recorder, source, grad)
        node, keep = _checked_index(recorder, index, input._type.shape[at], at, "scatter")
        s = b.slice(b.cast(s, x.dtype), (0,) * s.type.rank, node.shape, (1,) * s.type.rank)
        result = _scattered(b, x, at, b.cast(node, i64), s)
        return finish(recorder, result, (keep_x, keep_s, keep), "ScatterBackward0", grad)


def _scattered(b: Builder, x: Node, at: int, index: Node, source: Node) -> Node:
    if 0 in index.shape:
        return x
    high = tuple(0 if i == at else n - m for i, (n, m) in enumerate(zip(x.shape, index.shape, strict=True)))
    low = (0,) * len(high)
    index, source = b.pad(index, low, high, None, -1), b.pad(source, low, high)
    count, rows = index.shape[at], x.shape[at]
    last = TensorType(i64, (*x.shape[: at + 1], count, *x.shape[at + 1 :]))
    named = b.broadcast(b.reshape(index, (*x.shape[:at], 1, count, *x.shape[at + 1 :])), last.shape)
    hit = b.apply("eq", (named, b.iota(at, last)))
    place = b.apply(
        "reduce_max", (b.select(hit, b.iota(at + 1, last), b.constant(-1, last)),), {"axes": (at + 1,), "ties": "even"}
    )
    found = b.apply("ge", (place, b.zeros_like(place)))
    taken = b.apply("take_along", (source, b.select(found, place, b.zeros_like(place))), {"axis": at})
    assert place.shape[at] == rows
    return b.select(found, taken, x)


def one_hot_node(b: Builder, index: Node, classes: int, dtype: Any) -> Node:
    """1 where a new last dimension's index equals `index`, else 0."""
    type = TensorType(index.dtype, (*index.shape, classes))
    wide = b.broadcast(b.reshape(index, (*index.shape, 1)), type.shape)
    return b.cast(b.apply("eq", (wide, b.iota(len(index.shape), type))), dtype)
