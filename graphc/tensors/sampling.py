"""Random tensors: lazy, each from the key of one draw of a generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.errors import DTypeError, InputError, KindError, ShapeError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, f32, f64, i64
from graphc.random import Generator, draw_key, normal_node, open_uniform_node, randint_node, uniform_node, wide_bits
from graphc.recording import Recorder, current
from graphc.storage import Value
from graphc.tensors.arguments import (
    check_flags,
    constructor,
    extents,
    kind,
    placed,
    shape_of,
    sized,
    tensor_argument,
    wanted_type,
)
from graphc.tensors.core import Keep, TensorBase, alias, finish, read
from graphc.tensors.creation import like
from graphc.tensors.emitting import emitted
from graphc.tensors.learning import repeatable
from graphc.tensors.operands import combine
from graphc.tensors.out import into
from graphc.tensors.shaping import expand
from graphc.tensors.writing import type_name
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Emit = Callable[[Builder, Node, TensorType], Node]


def draw(type: TensorType, generator: Generator | None, emit: Emit) -> Tensor:
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        key = draw_key(generator)
        parents: list[Keep] = [key]
        node = emitted(b, lambda b, k: emit(b, k, type), (key.node,), (), False, parents)
        return finish(recorder, node, tuple(parents), "", False, rounded=True)


def draw_from(operands: tuple[TensorBase, ...], generator: Generator | None, emit: Callable[..., Node]) -> Tensor:
    """A draw whose parameters are tensors: `emit(b, key, *operands)`. No gradients flow back to them."""
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        key = draw_key(generator)
        pairs = [read(recorder, t, False) for t in operands]
        keeps = (key, *(keep for _, keep in pairs))
        return finish(recorder, emit(b, key.node, *(node for node, _ in pairs)), keeps, "", False)


def _refuse(operand: TensorBase, wrong: Callable[[Builder, Node], Node], message: str) -> None:
    """RuntimeError, when the work runs, if `wrong` holds for any element."""
    recorder: Recorder = current()
    with recorder.lock:
        b = recorder.begin()
        node, keep = read(recorder, operand, False)
        bad = wrong(b, node)
        found = (
            b.apply("reduce_max", (bad,), {"axes": tuple(range(bad.type.rank)), "ties": "even"})
            if bad.type.rank
            else bad
        )
        if bad.type.size:
            recorder.check(found, _kept(found, keep), UsageError(message))


def _kept(node: Node, keep: Keep) -> Value:
    return Value(node, (keep,))


def float_kind(name: str, dtype: DType) -> DType:
    if not dtype.is_float:
        raise UnsupportedError(f"\"{name}\" not implemented for '{type_name(dtype)}'")
    return dtype


# new tensors


@constructor
@repeatable
def rand(*size: Any, generator: Generator | None = None, dtype: Any = None, **kwargs: Any) -> Tensor:
    """Uniform numbers in [0, 1)."""
    type = sized(shape_of("rand", size, kwargs), float_kind("check_uniform_bounds", wanted_type(dtype)))
    return draw(type, generator, uniform_node)


@constructor
@repeatable
def randn(*size: Any, generator: Generator | None = None, dtype: Any = None, **kwargs: Any) -> Tensor:
    """Normal numbers with mean 0 and variance 1."""
    type = sized(shape_of("randn", size, kwargs), float_kind("normal_kernel_cpu", wanted_type(dtype)))
    return draw(type, generator, normal_node)


@repeatable
@like
def rand_like(shape: tuple[int, ...], dtype: DType, *, generator: Generator | None = None) -> Tensor:
    """Uniform numbers in [0, 1) in the shape and dtype of a tensor."""
    return draw(sized(shape, float_kind("check_uniform_bounds", dtype)), generator, uniform_node)


@repeatable
@like
def randn_like(shape: tuple[int, ...], dtype: DType, *, generator: Generator | None = None) -> Tensor:
    """Normal numbers in the shape and dtype of a tensor."""
    return draw(sized(shape, float_kind("normal_kernel_cpu", dtype)), generator, normal_node)


RANGES = {
    "int64": ("long", -(2**63), 2**63 - 1),
    "int32": ("int", -(2**31), 2**31 - 1),
    "int16": ("short", -(2**15), 2**15 - 1),
    "int8": ("signed char", -128, 127),
    "uint8": ("unsigned char", 0, 255),
    "bool": ("bool", 0, 1),
}
EXACT = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}  # bits of whole numbers that floats hold


def check_bounds(low: int, high: int, dtype: DType) -> None:
    if low >= high:
        raise UsageError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    if dtype.is_float:
        bits = EXACT[dtype.torch_name]
        for name, value in (("from", low), ("to - 1", high - 1)):
            if abs(value) > 2**bits:
                warn(
                    f"{name} is out of bounds [-(2^{bits}), 2^{bits}]. Due to precision limitations {dtype.torch_name} "
                    "can support discrete uniform distribution only within this range.",
                )
        return
    name, smallest, largest = RANGES[dtype.torch_name]
    if not smallest <= low <= largest:
        raise UsageError(f"from is out of bounds for {name}")
    if not smallest <= high - 1 <= largest:
        raise UsageError(f"to - 1 is out of bounds for {name}")


def _integers(shape: tuple[int, ...], dtype: DType, low: int, high: int, generator: Generator | None) -> Tensor:
    check_bounds(low, high, dtype)
    return draw(sized(shape, dtype), generator, lambda b, k, t: randint_node(b, k, t, low, high))


def _whole(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
    """The bounds in `(high)` or `(low, high)`, by place or name."""
    values = dict(zip(("high",) if len(args) == 1 and "high" not in kwargs else ("low", "high"), args, strict=False))
    for argument in ("low", "high"):
        if argument in kwargs:
            values[argument] = kwargs.pop(argument)
    good = all(hasattr(v, "__index__") and not isinstance(v, bool | float) for v in values.values())
    if kwargs or "high" not in values or len(args) > 2 or not good:
        got = ", ".join(map(kind, args))
        raise KindError(
            f"{name}() received an invalid combination of arguments - got ({got}), but expected one of: "
            "(int high, tuple of ints size), (int low, int high, tuple of ints size)"
        )
    return int(values.get("low", 0)), int(values["high"])


@constructor
@repeatable
def randint(*args: Any, generator: Generator | None = None, dtype: Any = None, **kwargs: Any) -> Tensor:
    """Whole numbers: `randint(high, size)` in [0, high), `randint(low, high, size)` in [low, high)."""
    if "size" in kwargs:
        size = kwargs.pop("size")
    elif len(args) > 1:
        args, size = args[:-1], args[-1]
    else:
        size = None
        kwargs["size"] = size
    if size is not None and not isinstance(size, list | tuple):
        raise KindError(
            f"randint(): argument 'size' (position {len(args) + 1}) must be tuple of ints, not {kind(size)}"
        )
    low, high = _whole("randint", args, kwargs)
    return _integers(
        extents("randint", size or ()), i64 if dtype is None else dtypes.to_ir(dtype), low, high, generator
    )


@repeatable
@like
def randint_like(
    shape: tuple[int, ...], dtype: DType, *args: Any, generator: Generator | None = None, **kwargs: Any
) -> Tensor:
    """Whole numbers below `high`, or in [low, high), in the shape and dtype of a tensor."""
    low, high = _whole("randint_like", args, kwargs)
    return _integers(shape, dtype, low, high, generator)


@constructor
@repeatable
def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None) -> Tensor:
    """The numbers 0 to n - 1 in random order: the order that sorts random numbers of 63 bits."""
    if isinstance(n, bool | float) or not hasattr(n, "__index__"):
        raise KindError(f"randperm(): argument 'n' (position 1) must be int, not {kind(n)}")
    shape, found = extents("randperm", (n,)), i64 if dtype is None else dtypes.to_ir(dtype)
    if not found.is_float and shape[0] - 1 > RANGES[found.torch_name][2]:
        raise DTypeError(f"value cannot be converted to type {found.torch_name}_t without overflow")

    def emit(b: Builder, key: Node, type: TensorType) -> Node:
        order = b.apply("argsort", (wide_bits(b, key, type.with_dtype(i64)),), {"axis": 0, "descending": False})
        return b.cast(order, type.dtype)

    return draw(sized(shape, found), generator, emit)


@repeatable
def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    requires_grad: bool = False,
    device: Any = None,
    pin_memory: Any = False,
) -> Tensor:
    """Normal numbers with mean and standard deviation given as numbers (then `size` too) or tensors, broadcast.

    RuntimeError for a negative deviation; for one in a tensor when the work runs.
    """
    tensors = [v for v in (mean, std) if isinstance(v, TensorBase)]
    if not isinstance(std, TensorBase) and std < 0:
        raise UsageError(f"normal expects std >= 0.0, but found std {std:g}")
    if not tensors:
        if size is None:
            raise KindError(
                f"normal() received an invalid combination of arguments - got ({kind(mean)}, {kind(std)}), but numbers "
                "need a size"
            )
        found = wanted_type(dtype) if out is None else out._type.dtype
        float_kind("normal_kernel_cpu", found)
        place = check_flags("normal", requires_grad, device, layout) if out is None else out._type.device
        made = draw(placed(place, sized, extents("normal", size), found), generator, normal_node)
        made = made * std + mean
    else:
        float_kind("normal_kernel_cpu", tensors[0]._type.dtype)
        if isinstance(std, TensorBase):
            _refuse(std, lambda b, x: b.apply("lt", (x, b.zeros_like(x))), "normal expects all elements of std >= 0.0")
        plain = [alias(v) if isinstance(v, TensorBase) else v for v in (mean, std)]
        shape = combine("", plain, lambda b, x, y: x)._type.shape
        made = draw(tensors[0]._type.with_shape(shape), generator, normal_node)
        made = (made * plain[1] + plain[0]).to(tensors[0].dtype)
    if out is not None:
        return into(out, made, "normal")
    return made.requires_grad_() if requires_grad else made


@repeatable
def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None, out: Tensor | None = None
) -> Tensor:
    """1 with the probability that each element says (or with probability `p` everywhere), else 0.

    RuntimeError for probabilities outside of [0, 1]; for those in a tensor when the work runs.
    """
    given = tensor_argument("bernoulli", input)
    if p is not None:
        made = draw(given._type, generator, chance(p))
    else:
        float_kind("bernoulli_tensor_cpu_p_", given._type.dtype)
        check_chances(given)
        made = draw_from((given,), generator, lambda b, key, x: b.cast(below(b, key, x), x.dtype))
    return made if out is None else into(out, made, "bernoulli")


def below(b: Builder, key: Node, p: Node) -> Node:
    work = p.type.with_dtype(f64 if p.dtype is f64 else f32)
    return b.apply("lt", (uniform_node(b, key, work), b.cast(p, work.dtype)))


def check_chances(p: TensorBase) -> None:
    def outside(b: Builder, x: Node) -> Node:
        inside = (b.apply("ge", (x, b.zeros_like(x))), b.apply("le", (x, b.constant(1, x.type))))
        return b.apply("bitwise_not", (b.apply("bitwise_and", inside),))

    _refuse(p, outside, "Expected p_in >= 0 && p_in <= 1 to be true, but got false.")


def chance(p: float) -> Emit:
    if not 0 <= p <= 1:
        raise UsageError(f"bernoulli_ expects p to be in [0, 1], but got p={p:g}")

    def emit(b: Builder, key: Node, type: TensorType) -> Node:
        drawn = uniform_node(b, key, type.with_dtype(f64))
        return b.cast(b.apply("lt", (drawn, b.constant(float(p), drawn.type))), type.dtype)

    return emit


@repeatable
def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Indices of categories (int64) drawn by the weights in a vector or in each row of a matrix.

    Without replacement the largest of weight / exponential number are taken (Efraimidis and Spirakis, 2006); with it,
    the cumulated weights are searched. RuntimeError for weights that are negative or not finite, or all 0, when the
    work runs.
    """
    weights = alias(tensor_argument("multinomial", input))
    type = weights._type
    if type.rank not in (1, 2):
        raise ShapeError("prob_dist must be 1 or 2 dim")
    if not type.dtype.is_float:
        raise DTypeError(f"multinomial only supports floating-point dtypes for input, got: {type_name(type.dtype)}")
    if num_samples <= 0:
        raise UsageError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > type.shape[-1]:
        raise UsageError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    _refuse(weights, _no_weight, "probability tensor contains either `inf`, `nan` or element < 0")
    _refuse(weights, _no_total, "invalid multinomial distribution (sum of probabilities <= 0)")
    pick = _searched if replacement else _first
    made = draw_from((weights,), generator, lambda b, key, w: pick(b, key, b.cast(w, f64), num_samples))
    return made if out is None else into(out, made, "multinomial")


