"""The text of the native replay: what `Replay` does for a call whose guards hold, over the words of a plan.

Functions give 1 to go on, 0 when the call cannot be done here (then nothing has changed), -1 when an error is set.
What may run Python code comes first; from the guards on nothing does until the kernels run, so what is checked still
holds.
"""

from __future__ import annotations

from graphc.native import objects
from graphc.native.code import Function
from graphc.native.objects import Layout, Writer
from graphc.native.tables import (
    BUILT,
    GIVEN,
    MADE,
    MADE_STORAGE,
    MADE_TENSOR,
    ONE,
    TABLES,
    TUPLE,
    VIEW,
    P,
    T,
)

EQUAL = 2  # Py_EQ


def _settings(layout: Layout) -> Function:
    """Nothing is recorded or captured, gradients are on or off as they were, no memory is poisoned."""
    f = Writer(layout, "settings", "plan")
    plan = "%plan"

    modes, recorder = f.recorder_here(plan)
    enabled = f.variable(f.call("PyDict_GetItemWithError", modes, f.shared(plan, "enabled_name")))
    with f.when(f.equal(f.get(enabled), 0)):
        f.set(enabled, f.shared(plan, "true"))  # the thread has set nothing
    f.need(f.equal(f.get(enabled), f.single(plan, "enabled")))
    inference = f.call("PyDict_GetItemWithError", modes, f.shared(plan, "inference_name"))
    f.need(f.equal(f.number(f.equal(inference, f.shared(plan, "true"))), f.single(plan, "inference")))
    f.need(f.equal(f.load(f.shared(plan, "poison"), layout.option["_value"]), f.shared(plan, "false")))
    scope = f.variable(0)
    f.call("PyContextVar_Get", f.shared(plan, "scope"), 0, f.address(scope))
    f.call("Py_DecRef", f.get(scope))
    f.need(f.equal(f.get(scope), f.shared(plan, "no_scope")))
    f.call("Py_IncRef", recorder)
    f.own(plan, recorder)
    f.store(recorder, plan, P["recorder"])
    f.need(f.equal(f.load(recorder, layout.recorder["capture"]), f.shared(plan, "none")))
    for name in ("pending", "kept"):
        f.need(f.equal(f.call("PyList_Size", f.load(recorder, layout.recorder[name])), 0))
    f.give(1)
    return f


