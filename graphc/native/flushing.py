"""The text of a native flush (`Recorder._flush`): the program of what is pending, which ran before, runs again.

Functions give 1 to go on, 0 when Python must do it (then nothing has changed), -1 when an error is set.
"""

from __future__ import annotations

from graphc.leaves import KEPT_TURNS
from graphc.native.code import Function
from graphc.native.objects import Layout, Writer
from graphc.native.recording import DESK
from graphc.native.tables import TABLES, P, T

FLUSH = "graphc_flush"
_MOST_AT_ONCE = 1 << 18  # bytes that are copied or filled here: Python uses several threads for more


def _idle_modes(layout: Layout) -> Function:
    """Nobody captures what is recorded, no memory is poisoned, options are as they are outside of scopes."""
    f = Writer(layout, "idle_modes", "plan", "recorder")
    plan, none, recorder = "%plan", f.shared("%plan", "none"), layout.recorder
    for name in ("capture", "example_since"):
        f.need(f.equal(f.load("%recorder", recorder[name]), none))
    poison = f.call("PyObject_GetAttr", f.shared(plan, "poison"), f.shared(plan, "value_name"))
    f.need(f.differ(poison, 0), -1)
    f.call("Py_DecRef", poison)
    f.need(f.equal(poison, f.shared(plan, "false")))
    scope = f.variable(0)
    f.call("PyContextVar_Get", f.shared(plan, "scope"), 0, f.address(scope))
    f.call("Py_DecRef", f.get(scope))
    f.give(f.number(f.equal(f.get(scope), f.shared(plan, "no_scope"))))
    return f


def _nothing_late(layout: Layout) -> Function:
    """Whether no check of another device waits to be looked at, which must be when something of the host is."""
    f = Writer(layout, "nothing_late", "recorder")
    late = f.load(f.load("%recorder", layout.recorder["late"]), layout.late["_waiting"])
    f.give(f.number(f.equal(f.call("PyList_Size", late), 0)))
    return f


def _cuts(layout: Layout) -> Function:
    """The dictionary of computed values that stand for their nodes, borrowed; 0 with an error."""
    f = Writer(layout, "cuts", "plan", "recorder")
    cuts = f.call("PyObject_GetAttr", f.load("%recorder", layout.recorder["cuts"]), f.shared("%plan", "data_name"))
    f.call("Py_DecRef", cuts)  # its owner keeps it
    f.give(cuts)
    return f


def _add_cuts(layout: Layout) -> Function:
    """Add None and the nodes that values stand for to a list, if there are any."""
    f = Writer(layout, "add_cuts", "plan", "recorder", "nodes")
    cuts = f.call("cuts", "%plan", "%recorder")
    f.need(f.differ(cuts, 0), -1)
    left = f.variable(f.call("PyDict_Size", cuts))
    with f.when(f.equal(f.get(left), 0)):
        f.give(1)
    f.need(f.equal(f.call("PyList_Append", "%nodes", f.shared("%plan", "none")), 0), -1)
    place, node, value = f.variable(0), f.variable(0), f.variable(0)
    with f.while_above(left, 0):
        f.need(f.differ(f.call("PyDict_Next", cuts, *map(f.address, (place, node, value))), 0))
        f.need(f.equal(f.call("PyList_Append", "%nodes", f.get(node)), 0), -1)
        f.set(left, f.add(f.get(left), -1))
    f.give(1)
    return f


