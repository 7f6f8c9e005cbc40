"""Contractions on a GPU: matrix products, batched ones, convolutions and their gradients, by blocks of threads."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.codegen.gpu_chain import ChainKernel
from graphc.codegen.gpu_contraction_group import GroupKernel
from graphc.codegen.gpu_contraction_group_tiles import registers as group_registers
from graphc.codegen.gpu_contraction_kernel import TileKernel
from graphc.codegen.gpu_contraction_matrix import MatrixKernel
from graphc.codegen.gpu_contraction_matrix_tiles import registers as matrix_registers
from graphc.codegen.gpu_contraction_sums import lower_sums
from graphc.codegen.gpu_contraction_tiles import GroupTile, MatrixTile, registers, resident_by_registers
from graphc.codegen.gpu_contraction_tiling import shape_of
from graphc.codegen.lowered import Lowered
from graphc.codegen.prepare import Prepared
from graphc.codegen.target import Target
from graphc.ir.node import Node


def lower_gpu_contraction(
    prepared: Prepared, name: str, target: Target, merged: Mapping[Node, Node]
) -> tuple[Lowered, ...] | None:
    """The kernels of a prepared group whose schedule has a `tiling` or a `chain`, in the order in which they run; None
    without.
    """
    if prepared.schedule.chain is not None:
        return (ChainKernel(prepared.group, prepared.schedule.chain).run(name),)
    tiling = prepared.schedule.tiling
    if tiling is None:
        return None
    problem, tile = tiling.problem, tiling.tile
    is_matrix = isinstance(tile, MatrixTile)
    if isinstance(tile, GroupTile):
        needed = group_registers(tile)
    else:
        needed = matrix_registers(tile) if is_matrix else registers(shape_of(problem), tile)
    # A product by itself finds room; what operands are computed with would not, whatever is asked for.
    is_plain = problem.left.plain is not None and problem.right.plain is not None
    is_bare = all(s.maps == 0 for s in problem.nest.sites if s.root is not None) and not is_matrix
    resident = resident_by_registers(needed, tile.threads, target) if is_plain and not is_bare else 0
    if isinstance(tile, GroupTile):
        tiles = GroupKernel(prepared.group, problem, tile, merged, tiling.sums, resident).run(name)
    elif is_matrix:
        tiles = MatrixKernel(prepared.group, problem, tile, merged, tiling.sums, resident).run(name)
    else:
        tiles = TileKernel(prepared.group, problem, tile, merged, tiling.sums, resident).run(name)
    if tiling.sums is None:
        return (tiles,)
    return tiles, lower_sums(prepared.group, tiling.problem, name, merged, tiling.sums, tiling.tile.splits)
