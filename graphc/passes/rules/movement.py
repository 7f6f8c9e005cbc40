"""Rules for operators that move elements: chains become one, what moves nothing goes. All hold bit by bit."""

from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.index import reshape_blocks
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.passes.pattern import Match, Rule, any_of, op, var

x, y = var("x"), var("y")
Ints = tuple[int, ...]

_COMPUTES = tuple(
    name for name, record in OPS.items() if record.kind == "elementwise" and name not in ("detach", "materialize")
)


def _same_shape(m: Match) -> bool:
    return m.root.shape == m["x"].shape


def _zeros(values: Ints) -> bool:
    return not any(values)


def _compose_permute(b: Builder, m: Match) -> Node:
    first = m["inner"].ints("perm")
    return b.permute(m["x"], tuple(first[p] for p in m.root.ints("perm")))


def _keeps_order(m: Match) -> bool:
    """The dimensions that are not 1 stay in order, so that the row-major order stays."""
    perm = [p for p in m.root.ints("perm") if m["x"].shape[p] != 1]
    return perm == sorted(perm)


def _without_leading_ones(shape: Ints) -> Ints:
    start = 0
    while start < len(shape) and shape[start] == 1:
        start += 1
    return shape[start:]


def _only_leading_ones(m: Match) -> bool:
    """The reshape under a broadcast changes only leading dimensions of size 1, which broadcasting adds by itself."""
    source, target = m["x"], m["inner"]
    return source.type.rank <= m.root.type.rank and _without_leading_ones(source.shape) == _without_leading_ones(
        target.shape
    )


def _compose_slice(b: Builder, m: Match) -> Node:
    s1, t1 = m["inner"].ints("start"), m["inner"].ints("step")
    s2, t2 = m.root.ints("start"), m.root.ints("step")
    start = tuple(a + p * t for a, p, t in zip(s1, s2, t1, strict=True))
    return b.slice(m["x"], start, m.root.shape, tuple(p * t for p, t in zip(t1, t2, strict=True)))


def _compose_pad(b: Builder, m: Match) -> Node | None:
    """Padding around padding with the same value; the outer one puts nothing between elements."""
    outer, first = m.root, m["inner"]
    if not _zeros(outer.ints("interior")) or repr(outer.attr("value")) != repr(first.attr("value")):
        return None
    low = tuple(a + c for a, c in zip(outer.ints("low"), first.ints("low"), strict=True))
    high = tuple(a + c for a, c in zip(outer.ints("high"), first.ints("high"), strict=True))
    attrs = {"low": low, "high": high, "interior": first.ints("interior"), "value": outer.attr("value")}
    return b.apply("pad", (m["x"],), attrs)


def _unpad(b: Builder, m: Match) -> Node | None:
    """A slice that reads only elements of x, none of the padding."""
    outer, padded, source = m.root, m["inner"], m["x"]
    start, step = list(outer.ints("start")), list(outer.ints("step"))
    low, interior = padded.ints("low"), padded.ints("interior")
    for i, size in enumerate(outer.shape):
        between = interior[i] + 1
        first = start[i] - low[i]
        if first % between or (size > 1 and step[i] % between):
            return None
        start[i] = first // between
        step[i] = step[i] // between if size > 1 else 1
        last = start[i] + (size - 1) * step[i]
        if not (0 <= start[i] < source.shape[i] and 0 <= last < source.shape[i]):
            return None
    return b.slice(source, tuple(start), outer.shape, tuple(step))


def _pad_less(b: Builder, m: Match) -> Node | None:
    """A slice of a padded value that leaves out some of the padding: less padding, of what it reads of the value."""
    outer, padded, source = m.root, m["inner"], m["x"]
    low, high, start = padded.ints("low"), padded.ints("high"), outer.ints("start")
    if any(padded.ints("interior")) or min((*low, *high), default=0) < 0 or any(s != 1 for s in outer.ints("step")):
        return None
    first = tuple(max(0, s - lo) for s, lo in zip(start, low, strict=True))
    ends = zip(start, outer.shape, low, source.shape, strict=True)
    size = tuple(min(n, s + k - lo) - f for (s, k, lo, n), f in zip(ends, first, strict=True))
    if min(size, default=0) < 1:
        return None
    before = tuple(max(0, lo - s) for s, lo in zip(start, low, strict=True))
    after = tuple(k - lo - n for k, lo, n in zip(outer.shape, before, size, strict=True))
    if (before, after) == (low, high):
        return None
    part = b.slice(source, first, size, (1,) * len(size))
    return b.apply("pad", (part,), {**dict(padded.attrs), "low": before, "high": after})