def _no_weight(b: Builder, x: Node) -> Node:
    good = (b.apply("ge", (x, b.zeros_like(x))), b.apply("lt", (x, b.constant(math.inf, x.type))))
    return b.apply("bitwise_not", (b.apply("bitwise_and", good),))


def _no_total(b: Builder, x: Node) -> Node:
    total = b.reduce_sum(b.cast(x, f64), (x.type.rank - 1,))
    return b.apply("le", (total, b.zeros_like(total)))


def _searched(b: Builder, key: Node, weights: Node, count: int) -> Node:
    """Where uniform numbers up to their sum lie among the cumulated weights, but for weights of 0 at the end."""
    rows, size = weights.shape[:-1], weights.shape[-1]
    totals = b.scan("scan_sum", weights, len(rows))
    last = b.slice(totals, (*[0] * len(rows), size - 1), (*rows, 1), (1,) * totals.type.rank)
    drawn = uniform_node(b, key, weights.type.with_shape((*rows, count)))
    drawn = b.mul(drawn, b.broadcast(last, drawn.shape))
    passed = b.apply("searchsorted", (totals, drawn), {"right": True})
    most = b.apply("searchsorted", (totals, last), {"right": False})
    return b.cast(b.apply("minimum", (passed, b.broadcast(most, passed.shape))), i64)


