"""Checks that a kernel keeps the rules of the kernel IR. Errors show the guilty statement in the printed kernel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn

from graphc.codegen.carried import unfinished
from graphc.codegen.kernel import (
    COMPARISONS,
    INDEX,
    LANE_REDUCTIONS,
    NUMBERED,
    OPERATIONS,
    SEGMENT,
    SHUFFLES,
    Affine,
    Await,
    AwaitGroups,
    Exchange,
    Exp2,
    Fence,
    For,
    GroupMma,
    If,
    Kernel,
    Load,
    LoadMatrix,
    Mma,
    OfBlock,
    Op,
    Param,
    Prefetch,
    Stmt,
    Store,
    Value,
    VType,
    statements,
)
from graphc.codegen.kernel_bounds import check_bounds
from graphc.codegen.kernel_text import KernelPrinter
from graphc.codegen.target import GROUP, WARP
from graphc.errors import VerifyError
from graphc.ir.types import bf16, boolean, f16, f32, f64, i32, i64, pbf16

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_FLOAT = frozenset({"div", "fma", "sqrt", "floor", "ceil", "trunc", "rint", "fmax", "fmin", "scale"})
_SIGNED = frozenset({"sdiv", "srem"})
_INTEGER = frozenset({"udiv", "urem", "shl", "lshr", "ashr"})
_BITS = frozenset({"and", "or", "xor", "not", "reduce_or", "reduce_and"})
_NUMBER = frozenset({"add", "sub", "mul", "neg", "abs", "reduce_add", "reduce_mul"})
_COMPUTED = _NUMBER | _FLOAT | COMPARISONS | {"maximum", "minimum", "reduce_maximum", "reduce_minimum"}
COPIED = 16  # bytes that a thread copies at once
GROUP_RESULTS = (32, 64, 96, 128)  # a half of the columns of a product of lines
_CONTEXT = 3  # lines shown around the guilty one


def verify_kernel(kernel: Kernel) -> None:
    """Raise VerifyError when `kernel` breaks a rule: types, definitions before uses, loop-carried types, masks, writes
    to "in" buffers, accesses that certainly leave their buffer."""
    _Verifier(kernel).run()


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.params = {*kernel.params, *kernel.own}
        self.visible: set[Value] = set()
        self.trail: list[Value] = []  # the visible values, in order of definition
        self.defined: set[Value] = set()
        self.under_way: set[Value] = set()  # products of lines that nobody has waited for
        self.taken: set[Value] = set()  # those that something else carries on
        products = [s for s in statements(kernel.body) if isinstance(s, GroupMma)]
        self.lines = {lines.buffer for s in products for lines in (s.left, s.right)}
        self.statement: Stmt | None = None

    def fail(self, message: str) -> NoReturn:
        lines = list(KernelPrinter(self.kernel).lines())
        at = next((i for i, (_, s) in enumerate(lines) if s is not None and s is self.statement), 0)
        shown = []
        for i in range(max(0, at - _CONTEXT), min(len(lines), at + _CONTEXT + 1)):
            shown.append(f"{'>' if i == at else ' '} {i + 1:4} {lines[i][0]}")
        column = len(lines[at][0]) - len(lines[at][0].lstrip()) + 1
        raise VerifyError(f"kernel @{self.kernel.name}:{at + 1}:{column}: {message}\n" + "\n".join(shown))

    def run(self) -> None:
        kernel = self.kernel
        if not _NAME.fullmatch(kernel.name):
            self.fail(f"{kernel.name!r} cannot name a function")
        if len(self.params) != len(kernel.params) + len(kernel.own):
            self.fail("a buffer is listed twice")
        for param in kernel.params:
            if param.mode not in ("in", "out", "inout"):
                self.fail(f"buffer {param.name} has mode {param.mode!r}; modes are in, out and inout")
        for param in kernel.own:
            if param.mode != "own":
                self.fail(f"buffer {param.name} of the kernel's own has mode {param.mode!r}")
        for param in self.params:
            if param.size < 0:
                self.fail(f"buffer {param.name} has {param.size} elements")
        if kernel.threads < 1:
            self.fail(f"{kernel.threads} threads")
        if kernel.grid < 0:
            self.fail(f"the parallel range has {kernel.grid} places")
        if kernel.index.type != INDEX:
            self.fail(f"the parallel index has type {kernel.index.type}, not i64")
        self.define(kernel.index)
        self.block(kernel.body)
        found = check_bounds(kernel)
        if found is not None:
            self.statement, message = found
            self.fail(message)

    def define(self, value: Value) -> None:
        if value in self.defined:
            self.fail(f"a value named {value.name or 'nothing'!r} is defined twice")
        if value.type.lanes < 1:
            self.fail(f"{value.type.lanes} lanes")
        if self.kernel.threads > 1 and value.type.lanes not in (1, self.kernel.threads):
            self.fail(f"a vector of {value.type.lanes} lanes in a block of {self.kernel.threads} threads")
        self.defined.add(value)
        self.visible.add(value)
        self.trail.append(value)

    def use(self, value: Value, what: str) -> VType:
        if value not in self.visible:
            where = "outside the block that defines it" if value in self.defined else "before its definition"
            self.fail(f"{what} is used {where}")
        if value in self.under_way or value in self.taken:
            self.fail(f"{what} is a product that may be under way: only the next product, or a loop, carries it on")
        return value.type

    def carry(self, value: Value, type: VType, what: str) -> None:
        """A use of a value that may be under way, for which this is the only one."""
        if value in self.under_way:
            self.under_way.remove(value)
            self.expect(value, type, what)
            self.taken.add(value)
        else:
            self.expect(value, type, what)

    def expect(self, value: Value, type: VType, what: str) -> None:
        if self.use(value, what) != type:
            self.fail(f"{what} has type {value.type}, not {type}")

    def block(self, body: Sequence[Stmt]) -> None:
        before = len(self.trail)
        self.body(body)
        self.leave(before)

    def leave(self, before: int) -> None:
        """Forget the values that were defined since there were `before`."""
        while len(self.trail) > before:
            self.visible.discard(self.trail.pop())

    def body(self, body: Sequence[Stmt]) -> None:
        for statement in body:
            self.statement = statement
            if isinstance(statement, Op):
                self.op(statement)
                self.define(statement.result)
            elif isinstance(statement, Load):
                self.access(statement, statement.result.type)
                self.define(statement.result)
            elif isinstance(statement, Store):
                self.use(statement.value, "the stored value")
                self.access(statement, statement.value.type)
                if statement.buffer.mode == "in":
                    self.fail(f"a store to buffer {statement.buffer.name}, which may only be read")
                if statement.buffer in self.lines:
                    self.fail(f"a store to buffer {statement.buffer.name}, whose lines only copies fill")
                if statement.streams and (
                    statement.value.type.lanes == 1
                    or statement.stride != 1
                    or statement.offsets is not None
                    or statement.mask is not None
                    or statement.buffer.mode != "out"
                ):
                    self.fail("only whole vectors of neighbours stream, and only to a buffer that is not read")
            elif isinstance(statement, Prefetch):
                if statement.buffer not in self.params:
                    self.fail(f"{statement.buffer.name} is not a buffer of this kernel")
                self.affine(statement.index)
            elif isinstance(statement, Fence):
                continue
            elif isinstance(statement, For):
                self.loop(statement)
            elif isinstance(statement, If):
                self.expect(statement.condition, VType(boolean), "the condition")
                self.block(statement.body)
            elif isinstance(statement, OfBlock):
                self.of_block(statement)
            else:
                self.fail(f"not a statement: {statement!r}")

    def of_block(self, statement: OfBlock) -> None:
        """A statement of whole warps."""
        threads = self.kernel.threads
        if threads % WARP:
            self.fail(f"warps have {WARP} threads; the block has {threads}")
        if isinstance(statement, Await):
            if statement.pending < 0:
                self.fail(f"{statement.pending} groups of copies under way")
            return
        if isinstance(statement, (GroupMma, AwaitGroups)):
            self.of_group(statement)
            return
        if isinstance(statement, Mma):
            if statement.dtype not in (f16, bf16, f32):
                self.fail(f"matrices of {statement.dtype} are not multiplied by warps; f16, bf16 and f32 are")
            groups = ((statement.a, 4, i32), (statement.b, 2, i32), (statement.c, 4, f32))
            for values, count, dtype in groups:
                if len(values) != count:
                    self.fail(f"a thread has {count} values of this matrix, not {len(values)}")
                for value in values:
                    self.expect(value, VType(dtype, threads), "an operand of mma")
            self.defines(statement.results, (4,), VType(f32, threads))
            return
        if isinstance(statement, (Exchange, Exp2)):
            self.expect(statement.value, VType(f32, threads), "the operand")
            if isinstance(statement, Exchange) and statement.bits not in (1, 2, 4, 8, 16):
                self.fail(f"{statement.bits} is no bit of a thread's number in its warp")
            self.defines((statement.result,), (1,), VType(f32, threads))
            return
        self.scattered(statement.buffer, statement.index, statement.offsets)
        if isinstance(statement, LoadMatrix):
            dtype = statement.buffer.dtype
            if dtype.itemsize != 2 and dtype is not f32:
                self.fail(f"matrices of 16-bit elements and of f32 are read, not of {dtype}")
            if statement.transposed and dtype is f32:
                self.fail("matrices of f32 cannot be transposed")
            self.defines(statement.results, (1, 2, 4), VType(i32, threads))
            return
        self.scattered(statement.source, statement.source_index, statement.source_offsets)
        if statement.buffer.mode != "own":
            self.fail(f"a copy to {statement.buffer.name}, which is not memory of the block")
        if statement.buffer.dtype is not statement.source.dtype:
            self.fail(f"a copy of {statement.source.dtype} to a buffer of {statement.buffer.dtype}")
        if statement.count * statement.buffer.dtype.itemsize != COPIED:
            self.fail(f"{statement.count} elements of {statement.buffer.dtype} are not {COPIED} bytes")
        if statement.mask is not None:
            self.expect(statement.mask, VType(boolean, threads), "the mask")

    def of_group(self, statement: GroupMma | AwaitGroups) -> None:
        """A statement of groups of warps."""
        threads = self.kernel.threads
        if threads % GROUP:
            self.fail(f"groups of warps have {GROUP} threads; the block has {threads}")
        given = statement.c if isinstance(statement, GroupMma) else statement.values
        if len(statement.results) != len(given):
            self.fail(f"{len(given)} values give {len(statement.results)} results")
        for value in given:
            self.carry(value, VType(f32, threads), "a value of the product")
        if isinstance(statement, AwaitGroups):
            if statement.pending < 0 or (statement.pending and given):
                self.fail(f"{len(given)} values are ready with {statement.pending} products under way")
        else:
            if len(given) not in GROUP_RESULTS:
                self.fail(f"a thread has {', '.join(map(str, GROUP_RESULTS))} values of a product, not {len(given)}")
            for lines in (statement.left, statement.right):
                self.scattered(lines.buffer, lines.index, lines.offsets)
                if lines.buffer.mode != "own" or lines.buffer.dtype not in (f16, bf16):
                    self.fail("lines have elements of f16 or bf16, in memory of the block")
            if statement.left.buffer.dtype is not statement.right.buffer.dtype:
                self.fail("both matrices of a product have the same dtype")
        self.defines(statement.results, (len(given),), VType(f32, threads))
        if isinstance(statement, GroupMma):
            self.under_way.update(statement.results)

    def defines(self, results: Sequence[Value], counts: Sequence[int], type: VType) -> None:
        if len(results) not in counts:
            self.fail(f"{len(results)} results")
        for result in results:
            if result.type != type:
                self.fail(f"the result has type {result.type}, not {type}")
            self.define(result)

    def scattered(self, buffer: Param, index: Affine, offsets: Value) -> None:
        """A place that each thread has by itself."""
        if buffer not in self.params:
            self.fail(f"{buffer.name} is not a buffer of this kernel")
        self.affine(index)
        self.expect(offsets, VType(i64, self.kernel.threads), "the offsets")

    def loop(self, loop: For) -> None:
        for bound in (loop.lo, loop.hi):
            if isinstance(bound, Value):
                self.expect(bound, INDEX, "a loop bound")
        if loop.step < 1:
            self.fail(f"a loop step is at least 1, not {loop.step}")
        counts = {len(loop.phis), len(loop.inits), len(loop.yields), len(loop.results)}
        if len(counts) != 1:
            self.fail("a loop has as many carried values as initial values, yielded values and results")
        for phi, init in zip(loop.phis, loop.inits, strict=True):
            self.expect(init, phi.type, "an initial value")
        before = len(self.trail)
        if loop.var.type != INDEX:
            self.fail(f"the loop variable has type {loop.var.type}, not i64")
        self.define(loop.var)
        carried = unfinished(loop)
        for phi in loop.phis:
            self.define(phi)
        self.under_way |= carried
        self.body(loop.body)
        self.statement = loop
        for phi, last in zip(loop.phis, loop.yields, strict=True):
            take = self.carry if phi in carried else self.expect
            take(last, phi.type, "a yielded value")
        self.leave(before)
        self.under_way.update(r for r, phi in zip(loop.results, loop.phis, strict=True) if phi in carried)
        for phi, result in zip(loop.phis, loop.results, strict=True):
            if result.type != phi.type:
                self.fail(f"a loop result has type {result.type}; the carried value has {phi.type}")
            self.define(result)

    def affine(self, index: Affine) -> None:
        for value, coefficient in index.terms:
            self.expect(value, INDEX, "an index")
            if not isinstance(coefficient, int):
                self.fail(f"the coefficient {coefficient!r} of an index is not an integer")

    def access(self, statement: Load | Store, type: VType) -> None:
        buffer: Param = statement.buffer
        if buffer not in self.params:
            self.fail(f"{buffer.name} is not a buffer of this kernel")
        if type.dtype is not buffer.dtype:
            self.fail(f"buffer {buffer.name} holds {buffer.dtype}, the value is {type}")
        self.affine(statement.index)
        if statement.offsets is not None:
            self.expect(statement.offsets, VType(i64, type.lanes), "the offsets")
            if statement.stride not in (0, 1):
                self.fail("an access has a stride or offsets, not both")
        elif type.lanes > 1 and statement.stride == 0:
            self.fail("a vector access of stride 0: load a scalar and splat it")
        if statement.mask is not None:
            self.expect(statement.mask, VType(boolean, type.lanes), "the mask")

    def op(self, op: Op) -> None:
        if op.name not in OPERATIONS:
            self.fail(f"no operation is named {op.name!r}")
        count = OPERATIONS[op.name][0]
        if len(op.args) != count:
            self.fail(f"{op.name} takes {count} operands, not {len(op.args)}")
        for i, arg in enumerate(op.args):
            self.use(arg, f"operand {i + 1}")
        if (op.attr is not None) != (op.name in NUMBERED):
            self.fail(f"{op.name} {'needs a number' if op.attr is None else 'takes no number'}")
        if (op.table is not None) != (op.name == "lookup"):
            self.fail(f"{op.name} {'needs a table' if op.table is None else 'takes no table'}")
        check = getattr(self, f"_op_{op.name}", None)
        if check is not None:
            check(op)
        elif op.name in LANE_REDUCTIONS:
            self._reduction(op)
        elif op.name in SHUFFLES:
            self._shuffle(op)
        else:
            self._elementwise(op)

    def result(self, op: Op, type: VType) -> None:
        if op.result.type != type:
            self.fail(f"the result of {op.name} is {type}, not {op.result.type}")

    def kind(self, op: Op, type: VType) -> None:
        """Check that `op` is defined for elements of `type`."""
        dtype, name = type.dtype, op.name
        if dtype.is_float and dtype.bits == 16 and name in _COMPUTED:
            self.fail(f"{name} of {dtype}: kernels only move and convert {dtype}; cast to f32 first")
        if dtype.kind == "pair" and (name in _COMPUTED or name in _BITS or name in _INTEGER):
            self.fail(f"{name} of {dtype}: kernels only move pairs and add up their products")
        wrong = (
            (name in _FLOAT and not dtype.is_float)
            or (name in _SIGNED and dtype.kind != "int")
            or (name in _INTEGER and not dtype.is_integer)
            or (name in _BITS and dtype.is_float)
            or (name in _NUMBER and dtype.kind == "bool")
        )
        if wrong:
            self.fail(f"{name} is not defined for {dtype}")

    def _elementwise(self, op: Op) -> None:
        type = op.args[0].type
        for arg in op.args:
            if arg.type != type:
                types = ", ".join(str(a.type) for a in op.args)
                self.fail(f"the operands of {op.name} have types {types}; they must be equal")
        self.kind(op, type)
        self.result(op, VType(boolean, type.lanes) if op.name in COMPARISONS else type)

    def _reduction(self, op: Op) -> None:
        type = op.args[0].type
        if type.lanes & (type.lanes - 1):
            self.fail(f"{op.name} halves its operand; {type.lanes} lanes are not a power of two")
        self.kind(op, type)
        self.result(op, VType(type.dtype))

    def _shuffle(self, op: Op) -> None:
        type = op.args[0].type
        group = type.lanes * type.dtype.itemsize if op.name.startswith("zip") else SEGMENT
        group *= 2 if op.name.endswith("segments") else 1
        if type.lanes % 2 or group % (2 * type.dtype.itemsize) or type.lanes * type.dtype.itemsize % group:
            self.fail(f"{op.name} does not cut {type} into equal parts")
        self._elementwise(op)

    def _op_const(self, op: Op) -> None:
        dtype, value = op.result.type.dtype, op.attr
        if dtype.kind == "bool":
            good = isinstance(value, bool)
        elif dtype.is_float:
            good = isinstance(value, (int, float)) and not isinstance(value, bool)
        else:
            good = (
                isinstance(value, int)
                and not isinstance(value, bool)
                and -(1 << (dtype.bits - 1)) <= value < 1 << dtype.bits
            )
        if not good:
            self.fail(f"{value!r} is not a constant of {dtype}")

    def _op_lanes(self, op: Op) -> None:
        if not op.result.type.dtype.is_integer:
            self.fail(f"lane numbers are integers, not {op.result.type}")

    def _op_splat(self, op: Op) -> None:
        source = op.args[0].type
        if source.lanes != 1:
            self.fail(f"splat takes a scalar, not {source}")
        self.result(op, VType(source.dtype, op.result.type.lanes))

    def _op_extract(self, op: Op) -> None:
        source = op.args[0].type
        lanes = op.result.type.lanes
        if not isinstance(op.attr, int) or not 0 <= op.attr <= source.lanes - lanes:
            self.fail(f"there {'is no lane' if lanes == 1 else f'are no {lanes} lanes from'} {op.attr} in {source}")
        self.result(op, VType(source.dtype, lanes))

    def _op_fma_pairs(self, op: Op) -> None:
        first, second, added = (a.type for a in op.args)
        if first.dtype is not pbf16 or first != second or added != VType(f32, first.lanes):
            self.fail(f"fma_pairs takes (pbf16, pbf16, f32) of as many lanes, not ({first}, {second}, {added})")
        self.result(op, added)

    def _op_splice(self, op: Op) -> None:
        lanes = op.args[0].type.lanes
        if not isinstance(op.attr, int) or not 0 <= op.attr <= lanes:
            self.fail(f"of two vectors of {lanes} lanes {lanes} begin at number 0 to {lanes}, not {op.attr}")
        self._elementwise(op)

    def _op_lookup(self, op: Op) -> None:
        source, target, size = op.args[0].type, op.result.type, len(op.table or ())
        if size & (size - 1) or size == 0:
            self.fail(f"a table has as many elements as a power of two says, not {size}")
        if not source.dtype.is_integer or target.dtype not in (f32, f64) or source.dtype.bits != target.dtype.bits:
            self.fail(f"lookup takes i32 to f32 or i64 to f64, not {source} to {target}")
        self.result(op, VType(target.dtype, source.lanes))

    def _op_select(self, op: Op) -> None:
        condition, first, second = (a.type for a in op.args)
        if condition != VType(boolean, first.lanes) or first != second:
            self.fail(f"select takes (boolxN, T, T), not ({condition}, {first}, {second})")
        self.result(op, first)

    def _op_cast(self, op: Op) -> None:
        self.result(op, VType(op.result.type.dtype, op.args[0].type.lanes))

    def _op_bitcast(self, op: Op) -> None:
        source, target = op.args[0].type, op.result.type
        if (
            source.lanes != target.lanes
            or source.dtype.bits != target.dtype.bits
            or boolean in (source.dtype, target.dtype)
        ):
            self.fail(f"bitcast keeps lanes and size, and takes no bool: {source} to {target}")

    def _index_arithmetic(self, op: Op) -> None:
        for arg in op.args:
            self.expect(arg, INDEX, f"an operand of {op.name}")
        self.result(op, INDEX)

    _op_floordiv = _index_arithmetic
    _op_mod = _index_arithmetic
