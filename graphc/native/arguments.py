"""Native code that reads the arguments of a call that may be recorded again, for `graphc.native.recording`."""

from __future__ import annotations

from graphc.native.code import Function
from graphc.native.objects import Layout, Writer
from graphc.repeats import ARGUMENT, ARGUMENTS, FLOWS, HEAD, HEAD_KEY, KEY, ORDER

_K = {name: 8 * place for place, name in enumerate(KEY)}
_WANTED = 8 * HEAD.index("wanted")
_BLOCKED = 1  # in place of a class: a tensor whose node lets no gradient through


def _alive(layout: Layout) -> Function:
    """What a weak reference, or None, refers to, borrowed; 0 if that is nothing."""
    f = Writer(layout, "alive", "plan", "reference")
    none = f.shared("%plan", "none")
    f.need(f.both(f.differ("%reference", none), f.differ("%reference", 0)))
    found = f.call("PyObject_CallNoArgs", "%reference")
    f.need(f.differ(found, 0))
    f.call("Py_DecRef", found)
    f.need(f.differ(found, none))
    f.give(found)
    return f


def _wants(layout: Layout) -> Function:
    """Whether an operand is a tensor that requires gradients."""
    f = Writer(layout, "wants", "plan", "given")
    f.need(f.is_tensor("%plan", "%given"))
    f.give(f.requires("%plan", f.follow("%given", layout.tensor["_lineage"])))
    return f


def _leaf_of(layout: Layout) -> Function:
    """The leaf of realised memory, as `Recorder.leaf` gives it when it is one already."""
    f = Writer(layout, "leaf_of", "plan", "recorder", "storage")
    none, slots, binding = f.shared("%plan", "none"), layout.storage, layout.binding
    for name in ("export", "external"):
        f.need(f.equal(f.load("%storage", slots[name]), none))
    found = f.call("alive", "%plan", f.load("%storage", slots["slot"]))
    f.need(f.differ(found, 0))
    f.need(f.equal(f.load(found, binding["recorder"]), "%recorder"))
    with f.when(f.equal(f.load("%storage", slots["kept"]), found)):
        counter = f.load(found, binding["counter"])
        with f.when(f.differ(counter, none)):
            now = f.call("PyLong_AsLongLong", f.call("PyList_GetItem", counter, 0))
            f.need(f.equal(now, f.call("PyLong_AsLongLong", f.load(found, binding["version"]))))
        f.need(f.equal(f.call("PyList_Append", f.load("%recorder", layout.recorder["held"]), found), 0))
        f.put(found, binding["source"], "%storage")
        f.put("%storage", slots["kept"], none)
    f.give(found)
    return f


def _variable_of(layout: Layout) -> Function:
    """The value of a leaf that collects gradients, as `core._variable` gives it when nothing was written."""
    f = Writer(layout, "variable_of", "plan", "storage", "lineage")
    none, slots, lineage = f.shared("%plan", "none"), layout.storage, layout.lineage
    for name in ("export", "external"):
        f.need(f.equal(f.load("%storage", slots[name]), none))
    found = f.call("alive", "%plan", f.load("%lineage", lineage["variable"]))
    f.need(f.differ(found, 0))
    versions = (f.load("%lineage", lineage["version"]), f.load("%storage", slots["version"]))
    f.need(f.equal(*[f.call("PyLong_AsLongLong", version) for version in versions]))
    with f.when(f.equal(f.load(found, layout.value["leaf"]), none)):
        f.put(found, layout.value["leaf"], f.load("%lineage", lineage["owner"]))
    f.give(found)
    return f


def _kept_alive(layout: Layout) -> Function:
    """Hold what keeps a node valid until the call is done."""
    f = Writer(layout, "kept_alive", "recorder", "keep")
    keeps = f.load(f.load("%recorder", layout.recorder["repeats"]), layout.repeats["keeps"])
    f.give(f.number(f.equal(f.call("PyList_Append", keeps, "%keep"), 0)))
    return f


