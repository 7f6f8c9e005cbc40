"""Samples of layers and losses under `torch` whose arguments differ from those of `nn.functional`."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, distinct, f, fixed, once, pos, s

_SIGNS = np.array([1, -1, 1, -1])
_ROWS = np.array([1, 2, 4, 2])
_BAGS = np.array([0, 1, 1])
_LOG = np.log(np.full((4, 2, 3), 1 / 3)) + f(4, 2, 3) * 0.1


def _drawn(name: str) -> tuple[Op, ...]:
    samples = (s(f(2, 4, 3), 0.5, True), s(f(2, 4), 0.3, train=False), s(f(2, 4), 1.0, True), s(f(2, 4), 0.0, True))
    refused = (bad("between 0 and 1", f(2, 2), 1.5, True), bad("train", f(2, 2), 0.5))
    return (
        Op(name, samples, refused, values=False),
        Op(f"{name}_", (s(f(2, 4), 0.0, True), s(f(2, 4), 0.5, False)), ()),
    )


def _statistics(channels: int) -> tuple[np.ndarray, np.ndarray]:
    return fixed(f(channels)), fixed(pos(channels))


NATIVE: tuple[Op, ...] = (
    *(op for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout") for op in _drawn(name)),
    Op(
        "native_dropout",
        (s(f(2, 3), 0.5, False), s(f(2, 3), 0.0, True), s(f(2, 3), 1.0, True), s(f(2, 3), 0.0, None)),
    ),
    Op(
        "embedding",
        (
            *(s(f(5, 3), _ROWS), s(f(5, 3), _ROWS, 2), s(f(5, 3), _ROWS, padding_idx=-1)),
            once(s(f(5, 3), _ROWS, -1, True, False)),  # PyTorch leaves the scaling out of the second one
        ),
        (bad("must be 2-D", f(3), _ROWS),),
        layouts=False,
    ),
    Op(
        "embedding_bag",
        (
            *(s(f(5, 3), _ROWS, _BAGS), s(f(5, 3), _ROWS, _BAGS, False, 1), s(distinct(5, 3), _ROWS, _BAGS, mode=2)),
            s(f(5, 3), _ROWS, _BAGS, False, 0, False, f(4)),
            s(f(5, 3), _ROWS, np.array([0, 2, 4]), False, 1, False, None, True),
            s(f(5, 3), _ROWS, _BAGS, False, 1, False, None, False, 2),
            s(distinct(5, 3), _ROWS, _BAGS, False, 2, False, None, False, 2),
        ),
        (bad("`mode` must be", f(5, 3), _ROWS, _BAGS, False, 3),),
        layouts=False,
        dtypes=("float64",),
    ),
    Op(
        "batch_norm",
        (
            s(f(3, 2, 4), f(2), f(2), None, None, True, 0.1, 1e-5, True),
            s(f(3, 2), None, None, *_statistics(2), False, 0.1, 1e-3, False),
            s(f(3, 2, 2), f(2), f(2), *_statistics(2), True, 0.3, 1e-5, True),
        ),
        layouts=("transposed",),
    ),
    Op(
        "instance_norm",
        (
            s(f(3, 2, 4), f(2), f(2), None, None, True, 0.1, 1e-5, True),
            s(f(3, 2, 4), None, None, *_statistics(2), False, 0.1, 1e-3, False),
        ),
    ),
    Op("group_norm", (s(f(2, 4, 3), 2), s(f(2, 4), 2, f(4), f(4), 1e-3, False)), (bad("divisible", f(2, 3), 2),)),
    Op("layer_norm", (s(f(2, 3, 4), [4]), s(f(2, 3), (2, 3), f(2, 3), f(2, 3), 1e-3, False))),
    Op("rms_norm", (s(f(2, 3, 4), [4]), s(f(2, 3), (2, 3), f(2, 3), 1e-3))),
    Op(
        "native_layer_norm",
        (s(f(2, 3, 4), [4], None, None, 1e-5), s(f(2, 3, 2), (3, 2), f(3, 2), f(3, 2), 1e-3)),
    ),
    Op(
        "native_group_norm",
        (s(f(2, 4, 3), None, None, 2, 4, 3, 2, 1e-5), s(f(2, 4, 1, 2), f(4), f(4), 2, 4, 2, 1, 1e-3)),
        layouts=False,
    ),
    Op(
        "native_batch_norm",
        (
            s(f(3, 2, 4), f(2), f(2), None, None, True, 0.1, 1e-5),
            s(f(3, 2), None, None, *_statistics(2), True, 0.1, 1e-3),
        ),
        layouts=("transposed",),
    ),
    # PyTorch has another name for its older norm.
    Op("norm_except_dim", (s(f(3, 4)), s(f(2, 3, 4), 2, 1), s(f(2, 3, 4), 3, 2), s(f(2, 3), dim=-1)), grad_fn=False),
    Op(
        "conv_tbc",
        (s(f(5, 2, 3), f(3, 3, 2), f(2)), s(f(3, 1, 2), f(2, 2, 3), f(3), 1)),
        (
            bad("3 dims: time", f(5, 2), f(3, 3, 2), f(2)),
            bad("input channels", f(5, 2, 3), f(3, 2, 2), f(2)),
            bad("output channels", f(5, 2, 3), f(3, 3, 2), f(3)),
        ),
        layouts=False,
    ),
    Op(
        "grid_sampler",
        (
            s(f(1, 2, 3, 3), f(1, 2, 2, 2, low=-0.8, high=0.8), 0, 0, True),
            once(s(f(1, 2, 3, 3), f(1, 2, 2, 2, low=-0.8, high=0.8), 1, 1, False)),
            s(f(1, 1, 4, 4), f(1, 2, 1, 2, low=-0.8, high=0.8), 2, 2, True),
        ),
        (bad("same batch size", f(1, 1, 2, 2), f(2, 1, 1, 2), 0, 0, True),),
        layouts=False,
    ),
    Op("grid_sampler_2d", (s(f(1, 2, 3, 3), f(1, 2, 2, 2, low=-0.8, high=0.8), 0, 1, True),), layouts=False),
    Op(
        "grid_sampler_3d",
        (s(f(1, 1, 2, 2, 2), f(1, 1, 2, 1, 3, low=-0.8, high=0.8), 0, 0, False),),
        layouts=False,
    ),
    Op(
        "affine_grid_generator",
        (s(f(1, 2, 3), (1, 1, 2, 3), True), s(f(1, 3, 4), [1, 1, 2, 2, 2], False)),
    ),
    Op(
        "binary_cross_entropy_with_logits",
        (
            *(s(f(3), pos(3, low=0.1, high=0.9), reduction=how) for how in (0, 1, 2, 5)),
            s(f(2, 3), pos(2, 3, low=0.1, high=0.9), fixed(pos(3)), fixed(pos(3)), 1),
        ),
        (bad("must be int", f(3), pos(3), reduction="mean"),),
    ),
    Op(
        "cosine_embedding_loss",
        tuple(s(f(4, 3), f(4, 3), _SIGNS, margin, how) for margin, how in ((0.0, 0), (0.2, 1), (0.0, 2))),
        (bad("must be int", f(4, 3), f(4, 3), _SIGNS, 0.0, "sum"),),
        layouts=False,
    ),
    Op(
        "ctc_loss",
        (
            s(_LOG, np.array([[1, 2], [2, 1]]), np.array([4, 4]), np.array([2, 1])),
            s(_LOG, np.array([[1, 2], [2, 1]]), [4, 3], [2, 1], 0, 0),
            s(_LOG, np.array([[1, 2], [2, 1]]), [4, 3], [2, 2], blank=0, reduction=2, zero_infinity=True),
        ),
        (),
        layouts=False,
        beyond=True,
    ),
    Op("hinge_embedding_loss", (s(f(4), _SIGNS), s(f(4), _SIGNS, 0.5, 0), s(f(4), _SIGNS, reduction=2)), layouts=False),
    Op(
        "kl_div",
        (
            *(s(f(3, 2), pos(3, 2), how) for how in (0, 1, 2)),
            s(f(3), f(3), reduction=1, log_target=True),
        ),
    ),
    Op("margin_ranking_loss", (s(f(4), f(4), _SIGNS), s(f(4), f(4), _SIGNS, 0.5, 0)), layouts=False),
    Op(
        "poisson_nll_loss",
        (s(f(3), pos(3), True, False, 1e-8, 1), s(pos(3), pos(3, low=2), False, True, 1e-6, 0)),
        (bad("reduction", f(3), pos(3), True, False, 1e-8),),
    ),
    Op("triplet_margin_loss", (s(f(4, 3), f(4, 3), f(4, 3)), s(f(4, 3), f(4, 3), f(4, 3), 0.5, 2.0, 1e-6, True, 0))),
)
