"""Rows of tables by number: embeddings, bags of them, one-hot rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.errors import CheckError, DTypeError, InputError, ShapeError, UnsupportedError, UsageError
from graphc.grad_mode import MODE
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean, i32, i64
from graphc.loss_reduction import check_values, given
from graphc.recording import Recorder, current
from graphc.tensors.core import TensorBase, finish, read, read_now, record, record_many, wants_grad
from graphc.tensors.indexing import check_range
from graphc.tensors.learning import repeatable
from graphc.tensors.norms import vector_norm_node
from graphc.tensors.writing import in_place, type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _check_table(name: str, input: Tensor, weight: Tensor) -> None:
    if weight.ndim != 2:
        raise ShapeError(f"'weight' must be 2-D; {name} got {weight._type}")
    if input._type.dtype not in (i64, i32):
        raise DTypeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got "
            f"torch.{type_name(input._type.dtype)}Tensor instead (while checking arguments for {name})"
        )


def _no_sparse(name: str, sparse: bool) -> None:
    if sparse:
        raise UnsupportedError(f"{name}: sparse=True: there are no sparse tensors; leave it out for dense gradients")


def _counts(b: Builder, index: Node, rows: int) -> Node:
    """How often each row is named, i64."""
    flat = b.reshape(b.cast(index, i64), (index.type.size,))
    none = b.constant(0, flat.type.with_shape((rows,)))
    return b.apply("index_add", (none, flat, b.constant(1, flat.type)), {"axis": 0})


def _renormalise(weight: Tensor, input: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale, in place, the named rows of a norm above `max_norm` to it; no gradient sees this."""

    def emit(b: Builder, w: Node, index: Node) -> Node:
        length = vector_norm_node(b, w, float(norm_type), (1,))
        counts = _counts(b, index, w.shape[0])
        used = b.apply("gt", (counts, b.zeros_like(counts)))
        long = b.apply("bitwise_and", (used, b.apply("gt", (length, b.constant(max_norm, length.type)))))
        scale = b.div(b.constant(max_norm, length.type), b.add(length, 1e-7))
        return b.select(b.expand_dims(long, (1,), w.shape), b.mul(w, b.expand_dims(scale, (1,), w.shape)), w)

    if not input._type.size or not weight._type.size:
        return
    saved, MODE.enabled = MODE.enabled, False
    try:
        in_place(weight, record("", (weight, input), emit))
    finally:
        MODE.enabled = saved


def _rows(b: Builder, w: Node, index: Node, padding: int | None, by_frequency: bool) -> Node:
    """The rows that `index` names; the gradient of row `padding` is 0, that of others over their count on demand."""
    rows = b.apply("gather", (w, index), {"axis": 0})
    if padding is None and not by_frequency:
        return rows
    fixed = b.apply("detach", (rows,))
    axis = index.type.rank
    if by_frequency:
        counts = b.apply("gather", (_counts(b, index, w.shape[0]), index), {"axis": 0})
        share = b.div(b.constant(1, index.type.with_dtype(w.dtype)), b.cast(counts, w.dtype))
        rows = b.add(fixed, b.mul(b.sub(rows, fixed), b.expand_dims(share, (axis,), rows.shape)))
    if padding is not None:
        padded = b.apply("eq", (index, b.constant(padding, index.type)))
        rows = b.select(b.expand_dims(padded, (axis,), rows.shape), fixed, rows)
    return rows


