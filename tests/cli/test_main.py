"""The command itself: help, version, unknown names, exit codes."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphc import options
from graphc.cli.main import VERBS, main
from graphc.options import Option
from graphc_runtime import options as runtime_options
from tests.cli.running import ROOT, run, run_fresh

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'runtime'}"}


def test_help_lists_every_verb_with_a_line() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for verb, line in VERBS.items():
        assert verb in result.stdout
        assert line.split()[0] in result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: graphc {verb}")


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("graphc ")


def test_unknown_verb_lists_the_verbs_and_the_nearest() -> None:
    result = run("trian", "lenet")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "unknown verb 'trian'" in result.stderr
    assert "Did you mean train" in result.stderr
    assert all(verb in result.stderr for verb in VERBS)


@pytest.mark.parametrize("arguments", [("--nosuch",), ("opt", "--nosuch"), ("train", "lenet", "--nosuch")])
def test_unknown_flag_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "--nosuch" in result.stderr


def test_bad_option_in_the_environment_is_a_usage_error() -> None:
    done = run_fresh("cache", "info", GRAPHC_CACHE="perhaps")
    assert done.returncode == 2
    assert "GRAPHC_CACHE" in done.stderr and "Traceback" not in done.stderr


def test_nobody_is_told_to_install_from_an_index_on_which_another_project_has_the_name() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    code = [path for folder in ("graphc", "runtime") for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in (*pages, *code) if "graphc[" in path.read_text(encoding="utf-8")]
    assert "pip install -e '.[cuda]'" in (ROOT / "docs" / "cuda.md").read_text(encoding="utf-8")


def test_every_option_stands_in_the_page_of_options_as_it_is_declared() -> None:
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    declared = [o for module in (runtime_options, options) for o in vars(module).values() if isinstance(o, Option)]
    assert len(declared) > 10

    def spelt(value: object) -> str:
        return str(int(value)) if isinstance(value, bool) else str(value) or "empty"

    for option in declared:
        _, _, rest = page.partition(f"| `{option.environment}` | ")
        row = rest.partition("\n")[0]
        assert row.endswith(f"| {'yes' if option.scoped else 'no'} | {option.help} |"), option.name
        assert f" | {spelt(option.default)} | " in row, option.name
        assert all(spelt(choice) in row for choice in option.choices), option.name


class _Full(io.StringIO):
    """A stream to a disk that is full."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("arguments", [("--help",), ("passes",), ("cache", "path"), ("opt", "FILE"), ("trace", "FILE")])
def test_output_that_cannot_be_written_is_one_line(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "g.gir"
    file.write_text("graph @g(%x: f32[4]) {\n  return %x\n}\n")
    monkeypatch.setattr(sys, "stdout", _Full())
    with pytest.raises(SystemExit) as ended:
        main([str(file) if a == "FILE" else a for a in arguments])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "Error: cannot write the output: No space left on device\n"


def test_a_process_that_cannot_write_its_output_says_so_once(tmp_path: Path) -> None:
    file = tmp_path / "read only"
    file.write_text("")
    with file.open() as out:
        done = subprocess.run(
            [sys.executable, "-m", "graphc", "passes"], stdout=out, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
    assert done.returncode == 1 and done.stderr == "Error: cannot write the output: Bad file descriptor\n"


def test_running_the_package_is_the_command() -> None:
    command = [sys.executable, "-m", "graphc", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0 and done.stdout.startswith("graphc ")


def test_no_color() -> None:
    done = run_fresh("passes", NO_COLOR="1", FORCE_COLOR="1")
    assert done.returncode == 0
    assert "\x1b[" not in done.stdout + done.stderr
