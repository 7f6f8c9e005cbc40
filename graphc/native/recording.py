"""The text of native recording: a call that recorded the same before, without running its function.

`graphc.tensors.learning` tells which calls are such. Functions give 0 when something else is asked for: Python then
makes the call, and so far only what it would have done as well was changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphc.native import arguments, recipes, views
from graphc.native.code import Function
from graphc.native.objects import Layout, Writer
from graphc.native.views import MODES, NO_VIEW
from graphc.recording import MAX_PENDING_BYTES
from graphc.repeats import (
    ARGUMENT,
    ENABLED,
    ENTRY,
    FLOWS,
    HASHED,
    HEAD,
    HEAD_GIVEN,
    HEAD_KEY,
    IN_ENTRY,
    IN_HEAD,
    IN_KEY,
    INFERENCE,
    KEY,
    LEFT,
    LOOKED_AT,
    OWNING,
    PLACES,
    RECIPE,
    SHIFT,
    VALUE,
    WORDS,
)

OPERATORS = tuple(f"graphc_operator_{number}" for number in range(48))  # methods of tensors
AGAIN = "graphc_again"
DESK = "graphc_desk"  # the word that holds the address of what all recorders share

# Words of the desk: the address of what plans share too, then for each operator the method, and what is called when the
# operation is not in the table.
OPERATOR = ("method", "otherwise")
_O = {name: 8 * place for place, name in enumerate(OPERATOR)}
_MOST_FRAMES = 64
_CODES = 128  # places for code objects, in pairs: users' and this package's
SEEN_WORDS = _CODES + 1  # before them, how many files of this package were known when they were entered
_HASHED = str(HASHED - (1 << 64))


def _is_users(layout: Layout) -> Function:
    """Whether a code object is none of this package's; what was found out of the last ones is kept."""
    f = Writer(layout, "is_users", "plan", "code")
    files = f.shared("%plan", "own_files")
    seen, size = f.shared("%plan", "codes_seen"), f.call("PySet_Size", files)
    with f.when(f.differ(f.load(seen), size)):
        f.store(size, seen)
        left = f.variable(_CODES)
        with f.while_above(left, 0):
            place = f.scaled(seen, f.get(left))
            f.set(left, f.add(f.get(left), -1))
            f.call("Py_DecRef", f.load(place))
            f.store("0", place)
    which = f.add(f.times(f.masked(f.shifted("%code", 6), _CODES // 2 - 1), "2"), 1)
    for users in (1, 0):
        place = f.scaled(seen, f.add(which, 1 - users))
        with f.when(f.equal(f.load(place), "%code")):
            f.give(users)
    file = f.call("PyObject_GetAttr", "%code", f.shared("%plan", "file_name"))
    f.call("Py_DecRef", file)
    found = f.number(f.equal(f.call("PySet_Contains", files, file), 0))
    f.put(f.scaled(seen, f.add(f.add(which, 1), f.minus("0", found))), 0, "%code")
    f.give(found)
    return f


def _user_place(layout: Layout) -> Function:
    """The code object, borrowed, and the place in it of the user's line that runs."""
    f = Writer(layout, "user_place", "plan", "key")
    frame = f.variable(f.call("PyEval_GetFrame"))
    f.need(f.differ(f.get(frame), 0))
    left = f.variable(_MOST_FRAMES)
    with f.while_above(left, 0):
        now = f.get(frame)
        code = f.call("PyFrame_GetCode", now)
        f.call("Py_DecRef", code)  # its frame keeps it
        with f.when(f.differ(f.call("is_users", "%plan", code), 0)):
            f.store(code, "%key", IN_KEY["code"])
            f.store(f.call("PyFrame_GetLasti", now), "%key", IN_KEY["place"])
            f.give(1)
        below = f.call("PyFrame_GetBack", now)
        f.need(f.differ(below, 0))
        f.call("Py_DecRef", below)
        f.set(frame, below)
        f.set(left, f.add(f.get(left), -1))
    f.give(0)
    return f


def _entry_of(layout: Layout) -> Function:
    """The entry of the key in a table, or 0."""
    f = Writer(layout, "entry_of", "table")
    key = f.add("%table", 8 * HEAD_KEY)
    words = f.add(f.times(f.load(key, IN_KEY["count"]), str(len(ARGUMENT))), len(KEY))
    mixed, left = f.variable(0), f.variable(words)
    with f.while_above(left, 0):
        word = f.load(f.scaled(key, f.minus(words, f.get(left))))
        product = f.times(f.xor(f.get(mixed), word), _HASHED)
        f.set(mixed, f.xor(product, f.shifted(product, 32)))
        f.set(left, f.add(f.get(left), -1))
    last = f.add(f.shifted(f.times(f.get(mixed), _HASHED), SHIFT), LOOKED_AT)
    entries, ahead = f.add("%table", 8 * len(HEAD)), f.variable(LOOKED_AT)
    with f.while_above(ahead, 0):
        place = f.masked(f.minus(last, f.get(ahead)), PLACES - 1)
        entry = f.add(entries, f.times(place, str(8 * WORDS)))
        f.set(left, words)
        with f.while_above(left, 0):
            at = f.minus(words, f.get(left))
            differs = f.differ(f.load(f.scaled(entry, at)), f.load(f.scaled(key, at)))
            f.set(left, f.add(f.get(left), -1))
            with f.when(differs):
                f.set(left, -1)
        with f.when(f.equal(f.get(left), 0)):
            f.give(entry)
        f.set(ahead, f.add(f.get(ahead), -1))
    f.give(0)
    return f


def _made(layout: Layout) -> Function:
    """The tensor of a call; 0 when there is no memory."""
    f = Writer(layout, "made", "plan", "recorder", "found", "read")
    record = f.add("%found", IN_ENTRY[VALUE[0]])
    value = f.call("value_of", "%plan", "%recorder", record, "%read", 0)
    f.need(f.differ(value, 0))
    type, strides = (f.load("%found", IN_ENTRY[what]) for what in ("type", "strides"))
    tensor = f.call("tensor_over", "%plan", "%recorder", value, type, strides)
    f.call("Py_DecRef", value)
    f.need(f.differ(tensor, 0))
    f.call("noted", "%plan", "%recorder", "%found", "%read", 1)
    f.give(tensor)
    return f


@contextmanager
def _records(f: Writer, table: str, count: int) -> Iterator[list[str]]:
    """What is written inside runs for each member, a tuple of `count` objects, of a tuple; 0 has none."""
    with f.when(f.differ(table, 0)):
        size = f.call("PyTuple_Size", table)
        left = f.variable(size)
        with f.while_above(left, 0):
            record = f.call("PyTuple_GetItem", table, f.minus(size, f.get(left)))
            yield [f.call("PyTuple_GetItem", record, place) for place in range(count)]
            f.set(left, f.add(f.get(left), -1))


def _held(f: Writer, place: str) -> str:
    """What keeps the operand valid whose place among the tensors is a number of Python."""
    keeps = f.load(f.load("%recorder", f.layout.recorder["repeats"]), f.layout.repeats["keeps"])
    return f.call("PyList_GetItem", keeps, f.add(f.call("PyLong_AsLongLong", place), "%read"))


def _pass_through(layout: Layout) -> Function:
    """Tell of a value which views it was made through: `(nodes, ((place, node, names), ...))`, or 0 for none."""
    f = Writer(layout, "pass_through", "plan", "recorder", "through", "read", "value")
    f.need(f.differ("%through", 0))
    nodes, views = (f.call("PyTuple_GetItem", "%through", place) for place in range(2))
    seen = f.call("PyList_New", 0)
    with _records(f, views, 3) as (place, node, names):
        operands = f.tuple_of(node, _held(f, place), names)
        view = f.call("PyObject_CallObject", f.shared("%plan", "seen_class"), operands)
        f.call("PyList_Append", seen, view)
        f.call("Py_DecRef", view)
        f.call("Py_DecRef", operands)
    f.replace("%value", layout.value["through"], f.tuple_of(nodes, seen))
    f.call("Py_DecRef", seen)
    f.give(1)
    return f


def _add_checks(layout: Layout) -> Function:
    """Let values be checked: `((node, places, error), ...)`, or 0 for none."""
    f = Writer(layout, "add_checks", "plan", "recorder", "checks", "read")
    with _records(f, "%checks", 3) as (node, places, error):
        value = f.call("clone", f.shared("%plan", "value_like"))
        f.put(value, layout.value["node"], node)
        count = f.call("PyTuple_Size", places)
        parents, left = f.call("PyTuple_New", count), f.variable(count)
        with f.while_above(left, 0):
            at = f.minus(count, f.get(left))
            keep = _held(f, f.call("PyTuple_GetItem", places, at))
            f.call("Py_IncRef", keep)
            f.call("PyTuple_SetItem", parents, at, keep)
            f.set(left, f.add(f.get(left), -1))
        f.replace(value, layout.value["parents"], parents)
        f.replace(value, layout.value["serial"], f.call("PyIter_Next", f.shared("%plan", "serials")))
        check = f.tuple_of(node, value, error)
        f.call("PyList_Append", f.load("%recorder", layout.recorder["checks"]), check)
        f.call("Py_DecRef", check)
        f.call("Py_DecRef", value)
    f.give(1)
    return f


_CALL = (*MODES, "inference")


def _entered(layout: Layout) -> Function:
    """The tensor of a call that is in the table; 0 after noting whether nothing but the entry is missing."""
    f = Writer(layout, "entered", *_CALL)
    plan, key, given = "%plan", f.add("%table", 8 * HEAD_KEY), f.add("%table", 8 * HEAD_GIVEN)
    count = f.load("%table", IN_HEAD["given"])
    flows, left = f.variable(f.times("%inference", str(INFERENCE))), f.variable(0)
    owned, numbers = f.variable(0), f.variable(0)
    with f.when(f.differ("%enabled", 0)):
        f.set(flows, f.add(f.get(flows), ENABLED))
        f.set(left, count)
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        with f.when(f.equal(f.call("wants", plan, f.load(f.scaled(given, f.get(left)))), 1)):
            f.set(flows, f.add(f.get(flows), FLOWS))
            f.set(left, 0)
    f.call("begin_key", plan, "%recorder", "%table", "%function", f.get(flows))
    with f.when(f.differ(f.load("%table", IN_HEAD["bare"]), 0)):
        found = f.variable(f.call("entry_of", "%table"))  # of the key without arguments
        with f.when(f.differ(f.get(found), 0)), f.when(f.equal(f.load(f.get(found), IN_ENTRY["kind"]), OWNING)):
            f.set(owned, f.load(f.get(found), IN_ENTRY["recipe"]))
            f.set(numbers, f.load(f.get(owned)))
            f.set(found, 0)
        with f.when(f.differ(f.get(found), 0)), f.when(f.equal(f.load(f.get(found), IN_ENTRY["kind"]), LEFT)):
            service = f.load(f.get(found), IN_ENTRY["recipe"])
            with f.when(f.differ(service, 0)):
                made = f.call("served", plan, "%recorder", "%table", service, "%inference")
                with f.when(f.differ(made, 0)):
                    f.give(made)
            f.store("0", key, IN_KEY["count"])
            f.store(str(ENTRY), "%table", IN_HEAD["wanted"])
            f.give(0)
    keeps = f.load(f.load("%recorder", layout.recorder["repeats"]), layout.repeats["keeps"])
    order = f.call("PyDict_GetItemWithError", f.shared(plan, "orders"), "%function")
    with f.when(f.differ(order, 0)):
        f.set(left, f.call("PyLong_AsLongLong", order))
        with f.while_above(left, 0):
            place = f.add(f.masked(f.get(left), 0xFF), -1)
            f.set(left, f.shifted(f.get(left), 8))
            with f.when(f.above(count, place)):
                what, flowing = f.load(f.scaled(given, place)), f.masked(f.get(flows), FLOWS)
                with f.when(f.is_tensor("%plan", what)):
                    f.proceed(f.call("operand", plan, "%recorder", "%table", "%function", flowing, what))
        f.store("0", key, IN_KEY["count"])  # they come again, with all others
    read = f.call("PyList_Size", keeps)
    f.store(read, "%table", IN_HEAD["first"])
    f.set(left, count)
    unread = f.variable(f.call("PyDict_GetItemWithError", f.shared(plan, "unread"), "%function"))
    with f.when(f.differ(f.get(unread), 0)):
        f.set(unread, f.call("PyLong_AsLongLong", f.get(unread)))
    with f.while_above(left, 0):
        what = f.load(f.scaled(given, f.minus(count, f.get(left))))
        own = f.variable(f.masked(f.get(numbers), 1))
        with f.when(f.differ(f.get(own), 0)):
            f.set(own, f.call("is_number", plan, what))
        with f.when(f.differ(f.get(own), 0)):
            f.proceed(f.call("add_part", "%table", 0, f.load(what, layout.type)))
        with f.when(f.equal(f.get(own), 0)):
            f.proceed(f.call("argument", plan, "%recorder", "%table", what, f.get(unread)))
        for bits in (unread, numbers):
            f.set(bits, f.shifted(f.get(bits), 1))
        f.set(left, f.add(f.get(left), -1))
    with f.when(f.differ(f.get(owned), 0)):
        f.proceed(f.call("own_leaves", plan, "%recorder", "%table", f.get(owned)))
    entry = f.call("entry_of", "%table")
    with f.when(f.equal(entry, 0)):
        f.call("disown", "%recorder", "%table")
        f.store(str(ENTRY), "%table", IN_HEAD["wanted"])
        f.give(0)
    draws = f.variable(1)
    with f.when(f.differ(f.get(owned), 0)):
        f.set(draws, f.call("drawn", plan, "%recorder", "%table"))
    found = f.variable(0)
    with f.when(f.differ(f.get(draws), 0)):
        is_recipe = f.equal(f.load(entry, IN_ENTRY["kind"]), RECIPE)
        with f.when(is_recipe):
            f.set(found, f.call("followed", plan, "%recorder", "%table", entry, read))
        with f.unless(is_recipe):
            f.set(found, f.call("made", plan, "%recorder", entry, read))
        with f.when(f.equal(f.get(found), 0)):
            f.call("undrawn", plan, f.get(draws))
    with f.when(f.equal(f.get(found), 0)):
        f.call("disown", "%recorder", "%table")
        f.give(0)
    with f.when(f.differ(f.get(owned), 0)):
        f.call("note_own", plan, "%recorder", "%table", f.get(owned))
    f.give(f.get(found))
    return f


def _alone(layout: Layout) -> Function:
    """The tensor of a call, while nobody else records or runs what is recorded."""
    f = Writer(layout, "alone", *_CALL)
    recorder = layout.recorder
    f.proceed(f.call("user_place", "%plan", f.add("%table", 8 * HEAD_KEY)))
    taken = f.call("PyObject_CallObject", f.load("%recorder", recorder["enter"]), f.shared("%plan", "at_once"))
    f.call("Py_DecRef", taken)
    f.need(f.equal(taken, f.shared("%plan", "true")))
    with f.when(f.above(f.call("PyList_Size", f.load("%recorder", recorder["seen"])), 0)):
        f.replace("%recorder", recorder["seen"], f.call("PyList_New", 0))
    found = f.call("entered", *[f"%{name}" for name in _CALL])
    raised = tuple(f.variable(0) for _ in range(3))
    f.call("PyErr_Fetch", *map(f.address, raised))
    f.call("Py_DecRef", f.call("PyObject_CallNoArgs", f.load("%recorder", recorder["leave"])))
    with f.interrupted(raised):
        pass
    f.give(found)
    return f


def _found(layout: Layout) -> Function:
    """The tensor of a call, while nothing is collected."""
    f = Writer(layout, "found", *_CALL, "packs")
    recorder = layout.recorder
    with f.when(f.differ(f.call("PyDict_GetItemWithError", f.shared("%plan", "views"), "%function"), 0)):
        view = f.call("viewed", *[f"%{name}" for name in MODES])
        with f.when(f.differ(view, NO_VIEW)):
            f.give(view)
    f.need(f.equal("%packs", 0))
    most = f.call("PyLong_AsLongLong", f.load("%recorder", recorder["most"]))
    f.need(f.above(most, f.call("PyList_Size", f.load("%recorder", recorder["pending"]))))
    f.need(f.above(str(MAX_PENDING_BYTES), f.call("PyLong_AsLongLong", f.load("%recorder", recorder["_bytes"]))))
    f.give(f.call("alone", *[f"%{name}" for name in _CALL]))
    return f


def _recorded(layout: Layout) -> Function:
    """The tensor of a call of a function with the arguments in the table's head; 0 if it cannot be made here."""
    f = Writer(layout, "recorded", "plan", "modes", "recorder", "table", "function")
    plan, none, recorder = "%plan", f.shared("%plan", "none"), layout.recorder
    for name in ("capture", "example_since"):
        f.need(f.equal(f.load("%recorder", recorder[name]), none))
    f.need(f.equal(f.call("PyList_Size", f.shared(plan, "casting")), 0))
    enabled, inference, packing = (
        f.call("PyDict_GetItemWithError", "%modes", f.shared(plan, f"{name}_name"))
        for name in ("enabled", "inference", "packing")
    )
    packs = f.number(f.both(f.differ(packing, 0), f.differ(packing, f.shared(plan, "empty"))))
    is_enabled = f.number(f.either(f.equal(enabled, 0), f.equal(enabled, f.shared(plan, "true"))))
    is_inference = f.number(f.equal(inference, f.shared(plan, "true")))
    collects = f.call("PyGC_Disable")  # collecting may run anything
    f.store("1", "%table", IN_HEAD["busy"])
    f.store(collects, "%table", IN_HEAD["collects"])
    found = f.call("found", plan, "%recorder", "%table", "%function", is_enabled, is_inference, packs)
    f.store("0", "%table", IN_HEAD["busy"])
    with f.when(f.differ(collects, 0)):
        f.call("PyGC_Enable")
    f.give(found)
    return f


def _table_of(layout: Layout) -> Function:
    """The table of this thread's recorder, to be filled with the arguments of a call; 0 while one is being made."""
    f = Writer(layout, "table_of", "recorder")
    table = f.call(
        "PyLong_AsVoidPtr", f.load(f.load("%recorder", layout.recorder["repeats"]), layout.repeats["address"])
    )
    f.need(f.equal(f.load(table, IN_HEAD["busy"]), 0))
    for name in ("wanted", "given", "own"):
        f.store("0", table, IN_HEAD[name])
    f.store("0", table, 8 * HEAD_KEY + IN_KEY["named"])
    f.give(table)
    return f


def _operator(layout: Layout, number: int, name: str) -> Function:
    """`PyObject *(PyObject *self, PyObject *other)`: a method of tensors; `other` is 0 for one without arguments."""
    f = Writer(layout, name, "self", "other", exported=True)
    plan = f.outside(DESK)
    operator = f.add(plan, 8 * (1 + number * len(OPERATOR)))
    modes, recorder = f.recorder_here(plan, 0)
    table, result = f.call("table_of", recorder), f.variable(0)
    with f.when(f.differ(table, 0)):
        whole = f.variable(f.call("give_argument", plan, recorder, table, "%self"))
        with f.when(f.differ("%other", 0)):
            f.set(whole, f.call("give_argument", plan, recorder, table, "%other"))
        with f.when(f.differ(f.get(whole), 0)):
            f.set(result, f.call("recorded", plan, modes, recorder, table, f.load(operator, _O["method"])))
        f.call("let_go", recorder)
    with f.when(f.equal(f.get(result), 0)):
        f.need(f.equal(f.call("PyErr_Occurred"), 0))  # what was computed first raised it
        operands = f.call("PyTuple_New", f.add(f.number(f.differ("%other", 0)), 1))
        f.need(f.differ(operands, 0))
        f.call("Py_IncRef", "%self")
        f.call("PyTuple_SetItem", operands, 0, "%self")
        with f.when(f.differ("%other", 0)):
            f.call("Py_IncRef", "%other")
            f.call("PyTuple_SetItem", operands, 1, "%other")
        f.set(result, f.call("PyObject_CallObject", f.load(operator, _O["otherwise"]), operands))
        f.call("Py_DecRef", operands)
    f.give(f.get(result))
    return f


def _tried(layout: Layout) -> Function:
    """The tensor of a call of a function with arguments in a tuple and a dictionary; 0 if it cannot be made here."""
    f = Writer(layout, "tried", "plan", "modes", "recorder", "table", "function", "args", "kwargs")
    count = f.call("PyTuple_Size", "%args")
    left = f.variable(count)
    with f.while_above(left, 0):
        what = f.call("PyTuple_GetItem", "%args", f.minus(count, f.get(left)))
        f.proceed(f.call("give_argument", "%plan", "%recorder", "%table", what))
        f.set(left, f.add(f.get(left), -1))
    place, name, value = f.variable(0), f.variable(0), f.variable(0)
    operands = f.address(place), f.address(name), f.address(value)
    named = f.call("PyDict_Size", "%kwargs")
    f.store(named, "%table", 8 * HEAD_KEY + IN_KEY["named"])
    f.set(left, named)
    with f.while_above(left, 0):
        f.need(f.differ(f.call("PyDict_Next", "%kwargs", *operands), 0))
        for what in (name, value):
            f.proceed(f.call("give_argument", "%plan", "%recorder", "%table", f.get(what)))
        f.set(left, f.add(f.get(left), -1))
    f.give(f.call("recorded", "%plan", "%modes", "%recorder", "%table", "%function"))
    return f


def _again(layout: Layout) -> Function:
    """`PyObject *(PyObject *self, PyObject *const *args, Py_ssize_t count)` of a function, its positional arguments and
    those with names.
    """
    f = Writer(layout, AGAIN, "self", "args", "count", exported=True)
    plan, result = f.outside(DESK), f.variable(0)
    modes, recorder = f.recorder_here(plan, 0)
    table = f.call("table_of", recorder)
    with f.when(f.differ(table, 0)):
        operands = [f.load("%args", 8 * place) for place in range(3)]
        f.set(result, f.call("tried", plan, modes, recorder, table, *operands))
        f.call("let_go", recorder)
    with f.when(f.equal(f.get(result), 0)):
        f.need(f.equal(f.call("PyErr_Occurred"), 0))
        missed = f.shared(plan, "missed")
        f.call("Py_IncRef", missed)
        f.give(missed)
    f.give(f.get(result))
    return f


def functions(layout: Layout) -> list[Function]:
    """All functions of native recording."""
    makers = (
        *(
            _is_users,
            _user_place,
            _entry_of,
            _pass_through,
            _add_checks,
            _made,
            _entered,
            _alone,
            _found,
            _recorded,
            _table_of,
        ),
        *(_tried, _again),
    )
    operators = [_operator(layout, number, name) for number, name in enumerate(OPERATORS)]
    parts = (arguments, views, recipes)
    found = [function for part in parts for function in part.functions(layout)]
    return [*found, *(make(layout) for make in makers), *operators]
