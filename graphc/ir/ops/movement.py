"""Operators that move elements: no arithmetic on them, except that `fold` adds overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops import movement_vjp as rules
from graphc.ir.ops.checks import (
    check_arity,
    check_axes,
    check_axis,
    check_device,
    check_group,
    check_length,
    check_same_dtype,
    narrow,
    shown,
    widen,
)
from graphc.ir.types import TensorType

Arrays = Sequence[np.ndarray]
Types = Sequence[TensorType]


def _infer_reshape(types: Types, attrs: Attrs) -> TensorType:
    check_arity("reshape", types, 1)
    x, shape = types[0], attrs["shape"]
    check_length("reshape", "shape", shape, len(shape), 0)
    if math.prod(shape) != x.size:
        raise ShapeError(f"reshape: shape {list(shape)} is invalid for input of size {x.size} ({x})")
    return x.with_shape(shape)


def _evaluate_reshape(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    return arrays[0].reshape(type.shape)


def _infer_permute(types: Types, attrs: Attrs) -> TensorType:
    check_arity("permute", types, 1)
    x, perm = types[0], attrs["perm"]
    if sorted(perm) != list(range(x.rank)):
        raise ShapeError(f"permute: {tuple(perm)} is not an order of the {x.rank} dimensions of {x}")
    return x.with_shape(tuple(x.shape[p] for p in perm))


def _evaluate_permute(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    return arrays[0].transpose(attrs["perm"])


def _infer_broadcast(types: Types, attrs: Attrs) -> TensorType:
    check_arity("broadcast", types, 1)
    x, shape = types[0], attrs["shape"]
    check_length("broadcast", "shape", shape, len(shape), 0)
    offset = len(shape) - x.rank
    if offset < 0 or any(n not in (1, shape[offset + i]) for i, n in enumerate(x.shape)):
        raise ShapeError(f"broadcast: {x} does not broadcast to {list(shape)}")
    return x.with_shape(shape)


def _evaluate_broadcast(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    (x,) = arrays
    if not x.flags.c_contiguous or not x.size:
        return np.broadcast_to(x, type.shape)
    lacking = len(type.shape) - x.ndim  # as `np.broadcast_to`, in a fifth of the time
    steps = [0 if n == 1 else step for n, step in zip(x.shape, x.strides, strict=True)]
    made = np.ndarray(type.shape, x.dtype, x, 0, [0] * lacking + steps)
    made.flags.writeable = False
    return made


def _infer_slice(types: Types, attrs: Attrs) -> TensorType:
    check_arity("slice", types, 1)
    x = types[0]
    start, size, step = attrs["start"], attrs["size"], attrs["step"]
    check_length("slice", "start", start, x.rank, 0)
    check_length("slice", "size", size, x.rank, 0)
    check_length("slice", "step", step, x.rank, None)
    for axis, (first, count, stride) in enumerate(zip(start, size, step, strict=True)):
        last = first + (count - 1) * stride
        if stride == 0:
            raise ShapeError(f"slice: step {tuple(step)} has a zero for dimension {axis} of {x}")
        if count and not (first < x.shape[axis] and 0 <= last < x.shape[axis]):
            raise ShapeError(
                f"slice: elements {first} to {last} of dimension {axis} are out of range for {x}; "
                f"start {tuple(start)}, size {tuple(size)}, step {tuple(step)}"
            )
    return x.with_shape(tuple(size))


def _evaluate_slice(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    return arrays[0][(*map(_span, attrs["start"], attrs["size"], attrs["step"]), ...)]


def _span(start: int, size: int, step: int) -> slice:
    stop = start + size * step
    return slice(start, None if stop < 0 else stop, step) if size else slice(0, 0)


def _infer_pad(types: Types, attrs: Attrs) -> TensorType:
    check_arity("pad", types, 1)
    x = types[0]
    low, high, interior = attrs["low"], attrs["high"], attrs["interior"]
    for name in ("low", "high", "interior"):
        check_length("pad", name, attrs[name], x.rank, 0)
    return x.with_shape(
        tuple(
            before + after + (max(n - 1, 0) * (1 + between) + min(n, 1))
            for n, before, after, between in zip(x.shape, low, high, interior, strict=True)
        )
    )


def _evaluate_pad(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    result = np.full(type.shape, attrs["value"]).astype(type.dtype.numpy)
    places = tuple(
        slice(low, low + (n - 1) * (between + 1) + 1 if n else low, between + 1)
        for n, low, between in zip(arrays[0].shape, attrs["low"], attrs["interior"], strict=True)
    )
    result[places] = arrays[0]
    return result


def _infer_concat(types: Types, attrs: Attrs) -> TensorType:
    if not types:
        raise ShapeError("concat: wants at least one operand")
    check_device("concat", types)
    check_same_dtype("concat", types)
    axis, first = attrs["axis"], types[0]
    check_axis("concat", axis, first)
    for other in types[1:]:
        if other.rank != first.rank or any(
            a != b for i, (a, b) in enumerate(zip(first.shape, other.shape, strict=True)) if i != axis
        ):
            raise ShapeError(f"concat: sizes must match except in dimension {axis}, got {shown(types)}")
    total = sum(t.shape[axis] for t in types)
    return first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :]))


def _evaluate_concat(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    return np.concatenate(arrays, attrs["axis"])


def window_shape(op: str, x: TensorType, attrs: Attrs, size: Sequence[int]) -> tuple[int, ...]:
    """The shape of the windows of `size` over `x`; ShapeError when one does not fit."""
    axes, stride, dilation = attrs["axes"], attrs["stride"], attrs["dilation"]
    check_axes(op, axes, x)
    for name, values in (("size", size), ("stride", stride), ("dilation", dilation)):
        check_length(op, name, values, len(axes), 1)
    shape = list(x.shape)
    for axis, extent, step, spread in zip(axes, size, stride, dilation, strict=True):
        reach = spread * (extent - 1) + 1
        if reach > x.shape[axis]:
            raise ShapeError(
                f"{op}: a window of {extent} elements with dilation {spread} does not fit dimension {axis} of {x}"
            )
        shape[axis] = (x.shape[axis] - reach) // step + 1
    return (*shape, *size)


def _infer_window(types: Types, attrs: Attrs) -> TensorType:
    check_arity("window", types, 1)
    return types[0].with_shape(window_shape("window", types[0], attrs, attrs["size"]))


def _evaluate_window(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    x = arrays[0]
    strides = list(x.strides)
    for axis, step in zip(attrs["axes"], attrs["stride"], strict=True):
        strides[axis] *= step
    offsets = [x.strides[a] * d for a, d in zip(attrs["axes"], attrs["dilation"], strict=True)]
    return np.lib.stride_tricks.as_strided(x, type.shape, (*strides, *offsets), writeable=False).copy()


def _infer_fold(types: Types, attrs: Attrs) -> TensorType:
    check_arity("fold", types, 1)
    x, shape, count = types[0], attrs["shape"], len(attrs["axes"])
    check_group("fold", x, "number")
    check_length("fold", "shape", shape, len(shape), 0)
    if x.rank != len(shape) + count:
        raise ShapeError(
            f"fold: {x} has not the {len(shape)} dimensions of shape {list(shape)} and {count} window sizes"
        )
    wanted = window_shape("fold", x.with_shape(shape), attrs, x.shape[len(shape) :])
    if wanted != x.shape:
        raise ShapeError(f"fold: windows over {list(shape)} have shape {list(wanted)}, the operand is {x}")
    return x.with_shape(shape)


def _evaluate_fold(arrays: Arrays, attrs: Attrs, type: TensorType) -> np.ndarray:
    windows = widen(arrays[0])
    result = np.zeros(type.shape, windows.dtype)
    axes, rank = attrs["axes"], type.rank
    for offset in np.ndindex(*windows.shape[rank:]):
        places: list[slice] = [slice(None)] * rank
        for axis, r, step, spread in zip(axes, offset, attrs["stride"], attrs["dilation"], strict=True):
            places[axis] = slice(r * spread, r * spread + (windows.shape[axis] - 1) * step + 1, step)
        result[tuple(places)] += windows[(..., *offset)]
    return narrow(result, type)


WINDOW_ATTRS = (Attr("axes", "ints"), Attr("stride", "ints"), Attr("dilation", "ints"))

RESHAPE = register(
    OpDef(
        name="reshape",
        kind="movement",
        arity=1,
        doc="The elements of x in row-major order in another `shape` of the same size; any dtype.",
        infer=_infer_reshape,
        evaluate=_evaluate_reshape,
        attrs=(Attr("shape", "ints"),),
        vjp=rules.reshape,
    )
)
PERMUTE = register(
    OpDef(
        name="permute",
        kind="movement",
        arity=1,
        doc="Dimension i of the result is dimension `perm[i]` of x; any dtype.",
        infer=_infer_permute,
        evaluate=_evaluate_permute,
        attrs=(Attr("perm", "ints"),),
        vjp=rules.permute,
    )
)
BROADCAST = register(
    OpDef(
        name="broadcast",
        kind="movement",
        arity=1,
        doc="NumPy's broadcast_to: dimensions aligned at the right, those of size 1 repeated up to `shape`; any dtype.",
        infer=_infer_broadcast,
        evaluate=_evaluate_broadcast,
        attrs=(Attr("shape", "ints"),),
        vjp=rules.broadcast,
    )
)
SLICE = register(
    OpDef(
        name="slice",
        kind="movement",
        arity=1,
        doc="out[i] = x[start + i * step], `size` elements a dimension, steps not 0 but perhaps negative; any dtype.",
        infer=_infer_slice,
        evaluate=_evaluate_slice,
        attrs=(Attr("start", "ints"), Attr("size", "ints"), Attr("step", "ints")),
        vjp=rules.slice,
    )
)
PAD = register(
    OpDef(
        name="pad",
        kind="movement",
        arity=1,
        doc="x with `low` and `high` elements `value` at the ends and `interior` between neighbours; any dtype.",
        infer=_infer_pad,
        evaluate=_evaluate_pad,
        attrs=(Attr("low", "ints"), Attr("high", "ints"), Attr("interior", "ints"), Attr("value", "scalar")),
        vjp=rules.pad,
    )
)
CONCAT = register(
    OpDef(
        name="concat",
        kind="movement",
        arity=None,
        doc="Operands one after the other along `axis`; any one dtype, other dimensions equal.",
        infer=_infer_concat,
        evaluate=_evaluate_concat,
        attrs=(Attr("axis", "int"),),
        vjp=rules.concat,
    )
)
WINDOW = register(
    OpDef(
        name="window",
        kind="movement",
        arity=1,
        doc=(
            "Sliding windows: out[.., i, .., r] = x[.., i*stride + r*dilation, ..]. Each of `axes` (increasing) keeps "
            "the position, (n - dilation*(size-1) - 1) // stride + 1 places; the offsets r come last. Any dtype."
        ),
        infer=_infer_window,
        evaluate=_evaluate_window,
        attrs=(Attr("axes", "ints"), Attr("size", "ints"), Attr("stride", "ints"), Attr("dilation", "ints")),
        vjp=rules.window,
    )
)
FOLD = register(
    OpDef(
        name="fold",
        kind="movement",
        arity=1,
        doc="The adjoint of `window`: windows, as `window` gives them for `shape`, added back. Float or integer.",
        infer=_infer_fold,
        evaluate=_evaluate_fold,
        attrs=(Attr("shape", "ints"), *WINDOW_ATTRS),
        vjp=rules.fold,
    )
)
