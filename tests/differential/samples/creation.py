"""Samples of what makes tensors, asks about them and draws random ones."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, f, ints, mask, pos, s, special

_MADE = (s(2, 3), s((2, 0)), s(()), s(4, dtype="torch.float64"), s((2,), dtype="torch.int32"), s(size=(2,)))
_BAD_SIZE = (bad("non-negative|negative dimension", -1), bad("tuple of ints", 2.5), bad("unexpected", 2, foo=1))
_LIKE = (s(f(2, 3)), s(ints(3)), s(mask(2)), s(f()), s(f(0, 2)), s(f(2), dtype="torch.int64"))
_CHANCES = pos(2, 3, low=0.05, high=0.9)


def made(name: str, *samples: object, **options: object) -> Op:
    """A record of a function without tensor operands: there are no gradients and no layouts."""
    settings = {"grads": 0, "layouts": False, "dtypes": ("float64",), **options}
    return Op(name, samples, **settings)  # type: ignore[arg-type]


def like(name: str, *samples: object, **options: object) -> Op:
    """A record of a function of a tensor whose elements count for nothing."""
    return Op(name, samples or _LIKE, **{"grads": 0, "bad": (bad("must be Tensor", 3),), **options})  # type: ignore[arg-type]


CREATION: tuple[Op, ...] = (
    made("zeros", *_MADE, bad=_BAD_SIZE),
    made("ones", *_MADE, bad=_BAD_SIZE),
    made("empty", *_MADE, bad=_BAD_SIZE, values=False),
    made("empty_strided", s((2, 3), (1, 2)), s((2, 3), (5, 1)), s((2, 3), (0, 1)), s((), ()), values=False),
    made(
        "full",
        *(
            s((2, 3), 2.5),
            s((2,), 3),
            s((2,), True),
            s((), 1.5, dtype="torch.float64"),
            s((2,), 3.9, dtype="torch.int8"),
        ),
        bad=(bad("overflow", (2,), 300, dtype="torch.uint8"), bad("Number", (2,), "a"), bad("tuple of ints", 2, 1.0)),
    ),
    like("zeros_like"),
    like("ones_like"),
    like("empty_like", values=False),
    like("full_like", s(f(2, 3), 2), s(ints(3), 2.7), s(mask(2), 5), bad=(bad("Number", f(2), "a"),)),
    made(
        "arange",
        *(s(5), s(1, 7, 2), s(5, 0, -2), s(0.0, 1.0, 0.1), s(2.5), s(0), s(0, 3, dtype="torch.float16")),
        *(s(300, dtype="torch.uint8"), s(-1.5, 2, dtype="torch.int64"), s(0.5, 3, 0.7, dtype="torch.int32")),
        bad=(
            bad("nonzero", 0, 5, 0),
            bad("inconsistent", 0, 5, -1),
            bad("Bool", 3, dtype="torch.bool"),
            bad("unsupported range", float("inf")),
        ),
    ),
    made(
        "linspace",
        *(s(0, 1, 5), s(3, -10, 50), s(0, 1, 1), s(0, 1, 0), s(-2, 7, 5, dtype="torch.int64")),
        *(s(0, 1, 7, dtype="torch.float16"), s(0.0, 1.0, steps=3, dtype="torch.float64")),
        bad=(bad("non-negative", 0, 1, -1), bad("Bool", 0, 1, 3, dtype="torch.bool")),
    ),
    made(
        "logspace",
        *(s(0, 3, 4), s(-2, 2, 5, 2.0), s(0, 3, 4, dtype="torch.int64"), s(0, 1, 1, dtype="torch.float64")),
        bad=(bad("non-negative", 0, 1, -1),),
    ),
    made(
        "eye", s(3), s(2, 4), s(0), s(3, dtype="torch.bool"), bad=(bad("greater or equal", -1), bad("must be int", 2.5))
    ),
    made("scalar_tensor", s(2.5), s(3), s(True), s(3, dtype="torch.int64")),
    made("tril_indices", s(3, 3), s(3, 4, 1), s(3, 4, -2), s(0, 3), bad=(bad("non-negative", -1, 3),)),
    made("triu_indices", s(3, 3), s(3, 4, 1), s(3, 4, -1), s(2, 0), bad=(bad("non-negative", 3, -1),)),
    Op(
        "vander",
        (s(f(3)), s(f(4), 2), s(f(3), increasing=True), s(ints(3, low=-3, high=4)), s(mask(2)), s(f(2), 0)),
        (bad("one-dimensional", f(2, 2)), bad("non-negative", f(2), -1)),
        grads=0,  # PyTorch refuses its own gradient
    ),
    *(
        made(name, s(6), s(7, False), s(1), s(0), s(5, dtype="torch.float64"), bad=(bad("non-negative", -1),))
        for name in ("hann_window", "hamming_window", "blackman_window", "bartlett_window", "kaiser_window")
    ),
    Op("Tensor.new_zeros", (s(f(2), 2, 3), s(ints(2), (2,)), s(f(2), 2, dtype="torch.bool"))),
    Op("Tensor.new_ones", (s(f(2), 2, 3), s(ints(2), (2,)))),
    Op("Tensor.new_full", (s(f(2), (2, 3), 1.5), s(ints(2), (2,), 3))),
    Op("Tensor.new_empty", (s(f(2), 2, 3), s(ints(2), (2,))), values=False),
    Op("Tensor.new_tensor", (s(f(2), [1, 2]), s(ints(2), [[1.7]]))),
    # facts
    Op(
        "isclose",
        (
            s(special(), special()),
            s(special(), special(), equal_nan=True),
            s(f(3), f(2, 3), rtol=0.5),
            s(ints(4), ints(4), atol=3.0),
            s(mask(3), mask(3)),
        ),
        (bad("did not match", f(2), ints(2)), bad("rtol", f(2), f(2), rtol=-1.0)),
    ),
    Op("allclose", (s(f(3), f(3)), s(special(), special(), equal_nan=True), s(f(0), f(0)))),
    Op("equal", (s(f(3), f(3)), s(ints(3), ints(3)), s(f(2), f(3)), s(f(0), f(0))), (bad("Tensor", f(2), 3),)),
    Op("is_same_size", (s(f(3), ints(3)), s(f(2), f(3)))),
    Op("is_nonzero", (s(f(1)), s(np.zeros(())), s(mask(1))), (bad("ambiguous", f(2)), bad("ambiguous", f(0)))),
    *(Op(name, (s(f(2)), s(ints(2)), s(mask(2)))) for name in ("is_floating_point", "is_signed", "is_complex")),
    Op("numel", (s(f(2, 3)), s(f()), s(f(0, 2)))),
    Op("result_type", (s(f(2), 1), s(ints(2), 1.5), s(ints(2), f()), s(mask(2), 1))),
    # Refused for tensors that require gradients.
    Op("Tensor.resize_", (s(f(2, 3), 3), s(f(2, 3), (3, 2)), s(f(4), 2, 1)), grads=0, layouts=False),
    Op("Tensor.type_as", (s(f(2), ints(2)), s(ints(2), f(2)))),
    Op("Tensor.tolist", (s(f(2, 2)), s(ints(2)), s(f()))),
    Op("Tensor.is_contiguous", (s(f(2, 3)), s(f(1, 3)), s(f(0, 2)))),
    *(
        Op(f"Tensor.{name}", (s(f(3)), s(ints(3, low=0)), s(mask(2))))
        for name in ("float", "double", "half", "bfloat16", "long", "int", "short", "char", "bool")
    ),
)

RANDOM: tuple[Op, ...] = (
    made("rand", *_MADE[:4], values=False, bad=(bad("Long", 2, dtype="torch.int64"), bad("negative dimension", -1))),
    made("randn", *_MADE[:4], values=False, bad=(bad("Long", 2, dtype="torch.int64"),)),
    like("rand_like", s(f(2, 3)), s(f()), s(ints(2), dtype="torch.float32"), values=False),
    like("randn_like", s(f(2, 3)), s(f(0, 2)), s(ints(2), dtype="torch.float32"), values=False),
    like("randint_like", s(f(2, 3), 5), s(ints(3), 2, 9), values=False, bad=(bad("less than", f(2), 5, 5),)),
    made(
        "randint",
        *(s(5, (2, 3)), s(2, 9, (3,)), s(high=5, size=(2,)), s(0, 9, (2,), dtype="torch.float32"), s(-5, 5, (0,))),
        values=False,
        bad=(
            bad("less than", 5, 5, (2,)),
            bad("out of bounds", 0, 300, (2,), dtype="torch.uint8"),
            bad("out of bounds", -5, 5, (2,), dtype="torch.uint8"),
            bad("combination", 0.5, 3, (2,)),
        ),
    ),
    made("randperm", s(5), s(0), s(4, dtype="torch.float32"), values=False, bad=(bad("negative", -1), bad("int", 2.5))),
    made(
        "normal",
        *(s(0.0, 1.0, (2, 3)), s(f(3), pos(3)), s(f(3), 2.0), s(0.0, pos(3)), s(f(2), pos(2, 1))),
        values=False,
        bad=(bad("std >= 0", 0.0, -1.0, (2,)), bad("elements of std", f(2), -pos(2)), bad("Long", ints(2), 1.0)),
    ),
    # PyTorch's result requires gradients, which are 0.
    Op("bernoulli", (s(_CHANCES), s(ints(3), 0.5), s(f(0))), (bad("p_in", pos(2) + 2),), grads=0, values=False),
    Op(
        "multinomial",
        (s(_CHANCES, 2), s(pos(4), 6, True), s(pos(3), 3)),
        (
            bad("without replacement", pos(2), 3),
            bad("inf", f(3, low=-2.0, high=-1.0), 1),
            bad("sum of probabilities", np.zeros(3), 1),
            bad("floating-point", ints(3), 1),
            bad("<= 0", pos(3), 0),
            bad("1 or 2 dim", pos(2, 2, 2), 1),
        ),
        values=False,
    ),
    Op(
        "poisson",
        (s(pos(2, 3)), s(np.zeros(2))),
        (bad("Poisson", -pos(2)), bad("Long", ints(2))),
        grads=0,  # PyTorch's result requires gradients, which are 0
        values=False,
    ),
    Op(
        "binomial",
        (s(pos(2, 3) + 4, _CHANCES), s(pos(3), pos(2, 1) / 4)),
        (bad("count", ints(2), pos(2)),),
        grads=0,  # likewise
        values=False,
        beyond=True,
    ),
    *(
        Op(f"Tensor.{name}", (s(f(2, 3), *args), s(f(0), *args)), tuple(bads), values=False)
        for name, args, bads in (
            ("uniform_", (-1.0, 2.0), [bad("range", f(2), 1.0, 0.0), bad("Long", ints(2))]),
            ("normal_", (1.0, 2.0), [bad("std", f(2), 0.0, -1.0), bad("Long", ints(2))]),
            ("log_normal_", (0.0, 1.0), [bad("std", f(2), 0.0, 0.0)]),
            ("exponential_", (2.0,), [bad("lambda", f(2), 0.0), bad("continuous", ints(2))]),
            ("cauchy_", (0.0, 1.0), [bad("sigma", f(2), 0.0, 0.0), bad("continuous", ints(2))]),
            ("geometric_", (0.3,), [bad("p to be in", f(2), 1.0)]),
            ("bernoulli_", (0.3,), [bad("p to be in", f(2), 2.0), bad("expanded size", f(2), pos(3))]),
            ("random_", (5,), [bad("less than", f(2), 0), bad("out of bounds", ints(2, dtype="uint8", low=0), 300)]),
        )
    ),
)
