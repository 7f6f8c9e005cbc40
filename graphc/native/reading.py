"""The text of the methods of tensors that read memory: what is computed, or can be here, is read; all else by Python.

Functions give 0 when Python must do it, -1 when an error is set.
"""

from __future__ import annotations

from graphc.native.code import Function
from graphc.native.entering import HOME
from graphc.native.objects import Layout, Writer

ARRAY, LIST, NUMBER, ADDRESS = "graphc_numpy", "graphc_tolist", "graphc_item", "graphc_data_ptr"
TRUTH = "graphc_bool"
FLOAT, INTEGER, INDEX = "graphc_float", "graphc_int", "graphc_index"
METHODS = ARRAY, LIST, NUMBER, ADDRESS, TRUTH, FLOAT, INTEGER, INDEX
# The dtypes of which one element is read here, with the bits of one.
_NUMBERS = {"f32": 32, "f64": 64, "i32": 32, "i64": 64, "boolean": 8}


def _memory_of(layout: Layout) -> Function:
    """The buffer of a tensor on the CPU, computed, borrowed: this is a look at it, which no capture sees."""
    f = Writer(layout, "memory_of", "plan", "tensor")
    plan, none = "%plan", f.shared("%plan", "none")
    _, recorder = f.recorder_here(plan)
    f.need(f.equal(f.load(recorder, layout.recorder["capture"]), none))
    storage = f.follow("%tensor", layout.tensor["_storage"])
    form = f.follow("%tensor", layout.tensor["_type"])
    f.need(f.equal(f.load(form, layout.form["device"]), f.shared(plan, "cpu_name")))
    with f.when(f.differ(f.load(storage, layout.storage["value"]), none)):
        f.proceed(f.call("looked_at", plan, recorder, storage))
    buffer = f.follow(storage, layout.storage["buffer"])
    f.need(f.equal(f.load(buffer, layout.type), f.shared(plan, "buffer_class")))
    f.count_up(f.shared(plan, "touched"))
    f.give(buffer)
    return f


def _window(layout: Layout) -> Function:
    """`window`: what arrays over the memory of a buffer are laid over."""
    f = Writer(layout, "window", "plan", "buffer")
    plan, operands = "%plan", f.call("PyTuple_New", 1)
    f.need(f.differ(operands, 0), -1)
    begin = f.load("%buffer", layout.buffer["ptr"])
    f.call("Py_IncRef", begin)
    f.call("PyTuple_SetItem", operands, 0, begin)
    made = f.call("PyObject_CallObject", f.shared(plan, "window_at"), operands)
    f.call("Py_DecRef", operands)
    f.need(f.differ(made, 0), -1)
    with f.when(f.differ(f.call("PyObject_SetAttr", made, f.shared(plan, "buffer_name"), "%buffer"), 0)):
        f.call("Py_DecRef", made)
        f.give(-1)
    f.give(made)
    return f


def _exporter(layout: Layout) -> Function:
    """`exporter_of`: the owner of memory that NumPy sees, a new reference."""
    f = Writer(layout, "exporter", "plan", "storage", "buffer")
    plan, slots, none = "%plan", layout.storage, f.shared("%plan", "none")
    f.need(f.equal(f.load("%storage", slots["external"]), none))
    held = f.call("alive", plan, f.load("%storage", slots["export"]))
    with f.when(f.differ(held, 0)):
        f.need(f.equal(f.load(held, layout.type), f.shared(plan, "window_class")))
        f.call("Py_IncRef", held)
        f.give(held)
    cuts = f.call("cuts", plan, f.follow("%storage", slots["recorder"]))
    f.need(f.differ(cuts, 0), -1)
    f.need(f.equal(f.call("PyDict_Size", cuts), 0))
    made = f.call("window", plan, "%buffer")
    f.need(f.differ(made, -1), -1)
    reference = f.call("PyWeakref_NewRef", made, 0)
    with f.when(f.equal(reference, 0)):
        f.call("Py_DecRef", made)
        f.give(-1)
    # Making objects may have run Python. A leaf that stands for the memory would see what NumPy writes.
    steady = f.equal(f.load("%storage", slots["buffer"]), "%buffer")
    for name in ("value", "external", "slot", "slots"):
        steady = f.both(steady, f.equal(f.load("%storage", slots[name]), none))
    with f.unless(steady):
        f.call("Py_DecRef", reference)
        f.call("Py_DecRef", made)
        f.give(0)
    f.replace("%storage", slots["export"], reference)
    f.give(made)
    return f


