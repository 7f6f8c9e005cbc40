"""Guards: the Python values that a captured function reads, checked at each replay, so that a stale one is never used.

Found before the call by a walk from the function: its globals, its closure and, from there, attributes and elements.
Only functions of user code are entered; they are guarded against other code and other defaults, objects against another
class. Numbers, strings and the like are compared by value and type; other objects by identity.
"""

from __future__ import annotations

import dis
import functools
import os
import sys
import sysconfig
import types
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from graphc.errors import PACKAGE
from graphc.guard_checks import EXACT, FUNCTION_FIELDS, MISSING, SIMPLE, Checks, all_same, cell_of
from graphc.holders import is_namespace, reader
from graphc.tensors.core import TensorBase

# A captured object graph larger than this is not walked to its end: the function is then run plainly.
MAX_GUARDS = 50_000

_INNER = ("fget", "__func__", "func", "args", "keywords")  # of properties and the like, what they hold
# Of graphc's own objects, those that hold what a user configured.
_HOLDERS = ("graphc.nn.", "graphc.optim.", "graphc.vision.", "graphc.utils.", "graphc.amp.scaler")
_LIBRARIES = tuple(
    p for p in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sysconfig.get_path("purelib")} if p
)

_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
# Functions that find names which do not stand in the code.
_NAMES = frozenset(("globals", "eval", "exec", "__import__"))

# What a module holds that has no part in computing.
_UNREAD = "_non_persistent_buffers_set"

# Modules whose functions give something else at each call.
_CHANGING = frozenset(("random", "time", "secrets", "uuid", "datetime", "numpy.random"))
_SMALL_ARRAY = 4096
# Functions of graphc that tell a setting, which is guarded by calling them.
_SETTINGS = frozenset(
    (
        *("get_num_threads", "get_num_interop_threads", "initial_seed", "get_printoptions"),
        *("are_deterministic_algorithms_enabled", "is_deterministic_algorithms_warn_only_enabled"),
        *("get_deterministic_debug_mode", "is_warn_always_enabled", "is_anomaly_enabled"),
        "is_anomaly_check_nan_enabled",
    )
)


class Unguardable(Exception):
    """The function depends on something whose changes cannot be seen; the message names it."""

    lasts = True


class NotYetGuardable(Unguardable):
    """It will be otherwise at a later call."""

    lasts = False


_GROUPS = frozenset({"param_groups", "state_dict"})  # names by which parameter groups are read
# Names, and instructions, by which functions tell a number from a tensor, or look at its value without graphc.
_OF_NUMBERS = frozenset(
    (
        *("isinstance", "issubclass", "type", "hash", "str", "repr", "format", "print", "get", "setdefault"),
        *("round", "int", "float", "bool", "divmod", "math", "cmath", "decimal", "fractions", "imag", "real"),
        *("is_integer", "hex", "as_integer_ratio", "conjugate", "as_tensor", "tensor", "asarray", "heaviside"),
        *("quantile", "nanquantile", "vector_norm", "param_groups"),
        *("FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC"),
    )
)


def _is_user_code(code: types.CodeType) -> bool:
    name = code.co_filename
    return not name.startswith(PACKAGE) and not name.startswith("<frozen") and not name.startswith(_LIBRARIES)


def _is_user_class(cls: type) -> bool:
    name = _module_name(cls)
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    return name.partition(".")[0] not in sys.stdlib_module_names and (
        file is None or not file.startswith((PACKAGE, *_LIBRARIES))
    )


def _module_name(cls: type) -> str:
    """The module of a class; empty where that is no text, as for some that are written in C."""
    return cls.__module__ if isinstance(cls.__module__, str) else ""


