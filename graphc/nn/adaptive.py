"""AdaptiveLogSoftmaxWithLoss: a softmax over many classes, of which the rare ones stand in clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from graphc import Tensor, argmax, cat, where
from graphc.errors import InputError, UsageError
from graphc.nn import functional as F
from graphc.nn.containers import ModuleList, Sequential
from graphc.nn.linear import Linear
from graphc.nn.module import Module


class _ASMoutput(NamedTuple):
    """The log-probabilities of the targets, and their negated mean."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """The classes below `cutoffs[0]` and one number for each cluster stand in the head; the classes from a cutoff to
    the next are one cluster, behind a projection to `in_features / div_value^i` features.

    E. Grave et al., "Efficient softmax approximation for GPUs", 2017. Classes are to be sorted by falling frequency.
    Input `[batch, in_features]`, target i64 `[batch]`, or both without the batch. RuntimeError for other ranks and for
    targets out of range.
    """

    head: Linear
    tail: ModuleList

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        cutoffs = list(cutoffs)
        if not cutoffs:
            raise InputError("cutoffs should be a sequence of length larger than 0")
        rising = all(a < b for a, b in zip([0, *cutoffs], [*cutoffs, n_classes], strict=True))
        if not rising or any(int(c) != c for c in cutoffs):
            raise InputError(
                "cutoffs should be a sequence of unique, positive integers sorted in an increasing order, where each "
                "value is between 1 and n_classes-1"
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*cutoffs, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = cutoffs[0]
        self.n_clusters = len(cutoffs)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, device=device, dtype=dtype)
        self.tail = ModuleList()
        for number, (low, high) in enumerate(zip(self.cutoffs, self.cutoffs[1:], strict=False), start=1):
            width = int(in_features // div_value**number)
            self.tail.append(
                Sequential(
                    Linear(in_features, width, bias=False, device=device, dtype=dtype),
                    Linear(width, high - low, bias=False, device=device, dtype=dtype),
                )
            )

    def reset_parameters(self) -> None:
        """Draws new initial values."""
        for layer in (self.head, *(layer for pair in self.tail for layer in pair)):
            layer.reset_parameters()

    def _check(self, input: Tensor, target: Tensor) -> None:
        rank = target.dim()
        if rank > 1:
            raise UsageError("0D or 1D target tensor expected, multi-target not supported")
        if rank == 1 and input.size(0) != target.size(0):
            raise UsageError("Input and target should have the same size in the batch dimension.")
        if input.dim() != rank + 1:
            raise UsageError(
                f"{rank}D target tensor expects {rank + 1}D input tensors, but found inputs with size {input.size()}"
            )
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= self.n_classes:
            raise UsageError(
                f"Target values should be in [0, {self.n_classes - 1}], but values in range [{low}, {high}] were "
                "found. "
            )

    def forward(self, input_: Tensor, target_: Tensor) -> _ASMoutput:
        self._check(input_, target_)
        alone = target_.dim() == 0
        input, target = (input_.unsqueeze(0), target_.unsqueeze(0)) if alone else (input_, target_)
        head = F.log_softmax(self.head(input), dim=1)
        place = target.clamp(max=self.shortlist_size - 1)  # in the head: of the class, or of its cluster
        rest: list[tuple[Tensor, Tensor]] = []
        for number, (low, high) in enumerate(zip(self.cutoffs, self.cutoffs[1:], strict=False)):
            inside = (target >= low) & (target < high)
            place = where(inside, self.shortlist_size + number, place)
            rows = inside.nonzero().squeeze(1)
            if rows.numel():
                local = F.log_softmax(self.tail[number](input.index_select(0, rows)), dim=1)
                rest.append((rows, local.gather(1, (target.index_select(0, rows) - low).unsqueeze(1)).squeeze(1)))
        output = head.gather(1, place.unsqueeze(1)).squeeze(1)
        for rows, values in rest:
            output = output.index_add(0, rows, values)
        loss = (-output).mean()
        return _ASMoutput(output.squeeze(0) if alone else output, loss)

    def _get_full_log_prob(self, input: Tensor, head_output: Tensor) -> Tensor:
        """The log-probabilities of all classes, from the input and what the head made of it."""
        head = F.log_softmax(head_output, dim=1)
        parts = [head[:, : self.shortlist_size]]
        for number, projection in enumerate(self.tail):
            place = self.shortlist_size + number
            parts.append(F.log_softmax(projection(input), dim=1) + head[:, place : place + 1])
        return cat(parts, dim=1)

    def log_prob(self, input: Tensor) -> Tensor:
        """`[batch, n_classes]`: the log-probabilities of all classes."""
        return self._get_full_log_prob(input, self.head(input))

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each sample; that of the head where it is a class and no cluster."""
        scores = self.head(input)
        first = argmax(scores, dim=1)
        if bool((first < self.shortlist_size).all()):
            return first
        return where(first < self.shortlist_size, first, argmax(self._get_full_log_prob(input, scores), dim=1))
