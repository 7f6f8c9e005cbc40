"""Searching schedules: for a limited time, kernels of a program are compiled in several ways and timed on this machine.

Each decision of the scheduler has its options in the order of their predicted cost (`codegen.schedule.Choice`). The
search goes from one decision to the next and tries the options of one with the others as they are; what is clearly
faster is kept. In the end the best is timed in turns with the model's own schedule, which stays unless it is clearly
slower. What was found goes into the kernel cache, as numbers of options: nothing read from there is code.

Kernels run by themselves, over memory of their own that holds ones and zeros.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from statistics import median
from types import MappingProxyType

from graphc.codegen.alone import Alone, kernels_alone
from graphc.codegen.canonical import form_of, moved
from graphc.codegen.reuse import Choices
from graphc.codegen.schedule import MODEL, Choice, NoOption
from graphc.codegen.target import Target
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.schedule import FusedGraph, Group, Scratch
from graphc.ir.types import TensorType
from graphc.pipeline import make as make_artifact
from graphc.pipeline import schedule
from graphc_runtime.artifact import Artifact
from graphc_runtime.buffer import Buffer
from graphc_runtime.cache import default_cache
from graphc_runtime.counters import COUNTERS
from graphc_runtime.devices import get_device
from graphc_runtime.executor import Executable
from graphc_runtime.pool import get_num_threads

OPTIONS: Mapping[str, int] = MappingProxyType(
    {"tile": 10, "order": 16, "panels": 4, "chunk": 5, "sums": 7, "lane": 3}
)  # decisions in the order in which they are gone through, and how many of their options are looked at
SWEEPS = 3  # rounds through all decisions, at most
ROUNDS = 9  # pairs of measurements before a schedule replaces another
LAST_ROUNDS = 15  # and before it replaces the model's
EARLY = 3  # pairs after which one that is not faster is dropped
MARGIN = 0.02  # what a schedule must gain
SAMPLE = 1e-3  # seconds of one measurement, at least
LEAST = 0.01  # share of the program's time from which on a kernel is looked at


class Meter:
    """Clocks: `now` is what the time limit is about; `sample` gives the seconds that one run of a candidate takes."""

    def now(self) -> float:
        return time.monotonic()

    def sample(self, candidate: Candidate) -> float:
        # With one thread the time that others take from this processor is left out.
        clock = time.thread_time if get_num_threads() == 1 else time.perf_counter
        runs = candidate.runs
        start = clock()
        for _ in range(runs):
            candidate.run()
        taken = clock() - start
        if taken < SAMPLE / 2:
            candidate.runs = min(1 << 20, max(runs * 2, int(runs * SAMPLE / max(taken, 1e-9))))
        return taken / runs


METER = Meter()


class Candidate:
    """A kernel under one choice of schedule, ready to run. `runs` is how often it runs in one measurement."""

    def __init__(self, choice: Choice, executable: Executable, buffers: Sequence[Buffer]) -> None:
        self.choice = choice
        self.runs = 1
        self._executable = executable
        self._buffers = buffers

    def run(self) -> None:
        self._executable.launch(self._buffers, ())


@dataclass(frozen=True)
class Found:
    """The choice that a search ended with, and whether it had looked at all there is."""

    choice: Choice
    is_finished: bool

    def to_bytes(self) -> bytes:
        return json.dumps({"choice": asdict(self.choice), "is_finished": self.is_finished}).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Found | None:
        """What `to_bytes` wrote; None for anything else."""
        try:
            record = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(record, dict) or set(record) != {"choice", "is_finished"}:
            return None
        numbers, is_finished = record["choice"], record["is_finished"]
        if not isinstance(numbers, dict) or set(numbers) != {f.name for f in fields(Choice)}:
            return None
        if type(is_finished) is not bool or not all(type(n) is int and 0 <= n < 64 for n in numbers.values()):
            return None
        return Found(Choice(**numbers), is_finished)


def make(graph: Graph, donated: frozenset[int], target: Target, seconds: float, facts: Mapping[str, str]) -> Artifact:
    """Native code for `graph` after a search of at most `seconds`. `facts` are what its results depend on besides the
    kernels: other ones need a new search.
    """
    return make_artifact(graph, donated, target, search(schedule(graph, target), target, seconds, facts))


def search(fused: FusedGraph, target: Target, seconds: float, facts: Mapping[str, str]) -> Choices:
    """Choices for the kernels of a program, by the key of their form; from the cache where they are there.

    A kernel gets its share of the seconds by the time that it takes under the model's schedule. What the search of one
    leaves is for the others.
    """
    end = METER.now() + seconds
    kernels: dict[tuple[object, ...], _Kernel] = {}
    for group in fused.groups:
        if not group.is_apart:
            form = form_of(group)
            if form.key not in kernels:
                names = {"kind": "schedule", "form": form.text, **facts}
                kernels[form.key] = _Kernel(moved(form)[0], names, target)
            kernels[form.key].uses += 1
    found: dict[tuple[object, ...], Choice] = {}
    times: dict[tuple[object, ...], float] = {}
    work = sum(kernel.work for kernel in kernels.values())
    for key, kernel in sorted(kernels.items(), key=lambda item: -item[1].work):
        known = kernel.known()
        if known is not None:
            found[key] = known.choice
        if (known is None or not known.is_finished) and kernel.work >= LEAST * work and METER.now() < end:
            times[key] = kernel.time()
    for key, taken in sorted(times.items(), key=lambda item: -item[1]):
        now = METER.now()
        if now >= end:
            break
        result = kernels[key].search(found.get(key, MODEL), now + (end - now) * taken / sum(times.values()))
        del times[key]
        found[key] = result.choice
        default_cache().put(kernels[key].fields, result.to_bytes(), frozenset())
        COUNTERS.add("tuned_kernels")
        COUNTERS.add("tuned_faster", int(result.choice != MODEL))
    return found


class _Kernel:
    """A kernel whose schedule is searched. `fields` is its key in the cache."""

    def __init__(self, group: Group, fields: Mapping[str, str], target: Target) -> None:
        self.fields = fields
        self.uses = 0  # groups of the program that have it
        self._group = group
        self._target = target
        self._buffers: dict[Node | Scratch, Buffer] = {}
        self._model = kernels_alone(group, MODEL, target)
        self._asked: set[Choice] = set()
        self._texts: set[tuple[str, ...]] = set()  # of candidates: some choices come to the same
        self._longest = 0.0  # seconds that trying one took

    @property
    def work(self) -> int:
        """Operations and bytes of all uses."""
        return self._model.work * self.uses

    def known(self) -> Found | None:
        """What an earlier search found, if the kernel has such a choice."""
        data = default_cache().get(self.fields, frozenset())
        found = None if data is None else Found.from_bytes(data)
        if found is not None:
            try:
                kernels_alone(self._group, found.choice, self._target)
            except NoOption:
                return None
        return found

    def time(self) -> float:
        """Seconds that all uses take in one run of the program, under the model's schedule."""
        model = self._candidate(MODEL, self._model)
        self._buffers.clear()
        return self.uses * min(METER.sample(model) for _ in range(EARLY))

    def search(self, start: Choice, end: float) -> Found:
        """The best choice that is found until `end`, beginning with `start`."""
        model = best = self._candidate(MODEL, self._model)
        self._asked, self._texts = {MODEL, start}, {self._model.texts}
        if start != MODEL:
            alone = kernels_alone(self._group, start, self._target)
            self._texts.add(alone.texts)
            best = self._candidate(start, alone)
        is_finished = False
        for decision in (*OPTIONS,) * SWEEPS:
            best, is_finished = self._decide(best, decision, end)
            if not is_finished:
                break
        if best is not model and not is_faster(model, best, LAST_ROUNDS):
            best = model
        self._buffers.clear()
        return Found(best.choice, is_finished)

    def _decide(self, best: Candidate, decision: str, end: float) -> tuple[Candidate, bool]:
        """The best of all options of one decision, and whether there was time for them."""
        for number in range(OPTIONS[decision]):
            # What another lane axis makes of the other decisions has nothing to do with what they are.
            choice = Choice(lane=number) if decision == "lane" else replace(best.choice, **{decision: number})
            if choice in self._asked:
                continue
            now = METER.now()
            if now + 2 * self._longest >= end:  # the last comparison, with the model's, needs time too
                return best, False
            self._asked.add(choice)
            try:
                alone = kernels_alone(self._group, choice, self._target)
            except NoOption:
                break
            if alone.texts in self._texts:
                continue
            self._texts.add(alone.texts)
            candidate = self._candidate(choice, alone)
            COUNTERS.add("candidates")
            if is_faster(best, candidate):
                best = candidate
            self._longest = max(self._longest, METER.now() - now)
        return best, True

    def _candidate(self, choice: Choice, alone: Alone) -> Candidate:
        """The kernel under `choice`, after its first run."""
        for value in alone.values:
            if value not in self._buffers:
                self._buffers[value] = _filled(value.type)
        buffers = [self._buffers[value] for value in alone.values]
        made = Candidate(choice, Executable(alone.artifact(self._target), get_device("cpu")), buffers)
        made.run()
        return made


def _filled(type: TensorType) -> Buffer:
    """Memory for a value: ones are harmless as numbers, and zeros as places in whatever they index."""
    made = Buffer.allocate(type.nbytes, "a candidate schedule")
    made.view(type.dtype.numpy, type.shape)[...] = 1 if type.dtype.is_float else 0
    return made


def is_faster(old: Candidate, new: Candidate, rounds: int = ROUNDS) -> bool:
    """Whether `new` is clearly faster, by measurements in turns: the median of the ratios must say so by more than
    they scatter, and so must the least times, which other work on the machine only makes longer.
    """
    before: list[float] = []
    after: list[float] = []
    for number in range(rounds):
        for candidate in (old, new) if number % 2 else (new, old):
            (after if candidate is new else before).append(METER.sample(candidate))
        if number + 1 >= EARLY and min(after) >= min(before):
            return False
    ratios = [b / a for a, b in zip(before, after, strict=True)]
    middle = median(ratios)
    scatter = median(abs(ratio - middle) for ratio in ratios)
    return middle < 1 - max(MARGIN, scatter) and min(after) < min(before) * (1 - MARGIN)
