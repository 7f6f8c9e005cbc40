"""Samples of joining, repeating, reversing, diagonals and grids."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, f, ints, mask, s

EMPTY = np.zeros(0)
MATRIX, VECTOR = f(3, 4), f(4)
RANGE = bad("Dimension out of range", [f(2), f(2)], 3)
CATS = (
    s([f(2, 3), f(1, 3)]),
    s([f(2, 3), f(2, 1), f(2, 2)], 1),
    s([f(2, 3), ints(2, 3), mask(2, 3)], dim=-1),
    s([f(2, 3), EMPTY], 0),
    s([EMPTY, EMPTY]),
    s([ints(2, dtype="int32"), ints(3)]),
    s((f(2, 2), f(2, 2)), axis=1),
)
CATS_BAD = (
    bad("expected a non-empty list of Tensors", []),
    bad("zero-dimensional tensor .at position 0. cannot be concatenated", [f()]),
    bad("Tensors must have same number of dimensions: got 2 and 1", [f(2, 3), f(3)]),
    bad("Expected size 3 but got size 2 for tensor number 1", [f(2, 3), f(2, 2)]),
    bad("must be tuple of Tensors, not Tensor", f(2, 3)),
    bad("expected Tensor as element 1 in argument 0, but got int", [f(2), 3]),
    RANGE,
)
STACKS = (s([f(4), f(4)]), s([f(), f()]), s([f(3, 4), ints(3, 4)]), s([f(2, 2, 2), f(2, 2, 2)]))
ATLEAST = (s(f()), s(f(4)), s(f(3, 4)), s(f(2, 3, 2)), s(f(), f(2)), s([f(2), f()]))
COUNTS = np.array([1, 2, 0])

JOINING: tuple[Op, ...] = (
    *(Op(name, CATS, CATS_BAD) for name in ("cat", "concat", "concatenate")),
    Op(
        "stack",
        (s([f(2, 3), f(2, 3)]), s([f(2, 3), ints(2, 3)], 2), s([f(), f()], dim=-1), s([f(0, 2)], 1), s([f(2)], axis=1)),
        (
            bad("non-empty TensorList", []),
            bad(r"got \[3, 4\] at entry 0 and \[4\] at entry 1", [MATRIX, VECTOR]),
            RANGE,
        ),
    ),
    *(Op(name, STACKS, (bad("non-empty TensorList", []),)) for name in ("hstack", "vstack", "row_stack", "dstack")),
    Op("column_stack", (*STACKS, s([f(3), f(3, 2)])), (bad("non-empty TensorList", []),)),
    *(Op(f"atleast_{n}d", ATLEAST) for n in (1, 2, 3)),
    Op("block_diag", (s(f(2, 3), f(4), f()), s(ints(2, 2), f(1, 2)), s()), (bad("2 or fewer dimensions", f(1, 1, 1)),)),
    Op(
        "diag",
        (s(f(3, 4)), s(f(3, 4), 1), s(f(4, 3), -2), s(f(3)), s(f(3), -1), s(f(2), diagonal=2), s(f(3, 4), 5)),
        (bad(r"Supports 1D or 2D tensors. Got 3D", f(2, 2, 2)), bad("Got 0D", f())),
    ),
    Op("diagflat", (s(f(2, 3)), s(f(3), 1), s(f()), s(ints(2), offset=-1))),
    Op(
        "diag_embed",
        (s(f(2, 3)), s(f(2, 3), 1, 0, 2), s(f(3), -2), s(f(2, 3), offset=-1, dim1=-3, dim2=-1), s(f(2, 0))),
        (bad("cannot be identical", f(2, 3), 0, 0, 0), bad("Dimension out of range", f(2, 3), 0, 5, 0)),
    ),
    Op(
        "meshgrid",
        (
            s(f(3), f(2), indexing="ij"),
            s(f(3), f(2), f(2), indexing="xy"),
            s([f(3), f()], indexing="ij"),
            s(ints(2), ints(1), indexing="xy"),
        ),
        (
            bad("indexing must be one of", f(2), f(2), indexing="ji"),
            bad("same dtype", f(2), ints(2), indexing="ij"),
            bad("Expected 0D or 1D tensor", f(2, 2), indexing="ij"),
        ),
    ),
    Op(
        "cartesian_prod",
        (s(f(3), f(2)), s(f(2), f(2), f(3)), s(f(3))),
        (bad("Expect a 1D vector", f(2, 2)),),
    ),
    Op(
        "combinations",
        (s(f(4)), s(f(3), 3, True), s(f(3), r=1), s(ints(4), 2), s(f(2), 3), s(f(3), 0)),
        (bad("Expect a 1D vector", f(2, 2)), bad("Expect a non-negative number", f(3), -1)),
    ),
    Op(
        "broadcast_tensors",
        (s(f(3, 1), f(4)), s(f(2), f(2)), s(f(), ints(2, 1))),
        (bad("must match the size", f(2), f(3)),),
    ),
    Op(
        "broadcast_shapes",
        (s((2, 1), (3,)), s(2, (3, 1)), s((), (1,)), s((4, 1, 2), (3, 1))),
        (bad("Attempting to broadcast a dimension of length 3 at -1", (2,), (3,)),),
    ),
    Op(
        "unravel_index",
        (s(np.array([3, 7]), (3, 4)), s(np.array([[0, 5]]), (2, 3, 1)), s(np.array(5), 6)),
        (bad("to be integer dtype", f(2), (3, 4)),),
    ),
    Op(
        "Tensor.repeat",
        (s(f(3, 4), 2, 2), s(f(3), (2, 1, 2)), s(f(2, 2), 0, 1), s(f(), 3), s(mask(2), repeats=(2,))),
        (bad("can not be smaller than number of dimensions", f(2, 2), 2), bad("negative dimension", f(2), -1)),
    ),
    Op("tile", (s(f(3, 4), (2,)), s(f(3), (2, 1, 2)), s(f(), (2,)), s(ints(2, 2), dims=(1, 2)))),
    Op(
        "repeat_interleave",
        (
            s(f(2, 3), 2),
            s(f(2, 3), 2, 0),
            s(f(2, 3), 3, dim=-1),
            s(f(3, 2), COUNTS, 0),
            s(f(2, 3), COUNTS, dim=1, output_size=3),
            s(f(3), COUNTS),
            s(f(3, 2), np.array([2]), 0),
            s(COUNTS),
            s(f(), 2),
            s(f(2), 0),
        ),
        (
            bad("repeats must have the same size as input", f(2), COUNTS, 0),
            bad("non-negative", f(2), -2),
            bad("0-dim or 1-dim", f(2), ints(1, 2), 0),
        ),
        layouts=False,
    ),
    Op(
        "flip",
        (s(f(3, 4), (0,)), s(f(2, 3, 2), [0, -1]), s(ints(4), (0,)), s(f(0, 2), dims=(0,)), s(f(2), ())),
        (bad("appears multiple times", f(2, 2), (0, 0)), bad("Dimension out of range", f(2), [5])),
    ),
    Op("fliplr", (s(f(3, 4)), s(f(2, 3, 2))), (bad(">= 2-d", f(3)),)),
    Op("flipud", (s(f(3, 4)), s(f(3))), (bad(">= 1-d", f()),)),
    Op(
        "roll",
        (
            s(f(3, 4), 1),
            s(f(3, 4), (1, -2), (0, 1)),
            s(f(3, 4), 5, -1),
            s(f(3, 4), shifts=-1, dims=0),
            s(ints(4), 3, 0),
            s(f(0, 2), 1, 0),
        ),
        (bad("must align. shifts: 2, dims:1", f(2, 2), (1, 2), 0), bad("must align. shifts: 2, dims:0", f(2), (1, 2))),
    ),
    Op(
        "rot90",
        (s(f(3, 4)), s(f(3, 4), 2), s(f(2, 3, 2), 3, [1, 2]), s(f(3, 4), -1, [1, 0]), s(ints(2, 2), k=4)),
        (
            bad("rotation dims to be different", f(2, 2), 1, [0, 0]),
            bad("total rotation dims == 2", f(2, 2), 1, [0]),
            bad("total dims >= 2", f(2)),
        ),
    ),
    *(
        Op(
            name,
            (s(f(3, 4)), s(f(4, 3), 1), s(f(2, 3, 3), -1), s(mask(3, 3)), s(ints(2, 2), diagonal=5), s(f(0, 2))),
            (bad(f"{name}: input tensor must have at least 2 dimensions", f(3)),),
        )
        for name in ("tril", "triu")
    ),
    Op(
        "narrow_copy",
        (s(f(3, 4), 0, 1, 2), s(f(3, 4), dim=1, start=-2, length=2)),
        (bad("exceeds dimension size", f(3), 0, 1, 5),),
    ),
    Op(
        "kron",
        (s(f(2, 3), f(3, 2)), s(f(2), f(2, 2)), s(ints(2, 2), f(2)), s(f(2, 2), f())),
        layouts=False,
    ),
    Op("clone", (s(f(3, 4)), s(ints(2)), s(mask()), s(f(0, 2)))),
)
