"""What a captured function depended on, and whether it still is as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from graphc import dtypes
from graphc.devices import DEFAULT, Device
from graphc_runtime.devices.cuda import current_device, opened

EXACT = frozenset((int, float, complex, str, bytes, bool, type(None), range, slice))
SIMPLE = (int, float, complex, str, bytes, bool, type(None), dtypes.dtype, Device, range, slice)
MISSING = object()
FUNCTION_FIELDS = ("__code__", "__defaults__", "__kwdefaults__")  # what may be replaced of a function


def _same(value: Any, expected: Any) -> bool:
    if value is expected:
        return True
    if type(value) is not type(expected):
        return False
    if type(value) is float:
        return value.hex() == expected.hex()  # zeros have a sign
    return value == expected or (value != value and expected != expected)


def field_holds(holder: Any, name: str, expected: Any, by_value: bool) -> bool:
    """Whether an object has in a slot what it had; MISSING: nothing."""
    value = getattr(holder, name, MISSING)
    return value is expected or (by_value and _same(value, expected))


def _dict_failure(entries: list[tuple[Mapping[Any, Any], Any, Any, bool, str]]) -> str | None:
    for mapping, key, expected, by_value, path in entries:
        value = mapping.get(key, MISSING)
        if value is not expected and not (by_value and _same(value, expected)):
            return _changed(path, expected, value)
    return None


def _size_failure(entries: list[tuple[Any, int, str]]) -> str | None:
    for holder, size, path in entries:
        if len(holder) != size:
            return f"{path} had {size} elements and has {len(holder)} now"
    return None


def all_same(values: Iterable[Any], expected: tuple[Any, ...]) -> bool:
    """Whether there are these values, numbers and the like by value."""
    found = tuple(values)
    return len(found) == len(expected) and all(
        a is b or (isinstance(b, SIMPLE) and _same(a, b)) for a, b in zip(found, expected, strict=True)
    )


def cell_of(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _changed(path: str, expected: Any, value: Any) -> str:
    return f"{path} was {_short(expected)}, is {_short(value)}"


def _short(value: Any) -> str:
    if value is MISSING:
        return "missing"
    return repr(value)[:60] if isinstance(value, SIMPLE) else f"a {type(value).__name__} object"


class _Quick:
    """Guards in the form in which they nearly always hold: everything is the very object that it was.

    `hold` is True only when all guards hold; when it is False, they may hold all the same.
    """

    def __init__(self, guards: Checks) -> None:
        # A subscript is quicker than `get`, but of other kinds of mappings it may do more than look.
        self._dicts = [(m, k, v) for m, k, v, *_ in guards._in_dicts if type(m) is dict]
        self._mappings = [(m.get, k, v) for m, k, v, *_ in guards._in_dicts if type(m) is not dict]
        self._cells = [(cell, expected) for cell, expected, *_ in guards._cells]
        self._sizes = [(holder, size) for holder, size, _ in guards._sizes]
        self._orders = [(holder, keys) for holder, keys, _ in guards._orders]
        self._sequences = [(holder, items) for holder, items, _ in guards._in_sequences]
        self._fields = [(holder, name, expected) for holder, name, expected, *_ in guards._fields]
        self._tensors = [(t, storage, views, requires) for t, storage, views, requires, _ in guards._tensors]

    def hold(self) -> bool:
        """Whether all guards hold but those of counted objects and calls."""
        try:
            for mapping, key, expected in self._dicts:
                if mapping[key] is not expected:
                    return False
            for cell, expected in self._cells:
                if cell.cell_contents is not expected:
                    return False
        except (KeyError, ValueError):  # no such entry; an empty cell
            return False
        for get, key, expected in self._mappings:
            if get(key, MISSING) is not expected:
                return False
        for holder, size in self._sizes:
            if len(holder) != size:
                return False
        for holder, keys in self._orders:
            if tuple(holder) != keys:
                return False
        for holder, items in self._sequences:
            for value, expected in zip(holder, items, strict=False):  # their sizes are guarded
                if value is not expected:
                    return False
        for holder, name, expected in self._fields:
            if getattr(holder, name, MISSING) is not expected:
                return False
        for tensor, storage, views, requires in self._tensors:
            if tensor._storage is not storage or tensor._chain is not views:
                return False
            lineage = tensor._lineage
            if (lineage.requires_grad or lineage.hist is not None) is not requires:
                return False
        return True


class Checks:
    """All guards of one capture. `failure()` gives the first that no longer holds, in words, or None."""

    def __init__(self) -> None:
        self._in_dicts: list[tuple[Mapping[Any, Any], Any, Any, bool, str]] = []
        self._in_sequences: list[tuple[Any, tuple[Any, ...], str]] = []
        self._sizes: list[tuple[Any, int, str]] = []
        self._cells: list[tuple[Any, Any, bool, str]] = []
        # What objects have in slots: the object, the slot's name, what it holds (MISSING: nothing).
        self._fields: list[tuple[Any, str, Any, bool, str]] = []
        self._tensors: list[tuple[Any, Any, Any, Any, str]] = []
        self._calls: list[tuple[Callable[[], Any], Any]] = []
        self._orders: list[tuple[dict[Any, Any], tuple[Any, ...], str]] = []
        # Of objects that count the writes to their attributes (modules): looked at only when the count has moved.
        self._counted_dicts: list[tuple[Mapping[Any, Any], Any, Any, bool, str]] = []
        self._counted_sizes: list[tuple[Any, int, str]] = []
        self._writes: Callable[[], int] | None = None
        self._writes_seen = -1
        self._quick: _Quick | None = None
        default = vars(dtypes)
        self._in_dicts.append((default, "_default", default["_default"], False, "the default dtype"))
        self._in_sequences.append((DEFAULT, tuple(DEFAULT), "the default device"))
        if opened():  # "cuda" means one of them
            self.add_call(current_device, current_device())

    def storages(self) -> dict[int, Any]:
        """The storages of the tensors that were met, by identity."""
        return {id(storage): storage for _, storage, *_ in self._tensors}

    def add_call(self, compute: Callable[[], Any], expected: Any) -> None:
        """Guard by a function whose result must stay."""
        self._calls.append((compute, expected))

    def failure(self) -> str | None:
        """The first guard that does not hold: which value, what it was, what it is."""
        quick = self._quick
        if quick is None:
            quick = self._quick = _Quick(self)
        if not quick.hold():
            return self._failure()
        if self._writes is not None and self._writes() != self._writes_seen:
            return self._failure()
        for compute, expected in self._calls:
            value = compute()
            if value is not expected and not _same(value, expected):
                return self._failure()
        return None

    def changed(self) -> str | None:
        """What the captured call itself changed of what it depends on, in words, or None."""
        return self._failure()

    def _failure(self) -> str | None:
        reason = _dict_failure(self._in_dicts)
        if reason is not None:
            return reason
        if self._writes is not None and (writes := self._writes()) != self._writes_seen:
            reason = _dict_failure(self._counted_dicts) or _size_failure(self._counted_sizes)
            if reason is not None:
                return reason
            self._writes_seen = writes
        for cell, expected, by_value, path in self._cells:
            value = cell_of(cell)
            if value is not expected and not (by_value and _same(value, expected)):
                return _changed(path, expected, value)
        for holder, name, expected, by_value, path in self._fields:
            if not field_holds(holder, name, expected, by_value):
                return _changed(path, expected, getattr(holder, name, MISSING))
        reason = _size_failure(self._sizes)
        if reason is not None:
            return reason
        for mapping, keys, path in self._orders:
            if tuple(mapping) != keys:
                return f"the order of {path} has changed"
        for holder, expected_items, path in self._in_sequences:
            for place, (value, expected) in enumerate(zip(holder, expected_items, strict=False)):
                if value is not expected and not (isinstance(expected, SIMPLE) and _same(value, expected)):
                    return _changed(f"{path}[{place}]", expected, value)
        for tensor, storage, chain, requires_grad, path in self._tensors:
            if tensor._storage is not storage or (tensor._chain is not chain and tensor._chain != chain):
                return f"the memory of {path} was replaced"
            lineage = tensor._lineage
            if (lineage.requires_grad or lineage.hist is not None) is not requires_grad:
                return _changed(f"{path}.requires_grad", requires_grad, tensor.requires_grad)
        for compute, expected in self._calls:
            value = compute()
            if not _same(value, expected):
                return _changed("a guarded choice or array", expected, value)
        return None
