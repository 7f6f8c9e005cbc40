"""The text of `tensor[mask]` where elements are picked where they lie, as `graphc.tensors.indexing.getitem` does it."""

from __future__ import annotations

from graphc.native.code import Function
from graphc.native.entering import HOME
from graphc.native.objects import Layout, Writer
from graphc.native.recording import OPERATORS
from graphc.tensors.indexing import FEW

PICK = "graphc_getitem"
OTHERWISE = 0  # the number of the operator that does all other indices


def _plain_memory(layout: Layout) -> Function:
    """The buffer of a tensor whose elements lie one after the other, borrowed, computed now if they were pending; 0 for
    what Python must read, -1 after an error.
    """
    f = Writer(layout, "plain_memory", "plan", "recorder", "tensor")
    plan, none, tensor, slots = "%plan", f.shared("%plan", "none"), layout.tensor, layout.storage
    form = f.follow("%tensor", tensor["_type"])
    f.need(f.equal(f.load(form, layout.form["device"]), f.shared(plan, "cpu_name")))
    f.need(f.equal(f.load("%tensor", tensor["_wrapped"]), f.shared(plan, "false")))
    f.need(f.equal(f.requires(plan, f.follow("%tensor", tensor["_lineage"])), 0))
    size, nbytes = (f.call("PyLong_AsLongLong", f.load(form, layout.form[name])) for name in ("size", "nbytes"))
    f.need(f.both(f.above(size, 0), f.above(str(FEW + 1), nbytes)))
    f.need(f.differ(f.call("row", f.load(form, layout.form["shape"]), f.load("%tensor", tensor["_strides"]), 0), 0))
    storage = f.follow("%tensor", tensor["_storage"])
    f.need(f.equal(f.load(storage, slots["external"]), none))
    with f.when(f.differ(f.load(storage, slots["value"]), none)):
        f.proceed(f.call("looked_at", plan, "%recorder", storage))
    buffer = f.follow(storage, slots["buffer"])
    f.need(f.equal(f.load(buffer, layout.type), f.shared(plan, "buffer_class")))
    f.give(buffer)
    return f


def _behind(layout: Layout) -> Function:
    """How many dimensions a mask has, if they are the first ones of a tensor; else 0."""
    f = Writer(layout, "behind", "shape", "mask")
    rank = f.call("PyTuple_Size", "%mask")
    f.need(f.above(f.add(f.call("PyTuple_Size", "%shape"), 1), rank))
    left = f.variable(rank)
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        extents = [f.call("PyTuple_GetItem", each, f.get(left)) for each in ("%shape", "%mask")]
        f.need(f.equal(*[f.call("PyLong_AsLongLong", extent) for extent in extents]))
    f.give(rank)
    return f


def _copy_picked(layout: Layout) -> Function:
    """Copy rows of so many bytes where a mask is true: no more than `room`, whoever changes the mask meanwhile."""
    f = Writer(layout, "copy_picked", "mask", "left", "source", "width", "target", "room")
    names = ("left", "mask", "source", "target", "room")
    left, mask, source, target, room = (f.variable(f"%{name}") for name in names)
    with f.while_above(left, 0):
        is_true = f.differ(f.load(f.get(mask), bits=8), 0)
        with f.when(f.both(is_true, f.above(f.get(room), 0))):
            f.set(room, f.add(f.get(room), -1))
            for width in (4, 8):
                with f.when(f.equal("%width", width)):
                    f.store(f.load(f.get(source), bits=8 * width), f.get(target), bits=8 * width)
            with f.unless(f.either(f.equal("%width", 4), f.equal("%width", 8))):
                f.copy(f.get(source), f.get(target), "%width")
            f.set(target, f.add(f.get(target), "%width"))
        f.set(mask, f.add(f.get(mask), 1))
        f.set(source, f.add(f.get(source), "%width"))
        f.set(left, f.add(f.get(left), -1))
    f.give(1)
    return f


