"""Native code that makes views again, for `graphc.native.recording`: nothing is recorded for them."""

from __future__ import annotations

from graphc.native.code import Function
from graphc.native.objects import Layout, Writer
from graphc.repeats import (
    ENABLED,
    HEAD_GIVEN,
    HEAD_KEY,
    IN_ENTRY,
    IN_HEAD,
    IN_KEY,
    MADE,
    OTHERWISE,
    SEVERAL,
    SHOWN,
    VIEW,
)

MODES = ("plan", "recorder", "table", "function", "enabled")
NO_VIEW = 1  # what `viewed` gives where a function gives no view


def _shown(layout: Layout) -> Function:
    """Add to the key all that a view of a tensor may depend on."""
    f = Writer(layout, "shown", "plan", "table", "given")
    plan, tensor, none = "%plan", layout.tensor, f.shared("%plan", "none")
    f.need(f.equal(f.load("%given", tensor["_wrapped"]), f.shared(plan, "false")))
    f.follow("%given", tensor["_storage"])
    lineage = f.follow("%given", tensor["_lineage"])
    about = f.number(f.equal(f.load("%given", tensor["_root"]), none))
    flags = [
        f.number(f.equal(f.load(lineage, layout.lineage["requires_grad"]), f.shared(plan, "true"))),
        f.number(f.differ(f.load(lineage, layout.lineage["hist"]), none)),
    ]
    for flag in flags:
        about = f.add(f.times(about, "2"), flag)
    type, strides, chain = (f.load("%given", tensor[name]) for name in ("_type", "_strides", "_chain"))
    f.proceed(f.call("add_part", "%table", type, f.load("%given", layout.type)))
    f.proceed(f.call("add_part", "%table", strides, chain))
    offset = f.call("PyLong_AsLongLong", f.load("%given", tensor["_offset"]))
    f.give(f.call("add_part", "%table", offset, about))
    return f


def _view(layout: Layout) -> Function:
    """A view of a tensor, as an entry tells; 0 when there is no memory."""
    f = Writer(layout, "view", "plan", "found", "given")
    plan, tensor, none = "%plan", layout.tensor, f.shared("%plan", "none")
    made = f.call("clone", f.shared(plan, "tensor_like"))
    with f.when(f.equal(made, 0)):
        f.call("PyErr_Clear")
        f.give(0)
    for slot in ("_storage", "_counter"):
        f.put(made, tensor[slot], f.load("%given", tensor[slot]))
    for slot in ("type", "strides", "chain", "offset"):
        f.put(made, tensor[f"_{slot}"], f.load("%found", IN_ENTRY[slot]))
    root = f.variable(f.load("%given", tensor["_root"]))
    with f.when(f.equal(f.get(root), none)):
        f.set(root, "%given")
    f.put(made, tensor["_root"], f.get(root))
    counter = f.load("%given", tensor["_counter"])
    with f.when(f.differ(counter, none)):
        f.put(made, tensor["_seen_at"], f.call("PyList_GetItem", counter, 0))
    with f.when(f.equal(f.load("%found", IN_ENTRY["apart"]), 0)):
        f.put(made, tensor["_lineage"], f.load("%given", tensor["_lineage"]))
        f.give(made)
    lineage = f.call("clone", f.shared(plan, "lineage_like"))
    with f.when(f.equal(lineage, 0)):
        f.call("PyErr_Clear")
        f.call("Py_DecRef", made)
        f.give(0)
    f.put(lineage, layout.lineage["depth"], f.load("%found", IN_ENTRY["depth"]))
    version = f.load(f.load("%given", tensor["_storage"]), layout.storage["version"])
    f.put(lineage, layout.lineage["version"], version)
    with f.when(f.differ(f.requires(plan, f.load(f.get(root), tensor["_lineage"])), 0)):
        f.put(lineage, layout.lineage["requires_grad"], f.shared(plan, "true"))
    f.replace(made, tensor["_lineage"], lineage)
    f.give(made)
    return f


def _several(layout: Layout) -> Function:
    """A tuple of views of a tensor, as an entry tells; 0 when there is no memory."""
    f = Writer(layout, "several", "plan", "found", "given")
    count = f.load("%found", IN_ENTRY["several"])
    made = f.call("PyTuple_New", count)
    with f.when(f.equal(made, 0)):
        f.call("PyErr_Clear")
        f.give(0)
    one, left = f.variable(f.load("%found", IN_ENTRY["views"])), f.variable(count)
    with f.while_above(left, 0):
        view = f.call("view", "%plan", f.get(one), "%given")
        with f.when(f.equal(view, 0)):
            f.call("Py_DecRef", made)
            f.give(0)
        f.call("PyTuple_SetItem", made, f.minus(count, f.get(left)), view)
        f.set(one, f.add(f.get(one), 8 * len(MADE)))
        f.set(left, f.add(f.get(left), -1))
    f.give(made)
    return f


def _viewed(layout: Layout) -> Function:
    """A call of a function that gave views: the views, or the tensor itself; 1 if it gives something else with such
    operands; 0 after noting that there is no entry.
    """
    f = Writer(layout, "viewed", *MODES)
    plan, key, given = "%plan", f.add("%table", 8 * HEAD_KEY), f.add("%table", 8 * HEAD_GIVEN)
    count, left = f.load("%table", IN_HEAD["given"]), f.variable(0)
    f.call("begin_key", plan, "%recorder", "%table", "%function", f.times("%enabled", str(ENABLED)))
    f.store("1", key, IN_KEY["code"])  # it is the same at all places
    f.store("0", key, IN_KEY["place"])
    f.set(left, count)
    with f.while_above(left, 0):
        what = f.load(f.scaled(given, f.minus(count, f.get(left))))
        f.set(left, f.add(f.get(left), -1))
        done = f.variable(0)
        is_tensor = f.is_tensor(plan, what)
        with f.when(is_tensor):
            f.set(done, f.call("shown", plan, "%table", what))
        with f.unless(is_tensor):
            f.set(done, f.call("plain_argument", plan, "%table", what))
        f.need(f.equal(f.get(done), 1), NO_VIEW)
    entry = f.call("entry_of", "%table")
    with f.when(f.equal(entry, 0)):
        f.store(str(VIEW), "%table", IN_HEAD["wanted"])
        f.give(0)
    kind = f.load(entry, IN_ENTRY["kind"])
    f.need(f.differ(kind, OTHERWISE), NO_VIEW)
    source = f.load(f.scaled(given, f.load(entry, IN_ENTRY["which"])))
    with f.when(f.equal(kind, SHOWN)):
        f.give(f.call("view", plan, entry, source))
    with f.when(f.equal(kind, SEVERAL)):
        f.give(f.call("several", plan, entry, source))
    f.call("Py_IncRef", source)
    f.give(source)
    return f


def _begin_key(layout: Layout) -> Function:
    """Write into the key what is none of the arguments."""
    f = Writer(layout, "begin_key", "plan", "recorder", "table", "function", "grad")
    key = f.add("%table", 8 * HEAD_KEY)
    default = f.call("PyDict_GetItemWithError", f.shared("%plan", "dtypes"), f.shared("%plan", "default_name"))
    device = f.load("%recorder", layout.recorder["place"])
    for name, word in (("function", "%function"), ("grad", "%grad"), ("default", default), ("device", device)):
        f.store(word, key, IN_KEY[name])
    f.store("0", key, IN_KEY["count"])
    f.give(1)
    return f


def functions(layout: Layout) -> list[Function]:
    """All that makes views, and the beginning of keys."""
    return [make(layout) for make in (_begin_key, _shown, _view, _several, _viewed)]
