"""`graphc opt` and `graphc passes`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from graphc.cli.main import command
from graphc.ir import parse_graph, parse_graphs
from graphc.passes.registry import PASSES
from tests.cli.running import run

DOUBLE_NEGATION = """graph @f(%x: f32[4,3], %y: f32[4,3]) {
  %2 = mul %x, %y : f32[4,3]
  %3 = neg %2 : f32[4,3]
  %4 = neg %3 : f32[4,3]
  return %4
}
"""
SIMPLE = """graph @f(%x: f32[4,3], %y: f32[4,3]) {
  %2 = mul %x, %y : f32[4,3]
  return %2
}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "double.gir"
    path.write_text(DOUBLE_NEGATION)
    return path


def test_no_pass_prints_the_graph_unchanged(file: Path) -> None:
    result = run("opt", file)
    assert result.exit_code == 0
    assert result.stdout == DOUBLE_NEGATION
    assert result.stderr == ""


def test_passes_run_in_order_and_output_parses(file: Path) -> None:
    result = run("opt", file, "-p", "decompose,simplify")
    assert result.exit_code == 0
    assert result.stdout == SIMPLE
    assert str(parse_graph(result.stdout)) == SIMPLE.strip()


def test_stdin_to_file(tmp_path: Path) -> None:
    target = tmp_path / "out.gir"
    result = run("opt", "-", "-p", "simplify", "-o", target, stdin=DOUBLE_NEGATION)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert target.read_text() == SIMPLE


def test_several_graphs_in_one_file() -> None:
    result = run("opt", "-", "-p", "simplify", stdin=DOUBLE_NEGATION + DOUBLE_NEGATION.replace("@f", "@g"))
    assert [g.name for g in parse_graphs(result.stdout)] == ["f", "g"]


def test_json(file: Path) -> None:
    result = run("opt", file, "-p", "decompose,simplify", "--json")
    data = json.loads(result.stdout)
    assert data["version"] == 1
    assert data["graphs"] == [SIMPLE.strip()]
    assert [(p["pass"], p["changed"], p["nodes"]) for p in data["passes"]] == [
        ("decompose", False, 5),
        ("simplify", True, 3),
    ]


def test_print_after_and_time_go_to_stderr(file: Path) -> None:
    result = run("opt", file, "-p", "decompose,simplify", "--print-after", "changed", "--time", "--verify-each")
    assert result.stdout == SIMPLE
    assert "// after simplify\n" in result.stderr
    assert "// after decompose" not in result.stderr
    assert "decompose  (unchanged)" in result.stderr
    everything = run("opt", file, "-p", "decompose,simplify", "--print-after", "all").stderr
    assert "// after decompose (unchanged)" in everything and "// after simplify" in everything
    assert run("opt", file, "-p", "simplify", "--print-after", "simplify").stderr.startswith("// after simplify")


def test_malformed_text_shows_line_column_and_caret(file: Path) -> None:
    file.write_text(DOUBLE_NEGATION.replace("neg %3", "ngg %3"))
    result = run("opt", file)
    assert result.exit_code == 2
    assert f"{file}:4:8: unknown operator `ngg`; did you mean neg" in result.stderr
    assert "    %4 = ngg %3 : f32[4,3]\n         ^" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("text", ["", "graph @f(", "\x00\xff", "graph @f() { return %9 }", "x" * 5000])
def test_bad_text_never_shows_a_traceback(text: str) -> None:
    result = run("opt", "-", stdin=text)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


def test_unknown_file_pass_and_option_say_what_exists(file: Path) -> None:
    result = run("opt", file.with_name("doubel.gir"))
    assert result.exit_code == 2 and "double.gir" in result.stderr
    result = run("opt", file, "-p", "simplfy")
    assert result.exit_code == 2 and all(name in result.stderr for name in PASSES)
    result = run("opt", file, "-p", "simplify{speed=9}")
    assert result.exit_code == 2 and "reassociates" in result.stderr
    result = run("opt", file, "-p", "simplify", "--print-after", "fuse")
    assert result.exit_code == 2 and "changed" in result.stderr
    result = run("opt", file, "-o", file.parent / "missing" / "out.gir")
    assert result.exit_code == 1 and "cannot write" in result.stderr


@pytest.mark.parametrize("given", ["layout{lanes=0}", "layout{lanes=-3}", "simplify,split_leading{cache_bytes=0}"])
def test_sizes_among_options_are_at_least_one(file: Path, given: str) -> None:
    result = run("opt", file, "-p", given)
    assert result.exit_code == 2 and "must be at least 1, not" in result.stderr


def test_exit_codes_are_those_that_the_help_tells(file: Path) -> None:
    assert "Exit code 2 when FILE is no valid graph" in " ".join(run("opt", "--help").stdout.split())
    file.write_text(DOUBLE_NEGATION.replace("neg %3 : f32[4,3]", "neg %3 : f32[3]"))
    assert run("opt", file).exit_code == 2
    file.write_text("graph @f(%x: f32[4]) {\n  %1 = sinh %x : f32[4]\n  return %1\n}\n")
    assert run("opt", file, "-p", "layout").exit_code == 1


def test_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gir"
    path.write_bytes(b"\xff\xfe\x00")
    result = run("opt", path)
    assert result.exit_code == 2 and "cannot read" in result.stderr


def test_stdin_that_is_no_text_is_refused() -> None:
    result = CliRunner().invoke(command, ["opt", "-"], input=b"\xff\xfe")
    assert result.exit_code == 2 and "cannot read -" in result.stderr


def test_passes_lists_all_and_describes_one() -> None:
    listed = run("passes")
    assert listed.exit_code == 0
    assert {line.split()[0] for line in listed.stdout.splitlines()} == set(PASSES)
    one = run("passes", "simplify").stdout
    assert "reassociates=false" in one and "graphc opt FILE.gir -p simplify" in one
    assert 'graphc opt FILE.gir -p "simplify{no_signed_zeros=true}"' in one
    assert "simplify{no_nans=true}" in run("opt", "--help").stdout
    assert run("opt", "-", "-p", "simplify{no_signed_zeros=true}", stdin=SIMPLE).stdout == SIMPLE
    data = json.loads(run("passes", "--json").stdout)
    assert data["version"] == 1
    assert {p["name"] for p in data["passes"]} == set(PASSES)
    assert all(p["doc"] for p in data["passes"])
    unknown = run("passes", "simplfy")
    assert unknown.exit_code == 2 and "Did you mean simplify" in unknown.stderr
