"""Gradients of tensors: `backward`, `grad`, and what both need. Differentiation itself is symbolic, in the compiler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.anomaly import inspected
from graphc.counting import FRONT
from graphc.errors import InputError, ShapeError, UsageError
from graphc.gates import Gate, Run, Sweep, call_after, call_before, call_tensor_hooks, is_constant, local
from graphc.grad_mode import MODE, set_grad_enabled
from graphc.hooks import LeafHooks, note_hooks, task
from graphc.ir.node import Node
from graphc.ir.visit import topological
from graphc.passes.autodiff import constant_ops, vjp
from graphc.recording import MAX_PENDING, Recorder, current
from graphc.recording_hooks import set_needed_later
from graphc.saved import check_unwritten
from graphc.storage import Value
from graphc.tensors.core import TensorBase, read
from graphc.tensors.operands import combine
from graphc.tensors.writing import write
from graphc.warned import warn

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


class Found:
    """What a walk over history found: values that gradients pass, and leaves, both in the order of the walk; the gates
    by the nodes at which gradients reach them."""

    def __init__(self) -> None:
        self.passed: list[Value] = []
        self.leaves: list[Value] = []
        self.gates: dict[Node, tuple[Gate, int]] = {}


def _is_left(value: Value) -> bool:
    """Whether gradients may pass a value again that an earlier backward gave up, as nothing was saved for it."""
    if value.gate is not None and value.gate[0].outlives:
        return True
    return bool(value.parents) and value.name in _SAVES_NOTHING


def walk(roots: Sequence[Value]) -> Found:
    """All values that gradients of `roots` pass through. RuntimeError when an earlier backward gave some up."""
    found = Found()
    seen: set[Value] = set(roots)
    stack = list(reversed(roots))
    for root in roots:
        if root.gate is not None:
            found.gates[root.node] = root.gate
    while stack:
        value = stack.pop()
        if value.freed and not _is_left(value):
            raise UsageError(_TWICE)
        if value.name == "AccumulateGrad":
            found.leaves.append(value)
            continue
        if value.name == "NotImplemented" and value.node.op == "floor_divide":
            raise UsageError("derivative for aten::floor_divide is not implemented")
        found.passed.append(value)
        gate = value.gate
        for parent in value.parents:
            if type(parent) is Value and parent.grad:
                if parent.gate is not None and (gate is None or gate[0] is not parent.gate[0]):
                    found.gates[parent.node] = parent.gate
                if parent not in seen:
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
            raise UsageError("grad can be implicitly created only for scalar outputs")
        return recorder.b.constant(1, node.type)
    if given._type.shape != node.shape:
        raise UsageError(
            f"Mismatch in shape: grad_output[0] has a shape of torch.Size({list(given._type.shape)}) and "
            f"output[0] has a shape of "
            f"torch.Size({list(node.shape)})."
        )
    seed, keep = read(recorder, given, grad)
    keeps.append(keep)
    return recorder.b.cast(seed, node.dtype)


def _free(recorder: Recorder, passed: Sequence[Value]) -> None:
    """Give up the history that was passed; when PyTorch would have saved nothing for it, it stays."""
    if all(value.name in _SAVES_NOTHING for value in passed):
        return
    for value in passed:
        if not value.freed:
            value.freed = True
            recorder.freed.append(value)
            if value.gate is not None:
                value.gate[0].release()


def _prepare(
    recorder: Recorder, tensors: Sequence[TensorBase], given: Sequence[TensorBase | None], create_graph: bool
) -> tuple[list[Node], list[Node], list[Value], list[Any]]:
    nodes: list[Node] = []
    seeds: list[Node] = []
    roots: list[Value] = []
    keeps: list[Any] = []
    recorder.most = MAX_PENDING  # an optimizer goes on with the gradients
    for place, (tensor, seed) in enumerate(zip(tensors, given, strict=True)):
        if not tensor.requires_grad:
            raise UsageError(_NO_GRAD_FN.format(place))
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
    grad_variables: Any = None,
    inputs: Any = None,
) -> None:
    """Add the gradient of `tensors` to `.grad` of the leaves they depend on (of `inputs` only, when given).

    RuntimeError: not a scalar and no `grad_tensors`; nothing requires gradients; the history was given up by an
    earlier call; a value that the gradient reads was overwritten.
    """
    if grad_variables is not None:
        warn("`grad_variables` is deprecated. Use `grad_tensors` instead.", FutureWarning)
        if grad_tensors is not None:
            raise UsageError("`grad_tensors` and `grad_variables` (deprecated) arguments both passed to `backward()`.")
        grad_tensors = grad_variables
    if inputs is not None and not isinstance(inputs, TensorBase) and not list(inputs):
        raise UsageError("`inputs` argument to `backward()` cannot be empty.")
    outputs = _sequence(tensors)
    given = given_seeds(outputs, grad_tensors)
    recorder = current()
    with recorder.lock, set_grad_enabled(True), task():
        recorder.begin()
        nodes, seeds, roots, keeps = _prepare(recorder, outputs, given, create_graph)
        found = walk(roots)
        check_unwritten(recorder, found.passed)
        run = Run(recorder, keeps, create_graph)
        run.partial = inputs is not None
        targets = _targets(recorder, found, inputs)
        ends = dict.fromkeys(targets)
        if inputs is None and (found.gates or MODE.anomaly):
            ends |= dict.fromkeys(
                leaf.node for leaf in found.leaves
            )  # also those whose tensor died: gates run for them
        _differentiate(run, found, nodes, seeds, targets, list(ends))
        if not (create_graph if retain_graph is None else retain_graph):
            _free(recorder, found.passed)


def given_seeds(outputs: Sequence[Any], given: Any) -> list[Any]:
    """The given gradients of `outputs`, one each."""
    seeds = [None] * len(outputs) if given is None else _sequence(given)[: len(outputs)]
    if len(seeds) != len(outputs):
        raise UsageError(f"got {len(outputs)} tensors and {len(seeds)} gradients")
    return seeds


def _targets(recorder: Recorder, found: Found, inputs: Any) -> dict[Node, list[Tensor]]:
    """The nodes to differentiate by, in the order in which gradients become known, with the tensors whose `.grad`
    collects them."""
    targets: dict[Node, list[Tensor]] = {}
    if inputs is not None:
        for place, tensor in enumerate(_sequence(inputs)):
            if not tensor.requires_grad:
                raise UsageError(f"One of the differentiated Tensors does not require grad (`inputs[{place}]`)")
            targets.setdefault(history_of(recorder, tensor)[0], []).append(tensor)
        return targets
    for value in (*found.leaves, *found.passed):
        tensor = value.leaf() if value.leaf is not None else None
        if tensor is not None:
            targets.setdefault(value.node, []).append(tensor)
    return targets


def _in_order(found: Found) -> list[Node]:
    """The nodes of the leaves in the order in which PyTorch completes them: by their earliest use, latest first."""
    first: dict[Node, int] = {}
    for value in found.passed:
        for parent in value.parents:
            if type(parent) is Value and parent.name == "AccumulateGrad":
                first[parent.node] = min(value.serial, first.get(parent.node, value.serial))
    return sorted(first, key=first.__getitem__, reverse=True)


def _differentiate(
    run: Run,
    found: Found,
    nodes: Sequence[Node],
    seeds: Sequence[Node],
    targets: dict[Node, list[Tensor]],
    wrt: list[Node],
) -> None:
    """Accumulate the gradients of `targets`, which are among `wrt`, through gates and with the hooks of leaves."""
    hooked = any(t._lineage.hooks is not None for tensors in targets.values() for t in tensors)
    if run.recorder.capture is not None:
        note_hooks(run.recorder.capture)
    if found.gates or MODE.anomaly:
        sweep = Sweep(run, exits_of(found), wrt, lambda node, g: _arrive(run, targets.get(node, ()), g))
        sweep.go(nodes, seeds)
        for node, tensors in targets.items():  # values inside, whose hooks ran at their gates
            if node in sweep.found and not (tensors[0].is_leaf and node not in sweep.exits):
                for tensor in tensors:
                    _accumulate(run, tensor, sweep.found[node])
        return
    by_node = dict(zip(wrt, _with_zeros(run, found, wrt, gradients(run.recorder, nodes, seeds, wrt)), strict=True))
    order = list(dict.fromkeys((*(n for n in _in_order(found) if n in targets), *wrt))) if hooked else wrt
    for node in order:
        gradient = by_node[node]
        if gradient is not None:
            for tensor in targets[node]:
                if tensor.is_leaf:
                    _arrive(run, [tensor], gradient)
                else:
                    _accumulate(run, tensor, gradient)


def _with_zeros(run: Run, found: Found, wrt: Sequence[Node], made: Sequence[Node | None]) -> list[Node | None]:
    """`made`, with zeros for what history leads to through operators like floor, whose gradient is zero everywhere."""
    if None not in made:
        return list(made)
    reached = {value.node for value in (*found.leaves, *found.passed)}
    # PyTorch differentiates the gradient of sampling in one piece, with the grid's zeros; others are new zeros there.
    is_fixed = not any(value.name.startswith("GridSampler") for value in found.passed)
    filled: list[Node | None] = []
    for node, gradient in zip(wrt, made, strict=True):
        if gradient is None and node in reached:
            gradient = run.recorder.b.constant(0, node.type)
            if is_fixed:
                run.fixed.add(gradient)
        filled.append(gradient)
    return filled


def _arrive(run: Run, tensors: Sequence[Tensor], gradient: Node) -> Node:
    """The whole gradient of leaves is known: call their hooks and add it to `.grad`."""
    for tensor in tensors:
        if not tensor.is_leaf:
            continue
        hooks = tensor._lineage.hooks
        if hooks is None:
            _accumulate(run, tensor, gradient)
            continue
        gradient = before_leaf(run, hooks, gradient)
        _accumulate(run, tensor, gradient)
        with set_grad_enabled(run.create_graph):
            for hook in tuple(hooks.post.values()):
                hook(tensor)
        if hooks.nodes_after:
            call_after(run, hooks.nodes_after, [], [gradient])
    return gradient


def before_leaf(run: Run, hooks: LeafHooks, gradient: Node) -> Node:
    """The gradient of a leaf after the hooks that may replace it."""
    if hooks.tensor:
        gradient = run.node(call_tensor_hooks(hooks.tensor, run.tensor(gradient), run.create_graph))
    if hooks.nodes_before:
        (made,) = call_before(run, hooks.nodes_before, [gradient])
        gradient = made if made is not None else gradient
    return gradient


def exits_of(found: Found) -> dict[Node, tuple[Gate, int]]:
    """The gates of a walk and those that give zeros; in anomaly mode every value is one, whose gradients are looked
    at.
    """
    if MODE.anomaly:
        return inspected(found.passed, found.gates)
    zeros: dict[Node, tuple[Gate, int]] = {}
    constant = constant_ops()
    for value in found.passed:
        if value.gate is None and is_constant(value, constant):
            entries, body = local(value)
            zeros[value.node] = Gate(entries, 1, body), 0
    return {**zeros, **found.gates}


def _accumulate(run: Run, tensor: Tensor, gradient: Node) -> None:
    made = run.tensor(gradient)
    if run.recorder.capture is not None:
        run.recorder.capture.read_grad(tensor)
    held = tensor._grad
    if held is None:
        tensor._grad = made
    elif run.create_graph:
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
    if materialize_grads and allow_unused is False:
        raise InputError(
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: allow_unused=False."
        )
    out, wanted = _sequence(outputs), _sequence(inputs)
    if not wanted:
        raise UsageError("`inputs` argument to `grad()` cannot be empty.")
    recorder = current()
    with recorder.lock, set_grad_enabled(True), task():
        recorder.begin()
        nodes, seeds, roots, keeps = _prepare(recorder, out, given_seeds(out, grad_outputs), create_graph)
        for tensor in wanted:
            if not tensor.requires_grad:
                raise UsageError("One of the differentiated Tensors does not require grad")
        found = walk(roots)
        check_unwritten(recorder, found.passed)
        run = Run(recorder, keeps, create_graph)
        run.partial = True
        wrt = [history_of(recorder, tensor)[0] for tensor in wanted]
        results: list[Tensor | None] = []
        for place, gradient in enumerate(pull(run, found, nodes, seeds, wrt, wanted)):
            tensor = wanted[place]
            if gradient is None and materialize_grads:
                gradient = recorder.b.constant(0, tensor._type)
            if gradient is None and not allow_unused:
                raise UsageError(
                    f"The differentiated Tensor at index {place} appears to not have been used in the graph. Set "
                    "allow_unused=True if this is the desired behavior."
                )
            results.append(None if gradient is None else run.tensor(gradient))
        if not (create_graph if retain_graph is None else retain_graph):
            _free(recorder, found.passed)
    return tuple(results)


def pull(
    run: Run,
    found: Found,
    nodes: Sequence[Node],
    seeds: Sequence[Node],
    wrt: Sequence[Node],
    tensors: Sequence[TensorBase] = (),
) -> list[Node | None]:
    """The gradients by `wrt`, through gates. `tensors`, where given, are the leaves there, whose hooks are called."""
    leaves = {n: t for n, t in zip(wrt, tensors, strict=False) if t.is_leaf and t._lineage.hooks is not None}

    def visit(node: Node, gradient: Node) -> Node:
        return before_leaf(run, leaves[node]._lineage.hooks, gradient) if node in leaves else gradient

    if run.recorder.capture is not None:
        note_hooks(run.recorder.capture)
    if found.gates or MODE.anomaly:
        sweep = Sweep(run, exits_of(found), wrt, visit)
        sweep.go(nodes, seeds)
        return [sweep.found.get(node) for node in wrt]
    made = _with_zeros(run, found, wrt, gradients(run.recorder, nodes, seeds, wrt))
    return [g if g is None else visit(n, g) for n, g in zip(wrt, made, strict=True)]


def _needed_later(recorder: Recorder, value: Value) -> tuple[Node, ...]:
    """Forward nodes that the gradient of `value` reads; remembered by the node."""
    found = recorder.needed.get(value.node)
    if found is not None:
        return found
    made: list[Node | None] = []
    outputs = [value.node]
    try:
        walked = walk([value])
        gates = list(dict.fromkeys(gate for gate, _ in walked.gates.values()))
        outputs += [entry for gate in gates for entry in gate.entries if entry not in walked.gates]
        wrt = list(dict.fromkeys((*(leaf.node for leaf in walked.leaves), *walked.gates)))
        made = gradients(recorder, outputs, [recorder.b.constant(1, node.type) for node in outputs], wrt)
    except (RuntimeError, ShapeError):
        pass  # `backward` will say what is wrong, if it is ever called
    forward = set(topological(outputs))
    needed: dict[Node, None] = {}
    for node in topological([g for g in made if g is not None], forward.__contains__):
        if node in forward and not _is_cheap(node):
            needed[node] = None
    recorder.needed[value.node] = tuple(needed)
    return tuple(needed)


def _is_cheap(node: Node) -> bool:
    """Leaves and what needs no computing: a later program may do it again."""
    while node.op in ("detach", "reshape", "broadcast", "permute") and node.inputs:
        node = node.inputs[0]
    return not node.inputs


set_needed_later(_needed_later)
