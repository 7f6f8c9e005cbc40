"""Connectionist temporal classification (Graves et al., 2006): sums over alignments, on the host and in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.node import Node
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops.checks import check_arity, check_device, check_group, narrow, shown, widen
from graphc.ir.record import record
from graphc.ir.types import TensorType, i64

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Arrays = Sequence[np.ndarray]
Types = Sequence[TensorType]


def _check(op: str, types: Types, attrs: Attrs) -> None:
    check_device(op, types)
    check_group(op, types[0], "float")
    logs, targets, lengths, sizes = types[:4]
    fits = logs.rank == 3 and targets.rank == 2 and lengths.shape == sizes.shape == logs.shape[1:2]
    if not fits or targets.shape[0] != logs.shape[1] or any(t.dtype is not i64 for t in (targets, lengths, sizes)):
        raise ShapeError(
            f"{op}: float logarithms [times, batch, classes], i64 targets [batch, places], and two i64 lengths [batch] "
            f"are wanted, but got {shown(types)}"
        )
    if not 0 <= attrs["blank"] < logs.shape[2]:
        raise ShapeError(f"{op}: the blank {attrs['blank']} is none of the {logs.shape[2]} classes of {logs}")


def _infer_loss(types: Types, attrs: Attrs) -> TensorType:
    check_arity("ctc_loss", types, 4)
    _check("ctc_loss", types, attrs)
    return types[0].with_shape(types[0].shape[1:2])


def _infer_slope(types: Types, attrs: Attrs) -> TensorType:
    check_arity("ctc_loss_slope", types, 4)
    _check("ctc_loss_slope", types, attrs)
    return types[0]


@record
class _Paths:
    """All alignments of all samples. `labels` [n, s] are the targets with blanks around each, `skips` [n, s] tells
    where one may come from past a blank, `logs` [time, n, s] are the logarithms of being there; `last` [n] is each
    sample's last state and `times` [n] how many times count. What lies behind these leads to nothing that counts.
    """

    labels: np.ndarray
    skips: np.ndarray
    logs: np.ndarray
    last: np.ndarray
    times: np.ndarray

    @staticmethod
    def of(arrays: Arrays, blank: int) -> _Paths:
        logs, targets, lengths, sizes = arrays[:4]
        count, places = targets.shape
        wide = np.asarray(widen(logs), np.float64)
        labels = np.full((count, 2 * places + 1), blank)
        labels[:, 1::2] = np.clip(targets, 0, wide.shape[2] - 1)
        skips = np.zeros(labels.shape, np.bool_)
        skips[:, 2:] = (labels[:, 2:] != blank) & (labels[:, 2:] != labels[:, :-2])
        times, last = np.clip(lengths, 0, len(wide)), 2 * np.clip(sizes, 0, places)
        return _Paths(labels, skips, np.take_along_axis(wide, labels[None], 2), last, times)

    def reversed(self) -> _Paths:
        """The same, from the last time and state that count to the first."""
        states, times = self._back()
        ahead = np.pad(self.skips, ((0, 0), (0, 2)))
        skips = np.take_along_axis(ahead, states + 2, 1)
        skips[:, :2] = False
        logs = np.take_along_axis(np.take_along_axis(self.logs, states[None], 2), times[:, :, None], 0)
        return _Paths(np.take_along_axis(self.labels, states, 1), skips, logs, self.last, self.times)

    def put_back(self, sums: np.ndarray) -> np.ndarray:
        """What was made of the reversed paths, in the order of these."""
        states, times = self._back()
        return np.take_along_axis(np.take_along_axis(sums, states[None], 2), times[:, :, None], 0)

    def _back(self) -> tuple[np.ndarray, np.ndarray]:
        states = np.maximum(self.last[:, None] - np.arange(self.labels.shape[1]), 0)
        return states, np.maximum(self.times - 1 - np.arange(len(self.logs))[:, None], 0)

    def sums(self) -> np.ndarray:
        """Logarithms [time, n, s] of the probability of all beginnings that end in each state at each time.

        From a state one goes on to itself, to the next, or past a blank to another label.
        """
        alpha = np.full(self.logs.shape, -np.inf)
        alpha[:1, :, :2] = self.logs[:1, :, :2]
        for t in range(1, len(alpha)):
            before, made = alpha[t - 1], alpha[t]
            made[:] = before
            made[:, 1:] = np.logaddexp(made[:, 1:], before[:, :-1])
            skipped = np.where(self.skips[:, 2:], before[:, :-2], -np.inf)
            made[:, 2:] = np.logaddexp(made[:, 2:], skipped)
            made += self.logs[t]
        return alpha

    def total(self, sums: np.ndarray) -> np.ndarray:
        """The logarithm [n] of the probability of all alignments: they end in the last label or the blank behind it."""
        if not len(sums):
            return np.where(self.last > 0, -np.inf, 0.0)
        samples, time = np.arange(len(self.last)), np.maximum(self.times - 1, 0)
        blank, label = (sums[time, samples, np.maximum(self.last - k, 0)] for k in (0, 1))
        found = np.where(self.last > 0, np.logaddexp(blank, label), blank)
        return np.where(self.times > 0, found, np.where(self.last > 0, -np.inf, 0.0))


def _evaluate_loss(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    paths = _Paths.of(arrays, attrs["blank"])
    return narrow(0.0 - paths.total(paths.sums()), type)


def _evaluate_slope(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    paths = _Paths.of(arrays, attrs["blank"])
    alpha = paths.sums()
    beta = paths.put_back(paths.reversed().sums())
    share = np.exp(alpha + beta - paths.logs - paths.total(alpha)[:, None])
    states = np.arange(paths.labels.shape[1]) <= paths.last[:, None]
    counts = (np.arange(len(alpha))[:, None] < paths.times)[:, :, None] & states
    result = np.zeros(type.shape)
    times, samples, places = np.nonzero(counts)
    np.subtract.at(result, (times, samples, paths.labels[samples, places]), share[counts])
    return narrow(result, type)


def _loss_vjp(b: Builder, node: Node, ct: Node) -> Sequence[Node | None]:
    slope = b.apply("ctc_loss_slope", node.inputs, dict(node.attrs))
    weight = b.expand_dims(ct, (0, 2), slope.shape)
    # Where no alignment is possible the slope is NaN, which a cotangent of 0 hides.
    unused = b.elementwise("eq", weight, b.zeros_like(weight))
    return [b.select(unused, 0.0, b.mul(slope, weight)), None, None, None]


_BLANK = (Attr("blank", "int"),)

CTC_LOSS = register(
    OpDef(
        name="ctc_loss",
        kind="host",
        arity=4,
        doc="-log of the probability of all alignments of targets [n, s] with times: x [t, n, class] are logarithms; "
        "the third and fourth operand say how many times and targets count. Float.",
        infer=_infer_loss,
        evaluate=_evaluate_loss,
        attrs=_BLANK,
        vjp=_loss_vjp,
    )
)
CTC_LOSS_SLOPE = register(
    OpDef(
        name="ctc_loss_slope",
        kind="host",
        arity=4,
        doc="The derivative of each sample's `ctc_loss` by its logarithms. Float.",
        infer=_infer_slope,
        evaluate=_evaluate_slope,
        attrs=_BLANK,
        why_no_vjp="undefined: second derivatives of the loss are not computed",
    )
)
