"""Convolutions by minimal filtering: when they are chosen, how much is multiplied, and results."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import graphc
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.llvm.host import host_target
from graphc.codegen.prepare import prepare
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.contraction import parse_spec
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, f16, f32, f64
from graphc.ir.verify import verify
from graphc.options import scope
from graphc.passes import minimal_filtering
from graphc.passes.autodiff import vjp
from graphc.passes.minimal_filtering import MinimalFiltering
from graphc.pipeline import optimize, schedule
from tests.codegen.programs import run
from tests.codegen.targets import AVX2, AVX512

Ints = tuple[int, ...]
LETTERS = ("hr", "ws", "du")


def products(graph: Graph) -> int:
    """Multiplications of all contractions."""
    total = 0
    for node in contracts(graph):
        spec = parse_spec(node.text("spec"))
        total += math.prod(spec.extents(node.inputs[0].shape, node.inputs[1].shape).values())
    return total


def contracts(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if n.op == "contract"]


def convolution(
    batch: int, channels: int, outs: int, size: Ints, kernel: Ints = (3, 3), padding: int = 1, stride: int = 1,
    dilation: int = 1, dtype: DType = f32, groups: int = 1, gradients: bool = False,
) -> Graph:  # fmt: skip
    """A convolution; with `gradients` those by the input and by the weights for a given cotangent too."""
    b = Builder()
    x = b.input(0, TensorType(dtype, (batch, groups, channels, *size)), "x")
    w = b.input(1, TensorType(dtype, (groups, outs, channels, *kernel)), "w")
    pads = (0, 0, 0, *(padding for _ in size))
    places = LETTERS[: len(size)]
    sums = " ".join(f"{'' if stride == 1 else stride}{p}+{'' if dilation == 1 else dilation}{r}" for p, r in places)
    taps, positions = (" ".join(pair[k] for pair in places) for k in (1, 0))
    y = b.contract(b.pad(x, pads, pads), w, f"b g c {sums}, g o c {taps} -> b g o {positions}")
    if not gradients:
        return Graph((x, w), (y,))
    ct = b.input(2, y.type, "ct")
    found = vjp(b, [y], [ct], [x, w])
    return Graph((x, w, ct), (y, *(g for g in found if g is not None)))


def arrays(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n.shape).astype(n.dtype.numpy) for n in graph.inputs]


def check(graph: Graph, tiled: Graph, native: bool = False) -> None:
    """Results are those of the contraction, but for rounding errors relative to its largest sums: a tile mixes sums."""
    verify(tiled)
    assert [o.type for o in tiled.outputs] == [o.type for o in graph.outputs]
    given = arrays(graph)
    wide = _in_f64(graph)
    exact = evaluate(wide, [a.astype(np.float64) for a in given])
    sizes = evaluate(wide, [np.abs(a).astype(np.float64) for a in given])
    for found in (evaluate(tiled, given), run(tiled, given)) if native else (evaluate(tiled, given),):
        for a, b, size in zip(found, exact, sizes, strict=True):
            assert np.abs(a - b).max() <= 8 * 2.0**-24 * size.max()


def check_with(threads: int, graph: Graph) -> None:
    """`check` of what is compiled, on so many threads."""
    before = graphc.get_num_threads()
    graphc.set_num_threads(threads)
    try:
        check(graph, graph, native=True)
    finally:
        graphc.set_num_threads(before)


def _in_f64(graph: Graph) -> Graph:
    b, made = Builder(), {}
    for node in graph.nodes:
        type = node.type.with_dtype(f64) if node.dtype.is_float else node.type
        made[node] = b.make(node.op, tuple(made[x] for x in node.inputs), node.attrs, type)
    return Graph(tuple(made[i] for i in graph.inputs), tuple(made[o] for o in graph.outputs))


def tile_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformations cost nothing, so that small convolutions are tiled too."""
    for cost in ("COPY", "NEAR", "STEP", "BYTES", "STEP_ON_GPU", "FEWER"):
        monkeypatch.setattr(minimal_filtering, cost, 0)
    for least in ("GAIN", "MIN_ROW", "MIN_ROW_ON_GPU"):
        monkeypatch.setattr(minimal_filtering, least, 1)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    tile_always(monkeypatch)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("lanes", [0, 1, 3])  # 0: no gradients; by threes no channels fill vectors, or one block does
