"""The way from a graph to something that runs: named phases, the program cache, and texts of every stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from graphc.codegen.cuda.build import build_cubin, build_ptx
from graphc.codegen.cuda.disassemble import disassemble
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.cuda.program import make_device_artifact, program_unit
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.llvm.build import Building, build_assembly
from graphc.codegen.llvm.host import host_target
from graphc.codegen.package import Program, make_artifact, make_program
from graphc.codegen.reuse import NO_CHOICES, Choices
from graphc.codegen.target import MATRIX_ARCHITECTURE, Target
from graphc.errors import GraphcError, UnsupportedError
from graphc.ir.graph import Graph
from graphc.ir.opdef import OPS
from graphc.ir.printer import print_graph
from graphc.ir.schedule import FusedGraph
from graphc.ir.schedule_text import print_fused, print_plan
from graphc.ir.small_matrices import has_kernel
from graphc.options import BF16_PAIRS, MINIMAL_FILTERING
from graphc.passes.base import Pass, run_passes
from graphc.passes.channels_last import ChannelsLast
from graphc.passes.decompose import Decompose
from graphc.passes.drafts import ON_CPU, ON_GPU, WITH_MASKS
from graphc.passes.fuse import fuse
from graphc.passes.join_pads import JoinPads
from graphc.passes.join_products import JoinProducts
from graphc.passes.layout import Layout
from graphc.passes.minimal_filtering import MinimalFiltering
from graphc.passes.order import order
from graphc.passes.pair_products import PairProducts
from graphc.passes.plan_memory import plan_memory
from graphc.passes.reduction_order import ReductionOrder
from graphc.passes.share_masks import ShareMasks
from graphc.passes.share_pads import SharePads
from graphc.passes.simplify import Simplify, StripDetach
from graphc.passes.sink_concats import SinkConcats
from graphc.passes.skip_zeros import SkipZeros
from graphc.passes.sort_indices import SortIndices
from graphc.passes.sort_values import SortValues
from graphc.passes.split_folds import SplitFolds
from graphc.passes.split_labels import SplitLabels
from graphc.passes.split_leading import SplitLeading
from graphc.passes.split_reductions import SplitReductions
from graphc.passes.wide_concats import WideConcats
from graphc_runtime.artifact import Artifact

STAGES: Mapping[str, str] = {
    "traced": "the graph as it was recorded",
    "simplified": "after decomposition and exact rewriting",
    "laid_out": "with the axis order in which intermediates are stored on this machine",
    "fused": "the kernels: which values are computed together, and which are stored",
    "planned": "where every stored value lies in memory",
    "loops": "the kernels as scheduled loops over vectors",
    "llvm": "LLVM IR, as it goes to the code generator",
    "asm": "assembly of this machine",
    "cuda": "CUDA C, one translation unit with all kernels (of a GPU)",
    "ptx": "PTX, where a compiler of CUDA is present (of a GPU)",
    "sass": "assembly of the GPU, where its tools are present (of a GPU)",
}
_CPU_STAGES, _GPU_STAGES = frozenset({"llvm", "asm"}), frozenset({"cuda", "ptx", "sass"})


def graph_passes(target: Target | None = None) -> list[Pass]:
    """The passes from a recorded graph to one that can be fused, in order: those for every machine, then those for
    `target`.
    """
    machine_independent: list[Pass] = [
        StripDetach(),
        Decompose(),
        SplitLabels(),
        Simplify(),
        SortValues(),
        JoinPads(),
        JoinProducts(),
        SkipZeros(),
        WideConcats(),
    ]
    if target is None:
        return machine_independent
    if target.device == "cuda":
        matrices = target.capability >= MATRIX_ARCHITECTURE
        channels_last = [ChannelsLast(target.tf32)] if matrices else []
        fewer = MINIMAL_FILTERING.get() and not (matrices and target.tf32)
        filtering = [MinimalFiltering(balance=target.balance)] if fewer else []
        in_parts = [SortIndices(), SplitReductions(on_gpu=True), SinkConcats()]
        return [*machine_independent, *channels_last, *filtering, ShareMasks(), *in_parts]
    filtering = [MinimalFiltering(target.lanes(4), target.l2_bytes)] if MINIMAL_FILTERING.get() else []
    pairing = [PairProducts()] if target.pairs and BF16_PAIRS.get() else []
    leading = SplitLeading(target.l2_bytes)
    return [
        *machine_independent,
        Layout(target.lanes(4)),
        *pairing,
        *filtering,
        SplitFolds(),
        ShareMasks(),
        SharePads(),
        leading,
        ReductionOrder(target.lanes(4)),
        SplitReductions(),
        SinkConcats(),
    ]


def optimize(graph: Graph, target: Target | None = None) -> Graph:
    """Run the default passes: those that hold for every machine, and with a `target` its layout too."""
    return run_passes(graph, graph_passes(target))


def schedule(graph: Graph, target: Target) -> FusedGraph:
    """The kernels of `graph`, in the order in which they run. UnsupportedError for operators that run on the host."""
    on_gpu = target.device == "cuda"
    hosted = sorted({n.op for n in graph.nodes if OPS[n.op].kind == "host" and not has_kernel(n, on_gpu)})
    if hosted:
        raise UnsupportedError(
            f"graph @{graph.name} is not one program: {', '.join(hosted)} run on the host between compiled parts; "
            f"stages up to 'laid_out' can be shown"
        )
    matrices = target.capability >= MATRIX_ARCHITECTURE
    memory = target.l1_bytes if matrices else 0
    on_device = replace(ON_GPU, halves=matrices, chains=memory, cores=target.cores)
    limits = on_device if on_gpu else WITH_MASKS if target.masks else ON_CPU
    return order(fuse(optimize(graph, target), limits))


def build_program(
    graph: Graph,
    donated: frozenset[int] = frozenset(),
    target: Target | None = None,
    choices: Choices = NO_CHOICES,
    emitted: Callable[[str], None] | None = None,
) -> Program:
    """All phases before native code. `choices` are schedules of kernels other than the cost model's; `emitted` is told
    the code of each kernel when it is there.
    """
    machine = target or host_target()
    fused = schedule(graph, machine)
    spread = machine.l2_bytes // 2 if machine.device == "cuda" else 0
    return make_program(fused, partial(plan_memory, donated=donated, spread=spread), machine, choices, emitted)


def make(graph: Graph, donated: frozenset[int], target: Target, choices: Choices = NO_CHOICES) -> Artifact:
    """All phases: native code for `graph` on `target`. That for a processor is built while other kernels are made."""
    metadata = {"target": target.cpu}
    if target.device == "cuda":
        return make_device_artifact(build_program(graph, donated, target, choices), target, metadata)
    with Building(target) as building:
        program = build_program(graph, donated, target, choices, building.add)
        return make_artifact(program, target, metadata, building=building)


def stage_text(
    graph: Graph, stage: str, locations: bool = False, device: str = "cpu", target: Target | None = None
) -> str:
    """The text of `graph` at one of STAGES, for `device` ("cpu" or "cuda"). `target` is the machine, when it is not the
    one at hand. Raises GraphcError when there is no such stage, or not for this device.
    """
    if stage not in STAGES:
        raise GraphcError(f"no stage {stage!r}; there are {', '.join(STAGES)}")
    on_gpu = device.partition(":")[0] == "cuda"
    if stage in (_CPU_STAGES if on_gpu else _GPU_STAGES):
        other = "cpu" if on_gpu else "cuda"
        raise GraphcError(f"stage {stage!r} is one of device {other!r}, not of {device!r}")
    machine = target or (cuda_target() if on_gpu else host_target())
    made = partial(build_program, graph, target=machine)
    makers: dict[str, Callable[[], str]] = {
        "traced": lambda: _graph_text(graph, locations),
        "simplified": lambda: _graph_text(optimize(graph), locations),
        "laid_out": lambda: _graph_text(optimize(graph, machine), locations),
        "fused": lambda: print_fused(schedule(graph, machine)),
        "planned": lambda: _planned(made()),
        "loops": lambda: "\n".join(map(print_kernel, made().kernels)),
        "llvm": lambda: "\n".join(made().modules),
        "asm": lambda: "\n".join(build_assembly(m, machine) for m in made().modules),
        "cuda": lambda: program_unit(made(), machine),
        "ptx": lambda: build_ptx(program_unit(made(), machine), machine),
        "sass": lambda: disassemble(build_cubin(program_unit(made(), machine), machine)),
    }
    return makers[stage]()


def _planned(program: Program) -> str:
    return print_plan(program.fused, program.plan)


def _graph_text(graph: Graph, locations: bool) -> str:
    return print_graph(graph.name, graph.inputs, graph.nodes, graph.outputs, locations=locations)
