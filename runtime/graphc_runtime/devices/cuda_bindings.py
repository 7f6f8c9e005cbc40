"""CUDA graphs by NVIDIA's `cuda-bindings`, which PyCUDA has no interface for. The only file that uses that package."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any


@cache
def bindings() -> ModuleType | None:
    """The package's module of the driver's functions; None when it is not installed or cannot be loaded."""
    try:
        try:
            from cuda.bindings import driver  # pyright: ignore[reportMissingImports]  # since version 12.6
        except ImportError:
            from cuda import cuda as driver  # pyright: ignore[reportAttributeAccessIssue]
    except Exception:  # of its own kinds too, when there is no driver
        return None
    return driver


class Graph:
    """A captured graph, instantiated. `number` is what the driver's own functions take."""

    def __init__(self, check: Callable[..., Any], graph: Any) -> None:
        """`check(name, *results)` gives the results of a function of the driver, or raises its error."""
        cuda = _loaded()
        self._check = check
        self._graph = graph
        self.handle: Any = None
        try:
            self.handle = check("cuGraphInstantiate", cuda.cuGraphInstantiate(graph, 0))
        except BaseException:
            self.free()
            raise
        self.number = int(self.handle)
        # Nodes and parameters of kernels, which most graphs never need.
        self._kernels: list[tuple[Any, Any]] | None = None
        # What the parameters of kernels point to: the caller's words, and the pointers to them.
        self._words: dict[int, tuple[ctypes.Array[ctypes.c_uint64], ctypes.Array[ctypes.c_uint64]]] = {}

    def update(self, kernel: int, arguments: ctypes.Array[ctypes.c_uint64]) -> None:
        """Give kernel number `kernel` these parameters from the next launch on."""
        node, parameters = self._found()[kernel]
        words = self._words.get(kernel)
        if words is None or words[0] is not arguments:
            start = ctypes.addressof(arguments)
            each = (ctypes.c_uint64 * len(arguments))(*range(start, start + 8 * len(arguments), 8))
            self._words[kernel] = arguments, each
            parameters.kernelParams = ctypes.addressof(each)
            parameters.extra = 0
        result = _loaded().cuGraphExecKernelNodeSetParams(self.handle, node, parameters)
        self._check("cuGraphExecKernelNodeSetParams", result)

    def functions(self) -> list[int]:
        """The driver's numbers of the kernels, in order."""
        return [int(parameters.func) for _, parameters in self._found()]

    def free(self) -> None:
        """Give it up. What was launched of it runs on."""
        cuda = _loaded()
        if self.handle is not None:
            self._check("cuGraphExecDestroy", cuda.cuGraphExecDestroy(self.handle))
        self._check("cuGraphDestroy", cuda.cuGraphDestroy(self._graph))

    def _found(self) -> list[tuple[Any, Any]]:
        if self._kernels is None:
            self._kernels = self._find()
        return self._kernels

    def _find(self) -> list[tuple[Any, Any]]:
        """The kernels in order: captured from one stream, each node follows the one before."""
        cuda, check = _loaded(), self._check
        count = check("cuGraphGetNodes", cuda.cuGraphGetNodes(self._graph))[-1]
        if not count:
            return []
        nodes = check("cuGraphGetNodes", cuda.cuGraphGetNodes(self._graph, count))[0]
        edges = check("cuGraphGetEdges", cuda.cuGraphGetEdges(self._graph))[-1]
        before, after = check("cuGraphGetEdges", cuda.cuGraphGetEdges(self._graph, edges))[:2] if edges else ((), ())
        by_number = {int(node): node for node in nodes}
        following = {int(a): int(b) for a, b in zip(before, after, strict=True)}
        (at,) = by_number.keys() - set(following.values())
        found: list[tuple[Any, Any]] = []
        number: int | None = at
        while number is not None:
            node = by_number[number]
            kind = check("cuGraphNodeGetType", cuda.cuGraphNodeGetType(node))
            if kind == cuda.CUgraphNodeType.CU_GRAPH_NODE_TYPE_KERNEL:
                found.append((node, check("cuGraphKernelNodeGetParams", cuda.cuGraphKernelNodeGetParams(node))))
            number = following.get(number)
        return found


def begin_capture(check: Callable[..., Any], stream: int) -> None:
    """Capture what this thread puts on the stream."""
    cuda = _loaded()
    mode = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED  # other threads may do as they please
    check("cuStreamBeginCapture", cuda.cuStreamBeginCapture(cuda.CUstream(stream), mode))


def end_capture(check: Callable[..., Any], stream: int) -> Graph:
    """The graph of what was captured."""
    cuda = _loaded()
    return Graph(check, check("cuStreamEndCapture", cuda.cuStreamEndCapture(cuda.CUstream(stream))))


def _loaded() -> Any:
    cuda = bindings()
    assert cuda is not None
    return cuda
