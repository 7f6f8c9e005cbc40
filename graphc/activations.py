"""Activation functions with `torch.nn.functional`'s names and signatures. Formulas are those of PyTorch's
documentation; at kinks the gradients are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.dropping import record_drawn
from graphc.errors import DTypeError, InputError, ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean, f32, i64
from graphc.lookup import one_hot_node
from graphc.naming import named
from graphc.random import open_uniform_node, uniform_node
from graphc.refusing import need_float
from graphc.tensors import elementwise, normalising
from graphc.tensors.casting import autocasts
from graphc.tensors.core import record, wrap_dim
from graphc.tensors.filling import check_holds
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.learning import repeatable
from graphc.tensors.out import out_form
from graphc.tensors.writing import in_place, type_name
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Form = Callable[[Builder, Node], Node]

_relu: Callable[[Tensor], Tensor] = elementwise.relu.__wrapped__  # type: ignore[attr-defined]  # without `out`


# In place their gradient reads the result, which stands in the operand's memory then, and may have a name of its own.
_OF_RESULT = {
    "HardtanhBackward0": "HardtanhBackward0",
    "ThresholdBackward0": "ThresholdBackward1",
    **{f"{name}Backward0": f"{name}Backward1" for name in ("Elu", "Celu", "LeakyRelu", "RreluWithNoise")},
}


def _finish(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    if not inplace:
        return result
    history = result._lineage.hist
    name = "" if history is None else _OF_RESULT.get(history.name)
    if history is None or not name:
        return in_place(input, result)
    history.name = name
    in_place(input, result)
    history.name = "CloneBackward0"  # so that nobody misses the operand
    return input


def _activation(name: str, kernel: str, input: Tensor, emit: Form, inplace: bool = False) -> Tensor:
    need_float(kernel, input)
    return _finish(input, record(f"{name}Backward0", (input,), emit), inplace)


def positive_part(b: Builder, x: Node) -> Node:
    """x where x > 0, else 0."""
    return b.select(b.apply("gt", (x, b.zeros_like(x))), x, b.zeros_like(x))


# straight lines


@repeatable
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); NaN stays. RuntimeError for bool."""
    if input._type.dtype is boolean:
        raise DTypeError("Boolean inputs not supported for relu; convert the input with .to(dtype)")
    made = _relu(input)
    return _finish(input, made, True) if inplace else made


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    return hardtanh(input, 0, 6, inplace)


@repeatable
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x cut off at both ends; no gradient at and beyond the ends. Integers stay integers."""
    if min_val > max_val:
        raise InputError("min_val cannot be greater than max_val")
    dtype = input._type.dtype
    if dtype is boolean:
        raise DTypeError("Bool inputs not supported for hardtanh")
    if dtype.kind == "uint" and min_val < 0:
        raise DTypeError("cannot do hardtanh on an unsigned type with negative limits")
    for limit in (min_val, max_val):
        check_holds(limit, dtype)

    def emit(b: Builder, x: Node) -> Node:
        low, high = b.constant(min_val, x.type), b.constant(max_val, x.type)
        return b.select(b.apply("le", (x, low)), low, b.select(b.apply("ge", (x, high)), high, x))

    return _finish(input, record("HardtanhBackward0", (input,), emit), inplace)


@out_form
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else `value`. Integers stay integers."""
    if input._type.dtype is boolean:
        need_float("threshold_cpu", input)
    for number in (threshold, value):
        check_holds(number, input._type.dtype)

    def emit(b: Builder, x: Node) -> Node:
        return b.select(b.apply("le", (x, b.constant(threshold, x.type))), b.constant(value, x.type), x)

    return _finish(input, record("ThresholdBackward0", (input,), emit), inplace)


def _leaky_node(b: Builder, x: Node, slope: float) -> Node:
    return b.select(b.apply("gt", (x, b.zeros_like(x))), x, b.mul(x, float(slope)))


