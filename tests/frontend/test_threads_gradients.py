"""Gradients in several threads: each has a history of its own, over the same parameters."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc import nn
from graphc.errors import UsageError


def in_thread(function: Callable[[], Any]) -> Any:
    """What `function` gives in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def parameter() -> Any:
    w = torch.ones(3, requires_grad=True)
    w.sum().item()
    return w


def test_a_loss_that_a_thread_made_changes_nothing_for_others() -> None:
    w = parameter()
    kept = in_thread(lambda: (w * w).sum())
    a = torch.tensor([10.0, 10.0, 10.0])
    a.sum().item()
    assert (a + w).tolist() == [11.0] * 3
    assert (a * w).sum().item() == 30
    assert torch.compile(lambda x: (x + w).sum())(a).item() == 33
    ((a * w) ** 2).sum().backward()
    assert w.grad.tolist() == [200.0] * 3
    assert kept.item() == 3


def test_what_the_first_thread_holds_changes_nothing_for_another() -> None:
    w = parameter()
    held = w * 1
    a = torch.tensor([10.0, 10.0, 10.0])
    a.sum().item()
    assert in_thread(lambda: (a + w).tolist()) == [11.0] * 3
    assert held.tolist() == [1.0] * 3


def test_threads_differentiate_by_the_same_parameters() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    inputs = [torch.tensor(np.random.default_rng(i).normal(size=(4, 5)).astype(np.float32)) for i in range(4)]
    expected = [[g.numpy() for g in torch.autograd.grad(net(x).square().sum(), list(net.parameters()))] for x in inputs]
    values = [net(x).detach().numpy() for x in inputs]

    def work(i: int) -> None:
        for _ in range(10):
            np.testing.assert_array_equal(net(inputs[i]).detach().numpy(), values[i])
            made = torch.autograd.grad(net(inputs[i]).square().sum(), list(net.parameters()))
            for gradient, right in zip(made, expected[i], strict=True):
                np.testing.assert_allclose(gradient.numpy(), right, rtol=1e-6)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    work(0)
    assert torch.compile(lambda x: net(x).sum())(inputs[1]).item() == pytest.approx(values[1].sum(), rel=1e-5)


def test_backward_in_a_thread_collects_in_the_same_leaf() -> None:
    w = parameter()
    (w * 2).sum().backward()
    in_thread(lambda: (w * 3).sum().backward())
    assert w.grad.tolist() == [5.0] * 3
    (w * 4).sum().backward()
    assert w.grad.tolist() == [9.0] * 3


def test_a_parameter_that_is_written_is_read_anew_by_all() -> None:
    w = parameter()
    step, seen = threading.Barrier(2, timeout=60), []

    def other() -> None:
        for _ in range(3):
            step.wait()
            seen.append((w * 2).detach().tolist()[0])
            step.wait()

    thread = threading.Thread(target=other)
    thread.start()
    mine = []
    for value in (1.0, 5.0, 7.0):
        with torch.no_grad():
            w.fill_(value)
        mine.append((w * 2).detach().tolist()[0])
        step.wait()
        step.wait()
    thread.join()
    assert mine == seen == [2.0, 10.0, 14.0]


def test_a_history_of_another_thread_is_refused() -> None:
    w = parameter()
    y = w * 2
    message = "history was recorded by another thread"
    with pytest.raises(UsageError, match=message):
        in_thread(lambda: (y * 3).tolist())
    with pytest.raises(UsageError, match=message):
        in_thread(lambda: y.sum().backward())
    loss = in_thread(lambda: (w * 5).sum())
    with pytest.raises(UsageError, match=message):
        loss.backward()
    assert loss.item() == 15 and in_thread(lambda: (y.detach() * 3).tolist()) == [6.0] * 3
    y.sum().backward()
    assert w.grad.tolist() == [2.0] * 3


def test_many_threads_at_once() -> None:
    """Steps of networks over the same parameters, without a lock, at a short interval of switching."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    parameters = list(net.parameters())
    x = torch.tensor(np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32))
    right = [g.numpy() for g in torch.autograd.grad(net(x).square().sum(), parameters)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def work(_: int) -> None:
        for _ in range(30):
            made = torch.autograd.grad(net(x).square().sum(), parameters)
            for gradient, expected in zip(made, right, strict=True):
                np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-5, atol=1e-6)

    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
    finally:
        sys.setswitchinterval(before)
    work(0)
