"""Conversion of whole modules: dtypes and devices of parameters, their gradients and buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from graphc import Tensor, dtype, empty_like, no_grad
from graphc.errors import KindError
from graphc.nn.hook_tables import count_write
from graphc.nn.tree import ModuleTree


class ModuleConversion(ModuleTree):
    """The methods of `Module` that replace all its tensors."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Replaces the values of parameters, their gradients and buffers by `fn` of them; the parameter objects
        stay."""
        if recurse:
            for child in self.children():
                child._apply(fn)
        with no_grad():
            for parameter in self._parameters.values():
                if parameter is None:
                    continue
                gradient = parameter.grad
                parameter.data = fn(parameter.data)
                if gradient is not None:
                    gradient.data = fn(gradient.data)
                    parameter.grad = gradient
            for name, buffer in self._buffers.items():
                if buffer is not None:
                    self._buffers[name] = fn(buffer)
        count_write()
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves and converts as `Tensor.to` does with the same arguments; a dtype is applied to floating values
        only."""

        for given in (*args, kwargs.get("dtype")):
            wanted = given.dtype if isinstance(given, Tensor) else given
            if isinstance(wanted, dtype) and not wanted.is_floating_point:
                raise KindError(
                    f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={wanted}"
                )

        def convert(tensor: Tensor) -> Tensor:
            moved = tensor.to(*args, **kwargs)
            return moved if moved.dtype == tensor.dtype or tensor.is_floating_point() else tensor.to(moved.device)

        return self._apply(convert)

    def _floats(self, convert: Callable[[Tensor], Tensor]) -> Self:
        return self._apply(lambda t: convert(t) if t.is_floating_point() else t)

    def type(self, dst_type: Any) -> Self:
        """Converts all parameters and buffers to a dtype, integers too."""
        return self._apply(lambda t: t.type(dst_type))

    def float(self) -> Self:
        """Converts floating parameters and buffers to float32."""
        return self._floats(lambda t: t.float())

    def double(self) -> Self:
        """Converts floating parameters and buffers to float64."""
        return self._floats(lambda t: t.double())

    def half(self) -> Self:
        """Converts floating parameters and buffers to float16."""
        return self._floats(lambda t: t.half())

    def bfloat16(self) -> Self:
        """Converts floating parameters and buffers to bfloat16."""
        return self._floats(lambda t: t.bfloat16())

    def cpu(self) -> Self:
        """Moves everything to the CPU."""
        return self._apply(lambda t: t.cpu())

    def cuda(self, device: Any = None) -> Self:
        """Moves everything to a CUDA device, the current one unless named. DeviceError when there is none."""
        return self._apply(lambda t: t.cuda(device))

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Replaces all tensors by ones with arbitrary contents."""
        return self._apply(lambda t: empty_like(t, device=device), recurse=recurse)

    def share_memory(self) -> Self:
        """The module itself: one process computes."""
        return self
