"""What programs have in common is kept from the second one on, and no more than there is room for."""

from __future__ import annotations

import pytest

from graphc.codegen import recurring
from graphc.codegen.recurring import Recurring


def test_the_second_one_keeps_and_the_third_one_finds() -> None:
    memory = Recurring[str](10)
    assert memory.find("a") == (None, False)
    assert memory.find("a") == (None, True)
    memory.keep("a", "made")
    assert memory.find("a") == ("made", False)
    memory.clear()
    assert memory.find("a") == (None, False)


def test_what_was_not_found_for_longest_gives_way() -> None:
    memory = Recurring[str](10)
    for key, size in (("a", 4), ("b", 4)):
        memory.keep(key, key, size)
    memory.find("a")
    memory.keep("c", "c", 4)
    assert [memory.find(key)[0] for key in "abc"] == ["a", None, "c"]
    memory.keep("a", "again", 6)
    assert [memory.find(key)[0] for key in "ac"] == ["again", "c"]
    memory.keep("d", "too large", 11)
    assert [memory.find(key)[0] for key in "acd"] == [None, None, None]


def test_old_marks_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurring, "MARKS", 3)
    memory = Recurring[str](10)
    for key in "abcd":
        assert memory.find(key) == (None, False)
    assert memory.find("a") == (None, False)
    assert memory.find("d") == (None, True)
