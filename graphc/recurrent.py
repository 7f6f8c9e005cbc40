"""Recurrent layers as functions, under PyTorch's names: `lstm`, `gru`, `rnn_tanh`, `rnn_relu` and their cells.

A layer is written out step by step into one graph, so it is compiled, differentiated and fused like everything else; a
program is found again for every sequence length seen before. Where the lengths change from call to call and nothing is
differentiated, sequences are cut into pieces of a few lengths instead, each a program of its own: the same for all.

S. Hochreiter, J. Schmidhuber, 1997 (LSTM); K. Cho et al., 2014 (GRU, in the form with the reset gate behind the
product); J. Elman, 1990.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graphc.call_places import moves
from graphc.errors import RangeError, UsageError
from graphc.functional import dropout as drop
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.naming import named
from graphc.options import INTERPRET
from graphc.recording import current
from graphc.tensors.casting import autocasts
from graphc.tensors.changing import steady
from graphc.tensors.core import TensorBase, from_array, record_many, wants_grad
from graphc.tensors.joining import cat, stack
from graphc.tensors.learning import repeatable
from graphc.tensors.shaping import narrow, transpose, unsqueeze

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

States = tuple[Node, ...]

MOST_LENGTHS = 4  # of sequences, before a layer is cut into pieces
PIECES = (64, 16, 4, 1)  # steps: a program each


class _Weights(NamedTuple):
    """Weights of one layer in one direction: of the input, of the hidden state, their biases, and the projection."""

    w_ih: Node
    w_hh: Node
    b_ih: Node | None
    b_hh: Node | None
    w_hr: Node | None


def _weights(nodes: Sequence[Node], biased: bool) -> _Weights:
    rest = list(nodes[4 if biased else 2 :])
    biases = (nodes[2], nodes[3]) if biased else (None, None)
    return _Weights(nodes[0], nodes[1], *biases, rest[0] if rest else None)


def _product(b: Builder, x: Node, w: Node, *biases: Node | None) -> Node:
    """x wᵀ plus the biases, for x of rank 2."""
    made = b.contract(x, w, "b i, o i -> b o")
    for bias in biases:
        if bias is not None:
            made = b.add(made, b.broadcast(bias, made.shape))
    return made


def _part(b: Builder, x: Node, place: int, count: int) -> Node:
    """Part `place` of `count` equal ones of the last dimension."""
    rows, size = x.shape[0], x.shape[1] // count
    return b.slice(x, (0, place * size), (rows, size), (1, 1))


def _lstm_step(b: Builder, driven: Node, states: States, w: _Weights) -> States:
    h, c = states
    gates = b.add(driven, _product(b, h, w.w_hh))
    i, f, o = (b.apply("sigmoid", (_part(b, gates, place, 4),)) for place in (0, 1, 3))
    g = b.apply("tanh", (_part(b, gates, 2, 4),))
    c = b.add(b.mul(f, c), b.mul(i, g))
    h = b.mul(o, b.apply("tanh", (c,)))
    return (h if w.w_hr is None else _product(b, h, w.w_hr)), c


def _gru_step(b: Builder, driven: Node, states: States, w: _Weights) -> States:
    (h,) = states
    hidden = _product(b, h, w.w_hh, w.b_hh)
    r, z = (b.apply("sigmoid", (b.add(_part(b, driven, p, 3), _part(b, hidden, p, 3)),)) for p in (0, 1))
    n = b.apply("tanh", (b.add(_part(b, driven, 2, 3), b.mul(r, _part(b, hidden, 2, 3))),))
    return (b.add(b.mul(b.sub(h, n), z), n),)


def _tanh_step(b: Builder, driven: Node, states: States, w: _Weights) -> States:
    return (b.apply("tanh", (b.add(driven, _product(b, states[0], w.w_hh)),)),)


def _relu_step(b: Builder, driven: Node, states: States, w: _Weights) -> States:
    sum = b.add(driven, _product(b, states[0], w.w_hh))
    low = b.zeros_like(sum)
    return (b.select(b.apply("le", (sum, low)), low, sum),)


class _Kind(NamedTuple):
    """A recurrent network: its name, how many states it has, one step, and whether the hidden state's bias can be added
    to what the input drives."""

    name: str
    states: int
    step: Callable[[Builder, Node, States, _Weights], States]
    joined_bias: bool = True


_LSTM = _Kind("lstm", 2, _lstm_step)
_GRU = _Kind("gru", 1, _gru_step, joined_bias=False)
_TANH = _Kind("rnn_tanh", 1, _tanh_step)
_RELU = _Kind("rnn_relu", 1, _relu_step)


def _drive(b: Builder, x: Node, w: _Weights, kind: _Kind) -> Node:
    """What the input adds to the gates; x is (rows, features)."""
    return _product(b, x, w.w_ih, w.b_ih, w.b_hh if kind.joined_bias else None)


_KINDS = {kind.name: kind for kind in (_LSTM, _GRU, _TANH, _RELU)}


def _written_out(
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
    kind, masked = _KINDS[name], mask is not None

    def emit(b: Builder, x: Node, *rest: Node) -> list[Node]:
        if batch_first:
            x = b.permute(x, (1, 0, 2))
        steps, rows, features = x.shape
        starts = [b.slice(h, (place, 0, 0), (1, *h.shape[1:]), (1, 1, 1)) for h in rest[: kind.states]]
        now: States = tuple(b.reshape(start, start.shape[1:]) for start in starts)
        w = _weights(rest[kind.states : len(rest) - masked], biased)
        if masked:
            kept = b.broadcast(b.reshape(rest[-1], (steps, rows, 1)), x.shape)
            x = b.select(kept, x, b.zeros_like(x))
        all_driven = _drive(b, b.reshape(x, (steps * rows, features)), w, kind)
        made: list[Node] = [x] * steps
        for t in range(steps - 1, -1, -1) if reverse else range(steps):
            driven = b.slice(all_driven, (t * rows, 0), (rows, all_driven.shape[1]), (1, 1))
            new = kind.step(b, driven, now, w)
            out = new[0]
            if masked:
                here = b.slice(rest[-1], (t, 0), (1, rows), (1, 1))
                alive = [b.broadcast(b.reshape(here, (rows, 1)), s.shape) for s in new]
                out = b.select(alive[0], out, b.zeros_like(out))
                new = tuple(b.select(a, n, old) for a, n, old in zip(alive, new, now, strict=True))
            now = new
            made[t] = b.reshape(out, (1, *out.shape))
        return [b.concat(tuple(made), 0), *now]

    operands = (input, *hx, *weights, *((mask,) if mask is not None else ()))
    return tuple(record_many("StackBackward0", operands, emit))


_layer = repeatable(_written_out)
_piece = steady(repeatable(_written_out))


def _in_pieces(
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
    """`_layer`, computed piece by piece."""
    axis, recorder = int(batch_first), current()
    ends = [narrow(h, 0, place, 1) for h in hx]
    outputs: list[np.ndarray] = []
    states: Sequence[Tensor] = ()
    with recorder.lock:
        if recorder.has_pending():
            recorder.flush("")
        for first, size in _pieces(input._type.shape[axis], reverse):
            x = narrow(input, axis, first, size)
            part = narrow(mask, 0, first, size) if mask is not None else None
            output, *states = _piece(name, x, ends, 0, weights, biased, batch_first, reverse, part)
            recorder.flush_compiled()
            outputs.append(output._array())
            ends = [unsqueeze(state, 0) for state in states]
    return from_array(np.concatenate(outputs[::-1] if reverse else outputs), hx[0]._type.dtype), *states


def _pieces(steps: int, reverse: bool) -> list[tuple[int, int]]:
    """Where pieces of so many steps begin, and how long they are, in the order in which they are run."""
    made: list[tuple[int, int]] = []
    first = 0
    for size in PIECES:
        for _ in range((steps - first) // size):
            made.append((first, size))
            first += size
    return made[::-1] if reverse else made


def _is_any_length(kind: _Kind, input: Tensor, steps: int, others: Sequence[Tensor]) -> bool:
    """Whether a layer sees sequences of ever new lengths, of which nothing but the result is wanted."""
    recorder = current()
    if recorder.capture is not None or recorder.example_since is not None or not INTERPRET.get():
        return False
    if input._type.device != "cpu" or wants_grad((input, *others)):
        return False
    about = "length", kind.name, input._type.shape[-1], others[0]._type.shape
    return moves(about, steps, MOST_LENGTHS)


def _network(
    kind: _Kind,
    input: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    mask: Tensor | None,
) -> tuple[Tensor, ...]:
    directions = 2 if bidirectional else 1
    size = len(params) // (num_layers * directions)
    x = input
    if x._type.shape[1 if batch_first else 0] == 0:
        raise UsageError("Expected sequence length to be larger than 0 in RNN")
    for h in hx:
        if h.ndim != 3 or h._type.shape[0] < num_layers * directions:
            raise RangeError(
                f"{kind.name}: states must have the shape ({num_layers * directions} or more layers and directions, "
                f"batch, size), but got {h._type}"
            )
    steps = x._type.shape[1 if batch_first else 0]
    run = _in_pieces if _is_any_length(kind, x, steps, (*hx, *params)) else _layer
    finals: list[list[Tensor]] = [[] for _ in hx]
    for layer in range(num_layers):
        outputs: list[Tensor] = []
        for direction in range(directions):
            place = layer * directions + direction
            weights = params[place * size : (place + 1) * size]
            first = batch_first and not layer
            made = run(kind.name, x, hx, place, weights, has_biases, first, direction == 1, mask)
            outputs.append(made[0])
            for found, state in zip(finals, made[1:], strict=True):
                found.append(state)
        x = cat(outputs, 2) if bidirectional else outputs[0]
        if dropout and train and layer < num_layers - 1:
            x = drop(x, dropout, True)
    return (transpose(x, 0, 1) if batch_first else x, *(stack(found, 0) for found in finals))


@autocasts
def lstm(
    input: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    *,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Long short-term memory over (time, batch, features): outputs, last hidden states, last cell states.

    `params` lists, layer by layer and direction by direction, w_ih, w_hh, the biases if there are any, and the
    projection if there is one. Beyond PyTorch: sequences end where `mask` (time, batch) becomes false.
    """
    return _network(_LSTM, input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first, mask)  # type: ignore[return-value]


