"""Errors name the call, the shapes and dtypes it was given, and the user's line."""

from __future__ import annotations

import copy
import inspect
import linecache
from collections.abc import Callable
from typing import Any

import pytest

import graphc as torch
import graphc.nn.functional as F
from graphc import nn
from graphc.errors import GraphcError, InputError, UsageError

a, b, counts = torch.ones(3, 4), torch.ones(5, 6), torch.zeros(3, dtype=torch.int64)

CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "operator": (lambda: a @ b, "matmul(f32[3,4], f32[5,6])"),
    "function": (lambda: torch.cat([a, b], dim=1), "cat([f32[3,4], f32[5,6]], dim=1)"),
    "method": (lambda: a.view(5), "view(f32[3,4], 5)"),
    "keywords": (lambda: torch.sum(a, dim=7, keepdim=True), "sum(f32[3,4], dim=7, keepdim=True)"),
    "in_place": (lambda: counts.exp_(), "Tensor.exp_(i64[3])"),
    "functional": (lambda: F.conv1d(a, b, padding=2), "conv1d(f32[3,4], f32[5,6], stride=1, padding=2, "),
    "module": (lambda: nn.Linear(3, 4)(b), "Linear.forward(f32[5,6])"),
    "constructor": (lambda: nn.GroupNorm(3, 4), "GroupNorm(num_groups=3, num_channels=4, "),
    "sizes": (lambda: torch.zeros(2, -1, dtype=torch.int32), "zeros(2, -1, dtype=torch.int32)"),
    "element": (lambda: counts.__setitem__(7, 1), "setitem(i64[3], index=7, value=1)"),
    "dtype": (lambda: F.embedding(a, b), "embedding(f32[3,4], f32[5,6]"),
}


@pytest.mark.parametrize("name", CALLS)
def test_call_shapes_dtypes_and_line(name: str) -> None:
    call, text = CALLS[name]
    with pytest.raises(GraphcError) as caught:
        call()
    line = inspect.getsourcelines(call)[1]
    assert f"\n  in {text}" in str(caught.value)
    assert str(caught.value).endswith(f"\n  at {__file__}:{line}")
    assert "\n  at " not in caught.value.message


def test_the_innermost_user_frame_counts() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ b  # the line

    with pytest.raises(RuntimeError) as caught:
        nn.Sequential(Net())(a)
    place = str(caught.value).rsplit(":", 1)[1]
    assert linecache.getline(__file__, int(place)).endswith("# the line\n")


ROWS, PLACES = torch.ones(3, 4), torch.tensor([[0, 9, 1, 2]])
OUTSIDE: dict[str, tuple[Callable[[], Any], str]] = {
    "indexing": (lambda: ROWS[torch.tensor([0, 7])], "index 7 is out of bounds for dimension 0 with size 3"),
    "from the end": (lambda: ROWS[:, torch.tensor([0, -5])], "index -5 is out of bounds for dimension 1 with size 4"),
    "gather": (lambda: ROWS.gather(0, PLACES), "index 9 is out of bounds for dimension 0 with size 3"),
    "scatter": (lambda: ROWS.scatter(0, -PLACES, ROWS), "index -1 is out of bounds for dimension 0 with size 3"),
    "index_add": (
        lambda: ROWS.index_add(0, torch.tensor([3, 1]), ROWS[:2]),
        "index 3 is out of bounds for dimension 0 with size 3",
    ),
    "index_select": (lambda: ROWS.index_select(1, torch.tensor([0, 4])), "index 4 for dimension 1 with size 4"),
    "half as wide": (
        lambda: ROWS.index_select(1, torch.tensor([3, -(2**31)], dtype=torch.int32)),
        "index -2147483648 for dimension 1 with size 4",
    ),
    "take": (lambda: ROWS.take(torch.tensor(12)), "access index 12 on a tensor of 12 elements"),
    "embedding": (lambda: F.embedding(torch.tensor([2, 3]), ROWS), "index 3 of 3 rows"),
    "cross_entropy": (lambda: F.cross_entropy(ROWS, torch.tensor([0, 4, -100])), "Target 4 is out of bounds"),
    "nll_loss": (lambda: F.nll_loss(ROWS, torch.tensor([0, -4, 1])), "Target -4 is out of bounds"),
    "embedding_bag": (lambda: F.embedding_bag(torch.tensor([[2, 3]]), ROWS), "index 3 is not in [0, 3)"),
    "multi_margin": (lambda: F.multi_margin_loss(ROWS, torch.tensor([0, -1, 3])), "target -1 out of range"),
    "multilabel": (lambda: F.multilabel_margin_loss(ROWS[0], torch.tensor([0, 4, -1, 0])), "out of range: 4 is no"),
    "far below": (lambda: ROWS[torch.tensor([0, -(2**63)])], "is out of bounds for dimension 0 with size 3"),
    "far above": (lambda: ROWS[torch.tensor([0, 2**63 - 1])], "is out of bounds for dimension 0 with size 3"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_errors_about_indices_name_the_index_the_bound_and_the_line(name: str) -> None:
    call, text = OUTSIDE[name]
    line = inspect.getsourcelines(call)[1]
    for _ in range(2):
        with pytest.raises(IndexError) as caught:
            call().tolist()
        assert text in str(caught.value)
        lines = range(line, line + 4)
        assert str(caught.value).rpartition("\n  at ")[2] in [f"{__file__}:{at}" for at in lines]


def test_a_compiled_call_names_the_index_of_this_time() -> None:
    @torch.compile
    def picked(at: Any) -> Any:
        return (ROWS[at] * 2).sum()

    for _ in range(3):
        picked(torch.tensor([0, 1])).item()
    for index in (3, -4, 70):
        with pytest.raises(IndexError, match=f"index {index} is out of bounds"):
            picked(torch.tensor([0, index])).item()
    assert picked(torch.tensor([0, -1])).item() == 16


def test_errors_that_come_later_name_the_line_that_caused_them() -> None:
    rows = torch.ones(2)[torch.tensor([5])]  # the line
    with pytest.raises(IndexError) as caught:
        rows.tolist()
    place = str(caught.value).rsplit(":", 1)[1]
    assert linecache.getline(__file__, int(place)).endswith("# the line\n")


def test_replays_raise_with_the_same_place_each_time() -> None:
    @torch.compile
    def pick(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return x[i]  # the line

    assert pick(torch.ones(2), torch.tensor([1])).tolist() == [1.0]
    told = []
    for _ in range(3):
        with pytest.raises(IndexError) as caught:
            pick(torch.ones(2), torch.tensor([5])).tolist()
        depth, entry = 0, caught.value.__traceback__
        while entry is not None:
            depth, entry = depth + 1, entry.tb_next
        told.append((str(caught.value), depth))
    assert told[1] == told[2] and told[0][0] == told[1][0]  # the first call after the capture goes another way
    assert linecache.getline(__file__, int(told[0][0].rsplit(":", 1)[1])).endswith("# the line\n")


def test_errors_without_a_place() -> None:
    assert str(InputError("no such mode")) == "no such mode"
    made = copy.copy(UsageError("raised by the user"))
    with pytest.raises(UsageError) as caught:
        raise made
    assert str(caught.value) == "raised by the user"
