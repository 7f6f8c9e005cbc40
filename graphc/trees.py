"""Nested tuples, lists and dictionaries as flat lists of leaves and back; iterative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LEAF: Any = "leaf"


def _parts(value: Any) -> list[Any] | None:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) and not hasattr(value, "numel") else None


def flatten(tree: Any) -> tuple[list[Any], list[tuple[Any, int]]]:
    """The leaves in order, and the structure: for each part, before its own parts, what it is and how many it has."""
    leaves: list[Any] = []
    structure: list[tuple[Any, int]] = []
    stack = [tree]
    while stack:
        item = stack.pop()
        parts = _parts(item)
        if parts is None:
            leaves.append(item)
            structure.append((LEAF, 0))
            continue
        kind = (dict, tuple(item)) if isinstance(item, dict) else (type(item), ())
        structure.append((kind, len(parts)))
        stack.extend(reversed(parts))
    return leaves, structure


def rebuild(structure: Sequence[tuple[Any, int]], leaves: Sequence[Any]) -> Any:
    """The tree of a structure with other leaves."""
    remaining = list(leaves)
    built: list[Any] = []
    for kind, count in reversed(structure):
        if kind is LEAF:
            built.append(remaining.pop())
            continue
        parts = [built.pop() for _ in range(count)]
        cls, keys = kind
        if cls is dict:
            built.append(dict(zip(keys, parts, strict=True)))
        else:
            built.append(cls(*parts) if hasattr(cls, "_fields") else cls(parts))
    return built[0]


def structure_text(tree: Any) -> str:
    """The structure as PyTorch's messages show it."""
    _, structure = flatten(tree)
    built: list[str] = []
    for kind, count in reversed(structure):
        if kind is LEAF:
            built.append("*")
            continue
        parts = [built.pop() for _ in range(count)]
        cls, keys = kind
        inside = [p.replace("\n", "\n  ") for p in parts]
        context = list(keys) if cls is dict else None
        built.append(f"TreeSpec({cls.__name__}, {context}, [{(',' + chr(10) + '  ').join(inside)}])")
    return built[0] if built[0] != "*" else "*"
