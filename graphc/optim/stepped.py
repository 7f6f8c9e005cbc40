"""Optimizers that count their steps, and the checks of settings that all share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from graphc import Tensor, float32, float64, tensor
from graphc.errors import InputError
from graphc.optim.optimizer import Optimizer
from graphc.recorder import Update, state_zeros, update

Move = Callable[..., None]  # of a parameter, its state, and what `rates` gave
Rates = Callable[[Tensor], tuple[Tensor, ...]]  # of the count of steps

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
        """The counts of steps, before this one, of the parameters that have a gradient; each with its parameters."""
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
            yield step, members

    def _move(
        self,
        key: tuple[Any, ...],
        step: Tensor,
        members: list[Tensor],
        numbers: list[Tensor | None],
        move: Move,
        rates: Rates | None = None,
    ) -> None:
        """Add one to the count `step`; call `move` with each parameter, its state, whose entries but `step` it changes
        by the gradient and `numbers`, and what `rates` makes of the count, as f64, and of them. What they record is
        remembered (`graphc.recorder.update`): `key` holds the choices that they make.
        """
        made: list[tuple[Tensor, ...]] = []

        def moved(parameter: Tensor, state: dict[str, Any]) -> None:
            if not made:
                made.append(() if rates is None else rates(step.to(float64)))
            move(parameter, state, *made[0])

        updates = [Update([step], [], lambda: step.add_(1))]
        names: list[str] = []
        for parameter in members:
            assert parameter.grad is not None
            state = self.state[parameter]
            changed = sorted(name for name in state if name != "step")
            names += changed
            written = [parameter, *[state[name] for name in changed]]
            updates.append(Update(written, [parameter.grad], partial(moved, parameter, state)))
        update((type(self).__name__, *key, *names), updates, [step, *[n for n in numbers if n is not None]])

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
