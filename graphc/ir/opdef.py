"""Operator records. One operator is one frozen `OpDef` in one place, under `graphc/ir/ops/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.node import AttrValue, Node
from graphc.ir.record import record
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Attrs = Mapping[str, Any]
Infer = Callable[[Sequence[TensorType], Attrs], TensorType]
Evaluate = Callable[[Sequence[np.ndarray], Attrs, TensorType], np.ndarray]
Vjp = Callable[["Builder", Node, Node], Sequence["Node | None"]]
Decompose = Callable[["Builder", Node], Node]

KINDS = (
    *("source", "elementwise", "movement", "reduction", "contraction", "indexing", "scan", "sorting"),
    *("composite", "host"),
)


@record
class Attr:
    """An attribute of an operator: its name and its kind in the text form ("int", "ints", "float", "str", "dtype",
    "bool", "scalar").
    """

    name: str
    kind: str


@record
class OpDef:
    """Everything the compiler knows about one operator.

    `infer(types, attrs)` gives the result type or raises ShapeError/DTypeError. `evaluate(arrays, attrs, type)` is the
    NumPy reference, which runs where NumPy's warnings are off (`np.errstate`). `vjp(b, node, ct)` gives one gradient
    (or None: zero) per operand, None for an operator whose gradient is zero everywhere or undefined; then `why_no_vjp`
    says which. `is_heavy` (elementwise only): an element costs about as much as an exponential's, so that it is better
    stored than computed again and again. `decompose` rewrites the node into simpler operators (composite only). A
    `host` operator has no kernel: a program runs `evaluate` for it, between its compiled parts.
    """

    name: str
    kind: str
    arity: int | None  # None: any number of operands, at least one
    doc: str
    infer: Infer
    evaluate: Evaluate
    attrs: tuple[Attr, ...] = ()
    vjp: Vjp | None = None
    why_no_vjp: str = ""
    decompose: Decompose | None = None
    commutative: bool = False
    is_heavy: bool = False


OPS: dict[str, OpDef] = {}


def register(op: OpDef) -> OpDef:
    """Enter `op` in the registry; a second record of the same name is an error."""
    if op.name in OPS:
        raise ValueError(f"operator {op.name!r} is registered twice")
    OPS[op.name] = op
    return op


def attrs_of(node: Node) -> dict[str, AttrValue]:
    """The attributes of `node` as a dictionary, as `infer` and `evaluate` take them."""
    return dict(node.attrs)
