"""The text of finalizers of what a recorded operation makes and lets go: some run for each."""

from __future__ import annotations

from graphc.native.code import Function
from graphc.native.entering import HOME
from graphc.native.objects import Layout, Writer

BINDING, BUFFER = "graphc_end_binding", "graphc_end_buffer"
FINALIZERS = BINDING, BUFFER


def _push_number(layout: Layout) -> Function:
    """`heapq.heappush` of an integer."""
    f = Writer(layout, "push_number", "heap", "number")
    place = f.variable(f.call("PyList_Size", "%heap"))
    f.need(f.equal(f.call("PyList_Append", "%heap", "%number"), 0))
    value = f.call("PyLong_AsLongLong", "%number")
    with f.while_above(place, 0):
        above = f.shifted(f.add(f.get(place), -1), 1)
        other = f.call("PyList_GetItem", "%heap", above)
        with f.unless(f.above(f.call("PyLong_AsLongLong", other), value)):
            f.give(1)
        for at, held in ((f.get(place), other), (above, "%number")):
            f.call("Py_IncRef", held)
            f.call("PyList_SetItem", "%heap", at, held)
        f.set(place, above)
    f.give(1)
    return f


def _unbind(layout: Layout) -> Function:
    """`Binding.__del__`; of one that was not filled in, nothing is there."""
    f = Writer(layout, "unbind", "binding")
    recorder, node, index = (f.follow("%binding", layout.binding[name]) for name in ("recorder", "node", "index"))
    bound = f.follow(recorder, layout.recorder["bound"])
    with f.when(f.differ(f.call("PyDict_GetItemWithError", bound, node), 0)):
        f.call("PyDict_DelItem", bound, node)
    with f.when(f.above(f.call("PyLong_AsLongLong", index), -1)):
        f.call("push_number", f.follow(recorder, layout.recorder["free"]), index)
    f.give(1)
    return f


def _give_back(layout: Layout) -> Function:
    """`Buffer.__del__`."""
    f = Writer(layout, "give_back", "buffer")
    plan, memory = f.place(HOME), f.follow("%buffer", layout.buffer["_memory"])
    with f.when(f.differ(memory, f.shared(plan, "none"))):
        f.call("PyList_Append", f.shared(plan, "returned"), memory)
    f.give(1)
    return f


def _finalizer(layout: Layout, symbol: str, end: str) -> Function:
    """`PyObject *(PyObject *self, PyObject *unused)`: `__del__`."""
    f = Writer(layout, symbol, "self", "unused", exported=True)
    f.call(end, "%self")
    with f.when(f.differ(f.call("PyErr_Occurred"), 0)):
        f.give(0)
    none = f.shared(f.place(HOME), "none")
    f.call("Py_IncRef", none)
    f.give(none)
    return f


def functions(layout: Layout) -> list[Function]:
    """The finalizers, and what they need."""
    makers = (_push_number, _unbind, _give_back)
    ends = ((BINDING, "unbind"), (BUFFER, "give_back"))
    return [*(make(layout) for make in makers), *(_finalizer(layout, *end) for end in ends)]
