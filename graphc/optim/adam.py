"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphc import Tensor, float32, float64, maximum, tensor
from graphc.optim.optimizer import Optimizer, Params
from graphc.recorder import state_zeros

_COUNT = tensor(0.0, dtype=float32)  # what a count of steps looks like


class Adam(Optimizer):
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
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        for what, value in (("learning rate", lr), ("epsilon value", eps), ("weight_decay value", weight_decay)):
            if value < 0.0:
                raise ValueError(f"Invalid {what}: {value}")
        for i, beta in enumerate(betas):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _update(self, group: dict[str, Any]) -> None:
        lr = self._scalar(lambda: -group["lr"])
        beta1 = self._scalar(lambda: group["betas"][0])
        beta2 = self._scalar(lambda: group["betas"][1])
        rest1 = self._scalar(lambda: 1 - group["betas"][0])
        rest2 = self._scalar(lambda: 1 - group["betas"][1])
        eps = self._scalar(lambda: group["eps"])
        maximize = self._structure(lambda: bool(group["maximize"]))
        amsgrad = self._structure(lambda: bool(group["amsgrad"]))
        decays = self._structure(lambda: group["weight_decay"] != 0)
        decoupled = self._structure(lambda: bool(group["decoupled_weight_decay"]))
        decay = self._scalar(lambda: group["weight_decay"]) if decays and not decoupled else None
        shrink = self._scalar(lambda: 1 - group["lr"] * group["weight_decay"]) if decays and decoupled else None
        for step, members in self._advance(group, amsgrad):
            # The corrections are computed in f64, as PyTorch computes them on the host: 1 - 0.999 keeps its digits.
            count = step.to(float64)
            rate = lr / (1 - beta1**count)
            root = (1 - beta2**count).sqrt()
            for parameter in members:
                state = self.state[parameter]
                assert parameter.grad is not None
                gradient: Tensor = -parameter.grad if maximize else parameter.grad
                if decay is not None:
                    gradient = gradient.addcmul(parameter, decay)
                if shrink is not None:
                    parameter.mul_(shrink)
                mean, square = state["exp_avg"], state["exp_avg_sq"]
                mean.lerp_(gradient, rest1)
                square.mul_(beta2).addcmul_(gradient, gradient, value=rest2)
                if amsgrad:
                    state["max_exp_avg_sq"].copy_(maximum(state["max_exp_avg_sq"], square))
                    square = state["max_exp_avg_sq"]
                parameter.addcdiv_(mean, square.sqrt() / root + eps, value=rate)

    def _advance(self, group: dict[str, Any], amsgrad: bool) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Adds one to the step counts of the parameters that have a gradient; each count with its parameters."""
        fresh: Tensor | None = None
        counts: dict[int, tuple[Tensor, list[Tensor]]] = {}
        resting: set[int] = set()
        for parameter in group["params"]:
            state = self.state.get(parameter)
            if parameter.grad is None:
                if state:
                    resting.add(id(state["step"]))
                continue
            if not state:
                fresh = state_zeros(_COUNT) if fresh is None else fresh
                state = {"step": fresh, "exp_avg": state_zeros(parameter), "exp_avg_sq": state_zeros(parameter)}
                if amsgrad:
                    state["max_exp_avg_sq"] = state_zeros(parameter)
                self.state[parameter] = state
            counts.setdefault(id(state["step"]), (state["step"], []))[1].append(parameter)
        for key, (step, members) in counts.items():
            if key in resting:
                step = step.clone()
                for parameter in members:
                    self.state[parameter]["step"] = step
            step.add_(1)
            yield step, members


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
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)
