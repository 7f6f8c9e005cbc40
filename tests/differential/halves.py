"""The samples of an operator in half precision: what PyTorch gives, or what is nearer to the exact result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc
from tests.differential.calls import (
    Gradients,
    array_of,
    invoke,
    is_tensor,
    make_call,
    plain,
    tensors_in,
    torch,
    weight,
)
from tests.differential.samples.base import Op, Sample

HALVES = {"float16": (10, -14), "bfloat16": (7, -126)}  # bits of the mantissa, exponent of the smallest normal number


def floating(value: Any) -> bool:
    """Whether an array of floats stands somewhere in `value`."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(floating(v) for v in value)
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def sample_of(op: Op) -> Sample | None:
    """The first sample with floats and some elements."""
    return next((s for s in op.samples if floating(s.args) or floating(s.kwargs)), None)


def rounded(sample: Sample, dtype: str) -> Sample:
    """`sample` with arrays that `dtype` holds exactly."""

    def convert(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            held = torch.tensor(np.asarray(value)).to(getattr(torch, dtype)).double().numpy()
            return held.view(type(value))
        if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            return type(value)(convert(v) for v in value)
        return value

    return Sample(
        tuple(convert(a) for a in sample.args), {k: convert(v) for k, v in sample.kwargs.items()}, sample.grads
    )


def run(library: Any, op: Op, sample: Sample, dtype: str, half: str) -> tuple[Any, Gradients]:
    """The results in `dtype` and their first gradients, weighted by numbers that `half` holds."""
    grads = bool(min(op.grads, sample.grads))
    call = make_call(library, sample, dtype, plain, grads)
    out = invoke(library, op.name, call)
    level = [t for t in tensors_in(out) if t.requires_grad] if grads else []
    if not level or not call.leaves or op.canonical:
        return out, Gradients([])
    weights = [weight(library, t.to(getattr(library, half)), 0).detach().to(t.dtype) for t in level]
    try:
        found = library.autograd.grad(level, call.leaves, weights, allow_unused=True)
    except Exception:
        if library is not torch:
            raise
        return out, Gradients([])  # PyTorch has no such derivative
    return out, Gradients([list(found)])


def attempt(library: Any, op: Op, sample: Sample, dtype: str, half: str) -> tuple[Any, Exception | None]:
    try:
        return run(library, op, sample, dtype, half), None
    except Exception as error:
        return None, error


@dataclass
class Case:
    """What graphc and PyTorch gave in half precision, and PyTorch in f64."""

    dtype: str
    found: Any
    wanted: Any
    exact: Any


def compare(op: Op, problems: list[str]) -> Iterator[Case]:
    """One sample in f16 and in bf16, recorded; what is refused by one library alone becomes a problem."""
    first = sample_of(op)
    if first is None:
        return
    for half in HALVES:
        sample = rounded(first, half)
        wanted, refused = attempt(torch, op, sample, half, half)
        found, error = attempt(graphc, op, sample, half, half)
        if error is not None and refused is None:
            problems.append(f"{half}: {type(error).__name__}: {error}")
        elif (error is None and refused is not None) != op.beyond:
            problems.append(f"{half}: beyond={op.beyond}, but PyTorch raises {refused!r}")
        elif error is None and refused is None:
            exact, _ = attempt(torch, op, sample, "float64", half)
            yield Case(half, found, wanted, wanted if exact is None else exact)


def differences(op: Op, case: Case) -> Iterator[str]:
    """Wrong dtypes, and elements that are further from the exact result than all of PyTorch's are, and than some units
    in the last place.
    """
    if not case.wanted[1].made:
        case.found[1].made.clear()
        case.exact[1].made.clear()
    elif not case.exact[1].made:
        case.exact = case.wanted
    ours, theirs, truths = (list(_leaves(made)) for made in (case.found, case.wanted, case.exact))
    if len(ours) != len(theirs):
        yield f"{case.dtype}: {len(ours)} results, PyTorch {len(theirs)}"
        return
    for place, (a, b, c) in enumerate(zip(ours, theirs, truths, strict=True)):
        if not is_tensor(b) or not is_tensor(a):
            continue
        if str(a.dtype) != str(b.dtype):
            yield f"{case.dtype}: [{place}] {a.dtype}, PyTorch {b.dtype}"
        elif op.values and tuple(a.shape) == tuple(b.shape):
            for text in _far(op, case.dtype, array_of(a), array_of(b), array_of(c)):
                yield f"{case.dtype}: [{place}] {text}"


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Gradients):
        for level in value.made:
            yield from level
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _far(op: Op, half: str, found: np.ndarray, wanted: np.ndarray, exact: np.ndarray) -> Iterator[str]:
    if wanted.dtype.kind != "f":
        if not np.array_equal(found, wanted):
            yield f"values {found.ravel()[:8]}, PyTorch {wanted.ravel()[:8]}"
        return
    ours, theirs, truth = (np.asarray(x, np.float64) for x in (found, wanted, exact))
    if truth.shape != theirs.shape:
        truth = theirs
    bits, least = HALVES[half]

    def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """How many units in the last place of b lie between a and b; NaN for infinities and NaN."""
        exponent = np.maximum(np.frexp(np.where(np.isfinite(b), b, 0))[1] - 1, least)
        return np.abs(a - b) / np.ldexp(1.0, exponent - bits)

    with np.errstate(all="ignore"):
        error = apart(ours, truth)
        good = (error <= np.nanmax(apart(theirs, truth), initial=op.ulps)) | (apart(ours, theirs) <= op.ulps)
        good |= (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    if not good.all():
        at = np.unravel_index(int(np.argmin(good)), good.shape) if good.ndim else ()
        count = f"{int((~good).sum())} of {good.size} differ"
        yield f"{ours[at]!r} at {tuple(map(int, at))}, PyTorch {theirs[at]!r}, exactly {truth[at]!r} ({count})"
