"""The corpus through the CUDA compiler, where there is one: every kernel compiles, contractions keep to registers."""

from __future__ import annotations

import random

import pytest

from graphc.codegen.cuda import build
from graphc.codegen.cuda.emit import emit_kernel, emit_unit
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.cuda.program import combined_steps, program_unit
from graphc.codegen.gpu_contraction_tiles import GroupTile
from graphc.codegen.package import Program
from graphc.codegen.target import Target
from graphc.errors import CompileError
from graphc.ir.graph import Graph
from graphc.ir.types import DType, bf16, f32, f64
from graphc.pipeline import build_program
from tests.codegen.gpu_groups import contraction, lowered
from tests.codegen.networks import lenet
from tests.codegen.test_eliminations import graph_of
from tests.ops.corpus import DERIVATIVES, FORWARD, forward, gradients, groups
from tests.passes.test_fuse_chains import causal
from tests.passes.test_fuse_chains import training as attention_step

ARCHITECTURES = ("sm_80", "sm_90")


@pytest.fixture(scope="module", autouse=True)
def cuda_compiler() -> None:
    try:
        build.compiler()
    except CompileError as error:
        pytest.skip(str(error))


def contractions(program: Program, target: Target) -> set[str]:
    """The kernels that compute contractions, by themselves or with others."""
    groups = zip(program.kernels, program.launched, strict=True)
    found = {id(kernel) for kernel, group in groups if any(node.op == "contract" for node in group.inside)}
    return {done.symbol for done in combined_steps(program, target) if any(id(w.kernel) in found for w in done.works)}


def check(graph: Graph, arch: str) -> None:
    """All kernels of `graph` compile for `arch`; none spills that computes a contraction."""
    target = cuda_target(arch)
    program = build_program(graph, target=target)
    report = build.resource_report(program_unit(program, target), target)
    assert {done.symbol for done in combined_steps(program, target) if done.symbol} == set(report)
    spilled = {name: report[name] for name in contractions(program, target) if report[name].spilled}
    assert not spilled


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_training_step(arch: str) -> None:
    check(lenet(64), arch)


@pytest.mark.parametrize("arch", [pytest.param("sm_80", marks=pytest.mark.slow), "sm_90"])
def test_contractions(arch: str) -> None:
    check(forward(["contract"]).graph, arch)
    check(gradients(["contract"]).graph, arch)


@pytest.mark.parametrize("arch", [pytest.param("sm_80", marks=pytest.mark.slow), "sm_90"])
def test_attention(arch: str) -> None:
    check(attention_step(causal), arch)


HOPPER = cuda_target("sm_90a")
TILES = [
    GroupTile(128, 256, 64, 2, 1, 4),
    GroupTile(128, 192, 64, 2, 1, 3),
    GroupTile(64, 256, 64, 1, 2, 4),
    GroupTile(64, 64, 64, 1, 1, 3),
]


LAYOUTS = ("a k, k c -> a c", "a k, c k -> a c", "k a, k c -> a c", "k a, c k -> a c")
LINES = [
    pytest.param(spec, tile, id=f"{spec} {tile.rows}x{tile.columns}", marks=pytest.mark.slow if (i + j) % 4 else ())
    for i, spec in enumerate(LAYOUTS)
    for j, tile in enumerate(TILES)
    if tile.columns != 192 or "c k" in spec  # threads deal out lines of 192 steps only
]


@pytest.mark.parametrize(("spec", "tile"), LINES)
def test_products_of_lines(spec: str, tile: GroupTile) -> None:
    """No sum leaves its register, and no product waits for the one before it."""
    graph = contraction(random.Random(spec), spec, bf16, True, False, {"a": 512, "k": 1024, "c": 768})
    unit = emit_unit([emit_kernel(part.kernel, HOPPER) for part in lowered(graph, tile, HOPPER)])
    code, said = build.compiler().compile(unit, HOPPER.cpu, False, (*build._FLAGS, *build._VERBOSE))
    assert code and "erformance" not in said and "serializ" not in said
    (resources,) = build.resource_report(unit, HOPPER).values()
    assert resources.spilled == 0


SMALL = [("inverse", f32, 8, 0), ("solve", f32, 8, 14), ("cholesky", f64, 6, 0), ("solve", f64, 6, 8)]


@pytest.mark.parametrize(("op", "dtype", "n", "columns"), SMALL)
def test_the_largest_of_small_matrices_are_in_registers(op: str, dtype: DType, n: int, columns: int) -> None:
    shapes = [(64, n, n)] + [(64, n, columns)] * (columns > 0)
    unit = program_unit(build_program(graph_of(op, dtype, *shapes), target=HOPPER), HOPPER)
    (resources,) = build.resource_report(unit, HOPPER).values()
    assert resources.spilled == 0


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("operators", groups(FORWARD, 4), ids=lambda g: f"{g[0]}-{g[-1]}")
def test_forward(operators: list[str], arch: str) -> None:
    check(forward(operators).graph, arch)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("operators", groups(DERIVATIVES, 4), ids=lambda g: f"{g[0]}-{g[-1]}")
def test_gradients(operators: list[str], arch: str) -> None:
    check(gradients(operators).graph, arch)
