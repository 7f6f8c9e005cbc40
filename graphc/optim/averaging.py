"""Optimizers that divide by a mean of squared gradients: RMSprop, Adagrad, Adadelta."""

from __future__ import annotations

from typing import Any

from graphc import Tensor, float32, full_like, tensor
from graphc.errors import InputError
from graphc.optim.optimizer import Params
from graphc.optim.stepped import SteppedOptimizer, check_settings
from graphc.recorder import state_zeros


class RMSprop(SteppedOptimizer):
    """`v = alpha*v + (1 - alpha)*g*g`, `p -= lr * g / (sqrt(v) + eps)`, with momentum if wanted.

    T. Tieleman, G. Hinton, lecture 6.5 of "Neural networks for machine learning", 2012. `centered` takes the variance
    (A. Graves, 2013): `v - m*m` with a mean m of gradients. State: `step`, `square_avg`, with momentum
    `momentum_buffer`, centered `grad_avg`.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_settings(("learning rate", lr), ("epsilon value", eps), ("momentum value", momentum))
        check_settings(("weight_decay value", weight_decay), ("alpha value", alpha))
        settings = {"lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered}
        settings |= {"foreach": foreach, "capturable": capturable, "differentiable": differentiable}
        super().__init__(params, {**settings, "weight_decay": weight_decay, "maximize": maximize})

    def _fresh(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        names = ["square_avg"]
        names += ["momentum_buffer"] if group["momentum"] > 0 else []
        names += ["grad_avg"] if group["centered"] else []
        return {name: state_zeros(parameter) for name in names}

    def _update(self, group: dict[str, Any]) -> None:
        lr, alpha = self._scalar(lambda: -group["lr"]), self._scalar(lambda: group["alpha"])
        rest, eps = self._scalar(lambda: 1 - group["alpha"]), self._scalar(lambda: group["eps"])
        centered = self._structure(lambda: bool(group["centered"]))
        moving = self._structure(lambda: group["momentum"] > 0)
        momentum = self._scalar(lambda: group["momentum"])
        decay = self._decay(group)
        maximize = self._maximize(group)

        def move(parameter: Tensor, state: dict[str, Tensor]) -> None:
            gradient = self._gradient(parameter, maximize, decay)
            square = state["square_avg"].mul_(alpha).addcmul_(gradient, gradient, value=rest)
            if centered:
                mean = state["grad_avg"].lerp_(gradient, rest)
                square = square.addcmul(mean, mean, value=-1)
            scale = square.sqrt().add_(eps)
            if moving:
                buffer = state["momentum_buffer"].mul_(momentum).addcdiv_(gradient, scale)
                parameter.add_(buffer * lr)
            else:
                parameter.addcdiv_(gradient, scale, value=lr)

        for step, members in self._advance(group):
            self._move(
                (maximize, centered, moving, decay is not None),
                step,
                members,
                [lr, alpha, rest, eps, momentum, decay],
                move,
            )


class Adagrad(SteppedOptimizer):
    """`s += g*g`, `p -= lr / (1 + (t - 1)*lr_decay) * g / (sqrt(s) + eps)`.

    J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic optimization", 2011.
    State, there from the beginning: `step`, `sum`.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_settings(("learning rate", lr), ("lr_decay value", lr_decay), ("weight_decay value", weight_decay))
        check_settings(("initial_accumulator_value value", initial_accumulator_value), ("epsilon value", eps))
        settings = {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay}
        settings |= {"initial_accumulator_value": initial_accumulator_value, "maximize": maximize}
        settings |= {"foreach": foreach, "differentiable": differentiable, "fused": fused}
        super().__init__(params, settings)
        for group in self.param_groups:
            steps: dict[Any, Tensor] = {}  # by device
            for parameter in group["params"]:
                place = parameter.device
                step = steps.setdefault(place, tensor(0.0, dtype=float32, device=place))
                self.state[parameter] = {"step": step, **self._fresh(parameter, group)}

    def _fresh(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"sum": full_like(parameter, group["initial_accumulator_value"])}

    def _update(self, group: dict[str, Any]) -> None:
        lr, slowing = self._scalar(lambda: -group["lr"]), self._scalar(lambda: group["lr_decay"])
        eps, decay = self._scalar(lambda: group["eps"]), self._decay(group)
        maximize = self._maximize(group)

        def rates(count: Tensor) -> tuple[Tensor, ...]:
            return (lr / (1 + (count - 1) * slowing),)

        def move(parameter: Tensor, state: dict[str, Tensor], rate: Tensor) -> None:
            gradient = self._gradient(parameter, maximize, decay)
            total = state["sum"].addcmul_(gradient, gradient)
            parameter.addcdiv_(gradient, total.sqrt().add_(eps), value=rate)

        for step, members in self._advance(group):
            self._move((maximize, decay is not None), step, members, [lr, slowing, eps, decay], move, rates)


class Adadelta(SteppedOptimizer):
    """`v = rho*v + (1 - rho)*g*g`, `d = sqrt(u + eps) / sqrt(v + eps) * g`, `u = rho*u + (1 - rho)*d*d`, `p -= lr*d`.

    M. Zeiler, "ADADELTA: an adaptive learning rate method", 2012. State: `step`, `square_avg` (v), `acc_delta` (u).
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_settings(("learning rate", lr), ("epsilon value", eps), ("weight_decay value", weight_decay))
        if not 0.0 <= rho <= 1.0:
            raise InputError(f"Invalid rho value: {rho}")
        settings = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        settings |= {"foreach": foreach, "capturable": capturable, "differentiable": differentiable}
        super().__init__(params, settings)

    def _fresh(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"square_avg": state_zeros(parameter), "acc_delta": state_zeros(parameter)}

    def _update(self, group: dict[str, Any]) -> None:
        lr, rho = self._scalar(lambda: -group["lr"]), self._scalar(lambda: group["rho"])
        rest, eps = self._scalar(lambda: 1 - group["rho"]), self._scalar(lambda: group["eps"])
        decay = self._decay(group)
        maximize = self._maximize(group)

        def move(parameter: Tensor, state: dict[str, Tensor]) -> None:
            gradient = self._gradient(parameter, maximize, decay)
            square = state["square_avg"].mul_(rho).addcmul_(gradient, gradient, value=rest)
            change = state["acc_delta"].add(eps).sqrt_().div_(square.add(eps).sqrt_()).mul_(gradient)
            state["acc_delta"].mul_(rho).addcmul_(change, change, value=rest)
            parameter.add_(change * lr)

        for step, members in self._advance(group):
            self._move((maximize, decay is not None), step, members, [lr, rho, rest, eps, decay], move)
