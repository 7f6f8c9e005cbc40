"""`trace`: a call recorded as a graph, without running it."""

from __future__ import annotations

import inspect
from typing import Any

from graphc.capture import Capture
from graphc.errors import KindError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc.ir.visit import topological
from graphc.random import default_generator
from graphc.recording import Recorder, current, using
from graphc.source import user_location
from graphc.storage import Binding, Storage, next_serial
from graphc.tensors.core import TensorBase, finish, read
from graphc.tensors.vectors import matrix_trace
from graphc_runtime.counters import COUNTERS


def _names(value: Any) -> dict[int, str]:
    """Names of parameters and buffers of a module, by the identity of their storages."""
    named: dict[int, str] = {}
    for method in ("named_parameters", "named_buffers"):
        if hasattr(value, method):
            named |= {id(t._storage): name for name, t in getattr(value, method)()}
    return named


def _positional(fn: Any, count: int) -> list[str]:
    """The names of the parameters that take the first `count` positional arguments; empty where there is none."""
    try:
        parameters = inspect.signature(getattr(fn, "forward", fn)).parameters.values()
    except (TypeError, ValueError):  # some callables of extension modules tell nothing
        parameters = ()
    single = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in single]
    return [*names, *[""] * count][:count]


def trace(*args: Any, **kwargs: Any) -> Any:
    """Of a callable and its arguments, the graph of the call (`trace_call`); of a matrix, the sum of its diagonal.

    The second is what PyTorch's function of this name does.
    """
    matrix = args[0] if args else kwargs.get("input")
    return matrix_trace(*args, **kwargs) if isinstance(matrix, TensorBase) else trace_call(*args, **kwargs)


def trace_call(fn: Any, *args: Any, **kwargs: Any) -> Graph:
    """The graph of `fn(*args, **kwargs)`: inputs are the tensor arguments, then what the call reads beside them.

    Arguments may be tensors or `TensorType`s (from `graphc.ir`), or anything else, which is passed on. Parameters and
    buffers of a module become inputs named by their dotted names. The outputs are the tensors of the result in order.
    Nothing is run and nothing is changed: writes to tensors and gradients are undone. RuntimeError when the function
    looks at a value, which does not exist while tracing.
    """
    main = current()
    main.flush("")
    COUNTERS.add("traces")
    recorder = Tracer()
    offset = default_generator.get_offset()
    with using(recorder):
        b = recorder.begin()
        arguments: dict[Node, str] = {}

        def enter(value: Any, name: str) -> Any:
            if isinstance(value, TensorBase):
                value = value._type
            if not isinstance(value, TensorType):
                return value
            node = b.input(-1 - len(arguments), value)
            arguments[node] = name
            return finish(recorder, node, (), "", False)

        given = [enter(a, name) for a, name in zip(args, _positional(fn, len(args)), strict=True)]
        named = {k: enter(v, k) for k, v in kwargs.items()}
        try:
            outputs = _outputs(recorder, fn(*given, **named))
            leaves = {binding.node: binding for binding in recorder.held}
            return _graph(arguments, outputs, leaves, _names(fn), _title(fn))
        finally:
            recorder.undo(main)
            default_generator.set_offset(offset)


class Tracer(Recorder):
    """A recorder whose work never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.capture = Capture(next_serial())

    def flush(self, reason: str) -> None:
        where = ", ".join(map(str, sorted(user_location())))
        raise UsageError(
            f"trace: the function looks at a value{f' at {where}' if where else ''}, but values do not exist "
            f"while tracing"
        )

    def undo(self, main: Recorder) -> None:
        """Give tensors that existed before their contents and gradients back."""
        assert self.capture is not None
        for note in self.capture.grads.values():
            note.tensor._grad = note.original
        for reference in self.pending:
            storage = reference()
            if storage is not None and storage.buffer is not None:
                storage.value = None
                storage.recorder = main
        self.pending.clear()
        self.checks.clear()


def _title(fn: Any) -> str:
    name = getattr(fn, "__name__", type(fn).__name__)
    return name if name.isidentifier() else "main"


def _outputs(recorder: Recorder, result: Any) -> list[Node]:
    nodes: list[Node] = []
    stack = [result]
    while stack:
        item = stack.pop()
        if isinstance(item, TensorBase):
            nodes.append(read(recorder, item, item.requires_grad)[0])
        elif isinstance(item, list | tuple):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            stack.extend(reversed(list(item.values())))
        elif item is not None:
            kind = type(item).__name__
            raise KindError(f"trace: the result of the function holds a value of type {kind}; it may hold tensors only")
    return nodes


def _graph(
    arguments: dict[Node, str], outputs: list[Node], leaves: dict[Node, Binding], titles: dict[int, str], name: str
) -> Graph:
    """The recorded nodes over inputs numbered anew. A parameter's variable (two `detach`) becomes the input itself, and
    what reads the parameter past its variable gets a `detach`, so that gradients of the graph are those of the call.
    """
    extra = [n for n in topological(outputs) if n.op == "input" and n not in arguments]
    scratch = Builder()
    new: dict[Node, Node] = {}
    for place, node in enumerate((*arguments, *extra)):
        binding = leaves.get(node)
        source = binding.source if binding is not None else None
        title = titles.get(id(source), "") if isinstance(source, Storage) else arguments.get(node, "")
        new[node] = scratch.input(place, node.type, title)
    inputs = tuple(new[n] for n in (*arguments, *extra))
    for node in topological(outputs):
        if node.op == "detach" and node.inputs[0].op == "detach" and node.inputs[0].inputs[0] in leaves:
            root = node.inputs[0].inputs[0]
            if new[root].op == "input":
                new[node] = new[root]
                new[root] = scratch.apply("detach", (new[root],))
    for node in topological(outputs, new.__contains__):
        if node not in new:
            scratch.locs = node.locs
            new[node] = scratch.make(node.op, tuple(new[i] for i in node.inputs), node.attrs, node.type)
    return Graph(inputs, tuple(new[n] for n in outputs), name)