def _picked(layout: Layout) -> Function:
    """A tensor of what a mask picks; 0 if Python must make it, -1 after an error."""
    f = Writer(layout, "picked", "plan", "tensor", "mask")
    plan, tensor = "%plan", layout.tensor
    seen, form = f.follow("%mask", tensor["_type"]), f.follow("%tensor", tensor["_type"])
    f.need(f.equal(f.load(seen, layout.form["dtype"]), f.shared(plan, "boolean")))
    _, recorder = f.recorder_here(plan)
    for name in ("capture", "example_since"):
        f.need(f.equal(f.load(recorder, layout.recorder[name]), f.shared(plan, "none")))
    f.need(f.equal(f.load(recorder, layout.recorder["place"]), f.shared(plan, "cpu_name")))
    shape = f.load(form, layout.form["shape"])
    rank = f.call("behind", shape, f.load(seen, layout.form["shape"]))
    f.need(f.differ(rank, 0))
    for each in ("%mask", "%tensor"):  # both are computed before memory of one is looked for
        f.need(f.differ(f.call("plain_memory", plan, recorder, each), -1), -1)
    buffers = [f.call("plain_memory", plan, recorder, each) for each in ("%mask", "%tensor")]
    f.need(f.both(f.above(buffers[0], 0), f.above(buffers[1], 0)))
    for buffer in buffers:  # taking memory may run Python, which may write
        f.call("Py_IncRef", buffer)
    made = f.call("picked_of", plan, "%tensor", "%mask", rank, *buffers)
    for buffer in buffers:
        f.call("Py_DecRef", buffer)
    f.need(f.differ(made, 0), -1)
    f.count_up(f.shared(plan, "touched"))
    f.give(made)
    return f


def _picked_of(layout: Layout) -> Function:
    """A tensor of what a mask of so many dimensions picks; 0 with an error."""
    f = Writer(layout, "picked_of", "plan", "tensor", "mask", "rank", "where", "what")
    plan, rank = "%plan", "%rank"
    seen, form = (f.load(each, layout.tensor["_type"]) for each in ("%mask", "%tensor"))
    shape = f.load(form, layout.form["shape"])
    count, size, nbytes = (
        f.call("PyLong_AsLongLong", f.load(each, layout.form[name]))
        for each, name in ((seen, "size"), (form, "size"), (form, "nbytes"))
    )
    mask = f.call("begin", "%mask", "%where", 1)
    source = f.call("begin", "%tensor", "%what", f.quotient(nbytes, size))
    width, left, found = f.quotient(nbytes, count), f.variable(count), f.variable(0)
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        f.set(found, f.add(f.get(found), f.number(f.differ(f.load(f.add(mask, f.get(left)), bits=8), 0))))
    extents = f.call("PyTuple_New", f.add(f.minus(f.call("PyTuple_Size", shape), rank), 1))
    f.need(f.differ(extents, 0))
    f.call("PyTuple_SetItem", extents, 0, f.call("PyLong_FromLongLong", f.get(found)))
    f.set(left, f.call("PyTuple_Size", shape))
    with f.while_above(left, rank):
        f.set(left, f.add(f.get(left), -1))
        extent = f.call("PyTuple_GetItem", shape, f.get(left))
        f.call("Py_IncRef", extent)
        f.call("PyTuple_SetItem", extents, f.add(f.minus(f.get(left), rank), 1), extent)
    operands = f.tuple_of(form, extents)
    f.call("Py_DecRef", extents)
    type = f.call("PyObject_CallObject", f.shared(plan, "with_shape"), operands)
    f.call("Py_DecRef", operands)
    f.need(f.differ(type, 0))
    made, buffer = f.variable(0), f.call("take_bytes", plan, f.load(type, layout.form["nbytes"]))
    with f.when(f.differ(buffer, 0)):
        memory = f.call("PyLong_AsVoidPtr", f.load(buffer, layout.buffer["ptr"]))
        f.call("copy_picked", mask, count, source, width, memory, f.get(found))
        both = f.call("PyTuple_New", 2)
        for place, held in enumerate((buffer, type)):
            f.call("Py_IncRef", held)
            f.call("PyTuple_SetItem", both, place, held)
        f.set(made, f.call("PyObject_CallObject", f.shared(plan, "from_buffer"), both))
        f.call("Py_DecRef", both)
    f.call("Py_DecRef", buffer)
    f.call("Py_DecRef", type)
    f.give(f.get(made))
    return f


def _getitem(layout: Layout) -> Function:
    """`PyObject *(PyObject *self, PyObject *index)`."""
    f = Writer(layout, PICK, "self", "index", exported=True)
    plan = f.place(HOME)
    with f.when(f.is_tensor(plan, "%index")):
        made = f.call("picked", plan, "%self", "%index")
        f.need(f.differ(made, -1))
        with f.when(f.differ(made, 0)):
            f.give(made)
    f.give(f.call(OPERATORS[OTHERWISE], "%self", "%index"))
    return f


def functions(layout: Layout) -> list[Function]:
    """The method, and what it needs."""
    makers = (_plain_memory, _behind, _copy_picked, _picked, _picked_of, _getitem)
    return [make(layout) for make in makers]
