"""Attention and transformers against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn
from tests.differential.compare import floats, torch
from tests.differential.modules import compare, pair, same

pytestmark = pytest.mark.filterwarnings(
    "ignore:enable_nested_tensor is True", "ignore:Support for mismatched", "ignore:The PyTorch API of nested tensors"
)

Q, K, V = floats(3, 2, 4), floats(5, 2, 4), floats(5, 2, 4, seed=1)


def padding(t: Any, batch: int = 2, steps: int = 5) -> Any:
    return t.tensor(np.arange(batch * steps).reshape(batch, steps) % steps >= steps - 2 + np.arange(batch)[:, None])


def upper(t: Any, rows: int, columns: int) -> Any:
    return t.tensor(np.triu(np.ones((rows, columns), bool), 1))


def scores(t: Any, *shape: int) -> Any:
    return t.tensor(floats(*shape, seed=3))


ATTENTION: dict[str, Any] = {
    "plain": ({}, lambda t, m, q, k, v: m(q, k, v)),
    "odd": ({"num_heads": 1, "bias": False}, lambda t, m, q, k, v: m(q, k, v)),
    "no_weights": ({}, lambda t, m, q, k, v: m(q, k, v, need_weights=False)),
    "heads": ({}, lambda t, m, q, k, v: m(q, k, v, average_attn_weights=False)),
    "padding": ({}, lambda t, m, q, k, v: m(q, k, v, padding(t))),
    "mask": ({}, lambda t, m, q, k, v: m(q, k, v, attn_mask=upper(t, 3, 5))),
    "mask_3d": ({}, lambda t, m, q, k, v: m(q, k, v, attn_mask=scores(t, 4, 3, 5), need_weights=False)),
    "both": ({}, lambda t, m, q, k, v: m(q, k, v, padding(t), attn_mask=scores(t, 3, 5))),
    "causal": ({}, lambda t, m, q, k, v: m(k, k, v, None, False, upper(t, 5, 5), is_causal=True)),
    "causal_weights": ({}, lambda t, m, q, k, v: m(k, k, v, None, True, upper(t, 5, 5), is_causal=True)),
    "bias_kv": ({"add_bias_kv": True}, lambda t, m, q, k, v: m(q, k, v, padding(t), attn_mask=upper(t, 3, 5))),
    "zero": ({"add_zero_attn": True, "add_bias_kv": True}, lambda t, m, q, k, v: m(q, k, v, padding(t))),
    "zero_mask": ({"add_zero_attn": True}, lambda t, m, q, k, v: m(q, k, v, attn_mask=upper(t, 3, 5))),
    "unbatched": ({}, lambda t, m, q, k, v: m(q[:, 0], k[:, 0], v[:, 0], padding(t)[0])),
    "unbatched_heads": ({}, lambda t, m, q, k, v: m(q[:, 0], k[:, 0], v[:, 0], attn_mask=scores(t, 2, 3, 5),
                                                    average_attn_weights=False)),
    "sizes": ({"kdim": 4, "vdim": 2}, lambda t, m, q, k, v: m(q, k, v[:, :, :2])),
    "sizes_no_bias": ({"kdim": 2, "bias": False}, lambda t, m, q, k, v: m(q, k[:, :, :2], v)),
    "batch_first": ({"batch_first": True}, lambda t, m, q, k, v: m(q.transpose(0, 1), k.transpose(0, 1),
                                                                   v.transpose(0, 1), padding(t))),
    "dropped": ({"dropout": 1.0}, lambda t, m, q, k, v: m(q, k, v)),
    "nothing_to_see": ({}, lambda t, m, q, k, v: m(q, k, v, t.ones(2, 5).bool(), need_weights=False)[0].detach()),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str) -> None:
    options, call = ATTENTION[name]
    theirs, ours = pair(lambda nn: nn.MultiheadAttention(**{"embed_dim": 4, "num_heads": 2, **options}))
    compare(theirs, ours, [Q, K, V], call)


def test_fast_path_in_evaluation() -> None:
    theirs, ours = pair(lambda nn: nn.MultiheadAttention(4, 2, batch_first=True))
    theirs.eval(), ours.eval()

    def call(t: Any, m: Any, x: Any) -> Any:
        with t.no_grad():
            return m(x, x, x, padding(t))

    compare(theirs, ours, [floats(2, 5, 4)], call)


BAD: dict[str, Any] = {
    "sizes": lambda t, nn: nn.MultiheadAttention(5, 2),
    "zero": lambda t, nn: nn.MultiheadAttention(0, 2),
    "rank": lambda t, nn: nn.MultiheadAttention(4, 2)(t.ones(4), t.ones(4), t.ones(4)),
    "key_rank": lambda t, nn: nn.MultiheadAttention(4, 2)(t.ones(3, 2, 4), t.ones(3, 4), t.ones(3, 4)),
    "unbatched_rank": lambda t, nn: nn.MultiheadAttention(4, 2)(t.ones(3, 4), t.ones(3, 2, 4), t.ones(3, 2, 4)),
    "mask_rank": lambda t, nn: nn.MultiheadAttention(4, 2)(*[t.ones(3, 2, 4)] * 3, attn_mask=t.ones(3)),
    "mask_shape": lambda t, nn: nn.MultiheadAttention(4, 2)(*[t.ones(3, 2, 4)] * 3, attn_mask=t.ones(3, 4)),
    "mask_shape_3d": lambda t, nn: nn.MultiheadAttention(4, 2)(*[t.ones(3, 2, 4)] * 3, attn_mask=t.ones(2, 3, 3)),
    "mask_dtype": lambda t, nn: nn.MultiheadAttention(4, 2)(*[t.ones(3, 2, 4)] * 3, attn_mask=t.ones(3, 3).long()),
    "padding_rank": lambda t, nn: nn.MultiheadAttention(4, 2)(*[t.ones(3, 2, 4)] * 3, t.ones(3)),
    "padding_shape": lambda t, nn: nn.MultiheadAttention(4, 2)(*[t.ones(3, 2, 4)] * 3, t.ones(2, 4)),
    "padding_batch": lambda t, nn: nn.MultiheadAttention(4, 2)(*[t.ones(3, 2, 4)] * 3, t.ones(1, 3)),
    "width": lambda t, nn: nn.MultiheadAttention(4, 2)(*[t.ones(3, 2, 6)] * 3),
    "value": lambda t, nn: nn.MultiheadAttention(4, 2)(t.ones(3, 2, 4), t.ones(3, 2, 4), t.ones(4, 2, 4)),
    "hint": lambda t, nn: nn.MultiheadAttention(4, 2)(*[t.ones(3, 2, 4)] * 3, is_causal=True),
    "activation": lambda t, nn: nn.TransformerEncoderLayer(4, 2, activation="tanh"),
    "batch": lambda t, nn: nn.Transformer(4, 2, 1, 1, 4)(t.ones(3, 2, 4), t.ones(3, 1, 4)),
    "features": lambda t, nn: nn.Transformer(4, 2, 1, 1, 4)(t.ones(3, 2, 4), t.ones(3, 2, 3)),
}


@pytest.mark.parametrize("name", BAD)
def test_errors(name: str) -> None:
    assert "Error" in same(lambda t: BAD[name](t, t.nn))


ENCODERS: dict[str, Any] = {
    "usual": {},
    "norm_first": {"batch_first": True, "norm_first": True},
    "batch_first": {"batch_first": True},
    "no_bias": {"bias": False},
    "odd": {"nhead": 1, "batch_first": True},
    "gelu": {"batch_first": True, "activation": "gelu"},
}


@pytest.mark.parametrize("name", ENCODERS)
def test_warnings_of_the_encoder(name: str) -> None:
    def function(t: Any) -> int:
        layer = t.nn.TransformerEncoderLayer(**{"d_model": 4, "nhead": 2, **ENCODERS[name]})
        return len(t.nn.TransformerEncoder(layer, 2).layers)

    same(function)


LAYER: dict[str, Any] = {
    "usual": {},
    "norm_first": {"norm_first": True, "activation": "gelu"},
    "batch_first": {"batch_first": True, "bias": False},
}


@pytest.mark.parametrize("name", LAYER)
def test_encoder_layers(name: str) -> None:
    options = {"d_model": 4, "nhead": 2, "dim_feedforward": 6, "dropout": 0.0, **LAYER[name]}
    theirs, ours = pair(lambda nn: nn.TransformerEncoderLayer(**options))
    compare(theirs, ours, [floats(3, 2, 4)])
    compare(theirs, ours, [floats(5, 5, 4)], lambda t, m, x: m(x, upper(t, 5, 5), padding(t, 5), is_causal=True))


@pytest.mark.parametrize("name", LAYER)
def test_decoder_layers(name: str) -> None:
    options = {"d_model": 4, "nhead": 2, "dim_feedforward": 6, "dropout": 0.0, **LAYER[name]}
    theirs, ours = pair(lambda nn: nn.TransformerDecoderLayer(**options))
    compare(theirs, ours, [floats(3, 3, 4), floats(3, 3, 4, seed=1)])
    compare(
        theirs,
        ours,
        [floats(3, 3, 4), floats(3, 3, 4, seed=1)],
        lambda t, m, x, y: m(x, y, upper(t, 3, 3), scores(t, 3, 3), None, scores(t, 3, 3)),
    )


def test_an_activation_of_ones_own() -> None:
    def make(nn: Any) -> Any:
        library = torch if nn is torch.nn else graphc
        return nn.TransformerEncoderLayer(4, 2, 6, 0.0, activation=lambda x: library.tanh(x) * 2)

    theirs, ours = pair(make)
    compare(theirs, ours, [floats(3, 2, 4)])


def test_encoder_and_padding_in_evaluation() -> None:
    def make(nn: Any) -> Any:
        return nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), 2, nn.LayerNorm(4))

    theirs, ours = pair(make)
    theirs.eval(), ours.eval()
    compare(theirs, ours, [floats(2, 5, 4)])
    compare(theirs, ours, [floats(2, 5, 4)], lambda t, m, x: m(x, src_key_padding_mask=padding(t)))

    def without(t: Any, m: Any, x: Any) -> Any:
        with t.no_grad():
            return m(x, src_key_padding_mask=padding(t)), m(x)

    compare(theirs, ours, [floats(2, 5, 4)], without)


def test_transformer() -> None:
    theirs, ours = pair(lambda nn: nn.Transformer(4, 2, 1, 2, 6, dropout=0.0))

    def call(t: Any, m: Any, x: Any, y: Any) -> Any:
        mask = m.generate_square_subsequent_mask(3)
        return m(x, y, tgt_mask=mask, src_key_padding_mask=padding(t), memory_key_padding_mask=padding(t)), mask

    compare(theirs, ours, [floats(5, 2, 4), floats(3, 2, 4)], call)
    compare(theirs, ours, [floats(5, 4), floats(3, 4)])
