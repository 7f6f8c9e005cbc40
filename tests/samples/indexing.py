"""Samples of the operators that read and write at indices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ir.types import DTYPES, f16, f32, f64, i32, i64
from tests.samples.base import (
    FLOATS,
    INTEGERS,
    BadSample,
    DTypeError,
    OpSamples,
    Sample,
    array,
    distinct,
    t,
)

Rng = np.random.Generator
ANY = tuple(DTYPES)
NUMBERS = (*FLOATS, *INTEGERS)


def _indices(rng: Rng, shape: tuple[int, ...], extent: int, dtype: Any = i64) -> np.ndarray:
    return np.asarray(rng.integers(0, extent, shape)).astype(dtype.numpy)


GATHERS = [
    ((5, 3), (4,), 0),
    ((5, 3), (2, 2), 1),
    ((4,), (), 0),
    ((2, 3, 4), (5, 1), 1),
    ((0, 3), (0,), 0),
    ((3, 2), (0,), 0),
]
ALONGS = [((5, 3), (4, 3), 0), ((5, 3), (2, 6), 1), ((4,), (7,), 0), ((2, 3, 4), (2, 2, 1), 1), ((3, 2), (0, 2), 0)]


def _gathered(x: tuple[int, ...], index: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*x[:axis], *index, *x[axis + 1 :])


def _reading(cases: list[Any], dtypes: tuple[Any, ...]) -> Callable[[Rng], list[Sample]]:
    def make(rng: Rng) -> list[Sample]:
        samples = [
            Sample((array(rng, x, d), _indices(rng, n, max(x[axis], 1), index)), {"axis": axis})
            for k, (x, n, axis) in enumerate(cases)
            for d in (dtypes if k == 0 else dtypes[:1])
            for index in (i64, i32)
        ]
        x, n, axis = cases[0]
        index = np.resize(np.array([-1, 99, -(2**40), 2**40], np.int64), n)
        return [*samples, Sample((array(rng, x, dtypes[0]), index), {"axis": axis})]

    return make


def _adding(
    cases: list[Any], along: bool, dtypes: tuple[Any, ...] = NUMBERS, **attrs: Any
) -> Callable[[Rng], list[Sample]]:
    read = _reading(cases, dtypes)

    def make(rng: Rng) -> list[Sample]:
        samples = []
        for s in read(rng):
            (x, index), axis = s.arrays, s.attrs["axis"]
            shape = index.shape if along else _gathered(x.shape, index.shape, axis)
            samples.append(Sample((x, index, array(rng, shape, s.types[0].dtype)), {**s.attrs, **attrs}))
        return samples

    return make


def _f64_only(make: Callable[[Rng], list[Sample]]) -> Callable[[Rng], list[Sample]]:
    def smooth(rng: Rng) -> list[Sample]:
        return [
            Sample(tuple(a.astype(np.float64) if a.dtype == np.float32 else a for a in s.arrays), s.attrs)
            for s in make(rng)
            if s.types[0].dtype is f32 and s.arrays[0].size and s.arrays[1].size
        ]

    return smooth


def _index_bad(op: str, arity: int, **attrs: Any) -> tuple[BadSample, ...]:
    x, index = t("f32[5,3]"), t("i64[4,3]")
    source = (t("f32[4,3]") if op.startswith("scatter") else t("f32[4,3,3]"),) if arity == 3 else ()
    bad = [
        BadSample((x, t("f32[4,3]"), *source), rf"{op}: an index tensor .*got f32\[4,3\]", {"axis": 0}, DTypeError),
        BadSample((x, index, *source), rf"{op}: axis 2 is out of range for f32\[5,3\]", {"axis": 2}),
        BadSample((x,), rf"{op}: wants {arity} operands, got 1", {"axis": 0}),
        BadSample((t("f32[0,3]"), index, *source), rf"{op}: dimension 0 of f32\[0,3\] has no elements", {"axis": 0}),
    ]
    if op == "take_along" or op.startswith("scatter"):
        bad.append(BadSample((x, t("i64[4,9]"), *source), rf"{op}: .*f32\[5,3\], index i64\[4,9\]", {"axis": 0}))
    if arity == 3:
        bad.append(BadSample((x, index, t("f32[1]")), rf"{op}: .*i64\[4,3\] and f32\[1\]", {"axis": 0}))
        bad.append(BadSample((x, index, t("f64[4,3]")), rf"{op}: .*f32\[5,3\] and f64", {"axis": 0}, DTypeError))
    return tuple(BadSample(b.types, b.match, {**b.attrs, **attrs}, b.error) for b in bad)


def _different(cases: list[Any], along: bool) -> Callable[[Rng], list[Sample]]:
    """Samples in which no place is named twice: a store gives the gradient of a place to all that was stored there."""

    def smooth(rng: Rng) -> list[Sample]:
        samples = []
        for x, n, axis in cases:
            shape = n if along else _gathered(x, n, axis)
            extent = n[axis] if along else int(np.prod(n))
            if 0 in shape or extent > x[axis]:
                continue
            rows = rng.permutation(x[axis])[:extent]
            index = np.broadcast_to(np.expand_dims(rows, [d for d in range(len(n)) if d != axis]), n) if along else rows
            samples.append(Sample((distinct(rng, x), index.reshape(n).copy(), distinct(rng, shape)), {"axis": axis}))
        return samples

    return smooth


def _reducing(mode: str) -> tuple[Callable[[Rng], list[Sample]], Callable[[Rng], list[Sample]]]:
    def smooth(rng: Rng) -> list[Sample]:
        samples = []
        for s in _f64_only(_adding(ALONGS, True, mode=mode))(rng):
            values = distinct(rng, (s.arrays[0].size + s.arrays[2].size,))
            values = 1.5 + values / (2 * np.abs(values).max())
            x, src = values[: s.arrays[0].size], values[s.arrays[0].size :]
            samples.append(Sample((x.reshape(s.arrays[0].shape), s.arrays[1], src.reshape(s.arrays[2].shape)), s.attrs))
        return samples

    return _adding(ALONGS, True, mode=mode), smooth


def _all_modes(place: int) -> Callable[[Rng], list[Sample]]:
    return lambda rng: [s for mode in ("prod", "max", "min") for s in _reducing(mode)[place](rng)]


def _segments(rng: Rng) -> list[Sample]:
    """Orders in which the elements of a row lie together, and some that mean nothing: places are clamped."""
    samples = []
    for dtype in (f32, f64, f16, i32, i64):
        for x, axis, count, mode in (((4,), 0, 9, "add"), ((3, 5, 2), 1, 12, "max"), ((6, 3), 0, 1, "prod")):
            for index in (i32, i64):
                rows = np.sort(rng.integers(0, x[axis], count))
                starts = np.searchsorted(rows, np.arange(x[axis] + 1))
                order = rng.permutation(count)
                if index is i32:
                    starts[1], order[0] = 99, -7
                shape = (*x[:axis], count, *x[axis + 1 :])
                of, numbers = index.numpy, dtype.numpy
                given = (rng.integers(-4, 5, x).astype(numbers), order.astype(of), starts.astype(of))
                source = rng.integers(-4, 5, shape).astype(numbers)
                samples.append(Sample((*given, source), {"axis": axis, "mode": mode}))
    return samples


_SEGMENTS_BAD = (
    BadSample(
        (t("f32[3]"), t("i64[5]"), t("i64[3]"), t("f32[5]")),
        "there are 3 segments, so 4 places",
        {"axis": 0, "mode": "add"},
    ),
    BadSample(
        (t("f32[3]"), t("i64[5]"), t("i64[4]"), t("f32[6]")), "the order has a place", {"axis": 0, "mode": "add"}
    ),
    BadSample(
        (t("f32[3]"), t("i64[5]"), t("i64[4]"), t("f32[5]")), "one of add, .*'mean'", {"axis": 0, "mode": "mean"}
    ),
)

INDEXING: dict[str, OpSamples] = {
    "gather": OpSamples(_reading(GATHERS, ANY), _index_bad("gather", 2), _f64_only(_reading(GATHERS, ANY))),
    "take_along": OpSamples(_reading(ALONGS, ANY), _index_bad("take_along", 2), _f64_only(_reading(ALONGS, ANY))),
    "index_add": OpSamples(
        _adding(GATHERS, False), _index_bad("index_add", 3), _f64_only(_adding(GATHERS, False)), False
    ),
    "scatter_add": OpSamples(
        _adding(ALONGS, True), _index_bad("scatter_add", 3), _f64_only(_adding(ALONGS, True)), False
    ),
    "index_set": OpSamples(_adding(GATHERS, False, ANY), _index_bad("index_set", 3), _different(GATHERS, False)),
    "scatter_set": OpSamples(_adding(ALONGS, True, ANY), _index_bad("scatter_set", 3), _different(ALONGS, True)),
    "scatter_reduce": OpSamples(
        _all_modes(0),
        (
            *_index_bad("scatter_reduce", 3, mode="max"),
            BadSample(
                (t("f32[2]"), t("i64[2]"), t("f32[2]")),
                "scatter_reduce: mode is one of .*'mean'",
                {"axis": 0, "mode": "mean"},
            ),
        ),
        _all_modes(1),
        False,
    ),
    "segment_reduce": OpSamples(_segments, _SEGMENTS_BAD),
}