def _awaited(layout: Layout) -> Function:
    """Fill lists with the storages that wait, their values and the nodes of these, as `Recorder.outputs` does.

    `seen` is an empty dictionary.
    """
    f = Writer(layout, "awaited", "plan", "recorder", "storages", "values", "nodes", "seen")
    none, slots, value = f.shared("%plan", "none"), layout.storage, layout.value
    pending, checks = (f.load("%recorder", layout.recorder[name]) for name in ("pending", "checks"))
    count = f.call("PyList_Size", pending)
    left = f.variable(count)
    with f.while_above(left, 0):
        storage = f.call("alive", "%plan", f.call("PyList_GetItem", pending, f.minus(count, f.get(left))))
        f.set(left, f.add(f.get(left), -1))
        with f.when(f.differ(storage, 0)):
            held = f.load(storage, slots["value"])
            own = f.equal(f.load(storage, slots["recorder"]), "%recorder")
            # A tensor that was written twice stands there twice.
            is_first = f.equal(f.call("PyDict_GetItemWithError", "%seen", storage), 0)
            with f.when(f.both(is_first, f.both(own, f.differ(held, none)))):
                f.need(f.equal(f.call("PyDict_SetItem", "%seen", storage, held), 0), -1)
                plain = f.both(
                    f.equal(f.load(held, value["grad"]), f.shared("%plan", "false")),
                    f.equal(f.load(held, value["gate"]), none),
                )
                # A later `backward` reads what was computed for a value that gradients flow through.
                f.need(f.either(plain, f.equal(f.load(held, value["freed"]), f.shared("%plan", "true"))))
                f.need(f.equal(f.load(storage, slots["external"]), none))
                f.need(f.equal(f.load(storage, slots["export"]), none))
                lists = (("%storages", storage), ("%values", held), ("%nodes", f.load(held, value["node"])))
                known = f.variable(0)
                late = f.call("nothing_late", "%recorder")
                # Who looks wants to know of errors.
                with f.when(f.both(f.equal(f.call("PyList_Size", checks), 0), f.differ(late, 0))):
                    f.set(known, f.call("known_at_once", "%plan", "%recorder", storage, held))
                with f.when(f.equal(f.get(known), 0)):
                    for place, what in lists:
                        f.need(f.equal(f.call("PyList_Append", place, what), 0), -1)
    count = f.call("PyList_Size", checks)
    f.set(left, count)
    with f.while_above(left, 0):
        check = f.call("PyList_GetItem", checks, f.minus(count, f.get(left)))
        f.set(left, f.add(f.get(left), -1))
        node = f.call("PyTuple_GetItem", check, 0)
        with f.when(f.equal(f.call("PySequence_Contains", "%nodes", node), 0)):
            f.need(f.equal(f.call("PyList_Append", "%nodes", node), 0), -1)
    f.give(1)
    return f


def _filled(layout: Layout) -> Function:
    """Write the value of a constant to memory."""
    f = Writer(layout, "filled", "plan", "type", "value", "memory")
    plan, word = "%plan", f.variable(0)
    dtype, bytes = (f.load("%type", layout.form[name]) for name in ("dtype", "nbytes"))
    nbytes = f.call("PyLong_AsLongLong", bytes)
    with f.when(f.equal("%value", f.shared(plan, "false"))):
        f.clear("%memory", nbytes)
        f.give(1)
    item = f.call("number_word", plan, dtype, "%value", f.address(word))
    f.need(f.differ(item, 0))
    with f.when(f.equal(f.get(word), 0)):
        f.clear("%memory", nbytes)
        f.give(1)
    left, at = f.variable(nbytes), f.variable("%memory")
    with f.while_above(left, 0):
        with f.when(f.equal(item, 8)):
            f.store(f.get(word), f.get(at))
        with f.when(f.equal(item, 4)):
            f.store(f.get(word), f.get(at), bits=32)
        f.set(at, f.add(f.get(at), item))
        f.set(left, f.minus(f.get(left), item))
    f.give(1)
    return f


