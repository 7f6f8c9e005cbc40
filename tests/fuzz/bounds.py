"""Ranges of values and running error bounds, so that random graphs need no hand-tuned tolerances.

A bound holds for inputs as `random_inputs` makes them: `lo` and `hi` for the value, `error` for the distance
between a native result and the f64 oracle. Error 0 means that both agree exactly; only then may a value meet a
discontinuity (compare, floor, argmax, conversion to integer).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from graphc.ir import Graph, Node
from graphc.ir.contraction import parse_spec
from graphc.ir.types import DType
from tests.fuzz.functions import DOMAINS, PAIR_DOMAINS, function_bound
from tests.fuzz.hosted import host_bound
from tests.fuzz.interval import (
    EPSILON,
    LARGEST,
    LARGEST_ERROR,
    Bound,
    Rejected,
    exactly_held,
    fit,
    need,
    rounded,
    whole_range,
)

ULPS = 4  # of the math functions
LONGEST_SUM = 256
LONGEST_PRODUCT = 8
LONGEST_RECURRENCE = 17

INPUT_RANGE = {"float": (-2.0, 2.0), "int": (-100.0, 100.0), "uint": (0.0, 255.0), "bool": (0.0, 1.0)}


def bound_of(node: Node, operands: Sequence[Bound]) -> Bound:
    """The bound of `node` from those of its operands. Raises Rejected when it grows out of hand."""
    result = _bound(node, operands)
    if node.dtype.is_float:
        name = node.dtype.name
        if name == "f16" and result.error:
            result = Bound(result.lo, result.hi, result.error + 2.0**-24)  # what a subnormal is rounded by
        need(result.most <= LARGEST[name] and result.error <= LARGEST_ERROR[name] * max(1.0, result.most))
        need(math.isfinite(result.most))
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
    if node.op in DOMAINS or node.op in PAIR_DOMAINS:
        return function_bound(node, operands)
    found = host_bound(node, operands)
    if found is not None:
        return found
    if node.op in _KEEPS:
        return operands[0]
    if node.op in _STEPS:
        need(all(operand.error == 0 for operand in operands))
    if dtype.kind == "bool":
        return Bound(0, 1)
    if not dtype.is_float and node.op in (
        "bitwise_not",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
        *_SHIFTS,
        *_DIVIDES,
        "fmod",
        "gcd",
        "pow",
    ):
        return whole_range(dtype)
    if node.op == "random_bits":
        return whole_range(dtype)
    if node.op == "random_normal":  # 1 - 2**-25 is 1 in f32, and its logarithm 0: the radius is off by 2**-12
        return Bound(-6, 6, rounded(dtype, 16, 6) + (2.0**-12 if dtype.name == "f32" else 0))
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
    "scan_max",
    "scan_min",
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
    need(not node.dtype.is_float or node.shape[node.integer("axis")] <= exactly_held(node.dtype))
    return fit(node.dtype, 0, max(node.shape[node.integer("axis")] - 1, 0))


def _neg(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    (x,) = operands
    return fit(node.dtype, -x.hi, -x.lo, x.error)


def _abs(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    (x,) = operands
    return fit(node.dtype, 0.0 if x.lo <= 0 <= x.hi else min(abs(x.lo), abs(x.hi)), x.most, x.error)


def _add(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    lo, hi = x.lo + y.lo, x.hi + y.hi
    return fit(node.dtype, lo, hi, x.error + y.error + eps * max(abs(lo), abs(hi)))


def _sub(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    return _add(node, (x, Bound(-y.hi, -y.lo, y.error)), eps)


def _mul(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    corners = [x.lo * y.lo, x.lo * y.hi, x.hi * y.lo, x.hi * y.hi]
    if node.inputs[0] is node.inputs[1]:
        corners = [0.0 if x.lo <= 0 <= x.hi else min(corners[0], corners[3]), corners[0], corners[3]]
    error = x.error * y.most + y.error * x.most + x.error * y.error + eps * max(map(abs, corners))
    return fit(node.dtype, min(corners), max(corners), error)


def _div(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    low = y.lo - y.error
    need(low >= 0.25)
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
    need(x.error == 0 and y.error == 0 and y.lo >= 0.25)
    if node.op == "floor_divide":
        return Bound(math.floor(-x.most / y.lo), math.ceil(x.most / y.lo))
    return Bound(-x.most if node.op == "fmod" else 0.0, y.hi, 2 * eps * y.hi)


def _function(value: Callable[[float], float], low: float, high: float, slope: Callable[[Bound], float]) -> object:
    """The rule of a rising function that takes operands within [low, high]."""

    def rule(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
        (x,) = operands
        inside = Bound(x.lo - x.error, x.hi + x.error)
        need(low <= inside.lo and inside.hi <= high)
        lo, hi = value(x.lo), value(x.hi)
        return Bound(lo, hi, x.error * slope(inside) + rounded(node.dtype, ULPS * 2, max(abs(lo), abs(hi))))

    return rule


def _wave(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    need(operands[0].most <= 50)
    return Bound(-1.0, 1.0, operands[0].error + rounded(node.dtype, ULPS * 2, 1.0))


def _pow(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    if not node.dtype.is_float:
        return whole_range(node.dtype)
    low = x.lo - x.error
    need(low >= 0.3 and x.hi <= 20 and y.most <= 3)
    most = max(low**-y.most, (x.hi + x.error) ** y.most)
    steep = x.error * y.most / low + y.error * max(abs(math.log(low)), math.log(x.hi + 1))
    return Bound(0.0, most, most * 2 * steep + rounded(node.dtype, 4 * ULPS, most))


def _cast(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    (x,) = operands
    source, target = node.inputs[0].dtype, node.dtype
    if target.kind == "bool":
        need(x.error == 0)
        return Bound(0, 1)
    if source.is_float and target.is_integer:
        need(x.error == 0 and x.most < 2**30)
        return fit(target, math.trunc(x.lo), math.trunc(x.hi))
    if target.is_float and not source.is_float:
        need(x.most <= exactly_held(target))
        return x
    # To fewer bits a value rounds, unless it is one that they hold; exactness is not followed so far.
    rounds = target.bits < source.bits or (target is not source and target.bits == 16)
    return fit(target, x.lo, x.hi, x.error + (eps * x.most if target.is_float and rounds else 0.0))


def _pad(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    value = node.attr("value")
    assert isinstance(value, int | float)
    return Bound(min(operands[0].lo, value), max(operands[0].hi, value), operands[0].error)


def _concat(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return Bound(min(o.lo for o in operands), max(o.hi for o in operands), max(o.error for o in operands))


def _total(dtype: DType, x: Bound, count: int, eps: float) -> Bound:
    """A sum of up to `count` values."""
    need(not dtype.is_float or count <= LONGEST_SUM)
    error = count * x.error + (rounded(dtype, count, count * x.most) if count > 1 else 0.0)
    return fit(dtype, min(0.0, count * x.lo), max(0.0, count * x.hi), error)


def _taken(node: Node) -> int:
    return math.prod(node.inputs[0].shape[a] for a in node.ints("axes"))


def _sum(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return _total(node.dtype, operands[0], _taken(node), eps)


def _prod(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return _product(node.dtype, operands[0], _taken(node))


def _product(dtype: DType, x: Bound, count: int) -> Bound:
    """A product of up to `count` values."""
    if not dtype.is_float:
        return whole_range(dtype)
    need(count <= LONGEST_PRODUCT)
    most = max(1.0, x.most + x.error) ** count
    return Bound(-most, most, count * most * x.error + rounded(dtype, count, most))


def _scan_sum(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return _total(node.dtype, operands[0], node.shape[node.integer("axis")], eps)


def _scan_prod(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return _product(node.dtype, operands[0], node.shape[node.integer("axis")])


def _recurrence(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    if not node.dtype.is_float:
        return whole_range(node.dtype)
    a, b = operands
    count = node.shape[node.integer("axis")]
    need(count <= LONGEST_RECURRENCE)
    most = error = 0.0
    for _ in range(count):
        error = a.error * most + a.most * error + a.error * error + b.error
        most = a.most * most + b.most
        error += rounded(node.dtype, 2, most)
        need(most <= LARGEST["f32"])
    return Bound(-most, most, error)


def _fold(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return _total(node.dtype, operands[0], math.prod(node.inputs[0].shape[len(node.shape) :]), eps)


def _arg(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    need(operands[0].error == 0)
    return Bound(0, max(_taken(node) - 1, 0))


def _contract(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    spec = parse_spec(node.text("spec"))
    extents = spec.extents(node.inputs[0].shape, node.inputs[1].shape)
    x, y = operands
    most = x.most * y.most
    product = Bound(-most, most, x.error * y.most + y.error * x.most + eps * most)
    return _total(node.dtype, product, math.prod(extents[label] for label in spec.summed), eps)


def _index_add(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    """Each addition rounds what stands there by then."""
    x, _, source = operands
    count = node.inputs[1].type.size
    need(not node.dtype.is_float or count <= LONGEST_SUM)
    lo, hi = x.lo + min(0.0, count * source.lo), x.hi + max(0.0, count * source.hi)
    most = x.most + count * source.most
    return fit(node.dtype, lo, hi, x.error + count * (source.error + eps * most))


def _index_set(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    return _concat(node, (operands[0], operands[2]), eps)


def _scatter_reduce(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, _, source = operands
    if node.text("mode") != "prod" or not node.dtype.is_float:
        return whole_range(node.dtype) if node.dtype.is_integer else _index_set(node, operands, eps)
    # Each product is rounded where it is stored, to the dtype of the result.
    count = node.inputs[1].shape[node.integer("axis")]
    need(count < LONGEST_PRODUCT)
    most = max(1.0, x.most + x.error) * max(1.0, source.most + source.error) ** count
    return Bound(-most, most, most * (x.error + count * (source.error + eps)))


def _segment_reduce(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    """A row is combined with as many elements as the order has places, at most."""
    x, _, _, source = operands
    count = node.inputs[1].type.size
    if node.text("mode") == "add":
        return _index_add(node, (x, operands[1], source), eps)
    if node.text("mode") != "prod" or not node.dtype.is_float:
        return whole_range(node.dtype) if node.dtype.is_integer else _concat(node, (x, source), eps)
    need(count < LONGEST_PRODUCT)
    most = max(1.0, x.most + x.error) * max(1.0, source.most + source.error) ** count
    return Bound(-most, most, most * (x.error + count * (source.error + eps)))


def _copysign(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    x, y = operands
    need(y.error == 0)
    return Bound(-x.most, x.most, x.error)


def _bitcast(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    """The oracle knows the bits of f64 and of integers; an f64 comes from bits that lie between those of 1 and 2."""
    (x,), source = operands, node.inputs[0]
    if not node.dtype.is_float:
        need(source.dtype.is_integer or (source.dtype.bits == 64 and x.error == 0))
        return whole_range(node.dtype)
    need(node.dtype.bits == 64 and (source.dtype.is_float or source.op == "bitwise_or"))
    return x if source.dtype.is_float else Bound(1.0, 2.0)


def _argsort(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    need(operands[0].error == 0)
    return Bound(0, max(node.inputs[0].shape[node.integer("axis")] - 1, 0))


def _sort(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    need(operands[0].error == 0)
    return operands[0]


def _searchsorted(node: Node, operands: Sequence[Bound], eps: float) -> Bound:
    need(all(operand.error == 0 for operand in operands))
    return Bound(0, node.inputs[0].shape[-1])


_RULES: dict[str, Callable[..., Bound]] = {
    "argsort": _argsort,
    "sort": _sort,
    "argselect": _argsort,
    "searchsorted": _searchsorted,
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
    "fmod": _divide,
    "exp": _function(math.exp, -30, 8, lambda x: math.exp(x.hi)),
    "exp2": _function(math.exp2, -40, 11, lambda x: math.exp2(x.hi) * math.log(2)),
    "expm1": _function(math.expm1, -30, 8, lambda x: math.exp(x.hi)),
    "log": _function(math.log, 0.05, LARGEST["f32"], lambda x: 1 / x.lo),
    "log2": _function(math.log2, 0.05, LARGEST["f32"], lambda x: 1.45 / x.lo),
    "log10": _function(math.log10, 0.05, LARGEST["f32"], lambda x: 1 / x.lo),
    "log1p": _function(math.log1p, -0.9, LARGEST["f32"], lambda x: 1 / (1 + x.lo)),
    "sqrt": _function(math.sqrt, 0.05, LARGEST["f32"], lambda x: 0.5 / math.sqrt(x.lo)),
    "tanh": _function(math.tanh, -LARGEST["f32"], LARGEST["f32"], lambda x: 1.0),
    "sigmoid": _function(lambda x: 0.5 + 0.5 * math.tanh(x / 2), -LARGEST["f32"], LARGEST["f32"], lambda x: 0.25),
    "erf": _function(math.erf, -LARGEST["f32"], LARGEST["f32"], lambda x: 1.13),
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
    "scatter_reduce": _scatter_reduce,
    "segment_reduce": _segment_reduce,
    "scan_sum": _scan_sum,
    "scan_prod": _scan_prod,
    "recurrence": _recurrence,
    "copysign": _copysign,
    "bitcast": _bitcast,
}  # type: ignore[dict-item]
