"""Rules for reductions and contractions."""

from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.contraction import Dim, format_spec, is_plain, parse_spec
from graphc.ir.node import Node
from graphc.passes.pattern import Match, Rule, const, op, var
from graphc.passes.rules.constants import reduced_count

x, y = var("x"), var("y")


def _reshape(b: Builder, m: Match) -> Node:
    return b.reshape(m["x"], m.root.shape)


def _of_one(m: Match) -> bool:
    return reduced_count(m.root) == 1


def _is_float(m: Match) -> bool:
    return m["x"].dtype.is_float


def _no_axes(m: Match) -> bool:
    return not m.root.ints("axes")


def _merge_axes(b: Builder, m: Match) -> Node:
    """One reduction over the axes of both."""
    first = m["inner"].ints("axes")
    kept = [i for i in range(m["x"].type.rank) if i not in first]
    axes = tuple(sorted((*first, *(kept[a] for a in m.root.ints("axes")))))
    return b.apply(m.root.op, (m["x"],), {**dict(m.root.attrs), "axes": axes})


def _same_ties(m: Match) -> bool:
    return m.root.op == m["inner"].op and m.root.text("ties") == m["inner"].text("ties")


def _unpermuted(dims: tuple[Dim, ...], node: Node) -> tuple[Dim, ...]:
    """The formula's dimensions for the operand of the permutation `node`."""
    perm = node.ints("perm")
    return tuple(dims[perm.index(i)] for i in range(len(perm)))


def _contract_left(b: Builder, m: Match) -> Node:
    spec = parse_spec(m.root.text("spec"))
    return b.contract(m["x"], m["y"], format_spec(_unpermuted(spec.x, m["inner"]), spec.y, spec.out))


def _contract_right(b: Builder, m: Match) -> Node:
    spec = parse_spec(m.root.text("spec"))
    return b.contract(m["y"], m["x"], format_spec(spec.x, _unpermuted(spec.y, m["inner"]), spec.out))


def _with_zeros(b: Builder, m: Match) -> Node | None:
    """Products with zeros are zeros, but those of infinities and NaN: what is summed is found once for all places of
    the zeros.
    """
    spec = parse_spec(m.root.text("spec"))
    other = m["x"]
    dims = spec.operands[m.root.inputs.index(other)]
    if m.value("c") != 0 or 0 in (m["c"].type.size, other.type.size) or not all(map(is_plain, dims)):
        return None
    labels = [dim[0][0] for dim in dims]
    axes = tuple(axis for axis, label in enumerate(labels) if label not in spec.out)
    summed = b.apply("reduce_sum", (b.mul(other, 0),), {"axes": axes})
    kept = [label for label in labels if label in spec.out]
    ordered = b.permute(summed, tuple(kept.index(label) for label in spec.out if label in kept))
    one = tuple(n if label in kept else 1 for label, n in zip(spec.out, m.root.shape, strict=True))
    return b.broadcast(b.reshape(ordered, one), m.root.shape)


def reduced_as_it_lies(b: Builder, node: Node, x: Node, perm: tuple[int, ...]) -> Node:
    """The reduction `node` of `x` permuted by `perm`, over the dimensions of `x` as they lie; those that stay are put
    in order afterwards.
    """
    taken = {perm[a] for a in node.ints("axes")}
    kept = [p for p in perm if p not in taken]
    reduced = b.apply(node.op, (x,), {**dict(node.attrs), "axes": tuple(sorted(taken))})
    return b.permute(reduced, tuple(sorted(kept).index(p) for p in kept))


def keeps_order(node: Node, perm: tuple[int, ...]) -> bool:
    """Whether elements are reduced in the same order without the permutation."""
    read = [perm[a] for a in node.ints("axes")]
    return read == sorted(read)


def _of_permute(b: Builder, m: Match) -> Node:
    return reduced_as_it_lies(b, m.root, m["x"], m["inner"].ints("perm"))


def _along_permuted(b: Builder, m: Match) -> Node:
    """Done along the dimension as it lies, and permuted afterwards."""
    perm = m["inner"].ints("perm")
    attrs = {**dict(m.root.attrs), "axis": perm[m.root.integer("axis")]}
    return b.permute(b.apply(m.root.op, (m["x"],), attrs), perm)


def _keeps_order(m: Match) -> bool:
    return keeps_order(m.root, m["inner"].ints("perm"))


_EXTREMES = ("reduce_max", "reduce_min")
_ALONG = ("scan_sum", "scan_prod", "scan_max", "scan_min", "argsort", "sort", "argselect")
_IN_ORDER = ("reduce_sum", "reduce_prod", "argmax", "argmin")

REDUCTION: tuple[Rule, ...] = (
    Rule("reduce-nothing", op((*_EXTREMES, "reduce_prod"), x), x, _no_axes),
    Rule("extreme-of-one", op(_EXTREMES, x), _reshape, _of_one),
    Rule("product-of-one", op("reduce_prod", x), _reshape, _of_one),
    Rule("sum-of-one-integer", op("reduce_sum", x), _reshape, _of_one, domain="integer"),
    # A sum begins with +0.0, so it is never -0.0: adding +0.0 says the same for one element.
    Rule("sum-of-one", op("reduce_sum", x), lambda b, m: b.add(_reshape(b, m), 0.0), _of_one, domain="float"),
    Rule("argmax-of-one", op(("argmax", "argmin"), x), lambda b, m: b.zeros_like(m.root), _of_one),
    Rule("extreme-extreme", op(_EXTREMES, op(_EXTREMES, x).named("inner")), _merge_axes, _same_ties),
    Rule("sum-sum-integer", op("reduce_sum", op("reduce_sum", x).named("inner")), _merge_axes, domain="integer"),
    Rule("sum-sum", op("reduce_sum", op("reduce_sum", x).named("inner")), _merge_axes, _is_float, "reassociates"),
    Rule(
        "product-product-integer",
        op("reduce_prod", op("reduce_prod", x).named("inner")),
        _merge_axes,
        domain="integer",
    ),
    # Read in another order, the extreme is the same; so is a sum over one dimension, whose elements keep their order.
    Rule("extreme-of-permute", op(_EXTREMES, op("permute", x).named("inner")), _of_permute),
    Rule("reduction-of-permute", op(_IN_ORDER, op("permute", x).named("inner")), _of_permute, _keeps_order),
    Rule("along-permuted", op(_ALONG, op("permute", x).named("inner")), _along_permuted),
    # A formula names the products that are added, in no particular order: a permutation only renames dimensions.
    Rule("contract-permute-left", op("contract", op("permute", x).named("inner"), y), _contract_left),
    Rule("contract-permute-right", op("contract", y, op("permute", x).named("inner")), _contract_right),
    Rule("contract-zeros-left", op("contract", const("c"), x), _with_zeros),
    Rule("contract-zeros-right", op("contract", x, const("c")), _with_zeros),
)
