"""Values on other devices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.node import Node
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops.checks import check_arity
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

_DEVICE = re.compile(r"[a-z]+(?::(?:0|[1-9][0-9]*))?")


def _infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("transfer", types, 1)
    if _DEVICE.fullmatch(attrs["device"]) is None:
        raise ShapeError(f"transfer: wants a device such as cpu or cuda:0, got {attrs['device']!r}")
    return types[0].on(attrs["device"])


def _evaluate(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    return np.array(arrays[0], copy=True)


def _vjp(b: Builder, node: Node, ct: Node) -> Sequence[Node | None]:
    return [b.transfer(ct, node.inputs[0].type.device)]


TRANSFER = register(
    OpDef(
        name="transfer",
        kind="host",
        arity=1,
        doc="The same elements on `device`; programs run it between their compiled parts. Any dtype, any shape.",
        infer=_infer,
        evaluate=_evaluate,
        attrs=(Attr("device", "str"),),
        vjp=_vjp,
    )
)
