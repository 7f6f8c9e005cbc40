"""Ranges of values and running error bounds, so that random graphs need no hand-tuned tolerances.

A bound holds for inputs as `random_inputs` makes them: `lo` and `hi` for the value, `error` for the distance
between a native result and the f64 oracle. Error 0 means that both agree exactly; only then may a value meet a
discontinuity (compare, floor, argmax, conversion to integer).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.ir import Graph, Node
from graphc.ir.contraction import parse_spec
from graphc.ir.types import DType, f64

EPSILON = {"f32": 2.0**-24, "f64": 2.0**-51}  # one rounding; for f64 both sides round, by functions of some ulp
ULPS = 4  # of the math functions
LARGEST = 1e5
LARGEST_ERROR = 1e-3
LONGEST_SUM = 256

INPUT_RANGE = {"float": (-2.0, 2.0), "int": (-100.0, 100.0), "uint": (0.0, 255.0), "bool": (0.0, 1.0)}


class Rejected(Exception):
    """The node would make errors too large to be worth comparing."""


@dataclass(frozen=True)
class Bound:
    lo: float
    hi: float
    error: float = 0.0

    @property
    def most(self) -> float:
        """The largest absolute value."""
        return max(abs(self.lo), abs(self.hi))


def _need(condition: bool) -> None:
    if not condition:
        raise Rejected


def whole_range(dtype: DType) -> Bound:
    if dtype.kind == "bool":
        return Bound(0, 1)
    return (
        Bound(0, 2.0**dtype.bits - 1)
        if dtype.kind == "uint"
        else Bound(-(2.0 ** (dtype.bits - 1)), 2.0 ** (dtype.bits - 1))
    )


def _fit(dtype: DType, lo: float, hi: float, error: float = 0.0) -> Bound:
    """The bound, or every value of the dtype where an integer may wrap around."""
    if dtype.is_float:
        return Bound(lo, hi, error)
    whole = whole_range(dtype)
    return Bound(lo, hi) if whole.lo <= lo and hi < whole.hi else whole


def bound_of(node: Node, operands: Sequence[Bound]) -> Bound:
    """The bound of `node` from those of its operands. Raises Rejected when it grows out of hand."""
    result = _bound(node, operands)
    if node.dtype.is_float:
        _need(result.most <= LARGEST and result.error <= LARGEST_ERROR * max(1.0, result.most))
        _need(math.isfinite(result.most))
    return result


def error_bounds(graph: Graph) -> list[float]:
    """For each output, how far a native result may be from `evaluate(..., floats=f64)`, absolutely."""
    bounds: dict[Node, Bound] = {}
    for node in graph.nodes:
        bounds[node] = bound_of(node, [bounds[operand] for operand in node.inputs])
    return [bounds[node].error for node in graph.outputs]


def _bound(node: Node, operands: Sequence[Bound]) -> Bound:
    dtype = node.dtype
    eps = EPSILON.get(dtype.name, 0.0)
    rule = _RULES.get(node.op)
    if rule is not None:
        return rule(node, operands, eps)
    if node.op in _KEEPS:
        return operands[0]
    if node.op in _STEPS:
        _need(all(operand.error == 0 for operand in operands))
    if dtype.kind == "bool":
        return Bound(0, 1)
    if not dtype.is_float and node.op in (
        "bitwise_not",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
        *_SHIFTS,
        *_DIVIDES,
    ):
        return whole_range(dtype)
    if node.op == "random_bits":
        return whole_range(dtype)
    if node.op == "sign":
        return Bound(-1, 1)
    if node.op in ("floor", "ceil", "round", "trunc"):
        return Bound(math.floor(operands[0].lo), math.ceil(operands[0].hi))
    raise Rejected


_KEEPS = (
    "detach",
    "materialize",
    "reshape",
    "permute",
    "broadcast",
    "slice",
    "window",
    "gather",
    "take_along",
    "reduce_max",
    "reduce_min",
)
_SHIFTS = ("shift_left", "shift_right", "shift_right_logical")
_DIVIDES = ("floor_divide", "remainder")
_STEPS = ("eq", "ne", "lt", "le", "gt", "ge", "floor", "ceil", "round", "trunc", "sign", "bitwise_not", "bitwise_and")


def _input(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return Bound(*INPUT_RANGE[node.dtype.kind])


def _constant(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    value = node.attr("value")
    assert isinstance(value, int | float)
    return Bound(value, value)


def _iota(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return _fit(node.dtype, 0, max(node.shape[node.integer("axis")] - 1, 0))


def _neg(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    (x,) = operands
    return _fit(node.dtype, -x.hi, -x.lo, x.error)


def _abs(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    (x,) = operands
    return _fit(node.dtype, 0.0 if x.lo <= 0 <= x.hi else min(abs(x.lo), abs(x.hi)), x.most, x.error)


def _add(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    lo, hi = x.lo + y.lo, x.hi + y.hi
    return _fit(node.dtype, lo, hi, x.error + y.error + eps * max(abs(lo), abs(hi)))


def _sub(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    return _add(node, (x, Bound(-y.hi, -y.lo, y.error)), eps)


def _mul(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    corners = [x.lo * y.lo, x.lo * y.hi, x.hi * y.lo, x.hi * y.hi]
    if node.inputs[0] is node.inputs[1]:
        corners = [0.0 if x.lo <= 0 <= x.hi else min(corners[0], corners[3]), corners[0], corners[3]]
    error = x.error * y.most + y.error * x.most + x.error * y.error + eps * max(map(abs, corners))
    return _fit(node.dtype, min(corners), max(corners), error)


def _div(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    low = y.lo - y.error
    _need(low >= 0.25)
    most = x.most / low
    return Bound(-most if x.lo < 0 else 0.0, most, x.error / low + y.error * most / low + eps * most)


def _extreme(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    choose = max if node.op == "maximum" else min
    return Bound(choose(x.lo, y.lo), choose(x.hi, y.hi), max(x.error, y.error))


def _select(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    _, x, y = operands
    return Bound(min(x.lo, y.lo), max(x.hi, y.hi), max(x.error, y.error))


def _divide(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    if not node.dtype.is_float:
        return whole_range(node.dtype)
    _need(x.error == 0 and y.error == 0 and y.lo >= 0.25)
    if node.op == "floor_divide":
        return Bound(math.floor(-x.most / y.lo), math.ceil(x.most / y.lo))
    return Bound(0.0, y.hi, 2 * eps * y.hi)


def _function(value: Callable[[float], float], low: float, high: float, slope: Callable[[Bound], float]) -> object:
    """The rule of a rising function that takes operands within [low, high]."""

    def rule(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
        (x,) = operands
        inside = Bound(x.lo - x.error, x.hi + x.error)
        _need(low <= inside.lo and inside.hi <= high)
        lo, hi = value(x.lo), value(x.hi)
        return Bound(lo, hi, x.error * slope(inside) + ULPS * 2 * eps * max(abs(lo), abs(hi)))

    return rule


def _wave(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    _need(operands[0].most <= 50)
    return Bound(-1.0, 1.0, operands[0].error + ULPS * 2 * eps)


def _pow(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    low = x.lo - x.error
    _need(low >= 0.3 and x.hi <= 20 and y.most <= 3)
    most = max(low**-y.most, (x.hi + x.error) ** y.most)
    steep = x.error * y.most / low + y.error * max(abs(math.log(low)), math.log(x.hi + 1))
    return Bound(0.0, most, most * (2 * steep + 4 * ULPS * eps))


def _cast(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    (x,) = operands
    source, target = node.inputs[0].dtype, node.dtype
    if target.kind == "bool":
        _need(x.error == 0)
        return Bound(0, 1)
    if source.is_float and target.is_integer:
        _need(x.error == 0 and x.most < 2**30)
        return _fit(target, math.trunc(x.lo), math.trunc(x.hi))
    if target.is_float and not source.is_float:
        _need(x.most <= 2**20)
        return x
    # From f64 a value rounds, unless it is one of those that an f32 holds; exactness is not followed so far.
    return _fit(target, x.lo, x.hi, x.error + (eps * x.most if source is f64 else 0.0))


def _pad(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    value = node.attr("value")
    assert isinstance(value, int | float)
    return Bound(min(operands[0].lo, value), max(operands[0].hi, value), operands[0].error)


def _concat(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return Bound(min(o.lo for o in operands), max(o.hi for o in operands), max(o.error for o in operands))


def _total(dtype: DType, x: Bound, count: int, eps: float) -> Bound:
    """A sum of up to `count` values."""
    _need(not dtype.is_float or count <= LONGEST_SUM)
    error = count * x.error + (eps * count * count * x.most if count > 1 else 0.0)
    return _fit(dtype, min(0.0, count * x.lo), max(0.0, count * x.hi), error)


def _taken(node: Node) -> int:
    return math.prod(node.inputs[0].shape[a] for a in node.ints("axes"))


def _sum(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return _total(node.dtype, operands[0], _taken(node), eps)


def _prod(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    (x,), count = operands, _taken(node)
    if not node.dtype.is_float:
        return whole_range(node.dtype)
    _need(count <= 8)
    most = max(1.0, x.most + x.error) ** count
    return Bound(-most, most, count * most * (x.error + eps))


def _fold(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return _total(node.dtype, operands[0], math.prod(node.inputs[0].shape[len(node.shape) :]), eps)


def _arg(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    _need(operands[0].error == 0)
    return Bound(0, max(_taken(node) - 1, 0))


def _contract(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    spec = parse_spec(node.text("spec"))
    extents = spec.extents(node.inputs[0].shape, node.inputs[1].shape)
    x, y = operands
    most = x.most * y.most
    product = Bound(-most, most, x.error * y.most + y.error * x.most + eps * most)
    return _total(node.dtype, product, math.prod(extents[label] for label in spec.summed), eps)


def _index_add(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, _, source = operands
    added = _total(node.dtype, source, node.inputs[1].type.size, eps)
    return _add(node, (x, added), eps)


def _index_set(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return _concat(node, (operands[0], operands[2]), eps)


_RULES: dict[str, Callable[..., Bound]] = {
    "input": _input,
    "constant": _constant,
    "iota": _iota,
    "neg": _neg,
    "abs": _abs,
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "maximum": _extreme,
    "minimum": _extreme,
    "select": _select,
    "floor_divide": _divide,
    "remainder": _divide,
    "exp": _function(math.exp, -30, 8, lambda x: math.exp(x.hi)),
    "expm1": _function(math.expm1, -30, 8, lambda x: math.exp(x.hi)),
    "log": _function(math.log, 0.05, LARGEST, lambda x: 1 / x.lo),
    "log1p": _function(math.log1p, -0.9, LARGEST, lambda x: 1 / (1 + x.lo)),
    "sqrt": _function(math.sqrt, 0.05, LARGEST, lambda x: 0.5 / math.sqrt(x.lo)),
    "tanh": _function(math.tanh, -LARGEST, LARGEST, lambda x: 1.0),
    "sigmoid": _function(lambda x: 0.5 + 0.5 * math.tanh(x / 2), -LARGEST, LARGEST, lambda x: 0.25),
    "erf": _function(math.erf, -LARGEST, LARGEST, lambda x: 1.13),
    "sin": _wave,
    "cos": _wave,
    "pow": _pow,
    "cast": _cast,
    "pad": _pad,
    "concat": _concat,
    "reduce_sum": _sum,
    "reduce_prod": _prod,
    "fold": _fold,
    "argmax": _arg,
    "argmin": _arg,
    "contract": _contract,
    "index_add": _index_add,
    "scatter_add": _index_add,
    "index_set": _index_set,
    "scatter_set": _index_set,
}  # type: ignore[dict-item]
