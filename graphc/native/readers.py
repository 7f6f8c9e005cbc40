"""Methods of tensors that read memory, in native code."""

from __future__ import annotations

from functools import cache

from graphc.native.library import NativeLibrary
from graphc.native.reading import ADDRESS, ARRAY, LIST, NUMBER
from graphc.tensors.fields import TensorFields
from graphc.tensors.methods.conversion import ConversionMethods

_METHODS = (
    (ConversionMethods, "numpy", ARRAY, "$self, /, *, force=False"),
    (ConversionMethods, "tolist", LIST, "$self, /"),
    (ConversionMethods, "item", NUMBER, "$self, /"),
    (TensorFields, "data_ptr", ADDRESS, "$self, /"),
)


@cache
def read_natively(native: NativeLibrary) -> None:
    """From now on, what is computed already is read by native code."""
    for cls, name, symbol, text in _METHODS:
        setattr(cls, name, native.method(cls, name, symbol, text))
