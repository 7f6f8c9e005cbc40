"""Multi-head attention. A. Vaswani et al., "Attention is all you need", 2017."""

from __future__ import annotations

import math
import warnings
from typing import Any

from graphc import Tensor, arange, bmm, bool, cat, empty, where, zeros, zeros_like
from graphc.nn import functional as F
from graphc.nn import init
from graphc.nn.linear import Linear
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter


def added_mask(mask: Tensor | None, name: str, dtype: Any, other: Tensor | None = None, other_name: str = "") -> Any:
    """A mask as numbers to add to scores: true (not allowed to be looked at) becomes -inf. AssertionError for integers;
    a warning when its dtype is not that of `other`."""
    if mask is None:
        return None
    if mask.dtype != bool and not mask.is_floating_point():
        raise AssertionError(f"only bool and floating types of {name} are supported")
    if other is not None and mask.dtype != other.dtype:
        warnings.warn(
            f"Support for mismatched {name} and {other_name} is deprecated. Use same type for both instead.",
            stacklevel=3,
        )
    if mask.is_floating_point():
        return mask
    return zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


def _check_ranks(query: Tensor, key: Tensor, value: Tensor, padding: Any, mask: Any, heads: int) -> None:
    if query.dim() not in (2, 3):
        raise AssertionError(
            f"query should be unbatched 2D or batched 3D tensor but received {query.dim()}-D query tensor"
        )
    rank = query.dim()
    start = f"For {'batched' if rank == 3 else 'unbatched'} ({rank}-D) `query`, expected"
    if key.dim() != rank or value.dim() != rank:
        raise AssertionError(
            f"{start} `key` and `value` to be {rank}-D but found {key.dim()}-D and {value.dim()}-D tensors respectively"
        )
    if padding is not None and padding.dim() != rank - 1:
        raise AssertionError(
            f"{start} `key_padding_mask` to be `None` or {rank - 1}-D but found {padding.dim()}-D tensor instead"
        )
    if mask is None:
        return
    if mask.dim() not in (2, 3):
        raise AssertionError(f"{start} `attn_mask` to be `None`, 2-D or 3-D but found {mask.dim()}-D tensor instead")
    wanted = (heads, query.shape[0], key.shape[0])
    if rank == 2 and mask.dim() == 3 and tuple(mask.shape) != wanted:
        raise AssertionError(f"Expected `attn_mask` shape to be {wanted} but got {mask.shape}")


def _checked_mask(mask: Tensor, wanted: tuple[int, int, int]) -> Tensor:
    """A mask of rank 2 or 3 as one of rank 3."""
    rows = wanted if mask.dim() == 3 else wanted[1:]
    if tuple(mask.shape) != rows:
        raise RuntimeError(f"The shape of the {mask.dim()}D attn_mask is {mask.shape}, but should be {rows}.")
    return mask if mask.dim() == 3 else mask.unsqueeze(0)