def _slice_of_written(b: Builder, m: Match) -> Node | None:
    """A slice of a value of which a part was replaced, that reads nothing but this part, or nothing of it."""
    outer, part = m.root, m["part"]
    if not outer.type.size or any(k < 0 for k in (*part.ints("low"), *part.ints("high"))):
        return None
    start, step = outer.ints("start"), outer.ints("step")
    inside = True
    for d, size in enumerate(outer.shape):
        low, between, count = part.ints("low")[d], part.ints("interior")[d] + 1, m["part"].inputs[0].shape[d]
        places = range(start[d] - low, start[d] - low + size * step[d], step[d])
        first, last = min(places[0], places[-1]), max(places[0], places[-1])
        if last < 0 or first > (count - 1) * between:
            return b.slice(m["y"], start, outer.shape, step)
        inside &= first >= 0 and last <= (count - 1) * between and all(k % between == 0 for k in places[:2])
    return b.slice(m["x"], start, outer.shape, step) if inside else None


def _slice_of_concat(b: Builder, m: Match) -> Node | None:
    """A slice that reads from one operand of a concatenation only."""
    outer, joined = m.root, m["inner"]
    axis = joined.integer("axis")
    start = outer.ints("start")
    last = start[axis] + (outer.shape[axis] - 1) * outer.ints("step")[axis]
    offset = 0
    for operand in joined.inputs:
        end = offset + operand.shape[axis]
        if offset <= min(start[axis], last) and max(start[axis], last) < end:
            moved = (*start[:axis], start[axis] - offset, *start[axis + 1 :])
            return b.slice(operand, moved, outer.shape, outer.ints("step"))
        offset = end
    return None


def _slice_before_reshape(b: Builder, m: Match) -> Node | None:
    """A slice of products in another shape, along dimensions that both shapes have: those that it drops need not be
    computed.
    """
    outer, products = m.root, m["x"]
    if not outer.type.size:
        return None
    moved = [[0] * products.type.rank, list(products.shape), [1] * products.type.rank]
    for theirs, mine in reshape_blocks(products.shape, m["inner"].shape):
        cut = [d for d in mine if outer.shape[d] != m["inner"].shape[d] or outer.ints("step")[d] < 0]
        if not cut:
            continue
        own = [d for d in theirs if products.shape[d] > 1]
        if len(own) != 1 or len([d for d in mine if m["inner"].shape[d] > 1]) != 1:
            return None
        for values, name in zip(moved, ("start", "size", "step"), strict=True):
            values[own[0]] = outer.ints(name)[cut[0]]
    start, size, step = map(tuple, moved)
    return b.reshape(b.slice(products, start, size, step), outer.shape)


def _slices_all(m: Match) -> bool:
    steps = zip(m.root.ints("step"), m.root.shape, strict=True)
    return _same_shape(m) and _zeros(m.root.ints("start")) and all(step == 1 or n <= 1 for step, n in steps)


def _pads_nothing(m: Match) -> bool:
    spaced = any(between and n > 1 for between, n in zip(m.root.ints("interior"), m["x"].shape, strict=True))
    return _zeros(m.root.ints("low")) and _zeros(m.root.ints("high")) and not spaced


def _windows_of_one(m: Match) -> bool:
    """Windows of one element at every place: the offsets are dimensions of size 1."""
    return m.root.type.size == m["x"].type.size and all(n == 1 for n in m.root.shape[m["x"].type.rank :])


