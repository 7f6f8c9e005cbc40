"""Gradients of tensors: `backward`, `grad`, and what both need. Differentiation itself is symbolic, in the compiler."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphc.counting import FRONT
from graphc.errors import ShapeError
from graphc.grad_mode import set_grad_enabled
from graphc.ir.node import Node
from graphc.ir.visit import topological
from graphc.passes.autodiff import vjp
from graphc.recording import Recorder, current, set_needed_later
from graphc.storage import Binding, Lineage, Storage, Value
from graphc.tensors.core import TensorBase, alias, new, read
from graphc.tensors.operands import combine
from graphc.tensors.writing import write

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_TWICE = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify "
    "retain_graph=True if you need to backward through the graph a second time or if you need to access saved tensors "
    "after calling backward."
)
_NO_GRAD_FN = "element {} of tensors does not require grad and does not have a grad_fn"

# Gradient nodes that save nothing in PyTorch: going through them twice is no error there, so neither here.
_SAVES_NOTHING = frozenset(
    f"{name}Backward{n}"
    for name in [
        "Add",
        "Sub",
        "Rsub",
        "Neg",
        "Sum",
        "Mean",
        "View",
        "UnsafeView",
        "Expand",
        "Permute",
        "Transpose",
        "T",
        "Slice",
        "Select",
        "Squeeze",
        "Unsqueeze",
        "Clone",
        "ToCopy",
        "Cat",
        "Stack",
        "Alias",
        "Repeat",
        "Flip",
        "Roll",
        "Split",
        "Unbind",
        "Narrow",
    ]
    for n in (0, 1, 2)
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a walk over history found: values that gradients pass, and leaves, both in the order of the walk."""

    passed: list[Value]
    leaves: list[Value]


def walk(roots: Sequence[Value]) -> Found:
    """All values that gradients of `roots` pass through. RuntimeError when an earlier backward gave some up."""
    found = Found([], [])
    seen: set[Value] = set(roots)
    stack = list(reversed(roots))
    while stack:
        value = stack.pop()
        if value.freed and (not value.parents or value.name not in _SAVES_NOTHING):
            raise RuntimeError(_TWICE)
        if value.name == "AccumulateGrad":
            found.leaves.append(value)
            continue
        found.passed.append(value)
        for parent in value.parents:
            if type(parent) is Value and parent.grad and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return found


def history_of(recorder: Recorder, tensor: TensorBase) -> tuple[Node, Value]:
    """The node that gradients of `tensor` start from and its value."""
    node, keep = read(recorder, tensor, True)
    assert isinstance(keep, Value), "no history"
    return node, keep


def gradients(
    recorder: Recorder, outputs: Sequence[Node], seeds: Sequence[Node], wrt: Sequence[Node]
) -> list[Node | None]:
    """The symbolic gradients, remembered by their nodes."""
    key = (*outputs, None, *seeds, None, *wrt)
    found = recorder.gradients.get(key)
    if found is None:
        FRONT.autodiff += 1
        found = recorder.gradients[key] = vjp(recorder.b, outputs, seeds, wrt)
    else:
        FRONT.gradient_hits += 1
    return found


def _seed(
    recorder: Recorder, tensor: TensorBase, node: Node, given: TensorBase | None, keeps: list[Any], grad: bool
) -> Node:
    if given is None:
        if tensor._type.size != 1:
            raise RuntimeError("grad can be implicitly created only for scalar outputs")
        return recorder.b.constant(1, node.type)
    if given._type.shape != node.shape:
        raise RuntimeError(
            f"Mismatch in shape: grad_output[0] has a shape of torch.Size({list(given._type.shape)}) and "
            f"output[0] has a shape of "
            f"torch.Size({list(node.shape)})."
        )
    seed, keep = read(recorder, given, grad)
    keeps.append(keep)
    return recorder.b.cast(seed, node.dtype)


def _wrap(recorder: Recorder, node: Node, keep: Sequence[Value | Binding], grad: bool) -> Tensor:
    recorder.recorded(node)
    value = Value(node, tuple(keep), "GradBackward0", grad)
    lineage = Lineage(0, value if grad else None)
    if grad:
        value.lineage = weakref.ref(lineage)
    return new(Storage(recorder, node.type, value, None), node.type, lineage)


def _free(recorder: Recorder, passed: Sequence[Value]) -> None:
    """Give up the history that was passed; when PyTorch would have saved nothing for it, it stays."""
    if all(value.name in _SAVES_NOTHING for value in passed):
        return
    for value in passed:
        if not value.freed:
            value.freed = True
            recorder.freed.append(value)


def _prepare(
    recorder: Recorder, tensors: Sequence[TensorBase], given: Sequence[TensorBase | None], create_graph: bool
) -> tuple[list[Node], list[Node], list[Value], list[Any]]:
    nodes: list[Node] = []
    seeds: list[Node] = []
    roots: list[Value] = []
    keeps: list[Any] = []
    for place, (tensor, seed) in enumerate(zip(tensors, given, strict=True)):
        if not tensor.requires_grad:
            raise RuntimeError(_NO_GRAD_FN.format(place))
        node, value = history_of(recorder, tensor)
        nodes.append(node)
        roots.append(value)
        keeps.append(value)
        seeds.append(_seed(recorder, tensor, node, seed, keeps, create_graph))
    return nodes, seeds, roots, keeps


