"""Gradients of factorisations of symmetric matrices, of both orders, along symmetric changes; failing matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.matrices import transpose
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.ops.lapack import lu_of
from graphc.ir.types import TensorType, f64
from graphc.passes.autodiff import vjp
from tests.ops.test_gradients import check_against_differences, total
from tests.samples.linear import positive


@pytest.mark.parametrize(
    ("op", "attrs"),
    [("cholesky", {}), ("eigh", {"upper": False}), ("eigh", {"upper": True}), ("eigvalsh", {"upper": False})],
)
def test_gradients_along_symmetric_changes(op: str, attrs: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    b = Builder()
    x = b.input(0, TensorType(f64, (3, 3)))
    node = b.apply(op, (b.mul(b.add(x, transpose(b, x)), 0.5),), attrs)
    inputs, arrays = [x], [positive(rng, (3, 3))]

    def weight(like: Node) -> Node:
        inputs.append(b.input(len(inputs), like.type))
        arrays.append(rng.normal(size=like.shape))
        return inputs[-1]

    cotangent = weight(node)
    (gradient,) = vjp(b, [node], [cotangent], [x])
    assert gradient is not None
    check_against_differences(inputs, arrays, total(b, [node], [cotangent]), [x], [gradient])
    slope = total(b, [gradient], [weight(gradient)])
    second = vjp(b, [slope], [b.constant(1, slope.type)], [x])
    check_against_differences(inputs, arrays, slope, [x], second)


def run(op: str, *arrays: np.ndarray, **attrs: Any) -> np.ndarray:
    types = [TensorType(f64, a.shape) for a in arrays]
    with np.errstate(all="ignore"):
        return OPS[op].evaluate(arrays, attrs, OPS[op].infer(types, attrs))


def test_a_failing_matrix_leaves_the_others_of_its_stack() -> None:
    good = np.array([[4.0, 2.0], [2.0, 3.0]])
    stack = np.stack([good, np.ones((2, 2)), -np.eye(2)])
    made = run("inverse", stack)
    np.testing.assert_array_equal(made[:, 2, 0], [0, 2, 0])
    np.testing.assert_allclose(made[0, :2] @ good, np.eye(2), atol=1e-12)
    assert np.isnan(made[1, :2]).all()
    made = run("cholesky", stack)
    np.testing.assert_array_equal(made[:, 2, 0], [0, 2, 1])
    np.testing.assert_allclose(made[0, :2] @ made[0, :2].T, good, atol=1e-12)
    made = run("solve", stack, np.ones((3, 2, 1)))
    np.testing.assert_array_equal(made[:, 2, 0], [0, 2, 0])
    np.testing.assert_allclose(good @ made[0, :2], np.ones((2, 1)), atol=1e-12)


def test_what_is_not_finite_gives_nan() -> None:
    stack = np.stack([np.eye(2), np.full((2, 2), np.nan)])
    for op, attrs in (("svdvals", {}), ("svd", {"full": True}), ("eigvalsh", {"upper": False}), ("cofactors", {})):
        made = run(op, stack, **attrs)
        assert not np.isnan(made[0]).any() and np.isnan(made[1]).all(), op


def test_the_exponential_of_large_and_small_matrices() -> None:
    turn = np.array([[0.0, 40.0], [-40.0, 0.0]])
    wanted = [[np.cos(40), np.sin(40)], [-np.sin(40), np.cos(40)]]
    np.testing.assert_allclose(run("matrix_exp", turn), wanted, atol=1e-11)
    np.testing.assert_array_equal(run("matrix_exp", np.zeros((2, 2))), np.eye(2))
    assert np.isnan(run("matrix_exp", np.full((2, 2), np.inf))).all()


def test_cofactors_of_a_singular_matrix() -> None:
    made = run("cofactors", np.array([[1.0, 2.0], [2.0, 4.0]]))
    np.testing.assert_allclose(made, [[4.0, -2.0], [-2.0, 1.0]], atol=1e-12)


def _row_by_row(a: np.ndarray, y: np.ndarray, upper: bool, unit: bool) -> np.ndarray:
    made, n = y.copy(), a.shape[-1]
    for i in reversed(range(n)) if upper else range(n):
        for k in range(i + 1, n) if upper else range(i):
            made[..., i, :] -= a[..., i, k, None] * made[..., k, :]
        if not unit:
            made[..., i, :] /= a[..., i, i, None]
    return made


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("n", [0, 1, 5, 8, 9, 40, 64, 65, 130])
def test_triangles_are_substituted_by_blocks(n: int, upper: bool, unit: bool) -> None:
    rng = np.random.default_rng(n)
    a = rng.normal(size=(2, n, n)) / max(n, 1) + 2 * np.eye(n)
    unread = np.tril_indices(n, -1) if upper else np.triu_indices(n, 1)
    a[:, *unread] = np.nan
    if unit:
        a[:, range(n), range(n)] = np.inf
    y = rng.normal(size=(2, n, 3))
    made = run("solve_triangular", a, y, upper=upper, unit=unit)
    np.testing.assert_allclose(made, _row_by_row(a, y, upper, unit), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, 1e-310])
@pytest.mark.parametrize("where", ["diagonal", "beside it", "right"])
def test_what_is_not_finite_goes_where_substitution_takes_it(bad: float, where: str, upper: bool) -> None:
    rng, n = np.random.default_rng(7), 90
    a, y = rng.normal(size=(n, n)) / n + np.eye(n), rng.normal(size=(n, 2))
    place = 75 if upper else 15
    if where == "right":
        y[place, 0] = bad
    else:
        a[place, place + (0 if where == "diagonal" else 1 if upper else -1)] = bad
    with np.errstate(all="ignore"):
        made = run("solve_triangular", a, y, upper=upper, unit=False)
        expected = _row_by_row(a, y, upper, False)
    np.testing.assert_array_equal(np.isnan(made), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(made), np.isinf(expected))
    np.testing.assert_allclose(made, expected, rtol=1e-9)


@pytest.mark.parametrize("shape", [(5, 5), (70, 70), (200, 130), (130, 200), (150, 150), (1, 100), (100, 1)])
def test_halves_of_columns_are_factorised_as_all_of_them(shape: tuple[int, int]) -> None:
    m = np.random.default_rng(5).normal(size=shape)
    m[:, shape[1] // 3] = 0  # a column without a pivot
    factors, pivots = lu_of(m)
    whole, rows = m.copy(), np.arange(shape[0])
    for j in range(min(shape)):  # one column after the other
        best = j + int(np.argmax(np.abs(whole[j:, j])))
        assert pivots[j] == best + 1
        whole[[j, best]], rows[[j, best]] = whole[[best, j]], rows[[best, j]]
        whole[j + 1 :, j] /= whole[j, j] or 1
        whole[j + 1 :, j + 1 :] -= np.outer(whole[j + 1 :, j], whole[j, j + 1 :])
    np.testing.assert_allclose(factors, whole, atol=1e-10)
    size = min(shape)
    lower, upper = np.tril(factors, -1)[:, :size] + np.eye(shape[0], size), np.triu(factors)[:size]
    np.testing.assert_allclose(lower @ upper, m[rows], atol=1e-10)
