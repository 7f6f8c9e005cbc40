"""Runs the samples of an operator in PyTorch and in graphc and compares what comes out."""

from __future__ import annotations

import re
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc
from tests.differential import halves
from tests.differential.calls import (
    Call,
    Gradients,
    Shapes,
    array_of,
    expanded,
    invoke,
    is_tensor,
    make_call,
    plain,
    resolve,
    tensors_in,
    torch,
    transposed,
    weight,
)
from tests.differential.samples.base import Op, Sample

TOLERANCE = {"float64": 1e-9, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}
FORMS = 2  # samples that are also called as a method, in place and with `out=`


def outcome(library: Any, op: Op, call: Call) -> Any:
    """What a call of `op` gives, or what is unique about it."""
    return unique(library, op, invoke(library, op.name, call))


def unique(library: Any, op: Op, results: Any) -> Any:
    """`results`, or their shapes and what is unique about them."""
    return results if op.canonical is None else (Shapes(results), op.canonical(library, results))


# comparing


def differences(found: Any, wanted: Any, op: Op, values: bool = True) -> Iterator[str]:
    """What differs between graphc's result and PyTorch's."""
    if is_tensor(wanted):
        if not isinstance(found, graphc.Tensor):
            yield f"a {type(found).__name__} instead of a tensor"
            return
        if str(found.dtype) != str(wanted.dtype) or tuple(found.shape) != tuple(wanted.shape):
            yield f"{found.dtype}{list(found.shape)}, PyTorch {wanted.dtype}{list(wanted.shape)}"
            return
        if found.requires_grad != wanted.requires_grad:
            yield f"requires_grad={found.requires_grad}, PyTorch {wanted.requires_grad}"
        elif op.grad_fn and wanted.grad_fn is not None and found.grad_fn.name() != wanted.grad_fn.name():
            yield f"grad_fn {found.grad_fn.name()}, PyTorch {wanted.grad_fn.name()}"
        if values:
            yield from _values(array_of(found), array_of(wanted), op, str(wanted.dtype).removeprefix("torch."))
        return
    if isinstance(wanted, Shapes):
        yield from differences(found.value, wanted.value, op, False)
        return
    if isinstance(wanted, Gradients):
        yield from _gradients(found, wanted, op, values)
        return
    if isinstance(wanted, list | tuple):
        fields = getattr(wanted, "_fields", None) or _struct_fields(wanted)
        if not isinstance(found, list | tuple) or len(found) != len(wanted):
            yield f"{type(found).__name__} instead of {type(wanted).__name__} of {len(wanted)}"
        elif fields and list(getattr(found, "_fields", ())) != list(fields):
            yield f"fields {getattr(found, '_fields', None)}, PyTorch {fields}"
        else:
            for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
                yield from (f"[{i}] {text}" for text in differences(a, b, op, values))
        return
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            yield from (f"[{key!r}] {text}" for text in differences(found[key], value, op, values))
        return
    same = str(found) == str(wanted) if str(wanted).startswith("torch.") else found == wanted or found is wanted
    if isinstance(wanted, float) and isinstance(found, float):
        same = bool(np.isclose(found, wanted, rtol=1e-6, equal_nan=True))
    if values and not same:
        yield f"{found!r}, PyTorch {wanted!r}"


def _gradients(found: Gradients, wanted: Gradients, op: Op, values: bool) -> Iterator[str]:
    for order, (ours, theirs) in enumerate(zip(found.made, wanted.made, strict=True), 1):
        for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if a is None and b is None:
                continue
            like = array_of(b if b is not None else a)
            left = np.zeros_like(like) if a is None else array_of(a)
            right = np.zeros_like(like) if b is None else array_of(b)
            name = f"order {order}, argument {place}"
            if left.shape != right.shape or left.dtype != right.dtype:
                yield f"{name}: {left.dtype}{list(left.shape)}, PyTorch {right.dtype}{list(right.shape)}"
            elif values:
                yield from (f"{name}: {text}" for text in _values(left, right, op, str(right.dtype)))


