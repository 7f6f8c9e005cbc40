"""Methods of tensors that read and write memory, and finalizers, in native code."""

from __future__ import annotations

from functools import cache

from graphc.native.finalizing import BINDING, BUFFER
from graphc.native.library import NativeLibrary
from graphc.native.reading import ADDRESS, ARRAY, FLOAT, INDEX, INTEGER, LIST, NUMBER, TRUTH
from graphc.native.storing import STORE
from graphc.native.updating import SYMBOLS
from graphc.storage import Binding
from graphc.tensors.fields import TensorFields
from graphc.tensors.methods.conversion import ConversionMethods
from graphc.tensors.methods.indexing import IndexingMethods
from graphc.tensors.methods.pointwise import PointwiseMethods
from graphc_runtime.buffer import Buffer

_METHODS = (
    (ConversionMethods, "numpy", ARRAY, "$self, /, *, force=False"),
    (ConversionMethods, "tolist", LIST, "$self, /"),
    (ConversionMethods, "item", NUMBER, "$self, /"),
    (ConversionMethods, "__bool__", TRUTH, "$self, /"),
    (ConversionMethods, "__float__", FLOAT, "$self, /"),
    (ConversionMethods, "__int__", INTEGER, "$self, /"),
    (ConversionMethods, "__index__", INDEX, "$self, /"),
    (TensorFields, "data_ptr", ADDRESS, "$self, /"),
    (IndexingMethods, "__setitem__", STORE, "$self, index, value, /"),
    *((PointwiseMethods, name, symbol, "$self, other, /") for name, symbol in SYMBOLS.items()),
)


@cache
def read_natively(native: NativeLibrary) -> None:
    """From now on, what is computed already is read, and written at places, by native code, which ends objects too."""
    for cls, name, symbol, text in _METHODS:
        setattr(cls, name, native.method(cls, name, symbol, text))
    native.finalize(Binding, BINDING)
    native.finalize(Buffer, BUFFER)