def _arguments(layout: Layout) -> Function:
    """The arguments are of the same kinds, and share memory with what they shared it with."""
    f = Writer(layout, "arguments", "plan", "args")
    plan, tensor = "%plan", layout.tensor
    with f.each(plan, T["arguments"], TABLES["arguments"]) as record:
        given = f.load(f.scaled("%args", f.load(record)))
        f.need(f.equal(f.load(given, layout.type), f.load(record, 8)))
        f.need(f.equal(f.load(given, tensor["_type"]), f.load(record, 16)))
        is_whole, strides = f.equal(f.load(given, tensor["_chain"]), f.shared(plan, "empty")), f.load(record, 48)
        with f.when(f.equal(strides, 0)):
            f.need(is_whole)
        with f.when(f.differ(strides, 0)):
            # A view whose elements lie in one piece.
            f.need(f.differ(f.number(is_whole), 1))
            own = f.load(given, tensor["_strides"])
            f.need(f.equal(f.call("PyObject_RichCompareBool", own, strides, EQUAL), 1))
        f.need(f.equal(f.load(given, tensor["_wrapped"]), f.shared(plan, "false")))
        frozen = f.equal(f.load(given, tensor["_counter"]), f.shared(plan, "none"))
        f.need(f.equal(f.number(frozen), f.load(record, 64)))
        f.need(f.equal(f.requires(plan, f.follow(given, tensor["_lineage"])), f.load(record, 24)))
        storage, expected = f.follow(given, tensor["_storage"]), f.load(record, 32)
        with f.when(f.differ(expected, 0)):
            f.need(f.equal(storage, expected))
        with f.when(f.equal(expected, 0)), f.each(plan, T["captured"], 1) as captured:
            f.need(f.differ(f.load(captured), storage))
        leader, begin = f.load(record, 56), f.load(plan, T["arguments"][0])
        other = f.variable(record)
        with f.when(f.equal(leader, -1)), f.while_above(other, begin):
            f.set(other, f.add(f.get(other), -8 * TABLES["arguments"]))
            f.need(f.differ(f.load(f.get(other), 40), storage))
        with f.when(f.differ(leader, -1)):
            f.need(f.equal(f.load(f.scaled("%args", f.load(f.scaled(begin, leader)))), given))
        f.store(storage, record, 40)
    with f.each(plan, T["fixed"], TABLES["fixed"]) as record:
        f.need(f.equal(f.load(f.scaled("%args", f.load(record))), f.load(record, 8)))
    with f.each(plan, T["constants"], TABLES["constants"]) as record:
        given, expected = f.load(f.scaled("%args", f.load(record))), f.load(record, 8)
        with f.when(f.differ(given, expected)):
            f.need(f.equal(f.load(given, layout.type), f.load(expected, layout.type)))
            f.need(f.equal(f.call("PyObject_RichCompareBool", given, expected, EQUAL), 1))
    with f.each(plan, T["gradients"], TABLES["gradients"]) as record:
        held, expected = f.follow(f.load(record), tensor["_grad"]), f.load(record, 8)
        with f.when(f.equal(expected, 0)):
            f.need(f.equal(held, f.shared(plan, "none")))
        with f.when(f.differ(expected, 0)):
            f.need(f.differ(held, f.shared(plan, "none")))
            f.need(f.equal(f.load(held, tensor["_type"]), expected))
            f.need(f.equal(f.load(held, tensor["_chain"]), f.shared(plan, "empty")))
    f.give(1)
    return f


def _calls(layout: Layout) -> Function:
    """Python functions that guard, or compute numbers."""
    f = Writer(layout, "calls", "plan")
    plan = "%plan"
    with f.each(plan, T["calls"], TABLES["calls"]) as record:
        found, expected = f.call("PyObject_CallNoArgs", f.load(record)), f.load(record, 8)
        f.need(f.differ(found, 0), -1)
        same = f.variable(1)
        with f.when(f.differ(found, expected)):
            f.set(same, 0)
            with f.when(f.equal(f.load(found, layout.type), f.load(expected, layout.type))):
                f.set(same, f.call("PyObject_RichCompareBool", found, expected, EQUAL))
        f.call("Py_DecRef", found)
        f.proceed(f.get(same))
    writes = f.single(plan, "writes")
    with f.when(f.differ(writes, 0)):
        found = f.call("PyObject_CallNoArgs", writes)
        f.need(f.differ(found, 0), -1)
        count = f.call("PyLong_AsLongLong", found)
        f.call("Py_DecRef", found)
        f.need(f.equal(count, f.single(plan, "writes_seen")))
    with f.each(plan, T["computes"], TABLES["computes"]) as record:
        found = f.call("PyObject_CallNoArgs", f.load(record))
        f.need(f.differ(found, 0), -1)
        number = f.call("PyFloat_AsDouble", found)
        f.call("Py_DecRef", found)
        f.need(f.equal(f.call("PyErr_Occurred"), 0), -1)
        f.store_double(number, f.load(record, 8))
    f.give(1)
    return f


