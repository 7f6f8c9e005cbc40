"""Stochastic gradient descent."""

from __future__ import annotations

from functools import partial
from typing import Any

from graphc import Tensor
from graphc.errors import InputError
from graphc.optim.optimizer import Optimizer, Params
from graphc.recorder import Update, state_zeros, update


class SGD(Optimizer):
    """`p -= lr · d`, where d is the gradient plus `weight_decay · p`, with momentum if wanted.

    With momentum, `b = momentum · b + (1 - dampening) · d` (at first `b = d`), and the step goes along b, or along
    `d + momentum · b` with `nesterov`. `maximize` turns the gradient around. Momentum: I. Sutskever et al., "On the
    importance of initialization and momentum in deep learning", 2013, in PyTorch's form, which applies lr outside of b.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        for what, value in (("learning rate", lr), ("momentum value", momentum), ("weight_decay value", weight_decay)):
            if value < 0.0:
                raise InputError(f"Invalid {what}: {value}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise InputError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            **{"foreach": foreach, "differentiable": differentiable, "fused": fused},
        }
        super().__init__(params, defaults)

    def _update(self, group: dict[str, Any]) -> None:
        rate = self._scalar(lambda: -group["lr"])
        decays = self._structure(lambda: group["weight_decay"] != 0)
        decay = self._scalar(lambda: group["weight_decay"]) if decays else None
        moves = self._structure(lambda: group["momentum"] != 0)
        nesterov = self._structure(lambda: bool(group["nesterov"]))
        maximize = self._structure(lambda: bool(group["maximize"]))
        momentum = self._scalar(lambda: group["momentum"]) if moves else None
        damping = self._scalar(lambda: 1 - group["dampening"]) if moves else None
        # Without dampening the first step, b = d, is what every step does when b was zero before.
        undamped = self._structure(lambda: group["dampening"] == 0)
        numbers = [n for n in (rate, decay, momentum, damping) if n is not None]

        def move(parameter: Tensor, buffer: Tensor | None) -> None:
            assert parameter.grad is not None
            direction: Tensor = -parameter.grad if maximize else parameter.grad
            if decay is not None:
                direction = direction.addcmul(parameter, decay)
            if momentum is not None and damping is not None:
                if buffer is None:
                    buffer = self.state[parameter]["momentum_buffer"] = direction.detach().clone()
                else:
                    buffer.mul_(momentum).addcmul_(direction, damping)
                direction = direction.addcmul(buffer, momentum) if nesterov else buffer
            parameter.addcmul_(direction, rate)

        updates: list[Update] = []
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            buffer = self.state[parameter].get("momentum_buffer") if moves else None
            if moves and buffer is None and undamped:
                buffer = self.state[parameter]["momentum_buffer"] = state_zeros(parameter)
            if moves and buffer is None:
                move(parameter, None)
                continue
            written = [parameter] if buffer is None else [parameter, buffer]
            updates.append(Update(written, [parameter.grad], partial(move, parameter, buffer)))
        update(("sgd", maximize, decays, moves, nesterov), updates, numbers)
