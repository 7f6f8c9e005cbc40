"""Convolutions with PyTorch's signatures: padding, then one contraction by an index formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, KindError, ShapeError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean
from graphc.tensors.casting import autocasts
from graphc.tensors.core import record
from graphc.tensors.plans import Plans
from graphc.tensors.writing import type_name
from graphc.windows import Extents, Pads, pad_or_cut, per_axis

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Plan = tuple[str, Callable[..., Node]]  # the name of the gradient node, and what makes the result

_plans: Plans[Plan] = Plans()
_PLACES, _OFFSETS = ("d", "h", "w"), ("q", "r", "s")
_AXES = ("depth", "height", "width")
_C_NAMES = {"Double": "double", "Float": "float", "Half": "c10::Half", "BFloat16": "c10::BFloat16"}


def _sums(stride: Sequence[int], dilation: Sequence[int]) -> str:
    """The dimensions of the padded input as sums of labels: `2h+3r w+s`."""
    rank = len(stride)
    terms = zip(_PLACES[-rank:], _OFFSETS[-rank:], stride, dilation, strict=True)
    return " ".join(f"{'' if s == 1 else s}{place}+{'' if d == 1 else d}{offset}" for place, offset, s, d in terms)


def _check_types(input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    x, w = input._type.dtype, weight._type.dtype
    if x is not w:
        raise DTypeError(f"expected scalar type {type_name(x)} but found {type_name(w)}")
    if bias is not None and bias._type.dtype is not x:
        kinds = [_C_NAMES.get(type_name(d), type_name(d)) for d in (x, bias._type.dtype)]
        raise DTypeError(f"Input type ({kinds[0]}) and bias type ({kinds[1]}) should be the same")
    if x is boolean:
        raise UnsupportedError("\"slow_conv2d_cpu\" not implemented for 'Bool'")


def _check_input(name: str, input: Tensor, rank: int) -> None:
    if input.ndim not in (rank + 1, rank + 2):
        raise ShapeError(
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to {name}, but got input of size: "
            f"{list(input._type.shape)}"
        )


def _check_numbers(stride: Sequence[int], dilation: Sequence[int], groups: int) -> None:
    if groups <= 0:
        raise UsageError("non-positive groups is not supported")
    if min(stride) <= 0:
        raise UsageError("non-positive stride is not supported")
    if min(dilation) <= 0:
        raise UsageError(f"dilation should be greater than zero, but got {list(dilation)}")


def _check_weight(
    input: Sequence[int], weight: Sequence[int], bias: Tensor | None, groups: int, transposed: bool
) -> None:
    """Input `[batch, channels, ...]` against weight and bias, in PyTorch's words."""
    given = "transposed=1" if transposed else f"groups={groups}"
    if weight[0] < groups:
        raise ShapeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but got weight of size "
            f"{list(weight)} instead"
        )
    if weight[0] % groups:
        raise ShapeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got weight of "
            f"size [{list(weight)}] instead"
        )
    wanted = weight[0] if transposed else weight[1] * groups
    if input[1] != wanted:
        raise ShapeError(
            f"Given {given}, weight of size {list(weight)}, expected input{list(input)} to have {wanted} channels, "
            f"but got {input[1]} channels instead"
        )
    outs = weight[1] * groups if transposed else weight[0]
    if bias is not None and bias._type.shape != (outs,):
        raise ShapeError(
            f"Given {'transposed=1, ' if transposed else ''}weight of size {list(weight)}, expected bias to be "
            f"1-dimensional with {outs} elements, but got bias of size {list(bias._type.shape)} instead"
        )
    if 0 in weight[2:]:
        names = _AXES[-len(weight) + 2 :]
        sizes = " ".join(f"kernel_{name}: {n}" for name, n in zip(names, weight[2:], strict=True))
        raise ShapeError(f"kernel size should be greater than zero, but got {sizes}")


def _check_fits(extents: Sequence[int], pads: Pads, size: Sequence[int], dilation: Sequence[int]) -> None:
    padded = [n + low + high for n, (low, high) in zip(extents, pads, strict=True)]
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, size, strict=True)]
    if any(s > n for s, n in zip(spans, padded, strict=True)) or 0 in extents:
        raise ShapeError(
            f"Calculated padded input size per channel: ({' x '.join(map(str, padded))}). Kernel size: "
            f"({' x '.join(map(str, spans))}). Kernel size can't be greater than actual input size"
        )


