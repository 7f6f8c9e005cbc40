"""Runs whole kernels over NumPy arrays, statement by statement and index by index: what back ends must compute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.codegen.kernel import For, If, Kernel, Load, Op, Param, Prefetch, Stmt, Store, Value
from tests.codegen.kernel_interpreter import SIMPLE, Array, Interpreter

_COMBINED = {
    "reduce_add": "add",
    "reduce_mul": "mul",
    "reduce_maximum": "maximum",
    "reduce_minimum": "minimum",
    "reduce_or": "or",
    "reduce_and": "and",
}


class Machine(Interpreter):
    """An interpreter with memory, for one index at a time."""

    def __init__(self, memory: dict[Param, Array]) -> None:
        super().__init__((1,))
        self.memory = memory

    def run(self, statements: Sequence[Stmt]) -> None:
        for statement in statements:
            if isinstance(statement, Load):
                self._load(statement)
            elif isinstance(statement, Store):
                self._store(statement)
            elif isinstance(statement, If):
                if self.values[statement.condition][0]:
                    self.run(statement.body)
            elif isinstance(statement, (Op, For)):
                super().run((statement,))
            else:
                assert isinstance(statement, Prefetch)

    def _op(self, op: Op) -> Array:
        dtype = op.result.type.dtype.numpy
        if op.name == "lanes":
            return (
                np.arange(op.result.type.lanes).astype(dtype)[None, :]
                if op.result.type.lanes > 1
                else np.zeros(1, dtype)
            )
        if op.name not in (*_COMBINED, "extract", "zip_low", "zip_high"):
            return super()._op(op)
        args = [self.values[a] for a in op.args]
        if op.name == "extract":
            return args[0] if op.args[0].type.lanes == 1 else args[0][:, int(op.attr or 0)]
        if op.name in _COMBINED:
            value = args[0] if op.args[0].type.lanes > 1 else args[0][:, None]
            while value.shape[1] > 1:
                half = value.shape[1] // 2
                value = self._combine(_COMBINED[op.name], value[:, :half], value[:, half:])
            return value[:, 0]
        half = op.result.type.lanes // 2
        part = slice(0, half) if op.name == "zip_low" else slice(half, 2 * half)
        return np.stack([a[:, part] for a in args], axis=2).reshape(1, -1)

    @staticmethod
    def _combine(name: str, a: Array, b: Array) -> Array:
        if a.dtype == bool:
            return a | b if name in ("maximum", "or") else a & b
        return SIMPLE[name](a, b)

    def _places(self, access: Load | Store, value: Value) -> tuple[Array, Array]:
        """Where the lanes of an access that run go, and which these are."""
        lanes = value.type.lanes
        start = access.index.const + sum(int(self.values[v][0]) * c for v, c in access.index.terms)
        if access.offsets is not None:
            places = start + self.values[access.offsets].reshape(lanes)
        else:
            places = start + np.arange(lanes) * access.stride
        mask = np.ones(lanes, bool) if access.mask is None else self.values[access.mask].reshape(lanes)
        places = np.asarray(places)
        inside = (places >= 0) & (places < access.buffer.size)
        assert inside[mask].all(), (access, places)
        return places, mask

    def _load(self, load: Load) -> None:
        places, mask = self._places(load, load.result)
        memory = self.memory[load.buffer]
        found = np.where(mask, memory[np.where(mask, places, 0)], np.zeros(1, memory.dtype))
        self.values[load.result] = found.astype(memory.dtype).reshape(self._shape(load.result))

    def _store(self, store: Store) -> None:
        places, mask = self._places(store, store.value)
        self.memory[store.buffer][places[mask]] = self.values[store.value].reshape(-1)[mask]


def interpret(kernel: Kernel, arrays: Sequence[Array]) -> None:
    """Run `kernel` on flat `arrays`, which change."""
    memory = dict(zip(kernel.params, arrays, strict=True))
    for number in range(kernel.grid):
        own = {p: np.zeros(p.size, p.dtype.numpy) for p in kernel.own}
        machine = Machine({**memory, **own})
        machine.values[kernel.index] = np.array([number])
        with np.errstate(all="ignore"):
            machine.run(kernel.body)
