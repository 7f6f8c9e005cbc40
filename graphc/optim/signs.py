"""Optimizers of the older kind: Rprop, which looks at signs, and ASGD, which averages."""

from __future__ import annotations

from typing import Any

from graphc import Tensor, float32, float64, tensor, where
from graphc.errors import InputError
from graphc.optim.optimizer import Params
from graphc.optim.stepped import SteppedOptimizer, check_settings
from graphc.recorder import state_zeros


class Rprop(SteppedOptimizer):
    """Each weight has a step of its own, longer while its gradient keeps its sign, shorter when it changes.

    M. Riedmiller, H. Braun, "A direct adaptive method for faster backpropagation learning", 1993. State: `step`, `prev`
    (the gradient before), `step_size`.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_settings(("learning rate", lr))
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise InputError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        settings = {"lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize}
        settings |= {"foreach": foreach, "capturable": capturable, "differentiable": differentiable}
        super().__init__(params, settings)

    def _fresh(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"prev": state_zeros(parameter), "step_size": state_zeros(parameter, group["lr"])}

    def _update(self, group: dict[str, Any]) -> None:
        shorter, longer = self._scalar(lambda: group["etas"][0]), self._scalar(lambda: group["etas"][1])
        low, high = self._scalar(lambda: group["step_sizes"][0]), self._scalar(lambda: group["step_sizes"][1])
        maximize = self._maximize(group)

        def move(parameter: Tensor, state: dict[str, Tensor]) -> None:
            gradient = self._gradient(parameter, maximize, None)
            agreement = gradient * state["prev"]
            turned = agreement < 0
            same = where(agreement > 0, longer, gradient.new_ones(()))  # in the parameter's dtype
            factor = where(turned, shorter, same)
            state["step_size"].mul_(factor).clamp_(low, high)
            used = where(turned, 0.0, gradient)
            parameter.sub_(used.sign() * state["step_size"])
            state["prev"].copy_(used)

        for step, members in self._advance(group):
            self._move((maximize,), step, members, [shorter, longer, low, high], move)


class ASGD(SteppedOptimizer):
    """Stochastic gradient descent with an average of the weights, `ax`.

    B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging", 1992. State: `step`, `eta` (the
    rate), `mu` (the weight in the average), `ax`.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_settings(("learning rate", lr), ("weight_decay value", weight_decay))
        settings = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0}
        settings |= {"foreach": foreach, "capturable": capturable, "differentiable": differentiable}
        super().__init__(params, {**settings, "weight_decay": weight_decay, "maximize": maximize})

    def _fresh(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        number = tensor(0.0, dtype=float32)
        eta = state_zeros(number, group["lr"], parameter.device)
        mu = state_zeros(number, 1, parameter.device)
        return {"eta": eta, "mu": mu, "ax": state_zeros(parameter)}

    def _update(self, group: dict[str, Any]) -> None:
        lr, lambd = self._scalar(lambda: group["lr"]), self._scalar(lambda: group["lambd"])
        alpha, start = self._scalar(lambda: group["alpha"]), self._scalar(lambda: group["t0"])
        decay = self._decay(group)
        maximize = self._maximize(group)

        def rates(count: Tensor) -> tuple[Tensor, ...]:
            return lr / (1 + lambd * lr * count) ** alpha, 1 / (count - start).clamp(min=1.0)

        def move(parameter: Tensor, state: dict[str, Tensor], rate: Tensor, weight: Tensor) -> None:
            gradient = self._gradient(parameter, maximize, decay)
            eta = state["eta"].to(float64)
            parameter.mul_(1 - lambd * eta)
            parameter.sub_(gradient * eta)
            mu = state["mu"]
            state["ax"].copy_(where(mu == 1, parameter, state["ax"] + (parameter - state["ax"]) * mu))
            state["eta"].copy_(rate)
            state["mu"].copy_(weight)

        for step, members in self._advance(group):
            self._move((maximize, decay is not None), step, members, [lr, alpha, start, lambd, decay], move, rates)
