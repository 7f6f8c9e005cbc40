"""Memory of values on any device: made, moved, and looked at from the host.

On the CPU a value is a `Buffer`. On other devices it is the runtime's `DeviceBuffer`, which the host sees by copies.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc_runtime.buffer import Buffer, window
from graphc_runtime.devices import get_device
from graphc_runtime.devices.cuda_memory import DeviceBuffer
from graphc_runtime.pool import POOL

AnyBuffer = Any  # a Buffer, or a DeviceBuffer
# Values of at most so many bytes go to a device together, in one copy; their places there are aligned as buffers are.
_SMALL = 4096
_ALIGNMENT = 256
TOGETHER = "small values that came from the host together"
# Bytes of one value again and again that are brought to a device, which copies them on.
_BROUGHT = 1 << 20
# Copies by which elements of the memory of a device are read or written, and bytes between their rows.
MOST_PIECES, MOST_PITCH = 16, (1 << 31) - 1
# Where page-locked memory begins and ends that the user lets a device read when it gets there, until the next flush.
LATE: set[tuple[int, int]] = set()
# Values of at most so many bytes are compared by copies of them.
_COPIED = 1 << 15
# Values of at least so many bytes lie in memory that begins with a cache line.
_LINED = 1 << 14


def _count(holder: list[object]) -> int:
    held = holder[0]
    return sys.getrefcount(held)


# References that `sys.getrefcount` sees of an object that one place and one local variable hold.
ALONE = _count([object()])


def driven(name: str) -> Any:
    """The runtime's object for a device that the host drives."""
    return get_device(name)


def bytes_of(buffer: AnyBuffer) -> np.ndarray:
    """The contents as a flat uint8 array: the memory itself on the CPU, else a copy."""
    return buffer.array if type(buffer) is Buffer else buffer.to_host().array


def values_of(buffer: AnyBuffer, type: TensorType) -> np.ndarray:
    """`bytes_of` as an array of `type`."""
    memory: Any = window(buffer) if isinstance(buffer, Buffer) and buffer.of_pool else bytes_of(buffer)
    return np.ndarray(type.shape, type.dtype.numpy, memory)


def allocate_all(device: str, types: Sequence[TensorType]) -> list[AnyBuffer]:
    """Memory with arbitrary contents for values of `types`, all on `device`."""
    sizes = [type.nbytes for type in types]
    return Buffer.allocate_all(sizes, types) if device == "cpu" else driven(device).allocate_all(sizes, types)


def purpose_of(node: Node) -> str:
    """What memory is for that holds the node's value: its type, and the user's lines that made it."""
    lines = ", ".join(sorted(map(str, node.locs)))
    return f"{node.type} ({lines})" if lines else str(node.type)


def from_host(array: np.ndarray, device: str, what: object = "") -> AnyBuffer:
    """The contents of a C-contiguous array in memory of `device`; on the CPU the array's own memory. `what` says what
    it is for where memory is short.
    """
    buffer = Buffer.from_array(array)
    return buffer if device == "cpu" else driven(device).upload(buffer, what)


def copied(array: np.ndarray, type: TensorType) -> AnyBuffer:
    """Memory with the elements of `array`, which has the shape of `type`, converted to its dtype. Large memory on the
    CPU begins with a cache line, which that of NumPy does not: vectors that reach over two lines are read twice.
    """
    if type.device != "cpu" or type.nbytes < _LINED:
        return from_host(np.array(array, type.dtype.numpy, order="C", copy=True), type.device)
    (made,) = allocate_all(type.device, (type,))
    np.copyto(values_of(made, type), array, casting="unsafe")
    return made


def constant(node: Node) -> AnyBuffer:
    """Memory of a constant."""
    return filled(node.attr("value"), node.type, purpose_of(node))