def _known_at_once(layout: Layout) -> Function:
    """Give a storage its contents that waits for a copy of a leaf, or for a constant; 0 if it does for something else.
    The value that it had is held by somebody.
    """
    f = Writer(layout, "known_at_once", "plan", "recorder", "storage", "value")
    plan, none, slots, buffers = "%plan", f.shared("%plan", "none"), layout.storage, layout.buffer
    node = f.load("%value", layout.value["node"])
    leaf = f.call("PyDict_GetItemWithError", f.load("%recorder", layout.recorder["bound"]), node)
    with f.when(f.equal(leaf, 0)):
        f.need(f.equal(f.load(node, layout.node["op"]), f.shared(plan, "constant_name")))
    with f.when(f.differ(leaf, 0)):
        f.need(f.equal(f.load(leaf, layout.type), f.shared(plan, "buffer_class")))
    type = f.load("%storage", slots["type"])
    f.need(f.equal(f.load(type, layout.form["device"]), f.shared(plan, "cpu_name")))
    f.need(f.above(str(_MOST_AT_ONCE), f.call("PyLong_AsLongLong", f.load(type, layout.form["nbytes"]))))
    made = f.call("take_bytes", plan, f.load(type, layout.form["nbytes"]))
    with f.when(f.equal(made, 0)):
        f.call("PyErr_Clear")  # Python meets the same error
        f.give(0)
    done, memory = f.variable(0), f.call("PyLong_AsVoidPtr", f.load(made, buffers["ptr"]))
    with f.when(f.equal(f.load("%storage", slots["value"]), "%value")):  # taking memory may have run Python
        with f.when(f.equal(leaf, 0)):
            literal = f.call("PyTuple_GetItem", f.call("PyTuple_GetItem", f.load(node, layout.node["attrs"]), 0), 1)
            f.set(done, f.call("filled", plan, type, literal, memory))
        with f.when(f.differ(leaf, 0)):
            bytes = f.load(type, layout.form["nbytes"])
            sizes = [f.call("PyLong_AsLongLong", size) for size in (bytes, f.load(leaf, buffers["nbytes"]))]
            with f.when(f.equal(*sizes)):  # its value keeps the leaf
                f.copy(f.call("PyLong_AsVoidPtr", f.load(leaf, buffers["ptr"])), memory, sizes[0])
                f.set(done, 1)
    with f.when(f.equal(f.get(done), 0)):
        f.call("Py_DecRef", made)
        f.give(0)
    for name in ("value", "slot", "slots", "kept", "export"):
        f.put("%storage", slots[name], none)
    f.replace("%storage", slots["buffer"], made)
    f.give(1)
    return f


def _located(layout: Layout) -> Function:
    """Addresses of all buffers of a plan: of leaves as they are bound now, and new ones."""
    f = Writer(layout, "located", "plan", "recorder")
    plan, buffers = "%plan", layout.buffer
    options = f.call("PyDict_GetItemWithError", f.shared(plan, "codes"), f.shared(plan, "code_name"))
    f.need(f.equal(options, f.single(plan, "options")))
    here = f.equal(f.single(plan, "stream"), 0)
    with f.when(f.differ(f.number(here), 1)):
        f.proceed(f.call("calls", plan))
    with f.when(here):
        f.need(f.equal(f.call("nothing_late", "%recorder"), 1))
    bound = f.load("%recorder", layout.recorder["bound"])
    with f.each(plan, T["bound"], TABLES["bound"]) as record:
        buffer = f.call("PyDict_GetItemWithError", bound, f.load(record))
        f.need(f.differ(buffer, 0))
        with f.when(here):
            f.need(f.equal(f.load(buffer, layout.type), f.shared(plan, "buffer_class")))
        f.proceed(f.call("of_stream", plan, buffer))
        f.need(f.equal(f.call("PyLong_AsLongLong", f.load(buffer, buffers["nbytes"])), f.load(record, 8)))
        f.call("Py_IncRef", buffer)
        f.own(plan, buffer)
        f.store(f.call("PyLong_AsVoidPtr", f.load(buffer, buffers["ptr"])), f.load(record, 16))
    with f.each(plan, T["hosted"], TABLES["hosted"]) as record:
        f.need(f.differ(f.call("PyDict_GetItemWithError", bound, f.load(record)), 0))
    with f.each(plan, T["lent"], TABLES["lent"]) as record:
        buffer = f.call("PyDict_GetItemWithError", bound, f.load(record))
        f.proceed(f.call("unshared", plan, buffer))
        f.store(buffer, f.load(record, 8))
    with f.each(plan, T["takes"], TABLES["takes"]) as record:
        made = f.call("take", plan, f.load(record, 8))
        f.need(f.differ(made, 0), -1)
        f.own(plan, made)
        f.store(made, f.load(record))
    with f.each(plan, T["outputs"], TABLES["outputs"]) as record:
        buffer = f.load(f.load(record))
        f.store(f.call("PyLong_AsVoidPtr", f.load(buffer, buffers["ptr"])), f.load(record, 8))
    f.give(f.call("brought", plan))
    return f


