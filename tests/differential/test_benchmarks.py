"""The benchmark's workloads, made tiny, agree in every system that is installed."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from benchmarks.session import disagreement
from benchmarks.systems import System, system
from benchmarks.worker import check
from benchmarks.workload import Workload
from benchmarks.workloads import workloads

TINY = workloads(tiny=True)
PEERS = ("torch", "jax", "tinygrad", "numexpr")
PAIRS = [(name, peer) for name, w in TINY.items() for peer in PEERS if w.form(peer) is not None and w.observe]


def computed(name: str, workload: Workload) -> list[dict[str, Any]]:
    one: System = system(name)
    one.start(graphc.get_num_threads())
    ready = one.prepare(workload, workload.form(name), "")
    before = None if ready.weights is None else ready.weights()
    with ready.context():
        return check(ready, before, ready.call())


@pytest.mark.parametrize(("name", "peer"), PAIRS)
def test_peers_agree(name: str, peer: str) -> None:
    workload = TINY[name]
    pytest.importorskip(peer)
    ours = "graphc-compiled" if workload.form("graphc-compiled") is not None else "graphc"
    try:
        theirs = computed(peer, workload)
    except RuntimeError as error:
        if "could not create a primitive descriptor" in str(error):
            pytest.skip(f"{peer} has no kernel for this on this processor")
        raise
    assert disagreement(workload, computed(ours, workload), theirs) == ""
