"""How native code records again what a call recorded: its values, the tensors that it gave, what it wrote in place.

A call is followed back from what it gave or wrote to values that were there before it, which must be those of the
arguments.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from graphc.errors import GraphcError
from graphc.ir.node import Node
from graphc.late_checks import Report
from graphc.recording import Check, Recorder
from graphc.repeats import (
    EARLIER,
    MOST_VALUES,
    NO_WRITES,
    OWN_WRITES,
    RECIPE,
    RECIPE_HEAD,
    RECIPE_ROOM,
    RECIPE_VALUES,
    RECORDED,
    VALUE,
    WHOLE,
    WRITTEN,
)
from graphc.storage import Binding, Value
from graphc.tensors.core import TensorBase, result_class

_MOST_PARENTS = 8
_ONE = 0  # in place of what packs results: there is one, which is given as it is

Keep = Value | Binding


class Before(NamedTuple):
    """The tensors among the arguments before a call: their places, what a function may change of them, what their
    memory held, and a number above the serials of all values.
    """

    tensors: Sequence[Any]
    places: Sequence[int]
    about: Sequence[tuple[object, ...]]
    held: Sequence[tuple[int, int, int]]
    serial: int


class Traced(NamedTuple):
    """An entry, what must be kept for it, the numbers of the tensors that were read, in order, the nodes of the memory
    that was written, as the call read it, and whether it did.
    """

    made: dict[str, int]
    keep: tuple[object, ...]
    read: list[int]
    nodes: list[Node]
    reads_memory: bool


def about(tensor: TensorBase) -> tuple[object, ...]:
    """What a function may change of a tensor without recording anything; its history comes last."""
    lineage = tensor._lineage
    return (
        *(tensor._storage, type(tensor), tensor._type, tensor._strides, tensor._chain, tensor._offset, lineage),
        *(tensor._counter, tensor._root, tensor._grad, tensor._retains, tensor._fn, tensor._wrapped),
        *(lineage.requires_grad, lineage.depth, lineage.owner, lineage.hooks, lineage.hist, lineage.version),
    )


_HISTORY = 2  # as many of these tell of the history


def held(tensor: TensorBase) -> tuple[int, int, int]:
    """What the memory of a tensor holds, and how often it was written, in both ways to count."""
    storage, counter = tensor._storage, tensor._counter
    return id(storage.value), storage.version, -1 if counter is None else counter[0]


class _Write(NamedTuple):
    """A write: of which of the tensors (`number`), the value that its memory got, whether that is its history."""

    target: Any
    number: int
    value: Value
    flows: bool


def _write(before: Before, result: Any, recorder: Recorder) -> _Write | None:
    """The one write of a call that wrote one argument; None when native code cannot repeat it."""
    changed = [n for n, tensor in enumerate(before.tensors) if held(tensor)[1] != before.held[n][1]]
    if not changed:
        return None
    number = next((n for n in changed if before.tensors[n] is result), changed[0])
    target = before.tensors[number]
    storage, lineage, counter = target._storage, target._lineage, target._counter
    value = storage.value
    if value is None or value.counter is not counter or storage.recorder is not recorder:
        return None
    if any(before.tensors[n]._storage is not storage for n in changed):
        return None
    was, now = before.held[number], held(target)
    if now[1:] != (was[1] + 1, was[2] + (counter is not None)) or value.version != max(now[2], 0):
        return None
    flows = lineage.hist is value
    was, now = before.about[number], about(target)
    if was[:-_HISTORY] != now[:-_HISTORY] or lineage.hooks is not None:
        return None
    if flows:
        if target._chain or target._root is not None or lineage.depth or lineage.version != storage.version:
            return None
    elif was != now:
        return None
    return _Write(target, number, value, flows)


def rewritten(before: Before) -> set[int]:
    """The numbers of the tensors that show memory which a call wrote."""
    changed = [
        tensor._storage for tensor, was in zip(before.tensors, before.held, strict=True) if held(tensor)[1] != was[1]
    ]
    return {n for n, tensor in enumerate(before.tensors) if any(tensor._storage is storage for storage in changed)}


def trace(
    before: Before,
    result: Any,
    recorder: Recorder,
    checks: Sequence[Check],
    keeps: Sequence[Keep | None],
    apart: set[int],
    counted: tuple[int, int],
) -> Traced | None:
    """How native code repeats a call that gave `result`, after so many operations and bytes (`counted`); None when it
    cannot. `keeps` are those of the tensors that may have been read, but for those of memory that was written, `apart`.
    """
    write = _write(before, result, recorder) if apart else None
    if apart and (write is None or not (result is None or result is write.target)):
        return None
    for n, tensor in enumerate(before.tensors):
        # A leaf whose variable was read knows of what version that is.
        if not (write and tensor is write.target) and about(tensor)[:-1] != before.about[n][:-1]:
            return None
    results, packer = ([], _ONE) if write else _results(result)
    if not (write or results) or not all(_is_plain(one, recorder) for one in results):
        return None
    roots = [write.value] if write else [one._storage.value for one in results]
    values, olds = _fresh(roots, before.serial, {id(keep) for keep in keeps})
    single = not write and packer is _ONE and len(values) == counted[0] == 1
    if max(len(values), len(results)) > MOST_VALUES:
        return None
    codes = _codes(olds, keeps, before, write, apart)
    checked = _checked(checks, keeps)
    if codes is None or checked is None:
        return None
    counters = [*[old.counter for old in olds], *[tensor._counter for tensor in before.tensors]]
    lineages = [None, *[one._lineage for one in results], *([write.target._lineage] if write else [])]
    codes |= {id(value): EARLIER + place for place, value in enumerate(values)}
    words: list[int] = []
    keep: list[object] = [checked]
    for value in values:
        counts, through = _counts(value, write, counters), _through(value, keeps)
        lineage = value.lineage() if value.lineage is not None else None
        if counts is None or through is None or not (_is_bare(value) and any(lineage is one for one in lineages)):
            return None
        which = [codes[id(parent)] for parent in value.parents]
        words += _value_words(value, which, through, counts)
        keep += [value.name, through, value.replaced]
    numbers = [codes[id(old)] for old in olds]
    read = list(dict.fromkeys(number for number in numbers if number != WHOLE))
    nodes = [old.node for old, number in zip(olds, numbers, strict=True) if number in apart]
    reads_memory = bool(nodes) or WHOLE in numbers
    made = {"nbytes": counted[1], "checks": id(checked) if checked else 0}
    if single:
        made |= {**dict(zip(VALUE, words, strict=True)), "kind": RECORDED}
        made |= {"type": id(results[0]._type), "strides": id(results[0]._strides)}
        return Traced(made, tuple(keep), read, nodes, reads_memory)
    head = {"values": len(values), "records": counted[0], "results": len(results)}
    head["packer"] = 0 if packer is _ONE else id(packer)
    if write:
        head |= _write_words(write, before, apart, keep)
        head |= {"value": codes[id(write.value)] - EARLIER, "nothing": int(result is None)}
        head["whole"] = next((id(old.node) for old in olds if codes[id(old)] == WHOLE), 0)
    for one in results:
        words += [codes[id(one._storage.value)] - EARLIER, id(one._type), id(one._strides)]
    room = [0] * (RECIPE_VALUES - RECIPE_ROOM)
    everything = [*[head.get(name, 0) for name in RECIPE_HEAD], *room, *words]
    memory = (ctypes.c_uint64 * len(everything))(*everything)
    made |= {"kind": RECIPE, "recipe": ctypes.addressof(memory)}
    return Traced(made, (*keep, memory, packer), read, nodes, reads_memory)


def _results(result: Any) -> tuple[list[Any], object]:
    """The tensors that a call gave, and what packs a tuple of them: None when they are given in a tuple."""
    if type(result) is result_class():
        return [result], _ONE
    if not isinstance(result, tuple | list) or not all(type(one) is result_class() for one in result):
        return [], None
    packer: Callable[..., Any] | None = None
    if type(result) is not tuple:
        named = hasattr(result, "_fields") and not hasattr(result, "__dict__")
        if not named and type(result) is not list:
            return [], None
        kind: Any = type(result)
        packer = partial(tuple.__new__, kind) if named else list
    return (list(result) if len({id(one) for one in result}) == len(result) else []), packer


def _fresh(roots: Sequence[Value], serial: int, known: set[int]) -> tuple[list[Value], list[Keep]]:
    """The values behind `roots` that were made since `serial`, parents first, and what they were made from, in the
    order in which they read it. `known` are the operands: a variable may be made when it is read.
    """
    found: dict[int, Value] = {}
    pending = list(roots)
    while pending:
        value = pending.pop()
        if id(value) not in found and len(found) <= MOST_VALUES:
            found[id(value)] = value
            pending += [p for p in value.parents if type(p) is Value and p.serial > serial and id(p) not in known]
    values = sorted(found.values(), key=lambda value: value.serial)
    olds = {id(p): p for value in values for p in value.parents if id(p) not in found}
    return values, list(olds.values())


def _codes(
    olds: Sequence[Keep], keeps: Sequence[Keep | None], before: Before, write: _Write | None, apart: set[int]
) -> dict[int, int] | None:
    """The byte for each value that was there before, by its identity; None if one is not of an argument."""
    codes: dict[int, int] = {}
    for number, keep in enumerate(keeps):
        if keep is not None:
            codes.setdefault(id(keep), number)
    for old in olds:
        number = codes.get(id(old), -1)
        if write is not None and number < 0:
            number = _code_of_memory(old, before, write, apart)
        if number < 0:
            return None
        codes[id(old)] = number
    return codes


def _code_of_memory(old: Keep, before: Before, write: _Write, apart: set[int]) -> int:
    """The byte for a value, or a leaf, of the memory that was written; -1 if it is another's."""
    storage = write.target._storage
    if type(old) is Binding and old.source is storage and old.buffer is not storage.buffer:
        parts = [number for number in apart if before.tensors[number]._chain]
        return parts[0] if len(parts) == 1 else -1
    if id(old) != before.held[write.number][0] and not (type(old) is Binding and old.source is storage):
        return -1
    return WHOLE if write.target._chain else write.number


