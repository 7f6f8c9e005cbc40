"""Named results of functions that give several tensors, as PyTorch's `torch.return_types`."""

from __future__ import annotations

from collections import namedtuple
from typing import Any


def _shown(self: Any) -> str:
    body = ",\n".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
    return f"torch.return_types.{type(self).__name__}(\n{body})"


def result_type(name: str, *fields: str) -> Any:
    """A named tuple with `fields` that prints as PyTorch's `torch.return_types.NAME`."""
    made = namedtuple(name, fields)  # type: ignore[misc]
    members = {"__slots__": (), "__repr__": _shown, "__doc__": f"What `{name}` returns: {', '.join(fields)}."}
    return type(name, (made,), members)


def _indexed(name: str) -> Any:
    return result_type(name, "values", "indices")


max = _indexed("max")
min = _indexed("min")
median = _indexed("median")
nanmedian = _indexed("nanmedian")
mode = _indexed("mode")
sort = _indexed("sort")
topk = _indexed("topk")
kthvalue = _indexed("kthvalue")
cummax = _indexed("cummax")
cummin = _indexed("cummin")
aminmax = result_type("aminmax", "min", "max")
histogram = result_type("histogram", "hist", "bin_edges")
