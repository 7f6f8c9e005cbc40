"""Samples of attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.differential.samples.base import Op, Sample, bad, f, fixed, ints, mask, s

ROW = np.array([True, False, True])
KEPT = np.array([[True, False, True], [False, False, False]])
Q, K, V = (2, 2, 2, 4), (2, 2, 3, 4), (2, 2, 3, 3)


def heads(width: int = 4, **options: Any) -> Sample:
    """A call of `multi_head_attention_forward` with 2 heads: 3 queries, 2 samples, 4 keys."""
    query, key = f(3, 2, width), f(4, 2, width)
    kwargs: dict[str, Any] = {"bias_k": None, "bias_v": None, "add_zero_attn": False, "dropout_p": 0.0}
    kwargs |= {"query": query, "key": key, "value": f(4, 2, width), "embed_dim_to_check": width, "num_heads": 2}
    kwargs |= {"in_proj_weight": f(3 * width, width), "in_proj_bias": f(3 * width)}
    kwargs |= {"out_proj_weight": f(width, width), "out_proj_bias": f(width)}
    return Sample((), kwargs | options)


def refused(match: str, **options: Any) -> Any:
    """A call that must be refused."""
    return bad(match, **(heads().kwargs | options))


PADDING = np.array([[False, True, False, False], [False, False, False, True]])
CAUSAL = np.triu(np.ones((3, 4), bool), 1)

ATTENTION: tuple[Op, ...] = (
    Op(
        "nn.functional.scaled_dot_product_attention",
        (
            s(f(*Q), f(*K), f(*V)),
            s(f(2, 4), f(3, 4), f(3, 5)),
            s(f(*Q), f(*K), f(*V), np.broadcast_to(ROW, (2, 3)).copy()),
            s(f(*Q), f(*K), f(*V), attn_mask=fixed(f(2, 3))),
            s(f(*Q), f(*K), f(*V), KEPT),
            s(f(2, 3, 4), f(2, 3, 4), f(2, 3, 4), is_causal=True),
            s(f(*Q), f(*K), f(*V), is_causal=True, scale=0.3),
            s(f(2, 4, 2, 4), f(*K), f(*K), enable_gqa=True),
            s(f(*Q), f(2, 1, 3, 4), f(2, 1, 3, 4)),
        ),
        (
            bad("same dtype", f(2, 4), f(3, 4), ints(3, 4)),
            bad("at least", f(4), f(3, 4), f(3, 4)),
            bad("size", f(2, 4), f(3, 5), f(3, 4)),
            bad("mask dtype", f(2, 4), f(3, 4), f(3, 4), ints(2, 3)),
            bad("expected scalar type|not implemented", ints(2, 4), ints(3, 4), ints(3, 4)),
        ),
        grad_fn=False,  # PyTorch's name tells which kernel it chose
        rtol=1e-7,
    ),
    Op(
        "nn.functional.multi_head_attention_forward",
        (
            heads(),
            heads(need_weights=False),
            heads(average_attn_weights=False),
            heads(key_padding_mask=PADDING, attn_mask=CAUSAL),
            heads(key_padding_mask=PADDING, need_weights=False),
            heads(attn_mask=fixed(f(4, 3, 4)), in_proj_bias=None),
            heads(bias_k=f(1, 1, 4), bias_v=f(1, 1, 4), add_zero_attn=True, key_padding_mask=PADDING, attn_mask=CAUSAL),
            heads(
                use_separate_proj_weight=True,
                q_proj_weight=f(4, 4),
                k_proj_weight=f(4, 4),
                v_proj_weight=f(4, 4),
                in_proj_weight=None,
            ),
            heads(query=f(3, 4), key=f(4, 4), value=f(4, 4), key_padding_mask=mask(4) & False),
        ),
        (
            refused("embedding dimension", embed_dim_to_check=5),
            refused("divisible", num_heads=3),
            refused("shape of the 2D", attn_mask=CAUSAL.T.copy()),
            refused("query", query=f(3)),
            refused("is_causal", is_causal=True),
        ),
        layouts=False,
        rtol=1e-7,
        ulps=16.0,
    ),
)
