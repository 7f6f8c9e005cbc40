"""The loss of connectionist temporal classification (Graves et al., 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import KindError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean, i64
from graphc.loss_reduction import check_reduction, check_values, reduced
from graphc.recording import Recorder, current
from graphc.refusing import need_float
from graphc.tensors.casting import autocasts
from graphc.tensors.core import TensorBase, finish, from_array, read, record, wants_grad

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Lengths = Any  # a tensor of integers, or a sequence of them


@autocasts
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the logarithm of the probability of all alignments of `targets` with `log_probs`, (T, N, C) or (T, C).

    Targets are (N, S), or one after the other in one dimension; "mean" divides each loss by its target's length first.
    The gradient takes `log_probs` for normalised logarithms, as PyTorch does. Second derivatives are not defined.
    """
    check_reduction(reduction)
    single = log_probs.ndim == 2
    logs = log_probs.unsqueeze(1) if single else log_probs
    if logs.ndim != 3:
        raise UsageError(f"ctc_loss: log_probs of 3 dimensions are wanted, (T, N, C), but got {log_probs._type}")
    times, count, classes = logs._type.shape
    if not 0 <= blank < classes:
        raise UsageError("blank must be in label range")
    need_float("ctc_loss_cpu", log_probs)
    device = log_probs._type.device
    used = _lengths("input_lengths", input_lengths, count, device)
    sizes = _lengths("target_lengths", target_lengths, count, device)
    padded = _padded(targets.unsqueeze(0) if single and targets.ndim == 1 else targets, sizes, count)
    padded = padded.to(device)
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((logs,))
        pairs = [read(recorder, logs, grad), *(read(recorder, t, False) for t in (padded, used, sizes))]
        x, y, t, n = (node for node, _ in pairs)
        _check_length(recorder, t, pairs[2][1], times, "input_lengths")
        _check_length(recorder, n, pairs[3][1], padded._type.shape[1], "target_lengths")
        loss = b.apply("ctc_loss", (x, y, t, n), {"blank": blank})
        within = b.apply("lt", (b.iota(0, x.type.with_dtype(i64)), b.expand_dims(t, (0, 2), x.shape)))
        share = b.reduce_sum(b.select(within, b.exp(x), b.zeros_like(x)), (0, 2))
        made = b.add(loss, b.sub(share, b.apply("detach", (share,))))
        if zero_infinity:
            infinite = b.apply("eq", (loss, b.constant(float("inf"), loss.type)))
            made = b.select(infinite, b.zeros_like(made), made)
        losses = finish(recorder, made, tuple(keep for _, keep in pairs), "CtcLossBackward0", grad)
    if reduction == "mean":
        losses = record("DivBackward0", (losses, sizes), _by_length)
    losses = losses.squeeze(0) if single and reduction == "none" else losses
    return reduced(losses, reduction)


def _by_length(b: Builder, x: Node, size: Node) -> Node:
    one = b.constant(1, size.type)
    return b.div(x, b.cast(b.select(b.apply("lt", (size, one)), one, size), x.dtype))


def _lengths(name: str, lengths: Lengths, count: int, device: str) -> Tensor:
    """Lengths as i64 [count] on `device`."""
    if not isinstance(lengths, TensorBase):
        if not isinstance(lengths, Sequence):
            raise KindError(f"ctc_loss(): {name} must be a tensor or a sequence of integers, not {lengths!r}")
        lengths = from_array(np.array(lengths, np.int64), i64, device)
    if lengths._type.dtype.is_float or lengths._type.dtype is boolean:
        raise UsageError(f"{name} must be integral")
    if lengths._type.size != count:
        raise UsageError(f"{name} must be of size batch_size")
    return record("", (lengths,), lambda b, x: b.reshape(b.cast(b.transfer(x, device), i64), (count,)))


def _padded(targets: Tensor, sizes: Tensor, count: int) -> Tensor:
    """Targets as i64 [count, places]; those in one dimension are cut apart by looking at their sizes."""
    if targets.ndim == 2:
        if targets._type.shape[0] != count:
            raise UsageError(
                f"Expected tensor to have size {count} at dimension 0, but got size {targets._type.shape[0]} for "
                "argument #2 'targets' (while checking arguments for ctc_loss)"
            )
        return record("", (targets,), lambda b, x: b.cast(x, i64))
    if targets.ndim != 1:
        raise UsageError(f"ctc_loss: targets of 1 or 2 dimensions are wanted, but got {targets._type}")
    lengths = np.asarray(sizes._array())
    if int(lengths.sum()) != targets._type.size:
        raise UsageError(
            f"Expected tensor to have size {int(lengths.sum())} at dimension 0, but got size {targets._type.size} for "
            "argument #2 'targets' (while checking arguments for ctc_loss)"
        )
    ends = np.cumsum(lengths)
    wide = np.zeros((count, max(int(lengths.max(initial=0)), 0)), np.int64)
    flat = np.asarray(targets._array()).astype(np.int64)
    for row, (end, size) in enumerate(zip(ends, lengths, strict=True)):
        wide[row, :size] = flat[end - size : end]
    return from_array(wide, i64, targets._type.device)


def _check_length(recorder: Recorder, length: Node, keep: Any, most: int, name: str) -> None:
    b = recorder.b
    where = "(while checking arguments for ctc_loss)"
    negative = b.apply("lt", (length, b.zeros_like(length)))
    check_values(recorder, negative, keep, UsageError(f"Expected {name} to have value at least 0 {where}"))
    long = b.apply("gt", (length, b.constant(most, length.type)))
    check_values(recorder, long, keep, UsageError(f"Expected {name} to have value at most {most} {where}"))
