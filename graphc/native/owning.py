"""Leaves of a call's own: Python numbers that are others each time, and the keys of random draws.

Programs read both when they run, so that one program serves all of them. The text makes them for a call that recorded
the same before; `owned` lays out what it needs to know. Functions give 0 when Python must do it.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.types import TensorType
from graphc.native.code import Function
from graphc.native.objects import Layout, Writer
from graphc.native.tables import WORD, Plan
from graphc.repeats import DRAWN, HEAD_GIVEN, IN_HEAD, IN_OWN, OWN, OWN_HEAD


def owned(leaves: Sequence[tuple[int, TensorType]]) -> tuple[int, object]:
    """Where native code finds what such leaves are, numbers at places of arguments or DRAWN, and what must be kept for
    that.
    """
    plan = Plan()
    words = [sum(1 << place for place, _ in leaves if place != DRAWN), len(leaves)]
    for place, type in leaves:
        plan.keep.append(type)
        words += [place, id(type), plan.take(type.nbytes, type)]
    return plan.own(words).address, plan


def _is_number(layout: Layout) -> Function:
    """Whether an argument is a Python number, which may be read at run time."""
    f = Writer(layout, "is_number", "plan", "given", inlined=True)
    kind = f.load("%given", layout.type)
    kinds = [f.equal(kind, f.shared("%plan", name)) for name in ("float_class", "int_class")]
    f.give(f.number(f.either(*kinds)))
    return f


def _own_leaf(layout: Layout) -> Function:
    """Make the leaf that a record tells of, unless its argument is no number now; the key and the call hold it."""
    f = Writer(layout, "own_leaf", "plan", "recorder", "table", "record")
    plan, none, recorder, binding = "%plan", f.shared("%plan", "none"), layout.recorder, layout.binding
    place, type = (f.load("%record", IN_OWN[name]) for name in ("place", "type"))
    what, source = f.variable(0), f.variable(none)
    with f.when(f.equal(place, DRAWN)):
        f.set(source, f.shared(plan, "generator"))
        f.need(f.equal(f.load("%recorder", recorder["draws"]), none))
        f.need(f.equal(f.call("PyList_Size", f.load("%recorder", recorder["repeated"])), 0))
        f.need(f.equal(f.load("%recorder", recorder["randomness"]), f.shared(plan, "no_name")))
    with f.when(f.differ(place, DRAWN)):
        f.set(what, f.load(f.scaled(f.add("%table", 8 * HEAD_GIVEN), place)))
        with f.when(f.equal(f.call("is_number", plan, f.get(what)), 0)):
            f.give(1)
    buffer = f.call("take", plan, f.load("%record", IN_OWN["take"]))
    with f.when(f.equal(buffer, 0)):
        f.call("PyErr_Clear")  # Python meets the same error
        f.give(0)
    with f.when(f.differ(f.get(what), 0)):
        word = f.call("PyLong_AsVoidPtr", f.load(buffer, layout.buffer["ptr"]))
        with f.when(f.equal(f.call("number_word", plan, f.load(type, layout.form["dtype"]), f.get(what), word), 0)):
            f.call("Py_DecRef", buffer)
            f.give(0)
    made = f.call("bound", plan, "%recorder", f.get(source), none, type, buffer)
    f.call("Py_DecRef", buffer)
    f.need(f.differ(made, 0))
    f.store(f.add(f.load("%table", IN_HEAD["own"]), 1), "%table", IN_HEAD["own"])
    f.proceed(f.call("add_part", "%table", f.load(made, binding["node"]), 0))
    f.give(f.call("kept_alive", "%recorder", made))
    return f


def _own_leaves(layout: Layout) -> Function:
    """Make the leaves that a call has of its own, behind its arguments."""
    f = Writer(layout, "own_leaves", "plan", "recorder", "table", "owned")
    held = f.call("PyList_Size", f.load("%recorder", layout.recorder["held"]))
    f.store(held, "%table", IN_HEAD["held"])
    left = f.variable(f.load("%owned", WORD * OWN_HEAD.index("count")))
    record = f.variable(f.add("%owned", WORD * len(OWN_HEAD)))
    with f.while_above(left, 0):
        done = f.call("own_leaf", "%plan", "%recorder", "%table", f.get(record))
        with f.when(f.equal(done, 0)):
            f.call("disown", "%recorder", "%table")
            f.give(0)
        f.set(record, f.add(f.get(record), WORD * len(OWN)))
        f.set(left, f.add(f.get(left), -1))
    f.give(1)
    return f


def _disown(layout: Layout) -> Function:
    """Let go of the leaves that the call has of its own: Python makes others."""
    f = Writer(layout, "disown", "recorder", "table")
    held, own, first = (
        f.load("%recorder", layout.recorder["held"]),
        *(f.load("%table", IN_HEAD[name]) for name in ("own", "held")),
    )
    with f.when(f.differ(own, 0)):
        f.call("PyList_SetSlice", held, first, f.add(first, own), 0)
    f.give(1)
    return f


def _note_own(layout: Layout) -> Function:
    """Tell a call around this one which leaves it has of its own, as Python does."""
    f = Writer(layout, "note_own", "plan", "recorder", "table", "owned")
    noted = f.load("%recorder", layout.recorder["own"])
    f.need(f.differ(noted, f.shared("%plan", "none")), 1)
    keeps = f.load(f.load("%recorder", layout.recorder["repeats"]), layout.repeats["keeps"])
    at = f.variable(f.minus(f.call("PyList_Size", keeps), f.load("%table", IN_HEAD["own"])))
    left = f.variable(f.load("%owned", WORD * OWN_HEAD.index("count")))
    record = f.variable(f.add("%owned", WORD * len(OWN_HEAD)))
    with f.while_above(left, 0):
        place, what = f.load(f.get(record), IN_OWN["place"]), f.variable(f.shared("%plan", "generator"))
        is_made = f.variable(1)
        with f.when(f.differ(place, DRAWN)):
            f.set(what, f.load(f.scaled(f.add("%table", 8 * HEAD_GIVEN), place)))
            f.set(is_made, f.call("is_number", "%plan", f.get(what)))
        with f.when(f.differ(f.get(is_made), 0)):
            pair = f.tuple_of(f.get(what), f.call("PyList_GetItem", keeps, f.get(at)))
            f.call("PyList_Append", noted, pair)
            f.call("Py_DecRef", pair)
            f.set(at, f.add(f.get(at), 1))
        f.set(record, f.add(f.get(record), WORD * len(OWN)))
        f.set(left, f.add(f.get(left), -1))
    f.give(1)
    return f


def _drawn(layout: Layout) -> Function:
    """Draw the keys among the leaves that a call has of its own; how many there are and 1, or 0 while another thread
    draws.
    """
    f = Writer(layout, "drawn", "plan", "recorder", "table")
    generator, slots = f.shared("%plan", "generator"), layout.generator
    keeps = f.load(f.load("%recorder", layout.recorder["repeats"]), layout.repeats["keeps"])
    left, size = f.variable(f.load("%table", IN_HEAD["own"])), f.call("PyList_Size", keeps)
    count = f.variable(1)
    with f.while_above(left, 0):
        leaf = f.call("PyList_GetItem", keeps, f.minus(size, f.get(left)))
        f.set(left, f.add(f.get(left), -1))
        with f.when(f.equal(f.load(leaf, layout.binding["source"]), generator)):
            entered = f.call("PyObject_CallObject", f.load(generator, slots["enter"]), f.shared("%plan", "at_once"))
            f.call("Py_DecRef", entered)
            with f.when(f.differ(entered, f.shared("%plan", "true"))):
                f.call("undrawn", "%plan", f.get(count))
                f.give(0)
            buffer = f.load(leaf, layout.binding["buffer"])
            word = f.call("PyLong_AsVoidPtr", f.load(buffer, layout.buffer["ptr"]))
            f.store(f.call("PyLong_AsUnsignedLongLongMask", f.load(generator, slots["_seed"])), word)
            f.store(f.call("PyLong_AsUnsignedLongLongMask", f.load(generator, slots["_offset"])), word, WORD)
            f.call("bump", generator, slots["_offset"], 1)
            f.call("Py_DecRef", f.call("PyObject_CallNoArgs", f.load(generator, slots["leave"])))
            f.set(count, f.add(f.get(count), 1))
    f.give(f.get(count))
    return f


def _undrawn(layout: Layout) -> Function:
    """Take back so many draws less one, which nobody saw."""
    f = Writer(layout, "undrawn", "plan", "count")
    with f.when(f.above("%count", 1)):
        f.call("bump", f.shared("%plan", "generator"), layout.generator["_offset"], f.minus("1", "%count"))
    f.give(1)
    return f


def functions(layout: Layout) -> list[Function]:
    """All that makes such leaves."""
    return [make(layout) for make in (_is_number, _own_leaf, _own_leaves, _disown, _note_own, _drawn, _undrawn)]
