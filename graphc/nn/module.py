"""Module: the base of every layer and model, with PyTorch's attribute rules, state dictionaries and printing.

**Guards of `graphc.compile`.** A compiled step depends on the Python values that a module holds (`training`, a dropout
rate, a stride). Every attribute write that changes something, every registration of a parameter, buffer, child or hook
and every deletion adds one to a process-wide counter, `attribute_version()`. While it stands still, no guarded
attribute can have changed, so one integer comparison stands for all of them; when it moved, the values themselves are
compared. Objects changed from within (a list kept as an attribute) do not move it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc import Tensor
from graphc import compile as compile_step
from graphc.errors import InputError, KindError, UnsupportedError, UsageError
from graphc.gradients import RemovableHandle
from graphc.nn.conversion import ModuleConversion
from graphc.nn.global_hooks import CALLED, GlobalHooks, replaced
from graphc.nn.hook_tables import TABLES, attribute_version, count_write, enter, give_tables
from graphc.nn.hooks import call_with_hooks
from graphc.nn.parameter import Buffer, Parameter
from graphc.nn.state import IncompatibleKeys, ModuleState

_ALL_PRE, _ALL_AFTER, _ALL_BACKWARD_PRE, _ALL_BACKWARD = CALLED

__all__ = ["IncompatibleKeys", "Module", "attribute_version"]


def typename(value: Any) -> str:
    """The name of a value's type as error messages spell it."""
    if isinstance(value, Tensor):
        return value.type()
    kind = type(value)
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__builtin__") else f"{module}.{kind.__qualname__}"


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")


