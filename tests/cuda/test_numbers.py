"""Numbers that change from call to call are brought to CUDA devices: to the same memory, while nobody holds it."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np

import graphc
from graphc import optim
from graphc.counting import FRONT
from graphc.native.library import library
from tests.cuda.machine import Machine
from tests.frontend.native_cases import MAKERS, batch, training

SHIM_VARIANT = "quick"


def test_what_backward_will_read_is_not_overwritten(cuda: Machine) -> None:
    w = graphc.tensor([1.0, 2.0, 3.0], device="cuda", requires_grad=True)

    def loss(i: int) -> Any:
        return (graphc.exp(w * (0.01 * i)) * (0.5 * i)).sum()

    for i in range(40):
        loss(i).item()
    kept = [loss(i) for i in range(40, 46)]
    seen = [value.item() for value in kept]
    kept += [value for i in range(46, 50) if (value := loss(i)).item() > 0]
    x = np.array([1.0, 2.0, 3.0])
    for i, value in enumerate(kept, 40):
        w.grad = None
        value.backward()
        np.testing.assert_allclose(w.grad.cpu().numpy(), np.exp(x * 0.01 * i) * 0.005 * i * i, rtol=1e-5)
    np.testing.assert_allclose(seen, [(np.exp(x * 0.01 * i) * 0.5 * i).sum() for i in range(40, 46)], rtol=1e-5)


def test_threads_have_numbers_of_their_own(cuda: Machine) -> None:
    compiled = graphc.compile(lambda x, a, b: (x * a + b) * x)
    x = graphc.ones(4).cuda()
    for i in range(6):
        compiled(x, 0.5 * i, 1.0 * i)
    wrong: list[Any] = []

    def run(number: int) -> None:
        for i in range(200):
            a, b = float(number * 1000 + i), float(i)
            made = compiled(x, a, b).tolist()
            if made != [a + b] * 4:
                wrong.append((a, b, made))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_numbers_go_to_where_they_lay(cuda: Machine) -> None:
    """A rate that changes at each step takes no new memory, and steps stay one graph for each set of addresses."""
    net, optimizer, step = training(MAKERS["momentum"])
    net.cuda()
    x, y = (t.cuda() for t in batch(0))
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.99)

    def steps(count: int) -> list[float]:
        made: list[float] = []
        for _ in range(count):
            made.append(step(x, y).item())
            schedule.step()
        return made

    assert library() is not None  # native replays, which have memory of their own, begin now
    steps(10)
    gc.collect()  # what other tests left
    before, transfers = graphc.cuda.memory_allocated(), FRONT.transfers
    losses = steps(20)
    assert FRONT.transfers - transfers >= 20 and graphc.cuda.memory_allocated() <= before
    assert losses == sorted(losses, reverse=True) and len(set(losses)) == 20
