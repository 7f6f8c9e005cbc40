"""Attention (Vaswani et al., 2017), with `torch.nn.functional`'s signatures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ml_dtypes import finfo

from graphc.dropping import dropout, dropped_node, kept_node
from graphc.errors import CheckError, DTypeError, InputError, ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.narrow import HALVES
from graphc.ir.node import Node
from graphc.ir.types import bf16, boolean, broadcast_shapes, f32, i32, i64
from graphc.linear import linear
from graphc.loss_reduction import given
from graphc.random import draw_key
from graphc.recording import current
from graphc.tensors import normalising
from graphc.tensors.casting import autocasts
from graphc.tensors.core import finish, read_all, record, wants_grad
from graphc.tensors.joining import cat
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

ROUNDED = 64  # queries and keys from which on weights of 16-bit values are rounded as these to be multiplied

Parts = tuple["Tensor", "Tensor", "Tensor"]


@autocasts
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query keyᵀ · scale + mask) value: (..., L, E), (..., S, E) and (..., S, F) give (..., L, F).

    A bool mask keeps where it is true, a float mask is added; a row that keeps nothing gives zeros. `is_causal` keeps
    the first i + 1 keys for query i. With `enable_gqa`, heads (dimension -3) of key and value serve groups of queries.
    """
    tensors = (query, key, value)
    if any(t._type.dtype is not query._type.dtype for t in tensors):
        names = ", ".join(f"{n}.dtype: {t.dtype}" for n, t in zip(("query", "key", "value"), tensors, strict=True))
        raise DTypeError(f"Expected query, key, and value to have the same dtype, but got {names} instead.")
    if any(t.ndim < 2 for t in tensors):
        names = ", ".join(f"{n}.dim: {t.ndim}" for n, t in zip(("query", "key", "value"), tensors, strict=True))
        raise ShapeError(f"Expected query, key, and value to all be at least 2 dimensional, but got {names} instead.")
    if not query._type.dtype.is_float:
        raise DTypeError(f"expected scalar type Float but found {type_name(query._type.dtype)}")
    q, k, v = (t._type.shape for t in tensors)
    if q[-1] != k[-1] or k[-2] != v[-2]:
        raise ShapeError(
            f"scaled_dot_product_attention: expected size (..., L, E), (..., S, E) and (..., S, F), but got query "
            f"{query._type}, key {key._type} and value {value._type}"
        )
    if attn_mask is not None and attn_mask._type.dtype not in (boolean, query._type.dtype):
        raise DTypeError(
            "Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: "
            f"{attn_mask.dtype} and query.dtype: {query.dtype} instead."
        )
    if not 0 <= dropout_p <= 1:
        raise InputError(f"dropout probability has to be between 0 and 1, but got {dropout_p}")
    groups = _groups(q, k, v) if enable_gqa else 1
    batch = broadcast_shapes(q[:-2], *(_repeated(s, groups)[:-2] for s in (k, v)))
    mask_shape = () if attn_mask is None else attn_mask._type.shape
    broadcast_shapes(mask_shape, (*batch, q[-2], k[-2]))
    factor = 1 / math.sqrt(q[-1]) if scale is None and q[-1] else 1.0 if scale is None else scale
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        sources = given(query, key, value, attn_mask)
        grad = wants_grad(sources)
        pairs = read_all(recorder, sources, grad)
        keeps = [keep for _, keep in pairs]
        dtype = pairs[0][0].dtype
        wide = f32 if dtype in HALVES else dtype
        factors = dtype if min(q[-2], k[-2]) >= ROUNDED else wide
        x, y, z = (
            _batched(b, b.cast(pair[0], wide), batch, n) for pair, n in zip(pairs, (1, groups, groups), strict=False)
        )
        # Of 16 bits, queries and keys are multiplied as they are: scaled queries would have more.
        late = dtype in HALVES
        x = x if late else b.mul(x, float(factor))
        scores = b.rounded(b.contract(x, y, "b l e, b s e -> b l s"), wide, factors)
        scores = b.mul(scores, float(factor)) if late else scores
        scores = _masked(b, scores, batch, pairs[3][0] if attn_mask is not None else None, is_causal)
        weights, share = _powers(b, scores) if scores.type.size else (scores, None)
        # Shares come last where scores need not be stored then; f16 has no numbers for gradients times shares.
        if share is not None and factors is not bf16:
            weights, share = b.mul(weights, b.broadcast(share, weights.shape)), None
        if dropout_p > 0 and scores.type.size:
            drawn = draw_key(None)
            keeps.append(drawn)
            apart = b.reshape(weights, (*batch, q[-2], k[-2]))
            kept = kept_node(b, apart, drawn.node, apart.shape, dropout_p)
            weights = b.reshape(dropped_node(b, apart, kept, dropout_p), weights.shape)
        made = b.rounded(b.contract(b.rounded(weights, factors, wide), z, "b l s, b s f -> b l f"), wide, factors)
        made = made if share is None else b.mul(made, b.broadcast(share, made.shape))
        made = b.reshape(b.cast(made, dtype), (*batch, q[-2], v[-1]))
        name = "ScaledDotProductFlashAttentionForCpuBackward0"
        return finish(recorder, made, tuple(keeps), name, grad, [node for node, _ in pairs])


