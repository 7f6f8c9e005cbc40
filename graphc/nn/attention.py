"""Multi-head attention. A. Vaswani et al., "Attention is all you need", 2017."""

from __future__ import annotations

import warnings
from typing import Any

from graphc import Tensor, bool, empty, where, zeros_like
from graphc.errors import CheckError, InputError
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
        raise CheckError(f"only bool and floating types of {name} are supported")
    if other is not None and mask.dtype != other.dtype:
        warnings.warn(
            f"Support for mismatched {name} and {other_name} is deprecated. Use same type for both instead.",
            stacklevel=3,
        )
    if mask.is_floating_point():
        return mask
    return zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


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
            raise InputError(
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
            raise CheckError("embed_dim must be divisible by num_heads")
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
        made, weights = F.multi_head_attention_forward(
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
