"""Native code that follows recipes: calls that recorded several values, gave several tensors, or wrote one in place.

`graphc.tensors.recipes` tells how a call is described. First comes what may fail, then the write, which is done whole.
"""

from __future__ import annotations

from graphc.native.code import Function
from graphc.native.objects import Layout, Writer
from graphc.repeats import (
    EARLIER,
    HEAD_GIVEN,
    IN_ENTRY,
    IN_HEAD,
    IN_RECIPE,
    IN_RESULT,
    IN_VALUE,
    MOST_VALUES,
    OWN_WRITES,
    RECIPE_ROOM,
    RECIPE_VALUES,
    RESULT,
    VALUE,
    WHOLE,
)

_VALUE_BYTES, _RESULT_BYTES = 8 * len(VALUE), 8 * len(RESULT)
_ROOM, _TENSORS = 8 * RECIPE_ROOM, 8 * (RECIPE_ROOM + MOST_VALUES)


def _value_of(layout: Layout) -> Function:
    """A value as a record tells; 0 when there is no memory. `read` is where in `keeps` the operands begin."""
    f = Writer(layout, "value_of", "plan", "recorder", "record", "read", "recipe")
    plan, none, zero = "%plan", f.shared("%plan", "none"), f.shared("%plan", "zero")
    count = f.load("%record", IN_VALUE["parents"])
    parts = [f.call("clone", f.shared(plan, "value_like")), f.call("PyTuple_New", count), f.call("PyList_New", 1)]
    parts.append(f.call("PyIter_Next", f.shared(plan, "serials")))
    value, parents, counter, serial = parts
    missing = f.equal(value, 0)
    for part in parts[1:]:
        missing = f.either(missing, f.equal(part, 0))
    with f.when(missing):
        for part in parts:
            f.call("Py_DecRef", part)
        f.call("PyErr_Clear")  # Python tries it again, and tells of it
        f.give(0)
    f.call("Py_IncRef", zero)
    f.call("PyList_SetItem", counter, 0, zero)
    keeps = f.load(f.load("%recorder", layout.recorder["repeats"]), layout.repeats["keeps"])
    left, which = f.variable(count), f.variable(f.load("%record", IN_VALUE["which"]))
    with f.while_above(left, 0):
        number = f.masked(f.get(which), 0xFF)
        keep = f.variable(0)
        with f.when(f.above(str(WHOLE), number)):
            f.set(keep, f.call("PyList_GetItem", keeps, f.add(number, "%read")))
        with f.when(f.equal(number, WHOLE)):
            f.set(keep, f.load("%recipe", IN_RECIPE["kept"]))
        with f.when(f.above(number, EARLIER - 1)):
            f.set(keep, f.load(f.scaled(f.add("%recipe", _ROOM), f.add(number, -EARLIER))))
        f.call("Py_IncRef", f.get(keep))
        f.call("PyTuple_SetItem", parents, f.minus(count, f.get(left)), f.get(keep))
        f.set(which, f.shifted(f.get(which), 8))
        f.set(left, f.add(f.get(left), -1))
    counts = f.variable(none)
    with f.when(f.equal(f.load("%record", IN_VALUE["counts"]), OWN_WRITES)):
        f.set(counts, counter)
    slots = layout.value
    for name in ("node", "name"):
        f.put(value, slots[name], f.load("%record", IN_VALUE[name]))
    f.replace(value, slots["parents"], parents)
    f.replace(value, slots["serial"], serial)
    f.put(value, slots["counter"], f.get(counts))
    f.call("Py_DecRef", counter)
    with f.when(f.differ(f.load("%record", IN_VALUE["flows"]), 0)):
        f.put(value, slots["grad"], f.shared(plan, "true"))
    with f.when(f.differ(f.load("%record", IN_VALUE["replaced"]), 0)):
        f.put(value, slots["replaced"], f.load("%record", IN_VALUE["replaced"]))
    f.call("pass_through", plan, "%recorder", f.load("%record", IN_VALUE["through"]), "%read", value)
    f.give(value)
    return f


