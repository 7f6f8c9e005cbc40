"""The replay that a compiled function had last, and its native form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.native.direct import Direct, direct
from graphc.native.library import MAKER
from graphc.replay import Replay
from graphc.signatures import Plain
from graphc_runtime.options import NATIVE_CALLS


class Recent:
    """The last signature and its replay. `call` is the native form of the replay, if there is one."""

    __slots__ = ("call", "entry", "native", "plain", "tried")

    def __init__(self, plain: Plain, entry: Replay) -> None:
        self.plain = plain
        self.entry = entry
        self.native: Direct | None = None
        self.call: Callable[..., Any] | None = None
        self.tried = False

    def again(self) -> tuple[object, ...] | None:
        """A call of this signature was replayed in Python: the next may be native. Gives what is ready.

        Native code that is not made yet is not waited for: LLVM needs longer for it than many programs run.
        """
        if not self.tried and NATIVE_CALLS.get() and MAKER.ready():
            self.tried = True
            self.native = direct(self.entry, self.plain)
        if self.native is None:
            return None
        self.call = self.native.renewed()
        return None if self.call is None else self.native.held
