"""The text of reading memory for the first time: new leaves, also of parts, such as `x[t]` in a loop over t.

Functions give 0 when Python must do it.
"""

from __future__ import annotations

from graphc.leaves import NEAR_READS, NEAR_TURNS
from graphc.native.code import Function
from graphc.native.objects import Layout, Writer


def _row(layout: Layout) -> Function:
    """How many elements lie one after the other that a view shows along all dimensions from `first` on; 0 if they do
    not.
    """
    f = Writer(layout, "row", "shape", "strides", "first")
    left, step = f.variable(f.call("PyTuple_Size", "%shape")), f.variable(1)
    with f.while_above(left, "%first"):
        f.set(left, f.add(f.get(left), -1))
        extent, stride = (
            f.call("PyLong_AsLongLong", f.call("PyTuple_GetItem", held, f.get(left))) for held in ("%shape", "%strides")
        )
        with f.when(f.differ(extent, 1)):
            f.need(f.equal(stride, f.get(step)))
            f.set(step, f.times(f.get(step), extent))
    f.give(f.get(step))
    return f


def _part_buffer(layout: Layout) -> Function:
    """A buffer over a part in one piece, or of copied rows where Python copied such a view before; a new reference."""
    f = Writer(layout, "part_buffer", "plan", "slots", "buffer", "given")
    plan, tensor, form, buffers = "%plan", layout.tensor, layout.form, layout.buffer
    type, strides = f.load("%given", tensor["_type"]), f.load("%given", tensor["_strides"])
    shape, nbytes = f.load(type, form["shape"]), f.load(type, form["nbytes"])
    bytes, size = f.call("PyLong_AsLongLong", nbytes), f.call("PyLong_AsLongLong", f.load(type, form["size"]))
    f.need(f.above(size, 0))
    width = f.variable(1)  # of an element
    for wide in (2, 4, 8):
        with f.when(f.equal(bytes, f.times(size, str(wide)))):
            f.set(width, wide)
    item = f.get(width)
    offset = f.times(f.call("PyLong_AsLongLong", f.load("%given", tensor["_offset"])), item)
    begin = f.add(f.call("PyLong_AsVoidPtr", f.load("%buffer", buffers["ptr"])), offset)
    with f.when(f.differ(f.call("row", shape, strides, 0), 0)):
        made = f.call("clone", f.shared(plan, "buffer_like"))
        f.need(f.differ(made, 0))
        f.put(made, buffers["_array"], "%buffer")
        f.put(made, buffers["nbytes"], nbytes)
        f.replace(made, buffers["ptr"], f.call("PyLong_FromLongLong", begin))
        f.give(made)
    f.need(f.differ("%slots", f.shared(plan, "none")))
    key = f.tuple_of(type, strides)
    marked = f.call("PyDict_GetItemWithError", "%slots", key)
    f.call("Py_DecRef", key)
    f.need(f.differ(marked, 0))
    row = f.call("row", shape, strides, 1)
    f.need(f.differ(row, 0))
    step, rows = (f.call("PyLong_AsLongLong", f.call("PyTuple_GetItem", held, 0)) for held in (strides, shape))
    made = f.call("take_bytes", plan, nbytes)
    with f.when(f.equal(made, 0)):
        f.call("PyErr_Clear")  # Python meets the same error
        f.give(0)
    target, left, source = (
        f.variable(f.call("PyLong_AsVoidPtr", f.load(made, buffers["ptr"]))),
        f.variable(rows),
        f.variable(begin),
    )
    length, apart = f.times(row, item), f.times(step, item)
    for width in (4, 8):
        with f.when(f.both(f.equal(length, width), f.equal(item, width))), f.while_above(left, 0):
            f.store(f.load(f.get(source), bits=8 * width), f.get(target), bits=8 * width)
            f.set(source, f.add(f.get(source), apart))
            f.set(target, f.add(f.get(target), width))
            f.set(left, f.add(f.get(left), -1))
    with f.while_above(left, 0):
        f.copy(f.get(source), f.get(target), length)
        f.set(source, f.add(f.get(source), apart))
        f.set(target, f.add(f.get(target), length))
        f.set(left, f.add(f.get(left), -1))
    f.give(made)
    return f


