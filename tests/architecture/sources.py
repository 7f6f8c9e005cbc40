"""What the architecture tests know about the source tree: its files, their syntax trees, their imports."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (ROOT / "graphc", ROOT / "runtime" / "graphc_runtime")
FOLDERS = ("graphc", "runtime", "tests", "examples", "benchmarks")


@dataclass(frozen=True)
class Import:
    """One imported module. `inside` names the function it stands in, if any; `typing` is true under TYPE_CHECKING."""

    module: str
    line: int
    inside: str = ""
    typing: bool = False


def files(suffix: str = ".py", folders: tuple[str, ...] = FOLDERS) -> list[Path]:
    """The project's own files with that suffix."""
    found = [p for folder in folders for p in (ROOT / folder).rglob(f"*{suffix}")]
    return sorted(p for p in found if not any(part == "__pycache__" or part.endswith(".egg-info") for part in p.parts))


def package_files() -> list[Path]:
    """The files of the two import packages."""
    return [p for p in files() if any(p.is_relative_to(package) for package in PACKAGES)]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """`graphc/ir/types.py` -> `graphc.ir.types`; a package is its `__init__.py`."""
    base = ROOT / "runtime" if path.is_relative_to(ROOT / "runtime") else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Import name -> file, for both packages."""
    return {module_name(p): p for p in package_files()}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _targets(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parent = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*parent, base] if base else parent)
    for alias in node.names:
        full = f"{base}.{alias.name}"
        yield full if full in modules() else base


@cache
def imports(path: Path) -> list[Import]:
    """Every import statement of a file; `from a import b` counts as `a.b` when that is a module of ours."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: list[Import] = []
    stack: list[tuple[ast.AST, str, bool]] = [(tree(path), "", False)]
    while stack:
        node, inside, typing = stack.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += [Import(target, node.lineno, inside, typing) for target in _targets(node, package)]
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            stack += [(child, inside, True) for child in node.body]
            stack += [(child, inside, typing) for child in node.orelse]
        else:
            here = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else inside
            stack += [(child, here, typing) for child in ast.iter_child_nodes(node)]
    return sorted(found, key=lambda i: i.line)


def within(module: str, prefix: str) -> bool:
    """Whether `module` is `prefix` or lies below it."""
    return module == prefix or module.startswith(prefix + ".")


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python *arguments` from the repository's root, with both packages in sight."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'runtime'}"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
