"""The core of `Tensor`: a view of a storage, reading and writing it as nodes, and the gradient side."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.call_places import moves
from graphc.dtypes import default_ir
from graphc.errors import UsageError, describe
from graphc.grad_mode import MODE
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType
from graphc.memory import AnyBuffer, copied, part, pieces, read_pieces
from graphc.recording import SOURCES, THREADS, Recorder, current
from graphc.storage import Lineage, Seen, Storage, Value, recorder_of, untouched
from graphc.tensors.emitting import Keep, emitted
from graphc.tensors.export import seen
from graphc.tensors.fields import TensorFields
from graphc.tensors.fields import wrap_dim as wrap_dim
from graphc.tensors.halves import rounded_once
from graphc.tensors.variables import variable
from graphc.tensors.views import (
    Chain,
    apply_chain,
    is_contiguous,
)

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

LENT = 1 << 20  # bytes
MOST_VIEWS = 8  # that a call reads in turn, each by programs of its own
MOST_COPIED = 1 << 20  # bytes of a view that is copied where a call reads one after the other

Emit = Callable[..., Node]


class TensorBase(TensorFields):
    """What every tensor has; `graphc.Tensor` adds the operations."""

    __slots__ = ()

    # gradient side

    @property
    def requires_grad(self) -> bool:
        lineage = self._lineage
        return lineage.requires_grad or lineage.hist is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set whether this leaf collects gradients. RuntimeError for integers and for non-leaves."""
        if requires_grad and not self._type.dtype.is_float:
            raise UsageError("only Tensors of floating point dtype can require gradients")
        if not self.is_leaf:
            if requires_grad:
                return self  # type: ignore[return-value]
            raise UsageError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed "
                "variable in a "
                "subgraph that doesn't require differentiation use var_no_grad = var.detach()."
            )
        if requires_grad and self._counter is None and not MODE.inference:
            raise UsageError("Setting requires_grad=True on inference tensor outside InferenceMode is not allowed.")
        if self._lineage.requires_grad != requires_grad:
            if self._lineage.depth != len(self._chain):
                self._lineage = Lineage(len(self._chain))
            # Earlier views share the lineage and so follow.
            self._lineage.requires_grad, self._lineage.version = requires_grad, self._storage.version
            self._lineage.owner, self._lineage.variable = weakref.ref(self), None
        return self  # type: ignore[return-value]

    @property
    def is_leaf(self) -> bool:
        lineage = self._lineage
        return lineage.hist is None and (not lineage.requires_grad or len(self._chain) == lineage.depth)

    def view_names(self, depth: int) -> tuple[str, ...]:
        """PyTorch's names of the gradient nodes of the views that this is, from the step `depth` of its chain on."""
        # Of a memory that was written since, PyTorch makes its views anew.
        counter = self._counter
        if self._root is not None and counter is not None and self._seen_at != counter[0]:
            return ("AsStridedBackward0",)
        return tuple([step.name for step in self._chain[depth:] if step.name])

    def retain_grad(self) -> None:
        """Let `backward` fill `.grad` of this non-leaf too."""
        if not self.requires_grad:
            raise UsageError("can't retain_grad on Tensor that has requires_grad=False")
        self._retains = True

    @property
    def retains_grad(self) -> bool:
        return self._retains and not self.is_leaf

    # observation

    def _array(self) -> np.ndarray:
        """The values as a NumPy array, which shares memory with the storage on the CPU; computes what is pending."""
        if not self._chain:
            return self._storage.array()
        return seen(self._storage.looked_at(), self._type, self._strides, self._offset)


describe.register(TensorBase, lambda tensor: str(tensor._type))


_classes: list[type[Any]] = []


def set_class(cls: type[Any]) -> None:
    """Tell this module the class of results."""
    _classes[:] = [cls]


def result_class() -> type[Any]:
    """The class of results."""
    return _classes[0]


_make = object.__new__


def new(
    storage: Storage,
    type: TensorType,
    lineage: Lineage,
    chain: Chain = (),
    strides: tuple[int, ...] | None = None,
    offset: int = 0,
    cls: type[Any] | None = None,
) -> Tensor:
    """A tensor object over `storage`."""
    tensor = _make(cls or _classes[0])
    tensor._storage = storage
    tensor._type = type
    tensor._chain = chain
    tensor._strides = type.strides if strides is None else strides
    tensor._offset = offset
    tensor._lineage = lineage
    tensor._grad = None
    tensor._retains = False
    tensor._root = None
    tensor._seen_at = 0
    tensor._wrapped = False
    tensor._counter = storage.counter
    tensor._fn = None
    return tensor


