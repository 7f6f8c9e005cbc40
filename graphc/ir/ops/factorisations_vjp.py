"""Gradients of factorisations, made of products and triangular solves, so that they can be differentiated again.

Sources: M. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation"
(2008); J. Townsend, "Differentiating the singular value decomposition" (2016); S. Walter and L. Lehmann, "Algorithmic
differentiation of linear algebra functions with application in optimum experimental design" (2010); G. Golub and
V. Pereyra, "The differentiation of pseudo-inverses" (1973); I. Murray, "Differentiation of the Cholesky decomposition"
(2016); R. Mathias, "A chain rule for matrix functions" (1996). G stands for the cotangent of a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.errors import AutodiffError
from graphc.ir.matrices import (
    block,
    columns_of,
    diagonal_matrix,
    matmul,
    on_diagonal,
    rows_of,
    transpose,
    tril,
    triu,
)
from graphc.ir.node import Node
from graphc.ir.packed import last_row, row_order, top

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Gradients = Sequence["Node | None"]


def _triangular(b: Builder, a: Node, y: Node, upper: bool, unit: bool = False) -> Node:
    return b.apply("solve_triangular", (a, y), {"upper": upper, "unit": unit})


def _over(b: Builder, y: Node, a: Node, upper: bool, unit: bool = False) -> Node:
    """y times the inverse of the triangular a."""
    return transpose(b, _triangular(b, transpose(b, a), transpose(b, y), not upper, unit))


def cholesky(b: Builder, node: Node, ct: Node) -> Gradients:
    """L^-T sym(tril(L^T G)) L^-1 (Murray, equation 10)."""
    factor = top(b, node)
    inner = tril(b, matmul(b, transpose(b, factor), top(b, ct)))
    inner = b.mul(b.add(inner, transpose(b, tril(b, inner, -1))), 0.5)
    return [_over(b, _triangular(b, transpose(b, factor), inner, True), factor, False)]


def inverse(b: Builder, node: Node, ct: Node) -> Gradients:
    """-X^T G X^T (Giles, 2.2.3)."""
    made = transpose(b, top(b, node))
    return [b.neg(matmul(b, matmul(b, made, top(b, ct)), made))]


def solve(b: Builder, node: Node, ct: Node) -> Gradients:
    """A^-T G for the right side, minus that times X^T for A (Giles, 2.3.1)."""
    solved = top(b, b.apply("solve", (transpose(b, node.inputs[0]), top(b, ct))))
    return [b.neg(matmul(b, solved, transpose(b, top(b, node)))), solved]


def solve_triangular(b: Builder, node: Node, ct: Node) -> Gradients:
    """As `solve`, with the triangle of A's gradient."""
    upper, unit = bool(node.attr("upper")), bool(node.attr("unit"))
    solved = _triangular(b, transpose(b, node.inputs[0]), ct, not upper, unit)
    full = b.neg(matmul(b, solved, transpose(b, node)))
    return [(triu if upper else tril)(b, full, (1 if upper else -1) if unit else 0), solved]


def lu(b: Builder, node: Node, ct: Node) -> Gradients:
    """Walter and Lehmann, with A = P L U; what lies beyond the square part is taken out of its cotangent first."""
    x = node.inputs[0]
    m, n = x.shape[-2:]
    k = min(m, n)
    if not k:
        return [b.zeros_like(x)]
    packed, g = top(b, node), top(b, ct)
    square, gs = block(b, packed, (0, k), (0, k)), block(b, g, (0, k), (0, k))
    lower = tril(b, square, -1)
    unit = b.add(lower, on_diagonal(b, b.constant(1, lower.type)))
    upper = triu(b, square)
    left = matmul(b, transpose(b, unit), tril(b, gs, -1))
    right = matmul(b, triu(b, gs), transpose(b, upper))
    rest: Node | None = None
    if n > k:
        wide, gw = block(b, packed, (0, k), (k, n)), block(b, g, (0, k), (k, n))
        left = b.sub(left, matmul(b, gw, transpose(b, wide)))
        rest = _triangular(b, transpose(b, unit), gw, True, True)
    elif m > k:
        tall, gt = block(b, packed, (k, m), (0, k)), block(b, g, (k, m), (0, k))
        right = b.sub(right, matmul(b, transpose(b, tall), gt))
        rest = _over(b, gt, transpose(b, upper), False)
    inner = b.add(tril(b, left, -1), triu(b, right))
    made = _over(b, _triangular(b, transpose(b, unit), inner, True, True), transpose(b, upper), False)
    if rest is not None:
        made = b.concat((made, rest), x.type.rank - (1 if n > k else 2))
    # Row i of the factors is row order[i] of A: rows go back by the inverse order.
    order = row_order(b, node, m)
    places = b.apply("argsort", (order,), {"axis": order.type.rank - 1, "descending": False})
    return [b.apply("take_along", (made, columns_of(b, places, n)), {"axis": x.type.rank - 2})]