def _unchanged(layout: Layout) -> Function:
    """Whether the storages still wait for these values: taking memory may have run Python."""
    f = Writer(layout, "unchanged", "storages", "values")
    left = f.variable(f.call("PyList_Size", "%storages"))
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        storage, value = (f.call("PyList_GetItem", held, f.get(left)) for held in ("%storages", "%values"))
        f.need(f.equal(f.load(storage, layout.storage["value"]), value))
    f.give(1)
    return f


def _settled(layout: Layout) -> Function:
    """The storages get the buffers that were computed for them; the first `count` of what is pending is done with.

    No finalizer runs yet, nor does other Python: `values` holds what the storages had.
    """
    f = Writer(layout, "settled", "plan", "recorder", "storages", "values", "count")
    plan, recorder, slots, none = "%plan", layout.recorder, layout.storage, f.shared("%plan", "none")
    place = f.variable(0)
    with f.each(plan, T["outputs"], TABLES["outputs"]) as record:
        # Behind them are those of checks and the arena.
        with f.when(f.above(f.call("PyList_Size", "%storages"), f.get(place))):
            storage, value = (f.call("PyList_GetItem", held, f.get(place)) for held in ("%storages", "%values"))
            with f.when(f.equal(f.load(storage, slots["value"]), value)):
                for name in ("value", "slot", "slots", "kept"):
                    f.put(storage, slots[name], none)
                f.call("PyList_Append", "%values", f.load(storage, slots["buffer"]))
                f.put(storage, slots["buffer"], f.load(f.load(record)))
        f.set(place, f.add(f.get(place), 1))
    f.call("PyList_SetSlice", f.load("%recorder", recorder["pending"]), 0, "%count", 0)
    f.put("%recorder", recorder["_bytes"], f.shared(plan, "zero"))
    f.put("%recorder", recorder["most"], f.load("%recorder", recorder["round"]))
    seen = f.load("%recorder", recorder["seen"])
    size = f.call("PyList_Size", seen)
    with f.when(f.above(size, 0)):
        f.replace("%recorder", recorder["seen"], f.call("PyList_New", 0))
    for name in ("flushes", "program_hits", "native_flushes"):
        f.call("bump", f.shared(plan, "front"), layout.front[name], 1)
    f.call("bump", f.shared(plan, "flush_tally"), layout.tally["runs"], 1)
    f.call("bump", f.shared(plan, "flush_tally"), layout.tally["launches"], f.single(plan, "launches"))
    f.give(1)
    return f


