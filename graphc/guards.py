"""Guards: the Python values that a captured function reads, checked at each replay, so that a stale one is never used.

Found before the call by a walk from the function: its globals, its closure and, from there, attributes and elements.
Only functions of
user code are entered. Numbers, strings and the like are compared by value and type; other objects by identity.
"""

from __future__ import annotations

import dis
import functools
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import PACKAGE
from graphc.tensors.core import TensorBase

# A captured object graph larger than this is not walked to its end: the function is then run plainly.
MAX_GUARDS = 50_000

_SIMPLE = (int, float, complex, str, bytes, bool, type(None), dtypes.dtype, range, slice)
_MISSING = object()
_INNER = ("fget", "__func__", "func", "args", "keywords")  # of properties and the like, what they hold
# Of graphc's own objects, those that hold what a user configured.
_HOLDERS = ("graphc.nn.", "graphc.optim.", "graphc.vision.", "graphc.utils.", "graphc.amp.scaler")
_LIBRARIES = tuple(
    p for p in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sysconfig.get_path("purelib")} if p
)

# Classes of the standard library whose objects hold what a user put there.
_NAMESPACES = frozenset(
    (("types", "SimpleNamespace"), ("argparse", "Namespace"), ("collections", "UserDict"), ("collections", "UserList"))
)

# What a module holds that has no part in computing.
_UNREAD = "_non_persistent_buffers_set"

Check = tuple[Callable[[], Any], Any, bool, str]


# Modules whose functions give something else at each call.
_CHANGING = frozenset(("random", "time", "secrets", "uuid", "datetime", "numpy.random"))
_SMALL_ARRAY = 4096


class Unguardable(Exception):
    """The function depends on something whose changes cannot be seen; the message names it."""

    lasts = True


class NotYetGuardable(Unguardable):
    """It will be otherwise at a later call."""

    lasts = False


def _same(value: Any, expected: Any) -> bool:
    return value is expected or (
        type(value) is type(expected) and (value == expected or (value != value and expected != expected))
    )


def _dict_failure(entries: list[tuple[Mapping[Any, Any], Any, Any, bool, str]]) -> str | None:
    for mapping, key, expected, by_value, path in entries:
        value = mapping.get(key, _MISSING)
        if value is not expected and not (by_value and _same(value, expected)):
            return _changed(path, expected, value)
    return None


def _size_failure(entries: list[tuple[Any, int, str]]) -> str | None:
    for holder, size, path in entries:
        if len(holder) != size:
            return f"{path} had {size} elements and has {len(holder)} now"
    return None


def _is_user_code(code: types.CodeType) -> bool:
    name = code.co_filename
    return not name.startswith(PACKAGE) and not name.startswith("<frozen") and not name.startswith(_LIBRARIES)


def _is_user_class(cls: type) -> bool:
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    return cls.__module__.partition(".")[0] not in sys.stdlib_module_names and (
        file is None or not file.startswith((PACKAGE, *_LIBRARIES))
    )


class _Quick:
    """Guards in the form in which they nearly always hold: everything is the very object that it was.

    `hold` is True only when all guards hold; when it is False, they may hold all the same.
    """

    def __init__(self, guards: Guards) -> None:
        # A subscript is quicker than `get`, but of other kinds of mappings it may do more than look.
        self._dicts = [(m, k, v) for m, k, v, *_ in guards._in_dicts if type(m) is dict]
        self._mappings = [(m.get, k, v) for m, k, v, *_ in guards._in_dicts if type(m) is not dict]
        self._cells = [(cell, expected) for cell, expected, *_ in guards._cells]
        self._sizes = [(holder, size) for holder, size, _ in guards._sizes]
        self._orders = [(holder, keys) for holder, keys, _ in guards._orders]
        self._sequences = [(holder, items) for holder, items, _ in guards._in_sequences]
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
            if get(key, _MISSING) is not expected:
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
        for tensor, storage, views, requires in self._tensors:
            if tensor._storage is not storage or tensor._chain is not views:
                return False
            lineage = tensor._lineage
            if (lineage.requires_grad or lineage.hist is not None) is not requires:
                return False
        return True


