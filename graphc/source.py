"""Where in the user's code an operation was written: the first frame outside this package, remembered per code object
and line.
"""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType

from graphc.errors import PACKAGE
from graphc.ir.node import NO_LOCATIONS, Location

OPERATORS = PACKAGE + "tensors" + os.sep

_inside: dict[str, bool] = {}
_operators: dict[str, bool] = {}
# By the identity of the code object, which is kept: code objects of equal text are equal, also from different files.
_known: dict[tuple[int, int], tuple[CodeType, frozenset[Location]]] = {}
_MOST = 50_000


def is_inside(code: CodeType) -> bool:
    """Whether `code` belongs to graphc itself."""
    file = code.co_filename
    inside = _inside.get(file)
    if inside is None:
        if len(_inside) > _MOST:
            _inside.clear()
        inside = _inside[file] = os.path.abspath(file).startswith(PACKAGE)
    return inside


def user_frame() -> FrameType | None:
    """The innermost frame that is not graphc's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_inside(frame.f_code):
        frame = frame.f_back
    return frame


def user_location() -> frozenset[Location]:
    """The user's line as the set that nodes carry."""
    frame: FrameType | None = sys._getframe(1)
    known = _inside.get
    while frame is not None:
        code = frame.f_code
        # Nothing is recorded without this walk, so the common case is written out.
        if not (known(code.co_filename) or is_inside(code)):
            break
        frame = frame.f_back
    if frame is None:
        return NO_LOCATIONS
    code = frame.f_code
    key = id(code), frame.f_lasti
    found = _known.get(key)
    if found is None:
        if len(_known) > _MOST:
            _known.clear()
        found = _known[key] = code, frozenset((Location(code.co_filename, frame.f_lineno),))
    return found[1]


def call_site() -> tuple[CodeType, int]:
    """The place of the call that reached an operator: code object and instruction of the innermost frame outside the
    operators' own folder.
    """
    frame = sys._getframe(1)
    known = _operators.get
    while frame.f_back is not None:
        code = frame.f_code
        inside = known(code.co_filename)
        if inside is None:
            if len(_operators) > _MOST:
                _operators.clear()
            inside = _operators[code.co_filename] = os.path.abspath(code.co_filename).startswith(OPERATORS)
        if not inside:
            break
        frame = frame.f_back
    return frame.f_code, frame.f_lasti
