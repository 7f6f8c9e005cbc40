"""Samples of products of vectors, matrices and tensors."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, f, ints, mask, s

NAN = np.full((2, 2), np.nan)
HALVES = ("float64", "float32", "float16", "bfloat16")

PRODUCTS: tuple[Op, ...] = (
    Op(
        "mm",
        (s(f(3, 4), f(4, 2)), s(ints(2, 3), ints(3, 4)), s(f(0, 3), f(3, 2)), s(f(2, 0), f(0, 3))),
        (
            bad("mat1 and mat2 shapes cannot be multiplied", f(2, 3), f(4, 3)),
            bad("self must be a matrix", f(2), f(2, 2)),
            bad("mat2 must be a matrix", f(2, 3), f(3)),
            bad("expected m1 and m2 to have the same dtype, but got: double != long int", f(2, 3), ints(3, 2)),
            bad("not implemented for 'Bool'", mask(2, 2), mask(2, 2)),
            bad(r"argument 'mat2' \(position 2\) must be Tensor, not int", f(2, 3), 2),
        ),
        dtypes=HALVES,
    ),
    Op(
        "bmm",
        (
            s(f(2, 3, 4), f(2, 4, 2)),
            s(ints(2, 2, 3, dtype="int32"), ints(2, 3, 2, dtype="int32")),
            s(f(0, 2, 3), f(0, 3, 2)),
        ),
        (
            bad(r"batch2 tensor to be: \[2, 3\] but got: \[2, 4\]", f(2, 2, 3), f(2, 4, 3)),
            bad("batch1 must be a 3D tensor", f(2, 3), f(2, 4, 3)),
            bad("expected scalar type Double but found Long", f(1, 2, 2), ints(1, 2, 2)),
            bad("not implemented for 'Bool'", mask(1, 2, 2), mask(1, 2, 2)),
        ),
        dtypes=HALVES,
    ),
    Op(
        "mv",
        (s(f(3, 4), f(4)), s(ints(2, 3), ints(3)), s(f(2, 0), f(0)), s(f(0, 2), f(2))),
        (
            bad(r"size mismatch, got input \(2\), mat \(2x3\), vec \(4\)", f(2, 3), f(4)),
            bad(r"vector \+ matrix @ vector expected, got 1, 1, 1", f(2), f(2)),
            bad("addmv input tensors must have the same dtype, but got Long, Double, and Long", f(2, 3), ints(3)),
        ),
    ),
    Op(
        "dot",
        (s(f(4), f(4)), s(ints(3, dtype="int32"), ints(3, dtype="int32")), s(f(0), f(0))),
        (
            bad("1D tensors expected, but got 2D and 1D", f(2, 3), f(4)),
            bad(r"inconsistent tensor size, expected tensor \[2\] and src \[3\]", f(2), f(3)),
            bad("expected both vectors to have same dtype, but found Double and Long", f(2), ints(2)),
            bad("not implemented for 'Bool'", mask(2), mask(2)),
        ),
        dtypes=HALVES,
    ),
    Op("vdot", (s(f(4), f(4)), s(ints(3), ints(3))), (bad("inconsistent tensor size", f(2), f(3)),)),
    Op(
        "outer",
        (s(f(3), f(2)), s(ints(2), f(3)), s(mask(2), ints(2)), s(mask(2), mask(3)), s(f(0), f(2))),
        (bad("outer: Expected 1-D argument self, but got 2-D", f(2, 2), f(2)), bad("argument vec2", f(2), f(2, 1))),
    ),
    Op("ger", (s(f(3), f(2)),)),
    Op(
        "inner",
        (s(f(3), f(3)), s(f(2, 3), f(3)), s(f(2, 3), f(4, 3)), s(f(2, 2, 3), f(2, 3)), s(ints(2, 3), ints(3))),
        (
            bad(r"inner\(\) the last dimension must match .* shapes \[2\] and \[3\]", f(2), f(3)),
            bad("same dtype", f(2), ints(2)),
        ),
    ),
    Op(
        "matmul",
        (
            s(f(3), f(3)),
            s(f(2, 3), f(3)),
            s(f(3), f(3, 2)),
            s(f(2, 3), f(3, 2)),
            s(f(2, 2, 3), f(3)),
            s(f(3), f(2, 3, 2)),
            s(f(2, 2, 3), f(3, 2)),
            s(f(2, 3), f(2, 3, 2)),
            s(f(2, 1, 2, 3), f(2, 3, 2)),
            s(f(3, 2, 3), f(1, 3, 2)),
            s(f(1, 2, 3), f(3, 3, 2)),
            s(f(2, 2, 2, 3), f(3)),
            s(ints(2, 2, 3), ints(2, 3, 2)),
            s(f(0, 2, 3), f(3, 2)),
            s(f(2, 2, 0), f(2, 0, 3)),
        ),
        (
            bad("cannot be multiplied .2x3 and 2x3", f(2, 3), f(2, 3)),
            bad(r"to be: \[2, 3\] but got: \[2, 4\]", f(2, 2, 3), f(2, 4, 3)),
            bad(r"size of tensor a \(2\) must match the size of tensor b \(3\)", f(2, 2, 3), f(3, 3, 3)),
            bad("cannot be multiplied .1x3 and 2x3", f(3), f(2, 3)),
            bad(r"size mismatch, got input \(4\), mat \(4x3\), vec \(2\)", f(2, 2, 3), f(2)),
            bad(r"to be: \[2, 2\] but got: \[2, 3\]", f(2), f(2, 3, 3)),
            bad("cannot be multiplied .10x3 and 2x3", f(5, 2, 3), f(2, 3)),
            bad("both arguments to matmul need to be at least 1D, but they are 0D and 1D", f(), f(2)),
            bad("must be Tensor, not int", f(2), 2),
            bad("not implemented for 'Bool'", mask(2, 2), mask(2, 2)),
        ),
    ),
    Op("Tensor.__matmul__", (s(f(2, 3), f(3, 2)), s(f(2, 2, 3), f(2, 3, 1)))),
    Op(
        "addmm",
        (
            s(f(2, 2), f(2, 3), f(3, 2)),
            s(f(2), f(2, 3), f(3, 2), beta=0.5, alpha=-2),
            s(NAN, f(2, 3), f(3, 2), beta=0),
            s(f(), f(2, 3), f(3, 2), beta=2),
            s(f(2, 2), f(2, 3), f(3, 2), alpha=0),
            s(ints(2), ints(2, 3), ints(3, 2), beta=1.5, alpha=2),
            s(f(2, 2), f(2, 0), f(0, 2)),
        ),
        (
            bad("cannot be multiplied", f(2, 2), f(2, 3), f(4, 3)),
            bad("The expanded size of the tensor", f(3), f(2, 3), f(3, 2)),
            bad("self and mat2 must have the same dtype, but got Double and Long", f(2), f(2, 3), ints(3, 2)),
            bad("mat1 must be a matrix, got 1-D tensor", f(2), f(3), f(3, 2)),
        ),
    ),
    Op(
        "addmv",
        (
            s(f(2), f(2, 3), f(3)),
            s(f(), f(2, 3), f(3), beta=3, alpha=0.5),
            s(NAN[0], f(2, 3), f(3), beta=0),
            s(ints(2), ints(2, 3), ints(3)),
        ),
        (
            bad(r"size mismatch, got input \(2\), mat \(2x3\), vec \(2\)", f(2), f(2, 3), f(2)),
            bad("addmv input tensors must have the same dtype", ints(2), f(2, 3), f(3)),
        ),
    ),
    Op(
        "addr",
        (
            s(f(2, 3), f(2), f(3)),
            s(f(3), f(2), f(3), beta=0.5, alpha=2),
            s(NAN, f(2), f(2), beta=0),
            s(ints(2, 3), f(2), f(3)),
            s(mask(2, 3), mask(2), mask(3)),
            s(ints(2, 3), ints(2), ints(3), alpha=3),
        ),
        (
            bad("addr: Expected 1-D argument vec1, but got 2-D", f(2, 3), f(2, 1), f(3)),
            bad("argument beta must not be a floating point", ints(2, 3), ints(2), ints(3), beta=0.5),
            bad("The expanded size of the tensor", f(2, 2), f(2), f(3)),
        ),
    ),
    Op(
        "addbmm",
        (
            s(f(2, 2), f(3, 2, 3), f(3, 3, 2)),
            s(f(2, 2), f(2, 2, 3), f(2, 3, 2), beta=2, alpha=0.5),
            s(f(2), f(1, 2, 3), f(1, 3, 2)),
            s(NAN, f(2, 2, 3), f(2, 3, 2), beta=0),
            s(f(2, 2), f(0, 2, 3), f(0, 3, 2)),
        ),
        (
            bad("batch1 and batch2 must have same number of batches, got 2 and 3", f(2, 4), f(2, 2, 3), f(3, 3, 4)),
            bad("Incompatible matrix sizes for bmm .2x3 and 4x4", f(2, 4), f(2, 2, 3), f(2, 4, 4)),
        ),
    ),
    Op(
        "baddbmm",
        (
            s(f(2, 2, 2), f(2, 2, 3), f(2, 3, 2)),
            s(f(2, 1), f(2, 2, 3), f(2, 3, 2), beta=-1, alpha=0.25),
            s(NAN, f(2, 2, 3), f(2, 3, 2), beta=0),
            s(ints(2), ints(2, 2, 3), ints(2, 3, 2)),
        ),
        (
            bad("The expanded size", f(2, 2, 2), f(2, 2, 3), f(2, 3, 4)),
            bad(r"to be: \[2, 3\] but got: \[2, 4\]", f(2, 2, 4), f(2, 2, 3), f(2, 4, 4)),
            bad("Input dtypes must be the same", ints(2, 2, 4), f(2, 2, 3), f(2, 3, 4)),
        ),
    ),
    Op(
        "einsum",
        (
            s("ij,jk->ik", f(2, 3), f(3, 4)),
            s("bij,bjk", f(2, 2, 3), f(2, 3, 2)),
            s("ij->j", f(2, 3)),
            s("bA", f(2, 3)),
            s("ii", f(3, 3)),
            s("ii->i", f(3, 3)),
            s("iij,jk->ki", f(2, 2, 3), f(3, 2)),
            s("...ij,...jk->...ik", f(2, 1, 2, 3), f(3, 3, 2)),
            s("i...->...", f(2, 3, 2)),
            s("ab,bc,cd,a->d", f(2, 3), f(3, 2), f(2, 4), f(2)),
            s("i,j,k->kij", f(2), f(3), f(2)),
            s("ij,k,ij,k->", f(2, 3), f(2), f(2, 3), f(2)),
            s("ij,jk", f(2, 1), f(3, 4)),
            s("i,i->i", ints(3), ints(3)),
            s("ij,jk->ik", ints(2, 3), ints(3, 2)),
            s("i,j->ij", mask(2), mask(3)),
            s("ij->i", mask(2, 3)),
            s("ij,jk->ik", f(2, 0), f(0, 3)),
            s(",i->i", f(), f(3)),
            s("ij,ij->i", [f(2, 3), f(2, 3)]),
            s(f(2, 3), [0, 1], f(3, 4), [1, 2], [0, 2]),
            s(f(2, 3, 2), [..., 0], f(2), [0], [...]),
        ),
        (
            bad("fewer operands", "ij,jk->ik", f(2, 3)),
            bad("more operands", "ij->ij", f(2, 3), f(2, 3)),
            bad("subscript j has size 4 for operand 1 .* previously seen size 3", "ij,jk->ik", f(2, 3), f(4, 3)),
            bad(r"subscripts in the equation \(3\) does not match the number of dimensions \(2\)", "ijk->ij", f(2, 3)),
            bad("output subscript j does not appear", "i->ij", f(2)),
            bad("output subscript i appears more than once", "ij->ii", f(2, 2)),
            bad("invalid subscript given at index 1", "i1->i", f(2, 2)),
            bad("that is not part of any ellipsis", "i.j->ij", f(2, 2)),
            bad("an ellipsis was already found", "...i...->i", f(2, 2)),
            bad("subscript i is repeated for operand 0 but the sizes don't match, 3 != 2", "ii", f(2, 3)),
            bad("dimension 1 covered by ellipsis", "...i,...i->...", f(2, 3), f(4, 3, 3)),
            bad("expected scalar type Double but found Long", "i,i->", f(2), ints(2)),
            bad("must specify the equation string", ""),
            bad(r"valid range \[0, 52\)", f(2), [53]),
        ),
        slack=20.0,  # its sums may cancel
    ),
    Op(
        "tensordot",
        (
            s(f(2, 3), f(3, 4), dims=1),
            s(f(2, 3), f(3, 2), dims=0),
            s(f(2, 3, 2), f(3, 2, 2), dims=2),
            s(f(2, 3, 4), f(4, 2), dims=([0, 2], [1, 0])),
            s(f(2, 3), f(1, 2), dims=1),
            s(ints(2, 3), ints(3, 2), dims=([-1], [-2])),
        ),
        (
            bad("contracted dimensions need to match, but first has size 3 in dim -1 and", f(2, 3), f(4, 3), dims=1),
            bad("tensordot expects dims < ndim_a or ndim_b, but got dims=3", f(2, 3), f(3, 2), dims=3),
            bad("tensordot expects dims >= 0", f(2, 3), f(3, 2), dims=-1),
            bad("both dimension lists should have same length", f(2, 3), f(3, 4), dims=([1], [0, 1])),
            bad("Dimension out of range", f(2, 3), f(3, 4), dims=([7], [0])),
            bad("both inputs should have same dtype", f(2, 3), ints(3, 4), dims=1),
        ),
    ),
    Op(
        "chain_matmul",
        (s(f(2, 3), f(3, 1), f(1, 4)), s(f(2, 3))),
        (bad("one or more matrices"), bad("expected 2 instead", f(2), f(2, 3))),
    ),
    Op(
        "linalg.multi_dot",
        (
            s([f(2, 3), f(3, 1), f(1, 4), f(4, 2)]),
            s([f(3), f(3, 2)]),
            s([f(3), f(3, 2), f(2)]),
            s([f(3), f(3)]),
            s([ints(2, 3), ints(3, 2), ints(2, 2)]),
        ),
        (
            bad("expected at least 2 tensors but got 1", [f(2, 3)]),
            bad("the last tensor must be 1D or 2D but got 3D", [f(2, 3), f(3, 2, 2)]),
            bad("tensor 1 must be 2D but got 1D", [f(3, 2), f(2), f(2)]),
            bad(r"tensors 0 and 1 with shapes \[3\] and \[4, 2\] cannot be multiplied", [f(3), f(4, 2), f(2)]),
        ),
    ),
    # The names tell which product PyTorch chose.
    Op("linalg.matmul", (s(f(2, 3), f(3, 2)), s(f(1, 2, 3), f(0, 3, 2))), grad_fn=False),
    Op(
        "nn.functional.linear",
        (
            s(f(2, 3), f(4, 3)),
            s(f(2, 3), f(4, 3), f(4)),
            s(f(3), f(4, 3)),
            s(f(2, 2, 3), f(4, 3)),
            s(f(2, 2, 3), f(4, 3), f(4)),
            s(f(2, 2, 3), f(4, 3), f(2, 1, 4)),
            s(f(2, 3), f(3)),
            s(f(0, 3), f(2, 3), f(2)),
            s(ints(2, 3), ints(4, 3)),
        ),
        (
            bad("mat1 and mat2 shapes cannot be multiplied .4x3 and 4x5", f(2, 2, 3), f(5, 4)),
            bad("both arguments to linear need to be at least 1D, but they are 0D and 2D", f(), f(4, 1)),
            bad(r"t\(\) expects a tensor with <= 2 dimensions, but self is 3D", f(2, 3), f(2, 4, 3)),
            bad("mat2 must be a matrix, got 1-D tensor", f(2, 3), f(3), f(2)),
            bad("The expanded size of the tensor .4. must match the existing size .3.", f(2, 3), f(4, 3), f(3)),
            bad("expected m1 and m2 to have the same dtype, but got: double != long int", f(2, 3), ints(4, 3)),
            bad("self and mat2 must have the same dtype, but got Long and Double", f(2, 3), f(4, 3), ints(4)),
        ),
        forms=False,
    ),
    Op(
        "trace",
        (s(f(3, 3)), s(f(2, 4)), s(ints(3, 3, dtype="uint8", low=0)), s(f(0, 3))),
        (
            bad("trace: expected a matrix, but got tensor with dim 1", f(2)),
            bad("not implemented for 'Bool'", mask(2, 2)),
        ),
    ),
    Op(
        "linalg.cross",
        (
            s(f(3), f(3)),
            s(f(2, 3), f(1, 3)),
            s(f(3, 2), f(3, 1), dim=0),
            s(ints(2, 3), ints(2, 3)),
            s(f(0, 3), f(0, 3)),
        ),
        (
            bad("must have the same number of dimensions", f(2, 3), f(3)),
            bad("dimension 0 must have length 3. Got 2 and 2", f(2, 3), f(2, 3), dim=0),
            bad("expected scalar type Double but found Long", f(3), ints(3)),
        ),
    ),
    Op("cross", (s(f(3, 2), f(3, 2), dim=0), s(f(2, 3), f(2, 3))), (bad("no dimension of size 3", f(2, 2), f(2, 2)),)),
    Op(
        "linalg.vecdot",
        (s(f(2, 3), f(2, 3)), s(f(2, 3), f(3)), s(f(2, 3), f(2, 1), dim=0), s(f(2, 0), f(2, 0))),
        (
            bad("Expected a floating point or complex tensor as input. Got Long", ints(3), ints(3)),
            bad("found x of type Double and y of type Long", f(3), ints(3)),
            bad("Dimension out of range", f(2, 3), f(3), dim=3),
        ),
    ),
)
