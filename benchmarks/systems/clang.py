"""A clang to build with: the machine's, or that of the `ziglang` package."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path


def _zig() -> str:
    """The program in the package `ziglang`; ModuleNotFoundError when that is not installed either."""
    package = importlib.import_module("ziglang")
    assert package.__file__ is not None
    return str(Path(package.__file__).with_name("zig"))


def compiler() -> list[str]:
    """A command that compiles and links C for this machine."""
    return ["clang"] if shutil.which("clang") else [_zig(), "cc"]


def frontend(folder: Path) -> str:
    """A program that takes clang's own arguments, with no libraries at hand; written to `folder` if there is none."""
    if found := shutil.which("clang"):
        return found
    script = folder / "clang"
    script.write_text(f'#!/bin/sh\nexec "{_zig()}" clang "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return str(script)
