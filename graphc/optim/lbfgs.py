"""L-BFGS: a quasi-Newton method with the history of a few steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from graphc import Tensor, cat, enable_grad, no_grad, tensor
from graphc.errors import InputError, KindError, UsageError
from graphc.optim.optimizer import Optimizer, Params
from graphc.optim.wolfe import strong_wolfe

Closure = Callable[[], Any]


def _seen(vector: Tensor) -> Any:
    """A vector to calculate with and to look at: an array, as the CPU is done with such sums before they would be
    recorded; a tensor on another device.
    """
    return vector.numpy() if vector.device.type == "cpu" else vector


def _largest(vector: Any) -> float:
    return float(abs(vector).max())


class LBFGS(Optimizer):
    """Minimises by the directions of L-BFGS; `step` needs a closure and runs up to `max_iter` iterations.

    J. Nocedal, S. Wright, "Numerical optimization", 2006, algorithms 7.4, 7.5 and, with
    `line_search_fn="strong_wolfe"`, 3.5, 3.6. One parameter group only. The state stands with the first
    parameter. Each iteration looks at values.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        if lr < 0.0:
            raise InputError(f"Invalid learning rate: {lr}")
        settings = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, settings)
        if len(self.param_groups) != 1:
            raise InputError("LBFGS doesn't support per-parameter options (parameter groups)")
        if line_search_fn not in (None, "strong_wolfe"):
            raise UsageError("only 'strong_wolfe' is supported")
        self._params: list[Tensor] = self.param_groups[0]["params"]

    def _flat_gradient(self) -> Tensor:
        parts = [p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in self._params]
        return cat(parts, 0)

    def _move(self, length: float, direction: Tensor) -> None:
        place = 0
        for parameter in self._params:
            part = direction[place : place + parameter.numel()]
            parameter.add_(part.view_as(parameter), alpha=length)
            place += parameter.numel()

    def _evaluate(
        self, closure: Closure, start: list[Tensor], direction: Tensor, length: float
    ) -> tuple[float, Tensor]:
        """Loss and gradient at `start + length * direction`; the parameters go back to `start`."""
        self._move(length, direction)
        with enable_grad():
            loss = float(closure())
        gradient = self._flat_gradient()
        for parameter, value in zip(self._params, start, strict=True):
            parameter.copy_(value)
        return loss, gradient

    @no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Runs the iterations; gives the loss before them."""
        if closure is None:
            raise KindError("LBFGS.step() needs a closure that computes the loss and its gradients again")
        group = self.param_groups[0]
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        with enable_grad():
            first_loss = closure()
        loss, evaluations = float(first_loss), 1
        state["func_evals"] += 1
        gradient = self._flat_gradient()
        if _largest(_seen(gradient)) <= group["tolerance_grad"]:
            return first_loss
        direction, length = state.get("d"), state.get("t")
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(state, group, gradient, direction, length)
            state["prev_flat_grad"], state["prev_loss"] = gradient.clone(), loss
            start = min(1.0, 1.0 / float(abs(_seen(gradient)).sum())) if state["n_iter"] == 1 else 1.0
            length = start * group["lr"]
            slope = float(_seen(gradient).dot(_seen(direction)))
            if slope > -group["tolerance_change"]:
                break
            last = iteration == group["max_iter"]
            used = 0
            if group["line_search_fn"] is not None:
                held = [p.clone() for p in self._params]
                at = partial(self._evaluate, closure, held, direction)
                loss, gradient, length, used = strong_wolfe(at, length, direction, loss, gradient, slope)
                self._move(length, direction)
            else:
                self._move(length, direction)
                if not last:
                    with enable_grad():
                        loss = float(closure())
                    gradient, used = self._flat_gradient(), 1
            evaluations += used
            state["func_evals"] += used
            if last or evaluations >= group["max_eval"]:
                break
            if _largest(_seen(gradient)) <= group["tolerance_grad"]:
                break
            if _largest(_seen(direction)) * length <= group["tolerance_change"]:
                break
            if abs(loss - state["prev_loss"]) < group["tolerance_change"] or math.isnan(loss):
                break
        state["d"], state["t"] = direction, length
        return first_loss

    def _direction(
        self, state: dict[str, Any], group: dict[str, Any], gradient: Tensor, direction: Any, length: Any
    ) -> Tensor:
        """The next direction: the product of the inverse Hessian's approximation and the gradient (two loops)."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
            return gradient.neg()
        changes, steps, factors = state["old_dirs"], state["old_stps"], state["ro"]
        change, step = gradient.sub(state["prev_flat_grad"]), direction.mul(length)
        curvature = float(_seen(change).dot(_seen(step)))
        if curvature > 1e-10:
            if len(changes) == group["history_size"]:
                for history in (changes, steps, factors):
                    history.pop(0)
            changes.append(change)
            steps.append(step)
            factors.append(1.0 / curvature)
            state["H_diag"] = curvature / float(_seen(change).dot(_seen(change)))
        found = -_seen(gradient)
        weights = [0.0] * len(changes)
        for i in reversed(range(len(changes))):
            weights[i] = float(_seen(steps[i]).dot(found)) * factors[i]
            found = found - _seen(changes[i]) * weights[i]
        found = found * state["H_diag"]
        for i in range(len(changes)):
            back = float(_seen(changes[i]).dot(found)) * factors[i]
            found = found + _seen(steps[i]) * (weights[i] - back)
        return tensor(found, dtype=gradient.dtype) if isinstance(found, np.ndarray) else found
