"""The text of calls over operands of any sizes, which Python does otherwise (`graphc.any_size`): operands are copied to
where there is room, or one after the other, a program runs, and what it made is cut out.

Functions give 1 to go on, 0 when Python must make the call, -1 when an error is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphc.native.code import Function
from graphc.native.objects import Layout, Writer
from graphc.native.tables import MADE_STORAGE, MADE_TENSOR, P, T
from graphc.repeats import ARGUMENT, HEAD_GIVEN, HEAD_KEY, IN_HEAD, IN_KEY, KEY

# Words of a service: a plan that makes results; the code key; calls until Python makes one; how many parts the
# arguments have and what they must be, two words each, with an address of a class after 0 for a tensor; forms of the
# operands and room for what is found of each; room for sizes, how many, the least; whether operands are joined; what
# has the types of results by sizes; bytes of an element of the result, its dimensions, and after how many of these
# operands are joined; programs; room for the dimensions of a block, for its extents and strides, and for sizes; the
# service that is tried next, or 0.
SERVICE = (
    *("plan", "options", "left", "parts", "arguments"),
    *("forms", "operands", "found", "sizes", "count", "least", "joins"),
    *("types", "item", "rank", "axis"),
    *("programs", "programs_count", "dims", "extents", "from", "to", "before"),
    "next",
)
MOST_RANK = 6
# Of an operand: dtype, bytes of an element, dimensions, and for each its extent, or -1 less the number of its size.
FORM = 3 + MOST_RANK
FOUND = 3  # tensor, the address of its first element, the buffer
# A program: the sizes it is for, each above one word and at most another; what to call, and whether other threads may
# run Python meanwhile; where operands go, a record each; the sizes of the last run and those it reads; the room of its
# result or 0, with strides, else where its address goes; words that are 0 unless a check of values found something.
PROGRAM = (
    *("bounds", "entry", "runtime", "addresses", "launches", "release"),
    *("rooms", "last", "sizes", "out", "strides", "result", "checks", "checks_count"),
)
ROOM = 4  # address or 0, bytes, strides, where the address of an operand without room goes
BOUNDS = 2

V = {name: 8 * place for place, name in enumerate(SERVICE)}
IN_PROGRAM = {name: 8 * place for place, name in enumerate(PROGRAM)}
_DIM = 24  # bytes of extent and both strides of a dimension
_SMALL = (4, 8)


@contextmanager
def _each_operand(f: Writer, *tables: tuple[str, int]) -> Iterator[list[str]]:
    """What is written inside runs for each operand of a service, with its record of each table, of so many words."""
    records = [f.variable(begin) for begin, _ in tables]
    left = f.variable(f.load("%service", V["operands"]))
    with f.while_above(left, 0):
        yield [f.get(record) for record in records]
        for record, (_, words) in zip(records, tables, strict=True):
            f.set(record, f.add(f.get(record), 8 * words))
        f.set(left, f.add(f.get(left), -1))


def _forms(f: Writer) -> tuple[str, int]:
    return f.load("%service", V["forms"]), FORM


def _found(f: Writer) -> tuple[str, int]:
    return f.load("%service", V["found"]), FOUND


def _rooms(f: Writer) -> tuple[str, int]:
    return f.load("%program", IN_PROGRAM["rooms"]), ROOM


def _block(layout: Layout) -> Function:
    """Copy so many bytes for each step along the first dimensions of `dims`."""
    f = Writer(layout, "block", "dims", "left", "run", "source", "target")
    with f.when(f.equal("%left", 0)):
        for width in _SMALL:
            with f.when(f.equal("%run", width)):
                f.store(f.load("%source", bits=8 * width), "%target", bits=8 * width)
                f.give(1)
        f.copy("%source", "%target", "%run")
        f.give(1)
    below = f.add("%left", -1)
    dim = f.add("%dims", f.times(below, str(_DIM)))
    apart, also = f.load(dim, 8), f.load(dim, 16)
    source, target, left = f.variable("%source"), f.variable("%target"), f.variable(f.load(dim))
    with f.while_above(left, 0):
        f.call("block", "%dims", below, "%run", f.get(source), f.get(target))
        f.set(source, f.add(f.get(source), apart))
        f.set(target, f.add(f.get(target), also))
        f.set(left, f.add(f.get(left), -1))
    f.give(1)
    return f


def _copy_block(layout: Layout) -> Function:
    """Copy a block of elements of `item` bytes. Extents and strides, in elements, are words."""
    f = Writer(layout, "copy_block", "dims", "rank", "extents", "from", "to", "item", "source", "target")
    left, count, run = f.variable("%rank"), f.variable(0), f.variable("%item")
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        extent = f.load(f.scaled("%extents", f.get(left)))
        f.need(f.differ(extent, 0), 1)
        apart, also = (f.times(f.load(f.scaled(each, f.get(left))), "%item") for each in ("%from", "%to"))
        with f.when(f.differ(extent, 1)):
            whole = f.both(f.equal(apart, f.get(run)), f.equal(also, f.get(run)))
            in_row = f.number(f.both(whole, f.equal(f.get(count), 0)))
            with f.when(f.equal(in_row, 1)):
                f.set(run, f.times(f.get(run), extent))
            with f.when(f.equal(in_row, 0)):
                dim = f.add("%dims", f.times(f.get(count), str(_DIM)))
                for place, word in enumerate((extent, apart, also)):
                    f.store(word, dim, 8 * place)
                f.set(count, f.add(f.get(count), 1))
    f.give(f.call("block", "%dims", f.get(count), f.get(run), "%source", "%target"))
    return f


def _numbers(layout: Layout) -> Function:
    """Write the integers of a tuple as words."""
    f = Writer(layout, "numbers", "tuple", "words")
    left = f.variable(f.call("PyTuple_Size", "%tuple"))
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        number = f.call("PyLong_AsLongLong", f.call("PyTuple_GetItem", "%tuple", f.get(left)))
        f.store(number, f.scaled("%words", f.get(left)))
    f.give(1)
    return f


def _may_serve(layout: Layout) -> Function:
    """Options are as they were, and it is not the turn of Python."""
    f = Writer(layout, "may_serve", "desk", "recorder", "service")
    desk = "%desk"
    f.need(f.above(f.load("%service", V["left"]), 0))
    f.proceed(f.call("idle_modes", desk, "%recorder"))
    f.need(f.equal(f.call("nothing_late", "%recorder"), 1))
    cuts = f.call("cuts", desk, "%recorder")
    f.need(f.differ(cuts, 0))
    f.need(f.equal(f.call("PyDict_Size", cuts), 0))
    options = f.call("PyDict_GetItemWithError", f.shared(desk, "codes"), f.shared(desk, "code_name"))
    f.need(f.equal(options, f.load("%service", V["options"])))
    f.give(f.number(f.equal(f.load(f.shared(desk, "interprets"), layout.option["_value"]), f.shared(desk, "true"))))
    return f


def _takes(layout: Layout) -> Function:
    """The arguments are as they were but for sizes. Finds the operands."""
    f = Writer(layout, "takes", "desk", "table", "service")
    desk, given, key = "%desk", f.add("%table", 8 * HEAD_GIVEN), f.add("%table", 8 * HEAD_KEY)
    f.need(f.equal(f.load(f.load("%service", V["plan"]), P["busy"]), 0))
    count = f.load("%service", V["parts"])
    f.need(f.equal(f.load("%table", IN_HEAD["given"]), count))
    left, found = f.variable(count), f.variable(f.load("%service", V["found"]))
    with f.while_above(left, 0):
        place = f.minus(count, f.get(left))
        f.set(left, f.add(f.get(left), -1))
        what = f.load(f.scaled(given, place))
        expected = f.scaled(f.load("%service", V["arguments"]), f.add(place, place))
        is_tensor = f.number(f.is_tensor(desk, what))
        with f.when(f.differ(is_tensor, 0)):
            f.need(f.equal(f.load(what, layout.type), f.load(expected, 8)))
            f.store(what, f.get(found))
            f.set(found, f.add(f.get(found), 8 * FOUND))
        with f.when(f.equal(is_tensor, 0)):
            f.store("0", key, IN_KEY["count"])
            f.proceed(f.call("plain_argument", desk, "%table", what))
            for word in range(len(ARGUMENT)):
                f.need(f.equal(f.load(key, 8 * (len(KEY) + word)), f.load(expected, 8 * word)))
    f.store("0", key, IN_KEY["count"])
    f.give(1)
    return f


def _ready(layout: Layout) -> Function:
    """What is pending is computed."""
    f = Writer(layout, "ready", "desk", "recorder")
    f.need(f.differ(f.call("PyList_Size", f.load("%recorder", layout.recorder["pending"])), 0), 1)
    operands = f.tuple_of("%recorder")
    done = f.call("PyObject_CallObject", f.shared("%desk", "compute_first"), operands)
    f.call("Py_DecRef", operands)
    f.need(f.differ(done, 0), -1)
    f.call("Py_DecRef", done)
    f.give(f.number(f.equal(done, f.shared("%desk", "true"))))
    return f


def _measured(layout: Layout) -> Function:
    """Find the sizes of the operands, and where they lie."""
    f = Writer(layout, "measured", "desk", "service")
    none, tensor, storages = f.shared("%desk", "none"), layout.tensor, layout.storage
    sizes, joins = f.load("%service", V["sizes"]), f.load("%service", V["joins"])
    left = f.variable(f.load("%service", V["count"]))
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        f.store("0", f.scaled(sizes, f.get(left)))
    with _each_operand(f, _forms(f), _found(f)) as (form, found):
        given = f.load(found)
        type, rank = f.load(given, tensor["_type"]), f.load(form, 16)
        shape = f.load(type, layout.form["shape"])
        f.need(f.equal(f.load(type, layout.form["dtype"]), f.load(form)))
        f.need(f.equal(f.call("PyTuple_Size", shape), rank))
        dim = f.variable(rank)
        with f.while_above(dim, 0):
            f.set(dim, f.add(f.get(dim), -1))
            extent = f.call("PyLong_AsLongLong", f.call("PyTuple_GetItem", shape, f.get(dim)))
            wanted = f.load(f.scaled(f.add(form, 24), f.get(dim)))
            is_fixed = f.number(f.above(wanted, -1))
            with f.when(f.equal(is_fixed, 1)):
                f.need(f.equal(extent, wanted))
            with f.when(f.equal(is_fixed, 0)):
                place = f.scaled(sizes, f.minus("-1", wanted))
                before = f.load(place)
                with f.when(f.differ(joins, 0)):
                    f.store(f.add(before, extent), place)
                with f.when(f.equal(joins, 0)):
                    f.need(f.above(extent, f.add(f.load("%service", V["least"]), -1)))
                    f.need(f.either(f.equal(before, 0), f.equal(before, extent)))
                    f.store(extent, place)
        storage = f.follow(given, tensor["_storage"])
        f.need(f.equal(f.load(given, tensor["_wrapped"]), f.shared("%desk", "false")))
        for name in ("value", "external"):
            f.need(f.equal(f.load(storage, storages[name]), none))
        buffer = f.follow(storage, storages["buffer"])
        f.need(f.equal(f.load(buffer, layout.type), f.shared("%desk", "buffer_class")))
        offset = f.times(f.call("PyLong_AsLongLong", f.load(given, tensor["_offset"])), f.load(form, 8))
        begin = f.call("PyLong_AsVoidPtr", f.load(buffer, layout.buffer["ptr"]))
        f.store(f.add(begin, offset), found, 8)
        f.store(buffer, found, 16)
    f.give(1)
    return f


def _kept_sizes(layout: Layout) -> Function:
    """Whether the sizes are those that were found before; they are kept for the next time."""
    f = Writer(layout, "kept_sizes", "service")
    sizes, before = f.load("%service", V["sizes"]), f.load("%service", V["before"])
    left, same = f.variable(f.load("%service", V["count"])), f.variable(1)
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        size, place = f.load(f.scaled(sizes, f.get(left))), f.scaled(before, f.get(left))
        with f.when(f.differ(f.load(place), size)):
            f.set(same, 0)
        f.store(size, place)
    f.give(f.get(same))
    return f


def _program_for(layout: Layout) -> Function:
    """The program for the sizes that were found; 0 if there is none."""
    f = Writer(layout, "program_for", "service")
    sizes, count = f.load("%service", V["sizes"]), f.load("%service", V["count"])
    with f.each("%service", (V["programs"], V["programs_count"]), len(PROGRAM)) as program:
        bound, left, fits = f.variable(f.load(program, IN_PROGRAM["bounds"])), f.variable(count), f.variable(1)
        with f.while_above(left, 0):
            size = f.load(f.scaled(sizes, f.minus(count, f.get(left))))
            over, least = f.above(size, f.load(f.get(bound), 8)), f.load(f.get(bound))
            with f.when(f.either(over, f.above(f.add(least, 1), size))):
                f.set(fits, 0)
            f.set(bound, f.add(f.get(bound), 8 * BOUNDS))
            f.set(left, f.add(f.get(left), -1))
        with f.when(f.equal(f.get(fits), 1)):
            f.give(program)
    f.give(0)
    return f


def _fits_as_it_is(layout: Layout) -> Function:
    """Whether all operands without room lie in one piece."""
    f = Writer(layout, "fits_as_it_is", "service", "program")
    with _each_operand(f, _found(f), _rooms(f)) as (found, room):
        given = f.load(found)
        with f.when(f.equal(f.load(room), 0)):
            shape = f.load(f.load(given, layout.tensor["_type"]), layout.form["shape"])
            f.need(f.differ(f.call("row", shape, f.load(given, layout.tensor["_strides"]), 0), 0))
    f.give(1)
    return f


def _copy_operand(layout: Layout) -> Function:
    """Copy the elements of a tensor to memory with strides of its own."""
    f = Writer(layout, "copy_operand", "service", "form", "found", "to", "target")
    given = f.load("%found")
    extents, strides = f.load("%service", V["extents"]), f.load("%service", V["from"])
    f.call("numbers", f.load(f.load(given, layout.tensor["_type"]), layout.form["shape"]), extents)
    f.call("numbers", f.load(given, layout.tensor["_strides"]), strides)
    dims, rank, item = f.load("%service", V["dims"]), f.load("%form", 16), f.load("%form", 8)
    f.give(f.call("copy_block", dims, rank, extents, strides, "%to", item, f.load("%found", 8), "%target"))
    return f


def _joined(layout: Layout) -> Function:
    """Copy the operands one after the other."""
    f = Writer(layout, "joined", "service", "type", "target")
    to, axis = f.load("%service", V["to"]), f.load("%service", V["axis"])
    f.call("numbers", f.load("%type", layout.form["strides"]), to)
    step = f.times(f.load(f.scaled(to, axis)), f.load("%service", V["item"]))
    target = f.variable("%target")
    with _each_operand(f, _forms(f), _found(f)) as (form, found):
        f.call("copy_operand", "%service", form, found, to, f.get(target))
        extent = f.load(f.scaled(f.load("%service", V["extents"]), axis))
        f.set(target, f.add(f.get(target), f.times(extent, step)))
    f.give(1)
    return f


def _run_program(layout: Layout) -> Function:
    """Copy the operands to where there is room, run a program, and cut its result out."""
    f = Writer(layout, "run_program", "table", "service", "program", "type", "target")
    plan = f.load("%service", V["plan"])
    sizes, count = f.load("%service", V["sizes"]), f.load("%service", V["count"])
    last, read = f.load("%program", IN_PROGRAM["last"]), f.load("%program", IN_PROGRAM["sizes"])
    left, shrinks = f.variable(count), f.variable(0)
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        size = f.load(f.scaled(sizes, f.get(left)))
        with f.when(f.above(f.load(f.scaled(last, f.get(left))), size)):
            f.set(shrinks, 1)
        f.store(size, f.scaled(last, f.get(left)))
        f.store(size, f.add(read, f.times(f.get(left), "4")), bits=32)
    with _each_operand(f, _forms(f), _found(f), _rooms(f)) as (form, found, room):
        target = f.load(room)
        with f.when(f.equal(target, 0)):
            held = f.load(found, 16)
            f.call("Py_IncRef", held)
            f.own(plan, held)
            f.store(f.load(found, 8), f.load(room, 24))
        with f.when(f.differ(target, 0)):
            with f.when(f.equal(f.get(shrinks), 1)):
                f.clear(target, f.load(room, 8))
            f.call("copy_operand", "%service", form, found, f.load(room, 16), target)
    out = f.load("%program", IN_PROGRAM["out"])
    with f.when(f.equal(out, 0)):
        f.store("%target", f.load("%program", IN_PROGRAM["result"]))
    call = [f.load("%program", IN_PROGRAM[name]) for name in ("entry", "addresses", "runtime")]
    releases = f.differ(f.load("%program", IN_PROGRAM["release"]), 0)
    with f.unless(releases):
        f.run_address(*call)
    with f.when(releases):
        with f.when(f.differ(f.load("%table", IN_HEAD["collects"]), 0)):
            f.call("PyGC_Enable")  # others run meanwhile
        state = f.call("PyEval_SaveThread")
        f.run_address(*call)
        f.call("PyEval_RestoreThread", state)
        f.call("PyGC_Disable")
    with f.when(f.differ(out, 0)):
        extents, to, item = (f.load("%service", V[name]) for name in ("extents", "to", "item"))
        f.call("numbers", f.load("%type", layout.form["shape"]), extents)
        f.call("numbers", f.load("%type", layout.form["strides"]), to)
        dims, rank, strides = (
            f.load("%service", V["dims"]),
            f.load("%service", V["rank"]),
            f.load("%program", IN_PROGRAM["strides"]),
        )
        f.call("copy_block", dims, rank, extents, strides, to, item, out, "%target")
    f.give(1)
    return f


def _result_type(layout: Layout) -> Function:
    """The type of the result and where what takes its memory is told, a tuple; 0 with an error."""
    f = Writer(layout, "result_type", "service")
    sizes, count = f.load("%service", V["sizes"]), f.load("%service", V["count"])
    key = f.call("PyTuple_New", count)
    f.need(f.differ(key, 0))
    left = f.variable(count)
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        number = f.call("PyLong_FromLongLong", f.load(f.scaled(sizes, f.get(left))))
        f.call("PyTuple_SetItem", key, f.get(left), number)
    found = f.call("PyObject_GetItem", f.load("%service", V["types"]), key)
    f.call("Py_DecRef", key)
    f.give(found)
    return f


def _serve(layout: Layout) -> Function:
    """The tensor that a call gives whose operands were found, borrowed: the plan owns it."""
    f = Writer(layout, "serve", "desk", "recorder", "table", "service", "inference")
    plan, program = f.load("%service", V["plan"]), f.variable(0)
    joins = f.load("%service", V["joins"])
    f.proceed(f.call("measured", "%desk", "%service"))
    f.call("kept_sizes", "%service")
    with f.when(f.equal(joins, 0)):
        f.set(program, f.call("program_for", "%service"))
        f.need(f.differ(f.get(program), 0))
        f.proceed(f.call("fits_as_it_is", "%service", f.get(program)))
    about = f.call("result_type", "%service")
    f.need(f.differ(about, 0))
    f.own(plan, about)
    type = f.call("PyTuple_GetItem", about, 0)
    buffer = f.call("take", plan, f.call("PyLong_AsVoidPtr", f.call("PyTuple_GetItem", about, 1)))
    f.need(f.differ(buffer, 0))
    f.own(plan, buffer)
    f.store("%inference", plan, P["inference"])
    f.store("%recorder", plan, P["recorder"])
    record = f.load(plan, T["made"][0])
    f.need(f.equal(f.call("make", plan, record, 0), 1))
    # Taking memory may have run Python, which may have written operands.
    f.proceed(f.call("measured", "%desk", "%service"))
    f.proceed(f.call("kept_sizes", "%service"))
    target = f.call("PyLong_AsVoidPtr", f.load(buffer, layout.buffer["ptr"]))
    with f.when(f.differ(joins, 0)):
        f.call("joined", "%service", type, target)
    with f.when(f.equal(joins, 0)):
        f.call("run_program", "%table", "%service", f.get(program), type, target)
        f.call("bump", f.shared(plan, "tally"), layout.tally["runs"], 1)
        launches = f.load(f.get(program), IN_PROGRAM["launches"])
        f.call("bump", f.shared(plan, "tally"), layout.tally["launches"], launches)
        with f.each(f.get(program), (IN_PROGRAM["checks"], IN_PROGRAM["checks_count"]), 1) as check:
            f.need(f.equal(f.load(check), 0))  # else Python finds out what is wrong
    interrupt = f.interrupt()
    tensor, storage = f.load(record, MADE_TENSOR), f.load(record, MADE_STORAGE)
    f.put(tensor, layout.tensor["_type"], type)
    f.put(tensor, layout.tensor["_strides"], f.load(type, layout.form["strides"]))
    f.put(storage, layout.storage["type"], type)
    f.put(storage, layout.storage["buffer"], buffer)
    for name in ("any_size", "native_any_size"):
        f.call("bump", f.shared(plan, "front"), layout.front[name], 1)
    f.count_up(f.shared(plan, "touched"))
    with f.interrupted(interrupt):
        f.give(0)
    f.give(tensor)
    return f


def _served(layout: Layout) -> Function:
    """The tensor that a call gives by the first of the services that can serve it; 0 if Python must make it, or with an
    error.
    """
    f = Writer(layout, "served", "desk", "recorder", "table", "service", "inference")
    f.need(f.equal(f.call("may_serve", "%desk", "%recorder", "%service"), 1))
    following = f.variable("%service")
    with f.while_above(following, 0):
        now = f.get(following)
        with f.when(f.equal(f.call("takes", "%desk", "%table", now), 1)):
            f.need(f.equal(f.call("ready", "%desk", "%recorder"), 1))
            plan = f.load(now, V["plan"])
            f.store("1", plan, P["busy"])
            made = f.call("serve", "%desk", "%recorder", "%table", now, "%inference")
            f.call("Py_IncRef", made)
            f.call("release", plan, 0)
            f.store("0", plan, P["busy"])
            with f.when(f.differ(made, 0)):
                f.store(f.add(f.load("%service", V["left"]), -1), "%service", V["left"])
                f.give(made)
        f.need(f.equal(f.call("PyErr_Occurred"), 0))
        f.set(following, f.load(now, V["next"]))
    f.give(0)
    return f


def functions(layout: Layout) -> list[Function]:
    """All that serves calls over operands of any sizes."""
    makers = (
        *(_block, _copy_block, _numbers, _may_serve, _takes, _ready, _measured, _kept_sizes, _program_for),
        *(_fits_as_it_is, _copy_operand, _joined, _run_program, _result_type, _serve, _served),
    )
    return [make(layout) for make in makers]