def _operand(layout: Layout) -> Function:
    """The node of a tensor, and what keeps it valid."""
    f = Writer(layout, "operand", "plan", "recorder", "table", "function", "flows", "given", "slot")
    plan, none, tensor, slots = "%plan", f.shared("%plan", "none"), layout.tensor, layout.storage
    f.need(f.equal(f.load("%given", tensor["_chain"]), f.shared(plan, "empty")))
    f.need(f.equal(f.load("%given", tensor["_wrapped"]), f.shared(plan, "false")))
    storage, lineage = f.follow("%given", tensor["_storage"]), f.follow("%given", tensor["_lineage"])
    value, history = f.load(storage, slots["value"]), f.load(lineage, layout.lineage["hist"])
    collects = f.equal(f.load(lineage, layout.lineage["requires_grad"]), f.shared(plan, "true"))
    keep, node = f.variable(0), f.variable(0)
    with f.unless(f.both(f.differ(value, none), f.differ(f.load(storage, slots["recorder"]), "%recorder"))):
        with f.when(f.equal("%flows", 0)):
            with f.when(f.differ(value, none)):
                f.set(keep, value)
            with f.when(f.equal(value, none)):
                f.set(keep, f.call("leaf_of", plan, "%recorder", storage))
        with f.when(f.differ("%flows", 0)):
            with f.when(f.differ(history, none)):
                versions = [f.load(lineage, layout.lineage["version"]), f.load(storage, slots["version"])]
                same = f.both(*[f.equal(version, f.shared(plan, "zero")) for version in versions])
                with f.when(f.both(same, f.equal(value, history))):
                    f.set(keep, value)
            with f.when(f.both(f.equal(history, none), collects)):
                f.set(keep, f.call("variable_of", plan, storage, lineage))
            with f.unless(f.either(f.differ(history, none), collects)):
                with f.when(f.differ(value, none)):
                    f.set(keep, value)
                    f.store(str(_BLOCKED), "%slot", 8)
                with f.when(f.equal(value, none)):
                    f.set(keep, f.call("leaf_of", plan, "%recorder", storage))
    found = f.get(keep)
    with f.when(f.differ(found, 0)):
        is_value = f.equal(f.load(found, layout.type), f.shared(plan, "value_class"))
        with f.when(is_value):
            f.set(node, f.load(found, layout.value["node"]))
        with f.unless(is_value):
            f.set(node, f.load(found, layout.binding["node"]))
        f.store(f.get(node), "%slot")
        f.give(f.call("kept_alive", "%recorder", found))
    # It is read for the first time, which gives it a number: that must happen in the order in which Python does it.
    with f.when(f.equal(f.call("PyDict_GetItemWithError", f.shared(plan, "orders"), "%function"), 0)):
        f.store(str(ORDER), "%table", _WANTED)
        f.give(0)
    operands = f.call("PyTuple_New", 3)
    f.need(f.differ(operands, 0))
    flows = f.variable(f.shared(plan, "false"))
    with f.when(f.differ("%flows", 0)):
        f.set(flows, f.shared(plan, "true"))
    for place, operand in enumerate(("%recorder", "%given", f.get(flows))):
        f.call("Py_IncRef", operand)
        f.call("PyTuple_SetItem", operands, place, operand)
    pair = f.call("PyObject_CallObject", f.shared(plan, "read_operand"), operands)
    f.call("Py_DecRef", operands)
    with f.when(f.equal(pair, 0)):
        f.call("PyErr_Clear")  # Python meets the same error
        f.give(0)
    f.store(f.call("PyTuple_GetItem", pair, 0), "%slot")  # the builder keeps it
    done = f.call("kept_alive", "%recorder", f.call("PyTuple_GetItem", pair, 1))
    f.call("Py_DecRef", pair)
    f.give(done)
    return f


def _argument(layout: Layout) -> Function:
    """Add to the key what an argument is: a node, or the bits of a number, or an object."""
    f = Writer(layout, "argument", "plan", "recorder", "table", "given")
    plan, key = "%plan", f.add("%table", 8 * HEAD_KEY)
    count = f.load(key, _K["count"])
    f.need(f.above(str(ARGUMENTS), count))
    f.store(f.add(count, 1), key, _K["count"])
    slot = f.add(f.add(key, 8 * len(KEY)), f.times(count, str(8 * len(ARGUMENT))))
    kind = f.load("%given", layout.type)
    f.store("%given", slot)
    f.store(kind, slot, 8)
    with f.when(f.equal(kind, f.shared(plan, "float_class"))):
        f.store_double(f.call("PyFloat_AsDouble", "%given"), slot)
        f.give(1)
    with f.when(f.equal(kind, f.shared(plan, "int_class"))):
        value = f.call("PyLong_AsLongLong", "%given")
        with f.when(f.both(f.equal(value, -1), f.differ(f.call("PyErr_Occurred"), 0))):
            f.call("PyErr_Clear")
            f.give(0)
        f.store(value, slot)
        f.give(1)
    for name in ("bool_class", "none_class", "str_class", "dtype_class"):
        with f.when(f.equal(kind, f.shared(plan, name))):
            f.give(1)
    with f.when(f.either(f.equal(kind, f.shared(plan, "tuple_class")), f.equal(kind, f.shared(plan, "size_class")))):
        # Of tuples the elements count, which must be integers.
        size = f.call("PyTuple_Size", "%given")
        f.store(size, slot)
        left = f.variable(size)
        with f.while_above(left, 0):
            element = f.call("PyTuple_GetItem", "%given", f.minus(size, f.get(left)))
            f.need(f.equal(f.load(element, layout.type), f.shared(plan, "int_class")))
            f.proceed(f.call("argument", plan, "%recorder", "%table", element))
            f.set(left, f.add(f.get(left), -1))
        f.give(1)
    f.need(f.is_tensor(plan, "%given"))
    f.store("0", slot, 8)
    flows = f.masked(f.load(key, _K["grad"]), FLOWS)
    f.give(f.call("operand", plan, "%recorder", "%table", f.load(key, _K["function"]), flows, "%given", slot))
    return f


def functions(layout: Layout) -> list[Function]:
    """What is done to arguments."""
    makers = (_alive, _wants, _leaf_of, _variable_of, _kept_alive, _operand, _argument)
    return [make(layout) for make in makers]
