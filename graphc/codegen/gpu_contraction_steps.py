"""How the sum of a contraction is cut into steps, each of which a panel of either operand is for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from graphc.codegen.gpu_contraction_problem import Flat, Problem
from graphc.codegen.gpu_contraction_tiles import MatrixTile, Tile, ceil_div
from graphc.ir.index import Var

NEAR = 4 / 3  # numbers of parts that far from each other are as good


def cut_sums(problem: Problem, tile: Tile | MatrixTile) -> tuple[Flat, Flat]:
    """The loops of the sum between panels, and those that panels go along: so that few steps are wasted, all parts
    have as many, and few indices need divisions.
    """

    def cost(cut: tuple[Flat, Flat]) -> tuple[float, int]:
        outer, inner = cut
        steps = _steps(outer, inner, tile)
        if steps % tile.splits and outer.variables:
            return math.inf, 0
        divided = 1 if _is_stepped(problem, inner) else tile.divided
        return max(steps, tile.splits * ceil_div(steps, tile.splits)) * divided, -len(outer.variables)

    return min(_cuts(problem.sums), key=cost)


def with_even_parts(problem: Problem, tile: Tile | MatrixTile) -> Tile | MatrixTile:
    """`tile` with about as many parts of the sum, all of the same number of steps, if there is such a number."""
    outer, inner = cut_sums(problem, replace(tile, splits=1))
    if tile.splits == 1 or not outer.variables:
        return tile
    steps = _steps(outer, inner, tile)
    fitting = [n for n in range(1, steps + 1) if steps % n == 0 and tile.splits / NEAR <= n <= tile.splits * NEAR]
    return replace(tile, splits=min(fitting, key=lambda n: abs(n - tile.splits))) if fitting else tile


def _steps(outer: Flat, inner: Flat, tile: Tile | MatrixTile) -> int:
    return outer.length * ceil_div(inner.length, tile.depth)


def _cuts(variables: Sequence[Var]) -> Iterator[tuple[Flat, Flat]]:
    """Ways to divide the loops: before the last few, or with any by itself along the panels."""
    for first in range(len(variables) + 1):
        yield Flat(tuple(variables[:first])), Flat(tuple(variables[first:]))
    for var in variables[:-1]:
        yield Flat(tuple(v for v in variables if v is not var)), Flat((var,))


def _is_stepped(problem: Problem, inner: Flat) -> bool:
    """Whether a step along `inner` moves the index of each operand by the same everywhere, so that none is divided."""
    for operand in (problem.left, problem.right):
        if operand.plain is None and sum(v.hi > 0 for v in inner.variables) > 1:
            return False
        if operand.plain is not None and any(len(inner.steps(load.address)) > 1 for load in operand.plain):
            return False
    return True
