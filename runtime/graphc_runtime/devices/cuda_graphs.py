"""CUDA graphs of programs. A program whose buffers lie where they lay before is launched whole, as one graph."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING

from graphc_runtime.devices.cuda_driver import DriverError, Handle

if TYPE_CHECKING:
    from graphc_runtime.devices.cuda_program import CudaProgram, StepTable
    from graphc_runtime.devices.cuda_streams import Stream

_KEPT = 8  # graphs of a program
_REMEMBERED = 32  # sets of addresses that came by
_FREE_CAPTURES = 2 * _KEPT  # beyond these, captures must have been worth it
_WORTH = 16  # launches that a capture should serve besides its first one
_CHEAP = 3  # kernels of a graph that may get other parameters at each launch

Pointers = tuple[int, ...]


class _Graph:
    """A captured program and the parameters it has now."""

    def __init__(self, handle: Handle, table: StepTable, pointers: Pointers) -> None:
        self.handle = handle
        self.table = table
        self.pointers = pointers


class GraphCache:
    """The graphs of one program, by the addresses of its buffers.

    Addresses that come again get a graph of their own. Some buffers lie elsewhere each time (a loop that keeps its
    losses): where few kernels have to do with them, their places are `loose`. Graphs are found by the other places, and
    those kernels get other parameters before a launch.
    """

    def __init__(self, program: CudaProgram) -> None:
        self._graphs: OrderedDict[object, _Graph] = OrderedDict()  # by fixed places, least recently used first
        self._loose: list[int] = []
        self._fixed: Callable[[Pointers], object] = _same
        self._seen: OrderedDict[Pointers, None] = OrderedDict()
        self._captures = self._hits = 0
        self._lock = threading.Lock()
        self._readers = _readers(program)
        self._kernels = _kernels(program)
        self._off = False

    # The program is an argument of each method: it holds the cache, and should end when nobody else has it.

    def run(self, program: CudaProgram, pointers: Pointers, stream: Stream) -> bool:
        """Launch the graph for these addresses; False when there is none, and nothing was done."""
        device = program.device
        with self._lock:
            try:
                graph = self._graph(program, pointers)
                if graph is None:
                    return False
                device.driver.launch_graph(graph.handle, stream.handle)
            except DriverError as error:
                if error.sticky:
                    raise device.failure(error) from None
                # Single launches need less, and say what is wrong, if it is more than that there can be no such graph.
                self._off = True
                device.retired += [(device.driver.free_graph, handle) for handle in self.handles()]
                self._graphs.clear()
                return False
        return True

    def handles(self) -> list[Handle]:
        """What the driver holds."""
        return [graph.handle for graph in self._graphs.values()]

    def _graph(self, program: CudaProgram, pointers: Pointers) -> _Graph | None:
        if self._off:
            return None
        key = self._fixed(pointers)
        graph = self._graphs.get(key)
        if graph is None:
            return self._found(program, pointers)
        self._hits += 1
        self._graphs.move_to_end(key)
        if self._loose:
            moved = [i for i in self._loose if pointers[i] != graph.pointers[i]]
            if moved:
                self._update(program, graph, pointers, moved)
        return graph

    def _found(self, program: CudaProgram, pointers: Pointers) -> _Graph | None:
        seen, first = pointers in self._seen, not self._seen
        self._seen[pointers] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        if first:
            return None  # most programs that run once do not run again
        free = _FREE_CAPTURES if seen else _KEPT
        allowed = self._captures < free + self._hits // _WORTH
        if not (seen and allowed):
            moved = self._nearly(pointers)
            if moved:
                self._loosen(program, moved)
                return self._graph(program, pointers)
        return self._captured(program, pointers) if allowed else None

    def _captured(self, program: CudaProgram, pointers: Pointers) -> _Graph:
        table = program.take_table()
        table.fill(pointers)
        handle = capture(program, table)
        if len(self._graphs) >= _KEPT:
            self._drop(program, self._graphs.popitem(last=False)[1])
        self._captures += 1
        graph = self._graphs[self._fixed(pointers)] = _Graph(handle, table, pointers)
        return graph

    def _nearly(self, pointers: Pointers) -> list[int]:
        """The places of a graph that lie elsewhere, where few kernels have to do with them; none when there is none."""
        for graph in reversed(self._graphs.values()):
            places = [i for i, (old, new) in enumerate(zip(graph.pointers, pointers, strict=True)) if old != new]
            kernels: set[int] = set()
            for readers in [self._readers[i] for i in {*places, *self._loose}]:
                if readers is None or len(kernels := kernels | readers) > _CHEAP:
                    break
            else:
                return places
        return []

    def _loosen(self, program: CudaProgram, places: list[int]) -> None:
        """From now on graphs are found without these places. Of those that are the same then, the last is kept."""
        self._loose = sorted({*self._loose, *places})
        fixed = [i for i in range(program.buffers) if i not in self._loose]
        self._fixed = itemgetter(*fixed) if fixed else _same
        graphs, self._graphs = self._graphs, OrderedDict()
        for graph in graphs.values():
            key = self._fixed(graph.pointers)
            if key in self._graphs:
                self._drop(program, self._graphs.pop(key))
            self._graphs[key] = graph

    def _update(self, program: CudaProgram, graph: _Graph, pointers: Pointers, places: list[int]) -> None:
        """Give the kernels that have to do with these places other parameters."""
        graph.pointers = pointers
        graph.table.move(pointers, places)
        for step in sorted({step for place in places for step in self._readers[place] or ()}):
            program.device.driver.update_graph(graph.handle, self._kernels[step], graph.table.calls[step][4])

    def _drop(self, program: CudaProgram, graph: _Graph) -> None:
        program.device.driver.free_graph(graph.handle)
        program.give_table(graph.table)


def _same(pointers: Pointers) -> object:
    return pointers


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
