"""The text of `__call__` of compiled functions: what is ready is replayed, all else is Python's."""

from __future__ import annotations

from graphc.native.calls import EQUAL
from graphc.native.code import Function
from graphc.native.objects import Layout, Writer

CALL = "graphc_call"
HOME = "graphc_home"  # the word that holds the address of what all plans share


def _call(layout: Layout) -> Function:
    """`PyObject *(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)`: call a compiled function,
    which is a `Ready`.
    """
    f = Writer(layout, CALL, "self", "args", "count", "names", exported=True)
    plan = f.place(HOME)
    held, none, missed = f.load("%self", layout.ready["_ready"]), f.shared(plan, "none"), f.shared(plan, "missed")
    is_ready = f.both(f.differ(held, 0), f.differ(held, none))
    with f.when(f.both(is_ready, f.equal(f.call("PyList_Size", f.shared(plan, "casting")), 0))):
        f.call("Py_IncRef", held)
        expected = f.single(f.call("PyLong_AsVoidPtr", f.call("PyTuple_GetItem", held, 0)), "names")
        total, found = f.variable("%count"), f.variable(missed)
        fits = f.variable(f.number(f.equal(expected, "%names")))
        with f.when(f.both(f.differ(expected, 0), f.differ("%names", 0))):
            f.set(fits, f.call("PyObject_RichCompareBool", "%names", expected, EQUAL))
            f.set(total, f.add("%count", f.call("PyTuple_Size", "%names")))
        with f.when(f.equal(f.get(fits), 1)):
            f.set(found, f.call("graphc_replay", held, "%args", f.get(total)))
        f.call("Py_DecRef", held)
        f.need(f.differ(f.get(fits), -1))
        with f.when(f.differ(f.get(found), missed)):
            f.give(f.get(found))
        with f.when(f.equal(f.get(fits), 1)):
            f.call("Py_DecRef", missed)
    f.give(f.call("in_python", f.shared(plan, "call_in_python"), "%self", "%args", "%count", "%names"))
    return f


def _in_python(layout: Layout) -> Function:
    """Call a Python function with an object before the arguments that native code got."""
    f = Writer(layout, "in_python", "function", "self", "args", "count", "names")
    operands, named, place = f.call("PyTuple_New", f.add("%count", 1)), f.variable(0), f.variable("%count")
    f.need(f.differ(operands, 0))
    f.call("Py_IncRef", "%self")
    f.call("PyTuple_SetItem", operands, 0, "%self")
    with f.while_above(place, 0):
        value = f.load(f.scaled("%args", f.add(f.get(place), -1)))
        f.call("Py_IncRef", value)
        f.call("PyTuple_SetItem", operands, f.get(place), value)
        f.set(place, f.add(f.get(place), -1))
    code = f.variable(0)
    with f.when(f.differ("%names", 0)):
        f.set(named, f.call("PyDict_New"))
        f.set(code, f.number(f.equal(f.get(named), 0)))
        size = f.call("PyTuple_Size", "%names")
        left = f.variable(size)
        with f.while_above(left, 0):
            at = f.minus(size, f.get(left))
            f.set(left, f.add(f.get(left), -1))
            with f.when(f.equal(f.get(code), 0)):
                value = f.load(f.scaled("%args", f.add("%count", at)))
                f.set(code, f.call("PyDict_SetItem", f.get(named), f.call("PyTuple_GetItem", "%names", at), value))
    result = f.variable(0)
    with f.when(f.equal(f.get(code), 0)):
        f.set(result, f.call("PyObject_Call", "%function", operands, f.get(named)))
    f.call("Py_DecRef", f.get(named))
    f.call("Py_DecRef", operands)
    f.give(f.get(result))
    return f


def functions(layout: Layout) -> list[Function]:
    """CALL, and what hands a call on to Python."""
    return [_in_python(layout), _call(layout)]
