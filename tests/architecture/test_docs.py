"""The documentation is true: every `gir` block parses, every `python` block runs, every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphc.ir import parse_graphs, verify
from tests.architecture.sources import ROOT, files, relative, run_python

PAGES = [*sorted(ROOT.glob("*.md")), *files(".md", ("docs", "runtime", "examples", "benchmarks"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[object]:
    found: list[object] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match.group(1) == language:
                line = text.count("\n", 0, match.start()) + 2
                found.append(pytest.param(match.group(2), id=f"{relative(page)}:{line}"))
    return found


@pytest.mark.parametrize("text", blocks("gir"))
def test_ir_blocks_parse_and_verify(text: str) -> None:
    graphs = parse_graphs(text)
    assert graphs, "the block holds no graph"
    for graph in graphs:
        verify(graph)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code: str) -> None:
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not broken, broken


def test_readme_starts_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [line.split("#")[0].strip() for line in readme.splitlines() if line.startswith("    ")]
    assert commands[:2] == ["make lenet", "make test"]