def _tensor_over(layout: Layout) -> Function:
    """A tensor whose memory holds a value that is to be computed; 0 when there is no memory."""
    f = Writer(layout, "tensor_over", "plan", "recorder", "value", "type", "strides")
    plan = "%plan"
    parts = [f.call("clone", f.shared(plan, f"{name}_like")) for name in ("tensor", "storage", "lineage")]
    tensor, storage, lineage = parts
    missing = f.either(f.either(f.equal(tensor, 0), f.equal(storage, 0)), f.equal(lineage, 0))
    waiting, back, none = f.variable(0), f.variable(0), f.shared(plan, "none")
    flows = f.equal(f.load("%value", layout.value["grad"]), f.shared(plan, "true"))
    with f.unless(missing):
        f.set(waiting, f.call("PyWeakref_NewRef", storage, 0))
        with f.when(flows):
            f.set(back, f.call("PyWeakref_NewRef", lineage, 0))
        with f.unless(flows):
            f.call("Py_IncRef", none)
            f.set(back, none)
    failed = f.variable(1)
    with f.unless(f.either(f.equal(f.get(waiting), 0), f.equal(f.get(back), 0))):
        f.set(failed, f.call("PyList_Append", f.load("%recorder", layout.recorder["pending"]), f.get(waiting)))
    f.call("Py_DecRef", f.get(waiting))
    with f.when(f.differ(f.get(failed), 0)):
        for part in (*parts, f.get(back)):
            f.call("Py_DecRef", part)
        f.call("PyErr_Clear")
        f.give(0)
    counter, serial = (f.load("%value", layout.value[name]) for name in ("counter", "serial"))
    objects = {"recorder": "%recorder", "type": "%type", "value": "%value", "counter": counter, "serial": serial}
    for name, held in objects.items():
        f.put(storage, layout.storage[name], held)
    for name, held in {"_type": "%type", "_strides": "%strides", "_counter": counter}.items():
        f.put(tensor, layout.tensor[name], held)
    f.replace(tensor, layout.tensor["_storage"], storage)
    f.replace(tensor, layout.tensor["_lineage"], lineage)
    with f.when(flows):
        f.put("%value", layout.value["lineage"], f.get(back))
        f.put(lineage, layout.lineage["hist"], "%value")
    f.call("Py_DecRef", f.get(back))
    f.give(tensor)
    return f


def _shows(layout: Layout) -> Function:
    """Whether a tensor shows its memory as it did when the recipe was written."""
    f = Writer(layout, "shows", "given", "type", "strides", "chain", "offset")
    for name in ("type", "strides", "chain"):
        f.need(f.equal(f.load("%given", layout.tensor[f"_{name}"]), f"%{name}"))
    f.give(f.number(f.equal(f.call("PyLong_AsLongLong", f.load("%given", layout.tensor["_offset"])), "%offset")))
    return f


def _writable(layout: Layout) -> Function:
    """Whether a tensor may be written as the recipe tells, by what else the arguments are; finds its whole memory."""
    f = Writer(layout, "writable", "plan", "recorder", "table", "recipe", "target")
    plan, none, tensor, slots = "%plan", f.shared("%plan", "none"), layout.tensor, layout.storage
    storage, lineage = f.follow("%target", tensor["_storage"]), f.follow("%target", tensor["_lineage"])
    f.need(f.equal(f.load(storage, slots["recorder"]), "%recorder"))
    for name in ("export", "external", "origin"):
        f.need(f.equal(f.load(storage, slots[name]), none))
    f.need(f.equal(f.load(lineage, layout.lineage["hooks"]), none))
    f.need(f.equal(f.load("%target", tensor["_wrapped"]), f.shared(plan, "false")))
    shown = [f.load("%recipe", IN_RECIPE[name]) for name in ("type", "strides", "chain", "offset")]
    f.proceed(f.call("shows", "%target", *shown))
    flags = {
        "rootless": f.equal(f.load("%target", tensor["_root"]), none),
        "requires": f.equal(f.load(lineage, layout.lineage["requires_grad"]), f.shared(plan, "true")),
        "history": f.differ(f.load(lineage, layout.lineage["hist"]), none),
        "counted": f.differ(f.load("%target", tensor["_counter"]), none),
        "own": f.equal(f.load("%target", tensor["_counter"]), f.load(storage, slots["counter"])),
    }
    for name, flag in flags.items():
        f.need(f.equal(f.number(flag), f.load("%recipe", IN_RECIPE[name])))

    given = f.add("%table", 8 * HEAD_GIVEN)
    left, others = f.variable(f.load("%table", IN_HEAD["given"])), f.variable(0)
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        what = f.load(f.scaled(given, f.get(left)))
        with (
            f.when(f.differ(what, "%target")),
            f.when(f.is_tensor(plan, what)),
            f.when(f.equal(f.load(what, tensor["_storage"]), storage)),
        ):
            f.set(others, f.add(f.get(others), 1))
    sharers = f.load("%recipe", IN_RECIPE["sharers"])
    known = f.call("PyTuple_Size", sharers)
    f.need(f.equal(f.get(others), known))
    f.set(left, known)
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        record = f.call("PyTuple_GetItem", sharers, f.get(left))
        place, offset = (f.call("PyLong_AsLongLong", f.call("PyTuple_GetItem", record, at)) for at in (0, 4))
        other = f.load(f.scaled(given, place))
        f.need(f.differ(other, "%target"))
        f.need(f.is_tensor(plan, other))
        f.need(f.equal(f.load(other, tensor["_storage"]), storage))
        f.proceed(f.call("shows", other, *[f.call("PyTuple_GetItem", record, at) for at in (1, 2, 3)], offset))

    whole = f.load("%recipe", IN_RECIPE["whole"])
    with f.when(f.differ(whole, 0)):
        value = f.load(storage, slots["value"])
        keep, node = f.variable(value), f.variable(0)
        with f.when(f.differ(value, none)):
            f.set(node, f.load(value, layout.value["node"]))
        with f.when(f.equal(value, none)):
            f.set(keep, f.call("leaf_of", plan, "%recorder", storage))
            f.need(f.differ(f.get(keep), 0))
            f.set(node, f.load(f.get(keep), layout.binding["node"]))
        f.need(f.equal(f.get(node), whole))
        f.store(f.get(keep), "%recipe", IN_RECIPE["kept"])
        f.proceed(f.call("kept_alive", "%recorder", f.get(keep)))
    f.give(1)
    return f


