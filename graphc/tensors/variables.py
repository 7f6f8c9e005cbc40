"""Variables: the values that gradients of leaves are taken with respect to."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from graphc.ir.node import Node
from graphc.recording import Recorder
from graphc.storage import Binding, Value, still_holds
from graphc.tensors.views import apply_chain

if TYPE_CHECKING:
    from graphc.tensors.core import TensorBase


def variable(recorder: Recorder, tensor: TensorBase) -> Value:
    """The value that gradients of a leaf are taken with respect to: its contents behind an even number of `detach`
    nodes.

    `detach` lets no gradient through, so nothing else that reads the same memory shares the variable's gradient; each
    variable over the same contents has its own depth, always even. Odd depths are left for values that must not pass
    gradients (`core._blocked`). Each thread has variables of its own, as their nodes belong to its recorder.
    """
    lineage, storage = tensor._lineage, tensor._storage
    if lineage.holder is None and type(recorder) is Recorder:
        lineage.hold(recorder.token)
    is_shared = lineage.holder is not recorder.token
    if is_shared:
        version, held = recorder.shared.get(lineage, (-1, None))
        value = held() if held is not None and version == storage.version and not storage.is_exported else None
        if value is not None:
            return value
    else:
        value = lineage.variable() if lineage.variable is not None else None
        if value is not None and still_holds(storage, lineage, value):
            return value
    if storage.value is not None and recorder.capture is None:
        # Run here, so that a loop without observations runs one program per step, and the first step is no different.
        value = None  # it would keep leaves, which then had other numbers in every other step
        storage.realise()
    node, keep = recorder.read(storage)
    if tensor._chain:
        node = apply_chain(recorder.b, node, tensor._chain[: lineage.depth])
    value = fresh_variable(recorder, node, keep)
    value.lineage = weakref.ref(lineage)
    value.counter = tensor._counter
    value.version = tensor._counter[0] if tensor._counter is not None else 0
    if is_shared:
        recorder.shared[lineage] = storage.version, weakref.ref(value)
    else:
        lineage.variable, lineage.version = weakref.ref(value), storage.version
    return value


def runs_pending(recorder: Recorder, tensor: TensorBase, grad: bool) -> bool:
    """Whether reading a tensor runs pending work, as `variable` and `Recorder.read` do, if it has no variable yet."""
    storage, lineage = tensor._storage, tensor._lineage
    if storage.value is None:
        return False
    collects = grad and lineage.hist is None and lineage.requires_grad and recorder.capture is None
    return storage.recorder is not recorder or collects


def fresh_variable(recorder: Recorder, node: Node, keep: Value | Binding) -> Value:
    """A new variable over the contents `node`."""
    b = recorder.b
    while node.op == "detach":
        node = node.inputs[0]
    key = ("variable", node)
    node = b.made(key) or b.keep(key, b.apply("detach", (b.apply("detach", (node,)),)))
    variables = recorder.variables
    while (held := variables.get(node)) is not None and held() is not None:
        node = b.apply("detach", (b.apply("detach", (node,)),))
    value = Value(node, (keep,), "AccumulateGrad", True)
    variables[node] = weakref.ref(value)
    return value
