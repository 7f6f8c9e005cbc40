"""Rows that are picked by an index are asked for before they are read."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen import prefetch
from graphc.codegen.kernel_text import print_kernel
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, bf16, f32, i32, i64
from graphc.pipeline import build_program
from tests.codegen.programs import run
from tests.codegen.targets import AVX2, runnable

TARGETS = runnable()


def _rows(
    table: tuple[int, ...], places: tuple[int, ...], axis: int = 0, dtype: object = f32, kind: object = i64
) -> Graph:
    b = Builder()
    x = b.input(0, TensorType(dtype, table))  # type: ignore[arg-type]
    index = b.input(1, TensorType(kind, places))  # type: ignore[arg-type]
    return Graph((x, index), (b.apply("gather", (x, index), {"axis": axis}),))


def _texts(graph: Graph) -> str:
    return "".join(print_kernel(k) for k in build_program(graph, frozenset(), AVX2).kernels)


def test_each_line_is_asked_for_once() -> None:
    """Rows of 1 KB four places early, of 256 bytes sixteen; two lines for each tile of four vectors."""
    text = _texts(_rows((4096, 256), (500,)))
    assert text.count("prefetch") == 2 and "const 4 : i64" in text and "const 499 : i64" in text
    text = _texts(_rows((16384, 64), (500,)))
    assert text.count("prefetch") == 2 and "const 16 : i64" in text


def test_what_is_near_or_read_in_order_is_not() -> None:
    small = _rows((100, 256), (500,))  # the table stays in a cache
    short = _rows((1 << 20, 8), (500,))  # less than a line
    across = _rows((64, 16384), (500,), axis=1)  # an index for each lane
    b = Builder()
    x = b.input(0, TensorType(f32, (4096, 256)))
    plain = Graph((x,), (b.add(x, x),))
    assert "prefetch" not in "".join(map(_texts, (small, short, across, plain)))


@pytest.mark.parametrize("name", TARGETS)
def test_rows_are_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the last ones, those of an index out of range, and with several axes before, after and in the index."""
    monkeypatch.setattr(prefetch, "STREAMED", 0)
    rng = np.random.default_rng(0)
    for graph in (
        _rows((50, 64), (70,)),
        _rows((50, 64), (3,), kind=i32),
        _rows((50, 77), (7, 9)),
        _rows((5, 50, 4, 40), (6, 2), axis=1),
        _rows((50, 256), (33,), dtype=bf16),
    ):
        x, index = graph.inputs
        table = rng.standard_normal(x.shape).astype(x.dtype.numpy)
        places = rng.integers(-3, 55, index.shape).astype(index.dtype.numpy)
        (found,) = run(graph, [table, places], TARGETS[name])
        np.testing.assert_array_equal(found, evaluate(graph, [table, places])[0])