def qr(b: Builder, node: Node, ct: Node) -> Gradients:
    """(G_Q + Q sym(triu(G_R R^T - Q^T G_Q))) R^-T (Walter and Lehmann); columns beyond the square are R2 = Q^T Y."""
    x = node.inputs[0]
    m, n = x.shape[-2:]
    k = min(m, n)
    if node.attr("complete") and m > n:
        raise AutodiffError("The QR decomposition is not differentiable when mode='complete' and nrows > ncols")
    if not k:
        return [b.zeros_like(x)]
    q, r = block(b, node, (0, m), (0, k)), block(b, node, (m, m + k), (0, n))
    gq, gr = block(b, ct, (0, m), (0, k)), block(b, ct, (m, m + k), (0, n))
    rest: Node | None = None
    if n > k:
        beyond, rest = block(b, x, (0, m), (k, n)), matmul(b, q, block(b, gr, (0, k), (k, n)))
        gq = b.add(gq, matmul(b, beyond, transpose(b, block(b, gr, (0, k), (k, n)))))
        r, gr = block(b, r, (0, k), (0, k)), block(b, gr, (0, k), (0, k))
    inner = triu(b, b.sub(matmul(b, gr, transpose(b, r)), matmul(b, transpose(b, q), gq)))
    inner = b.add(inner, transpose(b, triu(b, inner, 1)))
    made = _over(b, b.add(gq, matmul(b, q, inner)), transpose(b, r), False)
    return [made if rest is None else b.concat((made, rest), x.type.rank - 1)]


def _reciprocal_gaps(b: Builder, values: Node) -> Node:
    """1 / (values[j] - values[i]), and 0 where they are equal: there the vectors, and their gradients, are free."""
    n = values.shape[-1]
    gaps = b.sub(rows_of(b, values, n), columns_of(b, values, n))
    equal = b.apply("eq", (gaps, b.zeros_like(gaps)))
    return b.select(equal, 0.0, b.div(b.constant(1, gaps.type), b.select(equal, 1.0, gaps)))


def svd(b: Builder, node: Node, ct: Node) -> Gradients:
    """Townsend; of full factors, the columns that belong to singular values count."""
    x = node.inputs[0]
    m, n = x.shape[-2:]
    k = min(m, n)
    if not k:
        return [b.zeros_like(x)]
    u, gu = (block(b, p, (0, m), (0, k)) for p in (node, ct))
    s, gs = (b.reshape(block(b, p, (m, m + 1), (0, k)), (*p.shape[:-2], k)) for p in (node, ct))
    v, gv = (block(b, p, (m + 1, m + 1 + n), (0, k)) for p in (node, ct))
    gaps = _reciprocal_gaps(b, b.mul(s, s))
    utgu, vtgv = matmul(b, transpose(b, u), gu), matmul(b, transpose(b, v), gv)
    inner = b.mul(b.mul(b.sub(utgu, transpose(b, utgu)), gaps), rows_of(b, s, k))
    inner = b.add(inner, b.mul(b.mul(b.sub(vtgv, transpose(b, vtgv)), gaps), columns_of(b, s, k)))
    inner = b.add(inner, diagonal_matrix(b, gs))
    left = matmul(b, u, inner)
    if m > k:
        beyond = b.sub(gu, matmul(b, u, utgu))
        left = b.add(left, b.div(beyond, rows_of(b, s, m)))
    made = matmul(b, left, transpose(b, v))
    if n > k:
        beyond = b.sub(gv, matmul(b, v, vtgv))
        made = b.add(made, matmul(b, u, transpose(b, b.div(beyond, rows_of(b, s, n)))))
    return [made]


