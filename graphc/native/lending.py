"""The text of `graphc.lending`: whether a program may overwrite the leaves that its plan says it does.

Nothing here runs Python, nor does what follows until the program has run and its results are where they belong.
"""

from __future__ import annotations

from graphc.native.code import Function
from graphc.native.objects import Layout, Writer
from graphc.native.tables import TABLES, T


def _references(layout: Layout) -> Function:
    """How many references there are to an object."""
    f = Writer(layout, "references", "value", inlined=True)
    f.give(f.load("%value", layout.references, bits=32))
    return f


def _last_leaf(layout: Layout) -> Function:
    """The leaf of a node, borrowed, if the recorder, the plan and one storage hold its memory, which was written or is
    gone.
    """
    f = Writer(layout, "last_leaf", "plan", "recorder", "node")
    plan, none, binding, slots = "%plan", f.shared("%plan", "none"), layout.binding, layout.storage
    held = f.load("%recorder", layout.recorder["held"])
    left, found = f.variable(f.call("PyList_Size", held)), f.variable(0)
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        leaf = f.call("PyList_GetItem", held, f.get(left))
        with f.when(f.equal(f.load(leaf, binding["node"]), "%node")):
            f.set(found, leaf)
    leaf = f.get(found)
    f.need(f.differ(leaf, 0))
    owner, buffer = f.load(leaf, binding["source"]), f.load(leaf, binding["buffer"])
    f.need(f.equal(f.load(owner, layout.type), f.shared(plan, "storage_class")))
    f.need(f.equal(f.load(owner, slots["buffer"]), buffer))
    f.need(f.differ(f.load(buffer, layout.buffer["_memory"]), none))
    for name in ("external", "export"):
        f.need(f.equal(f.load(owner, slots[name]), none))
    bound = f.call("PyDict_GetItemWithError", f.load("%recorder", layout.recorder["bound"]), "%node")
    f.need(f.equal(bound, buffer))
    f.need(f.equal(f.call("references", buffer), 4))
    own = f.equal(f.load(owner, slots["recorder"]), "%recorder")
    written = f.both(own, f.differ(f.load(owner, slots["value"]), none))
    f.need(f.either(written, f.equal(f.call("references", owner), 1)))
    f.give(leaf)
    return f


def _held_known(layout: Layout) -> Function:
    """Count a reference to a value, or to a leaf that is lent, at the address `known`. A value that is new goes to
    `found` and `waiting`.
    """
    f = Writer(layout, "held_known", "plan", "keep", "found", "waiting", "known")
    is_new = f.equal(f.call("PyDict_GetItemWithError", "%found", "%keep"), 0)
    with f.when(is_new):
        with f.unless(f.equal(f.load("%keep", layout.type), f.shared("%plan", "value_class"))):
            f.give(1)  # a leaf that is only read
        f.need(f.equal(f.call("PyDict_SetItem", "%found", "%keep", "%keep"), 0), -1)
        f.need(f.equal(f.call("PyList_Append", "%waiting", "%keep"), 0), -1)
    f.store(f.add(f.load("%known"), 1), "%known")
    f.give(1)
    return f


def _are_all(layout: Layout) -> Function:
    """`graphc.lending._are_all`, for the leaves that the plan lends. `found` and `waiting` are empty."""
    f = Writer(layout, "are_all", "plan", "recorder", "values", "found", "waiting")
    plan, value, size = "%plan", layout.value, f.call("PyList_Size", "%values")
    checks = f.load("%recorder", layout.recorder["checks"])
    known, there = f.variable(size), f.variable(0)  # references: known ones, of `values` to begin with, and all
    held = ("%found", "%waiting", f.address(known))
    with f.each(plan, T["lent"], TABLES["lent"]) as record:
        leaf = f.call("last_leaf", plan, "%recorder", f.load(record))
        f.need(f.differ(leaf, 0))
        f.need(f.equal(f.call("PyDict_SetItem", "%found", leaf, leaf), 0), -1)
        f.set(known, f.add(f.get(known), 3))  # the recorder's, and two of `found`
        f.set(there, f.add(f.get(there), f.call("references", leaf)))
    left = f.variable(size)
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        f.proceed(f.call("held_known", plan, f.call("PyList_GetItem", "%values", f.get(left)), *held))
    f.set(left, f.call("PyList_Size", checks))
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        keep = f.call("PyTuple_GetItem", f.call("PyList_GetItem", checks, f.get(left)), 1)
        f.proceed(f.call("held_known", plan, keep, *held))
    count = f.variable(f.call("PyList_Size", "%waiting"))
    with f.while_above(count, 0):
        last = f.add(f.get(count), -1)
        keep = f.call("PyList_GetItem", "%waiting", last)  # `found` has it too
        f.call("PyList_SetSlice", "%waiting", last, f.get(count), 0)
        f.set(known, f.add(f.get(known), 2))
        f.set(there, f.add(f.get(there), f.call("references", keep)))
        f.need(f.equal(f.load(keep, value["grad"]), f.shared(plan, "false")))
        f.need(f.equal(f.load(keep, value["gate"]), f.shared(plan, "none")))
        parents = f.load(keep, value["parents"])
        f.set(left, f.call("PyTuple_Size", parents))
        with f.when(f.above(f.get(left), 0)):
            f.need(f.equal(f.call("references", parents), 1))
        with f.while_above(left, 0):
            f.set(left, f.add(f.get(left), -1))
            f.proceed(f.call("held_known", plan, f.call("PyTuple_GetItem", parents, f.get(left)), *held))
        f.set(count, f.call("PyList_Size", "%waiting"))
    f.give(f.number(f.equal(f.get(known), f.get(there))))
    return f


def _lends(layout: Layout) -> Function:
    """Whether a plan may run whose leaves and values are where they belong: most lend nothing."""
    f = Writer(layout, "lends", "plan", "recorder", "values")
    f.need(f.above(f.load("%plan", T["lent"][1]), 0), 1)
    found, waiting = f.call("PyDict_New"), f.call("PyList_New", 0)
    f.own("%plan", found)
    f.own("%plan", waiting)
    f.need(f.both(f.differ(found, 0), f.differ(waiting, 0)), -1)
    f.give(f.call("are_all", "%plan", "%recorder", "%values", found, waiting))
    return f


def functions(layout: Layout) -> list[Function]:
    """What asks whether memory may be overwritten."""
    return [make(layout) for make in (_references, _last_leaf, _held_known, _are_all, _lends)]
