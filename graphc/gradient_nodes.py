"""`grad_fn`: objects that stand for the gradient nodes of the history, and hooks on tensors and nodes."""

from __future__ import annotations

import weakref
from abc import ABCMeta
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from graphc.errors import UsageError
from graphc.gates import Gate, local
from graphc.hooks import LeafHooks, RemovableHandle, add
from graphc.ir.node import Node as GraphNode
from graphc.recording import current
from graphc.storage import Lineage, Seen, Value
from graphc.tensors.core import TensorBase, read
from graphc.tensors.variables import fresh_variable

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


# Nodes that PyTorch does not generate from formulas tell where they are defined.
_NAMED_BY_PLACE = frozenset(("CopySlices", "CopyBackwards", "NotImplemented"))
_OF_TWO = frozenset(("AddBackward0", "SubBackward0", "MulBackward0", "DivBackward0"))


class Node(metaclass=ABCMeta):
    """A gradient node: what made a tensor with history. Its class and `name()` are PyTorch's."""

    _value: Value | None
    _parents: tuple[Any, ...]

    def __init__(self, value: Value | None, parents: Sequence[Any], name: str) -> None:
        self._value = value
        self._parents = tuple(parents)
        self._name = name
        self._metadata: dict[Any, Any] = {}
        self._next: tuple[Any, int] | None = None  # of a view
        self._views: weakref.WeakValueDictionary[str, Node] = weakref.WeakValueDictionary()

    def name(self) -> str:
        """PyTorch's name of the gradient node."""
        return f"torch::autograd::{self._name}" if self._name in _NAMED_BY_PLACE else self._name

    @property
    def metadata(self) -> dict[Any, Any]:
        """A dictionary for the user."""
        return self._metadata

    @property
    def requires_grad(self) -> bool:
        return True

    def _sequence_nr(self) -> int:
        return 0 if self._value is None else self._value.serial

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The gradient nodes of the operands with the number of the output that each was; (None, 0) for constants."""
        if self._next is not None:
            return (self._next,)
        found = edges(self._parents, None if self._value is None else self._source().through)
        # A number is an operand too, but nothing is kept of one that never changed.
        return (*found, (None, 0)) if len(found) == 1 and self._name in _OF_TWO else found

    def register_hook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call `fn(grad_inputs, grad_outputs)` after this node ran; it may give new grad_inputs."""
        return add(self._gate(True).after, fn)

    def register_prehook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call `fn(grad_outputs)` before this node runs; it may give new ones."""
        return add(self._gate(False).before, fn)

    def _gate(self, through: bool) -> Gate:
        if self._value is None:
            raise UsageError(f"hooks on {self._name}: the node of a view has none, register the hook on the tensor")
        gate = self._value.gate
        if gate is None:
            gate = self._value.gate = Gate([self._value.node], 1, None), 0
        if through and gate[0].body is None and gate[0].owner is None:
            gate[0].entries, gate[0].body = local(self._source())
        return gate[0]

    def _source(self) -> Value:
        """The recorded operation itself: behind the variable that a hook put in its place, and behind the write that
        stored its result in a tensor.
        """
        value = self._value
        assert value is not None
        while value.parents:
            parent = value.parents[0]
            if type(parent) is not Value:
                break
            hooked = value.gate is not None and parent.gate is not None and parent.gate[0] is value.gate[0]
            stored = value.name and parent.name == value.name and parent.node is value.node
            if not (hooked or stored):
                break
            value = parent
        return value

    def __repr__(self) -> str:
        return f"<{type(self).__name__} object at {hex(id(self))}>"


class AccumulateGrad(Node):
    """The gradient node of a leaf."""

    def __init__(self, variable: Tensor) -> None:
        super().__init__(None, (), "torch::autograd::AccumulateGrad")
        self.variable = variable

    def register_hook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call `fn((), grad_outputs)` after the gradient was added to `.grad`."""
        return add(_leaf_hooks(self.variable).nodes_after, fn, of_leaf=True)

    def register_prehook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call `fn(grad_outputs)` before the gradient is added; it may give new ones."""
        return add(_leaf_hooks(self.variable).nodes_before, fn, of_leaf=True)

    def __repr__(self) -> str:
        return f"<AccumulateGrad object at {hex(id(self))}>"


@lru_cache(maxsize=4096)
def _class_of(name: str) -> type[Node]:
    return type(name, (Node,), {})


def of_value(value: Value) -> Any:
    """The gradient node of a value; None for leaves whose tensor died."""
    if value.name == "AccumulateGrad":
        tensor = value.leaf() if value.leaf is not None else None
        return None if tensor is None else of_leaf(tensor)
    if value.gate is not None and value.gate[0].owner is not None:
        return value.gate[0].owner
    known = value.fn() if value.fn is not None else None
    if known is None:
        name = value.name or "CloneBackward0"
        made = Node.__new__(_class_of(name))
        made.__init__(value, value.parents, name)
        value.fn, known = weakref.ref(made), made
        made._parents = made._source().parents
    return known


def of_leaf(tensor: Any) -> AccumulateGrad:
    """The gradient node of a leaf that requires gradients."""
    known = tensor._fn[1]() if tensor._fn is not None else None
    if known is None:
        known = AccumulateGrad(tensor)
        tensor._fn = (None, weakref.ref(known))
    return known


def of_tensor(tensor: Any, name: str) -> Any:
    """`grad_fn` of a tensor with history, which is called `name`."""
    lineage = tensor._lineage
    hist = lineage.hist
    if hist is not None and len(tensor._chain) == lineage.depth:
        return of_value(hist)
    if tensor._fn is None or tensor._fn[0] is not hist:
        recorder = current()
        with recorder.lock:
            parent = hist if hist is not None else read(recorder, tensor, True)[1]
        tensor._fn = (hist, _edge(parent, tensor.view_names(lineage.depth))[0])
    return tensor._fn[1]


def _edge(parent: Any, names: Sequence[str] = ()) -> tuple[Any, int]:
    """The gradient node of an operand, which is `parent` or was made from it by views of these names."""
    if type(parent) is not Value or not parent.grad:
        return None, 0
    edge = of_value(parent), parent.gate[1] if parent.gate is not None else 0
    for name in names:
        source = edge[0]
        if source is None:  # a leaf that died
            break
        node = source._views.get(name)
        if node is None:
            node = Node.__new__(_class_of(name))
            node.__init__(None, (), name)
            node._next = edge
            source._views[name] = node
        edge = node, 0
    return edge


def edges(
    parents: Sequence[Any], through: tuple[Sequence[GraphNode], Sequence[Seen]] | None = None
) -> tuple[tuple[Any, int], ...]:
    """`next_functions` of what was made from `parents`, `through` views of them (see `Value`); those that gradients
    could go to.
    """
    if through is None:
        return tuple([_edge(parent) for parent in parents if parent.node.dtype.is_float])
    operands, seen = through
    aligned = len(operands) == len(parents)
    left = list(seen)
    found: list[tuple[Any, int]] = []
    for place, parent in enumerate(parents):
        if not parent.node.dtype.is_float:  # indices, masks
            continue
        view = next((v for v in left if v.keep is parent and not (aligned and v.node is not operands[place])), None)
        if view is not None:
            left.remove(view)
        found.append(_edge(parent, () if view is None else view.names))
    return tuple(found)


def _leaf_hooks(tensor: Any) -> LeafHooks:
    lineage = tensor._lineage
    if lineage.hooks is None:
        lineage.hooks = LeafHooks()
    capture = current().capture
    if capture is not None:
        capture.give_up("a hook registered on a leaf")
    return lineage.hooks


def own_history(tensor: Any) -> Value:
    """The value of a non-leaf for this tensor alone: a view leaves the lineage that it shares with its base."""
    recorder = current()
    with recorder.lock:
        recorder.begin()
        lineage = tensor._lineage
        node, keep = read(recorder, tensor, True)
        assert isinstance(keep, Value), "no history"
        if lineage.hist is keep and len(tensor._chain) == lineage.depth:
            return keep
        name = tensor.grad_fn_name()
        value = Value(node, (keep,), name, True)
        value.counter = tensor._counter
        value.version = tensor._counter[0] if tensor._counter is not None else 0
        tensor._lineage = Lineage(len(tensor._chain), value, False, tensor._storage.version)
        value.lineage = weakref.ref(tensor._lineage)
        return value


def register_hook(tensor: Any, hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook` with the gradient of `tensor`, which it may replace."""
    if not tensor.requires_grad:
        raise UsageError("cannot register a hook on a tensor that doesn't require gradient")
    if tensor.is_leaf:
        return add(_leaf_hooks(tensor).tensor, hook, of_leaf=True)
    value = own_history(tensor)
    if value.gate is None:
        value = _gated(tensor, value)
    gate, slot = value.gate
    return add(gate.hooks(slot), hook)


def _gated(tensor: Any, value: Value) -> Value:
    """A variable in place of `value`, so that what reads the tensor from now on is told from equal values; both lead
    to one gate."""
    recorder = current()
    with recorder.lock:
        recorder.begin()
        made = fresh_variable(recorder, value.node, value)
        made.name, made.serial = value.name, value.serial
        made.counter, made.version = value.counter, value.version
        made.leaf, value.leaf = value.leaf, None
        made.gate = value.gate = Gate([value.node], 1, None), 0
        lineage = tensor._lineage
        lineage.hist = made
        made.lineage = weakref.ref(lineage)
    return made


def register_post_accumulate_grad_hook(tensor: Any, hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(tensor)` each time after a gradient was added to `.grad` of this leaf."""
    if not tensor.requires_grad:
        raise UsageError("cannot register a hook on a tensor that doesn't require gradient")
    if not tensor.is_leaf:
        raise UsageError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    return add(_leaf_hooks(tensor).post, hook, of_leaf=True)


def retain(tensor: TensorBase) -> None:
    """Let `backward` fill `.grad` of a non-leaf too."""
    if not tensor.is_leaf:
        own_history(tensor).leaf = weakref.ref(tensor)
