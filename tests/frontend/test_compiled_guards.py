"""Whatever holds a number that a compiled function reads: when it changes, so does the result."""

from __future__ import annotations

import array
import collections
import contextvars
import ctypes
import enum
import functools
import os
import queue
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc.native.layout import UnknownLayout, field_of

# A function that reads a number, and one that changes it.
Case = tuple[Callable[[Any], Any], Callable[[float], Any]]
_CASES: dict[str, Callable[[], Case]] = {}


def _case(make: Callable[[], Case]) -> Callable[[], Case]:
    _CASES[make.__name__] = make
    return make


def _entry() -> tuple[dict[str, float], Callable[[float], Any]]:
    held = {"k": 1.0}
    return held, lambda k: held.update(k=k)


class _Holder:
    k = 1.0


@_case
def another_compiled_function() -> Case:
    held, change = _entry()
    inner = torch.compile(lambda x: x * held["k"])
    return lambda x: inner(x) + 1, change


@_case
def what_a_library_makes_of_a_function() -> Case:
    held, change = _entry()
    return torch.func.grad(lambda x: (x * held["k"]).sum()), change


@_case
def a_method_of_a_dictionary() -> Case:
    held, change = _entry()
    get = held.get
    return lambda x: x * get("k"), change


@_case
def a_view_of_a_dictionary() -> Case:
    held, change = _entry()
    view, chain = types.MappingProxyType(held), collections.ChainMap({}, held)
    return lambda x: x * view["k"] + chain["k"], change


@_case
def the_factory_of_a_dictionary() -> Case:
    held, change = _entry()
    table = collections.defaultdict(lambda: held["k"])
    return lambda x: x * table.default_factory(), change  # type: ignore[misc]


@_case
def an_array() -> Case:
    values = array.array("d", [1.0])
    return lambda x: x * values[0], lambda k: values.__setitem__(0, k)


@_case
def bytes_through_a_view() -> Case:
    values = bytearray(b"\x01")
    view = memoryview(values)
    return lambda x: x * view[0], lambda k: values.__setitem__(0, int(k))


@_case
def weak_references() -> Case:
    holder, key = _Holder(), _Holder()
    reference, values = weakref.ref(holder), weakref.WeakValueDictionary({"a": holder})
    keys = weakref.WeakKeyDictionary({key: 1.0})

    def change(k: float) -> None:
        holder.k = keys[key] = k

    return lambda x: x * reference().k + values["a"].k * keys[key], change  # type: ignore[union-attr]


@_case
def a_context() -> Case:
    variable = contextvars.ContextVar("variable", default=1.0)
    return lambda x: x * variable.get(), variable.set


@_case
def what_a_thread_has_for_itself() -> Case:
    local = threading.local()
    local.k = 1.0
    return lambda x: x * local.k, lambda k: setattr(local, "k", k)


@_case
def parts_of_methods() -> Case:
    held, change = _entry()

    class Part:
        first = functools.partialmethod(lambda self, k, x: x * k * held["k"], 2.0)
        second = functools.singledispatchmethod(lambda self, x: x * held["k"])

    part = Part()
    return lambda x: part.first(x) + part.second(x), change


@_case
def the_class_of_a_class() -> Case:
    held, change = _entry()

    class Meta(type):
        def __getattr__(cls, name: str) -> float:
            return held["k"]

    class Made(metaclass=Meta):
        pass

    return lambda x: x * Made.k, change


@_case
def the_class_of_an_object_with_slots() -> Case:
    held, change = _entry()

    class Small:
        __slots__ = ()

        def scaled(self, x: Any) -> Any:
            return x * held["k"]

    small = Small()
    return lambda x: small.scaled(x), change


@pytest.mark.parametrize("kind", [int, str, tuple, list, dict, set, float])
def test_attributes_of_what_extends_a_builtin_class(kind: type) -> None:
    made = type("Made", (kind,), {})()
    made.k = 1.0
    f = torch.compile(lambda x: x * made.k)
    for k in (1.0, 1.0, 1.0, 3.0, 3.0):
        made.k = k
        assert f(torch.ones(2)).tolist() == [k, k]


@_case
def members_of_enumerations() -> Case:
    class Kind(enum.IntEnum):
        ONE = 1

    Kind.ONE.k = 1.0  # type: ignore[attr-defined]
    return lambda x: x * Kind.ONE.k, lambda k: setattr(Kind.ONE, "k", k)  # type: ignore[attr-defined]


@_case
def a_module_in_a_closure() -> Case:
    outer, inner = types.ModuleType("outer_of_test"), types.ModuleType("inner_of_test")
    outer.__file__ = inner.__file__ = __file__
    outer.inner, inner.k = inner, 1.0  # type: ignore[attr-defined]
    return lambda x: x * outer.inner.k, lambda k: setattr(inner, "k", k)


_READ: Any = types.ModuleType("read_by_test")
_READ.__file__, _READ.one, _READ.k = __file__, 1.0, 1.0


