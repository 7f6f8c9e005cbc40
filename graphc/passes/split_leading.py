"""Sums over a leading axis give a result for each of its places first, where results are small."""

from __future__ import annotations

from typing import ClassVar

from graphc.ir.builder import Builder
from graphc.ir.contraction import format_spec, is_plain, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.row_sums import sums_rows
from graphc.passes.base import PRIMITIVE, Pass, rebuild
from graphc.passes.shown import SOURCES, movement_base

FEW = 8  # fewer places than that are too few to gain by
SMALL = 8  # bytes of operands for each byte of a place's result


@record(slots=False)
class SplitLeading(Pass):
    """Sum over the leading axis in a second step: `n k, n l -> k l` becomes `n k, n l -> n k l`.

    The gradient of a convolution's weights can then be computed for one block of samples after the other, while that
    block's values are in a cache of `cache_bytes`; with the operands of all blocks in it there is nothing to gain.
    """

    name: ClassVar[str] = "split_leading"
    doc: ClassVar[str] = "sum over a leading axis in a second step where that keeps operands in cache"
    requires = (PRIMITIVE,)

    cache_bytes: int = 512 << 10

    def run(self, graph: Graph) -> Graph:
        return rebuild(graph, self._split)

    def _split(self, b: Builder, node: Node) -> Node | None:
        if node.op == "reduce_sum" and len(node.ints("axes")) > 1 and node.ints("axes")[0] == 0:
            if sums_rows(node) or not self._pays(node):
                return None  # rows are added up by parts of their own (`split_reductions.py`)
            each = b.apply("reduce_sum", node.inputs, {**dict(node.attrs), "axes": node.ints("axes")[1:]})
        elif node.op == "contract":
            spec = parse_spec(node.text("spec"))
            if not spec.x or not spec.y or spec.x[0] != spec.y[0] or not is_plain(spec.x[0]):
                return None
            label = spec.x[0][0][0]
            if label in spec.out or not self._pays(node):
                return None
            text = format_spec(spec.x, spec.y, (label, *spec.out))
            each = b.apply("contract", node.inputs, {**dict(node.attrs), "spec": text})
        else:
            return None
        return b.apply("reduce_sum", (b.apply("materialize", (each,)),), {"axes": (0,)})

    def _pays(self, node: Node) -> bool:
        """Whether operands leave the cache, and results for each place are small beside them."""
        if node.dtype.itemsize < 4:
            return False  # results of places would be rounded
        places = node.inputs[0].shape[0]
        read = sum(operand.type.nbytes for operand in node.inputs)
        if places < FEW or read <= self.cache_bytes or node.type.nbytes * places * SMALL > read:
            return False
        # What comes from outside is not in cache anyway. But a place that no cache holds is gone through in parts, and
        # these are along its own axes only.
        is_outside = all(movement_base(operand).op in SOURCES for operand in node.inputs)
        return not is_outside or (node.op == "contract" and read > self.cache_bytes * places)