@repeatable
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope * x."""
    return _activation("LeakyRelu", "leaky_relu_cpu", input, lambda b, x: _leaky_node(b, x, negative_slope), inplace)


@kinds_checked
def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """x where x > 0, else a * x: in training `a` is drawn in [lower, upper) for each element, else it is their mean."""
    if lower > upper:
        raise UsageError(f"Lower bound should be less than or equal to the upper bound, but got {lower} > {upper}")
    if not training:
        slope = (lower + upper) / 2
        return _activation("RreluWithNoise", "leaky_relu_cpu", input, lambda b, x: _leaky_node(b, x, slope), inplace)
    need_float("rrelu_with_noise_out_cpu", input)

    def emit(b: Builder, x: Node, key: Node) -> Node:
        drawn = b.cast(uniform_node(b, key, x.type.with_dtype(f32)), x.dtype)
        slope = b.add(b.mul(drawn, float(upper - lower)), float(lower))
        return b.select(b.apply("gt", (x, b.zeros_like(x))), x, b.mul(x, slope))

    return _finish(input, record_drawn("RreluWithNoiseBackward0", input, emit), inplace)


@autocasts
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight * x: one weight for all, or one for each channel (dimension 1)."""
    need_float("prelu_cpu", input)
    x, w = input._type, weight._type
    if x.dtype is not w.dtype:
        raise DTypeError(f"prelu: Type promoting not supported. Got {type_name(x.dtype)} and {type_name(w.dtype)}")
    if w.rank > 1:
        raise ShapeError(f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {w.rank}")
    channels = (1 if x.rank < 2 else x.shape[1]) if w.size != 1 else 1
    if w.size != 1:
        if not x.rank:
            raise ShapeError("prelu: Not allow zero-dim input tensor.")
        if w.size != channels:
            raise ShapeError(
                f"Mismatch of parameter numbers and input channel size. Found parameter numbers = {w.size} and "
                f"channel size = {channels}."
            )
    row = tuple(w.size if i == 1 and w.size != 1 else 1 for i in range(x.rank))

    def emit(b: Builder, x: Node, w: Node) -> Node:
        slope = b.broadcast(b.reshape(w, row), x.shape)
        return b.select(b.apply("gt", (x, b.zeros_like(x))), x, b.mul(slope, x))

    return record("PreluKernelBackward0", (input, weight), emit)


def _within(b: Builder, x: Node, bound: float) -> Node:
    """Whether |x| <= bound."""
    low, high = b.apply("ge", (x, b.constant(-bound, x.type))), b.apply("le", (x, b.constant(bound, x.type)))
    return b.apply("bitwise_and", (low, high))


@out_form
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """0 where |x| <= lambd, else x."""

    def emit(b: Builder, x: Node) -> Node:
        return b.select(_within(b, x, lambd), b.zeros_like(x), x)

    return _activation("Hardshrink", "hardshrink_cpu", input, emit)


@out_form
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x brought nearer to 0 by `lambd`; 0 within. RuntimeError for a negative `lambd`."""
    need_float("softshrink_check", input)
    if lambd < 0:
        raise UsageError(
            f"lambda must be in range [0, max] for input dtype {type_name(input._type.dtype)}, but found {lambd}"
        )

    def emit(b: Builder, x: Node) -> Node:
        nearer = b.select(b.apply("gt", (x, b.zeros_like(x))), b.sub(x, float(lambd)), b.add(x, float(lambd)))
        return b.select(_within(b, x, lambd), b.zeros_like(x), nearer)

    return _activation("Softshrink", "softshrink_cpu", input, emit)


@repeatable
def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return elementwise.sub(input, elementwise.tanh(input))


@repeatable
def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    if input._type.dtype is boolean:
        need_float("abs_cpu", input)
    return elementwise.div(input, elementwise.add(elementwise.abs(input), 1))


@repeatable
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    return _activation("Hardsigmoid", "hardsigmoid_cpu", input, _hardsigmoid_node, inplace)


def _hardsigmoid_node(b: Builder, x: Node) -> Node:
    low, high = b.apply("le", (x, b.constant(-3, x.type))), b.apply("ge", (x, b.constant(3, x.type)))
    # NaN stays, and has no gradient, as in PyTorch.
    seen = b.select(b.apply("eq", (x, x)), x, b.apply("detach", (x,)))
    inner = b.div(b.add(seen, 3.0), b.constant(6, x.type))
    return b.select(low, b.zeros_like(x), b.select(high, b.constant(1, x.type), inner))


@repeatable
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x)."""

    def emit(b: Builder, x: Node) -> Node:
        low, middle = b.apply("le", (x, b.constant(-3, x.type))), b.apply("lt", (x, b.constant(3, x.type)))
        # The branch not taken sees 0, so that the gradient is PyTorch's: 1 at NaN, 0 at -inf.
        seen = b.select(low, b.zeros_like(x), b.select(middle, x, b.zeros_like(x)))
        inner = b.mul(b.div(b.add(seen, 3.0), b.constant(6, x.type)), seen)
        return b.select(low, b.zeros_like(x), b.select(middle, inner, x))

    return _activation("Hardswish", "hardswish_cpu", input, emit, inplace)


# exponentials


def _elu_node(b: Builder, x: Node, alpha: float, scale: float, slope: float = 1.0) -> Node:
    """scale * x where x > 0, else scale * alpha * (exp(slope * x) - 1)."""
    below = b.apply("lt", (x, b.zeros_like(x)))
    # The branch not taken sees 0, so that its gradient is finite.
    low = b.select(below, x, b.zeros_like(x))
    low = b.mul(b.apply("expm1", (low if slope == 1 else b.mul(low, slope),)), float(alpha))
    # At 0 the slope is that of the exponential, the second derivative 0, as in PyTorch: a straight line.
    at_zero = float(alpha) if slope == 1 else 1.0
    line = x if at_zero == 1 else b.select(b.apply("eq", (x, b.zeros_like(x))), b.mul(x, at_zero), x)
    chosen = b.select(below, low, line)
    return chosen if scale == 1 else b.mul(chosen, scale)


@repeatable
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return _activation("Elu", "elu_cpu", input, lambda b, x: _elu_node(b, x, alpha, 1.0), inplace)


@repeatable
def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1)). RuntimeError when alpha is 0."""
    if alpha == 0:
        raise UsageError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _activation("Celu", "elu_cpu", input, lambda b, x: _elu_node(b, x, alpha, 1.0, 1.0 / alpha), inplace)


@repeatable
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale * elu(x, alpha) with the constants of Klambauer et al., 2017."""
    return _activation(
        "Elu", "elu_cpu", input, lambda b, x: _elu_node(b, x, 1.6732632423543772, 1.0507009873554805), inplace
    )


