"""Runs kernels on NumPy arrays through the whole native path: verifier, text, LLVM IR, object code, linker."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import INDEX, Kernel, Param, Value
from graphc.codegen.kernel_parser import parse_kernel
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.llvm.build import build_object
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.target import Target
from graphc.ir.types import DType, dtype_of_numpy
from graphc_runtime.devices.cpu import Library

_numbers = itertools.count()
FAST_MATH = ("fast", "nnan", "ninf", "nsz", "arcp", "contract", "afn", "reassoc")


def baseline() -> Target:
    """The oldest machine of this architecture: on x86, SSE2 without FMA, half conversions or rounding instructions."""
    host = host_target()
    if not host.triple.startswith("x86_64"):
        return host
    return replace(host, cpu="x86-64", features="", vector_bytes=16, registers=16, fma=False)


def build(params: Sequence[Param], grid: int, write: Callable[[Emitter, Value], None], name: str = "k") -> Kernel:
    """A kernel whose body `write` appends to an emitter, given the parallel index."""
    index, emitter = Value(INDEX, "g"), Emitter()
    write(emitter, index)
    return Kernel(name, tuple(params), grid, index, tuple(emitter.body))


def param(name: str, array: np.ndarray, mode: str) -> Param:
    """The buffer for `array`."""
    dtype = dtype_of_numpy(array.dtype)
    assert dtype is not None
    return Param(name, dtype, array.size, mode)


def check_text(kernel: Kernel) -> None:
    """The kernel is valid, and its text reads back to the same text and the same code."""
    verify_kernel(kernel)
    text = print_kernel(kernel)
    again = parse_kernel(text)
    assert print_kernel(again) == text
    verify_kernel(again)


def link(objects: Sequence[bytes], symbol: str) -> tuple[Library, int]:
    """The library, which must be kept, and the address of `symbol`."""
    library = Library(f"test{next(_numbers)}", tuple(objects), (symbol,))
    return library, library[symbol]


def run(
    kernel: Kernel, arrays: Sequence[np.ndarray], target: Target | None = None, span: tuple[int, int] | None = None
) -> str:
    """Run `kernel` on `arrays`, over its whole grid or over `span`. The LLVM IR."""
    check_text(kernel)
    target = target or host_target()
    text = emit_kernel(kernel, target)
    words = set(text.replace(",", " ").replace('"', " ").split())
    assert not words & set(FAST_MATH)
    library, address = link([build_object(text, target)], kernel.name)
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays), ctypes.c_int64, ctypes.c_int64)(address)
    for buffer, array in zip(kernel.params, arrays, strict=True):
        assert array.size == buffer.size and array.dtype == buffer.dtype.numpy and array.flags.c_contiguous
    function(*(a.ctypes.data for a in arrays), *(span or (0, kernel.grid)))
    del library
    return text


def same(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Equal bit for bit, except that every NaN equals every other."""
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return False
    nan = np.isnan(actual) & np.isnan(expected) if actual.dtype.kind in "fV" else np.zeros(actual.shape, bool)
    bits = np.dtype(f"u{actual.dtype.itemsize}")
    return bool((nan | (actual.view(bits) == expected.view(bits))).all())


def samples(dtype: DType, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random values of `dtype`, with its special values in front."""
    if dtype.kind == "bool":
        return rng.integers(0, 2, count).astype(bool)
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        values = rng.integers(info.min, info.max, count, dtype=dtype.numpy, endpoint=True)
        values[:6] = [0, 1, info.max, info.min, info.max - 1, 7]
        return values
    with np.errstate(over="ignore"):
        values = (rng.standard_normal(count) * 10.0 ** rng.integers(-3, 4, count)).astype(dtype.numpy)
        special = [
            0.0,
            -0.0,
            np.inf,
            -np.inf,
            np.nan,
            1.0,
            -1.0,
            0.5,
            1.5,
            2.5,
            -0.5,
            -1.5,
            1e-40,
            -1e-310,
            3e38,
            1e300,
        ]
        values[: len(special)] = np.array(special, np.float64).astype(dtype.numpy)
    return rng.permutation(values)
