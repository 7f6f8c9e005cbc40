"""Products of lines: 16-bit matrices that four warps multiply together, straight from shared memory."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product as product_of

import numpy as np
import pytest

from graphc.codegen.cuda.emit import emit_kernel, launch_shape
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.gpu_contraction_tiles import GroupTile, MatrixTile, Tile
from graphc.codegen.kernel import AwaitGroups, For, GroupMma, Kernel, Lines, Param, Stmt, statements
from graphc.codegen.kernel_parser import parse_kernel
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.errors import CompileError, VerifyError
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import DType, bf16, f16, f32
from tests.codegen.gpu_groups import contraction, lowered, prepared, run, small_numbers, whole

HOPPER = cuda_target("sm_90a")
SPECS = ("a b, b c -> a c", "a b, c b -> a c", "b a, b c -> a c", "b a, c b -> a c", "n a b, n b c -> n a c")
TILES = {
    "one group": GroupTile(64, 64, 64, 1, 1, 3),
    "down": GroupTile(128, 64, 64, 2, 1, 4),
    "across": GroupTile(64, 128, 64, 1, 2, 4),
    "two products": GroupTile(128, 192, 64, 1, 1, 3),
    "wide": GroupTile(64, 256, 64, 1, 1, 4),
    "parts": GroupTile(64, 64, 64, 1, 1, 3, splits=2),
}
# Depths: one step, less than the stages, one of each number after the last round, a part of a step.
DEPTHS = {"one step": 64, "two": 128, "parts of a step": 200, "five": 320, "six": 384, "eight": 456}


def product(spec: str, rows: int, columns: int, depth: int, dtype: DType = bf16, follow: bool = False) -> Graph:
    extents = {"a": rows, "c": columns, "b": depth, "n": 2}
    return contraction(random.Random(spec), spec, dtype, follow, before=False, extents=extents)


def is_turned(spec: str) -> bool:
    """Whether the steps of a column lie side by side."""
    return spec.partition(", ")[2].startswith("c")


def kernel_of(graph: Graph, tile: Tile | MatrixTile | None) -> Kernel:
    return lowered(graph, tile, HOPPER)[0].kernel


CASES = [
    pytest.param(*case, marks=pytest.mark.slow if number % 3 else ())
    for number, case in enumerate(product_of(SPECS, TILES, DEPTHS))
]


@pytest.mark.parametrize(("spec", "tile", "depth"), CASES)
def test_every_layout(spec: str, tile: str, depth: str) -> None:
    """Whatever lies side by side in memory; sides that end within a tile."""
    rows, columns = (72, 136) if tile != "two products" else (136, 200)
    if tile == "two products" and not is_turned(spec):
        tile = "wide"  # threads deal out lines of 192 steps only
    number = len(spec) + len(tile) + len(depth)
    graph = product(spec, rows, columns, DEPTHS[depth], (bf16, f16)[number % 2], follow=number % 3 == 0)
    assert "mma group" in print_kernel(kernel_of(graph, TILES[tile]))
    arrays = small_numbers(graph, 1)
    np.testing.assert_array_equal(run(graph, arrays, TILES[tile], HOPPER), evaluate(graph, arrays)[0])


def chosen(graph: Graph, arch: str) -> type:
    tiling = prepared(whole(graph), None, cuda_target(arch)).schedule.tiling
    assert tiling is not None
    return type(tiling.tile)


def test_which_products_are_those_of_lines() -> None:
    large = product(SPECS[0], 2048, 2048, 2048)
    assert chosen(large, "sm_90a") is GroupTile
    for other in ("sm_80", "sm_90", "sm_100a"):
        assert chosen(large, other) is MatrixTile
    assert chosen(product(SPECS[0], 2048, 2048, 2048, f32), "sm_90a") is Tile
    assert chosen(product(SPECS[0], 512, 512, 512), "sm_90a") is MatrixTile, "too few blocks"
    assert chosen(product(SPECS[0], 2048, 2048, 2044), "sm_90a") is MatrixTile, "lines that begin anywhere"
    computed = contraction(
        random.Random(1), SPECS[0], bf16, follow=False, before=True, extents={"a": 2048, "b": 2048, "c": 2048}
    )
    assert chosen(computed, "sm_90a") is MatrixTile, "what is computed is not copied"


def loop_of(kernel: Kernel) -> For:
    (loop,) = (s for s in kernel.body if isinstance(s, For))
    return loop


def test_a_step_waits_once() -> None:
    """One barrier for each step; at most one product of a group is still in work when the next begins."""
    tile = TILES["down"]
    kernel = kernel_of(product(SPECS[1], 256, 256, 1024), tile)
    body = loop_of(kernel).body
    assert sum(isinstance(s, GroupMma) for s in body) == tile.stages
    assert {s.pending for s in body if isinstance(s, AwaitGroups)} == {1}
    text = emit_kernel(kernel, HOPPER)
    inside = text[text.index("for (") : text.index("\n  }\n", text.index("for ("))]
    assert inside.count("__syncthreads();") == tile.stages
    assert inside.count("gc_group_written();") == inside.count("gc_group_mma_bf16_64<true, true>") == tile.stages
    assert "float" not in inside, "sums stay where they are"
    assert text.count("gc_group_ready(") == 32
    assert launch_shape(kernel) == (8, 256, 4 * (128 + 64) * 128)


def test_sums_of_all_layouts_are_told_from_the_call() -> None:
    for spec, turned in zip(SPECS, ("true, false", "true, true", "false, false", "false, true"), strict=False):
        text = emit_kernel(kernel_of(product(spec, 128, 64, 256), TILES["one group"]), HOPPER)
        assert f"gc_group_mma_bf16_64<{turned}>" in text


def changed(kernel: Kernel, old: str, new: str) -> Kernel:
    text = print_kernel(kernel)
    assert old in text
    return parse_kernel(text.replace(old, new, 1))


SMALL = """
kernel @k(%p: f32[128] out, %q: bf16[4096] in) threads 128 {
  own %left: bf16[4096]
  own %right: bf16[4096]
  parallel %g = 0 to 1 {
    %zero = const 0 : i64x128
    %lane = lanes : i64x128
    %c = const 0.0 : f32x128
    BODY
  }
}
"""
SUMS = ", ".join(["%c"] * 32)


def results(prefix: str) -> str:
    return ", ".join(f"%{prefix}{i}: f32x128" for i in range(32))


def uses(prefix: str) -> str:
    return ", ".join(f"%{prefix}{i}" for i in range(32))


BEGIN = f"mma group %left[0] offsets %zero turned, %right[0] offsets %zero, ({SUMS}) -> ({results('r')})"
NEXT = f"mma group %left[0] offsets %zero turned, %right[0] offsets %zero, ({uses('r')}) -> ({results('s')})"
READY = f"await groups 0 ({uses('r')}) -> ({results('t')})"
STORE = "store %p[0], %t0 offsets %lane : f32x128"


def small(*lines: str) -> Kernel:
    return parse_kernel(SMALL.replace("BODY", "\n    ".join(lines)))


def test_products_are_read_back_from_text() -> None:
    kernel = small(BEGIN, READY, STORE, "await groups 2")
    verify_kernel(kernel)
    assert parse_kernel(print_kernel(kernel)) is not kernel
    assert print_kernel(parse_kernel(print_kernel(kernel))) == print_kernel(kernel)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((BEGIN, "store %p[0], %r0 offsets %lane : f32x128"), "may be under way"),
        ((BEGIN, NEXT, READY), "may be under way"),
        ((BEGIN, NEXT, "store %p[0], %r0 offsets %lane : f32x128"), "may be under way"),
        ((BEGIN, READY, "store %p[0], %r0 offsets %lane : f32x128"), "may be under way"),
        ((BEGIN, READY.replace("groups 0", "groups 1")), "ready with 1 products under way"),
        ((BEGIN.replace("%right[0]", "%p[0]"),), "f16 or bf16, in memory of the block"),
        (("%b = const 1.0 : bf16x128", BEGIN, "store %left[0], %b offsets %lane : bf16x128"), "only copies fill"),
        ((BEGIN.replace(f"{SUMS})", "%c)").replace(results("r"), "%r0: f32x128"),), "32, 64, 96, 128 values"),
    ],
    ids=[
        "stored",
        "added to twice",
        "stored later",
        "stored after all",
        "too early",
        "parameter",
        "stored to",
        "one column",
    ],
)
def test_rules_of_products(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        verify_kernel(small(*lines))


def test_products_are_those_of_whole_groups_of_warps() -> None:
    text = print_kernel(small(BEGIN, READY)).replace("x128", "x64").replace("threads 128", "threads 64")
    with pytest.raises(VerifyError, match="groups of warps have 128 threads; the block has 64"):
        verify_kernel(parse_kernel(text))


def test_a_loop_carries_a_product_only_in_its_place() -> None:
    """Two sums that change places would have to be moved while they are computed."""

    def rounds(yields: str) -> Kernel:
        carried = ", ".join(f"%x{i} = %c : f32x128" for i in range(64))
        first = NEXT.replace(uses("r"), uses("x"))
        second = ", ".join(f"%x{i + 32}" for i in range(32))
        other = NEXT.replace(uses("r"), second).replace(results("s"), results("t"))
        given = ", ".join(f"%y{i}: f32x128" for i in range(64))
        return small(f"for %i = 0 to 4 step 1 carry ({carried}) {{ {first} {other} yield {yields} }} -> ({given})")

    kept, swapped = f"{uses('s')}, {uses('t')}", f"{uses('t')}, {uses('s')}"
    verify_kernel(rounds(kept))
    assert "gc_group_mma" in emit_kernel(rounds(kept), HOPPER)
    with pytest.raises(CompileError, match="moved while it is under way"):
        emit_kernel(rounds(swapped), HOPPER)


WRITE = (
    "%each = const 8 : i64x128",
    "%piece = mul %lane, %each : i64x128",
    "copy %left[0] offsets %piece, %q[0] offsets %piece count 8",
    "await 0",
)


def test_nobody_writes_what_a_product_may_read() -> None:
    emit_kernel(small(BEGIN, READY, *WRITE), HOPPER)
    for lines in ((BEGIN, *WRITE, READY), (BEGIN, "await groups 1", *WRITE, READY)):
        with pytest.raises(CompileError, match="left is written while a product may read it"):
            emit_kernel(small(*lines), HOPPER)


def test_tiles_whose_panels_wait_longer_are_caught() -> None:
    """A kernel that let two products go on would overwrite what the first one reads."""
    kernel = kernel_of(product(SPECS[1], 256, 256, 1024), TILES["down"])

    def later(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(
            replace(s, pending=2)
            if isinstance(s, AwaitGroups) and s.pending
            else replace(s, body=later(s.body))
            if isinstance(s, For)
            else s
            for s in body
        )

    with pytest.raises(CompileError, match="written while a product may read it"):
        emit_kernel(replace(kernel, body=later(kernel.body)), HOPPER)


def test_where_lines_lie() -> None:
    """Permuted, 64 steps of a row lie in one line; 64 rows of a step otherwise."""
    kernel = kernel_of(product(SPECS[0], 128, 128, 256), GroupTile(128, 128, 64, 2, 1, 3))
    used: dict[Param, Lines] = {
        lines.buffer: lines for s in statements(kernel.body) if isinstance(s, GroupMma) for lines in (s.left, s.right)
    }
    assert {p.size for p in used} == {128 * 64}
    assert {lines.turned for p, lines in used.items() if p.name.startswith("left")} == {True}
    assert {lines.turned for p, lines in used.items() if p.name.startswith("right")} == {False}
