"""Views made again: the steps of a view over another base, by the view functions themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.tensors.shaping import expand, permute, view_
from graphc.tensors.views import Ints, ViewStep

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def replay(base: Tensor, chain: Sequence[ViewStep]) -> Tensor:
    """What `chain` sees of `base`. The errors of views when a step does not fit."""
    seen = base
    for step in chain:
        seen = _step(seen, step.kind, step.a, step.b, step.c)
    return seen


def _step(seen: Tensor, kind: str, a: Ints, b: Ints, c: Ints) -> Tensor:
    if kind == "reshape":
        return view_(seen, *a)
    if kind == "permute":
        return permute(seen, *a)
    if kind == "slice":
        cuts = (slice(s, s + (n - 1) * k + 1 if n else s, k) for s, n, k in zip(a, b, c, strict=True))
        return seen[tuple(cuts)]
    if kind == "broadcast":
        return expand(seen, *a)
    raise ValueError(f"no view is called {kind!r}")
