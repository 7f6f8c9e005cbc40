"""A writer of LLVM IR for code that handles Python objects.

Every value is an i64: an address of an object or of memory, or a number. Control flow is written with context managers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Functions of Python's C interface that are called: the type of the result (None: nothing) and the number of operands.
INTERFACE: dict[str, tuple[str | None, int]] = {
    "PyCell_Get": ("i64", 1),
    "PyContextVar_Get": ("i32", 3),
    "PyDict_DelItem": ("i32", 2),
    "PyDict_GetItemWithError": ("i64", 2),
    "PyDict_New": ("i64", 0),
    "PyDict_Next": ("i32", 4),
    "PyDict_SetItem": ("i32", 3),
    "PyDict_Size": ("i64", 1),
    "PyErr_CheckSignals": ("i32", 0),
    "PyErr_Clear": (None, 0),
    "PyErr_Fetch": (None, 3),
    "PyErr_Occurred": ("i64", 0),
    "PyErr_Restore": (None, 3),
    "PyEval_GetFrame": ("i64", 0),
    "PyEval_RestoreThread": (None, 1),
    "PyEval_SaveThread": ("i64", 0),
    "PyFloat_AsDouble": ("double", 1),
    "PyFrame_GetBack": ("i64", 1),
    "PyFrame_GetCode": ("i64", 1),
    "PyFrame_GetLasti": ("i32", 1),
    "PyGC_Disable": ("i32", 0),
    "PyGC_Enable": ("i32", 0),
    "PyIter_Next": ("i64", 1),
    "PyList_Append": ("i32", 2),
    "PyList_AsTuple": ("i64", 1),
    "PyList_GetItem": ("i64", 2),
    "PyList_New": ("i64", 1),
    "PyList_SetItem": ("i32", 3),
    "PyList_SetSlice": ("i32", 4),
    "PyList_Size": ("i64", 1),
    "PyLong_AsLongLong": ("i64", 1),
    "PyLong_AsUnsignedLongLongMask": ("i64", 1),
    "PyLong_AsVoidPtr": ("i64", 1),
    "PyLong_FromLongLong": ("i64", 1),
    "PyObject_Call": ("i64", 3),
    "PyObject_CallNoArgs": ("i64", 1),
    "PyObject_CallObject": ("i64", 2),
    "PyObject_GetAttr": ("i64", 2),
    "PyObject_GetItem": ("i64", 2),
    "PyObject_IsTrue": ("i32", 1),
    "PyObject_RichCompareBool": ("i32", 3),
    "PyObject_SetAttr": ("i32", 3),
    "PySequence_Contains": ("i32", 2),
    "PySequence_Index": ("i64", 2),
    "PySet_Contains": ("i32", 2),
    "PySet_Size": ("i64", 1),
    "PyThreadState_Get": ("i64", 0),
    "PyThreadState_GetID": ("i64", 1),
    "PyTuple_GetItem": ("i64", 2),
    "PyTuple_New": ("i64", 1),
    "PyTuple_SetItem": ("i32", 3),
    "PyTuple_Size": ("i64", 1),
    "PyType_GenericAlloc": ("i64", 2),
    "PyType_IsSubtype": ("i32", 2),
    "PyWeakref_NewRef": ("i64", 2),
    "Py_DecRef": (None, 1),
    "Py_IncRef": (None, 1),
}


_FLOATS = {32: "float", 64: "double"}


class Function:
    """The text of one function, `i64 NAME(i64 ...)`, as it is written."""

    def __init__(self, name: str, parameters: Sequence[str], exported: bool = False, inlined: bool = False) -> None:
        self.name = name
        self._head = (
            f"define {'' if exported else 'internal '}i64 @{name}({', '.join(f'i64 %{p}' for p in parameters)})"
            f"{' alwaysinline' if inlined else ''}"
        )
        self._cells: list[str] = []
        self._lines: list[str] = []
        self._count = 0
        self._is_open = True

    def text(self) -> str:
        """The whole function."""
        assert not self._is_open, f"{self.name} ends without a result"
        return "\n".join([f"{self._head} {{", "entry:", *self._cells, "  br label %begin", "begin:", *self._lines, "}"])

    # values

    def load(self, address: str, offset: int = 0, bits: int = 64) -> str:
        """What stands at an address, extended by zeros."""
        found = self._value(f"load i{bits}, ptr {self._pointer(address, offset)}, align {bits // 8}")
        return found if bits == 64 else self._value(f"zext i{bits} {found} to i64")

    def store(self, value: str, address: str, offset: int = 0, bits: int = 64) -> None:
        """Write the lower bits of a value."""
        if bits < 64:
            value = self._value(f"trunc i64 {value} to i{bits}")
        self._line(f"store i{bits} {value}, ptr {self._pointer(address, offset)}, align {bits // 8}")

    def add(self, left: str, right: str | int) -> str:
        """The sum."""
        return self._value(f"add i64 {left}, {right}")

    def minus(self, left: str, right: str) -> str:
        """The difference."""
        return self._value(f"sub i64 {left}, {right}")

    def times(self, left: str, right: str) -> str:
        """The product."""
        return self._value(f"mul i64 {left}, {right}")

    def quotient(self, left: str, right: str) -> str:
        """How often a number that is above zero goes into another."""
        return self._value(f"udiv i64 {left}, {right}")

    def xor(self, left: str, right: str) -> str:
        """The bits that differ."""
        return self._value(f"xor i64 {left}, {right}")

    def masked(self, value: str, bits: int) -> str:
        """Some bits of a value."""
        return self._value(f"and i64 {value}, {bits}")

    def shifted(self, value: str, places: int) -> str:
        """The upper bits of a value."""
        return self._value(f"lshr i64 {value}, {places}")

    def outside(self, name: str) -> str:
        """The value of a word of the module."""
        return self._value(f"load i64, ptr @{name}, align 8")

    def place(self, name: str) -> str:
        """The address of a word of the module."""
        return self._value(f"ptrtoint ptr @{name} to i64")

    def python_float(self, address: str, bits: int) -> str:
        """A new Python object for the float of so many bits at an address; 0 with an error."""
        found = self._value(f"load {_FLOATS[bits]}, ptr {self._pointer(address, 0)}, align {bits // 8}")
        if bits == 32:
            found = self._value(f"fpext float {found} to double")
        return self._value(f"call i64 @PyFloat_FromDouble(double {found})")

    def signed(self, value: str, bits: int) -> str:
        """The number in the lower bits of a value."""
        if bits == 64:
            return value
        return self._value(f"sext i{bits} {self._value(f'trunc i64 {value} to i{bits}')} to i64")

    def scaled(self, base: str, index: str) -> str:
        """The address of word number `index`."""
        return self.add(base, self._value(f"shl i64 {index}, 3"))

    def equal(self, left: str, right: str | int) -> str:
        """Whether two values are the same, as a condition."""
        return self._value(f"icmp eq i64 {left}, {right}")

    def differ(self, left: str, right: str | int) -> str:
        """Whether two values are not the same, as a condition."""
        return self._value(f"icmp ne i64 {left}, {right}")

    def above(self, left: str, right: str | int) -> str:
        """Whether a number is greater than another, as a condition."""
        return self._value(f"icmp sgt i64 {left}, {right}")

    def below(self, left: str, right: str | int) -> str:
        """Whether a number without a sign is less than another, as a condition."""
        return self._value(f"icmp ult i64 {left}, {right}")

    def both(self, left: str, right: str) -> str:
        """Whether two conditions hold."""
        return self._value(f"and i1 {left}, {right}")

    def either(self, left: str, right: str) -> str:
        """Whether one of two conditions holds, or both."""
        return self._value(f"or i1 {left}, {right}")

    def number(self, condition: str) -> str:
        """1 for a condition that holds, else 0."""
        return self._value(f"zext i1 {condition} to i64")

    def call(self, name: str, *operands: str | int) -> str:
        """Call one of Python's functions, or one of this module's."""
        kind, count = INTERFACE.get(name, ("i64", len(operands)))
        assert count == len(operands), name
        text = f"call {kind or 'void'} @{name}({', '.join(f'i64 {o}' for o in operands)})"
        if kind is None:
            self._line(text)
            return ""
        made = self._value(text)
        return self._value(f"sext i32 {made} to i64") if kind == "i32" else made

    def double_of(self, value: str) -> str:
        """A Python number as a double; the function gives 0 for one that is none."""
        found = self._value(f"call double @PyFloat_AsDouble(i64 {value})")
        with (
            self.when(self._value(f"fcmp oeq double {found}, -1.0")),
            self.when(self.differ(self.call("PyErr_Occurred"), 0)),
        ):
            self.call("PyErr_Clear")
            self.give(0)
        return found

    def fits_float(self, value: str) -> str:
        """Whether a double is a float of 32 bits but for rounding, as a condition."""
        size = self._value(f"call double @llvm.fabs.f64(double {value})")
        infinite = self._value(f"fcmp oeq double {size}, 0x7FF0000000000000")
        return self.either(self._value(f"fcmp ule double {size}, 0x47EFFFFFE0000000"), infinite)

    def run_address(self, address: str, *operands: str) -> None:
        """Call the function at an address, which gives nothing."""
        target = self._pointer(address, 0)
        self._line(f"call void {target}({', '.join(f'i64 {o}' for o in operands)})")

    def store_double(self, value: str, address: str, bits: int = 64) -> None:
        """Write a double, as a float of so many bits."""
        if bits == 32:
            value = self._value(f"fptrunc double {value} to float")
        self._line(f"store {_FLOATS[bits]} {value}, ptr {self._pointer(address, 0)}, align {bits // 8}")

    def change(self, operation: str, type: str, target: str, source: str) -> None:
        """Let the element of a type at `target` be what an operation of LLVM's gives of it and of that at `source`."""
        places = [self._pointer(address, 0) for address in (target, source)]
        operands = [self._value(f"load {type}, ptr {place}, align 1") for place in places]
        made = self._value(f"{operation} {type} {', '.join(operands)}")
        self._line(f"store {type} {made}, ptr {places[0]}, align 1")

    def copy(self, source: str, target: str, nbytes: str) -> None:
        """Copy memory that does not overlap."""
        places = f"ptr {self._pointer(target, 0)}, ptr {self._pointer(source, 0)}"
        self._line(f"call void @llvm.memcpy.p0.p0.i64({places}, i64 {nbytes}, i1 false)")

    def clear(self, target: str, nbytes: str) -> None:
        """Fill memory with zeros."""
        self._line(f"call void @llvm.memset.p0.i64(ptr {self._pointer(target, 0)}, i8 0, i64 {nbytes}, i1 false)")

    # variables

    def variable(self, value: str | int) -> str:
        """A cell of the function's own, to be read with `get` and written with `set`."""
        self._count += 1
        cell = f"%c{self._count}"
        self._cells.append(f"  {cell} = alloca i64, align 8")
        self.set(cell, value)
        return cell

    def words(self, count: int) -> str:
        """The address of memory of the function's own."""
        self._count += 1
        cell = f"%c{self._count}"
        self._cells.append(f"  {cell} = alloca [{count} x i64], align 8")
        return self.address(cell)

    def get(self, cell: str) -> str:
        """What a variable holds."""
        return self._value(f"load i64, ptr {cell}, align 8")

    def set(self, cell: str, value: str | int) -> None:
        """Change a variable."""
        self._line(f"store i64 {value}, ptr {cell}, align 8")

    def address(self, cell: str) -> str:
        """Where a variable lies."""
        return self._value(f"ptrtoint ptr {cell} to i64")

    # control flow

    def give(self, value: str | int) -> None:
        """End the function."""
        self._line(f"ret i64 {value}")
        self._is_open = False

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """What is written inside runs if the condition holds."""
        self._count += 1
        inside, after = f"then{self._count}", f"after{self._count}"
        self._line(f"br i1 {condition}, label %{inside}, label %{after}")
        self._label(inside)
        yield
        if self._is_open:
            self._line(f"br label %{after}")
        self._label(after)

    @contextmanager
    def unless(self, condition: str) -> Iterator[None]:
        """What is written inside runs if the condition does not hold."""
        with self.when(self._value(f"xor i1 {condition}, true")):
            yield

    def need(self, condition: str, otherwise: int = 0) -> None:
        """End the function with `otherwise` unless the condition holds."""
        with self.unless(condition):
            self.give(otherwise)

    def proceed(self, code: str) -> None:
        """End the function with `code` unless it is 1."""
        with self.when(self.differ(code, 1)):
            self.give(code)

    @contextmanager
    def each(self, plan: str, table: tuple[int, int], words: int) -> Iterator[str]:
        """Run what is written inside for the address of each record, of so many words, of a table of `plan`.

        `table` says at which offsets the plan holds the address of the table and the number of records.
        """
        begin, count = self.load(plan, table[0]), self.load(plan, table[1])
        end = self.add(begin, self._value(f"mul i64 {count}, {8 * words}"))
        place = self.variable(begin)
        self._count += 1
        head, inside, after = (f"{name}{self._count}" for name in ("head", "body", "end"))
        self._line(f"br label %{head}")
        self._label(head)
        now = self.get(place)
        self._line(f"br i1 {self.differ(now, end)}, label %{inside}, label %{after}")
        self._label(inside)
        yield now
        if self._is_open:
            self.set(place, self.add(now, 8 * words))
            self._line(f"br label %{head}")
        self._label(after)

    @contextmanager
    def while_above(self, cell: str, least: str | int) -> Iterator[None]:
        """Repeat what is written inside while a variable is greater than `least`."""
        self._count += 1
        head, inside, after = (f"{name}{self._count}" for name in ("head", "body", "end"))
        self._line(f"br label %{head}")
        self._label(head)
        self._line(f"br i1 {self.above(self.get(cell), least)}, label %{inside}, label %{after}")
        self._label(inside)
        yield
        if self._is_open:
            self._line(f"br label %{head}")
        self._label(after)

    # writing

    def _pointer(self, address: str, offset: int) -> str:
        where = self.add(address, offset) if offset else address
        return self._value(f"inttoptr i64 {where} to ptr")

    def _value(self, text: str) -> str:
        self._count += 1
        self._line(f"%v{self._count} = {text}")
        return f"%v{self._count}"

    def _line(self, text: str) -> None:
        assert self._is_open, f"{self.name}: nothing gets here: {text}"
        self._lines.append(f"  {text}")

    def _label(self, name: str) -> None:
        self._lines.append(f"{name}:")
        self._is_open = True


def module_text(functions: Sequence[Function], words: Sequence[str] = ()) -> str:
    """A module of these functions, and of words that others set."""
    declared = [
        f"declare {kind or 'void'} @{name}({', '.join(['i64'] * count)})" for name, (kind, count) in INTERFACE.items()
    ]
    declared.append("declare i64 @PyFloat_FromDouble(double)")
    declared.append("declare double @llvm.fabs.f64(double)")
    declared.append("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
    declared.append("declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
    declared += [f"@{name} = global i64 0" for name in words]
    return "\n".join([*declared, *(function.text() for function in functions), ""])
