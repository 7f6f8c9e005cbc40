"""Which values of f32 16 bits hold."""

from __future__ import annotations

import pytest

from graphc.ir.builder import Builder
from graphc.ir.narrow import factor_dtype, is_widening, narrow_dtype, widening_of
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, bf16, f16, f32, f64


def value(b: Builder, dtype: DType, number: int = 0) -> Node:
    return b.input(number, TensorType(dtype, (4, 6)))


def test_a_conversion_shows_through_what_moves_it() -> None:
    b = Builder()
    cast = b.cast(value(b, bf16), f32)
    for shown in (
        cast,
        b.permute(cast, (1, 0)),
        b.reshape(b.slice(cast, (1, 0), (2, 6), (1, 1)), (12,)),
        b.pad(b.broadcast(b.reshape(cast, (1, 4, 6)), (3, 4, 6)), (0, 1, 1), (0, 0, 2)),
        b.apply("materialize", (b.apply("detach", (cast,)),)),
    ):
        assert widening_of(shown) is cast and is_widening(cast)


@pytest.mark.parametrize("kind", ["computed", "ones around", "minus zeros around", "from f64", "to f64", "not at all"])
def test_what_else_may_have_more_bits(kind: str) -> None:
    b = Builder()
    cast = b.cast(value(b, bf16), f32)
    shown = {
        "computed": b.mul(cast, 0.1),
        "ones around": b.pad(cast, (1, 1), (0, 0), value=1.0),
        "minus zeros around": b.pad(cast, (1, 1), (0, 0), value=-0.0),
        "from f64": b.cast(value(b, f64, 1), f32),
        "to f64": b.cast(value(b, bf16), f64),
        "not at all": value(b, f32, 2),
    }[kind]
    assert widening_of(shown) is None


def test_both_factors_must_be_of_one_dtype() -> None:
    b = Builder()
    x, y, z = (b.cast(value(b, dtype, i), f32) for i, dtype in enumerate((bf16, bf16, f16)))
    plain = value(b, f32, 3)
    assert [narrow_dtype(v) for v in (x, z, plain)] == [bf16, f16, f32]
    for other, dtype in ((y, bf16), (z, f32), (plain, f32)):
        assert factor_dtype(b.contract(x, other, "a k, c k -> a c")) is dtype
    assert factor_dtype(b.contract(value(b, bf16), value(b, bf16, 1), "a k, c k -> a c")) is bf16
