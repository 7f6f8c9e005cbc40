"""Native code that reads the arguments of a call that may be recorded again, for `graphc.native.recording`."""

from __future__ import annotations

from graphc.native.code import Function
from graphc.native.objects import Layout, Writer
from graphc.repeats import (
    ARGUMENT,
    ARGUMENTS,
    BLOCKED,
    CHAINED,
    FLOWS,
    HEAD_GIVEN,
    HEAD_KEY,
    IN_HEAD,
    IN_KEY,
    KEY,
    ORDER,
    SAME_AS,
)


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
    """The value of a leaf that collects gradients, as `variables.variable` gives it when nothing was written."""
    f = Writer(layout, "variable_of", "plan", "recorder", "storage", "lineage")
    none, slots, lineage = f.shared("%plan", "none"), layout.storage, layout.lineage
    for name in ("export", "external"):
        f.need(f.equal(f.load("%storage", slots[name]), none))
    found = f.call("alive", "%plan", f.load("%lineage", lineage["variable"]))
    f.need(f.differ(found, 0))
    f.need(f.equal(f.load("%lineage", lineage["holder"]), f.load("%recorder", layout.recorder["token"])))
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


def _let_go(layout: Layout) -> Function:
    """Hold nothing any more: the call is done."""
    f = Writer(layout, "let_go", "recorder")
    keeps = f.load(f.load("%recorder", layout.recorder["repeats"]), layout.repeats["keeps"])
    count = f.call("PyList_Size", keeps)
    with f.when(f.differ(count, 0)):
        f.call("PyList_SetSlice", keeps, 0, count, 0)
    f.give(1)
    return f


def _give_argument(layout: Layout) -> Function:
    """Add an argument, and what it consists of, to a call; 0 when that has too many."""
    f = Writer(layout, "give_argument", "plan", "recorder", "table", "what")
    plan, count = "%plan", f.load("%table", IN_HEAD["given"])
    f.need(f.above(str(ARGUMENTS), count))
    f.store("%what", f.scaled(f.add("%table", 8 * HEAD_GIVEN), count))
    f.store(f.add(count, 1), "%table", IN_HEAD["given"])
    kind = f.load("%what", layout.type)
    with f.when(f.either(f.equal(kind, f.shared(plan, "tuple_class")), f.equal(kind, f.shared(plan, "size_class")))):
        size = f.call("PyTuple_Size", "%what")
        left = f.variable(size)
        with f.while_above(left, 0):
            part = f.call("PyTuple_GetItem", "%what", f.minus(size, f.get(left)))
            f.proceed(f.call("give_argument", plan, "%recorder", "%table", part))
            f.set(left, f.add(f.get(left), -1))
    with f.when(f.equal(kind, f.shared(plan, "list_class"))):
        size = f.call("PyList_Size", "%what")
        left = f.variable(size)
        with f.while_above(left, 0):
            part = f.call("PyList_GetItem", "%what", f.minus(size, f.get(left)))
            f.proceed(f.call("kept_alive", "%recorder", part))  # others may change the list
            f.proceed(f.call("give_argument", plan, "%recorder", "%table", part))
            f.set(left, f.add(f.get(left), -1))
    with f.when(f.equal(kind, f.shared(plan, "slice_class"))):
        for offset in layout.slice:
            f.proceed(f.call("give_argument", plan, "%recorder", "%table", f.load("%what", offset)))
    f.give(1)
    return f


def _add_part(layout: Layout) -> Function:
    """Add two words to the key."""
    f = Writer(layout, "add_part", "table", "what", "class")
    key = f.add("%table", 8 * HEAD_KEY)
    count = f.load(key, IN_KEY["count"])
    f.need(f.above(str(ARGUMENTS), count))
    f.store(f.add(count, 1), key, IN_KEY["count"])
    slot = f.add(f.add(key, 8 * len(KEY)), f.times(count, str(8 * len(ARGUMENT))))
    f.store("%what", slot)
    f.store("%class", slot, 8)
    f.give(1)
    return f