def _weights(scores: Tensor, safe: Any) -> Tensor:
    """Softmax over the last dimension; with `safe`, rows that may look at nothing are 0."""
    if not safe:
        return F.softmax(scores, dim=-1)
    nothing = scores.amax(-1, True) == float("-inf")
    return F.softmax(scores.masked_fill(nothing, 0.0), dim=-1).masked_fill(nothing, 0.0)


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: Any,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: Any = True,
    key_padding_mask: Tensor | None = None,
    need_weights: Any = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: Any = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: Any = True,
    is_causal: Any = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of (target, batch, features) to (source, batch, features) in `num_heads` parts: the outputs and, if
    wanted, the weights (batch, target, source), averaged over the heads or (batch, heads, target, source).

    Without a batch dimension everything lacks it. A true or -inf mask keeps a query from a key.
    """
    _check_ranks(query, key, value, key_padding_mask, attn_mask, num_heads)
    batched = query.dim() == 3
    if not batched:
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
    steps, batch, size = query.shape
    sources = key.shape[0]
    padding = added_mask(key_padding_mask, "key_padding_mask", query.dtype, attn_mask, "attn_mask")
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask."
        )
    if is_causal and padding is None and not need_weights:
        attn_mask = arange(sources).unsqueeze(0) > arange(steps).unsqueeze(1)
    mask = added_mask(attn_mask, "attn_mask", query.dtype)
    if size != embed_dim_to_check:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim_to_check}, but got {size}")
    width = size // num_heads
    if width * num_heads != size:
        raise AssertionError(f"embed_dim {size} not divisible by num_heads {num_heads}")
    if use_separate_proj_weight and key.shape[:2] != value.shape[:2]:
        raise AssertionError(f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}")
    if not use_separate_proj_weight and key.shape != value.shape:
        raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        weights = (None,) * 3 if in_proj_weight is None else in_proj_weight.chunk(3)
    if any(w is None for w in weights):
        raise AssertionError("multi_head_attention_forward: a projection weight is None")
    biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))  # type: ignore[arg-type]
    mask = None if mask is None else _checked_mask(mask, (batch * num_heads, steps, sources))
    more = 0
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise AssertionError(f"bias cannot be added to static {'key' if static_k is not None else 'value'}.")
        k, v = (cat([x, b.expand(1, batch, size)]) for x, b in ((k, bias_k), (v, bias_v)))
        more += 1
    q, k, v = (x.reshape(x.shape[0], batch * num_heads, width).transpose(0, 1) for x in (q, k, v))
    k, v = k if static_k is None else static_k, v if static_v is None else static_v
    if add_zero_attn:
        k, v = (cat([x, zeros((batch * num_heads, 1, width), dtype=x.dtype)], 1) for x in (k, v))
        more += 1
    if more:
        mask, padding = (None if m is None else F.pad(m, (0, more)) for m in (mask, padding))
    sources = k.shape[1]
    if padding is not None:
        for place, wanted in enumerate((batch, sources)):
            if padding.shape[place] != wanted:
                raise AssertionError(
                    f"Expected key_padded_mask.shape[{place}] to be {wanted}, but got {padding.shape[place]}"
                )
        spread = padding.reshape(batch, 1, 1, sources).expand(batch, num_heads, 1, sources)
        spread = spread.reshape(batch * num_heads, 1, sources)
        mask = spread if mask is None else mask + spread
    scores = bmm(q * math.sqrt(1.0 / width), k.transpose(-2, -1))
    if mask is not None:
        scores = mask + scores
    looks = _weights(scores, safe=mask is not None and not need_weights)
    if training and dropout_p > 0.0:
        looks = F.dropout(looks, dropout_p)
    made = bmm(looks, v).transpose(0, 1).reshape(steps, batch, size)
    made = F.linear(made, out_proj_weight, out_proj_bias)
    shown = looks.reshape(batch, num_heads, steps, sources)
    if average_attn_weights:
        shown = shown.mean(1)
    if not batched:
        shown = shown.squeeze(0)
    return (made if batched else made.squeeze(1)), shown if need_weights else None


class NonDynamicallyQuantizableLinear(Linear):
    """A `Linear` under the name that PyTorch's attention prints."""


class MultiheadAttention(Module):
    """Attention of queries to keys and values in several heads: (target, batch, embed_dim), or batch first, or without
    a batch. Keys and values may have other sizes, `kdim` and `vdim`.

    The weights start as Xavier's uniform, the biases as zeros.
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: Any = True,
        add_bias_kv: Any = False,
        add_zero_attn: Any = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: Any = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                "embed_dim and num_heads must be greater than 0, "
                f"got embed_dim={embed_dim} and num_heads={num_heads} instead"
            )
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise AssertionError("embed_dim must be divisible by num_heads")
        shapes: dict[str, tuple[int, ...] | None] = dict.fromkeys(("in_proj_weight", "q_proj_weight"))
        if self._qkv_same_embed_dim:
            shapes = {"in_proj_weight": (3 * embed_dim, embed_dim)}
            shapes |= dict.fromkeys(("q_proj_weight", "k_proj_weight", "v_proj_weight"))
        else:
            shapes = {"q_proj_weight": (embed_dim, embed_dim), "k_proj_weight": (embed_dim, self.kdim)}
            shapes |= {"v_proj_weight": (embed_dim, self.vdim), "in_proj_weight": None}
        shapes["in_proj_bias"] = (3 * embed_dim,) if bias else None
        for name, shape in shapes.items():
            self._add(name, shape, device, dtype)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        for name in ("bias_k", "bias_v"):
            self._add(name, (1, 1, embed_dim) if add_bias_kv else None, device, dtype)
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _add(self, name: str, shape: tuple[int, ...] | None, device: Any, dtype: Any) -> None:
        made = None if shape is None else Parameter(empty(shape, device=device, dtype=dtype))
        self.register_parameter(name, made)

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            assert self.out_proj.bias is not None
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: Any = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: Any = True,
        is_causal: Any = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The outputs and, with `need_weights`, the attention weights."""
        turned = self.batch_first and query.dim() == 3
        if turned:
            query, key, value = (x.transpose(1, 0) for x in (query, key, value))
        made, weights = multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            self.training,
            key_padding_mask,
            need_weights,
            attn_mask,
            not self._qkv_same_embed_dim,
            self.q_proj_weight,
            self.k_proj_weight,
            self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return (made.transpose(1, 0) if turned else made), weights


def hide_padding(output: Tensor, padding: Tensor) -> Tensor:
    """`output` (batch, steps, features) with 0 where `padding` is true or -inf, if all padding stands at the ends."""
    padded: Any = padding if padding.dtype == bool else padding == float("-inf")
    aligned = (padded[:, 1:] | ~padded[:, :-1]).all()
    return where((padded & aligned).unsqueeze(-1), 0.0, output)