def _part_leaf(layout: Layout) -> Function:
    """`Recorder.part` for a view of realised memory that nobody else sees, borrowed: the recorder holds it."""
    f = Writer(layout, "part_leaf", "plan", "recorder", "given")
    plan, none, tensor, storages = "%plan", f.shared("%plan", "none"), layout.tensor, layout.storage
    storage, binding = f.follow("%given", tensor["_storage"]), layout.binding
    for name in ("value", "export", "external"):
        f.need(f.equal(f.load(storage, storages[name]), none))
    type, offset, strides = (f.load("%given", tensor[name]) for name in ("_type", "_offset", "_strides"))
    shown, whole = (
        f.call("PyLong_AsLongLong", f.load(each, layout.form["nbytes"]))
        for each in (type, f.load(storage, storages["type"]))
    )
    f.need(f.above(whole, shown))
    buffer, slots = f.follow(storage, storages["buffer"]), f.variable(f.load(storage, storages["slots"]))
    f.need(f.equal(f.load(buffer, layout.type), f.shared(plan, "buffer_class")))
    key = f.tuple_of(offset, type, strides)
    found = f.variable(0)
    with f.when(f.differ(f.get(slots), none)):
        held = f.call("PyDict_GetItemWithError", f.get(slots), key)
        with f.when(f.differ(held, 0)):
            f.set(found, f.call("alive", plan, held))
    with f.when(f.differ(f.get(found), 0)):
        f.call("Py_DecRef", key)
        f.need(f.equal(f.load(f.get(found), binding["recorder"]), "%recorder"))
        f.give(f.get(found))
    f.set(found, f.call("new_part", plan, "%recorder", storage, "%given", key))
    f.call("Py_DecRef", key)
    f.give(f.get(found))
    return f


def _new_part(layout: Layout) -> Function:
    """A leaf under the smallest free number, which was the number of such a leaf before."""
    f = Writer(layout, "new_part", "plan", "recorder", "storage", "given", "key")
    storages = layout.storage
    memory = (f.load("%storage", storages[name]) for name in ("slots", "buffer"))
    # First, as taking memory may run Python, and other threads: they give numbers back.
    buffer = f.call("part_buffer", "%plan", *memory, "%given")
    f.need(f.differ(buffer, 0))
    counter, type = f.load("%storage", storages["counter"]), f.load("%given", layout.tensor["_type"])
    made = f.call("bound", "%plan", "%recorder", "%storage", counter, type, buffer)
    f.call("Py_DecRef", buffer)
    f.need(f.differ(made, 0))
    slots = f.variable(f.load("%storage", storages["slots"]))
    with f.when(f.equal(f.get(slots), f.shared("%plan", "none"))):
        f.set(slots, f.call("PyDict_New"))
        f.replace("%storage", storages["slots"], f.get(slots))
    reference = f.call("PyWeakref_NewRef", made, 0)
    f.call("PyDict_SetItem", f.get(slots), "%key", reference)
    f.call("Py_DecRef", reference)
    f.call("PyList_Append", f.load("%recorder", layout.recorder["parted"]), "%storage")
    f.give(made)
    return f


