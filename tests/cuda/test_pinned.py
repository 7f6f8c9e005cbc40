"""Page-locked memory of the host: a device reads it late only where the user says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.utils.data import DataLoader, TensorDataset
from graphc_runtime.devices.cuda import cuda_device

pytestmark = pytest.mark.usefixtures("cuda")

BATCHES, BATCH, WIDTH = 40, 8, 512


def _stored(p: Any) -> Any:
    d = graphc.empty(p.shape, device="cuda")
    d.copy_(p)
    return d


BRINGS: dict[str, Callable[[Any], Any]] = {
    "cuda": lambda p: p.cuda(),
    "to": lambda p: p.to("cuda"),
    "part": lambda p: p[p.numel() // 4 :].cuda(),
    "copy_": _stored,
    "compiled": graphc.compile(lambda p: p.cuda() * 1),
}


@pytest.mark.parametrize("count", [16, 1000, 400_000])
@pytest.mark.parametrize("name", BRINGS)
def test_who_does_not_say_so_may_write_at_once(name: str, count: int) -> None:
    """NumPy's arrays over the memory are written when the call has returned, and before the device has read it."""
    bring = BRINGS[name]
    for turn in range(4):
        p = graphc.ones(count).pin_memory()
        array = p.numpy() if turn % 2 else None
        brought = bring(p)
        brought.data_ptr()
        if array is None:
            array = p.numpy()
        array[:] = 7
        assert (brought.cpu() == 1).all()


def _read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where copies to the device read, from now on."""
    read: list[int] = []
    driver = cuda_device(0).driver
    copy_in = driver.copy_in

    def noted(target: int, host: int, nbytes: int, stream: Any) -> None:
        read.append(host)
        copy_in(target, host, nbytes, stream)

    monkeypatch.setattr(driver, "copy_in", noted)
    return read


@pytest.mark.parametrize("way", ["to", "to in order", "cuda", "copy_"])
def test_who_says_so_saves_a_copy(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each batch, however often the loop went round."""
    data = TensorDataset(graphc.arange(BATCHES * BATCH * WIDTH).float().reshape(BATCHES * BATCH, WIDTH))
    read = _read(monkeypatch)
    places: list[int] = []
    target = graphc.empty(BATCH, WIDTH, device="cuda")
    for number, (x,) in enumerate(DataLoader(data, batch_size=BATCH, pin_memory=True)):
        places.append(x._storage.buffer.ptr)
        if way == "to":
            brought = x.to("cuda", non_blocking=True)
        elif way == "to in order":
            brought = x.to("cuda", graphc.float32, True)
        elif way == "cuda":
            brought = x.cuda(non_blocking=True)
        else:
            brought = target.copy_(x, non_blocking=True)
        total = brought.sum().item()
        assert total == pytest.approx(x.numpy().astype(np.float64).sum()), number
    assert [place for place in places if place in read] == places


def test_the_word_is_good_for_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    read = _read(monkeypatch)
    p = graphc.ones(1000).pin_memory()
    place = p._storage.buffer.ptr
    p.to("cuda", non_blocking=True).data_ptr()
    assert read == [place]
    for _ in range(3):
        p.to("cuda").data_ptr()
        p.to("cpu", non_blocking=True)
        p.to(graphc.float64, True)
    assert len(read) > 3 and place not in read[1:]