def _pads(padding: Any, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Elements added below and above each axis; "same" keeps the extents, the odd element stands above."""
    if not isinstance(padding, str):
        amounts = per_axis(padding, "padding", len(size))
        if min(amounts) < 0:
            raise UsageError("negative padding is not supported")
        return [(p, p) for p in amounts]
    if padding == "valid":
        return [(0, 0)] * len(size)
    if padding != "same":
        raise UsageError(f"Invalid padding string: '{padding}'")
    if max(stride) > 1:
        raise UsageError("padding='same' is not supported for strided convolutions")
    totals = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
    return [(t // 2, t - t // 2) for t in totals]


def _grouped(b: Builder, x: Node, w: Node, spec: str, groups: int, transposed: bool) -> Node:
    """The contraction `spec` ("b c ..., o c ... -> b o ...") of each group of channels by itself."""
    if groups == 1:
        return b.contract(x, w, spec)
    x = b.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    w = b.reshape(w, (groups, w.shape[0] // groups, *w.shape[1:]))
    made = b.contract(x, w, spec.replace("b ", "b g ").replace(", ", ", g "))
    return b.reshape(made, (made.shape[0], made.shape[1] * made.shape[2], *made.shape[3:]))


def _plus_bias(b: Builder, made: Node, bias: Sequence[Node]) -> Node:
    if not bias:
        return made
    column = b.reshape(bias[0], (1, bias[0].shape[0]) + (1,) * (made.type.rank - 2))
    return b.add(made, b.broadcast(column, made.shape))


def _batched(input: Tensor, rank: int) -> tuple[int, ...]:
    """The shape with a batch in front."""
    shape = input._type.shape
    return shape if len(shape) == rank + 2 else (1, *shape)


def _for_batch(input: Tensor, rank: int, emit: Callable[..., Node]) -> Plan:
    """What makes the result of `emit`, without the batch where `input` has none."""
    if input.ndim == rank + 2:
        return "ConvolutionBackward0", emit

    def single(b: Builder, *nodes: Node) -> Node:
        made = emit(b, *nodes)
        return b.reshape(made, made.shape[1:])

    return "SqueezeBackward1", single


def _conv(
    name: str,
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Extents,
    padding: Any,
    dilation: Extents,
    groups: int,
) -> Tensor:
    same = (
        name, input._type, weight._type, None if bias is None else bias._type,
        id(stride), id(padding), id(dilation), id(groups),
    )  # fmt: skip
    found = _plans.same.get(same)
    if found is not None:
        plan = found[0]
    else:
        key = _plans.key(name, input, weight, bias, stride, padding, dilation, groups)
        plan = _plans.get(key) or _plans.keep(
            key, _conv_plan(name, rank, input, weight, bias, stride, padding, dilation, groups)
        )
        _plans.keep_same(same, plan, (stride, padding, dilation, groups))
    return record(plan[0], (input, weight) if bias is None else (input, weight, bias), plan[1], True)


def _conv_plan(
    name: str,
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Extents,
    padding: Any,
    dilation: Extents,
    groups: int,
) -> Plan:
    """Checks the arguments of a convolution."""
    _check_input(name, input, rank)
    kernel = weight._type.shape
    strides = per_axis(stride, "stride", max(len(kernel) - 2, 1))
    dilations = per_axis(dilation, "dilation", max(len(kernel) - 2, 1))
    if len(kernel) != rank + 2:
        raise ShapeError(f"{name}: expected a weight of {rank + 2} dimensions, but got size {list(kernel)}")
    pads = _pads(padding, kernel[2:], strides, dilations)
    _check_numbers(strides, dilations, groups)
    shape = _batched(input, rank)
    _check_weight(shape, kernel, bias, groups, False)
    _check_fits(shape[2:], pads, kernel[2:], dilations)
    _check_types(input, weight, bias)
    places, offsets = " ".join(_PLACES[-rank:]), " ".join(_OFFSETS[-rank:])
    spec = f"b c {_sums(strides, dilations)}, o c {offsets} -> b o {places}"

    def emit(b: Builder, x: Node, w: Node, *rest: Node) -> Node:
        padded = pad_or_cut(b, b.reshape(x, shape), pads)
        return _plus_bias(b, _grouped(b, padded, w, spec, groups, False), rest)

    return _for_batch(input, rank, emit)


@autocasts
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Extents = 1,
    padding: Any = 0,
    dilation: Extents = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation: (N, C, L) and (O, C / groups, R) give (N, O, L'); also without N.

    `padding`: zeros added at both ends, "valid" for none, or "same" to keep the length.
    """
    return _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


@autocasts
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Extents = 1,
    padding: Any = 0,
    dilation: Extents = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation: (N, C, H, W) and (O, C / groups, R, S) give (N, O, H', W'); also without N."""
    return _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


@autocasts
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Extents = 1,
    padding: Any = 0,
    dilation: Extents = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation: (N, C, D, H, W) and (O, C / groups, Q, R, S) give (N, O, D', H', W'); also without N."""
    return _conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


# transposed


def _check_output(
    output_padding: Sequence[int], stride: Sequence[int], dilation: Sequence[int], extents: Sequence[int],
    outs: Sequence[int],
) -> None:  # fmt: skip
    if min(output_padding) < 0:
        raise UsageError("negative output_padding is not supported")
    if any(o >= s and o >= d for o, s, d in zip(output_padding, stride, dilation, strict=True)):
        if len(stride) == 1:
            output_padding, stride, dilation = (0, *output_padding), (1, *stride), (1, *dilation)
        shown = " ".join(
            f"{what}_{axis}: {n}"
            for what, values in (("output_padding", output_padding), ("stride", stride), ("dilation", dilation))
            for axis, n in zip(_AXES[-len(values) :], values, strict=True)
        )
        raise UsageError(f"output padding must be smaller than either stride or dilation, but got {shown}")
    if min(outs) < 1:
        raise ShapeError(
            f"Given input size per channel: ({' x '.join(map(str, extents))}). Calculated output size per channel: "
            f"({' x '.join(map(str, outs))}). Output size is too small"
        )


def _conv_transpose(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Extents,
    padding: Extents,
    output_padding: Extents,
    groups: int,
    dilation: Extents,
) -> Tensor:
    name = f"conv_transpose{rank}d"
    if isinstance(padding, str):
        raise KindError(f"{name}(): argument 'padding' must be tuple of ints, not str")
    _check_input(name, input, rank)
    kernel = weight._type.shape
    if len(kernel) != rank + 2:
        raise ShapeError(f"{name}: expected a weight of {rank + 2} dimensions, but got size {list(kernel)}")
    steps, gaps = per_axis(stride, "stride", rank), per_axis(dilation, "dilation", rank)
    cuts, more = per_axis(padding, "padding", rank), per_axis(output_padding, "output_padding", rank)
    if min(cuts) < 0:
        raise UsageError("negative padding is not supported")
    _check_numbers(steps, gaps, groups)
    shape = _batched(input, rank)
    extents = shape[2:]
    _check_weight(shape, kernel, bias, groups, True)
    reach = [d * (k - 1) for d, k in zip(gaps, kernel[2:], strict=True)]
    outs = [
        (n - 1) * s - 2 * p + far + o + 1 for n, s, p, far, o in zip(extents, steps, cuts, reach, more, strict=True)
    ]
    _check_output(more, steps, gaps, extents, outs)
    _check_types(input, weight, bias)
    places, offsets = " ".join(_PLACES[-rank:]), " ".join(_OFFSETS[-rank:])
    spec = f"b c {_sums((1,) * rank, gaps)}, c o {offsets} -> b o {places}"
    pads = [(far - p, far - p + o) for far, p, o in zip(reach, cuts, more, strict=True)]

    def emit(b: Builder, x: Node, w: Node, *rest: Node) -> Node:
        # Each element is spread by the stride; the flipped kernel gathers what it would have sent out.
        spread = b.pad(b.reshape(x, shape), (0,) * (rank + 2), (0,) * (rank + 2), (0, 0, *(s - 1 for s in steps)))
        turned = b.flip(w, tuple(i + 2 for i, k in enumerate(kernel[2:]) if k > 1))
        return _plus_bias(b, _grouped(b, pad_or_cut(b, spread, pads), turned, spec, groups, True), rest)

    node, whole = _for_batch(input, rank, emit)
    return record(node, (input, weight) if bias is None else (input, weight, bias), whole)


@autocasts
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Extents = 1,
    padding: Extents = 0,
    output_padding: Extents = 0,
    groups: int = 1,
    dilation: Extents = 1,
) -> Tensor:
    """The adjoint of `conv1d`: (N, C, L) and (C, O / groups, R) give (N, O, L'); also without N.

    L' = (L - 1) * stride - 2 * padding + dilation * (R - 1) + output_padding + 1.
    """
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


@autocasts
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Extents = 1,
    padding: Extents = 0,
    output_padding: Extents = 0,
    groups: int = 1,
    dilation: Extents = 1,
) -> Tensor:
    """The adjoint of `conv2d`: (N, C, H, W) and (C, O / groups, R, S) give (N, O, H', W'); also without N."""
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


@autocasts
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Extents = 1,
    padding: Extents = 0,
    output_padding: Extents = 0,
    groups: int = 1,
    dilation: Extents = 1,
) -> Tensor:
    """The adjoint of `conv3d`: (N, C, D, H, W) and (C, O / groups, Q, R, S) give (N, O, D', H', W')."""
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
