"""Tensors as text, as PyTorch prints them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.ir.types import DType, bf16, boolean, f16, i64

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_OPTIONS: dict[str, Any] = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80, "sci_mode": None}
_DEFAULTS = dict(_OPTIONS)


def set_printoptions(
    precision: int | None = None,
    threshold: int | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Digits after the point, number of elements from which to summarise, elements at the ends, characters a line."""
    profiles = {
        "default": _DEFAULTS,
        "short": {**_DEFAULTS, "precision": 2, "edgeitems": 2},
        "full": {**_DEFAULTS, "threshold": math.inf},
    }
    if profile is not None:
        _OPTIONS.update(profiles[profile])
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    _OPTIONS.update({k: v for k, v in given.items() if v is not None})
    _OPTIONS["sci_mode"] = sci_mode


class _Formatter:
    """One width and one style for all shown elements."""

    def __init__(self, values: np.ndarray) -> None:
        self.is_float = values.dtype.kind == "f"
        self.int_mode = True
        self.sci_mode = False
        self.width = 1
        if not self.is_float:
            self.width = max((len(str(v)) for v in values.reshape(-1).tolist()), default=1)
            return
        finite = values[np.isfinite(values) & (values != 0)]
        if finite.size == 0:
            return
        magnitudes = np.abs(finite.astype(np.float64))
        largest, smallest = float(magnitudes.max()), float(magnitudes.min())
        self.int_mode = bool(np.all(finite == np.ceil(finite)))
        ratio = largest / smallest
        self.sci_mode = ratio > 1000.0 or largest > 1.0e8 or (not self.int_mode and smallest < 1.0e-4)
        if _OPTIONS["sci_mode"] is not None:
            self.sci_mode = _OPTIONS["sci_mode"]
        # As PyTorch: zeros, NaN and infinities do not widen the columns.
        self.width = max(len(self._plain(v)) for v in finite.reshape(-1).tolist())

    def _plain(self, value: Any) -> str:
        if not self.is_float:
            return str(value)
        if self.sci_mode:
            return f"{value:.{_OPTIONS['precision']}e}"
        if self.int_mode:
            text = f"{value:.0f}"
            return text + "." if math.isfinite(value) else text
        return f"{value:.{_OPTIONS['precision']}f}"

    def __call__(self, value: Any) -> str:
        return self._plain(value).rjust(self.width)


def _shown(array: np.ndarray, summarise: bool) -> np.ndarray:
    """The elements that will be printed, for the formatter."""
    edge = _OPTIONS["edgeitems"]
    if summarise:
        for axis, n in enumerate(array.shape):
            if n > 2 * edge:
                array = np.concatenate([array.take(range(edge), axis), array.take(range(n - edge, n), axis)], axis)
    return array


def _vector(array: np.ndarray, indent: int, summarise: bool, form: _Formatter) -> str:
    edge = _OPTIONS["edgeitems"]
    per_line = max(1, math.floor((_OPTIONS["linewidth"] - indent) / (form.width + 2)))
    values = array.tolist()
    if summarise and len(values) > 2 * edge:
        items = [form(v) for v in values[:edge]] + [" ..."] + [form(v) for v in values[-edge:]]
    else:
        items = [form(v) for v in values]
    lines = [items[i : i + per_line] for i in range(0, len(items), per_line)] or [[]]
    return "[" + (",\n" + " " * (indent + 1)).join(", ".join(line) for line in lines) + "]"


def _body(array: np.ndarray, indent: int, summarise: bool, form: _Formatter) -> str:
    """Nested brackets. The depth is the rank, so it is bounded by NumPy's limit on dimensions."""
    if array.ndim == 0:
        return form(array.item())
    if array.ndim == 1:
        return _vector(array, indent, summarise, form)
    edge = _OPTIONS["edgeitems"]
    n = len(array)
    if summarise and n > 2 * edge:
        parts = [_body(array[i], indent + 1, summarise, form) for i in range(edge)]
        parts.append("...")
        parts += [_body(array[i], indent + 1, summarise, form) for i in range(n - edge, n)]
    else:
        parts = [_body(row, indent + 1, summarise, form) for row in array]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _default_dtype(dtype: DType) -> bool:
    return dtype in (dtypes.default_ir(), i64, boolean)


def tensor_text(tensor: Tensor, prefix: str = "tensor(") -> str:
    """`tensor([...])` with PyTorch's suffixes."""
    type = tensor._type
    suffixes: list[str] = []
    if type.size == 0:
        if type.rank != 1:
            suffixes.append(f"size={tuple(type.shape)}")
        if type.dtype is not dtypes.default_ir():
            suffixes.append(f"dtype={tensor.dtype}")
        body = "[]"
    else:
        if not _default_dtype(type.dtype):
            suffixes.append(f"dtype={tensor.dtype}")
        array = tensor._array()
        if type.dtype in (f16, bf16):
            array = array.astype(np.float32)
        summarise = type.size > _OPTIONS["threshold"]
        form = _Formatter(_shown(array, summarise))
        body = _body(array, len(prefix), summarise, form)
    if tensor._lineage.hist is not None or (tensor.requires_grad and not tensor.is_leaf):
        suffixes.append(f"grad_fn=<{tensor.grad_fn_name()}>")
    elif tensor.requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes(prefix + body, suffixes, len(prefix))


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    lines = [text]
    length = len(text) - text.rfind("\n") - 1 + 1
    for suffix in suffixes:
        if length + len(suffix) + 2 > _OPTIONS["linewidth"]:
            lines.append(",\n" + " " * indent + suffix)
            length = indent + len(suffix)
        else:
            lines.append(", " + suffix)
            length += len(suffix) + 2
    return "".join(lines) + ")"
