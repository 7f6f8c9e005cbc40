"""Loops, carried values and conditions in native code; the machine code of a register tile; the host's facts."""

from __future__ import annotations

import re

import numpy as np
import pytest

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import INDEX, Affine, For, If, Kernel, Load, Param, Store, Value, VType
from graphc.codegen.llvm.build import build_assembly
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.llvm.host import host_features, host_target, machine
from graphc.ir.types import f32, i64
from graphc.options import TARGET
from tests.codegen.native import build, param, run

S, V = VType(f32), VType(f32, 8)


def sum_loop(e: Emitter, lo: int | Value, hi: int | Value, step: int, source: Param, type: VType = S) -> Value:
    """Sum of `source[i]` (vectors: 8 elements at 8 * i) for i from `lo` to `hi`, starting at 100."""
    init = e.const(100.0, type)
    i, phi, result = Value(INDEX, "i"), Value(type, "acc"), Value(type, "sum")
    inner = Emitter()
    value = Value(type)
    inner.body.append(Load(value, source, Affine(0, ((i, type.lanes),))))
    new = inner.op("add", phi, value)
    e.body.append(For(i, lo, hi, step, tuple(inner.body), (phi,), (init,), (new,), (result,)))
    return result


@pytest.mark.parametrize("type", (S, V), ids=str)
@pytest.mark.parametrize(
    ("lo", "hi", "step"), [(0, 0, 1), (3, 1, 1), (0, 1, 1), (2, 3, 5), (0, 9, 1), (1, 10, 3), (0, 9, 4)]
)
@pytest.mark.parametrize("bounds", ("numbers", "constants", "values"))
def test_trip_counts(lo: int, hi: int, step: int, bounds: str, type: VType) -> None:
    source = np.arange(10 * type.lanes, dtype=np.float32)
    limits = np.array([lo, hi], np.int64)
    output = np.zeros(type.lanes, np.float32)
    arrays = [source, limits, output]
    params = [param(n, a, m) for n, a, m in zip("xby", arrays, ("in", "in", "out"), strict=True)]

    def write(e: Emitter, g: Value) -> None:
        first, last = lo, hi
        if bounds == "constants":
            first, last = e.const(lo, INDEX), e.const(hi, INDEX)
        elif bounds == "values":
            first, last = Value(INDEX), Value(INDEX)
            e.body.extend([Load(first, params[1], Affine(0)), Load(last, params[1], Affine(1))])
        e.body.append(Store(params[2], Affine(), sum_loop(e, first, last, step, params[0], type)))

    run(build(params, 1, write), arrays)
    rows = source.reshape(10, type.lanes)
    assert (output == 100 + sum((rows[i] for i in range(lo, hi, step)), np.zeros(type.lanes, np.float32))).all()


def test_nested_loops_with_carried_values_and_a_swap() -> None:
    """Fibonacci numbers: the yields exchange the carried values, the inner loop starts from the outer one's."""
    output = np.zeros((5, 2), np.int64)
    params = [param("y", output, "out")]

    def write(e: Emitter, g: Value) -> None:
        zero, one = e.const(0, INDEX), e.const(1, INDEX)
        a, b, c, d = (Value(INDEX, n) for n in "abcd")
        i, j = Value(INDEX, "i"), Value(INDEX, "j")
        inner, outer = Emitter(), Emitter()
        total = inner.op("add", c, d)
        p, q = Value(INDEX), Value(INDEX)
        outer.body.append(For(j, i, 4, 1, tuple(inner.body), (c, d), (a, b), (d, total), (p, q)))
        x, y = Value(INDEX), Value(INDEX)
        e.body.append(For(i, 0, g, 1, tuple(outer.body), (a, b), (zero, one), (p, q), (x, y)))
        e.body.append(Store(params[0], Affine(0, ((g, 2),)), x))
        e.body.append(Store(params[0], Affine(1, ((g, 2),)), y))

    run(build(params, 5, write), [output])
    for g in range(5):
        a, b = 0, 1
        for i in range(g):
            for _ in range(i, 4):
                a, b = b, a + b
        assert list(output[g]) == [a, b]


def test_yield_of_an_outer_value_and_of_another_phi() -> None:
    output = np.zeros(3, np.float32)
    params = [param("y", output, "out")]

    def write(e: Emitter, g: Value) -> None:
        one, two = e.const(1.0, S), e.const(2.0, S)
        outer = e.op("add", one, two)
        phis = [Value(S) for _ in range(3)]
        results = [Value(S) for _ in range(3)]
        e.body.append(
            For(Value(INDEX), 0, 2, 1, (), tuple(phis), (one, two, one), (phis[1], outer, phis[0]), tuple(results))
        )
        for i, result in enumerate(results):
            e.body.append(Store(params[0], Affine(i), result))

    run(build(params, 1, write), [output])
    assert (output == [3.0, 3.0, 2.0]).all()


