"""Connectionist temporal classification (Graves et al., 2006): sums over alignments, on the host and in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.node import Node
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops.checks import check_arity, check_device, check_group, narrow, shown, widen
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


def _states(target: np.ndarray, blank: int, classes: int) -> np.ndarray:
    """The labels with blanks around each."""
    labels = np.full(2 * len(target) + 1, blank)
    labels[1::2] = np.clip(target, 0, classes - 1)
    return labels


def _forward(logs: np.ndarray, labels: np.ndarray, blank: int) -> np.ndarray:
    """Logarithms of the probability of all beginnings that end in each state at each time.

    From a state one goes on to itself, to the next, or past a blank to another label.
    """
    skips = (labels[2:] != blank) & (labels[2:] != labels[:-2])
    alpha = np.full((len(logs), len(labels)), -np.inf)
    alpha[0, :2] = logs[0, labels[:2]]
    for t in range(1, len(logs)):
        before = alpha[t - 1]
        made = before.copy()
        made[1:] = np.logaddexp(made[1:], before[:-1])
        made[2:] = np.where(skips, np.logaddexp(made[2:], before[:-2]), made[2:])
        alpha[t] = made + logs[t, labels]
    return alpha


def _total(alpha: np.ndarray) -> float:
    """The logarithm of the probability of all alignments: they end in the last label or the blank behind it."""
    return float(np.logaddexp.reduce(alpha[-1, -2:]))


def _parts(arrays: Arrays, place: int) -> tuple[np.ndarray, np.ndarray]:
    """The logarithms [time, class] and the labels of one sample."""
    logs, targets, lengths, sizes = arrays[:4]
    time = int(np.clip(lengths[place], 0, len(logs)))
    size = int(np.clip(sizes[place], 0, targets.shape[1]))
    return np.asarray(widen(logs[:time, place]), np.float64), targets[place, :size]


def _evaluate_loss(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    result = np.empty(type.shape)
    for n in range(len(result)):
        logs, target = _parts(arrays, n)
        if not len(logs):
            result[n] = np.inf if len(target) else 0.0
            continue
        labels = _states(target, attrs["blank"], logs.shape[1])
        result[n] = -_total(_forward(logs, labels, attrs["blank"]))
    return narrow(result, type)


def _evaluate_slope(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    result = np.zeros(type.shape)
    for n in range(type.shape[1]):
        logs, target = _parts(arrays, n)
        if not len(logs):
            continue
        labels = _states(target, attrs["blank"], logs.shape[1])
        alpha = _forward(logs, labels, attrs["blank"])
        beta = _forward(logs[::-1], labels[::-1], attrs["blank"])[::-1, ::-1]
        share = alpha + beta - logs[:, labels] - _total(alpha)
        for state, label in enumerate(labels):
            result[: len(logs), n, label] -= np.exp(share[:, state])
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
