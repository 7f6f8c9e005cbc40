"""The text of a run of a program for all sizes, with operands and results as they are for some: what plans of native
flushes call in place of a program. Operands are copied to where there is room, a program runs, and its results are cut
out.
"""

from __future__ import annotations

from graphc.native.code import Function
from graphc.native.objects import Layout, Writer

RUN = "graphc_run_with_room"
# What is run: the program and where its addresses stand; operands and results, a record each; sizes, those of the run
# before, where the program reads them, and how many there are; room for the dimensions of a block.
ROOMY = (
    *("entry", "runtime", "addresses", "operands", "operands_count", "results", "results_count"),
    *("sizes", "last", "read", "sizes_count", "dims"),
)
# The room of an operand or a result (0: there is none), its bytes; dimensions, extents, strides where it is read and
# where it is written, bytes of an element; where its address stands, and where the program takes it from.
PART = ("room", "nbytes", "rank", "extents", "from", "to", "item", "place", "slot")

R = {name: 8 * place for place, name in enumerate(ROOMY)}
IN_PART = {name: 8 * place for place, name in enumerate(PART)}


def _copied(f: Writer, part: str, source: str, target: str) -> None:
    words = [f.load(part, IN_PART[name]) for name in ("rank", "extents", "from", "to", "item")]
    f.call("copy_block", f.load("%roomy", R["dims"]), *words, source, target)


def _run(layout: Layout) -> Function:
    """A program's entry: `addresses` has those of operands and results, `roomy` stands in place of the runtime."""
    f = Writer(layout, RUN, "addresses", "roomy", exported=True)
    sizes, last, read = (f.load("%roomy", R[name]) for name in ("sizes", "last", "read"))
    left, shrinks = f.variable(f.load("%roomy", R["sizes_count"])), f.variable(0)
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        size, before = f.load(f.scaled(sizes, f.get(left))), f.scaled(last, f.get(left))
        with f.when(f.above(f.load(before), size)):
            f.set(shrinks, 1)
        f.store(size, before)
        f.store(size, f.add(read, f.times(f.get(left), "4")), bits=32)
    with f.each("%roomy", (R["operands"], R["operands_count"]), len(PART)) as part:
        room, given = f.load(part, IN_PART["room"]), f.load(f.add("%addresses", f.load(part, IN_PART["place"])))
        with f.when(f.equal(room, 0)):
            f.store(given, f.load(part, IN_PART["slot"]))
        with f.when(f.differ(room, 0)):
            with f.when(f.equal(f.get(shrinks), 1)):
                f.clear(room, f.load(part, IN_PART["nbytes"]))
            _copied(f, part, given, room)
    results = R["results"], R["results_count"]
    with f.each("%roomy", results, len(PART)) as part, f.when(f.equal(f.load(part, IN_PART["room"]), 0)):
        f.store(f.load(f.add("%addresses", f.load(part, IN_PART["place"]))), f.load(part, IN_PART["slot"]))
    f.run_address(*[f.load("%roomy", R[name]) for name in ("entry", "addresses", "runtime")])
    with f.each("%roomy", results, len(PART)) as part:
        room = f.load(part, IN_PART["room"])
        with f.when(f.differ(room, 0)):
            _copied(f, part, room, f.load(f.add("%addresses", f.load(part, IN_PART["place"]))))
    f.give(1)
    return f


def functions(layout: Layout) -> list[Function]:
    """All that runs programs for all sizes."""
    return [_run(layout)]