def _is_written(layout: Layout) -> Function:
    """Whether the memory of a view was written since it was made."""
    f = Writer(layout, "is_written", "plan", "given")
    none, counter = f.shared("%plan", "none"), f.load("%given", layout.tensor["_counter"])
    f.need(f.both(f.differ(counter, none), f.differ(f.load("%given", layout.tensor["_root"]), none)))
    seen, now = f.load("%given", layout.tensor["_seen_at"]), f.call("PyList_GetItem", counter, 0)
    f.give(f.number(f.differ(*[f.call("PyLong_AsLongLong", count) for count in (seen, now)])))
    return f


def _known_operand(layout: Layout) -> Function:
    """Add to the key the node of what was found for a tensor, and hold it. `depth` is that of the chain behind it."""
    f = Writer(layout, "known_operand", "plan", "recorder", "table", "given", "found", "mark", "depth")
    plan, none, mark = "%plan", f.shared("%plan", "none"), f.variable("%mark")
    keeps = f.load(f.load("%recorder", layout.recorder["repeats"]), layout.repeats["keeps"])
    first, size = f.load("%table", IN_HEAD["first"]), f.call("PyList_Size", keeps)
    place = f.variable(size)
    with f.while_above(place, first):
        f.set(place, f.add(f.get(place), -1))
        with f.when(f.equal(f.call("PyList_GetItem", keeps, f.get(place)), "%found")):
            number = f.add(f.minus(f.get(place), first), 1)
            f.set(mark, f.add("%mark", f.times(number, str(SAME_AS))))
    node = f.variable(0)
    is_value = f.equal(f.load("%found", layout.type), f.shared(plan, "value_class"))
    with f.when(is_value):
        f.set(node, f.load("%found", layout.value["node"]))
    with f.unless(is_value):
        f.set(node, f.load("%found", layout.binding["node"]))
    f.proceed(f.call("add_part", "%table", f.get(node), f.get(mark)))
    with f.when(f.differ(f.masked("%mark", CHAINED), 0)):
        written = f.variable(0)
        with f.when(f.differ(f.masked(f.load(f.add("%table", 8 * HEAD_KEY), IN_KEY["grad"]), FLOWS), 0)):
            f.set(written, f.call("is_written", plan, "%given"))  # the names of gradients' nodes depend on it
        rootless = f.number(f.equal(f.load("%given", layout.tensor["_root"]), none))
        about = f.add(f.add(f.times(f.get(written), "65536"), f.times("%depth", "2")), rootless)
        f.proceed(f.call("add_part", "%table", f.load("%given", layout.tensor["_chain"]), about))
    f.give(f.call("kept_alive", "%recorder", "%found"))
    return f


def _whole_leaf(layout: Layout) -> Function:
    """The leaf that a tensor reads, when it does not show a part of its memory; else 0."""
    f = Writer(layout, "whole_leaf", "plan", "recorder", "storage", "given")
    with f.when(f.differ(f.load("%given", layout.tensor["_chain"]), f.shared("%plan", "empty"))):
        types = (f.load("%given", layout.tensor["_type"]), f.load("%storage", layout.storage["type"]))
        shown, whole = (f.call("PyLong_AsLongLong", f.load(type, layout.form["nbytes"])) for type in types)
        f.need(f.above(f.add(shown, 1), whole))
    f.give(f.call("leaf_of", "%plan", "%recorder", "%storage"))
    return f