@out_form
def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x; with approximate="tanh", its usual approximation."""
    if approximate == "none":
        return _activation(
            "Gelu",
            "GeluKernelImpl",
            input,
            lambda b, x: b.mul(b.mul(x, 0.5), b.add(b.apply("erf", (b.mul(x, 1 / math.sqrt(2)),)), 1.0)),
        )
    if approximate != "tanh":
        raise UsageError("approximate argument must be either none or tanh.")

    def emit(b: Builder, x: Node) -> Node:
        cubic = b.add(x, b.mul(b.mul(b.mul(x, x), x), 0.044715))
        return b.mul(b.mul(x, 0.5), b.add(b.apply("tanh", (b.mul(cubic, math.sqrt(2 / math.pi)),)), 1.0))

    return _activation("Gelu", "GeluKernelImpl", input, emit)


@repeatable
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x)."""
    return _activation("Silu", "silu_cpu", input, lambda b, x: b.mul(x, b.apply("sigmoid", (x,))), inplace)


def softplus_node(b: Builder, x: Node) -> Node:
    """log(1 + exp(x)) as max(x, 0) + log1p(exp(-|x|)), whose gradient is sigmoid(x)."""
    return b.add(positive_part(b, x), b.apply("log1p", (b.exp(b.neg(_magnitude(b, x))),)))


def _magnitude(b: Builder, x: Node) -> Node:
    """|x| with the gradient -1 at 0, which makes softplus' gradient 1/2 there."""
    return b.select(b.apply("gt", (x, b.zeros_like(x))), x, b.neg(x))


