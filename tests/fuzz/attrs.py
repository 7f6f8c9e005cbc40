"""Random attributes for an operator that is to be applied to given operands."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from graphc.ir import DTYPES, TensorType
from graphc.ir.types import i32, i64

Attrs = dict[str, Any]
Types = Sequence[TensorType]


def random_attrs(rng: random.Random, op: str, types: Types) -> Attrs:
    """Attributes with which `op` usually (not always) accepts operands of `types`; {} where there are none."""
    maker = _MAKERS.get(op)
    return maker(rng, types) if maker else {}


def _factors(rng: random.Random, size: int) -> list[int]:
    found = []
    while size > 1:
        divisors = [d for d in range(2, size + 1) if size % d == 0]
        factor = rng.choice(divisors)
        found.append(factor)
        size //= factor
    return found


def _reshape(rng: random.Random, types: Types) -> Attrs:
    size = types[0].size
    shape = _factors(rng, size) if size else [0, *rng.sample([1, 2, 3], rng.randint(0, 2))]
    for _ in range(rng.randint(0, 2)):
        shape.insert(rng.randint(0, len(shape)), 1)
    if rng.random() < 0.3:
        rng.shuffle(shape)
    return {"shape": types[0].shape if rng.random() < 0.1 else tuple(shape)}


def _permute(rng: random.Random, types: Types) -> Attrs:
    perm = list(range(types[0].rank))
    if rng.random() < 0.9:
        rng.shuffle(perm)
    return {"perm": tuple(perm)}


def _broadcast(rng: random.Random, types: Types) -> Attrs:
    kept = [rng.choice([1, 2, 3]) if n == 1 else n for n in types[0].shape]
    front = [rng.choice([1, 2, 3]) for _ in range(rng.choice([0, 0, 1, 2]))]
    return {"shape": tuple(front + kept)}


def _slice(rng: random.Random, types: Types) -> Attrs:
    parts = []
    for n in types[0].shape:
        if n == 0 or rng.random() < 0.02:
            parts.append((0, 0, 1))
        elif rng.random() < 0.4:
            parts.append((0, n, 1))
        else:
            step = rng.choice([1, 1, 2, 3, -1, -2])
            size = rng.randint(1, (n - 1) // abs(step) + 1)
            reach = (size - 1) * abs(step)
            first = rng.randint(0, n - 1 - reach)
            parts.append((first if step > 0 else first + reach, size, step))
    start, size, step = zip(*parts, strict=True) if parts else ((), (), ())
    return {"start": start, "size": size, "step": step}


def _pad(rng: random.Random, types: Types) -> Attrs:
    rank, kind = types[0].rank, types[0].dtype.kind
    attrs: Attrs = {
        "low": tuple(rng.choice([0, 0, 1, 2]) for _ in range(rank)),
        "high": tuple(rng.choice([0, 0, 1, 2]) for _ in range(rank)),
        "interior": tuple(rng.choice([0, 0, 0, 1]) for _ in range(rank)),
    }
    attrs["value"] = {"float": rng.choice([0.0, -0.0, 1.5]), "bool": rng.random() < 0.5}.get(kind, rng.randint(0, 3))
    return attrs


def _concat(rng: random.Random, types: Types) -> Attrs:
    return {"axis": rng.randrange(types[0].rank) if types[0].rank else 0}


def _window(rng: random.Random, types: Types) -> Attrs:
    axes = _axes(rng, [i for i, n in enumerate(types[0].shape) if n], most=2)
    size, stride, dilation = [], [], []
    for axis in axes:
        n = types[0].shape[axis]
        size.append(rng.randint(1, min(3, n)))
        dilation.append(rng.randint(1, 2) if size[-1] > 1 and 2 * (size[-1] - 1) < n else 1)
        stride.append(rng.randint(1, 3))
    return {"axes": axes, "size": tuple(size), "stride": tuple(stride), "dilation": tuple(dilation)}


def _fold(rng: random.Random, types: Types) -> Attrs:
    shape = types[0].shape
    count = rng.randint(1, 2) if len(shape) >= 4 else 1
    rank = len(shape) - count
    axes = tuple(sorted(rng.sample(range(max(rank, 0)), min(count, max(rank, 0)))))
    stride = tuple(rng.randint(1, 3) for _ in axes)
    dilation = tuple(rng.randint(1, 2) for _ in axes)
    result = list(shape[:rank])
    for i, axis in enumerate(axes):
        reach = max(shape[axis] - 1, 0) * stride[i] + dilation[i] * max(shape[rank + i] - 1, 0) + 1
        result[axis] = reach + rng.randrange(stride[i])
    return {"shape": tuple(result), "axes": axes, "stride": stride, "dilation": dilation}


def _axes(rng: random.Random, among: Sequence[int], most: int = 4) -> tuple[int, ...]:
    if not among:
        return ()
    return tuple(sorted(rng.sample(among, rng.randint(1, min(most, len(among))))))


def _reduce(rng: random.Random, types: Types) -> Attrs:
    return {"axes": () if rng.random() < 0.03 else _axes(rng, range(types[0].rank))}


def _extreme(rng: random.Random, types: Types) -> Attrs:
    return {**_reduce(rng, types), "ties": rng.choice(["even", "first"])}


def _arg(rng: random.Random, types: Types) -> Attrs:
    return {**_reduce(rng, types), "dtype": rng.choice([i32, i64])}


def _cast(rng: random.Random, types: Types) -> Attrs:
    return {"dtype": rng.choice(DTYPES)}


def _scan(rng: random.Random, types: Types) -> Attrs:
    return {**_concat(rng, types), "reverse": rng.random() < 0.5}


def _scatter_reduce(rng: random.Random, types: Types) -> Attrs:
    return {**_concat(rng, types), "mode": rng.choice(["prod", "max", "min"])}


def _segment_reduce(rng: random.Random, types: Types) -> Attrs:
    return {**_concat(rng, types), "mode": rng.choice(["add", "prod", "max", "min"])}


def _argsort(rng: random.Random, types: Types) -> Attrs:
    return {**_concat(rng, types), "descending": rng.random() < 0.5}


def _argselect(rng: random.Random, types: Types) -> Attrs:
    made = _argsort(rng, types)
    n = types[0].shape[made["axis"]]
    start = rng.randint(0, n)
    return {**made, "start": start, "count": rng.randint(0, n - start)}


def _flag(name: str) -> Callable[[random.Random, Types], Attrs]:
    return lambda rng, types: {name: rng.random() < 0.5}


def _contract(rng: random.Random, types: Types) -> Attrs:
    """A formula with shared labels, sometimes a dimension of the first operand that is a sum, as in a convolution."""
    x, y = types[0].shape, types[1].shape
    x_dims = [f"a{i}" for i in range(len(x))]
    y_dims, shared = [], set()
    for i, n in enumerate(y):
        fitting = [j for j, m in enumerate(x) if m == n and j not in shared]
        if fitting and rng.random() < 0.8:
            shared.add(fitting[0])
            y_dims.append(f"a{fitting[0]}")
        else:
            y_dims.append(f"b{i}")
    labels = list(dict.fromkeys(x_dims + y_dims))
    for i, label in enumerate(y_dims):
        wide = [j for j, m in enumerate(x) if j not in shared and m >= y[i] > 0]
        if label.startswith("b") and wide and rng.random() < 0.5:
            shared.add(wide[0])
            x_dims[wide[0]] = f"{rng.choice(['', '', '2'])}a{wide[0]}+{label}"
    out = [label for label in labels if rng.random() < 0.6]
    rng.shuffle(out)
    return {"spec": f"{' '.join(x_dims)}, {' '.join(y_dims)} -> {' '.join(out)}"}


_MAKERS: dict[str, Callable[[random.Random, Types], Attrs]] = {
    "reshape": _reshape,
    "permute": _permute,
    "broadcast": _broadcast,
    "slice": _slice,
    "pad": _pad,
    "concat": _concat,
    "window": _window,
    "fold": _fold,
    "reduce_sum": _reduce,
    "reduce_prod": _reduce,
    "reduce_max": _extreme,
    "reduce_min": _extreme,
    "argmax": _arg,
    "argmin": _arg,
    "cast": _cast,
    "contract": _contract,
    "gather": _concat,
    "take_along": _concat,
    "index_add": _concat,
    "scatter_add": _concat,
    "index_set": _concat,
    "scatter_set": _concat,
    "scatter_reduce": _scatter_reduce,
    "segment_reduce": _segment_reduce,
    **dict.fromkeys(("scan_sum", "scan_prod", "scan_max", "scan_min", "recurrence"), _scan),
    "argsort": _argsort,
    "sort": _argsort,
    "argselect": _argselect,
    "searchsorted": _flag("right"),
    "eigvalsh": _flag("upper"),
    "qr": _flag("complete"),
    "solve_triangular": lambda rng, types: {"upper": rng.random() < 0.5, "unit": rng.random() < 0.5},
}

DIMENSIONS = (1, 1, 2, 3, 4, 5, 7, 8, 16, 17)


def random_shape(rng: random.Random, most: int = 2048, zeros: float = 0.015) -> tuple[int, ...]:
    """A shape of rank 0 to 4 with at most `most` elements, now and then with a dimension of 0."""
    while True:
        shape = tuple(
            0 if rng.random() < zeros else rng.choice(DIMENSIONS)
            for _ in range(rng.choice([0, 1, 1, 2, 2, 2, 3, 3, 4]))
        )
        if math.prod(shape) <= most:
            return shape
