"""Module: the base of every layer and model, with PyTorch's attribute rules, state dictionaries and printing.

**Guards of `graphc.compile`.** A compiled step depends on the Python values that a module holds (`training`, a dropout
rate, a stride). Every attribute write that changes something, every registration of a parameter, buffer or child and
every deletion adds one to a process-wide counter, `attribute_version()`. While it stands still, no guarded attribute
can have changed, so one integer comparison stands for all of them; when it moved, the values themselves are compared.
Objects changed from within (a list kept as an attribute) do not move it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

from graphc import Tensor, no_grad
from graphc.nn.parameter import Parameter

_version = 0


def attribute_version() -> int:
    """How many attribute changes all modules of this process have seen."""
    return _version


def _bump() -> None:
    global _version
    _version += 1


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` returns: keys the model lacked in the mapping, and keys it did not know."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"

    __str__ = __repr__


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")


class Module:
    """Base class of layers and models.

    A subclass calls `super().__init__()`, assigns parameters and child modules to attributes, and defines `forward`.
    Parameters, buffers and children are found in the order in which they were assigned.
    """

    # Tells the guards of `graphc.compile` that writes to instances are counted, and where.
    _attribute_version = staticmethod(attribute_version)

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _transient: set[str]

    def __init__(self) -> None:
        fields = self.__dict__
        fields["training"] = True
        fields["_parameters"] = {}
        fields["_buffers"] = {}
        fields["_modules"] = {}
        fields["_transient"] = set()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation; every subclass defines it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # -- attributes ----------------------------------------------------------------------------------------------------

    def _tables(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        fields = self.__dict__
        if "_modules" not in fields:
            raise AttributeError(
                f"{type(self).__name__}: call super().__init__() before assigning parameters or modules"
            )
        return fields["_parameters"], fields["_buffers"], fields["_modules"]

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__
        for table in ("_parameters", "_buffers", "_modules"):
            entries = fields.get(table)
            if entries is not None and name in entries:
                return entries[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dict__
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
            return
        if isinstance(value, Module):
            self.register_module(name, value)
            return
        for table, kind, wanted in (
            ("_parameters", "parameter", "nn.Parameter"),
            ("_modules", "child module", "nn.Module"),
            ("_buffers", "buffer", "Tensor"),
        ):
            entries = fields.get(table)
            if entries is not None and name in entries:
                if value is not None and not (table == "_buffers" and isinstance(value, Tensor)):
                    raise TypeError(
                        f"cannot assign '{type(value).__name__}' as {kind} '{name}' (graphc.{wanted} or None expected)"
                    )
                entries[name] = value
                _bump()
                return
        same = name in fields and fields[name] is value
        object.__setattr__(self, name, value)
        if not same:
            _bump()

    def __delattr__(self, name: str) -> None:
        for entries in self._tables():
            if name in entries:
                del entries[name]
                self._transient.discard(name)
                _bump()
                return
        object.__delattr__(self, name)
        _bump()

    def __dir__(self) -> list[str]:
        names = set(super().__dir__())
        for entries in self._tables():
            names.update(entries)
        return sorted(names)

    def _claim(self, name: str, own: dict[str, Any], what: str) -> None:
        """Checks a name for a new entry of table `own` and takes it from wherever else it stood."""
        if "." in name:
            raise KeyError(f'{what} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{what} name can\'t be empty string ""')
        self.__dict__.pop(name, None)
        for entries in self._tables():
            if entries is not own:
                entries.pop(name, None)
        self._transient.discard(name)

    def _refuse_taken(self, name: str, own: dict[str, Any]) -> None:
        if hasattr(self, name) and name not in own:
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter, or None to keep the name for one. TypeError unless it is a `Parameter`."""
        own = self._tables()[0]
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{type(param).__name__}' object to parameter '{name}' "
                "(graphc.nn.Parameter or None required)"
            )
        self._claim(name, own, "parameter")
        own[name] = param
        _bump()

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is state but not trained; it is saved in `state_dict` when `persistent`."""
        own = self._tables()[1]
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' (graphc.Tensor or None required)"
            )
        self._refuse_taken(name, own)
        self._claim(name, own, "buffer")
        own[name] = tensor
        _bump()
        if not persistent:
            self._transient.add(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Adds a child module, or None to keep the name for one."""
        own = self._tables()[2]
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._claim(name, own, "module")
        own[name] = module
        _bump()

    def add_module(self, name: str, module: Module | None) -> None:
        """`register_module`, but KeyError when `name` is an attribute of another kind."""
        self._refuse_taken(name, self._tables()[2])
        self.register_module(name, module)

    # -- walks ---------------------------------------------------------------------------------------------------------

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module and all below it with dotted names, parents first; shared ones once unless told otherwise."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if remove_duplicate and id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            for key, child in reversed(module._modules.items()):
                if child is not None:
                    stack.append((f"{name}.{key}" if name else key, child))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct children with their names, each once."""
        seen: set[int] = set()
        for name, child in self._modules.items():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def children(self) -> Iterator[Module]:
        """The direct children, each once."""
        for _, child in self.named_children():
            yield child

    def _named_members(
        self, table: Callable[[Module], dict[str, Any]], prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        owners = self.named_modules(prefix, remove_duplicate) if recurse else iter([(prefix, self)])
        for owner, module in owners:
            for name, value in table(module).items():
                if value is None or (remove_duplicate and id(value) in seen):
                    continue
                seen.add(id(value))
                yield (f"{owner}.{name}" if owner else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters with dotted names; a shared one appears once, under its first name."""
        return self._named_members(lambda m: m._parameters, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers with dotted names."""
        return self._named_members(lambda m: m._buffers, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """The module with dotted name `target`; AttributeError names the part that is missing."""
        module: Module = self
        for part in target.split(".") if target else ():
            child = getattr(module, part, None)
            if child is None:
                raise AttributeError(f"{type(module).__name__} has no attribute `{part}`")
            if not isinstance(child, Module):
                raise AttributeError(f"`{part}` is not an nn.Module")
            module = child
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with dotted name `target`; AttributeError when there is none."""
        owner, _, name = target.rpartition(".")
        module = self.get_submodule(owner)
        if name not in module._parameters:
            raise AttributeError(f"{type(module).__name__} has no attribute `{name}` that is an nn.Parameter")
        found = module._parameters[name]
        if found is None:
            raise AttributeError(f"the parameter `{target}` is None")
        return found

    # -- changes of the whole tree -------------------------------------------------------------------------------------

    def apply(self, fn: Callable[[Module], object]) -> Self:
        """Calls `fn` on every module below this one and then on this one (children first); returns self."""
        order: list[Module] = []
        stack: list[Module] = [self]
        while stack:
            module = stack.pop()
            order.append(module)
            stack.extend(module.children())
        for module in reversed(order):
            fn(module)
        return self

    def train(self, mode: bool = True) -> Self:
        """Sets training mode on this module and all below; it matters to dropout and batch normalisation."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """`train(False)`."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Sets `requires_grad` of every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all parameters, or fills them with zeros."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.detach_().zero_()

    def _convert(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Replaces the values of parameters, their gradients and buffers by `fn` of them; objects stay the same."""
        with no_grad():
            for module in self.modules():
                for parameter in module._parameters.values():
                    if parameter is not None:
                        parameter.data = fn(parameter.data)
                        if parameter.grad is not None:
                            parameter.grad.data = fn(parameter.grad.data)
                for name, buffer in module._buffers.items():
                    if buffer is not None:
                        module._buffers[name] = fn(buffer)
        _bump()
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves and converts as `Tensor.to` does with the same arguments; a dtype is applied to floating values
        only."""

        def convert(tensor: Tensor) -> Tensor:
            moved = tensor.to(*args, **kwargs)
            if moved.dtype != tensor.dtype and not tensor.is_floating_point():
                return tensor.to(moved.device)
            if moved.dtype != tensor.dtype and not moved.is_floating_point():
                raise TypeError(f"nn.Module.to only accepts floating point dtypes, but got desired dtype={moved.dtype}")
            return moved

        return self._convert(convert)

    def float(self) -> Self:
        """Converts floating parameters and buffers to float32."""
        return self._convert(lambda t: t.float() if t.is_floating_point() else t)

    def double(self) -> Self:
        """Converts floating parameters and buffers to float64."""
        return self._convert(lambda t: t.double() if t.is_floating_point() else t)

    def cpu(self) -> Self:
        """Moves everything to the CPU."""
        return self.to("cpu")

    # -- state ---------------------------------------------------------------------------------------------------------

    def _state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Parameters and persistent buffers under their full names; those of a shared module under each of its
        names."""
        for owner, module in self.named_modules(remove_duplicate=False):
            start = f"{prefix}{owner}." if owner else prefix
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    yield start + name, parameter
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._transient:
                    yield start + name, buffer

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> OrderedDict[str, Tensor]:
        """Name to tensor of all parameters and persistent buffers; the tensors share memory with the model's, without
        their gradients' history unless `keep_vars`."""
        return OrderedDict((name, value if keep_vars else value.detach()) for name, value in self._state(prefix))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copies values into the parameters and buffers of the same names.

        RuntimeError lists every missing and unexpected key (when `strict`) and every shape that differs; values that
        fit have been copied all the same, as in PyTorch.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        own = dict(self._state())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems: list[str] = []
        with no_grad():
            for name, target in own.items():
                if name not in state_dict:
                    continue
                source = state_dict[name]
                if not isinstance(source, Tensor):
                    problems.append(
                        f'While copying the parameter named "{name}", expected graphc.Tensor or Tensor-like object '
                        f"from checkpoint but received {type(source)}"
                    )
                elif tuple(source.shape) != tuple(target.shape):
                    problems.append(
                        f"size mismatch for {name}: copying a param with shape {source.shape} from checkpoint, "
                        f"the shape in current model is {target.shape}."
                    )
                else:
                    target.copy_(source)
        if strict:
            for what, names in (("Unexpected", unexpected), ("Missing", missing)):
                if names:
                    listed = ", ".join(f'"{name}"' for name in names)
                    problems.insert(0, f"{what} key(s) in state_dict: {listed}. ")
        if problems:
            raise RuntimeError(
                "Error(s) in loading state_dict for {}:\n\t{}".format(type(self).__name__, "\n\t".join(problems))
            )
        return IncompatibleKeys(missing, unexpected)

    # -- text ----------------------------------------------------------------------------------------------------------

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
            return f"{type(self).__name__}({extra})"
        body = "\n  ".join([*lines, *children])
        return f"{type(self).__name__}(\n  {body}\n)"
