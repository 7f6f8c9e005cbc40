"""Warnings, which are told at the line of the user that they concern."""

from __future__ import annotations

import sys
import warnings

from graphc.source import is_inside

WARNED = [0]  # how often something was warned of


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """`warnings.warn` for the innermost line that is not graphc's."""
    WARNED[0] += 1
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and is_inside(frame.f_code):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
