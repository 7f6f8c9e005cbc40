"""Losses as they stand under `torch` itself: those of `nn.functional` with a number for the reduction: 0 is none,
1 mean, 2 sum.

Without one nothing is reduced: PyTorch's signatures say that the mean is taken, but it is not. Tensors are checked as
in `nn.functional`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from graphc.ctc import ctc_loss as functional_ctc_loss
from graphc.distances import cosine_embedding_loss as functional_cosine_embedding_loss
from graphc.distances import hinge_embedding_loss as functional_hinge_embedding_loss
from graphc.distances import margin_ranking_loss as functional_margin_ranking_loss
from graphc.distances import triplet_margin_loss as functional_triplet_margin_loss
from graphc.errors import KindError
from graphc.losses import binary_cross_entropy_with_logits as functional_binary_cross_entropy_with_logits
from graphc.losses import kl_div as functional_kl_div
from graphc.losses import poisson_nll_loss as functional_poisson_nll_loss

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_REDUCTIONS = ("none", "mean", "sum")


def _reduction(name: str, number: object) -> str:
    """The reduction's name; numbers without a meaning are none, as in PyTorch."""
    if not isinstance(number, int):
        raise KindError(f"{name}(): argument 'reduction' must be int, not {type(number).__name__}")
    return _REDUCTIONS[number] if 0 <= number <= 2 else "none"


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = 0,
) -> Tensor:
    """-(target * log(sigmoid(input)) + (1 - target) * log(1 - sigmoid(input))), times `weight`."""
    how = _reduction("binary_cross_entropy_with_logits", reduction)
    return functional_binary_cross_entropy_with_logits(input, target, weight, reduction=how, pos_weight=pos_weight)


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int = 0
) -> Tensor:  # fmt: skip
    """1 - cos of the angle where the target is 1, max(0, cos - margin) where it is -1."""
    how = _reduction("cosine_embedding_loss", reduction)
    return functional_cosine_embedding_loss(input1, input2, target, margin, reduction=how)


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: int = 0,
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the logarithm of the probability of all alignments of the targets (Graves et al., 2006)."""
    how = _reduction("ctc_loss", reduction)
    return functional_ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, how, zero_infinity)


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, reduction: int = 0) -> Tensor:
    """x where the target is 1, max(0, margin - x) where it is -1."""
    how = _reduction("hinge_embedding_loss", reduction)
    return functional_hinge_embedding_loss(input, target, margin, reduction=how)


def kl_div(input: Tensor, target: Tensor, reduction: int = 0, *, log_target: bool = False) -> Tensor:
    """target * (log(target) - input), 0 where the target is 0."""
    how = _reduction("kl_div", reduction)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="reduction: 'mean' divides")  # `nn.functional` alone says so
        return functional_kl_div(input, target, reduction=how, log_target=log_target)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int = 0
) -> Tensor:  # fmt: skip
    """max(0, -target * (input1 - input2) + margin)."""
    how = _reduction("margin_ranking_loss", reduction)
    return functional_margin_ranking_loss(input1, input2, target, margin, reduction=how)


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: int
) -> Tensor:  # fmt: skip
    """exp(input) - target * input, or of rates input - target * log(input + eps); `full` adds Stirling's formula."""
    how = _reduction("poisson_nll_loss", reduction)
    return functional_poisson_nll_loss(input, target, log_input, full, None, eps, None, how)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: int = 0,
) -> Tensor:
    """max(0, |anchor - positive| - |anchor - negative| + margin)."""
    how = _reduction("triplet_margin_loss", reduction)
    return functional_triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, reduction=how)