def _new_leaf(layout: Layout) -> Function:
    """`Recorder.leaf` for realised memory that is none now, and that a tensor shows all of; borrowed."""
    f = Writer(layout, "new_leaf", "plan", "recorder", "storage", "given")
    plan, none, storages = "%plan", f.shared("%plan", "none"), layout.storage
    for name in ("value", "export", "external", "slot"):
        f.need(f.equal(f.load("%storage", storages[name]), none))
    type = f.load("%storage", storages["type"])
    shown, whole = (
        f.call("PyLong_AsLongLong", f.load(each, layout.form["nbytes"]))
        for each in (f.load("%given", layout.tensor["_type"]), type)
    )
    f.need(f.equal(shown, whole))
    counter, buffer = f.load("%storage", storages["counter"]), f.follow("%storage", storages["buffer"])
    made = f.call("bound", plan, "%recorder", "%storage", counter, type, buffer)
    f.need(f.differ(made, 0))
    f.replace("%storage", storages["slot"], f.call("PyWeakref_NewRef", made, 0))
    turn, index = f.load("%recorder", layout.recorder["turn"]), f.load(made, layout.binding["index"])
    before, reads = f.load("%storage", storages["last"]), f.variable(0)
    with f.when(f.differ(before, none)):
        now, number, then, same, read = (
            f.call("PyLong_AsLongLong", held)
            for held in (turn, index, *(f.call("PyTuple_GetItem", before, place) for place in range(3)))
        )
        soon = f.above(str(NEAR_TURNS + 1), f.minus(now, then))
        with f.when(f.both(f.equal(number, same), soon)):
            f.set(reads, f.add(read, 1))
            with f.when(f.above(f.get(reads), NEAR_READS - 1)):
                f.set(reads, NEAR_READS)
                f.replace(made, layout.binding["steady"], f.call("PyWeakref_NewRef", "%storage", 0))
    reads = f.call("PyLong_FromLongLong", f.get(reads))
    f.replace("%storage", storages["last"], f.tuple_of(turn, index, reads))
    f.call("Py_DecRef", reads)
    f.give(made)
    return f


def _bound(layout: Layout) -> Function:
    """`Leaves.bind` where the builder made such an input before, borrowed: nothing here runs Python."""
    f = Writer(layout, "bound", "plan", "recorder", "source", "counter", "type", "buffer")
    plan, none, recorder, binding = "%plan", f.shared("%plan", "none"), layout.recorder, layout.binding
    made = f.call("clone", f.shared(plan, "binding_like"))
    f.need(f.differ(made, 0))
    free = f.load("%recorder", recorder["free"])
    again = f.above(f.call("PyList_Size", free), 0)
    index = f.variable(f.load("%recorder", recorder["_leaves"]))
    with f.when(again):
        f.set(index, f.call("PyList_GetItem", free, 0))
    number = f.get(index)
    inputs = f.call("PyObject_GetAttr", f.load("%recorder", recorder["b"]), f.shared(plan, "inputs_name"))
    key = f.tuple_of(number, f.shared(plan, "no_name"), "%type")
    node = f.call("PyDict_GetItemWithError", inputs, key)
    f.call("Py_DecRef", key)
    f.call("Py_DecRef", inputs)  # the builder keeps it
    with f.when(f.equal(node, 0)):
        f.call("Py_DecRef", made)
        f.give(0)
    f.put(made, binding["index"], number)
    with f.when(again):
        operands = f.tuple_of(free)
        f.call("Py_DecRef", f.call("PyObject_CallObject", f.shared(plan, "take_least"), operands))
        f.call("Py_DecRef", operands)
    with f.unless(again):
        f.call("bump", "%recorder", recorder["_leaves"], 1)
    seen = f.variable(f.shared(plan, "zero"))
    with f.when(f.differ("%counter", none)):
        f.set(seen, f.call("PyList_GetItem", "%counter", 0))
    parts = {"recorder": "%recorder", "node": node, "buffer": "%buffer", "source": "%source", "counter": "%counter"}
    for name, held in {**parts, "version": f.get(seen)}.items():
        f.put(made, binding[name], held)
    f.call("PyDict_SetItem", f.load("%recorder", recorder["bound"]), node, "%buffer")
    f.call("PyList_Append", f.load("%recorder", recorder["held"]), made)
    f.call("Py_DecRef", made)
    f.give(made)
    return f


def functions(layout: Layout) -> list[Function]:
    """All that reads parts."""
    return [make(layout) for make in (_row, _part_buffer, _part_leaf, _new_part, _new_leaf, _bound)]
