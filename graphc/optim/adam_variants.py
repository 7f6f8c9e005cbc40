"""Relatives of Adam: Adamax, NAdam, RAdam."""

from __future__ import annotations

from typing import Any

from graphc import Tensor, float32, float64, maximum, tensor, where
from graphc.optim.optimizer import Params
from graphc.optim.stepped import SteppedOptimizer, check_betas, check_settings
from graphc.recorder import state_zeros

Betas = tuple[float, float]


class Adamax(SteppedOptimizer):
    """Adam with the largest gradient instead of the mean of squares: `u = max(beta2*u, |g| + eps)`.

    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2015, section 7. State: `step`, `exp_avg`,
    `exp_inf`.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_settings(("learning rate", lr), ("epsilon value", eps), ("weight_decay value", weight_decay))
        check_betas(betas)
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        settings |= {"foreach": foreach, "capturable": capturable, "differentiable": differentiable}
        super().__init__(params, settings)

    def _fresh(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"exp_avg": state_zeros(parameter), "exp_inf": state_zeros(parameter)}

    def _update(self, group: dict[str, Any]) -> None:
        lr, eps = self._scalar(lambda: -group["lr"]), self._scalar(lambda: group["eps"])
        beta1, rest1 = self._scalar(lambda: group["betas"][0]), self._scalar(lambda: 1 - group["betas"][0])
        beta2, decay = self._scalar(lambda: group["betas"][1]), self._decay(group)
        maximize = self._maximize(group)

        def rates(count: Tensor) -> tuple[Tensor, ...]:
            return (lr / (1 - beta1**count),)

        def move(parameter: Tensor, state: dict[str, Tensor], rate: Tensor) -> None:
            gradient = self._gradient(parameter, maximize, decay)
            mean = state["exp_avg"].lerp_(gradient, rest1)
            largest = state["exp_inf"]
            largest.copy_(maximum(largest * beta2, gradient.abs() + eps))
            parameter.addcdiv_(mean, largest, value=rate)

        for step, members in self._advance(group):
            self._move((maximize, decay is not None), step, members, [lr, beta1, rest1, beta2, eps, decay], move, rates)


class NAdam(SteppedOptimizer):
    """Adam with Nesterov momentum. T. Dozat, "Incorporating Nesterov momentum into Adam", 2016.

    `mu_t = beta1 * (1 - 0.96^(t*momentum_decay) / 2)`; the step is the gradient by `(1 - mu_t) / (1 - prod mu)` and the
    mean by `mu_(t+1) / (1 - prod mu * mu_(t+1))`, over `sqrt(v / (1 - beta2^t)) + eps`. State: `step`, `mu_product`,
    `exp_avg`, `exp_avg_sq`.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_settings(("learning rate", lr), ("epsilon value", eps), ("weight_decay value", weight_decay))
        check_settings(("momentum_decay value", momentum_decay))
        check_betas(betas)
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        settings |= {"momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay}
        settings |= {"foreach": foreach, "capturable": capturable, "differentiable": differentiable}
        super().__init__(params, settings)

    def _fresh(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        product = state_zeros(tensor(0.0, dtype=float32), 1, parameter.device)
        return {"mu_product": product, "exp_avg": state_zeros(parameter), "exp_avg_sq": state_zeros(parameter)}

    def _update(self, group: dict[str, Any]) -> None:
        lr, eps = self._scalar(lambda: -group["lr"]), self._scalar(lambda: group["eps"])
        beta1, rest1 = self._scalar(lambda: group["betas"][0]), self._scalar(lambda: 1 - group["betas"][0])
        beta2, rest2 = self._scalar(lambda: group["betas"][1]), self._scalar(lambda: 1 - group["betas"][1])
        slowing = self._scalar(lambda: group["momentum_decay"])
        decoupled = self._structure(lambda: bool(group["decoupled_weight_decay"]))
        decay = self._decay(group)
        shrink = self._scalar(lambda: 1 - group["lr"] * group["weight_decay"])
        maximize = self._maximize(group)

        def rates(count: Tensor) -> tuple[Tensor, ...]:
            now = beta1 * (1 - 0.5 * 0.96 ** (count * slowing))
            following = beta1 * (1 - 0.5 * 0.96 ** ((count + 1) * slowing))
            return now, following, 1 - beta2**count

        def move(
            parameter: Tensor, state: dict[str, Tensor], now: Tensor, following: Tensor, correction: Tensor
        ) -> None:
            if decoupled and decay is not None:
                parameter.mul_(shrink)
            gradient = self._gradient(parameter, maximize, None if decoupled else decay)
            product = state["mu_product"].mul_(now.to(float32)).to(float64)
            mean = state["exp_avg"].lerp_(gradient, rest1)
            square = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=rest2)
            scale = (square / correction).sqrt().add_(eps)
            parameter.addcdiv_(gradient, scale, value=lr * (1 - now) / (1 - product))
            parameter.addcdiv_(mean, scale, value=lr * following / (1 - product * following))

        for step, members in self._advance(group):
            self._move(
                (maximize, decay is not None, decoupled),
                step,
                members,
                [lr, slowing, beta1, rest1, beta2, rest2, eps, decay, shrink],
                move,
                rates,
            )


class RAdam(SteppedOptimizer):
    """Adam with a rectified variance, plain momentum while the variance is not yet known.

    L. Liu et al., "On the variance of the adaptive learning rate and beyond", 2020. With `r_inf = 2 / (1 - beta2) - 1`
    and `r = r_inf - 2*t*beta2^t / (1 - beta2^t)` the adaptive step is taken where r > 5, by
    `sqrt((r - 4)*(r - 2)*r_inf / ((r_inf - 4)*(r_inf - 2)*r))`. State: `step`, `exp_avg`, `exp_avg_sq`.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_settings(("learning rate", lr), ("epsilon value", eps), ("weight_decay value", weight_decay))
        check_betas(betas)
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        settings |= {"foreach": foreach, "capturable": capturable, "differentiable": differentiable}
        super().__init__(params, {**settings, "decoupled_weight_decay": decoupled_weight_decay})

    def _fresh(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"exp_avg": state_zeros(parameter), "exp_avg_sq": state_zeros(parameter)}

    def _update(self, group: dict[str, Any]) -> None:
        lr, eps = self._scalar(lambda: -group["lr"]), self._scalar(lambda: group["eps"])
        beta1, rest1 = self._scalar(lambda: group["betas"][0]), self._scalar(lambda: 1 - group["betas"][0])
        beta2, rest2 = self._scalar(lambda: group["betas"][1]), self._scalar(lambda: 1 - group["betas"][1])
        limit = self._scalar(lambda: 2 / (1 - group["betas"][1]) - 1)
        decoupled = self._structure(lambda: bool(group["decoupled_weight_decay"]))
        decay = self._decay(group)
        shrink = self._scalar(lambda: 1 - group["lr"] * group["weight_decay"])
        maximize = self._maximize(group)

        def rates(count: Tensor) -> tuple[Tensor, ...]:
            power = beta2**count
            length = limit - 2 * count * power / (1 - power)
            known = length > 5
            sure = where(known, length, 6.0)  # the root of what is not used must be a number too
            rectified = ((sure - 4) * (sure - 2) * limit / ((limit - 4) * (limit - 2) * sure)).sqrt()
            return known, rectified * (1 - power).sqrt(), lr / (1 - beta1**count)

        def move(parameter: Tensor, state: dict[str, Tensor], known: Tensor, factor: Tensor, rate: Tensor) -> None:
            if decoupled and decay is not None:
                parameter.mul_(shrink)
            gradient = self._gradient(parameter, maximize, None if decoupled else decay)
            mean = state["exp_avg"].lerp_(gradient, rest1)
            square = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=rest2)
            parameter.add_(mean * rate * where(known, factor / (square.sqrt() + eps), 1.0))

        for step, members in self._advance(group):
            self._move(
                (maximize, decay is not None, decoupled),
                step,
                members,
                [lr, limit, beta1, rest1, beta2, rest2, eps, decay, shrink],
                move,
                rates,
            )
