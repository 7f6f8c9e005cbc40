"""Optimizer: the base of all optimizers, with PyTorch's parameter groups and state dictionaries.

Hyper-parameters reach programs as run-time values (`Optimizer._scalar`): writing `param_group["lr"]` between steps
compiles nothing, also when the step is replayed by `graphc.compile`, which reads the groups again at every call. That
is why groups are never replaced, only updated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from graphc import Tensor, enable_grad, float32, no_grad, tensor
from graphc.errors import InputError, KindError, UnsupportedError, UsageError
from graphc.optim.hooks import OptimizerHooks, with_hooks
from graphc.optim.hooks import register_optimizer_step_post_hook as register_optimizer_step_post_hook
from graphc.optim.hooks import register_optimizer_step_pre_hook as register_optimizer_step_pre_hook
from graphc.recorder import RuntimeScalars, Update, runtime_choice, step_apart, update

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
Closure = Callable[[], Any]


class Optimizer(OptimizerHooks):
    """Base of optimizers: define `_update(group)`, which changes the group's parameters by their gradients.

    `params` is an iterable of tensors or of dictionaries with the key "params" and own hyper-parameters; `defaults`
    holds the hyper-parameters of groups that lack them. `state` maps a parameter to its dictionary of tensors and
    numbers.

    The flags of a group that tell PyTorch how to go about a step are kept: `foreach`, `fused` and `capturable` change
    nothing here, as a step is recorded and compiled as a whole anyway. `differentiable` is refused.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise KindError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got a Tensor"
            )
        self.defaults = defaults
        self._give_tables()
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups: list[Any] = list(params)
        if not groups:
            raise InputError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _give_tables(self) -> None:
        super()._give_tables()
        self._numbers = RuntimeScalars()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_numbers"]
        return state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group: a dictionary with "params" (a tensor, an iterable of them, or of pairs of a name and a tensor)
        and its own hyper-parameters. Names are kept as "param_names"; all groups have them or none.
        """
        if not isinstance(param_group, dict):
            raise KindError(f"param_group must be a dict, but got {type(param_group)}")
        group = dict(param_group)
        given = group["params"]
        if isinstance(given, set):
            raise KindError("optimizer parameters need to be organized in ordered collections, not in a set")
        members = [given] if isinstance(given, Tensor) else list(given)
        names = [item[0] for item in members if isinstance(item, tuple)]
        if names and len(names) != len(members):
            raise InputError("all optimizer params should be with/without names. Some param names are missing")
        members = [item[1] if isinstance(item, tuple) else item for item in members]
        for parameter in members:
            if not isinstance(parameter, Tensor):
                raise KindError(f"optimizer can only optimize Tensors, but one of the params is {type(parameter)}")
            if not parameter.is_leaf:
                raise InputError("can't optimize a non-leaf Tensor")
        group["params"] = members
        if names:
            group["param_names"] = names
        for name, value in self.defaults.items():
            group.setdefault(name, value)
        _check_flags(group)
        if any(("param_names" in other) != ("param_names" in group) for other in self.param_groups):
            kind = "with names" if "param_names" in group else "without names"
            raise InputError(
                "all optimizer param groups should be with/without names. "
                f"cannot add param group {kind} to the optimizer"
            )
        taken = {id(p) for other in self.param_groups for p in other["params"]}
        if any(id(p) in taken for p in members):
            raise InputError("some parameters appear in more than one parameter group")
        if len({id(p) for p in members}) != len(members):
            raise InputError("optimizer contains a parameter group with duplicate parameters")
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all parameters, or fills them with zeros."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        if set_to_none:
            for parameter in parameters:
                parameter.grad = None
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        for gradient in gradients:
            if gradient.grad_fn is not None:
                gradient.detach_()
            else:  # may be a view, as parts of one buffer are
                gradient.requires_grad_(False)
        with no_grad():
            update(("zero_grad",), [Update([g], [], partial(_clear, g)) for g in gradients], ())

    @with_hooks
    def step(self, closure: Closure | None = None) -> Any:
        """Changes the parameters once. `closure`, if given, computes the loss and its gradients again; it is
        returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad(), step_apart():
            self._numbers.begin()
            for group in self.param_groups:
                self._update(group)
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        raise NotImplementedError

    def _scalar(self, compute: Callable[[], float]) -> Any:
        """A number that `compute` reads from a group, as a run-time value of programs."""
        return self._numbers.scalar(compute)

    @staticmethod
    def _structure(compute: Callable[[], bool]) -> bool:
        """A choice read from a group that decides which operations a step records; a captured step is guarded by it."""
        return runtime_choice(compute)

    def state_dict(self) -> dict[str, Any]:
        """`{"state": {number: ...}, "param_groups": [...]}`, parameters written as numbers in the order of the
        groups."""
        for hook in tuple(self._optimizer_state_dict_pre_hooks.values()):
            hook(self)
        numbers: dict[int, int] = {}
        groups: list[dict[str, Any]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                numbers.setdefault(id(parameter), len(numbers))
            packed = {name: value for name, value in group.items() if name != "params"}
            packed["params"] = [numbers[id(parameter)] for parameter in group["params"]]
            groups.append(packed)
        state = {numbers[id(p)]: dict(entries) for p, entries in self.state.items() if id(p) in numbers}
        saved: dict[str, Any] = {"state": state, "param_groups": groups}
        for hook in tuple(self._optimizer_state_dict_post_hooks.values()):
            made = hook(self, saved)
            saved = saved if made is None else made
        return saved

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over hyper-parameters and copies of the state; ValueError when the groups do not have the same
        sizes."""
        for hook in tuple(self._optimizer_load_state_dict_pre_hooks.values()):
            state_dict = dict(state_dict)
            made = hook(self, state_dict)
            state_dict = state_dict if made is None else made
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise InputError("loaded state dict has a different number of parameter groups")
        sizes = zip(self.param_groups, saved, strict=True)
        if any(len(group["params"]) != len(other["params"]) for group, other in sizes):
            raise InputError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )
        for other in saved:
            _check_flags(other)
        for group, other in zip(self.param_groups, saved, strict=True):
            group.update({name: value for name, value in other.items() if name != "params"})
        self.state.clear()
        for group, other in zip(self.param_groups, saved, strict=True):
            steps: dict[Any, Tensor] = {}  # of this group alone: each group counts its own steps
            for number, parameter in zip(other["params"], group["params"], strict=True):
                entries = state_dict["state"].get(number)
                if entries is not None:
                    self.state[parameter] = {
                        name: _adopt_step(value, steps, parameter) if name == "step" else _adopt(value, parameter)
                        for name, value in entries.items()
                    }
        for hook in tuple(self._optimizer_load_state_dict_post_hooks.values()):
            hook(self)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines.extend(f"    {name}: {group[name]}" for name in sorted(group) if name != "params")
        return "\n".join([*lines, ")"])


def _check_flags(group: Mapping[str, Any]) -> None:
    """RuntimeError for flags that PyTorch refuses together, NotImplementedError for `differentiable`."""
    if group.get("fused") and group.get("differentiable"):
        raise UsageError("`fused` does not support `differentiable`")
    if group.get("fused") and group.get("foreach"):
        raise UsageError("`fused` and `foreach` cannot be `True` together.")
    if group.get("differentiable"):
        raise UnsupportedError(
            "differentiable=True: no gradients flow through steps of optimizers; write the step with tensor "
            "operations, such as w - lr * g"
        )


def _clear(gradient: Tensor) -> None:
    gradient.zero_()


def _adopt_step(value: Any, steps: dict[Any, Tensor], parameter: Tensor) -> Tensor:
    """A step count beside the parameter; equal ones become one tensor, so that their corrections are computed once."""
    key = float(value), parameter.device
    if key not in steps:
        steps[key] = tensor(key[0], dtype=float32, device=key[1])
    return steps[key]


def _adopt(value: Any, parameter: Tensor) -> Any:
    """A copy of a saved state entry, in the parameter's dtype and place."""
    if not isinstance(value, Tensor):
        return value
    with no_grad():
        copied = value.detach().clone()
        return copied.to(parameter.device, parameter.dtype if copied.is_floating_point() else copied.dtype)
