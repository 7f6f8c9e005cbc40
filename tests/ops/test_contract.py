"""Random contraction formulas: value and both gradients against sums written out."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from graphc.errors import ShapeError
from graphc.ir.builder import Builder
from graphc.ir.contraction import ContractSpec, Dim, format_spec, parse_spec
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, f64
from graphc.ir.verify import verify
from graphc.passes.autodiff import vjp

Shape = tuple[int, ...]


def random_formula(rng: random.Random) -> tuple[ContractSpec, Shape, Shape]:
    """A formula of up to five labels with shapes for it; sums of labels get a few columns more than they reach."""
    labels = "abcde"[: rng.randint(1, 5)]
    extents = {label: rng.randint(1, 3) for label in labels}

    def operand() -> tuple[tuple[Dim, ...], Shape]:
        left = [label for label in labels if rng.random() < 0.65]
        rng.shuffle(left)
        dims: list[Dim] = []
        while left:
            count = rng.choice([1, 1, 1, 2, 2, 3])
            taken, left = left[:count], left[count:]
            summed = len(taken) > 1 or rng.random() < 0.15
            dims.append(tuple((label, rng.choice([1, 1, 2, 3]) if summed else 1) for label in taken))
        sizes = (1 + sum(c * (extents[label] - 1) for label, c in dim) for dim in dims)
        plain = (len(dim) == 1 and dim[0][1] == 1 for dim in dims)
        return tuple(dims), tuple(n if p else n + rng.choice([0, 0, 1, 2]) for n, p in zip(sizes, plain, strict=True))

    (x, x_shape), (y, y_shape) = operand(), operand()
    used = sorted({label for dim in (*x, *y) for label, _ in dim})
    out = tuple(rng.sample(used, rng.randint(0, len(used))))
    return parse_spec(format_spec(x, y, out)), x_shape, y_shape


def written_out(spec: ContractSpec, x: np.ndarray, y: np.ndarray, ct: np.ndarray) -> list[np.ndarray]:
    extents = spec.extents(x.shape, y.shape)
    out, by_x, by_y = np.zeros(ct.shape), np.zeros(x.shape), np.zeros(y.shape)
    for values in itertools.product(*(range(extents[label]) for label in spec.labels)):
        at = dict(zip(spec.labels, values, strict=True))
        i, j = (tuple(sum(c * at[label] for label, c in dim) for dim in operand) for operand in spec.operands)
        o = tuple(at[label] for label in spec.out)
        out[o] += x[i] * y[j]
        by_x[i] += ct[o] * y[j]
        by_y[j] += ct[o] * x[i]
    return [out, by_x, by_y]


@pytest.mark.parametrize("seed", range(12))
def test_random_formulas(seed: int) -> None:
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    done = 0
    while done < 12:
        spec, x_shape, y_shape = random_formula(rng)
        try:
            extents = spec.extents(x_shape, y_shape)
        except ShapeError:
            continue  # two labels that nothing gives an extent, or a sum that got too long
        done += 1
        shapes = (x_shape, y_shape, tuple(extents[label] for label in spec.out))
        arrays = [numbers.normal(size=shape) for shape in shapes]
        b = Builder()
        x, y, ct = (b.input(i, TensorType(f64, shape)) for i, shape in enumerate(shapes))
        node = b.contract(x, y, spec.text)
        by_x, by_y = vjp(b, [node], [ct], [x, y])
        assert by_x is not None and by_y is not None
        graph = verify(Graph((x, y, ct), (node, by_x, by_y)))
        for got, expected in zip(evaluate(graph, arrays), written_out(spec, *arrays), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9, err_msg=spec.text)


def test_convolution_gradients_are_contractions() -> None:
    """The two gradients of a convolution need no `fold`: one flips the weights, the other correlates."""
    b = Builder()
    x, w = b.input(0, TensorType(f64, (2, 3, 8, 8))), b.input(1, TensorType(f64, (4, 3, 3, 3)))
    node = b.contract(x, w, "b c h+r w+s, o c r s -> b o h w")
    by_x, by_w = vjp(b, [node], [b.input(2, node.type)], [x, w])
    assert by_x is not None and by_x.op == "contract" and by_x.text("spec") == "b o p0+r p1+s, o c r s -> b c p0 p1"
    assert by_w is not None and by_w.op == "contract" and by_w.text("spec") == "b o h w, b c h+r w+s -> o c r s"
    assert {i.op for i in (*by_x.inputs, *by_w.inputs)} <= {"input", "pad", "slice"}


def test_text_round_trip() -> None:
    for text in ("b c 2h+r 2w+3s, o c r s -> b o h w", ", -> ", "m, m -> ", "a1 b2+3c, b2 -> a1"):
        spec = parse_spec(text)
        assert format_spec(spec.x, spec.y, spec.out) == text
        assert parse_spec(text) is spec
