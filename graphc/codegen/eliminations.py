"""Kernels of linear algebra with small matrices: all is written out, with a matrix in each lane, or thread of a GPU.

Gaussian elimination with partial pivoting: a row with a larger first element goes up past those before it, so that the
pivots are those of LAPACK, and rows with smaller ones stand in another order. Golub and Van Loan, "Matrix
computations" (2013), algorithms 3.4.1 and 4.2.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import Target
from graphc.ir.demand import base_of
from graphc.ir.node import Node

Matrix = list[list[Value]]


class _Lanes:
    """Emits what is done to a matrix in each lane."""

    def __init__(self, node: Node, target: Target) -> None:
        self.node = node
        self.e = ScopedEmitter()
        count = math.prod(node.inputs[0].shape[:-2])
        lanes = 1 if target.device == "cuda" else target.lanes(node.dtype.itemsize)
        self.lanes = min(lanes, 1 << count.bit_length() - 1)
        self.places = -(-count // self.lanes)
        self.grid = self.e.bind(Value(INDEX, "g"))
        first = self.e.op("mul", self.grid, self.lanes)
        self.first = first if count % self.lanes == 0 else self.e.op("minimum", first, count - self.lanes)
        self.type = VType(node.dtype, self.lanes)
        inputs = dict.fromkeys(map(base_of, node.inputs))
        self.params = {x: Param(f"p{i}", x.dtype, x.type.size, "in") for i, x in enumerate(inputs)}
        self.out = Param(f"p{len(self.params)}", node.dtype, node.type.size, "out")

    def number(self, value: float) -> Value:
        """The same number in all lanes."""
        return self.e.const(float(value), self.type)

    def read(self, place: int) -> Matrix:
        """Operand number `place`."""
        operand = self.node.inputs[place]
        rows, columns = operand.shape[-2:]
        param, each = self.params[base_of(operand)], rows * columns

        def element(at: int) -> Value:
            where = Affine(at, ((self.first, each),))
            return self.e.load(self.type, param, where, each if self.lanes > 1 else 0, None, None)

        return [[element(i * columns + j) for j in range(columns)] for i in range(rows)]

    def write(self, elements: list[Value]) -> None:
        """Store the elements of the result of each matrix."""
        each = len(elements)
        for at, value in enumerate(elements):
            stride = each if self.lanes > 1 else 0
            self.e.store(self.out, Affine(at, ((self.first, each),)), value, stride, None, None)

    def less(self, value: Value, factor: Value, other: Value) -> Value:
        """`value - factor * other`."""
        return self.e.op("sub", value, self.e.op("mul", factor, other))

    def triangle(self, a: Matrix, y: Matrix) -> tuple[Value, Value]:
        """Turn `a` into an upper triangle in place, and `y` with it. The number of the first pivot that is zero (0:
        none), and 1 or -1 for an even or odd number of exchanges.
        """
        e, n, zero = self.e, len(a), self.number(0)
        failed, sign = zero, self.number(1)
        for k in range(n):
            for i in range(k + 1, n):
                goes = e.op("gt", e.op("abs", a[i][k]), e.op("abs", a[k][k]))
                for rows, start in ((a, k), (y, 0)):
                    for j in range(start, len(rows[k])):
                        up, down = rows[k][j], rows[i][j]
                        rows[k][j], rows[i][j] = e.op("select", goes, down, up), e.op("select", goes, up, down)
                sign = e.op("select", goes, e.op("neg", sign), sign)
            is_zero = e.op("eq", a[k][k], zero)
            failed = e.op("select", e.op("and", is_zero, e.op("eq", failed, zero)), self.number(k + 1), failed)
            for i in range(k + 1, n):
                factor = e.op("select", is_zero, zero, e.op("div", a[i][k], a[k][k]))
                a[i][k + 1 :] = [self.less(x, factor, up) for x, up in zip(a[i][k + 1 :], a[k][k + 1 :], strict=True)]
                y[i] = [self.less(x, factor, up) for x, up in zip(y[i], y[k], strict=True)]
        return failed, sign

    def substitute(self, a: Matrix, y: Matrix, upper: bool, unit: bool) -> None:
        """Turn `y` into the X with a X = y for triangular `a`, in place."""
        n = len(a)
        for i in reversed(range(n)) if upper else range(n):
            for j in range(i + 1, n) if upper else range(i):
                y[i] = [self.less(x, a[i][j], other) for x, other in zip(y[i], y[j], strict=True)]
            if not unit:
                y[i] = [self.e.op("div", x, a[i][i]) for x in y[i]]

    def with_fact(self, x: Matrix, fact: Value) -> list[Value]:
        """The elements of a matrix, and of one more row that begins with a fact."""
        return [*(value for row in x for value in row), fact, *[self.number(0)] * (len(x[0]) - 1)]


def _solve(k: _Lanes) -> list[Value]:
    a = k.read(0)
    n = len(a)
    y = k.read(1) if k.node.op == "solve" else [[k.number(i == j) for j in range(n)] for i in range(n)]
    failed, _ = k.triangle(a, y)
    k.substitute(a, y, upper=True, unit=False)
    fine = k.e.op("eq", failed, k.number(0))
    return k.with_fact([[k.e.op("select", fine, x, k.number(math.nan)) for x in row] for row in y], failed)


def _solve_triangular(k: _Lanes) -> list[Value]:
    a, y = k.read(0), k.read(1)
    k.substitute(a, y, bool(k.node.attr("upper")), bool(k.node.attr("unit")))
    return [x for row in y for x in row]


def _cholesky(k: _Lanes) -> list[Value]:
    """Columns from the first minor on that is not positive stay as they are."""
    e, a = k.e, k.read(0)
    n, zero = len(a), k.number(0)
    made = [[zero] * n for _ in range(n)]
    failed = zero
    for j in range(n):
        left = a[j][j]
        for p in range(j):
            left = k.less(left, made[j][p], made[j][p])
        good = e.op("and", e.op("gt", left, zero), e.op("eq", failed, zero))
        failed = e.op("select", e.op("or", good, e.op("gt", failed, zero)), failed, k.number(j + 1))
        root = e.op("sqrt", left)
        made[j][j] = e.op("select", good, root, a[j][j])
        for i in range(j + 1, n):
            x = a[i][j]
            for p in range(j):
                x = k.less(x, made[i][p], made[j][p])
            made[i][j] = e.op("select", good, e.op("div", x, root), a[i][j])
    return k.with_fact(made, failed)


def _pivots(k: _Lanes) -> tuple[list[Value], Value]:
    a = k.read(0)
    _, sign = k.triangle(a, [[] for _ in a])
    return [a[i][i] for i in range(len(a))], sign


def _det(k: _Lanes) -> list[Value]:
    pivots, made = _pivots(k)
    for pivot in pivots:
        made = k.e.op("mul", made, pivot)
    return [made]


def _slogdet(k: _Lanes) -> list[Value]:
    """The sign is 0, and the logarithm -inf, where a pivot is zero."""
    e, zero = k.e, k.number(0)
    pivots, sign = _pivots(k)
    total = zero
    for pivot in pivots:
        sign = e.op("select", e.op("lt", pivot, zero), e.op("neg", sign), sign)
        sign = e.op("select", e.op("eq", pivot, zero), zero, sign)
        sign = e.op("select", e.op("eq", pivot, pivot), sign, pivot)
        total = e.op("add", total, expand(e, "log", e.op("abs", pivot)))
    return [sign, total]


_EMIT: dict[str, Callable[[_Lanes], list[Value]]] = {
    "cholesky": _cholesky,
    "det": _det,
    "inverse": _solve,
    "slogdet": _slogdet,
    "solve": _solve,
    "solve_triangular": _solve_triangular,
}


def lower_elimination(node: Node, name: str, target: Target) -> Lowered:
    """The kernel of one operator of linear algebra (`graphc.ir.small_matrices`)."""
    k = _Lanes(node, target)
    k.write(_EMIT[node.op](k))
    n = node.inputs[0].shape[-1]
    flops = k.places * k.lanes * n * n * (n + node.inputs[-1].shape[-1])
    nbytes = sum(x.type.nbytes for x in (*k.params, node))
    kernel = Kernel(name, (*k.params.values(), k.out), k.places, k.grid, tuple(k.e.body), flops, nbytes)
    return Lowered(kernel, (*k.params, node))
