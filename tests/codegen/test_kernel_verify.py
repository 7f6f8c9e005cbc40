"""The kernel verifier accepts what the text tests and native tests run, and refuses each of these corruptions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc.codegen.kernel import INDEX, Affine, Kernel, Load, Op, Param, Prefetch, Store, Value, VType
from graphc.codegen.kernel_parser import parse_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.errors import VerifyError
from graphc.ir.types import f32

GOOD = """\
kernel @k(%x: f32[64] in, %y: f32[64] out, %h: f16[64] in, %n: i32[8] in, %m: bool[4] in) {
  parallel %g = 0 to 4 {
    %zero = const 0.0 : f32x4
    %flag = load %m[%g] : bool
    for %i = 0 to 4 step 1 carry (%a = %zero : f32x4) {
      %v = load %x[%g*16 + %i*4] : f32x4
      %b = add %a, %v : f32x4
      %p = lt %b, %v : boolx4
      %c = select %p, %b, %v : f32x4
      store %y[%g*16 + %i*4], %c mask %p : f32x4
      yield %b
    } -> (%r: f32x4)
    %s = reduce_add %r : f32
    %e = extract %r, 1 : f32
    %d = mul %s, %e : f32
    %half = load %h[%g] : f16
    %wide = cast %half : f32
    %t = load %n[%g] : i32
    %u = bitcast %t : f32
    %l = lookup %t, [1.0, -0.5] : f32
    %o = lanes : i64x4
    %w = load %x[%g] offsets %o : f32x4
    %three = const 3 : i64
    %q = mod %g, %three : i64
    if %flag {
      store %y[%g*16], %d : f32
      store %y[%q], %w stride 16 : f32x4
    }
  }
}
"""

CORRUPTIONS = [
    ("%b = add %a, %v : f32x4", "%b = add %a, %v : f32x8", "the result of add is f32x4, not f32x8"),
    ("%d = mul %s, %e : f32", "%d = mul %s, %r : f32", "the operands of mul have types f32, f32x4"),
    ("%d = mul %s, %e : f32", "%d = and %s, %e : f32", "and is not defined for f32"),
    ("%d = mul %s, %e : f32", "%d = mul %s : f32", "mul takes 2 operands, not 1"),
    ("%d = mul %s, %e : f32", "%d = mul %s, %e, 2 : f32", "mul takes no number"),
    ("%e = extract %r, 1 : f32", "%e = extract %r, 4 : f32", "there is no lane 4 in f32x4"),
    ("%e = extract %r, 1 : f32", "%e = extract %r, 3 : f32x2", "there are no 2 lanes from 3 in f32x4"),
    ("%e = extract %r, 1 : f32", "%e = extract %r : f32", "extract needs a number"),
    ("%wide = cast %half : f32", "%wide = neg %half : f16\n    %w2 = add %half, %half : f16", "cast to f32 first"),
    ("%wide = cast %half : f32", "%wide = cast %half : f32x4", "the result of cast is f32"),
    ("%u = bitcast %t : f32", "%u = bitcast %t : f64", "bitcast keeps lanes and size"),
    ("%l = lookup %t, [1.0, -0.5] : f32", "%l = lookup %t, [1.0, 2.0, 3.0] : f32", "a power of two says, not 3"),
    ("%l = lookup %t, [1.0, -0.5] : f32", "%l = lookup %t, [1.0, 2.0] : f64", "lookup takes i32 to f32 or i64 to f64"),
    ("%l = lookup %t, [1.0, -0.5] : f32", "%l = lookup %t : f32", "lookup needs a table"),
    ("%l = lookup %t, [1.0, -0.5] : f32", "%l = lookup %t, [1.0, -0.5] : f32x4", "the result of lookup is f32"),
    ("%l = lookup %t, [1.0, -0.5] : f32", "%l = neg %t, [1.0, -0.5] : f32", "neg takes no table"),
    ("%p = lt %b, %v : boolx4", "%p = lt %b, %v : f32x4", "the result of lt is boolx4"),
    ("%c = select %p, %b, %v", "%c = select %b, %b, %v", "select takes (boolxN, T, T)"),
    ("%c mask %p : f32x4", "%c mask %b : f32x4", "the mask has type f32x4, not boolx4"),
    ("%c mask %p : f32x4", "%c mask %flag : f32x4", "the mask has type bool, not boolx4"),
    ("store %y[%g*16 + %i*4], %c", "store %x[%g*16 + %i*4], %c", "a store to buffer x, which may only be read"),
    ("load %x[%g*16 + %i*4] : f32x4", "load %x[%g*16 + %i*4] stride 0 : f32x4", "stride 0"),
    (
        "load %x[%g*16 + %i*4] : f32x4",
        "load %x[%g*16 + %i*4 + 1] : f32x4",
        "elements 13 to 16|elements .* to 64 of buffer x",
    ),
    ("load %x[%g*16 + %i*4] : f32x4", "load %x[%g*16 + %i*4 - 1] : f32x4", "elements -1 to"),
    ("load %x[%g*16 + %i*4] : f32x4", "load %x[%g*16 + %i*4] stride 2 : f32x4", "to 66 of buffer x"),
    ("load %x[%g*16 + %i*4] : f32x4", "load %h[%g*16 + %i*4] : f32x4", "buffer h holds f16"),
    ("offsets %o", "stride 2 offsets %o", "not both"),
    ("%o = lanes : i64x4", "%o = lanes : i32x4", "the offsets has type i32x4"),
    ("%o = lanes : i64x4", "%o = lanes : f32x4", "lane numbers are integers"),
    ("%half = load %h[%g]", "%half = load %h[%t2]", "an index has type i32, not i64"),
    ("yield %b", "yield %p", "a yielded value has type boolx4, not f32x4"),
    ("-> (%r: f32x4)", "-> (%r: f32x8)", "a loop result has type f32x8"),
    ("carry (%a = %zero : f32x4)", "carry (%a = %flag : f32x4)", "an initial value has type bool"),
    ("for %i = 0 to 4 step 1", "for %i = 0 to 4 step 0", "a loop step is at least 1"),
    ("for %i = 0 to 4 step 1", "for %i = 0 to %flag step 1", "a loop bound has type bool"),
    ("if %flag {", "if %t {", "the condition has type i32"),
    ("%three = const 3 : i64", "%three = const 3.5 : i64", "3.5 is not a constant of i64"),
    ("%three = const 3 : i64", "%three = const true : i64", "True is not a constant of i64"),
    ("%q = mod %g, %three : i64", "%q = mod %t, %t : i32", "an operand of mod has type i32"),
    ("%s = reduce_add %r : f32", "%s = reduce_or %r : f32", "reduce_or is not defined for f32"),
    ("%d = mul %s, %e : f32", "%d = zip_low %s, %e : f32", "zip_low does not cut f32 into equal parts"),
    (
        "%b = add %a, %v : f32x4",
        "%b = even_segments %a, %v : f32x4",
        "even_segments does not cut f32x4 into equal parts",
    ),
    ("%b = add %a, %v : f32x4", "%b = splice %a, %v : f32x4", "splice needs a number"),
    ("%b = add %a, %v : f32x4", "%b = splice %a, %v, 5 : f32x4", "4 begin at number 0 to 4, not 5"),
    ("%u = bitcast %t : f32", "%u = unpack_high %t, %t : i32", "unpack_high does not cut i32 into equal parts"),
    ("%zero = const 0.0 : f32x4", "%zero = const 0.0 : f32x4\n    %sp = splat %zero : f32x8", "splat takes a scalar"),
]


def test_the_good_kernel_is_good() -> None:
    verify_kernel(parse_kernel(GOOD))


@pytest.mark.parametrize(("good", "bad", "message"), CORRUPTIONS, ids=range(len(CORRUPTIONS)))
def test_corruptions_are_refused(good: str, bad: str, message: str) -> None:
    text = GOOD.replace(good, bad, 1)
    assert text != GOOD
    if "%t2" in bad:
        text = text.replace("    %half =", "    %t2 = load %n[%g] : i32\n    %half =")
    kernel = parse_kernel(text)
    with pytest.raises(VerifyError) as caught:
        verify_kernel(kernel)
    first, *excerpt = str(caught.value).split("\n")
    assert any(part in first or part.split(" .* ")[-1] in first for part in message.split("|")), first
    assert first.startswith("kernel @k:")
    line = int(first.split(":")[1])
    guilty = next(row for row in excerpt if row.startswith(">"))
    assert guilty[1:].strip().startswith(str(line))


def kernel_of(*body: Op | Load | Store, params: tuple[Param, ...] = (), grid: int = 1) -> Kernel:
    return Kernel("k", params, grid, Value(INDEX), body)


def test_structures_that_text_cannot_express() -> None:
    scalar = VType(f32)
    undefined, twice = Value(scalar, "u"), Value(scalar, "t")
    with pytest.raises(VerifyError, match="operand 1 is used before its definition"):
        verify_kernel(kernel_of(Op(Value(scalar), "neg", (undefined,))))
    with pytest.raises(VerifyError, match="a value named 't' is defined twice"):
        verify_kernel(kernel_of(Op(twice, "const", (), 1.0), Op(twice, "const", (), 2.0)))
    with pytest.raises(VerifyError, match="no operation is named 'sinh'"):
        verify_kernel(kernel_of(Op(Value(scalar), "sinh", ())))
    with pytest.raises(VerifyError, match="not a statement"):
        verify_kernel(kernel_of("nonsense"))  # type: ignore[arg-type]
    with pytest.raises(VerifyError, match="buffer r of the kernel's own has mode 'out'"):
        verify_kernel(replace(kernel_of(), own=(Param("r", f32, 4, "out"),)))
    with pytest.raises(VerifyError, match="r is not a buffer of this kernel"):
        verify_kernel(kernel_of(Prefetch(Param("r", f32, 4, "in"), Affine())))  # type: ignore[arg-type]
    stranger = Param("z", f32, 4, "in")
    kernel = parse_kernel(GOOD)
    load = Load(Value(scalar), stranger, kernel.body[1].index)  # type: ignore[union-attr]
    with pytest.raises(VerifyError, match="z is not a buffer of this kernel"):
        verify_kernel(replace(kernel, body=(load,)))
    for changed, message in [
        (replace(kernel, name="a b"), "cannot name a function"),
        (replace(kernel, grid=-1), "-1 places"),
        (replace(kernel, index=Value(scalar)), "the parallel index has type f32"),
        (replace(kernel, params=(*kernel.params, kernel.params[0])), "listed twice"),
        (replace(kernel, params=(Param("q", f32, 1, "io"),)), "modes are in, out and inout"),
        (replace(kernel, params=(Param("q", f32, -1, "in"),)), "-1 elements"),
    ]:
        with pytest.raises(VerifyError, match=message):
            verify_kernel(changed)


def test_values_do_not_leave_their_block() -> None:
    kernel = parse_kernel(GOOD)
    loop = kernel.body[2]
    inner = loop.body[1].result  # type: ignore[union-attr]
    leaked = Op(Value(VType(f32, 4)), "neg", (inner,))
    with pytest.raises(VerifyError, match="outside the block that defines it"):
        verify_kernel(replace(kernel, body=(*kernel.body, leaked)))


@pytest.mark.parametrize(
    ("access", "message"),
    [
        ("%v = load %x[%r*8 + %q] : f32", ""),
        ("%v = load %x[%r*8 + %q + 1] : f32", "elements 64 to 64"),
        ("%v = load %x[%r*8 + %q] : f32x2", "elements 63 to 64"),
        ("%v = load %x[-%g + 62] : f32", "elements -1 to -1"),
        ("%v = load %x[%g + 1] mask %b : f32", ""),
        ("if %b { %v = load %x[%g + 1] : f32 }", ""),
        ("if %sure { %v = load %x[%g + 1] : f32 }", "elements 64 to 64"),
        ("for %i = 0 to 0 step 1 { %v = load %x[%i + 100] : f32 }", ""),
        ("for %i = 0 to 8 step 3 { %v = load %x[%i*9] : f32 }", ""),
        ("for %i = 0 to 9 step 3 { %v = load %x[%i*11] : f32 }", "elements 0 to 66"),
        ("for %i = %g to %last step 1 { %v = load %x[%i] : f32 }", "to 69"),
    ],
)
def test_accesses_that_certainly_leave_the_buffer(access: str, message: str) -> None:
    text = f"""
    kernel @k(%x: f32[64] in, %m: bool[1] in) {{
      parallel %g = 0 to 64 {{
        %c8 = const 8 : i64
        %last = const 70 : i64
        %q = mod %g, %c8 : i64
        %r = floordiv %g, %c8 : i64
        %b = load %m[0] : bool
        %sure = lt %g, %last : bool
        {access}
      }}
    }}"""
    if not message:
        verify_kernel(parse_kernel(text))
        return
    with pytest.raises(VerifyError, match=message):
        verify_kernel(parse_kernel(text))