def _operand(layout: Layout) -> Function:
    """Add to the key the node of a tensor, and hold what keeps it valid."""
    f = Writer(layout, "operand", "plan", "recorder", "table", "function", "flows", "given")
    plan, none, tensor, slots = "%plan", f.shared("%plan", "none"), layout.tensor, layout.storage
    f.need(f.equal(f.load("%given", tensor["_wrapped"]), f.shared(plan, "false")))
    storage, lineage = f.follow("%given", tensor["_storage"]), f.follow("%given", tensor["_lineage"])
    value, history = f.load(storage, slots["value"]), f.load(lineage, layout.lineage["hist"])
    collects = f.equal(f.load(lineage, layout.lineage["requires_grad"]), f.shared(plan, "true"))
    chained = f.number(f.differ(f.load("%given", tensor["_chain"]), f.shared(plan, "empty")))
    keep, depth, mark = f.variable(0), f.variable(0), f.variable(f.times(chained, str(CHAINED)))
    with f.unless(f.both(f.differ(value, none), f.differ(f.load(storage, slots["recorder"]), "%recorder"))):
        with f.when(f.equal("%flows", 0)):
            with f.when(f.differ(value, none)):
                f.set(keep, value)
            with f.when(f.equal(value, none)):
                f.set(keep, f.call("whole_leaf", plan, "%recorder", storage, "%given"))
        with f.when(f.differ("%flows", 0)):
            with f.when(f.differ(history, none)):
                versions = [f.load(lineage, layout.lineage["version"]), f.load(storage, slots["version"])]
                same = f.equal(*[f.call("PyLong_AsLongLong", version) for version in versions])
                with f.when(f.both(same, f.equal(value, history))):
                    f.set(keep, value)
            with f.when(f.both(f.equal(history, none), collects)):
                f.set(keep, f.call("variable_of", plan, "%recorder", storage, lineage))
            with f.when(f.either(f.differ(history, none), collects)):
                f.set(depth, f.call("PyLong_AsLongLong", f.load(lineage, layout.lineage["depth"])))
            with f.unless(f.either(f.differ(history, none), collects)):
                with f.when(f.differ(value, none)):
                    # Detached from a history: what keeps it must show no way for gradients, which Python arranges.
                    f.need(f.equal(f.load(value, layout.value["grad"]), f.shared(plan, "false")))
                    f.set(keep, value)
                    f.set(mark, f.add(f.get(mark), BLOCKED))
                with f.when(f.equal(value, none)):
                    f.set(keep, f.call("whole_leaf", plan, "%recorder", storage, "%given"))
    found = f.get(keep)
    with f.when(f.differ(found, 0)):
        f.give(f.call("known_operand", plan, "%recorder", "%table", "%given", found, f.get(mark), f.get(depth)))
    # A view that gradients flow through is read by recording: Python does that.
    flowing = f.either(f.either(f.differ(history, none), collects), f.differ(value, none))
    f.need(f.either(f.equal(chained, 0), f.either(f.equal("%flows", 0), f.equal(f.number(flowing), 0))))
    # It is read for the first time, which gives it a number: that must happen in the order in which Python does it.
    with f.when(f.equal(f.call("PyDict_GetItemWithError", f.shared(plan, "orders"), "%function"), 0)):
        f.store(str(ORDER), "%table", IN_HEAD["wanted"])
        f.give(0)
    done = f.variable(0)
    with f.when(f.differ(chained, 0)):
        part = f.call("part_leaf", plan, "%recorder", "%given")
        with f.when(f.differ(part, 0)):
            f.proceed(f.call("add_part", "%table", f.load(part, layout.binding["node"]), 0))
            f.give(f.call("kept_alive", "%recorder", part))
    with f.when(f.equal(f.number(flowing), 0)):
        whole = f.call("new_leaf", plan, "%recorder", storage, "%given")
        with f.when(f.differ(whole, 0)):
            f.give(f.call("known_operand", plan, "%recorder", "%table", "%given", whole, f.get(mark), 0))
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
    node, kept = (f.call("PyTuple_GetItem", pair, place) for place in range(2))  # the builder keeps the node
    f.set(done, f.call("add_part", "%table", node, 0))
    with f.when(f.equal(f.get(done), 1)):
        f.set(done, f.call("kept_alive", "%recorder", kept))
    f.call("Py_DecRef", pair)
    f.give(f.get(done))
    return f


