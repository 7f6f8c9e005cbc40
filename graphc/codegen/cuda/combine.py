"""Launches that need not wait for each other become one, since starting a small kernel takes longer than running it.

Steps are put into rounds: a step comes a round after the last one whose memory it touches (unless both only read). In
a round small kernels with equally large blocks are run by one kernel, some blocks each.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from graphc.codegen.kernel import Kernel
from graphc.codegen.llvm.program import Argument, Copy, Fill, Launch, Step
from graphc.ir.record import record
from graphc_runtime.artifact import Launch as LaunchRecord

SHARED = 32 << 10  # bytes of shared memory that kernels of one launch may have together
PARAMETERS = 200  # of one launch; there are 4 KB for them
ALONE = 128  # threads of a block where each works alone
_HEAD = re.compile(r'extern "C" __global__ void __launch_bounds__\((\d+)(?:, \d+)?\) (\w+)\((.*)\) \{\n')


@record
class Work:
    """A step of a program and, for a launch, its kernel, the text of that, its record, and how it is launched."""

    step: Step
    kernel: Kernel | None = None
    text: str = ""
    record: LaunchRecord | None = None
    shape: tuple[int, int, int] = (0, 0, 0)


@record
class Combined:
    """Works that are done together by `symbol`, which `texts` define: `blocks` blocks of `threads` threads."""

    works: tuple[Work, ...]
    symbol: str
    texts: tuple[str, ...]
    blocks: int
    threads: int
    shared: int

    @property
    def record(self) -> LaunchRecord:
        """What all of them do."""
        records = [w.record for w in self.works if w.record is not None]
        if len(records) == 1:
            return records[0]
        lines = tuple(sorted({line for r in records for line in r.lines}))
        grid, flops, nbytes = (sum(getattr(r, name) for r in records) for name in ("grid", "flops", "bytes"))
        return LaunchRecord(self.symbol, grid, flops, nbytes, lines)

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """Those of all kernels."""
        return tuple(a for w in self.works if isinstance(w.step, Launch) for a in w.step.arguments)


class _Buffer:
    """In which round each byte of a buffer was last written, and last touched at all; -1: in none. Kept by segments."""

    def __init__(self) -> None:
        self._starts = [0]
        self._rounds = [(-1, -1)]

    def _cut(self, at: int) -> int:
        """Let a segment begin at byte `at`; gives its number."""
        number = bisect_left(self._starts, at)
        if number == len(self._starts) or self._starts[number] != at:
            self._starts.insert(number, at)
            self._rounds.insert(number, self._rounds[number - 1])
        return number

    def after(self, first: int, end: int, writes: bool) -> int:
        """The first round in which these bytes may be read, or written."""
        segments = slice(self._cut(first), self._cut(end))
        return 1 + max((found[writes] for found in self._rounds[segments]), default=-1)

    def touch(self, first: int, end: int, writes: bool, number: int) -> None:
        """Note that round `number` reads or writes these bytes."""
        for segment in range(self._cut(first), self._cut(end)):
            written, touched = self._rounds[segment]
            self._rounds[segment] = number if writes else written, max(touched, number)


def rounds(works: Sequence[Work], same: Mapping[int, int]) -> list[list[Work]]:
    """The works in rounds; all of a round may run at the same time. `same` maps numbers of buffers to others that are
    the same memory.
    """
    found: dict[int, list[Work]] = defaultdict(list)
    buffers: dict[int, _Buffer] = defaultdict(_Buffer)
    for work in works:
        touched = [(buffers[same.get(n, n)], first, end, writes) for n, first, end, writes in _touched(work)]
        number = max((buffer.after(first, end, writes) for buffer, first, end, writes in touched), default=0)
        for buffer, first, end, writes in touched:
            buffer.touch(first, end, writes, number)
        found[number].append(work)
    return [found[number] for number in sorted(found)]


def _touched(work: Work) -> Iterator[tuple[int, int, int, bool]]:
    """Buffer, first byte, end and whether it is written, of all memory that a step touches."""
    step = work.step
    if isinstance(step, Launch) and work.kernel is not None:
        for place, param in zip(step.arguments, work.kernel.params, strict=True):
            if isinstance(place, tuple):
                yield place[0], place[1], place[1] + param.size * param.dtype.itemsize, param.mode != "in"
    elif isinstance(step, Copy):
        yield *step.destination, step.destination[1] + step.nbytes, True
        yield *step.source, step.source[1] + step.nbytes, False
    elif isinstance(step, Fill) and isinstance(step.argument, tuple):
        yield *step.argument, step.argument[1] + step.nbytes, True


def combine(works: Sequence[Work], most: int) -> list[Combined]:
    """The works of a round, small kernels together: such as have at most `most` threads."""
    together: list[list[Work]] = []
    for work in sorted(works, key=_team, reverse=True):
        fitting = (group for group in together if _fits(work, group, most))
        group = next(fitting, None)
        if group is None:
            together.append([work])
        else:
            group.append(work)
    return [_combined(group) for group in together]


def _team(work: Work) -> int:
    """The threads of a block that work together; 0 where they do not."""
    return work.shape[1] if work.kernel is not None and work.kernel.threads > 1 else 0


def _fits(work: Work, group: Sequence[Work], most: int) -> bool:
    """Whether a kernel can run beside those of `group`."""
    works = [work, *group]
    if any(w.kernel is None or w.shape[2] or w.shape[0] * w.shape[1] > most for w in works):
        return False
    if len({_team(w) for w in works} - {0}) > 1:
        return False  # a barrier is one of all threads of a block
    own = sum(p.size * p.dtype.itemsize for w in works if w.kernel is not None for p in w.kernel.own)
    return own <= SHARED and sum(len(w.kernel.params) for w in works if w.kernel is not None) <= PARAMETERS


def _combined(group: Sequence[Work]) -> Combined:
    first = group[0]
    if len(group) == 1:
        symbol = first.step.symbol if isinstance(first.step, Launch) else ""
        return Combined((first,), symbol, (first.text,) if first.text else (), *first.shape)
    threads = _team(first) or ALONE
    functions: list[str] = []
    parameters: list[str] = []
    branches: list[str] = []
    blocks = 0
    for work in group:
        name, taken, function = _as_function(work)
        functions.append(function)
        names = [f"q{len(parameters) + i}" for i in range(len(taken))]
        parameters += [re.sub(r"\bp\d+$", name, p) for p, name in zip(taken, names, strict=True)]
        place = f"blockIdx.x - {blocks}u" if blocks else "blockIdx.x"
        call = f"{name}({', '.join([*names, 'place'])});"
        if _team(work):
            lines = [f"const unsigned place = {place};", call]
            blocks += work.shape[0]
        else:
            grid = work.kernel.grid if work.kernel is not None else 0
            guard = f"if (place < {grid}u) " if grid % threads else ""
            lines = [f"const unsigned place = ({place}) * {threads} + threadIdx.x;", guard + call]
            blocks += -(-grid // threads)
        branches += [f"  if (blockIdx.x < {blocks}u) {{", *(f"    {line}" for line in (*lines, "return;")), "  }"]
    head = f'extern "C" __global__ void __launch_bounds__({threads}) kernel({", ".join(parameters)}) {{'
    text = "\n".join([head, *branches, "}", ""])
    symbol = f"c{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    return Combined(tuple(group), symbol, (*functions, text.replace(" kernel(", f" {symbol}(")), blocks, threads, 0)


def _as_function(work: Work) -> tuple[str, list[str], str]:
    """A kernel as a function of the device with one parameter more, the number of its block or thread: its name, its
    other parameters, and its text.
    """
    head = _HEAD.match(work.text)
    assert head is not None, work.text
    name, parameters = f"d{head[2]}", head[3].split(", ") if head[3] else []
    place = "blockIdx.x" if _team(work) else f"blockIdx.x * {work.shape[1]} + threadIdx.x"
    body = work.text[head.end() :].replace(place, "place")
    signature = f"GC_SEPARATE void {name}({', '.join([*parameters, 'const unsigned place'])}) {{"
    return name, parameters, f"{signature}\n{body}"