def _struct_fields(value: Any) -> list[str]:
    """Names of PyTorch's own named tuples (torch.return_types)."""
    count = getattr(value, "n_sequence_fields", 0)
    if not count or type(value) is tuple:
        return []
    names = [n for n in dir(type(value)) if isinstance(getattr(type(value), n), types.MemberDescriptorType)]
    by_place = {next(i for i, v in enumerate(value) if v is getattr(value, n)): n for n in names}
    return [by_place[i] for i in sorted(by_place)]


def _values(found: np.ndarray, wanted: np.ndarray, op: Op, dtype: str) -> Iterator[str]:
    if wanted.dtype.kind != "f":
        if not np.array_equal(found, wanted):
            yield f"values {found.ravel()[:8]}, PyTorch {wanted.ravel()[:8]}"
        return
    rtol = op.rtol if dtype == "float64" else TOLERANCE[dtype] * op.slack
    scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
    good = np.isclose(found, wanted, rtol=rtol, atol=rtol * max(float(scale), 1e-3), equal_nan=True)
    if not good.all():
        at = np.unravel_index(int(np.argmin(good)), good.shape) if good.ndim else ()
        count = f"{int((~good).sum())} of {good.size} differ"
        yield f"{found[at]!r} at {tuple(map(int, at))}, PyTorch {wanted[at]!r} ({count})"


# running


@dataclass
class Pair:
    """What both libraries gave for one thing, and its name in messages."""

    what: str
    found: Any
    wanted: Any


def attempt(what: str, op: Op, problems: list[str], pairs: list[Pair], run: Callable[[Any], Any]) -> bool:
    """Run in both libraries; False when PyTorch does not do it (then nothing is compared)."""
    try:
        wanted = run(torch)
    except Exception as error:
        problems.append(f"{what}: PyTorch itself raises {type(error).__name__}: {error}")
        return False
    try:
        pairs.append(Pair(what, run(graphc), wanted))
    except Exception as error:
        problems.append(f"{what}: {type(error).__name__}: {error}")
        return False
    return True


def layouts_of(op: Op) -> list[Callable[..., Any]]:
    """The ways to lay out the arrays of samples beside the plain one."""
    return [f for f in (transposed, expanded) if op.layouts is True or (op.layouts and f.__name__ in op.layouts)]


def check_forward(op: Op, problems: list[str], pairs: list[Pair]) -> None:
    for place, sample in enumerate(op.samples):
        for dtype in op.dtypes:
            layouts = (plain, *layouts_of(op)) if dtype == op.dtypes[0] else (plain,)
            for layout in layouts:
                if layout is expanded and op.name.endswith("_"):
                    continue

                def run(library: Any, sample=sample, dtype=dtype, layout=layout) -> Any:
                    call = make_call(library, sample, dtype, layout, False)
                    return outcome(library, op, call), call.args

                attempt(f"sample {place} ({layout.__name__}, {dtype})", op, problems, pairs, run)


def check_gradients(op: Op, problems: list[str], pairs: list[Pair]) -> None:
    """First and second order: of the results, weighted, then of those gradients that PyTorch can differentiate.

    An order that PyTorch refuses is left out.
    """
    for place, sample in enumerate(op.samples):
        followed: list[list[int]] = []  # at each order, the places that PyTorch differentiates

        def run(library: Any, sample: Sample = sample, followed: list[list[int]] = followed) -> Any:
            call = make_call(library, sample, "float64", plain, True)
            out = outcome(library, op, call)
            level, wrt = list(tensors_in(out)), list(call.leaves)
            found = Gradients([])
            for order in range(min(op.grads, sample.grads)):
                if library is torch:
                    followed.append([i for i, t in enumerate(level) if t is not None and t.requires_grad])
                if order == len(followed):  # PyTorch refused
                    break
                level = [level[i] for i in followed[order]]
                if not level or not wrt:
                    break
                weights = [weight(library, t, order) for t in level if t is not None]
                level = [t for t in level if t is not None]
                try:
                    level = list(library.autograd.grad(level, wrt, weights, create_graph=True, allow_unused=True))
                except Exception:
                    if library is not torch:
                        raise
                    followed.pop()
                    break
                found.made.append(level)
                wrt = wrt + weights
            return out, found

        attempt(f"gradients of sample {place}", op, problems, pairs, run)


