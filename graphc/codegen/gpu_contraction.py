"""Contractions on a GPU: matrix products, batched ones, convolutions and their gradients, by blocks of threads."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.codegen.gpu_contraction_kernel import TileKernel
from graphc.codegen.gpu_contraction_matrix import MatrixKernel
from graphc.codegen.gpu_contraction_sums import lower_sums
from graphc.codegen.gpu_contraction_tiles import MatrixTile
from graphc.codegen.lowered import Lowered
from graphc.codegen.prepare import Prepared
from graphc.codegen.target import Target
from graphc.ir.node import Node


def lower_gpu_contraction(
    prepared: Prepared, name: str, target: Target, merged: Mapping[Node, Node]
) -> tuple[Lowered, ...] | None:
    """The kernels of a prepared group whose schedule has a `tiling`, in the order in which they run; None without."""
    tiling = prepared.schedule.tiling
    if tiling is None:
        return None
    if isinstance(tiling.tile, MatrixTile):
        tiles = MatrixKernel(prepared.group, tiling.problem, tiling.tile, merged, tiling.sums).run(name)
    else:
        tiles = TileKernel(prepared.group, tiling.problem, tiling.tile, merged, tiling.sums).run(name)
    if tiling.sums is None:
        return (tiles,)
    return tiles, lower_sums(prepared.group, tiling.problem, name, merged, tiling.sums, tiling.tile.splits)
