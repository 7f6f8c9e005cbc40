"""State dictionaries: saving the tensors of a module under their names and loading them back."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, NamedTuple

from graphc import Tensor, no_grad
from graphc.errors import CheckError, KindError, UsageError
from graphc.gradients import RemovableHandle
from graphc.nn.hook_tables import LoadHook, enter
from graphc.nn.parameter import Parameter, is_lazy
from graphc.nn.tree import ModuleTree

EXTRA_STATE = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` returns: keys the model lacked in the mapping, and keys it did not know."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"

    __str__ = __repr__


class ModuleState(ModuleTree):
    """The methods of `Module` that save and load."""

    _version: int = 1

    def get_extra_state(self) -> Any:
        """What else a subclass saves; it overrides this together with `set_extra_state`."""
        raise UsageError(f"{self._get_name()} has no extra state: override get_extra_state and set_extra_state")

    def set_extra_state(self, state: Any) -> None:
        """Takes back what `get_extra_state` gave."""
        raise UsageError(f"{self._get_name()} has no extra state: override get_extra_state and set_extra_state")

    def _has_extra(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(ModuleState, method)

    # hooks

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """`hook(module, prefix, keep_vars)` runs before this module saves itself."""
        return enter(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """`hook(module, state_dict, prefix, local_metadata)` runs after this module and its children were saved; it
        changes `state_dict` in place and returns None."""
        hook._from_public_api = True  # type: ignore[attr-defined]
        return enter(self._state_dict_hooks, hook)

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        if getattr(hook, "_from_public_api", False):
            raise UsageError(
                "Cannot register the same function as the state dict post hook that was previously registered via "
                "register_state_dict_post_hook"
            )
        return enter(self._state_dict_hooks, hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """`hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)` runs
        before this module loads its own tensors."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], with_module: bool = False
    ) -> RemovableHandle:
        return enter(self._load_state_dict_pre_hooks, LoadHook(hook, with_module))

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """`hook(module, incompatible_keys)` runs after this module and its children were loaded; it may change the
        lists of keys in place."""
        return enter(self._load_state_dict_post_hooks, hook)

    # saving

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name, parameter in self._parameters.items():
            if parameter is not None:
                destination[prefix + name] = parameter if keep_vars else parameter.detach()
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers_set:
                destination[prefix + name] = buffer if keep_vars else buffer.detach()
        if self._has_extra("get_extra_state"):
            destination[prefix + EXTRA_STATE] = self.get_extra_state()

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Name to tensor of all parameters and persistent buffers; the tensors share memory with the model's, without
        their gradients' history unless `keep_vars`. The form of each module's part is in the mapping's `_metadata`."""
        if args:
            warnings.warn(
                "Positional args are being deprecated, use kwargs instead. Refer to "
                "https://pytorch.org/docs/main/generated/torch.nn.Module.html#torch.nn.Module.state_dict for details.",
                FutureWarning,
                stacklevel=2,
            )
            destination = args[0] if destination is None else destination
            prefix = args[1] if len(args) > 1 and prefix == "" else prefix
            keep_vars = args[2] if len(args) > 2 and not keep_vars else keep_vars
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local
        for hook in tuple(self._state_dict_pre_hooks.values()):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in tuple(self._state_dict_hooks.values()):
            made = hook(self, destination, prefix, local)
            if made is None:
                continue
            if getattr(hook, "_from_public_api", False):
                raise UsageError("state_dict post-hook must return None")
            destination = made
        return destination

    # loading

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load what is this module's own, not its children's; problems go into the three lists."""
        for hook in tuple(self._load_state_dict_pre_hooks.values()):
            first = (self,) if hook.with_module else ()
            hook.hook(*first, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        own: dict[str, Tensor] = {}
        for name, held in chain(self._parameters.items(), self._buffers.items()):
            if held is not None and name not in self._non_persistent_buffers_set:
                own[name] = held
        assign = local_metadata.get("assign_to_params_buffers", False)
        for name, held in own.items():
            key = prefix + name
            if key in state_dict:
                self._load_one(name, key, held, state_dict[key], assign, error_msgs)
            elif strict:
                missing_keys.append(key)
        extra = prefix + EXTRA_STATE
        if self._has_extra("set_extra_state"):
            if extra in state_dict:
                self.set_extra_state(state_dict[extra])
            elif strict:
                missing_keys.append(extra)
        elif strict and extra in state_dict:
            unexpected_keys.append(extra)
        if strict:
            for key in state_dict:
                if key.startswith(prefix) and key != extra:
                    first = key[len(prefix) :].split(".", 1)
                    known = first[0] in self._modules if len(first) > 1 else first[0] in own
                    if not known:
                        unexpected_keys.append(key)

    def _load_one(self, name: str, key: str, held: Tensor, given: Any, assign: bool, errors: list[str]) -> None:
        if not isinstance(given, Tensor):
            errors.append(
                f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object from '
                f"checkpoint but received {type(given)}"
            )
            return
        lazy = is_lazy(held)
        if not lazy and held.dim() == 0 and given.dim() == 1:
            given = given[0]  # a number, as very old checkpoints hold it
        if not lazy and tuple(given.shape) != tuple(held.shape):
            errors.append(
                f"size mismatch for {key}: copying a param with shape {given.shape} from checkpoint, "
                f"the shape in current model is {held.shape}."
            )
            return
        try:
            with no_grad():
                if not assign:
                    held.copy_(given)
                elif isinstance(held, Parameter):
                    if isinstance(given, Parameter):
                        given.requires_grad_(held.requires_grad)
                    else:
                        given = Parameter(given, requires_grad=held.requires_grad)
                    setattr(self, name, given)
                else:
                    setattr(self, name, given)
        except Exception as error:
            errors.append(
                f'While {"assigning" if assign else "copying"} the parameter named "{key}", whose dimensions in the '
                f"model are {held.size()} and whose dimensions in the checkpoint are {given.size()}, an exception "
                f"occurred : {error.args}."
            )

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copies values into the parameters and buffers of the same names, or with `assign` puts the given tensors in
        their place.

        RuntimeError lists every missing and unexpected key (when `strict`) and every shape that differs; values that
        fit have been copied all the same, as in PyTorch.
        """
        if not isinstance(state_dict, Mapping):
            raise KindError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        metadata = getattr(state_dict, "_metadata", None)
        held: Any = OrderedDict(state_dict)

        def load(module: Any, part: Any, prefix: str) -> None:
            local = {} if metadata is None else dict(metadata.get(prefix[:-1], {}))
            if assign:
                local["assign_to_params_buffers"] = assign
            module._load_from_state_dict(part, prefix, local, True, missing, unexpected, errors)
            for name, child in module._modules.items():
                if child is not None:
                    start = f"{prefix}{name}."
                    load(child, {k: v for k, v in part.items() if k.startswith(start)}, start)
            keys = IncompatibleKeys(missing, unexpected)
            for hook in tuple(module._load_state_dict_post_hooks.values()):
                if hook(module, keys) is not None:
                    raise CheckError(
                        "Hooks registered with ``register_load_state_dict_post_hook`` are not expected to return new "
                        "values, if incompatible_keys need to be modified, it should be done inplace."
                    )

        load(self, held, "")
        if strict:
            for what, names in (("Unexpected", unexpected), ("Missing", missing)):
                if names:
                    listed = ", ".join(f'"{name}"' for name in names)
                    errors.insert(0, f"{what} key(s) in state_dict: {listed}. ")
        if errors:
            listed = "\n\t".join(errors)
            raise UsageError(f"Error(s) in loading state_dict for {self._get_name()}:\n\t{listed}")
        return IncompatibleKeys(missing, unexpected)
