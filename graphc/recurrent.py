"""Recurrent layers as functions, under PyTorch's names: `lstm`, `gru`, `rnn_tanh`, `rnn_relu` and their cells.

A layer is written out step by step into one graph, so it is compiled, differentiated and fused like everything else; a
program is found again for every sequence length seen before. Where the lengths change from call to call, sequences are
cut into pieces of a few lengths instead, each a program of its own: the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from graphc.errors import RangeError, UsageError
from graphc.functional import dropout as drop
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.naming import named
from graphc.recurrent_layers import GRU, LSTM, RELU, TANH, Kind, cell, layer
from graphc.recurrent_pieces import in_pieces, is_any_length
from graphc.tensors.casting import autocasts
from graphc.tensors.core import TensorBase, record_many
from graphc.tensors.joining import cat, stack
from graphc.tensors.shaping import transpose

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _network(
    kind: Kind,
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
    run = in_pieces if is_any_length(kind, x, steps, hx) else layer
    finals: list[list[Tensor]] = [[] for _ in hx]
    for level in range(num_layers):
        outputs: list[Tensor] = []
        for direction in range(directions):
            place = level * directions + direction
            weights = params[place * size : (place + 1) * size]
            first = batch_first and not level
            made = run(kind.name, x, hx, place, weights, has_biases, first, direction == 1, mask)
            outputs.append(made[0])
            for found, state in zip(finals, made[1:], strict=True):
                found.append(state)
        x = cat(outputs, 2) if bidirectional else outputs[0]
        if dropout and train and level < num_layers - 1:
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
    return _network(LSTM, input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first, mask)  # type: ignore[return-value]


def _single(kind: Kind, what: str) -> Callable[..., tuple[Tensor, Tensor]]:
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


gru = _single(GRU, "Gated recurrent units")
rnn_tanh = _single(TANH, "A recurrent network with tanh")
rnn_relu = _single(RELU, "A recurrent network with max(x, 0)")


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
    kind: Kind,
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
        return cell(b, kind, x, rest[: kind.states], rest[kind.states :], bool(biases))

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
    h, c = _cell(LSTM, input, hx, w_ih, w_hh, b_ih, b_hh)
    return h, c


def _single_cell(kind: Kind, what: str) -> Callable[..., Tensor]:
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


gru_cell = _single_cell(GRU, "gated recurrent units")
rnn_tanh_cell = _single_cell(TANH, "a recurrent network with tanh")
rnn_relu_cell = _single_cell(RELU, "a recurrent network with max(x, 0)")
