"""`tensor[mask]` picks elements where they lie, in native code, as Python does."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

import numpy as np
import pytest

import graphc as torch
from tests.frontend.native_cases import both, entered

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")

DTYPES = ("float32", "float64", "int64", "int32", "int8", "bool", "float16", "bfloat16")
SHAPES = ((7,), (5, 3), (4, 3, 2), (6, 1), (1,))


def _made(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Any:
    values = np.random.default_rng(seed).integers(-3, 4, shape)
    made = torch.tensor(values).to(getattr(torch, dtype))
    made.tolist()
    return made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_masks_of_the_first_dimensions(shape: tuple[int, ...], dtype: str) -> None:
    x = _made(shape, dtype)

    def run() -> Any:
        found = []
        for rank in range(1, len(shape) + 1):
            for seed in range(4):
                mask = _made(shape[:rank], "int64", seed) > 0
                found += [x[mask], x[mask & (mask == mask)], x[mask][:1], x[~(mask | True)]]
        return [(each.tolist(), tuple(each.shape), each.dtype, each._version) for each in found]

    ours, theirs = both(run)
    assert ours == theirs


def test_views_and_other_masks() -> None:
    x = _made((6, 8))

    def run() -> Any:
        mask, found = _made((6, 8), "int64", 1) > 0, list[Any]()
        for _ in range(3):
            found += [x.t()[mask.t()], x[1:4][mask[1:4]], x[:, 2][mask[:, 2]], x[2][mask[2]], x[:, ::2][mask[:, ::2]]]
            found += [x[mask[0, 0]], x[(mask,)], x[mask.nonzero()[:, 0]], x[mask[:, 0], 1], x[mask.numpy()]]
        return [each.tolist() for each in found]

    ours, theirs = both(run)
    assert ours == theirs


def test_no_python_function_is_entered() -> None:
    x, mask = _made((40,)), _made((40,), "int64", 2) > 0
    mask.tolist()
    for _ in range(3):
        x[mask]
    seen = entered(lambda: x[mask])
    assert [name for name in seen if "getitem" in name or "learned" in name or "flush" in name] == []


@pytest.mark.parametrize("shape", [(5,), (3, 2), (4, 4, 4), ()])
def test_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    x = _made((4, 3))

    def run() -> Any:
        found = []
        for _ in range(3):
            try:
                found.append(x[torch.ones(shape, dtype=torch.bool)].tolist())
            except IndexError as error:
                found.append(str(error).splitlines()[0])
        return found

    ours, theirs = both(run)
    assert ours == theirs


def test_gradients_flow_through_what_is_picked() -> None:
    def run() -> Any:
        found = []
        for seed in range(4):
            w, mask = torch.ones(6, requires_grad=True), _made((6,), "int64", seed) > 0
            (w[mask] * 2).sum().backward()
            with torch.no_grad():
                found.append((w.grad.tolist(), w[mask].tolist(), w.detach()[mask].requires_grad))
        return found

    ours, theirs = both(run)
    assert ours == theirs


def test_what_is_picked_is_a_copy() -> None:
    x, mask = _made((6,)), torch.ones(6, dtype=torch.bool)
    mask.tolist()
    for turn in range(4):
        picked, before = x[mask], x.tolist()
        x[turn] += 10
        assert picked.tolist() == before
        picked[turn] = -5
        assert x.tolist() != before and x[turn].item() == before[turn] + 10


def test_numpy_changes_the_mask_and_the_values() -> None:
    x, mask = _made((6,)), torch.ones(6, dtype=torch.bool)
    values, where = x.numpy(), mask.numpy()
    for turn in range(6):
        values[turn], where[turn] = turn * 11, turn % 2
        assert x[mask].tolist() == values[where].tolist()


def test_captured_functions_still_take_masks() -> None:
    @torch.compile
    def positive(x: Any) -> Any:
        return x[x > 0].sum()

    for seed in range(4):
        x = _made((9,), seed=seed)
        assert positive(x).item() == x.numpy()[x.numpy() > 0].sum()


def test_references_are_kept() -> None:
    x, mask = _made((6,)), torch.ones(6, dtype=torch.bool)
    mask.tolist()
    x[mask]
    gc.collect()
    before = sys.getrefcount(x._storage), sys.getrefcount(mask._storage), sys.getrefcount(x._storage.buffer)
    for _ in range(100):
        x[mask]
    assert before == (sys.getrefcount(x._storage), sys.getrefcount(mask._storage), sys.getrefcount(x._storage.buffer))


def test_threads_pick_at_once() -> None:
    x, wrong = _made((500,)), list[Any]()
    theirs = x.numpy().copy()

    def work(least: int) -> None:
        for turn in range(200):
            bound = (least + turn) % 5 - 2
            if x[x > bound].tolist() != theirs[theirs > bound].tolist():
                wrong.append(bound)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
