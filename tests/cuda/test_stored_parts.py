"""Parts of memory of a GPU that are written where they lie: nothing is compiled for each place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc.memory import MOST_PIECES, pieces
from graphc.options import scope
from graphc.recording import Recorder, using
from tests.cuda.machine import Machine
from tests.frontend.test_stored_parts import Model, counted

pytestmark = pytest.mark.usefixtures("cuda")


@pytest.fixture(autouse=True)
def fresh(cuda: Machine) -> Iterator[None]:
    with scope(interpret=True), using(Recorder()):
        yield


def computed(array: np.ndarray) -> torch.Tensor:
    x = torch.tensor(array.tolist(), device="cuda") + 0
    x.tolist()
    return x


@pytest.mark.parametrize(
    "index",
    [lambda k: (k, 3), lambda k: k, lambda k: (slice(k, k + 2), slice(1, 5))],
    ids=["an element", "a row", "a block"],
)
def test_filling_parts_compiles_and_runs_nothing(index: Any) -> None:
    want = np.zeros((30, 7), np.float32)
    x, rows = computed(want), [computed(np.arange(7.0) + k) for k in range(5)]

    def fill() -> None:
        for k in range(25):
            at = index(k)
            if want[at].shape == (7,) and k % 2:
                x[at] = rows[k % 5]
            else:
                x[at] = float(k)

    for k in range(25):
        want[index(k)] = np.arange(7.0) + k % 5 if want[index(k)].shape == (7,) and k % 2 else k
    done = counted(fill)
    assert done["programs_built"] == done["runs"] == done["interpreted"] == 0
    assert x.tolist() == want.tolist()


def test_losses_that_are_kept_in_a_table_leave_the_step_one_program() -> None:
    w = torch.ones(4, device="cuda").requires_grad_()
    optimizer = torch.optim.SGD([w], lr=0.1)
    table, losses = torch.zeros(40, device="cuda"), list[torch.Tensor]()

    def steps() -> None:
        for k in range(40):
            loss = (w * w).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            table[k] = loss.detach()
            losses.append(loss.detach())

    done = counted(steps)
    assert done["programs_built"] <= 4 and done["interpreted"] <= 2
    assert table.tolist() == [loss.item() for loss in losses] and losses[-1] < losses[0]


def test_a_cache_of_keys_is_written_row_by_row() -> None:
    cache, x = torch.zeros(2, 32, 4, device="cuda"), computed(np.linspace(0, 1, 8).reshape(2, 1, 4))
    want = np.zeros((2, 32, 4), np.float32)

    def fill() -> None:
        now = x
        for k in range(32):
            now = now * 0.5 + 1
            cache[:, k : k + 1] = now

    done = counted(fill)
    assert done["programs_built"] <= 6 and done["interpreted"] == 0
    row = np.linspace(0, 1, 8).reshape(2, 1, 4).astype(np.float32)
    for k in range(32):
        row = row * np.float32(0.5) + 1
        want[:, k : k + 1] = row
    np.testing.assert_allclose(cache.cpu().numpy(), want, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_every_kind_of_element(dtype: torch.dtype) -> None:
    x, y = torch.zeros(12, device="cuda", dtype=dtype), torch.zeros(12, dtype=dtype)
    for k in range(12):
        x[k] = y[k] = k % 5
    assert x.tolist() == y.tolist()


def test_on_the_stream_of_the_user() -> None:
    x, stream = computed(np.zeros(16)), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for k in range(16):
            x[k] = k + 1
        y = x * 2
    torch.cuda.current_stream().wait_stream(stream)
    assert y.tolist() == [2.0 * k + 2 for k in range(16)]


def test_a_part_of_memory_that_others_see_is_written_from_another_part_of_it() -> None:
    x = computed(np.arange(12.0))
    seen = torch.from_dlpack(x)
    want = np.arange(12.0)
    for k in range(1, 8):
        x[k : k + 2] = x[k + 2 : k + 4]
        want[k : k + 2] = want[k + 2 : k + 4]
    assert seen.tolist() == x.tolist() == want.tolist()


@pytest.mark.share(4)
@pytest.mark.parametrize("seed", range(40))
def test_memory_is_shared_as_numpy_shares_it(seed: int) -> None:
    Model(seed, "cuda").run(40)


def test_pieces_of_memory() -> None:
    assert pieces((), (), 5, 4) == ([5], 1, 1, 1)
    assert pieces((3, 4), (4, 1), 2, 4) == ([2], 1, 12, 12)
    assert pieces((3, 2), (4, 1), 1, 4) == ([1], 3, 4, 2)
    assert pieces((2, 3, 1), (12, 4, 9), 0, 4) == ([0], 6, 4, 1)
    assert pieces((2, 3, 2), (20, 4, 1), 1, 4) == ([1, 21], 3, 4, 2)
    assert pieces((0, 4), (4, 1), 0, 4) == ([0], 1, 0, 0)
    assert pieces((3, 2), (1, 3), 0, 4) == ([0, 1, 2], 2, 3, 1)
    assert pieces((3, 2), (0, 1), 0, 4) == ([0, 0, 0], 1, 2, 2)
    assert pieces((MOST_PIECES + 1, 2, 2), (1, 40, 20), 0, 4) is None
    assert pieces((2, 1), (1 << 29, 1), 0, 4) is None


@pytest.mark.parametrize("turned", [False, True])
def test_columns_one_after_the_other_are_copied(turned: bool) -> None:
    array = np.random.default_rng(0).standard_normal((3, 12, 40)).astype(np.float32)
    x, got = computed(array), list[float]()

    def look() -> None:
        for k in range(40):
            view = x[:, :, k].t() if turned else x[:, :, k]
            got.append((view * 2).sum().item())

    done = counted(look)
    assert done["programs_built"] <= 4 and done["interpreted"] <= 12
    np.testing.assert_allclose(got, 2 * array.sum((0, 1)), rtol=1e-4, atol=1e-4)
