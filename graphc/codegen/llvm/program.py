"""The entry of a program: one native function that runs all kernels in order, on the threads of the runtime.

`void ENTRY(ptr buffers, ptr runtime)`: `buffers` is a table of pointers, `runtime` that of the runtime's functions
(`pool.py` there): how several threads work on a task, and how they share a long fill or copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.codegen.llvm.emit import attributes
from graphc.codegen.target import Target
from graphc.errors import CompileError
from graphc.ir.record import record

Reference = tuple[int, int]
"""A place in a buffer: its number in the table, and an offset in bytes."""

# LLVM's work on one block grows faster than the block; long programs are cut into functions of this many steps.
_STEPS_PER_FUNCTION = 128

# The runtime fills and copies so many bytes and more, on several threads where it is worth it.
LONG_BYTES = 1 << 16


@record
class Local:
    """A place in the memory of the thread that runs a part of a region: an offset in bytes.

    It holds the blocks that are at work only, `stride` bytes each.
    """

    offset: int
    stride: int


Argument = Reference | Local


@record
class Launch:
    """Call the kernel `symbol` over [0, grid), on several threads when `parallel`.

    One argument per kernel parameter; only launches in a region have local ones.
    """

    symbol: str
    arguments: tuple[Argument, ...]
    grid: int
    parallel: bool = False


@record
class Fill:
    """Set `nbytes` bytes to `value` (0 to 255). In a region: of each block, `nbytes` being those of all blocks."""

    argument: Argument
    nbytes: int
    value: int = 0


@record
class Copy:
    """Copy `nbytes` bytes; the two places do not overlap."""

    destination: Reference
    source: Reference
    nbytes: int


@record
class Region:
    """Several launches and fills that go through `blocks` blocks together: all of them for the first `together` blocks,
    then all of them for the next ones.

    `parts` parts of the blocks may run at the same time; part `i` has `own_bytes` bytes at `memory`, past those of the
    parts before it, for its local places. A launch of grid `n` gets `n / blocks` of its range for a block; `blocks`
    divides `n`. The caller knows that no block needs what another one writes.
    """

    blocks: int
    together: int
    parts: int
    memory: Reference
    own_bytes: int
    steps: tuple[Launch | Fill, ...]


Step = Launch | Fill | Copy | Region


def emit_program(
    steps: Sequence[Step], target: Target, entry: str = "graphc_main", clock: Reference | None = None
) -> str:
    """The LLVM module with the function `entry`, which runs `steps` in order.

    With a `clock` it writes the ticks of the processor's counter (i64) there, before the first step and after each.
    The kernels are external functions. Raises CompileError when the blocks of a region do not divide the work of one of
    its steps, or when one symbol is launched with different numbers of buffers.
    """
    writer = _ProgramWriter()
    parts: list[str] = []
    for first in range(0, len(steps), _STEPS_PER_FUNCTION):
        parts.append(f"{entry}.part{len(parts)}")
        writer.loaded.clear()
        body: list[str] = []
        for number, step in enumerate(steps[first : first + _STEPS_PER_FUNCTION], first):
            if clock is not None and number == 0:
                body += writer.tick(clock, 0, target)
            body += writer.step(step)
            if clock is not None:
                body += writer.tick(clock, number + 1, target)
        writer.functions.append(_function(f"internal void @{parts[-1]}(ptr %buffers, ptr %runtime)", body))
    calls = [f"call void @{part}(ptr %buffers, ptr %runtime)" for part in parts]
    lines = [
        f'source_filename = "{entry}"',
        f'target triple = "{target.triple}"',
        *(
            f"declare void @{name}({', '.join(['ptr'] * count + ['i64', 'i64'])})"
            for name, count in writer.kernels.items()
        ),
        "declare i64 @llvm.readcyclecounter()",
        "declare i64 @llvm.readsteadycounter()",
        "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
        "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
        *writer.functions,
        _function(f"void @{entry}(ptr %buffers, ptr %runtime)", calls),
        attributes(target),
    ]
    return "\n".join(lines) + "\n"


def _function(signature: str, body: Sequence[str]) -> str:
    return "\n".join([f"define {signature} #0 {{", *(f"  {line}" for line in body), "  ret void", "}"])


def _filled(pointer: str, value: int, size: str) -> str:
    return f"call void @llvm.memset.p0.i64(ptr {pointer}, i8 {value}, i64 {size}, i1 false)"


class _ProgramWriter:
    def __init__(self) -> None:
        self.kernels: dict[str, int] = {}  # symbol -> number of buffers
        self.functions: list[str] = []
        self.loaded: dict[int, str] = {}  # the addresses of buffers that the function being written has loaded
        self._count = 0

    def step(self, step: Step) -> Iterator[str]:
        """The instructions of one step."""
        if isinstance(step, Launch):
            if step.parallel and step.grid > 1:
                yield from self._threads(step.grid, self._task(self._call(step, "%lo", "%hi")))
            elif step.grid > 0:
                yield from self._call(step, "0", str(step.grid))
        elif isinstance(step, Region):
            yield from self._threads(step.parts, self._task(self._blocks(step)))
        elif isinstance(step, Fill):
            if not 0 <= step.value <= 255:
                raise CompileError(f"a fill value is a byte, not {step.value}")
            yield from self._moved(step.nbytes, step.argument, None, step.value)
        else:
            yield from self._moved(step.nbytes, step.destination, step.source)

    def _moved(self, nbytes: int, to: Argument, source: Reference | None, value: int = 0) -> Iterator[str]:
        """Copy from `source`, or fill with bytes of `value` where there is none."""
        if not nbytes:
            return
        destination = yield from self._place(to)
        origin = "null" if source is None else (yield from self._pointer(source))
        if nbytes >= LONG_BYTES:
            pool, move = yield from self._runtime(2)
            yield f"call void {move}(ptr {pool}, ptr {destination}, ptr {origin}, i64 {nbytes}, i8 {value})"
        elif source is None:
            yield _filled(destination, value, str(nbytes))
        else:
            yield f"call void @llvm.memcpy.p0.p0.i64(ptr {destination}, ptr {origin}, i64 {nbytes}, i1 false)"

    def tick(self, clock: Reference, number: int, target: Target) -> Iterator[str]:
        """Write the counter to entry `number` of the clock."""
        pointer = yield from self._pointer((clock[0], clock[1] + 8 * number))
        now = self._fresh()
        # Reading the cycle counter traps on aarch64; its timer does not.
        is_arm = target.triple.startswith("aarch64")
        yield f"{now} = call i64 @llvm.{'readsteadycounter' if is_arm else 'readcyclecounter'}()"
        yield f"store i64 {now}, ptr {pointer}"

    def _fresh(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def _pointer(self, reference: Reference) -> Iterator[str]:
        number, offset = reference
        pointer = self.loaded.get(number)
        if pointer is None:
            slot, pointer = self._fresh(), self._fresh()
            self.loaded[number] = pointer
            yield f"{slot} = getelementptr ptr, ptr %buffers, i64 {number}"
            yield f"{pointer} = load ptr, ptr {slot}"
        if not offset:
            return pointer
        moved = self._fresh()
        yield f"{moved} = getelementptr i8, ptr {pointer}, i64 {offset}"
        return moved

    def _place(self, argument: Argument) -> Iterator[str]:
        """The address of an argument. In a region local ones are counted from `%own`, and begin with block `%block`."""
        if isinstance(argument, tuple):
            return (yield from self._pointer(argument))
        skipped, offset, pointer = self._fresh(), self._fresh(), self._fresh()
        yield f"{skipped} = mul nsw i64 %block, {-argument.stride}"
        yield f"{offset} = add nsw i64 {skipped}, {argument.offset}"
        yield f"{pointer} = getelementptr i8, ptr %own, i64 {offset}"
        return pointer

    def _call(self, launch: Launch, lo: str, hi: str) -> Iterator[str]:
        count = self.kernels.setdefault(launch.symbol, len(launch.arguments))
        if count != len(launch.arguments):
            raise CompileError(
                f"kernel {launch.symbol} is launched with {count} and with {len(launch.arguments)} buffers"
            )
        pointers = []
        for argument in launch.arguments:
            pointer = yield from self._place(argument)
            pointers.append(f"ptr {pointer}")
        yield f"call void @{launch.symbol}({', '.join([*pointers, f'i64 {lo}', f'i64 {hi}'])})"

    def _task(self, body: Iterator[str]) -> str:
        """A function that runs `body` over its range [%lo, %hi)."""
        task = f"task{len(self.functions)}.{self._count}"
        outside, self.loaded = self.loaded, {}
        self.functions.append(_function(f"internal void @{task}(ptr %buffers, i64 %lo, i64 %hi)", list(body)))
        self.loaded = outside
        return task

    def _threads(self, count: int, task: str) -> Iterator[str]:
        """Run `task` over [0, count), on the threads of the runtime when there are several."""
        if count == 1:
            yield f"call void @{task}(ptr %buffers, i64 0, i64 1)"
            return
        pool, parallel_for = yield from self._runtime(0)
        yield f"call void {parallel_for}(ptr {pool}, ptr @{task}, ptr %buffers, i64 {count})"

    def _runtime(self, number: int) -> Iterator[str]:
        """The pool, which is entry 1 of the runtime's table, and the function that is entry `number`."""
        found = []
        for entry in (1, number):
            slot, value = self._fresh(), self._fresh()
            yield f"{slot} = getelementptr ptr, ptr %runtime, i64 {entry}"
            yield f"{value} = load ptr, ptr {slot}"
            found.append(value)
        return found

    def _blocks(self, region: Region) -> Iterator[str]:
        """Go through the blocks of parts [%lo, %hi). One call uses the memory of its first part for all of them."""
        memory = yield from self._pointer(region.memory)
        yield f"%skipped = mul nsw i64 %lo, {region.own_bytes}"
        yield f"%own = getelementptr i8, ptr {memory}, i64 %skipped"
        for name, part in (("first", "%lo"), ("end", "%hi")):
            yield f"%{name}.all = mul nsw i64 {part}, {region.blocks}"
            yield f"%{name} = udiv i64 %{name}.all, {region.parts}"
        yield "br label %head"
        yield "head:"
        yield "%block = phi i64 [ %first, %0 ], [ %next, %body ]"
        yield "%more = icmp slt i64 %block, %end"
        yield "br i1 %more, label %body, label %done"
        yield "body:"
        yield f"%after = add nsw i64 %block, {region.together}"
        yield "%whole = icmp slt i64 %after, %end"
        yield "%next = select i1 %whole, i64 %after, i64 %end"
        for step in region.steps:
            total = step.grid if isinstance(step, Launch) else step.nbytes
            if total % region.blocks:
                name = f"the grid {total} of kernel {step.symbol}" if isinstance(step, Launch) else f"a fill of {total}"
                raise CompileError(f"{region.blocks} blocks do not divide {name}")
            lo, hi = self._fresh(), self._fresh()
            yield f"{lo} = mul nsw i64 %block, {total // region.blocks}"
            yield f"{hi} = mul nsw i64 %next, {total // region.blocks}"
            if isinstance(step, Launch):
                yield from self._call(step, lo, hi)
                continue
            place = yield from self._place(step.argument)
            first, size = self._fresh(), self._fresh()
            yield f"{first} = getelementptr i8, ptr {place}, i64 {lo}"
            yield f"{size} = sub nsw i64 {hi}, {lo}"
            yield _filled(first, step.value, size)
        yield "br label %head"
        yield "done:"