def _keep_leaves(layout: Layout) -> Function:
    """`Recorder._keep_leaves`."""
    f = Writer(layout, "keep_leaves", "plan", "recorder")
    plan, none, recorder = "%plan", f.shared("%plan", "none"), layout.recorder
    slots, binding = layout.storage, layout.binding
    kept, held = (f.load("%recorder", recorder[name]) for name in ("kept", "held"))

    count = f.call("PyList_Size", held)
    left = f.variable(count)
    with f.while_above(left, 0):
        leaf = f.call("PyList_GetItem", held, f.minus(count, f.get(left)))
        f.set(left, f.add(f.get(left), -1))
        home, storage = f.load(leaf, binding["steady"]), f.load(leaf, binding["source"])
        of_storage = f.equal(f.load(storage, layout.type), f.shared(plan, "storage_class"))
        with (
            f.when(f.both(f.differ(home, none), of_storage)),
            f.when(f.equal(f.call("alive", plan, f.load(storage, slots["slot"])), leaf)),
        ):
            f.call("Py_IncRef", storage)
            f.put(leaf, binding["source"], none)
            f.put(storage, slots["kept"], leaf)
            with f.when(f.above("0", f.call("PyLong_AsLongLong", f.load(leaf, binding["turn"])))):
                f.call("PyList_Append", kept, home)
            f.put(leaf, binding["turn"], f.load("%recorder", recorder["turn"]))
            f.call("Py_DecRef", storage)
    f.call("PyList_SetSlice", held, 0, count, 0)
    f.call("bump", "%recorder", recorder["turn"], 1)
    f.give(1)
    return f


def _judged(layout: Layout) -> Function:
    """Raise the error that a check finds; `nodes` are in the order of the plan's outputs."""
    f = Writer(layout, "judged", "plan", "recorder", "nodes", "checks")
    plan, count = "%plan", f.call("PyList_Size", "%checks")
    left = f.variable(count)
    with f.while_above(left, 0):
        check = f.call("PyList_GetItem", "%checks", f.minus(count, f.get(left)))
        f.set(left, f.add(f.get(left), -1))
        node, problem = (f.call("PyTuple_GetItem", check, place) for place in (0, 2))
        place = f.call("PySequence_Index", "%nodes", node)
        record = f.scaled(f.load(plan, T["outputs"][0]), f.times(place, str(TABLES["outputs"])))
        buffer, flag = f.load(f.load(record)), f.load(f.load(record, 8))
        is_error = f.call("PyType_IsSubtype", f.load(problem, layout.type), f.shared(plan, "exception_class"))
        asks = f.variable(f.number(f.either(f.equal(is_error, 0), f.differ(f.single(plan, "stream"), 0))))
        with f.when(f.equal(f.get(asks), 0)):
            f.set(asks, f.load(flag, bits=8))
        with f.when(f.differ(f.get(asks), 0)):
            f.run_python(f.shared(plan, "judge"), f.load("%recorder", layout.recorder["late"]), buffer, problem)
    f.give(1)
    return f


def _computed(layout: Layout) -> Function:
    """Run a plan for the storages that wait for it, and do all that follows a flush."""
    f = Writer(layout, "computed", "plan", "recorder", "storages", "values", "nodes", "count", "collects")
    plan, checks = "%plan", f.load("%recorder", layout.recorder["checks"])
    f.proceed(f.call("located", plan, "%recorder"))
    f.proceed(f.call("unchanged", "%storages", "%values"))
    f.proceed(f.call("lends", plan, "%recorder", "%values"))
    entry, operands = f.single(plan, "entry"), (f.single(plan, "addresses"), f.single(plan, "runtime"))
    releases, launch = f.differ(f.single(plan, "release"), 0), f.single(plan, "launch")
    with f.when(f.differ(launch, 0)):
        f.proceed(f.call("launched", plan))
    with f.when(f.equal(launch, 0)), f.unless(releases):
        f.run_address(entry, *operands)
    with f.when(releases):
        with f.when(f.differ("%collects", 0)):
            f.call("PyGC_Enable")  # others run meanwhile
        state = f.call("PyEval_SaveThread")
        f.run_address(entry, *operands)
        f.call("PyEval_RestoreThread", state)
        f.call("PyGC_Disable")
    checked = f.call("PyList_Size", checks)
    with f.when(f.above(checked, 0)):
        f.call("Py_IncRef", checks)
        f.own(plan, checks)
        f.replace("%recorder", layout.recorder["checks"], f.call("PyList_New", 0))
    f.call("settled", plan, "%recorder", "%storages", "%values", "%count")
    interrupt = f.interrupt()  # what a handler looks at is computed, even where memory was overwritten
    f.call("PyList_SetSlice", "%values", 0, f.call("PyList_Size", "%values"), 0)
    f.call("keep_leaves", plan, "%recorder")
    code = f.variable(1)
    with f.when(f.above(checked, 0)):
        f.set(code, f.call("judged", plan, "%recorder", "%nodes", checks))
    with f.interrupted(interrupt):
        f.set(code, -1)
    f.give(f.get(code))
    return f


