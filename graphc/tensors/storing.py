"""Parts of memory that are written where they lie.

A write gives the memory a new value, recorded: one program computes what is read and what is written, and memory that
is read before stays as it was. Where a loop fills a tensor part by part, each place would be a program of its own, and
each write a copy of the whole. So a part that is small beside the whole is stored at once, where nothing recorded
waits for what was there before, where a call writes one place after the other, and where it is very small.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.call_places import moves
from graphc.grad_mode import MODE
from graphc.memory import ALONE, constant, part, pieces, write_pieces
from graphc.recording import THREADS, Recorder
from graphc.storage import TOUCHED
from graphc.tensors.core import TensorBase, record
from graphc.tensors.export import laid_out
from graphc.tensors.filling import held_number
from graphc.tensors.views import is_contiguous, repeats_elements
from graphc_runtime.buffer import Buffer
from graphc_runtime.devices.cuda_memory import DeviceBuffer

if TYPE_CHECKING:
    from graphc.ir.types import TensorType
    from graphc.promotion import Number
    from graphc.storage import Storage

SHARE = 2  # a part is at most the whole divided by this,
SMALL = 4096  # or has at most so many bytes
COPIED = 1 << 16  # bytes of memory up to which it is copied where something recorded reads it later
LARGE = 1 << 18  # bytes of memory that is not written as a whole for the sake of
SPECK = 16  # a part that is at most the whole divided by this: running what is recorded takes less time
BROUGHT = 1 << 14  # bytes that are brought to a device as they are
MOST_PLACES = 3  # that a call writes in turn, each by the same programs


def stored(recorder: Recorder, target: TensorBase, source: TensorBase) -> bool:
    """Store the elements of `source`, which has the target's shape or is a 0-d tensor, if that is to be done at once.
    No gradients flow.
    """
    storage, type = target._storage, target._type
    if not _is_part(storage, type.size) or source._type.device != type.device or not _is_free(recorder, storage):
        return False
    number = _number(source)
    if not _is_in_reach(type, target._strides, number if number is not None else source):
        return False
    if not _writes_many_places(target, number):
        if storage.value is not None and not _is_number(storage):
            return False  # it is computed with what is written
        waits = number is None and source._storage.value is not None
        if (waits or _is_read(storage)) and not _is_speck(storage, type.size):
            return False
    if _is_read(storage):
        recorder.flush("")
    if number is None and source._type.dtype is not type.dtype:
        source = record("", (source,), lambda b, x: b.cast(x, type.dtype))
    values: Any = number if number is not None else _elements(source)
    if source._storage is storage and number is None:
        values = values.copy()  # it holds the memory, which nobody else may
    if storage.value is not None and _is_number(storage):
        storage.set_buffer(constant(storage.value.node))
    if not storage.realise().writeable:
        return False
    _store(recorder, target, type.shape, target._strides, target._offset, values)
    return True


def stored_at(tensor: TensorBase, index: Any, value: Any) -> bool:
    """`tensor[index] = value` for integers and slices and a Python number or a tensor of that shape, if that is to be
    done at once, or for the same view of the memory, as `tensor[index] += 1` ends; mistakes are left to others.
    """
    storage, kind = tensor._storage, type(value)
    is_number = kind is float or kind is int or kind is bool
    if storage.value is not None or not (is_number or isinstance(value, TensorBase)):
        return False
    seen = _indexed(tensor, index)
    if seen is None:
        return False
    form, strides, offset = seen
    recorder = THREADS.recorder
    if _flows(tensor, (value,)) or not _is_in_reach(form, strides, value):
        return False
    if not _is_free(recorder, storage) or (tensor._counter is None and not MODE.inference):
        return False
    if not is_number and value._storage is storage:
        same = value._offset == offset and value._type == form and value._strides == strides
        if same:
            _count(tensor)
        return same
    if not _is_part(storage, form.size) or not (is_number or value._type == form):
        return False
    if not is_number and repeats_elements(form.shape, strides):
        return False
    waits = not is_number and value._storage.value is not None
    if waits or _is_read(storage):
        place = offset, form.shape, strides, value if is_number else None
        if not (_is_speck(storage, form.size) or moves(_key(storage), place, MOST_PLACES)):
            return False
        recorder.flush("")
        if _is_read(storage):
            return False
    with recorder.lock:
        given = held_number(value, form.dtype) if is_number else _elements(value)  # type: ignore[arg-type]
        if not storage.realise().writeable:
            return False
        _store(recorder, tensor, form.shape, strides, offset, given)
    return True


def goes_at_once(target: TensorBase, operands: Sequence[object]) -> bool:
    """Whether what an operation in place gives for a view is to be stored at once, by all that is known before."""
    storage, size = target._storage, target._type.size
    if storage.value is not None or not _is_part(storage, size) or not _is_free(THREADS.recorder, storage):
        return False
    if not _is_in_reach(target._type, target._strides, 0):
        return False
    return not _flows(target, operands) and (_is_speck(storage, size) or _writes_many_places(target, None))


def _indexed(tensor: TensorBase, index: Any) -> tuple[TensorType, tuple[int, ...], int] | None:
    """The type, strides and offset of what integers and slices show of `tensor`; None for other indices, and those that
    are wrong.
    """
    items = index if type(index) is tuple else (index,)
    form, offset, rank = tensor._type, tensor._offset, len(items)
    if rank > len(form.shape):
        return None
    shape, strides = list[int](), list[int]()
    for item, n, stride in zip(items, form.shape, tensor._strides, strict=False):
        if type(item) is int and -n <= item < n:
            offset += (item + n if item < 0 else item) * stride
        elif type(item) is slice and all(bound is None or type(bound) is int for bound in (item.start, item.stop)):
            first, last, _ = item.indices(n)
            if item.step is not None or last < first:
                return None
            shape.append(last - first)
            strides.append(stride)
            offset += first * stride
        else:
            return None
    seen = form.with_shape((*shape, *form.shape[rank:]))
    return seen, (*strides, *tensor._strides[rank:]), offset


def _is_part(storage: Storage, size: int) -> bool:
    """Whether so many elements are few, of memory."""
    type = storage.type
    return size * SHARE <= type.size or size * type.dtype.itemsize <= SMALL


def _is_in_reach(type: TensorType, strides: Sequence[int], value: Number | TensorBase) -> bool:
    """Whether the host writes a part: one of the memory of a device in few pieces, small ones if it brings a number, of
    what lies in one piece.
    """
    if type.device == "cpu":
        return True
    if pieces(type.shape, strides, 0, type.dtype.itemsize) is None:
        return False
    if not isinstance(value, TensorBase):
        return type.nbytes <= BROUGHT
    return value._type.shape == type.shape and is_contiguous(value._type.shape, value._strides)


def _elements(tensor: TensorBase) -> Any:
    """An array of the elements of a tensor of the CPU; of another device the memory that they lie in."""
    type = tensor._type
    if type.device == "cpu":
        return tensor._array()
    return part(tensor._storage.realise(), tensor._offset * type.dtype.itemsize, type.nbytes)


def _flows(target: TensorBase, operands: Sequence[object]) -> bool:
    """Whether gradients flow through a write of what is made of `operands`."""
    lineage = target._lineage
    return MODE.enabled and (
        lineage.requires_grad
        or lineage.hist is not None
        or any(isinstance(each, TensorBase) and each.requires_grad for each in operands)
    )


def _is_speck(storage: Storage, size: int) -> bool:
    """Whether so many elements are next to nothing of large memory."""
    return storage.type.nbytes >= LARGE and size * SPECK <= storage.type.size


def _is_free(recorder: Recorder, storage: Storage) -> bool:
    """Whether what is done now is seen by nobody who records."""
    return recorder.capture is None and recorder.example_since is None and storage.recorder is recorder


def _number(source: TensorBase) -> Number | None:
    """The number that a recorded constant is."""
    value = source._storage.value if not source._chain else None  # a view may show its bits
    return value.node.attr("value") if value is not None and value.node.op == "constant" else None  # type: ignore[return-value]


def _is_number(storage: Storage) -> bool:
    """Whether the memory is to hold one number everywhere."""
    value = storage.value
    return value is not None and value.node.op == "constant" and not value.grad and value.gate is None


def _writes_many_places(target: TensorBase, number: Number | None) -> bool:
    """Whether the call writes one place, or one number, after the other."""
    place = target._offset, target._type.shape, target._strides, number
    return moves(_key(target._storage), place, MOST_PLACES)


def _key(storage: Storage) -> TensorType:
    """What the places are of that a call writes."""
    return storage.type


def _is_read(storage: Storage) -> bool:
    """Whether something recorded reads the memory later, and it is too large to be copied for that. A leaf that waits
    for the next program is let go first, as for every write.
    """
    storage.kept = None
    if storage.type.nbytes <= COPIED:
        return False
    slots = storage.slots.values() if storage.slots is not None else ()
    return any(held is not None and held() is not None for held in (storage.slot, *slots))


def _store(
    recorder: Recorder,
    tensor: TensorBase,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    values: Any,
) -> None:
    """Write a part of the memory of `tensor`, which then nobody else holds but NumPy, which is to see it."""
    storage, type = tensor._storage, tensor._type
    recorder.part_from(storage.buffer)
    storage.slot = storage.slots = storage.kept = None
    buffer = storage.buffer
    assert buffer is not None
    mine = sys.getrefcount(buffer) == ALONE and buffer.of_pool and (type.device == "cpu" or _is_streams(buffer))
    if not mine and not storage.is_exported:
        storage.buffer = buffer = buffer.copy()
    if type.device == "cpu":
        laid_out(buffer.array, type.with_shape(shape), strides, offset)[...] = values
    else:
        _store_there(buffer, type.with_shape(shape), strides, offset, values)
    storage.version += 1
    recorder.counted()
    _count(tensor)


def _is_streams(buffer: DeviceBuffer) -> bool:
    """Whether no stream but the current one has to do with it."""
    return buffer.stream is buffer.device.current_stream and not buffer.is_shared


def _store_there(buffer: DeviceBuffer, type: TensorType, strides: Sequence[int], offset: int, values: Any) -> None:
    """Write a part of the memory of a device: numbers, or what lies in memory there."""
    size = type.dtype.itemsize
    found = pieces(type.shape, strides, offset, size)
    assert found is not None
    if isinstance(values, (bool, int, float)):
        values = Buffer.from_array(np.full(type.shape, values, type.dtype.numpy))
    write_pieces(buffer, found, size, values)


def _count(tensor: TensorBase) -> None:
    """A write that PyTorch counts."""
    TOUCHED[0] += 1
    if tensor._counter is not None:
        tensor._counter[0] += 1
