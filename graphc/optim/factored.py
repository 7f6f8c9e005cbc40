"""Optimizers that treat a matrix as a whole: Adafactor and Muon; and SparseAdam, which needs sparse gradients."""

from __future__ import annotations

import math
from typing import Any

from graphc import Tensor, addmm, bfloat16, finfo, float64, norm
from graphc.errors import InputError, UsageError
from graphc.optim.optimizer import Optimizer, Params
from graphc.optim.stepped import SteppedOptimizer
from graphc.recorder import state_zeros


class Adafactor(SteppedOptimizer):
    """Steps along gradients over the root of an estimate of their mean squares, which for matrices is the product of
    the means of rows and of columns.

    N. Shazeer, M. Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018. The rate is `max(eps2,
    |p|) · min(lr, 1/sqrt(t))` over the root mean square of the step where that is above `d`. State: `step`, and
    `row_var`, `col_var` (of two dimensions and more) or `variance`.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        if not lr >= 0.0:
            raise InputError(f"Learning rate should be >= 0 but is: {lr}")
        if not beta2_decay <= 0.0:
            raise InputError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[0] is not None and not eps[0] >= 0.0:
            raise InputError(f"epsilon1 should be >= 0 but is: {eps[0]}")
        if not eps[1] >= 0.0:
            raise InputError(f"epsilon2 should be >= 0 but is: {eps[1]}")
        if not d >= 1.0:
            raise InputError(f"Clipping threshold d should be >= 1 but is: {d}")
        if not weight_decay >= 0.0:
            raise InputError(f"weight_decay should be >= 0 but is: {weight_decay}")
        settings = {"lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "foreach": foreach, "maximize": maximize})

    def _fresh(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        if parameter.dim() < 2:
            return {"variance": state_zeros(parameter)}
        whole = parameter.detach()
        return {"row_var": state_zeros(whole[..., :1]), "col_var": state_zeros(whole[..., :1, :])}

    def _update(self, group: dict[str, Any]) -> None:
        lr = self._scalar(lambda: group["lr"])
        decay2 = self._scalar(lambda: group["beta2_decay"])
        least = self._scalar(lambda: group["eps"][1])
        threshold = self._scalar(lambda: group["d"])
        decays = self._structure(lambda: group["weight_decay"] != 0)
        shrink = self._scalar(lambda: 1 - group["lr"] * group["weight_decay"]) if decays else None
        maximize = self._maximize(group)

        def rates(count: Tensor) -> tuple[Tensor, ...]:
            return count**decay2, (1 / count.sqrt()).clamp(max=lr)

        def move(parameter: Tensor, state: dict[str, Tensor], fresh: Tensor, rate: Tensor) -> None:
            gradient = self._gradient(parameter, maximize, None)
            alpha = (_rms(parameter).to(float64)).clamp(min=least) * rate
            if shrink is not None:
                parameter.mul_(shrink)
            tiny = finfo(parameter.dtype).eps if group["eps"][0] is None else group["eps"][0]
            estimate = self._estimate(state, gradient, fresh, tiny)
            update = estimate.clamp(min=tiny * tiny).rsqrt() * gradient
            scale = alpha / (_rms(update).to(float64) / threshold).clamp(min=1.0)
            parameter.sub_(update * scale.to(update.dtype))

        for step, members in self._advance(group):
            self._move(
                (maximize, shrink is not None, group["eps"][0]),
                step,
                members,
                [lr, decay2, least, threshold, shrink],
                move,
                rates,
            )

    @staticmethod
    def _estimate(state: dict[str, Tensor], gradient: Tensor, fresh: Tensor, tiny: float) -> Tensor:
        """The mean squares of the gradient, of which a part `fresh` is new."""
        fresh = fresh.to(gradient.dtype)
        if gradient.dim() < 2:
            return state["variance"].lerp_(gradient * gradient, fresh)
        rows, columns = state["row_var"], state["col_var"]
        rows.lerp_(_over(norm(gradient, dim=-1, keepdim=True).square(), gradient.size(-1)), fresh)
        columns.lerp_(_over(norm(gradient, dim=-2, keepdim=True).square(), gradient.size(-2)), fresh)
        return (rows @ columns) / rows.mean(dim=-2, keepdim=True).clamp(min=tiny)


def _rms(tensor: Tensor) -> Tensor:
    return _over(norm(tensor), tensor.numel() ** 0.5)


def _over(tensor: Tensor, number: float) -> Tensor:
    """`tensor / number` with the number as a constant: it depends on nothing but shapes."""
    return tensor / tensor.new_full((), number)


def _orthogonalised(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Near U Vᵀ of the singular value decomposition, in bf16: Newton-Schulz steps `X <- a·X + (b·A + c·A²)·X` with `A =
    X Xᵀ`, from X of norm one."""
    if steps >= 100:
        raise InputError("Number of steps must be less than 100 for computational efficiency")
    if matrix.dim() != 2:
        raise InputError("Input tensor gradient must be a 2D matrix")
    if len(coefficients) != 3:
        raise InputError("Coefficients must be a tuple of exactly 3 values")
    a, b, c = coefficients
    tall = matrix.size(0) > matrix.size(1)
    x = matrix.to(bfloat16)
    x = x.t() if tall else x
    x = x / norm(x).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.t()
        x = addmm(x, addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.t() if tall else x


class Muon(Optimizer):
    """Momentum of matrices, made orthogonal. K. Jordan et al., "Muon: an optimizer for hidden layers", 2024.

    `adjust_lr_fn`: "original" (or None) multiplies the rate by `sqrt(max(1, rows / columns))`, "match_rms_adamw" by
    `0.2 · sqrt(max(rows, columns))`. State: `momentum_buffer`. ValueError for parameters that are no matrices.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        if not lr >= 0.0:
            raise InputError(f"Learning rate should be >= 0 but is: {lr}")
        if not momentum >= 0.0:
            raise InputError(f"momentum should be >= 0 but is: {momentum}")
        if not weight_decay >= 0.0:
            raise InputError(f"weight decay should be >= 0 but is: {weight_decay}")
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise InputError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        settings = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        settings |= {"ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps}
        super().__init__(params, {**settings, "adjust_lr_fn": adjust_lr_fn})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.dim() != 2:
                    raise InputError(
                        f"Muon only supports 2D parameters whereas we found a parameter with size: {parameter.size()}"
                    )

    def _update(self, group: dict[str, Any]) -> None:
        rest = self._scalar(lambda: 1 - group["momentum"])
        momentum = self._scalar(lambda: group["momentum"])
        shrink = self._scalar(lambda: 1 - group["lr"] * group["weight_decay"])
        nesterov = self._structure(lambda: bool(group["nesterov"]))
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = state_zeros(parameter)
            buffer = state["momentum_buffer"].lerp_(gradient, rest)
            update = gradient.lerp(buffer, momentum) if nesterov else buffer
            update = _orthogonalised(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
            factor = _adjustment(group["adjust_lr_fn"], *parameter.shape)
            rate = self._scalar(lambda factor=factor: -group["lr"] * factor)
            parameter.mul_(shrink)
            parameter.add_(update * rate)


def _adjustment(kind: str | None, rows: int, columns: int) -> float:
    if kind == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


class SparseAdam(Optimizer):
    """Adam for sparse gradients. There are no sparse tensors, so a step with gradients raises RuntimeError, as
    PyTorch's does for dense ones."""

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        if not lr > 0.0:
            raise InputError(f"Invalid learning rate: {lr}")
        if not eps > 0.0:
            raise InputError(f"Invalid epsilon value: {eps}")
        for place, beta in enumerate(betas):
            if not 0.0 <= beta < 1.0:
                raise InputError(f"Invalid beta parameter at index {place}: {beta}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})

    def _update(self, group: dict[str, Any]) -> None:
        if any(parameter.grad is not None for parameter in group["params"]):
            raise UsageError("SparseAdam does not support dense gradients, please consider Adam instead")
