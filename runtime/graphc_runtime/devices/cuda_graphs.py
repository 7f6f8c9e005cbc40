"""CUDA graphs of programs. A program whose buffers lie where they lay before is launched whole, as one graph."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING

from graphc_runtime.devices.cuda_driver import DriverError, Handle

if TYPE_CHECKING:
    from graphc_runtime.devices.cuda_program import CudaProgram, StepTable
    from graphc_runtime.devices.cuda_streams import Stream

_KEPT = 8  # graphs of a program
_HARDLY_ANY = 2  # steps of a graph that change: another graph need not be looked for
_REMEMBERED = 32  # sets of addresses that came by
_FREE_CAPTURES = 2 * _KEPT  # beyond these, captures must have been worth it
_WORTH = 16  # launches that a capture should serve

Pointers = tuple[int, ...]


class _Graph:
    """A captured program and the parameters it has now."""

    def __init__(self, handle: Handle, table: StepTable, pointers: Pointers) -> None:
        self.handle = handle
        self.table = table
        self.pointers = pointers


class GraphCache:
    """The graphs of one program, by the addresses of its buffers.

    Addresses that come again get a graph of their own. Of those that do not, most are often the same as those of an
    earlier call (a loop that keeps its losses): then the kernels that are concerned get other parameters in a graph
    that is there.
    """

    def __init__(self, program: CudaProgram) -> None:
        self._graphs: OrderedDict[Pointers, _Graph] = OrderedDict()  # least recently used first
        self._seen: OrderedDict[Pointers, None] = OrderedDict()
        self._captures = self._launches = 0
        self._lock = threading.Lock()
        self._readers = _readers(program)
        self._kernels = _kernels(program)
        self._off = False

    # The program is an argument of each method: it holds the cache, and should end when nobody else has it.

    def run(self, program: CudaProgram, pointers: Pointers, stream: Stream) -> bool:
        """Launch the graph for these addresses; False when there is none, and nothing was done."""
        device = program.device
        with self._lock:
            graph = self._graphs.get(pointers)
            if graph is None:
                try:
                    graph = None if self._off else self._found(program, pointers)
                except DriverError:
                    # Single launches say what is wrong, if it is more than that this driver makes no such graph.
                    self._off = True
                if graph is None:
                    return False
            self._graphs.move_to_end(pointers)
            self._launches += 1
            try:
                device.driver.launch_graph(graph.handle, stream.handle)
            except DriverError as error:
                if not error.out_of_memory:
                    raise device.failure(error) from None
                # Single launches need less.
                self._off = True
                device.retired.append((device.driver.free_graph, self._graphs.pop(pointers).handle))
                return False
        return True

    def handles(self) -> list[Handle]:
        """What the driver holds."""
        return [graph.handle for graph in self._graphs.values()]

    def _found(self, program: CudaProgram, pointers: Pointers) -> _Graph | None:
        seen = pointers in self._seen
        first = not self._seen
        self._seen[pointers] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        if first:
            return None  # most programs that run once do not run again
        allowed = self._captures < _FREE_CAPTURES + self._launches // _WORTH
        if not self._graphs or (seen and allowed):
            return self._captured(program, pointers) if allowed else None
        return self._updated(program, pointers)

    def _captured(self, program: CudaProgram, pointers: Pointers) -> _Graph:
        driver = program.device.driver
        table = program.take_table()
        table.fill(pointers)
        handle = capture(program, table)
        if len(self._graphs) >= _KEPT:
            _, old = self._graphs.popitem(last=False)
            driver.free_graph(old.handle)
            program.give_table(old.table)
        self._captures += 1
        graph = self._graphs[pointers] = _Graph(handle, table, pointers)
        return graph

    def _updated(self, program: CudaProgram, pointers: Pointers) -> _Graph | None:
        """A graph that needs few new parameters, with them; None when too many steps would change."""
        best, changed, concerned = None, (), ()
        fewest = 1 + len(program.steps) // 2
        for graph in reversed(self._graphs.values()):  # the one that was used last is mostly the one
            places = [i for i, (old, new) in enumerate(zip(graph.pointers, pointers, strict=True)) if old != new]
            steps = self._concerned(places)
            if steps is not None and len(steps) < fewest:
                best, changed, concerned = graph, places, steps
                fewest = len(steps)
                if fewest <= _HARDLY_ANY:
                    break
        if best is None:
            return None
        del self._graphs[best.pointers]
        best.table.move(pointers, changed)
        driver = program.device.driver
        try:
            for step in sorted(concerned):
                driver.update_graph(best.handle, self._kernels[step], best.table.calls[step][4])
        except DriverError:
            program.device.retired.append((driver.free_graph, best.handle))
            raise
        best.pointers = pointers
        self._graphs[pointers] = best
        return best

    def _concerned(self, places: list[int]) -> set[int] | None:
        """The steps that have to do with these buffers; None when one of them is no kernel."""
        steps: set[int] = set()
        for place in places:
            readers = self._readers[place]
            if readers is None:
                return None
            steps |= readers
        return steps


def capture(program: CudaProgram, table: StepTable) -> Handle:
    """The driver's graph of a program's steps with the parameters in `table`."""
    driver = program.device.driver
    with program.device.capturing() as stream:
        driver.begin_capture(stream)
        try:
            program.play(table, stream)
        except DriverError:
            with suppress(DriverError):  # it says that the capture was spoilt
                driver.end_capture(stream)
            raise
        return driver.end_capture(stream)


def _kernels(program: CudaProgram) -> list[int]:
    """For each step how many kernels come before it."""
    kernels = [step.kernel not in ("fill", "copy") for step in program.steps]
    return list(accumulate(kernels, initial=0))


def _readers(program: CudaProgram) -> list[set[int] | None]:
    """For each buffer of a program the kernels that have to do with it; None when a copy or fill has."""
    readers: list[set[int] | None] = [set() for _ in range(program.buffers)]
    for at, step in enumerate(program.steps):
        for number, _ in step.places:
            kernels = readers[number]
            if step.kernel in ("fill", "copy"):
                readers[number] = None
            elif kernels is not None:
                kernels.add(at)
    return readers
