"""Sums of products of pairs of bf16, in native code."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import Affine, Load, Param, Store, Value, VType
from graphc.ir.types import bf16, pbf16
from tests.codegen.native import baseline, build, host_target, param, run, same
from tests.codegen.targets import common

TARGETS = {"host": host_target, "avx2": common, "baseline": baseline}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("lanes", [1, 2, 4, 5, 8, 16, 32])
def test_fma_pairs(lanes: int, target: str) -> None:
    """The same bits with the instruction and without, also for infinities and NaN."""
    rng = np.random.default_rng(lanes)
    count = 512 * lanes
    numbers = rng.standard_normal((2, 2 * count)) * 2.0 ** rng.integers(-40, 40, (2, 2 * count))
    halves = numbers.astype(bf16.numpy)
    halves[0, :8] = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e38, -1e38, 1e38]
    halves[1, :8] = [1.0, 2.0, 3.0, np.inf, 0.0, 1e38, 1e38, -1.0]
    pairs = [half.view(np.int32).copy() for half in halves]
    added, found = rng.standard_normal(count).astype(np.float32), np.zeros(count, np.float32)
    params = [Param(name, pbf16, count, "in") for name in "ab"]
    params += [param("c", added, "in"), param("o", found, "out")]

    def write(e: Emitter, g: Value) -> None:
        values = [Value(VType(p.dtype, lanes)) for p in params[:3]]
        e.body.extend([Load(v, p, Affine(0, ((g, lanes),))) for v, p in zip(values, params, strict=False)])
        e.body.append(Store(params[3], Affine(0, ((g, lanes),)), e.op("fma_pairs", *values)))

    run(build(params, 512, write), [*pairs, added, found], TARGETS[target]())
    x, y = (half.astype(np.float32).reshape(-1, 2) for half in halves)
    with np.errstate(all="ignore"):
        assert same(found, added + x[:, 1] * y[:, 1] + x[:, 0] * y[:, 0])
