"""Runs one operator over arrays: through the emitter and LLVM as native code, or through the interpreter."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np

from graphc.codegen.kernel import Affine, Kernel, Load, Number, Op, Param, Stmt, Store, Value, VType
from graphc.codegen.llvm.build import build_object
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.math import expand, expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import Target
from graphc.ir.types import DType, dtype_of_numpy, i64
from graphc_runtime.devices.cpu import Library
from tests.codegen.kernel_interpreter import Interpreter

Expansion = Callable[..., Value]
BLOCK = 1 << 16  # elements that a native kernel takes at a time


def operator(name: str | Expansion, target: DType | None = None) -> Expansion:
    """The expansion of the graph operator `name` (or `name` itself); `target` is the dtype of `cast`."""

    def emit(e: ScopedEmitter, *args: Value) -> Value:
        if callable(name):
            return name(e, *args)
        return expand_cast(e, args[0], target) if target is not None else expand(e, name, *args)

    return emit


def statements(
    name: str | Expansion,
    dtypes: Sequence[DType],
    lanes: int,
    target: DType | None = None,
    fixed: Mapping[int, Number | None] | None = None,
) -> tuple[list[Stmt], list[Value], Value]:
    """The expansion's statements, operands and result.

    `fixed` tells which operands are the same in all lanes: a constant (the number) or a scalar (None).
    """
    e = ScopedEmitter()
    args = []
    for i, dtype in enumerate(dtypes):
        number = fixed.get(i) if fixed else None
        if number is not None:
            args.append(e.const(number, VType(dtype)))
        else:
            args.append(e.bind(Value(VType(dtype, 1 if fixed and i in fixed else lanes))))
    result = operator(name, target)(e, *args)
    assert result.type.lanes == lanes
    return list(e.body), args, result


def operation_count(name: str, dtype: DType, arity: int = 1) -> int:
    """Operations outside of loops, without constants and changes of type that cost nothing."""
    body, _, _ = statements(name, (dtype,) * arity, 16)
    return sum(isinstance(s, Op) and s.name not in ("const", "bitcast", "splat") for s in body)


def native_kernel(
    name: str | Expansion,
    dtypes: Sequence[DType],
    lanes: int,
    target: DType | None = None,
    fixed: Mapping[int, Number | None] | None = None,
) -> Kernel:
    """A kernel over `BLOCK` elements with one input buffer per operand; a scalar operand is element 0 of its buffer."""
    body, args, result = statements(name, dtypes, lanes, target, fixed)
    index = Value(VType(i64), "i")
    inputs = tuple(Param(f"x{i}", d, BLOCK, "in") for i, d in enumerate(dtypes))
    out = Param("y", result.type.dtype, BLOCK, "out")
    place = Affine(0, ((index, lanes),))
    loads = [
        Load(a, p, Affine() if fixed and i in fixed else place)
        for i, (a, p) in enumerate(zip(args, inputs, strict=True))
        if not fixed or fixed.get(i) is None
    ]
    return Kernel("op", (*inputs, out), BLOCK // lanes, index, (*loads, *body, Store(out, place, result)))


def compiled(kernel: Kernel, target: Target | None = None) -> Callable[..., np.ndarray]:
    """`kernel` (of `native_kernel`) as a function: arrays of at most `BLOCK` elements in, an array out.

    `target` is a machine whose code this one runs, by default this one.
    """
    machine = target or host_target()
    library = Library("op", (build_object(emit_kernel(kernel, machine), machine),), ("op",))
    pointers = [ctypes.c_void_p] * len(kernel.params)
    function = ctypes.CFUNCTYPE(None, *pointers, ctypes.c_int64, ctypes.c_int64)(library["op"])
    *inputs, out = kernel.params
    lanes = BLOCK // kernel.grid

    def run(*arrays: np.ndarray) -> np.ndarray:
        assert library  # the code lives as long as this
        size = arrays[0].size
        assert size <= BLOCK
        buffers = []
        for array, param in zip(arrays, inputs, strict=True):
            assert array.dtype == param.dtype.numpy
            buffer = np.ones(BLOCK, array.dtype)
            buffer[: array.size] = array.ravel()
            buffers.append(buffer)
        buffers.append(np.zeros(BLOCK, out.dtype.numpy))
        function(*(a.ctypes.data for a in buffers), 0, math.ceil(size / lanes))
        return buffers[-1][:size].reshape(arrays[0].shape)

    return run


@cache
def native(
    name: str | Expansion, dtypes: tuple[DType, ...], lanes: int, target: DType | None = None
) -> Callable[..., np.ndarray]:
    """The operator as compiled code: arrays of one shape in, an array out."""
    block = compiled(native_kernel(name, dtypes, lanes, target))

    def run(*arrays: np.ndarray) -> np.ndarray:
        flat = [a.ravel() for a in arrays]
        parts = [block(*(a[i : i + BLOCK] for a in flat)) for i in range(0, max(1, flat[0].size), BLOCK)]
        return np.concatenate(parts).reshape(arrays[0].shape)

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