def _plain_argument(layout: Layout) -> Function:
    """Add to the key an argument that is no tensor: the bits of a number, an object, or how many parts follow."""
    f = Writer(layout, "plain_argument", "plan", "table", "given")
    plan, kind = "%plan", f.load("%given", layout.type)

    def add(what: str) -> None:
        f.give(f.call("add_part", "%table", what, kind))

    with f.when(f.equal(kind, f.shared(plan, "float_class"))):
        bits = f.variable(0)
        f.store_double(f.call("PyFloat_AsDouble", "%given"), f.address(bits))
        add(f.get(bits))
    with f.when(f.equal(kind, f.shared(plan, "int_class"))):
        value = f.call("PyLong_AsLongLong", "%given")
        with f.when(f.both(f.equal(value, -1), f.differ(f.call("PyErr_Occurred"), 0))):
            f.call("PyErr_Clear")
            f.give(0)
        add(value)
    for name in ("bool_class", "none_class", "str_class", "dtype_class", "ellipsis_class"):
        with f.when(f.equal(kind, f.shared(plan, name))):
            add("%given")
    for name, size in (("tuple_class", "PyTuple_Size"), ("size_class", "PyTuple_Size"), ("list_class", "PyList_Size")):
        with f.when(f.equal(kind, f.shared(plan, name))):
            add(f.call(size, "%given"))
    with f.when(f.equal(kind, f.shared(plan, "slice_class"))):
        add(str(len(layout.slice)))
    f.give(0)
    return f


def _unread(layout: Layout) -> Function:
    """Add to the key what a tensor is, whose elements the function does not read."""
    f = Writer(layout, "unread", "plan", "recorder", "table", "given")
    tensor, none = layout.tensor, f.shared("%plan", "none")
    f.need(f.equal(f.load("%given", tensor["_wrapped"]), f.shared("%plan", "false")))
    f.follow("%given", tensor["_storage"])
    lineage = f.follow("%given", tensor["_lineage"])
    about = f.number(f.equal(f.load("%given", tensor["_root"]), none))
    about = f.add(f.times(about, "2"), f.requires("%plan", lineage))
    type, strides, chain = (f.load("%given", tensor[name]) for name in ("_type", "_strides", "_chain"))
    f.proceed(f.call("add_part", "%table", type, f.load("%given", layout.type)))
    f.proceed(f.call("add_part", "%table", strides, chain))
    f.proceed(f.call("add_part", "%table", about, f.call("PyLong_AsLongLong", f.load("%given", tensor["_offset"]))))
    f.give(f.call("kept_alive", "%recorder", none))
    return f


def _argument(layout: Layout) -> Function:
    """Add to the key what an argument is; `unread` has the bits of `UNREAD` from its place on."""
    f = Writer(layout, "argument", "plan", "recorder", "table", "given", "unread")
    key = f.add("%table", 8 * HEAD_KEY)
    with f.unless(f.is_tensor("%plan", "%given")):
        f.give(f.call("plain_argument", "%plan", "%table", "%given"))
    unread = f.variable(f.masked("%unread", 1))
    chained = f.above(f.call("PyTuple_Size", f.follow("%given", layout.tensor["_chain"])), 0)
    required = f.differ(f.requires("%plan", f.follow("%given", layout.tensor["_lineage"])), 0)
    with f.when(f.either(chained, required)):
        f.set(unread, f.masked(f.shifted("%unread", ARGUMENTS), 1))
    with f.when(f.differ(f.get(unread), 0)):
        f.give(f.call("unread", "%plan", "%recorder", "%table", "%given"))
    flows, function = f.masked(f.load(key, IN_KEY["grad"]), FLOWS), f.load(key, IN_KEY["function"])
    f.give(f.call("operand", "%plan", "%recorder", "%table", function, flows, "%given"))
    return f


def functions(layout: Layout) -> list[Function]:
    """What is done to arguments."""
    return [
        make(layout)
        for make in (
            *(_alive, _wants, _leaf_of, _variable_of, _kept_alive, _let_go, _give_argument, _add_part, _is_written),
            *(_known_operand, _whole_leaf, _operand, _plain_argument, _unread, _argument),
        )
    ]
