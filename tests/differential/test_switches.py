"""Switches of the process: what they keep and what they refuse, beside PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import graphc
from tests.differential.compare import torch

CALLS: dict[str, Callable[[Any], Any]] = {
    "precision": lambda t: (t.set_float32_matmul_precision("high"), t.get_float32_matmul_precision()),
    "precision of an unknown word": lambda t: (t.set_float32_matmul_precision("low"), t.get_float32_matmul_precision()),
    "precision by a number": lambda t: t.set_float32_matmul_precision(3),
    "deterministic": lambda t: (
        t.use_deterministic_algorithms(True),
        t.are_deterministic_algorithms_enabled(),
        t.is_deterministic_algorithms_warn_only_enabled(),
        t.get_deterministic_debug_mode(),
    ),
    "deterministic, warn": lambda t: (
        t.use_deterministic_algorithms(True, warn_only=True),
        t.is_deterministic_algorithms_warn_only_enabled(),
        t.get_deterministic_debug_mode(),
    ),
    "deterministic by a number": lambda t: t.use_deterministic_algorithms(1),
    **{
        f"debug mode {mode}": lambda t, mode=mode: (
            t.set_deterministic_debug_mode(mode),
            t.get_deterministic_debug_mode(),
        )
        for mode in (0, 1, 2, "default", "warn", "error", 3, "often", None)
    },
    "flush": lambda t: t.set_flush_denormal(1),
    "anomaly": lambda t: (t.set_anomaly_enabled(True), t.is_anomaly_enabled(), t.is_anomaly_check_nan_enabled()),
    "anomaly off": lambda t: (t.set_anomaly_enabled(False, False), t.is_anomaly_check_nan_enabled()),
    "no threads": lambda t: t.set_num_interop_threads(0),
    "threads by a word": lambda t: t.set_num_interop_threads("a"),
    "warn always": lambda t: (t.set_warn_always(True), t.is_warn_always_enabled()),
    "warn always by a number": lambda t: t.set_warn_always(1),
    "symbols": lambda t: [
        *(t.sym_int(2.5), t.sym_float(2), t.sym_not(True), t.sym_max(2, 3), t.sym_max(2.0, 3), t.sym_min(2, 3.0)),
        *(t.sym_ite(False, 1, 2), t.sym_sqrt(4), t.sym_sum([1, 2, 3])),
    ],
    "a symbol of two types": lambda t: t.sym_ite(True, 1, 2.0),
    "ranges": lambda t: t.sym_constrain_range(2, min=0, max=3),
    "outside of a range": lambda t: t.sym_constrain_range(5, min=0, max=3),
    "below a size": lambda t: t.sym_constrain_range_for_size(-1, min=0, max=3),
    "real parts": lambda t: t.view_as_real(t.ones(2)),
    "facts": lambda t: [t.ones(2).is_distributed(), t.ones(2, 1).dense_dim(), t.ones(2).sparse_dim()],
    "not dense": lambda t: t.ones(2).to_dense(t.float64),
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    for library in (torch, graphc):
        library.set_float32_matmul_precision("highest")
        library.use_deterministic_algorithms(False)
        library.set_anomaly_enabled(False)
        library.set_warn_always(False)


def _outcome(library: Any, call: Callable[[Any], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return repr(call(library))
        except Exception as error:
            return next(k for k in type(error).__mro__ if k.__module__ == "builtins"), getattr(
                error, "message", str(error)
            )


@pytest.mark.parametrize("name", CALLS)
def test_switches(name: str) -> None:
    theirs, ours = _outcome(torch, CALLS[name]), _outcome(graphc, CALLS[name])
    assert ours == theirs or (name == "a symbol of two types" and ours[0] is theirs[0])


def test_denormals_stay() -> None:
    assert graphc.set_flush_denormal(True) is False
    assert (graphc.tensor([1e-310], dtype=graphc.float64) * 1.0).item() == 1e-310


def test_the_number_of_programs_at_a_time_is_set_once() -> None:
    assert graphc.get_num_interop_threads() == 1
    graphc.set_num_interop_threads(3)
    assert graphc.get_num_interop_threads() == 3
    with pytest.raises(RuntimeError, match="cannot set number of interop threads"):
        graphc.set_num_interop_threads(2)