def _found_program(layout: Layout) -> Function:
    """Compute what is pending if there is a plan for it."""
    f = Writer(layout, "found_program", "desk", "recorder", "storages", "values", "nodes", "collects")
    count = f.call("PyList_Size", f.load("%recorder", layout.recorder["pending"]))
    seen = f.call("PyDict_New")
    f.need(f.differ(seen, 0), -1)
    code = f.call("awaited", "%desk", "%recorder", "%storages", "%values", "%nodes", seen)
    f.call("Py_DecRef", seen)
    f.proceed(code)
    with f.when(f.equal(f.call("PyList_Size", "%nodes"), 0)):
        f.need(f.equal(f.call("nothing_late", "%recorder"), 1))
        f.give(f.call("nothing_left", "%desk", "%recorder", count))
    f.proceed(f.call("add_cuts", "%desk", "%recorder", "%nodes"))
    key = f.call("PyList_AsTuple", "%nodes")
    f.need(f.differ(key, 0), -1)
    found = f.call("PyDict_GetItemWithError", f.load("%recorder", layout.recorder["flushes"]), key)
    f.call("Py_DecRef", key)
    f.need(f.both(f.differ(found, 0), f.differ(found, f.shared("%desk", "none"))))
    plan = f.call("PyLong_AsVoidPtr", f.call("PyTuple_GetItem", found, 0))
    f.need(f.equal(f.single(plan, "busy"), 0))
    f.call("Py_IncRef", found)
    f.store("1", plan, P["busy"])
    code = f.call("computed", plan, "%recorder", "%storages", "%values", "%nodes", count, "%collects")
    f.call("release", plan, 0)
    f.store("0", plan, P["busy"])
    f.call("Py_DecRef", found)
    f.give(code)
    return f


def _nothing_left(layout: Layout) -> Function:
    """Do what follows a flush that needed no program."""
    f = Writer(layout, "nothing_left", "plan", "recorder", "count")
    f.call("PyList_SetSlice", f.load("%recorder", layout.recorder["pending"]), 0, "%count", 0)
    f.put("%recorder", layout.recorder["_bytes"], f.shared("%plan", "zero"))
    f.put("%recorder", layout.recorder["most"], f.load("%recorder", layout.recorder["round"]))
    f.call("bump", f.shared("%plan", "front"), layout.front["flushes"], 1)
    f.call("keep_leaves", "%plan", "%recorder")
    f.give(1)
    return f


def _flushed(layout: Layout) -> Function:
    """Compute what is pending, if its program ran before."""
    f = Writer(layout, "flushed", "desk", "recorder")
    desk, collects = "%desk", f.call("PyGC_Disable")  # collecting may run anything
    lists = [f.call("PyList_New", 0) for _ in range(3)]
    code = f.variable(f.call("idle_modes", desk, "%recorder"))
    with f.when(f.equal(f.get(code), 1)):
        f.set(code, f.call("found_program", desk, "%recorder", *lists, collects))
    for held in lists:
        f.call("Py_DecRef", held)
    wants = f.differ(f.load(f.shared(desk, "wanted"), bits=32), 0)
    with f.when(f.both(f.equal(f.get(code), 1), wants)):
        started = f.call("PyObject_CallNoArgs", f.shared(desk, "start_pool"))
        with f.when(f.equal(started, 0)):
            f.set(code, -1)
        with f.when(f.differ(started, 0)):
            f.call("Py_DecRef", started)
    with f.when(f.differ(collects, 0)):
        f.call("PyGC_Enable")
    f.give(f.get(code))
    return f