def _overwrite(layout: Layout) -> Function:
    """Let the memory that a tensor shows hold a value, and that be its history if gradients flow; 0, and nothing
    changed, when there is no memory.
    """
    f = Writer(layout, "overwrite", "plan", "recorder", "target", "value", "flows")
    plan, none, slots = "%plan", f.shared("%plan", "none"), layout.storage
    storage, lineage = (f.load("%target", layout.tensor[name]) for name in ("_storage", "_lineage"))
    counter = f.load("%target", layout.tensor["_counter"])
    counted, writes = f.differ(counter, none), f.variable(f.shared(plan, "zero"))
    with f.when(counted):
        count = f.call("PyLong_AsLongLong", f.call("PyList_GetItem", counter, 0))
        f.set(writes, f.call("PyLong_FromLongLong", f.add(count, 1)))
    with f.unless(counted):
        f.call("Py_IncRef", f.get(writes))
    waiting, back = (f.call("PyWeakref_NewRef", held, 0) for held in (storage, lineage))
    missing = f.either(f.either(f.equal(f.get(writes), 0), f.equal(waiting, 0)), f.equal(back, 0))
    failed = f.variable(f.number(missing))
    with f.unless(missing):  # also of memory that is pending already: loops that nobody looks at end by their number
        f.set(failed, f.call("PyList_Append", f.load("%recorder", layout.recorder["pending"]), waiting))
    f.call("Py_DecRef", waiting)
    with f.when(f.differ(f.get(failed), 0)):
        for part in (f.get(writes), back):
            f.call("Py_DecRef", part)
        f.call("PyErr_Clear")
        f.give(0)
    f.put("%value", layout.value["counter"], counter)
    f.put("%value", layout.value["version"], f.get(writes))
    with f.when(counted):
        f.call("PyList_SetItem", counter, 0, f.get(writes))
    with f.unless(counted):
        f.call("Py_DecRef", f.get(writes))
    f.call("bump", storage, slots["version"], 1)
    f.count_up(f.shared(plan, "touched"))
    for name in ("slot", "slots", "kept"):
        f.put(storage, slots[name], none)
    f.put(storage, slots["value"], "%value")
    with f.when(f.differ("%flows", 0)):
        f.put(lineage, layout.lineage["version"], f.load(storage, slots["version"]))
        f.put("%value", layout.value["lineage"], back)
        f.put(lineage, layout.lineage["hist"], "%value")
    f.call("Py_DecRef", back)
    f.give(1)
    return f


def _drop(layout: Layout) -> Function:
    """Let go of what was made: so many values, and tensors."""
    f = Writer(layout, "drop", "recipe", "values", "tensors")
    for room, count in ((_ROOM, "%values"), (_TENSORS, "%tensors")):
        left = f.variable(count)
        with f.while_above(left, 0):
            f.set(left, f.add(f.get(left), -1))
            f.call("Py_DecRef", f.load(f.scaled(f.add("%recipe", room), f.get(left))))
    f.give(1)
    return f


def _packed(layout: Layout) -> Function:
    """What a call gives: one tensor, or all in what packs them; 0 when there is no memory."""
    f = Writer(layout, "packed", "plan", "recipe", "count")
    tensors, packer = f.add("%recipe", _TENSORS), f.load("%recipe", IN_RECIPE["packer"])
    with f.when(f.equal(packer, 0)):
        one = f.load(tensors)
        f.call("Py_IncRef", one)
        f.give(one)
    made = f.call("PyTuple_New", "%count")
    with f.when(f.equal(made, 0)):
        f.call("PyErr_Clear")
        f.give(0)
    left = f.variable("%count")
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        one = f.load(f.scaled(tensors, f.get(left)))
        f.call("Py_IncRef", one)
        f.call("PyTuple_SetItem", made, f.get(left), one)
    with f.when(f.equal(packer, f.shared("%plan", "none"))):
        f.give(made)
    operands, found = f.call("PyTuple_New", 1), f.variable(0)
    with f.when(f.equal(operands, 0)):
        f.call("Py_DecRef", made)
    with f.when(f.differ(operands, 0)):
        f.call("PyTuple_SetItem", operands, 0, made)
        f.set(found, f.call("PyObject_CallObject", packer, operands))
        f.call("Py_DecRef", operands)
    with f.when(f.equal(f.get(found), 0)):
        f.call("PyErr_Clear")
    f.give(f.get(found))
    return f


