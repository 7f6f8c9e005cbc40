"""Row 21: a change of any key field is a miss; every option that changes code is a key field."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import graphc.options
from graphc_runtime import KernelCache
from graphc_runtime.cache_entry import encode_fields, key_of
from graphc_runtime.options import Option, code_key, declare, options

BASE: dict[str, str | bytes] = {
    "kind": "program",
    "text": "define void @f() { ret void }",
    "triple": "x86_64-unknown-linux-gnu",
    "cpu": "znver4",
    "features": "+avx2,+fma",
    "llvm": "22.1.0",
    "blob": b"\x00\x01",
    "empty": "",
}


def changed() -> list[dict[str, str | bytes]]:
    """BASE with one thing different, in every way that one thing can differ."""
    found: list[dict[str, str | bytes]] = []
    for name, value in BASE.items():
        found += [{k: v for k, v in BASE.items() if k != name}]
        found += [{(name + "x" if k == name else k): v for k, v in BASE.items()}]
        longer = value + "x" if isinstance(value, str) else value + b"x"
        other_kind = value.encode() if isinstance(value, str) else value.decode()
        found += [{**BASE, name: longer}, {**BASE, name: other_kind}]
        if value:
            found += [{**BASE, name: value[:-1]}, {**BASE, name: value[:1] * 2 + value[1:]}]
    found += [{**BASE, "new": ""}]
    names = list(BASE)
    for i in range(len(names) - 1):  # the same parts in another order, and with a boundary moved
        order = [*names[:i], names[i + 1], names[i], *names[i + 2 :]]
        found += [{k: BASE[k] for k in order}]
    found += [{**BASE, "triple": "x86_64-unknown-linux-gnuz", "cpu": "nver4"}]
    return found


def test_every_change_is_a_miss(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "c")
    cache.put(BASE, b"code", frozenset())
    for fields in changed():
        assert cache.get(fields, frozenset()) is None, fields
        cache.forget()
        assert cache.get(fields, frozenset()) is None, fields
    assert cache.get(dict(BASE), frozenset()) == b"code"


def test_all_keys_differ() -> None:
    keys = [key_of(encode_fields(fields)) for fields in [BASE, *changed()]]
    for a, b in itertools.combinations(range(len(keys)), 2):
        assert keys[a] != keys[b], (a, b)


def another_value(declared: Option) -> object:
    """A value of the option that is not the one it has."""
    now = declared.get()
    if declared.choices:
        return next(choice for choice in declared.choices if choice != now)
    if isinstance(now, bool):
        return not now
    return now + ("x" if isinstance(now, str) else 1)


@pytest.fixture
def fresh_option() -> Option[int]:
    """An option that a developer has just added."""
    return options().get("test_fresh") or declare("test_fresh", 1, "new here", affects_code=True)


def test_options_that_change_code_enter_keys_by_themselves(tmp_path: Path, fresh_option: Option[int]) -> None:
    assert graphc.options.options() == options()
    assert fresh_option.name in dict(code_key())
    cache = KernelCache(tmp_path / "c")
    cache.put({**BASE, **dict(code_key())}, b"code", frozenset())
    tried = 0
    for declared in options().values():
        if not declared.affects_code:
            continue
        try:
            declared.set(another_value(declared))
            assert cache.get({**BASE, **dict(code_key())}, frozenset()) is None, declared.name
            tried += 1
        finally:
            declared.reset()
    assert tried == len(code_key())
    assert cache.get({**BASE, **dict(code_key())}, frozenset()) == b"code"
