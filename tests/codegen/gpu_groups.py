"""Contractions by the kernels that blocks of threads of a GPU run, in the interpreter."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np

from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.gpu_contraction import lower_gpu_contraction
from graphc.codegen.gpu_contraction_problem import find_problem
from graphc.codegen.gpu_contraction_tiles import MatrixTile, Tile
from graphc.codegen.gpu_contraction_tiling import choose_tiling, tiling_with
from graphc.codegen.kernel_parser import parse_kernel
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.lowered import Lowered
from graphc.codegen.prepare import Prepared
from graphc.codegen.schedule import Schedule
from graphc.codegen.sites import build_nest
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.contraction import format_spec, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.schedule import Group, Root, Scratch
from graphc.ir.types import DType, TensorType
from tests.codegen.block_interpreter import run_blocks

H100 = cuda_target("sm_90")


def contraction(
    rng: random.Random,
    text: str,
    dtype: DType,
    follow: bool,
    before: bool,
    extents: Mapping[str, int] | None = None,
) -> Graph:
    """A contraction of random extents, but for those given; `follow`: with something after it, `before`: of computed
    operands.
    """
    spec = parse_spec(text)
    labels = sorted({label for dims in spec.operands for dim in dims for label, _ in dim})
    slides = any(len(dim) > 1 for dims in spec.operands for dim in dims)
    usual = (1, 2, 5, 8, 9) if slides else (1, 3, 16, 31, 40, 65) if len(labels) < 5 else (1, 3, 9, 16, 31)
    sizes = {label: rng.choice(usual) for label in labels}
    if slides:
        sizes.update(r=rng.choice((1, 3)), s=rng.choice((1, 3)))
    if "n" in sizes or "g" in sizes:
        sizes.update(n=3, g=2)
    sizes.update(extents or {})
    b = Builder()
    shapes = [
        tuple(sum(scale * (sizes[label] - 1) for label, scale in dim) + 1 for dim in dims) for dims in spec.operands
    ]
    x, y = inputs = [
        b.input(i, TensorType(dtype, shape), name) for i, (shape, name) in enumerate(zip(shapes, "xy", strict=True))
    ]
    if before:
        x = b.elementwise("maximum", x, b.constant(0, x.type))
        y = b.add(y, b.constant(1, y.type))
    z = b.contract(x, y, format_spec(*spec.operands, spec.out))
    if follow:
        inputs.append(b.input(2, TensorType(dtype, z.shape[-1:]), "bias"))
        z = b.elementwise("maximum", b.add(z, b.broadcast(inputs[-1], z.shape)), b.constant(0, z.type))
    return Graph(tuple(inputs), (z,))


def small_numbers(graph: Graph, seed: int) -> list[np.ndarray]:
    """Small whole numbers: sums of their products are exact in every dtype but for the last rounding."""
    rng = np.random.default_rng(seed)
    return [rng.integers(-3, 4, n.shape).astype(n.dtype.numpy) for n in graph.inputs]


def prepared(group: Group, tile: Tile | MatrixTile | None = None, target: Target = H100) -> Prepared:
    """`group` with the tiles that the model chooses, or with `tile`."""
    nest = build_nest(group)
    schedule = Schedule(1, None, list(nest.axes), dict.fromkeys(nest.axes, 1))
    if tile is None:
        schedule.tiling = choose_tiling(nest, target)
    else:
        problem = find_problem(nest)
        assert problem is not None, "not a matrix product"
        schedule.tiling = tiling_with(problem, tile)
    return Prepared(group, nest, schedule, ())


def whole(graph: Graph) -> Group:
    """All of `graph`, which has one output, as one group."""
    (output,) = graph.outputs
    inside = frozenset(n for n in graph.nodes if n.op != "input")
    return Group(output.shape, (Root(output, tuple(range(output.type.rank))),), inside)


def lowered(graph: Graph, tile: Tile | MatrixTile | None = None, target: Target = H100) -> tuple[Lowered, ...]:
    """The kernels of `graph`, which is a contraction with what stands around it."""
    kernels = lower_gpu_contraction(prepared(whole(graph), tile, target), "kernel", target, {})
    assert kernels is not None, "no tiles"
    return kernels


def run(
    graph: Graph, arrays: Sequence[np.ndarray], tile: Tile | MatrixTile | None = None, target: Target = H100
) -> np.ndarray:
    """The output of `graph` by the interpreter; the kernels are verified, and read back from their texts."""
    (output,) = graph.outputs
    memory: dict[Node | Scratch, np.ndarray] = {n: a.ravel() for n, a in zip(graph.inputs, arrays, strict=True)}
    memory[output] = np.zeros(output.type.size, output.dtype.numpy)
    for part in lowered(graph, tile, target):
        verify_kernel(part.kernel)
        text = print_kernel(part.kernel)
        assert print_kernel(parse_kernel(text)) == text
        for buffer in part.buffers:
            if isinstance(buffer, Scratch):
                memory.setdefault(buffer, np.full(buffer.type.size, 99, buffer.type.dtype.numpy))
        run_blocks(part.kernel, {p: memory[b] for p, b in zip(part.kernel.params, part.buffers, strict=True)})
    return memory[output].reshape(output.shape)
