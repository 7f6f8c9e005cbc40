"""Samples of embeddings, bags of them, and one-hot rows."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, f, once, s

INDEX = np.array([[0, 3, 3], [1, 0, 4]])
FLAT = np.array([1, 2, 4, 4, 0, 2])
STARTS = np.array([0, 2, 2, 5])

LOOKUP: tuple[Op, ...] = (
    Op(
        "nn.functional.embedding",
        (
            s(INDEX, f(5, 3)),
            s(INDEX, f(5, 3), 3),
            s(INDEX, f(5, 3), padding_idx=-2),
            s(np.array(2), f(5, 3)),
            s(INDEX[:0], f(5, 3)),
            s(INDEX.astype("int32"), f(5, 3)),
            once(s(INDEX, f(5, 3), scale_grad_by_freq=True)),  # PyTorch leaves the scaling out of the second one
            once(s(INDEX, f(5, 3), 0, scale_grad_by_freq=True)),  # likewise
        ),
        (
            bad("out of range", INDEX + 2, f(5, 3)),
            bad("out of range", INDEX - 1, f(5, 3)),
            bad("Long, Int", f(3), f(5, 3)),
            bad("within num_embeddings", INDEX, f(5, 3), 5),
            bad("2-D", INDEX, f(5)),
        ),
    ),
    Op(
        "nn.functional.embedding_bag",
        (
            s(INDEX, f(5, 3)),
            s(INDEX, f(5, 3), mode="sum"),
            s(INDEX, f(5, 3), mode="max"),
            s(FLAT, f(5, 3), STARTS),
            s(FLAT, f(5, 3), STARTS, mode="sum"),
            s(FLAT, f(5, 3), STARTS, mode="max"),
            s(FLAT, f(5, 3), np.append(STARTS, 6), include_last_offset=True),
            s(FLAT, f(5, 3), STARTS, mode="sum", per_sample_weights=f(6)),
            s(INDEX, f(5, 3), mode="sum", per_sample_weights=f(2, 3)),
            s(FLAT, f(5, 3), STARTS, padding_idx=4),
            s(FLAT, f(5, 3), STARTS, mode="max", padding_idx=-1),
            s(FLAT, f(5, 3), STARTS, mode="sum", scale_grad_by_freq=True),
            s(FLAT.astype("int32"), f(5, 3), STARTS.astype("int32")),
        ),
        (
            bad("offsets has to be a 1D", FLAT, f(5, 3)),
            bad("2D, then offsets", INDEX, f(5, 3), STARTS),
            bad("1D or 2D", INDEX[None], f(5, 3)),
            bad(r"offsets\[0\]", FLAT, f(5, 3), STARTS + 1),
            bad(r"offsets\[-1\]", FLAT, f(5, 3), STARTS * 3),
            bad("mode has to be", FLAT, f(5, 3), STARTS, mode="median"),
            bad("per_sample_weights", FLAT, f(5, 3), STARTS, per_sample_weights=f(6)),
            bad("same shape", FLAT, f(5, 3), STARTS, mode="sum", per_sample_weights=f(5)),
            bad("frequency", FLAT, f(5, 3), STARTS, mode="max", scale_grad_by_freq=True),
            bad("index_size", FLAT + 3, f(5, 3), STARTS),
            bad("padding_idx", FLAT, f(5, 3), STARTS, padding_idx=9),
        ),
    ),
    Op(
        "nn.functional.one_hot",
        (s(INDEX), s(INDEX, 6), s(np.array(1), num_classes=3), s(INDEX[:0], 3)),
        (
            bad("smaller than num_classes", INDEX, 3),
            bad("non-negative", INDEX - 1, 6),
            bad("non-negative", INDEX - 1),
            bad("LongTensor", INDEX.astype("int32")),
            bad("infer", INDEX[:0]),
            bad("smaller", INDEX, 0),
        ),
    ),
)
