"""Samples of views: other shapes, orders, parts and strides over one memory."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, f, ints, mask, s

VIEWS: tuple[Op, ...] = (
    Op(
        "reshape",
        (
            s(f(3, 4), (2, 6)),
            s(f(3, 4), (-1,)),
            s(f(2, 0, 3), (0, 5)),
            s(f(), (1, 1)),
            s(ints(2, 3), (3, 2)),
            s(f(6), (-1, 2)),
        ),
        (
            bad("invalid for input of size 12", f(3, 4), (5, 2)),
            bad("only one dimension can be inferred", f(3, 4), (-1, -1)),
            bad("invalid shape dimension -2", f(3, 4), (-2, 6)),
            bad("ambiguous", f(0, 3), (-1, 0)),
        ),
    ),
    Op(
        "Tensor.view",
        (
            *(s(f(3, 4), 2, 6), s(f(3, 4), (-1,)), s(f(), 1), s(mask(4), 2, 2), s(f(3, 4), "torch.float64")),
            *(s(f(2, 3), "torch.int32"), s(f(3), "torch.uint8"), s(f(), dtype="torch.int64")),
            *(s(ints(2, 4, dtype="int16"), "torch.float32"), s(mask(16), "torch.int64"), s(mask(3), "torch.uint8")),
            *(s(ints(3, dtype="uint8"), "torch.bool"), s(ints(4, dtype="int16"), "torch.bfloat16")),
        ),
        (
            *(bad("invalid for input", f(3, 4), 7), bad("argument", f(3))),
            bad(r"self.size\(-1\) must be divisible by 2", ints(2, 3, dtype="int32"), "torch.float64"),
            bad(r"self.stride\(0\) must be divisible by 2", ints(3, 1, dtype="int32")[:, :0], "torch.float64"),
            bad(r"self.dim\(\) cannot be 0", f(), "torch.int8"),
        ),
        layouts=False,
        dtypes=("float64",),
    ),
    Op("Tensor.view_as", (s(f(3, 4), f(2, 6)),), layouts=False),
    Op("Tensor.reshape_as", (s(f(3, 4), f(2, 6)),)),
    Op(
        "flatten",
        (
            s(f(2, 3, 2)),
            s(f(2, 3, 2), 1),
            s(f(2, 3, 2), 0, 1),
            s(f(2, 3, 2), -2, -1),
            s(f()),
            s(f(2, 3), 1, 1),
            s(f(0, 3)),
        ),
        (bad("start_dim cannot come after end_dim", f(2, 3), 1, 0), bad("Dimension out of range", f(2), 3)),
    ),
    Op("ravel", (s(f(2, 3)), s(f()), s(f(0, 2)))),
    Op(
        "unflatten",
        (s(f(2, 6), 1, (2, -1)), s(f(6), -1, (3, 2)), s(f(4, 2), 0, [2, 2])),
        (
            bad("don't multiply up", f(2, 4), 1, (3, 2)),
            bad("must be non-empty", f(2), 0, ()),
            bad("tuple of ints", f(4), 0, 4),
        ),
    ),
    Op(
        "permute",
        (s(f(2, 3, 4), (2, 0, 1)), s(f(2, 3), (-1, 0)), s(f(), ()), s(ints(2, 3), (1, 0))),
        (
            bad("duplicate dims", f(2, 3), (0, 0)),
            bad("number of dimensions", f(2, 3), (0,)),
            bad("Dimension out of range", f(2, 3), (0, 2)),
        ),
    ),
    *(
        Op(
            name,
            (s(f(2, 3, 2), 0, 2), s(f(2, 3), -1, 0), s(f(3), 0, 0)),
            (bad("Dimension out of range", f(2, 3), 0, 2),),
        )
        for name in ("transpose", "swapaxes", "swapdims")
    ),
    Op("t", (s(f(2, 3)), s(f(3)), s(f())), (bad("expects a tensor with <= 2 dimensions", f(1, 2, 3)),)),
    Op("adjoint", (s(f(2, 3)), s(f(2, 3, 2))), (bad("Got 1-D tensor", f(3)),)),
    *(
        Op(
            name,
            (s(f(2, 3, 2), 0, 2), s(f(2, 3, 2), (0, 1), (-1, 0)), s(f(3), 0, 0)),
            (
                bad("should contain the same number", f(2, 3), (0, 1), (0,)),
                bad("repeated dim in `source`", f(2, 3), (0, 0), (0, 1)),
                bad("repeated dim in `destination`", f(2, 3), (0, 1), (0, 0)),
            ),
        )
        for name in ("movedim", "moveaxis")
    ),
    Op("broadcast_to", (s(f(3), (2, 3)), s(f(), (2,)), s(f(1, 3), (4, 3)))),
    Op(
        "Tensor.expand",
        (s(f(3, 1), 3, 4), s(f(3), 2, -1), s(f(), 3), s(f(1, 3), 0, 3), s(f(3, 1), (2, 3, 2))),
        (
            bad("must match the existing size", f(2, 3), 3, 3),
            bad("number of sizes provided", f(2, 3), 3),
            bad("leading, non-existing dimension", f(3), -1, 3),
        ),
    ),
    Op("Tensor.expand_as", (s(f(3, 1), f(3, 4)),)),
    Op(
        "squeeze",
        (s(f(1, 3, 1)), s(f(1, 3, 1), 0), s(f(1, 3, 1), (0, -1)), s(f(2, 3), 0), s(f()), s(f(), 0)),
        (bad("Dimension out of range", f(1, 2), 3), bad("multiple times", f(1, 2), (0, 0))),
    ),
    Op("unsqueeze", (s(f(2, 3), 1), s(f(3), -1), s(f(), 0)), (bad("Dimension out of range", f(2), 4),)),
    Op(
        "narrow",
        (s(f(4, 3), 0, 1, 2), s(f(4, 3), -1, -2, 2), s(f(4), 0, np.array(1), 2), s(f(4), 0, 4, 0)),
        (
            bad("non-negative", f(3), 0, 0, -1),
            bad("exceeds dimension size", f(3), 0, 2, 3),
            bad("start out of range", f(3), 0, 5, 1),
            bad("0-dim tensor", f(), 0, 0, 1),
        ),
    ),
    Op(
        "select",
        (s(f(2, 3), 0, 1), s(f(2, 3), -1, -2), s(ints(3), 0, 2)),
        (bad("out of range", f(2, 3), 0, 7), bad("0-dim tensor", f(), 0, 0)),
    ),
    Op("unbind", (s(f(2, 3)), s(f(2, 3), -1), s(f(0, 2))), (bad("no dimensions", f()),)),
    Op(
        "split",
        (s(f(5, 2), 2), s(f(5, 2), [1, 4]), s(f(2, 5), 3, -1), s(f(0), 0), s(f(0, 2), 3)),
        (
            bad("can only be 0", f(3), 0),
            bad("non-negative", f(3), -1),
            bad("sum exactly", f(3), [1, 1]),
            bad("non-negative entries", f(3), [4, -1]),
            bad("at least a 1-dimensional", f(), 1),
        ),
    ),
    Op("split_with_sizes", (s(f(5, 2), [2, 3]), s(f(2, 5), (0, 5), -1))),
    Op("unsafe_split", (s(f(5, 2), 2),)),
    Op("unsafe_chunk", (s(f(5, 2), 2),)),
    Op(
        "chunk",
        (s(f(5, 2), 2), s(f(2, 5), 7, 1), s(f(0, 2), 3)),
        (bad("greater than 0", f(3), 0), bad("at least a 1-dimensional", f(), 1)),
    ),
    Op(
        "tensor_split",
        (s(f(5, 2), 3), s(f(5, 2), (1, 7, 2)), s(f(2, 5), [-1], 1), s(f(5), np.array([1, 3])), s(f(5), np.array(2))),
        (bad("larger than 0", f(3), 0), bad("at least a 1-dimensional", f(), 1), bad("dtype of long", f(3), f(1))),
    ),
    Op(
        "hsplit",
        (s(f(4, 2), 2), s(f(4), 2), s(f(2, 4), [1, 2])),
        (bad("not divisible", f(2, 3), 2), bad("at least", f(), 1)),
    ),
    Op("vsplit", (s(f(4, 2), 2), s(f(4, 2), (1,))), (bad("not divisible", f(3, 3), 2), bad("at least 2", f(3), 1))),
    Op("dsplit", (s(f(2, 2, 4), 2),), (bad("at least 3", f(3, 3), 1),)),
    Op(
        "diagonal",
        (s(f(3, 4)), s(f(3, 4), 1), s(f(3, 4), -2), s(f(2, 3, 4), 0, 1, 2), s(f(2, 3, 4), 1, -1, 0), s(f(3, 4), 9)),
        (bad("cannot be identical", f(3, 4), 0, 0, 0), bad("Dimension out of range", f(3))),
    ),
    Op(
        "Tensor.unfold",
        (
            s(f(5, 2), 0, 3, 1),
            s(f(2, 7), 1, 2, 3),
            s(f(7), -1, 7, 1),
            s(f(4), 0, 0, 2),
            s(f(), 0, 1, 1),
            s(ints(5), 0, 2, 2),
        ),
        (
            bad("maximum size for tensor", f(3), 0, 5, 1),
            bad("must be > 0", f(3), 0, 1, 0),
            bad("must be >= 0", f(3), 0, -1, 1),
        ),
        dtypes=("float64",),
    ),
    Op(
        "as_strided",
        (
            s(f(3, 4), (2, 2), (1, 2)),
            s(f(3, 4), (2, 3), (4, 1), 1),
            s(f(6), (2, 3), (0, 2)),
            s(f(6), (), (), 3),
            s(f(6), (4, 3), (1, 1)),
        ),
        (
            bad("out of bounds for storage", f(4), (5,), (1,)),
            bad("mismatch in length", f(4), (2, 2), (1,)),
            bad("Negative strides", f(4), (2,), (-1,)),
        ),
        layouts=False,
    ),
    Op("detach", (s(f(2, 3)), s(ints(3))), forms=False),
    Op("real", (s(f(2, 3)), s(ints(3)))),
    Op("imag", (), (bad("not implemented for tensors with non-complex", f(3)),)),
)
