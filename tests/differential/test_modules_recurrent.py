"""Recurrent layers and packed sequences against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn
from tests.differential.compare import floats, to, torch
from tests.differential.modules import compare, pair, same

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

NETWORKS: dict[str, Any] = {
    "rnn": lambda nn: nn.RNN(3, 4),
    "rnn_relu": lambda nn: nn.RNN(3, 4, 2, "relu", bias=False),
    "rnn_both": lambda nn: nn.RNN(3, 4, bidirectional=True, batch_first=True),
    "lstm": lambda nn: nn.LSTM(3, 4),
    "lstm_deep": lambda nn: nn.LSTM(3, 4, 2, bidirectional=True),
    "lstm_first": lambda nn: nn.LSTM(3, 4, batch_first=True, bias=False),
    "lstm_projected": lambda nn: nn.LSTM(3, 5, 2, proj_size=2, bidirectional=True),
    "gru": lambda nn: nn.GRU(3, 4),
    "gru_deep": lambda nn: nn.GRU(3, 4, 2, bidirectional=True, batch_first=True, bias=False),
}


def states(module: Any, batch: int | None, library: Any) -> Any:
    """Initial states that a module takes."""
    rows = module.num_layers * (2 if module.bidirectional else 1)
    middle = () if batch is None else (batch,)
    h = to(library, floats(rows, *middle, module.proj_size or module.hidden_size))
    c = to(library, floats(rows, *middle, module.hidden_size, seed=1))
    return (h, c) if module.mode == "LSTM" else h


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    theirs, ours = pair(NETWORKS[name])
    rows = 4 if ours.batch_first else 2  # the input is (4, 2, 3)
    compare(theirs, ours, [floats(4, 2, 3)])
    compare(theirs, ours, [floats(4, 2, 3)], lambda t, m, x: m(x, states(m, rows, t)))
    compare(theirs, ours, [floats(5, 3)])
    compare(theirs, ours, [floats(5, 3)], lambda t, m, x: m(x, states(m, None, t)))


@pytest.mark.parametrize("name", ["rnn_relu", "lstm", "lstm_projected", "gru_deep"])
@pytest.mark.parametrize("given", [False, True])
def test_packed_networks(name: str, given: bool) -> None:
    theirs, ours = pair(NETWORKS[name])

    def call(t: Any, module: Any, x: Any) -> Any:
        rnn = t.nn.utils.rnn
        packed = rnn.pack_padded_sequence(x, [2, 5, 1, 4], enforce_sorted=False)
        out, last = module(packed, states(module, 4, t) if given else None)
        return rnn.pad_packed_sequence(out, padding_value=-1.0), out.data, out.batch_sizes, last

    compare(theirs, ours, [floats(5, 4, 3)], call)


def test_a_packed_sequence_made_by_hand() -> None:
    theirs, ours = pair(NETWORKS["lstm"])

    def call(t: Any, module: Any, x: Any) -> Any:
        out, last = module(t.nn.utils.rnn.PackedSequence(x, t.tensor([3, 2, 1])))
        return out.data, last, t.nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=5)

    compare(theirs, ours, [floats(6, 3)], call)


CELLS: dict[str, Any] = {
    "rnn": (lambda nn: nn.RNNCell(3, 4), 1),
    "rnn_relu": (lambda nn: nn.RNNCell(3, 4, bias=False, nonlinearity="relu"), 1),
    "lstm": (lambda nn: nn.LSTMCell(3, 4), 2),
    "gru": (lambda nn: nn.GRUCell(3, 4), 1),
    "gru_no_bias": (lambda nn: nn.GRUCell(3, 4, bias=False), 1),
}


@pytest.mark.parametrize("name", CELLS)
def test_cells(name: str) -> None:
    make, count = CELLS[name]
    theirs, ours = pair(make)
    compare(theirs, ours, [floats(2, 3)])
    compare(theirs, ours, [floats(3)])
    hidden = [floats(2, 4, seed=n) for n in range(count)]
    compare(theirs, ours, [floats(2, 3), *hidden], lambda t, m, x, *h: m(x, h if count == 2 else h[0]))
    compare(theirs, ours, [floats(3), *(h[0] for h in hidden)], lambda t, m, x, *h: m(x, h if count == 2 else h[0]))


def test_dropout_between_layers() -> None:
    ours = graphc.nn.LSTM(3, 4, 3, dropout=1.0)
    theirs, _ = pair(lambda nn: nn.LSTM(3, 4, 3, dropout=1.0))
    ours.load_state_dict({name: graphc.tensor(v.numpy()) for name, v in theirs.state_dict().items()})
    compare(theirs, ours, [floats(3, 2, 3)])
    theirs.eval(), ours.eval()
    compare(theirs, ours, [floats(3, 2, 3)])


def sequences(t: Any) -> list[Any]:
    return [t.arange(n * 2.0).reshape(n, 2) + 10 * n for n in (2, 4, 1)]


SEQUENCES: dict[str, Any] = {
    "pad": lambda t, r: r.pad_sequence(sequences(t)),
    "pad_first": lambda t, r: r.pad_sequence(sequences(t), batch_first=True, padding_value=-1.0),
    "pad_left": lambda t, r: r.pad_sequence(sequences(t), True, 5.0, "left"),
    "pad_integers": lambda t, r: r.pad_sequence([t.tensor([1, 2]), t.tensor([3])]),
    "pad_pending": lambda t, r: r.pad_sequence([s * 2 for s in sequences(t)], padding_value=3.0),
    "pad_grad": lambda t, r: r.pad_sequence([s.requires_grad_() * 1 for s in sequences(t)], True, 0.0, "left").detach(),
    "pad_nothing": lambda t, r: r.pad_sequence(3),
    "pad_side": lambda t, r: r.pad_sequence(sequences(t), padding_side="up"),
    "pack": lambda t, r: r.pack_sequence(sequences(t), enforce_sorted=False),
    "pack_sorted": lambda t, r: r.pack_sequence(sorted(sequences(t), key=len, reverse=True)),
    "pack_unsorted": lambda t, r: r.pack_sequence(sequences(t)),
    "pack_padded": lambda t, r: r.pack_padded_sequence(t.arange(12).reshape(3, 4), t.tensor([4, 2, 2]), True),
    "pack_truncates": lambda t, r: r.pack_padded_sequence(t.arange(12.0).reshape(4, 3), [3, 2, 1]),
    "pack_zero": lambda t, r: r.pack_padded_sequence(t.ones(3, 2), [3, 0]),
    "pack_count": lambda t, r: r.pack_padded_sequence(t.ones(3, 2), [3]),
    "unpack": lambda t, r: r.unpack_sequence(r.pack_sequence(sequences(t), enforce_sorted=False)),
    "unpad": lambda t, r: r.unpad_sequence(t.arange(12).reshape(3, 4), t.tensor([2, 3, 1, 1])),
    "padded": lambda t, r: r.pad_packed_sequence(r.pack_sequence(sequences(t), False), True, -1.0, 6),
    "padded_short": lambda t, r: r.pad_packed_sequence(r.pack_sequence(sequences(t), False), total_length=2),
    "converted": lambda t, r: r.pack_sequence(sequences(t), False).double().data,
    "parts": lambda t, r: list(r.pack_sequence(sequences(t), False)),
    "field": lambda t, r: r.pack_sequence(sequences(t), False)[0],
    "invert": lambda t, r: r.invert_permutation(t.tensor([2, 0, 1])),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name: str) -> None:
    same(lambda t: SEQUENCES[name](t, t.nn.utils.rnn))


BAD: dict[str, Any] = {
    "dropout": lambda t, nn: nn.LSTM(3, 4, dropout=2),
    "dropout_alone": lambda t, nn: nn.GRU(3, 4, dropout=0.5),
    "bias": lambda t, nn: nn.LSTM(3, 4, bias=1),
    "size": lambda t, nn: nn.LSTM(3.0, 4),
    "zero": lambda t, nn: nn.LSTM(3, 0),
    "layers": lambda t, nn: nn.LSTM(3, 4, 0),
    "projection": lambda t, nn: nn.LSTM(3, 4, proj_size=4),
    "projection_negative": lambda t, nn: nn.LSTM(3, 4, proj_size=-1),
    "gru_projection": lambda t, nn: nn.GRU(3, 4, proj_size=2),
    "nonlinearity": lambda t, nn: nn.RNN(3, 4, nonlinearity="gelu"),
    "cell_nonlinearity": lambda t, nn: nn.RNNCell(3, 4, nonlinearity="gelu")(t.ones(1, 3)),
    "rank": lambda t, nn: nn.LSTM(3, 4)(t.ones(1, 2, 3, 4)),
    "rank_rnn": lambda t, nn: nn.RNN(3, 4)(t.ones(3)),
    "features": lambda t, nn: nn.GRU(3, 4)(t.ones(2, 2, 4)),
    "dtype": lambda t, nn: nn.GRU(3, 4)(t.ones(2, 2, 3, dtype=t.float64)),
    "state": lambda t, nn: nn.GRU(3, 4)(t.ones(2, 2, 3), t.ones(1, 3, 4)),
    "state_rank": lambda t, nn: nn.GRU(3, 4)(t.ones(2, 2, 3), t.ones(2, 4)),
    "state_unbatched": lambda t, nn: nn.GRU(3, 4)(t.ones(2, 3), t.ones(1, 2, 4)),
    "lstm_state": lambda t, nn: nn.LSTM(3, 4)(t.ones(2, 2, 3), (t.ones(1, 2, 4), t.ones(1, 2, 5))),
    "lstm_state_rank": lambda t, nn: nn.LSTM(3, 4)(t.ones(2, 2, 3), (t.ones(2, 4), t.ones(1, 2, 4))),
    "lstm_unbatched": lambda t, nn: nn.LSTM(3, 4)(t.ones(2, 3), (t.ones(1, 2, 4), t.ones(1, 2, 4))),
    "no_steps": lambda t, nn: nn.LSTM(3, 4)(t.ones(0, 2, 3)),
    "cell_rank": lambda t, nn: nn.LSTMCell(3, 4)(t.ones(1, 1, 3)),
    "cell_state_rank": lambda t, nn: nn.GRUCell(3, 4)(t.ones(1, 3), t.ones(1, 1, 4)),
    "cell_features": lambda t, nn: nn.GRUCell(3, 4)(t.ones(1, 4)),
    "cell_batch": lambda t, nn: nn.RNNCell(3, 4)(t.ones(2, 3), t.ones(1, 4)),
    "cell_state": lambda t, nn: nn.LSTMCell(3, 4)(t.ones(2, 3), (t.ones(2, 4), t.ones(2, 5))),
}


@pytest.mark.parametrize("name", BAD)
def test_errors(name: str) -> None:
    assert "Error" in same(lambda t: BAD[name](t, t.nn)) or name == "dropout_alone"


def test_functions_take_pytorchs_arguments() -> None:
    def call(t: Any, module: Any, x: Any) -> Any:
        zeros = t.zeros(1, 2, 4)
        return t.gru(x, zeros, list(module.parameters()), True, 1, 0.0, True, False, False)

    theirs, ours = pair(NETWORKS["gru"])
    compare(theirs, ours, [floats(3, 2, 3)], call)
    got = ours(graphc.tensor(np.zeros((2, 1, 3), np.float32)))[0]
    assert tuple(got.shape) == (2, 1, 4) and torch.is_tensor(theirs(torch.zeros(2, 1, 3))[0])