def _memory(layout: Layout) -> Function:
    """Memory and objects of what the call will make."""
    f = Writer(layout, "memory", "plan")
    plan, none = "%plan", f.shared("%plan", "none")
    spares = f.single(plan, "spares")

    def taken(record: str) -> str:
        found = f.call("take", plan, record)
        f.need(f.differ(found, 0), -1)
        return found

    with f.each(plan, T["takes"], TABLES["takes"]) as record:
        found = taken(f.load(record, 8))
        f.own(plan, found)
        f.store(found, f.load(record))
    with f.each(plan, T["spare"], TABLES["spare"]) as record:
        place = f.load(record)
        held = f.variable(f.call("PyList_GetItem", spares, place))
        with f.when(f.equal(f.get(held), none)):
            f.set(held, taken(f.load(record, 16)))
            f.call("PyList_SetItem", spares, place, f.get(held))
        f.store(f.get(held), f.load(record, 8))
    with f.each(plan, T["kept"], TABLES["kept"]) as record:
        again = f.call("reusable", plan, f.load(record), f.load(record, 8))
        f.store(again, record, 48)
        with f.when(f.equal(again, 0)):
            f.proceed(f.call("make", plan, f.load(record, 24), 0))
            with f.when(f.differ(f.load(record, 32), 0)):
                found = taken(f.load(record, 32))
                f.own(plan, found)
                f.store(found, f.load(record, 16))
    with f.each(plan, T["made"], TABLES["made"]) as record:
        again = f.call("idle_result", plan, record)
        f.proceed(f.call("make", plan, record, again))
        take = f.load(record, 40)
        with f.when(f.both(f.equal(again, 0), f.differ(take, 0))):
            found = taken(take)
            f.own(plan, found)
            f.store(found, f.load(record, 32))
        with f.when(f.differ(again, 0)):
            f.store(f.load(again, layout.storage["buffer"]), f.load(record, 32))
    f.give(1)
    return f


def _guards(layout: Layout) -> Function:
    """Everything that the captured call read is the very object that it was."""
    f = Writer(layout, "guards", "plan", "args")
    plan, tensor = "%plan", layout.tensor

    def hold(record: str, offset: int, value: str) -> None:
        # While the kernels run, other threads may put something else in its place.
        f.call("Py_IncRef", value)
        f.own(plan, value)
        f.store(value, record, offset)

    with f.each(plan, T["dicts"], TABLES["dicts"]) as record:
        found = f.call("PyDict_GetItemWithError", f.load(record), f.load(record, 8))
        with f.when(f.differ(found, f.load(record, 16))):
            f.call("PyErr_Clear")  # comparing keys failed: the slow way finds the same error
            f.give(0)
    for name, size in (("dict_sizes", "PyDict_Size"), ("list_sizes", "PyList_Size")):
        with f.each(plan, T[name], TABLES[name]) as record:
            f.need(f.equal(f.call(size, f.load(record)), f.load(record, 8)))
    place, key, value = f.variable(0), f.variable(0), f.variable(0)
    operands = f.address(place), f.address(key), f.address(value)
    with f.each(plan, T["walks"], TABLES["walks"]) as record:
        f.set(place, 0)
        pair, left = f.variable(f.load(record, 8)), f.variable(f.load(record, 16))
        with f.while_above(left, 0):
            f.need(f.differ(f.call("PyDict_Next", f.load(record), *operands), 0))
            expected = f.load(f.get(pair), 8)
            f.need(f.equal(f.get(key), f.load(f.get(pair))))
            f.need(f.either(f.equal(expected, 0), f.equal(f.get(value), expected)))
            f.set(pair, f.add(f.get(pair), 16))
            f.set(left, f.add(f.get(left), -1))
    with f.each(plan, T["proxies"], TABLES["proxies"]) as record:
        found = f.call("PyObject_GetItem", f.load(record), f.load(record, 8))
        f.call("Py_DecRef", found)
        with f.when(f.differ(found, f.load(record, 16))):
            f.call("PyErr_Clear")  # there is no such entry
            f.give(0)
    with f.each(plan, T["cells"], TABLES["cells"]) as record:
        found = f.call("PyCell_Get", f.load(record))
        f.call("Py_DecRef", found)
        f.need(f.equal(found, f.load(record, 8)))
    with f.each(plan, T["fields"], TABLES["fields"]) as record:
        f.need(f.equal(f.load(f.load(record)), f.load(record, 8)))
    with f.each(plan, T["items"], TABLES["items"]) as record:
        found = f.call("PyList_GetItem", f.load(record), f.load(record, 8))
        f.need(f.equal(found, f.load(record, 16)))
    with f.each(plan, T["tensors"], TABLES["tensors"]) as record:
        given = f.load(record)
        f.need(f.equal(f.load(given, tensor["_storage"]), f.load(record, 8)))
        f.need(f.equal(f.load(given, tensor["_chain"]), f.load(record, 16)))
        f.need(f.equal(f.requires(plan, f.follow(given, tensor["_lineage"])), f.load(record, 24)))
    with f.each(plan, T["kept"], TABLES["kept"]) as record, f.when(f.differ(f.load(record, 48), 0)):
        f.need(f.equal(f.call("reusable", plan, f.load(record), f.load(record, 8)), 1))
        held = f.load(f.load(record), tensor["_grad"])
        with f.when(f.differ(f.load(record, 32), 0)):
            memory = f.load(held, tensor["_storage"])
            f.store(f.load(memory, layout.storage["buffer"]), f.load(record, 16))
        hold(record, 48, held)
    with f.each(plan, T["written"], TABLES["written"]) as record:
        hold(record, 40, f.storage_of(plan, record))
    f.give(1)
    return f


