"""`saved_tensors_hooks`: Python functions that pack what operations save for backward, and unpack it there.

Nothing is saved by operations here: gradients are symbolic. With hooks, what PyTorch would save is given to the pack
function, and the operation becomes a gate whose gradient reads what the unpack function gives instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import KindError, UsageError
from graphc.gates import Gate, Grads, Run
from graphc.grad_mode import MODE, set_grad_enabled
from graphc.ir.node import Node
from graphc.passes.autodiff import vjp
from graphc.recording import Recorder
from graphc.saved import saved_by
from graphc.storage import Binding, Lineage, Value
from graphc.substitute import substitute
from graphc.tensors.core import SAVING, TensorBase, finish, read


def push_hooks(pack: Callable[[Any], Any], unpack: Callable[[Any], Any]) -> None:
    """From now on, operations of this thread give what they save to `pack`."""
    if MODE.packing_refused is not None:
        raise UsageError(MODE.packing_refused)
    MODE.packing = (*MODE.packing, (pack, unpack))


def pop_hooks() -> None:
    """End what the last `push_hooks` began."""
    MODE.packing = MODE.packing[:-1]


def refuse_hooks(message: str | None) -> str | None:
    """Let `push_hooks` raise RuntimeError with this message, or let it be; gives what was set before."""
    if message is not None and MODE.packing:
        raise UsageError(message)
    before, MODE.packing_refused = MODE.packing_refused, message
    return before


def packed(tensor: Any) -> Any:
    """What the innermost pack function makes of a tensor that is saved now."""
    stack = MODE.packing
    pack = stack[-1][0]
    before = tensor._counter[0] if tensor._counter is not None else 0
    MODE.packing = ()  # what pack does itself is not packed
    try:
        with set_grad_enabled(False):
            made = pack(tensor)
    finally:
        MODE.packing = stack
    if tensor._counter is not None and tensor._counter[0] != before:
        raise UsageError(
            "A saved tensor pack hook is modifying its input in place. Tensors provided as input to pack hook cannot "
            "be modified by in-place operations as this can lead to unexpected side-effects. Please open an issue if "
            "you need to perform in-place operations on the input to a pack hook."
        )
    return made


def unpacked(unpack: Callable[[Any], Any], item: Any) -> Any:
    """The tensor that `unpack` makes of what the pack function gave."""
    with set_grad_enabled(False):
        made = unpack(item)
    if not isinstance(made, TensorBase):
        raise KindError(
            f"Output of saved tensor unpack_hook expected to be a Tensor but got result of type {type(made).__name__}"
        )
    return made


class _Packed:
    """What one operation saved, until its history is given up."""

    def __init__(self, unpack: Callable[[Any], Any], items: list[tuple[Node, Any]]) -> None:
        self.unpack = unpack
        self.items = items

    def _release(self) -> None:
        self.items = []


def _save(recorder: Recorder, value: Value) -> None:
    """An operation was recorded while there are hooks."""
    kept = saved_by(recorder, value)
    if not kept:
        return
    if recorder.capture is not None:
        recorder.capture.give_up("hooks of saved tensors")
    unpack = MODE.packing[-1][1]
    items = [(node, packed(_tensor(recorder, node, keep))) for node, keep in kept]
    saved = _Packed(unpack, items)
    parents = [p for p in value.parents if type(p) is Value and p.grad]
    ends = [value.node, *(p.node for p in value.parents)]
    entries = [p.node for p in parents]
    node = value.node

    def body(run: Run, grads: Grads) -> Grads:
        return _gradients(run, grads[0], saved, node, entries, ends)

    value.gate = Gate(entries, 1, body, saved=saved), 0


def _tensor(recorder: Recorder, node: Node, keep: Value | Binding) -> Any:
    """What is saved as a tensor: a leaf is itself, all else a new one with the history."""
    if type(keep) is Value and keep.leaf is not None and keep.name == "AccumulateGrad":
        leaf = keep.leaf()
        if leaf is not None:
            return leaf
    made = finish(recorder, node, (keep,), "", False)
    if type(keep) is Value and keep.grad:
        made._lineage = Lineage(0, keep, False, made._storage.version)
    return made


def _gradients(
    run: Run, gradient: Node | None, saved: _Packed, node: Node, entries: Sequence[Node], ends: Sequence[Node]
) -> Grads:
    """The gradients of the operands, in which the saved values are what the unpack function gives."""
    if gradient is None:
        return [None] * len(entries)
    b = run.recorder.b
    wrt = list(dict.fromkeys(entries))
    seed = b.apply("detach", (gradient,))  # where the replacing of saved values ends
    made = vjp(b, [node], [seed], wrt, wrt)
    mapping = {end: end for end in ends}
    for held, item in saved.items:
        mapping[held] = _with_history(run, unpacked(saved.unpack, item), held)
    mapping[seed] = gradient
    known = iter(substitute(b, [m for m in made if m is not None], mapping))
    by_entry: dict[Node, Node | None] = {e: None if m is None else next(known) for e, m in zip(wrt, made, strict=True)}
    return [by_entry.pop(entry, None) for entry in entries]  # an operand that is there twice has it all at once


def _with_history(run: Run, tensor: Any, held: Node) -> Node:
    """The values of `tensor`; second gradients go where those of the saved value went."""
    node, keep = read(run.recorder, tensor, False)
    run.keeps.append(keep)
    if not run.create_graph or not held.dtype.is_float:
        return node
    b = run.recorder.b
    through = b.elementwise("sub", held, b.apply("detach", (held,)))
    return b.elementwise("add", b.apply("detach", (node,)), through)


SAVING.append(_save)
