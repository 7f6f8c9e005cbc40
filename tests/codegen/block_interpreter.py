"""Runs whole kernels over NumPy arrays, all indices of the range at once: each statement in its turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.codegen.kernel import (
    Affine,
    AsyncCopy,
    Await,
    AwaitGroups,
    Exchange,
    Exp2,
    For,
    GroupMma,
    If,
    Kernel,
    Lines,
    Load,
    LoadMatrix,
    Mma,
    Param,
    Stmt,
    Store,
    Value,
)
from graphc.ir.types import f32
from tests.codegen.kernel_interpreter import Array, Interpreter


def run_blocks(kernel: Kernel, buffers: Mapping[Param, Array]) -> None:
    """Run `kernel` on flat arrays, which change in place. An access out of bounds is an AssertionError."""
    blocks = BlockInterpreter(kernel, buffers)
    blocks.run(kernel.body)


@dataclass
class GroupProduct:
    """A product under way: where each group's lines begin, what it adds to, and where its results go."""

    statement: GroupMma
    left: Array
    right: Array
    c: list[Array]
    made: Array


class BlockInterpreter(Interpreter):
    """The batch of values is the grid; `active` are the blocks that run the present statement."""

    def __init__(self, kernel: Kernel, buffers: Mapping[Param, Array]) -> None:
        super().__init__((kernel.grid,))
        self.kernel = kernel
        self.memory = dict(buffers)
        for own in kernel.own:  # arbitrary contents
            self.memory[own] = np.full((kernel.grid, own.size), 99, own.dtype.numpy)
        self.active = np.ones(kernel.grid, bool)
        self.copies: list[list[tuple[Param, Array, Array]]] = [[]]  # groups under way; the last one is open
        self.products: list[GroupProduct] = []  # under way
        self.values[kernel.index] = np.arange(kernel.grid)

    def run(self, statements: Sequence[Stmt]) -> None:
        with np.errstate(all="ignore"):
            for statement in statements:
                if isinstance(statement, Load):
                    self._load(statement)
                elif isinstance(statement, Store):
                    self._store(statement)
                elif isinstance(statement, If):
                    before = self.active
                    self.active = before & self.values[statement.condition]
                    self.run(statement.body)
                    self.active = before
                elif isinstance(statement, For):
                    self._rounds(statement)
                elif isinstance(statement, Mma):
                    self._mma(statement)
                elif isinstance(statement, Exchange):
                    other = np.arange(self.kernel.threads) ^ statement.bits
                    self.values[statement.result] = self.values[statement.value][..., other]
                elif isinstance(statement, Exp2):
                    power = np.exp2(self.values[statement.value])
                    self.values[statement.result] = np.where(power < 2.0**-126, np.float32(0), power)
                elif isinstance(statement, LoadMatrix):
                    self._load_matrix(statement)
                elif isinstance(statement, AsyncCopy):
                    self._begin_copy(statement)
                elif isinstance(statement, Await):
                    self._await(statement)
                elif isinstance(statement, GroupMma):
                    self._begin_product(statement)
                elif isinstance(statement, AwaitGroups):
                    self._await_products(statement)
                else:
                    super().run([statement])

    def _rounds(self, loop: For) -> None:
        bounds = (self.values[b] if isinstance(b, Value) else b for b in (loop.lo, loop.hi))
        lo, hi = (np.broadcast_to(b, self.batch) for b in bounds)
        carried = [self.values[v] for v in loop.inits]
        var, before = np.array(lo, np.int64), self.active
        while (running := (var < hi) & before).any():
            self.active = running
            self.values[loop.var] = var
            self.values.update(zip(loop.phis, carried, strict=True))
            self.run(loop.body)
            masks = [running if v.type.lanes == 1 else running[..., None] for v in loop.phis]
            # What all blocks carry on stays the same array: a product may still be on its way there.
            carried = [
                self.values[y] if running.all() else np.where(m, self.values[y], c)
                for m, y, c in zip(masks, loop.yields, carried, strict=True)
            ]
            var = var + loop.step
        self.active = before
        self.values.update(zip(loop.results, carried, strict=True))

    def _places(self, statement: Load | Store, lanes: int) -> tuple[Array, Array]:
        """The element of each lane, and whether it is accessed: arrays of shape (grid, lanes)."""
        at = self._sum(statement.index)[:, None] + np.zeros((1, lanes), np.int64)
        if statement.offsets is not None:
            at = at + self.values[statement.offsets]
        elif lanes > 1:
            at = at + np.arange(lanes) * statement.stride
        counts = np.broadcast_to(self.active[:, None], at.shape)
        if statement.mask is not None:
            counts = counts & self.values[statement.mask].reshape(self.kernel.grid, -1)
        size = statement.buffer.size
        assert ((at >= 0) & (at < size))[counts].all(), f"{statement} leaves its buffer of {size} elements"
        return np.where(counts, at, 0), counts

    def _sum(self, index: Affine) -> Array:
        total = np.full(self.kernel.grid, index.const, np.int64)
        for value, coefficient in index.terms:
            total = total + self.values[value] * coefficient
        return total

    def _load(self, load: Load) -> None:
        lanes = load.result.type.lanes
        at, counts = self._places(load, lanes)
        memory = self.memory[load.buffer]
        read = np.take_along_axis(memory, at, 1) if load.buffer.mode == "own" else memory[at]
        read = np.where(counts, read, np.zeros((), memory.dtype))
        self.values[load.result] = read if lanes > 1 else read[:, 0]

    def _store(self, store: Store) -> None:
        value = self.values[store.value]
        at, counts = self._places(store, store.value.type.lanes)
        value = np.broadcast_to(value.reshape(self.kernel.grid, -1), at.shape)
        block = np.broadcast_to(np.arange(self.kernel.grid)[:, None], at.shape)
        memory = self.memory[store.buffer]
        if store.buffer.mode == "own":
            self._once(block[counts] * store.buffer.size + at[counts])
            memory[block[counts], at[counts]] = value[counts]
        else:
            self._once(at[counts])
            memory[at[counts]] = value[counts]

    # statements of whole warps

    def _scattered(self, buffer: Param, index: Affine, offsets: Value, count: int, needed: Array) -> Array:
        """Elements (grid, threads, count), from an aligned one on; those that are `needed` lie in the buffer."""
        first = self._sum(index)[:, None] + self.values[offsets]
        assert (first % count == 0)[needed].all(), "not aligned"
        at = first[..., None] + np.arange(count)
        assert ((at >= 0) & (at < buffer.size))[needed].all(), f"{buffer.name} has {buffer.size} elements"
        return np.where(needed[..., None], at, 0)

    def _own(self, buffer: Param, at: Array) -> Array:
        flat = at.reshape(self.kernel.grid, -1)
        return np.take_along_axis(self.memory[buffer], flat, 1).reshape(at.shape)

    def _begin_copy(self, copy: AsyncCopy) -> None:
        assert self.active.all(), "copies in a part of the blocks"
        shape = self.kernel.grid, self.kernel.threads
        exists = np.ones(shape, bool) if copy.mask is None else np.broadcast_to(self.values[copy.mask], shape)
        source = self._scattered(copy.source, copy.source_index, copy.source_offsets, copy.count, exists)
        memory = self.memory[copy.source]
        read = np.where(exists[..., None], memory[source], np.zeros((), memory.dtype))
        to = self._scattered(copy.buffer, copy.index, copy.offsets, copy.count, np.ones(shape, bool))
        block = np.arange(self.kernel.grid)[:, None, None]
        self._once((block * copy.buffer.size + to).ravel())
        self.memory[copy.buffer][np.broadcast_to(block, to.shape), to] = 99  # what is there meanwhile is arbitrary
        self.copies[-1].append((copy.buffer, to, read))

    def _await(self, wait: Await) -> None:
        self.copies.append([])
        while len(self.copies) - 1 > wait.pending:
            for buffer, to, read in self.copies.pop(0):
                block = np.broadcast_to(np.arange(self.kernel.grid)[:, None, None], to.shape)
                self.memory[buffer][block, to] = read

    def _load_matrix(self, load: LoadMatrix) -> None:
        grid, threads = self.kernel.grid, self.kernel.threads
        names = np.broadcast_to(np.arange(threads) % 32 < 8 * len(load.results), (grid, threads))
        count = 16 // load.buffer.dtype.itemsize
        at = self._scattered(load.buffer, load.index, load.offsets, count, names)
        rows = self._own(load.buffer, at).view(np.uint16).reshape(grid, threads // 32, 4, 8, 8)
        for number, result in enumerate(load.results):
            matrix = rows[:, :, number]
            if load.transposed:
                matrix = matrix.swapaxes(-1, -2)
            pairs = matrix.reshape(grid, threads, 2).astype(np.uint32)
            self.values[result] = (pairs[..., 0] | pairs[..., 1] << 16).view(np.int32)

    def _mma(self, mma: Mma) -> None:
        grid, warps = self.kernel.grid, self.kernel.threads // 32

        def by_thread(value: Value) -> Array:
            return self.values[value].reshape(grid, warps, 8, 4)

        def elements(value: Value) -> Array:
            """(grid, warps, 8, neighbours along k): what the threads hold of eight rows or columns."""
            bits = np.ascontiguousarray(by_thread(value))
            if mma.dtype is f32:
                return ((bits.view(np.uint32) + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32)
            return bits.view(mma.dtype.numpy).astype(np.float32).reshape(grid, warps, 8, 8)

        a = [elements(v) for v in mma.a]
        left = np.concatenate([np.concatenate([a[0], a[2]], -1), np.concatenate([a[1], a[3]], -1)], -2)
        right = np.concatenate([elements(v) for v in mma.b], -1)
        c = [by_thread(v) for v in mma.c]
        upper, lower = (np.stack(c[i : i + 2], -1).reshape(grid, warps, 8, 8) for i in (0, 2))
        total = np.concatenate([upper, lower], -2) + left @ right.swapaxes(-1, -2)
        for number, result in enumerate(mma.results):
            half = total[:, :, 8 * (number // 2) : 8 * (number // 2) + 8].reshape(grid, warps, 8, 4, 2)
            self.values[result] = half[..., number % 2].reshape(grid, -1)

    # statements of groups of warps

    def _begin_product(self, product: GroupMma) -> None:
        assert self.active.all(), "products in a part of the blocks"
        shape = self.kernel.grid, self.kernel.threads
        made = np.full((len(product.results), *shape), np.nan, np.float32)
        c = [self.values[value] for value in product.c]
        self.products.append(GroupProduct(product, self._first(product.left), self._first(product.right), c, made))
        self.values.update(zip(product.results, made, strict=True))

    def _first(self, lines: Lines) -> Array:
        """The first element of the lines of each group: (grid, groups)."""
        grid, groups = self.kernel.grid, self.kernel.threads // 128
        first = np.broadcast_to(self._sum(lines.index)[:, None] + self.values[lines.offsets], (grid, groups * 128))
        first = first.reshape(grid, groups, 128)
        assert (first == first[..., :1]).all(), "threads of a group name different lines"
        assert (first % 64 == 0).all(), "not the beginning of a line"
        return first[..., 0]

    def _matrix(self, lines: Lines, first: Array, rows: int) -> Array:
        """What is in memory now: (grid, groups, rows, 64)."""
        row, step = np.arange(rows)[:, None], np.arange(64)
        line, place = (row, step) if lines.turned else (row // 64 * 64 + step, row % 64)
        line = first[..., None, None] // 64 + line
        at = line * 64 + 8 * (place // 8 ^ line % 8) + place % 8
        assert (at < lines.buffer.size).all(), f"{lines.buffer.name} has {lines.buffer.size} elements"
        return self._own(lines.buffer, at).astype(np.float32)

    def _await_products(self, wait: AwaitGroups) -> None:
        while len(self.products) > wait.pending:
            self._finish(self.products.pop(0))
        for value, result in zip(wait.values, wait.results, strict=True):
            self.values[result] = self.values[value].copy()

    def _finish(self, product: GroupProduct) -> None:
        statement, made = product.statement, product.made
        left = self._matrix(statement.left, product.left, 64)
        right = self._matrix(statement.right, product.right, len(made) * 2)
        total = left @ right.swapaxes(-1, -2)
        grid, groups = total.shape[:2]
        for number, c in enumerate(product.c):
            row, column = number // 2 % 2 * 8, number // 4 * 8 + number % 2
            # Rows by warp and line, columns by pair.
            part = total.reshape(grid, groups, 4, 16, -1)[:, :, :, row : row + 8, column : column + 7 : 2]
            made[number] = c + part.reshape(grid, -1)

    @staticmethod
    def _once(places: Array) -> None:
        found = np.sort(places, axis=None)
        assert (found[1:] != found[:-1]).all(), "two threads store to one place"
