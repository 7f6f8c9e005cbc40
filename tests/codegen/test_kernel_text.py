"""The text of kernels: round trips, and errors that say where."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import INDEX, Affine, For, If, Kernel, Load, Op, Param, Store, Value, VType
from graphc.codegen.kernel_parser import parse_kernel
from graphc.codegen.kernel_text import format_number, print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.errors import IRSyntaxError
from graphc.ir.types import DTYPES, boolean, f32, i64
from tests.codegen.native import run

CONV = """\
kernel @conv2(%x: f32[1575] in, %w: f32[54] in, %out: f32[3840] out) flops 414720 bytes 9000 {
  parallel %g = 0 to 240 {
    %c60 = const 60 : i64
    %i = floordiv %g, %c60 : i64
    %z = const 0.0 : f32x16
    for %c = 0 to 6 step 1 carry (%a0 = %z : f32x16, %a1 = %z : f32x16) {
      %v = load %x[%c*225 + %i*15 + 3] : f32x16
      %s = load %w[%c*9] : f32
      %t = splat %s : f32x16
      %r = fma %t, %v, %a0 : f32x16
      %p = lt %r, %a1 : boolx16
      if %q {
        store %out[%g*16], %a0 mask %p : f32x16
      }
      yield %r, %a0
    } -> (%r0: f32x16, %r1: f32x16)
    store %out[-%g*16 + %i - 3], %r0 stride -1 : f32x16
    for %j = %i to %g step 2 {
      %o = lanes : i64x16
      %u = load %x[%j] stride 0 offsets %o : f32x16
      %e = extract %u, 3 : f32
      store %out[%j], %e : f32
    }
  }
}
""".replace("      if %q {", "      %q = reduce_or %p : bool\n      if %q {")


def test_the_example_reads_back_exactly() -> None:
    kernel = parse_kernel(CONV)
    assert print_kernel(kernel) == CONV
    assert (kernel.name, kernel.grid, kernel.flops, kernel.bytes) == ("conv2", 240, 414720, 9000)
    assert [str(p.dtype) + p.mode for p in kernel.params] == ["f32in", "f32in", "f32out"]
    loop = kernel.body[3]
    assert isinstance(loop, For) and loop.step == 1 and len(loop.phis) == 2
    load = loop.body[0]
    assert isinstance(load, Load)
    assert load.index == Affine(3, ((loop.var, 225), (kernel.body[1].result, 15)))


def test_text_that_runs() -> None:
    text = """
    kernel @twice(%x: f32[8] in, %y: f32[8] out) { // a comment
      parallel %g = 0 to 2 {
        %v = load %x[%g*4] : f32x4
        %two = const 2 : f32x4
        %w = mul %v, %two : f32x4
        store %y[%g*4], %w : f32x4
      }
    }"""
    x, y = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    run(parse_kernel(text), [x, y])
    assert (y == x * 2).all()


def test_memory_of_its_own_and_lines_asked_for_in_advance() -> None:
    """The line may lie behind the end of its buffer."""
    text = """\
kernel @turned(%x: f32[8] in, %y: f32[8] out) {
  own %row: f32[8]
  own %other: i32[3]
  parallel %g = 0 to 2 {
    prefetch %x[%g*4 + 1000000]
    %v = load %x[%g*4] : f32x4
    store %row[3], %v stride -1 : f32x4
    %w = load %row[0] : f32x4
    store %y[%g*4], %w : f32x4
  }
}
"""
    kernel = parse_kernel(text)
    verify_kernel(kernel)
    assert print_kernel(kernel) == text
    x, y = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    run(kernel, [x, y])
    assert y.tolist() == [3, 2, 1, 0, 7, 6, 5, 4]


def test_fences_change_no_result() -> None:
    text = """\