def _times_one(x: Any) -> Any:
    return x * _READ.one


def _times_k(x: Any) -> Any:
    return x * _READ.k


@_case
def two_numbers_of_a_module() -> Case:
    return lambda x: _times_one(x) + _times_k(x), lambda k: setattr(_READ, "k", k)


@_case
def a_module_imported_in_the_function() -> Case:
    made = sys.modules["imported_by_test"] = types.ModuleType("imported_by_test")
    made.__file__, made.k = __file__, 1.0  # type: ignore[attr-defined]

    def scaled(x: Any) -> Any:
        from imported_by_test import k  # type: ignore[import-not-found]

        return x * k

    return scaled, lambda k: setattr(made, "k", k)


_GLOBAL = 1.0


@_case
def a_name_that_does_not_stand_in_the_code() -> Case:
    return lambda x: x * globals()["_GLOBAL"], lambda k: globals().__setitem__("_GLOBAL", k)


@_case
def the_environment() -> Case:
    os.environ["GRAPHC_OF_TEST"] = "1.0"
    return lambda x: x * float(os.environ["GRAPHC_OF_TEST"]), lambda k: os.environ.__setitem__("GRAPHC_OF_TEST", str(k))


@_case
def the_sign_of_zero() -> Case:
    held, _ = _entry()
    return lambda x: torch.copysign(x, torch.full((2,), held["k"])), lambda k: held.update(k=-0.0 if k == 3 else 0.0)


@_case
def the_defaults_of_a_function() -> Case:
    def scaled(x: Any, k: float = 1.0) -> Any:
        return x * k

    return lambda x: scaled(x), lambda k: setattr(scaled, "__defaults__", (k,))


@_case
def the_keyword_defaults_of_a_function() -> Case:
    def scaled(x: Any, *, k: float = 1.0) -> Any:
        return x * k

    return lambda x: scaled(x), lambda k: setattr(scaled, "__kwdefaults__", {"k": k})


@_case
def the_code_of_a_function() -> Case:
    def scaled(x: Any) -> Any:
        return x * 1.0

    def change(k: float) -> None:
        scaled.__code__ = scaled.__code__.replace(co_consts=tuple(k if type(c) is float else c for c in _consts()))

    def _consts() -> tuple[Any, ...]:
        return scaled.__code__.co_consts

    return lambda x: scaled(x), change


class _One:
    __slots__ = ("__hidden", "k", "same", "unset")

    def __init__(self) -> None:
        self.k = self.same = 1.0
        self.__hidden = None

    def scale(self) -> float:
        return self.k if self.__hidden is None else 0.0


class _Three(_One):
    __slots__ = ()

    def scale(self) -> float:
        return 3.0


class _Seven(_One):
    __slots__ = ()

    def scale(self) -> float:
        return 7.0


@_case
def slots() -> Case:
    made = _One()
    return lambda x: x * made.scale(), lambda k: setattr(made, "k", k)


@_case
def empty_slots() -> Case:
    made = _One()
    return lambda x: x * getattr(made, "unset", 1.0), lambda k: setattr(made, "unset", k)


@_case
def slots_behind_a_class() -> Case:
    made = _One()
    return lambda x: x * made.scale(), lambda k: setattr(made, "__class__", _Three if k == 3 else _Seven)


