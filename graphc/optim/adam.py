"""Adam and AdamW."""

from __future__ import annotations

from typing import Any

from graphc import Tensor, maximum
from graphc.optim.optimizer import Params
from graphc.optim.stepped import SteppedOptimizer, check_betas, check_settings
from graphc.recorder import state_zeros


class Adam(SteppedOptimizer):
    """Steps along the mean of gradients over the root of the mean of their squares, both corrected for their start at
    zero.

    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2015; `amsgrad`: S. Reddi et al., 2018. With `m
    = β1·m + (1 - β1)·g` and `v = β2·v + (1 - β2)·g²` the t-th step is `p -= lr / (1 - β1^t) · m / (sqrt(v) / sqrt(1 -
    β2^t) + eps)`. `weight_decay` is added to the gradient, or shrinks p by `lr · weight_decay` before the step when
    `decoupled_weight_decay` (AdamW). State: `step` (0-d f32), `exp_avg`, `exp_avg_sq` and, with amsgrad,
    `max_exp_avg_sq`. Parameters that always step together share one `step` tensor.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        check_settings(("learning rate", lr), ("epsilon value", eps), ("weight_decay value", weight_decay))
        check_betas(betas)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
            **{"foreach": foreach, "capturable": capturable, "differentiable": differentiable, "fused": fused},
        }
        super().__init__(params, defaults)

    def _fresh(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        return {name: state_zeros(parameter) for name in names}

    def _update(self, group: dict[str, Any]) -> None:
        lr = self._scalar(lambda: -group["lr"])
        beta1 = self._scalar(lambda: group["betas"][0])
        beta2 = self._scalar(lambda: group["betas"][1])
        rest1 = self._scalar(lambda: 1 - group["betas"][0])
        rest2 = self._scalar(lambda: 1 - group["betas"][1])
        eps = self._scalar(lambda: group["eps"])
        maximize = self._maximize(group)
        amsgrad = self._structure(lambda: bool(group["amsgrad"]))
        decays = self._structure(lambda: group["weight_decay"] != 0)
        decoupled = self._structure(lambda: bool(group["decoupled_weight_decay"]))
        decay = self._scalar(lambda: group["weight_decay"]) if decays and not decoupled else None
        shrink = self._scalar(lambda: 1 - group["lr"] * group["weight_decay"]) if decays and decoupled else None

        def rates(count: Tensor) -> tuple[Tensor, ...]:
            # The corrections are computed in f64, as PyTorch computes them on the host: 1 - 0.999 keeps its digits.
            return lr / (1 - beta1**count), (1 - beta2**count).sqrt()

        def move(parameter: Tensor, state: dict[str, Tensor], rate: Tensor, root: Tensor) -> None:
            gradient = self._gradient(parameter, maximize, decay)
            if shrink is not None:
                parameter.mul_(shrink)
            mean = state["exp_avg"].lerp_(gradient, rest1)
            square = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=rest2)
            if amsgrad:
                largest = state["max_exp_avg_sq"]
                square = largest.copy_(maximum(largest, square))
            parameter.addcdiv_(mean, square.sqrt() / root + eps, value=rate)

        numbers = [lr, beta1, beta2, rest1, rest2, eps, decay, shrink]
        for step, members in self._advance(group):
            self._move((maximize, amsgrad, decays, decoupled), step, members, numbers, move, rates)


class AdamW(Adam):
    """Adam with decoupled weight decay. I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019."""

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            *(params, lr, betas, eps, weight_decay, amsgrad),
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )
