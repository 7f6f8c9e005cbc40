"""What `graphc.compile` makes of a module: a module too, so that it can stand wherever the module stood."""

from __future__ import annotations

import functools
from typing import Any

from graphc import compile as compiled
from graphc.nn.module import Module


class OptimizedModule(Module):
    """A module whose calls are compiled. Its only child is that module, `_orig_mod`, whose attributes it has.

    `call` is the compiled call of `module`, and `options` are those it was compiled with; copies are compiled with
    the same. As in PyTorch, the names of parameters begin with `_orig_mod`.
    """

    _orig_mod: Module

    def __init__(self, module: Module, call: Any, options: dict[str, Any]) -> None:
        super().__init__()
        fields = self.__dict__
        del fields["training"]  # the module's own
        fields["_modules"]["_orig_mod"] = module
        fields["forward"], fields["_options"] = call, options

    @property
    def training(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._orig_mod.training

    @training.setter
    def training(self, mode: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._orig_mod.training = mode

    def __getattr__(self, name: str) -> Any:
        module = self.__dict__.get("_modules", {}).get("_orig_mod")
        if module is None or name == "_orig_mod":
            return super().__getattr__(name)
        return getattr(module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ or hasattr(type(self), name):
            object.__setattr__(self, name, value)
        else:
            setattr(self._orig_mod, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._orig_mod, name)

    def __len__(self) -> int:
        return len(self._orig_mod)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Any:
        return iter(self._orig_mod)  # type: ignore[call-overload]

    def __getitem__(self, index: Any) -> Any:
        return self._orig_mod[index]  # type: ignore[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._orig_mod[index] = value  # type: ignore[index]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._orig_mod)})

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(compiled, **self._options), (self._orig_mod,)
