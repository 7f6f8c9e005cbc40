"""Whether operations are recorded for gradients: `no_grad`, `enable_grad`, `set_grad_enabled`, per thread."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any


class _Mode(threading.local):
    enabled = True


MODE = _Mode()


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require gradients are recorded for `backward`."""
    return MODE.enabled


class set_grad_enabled:
    """Set the mode at once; as a context manager or decorator, until the block or call ends."""

    def __init__(self, mode: bool) -> None:
        self.prev = MODE.enabled
        self.mode = mode
        MODE.enabled = mode

    def __enter__(self) -> None:
        MODE.enabled = self.mode

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        MODE.enabled = self.prev


class _Scope:
    """A context manager and decorator that sets the mode inside; instances nest."""

    mode = True

    def __init__(self) -> None:
        self._saved: list[bool] = []

    def __enter__(self) -> None:
        self._saved.append(MODE.enabled)
        MODE.enabled = self.mode

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        MODE.enabled = self._saved.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return wrapped

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        scope = super().__new__(cls)
        if function is None:
            return scope
        scope.__init__()
        return scope(function)


class no_grad(_Scope):
    """Inside, nothing is recorded for gradients. A context manager, or a decorator with or without parentheses."""

    mode = False


class enable_grad(_Scope):
    """Inside, operations are recorded for gradients again."""

    mode = True


class inference_mode(no_grad):
    """The same as `no_grad`: graphc has no faster mode than that."""
