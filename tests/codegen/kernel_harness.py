"""Runs one operator over arrays: through the emitter and LLVM as native code, or through the interpreter."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from graphc.codegen.kernel import Affine, Kernel, Load, Op, Param, Stmt, Store, Value, VType
from graphc.codegen.llvm.build import build_object
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.math import expand, expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.ir.types import DType, boolean, dtype_of_numpy
from graphc_runtime.devices.cpu import Library
from tests.codegen.kernel_interpreter import Interpreter

Expansion = Callable[..., Value]
BLOCK = 1 << 16  # elements that a native kernel takes at a time
_ENTRY = ctypes.CFUNCTYPE


def operator(name: str, target: DType | None = None) -> Expansion:
    """The expansion of the graph operator `name`; `target` is the dtype of `cast`."""

    def emit(e: ScopedEmitter, *args: Value) -> Value:
        return expand_cast(e, args[0], target) if target is not None else expand(e, name, *args)

    return emit


def statements(
    name: str, dtypes: Sequence[DType], lanes: int, target: DType | None = None
) -> tuple[list[Stmt], list[Value], Value]:
    """The expansion's statements, operands and result."""
    e = ScopedEmitter()
    args = [e.bind(Value(VType(d, lanes))) for d in dtypes]
    result = operator(name, target)(e, *args)
    assert result.type.lanes == lanes
    return list(e.body), args, result


def operation_count(name: str, dtype: DType, arity: int = 1) -> int:
    """Operations outside of loops, without constants and changes of type that cost nothing."""
    body, _, _ = statements(name, (dtype,) * arity, 16)
    return sum(isinstance(s, Op) and s.name not in ("const", "bitcast", "splat") for s in body)


def native_kernel(
    name: str, dtypes: Sequence[DType], lanes: int, size: int, target: DType | None = None
) -> tuple[Kernel, DType]:
    """A kernel over `size` elements with one input buffer per operand, and the dtype of its output."""
    body, args, result = statements(name, dtypes, lanes, target)
    index = Value(VType(dtype_of_numpy(np.dtype(np.int64)) or boolean), "i")
    inputs = tuple(Param(f"x{i}", d, size, "in") for i, d in enumerate(dtypes))
    out = Param("y", result.type.dtype, size, "out")
    place = Affine(0, ((index, lanes),))
    loads = [Load(a, p, place) for a, p in zip(args, inputs, strict=True)]
    whole = (*loads, *body, Store(out, place, result))
    return Kernel("op", (*inputs, out), size // lanes, index, whole), result.type.dtype


@cache
def native(
    name: str, dtypes: tuple[DType, ...], lanes: int, target: DType | None = None
) -> Callable[..., np.ndarray]:
    """The operator as compiled code: arrays of equal length in, an array out."""
    kernel, dtype = native_kernel(name, dtypes, lanes, BLOCK, target)
    machine = host_target()
    library = Library("op", (build_object(emit_kernel(kernel, machine), machine),), ("op",))
    pointers = [ctypes.c_void_p] * (len(dtypes) + 1)
    function = _ENTRY(None, *pointers, ctypes.c_int64, ctypes.c_int64)(library["op"])

    def run(*arrays: np.ndarray) -> np.ndarray:
        assert library  # the code lives as long as this
        size = arrays[0].size
        padded = math.ceil(size / lanes) * lanes
        inputs = []
        for array, expected in zip(arrays, dtypes, strict=True):
            assert array.dtype == expected.numpy
            buffer = np.ones(padded, array.dtype)
            buffer[:size] = array.ravel()
            inputs.append(buffer)
        out = np.zeros(padded, dtype.numpy)
        function(*(a.ctypes.data for a in (*inputs, out)), 0, padded // lanes)
        return out[:size].reshape(arrays[0].shape)

    return run


def interpreted(name: str, *arrays: np.ndarray, lanes: int = 1, target: DType | None = None) -> np.ndarray:
    """The operator by the interpreter; `lanes` neighbours share a vector."""
    dtypes = [dtype_of_numpy(a.dtype) for a in arrays]
    body, args, result = statements(name, [d for d in dtypes if d is not None], lanes, target)
    batch = (arrays[0].size,) if lanes == 1 else (arrays[0].size // lanes,)
    interpreter = Interpreter(batch)
    for value, array in zip(args, arrays, strict=True):
        interpreter.values[value] = array.reshape(batch if lanes == 1 else (*batch, lanes))
    interpreter.run(body)
    return interpreter.values[result].reshape(arrays[0].shape)