def _sequence(value: Any) -> list[Any]:
    return [value] if value is None or isinstance(value, TensorBase) else list(value)


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradient of `tensors` to `.grad` of the leaves they depend on (of `inputs` only, when given).

    RuntimeError: not a scalar and no `grad_tensors`; nothing requires gradients; the history was given up by an
    earlier call.
    """
    outputs = _sequence(tensors)
    given = [None] * len(outputs) if grad_tensors is None else _sequence(grad_tensors)
    recorder = current()
    with recorder.lock, set_grad_enabled(True):
        recorder.begin()
        nodes, seeds, roots, keeps = _prepare(recorder, outputs, given, create_graph)
        found = walk(roots)
        targets = _targets(recorder, found, inputs)
        wrt = list(dict.fromkeys(node for node, _ in targets))
        by_node = dict(zip(wrt, gradients(recorder, nodes, seeds, wrt), strict=True))
        for node, tensor in targets:
            gradient = by_node[node]
            if gradient is not None:
                _accumulate(recorder, tensor, gradient, keeps, create_graph)
        if not (create_graph if retain_graph is None else retain_graph):
            _free(recorder, found.passed)


def _targets(recorder: Recorder, found: Found, inputs: Any) -> list[tuple[Node, Tensor]]:
    """The nodes to differentiate by, with the tensors whose `.grad` collects them."""
    targets: list[tuple[Node, Tensor]] = []
    if inputs is not None:
        for tensor in _sequence(inputs):
            targets.append((history_of(recorder, tensor)[0], tensor))
        return targets
    for value in found.leaves:
        tensor = value.leaf() if value.leaf is not None else None
        if tensor is not None:
            targets.append((value.node, tensor))
    for value in found.passed:
        keeper = value.leaf() if value.leaf is not None else None
        if keeper is not None:
            targets.append((value.node, keeper))
    return targets


def _accumulate(recorder: Recorder, tensor: Tensor, gradient: Node, keeps: Sequence[Any], create_graph: bool) -> None:
    made = _wrap(recorder, gradient, keeps, create_graph)
    if recorder.capture is not None:
        recorder.capture.read_grad(tensor)
    held = tensor._grad
    if held is None:
        tensor._grad = made
    elif create_graph:
        tensor._grad = combine("AddBackward0", (held, made), lambda b, x, y: b.add(x, y))
    else:
        with set_grad_enabled(False):
            write(held, combine("AddBackward0", (held, made), lambda b, x, y: b.add(x, y)))


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of `outputs` with respect to `inputs`, as new tensors; `.grad` is not touched."""
    out, wanted = _sequence(outputs), _sequence(inputs)
    given = [None] * len(out) if grad_outputs is None else _sequence(grad_outputs)
    recorder = current()
    with recorder.lock, set_grad_enabled(True):
        recorder.begin()
        for tensor in wanted:
            if not tensor.requires_grad:
                raise RuntimeError("One of the differentiated Tensors does not require grad")
        nodes, seeds, roots, keeps = _prepare(recorder, out, given, create_graph)
        found = walk(roots)
        wrt = [history_of(recorder, tensor)[0] for tensor in wanted]
        results: list[Tensor | None] = []
        for place, gradient in enumerate(gradients(recorder, nodes, seeds, wrt)):
            tensor = wanted[place]
            if gradient is None and materialize_grads:
                gradient = recorder.b.constant(0, tensor._type)
            if gradient is None and not allow_unused:
                raise RuntimeError(
                    f"The differentiated Tensor at index {place} appears to not have been used in the graph. Set "
                    "allow_unused=True if this is the desired behavior."
                )
            results.append(None if gradient is None else _wrap(recorder, gradient, keeps, create_graph))
        if not (create_graph if retain_graph is None else retain_graph):
            _free(recorder, found.passed)
    return tuple(results)


def detach(tensor: Tensor) -> Tensor:
    """The same memory without the gradient side."""
    return alias(tensor)


def retain(tensor: Tensor) -> None:
    """Let `backward` fill `.grad` of a non-leaf too."""
    hist = tensor._lineage.hist
    if hist is not None:
        hist.leaf = weakref.ref(tensor)


def _needed_later(recorder: Recorder, value: Value) -> tuple[Node, ...]:
    """Forward nodes that the gradient of `value` reads; remembered by the node."""
    found = recorder.needed.get(value.node)
    if found is not None:
        return found
    try:
        wrt = list(dict.fromkeys(leaf.node for leaf in walk([value]).leaves))
        made = gradients(recorder, [value.node], [recorder.b.constant(1, value.node.type)], wrt)
    except (RuntimeError, ShapeError):
        made = []  # `backward` will say what is wrong, if it is ever called
    forward = set(topological([value.node]))
    needed: dict[Node, None] = {}
    for node in topological([g for g in made if g is not None], forward.__contains__):
        if node in forward and not _is_cheap(node) and node not in recorder.bound:
            needed[node] = None
    recorder.needed[value.node] = tuple(needed)
    return tuple(needed)


def _is_cheap(node: Node) -> bool:
    """Leaves and what needs no computing: a later program may do it again."""
    while node.op in ("detach", "reshape", "broadcast", "permute") and node.inputs:
        node = node.inputs[0]
    return not node.inputs


set_needed_later(_needed_later)
