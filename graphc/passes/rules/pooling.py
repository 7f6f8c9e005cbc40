"""Max pooling after relu: pool first, then apply relu to the few values that are left, forwards and backwards.

Where windows leave a border over, relu is taken of what they cover alone: a convolution before it then need not compute
the rest. relu(x) stands for select(x <= 0, 0, x): NaN stays NaN and -0.0 becomes 0.
"""

from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.passes.pattern import Match, Pattern, Rule, op, var

x, place, spread = var("x"), var("place"), var("spread")


def _relu(value: Pattern) -> Pattern:
    return op("select", op("le", value, 0), 0, value)


def _on(b: Builder, node: Node, operand: Node) -> Node:
    """The operator of `node` on another operand of the same type."""
    return b.make(node.op, (operand,), node.attrs, node.type)


_FORWARD = op("reduce_max", op("window", _relu(x)).named("window"))


def _forward(b: Builder, m: Match) -> Node:
    pooled = _on(b, m.root, _on(b, m["window"], m["x"]))
    return b.select(b.elementwise("le", pooled, 0), 0, pooled)


_SPREAD_WINNER = op("broadcast", op("reshape", op("argmax", op("window", _relu(x)).named("window")).named("winner")))
_FOLDED = op("fold", op("select", op("eq", place, _SPREAD_WINNER.named("winners")), spread, 0)).named("fold")


def _backward(b: Builder, m: Match) -> Node | None:
    """The gradient of pooling and then of relu, with the mask of relu applied to the pooled cotangent.

    The value before is `x[p] <= 0 ? 0 : S(p)`, where S(p) adds the cotangent of each window whose first maximum (of
    relu(x)) stands at p. The value after adds, over each window whose first maximum (of x) stands at p, `max <= 0 ?
    0 : cotangent`.

    - x[p] <= 0: before it is 0. After, each window that counts has the maximum x[p] <= 0, and zeros are added.
    - x[p] > 0: a window that contains p and no NaN has its first maximum at the same place for x and relu(x), since
      both agree where x > 0 and the rest is at most 0. Where that place is p, the maximum is x[p], and the
      cotangent counts.
    - A window with NaN has its first NaN as its first maximum, in x and in relu(x) (x <= 0 is false for NaN). If
      that is p, the maximum is NaN, `NaN <= 0` is false, and the cotangent counts, as it did before.

    Each place adds the same numbers in the same order (those of windows not chosen are 0 both times), so the bits
    are the same. Windows may overlap. With the mask written as `x > 0 ? S : 0` the same holds but for x[p] NaN:
    then both sides are 0.
    """
    window, winner, winners = m["window"], m["winner"], m["winners"]
    cotangent = _before_spreading(b, m["spread"], winner, winners)
    if cotangent is None:
        return None
    windows = _on(b, window, m["x"])
    best = _on(b, winner, windows)
    largest = b.reduce_max(windows, winner.ints("axes"), "first")
    mask = b.elementwise(m.root.inputs[0].op, largest, 0)
    masked = b.select(mask, 0, cotangent) if m.root.inputs[0].op == "le" else b.select(mask, cotangent, 0)
    kept = winners.inputs[0].shape

    def spread_out(node: Node) -> Node:
        return b.broadcast(b.reshape(node, kept), winners.shape)

    chosen = b.elementwise("eq", m["place"], spread_out(best))
    return _on(b, m["fold"], b.select(chosen, spread_out(masked), 0))


def _before_spreading(b: Builder, spread: Node, winner: Node, winners: Node) -> Node | None:
    """The cotangent of the pooled values, of which `spread` is the copy for each place in the windows."""
    if spread.op == "constant":
        return b.make("constant", (), spread.attrs, spread.type.with_shape(winner.shape))
    if spread.op == "broadcast" and spread.inputs[0].shape == winners.inputs[0].shape:
        return b.reshape(spread.inputs[0], winner.shape)
    return None


_COVERED = op("window", op("slice", _relu(x)).named("covered"))


def _cover(b: Builder, m: Match) -> Node:
    part = m["covered"]
    covered = b.slice(m["x"], part.ints("start"), part.ints("size"), part.ints("step"))
    return _on(b, m.root, b.select(b.elementwise("le", covered, 0), 0, covered))


_BORDERED = op("pad", op("fold", var("windows")).named("fold"), value=0.0).named("pad")


def _uncover(b: Builder, m: Match) -> Node | None:
    """The mask of relu applied within the border of zeros, which it leaves as they are: `x <= 0 ? 0 : 0`."""
    pad, fold = m["pad"], m["fold"]
    edges = (*pad.ints("low"), *pad.ints("high"))
    if any(pad.ints("interior")) or min(edges, default=0) < 0 or str(pad.attr("value")) != "0.0":
        return None
    covered = b.slice(m["x"], pad.ints("low"), fold.shape, (1,) * fold.type.rank)
    mask = b.elementwise(m.root.inputs[0].op, covered, 0)
    masked = b.select(mask, 0, fold) if m.root.inputs[0].op == "le" else b.select(mask, fold, 0)
    return b.make("pad", (masked,), pad.attrs, pad.type)


POOLING: tuple[Rule, ...] = (
    Rule("relu-of-what-windows-cover", _COVERED, _cover, domain="float"),
    Rule("relu-mask-of-what-windows-cover", op("select", op("le", x, 0), 0, _BORDERED), _uncover, domain="float"),
    Rule("relu-mask-of-what-windows-cover-gt", op("select", op("gt", x, 0), _BORDERED, 0), _uncover, domain="float"),
    Rule("relu-before-max-pool", _FORWARD, _forward),
    Rule("relu-mask-after-max-pool", op("select", op("le", x, 0), 0, _FOLDED), _backward, domain="float"),
    Rule("relu-mask-after-max-pool-gt", op("select", op("gt", x, 0), _FOLDED, 0), _backward, domain="float"),
)