def test_if_inside_loops_and_addresses_shared_across_it() -> None:
    source, output = np.arange(40, dtype=np.float32), np.zeros(40, np.float32)
    params = [param("x", source, "in"), param("y", output, "out")]

    def write(e: Emitter, g: Value) -> None:
        i = Value(INDEX, "i")
        index = Affine(0, ((g, 10), (i, 1)))
        loop, then, inner = Emitter(), Emitter(), Emitter()
        value, again, last = Value(S), Value(S), Value(S)
        then.body.append(Load(value, params[0], index))
        inner.body.extend([Load(last, params[0], Affine(0, ((g, 10),)))])
        inner.body.append(Store(params[1], index, inner.op("add", last, 1000.0)))
        then.body.append(Store(params[1], index, then.op("mul", value, 2.0)))
        then.body.append(If(then.op("gt", value, 30.0), tuple(inner.body)))
        even = loop.op("eq", loop.op("mod", i, 2), 0)
        loop.body.append(If(even, tuple(then.body)))
        loop.body.append(Load(again, params[0], index))
        loop.body.append(If(loop.op("not", even), (Store(params[1], index, loop.op("neg", again)),)))
        e.body.append(For(i, 0, 10, 1, tuple(loop.body)))

    run(build(params, 4, write), [source, output])
    expected = np.where(np.arange(40) % 2 == 0, source * 2, -source)
    expected[32::2] = 1030.0
    assert (output == expected).all()


def test_a_part_of_the_range() -> None:
    output = np.zeros(10, np.int64)
    params = [param("y", output, "out")]
    kernel = build(params, 10, lambda e, g: e.body.append(Store(params[0], Affine(0, ((g, 1),)), e.op("add", g, 1))))
    run(kernel, [output], span=(3, 3))
    assert not output.any()
    run(kernel, [output], span=(3, 6))
    assert list(output) == [0, 0, 0, 4, 5, 6, 0, 0, 0, 0]


def register_tile(rows: int, columns: int, lanes: int, depth: int) -> Kernel:
    """out[rows, columns * lanes] = a[rows, depth] @ b[depth, columns * lanes], all sums in registers."""
    type, width = VType(f32, lanes), columns * lanes
    a, b = Param("a", f32, 8 * rows * depth, "in"), Param("b", f32, depth * width, "in")
    out = Param("out", f32, 8 * rows * width, "out")
    g, k, e, inner = Value(INDEX, "g"), Value(INDEX, "k"), Emitter(), Emitter()
    zero = e.const(0.0, type)
    phis = [Value(type, "acc") for _ in range(rows * columns)]
    results = [Value(type) for _ in phis]
    vectors = [Value(type) for _ in range(columns)]
    inner.body.extend([Load(v, b, Affine(j * lanes, ((k, width),))) for j, v in enumerate(vectors)])
    yields = []
    for i in range(rows):
        scalar = Value(S)
        inner.body.append(Load(scalar, a, Affine(i * depth, ((g, rows * depth), (k, 1)))))
        spread = inner.splat(scalar, lanes)
        yields += [inner.op("fma", spread, v, phis[i * columns + j]) for j, v in enumerate(vectors)]
    inits = (zero,) * len(phis)
    e.body.append(For(k, 0, depth, 1, tuple(inner.body), tuple(phis), inits, tuple(yields), tuple(results)))
    for n, result in enumerate(results):
        i, j = divmod(n, columns)
        e.body.append(Store(out, Affine(i * width + j * lanes, ((g, rows * width),)), result))
    return Kernel("tile", (a, b, out), 8, g, tuple(e.body))


@pytest.mark.skipif(
    host_target().vector_bytes < 32 or not host_target().triple.startswith("x86_64"), reason="no wide vectors"
)
def test_a_register_tile_stays_in_registers() -> None:
    target = host_target()
    lanes = target.lanes(4)
    kernel = register_tile(4, 3, lanes, 32)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((32, 32)).astype(np.float32), rng.standard_normal((32, 3 * lanes)).astype(np.float32)
    out = np.zeros((32, 3 * lanes), np.float32)
    run(kernel, [a, b, out])
    np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-4)
    assembly = build_assembly(emit_kernel(kernel, target), target)
    assert assembly.count("vfmadd") == 12
    assert len(re.findall(r"vbroadcastss\s+-?\d*\(", assembly)) + assembly.count("{1to") >= 4
    assert "(%rsp)" not in assembly and "(%rbp)" not in assembly


def test_host_facts() -> None:
    target = host_target()
    assert target is host_target()
    assert target is machine() or target.cpu == TARGET.get()
    assert target.vector_bytes in (16, 32, 64) and target.registers in (16, 32)
    assert target.l1_bytes >= 8 << 10 and target.l2_bytes >= target.l1_bytes and target.cores >= 1
    features = target.features.split(",")
    assert features == sorted(features)
    assert all(f[0] in "+-" for f in features)
    assert host_features() == {f[1:] for f in machine().features.split(",") if f[0] == "+"}
    assert host_features() >= {f[1:] for f in features if f[0] == "+"}


def test_index_values_may_be_negative() -> None:
    source, output = np.arange(12, dtype=np.int64), np.zeros(12, np.int64)
    params = [param("x", source, "in"), param("y", output, "out")]

    def write(e: Emitter, g: Value) -> None:
        i, value = Value(INDEX, "i"), Value(VType(i64))
        body = (
            Load(value, params[0], Affine(6, ((i, -1), (g, 6)))),
            Store(params[1], Affine(6, ((i, 1), (g, 6))), value),
        )
        e.body.append(For(i, -5, 1, 1, body))

    source = np.arange(24, dtype=np.int64)
    params[0] = param("x", source, "in")
    run(build(params, 1, write), [source, output])
    assert (output[1:7] == np.arange(11, 5, -1)).all()
