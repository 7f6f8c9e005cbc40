"""Samples of resampling: other extents, grids, channels moved into space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.differential.samples.base import Bad, Op, Sample, bad, f, forward, ints, once, s


def op(name: str, samples: Sequence[Sample], refused: Sequence[Bad] = (), **options: Any) -> Op:
    return Op(f"nn.functional.{name}", tuple(samples), tuple(refused), **{"forms": False, **options})


def grid(*shape: int) -> np.ndarray:
    """Places in and around an image, none on an element or an edge."""
    made = np.random.default_rng(5).uniform(-1.6, 1.6, shape)
    return np.asarray(np.round(made, 2) + 0.0137)


OTHER_EXTENTS = (
    op(
        "interpolate",
        (
            s(f(1, 2, 5), 3),
            s(f(1, 1, 5), scale_factor=1.3),
            s(f(1, 1, 3, 4), (5, 2)),
            s(f(1, 1, 3, 4), scale_factor=(1.1, 2), mode="nearest-exact"),
            s(f(1, 1, 2, 3, 2), scale_factor=2, mode="nearest"),
            s(f(1, 1, 2, 3, 2), 3, mode="nearest-exact"),
            s(f(2, 1, 5), 8, mode="linear"),
            s(f(1, 1, 5), 3, mode="linear", align_corners=True),
            s(f(1, 1, 5), 1, mode="linear", align_corners=True),
            s(f(1, 2, 3, 4), (5, 2), mode="bilinear"),
            s(f(1, 1, 3, 4), scale_factor=1.7, mode="bilinear", align_corners=False),
            s(f(1, 1, 3, 4), scale_factor=1.7, mode="bilinear", recompute_scale_factor=True),
            s(f(1, 1, 3, 4), scale_factor=1.1, mode="bilinear", align_corners=True),
            s(f(1, 1, 3, 4), (5, 3), mode="bicubic"),
            s(f(1, 1, 3, 4), scale_factor=1.3, mode="bicubic", align_corners=True),
            s(f(1, 1, 2, 3, 2), (3, 2, 4), mode="trilinear"),
            s(f(1, 1, 2, 3, 2), scale_factor=(1.5, 1.0, 2.0), mode="trilinear", align_corners=True),
            s(f(1, 1, 6, 5), (2, 3), mode="bilinear", antialias=True),
            s(f(1, 1, 7, 3), (3, 5), mode="bicubic", antialias=True),
            s(f(1, 1, 6, 5), scale_factor=0.6, mode="bilinear", antialias=True),
            # Its gradient in PyTorch is not that of what it computes: it scales the axis that keeps its extent.
            forward(s(f(1, 1, 4, 2), scale_factor=1.3, mode="bicubic", antialias=True)),
            s(f(1, 2, 5), 3, mode="area"),
            s(f(1, 1, 4, 5), scale_factor=0.5, mode="area"),
            s(ints(1, 1, 3, 4, low=0, dtype="uint8"), 5),
            s(f(0, 2, 5), 3),
        ),
        (
            bad("either size or scale_factor", f(1, 2, 5)),
            bad("only one of size or scale_factor", f(1, 2, 5), 3, 2),
            bad("same number of spatial dimensions.*output size", f(1, 2, 5), (3, 3)),
            bad("same number of spatial dimensions.*scale_factor", f(1, 2, 5), None, (3, 3)),
            bad("align_corners option", f(1, 2, 5), 3, align_corners=True),
            bad("Got 4D input, but linear mode needs 3D", f(1, 1, 2, 5), 3, mode="linear"),
            bad("Got 5D input, but bilinear mode needs 4D", f(1, 1, 2, 2, 2), 3, mode="bilinear"),
            bad("Anti-alias option", f(1, 2, 5), 3, antialias=True),
            bad("output \\(W: 0\\)", f(1, 2, 5), 0),
            bad("output \\(W: 0\\)", f(1, 2, 5), scale_factor=0.1),
            bad("input \\(W: 0\\)", f(1, 2, 0), 3),
            bad("got 2D", f(2, 5), 3),
            bad("Non-empty 3D data tensor", f(1, 0, 5), 3),
            bad("not implemented", ints(1, 2, 5), 3),
            bad("not implemented", ints(1, 2, 5), 3, mode="linear"),
            bad("recompute_scale_factor is not meaningful", f(1, 2, 5), 3, recompute_scale_factor=True),
            bad("Lanczos", f(1, 1, 5, 5), 3, mode="lanczos"),
        ),
        rtol=1e-8,
    ),
    op("upsample", (s(f(1, 2, 5), 3), s(f(1, 1, 2, 3), None, 2, "bilinear", True))),
    op("upsample_nearest", (s(f(1, 1, 2, 3), scale_factor=2),)),
    op("upsample_bilinear", (s(f(1, 1, 2, 3), (3, 4)),)),
)

GRIDS = (
    op(
        "grid_sample",
        (
            *(
                s(f(1, 2, 3, 4), grid(1, 2, 3, 2), mode, padding, align)
                for mode in ("bilinear", "nearest", "bicubic")
                for padding in ("zeros", "border", "reflection")
                for align in (False, True)
            ),
            *(
                s(f(2, 1, 2, 3, 2), grid(2, 1, 2, 2, 3), mode, padding, align)
                for mode, padding, align in (
                    ("bilinear", "zeros", False),
                    ("bilinear", "border", True),
                    ("bilinear", "reflection", False),
                    ("nearest", "reflection", True),
                    ("nearest", "zeros", False),
                )
            ),
            s(f(0, 1, 2, 2), grid(0, 2, 2, 2), align_corners=False),
            once(s(f(1, 1, 1, 1), grid(1, 2, 2, 2), padding_mode="reflection", align_corners=True)),
        ),
        (
            bad("expected mode to be", f(1, 1, 2, 2), grid(1, 2, 2, 2), "linear"),
            bad("expected padding_mode to be", f(1, 1, 2, 2), grid(1, 2, 2, 2), padding_mode="wrap"),
            bad("same batch size", f(1, 1, 2, 2), grid(2, 2, 2, 2), align_corners=False),
            bad("size 2 in last dimension", f(1, 1, 2, 2), grid(1, 2, 2, 3), align_corners=False),
            bad("non-empty spatial", f(1, 1, 0, 2), grid(1, 2, 2, 2), align_corners=False),
            bad("only supports 4D", f(1, 1, 2, 2, 2), grid(1, 1, 2, 2, 3), "bicubic", align_corners=False),
            bad("not implemented", ints(1, 1, 2, 2), ints(1, 2, 2, 2), align_corners=False),
        ),
        rtol=1e-8,
    ),
    op(
        "affine_grid",
        (
            s(f(2, 2, 3), [2, 1, 3, 2], False),
            s(f(1, 2, 3), (1, 1, 2, 3), align_corners=True),
            s(f(1, 3, 4), (1, 1, 2, 1, 3), align_corners=False),
        ),
        (
            bad("shape Nx3x4", f(2, 2, 3), [2, 3, 4, 5, 6], False),
            bad("shape Nx2x3", f(2, 3, 4), [2, 3, 4, 5], False),
            bad("but got: \\[2, 3\\]", f(2, 2, 3), [1, 3, 4, 5], False),
            bad("only supports 4D and 5D", f(2, 2, 3), [2, 3, 4], False),
            bad("non-zero, positive output size", f(2, 2, 3), [2, 3, 0, 5], False),
            bad("floating point type", ints(2, 2, 3), [2, 3, 4, 5], False),
        ),
    ),
)

SHUFFLES = (
    op(
        "pixel_shuffle",
        (s(f(2, 4, 2, 3), 2), s(f(9, 1, 2), 3), s(ints(2, 1, 4, 1, 2), 2)),
        (
            bad("at least 3 dimensions", f(2, 3), 2),
            bad("divisible by the square", f(7, 2, 3), 2),
            bad("positive upscale_factor", f(4, 2, 3), 0),
        ),
    ),
    op(
        "pixel_unshuffle",
        (s(f(2, 1, 4, 2), 2), s(f(1, 3, 6), 3), s(ints(2, 1, 2, 2), 2)),
        (
            bad("at least 3 dimensions", f(2, 3), 2),
            bad("height to be divisible", f(1, 3, 2), 2),
            bad("width to be divisible", f(1, 2, 3), 2),
            bad("positive downscale_factor", f(4, 2, 3), 0),
        ),
    ),
    op(
        "channel_shuffle",
        (s(f(2, 4, 3), 2), s(f(1, 6, 2, 1), 3)),
        (
            bad("> 2 dims", f(2, 4), 2),
            bad("divisible by groups", f(1, 5, 2), 2),
            bad("must be positive", f(1, 4, 2), 0),
        ),
    ),
    op("native_channel_shuffle", (s(f(2, 4, 3, 1), 2),)),
)

RESAMPLING: tuple[Op, ...] = (*OTHER_EXTENTS, *GRIDS, *SHUFFLES)
