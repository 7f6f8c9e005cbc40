"""Running the command line in a test: in this process, or in a fresh one with its own cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from graphc.cli.main import command

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str | Path, stdin: str | None = None) -> Result:
    """Run `graphc *arguments` in this process."""
    return CliRunner().invoke(command, [str(a) for a in arguments], input=stdin, prog_name="graphc")


def run_fresh(*arguments: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `graphc *arguments` in a new process, with the variables added to the environment."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "runtime")))
    code = "from graphc.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