def _gather(layout: Layout) -> Function:
    """Addresses of all buffers."""
    f = Writer(layout, "gather", "plan", "args")
    plan, none, buffers = "%plan", f.shared("%plan", "none"), layout.buffer
    with f.each(plan, T["inputs"], TABLES["inputs"]) as record:
        storage = f.storage_of(plan, record)
        f.need(f.equal(f.load(storage, layout.storage["value"]), none))
        buffer, lent = f.follow(storage, layout.storage["buffer"]), f.load(record, 24)
        f.need(f.differ(buffer, none))
        f.proceed(f.call("of_stream", plan, buffer))
        with f.when(f.differ(lent, 0)):
            # When there is more than the storage that holds it, somebody may look at the old value.
            f.need(f.both(f.is_alone(buffer), f.differ(f.load(buffer, buffers["_memory"]), none)))
            f.call("Py_IncRef", buffer)
            f.store(buffer, lent)
        f.call("Py_IncRef", buffer)
        f.own(plan, buffer)
        begin = f.variable(f.call("PyLong_AsVoidPtr", f.load(buffer, buffers["ptr"])))
        with f.when(f.above(f.load(record), VIEW - 1)):
            view = f.load(f.scaled("%args", f.load(record, 8)))
            offset = f.call("PyLong_AsLongLong", f.load(view, layout.tensor["_offset"]))
            f.set(begin, f.add(f.get(begin), f.times(offset, f.minus(f.load(record), str(VIEW - 1)))))
        f.store(f.get(begin), f.load(record, 16))
    with f.each(plan, T["outputs"], TABLES["outputs"]) as record:
        buffer = f.load(f.load(record))
        f.proceed(f.call("of_stream", plan, buffer))
        f.store(f.call("PyLong_AsVoidPtr", f.load(buffer, buffers["ptr"])), f.load(record, 8))
    f.give(f.call("brought", plan))
    return f


