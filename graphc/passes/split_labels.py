"""Contractions read what was reshaped after a permutation in the dimensions that it had before.

Attention folds batch and heads into one dimension, and heads and width into another. As one label such a dimension has
no fixed stride, so every index would be divided again; as several labels each has one.
"""

from __future__ import annotations

from itertools import count

from graphc.ir.builder import Builder
from graphc.ir.contraction import ContractSpec, Dim, format_spec, is_plain, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.index import reshape_blocks
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.passes.base import Pass, rebuild

_SCATTERS = frozenset({"permute", "slice", "window", "broadcast"})  # their dimensions do not merge with one stride


@record(slots=False)
class SplitLabels(Pass):
    """Split labels that stand for several dimensions of an operand which is not stored in their order."""

    name = "split_labels"
    doc = "contract over the dimensions that a reshape after a permutation folded into one"

    def run(self, graph: Graph) -> Graph:
        return rebuild(graph, _split)


def _split(b: Builder, node: Node) -> Node | None:
    """The contraction over split labels, reshaped to what it was; None when there is nothing to split."""
    if node.op != "contract" or not node.type.size:
        return None
    current, found = node, False
    while factors := _factors(current):
        current, found = _with_factors(b, current, factors), True
    return b.reshape(current, node.shape) if found else None


def _factors(node: Node) -> dict[str, tuple[int, ...]]:
    """Labels to split, with the extents of their parts."""
    spec = parse_spec(node.text("spec"))
    slid = {label for dims in spec.operands for dim in dims if not is_plain(dim) for label, _ in dim}
    found: dict[str, tuple[int, ...]] = {}
    for operand, dims in zip(node.inputs, spec.operands, strict=True):
        source = operand
        while source.op == "reshape":
            source = source.inputs[0]
        if source is operand or source.op not in _SCATTERS or not operand.type.size:
            continue
        for theirs, mine in reshape_blocks(source.shape, operand.shape):
            parts = tuple(source.shape[d] for d in theirs if source.shape[d] > 1)
            whole = [d for d in mine if operand.shape[d] > 1]
            if len(parts) > 1 and len(whole) == 1 and is_plain(dims[whole[0]]):
                label = dims[whole[0]][0][0]
                if label not in slid:
                    found.setdefault(label, parts)
    return found


def _with_factors(b: Builder, node: Node, factors: dict[str, tuple[int, ...]]) -> Node:
    """`node` with each of these labels replaced by several; its result has more dimensions then."""
    spec = parse_spec(node.text("spec"))
    names = _names(spec, factors)
    inputs, operands = [], []
    for operand, dims in zip(node.inputs, spec.operands, strict=True):
        shape: list[int] = []
        split: list[Dim] = []
        for dim, extent in zip(dims, operand.shape, strict=True):
            label = dim[0][0]
            if is_plain(dim) and label in factors:
                shape += factors[label]
                split += [((name, 1),) for name in names[label]]
            else:
                shape.append(extent)
                split.append(dim)
        inputs.append(b.reshape(operand, tuple(shape)))
        operands.append(tuple(split))
    out = tuple(name for label in spec.out for name in names.get(label, (label,)))
    return b.contract(inputs[0], inputs[1], format_spec(operands[0], operands[1], out))


def _names(spec: ContractSpec, factors: dict[str, tuple[int, ...]]) -> dict[str, tuple[str, ...]]:
    """New labels for the parts of each label."""
    taken = set(spec.labels)
    names: dict[str, tuple[str, ...]] = {}
    for label, parts in factors.items():
        fresh = (f"{label}{i}" for i in count() if f"{label}{i}" not in taken)
        names[label] = tuple(next(fresh) for _ in parts)
        taken.update(names[label])
    return names