def _counts(value: Value, write: _Write | None, counters: Sequence[object]) -> int | None:
    """Whose writes a value counts."""
    counter = value.counter
    if write is not None and value is write.value:
        return WRITTEN
    if counter is None:
        return NO_WRITES
    own = counter[0] == value.version == 0 and not any(counter is other for other in counters)
    return OWN_WRITES if own else None


def _value_words(value: Value, which: Sequence[int], through: object, counts: int) -> list[int]:
    made = {
        "node": id(value.node),
        "name": id(value.name),
        "flows": int(value.grad),
        "parents": len(which),
        "which": sum(place << 8 * at for at, place in enumerate(which)),
        "through": id(through) if through else 0,
        "replaced": id(value.replaced) if value.replaced >= 0 else 0,
        "counts": counts,
    }
    return [made[name] for name in VALUE]


def _write_words(write: _Write, before: Before, apart: set[int], keep: list[object]) -> dict[str, int]:
    """What a recipe tells of a write; what it points to is added to `keep`."""
    target, was = write.target, before.about[write.number]
    requires, history = was[-_HISTORY - 4], was[-_HISTORY]
    others = [(before.places[n], before.tensors[n]) for n in sorted(apart) if before.tensors[n] is not target]
    sharers = tuple([(place, t._type, t._strides, t._chain, t._offset) for place, t in others])
    keep += [target._type, target._strides, target._chain, sharers]
    return {
        "writes": 1,
        "target": before.places[write.number],
        "type": id(target._type),
        "strides": id(target._strides),
        "chain": id(target._chain),
        "offset": target._offset,
        "rootless": int(target._root is None),
        "requires": int(requires is True),
        "history": int(history is not None),
        "counted": int(target._counter is not None),
        "own": int(target._counter is target._storage.counter),
        "flows": int(write.flows),
        "sharers": id(sharers),
    }


