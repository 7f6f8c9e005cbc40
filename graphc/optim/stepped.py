"""Optimizers that count their steps, and the checks of settings that all share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from graphc import Tensor, float32, tensor
from graphc.errors import InputError
from graphc.optim.optimizer import Optimizer
from graphc.recorder import Update, state_zeros, update

Move = Callable[[Tensor, dict[str, Any]], None]

_COUNT = tensor(0.0, dtype=float32)  # what a count of steps looks like


def check_settings(*settings: tuple[str, float]) -> None:
    """ValueError for a negative setting, given as (what it is, value)."""
    for what, value in settings:
        if not value >= 0.0:
            raise InputError(f"Invalid {what}: {value}")


def check_betas(betas: tuple[float, float]) -> None:
    """ValueError for a decay rate of a mean outside of [0, 1)."""
    for i, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise InputError(f"Invalid beta parameter at index {i}: {beta}")


class SteppedOptimizer(Optimizer):
    """Base of optimizers whose state holds `step` (0-d f32); define `_fresh` and `_update`.

    Parameters that always step together share one `step` tensor, so that what follows from it is computed once.
    """

    def _fresh(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """The state of a parameter before its first step, without `step`."""
        raise NotImplementedError

    def _advance(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Adds one to the step counts of the parameters that have a gradient; each count with its parameters."""
        fresh: dict[Any, Tensor] = {}  # by device
        counts: dict[int, tuple[Tensor, list[Tensor]]] = {}
        resting: set[int] = set()
        for parameter in group["params"]:
            state = self.state.get(parameter)
            if parameter.grad is None:
                if state:
                    resting.add(id(state["step"]))
                continue
            if not state:
                place = parameter.device
                if place not in fresh:
                    fresh[place] = state_zeros(_COUNT, device=place)
                state = self.state[parameter] = {"step": fresh[place], **self._fresh(parameter, group)}
            counts.setdefault(id(state["step"]), (state["step"], []))[1].append(parameter)
        for key, (step, members) in counts.items():
            if key in resting:
                step = step.clone()
                for parameter in members:
                    self.state[parameter]["step"] = step
            step.add_(1)
            yield step, members

    def _move(self, key: tuple[Any, ...], members: list[Tensor], numbers: list[Tensor | None], move: Move) -> None:
        """Call `move` with each parameter and its state, whose entries but `step` it changes by the gradient and
        `numbers`. What it records is remembered (`graphc.recorder.update`): `key` holds the choices that it makes.
        """
        updates: list[Update] = []
        names: list[str] = []
        for parameter in members:
            assert parameter.grad is not None
            state = self.state[parameter]
            changed = sorted(name for name in state if name != "step")
            names += changed
            written = [parameter, *[state[name] for name in changed]]
            updates.append(Update(written, [parameter.grad], partial(move, parameter, state)))
        update((type(self).__name__, *key, *names), updates, [n for n in numbers if n is not None])

    def _maximize(self, group: dict[str, Any]) -> bool:
        """Whether gradients are turned around."""
        return self._structure(lambda: bool(group["maximize"]))

    @staticmethod
    def _gradient(parameter: Tensor, maximize: bool, decay: Any) -> Tensor:
        """The gradient, turned around by `maximize`, with `decay` times the parameter added (None: nothing)."""
        assert parameter.grad is not None
        gradient: Tensor = -parameter.grad if maximize else parameter.grad
        return gradient if decay is None else gradient.addcmul(parameter, decay)

    def _decay(self, group: dict[str, Any]) -> Any:
        """The weight decay as a run-time value, None where it is zero."""
        if not self._structure(lambda: group["weight_decay"] != 0):
            return None
        return self._scalar(lambda: group["weight_decay"])