def from_buffer(buffer: AnyBuffer, type: TensorType) -> Tensor:
    """A tensor of its own over a buffer in row-major order."""
    return new(Storage(current(), type, None, buffer), type, Lineage())


def from_array(array: np.ndarray, dtype: DType, device: str | None = None) -> Tensor:
    """A tensor with a private copy of `array`, on `device` (where a factory that runs now puts what it makes)."""
    type = TensorType(dtype, np.shape(array), device or THREADS.recorder.place)
    return from_buffer(copied(array, type), type)


# reading


def new_from_value(recorder: Recorder, value: Value) -> Tensor:
    """A tensor whose history is `value`."""
    lineage = Lineage(0, value)
    value.lineage = weakref.ref(lineage)
    return new(Storage(recorder, value.node.type, value, None), value.node.type, lineage)


def _blocked(b: Builder, node: Node) -> Node:
    """`node` so that no gradient passes: behind an odd number of `detach` nodes."""
    if node.op in SOURCES or not node.dtype.is_float:
        return node
    depth, inner = 0, node
    while inner.op == "detach":
        depth, inner = depth + 1, inner.inputs[0]
    return node if depth % 2 else b.apply("detach", (node,))


def contents(keep: Keep) -> Keep:
    """What keeps a value valid, without a way for gradients."""
    if type(keep) is not Value or not keep.grad:
        return keep
    made = Value(keep.node, (keep,), keep.name, False)
    made.counter, made.version = keep.counter, keep.version
    return made


def read_base(recorder: Recorder, tensor: TensorBase, grad: bool) -> tuple[Node, Keep, int]:
    """A node, what keeps it valid, and how many steps of the tensor's chain it has behind it."""
    lineage, storage = tensor._lineage, tensor._storage
    if grad:
        hist = lineage.hist
        if hist is not None:
            if recorder.threads > 1 and not hist.freed and recorder_of(hist, storage) not in (recorder, None):
                raise UsageError(
                    "the tensor's history was recorded by another thread. Compute a loss and its gradients in one "
                    "thread, or pass what `detach()` gives of a tensor to the other."
                )
            exported = storage.is_exported
            if storage.value is None and (exported or lineage.version != storage.version) and untouched(hist, storage):
                lineage.version = storage.version
                exported = False
            behind = storage.value is not hist and (hist.freed or exported)
            if lineage.version == storage.version and not behind:
                return hist.node, hist, lineage.depth
            return _changed_behind(recorder, tensor, hist)
        if lineage.requires_grad:
            value = variable(recorder, tensor)
            if value.leaf is None:
                value.leaf = lineage.owner
            return value.node, value, lineage.depth
    node, keep = recorder.read(storage)
    return (_blocked(recorder.b, node), contents(keep), 0) if grad else (node, keep, 0)


def _changed_behind(recorder: Recorder, tensor: TensorBase, hist: Value) -> tuple[Node, Keep, int]:
    """A non-leaf whose memory was written where gradients are off, or whose history was given up by `backward`.

    It has the new contents; its gradient goes where it went before.
    """
    b = recorder.b
    base, keep = recorder.read(tensor._storage)
    depth = tensor._lineage.depth
    node = _blocked(b, apply_chain(b, base, tensor._chain[:depth]))
    if not hist.freed:
        through = b.elementwise("sub", hist.node, b.apply("detach", (hist.node,)))
        node = b.elementwise("add", node, through)
    value = Value(node, (hist, contents(keep)), hist.name, True)
    value.counter = tensor._counter
    value.version = tensor._counter[0] if tensor._counter is not None else 0
    return node, value, depth


