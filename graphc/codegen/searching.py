"""The kernel that finds places in sorted rows, by binary search."""

from __future__ import annotations

from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.values import accumulator_dtype
from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.types import i64

EACH = 256  # elements of one place of the parallel range
TOGETHER = 4  # searches at once, so that one does not wait for the loads of another

Terms = tuple[tuple[Value, int], ...]


def lower_search(node: Node, name: str, each: int = EACH) -> Lowered:
    """The kernel of one `searchsorted`, `each` elements for a place of its range.

    The middles are those of the reference, so rows out of order give the same.
    """
    rows, x = node.inputs
    n, size = rows.shape[-1], x.type.size
    e = ScopedEmitter()
    grid = e.bind(Value(INDEX, "g"))
    params = {
        v: Param(f"p{i}", v.dtype, v.type.size, "in") for i, v in enumerate(dict.fromkeys(map(base_of, node.inputs)))
    }
    out = Param(f"p{len(params)}", i64, size, "out")
    dtype = accumulator_dtype(x.dtype)  # halves are compared in f32

    def load(operand: Node, *terms: tuple[Value, int]) -> Value:
        raw = e.load(VType(operand.dtype), params[base_of(operand)], Affine(0, terms), 0, None, None)
        return expand_cast(e, raw, dtype)

    def halved(low: Value, high: Value, start: Terms, wanted: Value) -> tuple[Value, Value]:
        middle = e.op("lshr", e.op("add", low, high), 1)
        at = load(rows, *start, (e.op("minimum", middle, n - 1), 1))
        left = e.op("gt" if node.attr("right") else "ge", at, wanted)
        active = e.op("lt", low, high)
        to_left, to_right = e.op("and", active, left), e.op("and", active, e.op("not", left))
        return _moved(e, low, e.op("add", middle, 1), to_right), _moved(e, high, middle, to_left)

    lo = e.op("mul", grid, each)
    hi = e.op("minimum", e.op("add", lo, each), size)
    with e.loop("i", lo, hi, TOGETHER) as i:
        # At the end the last element is searched for several times.
        places = [i.var, *(e.op("minimum", e.op("add", i.var, k), size - 1) for k in range(1, TOGETHER))]
        starts: list[Terms] = [((e.op("floordiv", p, x.shape[-1]), n),) if rows.type.rank > 1 else () for p in places]
        elements = [load(x, (p, 1)) for p in places]
        ranges = [(e.const(0, INDEX), e.const(n, INDEX)) for _ in places]
        for _ in range(n.bit_length()):
            ranges = [halved(*r, start, x) for r, start, x in zip(ranges, starts, elements, strict=True)]
        for place, (low, _) in zip(places, ranges, strict=True):
            e.store(out, Affine(0, ((place, 1),)), low, 0, None, None)
    steps = size * max(n.bit_length(), 1)
    kernel = Kernel(name, (*params.values(), out), -(-size // each), grid, tuple(e.body), steps, size * 16)
    return Lowered(kernel, (*params, node))


def _moved(e: ScopedEmitter, place: Value, to: Value, condition: Value) -> Value:
    """`to` where the condition holds, else `place`: a `select` might become a branch, and nobody can predict this."""
    mask = e.op("neg", e.op("cast", condition, to=i64))
    return e.op("add", place, e.op("and", e.op("sub", to, place), mask))
