"""Options, each declared once: name, type, default, help, environment variable, and whether it changes generated code.

The value of an option is, in this order: the innermost `scope`, what `set` was given, the environment variable, the
default. Options that change code enter every cache key by themselves, through `code_key`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, TypeVar

from graphc_runtime.errors import OptionError

Value = bool | int | float | str
T = TypeVar("T", bool, int, float, str)

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
_UNSET = object()

NO_SCOPE: Mapping[str, Value] = MappingProxyType({})
SCOPE: ContextVar[Mapping[str, Value]] = ContextVar("graphc_options", default=NO_SCOPE)
_registry: dict[str, Option] = {}

CodeKey = tuple[tuple[str, str], ...]
KEY = "key"
# The `code_key` outside of scopes, under `KEY`: once somebody has asked for it, until an option is set. Native code
# looks here too.
CODE: dict[str, CodeKey] = {}
_keys: dict[CodeKey, CodeKey] = {}


@dataclass(eq=False, slots=True)
class Option(Generic[T]):
    """One option. Make it with `declare`.

    `environment` is the variable that sets it. `affects_code` puts it into cache keys. `choices`, when not empty, lists
    the allowed values. An option that is not `scoped` belongs to the process: `scope` refuses it.
    """

    name: str
    default: T
    help: str
    environment: str
    affects_code: bool = False
    choices: tuple[T, ...] = ()
    scoped: bool = True
    _value: object = field(default=_UNSET, repr=False)

    @property
    def type(self) -> type[T]:
        return type(self.default)

    def get(self) -> T:
        """The value now; OptionError when the environment variable cannot be read as one."""
        overrides = SCOPE.get()
        if overrides and self.name in overrides:
            return overrides[self.name]  # type: ignore[return-value]  # checked on the way in
        if self._value is _UNSET:
            text = os.environ.get(self.environment)
            self._value = self.default if text is None else self.parse(text, f"environment variable {self.environment}")
        return self._value  # type: ignore[return-value]

    def set(self, value: T) -> None:
        """Give the whole process this value."""
        self._value = self.check(value, f"option {self.name}")
        CODE.clear()

    def reset(self) -> None:
        """Forget `set`; the environment is read again."""
        self._value = _UNSET
        CODE.clear()

    def parse(self, text: str, where: str = "") -> T:
        """The value spelt `text`; OptionError, starting with `where`, when it is none."""
        where = where or f"option {self.name}"
        if self.type is bool:
            word = text.strip().lower()
            if word not in _TRUE | _FALSE:
                raise OptionError(f"{where}: {text!r} is neither on (1, true, yes, on) nor off (0, false, no, off)")
            return word in _TRUE  # type: ignore[return-value]
        try:
            value = self.type(text)
        except ValueError:
            raise OptionError(f"{where}: {text!r} is not of type {self.type.__name__} ({self.help})") from None
        return self.check(value, where)

    def check(self, value: object, where: str) -> T:
        """`value` itself when it is of the option's type, among its choices, and as a number finite and not negative.
        OptionError otherwise.
        """
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type:
            raise OptionError(f"{where}: expected {self.type.__name__}, got {value!r} ({self.help})")
        if self.type in (int, float) and not 0 <= value < math.inf:  # type: ignore[operator]
            raise OptionError(f"{where}: {value!r} is not a number from 0 on ({self.help})")
        if self.choices and value not in self.choices:
            raise OptionError(f"{where}: {value!r} is not one of {', '.join(map(repr, self.choices))} ({self.help})")
        return value  # type: ignore[return-value]


def declare(
    name: str,
    default: T,
    help: str,
    *,
    environment: str = "",
    affects_code: bool = False,
    choices: tuple[T, ...] = (),
    scoped: bool = True,
) -> Option[T]:
    """Make and register an option; its type is that of `default`, its environment variable `GRAPHC_<NAME>` unless
    named.
    """
    if name in _registry:
        raise OptionError(f"option {name} is declared twice")
    option = Option(name, default, help, environment or f"GRAPHC_{name.upper()}", affects_code, choices, scoped)
    _registry[name] = option
    CODE.clear()
    return option


def options() -> dict[str, Option]:
    """All options by name, in order of declaration."""
    return dict(_registry)


def option(name: str) -> Option:
    """The option `name`; OptionError that lists all options when there is none."""
    found = _registry.get(name)
    if found is None:
        raise OptionError(f"there is no option {name!r}; options are: {', '.join(_registry)}")
    return found


@contextmanager
def scope(**values: Value) -> Iterator[None]:
    """Inside, and in this thread or task only, the named options have these values."""
    checked: dict[str, Value] = {}
    for name, value in values.items():
        declared = option(name)
        if not declared.scoped:
            raise OptionError(f"option {name} belongs to the whole process and cannot be changed for a scope")
        checked[name] = declared.check(value, f"option {name}")
    token = SCOPE.set(MappingProxyType({**SCOPE.get(), **checked}))
    try:
        yield
    finally:
        SCOPE.reset(token)


def code_key() -> CodeKey:
    """Name and value of every option that changes generated code, sorted: part of every cache key. Equal keys are one
    object.
    """
    is_scoped = SCOPE.get() is not NO_SCOPE
    if not is_scoped and (known := CODE.get(KEY)) is not None:
        return known
    key = tuple((name, repr(o.get())) for name, o in sorted(_registry.items()) if o.affects_code)
    key = _keys.setdefault(key, key)
    if not is_scoped:
        CODE[KEY] = key
    return key


THREADS = declare("threads", 0, "threads of the pool, 0 = as many as this process may use", scoped=False)
CACHE = declare("cache", True, "keep compiled code on disk", scoped=False)
CACHE_DIR = declare("cache_dir", "", "folder of the kernel cache, empty = the user's cache folder", scoped=False)
CACHE_BYTES = declare("cache_bytes", 1 << 30, "size that the kernel cache on disk is kept under", scoped=False)
IDLE_BYTES = declare("idle_bytes", 1 << 30, "freed tensor memory that is kept for re-use, at most", scoped=False)
NATIVE_CALLS = declare(
    "native_calls", True, "replay calls, and record what was recorded before, in native code", scoped=False
)
POISON = declare("poison", False, "fill fresh buffers with bytes 0xFF (NaN), to find reads of unwritten memory")
CUDA_SYNC = declare("cuda_sync", False, "wait for each CUDA kernel, so that an error is that kernel's", scoped=False)
CUDA_GRAPHS = declare("cuda_graphs", True, "launch CUDA programs that run again as CUDA graphs where that can be")
