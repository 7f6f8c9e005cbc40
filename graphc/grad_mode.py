"""Whether operations are recorded for gradients: `no_grad`, `enable_grad`, `set_grad_enabled`, per thread."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any


class _Mode(threading.local):
    enabled = True
    inference = False
    anomaly = False  # gradients are looked at as they are made
    check_nan = True
    packing: tuple[Any, ...] = ()  # pairs of functions that pack and unpack what operations save, the innermost last
    packing_refused: str | None = None
    mutation_allowed = False  # of what operations saved
    multithreading = True


MODE = _Mode()


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require gradients are recorded for `backward`."""
    return MODE.enabled


def is_inference_mode_enabled() -> bool:
    """Whether new tensors are tensors of inference mode."""
    return MODE.inference


class _Decorator:
    """A context manager that also decorates functions and generator functions: `clone` makes one for each call."""

    def clone(self) -> Any:
        """A context manager like this one."""
        return type(self)()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function):
            return self._generator(function)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.clone():
                return function(*args, **kwargs)

        return wrapped

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The mode holds while the generator runs, not while it waits."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            made = function(*args, **kwargs)
            try:
                with self.clone():
                    item = next(made)
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        with self.clone():
                            made.close()
                        raise
                    except BaseException as error:
                        with self.clone():
                            item = made.throw(error)
                    else:
                        with self.clone():
                            item = made.send(sent)
            except StopIteration as end:
                return end.value

        return wrapped


class set_grad_enabled(_Decorator):
    """Set the mode at once; as a context manager or decorator, until the block or call ends."""

    def __init__(self, mode: bool) -> None:
        self.prev = MODE.enabled
        self.mode = mode
        MODE.enabled = mode

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        MODE.enabled = self.prev  # as a decorator it sets nothing now
        return super().__call__(function)

    def clone(self) -> set_grad_enabled:
        """A context manager for the same mode."""
        return set_grad_enabled(self.mode)

    def __enter__(self) -> None:
        MODE.enabled = self.mode

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        MODE.enabled = self.prev

    def __repr__(self) -> str:
        return f"torch.autograd.grad_mode.set_grad_enabled(mode={self.mode})"


class set_multithreading_enabled(_Decorator):
    """Accepted for PyTorch's sake: `backward` has no threads of its own."""

    def __init__(self, mode: bool) -> None:
        self.prev = MODE.multithreading
        MODE.multithreading = self.mode = mode

    def clone(self) -> set_multithreading_enabled:
        """A context manager for the same mode."""
        return set_multithreading_enabled(self.mode)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        MODE.multithreading = self.prev


@contextmanager
def mutation_allowed() -> Iterator[None]:
    """Inside, `backward` does not mind that values it reads were overwritten since: they are kept."""
    before, MODE.mutation_allowed = MODE.mutation_allowed, True
    try:
        yield
    finally:
        MODE.mutation_allowed = before


class _Scope(_Decorator):
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

    def __new__(cls, orig_func: Callable[..., Any] | None = None) -> Any:
        scope = super().__new__(cls)
        if orig_func is None:
            return scope
        scope.__init__()
        return scope(orig_func)


class no_grad(_Scope):
    """Inside, nothing is recorded for gradients. A context manager, or a decorator with or without parentheses."""

    mode = False


class enable_grad(_Scope):
    """Inside, operations are recorded for gradients again."""

    mode = True


class inference_mode(_Decorator):
    """Inside, nothing is recorded for gradients, and new tensors are tensors of inference mode: they count no writes.

    `inference_mode(False)` ends both for its block.
    """

    def __init__(self, mode: bool = True) -> None:
        self.mode = mode
        self._saved: list[tuple[bool, bool]] = []

    def __new__(cls, mode: Any = True) -> Any:
        scope = super().__new__(cls)
        if isinstance(mode, bool):
            return scope
        scope.__init__()
        return scope(mode)

    def clone(self) -> inference_mode:
        """A context manager for the same mode."""
        return inference_mode(self.mode)

    def __enter__(self) -> None:
        self._saved.append((MODE.enabled, MODE.inference))
        MODE.enabled, MODE.inference = not self.mode, self.mode

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        MODE.enabled, MODE.inference = self._saved.pop()