@repeatable
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of `weight` by number. IndexError, when looked at, for numbers out of range.

    Row `padding_idx` gets no gradient; with `scale_grad_by_freq`, the others' are divided by how often they are named.
    With `max_norm`, rows of a larger `norm_type`-norm are scaled to it in `weight` first.
    """
    if padding_idx is not None:
        if not -weight._type.shape[0] <= padding_idx < weight._type.shape[0]:
            raise CheckError("Padding_idx must be within num_embeddings")
        padding_idx %= weight._type.shape[0]
    _check_table("embedding", input, weight)
    _no_sparse("embedding", sparse)
    if max_norm is not None:
        _renormalise(weight, input, max_norm, norm_type)
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((weight,))
        w, keep = read_now(recorder, weight, grad)
        index, keep_index = (read if grad else read_now)(recorder, input, False)
        check_range(
            recorder, index, keep_index, w.shape[0], 0, f"index out of range in self: index {{}} of {w.shape[0]} rows"
        )
        made = _rows(b, w, index, padding_idx, scale_grad_by_freq)
        return finish(recorder, made, (keep, keep_index), "EmbeddingBackward0", grad)


# bags


@repeatable
def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum, mean or maximum of the rows of each bag: the rows of a 2-d `input`, or of a 1-d one the parts that begin
    at `offsets`. Rows `padding_idx` do not count; an empty bag gives zeros.

    Each bag of a 1-d input is compared with each of its elements.
    """
    padding_idx = _bag_padding(padding_idx, weight._type.shape[0])
    _check_bag(input, offsets, mode, scale_grad_by_freq, per_sample_weights, include_last_offset)
    _check_table("embedding_bag", input, weight)
    _no_sparse("embedding_bag", sparse)
    if per_sample_weights is not None and per_sample_weights._type.dtype is not weight._type.dtype:
        raise DTypeError(
            "expected scalar type of per_sample_weights to be that of weight, "
            f"{type_name(weight._type.dtype)}, but found {type_name(per_sample_weights._type.dtype)}"
        )
    if max_norm is not None:
        _renormalise(weight, input, max_norm, norm_type)
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad(given(weight, per_sample_weights))
        w, keep = read(recorder, weight, grad)
        index, keep_index = read(recorder, input, False)
        keeps = [keep, keep_index]
        message = f"embedding_bag: Expected i < index_size to be true: index {{}} is not in [0, {w.shape[0]})"
        check_range(recorder, index, keep_index, w.shape[0], 0, message)
        rows = _rows(b, w, index, None, scale_grad_by_freq)
        counted = b.constant(True, index.type.with_dtype(boolean))
        if padding_idx is not None:
            counted = b.apply("ne", (index, b.constant(padding_idx, index.type)))
        if per_sample_weights is not None:
            scale, keep_scale = read(recorder, per_sample_weights, grad)
            keeps.append(keep_scale)
            rows = b.mul(rows, b.expand_dims(scale, (scale.type.rank,), rows.shape))
        if offsets is None:
            member, flat = counted, rows
        else:
            start, keep_start = read(recorder, offsets, False)
            keeps.append(keep_start)
            _check_offsets(recorder, start, keep_start, index.type.size)
            bags = start.shape[0] - (1 if include_last_offset else 0)
            place = _members(b, b.cast(start, i64), bags, index.shape[0])
            seen = b.broadcast(b.reshape(counted, (1, index.shape[0])), place.shape)
            member = b.apply("bitwise_and", (place, seen))
            flat = b.broadcast(b.reshape(rows, (1, *rows.shape)), (bags, *rows.shape))
        made = _bag(b, flat, member, mode)
        return finish(recorder, made, tuple(keeps), "EmbeddingBagBackward0", grad)


def bag_facts(
    weight: Tensor,
    input: Tensor,
    offsets: Tensor,
    mode: str,
    include_last_offset: bool,
    padding_idx: int | None,
) -> list[Tensor]:
    """What `torch.embedding_bag` gives beside the rows: the bag of each index, how many rows count in each bag, and,
    by their numbers, the rows that hold the maxima (for means the counts again, for sums zeros both times).
    """
    padding = _bag_padding(padding_idx, weight._type.shape[0])

    def emit(b: Builder, w: Node, index: Node, start: Node) -> list[Node]:
        dtype, count = index.dtype, index.shape[0]
        bags = start.shape[0] - (1 if include_last_offset else 0)
        member = _members(b, b.cast(start, i64), bags, count)
        number = b.mul(b.cast(member, i64), b.iota(0, member.type.with_dtype(i64)))
        place = b.cast(b.reduce_sum(number, (0,)), dtype)
        if mode == "sum":
            none = b.constant(0, start.type.with_dtype(dtype))
            return [place, none, none]
        if padding is not None:
            counted = b.apply("ne", (index, b.constant(padding, index.type)))
            member = b.apply("bitwise_and", (member, b.broadcast(b.reshape(counted, (1, count)), member.shape)))
        sizes = b.cast(b.reduce_sum(b.cast(member, i64), (1,)), dtype)
        if mode == "mean":
            return [place, sizes, sizes]
        shape = (bags, count, w.shape[1])
        if not count:
            return [place, sizes, b.constant(0, index.type.with_shape((bags, w.shape[1])))]
        rows = b.broadcast(b.reshape(b.apply("gather", (w, index), {"axis": 0}), (1, *shape[1:])), shape)
        wide = b.expand_dims(member, (2,), shape)
        at = b.apply("argmax", (b.select(wide, rows, float("-inf")),), {"axes": (1,), "dtype": i64})
        named = b.apply("gather", (index, at), {"axis": 0})
        some = b.expand_dims(b.apply("gt", (sizes, b.zeros_like(sizes))), (1,), named.shape)
        return [place, sizes, b.select(some, named, b.zeros_like(named))]

    return record_many("", (weight.detach(), input, offsets), emit)


def _bag(b: Builder, rows: Node, member: Node, mode: str) -> Node:
    """Rows [bags, places, width] brought together over the places where `member`."""
    wide = b.expand_dims(member, (2,), rows.shape)
    count = b.reduce_sum(b.cast(member, rows.dtype), (1,))
    if mode == "max":
        if not rows.shape[1]:
            return b.constant(0, rows.type.with_shape((rows.shape[0], rows.shape[2])))
        low = b.constant(float("-inf"), rows.type)
        top = b.reduce_max(b.select(wide, rows, low), (1,), ties="first")
        some = b.expand_dims(b.apply("gt", (count, b.zeros_like(count))), (1,), top.shape)
        return b.select(some, top, b.zeros_like(top))
    total = b.reduce_sum(b.select(wide, rows, b.zeros_like(rows)), (1,))
    if mode == "sum":
        return total
    one = b.constant(1, count.type)
    least = b.select(b.apply("lt", (count, one)), one, count)
    return b.div(total, b.expand_dims(least, (1,), total.shape))