@_case
def the_class_of_a_module() -> Case:
    class Scaled(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 7.0

    made = torch.nn.Identity()
    return lambda x: made(x), lambda k: setattr(made, "__class__", Scaled if k == 3 else torch.nn.Identity)


@_case
def numbers_of_c() -> Case:
    made, both = ctypes.c_double(1.0), (ctypes.c_int * 2)()
    return lambda x: x * made.value + both[1], lambda k: (setattr(made, "value", k), both.__setitem__(1, int(k)))


@_case
def queues() -> Case:
    made: queue.Queue[float] = queue.Queue()
    return lambda x: x * made.qsize(), made.put


def test_what_threads_have_in_common_is_used_at_each_call() -> None:
    event, many = threading.Event(), threading.Semaphore(0)

    def run(x: Any) -> Any:
        event.set()
        many.release()
        return x + 1

    compiled = torch.compile(run)
    for _ in range(5):
        event.clear()
        compiled(torch.ones(2))
        assert event.is_set()
    assert all(many.acquire(blocking=False) for _ in range(5)) and not many.acquire(blocking=False)


# Settings of graphc by functions that tell them: one that tells, and one that sets by whether it is set.
SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[bool], Any]]] = {
    "threads": (lambda: torch.get_num_threads(), lambda on: torch.set_num_threads(1 + on)),
    "deterministic": (
        lambda: torch.are_deterministic_algorithms_enabled(),
        lambda on: torch.use_deterministic_algorithms(on),
    ),
    "debug mode": (lambda: torch.get_deterministic_debug_mode(), lambda on: torch.use_deterministic_algorithms(on)),
    "warnings": (lambda: torch.is_warn_always_enabled(), lambda on: torch.set_warn_always(on)),
    "anomalies": (lambda: torch.is_anomaly_enabled(), lambda on: torch.autograd.set_detect_anomaly(on)),
    "seed": (lambda: torch.initial_seed(), lambda on: torch.manual_seed(on)),
    "default dtype": (
        lambda: torch.get_default_dtype().itemsize,
        lambda on: torch.set_default_dtype(torch.float64 if on else torch.float32),
    ),
    "default device": (
        lambda: len(torch.get_default_device().type),
        lambda on: torch.set_default_device("cpu" if on else None),
    ),
    "precision": (
        lambda: len(torch.get_float32_matmul_precision()),
        lambda on: torch.set_float32_matmul_precision("high" if on else "highest"),
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_library_are_guarded(name: str) -> None:
    tell, switch = SETTINGS[name]
    threads = torch.get_num_threads()
    compiled = torch.compile(lambda x: x * float(tell()))
    try:
        for turn in range(12):
            switch(turn % 6 > 2)
            x = torch.ones(2, dtype=torch.float32)
            assert compiled(x).tolist() == [float(tell())] * 2, turn
    finally:
        switch(False)
        torch.set_num_threads(threads)


def test_the_devices_that_tensors_are_made_on_are_guarded(cuda: Any) -> None:
    made = torch.compile(lambda x: torch.zeros(2) + 1)
    named = torch.compile(lambda x: torch.ones(2, device="cuda"))
    x = torch.ones(2)
    captures = torch.counters()["captures"]
    for turn in range(12):
        index = turn // 2 % 2
        with torch.device(f"cuda:{index}"):
            assert made(x).device == torch.device(f"cuda:{index}")
        assert made(x).device.type == "cpu"
        with torch.cuda.device(index):
            assert named(x).device == torch.device(f"cuda:{index}")
    assert torch.counters()["captures"] - captures == 5


def _training() -> tuple[Any, Callable[[Any], Any]]:
    w = torch.ones(3, requires_grad=True)

    def step(x: Any) -> Any:
        w.grad = None
        (w * x).sqrt().sum().backward()
        return w.grad * 1

    return torch.compile(step), step


def test_anomaly_mode_looks_at_gradients_of_compiled_steps() -> None:
    compiled, _ = _training()
    x = torch.ones(3)
    for _ in range(4):
        assert compiled(x).tolist() == [0.5] * 3
    for _ in range(3):
        with warnings.catch_warnings(), torch.autograd.set_detect_anomaly(True):
            warnings.simplefilter("ignore")
            with pytest.raises(RuntimeError, match="SqrtBackward0' returned nan"):
                compiled(-x)
            assert compiled(x).tolist() == [0.5] * 3
        assert np.isnan(compiled(-x).tolist()).all()


def test_what_compiled_steps_save_is_packed() -> None:
    compiled, step = _training()
    x = torch.ones(3)
    packed: list[Any] = []

    def pack(tensor: Any) -> Any:
        packed.append(tensor)
        return tensor

    for _ in range(4):
        compiled(x)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step(x)
        count = len(packed)
        compiled(x)
    assert count and len(packed) == 2 * count
    compiled(x)
    assert len(packed) == 2 * count


@pytest.mark.parametrize("name", _CASES)
def test_what_a_compiled_function_reads_is_guarded(name: str) -> None:
    function, change = _CASES[name]()
    compiled = torch.compile(function)
    for turn in range(12):
        if turn % 4 == 3:
            change(float(turn))
        assert compiled(torch.ones(2)).tolist() == function(torch.ones(2)).tolist(), turn


def test_functions_that_read_through_other_objects_are_replayed() -> None:
    for name in (
        "another_compiled_function",
        "a_view_of_a_dictionary",
        "weak_references",
        "parts_of_methods",
        "slots",
        "the_class_of_a_module",
    ):
        function, held = _CASES[name]()
        compiled = torch.compile(function)
        for _ in range(2):  # the first may fill tables of the library
            compiled(torch.ones(2))
        before = torch.counters()["replays"]
        for _ in range(3):
            compiled(torch.ones(2))
        assert torch.counters()["replays"] == before + 3, name
        del held


def test_native_calls_see_what_is_in_slots() -> None:
    def scaled(x: Any, k: Any = None) -> Any:
        return x * (made.scale() if k is None else k)

    made = _One()
    held = [(made, "k"), (made, "same"), (made, "__class__"), (made, "_One__hidden")]
    for holder, name in (*held, (scaled, "__code__"), (scaled, "__defaults__")):
        assert ctypes.c_uint64.from_address(field_of(holder, name)).value == id(getattr(holder, name))
    for holder, name in ((made, "unset"), (scaled, "__kwdefaults__")):
        assert ctypes.c_uint64.from_address(field_of(holder, name)).value == 0
    made.unset = 5.0
    assert ctypes.c_uint64.from_address(field_of(made, "unset")).value == id(made.unset)
    with pytest.raises(UnknownLayout):
        field_of(made, "scale")
