"""Error classes of the compiler. Each says what was wrong, where, and what to do.

Classes that stand for an error that PyTorch also raises inherit from PyTorch's error type, so `except RuntimeError`
in PyTorch code keeps working.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator
from functools import singledispatch
from types import FrameType, TracebackType
from typing import Any

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
COMMANDS = PACKAGE + "cli" + os.sep
_LONGEST = 40  # characters of a value that a message shows
_MOST = 4  # members of a sequence that a message shows


class GraphcError(Exception):
    """Base of every error that graphc raises on purpose.

    Its text ends with the call that the user made, the shapes and dtypes it was given, and the user's line. These are
    read from its traceback when somebody asks, so that an error costs nothing until then. Lines that were recorded are
    its `locs`; then the call is told only if it was `made_now`.
    """

    locs: Iterable[object] = ()
    made_now = True
    tells_place = True  # not where the message has a place of its own, in a text or a graph

    @property
    def message(self) -> str:
        """What was wrong, without the place."""
        return super().__str__()

    def __str__(self) -> str:
        lines = ", ".join(sorted(map(str, self.locs)))
        call, line = _place(self.__traceback__) if self.tells_place and self.made_now else ("", "")
        return self.message + (f"\n  in {call}" if call else "") + (f"\n  at {lines or line}" if lines or line else "")


class UsageError(GraphcError, RuntimeError):
    """A call that cannot be done as things are. The message says what stands in the way."""


class InputError(GraphcError, ValueError):
    """An argument has a value that the function does not take."""


class KindError(GraphcError, TypeError):
    """An argument is of a kind that the function does not take."""


class RangeError(GraphcError, IndexError):
    """A dimension or an index that there is not."""


class CheckError(GraphcError, AssertionError):
    """What PyTorch asserts about arguments does not hold."""


class ShapeError(GraphcError, RuntimeError):
    """Operand shapes do not fit the operator. Cure: reshape, expand or fix the sizes named in the message."""


class DTypeError(GraphcError, RuntimeError):
    """Operand dtypes do not fit the operator. Cure: convert with `.to(dtype)`."""


class DeviceError(GraphcError, AssertionError, RuntimeError):
    """A device that is not there. PyTorch raises one or the other of the two builtin types."""


class VerifyError(GraphcError):
    """A graph breaks a rule of the IR. The message shows the guilty node inside the printed graph."""

    tells_place = False


class IRSyntaxError(GraphcError, ValueError):
    """Text is not valid IR. The message has line, column and a caret."""

    tells_place = False


class AutodiffError(GraphcError, RuntimeError):
    """A gradient was asked of something that has none."""


class LinAlgError(GraphcError, RuntimeError):
    """A factorisation failed for the values of a matrix: it is singular, not positive definite, or not finite."""


class CompileError(GraphcError, RuntimeError):
    """A graph could not be turned into native code."""

    tells_place = False


class UnsupportedError(GraphcError, NotImplementedError):
    """The request is meaningful but graphc does not do it; the message names what is missing."""


class OutOfRange(GraphcError, IndexError, RuntimeError):
    """An index tensor holds an index that is out of range. Some operators of PyTorch raise IndexError then, others
    RuntimeError. Cure: fix the indices.

    " {}" in the text is where the index stands, once it is known: `index` is set when values are looked at.
    """

    index: int | None = None

    @property
    def message(self) -> str:
        return super().message.replace(" {}", "" if self.index is None else f" {self.index}")


@singledispatch
def describe(value: Any) -> str:
    """`value` in a few characters: types of tensors, not their elements. Other modules register their classes."""
    return type(value).__name__


@describe.register(bool)
@describe.register(int)
@describe.register(float)
@describe.register(str)
@describe.register(type(None))
def _(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


@describe.register(tuple)
@describe.register(list)
def _(value: Any) -> str:
    return _listed(value, 2)


def _listed(value: tuple[Any, ...] | list[Any], depth: int) -> str:
    """A sequence and those in it, `depth` deep: a list may hold itself."""
    if not depth:
        return type(value).__name__
    members = [_listed(v, depth - 1) if isinstance(v, tuple | list) else describe(v) for v in value[:_MOST]]
    members += ["..."] if len(value) > _MOST else []
    opening, closing = "[]" if isinstance(value, list) else "()"
    return opening + ", ".join(members) + ("," if len(value) == 1 and opening == "(" else "") + closing


def _place(traceback: TracebackType | None) -> tuple[str, str]:
    """The call of the user that `traceback` went through, and its line; empty when it shows none."""
    line, ours = "", []
    while traceback is not None:
        frame = traceback.tb_frame
        if os.path.abspath(frame.f_code.co_filename).startswith(PACKAGE):
            ours.append(frame)
        else:
            line, ours = f"{frame.f_code.co_filename}:{traceback.tb_lineno}", []
        traceback = traceback.tb_next
    if not line or not ours or ours[0].f_code.co_filename.startswith(COMMANDS):
        return "", ""
    return next((text for text in map(_call, ours) if text), ""), line


def _call(frame: FrameType) -> str:
    """The call that made `frame`, where it has a public name."""
    code, values = frame.f_code, frame.f_locals
    name = code.co_name
    if "<" in code.co_qualname or (name.startswith("_") and not name.endswith("__")):
        return ""
    given = list(_given(frame))
    owner = values.get("self")
    if owner is not None and given and given[0][1] is owner:
        kind = type(owner).__name__
        if name == "__call__" and hasattr(owner, "forward"):
            return ""  # of a module; its `forward` comes next
        name = kind if name == "__init__" else f"{kind}.{name}"
        if type(owner) not in describe.registry and _shown(owner) == kind:
            del given[0]
    texts = [f"{key}={_shown(value)}" if key else _shown(value) for key, value in given]
    return f"{name}({', '.join(texts)})"


def _shown(value: Any) -> str:
    try:
        return describe(value)
    except Exception:  # an object that is being made, or one whose methods fail
        return type(value).__name__


def _is_operand(value: Any) -> bool:
    """Whether `value` is a tensor, or some of them."""
    if isinstance(value, tuple | list):
        return any(hasattr(type(member), "shape") for member in value[:_MOST])
    return hasattr(type(value), "shape")


def _given(frame: FrameType) -> Iterator[tuple[str, Any]]:
    """The arguments of the call that made `frame` which are not None, with the names of those that have one, in the
    order of a call. What is False and can only be given by name is a default.
    """
    code, values = frame.f_code, frame.f_locals
    named, count = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames
    rest = values.get(names[count], ()) if code.co_flags & inspect.CO_VARARGS else ()
    for name in names[:named]:
        if values.get(name) is not None:
            yield "" if rest or _is_operand(values[name]) else name, values[name]
    for value in rest:
        yield "", value
    for name in names[named:count]:
        if values.get(name) is not None and values[name] is not False:
            yield name, values[name]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        yield from values.get(names[count + bool(code.co_flags & inspect.CO_VARARGS)], {}).items()