def filled(value: Any, type: TensorType, what: object = "") -> AnyBuffer:
    """Memory of a value of `type` with all elements equal."""
    if type.device != "cpu":
        return _filled_there(np.full((), value, type.dtype.numpy), type, what or type)
    different = set() if type.nbytes < _LINED else set(np.full((), value, type.dtype.numpy).tobytes())
    if len(different) != 1:
        return from_host(np.full(type.shape, value, type.dtype.numpy), "cpu")
    (byte,) = different
    (made,) = allocate_all("cpu", (type,))
    POOL.fill(made.ptr, byte, made.nbytes)
    return made


def _filled_there(value: np.ndarray, type: TensorType, what: object) -> AnyBuffer:
    """Memory of another device full of `value`: what is not one byte again and again is brought once, and doubled."""
    device = driven(type.device)
    made = device.allocate(type.nbytes, what)
    if not type.size:
        return made
    stream, different = device.current_stream.handle, set(value.tobytes())
    if len(different) == 1:
        device.call(device.driver.fill, made.ptr, different.pop(), type.nbytes, stream)
        return made
    there = min(type.nbytes, _BROUGHT)
    device.write(part(made, 0, there), Buffer.from_array(np.full(there // type.dtype.itemsize, value)))
    while there < type.nbytes:
        count = min(there, type.nbytes - there)
        device.call(device.driver.copy, made.ptr + there, made.ptr, count, stream)
        there += count
    return made


def moved(buffer: AnyBuffer, device: str, what: object = "") -> AnyBuffer:
    """A copy of the contents in memory of `device`."""
    if device == "cpu":
        return buffer.copy() if type(buffer) is Buffer else buffer.to_host()
    target = driven(device)
    return target.upload(buffer, what, _is_late(buffer)) if type(buffer) is Buffer else target.duplicate(buffer, what)


def _is_late(buffer: Buffer) -> bool:
    end = buffer.ptr + buffer.nbytes
    return any(start <= buffer.ptr and end <= last for start, last in tuple(LATE))  # other threads change it


def moved_all(buffers: Sequence[AnyBuffer], device: str, what: Sequence[object]) -> list[AnyBuffer]:
    """`moved` for each of them. Small values of the host travel together."""
    places = [i for i, b in enumerate(buffers) if type(b) is Buffer and b.nbytes <= _SMALL]
    if device == "cpu" or len(places) < 2:
        return [moved(b, device, purpose) for b, purpose in zip(buffers, what, strict=True)]
    parts = packed_places([buffers[i].nbytes for i in places])
    packed = np.zeros(sum(parts[-1]), np.uint8)
    for i, (start, nbytes) in zip(places, parts, strict=True):
        packed[start : start + nbytes] = buffers[i].array
    whole = from_host(packed, device, TOGETHER)
    small = {i: part(whole, *place) for i, place in zip(places, parts, strict=True)}
    return [small[i] if i in small else moved(b, device, what[i]) for i, b in enumerate(buffers)]


def packed_places(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Where buffers of so many bytes lie in one that holds them all: start and size of each."""
    steps = [-(-nbytes // _ALIGNMENT) * _ALIGNMENT for nbytes in sizes]
    return list(zip(accumulate(steps[:-1], initial=0), sizes, strict=True))


def part(buffer: AnyBuffer, start: int, nbytes: int) -> AnyBuffer:
    """A part of a buffer, in bytes, that shares its memory."""
    if type(buffer) is Buffer:
        return buffer.part(start, nbytes)
    return DeviceBuffer.from_address(buffer.ptr + start, nbytes, buffer.device, buffer)


class Pieces(NamedTuple):
    """Elements of a memory in row-major order: from each of `starts` on so many `rows` of `inner` elements, which begin
    `pitch` elements after each other.
    """

    starts: list[int]
    rows: int
    pitch: int
    inner: int


def pieces(shape: Sequence[int], strides: Sequence[int], offset: int, itemsize: int) -> Pieces | None:
    """How elements of a memory lie there; None where they are too many pieces to be copied one by one."""
    inner, outer = 1, len(shape)
    while outer and (shape[outer - 1] == 1 or strides[outer - 1] == inner):
        outer -= 1
        inner *= shape[outer]
    rows, pitch = 1, inner
    if outer and strides[outer - 1] > inner:
        outer -= 1
        rows, pitch = shape[outer], strides[outer]
        while outer and (shape[outer - 1] == 1 or strides[outer - 1] == rows * pitch):
            outer -= 1
            rows *= shape[outer]
    if math.prod(shape[:outer]) > MOST_PIECES or pitch * itemsize > MOST_PITCH:
        return None
    starts = [offset]
    for n, stride in zip(shape[:outer], strides[:outer], strict=True):
        starts = [start + i * stride for start in starts for i in range(n)]
    return Pieces(starts, rows, pitch, inner)


def write_pieces(target: DeviceBuffer, places: Pieces, itemsize: int, source: AnyBuffer) -> None:
    """Write elements that lie one after the other, on the same device or on the host, where they are to lie."""
    device, nbytes = target.device, places.inner * itemsize
    is_hosts = type(source) is Buffer
    if is_hosts and len(places.starts) == places.rows == 1:
        device.write(part(target, places.starts[0] * itemsize, nbytes), source)
        return
    given: AnyBuffer = device.upload(source, "what is written into a part") if is_hosts else source
    for i, start in enumerate(places.starts):
        rows = (target, start * itemsize, places.pitch * itemsize), (given, i * places.rows * nbytes, nbytes)
        device.assign_rows(*rows, nbytes, places.rows)


def read_pieces(source: DeviceBuffer, places: Pieces, type: TensorType) -> DeviceBuffer:
    """A copy of elements of a memory, one after the other."""
    device, itemsize = source.device, type.dtype.itemsize
    target, nbytes = device.allocate(type.nbytes, type), places.inner * itemsize
    for i, start in enumerate(places.starts):
        rows = (target, i * places.rows * nbytes, nbytes), (source, start * itemsize, places.pitch * itemsize)
        device.assign_rows(*rows, nbytes, places.rows)
    return target


def cut(buffer: AnyBuffer, type: TensorType, axis: int, first: int, size: int) -> AnyBuffer:
    """Some elements along an axis of a value of `type`: a part of its memory if they lie in one piece, else a copy."""
    part_type = type.with_shape((*type.shape[:axis], size, *type.shape[axis + 1 :]))
    start = first * type.strides[axis]
    if math.prod(type.shape[:axis]) == 1:
        return part(buffer, start * type.dtype.itemsize, part_type.nbytes)
    if type.device == "cpu":
        return from_host(np.ascontiguousarray(values_of(buffer, type)[_along(axis, first, size)]), "cpu")
    found = pieces(part_type.shape, type.strides, start, type.dtype.itemsize)
    assert found is not None  # rows, one after the other
    return read_pieces(buffer, found, part_type)


def put(target: AnyBuffer, type: TensorType, axis: int, first: int, source: AnyBuffer, size: int) -> None:
    """Write some elements along an axis of a value of `type`, which lie one after the other in `source`."""
    part_type = type.with_shape((*type.shape[:axis], size, *type.shape[axis + 1 :]))
    if type.device == "cpu":
        values_of(target, type)[_along(axis, first, size)] = values_of(source, part_type)
        return
    itemsize = type.dtype.itemsize
    found = pieces(part_type.shape, type.strides, first * type.strides[axis], itemsize)
    assert found is not None
    write_pieces(target, found, itemsize, source)


def _along(axis: int, first: int, size: int) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, slice(first, first + size))


def copy_into(target: AnyBuffer, source: AnyBuffer) -> None:
    """Let `target` hold the contents of `source`, which has its size and device."""
    if type(target) is Buffer:
        np.copyto(target.array, source.array)
    else:
        target.device.assign(target, source)


def equal(a: AnyBuffer, b: AnyBuffer) -> bool:
    """Whether two buffers hold the same bytes."""
    if a is b:
        return True
    first, second = bytes_of(a), bytes_of(b)
    if first.nbytes <= _COPIED:  # `array_equal` alone takes 5 us
        return first.tobytes() == second.tobytes()
    return bool(np.array_equal(first, second))