def read(recorder: Recorder, tensor: TensorBase, grad: bool) -> tuple[Node, Keep]:
    """The node of the tensor's elements and what keeps it valid; with `grad`, the one that gradients flow through."""
    chain, storage = tensor._chain, tensor._storage
    if not (chain or grad):
        return recorder.read(storage)
    if chain and storage.value is None and recorder.capture is None and tensor._type.nbytes < storage.type.nbytes:
        lineage = tensor._lineage
        if not (grad and (lineage.requires_grad or lineage.hist is not None)):
            # A batch cut out of a data set: the part is a leaf of its own, so every batch records the same nodes.
            in_one = is_contiguous(tensor._type.shape, tensor._strides)
            if in_one or _reads_many_views(tensor, recorder.width):
                copy = None if in_one else partial(_copied, tensor)
                binding = recorder.part(storage, tensor._type, tensor._offset, tensor._strides, copy)
                return binding.node, binding
    if chain and storage.value is None and recorder.capture is not None and not wants_grad((tensor,)):
        found = recorder.capture.part(storage, chain)
        if found is not None:
            binding, rest = found
            node = _blocked(recorder.b, binding.node) if grad else binding.node
            return apply_chain(recorder.b, node, rest), binding
    node, keep, depth = read_base(recorder, tensor, grad)
    if not chain:
        return node, keep
    node = apply_chain(recorder.b, node, chain[depth:])
    if grad and len(chain) > depth and type(keep) is Value:
        recorder.seen.append(Seen(node, keep, tensor.view_names(depth)))
    return node, keep


def read_all(recorder: Recorder, tensors: Sequence[TensorBase], grad: bool) -> list[tuple[Node, Keep]]:
    """What `read` gives for the operands of one operation. Where one of them runs what is pending, a parameter that an
    optimizer wrote, those before it are read again: they are computed then, and recorded work need not begin with
    theirs.
    """
    turn = recorder.turn
    recorder.width = len(tensors)
    pairs = [read(recorder, tensor, grad) for tensor in tensors]
    if recorder.turn != turn:
        recorder.seen = []
        pairs = [read(recorder, tensor, grad) for tensor in tensors]
    return pairs


def _reads_many_views(tensor: TensorBase, width: int) -> bool:
    """Whether the call reads one small view of the memory after the other: column after column. A call of many operands
    may read many at once.
    """
    type = tensor._type
    if type.nbytes > MOST_COPIED:
        return False
    if type.device != "cpu" and pieces(type.shape, tensor._strides, 0, type.dtype.itemsize) is None:
        return False
    place = tensor._offset, type.shape, tensor._strides
    return moves(("read", tensor._storage.type.shape), place, MOST_VIEWS if width <= MOST_VIEWS else 2 * width)


def _copied(tensor: TensorBase) -> AnyBuffer:
    """The elements of a view of memory that is computed."""
    buffer, type, strides, offset = tensor._storage.buffer, tensor._type, tensor._strides, tensor._offset
    assert buffer is not None
    if type.device == "cpu":
        return copied(seen(buffer, type, strides, offset), type)
    found = pieces(type.shape, strides, offset, type.dtype.itemsize)
    assert found is not None  # or it would not be copied
    return read_pieces(buffer, found, type)


# recording


def _is_part(tensor: TensorBase) -> bool:
    """Whether a tensor is a view of a part that lies in one piece."""
    type = tensor._type
    return (
        bool(tensor._chain) and type.nbytes < tensor._storage.type.nbytes and is_contiguous(type.shape, tensor._strides)
    )


def lends(recorder: Recorder, tensor: TensorBase) -> bool:
    """Whether `read_now` reads the memory of a tensor where it lies, for an operation without gradients."""
    storage = tensor._storage
    if (storage.export is None and storage.external is None) or storage.type.nbytes < LENT:
        return False
    waits = recorder.capture is not None or recorder.example_since is not None or storage.value is not None
    is_much = not _is_part(tensor) or tensor._type.nbytes >= LENT
    return is_much and not waits and storage.type.device == "cpu" and storage.is_exported


def read_now(recorder: Recorder, tensor: TensorBase, grad: bool) -> tuple[Node, Keep]:
    """As `read`, for operations that end with `finish` of one result. Much memory that NumPy may write is read where it
    lies, which is quicker than to copy it: then `recorder.lent` is set, and the result is computed at once.
    """
    if grad or not lends(recorder, tensor):
        return read(recorder, tensor, grad)
    recorder.lent = True
    storage, type, chain = tensor._storage, tensor._type, tensor._chain
    buffer, read_type = storage.realise(), storage.type
    if _is_part(tensor):
        buffer, chain = part(buffer, tensor._offset * type.dtype.itemsize, type.nbytes), ()
        read_type = type
    binding = recorder.bind(buffer, read_type, storage)
    return apply_chain(recorder.b, binding.node, chain), binding


def _compute_lent(recorder: Recorder) -> None:
    """Compute a result that reads memory where it lies, before anybody writes that."""
    recorder.lent = False
    recorder.flush("")