class Module(ModuleState, ModuleConversion):
    """Base class of layers and models.

    A subclass calls `super().__init__()`, assigns parameters and child modules to attributes, and defines `forward`.
    Parameters, buffers and children are found in the order in which they were assigned.
    """

    # Tells the guards of `graphc.compile` that writes to instances are counted, and where.
    _attribute_version = staticmethod(attribute_version)
    # Which tables only count their changes, and those of all modules.
    _counted_tables = ("_parameters", "_buffers", "_modules", *TABLES)
    _global_tables = CALLED

    # What `graphc.compile` makes of a module; `graphc.nn.optimized` says it.
    _optimized: type[Module]

    call_super_init = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init:
            if kwargs:
                raise KindError(
                    f"{self._get_name()}.__init__() got an unexpected keyword argument '{next(iter(kwargs))}'"
                )
            if args:
                raise KindError(
                    f"{self._get_name()}.__init__() takes 1 positional argument but {len(args) + 1} were given"
                )
        fields = self.__dict__
        fields["training"] = True
        fields["_parameters"] = {}
        fields["_buffers"] = {}
        fields["_non_persistent_buffers_set"] = set()
        give_tables(fields)
        fields["_modules"] = {}
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    def _unimplemented(self, *input: Any) -> None:
        raise UnsupportedError(f'Module [{self._get_name()}] is missing the required "forward" function')

    forward: Callable[..., Any] = _unimplemented

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        fields = self.__dict__
        if (
            fields["_forward_hooks"]
            or fields["_forward_pre_hooks"]
            or fields["_backward_hooks"]
            or fields["_backward_pre_hooks"]
            or _ALL_PRE
            or _ALL_AFTER
            or _ALL_BACKWARD_PRE
            or _ALL_BACKWARD
        ):
            return call_with_hooks(self, args, kwargs)
        return self.forward(*args, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__.setdefault("_non_persistent_buffers_set", set())
        give_tables(self.__dict__)
        count_write()

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Lets calls of this module run through `graphc.compile`."""
        self.forward = compile_step(self.forward, *args, **kwargs)

    # hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """`hook(module, args)` (or with the keywords as third argument) runs before `forward` and may return other
        arguments."""
        marks = (self._forward_pre_hooks_with_kwargs,) if with_kwargs else ()
        return enter(self._forward_pre_hooks, hook, prepend, marks)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """`hook(module, args, output)` (or `hook(module, args, kwargs, output)`) runs after `forward` and may return
        another output; with `always_call` also when `forward` raised."""
        marks = (self._forward_hooks_with_kwargs,) if with_kwargs else ()
        if always_call:
            marks += (self._forward_hooks_always_called,)
        return enter(self._forward_hooks, hook, prepend, marks)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """`hook(module, grad_output)` runs when the gradients of the outputs are there and may return others."""
        return enter(self._backward_pre_hooks, hook, prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """`hook(module, grad_input, grad_output)` runs around the module's last operation. Deprecated:
        `register_full_backward_hook` gives the gradients of the module's own inputs."""
        return self._enter_backward(hook, False, False)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """`hook(module, grad_input, grad_output)` runs when the gradients of the inputs are there and may return other
        ones of the inputs."""
        return self._enter_backward(hook, True, prepend)

    def _enter_backward(self, hook: Callable[..., Any], full: bool, prepend: bool) -> RemovableHandle:
        if self._is_full_backward_hook is not None and self._is_full_backward_hook is not full:
            raise UsageError(
                "Cannot use both regular backward hooks and full backward hooks on a single Module. Please use only "
                "one of them."
            )
        self._is_full_backward_hook = full
        return enter(self._backward_hooks, hook, prepend)

    # attributes

    def _tables(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return self._parameters, self._buffers, self._modules

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__
        if "_modules" in fields:  # the last table that `__init__` makes
            if name in (entries := fields["_parameters"]):
                return entries[name]
            if name in (entries := fields["_buffers"]):
                return entries[name]
            if name in (entries := fields["_modules"]):
                return entries[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'", name=name, obj=self)

    def _own_parameters(self) -> tuple[Any, Any]:
        """`self.weight, self.bias`, from the table of parameters at once where they are there, as in most layers."""
        table = self._parameters
        if "weight" in table and "bias" in table:
            return table["weight"], table["bias"]
        return self.weight, self.bias

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dict__
        if isinstance(value, Parameter):
            self._vacate(name, "_parameters", "parameters")
            self.register_parameter(name, value)
            return
        if name in fields.get("_parameters", ()):
            if value is not None:
                raise KindError(
                    f"cannot assign '{typename(value)}' as parameter '{name}' (torch.nn.Parameter or None expected)"
                )
            self.register_parameter(name, None)
            return
        if isinstance(value, Module):
            self._vacate(name, "_modules", "module")
            self._modules[name] = replaced(GlobalHooks.module_registration, self, name, value)
            count_write()
            return
        if name in fields.get("_modules", ()):
            if value is not None:
                raise KindError(
                    f"cannot assign '{typename(value)}' as child module '{name}' (torch.nn.Module or None expected)"
                )
            self._modules[name] = replaced(GlobalHooks.module_registration, self, name, None)
            count_write()
            return
        if isinstance(value, Buffer) or name in fields.get("_buffers", ()):
            self._set_buffer(name, value)
            return
        same = name in fields and fields[name] is value
        object.__setattr__(self, name, value)
        if not same:
            count_write()

    def _set_buffer(self, name: str, value: Any) -> None:
        if value is not None and not isinstance(value, Tensor):
            raise KindError(
                f"cannot assign '{typename(value)}' as buffer '{name}' (torch.nn.Buffer, torch.Tensor or None expected)"
            )
        if isinstance(value, Buffer):
            persistent = value.persistent
        else:
            persistent = name not in self._non_persistent_buffers_set
        self._vacate(name, "_buffers", "buffer")
        self.register_buffer(name, value, persistent)

    def _vacate(self, name: str, own: str, what: str) -> None:
        """Takes a name from wherever else it stands, before it goes into the table `own`."""
        fields = self.__dict__
        if own not in fields:
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")
        fields.pop(name, None)
        for table in ("_parameters", "_buffers", "_modules"):
            if table != own:
                fields[table].pop(name, None)
        if own != "_buffers":
            self._non_persistent_buffers_set.discard(name)

    def __delattr__(self, name: str) -> None:
        for entries in self._tables():
            if name in entries:
                del entries[name]
                self._non_persistent_buffers_set.discard(name)
                count_write()
                return
        object.__delattr__(self, name)
        count_write()

    def __dir__(self) -> list[str]:
        names = [*dir(type(self)), *self.__dict__]
        for entries in self._tables():
            names += entries
        return sorted(name for name in names if not name[0].isdigit())

    def _check_name(self, name: str, own: str, what: str) -> None:
        fields = self.__dict__
        if own not in fields:
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")
        if not isinstance(name, str):
            raise KindError(f"{what} name should be a string. Got {typename(name)}")
        if what == "module":
            self._refuse_taken(name, own)
        if "." in name:
            raise KeyError(f'{what} name can\'t contain "."' + (f", got: {name}" if what == "module" else ""))
        if name == "":
            raise KeyError(f'{what} name can\'t be empty string ""')
        self._refuse_taken(name, own)

    def _refuse_taken(self, name: str, own: str) -> None:
        if hasattr(self, name) and name not in self.__dict__[own]:
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter, or None to keep the name for one. TypeError unless it is a `Parameter`."""
        self._check_name(name, "_parameters", "parameter")
        if param is not None and not isinstance(param, Parameter):
            raise KindError(
                f"cannot assign '{typename(param)}' object to parameter '{name}' (torch.nn.Parameter or None required)"
            )
        if param is not None and not param.is_leaf:
            raise InputError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created explicitly. To "
                f"express '{name}' as a function of another Tensor, compute the value in the forward() method."
            )
        if param is not None:
            param = replaced(GlobalHooks.parameter_registration, self, name, param)
        self._parameters[name] = param
        count_write()

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is state but not trained; it is saved in `state_dict` when `persistent`."""
        self._check_name(name, "_buffers", "buffer")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise KindError(
                f"cannot assign '{typename(tensor)}' object to buffer '{name}' (torch Tensor or None required)"
            )
        self._buffers[name] = replaced(GlobalHooks.buffer_registration, self, name, tensor)
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)
        count_write()

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a child module, or None to keep the name for one. KeyError when `name` is another attribute."""
        if module is not None and not isinstance(module, Module):
            raise KindError(f"{typename(module)} is not a Module subclass")
        self._check_name(name, "_modules", "module")
        self._modules[name] = replaced(GlobalHooks.module_registration, self, name, module)
        count_write()

    def register_module(self, name: str, module: Module | None) -> None:
        """`add_module` under another name."""
        self.add_module(name, module)

    # text

    def extra_repr(self) -> str:
        """What stands between the parentheses of this module's own line; subclasses override it."""
        return ""

    def _child_lines(self) -> list[str]:
        return [f"({name}): {_indent(repr(child))}" for name, child in self._modules.items()]

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = self._child_lines()
        if len(lines) <= 1 and not children:
            return f"{self._get_name()}({extra})"
        body = "\n  ".join([*lines, *children])
        return f"{self._get_name()}(\n  {body}\n)"