@autocasts
@out_form
def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""

    def emit(b: Builder, x: Node) -> Node:
        scaled = x if beta == 1 else b.mul(x, float(beta))
        smooth = softplus_node(b, scaled)
        smooth = smooth if beta == 1 else b.div(smooth, b.constant(beta, x.type))
        return b.select(b.apply("gt", (scaled, b.constant(threshold, x.type))), x, smooth)

    return _activation("Softplus", "softplus_cpu", input, emit)


@out_form
def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x))."""
    return _activation("LogSigmoid", "log_sigmoid_cpu", input, lambda b, x: b.neg(softplus_node(b, b.neg(x))))


@repeatable
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x))."""
    return _activation(
        "Mish", "mish_cpu", input, lambda b, x: b.mul(x, b.apply("tanh", (softplus_node(b, x),))), inplace
    )


@repeatable
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half along `dim` times the sigmoid of the second."""
    need_float("glu_cpu", input)
    if not input.ndim:
        raise ShapeError("glu does not support scalars because halving size must be even")
    axis, shape = wrap_dim(dim, input.ndim), input._type.shape
    if shape[axis] % 2:
        raise ShapeError(f"Halving dimension must be even, but dimension {axis} is size {shape[axis]}")
    half = tuple(n // 2 if i == axis else n for i, n in enumerate(shape))
    ones, zeros = (1,) * len(shape), (0,) * len(shape)
    middle = tuple(n // 2 if i == axis else 0 for i, n in enumerate(shape))

    def emit(b: Builder, x: Node) -> Node:
        gate = b.apply("sigmoid", (b.slice(x, middle, half, ones),))
        return b.mul(b.slice(x, zeros, half, ones), gate)

    return record("GluBackward0", (input,), emit)


@repeatable
def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return elementwise.sigmoid(input)


@repeatable
def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return elementwise.tanh(input)


@kinds_checked
def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """A sample of the Gumbel-Softmax distribution (Jang et al., 2016); `hard` gives one-hot rows with its gradient."""
    if eps != 1e-10:
        warn("`eps` parameter is deprecated and has no effect.")
    if not logits._type.dtype.is_float:
        raise DTypeError(
            "gumbel_softmax: Exponential distribution is a continuous probability distribution. dtype must be a "
            f"floating point but you specified {type_name(logits._type.dtype)}"
        )
    axis = wrap_dim(dim, logits.ndim)

    def noisy(b: Builder, x: Node, key: Node) -> Node:
        # -log(-log(u)) is Gumbel's distribution.
        drawn = b.neg(b.log(b.neg(b.log(open_uniform_node(b, key, x.type.with_dtype(f32))))))
        return b.div(b.add(x, b.cast(drawn, x.dtype)), b.constant(tau, x.type))

    soft = normalising.softmax(record_drawn("DivBackward0", logits, noisy), dim)
    if not hard:
        return soft

    def rounded(b: Builder, y: Node) -> Node:
        chosen = b.apply("argmax", (y,), {"axes": (axis,), "dtype": i64})
        hot = one_hot_node(b, chosen, y.shape[axis], y.dtype)
        order = list(range(y.type.rank - 1))
        order.insert(axis, y.type.rank - 1)
        hot = b.permute(hot, tuple(order))
        return b.add(b.sub(hot, b.apply("detach", (y,))), y)

    return record("AddBackward0", (soft,), rounded)


# in place


def _in_place_form(function: Callable[..., Any]) -> Callable[..., Any]:
    def form(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _finish(input, function(input, *args, **kwargs), True)

    return named(form, f"{function.__name__}_", f"In place: {function.__doc__}")


relu_, hardtanh_, threshold_ = _in_place_form(relu), _in_place_form(hardtanh), _in_place_form(threshold)
leaky_relu_, rrelu_ = _in_place_form(leaky_relu), _in_place_form(rrelu)
elu_, celu_, selu_ = _in_place_form(elu), _in_place_form(celu), _in_place_form(selu)