def wants_grad(tensors: Sequence[TensorBase]) -> bool:
    """Whether an operation on `tensors` is recorded for gradients now."""
    if MODE.enabled:
        for tensor in tensors:
            lineage = tensor._lineage
            if lineage.requires_grad or lineage.hist is not None:
                return True
    return False


def finish(
    recorder: Recorder,
    node: Node,
    parents: tuple[Keep, ...],
    name: str,
    grad: bool,
    operands: Sequence[Node] = (),
    rounded: bool = False,
) -> Tensor:
    """A new tensor for the recorded `node`; rounded once, unless it is, if `operands` are of half precision."""
    if not rounded:
        node = rounded_once(recorder.b, node, operands)
    recorder.recorded(node)
    type = node.type
    grad = grad and type.dtype.kind == "float"
    storage, lineage = Storage.pending(recorder, node, parents, name, grad)
    if grad and recorder.seen:
        lineage.hist.through = operands, tuple(recorder.seen)  # type: ignore[union-attr]
    made = new(storage, type, lineage)
    if grad and MODE.packing:
        SAVING[0](recorder, lineage.hist)  # type: ignore[arg-type]
    if recorder.lent:
        _compute_lent(recorder)
    return made


SAVING: list[Callable[[Recorder, Value], None]] = []  # what is done while there are hooks of saved tensors


def record(name: str, tensors: Sequence[TensorBase], emit: Emit, steady: bool = False) -> Tensor:
    """Record `emit(builder, *nodes)`, which makes one node from those of `tensors`. `name` is PyTorch's name of the
    gradient node. `steady`: the same function object does the same for the same nodes, now and later.
    """
    recorder = THREADS.recorder
    lock = recorder.lock
    lock.acquire()  # written out, here and below, is what most operations of a loop do
    try:
        b = recorder.begin()
        recorder.width = len(tensors)
        grad = MODE.enabled and wants_grad(tensors)
        nodes: list[Node] = []
        parents: list[Keep] = []
        turn = recorder.turn
        for tensor in tensors:
            storage = tensor._storage
            keep: Keep | None = storage.value
            if tensor._chain or (keep is not None and storage.recorder is not recorder):
                whole = False
            elif grad:
                lineage = tensor._lineage
                whole = keep is not None and keep is lineage.hist and lineage.version == storage.version == 0
            else:
                whole = storage.export is None and storage.external is None
            if not whole:
                keep = None  # it may be computed now, and what it was made from is needed no more then
                node, keep = read_now(recorder, tensor, grad)
                nodes.append(node)
            else:
                if keep is None:
                    keep = recorder.leaf(storage)
                nodes.append(keep.node)
            parents.append(keep)
        if recorder.turn != turn:  # see `read_all`
            recorder.seen = []
            again = [read_now(recorder, tensor, grad) for tensor in tensors]
            nodes, parents = [node for node, _ in again], [keep for _, keep in again]
        if steady:
            key = (emit, default_ir(), *nodes)
            made = b.functions.get(key)
            if made is None or not (b.locs is made.locs or b.locs <= made.locs):
                made = b.keep(key, rounded_once(b, emit(b, *nodes), nodes))
        else:
            made = emitted(b, emit, nodes, nodes, False, parents)
        if grad:
            return finish(recorder, made, tuple(parents), name, True, nodes, True)
        recorder.recorded(made)
        storage, lineage = Storage.pending(recorder, made, tuple(parents), name, False)
        result = new(storage, made.type, lineage)
        if recorder.lent:
            _compute_lent(recorder)
        return result
    finally:
        lock.release()


def record_many(name: str, tensors: Sequence[TensorBase], emit: Callable[..., Sequence[Node]]) -> list[Tensor]:
    """`record` for an operation with several results."""
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad(tensors)
        pairs = read_all(recorder, tensors, grad)
        parents = tuple(keep for _, keep in pairs)
        nodes = [node for node, _ in pairs]
        return [finish(recorder, n, parents, name, grad, nodes) for n in emit(b, *nodes)]


def alias(tensor: TensorBase, cls: type[Any] | None = None) -> Tensor:
    """Another tensor over the same memory, without the gradient side: what `detach` gives."""
    made = new(
        tensor._storage,
        tensor._type,
        Lineage(len(tensor._chain), None, False, tensor._storage.version),
        tensor._chain,
        tensor._strides,
        tensor._offset,
        cls,
    )
    made._counter = tensor._counter
    return made
