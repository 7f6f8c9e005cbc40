"""The memory that a plan of a native replay consists of: words in a fixed order, and tables of records.

Addresses in it are borrowed: whoever makes a plan keeps the objects alive as long as the plan.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence

from graphc.native.layout import slots_of
from graphc_runtime.buffer import Buffer, size_class

WORD = 8

# Words that all plans of the process share, in order.
SHARED = (
    "none",
    "true",
    "false",
    "empty",  # the tuple ()
    "zero",
    "missed",  # what a call gives that cannot be done here
    "mode",
    "dict_name",
    "enabled_name",
    "inference_name",
    "threads",
    "recorder_name",
    "poison",
    "value_name",
    "scope",
    "no_scope",
    "counters",
    "peak_name",
    "returned",  # the pool's list of blocks that came back
    "pool",
    "allocate",
    "serials",
    "write",
    "front",
    "tally",
    "start_pool",
    "wanted",
    "thread_here",  # the number of the thread that called last, its modes, and its names in `threads`
    "modes_here",
    "own_here",
    "call_in_python",  # how compiled functions are called that are not ready, and what reads or writes memory in Python
    "numpy_in_python",
    "tolist_in_python",
    "item_in_python",
    "data_ptr_in_python",
    *(f"{name}_in_python" for name in ("bool", "float", "int", "index")),
    "setitem_in_python",
    *(f"{name}_in_python" for name in ("iadd", "isub", "imul", "itruediv", "iand", "ior", "ixor")),
    *(f"{name}_in_python" for name in ("add", "sub", "mul", "div")),
    "moving",
    "flush_name",
    "clear_up_name",
    "no_reason",  # the arguments of a flush for nobody
    "cpu_name",
    "with_shape",
    "from_buffer",
    "constant_name",
    "window_class",
    "window_at",
    "buffer_name",
    "array_class",
    "tolist_name",
    "bf16",
    "f32",
    "f64",
    "i32",
    "i64",
    "boolean",
    # of recording
    "packing_name",
    "float_class",
    "int_class",
    "bool_class",
    "none_class",
    "str_class",
    "dtype_class",
    "ellipsis_class",
    "tuple_class",
    "list_class",
    "slice_class",
    "size_class",
    "tensor_class",
    "value_class",
    "read_operand",
    "take_least",  # the least number of a heap
    "inputs_name",  # of the inputs that a builder made, by their numbers, names and types
    "no_name",
    "binding_like",
    "buffer_like",
    "seen_class",
    "views",  # functions that gave views
    "orders",  # in which order functions read their tensors
    "unread",  # which of them they do not read
    "touched",
    "tensor_like",  # prototypes of what an operation makes
    "storage_like",
    "lineage_like",
    "value_like",
    "file_name",
    "own_files",  # the set of the names of this package's files
    "codes_seen",
    "casting",  # the list of those that have autocast on
    "dtypes",  # the names of the module, and which of them is the default dtype
    "default_name",
    "at_once",  # arguments to take a lock with, without waiting
    "generator",  # of random draws, the default one
    # of flushes
    "data_name",
    "codes",  # the dictionary of the `code_key` outside of scopes, and its name there
    "code_name",
    "buffer_class",
    "device_buffer_class",
    "storage_class",
    "flush_tally",
    "exception_class",
    "judge",
    # of calls over operands of any sizes
    "interprets",  # the option
    "compute_first",
)
# Words of a plan, in order.
SINGLE = (
    "shared",
    "busy",
    "count",
    "enabled",
    "recorder",
    "inference",
    "release",
    "entry",
    "runtime",
    "addresses",
    "launches",
    "writes",
    "writes_seen",
    "spares",
    "results",
    "owned",
    "owned_count",
    "check",
    "always_check",
    "result_kind",
    "build",
    "leaves_count",
    "missed_calls",
    "options",
    "names",  # of arguments, a tuple, or 0
    "launch",  # of a device that the host drives: what puts the program on its stream, and the stream of all buffers
    "stream",
)
# Words of a record of `made`: prototypes of storage, lineage, value or 0, tensor; where the buffer is; record of `take`
# or 0; place in the list of results or -1, which of its two storages is given up next; (tensor, storage).
MADE_WORDS = 10
MADE_TENSOR, MADE_STORAGE = 64, 72  # offsets
# Tables of a plan, each with the number of words of a record.
TABLES = {
    # Place, class, type, whether it needs gradients, the captured storage it shares, (its storage), strides, where the
    # record of the same tensor begins (in words) or -1, whether it is of inference mode.
    "arguments": 9,
    "constants": 2,  # place, value
    "fixed": 2,  # place, tensor
    "captured": 1,  # storage
    "gradients": 2,  # tensor, the type of its gradient or 0
    "calls": 2,  # function, what it must give
    "computes": 2,  # function, where the number goes
    "spare": 3,  # place in the list of spares, where the buffer goes, record of `take`
    "takes": 2,  # where the buffer goes, record of `take`
    "made": MADE_WORDS,
    "kept": 7,  # tensor, type, where the buffer goes, record of `made`, record of `take` or 0, cell, (gradient)
    "dicts": 3,  # dictionary, key, value
    "walks": 3,  # dictionary, pairs of key and value (0: any) of all its entries in order, how many
    "proxies": 3,  # mapping, key, value
    "cells": 2,  # cell, value
    "fields": 2,  # the address of a word of an object, what it holds
    "dict_sizes": 2,  # dictionary, length
    "list_sizes": 2,  # list, length
    "items": 3,  # list, place, value
    "tensors": 4,  # tensor, storage, chain, whether it needs gradients
    "inputs": 4,  # kind, what, where the address goes, where the buffer goes if it is given away, else 0
    "draws": 3,  # function, arguments, where the address goes or 0
    "outputs": 2,  # where the buffer is, where the address goes
    "copies": 3,  # where the buffer is, where that of its copy is, bytes
    "written": 6,  # kind, what, where the buffer is, place in the list of spares or -1, cell, (storage)
    "cleared": 1,  # tensor
    "flags": 1,  # address
    "leaves": 2,  # kind, what
    "bound": 3,  # node of a leaf, bytes, where the address goes
    "lent": 2,  # node of a leaf that the program overwrites, where the buffer goes
    "hosted": 1,  # node of a leaf of the host that is brought to the device
}
# Kinds of inputs and of written memory. Of views it is VIEW - 1 and the bytes of an element.
STORAGE, ARGUMENT, GRADIENT, VIEW = 0, 1, 2, 3
# Kinds of leaves of results, and of results; `build` makes what it is BUILT from the list of leaves.
MADE, OBJECT, GIVEN = 0, 1, 2
ONE, TUPLE, LIST, BUILT = 0, 1, 2, 3

# Words of a record of `take`: capacity, arguments of `allocate`, prototype of the buffer; of another device FOREIGN,
# the arguments, 0, its own `allocate`.
TAKE = 4
FOREIGN = -1
S = {name: WORD * place for place, name in enumerate(SHARED)}
P = {name: WORD * place for place, name in enumerate(SINGLE)}
T = {
    name: (WORD * (len(SINGLE) + 2 * place), WORD * (len(SINGLE) + 2 * place + 1)) for place, name in enumerate(TABLES)
}
PLAN_WORDS = len(SINGLE) + 2 * len(TABLES)


class Words:
    """Numbers of 64 bits in memory that stays where it is."""

    def __init__(self, values: Iterable[int]) -> None:
        held = list(values)
        self.values = (ctypes.c_int64 * max(1, len(held)))(*held)
        self.address = ctypes.addressof(self.values)

    def at(self, place: int) -> int:
        """The address of word number `place`."""
        return self.address + WORD * place


def prototype(held: object, slots: Words) -> Words:
    """What native code copies an object from: class, object, where its `slots` lie, how many. Nothing here keeps it."""
    return Words([id(type(held)), id(held), slots.address, len(slots.values)])


class Plan:
    """A plan being filled in. `keep` holds what its addresses point to."""

    def __init__(self) -> None:
        self.words = Words([0] * PLAN_WORDS)
        self.keep: list[object] = []
        self._slots: dict[type, Words] = {}

    def set(self, name: str, value: int) -> None:
        """Set a single word."""
        self.words.values[P[name] // WORD] = value

    def get(self, name: str) -> int:
        """A single word."""
        return self.words.values[P[name] // WORD]

    def table(self, name: str, records: Sequence[Sequence[int]]) -> Words:
        """Set a table."""
        assert all(len(record) == TABLES[name] for record in records), name
        made = Words(word for record in records for word in record)
        begin, count = T[name]
        self.words.values[begin // WORD] = made.address
        self.words.values[count // WORD] = len(records)
        self.keep.append(made)
        return made

    def own(self, values: Sequence[int]) -> Words:
        """Memory that lives as long as the plan."""
        made = Words(values)
        self.keep.append(made)
        return made

    def prototype(self, held: object) -> int:
        """The address of a prototype of an object, which the plan keeps."""
        cls = type(held)
        if cls not in self._slots:
            self._slots[cls] = self.own(list(slots_of(cls).values()))
        made = prototype(held, self._slots[cls])
        self.keep += held, made
        return made.address

    def take(self, nbytes: int, what: object) -> int:
        """The address of a record of `take` for so many bytes of memory for `what`."""
        operands, like = (nbytes, what), Buffer.__new__(Buffer)
        like._memory = like._array = None
        like.ptr, like.nbytes = 0, nbytes
        self.keep.append(operands)
        return self.own([size_class(nbytes), id(operands), self.prototype(like), 0]).address

    def take_of(self, allocate: Callable[..., object], *operands: object) -> int:
        """`take` for memory of another device, which `allocate` gives."""
        self.keep += operands, allocate
        return self.own([FOREIGN, id(operands), 0, id(allocate)]).address
