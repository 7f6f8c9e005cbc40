"""The second kernel of a contraction whose sums are made in parts by several blocks: adds the parts in their order, and
computes what the group wants of them. Where there are many, several threads share those of one sum.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.codegen.gpu_contraction_block import Epilogue, parameters, sum_place
from graphc.codegen.gpu_contraction_panels import within
from graphc.codegen.gpu_contraction_problem import Flat, Problem
from graphc.codegen.kernel import INDEX, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.values import Values
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node
from graphc.ir.schedule import Group, Scratch
from graphc.ir.types import i64

THREADS = 256
UNROLLED = 16  # parts that a thread adds without a loop
SHARES = 32  # threads that share the parts of one sum, at most


def lower_sums(
    group: Group, problem: Problem, name: str, merged: Mapping[Node, Node], memory: Scratch, parts: int
) -> Lowered:
    """The kernel that adds `parts` parts of each sum in `memory` and finishes the group: one thread for each point."""
    e = ScopedEmitter()
    params = _finishing(group, problem, merged)
    values = Values(e, problem.nest.inside, params)
    values.lane_count = THREADS
    sums = Param(f"p{len(set(params.values()))}", memory.type.dtype, memory.type.size, "in")
    index = e.bind(Value(INDEX, "g"))
    every = Flat(problem.nest.axes)
    shares = min(SHARES, 1 << max(0, (parts // UNROLLED).bit_length() - 1))
    width = THREADS // shares  # points of a block
    block = Var("block", -(-every.length // width) - 1)
    lane = e.lanes(i64, THREADS)
    mine, share, place = Var("point", width - 1), Var("share", shares - 1), Var("thread", THREADS - 1)
    values.env.update({block: index, mine: e.op("urem", lane, width), share: e.op("udiv", lane, width), place: lane})
    flat = Ix.of(block, width) + Ix.of(mine)
    exists = e.op("lt", values.index(flat), every.length) if every.length % width else None
    point = every.points(within(flat, every.length, 1))
    own: tuple[Param, ...] = ()

    def load(memory: Param, at: Ix) -> Value:
        start, stride, offsets = values.address(at)
        return e.load(VType(memory.dtype, THREADS), memory, start, stride, offsets, None)

    def part(number: Ix, p: int) -> Value:
        """A part of a sum: zero past the last one."""
        value = load(sums, sum_place(problem, point, within(number, parts, 1), p))
        if number.hi < parts:
            return value
        return e.op("select", e.splat(e.op("lt", values.index(number), parts), THREADS), value, 0)

    totals = []
    rounds = -(-parts // shares)
    for p in range(problem.points):
        total = part(Ix.of(share), p)
        if rounds <= UNROLLED:
            for k in range(1, rounds):
                total = e.op("add", total, part(Ix.of(share) + k * shares, p))
        else:
            with e.loop("part", 1, rounds, 1, (total,)) as loop:
                var = Var("part", rounds - 1)
                values.env[var] = loop.var
                loop.yields = (e.op("add", loop.phis[0], part(Ix.of(share) + Ix.of(var, shares), p)),)
            (total,) = loop.results
        totals.append(total)
    if shares > 1:
        own = (Param("shares", sums.dtype, len(totals) * THREADS, "own"),)
        for p, total in enumerate(totals):
            start, stride, offsets = values.address(Ix.of(place) + p * THREADS)
            e.store(own[0], start, total, stride, offsets, None)
        e.pinned = True  # what was stored just now
        for p in range(len(totals)):
            each = [load(own[0], Ix.of(mine) + (p * THREADS + k * width)) for k in range(shares)]
            totals[p] = each[0]
            for value in each[1:]:
                totals[p] = e.op("add", totals[p], value)
        e.pinned = False
        first = e.op("eq", values.env[share], 0)
        exists = first if exists is None else e.op("and", exists, first)
    Epilogue(group, problem, values, params).finish([(point, totals, exists)])
    seen: dict[Param, Node | Scratch] = {}
    for node, param in params.items():
        seen.setdefault(param, node)
    seen[sums] = memory
    flops = every.length * problem.points * parts
    moved = sum(b.type.nbytes for b in seen.values())
    kernel = Kernel(name, tuple(seen), block.hi + 1, index, tuple(e.body), flops, moved, own, THREADS)
    return Lowered(kernel, tuple(seen.values()))


def _finishing(group: Group, problem: Problem, merged: Mapping[Node, Node]) -> dict[Node, Param]:
    """Parameters of what is read and written after the sum."""
    used = dict.fromkeys(a.buffer for s in problem.nest.sites if s.root is not None for a in s.accesses)
    every = parameters(group, problem.nest, merged, stores=True)
    names: dict[Param, Param] = {}
    for node in every:
        if node in used:
            p = every[node]
            names.setdefault(p, Param(f"p{len(names)}", p.dtype, p.size, p.mode))
    return {node: names[p] for node, p in every.items() if node in used}
