"""Writing tensors in place: their storage gets a new value, through the chain of views."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.devices import mixed_devices
from graphc.errors import DTypeError, ShapeError, UsageError
from graphc.grad_mode import MODE
from graphc.ir.node import Node
from graphc.ir.types import DType, boolean, broadcast_shapes
from graphc.promotion import can_cast
from graphc.recording import Recorder, current
from graphc.storage import Value
from graphc.tensors.core import Keep, TensorBase, read, read_base
from graphc.tensors.storing import stored
from graphc.tensors.views import apply_chain, overlap, repeats_elements, write_chain

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


_DRAWS = ("Uniform", "Normal", "LogNormal", "Exponential", "Cauchy", "Geometric")
_OVERWRITES = frozenset(
    (
        *("CopyBackwards", "FillBackward2", "FillBackward3", "ZeroBackward0"),
        *(f"{name}Backward0" for name in _DRAWS),
        *("BernoulliBackward1", "BernoulliBackward2", "RandomBackward0", "RandomBackward1", "RandomBackward2"),
    )
)
_SHARED = (
    "unsupported operation: some elements of the input tensor and the written-to tensor refer to a single memory "
    "location. Please clone() the tensor before performing the operation."
)
_NO_GRAD = "A view was created in no_grad mode and is being modified inplace with grad mode enabled. "
_SEVERAL = (
    "This view is the output of a function that returns multiple views. Such functions do not allow the output views "
    "to be modified inplace. You should replace the inplace operation by an out-of-place one."
)
_AMBIGUOUS = (
    "Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify your code by moving both "
    "the view and the inplace either both inside the no_grad block (if you don't want the inplace to be tracked) or "
    "both outside (if you want the inplace to be tracked)."
)


def check_writable(tensor: TensorBase, sources: Sequence[TensorBase] = (), uniform: bool = False) -> None:
    """PyTorch's errors for tensors that cannot be written, from `sources`; elements that are one in memory may be
    written with one number (`uniform`).
    """
    if not uniform and repeats_elements(tensor._type.shape, tensor._strides):
        raise UsageError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )
    if tensor._counter is None and not MODE.inference:
        raise UsageError(
            "Inplace update to inference tensor outside InferenceMode is not allowed.You can make a clone to get a "
            "normal tensor before doing inplace update.See https://github.com/pytorch/rfcs/pull/17 for more details."
        )
    check_tracked(tensor, sources)


def check_tracked(tensor: TensorBase, sources: Sequence[TensorBase] = ()) -> None:
    """PyTorch's errors for what the history of gradients does not allow: writing leaves, and some views."""
    requires = tensor.requires_grad
    if not MODE.enabled or not (requires or any(s.requires_grad for s in sources)):
        return
    if tensor._root is not None:
        _check_kind(tensor)
    root = tensor if tensor._root is None else tensor._root
    if requires and root.is_leaf and root is not tensor:
        raise UsageError("a view of a leaf Variable that requires grad is being used in an in-place operation.")
    if tensor._lineage.requires_grad:
        raise UsageError("a leaf Variable that requires grad is being used in an in-place operation.")


def _check_kind(view: TensorBase) -> None:
    """Refuse views made where gradients are off, and those that an operator gave several of at once."""
    assert view._root is not None
    special = [step for step in view._chain[len(view._root._chain) :] if step.free or step.place >= 0]
    if not special:
        return
    step, last = special[-1], view._chain[-1]
    if step.place < 0:
        raise UsageError(_NO_GRAD + _AMBIGUOUS)
    tracked = not step.free and view.requires_grad
    name = last.name.rstrip("0123456789").removesuffix("Backward")
    origin = f"Output {max(last.place, 0)} of {name} is a view and is being modified inplace. " if tracked else _NO_GRAD
    raise UsageError(origin + _SEVERAL)


def check_apart(target: TensorBase, sources: Sequence[object], wholly: bool = False) -> None:
    """PyTorch's error when `target` and one of `sources` are different views of memory that they share, or (`wholly`)
    any such views.
    """
    for source in sources:
        if isinstance(source, TensorBase) and source._storage is target._storage:
            left, right = _place(target, source), _place(source, target)
            how = "full" if source is target else overlap(left, right)
            if how == "partial" or (wholly and how):
                raise UsageError(_SHARED)


