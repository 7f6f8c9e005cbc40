"""Names of functions that are made by others, as users, tracebacks and messages show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def named(function: Callable[..., Any], name: str, doc: str | None = None) -> Callable[..., Any]:
    """`function`, made by another one, under its own name; messages find that in its code."""
    function.__name__ = function.__qualname__ = name
    function.__code__ = function.__code__.replace(co_name=name, co_qualname=name)
    if doc is not None:
        function.__doc__ = doc
    return function


def unnamed(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which messages do not take for the call that the user made."""
    hidden = f"_{function.__name__}"
    function.__code__ = function.__code__.replace(co_name=hidden, co_qualname=hidden)
    return function