def _folds_one(m: Match) -> bool:
    return m.root.type.size == m["x"].type.size and all(n == 1 for n in m["x"].shape[m.root.type.rank :])


def _before_broadcast(b: Builder, m: Match) -> Node | None:
    """An elementwise operator on broadcast operands of one source shape, computed before broadcasting."""
    node = m.root
    sources = [o.inputs[0] for o in node.inputs if o.op == "broadcast"]
    if not sources or sources[0].type.size >= node.type.size:
        return None
    shape = sources[0].shape
    if any(o.op not in ("broadcast", "constant") for o in node.inputs) or any(s.shape != shape for s in sources):
        return None
    operands = tuple(
        o.inputs[0] if o.op == "broadcast" else b.make("constant", (), o.attrs, o.type.with_shape(shape))
        for o in node.inputs
    )
    return b.broadcast(b.apply(node.op, operands, dict(node.attrs)), node.shape)


def _permuted_iota(b: Builder, m: Match) -> Node:
    return b.iota(m.root.ints("perm").index(m["inner"].integer("axis")), m.root.type)


def _reshape(b: Builder, m: Match) -> Node:
    return b.reshape(m["x"], m.root.shape)


def _broadcast(b: Builder, m: Match) -> Node:
    return b.broadcast(m["x"], m.root.shape)


def _one_element(m: Match) -> bool:
    return m["x"].type.size == 1


MOVEMENT: tuple[Rule, ...] = (
    Rule("reshape-same", op("reshape", x), x, _same_shape),
    Rule("reshape-reshape", op("reshape", op("reshape", x)), _reshape),
    Rule("permute-same", op("permute", x), x, lambda m: m.root.ints("perm") == tuple(range(m.root.type.rank))),
    Rule("permute-permute", op("permute", op("permute", x).named("inner")), _compose_permute),
    Rule("permute-of-ones", op("permute", x), _reshape, _keeps_order),
    Rule("permute-iota", op("permute", op("iota").named("inner")), _permuted_iota),
    Rule("broadcast-same", op("broadcast", x), x, _same_shape),
    Rule("broadcast-broadcast", op("broadcast", op("broadcast", x)), _broadcast),
    Rule("broadcast-adds-ones", op("broadcast", x), _reshape, lambda m: m.root.type.size == m["x"].type.size),
    Rule("broadcast-reshape", op("broadcast", op("reshape", x).named("inner")), _broadcast, _only_leading_ones),
    Rule(
        "move-broadcast-of-one",
        op(("reshape", "permute"), op("broadcast", x)),
        lambda b, m: b.broadcast(b.reshape(m["x"], ()), m.root.shape),
        _one_element,
    ),
    Rule("slice-all", op("slice", x), x, _slices_all),
    Rule("slice-slice", op("slice", op("slice", x).named("inner")), _compose_slice),
    Rule("slice-pad", op("slice", op("pad", x).named("inner")), _unpad),
    Rule("slice-pad-less", op("slice", op("pad", x).named("inner")), _pad_less),
    Rule(
        "slice-reshape",
        op("slice", op("reshape", any_of(("contract",)).named("x")).named("inner")),
        _slice_before_reshape,
    ),
    Rule(
        "slice-written", op("slice", op("select", op("pad", True, value=False).named("part"), x, y)), _slice_of_written
    ),
    Rule("slice-concat", op("slice", any_of(("concat",)).named("inner")), _slice_of_concat),
    Rule("pad-nothing", op("pad", x), x, _pads_nothing),
    Rule("pad-pad", op("pad", op("pad", x).named("inner")), _compose_pad),
    Rule("concat-one", op("concat", x), x),
    Rule("window-of-ones", op("window", x), _reshape, _windows_of_one),
    Rule("fold-of-ones-integer", op("fold", x), _reshape, _folds_one, domain="integer"),
    # Windows are added to +0.0, so that -0.0 becomes +0.0.
    Rule("fold-of-ones", op("fold", x), lambda b, m: b.add(_reshape(b, m), 0.0), _folds_one, domain="float"),
    Rule("elementwise-before-broadcast", any_of(_COMPUTES), _before_broadcast),
)
