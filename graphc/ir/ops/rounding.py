"""Floats as a narrower dtype would hold them, in the dtype that they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.node import Node
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops.checks import check_arity
from graphc.ir.ops.elementwise import cast_array
from graphc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder


def _infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("rounded", types, 1)
    dtypes = attrs["values"], attrs["gradients"]
    if not all(dtype.is_float and dtype.bits <= types[0].dtype.bits for dtype in dtypes) or not types[0].dtype.is_float:
        names = " and ".join(dtype.name for dtype in dtypes)
        raise DTypeError(f"rounded: wants floats and dtypes that are no wider, got {types[0]}, {names}")
    return types[0]


def _evaluate(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    return np.array(cast_array(cast_array(arrays[0], attrs["values"]), type.dtype), copy=True)


def _dtypes(node: Node) -> tuple[DType, DType]:
    values, gradients = node.attr("values"), node.attr("gradients")
    assert isinstance(values, DType) and isinstance(gradients, DType)
    return values, gradients


def _vjp(b: Builder, node: Node, ct: Node) -> Sequence[Node | None]:
    values, gradients = _dtypes(node)
    return [b.rounded(ct, gradients, values)]


def _decompose(b: Builder, node: Node) -> Node:
    return b.cast(b.cast(node.inputs[0], _dtypes(node)[0]), node.dtype)


ROUNDED = register(
    OpDef(
        name="rounded",
        kind="composite",
        arity=1,
        doc=(
            "x as the dtype `values` holds it, in its own dtype; its gradient as `gradients` does. Float; neither is "
            "wider. It says which factors of products have 16 bits where all else is computed in f32."
        ),
        infer=_infer,
        evaluate=_evaluate,
        attrs=(Attr("values", "dtype"), Attr("gradients", "dtype")),
        vjp=_vjp,
        decompose=_decompose,
    )
)
