"""Gates: places of the history where gradients go through Python code (hooks, custom functions), and the sweep.

Between gates differentiation is symbolic, rule by rule as in `graphc.passes.autodiff`; at a gate the gradients so far
become tensors, the Python code is called, and what it gives goes on as nodes. All of it is recorded, so it is lazy,
differentiable when asked for, and part of what `graphc.compile` captures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import AutodiffError, KindError, UsageError
from graphc.grad_mode import set_grad_enabled
from graphc.hooks import Table, name_of
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.passes.autodiff import constant_ops, vjp
from graphc.recording import Recorder
from graphc.storage import Binding, Storage, Value
from graphc.tensors.core import TensorBase, new, read
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Keep = Value | Binding
Grads = list["Node | None"]
OF_GRADIENTS = "GradBackward0"  # the name of values that are gradients


class Run:
    """One call of `backward` or `grad`: what its gradients depend on, and whether they have history themselves."""

    def __init__(self, recorder: Recorder, keeps: list[Any], create_graph: bool) -> None:
        self.recorder = recorder
        self.keeps = keeps
        self.create_graph = create_graph
        self.partial = False  # gradients of some inputs are wanted, not of all leaves
        self.fixed: set[Node] = set()  # gradients without a history

    def tensor(self, node: Node) -> Tensor:
        """The gradient `node` as a tensor."""
        return wrap(self.recorder, node, self.keeps, self.create_graph and node not in self.fixed)

    def node(self, tensor: TensorBase) -> Node:
        """What Python code gave, to go on with."""
        node, keep = read(self.recorder, tensor, self.create_graph)
        self.keeps.append(keep)
        return node


def wrap(recorder: Recorder, node: Node, keep: Sequence[Keep], grad: bool) -> Tensor:
    """A gradient as a tensor, with history if `grad`."""
    recorder.recorded(node)
    storage, lineage = Storage.pending(recorder, node, tuple(keep), OF_GRADIENTS, grad)
    return new(storage, node.type, lineage)


class Gate:
    """Python code at one gradient node: functions of single outputs, of the node, and a body.

    `entries` are the values that gradients go to, as nodes; `body(run, grads)` gives one gradient for each, from one
    for each output. Without a body the gradient of the only output goes through unchanged. `raw` says that the entry
    is itself the node that leads here (hooks of a value that was read before they came).
    """

    def __init__(
        self,
        entries: Sequence[Node],
        outputs: int,
        body: Callable[[Run, Grads], Grads] | None,
        owner: Any = None,
        saved: Any = None,
    ) -> None:
        self.entries = list(entries)
        self.body = body
        self.owner = owner
        self.saved = owner if saved is None else saved
        self.tensor_hooks: list[Table | None] = [None] * outputs
        self.before = Table()
        self.after = Table()
        # Whether the history may be passed again although it was given up, as nothing was saved.
        self.outlives = self.saved is None
        # Whether it runs even where nobody wants gradients of what lies behind it.
        self.always = False

    def release(self) -> None:
        """The history was given up: what was saved for the body may go."""
        if self.saved is not None:
            self.saved._release()

    def hooks(self, slot: int) -> Table:
        """The hooks of one output."""
        table = self.tensor_hooks[slot]
        if table is None:
            table = self.tensor_hooks[slot] = Table()
        return table

    def enter(self, run: Run, grads: Grads) -> Grads:
        """The gradients after the hooks of the outputs and of the node."""
        for slot, table in enumerate(self.tensor_hooks):
            gradient = grads[slot]
            if table and gradient is not None:
                grads[slot] = run.node(call_tensor_hooks(table, run.tensor(gradient), run.create_graph))
        if self.before:
            grads = call_before(run, self.before, grads)
        return grads

    def leave(self, run: Run, grads: Grads) -> Grads:
        """The gradients of the entries, from those that `enter` gave."""
        made = list(grads) if self.body is None else self.body(run, grads)
        return call_after(run, self.after, made, grads) if self.after else made


def call_tensor_hooks(table: Table, gradient: Tensor, create_graph: bool) -> Tensor:
    """The gradient after all hooks, each of which may replace it."""
    with set_grad_enabled(create_graph):
        for hook in tuple(table.values()):
            made = hook(gradient)
            if made is not None:
                gradient = _replaced(hook, gradient, made)
    return gradient


def _replaced(hook: Any, before: Tensor, made: Any) -> Tensor:
    if not isinstance(made, TensorBase):
        raise KindError(f"expected Variable, but hook returned '{type(made).__name__}'")
    if made._type.dtype is not before._type.dtype:
        was, got = (f"torch.{type_name(t._type.dtype)}Tensor" for t in (before, made))
        raise UsageError(f"hook '{name_of(hook)}' has changed the type of value (was {was} got {got})")
    if made._type.shape != before._type.shape:
        raise UsageError(f"hook '{name_of(hook)}' has changed the size of value")
    return made  # type: ignore[return-value]


def _tensors(run: Run, grads: Grads) -> tuple[Tensor | None, ...]:
    return tuple(None if g is None else run.tensor(g) for g in grads)


def _checked(run: Run, hook: Any, before: Sequence[Any], made: Any) -> Grads:
    given = made if isinstance(made, tuple) else (made,)
    if len(given) != len(before):
        raise UsageError(f"hook '{name_of(hook)}' has changed the number of values")
    return [
        None if m is None else run.node(m if b is None else _replaced(hook, b, m))
        for b, m in zip(before, given, strict=True)
    ]


def call_before(run: Run, table: Table, grads: Grads) -> Grads:
    """Hooks of a node, called with the gradients of its outputs before it runs."""
    for hook in tuple(table.values()):
        tensors = _tensors(run, grads)
        with set_grad_enabled(run.create_graph):
            made = hook(tensors)
        if made is not None:
            grads = _checked(run, hook, tensors, made)
    return grads


def call_after(run: Run, table: Table, made: Grads, grads: Grads) -> Grads:
    """Hooks of a node, called with the gradients of its inputs and outputs after it ran."""
    outputs = _tensors(run, grads)
    for hook in tuple(table.values()):
        tensors = _tensors(run, made)
        with set_grad_enabled(run.create_graph):
            replaced = hook(tensors, outputs)
        if replaced is not None:
            made = _checked(run, hook, tensors, replaced)
    return made


def is_constant(value: Value, constant: set[str]) -> bool:
    """Whether the gradient of a recorded operation by one of its operands is zero everywhere, as that of floor is.
    `constant` are `constant_ops()`.
    """
    if value.name == OF_GRADIENTS:  # its parents are all that a backward pass read, no operands
        return False
    missing = {p.node for p in value.parents if type(p) is Value and p.grad and p.node.dtype.is_float}
    seen, stack = {value.node}, [value.node]
    while stack and missing:
        node = stack.pop()
        if node in missing:
            missing.remove(node)
        elif node.dtype.is_float and node.op not in constant:
            stack.extend(n for n in node.inputs if n not in seen)
            seen.update(node.inputs)
    return bool(missing)


def local(value: Value) -> tuple[list[Node], Callable[[Run, Grads], Grads]]:
    """The entries and the body of a gate that stands for one recorded operation: its gradient by its operands, zeros
    where that is zero everywhere.
    """
    parents = [p for p in value.parents if type(p) is Value and p.grad]
    entries = [p.node for p in parents]
    node = value.node

    def body(run: Run, grads: Grads) -> Grads:
        (gradient,) = grads
        if gradient is None:
            return [None] * len(entries)
        wrt = list(dict.fromkeys(entries))
        if node in wrt:  # the same value under another name: a clone, a detour of the gradient only
            found: Mapping[Node, Node | None] = {node: gradient}
        else:
            b = run.recorder.b
            made = vjp(b, [node], [gradient], wrt, wrt)
            found = {n: b.constant(0, n.type) if g is None else g for n, g in zip(wrt, made, strict=True)}
        first = set(entries)
        out: Grads = []
        for entry in entries:  # a value that is an operand twice has its whole gradient at the first place
            out.append(found.get(entry) if entry in first else None)
            first.discard(entry)
        return out

    return entries, body


Exits = Mapping[Node, tuple[Gate, int]]
Item = Node | Gate


class Sweep:
    """Gradients of `outputs` by `wrt`, through the gates at the nodes `exits`.

    The order is that of one reverse walk over the nodes and gates that lie between, operands last. `visit(node,
    gradient)` is called as soon as the gradient of a node of `wrt` is complete and gives the one to keep.
    """

    def __init__(
        self,
        run: Run,
        exits: Exits,
        wrt: Sequence[Node],
        visit: Callable[[Node, Node], Node] | None = None,
    ) -> None:
        self.run = run
        self.exits = exits
        self.wrt = set(wrt)
        self.visit = visit
        self.found: dict[Node, Node] = {}
        self.incoming: dict[Gate, Grads] = {}
        self.gradients: dict[Node, Node] = {}
        self.nodes_of: dict[Gate, list[tuple[Node, int]]] = {}
        for node, (gate, slot) in exits.items():
            self.nodes_of.setdefault(gate, []).append((node, slot))

    def go(self, outputs: Sequence[Node], seeds: Sequence[Node]) -> None:
        """Runs the sweep; `found` holds the gradients afterwards."""
        order = self._order(outputs)
        active = self._active(order)
        for node, seed in zip(outputs, seeds, strict=True):
            self._add(node, seed, active)
        for item in reversed(order):
            if item not in active:
                continue
            if isinstance(item, Gate):
                self._through(item, active)
            elif item in self.gradients:
                self._node(item, active)

    def _below(self, item: Item) -> list[Item]:
        if isinstance(item, Gate):
            # A gate whose entry leads to itself: hooks that came when the value had been read already.
            return [e if self._gate(e) is item else self._item(e) for e in item.entries]
        return [self._item(i) for i in item.inputs]

    def _gate(self, node: Node) -> Gate | None:
        found = self.exits.get(node)
        return None if found is None else found[0]

    def _item(self, node: Node) -> Item:
        return self._gate(node) or node

    def _order(self, outputs: Sequence[Node]) -> list[Item]:
        order: list[Item] = []
        done: set[Item] = set()
        stack: list[tuple[Item, list[Item], int]] = []
        for output in outputs:
            root = self._item(output)
            if root in done:
                continue
            done.add(root)
            stack.append((root, self._below(root), 0))
            while stack:
                item, below, i = stack.pop()
                while i < len(below) and below[i] in done:
                    i += 1
                if i == len(below):
                    order.append(item)
                    continue
                stack.append((item, below, i + 1))
                done.add(below[i])
                stack.append((below[i], self._below(below[i]), 0))
        return order

    def _active(self, order: Sequence[Item]) -> set[Item]:
        constant = constant_ops()
        active: set[Item] = set()
        for item in order:
            if isinstance(item, Gate):
                wanted = item.always or any(node in self.wrt for node, _ in self.nodes_of[item])
                passes = True
            else:
                wanted = item in self.wrt
                passes = item.dtype.is_float and item.op not in constant
            if wanted or (passes and not active.isdisjoint(self._below(item))):
                active.add(item)
        return active

    def _add(self, node: Node, contribution: Node, active: set[Item]) -> None:
        found = self.exits.get(node)
        if found is not None:
            gate, slot = found
            if gate in active:
                held = self.incoming.setdefault(gate, [None] * len(gate.tensor_hooks))
                held[slot] = self._sum(held[slot], contribution)
        elif node in active:
            self.gradients[node] = self._sum(self.gradients.get(node), contribution)

    def _sum(self, before: Node | None, contribution: Node) -> Node:
        return contribution if before is None else self.run.recorder.b.add(before, contribution)

    def _through(self, gate: Gate, active: set[Item]) -> None:
        grads = self.incoming.pop(gate, None)
        if grads is None:
            return
        grads = gate.enter(self.run, grads)
        for node, slot in self.nodes_of[gate]:
            gradient = grads[slot]
            if gradient is not None and node in self.wrt:
                self.found[node] = gradient
        below = self._below(gate)
        if active.isdisjoint(below) and not gate.always:
            return
        for entry, item, made in zip(gate.entries, below, gate.leave(self.run, grads), strict=True):
            if made is None:
                continue
            if item is entry:
                if entry in active:
                    self.gradients[entry] = self._sum(self.gradients.get(entry), made)
            else:
                self._add(entry, made, active)

    def _node(self, node: Node, active: set[Item]) -> None:
        gradient = self.gradients[node]
        if node in self.wrt:
            if self.visit is not None:
                gradient = self.visit(node, gradient)
            self.found[node] = gradient
        if not node.inputs or active.isdisjoint(self._below(node)):
            return
        for operand, made in zip(node.inputs, self._rule(node, gradient), strict=True):
            if made is not None:
                self._add(operand, made, active)

    def _rule(self, node: Node, gradient: Node) -> Sequence[Node | None]:
        """The gradient rule of `node`, remembered."""
        recorder = self.run.recorder
        key = ("rule", node, gradient)
        known = recorder.gradients.get(key)
        if known is None:
            rule = OPS[node.op].vjp
            if rule is None:
                raise AutodiffError(f"{node.op} has no gradient: {OPS[node.op].why_no_vjp}")
            with recorder.b.at(node.locs):
                known = recorder.gradients[key] = list(rule(recorder.b, node, gradient))
        return known
