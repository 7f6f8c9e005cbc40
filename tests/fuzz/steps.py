"""Steps by which random graphs grow, for operators with needs of their own: functions with domains, scans, bits,
gradients, and what runs on the host.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.errors import AutodiffError
from graphc.ir import OPS, Node, TensorType
from graphc.ir.types import boolean, f32, f64, i8, i32, i64, u8
from graphc.ir.visit import topological
from graphc.passes.autodiff import vjp
from tests.fuzz.functions import DOMAINS, PAIR_DOMAINS, Interval, inside
from tests.fuzz.hosted import LARGEST_MATRIX, MATRIX_OPERATORS, tame_matrix
from tests.fuzz.interval import Rejected, kind_of, need
from tests.fuzz.pool import Pool

Step = Callable[[Pool], Node]
_SCANS = ("scan_sum", "scan_prod", "scan_max", "scan_min")
_COMPILED = tuple(op for op in DOMAINS if OPS[op].kind != "host")
_HOST = tuple(op for op in DOMAINS if OPS[op].kind == "host")
_COMPILED_PAIRS = tuple(op for op in PAIR_DOMAINS if OPS[op].kind != "host")
_HOST_PAIRS = tuple(op for op in PAIR_DOMAINS if OPS[op].kind == "host")


def _into(p: Pool, x: Node, domain: Interval) -> Node:
    """`x` where it lies in `domain`, else something made of it that does."""
    b, (low, high) = p.builder, domain
    if inside(p.bounds[x], domain):
        return x
    if low > 0 and high > 1 and p.rng.random() < 0.5:
        made = p.keep(b.add(p.apply("abs", x), low + 0.1))
        if inside(p.bounds[made], domain):
            return made
    return p.keep(b.add(b.mul(p.apply("tanh", x), 0.45 * (high - low)), 0.5 * (low + high)))


def _function(p: Pool, op: str) -> Node:
    return p.apply(op, _into(p, p.any("float"), DOMAINS[op]))


def function(p: Pool) -> Node:
    return _function(p, p.rng.choice(_COMPILED))


def host_function(p: Pool) -> Node:
    return _function(p, p.rng.choice(_HOST))


def _function_of_two(p: Pool, op: str) -> Node:
    x = p.any("float")
    y = p.of_type(x.type)
    first, second = PAIR_DOMAINS[op]
    return p.apply(op, _into(p, x, first), _into(p, y, second))


def function_of_two(p: Pool) -> Node:
    return _function_of_two(p, p.rng.choice(_COMPILED_PAIRS))


def host_function_of_two(p: Pool) -> Node:
    return _function_of_two(p, p.rng.choice(_HOST_PAIRS))


def copysign(p: Pool) -> Node:
    """The sign is that of a number whose zeros have a sign and which is not NaN."""
    x = p.any("float")
    y = p.of_type(x.type)
    need(p.bounds[y].error == 0 and not any(node.op == "fold" for node in topological((y,))))
    b = p.builder
    return p.apply("copysign", x, p.keep(b.select(b.elementwise("eq", y, y), y, -1.0)))


def scan(p: Pool) -> Node:
    x = p.any()
    if p.rng.random() < 0.3:
        return p.apply("recurrence", x, p.of_type(x.type))
    if x.dtype is boolean:
        return p.apply(p.rng.choice(("scan_max", "scan_min")), x)
    return p.apply(p.rng.choice(_SCANS), x)


def _sorted_rows(p: Pool, x: Node) -> Node:
    axis = x.type.rank - 1
    return p.apply("take_along", x, p.apply("argsort", x, axis=axis, descending=False), axis=axis)


def order(p: Pool) -> Node:
    x = p.any()
    need(bool(x.type.rank))
    made = p.rng.random()
    if made < 0.3:
        return p.apply(p.rng.choice(("argsort", "argselect")), x)
    if made < 0.6:
        axis = p.rng.randrange(x.type.rank)
        if made > 0.5:
            return p.apply("sort", x, axis=axis)
        return p.apply("take_along", x, p.apply("argsort", x, axis=axis), axis=axis)
    wanted = (*x.shape[:-1], p.rng.randint(1, 5)) if p.rng.random() < 0.5 else (p.rng.randint(1, 5),)
    return p.apply("searchsorted", _sorted_rows(p, p.of_type(x.type.with_shape(wanted))), x)


def bits(p: Pool) -> Node:
    """Bits as another dtype: those of a number in [1, 2) made from any i64, of an f64 without NaN, or of bytes."""
    x = p.any("float", "int")
    b = p.builder
    if x.dtype is i64 and p.rng.random() < 0.5:
        mantissa = b.elementwise("bitwise_and", x, (1 << 52) - 1)
        return p.apply("bitcast", p.keep(b.elementwise("bitwise_or", mantissa, 0x3FF << 52)), dtype=f64)
    if x.dtype is f64:
        need(p.bounds[x].error == 0)
        size = p.apply("abs", x)  # the sign of a zero may be open
        number = p.keep(b.select(b.elementwise("eq", size, size), size, 0.0))
        return p.apply("bitcast", number, dtype=i64)
    need(x.dtype.is_integer)
    return p.apply("bitcast", x, dtype={u8: i8, i8: u8}.get(x.dtype, x.dtype))


def slope(p: Pool) -> Node:
    """The gradient of one operator by one of its operands."""
    y = p.any("float")
    rule = OPS[y.op].vjp
    if rule is None:
        raise Rejected
    made = [g for g in rule(p.builder, y, p.of_type(y.type)) if g is not None]
    need(bool(made))
    return p.keep(p.rng.choice(made))


def gradient(p: Pool) -> Node:
    """The gradient of a node by one of those that it is made from."""
    y = p.any("float")
    sources = [node for node in topological((y,)) if node is not y and node.dtype is not None and node.dtype.is_float]
    need(bool(sources))
    try:
        (made,) = vjp(p.builder, [y], [p.of_type(y.type)], [p.rng.choice(sources)])
    except AutodiffError:
        raise Rejected from None
    if made is None:
        raise Rejected
    return p.keep(made)


def draw(p: Pool) -> Node:
    b, x = p.builder, p.any("float")
    key = p.of_type(TensorType(i64, (2,)))
    size = p.apply("abs", x)
    if p.rng.random() < 0.5:
        return p.apply("random_poisson", key, size)
    chance = p.apply("abs", p.of_type(x.type))
    chance = p.keep(b.select(b.elementwise("le", chance, 1.0), chance, 0.5))
    return p.apply("random_binomial", key, size, chance)


def matrix(p: Pool) -> Node:
    b, rng = p.builder, p.rng
    n = rng.randint(1, LARGEST_MATRIX)
    lead = rng.choice([(), (), (2,), (1, 3)])
    type = TensorType(rng.choice([f32, f64]), (*lead, n, n))
    op = rng.choice(MATRIX_OPERATORS)
    symmetric = op in ("cholesky", "eigvalsh") or rng.random() < 0.3
    x = p.keep(tame_matrix(b, p.of_type(type), symmetric))
    if op == "pseudo_inverse":
        least = p.keep(b.constant(0.25, type.with_shape(lead)))
        return p.apply(op, x, least, hermitian=symmetric)
    if op.startswith("solve"):
        return p.apply(op, x, p.of_type(type.with_shape((*lead, n, rng.randint(1, 3)))))
    made = p.apply(op, x)
    return made


def permutation(p: Pool) -> Node:
    pivots = p.any("int")
    pivots = p.apply("cast", pivots, dtype=i32)
    need(bool(pivots.type.rank))
    return p.apply("permutation", pivots, size=pivots.shape[-1] + p.rng.randint(0, 2))


def alignment(p: Pool) -> Node:
    rng = p.rng
    dtype = rng.choice([n.dtype for n in p.pool if kind_of(n.dtype) == "float"] or [f32])
    times, batch, classes, places = rng.randint(1, 5), rng.randint(1, 3), rng.randint(2, 5), rng.randint(1, 3)
    shapes = ((batch, places), (batch,), (batch,))
    others = [p.of_type(TensorType(i64, shape)) for shape in shapes]
    logs = p.of_type(TensorType(dtype, (times, batch, classes)))
    op = rng.choice(["ctc_loss", "ctc_loss_slope"])
    return p.apply(op, logs, *others, blank=rng.randrange(classes))


STEPS: tuple[tuple[Step, float], ...] = (
    (function, 3), (function_of_two, 2), (copysign, 0.3), (scan, 2), (order, 1), (bits, 0.7), (slope, 2),
    (gradient, 1.5),
)  # fmt: skip
HOST_STEPS: tuple[tuple[Step, float], ...] = (
    (host_function, 0.3), (host_function_of_two, 1.5), (draw, 1.5), (matrix, 3), (permutation, 0.5), (alignment, 1),
)  # fmt: skip
