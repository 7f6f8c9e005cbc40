"""TF32: operands of f32 are rounded where `set_float32_matmul_precision` allows it, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc.codegen.cuda.program import program_unit
from graphc.compiled import key_fields, target_of
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import f64
from graphc.options import MATMUL_PRECISION, scope
from graphc.pipeline import build_program
from tests.codegen.test_gpu_schedule import graph_of
from tests.cuda.machine import Machine

# Products of which the model thinks that they are worth it, by name. All layouts: `test_contraction.py`.
GRAPHS: dict[str, Graph] = {
    "product": graph_of(lambda b, x, y: b.contract(x, y, "a k, k c -> a c"), (128, 64), (64, 128)),
    "computed": graph_of(lambda b, x, y: b.contract(b.exp(x), y, "a k, c k -> a c"), (128, 64), (128, 64)),
    "padded convolution": graph_of(
        lambda b, x, w: b.contract(b.pad(x, (0, 0, 1, 1), (0, 0, 1, 1)), w, "b c h+r w+s, o c r s -> b o h w"),
        (2, 8, 16, 16),
        (64, 8, 3, 3),
    ),
}


CASES = [pytest.param(name, marks=() if name == "product" else pytest.mark.slow) for name in GRAPHS]


def arrays_of(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(len(graph.nodes))
    return [rng.uniform(0.5, 1.5, n.shape).astype(np.float32) for n in graph.inputs]


def rounded(array: np.ndarray) -> np.ndarray:
    """To ten bits of mantissa, to the nearest, ties away from zero."""
    return ((array.view(np.uint32) + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32)


def unit(graph: Graph) -> str:
    """What is compiled for `graph`."""
    target = target_of("cuda:0")
    return program_unit(build_program(graph, target=target), target)


def kernels(graph: Graph) -> str:
    """The kernels alone, without the functions that each unit begins with."""
    text = unit(graph)
    return text[text.index('extern "C"') :]


def error(result: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(np.abs(result - exact) / np.abs(exact)))


@pytest.mark.parametrize("name", CASES)
def test_operands_are_rounded_and_sums_are_not(checked: Machine, name: str) -> None:
    graph = GRAPHS[name]
    arrays = arrays_of(graph)
    (exact,) = evaluate(graph, arrays, floats=f64)
    with scope(matmul_precision="high"):
        assert "gc_warp_mma_f32" in kernels(graph)
        (found,) = checked.run(graph, arrays)
    if name != "computed":
        (expected,) = evaluate(graph, [rounded(a) for a in arrays], floats=f64)
        np.testing.assert_allclose(found, expected, rtol=2e-6)
    assert 1e-6 < error(found, exact) < 2e-3


@pytest.mark.parametrize("name", CASES)
def test_by_default_products_are_those_of_f32(checked: Machine, name: str) -> None:
    graph = GRAPHS[name]
    arrays = arrays_of(graph)
    assert MATMUL_PRECISION.get() == "highest" and "gc_warp" not in kernels(graph)
    assert error(checked.run(graph, arrays)[0], evaluate(graph, arrays, floats=f64)[0]) < 1e-6


def test_what_is_not_finite_stays_so(cuda: Machine) -> None:
    graph = GRAPHS["product"]
    arrays = arrays_of(graph)
    for row, value in enumerate((np.inf, -np.inf, np.nan)):
        arrays[0][row, 5] = value
    arrays[0].view(np.uint32)[3, 7] = 0x7FFFFFFF  # the NaN that GPUs make: one more would be a zero
    arrays[0].view(np.uint32)[4, 7] = 0x7F7FFFFF  # the largest number is rounded to infinity
    with scope(matmul_precision="medium"), np.errstate(all="ignore"):
        (found,) = cuda.run(graph, arrays)
    assert (found[0] == np.inf).all() and (found[1] == -np.inf).all() and np.isnan(found[2:4]).all()
    assert (found[4] == np.inf).all() and np.isfinite(found[5:]).all()


def test_other_dtypes_and_sums_without_products_are_exact(cuda: Machine) -> None:
    with scope(matmul_precision="high"):
        for graph in (
            graph_of(lambda b, x, y: b.contract(x, y, "a k, k c -> a c"), (128, 64), (64, 128), dtype="f64"),
            graph_of(lambda b, x, y: b.reduce_sum(b.mul(x, y), (1,)), (128, 64), (128, 64)),
        ):
            assert "gc_warp_mma" not in kernels(graph)


@pytest.fixture
def precision() -> Iterator[Callable[[str], None]]:
    """Sets the precision of the process, and sets it back."""
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision("highest")


def factors(device: str) -> tuple[Any, Any]:
    """Matrices of 1 + 2**-12, which TF32 takes for 1."""
    return tuple(torch.full(shape, 1 + 2**-12, device=device) for shape in ((128, 64), (64, 128)))


def counted(call: Callable[[], Any]) -> tuple[float, dict[str, int]]:
    """The relative error of what `call` gives of the product of `factors`, and what was counted meanwhile."""
    before = torch.counters()
    found = float(call())
    after = torch.counters()
    return abs(found / (64 * (1 + 2**-12) ** 2) - 1), {name: after[name] - before[name] for name in after}


@pytest.mark.parametrize("compiled", [False, True], ids=["loop", "compiled"])
def test_a_change_is_seen_by_what_ran_before(cuda: Machine, compiled: bool, precision: Callable[[str], None]) -> None:
    """Programs, captures and the cache on disk are those of their precision; what ran once is found again."""
    x, y = factors("cuda")

    def value() -> Any:
        return torch.mm(x, y).amax() if compiled else torch.mm(x, y).amin()  # each its own program

    call = torch.compile(value) if compiled else value
    made = "captures" if compiled else "programs_built"
    for _ in range(2):
        call().item()
    wrong, counts = counted(call)
    assert wrong < 1e-6 and counts["programs_built"] == counts["captures"] == 0
    precision("high")
    wrong, counts = counted(call)
    assert 1e-4 < wrong < 1e-3 and counts[made] == counts["programs_built"] == 1
    wrong, counts = counted(call)
    assert wrong > 1e-4 and counts["programs_built"] == counts["captures"] == counts["compiles"] == 0
    assert counts["replays"] == compiled
    torch.backends.cuda.matmul.allow_tf32 = False
    for _ in range(2):
        wrong, counts = counted(call)
        assert wrong < 1e-6 and counts["programs_built"] == counts["captures"] == counts["compiles"] == 0
    with scope(matmul_precision="high"):
        wrong, counts = counted(call)
        assert wrong > 1e-4 and counts["programs_built"] == counts["captures"] == counts["compiles"] == 0
    assert counted(call)[0] < 1e-6


@pytest.mark.parametrize("compiled", [False, True], ids=["loop", "compiled"])
def test_the_processor_ignores_it(compiled: bool, precision: Callable[[str], None]) -> None:
    x, y = factors("cpu")

    def value() -> Any:
        return torch.mm(x, y).amax()

    call = torch.compile(value) if compiled else value
    for _ in range(4):
        before = call().item()
    precision("high")
    wrong, counts = counted(call)
    assert call().item() == before and wrong < 1e-6 and counts["compiles"] == 0
    assert counts["captures"] == compiled, "native replays look at options too"


def test_the_cache_on_disk_is_kept_by_precision_for_devices_that_have_it(cuda: Machine) -> None:
    graph = GRAPHS["product"]
    fields: dict[str, list[dict[str, str]]] = {"cpu": [], "cuda:0": []}
    for device, word in product(fields, ("highest", "high", "medium")):
        with scope(matmul_precision=word):
            fields[device].append(key_fields(graph, frozenset(), target_of(device), device))
    highest, high, medium = fields["cuda:0"]
    assert highest != high == medium
    assert fields["cpu"] == [fields["cpu"][0]] * 3