def _array(layout: Layout) -> Function:
    """`PyObject *(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)`: `numpy()`."""
    f = Writer(layout, ARRAY, "self", "args", "count", "names", exported=True)
    plan = f.place(HOME)
    made = f.variable(0)
    with f.when(f.both(f.equal("%count", 0), f.equal("%names", 0))):
        f.set(made, f.call("array_of", plan, "%self"))
    with f.when(f.equal(f.get(made), 0)):
        f.give(f.call("in_python", f.shared(plan, "numpy_in_python"), "%self", "%args", "%count", "%names"))
    f.need(f.differ(f.get(made), -1))
    f.give(f.get(made))
    return f


def _array_of(layout: Layout) -> Function:
    """The array over the memory of a whole tensor that requires no gradients."""
    f = Writer(layout, "array_of", "plan", "tensor")
    plan, tensor = "%plan", layout.tensor
    f.need(f.equal(f.requires(plan, f.follow("%tensor", tensor["_lineage"])), 0))
    buffer = f.call("whole", plan, "%tensor")
    f.need(f.differ(buffer, 0))
    f.need(f.differ(buffer, -1), -1)
    owner = f.call("exporter", plan, f.load("%tensor", tensor["_storage"]), buffer)
    f.need(f.differ(owner, 0))
    f.need(f.differ(owner, -1), -1)
    f.give(f.call("laid_out", plan, f.load("%tensor", tensor["_type"]), owner))
    return f


def _whole(layout: Layout) -> Function:
    """`memory_of` for a tensor whose elements lie in order from the begin of its memory on."""
    f = Writer(layout, "whole", "plan", "tensor")
    tensor, form = layout.tensor, f.follow("%tensor", layout.tensor["_type"])
    f.need(f.equal(f.load("%tensor", tensor["_strides"]), f.load(form, layout.form["strides"])))
    f.need(f.equal(f.load("%tensor", tensor["_offset"]), f.shared("%plan", "zero")))
    f.need(f.above(f.call("PyLong_AsLongLong", f.load(form, layout.form["size"])), 0))
    f.give(f.call("memory_of", "%plan", "%tensor"))
    return f


def _list_of(layout: Layout) -> Function:
    """The elements of a whole tensor as lists."""
    f = Writer(layout, "list_of", "plan", "tensor")
    plan, form = "%plan", f.follow("%tensor", layout.tensor["_type"])
    f.need(f.differ(f.load(form, layout.form["dtype"]), f.shared(plan, "bf16")))  # NumPy knows no numbers of it
    buffer = f.call("whole", plan, "%tensor")
    f.need(f.differ(buffer, 0))
    f.need(f.differ(buffer, -1), -1)
    owner = f.call("window", plan, buffer)
    f.need(f.differ(owner, -1), -1)
    array = f.call("laid_out", plan, form, owner)
    f.need(f.differ(array, -1), -1)
    method, made = f.call("PyObject_GetAttr", array, f.shared(plan, "tolist_name")), f.variable(0)
    with f.when(f.differ(method, 0)):
        f.set(made, f.call("PyObject_CallNoArgs", method))
    f.call("Py_DecRef", method)
    f.call("Py_DecRef", array)
    f.need(f.differ(f.get(made), 0), -1)
    f.give(f.get(made))
    return f


def _laid_out(layout: Layout) -> Function:
    """The array of a type over a window, whose reference is taken."""
    f = Writer(layout, "laid_out", "plan", "form", "owner")
    plan, form, owner = "%plan", "%form", "%owner"
    operands = f.call("PyTuple_New", 4)
    with f.when(f.equal(operands, 0)):
        f.call("Py_DecRef", owner)
        f.give(-1)
    shape, kind = f.load(form, layout.form["shape"]), f.load(f.load(form, layout.form["dtype"]), layout.dtype["numpy"])
    f.call("PyTuple_SetItem", operands, 2, owner)
    for place, held in ((0, shape), (1, kind), (3, f.shared(plan, "zero"))):
        f.call("Py_IncRef", held)
        f.call("PyTuple_SetItem", operands, place, held)
    made = f.call("PyObject_CallObject", f.shared(plan, "array_class"), operands)
    f.call("Py_DecRef", operands)
    f.need(f.differ(made, 0), -1)
    f.give(made)
    return f


