"""Memory that what is pending may overwrite: that of values which nobody can read once it is computed.

A write is recorded as a new value of all of the memory. Where a tensor is large, that costs memory for a second one,
and a write at few indices takes as long as copying it. So a program writes into the memory of the old value, where the
tensor that has it was written, or is gone, and nothing else that is recorded, or that a gradient needs, will ask for
it. References are counted for that, all of them: whoever holds one that is not known here keeps the old value.

What runs Python may be stopped at any time, also after a program and before its results are where they belong. So
only native code, which is not, overwrites anything (`graphc/native/lending.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from graphc.ir.demand import WRITES_AT_INDEX
from graphc.ir.node import Node
from graphc.memory import ALONE
from graphc.storage import Binding, Storage, Value

if TYPE_CHECKING:
    from graphc.recording import Recorder

LEAST = 1 << 16  # bytes: copying fewer takes about as long as asking who else reads them


def lendable(recorder: Recorder, storages: Sequence[Storage]) -> frozenset[Node]:
    """The leaves that the program of the pending `storages` may overwrite: large ones of memory that was written, and
    that has the values into which the program writes at indices.
    """
    values = [storage.value for storage in storages if storage.value is not None]
    bases = {_base(value.node, recorder.bound) for value in values if value.node.type.nbytes >= LEAST}
    leaves = [leaf for leaf in recorder.held if leaf.node in bases or _is_written(leaf.source, recorder)]
    if not leaves or recorder.cuts or recorder.capture is not None or recorder.example_since is not None:
        return frozenset()
    if not all(_is_last(leaf, recorder) for leaf in leaves):
        return frozenset()
    if not _are_all(leaves, values, [keep for _, keep, _ in recorder.checks]):
        return frozenset()
    return frozenset(leaf.node for leaf in leaves)


def _base(node: Node, bound: Collection[Node]) -> Node | None:
    """The leaf that `node` is a copy of, written at indices."""
    writes = False
    while node not in bound:
        if node.op != "reshape" and node.op not in WRITES_AT_INDEX:
            return None
        writes = writes or node.op != "reshape"
        node = node.inputs[0]
    return node if writes else None


def _is_written(owner: object, recorder: Recorder) -> bool:
    """Whether a leaf is of large memory that is to hold something else."""
    if not isinstance(owner, Storage) or owner.value is None or owner.recorder is not recorder:
        return False
    return owner.type.nbytes >= LEAST


def _is_last(binding: Binding, recorder: Recorder) -> bool:
    """Whether a leaf has memory that only it, the recorder and one storage hold, which was written or is gone."""
    owner, buffer = binding.source, binding.buffer
    if not isinstance(owner, Storage) or owner.buffer is not buffer or not buffer.of_pool:
        return False
    if owner.external is not None or owner.export is not None or recorder.bound[binding.node] is not buffer:
        return False
    # The leaf, the storage and the table of leaves hold the memory.
    is_alone = sys.getrefcount(buffer) == ALONE + 2
    return is_alone and (_is_written(owner, recorder) or sys.getrefcount(owner) == ALONE)


def _are_all(leaves: list[Binding], values: list[Value], checked: list[Value | Binding]) -> bool:
    """Whether nobody holds `leaves` but the recorder and values that end when the pending `values`, and those that are
    to be checked, are computed.

    Each object has as many references as are known, at least: where the sums are equal, all are known.
    """
    found: dict[int, Value | Binding] = {id(leaf): leaf for leaf in leaves}
    known = _known(found, [*values, *checked])
    if known is None:
        return False
    # The recorder's list, and those here, hold them too.
    known += 2 * len(leaves) + len(values) + sum(id(keep) in found for keep in checked)
    return sum(sys.getrefcount(keep) - ALONE for keep in found.values()) == known


def _known(found: dict[int, Value | Binding], waiting: list[Value | Binding]) -> int | None:
    """Add the values behind `waiting` to what is `found`; gives how many references these and `waiting` hold to what is
    found. None where values outlive what is pending.
    """
    known = 0
    while waiting:
        keep = waiting.pop()
        if id(keep) not in found:
            if isinstance(keep, Binding):
                continue
            parents = keep.parents
            if keep.grad or keep.gate is not None or (parents and sys.getrefcount(parents) != ALONE):
                return None
            found[id(keep)] = keep
            waiting += parents
        known += 1
    return known
