"""Draws in place: memory is filled with random numbers, from the key of one draw of a generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.errors import DTypeError, KindError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import TensorType, f32, f64, i64
from graphc.random import Generator, normal_node, open_uniform_node, randint_node, uniform_node
from graphc.tensors.core import TensorBase, alias
from graphc.tensors.learning import repeatable
from graphc.tensors.sampling import (
    EXACT,
    RANGES,
    Emit,
    below,
    chance,
    check_bounds,
    check_chances,
    draw,
    draw_from,
    float_kind,
)
from graphc.tensors.shaping import expand
from graphc.tensors.writing import type_name, write

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _fill(input: Tensor, name: str, generator: Generator | None, emit: Emit) -> Tensor:
    write(input, draw(input._type, generator, emit), name)
    return input


@repeatable
def uniform_(
    input: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None, **named: float
) -> Tensor:
    """Fill with uniform numbers in [a, b); the bounds have PyTorch's names `from` and `to` too."""
    low, high = float(named.pop("from", a)), float(named.pop("to", b))
    if named:
        raise KindError(f"uniform_() got an unexpected keyword argument '{next(iter(named))}'")
    float_kind("check_uniform_bounds", input._type.dtype)
    largest = dtypes.limits(input._type.dtype).max
    for name, value in (("from", low), ("to", high)):
        if not abs(value) <= largest:
            raise UsageError(f"{name} is out of bounds for {input._type.dtype.torch_name}")
    if low > high:
        raise UsageError(f"uniform_ expects to return a [from, to) range, but found from={low:g} > to={high:g}")
    return _fill(
        input,
        "UniformBackward0",
        generator,
        lambda builder, k, t: builder.add(builder.mul(uniform_node(builder, k, t), high - low), low),
    )


@repeatable
def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with normal numbers."""
    if std < 0:
        raise UsageError(f"normal expects std >= 0.0, but found std {std:g}")
    float_kind("normal_kernel_cpu", input._type.dtype)
    return _fill(
        input, "NormalBackward0", generator, lambda b, k, t: b.add(b.mul(normal_node(b, k, t), float(std)), float(mean))
    )


@repeatable
def log_normal_(input: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with e to the power of normal numbers."""
    if std <= 0:
        raise UsageError(f"log_normal_ expects std > 0.0, but found std={std:g}")
    float_kind("log_normal_cpu", input._type.dtype)
    return _fill(
        input,
        "LogNormalBackward0",
        generator,
        lambda b, k, t: b.exp(b.add(b.mul(normal_node(b, k, t), float(std)), float(mean))),
    )


def _by_uniform(input: Tensor, name: str, generator: Generator | None, emit: Callable[[Builder, Node], Node]) -> Tensor:
    """Fill with a function of uniform numbers in (0, 1), in f32 or f64."""
    work = f64 if input._type.dtype in (f64, i64) else f32

    def draw(b: Builder, key: Node, type: TensorType) -> Node:
        return b.cast(emit(b, open_uniform_node(b, key, type.with_dtype(work))), type.dtype)

    return _fill(input, name, generator, draw)


@repeatable
def exponential_(input: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with exponential numbers of the rate `lambd`."""
    if not input._type.dtype.is_float:
        raise DTypeError(
            "Exponential distribution is a continuous probability distribution. dtype must be a floating point but you "
            f"specified {type_name(input._type.dtype)}"
        )
    if lambd <= 0:
        raise UsageError(f"exponential_ expects lambda > 0.0, but found lambda={lambd:g}")
    return _by_uniform(input, "ExponentialBackward0", generator, lambda b, u: b.mul(b.log(u), -1.0 / lambd))


@repeatable
def cauchy_(input: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with Cauchy's numbers."""
    if not input._type.dtype.is_float:
        raise DTypeError(
            "Cauchy distribution is a continuous probability distribution. dtype must be a floating point but you "
            f"specified {type_name(input._type.dtype)}"
        )
    if sigma <= 0:
        raise UsageError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma:g}")

    def emit(b: Builder, u: Node) -> Node:
        angle = b.mul(b.add(u, -0.5), math.pi)
        return b.add(b.mul(b.div(b.apply("sin", (angle,)), b.apply("cos", (angle,))), float(sigma)), float(median))

    return _by_uniform(input, "CauchyBackward0", generator, emit)


@repeatable
def geometric_(input: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fill with the numbers of trials until the first success of probability `p`."""
    if not 0 < p < 1:
        raise UsageError(f"geometric_ expects p to be in (0, 1), but got p={p:g}")
    return _by_uniform(
        input,
        "GeometricBackward0",
        generator,
        lambda b, u: b.apply("ceil", (b.mul(b.log(u), float(1 / np.log1p(-p))),)),
    )


@repeatable
def bernoulli_(input: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill with 1 with probability p, a number or a tensor that is broadcast, else 0."""
    if isinstance(p, TensorBase):
        chances = expand(alias(p), input._type.shape)
        check_chances(chances)
        dtype = input._type.dtype
        drawn = draw_from((chances,), generator, lambda b, key, x: b.cast(below(b, key, x), dtype))
        write(input, drawn, "BernoulliBackward1")
        return input
    return _fill(input, "BernoulliBackward2", generator, chance(p))


@repeatable
def random_(input: Tensor, *args: int, generator: Generator | None = None, **named: int | None) -> Tensor:
    """Fill with whole numbers: `random_()` with all that the dtype holds from 0 on, `random_(to)` with those in
    [0, to), `random_(from, to)` with those in [from, to).
    """
    dtype = input._type.dtype
    low = named.pop("from", None) if len(args) < 2 else args[0]
    high = args[-1] if args else named.pop("to", None)
    if named or len(args) > 2:
        raise KindError("random_() received an invalid combination of arguments: it takes (), (to) or (from, to)")
    name = f"RandomBackward{0 if low is not None else 1 if high is not None else 2}"
    if high is None:
        largest = 2 ** EXACT[dtype.torch_name] if dtype.is_float else RANGES[dtype.torch_name][2]
        high = largest + 1
    low = 0 if low is None else int(low)
    check_bounds(low, int(high), dtype)
    return _fill(input, name, generator, lambda b, k, t: randint_node(b, k, t, low, int(high)))
