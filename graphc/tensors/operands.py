"""Operands of arithmetic: tensors and Python numbers brought to one dtype and shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import CodeType
from typing import TYPE_CHECKING

import numpy as np

from graphc.devices import common_device
from graphc.dtypes import default_ir
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, broadcast_shapes
from graphc.promotion import Number, result_type
from graphc.recording import Recorder, current
from graphc.source import call_site
from graphc.tensors.core import Keep, TensorBase, finish, read, read_all, record, wants_grad
from graphc.tensors.emitting import emitted, run_time_number

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

NUMBERS = (int, float, np.integer, np.floating, np.bool_)

_MOST_SITES = 20_000
_MOST_VALUES = 64  # that a number takes in turn, to be one of the program's again
_CALM = 256  # times in one program with another of the same call, without a new value, after which it is
_MOST_TURNS = 64  # programs that begin with another value than the one before ended with: then it never is again

# What a number at a call is: a constant, read at run time now, always.
CONSTANT, CHANGING, ALWAYS = range(3)


def is_number(value: object) -> bool:
    """Whether `value` is a Python or NumPy number."""
    return isinstance(value, NUMBERS)


def plain(value: object) -> Number:
    """A NumPy number as a Python number."""
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[return-value]


class Site:
    """A Python number at a call: which values it took (None: too many, or another one after they were thought to be
    all), how often one of them came again in the same program, which program that was, and how many programs came
    after others.
    """

    __slots__ = ("again", "code", "turn", "turns", "values")

    def __init__(self, code: CodeType, value: Number, turn: int) -> None:
        self.code = code
        self.values: set[tuple[type, Number]] | None = {(type(value), value)}
        self.again = 0
        self.turn = turn
        self.turns = 0


def changes_here(recorder: Recorder, value: Number, role: str) -> int:
    """Whether the call that reached this operator was seen with another number than `value` in this role: CONSTANT,
    CHANGING or ALWAYS.

    Such a number is then read at run time, so that a changing number compiles at most twice. Where it goes through the
    same few values again and again within one program, as the number of a loop's turn does, they are constants.
    """
    if recorder.capture is not None:
        return CONSTANT
    sites = recorder.sites
    code, place = call_site(3)  # past `number_node`
    # By the identity of the code object, which is kept: comparing and hashing code objects is slow.
    key = id(code), place, role
    site = sites.get(key)
    if site is None:
        if len(sites) > _MOST_SITES:
            sites.clear()
        sites[key] = Site(code, value, recorder.turn)
        return CONSTANT
    values, number = site.values, (type(value), value)
    if values is None:
        return ALWAYS
    if number in values:
        if len(values) == 1 or site.again >= _CALM:
            return CONSTANT
        if site.turn == recorder.turn:
            site.again += 1
            if site.again == _CALM:
                recorder.repeats.clear()
        else:
            _count_turn(recorder, site)
        return CHANGING
    if value != value:
        return CHANGING if len(values) > 1 else CONSTANT
    if len(values) == 1 or site.again >= _CALM:
        recorder.repeats.clear()
    values.add(number)
    if site.again >= _CALM or len(values) > _MOST_VALUES:
        site.values = None
    site.again = 0
    _count_turn(recorder, site)
    return CHANGING


def _count_turn(recorder: Recorder, site: Site) -> None:
    if site.turn != recorder.turn:
        site.turn = recorder.turn
        site.turns += 1
        if site.turns > _MOST_TURNS:
            site.values = None


def number_node(
    recorder: Recorder, value: Number, type: TensorType, role: str, parents: list[Keep], is_any: bool = False
) -> Node:
    """`value` as a tensor of `type`: a constant, or, where the call site's number changes, a run-time scalar. `is_any`:
    the operation does the same for all numbers of this Python type.
    """
    found = changes_here(recorder, value, role)
    if found != CONSTANT:
        return run_time_number(recorder, value, type, parents, value if is_any and found == ALWAYS else None)
    return recorder.b.constant(fit(value, type.dtype), type)


def fit(value: Number, dtype: DType) -> Number:
    """`value` as the element of `dtype` would hold it: integers wrap around."""
    if dtype.kind in ("int", "uint"):
        info = np.iinfo(dtype.numpy)
        whole = int(value)
        return whole if info.min <= whole <= info.max else (whole - int(info.min)) % (1 << dtype.bits) + int(info.min)
    return value


Emit = Callable[..., Node]

Common = tuple[DType, tuple[int, ...]]

# Common dtype and shape, the device, and whether some operands lie elsewhere.
_decided: dict[tuple[object, ...], tuple[Common, str, bool]] = {}


def common(operands: Sequence[object]) -> Common:
    """The common dtype and shape of tensors and numbers; remembered by their types. RuntimeError for tensors of several
    devices.
    """
    return _decision(operands)[0]


def _decision(operands: Sequence[object]) -> tuple[Common, str, bool]:
    key: tuple[object, ...] = (
        default_ir(),
        *[(o._type, o._wrapped) if isinstance(o, TensorBase) else o.__class__ for o in operands],
    )
    found = _decided.get(key)
    if found is None:
        if len(_decided) > _MOST_SITES:
            _decided.clear()
        found = _decided[key] = _decide(operands)
    return found


def _decide(operands: Sequence[object]) -> tuple[Common, str, bool]:
    types: list[tuple[DType, int]] = []
    numbers: list[Number] = []
    shapes: list[tuple[int, ...]] = []
    for operand in operands:
        if isinstance(operand, TensorBase):
            type = operand._type
            shapes.append(type.shape)
            if operand._wrapped:
                numbers.append(0.0 if type.dtype.is_float else 0)
            else:
                types.append((type.dtype, len(type.shape)))
        else:
            numbers.append(plain(operand))
    given = [o._type for o in operands if isinstance(o, TensorBase)]
    device = common_device(given)
    mixed = any(type.device != device for type in given)
    return (result_type(types, numbers), broadcast_shapes(*shapes)), device, mixed


def combine(
    name: str,
    operands: Sequence[object],
    emit: Emit,
    dtype: DType | None = None,
    masks: Sequence[TensorBase] = (),
    steady: bool = False,
    is_any: bool = False,
) -> Tensor:
    """Record `emit(b, *masks, *operands)` over nodes brought to one shape; operands to `dtype` (their common one by
    default). `steady` as `record`'s, `is_any` as `number_node`'s.
    """
    if len(operands) == 2 and not masks:
        x, y = operands
        if isinstance(x, TensorBase) and isinstance(y, TensorBase) and x._type is y._type and dtype is None:
            return record(name, (x, y), emit, steady)
    (found, shape), device, mixed = _decision(operands)
    if masks:
        shape = broadcast_shapes(shape, *(m._type.shape for m in masks))
        for mask in masks:
            if mask._type.device != device:
                device = common_device([o._type for o in (*masks, *operands) if isinstance(o, TensorBase)])
                mixed = True
    dtype = dtype or found
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad([o for o in operands if isinstance(o, TensorBase)])
        type = TensorType(dtype, shape, device)
        nodes: list[Node] = []
        sources: list[Node] = []
        parents: list[Keep] = []
        for mask in masks:
            node, keep = read(recorder, mask, False)
            parents.append(keep)
            nodes.append(b.broadcast(b.transfer(node, device) if mixed else node, shape))
        reads = iter(read_all(recorder, [o for o in operands if isinstance(o, TensorBase)], grad))
        for place, operand in enumerate(operands):
            if isinstance(operand, TensorBase):
                node, keep = next(reads)
                parents.append(keep)
                sources.append(node)
                if mixed:
                    node = b.transfer(node, device)
                if node.type.dtype is not dtype:
                    node = b.cast(node, dtype)
                nodes.append(node if node.type.shape == shape else b.broadcast(node, shape))
            else:
                nodes.append(number_node(recorder, plain(operand), type, f"{name}{place}", parents, is_any))
        made = emitted(b, emit, nodes, sources, steady, parents)
        return finish(recorder, made, tuple(parents), name, grad, sources, True)
