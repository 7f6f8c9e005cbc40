"""Views as chains of steps over a base tensor, and the way back: writing through a chain."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, boolean, i64, row_major_strides
from graphc.tensors.bit_patterns import reinterpret

Ints = tuple[int, ...]
_MOST_WORK: Any = 10000  # steps in which NumPy is to find whether two views have an element in common


@dataclass(frozen=True, slots=True)
class ViewStep:
    """One view operator: `kind` is "reshape" (to `a`), "permute" (by `a`), "slice" (start `a`, size `b`, step `c`),
    "broadcast" (to `a`), "window" (along the dimension `a`, of size `b`, by steps `c`), "strided" (shape `a`, strides
    `b` and offset `c` in a flat source) or "bits" (the memory of the first of `types` as elements of the second, in the
    shape `a`).

    `source` is the shape that it is applied to. The rest tells what PyTorch says of such a view: the name of its
    gradient node, its place among the results of an operator with several, whether gradients were off when it was made.
    """

    kind: str
    source: Ints
    a: Ints
    b: Ints = ()
    c: Ints = ()
    types: tuple[DType, DType] | None = None
    name: str = field(default="", compare=False)
    place: int = field(default=-1, compare=False)
    free: bool = field(default=False, compare=False)


Chain = tuple[ViewStep, ...]


def apply_step(b: Builder, node: Node, step: ViewStep) -> Node:
    """The node that shows what `step` sees of `node`."""
    if step.kind == "reshape":
        return b.reshape(node, step.a)
    if step.kind == "permute":
        return b.permute(node, step.a)
    if step.kind == "slice":
        return b.slice(node, step.a, step.b, step.c)
    if step.kind == "window":
        return b.window(node, step.a, step.b, step.c, (1,))
    if step.kind == "strided":
        return b.apply("gather", (node, _affine(b, step, node.type.device)), {"axis": 0})
    if step.types is not None:
        return reinterpret(b, node, step.types[1], step.a)
    return b.broadcast(node, step.a)


def _affine(b: Builder, step: ViewStep, device: str) -> Node:
    """The places in its flat source, on `device`, that a strided step sees."""
    type = TensorType(i64, step.a, device)
    places = b.constant(step.c[0], type)
    for axis, stride in enumerate(step.b):
        if stride and step.a[axis] > 1:
            places = b.add(places, b.mul(b.iota(axis, type), stride))
    return places


def apply_chain(b: Builder, node: Node, chain: Chain) -> Node:
    """The node that shows what `chain` sees of `node`."""
    if not chain:
        return node
    key = (node, chain)
    made = b.made(key)
    if made is not None:
        return made
    for step in chain:
        node = apply_step(b, node, step)
    return b.keep(key, node)


def inverse_permutation(perm: Ints) -> Ints:
    """The permutation that undoes `perm`."""
    result = [0] * len(perm)
    for i, p in enumerate(perm):
        result[p] = i
    return tuple(result)


def _spread(b: Builder, node: Node, step: ViewStep, value: float | int | bool) -> Node:
    """The elements of a slice at their places in its source, `value` elsewhere."""
    start, size = step.a, step.b
    if 0 in size:
        return b.constant(value, node.type.with_shape(step.source))
    interior = tuple(s - 1 if n > 1 else 0 for s, n in zip(step.c, size, strict=True))
    high = tuple(
        full - s - 1 - (n - 1) * (i + 1) for full, s, n, i in zip(step.source, start, size, interior, strict=True)
    )
    return b.pad(node, start, high, interior, value=value)


def write_chain(b: Builder, base: Node, chain: Chain, new: Node) -> Node:
    """`base` with the part that `chain` sees replaced by `new`. Of elements that are one in memory, the last wins."""
    repeats = any(_may_repeat(step) for step in chain)
    for place in reversed(range(len(chain))):
        step = chain[place]
        if step.types is None or (step.types[0].bits == step.types[1].bits and not repeats):
            continue
        # A part of the bits goes into all of them, which are then written as the elements that they belong to.
        new = _write_steps(b, apply_chain(b, base, chain[: place + 1]), chain[place + 1 :], new)
        new = reinterpret(b, new, step.types[0], step.source)
        chain = chain[:place]
    return _write_steps(b, base, chain, new)


def _write_steps(b: Builder, base: Node, chain: Chain, new: Node) -> Node:
    """`write_chain` for steps that keep the dtype."""
    if any(_may_repeat(step) for step in chain):
        size, count = base.type.size, new.type.size
        if not size or not count:
            return base
        numbers = b.reshape(b.iota(0, TensorType(i64, (size,), base.type.device)), base.shape)
        index = b.reshape(apply_chain(b, numbers, chain), (count,))
        flat = b.apply("index_set", (b.reshape(base, (size,)), index, b.reshape(new, (count,))), {"axis": 0})
        return b.reshape(flat, base.shape)
    mask = b.constant(True, new.type.with_dtype(boolean))
    partial = False
    for step in reversed(chain):
        if step.kind == "permute":
            back = inverse_permutation(step.a)
            new, mask = b.permute(new, back), b.permute(mask, back)
        elif step.kind == "slice":
            partial = True
            new, mask = _spread(b, new, step, 0), _spread(b, mask, step, False)
        elif step.types is not None:
            new = reinterpret(b, new, step.types[0], step.source)
        else:
            new, mask = b.reshape(new, step.source), b.reshape(mask, step.source)
    return b.select(mask, new, base) if partial else new


def _may_repeat(step: ViewStep) -> bool:
    """Whether several elements that the step shows may be one in its source."""
    return step.kind in ("window", "strided") or (
        step.kind == "broadcast" and math.prod(step.a) != math.prod(step.source)
    )


contiguous_strides = lru_cache(maxsize=4096)(row_major_strides)


def is_contiguous(shape: Ints, strides: Ints) -> bool:
    """Whether elements lie one after the other in row-major order."""
    if 0 in shape:
        return True
    step = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1:
            if stride != step:
                return False
            step *= extent
    return True


def spans(shape: Ints, strides: Ints, offset: int) -> tuple[int, int] | None:
    """First place and one past the last of memory that is seen without gaps and repeats, or None if it is not."""
    expected = 1
    for stride, extent in sorted((s, n) for n, s in zip(shape, strides, strict=True) if n != 1):
        if stride != expected:
            return None
        expected *= extent
    return offset, offset + expected


def overlap(a: tuple[Ints, Ints, int], b: tuple[Ints, Ints, int]) -> str:
    """How two views (shape, strides, offset) of one memory meet, as PyTorch tells it: "full", "partial", or "" for not
    at all or unknown.
    """
    if 0 in a[0] or 0 in b[0]:
        return ""
    left, right = spans(*a), spans(*b)
    if left is None or right is None:
        return ""
    if left == right:
        return "full" if a[1] == b[1] else "partial"
    return "partial" if left[0] < right[1] and right[0] < left[1] else ""


class _Place:
    """Memory that is only compared, as NumPy reads it from an object."""

    def __init__(self, type: TensorType, strides: Ints, offset: int) -> None:
        size = type.dtype.itemsize
        self.__array_interface__ = {
            "version": 3,
            "typestr": f"|V{size}",
            "shape": type.shape,
            "strides": tuple([stride * size for stride in strides]),
            "data": ((1 + offset) * size, True),
        }


def meet(a: tuple[TensorType, Ints, int], b: tuple[TensorType, Ints, int]) -> bool:
    """Whether two views (type, strides, offset) of one memory may have an element in common."""
    if not a[0].size or not b[0].size:
        return False
    try:
        return np.shares_memory(np.asarray(_Place(*a)), np.asarray(_Place(*b)), max_work=_MOST_WORK)
    except np.exceptions.TooHardError:
        return True


def repeats_elements(shape: Ints, strides: Ints) -> bool:
    """Whether several elements of the view are one in memory (stride 0 over more than one element)."""
    return 0 not in shape and any(stride == 0 and extent > 1 for extent, stride in zip(shape, strides, strict=True))


def view_strides(shape: Ints, strides: Ints, new_shape: Ints) -> Ints | None:
    """Strides that show memory of `shape` and `strides` as `new_shape`, or None when only a copy can.

    Dimensions are merged into runs in which each step is the next one's extent times its step; every run must split
    exactly.
    """
    if 0 in shape:
        return strides if shape == new_shape else contiguous_strides(new_shape)
    if not shape:
        return (1,) * len(new_shape)
    result = [0] * len(new_shape)
    place = len(new_shape) - 1
    base = strides[-1]
    run = taken = 1
    for i in range(len(shape) - 1, -1, -1):
        run *= shape[i]
        if i == 0 or (shape[i - 1] != 1 and strides[i - 1] != run * base):
            while place >= 0 and (taken < run or new_shape[place] == 1):
                result[place] = taken * base
                taken *= new_shape[place]
                place -= 1
            if taken != run:
                return None
            if i:
                base = strides[i - 1]
                run = taken = 1
    return tuple(result) if place == -1 else None


def infer_shape(given: Ints, count: int) -> Ints:
    """`given` with one -1 replaced so that it holds `count` elements; PyTorch's errors otherwise."""
    unknown = [i for i, n in enumerate(given) if n == -1]
    if len(unknown) > 1:
        raise ShapeError("only one dimension can be inferred")
    for n in given:
        if n < -1:
            raise ShapeError(f"invalid shape dimension {n} at index {given.index(n)} of shape {list(given)}")
    known = math.prod(n for n in given if n != -1)
    wrong = f"shape '{list(given)}' is invalid for input of size {count}"
    if not unknown:
        if known != count:
            raise ShapeError(wrong)
        return given
    if known == 0:
        if count == 0:
            raise ShapeError(
                f"cannot reshape tensor of 0 elements into shape {list(given)} because the unspecified dimension "
                f"size -1 "
                "can be any value and is ambiguous"
            )
        raise ShapeError(wrong)
    if count % known:
        raise ShapeError(wrong)
    return tuple(count // known if n == -1 else n for n in given)
