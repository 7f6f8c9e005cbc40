"""Texts that are kept beside the tests. After a wanted change: `pytest --update-golden`, and look at the difference."""

from __future__ import annotations

import difflib
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def compare(name: str, text: str, update: bool) -> None:
    """Fail when `text` is not what the file `name` holds; with `update` make it so."""
    path = FOLDER / f"{name}.txt"
    if update:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    assert path.exists(), f"{path} is missing: run pytest --update-golden"
    kept = path.read_text(encoding="utf-8")
    if text != kept:
        lines = difflib.unified_diff(kept.splitlines(), text.splitlines(), "kept", "now", lineterm="", n=1)
        shown = "\n".join(list(lines)[:60])
        raise AssertionError(f"{name} changed; when that is wanted run pytest --update-golden\n{shown}")
