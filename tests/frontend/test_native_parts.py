"""Several views of one tensor, tensors made of nothing and draws in native recording."""

from __future__ import annotations

from typing import Any

import pytest

import graphc as torch
import graphc.nn.functional as F
from graphc import dropping
from graphc.repeats import MOST_TRIES
from graphc.tensors import learning
from tests.frontend.native_cases import both

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")


def test_parts_are_the_views_that_python_makes() -> None:
    def run() -> list[Any]:
        x = torch.arange(12).reshape(3, 4).double().requires_grad_()
        found: list[Any] = []
        for k in range(6):
            y = x * k
            for parts in (y.chunk(2, 1), y.unbind(), torch.split(y, [1, 2]), x.split(2), y.detach().chunk(3)):
                found += [type(parts), len(parts)]
                for part in parts:
                    place = part.stride(), part.storage_offset(), part._is_view(), part.requires_grad
                    found += [place, part.tolist(), part._chain, getattr(part.grad_fn, "name", lambda: None)()]
            with pytest.raises(RuntimeError, match="multiple views"):
                y.chunk(2)[0].add_(1)
            first, _ = y.detach().chunk(2, 1)
            first.add_(1)
            found.append(y.tolist())
        return found

    ours, theirs = both(run)
    assert ours == theirs


def test_factories_depend_on_modes() -> None:
    for k in range(12):
        torch.set_default_dtype(torch.float64 if k % 2 else torch.float32)
        try:
            with torch.inference_mode(k % 3 == 0):
                made, leaf = torch.zeros(2), torch.ones(2, requires_grad=k % 3 != 0)
            assert made.dtype is (torch.float64 if k % 2 else torch.float32)
            assert made.is_inference() is (k % 3 == 0)
            assert leaf.requires_grad is (k % 3 != 0)
            made.requires_grad_() if k % 3 else None
        finally:
            torch.set_default_dtype(torch.float32)


def test_what_draws_make_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    before = dropping.kept_node

    def counting(*args: Any) -> Any:
        calls.append(1)
        return before(*args)

    monkeypatch.setattr(dropping, "kept_node", counting)
    x, found = torch.ones(64), []
    for _ in range(6):
        found.append(F.dropout(x, 0.5).tolist())
    assert len(calls) <= 2
    assert len({tuple(each) for each in found}) == 6


def test_calls_that_native_code_cannot_repeat_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value has up to eight operands there."""
    tries: list[object] = []
    traced = learning.trace
    monkeypatch.setattr(learning, "trace", lambda *operands: (tries.append(operands), traced(*operands))[1])
    parts = [torch.full((2,), float(k)) for k in range(12)]
    for _ in range(10):
        assert torch.cat(parts).tolist() == [float(k) for k in range(12) for _ in range(2)]
    assert 1 <= len(tries) <= MOST_TRIES + 1  # the first call made the leaves, and has another key