class Guards(Checks):
    """The guards of one capture, found by a walk."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[int, Any] = {}
        self._globals: set[tuple[int, str]] = set()  # names of modules met, by the module's dictionary
        self._count = 0
        self._queue: list[tuple[Any, str]] = []
        self._states: list[tuple[Mapping[Any, Any], str]] = []  # of graphc's optimizers
        self._groups_met: list[tuple[dict[Any, Any], str]] = []  # parameter groups
        self._functions: list[tuple[str, set[str]]] = []  # the user's: name, and the names in it
        self._called = {"__call__", "forward"}  # names by which functions are called, as far as they are known

    def add_root(self, function: Any, name: str) -> None:
        """Guard all that `function` reads."""
        self._called.add(getattr(function, "__name__", ""))
        self._add(function, name)
        self._walk()
        # graphc's optimizers read numbers in them at run time; a function of the user reads them in Python.
        if self._groups_met and not self._names().isdisjoint(_GROUPS):
            for group, path in self._groups_met:
                numbers = [(k, v) for k, v in group.items() if isinstance(v, int | float) and not isinstance(v, bool)]
                self._in_dicts.extend((group, key, value, True, f"{path}[{key!r}]") for key, value in numbers)
            self._groups_met = []

    def looks_at_numbers(self) -> bool:
        """Whether a function of the user that may be called does with numbers what tensors do not do in their place."""
        return not self._names().isdisjoint(_OF_NUMBERS)

    def _names(self) -> set[str]:
        """The names in the functions of the user that may be called: by a name that stands in another."""
        found: set[str] = set()
        waiting, before = self._functions, -1
        while before != len(waiting):
            before = len(waiting)
            for name, names in waiting:
                if name in self._called or name in found:
                    found |= names
            waiting = [(name, names) for name, names in waiting if name not in self._called | found]
        return found

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

    # the walk

    def _add(self, value: Any, path: str) -> bool:
        """Note a value met; whether it is guarded by value (else by identity)."""
        self._count += 1
        if self._count > MAX_GUARDS:
            raise Unguardable(f"more than {MAX_GUARDS} Python values")
        if type(value) in EXACT:
            return True
        if id(value) not in self._seen:
            self._seen[id(value)] = value
            self._queue.append((value, path))
        return isinstance(value, SIMPLE)

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
            if attributes := getattr(value, "__dict__", None):
                self._mapping(attributes, path)
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
            if isinstance(value, defaultdict):
                self._attribute(value, "default_factory", path)
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
            self.add_call(lambda: all_same(value, held), True)
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
        elif hasattr(type(value), "__next__") or _module_name(type(value)).startswith("graphc.utils.data"):
            raise Unguardable(f"the iteration over {path}")
        elif isinstance(value, types.ModuleType):
            if value.__name__ in _CHANGING:
                raise Unguardable(f"the module {value.__name__}")
            if not _is_library(value):
                self._mapping(vars(value), path)
        elif isinstance(value, types.BuiltinFunctionType):
            holder = value.__self__
            if getattr(value, "__module__", None) in _CHANGING or _module_name(type(holder)) in _CHANGING:
                raise Unguardable(f"the function {path}")
            if not isinstance(holder, types.ModuleType | TensorBase):  # `table.get`
                self._add(holder, f"{path}.__self__")
        elif isinstance(value, type):
            if _is_user_class(value):
                self._class(value)
        elif _module_name(type(value)).startswith(("random", "numpy.random")):
            raise Unguardable(f"the random numbers of {path}")
        elif not isinstance(value, SIMPLE):
            self._held(value, path)
            self._object(value, path)
        if isinstance(value, (*SIMPLE, *_CONTAINERS)) and _is_user_class(type(value)):
            self._object(value, path)

    def _held(self, value: Any, path: str) -> None:
        """What an object of Python's own classes holds."""
        try:
            read = reader(value)
        except ValueError as reason:
            raise Unguardable(f"{reason} {path}") from None
        if read is None:
            return
        held = read()
        for item in held if isinstance(held, tuple) else ():
            self._add(item, path)
        self.add_call(lambda: held if all_same(read(), held) else None, held)

    def _object(self, value: Any, path: str) -> None:
        self._slots(value, path)
        attributes = getattr(value, "__dict__", None)
        if _is_user_class(type(value)):
            self._add(type(value), type(value).__name__)
        if _is_user_class(type(value)) or _module_name(type(value)).startswith(_HOLDERS):
            self._fields.append((value, "__class__", type(value), False, f"{path}.__class__"))
        if not isinstance(attributes, dict):
            return
        module = _module_name(type(value))
        known = module.partition(".")[0] in sys.stdlib_module_names or module.startswith("numpy")
        if known and not is_namespace(value):
            return
        if module.startswith("graphc.") and not module.startswith(_HOLDERS):
            if (inner := attributes.get("__wrapped__")) is not None:  # another compiled function
                self._add(inner, path)
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
                    self._attribute(value, name, path)

    def _attribute(self, value: Any, name: str, path: str) -> None:
        held, label = getattr(value, name, MISSING), f"{path}.{name}"
        self._fields.append((value, name, held, self._add(held, label), label))

    def _class(self, value: type) -> None:
        """The attributes of a class and of those that it inherits from."""
        if _is_user_class(type(value)):
            self._add(type(value), type(value).__name__)
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
                self._groups_met.append((group, f"{path}[{place}]"))

    def _function(self, function: types.FunctionType, path: str) -> None:
        if not _is_user_code(function.__code__):
            if function.__module__ in _CHANGING:
                raise Unguardable(f"the function {path}")
            if (inner := getattr(function, "__wrapped__", None)) is not None:  # decorated, as by `no_grad`
                self._add(inner, path)
            if function.__name__ in _SETTINGS and function.__module__.startswith("graphc."):
                self.add_call(function, function())
            # What a library made of a function, as `func.grad` does, holds that function.
            self._closure(function, path, set())
            return
        for name in FUNCTION_FIELDS:
            self._fields.append((function, name, getattr(function, name), False, f"{path}.{name}"))
        space = function.__globals__
        codes = list(_codes(function.__code__))
        attributes = {name for code in codes for name in code.co_names}
        texts = {text for code in codes for text in code.co_consts if isinstance(text, str)} & _GROUPS
        texts |= {s.opname for code in codes for s in dis.get_instructions(code)} & _OF_NUMBERS
        self._functions.append((function.__name__, attributes | texts))
        imported: set[str] = set()
        for code in codes:
            instructions = list(dis.get_instructions(code))
            wanted = {s.argval for s in instructions if s.opname.endswith(("GLOBAL", "GLOBALS", "_NAME"))}
            imported |= {s.argval for s in instructions if s.opname == "IMPORT_NAME"}
            for name in code.co_names:
                if name in _NAMES and name in wanted and name not in space:
                    raise Unguardable(f"the names that {name} finds")
                if name == "random" and "numpy" in getattr(space.get("np"), "__name__", ""):
                    raise Unguardable("the module numpy.random")
                if name not in wanted or name not in space:
                    continue
                value, label = space[name], f"global {name!r}"
                by_value = self._read(value, label, attributes)
                if (id(space), name) not in self._globals:
                    self._globals.add((id(space), name))
                    self._in_dicts.append((space, name, value, by_value, label))
        for name in imported:
            for full in (name, f"{space.get('__package__')}.{name}"):
                module = sys.modules.get(full)
                self.add_call(functools.partial(sys.modules.get, full), module)
                self._read(module, full, attributes)
        self._closure(function, path, attributes)
        self._mapping(function.__dict__, path)

    def _closure(self, function: types.FunctionType, path: str, attributes: set[str]) -> None:
        """What a function captured, and its defaults; it reads `attributes` of modules."""
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            value = cell_of(cell)
            label = f"captured variable {name!r}"
            self._cells.append((cell, value, self._read(value, label, attributes), label))
        for holder, label in ((function.__defaults__, "default"), (function.__kwdefaults__, "keyword default")):
            if holder:
                self._add(holder, f"{label} of {path}")

    def _read(self, value: Any, label: str, attributes: set[str]) -> bool:
        """As `_add`; of modules the `attributes`, also of modules among them."""
        if not isinstance(value, types.ModuleType) or value.__name__ in _CHANGING:
            return self._add(value, label)
        modules = [value]
        for module in modules:
            space = vars(module)
            if module.__name__.partition(".")[0] == "graphc":
                for name in attributes & _SETTINGS:
                    self._add(getattr(module, name, None), f"{module.__name__}.{name}")
            if module is os and not attributes.isdisjoint(("environ", "getenv")):
                self._add(os.environ, "os.environ")
            for name in () if _is_library(module) else attributes & space.keys():
                held, label = space[name], f"{module.__name__}.{name}"
                if not isinstance(held, types.ModuleType) or held.__name__ in _CHANGING:
                    self._in_dicts.append((space, name, held, self._add(held, label), label))
                    continue
                self._in_dicts.append((space, name, held, False, label))
                if not any(held is m for m in modules):
                    modules.append(held)
        return False


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