def _settle(layout: Layout) -> Function:
    """After the kernels: gradients, written memory, results get their buffers, in the order of `Replay.run`."""
    f = Writer(layout, "settle", "plan")
    plan, none, tensor, slots = "%plan", f.shared("%plan", "none"), layout.tensor, layout.storage
    zero, spares = f.shared(plan, "zero"), f.single(plan, "spares")
    with f.each(plan, T["kept"], TABLES["kept"]) as record:
        owner, buffer, made = f.load(record), f.load(f.load(record, 16)), f.load(record, 24)
        again = f.load(record, 48)
        with f.when(f.equal(again, 0)):
            f.put(f.load(made, MADE_STORAGE), slots["buffer"], buffer)
            f.put(owner, tensor["_grad"], f.load(made, MADE_TENSOR))
        with f.when(f.differ(again, 0)):
            memory, lineage = f.load(again, tensor["_storage"]), f.load(again, tensor["_lineage"])
            f.put(memory, slots["version"], zero)
            f.put(lineage, layout.lineage["version"], zero)
            f.put(memory, slots["slot"], none)
            f.put(memory, slots["slots"], none)
            before, cell = f.load(memory, slots["buffer"]), f.load(record, 40)
            with f.when(f.differ(cell, 0)):
                # The gradient gets the memory of a parameter, whose next value is written to that of this gradient.
                f.call("Py_IncRef", before)
                f.store(before, cell)
            f.put(memory, slots["buffer"], buffer)
    with f.each(plan, T["written"], TABLES["written"]) as record:
        memory, buffer, cell = f.load(record, 40), f.load(f.load(record, 16)), f.load(record, 32)
        before, place = f.load(memory, slots["buffer"]), f.load(record, 24)
        f.call("Py_IncRef", before)
        f.proceed(f.call("write", plan, memory, buffer))
        with f.when(f.equal(place, -1)):
            f.call("Py_DecRef", before)
        with f.when(f.differ(place, -1)):
            spare, free = f.variable(none), f.variable(before)
            with f.when(f.differ(cell, 0)):
                instead = f.load(cell)
                with f.when(f.differ(instead, 0)):
                    f.store("0", cell)
                    f.call("Py_DecRef", before)
                    f.set(free, instead)
            last = f.get(free)
            with (
                f.when(f.both(f.differ(last, buffer), f.is_alone(last))),
                f.when(f.differ(f.load(last, layout.buffer["_memory"]), none)),
            ):
                f.set(spare, last)
            f.call("Py_IncRef", f.get(spare))
            f.call("PyList_SetItem", spares, place, f.get(spare))
            f.call("Py_DecRef", last)
    with f.each(plan, T["made"], TABLES["made"]) as record:
        f.put(f.load(record, MADE_STORAGE), slots["buffer"], f.load(f.load(record, 32)))
        f.call("keep_result", plan, record)
    with f.each(plan, T["cleared"], 1) as record:
        f.put(f.load(record), tensor["_grad"], none)
    f.call("bump", f.shared(plan, "front"), layout.front["replays"], 1)
    f.call("bump", f.shared(plan, "tally"), layout.tally["runs"], 1)
    f.call("bump", f.shared(plan, "tally"), layout.tally["launches"], f.single(plan, "launches"))
    found = f.variable(f.single(plan, "always_check"))
    with f.each(plan, T["flags"], 1) as record, f.when(f.differ(f.load(f.load(record), bits=8), 0)):
        f.set(found, 1)
    for condition, name in (
        (f.differ(f.load(f.shared(plan, "wanted"), bits=32), 0), f.shared(plan, "start_pool")),
        (f.differ(f.get(found), 0), f.single(plan, "check")),
    ):
        with f.when(condition):
            done = f.call("PyObject_CallNoArgs", name)
            f.need(f.differ(done, 0), -1)
            f.call("Py_DecRef", done)
    f.give(1)
    return f


def _run(layout: Layout) -> Function:
    """All of a call but its result."""
    f = Writer(layout, "run", "plan", "args")
    plan, args = "%plan", "%args"
    for name, operands in (
        ("settings", ()),
        ("arguments", (args,)),
        ("calls", ()),
        ("memory", ()),
        ("guards", (args,)),
    ):
        f.proceed(f.call(name, plan, *operands))
    own = f.single(plan, "owned_count")
    f.proceed(f.call("gather", plan, args))
    entry, operands = f.single(plan, "entry"), (f.single(plan, "addresses"), f.single(plan, "runtime"))
    releases, launch = f.differ(f.single(plan, "release"), 0), f.single(plan, "launch")
    with f.when(f.differ(launch, 0)):
        f.proceed(f.call("launched", plan))
    with f.when(f.equal(launch, 0)), f.unless(releases):
        f.run_address(entry, *operands)
    with f.when(releases):
        state = f.call("PyEval_SaveThread")
        f.run_address(entry, *operands)
        f.call("PyEval_RestoreThread", state)
    interrupt = f.interrupt()
    f.call("release", plan, own)
    with f.each(plan, T["copies"], TABLES["copies"]) as record:
        source, target = (
            f.call("PyLong_AsVoidPtr", f.load(f.load(f.load(record, place)), layout.buffer["ptr"])) for place in (0, 8)
        )
        f.copy(source, target, f.load(record, 16))
    code = f.call("settle", plan)
    with f.interrupted(interrupt):
        f.give(-1)
    f.give(code)
    return f


