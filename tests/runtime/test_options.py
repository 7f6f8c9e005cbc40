"""Options: where a value comes from, wrong values, scopes, and what enters cache keys."""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Iterator

import pytest

from graphc_runtime import OptionError
from graphc_runtime.options import Option, code_key, declare, option, options, scope

_made: dict[str, Option] = {}


@pytest.fixture
def level() -> Iterator[Option[int]]:
    """An option that exists in this file only."""
    if not _made:
        _made["level"] = declare("test_level", 2, "a level for tests", affects_code=True, choices=(1, 2, 3))
    yield _made["level"]
    _made["level"].reset()


def test_order_of_sources(level: Option[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert level.get() == 2
    monkeypatch.setenv("GRAPHC_TEST_LEVEL", "3")
    level.reset()
    assert level.get() == 3
    level.set(1)
    assert level.get() == 1
    with scope(test_level=2):
        assert level.get() == 2
        with scope(test_level=3, poison=True):
            assert level.get() == 3
        assert level.get() == 2
    assert level.get() == 1
    level.reset()
    assert level.get() == 3


def test_a_scope_ends_also_by_an_error(level: Option[int]) -> None:
    with pytest.raises(KeyError), scope(test_level=3):
        raise KeyError
    assert level.get() == 2


def test_a_scope_is_for_one_thread(level: Option[int]) -> None:
    seen: list[int] = []
    with scope(test_level=3):
        contextvars.Context().run(lambda: seen.append(level.get()))
        other = threading.Thread(target=lambda: seen.append(level.get()))
        other.start()
        other.join()
    assert seen == [2, 2]


@pytest.mark.parametrize("text", ["x", "", "1.5", "4", "0x1"])
def test_wrong_environment(level: Option[int], monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("GRAPHC_TEST_LEVEL", text)
    level.reset()
    with pytest.raises(OptionError, match=r"environment variable GRAPHC_TEST_LEVEL.*a level for tests"):
        level.get()


def test_wrong_values(level: Option[int]) -> None:
    with pytest.raises(OptionError, match=r"4 is not one of 1, 2, 3"):
        level.set(4)
    with pytest.raises(OptionError, match=r"expected int, got True"):
        level.set(True)
    with pytest.raises(OptionError, match=r"expected int, got '2'"), scope(test_level="2"):
        pass
    with pytest.raises(OptionError, match=r"no option 'levle'; options are: .*threads"), scope(levle=1):
        pass
    with pytest.raises(OptionError, match="belongs to the whole process"), scope(threads=1):
        pass
    with pytest.raises(OptionError, match="declared twice"):
        declare("test_level", 1, "again")


@pytest.mark.parametrize(("name", "text"), [("threads", "-1"), ("cache_bytes", "-5")])
def test_numbers_are_finite_and_not_negative(name: str, text: str) -> None:
    with pytest.raises(OptionError, match=f"option {name}: {text} is not a number from 0 on"):
        option(name).parse(text)
    seconds = Option("seconds", 0.5, "for tests", "GRAPHC_TEST_SECONDS")
    for value in (-0.1, math.nan, math.inf):
        with pytest.raises(OptionError, match=r"it: .* is not a number from 0 on"):
            seconds.check(value, "it")


@pytest.mark.parametrize(("text", "value"), [("1", True), ("yes", True), ("ON", True), ("0", False), ("off", False)])
def test_switches(text: str, value: bool) -> None:
    assert option("poison").parse(text) is value
    with pytest.raises(OptionError, match=r"neither on .* nor off"):
        option("poison").parse("maybe")


def test_code_options_enter_the_key(level: Option[int]) -> None:
    before = dict(code_key())
    assert before["test_level"] == "2"
    assert set(before) == {name for name, o in options().items() if o.affects_code}
    for name in ("threads", "cache_dir", "poison"):
        assert name not in before
    with scope(test_level=3):
        assert dict(code_key()) == {**before, "test_level": "3"}
    assert code_key() == tuple(sorted(before.items()))


def test_every_option_explains_itself() -> None:
    for name, declared in options().items():
        assert declared.help
        assert declared.environment == f"GRAPHC_{name.upper()}"
        assert declared.check(declared.default, name) == declared.default
