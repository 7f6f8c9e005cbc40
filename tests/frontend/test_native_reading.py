"""`numpy`, `item` and `data_ptr` of what is computed already run in native code and do what they do in Python."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
from graphc.native.library import library
from graphc.native.readers import read_natively
from graphc_runtime.buffer import memory_stats
from tests.frontend.native_cases import entered

pytestmark = pytest.mark.usefixtures("native_replays", "readers")

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


@pytest.fixture
def readers(native_replays: None) -> Iterator[None]:
    native = library()
    assert native is not None
    read_natively(native)
    yield


def computed(value: Any, dtype: str = "float32") -> Any:
    made = torch.tensor(value, dtype=getattr(torch, dtype))
    made.data_ptr()
    return made


def list_in_python(x: Any) -> Any:
    array = x._array()
    return (array.astype(np.float32) if x.dtype is torch.bfloat16 else array).tolist()


def test_no_python_function_is_entered() -> None:
    x, one = computed([[1.0, 2.0], [3.0, 4.0]]), computed([7])
    assert not entered(lambda: (x.numpy(), x.tolist(), x.data_ptr(), one.item()))
    array = x.numpy()
    assert not entered(lambda: x.numpy()), "while there is an array"
    assert array.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0, 1, 3, -2])
def test_one_element_of_any_dtype(dtype: str, value: int) -> None:
    if value < 0 and dtype in ("uint8", "bool"):
        return
    expected = torch.tensor([5, value, 6]).to(getattr(torch, dtype)).tolist()[1]
    x = computed([5, value, 6], dtype)
    for one in (x[1], computed(value, dtype), computed([[value]], dtype)):
        assert repr(one.item()) == repr(expected)
    if dtype != "bfloat16":
        assert x.numpy().dtype == np.dtype(dtype) and x.numpy().tolist() == x.tolist()
    for y in (x, computed([[5, value], [6, 7]], dtype), computed(value, dtype), x[1:], x[::2], x[:0]):
        assert repr(y.tolist()) == repr(list_in_python(y))


@pytest.mark.parametrize("value", [2**40 + 1, -(2**62), 2**63 - 1])
def test_large_integers(value: int) -> None:
    assert computed([value], "int64").item() == value


def test_numbers_that_are_no_numbers() -> None:
    for value in (float("nan"), float("inf"), -0.0, 1e-45, 3.4e38):
        assert repr(computed(value, "float64").item()) == repr(value)
        assert repr(computed(value).item()) == repr(float(np.float32(value)))


def test_what_is_pending_is_computed() -> None:
    x = computed([1.0, 2.0])
    assert (x + 1).numpy().tolist() == [2.0, 3.0] and x.sum().item() == 3.0
    y = x * 2
    assert y.data_ptr() == y.data_ptr() != x.data_ptr()


def test_errors_are_the_same() -> None:
    x = computed([1.0, 2.0])
    with pytest.raises(RuntimeError, match="2 elements"):
        x.item()
    x.requires_grad_()
    with pytest.raises(RuntimeError, match="requires grad"):
        x.numpy()
    assert x.numpy(force=True).tolist() == [1.0, 2.0]
    with pytest.raises(TypeError):
        x.numpy(True)
    with pytest.raises(TypeError):
        x.numpy(other=1)
    with pytest.raises(TypeError):
        x.item(1)


def test_views_and_empty_tensors() -> None:
    x = computed([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert x.t().numpy().tolist() == [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
    assert x[1].numpy().tolist() == [4.0, 5.0, 6.0] and x[1, 1:2].item() == 5.0
    assert x[1].data_ptr() == x.data_ptr() + 12
    assert torch.zeros(0, 3).numpy().shape == (0, 3) and torch.tensor(2.0).numpy().shape == ()


def test_arrays_share_memory_and_keep_it() -> None:
    x = computed([1.0, 2.0, 3.0])
    array, again = x.numpy(), x.numpy()
    array[0] = 9.0
    assert again[0] == 9.0 and x.tolist() == [9.0, 2.0, 3.0] and array.flags.writeable
    later = x * 1
    again[1] = 8.0
    assert later.tolist() == [9.0, 2.0, 3.0], "what was recorded reads the memory as it was"
    x.add_(1)
    assert array.tolist() == [10.0, 9.0, 4.0]
    part = array[1:]
    del x, array, again
    gc.collect()
    others = [computed([float(i)] * 3) for i in range(50)]
    assert part.tolist() == [9.0, 4.0] and len(others) == 50


def test_recorded_leaves_do_not_see_what_numpy_writes() -> None:
    x = computed([1.0, 2.0])
    waiting = x + 1
    array = x.numpy()
    array[0] = 5.0
    assert waiting.tolist() == [2.0, 3.0] and x.tolist() == [5.0, 2.0]


def test_results_of_replays_stay_as_they_were() -> None:
    compiled = torch.compile(lambda x: x + 1)
    x = computed([0.0, 1.0])
    arrays = []
    for _ in range(20):
        arrays.append(compiled(x).numpy())
        x.add_(1)
    assert [a.tolist() for a in arrays] == [[i + 1.0, i + 2.0] for i in range(20)]


def test_captured_calls_that_look_are_run_plainly() -> None:
    for look in (lambda x: x.item(), lambda x: x.numpy()[0], lambda x: x.data_ptr() and float(x)):
        compiled = torch.compile(lambda x, look=look: x * float(look(x)))
        for i in range(8):
            assert compiled(computed([float(i)])).tolist() == [float(i * i)]


def test_subclasses_are_read_too() -> None:
    parameter = nn.Parameter(computed([3.0]))
    assert parameter.item() == 3.0 and parameter.detach().numpy().tolist() == [3.0]


def test_methods_show_what_they_are() -> None:
    assert "force" in str(torch.Tensor.numpy.__text_signature__) and "shares memory" in torch.Tensor.numpy.__doc__
    assert torch.Tensor.item.__name__ == "item"


def test_reading_holds_no_reference() -> None:
    x, one = computed([1.0, 2.0]), computed(1.5)
    kind = x._type.dtype.numpy
    objects = [x, one, x._storage, x._storage.buffer, x._type, x._type.shape, kind, (), None, True, False, 0]

    def call() -> None:
        x.numpy()
        x.data_ptr()
        x.tolist()
        one.item()

    def counts() -> list[int]:
        return [sys.getrefcount(o) for o in objects]

    for _ in range(100):
        call()
    gc.collect()
    tracemalloc.start()
    for _ in range(100):
        call()
    then, bytes_then, live = counts(), tracemalloc.get_traced_memory()[0], memory_stats().live_bytes
    for _ in range(5_000):
        call()
    grown = [now - before for now, before in zip(counts(), then, strict=True)]
    bytes_grown = tracemalloc.get_traced_memory()[0] - bytes_then
    tracemalloc.stop()
    assert max(map(abs, grown)) <= 2, grown
    assert bytes_grown < 4096 and memory_stats().live_bytes == live
    gone = weakref.ref(x.numpy())
    gc.collect()
    assert gone() is None and not x._storage.is_exported
