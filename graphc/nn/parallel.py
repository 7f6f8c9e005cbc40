"""Modules that PyTorch runs on several devices; here there is one."""

from __future__ import annotations

from typing import Any

from graphc.errors import UnsupportedError
from graphc.nn.module import Module


class DataParallel(Module):
    """Calls `module`: without accelerators PyTorch does the same."""

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        self.module = module
        self.device_ids: list[Any] = []

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


def data_parallel(
    module: Module,
    inputs: Any,
    device_ids: Any = None,
    output_device: Any = None,
    dim: int = 0,
    module_kwargs: Any = None,
) -> Any:
    """`module(*inputs, **module_kwargs)`."""
    given = inputs if isinstance(inputs, tuple) else () if inputs is None else (inputs,)
    return module(*given, **(module_kwargs or {}))


class DistributedDataParallel(Module):
    """Training over several processes: refused, there are none."""

    def __init__(self, module: Module, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        raise UnsupportedError("DistributedDataParallel: there is no training over several processes")


__all__ = ["DataParallel", "DistributedDataParallel", "data_parallel"]