kernel @added(%x: f32[8] in, %y: f32[8] out) {
  parallel %g = 0 to 2 {
    %v = load %x[%g*4] : f32x4
    fence
    %w = load %x[%g*4] : f32x4
    %1 = add %v, %w : f32x4
    fence
    store %y[%g*4], %1 : f32x4
  }
}
"""
    kernel = parse_kernel(text)
    verify_kernel(kernel)
    assert print_kernel(kernel) == text
    x, y = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    run(kernel, [x, y])
    assert (y == 2 * x).all()


def test_names_are_hints_made_unique() -> None:
    a, b, c, d = Value(INDEX, "x"), Value(INDEX, "x"), Value(INDEX), Value(INDEX, "a b%")
    body = (*(Op(v, "const", (), i) for i, v in enumerate((a, b, c, d))), Op(Value(INDEX, "1"), "add", (a, b)))
    text = print_kernel(Kernel("k", (Param("x", f32, 1, "in"),), 1, Value(INDEX, "x"), body))
    assert re.findall(r"(%\w+) =", text) == ["%x_1", "%x_2", "%x_3", "%1", "%a_b_", "%1_1"]
    assert print_kernel(parse_kernel(text)) == text


@pytest.mark.parametrize(
    "value", [True, False, 0, -5, 2**63 - 1, 0.0, -0.0, 0.1, -1e-40, 1e22, 1e300, float("inf"), -float("inf")]
)
def test_numbers_are_exact(value: float) -> None:
    dtype = "bool" if isinstance(value, bool) else "f64"
    text = f"kernel @k() {{\n  parallel %g = 0 to 1 {{\n    %v = const {format_number(value)} : {dtype}\n  }}\n}}\n"
    kernel = parse_kernel(text)
    statement = kernel.body[0]
    assert isinstance(statement, Op)
    assert type(statement.attr) is type(value)
    assert repr(statement.attr) == repr(value)
    assert print_kernel(kernel) == text


def random_kernel(seed: int) -> Kernel:
    """A correct kernel made of random statements."""
    rng = random.Random(seed)
    params = tuple(Param(f"b{i}", d, 1 << 20, "inout") for i, d in enumerate(DTYPES))
    index = Value(INDEX, "g")

    def block(depth: int, known: list[Value], count: int) -> Emitter:
        e, known = Emitter(), list(known)
        for _ in range(count):
            indices = [v for v in known if v.type == INDEX]
            affine = Affine(
                rng.randrange(100), tuple((rng.choice(indices), rng.randrange(-9, 9)) for _ in range(rng.randrange(3)))
            )
            masks = [v for v in known if v.type.dtype is boolean and v.type.lanes == 1]
            choice = rng.randrange(8)
            if choice == 0:
                param = rng.choice(params)
                lanes = rng.choice((1, 4, 16))
                value = Value(VType(param.dtype, lanes), rng.choice(("", "v", "x")))
                fitting = [v for v in known if v.type == VType(boolean, lanes)]
                mask = rng.choice(fitting) if fitting and rng.random() < 0.5 else None
                e.body.append(
                    Load(value, param, Affine(affine.const + 1000, affine.terms), rng.choice((1, 2, -1)), None, mask)
                )
                known.append(value)
            elif choice == 1:
                stored = rng.choice(known)
                param = next(p for p in params if p.dtype is stored.type.dtype)
                e.body.append(Store(param, Affine(affine.const + 1000, affine.terms), stored, rng.choice((1, 3, -2))))
            elif choice == 2 and depth < 3:
                var, phi, result = Value(INDEX, "i"), Value(INDEX, "p"), Value(INDEX, "r")
                inner = block(depth + 1, [*known, var, phi], 4)
                new = inner.op("add", var, phi)
                bounds = rng.choice(indices), rng.randrange(9)
                e.body.append(
                    For(
                        var,
                        *bounds,
                        rng.randrange(1, 3),
                        tuple(inner.body),
                        (phi,),
                        (rng.choice(indices),),
                        (new,),
                        (result,),
                    )
                )
                known.append(result)
            elif choice == 3 and depth < 3 and masks:
                e.body.append(If(rng.choice(masks), tuple(block(depth + 1, known, 3).body)))
            elif choice == 4:
                known.append(e.op(rng.choice(("add", "mul", "maximum")), rng.choice(indices), rng.randrange(-5, 5)))
            elif choice == 5:
                value = rng.choice([v for v in known if v.type.dtype.bits > 16 or v.type.dtype is i64])
                known.append(e.op("cast", value, to=rng.choice(DTYPES)))
            elif choice == 6:
                known.append(e.op(rng.choice(("lt", "eq")), rng.choice(indices), 3))
            else:
                known.append(e.splat(rng.choice(indices), 4))
        return e

    return Kernel(f"r{seed}", params, 3, index, tuple(block(0, [index], 20).body), seed, seed * 2)


@pytest.mark.parametrize("seed", range(25))
def test_random_kernels_read_back(seed: int) -> None:
    kernel = random_kernel(seed)
    text = print_kernel(kernel)
    again = parse_kernel(text)
    assert print_kernel(again) == text
    verify_kernel(again)


ERRORS = [
    ("%z = const 0.0 : f32x16", "%z = const 0.0 f32x16", 5, 20, "expected `,`"),
    ("%z = const 0.0 : f32x16", "%z = konst 0.0 : f32x16", 5, 10, "no operation is named `konst`"),
    ("%t = splat %s", "%t = splat %nope", 9, 18, "%nope is not defined here"),
    ("%s = load %w[%c*9] : f32", "%s = load %ww[%c*9] : f32", 8, 17, "%ww is not a buffer; there are %x, %w, %out"),
    ("%s = load %w[%c*9] : f32", "%v = load %w[%c*9] : f32", 8, 7, "%v is defined twice"),
    ("%t = splat %s", "%t = splat %w", 9, 18, "%w is a buffer, not a value"),
    (": f32x16, %a1", ": f33x16, %a1", 6, 46, "expected a type such as f32"),
    ("yield %r, %a0", "yield %r", 6, 9, "the loop carries 2 values and yields 1"),
    ("store %out[%g*16], %a0 mask", "store %out[%g*16] %a0 mask", 14, 27, "expected `,`"),
    ("parallel %g = 0 to 240", "parallel %g = 1 to 240", 2, 17, "starts at 0"),
    ("%e = extract %u, 3 : f32", "%e = extract %u, [3, 4 : f32", 22, 30, "expected `]`"),
    ("%e = extract %u, 3 : f32", "%e = extract %r, 3 : f32", 22, 20, "%r is not defined here"),
    ("%i = floordiv", "%i ! floordiv", 4, 8, "unexpected character '!'"),
    ("step 2 {", "step 99999999999999999999999 {", 19, 28, "the integer is too long"),
]


@pytest.mark.parametrize(("good", "bad", "line", "column", "message"), ERRORS, ids=[e[4][:30] for e in ERRORS])
def test_errors_say_where(good: str, bad: str, line: int, column: int, message: str) -> None:
    assert CONV.count(good) >= 1
    with pytest.raises(IRSyntaxError) as caught:
        parse_kernel(CONV.replace(good, bad, 1), "file.kir")
    first, shown, caret = str(caught.value).split("\n")
    assert message in first
    assert first.startswith(f"file.kir:{line}:{column}: ")
    assert caret.index("^") == column + 1
    assert shown.strip()


def test_any_truncation_is_an_error_and_never_a_crash() -> None:
    for end in range(0, len(CONV) - 2, 3):
        with pytest.raises(IRSyntaxError):
            parse_kernel(CONV[:end])


def test_deep_nesting_is_refused() -> None:
    loops = "".join(f"for %i{n} = 0 to 1 step 1 {{ " for n in range(5000))
    with pytest.raises(IRSyntaxError, match="nested more than"):
        parse_kernel("kernel @k() { parallel %g = 0 to 1 { " + loops)
