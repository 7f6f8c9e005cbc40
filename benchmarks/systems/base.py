"""What a system must do to be measured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.workload import Arrays, Workload


@dataclass(frozen=True)
class Prepared:
    """A workload ready to run.

    `call()` does it once and gives its results in the system's form; `wait(results)` returns when they are computed;
    `arrays(results)` are the results. A training step gives its loss, and `weights()` the network's weights now.
    """

    call: Callable[[], Any]
    wait: Callable[[Any], None]
    arrays: Callable[[Any], list[np.ndarray]]
    weights: Callable[[], Arrays] | None = None
    # What calls run in; entered once for many of them.
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    # Sees that results get computed, without waiting for them, where that can be done.
    touch: Callable[[Any], None] | None = None


class System:
    """One system in the process that it lives in."""

    def start(self, threads: int) -> str:
        """Imports the system for a number of threads; its version. ModuleNotFoundError when it is not installed."""
        raise ModuleNotFoundError("a system must define start")

    def settings(self, workload: Workload) -> list[str]:
        """The settings to use, the best documented one first; the next one is taken when one fails."""
        return [""]

    def peak_bytes(self) -> int | None:
        """The most memory that results had on the device; None where that is the memory of the process."""
        return None

    def prepare(self, workload: Workload, form: Any, setting: str) -> Prepared:
        """Makes inputs, weights and the function to call."""
        raise LookupError("a system must define prepare")


def several(results: Any) -> tuple[Any, ...]:
    """Results as a tuple, also when there is one."""
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)
