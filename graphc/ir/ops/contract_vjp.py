"""The gradient of `contract`: again a contraction, with padding and flips where a dimension is a sum of labels.

With x indexed by `s*h + d*r`, the gradient at place p sums ct[h] * y[r] over s*h + d*r = p. Spreading ct to the
multiples of s (zeros between) and turning y round along r makes that `ct'[p + d*r'] * y'[r']`, a contraction over r'.
That form is used where one of h, r is in the output alone and the other in y alone; any other sum is contracted per
label and then added up by `fold`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.ir.contraction import Dim, Term, format_spec, is_plain, parse_spec, span
from graphc.ir.node import Node

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Extents = dict[str, int]


def contract_vjp(b: Builder, node: Node, ct: Node) -> Sequence[Node | None]:
    x, y = node.inputs
    spec = parse_spec(node.text("spec"))
    extents = spec.extents(x.shape, y.shape)
    return [
        _gradient(b, ct, spec.out, x, spec.x, y, spec.y, extents),
        _gradient(b, ct, spec.out, y, spec.y, x, spec.x, extents),
    ]


@dataclass
class _Operand:
    """A tensor and what its dimensions stand for; changed step by step while the gradient is set up."""

    node: Node
    dims: list[Dim]

    def place(self, label: str) -> int | None:
        """The dimension that is `label` alone."""
        for i, dim in enumerate(self.dims):
            if dim == ((label, 1),):
                return i
        return None

    def has(self, label: str) -> bool:
        return any(label == other for dim in self.dims for other, _ in dim)


def _gradient(
    b: Builder,
    ct: Node,
    out: tuple[str, ...],
    target: Node,
    target_dims: tuple[Dim, ...],
    other: Node,
    other_dims: tuple[Dim, ...],
    extents: Extents,
) -> Node:
    """The gradient of the operand `target`, whose dimensions are `target_dims`."""
    if 0 in extents.values():
        return b.zeros_like(target)
    left = _Operand(ct, [((label, 1),) for label in out])
    right = _Operand(other, list(other_dims))
    _fit(b, right, set(out), extents)
    sizes = dict(extents)
    result: list[Dim] = []  # the dimensions of the gradient before sums that are left are folded
    for dim, size in zip(target_dims, target.shape, strict=True):
        spread = None if is_plain(dim) else _spread(b, left, right, dim, size, sizes)
        result.append(dim if spread is None else ((spread, 1),))
    wanted = [label for dim in result for label, _ in dim]
    present = [label for label in wanted if left.has(label) or right.has(label)]
    text = format_spec(tuple(left.dims), tuple(right.dims), tuple(present))
    gradient = b.contract(left.node, right.node, text)
    if present != wanted:  # a label of `target` alone: its gradient is the same all along
        kept = tuple(sizes[label] if label in present else 1 for label in wanted)
        gradient = b.broadcast(b.reshape(gradient, kept), tuple(sizes[label] for label in wanted))
    for i, (dim, size) in enumerate(zip(result, target.shape, strict=True)):
        if not is_plain(dim):
            gradient = _fold(b, gradient, i, dim, size, sizes)
    return gradient


def _fit(b: Builder, operand: _Operand, known: set[str], extents: Extents) -> None:
    """Cut each sum of `operand` to the elements it reaches, so that its labels keep their extents in another formula.

    A sum with two or more labels that nothing else gives the extent of is opened into one dimension per label.
    """
    for i, dim in enumerate(list(operand.dims)):
        if is_plain(dim):
            continue
        operand.node = _cut(b, operand.node, i, span(dim, extents), 1)
        if sum(label not in known for label, _ in dim) > 1:
            operand.node = _open(b, operand.node, i, dim, extents)
            operand.dims[i] = ((dim[0][0], 1),)
            operand.dims += [((label, 1),) for label, _ in dim[1:]]


def _cut(b: Builder, node: Node, axis: int, size: int, step: int) -> Node:
    """The first `size` elements, `step` apart, along `axis`."""
    if node.shape[axis] == size and step == 1:
        return node
    shape = tuple(size if i == axis else n for i, n in enumerate(node.shape))
    steps = tuple(step if i == axis else 1 for i in range(len(shape)))
    return b.slice(node, (0,) * len(shape), shape, steps)


def _open(b: Builder, node: Node, axis: int, dim: Sequence[Term], extents: Extents) -> Node:
    """Windows: dimension `axis` becomes the first label of `dim`, the others follow as last dimensions."""
    for k, (_, coefficient) in enumerate(dim[:-1]):
        rest = tuple(dim[k + 1 :])
        (label, dilation), *more = rest
        size = extents[label]
        if more:
            size, dilation = span(rest, extents), 1
        node = b.window(node, (axis,), (size,), (coefficient,), (dilation,))
        axis = node.type.rank - 1
    return node


def _spread(b: Builder, left: _Operand, right: _Operand, dim: Dim, size: int, sizes: Extents) -> str | None:
    """Turn the sum `dim` of the target into a formula over padded and flipped tensors.

    The label that now stands for it, or None if it has not the form for that.
    """
    if len(dim) != 2:
        return None
    (first, a), (second, c) = dim
    if left.place(second) is not None and right.place(first) is not None:
        first, a, second, c = second, c, first, a
    from_ct, from_y = left.place(first), right.place(second)
    if from_ct is None or from_y is None or left.has(second) or right.has(first):
        return None
    reach = c * (sizes[second] - 1)
    rank = left.node.type.rank
    low = tuple(reach if i == from_ct else 0 for i in range(rank))
    high = tuple(size - a * (sizes[first] - 1) - 1 if i == from_ct else 0 for i in range(rank))
    interior = tuple(a - 1 if i == from_ct else 0 for i in range(rank))
    left.node = b.pad(left.node, low, high, interior)
    right.node = b.flip(right.node, (from_y,)) if sizes[second] > 1 else right.node
    label = _fresh(sizes)
    left.dims[from_ct] = ((label, 1), (second, c))
    sizes[label] = size
    return label


def _fresh(sizes: Extents) -> str:
    """A label that is not in use; the same for the same formula, so that equal gradients are equal nodes."""
    count = 0
    while f"p{count}" in sizes:
        count += 1
    return f"p{count}"


def _fold(b: Builder, node: Node, axis: int, dim: Sequence[Term], size: int, sizes: Extents) -> Node:
    """Add up dimensions `axis`, `axis + 1`, ... (one per label of `dim`) into one dimension of `size`."""
    rank = node.type.rank
    if len(dim) == 1:
        coefficient = dim[0][1]
        low, between = [0] * rank, [0] * rank
        high = [0] * rank
        between[axis] = coefficient - 1
        high[axis] = size - coefficient * (node.shape[axis] - 1) - 1
        return b.pad(node, tuple(low), tuple(high), tuple(between))
    rest = tuple(dim[1:])
    (_, dilation), *more = rest
    if more:
        dilation = 1
        node = _fold(b, node, axis + 1, rest, span(rest, sizes), sizes)
        rank = node.type.rank
    offsets, stride = node.shape[axis + 1], dim[0][1]
    places = (size - dilation * (offsets - 1) - 1) // stride + 1
    if places > node.shape[axis]:
        high = [0] * rank
        high[axis] = places - node.shape[axis]
        node = b.pad(node, (0,) * rank, tuple(high))
    order = (*(i for i in range(rank) if i != axis + 1), axis + 1)
    node = b.permute(node, order)
    shape = tuple(size if i == axis else n for i, n in enumerate(node.shape[:-1]))
    return b.fold(node, shape, (axis,), (stride,), (dilation,))
