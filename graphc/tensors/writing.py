"""Writing tensors in place: their storage gets a new value, through the chain of views."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from graphc.errors import DTypeError, ShapeError
from graphc.grad_mode import MODE
from graphc.ir.node import Node
from graphc.ir.types import DType, boolean
from graphc.promotion import can_cast
from graphc.recording import Recorder, current
from graphc.storage import Value
from graphc.tensors.core import Keep, TensorBase, read, read_base
from graphc.tensors.views import apply_chain, repeats_elements, write_chain

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


_OVERWRITES = frozenset(("CopyBackwards", "FillBackward0", "ZeroBackward0"))


def check_writable(tensor: TensorBase) -> None:
    """PyTorch's errors for tensors that cannot be written."""
    if repeats_elements(tensor._type.shape, tensor._strides):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )
    if tensor._counter is None and not MODE.inference:
        raise RuntimeError(
            "Inplace update to inference tensor outside InferenceMode is not allowed.You can make a clone to get a "
            "normal tensor before doing inplace update.See https://github.com/pytorch/rfcs/pull/17 for more details."
        )
    if MODE.enabled and tensor._lineage.requires_grad:
        if len(tensor._chain) == tensor._lineage.depth:
            raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
        raise RuntimeError("a view of a leaf Variable that requires grad is being used in an in-place operation.")


def write(target: TensorBase, source: TensorBase, name: str = "CopyBackwards") -> None:
    """Store the elements of `source`, which must broadcast to the target's shape, converted to its dtype."""
    check_writable(target)
    type = target._type
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = MODE.enabled and (source.requires_grad or target._lineage.hist is not None) and type.dtype.is_float
        node, keep = read(recorder, source, grad)
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
    if r.shape != a.shape:
        raise ShapeError(f"output with shape {list(a.shape)} doesn't match the broadcast shape {list(r.shape)}")
    name = result._lineage.hist.name if result._lineage.hist is not None else "CopyBackwards"
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
