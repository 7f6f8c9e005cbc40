"""The second kernel of a contraction whose sums are made in parts by several blocks: adds the parts in their order, and
computes what the group wants of them.
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

THREADS = 128
UNROLLED = 16  # parts that are added without a loop


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
    block, thread = Var("block", -(-every.length // THREADS) - 1), Var("thread", THREADS - 1)
    values.env.update({block: index, thread: e.lanes(i64, THREADS)})
    flat = Ix.of(block, THREADS) + Ix.of(thread)
    exists = e.op("lt", values.index(flat), every.length) if every.length % THREADS else None
    point = every.points(within(flat, every.length, 1))

    def part(number: Ix, p: int) -> Value:
        place, stride, offsets = values.address(sum_place(problem, point, number, p))
        return e.load(VType(sums.dtype, THREADS), sums, place, stride, offsets, None)

    totals = []
    for p in range(problem.points):
        total = part(Ix(), p)
        if parts <= UNROLLED:
            for k in range(1, parts):
                total = e.op("add", total, part(Ix(k), p))
        else:
            with e.loop("part", 1, parts, 1, (total,)) as loop:
                var = Var("part", parts - 1)
                values.env[var] = loop.var
                loop.yields = (e.op("add", loop.phis[0], part(Ix.of(var), p)),)
            (total,) = loop.results
        totals.append(total)
    Epilogue(group, problem, values, params).finish([(point, totals, exists)])
    seen: dict[Param, Node | Scratch] = {}
    for node, param in params.items():
        seen.setdefault(param, node)
    seen[sums] = memory
    flops = every.length * problem.points * parts
    moved = sum(b.type.nbytes for b in seen.values())
    kernel = Kernel(name, tuple(seen), block.hi + 1, index, tuple(e.body), flops, moved, threads=THREADS)
    return Lowered(kernel, tuple(seen.values()))


def _finishing(group: Group, problem: Problem, merged: Mapping[Node, Node]) -> dict[Node, Param]:
    """Parameters of what is read and written after the sum."""
    used = dict.fromkeys(a.buffer for s in problem.nest.sites if s.root is not None for a in s.accesses)
    every = parameters(group, problem, merged, stores=True)
    names: dict[Param, Param] = {}
    for node in every:
        if node in used:
            p = every[node]
            names.setdefault(p, Param(f"p{len(names)}", p.dtype, p.size, p.mode))
    return {node: names[p] for node, p in every.items() if node in used}