def _number_of(layout: Layout) -> Function:
    """The one element of a tensor as a Python number."""
    f = Writer(layout, "number_of", "plan", "tensor")
    plan = "%plan"
    form = f.follow("%tensor", layout.tensor["_type"])
    f.need(f.equal(f.call("PyLong_AsLongLong", f.load(form, layout.form["size"])), 1))
    buffer = f.call("memory_of", plan, "%tensor")
    f.need(f.differ(buffer, 0))
    f.need(f.differ(buffer, -1), -1)
    begin = f.call("PyLong_AsVoidPtr", f.load(buffer, layout.buffer["ptr"]))
    offset = f.call("PyLong_AsLongLong", f.load("%tensor", layout.tensor["_offset"]))
    kind = f.load(form, layout.form["dtype"])
    for name, bits in _NUMBERS.items():
        with f.when(f.equal(kind, f.shared(plan, name))):
            place = f.add(begin, f.times(offset, str(bits // 8)))
            made = f.variable(0)
            if name.startswith("f"):
                f.set(made, f.python_float(place, bits))
            elif name.startswith("i"):
                f.set(made, f.call("PyLong_FromLongLong", f.signed(f.load(place, bits=bits), bits)))
            else:
                f.set(made, f.shared(plan, "false"))
                with f.when(f.differ(f.load(place, bits=bits), 0)):
                    f.set(made, f.shared(plan, "true"))
                f.call("Py_IncRef", f.get(made))
            f.need(f.differ(f.get(made), 0), -1)
            f.give(f.get(made))
    f.give(0)
    return f


def _truth_of(layout: Layout) -> Function:
    """Whether the one element of a tensor is not 0."""
    f = Writer(layout, "truth_of", "plan", "tensor")
    number = f.call("number_of", "%plan", "%tensor")
    f.need(f.differ(number, 0))
    f.need(f.differ(number, -1), -1)
    is_true = f.call("PyObject_IsTrue", number)
    f.call("Py_DecRef", number)
    made = f.variable(f.shared("%plan", "false"))
    with f.when(f.equal(is_true, 1)):
        f.set(made, f.shared("%plan", "true"))
    f.call("Py_IncRef", f.get(made))
    f.give(f.get(made))
    return f


def _number_as(layout: Layout, name: str, kind: str) -> Function:
    """The one element of a tensor, if that is a Python number of this class."""
    f = Writer(layout, name, "plan", "tensor")
    number = f.call("number_of", "%plan", "%tensor")
    f.need(f.differ(number, 0))
    f.need(f.differ(number, -1), -1)
    with f.when(f.equal(f.load(number, layout.type), f.shared("%plan", kind))):
        f.give(number)
    f.call("Py_DecRef", number)
    f.give(0)
    return f


def _place_of(layout: Layout) -> Function:
    """The address of a tensor that begins where its memory does."""
    f = Writer(layout, "place_of", "plan", "tensor")
    f.need(f.equal(f.load("%tensor", layout.tensor["_offset"]), f.shared("%plan", "zero")))
    buffer = f.call("memory_of", "%plan", "%tensor")
    f.need(f.differ(buffer, 0))
    f.need(f.differ(buffer, -1), -1)
    found = f.load(buffer, layout.buffer["ptr"])
    f.call("Py_IncRef", found)
    f.give(found)
    return f


def _reader(layout: Layout, symbol: str, fast: str, slow: str) -> Function:
    """`PyObject *(PyObject *self, PyObject *unused)`: a method without arguments."""
    f = Writer(layout, symbol, "self", "unused", exported=True)
    plan = f.place(HOME)
    made = f.call(fast, plan, "%self")
    with f.when(f.equal(made, 0)):
        f.give(f.call("in_python", f.shared(plan, slow), "%self", 0, 0, 0))
    f.need(f.differ(made, -1))
    f.give(made)
    return f


def functions(layout: Layout) -> list[Function]:
    """The methods, and what they need."""
    makers = (
        *(_memory_of, _whole, _window, _laid_out, _exporter, _array_of, _array, _list_of, _number_of, _truth_of),
        _place_of,
    )
    numbers = (("float_of", "float_class"), ("integer_of", "int_class"))
    readers = (
        (LIST, "list_of", "tolist_in_python"),
        (NUMBER, "number_of", "item_in_python"),
        (ADDRESS, "place_of", "data_ptr_in_python"),
        (TRUTH, "truth_of", "bool_in_python"),
        (FLOAT, "float_of", "float_in_python"),
        (INTEGER, "integer_of", "int_in_python"),
        (INDEX, "integer_of", "index_in_python"),
    )
    return [
        *(make(layout) for make in makers),
        *(_number_as(layout, *number) for number in numbers),
        *(_reader(layout, *reader) for reader in readers),
    ]