def check_forms(op: Op, problems: list[str], pairs: list[Pair]) -> None:
    """As a method, in place, and with `out=`."""
    last = op.name.rpartition(".")[2]
    method = None if op.name.startswith("Tensor.") else getattr(torch.Tensor, last, None)
    for place, sample in enumerate(op.samples[:FORMS]):
        if not sample.args or not isinstance(sample.args[0], np.ndarray):
            continue

        def as_method(library: Any, suffix: str = "", sample=sample) -> Any:
            call = make_call(library, sample, "float64", plain, False)
            made = getattr(call.args[0], last + suffix)(*call.args[1:], **call.kwargs)
            return unique(library, op, made), call.args[0]

        def gradients_in_place(library: Any, sample=sample) -> Any:
            call = make_call(library, sample, "float64", plain, True)
            assert any(t.requires_grad for t in tensors_in(invoke(library, op.name, call))), "no gradient of its own"
            copy = call.args[0] + 0  # leaves cannot be written
            made = getattr(copy, last + "_")(*call.args[1:], **call.kwargs)
            weights = [weight(library, t, 0) for t in tensors_in(made)]
            found = library.autograd.grad(tensors_in(made), call.leaves, weights, allow_unused=True)
            return Gradients([list(found)])

        def with_out(library: Any, sample=sample) -> Any:
            call = make_call(library, sample, "float64", plain, False)
            like = resolve(torch, op.name)(*make_call(torch, sample, "float64", plain, False).args, **call.kwargs)
            outs = [library.empty(0, dtype=getattr(library, str(t.dtype)[6:])) for t in tensors_in(like)]
            out = outs[0] if is_tensor(like) else tuple(outs)
            made = resolve(library, op.name)(*call.args, **call.kwargs, out=out)
            return unique(library, op, made), Shapes(out) if op.canonical else out

        for what, run, exists in (
            ("method", as_method, method is not None),
            ("in place", lambda library: as_method(library, "_"), hasattr(torch.Tensor, last + "_")),
            ("gradients in place", gradients_in_place, op.grads and sample.grads and hasattr(torch.Tensor, last + "_")),
            ("out=", with_out, True),
        ):
            if exists and not op.name.startswith("Tensor.") and _works(run):
                attempt(f"sample {place} as {what}", op, problems, pairs, run)


def _works(run: Callable[[Any], Any]) -> bool:
    try:
        run(torch)
    except Exception:
        return False
    return True


def check_bad(op: Op, problems: list[str]) -> None:
    for place, case in enumerate(op.bad):
        try:
            call = make_call(torch, case, op.dtypes[0], plain, False)
            invoke(torch, op.name, call)
        except Exception as error:
            kind = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
        else:
            problems.append(f"bad {place}: PyTorch accepts it")
            continue
        try:
            call = make_call(graphc, case, op.dtypes[0], plain, False)
            for tensor in tensors_in([invoke(graphc, op.name, call)]):
                tensor.tolist()
            problems.append(f"bad {place}: accepted, PyTorch raises {kind.__name__}")
        except Exception as error:
            if not isinstance(error, kind):
                problems.append(f"bad {place}: {type(error).__name__} ({error}), PyTorch raises {kind.__name__}")
            elif not re.search(case.match, str(error)):
                problems.append(f"bad {place}: the message {str(error)!r} does not match {case.match!r}")


def check(op: Op) -> None:
    """All samples of `op`; everything is recorded first and looked at last, so that it is one program."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*deprecated")  # both libraries say so of some names
        if op.warns:
            warnings.simplefilter("ignore", UserWarning)
        warnings.filterwarnings("ignore", message="Using padding='same'")  # PyTorch, once, of a copy it makes
        problems = problems_of(op)
    assert not problems, f"{op.name}:\n  " + "\n  ".join(problems[:20])


def problems_of(op: Op) -> list[str]:
    """What differs in the samples of `op`."""
    problems: list[str] = []
    pairs: list[Pair] = []
    check_forward(op, problems, pairs)
    if op.forms:
        check_forms(op, problems, pairs)
    if op.grads:
        check_gradients(op, problems, pairs)
    rounded = list(halves.compare(op, problems))
    for pair in pairs:
        problems += [f"{pair.what}: {text}" for text in differences(pair.found, pair.wanted, op, op.values)]
    for case in rounded:
        problems += halves.differences(op, case)
    check_bad(op, problems)
    return problems
