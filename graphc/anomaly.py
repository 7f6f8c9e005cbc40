"""Anomaly mode: gradients are looked at as they are made; NaN is an error that names the line of the forward call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from graphc.errors import UsageError
from graphc.gates import Gate, Grads, Run, local
from graphc.grad_mode import MODE
from graphc.ir.node import Node
from graphc.storage import Value
from graphc.warned import warn

_WARNING = (
    "Anomaly Detection has been enabled. This mode will increase the runtime and should only be enabled for debugging."
)


def inspected(passed: Sequence[Value], gates: Mapping[Node, tuple[Gate, int]]) -> dict[Node, tuple[Gate, int]]:
    """A gate for each value that gradients pass, which looks at what comes out; gates that are there are wrapped."""
    exits: dict[Node, tuple[Gate, int]] = {}
    bodies: dict[Gate, Gate] = {}
    for value in sorted(passed, key=lambda v: v.serial):
        if value.node in gates:
            gate, slot = gates[value.node]
            if gate not in bodies:
                bodies[gate] = _watched(gate, value)
            exits[value.node] = bodies[gate], slot
        elif value.gate is None:
            entries, body = local(value)
            if value.node not in entries:
                exits[value.node] = Gate(entries, 1, _watching(body, value)), 0
    return exits


def _watched(gate: Gate, value: Value) -> Gate:
    """`gate` with a look at the gradients that its body gives."""
    made = Gate(gate.entries, len(gate.tensor_hooks), gate.body and _watching(gate.body, value), gate.owner)
    made.tensor_hooks, made.before, made.after = gate.tensor_hooks, gate.before, gate.after
    return made


def _watching(body: Callable[[Run, Grads], Grads], value: Value) -> Callable[[Run, Grads], Grads]:
    def watched(run: Run, grads: Grads) -> Grads:
        try:
            made = body(run, grads)
        except RuntimeError:
            _tell(value)
            raise
        if MODE.check_nan:
            for place, gradient in enumerate(made):
                if gradient is not None and np.isnan(run.tensor(gradient)._array().astype(np.float64)).any():
                    _tell(value)
                    raise UsageError(f"Function '{value.name}' returned nan values in its {place}th output.")
        return made

    return watched


def _tell(value: Value) -> None:
    lines = "".join(f'  File "{loc.file}", line {loc.line}\n' for loc in sorted(value.node.locs))
    warn(f"Error detected in {value.name}. Traceback of forward call that caused the error:\n{lines}")


def is_anomaly_enabled() -> bool:
    """Whether gradients are looked at as they are made."""
    return MODE.anomaly


def is_anomaly_check_nan_enabled() -> bool:
    """Whether NaN among them is an error."""
    return MODE.check_nan


class set_detect_anomaly:
    """Switch anomaly mode at once; as a context manager, until the block ends."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self.prev = MODE.anomaly, MODE.check_nan
        MODE.anomaly, MODE.check_nan = mode, check_nan

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        MODE.anomaly, MODE.check_nan = self.prev


class detect_anomaly:
    """Inside, a NaN in a gradient is an error that names the operation and the line of its forward call."""

    def __init__(self, check_nan: bool = True) -> None:
        self.check_nan = check_nan
        self.prev: Any = MODE.anomaly, MODE.check_nan
        warn(_WARNING)

    def __enter__(self) -> None:
        self.prev = MODE.anomaly, MODE.check_nan
        MODE.anomaly, MODE.check_nan = True, self.check_nan

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        MODE.anomaly, MODE.check_nan = self.prev
