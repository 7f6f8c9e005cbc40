"""Functions whose NumPy references take their elements one by one: where programs are interpreted, compiled code
computes many of them, piece by piece, whatever the shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

import graphc
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.opdef import OPS, Attrs, Evaluate
from graphc.ir.types import DType, TensorType
from graphc.options import code_key
from graphc_runtime.buffer import Buffer

PIECE = 4096  # elements
OFTEN = 1 << 18  # elements that the reference is given before: it takes as long for them as compiling

_given: Counter[str] = Counter()


@lru_cache(64)
def _piece(op: str, dtype: DType, code: object) -> Any:
    """The executable of a function of one piece, compiled under the options of `code`."""
    b = Builder()
    x = b.input(0, TensorType(dtype, (PIECE,)))
    return graphc.compiled.compile_graph(Graph((x,), (b.apply(op, (x,)),)))


def _by_pieces(op: str) -> Evaluate:
    """The function of one operand, compiled once it was given many elements."""

    def evaluate(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
        (x,) = arrays
        if x.size < PIECE or _given[op] < OFTEN:
            _given[op] += x.size
            return OPS[op].evaluate(arrays, attrs, type)
        executable = _piece(op, type.dtype, code_key())
        given = np.zeros(-(-x.size // PIECE) * PIECE, x.dtype)
        given[: x.size] = x.reshape(-1)
        made = np.empty_like(given)
        for first in range(0, given.size, PIECE):
            parts = (Buffer.from_array(array[first : first + PIECE]) for array in (given, made))
            executable.launch(*([part] for part in parts))
        return made[: x.size].reshape(x.shape)

    return evaluate


COMPILED: Mapping[str, Evaluate] = {op: _by_pieces(op) for op in ("erf",)}
