"""Samples of the losses of `nn.functional`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.differential.samples.base import Op, Sample, bad, distinct, f, fixed, forward, ints, mask, once, pos, s

NONE, SUM = {"reduction": "none"}, {"reduction": "sum"}
WRONG = bad("not a valid value for reduction|Invalid reduction", f(3), f(3), reduction="median")
INTEGERS = (bad("not implemented", ints(3), ints(3)), WRONG)


def sign(*shape: int) -> np.ndarray:
    """1 or -1, as floats."""
    return np.where(mask(*shape), 1.0, -1.0)


def fixed_sign(*shape: int) -> np.ndarray:
    """1 or -1, as floats without gradients."""
    return fixed(sign(*shape))


def unit(*shape: int) -> np.ndarray:
    """Numbers between 0 and 1."""
    return pos(*shape, low=0.05, high=0.95)


def rows(*shape: int) -> np.ndarray:
    """Probabilities that add up to 1 over dimension 1."""
    made = pos(*shape)
    return made / made.sum(1, keepdims=True)


def both(*make: Any, **options: Any) -> tuple[Sample, ...]:
    """Samples of matrices with each reduction, of vectors, of single numbers and of nothing."""
    x, y = make
    return (
        s(x(3, 4), y(3, 4)),
        s(x(3, 4), y(3, 4), **NONE, **options),
        s(x(2, 3, 2), y(2, 3, 2), **SUM, **options),
        s(x(), y(), **options),
        s(x(0, 3), y(0, 3), **SUM),
    )


WEIGHTED = (
    s(f(3, 4), f(3, 4), weight=pos(3, 4)),
    s(f(3, 4), f(3, 4), weight=pos(3, 4), **NONE),
    s(f(3, 4), f(3, 4), weight=pos(3, 4), **SUM),
)
WRONG_WEIGHT = bad("same size", f(3, 4), f(3, 4), weight=pos(4))

PAIRWISE: tuple[Op, ...] = (
    Op(
        "nn.functional.l1_loss",
        (*both(f, f), *WEIGHTED, s(f(3), ints(3))),
        (bad("could not infer|not implemented", ints(3), ints(3)), WRONG, WRONG_WEIGHT),
    ),
    Op(
        "nn.functional.mse_loss",
        (*both(f, f), *WEIGHTED, s(f(3), ints(3))),
        (*INTEGERS, WRONG_WEIGHT),
    ),
    Op(
        "nn.functional.smooth_l1_loss",
        (*both(f, f), s(f(3, 4), f(3, 4), beta=0.5), s(f(3, 4), f(3, 4), beta=0.0), s(f(3), f(3) * 0, beta=9.0)),
        (*INTEGERS, bad("negative", f(3), f(3), beta=-1.0)),
    ),
    Op(
        "nn.functional.huber_loss",
        (*both(f, f), s(f(3, 4), f(3, 4), delta=0.5), *WEIGHTED, s(f(3), ints(3))),
        (*INTEGERS, bad("non-positive", f(3), f(3), delta=0.0), WRONG_WEIGHT),
    ),
    Op(
        "nn.functional.soft_margin_loss",
        (*both(f, fixed_sign), s(f(3, 4), fixed(f(3, 4)), **NONE)),
        (WRONG, bad("can't be cast", ints(3), ints(3)), bad("broadcast", f(3), sign(3, 1))),
    ),
    Op(
        "nn.functional.kl_div",
        (
            s(f(3, 4), rows(3, 4), reduction="batchmean"),
            s(f(3, 4), rows(3, 4), **NONE),
            s(f(3, 4), rows(3, 4), **SUM),
            s(f(3, 4), f(3, 4), reduction="batchmean", log_target=True),
            s(f(3, 4), f(4), log_target=True, **NONE),
            forward(s(f(4), np.array([0.0, 1.0, 0.0, -1.0]), **NONE)),  # PyTorch: NaN where the target is 0
            s(f(), unit(), **SUM),
        ),
        (bad("ntegral", ints(3), ints(3), **SUM), WRONG),
    ),
    Op(
        "nn.functional.binary_cross_entropy",
        (
            *both(unit, unit),
            s(unit(3, 4), unit(3, 4), fixed(pos(4))),
            s(unit(3, 4), unit(3, 4), weight=fixed(pos(3, 4)), **NONE),
            once(
                s(np.array([0.0, 1.0, 0.0, 1.0]), fixed(np.array([0.0, 1.0, 1.0, 0.0])))
            ),  # the second one is 1e23 there
        ),
        (
            WRONG,
            bad("between 0 and 1", unit(3) + 1, unit(3)),
            bad("between 0 and 1", unit(3) - 1, unit(3)),
            bad("target size", unit(3), unit(4)),
            bad("not implemented", ints(3), ints(3)),
            bad("dtype", unit(3), ints(3)),
            bad("broadcast", unit(3, 4), unit(3, 4), unit(3)),
        ),
    ),
    Op(
        "nn.functional.binary_cross_entropy_with_logits",
        (
            *both(f, unit),
            s(f(3, 4) * 30, unit(3, 4), fixed(pos(4))),
            s(f(3, 4), unit(3, 4), pos_weight=fixed(pos(4))),
            s(f(3, 4), unit(3, 4), weight=fixed(pos(3, 1)), pos_weight=fixed(pos(4)), **NONE),
            s(np.array([0.0, 90.0, -90.0]), np.array([0.5, 1.0, 1.0]), **NONE),
        ),
        (
            WRONG,
            bad("Target size", f(3), unit(4)),
            bad("not implemented", ints(3), unit(3)),
            bad("size", f(3, 4), unit(3, 4), unit(3)),
        ),
    ),
    Op(
        "nn.functional.poisson_nll_loss",
        (
            *both(f, pos),
            s(pos(3, 4), pos(3, 4), log_input=False),
            s(f(3, 4), pos(3, 4), full=True),
            s(f(3, 4), pos(3, 4), full=True, **NONE),
            s(pos(3, 4), pos(3, 4), False, True, eps=0.1),
            s(f(3, 4), pos(4), **NONE),
            s(ints(3), ints(3, low=0)),
        ),
        (WRONG,),
    ),
    Op(
        "nn.functional.gaussian_nll_loss",
        (
            s(f(3, 4), f(3, 4), pos(3, 4)),
            s(f(3, 4), f(3, 4), pos(3, 1), **NONE),
            s(f(3, 4), f(3, 4), pos(3), full=True, **SUM),
            s(f(3, 4), f(3, 4), pos(3, 4), True, **NONE),
            s(f(3, 4), f(3, 4), 2.0),
            s(f(3), f(3), np.array([0.5, 0.01, 1e-9]), eps=0.1),
        ),
        (
            bad("not valid", f(3), f(3), pos(3), reduction="median"),
            bad("incorrect size", f(3, 4), f(3, 4), pos(4)),
            bad("negative", f(3), f(3), -pos(3)),
            bad("negative", f(3), f(3), -1.0),
        ),
    ),
)

VECTORS: tuple[Op, ...] = (
    Op(
        "nn.functional.hinge_embedding_loss",
        (*both(f, sign), s(f(3, 4), sign(3, 4), 0.5), s(f(4), f(4), **NONE)),
        (WRONG,),
    ),
    Op(
        "nn.functional.margin_ranking_loss",
        (
            s(f(3, 4), f(3, 4), sign(3, 4)),
            s(f(3, 4), f(3, 4), sign(3, 4), 0.5, **NONE),
            s(f(3, 4), f(3, 4), sign(3, 1), margin=0.2, **SUM),
            s(f(), f(), sign()),
            s(np.ones(3), np.ones(3), sign(3)),
        ),
        (bad("dimension", f(3), f(3), sign(3, 1)), bad("valid value", f(3), f(3), sign(3), reduction="x")),
    ),
    Op(
        "nn.functional.cosine_similarity",
        (
            s(f(3, 4), f(3, 4)),
            s(f(3, 4), f(4), dim=-1),
            s(f(2, 3, 4), f(2, 3, 4), 0),
            s(f(3, 4), f(3, 4), eps=3.0),
            s(f(3, 0), f(3, 0)),
        ),
        (bad("floating point", ints(3, 4), ints(3, 4)), bad("range", f(3), f(3), 1)),
    ),
    Op(
        "nn.functional.pairwise_distance",
        (
            s(f(3, 4), f(3, 4)),
            s(f(3, 4), f(4), p=1.0, keepdim=True),
            s(f(3), f(2, 3), 3.0),
            s(f(3, 4), f(3, 4), eps=0.5),
            s(distinct(3, 4), np.zeros((3, 4)), np.inf, 0.0),
        ),
        grad_fn=False,  # PyTorch: NormBackward1 of its older norm
    ),
    Op(
        "nn.functional.cosine_embedding_loss",
        (
            s(f(3, 4), f(3, 4), sign(3)),
            s(f(3, 4), f(3, 4), sign(3), 0.2, **NONE),
            s(f(3, 4), f(3, 4), sign(3), margin=-0.5, **SUM),
            s(f(4), f(4), np.array(1.0)),
        ),
        (
            bad("multi-target", f(3, 4), f(3, 4), sign(3, 1)),
            bad("expects", f(4), f(4), sign(3)),
            bad("size", f(3, 4), f(2, 4), sign(3)),
            bad("valid value", f(3, 4), f(3, 4), sign(3), reduction="x"),
        ),
    ),
    Op(
        "nn.functional.triplet_margin_loss",
        (
            s(f(3, 4), f(3, 4), f(3, 4)),
            s(f(3, 4), f(3, 4), f(3, 4), 0.5, 1.0, swap=True, **NONE),
            s(f(3, 4), f(3, 4), f(3, 4), margin=3.0, p=3.0, **SUM),
            s(f(4), f(4), f(4)),
            s(f(1, 4), f(3, 4), f(3, 4), **NONE),
        ),
        (
            bad("number of dimensions", f(3, 4), f(3, 4), f(4)),
            bad("greater than 0", f(3), f(3), f(3), margin=0.0),
            bad("valid value", f(3), f(3), f(3), reduction="x"),
        ),
    ),
    Op(
        "nn.functional.triplet_margin_with_distance_loss",
        (s(f(3, 4), f(3, 4), f(3, 4)), s(f(3, 4), f(3, 4), f(3, 4), swap=True, margin=2.0, **NONE)),
        (
            bad("number of dimensions", f(3, 4), f(3, 4), f(4)),
            bad("greater than 0", f(3), f(3), f(3), margin=-1.0),
        ),
        ulps=16.0,
    ),
)

LABELS = np.array([1, 0, 4, 1])
IGNORED = np.array([1, -100, 4, 1])
IMAGE = ints(2, 3, 2, low=0, high=5)
LIST = np.array([[0, 2, -1, 1], [3, -1, 0, 0], [-1, 0, 0, 0], [1, 1, 2, -1]])

TARGETS: tuple[Sample, ...] = (
    s(f(4, 5), LABELS),
    s(f(4, 5), LABELS, **NONE),
    s(f(4, 5), IGNORED, **SUM),
    s(f(4, 5), IGNORED),
    s(f(4, 5), LABELS, ignore_index=1),
    s(f(5), np.array(3)),
    s(f(5), np.array([3]), **NONE),
    s(f(4, 5), LABELS, fixed(pos(5))),
    s(f(4, 5), IGNORED, fixed(pos(5)), **SUM),
    s(f(2, 5, 3), IMAGE[..., 0], weight=fixed(pos(5)), **NONE),
    s(f(2, 5, 3), IMAGE[..., 0]),
    s(f(2, 5, 3), IMAGE[..., 0], **NONE),
    s(f(2, 5, 3, 2), IMAGE),
    s(f(2, 5, 3, 2), IMAGE, ignore_index=2, **NONE),
    s(f(2, 5, 1, 3, 2), IMAGE[:, None], **SUM),
    s(f(4, 5), LABELS.astype("uint8")),
    s(f(0, 5), LABELS[:0], **SUM),
    s(f(0, 5), LABELS[:0]),
)
WRONG_TARGETS = (
    bad("out of bounds", f(4, 5), LABELS + 3),
    bad("out of bounds", f(4, 5), LABELS - 1),
    bad("batch_size", f(4, 5), LABELS[:2]),
    bad("target size", f(2, 5, 3), IMAGE[:, :2, 0]),
    bad("size mismatch", f(2, 5, 3, 3), IMAGE),
    bad("Long or Byte", f(4, 5), LABELS.astype("int32")),
    bad("Long or Byte", f(4, 5), f(4)),
    bad("not implemented", ints(4, 5), LABELS),
    bad("valid value", f(4, 5), LABELS, reduction="x"),
    bad("weight tensor", f(4, 5), LABELS, pos(4)),
)


CLASSES: tuple[Op, ...] = (
    Op("nn.functional.nll_loss", TARGETS, (*WRONG_TARGETS, bad("dimension", f(), np.array(0)))),
    Op(
        "nn.functional.cross_entropy",
        (
            *TARGETS,
            s(f(4, 5), LABELS, label_smoothing=0.1),
            s(f(4, 5), IGNORED, label_smoothing=0.3, **NONE),
            s(f(4, 5), IGNORED, label_smoothing=0.3, **SUM),
            s(f(2, 5, 3), IMAGE[..., 0], label_smoothing=0.2),
            s(f(4, 5), rows(4, 5)),
            s(f(4, 5), rows(4, 5), **NONE),
            s(f(4, 5), rows(4, 5), label_smoothing=0.3, **SUM),
            s(f(4, 5), rows(4, 5), pos(5), label_smoothing=0.3),
            s(f(2, 5, 3), rows(2, 5, 3)),
            s(f(5), unit(5)),
            s(f(0, 5), f(0, 5), **SUM),
        ),
        (
            *WRONG_TARGETS,
            bad("label_smoothing", f(4, 5), LABELS, label_smoothing=1.5),
            bad("floating point type", f(4, 5), ints(4, 5)),
            bad("ignore_index", f(4, 5), rows(4, 5), ignore_index=1),
        ),
    ),
    Op(
        "nn.functional.linear_cross_entropy",
        (s(f(4, 3), f(5, 3), LABELS), s(f(4, 3), f(5, 3), IGNORED, linear_bias=f(5), label_smoothing=0.1, **SUM)),
    ),
    Op(
        "nn.functional.multi_margin_loss",
        (
            s(f(4, 5), LABELS),
            s(f(4, 5), LABELS, 2, **NONE),
            s(f(4, 5), LABELS, 2, weight=fixed(pos(5))),
            s(f(4, 5), LABELS, margin=0.3, **SUM),
            s(f(5), np.array(3)),
            s(f(5), np.array([3]), **NONE),
        ),
        (
            bad("out of range", f(4, 5), LABELS + 3),
            bad("p == 1", f(4, 5), LABELS, 3),
            bad("batch", f(4, 5), LABELS[:2]),
            bad("weight", f(4, 5), LABELS, weight=pos(4)),
            bad("Long", f(4, 5), LABELS.astype("int32")),
            bad("not implemented", ints(4, 5), LABELS),
        ),
        beyond=True,
    ),
    Op(
        "nn.functional.multilabel_margin_loss",
        (
            s(f(4, 4), LIST),
            s(f(4, 4), LIST, **NONE),
            s(f(4, 4), LIST, **SUM),
            s(f(4), LIST[0]),
            s(f(4), LIST[0], **NONE),
        ),
        (
            bad("inconsistent target size", f(4, 4), LIST[:2]),
            bad("out of range", f(4, 4), LIST + 3),
            bad("Long", f(4, 4), LIST.astype("int32")),
        ),
        beyond=True,
    ),
    Op(
        "nn.functional.multilabel_soft_margin_loss",
        (
            s(f(3, 4), unit(3, 4)),
            s(f(3, 4), unit(3, 4), pos(4), **NONE),
            s(f(2, 3, 4), unit(2, 3, 4), **SUM),
            s(f(2, 3, 4), unit(2, 3, 4), **NONE),
        ),
        (bad("not valid", f(3, 4), unit(3, 4), reduction="x"), bad("not implemented", ints(3, 4), unit(3, 4))),
    ),
)

LOSSES: tuple[Op, ...] = (*PAIRWISE, *VECTORS, *CLASSES)
