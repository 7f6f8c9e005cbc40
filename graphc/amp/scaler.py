"""`GradScaler`: losses are multiplied by a large number, gradients divided by it, so that float16 holds them.

Where gradients overflow, the optimizer's step is left out and the number becomes smaller; after many steps without an
overflow it grows. After P. Micikevicius et al., "Mixed precision training", 2018.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from enum import Enum
from typing import Any

from graphc import dtypes
from graphc.errors import CheckError, InputError, UsageError
from graphc.grad_mode import no_grad
from graphc.recording import current
from graphc.tensors.comparison import isfinite, logical_and, maximum
from graphc.tensors.core import TensorBase
from graphc.tensors.creation import full
from graphc.tensors.ternary import where
from graphc.warned import warn
from graphc_runtime.devices.cuda import is_available

_NOT_SCALED = "This may indicate your script did not use scaler.scale(loss or outputs) earlier in the iteration."
_NEW_SCALE = (
    "new_scale should be a float or a 1-element torch.cuda.FloatTensor or torch.FloatTensor with requires_grad=False."
)


class OptState(Enum):
    """What was done with the gradients of an optimizer since the last `update`."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


def _fresh() -> dict[str, Any]:
    return {"stage": OptState.READY, "found_inf_per_device": {}}


def _held(optimizer: Any) -> list[Any] | None:
    """The parameters and the state that a step changes, where they are all there before it and known: of graphc's
    optimizers, from the second step on.
    """
    if not type(optimizer).__module__.startswith("graphc.optim."):
        return None
    held: dict[int, Any] = {}
    for group in optimizer.param_groups:
        stateless = type(optimizer).__name__ == "SGD" and not group["momentum"]
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = optimizer.state.get(parameter) or {}
            if not (state or stateless) or not all(isinstance(value, TensorBase) for value in state.values()):
                return None
            held.update({id(tensor): tensor for tensor in (parameter, *state.values())})
    return list(held.values())


def _step_where_finite(optimizer: Any, held: list[Any], overflowed: Any, args: Any, kwargs: Any) -> Any:
    """A step of the optimizer whose changes are kept where no gradient overflowed. Nothing is looked at, so that
    `graphc.compile` captures it.
    """
    with no_grad():
        before = [tensor.detach().clone() for tensor in held]
    result = optimizer.step(*args, **kwargs)
    with no_grad():
        for tensor, old in zip(held, before, strict=True):
            tensor.copy_(where(overflowed.to(tensor.device) > 0, old, tensor.detach()))
    return result


