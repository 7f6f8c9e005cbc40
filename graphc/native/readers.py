"""Methods of tensors that read and write memory, in native code."""

from __future__ import annotations

from functools import cache

from graphc.native.library import NativeLibrary
from graphc.native.reading import ADDRESS, ARRAY, LIST, NUMBER
from graphc.native.storing import STORE
from graphc.native.updating import SYMBOLS
from graphc.tensors.fields import TensorFields
from graphc.tensors.methods.conversion import ConversionMethods
from graphc.tensors.methods.indexing import IndexingMethods
from graphc.tensors.methods.pointwise import PointwiseMethods

_METHODS = (
    (ConversionMethods, "numpy", ARRAY, "$self, /, *, force=False"),
    (ConversionMethods, "tolist", LIST, "$self, /"),
    (ConversionMethods, "item", NUMBER, "$self, /"),
    (TensorFields, "data_ptr", ADDRESS, "$self, /"),
    (IndexingMethods, "__setitem__", STORE, "$self, index, value, /"),
    *((PointwiseMethods, name, symbol, "$self, other, /") for name, symbol in SYMBOLS.items()),
)


@cache
def read_natively(native: NativeLibrary) -> None:
    """From now on, what is computed already is read, and written at places, by native code."""
    for cls, name, symbol, text in _METHODS:
        setattr(cls, name, native.method(cls, name, symbol, text))