def svdvals(b: Builder, node: Node, ct: Node) -> Gradients:
    """U diag(G) V^T."""
    x = node.inputs[0]
    m, n = x.shape[-2:]
    k = min(m, n)
    if not k:
        return [b.zeros_like(x)]
    packed = b.apply("svd", (x,), {"full": False})
    u, v = block(b, packed, (0, m), (0, k)), block(b, packed, (m + 1, m + 1 + n), (0, k))
    return [matmul(b, b.mul(u, rows_of(b, ct, m)), transpose(b, v))]


def eigh(b: Builder, node: Node, ct: Node) -> Gradients:
    """V (diag(G_L) + skew(V^T G_V) / gaps) V^T (Giles, 3.1, of which only the symmetric part counts)."""
    v = top(b, node)
    turning = matmul(b, transpose(b, v), top(b, ct))
    turning = b.mul(b.sub(turning, transpose(b, turning)), 0.5)
    inner = b.mul(turning, _reciprocal_gaps(b, last_row(b, node)))
    inner = b.add(inner, diagonal_matrix(b, last_row(b, ct)))
    return [matmul(b, matmul(b, v, inner), transpose(b, v))]


def eigvalsh(b: Builder, node: Node, ct: Node) -> Gradients:
    """V diag(G) V^T."""
    packed = b.apply("eigh", node.inputs, {"upper": node.attr("upper")})
    v = top(b, packed)
    return [matmul(b, b.mul(v, rows_of(b, ct, v.shape[-2])), transpose(b, v))]


def pseudo_inverse(b: Builder, node: Node, ct: Node) -> Gradients:
    """-P^T G P^T + (1 - A P) G^T P P^T + P^T P G^T (1 - P A) (Golub and Pereyra)."""
    a, p = node.inputs[0], node
    pt, gt = transpose(b, p), transpose(b, ct)
    made = b.neg(matmul(b, matmul(b, pt, ct), pt))
    side = matmul(b, matmul(b, gt, p), pt)
    made = b.add(made, b.sub(side, matmul(b, a, matmul(b, p, side))))
    side = matmul(b, pt, matmul(b, p, gt))
    return [b.add(made, b.sub(side, matmul(b, matmul(b, side, p), a))), None]


def _scaled(b: Builder, x: Node, factor: Node) -> Node:
    return b.mul(x, b.broadcast(b.reshape(factor, (*factor.shape, 1, 1)), x.shape))


def det(b: Builder, node: Node, ct: Node) -> Gradients:
    """The cofactors, which exist for singular matrices too."""
    return [_scaled(b, b.apply("cofactors", node.inputs), ct)]


def cofactors(b: Builder, node: Node, ct: Node) -> Gradients:
    """Of C = det(A) A^-T, so for matrices with an inverse (NaN for others)."""
    (x,) = node.inputs
    turned = transpose(b, top(b, b.apply("inverse", (x,))))
    axes = (x.type.rank - 2, x.type.rank - 1)
    along = b.reduce_sum(b.mul(ct, turned), axes)
    inner = b.sub(_scaled(b, turned, along), matmul(b, matmul(b, turned, transpose(b, ct)), turned))
    return [_scaled(b, inner, b.apply("det", (x,)))]


def slogdet(b: Builder, node: Node, ct: Node) -> Gradients:
    """A^-T times the cotangent of the logarithm; the sign does not change."""
    (x,) = node.inputs
    rank = ct.type.rank
    start, size = (*(0,) * (rank - 1), 1), (*ct.shape[:-1], 1)
    g = b.reshape(b.slice(ct, start, size, (1,) * rank), ct.shape[:-1])
    return [_scaled(b, transpose(b, top(b, b.apply("inverse", (x,)))), g)]


def matrix_exp(b: Builder, node: Node, ct: Node) -> Gradients:
    """The upper right block of exp([[A^T, G], [0, A^T]]) (Mathias)."""
    turned = transpose(b, node.inputs[0])
    n = turned.shape[-1]
    rank = turned.type.rank
    upper = b.concat((turned, ct), rank - 1)
    lower = b.concat((b.zeros_like(turned), turned), rank - 1)
    both = b.apply("matrix_exp", (b.concat((upper, lower), rank - 2),))
    return [block(b, both, (0, n), (n, 2 * n))]
