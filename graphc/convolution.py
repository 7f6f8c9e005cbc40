"""Convolution and pooling with PyTorch's signatures: padding, then one contraction or one reduction over windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.tensors.core import TensorBase, record
from graphc.tensors.shaping import squeeze, unsqueeze

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Extents = int | Sequence[int]


def _pair(value: Extents, name: str, count: int = 2) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * count
    given = tuple(value)
    if len(given) == 1:
        given *= count
    if len(given) != count:
        raise RuntimeError(
            f"expected {name} to be a single integer value or a list of {count} values, but got {list(given)}"
        )
    return given


def _term(place: str, offset: str, stride: int, dilation: int) -> str:
    """A dimension of the padded input as a sum of labels: `2h+3r`."""
    return f"{'' if stride == 1 else stride}{place}+{'' if dilation == 1 else dilation}{offset}"


def _conv_padding(
    padding: Any, size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> list[tuple[int, int]]:
    if padding == "valid":
        return [(0, 0)] * len(size)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        totals = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
        return [(t // 2, t - t // 2) for t in totals]
    if isinstance(padding, str):
        raise RuntimeError(f"Invalid padding string: {padding!r}, expected 'same' or 'valid'")
    return [(p, p) for p in _pair(padding, "padding", len(size))]


def _check_conv(name: str, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, rank: int) -> None:
    x, w = input._type, weight._type
    if x.rank not in (rank + 1, rank + 2):
        raise ShapeError(
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to {name}, but got input of size: "
            f"{list(x.shape)}"
        )
    if x.dtype is not w.dtype or (bias is not None and bias._type.dtype is not w.dtype):
        raise DTypeError(f"Input type ({x}) and weight type ({w}) and bias type should be the same in {name}")
    channels = x.shape[-rank - 1]
    if channels != w.shape[1] * groups:
        raise ShapeError(
            f"Given groups={groups}, weight of size {list(w.shape)}, expected input{list(x.shape)} to have "
            f"{w.shape[1] * groups} channels, but got {channels} channels instead"
        )
    if w.shape[0] % groups:
        raise ShapeError(f"{name}: {w.shape[0]} output channels do not divide into {groups} groups")
    if bias is not None and bias._type.shape != (w.shape[0],):
        raise ShapeError(
            f"Given weight of size {list(w.shape)}, expected bias to be 1-dimensional with {w.shape[0]} elements, "
            f"but got bias of "
            f"size {list(bias._type.shape)} instead"
        )


def _check_fits(
    input: Sequence[int], pads: Sequence[tuple[int, int]], size: Sequence[int], dilation: Sequence[int]
) -> None:
    padded = [n + low + high for n, (low, high) in zip(input, pads, strict=True)]
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, size, strict=True)]
    if any(s > n for s, n in zip(spans, padded, strict=True)):
        raise ShapeError(
            f"Calculated padded input size per channel: ({' x '.join(map(str, padded))}). Kernel size: "
            f"({' x '.join(map(str, spans))}). Kernel size can't be greater than actual input size"
        )


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Extents = 1,
    padding: Any = 0,
    dilation: Extents = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation: (N, C, H, W) and (O, C / groups, R, S) give (N, O, H', W')."""
    _check_conv("conv2d", input, weight, bias, groups, 2)
    strides, dilations = _pair(stride, "stride"), _pair(dilation, "dilation")
    size = weight._type.shape[2:]
    if min(strides) < 1:
        raise RuntimeError("non-positive stride is not supported")
    pads = _conv_padding(padding, size, strides, dilations)
    _check_fits(input._type.shape[-2:], pads, size, dilations)
    if input.ndim == 3:
        return squeeze(conv2d(unsqueeze(input, 0), weight, bias, strides, padding, dilations, groups), 0)
    rows, columns = _term("h", "r", strides[0], dilations[0]), _term("w", "s", strides[1], dilations[1])

    def emit(b: Builder, x: Node, w: Node, *rest: Node) -> Node:
        (top, bottom), (left, right) = pads
        x = b.pad(x, (0, 0, top, left), (0, 0, bottom, right))
        if groups == 1:
            result = b.contract(x, w, f"b c {rows} {columns}, o c r s -> b o h w")
        else:
            x = b.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
            w = b.reshape(w, (groups, w.shape[0] // groups, *w.shape[1:]))
            result = b.contract(x, w, f"b g c {rows} {columns}, g o c r s -> b g o h w")
            result = b.reshape(result, (result.shape[0], result.shape[1] * result.shape[2], *result.shape[3:]))
        if rest:
            bias_node = b.reshape(rest[0], (1, rest[0].shape[0], 1, 1))
            result = b.add(result, b.broadcast(bias_node, result.shape))
        return result

    operands = [t for t in (input, weight, bias) if isinstance(t, TensorBase)]
    return record("ConvolutionBackward0", operands, emit)


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Extents = 1,
    padding: Any = 0,
    dilation: Extents = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation: (N, C, L) and (O, C / groups, R) give (N, O, L')."""
    _check_conv("conv1d", input, weight, bias, groups, 1)
    (step,), (gap,) = _pair(stride, "stride", 1), _pair(dilation, "dilation", 1)
    pads = _conv_padding(padding, weight._type.shape[2:], (step,), (gap,))
    _check_fits(input._type.shape[-1:], pads, weight._type.shape[2:], (gap,))
    if isinstance(padding, str):
        padding = 0
    wide = unsqueeze(input, -2)
    from_pad = record(
        "ConstantPadNdBackward0",
        (wide,),
        lambda b, x: b.pad(x, (0,) * (x.type.rank - 1) + (pads[0][0],), (0,) * (x.type.rank - 1) + (pads[0][1],)),
    )
    made = conv2d(from_pad, unsqueeze(weight, -2), bias, (1, step), 0, (1, gap), groups)
    return squeeze(made, -2)


# pooling


def _pool_setup(
    name: str,
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None,
    padding: Extents,
    dilation: Extents,
    ceil_mode: bool,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Size, stride, dilation, low padding and high padding (with what `ceil_mode` adds) of the two window axes."""
    if input.ndim not in (3, 4):
        raise RuntimeError(
            f"{name}: Expected 3D or 4D (batch mode) tensor, but got input of size {list(input._type.shape)}"
        )
    size = _pair(kernel_size, "kernel_size")
    steps = size if stride is None or stride == [] else _pair(stride, "stride")
    pads, gaps = _pair(padding, "padding"), _pair(dilation, "dilation")
    high: list[int] = []
    for n, k, s, p, d in zip(input._type.shape[-2:], size, steps, pads, gaps, strict=True):
        if p > k // 2:
            raise RuntimeError(
                f"pad should be at most half of effective kernel size, but got pad={p}, kernel_size={k} and "
                f"dilation={d}"
            )
        span = d * (k - 1) + 1
        room = n + 2 * p - span
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= n + p:
            count -= 1
        if count < 1:
            raise RuntimeError(
                f"Given input size: ({'x'.join(map(str, input._type.shape[-3:]))}). Calculated output size is too "
                f"small for "
                f"kernel {list(size)} and stride {list(steps)}"
            )
        high.append(max(p, (count - 1) * s + span - n - p))
    return size, steps, gaps, pads, tuple(high)


def _windows(b: Builder, x: Node, setup: tuple[tuple[int, ...], ...], value: float) -> Node:
    size, steps, gaps, low, high = setup
    rank = x.type.rank
    front = (0,) * (rank - 2)
    padded = b.pad(x, (*front, *low), (*front, *high), None, value)
    return b.window(padded, (rank - 2, rank - 1), size, steps, gaps)


def max_pool2d(
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    dilation: Extents = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The largest element of each window of the last two dimensions; the first one gets the gradient."""
    if return_indices:
        raise NotImplementedError("max_pool2d: return_indices is not supported")
    setup = _pool_setup("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode)

    def emit(b: Builder, x: Node) -> Node:
        seen = _windows(b, x, setup, -math.inf)
        return b.reduce_max(seen, (x.type.rank, x.type.rank + 1), "first")

    return record("MaxPool2DWithIndicesBackward0", (input,), emit)


def max_pool1d(
    input: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The largest element of each window of the last dimension."""
    step = kernel_size if stride is None else stride
    wide = unsqueeze(input, -2)
    made = max_pool2d(
        wide,
        (1, *_one(kernel_size)),
        (1, *_one(step)),
        (0, *_one(padding)),
        (1, *_one(dilation)),
        ceil_mode,
        return_indices,
    )
    return squeeze(made, -2)


def _one(value: Extents) -> tuple[int, ...]:
    return _pair(value, "kernel_size", 1)


def avg_pool2d(
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of the last two dimensions; padding counts as zeros if `count_include_pad`."""
    setup = _pool_setup("avg_pool2d", input, kernel_size, stride, padding, 1, ceil_mode)
    size, _, _, low, high = setup

    def emit(b: Builder, x: Node) -> Node:
        axes = (x.type.rank, x.type.rank + 1)
        total = b.reduce_sum(_windows(b, x, setup, 0), axes)
        if divisor_override is not None or (not any(low) and not any(high)):
            return b.div(total, b.constant(divisor_override or size[0] * size[1], total.type))
        ones = b.constant(1, x.type)
        counted = setup
        if count_include_pad:
            # What ceil_mode adds beyond the padding never counts.
            front = (0,) * (x.type.rank - 2)
            ones = b.pad(ones, (*front, *low), (*front, *low), None, 1)
            counted = (*setup[:3], (0, 0), tuple(h - p for h, p in zip(high, low, strict=True)))
        return b.div(total, b.reduce_sum(_windows(b, ones, counted, 0), axes))

    return record("AvgPool2DBackward0", (input,), emit)


def avg_pool1d(
    input: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of the last dimension."""
    step = kernel_size if stride is None else stride
    made = avg_pool2d(
        unsqueeze(input, -2),
        (1, *_one(kernel_size)),
        (1, *_one(step)),
        (0, *_one(padding)),
        ceil_mode,
        count_include_pad,
    )
    return squeeze(made, -2)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means over windows that make `output_size` places; the input must be a multiple of it."""
    wanted = (output_size,) * 2 if isinstance(output_size, int) or output_size is None else tuple(output_size)
    extents = input._type.shape[-2:]
    target = tuple(n if o is None else o for n, o in zip(extents, wanted, strict=True))
    if any(n % o for n, o in zip(extents, target, strict=True)):
        raise NotImplementedError(f"adaptive_avg_pool2d: {list(extents)} is not a multiple of {list(target)}")
    return avg_pool2d(input, tuple(n // o for n, o in zip(extents, target, strict=True)))


def unfold(
    input: Tensor, kernel_size: Extents, dilation: Extents = 1, padding: Extents = 0, stride: Extents = 1
) -> Tensor:
    """Windows of (N, C, H, W) as columns: (N, C * R * S, places)."""
    if input.ndim != 4:
        raise RuntimeError(f"unfold: expected a 4D input, got size {list(input._type.shape)}")
    size, gaps = _pair(kernel_size, "kernel_size"), _pair(dilation, "dilation")
    steps, pads = _pair(stride, "stride"), _pair(padding, "padding")
    _check_fits(input._type.shape[-2:], [(p, p) for p in pads], size, gaps)

    def emit(b: Builder, x: Node) -> Node:
        seen = _windows(b, x, (size, steps, gaps, pads, pads), 0)
        n, c, h, w, r, s = seen.shape
        return b.reshape(b.permute(seen, (0, 1, 4, 5, 2, 3)), (n, c * r * s, h * w))

    return record("Im2ColBackward0", (input,), emit)