def _followed(layout: Layout) -> Function:
    """What a call gives whose entry has a recipe, after it was recorded."""
    f = Writer(layout, "followed", "plan", "recorder", "table", "found", "read")
    plan, recipe = "%plan", f.load("%found", IN_ENTRY["recipe"])
    target, writes = f.variable(0), f.load(recipe, IN_RECIPE["writes"])
    with f.when(f.differ(writes, 0)):
        place = f.load(recipe, IN_RECIPE["target"])
        f.set(target, f.load(f.scaled(f.add("%table", 8 * HEAD_GIVEN), place)))
        f.need(f.is_tensor(plan, f.get(target)))
        f.proceed(f.call("writable", plan, "%recorder", "%table", recipe, f.get(target)))
    count, tensors = f.load(recipe, IN_RECIPE["values"]), f.load(recipe, IN_RECIPE["results"])
    left, record = f.variable(count), f.variable(f.add(recipe, 8 * RECIPE_VALUES))
    with f.while_above(left, 0):
        done = f.minus(count, f.get(left))
        value = f.call("value_of", plan, "%recorder", f.get(record), "%read", recipe)
        with f.when(f.equal(value, 0)):
            f.call("drop", recipe, done, 0)
            f.give(0)
        f.store(value, f.scaled(f.add(recipe, _ROOM), done))
        f.set(record, f.add(f.get(record), _VALUE_BYTES))
        f.set(left, f.add(f.get(left), -1))
    f.set(left, tensors)
    with f.while_above(left, 0):
        done = f.minus(tensors, f.get(left))
        value = f.load(f.scaled(f.add(recipe, _ROOM), f.load(f.get(record), IN_RESULT["value"])))
        about = [f.load(f.get(record), IN_RESULT[name]) for name in ("type", "strides")]
        tensor = f.call("tensor_over", plan, "%recorder", value, *about)
        with f.when(f.equal(tensor, 0)):
            f.call("drop", recipe, count, done)
            f.give(0)
        f.store(tensor, f.scaled(f.add(recipe, _TENSORS), done))
        f.set(record, f.add(f.get(record), _RESULT_BYTES))
        f.set(left, f.add(f.get(left), -1))
    given = f.variable(f.get(target))
    with f.when(f.differ(f.load(recipe, IN_RECIPE["nothing"]), 0)):
        f.set(given, f.shared(plan, "none"))
    with f.when(f.equal(tensors, 0)):
        f.call("Py_IncRef", f.get(given))
    with f.when(f.above(tensors, 0)):
        f.set(given, f.call("packed", plan, recipe, tensors))
    with f.when(f.both(f.differ(writes, 0), f.differ(f.get(given), 0))):
        value = f.load(f.scaled(f.add(recipe, _ROOM), f.load(recipe, IN_RECIPE["value"])))
        flows = f.load(recipe, IN_RECIPE["flows"])
        with f.when(f.equal(f.call("overwrite", plan, "%recorder", f.get(target), value, flows), 0)):
            f.call("Py_DecRef", f.get(given))
            f.set(given, 0)
    f.call("drop", recipe, count, tensors)
    f.need(f.differ(f.get(given), 0))
    f.call("noted", plan, "%recorder", "%found", "%read", f.load(recipe, IN_RECIPE["records"]))
    f.give(f.get(given))
    return f


def _noted(layout: Layout) -> Function:
    """After so many operations were recorded: add their checks of values, and count them."""
    f = Writer(layout, "noted", "plan", "recorder", "found", "read", "count")
    f.call("add_checks", "%plan", "%recorder", f.load("%found", IN_ENTRY["checks"]), "%read")
    for name in ("records", "native_records"):
        f.call("bump", f.shared("%plan", "front"), layout.front[name], "%count")
    f.call("bump", "%recorder", layout.recorder["_bytes"], f.load("%found", IN_ENTRY["nbytes"]))
    f.give(1)
    return f


def functions(layout: Layout) -> list[Function]:
    """All that follows recipes."""
    makers = (_value_of, _tensor_over, _shows, _writable, _overwrite, _drop, _packed, _noted, _followed)
    return [make(layout) for make in makers]
