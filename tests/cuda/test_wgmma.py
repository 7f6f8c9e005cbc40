"""The option `wgmma`: products of 16-bit floats by instructions that only Hopper has, as programs run them.

On a GPU of another architecture nothing may change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import graphc as torch
from graphc.codegen.cuda.program import program_unit
from graphc.compiled import key_fields, target_of
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import f64
from graphc.options import WGMMA, scope
from graphc.pipeline import build_program
from tests.codegen.gpu_groups import small_numbers
from tests.codegen.test_gpu_schedule import graph_of
from tests.cuda.machine import Machine

# All four layouts, and a batch: operands' labels.
SPECS = ("a b, b c -> a c", "a b, c b -> a c", "b a, b c -> a c", "b a, c b -> a c", "n a b, n c b -> n a c")
EXTENTS = {"n": 2, "a": 320, "b": 200, "c": 192}
FEW = 8  # multiprocessors: those of the shim's devices, which are slow
LARGE = 6  # times as many rows, columns and steps on a GPU, so that its model takes products of lines there too


def scale() -> int:
    return 1 if target_of("cuda:0").cores <= FEW else LARGE


def product(spec: str, dtype: str = "bf16") -> Graph:
    """A product and what follows it."""
    by = scale()
    left, right = (
        tuple(EXTENTS[label] * (1 if label == "n" else by) for label in operand.split())
        for operand in spec.partition(" ->")[0].split(", ")
    )
    return graph_of(
        lambda b, x, y: b.elementwise("maximum", z := b.contract(x, y, spec), b.constant(0, z.type)),
        left,
        right,
        dtype=dtype,
    )


def kernels(graph: Graph) -> str:
    target = target_of("cuda:0")
    text = program_unit(build_program(graph, target=target), target)
    return text[text.index('extern "C"') :]


@pytest.fixture
def hopper(cuda: Machine) -> Machine:
    if target_of("cuda:0").cpu != "sm_90":
        pytest.skip("only Hopper has these instructions")
    return cuda


@pytest.mark.share(2)
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("spec", SPECS)
def test_products_are_those_of_the_reference(hopper: Machine, spec: str, dtype: str) -> None:
    """Small whole numbers are exact; others as close as sums of f32 are."""
    graph = product(spec, dtype)
    arrays = small_numbers(graph, 3)
    with scope(wgmma="1"):
        assert "gc_group_mma" in kernels(graph)
        (found,) = hopper.run(graph, arrays)
        np.testing.assert_array_equal(found, evaluate(graph, arrays)[0])
        rng = np.random.default_rng(7)
        others = [rng.uniform(-1, 1, n.shape).astype(n.dtype.numpy) for n in graph.inputs]
        (found,) = hopper.run(graph, others)
    (exact,) = evaluate(graph, others, floats=f64)
    step = 2.0**-8 if dtype == "bf16" else 2.0**-11
    np.testing.assert_allclose(found.astype(np.float64), exact, rtol=1.01 * step, atol=1e-4)


def test_what_is_not_finite_stays_so(hopper: Machine) -> None:
    graph = product("a b, c b -> a c")
    arrays = [np.abs(a) + a.dtype.type(1) for a in small_numbers(graph, 3)]
    arrays[0][5, 70], arrays[0][9, 130] = np.inf, np.nan
    with scope(wgmma="1"), np.errstate(all="ignore"):
        (found,) = hopper.run(graph, arrays)
    assert (found[5] == np.inf).all() and np.isnan(found[9].astype(np.float32)).all()
    rest = np.delete(found, (5, 9), 0).astype(np.float32)
    assert np.isfinite(rest).all()


def test_programs_are_kept_by_it(cuda: Machine) -> None:
    graph = product("a b, c b -> a c")
    assert WGMMA.get() == "auto" and "gc_group" not in kernels(graph)
    fields: dict[tuple[str, str], dict[str, str]] = {}
    for device in ("cpu", "cuda:0"):
        for value in ("0", "1"):
            with scope(wgmma=value):
                fields[device, value] = key_fields(graph, frozenset(), target_of(device), device)
    assert fields["cpu", "0"] == fields["cpu", "1"]
    is_hopper = fields["cuda:0", "0"]["target.cpu"] == "sm_90"
    assert (fields["cuda:0", "0"] != fields["cuda:0", "1"]) == is_hopper


@pytest.fixture
def switched() -> Iterator[Callable[[str], None]]:
    WGMMA.set("0")
    yield WGMMA.set
    WGMMA.set("auto")


@pytest.mark.parametrize("compiled", [pytest.param(False, marks=pytest.mark.slow), True], ids=["loop", "compiled"])
def test_a_change_is_seen_by_what_ran_before(hopper: Machine, compiled: bool, switched: Callable[[str], None]) -> None:
    by = scale()
    x = torch.arange(320 * 64 * by**2, device="cuda").remainder(5).reshape(320 * by, 64 * by).bfloat16()

    def value() -> torch.Tensor:
        y = torch.mm(x, x.t()).float()
        return y.sum() if compiled else y.mean()  # each its own program

    call = torch.compile(value) if compiled else value
    before = [call().item() for _ in range(2)]
    switched("1")
    counts = torch.counters()["programs_built"]
    assert [call().item() for _ in range(2)] == before
    assert torch.counters()["programs_built"] == counts + 1
    switched("0")
    assert call().item() == before[0] and torch.counters()["programs_built"] == counts + 1
