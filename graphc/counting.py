"""Counters of the front end, shown together with the compiler's and the runtime's by `graphc.counters()`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from graphc_runtime.counters import counters as runtime_counters
from graphc_runtime.counters import reset as reset_runtime


@dataclass(slots=True)
class FrontCounters:
    """`records` operations recorded · `native_records` those of them that native code recorded again · `flushes`
    programs demanded · `native_flushes` those of them that native code ran · `program_hits` found by their nodes, one
    look-up each · `structure_hits` found by their structure · `programs_built` neither · `autodiff` gradients derived
    symbolically · `gradient_hits` gradients remembered · `captures` calls of compiled functions that ran Python ·
    `replays` calls that did not · `capture_breaks` captures given up because a value was observed · `recompiles`
    captures of a function that had one · `host_calls` runs of operators that have no kernel (`graphc/host.py`) ·
    `transfers` values that programs moved between devices · `interpreted` runs of programs by NumPy
    (`graphc/interpreting.py`) · `any_size` calls that what is compiled for all sizes did (`graphc/any_size.py`) ·
    `native_any_size` those of them that native code made.
    """

    records: int = 0
    native_records: int = 0
    flushes: int = 0
    native_flushes: int = 0
    program_hits: int = 0
    structure_hits: int = 0
    programs_built: int = 0
    autodiff: int = 0
    gradient_hits: int = 0
    captures: int = 0
    replays: int = 0
    capture_breaks: int = 0
    recompiles: int = 0
    host_calls: int = 0
    transfers: int = 0
    interpreted: int = 0
    any_size: int = 0
    native_any_size: int = 0


FRONT = FrontCounters()


def counters() -> dict[str, int]:
    """All counters of the process by name: traces, compiles, cache hits, launches, peak bytes, and those of the front
    end.
    """
    return {**runtime_counters(), **asdict(FRONT)}


def reset_counters() -> None:
    """Set all counters to zero."""
    reset_runtime()
    for name in asdict(FRONT):
        setattr(FRONT, name, 0)
