"""Layers of recurrent networks, written out step by step into one graph.

S. Hochreiter, J. Schmidhuber, 1997 (LSTM); K. Cho et al., 2014 (GRU, in the form with the reset gate behind the
product); J. Elman, 1990.

Layers in f16 and bf16 compute in f32. What a nonlinearity of the gates reads, and hidden states, are rounded in each
step, so that all factors of products, in gradients too, have 16 bits; an LSTM's cell states are rounded at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from graphc.errors import DTypeError
from graphc.ir.builder import Builder
from graphc.ir.narrow import HALVES
from graphc.ir.node import Node
from graphc.ir.types import DType, f32
from graphc.tensors.core import record_many
from graphc.tensors.learning import repeatable

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

States = tuple[Node, ...]


class Weights(NamedTuple):
    """Weights of one layer in one direction: of the input, of the hidden state, their biases, and the projection."""

    w_ih: Node
    w_hh: Node
    b_ih: Node | None
    b_hh: Node | None
    w_hr: Node | None


def _weights_of(nodes: Sequence[Node], biased: bool) -> Weights:
    rest = list(nodes[4 if biased else 2 :])
    biases = (nodes[2], nodes[3]) if biased else (None, None)
    return Weights(nodes[0], nodes[1], *biases, rest[0] if rest else None)


def _check_dtypes(kind: Kind, nodes: Sequence[Node]) -> None:
    """DTypeError unless input, states and weights have one dtype."""
    if any(node.dtype is not nodes[0].dtype for node in nodes):
        types = ", ".join(dict.fromkeys(str(node.type) for node in nodes))
        raise DTypeError(
            f"{kind.name}: input, states and weights have different dtypes, {types}; convert with .to(dtype)"
        )


def _wide(b: Builder, x: Node) -> Node:
    """`x` in the dtype that layers compute in."""
    return b.cast(x, f32) if x.dtype in HALVES else x


def _in_dtype(b: Builder, x: Node, dtype: DType) -> Node:
    """`x` in `dtype`."""
    return x if x.dtype is dtype else b.cast(x, dtype)


def _rounded(b: Builder, x: Node, w: Weights) -> Node:
    """`x` as the layer's dtype holds it; its gradient is rounded as well."""
    return _wide(b, _in_dtype(b, x, w.w_hh.dtype))


def _product(b: Builder, x: Node, w: Node, *biases: Node | None) -> Node:
    """x wᵀ plus the biases, for x of rank 2."""
    made = b.contract(_wide(b, _in_dtype(b, x, w.dtype)), _wide(b, w), "b i, o i -> b o")
    for bias in biases:
        if bias is not None:
            made = b.add(made, b.broadcast(_wide(b, bias), made.shape))
    return made


def _part(b: Builder, x: Node, place: int, count: int) -> Node:
    """Part `place` of `count` equal ones of the last dimension."""
    rows, size = x.shape[0], x.shape[1] // count
    return b.slice(x, (0, place * size), (rows, size), (1, 1))


def _lstm_step(b: Builder, driven: Node, states: States, w: Weights) -> States:
    h, c = states
    gates = _rounded(b, b.add(driven, _product(b, h, w.w_hh)), w)
    i, f, o = (b.apply("sigmoid", (_part(b, gates, place, 4),)) for place in (0, 1, 3))
    g = b.apply("tanh", (_part(b, gates, 2, 4),))
    c = b.add(b.mul(f, c), b.mul(i, g))
    h = b.mul(o, b.apply("tanh", (c,)))
    return (h if w.w_hr is None else _product(b, h, w.w_hr)), c


def _gru_step(b: Builder, driven: Node, states: States, w: Weights) -> States:
    (h,) = states
    hidden = _product(b, h, w.w_hh, w.b_hh)
    sums = (b.add(_part(b, driven, place, 3), _part(b, hidden, place, 3)) for place in (0, 1))
    r, z = (b.apply("sigmoid", (_rounded(b, sum, w),)) for sum in sums)
    proposed = b.mul(r, _rounded(b, _part(b, hidden, 2, 3), w))
    n = b.apply("tanh", (_rounded(b, b.add(_part(b, driven, 2, 3), proposed), w),))
    return (b.add(b.mul(b.sub(h, n), z), n),)


def _tanh_step(b: Builder, driven: Node, states: States, w: Weights) -> States:
    return (b.apply("tanh", (_rounded(b, b.add(driven, _product(b, states[0], w.w_hh)), w),)),)


def _relu_step(b: Builder, driven: Node, states: States, w: Weights) -> States:
    sum = _rounded(b, b.add(driven, _product(b, states[0], w.w_hh)), w)
    low = b.zeros_like(sum)
    return (b.select(b.apply("le", (sum, low)), low, sum),)