class GradScaler:
    """Scales losses and gradients: `scaler.scale(loss).backward()`, `scaler.step(optimizer)`, `scaler.update()`.

    Arguments and methods are PyTorch's. With device "cuda" where there is no CUDA device it warns and does nothing.
    `step` looks at whether gradients are finite, which runs what is pending; in a function that `graphc.compile`
    captures it selects instead.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._device = device
        self._enabled = enabled
        if enabled and device == "cuda" and not is_available():
            warn("torch.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling.")
            self._enabled = False
        if not self._enabled:
            return
        if growth_factor <= 1.0:
            raise CheckError("The growth factor must be > 1.0.")
        if backoff_factor >= 1.0:
            raise CheckError("The backoff factor must be < 1.0.")
        self._init_scale = init_scale
        self._scale: Any = None  # a tensor, from the first `scale` on
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._init_growth_tracker = 0
        self._growth_tracker: Any = None
        self._per_optimizer_states: dict[int, dict[str, Any]] = defaultdict(_fresh)

    def _check_scale_growth_tracker(self, funcname: str) -> tuple[Any, Any]:
        for name, held in (("_scale", self._scale), ("_growth_tracker", self._growth_tracker)):
            if held is None:
                raise CheckError(f"Attempted {funcname} but {name} is None.  {_NOT_SCALED}")
        return self._scale, self._growth_tracker

    def _on(self, device: Any) -> Any:
        """The scale on a device; it is made on the device of the first output that is scaled."""
        if self._scale is None:
            self._scale = full((), self._init_scale, dtype=dtypes.float32, device=device)
            self._growth_tracker = full((), self._init_growth_tracker, dtype=dtypes.int32, device=device)
        return self._scale.to(device=device, non_blocking=True)

    def scale(self, outputs: Any) -> Any:
        """A tensor times the scale, or each of a list of tensors; ValueError for anything else."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, TensorBase):
            return outputs * self._on(outputs.device)  # type: ignore[operator]
        if not isinstance(outputs, Iterable):
            raise InputError("outputs must be a Tensor or an iterable of Tensors")
        scaled = map(self.scale, outputs)
        return type(outputs)(scaled) if isinstance(outputs, list | tuple) else scaled  # type: ignore[call-arg]

    def _unscale_grads_(self, optimizer: Any, inv_scale: Any, found_inf: Any, allow_fp16: bool) -> dict[Any, Any]:
        """Multiplies gradients in place; by device, 1.0 where one is not finite, else 0.0."""
        found: dict[Any, Any] = {}
        with no_grad():
            for group in optimizer.param_groups:
                for param in group["params"]:
                    if not isinstance(param, TensorBase):
                        raise CheckError(f"expected param to be torch.Tensor, got {type(param).__name__}")
                    grad: Any = param.grad  # type: ignore[attr-defined]
                    if grad is None:
                        continue
                    if not allow_fp16 and grad.dtype is dtypes.float16:
                        raise InputError("Attempting to unscale FP16 gradients.")
                    device = grad.device
                    before = found.get(device)
                    if before is None:
                        before = found_inf.to(device=device, non_blocking=True)
                    overflowed = isfinite(grad).logical_not().any().to(dtypes.float32)
                    found[device] = maximum(before, overflowed)
                    scale = inv_scale.to(device=device, non_blocking=True)
                    # Half precision would round the factor before it multiplies.
                    wide = grad.float() if grad.element_size() < 4 else grad
                    grad.copy_(wide * scale)
        return found

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of the optimizer's parameters by the scale, in place, before they are looked at or
        clipped; `step` does it otherwise. RuntimeError for a second call before `update`.
        """
        if not self._enabled:
            return
        self._check_scale_growth_tracker("unscale_")
        state = self._per_optimizer_states[id(optimizer)]
        if state["stage"] is OptState.UNSCALED:
            raise UsageError("unscale_() has already been called on this optimizer since the last update().")
        if state["stage"] is OptState.STEPPED:
            raise UsageError("unscale_() is being called after step().")
        inv_scale = self._scale.double().reciprocal().float()
        found_inf = full((), 0.0, dtype=dtypes.float32, device=self._scale.device)
        state["found_inf_per_device"] = self._unscale_grads_(optimizer, inv_scale, found_inf, False)
        state["stage"] = OptState.UNSCALED

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """`unscale_`, unless it was called; then `optimizer.step(*args, **kwargs)`, unless a gradient is infinite or
        NaN. Gives what that gives, None where it is left out.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise UsageError("Closure use is not currently supported if GradScaler is enabled.")
        self._check_scale_growth_tracker("step")
        state = self._per_optimizer_states[id(optimizer)]
        if state["stage"] is OptState.STEPPED:
            raise UsageError("step() has already been called since the last update().")
        if state["stage"] is OptState.READY:
            self.unscale_(optimizer)
        if not state["found_inf_per_device"]:
            raise CheckError("No inf checks were recorded for this optimizer.")
        result, found = None, state["found_inf_per_device"].values()
        held = _held(optimizer) if current().capture is not None else None
        if held is not None:
            result = _step_where_finite(optimizer, held, sum(found), args, kwargs)
        elif not sum(flag.item() for flag in found):
            result = optimizer.step(*args, **kwargs)
        state["stage"] = OptState.STEPPED
        return result

    def update(self, new_scale: Any = None) -> None:
        """Make the scale smaller if a step was left out, larger after `growth_interval` steps that were not; or
        `new_scale`, a float or a tensor of one element.
        """
        if not self._enabled:
            return
        scale, tracker = self._check_scale_growth_tracker("update")
        if new_scale is None:
            found = [
                flag.to(device=scale.device, non_blocking=True)
                for state in self._per_optimizer_states.values()
                for flag in state["found_inf_per_device"].values()
            ]
            if not found:
                raise CheckError("No inf checks were recorded prior to update.")
            self._grow(scale, tracker, sum(found[1:], found[0]) > 0)
        elif isinstance(new_scale, float):
            scale.fill_(new_scale)
        else:
            if new_scale.device.type != self._device or new_scale.numel() != 1 or new_scale.requires_grad:
                raise CheckError(_NEW_SCALE)
            scale.copy_(new_scale)
        self._per_optimizer_states.clear()

    def _grow(self, scale: Any, tracker: Any, overflowed: Any) -> None:
        """The rule of growth and backoff; nothing is looked at."""
        steps = tracker + 1
        due = steps == self._growth_interval
        grown = (scale.double() * self._growth_factor).float()
        shrunk = (scale.double() * self._backoff_factor).float()
        kept = where(logical_and(due, isfinite(grown)), grown, scale)
        scale.copy_(where(overflowed, shrunk, kept))
        tracker.copy_(where(overflowed | due, full((), 0, dtype=dtypes.int32, device=tracker.device), steps))

    # what is asked and set

    def get_scale(self) -> float:
        """The scale now; 1.0 when this does nothing."""
        if not self._enabled:
            return 1.0
        return self._init_scale if self._scale is None else self._scale.item()

    def get_growth_factor(self) -> float:
        """What the scale is multiplied by to grow."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Choose what the scale is multiplied by to grow."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """What the scale is multiplied by after an overflow."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Choose what the scale is multiplied by after an overflow."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """How many steps in a row without overflow let the scale grow."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Choose how many steps in a row without overflow let the scale grow."""
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        if not self._enabled:
            return 0
        return self._init_growth_tracker if self._growth_tracker is None else self._growth_tracker.item()

    def is_enabled(self) -> bool:
        """Whether this does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """The scale, its rule and the number of steps since its last change; empty when this does nothing."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; RuntimeError for that of a scaler that does nothing."""
        if not self._enabled:
            return
        if not state_dict:
            raise UsageError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler."
            )
        self._init_scale = state_dict["scale"]
        if self._scale is not None:
            self._scale.fill_(state_dict["scale"])
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._init_growth_tracker = state_dict["_growth_tracker"]
        if self._growth_tracker is not None:
            self._growth_tracker.fill_(state_dict["_growth_tracker"])

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._enabled:
            if self._per_optimizer_states:
                raise CheckError(
                    "A GradScaler instance may only be pickled at the beginning of an iteration, or at the end after "
                    "scaler.update()."
                )
            state["_init_scale"] = self.get_scale()
            state["_init_growth_tracker"] = self._get_growth_tracker()
            state["_scale"] = state["_growth_tracker"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _check_inf_per_device(self, optimizer: Any) -> dict[Any, Any]:
        scale, _ = self._check_scale_growth_tracker("_check_inf_per_device")
        one = full((), 1.0, dtype=dtypes.float32, device=scale.device)
        none = full((), 0.0, dtype=dtypes.float32, device=scale.device)
        found = self._unscale_grads_(optimizer, one, none, True)
        self._per_optimizer_states[id(optimizer)]["found_inf_per_device"] = found
        return found

    def _found_inf_per_device(self, optimizer: Any) -> dict[Any, Any]:
        return self._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