def _first(b: Builder, key: Node, weights: Node, count: int) -> Node:
    ranks = b.div(weights, b.neg(b.log(open_uniform_node(b, key, weights.type))))
    last = weights.type.rank - 1
    order = b.apply("argsort", (ranks,), {"axis": last, "descending": True})
    size = (*order.shape[:-1], count)
    return b.slice(order, (0,) * len(size), size, (1,) * len(size))


@repeatable
def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson numbers with the rates that the elements say. RuntimeError for negative rates, when the work runs."""
    rates = tensor_argument("poisson", input)
    float_kind("poisson_cpu", rates._type.dtype)
    message = "invalid Poisson rate, expected rate to be non-negative"
    _refuse(rates, lambda b, x: b.apply("lt", (x, b.zeros_like(x))), message)
    return draw_from((rates,), generator, lambda b, key, x: b.apply("random_poisson", (key, x)))


@repeatable
def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of `count` trials succeed with probability `prob`, broadcast."""
    counts, chances = tensor_argument("binomial", count, "count"), tensor_argument("binomial", prob, "prob", 2)
    for name, given in (("count", counts), ("prob", chances)):
        if not given._type.dtype.is_float:
            raise InputError(
                f"binomial only supports floating-point dtypes for {name}, got: {type_name(given._type.dtype)}"
            )
    shape = combine("", (alias(counts), alias(chances)), lambda b, x, y: x)._type.shape
    pair = (expand(alias(counts), shape), expand(alias(chances), shape).to(counts.dtype))
    return draw_from(pair, generator, lambda b, key, n, p: b.apply("random_binomial", (key, n, p)))