@pytest.mark.parametrize(
    ("batch", "channels", "outs", "size", "kernel", "padding"),
    [
        (2, 3, 4, (8, 9), (3, 3), 1),
        (1, 4, 3, (11, 8), (3, 3), 1),  # tiles that reach over the end
        (3, 2, 5, (5, 10), (3, 1), 0),
        (2, 3, 2, (4, 12), (2, 5), 2),
        (2, 2, 3, (9, 16), (5, 2), 3),
        (1, 2, 2, (7, 8), (4, 4), 1),
        (9, 3, 2, (6, 6), (3, 3), 0),
        (8, 2, 2, (13,), (3,), 1),
        (1, 2, 3, (5, 6, 8), (3, 2, 3), 1),
    ],
)
def test_results(batch: int, channels: int, outs: int, size: Ints, kernel: Ints, padding: int, lanes: int) -> None:
    graph = convolution(batch, channels, outs, size, kernel, padding, gradients=lanes > 0)
    plain = optimize(graph)
    tiled = MinimalFiltering(lanes or 8).run(plain)
    assert products(tiled) < products(plain)
    check(graph, tiled)


STRIDED = [  # batch, channels, outs, size, kernel, padding, stride
    (1, 3, 4, (13, 9), (7, 7), 3, 2),  # a phase has a tap less than the other
    (2, 2, 3, (12, 10), (5, 3), 1, 2),
    (1, 2, 3, (17, 12), (8, 2), 2, 3),  # elements past the last window
    (2, 3, 2, (9, 8), (4, 4), 1, 2),
    (1, 2, 2, (26, 9), (9, 1), 0, 4),
    (1, 2, 3, (7, 9, 8), (5, 4, 2), 2, 2),
]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("lanes", [0, 1])
@pytest.mark.parametrize(("batch", "channels", "outs", "size", "kernel", "padding", "stride"), STRIDED)
def test_strided_results(
    batch: int, channels: int, outs: int, size: Ints, kernel: Ints, padding: int, stride: int, lanes: int
) -> None:
    """Windows that step by several places are taken by phases."""
    graph = convolution(batch, channels, outs, size, kernel, padding, stride, gradients=lanes > 0)
    plain = optimize(graph)
    tiled = MinimalFiltering(lanes or 8).run(plain)
    assert products(tiled) < products(plain)
    check(graph, tiled)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("outs", [5, 33])
def test_compiled_strided_results(outs: int, threads: int) -> None:
    graph = convolution(3, 3, outs, (45, 50), (7, 7), 3, 2)
    assert products(optimize(graph, host_target())) < products(optimize(graph))
    check_with(threads, graph)


def test_the_stem_of_residual_networks_takes_four_sevenths_of_the_multiplications() -> None:
    """For three rows 6 products of 8 taps, two of which are zeros in one phase; 112 rows end within the last tile."""
    graph = convolution(1, 3, 64, (224, 224), (7, 7), 3, 2)
    assert products(optimize(graph, AVX512)) == products(optimize(graph)) * 12 // 21 * 114 // 112


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("batch", [1, 8, 11])
@pytest.mark.parametrize(("groups", "channels"), [(1, 5), (2, 16)])
def test_compiled_results(batch: int, groups: int, channels: int) -> None:
    """With the axes that the layout pass cuts, past the end of tiles and of vectors."""
    graph = convolution(batch, channels, 9, (10, 11), groups=groups, gradients=True)
    tiled = optimize(graph, host_target())
    with scope(minimal_filtering=False):
        assert products(tiled) < products(optimize(graph, host_target()))
    check(graph, graph, native=True)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("batch", "channels", "outs", "size"), [(2, 64, 48, 17), (8, 64, 64, 8)])
def test_large_layers(batch: int, channels: int, outs: int, size: int, threads: int) -> None:
    graph = convolution(batch, channels, outs, (size, size), gradients=True)
    check_with(threads, graph)


def share(graph: Graph, target: Target = AVX2) -> float:
    """The share of a graph's multiplications that is left on a machine."""
    with scope(minimal_filtering=False):
        before = products(optimize(graph, target))
    return products(optimize(graph, target)) / before


@pytest.mark.parametrize(
    ("batch", "channels", "outs", "size"),
    [(1, 64, 64, 56), (16, 64, 64, 56), (16, 64, 64, 32), (16, 128, 128, 16), (16, 256, 256, 8), (16, 512, 512, 4)],
)
def test_half_of_the_multiplications_of_layers_with_many_channels_are_left(
    batch: int, channels: int, outs: int, size: int
) -> None:
    assert share(convolution(batch, channels, outs, (size, size))) == 0.5
    assert share(convolution(batch, channels, outs, (size, size), gradients=True)) == 0.5


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize(("channels", "size"), [(128, 16), (256, 8), (512, 4)])
def test_half_of_the_multiplications_are_left_on_gpus(channels: int, size: int, arch: str) -> None:
    """The gradient of the weights reads what the convolution made of its data; sums are of exact products."""
    target = cuda_target(arch)
    graph = convolution(128, channels, channels, (size, size), gradients=True)
    assert share(graph, target) == 0.5
    result, _, weights = contracts(optimize(graph, target))
    assert result.inputs[0] in weights.inputs


