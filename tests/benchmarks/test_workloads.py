"""Every workload, made tiny, runs compiled and gives what NumPy gives; where NumPy has no form, what must hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from benchmarks.systems import system
from benchmarks.systems.base import Prepared
from benchmarks.workload import HALVES, SYSTEMS, Workload
from benchmarks.workloads import program, workloads

TINY = workloads(tiny=True)


def prepared(workload: Workload) -> Prepared:
    name = "graphc-compiled" if workload.form("graphc-compiled") else "graphc"
    one = system(name)
    one.start(graphc.get_num_threads())
    return one.prepare(workload, workload.form(name), one.settings(workload)[0])


def results(ready: Prepared) -> list[np.ndarray]:
    with ready.context():
        return ready.arrays(ready.call())


@pytest.mark.parametrize("name", [name for name, w in TINY.items() if w.network is None and not w.gradients])
def test_values(name: str) -> None:
    workload = TINY[name]
    (found,) = results(prepared(workload))
    form: Any = workload.numpy or workload.reference
    wanted = form(*workload.inputs().values())
    if workload.random:
        x = workload.inputs()["x"]
        assert found.shape == x.shape
        kept = found != 0
        assert 0.8 < kept.mean() < 0.97
        np.testing.assert_allclose(found[kept], x[kept] / 0.9, rtol=1e-6)
    else:
        close = (workload.tolerance, workload.tolerance) if workload.dtype in HALVES else (1e-4, 1e-5)
        np.testing.assert_allclose(found, wanted, *close)


@pytest.mark.parametrize("name", [name for name, w in TINY.items() if w.gradients])
def test_gradients(name: str) -> None:
    """Along a random direction each gradient is the slope of the sum of result times g, by differences in float64."""
    workload = TINY[name]
    value, *gradients = results(prepared(workload))
    arrays, g = workload.operands()
    form: Any = workload.numpy
    doubles = {key: a.astype(np.float64) if a.dtype == np.float32 else a for key, a in arrays.items()}
    np.testing.assert_allclose(value, form(*doubles.values()), rtol=1e-4, atol=1e-4)
    assert len(gradients) == len(workload.gradients)
    for key, gradient in zip(workload.gradients, gradients, strict=True):
        direction = np.random.default_rng(5).standard_normal(doubles[key].shape)
        ends = [np.sum(form(*{**doubles, key: doubles[key] + h * direction}.values()) * g) for h in (1e-4, -1e-4)]
        np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / 2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name, w in TINY.items() if w.network is not None and w.training])
def test_training_learns(name: str) -> None:
    ready = prepared(TINY[name])
    assert ready.weights is not None
    before = ready.weights()
    losses = [float(results(ready)[0]) for _ in range(4)]
    assert all(np.isfinite(losses)) and losses[-1] < losses[0]
    after = ready.weights()
    still = [key for key in before if np.array_equal(before[key], after[key])]
    assert not still, f"weights that did not move: {still}"


@pytest.mark.parametrize("name", [name for name, w in TINY.items() if w.network is not None and not w.training])
def test_inference(name: str) -> None:
    workload = TINY[name]
    assert workload.network is not None
    (found,) = results(prepared(workload))
    arrays = workload.inputs()
    assert found.shape[:-1] == arrays["y"].shape and found.shape[-1] > arrays["y"].max()
    assert np.isfinite(found).all()
    if workload.network.numpy is not None:
        wanted = workload.network.numpy(workload.network.weights(), arrays["x"])
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_every_workload_has_its_forms_and_its_costs() -> None:
    every = workloads()
    assert {w.section for w in every.values()} == {w.section for w in TINY.values()}
    for workload in every.values():
        forms = {name for name in SYSTEMS if workload.form(name) is not None}
        others = {"record": set(), "loop-decode": {"jax"}}.get(workload.name, {"jax", "tinygrad"})
        others = others if workload.section != program.SECTION else set()
        if workload.dtype in HALVES:  # of networks, autocast: PyTorch's alone
            others = {"jax"} if workload.network is None else set()
        assert forms >= {"graphc", "torch", *others}, workload.name
        assert workload.flops > 0 or workload.bytes > 0 or workload.section == "Overheads", workload.name
        assert 0 < workload.tolerance <= 0.1