def _leaf(layout: Layout) -> Function:
    """A new reference to one object of the result."""
    f = Writer(layout, "leaf", "args", "record")
    kind, what = f.load("%record"), f.load("%record", 8)
    found = f.variable(what)
    with f.when(f.equal(kind, MADE)):
        f.set(found, f.load(what))
    with f.when(f.equal(kind, GIVEN)):
        f.set(found, f.load(f.scaled("%args", what)))
    f.call("Py_IncRef", f.get(found))
    f.give(f.get(found))
    return f


def _result(layout: Layout) -> Function:
    """What the call returns; 0 with an error."""
    f = Writer(layout, "result", "plan", "args")
    plan, kind = "%plan", f.single("%plan", "result_kind")
    with f.when(f.equal(kind, ONE)):
        f.give(f.call("leaf", "%args", f.load(plan, T["leaves"][0])))
    count = f.single(plan, "leaves_count")
    is_list = f.differ(kind, TUPLE)
    made = f.variable(0)
    with f.when(is_list):
        f.set(made, f.call("PyList_New", count))
    with f.unless(is_list):
        f.set(made, f.call("PyTuple_New", count))
    f.need(f.differ(f.get(made), 0))
    place = f.variable(0)
    with f.each(plan, T["leaves"], TABLES["leaves"]) as record:
        item = f.call("leaf", "%args", record)
        with f.when(is_list):
            f.call("PyList_SetItem", f.get(made), f.get(place), item)
        with f.unless(is_list):
            f.call("PyTuple_SetItem", f.get(made), f.get(place), item)
        f.set(place, f.add(f.get(place), 1))
    with f.when(f.equal(kind, BUILT)):
        operands = f.call("PyTuple_New", 1)
        f.need(f.differ(operands, 0))
        f.call("PyTuple_SetItem", operands, 0, f.get(made))
        f.set(made, f.call("PyObject_CallObject", f.single(plan, "build"), operands))
        f.call("Py_DecRef", operands)
    f.give(f.get(made))
    return f


def _entry(layout: Layout) -> Function:
    """`PyObject *(PyObject *self, PyObject *const *args, Py_ssize_t count)`: `self` is a tuple that begins with the
    plan's address.
    """
    f = Writer(layout, "graphc_replay", "self", "args", "count", exported=True)
    plan = f.call("PyLong_AsVoidPtr", f.call("PyTuple_GetItem", "%self", 0))
    missed = f.shared(plan, "missed")
    with f.unless(f.both(f.equal("%count", f.single(plan, "count")), f.equal(f.single(plan, "busy"), 0))):
        f.call("Py_IncRef", missed)
        f.give(missed)
    f.store("1", plan, P["busy"])
    code, result = f.variable(f.call("run", plan, "%args")), f.variable(0)
    with f.when(f.equal(f.get(code), 1)):
        f.set(result, f.call("result", plan, "%args"))
        f.store("0", plan, P["missed_calls"])
    f.call("release", plan, 0)
    with f.each(plan, T["inputs"], TABLES["inputs"]) as record:
        place = f.load(record, 24)
        with f.when(f.differ(place, 0)):
            lent = f.load(place)
            f.store("0", place)
            f.call("Py_DecRef", lent)
    f.store("0", plan, P["busy"])
    with f.when(f.equal(f.get(code), 0)):
        f.call("Py_IncRef", missed)
        f.give(missed)
    f.give(f.get(result))
    return f


def functions(layout: Layout) -> list[Function]:
    """All functions of the native replay. `graphc_replay` is the one to call."""
    makers = (
        *(_settings, _arguments, _calls, _memory, _guards, _gather, _settle, _run),
        *(_leaf, _result, _entry),
    )
    return [*objects.functions(layout), *(make(layout) for make in makers)]
