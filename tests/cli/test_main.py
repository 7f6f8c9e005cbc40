"""The command itself: help, version, unknown names, exit codes."""

from __future__ import annotations

import pytest

from graphc.cli.main import VERBS
from tests.cli.running import run, run_fresh


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


def test_no_color() -> None:
    done = run_fresh("passes", NO_COLOR="1", FORCE_COLOR="1")
    assert done.returncode == 0
    assert "\x1b[" not in done.stdout + done.stderr
