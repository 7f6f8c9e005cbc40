"""Stores past the caches: which kernels have them, and that what they write is all there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from graphc.codegen.kernel import Kernel, Store, statements
from graphc.codegen.kernel_parser import parse_kernel
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.llvm.build import build_assembly
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.lowered import Lowered
from graphc.codegen.package import Program, make_program
from graphc.codegen.streaming import streamed
from graphc.codegen.target import LINE, Target
from graphc.errors import VerifyError
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, bf16, f32, f64, i64
from graphc.passes.plan_memory import plan_memory
from graphc.pipeline import schedule
from graphc_runtime import Buffer
from graphc_runtime.devices import get_device
from graphc_runtime.executor import Executable
from tests.codegen.raw import artifact_of
from tests.codegen.targets import AVX2, AVX512, SSE2, runnable

SMALL = {"l3_bytes": 1 << 14}
TARGETS = {name: replace(target, **SMALL) for name, target in {"host": host_target(), **runnable()}.items()}
AVX2_SMALL = replace(AVX2, **SMALL)
Make = Callable[[Builder], tuple[tuple[Node, ...], Node]]


def _sum(shape: tuple[int, ...], dtype: object = f32) -> Make:
    def make(b: Builder) -> tuple[tuple[Node, ...], Node]:
        x, y = (b.input(i, TensorType(dtype, shape)) for i in (0, 1))  # type: ignore[arg-type]
        return (x, y), b.add(x, y)

    return make


def _softmax(b: Builder) -> tuple[tuple[Node, ...], Node]:
    x = b.input(0, TensorType(f32, (64, 128)))
    e = b.exp(
        b.sub(
            x, b.broadcast(b.reshape(b.apply("reduce_max", (x,), {"axes": (1,), "ties": "even"}), (64, 1)), (64, 128))
        )
    )
    total = b.apply("reduce_sum", (e,), {"axes": (1,)})
    return (x,), b.div(e, b.broadcast(b.reshape(total, (64, 1)), (64, 128)))


def _picked(rows: int) -> Make:
    def make(b: Builder) -> tuple[tuple[Node, ...], Node]:
        x, places = b.input(0, TensorType(f32, (rows, 64))), b.input(1, TensorType(i64, (70,)))
        return (x, places), b.apply("gather", (x, places), {"axis": 0})

    return make


_gather = _picked(100)


def _transpose(b: Builder) -> tuple[tuple[Node, ...], Node]:
    x = b.input(0, TensorType(f32, (256, 128)))
    return (x,), b.apply("materialize", (b.permute(x, (1, 0)),))


def _windows(*images: int, side: int = 56, dtype: DType = f32) -> Make:
    """Sums of products over windows; of 56 in a row, every second row of the results begins with a line."""

    def make(b: Builder) -> tuple[tuple[Node, ...], Node]:
        c = images[-1]
        x = b.input(0, TensorType(dtype, (*images, side + 2, side + 2)))
        w = b.input(1, TensorType(dtype, (c, 3, 3)))
        n = "n " * (len(images) - 1)
        return (x, w), b.contract(x, w, f"{n}c h+r w+s, c r s -> {n}c h w")

    return make


def _scan(b: Builder) -> tuple[tuple[Node, ...], Node]:
    x = b.input(0, TensorType(f32, (64, 128)))
    return (x,), b.apply("scan_sum", (x,), {"axis": 0, "reverse": False})


def _columns(b: Builder) -> tuple[tuple[Node, ...], Node]:
    x = b.input(0, TensorType(f32, (256, 128)))
    return (x,), b.apply("reduce_sum", (x,), {"axes": (0,)})


def _few(b: Builder) -> tuple[tuple[Node, ...], Node]:
    x = b.input(0, TensorType(f32, (64, 8, 64)))
    return (x,), b.apply("reduce_sum", (x,), {"axes": (0,)})


def _program(make: Make, target: Target, donated: frozenset[int] = frozenset()) -> tuple[Graph, Program]:
    inputs, output = make(Builder())
    graph = Graph(inputs, (output,))

    def plan(*args: object, **options: object) -> object:
        return plan_memory(*args, donated=donated, **options)  # type: ignore[arg-type]

    return graph, make_program(schedule(graph, target), plan, target)  # type: ignore[arg-type]


def _stores_of(*kernels: Kernel) -> list[Store]:
    return [s for k in kernels for s in statements(k.body) if isinstance(s, Store)]


def _streams(*kernels: Kernel) -> list[Store]:
    """The stores past the caches."""
    return [s for s in _stores_of(*kernels) if s.streams]


def _arrays(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        rng.integers(-5, 105, n.shape) if n.dtype is i64 else rng.standard_normal(n.shape).astype(n.dtype.numpy)
        for n in graph.inputs
    ]


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    "make",
    [_sum((64, 128)), _sum((5000,)), _sum((64, 100), f64), _sum((64, 128), bf16), _softmax, _gather, _transpose, _scan],
    ids=["sum", "tail", "doubles", "halves", "softmax", "gather", "transpose", "scan"],
)
def test_what_is_larger_than_the_caches_is_stored_past_them(make: Make, name: str) -> None:
    graph, program = _program(make, TARGETS[name])
    # Results that are narrower than what they are computed in may be less than 16 bytes of a short vector.
    assert _streams(*program.kernels) or TARGETS[name].vector_bytes == 16 or (make is _scan and name != "host")
    _check(graph, program, TARGETS[name], times=3)


def _check(graph: Graph, program: Program, target: Target, times: int = 1) -> None:
    """The kernels are right, as text too, and compute what the evaluation of the graph does."""
    for kernel in program.kernels:
        verify_kernel(kernel)
        assert print_kernel(parse_kernel(print_kernel(kernel))) == print_kernel(kernel)
    arrays = _arrays(graph)
    executable = Executable(artifact_of(program, target), get_device("cpu"))
    (wanted,), node = evaluate(graph, arrays), graph.outputs[0]
    for _ in range(times):
        (result,) = executable.run(list(map(Buffer.from_array, arrays)))
        found = result.view(node.dtype.numpy, node.shape)
        np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted({"sse2", "avx2", "avx512"} & {*TARGETS}))
@pytest.mark.parametrize(
    "make",
    [_windows(8), _windows(4, 8)],
    ids=["rows", "images"],
)
def test_images_of_whole_lines_are_put_together(make: Make, name: str) -> None:
    graph, program = _program(make, TARGETS[name])
    (kernel,) = program.kernels
    (own,) = kernel.own
    assert own.size * own.dtype.itemsize % LINE == 0
    # All of the result is copied, and by nothing else stored.
    stores = _stores_of(kernel)
    assert {s.buffer for s in stores if not s.streams} == {own}
    assert {s.buffer for s in stores if s.streams} == {kernel.params[-1]}
    _check(graph, program, TARGETS[name])


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("side", [9, 20, 28, 44])
def test_other_images_are_right(name: str, side: int) -> None:
    graph, program = _program(_windows(3, 8, side=side), TARGETS[name])
    _check(graph, program, TARGETS[name])


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize(("rows", "columns", "dtype"), [(64, 96, f32), (61, 112, f32), (37, 80, f64), (50, 33, f32)])
def test_products_that_nothing_reads_are_stored_past_the_caches(
    name: str, rows: int, columns: int, dtype: DType, reads: bool
) -> None:
    """Where the second cache does not hold all that the kernel touches, and rows are whole lines."""
    target = replace(TARGETS[name], l1_bytes=1 << 12, l2_bytes=1 << 14, l3_bytes=1 << 26)
    b = Builder()
    x, dy = b.input(0, TensorType(dtype, (24, columns))), b.input(1, TensorType(dtype, (24, rows)))
    w = b.input(2, TensorType(dtype, (rows, columns)))
    gradient = b.apply("contract", (dy, x), {"spec": "m o, m k -> o k"})
    reader = b.apply("contract", (x, gradient), {"spec": "m k, o k -> m o"}) if reads else b.add(w, gradient)
    graph = Graph((x, dy, w), (gradient, reader))
    program = make_program(schedule(graph, target), plan_memory, target)
    size = rows * columns
    found = any(s.buffer.size == size for s in _streams(*program.kernels))
    may = not reads and columns % 16 == 0
    assert found == may if target.vector_bytes == 64 else found <= may  # tiles of short vectors may end within a line
    arrays = _arrays(graph)
    executable = Executable(artifact_of(program, target), get_device("cpu"))
    results = executable.run(list(map(Buffer.from_array, arrays)))
    for result, node, wanted in zip(results, graph.outputs, evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(result.view(node.dtype.numpy, node.shape), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", [SSE2, AVX2])
def test_rows_that_are_scanned_are_stored_past_the_caches(target: Target) -> None:
    def rows(b: Builder) -> tuple[tuple[Node, ...], Node]:
        x = b.input(0, TensorType(f32, (64, 512)))
        return (x,), b.apply("scan_sum", (x,), {"axis": 1, "reverse": False})

    _, program = _program(rows, replace(target, **SMALL))
    assert len(_streams(*program.kernels)) == 4


def test_what_fits_or_is_written_in_parts_is_not() -> None:
    host = TARGETS["host"]
    for make, target in (
        (_sum((64, 128)), replace(host, l3_bytes=0)),
        (_sum((64, 128)), replace(host, l3_bytes=3 * 64 * 128 * 4 + 1)),
        (_few, host),
        (_sum((500, 3)), replace(host, l3_bytes=1 << 20)),
        (_columns, host),
        (_windows(8, side=9), host),
        (_picked(1000), replace(host, l3_bytes=1 << 16)),  # of a table that is larger than the cache
    ):
        _, program = _program(make, target)
        assert not _streams(*program.kernels)
    _, program = _program(_sum((64, 128)), host, frozenset({0}))
    assert not _streams(*program.kernels)  # the operand's memory is the result's


def _kernel(target: Target, text: str, start: int = 0) -> Kernel:
    kernel = parse_kernel(text)
    return streamed(Lowered(kernel, (), (0,) * (len(kernel.params) - 1) + (start,)), target)


ROWS = """
kernel @k(%x: f32[65536] in, %y: f32[65536] out) {
  parallel %g = 0 to 64 {
    for %i = 0 to 1024 step 16 {
      %a = load %x[%g*1024 + %i] : f32x8
      store %y[%g*1024 + %i], %a : f32x8
      store %y[%g*1024 + %i + 8], %a : f32x8
    }
  }
}
"""


def test_lines_must_be_whole_and_vectors_aligned() -> None:
    """Each change of the text takes away what the stores need."""
    assert len(_streams(_kernel(TARGETS["host"], ROWS))) == 2
    for before, after in (
        ("%g*1024 + %i]", "%g*1024 + %i + 4]"),  # both stores begin off a vector's start, or not side by side
        ("%g*1024 + %i", "%g*1020 + %i"),
        ("for %i = 0", "for %i = 4"),
        ("step 16", "step 24"),
        ("%y: f32[65536] out", "%y: f32[65536] inout"),
        ("%a = load %x", "%a = load %y"),
        ("%a : f32x8", "%a stride 2 : f32x8"),
    ):
        text = ROWS.replace(before, after)
        kept = {"step 24": 2, "%g*1024 + %i]": 1}.get(before, 0)  # lines are whole even where the loop leaves some out
        assert len(_streams(_kernel(TARGETS["host"], text))) <= kept, (before, after)
    assert not _streams(_kernel(TARGETS["host"], ROWS, start=32))
    half = ROWS.replace("      store %y[%g*1024 + %i + 8], %a : f32x8\n", "")
    assert not _streams(_kernel(TARGETS["host"], half))
    half = half.replace("step 16", "step 8")
    assert len(_streams(_kernel(TARGETS["host"], half))) == 1
    # Rows of a few lines and a half: half of a line waits until the next row, or for ever.
    short = half.replace("1024", "56")
    assert not _streams(_kernel(TARGETS["host"], short))
    assert len(_streams(_kernel(TARGETS["host"], short.replace("56", "64")))) == 1
    assert len(_streams(_kernel(TARGETS["host"], short.replace("56", "264")))) == 1  # a long row: that is little


def test_lines_are_written_past_the_caches_a_few_at_a_time() -> None:
    """Two rows may be written in turns, four rows are too many."""
    before, rest = ROWS.split("step 16 {\n")
    after = rest[rest.index("    }\n") :]
    for rows, stores in ((1, 2), (2, 4), (4, 0)):
        inside = ""
        for number, (half, row) in enumerate(product(range(2), range(rows))):
            place = f"[%g*{1024 * rows} + %i + {1024 * row + 8 * half}]"
            inside += f"      %a{number} = load %x{place} : f32x8\n      store %y{place}, %a{number} : f32x8\n"
        text = f"{before.replace('to 64', f'to {64 // rows}')}step 16 {{\n{inside}{after}"
        assert len(_streams(_kernel(TARGETS["host"], text))) == stores


def test_what_is_stored_past_the_caches_in_part_is_not() -> None:
    more = "store %y[%g*1024 + %i + 4], %a : f32x8\n"
    end = "      store %y[%g*1024 + %i + 8], %a : f32x8\n"
    third = ROWS.replace(end, f"{end}      {more}")
    assert not _streams(_kernel(TARGETS["host"], third))
    once = ROWS.replace("    for", "    %b = load %x[0] : f32x8\n    store %y[%g*1024 + 4], %b : f32x8\n    for")
    assert len(_streams(_kernel(TARGETS["host"], once))) == 2


IMAGES = """
kernel @k(%x: f32[186368] in, %y: f32[186368] out) {
  parallel %g = 0 to 2 {
    %lanes = lanes : i64x8
    %four = const 4 : i64x8
    %end = const 48 : i64
    %width = const 52 : i64
    %some = lt %lanes, %four : boolx8
    for %c = 0 to 32 step 1 {
      for %i = 0 to 56 step 4 {
        %row = mul %i, %width : i64
        for %j = 0 to 48 step 8 {
          %a = load %x[%g*93184 + %c*2912 + %row + %j] : f32x8
          ROWS %y[%g*93184 + %c*2912 + %row + %j + ROW], %a : f32x8
        }
        %b = load %x[%g*93184 + %c*2912 + %row + %end] mask %some : f32x8
        ROWS %y[%g*93184 + %c*2912 + %row + %end + ROW], %b mask %some : f32x8
      }
    }
  }
}
"""


def _images(rows: int = 4, distance: int = 52) -> str:
    """Some rows of images are stored in turns; their last four elements apart from the others."""
    lines: list[str] = []
    for line in IMAGES.splitlines():
        numbers = range(rows) if "ROWS" in line else range(1)
        lines += [line.replace("ROWS", "store").replace("ROW]", f"{k * distance}]") for k in numbers]
    return "\n".join(lines)


def test_what_is_put_together_is_known_to_be_whole() -> None:
    """Each change of the text leaves lines that are not stored whole, or nobody knows whether they are."""
    kernel = _kernel(AVX2_SMALL, _images())
    assert [o.size for o in kernel.own] == [2912]  # an image for each round of the loop over %c
    assert len(_streams(kernel)) == 2
    verify_kernel(kernel)
    for before, after in (
        ("%i = 0 to 56", "%i = 0 to %g"),
        ("%i = 0 to 56 step 4", "%i = 0 to 56 step 8"),
        ("%j = 0", "%j = 8"),
        ("const 4 :", "const 3 :"),
        ("const 48 :", "const 47 :"),
        ("%c*2912 + %row + %j + 52]", "%c*2911 + %row + %j + 52]"),
        ("%row + %j + 52]", "%row + %j + 53]"),
        ("%y[%g*93184 + %c*2912 + %row + %j + 52]", "%y[%c*2912 + %row + %j + 52]"),
        ("%a : f32x8", "%a stride 2 : f32x8"),
        ("%some = lt", "%some = le"),
        ("lt %lanes, %four", "lt %four, %lanes"),
        ("%b = load %x", "%b = load %y"),
    ):
        assert before in _images()
        changed = _kernel(AVX2_SMALL, _images().replace(before, after))
        assert not changed.own, (before, after)
        assert not _streams(changed), (before, after)
    assert not _kernel(AVX2_SMALL, _images().replace("93184", "93183")).own
    assert not _kernel(AVX2_SMALL, _images(), start=32).own
    assert not _kernel(replace(AVX2_SMALL, l3_bytes=1 << 28), _images()).own
    one_by_one = _images(1).replace("56 step 4", "56 step 1")
    assert not _kernel(AVX2_SMALL, one_by_one).own  # the machine foresees it


def test_code_of_such_stores() -> None:
    """On x86 an instruction of their own, and all are in memory before the kernel returns."""
    kernel = _kernel(TARGETS["host"], ROWS)
    for target, instruction in ((SSE2, "movntps"), (AVX2, "vmovntps"), (AVX512, "vmovntps")):
        text = emit_kernel(kernel, target)
        assert text.index("fence seq_cst") < text.index("ret void")
        assert instruction in build_assembly(text, target)
    arm = replace(SSE2, triple="aarch64-unknown-linux-gnu", cpu="generic", features="+neon", registers=32)
    assert "stnp" in build_assembly(emit_kernel(kernel, arm), arm)
    assert "fence" not in emit_kernel(parse_kernel(ROWS), AVX2)


def test_the_verifier_wants_whole_vectors() -> None:
    verify_kernel(parse_kernel(ROWS.replace("%a : f32x8", "%a streams : f32x8")))
    for before, after in (("out)", "inout)"), ("%a streams", "%a stride 2 streams")):
        text = ROWS.replace("%a : f32x8", "%a streams : f32x8").replace(before, after)
        with pytest.raises(VerifyError, match="only whole vectors"):
            verify_kernel(parse_kernel(text))
