"""Contractions whose operands do not fit the caches: copied into panels, gone through in blocks, summed in parts."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.prepare import prepare
from graphc.codegen.schedule import Schedule
from graphc.ir.builder import Builder
from graphc.ir.contraction import format_spec, parse_spec
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import DType, TensorType, bf16, f16, f32, f64, i32
from graphc.options import scope
from graphc.pipeline import build_program, schedule
from tests.codegen.programs import run
from tests.codegen.targets import AVX2, AVX512, runnable

SMALL = replace(host_target(), l1_bytes=512, l2_bytes=4096, cores=2)
TARGETS = {
    "small caches": SMALL,
    "narrow": replace(SMALL, vector_bytes=16, registers=16),
    "one core": replace(SMALL, cores=1),
    "some second level": replace(SMALL, l2_bytes=1 << 14),
    "no second level": replace(SMALL, l2_bytes=512),
}
SPECS = (
    "a b, b c -> a c",
    "a b, c b -> a c",
    "b a, b c -> a c",
    "b a, c b -> c a",
    "n a b, n b c -> n a c",
    "a n b, c n b -> n c a",
    "a b d, d c b -> a c",
    "a b d e, c d -> c e a b",
    "b c h+r w+s, o c r s -> b o h w",
    "b c 2h+r 2w+s, o c r s -> b o h w",
    "b c h w, b o h+r w+s -> o c r s",
)


def _graph(rng: random.Random, text: str, dtype: DType, epilogue: bool) -> Graph:
    """A contraction of random extents, and what may follow it in the kernel."""
    spec = parse_spec(text)
    labels = sorted({label for dims in spec.operands for dim in dims for label, _ in dim})
    slides = any(len(dim) > 1 for dims in spec.operands for dim in dims)
    extents = {label: rng.choice((1, 2, 5, 8, 9) if slides else (1, 3, 16, 31, 40, 65)) for label in labels}
    if slides:
        extents.update(r=rng.choice((1, 3)), s=rng.choice((1, 3)))
    b = Builder()
    shapes = [
        tuple(sum(scale * (extents[label] - 1) for label, scale in dim) + 1 for dim in dims) for dims in spec.operands
    ]
    x, y = (
        b.input(i, TensorType(dtype, shape), name) for i, (shape, name) in enumerate(zip(shapes, "xy", strict=True))
    )
    z = b.contract(x, y, format_spec(*spec.operands, spec.out))
    inputs = [x, y]
    if epilogue:
        inputs.append(b.input(2, TensorType(dtype, z.shape[-1:]), "bias"))
        z = b.elementwise("maximum", b.add(z, b.broadcast(inputs[-1], z.shape)), b.constant(0, z.type))
    return Graph(tuple(inputs), (z,))


def _arrays(graph: Graph, seed: int) -> list[np.ndarray]:
    """Small whole numbers: sums of their products are exact in every dtype but for the last rounding."""
    rng = np.random.default_rng(seed)
    return [rng.integers(-3, 4, n.shape).astype(n.dtype.numpy) for n in graph.inputs]


def _schedules(graph: Graph, target: str) -> list[Schedule]:
    return [prepare(group, TARGETS[target]).schedule for group in schedule(graph, TARGETS[target]).groups]


@pytest.mark.share(2)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    ("target", "dtype"), [*((t, f32) for t in TARGETS), *(("small caches", d) for d in (f64, bf16, i32))], ids=str
)
def test_contractions(target: str, spec: str, dtype: DType) -> None:
    rng = random.Random(f"{spec} {dtype}")
    both = target == "small caches"  # with and without an epilogue; for the others, in turns
    for number in range(2) if both else [(SPECS.index(spec) + [*TARGETS].index(target)) % 2]:
        graph = _graph(rng, spec, dtype, epilogue=number % 2 == 1)
        for kernel in build_program(graph, target=TARGETS[target]).kernels:
            verify_kernel(kernel)
        arrays = _arrays(graph, number)
        (got,) = run(graph, arrays, TARGETS[target])
        (expected,) = evaluate(graph, arrays)
        np.testing.assert_array_equal(got, expected, err_msg=str([n.shape for n in graph.inputs]))


@pytest.mark.parametrize("dtype", [bf16, f16], ids=str)
@pytest.mark.parametrize("columns", [65, 66, 81])
def test_the_last_column_of_narrow_elements_is_stored_alone(dtype: DType, columns: int) -> None:
    b = Builder()
    x, y = b.input(0, TensorType(dtype, (6, 9))), b.input(1, TensorType(dtype, (9, columns)))
    graph = Graph((x, y), (b.contract(x, y, "a b, b c -> a c"),))
    arrays = _arrays(graph, 1)
    for target in (*TARGETS.values(), *runnable().values()):
        (got,) = run(graph, arrays, target)
        (expected,) = evaluate(graph, arrays)
        np.testing.assert_array_equal(got, expected)


def _square(n: int, spec: str) -> Graph:
    b = Builder()
    x, y = (b.input(i, TensorType(f32, (n, n)), name) for i, name in enumerate("xy"))
    return Graph((x, y), (b.contract(x, y, spec),))


@pytest.mark.parametrize("spec", SPECS[:4])
def test_large_matrices_use_all_levels(spec: str) -> None:
    (choice,) = _schedules(_square(200, spec), "small caches")
    assert choice.panels and choice.chunk is not None
    (choice,) = _schedules(_square(64, spec), "small caches")
    assert choice.panels


@pytest.mark.parametrize("rows", [12, 7])
def test_a_long_sum_across_lanes_is_made_in_parts(rows: int) -> None:
    b = Builder()
    x, y = (b.input(i, TensorType(f32, (n, 41, 70)), name) for i, (n, name) in enumerate(((rows, "x"), (10, "y"))))
    graph = Graph((x, y), (b.contract(x, y, "o a b, c a b -> o c"),))
    (choice,) = _schedules(graph, "some second level")
    assert choice.lane is None and choice.site_lane and choice.chunk is not None and 41 % choice.chunk.size
    arrays = _arrays(graph, rows)
    for target in TARGETS.values():
        np.testing.assert_array_equal(run(graph, arrays, target)[0], evaluate(graph, arrays)[0])


@pytest.mark.parametrize(("cache", "size"), [(1 << 20, 2), (1 << 26, None)])
def test_a_long_sum_is_made_in_parts_that_two_tiles_find_near(cache: int, size: int | None) -> None:
    """One block of samples is more than the cache holds, what two tiles read of two of them is not."""
    b = Builder()
    x, y = (b.input(i, TensorType(f32, (4, 48, n, n, 16)), name) for i, (n, name) in enumerate(((16, "x"), (34, "y"))))
    graph = Graph((x, y), (b.contract(x, y, "b o h w l, b c 2h+r 2w+s l -> o c r s"),))
    with scope(minimal_filtering=False):
        (group,) = schedule(graph, AVX512).groups
    choice = prepare(group, replace(AVX512, l2_bytes=cache)).schedule
    assert choice.lane is None
    assert (choice.chunk and choice.chunk.size) == size


def test_matrices_that_fit_the_nearest_cache_stay_as_they_are() -> None:
    graph = _square(16, "a b, b c -> a c")
    (group,) = schedule(graph, host_target()).groups
    choice = prepare(group, host_target()).schedule
    assert choice.panels == () and choice.chunk is None and choice.block == (None, 1)


def test_a_transposed_operand_is_copied_rather_than_read_across() -> None:
    graph = _square(128, "a b, c b -> a c")
    (group,) = schedule(graph, host_target()).groups
    (panel,) = prepare(group, host_target()).schedule.panels
    assert panel.is_lane and panel.source is graph.inputs[panel.operand]


@pytest.mark.parametrize("places", [64, 70, 7, 131])
@pytest.mark.parametrize("dtype", [f32, bf16, i32], ids=str)
@pytest.mark.parametrize("spec", ["n b a, c b -> n c a", "c b, n b a -> n c a"])
def test_a_panel_that_all_tiles_read_at_once_is_the_kernels_own(spec: str, dtype: DType, places: int) -> None:
    """Copied tile by tile inside the loop over the lanes: no kernel for it, no memory of the program."""
    extents = {"n": 3, "a": places, "b": 90, "c": 50}
    formula = parse_spec(spec)
    b = Builder()
    x, y = (
        b.input(i, TensorType(dtype, tuple(extents[label] for ((label, _),) in dims)), name)
        for i, (dims, name) in enumerate(zip(formula.operands, "xy", strict=True))
    )
    graph = Graph((x, y), (b.contract(x, y, spec),))
    sizes = {"l1_bytes": 1 << 13, "l2_bytes": 1 << 16}
    for target in (replace(AVX2, **sizes), replace(AVX512, **sizes)) if places >= 64 else ():
        (group,) = schedule(graph, target).groups
        choice = prepare(group, target).schedule
        (panel,) = choice.panels
        assert panel.is_near and choice.memory == ()
        (kernel,) = build_program(graph, target=target).kernels
        verify_kernel(kernel)
        assert [own.size for own in kernel.own] == [panel.length]
        # What the next tile is copied from is asked for where it does not come from a cache near the core.
        asks = panel.source.type.nbytes > target.l2_bytes and places >= panel.width
        assert ("prefetch %p" in print_kernel(kernel)) == asks
    arrays = _arrays(graph, places)
    targets = {"host": host_target(), **runnable()}
    for name in targets.keys() & {"host", "avx2", "avx512"}:
        got = run(graph, arrays, replace(targets[name], **sizes))
        np.testing.assert_array_equal(got[0], evaluate(graph, arrays)[0], err_msg=name)


def test_a_block_that_is_copied_across_its_order_is_whole() -> None:
    """The copy goes along the innermost dimension of the source, which is the outermost loop of the sum: a vector that
    is stored over the next step must not meet one that is there already.
    """
    b = Builder()
    x = b.input(0, TensorType(f32, (2, 2, 4, 16, 14, 58, 8)))
    y = b.input(1, TensorType(f32, (2, 64, 4, 3, 16)))
    graph = Graph((x, y), (b.contract(x, y, "v t a b h w+s l, t o a s b -> v t o h w l"),))
    rng = np.random.default_rng(3)
    arrays = [rng.integers(-3, 4, n.shape).astype(np.float32) for n in graph.inputs]
    wanted = evaluate(graph, arrays)[0]
    with scope(minimal_filtering=False):
        for target in (host_target(), *runnable().values()):
            np.testing.assert_array_equal(run(graph, arrays, target)[0], wanted)


def test_loops_that_follow_each_other_are_copied_as_one() -> None:
    """The weights of a convolution lie in one row for each channel: square blocks of them are turned in registers."""
    b = Builder()
    x, w = b.input(0, TensorType(f32, (12, 33, 33)), "x"), b.input(1, TensorType(f32, (64, 12, 3, 3)), "w")
    graph = Graph((x, w), (b.contract(x, w, "c 2h+r 2w+s, o c r s -> o h w"),))
    copies = [k for k in build_program(graph, target=AVX512).kernels if len(k.params) == 2]
    assert copies
    for kernel in copies:
        text = print_kernel(kernel)
        assert "even_segments" in text and " stride " not in text and text.count("for ") <= 2
