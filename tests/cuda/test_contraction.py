"""The CUDA C of contractions by blocks of threads, run on the host: barriers, copies and instructions on matrices."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from graphc.codegen.cuda.emit import emit_kernel, emit_unit, launch_shape
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.gpu_contraction_tiles import GroupTile, MatrixTile, Tile
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.schedule import Scratch
from graphc.ir.types import DType, bf16, f16, f32, f64
from tests.codegen.gpu_groups import contraction, lowered, small_numbers
from tests.codegen.test_gpu_mixed import cut
from tests.codegen.test_gpu_mixed import product as mixed
from tests.cuda.shim import NoCompiler, Unit, compiler

HOPPER = cuda_target("sm_90a")
SPECS = ("a b, b c -> a c", "a b, c b -> a c", "b a, b c -> a c", "b c h+r w+s, o c r s -> b o h w")
CASES: dict[str, tuple[DType, Tile | MatrixTile]] = {
    "tiles": (f32, Tile(32, 32, 8, 4, 4, 1)),
    "slices and parts": (f32, Tile(16, 16, 16, 4, 4, 4, splits=2)),
    "many parts": (f32, Tile(16, 16, 8, 2, 2, 1, splits=18)),
    "matrices": (bf16, MatrixTile(32, 32, 32, 1, 2, 3)),
    "tf32": (f32, MatrixTile(32, 32, 16, 1, 2, 3)),
    "matrices of f16": (f16, MatrixTile(32, 16, 16, 2, 1, 4, splits=2)),
}


@pytest.fixture(scope="module", autouse=True)
def has_compiler() -> None:
    try:
        compiler()
    except NoCompiler as error:
        pytest.skip(str(error))


def _aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """A buffer as devices have them."""
    memory = np.zeros(size * dtype.itemsize + 64, np.uint8)
    return memory[-memory.ctypes.data % 64 :][: size * dtype.itemsize].view(dtype)


def _run(graph: Graph, arrays: Sequence[np.ndarray], tile: Tile | MatrixTile) -> np.ndarray:
    (output,) = graph.outputs
    memory: dict[Node | Scratch, np.ndarray] = {}
    for number, part in enumerate(lowered(graph, tile, HOPPER)):
        text = emit_kernel(part.kernel, HOPPER).replace(" kernel(", f" kernel{number}(")
        for buffer in part.buffers:
            if buffer not in memory:
                memory[buffer] = _aligned(buffer.type.size, buffer.type.dtype.numpy)
                if buffer in graph.inputs:
                    memory[buffer][:] = arrays[graph.inputs.index(buffer)].ravel()
        used = [memory[buffer] for buffer in part.buffers]
        blocks, threads, shared = launch_shape(part.kernel)
        ranges = [(str(i), a.ctypes.data, a.nbytes) for i, a in enumerate(used)]
        unit = Unit(emit_unit([text]), "quick checked")
        unit.launch(f"kernel{number}", blocks, threads, [a.ctypes.data for a in used], shared, number, ranges)
    return memory[output].reshape(output.shape)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("case", CASES)
def test_results_are_exact_and_threads_do_not_disturb_each_other(case: str, spec: str) -> None:
    dtype, tile = CASES[case]
    rng = random.Random(f"{case} {spec}")
    graph = contraction(rng, spec, dtype, follow=True, before=case == "tiles")
    arrays = small_numbers(graph, 2)
    np.testing.assert_array_equal(_run(graph, arrays, tile), evaluate(graph, arrays)[0])


@pytest.mark.parametrize("case", ["tiles", "matrices"])
def test_convolutions_whose_steps_are_counted(case: str) -> None:
    dtype, tile = CASES[case]
    extents = {"b": 2, "c": 32, "h": 5, "w": 6, "o": 20, "r": 3, "s": 3}
    graph = contraction(random.Random(1), SPECS[3], dtype, follow=True, before=True, extents=extents)
    arrays = small_numbers(graph, 2)
    np.testing.assert_array_equal(_run(graph, arrays, tile), evaluate(graph, arrays)[0])


def test_copies_that_are_under_way_while_matrices_are_multiplied() -> None:
    rng = random.Random(5)
    extents = {"a": 40, "b": 208, "c": 24}
    for spec, case in product(SPECS[:3], ("matrices", "tf32")):
        dtype, tile = CASES[case]
        graph = contraction(rng, spec, dtype, follow=False, before=False, extents=extents)
        arrays = small_numbers(graph, 3)
        np.testing.assert_array_equal(_run(graph, arrays, tile), evaluate(graph, arrays)[0])


@pytest.mark.parametrize("dtype", [bf16, f16], ids=str)
def test_f32_that_is_cut_into_pieces(dtype: DType) -> None:
    for spec, kinds in ((SPECS[0], (f32, dtype)), (SPECS[2], (dtype, f32))):
        graph = mixed(spec, kinds, 72)
        tile = cut(graph, MatrixTile(32, 32, 32, 1, 2, 2))
        rng = np.random.default_rng(1)
        arrays = [rng.standard_normal(i.shape).astype(i.dtype.numpy) for i in graph.inputs]
        (exact,) = evaluate(graph, arrays, floats=f64)
        assert np.abs(_run(graph, arrays, tile) - exact).max() < 1e-6 * np.abs(exact).max()


GROUPS = {
    "one group": GroupTile(64, 64, 64, 1, 1, 3),
    "two groups": GroupTile(128, 64, 64, 2, 1, 4),
    "two products": GroupTile(128, 64, 64, 1, 1, 4),
    "parts": GroupTile(64, 128, 64, 1, 2, 4, splits=2),
}


@pytest.mark.share(2)
@pytest.mark.parametrize(("case", "dtype"), [*zip(GROUPS, (bf16, f16, f16, bf16), strict=True)])
def test_products_that_read_their_lines_as_late_as_they_may(case: str, dtype: DType) -> None:
    """Rows and columns that lie side by side in memory or not; whole and part steps after the last round."""
    rng = random.Random(case)
    specs = (*SPECS[:3], "b a, c b -> a c")
    for number, (spec, depth) in enumerate(zip(specs, (64, 520, 328, 392), strict=True)):
        extents = {"a": 72, "b": depth, "c": 136}
        graph = contraction(rng, spec, dtype, follow=number % 2 == 0, before=False, extents=extents)
        arrays = small_numbers(graph, 4)
        np.testing.assert_array_equal(_run(graph, arrays, GROUPS[case]), evaluate(graph, arrays)[0])
