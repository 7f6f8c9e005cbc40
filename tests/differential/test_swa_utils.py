"""Averaged models, their schedule, and the sampler for several processes, against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from graphc.errors import UnsupportedError
from tests.differential.compare import floats, to
from tests.differential.side_by_side import Say, attempt, same

AVERAGES: dict[str, Any] = {
    "mean": lambda s: {},
    "buffers": lambda s: {"use_buffers": True},
    "ema": lambda s: {"avg_fn": s.get_ema_avg_fn(0.5)},
    "multi ema": lambda s: {"multi_avg_fn": s.get_ema_multi_avg_fn(0.25), "use_buffers": True},
    "multi mean": lambda s: {"multi_avg_fn": s.get_swa_multi_avg_fn()},
    "own": lambda s: {"avg_fn": lambda old, new, count: old * count + new},
}


def model(t: Any) -> Any:
    made = t.nn.Sequential(t.nn.Linear(3, 2), t.nn.BatchNorm1d(2))
    for place, parameter in enumerate(made.parameters()):
        t.nn.init.constant_(parameter, 0.5 + place)
    return made


@pytest.mark.parametrize("name", AVERAGES)
def test_averaged_models(name: str) -> None:
    def program(t: Any, say: Say) -> None:
        net = model(t)
        averaged = t.optim.swa_utils.AveragedModel(net, **AVERAGES[name](t.optim.swa_utils))
        say(averaged, list(averaged.state_dict()))
        for step in range(3):
            net(to(t, floats(4, 3, seed=step)))
            with t.no_grad():
                for parameter in net.parameters():
                    parameter.mul_(1.5).add_(step)
            averaged.update_parameters(net)
            say(averaged.n_averaged, dict(averaged.module.state_dict()))
        say(averaged.eval()(to(t, floats(2, 3))).detach())

    same(program)


def test_moments_anew() -> None:
    def program(t: Any, say: Say) -> None:
        net = model(t)
        net[1].eval()
        batches = [to(t, floats(4, 3, seed=s)) for s in range(3)]
        t.optim.swa_utils.update_bn([(b, 1) for b in batches], net)
        say(net[1].running_mean, net[1].running_var, net[1].num_batches_tracked, net[1].momentum, net.training)
        say(t.optim.swa_utils.update_bn(batches, t.nn.Linear(3, 3)))

    same(program)


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("epochs", [0, 1, 4])
def test_the_schedule(strategy: str, epochs: int) -> None:
    def program(t: Any, say: Say) -> None:
        parameters = [t.nn.Parameter(t.ones(1)) for _ in range(2)]
        optimizer = t.optim.SGD([{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.3}], 0.1)
        schedule = t.optim.swa_utils.SWALR(optimizer, [0.05, 0.5], epochs, strategy)
        for _ in range(7):
            say([g["lr"] for g in optimizer.param_groups], schedule.get_last_lr())
            optimizer.step()
            schedule.step()

    same(program)


def test_errors() -> None:
    def program(t: Any, say: Say) -> None:
        swa, net = t.optim.swa_utils, model(t)
        optimizer = t.optim.SGD(net.parameters(), 0.1)
        attempt(say, lambda: swa.get_ema_avg_fn(1.5))
        attempt(say, lambda: swa.get_ema_multi_avg_fn(-1))
        attempt(say, lambda: swa.AveragedModel(net, avg_fn=print, multi_avg_fn=print))
        attempt(say, lambda: swa.SWALR(optimizer, 0.1, anneal_strategy="steps"))
        attempt(say, lambda: swa.SWALR(optimizer, 0.1, anneal_epochs=-1))
        sparse = t.optim.SparseAdam(net.parameters())
        sparse.step()
        net[0].weight.grad = t.zeros(2, 3)
        attempt(say, sparse.step)
        attempt(say, lambda: t.optim.SparseAdam(net.parameters(), lr=0.0))
        for settings in ({"lr": -1}, {"beta2_decay": 1}, {"eps": (-1, 0)}, {"eps": (None, -1)}, {"d": 0.5}):
            attempt(say, lambda settings=settings: t.optim.Adafactor(net.parameters(), **settings))
        attempt(say, lambda: t.optim.Muon(net.parameters()))
        for settings in ({"lr": -1}, {"momentum": -1}, {"weight_decay": -1}, {"adjust_lr_fn": "other"}):
            attempt(say, lambda settings=settings: t.optim.Muon([net[0].weight], **settings))

    same(program)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("drop_last", [False, True])
def test_parts_of_a_data_set(size: int, drop_last: bool) -> None:
    def program(t: Any, say: Say) -> None:
        for rank in range(4):
            sampler = t.utils.data.DistributedSampler(range(size), 4, rank, shuffle=False, drop_last=drop_last)
            if size:
                say(list(sampler), len(sampler), sampler.total_size)
            else:
                say(len(sampler))
        attempt(say, lambda: t.utils.data.DistributedSampler(range(3), 2, 2))

    same(program)


def test_parts_are_shuffled_alike() -> None:
    parts = [graphc.utils.data.DistributedSampler(range(9), 2, rank, seed=3) for rank in range(2)]
    first = [list(part) for part in parts]
    assert sorted(set(first[0] + first[1])) == list(range(9))
    assert [list(part) for part in parts] == first
    for part in parts:
        part.set_epoch(1)
    second = [list(part) for part in parts]
    assert second != first
    assert sorted(set(second[0] + second[1])) == list(range(9))
    with pytest.raises(UnsupportedError):
        graphc.utils.data.DistributedSampler(range(3))