class Kind(NamedTuple):
    """A recurrent network: its name, how many states it has, one step, and whether the hidden state's bias can be added
    to what the input drives."""

    name: str
    states: int
    step: Callable[[Builder, Node, States, Weights], States]  # in f32 where the layer is of f16 or bf16
    joined_bias: bool = True


LSTM = Kind("lstm", 2, _lstm_step)
GRU = Kind("gru", 1, _gru_step, joined_bias=False)
TANH = Kind("rnn_tanh", 1, _tanh_step)
RELU = Kind("rnn_relu", 1, _relu_step)


def _drive(b: Builder, x: Node, w: Weights, kind: Kind) -> Node:
    """What the input adds to the gates, not rounded; x is (rows, features)."""
    return _product(b, x, w.w_ih, w.b_ih, w.b_hh if kind.joined_bias else None)


def cell(b: Builder, kind: Kind, x: Node, states: States, weights: Sequence[Node], biased: bool) -> States:
    """The states after one step; x is (rows, features)."""
    _check_dtypes(kind, (x, *states, *weights))
    w = _weights_of(weights, biased)
    new = kind.step(b, _drive(b, x, w, kind), tuple(_wide(b, state) for state in states), w)
    return tuple(_in_dtype(b, state, x.dtype) for state in new)


KINDS = {kind.name: kind for kind in (LSTM, GRU, TANH, RELU)}


def emitted(
    b: Builder,
    kind: Kind,
    nodes: Sequence[Node],
    place: int,
    biased: bool,
    batch_first: bool,
    reverse: bool,
    masked: bool,
) -> list[Node]:
    """A layer in one direction, of the nodes of its input, states, weights, and mask if there is one: the outputs, then
    the last states.
    """
    x, *rest = nodes
    _check_dtypes(kind, nodes[: len(nodes) - masked])
    if batch_first:
        x = b.permute(x, (1, 0, 2))
    steps, rows, features = x.shape
    starts = [b.slice(h, (place, 0, 0), (1, *h.shape[1:]), (1, 1, 1)) for h in rest[: kind.states]]
    now: States = tuple(_wide(b, b.reshape(start, start.shape[1:])) for start in starts)
    w = _weights_of(rest[kind.states : len(rest) - masked], biased)
    if masked:
        kept = b.broadcast(b.reshape(rest[-1], (steps, rows, 1)), x.shape)
        x = b.select(kept, x, b.zeros_like(x))
    all_driven = _drive(b, b.reshape(x, (steps * rows, features)), w, kind)
    made: list[Node] = [x] * steps
    for t in range(steps - 1, -1, -1) if reverse else range(steps):
        driven = b.slice(all_driven, (t * rows, 0), (rows, all_driven.shape[1]), (1, 1))
        new = kind.step(b, driven, now, w)
        out = _in_dtype(b, new[0], x.dtype)
        if masked:
            here = b.slice(rest[-1], (t, 0), (1, rows), (1, 1))
            alive = [b.broadcast(b.reshape(here, (rows, 1)), s.shape) for s in new]
            out = b.select(alive[0], out, b.zeros_like(out))
            new = tuple(b.select(a, n, old) for a, n, old in zip(alive, new, now, strict=True))
        now = new
        made[t] = b.reshape(out, (1, *out.shape))
    return [b.concat(tuple(made), 0), *(_in_dtype(b, state, x.dtype) for state in now)]


def written_out(
    name: str,
    input: Tensor,
    hx: Sequence[Tensor],
    place: int,
    weights: Sequence[Tensor],
    biased: bool,
    batch_first: bool,
    reverse: bool,
    mask: Tensor | None,
) -> tuple[Tensor, ...]:
    """One layer in one direction over (time, batch, features): the outputs, then the last states.

    It begins with the states `place` of `hx`. Where `mask` (time, batch) is false the states stay and the output is 0.
    """

    kind, form = KINDS[name], (place, biased, batch_first, reverse, mask is not None)

    def emit(b: Builder, *nodes: Node) -> Sequence[Node]:
        # Of the nodes of the step before, mostly: thousands need not be made again to find that they are the same.
        keys = [("layer", name, number, *form, *nodes) for number in range(1 + kind.states)]
        made = [node for key in keys if (node := b.made(key)) is not None]
        if len(made) == len(keys):
            return made
        return [b.keep(key, node) for key, node in zip(keys, emitted(b, kind, nodes, *form), strict=True)]

    operands = (input, *hx, *weights, *((mask,) if mask is not None else ()))
    return tuple(record_many("StackBackward0", operands, emit))


layer = repeatable(written_out)