def _single(kind: _Kind, what: str) -> Callable[..., tuple[Tensor, Tensor]]:
    def function(
        input: Tensor,
        hx: Tensor,
        params: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
        *,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        return _network(
            kind, input, (hx,), params, has_biases, num_layers, dropout, train, bidirectional, batch_first, mask
        )  # type: ignore[return-value]

    about = f"{what} over (time, batch, features): outputs and last hidden states. Arguments as `lstm`'s."
    return autocasts(named(function, kind.name, about))


gru = _single(_GRU, "Gated recurrent units")
rnn_tanh = _single(_TANH, "A recurrent network with tanh")
rnn_relu = _single(_RELU, "A recurrent network with max(x, 0)")


def _check_cell(input: Tensor, states: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor) -> None:
    (rows, features), size = input._type.shape, w_hh._type.shape[1]
    if features != w_ih._type.shape[1]:
        raise UsageError(f"input has inconsistent input_size: got {features} expected {w_ih._type.shape[1]}")
    for place, state in enumerate(states):
        if state._type.shape[0] != rows:
            raise UsageError(f"Input batch size {rows} doesn't match hidden{place} batch size {state._type.shape[0]}")
        if state._type.shape[1] != size:
            raise UsageError(f"hidden{place} has inconsistent hidden_size: got {state._type.shape[1]}, expected {size}")


def _cell(
    kind: _Kind,
    input: Tensor,
    states: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> list[Tensor]:
    _check_cell(input, states, w_ih, w_hh)
    biases = [bias for bias in (b_ih, b_hh) if isinstance(bias, TensorBase)]

    def emit(b: Builder, x: Node, *rest: Node) -> Sequence[Node]:
        w = _weights(rest[kind.states :], bool(biases))
        return kind.step(b, _drive(b, x, w, kind), rest[: kind.states], w)

    return record_many(f"{kind.name}_cell", (input, *states, w_ih, w_hh, *biases), emit)


@autocasts
def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: (batch, features) and the two states give the new states."""
    h, c = _cell(_LSTM, input, hx, w_ih, w_hh, b_ih, b_hh)
    return h, c


def _single_cell(kind: _Kind, what: str) -> Callable[..., Tensor]:
    def function(
        input: Tensor,
        hx: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Tensor:
        return _cell(kind, input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]

    about = f"One step of {what}: (batch, features) and the hidden state give the new one."
    return autocasts(named(function, f"{kind.name}_cell", about))


gru_cell = _single_cell(_GRU, "gated recurrent units")
rnn_tanh_cell = _single_cell(_TANH, "a recurrent network with tanh")
rnn_relu_cell = _single_cell(_RELU, "a recurrent network with max(x, 0)")