def test_where_memory_is_slow_or_products_may_be_rounded_all_are_left_on_gpus() -> None:
    layer = convolution(128, 64, 64, (32, 32))
    assert share(layer, cuda_target("sm_90")) == 0.5
    assert share(layer, cuda_target("sm_89")) == 1
    assert share(layer, replace(cuda_target("sm_90"), tf32=True)) == 1
    assert share(convolution(512, 6, 16, (14, 14), (5, 5), 0, gradients=True), cuda_target("sm_90")) == 1  # LeNet
    assert share(convolution(4, 256, 256, (8, 8)), cuda_target("sm_90")) == 1


@pytest.mark.parametrize(
    ("batch", "channels", "outs", "size", "kernel"),
    [
        (64, 1, 6, 32, (5, 5)),  # LeNet
        (64, 6, 16, 14, (5, 5)),
        (16, 3, 64, 32, (3, 3)),
        (16, 64, 64, 32, (1, 1)),
        (1, 512, 512, 4, (3, 3)),  # the weights alone take as long
    ],
)
def test_layers_with_few_channels_or_few_positions_stay(
    batch: int, channels: int, outs: int, size: int, kernel: Ints
) -> None:
    graph = convolution(batch, channels, outs, (size, size), kernel, kernel[0] // 2, gradients=True)
    plain = optimize(graph)
    assert MinimalFiltering().run(plain) is plain


def test_depthwise_strided_dilated_and_other_dtypes_stay() -> None:
    for graph in (
        convolution(16, 1, 1, (32, 32), groups=64),
        convolution(16, 64, 64, (32, 32), stride=2),
        convolution(16, 64, 64, (32, 32), dilation=2),
        convolution(16, 64, 64, (32, 32), dtype=f64),
        convolution(16, 64, 64, (32, 32), dtype=f16),
    ):
        assert MinimalFiltering().run(graph) is graph


@pytest.mark.parametrize("batch", [1, 16])
def test_weight_gradients_have_channels_in_the_lanes(batch: int) -> None:
    """Each sum over samples and positions ends in its lane, and operands are read from end to end."""
    graph = convolution(batch, 64, 48, (32, 32), gradients=True)
    fused = schedule(Graph(graph.inputs, graph.outputs[2:]), AVX2)
    (group,) = (g for g in fused.groups if any(n.op == "contract" for n in g.inside))
    prepared = prepare(group, AVX2)
    (site,) = (s for s in prepared.nest.sites if s.stage is not None)
    assert prepared.schedule.lane is not None
    assert not any(loop.hi and loop is prepared.schedule.site_lane.get(site) for loop in site.loops)
    inner = prepared.schedule.loop_order[site][-1]
    assert sorted(ix.coefficient(inner) for _, ix in site.operands[0]) == [1, 16]


def test_weights_are_stored_and_read_as_whole_vectors() -> None:
    """In blocks of channels, with the taps along the other axis; copying them into panels would cost as much again."""
    fused = schedule(convolution(16, 256, 128, (8, 8)), AVX2)
    (group,) = (g for g in fused.groups if any(n.op == "contract" for n in g.inside))
    (node,) = (n for n in group.inside if n.op == "contract")
    assert node.inputs[1].shape == (6, 1, 128, 16, 3, 16)
    assert prepare(group, AVX2).schedule.panels == ()


def test_positions_side_by_side_in_memory_stay() -> None:
    graph = convolution(8, 256, 256, (1024,), (3,))
    assert MinimalFiltering().run(graph) is graph


def test_infinities_stay_where_they_are_without_it() -> None:
    graph = convolution(16, 32, 32, (16, 16))
    given = arrays(graph)
    given[0][0, 0, 3, 8, 8] = np.inf
    with scope(minimal_filtering=False):
        (exact,) = run(graph, given)
    (tiled,) = run(graph, given)
    assert np.isfinite(exact).sum() == exact.size - 32 * 9
    assert np.isfinite(tiled).sum() < np.isfinite(exact).sum()  # or the option says nothing
    far = np.isfinite(tiled)
    np.testing.assert_allclose(tiled[far], exact[far], rtol=1e-4, atol=1e-4)


def test_the_option_belongs_to_the_key_of_programs() -> None:
    x, w = graphc.randn(16, 32, 16, 16), graphc.randn(32, 32, 3, 3)
    made = graphc.nn.functional.conv2d(x, w, padding=1).numpy().copy()
    with scope(minimal_filtering=False):
        plain = graphc.nn.functional.conv2d(x, w, padding=1).numpy().copy()
    assert not np.array_equal(made, plain)
    np.testing.assert_allclose(made, plain, rtol=1e-4, atol=1e-4)