class Guards:
    """All guards of one capture. `failure()` gives the first that no longer holds, in words, or None."""

    def __init__(self) -> None:
        self._in_dicts: list[tuple[Mapping[Any, Any], Any, Any, bool, str]] = []
        self._in_sequences: list[tuple[Any, tuple[Any, ...], str]] = []
        self._sizes: list[tuple[Any, int, str]] = []
        self._cells: list[tuple[Any, Any, bool, str]] = []
        self._tensors: list[tuple[Any, Any, Any, Any, str]] = []
        self._calls: list[tuple[Callable[[], Any], Any]] = []
        self._orders: list[tuple[dict[Any, Any], tuple[Any, ...], str]] = []
        # Of objects that count the writes to their attributes (modules): looked at only when the count has moved.
        self._counted_dicts: list[tuple[Mapping[Any, Any], Any, Any, bool, str]] = []
        self._counted_sizes: list[tuple[Any, int, str]] = []
        self._writes: Callable[[], int] | None = None
        self._writes_seen = -1
        self._seen: dict[int, Any] = {}
        self._globals: set[tuple[int, str]] = set()  # names of modules met, by the module's dictionary
        self._count = 0
        self._queue: list[tuple[Any, str]] = []
        self._states: list[tuple[Mapping[Any, Any], str]] = []  # of graphc's optimizers
        self._quick: _Quick | None = None
        default = vars(dtypes)
        self._in_dicts.append((default, "_default", default["_default"], False, "the default dtype"))

    def storages(self) -> dict[int, Any]:
        """The storages of the tensors that were met, by identity."""
        return {id(storage): storage for _, storage, *_ in self._tensors}

    def add_call(self, compute: Callable[[], Any], expected: Any) -> None:
        """Guard by a function whose result must stay."""
        self._calls.append((compute, expected))

    def add_root(self, function: Any, name: str) -> None:
        """Guard all that `function` reads."""
        self._add(function, name)
        self._walk()

    def holds(self, value: Any) -> bool:
        """Whether `value` is an object that was met."""
        return self._seen.get(id(value)) is value

    def _walk(self) -> None:
        while self._queue:
            value, path = self._queue.pop()
            self._enter(value, path)

    def add_states(self) -> None:
        """Guard the state of graphc's optimizers as it is now, after the call: its first step makes it, and what makes
        it never replaces it.
        """
        for held, path in self._states:
            self._mapping(held, path)
        self._walk()

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
            value = _cell(cell)
            if value is not expected and not (by_value and _same(value, expected)):
                return _changed(path, expected, value)
        reason = _size_failure(self._sizes)
        if reason is not None:
            return reason
        for mapping, keys, path in self._orders:
            if tuple(mapping) != keys:
                return f"the order of {path} has changed"
        for holder, expected_items, path in self._in_sequences:
            for place, (value, expected) in enumerate(zip(holder, expected_items, strict=False)):
                if value is not expected and not (isinstance(expected, _SIMPLE) and _same(value, expected)):
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

    # the walk

    def _add(self, value: Any, path: str) -> bool:
        """Note a value met; whether it is guarded by value (else by identity)."""
        self._count += 1
        if self._count > MAX_GUARDS:
            raise Unguardable(f"more than {MAX_GUARDS} Python values")
        if isinstance(value, _SIMPLE):
            return True
        if id(value) not in self._seen:
            self._seen[id(value)] = value
            self._queue.append((value, path))
        return False

    def _mapping(
        self, mapping: Mapping[Any, Any], path: str, skip_numbers: bool = False, counted: bool = False
    ) -> None:
        (self._counted_sizes if counted else self._sizes).append((mapping, len(mapping), path))
        dicts = self._counted_dicts if counted else self._in_dicts
        for key, value in list(mapping.items()):
            label = f"{path}[{key!r}]" if isinstance(key, str | int) else f"{path}[...]"
            if skip_numbers and isinstance(value, int | float) and not isinstance(value, bool):
                continue
            dicts.append((mapping, key, value, self._add(value, label), label))

    def _enter(self, value: Any, path: str) -> None:
        if isinstance(value, TensorBase):
            if value._is_uninitialized:
                raise NotYetGuardable(f"the uninitialized tensor {path}")
            self._tensors.append((value, value._storage, value._chain, value.requires_grad, path))
            if (hooks := value._lineage.hooks) is not None:
                for name in type(hooks).__slots__:
                    for hook in getattr(hooks, name).values():
                        self._add(hook, f"a hook of {path}")
        elif isinstance(value, types.FunctionType):
            self._function(value, path)
        elif isinstance(value, types.MethodType):
            self._add(value.__self__, path)
            self._add(value.__func__, path)
        elif isinstance(value, dict):
            self._mapping(value, path)
            self._ordered(value, path)
        elif isinstance(value, tuple):
            for place, item in enumerate(value):
                self._add(item, f"{path}[{place}]")
        elif isinstance(value, list):
            self._sizes.append((value, len(value), path))
            self._in_sequences.append((value, tuple(value), path))
            for place, item in enumerate(value):
                self._add(item, f"{path}[{place}]")
        elif isinstance(value, deque):
            held = tuple(value)
            for place, item in enumerate(held):
                self._add(item, f"{path}[{place}]")
            self.add_call(lambda: _all_same(value, held), True)
        elif isinstance(value, property | staticmethod | classmethod | functools.cached_property | functools.partial):
            for name in _INNER:
                if (inner := getattr(value, name, None)) is not None:
                    self._add(inner, f"{path}.{name}")
        elif isinstance(value, functools._lru_cache_wrapper):
            self._add(value.__wrapped__, path)
        elif isinstance(value, set | frozenset):
            held = frozenset(value)
            self.add_call(lambda: value == held, True)
        elif isinstance(value, np.ndarray):
            if value.nbytes > _SMALL_ARRAY or value.dtype.hasobject:
                raise Unguardable(f"the array {path}")
            self.add_call(value.tobytes, value.tobytes())
        elif hasattr(type(value), "__next__") or type(value).__module__.startswith("graphc.utils.data"):
            raise Unguardable(f"the iteration over {path}")
        elif isinstance(value, types.ModuleType):
            if value.__name__ in _CHANGING:
                raise Unguardable(f"the module {value.__name__}")
        elif isinstance(value, types.BuiltinFunctionType):
            if getattr(value, "__module__", None) in _CHANGING or type(value.__self__).__module__ in _CHANGING:
                raise Unguardable(f"the function {path}")
        elif isinstance(value, type):
            if _is_user_class(value):
                self._class(value)
        elif type(value).__module__.startswith(("random", "numpy.random")):
            raise Unguardable(f"the random numbers of {path}")
        else:
            self._object(value, path)

    def _object(self, value: Any, path: str) -> None:
        self._slots(value, path)
        attributes = getattr(value, "__dict__", None)
        if not isinstance(attributes, dict):
            return
        module = type(value).__module__
        known = module.partition(".")[0] in sys.stdlib_module_names or module.startswith("numpy")
        if known and (module, type(value).__name__) not in _NAMESPACES:
            return
        if module.startswith("graphc.") and not module.startswith(_HOLDERS):
            return
        writes = getattr(type(value), "_attribute_version", None)
        if writes is not None and self._writes is None:
            self._writes, self._writes_seen = writes, writes()
            for table in type(value)._global_tables:
                self._mapping(table, "the hooks of all modules", counted=True)
        counted = () if writes is None else type(value)._counted_tables
        dicts = self._in_dicts if writes is None else self._counted_dicts
        for key, held in list(attributes.items()):
            label = f"{path}.{key}"
            if key in counted:
                dicts.append((attributes, key, held, False, label))
                self._mapping(held, label, counted=True)
                continue
            if writes is not None and key == _UNREAD:
                continue
            if key == "param_groups" and isinstance(held, list):
                self._groups(held, label)
                continue
            if key == "state" and module.startswith("graphc.optim."):
                self._states.append((held, label))
                dicts.append((attributes, key, held, False, label))
                continue
            dicts.append((attributes, key, held, self._add(held, label), label))
        (self._sizes if writes is None else self._counted_sizes).append((attributes, len(attributes), path))
        self._add(type(value), type(value).__name__)

    def _slots(self, value: Any, path: str) -> None:
        """What an object of a user's class holds in slots."""
        for cls in type(value).__mro__:
            if not _is_user_class(cls):
                continue
            for name, slot in cls.__dict__.items():
                if isinstance(slot, types.MemberDescriptorType):
                    held = getattr(value, name, _MISSING)
                    self._add(held, f"{path}.{name}")
                    self.add_call(functools.partial(_slot_holds, value, name, held), True)

    def _class(self, value: type) -> None:
        """The attributes of a class and of those that it inherits from."""
        for cls in value.__mro__:
            if not _is_user_class(cls) or (cls is not value and id(cls) in self._seen):
                continue
            self._seen[id(cls)] = cls
            space = cls.__dict__
            self.add_call(space.__len__, len(space))
            for key, held in list(space.items()):
                if key.startswith("__") and not isinstance(held, types.FunctionType):
                    continue
                label = f"{cls.__name__}.{key}"
                self._in_dicts.append((space, key, held, self._add(held, label), label))

    def _ordered(self, mapping: dict[Any, Any], path: str) -> None:
        """Guard the order of a dictionary of the user."""
        keys = tuple(mapping)
        if len(keys) > 1 and type(mapping) is dict:
            self._orders.append((mapping, keys, path))
        elif len(keys) > 1:
            self.add_call(lambda: tuple(mapping) == keys, True)

    def _groups(self, groups: list[Any], path: str) -> None:
        """Parameter groups of an optimizer: numbers in them are read at run time, the choices they make are guarded by
        calls.
        """
        self._sizes.append((groups, len(groups), path))
        for place, group in enumerate(groups):
            if isinstance(group, dict):
                self._mapping(group, f"{path}[{place}]", skip_numbers=True)

    def _function(self, function: types.FunctionType, path: str) -> None:
        if not _is_user_code(function.__code__):
            if function.__module__ in _CHANGING:
                raise Unguardable(f"the function {path}")
            if (inner := getattr(function, "__wrapped__", None)) is not None:  # decorated, as by `no_grad`
                self._add(inner, path)
            return
        space = function.__globals__
        attributes: set[str] = set()
        for code in _codes(function.__code__):
            wanted = {s.argval for s in dis.get_instructions(code) if s.opname.endswith(("GLOBAL", "GLOBALS", "_NAME"))}
            for name in code.co_names:
                attributes.add(name)
                if name == "random" and "numpy" in getattr(space.get("np"), "__name__", ""):
                    raise Unguardable("the module numpy.random")
                if name in wanted and name in space and (id(space), name) not in self._globals:
                    self._globals.add((id(space), name))
                    value = space[name]
                    label = f"global {name!r}"
                    self._in_dicts.append((space, name, value, self._add(value, label), label))
        for name in function.__code__.co_names:
            module = space.get(name)
            if isinstance(module, types.ModuleType) and not _is_library(module):
                self._module(module, attributes)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            value = _cell(cell)
            label = f"captured variable {name!r}"
            self._cells.append((cell, value, self._add(value, label), label))
        for holder, label in ((function.__defaults__, "default"), (function.__kwdefaults__, "keyword default")):
            if holder:
                self._add(holder, f"{label} of {path}")
        self._mapping(function.__dict__, path)

    def _module(self, module: types.ModuleType, attributes: set[str]) -> None:
        space = vars(module)
        for name in attributes & space.keys():
            label = f"{module.__name__}.{name}"
            self._in_dicts.append((space, name, space[name], self._add(space[name], label), label))


def _all_same(values: Iterable[Any], expected: tuple[Any, ...]) -> bool:
    """Whether there are these values, numbers and the like by value."""
    found = tuple(values)
    return len(found) == len(expected) and all(
        a is b or (isinstance(b, _SIMPLE) and _same(a, b)) for a, b in zip(found, expected, strict=True)
    )


def _slot_holds(value: Any, name: str, expected: Any) -> bool:
    return _all_same((getattr(value, name, _MISSING),), (expected,))


def _is_library(module: types.ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is None or file.startswith((PACKAGE, *_LIBRARIES))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code and that of the functions written inside it."""
    stack = [code]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(c for c in current.co_consts if isinstance(c, types.CodeType))


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _changed(path: str, expected: Any, value: Any) -> str:
    return f"{path} was {_short(expected)}, is {_short(value)}"


def _short(value: Any) -> str:
    if value is _MISSING:
        return "missing"
    return repr(value)[:60] if isinstance(value, _SIMPLE) else f"a {type(value).__name__} object"
