"""The text of operations in place on parts that are computed, such as `x[i] += 1`: few elements are changed where they
lie, when `graphc.tensors.storing` would store them at once. Functions give 0 when Python must do it; then nothing was
written.
"""

from __future__ import annotations

from graphc.native.code import Function
from graphc.native.entering import HOME
from graphc.native.objects import Layout, Writer
from graphc.native.storing import PLACE_WORDS, each_row
from graphc.tensors.storing import SMALL

# Types of elements in LLVM, with the bytes of one, by the dtypes that are changed here.
_TYPES = {"f32": ("float", 4), "f64": ("double", 8), "i32": ("i32", 4), "i64": ("i64", 8), "boolean": ("i8", 1)}
# Methods of tensors, and what they do to floats, to integers, to truth values; "" is left to Python.
_METHODS = {
    "__iadd__": ("fadd", "add", ""),
    "__isub__": ("fsub", "sub", ""),
    "__imul__": ("fmul", "mul", ""),
    "__itruediv__": ("fdiv", "", ""),
    "__iand__": ("", "and", "and"),
    "__ior__": ("", "or", "or"),
    "__ixor__": ("", "xor", "xor"),
}
_NAMED = {"add_": "__iadd__", "sub_": "__isub__", "mul_": "__imul__", "div_": "__itruediv__"}
SYMBOLS = {name: f"graphc_{name.strip('_')}" for name in (*_METHODS, *_NAMED)}


def _operation(method: str, dtype: str) -> str:
    return _METHODS[method][0 if dtype.startswith("f") else 2 if dtype == "boolean" else 1]


def _change_row(layout: Layout) -> Function:
    """Change elements that lie one after the other, each by the next of those at an address, `apart` bytes from one to
    the next; 0 for a dtype of which that is not known.
    """
    f = Writer(layout, "change_row", "plan", "dtype", "method", "row", "count", "source", "apart")
    for dtype, (type, width) in _TYPES.items():
        with f.when(f.equal("%dtype", f.shared("%plan", dtype))):
            for number, method in enumerate(_METHODS):
                operation = _operation(method, dtype)
                if operation:
                    with f.when(f.equal("%method", number)):
                        left, at, source = f.variable("%count"), f.variable("%row"), f.variable("%source")
                        with f.while_above(left, 0):
                            f.change(operation, type, f.get(at), f.get(source))
                            f.set(at, f.add(f.get(at), width))
                            f.set(source, f.add(f.get(source), "%apart"))
                            f.set(left, f.add(f.get(left), -1))
                        f.give(1)
    f.give(0)
    return f


def _updated(layout: Layout) -> Function:
    """Change the part that a tensor shows by a number, one element, or as many elements; 1 if it is done, -1 after an
    error.
    """
    f = Writer(layout, "updated", "plan", "tensor", "value", "method")
    plan, tensor = "%plan", layout.tensor
    f.need(f.differ(f.load("%tensor", tensor["_chain"]), f.shared(plan, "empty")))
    form = f.follow("%tensor", tensor["_type"])
    nbytes, size = (f.call("PyLong_AsLongLong", f.load(form, layout.form[name])) for name in ("nbytes", "size"))
    f.need(f.both(f.above(size, 0), f.above(str(SMALL + 1), nbytes)))
    modes, recorder = f.recorder_here(plan)
    is_tensor = f.is_tensor(plan, "%value")
    with f.when(is_tensor):
        f.proceed(f.call("computed_first", plan, recorder, "%tensor", "%value"))
    buffer = f.call("own_memory", plan, modes, "%tensor", recorder)
    f.need(f.differ(buffer, 0))
    dtype = f.load(form, layout.form["dtype"])
    f.proceed(f.call("change_row", plan, dtype, "%method", 0, 0, 0, 0))
    place, word, item, apart = f.words(PLACE_WORDS), f.variable(0), f.quotient(nbytes, size), f.variable(0)
    source, shape = f.variable(f.address(word)), f.variable(0)
    with f.unless(is_tensor):
        f.need(f.differ(f.call("number_word", plan, dtype, "%value", f.address(word)), 0))
    with f.when(is_tensor):
        f.set(source, f.call("elements", plan, "%value", dtype))
        f.need(f.differ(f.get(source), 0))
        memories = [f.load(each, tensor["_storage"]) for each in ("%value", "%tensor")]
        f.need(f.differ(*memories))  # it may show other parts of the same
        extents = f.load(f.load("%value", tensor["_type"]), layout.form["shape"])
        with f.when(f.above(f.call("PyTuple_Size", extents), 0)):
            f.set(shape, extents)
            f.set(apart, item)
    f.proceed(f.call("placed", plan, "%tensor", f.shared(plan, "empty"), place, f.get(shape)))
    with each_row(f, place, f.call("PyLong_AsVoidPtr", f.load(buffer, layout.buffer["ptr"])), item) as (row, count):
        f.call("change_row", plan, dtype, "%method", row, count, f.get(source), f.get(apart))
        f.set(source, f.add(f.get(source), f.times(count, f.get(apart))))
    f.give(f.call("wrote", plan, "%tensor", 1))
    return f


def _method(layout: Layout, name: str, method: str) -> Function:
    """`PyObject *(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)`: a method of tensors."""
    f = Writer(layout, SYMBOLS[name], "self", "args", "count", "names", exported=True)
    plan, done = f.place(HOME), f.variable(0)
    with f.when(f.both(f.equal("%count", 1), f.equal("%names", 0))):
        f.set(done, f.call("updated", plan, "%self", f.load("%args"), [*_METHODS].index(method)))
    with f.when(f.equal(f.get(done), 0)):
        slow = f.shared(plan, f"{name.strip('_')}_in_python")
        f.give(f.call("in_python", slow, "%self", "%args", "%count", "%names"))
    f.need(f.differ(f.get(done), -1))
    f.call("Py_IncRef", "%self")
    f.give("%self")
    return f


def functions(layout: Layout) -> list[Function]:
    """The methods, and what they need."""
    methods = {**{name: name for name in _METHODS}, **_NAMED}
    return [_change_row(layout), _updated(layout), *(_method(layout, *pair) for pair in methods.items())]
