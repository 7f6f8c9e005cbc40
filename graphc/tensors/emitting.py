"""What the functions of operators emit, which is remembered, and Python numbers that change from call to call.

The numbers that such a function closes over are constants of the program. Where a call has new ones in one program
after the other, as a noise that gets weaker has, each program would be another one: then those that change are read at
run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import CodeType, FunctionType

import numpy as np

from graphc.dtypes import default_ir
from graphc.interpreting import MOST_VARIANTS
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, f32
from graphc.promotion import Number
from graphc.recording import THREADS, Recorder
from graphc.storage import Binding, Value
from graphc.tensors.halves import HALVES, Emit, rounded_once
from graphc_runtime.buffer import Buffer

Keep = Value | Binding

MOST_CHANGES = MOST_VARIANTS  # programs in which a call had new numbers: from then on they are read at run time
_MOST_PLACES = 20_000
_MOST_VALUES = 1024  # that are known of one call


@dataclass(slots=True)
class ClosedOver:
    """The numbers of one function, called at one line: which sets of them it closed over, in how many programs there
    was a new one, and which was the last of these. `constants` are those of what it emitted, None where they changed.
    """

    values: set[tuple[object, ...]] = field(default_factory=set)
    changes: int = 0
    turn: int = -1
    constants: list[float | None] | None = None


def emitted(
    b: Builder,
    emit: Emit,
    nodes: Sequence[Node],
    operands: Sequence[Node],
    steady: bool,
    parents: list[Keep],
) -> Node:
    """What `emit(b, *nodes)` makes, rounded once; `nodes` were made from `operands`. It is remembered for a function
    that depends on nothing else but the default dtype: one that is `steady`, or one whose closure, if it has any, holds
    nothing that can change. What it reads at run time is added to `parents`.
    """
    known = (emit,) if steady else _identity(emit) if type(emit) is FunctionType else None
    if known is None:
        return rounded_once(b, emit(b, *nodes), operands)
    key = (*known, default_ir(), *nodes, None, *operands)
    node = b.made(key)
    if node is not None:
        return node
    numbers = None if steady else _numbers(THREADS.recorder, b, known)
    if numbers is None:
        return b.keep(key, rounded_once(b, emit(b, *nodes), operands))
    made = rounded_once(b, _emitted_with(numbers, THREADS.recorder, b, emit, nodes, parents), operands)
    # What reads numbers at run time reads memory of this call.
    return made if numbers.changes > MOST_CHANGES else b.keep(key, made)


def _numbers(recorder: Recorder, b: Builder, known: tuple[object, ...]) -> ClosedOver | None:
    """What is known of the numbers that a function closes over; None where it has none, or where they are constants."""
    form, floats = _without_floats(known)
    if not floats or recorder.capture is not None or recorder.b is not b:
        return None
    if len(recorder.closures) > _MOST_PLACES:
        recorder.closures.clear()
    numbers: ClosedOver = recorder.closures.setdefault((form, b.locs), ClosedOver())
    if floats not in numbers.values:
        if len(numbers.values) >= _MOST_VALUES:
            numbers.values.clear()
        numbers.values.add(floats)
        if numbers.turn != recorder.turn:
            numbers.turn = recorder.turn
            numbers.changes += 1
    return numbers


def _without_floats(known: tuple[object, ...]) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """An identity without the values of floats, and these."""
    form: list[object] = []
    floats: list[object] = []
    for part in known:
        if type(part) is tuple and part and type(part[0]) is int and part[0] in _codes:
            inner, found = _without_floats(part)
            form.append(inner)
            floats += found
        elif form and form[-1] is float:
            form[-1] = None
            floats.append(part)
        else:
            form.append(part)
    return tuple(form), tuple(floats)


def _emitted_with(
    numbers: ClosedOver, recorder: Recorder, b: Builder, emit: Emit, nodes: Sequence[Node], parents: list[Keep]
) -> Node:
    """What `emit` makes. It is seen which of its constants change, which are read at run time if they often do."""
    found: list[float | None] = []
    before = numbers.constants
    are_read = numbers.changes > MOST_CHANGES

    def number(value: Number, type: TensorType) -> Node | None:
        place = len(found)
        was = value if before is None else before[place] if place < len(before) else None
        changes = was is None or float(was).hex() != float(value).hex()
        found.append(None if changes else value)
        return run_time_number(recorder, value, type, parents) if changes and are_read else None

    b.numbers = number
    try:
        return emit(b, *nodes)
    finally:
        b.numbers = None
        numbers.constants = found


def run_time_number(
    recorder: Recorder, value: Number, type: TensorType, parents: list[Keep], number: object = None
) -> Node:
    """`value` as a tensor of `type`, which the program reads when it runs. `number` is the argument that it is, where
    all others of that Python type are recorded in the same way.
    """
    held = f32 if type.dtype in HALVES else type.dtype  # PyTorch computes with the number as f32 holds it
    binding = recorder.bind(Buffer.from_array(np.array(value).astype(held.numpy)), TensorType(held, ()), None)
    if recorder.own is not None:
        recorder.own.append((number if held is type.dtype else None, binding))
    parents.append(binding)
    node = binding.node if type.device == "cpu" else recorder.b.transfer(binding.node, type.device)
    node = recorder.b.broadcast(node, type.shape)
    return node if held is type.dtype else recorder.b.cast(node, type.dtype)


# Code objects by their identity, which they keep as they are held: comparing and hashing them is slow.
_codes: dict[int, CodeType] = {}
_FIXED = frozenset((int, bool, str, type(None), DType, TensorType))
_WHOLE = frozenset((int,))


def _identity(function: FunctionType) -> tuple[object, ...] | None:
    """What tells `function` from others: its code, as each call makes a new object of it, and what its closure holds.
    None when that can change, or is not known to be fixed.
    """
    code = function.__code__
    if function.__defaults__ is not None or function.__kwdefaults__ is not None:
        return None
    if code.co_freevars:
        found: list[object] = [id(_codes.setdefault(id(code), code))]
        for cell in function.__closure__ or ():
            value = cell.cell_contents
            kind = value.__class__
            if kind is tuple:
                if not _WHOLE.issuperset(map(type, value)):
                    return None
            elif kind is float:
                value = value.hex()
            elif kind is FunctionType:
                value = _identity(value)
                if value is None:
                    return None
            elif kind not in _FIXED:
                return None
            found.append(kind)
            found.append(value)
        return tuple(found)
    return (id(_codes.setdefault(id(code), code)),)
