"""What no store, loop or condition needs is left out of a kernel."""

from __future__ import annotations

from graphc.codegen.dead_code import without_dead
from graphc.codegen.kernel import INDEX, Affine, For, If, Kernel, Load, Op, Param, Store, Value, VType
from graphc.codegen.kernel_parser import parse_kernel
from graphc.codegen.kernel_text import print_kernel
from graphc.ir.types import f32
from graphc.pipeline import build_program
from tests.codegen.networks import lenet
from tests.codegen.targets import AVX512

_TEXT = """\
kernel @k(%p0: f32[64] in, %p1: f32[64] out) {
  parallel %g = 0 to 4 {
    %1 = const 2.0 : f32
    %2 = const 3.0 : f32
    %3 = load %p0[%g] stride 0 : f32
    %4 = load %p0[%g + 1] stride 0 : f32
    %5 = mul %3, %1 : f32
    %6 = add %4, %2 : f32
    for %i = 0 to 8 step 1 carry (%7 = %5 : f32) {
      %8 = load %p0[%i] stride 0 : f32
      %9 = mul %8, %8 : f32
      %10 = fma %8, %8, %7 : f32
      yield %10
    } -> (%11: f32)
    store %p1[%g], %11 stride 0 : f32
  }
}
"""


def test_unused_values_go_with_what_only_they_need() -> None:
    kernel = parse_kernel(_TEXT)
    body = without_dead(kernel.body)
    kept = [s for s in body if isinstance(s, Op | Load)]
    assert [s.name for s in kept if isinstance(s, Op)] == ["const", "mul"]
    assert sum(isinstance(s, Load) for s in kept) == 1
    (loop,) = (s for s in body if isinstance(s, For))
    assert [s.name for s in loop.body if isinstance(s, Op)] == ["fma"]
    assert any(isinstance(s, Store) for s in body)


def test_conditions_and_indices_are_uses() -> None:
    index, place, value, holds = Value(INDEX), Value(INDEX), Value(VType(f32)), Value(VType(f32))
    out = Param("p0", f32, 8, "out")
    body = (
        Op(place, "add", (index, index)),
        Op(value, "const", (), 1.0),
        Op(holds, "lt", (value, value)),
        If(holds, (Store(out, Affine(0, ((place, 1),)), value, 0),)),
    )
    assert without_dead(body) == body


def test_what_is_left_twice_is_the_same() -> None:
    for kernel in build_program(lenet(4), target=AVX512).kernels:
        again = without_dead(kernel.body)
        assert print_kernel(Kernel(kernel.name, kernel.params, kernel.grid, kernel.index, again, own=kernel.own)) == (
            print_kernel(Kernel(kernel.name, kernel.params, kernel.grid, kernel.index, kernel.body, own=kernel.own))
        )