def _place(tensor: TensorBase, other: TensorBase) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Shape, strides and offset of a tensor: in elements, or in bytes beside another with elements of another size."""
    shape, strides, offset, size = tensor._type.shape, tensor._strides, tensor._offset, tensor.itemsize
    if size == other.itemsize:
        return shape, strides, offset
    return (*shape, size), (*(s * size for s in strides), 1), offset * size


def write(
    target: TensorBase, source: TensorBase, name: str = "CopyBackwards", uniform: bool = False, one: bool = False
) -> None:
    """Store the elements of `source`, which must broadcast to the target's shape, converted to its dtype.

    `uniform`: a number; elements of the target may be one in memory. `one`: a 0-d tensor, which may be a part of it.
    """
    check_writable(target, (source,), uniform)
    if not one:
        check_apart(target, (source,))
    type = target._type
    recorder = current()
    with recorder.lock:
        recorder.begin()
        grad = MODE.enabled and (source.requires_grad or target._lineage.hist is not None) and type.dtype.is_float
        if not grad and target._chain and stored(recorder, target, source):
            return
        b = recorder.b
        node, keep = read(recorder, source, grad)
        if source._type.device != type.device:
            node = b.transfer(node, type.device)
        if node.shape != type.shape:
            node = b.broadcast(node, type.shape) if node.type.rank <= type.rank else b.reshape(node, type.shape)
        node = b.cast(node, type.dtype)
        parents: tuple[Keep, ...] = (keep,)
        if grad and name in _OVERWRITES and not target._chain and target._lineage.hist is not None:
            # The gradient of what is overwritten is zero, not none.
            old, keep = read(recorder, target, True)
            node = b.select(b.constant(True, type.with_dtype(boolean)), node, old)
            parents = (*parents, keep)
        write_node(recorder, target, node, parents, name, grad)


def write_node(
    recorder: Recorder, target: TensorBase, node: Node, parents: tuple[Keep, ...], name: str, grad: bool
) -> None:
    """Let the memory that `target` shows hold `node`, of exactly its type."""
    b = recorder.b
    storage, lineage, chain = target._storage, target._lineage, target._chain
    start = lineage.depth
    if chain and grad:
        name = "CopySlices"
    inner = outer = node
    depth = 0
    if chain:
        base, keep, depth = read_base(recorder, target, grad)
        inner = outer = write_chain(b, base, chain[depth:], node)
        parents = (*parents, keep)
        if depth:
            bottom, keep = recorder.read(storage)
            outer = write_chain(b, bottom, chain[:depth], inner)
            parents = (*parents, keep)
    recorder.recorded(outer)
    value = Value(outer, parents, name, grad)
    storage.set_value(value, recorder)
    counter = value.counter = target._counter
    if counter is not None:
        counter[0] += 1
        value.version = counter[0]
    if grad:
        if depth == start:
            hist = value if inner is outer else Value(inner, parents, name, True)
        else:
            hist = Value(apply_chain(b, outer, chain[:start]), parents, name, True)
        hist.counter, hist.version = value.counter, value.version
        lineage.hist = hist
        lineage.version = storage.version
        hist.lineage = weakref.ref(lineage)
    if storage.is_exported:
        storage.realise()


def in_place(target: Tensor, result: Tensor) -> Tensor:
    """Store `result` of an operation into `target`, with PyTorch's rules of dtype and shape for in-place operations."""
    a, r = target._type, result._type
    if r.dtype is not a.dtype and not can_cast(r.dtype, a.dtype):
        raise DTypeError(
            f"result type {_TYPE_NAMES[r.dtype.torch_name]} can't be cast to the desired output type "
            f"{_TYPE_NAMES[a.dtype.torch_name]}"
        )
    if r.device != a.device:
        raise mixed_devices(a.device, r.device)
    if r.shape != a.shape:
        raise ShapeError(f"output with shape {list(a.shape)} doesn't match the broadcast shape {list(r.shape)}")
    name, history = "CopyBackwards", result._lineage.hist
    if history is not None:
        name = history.name
        if target._counter is not None:
            counters = [parent.counter for parent in history.parents]
            history.replaced = next((at for at, counter in enumerate(counters) if counter is target._counter), -1)
    write(target, result, name)
    return target


_TYPE_NAMES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
}


def type_name(dtype: DType) -> str:
    """PyTorch's C++ name of a dtype, as its messages spell it."""
    return _TYPE_NAMES[dtype.torch_name]


_C_NAMES = {
    "float64": "double",
    "float32": "float",
    "float16": "c10::Half",
    "bfloat16": "c10::BFloat16",
    "int64": "long int",
    "int32": "int",
    "int16": "short int",
    "int8": "signed char",
    "uint8": "unsigned char",
    "bool": "bool",
}


def c_name(dtype: DType) -> str:
    """The C++ type of a dtype's numbers, as some of PyTorch's messages spell it."""
    return _C_NAMES[dtype.torch_name]


def check_broadcast(given: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """ShapeError in the words of an elementwise in-place operation when `given` does not broadcast to `shape`."""
    for k in range(1, min(len(given), len(shape)) + 1):
        if given[-k] != shape[-k] and 1 not in (given[-k], shape[-k]):
            raise ShapeError(
                f"The size of tensor a ({shape[-k]}) must match the size of tensor b ({given[-k]}) at non-singleton "
                f"dimension {max(len(given), len(shape)) - k}"
            )
    whole = broadcast_shapes(given, shape)
    if whole != shape:
        raise ShapeError(f"output with shape {list(shape)} doesn't match the broadcast shape {list(whole)}")
