"""Whether a contraction goes by tiles of blocks of threads on a GPU, and by which."""

from __future__ import annotations

from graphc.codegen.gpu_contraction_group_tiles import choose_group_tile, lines_of
from graphc.codegen.gpu_contraction_matrix_tiles import choose_matrix_tile
from graphc.codegen.gpu_contraction_problem import Problem, find_problem, size
from graphc.codegen.gpu_contraction_steps import with_even_parts
from graphc.codegen.gpu_contraction_tiles import GroupTile, MatrixTile, Shape, Tile, choose_tile
from graphc.codegen.schedule import Tiling
from graphc.codegen.sites import Nest
from graphc.codegen.target import MATRIX_ARCHITECTURE, Target
from graphc.codegen.values import accumulator_dtype
from graphc.ir.schedule import Scratch
from graphc.ir.types import DType, TensorType, bf16, f16, f32

MIN_WORK = 1 << 12  # multiply-adds below which a thread for each point is as good
MIN_DEPTH = 4  # steps of a sum, likewise
COMPUTED = 3  # registers for each element that a thread copies when its index is computed
GROUP_ARCHITECTURE = "sm_90a"  # the only one that has products of lines


def choose_tiling(nest: Nest, target: Target) -> Tiling | None:
    """The tiles of the contraction in `nest`; None when threads that each compute a point are as good."""
    problem = find_problem(nest)
    if problem is None or size(problem.sums) < MIN_DEPTH or nest.points * size(problem.sums) < MIN_WORK:
        return None
    shape = shape_of(problem)
    options: list[tuple[float, Tile | MatrixTile] | None] = [choose_tile(shape, target)]
    held = matrix_dtype(problem, target)
    if held is not None:
        options.append(choose_matrix_tile(shape, target, held.itemsize))
        if target.cpu == GROUP_ARCHITECTURE and held.itemsize == 2:
            options.append(_by_groups(problem, shape, target))
    elif target.capability >= MATRIX_ARCHITECTURE and problem.points == 1 and problem.pieces is not None:
        options.append(choose_matrix_tile(shape, target, 2, problem.pieces))
    found = [option for option in options if option is not None]
    return tiling_with(problem, with_even_parts(problem, min(found, key=lambda o: o[0])[1])) if found else None


def _by_groups(problem: Problem, shape: Shape, target: Target) -> tuple[float, GroupTile] | None:
    """The tile for products of lines, where those can be copied however the sum is cut."""
    turned = lines_of(problem, 1)
    found = None if turned is None else choose_group_tile(shape, target, turned)
    if found is None or lines_of(problem, with_even_parts(problem, found[1]).splits) != turned:
        return None
    return found


def matrix_dtype(problem: Problem, target: Target) -> DType | None:
    """The dtype of the operands where warps can multiply matrices of it, with sums in f32; None where they cannot. f32
    is among them when the target may round it to tf32.
    """
    if problem.points > 1 or target.capability < MATRIX_ARCHITECTURE:
        return None
    possible = (f16, bf16, f32) if target.tf32 else (f16, bf16)
    return problem.dtype if problem.dtype in possible else None


def shape_of(problem: Problem) -> Shape:
    """The extents of the matrix product."""
    batch, rows, columns, depth = map(size, (problem.batch, problem.rows, problem.columns, problem.sums))
    itemsize = accumulator_dtype(problem.stage.inputs[0].dtype).itemsize
    is_plain = problem.left.plain is not None and problem.right.plain is not None
    return Shape(batch, rows, columns, depth, problem.points, itemsize, 1 if is_plain else COMPUTED)


def tiling_with(problem: Problem, tile: Tile | MatrixTile) -> Tiling:
    """`problem` by tiles like `tile`, with memory for partial sums when several blocks share one."""
    if tile.splits == 1:
        return Tiling(problem, tile, None)
    count = tile.splits * problem.points * problem.nest.points
    type = TensorType(accumulator_dtype(problem.stage.inputs[0].dtype), (count,), problem.stage.type.device)
    return Tiling(problem, tile, Scratch(problem.stage, "sums", type))