def _groups(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]) -> int:
    """How many heads of queries share one of key and value."""
    if min(len(q), len(k), len(v)) < 3 or k[-3] != v[-3] or not k[-3] or q[-3] % k[-3]:
        raise ShapeError(
            "Number of heads in key and value must divide the number of heads in query; got query "
            f"{list(q)}, key {list(k)} and value {list(v)}"
        )
    return q[-3] // k[-3]


def _repeated(shape: tuple[int, ...], groups: int) -> tuple[int, ...]:
    return shape if groups == 1 else (*shape[:-3], shape[-3] * groups, *shape[-2:])


def _batched(b: Builder, x: Node, batch: tuple[int, ...], groups: int) -> Node:
    """x with each head repeated `groups` times, broadcast over the batch, whose dimensions become one."""
    if groups > 1:
        wide = (*x.shape[:-2], groups, *x.shape[-2:])
        x = b.reshape(b.broadcast(b.reshape(x, (*x.shape[:-2], 1, *x.shape[-2:])), wide), _repeated(x.shape, groups))
    return b.reshape(b.broadcast(x, (*batch, *x.shape[-2:])), (math.prod(batch), *x.shape[-2:]))


def _masked(b: Builder, scores: Node, batch: tuple[int, ...], mask: Node | None, is_causal: bool) -> Node:
    """`scores`, whose first dimension is all of `batch`, with -inf where a key is not seen."""
    low = b.constant(-math.inf, scores.type)
    if mask is not None:
        if math.prod(mask.shape[:-2]) == 1:  # the same for all
            wide = b.broadcast(b.reshape(mask, mask.shape[-2:]), scores.shape)
        else:
            wide = b.reshape(b.broadcast(mask, (*batch, *scores.shape[1:])), scores.shape)
        is_bool = mask.dtype is boolean
        scores = b.select(wide, scores, low) if is_bool else b.add(scores, b.cast(wide, scores.dtype))
    if is_causal:
        # Numbers of 32 bits are compared in half as many vectors as those of 64.
        type = scores.type.with_dtype(i32 if max(scores.shape) < 1 << 31 else i64)
        rank = len(type.shape)
        scores = b.select(b.apply("le", (b.iota(rank - 1, type), b.iota(rank - 2, type))), scores, low)
    return scores


def _powers(b: Builder, x: Node) -> tuple[Node, Node]:
    """What a softmax along the last dimension takes the shares of, at most 1, and 1 over their sums: 0 and 1 where all
    is -inf, with no gradient.

    Where sums of values are multiplied by the shares, gradients have sums over rows of values instead of scores.
    """
    axes = (x.type.rank - 1,)
    # The largest that is finite, of -inf alone the least number: all powers are 0 then.
    top = b.reduce_max(x, axes)
    top = b.apply("detach", (b.elementwise("maximum", top, b.constant(float(finfo(x.dtype.numpy).min), top.type)),))
    powers = b.exp(b.sub(x, b.expand_dims(top, axes, x.shape)))
    total = b.reduce_sum(powers, axes)
    total = b.select(b.apply("eq", (total, b.zeros_like(total))), b.constant(1.0, total.type), total)
    return powers, b.reshape(b.div(b.constant(1.0, total.type), total), (*total.shape, 1))


