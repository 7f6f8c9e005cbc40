"""Values of f32 that 16 bits hold: what was rounded to them is converted back where an operator computes in f32."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.access import SINGLE_READ
from graphc.ir.builder import Builder
from graphc.ir.demand import is_zero, is_zero_pad
from graphc.ir.node import Node
from graphc.ir.types import DType, bf16, f16, f32

HALVES = (f16, bf16)
_SHOWING = SINGLE_READ.keys() | {"materialize", "detach"}


def is_widening(node: Node) -> bool:
    """Whether the node converts 16-bit floats to f32, which changes no value."""
    return node.op == "cast" and node.dtype is f32 and node.inputs[0].dtype in HALVES


def widening_of(node: Node) -> Node | None:
    """The conversion whose elements, and perhaps zeros around them, `node` shows; None when there is none."""
    while node.op in _SHOWING and (node.op != "pad" or is_zero_pad(node)):
        node = node.inputs[0]
    return node if is_widening(node) else None


def narrow_dtype(node: Node) -> DType:
    """The dtype that holds all elements of `node`: 16 bits where those do."""
    cast = widening_of(node)
    return node.dtype if cast is None else cast.inputs[0].dtype


def narrowed(b: Builder, node: Node) -> Node:
    """`node`, all of whose elements 16 bits hold (`narrow_dtype`), in 16 bits."""
    if node.dtype in HALVES:
        return node
    if is_widening(node):
        return node.inputs[0]
    source = narrowed(b, node.inputs[0])
    return b.make(node.op, (source,), node.attrs, node.type.with_dtype(source.dtype))


def concatenated(b: Builder, parts: Sequence[Node], axis: int) -> Node:
    """`parts` along `axis`; those that 16 bits hold are put together in 16 bits, and converted as one."""
    wide, dtypes = parts[0].dtype, {narrow_dtype(part) for part in parts if not is_zero(part)}
    if len(dtypes) != 1 or wide in dtypes:
        return b.concat(tuple(parts), axis)
    (dtype,) = dtypes
    narrow = (b.constant(0, p.type.with_dtype(dtype)) if is_zero(p) else narrowed(b, p) for p in parts)
    return b.cast(b.concat(tuple(narrow), axis), wide)


def factor_dtype(contraction: Node) -> DType:
    """The dtype of which both factors of the contraction's products are."""
    first, second = map(narrow_dtype, contraction.inputs)
    return first if first is second else contraction.inputs[0].dtype
