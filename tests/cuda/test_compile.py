"""The corpus through the CUDA compiler, where there is one: every kernel compiles, contractions keep to registers."""

from __future__ import annotations

import pytest

from graphc.codegen.cuda import build
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.cuda.program import combined_steps, program_unit
from graphc.codegen.package import Program
from graphc.codegen.target import Target
from graphc.errors import CompileError
from graphc.ir.graph import Graph
from graphc.pipeline import build_program
from tests.codegen.networks import lenet
from tests.ops.corpus import DERIVATIVES, FORWARD, forward, gradients, groups

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
