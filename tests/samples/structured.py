"""Samples of the operators that are not elementwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ir.types import DTYPES, TensorType, boolean, f32, f64, i32, i64
from tests.samples.base import (
    FLOATS,
    INTEGERS,
    BadSample,
    DTypeError,
    OpSamples,
    Sample,
    array,
    distinct,
    specials,
    t,
)

Rng = np.random.Generator
Case = tuple[tuple[int, ...], dict[str, Any]]


def _unary(cases: list[Case], dtypes: tuple[Any, ...]) -> Callable[[Rng], list[Sample]]:
    """Every case in f32, the first case in every other dtype."""

    def make(rng: Rng) -> list[Sample]:
        samples = [Sample((array(rng, shape, dtypes[0]),), attrs) for shape, attrs in cases]
        shape, attrs = cases[0]
        return samples + [Sample((array(rng, shape, dtype),), attrs) for dtype in dtypes[1:]]

    return make


def _smooth(cases: list[Case]) -> Callable[[Rng], list[Sample]]:
    return lambda rng: [Sample((distinct(rng, shape),), attrs) for shape, attrs in cases if np.prod(shape)]


ANY = (f32, *(d for d in DTYPES if d is not f32))
NUMBERS = FLOATS + INTEGERS


def _movement(
    cases: list[Case], bad: tuple[BadSample, ...], dtypes: tuple[Any, ...] = ANY, exact: bool = True
) -> OpSamples:
    return OpSamples(_unary(cases, dtypes), bad, _smooth(cases), exact)


def _slice(start: tuple[int, ...], size: tuple[int, ...], step: tuple[int, ...]) -> dict[str, Any]:
    return {"start": start, "size": size, "step": step}


def _pad(low: tuple[int, ...], high: tuple[int, ...], interior: tuple[int, ...], value: float = 0.0) -> dict[str, Any]:
    return {"low": low, "high": high, "interior": interior, "value": value}


def _window(
    axes: tuple[int, ...], size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> dict[str, Any]:
    return {"axes": axes, "size": size, "stride": stride, "dilation": dilation}


def _fold(
    shape: tuple[int, ...], axes: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> dict[str, Any]:
    return {"shape": shape, "axes": axes, "stride": stride, "dilation": dilation}


def _pad_samples(rng: Rng) -> list[Sample]:
    cases: list[Case] = [
        ((2, 3), _pad((1, 0), (0, 2), (0, 0))),
        ((3, 4), _pad((1, 2), (3, 0), (1, 2), -1.5)),
        ((5,), _pad((0,), (0,), (3,), float("-inf"))),
        ((0, 2), _pad((2, 1), (1, 0), (1, 1), 7.0)),
        ((), _pad((), (), ())),
    ]
    samples = [Sample((array(rng, shape, f32),), attrs) for shape, attrs in cases]
    for dtype in ANY[1:]:
        value = 1.5 if dtype.is_float else True if dtype is boolean else 3
        samples.append(Sample((array(rng, (2, 3), dtype),), _pad((1, 0), (0, 2), (1, 0)) | {"value": value}))
    return samples


def _concat(rng: Rng) -> list[Sample]:
    samples = [
        Sample((array(rng, (2, 3), f32), array(rng, (2, 1), f32), array(rng, (2, 4), f32)), {"axis": 1}),
        Sample((array(rng, (0, 3), f32), array(rng, (2, 3), f32)), {"axis": 0}),
        Sample((array(rng, (5,), f32),), {"axis": 0}),
    ]
    return samples + [Sample((array(rng, (2, 3), d), array(rng, (1, 3), d)), {"axis": 0}) for d in ANY[1:]]


def _concat_smooth(rng: Rng) -> list[Sample]:
    return [Sample((array(rng, (2, 3), f64), array(rng, (2, 2), f64)), {"axis": 1})]


REDUCE_CASES: list[Case] = [
    ((3, 7), {"axes": (1,)}),
    ((3, 7), {"axes": (0,)}),
    ((2, 3, 4), {"axes": (0, 2)}),
    ((2, 3, 4), {"axes": (0, 1, 2)}),
    ((65,), {"axes": (0,)}),
    ((0, 3), {"axes": (1,)}),
    ((1, 1), {"axes": (0, 1)}),
]
EMPTY_CASES: list[Case] = [((3, 0), {"axes": (1,)}), ((0,), {"axes": (0,)})]


def _with(cases: list[Case], **more: Any) -> list[Case]:
    return [(shape, attrs | more) for shape, attrs in cases]


def _reduce_bad(op: str, group: str, **more: Any) -> tuple[BadSample, ...]:
    bad = [
        BadSample((t("f32[2,3]"),), rf"{op}: axis 2 is out of range for f32\[2,3\]", {"axes": (2,)} | more),
        BadSample((t("f32[2,3]"),), rf"{op}: axes \(1, 0\) of f32\[2,3\] are not increasing", {"axes": (1, 0)} | more),
        BadSample((t("f32[2,3]"),) * 2, rf"{op}: wants 1 operand, got 2", {"axes": (0,)} | more),
    ]
    if group == "number":
        bad.append(BadSample((t("bool[2]"),), rf"{op}: wants .*got bool\[2\]", {"axes": (0,)} | more, DTypeError))
    if op not in ("reduce_sum", "reduce_prod"):
        bad.append(
            BadSample((t("f32[2,0]"),), rf"{op}: dimension 1 of f32\[2,0\] has no elements", {"axes": (1,)} | more)
        )
    return tuple(bad)


def _extreme(name: str) -> OpSamples:
    def make(rng: Rng) -> list[Sample]:
        samples = _unary(_with(REDUCE_CASES, ties="even"), ANY)(rng)
        samples += [Sample((array(rng, s, boolean),), a) for s, a in _with(EMPTY_CASES, ties="even")]
        return samples + [Sample(x, {"axes": (1,), "ties": "first"}) for x in _tables()]

    def smooth(rng: Rng) -> list[Sample]:
        return [s for ties in ("even", "first") for s in _smooth(_with(REDUCE_CASES[:3], ties=ties))(rng)]

    bad = BadSample((t("f32[2]"),), rf'{name}: ties is "even" or "first", got .*odd', {"axes": (0,), "ties": "odd"})
    return OpSamples(make, (*_reduce_bad(name, "any", ties="even"), bad), smooth)


def _tables() -> list[tuple[np.ndarray]]:
    """Rows with ties, signed zeros, NaN and infinities."""
    rows = [
        [0.0, -0.0, 0.0],
        [-0.0, -0.0, -1.0],
        [1.0, np.nan, np.inf],
        [np.nan, 1.0, np.nan],
        [2.0, 2.0, 1.0],
        [-np.inf] * 3,
    ]
    return [(np.array(rows, dtype.numpy),) for dtype in (f32, f64)]


def _arg(name: str) -> OpSamples:
    def make(rng: Rng) -> list[Sample]:
        samples = _unary(_with(REDUCE_CASES, dtype=i64), NUMBERS)(rng)
        samples += [Sample((np.array([[3, 3, 1], [1, 1, 1]], np.int32),), {"axes": (0, 1), "dtype": i32})]
        return samples + [Sample(x, {"axes": (1,), "dtype": i32}) for x in _tables()]

    bad = BadSample((t("f32[2]"),), rf"{name}: .*i64 or i32, got f32", {"axes": (0,), "dtype": f32}, DTypeError)
    return OpSamples(make, (*_reduce_bad(name, "number", dtype=i64), bad))


CONTRACTIONS: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
    ("m k, k n -> m n", (3, 5), (5, 4)),
    ("m k, n k -> n m", (17, 9), (6, 9)),
    ("b m k, b k n -> b m n", (2, 3, 4), (2, 4, 5)),
    ("m, m -> ", (7,), (7,)),
    ("m, n -> m n", (3,), (2,)),
    ("m k, n -> n", (3, 2), (4,)),
    (", -> ", (), ()),
    ("b c h+r w+s, o c r s -> b o h w", (2, 3, 5, 6), (4, 3, 3, 2)),
    ("b c 2h+r 2w+3s, o c r s -> b o h w", (2, 2, 8, 9), (2, 2, 3, 2)),
    ("b o h w, b c h+r w+s -> o c r s", (2, 2, 3, 4), (2, 3, 5, 6)),
    ("b o h, b c 3h+2r -> o c r", (2, 2, 3), (2, 3, 12)),
    ("b g h+r, g o r -> b g o h", (2, 2, 6), (2, 3, 3)),
    ("h+r, h r -> h", (6,), (4, 3)),
    ("h+r, h r -> ", (6,), (4, 2)),
    ("2h, h -> h", (7,), (4,)),
    ("b c 2h+r, r -> b c h", (1, 2, 7), (3,)),
    ("2h+r+3q, r q -> h", (12,), (2, 3)),
    ("m k, k n -> m n", (3, 0), (0, 2)),
    ("m, n -> m", (0,), (3,)),
]


def _contract(rng: Rng) -> list[Sample]:
    samples = [Sample((array(rng, x, f32), array(rng, y, f32)), {"spec": s}) for s, x, y in CONTRACTIONS]
    for dtype in NUMBERS[1:]:
        for spec, x, y in (CONTRACTIONS[0], CONTRACTIONS[7]):
            samples.append(Sample((array(rng, x, dtype), array(rng, y, dtype)), {"spec": spec}))
    return samples


def _contract_smooth(rng: Rng) -> list[Sample]:
    return [
        Sample((array(rng, x, f64, -1, 1), array(rng, y, f64, -1, 1)), {"spec": s})
        for s, x, y in CONTRACTIONS
        if np.prod(x) * np.prod(y) and np.prod(x) < 100
    ]


def _spec_bad(text: str, match: str, x: str = "f32[2,3]", y: str = "f32[3,4]") -> BadSample:
    return BadSample((t(x), t(y)), match, {"spec": text})


CONTRACT_BAD = (
    _spec_bad(
        "m k, k n -> m n", r"label 'k' is 3 in one operand and 4 in the other; .*\[2, 3\] and \[4, 4\]", y="f32[4,4]"
    ),
    _spec_bad("m k, k -> m", r"the second operand has 2 dimensions, the formula names 1; .*\[2, 3\] and \[3, 4\]"),
    _spec_bad("m k, k n", r"a formula is"),
    _spec_bad("m K, k n -> m n", r"'K' is not a label"),
    _spec_bad("m m, k n -> m n", r"a label stands twice in the operand 'm m'"),
    _spec_bad("m k, k n -> m q", r"output label 'q' stands in no operand"),
    _spec_bad("m k, k n -> m+n", r"an output dimension is one label"),
    _spec_bad("m h+r, m g -> m", r"sizes of \['h', 'r'\] cannot be told", y="f32[2,4]"),
    _spec_bad(
        "h+r, h r -> h", r"h\+r reaches index 5 in a dimension of size 5; .*\[5\] and \[4, 3\]", "f32[5]", "f32[4,3]"
    ),
    BadSample(
        (t("f32[2,3]"), t("f64[3,4]")),
        r"contract: .*f32\[2,3\] and f64\[3,4\]",
        {"spec": "m k, k n -> m n"},
        DTypeError,
    ),
    BadSample((t("bool[2,3]"), t("bool[3,4]")), r"contract: wants .*bool", {"spec": "m k, k n -> m n"}, DTypeError),
)


def _given(cases: list[tuple[TensorType, dict[str, Any]]], *arrays: np.ndarray) -> Callable[[Rng], list[Sample]]:
    return lambda rng: [Sample(arrays, attrs, type) for type, attrs in cases]


def _constants() -> list[tuple[TensorType, dict[str, Any]]]:
    cases = [
        (TensorType(d, (3,)), {"value": v.item()}) for d in DTYPES for v in specials(d).astype(d.numpy, copy=False)
    ]
    cases = [(type, {"value": float(a["value"]) if type.dtype.is_float else a["value"]}) for type, a in cases]
    return [*cases, (t("f32[]"), {"value": 1.0}), (t("i64[0,2]"), {"value": 3})]


def _drawn(types: list[str], attrs: list[dict[str, Any]]) -> Callable[[Rng], list[Sample]]:
    keys = [(0, 0), (1, 2), (2**40 + 5, 2**33 + 1), (-1, -(2**63))]
    return lambda rng: [
        Sample((np.array(key, np.int64),), each, t(type)) for key in keys for type in types for each in attrs
    ]


STRUCTURED: dict[str, OpSamples] = {
    "input": OpSamples(lambda rng: []),
    "constant": OpSamples(_given(_constants())),
    "iota": OpSamples(
        _given(
            [
                *((TensorType(d, (3, 5)), {"axis": a}) for d in NUMBERS for a in (0, 1)),
                (t("i64[0]"), {"axis": 0}),
                (t("f32[2,0,3]"), {"axis": 2}),
            ]
        )
    ),
    "random_bits": OpSamples(
        _drawn(["i32[3,7]", "i32[]", "i32[0]", "i32[65]"], [{"word": word} for word in (0, 1, 2)])
    ),
    "random_normal": OpSamples(
        _drawn([f"{dtype}[{shape}]" for dtype in ("f32", "f64") for shape in ("3,7", "", "0", "65")], [{}]), exact=False
    ),
    "reshape": _movement(
        [((3, 4), {"shape": (2, 6)}), ((1,), {"shape": ()}), ((), {"shape": (1, 1)}), ((0, 3), {"shape": (5, 0)})],
        (
            BadSample((t("f32[2,3]"),), r"reshape: shape \[4\] is invalid for input of size 6", {"shape": (4,)}),
            BadSample((t("f32[2,3]"),), r"reshape: shape \(-1,\) has an entry below 0", {"shape": (-1,)}),
        ),
    ),
    "permute": _movement(
        [((3, 4), {"perm": (1, 0)}), ((2, 3, 4), {"perm": (2, 0, 1)}), ((), {"perm": ()}), ((0, 3), {"perm": (1, 0)})],
        (BadSample((t("f32[2,3]"),), r"permute: \(0, 0\) is not an order of the 2 dimensions", {"perm": (0, 0)}),),
    ),
    "broadcast": _movement(
        [
            ((3, 1), {"shape": (2, 3, 4)}),
            ((), {"shape": (2, 2)}),
            ((1,), {"shape": (0,)}),
            ((0, 1), {"shape": (0, 3)}),
            ((1, 3), {"shape": (1, 3)}),
        ],
        (
            BadSample((t("f32[2,3]"),), r"broadcast: f32\[2,3\] does not broadcast to \[2, 4\]", {"shape": (2, 4)}),
            BadSample((t("f32[2,3]"),), r"broadcast: f32\[2,3\] does not broadcast to \[3\]", {"shape": (3,)}),
        ),
    ),
    "slice": _movement(
        [
            ((5, 7), _slice((1, 0), (2, 4), (1, 2))),
            ((6,), _slice((5,), (3,), (-2,))),
            ((6,), _slice((4,), (5,), (-1,))),
            ((5, 2), _slice((3, 1), (0, 1), (1, -3))),
            ((), _slice((), (), ())),
        ],
        (
            BadSample((t("f32[5]"),), r"slice: elements 2 to 6 .*f32\[5\]", _slice((2,), (3,), (2,))),
            BadSample((t("f32[5]"),), r"slice: elements 1 to -1 .*f32\[5\]", _slice((1,), (3,), (-1,))),
            BadSample((t("f32[5]"),), r"slice: step \(0,\) has a zero", _slice((1,), (3,), (0,))),
            BadSample((t("f32[5,2]"),), r"slice: start \(1,\) has 1 entries", _slice((1,), (3,), (1,))),
        ),
    ),
    "pad": OpSamples(
        _pad_samples,
        (BadSample((t("f32[2]"),), r"pad: low \(-1,\) has an entry below 0", _pad((-1,), (0,), (0,))),),
        _smooth([((2, 3), _pad((1, 0), (0, 2), (1, 2), 5.0)), ((4,), _pad((0,), (3,), (0,)))]),
    ),
    "concat": OpSamples(
        _concat,
        (
            BadSample((), "concat: wants at least one", {"axis": 0}),
            BadSample((t("f32[2,3]"), t("f32[3,3]")), r"concat: .*f32\[2,3\] and f32\[3,3\]", {"axis": 1}),
            BadSample((t("f32[2]"), t("i32[2]")), r"concat: .*f32\[2\] and i32\[2\]", {"axis": 0}, DTypeError),
            BadSample((t("f32[2]"),), r"concat: axis 1 is out of range for f32\[2\]", {"axis": 1}),
        ),
        _concat_smooth,
    ),
    "window": _movement(
        [
            ((2, 7, 8), _window((1, 2), (3, 2), (2, 3), (1, 2))),
            ((9,), _window((0,), (3,), (1,), (1,))),
            ((5, 2), _window((0,), (5,), (4,), (1,))),
            ((0, 4), _window((1,), (2,), (2,), (1,))),
        ],
        (
            BadSample((t("f32[4]"),), r"window: a window of 3 .* does not fit", _window((0,), (3,), (1,), (2,))),
            BadSample((t("f32[4]"),), r"window: stride \(0,\) has an entry below 1", _window((0,), (3,), (0,), (1,))),
        ),
    ),
    "fold": _movement(
        [
            ((2, 3, 2, 3, 2), _fold((2, 7, 8), (1, 2), (2, 3), (1, 2))),
            ((7, 3), _fold((9,), (0,), (1,), (1,))),
            ((1, 2, 5), _fold((5, 2), (0,), (4,), (1,))),
            ((0, 2, 2), _fold((0, 4), (1,), (2,), (1,))),
        ],
        (
            BadSample(
                (t("f32[5,3]"),),
                r"fold: windows over \[9\] have shape \[7, 3\], .*f32\[5,3\]",
                _fold((9,), (0,), (1,), (1,)),
            ),
            BadSample((t("f32[5]"),), r"fold: f32\[5\] has not the 1 dimensions", _fold((9,), (0,), (1,), (1,))),
            BadSample((t("bool[7,3]"),), "fold: wants", _fold((9,), (0,), (1,), (1,)), DTypeError),
        ),
        NUMBERS,
        False,
    ),
    "reduce_sum": OpSamples(
        _unary(REDUCE_CASES + EMPTY_CASES, NUMBERS),
        _reduce_bad("reduce_sum", "number"),
        _smooth(REDUCE_CASES[:3]),
        False,
    ),
    "reduce_prod": OpSamples(
        _unary(REDUCE_CASES + EMPTY_CASES, NUMBERS),
        _reduce_bad("reduce_prod", "number"),
        lambda rng: [
            Sample((array(rng, (3, 5), f64, 0.5, 1.5),), {"axes": (1,)}),
            Sample((array(rng, (2, 3, 2), f64, -1.5, 1.5),), {"axes": (0, 2)}),
            Sample((np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 1.5], [1.0, 0.5, 0.0]]),), {"axes": (1,)}),
        ],
        False,
    ),
    "reduce_max": _extreme("reduce_max"),
    "reduce_min": _extreme("reduce_min"),
    "argmax": _arg("argmax"),
    "argmin": _arg("argmin"),
    "contract": OpSamples(_contract, CONTRACT_BAD, _contract_smooth, False),
}
