"""Runs kernels as CUDA C on the shim, which stands in for a GPU and finds races and stray accesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from graphc.codegen.cuda.emit import emit_kernel, emit_unit, launch_shape
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.kernel import Kernel
from tests.codegen.native import check_text
from tests.cuda.shim import Unit

TARGET = cuda_target()
ALIGNMENT = 64


def aligned(array: np.ndarray) -> np.ndarray:
    """A flat copy that begins where the buffers of a GPU may begin."""
    memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype)
    copy[:] = array.reshape(-1)
    return copy


class Kernels:
    """Kernels in one unit, by name."""

    def __init__(self, kernels: Mapping[str, Kernel], variant: str = "quick checked") -> None:
        self.kernels = {name: replace(kernel, name=name) for name, kernel in kernels.items()}
        texts = []
        for kernel in self.kernels.values():
            check_text(kernel)
            texts.append(emit_kernel(kernel, TARGET))
        self.text = emit_unit(texts)
        self.unit = Unit(self.text, variant)

    def run(self, name: str, arrays: Sequence[np.ndarray], order: int = 0) -> None:
        """Run a kernel on flat, aligned `arrays`; `order` is that of the threads between barriers."""
        kernel = self.kernels[name]
        for buffer, array in zip(kernel.params, arrays, strict=True):
            assert array.size == buffer.size and array.dtype == buffer.dtype.numpy and array.flags.c_contiguous
        blocks, threads, shared = launch_shape(kernel)
        addresses = [a.ctypes.data for a in arrays]
        ranges = [(p.name, a.ctypes.data, a.nbytes) for p, a in zip(kernel.params, arrays, strict=True)]
        self.unit.launch(name, blocks, threads, addresses, shared, order, ranges)


def run(kernel: Kernel, arrays: Sequence[np.ndarray], order: int = 0) -> str:
    """Run `kernel` alone on `arrays`, which change. The text of the unit."""
    made = Kernels({kernel.name: kernel})
    copies = [aligned(a) for a in arrays]
    made.run(kernel.name, copies, order)
    for array, copy in zip(arrays, copies, strict=True):
        array.reshape(-1)[:] = copy
    return made.text
