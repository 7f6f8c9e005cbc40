"""Samples of the copies that views have, and of numbers stored in tensors."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, f, fixed, ints, mask, s


def _together(a: float, b: float, c: float) -> float:
    return a + 2 * b - c


VIEW_COPIES: tuple[Op, ...] = (
    Op("alias_copy", (s(f(2, 3)), s(ints(2)), s(f())), (bad("must be Tensor", 3),)),
    Op("detach_copy", (s(f(2, 3)), s(mask(2))), grads=0),  # PyTorch's result requires gradients and has none
    Op("as_strided_copy", (s(f(2, 3), (2, 2), (1, 2)), s(f(4), (3, 2), (1, 1), 0)), layouts=False),
    Op("diagonal_copy", (s(f(3, 3)), s(f(2, 3, 4), 1, 0, 2)), (bad("cannot be identical", f(2, 2), 0, 1, 1),)),
    Op(
        "expand_copy",
        (s(f(1, 3), (2, 3)), s(f(3), [2, -1]), s(f(1, 3), (2, 3), implicit=True)),
        (bad("must match the existing size", f(2, 3), (2, 2)), bad("positional", f(1, 3), 2, 3)),
    ),
    Op("permute_copy", (s(f(2, 3, 2), (2, 0, 1)), s(f(2, 3), dims=[-1, 0])), (bad("duplicate dims", f(2, 3), (0, 0)),)),
    Op("select_copy", (s(f(2, 3), 0, 1), s(f(2, 3), -1, -2)), (bad("out of range", f(2, 3), 0, 7),)),
    Op(
        "slice_copy",
        (
            s(f(3, 4)),
            s(f(3, 4), 1, -3, 9, 2),
            s(f(3, 4), 1, None, None, 2),
            s(f(3), 0, 3, 1),
            s(f(3, 4), dim=1, start=1),
        ),
        (
            bad("slice step must be positive", f(3), 0, 0, 2, 0),
            bad("0-dim tensor", f()),
            bad("Dimension out of range", f(3), 5),
        ),
    ),
    Op("split_copy", (s(f(5, 2), 2), s(f(2, 5), split_size=3, dim=1)), (bad("must be int", f(3), [1, 2]),)),
    Op("split_with_sizes_copy", (s(f(5, 2), [2, 3]), s(f(2, 5), (0, 5), -1)), (bad("sum exactly", f(3), [1, 1]),)),
    Op("squeeze_copy", (s(f(1, 3, 1)), s(f(1, 3), 0), s(f(1, 3, 1), (0, -1)))),
    Op("t_copy", (s(f(2, 3)), s(f(3)))),
    Op("transpose_copy", (s(f(2, 3, 2), 0, 2), s(f(2, 3), -1, 0)), (bad("Dimension out of range", f(2, 3), 0, 2),)),
    Op("unbind_copy", (s(f(2, 3)), s(f(2, 3), -1)), (bad("no dimensions", f()),)),
    Op("unfold_copy", (s(f(5), 0, 3, 2), s(f(2, 4), -1, 2, 1)), (bad("maximum size", f(3), 0, 4, 1),)),
    Op("unsqueeze_copy", (s(f(2, 3), 1), s(f(), 0))),
    Op(
        "view_copy",
        (s(f(3, 4), (2, 6)), s(f(3, 4), size=(-1,)), s(f(2, 3), dtype="torch.int32"), s(f(1), ())),
        (bad("invalid for input", f(3, 4), (7,)), bad("combination", f(3, 4), 3, 4)),
        layouts=False,
    ),
    Op("unsafe_split_with_sizes", (s(f(5, 2), [2, 3]),)),
    Op(
        "fill",
        (s(f(2, 3), 3), s(f(2, 3), f()), s(ints(2), 2.5), s(ints(2), fixed(f())), s(mask(2), 3), s(f(0), 1)),
        (bad("0-dimension value", f(2), f(2)), bad("argument|Number", f(2), "a")),
    ),
    Op(
        "Tensor.fill_diagonal_",
        (
            *(s(f(3, 4), 2.5), s(f(7, 3), 5, wrap=True), s(f(9, 2), 1, True), s(f(3, 7), 5, wrap=True)),
            *(s(f(2, 2, 2), 1), s(ints(3, 3), 2.5), s(f(0, 2), 1)),
        ),
        (
            bad("must larger than 1", f(3), 1),
            bad("equal length", f(2, 3, 2), 1),
            bad("must be Number", f(2, 2), "a"),
        ),
        layouts=False,
    ),
    Op(
        "Tensor.map2_",
        (s(f(2, 3), f(2, 3), f(3), _together), s(ints(2), ints(2), ints(2), _together)),
        (bad("argument 'x'", f(2), ints(2), f(2), _together), bad("argument 'y'", f(2), f(2), ints(2), _together)),
        grads=0,  # PyTorch refuses operands that require gradients
    ),
    Op(
        "constant_pad_nd",
        (
            *(s(f(2, 3), (1, 2)), s(f(2, 3), (1, -1, 0, 1), 2.5), s(ints(2), [1, 1], 2), s(f(), ())),
            s(f(2, 3), pad=(-1, 0), value=1),
        ),
        (
            bad("must be even", f(3), (1,)),
            bad("no more than twice", f(3), (1, 1, 1, 1)),
            bad("non-negative", f(3), (-2, -2)),
        ),
    ),
    Op(
        "empty_permuted",
        (s((2, 3, 4), (1, 0, 2)), s((2,), (0,), dtype="torch.int8"), s((), ()), s((2, 0), (1, 0))),
        (
            bad("does not match the length", (2, 3), (0,)),
            bad("Duplicate dim", (2, 3), (0, 0)),
            bad("Dimension out of range", (2, 3), (0, -1)),
            bad("negative dimension", (2, -3), (0, 1)),
        ),
        layouts=False,
        dtypes=("float64",),
        values=False,
    ),
    Op("get_device", (s(f(2)), s(input=ints(2))), (bad("must be Tensor", np.float64(2.0)),)),
)
