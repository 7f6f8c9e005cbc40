"""Kernel IR to CUDA C, one statement at a time.

A kernel of one thread runs its body in a thread for each index; a kernel of more, in a block for each index, though
warps that need nothing of each other may share a block of CUDA's. There is no fast-math: units are compiled without
contraction, the kernel says where `fma` is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from graphc.codegen.carried import unfinished
from graphc.codegen.cuda.barriers import SCRATCHES, find_barriers
from graphc.codegen.cuda.function import LANE, Function
from graphc.codegen.cuda.groups import Groups, group_prelude, multiplies_lines
from graphc.codegen.cuda.matrix import MATRIX_PRELUDE, Warps, uses_matrices
from graphc.codegen.cuda.memory import Memory
from graphc.codegen.cuda.operations import exchange, exchange_bytes, exchanges, translate
from graphc.codegen.cuda.prelude import PRELUDE
from graphc.codegen.cuda.ranges import trip_count
from graphc.codegen.cuda.spelling import INT_MAX, integer, memory_type
from graphc.codegen.cuda.wide import run_length
from graphc.codegen.kernel import (
    AsyncCopy,
    Fence,
    For,
    GroupMma,
    If,
    Kernel,
    Load,
    LoadMatrix,
    Mma,
    Op,
    Param,
    Prefetch,
    Stmt,
    Store,
    Value,
    statements,
)
from graphc.codegen.target import MAX_BLOCK, STATIC_SHARED, WARP, WIDE, Target
from graphc.errors import CompileError

LOCAL_MEMORY = 512 << 10  # bytes that a thread may have
_FULL = 256  # blocks that give work to all multiprocessors
_UNROLLED = 512  # operations up to which a loop is unrolled as a whole
_UNROLLED_OWN = 4096  # likewise, where that keeps the thread's own memory in registers
_TOGETHER, _ROUNDS = 64, 8  # other loops: operations, and rounds, of which as much as fits is unrolled
_LONG = 1024  # statements of a kernel from which on loops stay as they are, for the compiler's sake
_MATRIX_SIZE = 8  # operations that an instruction on matrices counts for


def launch_shape(kernel: Kernel) -> tuple[int, int, int]:
    """How a kernel is launched: blocks, threads of a block, bytes of dynamic shared memory."""
    if kernel.threads > 1:
        warps = warps_together(kernel)
        shape = -(-kernel.grid // warps), warps * kernel.threads, _dynamic_shared(kernel)
    else:
        threads = _block_size(kernel)
        shape = -(-kernel.grid // threads), threads, 0
    if shape[0] > INT_MAX or shape[1] > MAX_BLOCK:
        raise CompileError(
            f"kernel {kernel.name} would need {shape[0]} blocks of {shape[1]} threads; a device runs at most {INT_MAX} "
            f"blocks of {MAX_BLOCK} threads at once"
        )
    return shape


def warps_together(kernel: Kernel) -> int:
    """How many indices share a block of threads, with a warp for each, as starting a block takes its time. One, if the
    kernel's blocks are not warps, or exchange values otherwise than by shuffles; few, where there are few blocks.
    """
    if kernel.threads != WARP or kernel.own or _scratch_bytes(kernel):
        return 1
    every = list(statements(kernel.body))
    stored = {s.buffer for s in every if isinstance(s, Store)}
    if any(isinstance(s, Load) and s.buffer in stored for s in every):
        return 1  # there may be barriers
    return next((warps for warps in (8, 4, 2) if kernel.grid >= warps * _FULL), 1)


def emit_kernel(kernel: Kernel, target: Target) -> str:
    """The definition `extern "C" __global__ void NAME(float* p0, ...)`, to be launched as `launch_shape` says.

    Where the kernel has vectors in one thread, its buffers begin at multiples of 16 bytes.
    """
    return _KernelEmitter(kernel, target).definition()


def emit_unit(texts: Sequence[str]) -> str:
    """One translation unit with the kernels `texts`: compile it without contraction (`-fmad=false`)."""
    prelude = PRELUDE + MATRIX_PRELUDE if any(map(uses_matrices, texts)) else PRELUDE
    return "\n".join([prelude.lstrip() + group_prelude(texts), *dict.fromkeys(texts)])


def _block_size(kernel: Kernel) -> int:
    """Threads of a block where an index is a thread: fewer where that gives work to more multiprocessors."""
    for threads in (256, 128, 64):
        if kernel.grid >= threads * _FULL:
            return threads
    return 32


def _scratch_bytes(kernel: Kernel) -> int:
    """Bytes of each region through which the threads of a block exchange values."""
    operations = (s for s in statements(kernel.body) if isinstance(s, Op))
    needed = (exchange_bytes(o, kernel.threads) for o in operations if exchanges(o, kernel.threads))
    return -(-max(needed, default=0) // WIDE) * WIDE


def _own_bytes(buffer: Param) -> int:
    return -(-buffer.size * buffer.dtype.itemsize // WIDE) * WIDE


def _dynamic_shared(kernel: Kernel) -> int:
    """Bytes of the memory of a block's own when it is too much to be static, or must begin at a pattern of lines; else
    0.
    """
    own = sum(map(_own_bytes, kernel.own))
    return own if own + SCRATCHES * _scratch_bytes(kernel) > STATIC_SHARED or multiplies_lines(kernel) else 0


class _KernelEmitter:
    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.kernel = kernel
        self.f = Function(kernel, target)
        self.memory = Memory(self.f, kernel)
        self.warps = Warps(self.f, self.memory)
        self.groups = Groups(self.f, self.warps)
        self.warps.is_read_by_groups = multiplies_lines(kernel)
        self.barriers = find_barriers(kernel, self.f.spans)
        self.is_long = sum(1 for _ in statements(kernel.body)) > _LONG
        self._translators: dict[type, Callable[..., None]] = {
            Op: self._op,
            Load: self.memory.load,
            Store: self.memory.store,
            Fence: _nothing,  # registers are the compiler's matter
            Prefetch: _nothing,  # the threads of other warps run while one waits for memory
            For: self._for,
            If: self._if,
            **self.warps.translators,
            **self.groups.translators,
        }

    def definition(self) -> str:
        kernel, f = self.kernel, self.f
        blocks, threads, _ = launch_shape(kernel)
        parameters = []
        for number, param in enumerate(kernel.params):
            const = "const " if param.mode == "in" else ""
            parameters.append(f"{const}{memory_type(param.dtype)}* __restrict__ p{number}")
        self._own_memory()
        index = f.fresh(kernel.index.name)
        type = f.type(kernel.index)
        f.define(kernel.index, (index,))
        warps = warps_together(kernel)
        if warps > 1:
            f.run(f"const int {LANE} = (int)threadIdx.x % {WARP};")
            f.run(f"const {type} {index} = ({type})blockIdx.x * {warps} + (int)threadIdx.x / {WARP};")
            if kernel.grid % warps:
                f.run(f"if ({index} >= {integer(kernel.grid)}) return;")
        elif f.is_block:
            f.run(f"const int {LANE} = (int)threadIdx.x;")
            f.run(f"const {type} {index} = ({type})blockIdx.x;")
        else:
            whole = "" if blocks * threads <= INT_MAX else "(long long)"
            thread = f"{whole}blockIdx.x * {threads} + threadIdx.x"
            if kernel.grid % threads:
                f.run(f"if ({thread} >= {integer(kernel.grid)}) return;")
            f.run(f"const {type} {index} = ({type})({thread});")
        self.block(kernel.body)
        bounds = f"{threads}, {kernel.resident}" if kernel.resident else str(threads)
        head = f'extern "C" __global__ void __launch_bounds__({bounds}) {kernel.name}({", ".join(parameters)}) {{'
        return "\n".join([head, *f.lines, "}", ""])

    def _own_memory(self) -> None:
        kernel, f = self.kernel, self.f
        total = sum(map(_own_bytes, kernel.own))
        scratch = _scratch_bytes(kernel)
        limit = max(f.target.l1_bytes, STATIC_SHARED) if f.is_block else LOCAL_MEMORY
        if total + SCRATCHES * scratch > limit:
            raise CompileError(
                f"kernel {kernel.name} needs {total + SCRATCHES * scratch} bytes of "
                f"{'shared memory for a block' if f.is_block else 'memory for a thread'}; there are {limit}"
            )
        dynamic = f.is_block and _dynamic_shared(kernel) > 0
        if dynamic:
            f.run(f"{'GC_DYNAMIC_LINES' if self.warps.is_read_by_groups else 'GC_DYNAMIC_SHARED'}(dynamic);")
        offset = 0
        places: dict[Param, tuple[str, int]] = {}
        for number, buffer in enumerate(kernel.own):
            places[buffer] = ("dynamic", offset) if dynamic else (f"own{number}", 0)
            type = memory_type(buffer.dtype)
            if dynamic:
                f.run(f"{type}* const own{number} = ({type}*)(dynamic + {offset});")
            else:
                shared = "__shared__ " if f.is_block else ""
                f.run(f"alignas({WIDE}) {shared}{type} own{number}[{max(1, buffer.size)}];")
            offset += _own_bytes(buffer)
        if any(isinstance(s, (LoadMatrix, AsyncCopy, GroupMma)) for s in statements(kernel.body)):
            self.warps.begin(places)
        if self.warps.is_read_by_groups:
            self.groups.begin()
        for number in range(min(SCRATCHES, len(self.barriers.scratch))):
            f.run(f"alignas({WIDE}) __shared__ unsigned char scratch{number}[{scratch}];")

    def block(self, body: Sequence[Stmt]) -> None:
        """Translate `body`."""
        position = 0
        while position < len(body):
            statement = body[position]
            translator = self._translators.get(type(statement))
            if translator is None:
                raise CompileError(f"not a kernel statement: {statement!r}")
            if id(statement) in self.barriers.before:
                self.f.run("__syncthreads();")
            count = self._together(body, position)
            if count > 1 and isinstance(statement, (Load, Store)):
                run = self.memory.load_run if isinstance(statement, Load) else self.memory.store_run
                run(body[position : position + count])  # type: ignore[arg-type]
            else:
                translator(statement)
            position += count

    def _together(self, body: Sequence[Stmt], position: int) -> int:
        """How many statements from `position` on are one wide access of each thread."""
        if not self.f.is_block:
            return 1
        return run_length(body, position, self.f.spans, self.kernel.aligned, self.barriers.before)

    def _op(self, op: Op) -> None:
        if exchanges(op, self.kernel.threads):
            exchange(self.f, op, f"scratch{self.barriers.scratch[id(op)]}")
        else:
            translate(self.f, op)

    def _for(self, loop: For) -> None:
        f = self.f
        trips = trip_count(loop)
        if trips is not None and trips <= 1:
            self._straight(loop, trips)
            return
        carried: list[tuple[str, ...]] = []
        under_way = unfinished(loop)
        for phi, init in zip(loop.phis, loop.inits, strict=True):
            names = []
            for register in f.registers[init]:
                name = f.fresh(phi.name)
                f.run(f"{f.type(phi)} {name} = {register};")
                names.append(name)
            carried.append(tuple(names))
            f.define(phi, carried[-1])
            if phi in under_way:
                self.groups.carry(names[0])
        variable = f.fresh(loop.var.name)
        f.define(loop.var, (variable,))
        lo, hi = (f.scalar(b) if isinstance(b, Value) else integer(b) for b in (loop.lo, loop.hi))
        self._unroll(loop, trips)
        step = f"{variable}++" if loop.step == 1 else f"{variable} += {loop.step}"
        f.open(f"for ({f.type(loop.var)} {variable} = {lo}; {variable} < {hi}; {step}) {{")
        self.block(loop.body)
        self._yield(loop, carried, under_way)
        f.close()
        for result, names in zip(loop.results, carried, strict=True):
            f.define(result, names)

    def _yield(self, loop: For, carried: Sequence[tuple[str, ...]], under_way: Collection[Value]) -> None:
        """Give carried values their next ones, all at once. Products that are `under_way` stay where they are."""
        f = self.f
        changed = {name for names in carried for name in names}
        moves: list[tuple[str, str]] = []
        for phi, names, last in zip(loop.phis, carried, loop.yields, strict=True):
            for name, register in zip(names, f.registers[last], strict=True):
                if name == register:
                    continue
                if phi in under_way:
                    raise CompileError(f"kernel {self.kernel.name}: a product would be moved while it is under way")
                moves.append((name, f.let(f.type(phi), register) if register in changed else register))
        for name, register in moves:
            f.run(f"{name} = {register};")

    def _straight(self, loop: For, trips: int) -> None:
        """A loop that runs once or never."""
        f = self.f
        if isinstance(loop.lo, int):
            f.define(loop.var, (integer(loop.lo),))
        for phi, init in zip(loop.phis, loop.inits, strict=True):
            f.define(phi, f.registers[init])
        if trips:
            self.block(loop.body)
        for result, last in zip(loop.results, loop.yields if trips else loop.inits, strict=True):
            f.define(result, f.registers[last])

    def _unroll(self, loop: For, trips: int | None) -> None:
        """Say how far to unroll a loop: what the compiler guesses may be far too much."""
        size = max(1, _size(loop.body, self.f.is_block))
        most = _UNROLLED_OWN if not self.f.is_block and _touches_own(loop.body) else _UNROLLED
        if self.is_long:
            self.f.run("#pragma unroll 1")
        elif trips is not None and size * trips <= most and trips <= most // 8:
            self.f.run("#pragma unroll")
        else:
            self.f.run(f"#pragma unroll {max(1, min(_ROUNDS, _TOGETHER // size))}")

    def _if(self, statement: If) -> None:
        self.f.open(f"if ({self.f.scalar(statement.condition)}) {{")
        self.block(statement.body)
        self.f.close()


def _nothing(statement: Prefetch | Fence) -> None:
    """Translate nothing."""


def _size(body: Sequence[Stmt], is_block: bool) -> int:
    """Operations that a thread does in one run of `body`, about."""
    total = 0
    for statement in body:
        if isinstance(statement, For):
            total += _size(statement.body, is_block) * (trip_count(statement) or 1)
        elif isinstance(statement, If):
            total += _size(statement.body, is_block)
        elif isinstance(statement, (Op, Load)) and not (isinstance(statement, Op) and statement.name == "const"):
            total += 1 if is_block else statement.result.type.lanes
        elif isinstance(statement, Store):
            total += 1 if is_block else statement.value.type.lanes
        elif isinstance(statement, (Mma, LoadMatrix, AsyncCopy, GroupMma)):
            total += _MATRIX_SIZE
    return total


def _touches_own(body: Sequence[Stmt]) -> bool:
    """Whether memory of the kernel's own is accessed."""
    return any(isinstance(s, (Load, Store)) and s.buffer.mode == "own" for s in statements(body))
