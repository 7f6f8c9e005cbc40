"""The text of `tensor[index] = value` where that is to be done at once: `graphc.tensors.storing.stored_at`.

What integers and slices show lies in rows that are equally far apart, or else Python writes it. Functions give 0 when
Python must do it; then nothing was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphc.native.code import Function
from graphc.native.entering import HOME
from graphc.native.objects import Layout, Writer
from graphc.repeats import IN_KEY, KEY
from graphc.tensors.storing import LARGE, SHARE, SMALL, SPECK

STORE = "graphc_setitem"
# The dtypes of which numbers are written here, with the bits of one.
_NUMBERS = {"f32": 32, "f64": 64, "i32": 32, "i64": 64}
# Words of the place that is written: from which element on, how many blocks of rows, elements from block to block, how
# many rows, elements from row to row, elements of a row, from element to element in it. Only then, the dimensions of
# the value that were compared.
OFFSET, BLOCKS, BETWEEN, ROWS, APART, COUNT, STEP, SEEN = range(0, 64, 8)
PLACE_WORDS = 8


def _number_in(f: Writer, what: str) -> str:
    """A Python integer; the function gives 0 for one that does not fit."""
    found = f.call("PyLong_AsLongLong", what)
    with f.when(f.equal(found, -1)), f.when(f.differ(f.call("PyErr_Occurred"), 0)):
        f.call("PyErr_Clear")
        f.give(0)
    return found


def _own_memory(layout: Layout) -> Function:
    """The buffer of a tensor whose memory may be written now, borrowed: nobody records, reads or sees it otherwise."""
    f = Writer(layout, "own_memory", "plan", "modes", "tensor", "recorder")
    plan, none, tensor, slots = "%plan", f.shared("%plan", "none"), layout.tensor, layout.storage
    storage, lineage = f.follow("%tensor", tensor["_storage"]), f.follow("%tensor", tensor["_lineage"])
    for name in ("capture", "example_since"):
        f.need(f.equal(f.load("%recorder", layout.recorder[name]), none))
    f.need(f.equal(f.load(storage, slots["recorder"]), "%recorder"))
    for name in ("value", "export", "external", "slots"):
        f.need(f.equal(f.load(storage, slots[name]), none))
    f.need(f.equal(f.requires(plan, lineage), 0))
    with f.when(f.equal(f.load("%tensor", tensor["_counter"]), none)):  # made in inference mode: written there only
        inference = f.call("PyDict_GetItemWithError", "%modes", f.shared(plan, "inference_name"))
        f.need(f.equal(inference, f.shared(plan, "true")))
    f.need(f.equal(f.load("%tensor", tensor["_wrapped"]), f.shared(plan, "false")))
    f.need(f.equal(f.load(f.load("%tensor", tensor["_type"]), layout.form["device"]), f.shared(plan, "cpu_name")))
    f.put(storage, slots["kept"], none)  # a leaf that waits for the next program
    f.need(f.equal(f.call("alive", plan, f.load(storage, slots["slot"])), 0))
    f.need(f.equal(f.load(storage, slots["value"]), none))
    buffer = f.follow(storage, slots["buffer"])
    f.need(f.equal(f.load(buffer, layout.type), f.shared(plan, "buffer_class")))
    f.need(f.differ(f.load(buffer, layout.buffer["_memory"]), none))
    f.need(f.is_alone(buffer))
    f.give(buffer)
    return f


def _dimension(layout: Layout) -> Function:
    """Add a dimension of so many elements, which lie so far apart, to a place; it is one of the value, if that has a
    shape.
    """
    f = Writer(layout, "dimension", "place", "extent", "stride", "shape")
    with f.when(f.differ("%shape", 0)):
        seen = f.load("%place", SEEN)
        f.need(f.above(f.call("PyTuple_Size", "%shape"), seen))
        f.need(f.equal(f.call("PyLong_AsLongLong", f.call("PyTuple_GetItem", "%shape", seen)), "%extent"))
        f.store(f.add(seen, 1), "%place", SEEN)
    with f.when(f.equal("%extent", 1)):
        f.give(1)
    count, step = f.load("%place", COUNT), f.load("%place", STEP)
    with f.when(f.equal(count, 1)):
        f.store("%extent", "%place", COUNT)
        f.store("%stride", "%place", STEP)
        f.give(1)
    with f.when(f.equal(step, f.times("%extent", "%stride"))):
        f.store(f.times(count, "%extent"), "%place", COUNT)
        f.store("%stride", "%place", STEP)
        f.give(1)
    f.proceed(f.call("rows_behind", "%place"))
    f.store("%extent", "%place", COUNT)
    f.store("%stride", "%place", STEP)
    f.give(1)
    return f


def _rows_behind(layout: Layout) -> Function:
    """The elements of a place so far become rows: another dimension is behind them."""
    f = Writer(layout, "rows_behind", "place")
    with f.when(f.differ(f.load("%place", ROWS), 1)):
        f.need(f.equal(f.load("%place", BLOCKS), 1))
        for to, source in ((BLOCKS, ROWS), (BETWEEN, APART)):
            f.store(f.load("%place", source), "%place", to)
    for to, source in ((ROWS, COUNT), (APART, STEP)):
        f.store(f.load("%place", source), "%place", to)
    f.give(1)
    return f


def _bound(layout: Layout) -> Function:
    """A bound of a slice of `extent` elements as its distance from the first; -1 for what Python must read."""
    f = Writer(layout, "slice_bound", "plan", "what", "extent", "otherwise")
    with f.when(f.equal("%what", f.shared("%plan", "none"))):
        f.give("%otherwise")
    f.need(f.equal(f.load("%what", layout.type), f.shared("%plan", "int_class")), -1)
    given = f.variable(f.call("PyLong_AsLongLong", "%what"))
    with f.when(f.equal(f.get(given), -1)), f.when(f.differ(f.call("PyErr_Occurred"), 0)):
        f.call("PyErr_Clear")
        f.give(-1)
    with f.when(f.above("0", f.get(given))):
        f.set(given, f.add(f.get(given), "%extent"))
    with f.when(f.above("0", f.get(given))):
        f.give(0)
    with f.when(f.above(f.get(given), "%extent")):
        f.give("%extent")
    f.give(f.get(given))
    return f


def _indexed(layout: Layout) -> Function:
    """Add what an index does to dimension `at` of a tensor to a place."""
    f = Writer(layout, "indexed", "plan", "tensor", "at", "item", "place", "shape")
    plan, tensor = "%plan", layout.tensor
    form = f.load("%tensor", tensor["_type"])
    extent, stride = (
        f.call("PyLong_AsLongLong", f.call("PyTuple_GetItem", held, "%at"))
        for held in (f.load(form, layout.form["shape"]), f.load("%tensor", tensor["_strides"]))
    )
    kind, offset = f.load("%item", layout.type), f.load("%place", OFFSET)
    with f.when(f.equal(kind, f.shared(plan, "int_class"))):
        index = f.variable(_number_in(f, "%item"))
        with f.when(f.above("0", f.get(index))):
            f.set(index, f.add(f.get(index), extent))
        f.need(f.both(f.above(f.get(index), -1), f.above(extent, f.get(index))))
        f.store(f.add(offset, f.times(f.get(index), stride)), "%place", OFFSET)
        f.give(1)
    f.need(f.equal(kind, f.shared(plan, "slice_class")))
    start, stop, step = (f.load("%item", at) for at in layout.slice)
    f.need(f.equal(step, f.shared(plan, "none")))
    first = f.call("slice_bound", plan, start, extent, 0)
    last = f.call("slice_bound", plan, stop, extent, extent)
    f.need(f.both(f.differ(first, -1), f.above(last, first)))
    f.store(f.add(offset, f.times(first, stride)), "%place", OFFSET)
    f.give(f.call("dimension", "%place", f.minus(last, first), stride, "%shape"))
    return f


def _placed(layout: Layout) -> Function:
    """Fill a place with what `tensor[index]` shows, which has the given shape if that is not 0."""
    f = Writer(layout, "placed", "plan", "tensor", "index", "place", "shape")
    plan, tensor = "%plan", layout.tensor
    form, strides = f.load("%tensor", tensor["_type"]), f.load("%tensor", tensor["_strides"])
    extents = f.load(form, layout.form["shape"])
    f.store(_number_in(f, f.load("%tensor", tensor["_offset"])), "%place", OFFSET)
    for word in (BLOCKS, ROWS, COUNT, STEP):
        f.store("1", "%place", word)
    for word in (BETWEEN, APART, SEEN):
        f.store("0", "%place", word)
    rank, items = f.call("PyTuple_Size", extents), f.variable(1)
    is_tuple = f.equal(f.load("%index", layout.type), f.shared(plan, "tuple_class"))
    with f.when(is_tuple):
        f.set(items, f.call("PyTuple_Size", "%index"))
    f.need(f.above(f.add(rank, 1), f.get(items)))
    left = f.variable(f.get(items))
    with f.while_above(left, 0):
        at, item = f.minus(f.get(items), f.get(left)), f.variable("%index")
        with f.when(is_tuple):
            f.set(item, f.call("PyTuple_GetItem", "%index", at))
        f.proceed(f.call("indexed", plan, "%tensor", at, f.get(item), "%place", "%shape"))
        f.set(left, f.add(f.get(left), -1))
    f.set(left, f.minus(rank, f.get(items)))
    with f.while_above(left, 0):
        at = f.minus(rank, f.get(left))
        extent, stride = (f.call("PyLong_AsLongLong", f.call("PyTuple_GetItem", t, at)) for t in (extents, strides))
        f.need(f.above(extent, 0))
        f.proceed(f.call("dimension", "%place", extent, stride, "%shape"))
        f.set(left, f.add(f.get(left), -1))
    with f.when(f.differ("%shape", 0)):
        f.need(f.equal(f.call("PyTuple_Size", "%shape"), f.load("%place", SEEN)))
    with f.when(f.differ(f.load("%place", STEP), 1)):  # the last dimension is one of rows
        f.proceed(f.call("rows_behind", "%place"))
        f.store("1", "%place", COUNT)
    blocks, rows, apart, length = (f.load("%place", word) for word in (BLOCKS, ROWS, APART, COUNT))
    for many, step, within in (  # no element is one with another
        (rows, apart, length),
        (blocks, f.load("%place", BETWEEN), f.add(f.times(f.add(rows, -1), apart), length)),
    ):
        f.need(f.either(f.equal(many, 1), f.above(f.add(step, 1), within)))
    count = f.times(f.times(blocks, rows), length)
    size, nbytes = (f.call("PyLong_AsLongLong", f.load(form, layout.form[name])) for name in ("size", "nbytes"))
    few = f.above(f.times(size, str(SMALL)), f.add(f.times(count, nbytes), -1))
    f.need(f.either(f.above(size, f.add(f.times(count, str(SHARE)), -1)), few))
    f.give(1)
    return f


@contextmanager
def each_row(f: Writer, place: str, memory: str, item: str) -> Iterator[tuple[str, str]]:
    """What is written inside runs for the address of each row of a place in `memory`, and how many elements it has, of
    `item` bytes.
    """
    blocks, left, row = f.variable(f.load(place, BLOCKS)), f.variable(0), f.variable(0)
    count, block = f.load(place, COUNT), f.variable(f.add(memory, f.times(f.load(place, OFFSET), item)))
    with f.while_above(blocks, 0):
        f.set(row, f.get(block))
        f.set(left, f.load(place, ROWS))
        with f.while_above(left, 0):
            yield f.get(row), count
            f.set(row, f.add(f.get(row), f.times(f.load(place, APART), item)))
            f.set(left, f.add(f.get(left), -1))
        f.set(block, f.add(f.get(block), f.times(f.load(place, BETWEEN), item)))
        f.set(blocks, f.add(f.get(blocks), -1))


def _fill_place(layout: Layout) -> Function:
    """Write a word of so many bytes to all elements of a place."""
    f = Writer(layout, "fill_place", "place", "memory", "item", "word")
    wide = f.equal("%item", 8)
    with each_row(f, "%place", "%memory", "%item") as (row, count):
        left, at = f.variable(count), f.variable(row)
        with f.while_above(left, 0):
            with f.when(wide):
                f.store("%word", f.get(at))
            with f.unless(wide):
                f.store("%word", f.get(at), bits=32)
            f.set(at, f.add(f.get(at), "%item"))
            f.set(left, f.add(f.get(left), -1))
    f.give(1)
    return f


def _copy_place(layout: Layout) -> Function:
    """Write the elements that lie one after the other from an address on to a place."""
    f = Writer(layout, "copy_place", "place", "memory", "item", "source")
    source, length = f.variable("%source"), f.times(f.load("%place", COUNT), "%item")
    with each_row(f, "%place", "%memory", "%item") as (row, _):
        f.copy(f.get(source), row, length)
        f.set(source, f.add(f.get(source), length))
    f.give(1)
    return f


def _number_word(layout: Layout) -> Function:
    """Write the bits of a Python number as an element of a dtype to an address; the bytes of an element."""
    f = Writer(layout, "number_word", "plan", "dtype", "value", "word")
    plan, kind = "%plan", f.load("%value", layout.type)
    is_int, is_float = (f.equal(kind, f.shared(plan, f"{name}_class")) for name in ("int", "float"))
    for name, bits in _NUMBERS.items():
        with f.when(f.equal("%dtype", f.shared(plan, name))):
            if name.startswith("i"):
                f.need(is_int)
                number = _number_in(f, "%value")
                f.need(f.equal(f.signed(number, bits), number))
                f.store(number, "%word")
            else:
                f.need(f.either(is_int, is_float))
                number = f.double_of("%value")
                if bits == 32:
                    f.need(f.fits_float(number))
                f.store_double(number, "%word", bits)
            f.give(bits // 8)
    f.give(0)
    return f


def _moves(layout: Layout) -> Function:
    """Whether the call that runs wrote several places of such memory: `graphc.call_places` found that out."""
    f = Writer(layout, "moves", "plan", "type")
    words = f.words(len(KEY))
    f.proceed(f.call("user_place", "%plan", words))
    numbers = [f.call("PyLong_FromLongLong", f.load(words, IN_KEY[name])) for name in ("code", "place")]
    key = f.variable(0)
    with f.when(f.both(*[f.differ(number, 0) for number in numbers])):
        f.set(key, f.call("PyTuple_New", 3))
    with f.when(f.equal(f.get(key), 0)):
        f.call("PyErr_Clear")
        for number in numbers:
            f.call("Py_DecRef", number)
        f.give(0)
    f.call("Py_IncRef", "%type")
    for place, part in enumerate((*numbers, "%type")):
        f.call("PyTuple_SetItem", f.get(key), place, part)
    found = f.call("PySet_Contains", f.shared("%plan", "moving"), f.get(key))
    f.call("Py_DecRef", f.get(key))
    f.give(found)
    return f


def _computed_first(layout: Layout) -> Function:
    """Run what is pending for a value that a moving call writes, or that is next to nothing of the memory; 1 if nothing
    is to be done, or is done now.
    """
    f = Writer(layout, "computed_first", "plan", "recorder", "tensor", "value")
    plan, none, tensor, slots = "%plan", f.shared("%plan", "none"), layout.tensor, layout.storage
    source = f.follow("%value", tensor["_storage"])
    with f.when(f.equal(f.load(source, slots["value"]), none)):
        f.give(1)
    target = f.follow("%tensor", tensor["_storage"])
    for name in ("capture", "example_since"):
        f.need(f.equal(f.load("%recorder", layout.recorder[name]), none))
    for each in (source, target):
        f.need(f.equal(f.load(each, slots["recorder"]), "%recorder"))
    f.need(f.equal(f.load(target, slots["value"]), none))
    for each in ("%tensor", "%value"):
        f.need(f.equal(f.requires(plan, f.follow(each, tensor["_lineage"])), 0))
    whole = f.load(target, slots["type"])
    size, nbytes = (f.call("PyLong_AsLongLong", f.load(whole, layout.form[name])) for name in ("size", "nbytes"))
    part = f.call("PyLong_AsLongLong", f.load(f.follow("%value", tensor["_type"]), layout.form["size"]))
    speck = f.both(f.above(nbytes, LARGE - 1), f.above(f.add(size, 1), f.times(part, str(SPECK))))
    with f.unless(speck):
        f.need(f.equal(f.call("moves", plan, whole), 1))
    flush = f.call("PyObject_GetAttr", "%recorder", f.shared(plan, "flush_name"))
    f.need(f.differ(flush, 0), -1)
    done = f.call("PyObject_CallObject", flush, f.shared(plan, "no_reason"))
    f.call("Py_DecRef", flush)
    f.need(f.differ(done, 0), -1)  # a check found an error
    f.call("Py_DecRef", done)
    f.give(f.number(f.equal(f.load(source, slots["value"]), none)))
    return f


def _target_first(layout: Layout) -> Function:
    """Run what is pending for memory that a moving call writes; 1 if nothing is to be done, or is done now."""
    f = Writer(layout, "target_first", "plan", "recorder", "tensor", "value")
    plan, none, tensor = "%plan", f.shared("%plan", "none"), layout.tensor
    storage = f.follow("%tensor", tensor["_storage"])
    with f.when(f.equal(f.load(storage, layout.storage["value"]), none)):
        f.give(1)
    for name in ("capture", "example_since"):
        f.need(f.equal(f.load("%recorder", layout.recorder[name]), none))
    f.need(f.equal(f.requires(plan, f.follow("%tensor", tensor["_lineage"])), 0))
    with f.when(f.is_tensor(plan, "%value")):
        f.need(f.equal(f.requires(plan, f.follow("%value", tensor["_lineage"])), 0))
    f.need(f.equal(f.call("moves", plan, f.load(storage, layout.storage["type"])), 1))
    value = f.load(storage, layout.storage["value"])
    f.need(f.equal(f.load(storage, layout.storage["recorder"]), "%recorder"))
    f.need(f.equal(f.load(value, layout.value["gate"]), none))
    f.need(f.equal(f.load(value, layout.value["grad"]), f.shared(plan, "false")))
    for name in ("export", "external"):
        f.need(f.equal(f.load(storage, layout.storage[name]), none))
    f.call("Py_IncRef", value)
    known = f.call("known_at_once", plan, "%recorder", storage, value)
    f.call("Py_DecRef", value)
    f.need(f.equal(known, 0), 1)
    f.give(f.call("looked_at", plan, "%recorder", storage))
    return f


def _stored_at(layout: Layout) -> Function:
    """`graphc.tensors.storing.stored_at`; 1 if it is done."""
    f = Writer(layout, "stored_at", "plan", "tensor", "index", "value")
    plan, tensor = "%plan", layout.tensor
    modes, recorder = f.recorder_here(plan)
    is_tensor = f.is_tensor(plan, "%value")
    f.proceed(f.call("target_first", plan, recorder, "%tensor", "%value"))
    with f.when(is_tensor):
        f.proceed(f.call("computed_first", plan, recorder, "%tensor", "%value"))
    buffer = f.call("own_memory", plan, modes, "%tensor", recorder)
    f.need(f.differ(buffer, 0))
    form = f.load("%tensor", tensor["_type"])
    dtype, begin = f.load(form, layout.form["dtype"]), f.call("PyLong_AsVoidPtr", f.load(buffer, layout.buffer["ptr"]))
    place, done = f.words(PLACE_WORDS), f.variable(0)
    with f.unless(is_tensor):
        word = f.variable(0)
        item = f.call("number_word", plan, dtype, "%value", f.address(word))
        f.need(f.differ(item, 0))
        f.proceed(f.call("placed", plan, "%tensor", "%index", place, 0))
        f.set(done, f.call("fill_place", place, begin, item, f.get(word)))
    with f.when(is_tensor):
        first = f.call("elements", plan, "%value", dtype)
        f.need(f.differ(first, 0))
        given = f.load("%value", tensor["_type"])
        f.proceed(f.call("placed", plan, "%tensor", "%index", place, f.load(given, layout.form["shape"])))
        size, nbytes = (f.call("PyLong_AsLongLong", f.load(given, layout.form[name])) for name in ("size", "nbytes"))
        item = f.quotient(nbytes, size)
        same = f.equal(f.load("%value", tensor["_storage"]), f.load("%tensor", tensor["_storage"]))
        with f.when(same):  # `tensor[index] += value` ends so
            one = f.both(f.equal(f.load(place, ROWS), 1), f.equal(f.load(place, BLOCKS), 1))
            f.need(f.both(one, f.equal(f.add(begin, f.times(f.load(place, OFFSET), item)), first)))
        with f.unless(same):
            f.call("copy_place", place, begin, item, first)
            f.set(done, 1)
    f.give(f.call("wrote", plan, "%tensor", f.get(done)))
    return f


def _begin(layout: Layout) -> Function:
    """Where the elements of a tensor begin, of so many bytes each, in a buffer."""
    f = Writer(layout, "begin", "tensor", "buffer", "item")
    offset = f.call("PyLong_AsLongLong", f.load("%tensor", layout.tensor["_offset"]))
    memory = f.call("PyLong_AsVoidPtr", f.load("%buffer", layout.buffer["ptr"]))
    f.give(f.add(memory, f.times(offset, "%item")))
    return f


def _elements(layout: Layout) -> Function:
    """Where the elements of a computed tensor of a dtype begin that lie one after the other; 0 if it is none."""
    f = Writer(layout, "elements", "plan", "tensor", "dtype")
    plan, tensor, slots = "%plan", layout.tensor, layout.storage
    form, storage = (f.follow("%tensor", tensor[name]) for name in ("_type", "_storage"))
    f.need(f.equal(f.load(form, layout.form["dtype"]), "%dtype"))
    f.need(f.equal(f.load(form, layout.form["device"]), f.shared(plan, "cpu_name")))
    f.need(f.differ(f.call("row", f.load(form, layout.form["shape"]), f.load("%tensor", tensor["_strides"]), 0), 0))
    f.need(f.equal(f.load("%tensor", tensor["_wrapped"]), f.shared(plan, "false")))
    f.need(f.equal(f.requires(plan, f.follow("%tensor", tensor["_lineage"])), 0))
    f.need(f.equal(f.load(storage, slots["value"]), f.shared(plan, "none")))
    buffer = f.follow(storage, slots["buffer"])
    f.need(f.equal(f.load(buffer, layout.type), f.shared(plan, "buffer_class")))
    size, nbytes = (f.call("PyLong_AsLongLong", f.load(form, layout.form[name])) for name in ("size", "nbytes"))
    f.need(f.above(size, 0))
    f.give(f.call("begin", "%tensor", buffer, f.quotient(nbytes, size)))
    return f


def _wrote(layout: Layout) -> Function:
    """Count a write of a tensor, whose memory is changed unless `done` is 0."""
    f = Writer(layout, "wrote", "plan", "tensor", "done")
    storage = f.load("%tensor", layout.tensor["_storage"])
    with f.when(f.differ("%done", 0)):
        f.put(storage, layout.storage["slot"], f.shared("%plan", "none"))
        f.call("bump", storage, layout.storage["version"], 1)
    f.count_up(f.shared("%plan", "touched"))
    counter = f.load("%tensor", layout.tensor["_counter"])
    with f.when(f.differ(counter, f.shared("%plan", "none"))):
        f.count_up(counter)
    f.give(1)
    return f


def _setitem(layout: Layout) -> Function:
    """`PyObject *(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)`: `__setitem__`."""
    f = Writer(layout, STORE, "self", "args", "count", "names", exported=True)
    plan, done = f.place(HOME), f.variable(0)
    with f.when(f.both(f.equal("%count", 2), f.equal("%names", 0))):
        f.set(done, f.call("stored_at", plan, "%self", f.load("%args"), f.load("%args", 8)))
    with f.when(f.equal(f.get(done), 0)):
        f.give(f.call("in_python", f.shared(plan, "setitem_in_python"), "%self", "%args", "%count", "%names"))
    f.need(f.differ(f.get(done), -1))
    none = f.shared(plan, "none")
    f.call("Py_IncRef", none)
    f.give(none)
    return f


def functions(layout: Layout) -> list[Function]:
    """The method, and what it needs."""
    makers = (
        *(
            _own_memory,
            _rows_behind,
            _dimension,
            _bound,
            _indexed,
            _placed,
            _fill_place,
            _copy_place,
            _number_word,
            _moves,
        ),
        *(_computed_first, _target_first, _stored_at, _begin, _elements, _wrote, _setitem),
    )
    return [make(layout) for make in makers]
