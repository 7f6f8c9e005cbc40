"""What libraries over tensors need of the recorder: numbers that programs read at run time, and repeated updates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphc import dtypes
from graphc.counting import FRONT
from graphc.devices import use_device
from graphc.grad_mode import MODE
from graphc.ir.types import TensorType, f64
from graphc.loss_reduction import check_values
from graphc.memory import filled
from graphc.recording import Recorder, current
from graphc.tensors.core import from_buffer
from graphc.tensors.core import read as read_node
from graphc.tensors.writing import write_node
from graphc_runtime.buffer import Buffer

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def runtime_scalar(value: float | Callable[[], float], dtype: Any = None) -> Tensor:
    """A number as a 0-d tensor that programs read at run time: another value needs no other program.

    `value` may be a function; `graphc.compile` calls it again at each replay. Without `dtype` the result takes part
    in type promotion as a Python number does.
    """
    number = value() if callable(value) else value
    wanted = f64 if dtype is None else dtypes.to_ir(dtype)
    made = from_buffer(Buffer.from_array(np.array(number, wanted.numpy)), TensorType(wanted, ()))
    made._wrapped = dtype is None
    if callable(value):
        made._storage.origin = value
    return made


class RuntimeScalars:
    """Run-time values that code reads again and again in the same order. One that is the number that it was the last
    time is the same tensor: what is recorded with it is known sooner.
    """

    __slots__ = ("_known", "_place")

    def __init__(self) -> None:
        self._known: list[tuple[float, Tensor]] = []
        self._place = 0

    def begin(self) -> None:
        """The next number is the first one again."""
        self._place = 0

    def scalar(self, compute: Callable[[], float]) -> Tensor:
        """`runtime_scalar(compute)`."""
        if current().capture is not None:
            return runtime_scalar(compute)
        value, place = compute(), self._place
        self._place = place + 1
        if place < len(self._known):
            known, made = self._known[place]
            if type(value) in (float, int) and known == value:
                return made
            del self._known[place]
        made = runtime_scalar(value)
        self._known.insert(place, (value, made))
        return made


def state_zeros(like: Tensor, value: float = 0, device: Any = None) -> Tensor:
    """Zeros (or `value`) of the shape and dtype of `like`, on its device unless another is named, that outlive the step
    that makes them, such as an optimizer's state.

    To a captured call they are memory that was there before it, so the call that makes them is captured like any other.
    """
    recorder, type = current(), like._type
    if device is not None:
        type = type.on(use_device(device))
    made = from_buffer(filled(value, type), type)
    if recorder.capture is not None:
        made._storage.serial = 0
    return made


def check(holds: Tensor, error: Exception) -> None:
    """Raise `error`, when somebody looks at a value, unless all elements of `holds` (bool) are true."""
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        node, keep = read_node(recorder, holds, False)
        check_values(recorder, b.apply("bitwise_not", (node,)), keep, error)


class Update(NamedTuple):
    """`run` changes the tensors `written` in place, by what it reads of them, of `read`, and of numbers that updates
    given together share; it does nothing else.
    """

    written: Sequence[Tensor]
    read: Sequence[Tensor]
    run: Callable[[], None]


@contextmanager
def step_apart() -> Iterator[None]:
    """What is recorded inside, a step of an optimizer, is a program of its own where that pays (`graphc.apart`)."""
    recorder = current()
    if not recorder.apart.is_now or recorder.capture is not None:
        yield
        return
    before = FRONT.program_hits
    recorder.flush("")
    recorder.apart.computed(FRONT.program_hits > before)
    yield
    recorder.flush("")


_TOGETHER = 16  # updates: few enough that the work that passes a bound is not among what they record


def update(key: tuple[Any, ...], updates: Sequence[Update], numbers: Sequence[Tensor]) -> None:
    """Run the updates. What they record is remembered under `key`, which tells what else they depend on: repeated on
    the same operands, as in every step of a training loop, only the results are noted.
    """
    recorder = current()
    if MODE.enabled or recorder.capture is not None or not all(map(_is_plain, updates)):
        for one in updates:
            one.run()
        return
    with recorder.lock:
        for start in range(0, len(updates), _TOGETHER):
            _repeat(recorder, key, updates[start : start + _TOGETHER], numbers)


def _is_plain(one: Update) -> bool:
    return all(not t._chain and t._counter is not None and t._lineage.hist is None for t in one.written)


def _repeat(recorder: Recorder, key: tuple[Any, ...], updates: Sequence[Update], numbers: Sequence[Tensor]) -> None:
    builder = recorder.begin()
    written = [tensor for one in updates for tensor in one.written]
    read = [tensor for one in updates for tensor in one.read]
    pairs = [read_node(recorder, tensor, False) for tensor in (*written, *read, *numbers)]
    operands = (*key, len(written), len(read), dtypes.default_ir(), *[node for node, _ in pairs])
    nodes = recorder.updates.get(operands)
    recorder.apart.found(nodes is not None, recorder.turn)
    if nodes is not None:
        keeps = tuple([keep for _, keep in pairs])
        for place, node in nodes:
            write_node(recorder, written[place], node, keeps, "", False)
        return
    leaves, waiting = len(recorder.held), len(recorder.pending)
    recorder.updating = True
    try:
        for one in updates:
            one.run()
    finally:
        recorder.updating = False
    if len(recorder.held) != leaves:
        return  # they read more than they said, such as a Python number that changes from call to call
    storages = [tensor._storage for tensor in written]
    values = [s.value for s in storages if s.recorder is recorder and s.value is not None]
    if recorder.b is builder and len(values) == len(storages):  # else something was run in between
        # In the order in which they were written, so that what waits is the same program the next time.
        begun = {id(ref()): place for place, ref in enumerate(recorder.pending[waiting:])}
        order = sorted(range(len(storages)), key=lambda place: begun.get(id(storages[place]), -1))
        recorder.updates[operands] = tuple([(place, values[place].node) for place in order])


def runtime_choice(compute: Callable[[], Any]) -> Any:
    """What `compute` gives, for choosing which operations to record. `graphc.compile` captures anew when it gives
    something else.
    """
    value = compute()
    capture = current().capture
    if capture is not None:
        capture.guards.append((compute, value))
    return value