def _flush(layout: Layout) -> Function:
    """`PyObject *(PyObject *self, PyObject *recorder)`: True if what is pending is computed now, None if it is not."""
    f = Writer(layout, FLUSH, "self", "recorder", exported=True)
    desk = f.outside(DESK)
    code, result = f.call("flushed", desk, "%recorder"), f.variable(f.shared(desk, "none"))
    f.need(f.differ(code, -1))
    with f.when(f.equal(code, 1)):
        f.set(result, f.shared(desk, "true"))
    f.call("Py_IncRef", f.get(result))
    f.give(f.get(result))
    return f


def _looked_at(layout: Layout) -> Function:
    """`Recorder.look`, for memory that waits for what this thread recorded."""
    f = Writer(layout, "looked_at", "plan", "recorder", "storage")
    plan, recorder = "%plan", layout.recorder
    f.need(f.equal(f.load("%storage", layout.storage["recorder"]), "%recorder"))
    entered = f.call("PyObject_CallObject", f.load("%recorder", recorder["enter"]), f.shared(plan, "at_once"))
    f.call("Py_DecRef", entered)
    f.need(f.equal(entered, f.shared(plan, "true")))
    code = f.call("flushed", plan, "%recorder")
    raised = tuple(f.variable(0) for _ in range(3))
    f.call("PyErr_Fetch", *map(f.address, raised))
    with f.when(f.differ(code, 0)):
        f.call("cleared", plan, "%recorder")
    f.call("Py_DecRef", f.call("PyObject_CallNoArgs", f.load("%recorder", recorder["leave"])))
    with f.interrupted(raised):
        f.give(-1)
    f.need(f.differ(code, 0))
    f.give(f.number(f.equal(f.load("%storage", layout.storage["value"]), f.shared(plan, "none"))))
    return f


def _cleared(layout: Layout) -> Function:
    """`Recorder.clear_up` after a flush; how many nodes there are is looked at when leaves are."""
    f = Writer(layout, "cleared", "plan", "recorder")
    plan, recorder, none = "%plan", layout.recorder, f.shared("%plan", "none")
    turn, swept = (f.call("PyLong_AsLongLong", f.load("%recorder", recorder[name])) for name in ("turn", "swept"))
    pending, freed, parted = (
        f.call("PyList_Size", f.load("%recorder", recorder[name])) for name in ("pending", "freed", "parted")
    )
    is_late = f.above(f.minus(turn, swept), KEPT_TURNS - 1)
    with f.when(f.either(is_late, f.both(f.equal(pending, 0), f.differ(freed, 0)))):
        method = f.call("PyObject_GetAttr", "%recorder", f.shared(plan, "clear_up_name"))
        f.call("Py_DecRef", f.call("PyObject_CallNoArgs", method))
        f.call("Py_DecRef", method)
        f.call("PyErr_Clear")
        f.give(1)
    with f.when(f.both(f.equal(pending, 0), f.differ(parted, 0))):
        storages, left = f.load("%recorder", recorder["parted"]), f.variable(parted)
        with f.while_above(left, 0):
            f.set(left, f.add(f.get(left), -1))
            f.put(f.call("PyList_GetItem", storages, f.get(left)), layout.storage["slots"], none)
        f.call("PyList_SetSlice", storages, 0, parted, 0)
    f.give(1)
    return f


def functions(layout: Layout) -> list[Function]:
    """All functions of the native flush."""
    makers = (
        *(_idle_modes, _nothing_late, _cuts, _add_cuts, _awaited, _filled, _known_at_once, _located),
        *(_unchanged, _settled, _keep_leaves, _judged, _computed, _found_program, _nothing_left),
        *(_flushed, _flush, _cleared, _looked_at),
    )
    return [make(layout) for make in makers]