def _members(b: Builder, start: Node, bags: int, count: int) -> Node:
    """Whether each of `count` places lies in each bag: from its offset on, before the next one's, or to the end."""
    type = start.type.with_shape((bags, count))
    place = b.iota(1, type)
    first = b.slice(start, (0,), (bags,), (1,))
    last = b.pad(b.slice(first, (1,), (bags - 1,), (1,)), (0,), (1,), None, count) if bags else first
    begun = b.apply("ge", (place, b.expand_dims(first, (1,), type.shape)))
    return b.apply("bitwise_and", (begun, b.apply("lt", (place, b.expand_dims(last, (1,), type.shape)))))


def _check_offsets(recorder: Recorder, start: Node, keep: Any, count: int) -> None:
    b = recorder.b
    if not start.type.size:
        return
    first = b.slice(start, (0,), (1,), (1,))
    moved = b.apply("ne", (first, b.zeros_like(first)))
    error = "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0."
    check_values(recorder, moved, keep, UsageError(error))
    last = b.slice(start, (start.shape[0] - 1,), (1,), (1,))
    beyond = b.apply("gt", (last, b.constant(count, last.type)))
    check_values(recorder, beyond, keep, UsageError(f"offsets[-1] can not be greater than input's length {count}"))


def _bag_padding(padding_idx: int | None, rows: int) -> int | None:
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise UsageError(
            f"padding_idx must be within the number of embeddings, -{rows} through {rows - 1}, but got {padding_idx}"
        )
    return padding_idx % rows


def one_hot_node(b: Builder, index: Node, classes: int, dtype: Any) -> Node:
    """1 where a new last dimension's index equals `index`, else 0."""
    type = index.type.with_shape((*index.shape, classes))
    wide = b.broadcast(b.reshape(index, (*index.shape, 1)), type.shape)
    return b.cast(b.apply("eq", (wide, b.iota(len(index.shape), type))), dtype)


def _check_bag(
    input: Tensor,
    offsets: Tensor | None,
    mode: str,
    scale_grad_by_freq: bool,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
) -> None:
    """PyTorch's errors for arguments that do not go together."""
    if per_sample_weights is not None and per_sample_weights._type.shape != input._type.shape:
        raise InputError(
            f"embedding_bag: If per_sample_weights ({per_sample_weights.shape}) is not None, then it must have the "
            f"same shape as the input ({input.shape})"
        )
    if input.ndim == 2:
        if offsets is not None:
            raise InputError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length "
                f"sequences. However, found offsets of type {type(offsets)}"
            )
    elif input.ndim == 1:
        if not isinstance(offsets, TensorBase):
            raise InputError(f"offsets has to be a 1D Tensor but got {offsets}")
        if offsets.ndim != 1:
            raise InputError("offsets has to be a 1D Tensor")
        if include_last_offset and not offsets.numel():
            raise UsageError("include_last_offset: number of offset should be at least 1")
    else:
        raise InputError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim}")
    if mode not in ("sum", "mean", "max"):
        raise InputError("mode has to be one of sum, mean or max")
    if mode == "max" and scale_grad_by_freq:
        raise InputError("max mode does not support scaling the gradient by the frequency")
    if per_sample_weights is not None and mode != "sum":
        raise UnsupportedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' "
            f"(got mode='{mode}')."
        )


# one-hot


@repeatable
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 with a 1 at the place that each element names; looks at the values when `num_classes` is -1.

    RuntimeError, when looked at, for elements outside [0, num_classes).
    """
    if tensor._type.dtype is not i64:
        raise DTypeError("one_hot is only applicable to index tensor of type LongTensor.")
    if num_classes == -1:
        if not tensor._type.size:
            raise UsageError("Can not infer total number of classes from empty tensor.")
        if int(tensor._array().min()) < 0:
            raise UsageError("Class values must be non-negative.")
        num_classes = int(tensor._array().max()) + 1
    elif num_classes < 1 and tensor._type.size:
        raise UsageError("Class values must be smaller than num_classes.")
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        node, keep = read(recorder, tensor, False)
        negative = b.apply("lt", (node, b.zeros_like(node)))
        check_values(recorder, negative, keep, UsageError("Class values must be non-negative."))
        large = b.apply("ge", (node, b.constant(num_classes, node.type)))
        check_values(recorder, large, keep, UsageError("Class values must be smaller than num_classes."))
        return finish(recorder, one_hot_node(b, node, num_classes, i64), (keep,), "", False)
