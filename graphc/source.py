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
OWN_FILES: set[str] = set()  # the names of this package's files, as far as they were seen
_operators: dict[str, bool] = {}
# By the identity of the code object, which is kept: code objects of equal text are equal, also from different files.
_known: dict[tuple[int, int], tuple[CodeType, frozenset[Location]]] = {}
_MOST = 50_000


def is_inside(code: CodeType) -> bool:
    """Whether `code` belongs to graphc itself."""
    return note_file(code.co_filename)


def note_file(file: str) -> bool:
    """Whether a file is one of graphc's, from now on known."""
    inside = _inside.get(file)
    if inside is None:
        if len(_inside) > _MOST:
            _inside.clear()
            OWN_FILES.clear()
        inside = _inside[file] = os.path.abspath(file).startswith(PACKAGE)
        if inside:
            OWN_FILES.add(file)
    return inside


def user_frame() -> FrameType | None:
    """The innermost frame that is not graphc's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_inside(frame.f_code):
        frame = frame.f_back
    return frame


def user_location(above: int = 1) -> frozenset[Location]:
    """The user's line as the set that nodes carry. The innermost `above` frames are known to be graphc's."""
    # Nothing is recorded without this walk. Python makes an object of each frame that is looked at, so those that are
    # known are skipped.
    frame: FrameType | None
    try:
        frame = sys._getframe(above)
    except ValueError:  # called by no Python code
        frame = None
    while frame is not None:
        code = frame.f_code
        if code.co_filename not in OWN_FILES:
            found = _known.get((id(code), frame.f_lasti))
            if found is not None:
                return found[1]
            if not is_inside(code):
                break
        frame = frame.f_back
    if frame is None:
        return NO_LOCATIONS
    if len(_known) > _MOST:
        _known.clear()
    code = frame.f_code
    made = frozenset((Location(code.co_filename, frame.f_lineno),))
    _known[id(code), frame.f_lasti] = code, made
    return made


def call_site(above: int = 1) -> tuple[CodeType, int]:
    """The place of the call that reached an operator: code object and instruction of the innermost frame outside the
    operators' own folder. The innermost `above` frames are known to be in it.
    """
    frame = sys._getframe(above)
    while frame.f_back is not None:
        code = frame.f_code
        inside = _operators.get(code.co_filename)
        if inside is None:
            if len(_operators) > _MOST:
                _operators.clear()
            inside = _operators[code.co_filename] = os.path.abspath(code.co_filename).startswith(OPERATORS)
        if not inside:
            break
        frame = frame.f_back
    return frame.f_code, frame.f_lasti