# several heads


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
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What `nn.MultiheadAttention` computes of (L, N, E), (S, N, Ek) and (S, N, Ev), or of these without N: the result
    (L, N, E), and the weights (N, L, S), averaged over heads unless told otherwise, or None.

    Masks are true (or -inf) where a key must not be seen: `key_padding_mask` (N, S), `attn_mask` (L, S) or
    (N * heads, L, S).
    """
    batched = _is_batched(query, key, value, key_padding_mask, attn_mask, num_heads)
    if is_causal and attn_mask is None:
        raise UsageError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask."
        )
    if not batched:
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
        key_padding_mask = key_padding_mask.unsqueeze(0) if key_padding_mask is not None else None
    length, count, embed = query.shape
    if embed != embed_dim_to_check:
        raise CheckError(f"was expecting embedding dimension of {embed_dim_to_check}, but got {embed}")
    size = embed // num_heads
    if size * num_heads != embed:
        raise CheckError(f"embed_dim {embed} not divisible by num_heads {num_heads}")
    if use_separate_proj_weight:
        if key.shape[:2] != value.shape[:2]:
            raise CheckError(f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}")
        weights = _separate(q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        if key.shape != value.shape:
            raise CheckError(f"key shape {key.shape} does not match value shape {value.shape}")
        if in_proj_weight is None:
            raise CheckError("use_separate_proj_weight is False but in_proj_weight is None")
        weights = in_proj_weight.chunk(3)
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (linear(t, w, o) for t, w, o in zip((query, key, value), weights, biases, strict=True))

    mask = _float_mask("attn_mask", attn_mask, q)
    if mask is not None:
        mask = _mask_of_heads(mask, length, key.size(0), count * num_heads)
    padding = _float_mask("key_padding_mask", key_padding_mask, q)
    added = int(bias_k is not None and bias_v is not None)
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise CheckError("bias cannot be added to static key or value.")
        k, v = (cat([t, bias.repeat(1, count, 1)]) for t, bias in ((k, bias_k), (v, bias_v)))
    heads = [_heads(t, count * num_heads, size) for t in (q, k, v)]
    for place, fixed in ((1, static_k), (2, static_v)):
        if fixed is not None:
            heads[place] = fixed
    if add_zero_attn:
        added += 1
        for place in (1, 2):
            heads[place] = cat([heads[place], heads[place].new_zeros((count * num_heads, 1, size))], 1)
    source = heads[1].size(1)
    mask = _joined(mask, padding, added, count, num_heads, source)
    rate = dropout_p if training else 0.0
    if need_weights:
        made, found = _with_weights(heads, mask, rate)
        result = made.transpose(0, 1).reshape(length * count, embed)
        shown = found.reshape(count, num_heads, length, source)
        shown = shown.mean(dim=1) if average_attn_weights else shown
    else:
        four = [t.reshape(count, num_heads, t.shape[1], size) for t in heads]
        wide = None
        if mask is not None:
            wide = mask.unsqueeze(0) if mask.shape[0] == 1 else mask.reshape(count, num_heads, -1, source)
        made = scaled_dot_product_attention(four[0], four[1], four[2], wide, rate)
        result = made.permute(2, 0, 1, 3).reshape(length * count, embed)
        shown = None
    out = linear(result, out_proj_weight, out_proj_bias).reshape(length, count, embed)
    if not batched:
        return out.squeeze(1), shown.squeeze(0) if shown is not None else None
    return out, shown


def _with_weights(heads: list[Tensor], mask: Tensor | None, rate: float) -> tuple[Tensor, Tensor]:
    """The values brought together, and the weights by which they were, after dropout."""
    q, k, v = heads
    scores = (q * math.sqrt(1.0 / q.shape[-1])) @ k.transpose(-2, -1)
    scores = scores if mask is None else mask + scores
    weights = normalising.softmax(scores, -1)
    weights = dropout(weights, rate) if rate > 0 else weights
    return weights @ v, weights


def _separate(q: Tensor | None, k: Tensor | None, v: Tensor | None) -> Parts:
    if q is None or k is None or v is None:
        names = [n for n, w in (("q", q), ("k", k), ("v", v)) if w is None]
        raise CheckError(f"use_separate_proj_weight is True but {names[0]}_proj_weight is None")
    return q, k, v


def _heads(x: Tensor, count: int, size: int) -> Tensor:
    """(S, N, heads * size) as (N * heads, S, size)."""
    return x.reshape(x.shape[0], count, size).transpose(0, 1)


def _is_batched(
    query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, mask: Tensor | None, heads: int
) -> bool:
    """Whether there is a batch dimension; AssertionError when the ranks do not go together."""
    rank = query.dim()
    if rank not in (2, 3):
        raise CheckError(f"query should be unbatched 2D or batched 3D tensor but received {rank}-D query tensor")
    word = "batched" if rank == 3 else "unbatched"
    if key.dim() != rank or value.dim() != rank:
        raise CheckError(
            f"For {word} ({rank}-D) `query`, expected `key` and `value` to be {rank}-D but found {key.dim()}-D and "
            f"{value.dim()}-D tensors respectively"
        )
    if padding is not None and padding.dim() != rank - 1:
        raise CheckError(
            f"For {word} ({rank}-D) `query`, expected `key_padding_mask` to be `None` or {rank - 1}-D but found "
            f"{padding.dim()}-D tensor instead"
        )
    if mask is not None and mask.dim() not in (2, 3):
        raise CheckError(
            f"For {word} ({rank}-D) `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found {mask.dim()}-D "
            "tensor instead"
        )
    if mask is not None and rank == 2 and mask.dim() == 3 and mask.shape != (heads, query.shape[0], key.shape[0]):
        raise CheckError(
            f"Expected `attn_mask` shape to be {(heads, query.shape[0], key.shape[0])} but got {mask.shape}"
        )
    return rank == 3


def _float_mask(name: str, mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A bool mask as floats to add: -inf where true."""
    if mask is None or mask._type.dtype.is_float:
        return mask
    if mask._type.dtype is not boolean:
        raise CheckError(f"only bool and floating types of {name} are supported")
    dtype = like._type.dtype

    def emit(b: Builder, m: Node) -> Node:
        zero = b.constant(0.0, m.type.with_dtype(dtype))
        return b.select(m, b.constant(-math.inf, zero.type), zero)

    return record("", (mask,), emit)


def _mask_of_heads(mask: Tensor, length: int, source: int, heads: int) -> Tensor:
    wanted = (length, source) if mask.dim() == 2 else (heads, length, source)
    if mask.shape != wanted:
        raise UsageError(f"The shape of the {mask.dim()}D attn_mask is {mask.shape}, but should be {wanted}.")
    return mask.unsqueeze(0) if mask.dim() == 2 else mask


def _joined(
    mask: Tensor | None, padding: Tensor | None, added: int, count: int, heads: int, source: int
) -> Tensor | None:
    """Both masks as one, (1 or N * heads, L or 1, S), with zeros for keys that were added at the end."""

    def longer(x: Tensor) -> Tensor:
        return cat([x, x.new_zeros((*x.shape[:-1], added))], -1) if added else x

    mask = longer(mask) if mask is not None else None
    if padding is None:
        return mask
    padding = longer(padding)
    for place, wanted in enumerate((count, source)):
        if padding.shape[place] != wanted:
            raise CheckError(f"Expected key_padded_mask.shape[{place}] to be {wanted}, but got {padding.shape[place]}")
    wide = padding.reshape(count, 1, 1, source).expand(-1, heads, -1, -1).reshape(count * heads, 1, source)
    return wide if mask is None else mask + wide