def _is_bare(value: Value) -> bool:
    """Whether a value is nothing but what one operation recorded."""
    return (
        value.gate is value.fn is value.leaf is value.binding is None
        and not (value.saved or value.freed)
        and len(value.parents) <= _MOST_PARENTS
    )


def _through(value: Value, keeps: Sequence[object]) -> tuple[object, ...] | int | None:
    """Through which views of the operands a value was made: 0 for none, None when they are not told apart."""
    if value.through is None:
        return 0
    nodes, seen = value.through
    views = [([place for place, keep in enumerate(keeps) if keep is view.keep], view) for view in seen]
    if not all(places for places, _ in views):
        return None
    return nodes, tuple((places[0], view.node, view.names) for places, view in views)


def _checked(checks: Sequence[Check], keeps: Sequence[object]) -> tuple[object, ...] | int | None:
    """The checks of values that were added: 0 for none, None when they cannot be made again."""
    found: list[tuple[Node, tuple[int, ...], object]] = []
    for node, value, problem in checks:
        if value.node is not node or value.grad or value.name or not isinstance(problem, GraphcError | Report):
            return None
        read = [[place for place, keep in enumerate(keeps) if keep is parent] for parent in value.parents]
        if not all(read):
            return None
        found.append((node, tuple(places[0] for places in read), problem))
    return tuple(found) or 0


def _is_plain(made: Any, recorder: Recorder) -> bool:
    """Whether a tensor is nothing but the result of one operation, as native code makes it."""
    storage, lineage = made._storage, made._lineage
    value = storage.value
    if value is None or storage.recorder is not recorder or made._chain or made._wrapped or made._retains:
        return False
    return (
        lineage.hist is (value if value.grad else None)
        and made._type is value.node.type
        and made._strides is made._type.strides
        and made._root is made._grad is made._fn is None
        and made._counter is storage.counter is value.counter
        and not (lineage.requires_grad or lineage.depth or lineage.version or storage.version)
        and lineage.hooks is lineage.owner is lineage.variable is None
        and storage.origin is storage.export is storage.external is None
    )
