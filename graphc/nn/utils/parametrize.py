"""Parametrizations: a parameter that is computed from others by modules, each time it is read."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from graphc import Tensor, no_grad
from graphc.errors import InputError, UsageError
from graphc.nn.containers import ModuleDict, ModuleList
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter

_cache: dict[tuple[int, str], Tensor] = {}
_cached = 0


@contextmanager
def cached() -> Iterator[None]:
    """Inside this block every parametrized tensor is computed once."""
    global _cached
    _cached += 1
    try:
        yield
    finally:
        _cached -= 1
        if not _cached:
            _cache.clear()


def _keep(module: Module, name: str, value: Tensor) -> None:
    if isinstance(value, Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def _kind(value: Any) -> str:
    return type(value).__name__


class ParametrizationList(ModuleList):
    """The modules that one tensor goes through, and what they start from: `original`, or `original0`, `original1`, ...
    when the last `right_inverse` gives several tensors."""

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if len(modules) == 0:
            raise InputError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        shape, dtype = original.shape, original.dtype
        with no_grad():
            new: Any = original
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    with suppress(NotImplementedError):
                        new = module.right_inverse(new)
        if not isinstance(new, Tensor | Sequence):
            raise InputError(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got " + _kind(new)
            )
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if self.is_tensor else len(new)
        if isinstance(new, Tensor):
            if new.dtype != dtype:
                raise InputError(
                    "When `right_inverse` outputs one tensor, it may not change the dtype.\n"
                    f"original.dtype: {dtype}\nright_inverse(original).dtype: {new.dtype}"
                )
            original.data = new.detach()
            _keep(self, "original", original)
        else:
            for place, part in enumerate(new):
                if not isinstance(part, Tensor):
                    raise InputError(
                        "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got element "
                        f"{place} of the sequence with type {_kind(part)}."
                    )
                if isinstance(original, Parameter):
                    part = Parameter(part, original.requires_grad)
                _keep(self, f"original{place}", part)
        if not unsafe:
            self._check(shape, dtype)

    def _check(self, shape: Any, dtype: Any) -> None:
        made = self()
        if not isinstance(made, Tensor):
            raise InputError(f"A parametrization must return a tensor. Got {_kind(made)}.")
        for what, before, after in (("dtype", dtype, made.dtype), ("shape", shape, made.shape)):
            if before != after:
                raise InputError(
                    f"Registering a parametrization may not change the {what} of the tensor, unless `unsafe` flag is "
                    f"enabled.\nunparametrized {what}: {before}\nparametrized {what}: {after}"
                )

    def right_inverse(self, value: Any) -> None:
        """Lets the originals be what gives `value`. RuntimeError for a module without `right_inverse`."""
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise UsageError(f"parametrization {_kind(module)} does not implement right_inverse.")
                value = module.right_inverse(value)
            parts = (value,) if self.is_tensor else tuple(value)
            if len(parts) != self.ntensors:
                raise InputError(
                    f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. Got a sequence of "
                    f"length {len(parts)}."
                )
            for held, part in zip(self._originals(), parts, strict=True):
                held.data = part.detach()

    def _originals(self) -> tuple[Tensor, ...]:
        names = ("original",) if self.is_tensor else tuple(f"original{place}" for place in range(self.ntensors))
        return tuple(getattr(self, name) for name in names)

    def forward(self) -> Any:
        """The tensor."""
        modules = list(self)
        made = modules[0](*self._originals())
        for module in modules[1:]:
            made = module(made)
        return made


def _property(name: str) -> property:
    def get(self: Any) -> Any:
        if not _cached:
            return self.parametrizations[name]()
        key = (id(self), name)
        if key not in _cache:
            _cache[key] = self.parametrizations[name]()
        return _cache[key]

    return property(get, lambda self, value: self.parametrizations[name].right_inverse(value))


def _own_class(module: Module) -> None:
    """Gives a module a class of its own, where tensors can become properties."""
    cls = type(module)

    def refuse(self: Any) -> Any:
        raise UsageError(
            "Serialization of parametrized modules is only supported through state_dict(). See: "
            "https://pytorch.org/tutorials/beginner/saving_loading_models.html"
            "#saving-loading-a-general-checkpoint-for-inference-and-or-resuming-training"
        )

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        made = self.__new__(type(self))
        memo[id(self)] = made
        made.__dict__ = copy.deepcopy(self.__dict__, memo)
        own = type("Parametrized" + cls.__name__, (cls,), dict(type(self).__dict__))
        made.__class__ = own
        return made

    own = type(f"Parametrized{cls.__name__}", (cls,), {"__getstate__": refuse, "__deepcopy__": deepcopy})
    module.__class__ = own


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Lets `module.tensor_name` be what `parametrization` makes of it. ValueError when the module has no such parameter
    or buffer."""
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        held = module.parametrizations[tensor_name]
        before = getattr(module, tensor_name).detach()
        if not unsafe:
            made = parametrization(before)
            if not isinstance(made, Tensor):
                raise InputError(f"A parametrization must return a tensor. Got {_kind(made)}.")
            for what, old, new in (("dtype", before.dtype, made.dtype), ("shape", before.shape, made.shape)):
                if old != new:
                    raise InputError(
                        f"Registering a parametrization may not change the {what} of the tensor, unless the `unsafe` "
                        f"flag is enabled.\nmodule.{tensor_name}.{what}: {old}\n"
                        f"parametrization(module.{tensor_name}).{what}: {new}"
                    )
        held.append(parametrization)
        if hasattr(parametrization, "right_inverse"):
            held.right_inverse(before)
        held.unsafe = held.unsafe or unsafe
        return module
    if tensor_name not in module._buffers and tensor_name not in module._parameters:
        raise InputError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name "
            f"'{tensor_name}'"
        )
    original = getattr(module, tensor_name)
    held = ParametrizationList([parametrization], original, unsafe=unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        _own_class(module)
        module.parametrizations = ModuleDict()
    setattr(type(module), tensor_name, _property(tensor_name))
    module.parametrizations[tensor_name] = held
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether anything, or one tensor, of the module is parametrized."""
    held = module.__dict__.get("_modules", {}).get("parametrizations")
    if not isinstance(held, ModuleDict):
        return False
    return len(held) > 0 if tensor_name is None else tensor_name in held


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Makes the tensor an ordinary one again: as it is now, or, if not `leave_parametrized`, as it was computed
    from."""
    if not is_parametrized(module, tensor_name):
        raise InputError(f"Module {module} does not have a parametrization on {tensor_name}")
    held = module.parametrizations[tensor_name]
    original = held._originals()[0]
    if leave_parametrized:
        with no_grad():
            made = getattr(module, tensor_name)
        if held.is_tensor:
            original.data = made.detach()
        else:
            original = Parameter(made) if isinstance(original, Parameter) else made
    elif not held.is_tensor:
        raise InputError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms of a "
            "sequence of tensors."
        )
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    _keep(module, tensor_name, original)
    if not is_parametrized(module):
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """The class of a module, or the one it had before it was parametrized."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)
