"""Tensors as text, as PyTorch prints them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.ir.types import DType, bf16, boolean, f16, i64

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


@dataclass(frozen=True)
class _Options:
    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES = {"default": _Options(), "short": _Options(precision=2, edgeitems=2), "full": _Options(threshold=math.inf)}
_options = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: int | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Digits after the point, number of elements above which to summarise, elements at the ends, characters a line.

    `profile` ("default", "short", "full") sets them all first; `sci_mode` is set anew by each call (None: decide by
    the values).
    """
    global _options
    if profile in _PROFILES:
        _options = _PROFILES[profile]
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    _options = replace(_options, **{k: v for k, v in given.items() if v is not None}, sci_mode=sci_mode)


def get_printoptions() -> dict[str, Any]:
    """The arguments of `set_printoptions` that hold now."""
    return asdict(_options)


@contextmanager
def printoptions(**kwargs: Any) -> Iterator[None]:
    """`set_printoptions(**kwargs)` inside the `with` block."""
    global _options
    saved = _options
    set_printoptions(**kwargs)
    try:
        yield
    finally:
        _options = saved


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
        # As PyTorch: zeros, NaN and infinities neither decide the style nor widen the columns.
        finite = values[np.isfinite(values) & (values != 0)].astype(np.float64)
        if finite.size == 0:
            return
        magnitudes = np.abs(finite)
        largest, smallest = float(magnitudes.max()), float(magnitudes.min())
        self.int_mode = bool(np.all(finite == np.ceil(finite)))
        self.sci_mode = (
            largest / smallest > 1000 or largest > 1e8 or smallest < 1e-4
            if _options.sci_mode is None
            else _options.sci_mode
        )
        self.width = max(len(self._plain(v)) for v in finite.tolist())

    def _plain(self, value: Any) -> str:
        if not self.is_float:
            return str(value)
        if self.sci_mode:
            return f"{value:.{_options.precision}e}"
        if self.int_mode:
            text = f"{value:.0f}"
            return text + "." if math.isfinite(value) else text
        return f"{value:.{_options.precision}f}"

    def __call__(self, value: Any) -> str:
        return self._plain(value).rjust(self.width)


def _shown(array: np.ndarray) -> np.ndarray:
    """The elements that a summary prints, for the formatter."""
    edge = _options.edgeitems
    if array.ndim > 1 and not edge:
        return array[:0]
    for axis, n in enumerate(array.shape):
        if n > 2 * edge:
            # A vector's last `-0` elements are all of them, as in PyTorch.
            ends = [array.take(range(edge), axis), array.take(range(n - edge if edge else 0, n), axis)]
            array = np.concatenate(ends, axis)
    return array


def _vector(array: np.ndarray, indent: int, summarise: bool, form: _Formatter) -> str:
    edge = _options.edgeitems
    per_line = max(1, math.floor((_options.linewidth - indent) / (form.width + 2)))
    values = array.tolist()
    if summarise and not edge:
        items = ["..."]
    elif summarise and len(values) > 2 * edge:
        items = [*map(form, values[:edge]), " ...", *map(form, values[-edge:])]
    else:
        items = [*map(form, values)]
    lines = [items[i : i + per_line] for i in range(0, len(items), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(", ".join(line) for line in lines) + "]"


def _body(array: np.ndarray, indent: int, summarise: bool, form: _Formatter) -> str:
    """Nested brackets. The depth is the rank, so it is bounded by NumPy's limit on dimensions."""
    if array.ndim == 0:
        return form(array.item())
    if array.ndim == 1:
        return _vector(array, indent, summarise, form)
    edge, n = _options.edgeitems, len(array)
    if summarise and n > 2 * edge:
        parts = [_body(array[i], indent + 1, summarise, form) for i in range(edge)]
        parts.append("...")
        parts += [_body(array[i], indent + 1, summarise, form) for i in range(n - edge, n)]
    else:
        parts = [_body(row, indent + 1, summarise, form) for row in array]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _default_dtype(dtype: DType) -> bool:
    return dtype in (dtypes.default_ir(), i64, boolean)


def tensor_text(tensor: Tensor, name: str = "tensor") -> str:
    """`tensor([...])` with PyTorch's suffixes; `name` stands before the bracket."""
    type = tensor._type
    prefix = f"{name}("
    suffixes: list[str] = [] if type.device == "cpu" else [f"device='{type.device}'"]
    if type.size == 0:
        if type.rank != 1:
            suffixes.append(f"size={tuple(type.shape)}")
        if type.dtype is not dtypes.default_ir():
            suffixes.append(f"dtype={tensor.dtype}")
        body = "[]"
    else:
        if not _options.edgeitems:
            suffixes.append(f"size={tuple(type.shape)}")
        if not _default_dtype(type.dtype):
            suffixes.append(f"dtype={tensor.dtype}")
        array = tensor._array()
        if type.dtype in (f16, bf16):
            array = array.astype(np.float32)
        summarise = type.size > _options.threshold
        form = _Formatter(_shown(array) if summarise else array)
        body = _body(array, len(prefix), summarise, form)
    if tensor.requires_grad and not tensor.is_leaf:
        suffixes.append(f"grad_fn=<{tensor.grad_fn_name()}>")
    elif tensor.requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes(prefix + body, suffixes, len(prefix))


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    lines = [text]
    length = len(text) - text.rfind("\n") + 1  # PyTorch's count: two above the line's length
    for suffix in suffixes:
        if length + len(suffix) + 2 > _options.linewidth:
            lines.append(",\n" + " " * indent + suffix)
            length = indent + len(suffix)
        else:
            lines.append(", " + suffix)
            length += len(suffix) + 2
    return "".join(lines) + ")"
