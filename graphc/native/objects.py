"""Native code that makes, takes and writes the objects of tensors, for `graphc.native.calls`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.native.code import Function
from graphc.native.tables import ARGUMENT, FOREIGN, GRADIENT, MADE_STORAGE, MADE_TENSOR, TAKE, VIEW, P, S

Slots = Mapping[str, int]
_LOOK_BACK = 8  # blocks that came back last and are looked at
# Objects with more references may be immortal: Python counts for itself.
_MANY = 1 << 30
_COUNTING = {"Py_IncRef": "incref", "Py_DecRef": "decref"}


@dataclass(frozen=True)
class Layout:
    """Offsets of the slots of the objects that a replay touches, and of what every object begins with."""

    references: int
    type: int
    tensor: Slots
    storage: Slots
    lineage: Slots
    value: Slots
    buffer: Slots  # those of `BufferBase` are there in buffers of all devices
    device_buffer: Slots
    block: Slots  # of a device's memory
    front: Slots
    tally: Slots
    recorder: Slots
    binding: Slots
    repeats: Slots
    form: Slots  # of types of tensors
    late: Slots
    slice: tuple[int, int, int]  # start, stop and step
    option: Slots
    ready: Slots  # of compiled functions
    dtype: Slots
    pool: Slots
    generator: Slots
    node: Slots


class Writer(Function):
    """A function that knows the layout."""

    def __init__(
        self, layout: Layout, name: str, *parameters: str, exported: bool = False, inlined: bool = False
    ) -> None:
        super().__init__(name, parameters, exported, inlined)
        self.layout = layout

    def interrupt(self) -> tuple[str, ...]:
        """Handle signals that came meanwhile; what a handler raised is put aside for `interrupted`.

        Python would handle them in the first finalizer that runs, and there ignore a KeyboardInterrupt.
        """
        raised = tuple(self.variable(0) for _ in range(3))
        with self.when(self.differ(self.call("PyErr_CheckSignals"), 0)):
            self.call("PyErr_Fetch", *map(self.address, raised))
        return raised

    @contextmanager
    def interrupted(self, raised: tuple[str, ...]) -> Iterator[None]:
        """If a handler raised something, raise it, and do what is written inside."""
        with self.when(self.differ(self.get(raised[0]), 0)):
            self.call("PyErr_Restore", *map(self.get, raised))
            yield

    def follow(self, address: str, offset: int) -> str:
        """The object in a slot; the function gives 0 when the slot is empty."""
        found = self.load(address, offset)
        self.need(self.differ(found, 0))
        return found

    def call(self, name: str, *operands: str | int) -> str:
        """Call a function; references are counted here where they can be."""
        if name in _COUNTING and self.name not in _COUNTING.values():
            return super().call(_COUNTING[name], *operands)
        return super().call(name, *operands)

    def single(self, plan: str, name: str) -> str:
        """A word of the plan."""
        return self.load(plan, P[name])

    def shared(self, plan: str, name: str) -> str:
        """A word that all plans share."""
        return self.load(self.load(plan, P["shared"]), S[name])

    def recorder_here(self, plan: str, otherwise: int = -1) -> tuple[str, str]:
        """The modes and the recorder of this thread, borrowed; the function gives 0 where there is none yet, and
        `otherwise` after an error.
        """
        modes, own = self.variable(0), self.variable(0)
        code = self.call("here", plan, self.address(modes), self.address(own))
        self.need(self.equal(code, 1), otherwise)
        recorder = self.call("PyDict_GetItemWithError", self.get(own), self.shared(plan, "recorder_name"))
        self.need(self.differ(recorder, 0))
        return self.get(modes), recorder

    def replace(self, address: str, offset: int, value: str) -> None:
        """Put a reference that is ours into a slot; what was there is let go."""
        before = self.load(address, offset)
        self.store(value, address, offset)
        self.call("Py_DecRef", before)

    def put(self, address: str, offset: int, value: str) -> None:
        """Put an object into a slot."""
        self.call("Py_IncRef", value)
        self.replace(address, offset, value)

    def tuple_of(self, *parts: str) -> str:
        """A tuple of objects; the function gives 0 when there is no memory."""
        made = self.call("PyTuple_New", len(parts))
        self.need(self.differ(made, 0))
        for place, part in enumerate(parts):
            self.call("Py_IncRef", part)
            self.call("PyTuple_SetItem", made, place, part)
        return made

    def own(self, plan: str, value: str) -> None:
        """Let a reference go when the call ends."""
        count = self.single(plan, "owned_count")
        self.store(value, self.scaled(self.single(plan, "owned"), count))
        self.store(self.add(count, 1), plan, P["owned_count"])

    def run_python(self, called: str, *operands: str) -> None:
        """Call a Python function, whose result is dropped; the function gives -1 when it raises."""
        given = self.call("PyTuple_New", len(operands))
        self.need(self.differ(given, 0), -1)
        for place, operand in enumerate(operands):
            self.call("Py_IncRef", operand)
            self.call("PyTuple_SetItem", given, place, operand)
        found = self.call("PyObject_CallObject", called, given)
        self.call("Py_DecRef", given)
        self.need(self.differ(found, 0), -1)
        self.call("Py_DecRef", found)

    def count_up(self, counter: str) -> None:
        """Add one to the number that a list holds."""
        count = self.call("PyLong_AsLongLong", self.call("PyList_GetItem", counter, 0))
        self.call("PyList_SetItem", counter, 0, self.call("PyLong_FromLongLong", self.add(count, 1)))

    def is_alone(self, value: str) -> str:
        """Whether there is one reference to an object."""
        return self.equal(self.load(value, self.layout.references, bits=32), 1)

    def is_tensor(self, plan: str, value: str) -> str:
        """Whether an object is a tensor, as a condition."""
        kind = self.load(value, self.layout.type)
        return self.differ(self.call("PyType_IsSubtype", kind, self.shared(plan, "tensor_class")), 0)

    def requires(self, plan: str, lineage: str) -> str:
        """1 if a tensor of this lineage requires gradients, else 0."""
        flag = self.equal(self.load(lineage, self.layout.lineage["requires_grad"]), self.shared(plan, "true"))
        history = self.differ(self.load(lineage, self.layout.lineage["hist"]), self.shared(plan, "none"))
        return self.number(self.either(flag, history))

    def storage_of(self, plan: str, record: str) -> str:
        """The storage that a record of inputs or of written memory names."""
        kind, what, tensor = self.load(record), self.load(record, 8), self.layout.tensor
        found = self.variable(what)
        with self.when(self.either(self.equal(kind, ARGUMENT), self.above(kind, VIEW - 1))):
            self.set(found, self.follow(self.load(self.scaled("%args", what)), tensor["_storage"]))
        with self.when(self.equal(kind, GRADIENT)):
            held = self.follow(what, tensor["_grad"])
            self.need(self.differ(held, self.shared(plan, "none")))
            self.set(found, self.follow(held, tensor["_storage"]))
        return self.get(found)


def _incref(layout: Layout) -> Function:
    """`Py_IncRef`; nothing happens for 0."""
    f = Writer(layout, "incref", "value", inlined=True)
    f.need(f.differ("%value", 0), 1)
    count = f.load("%value", layout.references, bits=32)
    with f.when(f.below(f.add(count, -1), _MANY)):
        f.store(f.add(count, 1), "%value", layout.references, bits=32)
        f.give(1)
    f.call("Py_IncRef", "%value")
    f.give(1)
    return f


def _decref(layout: Layout) -> Function:
    """`Py_DecRef`; nothing happens for 0."""
    f = Writer(layout, "decref", "value")
    f.need(f.differ("%value", 0), 1)
    count = f.load("%value", layout.references, bits=32)
    with f.when(f.below(f.add(count, -2), _MANY)):
        f.store(f.add(count, -1), "%value", layout.references, bits=32)
        f.give(1)
    f.call("Py_DecRef", "%value")
    f.give(1)
    return f


def _here(layout: Layout) -> Function:
    """The modes of this thread, and its names in `threads`, borrowed, go to two places."""
    f = Writer(layout, "here", "plan", "modes", "own")
    plan, home = "%plan", f.single("%plan", "shared")
    f.store(f.load(home, S["modes_here"]), "%modes")
    f.store(f.load(home, S["own_here"]), "%own")
    thread = f.call("PyThreadState_GetID", f.call("PyThreadState_Get"))
    with f.when(f.differ(f.load(home, S["thread_here"]), thread)):
        # Another thread was here the last time. No number is used again, and a thread keeps its dictionaries.
        for place, holder in (("%modes", "mode"), ("%own", "threads")):
            found = f.call("PyObject_GetAttr", f.shared(plan, holder), f.shared(plan, "dict_name"))
            f.need(f.differ(found, 0), -1)
            f.store(found, place)
        before = [f.load(home, S[name]) for name in ("modes_here", "own_here")]
        f.store(f.load("%modes"), home, S["modes_here"])
        f.store(f.load("%own"), home, S["own_here"])
        f.store(thread, home, S["thread_here"])
        for held in before:
            f.call("Py_DecRef", held)
    f.give(1)
    return f


def _clone(layout: Layout) -> Function:
    """A new object with the slots of a prototype."""
    f = Writer(layout, "clone", "prototype")
    made = f.call("PyType_GenericAlloc", f.load("%prototype"), 0)
    f.need(f.differ(made, 0))
    source = f.load("%prototype", 8)
    with f.each("%prototype", (16, 24), 1) as record:
        offset = f.load(record)
        held = f.load(f.add(source, offset))
        with f.when(f.differ(held, 0)):
            f.call("Py_IncRef", held)
            f.store(held, f.add(made, offset))
    f.give(made)
    return f


def _take(layout: Layout) -> Function:
    """A new buffer: over a block that came back just now, or else as `Buffer.allocate` makes it. 0 with an error."""
    f = Writer(layout, "take", "plan", "record")
    with f.when(f.equal(f.load("%record"), FOREIGN)):
        f.give(f.call("PyObject_CallObject", f.load("%record", 24), f.load("%record", 8)))
    returned = f.shared("%plan", "returned")
    size = f.call("PyList_Size", returned)
    place, least = f.variable(f.add(size, -1)), f.variable(-1)
    with f.when(f.above(size, _LOOK_BACK)):
        f.set(least, f.add(size, -1 - _LOOK_BACK))
    with f.while_above(place, f.get(least)):
        now = f.get(place)
        memory = f.call("PyList_GetItem", returned, now)
        capacity = f.call("PyLong_AsLongLong", f.call("PyTuple_GetItem", memory, 0))
        with f.when(f.equal(capacity, f.load("%record"))):
            # While the counter of the most memory is reset, blocks must pass through the pool.
            peak = f.call("PyObject_GetAttr", f.shared("%plan", "counters"), f.shared("%plan", "peak_name"))
            counted = f.call("PyObject_IsTrue", peak)
            f.call("Py_DecRef", peak)
            with f.when(f.equal(counted, 1)):
                made = f.call("clone", f.load("%record", 16))
                f.need(f.differ(made, 0))
                f.put(made, layout.buffer["_memory"], memory)
                f.put(made, layout.buffer["ptr"], f.call("PyTuple_GetItem", memory, 1))
                f.call("PyList_SetSlice", returned, now, f.add(now, 1), 0)
                f.give(made)
        f.set(place, f.add(now, -1))
    idle = f.call("take_idle", "%plan", "%record")
    with f.when(f.differ(idle, 0)):
        f.give(idle)
    f.give(f.call("PyObject_CallObject", f.shared("%plan", "allocate"), f.load("%record", 8)))
    return f


def _take_bytes(layout: Layout) -> Function:
    """A new buffer of as many bytes as a Python integer says; 0 with an error."""
    f = Writer(layout, "take_bytes", "plan", "nbytes")
    operands, record = f.tuple_of("%nbytes"), f.words(TAKE)
    capacities = f.load(f.shared("%plan", "pool"), layout.pool["_capacities"])
    known, made = f.call("PyDict_GetItemWithError", capacities, "%nbytes"), f.variable(0)
    with f.when(f.equal(known, 0)):
        f.set(made, f.call("PyObject_CallObject", f.shared("%plan", "allocate"), operands))
    with f.when(f.differ(known, 0)):
        words = (f.call("PyLong_AsLongLong", known), operands, f.shared("%plan", "buffer_like"))
        for place, word in enumerate(words):
            f.store(word, record, 8 * place)
        f.set(made, f.call("take", "%plan", record))
        with f.when(f.differ(f.get(made), 0)):
            f.put(f.get(made), layout.buffer["nbytes"], "%nbytes")
    f.call("Py_DecRef", operands)
    f.give(f.get(made))
    return f


def _take_idle(layout: Layout) -> Function:
    """A new buffer over a block that is idle in the pool, while no peak is passed; else 0."""
    f = Writer(layout, "take_idle", "plan", "record")
    pool, capacity = f.shared("%plan", "pool"), f.load("%record")
    key = f.call("PyLong_FromLongLong", capacity)
    f.need(f.differ(key, 0))
    blocks = f.call("PyDict_GetItemWithError", f.load(pool, layout.pool["_free"]), key)
    f.call("Py_DecRef", key)
    f.need(f.differ(blocks, 0))
    count = f.call("PyList_Size", blocks)
    f.need(f.above(count, 0))
    live = f.add(f.call("PyLong_AsLongLong", f.load(pool, layout.pool["_live"])), capacity)
    counted = f.call("PyObject_GetAttr", f.shared("%plan", "counters"), f.shared("%plan", "peak_name"))
    peaks = [f.call("PyLong_AsLongLong", peak) for peak in (f.load(pool, layout.pool["_peak"]), counted)]
    f.call("Py_DecRef", counted)
    for peak in peaks:
        f.need(f.above(f.add(peak, 1), live))
    entered = f.call("PyObject_CallObject", f.load(pool, layout.pool["enter"]), f.shared("%plan", "at_once"))
    f.call("Py_DecRef", entered)
    f.need(f.equal(entered, f.shared("%plan", "true")))
    made = f.call("clone", f.load("%record", 16))
    with f.when(f.differ(made, 0)):
        memory = f.call("PyList_GetItem", blocks, f.add(count, -1))
        f.put(made, layout.buffer["_memory"], memory)
        f.put(made, layout.buffer["ptr"], f.call("PyTuple_GetItem", memory, 1))
        f.call("PyList_SetSlice", blocks, f.add(count, -1), count, 0)
        f.call("bump", pool, layout.pool["_live"], capacity)
        f.call("bump", pool, layout.pool["_idle"], f.minus("0", capacity))
    f.call("Py_DecRef", f.call("PyObject_CallNoArgs", f.load(pool, layout.pool["leave"])))
    f.give(made)
    return f


def _make(layout: Layout) -> Function:
    """The objects of a new tensor, but for its buffer; over a storage that is used again if `again` is not 0."""
    f = Writer(layout, "make", "plan", "record", "again")
    plan, record = "%plan", "%record"
    serials, zero = f.shared(plan, "serials"), f.shared(plan, "zero")

    def new(name: str, *operands: str | int) -> str:
        found = f.call(name, *operands)
        f.need(f.differ(found, 0), -1)
        return found

    none = f.shared(plan, "none")
    memory, count = f.variable("%again"), f.variable(none)
    with f.when(f.differ("%again", 0)):
        f.call("Py_IncRef", "%again")
        f.put("%again", layout.storage["version"], zero)
        for name in ("slot", "slots", "export", "external", "origin"):
            f.put("%again", layout.storage[name], none)
        f.set(count, f.load("%again", layout.storage["counter"]))
    with f.when(f.equal("%again", 0)):
        f.set(memory, new("clone", f.load(record)))
        # Tensors of inference mode count no writes.
        with f.when(f.differ(f.single(plan, "inference"), 0)):
            f.put(f.get(memory), layout.storage["counter"], none)
        with f.when(f.equal(f.single(plan, "inference"), 0)):
            f.set(count, new("PyList_New", 1))
            f.replace(f.get(memory), layout.storage["counter"], f.get(count))
    storage, counter = f.get(memory), f.get(count)
    with f.when(f.differ(counter, none)):
        f.call("Py_IncRef", zero)
        f.call("PyList_SetItem", counter, 0, zero)
    f.replace(storage, layout.storage["serial"], new("PyIter_Next", serials))
    f.put(storage, layout.storage["recorder"], f.single(plan, "recorder"))
    lineage = new("clone", f.load(record, 8))
    with f.when(f.differ(f.load(record, 16), 0)):
        value = new("clone", f.load(record, 16))
        f.replace(value, layout.value["serial"], new("PyIter_Next", serials))
        f.replace(lineage, layout.lineage["hist"], value)
    made = new("clone", f.load(record, 24))
    f.replace(made, layout.tensor["_storage"], storage)
    f.replace(made, layout.tensor["_lineage"], lineage)
    f.put(made, layout.tensor["_counter"], counter)
    f.own(plan, made)
    f.store(made, record, MADE_TENSOR)
    f.store(storage, record, MADE_STORAGE)
    f.give(1)
    return f


def _idle_result(layout: Layout) -> Function:
    """The storage of an earlier result that nobody holds any more, or 0."""
    f = Writer(layout, "idle_result", "plan", "record")
    first, slots, none = f.load("%record", 48), layout.storage, f.shared("%plan", "none")
    f.need(f.differ(first, -1))
    left = f.variable(2)
    with f.while_above(left, 0):
        f.set(left, f.add(f.get(left), -1))
        held = f.call("PyList_GetItem", f.single("%plan", "results"), f.add(first, f.get(left)))
        with f.when(f.is_alone(held)), f.when(f.equal(f.load(held, slots["value"]), none)):
            buffer, counter = f.load(held, slots["buffer"]), f.load(held, slots["counter"])
            # Those of inference mode count no writes.
            counts = f.number(f.differ(counter, none))
            fits = f.equal(counts, f.number(f.equal(f.single("%plan", "inference"), 0)))
            free = f.both(f.is_alone(buffer), f.either(f.equal(counts, 0), f.is_alone(counter)))
            with f.when(f.both(fits, free)):
                f.give(held)
    f.give(0)
    return f


def _keep_result(layout: Layout) -> Function:
    """Keep the storage of a result for later results, unless it is kept already."""
    f = Writer(layout, "keep_result", "plan", "record")
    first, results, storage = f.load("%record", 48), f.single("%plan", "results"), f.load("%record", MADE_STORAGE)
    f.need(f.differ(first, -1))
    for place in (first, f.add(first, 1)):
        f.need(f.differ(f.call("PyList_GetItem", results, place), storage))
    turn = f.load("%record", 56)
    f.call("Py_IncRef", storage)
    f.call("PyList_SetItem", results, f.add(first, turn), storage)
    f.store(f.minus("1", turn), "%record", 56)
    f.give(1)
    return f


def _reusable(layout: Layout) -> Function:
    """Whether nothing but the tensor holds its gradient, and what that consists of."""
    f = Writer(layout, "reusable", "plan", "owner", "type")
    none, tensor, storage = f.shared("%plan", "none"), layout.tensor, layout.storage
    held = f.follow("%owner", tensor["_grad"])
    f.need(f.differ(held, none))
    f.need(f.equal(f.load(held, tensor["_type"]), "%type"))
    f.need(f.equal(f.load(held, tensor["_chain"]), f.shared("%plan", "empty")))
    f.need(f.equal(f.load(held, tensor["_grad"]), none))
    memory, lineage = f.follow(held, tensor["_storage"]), f.follow(held, tensor["_lineage"])
    f.need(f.equal(f.load(memory, storage["value"]), none))
    f.need(f.equal(f.requires("%plan", lineage), 0))
    buffer = f.follow(memory, storage["buffer"])
    for part in (held, memory, lineage, buffer):
        f.need(f.is_alone(part))
    f.need(f.differ(f.follow(buffer, layout.buffer["_memory"]), none))
    f.give(1)
    return f


def _release(layout: Layout) -> Function:
    """Let go what the call owns, down to a number of references."""
    f = Writer(layout, "release", "plan", "down_to")
    count = f.variable(f.single("%plan", "owned_count"))
    with f.while_above(count, "%down_to"):
        last = f.add(f.get(count), -1)
        f.set(count, last)
        f.store(last, "%plan", P["owned_count"])
        f.call("Py_DecRef", f.load(f.scaled(f.single("%plan", "owned"), last)))
    f.give(1)
    return f


def _write(layout: Layout) -> Function:
    """A storage gets a buffer, as `graphc.replay` writes one."""
    f = Writer(layout, "write", "plan", "memory", "buffer")
    plan, memory, none, slots = "%plan", "%memory", f.shared("%plan", "none"), layout.storage
    plain = f.equal(f.load(memory, slots["value"]), none)
    for name in ("external", "export"):
        plain = f.both(plain, f.equal(f.load(memory, slots[name]), none))
    with f.when(f.either(plain, f.equal(f.load(memory, slots["buffer"]), "%buffer"))):
        f.call("bump", memory, slots["version"], 1)
        counter = f.load(memory, slots["counter"])
        with f.when(f.differ(counter, none)):
            number = f.call("PyLong_AsLongLong", f.call("PyList_GetItem", counter, 0))
            f.call("PyList_SetItem", counter, 0, f.call("PyLong_FromLongLong", f.add(number, 1)))
        f.put(memory, slots["buffer"], "%buffer")
        f.put(memory, slots["slot"], none)
        f.put(memory, slots["slots"], none)
        f.give(1)
    f.run_python(f.shared(plan, "write"), memory, "%buffer")
    f.give(1)
    return f


def _bump(layout: Layout) -> Function:
    """Add to the integer in a slot."""
    f = Writer(layout, "bump", "holder", "offset", "amount")
    place = f.add("%holder", "%offset")
    f.replace(place, 0, f.call("PyLong_FromLongLong", f.add(f.call("PyLong_AsLongLong", f.load(place)), "%amount")))
    f.give(1)
    return f


def functions(layout: Layout) -> list[Function]:
    """What a replay does to objects."""
    makers = (
        *(
            _incref,
            _decref,
            _here,
            _clone,
            _take,
            _take_idle,
            _take_bytes,
            _make,
            _idle_result,
            _keep_result,
            _reusable,
        ),
        *(_release, _write, _bump),
    )
    return [make(layout) for make in makers]
